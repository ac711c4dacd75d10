//! The job table: what is alive, and what the log's records mean. One [`Table::apply`] serves live traffic and replay.
//!
//! Pure: no clock, no disk, no randomness. Owns the state of every live job, types, versions and routes as recorded,
//! and the counters. Never decides: decisions are the engine's, and reach the table as events.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use super::event::{
    After, End, Ended, Enqueued, Event, Failed, Failure, Home, Names, Release, Released, Restated, Totals, decode_home,
};
use super::ids::{IdIndex, IdMaker};
use super::queue::Queue;
use super::transition::{Change, Next, State, next};
use crate::limits::{ATTEMPTS_KEPT, ERROR_BYTES_KEPT, HOST_DEATHS_MAX};
use crate::log::frame::RECORD_HEADER_BYTES;
use crate::log::{LogId, Position};
use crate::types::{Fence, Label, Priority, Seq, UnixMs, WorkerType};

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

/// A live job: everything but its payload.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its type.
    pub type_no: u32,
    /// Its place in the order.
    pub priority: Priority,
    /// Its state.
    pub state: State,
    /// Failed attempts.
    pub attempts: u16,
    /// Attempts that it may have.
    pub max_attempts: u16,
    /// Times it was given back at no cost.
    pub interrupts: u32,
    /// Times it was given back for a pause.
    pub deferrals: u16,
    /// Times the process ended while it ran.
    pub host_deaths: u8,
    /// When it was accepted.
    pub created_ms: UnixMs,
    /// When it may run; 0: at once.
    pub ready_ms: UnixMs,
    /// From when on it is not begun any more; 0: never.
    pub expires_ms: UnixMs,
    /// When it died, for a dead one.
    pub since_ms: UnixMs,
    /// Its run, if it is reserved; its last one, if not.
    pub fence: Fence,
    /// The version that runs it, or ran it last; 0: none.
    pub version_no: u32,
    /// Where its payload lies.
    pub home: Home,
    /// What few jobs have.
    extras: Option<Box<Extras>>,
}

/// What few jobs have.
#[derive(Debug, Clone, Default)]
struct Extras {
    names: Option<OwnedNames>,
    failures: Vec<Failure>,
}

#[derive(Debug, Clone)]
struct OwnedNames {
    id: Option<Box<str>>,
    key: Option<Box<str>>,
    digest: u64,
}

impl Job {
    /// What its caller chose.
    pub fn names(&self) -> Option<Names<'_>> {
        let names = self.extras.as_ref()?.names.as_ref()?;
        Some(Names { id: names.id.as_deref(), key: names.key.as_deref(), digest: names.digest })
    }

    /// Its failed attempts that are still known.
    pub fn failures(&self) -> &[Failure] {
        self.extras.as_ref().map_or(&[], |extras| &extras.failures)
    }

    fn bytes(&self) -> u64 {
        u64::from(self.home.body) + RECORD_HEADER_BYTES as u64
    }

    fn fail(&mut self, at: UnixMs, version_no: u32, error: &[u8]) {
        self.attempts = self.attempts.saturating_add(1);
        self.version_no = version_no;
        let failures = &mut self.extras.get_or_insert_default().failures;
        if failures.len() == ATTEMPTS_KEPT {
            failures.remove(0);
        }
        let error = tail_of(&String::from_utf8_lossy(error), ERROR_BYTES_KEPT).to_owned();
        failures.push(Failure { attempt: self.attempts, at, version_no, error });
    }
}

/// The last bytes of a text, at most so many, from a character's start on.
pub fn tail_of(text: &str, bytes: usize) -> &str {
    let mut from = text.len().saturating_sub(bytes);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    text.get(from..).unwrap_or_default()
}

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
                    (job.attempts, job.deferrals, job.host_deaths) = (0, 0, 0);
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
        self.change(event.born, Change::End(event.end), |_| {})
    }

    fn failed(&mut self, event: &Failed, error: &[u8]) -> Result<(), Illegal> {
        let change = if event.after == After::Dead { Change::Die } else { Change::Retry };
        if let Some(job) = self.jobs.get(&event.born)
            && let Some(of_type) = self.types.get_mut((job.type_no as usize).wrapping_sub(1))
        {
            of_type.totals.failed += 1;
        }
        self.change(event.born, change, |job| {
            job.fail(event.at, event.version_no, error);
            match event.after {
                After::Retry { ready_ms } => job.ready_ms = ready_ms,
                After::Dead => job.since_ms = event.at,
            }
        })
    }

    fn released(&mut self, event: &Released) -> Result<(), Illegal> {
        let change = if matches!(event.release, Release::Deferral { .. }) { Change::Defer } else { Change::GiveBack };
        self.change(event.born, change, |job| match event.release {
            Release::Interrupt => job.interrupts = job.interrupts.saturating_add(1),
            Release::NotStarted => {}
            Release::Deferral { ready_ms } => {
                job.deferrals = job.deferrals.saturating_add(1);
                job.ready_ms = ready_ms;
            }
        })
    }

    fn restated(&mut self, home: Home, event: &Restated, enqueued: &[u8]) -> Result<(), Illegal> {
        let Ok((meta, _)) = decode_home(super::event::Kind::Enqueued as u8, enqueued) else {
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
        job.interrupts = event.interrupts;
        job.deferrals = event.deferrals;
        job.host_deaths = event.host_deaths;
        job.ready_ms = event.ready_ms;
        job.since_ms = event.since_ms;
        job.fence = event.fence;
        job.version_no = event.version_no;
        if !event.failures.is_empty() {
            job.extras.get_or_insert_default().failures = event.failures.clone();
        }
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
            let last = self.jobs.get(&born).is_some_and(|job| job.host_deaths + 1 >= HOST_DEATHS_MAX);
            self.change(born, if last { Change::LastHostDeath } else { Change::HostDeath }, |job| {
                job.host_deaths += 1;
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
        let totals = &mut self.type_mut(job.type_no)?.totals;
        match change {
            Change::End(End::Cancelled) => totals.cancelled += 1,
            Change::End(End::Expired) => totals.expired += 1,
            Change::End(End::Discarded) => totals.discarded += 1,
            _ => totals.completed += 1,
        }
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

fn new_job(meta: &Enqueued<'_>, home: Home, state: State) -> Job {
    let names = meta.names.as_ref().map(|names| OwnedNames {
        id: names.id.map(Box::from),
        key: names.key.map(Box::from),
        digest: names.digest,
    });
    Job {
        type_no: meta.type_no,
        priority: meta.priority,
        state,
        attempts: 0,
        max_attempts: meta.max_attempts,
        interrupts: 0,
        deferrals: 0,
        host_deaths: 0,
        created_ms: meta.created_ms,
        ready_ms: meta.ready_ms,
        expires_ms: meta.expires_ms,
        since_ms: 0,
        fence: Fence::default(),
        version_no: 0,
        home,
        extras: names.map(|names| Box::new(Extras { names: Some(names), failures: Vec::new() })),
    }
}

/// Looking at the table.
impl Table {
    /// A live job.
    pub fn job(&self, born: Seq) -> Option<&Job> {
        self.jobs.get(&born)
    }

    /// How many jobs are alive.
    pub fn live_jobs(&self) -> u64 {
        self.jobs.len() as u64
    }

    /// Bytes of the records that hold the live jobs' payloads.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// The number of a type.
    pub fn type_no(&self, name: &str) -> Option<u32> {
        self.type_numbers.get(name).copied()
    }

    /// A type by its number.
    pub fn worker_type(&self, no: u32) -> Option<&TypeState> {
        self.types.get((no as usize).wrapping_sub(1))
    }

    /// All types with their numbers.
    pub fn types(&self) -> impl Iterator<Item = (u32, &TypeState)> {
        (1..).zip(&self.types)
    }

    /// The next ready job of a type to be served; it stays ready until an event says otherwise.
    pub fn pick(&mut self, type_no: u32) -> Option<Seq> {
        self.type_mut(type_no).ok()?.queue.pick()
    }

    /// A version by its number.
    pub fn version(&self, no: u32) -> Option<&VersionRecord> {
        self.versions.get(&no)
    }

    /// All versions, by number.
    pub fn versions(&self) -> impl Iterator<Item = (u32, &VersionRecord)> {
        self.versions.iter().map(|(no, version)| (*no, version))
    }

    /// The newest accepted config.
    pub fn generation(&self) -> &GenerationRecord {
        &self.generation
    }

    /// The index of chosen ids and keys.
    pub fn ids(&self) -> &IdIndex {
        &self.ids
    }

    /// The next moment at which something follows from the clock: a job ripens or expires.
    pub fn next_moment(&self) -> Option<UnixMs> {
        let first = |set: &BTreeSet<(UnixMs, Seq)>| set.first().map(|(at, _)| *at);
        [first(&self.delayed), first(&self.expiring)].into_iter().flatten().min()
    }

    /// A job whose time had passed at `now`.
    pub fn expired(&self, now: UnixMs) -> Option<Seq> {
        self.expiring.first().filter(|(at, _)| *at <= now).map(|(_, born)| *born)
    }

    /// The dead job that died first, and when.
    pub fn oldest_dead(&self) -> Option<(UnixMs, Seq)> {
        self.dead.first().copied()
    }

    /// How many jobs are dead.
    pub fn dead_jobs(&self) -> usize {
        self.dead.len()
    }

    /// Born seqs of all jobs of a type in one of these states, ascending.
    pub fn jobs_in(&self, type_no: u32, states: &[State]) -> Vec<Seq> {
        let of_type = self.jobs.iter().filter(|(_, job)| job.type_no == type_no && states.contains(&job.state));
        let mut born: Vec<Seq> = of_type.map(|(born, _)| *born).collect();
        born.sort_unstable();
        born
    }

    /// Whether the last process that had the log stopped in good order; true for a new log.
    pub fn stopped_cleanly(&self) -> bool {
        self.clean_stop
    }

    /// Jobs that died in the last opening, because the process had ended under them too often.
    pub fn died_at_opening(&self) -> &[Seq] {
        &self.died_at_opening
    }

    /// A live job's whole state, as an event.
    pub fn restate(&self, born: Seq) -> Option<Restated> {
        let job = self.jobs.get(&born)?;
        Some(Restated {
            born,
            state: job.state,
            attempts: job.attempts,
            interrupts: job.interrupts,
            deferrals: job.deferrals,
            host_deaths: job.host_deaths,
            ready_ms: job.ready_ms,
            fence: job.fence,
            version_no: job.version_no,
            since_ms: job.since_ms,
            failures: job.failures().to_vec(),
        })
    }
}
