//! How near do waiting producers come to a plain group commit? Each has one job in flight and waits until it is durable.

use std::path::Path;
use std::sync::Arc;

use biotope::clock::{Clock, RealClock};
use biotope::engine::{Engine, Handle};
use biotope::job::new::NewJob;

use crate::raw;
use crate::setup::{Work, ecosystem, fresh, generation, median, payload};

const ROUNDS: usize = 5;
const SECONDS_ABOUT: usize = 1;

pub(crate) fn run() {
    // As many jobs as take about a second.
    for (producers, rate) in [(1, 4_000), (8, 25_000), (64, 60_000)] {
        let each = rate * SECONDS_ABOUT / producers;
        let (mut ours, mut limit, mut share) = (Vec::new(), Vec::new(), Vec::new());
        let (mut ours_group, mut raw_group) = (0.0, 0.0);
        for _ in 0..ROUNDS {
            let (rate, record, group) = push(fresh().path(), producers, each);
            ours_group = group;
            let (raw_rate, group) = raw::group_commit(fresh().path(), record, producers, each);
            raw_group = group;
            share.push(rate / raw_rate);
            ours.push(rate);
            limit.push(raw_rate);
        }
        let id = format!("push/sync_always/00200B_t{producers:02}");
        let wanted = if producers == 1 { "" } else { "  (at least 0.80)" };
        println!("{id}  raw  {:>7.0} records/s, {raw_group:.1} a sync", median(limit));
        println!("{id}  jobs {:>7.0} /s, {ours_group:.1} a sync  {:.2} of raw{wanted}", median(ours), median(share));
    }
}

/// Jobs a second, bytes of the log for a job, and jobs a commit.
fn push(dir: &Path, producers: usize, each: usize) -> (f64, usize, f64) {
    let nothing: Work = Arc::new(|_| ());
    let open = |types: &[&str]| Engine::open(generation(dir, types, &nothing), RealClock::shared()).unwrap().0;
    // A known type that nobody serves: its jobs are parked, so that pushes alone are measured.
    open(&["idle"]).stop_and_wait();
    let handle = open(&[]);
    produce(&handle, producers, each / 10 + 1);
    let before = ecosystem(&handle).log;
    let began = RealClock.mono();
    produce(&handle, producers, each);
    let took = RealClock.mono() - began;
    let after = ecosystem(&handle).log;
    handle.stop_and_wait();
    let jobs = producers * each;
    let bytes = usize::try_from(after.written_bytes - before.written_bytes).unwrap() / jobs;
    (jobs as f64 / took.as_secs_f64(), bytes, jobs as f64 / (after.commits - before.commits) as f64)
}

fn produce(handle: &Handle, producers: usize, each: usize) {
    std::thread::scope(|scope| {
        for _ in 0..producers {
            scope.spawn(|| {
                let payload = payload();
                for _ in 0..each {
                    handle.push(NewJob::new("idle".parse().unwrap(), payload.clone())).unwrap();
                }
            });
        }
    });
}
