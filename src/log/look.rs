//! Looking at a log without opening it: every frame that holds, and every place that does not.
//!
//! Reads only; takes no lock. Goes on behind damage, unlike an opening, so that all of it is told and the rest can be
//! saved. Where a process writes the log meanwhile, it sees what is sealed and what is durable: a place that does not
//! hold is read again before it is told, and a segment that leaves the log is passed over.

mod segment;

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::disk::{Disk, DiskFile};
use super::frame::{self, FRAME_ALIGN, FRAME_HEADER_BYTES, Frame, FrameHeader, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::reader::{FrameStream, HEADER_END, ReadError, StoredRecord};
use super::verdict::{self, Before, Name, Wrong};
use super::{LogId, segment_name};
use crate::types::Seq;

/// Why nothing can be said of a directory.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// There is no segment of a log.
    #[error("there is no log in {}", dir.display())]
    NoLog {
        /// The directory.
        dir: PathBuf,
    },
    /// A segment of a format that this program does not know.
    #[error("{} is of log format {found}, this program knows up to {known}; run the newer biotope", file.display(), known = super::FORMAT)]
    Newer {
        /// The file.
        file: PathBuf,
        /// Its format.
        found: u16,
    },
    /// The operating system said no.
    #[error("cannot read {}: {source}", place.display())]
    Io {
        /// The file or directory.
        place: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// A place that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Number of the segment.
    pub segment: u32,
    /// Where it begins there.
    pub offset: u32,
    /// How many bytes it takes; 0 where something is missing.
    pub bytes: u64,
    /// Seqs of the records that are lost with it, where known; one past the last.
    pub seqs: Option<Range<Seq>>,
    /// What is wrong.
    pub what: String,
}

/// A frame that holds, all of it or but for some of its records.
#[derive(Debug, Clone)]
pub struct FrameSeen {
    /// Number of the segment.
    pub segment: u32,
    /// Where it lies there.
    pub offset: u32,
    /// Its header; put together from what is around it where the header itself is lost.
    pub header: FrameHeader,
    /// Its records.
    pub records: Vec<RecordSeen>,
}

/// A record of a frame.
#[derive(Debug, Clone)]
pub enum RecordSeen {
    /// It holds.
    Whole(StoredRecord),
    /// It does not.
    Lost {
        /// Its seq.
        seq: Seq,
        /// Bytes of its body.
        body: u32,
    },
}

/// What is seen, in the order of the log.
#[derive(Debug)]
pub enum Seen {
    /// A segment begins.
    Segment {
        /// Its number.
        number: u32,
        /// Its size.
        bytes: u64,
        /// The head, and the log whose ids it goes on with, as all headers together say.
        header: SegmentHeader,
    },
    /// A frame.
    Frame(FrameSeen),
    /// A place that does not hold.
    Damage(Damage),
}

/// A log at a glance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Its identity.
    pub log_id: LogId,
    /// First segment that counts.
    pub head: u32,
    /// Segment that is written.
    pub tail: u32,
    /// Frames that hold.
    pub frames: u64,
    /// Records that hold.
    pub records: u64,
    /// Seq of the first record.
    pub first_seq: Seq,
    /// One past the last record.
    pub next_seq: Seq,
    /// Openings of the log up to now.
    pub epoch: u32,
    /// Bytes of a torn tail: never acknowledged, cut by the next opening.
    pub torn_bytes: u64,
    /// Places that do not hold.
    pub damages: u64,
}

/// Looks at all of a log, from the head on. `live`: a process may be writing it.
///
/// # Errors
/// See [`LookError`]; what `see` returns.
pub fn look<E: From<LookError>>(
    disk: &dyn Disk,
    live: bool,
    see: &mut dyn FnMut(Seen) -> Result<(), E>,
) -> Result<Summary, E> {
    let mut found = BTreeMap::new();
    let mut damages = Vec::new();
    for number in numbers(disk)? {
        if let Some(segment) = open_segment(disk, number, live)? {
            found.insert(number, segment);
        }
    }
    let log_id = identity(disk, &found)?;
    found.retain(|number, segment| {
        let foreign = segment.header.as_ref().is_ok_and(|header| header.log_id != log_id);
        if foreign {
            damages.push(Damage::missing(*number, "it belongs to another log"));
        }
        !foreign
    });
    let mut looking = Looking {
        disk,
        live,
        log_id,
        last: None,
        see,
        before: Before::default(),
        pending: Vec::new(),
        summary: Summary { log_id, ..Summary::default() },
    };
    looking.all(&found, damages)?;
    Ok(looking.summary)
}

impl Damage {
    fn missing(segment: u32, what: impl Into<String>) -> Self {
        Self { segment, offset: 0, bytes: 0, seqs: None, what: what.into() }
    }
}

fn io_error(disk: &dyn Disk, name: Option<u32>, source: io::Error) -> LookError {
    let place = disk.place();
    LookError::Io { place: name.map_or(place.clone(), |number| place.join(segment_name(number))), source }
}

fn read_error(disk: &dyn Disk, error: ReadError) -> LookError {
    match error {
        ReadError::Io { segment, source } => io_error(disk, Some(segment), source),
        other @ (ReadError::Gone { .. } | ReadError::Damaged { .. }) => {
            io_error(disk, None, io::Error::other(other.to_string()))
        }
    }
}

fn numbers(disk: &dyn Disk) -> Result<Vec<u32>, LookError> {
    let names = disk.list().map_err(|source| io_error(disk, None, source))?;
    let mut numbers: Vec<u32> = names
        .iter()
        .filter_map(|name| match verdict::name(name) {
            Name::Segment(number) => Some(number),
            Name::HalfMade | Name::Other => None,
        })
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// A segment's file.
struct Segment {
    file: Arc<dyn DiskFile>,
    header: Result<SegmentHeader, Wrong>,
    bytes: u64,
}

fn open_segment(disk: &dyn Disk, number: u32, live: bool) -> Result<Option<Segment>, LookError> {
    let io = |source| io_error(disk, Some(number), source);
    let file = match disk.open(&segment_name(number)) {
        Err(error) if live && error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(io)?,
    };
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    let read = file.read_at(0, &mut bytes).map_err(io)?;
    let header = verdict::header(number, SegmentHeader::decode(bytes.get(..read).unwrap_or_default()));
    if let Err(Wrong::Newer { found, .. }) = header {
        return Err(LookError::Newer { file: disk.place().join(segment_name(number)), found });
    }
    let length = file.bytes().map_err(io)?;
    Ok(Some(Segment { file, header, bytes: length }))
}

/// The id that most headers bear; without a header that holds, the first frame's.
fn identity(disk: &dyn Disk, found: &BTreeMap<u32, Segment>) -> Result<LogId, LookError> {
    let mut votes: BTreeMap<LogId, usize> = BTreeMap::new();
    for header in found.values().filter_map(|segment| segment.header.as_ref().ok()) {
        *votes.entry(header.log_id).or_default() += 1;
    }
    if let Some((log_id, _)) = votes.into_iter().max_by_key(|(_, count)| *count) {
        return Ok(log_id);
    }
    for (number, segment) in found {
        let mut bytes = vec![0; FRAME_HEADER_BYTES];
        let read = |bytes: &mut Vec<u8>| {
            segment.file.read_at(u64::from(HEADER_END), bytes).map_err(|source| io_error(disk, Some(*number), source))
        };
        read(&mut bytes)?;
        let Some(length) = frame::claimed_bytes(&bytes) else { continue };
        bytes.resize(length, 0);
        read(&mut bytes)?;
        if let Some(frame) = Frame::decode(&bytes).filter(|frame| frame.header.segment == *number) {
            return Ok(frame.header.log_id);
        }
    }
    Err(LookError::NoLog { dir: disk.place() })
}

struct Looking<'a, E> {
    disk: &'a dyn Disk,
    live: bool,
    log_id: LogId,
    /// The last segment that holds a frame.
    last: Option<u32>,
    see: &'a mut dyn FnMut(Seen) -> Result<(), E>,
    before: Before,
    /// Damage of the segment at hand, while it is not sure that the segment is still the log's.
    pending: Vec<Damage>,
    summary: Summary,
}

impl<E: From<LookError>> Looking<'_, E> {
    fn all(&mut self, found: &BTreeMap<u32, Segment>, damages: Vec<Damage>) -> Result<(), E> {
        let mut head =
            found.values().filter_map(|segment| segment.header.as_ref().ok()).map(|header| header.head).max();
        for (number, segment) in found.iter().rev() {
            if let Some(named) = self.frames_name(*number, segment)? {
                self.last = Some(*number);
                head = head.max(Some(named));
                break;
            }
        }
        let origin =
            found.values().find_map(|segment| segment.header.as_ref().ok()).map_or([0; 16], |header| header.origin);
        let lowest = found.keys().next().copied().unwrap_or(1);
        let head = head.unwrap_or(lowest);
        self.summary.head = head.max(lowest);
        self.before.next_seq = (head == 1 && lowest == 1).then_some(1);
        for damage in damages.into_iter().filter(|damage| damage.segment >= head) {
            self.damage(damage)?;
        }
        let mut expected = head;
        let last = self.last.unwrap_or(self.summary.head);
        let mut ended = false;
        for (number, segment) in found.range(head..) {
            // A spare that was made ahead, and holds nothing of this log's yet.
            let spare = *number > last + u32::from(ended) || (*number > last && self.last.is_none());
            if spare && *number > last + 2 {
                self.damage(Damage::missing(*number, "it lies past the tail of the log"))?;
            }
            if *number > expected && !spare {
                self.gap(expected, *number)?;
            }
            expected = number + 1;
            if let Err(wrong) = &segment.header {
                self.damage(bad_header(*number, wrong))?;
            }
            if spare {
                continue;
            }
            let header = SegmentHeader {
                log_id: self.log_id,
                segment: *number,
                head: self.summary.head,
                bytes: segment.bytes,
                origin,
            };
            let bytes = segment.header.as_ref().map_or(segment.bytes, |header| header.bytes);
            (self.see)(Seen::Segment { number: *number, bytes, header })?;
            ended = self.segment(*number, segment, *number >= last)?;
            self.settle(*number)?;
            self.summary.tail = *number;
        }
        if ended && self.summary.tail == last && !(self.live && self.is_there(last + 1)?) {
            self.damage(Damage::missing(last + 1, "it is missing: the segment before it was ended"))?;
        }
        self.summary.next_seq = self.before.next_seq.unwrap_or(1);
        Ok(())
    }

    fn is_there(&self, number: u32) -> Result<bool, LookError> {
        Ok(numbers(self.disk)?.contains(&number))
    }

    /// Tells which segments are missing.
    fn gap(&mut self, from: u32, to: u32) -> Result<(), E> {
        let what = if to == from + 1 {
            "it is missing".to_owned()
        } else {
            format!("it is missing, and all up to {}", to - 1)
        };
        if !self.live {
            self.damage(Damage::missing(from, what))?;
        }
        self.before.previous = None;
        Ok(())
    }

    fn damage(&mut self, damage: Damage) -> Result<(), E> {
        if self.live {
            self.pending.push(damage);
            return Ok(());
        }
        self.summary.damages += 1;
        (self.see)(Seen::Damage(damage))
    }

    /// Tells the damage of a segment, unless the segment has left the log meanwhile.
    fn settle(&mut self, number: u32) -> Result<(), E> {
        let pending = std::mem::take(&mut self.pending);
        if pending.is_empty() {
            return Ok(());
        }
        let still = open_segment(self.disk, number, true)?.is_some_and(|segment| segment.header.is_ok());
        if !still {
            self.before = Before::default();
            return Ok(());
        }
        for damage in pending {
            self.summary.damages += 1;
            (self.see)(Seen::Damage(damage))?;
        }
        Ok(())
    }

    fn stream(&self, number: u32, segment: &Segment, offset: u32) -> FrameStream {
        FrameStream::new(number, &segment.file, self.log_id, offset)
    }

    /// The head as the frames of a segment name it; `None` if none holds.
    fn frames_name(&self, number: u32, segment: &Segment) -> Result<Option<u32>, LookError> {
        let mut head = None;
        let mut frames = self.stream(number, segment, HEADER_END);
        loop {
            while let Some((_, _, header)) = frames.next_any().map_err(|error| read_error(self.disk, error))? {
                head = head.max(Some(header.head));
            }
            frames.offset += u32::try_from(FRAME_ALIGN).unwrap_or(8);
            if !frames.seek_magic().map_err(|error| read_error(self.disk, error))? {
                return Ok(head);
            }
        }
    }
}

fn bad_header(number: u32, wrong: &Wrong) -> Damage {
    let what = match wrong {
        Wrong::Foreign { why, .. } => (*why).to_owned(),
        Wrong::Corrupt { what, .. } => what.clone(),
        Wrong::Newer { found, .. } => format!("format {found}"),
        Wrong::Missing { .. } => "it is missing".to_owned(),
    };
    Damage { segment: number, offset: 0, bytes: SEGMENT_HEADER_BYTES as u64, seqs: None, what }
}
