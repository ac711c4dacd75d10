//! Reading what is in the log: one record by its position, or all of them in order, from any thread.
//!
//! Never writes. Holds a segment's file open for as long as somebody reads from it, so that it is not recycled
//! underneath. Every record is checked against its checksum and its seq before it is given out.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use bytes::{Buf, Bytes, BytesMut};

use super::damage::{Damages, Place};
use super::disk::DiskFile;
use super::frame::{self, Frame, FrameHeader, FrameKind, RECORD_HEADER_BYTES, RecordRef, SEGMENT_HEADER_BYTES};
use super::{LogId, Position};
use crate::types::Seq;

/// A mark is kept for about every so many bytes of a segment.
const MARK_BYTES: u32 = 64 << 10;
/// Bytes that a sequential reader asks for at once.
const READ_AHEAD_BYTES: usize = 256 << 10;

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The record has left the log.
    #[error("record {seq} has left the log")]
    Gone {
        /// Its seq.
        seq: Seq,
    },
    /// The bytes on disk are not those that were written.
    #[error("record {seq} in segment {segment} at offset {offset} is damaged")]
    Damaged {
        /// Number of the segment.
        segment: u32,
        /// Offset in bytes.
        offset: u32,
        /// The seq that was expected there.
        seq: Seq,
    },
    /// The operating system said no.
    #[error("reading segment {segment}")]
    Io {
        /// Number of the segment.
        segment: u32,
        /// What the operating system said.
        source: io::Error,
    },
}

/// A record as it is stored.
#[derive(Debug, Clone)]
pub struct StoredRecord {
    /// Its seq.
    pub seq: Seq,
    /// What its body is.
    pub kind: u8,
    /// In which shape the body is written.
    pub version: u8,
    /// Whether it belongs to one group with the record before it.
    pub joined: bool,
    /// Where it lies.
    pub position: Position,
    /// Its body.
    pub body: Bytes,
}

impl StoredRecord {
    /// A record that lies there; `body` is its body.
    pub(super) fn new(position: Position, record: RecordRef<'_>, body: Bytes) -> Self {
        let RecordRef { seq, kind, version, flags, .. } = record;
        Self { seq, kind, version, joined: flags & frame::FLAG_JOINED != 0, position, body }
    }
}

/// A segment that can be read.
pub(super) struct Segment {
    pub(super) number: u32,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) first_seq: Seq,
    /// First seq and offset of some frames, ascending: the way from a seq to its place. Written by the log's writer,
    /// read by scans, and by nobody on a job's way.
    marks: Mutex<Vec<(Seq, u32)>>,
}

/// What is known of a segment that need not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SegmentMarks {
    pub(super) number: u32,
    pub(super) first_seq: Seq,
    pub(super) marks: Vec<(Seq, u32)>,
}

impl Segment {
    pub(super) fn new(number: u32, file: Arc<dyn DiskFile>, first_seq: Seq) -> Arc<Self> {
        Arc::new(Self { number, file, first_seq, marks: Mutex::new(Vec::new()) })
    }

    /// The same segment in another file.
    pub(super) fn moved_to(&self, file: Arc<dyn DiskFile>) -> Arc<Self> {
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Arc::new(Self { number: self.number, file, first_seq: self.first_seq, marks: Mutex::new(marks) })
    }

    /// Notes a frame, if the last mark is far enough behind.
    pub(super) fn mark(&self, first_seq: Seq, offset: u32) {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        if marks.last().is_none_or(|(_, last)| offset - last >= MARK_BYTES) {
            marks.push((first_seq, offset));
        }
    }

    /// What is known of it, for a checkpoint.
    fn marks(&self) -> SegmentMarks {
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        SegmentMarks { number: self.number, first_seq: self.first_seq, marks }
    }

    /// Offset of the last marked frame that begins at or before `seq`.
    pub(super) fn offset_before(&self, seq: Seq) -> u32 {
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let after = marks.partition_point(|(first, _)| *first <= seq);
        after.checked_sub(1).and_then(|at| marks.get(at)).map_or(HEADER_END, |(_, offset)| *offset)
    }
}

/// Where the first frame of a segment begins.
pub(super) const HEADER_END: u32 = 64;
const _: () = assert!(HEADER_END as usize == SEGMENT_HEADER_BYTES);

struct Shared {
    log_id: LogId,
    damages: Damages,
    /// Written by the log's writer alone.
    segments: ArcSwap<BTreeMap<u32, Arc<Segment>>>,
    /// One past the last seq that may be shown; stored (release) by the writer after the sync, loaded (acquire) by scans.
    visible_up_to: AtomicU64,
}

/// Access to what is in the log. Cheap to clone.
#[derive(Clone)]
pub struct Reader(Arc<Shared>);

impl Reader {
    pub(super) fn new(log_id: LogId, damages: Damages) -> Self {
        let segments = ArcSwap::default();
        Self(Arc::new(Shared { log_id, damages, segments, visible_up_to: AtomicU64::new(0) }))
    }

    /// Notes what an error says of the disk.
    pub(super) fn notice(&self, error: &ReadError) {
        self.0.damages.notice(error);
    }

    /// `error`, once it is noted.
    pub(super) fn noticed(&self, error: ReadError) -> ReadError {
        self.notice(&error);
        error
    }

    /// The places that are known to be damaged, one for each segment: found now or by an earlier process.
    pub fn damaged(&self) -> Vec<Place> {
        self.0.damages.all()
    }

    /// How many damaged segments were set aside: files of the directory that are no part of the log any more.
    pub fn set_aside_count(&self) -> usize {
        self.0.damages.set_aside_count()
    }

    pub(super) fn damages(&self) -> &Damages {
        &self.0.damages
    }

    pub(super) fn add(&self, segment: Arc<Segment>) {
        let mut map = BTreeMap::clone(&self.0.segments.load());
        map.insert(segment.number, segment);
        self.0.segments.store(Arc::new(map));
    }

    /// Takes the segments below `head` out, ascending, and returns them; somebody may still hold one.
    pub(super) fn remove_below(&self, head: u32) -> Vec<Arc<Segment>> {
        let mut below = BTreeMap::clone(&self.0.segments.load());
        let rest = below.split_off(&head);
        self.0.segments.store(Arc::new(rest));
        below.into_values().collect()
    }

    /// The segments below `end` as they are known.
    pub(super) fn marks_below(&self, end: u32) -> Vec<SegmentMarks> {
        self.0.segments.load().values().filter(|segment| segment.number < end).map(|segment| segment.marks()).collect()
    }

    /// The segments below `number` that are still there, ascending.
    pub(super) fn segments_below(&self, number: u32) -> Vec<Arc<Segment>> {
        self.0.segments.load().range(..number).map(|(_, segment)| Arc::clone(segment)).collect()
    }

    /// All segments that are there, ascending.
    pub(super) fn segments(&self) -> VecDeque<Arc<Segment>> {
        self.0.segments.load().values().cloned().collect()
    }

    pub(super) fn lowest(&self) -> Option<u32> {
        self.0.segments.load().keys().next().copied()
    }

    pub(super) fn show_up_to(&self, seq: Seq) {
        self.0.visible_up_to.store(seq, Ordering::Release);
    }

    /// The log's identity.
    pub fn log_id(&self) -> LogId {
        self.0.log_id
    }

    /// One past the last seq that may be shown.
    pub fn visible_up_to(&self) -> Seq {
        self.0.visible_up_to.load(Ordering::Acquire)
    }

    /// Seq of the first record that is in the log.
    pub fn first_seq(&self) -> Seq {
        self.0.segments.load().values().next().map_or(1, |segment| segment.first_seq)
    }

    /// Seq of the first record of a segment, if that is in the log.
    pub fn first_seq_of(&self, number: u32) -> Option<Seq> {
        self.segment(number).map(|segment| segment.first_seq)
    }

    pub(super) fn segment(&self, number: u32) -> Option<Arc<Segment>> {
        self.0.segments.load().get(&number).cloned()
    }

    /// Body of the record `seq` at `position`.
    ///
    /// # Errors
    /// `Gone` if its segment has left the log; `Damaged`; `Io`.
    pub fn read(&self, position: Position, seq: Seq) -> Result<Bytes, ReadError> {
        self.look(position, seq).map_err(|error| self.noticed(error))
    }

    /// As [`Reader::read`], for a place that somebody else than the log names: that the record is not there is no damage.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn look(&self, position: Position, seq: Seq) -> Result<Bytes, ReadError> {
        let segment = self.segment(position.segment).ok_or(ReadError::Gone { seq })?;
        let mut bytes = vec![0; RECORD_HEADER_BYTES + position.body as usize];
        let read = segment
            .file
            .read_at(u64::from(position.offset), &mut bytes)
            .map_err(|source| ReadError::Io { segment: position.segment, source })?;
        if read < bytes.len() || frame::decode_record(seq, position.offset, &bytes).is_none() {
            return Err(ReadError::Damaged { segment: position.segment, offset: position.offset, seq });
        }
        Ok(Bytes::from(bytes).slice(RECORD_HEADER_BYTES..))
    }

    /// As [`Reader::read`], for a place that a later record names: in a salvaged log something else may lie there, and what
    /// was lost is gone.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn read_if_kept(&self, position: Position, seq: Seq) -> Result<Bytes, ReadError> {
        let found = self.look(position, seq);
        let Err(ReadError::Damaged { .. }) = &found else { return found.map_err(|error| self.noticed(error)) };
        let is_there = |record: &StoredRecord| record.seq == seq && record.position == position;
        match self.frame_with(seq) {
            Ok(records) if !records.iter().any(is_there) => Err(ReadError::Gone { seq }),
            Err(gone @ ReadError::Gone { .. }) => Err(gone),
            Ok(_) | Err(ReadError::Damaged { .. } | ReadError::Io { .. }) => found.map_err(|error| self.noticed(error)),
        }
    }

    /// Records by their seqs alone, each once, ascending; reads a frame for each, or one for those that share it.
    pub fn records_at(&self, mut seqs: Vec<Seq>) -> Vec<(Seq, Result<StoredRecord, ReadError>)> {
        seqs.sort_unstable();
        seqs.dedup();
        let mut frame: Vec<StoredRecord> = Vec::new();
        let mut found = Vec::with_capacity(seqs.len());
        for seq in seqs {
            if frame.last().is_none_or(|last| last.seq < seq) {
                match self.frame_with(seq) {
                    Ok(records) => frame = records,
                    Err(error) => {
                        found.push((seq, Err(self.noticed(error))));
                        continue;
                    }
                }
            }
            let record = frame.iter().find(|record| record.seq == seq).cloned();
            found.push((seq, record.ok_or(ReadError::Gone { seq })));
        }
        found
    }

    /// The records of the frame in which `seq` lies.
    fn frame_with(&self, seq: Seq) -> Result<Vec<StoredRecord>, ReadError> {
        let map = self.0.segments.load();
        let segment = map.values().rev().find(|segment| segment.first_seq <= seq).ok_or(ReadError::Gone { seq })?;
        let mut frames = FrameStream::new(segment.number, &segment.file, self.0.log_id, segment.offset_before(seq));
        while let Some((offset, bytes)) = frames.next_frame()? {
            let past = Frame::decode(&bytes)
                .is_some_and(|frame| frame.header.first_seq + u64::from(frame.header.records) > seq);
            if past {
                return records(segment.number, offset, &bytes).collect();
            }
        }
        Err(ReadError::Damaged { segment: segment.number, offset: frames.offset, seq })
    }

    /// The records below `before`, newest block first: at least the one right before it, if it is in the log.
    ///
    /// # Errors
    /// As for `read`.
    pub fn block_before(&self, before: Seq) -> Result<Vec<StoredRecord>, ReadError> {
        self.read_before(before).map_err(|error| self.noticed(error))
    }

    fn read_before(&self, before: Seq) -> Result<Vec<StoredRecord>, ReadError> {
        let last = before.min(self.visible_up_to()).saturating_sub(1);
        let map = self.0.segments.load();
        let Some(segment) = map.values().rev().find(|segment| segment.first_seq <= last) else {
            return Ok(Vec::new());
        };
        let from = segment.offset_before(last);
        let mut frames = FrameStream::new(segment.number, &segment.file, self.0.log_id, from);
        let mut block = Vec::new();
        while let Some((offset, bytes)) = frames.next_frame()? {
            for record in records(segment.number, offset, &bytes) {
                let record = record?;
                let seq = record.seq;
                if seq <= last {
                    block.push(record);
                }
                if seq >= last {
                    // The frame that follows may be half written: what it looks like says nothing.
                    return Ok(block);
                }
            }
        }
        Ok(block)
    }
}

/// The records of a frame that lies at `offset` of a segment.
pub(super) fn records(
    segment: u32,
    offset: u32,
    bytes: &Bytes,
) -> impl Iterator<Item = Result<StoredRecord, ReadError>> + use<> {
    let bytes = bytes.clone();
    let frame = Frame::decode(&bytes);
    let first = frame.as_ref().map_or(0, |frame| frame.header.first_seq);
    let all = frame.iter().flat_map(Frame::records).zip(first..).map(|(record, seq)| {
        let Some(record) = record else { return Err(ReadError::Damaged { segment, offset, seq }) };
        Ok(StoredRecord::new(record.position(segment, offset), record, bytes.slice_ref(record.body)))
    });
    all.collect::<Vec<_>>().into_iter()
}

/// The valid frames of one segment, one after the other, up to the first place that holds none.
pub(super) struct FrameStream {
    pub(super) segment: u32,
    log_id: LogId,
    file: Arc<dyn DiskFile>,
    /// Where the next frame should be.
    pub(super) offset: u32,
    /// Frames are cut off its front; its room is used again once they are dropped.
    buffer: BytesMut,
    /// Offset of the buffer's first byte.
    base: u32,
    /// From where on nothing had been written when that was asked first. Not asked again: what the system has read ahead
    /// counts as written.
    written_to: Option<u32>,
    /// Buffers that take turns with it, while frames of the last ones are in use.
    turns: VecDeque<BytesMut>,
}

impl FrameStream {
    pub(super) fn new(segment: u32, file: &Arc<dyn DiskFile>, log_id: LogId, offset: u32) -> Self {
        Self {
            segment,
            log_id,
            file: Arc::clone(file),
            offset,
            buffer: BytesMut::new(),
            base: offset,
            written_to: None,
            turns: VecDeque::new(),
        }
    }

    /// The same, for who still uses frames out of so many buffers when it asks for the next one.
    pub(super) fn in_turns(self, buffers: usize) -> Self {
        Self { turns: vec![BytesMut::new(); buffers].into(), ..self }
    }

    /// The next frame with data and where it lies; `None` where no valid frame of this segment begins, or after the end frame.
    pub(super) fn next_frame(&mut self) -> Result<Option<(u32, Bytes)>, ReadError> {
        while let Some((at, bytes, header)) = self.next_any()? {
            match header.kind {
                FrameKind::Data => return Ok(Some((at, bytes))),
                FrameKind::Seal => {}
                FrameKind::End => return Ok(None),
            }
        }
        Ok(None)
    }

    /// The next frame of any kind, where it lies, and its header.
    pub(super) fn next_any(&mut self) -> Result<Option<(u32, Bytes, FrameHeader)>, ReadError> {
        let Some(length) = self.ahead(frame::FRAME_HEADER_BYTES)?.and_then(frame::claimed_bytes) else {
            return Ok(None);
        };
        let (log_id, segment, at) = (self.log_id, self.segment, self.offset);
        let Some(bytes) = self.ahead(length)?.and_then(|bytes| bytes.get(..length)) else { return Ok(None) };
        let Some(frame) = Frame::decode(bytes) else { return Ok(None) };
        let header = frame.header;
        if header.log_id != log_id || header.segment != segment {
            return Ok(None);
        }
        let bytes = self.buffer.split_to(length).freeze();
        self.offset += header.bytes;
        self.base = self.offset;
        Ok(Some((at, bytes, header)))
    }

    /// Moves to the next place, from where it stands on, that begins like a frame; `false` if there is none.
    pub(super) fn seek_magic(&mut self) -> Result<bool, ReadError> {
        let written_to = self.written_to()?;
        loop {
            if self.has_ahead() == 0 && self.offset >= written_to {
                return Ok(false);
            }
            let Some(bytes) = self.ahead(frame::FRAME_ALIGN)? else { return Ok(false) };
            let places = bytes.chunks_exact(frame::FRAME_ALIGN);
            let all = places.len();
            let found = places.map(|place| place.starts_with(&frame::FRAME_MAGIC)).position(|is| is);
            let skip = found.unwrap_or(all) * frame::FRAME_ALIGN;
            self.offset += u32::try_from(skip).unwrap_or(u32::MAX);
            if found.is_some() {
                return Ok(true);
            }
        }
    }

    /// From where on nothing was written, and nothing need be read.
    fn written_to(&mut self) -> Result<u32, ReadError> {
        if let Some(known) = self.written_to {
            return Ok(known);
        }
        let known = self.file.written_to(u64::from(self.offset));
        let known = known.map_err(|source| ReadError::Io { segment: self.segment, source })?;
        Ok(*self.written_to.insert(u32::try_from(known).unwrap_or(u32::MAX)))
    }

    /// How many bytes the buffer has from the next frame's place on; it has no others any more.
    fn has_ahead(&mut self) -> usize {
        match self.offset.checked_sub(self.base) {
            Some(skip) => self.buffer.advance(self.buffer.len().min(skip as usize)),
            // A frame that was given away is looked at again.
            None => self.buffer.clear(),
        }
        self.base = self.offset;
        self.buffer.len()
    }

    /// At least `bytes` bytes from the next frame's place on; `None` where the file ends before.
    pub(super) fn ahead(&mut self, bytes: usize) -> Result<Option<&[u8]>, ReadError> {
        let have = self.has_ahead();
        if have < bytes {
            let io = |source| ReadError::Io { segment: self.segment, source };
            let next = u64::from(self.offset) + have as u64;
            let rest = usize::try_from(self.file.bytes().map_err(io)?.saturating_sub(next)).unwrap_or(usize::MAX);
            let room = have + (bytes - have).max(READ_AHEAD_BYTES).min(rest);
            if let Some(mut next) = self.turns.pop_front() {
                next.clear();
                next.reserve(room);
                next.extend_from_slice(&self.buffer);
                self.turns.push_back(std::mem::replace(&mut self.buffer, next));
            }
            self.buffer.resize(room, 0);
            let read = self.file.read_at(next, self.buffer.get_mut(have..).unwrap_or_default()).map_err(io)?;
            self.buffer.truncate(have + read);
        }
        Ok(Some(&*self.buffer).filter(|ahead| ahead.len() >= bytes))
    }
}
