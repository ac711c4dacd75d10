//! The frames of a segment that is replayed: read and checked by a thread while those before them are taken over.

use bytes::Bytes;

use super::super::LogId;
use super::super::frame::{
    FRAME_HEADER_BYTES, Frame, FrameHeader, FrameKind, RECORD_HEADER_BYTES, RecordRef, claimed_body, split_record,
};
use super::super::reader::{FrameStream, HEADER_END, ReadError};
use super::Found;

/// Bytes of frames that are given at once, at least, if there are more.
const AT_ONCE_BYTES: u32 = 128 << 10;
/// How often so many are given before the first of them are taken over, at most.
pub(super) const AHEAD: usize = 16;
/// And some are being read, and some taken over.
const BUFFERS: usize = AHEAD + 3;

/// The whole frames of a segment, some at a time, each with where it lies: up to its end frame, the first place that holds
/// none, or one that cannot be read.
pub(super) struct Frames {
    stream: FrameStream,
    over: bool,
}

impl Frames {
    pub(super) fn new(segment: &Found, log_id: LogId) -> Self {
        let stream = FrameStream::new(segment.number, &segment.file, log_id, HEADER_END);
        Self { stream: stream.in_turns(BUFFERS), over: false }
    }

    fn next_frame(&mut self) -> Result<Option<(u32, WholeFrame)>, ReadError> {
        let next = self.stream.next_any()?;
        Ok(next.and_then(|(at, bytes, _)| Some((at, WholeFrame::check(bytes)?))))
    }
}

impl Iterator for Frames {
    type Item = Vec<Result<(u32, WholeFrame), ReadError>>;

    fn next(&mut self) -> Option<Self::Item> {
        let (mut some, from) = (Vec::new(), self.stream.offset);
        while !self.over && self.stream.offset - from < AT_ONCE_BYTES {
            let next = self.next_frame().transpose();
            self.over = !matches!(&next, Some(Ok((_, frame))) if frame.header.kind != FrameKind::End);
            some.extend(next);
        }
        (!some.is_empty()).then_some(some)
    }
}

/// A frame whose header and records all hold, with its bytes.
pub(super) struct WholeFrame {
    pub(super) header: FrameHeader,
    /// Its checksum.
    pub(super) digest: u32,
    bytes: Bytes,
}

impl WholeFrame {
    /// Checks all of the frame that lies at the start of `bytes`.
    pub(super) fn check(bytes: Bytes) -> Option<Self> {
        let Frame { header, digest, .. } = Frame::decode(&bytes).filter(Frame::is_whole)?;
        Some(Self { header, digest, bytes })
    }

    /// Its records in order, without checking them again.
    pub(super) fn records(&self) -> impl Iterator<Item = RecordRef<'_>> {
        let mut at = FRAME_HEADER_BYTES;
        (0..u64::from(self.header.records)).zip(self.header.first_seq..).map_while(move |(_, seq)| {
            let rest = self.bytes.get(at..)?;
            let (whole, offset) = (rest.get(..RECORD_HEADER_BYTES + claimed_body(rest)?)?, at);
            at += whole.len();
            split_record(seq, u32::try_from(offset).ok()?, whole)
        })
    }
}
