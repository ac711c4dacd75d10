//! What the engine did by itself, noticed from outside: who was born, given back, handed out; what time ended.

use std::collections::{BTreeMap, BTreeSet};

use super::check::totals_of;
use super::held::Routes;
use super::invariant::Invariant;
use super::model::{Happening, Known, Place, Standing};
use super::plan::{self, DEAD_RETAIN, HomeRecord};
use super::pools::Hand;
use super::world::{Reply, Sent, Violation, World};
use crate::engine::stepped::Stepped;
use crate::job::event::End;
use crate::job::ids::IdMaker;
use crate::job::table::Job;
use crate::job::transition::State;
use crate::pool::Task;
use crate::types::{Fence, Seq, UnixMs, millis};

impl World {
    /// A purge goes on frame by frame: what it has ended up to now.
    pub(super) fn notice_purged(&mut self) {
        // One of another type may have been meant that has the same id.
        let of = |job: usize| self.model.jobs.get(job).map(|known| known.new.worker_type.as_str());
        let acted = |sent: &Sent| match sent {
            Sent::Act { job, reply, .. } => match self.reply(*reply) {
                Some(Reply::Acted(Ok(acted))) if of(*job) == Some(acted.of.as_str()) => Some(*job),
                _ => None,
            },
            _ => None,
        };
        let acted: BTreeSet<usize> = self.sent.iter().filter_map(acted).collect();
        for at in 0..self.sent.len() {
            let Some(Sent::Purge { of, .. }) = self.sent.get(at) else { continue };
            let mut gone = self.purgeable(of);
            gone.retain(|(job, _)| {
                if acted.contains(job) {
                    return false;
                }
                let born = self.model.jobs.get(*job).and_then(|known| known.born);
                born.is_some_and(|born| self.engine.as_ref().is_some_and(|engine| engine.table().job(born).is_none()))
            });
            // Between two of its frames a job may have expired; which one did, the counters tell.
            let mut expired = self.expired_unseen(of);
            for (job, end) in gone {
                let due = self.model.jobs.get(job).is_some_and(|known| known.expires_ms != 0);
                if due && expired > 0 && end == End::Cancelled {
                    expired -= 1;
                    self.end(job, true, End::Expired);
                } else {
                    if let Some(Sent::Purge { ended, .. }) = self.sent.get_mut(at) {
                        *ended += 1;
                    }
                    self.end(job, true, end);
                }
            }
        }
    }

    /// How many jobs of a type the engine counts as expired of which the model does not know yet.
    pub(super) fn expired_unseen(&self, of: &str) -> u64 {
        let counted = self.engine.as_ref().and_then(|engine| totals_of(engine, of)).map_or(0, |totals| totals.expired);
        counted.saturating_sub(self.model.totals(of).expired)
    }

    /// Finds out which job of the table is which of the model; `all` of them must be one.
    pub(super) fn bind(&mut self, all: bool) -> Result<(), Violation> {
        let ids = IdMaker::new(*b"a simulated log.");
        let Some(engine) = &self.engine else { return Ok(()) };
        let new: Vec<(Seq, Job)> =
            engine.table().jobs().filter(|(born, _)| !self.model.by_born.contains_key(born)).collect();
        let new: BTreeMap<Seq, Job> = new.into_iter().collect();
        for (born, job) in new {
            let home = self.home_of(born, &job)?;
            let (id, payload) = (home.id, home.payload);
            let of = engine.table().worker_type(job.type_no).map(|of| of.name.clone());
            let summary: Option<String> = serde_json::from_slice::<serde_json::Value>(&payload)
                .ok()
                .filter(|value| value.get("died_at").is_some())
                .and_then(|value| value.get("id")?.as_str().map(str::to_owned));
            let fits = |known: &Known| {
                let live = known.now.is_live() || known.maybe.iter().any(Standing::is_live);
                let same = match (&summary, known.summary_of) {
                    (Some(id), Some(dead)) => {
                        // Where its chosen id could not be read, a dead job is told of by the one that it would have.
                        let made = |born| self.misread && ids.read(id).is_some_and(|(of, _)| of == born);
                        let is_it = |dead: &Known| dead.id.as_ref() == Some(id) || dead.born.is_some_and(made);
                        self.model.jobs.get(dead).is_some_and(is_it)
                    }
                    (None, None) => {
                        known.new.payload == payload && known.new.id.as_ref().map(ToString::to_string) == id
                    }
                    _ => false,
                };
                live && same && known.born.is_none() && Some(&known.new.worker_type) == of.as_ref()
            };
            let Some(at) = self.model.jobs.iter().position(fits) else {
                if !all {
                    continue;
                }
                let payload = String::from_utf8_lossy(&payload).into_owned();
                let about = format!("id {id:?} key {:?} created {}", home.key, home.created_ms);
                return Err(Invariant::NothingFromNowhere.broken(format!("job {born} of {of:?} {about}: {payload}")));
            };
            let made = ids.make(born, home.created_ms);
            let Some(known) = self.model.jobs.get_mut(at) else { continue };
            let id = known.new.id.as_ref().map_or(made, ToString::to_string);
            if known.id.as_ref().is_some_and(|known| *known != id) {
                let answered = format!("job {born} has the id {id}, and was answered {:?}", known.id);
                return Err(Invariant::NothingLost.broken(answered));
            }
            (known.born, known.id, known.max_attempts) = (Some(born), Some(id), home.max_attempts);
            self.model.by_born.insert(born, at);
        }
        if all {
            self.figures.count("held", Invariant::NothingFromNowhere.name());
        }
        Ok(())
    }

    /// What the log has of a live job.
    pub(super) fn home_of(&self, born: Seq, job: &Job) -> Result<HomeRecord, Violation> {
        let reader = self.engine.as_ref().map(Stepped::reader).ok_or("there is no engine")?;
        let body = self.disk.quietly(|| reader.read(job.home.position(), job.home.seq));
        let body =
            body.map_err(|error| Invariant::NothingLost.broken(format!("the payload of job {born}: {error}")))?;
        plan::decode(born, job.home.seq, &body)
    }

    /// What a pool gave back without a worker's word.
    pub(super) fn notice_given_back(&mut self, sure: bool) {
        let held: BTreeSet<Fence> = {
            let all = self.hands.all();
            let tasks = all.iter().flat_map(|hand| hand.queue.iter().chain(&hand.held).chain(&hand.lost));
            tasks.map(|task| task.lease.fence).collect()
        };
        let open: BTreeSet<Fence> = self
            .sent
            .iter()
            .filter_map(|sent| if let Sent::Outcome { lease, .. } = sent { Some(lease.fence) } else { None })
            .collect();
        let gone = |known: &Known| match known.now.place {
            Place::Running(fence) => !held.contains(&fence) && !open.contains(&fence),
            _ => false,
        };
        let back: Vec<usize> = self.model.live().filter(|(_, known)| gone(known)).map(|(at, _)| at).collect();
        for job in back {
            self.figures.count("work", "given back unworked");
            self.just_back.insert(job);
            self.happen(job, sure, Happening::GivenBack);
        }
    }

    /// What follows from the clock: jobs expire, and dead ones leave.
    pub(super) fn notice_time(&mut self, sure: bool) {
        let now = self.now();
        // Of a turn that failed it is not known how far it came: all of it may have happened.
        // Where space is short it may have stood still when it looked at the clock, and not when it was through.
        let still = sure && (self.tight || self.engine.as_mut().is_some_and(Stepped::stands_still));
        let stays = |world: &Self, known: &Known| {
            let in_table = known.born.and_then(|born| world.engine.as_ref()?.table().job(born)).is_some();
            still && in_table
        };
        let due =
            |known: &Known| known.expires_ms != 0 && known.expires_ms <= now && known.latest().place == Place::Waiting;
        let expired: Vec<usize> = self
            .model
            .jobs
            .iter()
            .enumerate()
            .filter(|(_, known)| due(known) && !stays(self, known))
            .map(|(at, _)| at)
            .collect();
        for job in expired {
            self.figures.count("work", "expired");
            self.end(job, sure, End::Expired);
        }
        if !sure {
            self.may_have_expired(now);
        }
        let mut dead: Vec<(UnixMs, Seq, usize)> = self
            .model
            .jobs
            .iter()
            .enumerate()
            .filter(|(_, known)| known.latest().place == Place::Dead)
            .map(|(at, known)| (known.latest().since_ms, known.born.unwrap_or(Seq::MAX), at))
            .collect();
        dead.sort_unstable();
        let mut left = dead.len();
        for (since, _, job) in dead {
            let old = since + millis(DEAD_RETAIN) <= now;
            if !old && left <= plan::dead_max(self.plan) {
                break;
            }
            if self.model.jobs.get(job).is_some_and(|known| stays(self, known)) {
                break;
            }
            left -= 1;
            self.figures.count("work", "dead too long");
            self.end(job, sure, End::Discarded);
        }
    }

    /// In a turn that failed a job may have come to wait, whatever else may have become of it instead, and then have expired.
    fn may_have_expired(&mut self, now: UnixMs) {
        let waits = |standing: &&Standing| standing.place == Place::Waiting;
        for at in 0..self.model.jobs.len() {
            let due = |known: &&mut Known| (1..=now).contains(&known.expires_ms);
            let Some(known) = self.model.jobs.get_mut(at).filter(due) else { continue };
            let ends = |standing: &Standing| standing.after(Happening::Ended(End::Expired));
            let expired: Vec<Standing> = known.maybe.iter().filter(waits).map(ends).collect();
            if !expired.is_empty() {
                known.maybe.splice(..0, expired);
                self.note_end(at);
            }
        }
    }

    /// What was handed to pools waited, under a fence that never was, as its next attempt, of the pool's type.
    pub(super) fn notice_reserved(&mut self) -> Result<(), Violation> {
        let mut tasks: Vec<(Task, String, String)> = {
            let all = self.hands.all();
            let of = |hand: &Hand| (hand.worker_type.to_string(), hand.label.to_string());
            let tasks = all
                .iter()
                .flat_map(|hand| hand.queue.iter().chain(&hand.lost).map(move |task| (task.clone(), of(hand))));
            tasks.map(|(task, (of, label))| (task, of, label)).collect()
        };
        tasks.retain(|(task, ..)| {
            let known = self.known(task.lease.born).and_then(|job| self.model.jobs.get(job));
            // One that was cancelled since it was handed out is on its way back.
            let cancelled = |known: &Known| {
                known.now.place == Place::Gone(End::Cancelled) && self.fences.contains(&task.lease.fence)
            };
            known.is_none_or(|known| known.now.place != Place::Running(task.lease.fence) && !cancelled(known))
        });
        tasks.sort_by_key(|(task, ..)| task.lease.fence);
        let now = self.now();
        let mut ready: BTreeMap<String, Vec<(u8, Seq)>> = BTreeMap::new();
        for (task, of, label) in &tasks {
            let job = self.known(task.lease.born);
            let known = job.and_then(|job| self.model.jobs.get(job));
            let Some((job, known)) = job.zip(known) else {
                let born = task.lease.born;
                return Err(Invariant::NothingFromNowhere.broken(format!("job {born} is handed out")));
            };
            let fresh = self.fences.insert(task.lease.fence);
            let one = fresh && task.attempt == known.now.attempts + 1 && task.max_attempts == known.max_attempts;
            let due = (known.expires_ms == 0 || known.expires_ms > now) && known.now.ready_ms.0 <= self.latest;
            let waits = known.now.place == Place::Waiting && due;
            // The route may have changed within the turn.
            let before = self.routes.get(of.as_str()).is_some_and(|before| before.take(label, known.now));
            let now = || self.engine.as_ref().map(|engine| Routes::of(engine, of)).unwrap_or_default();
            // What only the version on trial may run goes there, whatever became of it before.
            let only = || self.must_wait(known) && now().trial.as_ref() == Some(label);
            let routed = before || now().take(label, known.now) || only();
            let right = known.new.worker_type.as_str() == of && routed && self.may_run(known, label);
            let checks =
                [(Invariant::OneLease, one), (Invariant::EndedStaysEnded, waits), (Invariant::RightVersion, right)];
            for (invariant, holds) in checks {
                if !holds {
                    let how =
                        format!("{task:?} is handed to {label} of {of}; fresh fence {fresh}, the job is {known:?}");
                    return Err(invariant.broken(how));
                }
                self.figures.count("held", invariant.name());
            }
            if known.new.min_version.is_some() {
                self.figures.count("work", "handed to a version that it needs");
            }
            // Who is held has no place in the order of the queue.
            if !self.must_wait(known) {
                ready.entry(of.clone()).or_default().push((known.new.priority.get(), task.lease.born));
            }
            self.happen(job, true, Happening::Reserved(task.lease.fence));
        }
        self.check_order(&ready)
    }

    /// Every pick is the first of the highest priority, or the oldest of all.
    pub(super) fn check_order(&self, picked: &BTreeMap<String, Vec<(u8, Seq)>>) -> Result<(), Violation> {
        let Some(engine) = &self.engine else { return Ok(()) };
        for (of, picks) in picked {
            let type_no = engine.table().type_no(of);
            let waits = |born: Seq| {
                !self.known(born).and_then(|at| self.model.jobs.get(at)).is_some_and(|known| self.must_wait(known))
            };
            let waiting = engine
                .table()
                .jobs()
                .filter(|(born, job)| Some(job.type_no) == type_no && job.state == State::Ready && waits(*born));
            let mut ready: BTreeSet<(u8, Seq)> = waiting.map(|(born, job)| (9 - job.priority.get(), born)).collect();
            ready.extend(picks.iter().map(|(priority, born)| (9 - priority, *born)));
            for (priority, born) in picks {
                let first = ready.first().map(|(_, born)| *born);
                let oldest = ready.iter().map(|(_, born)| *born).min();
                if first != Some(*born) && oldest != Some(*born) {
                    let how = format!("job {born} of {of} is handed out before {first:?} and {oldest:?}");
                    return Err(Invariant::InOrder.broken(how));
                }
                ready.remove(&(9 - priority, *born));
            }
        }
        Ok(())
    }
}
