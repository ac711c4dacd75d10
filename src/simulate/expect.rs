//! What should follow from what was sent to the engine: the model's word on every push, outcome and action.

use std::time::Duration;

use super::invariant::Invariant;
use super::model::{Happening, Known, Model, Place, Standing};
use super::plan::{self, BACKOFF_MAX, PAYLOAD_MAX};
use super::world::{Reply, Violation, World};
use crate::engine::handle::JobAction;
use crate::job::event::End;
use crate::job::new::{NewJob, Pushed, Start};
use crate::job::table::Job;
use crate::job::transition::State;
use crate::log::frame::{FRAME_ALIGN, FRAME_HEADER_BYTES, RECORD_HEADER_BYTES};
use crate::refusal::Refusal;
use crate::types::{Fence, Lease, Seq, UnixMs, millis};
use crate::worker::Outcome;

/// What the model says of a job that is enqueued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    New,
    Known(usize),
    Refused(&'static str),
    /// Its name was another's, which ended and may be forgotten by now: new, or this.
    Either(usize),
}

impl World {
    pub(super) fn admit(&self, new: &NewJob) -> Admission {
        let of = new.worker_type.as_str();
        if self.engine.as_ref().is_some_and(|engine| engine.table().type_no(of).is_none()) {
            return Admission::Refused("unknown_type");
        }
        if new.payload.len() > PAYLOAD_MAX {
            return Admission::Refused("too_large");
        }
        let Some((holder, known)) = self.model.holder(new).and_then(|at| Some((at, self.model.jobs.get(at)?))) else {
            return Admission::New;
        };
        if matches!(known.latest().place, Place::Gone(_)) && self.first_seq() > known.ended_at {
            return Admission::Either(holder);
        }
        if &known.new == new { Admission::Known(holder) } else { Admission::Refused("key_conflict") }
    }

    pub(super) fn pushed(&mut self, new: NewJob, answer: Result<Pushed, Refusal>, sure: bool) -> Result<(), Violation> {
        let admission = self.admit(&new);
        let surprise = |answer: &dyn std::fmt::Debug| {
            Err(Invariant::RightAnswer
                .broken(format!("expected {admission:?} of {new:?}, and was answered {answer:?}")))
        };
        match (&answer, admission) {
            (Err(Refusal::DiskFull { .. }), _) if self.tight => {
                self.figures.count("refused", "disk full");
            }
            (Err(Refusal::Damaged { .. }), _) if self.disk.has_struck() => {
                self.figures.count("refused", "unreadable");
            }
            (Err(Refusal::Poisoned), Admission::New | Admission::Either(_)) if !sure => {
                self.accept(new, None, None, false);
            }
            (Err(Refusal::Poisoned), _) if !sure => {}
            (Err(refusal), Admission::Refused(code)) if refusal.code() == code => self.figures.count("refused", code),
            (Err(refusal), Admission::Either(holder)) if refusal.code() == "key_conflict" => {
                if self.model.jobs.get(holder).is_some_and(|known| known.new == new) {
                    return surprise(&answer);
                }
            }
            (Ok(pushed), Admission::Known(holder) | Admission::Either(holder)) if pushed.duplicate => {
                self.figures.count("refused", "duplicate");
                let id = self.model.jobs.get(holder).and_then(|known| known.id.clone());
                if id.is_some_and(|id| id != pushed.id) {
                    return surprise(&answer);
                }
            }
            (Ok(pushed), Admission::New | Admission::Either(_)) if !pushed.duplicate => {
                self.accept(new, Some(pushed.id.clone()), None, true);
            }
            _ => return surprise(&answer),
        }
        Ok(())
    }

    pub(super) fn accept(&mut self, new: NewJob, id: Option<String>, parent: Option<usize>, sure: bool) -> usize {
        let ready_ms = match new.start {
            Start::Now => 0,
            Start::At(at) => at,
            Start::After(delay) => self.now() + millis(delay),
        };
        let job = self.model.add(Known {
            max_attempts: new.max_attempts.unwrap_or(0),
            expires_ms: new.expires_at.unwrap_or(0),
            born: None,
            summary_of: None,
            id,
            parent,
            now: Standing::ABSENT,
            maybe: Vec::new(),
            ended_at: 0,
            new,
        });
        self.happen(job, sure, Happening::Enqueued { ready_ms });
        job
    }

    pub(super) fn end(&mut self, job: usize, sure: bool, end: End) {
        let now = self.now();
        let due = |known: &&mut Known| (1..=now).contains(&known.expires_ms);
        if let Some(known) = self.model.jobs.get_mut(job).filter(|_| !sure && end == End::Cancelled).filter(due) {
            // Instead, its time may have come before: one of both, or neither.
            let before = known.latest();
            known.maybe.push(before.after(Happening::Ended(End::Expired)));
            known.maybe.push(before.after(Happening::Ended(end)));
        } else {
            self.happen(job, sure, Happening::Ended(end));
        }
        self.note_end(job);
    }

    /// From here on the job may be forgotten.
    pub(super) fn note_end(&mut self, job: usize) {
        let first_seq = self.first_seq();
        if let Some(known) = self.model.jobs.get_mut(job) {
            known.ended_at = first_seq;
        }
    }

    pub(super) fn outcome_of(&mut self, lease: Lease, outcome: Outcome, sure: bool) {
        let job = self.known(lease.born);
        let running = Place::Running(lease.fence);
        let known = job.and_then(|job| self.model.jobs.get_mut(job));
        let known = known.filter(|known| known.now.place == running && known.latest().place != running);
        if let Some(known) = known.filter(|_| !self.answered.contains(&lease.fence)) {
            // What else may have happened in a turn that failed may not have: then it runs, and this counts.
            let instead = std::mem::take(&mut known.maybe);
            self.outcome_of(lease, outcome, false);
            if let Some(known) = job.and_then(|job| self.model.jobs.get_mut(job)) {
                known.maybe.splice(..0, instead);
            }
            return;
        }
        let place = job.and_then(|job| self.model.jobs.get(job)).map(|known| known.latest().place);
        let Some(job) = job.filter(|_| place == Some(running)) else {
            self.figures.count("refused", "an older lease");
            return;
        };
        self.answered.insert(lease.fence);
        match outcome {
            Outcome::Done { enqueue, .. } => {
                match self.group(&enqueue).filter(|_| !self.is_unreadable(job, lease.fence, &enqueue)) {
                    None => self.fail(job, sure, false, false),
                    Some(fresh) => {
                        self.end(job, sure, End::Completed);
                        for new in fresh {
                            self.figures.count("work", "follow-up");
                            self.accept(new, None, Some(job), sure);
                        }
                    }
                }
            }
            Outcome::Fail { killed, .. } => self.fail(job, sure, killed, false),
            Outcome::Dead { .. } => self.fail(job, sure, false, true),
            Outcome::Cancel { .. } => {
                self.happen(job, sure, Happening::Ended(End::Cancelled));
                self.note_end(job);
            }
            Outcome::Defer { after, .. } => {
                let deferrals = self.model.jobs.get(job).map_or(0, |known| known.latest().deferrals);
                if deferrals >= crate::limits::DEFERRALS_MAX {
                    return self.fail(job, sure, false, true);
                }
                let now = self.now();
                let ready_ms = match after {
                    Some(after) => (now + millis(after), now + millis(after + self.backoff_of(job).1)),
                    None => (now, now + millis(self.pause_max(job, u32::from(deferrals) + 1))),
                };
                self.happen(job, sure, Happening::Deferred { ready_ms });
            }
            Outcome::Interrupted | Outcome::NotStarted { .. } => self.happen(job, sure, Happening::GivenBack),
            Outcome::HostDeath { .. } => {
                let (at, pause) = (self.now(), millis(self.pause_max(job, 1)));
                let lost_before = self.model.jobs.get(job).is_some_and(|known| known.latest().host_deaths > 0);
                let ready_ms = lost_before.then_some((at, at + pause));
                self.happen(job, sure, Happening::HostDeath { at, ready_ms });
                if self.model.jobs.get(job).is_some_and(|known| known.latest().place == Place::Dead) {
                    self.summarise(job, sure);
                }
            }
        }
    }

    /// Whether a completion was refused, since what hangs on a follow-up job's name could not be read: the table tells.
    fn is_unreadable(&self, job: usize, fence: Fence, enqueue: &[NewJob]) -> bool {
        let named = enqueue.iter().any(|new| !Model::names_of(new).is_empty());
        let Some(known) = self.model.jobs.get(job).filter(|_| named && self.disk.has_struck()) else { return false };
        match known.born.and_then(|born| self.engine.as_ref()?.table().job(born)) {
            // It may have been handed out again.
            Some(job) => {
                job.fence != fence || (job.state != State::Reserved && job.attempts == known.latest().attempts + 1)
            }
            // It waited again, and its time was over.
            None => self.is_over_unseen(known) && !enqueue.iter().any(|new| self.table_has(new)),
        }
    }

    /// Whether it may be that a job has expired in this turn.
    fn is_over_unseen(&self, known: &Known) -> bool {
        let over = (1..=self.now()).contains(&known.expires_ms);
        over && self.expired_unseen(known.new.worker_type.as_str()) > 0
    }

    /// The new ones of a completion's follow-up jobs; `None` if one of them is refused, and so the completion.
    pub(super) fn group(&self, enqueue: &[NewJob]) -> Option<Vec<NewJob>> {
        /// As the engine reckons.
        const RECORD_SPARE: usize = 1024;
        let mut fresh: Vec<NewJob> = Vec::new();
        let mut bytes = RECORD_SPARE + 1;
        for new in enqueue {
            bytes += new.payload.len() + RECORD_SPARE;
            let twin = Model::names_of(new);
            let twin = fresh.iter().find(|other| Model::names_of(other).iter().any(|name| twin.contains(name)));
            if let Some(twin) = twin {
                if twin != new {
                    return None;
                }
                continue;
            }
            match self.admit(new) {
                Admission::New => fresh.push(new.clone()),
                Admission::Known(_) => {}
                Admission::Refused(_) => return None,
                Admission::Either(holder) => {
                    if self.table_has(new) {
                        fresh.push(new.clone());
                    } else if self.model.jobs.get(holder).is_none_or(|known| &known.new != new) {
                        return None;
                    }
                }
            }
        }
        let most = self.frame_bytes_max() - FRAME_HEADER_BYTES - FRAME_ALIGN - (1 + fresh.len()) * RECORD_HEADER_BYTES;
        let fits = enqueue.is_empty() || bytes <= most;
        fits.then_some(fresh)
    }

    /// Whether the table has a job with this one's names.
    pub(super) fn table_has(&self, new: &NewJob) -> bool {
        let Some(engine) = &self.engine else { return false };
        let Some(type_no) = engine.table().type_no(new.worker_type.as_str()) else { return false };
        let names = Model::names_of(new);
        let same = |born: Seq, job: &Job| match self.known(born).and_then(|known| self.model.jobs.get(known)) {
            Some(known) => Model::names_of(&known.new) == names,
            None => self.home_of(born, job).is_ok_and(|home| {
                home.id.as_deref() == new.id.as_ref().map(|id| id.as_str())
                    && home.key.as_deref() == new.idempotency_key.as_ref().map(|key| key.as_str())
            }),
        };
        engine.table().jobs().any(|(born, job)| job.type_no == type_no && same(born, &job))
    }

    pub(super) fn fail(&mut self, job: usize, sure: bool, killed: bool, at_once_dead: bool) {
        let now = self.now();
        let Some(known) = self.model.jobs.get(job) else { return };
        let attempts = known.latest().attempts + 1;
        let pause = millis(self.pause_max(job, u32::from(attempts)));
        // In a turn that failed no table tells of one that has expired since whether it was made up for.
        let untold = |born| self.engine.as_ref().is_some_and(|engine| engine.table().job(born).is_none());
        let sure = sure && !(self.loose && known.born.is_some_and(untold) && self.may_make_up(job));
        match self.made_up(job) {
            // What decides on that is not modelled; that it is right to do so is looked at where it is handed out.
            Some(ready_ms) if sure => {
                let ready_ms = if ready_ms == 0 { (0, 0) } else { (now, now + pause) };
                self.figures.count("work", "made up for");
                self.happen(job, sure, Happening::MadeUp { ready_ms });
                return;
            }
            _ if !sure && self.may_make_up(job) => {
                // One of the two, or neither: what else it may be stands before it.
                let at_once = known_after(self.model.jobs.get(job), Happening::MadeUp { ready_ms: (0, 0) });
                let held = known_after(self.model.jobs.get(job), Happening::MadeUp { ready_ms: (now, now + pause) });
                self.fail_at_a_cost(job, sure, killed, at_once_dead);
                if let Some(known) = self.model.jobs.get_mut(job) {
                    let last = known.maybe.len().saturating_sub(1);
                    known.maybe.splice(last..last, at_once.into_iter().chain(held));
                }
                return;
            }
            _ => {}
        }
        self.fail_at_a_cost(job, sure, killed, at_once_dead);
    }

    fn fail_at_a_cost(&mut self, job: usize, sure: bool, killed: bool, at_once: bool) {
        let now = self.now();
        let Some(known) = self.model.jobs.get(job) else { return };
        let attempts = known.latest().attempts + 1;
        if at_once || attempts >= known.max_attempts {
            self.happen(job, sure, Happening::Died { at: now });
            self.summarise(job, sure);
            return;
        }
        let pause = millis(self.pause_max(job, u32::from(attempts)));
        let ready_ms = if killed && attempts == 1 { (now + 50, now + 50) } else { (now, now + pause) };
        self.happen(job, sure, Happening::Retried { ready_ms });
    }

    /// When a job that failed at no cost, as the engine has it, may run again.
    fn made_up(&self, job: usize) -> Option<UnixMs> {
        let known = self.model.jobs.get(job)?;
        let Some(job) = self.engine.as_ref()?.table().job(known.born?) else {
            // It waited again, and its time was over. Or it died, and more had than are kept.
            return (self.may_make_up(job) && self.is_over_unseen(known)).then_some(0);
        };
        let free = job.failures().iter().filter(|failure| failure.attempt == 0).count();
        let last = job.failures().last()?;
        (last.attempt == 0 && free > usize::from(known.latest().made_up)).then_some(job.ready_ms)
    }

    /// Whether it may be that another version makes up for a failure of this job.
    fn may_make_up(&self, job: usize) -> bool {
        let Some(known) = self.model.jobs.get(job) else { return false };
        let of = known.new.worker_type.as_str();
        // One may have begun in a turn that was not through: then no table has it.
        self.trials.contains(of) || plan::has_trials(self.plan, of)
    }

    /// The longest pause after the n-th failure, and after those before it that its type's budget lets go first.
    pub(super) fn pause_max(&self, job: usize, n: u32) -> Duration {
        let (first, max) = self.backoff_of(job);
        first.saturating_mul(4_u32.saturating_pow(n.saturating_sub(1))).min(max) + max
    }

    /// The first pause of the job's type, and its longest; a type that the config has no more has the default ones.
    fn backoff_of(&self, job: usize) -> (Duration, Duration) {
        let of = self.model.jobs.get(job).map_or("", |known| known.new.worker_type.as_str());
        if plan::has(self.plan, of) {
            (Duration::from_millis(500), BACKOFF_MAX)
        } else {
            (Duration::from_secs(5), Duration::from_secs(3600))
        }
    }

    /// The job that tells of a dead one.
    pub(super) fn summarise(&mut self, job: usize, sure: bool) {
        let Some(to) = self.model.jobs.get(job).and_then(|known| plan::on_dead(known.new.worker_type.as_str())) else {
            return;
        };
        self.figures.count("work", "summary of a dead job");
        let summary = self.accept(NewJob::new(to.parse().expect("a name"), Vec::new()), None, None, sure);
        if let Some(known) = self.model.jobs.get_mut(summary) {
            known.summary_of = Some(job);
        }
    }

    pub(super) fn acted(
        &mut self,
        job: usize,
        action: JobAction,
        reply: Option<Reply>,
        sure: bool,
    ) -> Result<(), Violation> {
        let Some(known) = self.model.jobs.get(job) else { return Ok(()) };
        let place = known.latest().place;
        let delayed = place == Place::Waiting && known.latest().ready_ms.1 > 0;
        // A job may be found by its chosen id though another one of that id is meant, or there is none any more.
        let shared = known.new.id.is_some();
        let may = match (action, place) {
            (JobAction::Retry, Place::Dead)
            | (JobAction::Cancel, Place::Waiting | Place::Running(_))
            | (JobAction::Discard, Place::Dead) => Some(true),
            // Ready and delayed differ by the clock alone.
            (JobAction::Retry, Place::Waiting) if delayed => None,
            // Whether it was given back before or after is not known.
            _ if self.just_back.contains(&job) && action != JobAction::Discard => None,
            _ => Some(false),
        };
        // What was given back waits: it is never one to be discarded.
        let back = self.just_back.contains(&job) && action != JobAction::Discard;
        let may = may.filter(|_| !back);
        if self.tight && self.stops && matches!(reply, Some(Reply::Acted(Err(Refusal::DiskFull { .. })))) {
            self.figures.count("refused", "a word in a stop on a full disk");
            return Ok(());
        }
        let done = match &reply {
            Some(Reply::Acted(Ok(_))) => true,
            Some(Reply::Acted(Err(Refusal::Poisoned))) | None if !sure => shared || may != Some(false),
            _ => false,
        };
        let overtakes = Self::may_overtake(known, action, reply.as_ref(), sure);
        if shared {
            let of = if let Some(Reply::Acted(Ok(acted))) = &reply { Some(acted.of.as_str()) } else { None };
            if done {
                self.acted_on_namesake(job, action, of, sure);
            }
            return Ok(());
        }
        if sure && may.is_some_and(|may| may != done) {
            return Err(
                Invariant::RightAnswer.broken(format!("{action:?} of {known:?}: expected {may:?}, and was {done}"))
            );
        }
        if done || overtakes {
            self.act_on(job, action, sure);
        }
        Ok(())
    }

    pub(super) fn act_on(&mut self, job: usize, action: JobAction, sure: bool) {
        match action {
            JobAction::Retry => self.happen(job, sure, Happening::Redriven),
            JobAction::Cancel => self.cancelled(job, sure),
            JobAction::Discard => self.end(job, sure, End::Discarded),
        }
    }

    /// Chosen ids stand for a live job of any type first: which one was meant is the engine's to say,
    /// and its answer names the type.
    pub(super) fn acted_on_namesake(&mut self, job: usize, action: JobAction, of: Option<&str>, sure: bool) {
        let id = self.model.jobs.get(job).and_then(|known| known.new.id.clone());
        let fits = |known: &Known| {
            known.new.id == id
                && of.is_none_or(|of| known.new.worker_type.as_str() == of)
                && match action {
                    JobAction::Retry => matches!(known.latest().place, Place::Dead | Place::Waiting),
                    JobAction::Cancel => {
                        let runs = |standing: Standing| matches!(standing.place, Place::Running(_));
                        let waits = known.latest().place == Place::Waiting;
                        waits || runs(known.latest()) || !sure && runs(known.now)
                    }
                    JobAction::Discard => known.latest().place == Place::Dead,
                }
        };
        let candidates: Vec<usize> =
            self.model.jobs.iter().enumerate().filter(|(_, known)| fits(known)).map(|(at, _)| at).collect();
        for candidate in &candidates {
            let born = self.model.jobs.get(*candidate).and_then(|known| known.born);
            let job = born.and_then(|born| self.engine.as_ref()?.table().job(born));
            let changed = match action {
                JobAction::Retry => job.is_some_and(|job| job.ready_ms == 0 && job.state != State::Dead),
                JobAction::Cancel | JobAction::Discard => job.is_none(),
            };
            let only = candidates.len() == 1;
            if !sure || changed || only {
                // Which one of the table a new job is may not be known yet, if the turn failed.
                self.act_on(*candidate, action, sure && (only || changed && (born.is_some() || !self.loose)));
            }
        }
    }

    pub(super) fn purged(&mut self, of: &str, ended: u64, reply: Option<Reply>, sure: bool) -> Result<(), Violation> {
        if !sure {
            for (job, end) in self.purgeable(of) {
                self.end(job, false, end);
            }
            return Ok(());
        }
        match reply {
            Some(Reply::Purged(Ok(purged))) if purged == ended => Ok(()),
            Some(Reply::Purged(Err(Refusal::UnknownType { .. }))) if ended == 0 => Ok(()),
            reply => {
                let how = format!("a purge of {of} has ended {ended} jobs, and says {reply:?}");
                Err(Invariant::RightAnswer.broken(how))
            }
        }
    }

    /// Jobs of a type that do not run, and how a purge ends them.
    pub(super) fn purgeable(&self, of: &str) -> Vec<(usize, End)> {
        let of_type = self.model.jobs.iter().enumerate().filter(|(_, known)| known.new.worker_type.as_str() == of);
        let end = |(at, known): (usize, &Known)| match known.latest().place {
            Place::Waiting => Some((at, End::Cancelled)),
            Place::Dead => Some((at, End::Discarded)),
            Place::Absent | Place::Running(_) | Place::Gone(_) => None,
        };
        of_type.filter_map(end).collect()
    }
}

/// A job's standing if all that may have happened did, and this, too.
fn known_after(known: Option<&Known>, happening: Happening) -> Option<Standing> {
    known.map(|known| known.latest().after(happening))
}
