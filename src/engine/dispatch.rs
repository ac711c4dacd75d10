//! Handing ready jobs to pools: as many as hide the hand-off, and no more, so that order is decided late; and calling back
//! what was handed out.

use std::sync::Arc;

use super::core::{Core, Staged};
use super::runs::{PoolRun, TypeRun};
use crate::job::event::{Event, Release, Reserved};
use crate::job::table::Job;
use crate::job::transition::State;
use crate::log::Poisoned;
use crate::pool::{PoolId, Report, Task};
use crate::recent::How;
use crate::rollover::state::State as Role;
use crate::types::{Fence, Lease, Seq, UnixMs};
use crate::worker::Outcome;
use crate::worker::run::Board;

/// Since when a job that is reserved could have been run; 0 where that is not told: it was given back, or had been dead.
fn due(job: &Job) -> UnixMs {
    let given_back = job.given_back;
    if given_back.interrupts > 0 || given_back.host_deaths > 0 {
        0
    } else if job.attempts > 0 || given_back.deferrals > 0 {
        job.ready_ms
    } else if job.since_ms > 0 {
        0
    } else {
        job.created_ms.max(job.ready_ms)
    }
}

fn how(outcome: &Outcome) -> How {
    match outcome {
        Outcome::Done { .. } => How::Well,
        Outcome::Fail { .. } | Outcome::Dead { .. } => How::Ill,
        Outcome::Cancel { .. }
        | Outcome::Defer { .. }
        | Outcome::Interrupted
        | Outcome::NotStarted { .. }
        | Outcome::HostDeath { .. } => How::Neither,
    }
}

impl Core {
    /// Fills the windows of all pools that take new work.
    pub(super) fn dispatch(&mut self) -> Result<(), Poisoned> {
        if self.is_stopping() || self.stands_still() {
            return Ok(());
        }
        // What was given back in this very turn may be too late for another run.
        self.expire()?;
        if self.stands_still() {
            // Some of what is due may be left, and it must not begin any more.
            return Ok(());
        }
        self.set_sizes();
        let on_trial = |of_type: &TypeRun| of_type.trial.is_some();
        let serving: Vec<(u32, PoolId, bool)> = self
            .types
            .iter()
            .filter_map(|(type_no, of_type)| Some((*type_no, of_type.current?, on_trial(of_type))))
            .collect();
        for (type_no, pool, on_trial) in serving {
            if on_trial {
                self.fill_both(type_no)?;
            } else {
                self.fill(type_no, pool)?;
            }
        }
        Ok(())
    }

    /// Jobs of a type that may be handed out.
    fn ready(&self, type_no: u32) -> u64 {
        let of_type = self.table.worker_type(type_no).filter(|of_type| of_type.paused_since == 0);
        // Those that are held may yet go to a version on trial.
        of_type.map_or(0, |of_type| of_type.queue.len() + of_type.held())
    }

    /// How many of so many ready jobs a pool may be handed now.
    fn free(&mut self, pool: PoolId, ready: u64) -> u64 {
        let mono = self.mono;
        let Some(run) = self.pools.get_mut(&pool) else { return 0 };
        if ready == 0 || run.up == 0 || run.pool.size() == 0 || run.hangs().is_some() {
            return 0;
        }
        let free = run.take_window(mono, ready);
        // Whoever does its first jobs gets one at a time.
        if run.role == Role::Gating { free.min(1_u64.saturating_sub(run.handed)) } else { free }
    }

    /// Fills the windows of a type of which a version is on trial: each job goes where it belongs. What the candidate has no
    /// room for goes to the current version: a version that is slow holds nothing up.
    fn fill_both(&mut self, type_no: u32) -> Result<(), Poisoned> {
        let ready = self.ready(type_no);
        let pools: Vec<PoolId> = self.types.get(&type_no).map(|of_type| of_type.pools().collect()).unwrap_or_default();
        let mut free: Vec<(PoolId, u64)> = pools.into_iter().map(|pool| (pool, self.free(pool, ready))).collect();
        let take = |free: &mut Vec<(PoolId, u64)>, pool: PoolId| {
            let place = free.iter_mut().find(|(of, free)| *of == pool && *free > 0);
            place.map(|(_, free)| *free -= 1).is_some()
        };
        while free.iter().any(|(_, free)| *free > 0) {
            if self.log.is_full() {
                self.again = true;
                break;
            }
            let Some(born) = self.table.pick(type_no) else { break };
            let Some((first, then)) = self.pool_for(type_no, born) else { break };
            let pool = if take(&mut free, first) {
                first
            } else if take(&mut free, then) {
                then
            } else {
                break;
            };
            self.reserve(born, pool)?;
        }
        while let Some((candidate, born)) = self.only_for_candidate(type_no) {
            if self.log.is_full() {
                self.again = true;
                break;
            }
            if !take(&mut free, candidate) {
                break;
            }
            self.reserve(born, candidate)?;
        }
        Ok(())
    }

    fn fill(&mut self, type_no: u32, pool: PoolId) -> Result<(), Poisoned> {
        let ready = self.ready(type_no);
        let mut free = self.free(pool, ready);
        while free > 0 {
            if self.log.is_full() {
                self.again = true;
                break;
            }
            let Some(born) = self.table.pick(type_no) else { break };
            self.reserve(born, pool)?;
            free -= 1;
        }
        Ok(())
    }

    fn reserve(&mut self, born: Seq, pool: PoolId) -> Result<(), Poisoned> {
        let Some(run) = self.pools.get(&pool) else { return Ok(()) };
        self.leases += 1;
        let fence = Fence { epoch: self.log.epoch(), counter: self.leases };
        let event = Event::Reserved(Reserved { born, fence, version_no: run.version_no, at: self.now });
        self.record(&event)?;
        let Some(job) = self.table.noted(born) else { return Ok(()) };
        // A job that was interrupted before, or soon after an unclean stop, could else run twice without a trace.
        let careful = job.given_back.interrupts > 0 || job.given_back.host_deaths > 0 || self.mono < self.careful_until;
        let task = Task {
            lease: Lease { born, fence },
            home: job.home,
            created_ms: job.created_ms,
            attempt: job.attempts.saturating_add(1),
            max_attempts: job.max_attempts,
            named: job.named,
            due_ms: due(job),
        };
        let when_written = !careful && job.home.seq < self.log.durable_up_to();
        self.staged.push(Staged { pool, task, when_written });
        if let Some(run) = self.pools.get_mut(&pool) {
            run.hands(self.mono);
        }
        Ok(())
    }

    /// Hands out what may begin now that all is written, or synced, too.
    pub(super) fn hand_out(&mut self, written_only: bool) {
        let staged = std::mem::take(&mut self.staged);
        let (now, later) = staged.into_iter().partition(|staged| !written_only || staged.when_written);
        self.staged = later;
        self.hand_over(now);
    }

    /// Hands tasks to their pools.
    pub(super) fn hand_over(&mut self, staged: Vec<Staged>) {
        for staged in staged {
            if let Some(run) = self.pools.get(&staged.pool) {
                run.pool.hand(staged.task);
            }
        }
    }

    /// Takes a pool's report over.
    pub(super) fn pool_report(&mut self, pool: PoolId, report: Report) -> Result<(), Poisoned> {
        match report {
            Report::Outcome { lease, worker, outcome, about, ran } => {
                if let Some(run) = self.pools.get_mut(&pool) {
                    run.got_back(self.mono, outcome.is_own_end());
                    if run.not_up.is_none() && matches!(outcome, Outcome::Done { .. }) {
                        run.health.has_done();
                    }
                    run.runs.observe(&outcome, ran);
                    if let Some(ran) = ran {
                        run.recent.add(self.mono, ran, how(&outcome));
                    }
                }
                if let Some(ran) =
                    ran.filter(|_| matches!(outcome, Outcome::Done { .. }) && !self.rollover.on_trial.is_empty())
                {
                    self.note_pace(pool, ran.took);
                }
                self.note_empty(pool)?;
                self.outcome(lease, worker, outcome, about)
            }
            Report::Up => self.pool_up(pool),
            Report::Left => self.worker_left(pool),
            Report::Restarts { why } => {
                if let Some(run) = self.pools.get_mut(&pool) {
                    run.health.restarts(why, self.now);
                }
                Ok(())
            }
            Report::NotUp { why, was_up } => self.pool_not_up(pool, why, was_up),
            // It may take work again: what waits is handed out in this turn.
            Report::Returned => Ok(()),
            Report::Ended => self.pool_ended(pool),
        }
    }

    /// Takes back what a pool has not begun.
    pub(super) fn take_back(&mut self, pool: PoolId, tasks: Vec<Task>, release: Release) -> Result<(), Poisoned> {
        // What a commit that is on its way would hand to it comes first: it is older.
        let on_its_way = self.ahead.as_mut().map(|ahead| &mut ahead.staged);
        let waiting = on_its_way.into_iter().chain([&mut self.staged]);
        let staged: Vec<Staged> =
            waiting.flat_map(|staged| staged.extract_if(.., |staged| staged.pool == pool)).collect();
        for task in tasks.into_iter().chain(staged.into_iter().map(|staged| staged.task)) {
            if let Some(run) = self.pools.get_mut(&pool) {
                run.got_back(self.mono, false);
            }
            if self.is_leased(task.lease) {
                self.release(task.lease.born, release, "", 0)?;
            } else {
                self.forget_run(task.lease);
            }
        }
        Ok(())
    }

    /// Whether a lease is its job's.
    fn is_leased(&self, lease: Lease) -> bool {
        self.table.noted(lease.born).is_some_and(|job| job.state == State::Reserved && job.fence == lease.fence)
    }

    /// Its job was cancelled: what was not handed out yet is not, and what was is told once that is durable.
    pub(super) fn stop_run(&mut self, lease: Lease, version_no: u32) {
        let on_its_way = self.ahead.as_mut().map(|ahead| &mut ahead.staged);
        let staged = on_its_way.into_iter().chain([&mut self.staged]);
        let pool = staged.flat_map(|staged| staged.extract_if(.., |staged| staged.task.lease == lease)).next();
        match pool.and_then(|staged| self.pools.get_mut(&staged.pool)) {
            Some(run) => run.got_back(self.mono, false),
            None => self.on_boards(lease, |run| run.version_no == version_no, Board::cancel),
        }
    }

    /// A run that was cancelled is over. After what it was told: that waits for a commit, and so does this.
    pub(super) fn forget_run(&mut self, lease: Lease) {
        self.on_boards(lease, |_| true, Board::forget);
    }

    /// Which pool of a version holds a run is not noted, and another one does not mind.
    fn on_boards(&mut self, lease: Lease, of: impl Fn(&PoolRun) -> bool, tell: fn(&Board, Lease)) {
        let pools = self.pools.values().filter(|run| of(run));
        let boards: Vec<_> = pools.map(|run| Arc::clone(run.pool.board())).collect();
        self.reply(move |durable| {
            if durable {
                boards.iter().for_each(|board| tell(board, lease));
            }
        });
    }

    /// Born seqs of all reserved jobs.
    pub(super) fn held_leases(&self) -> Vec<Seq> {
        let types: Vec<u32> = self.table.types().map(|(no, _)| no).collect();
        types.into_iter().flat_map(|no| self.table.noted_in(no, &[State::Reserved])).collect()
    }
}
