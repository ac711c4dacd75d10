//! Many worlds, one seed after the other, on every core, until there were enough or the time is up.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{Failure, Figures, ops, run, shrink};
use crate::clock::Clock;

/// How many worlds, and which.
#[derive(Debug, Clone, Copy)]
pub struct Campaign {
    /// The first seed; each world takes the next one.
    pub seed: u64,
    /// Worlds, if there is a number.
    pub runs: Option<u64>,
    /// Time after which no world is begun.
    pub time: Option<Duration>,
    /// Worlds at once.
    pub threads: usize,
}

/// What a campaign found.
#[derive(Debug)]
pub struct Report {
    /// Worlds that held.
    pub worlds: u64,
    /// What happened in them.
    pub figures: Figures,
    /// The first world that did not hold, as short as it can be told.
    pub failure: Option<Failure>,
    /// What should have happened in so many worlds, and never did.
    pub missing: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

impl Campaign {
    /// Runs the worlds. `progress` is called after each.
    pub fn run(&self, clock: &dyn Clock, progress: &(dyn Fn(u64) + Sync)) -> Report {
        let began = clock.mono();
        let (next, worlds) = (AtomicU64::new(0), AtomicU64::new(0));
        let failed = AtomicBool::new(false);
        let all: Mutex<(Figures, Option<Failure>)> = Mutex::default();
        let work = || {
            let mut figures = Figures::default();
            while !failed.load(Ordering::Relaxed) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let late = self.time.is_some_and(|time| clock.mono().saturating_sub(began) >= time);
                if late || self.runs.is_some_and(|runs| number >= runs) {
                    break;
                }
                let seed = self.seed.wrapping_add(number);
                match run(seed, &ops(seed)) {
                    Ok(more) => figures.absorb(&more),
                    Err(failure) => {
                        failed.store(true, Ordering::Relaxed);
                        all.lock().unwrap_or_else(PoisonError::into_inner).1.get_or_insert(failure);
                        break;
                    }
                }
                worlds.fetch_add(1, Ordering::Relaxed);
                progress(1);
            }
            all.lock().unwrap_or_else(PoisonError::into_inner).0.absorb(&figures);
        };
        std::thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                scope.spawn(work);
            }
        });
        let (figures, failure) = all.into_inner().unwrap_or_else(PoisonError::into_inner);
        let took = clock.mono().saturating_sub(began);
        let worlds = worlds.into_inner();
        let missing = super::expected::missing(&figures, worlds);
        Report { worlds, figures, missing, failure: failure.map(shrink), took }
    }
}
