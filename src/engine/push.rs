//! Deciding about jobs that somebody enqueues: accepted, known already, or refused and why.

use super::command::{Accepted, Command, Pushing};
use super::core::Core;
use super::facts::{Fact, Read};
use super::words::end_word;
use crate::job::event::{Enqueued, Event, MinVersion, Names, TraceParent};
use crate::job::new::{NewJob, Pushed, Start};
use crate::limits::{MAX_ATTEMPTS_DEFAULT, TASK_BYTES_MAX, TENANT_BYTES_MAX};
use crate::log::Poisoned;
use crate::refusal::Refusal;
use crate::types::{Seq, millis};

impl Core {
    pub(super) fn push(&mut self, mut pushing: Pushing) -> Result<(), Poisoned> {
        self.log.check()?;
        let refused = self.refuses_pushes();
        while let Some(job) = pushing.answers.jobs.get(pushing.answers.of.len()) {
            let admitted = match &refused {
                Some(refusal) => Err(refusal.clone()),
                None => self.admit(job),
            };
            let answer = match admitted {
                Ok(Admitted::New { type_no, digest }) => Ok(self.enqueue(job, type_no, digest)?),
                Ok(Admitted::Known(pushed)) => Ok(Accepted::Known(Box::new(pushed))),
                Ok(Admitted::Unsure) => {
                    let rest = pushing.answers.jobs.get(pushing.answers.of.len()..).unwrap_or_default();
                    let seqs = self.may_hold(rest);
                    return self.look_up(seqs, Command::Push(pushing));
                }
                Err(refusal) => Err(Box::new(refusal)),
            };
            pushing.answers.of.push(answer);
        }
        let Pushing { mut answers, bytes, to } = pushing;
        let shared = std::sync::Arc::clone(&self.shared);
        self.reply(move |durable| {
            shared.settled(bytes);
            if !durable {
                for answer in answers.of.iter_mut().filter(|answer| answer.is_ok()) {
                    *answer = Err(Box::new(Refusal::Poisoned));
                }
            }
            to.give(answers);
        });
        Ok(())
    }

    fn refuses_pushes(&mut self) -> Option<Refusal> {
        if self.refuses_jobs() {
            return Some(Refusal::Stopping);
        }
        // The second half of what may be the last segment is for what becomes of jobs: first it must be known that it is not.
        if self.log.room() < self.log.options().segment_bytes / 2 {
            self.await_spare();
        }
        self.why_full().map(|detail| Refusal::DiskFull { detail: detail.to_string() })
    }

    /// Records one job that was admitted.
    fn enqueue(&mut self, job: &NewJob, type_no: u32, digest: u64) -> Result<Accepted, Poisoned> {
        let event = self.enqueued(job, type_no, digest, None);
        let delayed = matches!(&event, Event::Enqueued(meta, _) if meta.ready_ms > meta.created_ms);
        self.make_room(1, event.bytes_max())?;
        let born = self.put(&event, false);
        let state = match delayed {
            true => "delayed",
            false if self.is_parked(type_no) || job.min_version.is_some() && self.is_held(born) => "parked",
            false => "ready",
        };
        Ok(Accepted::New { born, created_ms: self.now, state })
    }

    fn is_held(&self, born: Seq) -> bool {
        self.table.noted(born).is_some_and(|job| self.table.is_held(job))
    }

    /// Checks a job against what is known: its type, its size, its id and its key.
    pub(super) fn admit(&self, job: &NewJob) -> Result<Admitted, Refusal> {
        let Some(type_no) = self.table.type_no(job.worker_type.as_str()) else {
            return Err(self.shared.unknown_type(job.worker_type.as_str()));
        };
        let tenant = job.tenant.as_deref().unwrap_or_default();
        let texts = [("task", job.task.as_str(), TASK_BYTES_MAX), ("tenant", tenant, TENANT_BYTES_MAX)];
        if let Some((member, text, max)) = texts.into_iter().find(|(_, text, max)| text.len() > *max) {
            let detail = format!("member {member:?} is {} bytes long, the most is {max}", text.len());
            return Err(Refusal::InvalidJob { detail });
        }
        let max = self.config.log.payload_max;
        if job.payload.len() > max {
            let bytes = job.payload.len();
            return Err(Refusal::TooLarge { what: "the payload", bytes, max, key: "log.payload_max" });
        }
        if job.id.is_none() && job.idempotency_key.is_none() {
            return Ok(Admitted::New { type_no, digest: 0 });
        }
        let digest = self.digest(job);
        let Some(ids) = self.table.ids() else {
            return match self.table.names_unknown() {
                Some(why) => Err(Refusal::Damaged { what: "the id or key", detail: why.to_owned() }),
                None => Ok(Admitted::Unsure),
            };
        };
        let mut holder = Holder::None;
        if let Some(id) = &job.id {
            let seqs = ids.by_id(type_no, id.as_str());
            let same = |fact: &Fact| fact.type_no == type_no && fact.id() == Some(id.as_str());
            holder = self.holder("the id", id.as_str(), &seqs, same)?;
        }
        if let (Holder::None, Some(key)) = (&holder, &job.idempotency_key) {
            let seqs = ids.by_key(type_no, key.as_str());
            let same = |fact: &Fact| fact.type_no == type_no && fact.key() == Some(key.as_str());
            holder = self.holder("the idempotency key", key.as_str(), &seqs, same)?;
        }
        // The digest covers both: who holds either with an equal body holds both.
        let (what, value, fact) = match holder {
            Holder::None => return Ok(Admitted::New { type_no, digest }),
            Holder::Unsure => return Ok(Admitted::Unsure),
            Holder::Is { what, value, fact } => (what, value, fact),
        };
        let first_id = match fact.id() {
            Some(id) => id.to_owned(),
            None => self.ids.make(fact.born, fact.created_ms),
        };
        if fact.names.as_ref().is_none_or(|names| names.digest != digest) {
            return Err(Refusal::KeyConflict { what, value: value.to_owned(), first_id });
        }
        let state = match fact.end {
            Some(end) => end_word(end),
            None => self.state_of(type_no, fact.born),
        };
        let worker_type = job.worker_type.clone();
        Ok(Admitted::Known(Pushed { id: first_id, worker_type, state, duplicate: true }))
    }

    /// Who holds a name, of the records that may bear it.
    fn holder<'a>(
        &'a self,
        what: &'static str,
        value: &'a str,
        seqs: &[Seq],
        same: impl Fn(&Fact) -> bool,
    ) -> Result<Holder<'a>, Refusal> {
        let mut newest: Option<(Seq, &Fact)> = None;
        for seq in seqs {
            match self.facts.get(*seq) {
                None => return Ok(Holder::Unsure),
                // Of a job's records the last one counts: it may say that the job has ended.
                Some(Read::Fact(fact)) if same(fact) => {
                    newest = newest.filter(|(other, _)| *other > *seq).or(Some((*seq, fact)));
                }
                Some(Read::Fact(_) | Read::Nothing) => {}
                Some(Read::Damaged(detail)) => return Err(Refusal::Damaged { what, detail: detail.clone() }),
            }
        }
        Ok(newest.map_or(Holder::None, |(_, fact)| Holder::Is { what, value, fact }))
    }

    /// Seqs of the records that may bear names of these jobs; none while the log's names are not known yet.
    pub(super) fn may_hold(&self, jobs: &[NewJob]) -> Vec<Seq> {
        let Some(ids) = self.table.ids() else { return Vec::new() };
        let of = |job: &NewJob| {
            let type_no = self.table.type_no(job.worker_type.as_str()).unwrap_or(0);
            let mut seqs = job.id.as_ref().map(|id| ids.by_id(type_no, id.as_str())).unwrap_or_default();
            seqs.extend(job.idempotency_key.iter().flat_map(|key| ids.by_key(type_no, key.as_str())));
            seqs
        };
        jobs.iter().flat_map(of).collect()
    }

    /// What a repeated call is compared by: everything that its body says, but for the trace, of which it is another part.
    fn digest(&self, job: &NewJob) -> u64 {
        let (start, moment) = match job.start {
            Start::Now => (0_u8, 0_u64),
            Start::At(at) => (1, at),
            Start::After(delay) => (2, millis(delay)),
        };
        let optional = |text: Option<&str>| text.map_or_else(Vec::new, |text| [b"+", text.as_bytes()].concat());
        // One that needs no version is compared as it was before one could be needed.
        let mut attempts_and_version = job.max_attempts.unwrap_or(0).to_le_bytes().to_vec();
        attempts_and_version.extend(job.min_version.iter().flat_map(|label| label.as_str().bytes()));
        self.ids.digest(&[
            optional(job.id.as_ref().map(|id| id.as_str())).as_slice(),
            optional(job.idempotency_key.as_ref().map(|key| key.as_str())).as_slice(),
            job.task.as_bytes(),
            job.payload.as_slice(),
            &[job.priority.get(), start],
            optional(job.tenant.as_deref()).as_slice(),
            &moment.to_le_bytes(),
            &job.expires_at.unwrap_or(0).to_le_bytes(),
            &attempts_and_version,
        ])
    }

    /// The event that enqueues an admitted job; `parent`: the id of the job that it follows, and the trace which that was in.
    pub(super) fn enqueued<'a>(
        &self,
        job: &'a NewJob,
        type_no: u32,
        digest: u64,
        parent: Option<(&'a str, Option<TraceParent>)>,
    ) -> Event<'a> {
        let of_type = self.types.get(&type_no).and_then(|of_type| of_type.worker.as_ref());
        let ready_ms = match job.start {
            Start::Now => 0,
            Start::At(at) => at,
            Start::After(delay) => self.now.saturating_add(millis(delay)),
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
            parent: parent.map(|(id, _)| id),
            trace: job.traceparent.or_else(|| parent?.1),
            min_version: job.min_version.as_ref().map(|label| MinVersion {
                label: label.as_str(),
                version_no: self.table.worker_type(type_no).and_then(|of| of.first_number(label)).unwrap_or(0),
            }),
        };
        Event::Enqueued(meta, &job.payload)
    }
}

/// Who holds a name.
enum Holder<'a> {
    /// Nobody.
    None,
    /// The job of this record.
    Is { what: &'static str, value: &'a str, fact: &'a Fact },
    /// A record must be read first.
    Unsure,
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
    /// Records must be read first: those that `may_hold` names, or else all that the log's names are gathered from.
    Unsure,
}
