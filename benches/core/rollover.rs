//! What does a rollover cost whoever works meanwhile, and how soon does the new version do its first job?
//!
//! A type of two workers under a steady load: jobs wait all the time, and one producer pushes one job after the other.
//! Windows of time with a rollover and windows without, in turns, in one process: jobs a second, how long a durable push
//! takes, and from `reload` (the file is read and checked, as after a signal) to the first job on the new version. Once with a
//! Rust worker, and once with a program for each job; beside that, how long the same program takes to start without us.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use biotope::clock::{Clock, RealClock};
use biotope::engine::{Engine, GenerationSpec, Handle};
use biotope::job::new::NewJob;
use biotope::worker::native::{Context, Natives, Raw};
use biotope::worker::spawner::{Orphans, Spawner, asked_of_this_program};
use crossbeam_channel::{Receiver, Sender};

use crate::setup::{fresh, median, pause_for, payload, percentile};

/// Windows of each sort.
const WINDOWS: usize = 30;
/// The version that is no version: the program alone.
const RAW: usize = 0;

/// What workers tell: the first job of each version, and how many jobs were done.
struct Told {
    begins: Sender<(usize, Duration)>,
    newest: AtomicUsize,
    done: AtomicU64,
}

impl Told {
    fn new() -> (Arc<Self>, Receiver<(usize, Duration)>) {
        let (begins, from) = crossbeam_channel::unbounded();
        (Arc::new(Self { begins, newest: AtomicUsize::new(0), done: AtomicU64::new(0) }), from)
    }

    /// A job of this version began.
    fn job(&self, version: usize) {
        self.done.fetch_add(1, Ordering::Relaxed);
        if self.newest.fetch_max(version, Ordering::Relaxed) < version {
            self.begins.send((version, RealClock.mono())).unwrap();
        }
    }
}

/// The load: so many jobs wait, pushed so many at a time.
#[derive(Clone, Copy)]
struct Load {
    waiting: u64,
    at_a_time: usize,
    window: Duration,
}

/// What came of it: without rollovers, and with one in each window.
#[derive(Default)]
struct Figures {
    rates: [Vec<f64>; 2],
    pushes_ms: [Vec<f64>; 2],
    first_job_ms: Vec<f64>,
}

pub(crate) fn run() {
    native();
    programs();
}

fn native() {
    let dir = fresh();
    let (told, begins) = Told::new();
    let spec = |version: usize| {
        let (mut natives, told) = (Natives::new(), Arc::clone(&told));
        let work = move |_: Raw, _: &mut Context<'_>| told.job(version);
        natives.register_fn("t", "1", work).unwrap();
        write_and_load(dir.path(), version, "", &natives)
    };
    let load = Load { waiting: 20_000, at_a_time: 1_000, window: Duration::from_millis(250) };
    let mut figures = measure(load, &told, &begins, spec);
    let first = median(std::mem::take(&mut figures.first_job_ms));
    println!("rollover/native/w2  reload to first job  {first:>8.2} ms  (below 5)");
    tell("native", figures);
}

fn programs() {
    let dir = fresh();
    let (told, begins) = Told::new();
    let (script, pipe) = (dir.path().join("tell.sh"), dir.path().join("told"));
    std::fs::write(&script, "echo \"$1\" >\"$2\"\n").unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    // Open for both, so that it never ends while nobody writes.
    let lines = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let mut over = lines.try_clone().unwrap();
    let reader = std::thread::spawn({
        let told = Arc::clone(&told);
        move || {
            for line in BufReader::new(lines).lines().map_while(Result::ok) {
                match line.parse() {
                    Ok(RAW) => told.begins.send((RAW, RealClock.mono())).unwrap(),
                    Ok(version) => told.job(version),
                    Err(_) => return,
                }
            }
        }
    });
    let start = |version: usize| {
        let mut command = Command::new("/bin/sh");
        command.arg(&script).arg(version.to_string()).arg(&pipe);
        command
    };
    let starts = (0..WINDOWS).map(|_| {
        let began = RealClock.mono();
        let mut child = start(RAW).spawn().unwrap();
        let (_, at) = begins.recv().unwrap();
        child.wait().unwrap();
        (at - began).as_secs_f64() * 1e3
    });
    let own = median(starts.collect());

    let spawner = Spawner::helper(asked_of_this_program, Orphans::Left);
    spawner.live_in(dir.path());
    let natives = Natives::none().with_spawner(spawner.clone());
    let spec = |version: usize| {
        let exec = format!("exec = [\"/bin/sh\", \"{}\", \"{version}\", \"{}\"]\n", script.display(), pipe.display());
        write_and_load(dir.path(), version, &exec, &natives)
    };
    let load = Load { waiting: 200, at_a_time: 100, window: Duration::from_millis(500) };
    let mut figures = measure(load, &told, &begins, spec);
    let first = median(std::mem::take(&mut figures.first_job_ms));
    let ours = first - own;
    println!(
        "rollover/exec/w2    reload to first job  {first:>8.2} ms, {ours:.2} beyond the program's own start of {own:.2}  (below 10)"
    );
    tell("exec", figures);
    spawner.stop();
    writeln!(over, "over").unwrap();
    reader.join().unwrap();
}

fn tell(kind: &str, figures: Figures) {
    let [without, with] = figures.rates.map(median);
    let ratio = with / without;
    println!(
        "rollover/{kind}/w2  jobs a second        {without:>8.0} without, {with:.0} with a rollover, {ratio:.3}  (at least 0.95)"
    );
    let [without, with] = figures.pushes_ms.map(|mut pushes| percentile(&mut pushes, 99));
    let more = with - without;
    println!(
        "rollover/{kind}/w2  push p99             {without:>8.2} ms without, {with:.2} with a rollover, {more:+.2}  (below +1)"
    );
}

/// Writes the config of this version, and reads it as a reload does.
fn write_and_load(dir: &Path, version: usize, exec: &str, natives: &Natives) -> GenerationSpec {
    let path = dir.join("biotope.toml");
    let text = format!("[history]\nindex = \"off\"\n[workers.t]\nversion = \"v{version}\"\n{exec}concurrency = 2\n");
    std::fs::write(&path, text).unwrap();
    let spec = biotope::generation::load(&path, natives).unwrap();
    std::fs::create_dir_all(&spec.config.data_dir).unwrap();
    spec
}

/// Windows with a rollover and without, in turns.
fn measure(
    load: Load,
    told: &Told,
    begins: &Receiver<(usize, Duration)>,
    spec: impl Fn(usize) -> GenerationSpec,
) -> Figures {
    let handle = Engine::open(spec(1), RealClock::shared()).unwrap().0;
    let (over, sort) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut figures = Figures::default();
    let pushed = std::thread::scope(|scope| {
        scope.spawn(|| feed(&handle, load, told, &over));
        let pushing = scope.spawn(|| push(&handle, &over, &sort));
        begins.recv().unwrap();
        for round in 0..2 * WINDOWS {
            let with = round % 2;
            sort.store(with, Ordering::Relaxed);
            let (began, done) = (RealClock.mono(), told.done.load(Ordering::Relaxed));
            if with == 1 {
                handle.reload(spec(round + 2), Box::new(|verdict| drop(verdict.unwrap())));
                let (_, at) = begins.recv().unwrap();
                figures.first_job_ms.push((at - began).as_secs_f64() * 1e3);
            }
            pause_for((began + load.window).saturating_sub(RealClock.mono()));
            let took = RealClock.mono() - began;
            let done = told.done.load(Ordering::Relaxed) - done;
            if let Some(rates) = figures.rates.get_mut(with) {
                rates.push(done as f64 / took.as_secs_f64());
            }
        }
        over.store(true, Ordering::Relaxed);
        pushing.join().unwrap()
    });
    handle.stop_and_wait();
    figures.pushes_ms = pushed;
    figures
}

fn job() -> NewJob {
    NewJob::new("t".parse().unwrap(), payload())
}

/// Keeps jobs waiting.
fn feed(handle: &Handle, load: Load, told: &Told, over: &AtomicBool) {
    let mut pushed = 0;
    while !over.load(Ordering::Relaxed) {
        if pushed > told.done.load(Ordering::Relaxed) + load.waiting {
            pause_for(Duration::from_millis(1));
            continue;
        }
        let some: Vec<NewJob> = (0..load.at_a_time).map(|_| job()).collect();
        assert!(handle.push_many(some).iter().all(Result::is_ok));
        pushed += load.at_a_time as u64;
    }
}

/// Pushes one job after the other; how long each took, by the sort of window.
fn push(handle: &Handle, over: &AtomicBool, sort: &AtomicUsize) -> [Vec<f64>; 2] {
    let mut times = [Vec::new(), Vec::new()];
    while !over.load(Ordering::Relaxed) {
        let (sort, began) = (sort.load(Ordering::Relaxed), RealClock.mono());
        handle.push(job()).unwrap();
        if let Some(times) = times.get_mut(sort) {
            times.push((RealClock.mono() - began).as_secs_f64() * 1e3);
        }
    }
    times
}
