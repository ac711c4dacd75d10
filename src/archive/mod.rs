//! The index of ended jobs: derived from the log, expendable, off the way of every acknowledgement.
//!
//! Owns `data_dir/history`. Nothing in there is the only copy of anything: a record stays in the log, the index knows
//! where, and what a search asks for. Whoever asks says what must be found; where the index has no answer, because it is
//! behind, switched off, damaged or hanging, the asker reads the log itself and finds the same, only slower. So nothing
//! that happens in here may delay, lose or repeat a job.
//!
//! The house sees [`History`] alone. The one implementation, in `owner` and below it, is the only place that names sled.

#[cfg(feature = "daemon")]
mod entry;
#[cfg(feature = "daemon")]
mod follow;
#[cfg(feature = "daemon")]
mod owner;
#[cfg(feature = "daemon")]
mod seal;
#[cfg(feature = "daemon")]
mod shelf;
#[cfg(feature = "daemon")]
mod slice;
#[cfg(feature = "daemon")]
#[cfg(test)]
mod tests;

#[cfg(feature = "daemon")]
pub use owner::{Archive, ArchiveOptions};

use std::ops::Range;

use serde::Serialize;

use crate::job::event::End;
use crate::limits::ERROR_BYTES_KEPT;
use crate::log::Position;
use crate::types::{Seq, UnixMs};

/// The index, as the engine's handles ask it. Every answer may be "no": then the log itself is read.
pub trait History: Send + Sync {
    /// Tells that more of the log may be shown. Never blocks.
    fn shown(&self);

    /// Seqs of the records that the index has seen, without a gap.
    fn covered(&self) -> Option<Range<Seq>>;

    /// Ended jobs, last ended first. `None`: no answer within the deadline.
    fn ended(&self, ask: Ask) -> Option<EndedPage>;

    /// A job that ended, by its born seq. `None`: no answer; `Some(None)`: it did not end in what is covered.
    fn find(&self, born: Seq) -> Option<Option<Found>>;

    /// How it stands.
    fn standing(&self) -> Standing;
}

/// What is looked for. Each `None` means any.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// Only of this type.
    pub type_no: Option<u32>,
    /// Only ended so.
    pub end: Option<End>,
    /// Only of this tenant.
    pub tenant: Option<String>,
    /// Only with this in its last error, as [`plain`] makes it.
    pub error: Option<String>,
    /// Only ended at or after this.
    pub since: Option<UnixMs>,
    /// Only ended by a record below this.
    pub before: Seq,
    /// At most so many.
    pub limit: usize,
}

/// Ended jobs that were found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedPage {
    /// The jobs, last ended first.
    pub found: Vec<Found>,
    /// Everything from this seq on was looked through, up to what was asked for.
    pub down_to: Seq,
}

/// Where an ended job's records lie, as far as they are in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Seq of the record that ended it.
    pub seq: Seq,
    /// Its place.
    pub position: Position,
    /// Records of its failed attempts, and of what was restated of them, each with its kind; ascending.
    pub failures: Vec<(Seq, Position, u8)>,
}

/// How it stands with the index, on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// `ok`, `catching_up`, `degraded`, or `off`.
    pub state: &'static str,
    /// Records of the log that it has not seen yet.
    pub behind: u64,
    /// Why it is degraded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Standing {
    /// Without an index.
    pub fn off() -> Self {
        Self { state: "off", behind: 0, reason: None }
    }

    /// The state in words for people.
    pub fn label(&self) -> &'static str {
        match self.state {
            "off" => "not indexed",
            "ok" => "indexed",
            "catching_up" => "catching up",
            _ => "history degraded",
        }
    }
}

/// An error as it is searched: its last bytes, lower case, each run of blanks and control characters one blank.
pub fn plain(error: &str) -> String {
    let mut from = error.len().saturating_sub(ERROR_BYTES_KEPT);
    while !error.is_char_boundary(from) {
        from += 1;
    }
    let mut plain = String::new();
    let words = error.get(from..).unwrap_or_default().split(|c: char| c.is_whitespace() || c.is_control());
    for word in words.filter(|word| !word.is_empty()) {
        if !plain.is_empty() {
            plain.push(' ');
        }
        plain.extend(word.chars().flat_map(char::to_lowercase));
    }
    plain
}
