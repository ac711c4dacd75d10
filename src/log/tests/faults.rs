//! The faults of one log, each with what must come of it; a test bears the number that its fault has in docs/durability.md.

use std::sync::Arc;

use super::super::disk::{Disk, DiskFile, RealDisk};
use super::super::frame::{FRAME_MAGIC, SegmentHeader};
use super::super::lock::{DirLock, LockError};
use super::super::reader::{ReadError, StoredRecord};
use super::super::{Log, OpenError, recovery, segment_name};
use super::{KIND, OPTIONS, Place, SMALL, commit};
use crate::simulate::disk::SimDisk;

/// A disk with one file of these bytes.
fn disk_of(bytes: &[u8]) -> SimDisk {
    let disk = SimDisk::new(3);
    let file = disk.create(&segment_name(1)).unwrap();
    file.write_at(0, bytes).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir().unwrap();
    disk
}

/// The bodies that an opening gives, and the bytes that it cut.
fn opened(disk: &SimDisk) -> Result<(Vec<Vec<u8>>, u64), OpenError> {
    let mut bodies = Vec::new();
    let opened = recovery::open(Arc::new(disk.clone()), SMALL, [9; 16], &mut |_, record: StoredRecord| {
        bodies.push(record.body.to_vec());
        Ok(())
    })?;
    Ok((bodies, opened.cut_bytes))
}

/// A log of five commits without a seal: its bytes, and where each commit's frame ends.
fn five_commits() -> (Vec<u8>, Vec<usize>) {
    let disk = SimDisk::new(1);
    let mut log = recovery::open(Arc::new(disk.clone()), SMALL, [1; 16], &mut |_, _| Ok(())).unwrap().log;
    for n in 0_u8..5 {
        commit(&mut log, &[&[b'a' + n; 30], &[b'A' + n; 7]]);
    }
    drop(log);
    let mut bytes = vec![0; 4096];
    disk.open(&segment_name(1)).unwrap().read_at(0, &mut bytes).unwrap();
    let mut ends = vec![64];
    while let Some(length) = super::super::frame::claimed_bytes(&bytes[*ends.last().unwrap()..]) {
        ends.push(ends.last().unwrap() + length);
    }
    (bytes, ends)
}

#[test]
fn d3_a_file_cut_at_any_byte_gives_its_whole_commits() {
    let (bytes, ends) = five_commits();
    assert_eq!(ends.len(), 6);
    for length in 64..=bytes.len() {
        // Cut off, or as long as before and zero from there on, or with the size of it and stale bytes behind.
        let (mut zeros, mut garbage) = (bytes.clone(), bytes.clone());
        zeros[length..].fill(0);
        garbage[length..].fill(0xA5);
        for (what, bad) in [("short", &bytes[..length]), ("zeros", &zeros[..]), ("garbage", &garbage[..])] {
            let whole = ends.iter().filter(|end| bad.get(..**end) == bytes.get(..**end)).count() - 1;
            let (bodies, cut) = opened(&disk_of(bad)).unwrap_or_else(|error| panic!("{what} at {length}: {error}"));
            assert_eq!(bodies.len(), 2 * whole, "{what} at {length}");
            assert!(bodies.iter().zip(0_u8..).all(|(body, n)| body.len() == if n % 2 == 0 { 30 } else { 7 }));
            let torn = what == "short" && length >= ends[whole] + 72 && whole < 5;
            assert!(!torn || cut > 0, "{what} at {length}: what was cut is told");
        }
    }
    for length in 0..64 {
        let refused = opened(&disk_of(&bytes[..length]));
        assert!(matches!(refused, Err(OpenError::Foreign { .. } | OpenError::Corrupt { .. })), "length {length}");
    }
}

#[test]
fn d4_rot_below_a_witness_is_refused_and_named_whatever_bit_it_is() {
    let (mut bytes, ends) = five_commits();
    // The frame that follows says how far the log was durable: four commits are below its word.
    let last = ends[4];
    for bit in 64 * 8..last * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        let frame = ends.iter().rposition(|end| *end <= bit / 8).unwrap();
        match opened(&disk_of(&bytes)) {
            Err(OpenError::Corrupt { offset, .. }) => assert_eq!(offset as usize, ends[frame], "bit {bit}"),
            Err(other) => panic!("bit {bit}: {other}"),
            Ok(_) => panic!("bit {bit}: opened"),
        }
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

/// A real log of three ended segments and an open one.
fn four_segments() -> Place {
    let place = Place::new();
    let mut log = place.open().unwrap().0.log;
    let body = vec![b'x'; 50 << 10];
    while log.figures().active < 4 {
        commit(&mut log, &[&body]);
    }
    commit(&mut log, &[b"the last one"]);
    log.seal().unwrap();
    place
}

/// Two segments with no whole frame, both begun: the lower one hid the other, the log opened as an empty one, and only
/// the second opening refused.
#[test]
fn d4_damage_in_every_frame_of_two_segments_is_refused_at_once() {
    let place = Place::new();
    let (opened, _) = place.open().unwrap();
    let mut log = opened.log;
    commit(&mut log, &[b"one"]);
    log.rotate().unwrap();
    commit(&mut log, &[b"two"]);
    drop(log);
    let spoil = |bytes: &mut Vec<u8>| {
        let frames: Vec<_> = (64..bytes.len()).step_by(8).filter(|at| bytes[*at..].starts_with(&FRAME_MAGIC)).collect();
        assert!(!frames.is_empty());
        for at in frames {
            bytes[at + 4] ^= 1;
        }
    };
    place.change(1, spoil);
    place.change(2, spoil);
    let Err(OpenError::Corrupt { what, .. }) = place.open() else { panic!("opened without its records") };
    assert!(what.contains("the next one was begun"), "{what}");
}

#[test]
fn d5_stale_swapped_misdirected_and_foreign_segments_are_refused() {
    let place = four_segments();
    let path = |number| place.0.path().join(segment_name(number));
    let whole: Vec<_> = (1..=4).map(|number| std::fs::read(path(number)).unwrap()).collect();
    let refused = |what: &str| {
        let Err(error) = place.open() else { panic!("{what}: opened") };
        assert!(matches!(error, OpenError::Corrupt { .. } | OpenError::Foreign { .. }), "{what}: {error}");
        for (number, bytes) in (1..).zip(&whole) {
            std::fs::write(path(number), bytes).unwrap();
        }
    };
    // Two files have changed places.
    std::fs::write(path(1), &whole[1]).unwrap();
    std::fs::write(path(2), &whole[0]).unwrap();
    refused("swapped");
    // The same with headers that fit: the frames tell.
    let (mut first, mut second) = (whole[0].clone(), whole[1].clone());
    first[..64].swap_with_slice(&mut second[..64]);
    std::fs::write(path(1), &second).unwrap();
    std::fs::write(path(2), &first).unwrap();
    refused("swapped below their headers");
    // An older state of a segment: a write that never reached it.
    let stale: Vec<u8> = whole[1][..whole[1].len() / 2].iter().copied().chain(vec![0; whole[1].len() / 2]).collect();
    std::fs::write(path(2), stale).unwrap();
    refused("stale");
    // A frame that went to another offset.
    let mut misdirected = whole[1].clone();
    let length = super::super::frame::claimed_bytes(&whole[1][64..]).unwrap();
    misdirected.copy_within(64..64 + length, 64 + length);
    std::fs::write(path(2), misdirected).unwrap();
    refused("misdirected");
    // Another log's segment of the same number.
    let header = SegmentHeader { log_id: [7; 16], ..SegmentHeader::decode(&whole[1]).unwrap() };
    std::fs::write(path(2), [header.encode().as_slice(), &whole[1][64..]].concat()).unwrap();
    refused("foreign");
    place.open().unwrap();
}

#[test]
fn d11_a_read_that_fails_at_opening_is_told_and_nothing_is_guessed() {
    let (bytes, _) = five_commits();
    let mut struck = 0;
    for nth in 0..1000 {
        let disk = disk_of(&bytes);
        let failing = Failing { disk: disk.clone(), left: Arc::new(nth.into()) };
        match recovery::open(Arc::new(failing.clone()), SMALL, [9; 16], &mut |_, _| Ok(())) {
            Ok(_) if failing.left.load(std::sync::atomic::Ordering::Relaxed) >= 0 => break,
            Ok(_) => panic!("read {nth} failed, and the log was opened"),
            Err(OpenError::Io { source, .. }) => assert_eq!(source.raw_os_error(), Some(5), "read {nth}"),
            Err(other) => panic!("read {nth}: {other}"),
        }
        struck += 1;
        assert_eq!(opened(&disk).unwrap().0.len(), 10, "after read {nth} failed, all is still there");
    }
    assert!(struck > 3, "{struck}");
}

/// A disk whose reads fail once so many were done.
#[derive(Clone)]
struct Failing {
    disk: SimDisk,
    left: Arc<std::sync::atomic::AtomicI64>,
}

impl Disk for Failing {
    fn list(&self) -> std::io::Result<Vec<String>> {
        self.disk.list()
    }
    fn create(&self, name: &str) -> std::io::Result<Arc<dyn DiskFile>> {
        self.open_with(self.disk.create(name)?)
    }
    fn open(&self, name: &str) -> std::io::Result<Arc<dyn DiskFile>> {
        self.open_with(self.disk.open(name)?)
    }
    fn rename(&self, from: &str, to: &str) -> std::io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> std::io::Result<()> {
        self.disk.remove(name)
    }
    fn sync_dir(&self) -> std::io::Result<()> {
        self.disk.sync_dir()
    }
    fn place(&self) -> std::path::PathBuf {
        self.disk.place()
    }
}

impl Failing {
    #[expect(clippy::unnecessary_wraps, reason = "as a disk's call returns it")]
    fn open_with(&self, file: Arc<dyn DiskFile>) -> std::io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(FailingFile { file, left: Arc::clone(&self.left) }))
    }
}

struct FailingFile {
    file: Arc<dyn DiskFile>,
    left: Arc<std::sync::atomic::AtomicI64>,
}

impl DiskFile for FailingFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        self.file.write_at(offset, bytes)
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.left.fetch_sub(1, std::sync::atomic::Ordering::Relaxed) <= 0 {
            return Err(std::io::Error::from_raw_os_error(5));
        }
        self.file.read_at(offset, buffer)
    }
    fn sync_data(&self) -> std::io::Result<()> {
        self.file.sync_data()
    }
    fn allocate(&self, bytes: u64) -> std::io::Result<()> {
        self.file.allocate(bytes)
    }
    fn written_to(&self, offset: u64) -> std::io::Result<u64> {
        self.file.written_to(offset)
    }
    fn bytes(&self) -> std::io::Result<u64> {
        self.file.bytes()
    }
}

#[test]
fn d13_an_opening_that_crashes_again_and_again_ends_in_the_same_bytes() {
    // A torn tail, so that opening has something to decide and to copy.
    let (mut bytes, ends) = five_commits();
    bytes[ends[4] + 80] ^= 1;
    let settled = |disk: &SimDisk| {
        let (bodies, _) = opened(disk).unwrap();
        let mut bytes = vec![0; 4096];
        let read = disk.open(&segment_name(1)).unwrap().read_at(0, &mut bytes).unwrap();
        bytes.truncate(read);
        (bodies, bytes)
    };
    let expected = settled(&disk_of(&bytes));
    // Opening copies; cut it short after every call, twice and three times over, then let it through.
    for first in 0..60 {
        for second in [0, 1, 3, 7, first] {
            let disk = disk_of(&bytes);
            for calls in [first, second, second / 2] {
                let stopping = Stopping { disk: disk.clone(), left: Arc::new(calls.into()) };
                drop(recovery::open(Arc::new(stopping), SMALL, [9; 16], &mut |_, _| Ok(())));
            }
            assert_eq!(settled(&disk), expected, "cut short after {first} and {second} calls");
        }
    }
}

/// A disk that does nothing any more once so many calls were done that change it.
#[derive(Clone)]
struct Stopping {
    disk: SimDisk,
    left: Arc<std::sync::atomic::AtomicI64>,
}

impl Stopping {
    fn pass(&self) -> std::io::Result<()> {
        if self.left.fetch_sub(1, std::sync::atomic::Ordering::Relaxed) > 0 {
            return Ok(());
        }
        Err(std::io::Error::other("the process is gone"))
    }
}

impl Disk for Stopping {
    fn list(&self) -> std::io::Result<Vec<String>> {
        self.disk.list()
    }
    fn create(&self, name: &str) -> std::io::Result<Arc<dyn DiskFile>> {
        self.pass()?;
        Ok(Arc::new(StoppingFile { file: self.disk.create(name)?, stopping: self.clone() }))
    }
    fn open(&self, name: &str) -> std::io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(StoppingFile { file: self.disk.open(name)?, stopping: self.clone() }))
    }
    fn rename(&self, from: &str, to: &str) -> std::io::Result<()> {
        self.pass().and_then(|()| self.disk.rename(from, to))
    }
    fn remove(&self, name: &str) -> std::io::Result<()> {
        self.pass().and_then(|()| self.disk.remove(name))
    }
    fn sync_dir(&self) -> std::io::Result<()> {
        self.pass().and_then(|()| self.disk.sync_dir())
    }
    fn place(&self) -> std::path::PathBuf {
        self.disk.place()
    }
}

struct StoppingFile {
    file: Arc<dyn DiskFile>,
    stopping: Stopping,
}

impl DiskFile for StoppingFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        if self.stopping.pass().is_err() {
            // Some of it was written before the end came.
            self.file.write_at(offset, &bytes[..bytes.len() / 2])?;
            return Err(std::io::Error::other("the process is gone"));
        }
        self.file.write_at(offset, bytes)
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.file.read_at(offset, buffer)
    }
    fn sync_data(&self) -> std::io::Result<()> {
        self.stopping.pass().and_then(|()| self.file.sync_data())
    }
    fn allocate(&self, bytes: u64) -> std::io::Result<()> {
        self.stopping.pass().and_then(|()| self.file.allocate(bytes))
    }
    fn written_to(&self, offset: u64) -> std::io::Result<u64> {
        self.file.written_to(offset)
    }
    fn bytes(&self) -> std::io::Result<u64> {
        self.file.bytes()
    }
}

#[test]
fn d14_a_write_that_was_cut_short_counts_as_a_whole_or_not_at_all() {
    for calls in 0..12 {
        let disk = SimDisk::new(5);
        let mut log = recovery::open(Arc::new(disk.clone()), SMALL, [1; 16], &mut |_, _| Ok(())).unwrap().log;
        commit(&mut log, &[b"before", b"it"]);
        drop(log);
        let stopping = Stopping { disk: disk.clone(), left: Arc::new(1_000_000.into()) };
        let mut log = recovery::open(Arc::new(stopping.clone()), SMALL, [1; 16], &mut |_, _| Ok(())).unwrap().log;
        stopping.left.store(calls, std::sync::atomic::Ordering::Relaxed);
        let acknowledged = two_in_one(&mut log);
        if acknowledged.is_err() {
            assert!(log.check().is_err() && log.write().is_err() && log.sync().is_err(), "poisoned for good");
        }
        drop(log);
        let (bodies, _) = opened(&disk).unwrap();
        assert!(bodies.len() == 2 || bodies.len() == 4, "{calls}: {bodies:?}");
        assert!(acknowledged.is_err() || bodies.len() == 4, "{calls}: acknowledged, and not there");
    }
}

fn two_in_one(log: &mut Log) -> Result<(), super::super::Poisoned> {
    log.append(KIND, false, |out| out.extend_from_slice(b"one"));
    log.append(KIND, true, |out| out.extend_from_slice(&[b'2'; 90]));
    log.write()?;
    log.sync()
}

#[test]
fn d15_a_data_directory_has_one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let first = DirLock::take(dir.path()).unwrap();
    assert!(matches!(DirLock::take(dir.path()), Err(LockError::Held { .. })));
    drop(first);
    DirLock::take(dir.path()).unwrap();
}

#[test]
fn d16_newer_format_is_refused_and_named() {
    let place = four_segments();
    for number in 1..=4 {
        place.change(number, |bytes| bytes[8..10].copy_from_slice(&9_u16.to_le_bytes()));
        let Err(error) = place.open() else { panic!("segment {number} of format 9 was opened") };
        assert!(matches!(error, OpenError::Newer { found: 9, .. }), "{error}");
        let said = error.to_string();
        let known = format!("up to {}", super::super::FORMAT);
        assert!(said.contains("format 9") && said.contains(&known) && said.contains(&segment_name(number)), "{said}");
        place.change(number, |bytes| bytes[8..10].copy_from_slice(&super::super::FORMAT.to_le_bytes()));
    }
    place.open().unwrap();
}

#[test]
fn d18_a_directory_that_was_removed_or_replaced_stops_the_log() {
    for replaced in [false, true] {
        let outer = tempfile::tempdir().unwrap();
        let dir = outer.path().join("log");
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(&dir).unwrap());
        let mut log = recovery::open(disk, OPTIONS, [9; 16], &mut |_, _| Ok(())).unwrap().log;
        commit(&mut log, &[b"one"]);
        assert!(log.await_spare());
        std::fs::rename(&dir, outer.path().join("elsewhere")).unwrap();
        if replaced {
            std::fs::create_dir(&dir).unwrap();
        }
        let poisoned = log.rotate().unwrap_err();
        let said = poisoned.to_string();
        assert!(said.contains("directory"), "{said}");
        assert!(!replaced || said.contains("replaced"), "{said}");
        assert!(log.write().is_err() && log.sync().is_err(), "nothing more is acknowledged");
    }
}

#[test]
fn d4_a_reader_never_passes_over_what_it_cannot_read() {
    let disk = SimDisk::new(1);
    let mut log = recovery::open(Arc::new(disk.clone()), SMALL, [1; 16], &mut |_, _| Ok(())).unwrap().log;
    for n in 0_u8..12 {
        commit(&mut log, &[&[n; 30]]);
        if n % 4 == 3 {
            log.rotate().unwrap();
        }
    }
    let all =
        |log: &Log, from| log.reader().scan(from).map(|record| record.map(|record| record.seq)).collect::<Vec<_>>();
    assert_eq!(all(&log, 0).into_iter().map(Result::unwrap).collect::<Vec<_>>(), (1..=12).collect::<Vec<_>>());
    // The second segment loses its second frame, then its last one, and what ends it, too.
    let frame = super::super::frame::claimed_bytes(&disk.bytes_of(&segment_name(2)).unwrap()[64..]).unwrap();
    for lost in [6, 8] {
        let (name, bit) = (segment_name(2), (64 + (usize::try_from(lost).unwrap() - 5) * frame + frame / 2) * 8);
        assert!(disk.rot(&name, bit));
        let seen = all(&log, 0);
        let (last, before) = seen.split_last().unwrap();
        assert_eq!(before.iter().map(|seq| *seq.as_ref().unwrap()).collect::<Vec<_>>(), (1..lost).collect::<Vec<_>>());
        assert!(matches!(last, Err(ReadError::Damaged { segment: 2, seq, .. }) if *seq == lost), "{last:?}");
        assert_eq!(all(&log, 9).len(), 4, "what lies behind it can be read by itself");
        assert!(disk.rot(&name, bit), "and is whole again");
    }
}
