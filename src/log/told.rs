//! What the log is told and tells: kinds of records, its figures, and why it takes nothing any more.

use crate::types::Seq;

/// The log does not take or acknowledge anything any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} failed in {place}: {error}")]
pub struct Poisoned {
    /// "write" or "sync".
    pub what: &'static str,
    /// The file.
    pub place: String,
    /// What the operating system said.
    pub error: String,
}

/// What a record's body is: a number that the log stores and never looks into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordKind {
    /// The kind.
    pub kind: u8,
    /// In which shape the body is written.
    pub version: u8,
}

/// Figures about the log.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogFigures {
    /// First segment that counts.
    pub head: u32,
    /// Segment that is written.
    pub active: u32,
    /// One past the last seq that is on stable storage.
    pub durable_up_to: Seq,
    /// Bytes of all segments, the spare one included.
    pub disk_bytes: u64,
    /// Bytes of the segment that is made ahead, if it is not there yet: beyond these.
    pub ordered_bytes: u64,
    /// Bytes, of these, of segments that the head has passed and that somebody still reads.
    pub held_bytes: u64,
    /// Frames with records that were written since the log was opened.
    pub commits: u64,
    /// Bytes that were written since then.
    pub written_bytes: u64,
}
