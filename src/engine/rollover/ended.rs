//! Pools that have ended: as they were to, or by a panic of all of their workers; and pools that cannot be made.
//!
//! A version on trial that does not stay up is out of it, and what did the work before goes on with it. Where nothing else
//! could do a type's work, its version is tried again.

use std::time::Duration;

use crate::engine::VersionSpec;
use crate::engine::core::Core;
use crate::engine::runs::{AGAIN_AFTER, Past, PoolRun, TypeRun, Unmade};
use crate::job::transition::State;
use crate::log::Poisoned;
use crate::pool::PoolId;
use crate::rollover::state::State as Role;

/// Versions that ended and are still shown, for each type.
const PAST_SHOWN: usize = 3;
/// Why a version is out whose workers panicked.
const PANICKED: &str = "all of its workers ended by a panic";

impl Core {
    /// The last thread of a pool has ended.
    pub(in crate::engine) fn pool_ended(&mut self, pool: PoolId) -> Result<(), Poisoned> {
        let Some(run) = self.pools.remove(&pool) else { return Ok(()) };
        if run.handed > 0 {
            // Its threads panicked over it.
            self.give_back_lost(pool, &run)?;
        }
        self.measured.keep(run.version_no, &run.runs);
        let PoolRun { pool: threads, type_no, version_no, label, role, made_at, spec, why_over, .. } = run;
        threads.join();
        let of_type = self.types.entry(type_no).or_default();
        let is_kept = of_type.warm == Some(pool);
        of_type.leaves(pool);
        let mut past = Past { version_no, spec, label, state: role.word(), reason: why_over };
        match role {
            Role::Retired | Role::Rejected | Role::Quarantined => {}
            Role::Draining if !is_kept => past.state = Role::Retired.word(),
            Role::Starting | Role::Gating | Role::Ramping | Role::Current | Role::Draining | Role::Warm => {
                // Nobody asked it to.
                tracing::error!(worker_type = %past.spec.worker.worker_type, version = %past.label, "all workers of a pool ended by a panic");
                past.reason = Some(PANICKED.to_owned());
                let lived = self.mono.saturating_sub(made_at);
                return if is_kept {
                    self.way_back_panicked(type_no, &past)
                } else {
                    self.panicked(type_no, past, role, lived)
                };
            }
        }
        of_type.ended(past);
        self.settle()
    }

    /// What a pool held that is gone is given back.
    fn give_back_lost(&mut self, pool: PoolId, run: &PoolRun) -> Result<(), Poisoned> {
        // Another pool of the version is made once this one is given nothing more: their leases do not mingle.
        let later = self.pools.range(pool..).filter(|(_, later)| later.version_no == run.version_no);
        let until = later.map(|(_, later)| later.leases_before).min().unwrap_or(u64::MAX);
        for born in self.table.noted_in(run.type_no, &[State::Reserved]) {
            let job = self.table.noted(born).filter(|job| job.version_no == run.version_no);
            if job.is_some_and(|job| run.leases_before < job.fence.counter && job.fence.counter <= until) {
                self.give_back(born, 0)?;
            }
        }
        Ok(())
    }

    /// One that was kept, or started to be a way back, is none any more.
    fn way_back_panicked(&mut self, type_no: u32, past: &Past) -> Result<(), Poisoned> {
        if self.keeps_way_back(type_no) {
            let warm_for = self.rollout_of(type_no).warm_for;
            self.no_way_back(type_no, past.version_no, warm_for, PANICKED)?;
        }
        self.settle()
    }

    /// One that started, was on trial, or did the work, and lived so long.
    fn panicked(&mut self, type_no: u32, past: Past, role: Role, lived: Duration) -> Result<(), Poisoned> {
        let serves = self.types.get(&type_no).and_then(|of_type| of_type.current).is_some();
        if serves {
            // It was to replace that.
            if role != Role::Starting {
                self.end_trial(type_no)?;
            }
            self.reject(type_no, past)?;
            return self.settle();
        }
        if self.is_on_probation(type_no) {
            self.withdraw(type_no, PANICKED.to_owned())?;
            self.types.entry(type_no).or_default().ended(Past { state: Role::Quarantined.word(), ..past });
            return self.settle();
        }
        let of_type = self.types.entry(type_no).or_default();
        if of_type.trial.take_if(|trial| trial.is_probation()).is_some() {
            // Its way back still starts: it is on probation again once it is up, as after a restart.
            self.rollover.on_trial.remove(&type_no);
        }
        if of_type.next.is_some() {
            of_type.ended(Past { state: Role::Rejected.word(), ..past });
            self.start_next(type_no)?;
        } else if role == Role::Starting || lived < AGAIN_AFTER {
            // It would do so again, and fill the log with what it is handed.
            self.unserved(type_no, past, true)?;
        } else {
            // What starts, or is on trial, starts again once this one is up: it is to replace it, and not the other way round.
            let follows = of_type.incoming.or(of_type.candidate).and_then(|pool| self.pools.get(&pool));
            let next = follows.map(|run| (run.version_no, run.spec.clone()));
            self.stay(type_no)?;
            self.types.entry(type_no).or_default().next = next;
            self.start(type_no, past.version_no, past.spec)?;
        }
        self.settle()
    }

    /// No pool of a version can be made, for this reason.
    pub(super) fn not_made(
        &mut self,
        type_no: u32,
        version_no: u32,
        spec: VersionSpec,
        why: String,
    ) -> Result<(), Poisoned> {
        let Some(label) = self.table.version(version_no).map(|version| version.label.clone()) else { return Ok(()) };
        let past = Past { version_no, spec, label, state: Role::Rejected.word(), reason: Some(why) };
        let of_type = self.types.entry(type_no).or_default();
        if of_type.current.or(of_type.incoming).is_some() {
            self.reject(type_no, past)
        } else {
            self.unserved(type_no, past, false)
        }
    }

    /// Nothing does a type's work, since this version cannot: another one that is there does it, or this one is tried again.
    fn unserved(&mut self, type_no: u32, past: Past, is_broken: bool) -> Result<(), Poisoned> {
        let past = Past { state: Role::Rejected.word(), ..past };
        let of_type = self.types.entry(type_no).or_default();
        let (incoming, candidate) = (of_type.incoming, of_type.candidate);
        if incoming.is_some() || candidate.is_some() {
            of_type.ended(past);
            // Nobody is left to compare it with: it takes over, or does so once it is up.
            let Some(candidate) = candidate.filter(|_| incoming.is_none()) else { return self.end_candidate(type_no) };
            of_type.trial = None;
            self.take_over(candidate)?;
            return self.end_trial(type_no);
        }
        if self.stand_in(type_no)? {
            self.reject(type_no, past)?;
            return self.start_next(type_no);
        }
        let of_type = self.types.entry(type_no).or_default();
        of_type.unmade = Some(Unmade { past: past.clone(), is_broken, at: self.mono + AGAIN_AFTER });
        if of_type.past.iter().any(|known| known.version_no == past.version_no && known.reason == past.reason) {
            return Ok(());
        }
        let (label, why) = (past.label.clone(), past.reason.clone().unwrap_or_default());
        of_type.ended(past);
        tracing::warn!(worker_type = self.name_of(type_no), version = %label, why, "it did not start, or stay up, and nothing else does its work; it will be tried again");
        self.tell_rejected(type_no, &label, why);
        Ok(())
    }

    /// The version that is kept of a type, if it could do the work.
    pub(super) fn kept_up(&self, type_no: u32) -> Option<PoolId> {
        let works = |pool: &PoolId| self.pools.get(pool).is_some_and(|run| run.role == Role::Warm && run.up > 0);
        self.types.get(&type_no)?.warm.filter(works)
    }

    /// Where nothing does a type's work, or is about to, and a version that is kept can: it does. Says whether that is so.
    pub(super) fn stand_in(&mut self, type_no: u32) -> Result<bool, Poisoned> {
        let serves = self.types.get(&type_no).and_then(|of_type| of_type.current.or(of_type.incoming));
        let Some(kept) = self.kept_up(type_no).filter(|_| serves.is_none()) else { return Ok(false) };
        self.types.entry(type_no).or_default().trial = None;
        self.take_over(kept)?;
        self.end_trial(type_no)?;
        Ok(true)
    }

    /// A version that was to be a way back is up: if what it is kept for is only tried again and again, it does the work.
    pub(super) fn stand_in_for_unmade(&mut self, type_no: u32) -> Result<(), Poisoned> {
        let Some(of_type) = self.types.get_mut(&type_no) else { return Ok(()) };
        let Some(unmade) = of_type.unmade.take() else { return Ok(()) };
        if self.stand_in(type_no)? {
            self.reject(type_no, unmade.past)?;
            return self.start_next(type_no);
        }
        self.types.entry(type_no).or_default().unmade = Some(unmade);
        Ok(())
    }

    /// A version did not start, or stay up; what did the work before goes on.
    fn reject(&mut self, type_no: u32, past: Past) -> Result<(), Poisoned> {
        let (version_no, label, why) = (past.version_no, past.label.clone(), past.reason.clone().unwrap_or_default());
        self.types.entry(type_no).or_default().ended(Past { state: Role::Rejected.word(), ..past });
        self.reject_version(type_no, version_no, label, why)
    }

    /// Tries again to start what could not be started, or did not stay up, where nothing else does the work; and for threads
    /// that pools are short of.
    pub(in crate::engine) fn try_again(&mut self) -> Result<(), Poisoned> {
        if self.is_stopping() {
            return Ok(());
        }
        let mono = self.mono;
        let due = |of_type: &TypeRun| of_type.unmade.as_ref().is_some_and(|unmade| unmade.at <= mono);
        let due: Vec<u32> = self.types.iter().filter(|(_, of_type)| due(of_type)).map(|(no, _)| *no).collect();
        // Who has nothing comes first.
        for type_no in &due {
            let Some(of_type) = self.types.get_mut(type_no) else { continue };
            let Some(Unmade { past, .. }) = of_type.unmade.take() else { continue };
            if of_type.current.or(of_type.incoming).is_none() {
                self.start(*type_no, past.version_no, past.spec)?;
            }
        }
        for run in self.pools.values_mut().filter(|run| run.short.is_some()) {
            let of_type = self.table.worker_type(run.type_no);
            run.grow(mono, of_type.is_some_and(|of_type| !of_type.queue.is_empty()));
        }
        if due.is_empty() { Ok(()) } else { self.settle() }
    }

    /// When something is tried again, by the steady clock.
    pub(in crate::engine) fn next_try(&self) -> Option<Duration> {
        if self.is_stopping() {
            return None;
        }
        let unmade = self.types.values().filter_map(|of_type| Some(of_type.unmade.as_ref()?.at));
        unmade.chain(self.pools.values().filter_map(|run| Some(run.short.as_ref()?.at))).min()
    }
}

impl TypeRun {
    /// A version has ended, and is shown for a while.
    fn ended(&mut self, past: Past) {
        self.past.retain(|known| known.version_no != past.version_no || known.state != past.state);
        self.past.push_back(past);
        if self.past.len() > PAST_SHOWN {
            self.past.pop_front();
        }
    }
}
