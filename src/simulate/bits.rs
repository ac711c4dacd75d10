//! Single bits of a log flipped: what is damaged is noticed, and nothing else is lost.
//!
//! Every bit of every record is flipped under a reader: that record, and no other, is refused. And bits anywhere in the
//! log's frames and headers are flipped before it is opened: it is refused, or the last seal is hit, which holds no record
//! and then counts for nothing. What is served is never another job's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::disk::{Loss, SimDisk};
use super::op::{How, Op, PushOp};
use super::world::{Violation, World};
use crate::log::frame::{Frame, SEGMENT_HEADER_BYTES};
use crate::log::{LogOptions, Making, Position, Reader, StoredRecord, recovery};
use crate::types::Seq;

/// Bytes of the log whose bits are flipped, at least.
const LOG_BYTES: usize = 1 << 20;
const SEGMENT_BYTES: u64 = 64 << 10;

/// What became of the flipped bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BitCounts {
    /// Bits of the log.
    pub bits: u64,
    /// Bits of records that were flipped under a reader: all of them were noticed.
    pub read: u64,
    /// Flipped bits with which the log was not opened.
    pub refused: u64,
    /// Flipped bits with which the last seal, which holds no record, did not count.
    pub cut: u64,
}

/// A log that was made for this.
pub(super) struct FlippedLog {
    disk: SimDisk,
    options: LogOptions,
    /// Each segment's name, and where its last frame ends.
    extents: Vec<(String, usize)>,
    /// Where the last frame of the last one begins: a seal.
    seal: usize,
    /// Checksum of all records.
    records: u32,
}

/// Opens a log; gives the checksum of its records, the bytes that were cut, and a reader.
fn open(
    disk: &SimDisk,
    options: LogOptions,
    mut each: impl FnMut(Seq, Position, &[u8]),
) -> Result<(u32, u64, Reader), recovery::OpenError> {
    let mut crc = crc32fast::Hasher::new();
    let opened = recovery::open(Arc::new(disk.clone()), options, [0; 16], &mut |_, record: StoredRecord| {
        crc.update(&record.seq.to_le_bytes());
        crc.update(&[record.kind, record.version, u8::from(record.joined)]);
        crc.update(&record.body);
        each(record.seq, record.position, &record.body);
        Ok(())
    })?;
    Ok((crc.finalize(), opened.cut_bytes, opened.log.reader()))
}

impl FlippedLog {
    /// A log of many jobs in many states, in segments, stopped in good order.
    pub(super) fn make() -> Result<Self, Violation> {
        let mut world = World::small();
        world.options.segment_bytes = SEGMENT_BYTES;
        world.options.frame_bytes_full = 4 << 10;
        world.retain = 4 * LOG_BYTES as u64;
        let mut number = 0_u8;
        while world.engine.is_none() || world.disk.used() < LOG_BYTES + 2 * usize::try_from(SEGMENT_BYTES).unwrap_or(0)
        {
            number = number.wrapping_add(1);
            let job = |of: u8| PushOp { of, priority: number % 10, bytes: u16::from(number) * 3, ..PushOp::default() };
            world.step(&Op::Push(vec![job(0), job(1), job(2)]))?;
            for pick in 0..3 {
                world.step(&Op::PoolUp(pick))?;
            }
            world.step(&Op::Turn)?;
            for pick in 0..3 {
                world.step(&Op::Take(pick))?;
            }
            let how = if number.is_multiple_of(5) { How::Dead } else { How::Done { follow_ups: Vec::new() } };
            world.step(&Op::Finish(u16::from(number), how))?;
            world.step(&Op::Turn)?;
        }
        world.step(&Op::Stop)?;
        let options = LogOptions { making: Making::Stepped, ..world.options };
        let disk = world.disk.after(Loss::Process);
        // Opening it moves the tail into another file: from here on that is the log.
        let (records, _, _) = open(&disk, options, |_, _, _| {}).map_err(|error| error.to_string())?;
        let (mut extents, mut seal) = (Vec::new(), 0);
        for (name, bytes) in disk.files() {
            let mut end = SEGMENT_HEADER_BYTES;
            while let Some(frame) = Frame::decode(bytes.get(end..).unwrap_or_default()).filter(Frame::is_whole) {
                seal = end;
                end += frame.header.bytes as usize;
            }
            if end > SEGMENT_HEADER_BYTES {
                extents.push((name, end));
            }
        }
        Ok(Self { disk, options, extents, seal, records })
    }

    /// Bits of the log: of its headers and frames.
    pub(super) fn bits(&self) -> u64 {
        self.extents.iter().map(|(_, end)| *end as u64 * 8).sum()
    }

    fn place(&self, bit: u64) -> Option<(&str, usize)> {
        let mut bit = usize::try_from(bit).ok()?;
        for (name, end) in &self.extents {
            if bit < end * 8 {
                return Some((name, bit));
            }
            bit -= end * 8;
        }
        None
    }

    fn is_in_seal(&self, name: &str, bit: usize) -> bool {
        bit / 8 >= self.seal && self.extents.last().is_some_and(|(last, _)| last == name)
    }

    /// Flips every bit of every record under a reader.
    pub(super) fn flip_under_a_reader(&self, counts: &mut BitCounts) -> Result<(), Violation> {
        let disk = self.disk.after(Loss::Process);
        let mut all: Vec<(Seq, Position, Vec<u8>)> = Vec::new();
        let opened = open(&disk, self.options, |seq, position, body| all.push((seq, position, body.to_vec())));
        let (_, _, reader) = opened.map_err(|error| error.to_string())?;
        for (number, (seq, position, body)) in all.iter().enumerate() {
            let name = format!("{:010}.seg", position.segment);
            let from = position.offset as usize * 8;
            let bits = (crate::log::frame::RECORD_HEADER_BYTES + body.len()) * 8;
            for bit in from..from + bits {
                disk.rot(&name, bit);
                if reader.read(*position, *seq).is_ok() {
                    return Err(format!("record {seq} is read though bit {bit} of {name} is flipped"));
                }
                disk.rot(&name, bit);
                counts.read += 1;
            }
            // The neighbours of a damaged record are not touched by its damage.
            disk.rot(&name, from);
            for (seq, position, body) in
                number.checked_sub(1).into_iter().chain([number + 1]).filter_map(|at| all.get(at))
            {
                if !reader.read(*position, *seq).is_ok_and(|read| read == *body) {
                    return Err(format!("record {seq} is lost with a bit of another"));
                }
            }
            disk.rot(&name, from);
        }
        Ok(())
    }

    /// Flips one bit, and opens the log.
    pub(super) fn flip_and_open(&self, bit: u64, counts: &mut BitCounts) -> Result<(), Violation> {
        let Some((name, bit)) = self.place(bit) else { return Ok(()) };
        let disk = self.disk.after(Loss::Process);
        disk.rot(name, bit);
        match open(&disk, self.options, |_, _, _| {}) {
            Err(recovery::OpenError::Io { source, .. }) => {
                Err(format!("bit {bit} of {name} makes an I/O error: {source}"))
            }
            Err(_) => {
                counts.refused += 1;
                Ok(())
            }
            Ok((records, ..)) if records == self.records && self.is_in_seal(name, bit) => {
                counts.cut += 1;
                Ok(())
            }
            Ok((records, cut, _)) => Err(format!(
                "bit {bit} of {name} is not noticed: {cut} bytes were cut, records as before: {}",
                records == self.records
            )),
        }
    }
}

/// Flips bits of a log: all of them, or so many that are drawn by a seed.
///
/// # Errors
/// A flip that was not noticed, or took more with it than its record.
pub fn flip_bits(
    seed: u64,
    sample: Option<u64>,
    threads: usize,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<BitCounts, String> {
    /// Bits that one thread takes at once.
    const PORTION: u64 = 256;
    let log = FlippedLog::make()?;
    let all = log.bits();
    let mut counts = BitCounts { bits: all, ..BitCounts::default() };
    log.flip_under_a_reader(&mut counts)?;
    let (many, next) = (sample.unwrap_or(all), AtomicU64::new(0));
    let work = || {
        let mut counts = BitCounts::default();
        loop {
            let from = next.fetch_add(PORTION, Ordering::Relaxed);
            if from >= many {
                return Ok(counts);
            }
            for number in from..many.min(from + PORTION) {
                let mut random = fastrand::Rng::with_seed(seed.wrapping_add(number));
                let bit = if sample.is_some() { random.u64(..all) } else { number };
                if let Err(what) = log.flip_and_open(bit, &mut counts) {
                    next.store(many, Ordering::Relaxed);
                    return Err(what);
                }
            }
            progress(PORTION);
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            let more = thread.join().unwrap_or_else(|_| Err("a flipped bit makes a panic".to_owned()))?;
            counts.refused += more.refused;
            counts.cut += more.cut;
        }
        Ok(counts)
    })
}
