//! The whole core in a simulated world: seeded chance, a disk that forgets and fails, crashes anywhere, and a model beside it.
//!
//! What runs is what production runs: engine, table, log, cleaning and recovery; the disk, the clock, the pools and who
//! steps are simulated. One seed is one world: it draws a mixture of operations, does them one by one, compares the
//! engine with the model after every turn and every start, and in the end, with all faults off, wants everything served.
//! Every check is about one of the named invariants, which a failure begins with; how often each was looked at is counted.
//! The same seed gives the same world, byte by byte.

mod bits;
mod campaign;
mod cancels;
mod check;
pub mod disk;
mod every_call;
mod expect;
mod expected;
mod figures;
#[cfg(test)]
mod golden;
mod held;
mod images;
mod invariant;
mod lives;
mod model;
mod needs;
mod notice;
mod op;
mod plan;
mod pools;
mod redrives;
mod restart;
mod rot;
#[cfg(test)]
mod stories;
mod sweep;
#[cfg(test)]
mod tests;
mod workers;
mod workloads;
mod world;

pub use bits::{BitCounts, flip_bits};
pub use campaign::{Campaign, Report};
pub use figures::Figures;
pub use images::ImageCounts;
pub use op::{How, Op, PushOp};
pub use sweep::{crash_images, failed_calls, workload_count};

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::worker::native::panic_text;
use op::Mixture;
use world::World;

/// Of so many worlds one is about versions that come and go.
const ROLLING_EVERY: u64 = 4;
/// Operations of one world, before its end.
const STEPS: usize = 120;

/// A world in which something did not hold.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// The operation at which it showed, from 0; the number of operations, if it showed at the end.
    pub step: usize,
    /// What did not hold.
    pub what: String,
    /// The operations, as few as show it.
    pub ops: Vec<Op>,
}

impl Failure {
    /// What tells one story from another.
    fn kind(&self) -> String {
        self.what.chars().filter(|c| !c.is_ascii_digit()).take(24).collect()
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "SEED={} failed at step {}: {}", self.seed, self.step, self.what)?;
        for (step, op) in self.ops.iter().enumerate() {
            writeln!(f, "  {step:>3} {op:?}")?;
        }
        Ok(())
    }
}

/// The operations of a seed's world.
pub fn ops(seed: u64) -> Vec<Op> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mixture = Mixture::draw(&mut random);
    let mixture = if seed.is_multiple_of(ROLLING_EVERY) { Mixture::of_versions() } else { mixture };
    (0..STEPS).map(|_| mixture.next(&mut random)).collect()
}

/// Does `ops` in the world of a seed; then, with no fault any more, waits for everything to be served.
///
/// # Errors
/// What did not hold, with these very operations.
pub fn run(seed: u64, ops: &[Op]) -> Result<Figures, Failure> {
    run_with(seed, ops, |_| {})
}

fn run_with(seed: u64, ops: &[Op], then: impl FnOnce(&World)) -> Result<Figures, Failure> {
    let mut step = 0;
    let mut world = World::new(seed);
    let ran = catch_unwind(AssertUnwindSafe(|| {
        for op in ops {
            world.step(op)?;
            step += 1;
        }
        world.settle()?;
        then(&world);
        Ok(std::mem::take(&mut world.figures))
    }));
    let what = match ran {
        Ok(Ok(figures)) => return Ok(figures),
        Ok(Err(what)) => what,
        Err(panic) => format!("panic: {}", panic_text(panic.as_ref())),
    };
    // A world that panicked is not taken down in order: its parts may no longer stand.
    std::mem::forget(world);
    Err(Failure { seed, step, what, ops: ops.to_vec() })
}

/// Leaves out operations, as many as it can, for as long as something still does not hold.
pub fn shrink(failure: Failure) -> Failure {
    let mut best = failure;
    let mut part = best.ops.len() / 2;
    while part > 0 {
        let mut from = 0;
        while from < best.ops.len() {
            let mut fewer = best.ops.clone();
            fewer.drain(from..(from + part).min(best.ops.len()));
            match run(best.seed, &fewer) {
                // Another failure may be another story: this one is to be told.
                Err(failure) if failure.kind() == best.kind() => best = failure,
                Err(_) | Ok(_) => from += part,
            }
        }
        part /= 2;
    }
    best
}
