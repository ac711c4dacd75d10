//! All records in order, from some place on, as far as the log was shown when the scan began.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Position;
use super::reader::{FrameStream, ReadError, Reader, Segment, StoredRecord, records};
use crate::types::Seq;

impl Reader {
    /// All records from `from` on, or from the first one that is there, up to what may be shown now. Their segments stay on
    /// disk as long as the scan has them before it.
    pub fn scan(&self, from: Seq) -> Scan {
        // First how far it goes, then the segments: they hold at least that.
        let (reader, up_to) = (self.clone(), self.visible_up_to());
        let segments = self.segments();
        Scan { reader, segments, frames: None, pending: VecDeque::new(), from: 0, next: None, up_to }.starting_at(from)
    }
}

/// Records in order of their seq, without a gap: where one cannot be read, that is the last word.
pub struct Scan {
    reader: Reader,
    /// Those that follow.
    segments: VecDeque<Arc<Segment>>,
    frames: Option<FrameStream>,
    pending: VecDeque<StoredRecord>,
    from: Seq,
    /// The seq that must come next; `None` before the first segment.
    next: Option<Seq>,
    up_to: Seq,
}

impl Scan {
    /// The same, from a later record on. For a scan of which nothing was taken yet.
    #[must_use]
    pub fn starting_at(mut self, from: Seq) -> Self {
        let first = self.segments.partition_point(|segment| segment.first_seq <= from).saturating_sub(1);
        self.segments.drain(..first);
        self.from = from;
        self
    }

    /// The frames of the next segment.
    fn next_segment(&mut self) -> Option<FrameStream> {
        let next = self.segments.pop_front()?;
        self.next.get_or_insert(next.first_seq.max(self.from));
        Some(FrameStream::new(next.number, &next.file, self.reader.log_id(), next.offset_before(self.from)))
    }

    /// What is missing between the records that were given and the one with `seq`, which lies there.
    fn gap(&mut self, segment: u32, offset: u32, seq: Seq) -> Option<ReadError> {
        let missing = self.next.filter(|next| *next < seq)?;
        self.end();
        Some(ReadError::Damaged { segment, offset, seq: missing })
    }

    /// Nothing more is given.
    fn end(&mut self) {
        self.frames = None;
        self.pending.clear();
        self.segments.clear();
    }
}

impl Iterator for Scan {
    type Item = Result<StoredRecord, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.read_next()?;
        Some(next.map_err(|error| self.reader.noticed(error)))
    }
}

impl Scan {
    fn read_next(&mut self) -> Option<Result<StoredRecord, ReadError>> {
        loop {
            if self.next.is_some_and(|next| next >= self.up_to) {
                // The frame that follows may be half written: what it looks like says nothing.
                self.end();
                return None;
            }
            if let Some(record) = self.pending.pop_front() {
                if record.seq < self.from {
                    continue;
                }
                let Position { segment, offset, .. } = record.position;
                if let Some(error) = self.gap(segment, offset, record.seq) {
                    return Some(Err(error));
                }
                self.next = Some(record.seq + 1);
                return Some(Ok(record));
            }
            let Some(frames) = &mut self.frames else {
                self.frames = Some(self.next_segment()?);
                continue;
            };
            let segment = frames.segment;
            match frames.next_frame() {
                Ok(Some((offset, bytes))) => {
                    for record in records(segment, offset, &bytes) {
                        match record {
                            Ok(record) => self.pending.push_back(record),
                            Err(error) => {
                                self.end();
                                return Some(Err(error));
                            }
                        }
                    }
                }
                Ok(None) => {
                    let (offset, next) =
                        (frames.offset, self.segments.front().map_or(self.up_to, |next| next.first_seq));
                    self.frames = None;
                    if let Some(error) = self.gap(segment, offset, next.min(self.up_to)) {
                        return Some(Err(error));
                    }
                }
                Err(error) => {
                    self.end();
                    return Some(Err(error));
                }
            }
        }
    }
}
