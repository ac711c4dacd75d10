//! What does a waiting job cost in memory, and how soon is the first one served after a SIGKILL?
//!
//! A child of this program fills a data directory with jobs of 200 bytes that wait, tells how much memory it has, and is
//! killed. Another one starts on what it left, with its checkpoints and, once more, without: the time runs from before
//! the child is started to the moment at which its worker has a job in hand; and to the answer to a push by a chosen id,
//! which waits until all chosen names of the log are gathered.
//! `made`: ids that we make, one type. `named`: a chosen id and a key on every job, over 4 types × 10 priorities × 100
//! tenants, in random order. `delayed`: as `made`, each of them due at a moment of the next ten years.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use biotope::clock::{Clock, RealClock};
use biotope::engine::Engine;
use biotope::job::new::{NewJob, Start};
use biotope::types::Priority;

use crate::setup::{Work, fresh, generation, payload};

const TYPES: [&str; 4] = ["mail", "invoice", "stock", "report"];
const AT_A_TIME: usize = 1_000;
const TEN_YEARS_MS: u64 = 10 * 365 * 86_400_000;

pub(crate) fn run(names: &str, jobs: usize) {
    let place = fresh();
    let dir = place.path();
    let id = format!("memory/{names}/00200B_{jobs:08}");
    let (mut filler, mut says) = child(&["fill", &dir.display().to_string(), names, &jobs.to_string()]);
    let said = line(&mut says);
    filler.kill().unwrap();
    filler.wait().unwrap();
    println!("{id}  {said}");
    for with in ["with checkpoints", "without checkpoints"] {
        let dropped = with == "without checkpoints" && drop_checkpoints(dir);
        if with == "without checkpoints" && !dropped {
            println!("restart/{names}/00200B_{jobs:08}  {with}: there were none");
            break;
        }
        let began = RealClock.mono();
        let (mut server, mut says) = child(&["serve", &dir.display().to_string()]);
        let said = line(&mut says);
        let served = RealClock.mono() - began;
        line(&mut says);
        let known = RealClock.mono() - began;
        server.kill().unwrap();
        server.wait().unwrap();
        println!(
            "restart/{names}/00200B_{jobs:08}  {with}: {:.3} s to the first job served, {:.3} s to a push by id  {said}",
            served.as_secs_f64(),
            known.as_secs_f64()
        );
    }
}

/// Starts this program again: it, and what it says. It lives until it is killed, or this process is gone.
fn child(words: &[&str]) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let says = BufReader::new(child.stdout.take().unwrap());
    (child, says)
}

/// The next line that a child says.
fn line(says: &mut BufReader<ChildStdout>) -> String {
    let mut said = String::new();
    says.read_line(&mut said).unwrap();
    assert!(!said.is_empty(), "a child ended without a word");
    said.trim_end().to_owned()
}

fn drop_checkpoints(dir: &Path) -> bool {
    let mut dropped = false;
    for entry in std::fs::read_dir(dir.join("log")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "ckpt" || extension == "names") {
            std::fs::remove_file(path).unwrap();
            dropped = true;
        }
    }
    dropped
}

/// Bytes of memory that this process has, and had at most.
fn memory() -> (f64, f64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0 / 1e6
    };
    (of("VmRSS:"), of("VmHWM:"))
}

fn await_the_end() {
    let mut nothing = Vec::new();
    std::io::stdin().read_to_end(&mut nothing).unwrap();
}

/// Fills a data directory, and tells what memory that took.
pub(crate) fn fill(dir: &Path, names: &str, jobs: usize) {
    // Who has a job in hand keeps it: what else there is waits.
    let (_open, gate) = crossbeam_channel::bounded::<()>(0);
    let hold: Work = Arc::new(move |_| gate.recv().unwrap_or(()));
    let types = if names == "named" { &TYPES[..] } else { &TYPES[..1] };
    let (handle, _) = Engine::open(generation(dir, types, &hold), RealClock::shared()).unwrap();
    let (before, _) = memory();
    let began = RealClock.mono();
    let payload = payload();
    let mut random = fastrand::Rng::with_seed(7);
    let mut number = 0;
    while number < jobs {
        let batch = (number..jobs.min(number + AT_A_TIME)).map(|number| {
            let mut job = NewJob::new("mail".parse().unwrap(), payload.clone());
            if names == "delayed" {
                job.start = Start::After(Duration::from_millis(random.u64(1..TEN_YEARS_MS)));
            }
            if names == "named" {
                job.worker_type = random.choice(TYPES).unwrap().parse().unwrap();
                job.priority = Priority::new(random.u8(0..10)).unwrap();
                job.tenant = Some(format!("tenant-{}", random.u8(0..100)));
                job.id = Some(format!("order-{number:010}").parse().unwrap());
                job.idempotency_key = Some(format!("key-{number:010}").parse().unwrap());
            }
            job
        });
        let batch: Vec<NewJob> = batch.collect();
        number += batch.len();
        for pushed in handle.push_many(batch) {
            pushed.unwrap();
        }
    }
    let rate = jobs as f64 / (RealClock.mono() - began).as_secs_f64();
    let (after, most) = memory();
    println!(
        "{after:.1} MB ({before:.1} before), at most {most:.1}; {:.1} B a job; {rate:.0} pushes/s",
        (after - before) * 1e6 / jobs as f64
    );
    await_the_end();
}

/// Serves a data directory, and tells when the first job is in hand, and when a job with a chosen id is taken in.
pub(crate) fn serve(dir: &Path) {
    let (_open, gate) = crossbeam_channel::bounded::<()>(0);
    let told = AtomicBool::new(false);
    let (first, served) = crossbeam_channel::bounded::<()>(1);
    let tell: Work = Arc::new(move |_| {
        if !told.swap(true, Ordering::Relaxed) {
            let (now, most) = memory();
            println!("({now:.1} MB, at most {most:.1})");
            first.send(()).unwrap();
        }
        gate.recv().unwrap_or(());
    });
    let (handle, _) = Engine::open(generation(dir, &TYPES, &tell), RealClock::shared()).unwrap();
    let mut job = NewJob::new("mail".parse().unwrap(), payload());
    job.id = Some("the-first-since".parse().unwrap());
    let pushed = handle.push(job);
    served.recv().unwrap();
    println!("{}", pushed.unwrap().id);
    await_the_end();
}
