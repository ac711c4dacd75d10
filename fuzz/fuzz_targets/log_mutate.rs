//! A good log, damaged: opening it either refuses, or gives exactly the first so many of the records that were written;
//! never a wrong one, never one from the middle without those before it.
//!
//! The input says what the log holds, when it was synced, sealed, and went on to another segment; and then what happens
//! to its files. Where only one bit of a sealed log is flipped, more is promised: no record is missed without a refusal.
#![no_main]

mod bounded;

use std::collections::BTreeMap;
use std::sync::Arc;

use biotope::log::disk::Disk;
use biotope::log::{Log, LogId, LogOptions, Making, RecordKind, StoredRecord, recovery};
use biotope::simulate::disk::{Loss, SimDisk};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;

const LOG_ID: LogId = *b"a fuzzed log id.";
const OPTIONS: LogOptions =
    LogOptions { segment_bytes: 4 << 10, frame_bytes_full: 512, frame_bytes_max: 2 << 10, making: Making::Stepped };
const SECTOR_BYTES: usize = 512;

/// What a log shall hold.
#[derive(Debug, Clone, PartialEq)]
struct Kept {
    seq: u64,
    kind: u8,
    joined: bool,
    body: Vec<u8>,
    segment: u32,
}

fuzz_target!(|data: &[u8]| {
    let mut u = Unstructured::new(data);
    let disk = SimDisk::new(0);
    let Ok((written, sealed)) = write(&mut u, &disk) else { return };
    assert_eq!(open(&disk.after(Loss::Process)).expect("an undamaged log opens"), written, "before any damage");
    let mut files = disk.contents();
    let mut damages = 0;
    let mut flips = 0;
    while damages < 8 && !u.is_empty() {
        match damage(&mut u, &mut files) {
            Ok(Damage::Nothing) => {}
            Ok(Damage::Flip) => (damages, flips) = (damages + 1, flips + 1),
            Ok(Damage::Other) => damages += 1,
            Err(_) => break,
        }
    }
    let Ok(read) = open(&disk_of(&files)) else { return };
    // A damaged frame may have told of a head; what lies before it does not count, and what follows has no gap.
    let first = read.first().map_or(1, |record| record.seq);
    let skipped = usize::try_from(first - 1).expect("a short log");
    let expected = written.get(skipped..skipped + read.len()).expect("records that were never written");
    assert_eq!(read, expected, "another record than was written");
    assert_eq!(skipped, 0, "the first records are missing");
    if sealed && damages == 1 && flips == 1 {
        assert_eq!(read.len(), written.len(), "one bit was flipped, and durable records are missed in silence");
    }
});

/// Writes a log; returns its records, and whether the last thing written is a seal.
fn write(u: &mut Unstructured<'_>, disk: &SimDisk) -> Result<(Vec<Kept>, bool)> {
    let mut log =
        recovery::open(Arc::new(disk.clone()), OPTIONS, LOG_ID, &mut |_, _| Ok(())).expect("an empty disk").log;
    let mut all = Vec::new();
    let mut written = 0;
    for _ in 0..u.int_in_range(1..=60)? {
        match u.int_in_range(0..=15)? {
            0..=9 => {
                let length = if u.ratio(1, 10)? { u.int_in_range(0..=1200)? } else { u.int_in_range(0..=60)? };
                if make_room(&mut log, length) {
                    written = all.len();
                }
                all.push(append(&mut log, u.arbitrary()?, u.arbitrary()?, length));
            }
            10..=12 => commit(&mut log),
            13 => log.seal().expect("a sound disk"),
            14 => {
                commit(&mut log);
                log.rotate().expect("a sound disk");
            }
            _ => log.make_ahead(),
        }
        if !log.has_unwritten() {
            written = all.len();
        }
    }
    let sealed = u.arbitrary()?;
    if sealed {
        commit(&mut log);
        log.seal().expect("a sound disk");
        written = all.len();
    }
    all.truncate(written);
    Ok((all, sealed && log.has_room(0, 2 * 72)))
}

fn commit(log: &mut Log) {
    log.write().and_then(|()| log.sync()).expect("a sound disk");
}

/// Says whether what was appended before is written now.
fn make_room(log: &mut Log, length: usize) -> bool {
    if log.has_room(1, length) {
        return false;
    }
    commit(log);
    if !log.has_room(1, length) {
        log.rotate().expect("a sound disk");
    }
    true
}

fn append(log: &mut Log, kind: u8, fill: u8, length: usize) -> Kept {
    let body: Vec<u8> = (0..length).map(|at| fill.wrapping_add((at % 251) as u8)).collect();
    let joined = fill & 1 == 1;
    let (seq, position) = log.append(RecordKind { kind, version: 1 }, joined, |out| out.extend_from_slice(&body));
    Kept { seq, kind, joined, body, segment: position.segment }
}

enum Damage {
    Nothing,
    Flip,
    Other,
}

/// Does one thing to the files.
fn damage(u: &mut Unstructured<'_>, files: &mut BTreeMap<String, Vec<u8>>) -> Result<Damage> {
    let names: Vec<String> = files.keys().cloned().collect();
    let how = u.int_in_range(0..=9)?;
    let name = u.choose(&names)?.clone();
    let other = u.choose(&names)?.clone();
    let at = usize::from(u.arbitrary::<u16>()?);
    let to = usize::from(u.arbitrary::<u16>()?);
    let Some(bytes) = files.get_mut(&name) else { return Ok(Damage::Nothing) };
    if bytes.is_empty() {
        return Ok(Damage::Nothing);
    }
    let at = at % bytes.len();
    let sector = at / SECTOR_BYTES * SECTOR_BYTES;
    let sector = sector..(sector + SECTOR_BYTES).min(bytes.len());
    match how {
        0..=3 => {
            bytes[at] ^= 1 << (to % 8);
            return Ok(Damage::Flip);
        }
        4 => bytes[at] = to as u8,
        5 => bytes[sector].fill(0),
        6 => bytes.truncate(at),
        7 => {
            // A sector that went to another place.
            let moved = bytes[sector].to_vec();
            let Some(target) = files.get_mut(&other) else { return Ok(Damage::Nothing) };
            let from = to.checked_rem(target.len()).unwrap_or(0) / SECTOR_BYTES * SECTOR_BYTES;
            for (to, from) in target.iter_mut().skip(from).zip(moved) {
                *to = from;
            }
        }
        8 => drop(files.remove(&name)),
        _ => {
            let (Some(one), Some(two)) = (files.get(&name).cloned(), files.get(&other).cloned()) else {
                return Ok(Damage::Nothing);
            };
            files.insert(name, two);
            files.insert(other, one);
        }
    }
    Ok(Damage::Other)
}

fn disk_of(files: &BTreeMap<String, Vec<u8>>) -> SimDisk {
    let disk = SimDisk::new(0);
    for (name, bytes) in files {
        let file = disk.create(name).expect("a sound disk");
        file.write_at(0, bytes).and_then(|()| file.sync_data()).expect("a sound disk");
    }
    disk.sync_dir().expect("a sound disk");
    disk
}

/// What opening the disk gives; what a reader then finds is the same.
fn open(disk: &SimDisk) -> std::result::Result<Vec<Kept>, recovery::OpenError> {
    let kept = |record: &StoredRecord| Kept {
        seq: record.seq,
        kind: record.kind,
        joined: record.joined,
        body: record.body.to_vec(),
        segment: record.position.segment,
    };
    let mut replayed = Vec::new();
    let opened = recovery::open(Arc::new(disk.clone()), OPTIONS, LOG_ID, &mut |_, record: StoredRecord| {
        replayed.push((kept(&record), record.position));
        Ok(())
    })?;
    let reader = opened.log.reader();
    for (record, position) in &replayed {
        assert_eq!(reader.read(*position, record.seq).expect("it was replayed"), record.body);
    }
    let scanned: Vec<Kept> = reader.scan(1).map(|record| kept(&record.expect("it was replayed"))).collect();
    let replayed: Vec<Kept> = replayed.into_iter().map(|(record, _)| record).collect();
    assert_eq!(scanned, replayed, "a reader finds something else");
    Ok(replayed)
}
