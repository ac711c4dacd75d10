//! Logs of every released format, kept for ever in `tests/fixtures/segments`: what they say is read today as it was then.
//!
//! `v1/log` holds small segments and checkpoints with every kind of record, `v1/salvaged` one that was salvaged from them
//! after damage, `v1/needs` one with the second shape of jobs that need a version, `v1/workers` one with that of attempts whose
//! worker has a number, and `v1/carried` one in which such attempts are carried over to newer segments. Beside each stands, for
//! review, what its records say (`.records.txt`) and the state that they give (`.state.txt`). The newest format's files are compared with what the writer writes today, byte by byte: where they
//! differ, the format was changed. `UPDATE_FIXTURES=1 cargo test --lib golden` writes them anew. That is right for an
//! addition that old logs do not have (a kind, a field of a checkpoint); a change of what is there already needs a new
//! format number and a new directory, and the old one stays as it is.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Once;

use super::disk::SimDisk;
use super::plan::decode;
use super::world::World;
use super::{How, Op, PushOp};
use crate::care::{Source, dump, salvage, verify};
use crate::engine::stepped::Stepped;
use crate::job::event::{Event, Failure, Kind};
use crate::log::StoredRecord;
use crate::log::disk::Disk;
use crate::log::look::{LookError, RecordSeen, Seen, look};
use crate::rollover::plan::Word;

type Files = BTreeMap<String, Vec<u8>>;

/// Every format there was.
const FORMATS: [u16; 1] = [1];
/// Every kind of record.
const KINDS: [Kind; 20] = [
    Kind::Enqueued,
    Kind::Reserved,
    Kind::Ended,
    Kind::Failed,
    Kind::Released,
    Kind::Redriven,
    Kind::Restated,
    Kind::Opened,
    Kind::Stopped,
    Kind::TypeNamed,
    Kind::VersionAccepted,
    Kind::VersionRejected,
    Kind::Generation,
    Kind::Routed,
    Kind::Totals,
    Kind::Lost,
    Kind::Paused,
    Kind::Quarantined,
    Kind::Ramped,
    Kind::Settled,
];

/// A config in which the type `a` has another version.
const OTHER_VERSION: u8 = 1;
/// A config in which it has a third one, which gets a share at first.
const RAMPING_VERSION: u8 = 0b1_0011;
const NAMES: [&str; 5] = ["log", "salvaged", "needs", "workers", "carried"];

fn job(of: u8) -> PushOp {
    PushOp { of, priority: 5, bytes: 30, max_attempts: Some(3), ..PushOp::default() }
}

/// What happens: a bit of everything, over some segments and two lives.
fn ops() -> Vec<Op> {
    let later = PushOp { delay_ms: super::op::FAR + 2, priority: 9, ..job(2) };
    let expires = PushOp { expires_ms: Some(40), ..job(2) };
    let done = || How::Done { follow_ups: vec![PushOp { key: Some(3), ..job(1) }] };
    let ends = [
        done(),
        How::Fail { killed: false },
        How::Defer { after_ms: Some(700) },
        How::Dead,
        How::Dead,
        How::Dead,
        How::NotStarted,
        How::Interrupted,
    ];
    let pools = [Op::PoolUp(0), Op::PoolUp(1), Op::MakeSegment];
    let mut ops = Vec::from(pools.clone());
    // What waits is restated when the log's head moves on.
    ops.push(Op::Push(vec![job(2), later, PushOp { id: Some(1), key: Some(2), ..job(2) }]));
    ops.extend(until_cleaned(0));
    ops.push(Op::Stop);
    ops.extend(pools);
    ops.push(Op::Push(vec![job(2), expires, later, PushOp { priority: 2, key: Some(0), ..job(2) }]));
    ops.extend([Op::Turn, Op::Wait(50), Op::Turn]);
    for how in ends {
        ops.extend([Op::Push(vec![job(0)]), Op::Turn, Op::Turn, Op::Take(0), Op::Finish(0, how), Op::Turn]);
    }
    // Of those that wait one is cancelled, and one need not wait any more; of the dead ones one is given up.
    ops.extend([Op::Act(27, 1), Op::Turn, Op::Act(1, 0), Op::Turn, Op::Act(34, 2), Op::Turn]);
    ops.extend([Op::Reload(OTHER_VERSION), Op::PoolNotUp(3), Op::Turn]);
    ops.extend([Op::Push(vec![job(0), job(1)]), Op::Turn, Op::Wait(20), Op::Turn]);
    // What the config began is over.
    ops.extend([Op::PoolEnds(3), Op::PoolNotUp(2), Op::Turn]);
    ops.extend([Op::Reload(RAMPING_VERSION), Op::PoolUp(4), Op::Turn]);
    ops
}

/// Everything that an opening reads: not the files that are kept to be written over.
fn files_of(disk: &SimDisk) -> Files {
    let mut files = disk.contents();
    files.retain(|name, _| [".seg", ".ckpt", ".names"].iter().any(|ending| name.ends_with(ending)));
    files
}

/// So many jobs one after the other, taken from where they stand, that the log's head moves on: what lives is restated.
fn until_cleaned(take: u16) -> Vec<Op> {
    let mut ops = Vec::new();
    for _ in 0..24 {
        ops.extend([Op::Push(vec![PushOp { bytes: 700, ..job(1) }]), Op::Turn, Op::Turn, Op::Take(take)]);
        ops.extend([Op::Finish(0, How::Done { follow_ups: vec![] }), Op::Turn, Op::MakeSegment, Op::Turn]);
    }
    ops.extend([Op::Clean, Op::Turn, Op::Clean, Op::Turn, Op::Clean, Op::Turn]);
    ops
}

fn files_after(ops: &[Op]) -> Files {
    let mut world = World::small();
    for op in ops {
        world.step(op).unwrap();
    }
    files_of(&world.disk)
}

/// The files of a log in which all of it happened. Nothing of it is left to chance.
fn make() -> Files {
    let mut world = World::small();
    for op in ops() {
        world.step(&op).unwrap();
    }
    let engine = world.engine.as_ref().unwrap();
    engine.handle().rollout("a", Word::Abort, Box::new(|done| assert!(done.is_ok(), "{done:?}")));
    engine.handle().pause("c", true, Box::new(|since| assert!(since.is_ok())));
    world.turn().unwrap();
    files_of(&world.disk)
}

/// Jobs that need a version: one that is there, one that comes when they have waited, and one that never does. All of them
/// are restated, and those whose version had come by then have its number.
fn make_needs() -> Files {
    let needs = |min| PushOp { min: Some(min), ..job(0) };
    let mut ops = vec![Op::PoolUp(0), Op::PoolUp(1), Op::MakeSegment];
    ops.push(Op::Push(vec![needs(0), needs(1), needs(7), PushOp { id: Some(1), ..needs(1) }]));
    ops.extend([Op::Turn, Op::Reload(OTHER_VERSION), Op::Turn, Op::Push(vec![needs(1), needs(2)]), Op::Turn]);
    ops.extend(until_cleaned(1));
    ops.extend([Op::Push(vec![needs(1), needs(7)]), Op::Turn]);
    files_after(&ops)
}

/// Attempts of workers that have numbers, with every end that an attempt has.
fn make_workers() -> Files {
    let ends = [
        How::Done { follow_ups: vec![job(1)] },
        How::Fail { killed: true },
        How::Dead,
        How::Cancel,
        How::Defer { after_ms: Some(50) },
        How::Interrupted,
        How::NotStarted,
    ];
    let mut ops = vec![Op::PoolUp(0), Op::MakeSegment];
    for (end, worker) in ends.into_iter().zip([1, 2, 300, 1, 2, 300, 1]) {
        ops.extend([Op::Push(vec![job(0)]), Op::Turn, Op::Turn, Op::Take(0), Op::Finish(worker, end), Op::Turn]);
    }
    files_after(&ops)
}

/// Failed attempts of workers that have numbers, and of one that has none, in records and checkpoints that restate their jobs.
fn make_carried() -> Files {
    let mut ops = vec![Op::PoolUp(0), Op::PoolUp(1), Op::MakeSegment];
    for (end, worker) in [(How::Fail { killed: false }, 300), (How::Dead, 2), (How::Dead, 0)] {
        ops.extend([Op::Push(vec![job(0)]), Op::Turn, Op::Turn, Op::Take(0), Op::Finish(worker, end), Op::Turn]);
    }
    ops.extend(until_cleaned(0));
    files_after(&ops)
}

/// What is salvaged of these files after damage to the record of a failure.
fn salvaged(files: &Files) -> Files {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (name, bytes) in segments_of(files) {
        std::fs::write(from.path().join(name), bytes).unwrap();
    }
    let mut failures = Vec::new();
    each_record(files, &mut |record| {
        if record.kind == Kind::Failed as u8 {
            failures.push(record.position);
        }
    });
    let damaged = from.path().join(format!("{:010}.seg", failures[0].segment));
    let mut bytes = std::fs::read(&damaged).unwrap();
    bytes[failures[0].offset as usize + 20] ^= 1;
    std::fs::write(damaged, bytes).unwrap();
    let mut told = Vec::new();
    let mut tell = |line: &str| told.push(line.to_owned());
    let (source, to) = (Source::open(from.path()).unwrap(), to.path().join("saved"));
    salvage(&source, &to, *b"a salvaged log..", &mut tell).unwrap();
    assert!(!told.is_empty(), "nothing was damaged");
    let mut files = kept(&to.join("log"));
    files.retain(|name, _| name.ends_with(".seg"));
    files
}

/// All logs of the newest format, as they are written today.
fn made() -> [(&'static str, Files); 5] {
    let log = make();
    let salvaged = salvaged(&log);
    let [first, second, third, fourth, fifth] = NAMES;
    [(first, log), (second, salvaged), (third, make_needs()), (fourth, make_workers()), (fifth, make_carried())]
}

fn disk_of(files: &Files) -> SimDisk {
    let disk = SimDisk::new(3);
    for (name, bytes) in files {
        let file = disk.create(name).unwrap();
        file.write_at(0, bytes).unwrap();
        file.sync_data().unwrap();
    }
    disk.sync_dir().unwrap();
    disk
}

fn each_record(files: &Files, then: &mut dyn FnMut(&StoredRecord)) {
    look(&disk_of(files), false, &mut |seen| {
        if let Seen::Frame(frame) = seen {
            for record in &frame.records {
                if let RecordSeen::Whole(record) = record {
                    then(record);
                }
            }
        }
        Ok::<(), LookError>(())
    })
    .unwrap();
}

/// The files of a fixture.
fn kept(dir: &Path) -> Files {
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(path).unwrap())
    };
    let entries = std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    entries.map(read).collect()
}

/// A line for every record.
fn records(dir: &Path) -> String {
    let mut text = String::new();
    let mut out = |line: &str| writeln!(text, "{line}");
    dump(&Source::open(dir).unwrap(), 0, false, &mut out).map_err(|_| "it cannot be read").unwrap();
    text
}

/// The state in which an engine finds itself on these files.
fn state(files: &Files) -> String {
    let mut world = World::small();
    world.disk = disk_of(files);
    let (engine, _) = world.open_once().unwrap_or_else(|error| panic!("{}", error.in_full()));
    let table = engine.table();
    let mut text = String::new();
    for (no, of_type) in table.types() {
        let queue = &of_type.queue;
        let counts = (of_type.delayed, of_type.reserved, of_type.dead, of_type.route, of_type.paused_since);
        let (delayed, reserved, dead, route, paused) = counts;
        writeln!(
            text,
            "type {no} {}: {} fresh, {delayed} delayed, {reserved} reserved, {dead} dead, goes to version {route}, paused since {paused}",
            of_type.name,
            queue.fresh(),
        )
        .unwrap();
        writeln!(text, "  {:?}", of_type.totals).unwrap();
    }
    let mut versions: Vec<_> = table.versions().collect();
    versions.sort_unstable_by_key(|(no, _)| *no);
    for (no, version) in versions {
        let (of, label, at) = (version.type_no, &version.label, version.at);
        writeln!(
            text,
            "version {no} of type {of}: {label}, {}, at {at}, rejected: {}",
            version.hash[0], version.rejected
        )
        .unwrap();
    }
    for known in table.generations() {
        writeln!(text, "{known:?}").unwrap();
    }
    writeln!(text, "stopped cleanly: {}", table.stopped_cleanly()).unwrap();
    jobs(&engine, &mut text);
    text
}

/// Every live job, with what its home record says.
fn jobs(engine: &Stepped, text: &mut String) {
    let mut jobs: Vec<_> = engine.table().jobs().collect();
    jobs.sort_unstable_by_key(|(born, _)| *born);
    let reader = engine.reader();
    for (born, job) in jobs {
        let home = reader.read(job.home.position(), job.home.seq).unwrap();
        let said = decode(born, job.home.seq, &home).unwrap();
        let payload = String::from_utf8(said.payload).unwrap();
        writeln!(text, "job {born} of type {}: {:?}, priority {}", job.type_no, job.state, u8::from(job.priority))
            .unwrap();
        let (payload, bytes) = (payload.trim_end_matches(['x', '"', '}']), payload.len());
        writeln!(text, "  id {:?}, key {:?}, payload of {bytes} bytes: {payload}…", said.id, said.key).unwrap();
        writeln!(
            text,
            "  {} of {} attempts, {:?}, created {}, ready {}, expires {}, since {}, fence {}, version {}",
            job.attempts,
            job.max_attempts,
            job.given_back,
            job.created_ms,
            job.ready_ms,
            job.expires_ms,
            job.since_ms,
            job.fence.as_number(),
            job.version_no,
        )
        .unwrap();
        if let Some(min) = job.min_version() {
            writeln!(text, "  needs {} ({}), held: {}", min.label, min.version_no, engine.table().is_held(&job))
                .unwrap();
        }
        for failure in job.failures() {
            let Failure { attempt, at, version_no, error, worker } = failure;
            let by = if *worker > 0 { format!(", worker: {worker}") } else { String::new() };
            writeln!(
                text,
                "  Failure {{ attempt: {attempt}, at: {at}, version_no: {version_no}, error: {error:?}{by} }}"
            )
            .unwrap();
        }
    }
}

fn segments_of(files: &Files) -> Files {
    files.iter().filter(|(name, _)| name.ends_with(".seg")).map(|(name, bytes)| (name.clone(), bytes.clone())).collect()
}

/// Where the fixtures are, written anew before if that is asked for.
fn fixtures(format: u16) -> PathBuf {
    static ANEW: Once = Once::new();
    ANEW.call_once(|| {
        if std::env::var_os("UPDATE_FIXTURES").is_some() {
            write_anew(&place(crate::log::FORMAT));
        }
    });
    place(format)
}

fn place(format: u16) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/segments/v{format}"))
}

fn write_anew(to: &Path) {
    for (name, files) in made() {
        let dir = to.join(name);
        drop(std::fs::remove_dir_all(&dir));
        std::fs::create_dir_all(&dir).unwrap();
        for (name, bytes) in &files {
            std::fs::write(dir.join(name), bytes).unwrap();
        }
        for (what, text) in texts(&dir) {
            std::fs::write(to.join(format!("{name}.{what}.txt")), text).unwrap();
        }
    }
}

/// What a fixture says, in words.
fn texts(dir: &Path) -> [(&'static str, String); 2] {
    [("state", state(&kept(dir))), ("records", records(dir))]
}

/// The first byte at which files differ.
fn difference(kept: &Files, made: &Files) -> Option<String> {
    let names: Vec<&String> = made.keys().collect();
    if kept.keys().collect::<Vec<_>>() != names {
        return Some(format!("{names:?} were written, and the fixture has {:?}", kept.keys()));
    }
    made.iter().find_map(|(name, made)| {
        let kept = &kept[name];
        let at = (0..made.len().max(kept.len())).find(|at| made.get(*at) != kept.get(*at))?;
        Some(format!("{name} differs from byte {at} on: {:?} was written, it has {:?}", made.get(at), kept.get(at)))
    })
}

#[test]
fn d16_todays_writer_writes_the_bytes_of_the_newest_format() {
    let newest = fixtures(crate::log::FORMAT);
    for (name, made) in made() {
        if let Some(difference) = difference(&kept(&newest.join(name)), &made) {
            panic!(
                "{name}: {difference}\nThe format was changed, or what is written when. Old logs must be read as before: \
                 see the header of src/simulate/golden.rs for what to do."
            );
        }
    }
}

#[test]
fn d16_logs_of_every_format_are_read_as_when_they_were_written() {
    assert_eq!(FORMATS.last(), Some(&crate::log::FORMAT), "the newest format has no fixture");
    for format in FORMATS {
        for name in NAMES {
            let dir = fixtures(format).join(name);
            for (what, text) in texts(&dir) {
                let path = fixtures(format).join(format!("{name}.{what}.txt"));
                let kept = std::fs::read_to_string(&path).unwrap_or_default();
                assert!(kept == text, "{} says\n{kept}\nand today it is\n{text}", path.display());
            }
            let files = kept(&dir);
            assert_eq!(state(&files), state(&segments_of(&files)), "v{format}/{name}: with and without checkpoints");
            let verified = verify(&Source::open(&dir).unwrap()).unwrap();
            assert!(verified.is_sound(), "v{format}/{name}: {verified:?}");
        }
    }
}

#[test]
fn d16_the_fixtures_hold_every_kind_of_record() {
    let mut seen: BTreeMap<u8, u32> = BTreeMap::new();
    for name in NAMES {
        each_record(&kept(&fixtures(crate::log::FORMAT).join(name)), &mut |record| {
            *seen.entry(record.kind).or_default() += 1;
        });
    }
    for kind in KINDS {
        assert!(seen.contains_key(&(kind as u8)), "no record of kind {} ({}): {seen:?}", kind.word(), kind as u8);
    }
    // A kind that is not in the list above is not known to decoding either.
    let known = |kind: &u8| !matches!(Event::decode(*kind, 1, &[]), Err(crate::job::event::BadRecord::Unknown { .. }));
    let all: Vec<u8> = (0..=u8::MAX).filter(known).collect();
    assert_eq!(all, KINDS.map(|kind| kind as u8).to_vec(), "a kind is not in the fixtures");
}
