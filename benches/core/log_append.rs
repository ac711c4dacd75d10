//! How much of the disk's rate do full frames of the log get? Records of 200 bytes, in frames of 1 MiB, each synced, into
//! segments that were recycled; beside it frames of the same size, with nothing in them.

use std::path::Path;
use std::sync::Arc;

use biotope::clock::{Clock, RealClock};
use biotope::log::disk::RealDisk;
use biotope::log::{Log, LogOptions, RecordKind, recovery};

use crate::raw;
use crate::setup::{fresh, median};

const ROUNDS: usize = 5;
const FRAMES: usize = 256;
/// Frames before it counts: by then segments are recycled.
const WARM_UP: usize = 256;
const FRAME_BYTES: usize = 1 << 20;
const RECORD_BYTES: usize = 200;

pub(crate) fn run() {
    let (mut ours, mut limit) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        limit.push(raw::frames(fresh().path(), FRAME_BYTES, FRAMES));
        ours.push(append(fresh().path()));
    }
    let (ours, limit) = (median(ours), median(limit));
    let records = ours / (RECORD_BYTES + 12) as f64;
    println!("log_append/sync_always/00200B_t01  raw {:>7.0} MB/s", limit / 1e6);
    println!(
        "log_append/sync_always/00200B_t01  log {:>7.0} MB/s  {:.2} of raw  (at least 0.60)  {records:.0} records/s",
        ours / 1e6,
        ours / limit
    );
}

/// Bytes a second.
fn append(dir: &Path) -> f64 {
    let disk = Arc::new(RealDisk::open(dir).unwrap());
    let mut log = recovery::open(disk, LogOptions::new(64 << 20), [7; 16], &mut |_, _| Ok(())).unwrap().log;
    let body = [7; RECORD_BYTES];
    fill(&mut log, &body, WARM_UP);
    let (began, before) = (RealClock.mono(), log.figures().written_bytes);
    fill(&mut log, &body, FRAMES);
    let bytes = log.figures().written_bytes - before;
    bytes as f64 / (RealClock.mono() - began).as_secs_f64()
}

fn fill(log: &mut Log, body: &[u8], frames: usize) {
    for _ in 0..frames {
        if !log.has_room(FRAME_BYTES / RECORD_BYTES, FRAME_BYTES) {
            log.rotate().unwrap();
            // Nothing lives in the segments before: they are recycled.
            log.move_head(log.figures().active);
        }
        while !log.is_full() {
            log.append(RecordKind { kind: 1, version: 1 }, false, |out| out.extend_from_slice(body));
        }
        log.write().unwrap();
        log.sync().unwrap();
    }
}
