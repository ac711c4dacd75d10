//! Reading records one by one where they lie close together, with one disk read for many of them. For one thread.

use bytes::Bytes;

use super::Position;
use super::frame::{self, RECORD_HEADER_BYTES};
use super::reader::{ReadError, Reader};
use crate::types::Seq;

/// Reads records one by one where they lie close together, with one disk read for many of them. For one thread.
pub struct NearbyReader {
    reader: Reader,
    /// Bodies are parts of it: it lives as long as the last of them.
    block: Bytes,
    segment: u32,
    base: u32,
}

/// Bytes that a [`NearbyReader`] holds.
const NEARBY_BYTES: usize = 64 << 10;

impl NearbyReader {
    /// A reader with an empty block.
    pub fn new(reader: Reader) -> Self {
        Self { reader, block: Bytes::new(), segment: 0, base: 0 }
    }

    /// Body of the record `seq` at `position`.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn read(&mut self, position: Position, seq: Seq) -> Result<Bytes, ReadError> {
        self.find(position, seq)?.map_or_else(|| self.reader.read(position, seq), Ok)
    }

    /// As [`NearbyReader::read`], for a place that a later record names.
    ///
    /// # Errors
    /// As [`Reader::read_if_kept`].
    pub fn read_if_kept(&mut self, position: Position, seq: Seq) -> Result<Bytes, ReadError> {
        self.find(position, seq)?.map_or_else(|| self.reader.read_if_kept(position, seq), Ok)
    }

    /// The record's body, unless it is too large for the block, or does not hold.
    fn find(&mut self, position: Position, seq: Seq) -> Result<Option<Bytes>, ReadError> {
        let length = RECORD_HEADER_BYTES + position.body as usize;
        if length > NEARBY_BYTES / 4 {
            return Ok(None);
        }
        if let Some(body) = self.in_block(position, length, seq) {
            return Ok(Some(body));
        }
        let segment = self.reader.segment(position.segment).ok_or(ReadError::Gone { seq })?;
        let mut block = vec![0; NEARBY_BYTES];
        let read = segment
            .file
            .read_at(u64::from(position.offset), &mut block)
            .map_err(|source| ReadError::Io { segment: position.segment, source })?;
        block.truncate(read);
        self.block = block.into();
        (self.segment, self.base) = (position.segment, position.offset);
        Ok(self.in_block(position, length, seq))
    }

    /// A block may have been read before its last bytes were written: then the checksum does not hold, and it is read again.
    fn in_block(&self, position: Position, length: usize, seq: Seq) -> Option<Bytes> {
        if position.segment != self.segment {
            return None;
        }
        let at = position.offset.checked_sub(self.base)? as usize;
        let bytes = self.block.get(at..at + length)?;
        frame::decode_record(seq, position.offset, bytes).map(|record| self.block.slice_ref(record.body))
    }
}
