//! The log: append-only segments of checksummed frames; the only thing on disk that Biotope must not lose.
//!
//! Owns every byte of job data on disk, and the directory's lock. Knows records, seqs and offsets; never what a record
//! means. Never reads a clock. Promise: what [`Log::sync`] has returned for is on stable storage; after a failed write
//! or sync the log is poisoned and acknowledges nothing more.
//!
//! # On disk
//!
//! `data_dir/LOCK` (flock, holds the pid) and `data_dir/log/0000000001.seg …`: segments of equal size, numbered without
//! a gap. `*.tmp` is being made, and never read. All numbers are little-endian.
//!
//! ```text
//! segment   header 64 │ frame │ frame │ … │ end frame │ (nothing that counts)
//!   header  0 magic "BIOTOPE\xF8" │ 8 format u16 │ 10 zero u16 │ 12 crc u32 over 0..12 and 16..64 │ 16 log id [16]
//!           │ 32 segment u32 │ 36 head segment when it was made u32 │ 40 segment bytes u64
//!           │ 48 id of the log that this one was restored from, or zero [16]
//! frame     starts at a multiple of 8; what one commit writes; whole or not there at all
//!   header  0 magic u32 │ 4 crc u32 over 8..72 and then the crc of each record │ 8 frame bytes u32, padding included
//!           │ 12 records u32 │ 16 log id [16] │ 32 segment u32 │ 36 epoch u32 │ 40 first seq u64
//!           │ 48 durable up to u64 │ 56 crc of the frame before u32 │ 60 head segment u32 │ 64 kind u8 │ 65 zero [7]
//!   kind    1 data │ 2 seal: no records, a witness that the frame before it was durable │ 3 end of the segment
//! record    0 body bytes u32 │ 4 crc u32 over seq, 8..12 and the body │ 8 kind u8 │ 9 version u8 │ 10 flags u8 │ 11 zero
//!           │ 12 body
//!   flags   bit 0, joined: of one group with the record before it; a group is never split over frames
//! ```
//!
//! A record's seq is its frame's first seq plus its place in the frame. The magic's 0xF8 stands in no UTF-8 text, so no
//! payload of JSON can look like a frame. Stale bytes of a recycled file carry an older segment number; bytes of a cut
//! tail are never copied along (see [`recovery`]). Each frame names the head: the first segment that counts.

pub mod checkpoint;
pub mod commit;
pub mod copy;
pub mod damage;
pub mod disk;
pub mod frame;
pub mod lock;
pub mod look;
mod meanwhile;
pub mod nearby;
pub mod reader;
pub mod recovery;
mod rewrite;
pub mod scan;
pub mod scrub;
mod spare;
pub mod stream;
mod tail;
#[cfg(test)]
pub(crate) mod tests;
mod told;
mod verdict;
mod writer;

pub use reader::{Reader, StoredRecord};
pub use recovery::{OpenError, Opened};
pub use told::{LogFigures, Poisoned, RecordKind};
pub use writer::Log;

/// The identity of a log, drawn at random when it is made.
pub type LogId = [u8; 16];

/// The newest format that this program reads and the one that it writes.
pub const FORMAT: u16 = 1;

/// Where a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// Number of the segment.
    pub segment: u32,
    /// Offset of the record's header in the segment, in bytes.
    pub offset: u32,
    /// Length of the record's body, in bytes.
    pub body: u32,
}

/// Sizes that a log is made with. The real ones are [`LogOptions::new`]'s; a simulation runs with small ones.
#[derive(Debug, Clone, Copy)]
pub struct LogOptions {
    /// Bytes of a new segment. It holds at least a largest frame.
    pub segment_bytes: u64,
    /// A frame of this size is full: time to commit.
    pub frame_bytes_full: usize,
    /// Bytes of the largest frame.
    pub frame_bytes_max: usize,
    /// How the next segment is made.
    pub making: Making,
}

impl LogOptions {
    /// Frames as large as they may be in segments of this size, made by a thread.
    pub fn new(segment_bytes: u64) -> Self {
        Self {
            segment_bytes,
            frame_bytes_full: crate::limits::FRAME_BYTES_FULL,
            frame_bytes_max: crate::limits::FRAME_BYTES_MAX,
            making: Making::Thread,
        }
    }
}

/// Who makes the next segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Making {
    /// A thread, beside the commits.
    Thread,
    /// The owner of the log, when it calls [`Log::make_ahead`], or when it needs the segment.
    Stepped,
}

/// Name of a segment's file.
fn segment_name(number: u32) -> String {
    format!("{number:010}.seg")
}

/// Number of the segment in a file of this name.
pub(crate) fn segment_number(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".seg")?;
    let all_digits = digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| digits.parse().ok()).flatten()
}
