//! The whole life of a job through the public API, beside the raw loop: the same bytes, written and synced.
//!
//! `cargo bench --bench lifecycle` prints, first, what the disk itself does with the same frames; then jobs a second
//! from push to durable ack, of one who pushes and of two at a time, and durable pushes a second of 64 producers with one job in flight each. Medians of five.
//! Beside them stands a plain loop that keeps no table and does one thing after the other: it writes and syncs 1,000 pushes,
//! then 1,000 ends.
//! Both the log and the raw loop write to files that were written before: the log has run for a while when the clock
//! starts, so that its segments are recycled ones.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a program that measures, and prints")]

use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use biotope::clock::{Clock, RealClock};
use biotope::config::{Config, FreeMin, KindConfig, LiveConfig, LogConfig, SyncPolicy, WorkerConfig};
use biotope::engine::view::{EcosystemView, LogView};
use biotope::engine::{Engine, GenerationSpec, Handle, VersionSpec};
use biotope::job::new::NewJob;
use biotope::log::frame::{Frame, SEGMENT_HEADER_BYTES};
use biotope::worker::native::{Context, Natives, Raw};

const JOBS: usize = 500_000;
/// Jobs before those that are measured: more than the log keeps, so that its segments are used again.
const JOBS_BEFORE: usize = 1_200_000;
const AT_A_TIME: usize = 1_000;
/// Bytes of the plain loop's records: of a job, and of its end.
const PLAIN_BYTES: [usize; 2] = [256, 32];
const ROUNDS: usize = 5;
const PRODUCERS: usize = 64;
const PUSHES_EACH: usize = 3_000;

fn spec(dir: &Path, names: &[&str], batch: u32) -> GenerationSpec {
    let live = LiveConfig { batch, ..LiveConfig::default() };
    let worker = |name: &&str| WorkerConfig {
        worker_type: name.parse().unwrap(),
        version: "v1".parse().unwrap(),
        kind: KindConfig::Native,
        live: live.clone(),
    };
    let workers: Vec<WorkerConfig> = names.iter().map(worker).collect();
    let mut natives = Natives::new();
    for name in names {
        let ack = |payload: Raw, _: &mut Context<'_>| assert!(payload.len() >= 200);
        natives.register_fn(name, "1", ack).unwrap();
    }
    let version = |worker: &WorkerConfig| {
        let (factory, _) = natives.get(worker.worker_type.as_str()).unwrap();
        VersionSpec { worker: worker.clone(), definition_hash: [1; 32], factory }
    };
    let versions = workers.iter().map(version).collect();
    let config = Config {
        serving: Default::default(),
        access: Default::default(),
        core_dumps: false,
        log_output: Default::default(),
        history_index: false,
        data_dir: dir.to_path_buf(),
        stop_timeout: Duration::from_secs(25),
        workers_max: 1024,
        listen: "127.0.0.1:0".parse().unwrap(),
        log: LogConfig {
            sync: SyncPolicy::Always,
            retain: 256 << 20,
            segment: 64 << 20,
            payload_max: 1 << 20,
            result_max: 64 << 10,
            dead_retain: Duration::from_secs(90 * 86400),
            dead_max: 100_000,
            scrub: None,
            disk_max: None,
            disk_free_min: FreeMin::Share(0),
            scrub_rate: 16 << 20,
        },
        workers,
    };
    GenerationSpec { config, versions, text: Arc::from(""), access: Default::default() }
}

fn payload() -> Vec<u8> {
    let mut text = br#"{"order":123456,"note":""#.to_vec();
    text.resize(198, b'x');
    text.extend_from_slice(br#""}"#);
    text
}

fn ecosystem(handle: &Handle) -> EcosystemView {
    let (to, from) = crossbeam_channel::bounded(1);
    handle.ecosystem(Box::new(move |view| to.send(view).unwrap()));
    from.recv().unwrap().unwrap()
}

/// So many `pushers` push so many jobs together; waits until all that were ever pushed are done, durably; the log's figures then.
fn push_and_wait(handle: &Handle, pushers: usize, jobs: usize, all: usize) -> LogView {
    std::thread::scope(|scope| {
        for _ in 0..pushers {
            scope.spawn(|| {
                let payload = payload();
                for _ in 0..jobs / pushers / AT_A_TIME {
                    let batch = (0..AT_A_TIME).map(|_| NewJob::new("ack".parse().unwrap(), payload.clone())).collect();
                    for pushed in handle.push_many(batch) {
                        pushed.unwrap();
                    }
                }
            });
        }
    });
    loop {
        let view = ecosystem(handle);
        if view.types.iter().map(|of_type| of_type.completed).sum::<u64>() >= all as u64 {
            break view.log;
        }
    }
}

/// Jobs a second from the first push to the last durable ack, and the sizes of the frames that the log wrote for them.
fn lifecycle(dir: &Path, pushers: usize, before: usize, jobs: usize) -> (f64, Vec<usize>) {
    let clock = RealClock::shared();
    let (handle, _) = Engine::open(spec(dir, &["ack"], 100), Arc::clone(&clock)).unwrap();
    let first = push_and_wait(&handle, pushers, before, before).durable_up_to;
    let began = clock.mono();
    let last = push_and_wait(&handle, pushers, jobs, before + jobs).durable_up_to;
    let took = clock.mono().saturating_sub(began);
    handle.stop_and_wait();
    (jobs as f64 / took.as_secs_f64(), frames(dir, first..last))
}

/// Sizes of the frames of a log's directory that begin with one of these records, in order.
fn frames(dir: &Path, seqs: Range<u64>) -> Vec<usize> {
    let mut files: Vec<_> = std::fs::read_dir(dir.join("log")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    files.sort();
    let mut found = Vec::new();
    for file in files {
        let bytes = std::fs::read(file).unwrap();
        let mut at = SEGMENT_HEADER_BYTES;
        // What follows a segment's last frame is of an earlier use of the file: its seqs are lower.
        while let Some(frame) = bytes.get(at..).and_then(Frame::decode) {
            let size = frame.header.bytes as usize;
            if seqs.contains(&frame.header.first_seq) {
                found.push(size);
            }
            at += size;
        }
    }
    found
}

/// Durable pushes a second of many producers, each with one job in flight.
fn producers(dir: &Path) -> f64 {
    let clock = RealClock::shared();
    let (handle, _) = Engine::open(spec(dir, &[], 1), Arc::clone(&clock)).unwrap();
    handle.stop_and_wait();
    // The type is known, and nobody serves it: its jobs are parked, so that pushes alone are measured.
    let (handle, _) = Engine::open(spec(dir, &["idle"], 1), Arc::clone(&clock)).unwrap();
    handle.stop_and_wait();
    let (handle, _) = Engine::open(spec(dir, &[], 1), Arc::clone(&clock)).unwrap();
    let began = clock.mono();
    std::thread::scope(|scope| {
        for _ in 0..PRODUCERS {
            scope.spawn(|| {
                let payload = payload();
                for _ in 0..PUSHES_EACH {
                    handle.push(NewJob::new("idle".parse().unwrap(), payload.clone())).unwrap();
                }
            });
        }
    });
    let took = clock.mono().saturating_sub(began);
    handle.stop_and_wait();
    (PRODUCERS * PUSHES_EACH) as f64 / took.as_secs_f64()
}

/// Frames of these sizes, written and synced one after the other on a file that was written before.
fn raw(dir: &Path, jobs: usize, frames: &[usize]) -> f64 {
    let bytes = vec![7_u8; frames.iter().copied().max().unwrap_or(1)];
    let size = 64_u64 << 20;
    let file = std::fs::File::create(dir.join("raw")).unwrap();
    for at in 0..64 {
        file.write_all_at(&vec![1; 1 << 20], at << 20).unwrap();
    }
    file.sync_all().unwrap();
    let clock = RealClock;
    let began = clock.mono();
    let mut at = 0;
    for frame in frames.iter().filter_map(|size| bytes.get(..*size)) {
        if at + frame.len() as u64 > size {
            at = 0;
        }
        file.write_all_at(frame, at).unwrap();
        file.sync_data().unwrap();
        at += frame.len() as u64;
    }
    jobs as f64 / clock.mono().saturating_sub(began).as_secs_f64()
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or(f64::NAN)
}

fn main() {
    // Beside the build, on the disk that holds it: a temporary directory may lie in memory.
    let place = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let fresh = || tempfile::tempdir_in(place).unwrap();
    let asked: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let is_asked = |part: &str| asked.is_empty() || asked.iter().any(|word| word == part);
    if is_asked("jobs") {
        // In turns, so that what else the machine does falls on both; each raw loop has the frames of the run before it.
        for pushers in [1, 2] {
            let (mut rates, mut raw_rates, mut plain_rates, mut shapes) = (vec![], vec![], vec![], vec![]);
            for _ in 0..ROUNDS {
                let (rate, frames) = lifecycle(fresh().path(), pushers, JOBS_BEFORE, JOBS);
                let bytes: usize = frames.iter().sum();
                rates.push(rate);
                raw_rates.push(raw(fresh().path(), JOBS, &frames));
                let plain = PLAIN_BYTES.map(|bytes| bytes * AT_A_TIME).repeat(JOBS / AT_A_TIME);
                plain_rates.push(raw(fresh().path(), JOBS, &plain));
                shapes.push(format!(
                    "{} B a job in frames of {} KiB",
                    bytes / JOBS,
                    bytes / frames.len().max(1) / 1024
                ));
            }
            let of = |others: &[f64]| median(rates.iter().zip(others).map(|(rate, other)| rate / other).collect());
            let (of_raw, of_plain) = (of(&raw_rates), of(&plain_rates));
            println!("raw loop        {:>12.0} jobs/s  ({})", median(raw_rates), shapes.join(", "));
            println!("plain loop      {:>12.0} jobs/s", median(plain_rates));
            println!(
                "{pushers} at a time     {:>12.0} jobs/s  {of_raw:.2} of raw, {of_plain:.2} of plain  (wanted 1000000, 0.25 of raw)",
                median(rates)
            );
        }
    }
    if is_asked("producers") {
        let rates = (0..ROUNDS).map(|_| producers(fresh().path())).collect();
        println!("64 producers    {:>12.0} durable pushes/s  (wanted 60000)", median(rates));
    }
}
