//! Opening a log: finds the tail, replays every record from the head on, and tells a torn tail from corruption.
//!
//! A valid frame names how far the log was durable when it was made. A bad place that lies below what any later valid
//! frame names was durable once, so it is corruption, and the log is not opened. Anything else at the tail was never
//! acknowledged: it is cut, and told; `verdict` holds these decisions by themselves. Every opening copies what is valid of the last segment into another file and
//! syncs that: after a failed sync the page cache may show bytes that the disk never took, and nobody knows any more.
//! A thread reads and checks the frames of a segment, some ahead of those whose records are taken over (`frames`).

mod end;
mod frames;
mod rehearsal;
mod replay;

pub use rehearsal::rehearse;
pub use replay::Replay;

use std::cell::Cell;
use std::io;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use self::end::{End, Ending, Segments, past_end};
use self::frames::{AHEAD, Frames};
use super::checkpoint::{self, Sort};
use super::damage::Damages;
use super::disk::{Disk, DiskFile};
use super::frame::{FrameKind, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::meanwhile::{ahead, let_go};
use super::reader::{HEADER_END, ReadError, Reader, Segment};
use super::spare::{self, Order};
use super::tail::{self, Tail};
use super::verdict::{self, Before, Behind, Name, Stop, Wrong};
use super::writer::{Log, TailStart};
use super::{LogId, LogOptions, segment_name};

/// Why a log could not be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file that is no segment of a log, or of another log.
    #[error("{} is no segment of this log: {why}; nothing was changed. Choose another `data_dir`, or move the file away", file.display())]
    Foreign {
        /// The file.
        file: PathBuf,
        /// What it is instead.
        why: &'static str,
    },
    /// A log of a format that this program does not know.
    #[error("{} is of log format {found}, this program knows up to {known}; nothing was changed. Run the newer biotope", file.display(), known = super::FORMAT)]
    Newer {
        /// The file.
        file: PathBuf,
        /// Its format.
        found: u16,
    },
    /// Bytes that were durable once are damaged or missing.
    #[error("the log is corrupt: {} at offset {offset}: {what}; nothing was changed. See all of it with `biotope log verify`; restore a backup, or save the rest with `biotope log salvage`", file.display())]
    Corrupt {
        /// The segment's file.
        file: PathBuf,
        /// Where the damage begins, in bytes.
        offset: u32,
        /// What is wrong.
        what: String,
    },
    /// A segment that must be there is not.
    #[error("the log is corrupt: {} is missing; nothing was changed. See all of it with `biotope log verify`; restore a backup, or save the rest with `biotope log salvage`", file.display())]
    Missing {
        /// The segment's file.
        file: PathBuf,
    },
    /// The operating system said no.
    #[error("cannot {doing} in {}", dir.display())]
    Io {
        /// A verb phrase.
        doing: &'static str,
        /// The log's directory.
        dir: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// An opened log, and what opening it found.
pub struct Opened {
    /// The log.
    pub log: Log,
    /// Whether it was made just now.
    pub created: bool,
    /// Bytes of the torn tail that were cut.
    pub cut_bytes: u64,
    /// Segments that count.
    pub segments: u32,
    /// The segment of a checkpoint that the records after it do not fit; it is set aside.
    pub unfit_checkpoint: Option<u32>,
}

/// One segment's file.
#[derive(Clone)]
struct Found {
    number: u32,
    file: Arc<dyn DiskFile>,
    header: SegmentHeader,
}

/// Opens the log on `disk`, or makes a new one with `new_id`; gives `replay` the newest checkpoint that is of use, and every
/// record from there, or from the head, in order, with the id that the log's names are made by. If one cannot be taken over after
/// a checkpoint, the log is read without.
/// When it returns, every replayed record is on stable storage.
///
/// # Errors
/// See [`OpenError`]; an `Err` of `replay` becomes `Corrupt` at that record's place.
pub fn open(
    disk: Arc<dyn Disk>,
    options: LogOptions,
    new_id: LogId,
    replay: &mut dyn Replay,
) -> Result<Opened, OpenError> {
    let opening = Opening::new(disk.as_ref(), options);
    let opened = opening.open(&disk, new_id, replay);
    let (Err(error), Some(number), true) = (&opened, opening.checkpoint.get(), opening.refused.get()) else {
        return opened;
    };
    // A checkpoint holds nothing that the log does not: what does not fit to one is corrupt if it does not fit to the log.
    tracing::warn!(%error, "the log does not go on from a checkpoint; it is read without");
    opening.by_checkpoint.set(false);
    let opened = opening.open(&disk, new_id, replay)?;
    checkpoint::set_aside(disk.as_ref(), Sort::Table, number);
    Ok(Opened { unfit_checkpoint: Some(number), ..opened })
}

/// Segments up to the last gap in their numbers, and those from there on. What lies below a gap lies below the head, or the
/// log is not opened: files that the head has passed are removed in order, but one may stay where its removal failed, or
/// was lost with power when a later one was not.
fn below_the_last_gap(mut found: Vec<Found>) -> (Vec<Found>, Vec<Found>) {
    let pairs = found.iter().zip(found.iter().skip(1));
    let gap = pairs.rev().position(|(before, after)| after.number != before.number + 1);
    let from = gap.map_or(0, |from_the_end| found.len() - 1 - from_the_end);
    let rest = found.split_off(from);
    (found, rest)
}

struct Opening<'a> {
    disk: &'a dyn Disk,
    options: LogOptions,
    /// Whether a checkpoint may be taken over.
    by_checkpoint: Cell<bool>,
    /// The segment of the one that was.
    checkpoint: Cell<Option<u32>>,
    /// Whether a record could not be taken over.
    refused: Cell<bool>,
}

impl<'a> Opening<'a> {
    fn new(disk: &'a dyn Disk, options: LogOptions) -> Self {
        Self { disk, options, by_checkpoint: Cell::new(true), checkpoint: Cell::new(None), refused: Cell::new(false) }
    }

    /// As the function of this name, once.
    fn open(&self, disk: &Arc<dyn Disk>, new_id: LogId, replay: &mut dyn Replay) -> Result<Opened, OpenError> {
        let (found, names) = self.find()?;
        let (strays, found) = below_the_last_gap(found);
        let Some(first) = found.first().map(|first| first.header) else {
            return self.create(Arc::clone(disk), new_id);
        };
        self.check_numbers(&strays, &found)?;
        let log_id = first.log_id;
        let segments = Arc::new(Segments { log_id, strays, found });
        let Segments { strays, found, .. } = segments.as_ref();
        // The end is found, and most of what the disk has to do there is done, while a checkpoint is read.
        let mut ending = Ending::begin(disk, self.options, &segments);
        let kept = self.read_checkpoint(found, first, &mut || ending.reach(), replay)?;
        let End { skip, active, last, tail, copying, past } = ending.end()?;
        let head = tail.head;
        let reader = Reader::new(log_id, Damages::load(Arc::clone(disk), &names));
        let mut state = Before { next_seq: (head == 1).then_some(1), previous: None, epoch: 0 };
        let begin = kept.as_ref().map_or(skip, |(begin, _)| *begin);
        if let Some((begin, checkpoint)) = kept {
            let place = checkpoint.place;
            state = Before { next_seq: Some(place.seq), previous: Some(place.previous), epoch: place.epoch };
            let before = found.iter().take(begin).skip(skip);
            before.filter_map(|old| checkpoint.segment(old.number, &old.file)).for_each(|segment| reader.add(segment));
        }
        let ended = found.get(begin..active).unwrap_or_default();
        self.replay_ended(ended, first, &mut state, &reader, replay)?;
        let (in_log, end, _) = self.replay_segment(&last, first, &mut state, replay)?;
        let Some(in_log) = in_log else {
            return Err(self.corrupt(last.number, end, "the head of the log is damaged"));
        };
        let next_seq = in_log.first_seq.max(state.next_seq.unwrap_or(1));
        let past = past.end().filter(|_| end == tail.end);
        let past = past.unwrap_or_else(|| past_end(&last, log_id, end)).map_err(|error| self.read_error(error))?;
        let cut_bytes = self.check_tail(last.number, end, next_seq, &past)?;

        // From here on the directory changes for good.
        let io = |doing: &'static str| move |source| self.io(doing, source);
        self.rewrite_ended(found, active, end)?;
        let spare = found.get(active + 1);
        let spare = spare.map(|spare| (spare.number, Arc::clone(&spare.file), spare.header.bytes));
        let copied =
            Tail { end, ..tail }.copy(disk.as_ref(), cut_bytes, spare, copying).map_err(io("copy the log's tail"))?;
        // Only now: what has passed them may have been read from the page cache, where a failed sync left it.
        let passed = strays.iter().chain(found.iter().take(skip));
        self.leave_behind(passed, &reader).map_err(io("remove a segment that is not needed"))?;
        let fresh = in_log.moved_to(copied.file);
        reader.add(Arc::clone(&fresh));
        reader.show_up_to(next_seq);
        let start = TailStart {
            log_id,
            origin: first.origin,
            epoch: self.epoch_after(state.epoch, (last.number, end))?,
            next_seq,
            offset: end,
            previous: state.previous.unwrap_or(0),
            head,
            active: fresh,
            active_bytes: copied.bytes,
            spare: copied.spare,
        };
        let log = Log::start(Arc::clone(disk), self.options, reader, start)
            .map_err(io("start the thread that makes segments"))?;
        let opened =
            Opened { log, created: false, cut_bytes, segments: last.number - head + 1, unfit_checkpoint: None };
        // The tail's old file has no name any more: with its last handle goes all that it has on the disk.
        let_go(self.options.making, (segments, last, in_log));
        Ok(opened)
    }

    fn path(&self, number: u32) -> PathBuf {
        self.disk.place().join(segment_name(number))
    }

    fn io(&self, doing: &'static str, source: io::Error) -> OpenError {
        OpenError::Io { doing, dir: self.disk.place(), source }
    }

    /// The epoch of this opening: never one that was, since fences begin with it.
    fn epoch_after(&self, before: u32, (number, offset): (u32, u32)) -> Result<u32, OpenError> {
        before.checked_add(1).ok_or_else(|| self.corrupt(number, offset, "no epoch comes after its last one"))
    }

    fn corrupt(&self, number: u32, offset: u32, what: impl Into<String>) -> OpenError {
        OpenError::Corrupt { file: self.path(number), offset, what: what.into() }
    }

    fn wrong(&self, wrong: Wrong) -> OpenError {
        match wrong {
            Wrong::Foreign { segment, why } => OpenError::Foreign { file: self.path(segment), why },
            Wrong::Newer { segment, found } => OpenError::Newer { file: self.path(segment), found },
            Wrong::Corrupt { segment, offset, what } => OpenError::Corrupt { file: self.path(segment), offset, what },
            Wrong::Missing { segment } => OpenError::Missing { file: self.path(segment) },
        }
    }

    /// Removes segments that the head has passed; what is known to be damaged is kept, as it is while the log serves.
    fn leave_behind<'f>(&self, mut passed: impl Iterator<Item = &'f Found>, reader: &Reader) -> io::Result<()> {
        passed.try_for_each(|old| {
            let set_aside = reader.damages().set_aside(old.number);
            set_aside.unwrap_or_else(|| self.disk.remove(&segment_name(old.number)))
        })
    }

    /// Writes the segment before the active one again, if nothing follows its end yet: that end may be what a failed sync
    /// has left in the page cache alone.
    fn rewrite_ended(&self, found: &[Found], active: usize, end: u32) -> Result<(), OpenError> {
        let ended = active.checked_sub(1).filter(|_| end == HEADER_END).and_then(|before| found.get(before));
        let rewritten = ended.map_or(Ok(()), |ended| tail::rewrite_ended(ended.file.as_ref()));
        rewritten.map_err(|source| self.io("write a segment again", source))
    }

    fn read_error(&self, error: ReadError) -> OpenError {
        match error {
            ReadError::Io { source, .. } => self.io("read a segment", source),
            ReadError::Damaged { segment, offset, .. } => self.corrupt(segment, offset, error.to_string()),
            ReadError::Gone { .. } => self.corrupt(0, 0, error.to_string()),
        }
    }

    /// All segments that are there, ascending, with headers that hold, and the names of all files; what a maker left half-made
    /// is removed.
    fn find(&self) -> Result<(Vec<Found>, Vec<String>), OpenError> {
        let (found, names) = self.list()?;
        for name in names.iter().filter(|name| verdict::name(name) == Name::HalfMade) {
            self.disk.remove(name).map_err(|source| self.io("remove a half-made segment", source))?;
        }
        Ok((found, names))
    }

    fn list(&self) -> Result<(Vec<Found>, Vec<String>), OpenError> {
        let names = self.disk.list().map_err(|source| self.io("list the segments", source))?;
        let mut found = Vec::new();
        let numbers = names.iter().filter_map(|name| match verdict::name(name) {
            Name::Segment(number) => Some(number),
            Name::HalfMade | Name::Other => None,
        });
        for number in numbers {
            let file = self.disk.open(&segment_name(number)).map_err(|source| self.io("open a segment", source))?;
            let mut bytes = [0; SEGMENT_HEADER_BYTES];
            let read = file.read_at(0, &mut bytes).map_err(|source| self.io("read a segment", source))?;
            let header = SegmentHeader::decode(bytes.get(..read).unwrap_or_default());
            let header = verdict::header(number, header).map_err(|wrong| self.wrong(wrong))?;
            found.push(Found { number, file, header });
        }
        found.sort_by_key(|segment| segment.number);
        Ok((found, names))
    }

    /// Makes the log's first segment.
    fn create(&self, disk: Arc<dyn Disk>, log_id: LogId) -> Result<Opened, OpenError> {
        let io = |source| self.io("make the log's first segment", source);
        let header = SegmentHeader { log_id, segment: 1, head: 1, bytes: self.options.segment_bytes, origin: [0; 16] };
        let file =
            spare::make(self.disk, &Order { header, write: false }, None, &AtomicBool::new(false)).map_err(io)?;
        let active = Segment::new(1, file, 1);
        let reader = Reader::new(log_id, Damages::load(Arc::clone(&disk), &[]));
        reader.add(Arc::clone(&active));
        reader.show_up_to(1);
        let start = TailStart {
            log_id,
            origin: [0; 16],
            epoch: 1,
            next_seq: 1,
            offset: HEADER_END,
            previous: 0,
            head: 1,
            active,
            active_bytes: self.options.segment_bytes,
            spare: None,
        };
        let log = Log::start(disk, self.options, reader, start).map_err(io)?;
        Ok(Opened { log, created: true, cut_bytes: 0, segments: 1, unfit_checkpoint: None })
    }

    /// One log, without a gap.
    fn check_numbers(&self, strays: &[Found], found: &[Found]) -> Result<(), OpenError> {
        let log_id = found.first().map(|segment| segment.header.log_id);
        if let Some(stray) = strays.iter().find(|stray| Some(stray.header.log_id) != log_id) {
            return Err(OpenError::Foreign { file: self.path(stray.number), why: "it belongs to another log" });
        }
        let segments: Vec<_> = found.iter().map(|segment| (segment.number, segment.header.log_id)).collect();
        verdict::one_log(&segments).map_err(|wrong| self.wrong(wrong))
    }

    /// Gives the newest checkpoint that is of use to `replay`; returns it with the place in `found` of the first segment that
    /// is not in it. Which segments count may be known only after it was read: nothing is set aside, and none is of use, before.
    fn read_checkpoint(
        &self,
        found: &[Found],
        log: SegmentHeader,
        reach: &mut dyn FnMut() -> Result<RangeInclusive<usize>, OpenError>,
        replay: &mut dyn Replay,
    ) -> Result<Option<(usize, checkpoint::Found)>, OpenError> {
        let takes = self.by_checkpoint.get() && replay.takes_checkpoints();
        let candidates = takes.then(|| checkpoint::candidates(self.disk, Sort::Table, log.log_id));
        for (number, candidate) in candidates.into_iter().flatten() {
            let Some(mut candidate) = candidate else {
                reach()?;
                checkpoint::set_aside(self.disk, Sort::Table, number);
                continue;
            };
            let at = found.iter().position(|segment| segment.number == number);
            let Some((at, first)) = at.and_then(|at| Some((at, found.get(at)?))) else { continue };
            if !candidate.goes_on_in(&first.file) {
                continue;
            }
            replay.begin(log.names_id());
            let taken = candidate.blocks(&mut |block| replay.block(block));
            let reach = reach()?;
            if let Err(error) = taken {
                tracing::warn!(error, "a checkpoint cannot be taken over");
                checkpoint::set_aside(self.disk, Sort::Table, number);
                continue;
            }
            let mut before = found.iter().take(at).skip(*reach.start());
            let knows = |old: &Found| candidate.segments.iter().any(|known| known.number == old.number);
            if reach.contains(&at) && before.all(knows) {
                self.checkpoint.set(Some(number));
                return Ok(Some((at, candidate)));
            }
        }
        replay.begin(log.names_id());
        Ok(None)
    }

    /// Replays segments that must have been ended, in order; `reader` knows them then.
    fn replay_ended(
        &self,
        segments: &[Found],
        log: SegmentHeader,
        state: &mut Before,
        reader: &Reader,
        replay: &mut dyn Replay,
    ) -> Result<(), OpenError> {
        for segment in segments {
            let (in_log, end, ended) = self.replay_segment(segment, log, state, replay)?;
            match verdict::stop(false, ended, in_log.is_some(), state.next_seq.unwrap_or(1), Behind::Nothing) {
                Stop::GoesOn => in_log.into_iter().for_each(|in_log| reader.add(in_log)),
                Stop::Head => return Err(self.corrupt(segment.number, end, "the head of the log is damaged")),
                Stop::Middle | Stop::Witnessed | Stop::Tail => {
                    return Err(self.corrupt(segment.number, end, "a frame is damaged in the middle of the log"));
                }
            }
        }
        Ok(())
    }

    /// Replays one segment; returns it with its marks if a record of it is known, the end of its valid frames, and whether
    /// it was ended.
    fn replay_segment(
        &self,
        segment: &Found,
        log: SegmentHeader,
        state: &mut Before,
        replay: &mut dyn Replay,
    ) -> Result<(Option<Arc<Segment>>, u32, bool), OpenError> {
        let mut in_log = state.next_seq.map(|seq| Segment::new(segment.number, Arc::clone(&segment.file), seq));
        let (mut end, mut ended) = (HEADER_END, false);
        let (of, log_id) = (segment.clone(), log.log_id);
        for frame in ahead(self.options.making, "frames", AHEAD, move || Frames::new(&of, log_id)).flatten() {
            let (at, frame) = frame.map_err(|error| self.read_error(error))?;
            let header = frame.header;
            verdict::follows(state, &header).map_err(|what| self.corrupt(segment.number, at, what))?;
            let marked =
                in_log.get_or_insert_with(|| Segment::new(segment.number, Arc::clone(&segment.file), header.first_seq));
            if header.kind == FrameKind::Data {
                marked.mark(header.first_seq, at);
            }
            for record in frame.records() {
                let position = record.position(segment.number, at);
                let taken = replay.record(log.names_id(), position, record);
                let what = |what| format!("record {}: {what}", record.seq);
                taken.map_err(|error| {
                    self.refused.set(true);
                    self.corrupt(segment.number, position.offset, what(error))
                })?;
            }
            state.next_seq = Some(header.first_seq + u64::from(header.records));
            state.previous = Some(frame.digest);
            state.epoch = header.epoch;
            (end, ended) = (at + header.bytes, header.kind == FrameKind::End);
        }
        // To its end, so that the thread is gone, and holds the segment's file no more.
        Ok((in_log, end, ended))
    }
}
