//! Looking at logs, and copies of them: what an opening refuses is seen, what holds is saved under its seq at its place.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::copy::{self, CopyError, Dropped, Identity, Keeping};
use super::super::disk::Disk;
use super::super::look::{Damage, LookError, RecordSeen, Seen, Summary, look};
use super::super::nearby::NearbyReader;
use super::super::reader::ReadError;
use super::super::stream::{Held, Receiver, broken_off};
use super::super::{LogId, LogOptions, Making, Position, RecordKind, StoredRecord, recovery, segment_name};
use super::{KIND, commit};
use crate::limits::RESTORE_EPOCHS;
use crate::simulate::disk::SimDisk;
use crate::types::Seq;

const SMALL: LogOptions =
    LogOptions { segment_bytes: 1024, frame_bytes_full: 256, frame_bytes_max: 512, making: Making::Stepped };
const LOST: RecordKind = RecordKind { kind: 200, version: 1 };

type Files = Vec<(String, Vec<u8>)>;

/// Three ended segments and a sealed tail.
fn three_and_a_tail() -> Files {
    let disk = SimDisk::new(1);
    let mut log = recovery::open(Arc::new(disk.clone()), SMALL, [1; 16], &mut |_, _| Ok(())).unwrap().log;
    for n in 0_u8.. {
        commit(&mut log, &[&[b'a' + n % 26; 20], &vec![b'A' + n % 26; usize::from(n)]]);
        if log.figures().active == 4 {
            break;
        }
    }
    commit(&mut log, &[b"the last one"]);
    log.seal().unwrap();
    drop(log);
    files_of(&disk)
}

fn files_of(disk: &SimDisk) -> Files {
    let mut names = disk.list().unwrap();
    names.sort();
    let read = |name: &String| {
        let file = disk.open(name).unwrap();
        let mut bytes = vec![0; usize::try_from(file.bytes().unwrap()).unwrap()];
        file.read_at(0, &mut bytes).unwrap();
        (name.clone(), bytes)
    };
    names.iter().map(read).collect()
}

fn disk_of(files: &Files) -> SimDisk {
    let disk = SimDisk::new(2);
    for (name, bytes) in files {
        let file = disk.create(name).unwrap();
        file.write_at(0, bytes).unwrap();
        file.sync_data().unwrap();
    }
    disk.sync_dir().unwrap();
    disk
}

type Records = BTreeMap<Seq, (Position, RecordKind, Vec<u8>)>;

fn seen(disk: &SimDisk) -> (Summary, Records, Vec<Damage>) {
    let (mut records, mut damages) = (Records::new(), Vec::new());
    let summary = look(disk, false, &mut |seen| {
        match seen {
            Seen::Segment { .. } => {}
            Seen::Frame(frame) => {
                for record in frame.records {
                    if let RecordSeen::Whole(record) = record {
                        let kind = RecordKind { kind: record.kind, version: record.version };
                        records.insert(record.seq, (record.position, kind, record.body.to_vec()));
                    }
                }
            }
            Seen::Damage(damage) => damages.push(damage),
        }
        Ok::<(), LookError>(())
    })
    .unwrap();
    (summary, records, damages)
}

/// The log's records by an opening, its names id and its epoch.
fn opened(disk: &SimDisk) -> Result<(Records, LogId, u32), recovery::OpenError> {
    let mut records = Records::new();
    let opened = recovery::open(Arc::new(disk.clone()), SMALL, [9; 16], &mut |_, record: StoredRecord| {
        let kind = RecordKind { kind: record.kind, version: record.version };
        records.insert(record.seq, (record.position, kind, record.body.to_vec()));
        Ok(())
    })?;
    Ok((records, opened.log.names_id(), opened.log.epoch()))
}

fn salvage(disk: &SimDisk, to: &SimDisk) -> Result<(Summary, usize), CopyError> {
    let mut dropped = 0;
    let mut keep = |_, _: &StoredRecord| Ok(());
    let mut tell = |_: Dropped<'_>| dropped += 1;
    let keeping = Keeping { lost: LOST, known: &mut |_, _| None, keep: &mut keep, dropped: &mut tell };
    let summary = copy::salvage(disk, to, [7; 16], keeping)?;
    Ok((summary, dropped))
}

#[test]
fn a_sound_log_is_seen_whole() {
    let files = three_and_a_tail();
    let (summary, records, damages) = seen(&disk_of(&files));
    assert_eq!(damages, []);
    assert_eq!((summary.head, summary.tail, summary.first_seq), (1, 4, 1));
    assert_eq!(summary.torn_bytes, 0);
    let (expected, ..) = opened(&disk_of(&files)).unwrap();
    assert!(records == expected && records.len() > 20);
    assert_eq!((summary.records, summary.next_seq), (records.len() as u64, records.len() as u64 + 1));
}

/// Every so-manieth bit; `tests/run --long` takes each.
fn step() -> usize {
    if std::env::var_os("BIOTOPE_TEST_LONG").is_some() { 1 } else { 11 }
}

#[test]
fn d4_a_flipped_bit_is_seen_where_an_opening_refuses_and_costs_one_record_at_most() {
    let good = three_and_a_tail();
    let whole = seen(&disk_of(&good)).1;
    let mut refused = 0;
    for file in 0..good.len() {
        for bit in (0..good[file].1.len() * 8).step_by(step()) {
            let what = format!("{} bit {bit}", good[file].0);
            let mut files = good.clone();
            files[file].1[bit / 8] ^= 1 << (bit % 8);
            let disk = disk_of(&files);
            let format_bits = (8 * 8..10 * 8).contains(&bit);
            if format_bits && file < 4 {
                // The format's own bits: a newer one, which nobody reads.
                assert!(opened(&disk).is_err(), "{what}");
                continue;
            }
            let opens = opened(&disk);
            let disk = disk_of(&files);
            let (summary, records, damages) = seen(&disk);
            assert_eq!(
                opens.is_ok(),
                damages.is_empty(),
                "{what}: {damages:?} {:?}",
                opens.err().map(|e| e.to_string())
            );
            for (seq, record) in &records {
                assert_eq!(Some(record), whole.get(seq), "{what}: a wrong record {seq}");
            }
            assert!(records.len() + 1 >= whole.len(), "{what}: {} of {}", records.len(), whole.len());
            if damages.is_empty() {
                assert!(records.len() == whole.len() || summary.torn_bytes > 0, "{what}");
                continue;
            }
            refused += 1;
            let to = SimDisk::new(3);
            let (_, dropped) = salvage(&disk, &to).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(dropped > 0, "{what}: nothing was told");
            assert!(files == files_of(&disk), "{what}: the original was changed");
            let (saved, names_id, _) = opened(&to).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(names_id, [1; 16], "{what}");
            let lost = saved.values().filter(|(_, kind, _)| *kind == LOST).count();
            assert!(lost <= 1 && saved.len() == whole.len(), "{what}: {lost} lost, {} records", saved.len());
            for (seq, record) in saved.iter().filter(|(_, (_, kind, _))| *kind != LOST) {
                assert_eq!(Some(record), whole.get(seq), "{what}: record {seq} is another, or elsewhere");
            }
        }
    }
    assert!(refused > 500, "{refused}");
}

#[test]
fn what_a_salvaged_log_has_lost_is_gone_and_no_damage_of_its_own() {
    let mut files = three_and_a_tail();
    let whole = seen(&disk_of(&files)).1;
    files.remove(1);
    let to = SimDisk::new(3);
    salvage(&disk_of(&files), &to).unwrap();
    let log = recovery::open(Arc::new(to.clone()), SMALL, [9; 16], &mut |_, _| Ok(())).unwrap().log;
    let (reader, mut nearby) = (log.reader(), NearbyReader::new(log.reader()));
    let of_segment = |number| whole.iter().filter(move |(_, (position, ..))| position.segment == number);
    let mut gone = 0;
    for (seq, (position, _, body)) in of_segment(2) {
        let found = [reader.read_if_kept(*position, *seq), nearby.read_if_kept(*position, *seq)];
        gone += found.iter().filter(|found| matches!(found, Err(ReadError::Gone { .. }))).count();
        assert!(found.into_iter().flatten().all(|found| found != *body), "record {seq} was not saved");
    }
    assert!(gone > 2 && reader.damaged().is_empty(), "{gone} gone, {:?}", reader.damaged());
    // What was kept and is damaged now is told.
    let (seq, (position, _, body)) = of_segment(3).next().unwrap();
    assert_eq!(reader.read_if_kept(*position, *seq).unwrap(), *body);
    assert!(to.rot(&segment_name(3), (position.offset as usize + 20) * 8));
    for found in [nearby.read_if_kept(*position, *seq), reader.read_if_kept(*position, *seq)] {
        assert!(matches!(found, Err(ReadError::Damaged { segment: 3, .. })), "{found:?}");
    }
    assert_eq!(reader.damaged().len(), 1);
}

#[test]
fn whole_segments_that_are_gone_or_foreign_are_told_and_the_others_saved() {
    let good = three_and_a_tail();
    let whole = seen(&disk_of(&good)).1;
    for gone in 0..3_usize {
        for how in ["removed", "foreign", "zeros", "cut"] {
            let mut files = good.clone();
            match how {
                "removed" => drop(files.remove(gone)),
                "foreign" => files[gone].1 = b"something else altogether".to_vec(),
                "zeros" => files[gone].1.fill(0),
                _ => files[gone].1.truncate(200),
            }
            let what = format!("segment {} {how}", gone + 1);
            let disk = disk_of(&files);
            assert!(opened(&disk_of(&files)).is_err(), "{what}");
            let (_, records, damages) = seen(&disk);
            assert!(damages.iter().any(|damage| damage.segment as usize == gone + 1), "{what}: {damages:?}");
            let to = SimDisk::new(3);
            salvage(&disk, &to).unwrap_or_else(|error| panic!("{what}: {error}"));
            let (saved, ..) = opened(&to).unwrap_or_else(|error| panic!("{what}: {error}"));
            let kept: Records = saved.into_iter().filter(|(_, (_, kind, _))| *kind != LOST).collect();
            assert!(kept == records, "{what}: not all that holds is saved, at its place");
            assert!(kept.iter().all(|(seq, record)| whole.get(seq) == Some(record)), "{what}");
        }
    }
}

#[test]
fn a_restored_log_has_the_same_records_at_the_same_places_and_an_identity_of_its_own() {
    let files = three_and_a_tail();
    let disk = disk_of(&files);
    let to = SimDisk::new(3);
    copy::copy(&disk, &to, Identity::New([7; 16]), LOST).unwrap();
    let (summary, ..) = seen(&to);
    assert_eq!(summary.log_id, [7; 16]);
    let (before, _, epoch) = opened(&disk_of(&files)).unwrap();
    let (after, names_id, epoch_after) = opened(&to).unwrap();
    assert!(before == after);
    assert_eq!(names_id, [1; 16], "ids that were given out stay good");
    assert_eq!(epoch_after, epoch + RESTORE_EPOCHS, "no fence of the other log is given again");
    // And again: the names go on from the first log, not from the one in between.
    let again = SimDisk::new(4);
    copy::copy(&to, &again, Identity::New([8; 16]), LOST).unwrap();
    let (third, names_id, _) = opened(&again).unwrap();
    assert!(third == before);
    assert_eq!(names_id, [1; 16]);
    // A segment of the one is foreign in the other.
    let mut mixed = files;
    mixed[1].1 = files_of(&again)[1].1.clone();
    assert!(matches!(opened(&disk_of(&mixed)), Err(recovery::OpenError::Foreign { .. })));
}

#[test]
fn a_copy_is_byte_by_byte_the_log_and_a_damaged_one_is_not_copied() {
    let files = three_and_a_tail();
    let to = SimDisk::new(3);
    copy::copy(&disk_of(&files), &to, Identity::Same, LOST).unwrap();
    for ((name, bytes), (copied, other)) in files.iter().zip(files_of(&to)) {
        assert_eq!(name, &copied);
        assert!(*bytes == other, "{name}");
    }
    let mut bad = files;
    bad[2].1[300] ^= 1;
    let refused = copy::copy(&disk_of(&bad), &SimDisk::new(3), Identity::Same, LOST);
    assert!(matches!(refused, Err(CopyError::Damaged(Damage { segment: 3, .. }))), "{refused:?}");
}

/// A held log of two ended segments, as a stream in pieces of any size.
fn stream(disk: &SimDisk, piece: usize) -> Vec<Vec<u8>> {
    let mut log = recovery::open(Arc::new(disk.clone()), SMALL, [1; 16], &mut |_, _| Ok(())).unwrap().log;
    for n in 0_u8..3 {
        commit(&mut log, &[&[b'a' + n; 100]]);
    }
    log.rotate().unwrap();
    commit(&mut log, &[b"in the second"]);
    log.rotate().unwrap();
    let held = Held::sealed(&log);
    assert_eq!(held.segments(), 2);
    // What is held is not recycled, whatever becomes of the head.
    log.move_head(3);
    commit(&mut log, &[b"the head has moved"]);
    let mut bytes = Vec::new();
    held.send(&mut |piece| {
        bytes.extend_from_slice(&piece);
        true
    })
    .unwrap();
    assert!(disk.list().unwrap().contains(&segment_name(1)));
    drop(held);
    commit(&mut log, &[b"let go"]);
    assert!(!disk.list().unwrap().contains(&segment_name(1)));
    bytes.chunks(piece).map(<[u8]>::to_vec).collect()
}

#[test]
fn a_backup_stream_is_taken_in_any_pieces_and_only_whole() {
    for piece in [1, 3, 7, 64, 100_000] {
        let pieces = stream(&SimDisk::new(1), piece);
        let to = SimDisk::new(2);
        let mut receiver = Receiver::new(&to);
        for piece in &pieces {
            receiver.take(piece).unwrap();
        }
        receiver.finish().unwrap();
        copy::read_back(&to).unwrap();
        assert_eq!(opened(&to).unwrap().0.len(), 4, "pieces of {piece}");

        let to = SimDisk::new(2);
        let mut receiver = Receiver::new(&to);
        for piece in pieces.iter().take(pieces.len() - 1) {
            receiver.take(piece).unwrap();
        }
        assert!(receiver.finish().is_err(), "pieces of {piece}: broken off, and taken for whole");
    }
    let to = SimDisk::new(2);
    let mut receiver = Receiver::new(&to);
    let told = receiver.take(&broken_off("segment 4 is damaged")).unwrap_err();
    assert_eq!(told.to_string(), "segment 4 is damaged");
    assert!(Receiver::new(&to).take(&[9; 100]).is_err());
}

#[test]
fn a_live_log_is_looked_at_while_it_is_written() {
    let disk = SimDisk::new(1);
    let mut log = recovery::open(Arc::new(disk.clone()), SMALL, [1; 16], &mut |_, _| Ok(())).unwrap().log;
    for n in 0_u8..60 {
        commit(&mut log, &[&[n; 100]]);
        if log.figures().active > log.figures().head + 1 {
            log.move_head(log.figures().active - 1);
        }
        // A frame is half written, and a segment half made.
        log.append(KIND, false, |out| out.extend_from_slice(&[n; 10]));
        let damages = std::cell::Cell::new(0);
        let summary = look(&disk, true, &mut |seen| {
            damages.set(damages.get() + u32::from(matches!(seen, Seen::Damage(_))));
            Ok::<(), LookError>(())
        })
        .unwrap();
        assert_eq!(damages.get(), 0);
        assert_eq!(summary.next_seq, log.durable_up_to(), "all that is durable is seen");
        log.write().unwrap();
        log.sync().unwrap();
    }
}

/// The header of a frame and those of its records may be on the disk, and the last body not: an opening cuts that.
#[test]
fn a_half_written_frame_is_a_torn_tail_to_who_looks_as_to_an_opening() {
    for live in [true, false] {
        let disk = SimDisk::new(1);
        let mut log = recovery::open(Arc::new(disk.clone()), SMALL, [1; 16], &mut |_, _| Ok(())).unwrap().log;
        commit(&mut log, &[b"one", b"two"]);
        log.append(KIND, false, |out| out.extend_from_slice(&[b'x'; 900]));
        let torn = log.begin_commit().unwrap();
        for written in (8..torn.frame.len()).step_by(50) {
            let mut part = torn.frame.clone();
            part[written..].fill(0);
            torn.file.write_at(torn.at, &part).unwrap();
            let summary = look(&disk, live, &mut |seen| {
                assert!(!matches!(seen, Seen::Damage(_)), "{written} bytes written, live {live}: {seen:?}");
                Ok::<(), LookError>(())
            })
            .unwrap();
            assert_eq!((summary.next_seq, summary.damages), (3, 0), "{written} bytes written, live {live}");
            let all = if written < 40 { 0 } else { torn.frame.len() as u64 };
            assert_eq!(summary.torn_bytes, all, "{written} bytes written, live {live}");
        }
        drop(log);
        assert_eq!(opened(&disk).unwrap().0.len(), 2);
    }
}

#[test]
fn d16_a_newer_format_is_no_damage_but_named() {
    let mut files = three_and_a_tail();
    files[2].1[8] = 9;
    let disk = disk_of(&files);
    let refused = look(&disk, false, &mut |_| Ok::<(), LookError>(()));
    assert!(matches!(refused, Err(LookError::Newer { found: 9, .. })), "{refused:?}");
    assert!(salvage(&disk, &SimDisk::new(3)).is_err(), "what a newer program wrote is not salvaged by an older one");
    let nothing = look(&SimDisk::new(1), false, &mut |_| Ok::<(), LookError>(()));
    assert!(matches!(nothing, Err(LookError::NoLog { .. })), "{nothing:?}");
}
