//! A backup as a stream of bytes: from a log that is being written, to whoever keeps the copy.
//!
//! What is held is not recycled, for as long as the hold lives. The sender checks every frame as it reads it; a stream
//! that breaks off has no end mark, so that nobody takes it for whole.
//!
//! ```text
//! part   0 segment u32 │ 4 bytes u32 │ 8 the segment's bytes: header, frames, end frame
//! end    0 zero u32 │ 4 zero u32
//! error  0 zero u32 │ 4 bytes u32 │ 8 what is wrong, as text: there is no whole backup
//! ```

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::disk::{Disk, DiskFile};
use super::frame::{FrameKind, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::reader::{FrameStream, HEADER_END, ReadError, Segment};
use super::segment_name;
use super::{Log, LogId};

/// Bytes of a part's own header.
const PART_HEADER_BYTES: usize = 8;
/// Longest text of an error, in bytes.
const ERROR_BYTES_MAX: usize = 4096;

/// What is sent instead of the rest when a backup cannot be whole.
pub fn broken_off(why: &str) -> Bytes {
    let text: Vec<u8> = why.bytes().take(ERROR_BYTES_MAX).collect();
    let length = u32::try_from(text.len()).unwrap_or(0).max(1);
    Bytes::from([0_u32.to_le_bytes().as_slice(), &length.to_le_bytes(), &text].concat())
}

/// Sealed segments that stay as long as this lives.
pub struct Held {
    log_id: LogId,
    segments: Vec<Arc<Segment>>,
}

impl Held {
    /// All segments of a log but the one that is written.
    pub fn sealed(log: &Log) -> Self {
        Self { log_id: log.log_id(), segments: log.reader().segments_below(log.figures().active) }
    }

    /// How many there are.
    pub fn segments(&self) -> usize {
        self.segments.len()
    }

    /// Sends all of it, checked; `send` says whether there is still somebody who takes it.
    ///
    /// # Errors
    /// `Damaged` where a frame or the end of a segment does not hold; `Io`.
    pub fn send(&self, send: &mut dyn FnMut(Bytes) -> bool) -> Result<(), ReadError> {
        for segment in &self.segments {
            let end = self.check(segment)?;
            let head = [segment.number.to_le_bytes(), end.to_le_bytes()].concat();
            if !send(Bytes::from(head)) || !self.send_segment(segment, end, send)? {
                return Ok(());
            }
        }
        send(Bytes::from_static(&[0; PART_HEADER_BYTES]));
        Ok(())
    }

    /// Where the segment's last frame ends.
    fn check(&self, segment: &Segment) -> Result<u32, ReadError> {
        let mut frames = FrameStream::new(segment.number, &segment.file, self.log_id, HEADER_END);
        while let Some((offset, bytes, header)) = frames.next_any()? {
            for record in super::reader::records(segment.number, offset, &bytes) {
                record?;
            }
            if header.kind == FrameKind::End {
                return Ok(frames.offset);
            }
        }
        Err(ReadError::Damaged { segment: segment.number, offset: frames.offset, seq: segment.first_seq })
    }

    fn send_segment(
        &self,
        segment: &Segment,
        end: u32,
        send: &mut dyn FnMut(Bytes) -> bool,
    ) -> Result<bool, ReadError> {
        const PIECE: u32 = 256 << 10;
        let mut at = 0;
        while at < end {
            let mut piece = vec![0; (end - at).min(PIECE) as usize];
            let io = |source| ReadError::Io { segment: segment.number, source };
            let read = segment.file.read_at(u64::from(at), &mut piece).map_err(io)?;
            if read < piece.len() {
                return Err(io(io::ErrorKind::UnexpectedEof.into()));
            }
            at += u32::try_from(read).unwrap_or(u32::MAX);
            if !send(Bytes::from(piece)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Writes a stream's segments into a directory, piece by piece.
pub struct Receiver<'a> {
    disk: &'a dyn Disk,
    /// Bytes of a part's header, or of a segment's, that have not all come yet.
    head: Vec<u8>,
    part: Option<Part>,
    last: Option<SegmentHeader>,
    /// Bytes of an error that come.
    error: Option<usize>,
    whole: bool,
}

struct Part {
    number: u32,
    file: Arc<dyn DiskFile>,
    at: u32,
    end: u32,
}

impl<'a> Receiver<'a> {
    /// A receiver that has nothing yet.
    pub fn new(disk: &'a dyn Disk) -> Self {
        Self { disk, head: Vec::new(), part: None, last: None, error: None, whole: false }
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// The stream is none of a backup; as the operating system says.
    pub fn take(&mut self, mut piece: &[u8]) -> io::Result<()> {
        while !piece.is_empty() {
            if self.whole {
                return Err(io::Error::other("the stream goes on behind its end"));
            }
            let wanted = match &self.part {
                None if self.error.is_some() => self.error.unwrap_or(0) - self.head.len(),
                None => PART_HEADER_BYTES - self.head.len(),
                Some(part) if part.at == 0 => SEGMENT_HEADER_BYTES - self.head.len(),
                Some(part) => (part.end - part.at) as usize,
            };
            let (now, rest) = piece.split_at(wanted.min(piece.len()));
            piece = rest;
            match &mut self.part {
                Some(part) if part.at > 0 => {
                    part.file.write_at(u64::from(part.at), now)?;
                    part.at += u32::try_from(now.len()).unwrap_or(u32::MAX);
                    if part.at == part.end {
                        part.file.sync_data()?;
                        self.part = None;
                    }
                }
                Some(_) | None => {
                    self.head.extend_from_slice(now);
                    if now.len() == wanted {
                        let head = std::mem::take(&mut self.head);
                        self.head_is(&head)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn head_is(&mut self, head: &[u8]) -> io::Result<()> {
        let bad = || io::Error::other("what comes is no backup");
        if let Some(part) = &mut self.part {
            let header = SegmentHeader::decode(head).map_err(|_| bad())?;
            if header.segment != part.number {
                return Err(bad());
            }
            part.file.allocate(header.bytes)?;
            part.file.write_at(0, head)?;
            part.at = HEADER_END;
            self.last = Some(header);
            return Ok(());
        }
        if self.error.is_some() {
            return Err(io::Error::other(String::from_utf8_lossy(head).into_owned()));
        }
        let (number, end) = head.split_at_checked(4).ok_or_else(bad)?;
        let number = u32::from_le_bytes(number.try_into().map_err(|_| bad())?);
        let end = u32::from_le_bytes(end.try_into().map_err(|_| bad())?);
        if (number, end) == (0, 0) {
            self.whole = true;
            return Ok(());
        }
        if number == 0 && (end as usize) <= ERROR_BYTES_MAX {
            self.error = Some(end as usize);
            return Ok(());
        }
        if end <= HEADER_END || number == 0 {
            return Err(bad());
        }
        self.part = Some(Part { number, file: self.disk.create(&segment_name(number))?, at: 0, end });
        Ok(())
    }

    /// Ends the copy: the segment that would be written next is made, empty. When it returns, all of it is on stable
    /// storage, but for the directory's own name.
    ///
    /// # Errors
    /// The stream broke off; as the operating system says.
    pub fn finish(self) -> io::Result<()> {
        let Some(last) = self.last.filter(|_| self.whole) else {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the backup broke off"));
        };
        let header = SegmentHeader { segment: last.segment + 1, ..last };
        let file = self.disk.create(&segment_name(header.segment))?;
        file.allocate(header.bytes)?;
        file.write_at(0, &header.encode())?;
        file.sync_data()?;
        self.disk.sync_dir()
    }
}
