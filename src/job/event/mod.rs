//! What happened, as records of the log: the shapes of all bodies.
//!
//! Pure. A body is a postcard value, and after it, where a kind has one, a tail of raw bytes (a payload, a result, an
//! error) up to the body's end. An event names a job by its born seq: the seq of its first record. A kind's number and
//! the shape of a version are never changed, only added to.

mod codec;
mod failure;
mod quick;
pub mod words;

use serde::{Deserialize, Serialize};

use crate::log::{Position, RecordKind};
use crate::types::{Fence, Priority, Seq, UnixMs};

pub use super::trace::{TRACE_BYTES, TraceParent};
pub use super::transition::End;
pub use codec::{BadRecord, Event, decode_home, shape_of, with_version_no};
pub use failure::Failure;

/// What a record's body is; the numbers stand on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// [`Enqueued`], tail: the payload.
    Enqueued = 1,
    /// [`Reserved`].
    Reserved = 2,
    /// [`Ended`], tail: the result.
    Ended = 3,
    /// [`Failed`], tail: the error.
    Failed = 4,
    /// [`Released`], tail: the reason.
    Released = 5,
    /// [`Redriven`].
    Redriven = 6,
    /// [`Restated`], tail: the whole body of the job's `Enqueued` record, in which its least version may have got its number.
    Restated = 7,
    /// [`Opened`].
    Opened = 16,
    /// [`Stopped`].
    Stopped = 17,
    /// [`TypeNamed`].
    TypeNamed = 18,
    /// [`VersionAccepted`].
    VersionAccepted = 19,
    /// [`VersionRejected`], tail: the reason.
    VersionRejected = 20,
    /// [`Generation`]; in its second shape with a tail: the config's text.
    Generation = 21,
    /// [`Routed`].
    Routed = 22,
    /// [`Totals`].
    Totals = 23,
    /// What a record that was lost has in its place, in a log that was salvaged; the body says nothing.
    Lost = 24,
    /// [`Paused`].
    Paused = 38,
    /// [`Quarantined`], tail: the reason.
    Quarantined = 39,
    /// [`Ramped`].
    Ramped = 40,
    /// [`Settled`].
    Settled = 41,
    // Reserved for what comes later, never to be used for anything else:
    // 32 schedule, 33 schedule fired, 34 unique lock, 35 rate limit, 36 batch, 37 batch member.
}

/// The shape in which most bodies are written.
const VERSION: u8 = 1;
impl Kind {
    /// As the log stores it, in its first shape.
    pub fn record_kind(self) -> RecordKind {
        RecordKind { kind: self as u8, version: VERSION }
    }
}

/// The version that a job needs: this one, or one that was first accepted after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MinVersion<'a> {
    /// Its label.
    pub label: &'a str,
    /// Its number; 0: no version of this label was known when the record was written.
    pub version_no: u32,
}

/// Id and key that a caller chose, and what a repeated call is compared by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names<'a> {
    /// The job's id, if it was chosen.
    #[serde(borrow)]
    pub id: Option<&'a str>,
    /// The idempotency key.
    pub key: Option<&'a str>,
    /// Digest of the call's body.
    pub digest: u64,
}

/// A job was accepted. Its seq is the job's born seq.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enqueued<'a> {
    /// Its type.
    pub type_no: u32,
    /// Its task.
    #[serde(borrow)]
    pub task: &'a str,
    /// 0 to 9.
    pub priority: Priority,
    /// Whom it is for.
    pub tenant: Option<&'a str>,
    /// When it was accepted.
    pub created_ms: UnixMs,
    /// When it may first run; 0: at once.
    pub ready_ms: UnixMs,
    /// From when on it is not begun any more; 0: never.
    pub expires_ms: UnixMs,
    /// Attempts that it may have.
    pub max_attempts: u16,
    /// What its caller chose.
    pub names: Option<Names<'a>>,
    /// Id of the job that enqueued it.
    pub parent: Option<&'a str>,
    /// The version that it needs at least. In front of all others where it is: see [`MinVersion`].
    #[serde(skip)]
    pub min_version: Option<MinVersion<'a>>,
    /// The trace that it belongs to. In front of all others, and of the least version, where it is.
    #[serde(skip)]
    pub trace: Option<TraceParent>,
}

/// A job was handed to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserved {
    /// The job.
    pub born: Seq,
    /// The run's fence.
    pub fence: Fence,
    /// The version that runs it.
    pub version_no: u32,
    /// When.
    pub at: UnixMs,
}

/// How often a job was given back without a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GivenBack {
    /// By a drain or a stop.
    pub interrupts: u32,
    /// By its worker, for a pause.
    pub deferrals: u16,
    /// By the end of the process that ran it: biotope's, or that of its helper.
    pub host_deaths: u8,
}

/// A job is finished. Carries what is needed to show it without the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended<'a> {
    /// The job.
    pub born: Seq,
    /// How.
    pub end: End,
    /// When.
    pub at: UnixMs,
    /// Its type.
    pub type_no: u32,
    /// The version that ran it last; 0: none.
    pub version_no: u32,
    /// Its failed attempts.
    pub attempts: u16,
    /// Times it was given back at no cost, for a pause, and by the end of a process.
    pub given_back: GivenBack,
    /// When it was accepted.
    pub created_ms: UnixMs,
    /// Where its payload lies.
    pub home: Home,
    /// What its caller chose.
    #[serde(borrow)]
    pub names: Option<Names<'a>>,
    /// The worker that ran it last, by its number within its pool; 0: none, or it has no number. In front of all others where it is.
    #[serde(skip)]
    pub worker: u32,
}

/// Where a job's payload lies: in its `Enqueued` record, or in its last `Restated` one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Home {
    /// Seq of that record.
    pub seq: Seq,
    /// Its segment.
    pub segment: u32,
    /// Its offset there.
    pub offset: u32,
    /// Bytes of its body.
    pub body: u32,
}

impl Home {
    /// The home at a record's place.
    pub fn new(seq: Seq, position: Position) -> Self {
        Self { seq, segment: position.segment, offset: position.offset, body: position.body }
    }

    /// The record's place.
    pub fn position(self) -> Position {
        Position { segment: self.segment, offset: self.offset, body: self.body }
    }
}

/// What follows a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum After {
    /// Another attempt, from this moment on.
    Retry {
        /// When.
        ready_ms: UnixMs,
    },
    /// None: the job is dead.
    Dead,
    /// Another run that is not another attempt: this one cost nothing, since what failed may be the version that ran it.
    Again {
        /// When; 0: at once, on the version that was there before.
        ready_ms: UnixMs,
    },
}

/// An attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// The job.
    pub born: Seq,
    /// When.
    pub at: UnixMs,
    /// Its type: the failure counts even where the job is not known any more.
    pub type_no: u32,
    /// The version that ran it; 0: none.
    pub version_no: u32,
    /// What follows.
    pub after: After,
    /// The worker that ran it; as in [`Ended`].
    #[serde(skip)]
    pub worker: u32,
}

/// Why a job was given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Release {
    /// By a drain or a stop.
    Interrupt,
    /// By its worker, for a pause that ends at this moment.
    Deferral {
        /// When it may run again.
        ready_ms: UnixMs,
    },
    /// No worker could be started for it.
    NotStarted,
    /// By the end of the process that ran it: the helper's, or, where the job dies of that, biotope's. The table decides whether
    /// it was once too often.
    HostDeath {
        /// When it may run again; 0: at once.
        ready_ms: UnixMs,
    },
}

/// A reserved job was given back without an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// The job.
    pub born: Seq,
    /// When.
    pub at: UnixMs,
    /// Why.
    pub release: Release,
    /// The worker that had it; as in [`Ended`].
    #[serde(skip)]
    pub worker: u32,
}

/// A dead job has all its attempts again, or a delayed one need not wait any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redriven {
    /// The job.
    pub born: Seq,
    /// When.
    pub at: UnixMs,
}

/// The whole state of a live job, so that the log before this record is not needed for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restated {
    /// The job.
    pub born: Seq,
    /// Its state.
    pub state: super::transition::State,
    /// Failed attempts.
    pub attempts: u16,
    /// How often it was given back.
    pub given_back: GivenBack,
    /// When it may run.
    pub ready_ms: UnixMs,
    /// Its run, if it is reserved.
    pub fence: Fence,
    /// The version that runs it, or ran it last; 0: none.
    pub version_no: u32,
    /// When it entered its state, for a dead one.
    pub since_ms: UnixMs,
    /// The last failed attempts.
    pub failures: Vec<Failure>,
}

/// The log was opened: whatever was reserved before has lost its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Number of the opening.
    pub epoch: u32,
    /// When.
    pub at: UnixMs,
}

/// The process stopped in good order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// When.
    pub at: UnixMs,
}

/// A worker type got its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeNamed<'a> {
    /// The number, from 1.
    pub no: u32,
    /// The name.
    pub name: &'a str,
}

/// A version was accepted for the first time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionAccepted<'a> {
    /// Its number, from 1.
    pub no: u32,
    /// Its type.
    pub type_no: u32,
    /// Its label as shown: the config's, with a revision suffix where the label was used before.
    pub label: &'a str,
    /// Hash over what defines it.
    pub hash: [u8; 32],
    /// When.
    pub at: UnixMs,
}

/// A version could not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRejected {
    /// The version.
    pub no: u32,
    /// When.
    pub at: UnixMs,
}

/// A config was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// Its number, from 1.
    pub number: u64,
    /// When.
    pub at: UnixMs,
    /// The version that it asks for, of each type that it has.
    pub targets: Vec<u32>,
}

/// What became of a generation, once every version that it started was up or rejected, and every one that it ended gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// The generation.
    pub number: u64,
    /// When.
    pub at: UnixMs,
    /// In a word.
    pub verdict: String,
    /// Keys of the config, beside those of types, that have another value.
    pub keys: Vec<String>,
    /// What changed, by type.
    pub changes: Vec<TypeChange>,
    /// Changes that had no room here.
    pub left_out: u32,
}

/// What a generation did to one type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeChange {
    /// The type's name.
    pub name: String,
    /// In a word.
    pub change: String,
    /// The version before.
    pub from: Option<String>,
    /// The version since, or the one that was rejected.
    pub to: Option<String>,
    /// Keys of the config that have another value.
    pub keys: Vec<String>,
    /// Why it was rejected.
    pub reason: Option<String>,
}

impl TypeChange {
    /// An upper bound on the bytes that it takes.
    pub fn bytes_max(&self) -> usize {
        /// Lengths, and which of the parts are there.
        const FIXED: usize = 16;
        let texts = [&self.from, &self.to, &self.reason].into_iter().flatten().chain([&self.name, &self.change]);
        let keys = self.keys.iter().map(|key| key.len() + 2).sum::<usize>();
        FIXED + keys + texts.map(|text| text.len() + 2).sum::<usize>()
    }
}

/// New work of a type goes to this version from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routed {
    /// The type.
    pub type_no: u32,
    /// The version; 0: to none, its jobs are parked.
    pub version_no: u32,
    /// When.
    pub at: UnixMs,
}

/// A version was taken out of service by the evidence, or by somebody's command: it gets no work until somebody says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// The version.
    pub no: u32,
    /// When.
    pub at: UnixMs,
}

/// A type's work is shared between two versions, or one is watched beside the one before it; a later record replaces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ramped {
    /// The type.
    pub type_no: u32,
    /// The version that is on trial; 0: none any more.
    pub version_no: u32,
    /// Its share of first attempts; 100: it is the one that the type's work goes to, and on probation.
    pub percent: u8,
    /// What the choice of jobs is salted with.
    pub salt: u64,
    /// Whether its share stays as it is until somebody says otherwise.
    pub paused: bool,
    /// The version that the type's work went to before; 0: none.
    pub previous: u32,
    /// When.
    pub at: UnixMs,
}

/// A type was paused: its jobs wait, and are taken in; or it was resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// The type.
    pub type_no: u32,
    /// Since when; 0: it is not paused any more.
    pub since: UnixMs,
    /// When this was decided, or said again.
    pub at: UnixMs,
}

/// A type's counters since the data directory was made. A later record replaces an earlier one; events count on from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// The type.
    pub type_no: u32,
    /// Jobs enqueued.
    pub enqueued: u64,
    /// Jobs completed.
    pub completed: u64,
    /// Attempts failed.
    pub failed: u64,
    /// Jobs cancelled.
    pub cancelled: u64,
    /// Jobs expired.
    pub expired: u64,
    /// Dead jobs discarded.
    pub discarded: u64,
}
