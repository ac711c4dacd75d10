//! Bytes of segment headers, frames and records: encoding, and decoding that trusts nothing.
//!
//! Pure. A decoder never allocates by a length that it has not checked against the bytes that are there.

use super::{FORMAT, LogId, Position};
use crate::types::Seq;

/// Bytes of a segment's header.
pub const SEGMENT_HEADER_BYTES: usize = 64;
/// Bytes of a frame's header.
pub const FRAME_HEADER_BYTES: usize = 72;
/// Bytes of a record's header.
pub const RECORD_HEADER_BYTES: usize = 12;
/// Frames start at multiples of this.
pub const FRAME_ALIGN: usize = 8;

const SEGMENT_MAGIC: [u8; 8] = *b"BIOTOPE\xF8";
/// First bytes of a frame.
pub const FRAME_MAGIC: [u8; 4] = [0xF8, b'B', b'T', b'F'];
const _: () =
    assert!(SEGMENT_HEADER_BYTES.is_multiple_of(FRAME_ALIGN) && FRAME_HEADER_BYTES.is_multiple_of(FRAME_ALIGN));

/// No log comes this far: what bears such numbers is none of ours, and counting on from one has no way to overflow.
const SEQ_END: Seq = 1 << 62;
/// Likewise for epochs and segments.
const NUMBER_END: u32 = 1 << 31;

/// Flag of a record: of one group with the record before it.
pub const FLAG_JOINED: u8 = 1;

/// A little-endian number out of `bytes`; `None` past the end.
fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn id_at(bytes: &[u8], at: usize) -> Option<LogId> {
    bytes.get(at..at + 16)?.try_into().ok()
}

/// A segment's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Whose segment.
    pub log_id: LogId,
    /// Its number.
    pub segment: u32,
    /// The head when the segment was made.
    pub head: u32,
    /// Its size.
    pub bytes: u64,
    /// The log that this one was restored or salvaged from, and whose ids it goes on with; zero: none.
    pub origin: LogId,
}

/// Why the first bytes of a file are no header of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadSegmentHeader {
    /// The magic is not ours.
    Foreign,
    /// Ours, of a format that this program does not know.
    Newer {
        /// The format found.
        found: u16,
    },
    /// Ours, and damaged.
    Damaged,
}

impl SegmentHeader {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        bytes.extend_from_slice(&SEGMENT_MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&[0; 2 + 4]);
        bytes.extend_from_slice(&self.log_id);
        bytes.extend_from_slice(&self.segment.to_le_bytes());
        bytes.extend_from_slice(&self.head.to_le_bytes());
        bytes.extend_from_slice(&self.bytes.to_le_bytes());
        bytes.extend_from_slice(&self.origin);
        let mut header = [0; SEGMENT_HEADER_BYTES];
        for (to, from) in header.iter_mut().zip(bytes) {
            *to = from;
        }
        let crc = segment_crc(&header);
        for (to, from) in header.iter_mut().skip(12).zip(crc.to_le_bytes()) {
            *to = from;
        }
        header
    }

    /// Reads a header.
    ///
    /// # Errors
    /// What is wrong with it. The format is looked at before the checksum, so that a newer one is named as such.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadSegmentHeader> {
        let damaged = BadSegmentHeader::Damaged;
        if bytes.get(..8) != Some(SEGMENT_MAGIC.as_slice()) {
            return Err(BadSegmentHeader::Foreign);
        }
        let format: [u8; 2] = bytes.get(8..10).and_then(|two| two.try_into().ok()).ok_or(damaged)?;
        let found = u16::from_le_bytes(format);
        if found > FORMAT {
            return Err(BadSegmentHeader::Newer { found });
        }
        let bytes = bytes.get(..SEGMENT_HEADER_BYTES).ok_or(damaged)?;
        if u32_at(bytes, 12) != Some(segment_crc(bytes)) || found == 0 {
            return Err(damaged);
        }
        Ok(Self {
            log_id: id_at(bytes, 16).ok_or(damaged)?,
            segment: u32_at(bytes, 32).filter(|segment| *segment < NUMBER_END).ok_or(damaged)?,
            head: u32_at(bytes, 36).ok_or(damaged)?,
            bytes: u64_at(bytes, 40).ok_or(damaged)?,
            origin: id_at(bytes, 48).ok_or(damaged)?,
        })
    }

    /// The id that ids of jobs and digests of calls are made by: those that were given out before a restore stay good.
    pub fn names_id(&self) -> LogId {
        if self.origin == [0; 16] { self.log_id } else { self.origin }
    }
}

fn segment_crc(header: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(header.get(..12).unwrap_or_default());
    crc.update(header.get(16..).unwrap_or_default());
    crc.finalize()
}

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// Holds records.
    Data = 1,
    /// A witness that the frame before it was durable.
    Seal = 2,
    /// The last frame of its segment.
    End = 3,
}

/// A frame's header, without its checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes of the frame, header and padding included.
    pub bytes: u32,
    /// Number of its records.
    pub records: u32,
    /// Whose frame.
    pub log_id: LogId,
    /// In which segment.
    pub segment: u32,
    /// Written in which opening of the log.
    pub epoch: u32,
    /// Seq of its first record; of the next record, if it has none.
    pub first_seq: Seq,
    /// One past the last seq that was durable when the frame was made.
    pub durable_up_to: Seq,
    /// Checksum of the frame before.
    pub previous: u32,
    /// First segment that counts.
    pub head: u32,
    /// What it is for.
    pub kind: FrameKind,
}

impl FrameHeader {
    /// Writes the header with its checksum, which is returned; `record_crcs` are the checksums of the records, as they
    /// stand in the records' headers, one after the other.
    pub fn encode_into(&self, out: &mut [u8], record_crcs: &[u8]) -> u32 {
        let mut bytes = [0_u8; FRAME_HEADER_BYTES];
        {
            let mut at = bytes.iter_mut();
            let mut put = |part: &[u8]| {
                for (from, to) in part.iter().zip(at.by_ref()) {
                    *to = *from;
                }
            };
            // `zip` takes one element more from its first iterator only, so nothing is skipped here.
            put(&FRAME_MAGIC);
            put(&[0; 4]);
            put(&self.bytes.to_le_bytes());
            put(&self.records.to_le_bytes());
            put(&self.log_id);
            put(&self.segment.to_le_bytes());
            put(&self.epoch.to_le_bytes());
            put(&self.first_seq.to_le_bytes());
            put(&self.durable_up_to.to_le_bytes());
            put(&self.previous.to_le_bytes());
            put(&self.head.to_le_bytes());
            put(&[self.kind as u8]);
        }
        let crc = frame_crc(&bytes, record_crcs);
        for (to, from) in bytes.iter_mut().skip(4).zip(crc.to_le_bytes()) {
            *to = from;
        }
        for (to, from) in out.iter_mut().zip(bytes) {
            *to = from;
        }
        crc
    }
}

fn frame_crc(header: &[u8], record_crcs: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(header.get(8..FRAME_HEADER_BYTES).unwrap_or_default());
    crc.update(record_crcs);
    crc.finalize()
}

/// One record in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// Its seq.
    pub seq: Seq,
    /// What its body is.
    pub kind: u8,
    /// In which shape the body is written.
    pub version: u8,
    /// See [`FLAG_JOINED`].
    pub flags: u8,
    /// Offset of its header from the start of the frame.
    pub offset: u32,
    /// The body.
    pub body: &'a [u8],
}

impl RecordRef<'_> {
    /// Where it lies, in a frame at this offset of a segment.
    pub(super) fn position(&self, segment: u32, frame_at: u32) -> Position {
        let body = u32::try_from(self.body.len()).unwrap_or(u32::MAX);
        Position { segment, offset: frame_at + self.offset, body }
    }
}

/// Appends a record to a frame that is being made, and its checksum to `crcs`. Returns the offset of the record.
pub fn put_record(
    frame: &mut Vec<u8>,
    crcs: &mut Vec<u8>,
    seq: Seq,
    head: [u8; 3],
    body: impl FnOnce(&mut Vec<u8>),
) -> usize {
    let at = frame.len();
    let [kind, version, flags] = head;
    frame.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, kind, version, flags, 0]);
    body(frame);
    let body_bytes = frame.len() - at - RECORD_HEADER_BYTES;
    // The caller made room for it within FRAME_BYTES_MAX.
    let length = u32::try_from(body_bytes).expect("a frame is far below 4 GiB").to_le_bytes();
    let crc = record_crc(seq, frame.get(at + 8..).unwrap_or_default()).to_le_bytes();
    if let Some((to_length, rest)) = frame.get_mut(at..).and_then(<[u8]>::split_first_chunk_mut::<4>) {
        *to_length = length;
        if let Some(to_crc) = rest.first_chunk_mut::<4>() {
            *to_crc = crc;
        }
    }
    crcs.extend_from_slice(&crc);
    at
}

/// Checksum of a record: over its seq, the last four bytes of its header, and its body.
fn record_crc(seq: Seq, from_kind: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&seq.to_le_bytes());
    crc.update(from_kind);
    crc.finalize()
}

/// Reads the record at the start of `bytes`, which may be longer than the record.
/// `None` if it is cut, or its checksum does not hold for `seq`.
pub fn decode_record(seq: Seq, offset: u32, bytes: &[u8]) -> Option<RecordRef<'_>> {
    let crc = u32_at(bytes, 4)?;
    let whole = bytes.get(..RECORD_HEADER_BYTES.checked_add(claimed_body(bytes)?)?)?;
    if record_crc(seq, whole.get(8..)?) != crc {
        return None;
    }
    split_record(seq, offset, whole)
}

/// Takes the bytes of a record apart, and trusts them.
pub(super) fn split_record(seq: Seq, offset: u32, whole: &[u8]) -> Option<RecordRef<'_>> {
    let [kind, version, flags, 0] = whole.get(8..RECORD_HEADER_BYTES)? else { return None };
    Some(RecordRef {
        seq,
        kind: *kind,
        version: *version,
        flags: *flags,
        offset,
        body: whole.get(RECORD_HEADER_BYTES..)?,
    })
}

/// A frame whose header, and the checksums of whose records, hold; the bodies are checked as they are read.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Its header.
    pub header: FrameHeader,
    /// Its checksum: the digest that the next frame names.
    pub digest: u32,
    bytes: &'a [u8],
}

/// The length that the frame at the start of `bytes` claims, if it begins like one; not trusted beyond its range.
pub fn claimed_bytes(bytes: &[u8]) -> Option<usize> {
    if bytes.get(..4)? != FRAME_MAGIC {
        return None;
    }
    let length = u32_at(bytes, 8)? as usize;
    (FRAME_HEADER_BYTES..=crate::limits::FRAME_BYTES_MAX + FRAME_HEADER_BYTES).contains(&length).then_some(length)
}

/// The length of body that the record at the start of `bytes` claims; not trusted.
pub fn claimed_body(bytes: &[u8]) -> Option<usize> {
    u32_at(bytes, 0).map(|length| length as usize)
}

impl<'a> Frame<'a> {
    /// Whether `bytes` begin like a frame of this segment, whole or not.
    pub fn begins_one_of(bytes: &[u8], log_id: &LogId, segment: u32) -> bool {
        claimed_bytes(bytes).is_some()
            && id_at(bytes, 16).as_ref() == Some(log_id)
            && u32_at(bytes, 32) == Some(segment)
    }

    /// Reads the frame at the start of `bytes`, which may be longer than the frame. `None` if anything about its header,
    /// or about the order of its records' lengths and checksums, does not hold.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let length = claimed_bytes(bytes)?;
        let bytes = bytes.get(..length)?;
        let crc = u32_at(bytes, 4)?;
        let kind = match bytes.get(64..FRAME_HEADER_BYTES)? {
            [1, 0, 0, 0, 0, 0, 0, 0] => FrameKind::Data,
            [2, 0, 0, 0, 0, 0, 0, 0] => FrameKind::Seal,
            [3, 0, 0, 0, 0, 0, 0, 0] => FrameKind::End,
            _ => return None,
        };
        let header = FrameHeader {
            bytes: u32_at(bytes, 8)?,
            records: u32_at(bytes, 12)?,
            log_id: id_at(bytes, 16)?,
            segment: u32_at(bytes, 32)?,
            epoch: u32_at(bytes, 36)?,
            first_seq: u64_at(bytes, 40)?,
            durable_up_to: u64_at(bytes, 48)?,
            previous: u32_at(bytes, 56)?,
            head: u32_at(bytes, 60)?,
            kind,
        };
        if header.first_seq >= SEQ_END || header.epoch >= NUMBER_END {
            return None;
        }
        let mut whole = crc32fast::Hasher::new();
        whole.update(bytes.get(8..FRAME_HEADER_BYTES)?);
        let mut at = FRAME_HEADER_BYTES;
        for _ in 0..header.records {
            let body = u32_at(bytes, at)? as usize;
            whole.update(bytes.get(at + 4..at + 8)?);
            at = at.checked_add(RECORD_HEADER_BYTES)?.checked_add(body)?;
            if at > length {
                return None;
            }
        }
        let padding = bytes.get(at..)?;
        if length != at.next_multiple_of(FRAME_ALIGN)
            || padding.iter().any(|byte| *byte != 0)
            || whole.finalize() != crc
        {
            return None;
        }
        Some(Self { header, digest: crc, bytes })
    }

    /// Its records in order, each `None` if its body does not hold.
    pub fn records(&self) -> impl Iterator<Item = Option<RecordRef<'a>>> + use<'a> {
        let bytes = self.bytes;
        let mut at = FRAME_HEADER_BYTES;
        (0..u64::from(self.header.records)).zip(self.header.first_seq..).map(move |(_, seq)| {
            let offset = u32::try_from(at).ok()?;
            let rest = bytes.get(at..)?;
            at += RECORD_HEADER_BYTES + u32_at(rest, 0)? as usize;
            decode_record(seq, offset, rest)
        })
    }

    /// Whether the header and every record hold.
    pub fn is_whole(&self) -> bool {
        self.records().all(|record| record.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every bit, or for Miri, which takes a while for each, some at each place within a byte.
    const STEP: usize = if cfg!(miri) { 7 } else { 1 };

    fn sample() -> Vec<u8> {
        let mut frame = vec![0; FRAME_HEADER_BYTES];
        let mut crcs = Vec::new();
        put_record(&mut frame, &mut crcs, 7, [1, 1, 0], |out| out.extend_from_slice(b"first"));
        put_record(&mut frame, &mut crcs, 8, [2, 1, FLAG_JOINED], |out| out.extend_from_slice(b"second one"));
        frame.resize(frame.len().next_multiple_of(FRAME_ALIGN), 0);
        let header = FrameHeader {
            bytes: u32::try_from(frame.len()).unwrap(),
            records: 2,
            log_id: *b"0123456789abcdef",
            segment: 3,
            epoch: 2,
            first_seq: 7,
            durable_up_to: 7,
            previous: 99,
            head: 1,
            kind: FrameKind::Data,
        };
        header.encode_into(&mut frame, &crcs);
        frame
    }

    #[test]
    fn a_frame_reads_back_as_it_was_written() {
        let bytes = sample();
        let frame = Frame::decode(&bytes).unwrap();
        assert_eq!((frame.header.segment, frame.header.epoch, frame.header.head), (3, 2, 1));
        let records: Vec<_> = frame.records().map(Option::unwrap).collect();
        assert_eq!(records[0].body, b"first");
        assert_eq!((records[1].seq, records[1].flags, records[1].body), (8, FLAG_JOINED, b"second one".as_slice()));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = sample();
        for bit in (0..good.len() * 8).step_by(STEP) {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(!Frame::decode(&bad).is_some_and(|frame| frame.is_whole()), "bit {bit}");
        }
    }

    /// A frame of epoch 4,294,967,295 with checksums that hold made opening panic when it counted on.
    #[test]
    fn numbers_that_no_log_reaches_are_no_frame() {
        let header = Frame::decode(&sample()).unwrap().header;
        let bent = |bend: fn(&mut FrameHeader)| {
            let mut header = FrameHeader { bytes: 72, records: 0, ..header };
            bend(&mut header);
            let mut bytes = [0; FRAME_HEADER_BYTES];
            header.encode_into(&mut bytes, &[]);
            Frame::decode(&bytes).is_some()
        };
        assert!(bent(|_| {}) && bent(|header| header.epoch = NUMBER_END - 1));
        assert!(!bent(|header| header.epoch = u32::MAX) && !bent(|header| header.first_seq = Seq::MAX));
        let segment = SegmentHeader { log_id: [5; 16], segment: u32::MAX, head: 2, bytes: 1 << 26, origin: [0; 16] };
        assert_eq!(SegmentHeader::decode(&segment.encode()), Err(BadSegmentHeader::Damaged));
    }

    #[test]
    fn every_cut_is_noticed() {
        let good = sample();
        for length in 0..good.len() {
            assert!(Frame::decode(&good[..length]).is_none(), "length {length}");
        }
    }

    #[test]
    fn a_record_does_not_hold_under_another_seq() {
        let bytes = sample();
        let at = FRAME_HEADER_BYTES;
        assert!(decode_record(7, 0, &bytes[at..]).is_some());
        assert!(decode_record(8, 0, &bytes[at..]).is_none());
    }

    #[test]
    fn a_segment_header_tells_foreign_newer_and_damaged_apart() {
        let header = SegmentHeader { log_id: [5; 16], segment: 9, head: 2, bytes: 1 << 26, origin: [6; 16] };
        let good = header.encode();
        assert_eq!(SegmentHeader::decode(&good), Ok(header));
        for bit in (0..good.len() * 8).step_by(STEP) {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&bad).is_err(), "bit {bit}");
        }
        let mut newer = good;
        newer[8] = 2;
        assert_eq!(SegmentHeader::decode(&newer), Err(BadSegmentHeader::Newer { found: 2 }));
        assert_eq!(SegmentHeader::decode(b"something else"), Err(BadSegmentHeader::Foreign));
    }
}
