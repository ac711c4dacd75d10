//! What an opening makes of what it finds: the decisions alone, without the reading.
//!
//! Pure. `tests/fixtures/recovery.txt` shows every decision over all combinations of its inputs; a test compares it.

use super::LogId;
use super::frame::{BadSegmentHeader, FrameHeader, SegmentHeader};
use crate::types::Seq;

/// Why a directory is no log that can be opened. Places are segment numbers and offsets; whoever reads knows the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wrong {
    /// The segment's file is no segment, or another log's.
    Foreign { segment: u32, why: &'static str },
    /// Of a format that this program does not know.
    Newer { segment: u32, found: u16 },
    /// Bytes that were durable once are damaged.
    Corrupt { segment: u32, offset: u32, what: String },
    /// A segment that must be there is not.
    Missing { segment: u32 },
}

impl Wrong {
    pub(super) fn corrupt(segment: u32, offset: u32, what: impl Into<String>) -> Self {
        Self::Corrupt { segment, offset, what: what.into() }
    }
}

/// What a file's name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    /// A segment.
    Segment(u32),
    /// A segment or a checkpoint that was being made, or a tail that was being copied: never read, and removed.
    HalfMade,
    /// Nothing of the log's: left alone.
    Other,
}

pub(super) fn name(name: &str) -> Name {
    match super::segment_number(name) {
        Some(number) => Name::Segment(number),
        None if [".seg.tmp", ".ckpt.tmp", ".names.tmp", ".damage.tmp"].iter().any(|end| name.ends_with(end)) => {
            Name::HalfMade
        }
        None => Name::Other,
    }
}

/// Whether the first bytes of the file of segment `number` are its header.
pub(super) fn header(number: u32, decoded: Result<SegmentHeader, BadSegmentHeader>) -> Result<SegmentHeader, Wrong> {
    match decoded {
        Ok(header) if header.segment == number => Ok(header),
        Ok(header) => Err(Wrong::corrupt(number, 0, format!("it says that it is segment {}", header.segment))),
        Err(BadSegmentHeader::Foreign) => Err(Wrong::Foreign { segment: number, why: "it does not begin like one" }),
        Err(BadSegmentHeader::Newer { found }) => Err(Wrong::Newer { segment: number, found }),
        Err(BadSegmentHeader::Damaged) => Err(Wrong::corrupt(number, 0, "its header is damaged")),
    }
}

/// Whether segments, ascending, are one log's and without a gap.
pub(super) fn one_log(segments: &[(u32, LogId)]) -> Result<(), Wrong> {
    for ((before, _), (after, _)) in segments.iter().zip(segments.iter().skip(1)) {
        if *after != before + 1 {
            return Err(Wrong::Missing { segment: before + 1 });
        }
    }
    let Some((_, log_id)) = segments.first() else { return Ok(()) };
    match segments.iter().find(|(_, other)| other != log_id) {
        Some((number, _)) => Err(Wrong::Foreign { segment: *number, why: "it belongs to another log" }),
        None => Ok(()),
    }
}

/// The last segment that holds a whole frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LastFrames {
    /// Its place among the segments that are there.
    pub(super) at: usize,
    /// Whether its last frame is an end.
    pub(super) ended: bool,
    /// The head as its last frame names it.
    pub(super) head: u32,
}

/// Where the log begins and where it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reach {
    /// Number of the first segment that counts.
    pub(super) head: u32,
    /// Place of the segment that is written among those that are there.
    pub(super) active: usize,
}

/// Finds head and tail. `segments`: number and head of each header, ascending, without a gap. `begun`: place of the last
/// segment behind `last` that was begun, though its first frame is not whole.
pub(super) fn reach(segments: &[(u32, u32)], last: Option<LastFrames>, begun: Option<usize>) -> Result<Reach, Wrong> {
    let number = |at: usize| segments.get(at).map(|(number, _)| *number);
    let lowest = number(0).unwrap_or(1);
    let active = match last {
        None => 0,
        // The next one was there before the end was written.
        Some(last) if last.ended && number(last.at + 1).is_none() => {
            return Err(Wrong::Missing { segment: number(last.at).unwrap_or(lowest) + 1 });
        }
        Some(last) if last.ended => last.at + 1,
        Some(last) => last.at,
    };
    // A segment is begun only when the end of the one before it is durable.
    if begun.is_some_and(|begun| begun > active) {
        return Err(Wrong::corrupt(number(active).unwrap_or(lowest), 0, "its end is damaged: the next one was begun"));
    }
    // One is made ahead, never two.
    if let Some(stray) = number(active + 2) {
        return Err(Wrong::corrupt(stray, 0, "it lies past the tail of the log"));
    }
    let named = last.map_or(1, |last| last.head);
    let head = segments.iter().map(|(_, head)| *head).chain([named]).max().unwrap_or(1);
    if lowest > head {
        return Err(Wrong::Missing { segment: head });
    }
    if number(active).is_none_or(|active| active < head) {
        return Err(Wrong::corrupt(head, 0, "the head lies past the tail of the log"));
    }
    Ok(Reach { head, active })
}

/// What the frames before say of the next one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Before {
    /// Seq of the next record; not known before the first frame of a log that was cleaned.
    pub(super) next_seq: Option<Seq>,
    /// Checksum of the frame before.
    pub(super) previous: Option<u32>,
    /// Its epoch.
    pub(super) epoch: u32,
}

/// Whether a whole frame is the one that comes next.
pub(super) fn follows(before: &Before, header: &FrameHeader) -> Result<(), String> {
    if before.next_seq.is_some_and(|next| next != header.first_seq) {
        return Err(format!("a frame begins with record {}, out of order", header.first_seq));
    }
    if before.previous.is_some_and(|previous| previous != header.previous) || header.epoch < before.epoch {
        return Err("a frame does not follow the one before it".to_owned());
    }
    Ok(())
}

/// What lies behind the last whole frame of the segment that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behind {
    /// No whole frame.
    Nothing,
    /// Whole frames, of which the furthest says that the log was durable up to this seq.
    Frames { durable_up_to: Seq },
}

/// What the place is where whole frames cease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The segment's end: the next segment goes on.
    GoesOn,
    /// The tail: what lies behind it was never durable, and is cut.
    Tail,
    /// Damage to what was durable, in the middle of the log.
    Middle,
    /// Damage to what was durable, in the last segment: a later frame is a witness.
    Witnessed,
    /// The segment that the log begins with holds no frame though others follow.
    Head,
}

/// Tells the end of the log from damage. `tail`: in the segment that is written. `begun`: a frame came before.
pub(super) fn stop(tail: bool, ended: bool, begun: bool, next_seq: Seq, behind: Behind) -> Stop {
    match (tail, ended, behind) {
        (false, true, _) => Stop::GoesOn,
        (false, false, _) if begun => Stop::Middle,
        (false, false, _) => Stop::Head,
        (true, _, Behind::Frames { durable_up_to }) if durable_up_to > next_seq => Stop::Witnessed,
        (true, _, Behind::Frames { .. } | Behind::Nothing) => Stop::Tail,
    }
}
