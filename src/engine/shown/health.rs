//! How pools fare: restarts and why, workers that fail, and what each worker does, as it is shown.
//!
//! Decides nothing. Reads no `/proc`: the memory of a worker's process is looked up by who shows it.

use std::time::Duration;

use crate::engine::core::Core;
use crate::engine::runs::PoolRun;
use crate::engine::view::{FailingView, HeldView, RestartView, WorkerView};
use crate::limits::{HELD_SHOWN_MAX, WORKERS_SHOWN_MAX};
use crate::types::{UnixMs, millis};
use crate::worker::pulse::{Doing, Seen};

/// A worker that came up again, after it had broken while it was up, counts as failing for so long, unless it does a job.
const FAILING_FOR: Duration = Duration::from_secs(60);

/// How a pool fares.
#[derive(Debug, Default)]
pub(in crate::engine) struct Health {
    /// Times that a worker had to be started again.
    restarts: u64,
    /// Why and when that was last so.
    last: Option<(String, UnixMs)>,
    /// As long as its workers cannot be started, or break again and again.
    failing: Option<Failing>,
}

#[derive(Debug)]
struct Failing {
    why: String,
    since: UnixMs,
    /// Starts that it took, and that did not help.
    tries: u32,
    /// When it last broke, by the steady clock.
    at: Duration,
    /// Whether it was up: then a start proves nothing.
    was_up: bool,
}

impl Health {
    /// A worker is started again.
    pub(in crate::engine) fn restarts(&mut self, why: String, now: UnixMs) {
        self.restarts += 1;
        self.last = Some((why, now));
    }

    /// A worker is started again after a pause.
    pub(in crate::engine) fn fails(&mut self, why: String, was_up: bool, now: UnixMs, at: Duration) {
        self.restarts(why.clone(), now);
        let before = self.failing.take();
        let (since, tries) = before.map_or((now, 0), |failing| (failing.since, failing.tries));
        self.failing = Some(Failing { why, since, tries: tries + 1, at, was_up });
    }

    /// A worker is up.
    pub(in crate::engine) fn up(&mut self) {
        self.failing.take_if(|failing| !failing.was_up);
    }

    /// A job is done, while all workers are up that are to be.
    pub(in crate::engine) fn has_done(&mut self) {
        self.failing = None;
    }

    /// Whether and how it fails at `at`, while so many of its workers are up.
    fn failing(&self, up: u32, at: Duration) -> Option<&Failing> {
        let failing = self.failing.as_ref()?;
        (up == 0 || at.saturating_sub(failing.at) < FAILING_FOR).then_some(failing)
    }
}

/// The worker that needs a look most comes first.
fn urgency(worker: &Seen) -> u8 {
    match worker.doing {
        _ if worker.stuck => 0,
        Doing::BackingOff { .. } => 1,
        Doing::Starting => 2,
        Doing::Working => 3,
        Doing::Idle => 4,
    }
}

impl Core {
    /// What a pool's workers do, those first that need a look.
    pub(in crate::engine) fn workers_of(&self, run: &PoolRun) -> Vec<WorkerView> {
        let mut workers = run.pool.workers(self.mono, HELD_SHOWN_MAX);
        workers.sort_by_key(|worker| (urgency(worker), worker.since));
        workers.truncate(WORKERS_SHOWN_MAX);
        workers.into_iter().map(|worker| self.worker_view(worker)).collect()
    }

    fn worker_view(&self, worker: Seen) -> WorkerView {
        let ago = |at: Duration| millis(self.mono.saturating_sub(at));
        let (state, reason, next_try_ms) = match worker.doing {
            Doing::Starting => ("starting", None, None),
            Doing::Idle => ("idle", None, None),
            Doing::Working => ("working", None, None),
            Doing::BackingOff { why, until } => {
                ("backing_off", Some(why), Some(millis(until.saturating_sub(self.mono))))
            }
        };
        let held = |holding: crate::worker::pulse::Holding| HeldView {
            id: holding.id.as_str().to_owned(),
            age_ms: ago(holding.since),
        };
        WorkerView {
            number: Some(worker.number).filter(|number| *number != 0),
            state,
            for_ms: ago(worker.since),
            beat_ms: ago(worker.beat),
            stuck: worker.stuck,
            reason,
            next_try_ms,
            pid: worker.child,
            rss_bytes: None,
            holds: worker.holds,
            jobs: worker.holding.into_iter().map(held).collect(),
        }
    }

    /// How a pool fails, if it does.
    pub(in crate::engine) fn failing_view(&self, run: &PoolRun, workers: &[WorkerView]) -> Option<FailingView> {
        let failing = run.health.failing(run.up, self.mono)?;
        Some(FailingView {
            reason: failing.why.clone(),
            since_ms: failing.since,
            tries: failing.tries,
            next_try_ms: workers.iter().filter_map(|worker| worker.next_try_ms).min(),
            none_up: run.up == 0,
        })
    }
}

impl PoolRun {
    pub(in crate::engine) fn restarts_view(&self) -> (u64, Option<RestartView>) {
        let last = self.health.last.as_ref();
        (self.health.restarts, last.map(|(reason, at)| RestartView { at_ms: *at, reason: reason.clone() }))
    }

    /// What is to be said of it, in words.
    pub(in crate::engine) fn says(&self) -> Option<String> {
        let short = || Some(format!("fewer workers than there are to be: {}", self.short.as_ref()?.why));
        self.hangs().or_else(|| self.why_over.clone()).or_else(|| self.not_up.clone()).or_else(short)
    }
}
