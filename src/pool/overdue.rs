//! Runs past their deadline on threads that nobody can end: code of this process is asked to stop, and then abandoned.
//!
//! Owns what each thread holds, so that a thread and who gives it up agree on who answers for a job: the lock decides, and
//! each job is answered once. Reads no clock: the engine says when it looks, and is told when to look again.
//!
//! ```text
//! begins ── timeout ──► told to stop ── kill_after ──► abandoned: its job fails, what it has not begun is given back,
//!    └── answered ◄──────────┘                         a new thread takes its place, and nothing that it says counts
//! ```

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Report, ThreadPool, probe, thread};
use crate::limits::ABANDONED_MAX;
use crate::recent::Ran;
use crate::types::Lease;
use crate::worker::Outcome;
use crate::worker::run::Board;

/// What a thread holds.
#[derive(Default)]
pub(super) struct Slot {
    /// The worker's number within its pool.
    worker: u32,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    /// The jobs of its batch that are not answered, in their order: the first one runs.
    leases: VecDeque<Lease>,
    /// When the first one began.
    since: Duration,
    timeout: Duration,
    kill_after: Duration,
    /// When the first one was told to stop, if it was.
    told: Option<Duration>,
    /// Whether the thread ends after this batch, by order.
    leaves: bool,
    abandoned: bool,
}

/// What a look at a thread says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// It holds nothing.
    Idle,
    /// Look again then.
    Again(Duration),
    /// It is abandoned from now on.
    Abandon {
        /// The run that does not end.
        run: Lease,
        /// How long it took until now.
        took: Duration,
        /// What was allowed.
        timeout: Duration,
        /// What it has not begun.
        rest: Vec<Lease>,
        /// Whether it would have ended after that: nobody is to take its place.
        leaves: bool,
    },
}

impl Slot {
    /// Of the worker that has this number.
    pub(super) fn of(worker: u32) -> Self {
        Self { worker, held: Mutex::default() }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Nothing that panics is done under it.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread begins a batch.
    pub(super) fn begins(
        &self,
        leases: impl Iterator<Item = Lease>,
        at: Duration,
        timeout: Duration,
        kill_after: Duration,
    ) {
        let mut held = self.held();
        held.leases.clear();
        held.leases.extend(leases);
        (held.since, held.told) = (at, None);
        (held.timeout, held.kill_after) = (timeout, kill_after);
    }

    /// The thread ends after the batch that it begins now.
    pub(super) fn leaves(&self) {
        self.held().leaves = true;
    }

    /// The thread answers for a job; the next one begins. False: it is not its to answer any more.
    pub(super) fn answers(&self, lease: Lease, at: Duration) -> bool {
        let mut held = self.held();
        if held.abandoned {
            return false;
        }
        if held.leases.front() == Some(&lease) {
            held.leases.pop_front();
            (held.since, held.told) = (at, None);
        } else {
            held.leases.retain(|other| *other != lease);
        }
        true
    }

    /// Whether the thread is abandoned: it must take nothing more, and say nothing.
    pub(super) fn is_abandoned(&self) -> bool {
        self.held().abandoned
    }

    /// Tells a run on the board that its time is over, or gives the thread up; both before the thread can answer once more.
    pub(super) fn look(&self, now: Duration, board: &Board) -> Look {
        let mut held = self.held();
        let Some(run) = held.leases.front().copied() else { return Look::Idle };
        let extended = board.extended(run).unwrap_or_default();
        let stop_at = held.since.saturating_add(held.timeout).max(extended);
        if now < extended {
            // It has asked for more, perhaps after it was told.
            held.told = None;
        }
        match held.told.map(|told| told.saturating_add(held.kill_after)) {
            None if now < stop_at => Look::Again(stop_at),
            None => {
                held.told = Some(now);
                board.overdue(run);
                Look::Again(now.saturating_add(held.kill_after))
            }
            Some(abandon_at) if now < abandon_at => Look::Again(abandon_at),
            Some(_) => {
                held.abandoned = true;
                let rest: Vec<Lease> = held.leases.drain(..).skip(1).collect();
                // When the thread comes to these, it shall pass over them.
                rest.iter().for_each(|lease| board.cancel(*lease));
                let took = now.saturating_sub(held.since);
                Look::Abandon { run, took, timeout: held.timeout, rest, leaves: held.leaves }
            }
        }
    }
}

impl ThreadPool {
    /// Looks at each thread, and does what is to be done. Returns when to look again, if not every thread is idle and stays so.
    pub(super) fn look_at_threads(&mut self, now: Duration) -> Option<Duration> {
        if !self.shared.factory.may_hang() {
            return None;
        }
        // Whatever begins from now on has at least that long.
        let live = self.shared.live.load();
        let shortest = if live.probe.is_some() { live.timeout.min(live.start_timeout) } else { live.timeout };
        let mut next = now.saturating_add(shortest);
        let mut abandoned = Vec::new();
        let shared = Arc::clone(&self.shared);
        self.threads.retain(|(_, slot)| {
            match slot.look(now, &shared.board) {
                Look::Idle => {}
                Look::Again(at) => next = next.min(at),
                Look::Abandon { run, took, timeout, rest, leaves } => {
                    let error = format!(
                        "timed out after {timeout:?} and did not end when it was told to: its thread is abandoned"
                    );
                    tracing::error!(worker_type = %shared.worker_type, version = %shared.label, error);
                    if run == probe::LEASE {
                        // With so many that hang, one more would hang, too.
                        let enough = shared.abandoned() + 1 >= ABANDONED_MAX;
                        let error = Some(Outcome::Fail { error, killed: false });
                        let why = probe::judge(&shared, error).err().unwrap_or_default();
                        (shared.report)(Report::NotUp { why, was_up: false });
                        abandoned.push(leaves || enough);
                        return false;
                    }
                    let fail = (run, Outcome::Fail { error, killed: false }, Some(Ran { waited: None, took }));
                    let back = rest.into_iter().map(|lease| (lease, Outcome::Interrupted, None));
                    let worker = slot.worker;
                    for (lease, outcome, ran) in std::iter::once(fail).chain(back) {
                        (shared.report)(Report::Outcome { lease, worker, outcome, about: None, ran });
                    }
                    (shared.report)(Report::Left);
                    abandoned.push(leaves);
                    return false;
                }
            }
            true
        });
        for leaves in abandoned {
            // First the new one: a pool that is open never seems to have ended.
            if self.orders.is_some() && !leaves {
                match thread::spawn(&self.shared, &self.queue, &self.leaving) {
                    Ok(thread) => self.threads.push(thread),
                    Err(error) => {
                        tracing::error!(%error, "no thread to be had for an abandoned one");
                        self.size = self.size.saturating_sub(1);
                    }
                }
            }
            self.shared.abandon();
        }
        Some(next)
    }
}

#[cfg(test)]
mod tests;
