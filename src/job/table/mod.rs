//! The job table: what is alive, and what the log's records mean. One [`Table::apply`] serves live traffic and replay.
//!
//! Pure: no clock, no disk, no randomness. Owns the state of every live job, types, versions and routes as recorded,
//! and the counters. Never decides: decisions are the engine's, and reach the table as events.

mod generations;
mod held;
mod job;
mod known;
mod look;
mod noted;
mod picture;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::job::event::{
    After, End, Ended, Enqueued, Event, Failed, GivenBack, Home, Release, Released, Restated, decode_home,
};
use crate::job::ids::{ChosenNames, IdIndex, IdMaker};
use crate::job::transition::{Change, Next, State, next};
use crate::log::frame::RECORD_HEADER_BYTES;
use crate::log::{LogId, Position};
use crate::types::{Seq, UnixMs, WorkerType};

pub use generations::GenerationRecord;
use generations::Generations;
use job::new_job;
pub use job::{Job, OwnedMinVersion, OwnedNames, tail_of};
pub use known::{Quarantine, TypeState, VersionRecord};
use noted::Noted;
pub use picture::Picture;

/// An event that cannot have happened: the log is damaged, or the program wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Illegal {
    /// The job's state does not allow it.
    #[error("{change} of job {born}, which is {state}")]
    State {
        /// The job.
        born: Seq,
        /// Its state.
        state: String,
        /// What happened.
        change: String,
    },
    /// No such job, though its records are in the log.
    #[error("an event of job {0}, which does not exist")]
    NoJob(Seq),
    /// No such type.
    #[error("an event of type number {0}, which does not exist")]
    NoType(u32),
    /// A name that is not one.
    #[error("the name {0:?}")]
    BadName(String),
}

/// Everything that lives.
#[derive(Debug)]
pub struct Table {
    /// Jobs with a state of their own; fresh ones are in their type's queue.
    noted: Noted,
    types: Vec<TypeState>,
    type_numbers: HashMap<WorkerType, u32>,
    versions: HashMap<u32, VersionRecord>,
    generations: Generations,
    ids: ChosenNames,
    expiring: BTreeSet<(UnixMs, Seq)>,
    dead: BTreeSet<(UnixMs, Seq)>,
    /// Jobs that run, of all types.
    reserved: u64,
    live_bytes: u64,
    /// Jobs by the segment in which their payload lies.
    homes: BTreeMap<u32, u64>,
    /// Seq of the first record that was ever applied: below it, events name jobs that nobody knows any more.
    first_seq: Option<Seq>,
    clean_stop: bool,
}

impl Table {
    /// The empty table of a log.
    pub fn new(log_id: LogId) -> Self {
        Self {
            noted: Noted::new(),
            types: Vec::new(),
            type_numbers: HashMap::new(),
            versions: HashMap::new(),
            generations: Generations::default(),
            ids: ChosenNames::none(IdMaker::new(log_id)),
            expiring: BTreeSet::new(),
            dead: BTreeSet::new(),
            reserved: 0,
            live_bytes: 0,
            homes: BTreeMap::new(),
            first_seq: None,
            clean_stop: true,
        }
    }

    /// The empty table of a log that is to be replayed; the chosen names in it are gathered by somebody else.
    pub fn to_replay(log_id: LogId) -> Self {
        Self { ids: ChosenNames::left_out(IdMaker::new(log_id)), ..Self::new(log_id) }
    }

    /// The replay is over: from here on, names are noted, for who gathers the others.
    pub fn gather_names(&mut self) {
        self.ids.gather();
    }

    /// The names of the records that were replayed, or why they cannot be had.
    pub fn names_gathered(&mut self, gathered: Result<IdIndex, String>) {
        self.ids.gathered(gathered);
    }

    /// Takes an event over, from the record `seq` at `position`.
    ///
    /// # Errors
    /// It cannot have happened; the table is then unchanged, or, for an `Opened` event, undefined.
    pub fn apply(&mut self, seq: Seq, position: Position, event: &Event<'_>) -> Result<(), Illegal> {
        self.first_seq.get_or_insert(seq);
        self.clean_stop = matches!(event, Event::Stopped(_));
        match event {
            Event::Enqueued(meta, _) => self.enqueued(seq, Home::new(seq, position), meta),
            Event::Reserved(event) => {
                let type_no = self.versions.get(&event.version_no).map(|version| version.type_no);
                self.change(event.born, type_no, Change::Reserve, |job| {
                    job.fence = event.fence;
                    job.version_no = event.version_no;
                })
            }
            Event::Ended(event, _) => self.ended(seq, event),
            Event::Failed(event, error) => self.failed(event, error),
            Event::Released(event, _) => self.released(event),
            Event::Redriven(event) => self.change(event.born, None, Change::Redrive, |job| {
                job.ready_ms = 0;
                if job.state == State::Dead {
                    (job.attempts, job.given_back) = (0, GivenBack::default());
                }
            }),
            Event::Restated(event, enqueued) => self.restated(Home::new(seq, position), event, enqueued),
            Event::Opened(event) => self.opened(event.at),
            // What was lost says nothing; what cannot be without it was left out when the log was salvaged.
            Event::Stopped(_) | Event::Lost(_) => Ok(()),
            Event::TypeNamed(_)
            | Event::VersionAccepted(_)
            | Event::VersionRejected(..)
            | Event::Quarantined(..)
            | Event::Generation(..)
            | Event::Settled(_)
            | Event::Routed(_)
            | Event::Ramped(_)
            | Event::Totals(_)
            | Event::Paused(_) => self.apply_known(event),
        }
    }

    fn enqueued(&mut self, born: Seq, home: Home, meta: &Enqueued<'_>) -> Result<(), Illegal> {
        let state = if meta.ready_ms > meta.created_ms { State::Delayed } else { State::Ready };
        let job = new_job(meta, home, state)?;
        self.type_mut(meta.type_no)?.totals.enqueued += 1;
        if let Some(names) = &meta.names {
            self.ids.note(meta.type_no, names, None, born);
        }
        self.add(born, job);
        Ok(())
    }

    fn ended(&mut self, seq: Seq, event: &Ended<'_>) -> Result<(), Illegal> {
        self.change(event.born, Some(event.type_no), Change::End(event.end), |_| {})?;
        if let Some(names) = &event.names {
            self.ids.note(event.type_no, names, Some(event.home.seq), seq);
        }
        // It counts though the job may be forgotten: its first records have left the log, and this one has not.
        let totals = &mut self.type_mut(event.type_no)?.totals;
        match event.end {
            End::Completed => totals.completed += 1,
            End::Cancelled => totals.cancelled += 1,
            End::Expired => totals.expired += 1,
            End::Discarded => totals.discarded += 1,
        }
        Ok(())
    }

    fn failed(&mut self, event: &Failed, error: &[u8]) -> Result<(), Illegal> {
        let change = match event.after {
            After::Dead => Change::Die,
            After::Retry { .. } => Change::Retry,
            After::Again { ready_ms: 0 } => Change::Again,
            // It waits for a while, as after an attempt.
            After::Again { .. } => Change::Retry,
        };
        let costs = !matches!(event.after, After::Again { .. });
        self.change(event.born, Some(event.type_no), change, |job| {
            job.fail(event, error, costs);
            match event.after {
                After::Retry { ready_ms } | After::Again { ready_ms } => job.ready_ms = ready_ms,
                After::Dead => job.since_ms = event.at,
            }
        })?;
        // It counts though the job may be forgotten: its first records have left the log, and its last has not.
        self.type_mut(event.type_no)?.totals.failed += 1;
        Ok(())
    }

    fn released(&mut self, event: &Released) -> Result<(), Illegal> {
        match event.release {
            Release::Interrupt => self.change(event.born, None, Change::GiveBack, |job| {
                job.given_back.interrupts = job.given_back.interrupts.saturating_add(1);
            }),
            Release::NotStarted => self.change(event.born, None, Change::GiveBack, |_| ()),
            Release::Deferral { ready_ms } => self.change(event.born, None, Change::Defer, |job| {
                job.given_back.deferrals = job.given_back.deferrals.saturating_add(1);
                job.ready_ms = ready_ms;
            }),
            Release::HostDeath { ready_ms } => self.host_death(event.born, event.at, ready_ms),
        }
    }

    fn restated(&mut self, home: Home, event: &Restated, enqueued: &[u8]) -> Result<(), Illegal> {
        let Ok((meta, _)) = decode_home(crate::job::event::Kind::Enqueued as u8, enqueued) else {
            return Err(Illegal::NoJob(event.born));
        };
        self.type_mut(meta.type_no)?;
        let mut job = new_job(&meta, home, event.state)?;
        job.attempts = event.attempts;
        job.given_back = event.given_back;
        job.ready_ms = event.ready_ms;
        job.since_ms = event.since_ms;
        job.fence = event.fence;
        job.version_no = event.version_no;
        job.set_failures(&event.failures);
        let old = self.move_fresh(event.born, &job).or_else(|| {
            let old = self.take(event.born, Some(meta.type_no));
            self.add(event.born, job);
            old.map(|old| old.home.seq)
        });
        if let Some(names) = &meta.names {
            self.ids.note(meta.type_no, names, old, home.seq);
        }
        Ok(())
    }

    /// Gives a fresh job that stays fresh its new home; returns the seq of the old one.
    fn move_fresh(&mut self, born: Seq, job: &Job) -> Option<Seq> {
        let fresh = job.as_fresh(born)?;
        let of_type = self.type_mut(job.type_no).ok()?;
        let queue = if job.state == State::Delayed { &mut of_type.later } else { &mut of_type.queue };
        let old = queue.replace(job.priority, fresh)?;
        self.count_off(old.home);
        self.count(fresh.home);
        Some(old.home.seq)
    }

    /// Whatever was reserved has lost its run: the process that held it is gone.
    fn opened(&mut self, at: UnixMs) -> Result<(), Illegal> {
        let mut reserved: Vec<Seq> =
            self.noted.iter().filter(|(_, job)| job.state == State::Reserved).map(|(born, _)| born).collect();
        reserved.sort_unstable();
        reserved.into_iter().try_for_each(|born| self.host_death(born, at, 0))
    }

    /// The process that ran a job has ended; if that was not once too often, it runs again from `ready_ms` on; 0: at once.
    fn host_death(&mut self, born: Seq, at: UnixMs, ready_ms: UnixMs) -> Result<(), Illegal> {
        let last = self.noted.get(born).is_some_and(Job::is_at_last_host_death);
        let change = match ready_ms {
            _ if last => Change::LastHostDeath,
            0 => Change::HostDeath,
            _ => Change::Defer,
        };
        self.change(born, None, change, |job| {
            job.given_back.host_deaths += 1;
            if last {
                job.since_ms = at;
            } else if ready_ms > 0 {
                job.ready_ms = ready_ms;
            }
        })
    }

    /// Moves a job along the transition table; `update` sees it after it left its old state and before it enters the new
    /// one. It is looked for among the fresh ones of `type_no` only, where that is known.
    fn change(
        &mut self,
        born: Seq,
        type_no: Option<u32>,
        change: Change,
        update: impl FnOnce(&mut Job),
    ) -> Result<(), Illegal> {
        let Some(mut job) = self.take_out(born, type_no) else {
            return if self.is_forgotten(born) { Ok(()) } else { Err(Illegal::NoJob(born)) };
        };
        // Its payload stays where it lies: only a job that leaves is counted off.
        match next(job.state, change) {
            Next::Illegal => {
                let (state, change) = (format!("{:?}", job.state), format!("{change:?}"));
                self.put_in(born, job);
                return Err(Illegal::State { born, state, change });
            }
            Next::To(state) => {
                update(&mut job);
                job.state = state;
                self.put_in(born, job);
            }
            Next::Finished => self.count_off(job.home),
        }
        Ok(())
    }

    /// Takes a job out of everything.
    fn take(&mut self, born: Seq, type_no: Option<u32>) -> Option<Job> {
        let job = self.take_out(born, type_no)?;
        self.count_off(job.home);
        Some(job)
    }

    /// As [`Table::take`], for a job that comes back: it stays counted.
    fn take_out(&mut self, born: Seq, type_no: Option<u32>) -> Option<Job> {
        match self.noted.remove(born) {
            Some(job) => {
                self.leave(born, &job);
                Some(job)
            }
            None => self.take_fresh(born, type_no),
        }
    }

    fn count(&mut self, home: Home) {
        self.live_bytes += bytes_of(home);
        *self.homes.entry(home.segment).or_default() += 1;
    }

    fn count_off(&mut self, home: Home) {
        self.live_bytes -= bytes_of(home);
        if let Some(homes) = self.homes.get_mut(&home.segment) {
            *homes -= 1;
            if *homes == 0 {
                self.homes.remove(&home.segment);
            }
        }
    }

    fn take_fresh(&mut self, born: Seq, type_no: Option<u32>) -> Option<Job> {
        let find = |(no, of_type): (u32, &mut TypeState)| {
            if let Some((priority, fresh)) = of_type.queue.remove(born) {
                return Some(Job::of(fresh, State::Ready, no, priority));
            }
            let (priority, fresh) = of_type.later.remove(born)?;
            of_type.due.remove(&(fresh.ready_ms, born));
            of_type.delayed -= 1;
            Some(Job::of(fresh, State::Delayed, no, priority))
        };
        match type_no {
            Some(no) => self.type_mut(no).ok().and_then(|of_type| find((no, of_type))),
            None => (1..).zip(&mut self.types).find_map(find),
        }
    }

    /// Puts a job in where it belongs.
    fn add(&mut self, born: Seq, job: Job) {
        self.count(job.home);
        self.put_in(born, job);
    }

    /// As [`Table::add`], for a job that is counted.
    fn put_in(&mut self, born: Seq, job: Job) {
        if let Some(fresh) = job.as_fresh(born) {
            if let Ok(of_type) = self.type_mut(job.type_no) {
                of_type.put_fresh(job.priority, job.state, fresh);
            }
            return;
        }
        self.enter(born, &job);
        self.noted.insert(born, job);
    }

    /// Takes a job out of the orders of its state.
    fn leave(&mut self, born: Seq, job: &Job) {
        if job.expires_ms != 0 && matches!(job.state, State::Ready | State::Delayed) {
            self.expiring.remove(&(job.expires_ms, born));
        }
        let Some(of_type) = self.types.get_mut((job.type_no as usize).wrapping_sub(1)) else { return };
        match job.state {
            State::Ready => of_type.take_ready(born, job),
            State::Delayed => {
                of_type.delayed -= 1;
                of_type.due.remove(&(job.ready_ms, born));
            }
            State::Reserved => {
                of_type.reserved -= 1;
                self.reserved -= 1;
            }
            State::Dead => {
                of_type.dead -= 1;
                self.dead.remove(&(job.since_ms, born));
            }
        }
    }

    /// Puts a job into the orders of its state.
    fn enter(&mut self, born: Seq, job: &Job) {
        if job.expires_ms != 0 && matches!(job.state, State::Ready | State::Delayed) {
            self.expiring.insert((job.expires_ms, born));
        }
        let Some(of_type) = self.types.get_mut((job.type_no as usize).wrapping_sub(1)) else { return };
        match job.state {
            State::Ready => of_type.put_ready(born, job),
            State::Delayed => {
                of_type.delayed += 1;
                of_type.due.insert((job.ready_ms, born));
            }
            State::Reserved => {
                of_type.reserved += 1;
                self.reserved += 1;
            }
            State::Dead => {
                of_type.dead += 1;
                self.dead.insert((job.since_ms, born));
            }
        }
    }

    fn is_forgotten(&self, born: Seq) -> bool {
        self.first_seq.is_some_and(|first| born < first)
    }

    fn type_mut(&mut self, no: u32) -> Result<&mut TypeState, Illegal> {
        self.types.get_mut((no as usize).wrapping_sub(1)).ok_or(Illegal::NoType(no))
    }

    /// Makes ready what was delayed up to `now`: follows from the clock, is no event.
    pub fn ripen(&mut self, now: UnixMs) {
        for type_no in (1..).take(self.types.len()) {
            // In the order in which they lie, so that none is looked for twice: many may be due after a jump of the clock.
            for born in self.worker_type(type_no).map(|of_type| of_type.due_by(now)).unwrap_or_default() {
                // A delayed job may always ripen.
                let ripens = self.change(born, Some(type_no), Change::Ripen, |_| {});
                ripens.expect("the transition table lets a delayed job ripen");
            }
        }
    }

    /// The log begins at `first_seq` now.
    pub fn forget_below(&mut self, first_seq: Seq) {
        self.ids.forget_below(first_seq);
    }
}

/// Bytes of the record that holds a payload.
fn bytes_of(home: Home) -> u64 {
    u64::from(home.body) + RECORD_HEADER_BYTES as u64
}
