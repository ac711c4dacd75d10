//! The job table: what is alive, and what the log's records mean. One [`Table::apply`] serves live traffic and replay.
//!
//! Pure: no clock, no disk, no randomness. Owns the state of every live job, types, versions and routes as recorded,
//! and the counters. Never decides: decisions are the engine's, and reach the table as events.

mod job;
mod look;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use crate::job::event::{
    After, End, Ended, Enqueued, Event, Failed, GivenBack, Home, Release, Released, Restated, Totals, decode_home,
};
use crate::job::ids::{IdIndex, IdMaker};
use crate::job::queue::Queue;
use crate::job::transition::{Change, Next, State, next};
use crate::limits::HOST_DEATHS_MAX;
use crate::log::{LogId, Position};
use crate::types::{Label, Seq, UnixMs, WorkerType};

use job::new_job;
pub use job::{Job, tail_of};

/// Born seqs are ours and ascend: spreading their bits is all that a map needs.
#[derive(Debug, Default, Clone, Copy)]
pub struct SeqHasher(u64);

impl Hasher for SeqHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(26);
    }
}

/// A map by seq.
pub type SeqMap<V> = HashMap<Seq, V, BuildHasherDefault<SeqHasher>>;

/// A worker type that was ever known here.
#[derive(Debug)]
pub struct TypeState {
    /// Its name.
    pub name: WorkerType,
    /// Its ready jobs.
    pub queue: Queue,
    /// Its delayed, reserved and dead jobs.
    pub delayed: u64,
    /// See `delayed`.
    pub reserved: u64,
    /// See `delayed`.
    pub dead: u64,
    /// Its counters.
    pub totals: Totals,
    /// Version that new work goes to, as recorded; 0: none.
    pub route: u32,
}

/// A version that was ever accepted here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionRecord {
    /// Its type.
    pub type_no: u32,
    /// Its label as shown.
    pub label: Label,
    /// Hash over what defines it.
    pub hash: [u8; 32],
    /// When it was accepted.
    pub at: UnixMs,
    /// Whether it could not start when it was tried last.
    pub rejected: bool,
}

/// The newest accepted config.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GenerationRecord {
    /// Its number; 0: there was none yet.
    pub number: u64,
    /// When it was accepted.
    pub at: UnixMs,
    /// The versions that it asks for.
    pub targets: Vec<u32>,
}

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
    jobs: SeqMap<Job>,
    types: Vec<TypeState>,
    type_numbers: HashMap<WorkerType, u32>,
    versions: HashMap<u32, VersionRecord>,
    generation: GenerationRecord,
    ids: IdIndex,
    delayed: BTreeSet<(UnixMs, Seq)>,
    expiring: BTreeSet<(UnixMs, Seq)>,
    dead: BTreeSet<(UnixMs, Seq)>,
    live_bytes: u64,
    /// Seq of the first record that was ever applied: below it, events name jobs that nobody knows any more.
    first_seq: Option<Seq>,
    clean_stop: bool,
    /// Jobs that died in the last opening, because the process had ended under them too often.
    died_at_opening: Vec<Seq>,
}

impl Table {
    /// The empty table of a log.
    pub fn new(log_id: LogId) -> Self {
        Self {
            jobs: SeqMap::default(),
            types: Vec::new(),
            type_numbers: HashMap::new(),
            versions: HashMap::new(),
            generation: GenerationRecord::default(),
            ids: IdIndex::new(IdMaker::new(log_id)),
            delayed: BTreeSet::new(),
            expiring: BTreeSet::new(),
            dead: BTreeSet::new(),
            live_bytes: 0,
            first_seq: None,
            clean_stop: true,
            died_at_opening: Vec::new(),
        }
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
            Event::Reserved(event) => self.change(event.born, Change::Reserve, |job| {
                job.fence = event.fence;
                job.version_no = event.version_no;
            }),
            Event::Ended(event, _) => self.ended(seq, event),
            Event::Failed(event, error) => self.failed(event, error),
            Event::Released(event, _) => self.released(event),
            Event::Redriven(event) => self.change(event.born, Change::Redrive, |job| {
                job.ready_ms = 0;
                if job.state == State::Dead {
                    (job.attempts, job.given_back) = (0, GivenBack::default());
                }
            }),
            Event::Restated(event, enqueued) => self.restated(Home::new(seq, position), event, enqueued),
            Event::Opened(event) => self.opened(event.at),
            Event::Stopped(_) => Ok(()),
            Event::TypeNamed(event) => self.type_named(event.no, event.name),
            Event::VersionAccepted(event) => {
                let label = event.label.parse().map_err(|_| Illegal::BadName(event.label.to_owned()))?;
                let version =
                    VersionRecord { type_no: event.type_no, label, hash: event.hash, at: event.at, rejected: false };
                self.versions.entry(event.no).or_insert(version);
                Ok(())
            }
            Event::VersionRejected(event, _) => {
                if let Some(version) = self.versions.get_mut(&event.no) {
                    version.rejected = true;
                }
                Ok(())
            }
            Event::Generation(event) => {
                self.generation =
                    GenerationRecord { number: event.number, at: event.at, targets: event.targets.clone() };
                Ok(())
            }
            Event::Routed(event) => {
                self.type_mut(event.type_no)?.route = event.version_no;
                if let Some(version) = self.versions.get_mut(&event.version_no) {
                    version.rejected = false;
                }
                Ok(())
            }
            Event::Totals(totals) => {
                self.type_mut(totals.type_no)?.totals = *totals;
                Ok(())
            }
        }
    }

    fn enqueued(&mut self, born: Seq, home: Home, meta: &Enqueued<'_>) -> Result<(), Illegal> {
        self.type_mut(meta.type_no)?.totals.enqueued += 1;
        let state = if meta.ready_ms > meta.created_ms { State::Delayed } else { State::Ready };
        let job = new_job(meta, home, state);
        if let Some(names) = &meta.names {
            self.ids.insert(meta.type_no, born, meta.created_ms, names);
        }
        self.live_bytes += job.bytes();
        self.enter(born, &job);
        self.jobs.insert(born, job);
        Ok(())
    }

    fn ended(&mut self, seq: Seq, event: &Ended<'_>) -> Result<(), Illegal> {
        if let Some(names) = &event.names {
            if self.is_forgotten(event.born) && !self.jobs.contains_key(&event.born) {
                self.ids.insert(event.type_no, event.born, event.created_ms, names);
            }
            self.ids.end(event.type_no, event.born, names, event.end, seq);
        }
        self.change(event.born, Change::End(event.end), |_| {})?;
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
        let change = if event.after == After::Dead { Change::Die } else { Change::Retry };
        self.change(event.born, change, |job| {
            job.fail(event.at, event.version_no, error);
            match event.after {
                After::Retry { ready_ms } => job.ready_ms = ready_ms,
                After::Dead => job.since_ms = event.at,
            }
        })?;
        // It counts though the job may be forgotten: its first records have left the log, and its last has not.
        self.type_mut(event.type_no)?.totals.failed += 1;
        Ok(())
    }

    fn released(&mut self, event: &Released) -> Result<(), Illegal> {
        let change = if matches!(event.release, Release::Deferral { .. }) { Change::Defer } else { Change::GiveBack };
        self.change(event.born, change, |job| match event.release {
            Release::Interrupt => job.given_back.interrupts = job.given_back.interrupts.saturating_add(1),
            Release::NotStarted => {}
            Release::Deferral { ready_ms } => {
                job.given_back.deferrals = job.given_back.deferrals.saturating_add(1);
                job.ready_ms = ready_ms;
            }
        })
    }

    fn restated(&mut self, home: Home, event: &Restated, enqueued: &[u8]) -> Result<(), Illegal> {
        let Ok((meta, _)) = decode_home(crate::job::event::Kind::Enqueued as u8, enqueued) else {
            return Err(Illegal::NoJob(event.born));
        };
        self.type_mut(meta.type_no)?;
        if let Some(old) = self.jobs.remove(&event.born) {
            self.leave(event.born, &old);
            self.live_bytes -= old.bytes();
        } else if let Some(names) = &meta.names {
            self.ids.insert(meta.type_no, event.born, meta.created_ms, names);
        }
        let mut job = new_job(&meta, home, event.state);
        job.attempts = event.attempts;
        job.given_back = event.given_back;
        job.ready_ms = event.ready_ms;
        job.since_ms = event.since_ms;
        job.fence = event.fence;
        job.version_no = event.version_no;
        job.set_failures(&event.failures);
        self.live_bytes += job.bytes();
        self.enter(event.born, &job);
        self.jobs.insert(event.born, job);
        Ok(())
    }

    /// Whatever was reserved has lost its run: the process that held it is gone.
    fn opened(&mut self, at: UnixMs) -> Result<(), Illegal> {
        let mut reserved: Vec<Seq> =
            self.jobs.iter().filter(|(_, job)| job.state == State::Reserved).map(|(born, _)| *born).collect();
        reserved.sort_unstable();
        self.died_at_opening.clear();
        for born in reserved {
            let last = self.jobs.get(&born).is_some_and(|job| job.given_back.host_deaths + 1 >= HOST_DEATHS_MAX);
            self.change(born, if last { Change::LastHostDeath } else { Change::HostDeath }, |job| {
                job.given_back.host_deaths += 1;
                if last {
                    job.since_ms = at;
                }
            })?;
            if last {
                self.died_at_opening.push(born);
            }
        }
        Ok(())
    }

    fn type_named(&mut self, no: u32, name: &str) -> Result<(), Illegal> {
        let name: WorkerType = name.parse().map_err(|_| Illegal::BadName(name.to_owned()))?;
        if self.type_numbers.get(&name) == Some(&no) {
            return Ok(());
        }
        if no as usize != self.types.len() + 1 || self.type_numbers.contains_key(&name) {
            return Err(Illegal::NoType(no));
        }
        self.type_numbers.insert(name.clone(), no);
        let totals = Totals { type_no: no, ..Totals::default() };
        self.types.push(TypeState {
            name,
            queue: Queue::default(),
            delayed: 0,
            reserved: 0,
            dead: 0,
            totals,
            route: 0,
        });
        Ok(())
    }

    /// Moves a job along the transition table; `update` sees it after it left its old state and before it enters the new one.
    fn change(&mut self, born: Seq, change: Change, update: impl FnOnce(&mut Job)) -> Result<(), Illegal> {
        let Some(mut job) = self.jobs.remove(&born) else {
            return if self.is_forgotten(born) { Ok(()) } else { Err(Illegal::NoJob(born)) };
        };
        let to = next(job.state, change);
        if to == Next::Illegal {
            let (state, change) = (format!("{:?}", job.state), format!("{change:?}"));
            self.jobs.insert(born, job);
            return Err(Illegal::State { born, state, change });
        }
        self.leave(born, &job);
        update(&mut job);
        if let Next::To(state) = to {
            job.state = state;
            self.enter(born, &job);
            self.jobs.insert(born, job);
            return Ok(());
        }
        self.live_bytes -= job.bytes();
        Ok(())
    }

    /// Takes a job out of the orders of its state.
    fn leave(&mut self, born: Seq, job: &Job) {
        if job.expires_ms != 0 && matches!(job.state, State::Ready | State::Delayed) {
            self.expiring.remove(&(job.expires_ms, born));
        }
        let Some(of_type) = self.types.get_mut((job.type_no as usize).wrapping_sub(1)) else { return };
        match job.state {
            State::Ready => {
                of_type.queue.remove(job.priority, born);
            }
            State::Delayed => {
                of_type.delayed -= 1;
                self.delayed.remove(&(job.ready_ms, born));
            }
            State::Reserved => of_type.reserved -= 1,
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
            State::Ready => of_type.queue.insert(job.priority, born),
            State::Delayed => {
                of_type.delayed += 1;
                self.delayed.insert((job.ready_ms, born));
            }
            State::Reserved => of_type.reserved += 1,
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
        while let Some((_, born)) = self.delayed.first().copied().filter(|(ready_ms, _)| *ready_ms <= now) {
            // A delayed job may always ripen.
            self.change(born, Change::Ripen, |_| {}).expect("the transition table lets a delayed job ripen");
        }
    }

    /// The log begins at `first_seq` now.
    pub fn forget_below(&mut self, first_seq: Seq) {
        self.ids.forget_below(first_seq);
    }
}
