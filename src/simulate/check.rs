//! Holding the engine's word against the model: after a turn, after a turn that failed, and after a start.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::disk::Loss;
use super::model::{Counts, Happening, Known, Model, Place, Standing};
use super::plan::{self, BACKOFF_MAX, DEAD_RETAIN, PAYLOAD_MAX, TYPES};
use super::world::{Reply, Sent, Violation, World};
use crate::engine::handle::JobAction;
use crate::engine::stepped::Stepped;
use crate::job::event::End;
use crate::job::ids::IdMaker;
use crate::job::new::{NewJob, Pushed, Start};
use crate::job::table::Job;
use crate::job::transition::State;
use crate::pool::Task;
use crate::refusal::Refusal;
use crate::types::{Fence, Lease, Seq, UnixMs};
use crate::worker::Outcome;

/// What the model says of a job that is enqueued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Admission {
    New,
    Known(usize),
    Refused(&'static str),
    /// Its name was another's, which ended and may be forgotten by now: new, or this.
    Either(usize),
}

impl World {
    /// The engine takes turns until it has nothing to do, and what it did is compared with the model.
    pub(super) fn turn(&mut self) -> Result<(), Violation> {
        for _ in 0..1000 {
            let Some(engine) = &mut self.engine else { return Ok(()) };
            match engine.turn() {
                Ok(over) => {
                    self.absorb()?;
                    if over {
                        self.engine = None;
                        return Ok(());
                    }
                    if !self.engine.as_ref().is_some_and(Stepped::is_busy) {
                        return Ok(());
                    }
                }
                Err(_) => {
                    self.unsure();
                    let seed = self.disk.calls();
                    let power = self.disk.has_lost_power() || seed.is_multiple_of(2);
                    return self.crash(if power { Loss::Power(seed) } else { Loss::Process }, &[]);
                }
            }
        }
        Err("the engine never comes to rest".to_owned())
    }

    /// After a turn that succeeded.
    fn absorb(&mut self) -> Result<(), Violation> {
        self.notice_purged();
        self.just_back.clear();
        let mut at = 0;
        while let Some(sent) = self.sent.get(at) {
            if self.is_open(sent) {
                at += 1;
                continue;
            }
            let sent = self.sent.remove(at);
            if matches!(sent, Sent::Act { .. }) {
                self.bind(false)?;
                self.notice_given_back();
            }
            self.follow(sent, true)?;
        }
        self.bind(true)?;
        self.notice_given_back();
        self.notice_time(true);
        self.notice_reserved()?;
        self.compare()
    }

    /// Whether the engine has not come to it yet.
    fn is_open(&self, sent: &Sent) -> bool {
        match sent {
            Sent::Push { reply, .. } | Sent::Act { reply, .. } | Sent::Purge { reply, .. } => {
                self.reply(*reply).is_none()
            }
            Sent::Outcome { lease, .. } => {
                let ours = self.known(lease.born).and_then(|job| self.model.jobs.get(job));
                let ours = ours.is_some_and(|known| known.now.place == Place::Running(lease.fence));
                let job = self.engine.as_ref().and_then(|engine| engine.table().job(lease.born));
                ours && job.is_some_and(|job| job.state == State::Reserved && job.fence == lease.fence)
            }
        }
    }

    /// After a turn that failed: what was answered holds, and what came before it; the rest may hold.
    pub(super) fn unsure(&mut self) {
        self.loose = true;
        let sent = std::mem::take(&mut self.sent);
        let answered = |sent: &Sent| match sent {
            Sent::Push { reply, .. } => {
                matches!(self.reply(*reply), Some(Reply::Pushed(all)) if all.iter().any(Result::is_ok))
            }
            Sent::Act { reply, .. } => matches!(self.reply(*reply), Some(Reply::Acted(Ok(())))),
            Sent::Purge { reply, .. } => matches!(self.reply(*reply), Some(Reply::Purged(Ok(_)))),
            Sent::Outcome { .. } => false,
        };
        let sure = sent.iter().rposition(answered).map_or(0, |at| at + 1);
        for (at, sent) in sent.into_iter().enumerate() {
            // A surprise here is one of the comparison after the start.
            drop(self.follow(sent, at < sure));
        }
        self.notice_time(false);
    }

    fn follow(&mut self, sent: Sent, sure: bool) -> Result<(), Violation> {
        match sent {
            Sent::Push { jobs, reply } => {
                let answers = match self.reply(reply) {
                    Some(Reply::Pushed(answers)) => answers,
                    _ => vec![Err(Refusal::Poisoned); jobs.len()],
                };
                for (new, answer) in jobs.into_iter().zip(answers) {
                    self.pushed(new, answer, sure)?;
                }
                Ok(())
            }
            Sent::Outcome { lease, outcome } => {
                self.outcome_of(lease, outcome, sure);
                Ok(())
            }
            Sent::Act { job, action, reply } => self.acted(job, action, self.reply(reply), sure),
            Sent::Purge { of, reply, ended } => self.purged(of, ended, self.reply(reply), sure),
        }
    }

    fn now(&self) -> UnixMs {
        crate::clock::Clock::wall_ms(self.clock.as_ref())
    }

    fn first_seq(&self) -> Seq {
        self.engine.as_ref().map_or(0, |engine| engine.reader().first_seq())
    }

    fn admit(&self, new: &NewJob) -> Admission {
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

    fn pushed(&mut self, new: NewJob, answer: Result<Pushed, Refusal>, sure: bool) -> Result<(), Violation> {
        let admission = self.admit(&new);
        let surprise = |answer: &dyn std::fmt::Debug| {
            Err(format!("expected {admission:?} of {new:?}, and was answered {answer:?}"))
        };
        match (&answer, admission) {
            (Err(Refusal::DiskFull { .. }), _) if self.tight => {
                self.figures.count("refused", "disk full");
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

    fn accept(&mut self, new: NewJob, id: Option<String>, parent: Option<usize>, sure: bool) -> usize {
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

    fn end(&mut self, job: usize, sure: bool, end: End) {
        self.happen(job, sure, Happening::Ended(end));
        let first_seq = self.first_seq();
        if let Some(known) = self.model.jobs.get_mut(job) {
            known.ended_at = first_seq;
        }
    }

    fn outcome_of(&mut self, lease: Lease, outcome: Outcome, sure: bool) {
        let job = self.known(lease.born);
        let place = job.and_then(|job| self.model.jobs.get(job)).map(|known| known.latest().place);
        let Some(job) = job.filter(|_| place == Some(Place::Running(lease.fence))) else {
            self.figures.count("refused", "an older lease");
            return;
        };
        match outcome {
            Outcome::Done { enqueue, .. } => match self.group(&enqueue) {
                None => self.fail(job, sure, false, false),
                Some(fresh) => {
                    self.end(job, sure, End::Completed);
                    for new in fresh {
                        self.figures.count("work", "follow-up");
                        self.accept(new, None, Some(job), sure);
                    }
                }
            },
            Outcome::Fail { killed, .. } => self.fail(job, sure, killed, false),
            Outcome::Dead { .. } => self.fail(job, sure, false, true),
            Outcome::Defer { after, .. } => {
                let deferrals = self.model.jobs.get(job).map_or(0, |known| known.latest().deferrals);
                if deferrals >= crate::limits::DEFERRALS_MAX {
                    return self.fail(job, sure, false, true);
                }
                let now = self.now();
                let ready_ms = match after {
                    Some(after) => (now + millis(after), now + millis(after)),
                    None => (now, now + millis(self.pause_max(job, u32::from(deferrals) + 1))),
                };
                self.happen(job, sure, Happening::Deferred { ready_ms });
            }
            Outcome::Interrupted | Outcome::NotStarted { .. } => self.happen(job, sure, Happening::GivenBack),
        }
    }

    /// The new ones of a completion's follow-up jobs; `None` if one of them is refused, and so the completion.
    fn group(&self, enqueue: &[NewJob]) -> Option<Vec<NewJob>> {
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
        let fits = enqueue.is_empty() || bytes <= self.frame_bytes_max();
        fits.then_some(fresh)
    }

    /// Whether the table has a job with this one's names.
    fn table_has(&self, new: &NewJob) -> bool {
        let Some(engine) = &self.engine else { return false };
        let Some(type_no) = engine.table().type_no(new.worker_type.as_str()) else { return false };
        let (id, key) = (new.id.as_ref().map(|id| id.as_str()), new.idempotency_key.as_ref().map(|key| key.as_str()));
        let same = |job: &Job| job.names().is_some_and(|names| names.id == id && names.key == key);
        engine.table().jobs().any(|(_, job)| job.type_no == type_no && same(job))
    }

    fn fail(&mut self, job: usize, sure: bool, killed: bool, at_once: bool) {
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

    /// The longest pause after the n-th failure; a type that the config has no more has the default one.
    fn pause_max(&self, job: usize, n: u32) -> Duration {
        let of = self.model.jobs.get(job).map_or("", |known| known.new.worker_type.as_str());
        let (first, max) = if plan::has(self.plan, of) {
            (Duration::from_millis(500), BACKOFF_MAX)
        } else {
            (Duration::from_secs(5), Duration::from_secs(3600))
        };
        first.saturating_mul(4_u32.saturating_pow(n.saturating_sub(1))).min(max)
    }

    /// The job that tells of a dead one.
    fn summarise(&mut self, job: usize, sure: bool) {
        let Some(to) = self.model.jobs.get(job).and_then(|known| plan::on_dead(known.new.worker_type.as_str())) else {
            return;
        };
        self.figures.count("work", "summary of a dead job");
        let summary = self.accept(NewJob::new(to.parse().expect("a name"), Vec::new()), None, None, sure);
        if let Some(known) = self.model.jobs.get_mut(summary) {
            known.summary_of = Some(job);
        }
    }

    fn acted(&mut self, job: usize, action: JobAction, reply: Option<Reply>, sure: bool) -> Result<(), Violation> {
        let Some(known) = self.model.jobs.get(job) else { return Ok(()) };
        let place = known.latest().place;
        let delayed = place == Place::Waiting && known.latest().ready_ms.1 > 0;
        // A job may be found by its chosen id though another one of that id is meant, or there is none any more.
        let shared = known.new.id.is_some();
        let may = match (action, place) {
            (JobAction::Retry, Place::Dead)
            | (JobAction::Cancel, Place::Waiting)
            | (JobAction::Discard, Place::Dead) => Some(true),
            // Ready and delayed differ by the clock alone.
            (JobAction::Retry, Place::Waiting) if delayed => None,
            // Whether it was given back before or after is not known.
            _ if self.just_back.contains(&job) => None,
            _ => Some(false),
        };
        let may = may.filter(|_| !self.just_back.contains(&job));
        let done = match reply {
            Some(Reply::Acted(Ok(()))) => true,
            Some(Reply::Acted(Err(Refusal::Poisoned))) | None if !sure => shared || may != Some(false),
            _ => false,
        };
        if shared {
            self.acted_on_namesake(job, action, done, sure);
            return Ok(());
        }
        if sure && may.is_some_and(|may| may != done) {
            return Err(format!("{action:?} of {known:?}: expected {may:?}, and was {done}"));
        }
        if done {
            self.act_on(job, action, sure);
        }
        Ok(())
    }

    fn act_on(&mut self, job: usize, action: JobAction, sure: bool) {
        match action {
            JobAction::Retry => self.happen(job, sure, Happening::Redriven),
            JobAction::Cancel => self.end(job, sure, End::Cancelled),
            JobAction::Discard => self.end(job, sure, End::Discarded),
        }
    }

    /// Chosen ids stand for a live job of any type first: which one was meant is the engine's to say.
    fn acted_on_namesake(&mut self, job: usize, action: JobAction, done: bool, sure: bool) {
        if !done {
            return;
        }
        let id = self.model.jobs.get(job).and_then(|known| known.new.id.clone());
        let fits = |known: &Known| {
            known.new.id == id
                && match action {
                    JobAction::Retry => matches!(known.latest().place, Place::Dead | Place::Waiting),
                    JobAction::Cancel => known.latest().place == Place::Waiting,
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
            if !sure || changed {
                self.act_on(*candidate, action, sure && (changed || candidates.len() == 1));
            }
        }
    }

    fn purged(&mut self, of: &str, ended: u64, reply: Option<Reply>, sure: bool) -> Result<(), Violation> {
        if !sure {
            for (job, end) in self.purgeable(of) {
                self.end(job, false, end);
            }
            return Ok(());
        }
        match reply {
            Some(Reply::Purged(Ok(purged))) if purged == ended => Ok(()),
            Some(Reply::Purged(Err(Refusal::UnknownType { .. }))) if ended == 0 => Ok(()),
            reply => Err(format!("a purge of {of} has ended {ended} jobs, and says {reply:?}")),
        }
    }

    /// Jobs of a type that do not run, and how a purge ends them.
    fn purgeable(&self, of: &str) -> Vec<(usize, End)> {
        let of_type = self.model.jobs.iter().enumerate().filter(|(_, known)| known.new.worker_type.as_str() == of);
        let end = |(at, known): (usize, &Known)| match known.latest().place {
            Place::Waiting => Some((at, End::Cancelled)),
            Place::Dead => Some((at, End::Discarded)),
            Place::Absent | Place::Running(_) | Place::Gone(_) => None,
        };
        of_type.filter_map(end).collect()
    }

    /// A purge goes on frame by frame: what it has ended up to now.
    fn notice_purged(&mut self) {
        let acted = |sent: &Sent| match sent {
            Sent::Act { job, reply, .. } if matches!(self.reply(*reply), Some(Reply::Acted(Ok(())))) => Some(*job),
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
            if let Some(Sent::Purge { ended, .. }) = self.sent.get_mut(at) {
                *ended += gone.len() as u64;
            }
            for (job, end) in gone {
                self.end(job, true, end);
            }
        }
    }

    /// Finds out which job of the table is which of the model; `all` of them must be one.
    fn bind(&mut self, all: bool) -> Result<(), Violation> {
        let ids = IdMaker::new(*b"a simulated log.");
        let Some(engine) = &self.engine else { return Ok(()) };
        let new: Vec<(Seq, Job)> = engine
            .table()
            .jobs()
            .filter(|(born, _)| !self.model.by_born.contains_key(born))
            .map(|(born, job)| (born, job.clone()))
            .collect();
        let new: BTreeMap<Seq, Job> = new.into_iter().collect();
        for (born, job) in new {
            let reader = engine.reader();
            let body = self.disk.quietly(|| reader.read(job.home.position(), job.home.seq));
            let body = body.map_err(|error| format!("the payload of job {born} cannot be read: {error}"))?;
            let (id, payload) = plan::decode(born, job.home.seq, &body)?;
            let of = engine.table().worker_type(job.type_no).map(|of| of.name.clone());
            let summary: Option<String> = serde_json::from_slice::<serde_json::Value>(&payload)
                .ok()
                .filter(|value| value.get("died_at").is_some())
                .and_then(|value| value.get("id")?.as_str().map(str::to_owned));
            let fits = |known: &Known| {
                let live = known.now.is_live() || known.maybe.iter().any(Standing::is_live);
                let same = match (&summary, known.summary_of) {
                    (Some(id), Some(dead)) => {
                        self.model.jobs.get(dead).is_some_and(|dead| dead.id.as_ref() == Some(id))
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
                return Err(format!("job {born} of {of:?} comes from nowhere: {payload}"));
            };
            let made = ids.make(born, job.created_ms);
            let Some(known) = self.model.jobs.get_mut(at) else { continue };
            let id = known.new.id.as_ref().map_or(made, ToString::to_string);
            if known.id.as_ref().is_some_and(|known| *known != id) {
                return Err(format!("job {born} has the id {id}, and was answered {:?}", known.id));
            }
            (known.born, known.id, known.max_attempts) = (Some(born), Some(id), job.max_attempts);
            self.model.by_born.insert(born, at);
        }
        Ok(())
    }

    /// What a pool gave back without a worker's word.
    fn notice_given_back(&mut self) {
        let held: BTreeSet<Fence> = {
            let all = self.hands.all();
            all.iter().flat_map(|hand| hand.queue.iter().chain(&hand.held)).map(|task| task.lease.fence).collect()
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
            self.happen(job, true, Happening::GivenBack);
        }
    }

    /// What follows from the clock: jobs expire, and dead ones leave.
    fn notice_time(&mut self, sure: bool) {
        let now = self.now();
        let still = self.engine.as_mut().is_some_and(Stepped::stands_still);
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

    /// What was handed to pools.
    fn notice_reserved(&mut self) -> Result<(), Violation> {
        let mut tasks: Vec<(Task, String)> = {
            let all = self.hands.all();
            all.iter()
                .flat_map(|hand| hand.queue.iter().map(|task| (task.clone(), hand.worker_type.to_string())))
                .collect()
        };
        tasks.retain(|(task, _)| {
            let known = self.known(task.lease.born).and_then(|job| self.model.jobs.get(job));
            known.is_none_or(|known| known.now.place != Place::Running(task.lease.fence))
        });
        tasks.sort_by_key(|(task, _)| task.lease.fence);
        let now = self.now();
        let mut ready: BTreeMap<String, Vec<(u8, Seq)>> = BTreeMap::new();
        for (task, of) in &tasks {
            let job = self.known(task.lease.born);
            let known = job.and_then(|job| self.model.jobs.get(job));
            let Some((job, known)) = job.zip(known) else {
                return Err(format!("job {} is handed out and was never enqueued", task.lease.born));
            };
            let fresh = self.fences.insert(task.lease.fence);
            let right = fresh
                && known.now.place == Place::Waiting
                && known.new.worker_type.as_str() == of
                && task.attempt == known.now.attempts + 1
                && task.max_attempts == known.max_attempts
                && (known.expires_ms == 0 || known.expires_ms > now)
                && known.now.ready_ms.0 <= self.latest;
            if !right {
                return Err(format!("{task:?} is handed out to {of}; fresh fence {fresh}, the job is {known:?}"));
            }
            ready.entry(of.clone()).or_default().push((known.new.priority.get(), task.lease.born));
            self.happen(job, true, Happening::Reserved(task.lease.fence));
        }
        self.check_order(&ready)
    }

    /// Every pick is the first of the highest priority, or the oldest of all.
    fn check_order(&self, picked: &BTreeMap<String, Vec<(u8, Seq)>>) -> Result<(), Violation> {
        let Some(engine) = &self.engine else { return Ok(()) };
        for (of, picks) in picked {
            let type_no = engine.table().type_no(of);
            let waiting =
                engine.table().jobs().filter(|(_, job)| Some(job.type_no) == type_no && job.state == State::Ready);
            let mut ready: BTreeSet<(u8, Seq)> = waiting.map(|(born, job)| (9 - job.priority.get(), born)).collect();
            ready.extend(picks.iter().map(|(priority, born)| (9 - priority, *born)));
            for (priority, born) in picks {
                let first = ready.first().map(|(_, born)| *born);
                let oldest = ready.iter().map(|(_, born)| *born).min();
                if first != Some(*born) && oldest != Some(*born) {
                    return Err(format!("job {born} of {of} is handed out before {first:?} and {oldest:?}"));
                }
                ready.remove(&(9 - priority, *born));
            }
        }
        Ok(())
    }

    /// The table is the model's, job by job and count by count.
    fn compare(&self) -> Result<(), Violation> {
        let Some(engine) = &self.engine else { return Ok(()) };
        let (table, now) = (engine.table(), self.now());
        for (_, known) in self.model.live() {
            let job = known.born.and_then(|born| table.job(born));
            if !job.is_some_and(|job| known.now.is(job, now, self.latest)) {
                return Err(format!("the model has {known:#?}\nthe table has {job:?}"));
            }
        }
        if table.live_jobs() != self.model.live().count() as u64 {
            return Err(format!("{} jobs live, {} should", table.live_jobs(), self.model.live().count()));
        }
        for of in TYPES {
            let totals = totals_of(engine, of);
            if totals.is_some_and(|totals| totals != self.model.totals(of)) {
                return Err(format!("counters of {of}: {totals:?}, they should be {:?}", self.model.totals(of)));
            }
        }
        Ok(())
    }

    /// After a start: everything acknowledged is there; what was not is there or not, and the model learns which.
    pub(super) fn reconcile(&mut self) -> Result<(), Violation> {
        let now = self.now();
        let loose = std::mem::take(&mut self.loose);
        let cut = std::mem::take(&mut self.cut_while_opening);
        let may_die: Vec<usize> = (0..self.model.jobs.len()).filter(|at| self.may_die(*at, loose)).collect();
        let old_jobs = self.model.jobs.len();
        for job in may_die {
            self.summarise(job, false);
        }
        self.bind(true)?;
        let mut choices: Vec<(usize, Vec<Standing>)> = Vec::new();
        for at in 0..self.model.jobs.len() {
            let options = self.options(at, loose, now);
            let Some(known) = self.model.jobs.get(at) else { continue };
            let job = known.born.and_then(|born| self.engine.as_ref()?.table().job(born));
            let fitting: Vec<Standing> = options
                .iter()
                .filter(|option| match job {
                    Some(job) => option.is(job, 0, self.latest),
                    None => !option.is_live(),
                })
                .copied()
                .collect();
            if fitting.is_empty() {
                return Err(format!(
                    "after a start the table has {job:?}\nit should be one of {options:?}\nof {known:#?}"
                ));
            }
            choices.push((at, fitting));
        }
        self.choose(choices)?;
        self.check_groups(old_jobs, cut)?;
        for at in 0..self.model.jobs.len() {
            if self.model.jobs.get(at).is_some_and(|known| known.now.place == Place::Absent) {
                self.model.never(at);
            }
        }
        self.compare_after_start()
    }

    /// Whether a start may find that a job died with its process once too often.
    fn may_die(&self, at: usize, loose: bool) -> bool {
        let Some(known) = self.model.jobs.get(at) else { return false };
        let dying = |standing: &Standing| {
            let runs = matches!(standing.place, Place::Running(_)) || loose && standing.place == Place::Waiting;
            runs && standing.host_deaths + 1 >= crate::limits::HOST_DEATHS_MAX
        };
        std::iter::once(&known.now).chain(&known.maybe).any(dying)
    }

    /// What a job may be after a start.
    fn options(&self, at: usize, loose: bool, now: UnixMs) -> Vec<Standing> {
        let Some(known) = self.model.jobs.get(at) else { return Vec::new() };
        let mut options = Vec::new();
        for standing in std::iter::once(&known.now).chain(&known.maybe) {
            let death = standing.after(Happening::HostDeath { at: now });
            match standing.place {
                Place::Running(_) => {
                    options.push(death);
                    if loose {
                        // A drain of the turn that failed may have given it back.
                        options.push(standing.after(Happening::GivenBack));
                    }
                }
                Place::Waiting => {
                    options.push(*standing);
                    if loose {
                        // It may have been reserved in the turn that failed.
                        options.push(death);
                    }
                }
                Place::Absent | Place::Dead | Place::Gone(_) => options.push(*standing),
            }
        }
        options
    }

    /// Of what each job may be, the choice with which the counters are right.
    fn choose(&mut self, choices: Vec<(usize, Vec<Standing>)>) -> Result<(), Violation> {
        let Some(engine) = &self.engine else { return Ok(()) };
        let mut open: Vec<(usize, Vec<Standing>)> = Vec::new();
        for (at, mut fitting) in choices {
            let first = fitting.first().map(|standing| standing.counts);
            if fitting.iter().any(|standing| Some(standing.counts) != first) {
                open.push((at, fitting));
            } else if let (Some(known), Some(standing)) = (self.model.jobs.get_mut(at), fitting.pop()) {
                (known.now, known.maybe) = (standing, Vec::new());
            }
        }
        // Few are open: those that nobody can see any more, whichever they are.
        let combinations = open.iter().map(|(_, fitting)| fitting.len()).try_fold(1_usize, usize::checked_mul);
        for number in 0..combinations.unwrap_or(usize::MAX).min(4096) {
            let mut rest = number;
            for (at, fitting) in &open {
                let standing = fitting.get(rest % fitting.len()).copied();
                rest /= fitting.len();
                if let (Some(known), Some(standing)) = (self.model.jobs.get_mut(*at), standing) {
                    (known.now, known.maybe) = (standing, Vec::new());
                }
            }
            if TYPES.iter().all(|of| totals_of(engine, of).is_none_or(|totals| totals == self.model.totals(of))) {
                return Ok(());
            }
        }
        let told: Vec<_> = TYPES.iter().map(|of| (totals_of(engine, of), self.model.totals(of))).collect();
        Err(format!("after a start the counters are not explained: {told:?}"))
    }

    /// A completion and its follow-up jobs are there together, and a death and its summary.
    fn check_groups(&self, old_jobs: usize, cut: bool) -> Result<(), Violation> {
        for (at, known) in self.model.jobs.iter().enumerate() {
            let there = known.now.place != Place::Absent;
            if let Some(parent) = known.parent.and_then(|parent| self.model.jobs.get(parent)) {
                let done = parent.now.place == Place::Gone(End::Completed);
                if there && !done {
                    return Err(format!("a follow-up job is there without its completion: {known:#?} of {parent:#?}"));
                }
                if done && !there {
                    return Err(format!("a completion is there without its follow-up job: {known:#?} of {parent:#?}"));
                }
            }
            if let Some(dead) = known.summary_of.filter(|_| at >= old_jobs && !cut)
                && let Some(dead) = self.model.jobs.get(dead)
                && there != (dead.now.place == Place::Dead)
            {
                return Err(format!("a death at a start and its summary are not there together: {dead:#?}"));
            }
        }
        Ok(())
    }

    fn compare_after_start(&self) -> Result<(), Violation> {
        let Some(engine) = &self.engine else { return Ok(()) };
        let live = self.model.live().count() as u64;
        if engine.table().live_jobs() != live {
            return Err(format!("after a start {} jobs live, {live} should", engine.table().live_jobs()));
        }
        Ok(())
    }
}

fn totals_of(engine: &Stepped, of: &str) -> Option<Counts> {
    let type_no = engine.table().type_no(of)?;
    let totals = engine.table().worker_type(type_no)?.totals;
    Some(Counts {
        enqueued: totals.enqueued,
        completed: totals.completed,
        failed: totals.failed,
        cancelled: totals.cancelled,
        expired: totals.expired,
        discarded: totals.discarded,
    })
}

fn millis(duration: Duration) -> UnixMs {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
