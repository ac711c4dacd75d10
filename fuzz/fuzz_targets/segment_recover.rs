//! Any bytes as the files of a log: opening them gives records or a reason, the same twice, allocates nothing by a length
//! that it has not checked, and what it leaves opens again to the same.
//!
//! An input is a script of segments. Some of it is taken as it is; some is put into frames whose checksums hold, so that
//! what stands behind the checksums is reached, too: order, digests, heads, and the bodies of records.
#![no_main]

mod bounded;
mod engines;

use std::sync::Arc;

use biotope::engine::stepped::Stepped;
use biotope::log::disk::Disk;
use biotope::log::frame::{
    FLAG_JOINED, FRAME_ALIGN, FRAME_HEADER_BYTES, FrameHeader, FrameKind, SEGMENT_HEADER_BYTES, SegmentHeader,
    put_record,
};
use biotope::log::{StoredRecord, recovery};
use biotope::simulate::disk::{Loss, SimDisk};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;

use engines::{LOG_ID, OPTIONS, around, spec};

/// Bytes of all files, so that a header that asks for much finds no space.
const SPACE: usize = 64 << 10;

fuzz_target!(|data: &[u8]| {
    let disk = SimDisk::new(0);
    // A script that ends early is a shorter one.
    let _: Result<()> = Script { u: Unstructured::new(data), seq: 1, epoch: 1, previous: 0 }.write(&disk);
    disk.set_space(Some(disk.used() + SPACE));
    let copy = || disk.after(Loss::Process);
    let (first, second) = (copy(), copy());
    let opened = open(&first);
    assert_eq!(opened, open(&second), "another answer the second time");
    assert_eq!(first.contents(), second.contents());
    if opened.is_ok() {
        assert_eq!(open(&first.after(Loss::Process)), opened, "what an opening left opens to something else");
    }
    if let Ok((mut engine, _)) = Stepped::open(spec(), around(copy())) {
        assert_eq!(engine.turn(), Ok(false));
    }
});

/// What opening gives: every record, or why not.
fn open(disk: &SimDisk) -> std::result::Result<Vec<(u64, u8, u8, Vec<u8>)>, String> {
    let mut records = Vec::new();
    recovery::open(Arc::new(disk.clone()), OPTIONS, LOG_ID, &mut |_, record: StoredRecord| {
        records.push((record.seq, record.kind, record.version, record.body.to_vec()));
        Ok(())
    })
    .map(|_| records)
    .map_err(|error| error.to_string())
}

/// Makes files of an input. Values follow one another as those of a good log do, but where the input bends them.
struct Script<'a> {
    u: Unstructured<'a>,
    seq: u64,
    epoch: u32,
    previous: u32,
}

impl Script<'_> {
    fn write(&mut self, disk: &SimDisk) -> Result<()> {
        for number in 1..=self.u.int_in_range(1..=3)? {
            let name = if self.u.ratio(1, 16)? { number + self.u.arbitrary::<u32>()? % 4 } else { number };
            let mut bytes = self.header(number)?;
            let ended = self.frames(number, &mut bytes);
            let file = disk.create(&format!("{name:010}.seg")).expect("a disk with room");
            let put = file.allocate(OPTIONS.segment_bytes).and_then(|()| file.write_at(0, &bytes));
            put.and_then(|()| file.sync_data()).and_then(|()| disk.sync_dir()).expect("a disk with room");
            ended?;
        }
        Ok(())
    }

    fn header(&mut self, number: u32) -> Result<Vec<u8>> {
        let bytes = OPTIONS.segment_bytes;
        let mut header = SegmentHeader { log_id: LOG_ID, segment: number, head: 1, bytes, origin: [0; 16] };
        match self.u.int_in_range(0..=19)? {
            0 => header.segment = self.u.arbitrary()?,
            1 => header.head = self.u.int_in_range(0..=4)?,
            2 => header.bytes = self.u.arbitrary()?,
            3 => header.log_id = self.u.arbitrary()?,
            4 => header.origin = self.u.arbitrary()?,
            5 => return self.u.arbitrary::<[u8; SEGMENT_HEADER_BYTES]>().map(|raw| raw.to_vec()),
            _ => {}
        }
        Ok(header.encode().to_vec())
    }

    /// Frames, one after the other, until the segment is full or the input says so.
    fn frames(&mut self, number: u32, bytes: &mut Vec<u8>) -> Result<()> {
        while self.u.arbitrary::<u8>()? & 7 != 0 {
            match self.u.int_in_range(0..=15)? {
                0 => {
                    let raw = self.u.int_in_range(0..=300)?;
                    bytes.extend_from_slice(self.u.bytes(raw)?);
                }
                1 => bytes.resize(bytes.len() + FRAME_ALIGN, 0),
                _ => {
                    let frame = self.frame(number)?;
                    bytes.extend_from_slice(&frame);
                }
            }
            if bytes.len() + 1024 > usize::try_from(OPTIONS.segment_bytes).expect("small") {
                break;
            }
        }
        Ok(())
    }

    fn frame(&mut self, number: u32) -> Result<Vec<u8>> {
        let kind = match self.u.int_in_range(0..=9)? {
            0 => FrameKind::End,
            1 => FrameKind::Seal,
            _ => FrameKind::Data,
        };
        let records = if kind == FrameKind::Data { self.u.int_in_range(1..=4)? } else { 0 };
        let mut header = FrameHeader {
            bytes: 0,
            records,
            log_id: LOG_ID,
            segment: number,
            epoch: self.epoch,
            first_seq: self.seq,
            durable_up_to: self.seq,
            previous: self.previous,
            head: 1,
            kind,
        };
        match self.u.int_in_range(0..=39)? {
            0 => header.segment = self.u.int_in_range(0..=4)?,
            1 => header.epoch = self.u.arbitrary()?,
            2 => header.first_seq = self.u.arbitrary()?,
            3 => header.durable_up_to = self.u.arbitrary()?,
            4 => header.previous = self.u.arbitrary()?,
            5 => header.head = self.u.int_in_range(0..=4)?,
            6 => header.records = self.u.arbitrary()?,
            7 => header.log_id = self.u.arbitrary()?,
            8 => self.epoch = self.epoch.wrapping_add(1),
            _ => {}
        }
        let (mut frame, mut crcs) = (vec![0; FRAME_HEADER_BYTES], Vec::new());
        for number in 0..u64::from(records) {
            let seq = header.first_seq.wrapping_add(number);
            let kind = self.u.int_in_range(1..=23)?;
            let flags = if self.u.ratio(1, 8)? { FLAG_JOINED } else { 0 };
            let length = usize::from(self.u.arbitrary::<u8>()?);
            let body = self.u.bytes(length.min(self.u.len()))?;
            put_record(&mut frame, &mut crcs, seq, [kind, 1, flags], |out| out.extend_from_slice(body));
        }
        frame.resize(frame.len().next_multiple_of(FRAME_ALIGN), 0);
        header.bytes = u32::try_from(frame.len()).expect("small");
        self.previous = header.encode_into(&mut frame, &crcs);
        self.epoch = header.epoch;
        self.seq = header.first_seq.saturating_add(u64::from(records));
        Ok(frame)
    }
}
