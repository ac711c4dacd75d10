//! Every decision of an opening, over all combinations of what it is decided by, as one reviewed table.

use std::fmt::Write as _;
use std::sync::Arc;

use super::super::disk::Disk;
use super::super::frame::{BadSegmentHeader, FrameHeader, FrameKind, SegmentHeader};
use super::super::verdict::{self, Before, Behind, LastFrames, Wrong};
use super::super::{OpenError, recovery, segment_name};
use super::{KIND, SMALL, commit};
use crate::simulate::disk::SimDisk;

fn said(wrong: &Wrong) -> String {
    match wrong {
        Wrong::Foreign { segment, why } => format!("foreign {segment}: {why}"),
        Wrong::Newer { segment, found } => format!("newer {segment}: format {found}"),
        Wrong::Corrupt { segment, offset, what } => format!("corrupt {segment} at {offset}: {what}"),
        Wrong::Missing { segment } => format!("missing {segment}"),
    }
}

fn names(out: &mut String) {
    writeln!(out, "# The name of a file\n").unwrap();
    for name in [
        "0000000001.seg",
        "4294967295.seg",
        "4294967296.seg",
        "000000001.seg",
        "0000000001.seg.tmp",
        "0000000001.seg.bak",
        "+000000001.seg",
        "LOCK",
    ] {
        writeln!(out, "{name:<20} {:?}", verdict::name(name)).unwrap();
    }
}

fn headers(out: &mut String) {
    writeln!(out, "\n# The header of the file of segment 7\n").unwrap();
    let good = SegmentHeader { log_id: [1; 16], segment: 7, head: 2, bytes: 4096, origin: [0; 16] };
    for (what, decoded) in [
        ("its own", Ok(good)),
        ("another segment's", Ok(SegmentHeader { segment: 8, ..good })),
        ("no magic", Err(BadSegmentHeader::Foreign)),
        ("format 9", Err(BadSegmentHeader::Newer { found: 9 })),
        ("bad checksum", Err(BadSegmentHeader::Damaged)),
    ] {
        let verdict = verdict::header(7, decoded).map_or_else(|wrong| said(&wrong), |_| "counts".to_owned());
        writeln!(out, "{what:<20} {verdict}").unwrap();
    }
}

fn sets(out: &mut String) {
    writeln!(out, "\n# Which segments are there, and whose (A, B: two logs)\n").unwrap();
    for there in 0..8_u32 {
        for other in 0..8_u32 {
            if other & !there != 0 {
                continue;
            }
            let found: Vec<_> = (0..3)
                .filter(|at| there >> at & 1 == 1)
                .map(|at| (at + 1, [u8::from(other >> at & 1 == 1); 16]))
                .collect();
            let shown: Vec<_> =
                found.iter().map(|(no, id)| format!("{no}{}", if id[0] == 0 { 'A' } else { 'B' })).collect();
            let verdict = verdict::one_log(&found).map_or_else(|wrong| said(&wrong), |()| "one log".to_owned());
            writeln!(out, "{:<20} {verdict}", shown.join(" ")).unwrap();
        }
    }
}

fn reaches(out: &mut String) {
    let title = "Segments from 5 on; the last one that holds a frame, and how that ends; the head as frames name it; \
                 a later segment that was begun";
    writeln!(out, "\n# {title}\n").unwrap();
    for count in 1..=4_usize {
        for at in std::iter::once(None).chain((0..count).map(Some)) {
            for (ended, head) in [false, true].into_iter().flat_map(|ended| (4..=8).map(move |head| (ended, head))) {
                if at.is_none() && (ended || head > 4) {
                    continue;
                }
                for begun in std::iter::once(None).chain((at.map_or(0, |at| at + 1)..count).map(Some)) {
                    one_reach(out, count, at.map(|at| LastFrames { at, ended, head }), begun);
                }
            }
        }
    }
}

fn one_reach(out: &mut String, count: usize, last: Option<LastFrames>, begun: Option<usize>) {
    let segments: Vec<_> = (5..).take(count).map(|number| (number, 1)).collect();
    let frames = last.map_or("none".to_owned(), |last| {
        format!("{} {}, head {}", 5 + last.at, if last.ended { "ended" } else { "open" }, last.head)
    });
    let shown = begun.map_or("-".to_owned(), |begun| format!("{} begun", 5 + begun));
    let verdict = verdict::reach(&segments, last, begun).map_or_else(
        |wrong| said(&wrong),
        |reach| format!("counts from {}, goes on in {}", reach.head, 5 + reach.active),
    );
    writeln!(out, "5 to {}   {frames:<16} {shown:<8} {verdict}", 4 + count).unwrap();
}

fn orders(out: &mut String) {
    writeln!(out, "\n# A whole frame with seq 10, epoch 3, after digest 77; what the frames before say\n").unwrap();
    let header = FrameHeader {
        bytes: 72,
        records: 0,
        log_id: [1; 16],
        segment: 1,
        epoch: 3,
        first_seq: 10,
        durable_up_to: 10,
        previous: 77,
        head: 1,
        kind: FrameKind::Data,
    };
    for next_seq in [None, Some(9), Some(10), Some(11)] {
        for previous in [None, Some(77), Some(78)] {
            for epoch in 2..=4 {
                let verdict = verdict::follows(&Before { next_seq, previous, epoch }, &header);
                let shown = |value: Option<u64>| value.map_or("-".to_owned(), |value| value.to_string());
                writeln!(
                    out,
                    "next seq {:<4} digest {:<4} epoch {epoch}   {}",
                    shown(next_seq),
                    shown(previous.map(u64::from)),
                    verdict.map_or_else(|what| what, |()| "follows".to_owned())
                )
                .unwrap();
            }
        }
    }
}

fn stops(out: &mut String) {
    writeln!(out, "\n# Where whole frames cease, the next seq being 10\n").unwrap();
    for tail in [false, true] {
        for ended in [false, true] {
            for begun in [false, true] {
                for behind in [
                    Behind::Nothing,
                    Behind::Frames { durable_up_to: 9 },
                    Behind::Frames { durable_up_to: 10 },
                    Behind::Frames { durable_up_to: 11 },
                ] {
                    let shown = match behind {
                        Behind::Nothing => "nothing".to_owned(),
                        Behind::Frames { durable_up_to } => format!("frames, durable up to {durable_up_to}"),
                    };
                    writeln!(
                        out,
                        "{:<9} {:<6} {:<6} behind: {shown:<27} {:?}",
                        if tail { "the tail" } else { "before it" },
                        if ended { "ended" } else { "open" },
                        if begun { "begun" } else { "bare" },
                        verdict::stop(tail, ended, begun, 10, behind)
                    )
                    .unwrap();
                }
            }
        }
    }
}

/// Bytes of a log of so many ended segments and an empty one, by name.
fn whole_log(id: u8, ended: u32) -> Vec<(String, Vec<u8>)> {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let mut opened = recovery::open(Arc::clone(&disk), SMALL, [id; 16], &mut |_, _| Ok(())).unwrap();
    for _ in 0..ended {
        commit(&mut opened.log, &[b"one"]);
        commit(&mut opened.log, &[b"two", b"three"]);
        opened.log.rotate().unwrap();
    }
    drop(opened);
    (1..=ended + 1).map(|number| (segment_name(number), bytes_of(disk.as_ref(), &segment_name(number)))).collect()
}

fn bytes_of(disk: &dyn Disk, name: &str) -> Vec<u8> {
    let file = disk.open(name).unwrap();
    let mut bytes = vec![0; usize::try_from(file.bytes().unwrap()).unwrap()];
    let read = file.read_at(0, &mut bytes).unwrap();
    bytes.truncate(read);
    bytes
}

fn open(files: &[(String, Vec<u8>)]) -> String {
    let disk = SimDisk::new(2);
    for (name, bytes) in files {
        let file = disk.create(name).unwrap();
        file.write_at(0, bytes).unwrap();
        file.sync_data().unwrap();
    }
    disk.sync_dir().unwrap();
    let mut records = 0;
    let opened = recovery::open(Arc::new(disk.clone()), SMALL, [9; 16], &mut |_, _| {
        records += 1;
        Ok(())
    });
    let number = |file: &std::path::Path| file.file_name().unwrap().to_str().unwrap()[..10].parse::<u32>().unwrap();
    match opened {
        Ok(opened) if opened.created => "a new log".to_owned(),
        Ok(opened) => {
            let figures = opened.log.figures();
            let cut = if opened.cut_bytes > 0 { format!(", cut {}", opened.cut_bytes) } else { String::new() };
            format!("opens {} to {}, {records} records{cut}", figures.head, figures.active)
        }
        Err(refused) => {
            for (name, bytes) in files {
                assert_eq!(&bytes_of(&disk, name), bytes, "a refused opening changed {name}");
            }
            match refused {
                OpenError::Foreign { file, .. } => format!("foreign {}", number(&file)),
                OpenError::Newer { file, .. } => format!("newer {}", number(&file)),
                OpenError::Corrupt { file, offset, .. } => format!("corrupt {} at {offset}", number(&file)),
                OpenError::Missing { file } => format!("missing {}", number(&file)),
                OpenError::Io { source, .. } => format!("io {source}"),
            }
        }
    }
}

/// Place of a frame of a kind in a segment's bytes, and its length: the `nth` one that begins there.
fn frame_at(bytes: &[u8], nth: usize) -> usize {
    let mut at = 64;
    for _ in 0..nth {
        at += super::super::frame::claimed_bytes(&bytes[at..]).unwrap();
    }
    at
}

const STATES: [&str; 11] = [
    "-",
    "ended",
    "open",
    "fresh",
    "stale",
    "bad frame",
    "foreign",
    "newer",
    "bad header",
    "misnumbered",
    "other log's",
];

/// The bytes of segment `number` in a state.
fn in_state(state: &str, number: usize, own: &[(String, Vec<u8>)], other: &[(String, Vec<u8>)]) -> Option<Vec<u8>> {
    let mut bytes = own[number - 1].1.clone();
    match state {
        "-" => return None,
        "ended" => {}
        "open" => {
            let end = frame_at(&bytes, 2);
            bytes[end..].fill(0);
        }
        "fresh" => bytes[64..].fill(0),
        // A recycled file: its header is new, its frames are an older segment's.
        "stale" => bytes[64..].copy_from_slice(&own[number % 3].1[64..]),
        "bad frame" => bytes[64 + 80] ^= 1,
        "foreign" => bytes = b"something else altogether".to_vec(),
        "newer" => bytes[8] = 2,
        "bad header" => bytes[20] ^= 1,
        "misnumbered" => bytes.clone_from(&own[number % 3].1),
        "other log's" => bytes.clone_from(&other[number - 1].1),
        _ => unreachable!("{state}"),
    }
    Some(bytes)
}

fn directories(out: &mut String) {
    writeln!(out, "\n# Directories: segments 1 and 2 in every state, and a fresh segment 3 or none\n").unwrap();
    let (own, other) = (whole_log(1, 3), whole_log(2, 3));
    for first in STATES {
        for second in STATES {
            for third in ["-", "fresh"] {
                let states = [first, second, third];
                let files: Vec<_> = (1..)
                    .zip(states)
                    .filter_map(|(number, state)| {
                        let bytes = in_state(state, number, &own, &other)?;
                        Some((segment_name(u32::try_from(number).unwrap()), bytes))
                    })
                    .collect();
                writeln!(out, "1 {first:<12} 2 {second:<12} 3 {third:<6} {}", open(&files)).unwrap();
            }
        }
    }
}

fn tails(out: &mut String) {
    writeln!(out, "\n# A tail of frames A, B and what follows them, with one of them damaged\n").unwrap();
    for after in ["nothing", "a seal", "a frame"] {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
        let mut log = recovery::open(Arc::clone(&disk), SMALL, [1; 16], &mut |_, _| Ok(())).unwrap().log;
        commit(&mut log, &[b"A"]);
        commit(&mut log, &[b"B"]);
        match after {
            "a seal" => log.seal().unwrap(),
            "a frame" => {
                // Written, and then the power is gone: B was durable by then.
                log.append(KIND, false, |out| out.extend_from_slice(b"C"));
                log.write().unwrap();
            }
            _ => {}
        }
        drop(log);
        let bytes = bytes_of(disk.as_ref(), &segment_name(1));
        let frames = if after == "nothing" { 2 } else { 3 };
        for (nth, which) in ["A", "B", after].into_iter().enumerate().take(frames) {
            for (part, offset) in [("magic", 0), ("length", 8), ("header", 48), ("record", 80)] {
                let mut bad = bytes.clone();
                let at = frame_at(&bytes, nth) + offset;
                let end = frame_at(&bytes, nth + 1);
                if at >= end {
                    continue;
                }
                bad[at] ^= 1;
                let files = [(segment_name(1), bad)];
                writeln!(out, "then {after:<9} bad {part:<7} of {which:<9} {}", open(&files)).unwrap();
            }
        }
        writeln!(out, "then {after:<9} {:<25} {}", "nothing bad", open(&[(segment_name(1), bytes)])).unwrap();
    }
}

#[test]
fn every_decision_of_an_opening_is_the_reviewed_one() {
    let mut shown = String::new();
    names(&mut shown);
    headers(&mut shown);
    sets(&mut shown);
    reaches(&mut shown);
    orders(&mut shown);
    stops(&mut shown);
    directories(&mut shown);
    tails(&mut shown);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/recovery.txt");
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        std::fs::write(path, &shown).unwrap();
    }
    let reviewed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(reviewed == shown, "the decisions are not those of {path}; UPDATE_FIXTURES=1 writes it anew, for review");
}
