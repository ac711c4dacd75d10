//! Reading ended segments again, from the head on, to find damage before somebody needs what is there.
//!
//! Checks what an opening would: every checksum, every frame's place in the chain, and that each segment has its end.
//! Holds one segment at a time, so that the head may pass the others meanwhile. What it finds is noted by the [`Reader`].

use std::collections::VecDeque;
use std::sync::Arc;

use super::Reader;
use super::frame::{Frame, FrameKind};
use super::reader::{FrameStream, HEADER_END, ReadError, Segment};
use crate::types::Seq;

/// One pass over what is ended when it begins.
pub struct Scrub {
    reader: Reader,
    segments: VecDeque<u32>,
    current: Option<Current>,
    /// Checksum of the last frame of the segment before, and that segment.
    before: Option<(u32, u32)>,
    /// Whether all that was tried could be read, damaged or not.
    complete: bool,
}

struct Current {
    frames: FrameStream,
    number: u32,
    next: Seq,
    previous: Option<u32>,
    /// Keeps the file from being written over.
    _segment: Arc<Segment>,
}

impl Scrub {
    /// A pass.
    pub fn new(reader: &Reader) -> Self {
        let mut segments: VecDeque<u32> = reader.segments().iter().map(|segment| segment.number).collect();
        // The last one is being written.
        segments.pop_back();
        Self { reader: reader.clone(), segments, current: None, before: None, complete: true }
    }

    /// Reads and checks one more frame; says how many bytes that was, and nothing once all is read.
    pub fn step(&mut self) -> Option<u64> {
        let mut current = self.current.take().or_else(|| self.begin_next())?;
        match self.check_one(&mut current) {
            Ok((bytes, ended)) => {
                if ended {
                    self.before = current.previous.map(|digest| (current.number, digest));
                } else {
                    self.current = Some(current);
                }
                Some(bytes)
            }
            Err(error) => {
                if let ReadError::Io { .. } = &error {
                    tracing::warn!(%error, "a segment could not be read to check it; the next pass tries again");
                    self.complete = false;
                }
                self.reader.notice(&error);
                self.before = None;
                Some(0)
            }
        }
    }

    /// Whether nothing was left out since it could not be read.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    fn begin_next(&mut self) -> Option<Current> {
        loop {
            let number = self.segments.pop_front()?;
            // Others have left the log since the pass began.
            let Some(segment) = self.reader.segment(number) else { continue };
            let frames = FrameStream::new(number, &segment.file, self.reader.log_id(), HEADER_END);
            let previous = self.before.filter(|(before, _)| before + 1 == number).map(|(_, digest)| digest);
            return Some(Current { frames, number, next: segment.first_seq, previous, _segment: segment });
        }
    }

    fn check_one(&self, current: &mut Current) -> Result<(u64, bool), ReadError> {
        let Current { number, next, .. } = *current;
        let damaged = |offset| ReadError::Damaged { segment: number, offset, seq: next };
        let Some((at, bytes, header)) = current.frames.next_any()? else {
            return Err(damaged(current.frames.offset));
        };
        let frame = Frame::decode(&bytes).filter(|frame| frame.records().all(|record| record.is_some()));
        let follows = header.first_seq == next && current.previous.is_none_or(|previous| previous == header.previous);
        let Some(frame) = frame.filter(|_| follows) else { return Err(damaged(at)) };
        current.next += u64::from(header.records);
        current.previous = Some(frame.digest);
        Ok((bytes.len() as u64, header.kind == FrameKind::End))
    }
}
