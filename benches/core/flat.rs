//! Do push, reserve and ack take longer where many jobs wait? Two engines, one with so many waiting, one with a single
//! one; they take turns, so that the machine's other load meets both alike.
//!
//! On the real disk a call is timed from outside, to the durable answer. In memory the engine is stepped, and its own
//! turns are timed: what it does for a push, and for an ack with the reserve that follows.

use std::path::Path;
use std::sync::{Arc, Mutex};

use biotope::clock::{Clock, RealClock};
use biotope::config::LiveConfig;
use biotope::engine::stepped::{Stepped, Surrounding};
use biotope::engine::{Engine, Handle, no_resolver};
use biotope::job::ids::IdMaker;
use biotope::job::new::NewJob;
use biotope::log::{LogOptions, Reader};
use biotope::pool::{Figures, Pool, PoolMaker, PoolSpec, Report, Reporter, Task};
use biotope::simulate::disk::SimDisk;
use biotope::worker::run::Board;
use biotope::worker::{Cutoff, Outcome};

use crate::setup::{Work, ecosystem, fresh, generation, payload, percentile};

const AT_A_TIME: usize = 1_000;
const ROUNDS_REAL: usize = 1_000;
const ROUNDS_STEPPED: usize = 20_000;

pub(crate) fn run(jobs: usize) {
    let (empty_dir, full_dir) = (fresh(), fresh());
    let (empty, full) = (Real::new(empty_dir.path(), 1), Real::new(full_dir.path(), jobs));
    let (mut of_empty, mut of_full) = (Times::default(), Times::default());
    for _ in 0..ROUNDS_REAL {
        empty.round(&mut of_empty);
        full.round(&mut of_full);
    }
    tell("real", "sync_always/00200B", jobs, of_empty, of_full);
    empty.end();
    full.end();
    let (mut empty, mut full) = (InMemory::new(1), InMemory::new(jobs));
    let (mut of_empty, mut of_full) = (Times::default(), Times::default());
    for _ in 0..ROUNDS_STEPPED {
        empty.round(&mut of_empty);
        full.round(&mut of_full);
    }
    tell("simulated", "stepped/00001B", jobs, of_empty, of_full);
}

#[derive(Default)]
struct Times {
    push: Vec<f64>,
    ack: Vec<f64>,
}

fn tell(disk: &str, how: &str, jobs: usize, empty: Times, full: Times) {
    for (what, mut empty, mut full) in [("push", empty.push, full.push), ("ack_reserve", empty.ack, full.ack)] {
        for (name, part) in [("p50", 50), ("p99", 99)] {
            let (empty, full) = (percentile(&mut empty, part), percentile(&mut full, part));
            println!(
                "flat/{disk}/{how}/{what}_{name}  {empty:>8.1} µs with 1 waiting, {full:>8.1} µs with {jobs}: {:.2}",
                full / empty
            );
        }
    }
}

fn since(began: std::time::Duration) -> f64 {
    (RealClock.mono() - began).as_secs_f64() * 1e6
}

/// An engine on the real disk, whose only worker finishes a job when it is told to.
struct Real {
    handle: Handle,
    permits: crossbeam_channel::Sender<()>,
}

impl Real {
    fn new(dir: &Path, waiting: usize) -> Self {
        let (permits, gate) = crossbeam_channel::unbounded::<()>();
        let work: Work = Arc::new(move |_| gate.recv().unwrap_or(()));
        let (handle, _) = Engine::open(generation(dir, &["flat"], &work), RealClock::shared()).unwrap();
        let mut left = waiting;
        while left > 0 {
            let many = left.min(AT_A_TIME);
            let jobs = (0..many).map(|_| NewJob::new("flat".parse().unwrap(), payload())).collect();
            handle.push_many(jobs).into_iter().for_each(|pushed| drop(pushed.unwrap()));
            left -= many;
        }
        Self { handle, permits }
    }

    fn round(&self, times: &mut Times) {
        let job = NewJob::new("flat".parse().unwrap(), payload());
        let began = RealClock.mono();
        self.handle.push(job).unwrap();
        times.push.push(since(began));
        let done = || ecosystem(&self.handle).types.iter().map(|of| of.completed).sum::<u64>();
        let before = done();
        let began = RealClock.mono();
        self.permits.send(()).unwrap();
        while done() == before {}
        times.ack.push(since(began));
    }

    fn end(self) {
        drop(self.permits);
        self.handle.stop(Box::new(|()| ()));
        self.handle.stop_and_wait();
    }
}

/// What a pool was handed, and where it reports.
#[derive(Clone)]
struct Hand(Arc<Mutex<(Vec<Task>, Option<Reporter>)>>, Arc<Board>);

impl PoolMaker for Hand {
    fn make(&self, _: PoolSpec, _: Reader, _: IdMaker, report: Reporter) -> std::io::Result<Box<dyn Pool>> {
        self.0.lock().unwrap().1 = Some(report);
        Ok(Box::new(self.clone()))
    }
}

impl Pool for Hand {
    fn size(&self) -> u32 {
        1
    }

    fn figures(&self) -> Figures {
        Figures::default()
    }

    fn resize(&mut self, _: u32) -> std::io::Result<()> {
        Ok(())
    }

    fn set_live(&self, _: LiveConfig) {}

    fn hand(&self, task: Task) {
        self.0.lock().unwrap().0.push(task);
    }

    fn take_back(&self) -> Vec<Task> {
        std::mem::take(&mut self.0.lock().unwrap().0)
    }

    fn drain(&mut self) -> Vec<Task> {
        self.take_back()
    }

    fn cut_off(&self) {}

    fn board(&self) -> &Arc<Board> {
        &self.1
    }

    fn join(self: Box<Self>) {}
}

/// An engine that is stepped, on a disk in memory.
struct InMemory {
    engine: Stepped,
    hand: Hand,
}

impl InMemory {
    fn new(waiting: usize) -> Self {
        let hand = Hand(Arc::default(), Board::new(Cutoff::new().unwrap(), RealClock::shared()));
        let around = Surrounding {
            disk: Arc::new(SimDisk::new(1)),
            options: LogOptions::new(64 << 20),
            log_id: [7; 16],
            clock: RealClock::shared(),
            pools: Box::new(hand.clone()),
            resolver: no_resolver(),
            seed: 1,
        };
        let nothing: Work = Arc::new(|_| ());
        let (engine, _) = Stepped::open(generation(Path::new("/memory"), &["flat"], &nothing), around).unwrap();
        let mut memory = Self { engine, hand };
        memory.report(Report::Up);
        let mut left = waiting;
        while left > 0 {
            let many = left.min(AT_A_TIME);
            memory.push(many);
            left -= many;
        }
        memory
    }

    fn report(&mut self, report: Report) {
        let reporter = self.hand.0.lock().unwrap().1.clone().unwrap();
        reporter(report);
        self.turn();
    }

    /// Turns until nothing is left to do.
    fn turn(&mut self) {
        loop {
            self.engine.turn().unwrap();
            if !self.engine.is_busy() {
                return;
            }
        }
    }

    fn push(&mut self, many: usize) {
        let jobs = (0..many).map(|_| NewJob::new("flat".parse().unwrap(), "1")).collect();
        self.engine.handle().submit(jobs, Box::new(|pushed| pushed.into_iter().for_each(|job| drop(job.unwrap()))));
        self.turn();
    }

    fn round(&mut self, times: &mut Times) {
        // What is made ahead is another thread's work where there are threads.
        self.engine.make_segment();
        let began = RealClock.mono();
        self.push(1);
        times.push.push(since(began));
        let task = self.hand.0.lock().unwrap().0.remove(0);
        let outcome = Outcome::Done { result: None, enqueue: Vec::new() };
        let report = Report::Outcome { lease: task.lease, worker: 1, outcome, about: None, ran: None };
        let began = RealClock.mono();
        self.report(report);
        times.ack.push(since(began));
    }
}
