//! Deciding about jobs that somebody enqueues, and about what somebody wants done to one.

use super::command::{Command, JobAction, Known, LiveJob, LiveOrEnded, Purging, PushAnswers, To};
use super::core::Core;
use super::words::{end_word, state_word};
use crate::job::event::{End, Enqueued, Event, Names, Redriven};
use crate::job::ids::Holder;
use crate::job::new::{NewJob, Pushed, Start};
use crate::job::transition::State;
use crate::limits::MAX_ATTEMPTS_DEFAULT;
use crate::log::Poisoned;
use crate::refusal::Refusal;
use crate::types::Seq;

impl Core {
    pub(super) fn push(&mut self, jobs: Vec<NewJob>, bytes: usize, to: To<PushAnswers>) -> Result<(), Poisoned> {
        self.log.check()?;
        let refused = self.refuses_pushes();
        let mut answers = Vec::with_capacity(jobs.len());
        for job in &jobs {
            answers.push(match &refused {
                Some(refusal) => Err(refusal.clone()),
                None => self.enqueue(job)?,
            });
        }
        let shared = std::sync::Arc::clone(&self.shared);
        self.reply(move |durable| {
            shared.settled(bytes);
            if !durable {
                for answer in answers.iter_mut().filter(|answer| answer.is_ok()) {
                    *answer = Err(Refusal::Poisoned);
                }
            }
            to.give(answers);
        });
        Ok(())
    }

    fn refuses_pushes(&self) -> Option<Refusal> {
        if self.is_stopping() {
            return Some(Refusal::Stopping);
        }
        self.log.full().map(|detail| Refusal::DiskFull { detail: detail.to_string() })
    }

    /// Records one job, unless it is refused or known already.
    fn enqueue(&mut self, job: &NewJob) -> Result<Result<Pushed, Refusal>, Poisoned> {
        let (type_no, digest) = match self.admit(job) {
            Ok(Admitted::New { type_no, digest }) => (type_no, digest),
            Ok(Admitted::Known(pushed)) => return Ok(Ok(pushed)),
            Err(refusal) => return Ok(Err(refusal)),
        };
        let event = self.enqueued(job, type_no, digest, None);
        self.make_room(1, event.bytes_max())?;
        let born = self.put(&event, false);
        Ok(Ok(self.pushed(job, born)))
    }

    fn pushed(&self, job: &NewJob, born: Seq) -> Pushed {
        let id = match &job.id {
            Some(id) => id.as_str().to_owned(),
            None => self.ids.make(born, self.now),
        };
        Pushed { id, worker_type: job.worker_type.clone(), state: self.state_of(born), duplicate: false }
    }

    /// Checks a job against what is known: its type, its size, its id and its key.
    pub(super) fn admit(&self, job: &NewJob) -> Result<Admitted, Refusal> {
        let Some(type_no) = self.table.type_no(job.worker_type.as_str()) else {
            return Err(self.shared.unknown_type(job.worker_type.as_str()));
        };
        let max = self.config.log.payload_max;
        if job.payload.len() > max {
            let bytes = job.payload.len();
            return Err(Refusal::TooLarge { what: "the payload", bytes, max, key: "log.payload_max" });
        }
        if job.id.is_none() && job.idempotency_key.is_none() {
            return Ok(Admitted::New { type_no, digest: 0 });
        }
        let digest = self.digest(job);
        let by_id = job.id.as_ref().and_then(|id| Some(("the id", id, self.table.ids().by_id(type_no, id.as_str())?)));
        let by_key = job.idempotency_key.as_ref();
        let by_key =
            by_key.and_then(|key| Some(("the idempotency key", key, self.table.ids().by_key(type_no, key.as_str())?)));
        // The digest covers both: who holds either with an equal body holds both.
        let Some((what, value, holder)) = by_id.or(by_key) else { return Ok(Admitted::New { type_no, digest }) };
        let first_id = self.id_of(holder);
        if holder.digest != digest {
            return Err(Refusal::KeyConflict { what, value: value.as_str().to_owned(), first_id });
        }
        let state = match holder.ended {
            Some((end, _)) => end_word(end),
            None => self.state_of(holder.born),
        };
        let worker_type = job.worker_type.clone();
        Ok(Admitted::Known(Pushed { id: first_id, worker_type, state, duplicate: true }))
    }

    fn id_of(&self, holder: &Holder) -> String {
        match &holder.id {
            Some(id) => id.to_string(),
            None => self.ids.make(holder.born, holder.created_ms),
        }
    }

    /// What a repeated call is compared by: everything that its body says.
    fn digest(&self, job: &NewJob) -> u64 {
        let (start, moment) = match job.start {
            Start::Now => (0_u8, 0_u64),
            Start::At(at) => (1, at),
            Start::After(delay) => (2, u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)),
        };
        let optional = |text: Option<&str>| text.map_or_else(Vec::new, |text| [b"+", text.as_bytes()].concat());
        self.ids.digest(&[
            optional(job.id.as_ref().map(|id| id.as_str())).as_slice(),
            optional(job.idempotency_key.as_ref().map(|key| key.as_str())).as_slice(),
            job.task.as_bytes(),
            job.payload.as_slice(),
            &[job.priority.get(), start],
            optional(job.tenant.as_deref()).as_slice(),
            &moment.to_le_bytes(),
            &job.expires_at.unwrap_or(0).to_le_bytes(),
            &job.max_attempts.unwrap_or(0).to_le_bytes(),
        ])
    }

    /// The event that enqueues an admitted job.
    pub(super) fn enqueued<'a>(
        &self,
        job: &'a NewJob,
        type_no: u32,
        digest: u64,
        parent: Option<&'a str>,
    ) -> Event<'a> {
        let of_type = self.types.get(&type_no).and_then(|of_type| of_type.worker.as_ref());
        let ready_ms = match job.start {
            Start::Now => 0,
            Start::At(at) => at,
            Start::After(delay) => self.now.saturating_add(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)),
        };
        let id = job.id.as_ref().map(|id| id.as_str());
        let key = job.idempotency_key.as_ref().map(|key| key.as_str());
        let meta = Enqueued {
            type_no,
            task: &job.task,
            priority: job.priority,
            tenant: job.tenant.as_deref(),
            created_ms: self.now,
            ready_ms,
            expires_ms: job.expires_at.unwrap_or(0),
            max_attempts: job
                .max_attempts
                .unwrap_or_else(|| of_type.map_or(MAX_ATTEMPTS_DEFAULT, |worker| worker.live.max_attempts)),
            names: (id.is_some() || key.is_some()).then_some(Names { id, key, digest }),
            parent,
        };
        Event::Enqueued(meta, &job.payload)
    }

    /// A live job's state on the wire.
    pub(super) fn state_of(&self, born: Seq) -> &'static str {
        self.table.job(born).map_or("completed", |job| state_word(job.state, self.is_parked(job.type_no)))
    }

    pub(super) fn is_parked(&self, type_no: u32) -> bool {
        self.types.get(&type_no).is_none_or(|of_type| of_type.worker.is_none())
    }

    pub(super) fn live(&self, born: Seq) -> Option<LiveJob> {
        let job = self.table.job(born)?.clone();
        let parked = self.is_parked(job.type_no);
        Some(LiveJob { born, job, parked })
    }

    /// Finds a job by any id.
    pub(super) fn find(&self, id: &str) -> Known {
        if let Some((born, _)) = self.ids.read(id) {
            if let Some(live) = self.live(born).filter(|live| live.job.names().is_none_or(|names| names.id.is_none())) {
                return Known::Live(Box::new(live));
            }
            if born < self.log.next_seq() {
                return Known::Look { born, from: born, ended: None };
            }
        }
        // Ids are chosen within a type: a live job is shown first, then the latest one.
        let holders = self.table.types().filter_map(|(type_no, _)| self.table.ids().by_id(type_no, id));
        let Some(holder) = holders.max_by_key(|holder| (holder.ended.is_none(), holder.born)) else {
            return Known::Nothing;
        };
        match (holder.ended, self.live(holder.born)) {
            (None, Some(live)) => Known::Live(Box::new(live)),
            (Some((end, seq)), _) => Known::Look { born: holder.born, from: seq, ended: Some(end) },
            (None, None) => Known::Nothing,
        }
    }

    pub(super) fn live_at(&self, places: &[(Seq, Seq)]) -> Vec<Option<LiveJob>> {
        places.iter().map(|(born, home)| self.live(*born).filter(|live| live.job.home.seq == *home)).collect()
    }

    pub(super) fn act(
        &mut self,
        id: &str,
        action: JobAction,
        to: To<Result<LiveOrEnded, Refusal>>,
    ) -> Result<(), Poisoned> {
        let done = self.decide_act(id, action)?;
        self.reply(move |durable| to.give(if durable { done } else { Err(Refusal::Poisoned) }));
        Ok(())
    }

    fn decide_act(&mut self, id: &str, action: JobAction) -> Result<Result<LiveOrEnded, Refusal>, Poisoned> {
        let id = id.to_owned();
        let live = match self.find(&id) {
            Known::Live(live) => live,
            Known::Look { ended, .. } => {
                let state = ended.map_or("finished", end_word);
                return Ok(Err(Refusal::WrongState { id, state, remedy: "a finished job stays as it is" }));
            }
            Known::Nothing => return Ok(Err(Refusal::NotFound { id })),
        };
        let (born, at) = (live.born, self.now);
        let state = state_word(live.job.state, live.parked);
        match (action, live.job.state) {
            (JobAction::Retry, State::Dead | State::Delayed) => {
                self.record(&Event::Redriven(Redriven { born, at }))?;
                Ok(self.live(born).map(|live| LiveOrEnded::Live(Box::new(live))).ok_or(Refusal::NotFound { id }))
            }
            (JobAction::Cancel, State::Ready | State::Delayed) => {
                self.end(born, End::Cancelled, &[])?;
                Ok(Ok(LiveOrEnded::Ended { last: live, end: End::Cancelled, at }))
            }
            (JobAction::Discard, State::Dead) => {
                self.end(born, End::Discarded, &[])?;
                Ok(Ok(LiveOrEnded::Ended { last: live, end: End::Discarded, at }))
            }
            _ => Ok(Err(Refusal::WrongState { id, state, remedy: remedy(action) })),
        }
    }

    pub(super) fn purge(&mut self, worker_type: &str, to: To<Result<u64, Refusal>>) -> Result<(), Poisoned> {
        let Some(type_no) = self.table.type_no(worker_type) else {
            let refusal = self.shared.unknown_type(worker_type);
            self.reply(move |_| to.give(Err(refusal)));
            return Ok(());
        };
        let jobs = self.table.jobs_in(type_no, &[State::Ready, State::Delayed, State::Dead]);
        self.purge_on(Purging { rest: jobs.into_iter(), count: 0, to })
    }

    /// Ends as many as one frame holds; others are served in between.
    pub(super) fn purge_on(&mut self, mut purge: Purging) -> Result<(), Poisoned> {
        while !self.log.is_full() && !self.stands_still() {
            let Some(born) = purge.rest.next() else {
                let (count, to) = (purge.count, purge.to);
                self.reply(move |durable| to.give(if durable { Ok(count) } else { Err(Refusal::Poisoned) }));
                return Ok(());
            };
            let end = match self.table.job(born).map(|job| job.state) {
                Some(State::Ready | State::Delayed) => End::Cancelled,
                Some(State::Dead) => End::Discarded,
                Some(State::Reserved) | None => continue,
            };
            self.end(born, end, &[])?;
            purge.count += 1;
        }
        drop(self.to_self.send(Command::PurgeRest(purge)));
        Ok(())
    }
}

/// What the table says of a job that somebody enqueues.
pub(super) enum Admitted {
    /// It is new.
    New {
        /// Its type.
        type_no: u32,
        /// What a repeated call will be compared by.
        digest: u64,
    },
    /// It was enqueued before.
    Known(Pushed),
}

fn remedy(action: JobAction) -> &'static str {
    match action {
        JobAction::Retry => "only a dead or a delayed job can be retried",
        JobAction::Cancel => "only a job that waits can be cancelled; discard a dead one",
        JobAction::Discard => "only a dead job can be discarded; cancel one that waits",
    }
}
