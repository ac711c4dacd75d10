//! Damage while the log serves: found, told, kept, and forgotten only when somebody took the file away.

use std::sync::Arc;

use super::super::disk::Disk;
use super::super::scrub::Scrub;
use super::super::{Log, recovery, segment_name};
use super::{KIND, SMALL, commit};
use crate::simulate::disk::{Fault, SimDisk};

fn open(disk: &SimDisk) -> Log {
    recovery::open(Arc::new(disk.clone()), SMALL, [1; 16], &mut |_, _| Ok(())).unwrap().log
}

/// Three ended segments of four commits each, and one that is written.
fn three_segments(disk: &SimDisk) -> Log {
    let mut log = open(disk);
    for n in 0_u8..13 {
        commit(&mut log, &[&[n; 30], b"more"]);
        if n % 4 == 3 {
            log.rotate().unwrap();
            log.make_ahead();
        }
    }
    log
}

fn scrub(log: &Log) -> u64 {
    let mut scrub = Scrub::new(&log.reader());
    std::iter::from_fn(|| scrub.step()).sum()
}

#[test]
fn a_pass_over_a_whole_log_reads_all_that_is_ended_and_finds_nothing() {
    let log = three_segments(&SimDisk::new(1));
    let ended: u64 = scrub(&log);
    assert!(ended > 3 * 4 * 100, "{ended} bytes read");
    assert!(log.reader().damaged().is_empty());
}

#[test]
fn a_pass_finds_any_bit_that_has_changed_in_what_is_ended() {
    let disk = SimDisk::new(1);
    let log = three_segments(&disk);
    drop(log);
    let mut found = 0;
    for segment in 1..=3_u32 {
        let name = segment_name(segment);
        let written = disk.bytes_of(&name).unwrap().iter().rposition(|byte| *byte != 0).unwrap() + 1;
        for bit in (64 * 8..written * 8).step_by(7) {
            let disk = SimDisk::new(1);
            let log = three_segments(&disk);
            assert!(disk.rot(&name, bit));
            scrub(&log);
            let places = log.reader().damaged();
            // What lies between frames, and says nothing, may be anything.
            if let [place] = places.as_slice() {
                assert_eq!(place.segment, segment, "bit {bit}: {place:?}");
                assert!((place.offset as usize) * 8 <= bit, "bit {bit}: {place:?}");
                found += 1;
            } else {
                assert_eq!(places, [], "bit {bit} of {name}");
                let mut whole = disk.bytes_of(&name).unwrap().to_vec();
                whole[bit / 8] ^= 1 << (bit % 8);
                let frame = (64..=bit / 8).rev().find(|at| whole[*at..].starts_with(&super::super::frame::FRAME_MAGIC));
                let end = frame.map(|at| at + super::super::frame::claimed_bytes(&whole[at..]).unwrap());
                panic!("bit {bit} of {name} went unnoticed; it lies in a frame that ends at {end:?}");
            }
        }
    }
    assert!(found > 1000, "{found}");
}

#[test]
fn a_pass_that_could_not_read_everything_says_so() {
    let disk = SimDisk::new(1);
    let log = three_segments(&disk);
    let pass = || {
        let mut scrub = Scrub::new(&log.reader());
        while scrub.step().is_some() {}
        scrub.is_complete()
    };
    assert!(pass());
    disk.plan(2, Fault::Once);
    assert!(!pass());
    assert!(disk.has_struck() && log.reader().damaged().is_empty(), "it may be read the next time");
    assert!(pass());
}

#[test]
fn what_is_damaged_is_known_after_a_start_set_aside_and_forgotten_with_its_file() {
    let disk = SimDisk::new(1);
    let mut log = three_segments(&disk);
    assert!(disk.rot(&segment_name(2), 150 * 8));
    scrub(&log);
    let known = log.reader().damaged();
    assert_eq!((known.len(), known[0].segment, known[0].seq), (1, 2, 9), "{known:?}");
    // The head passes: what is whole is used again, what is damaged is kept.
    log.move_head(4);
    commit(&mut log, &[b"the head has moved"]);
    commit(&mut log, &[b"and that is durable"]);
    let names = disk.list().unwrap();
    assert!(names.contains(&"0000000002.seg.damaged".to_owned()), "{names:?}");
    for whole in [1, 2, 3] {
        assert!(!names.contains(&segment_name(whole)), "{names:?}");
    }
    drop(log);
    assert_eq!(open(&disk).reader().damaged(), known, "a later process knows as much");
    disk.remove("0000000002.damage").unwrap();
    let without_its_note = open(&disk).reader().damaged();
    assert_eq!((without_its_note.len(), without_its_note[0].segment), (1, 2), "{without_its_note:?}");
    disk.remove("0000000002.seg.damaged").unwrap();
    assert_eq!(open(&disk).reader().damaged(), [], "who took the file away knows");
    assert_eq!(disk.list().unwrap().iter().filter(|name| name.contains("damage")).count(), 0);
}

#[test]
fn no_more_than_three_damaged_segments_are_kept() {
    let disk = SimDisk::new(1);
    let mut log = three_segments(&disk);
    for n in 13_u8..21 {
        commit(&mut log, &[&[n; 30], b"more"]);
        if n % 4 == 3 {
            log.rotate().unwrap();
            log.make_ahead();
        }
    }
    (1..=5).for_each(|segment| assert!(disk.rot(&segment_name(segment), 150 * 8), "segment {segment}"));
    scrub(&log);
    assert_eq!(log.reader().damaged().len(), 5);
    log.move_head(6);
    commit(&mut log, &[b"the head has moved"]);
    commit(&mut log, &[b"and that is durable"]);
    let kept = || disk.list().unwrap().into_iter().filter(|name| name.ends_with(".damaged")).collect::<Vec<_>>();
    assert_eq!(kept(), ["0000000001.seg.damaged", "0000000002.seg.damaged", "0000000003.seg.damaged"]);
    assert_eq!(log.reader().set_aside_count(), 3);
    drop(log);
    let reader = open(&disk).reader();
    assert_eq!((reader.set_aside_count(), reader.damaged().len()), (3, 3));
}

#[test]
fn a_start_keeps_a_damaged_segment_that_the_head_had_passed_before_it() {
    let disk = SimDisk::new(1);
    let mut log = three_segments(&disk);
    assert!(disk.rot(&segment_name(2), 150 * 8));
    scrub(&log);
    let known = log.reader().damaged();
    assert_eq!(known.len(), 1, "{known:?}");
    // The frame that moves the head is written, and the process ends before it frees what the head has passed.
    log.move_head(4);
    log.append(KIND, false, |body| body.extend_from_slice(b"the head has moved"));
    log.write().unwrap();
    drop(log);
    assert!(disk.list().unwrap().contains(&segment_name(2)), "it is not set aside yet");
    assert_eq!(open(&disk).reader().damaged(), known);
    let names = disk.list().unwrap();
    assert!(names.contains(&"0000000002.seg.damaged".to_owned()), "{names:?}");
    assert!(!names.contains(&segment_name(2)), "{names:?}");
}
