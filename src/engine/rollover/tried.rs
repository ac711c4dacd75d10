//! Jobs while a version of their type is on trial: which pool one is for, and what its end is evidence of.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::engine::core::Core;
use crate::engine::outcome::failed;
use crate::engine::runs::{PoolRun, TypeRun};
use crate::job::table::Job;
use crate::limits::ERROR_BYTES_KEPT;
use crate::pool::PoolId;
use crate::rollover::{Arm, First};
use crate::types::Seq;
use crate::worker::{front, gist};

impl Core {
    /// The pool that a ready job is for, where a version of its type is on trial; and the one that takes it if that is full.
    pub(in crate::engine) fn pool_for(&self, type_no: u32, born: Seq) -> Option<(PoolId, PoolId)> {
        let of_type = self.types.get(&type_no)?;
        let (current, trial) = (of_type.current?, of_type.trial.as_ref()?);
        if of_type.candidate.is_none() && self.table.noted(born).is_none() {
            // A job that waits as it came has not failed: it goes where all go.
            return Some((current, current));
        }
        let job = self.table.job_of(type_no, born)?;
        if job.tried_on() == Some(trial.version_no) {
            // Whoever makes up for a failure is the version before, wherever it is by now.
            let can = trial.is_probation() && self.table.may_run(&job, trial.baseline_no);
            // If none of its workers is up, the version that is there does it after all.
            let is_up = |pool: &PoolId| self.pools.get(pool).is_some_and(|run| run.up > 0);
            let warm = of_type.warm.filter(|warm| can && (is_up(warm) || self.is_standby(*warm)));
            let baseline = warm.unwrap_or(current);
            return Some((baseline, baseline));
        }
        // A version on trial may be older than the current one, and not be what a job needs.
        let may = is_first(&job) && trial.may_choose(job.max_attempts) && self.table.may_run(&job, trial.version_no);
        let candidate = of_type.candidate.filter(|_| may);
        let Some(candidate) = candidate else { return Some((current, current)) };
        let chosen = trial.is_gated() || trial.way(job.tenant, born).arm == Arm::Incoming;
        Some(if chosen { (candidate, current) } else { (current, current) })
    }

    /// Ready jobs that only the candidate may run, since they need a version that is not the current one.
    pub(in crate::engine) fn only_for_candidate(&self, type_no: u32) -> Option<(PoolId, Seq)> {
        let candidate = self.types.get(&type_no)?.candidate?;
        let version_no = self.pools.get(&candidate)?.version_no;
        let born = self.table.worker_type(type_no)?.held_for(version_no).next()?;
        Some((candidate, born))
    }

    /// A run came to its end, and did its job.
    pub(in crate::engine) fn note_pass(&mut self, born: Seq) {
        let Some(job) = self.table.noted(born) else { return };
        let Some(of_type) = self.types.get_mut(&job.type_no) else { return };
        of_type.storm.attempt(false);
        let first = is_first(job);
        if first && let Some(run) = current(of_type, &mut self.pools, job.version_no) {
            run.history.note(false);
        }
        let Some(trial) = &mut of_type.trial else { return };
        match job.tried_on() {
            Some(tried) if trial.is_evidence(tried, job.tenant, born) => {
                trial.first(tried, job.tenant, First::FailedThenPassed);
            }
            Some(_) => {}
            None if first
                && trial.may_choose(job.max_attempts)
                && trial.is_evidence(job.version_no, job.tenant, born) =>
            {
                trial.first(job.version_no, job.tenant, First::Passed);
            }
            None => {}
        }
    }

    /// A run failed of `error`; says whether the version before makes up for it, at once and at no cost.
    pub(in crate::engine) fn note_failure(&mut self, born: Seq, error: &str, dies: bool, for_good: bool) -> bool {
        let Some(job) = self.table.noted(born) else { return false };
        let Some(of_type) = self.types.get_mut(&job.type_no) else { return false };
        of_type.storm.attempt(true);
        let first = is_first(job);
        if first && let Some(run) = current(of_type, &mut self.pools, job.version_no) {
            run.history.note(true);
        }
        let failed = failed(job, dies, for_good);
        let Some(trial) = &mut of_type.trial else { return self.makes_up_afterwards(job, failed) };
        if job.version_no == trial.version_no {
            trial.last_error = front(&gist(error), ERROR_BYTES_KEPT).to_owned();
        }
        if let Some(tried) = job.tried_on()
            && trial.is_evidence(tried, job.tenant, born)
        {
            // This was the run that was to make up for it.
            trial.first(tried, job.tenant, First::FailedTwice);
        }
        if trial.arm(job.version_no).is_none() {
            return self.makes_up_afterwards(job, failed);
        }
        // One that the version before may not run is nobody's to make up for.
        let made_up = self.table.may_run(job, trial.baseline_no) && trial.makes_up(failed);
        let counts = trial.may_choose(job.max_attempts) && trial.is_evidence(job.version_no, job.tenant, born);
        if first && !made_up && counts {
            trial.first(job.version_no, job.tenant, First::FailedTwice);
        }
        made_up
    }

    /// A run on a pool came to its end well, and took so long.
    pub(in crate::engine) fn note_pace(&mut self, pool: PoolId, took: Duration) {
        let Some(run) = self.pools.get(&pool) else { return };
        let trial = self.types.get_mut(&run.type_no).and_then(|of_type| of_type.trial.as_mut());
        if let Some(trial) = trial {
            trial.ran(run.version_no, took);
        }
    }

    /// Whether nearly all of a type fails while a version of it is on trial: then nothing dies of it.
    pub(in crate::engine) fn is_in_storm(&self, type_no: u32) -> bool {
        self.types.get(&type_no).is_some_and(|of_type| of_type.trial.is_some() && of_type.storm.is_storm())
    }
}

/// The pool that takes new work, if it is one of this version.
fn current<'p>(
    of_type: &TypeRun,
    pools: &'p mut BTreeMap<PoolId, PoolRun>,
    version_no: u32,
) -> Option<&'p mut PoolRun> {
    pools.get_mut(&of_type.current?).filter(|run| run.version_no == version_no)
}

/// Whether a job has never come to an end of its own.
fn is_first(job: &Job) -> bool {
    job.attempts == 0 && job.failures().is_empty()
}
