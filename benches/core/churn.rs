//! Does the disk stay within its bound while jobs by the million come and go, and few of them live?
//!
//! 10,000 jobs live at any time: half of them wait for ever, so that they are restated again and again, half wait their
//! turn. After every thousand the log's directory is measured, what its files take as much as what they claim; a program
//! that goes over the bound once has failed. The bound: 2 × live + retain + three segments + two checkpoints.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use biotope::clock::{Clock, RealClock};
use biotope::engine::{Engine, Handle};
use biotope::job::new::{NewJob, Start};

use crate::setup::{Work, ecosystem, fresh, generation, payload};

const LIVE: usize = 10_000;
const AT_A_TIME: usize = 1_000;
const SEGMENT: u64 = 8 << 20;
const RETAIN: u64 = 64 << 20;

/// What the log's directory holds.
#[derive(Debug, Default, Clone, Copy)]
struct Held {
    bytes: u64,
    checkpoint: u64,
    names: u64,
}

fn held(log: &Path) -> Held {
    let mut held = Held::default();
    for entry in std::fs::read_dir(log).unwrap() {
        let path = entry.unwrap().path();
        // What was listed may be gone, or have another name, by now: then it is counted with the next thousand.
        let Ok(meta) = path.metadata() else { continue };
        let bytes = meta.len().max(meta.blocks() * 512);
        held.bytes += bytes;
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("ckpt") => held.checkpoint = held.checkpoint.max(bytes),
            Some("names") => held.names = held.names.max(bytes),
            _ => {}
        }
    }
    held
}

fn push(handle: &Handle, delay: Option<Duration>) {
    let job = |_| {
        let mut job = NewJob::new("mail".parse().unwrap(), payload());
        job.start = delay.map_or(Start::Now, Start::After);
        job
    };
    for pushed in handle.push_many((0..AT_A_TIME).map(job).collect()) {
        pushed.unwrap();
    }
}

pub(crate) fn run(jobs: usize) {
    let place = fresh();
    let log = place.path().join("log");
    let done = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&done);
    let count: Work = Arc::new(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let mut spec = generation(place.path(), &["mail"], &count);
    (spec.config.log.segment, spec.config.log.retain) = (SEGMENT, RETAIN);
    for version in &mut spec.versions {
        version.worker.live.batch = 100;
    }
    spec.config.workers = spec.versions.iter().map(|version| version.worker.clone()).collect();
    let (handle, _) = Engine::open(spec, RealClock::shared()).unwrap();
    for _ in 0..LIVE / 2 / AT_A_TIME {
        push(&handle, Some(Duration::from_secs(365 * 86400)));
    }
    let began = RealClock.mono();
    let (mut nearest, mut least_room, mut pushed) = (0.0_f64, i64::MAX, 0_usize);
    while pushed < jobs {
        push(&handle, None);
        pushed += AT_A_TIME;
        // The live bytes of before or after: whatever is more, since the two are not measured at one moment.
        let held = held(&log);
        let view = ecosystem(&handle).log;
        let bound = 2 * view.live_bytes + RETAIN + 3 * SEGMENT + 2 * (held.checkpoint + held.names);
        let room = bound as i64 - held.bytes as i64;
        (nearest, least_room) = (nearest.max(held.bytes as f64 / bound as f64), least_room.min(room));
        assert!(room >= 0, "after {pushed} jobs {} bytes, more than {bound}: {held:?} {view:?}", held.bytes);
        while pushed as u64 - done.load(Ordering::Relaxed) > (LIVE / 2) as u64 {
            std::thread::yield_now();
        }
    }
    let took = RealClock.mono() - began;
    let view = ecosystem(&handle);
    handle.stop_and_wait();
    println!(
        "churn/sync_always/00200B_{jobs:08}  {:.0} jobs/s, {} segments written, {} left; at most {nearest:.2} of the \
         bound, {:.1} MB of room at least; {:.1} MB live",
        jobs as f64 / took.as_secs_f64(),
        view.log.active_segment,
        view.log.active_segment - view.log.head_segment + 1,
        least_room as f64 / 1e6,
        view.log.live_bytes as f64 / 1e6,
    );
}
