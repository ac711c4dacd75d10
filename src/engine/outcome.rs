//! Deciding what follows from what a pool reports of a run.

use std::collections::HashMap;
use std::time::Duration;

use super::command::Command;
use super::core::Core;
use super::ends::By;
use super::push::Admitted;
use super::runs::PoolRun;
use super::words::{HOST_DEATHS, HOST_ENDED, moment};
use crate::config::{Backoff, RetryBudget};
use crate::job::event::{After, End, Event, Failed, Release, Released};
use crate::job::new::NewJob;
use crate::job::table::{Job, tail_of};
use crate::job::transition::State;
use crate::limits::{DEFERRALS_MAX, DELAY_MAX, ERROR_BYTES_MAX, FOLLOW_UPS_MAX, KILLED_RETRY};
use crate::log::Poisoned;
use crate::pool::About;
use crate::rollover::trial;
use crate::types::{Lease, Seq, WorkerType, millis};
use crate::worker::Outcome;

/// Room that a record of a group needs beside its payload or result: names, task, tenant and numbers.
pub(super) const RECORD_SPARE: usize = 1024;

impl Core {
    /// Takes an outcome over, unless its lease is not the job's any more. On a full disk, a stop may leave it.
    pub(super) fn outcome(
        &mut self,
        lease: Lease,
        worker: u32,
        outcome: Outcome,
        about: Option<Box<About>>,
    ) -> Result<(), Poisoned> {
        let born = lease.born;
        let is_left = self.is_left_at_a_stop(&outcome);
        let job = self.table.noted(born);
        let Some(job) = job.filter(|job| job.state == State::Reserved && job.fence == lease.fence) else {
            tracing::debug!(born, "an outcome of an older lease is refused");
            self.forget_run(lease);
            return Ok(());
        };
        if is_left {
            tracing::warn!(
                born,
                "the disk is full: there is no room to record how this run ended; the job is given back"
            );
            return Ok(());
        }
        let named = |job: &NewJob| job.id.is_some() || job.idempotency_key.is_some();
        if self.gathers_names() && outcome.follow_ups().iter().any(named) {
            return self.look_up(Vec::new(), Command::Outcome { lease, worker, outcome, about });
        }
        let seqs = self.to_read_for(job, &outcome, about.as_deref());
        if seqs.iter().any(|seq| self.facts.get(*seq).is_none()) {
            return self.look_up(seqs, Command::Outcome { lease, worker, outcome, about });
        }
        let about = about.or_else(|| self.facts.fact(job.home.seq).map(|fact| Box::new(fact.about())));
        let by = By { worker, about: about.as_deref() };
        match outcome {
            Outcome::Done { result, enqueue } => self.done(born, result.as_deref(), &enqueue, by),
            Outcome::Fail { error, killed } => self.fail(born, &error, killed, false, by),
            Outcome::Dead { error } => self.fail(born, &error, false, true, by),
            Outcome::Cancel { reason } => {
                let reason = tail_of(&reason, ERROR_BYTES_MAX).as_bytes();
                self.end(born, End::Cancelled, reason, by)
            }
            Outcome::Defer { error, after } => self.defer(born, &error, after, by),
            Outcome::Interrupted => self.give_back(born, worker),
            Outcome::NotStarted { error } => self.release(born, Release::NotStarted, &error, worker),
            Outcome::HostDeath { error } => self.host_death(born, &error, by),
        }
    }

    /// Records on which it hangs what follows from an outcome: they may say who holds a follow-up job's name, and what the
    /// job itself is named, if its pool did not say so.
    fn to_read_for(&self, job: &Job, outcome: &Outcome, about: Option<&About>) -> Vec<Seq> {
        if matches!(outcome, Outcome::Interrupted | Outcome::NotStarted { .. }) {
            return Vec::new();
        }
        let own = (job.named && about.is_none()).then_some(job.home.seq);
        self.may_hold(outcome.follow_ups()).into_iter().chain(own).collect()
    }

    /// Gives a reserved job back at no cost.
    pub(super) fn give_back(&mut self, born: Seq, worker: u32) -> Result<(), Poisoned> {
        self.release(born, Release::Interrupt, "", worker)
    }

    pub(super) fn release(&mut self, born: Seq, release: Release, reason: &str, worker: u32) -> Result<(), Poisoned> {
        let reason = tail_of(reason, ERROR_BYTES_MAX).as_bytes();
        self.record(&Event::Released(Released { born, at: self.now, release, worker }, reason))?;
        Ok(())
    }

    /// The completion and its follow-up jobs are one group of records: all of it happens, or none.
    fn done(&mut self, born: Seq, result: Option<&[u8]>, enqueue: &[NewJob], by: By<'_>) -> Result<(), Poisoned> {
        let result = result.unwrap_or_default();
        let result_max = self.config.log.result_max;
        if result.len() > result_max {
            let error = format!("the result is {} bytes, the most is {result_max} (`log.result_max`)", result.len());
            return self.fail(born, &error, false, false, by);
        }
        if enqueue.len() > FOLLOW_UPS_MAX {
            let error = format!("{} follow-up jobs, the most is {FOLLOW_UPS_MAX}", enqueue.len());
            return self.fail(born, &error, false, false, by);
        }
        if enqueue.is_empty() {
            self.note_pass(born);
            return self.end(born, End::Completed, result, by);
        }
        let mut admitted = Vec::with_capacity(enqueue.len());
        let mut bytes = RECORD_SPARE + result.len();
        let mut named = HashMap::new();
        for (number, job) in (1..).zip(enqueue) {
            let refused = match (twin(&mut named, job), self.admit(job)) {
                // Two of one completion with the same name and body are one job.
                (Some(twin), _) if twin == job => None,
                (Some(_), _) => Some("an id or key of it is an earlier one's of the same completion".to_owned()),
                (None, Ok(Admitted::New { type_no, digest })) => {
                    admitted.push((job, type_no, digest));
                    None
                }
                (None, Ok(Admitted::Known(_))) => None,
                (None, Ok(Admitted::Unsure)) => unreachable!("every record that may hold its names was read"),
                (None, Err(refusal)) => Some(refusal.to_string()),
            };
            if let Some(refused) = refused {
                let error = format!("follow-up job {number} was refused: {refused}");
                return self.fail(born, &error, false, false, by);
            }
            bytes += job.payload.len() + RECORD_SPARE;
        }
        let most = self.log.group_bytes_max(1 + admitted.len());
        if bytes > most {
            let error = format!("result and follow-up jobs are {bytes} bytes together, the most is {most}");
            return self.fail(born, &error, false, false, by);
        }
        let parent = self.id_of_live(born, by.about);
        self.note_pass(born);
        self.make_room(1 + admitted.len(), bytes)?;
        self.put_end(born, End::Completed, result, by);
        let trace = by.about.and_then(|about| about.trace);
        for (job, type_no, digest) in admitted {
            let event = self.enqueued(job, type_no, digest, Some((&parent, trace)));
            self.put(&event, true);
        }
        Ok(())
    }

    /// A live job's id.
    fn id_of_live(&self, born: Seq, about: Option<&About>) -> String {
        let Some(job) = self.table.noted(born) else { return String::new() };
        match self.names_of(job, about).and_then(|names| names.id) {
            Some(id) => id.into(),
            None => self.ids.make(born, job.created_ms),
        }
    }

    fn fail(&mut self, born: Seq, error: &str, killed: bool, at_once: bool, by: By<'_>) -> Result<(), Poisoned> {
        let Some(job) = self.table.noted(born) else { return Ok(()) };
        let (type_no, version_no, max_attempts) = (job.type_no, job.version_no, job.max_attempts);
        let attempts = job.attempts.saturating_add(1);
        let error = tail_of(error, ERROR_BYTES_MAX);
        let dies = at_once || attempts >= max_attempts;
        let after = if self.note_failure(born, error, dies, at_once) {
            After::Again { ready_ms: 0 }
        } else if self.is_in_storm(type_no) {
            // Nothing dies of what is nobody's fault, and no attempt is used up.
            After::Again { ready_ms: self.now + self.backoff(type_no, u32::from(attempts)).max(1) }
        } else if dies {
            After::Dead
        } else if killed && attempts == 1 {
            After::Retry { ready_ms: self.now + millis(KILLED_RETRY) }
        } else {
            After::Retry { ready_ms: self.now + self.backoff(type_no, u32::from(attempts)) }
        };
        let failed = Failed { born, at: self.now, type_no, version_no, after, worker: by.worker };
        let summary = if after == After::Dead { self.summary(born, attempts, error, by.about) } else { None };
        let event = Event::Failed(failed, error.as_bytes());
        self.put_with_summary(born, &event, summary.as_ref(), by.about)?;
        if after == After::Dead {
            self.tell_end(born);
        }
        Ok(())
    }

    /// Whether the version that does the work makes up for what failed on one that left its trial without having passed it.
    pub(super) fn makes_up_afterwards(&self, job: &Job, failed: trial::Failed) -> bool {
        let (type_no, on) = (job.type_no, job.version_no);
        let ran = |run: &&PoolRun| run.type_no == type_no && run.version_no == on;
        let unproven = self.pools.values().filter(ran).any(|run| run.unproven);
        // Where work goes to by the log: while all comes to its end, no pool takes any.
        let route =
            self.table.worker_type(type_no).map(|of_type| of_type.route).filter(|route| ![0, on].contains(route));
        unproven && route.is_some_and(|route| self.table.may_run(job, route)) && failed.is_owed()
    }

    /// Enqueues a dead job's summary, in the group of what is recorded last.
    fn put_summary(&mut self, born: Seq, summary: Option<&NewJob>, about: Option<&About>) {
        let Some(summary) = summary else { return };
        let parent = self.id_of_live(born, about);
        if let Ok(Admitted::New { type_no, digest }) = self.admit(summary) {
            let trace = about.and_then(|about| about.trace);
            let event = self.enqueued(summary, type_no, digest, Some((&parent, trace)));
            self.put(&event, true);
        }
    }

    /// Gives a job back whose process ended with the helper, at no cost; one that this happened to too often is dead.
    fn host_death(&mut self, born: Seq, error: &str, by: By<'_>) -> Result<(), Poisoned> {
        let Some(job) = self.table.noted(born) else { return Ok(()) };
        let (dies, attempts, type_no) = (job.is_at_last_host_death(), job.attempts, job.type_no);
        // At once the first time. Then those that were lost together are kept apart: one of them may be what ends the helper.
        let ready_ms = if job.given_back.host_deaths == 0 { 0 } else { self.now + self.backoff(type_no, 1) };
        let released = Released { born, at: self.now, release: Release::HostDeath { ready_ms }, worker: by.worker };
        let event = Event::Released(released, tail_of(error, ERROR_BYTES_MAX).as_bytes());
        let summary = if dies { self.summary(born, attempts, HOST_DEATHS, by.about) } else { None };
        self.put_with_summary(born, &event, summary.as_ref(), by.about)?;
        if dies {
            self.tell_end(born);
        }
        Ok(())
    }

    /// Records an event and, if it killed its job, the summary of that, as one group.
    fn put_with_summary(
        &mut self,
        born: Seq,
        event: &Event<'_>,
        summary: Option<&NewJob>,
        about: Option<&About>,
    ) -> Result<(), Poisoned> {
        let summary_bytes = summary.map_or(0, |job| job.payload.len() + RECORD_SPARE);
        self.make_room(2, event.bytes_max() + summary_bytes)?;
        self.put(event, false);
        self.put_summary(born, summary, about);
        Ok(())
    }

    /// Records that a job died of the end of the process before this one. For an opening: nothing runs by the config yet.
    pub(super) fn died_with_host(&mut self, born: Seq, about: Option<&About>) -> Result<(), Poisoned> {
        let Some(job) = self.table.noted(born) else { return Ok(()) };
        let of_type = self.table.worker_type(job.type_no).map(|of_type| &of_type.name);
        let settings = |of: &WorkerType| self.config.workers.iter().find(|worker| worker.worker_type == *of);
        let mourner = of_type.and_then(settings).and_then(|dead| settings(dead.live.on_dead.as_ref()?)).cloned();
        let summary = mourner.as_ref().and_then(|mourner| {
            let summary = self.summary_to(&mourner.worker_type, born, job.attempts, HOST_DEATHS, about)?;
            Some(NewJob { max_attempts: Some(mourner.live.max_attempts), ..summary })
        });
        if let Some(mourner) = &mourner {
            self.name_type(&mourner.worker_type)?;
        }
        let released = Released { born, at: self.now, release: Release::HostDeath { ready_ms: 0 }, worker: 0 };
        self.put_with_summary(born, &Event::Released(released, HOST_ENDED.as_bytes()), summary.as_ref(), about)
    }

    /// The job that tells `on_dead` of a dead one.
    fn summary(&self, born: Seq, attempts: u16, error: &str, about: Option<&About>) -> Option<NewJob> {
        let of_type = self.types.get(&self.table.noted(born)?.type_no)?;
        self.summary_to(of_type.worker.as_ref()?.live.on_dead.as_ref()?, born, attempts, error, about)
    }

    fn summary_to(
        &self,
        mourner: &WorkerType,
        born: Seq,
        attempts: u16,
        error: &str,
        about: Option<&About>,
    ) -> Option<NewJob> {
        let job = self.table.noted(born)?;
        let version = self.table.version(job.version_no).map(|version| version.label.as_str());
        let summary = serde_json::json!({
            "id": self.id_of_live(born, about),
            "type": self.table.worker_type(job.type_no)?.name,
            "task": about.map_or("", |about| &about.task),
            "tenant": about.and_then(|about| about.tenant.as_deref()),
            "attempts": attempts,
            "error": error,
            "version": version,
            "created_at": moment(job.created_ms),
            "died_at": moment(self.now),
        });
        Some(NewJob::new(mourner.clone(), summary.to_string()))
    }

    fn defer(&mut self, born: Seq, error: &str, after: Option<Duration>, by: By<'_>) -> Result<(), Poisoned> {
        let Some(job) = self.table.noted(born) else { return Ok(()) };
        let (type_no, deferrals) = (job.type_no, job.given_back.deferrals);
        if deferrals >= DEFERRALS_MAX {
            let error = format!("given back {DEFERRALS_MAX} times for a pause, the most; at last: {error}");
            return self.fail(born, &error, false, true, by);
        }
        let pause = match after {
            Some(after) => {
                let after = millis(after.min(DELAY_MAX));
                after + self.hold(type_no, after)
            }
            None => self.backoff(type_no, u32::from(deferrals) + 1),
        };
        self.release(born, Release::Deferral { ready_ms: self.now + pause }, error, by.worker)
    }

    /// The pause after the n-th failure, in ms: a random time up to the bound, so that what failed together does not come back
    /// together; and what the retries of its type are behind their budget.
    fn backoff(&mut self, type_no: u32, n: u32) -> u64 {
        let bound = millis(bound(self.backoff_of(type_no), n));
        self.hold(type_no, bound) + self.random.u64(0..=bound)
    }

    /// How much later a retry comes than after `pause`, in ms.
    fn hold(&mut self, type_no: u32, pause: u64) -> u64 {
        let most = millis(self.backoff_of(type_no).max);
        let done = self.table.worker_type(type_no).map_or(0, |of_type| of_type.totals.completed);
        let Some(of_type) = self.types.get_mut(&type_no) else { return 0 };
        let budget = of_type.worker.as_ref().map_or_else(RetryBudget::default, |worker| worker.live.retry_budget);
        of_type.retries.hold(budget, self.now, done, pause, most)
    }

    fn backoff_of(&self, type_no: u32) -> Backoff {
        let worker = self.types.get(&type_no).and_then(|of_type| of_type.worker.as_ref());
        worker.map_or_else(Backoff::default, |worker| worker.live.backoff)
    }
}

/// The job of the same completion that has one of this one's names; if there is none, its names are noted.
fn twin<'a>(named: &mut HashMap<(&'a str, bool, &'a str), &'a NewJob>, job: &'a NewJob) -> Option<&'a NewJob> {
    let of = job.worker_type.as_str();
    let id = job.id.as_ref().map(|id| (of, false, id.as_str()));
    let key = job.idempotency_key.as_ref().map(|key| (of, true, key.as_str()));
    let twin = id.iter().chain(&key).find_map(|name| named.get(name)).copied();
    if twin.is_none() {
        named.extend(id.into_iter().chain(key).map(|name| (name, job)));
    }
    twin
}

/// Bound of the pause after the n-th failure.
fn bound(backoff: Backoff, n: u32) -> Duration {
    let growth = backoff.factor.checked_pow(n.saturating_sub(1)).unwrap_or(u32::MAX);
    backoff.first.saturating_mul(growth).min(backoff.max)
}
/// A job's run that failed just now, `dies` of it or not; `for_good`: its worker said that no other attempt helps.
pub(super) fn failed(job: &Job, dies: bool, for_good: bool) -> trial::Failed {
    let free = job.failures().iter().filter(|failure| failure.attempt == 0);
    trial::Failed {
        on: job.version_no,
        attempts: job.attempts,
        max_attempts: job.max_attempts,
        made_up: free.filter(|failure| failure.version_no == job.version_no).count(),
        dies,
        for_good,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_grows_by_its_factor_up_to_the_most() {
        let backoff = Backoff { first: Duration::from_secs(5), factor: 4, max: Duration::from_secs(3600) };
        let bounds: Vec<u64> = (1..=8).map(|n| bound(backoff, n).as_secs()).collect();
        assert_eq!(bounds, [5, 20, 80, 320, 1280, 3600, 3600, 3600]);
        assert_eq!(bound(backoff, u32::MAX), Duration::from_secs(3600));
    }
}
