//! How soon does a ready job run on a worker that has nothing to do?
//!
//! A Rust worker of one thread. Once with a worker that sleeps: a job is pushed, and from the durable answer, in the hand of
//! who pushed, it is so long until the worker begins it; below zero where the worker was the first. Once with jobs that wait
//! already: from one job's begin to the next one's, both of no work. Beside them the raw limits: a frame of 4 KiB written
//! and synced, and a thread that is woken through a channel.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use biotope::clock::{Clock, RealClock};
use biotope::engine::Engine;
use biotope::job::new::NewJob;

use crate::setup::{Work, drained, fresh, generation, payload, percentile};

const TIMES: usize = 5_000;
const WAITING: usize = 200_000;

pub(crate) fn run() {
    let (mut woken, mut synced) = (wake(), sync());
    let (mut from_answer, mut from_push) = (Vec::new(), Vec::new());
    let (began, begins) = crossbeam_channel::unbounded();
    let work: Work = Arc::new(move |_| began.send(RealClock.mono()).unwrap());
    let dir = fresh();
    let handle = Engine::open(generation(dir.path(), &["t"], &work), RealClock::shared()).unwrap().0;
    for _ in 0..TIMES {
        let pushed = RealClock.mono();
        handle.push(NewJob::new("t".parse().unwrap(), payload())).unwrap();
        let answered = RealClock.mono();
        let begun = begins.recv().unwrap();
        from_push.push(micros(begun) - micros(pushed));
        from_answer.push(micros(begun) - micros(answered));
    }
    handle.stop_and_wait();
    let (began, begins) = crossbeam_channel::unbounded();
    let work: Work = Arc::new(move |_| began.send(RealClock.mono()).unwrap());
    let dir = fresh();
    drained(generation(dir.path(), &["t"], &work), "t", WAITING, 0);
    let times: Vec<Duration> = begins.try_iter().collect();
    let mut apart = times.iter().zip(times.iter().skip(1)).map(|(a, b)| micros(*b) - micros(*a)).collect();
    let figure = |name: &str, values: &mut Vec<f64>, wanted: &str| {
        let [p50, p99] = [50, 99].map(|percent| percentile(values, percent));
        println!("hand_off  {name:<46} {p50:>8.1} µs p50 {p99:>8.1} µs p99  {wanted}");
    };
    figure("raw: a thread is woken through a channel", &mut woken, "");
    figure("raw: 4 KiB are written and synced", &mut synced, "");
    figure("push to an idle worker's begin, sync included", &mut from_push, "");
    figure("durable answer to an idle worker's begin", &mut from_answer, "(p50 below 50)");
    figure("begin to next begin, while jobs wait", &mut apart, "(p50 below 50)");
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// What it takes to wake a thread that sleeps.
fn wake() -> Vec<f64> {
    let (to, from) = crossbeam_channel::unbounded::<()>();
    let (back, answers) = crossbeam_channel::unbounded();
    let thread = std::thread::spawn(move || from.iter().for_each(|()| back.send(RealClock.mono()).unwrap()));
    let mut times = Vec::new();
    for _ in 0..TIMES {
        let sent = RealClock.mono();
        to.send(()).unwrap();
        times.push(micros(answers.recv().unwrap()) - micros(sent));
    }
    drop(to);
    thread.join().unwrap();
    times
}

fn sync() -> Vec<f64> {
    let dir = fresh();
    let file = OpenOptions::new().create_new(true).write(true).open(dir.path().join("raw")).unwrap();
    let block = [7; 4096];
    file.write_all_at(&vec![7; 4096 * TIMES], 0).unwrap();
    file.sync_all().unwrap();
    let mut times = Vec::new();
    for n in 0..TIMES as u64 {
        let began = RealClock.mono();
        file.write_all_at(&block, n * 4096).unwrap();
        file.sync_data().unwrap();
        times.push(micros(RealClock.mono() - began));
    }
    times
}
