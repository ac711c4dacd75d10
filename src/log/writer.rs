//! The tail of the log: records are appended to a frame in memory; a commit writes the frame, then syncs it.
//!
//! For one thread. Never blocks on making a segment unless the one made ahead is not ready. After a failed write or
//! sync every call fails: what reached the disk is then unknown, and only a new opening finds out.

mod room;

use std::sync::Arc;

use super::checkpoint::{self, Beginning};
use super::commit::{Commit, Failed};
use super::disk::Disk;
use super::frame::{
    self, FRAME_ALIGN, FRAME_HEADER_BYTES, Frame, FrameHeader, FrameKind, RECORD_HEADER_BYTES, SegmentHeader,
};
use super::reader::{Reader, Segment};
use super::spare::{Order, SpareMaker};
use super::told::{LogFigures, Poisoned, RecordKind};
use super::{LogId, LogOptions, Position, segment_name};
use crate::types::Seq;

/// Room that is kept in every segment for its end frame and one seal frame before it.
const SEGMENT_RESERVE: usize = 2 * FRAME_HEADER_BYTES;

/// What a new tail begins with.
pub(super) struct TailStart {
    pub(super) log_id: LogId,
    pub(super) origin: LogId,
    pub(super) epoch: u32,
    pub(super) next_seq: Seq,
    pub(super) offset: u32,
    pub(super) previous: u32,
    pub(super) head: u32,
    pub(super) active: Arc<Segment>,
    pub(super) active_bytes: u64,
    /// The segment after the active one, if it is there and ready.
    pub(super) spare: Option<Arc<dyn super::disk::DiskFile>>,
}

/// The log, open for appending.
pub struct Log {
    disk: Arc<dyn Disk>,
    options: LogOptions,
    log_id: LogId,
    origin: LogId,
    epoch: u32,
    reader: Reader,
    maker: SpareMaker,
    /// A spare that was there at opening.
    spare: Option<Arc<dyn super::disk::DiskFile>>,
    active: Arc<Segment>,
    active_bytes: u64,
    /// Where the next frame goes in the active segment.
    offset: u32,
    /// The frame that is being filled: room for its header, then records.
    frame: Vec<u8>,
    crcs: Vec<u8>,
    records: u32,
    next_seq: Seq,
    written_up_to: Seq,
    durable_up_to: Seq,
    previous: u32,
    head: u32,
    /// The head as the last written and the last synced frame name it.
    head_written: u32,
    head_durable: u32,
    /// Segments that the head has passed.
    retired: Vec<Arc<Segment>>,
    /// What a commit that is carried out elsewhere will have made durable: seq and head.
    under_way: Option<(Seq, u32)>,
    /// The buffer of the frame before.
    spare_frame: Vec<u8>,
    commits: u64,
    written_bytes: u64,
    sealed: bool,
    poisoned: Option<Poisoned>,
}

impl Log {
    pub(super) fn start(
        disk: Arc<dyn Disk>,
        options: LogOptions,
        reader: Reader,
        start: TailStart,
    ) -> std::io::Result<Self> {
        let maker = SpareMaker::start(Arc::clone(&disk), options.making)?;
        let mut log = Self {
            disk,
            options,
            log_id: start.log_id,
            origin: start.origin,
            epoch: start.epoch,
            reader,
            maker,
            spare: start.spare,
            active: start.active,
            active_bytes: start.active_bytes,
            offset: start.offset,
            frame: vec![0; FRAME_HEADER_BYTES],
            crcs: Vec::new(),
            records: 0,
            next_seq: start.next_seq,
            written_up_to: start.next_seq,
            durable_up_to: start.next_seq,
            previous: start.previous,
            head: start.head,
            head_written: start.head,
            head_durable: start.head,
            retired: Vec::new(),
            under_way: None,
            spare_frame: Vec::new(),
            commits: 0,
            written_bytes: 0,
            sealed: true,
            poisoned: None,
        };
        if log.spare.is_none() {
            log.order_next();
        }
        Ok(log)
    }

    fn order_next(&mut self) {
        let header = SegmentHeader { segment: self.active.number + 1, head: self.head_durable, ..self.header() };
        self.maker.order(Order { header, write: true });
    }

    /// The header of the active segment, as it would be made now.
    fn header(&self) -> SegmentHeader {
        let (log_id, origin, bytes) = (self.log_id, self.origin, self.options.segment_bytes);
        SegmentHeader { log_id, segment: self.active.number, head: self.head, bytes, origin }
    }

    /// The log's identity.
    pub fn log_id(&self) -> LogId {
        self.log_id
    }

    /// The id that ids of jobs and digests of calls are made by: that of the log this one was restored from, if it was.
    pub fn names_id(&self) -> LogId {
        self.header().names_id()
    }

    /// The number of this opening.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// For reading what was written.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// Seq of the next record.
    pub fn next_seq(&self) -> Seq {
        self.next_seq
    }

    /// One past the last seq on stable storage.
    pub fn durable_up_to(&self) -> Seq {
        self.durable_up_to
    }

    /// Bytes of the frame in memory.
    pub fn frame_bytes(&self) -> usize {
        self.frame.len()
    }

    /// Whether records wait for [`Log::write`].
    pub fn has_unwritten(&self) -> bool {
        self.records > 0
    }

    /// Whether the frame is filled: time to commit.
    pub fn is_full(&self) -> bool {
        self.frame.len() >= self.options.frame_bytes_full
    }

    /// The sizes that it was opened with.
    pub fn options(&self) -> LogOptions {
        self.options
    }

    /// Adds a record to the frame: in memory only. The caller has asked [`Log::has_room`].
    pub fn append(&mut self, kind: RecordKind, joined: bool, body: impl FnOnce(&mut Vec<u8>)) -> (Seq, Position) {
        let seq = self.next_seq;
        let flags = if joined { frame::FLAG_JOINED } else { 0 };
        let at = frame::put_record(&mut self.frame, &mut self.crcs, seq, [kind.kind, kind.version, flags], body);
        let body = self.frame.len() - at - RECORD_HEADER_BYTES;
        self.next_seq += 1;
        self.records += 1;
        self.sealed = false;
        let at = u32::try_from(at).expect("a frame is at most 4 MiB");
        let body = u32::try_from(body).expect("a frame is at most 4 MiB");
        (seq, Position { segment: self.active.number, offset: self.offset + at, body })
    }

    /// Writes the frame. When it returns, the operating system has it: it outlives this process, not the machine.
    ///
    /// # Errors
    /// The write failed, now or before.
    pub fn write(&mut self) -> Result<(), Poisoned> {
        self.check()?;
        if self.records == 0 {
            return Ok(());
        }
        self.active.mark(self.next_seq - u64::from(self.records), self.offset);
        self.commits += 1;
        self.put_frame(FrameKind::Data)
    }

    /// Gives the frame to be carried out elsewhere; the next one can be filled. Nothing else is written before
    /// [`Log::end_commit`].
    ///
    /// # Errors
    /// The log is poisoned.
    pub fn begin_commit(&mut self) -> Result<Commit, Poisoned> {
        self.check()?;
        assert!(self.records > 0 && self.under_way.is_none(), "one frame with records at a time");
        self.active.mark(self.next_seq - u64::from(self.records), self.offset);
        self.commits += 1;
        let (at, mut next) = (u64::from(self.offset), std::mem::take(&mut self.spare_frame));
        self.close_frame(FrameKind::Data);
        next.clear();
        next.resize(FRAME_HEADER_BYTES, 0);
        self.under_way = Some((self.next_seq, self.head));
        Ok(Commit { file: Arc::clone(&self.active.file), at, frame: std::mem::replace(&mut self.frame, next) })
    }

    /// Takes back what was carried out. When it returns, its records are on stable storage.
    ///
    /// # Errors
    /// It could not be carried out.
    pub fn end_commit(&mut self, commit: Commit, carried_out: Result<(), Failed>) -> Result<(), Poisoned> {
        carried_out.map_err(|(what, error)| self.poison(what, &error))?;
        let Some((seq, head)) = self.under_way.take() else { return self.check() };
        self.spare_frame = commit.frame;
        (self.written_up_to, self.durable_up_to, self.head_written, self.head_durable) = (seq, seq, head, head);
        self.release_retired();
        Ok(())
    }

    /// Syncs what was written. When it returns, every record written before is on stable storage.
    ///
    /// # Errors
    /// The sync failed, now or before: what was written since the last sync may be lost.
    pub fn sync(&mut self) -> Result<(), Poisoned> {
        self.check()?;
        if self.durable_up_to == self.written_up_to {
            return Ok(());
        }
        self.sync_file()
    }

    fn sync_file(&mut self) -> Result<(), Poisoned> {
        if let Err(error) = self.active.file.sync_data() {
            return Err(self.poison("sync", &error));
        }
        self.durable_up_to = self.written_up_to;
        self.head_durable = self.head_written;
        self.release_retired();
        Ok(())
    }

    /// Lets readers see what was written, up to now.
    pub fn show(&self) {
        self.reader.show_up_to(self.written_up_to);
    }

    /// Writes and syncs a seal, so that the last frame has a witness that it was durable. Does nothing if one stands already.
    ///
    /// # Errors
    /// As [`Log::write`] and [`Log::sync`].
    pub fn seal(&mut self) -> Result<(), Poisoned> {
        self.check()?;
        if self.sealed || self.records > 0 {
            return Ok(());
        }
        if !self.has_room(0, FRAME_HEADER_BYTES) {
            self.sealed = true;
            return Ok(());
        }
        self.sync_file()?;
        self.put_frame(FrameKind::Seal)?;
        self.sync_file()?;
        self.sealed = true;
        Ok(())
    }

    /// Ends the active segment and goes on in the next one; waits until that is ready. Everything appended before must
    /// have been written. When it returns, all of the ended segment is on stable storage.
    ///
    /// # Errors
    /// As [`Log::write`] and [`Log::sync`].
    pub fn rotate(&mut self) -> Result<(), Poisoned> {
        self.check()?;
        assert_eq!(self.records, 0, "a frame must be written before its segment ends");
        if let Err(error) = self.disk.check_place() {
            // What is written from now on would go where nobody looks for it.
            return Err(self.poison("looking after the log's directory", &error));
        }
        // The next segment is there before this one ends: an ended segment without a follower means a missing file.
        let Some(file) = self.spare.take().or_else(|| self.maker.take()) else {
            let error = std::io::Error::other("the thread that makes segments is gone");
            return Err(self.poison("making a segment", &error));
        };
        self.sync_file()?;
        self.put_frame(FrameKind::End)?;
        self.sync_file()?;
        self.active = Segment::new(self.active.number + 1, file, self.next_seq);
        self.offset = u32::try_from(frame::SEGMENT_HEADER_BYTES).expect("64");
        self.active_bytes = self.options.segment_bytes;
        self.reader.add(Arc::clone(&self.active));
        self.release_retired();
        self.order_next();
        Ok(())
    }

    /// What a checkpoint of everything before the active segment is begun with: right after [`Log::rotate`], before anything
    /// is appended.
    pub fn beginning(&self) -> Beginning {
        assert!(
            self.records == 0 && self.active.first_seq == self.next_seq,
            "a checkpoint stands at a segment's beginning"
        );
        let place = checkpoint::Place {
            log_id: self.log_id,
            segment: self.active.number,
            head: self.head,
            seq: self.next_seq,
            previous: self.previous,
            epoch: self.epoch,
        };
        Beginning { disk: Arc::clone(&self.disk), place, segments: self.reader.marks_below(self.active.number) }
    }

    /// Makes `segment` the head: nothing below it counts any more. The next frame says so, and once that is durable the
    /// files below are recycled or removed, lowest first.
    pub fn move_head(&mut self, segment: u32) {
        assert!(
            segment > self.head && segment <= self.active.number,
            "the head moves forward, up to the active segment"
        );
        self.head = segment;
    }

    /// Takes segments out of reach that the durable head has passed, and frees the files that nobody reads.
    pub fn release_retired(&mut self) {
        let first = self.reader.lowest();
        if first.is_some_and(|first| first < self.head_durable) {
            self.retired.extend(self.reader.remove_below(self.head_durable));
        }
        if self.retired.is_empty() {
            return;
        }
        // Files leave in ascending order, so that what is left is without a gap; one that is read holds up the rest.
        while let Some(segment) = self.retired.first() {
            if Arc::strong_count(segment) > 1 || Arc::strong_count(&segment.file) > 1 {
                return;
            }
            let name = segment_name(segment.number);
            // Where space is wanted, it serves who wants it, before anybody else takes what it leaves.
            let keep =
                !self.maker.keeps() && segment.file.bytes().is_ok_and(|bytes| bytes == self.options.segment_bytes);
            let name_kept = format!("{name}.tmp");
            let freed = if let Some(set_aside) = self.reader.damages().set_aside(segment.number) {
                set_aside.map(|()| None)
            } else if keep {
                self.disk.rename(&name, &name_kept).map(|()| Some(name_kept))
            } else {
                self.disk.remove(&name).map(|()| None)
            };
            // Its old name must be gone before its bytes are another segment's.
            match freed.and_then(|kept| self.disk.sync_dir().map(|()| kept)) {
                Ok(kept) => kept.into_iter().for_each(|kept| self.maker.keep(kept)),
                // It lies below the head and does no harm; the next opening removes it.
                Err(_) => {
                    tracing::warn!(segment = segment.number, "could not free a segment that is not needed any more");
                }
            }
            self.retired.remove(0);
        }
    }

    /// Whether everything can still be written.
    ///
    /// # Errors
    /// A write or sync failed before, of the log itself or of the segment that is made ahead.
    pub fn check(&mut self) -> Result<(), Poisoned> {
        if self.poisoned.is_none()
            && let Some(broken) = self.maker.broken()
        {
            let place = self.disk.place().display().to_string();
            self.poisoned = Some(Poisoned { what: "write or sync", place, error: broken.to_string() });
        }
        self.poisoned.clone().map_or(Ok(()), Err)
    }

    fn poison(&mut self, what: &'static str, error: &std::io::Error) -> Poisoned {
        let place = self.disk.place().join(segment_name(self.active.number)).display().to_string();
        let poisoned = Poisoned { what, place, error: error.to_string() };
        self.poisoned = Some(poisoned.clone());
        poisoned
    }

    /// Writes the frame in memory, or an empty one, at the tail.
    fn put_frame(&mut self, kind: FrameKind) -> Result<(), Poisoned> {
        assert!(self.under_way.is_none(), "frames are written one after the other");
        let at = u64::from(self.offset);
        self.close_frame(kind);
        if let Err(error) = self.active.file.write_at(at, &self.frame) {
            return Err(self.poison("write", &error));
        }
        self.written_up_to = self.next_seq;
        self.head_written = self.head;
        self.frame.truncate(FRAME_HEADER_BYTES);
        let most = self.options.frame_bytes_full;
        if self.frame.capacity() > 2 * most {
            self.frame.shrink_to(most);
        }
        Ok(())
    }

    /// Gives the frame in memory its header; the next one begins behind it.
    fn close_frame(&mut self, kind: FrameKind) {
        self.frame.resize(self.frame.len().next_multiple_of(FRAME_ALIGN), 0);
        let bytes = u32::try_from(self.frame.len()).expect("a frame is at most 4 MiB");
        let header = FrameHeader {
            bytes,
            records: self.records,
            log_id: self.log_id,
            segment: self.active.number,
            epoch: self.epoch,
            first_seq: self.next_seq - u64::from(self.records),
            durable_up_to: self.durable_up_to,
            previous: self.previous,
            head: self.head,
            kind,
        };
        let digest = header.encode_into(&mut self.frame, &self.crcs);
        debug_assert!(Frame::decode(&self.frame).is_some(), "what is written can be read");
        self.offset += bytes;
        self.written_bytes += u64::from(bytes);
        self.previous = digest;
        self.crcs.clear();
        self.records = 0;
    }
}
