//! Writing a log anew from what was seen of another one: the same records under the same seqs at the same places.
//!
//! Frames get the new log's id and are chained anew. What is lost is filled with records of a kind that says so, so that
//! what follows keeps its place and its seq. Nothing is durable before [`Rewriter::finish`] has returned.

use std::io;
use std::sync::Arc;

use super::disk::{Disk, DiskFile};
use super::frame::{self, FRAME_ALIGN, FRAME_HEADER_BYTES, FrameHeader, FrameKind, RECORD_HEADER_BYTES, SegmentHeader};
use super::{LogId, RecordKind, segment_name};
use crate::limits::FRAME_BYTES_MAX;
use crate::types::Seq;

/// A record to be written.
pub(super) struct Record<'a> {
    pub(super) kind: RecordKind,
    pub(super) joined: bool,
    pub(super) body: &'a [u8],
}

/// The segment that is being written.
struct Open {
    number: u32,
    file: Arc<dyn DiskFile>,
    offset: u32,
    bytes: u64,
    ended: bool,
}

/// Writes segments, one after the other.
pub(super) struct Rewriter<'a> {
    disk: &'a dyn Disk,
    log_id: LogId,
    origin: LogId,
    head: u32,
    /// What stands where a record was lost.
    lost: RecordKind,
    open: Option<Open>,
    previous: u32,
    epoch: u32,
    next_seq: Seq,
}

impl<'a> Rewriter<'a> {
    pub(super) fn new(disk: &'a dyn Disk, log_id: LogId, origin: LogId, head: u32, lost: RecordKind) -> Self {
        Self { disk, log_id, origin, head, lost, open: None, previous: 0, epoch: 0, next_seq: 0 }
    }

    fn header(&self, number: u32, bytes: u64) -> SegmentHeader {
        SegmentHeader { log_id: self.log_id, segment: number, head: self.head, bytes, origin: self.origin }
    }

    /// Begins a segment whose first record has the seq `first_seq`. What is missing before it, records and segments, is put
    /// where it was.
    pub(super) fn begin_with(&mut self, number: u32, bytes: u64, first_seq: Seq) -> io::Result<()> {
        if self.open.is_none() {
            // The log begins with the first segment of which there is anything.
            self.head = self.head.max(number);
        }
        if let Some((open, size)) = self.segment() {
            let mut at = open;
            loop {
                if let Some(offset) = self.open.as_ref().filter(|open| !open.ended).map(|open| open.offset) {
                    self.fill(offset, first_seq)?;
                }
                at += 1;
                if at >= number {
                    break;
                }
                self.begin(at, size)?;
            }
        }
        self.begin(number, bytes)
    }

    /// Begins a segment; ends the one before if that was not done.
    fn begin(&mut self, number: u32, bytes: u64) -> io::Result<()> {
        self.close(true)?;
        let file = self.disk.create(&segment_name(number))?;
        file.allocate(bytes)?;
        file.write_at(0, &self.header(number, bytes).encode())?;
        self.open = Some(Open { number, file, offset: super::reader::HEADER_END, bytes, ended: false });
        Ok(())
    }

    fn close(&mut self, end: bool) -> io::Result<()> {
        if end && self.open.as_ref().is_some_and(|open| !open.ended) {
            self.put_frame(FrameKind::End, self.next_seq, &[])?;
        }
        match self.open.take() {
            Some(open) => open.file.sync_data(),
            None => Ok(()),
        }
    }

    /// Writes a frame, if it can be at the place `at`; what is missing before it is filled.
    pub(super) fn put(&mut self, at: u32, header: &FrameHeader, records: &[Record<'_>]) -> io::Result<()> {
        if self.next_seq == 0 {
            self.next_seq = header.first_seq;
        }
        self.fill(at, header.first_seq)?;
        self.epoch = self.epoch.max(header.epoch);
        self.put_frame(header.kind, header.durable_up_to, records)
    }

    /// Skips so many epochs, so that fences of the other log's later openings are not given again.
    pub(super) fn skip_epochs(&mut self, epochs: u32) -> io::Result<()> {
        self.epoch = self.epoch.saturating_add(epochs);
        self.next_seq = self.next_seq.max(1);
        self.put_frame(FrameKind::Seal, self.next_seq, &[])
    }

    /// One past the last record that was written.
    pub(super) fn next_seq(&self) -> Seq {
        self.next_seq
    }

    /// Whether the segment that is being written takes no more frames.
    pub(super) fn is_ended(&self) -> bool {
        self.open.as_ref().is_none_or(|open| open.ended)
    }

    /// Number and size of the segment that is being written.
    pub(super) fn segment(&self) -> Option<(u32, u64)> {
        self.open.as_ref().map(|open| (open.number, open.bytes))
    }

    /// Syncs all of it. When it returns, the log is on stable storage, but for its directory's own name.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.close(false)?;
        self.disk.sync_dir()
    }

    /// Fills the place of what was lost, so that the next frame comes to lie at `at`, with the seq `first_seq`.
    fn fill(&mut self, at: u32, first_seq: Seq) -> io::Result<()> {
        loop {
            let gap = self.open.as_ref().map_or(0, |open| at.saturating_sub(open.offset)) as usize;
            let missing = usize::try_from(first_seq.saturating_sub(self.next_seq)).unwrap_or(usize::MAX);
            if missing == 0 {
                if gap < FRAME_HEADER_BYTES {
                    return Ok(());
                }
                self.put_frame(FrameKind::Seal, self.next_seq, &[])?;
                continue;
            }
            // As many in one frame as it takes; the last one is as long as the place.
            let most = (FRAME_BYTES_MAX - FRAME_HEADER_BYTES) / RECORD_HEADER_BYTES;
            let count = missing.min(most);
            let used = FRAME_HEADER_BYTES + count * RECORD_HEADER_BYTES;
            let rest = if count == missing { gap.min(FRAME_BYTES_MAX).saturating_sub(used) } else { 0 };
            let body = vec![0; rest];
            let records: Vec<_> = (1..=count)
                .map(|n| Record { kind: self.lost, joined: false, body: if n == count { &body } else { &[] } })
                .collect();
            self.put_frame(FrameKind::Data, self.next_seq, &records)?;
        }
    }

    fn put_frame(&mut self, kind: FrameKind, durable_up_to: Seq, records: &[Record<'_>]) -> io::Result<()> {
        let Some(open) = &mut self.open else { return Err(io::Error::other("a frame outside of a segment")) };
        let mut bytes = vec![0; FRAME_HEADER_BYTES];
        let mut crcs = Vec::new();
        for (record, seq) in records.iter().zip(self.next_seq..) {
            let flags = if record.joined { frame::FLAG_JOINED } else { 0 };
            let head = [record.kind.kind, record.kind.version, flags];
            frame::put_record(&mut bytes, &mut crcs, seq, head, |out| out.extend_from_slice(record.body));
        }
        bytes.resize(bytes.len().next_multiple_of(FRAME_ALIGN), 0);
        let whole = open.offset as usize + bytes.len();
        let (Ok(length), Ok(end)) = (u32::try_from(bytes.len()), u32::try_from(whole)) else {
            return Err(io::Error::other("a segment is larger than 4 GiB"));
        };
        let room = if kind == FrameKind::End { 0 } else { FRAME_HEADER_BYTES as u64 };
        if whole as u64 + room > open.bytes.max(super::reader::HEADER_END.into()) {
            return Err(io::Error::other(format!(
                "what was lost in segment {} takes more room than it has",
                open.number
            )));
        }
        let count = u32::try_from(records.len()).unwrap_or(u32::MAX);
        let header = FrameHeader {
            bytes: length,
            records: count,
            log_id: self.log_id,
            segment: open.number,
            epoch: self.epoch,
            first_seq: self.next_seq,
            durable_up_to: durable_up_to.min(self.next_seq),
            previous: self.previous,
            head: self.head,
            kind,
        };
        self.previous = header.encode_into(&mut bytes, &crcs);
        open.file.write_at(u64::from(open.offset), &bytes)?;
        open.offset = end;
        open.ended = kind == FrameKind::End;
        self.next_seq += u64::from(count);
        Ok(())
    }
}
