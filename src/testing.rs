//! Queues run to empty inline: for tests of programs that embed biotope.
//!
//! Owns an ecosystem of native workers on a disk in memory, without threads, whose clock stands still until it is moved:
//! nothing depends on how fast the machine is, and the same test sees the same every time. Engine, table, log and cycle are
//! those that serve in earnest; follow-up jobs, attempts, pauses and ends are as they would be.
//!
//! ```
//! use biotope::job::new::NewJob;
//! use biotope::testing::Inline;
//! use biotope::worker::native::{Context, Failure, Natives};
//!
//! fn charge(cents: u64, context: &mut Context<'_>) -> Result<u64, Failure> {
//!     if context.attempt() == 1 {
//!         return Err("the terminal did not answer".into());
//!     }
//!     context.enqueue(NewJob::json("receipt", &cents)?);
//!     Ok(cents)
//! }
//!
//! let mut natives = Natives::new();
//! natives.register_fn("payment", "1", charge)?;
//! natives.register_fn("receipt", "1", |cents: u64, _: &mut Context<'_>| Ok::<_, Failure>(format!("{cents} paid")))?;
//!
//! let mut inline = Inline::new(&natives)?;
//! let payment = inline.push(NewJob::json("payment", &425)?)?;
//! let ran = inline.run_until_empty(); // the clock jumps to the second attempt
//!
//! let types: Vec<&str> = ran.iter().map(|run| run.worker_type.as_str()).collect();
//! assert_eq!(types, ["payment", "payment", "receipt"]);
//! assert_eq!(inline.job(&payment.id)?.attempts, 1);
//! assert_eq!(inline.job(&ran[2].id)?.read_result::<String>()?, "425 paid");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Clock;
use crate::engine::no_resolver;
use crate::engine::stepped::{Stepped, Surrounding};
use crate::engine::view::JobView;
use crate::generation::{LoadError, from_text};
use crate::job::new::{NewJob, Pushed};
use crate::job::transition::State;
use crate::limits::SEGMENT_BYTES_MIN;
use crate::log::LogOptions;
use crate::pool::inline::InlinePools;
use crate::refusal::Refusal;
use crate::simulate::disk::SimDisk;
use crate::types::{UnixMs, millis};
use crate::worker::Outcome;
use crate::worker::native::Natives;

/// Runs of one call, at most: a job that enqueues itself for ever must not hang its test.
pub const RUNS_MAX: usize = 100_000;
/// The time at which every ecosystem begins: the 15th of January 2027.
pub const BEGINS_AT_MS: UnixMs = 1_800_000_000_000;
/// Why nothing can be in the way.
const IN_MEMORY: &str = "a disk in memory does not fail";

/// A run, and what its worker answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// The job's id.
    pub id: String,
    /// Its worker type.
    pub worker_type: String,
    /// Its task.
    pub task: String,
    /// Which attempt it was, from 1.
    pub attempt: u16,
    /// When it was, in milliseconds of Unix time.
    pub at_ms: UnixMs,
    /// What the worker answered; what became of the job, [`Inline::job`] tells.
    pub outcome: Outcome,
}

/// A clock that moves when it is told to: milliseconds since [`BEGINS_AT_MS`].
#[derive(Default)]
struct StandingClock(AtomicU64);

impl Clock for StandingClock {
    fn wall_ms(&self) -> UnixMs {
        BEGINS_AT_MS + self.0.load(Ordering::Relaxed)
    }

    fn mono(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// An ecosystem that does nothing but when it is told to, and then at once.
pub struct Inline {
    engine: Stepped,
    pools: InlinePools,
    clock: Arc<StandingClock>,
}

impl Inline {
    /// An ecosystem of these workers, with all settings by default.
    ///
    /// # Errors
    /// A worker's tag is no label.
    pub fn new(natives: &Natives) -> Result<Self, LoadError> {
        Self::with_config(&natives.config(), natives)
    }

    /// An ecosystem by the text of a config, of these workers and the programs that it names.
    ///
    /// # Errors
    /// What is wrong with the config.
    pub fn with_config(text: &str, natives: &Natives) -> Result<Self, LoadError> {
        let spec = from_text("config", text, Path::new("."), natives)?;
        let clock = Arc::new(StandingClock::default());
        let pools = InlinePools::new(Arc::clone(&clock) as Arc<dyn Clock>);
        let around = Surrounding {
            disk: Arc::new(SimDisk::new(0)),
            options: LogOptions::new(SEGMENT_BYTES_MIN),
            log_id: [1; 16],
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            pools: Box::new(pools.clone()),
            resolver: no_resolver(),
            seed: 0,
        };
        let (engine, _) = Stepped::open(spec, around).expect(IN_MEMORY);
        Ok(Self { engine, pools, clock })
    }

    /// Enqueues a job.
    ///
    /// # Errors
    /// Why it was refused.
    pub fn push(&mut self, job: NewJob) -> Result<Pushed, Refusal> {
        let (to, pushed) = crossbeam_channel::bounded(1);
        self.engine.handle().submit(vec![job], Box::new(move |answers| drop(to.send(answers))));
        self.settle();
        pushed.try_recv().ok().and_then(|mut answers: Vec<_>| answers.pop()).unwrap_or(Err(Refusal::Stopping))
    }

    /// Runs everything that may run now, follow-up jobs included, and returns the runs in their order. No time passes.
    ///
    /// # Panics
    /// After [`RUNS_MAX`] runs.
    pub fn run_due(&mut self) -> Vec<Ran> {
        let mut ran = Vec::new();
        self.run_into(&mut ran);
        ran
    }

    /// Runs jobs until none waits any more, follow-up jobs and further attempts included, and returns the runs in their
    /// order. Whenever nothing can run, the clock jumps to where something follows from it: a job's time, or its expiry.
    /// Dead jobs stay.
    ///
    /// # Panics
    /// After [`RUNS_MAX`] runs; and when jobs wait that nothing can run, since their worker cannot be started.
    pub fn run_until_empty(&mut self) -> Vec<Ran> {
        let mut ran = Vec::new();
        loop {
            self.run_into(&mut ran);
            let Some(at) = self.engine.table().next_moment() else { break };
            let ahead = at.saturating_sub(self.now_ms());
            self.advance(Duration::from_millis(ahead.max(1)));
        }
        let waits = self.engine.table().jobs().filter(|(_, job)| job.state != State::Dead).count();
        assert!(waits == 0, "{waits} jobs wait that nothing can run: {:?}", self.pools.not_up());
        ran
    }

    fn run_into(&mut self, ran: &mut Vec<Ran>) {
        let clock = Arc::clone(&self.clock);
        loop {
            self.settle();
            let any = self.pools.run_some(|job, outcome| {
                ran.push(Ran {
                    id: job.id.to_string(),
                    worker_type: job.worker_type.to_string(),
                    task: job.task.clone(),
                    attempt: job.attempt,
                    at_ms: clock.wall_ms(),
                    outcome: outcome.clone(),
                });
            });
            if !any {
                return;
            }
            assert!(ran.len() <= RUNS_MAX, "{RUNS_MAX} runs and no end: does a job enqueue itself?");
        }
    }

    /// Lets time pass. Nothing runs before it is told to.
    pub fn advance(&mut self, time: Duration) {
        let ms = millis(time);
        self.clock.0.fetch_add(ms, Ordering::Relaxed);
        self.settle();
    }

    /// The time, in milliseconds of Unix time.
    pub fn now_ms(&self) -> UnixMs {
        self.clock.wall_ms()
    }

    /// One job with everything known about it.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn job(&mut self, id: &str) -> Result<JobView, Refusal> {
        self.engine.job(id)
    }

    /// Takes turns until the engine has nothing more to do now.
    fn settle(&mut self) {
        loop {
            self.engine.make_segment();
            self.engine.turn().expect(IN_MEMORY);
            if !self.engine.is_busy() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
