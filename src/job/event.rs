//! What happened, as records of the log: the shapes of all bodies, written and read.
//!
//! Pure. A body is a postcard value, and after it, where a kind has one, a tail of raw bytes (a payload, a result, an
//! error) up to the body's end. An event names a job by its born seq: the seq of its first record. A kind's number and
//! the shape of a version are never changed, only added to.

use serde::{Deserialize, Serialize};

use crate::log::{Position, RecordKind};
use crate::types::{Fence, Priority, Seq, UnixMs};

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
    /// [`Restated`], tail: the whole body of the job's `Enqueued` record.
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
    /// [`Generation`].
    Generation = 21,
    /// [`Routed`].
    Routed = 22,
    /// [`Totals`].
    Totals = 23,
    // Reserved for what comes later, never to be used for anything else:
    // 32 schedule, 33 schedule fired, 34 unique lock, 35 rate limit, 36 batch, 37 batch member, 38 pause,
    // 39 quarantine, 40 ramp.
}

/// The shape in which bodies are written now.
const VERSION: u8 = 1;

impl Kind {
    /// As the log stores it.
    pub fn record_kind(self) -> RecordKind {
        RecordKind { kind: self as u8, version: VERSION }
    }
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

/// How a job came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum End {
    /// A worker did it.
    Completed,
    /// Somebody took it back.
    Cancelled,
    /// Its time had passed.
    Expired,
    /// It was dead, and given up.
    Discarded,
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
    /// When it was accepted.
    pub created_ms: UnixMs,
    /// Where its payload lies.
    pub home: Home,
    /// What its caller chose.
    #[serde(borrow)]
    pub names: Option<Names<'a>>,
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
}

/// An attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// The job.
    pub born: Seq,
    /// When.
    pub at: UnixMs,
    /// The version that ran it; 0: none.
    pub version_no: u32,
    /// What follows.
    pub after: After,
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
}

/// A dead job has all its attempts again, or a delayed one need not wait any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redriven {
    /// The job.
    pub born: Seq,
    /// When.
    pub at: UnixMs,
}

/// A failed attempt, as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Which attempt, from 1.
    pub attempt: u16,
    /// When.
    pub at: UnixMs,
    /// The version that ran it; 0: none.
    pub version_no: u32,
    /// The end of its error.
    pub error: String,
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
    /// See the table's job.
    pub interrupts: u32,
    /// See the table's job.
    pub deferrals: u16,
    /// See the table's job.
    pub host_deaths: u8,
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

/// Any event, borrowed from the record it was read from or made of.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each is the value of its kind")]
pub enum Event<'a> {
    Enqueued(Enqueued<'a>, &'a [u8]),
    Reserved(Reserved),
    Ended(Ended<'a>, &'a [u8]),
    Failed(Failed, &'a [u8]),
    Released(Released, &'a [u8]),
    Redriven(Redriven),
    Restated(Restated, &'a [u8]),
    Opened(Opened),
    Stopped(Stopped),
    TypeNamed(TypeNamed<'a>),
    VersionAccepted(VersionAccepted<'a>),
    VersionRejected(VersionRejected, &'a [u8]),
    Generation(Generation),
    Routed(Routed),
    Totals(Totals),
}

/// A record that this program does not understand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    /// The kind is not known, or its shape.
    #[error("kind {kind} version {version} is not known to this program; a newer biotope wrote it")]
    Unknown {
        /// The kind.
        kind: u8,
        /// The shape.
        version: u8,
    },
    /// The body is not of its kind's shape.
    #[error("the body of a record of kind {kind} does not have its shape")]
    Shape {
        /// The kind.
        kind: u8,
    },
}

impl<'a> Event<'a> {
    /// Reads a record's body.
    ///
    /// # Errors
    /// See [`BadRecord`].
    pub fn decode(kind: u8, version: u8, body: &'a [u8]) -> Result<Self, BadRecord> {
        if version != VERSION {
            return Err(BadRecord::Unknown { kind, version });
        }
        fn take<'a, T: Deserialize<'a>>(body: &'a [u8], kind: u8) -> Result<(T, &'a [u8]), BadRecord> {
            postcard::take_from_bytes(body).map_err(|_| BadRecord::Shape { kind })
        }
        /// A body without a tail.
        fn whole<'a, T: Deserialize<'a>>(body: &'a [u8], kind: u8) -> Result<T, BadRecord> {
            let (value, tail) = take(body, kind)?;
            if tail.is_empty() { Ok(value) } else { Err(BadRecord::Shape { kind }) }
        }
        const ENQUEUED: u8 = Kind::Enqueued as u8;
        Ok(match kind {
            ENQUEUED => take(body, kind).map(|(meta, tail)| Self::Enqueued(meta, tail))?,
            k if k == Kind::Reserved as u8 => Self::Reserved(whole(body, kind)?),
            k if k == Kind::Ended as u8 => take(body, kind).map(|(meta, tail)| Self::Ended(meta, tail))?,
            k if k == Kind::Failed as u8 => take(body, kind).map(|(meta, tail)| Self::Failed(meta, tail))?,
            k if k == Kind::Released as u8 => take(body, kind).map(|(meta, tail)| Self::Released(meta, tail))?,
            k if k == Kind::Redriven as u8 => Self::Redriven(whole(body, kind)?),
            k if k == Kind::Restated as u8 => take(body, kind).map(|(meta, tail)| Self::Restated(meta, tail))?,
            k if k == Kind::Opened as u8 => Self::Opened(whole(body, kind)?),
            k if k == Kind::Stopped as u8 => Self::Stopped(whole(body, kind)?),
            k if k == Kind::TypeNamed as u8 => Self::TypeNamed(whole(body, kind)?),
            k if k == Kind::VersionAccepted as u8 => Self::VersionAccepted(whole(body, kind)?),
            k if k == Kind::VersionRejected as u8 => {
                take(body, kind).map(|(meta, tail)| Self::VersionRejected(meta, tail))?
            }
            k if k == Kind::Generation as u8 => Self::Generation(whole(body, kind)?),
            k if k == Kind::Routed as u8 => Self::Routed(whole(body, kind)?),
            k if k == Kind::Totals as u8 => Self::Totals(whole(body, kind)?),
            _ => return Err(BadRecord::Unknown { kind, version }),
        })
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Enqueued(..) => Kind::Enqueued,
            Self::Reserved(_) => Kind::Reserved,
            Self::Ended(..) => Kind::Ended,
            Self::Failed(..) => Kind::Failed,
            Self::Released(..) => Kind::Released,
            Self::Redriven(_) => Kind::Redriven,
            Self::Restated(..) => Kind::Restated,
            Self::Opened(_) => Kind::Opened,
            Self::Stopped(_) => Kind::Stopped,
            Self::TypeNamed(_) => Kind::TypeNamed,
            Self::VersionAccepted(_) => Kind::VersionAccepted,
            Self::VersionRejected(..) => Kind::VersionRejected,
            Self::Generation(_) => Kind::Generation,
            Self::Routed(_) => Kind::Routed,
            Self::Totals(_) => Kind::Totals,
        }
    }

    /// Appends the body to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Enqueued(meta, tail) => put(out, meta, tail),
            Self::Reserved(meta) => put(out, meta, &[]),
            Self::Ended(meta, tail) => put(out, meta, tail),
            Self::Failed(meta, tail) => put(out, meta, tail),
            Self::Released(meta, tail) => put(out, meta, tail),
            Self::Redriven(meta) => put(out, meta, &[]),
            Self::Restated(meta, tail) => put(out, meta, tail),
            Self::Opened(meta) => put(out, meta, &[]),
            Self::Stopped(meta) => put(out, meta, &[]),
            Self::TypeNamed(meta) => put(out, meta, &[]),
            Self::VersionAccepted(meta) => put(out, meta, &[]),
            Self::VersionRejected(meta, tail) => put(out, meta, tail),
            Self::Generation(meta) => put(out, meta, &[]),
            Self::Routed(meta) => put(out, meta, &[]),
            Self::Totals(meta) => put(out, meta, &[]),
        }
    }

    /// An upper bound on the bytes that [`Event::encode`] appends.
    pub fn bytes_max(&self) -> usize {
        /// Numbers and lengths of the largest shape.
        const FIXED: usize = 160;
        let names = |names: &Option<Names<'_>>| {
            names.as_ref().map_or(0, |n| n.id.map_or(0, str::len) + n.key.map_or(0, str::len) + 16)
        };
        FIXED
            + match self {
                Self::Enqueued(meta, tail) => {
                    meta.task.len()
                        + meta.tenant.map_or(0, str::len)
                        + meta.parent.map_or(0, str::len)
                        + names(&meta.names)
                        + tail.len()
                }
                Self::Ended(meta, tail) => names(&meta.names) + tail.len(),
                Self::Failed(_, tail) | Self::Released(_, tail) | Self::VersionRejected(_, tail) => tail.len(),
                Self::Restated(meta, tail) => {
                    meta.failures.iter().map(|failure| failure.error.len() + 32).sum::<usize>() + tail.len()
                }
                Self::TypeNamed(meta) => meta.name.len(),
                Self::VersionAccepted(meta) => meta.label.len(),
                Self::Generation(meta) => meta.targets.len() * 5,
                _ => 0,
            }
    }
}

fn put<T: Serialize>(out: &mut Vec<u8>, meta: &T, tail: &[u8]) {
    let taken = std::mem::take(out);
    // Writing a plain value into memory has no way to fail.
    *out = postcard::to_extend(meta, taken).expect("a plain value can be written into memory");
    out.extend_from_slice(tail);
}

/// The `Enqueued` part of a home record's body, and the payload.
///
/// # Errors
/// See [`BadRecord`].
pub fn decode_home(kind: u8, body: &[u8]) -> Result<(Enqueued<'_>, &[u8]), BadRecord> {
    match Event::decode(kind, VERSION, body)? {
        Event::Enqueued(meta, payload) => Ok((meta, payload)),
        Event::Restated(_, enqueued) => decode_home(Kind::Enqueued as u8, enqueued),
        _ => Err(BadRecord::Shape { kind }),
    }
}
