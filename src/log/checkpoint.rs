//! Checkpoints: the state that the log's records give, up to a segment's beginning, so that an opening need not read them.
//!
//! Derived, and expendable: an opening that finds none, or a bad one, reads the log instead. There are two sorts: of the
//! table, which knows the segments before it and where their frames lie; and of the index of chosen names, which is larger
//! and not needed before the engine serves. What the blocks mean is their writer's. A checkpoint is written beside the
//! commits: temporary file, sync, rename, sync of the directory; the newest two of a sort are kept. When
//! [`Writer::finish`] returns, it is durable.
//!
//! ```text
//! file      header 80 │ segments │ block │ block │ … │ trailer 16              data_dir/log/0000000042.ckpt or .names
//!   header  0 magic "BIOTCKPT" or "BIOTNAME" │ 8 format u16 │ 10 zero u16 │ 12 crc u32 over 0..12 and 16..80 │ 16 log id [16]
//!           │ 32 segment u32: the first that is not in it │ 36 head u32 │ 40 first seq of that segment u64
//!           │ 48 crc of the frame before it u32 │ 52 epoch u32 │ 56 zero [24]
//!   segments  of the table's: how many u32, for each: number u32 │ first seq u64 │ marks u32, for each: seq u64 │ offset u32
//!   block   bytes u32 │ bytes
//!   trailer zero u32 (no block) │ crc u32 over everything before the trailer │ length of everything before it u64
//! ```

use std::io;
use std::sync::Arc;

use super::disk::{Disk, DiskFile};
use super::reader::{FrameStream, Reader, Segment, SegmentMarks};
use super::{FORMAT, LogId};
use crate::types::Seq;

const HEADER_BYTES: usize = 80;
const TRAILER_BYTES: usize = 16;
/// Checkpoints of a sort that are kept.
const KEPT: usize = 2;
/// Bytes that are read or written at once.
const PART_BYTES: usize = 256 << 10;
/// Longest block: what its writer makes is far shorter, and nothing longer is believed.
const BLOCK_BYTES_MAX: usize = 16 << 20;

/// Of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// The table: everything but chosen names.
    Table,
    /// The index of chosen names.
    Names,
}

impl Sort {
    fn magic(self) -> [u8; 8] {
        match self {
            Self::Table => *b"BIOTCKPT",
            Self::Names => *b"BIOTNAME",
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Table => ".ckpt",
            Self::Names => ".names",
        }
    }

    /// Name of a checkpoint's file.
    fn name_of(self, segment: u32) -> String {
        format!("{segment:010}{}", self.suffix())
    }

    /// Segment number in a checkpoint's name.
    fn number_in(self, name: &str) -> Option<u32> {
        let digits = name.strip_suffix(self.suffix())?;
        (digits.len() == 10).then(|| digits.parse().ok()).flatten()
    }
}

/// Where in the log a checkpoint stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Whose.
    pub log_id: LogId,
    /// The first segment that is not in it.
    pub segment: u32,
    /// First segment that counted.
    pub head: u32,
    /// Seq of the first record that is not in it.
    pub seq: Seq,
    /// Checksum of the frame before that record's.
    pub previous: u32,
    /// Opening of the log in which it was made.
    pub epoch: u32,
}

/// What a checkpoint is begun with, taken from the log at the beginning of a segment.
pub struct Beginning {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) place: Place,
    pub(super) segments: Vec<SegmentMarks>,
}

fn encode_header(sort: Sort, place: &Place) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    bytes.extend_from_slice(&sort.magic());
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&[0; 6]);
    bytes.extend_from_slice(&place.log_id);
    bytes.extend_from_slice(&place.segment.to_le_bytes());
    bytes.extend_from_slice(&place.head.to_le_bytes());
    bytes.extend_from_slice(&place.seq.to_le_bytes());
    bytes.extend_from_slice(&place.previous.to_le_bytes());
    bytes.extend_from_slice(&place.epoch.to_le_bytes());
    bytes.resize(HEADER_BYTES, 0);
    let crc = header_crc(&bytes);
    bytes.splice(12..16, crc.to_le_bytes());
    bytes
}

fn header_crc(header: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(header.get(..12).unwrap_or_default());
    crc.update(header.get(16..HEADER_BYTES).unwrap_or_default());
    crc.finalize()
}

/// A checkpoint that is being written; dropped before its end it leaves nothing behind.
pub struct Writer {
    disk: Arc<dyn Disk>,
    file: Arc<dyn DiskFile>,
    sort: Sort,
    segment: u32,
    temporary: String,
    buffer: Vec<u8>,
    written: u64,
    crc: crc32fast::Hasher,
    /// Whether it has its own name.
    named: bool,
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.named {
            // On a full disk above all, what is of no use gives its space back; where that fails, the next opening does it.
            drop(self.disk.remove(&self.temporary));
        }
    }
}

impl Writer {
    /// Begins a file of its own.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn begin(sort: Sort, from: &Beginning) -> io::Result<Self> {
        let temporary = format!("{}.tmp", sort.name_of(from.place.segment));
        let file = from.disk.create(&temporary)?;
        let (disk, crc) = (Arc::clone(&from.disk), crc32fast::Hasher::new());
        let (buffer, segment) = (encode_header(sort, &from.place), from.place.segment);
        let mut writer = Self { disk, file, sort, segment, temporary, buffer, written: 0, crc, named: false };
        if sort == Sort::Names {
            return Ok(writer);
        }
        writer.put(&count(from.segments.len()));
        for segment in &from.segments {
            writer.put(&segment.number.to_le_bytes());
            writer.put(&segment.first_seq.to_le_bytes());
            writer.put(&count(segment.marks.len()));
            for (seq, offset) in &segment.marks {
                writer.put(&seq.to_le_bytes());
                writer.put(&offset.to_le_bytes());
            }
            writer.flush_full()?;
        }
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    fn flush_full(&mut self) -> io::Result<()> {
        if self.buffer.len() >= PART_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.crc.update(&self.buffer);
        self.file.write_at(self.written, &self.buffer)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Adds a block, which is not empty.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn block(&mut self, block: &[u8]) -> io::Result<()> {
        assert!(!block.is_empty() && block.len() <= BLOCK_BYTES_MAX, "a block has its bounds");
        self.put(&count(block.len()));
        self.put(block);
        self.flush_full()
    }

    /// Ends the checkpoint, and removes older ones of its sort. When it returns, the checkpoint is on stable storage. Says how many bytes
    /// it has.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn finish(mut self) -> io::Result<u64> {
        self.flush()?;
        let mut trailer = vec![0; 4];
        trailer.extend_from_slice(&self.crc.clone().finalize().to_le_bytes());
        trailer.extend_from_slice(&self.written.to_le_bytes());
        self.file.write_at(self.written, &trailer)?;
        self.file.sync_data()?;
        self.disk.rename(&self.temporary, &self.sort.name_of(self.segment))?;
        self.named = true;
        self.disk.sync_dir()?;
        for old in numbers(self.disk.as_ref(), self.sort)?.into_iter().skip(KEPT) {
            self.disk.remove(&self.sort.name_of(old))?;
        }
        Ok(self.written + TRAILER_BYTES as u64)
    }
}

fn count(number: usize) -> [u8; 4] {
    u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes()
}

/// Numbers of the checkpoints of a sort that are there, newest first.
fn numbers(disk: &dyn Disk, sort: Sort) -> io::Result<Vec<u32>> {
    let mut numbers: Vec<u32> = disk.list()?.iter().filter_map(|name| sort.number_in(name)).collect();
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    Ok(numbers)
}

/// A checkpoint whose header holds. Whether the rest does is known once its blocks were read.
pub(super) struct Found {
    pub(super) place: Place,
    pub(super) segments: Vec<SegmentMarks>,
    /// At the first block.
    source: Source,
    /// Checksum of all that the source gives, as the trailer has it.
    crc: u32,
}

/// Why a checkpoint is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unfit {
    /// It is damaged.
    Damaged,
    /// It is of another log, or a newer format.
    Foreign,
}

/// The checkpoints of this log that can be read, newest first, by number; each is opened when it is asked for. `None` stands for one
/// whose header does not hold, which is to be set aside.
pub(super) fn candidates<'a>(
    disk: &'a dyn Disk,
    sort: Sort,
    log_id: LogId,
) -> impl Iterator<Item = (u32, Option<Found>)> + 'a {
    // What cannot be listed or read is not used: the log has all that it has.
    numbers(disk, sort).unwrap_or_default().into_iter().filter_map(move |number| {
        let name = sort.name_of(number);
        match disk.open(&name).and_then(|file| read(&file, sort, log_id)) {
            Ok(found) => Some((number, found.ok().filter(|found| found.place.segment == number))),
            Err(error) => {
                tracing::warn!(%error, name, "a checkpoint cannot be read; the log is");
                None
            }
        }
    })
}

/// What the newest checkpoint of the names gives that is of use to a log that is open: `T` is made anew for each one that
/// is tried, and takes its blocks. Says which record comes first that is not in it.
pub fn read_names<T>(
    disk: &dyn Disk,
    reader: &Reader,
    make: impl Fn() -> T,
    take: impl Fn(&mut T, &[u8]) -> Result<(), String>,
) -> (T, Seq) {
    for (number, found) in candidates(disk, Sort::Names, reader.log_id()) {
        let Some(mut found) = found else {
            set_aside(disk, Sort::Names, number);
            continue;
        };
        let segment = reader.segment(found.place.segment);
        if segment.is_none_or(|segment| !found.goes_on_in(&segment.file)) {
            continue;
        }
        let mut made = make();
        match found.blocks(&mut |block| take(&mut made, block)) {
            Ok(()) => return (made, found.place.seq),
            Err(error) => {
                tracing::warn!(error, "a checkpoint of the names cannot be taken over");
                set_aside(disk, Sort::Names, found.place.segment);
            }
        }
    }
    (make(), reader.first_seq())
}

/// Sets a checkpoint aside that is of no use.
pub(super) fn set_aside(disk: &dyn Disk, sort: Sort, segment: u32) {
    let name = sort.name_of(segment);
    tracing::warn!(name, "a checkpoint is damaged or of another log; it is set aside, and the log is read instead");
    // Two are enough to look at: they would be as many as there are upgrades.
    let bad = format!("{}.bad", sort.suffix());
    let mut before = disk.list().unwrap_or_default();
    before.retain(|old| old.ends_with(&bad));
    before.sort_unstable();
    before.pop();
    before.iter().for_each(|old| drop(disk.remove(old)));
    // One that cannot be renamed is found bad again the next time.
    drop(disk.rename(&name, &format!("{name}.bad")).and_then(|()| disk.sync_dir()));
}

fn u32_of(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_le_bytes)
}

fn u64_of(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

/// Reads a checkpoint up to its blocks.
fn read(file: &Arc<dyn DiskFile>, sort: Sort, log_id: LogId) -> io::Result<Result<Found, Unfit>> {
    let length = file.bytes()?;
    let Some(end) = length.checked_sub(TRAILER_BYTES as u64) else { return Ok(Err(Unfit::Damaged)) };
    let mut source = Source::new(file, end);
    let Some(header) = source.take(HEADER_BYTES)?.map(<[u8]>::to_vec) else { return Ok(Err(Unfit::Damaged)) };
    let at = |from: usize, to: usize| header.get(from..to).unwrap_or_default();
    let version: [u8; 2] = at(8, 10).try_into().unwrap_or_default();
    if at(0, 8) != sort.magic() || u16::from_le_bytes(version) != FORMAT || at(16, 32) != log_id {
        return Ok(Err(Unfit::Foreign));
    }
    let mut trailer = [0; TRAILER_BYTES];
    file.read_at(end, &mut trailer)?;
    let crc = u32_of(trailer.get(4..8).unwrap_or_default());
    let is_whole = u64_of(trailer.get(8..).unwrap_or_default()) == end;
    if header_crc(&header) != u32_of(at(12, 16)) || !is_whole {
        return Ok(Err(Unfit::Damaged));
    }
    let place = Place {
        log_id,
        segment: u32_of(at(32, 36)),
        head: u32_of(at(36, 40)),
        seq: u64_of(at(40, 48)),
        previous: u32_of(at(48, 52)),
        epoch: u32_of(at(52, 56)),
    };
    let segments = match sort {
        Sort::Table => read_segments(&mut source)?,
        Sort::Names => Some(Vec::new()),
    };
    let Some(segments) = segments else { return Ok(Err(Unfit::Damaged)) };
    Ok(Ok(Found { place, segments, source, crc }))
}

fn read_segments(source: &mut Source) -> io::Result<Option<Vec<SegmentMarks>>> {
    let Some(many) = source.number()? else { return Ok(None) };
    let mut segments = Vec::new();
    for _ in 0..many {
        let Some(head) = source.take(16)? else { return Ok(None) };
        let number = u32_of(head.get(..4).unwrap_or_default());
        let first_seq = u64_of(head.get(4..12).unwrap_or_default());
        let marks = u32_of(head.get(12..).unwrap_or_default());
        let Some(bytes) = source.take(marks as usize * 12)? else { return Ok(None) };
        let mark = |mark: &[u8]| (u64_of(mark.get(..8).unwrap_or_default()), u32_of(mark.get(8..).unwrap_or_default()));
        segments.push(SegmentMarks { number, first_seq, marks: bytes.chunks_exact(12).map(mark).collect() });
    }
    Ok(Some(segments))
}

impl Found {
    /// Gives all blocks to `take`, in order. What it was given is of use only if this returns well: whether all of it is
    /// what was written is seen at the end.
    ///
    /// # Errors
    /// What `take` says, or that a block is not there, or that the checksum does not hold.
    pub(super) fn blocks(&mut self, take: &mut dyn FnMut(&[u8]) -> Result<(), String>) -> Result<(), String> {
        let source = &mut self.source;
        while source.at() < source.end {
            let bytes = source.number().map_err(|error| error.to_string())?.unwrap_or(0) as usize;
            if bytes > BLOCK_BYTES_MAX {
                return Err("a block is longer than any".to_owned());
            }
            let block = source.take(bytes).map_err(|error| error.to_string())?.ok_or("a block is cut")?;
            take(block)?;
        }
        if source.crc.clone().finalize() != self.crc {
            return Err("its checksum does not hold".to_owned());
        }
        Ok(())
    }

    /// A segment that is in it, to be read by its marks.
    pub(super) fn segment(&self, number: u32, file: &Arc<dyn DiskFile>) -> Option<Arc<Segment>> {
        let known = self.segments.iter().find(|segment| segment.number == number)?;
        let segment = Segment::new(number, Arc::clone(file), known.first_seq);
        known.marks.iter().for_each(|(seq, offset)| segment.mark(*seq, *offset));
        Some(segment)
    }

    /// Whether the log goes on where it ends: the first frame of its segment follows.
    pub(super) fn goes_on_in(&self, file: &Arc<dyn DiskFile>) -> bool {
        let place = &self.place;
        let mut frames = FrameStream::new(place.segment, file, place.log_id, super::reader::HEADER_END);
        match frames.next_any() {
            Ok(Some((_, _, header))) => header.first_seq == place.seq && header.previous == place.previous,
            // Whether it follows cannot be seen: another checkpoint, or the log, will do.
            Ok(None) | Err(_) => false,
        }
    }
}

/// Bytes of a file, from its beginning and in order.
struct Source {
    file: Arc<dyn DiskFile>,
    /// Of what was read.
    crc: crc32fast::Hasher,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were taken.
    taken: usize,
    /// Where the buffer ends in the file.
    next: u64,
    end: u64,
}

impl Source {
    fn new(file: &Arc<dyn DiskFile>, end: u64) -> Self {
        Self { file: Arc::clone(file), crc: crc32fast::Hasher::new(), buffer: Vec::new(), taken: 0, next: 0, end }
    }

    fn at(&self) -> u64 {
        self.next - (self.buffer.len() - self.taken) as u64
    }

    /// The next bytes; `None` where there are fewer.
    fn take(&mut self, bytes: usize) -> io::Result<Option<&[u8]>> {
        if (bytes as u64) > self.end - self.at() {
            return Ok(None);
        }
        if self.buffer.len() - self.taken < bytes {
            self.buffer.drain(..self.taken);
            self.taken = 0;
            let have = self.buffer.len();
            let rest = usize::try_from(self.end - self.next).unwrap_or(usize::MAX);
            let more = (bytes - have).max(PART_BYTES).min(rest);
            self.buffer.resize(have + more, 0);
            let read = self.file.read_at(self.next, self.buffer.get_mut(have..).unwrap_or_default())?;
            self.buffer.truncate(have + read);
            self.crc.update(self.buffer.get(have..).unwrap_or_default());
            self.next += read as u64;
        }
        let taken = self.taken;
        self.taken += bytes;
        Ok(self.buffer.get(taken..taken + bytes))
    }

    fn number(&mut self) -> io::Result<Option<u32>> {
        Ok(self.take(4)?.map(u32_of))
    }
}
