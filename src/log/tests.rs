//! The log against a real directory: what is synced comes back, what is torn is cut, what is damaged is refused.

mod checkpoints;
mod copies;
mod damage;
mod faults;
mod order;
pub(crate) mod scarce;
mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::disk::{Disk, RealDisk};
use super::{Log, LogOptions, Making, OpenError, Opened, Position, RecordKind, recovery, segment_name};
use crate::types::Seq;

const KIND: RecordKind = RecordKind { kind: 7, version: 1 };
const OPTIONS: LogOptions = LogOptions {
    segment_bytes: 256 << 10,
    frame_bytes_full: 64 << 10,
    frame_bytes_max: 128 << 10,
    making: Making::Thread,
};

/// Of a log on a disk in memory, step by step.
const SMALL: LogOptions =
    LogOptions { segment_bytes: 4096, frame_bytes_full: 512, frame_bytes_max: 1024, making: Making::Stepped };

struct Place(tempfile::TempDir);

/// Seqs and bodies.
type Replayed = Vec<(Seq, Vec<u8>)>;

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn open(&self) -> Result<(Opened, Replayed), OpenError> {
        self.open_on(Arc::new(RealDisk::open(self.0.path()).unwrap()))
    }

    fn open_on(&self, disk: Arc<dyn Disk>) -> Result<(Opened, Replayed), OpenError> {
        let mut seen = Vec::new();
        let opened = recovery::open(disk, OPTIONS, [9; 16], &mut |_, record: crate::log::StoredRecord| {
            seen.push((record.seq, record.body.to_vec()));
            Ok(())
        })?;
        Ok((opened, seen))
    }

    fn change(&self, segment: u32, change: impl FnOnce(&mut Vec<u8>)) {
        let path = self.0.path().join(segment_name(segment));
        let mut bytes = std::fs::read(&path).unwrap();
        change(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
    }

    fn segments(&self) -> Vec<String> {
        let mut names = RealDisk::open(self.0.path()).unwrap().list().unwrap();
        names.sort();
        names
    }
}

fn commit(log: &mut Log, bodies: &[&[u8]]) -> Vec<(Seq, Position)> {
    let bytes = bodies.iter().map(|body| body.len()).sum();
    if !log.has_room(bodies.len(), bytes) {
        log.rotate().unwrap();
    }
    let places = bodies.iter().map(|body| log.append(KIND, false, |out| out.extend_from_slice(body))).collect();
    log.write().unwrap();
    log.sync().unwrap();
    log.show();
    places
}

/// Offset right after the last byte that is not zero: the end of the last frame, but for padding.
fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

#[test]
fn what_was_synced_comes_back_in_order_over_many_segments() {
    let place = Place::new();
    let mut expected = Vec::new();
    for life in 0_u8..3 {
        let (mut opened, seen) = place.open().unwrap();
        assert_eq!(opened.created, life == 0);
        assert_eq!(opened.log.epoch(), u32::from(life) + 1);
        assert_eq!(seen, expected);
        for round in 0..100 {
            let body = vec![round; 6000 + usize::from(round)];
            for (seq, position) in commit(&mut opened.log, &[&body, b"short"]) {
                let stored = opened.log.reader().read(position, seq).unwrap();
                expected.push((seq, stored.to_vec()));
            }
        }
        let scanned: Vec<_> =
            opened.log.reader().scan(0).map(|r| r.unwrap()).map(|r| (r.seq, r.body.to_vec())).collect();
        assert_eq!(scanned, expected);
        let (middle, _) = expected[expected.len() / 2];
        let block = opened.log.reader().block_before(middle).unwrap();
        assert_eq!(block.last().unwrap().seq, middle - 1);
    }
    assert!(place.segments().len() > 6, "{:?}", place.segments());
}

#[test]
fn a_torn_tail_is_cut_and_told_and_the_log_goes_on() {
    let place = Place::new();
    let (mut opened, _) = place.open().unwrap();
    commit(&mut opened.log, &[b"one"]);
    commit(&mut opened.log, &[b"two"]);
    drop(opened);
    place.change(1, |bytes| {
        let end = used(bytes);
        bytes[end - 1] ^= 1;
    });
    let (mut opened, seen) = place.open().unwrap();
    assert_eq!(seen, [(1, b"one".to_vec())]);
    assert!(opened.cut_bytes > 0);
    commit(&mut opened.log, &[b"three"]);
    drop(opened);
    let (opened, seen) = place.open().unwrap();
    assert_eq!(seen, [(1, b"one".to_vec()), (2, b"three".to_vec())]);
    assert_eq!(opened.cut_bytes, 0);
}

#[test]
fn damage_below_a_witness_is_corruption_and_changes_nothing() {
    let place = Place::new();
    let (mut opened, _) = place.open().unwrap();
    let (_, position) = commit(&mut opened.log, &[b"acknowledged"])[0];
    opened.log.seal().unwrap();
    drop(opened);
    place.change(1, |bytes| bytes[position.offset as usize + 14] ^= 1);
    let before = std::fs::read(place.0.path().join(segment_name(1))).unwrap();
    let Err(error) = place.open() else { panic!("opened a corrupt log") };
    let said = error.to_string();
    assert!(said.contains("`biotope log verify`") && said.contains("`biotope log salvage`"), "{said}");
    let OpenError::Corrupt { file, offset, .. } = error else { panic!("{said}") };
    assert!(file.ends_with(segment_name(1)));
    assert_eq!(offset, 64);
    assert_eq!(before, std::fs::read(place.0.path().join(segment_name(1))).unwrap());
}

#[test]
fn without_a_seal_the_last_frame_has_no_witness() {
    let place = Place::new();
    let (mut opened, _) = place.open().unwrap();
    let (_, position) = commit(&mut opened.log, &[b"written"])[0];
    drop(opened);
    place.change(1, |bytes| bytes[position.offset as usize + 14] ^= 1);
    let (opened, seen) = place.open().unwrap();
    assert!(seen.is_empty() && opened.cut_bytes > 0);
}

#[test]
fn the_head_moves_on_and_what_it_passed_is_recycled() {
    let place = Place::new();
    let (mut opened, _) = place.open().unwrap();
    let body = vec![b'x'; 50 << 10];
    for _ in 0..60 {
        commit(&mut opened.log, &[&body]);
        let figures = opened.log.figures();
        if figures.active > figures.head + 1 {
            opened.log.move_head(figures.active - 1);
        }
    }
    let figures = opened.log.figures();
    assert!(figures.active > 10);
    drop(opened);
    assert!(place.segments().len() <= 5, "{:?}", place.segments());
    let (opened, seen) = place.open().unwrap();
    assert_eq!(opened.log.figures().head, figures.head);
    assert_eq!(seen.last().unwrap().0, 60);
    assert!(opened.segments <= 3);
}

#[test]
fn a_missing_foreign_or_newer_segment_is_named() {
    let place = Place::new();
    let (mut opened, _) = place.open().unwrap();
    let body = vec![b'x'; 100 << 10];
    for _ in 0..10 {
        commit(&mut opened.log, &[&body]);
    }
    drop(opened);
    let path = |number| place.0.path().join(segment_name(number));
    let kept = std::fs::read(path(2)).unwrap();

    std::fs::remove_file(path(2)).unwrap();
    assert!(matches!(place.open(), Err(OpenError::Missing { file }) if file == path(2)));
    std::fs::write(path(2), b"something else altogether").unwrap();
    assert!(matches!(place.open(), Err(OpenError::Foreign { file, .. }) if file == path(2)));
    let mut newer = kept.clone();
    newer[8] = 2;
    std::fs::write(path(2), newer).unwrap();
    assert!(matches!(place.open(), Err(OpenError::Newer { found: 2, .. })));
    let mut other = kept.clone();
    other[kept.len() / 2] ^= 1;
    std::fs::write(path(2), other).unwrap();
    assert!(matches!(place.open(), Err(OpenError::Corrupt { file, .. }) if file == path(2)));
    std::fs::write(path(2), kept).unwrap();
    assert_eq!(place.open().unwrap().1.len(), 10);
}

#[test]
fn a_lost_first_segment_is_missed() {
    let place = Place::new();
    let (mut opened, _) = place.open().unwrap();
    let body = vec![b'x'; 100 << 10];
    for _ in 0..6 {
        commit(&mut opened.log, &[&body]);
    }
    drop(opened);
    std::fs::remove_file(place.0.path().join(segment_name(1))).unwrap();
    assert!(matches!(place.open(), Err(OpenError::Missing { .. })));
}

/// A disk with room for so many files; where others want room, too, they take that of each file that is removed.
struct Small {
    disk: RealDisk,
    room: AtomicUsize,
    others: bool,
}

impl Small {
    fn on(place: &Place, room: usize, others: bool) -> Arc<dyn Disk> {
        Arc::new(Self { disk: RealDisk::open(place.0.path()).unwrap(), room: AtomicUsize::new(room), others })
    }
}

impl Disk for Small {
    fn list(&self) -> std::io::Result<Vec<String>> {
        self.disk.list()
    }
    fn create(&self, name: &str) -> std::io::Result<Arc<dyn super::disk::DiskFile>> {
        let there = self.disk.list()?.len();
        if there < self.room.load(Ordering::Relaxed) {
            self.disk.create(name)
        } else {
            Err(std::io::ErrorKind::StorageFull.into())
        }
    }
    fn open(&self, name: &str) -> std::io::Result<Arc<dyn super::disk::DiskFile>> {
        self.disk.open(name)
    }
    fn rename(&self, from: &str, to: &str) -> std::io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> std::io::Result<()> {
        self.disk.remove(name)?;
        self.room.fetch_sub(usize::from(self.others), Ordering::Relaxed);
        Ok(())
    }
    fn sync_dir(&self) -> std::io::Result<()> {
        self.disk.sync_dir()
    }
    fn place(&self) -> std::path::PathBuf {
        self.disk.place()
    }
}

/// Looks until it is so; the thread that makes segments tries every half second.
fn until(what: &str, mut so: impl FnMut() -> bool) {
    use crate::clock::{Clock, RealClock};
    let deadline = RealClock.mono() + std::time::Duration::from_secs(120);
    while !so() {
        assert!(RealClock.mono() < deadline, "never: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_full_disk_is_told_takes_what_there_is_room_for_and_is_left_behind() {
    let place = Place::new();
    let small = Small::on(&place, 2, false);
    let (mut opened, _) = place.open_on(Arc::clone(&small)).unwrap();
    let log = &mut opened.log;
    let body = vec![b'x'; 50 << 10];
    while log.figures().active == 1 {
        commit(log, &[&body]);
    }
    until("told that the disk is full", || log.full().is_some());
    commit(log, &[b"an outcome"]);
    assert!(log.room() > 100 << 10);
    let written = log.next_seq();
    drop(opened);

    let (mut opened, seen) = place.open_on(small).unwrap();
    assert_eq!(seen.last().unwrap().0, written - 1, "it opens on a full disk, with all that was written");
    let log = &mut opened.log;
    until("told again", || log.full().is_some());
    log.move_head(2);
    commit(log, &[b"the head has moved"]);
    until("room again", || log.full().is_none() && place.segments().len() == 2);
    while log.figures().active == 2 {
        commit(log, &[&body]);
    }
    drop(opened);
    let (opened, seen) = place.open().unwrap();
    assert_eq!(opened.segments, 2);
    assert_eq!(seen.iter().filter(|(_, body)| body == b"the head has moved").count(), 1);
}

#[test]
fn a_log_on_a_full_disk_goes_on_in_the_segment_that_its_head_has_passed() {
    let place = Place::new();
    let (mut opened, _) = place.open_on(Small::on(&place, 2, true)).unwrap();
    let log = &mut opened.log;
    let body = vec![b'x'; 50 << 10];
    while log.figures().active == 1 {
        commit(log, &[&body]);
    }
    until("told that the disk is full", || log.full().is_some());
    log.move_head(2);
    commit(log, &[b"the head has moved"]);
    until("room again", || log.full().is_none());
    while log.figures().active == 2 {
        commit(log, &[&body]);
    }
    assert_eq!(place.segments(), [segment_name(2), segment_name(3)]);
}
