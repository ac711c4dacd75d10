//! The order in which the log touches the disk, where a crash in between would tell, or somebody who reads meanwhile.

use std::sync::{Arc, Mutex};

use super::super::disk::{Disk, DiskFile};
use super::super::{Log, LogOptions, Making, StoredRecord, recovery, segment_name};
use super::{KIND, OPTIONS, Place, SMALL, commit};
use crate::log::nearby::NearbyReader;
use crate::simulate::disk::{Fault, Loss, SimDisk};
use crate::types::Seq;

/// A disk that notes every call that changes it, by the name that the file has when it is opened or made.
#[derive(Clone)]
struct Watched {
    disk: SimDisk,
    calls: Arc<Mutex<Vec<String>>>,
}

impl Watched {
    fn new() -> Self {
        Self { disk: SimDisk::new(1), calls: Arc::default() }
    }

    fn note(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }

    fn open_log(&self) -> Log {
        recovery::open(Arc::new(self.clone()), SMALL, [1; 16], &mut |_, _| Ok(())).unwrap().log
    }

    /// The calls since this was asked last.
    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    fn watch(&self, name: &str, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(WatchedFile { name: name.replace(".tmp", ""), file, watched: self.clone() })
    }
}

impl Disk for Watched {
    fn list(&self) -> std::io::Result<Vec<String>> {
        self.disk.list()
    }
    fn create(&self, name: &str) -> std::io::Result<Arc<dyn DiskFile>> {
        Ok(self.watch(name, self.disk.create(name)?))
    }
    fn open(&self, name: &str) -> std::io::Result<Arc<dyn DiskFile>> {
        Ok(self.watch(name, self.disk.open(name)?))
    }
    fn rename(&self, from: &str, to: &str) -> std::io::Result<()> {
        self.note(format!("free {from}"));
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> std::io::Result<()> {
        self.note(format!("free {name}"));
        self.disk.remove(name)
    }
    fn sync_dir(&self) -> std::io::Result<()> {
        self.disk.sync_dir()
    }
    fn place(&self) -> std::path::PathBuf {
        self.disk.place()
    }
}

struct WatchedFile {
    name: String,
    file: Arc<dyn DiskFile>,
    watched: Watched,
}

impl DiskFile for WatchedFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        self.watched.note(format!("write {}", self.name));
        self.file.write_at(offset, bytes)
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.file.read_at(offset, buffer)
    }
    fn sync_data(&self) -> std::io::Result<()> {
        self.watched.note(format!("sync {}", self.name));
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

/// Were the end on the disk and the records before it not, the log would be corrupt: with `sync = "every 5ms"`, too.
#[test]
fn a_segment_is_durable_before_its_end_is_written() {
    let watched = Watched::new();
    let mut log = watched.open_log();
    log.append(KIND, false, |out| out.extend_from_slice(b"written, and not synced"));
    log.write().unwrap();
    log.make_ahead();
    watched.calls();
    log.rotate().unwrap();
    let first = segment_name(1);
    let of_first: Vec<String> = watched.calls().into_iter().filter(|call| call.ends_with(&first)).collect();
    let expected = ["sync", "write", "sync"].map(|call| format!("{call} {first}"));
    assert_eq!(of_first, expected, "the records, the end, and that the end is there");
}

/// Were a segment gone before a durable frame says that it does not count, an opening would miss it.
#[test]
fn a_segment_is_freed_only_when_the_head_has_passed_it_durably() {
    let watched = Watched::new();
    let mut log = watched.open_log();
    commit(&mut log, &[&[b'x'; 900]]);
    log.make_ahead();
    log.rotate().unwrap();
    log.make_ahead();
    commit(&mut log, &[b"in the second segment"]);
    watched.calls();
    log.move_head(2);
    // The end of the second segment is the first frame that names the new head.
    log.rotate().unwrap();
    let calls = watched.calls();
    let place = |call: String| calls.iter().position(|other| *other == call);
    let (first, second) = (segment_name(1), segment_name(2));
    let named = place(format!("write {second}")).unwrap();
    let durable = named + calls[named..].iter().position(|call| *call == format!("sync {second}")).unwrap();
    let freed = place(format!("free {first}")).unwrap_or_else(|| panic!("never freed: {calls:?}"));
    assert!(freed > durable, "freed at {freed}, durable at {durable}: {calls:?}");
}

/// Frames of one size lie at the same places in every segment: behind the last one of a recycled file comes a whole one
/// of the segment that it was before.
#[test]
fn what_a_recycled_file_held_before_is_not_read_again() {
    let watched = Watched::new();
    let mut log = watched.open_log();
    for round in 0_u8..6 {
        for _ in 0..3 {
            commit(&mut log, &[&[round; 100]]);
        }
        log.make_ahead();
        log.rotate().unwrap();
        log.move_head(log.figures().active);
    }
    commit(&mut log, &[&[9; 100]]);
    drop(log);
    let recycled = watched.calls().iter().filter(|call| call.ends_with(".seg.tmp")).count();
    assert!(recycled > 8, "each recycled file is renamed twice");
    let mut bodies = Vec::new();
    let opened = recovery::open(Arc::new(watched.clone()), SMALL, [1; 16], &mut |_, record: StoredRecord| {
        bodies.push(record.body.to_vec());
        Ok(())
    });
    assert_eq!(opened.unwrap().cut_bytes, 0);
    assert_eq!(bodies, [[9; 100]]);
}

/// Frames that lie in one buffer with others, and in several of them, before and behind damage of whatever a frame has.
#[test]
fn what_a_thread_reads_ahead_is_what_is_found_step_by_step() {
    let stepped = LogOptions { making: Making::Stepped, ..OPTIONS };
    let disk = SimDisk::new(1);
    let mut log = recovery::open(Arc::new(disk.clone()), stepped, [1; 16], &mut |_, _| Ok(())).unwrap().log;
    for round in 0_u8..60 {
        commit(&mut log, &[&vec![round; usize::from(round % 12) * 10_000], &[round; 9]]);
    }
    let last = log.figures().active;
    assert!(last > 8, "{last}");
    drop(log);
    let found = |rotten: Option<(u32, usize)>, making| {
        let image = disk.after(Loss::Process);
        assert!(rotten.is_none_or(|(segment, bit)| image.rot(&segment_name(segment), bit)));
        let mut records = Vec::new();
        let options = LogOptions { making, ..OPTIONS };
        let opened = recovery::open(Arc::new(image), options, [9; 16], &mut |_, record: StoredRecord| {
            records.push((record.seq, record.position, record.body));
            Ok(())
        });
        (opened.map(|opened| (opened.cut_bytes, opened.log.epoch())).map_err(|error| error.to_string()), records)
    };
    let mut random = fastrand::Rng::with_seed(7);
    let bit = |random: &mut fastrand::Rng| random.usize(64 * 8..(240 << 10) * 8);
    let rotten = (0..60).map(|at| Some((1 + at % last, bit(&mut random))));
    let (mut whole, mut refused) = (0, 0);
    for rotten in std::iter::once(None).chain(rotten) {
        let (opened, records) = found(rotten, Making::Thread);
        *if opened.is_ok() { &mut whole } else { &mut refused } += 1;
        assert_eq!(found(rotten, Making::Stepped), (opened, records), "{rotten:?}");
    }
    assert!(whole > 0 && refused > 0, "{whole} opened, {refused} refused");
}

/// Whoever reads while a frame is written may see its header and a part of its only record. Once that was told as damage,
/// and remembered as such: a log that is whole was never ready again.
#[test]
fn a_frame_that_is_being_written_is_no_damage_to_those_who_read() {
    for in_a_new_segment in [false, true] {
        let place = Place::new();
        let mut log = place.open().unwrap().0.log;
        let known = commit(&mut log, &[b"one", b"two"]);
        if in_a_new_segment {
            log.rotate().unwrap();
        }
        let (seq, position) = log.append(KIND, false, |out| out.extend_from_slice(&[b'x'; 10_000]));
        let commit = log.begin_commit().unwrap();
        let reader = log.reader();
        let mut nearby = NearbyReader::new(reader.clone());
        for written in (0..commit.frame.len()).step_by(500) {
            commit.file.write_at(commit.at, &commit.frame[..written]).unwrap();
            let scanned = |from| reader.scan(from).map(|record| record.unwrap().seq).collect::<Vec<_>>();
            assert_eq!((scanned(0), scanned(seq)), (vec![1, 2], vec![]), "{written} bytes written");
            let before =
                |before| reader.block_before(before).unwrap().iter().map(|record| record.seq).collect::<Vec<_>>();
            assert_eq!((before(Seq::MAX), before(2)), (vec![1, 2], vec![1]), "{written} bytes written");
            assert!(reader.records_at(vec![1, 2]).iter().all(|(_, record)| record.is_ok()), "{written} bytes written");
            for (seq, position) in &known {
                nearby.read(*position, *seq).unwrap();
            }
            assert_eq!(reader.damaged(), [], "{written} bytes written");
        }
        let carried_out = commit.carry_out();
        log.end_commit(commit, carried_out).unwrap();
        log.show();
        assert_eq!(reader.scan(0).map(|record| record.unwrap().seq).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(reader.block_before(Seq::MAX).unwrap().last().map(|record| record.seq), Some(seq));
        assert_eq!(nearby.read(position, seq).unwrap().len(), 10_000, "what it read too early is read again");
        assert_eq!(reader.damaged(), []);
    }
}

/// What has passed a segment may have been read from the page cache, where a sync that failed, or never came, left it: the
/// segment was once removed before that was on the disk, and a power cut at that moment left a log without either.
#[test]
fn an_opening_removes_what_is_passed_only_once_that_is_durable() {
    let disk = SimDisk::new(1);
    let mut log = recovery::open(Arc::new(disk.clone()), SMALL, [1; 16], &mut |_, _| Ok(())).unwrap().log;
    commit(&mut log, &[b"in the first segment"]);
    log.make_ahead();
    log.rotate().unwrap();
    log.move_head(2);
    log.append(KIND, false, |out| out.extend_from_slice(b"restated, and not synced"));
    log.write().unwrap();
    drop(log);
    let mut struck = 0;
    for (call, power) in (1..60).flat_map(|call| (0..20).map(move |power| (call, power))) {
        let cut = disk.after(Loss::Process);
        cut.plan(call, Fault::Power);
        // It may be through before that call.
        drop(recovery::open(Arc::new(cut.clone()), SMALL, [1; 16], &mut |_, _| Ok(())));
        struck += usize::from(cut.has_struck());
        let mut bodies = Vec::new();
        let left = Arc::new(cut.after(Loss::Power(power)));
        let again = recovery::open(left, SMALL, [1; 16], &mut |_, record: StoredRecord| {
            bodies.push(record.body.to_vec());
            Ok(())
        });
        assert!(again.is_ok(), "call {call}, power {power}: {:?}", again.err().map(|error| error.to_string()));
        assert_eq!(bodies.len(), 1, "call {call}, power {power}: the record is there once");
    }
    assert!(struck > 100, "{struck}");
}
