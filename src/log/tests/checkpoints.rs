//! Checkpoints that fail, are damaged, or are of no use.

use std::sync::Arc;

use super::super::checkpoint::{self, Sort, Writer};
use super::super::disk::Disk;
use super::super::frame::RecordRef;
use super::super::{LogId, LogOptions, Making, OpenError, Position, recovery, segment_name};
use super::{SMALL, commit};
use crate::simulate::disk::{Fault, SimDisk};

#[test]
fn d10_a_checkpoint_that_fails_anywhere_leaves_nothing_behind() {
    let mut whole = false;
    for calls in 0..40 {
        let disk = SimDisk::new(5);
        let mut log = recovery::open(Arc::new(disk.clone()), SMALL, [1; 16], &mut |_, _| Ok(())).unwrap().log;
        commit(&mut log, &[b"one"]);
        log.rotate().unwrap();
        let beginning = log.beginning();
        disk.plan(calls, Fault::Once);
        let made = Writer::begin(Sort::Table, &beginning).and_then(|mut writer| {
            writer.block(&[7; 300_000])?;
            writer.block(b"end")?;
            writer.finish()
        });
        let struck = disk.has_struck();
        disk.unplan();
        let names: Vec<String> = disk.list().unwrap().into_iter().filter(|name| name.contains(".ckpt")).collect();
        if names.is_empty() {
            assert!(made.is_err(), "call {calls}");
        } else {
            // It has its name as its last but one deed: what fails after that leaves it there, whole.
            assert_eq!(names, ["0000000002.ckpt"], "call {calls}");
        }
        whole |= made.is_ok() && !struck;
    }
    assert!(whole, "without a fault it is made");
}

/// Takes whatever a checkpoint has, and counts it and the records.
#[derive(Default)]
struct Counts {
    blocks: usize,
    records: usize,
}

impl recovery::Replay for Counts {
    fn takes_checkpoints(&self) -> bool {
        true
    }

    fn begin(&mut self, _: LogId) {
        *self = Self::default();
    }

    fn block(&mut self, _: &[u8]) -> Result<(), String> {
        self.blocks += 1;
        Ok(())
    }

    fn record(&mut self, _: LogId, _: Position, _: RecordRef<'_>) -> Result<(), String> {
        self.records += 1;
        Ok(())
    }
}

#[test]
fn d10_a_checkpoint_is_of_use_within_what_counts_and_set_aside_only_by_an_opening() {
    for making in [Making::Stepped, Making::Thread] {
        let options = LogOptions { making, ..SMALL };
        let made = || {
            let disk = SimDisk::new(5);
            let mut log = recovery::open(Arc::new(disk.clone()), SMALL, [1; 16], &mut |_, _| Ok(())).unwrap().log;
            commit(&mut log, &[b"one"]);
            log.rotate().unwrap();
            let mut writer = Writer::begin(Sort::Table, &log.beginning()).unwrap();
            writer.block(&[7; 300]).unwrap();
            writer.finish().unwrap();
            commit(&mut log, &[b"two"]);
            disk
        };
        let open = |disk: &SimDisk| {
            let mut counts = Counts::default();
            let opened = recovery::open(Arc::new(disk.clone()), options, [9; 16], &mut counts);
            (opened.map(|opened| opened.cut_bytes), counts.blocks, counts.records)
        };
        let names = |disk: &SimDisk| -> Vec<String> {
            disk.list().unwrap().into_iter().filter(|name| name.contains(".ckpt")).collect()
        };
        let whole = made();
        let (opened, blocks, records) = open(&whole);
        assert_eq!((opened.unwrap(), blocks, records), (0, 1, 1), "{making:?}");
        // The header, then a block: a checkpoint that is damaged is set aside where the log opens.
        for byte in [20, 200] {
            let damaged = made();
            assert!(damaged.rot("0000000002.ckpt", byte * 8));
            let (opened, blocks, records) = open(&damaged);
            assert_eq!((opened.unwrap(), blocks, records), (0, 0, 2), "{making:?}, byte {byte}");
            assert_eq!(names(&damaged), ["0000000002.ckpt.bad"], "{making:?}, byte {byte}");
            // Where it does not, nothing is changed.
            let refused = made();
            assert!(refused.rot("0000000002.ckpt", byte * 8));
            refused.remove(&segment_name(1)).unwrap();
            let (opened, ..) = open(&refused);
            assert!(matches!(opened, Err(OpenError::Missing { .. })), "{making:?}, byte {byte}: {opened:?}");
            assert_eq!(names(&refused), ["0000000002.ckpt"], "{making:?}, byte {byte}");
        }
    }
}

/// Refuses every record that comes after a checkpoint, or every one.
struct Refuses {
    all: bool,
    counts: Counts,
}

impl recovery::Replay for Refuses {
    fn takes_checkpoints(&self) -> bool {
        true
    }

    fn begin(&mut self, id: LogId) {
        self.counts.begin(id);
    }

    fn block(&mut self, block: &[u8]) -> Result<(), String> {
        self.counts.block(block)
    }

    fn record(&mut self, id: LogId, position: Position, record: RecordRef<'_>) -> Result<(), String> {
        if self.all || self.counts.blocks > 0 {
            return Err("it cannot have been written".to_owned());
        }
        self.counts.record(id, position, record)
    }
}

/// A mistake in what a checkpoint holds costs time, and no log.
#[test]
fn d10_a_checkpoint_from_which_the_log_does_not_go_on_is_done_without() {
    for all in [false, true] {
        let disk = SimDisk::new(5);
        let mut log = recovery::open(Arc::new(disk.clone()), SMALL, [1; 16], &mut |_, _| Ok(())).unwrap().log;
        commit(&mut log, &[b"one"]);
        log.rotate().unwrap();
        let mut writer = Writer::begin(Sort::Table, &log.beginning()).unwrap();
        writer.block(&[7; 300]).unwrap();
        writer.finish().unwrap();
        commit(&mut log, &[b"two"]);
        let mut refuses = Refuses { all, counts: Counts::default() };
        let opened = recovery::open(Arc::new(disk.clone()), SMALL, [9; 16], &mut refuses);
        let names = disk.list().unwrap();
        let is_there = |name: &str| names.iter().any(|there| there == name);
        if all {
            assert!(matches!(opened.map(|_| ()), Err(OpenError::Corrupt { .. })));
            assert!(is_there("0000000002.ckpt"), "nothing is changed: {names:?}");
        } else {
            assert_eq!(opened.unwrap().unfit_checkpoint, Some(2));
            assert_eq!((refuses.counts.blocks, refuses.counts.records), (0, 2));
            assert!(is_there("0000000002.ckpt.bad") && !is_there("0000000002.ckpt"), "{names:?}");
        }
    }
}

/// Each upgrade that writes checkpoints of another shape sets those of the one before aside.
#[test]
fn of_checkpoints_that_are_set_aside_two_stay() {
    let disk = SimDisk::new(5);
    for segment in 2..8 {
        for sort in [Sort::Table, Sort::Names] {
            let ending = if matches!(sort, Sort::Table) { "ckpt" } else { "names" };
            disk.create(&format!("{segment:010}.{ending}")).unwrap();
            checkpoint::set_aside(&disk, sort, segment);
        }
    }
    let mut names = disk.list().unwrap();
    names.sort();
    let two = |ending: &str| [6, 7].map(|segment| format!("{segment:010}.{ending}.bad"));
    let mut expected = [two("ckpt"), two("names")].concat();
    expected.sort();
    assert_eq!(names, expected);
}
