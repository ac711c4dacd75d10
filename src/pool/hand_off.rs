//! Every order in which an engine and the threads of its pools may come: hand, wake up, take back, swap, end.
//!
//! The pools are the real ones; the engine is the test, which hands out tasks and takes reports. What may never be: a
//! task that nobody runs and nobody gives back, one that runs twice, a thread that sleeps for ever, an end that is
//! reported before the last outcome.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::clock::Clock;
use crate::config::Concurrency;
use crate::job::event::{Enqueued, Event};
use crate::log::{Log, LogOptions, Making, recovery};
use crate::simulate::disk::SimDisk;
use crate::sync::hand_off::in_every_order;
use crate::types::{Fence, Seq};
use crate::worker::{Assignment, StartError, Worker};

/// A clock that stands still: nothing but the order in which threads come makes a difference.
struct Still;

impl Clock for Still {
    fn wall_ms(&self) -> UnixMs {
        0
    }

    fn mono(&self) -> Duration {
        Duration::ZERO
    }
}

/// Acks everything; cannot be started the first so many times.
struct Acks {
    fails: u32,
}

impl WorkerFactory for Acks {
    fn make(&self, _: &Arc<Cutoff>) -> Box<dyn Worker> {
        Box::new(Self { fails: self.fails })
    }

    fn check(&self) -> Result<(), StartError> {
        Ok(())
    }
}

impl Worker for Acks {
    fn start(&mut self, _: Duration) -> Result<(), StartError> {
        match self.fails.checked_sub(1) {
            None => Ok(()),
            Some(left) => {
                self.fails = left;
                Err(StartError("not yet".to_owned()))
            }
        }
    }

    fn cycle(&mut self, batch: Vec<Assignment>, sink: &mut dyn FnMut(Lease, Outcome)) {
        for job in batch {
            sink(job.lease, Outcome::Done { result: None, enqueue: Vec::new() });
        }
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn stop(&mut self) {}
}

/// A log with two jobs, and the tasks that run them.
fn jobs() -> (Log, Vec<Task>) {
    let options = LogOptions { making: Making::Stepped, ..LogOptions::new(64 << 10) };
    let mut log = recovery::open(Arc::new(SimDisk::new(0)), options, [1; 16], &mut |_, _| Ok(())).unwrap().log;
    let mut tasks = Vec::new();
    for counter in 1..=2 {
        let meta = Enqueued {
            type_no: 1,
            task: "",
            priority: Default::default(),
            tenant: None,
            created_ms: 0,
            ready_ms: 0,
            expires_ms: 0,
            max_attempts: 1,
            names: None,
            parent: None,
            min_version: None,
            trace: None,
        };
        let event = Event::Enqueued(meta, b"null");
        let (born, position) = log.append(event.record_kind(), false, |out| event.encode(out));
        let lease = Lease { born, fence: Fence { epoch: 1, counter } };
        tasks.push(Task {
            lease,
            home: Home::new(born, position),
            created_ms: 0,
            attempt: 1,
            max_attempts: 1,
            named: false,
            due_ms: 0,
        });
    }
    log.write().unwrap();
    log.sync().unwrap();
    log.show();
    (log, tasks)
}

fn live(size: u32, batch: u32) -> LiveConfig {
    LiveConfig {
        concurrency: Concurrency::fixed(size),
        batch,
        timeout: Duration::from_secs(1),
        timeout_max: Duration::from_secs(10),
        max_attempts: 1,
        ..LiveConfig::default()
    }
}

/// A pool, and what it reports.
struct Run {
    pool: Box<dyn Pool>,
    reports: Receiver<Report>,
    runs: BTreeMap<Seq, u32>,
}

impl Run {
    fn new(reader: &Reader, size: u32, batch: u32, fails: u32) -> Self {
        let (reporter, reports) = channel::unbounded();
        let spec = PoolSpec {
            worker_type: "a".into(),
            label: "v1".into(),
            factory: Arc::new(Acks { fails }),
            live: live(size, batch),
        };
        let report: Reporter = Arc::new(move |report| reporter.send(report).unwrap());
        let maker = ThreadPools { clock: Arc::new(Still) };
        let mut pool = maker.make(spec, reader.clone(), IdMaker::new([1; 16]), report).unwrap();
        pool.resize(size).unwrap();
        Self { pool, reports, runs: BTreeMap::new() }
    }

    /// Takes reports until one has the wanted kind, and that one, too.
    fn reported(&mut self, wanted: impl Fn(&Report) -> bool) {
        loop {
            let report = self.reports.recv().expect("the pool lives");
            let found = wanted(&report);
            if let Report::Outcome { lease, outcome, .. } = report {
                assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
                *self.runs.entry(lease.born).or_default() += 1;
            }
            if found {
                return;
            }
        }
    }

    /// Waits for the end of a pool that drains; returns the jobs that it has run, and how often.
    fn ended(mut self) -> BTreeMap<Seq, u32> {
        self.reported(|report| matches!(report, Report::Ended));
        self.pool.join();
        assert!(self.reports.try_recv().is_err(), "something is reported after the end");
        self.runs
    }
}

/// Each task ran once, or came back once.
fn each_once(tasks: &[Task], mut runs: BTreeMap<Seq, u32>, back: &[Task]) {
    for task in back {
        *runs.entry(task.lease.born).or_default() += 1;
    }
    let expected: BTreeMap<Seq, u32> = tasks.iter().map(|task| (task.lease.born, 1)).collect();
    assert_eq!(runs, expected);
}

#[test]
fn a_sleeping_thread_wakes_for_each_task() {
    let (log, tasks) = jobs();
    let reader = log.reader();
    in_every_order(3, move || {
        let mut run = Run::new(&reader, 1, 1, 0);
        for task in &tasks {
            run.pool.hand(task.clone());
            run.reported(|report| matches!(report, Report::Outcome { .. }));
        }
        assert!(run.pool.drain().is_empty());
        each_once(&tasks, run.ended(), &[]);
    });
}

#[test]
fn a_drain_gives_back_what_no_thread_has_taken() {
    for batch in [1, 2] {
        let (log, tasks) = jobs();
        let reader = log.reader();
        in_every_order(2, move || {
            let mut run = Run::new(&reader, 1, batch, 0);
            for task in &tasks {
                run.pool.hand(task.clone());
            }
            let back = run.pool.drain();
            each_once(&tasks, run.ended(), &back);
        });
    }
}

#[test]
fn the_last_of_two_threads_reports_the_end_after_both() {
    let (log, tasks) = jobs();
    let reader = log.reader();
    in_every_order(2, move || {
        let mut run = Run::new(&reader, 2, 1, 0);
        for task in &tasks {
            run.pool.hand(task.clone());
        }
        let back = run.pool.drain();
        each_once(&tasks, run.ended(), &back);
    });
}

#[test]
fn a_swap_of_pools_runs_each_task_once() {
    let (log, tasks) = jobs();
    let reader = log.reader();
    in_every_order(2, move || {
        let mut old = Run::new(&reader, 1, 1, 0);
        for task in &tasks {
            old.pool.hand(task.clone());
        }
        let mut new = Run::new(&reader, 1, 1, 0);
        new.reported(|report| matches!(report, Report::Up));
        for task in old.pool.drain() {
            new.pool.hand(task);
        }
        let mut runs = old.ended();
        let back = new.pool.drain();
        runs.extend(new.ended());
        each_once(&tasks, runs, &back);
    });
}

#[test]
fn a_thread_too_many_leaves_and_the_work_does_not() {
    let (log, tasks) = jobs();
    let reader = log.reader();
    in_every_order(2, move || {
        let mut run = Run::new(&reader, 2, 2, 0);
        run.pool.hand(tasks[0].clone());
        run.pool.resize(1).unwrap();
        run.pool.hand(tasks[1].clone());
        for _ in &tasks {
            run.reported(|report| matches!(report, Report::Outcome { .. }));
        }
        assert!(run.pool.drain().is_empty());
        each_once(&tasks, run.ended(), &[]);
    });
}

#[test]
fn a_pool_of_none_wakes_for_a_task_and_ends_when_it_is_told() {
    let (log, tasks) = jobs();
    let reader = log.reader();
    in_every_order(2, move || {
        let mut run = Run::new(&reader, 1, 1, 0);
        run.pool.resize(0).unwrap();
        run.reported(|report| matches!(report, Report::Left));
        run.pool.resize(1).unwrap();
        run.pool.hand(tasks[0].clone());
        run.reported(|report| matches!(report, Report::Outcome { .. }));
        run.pool.resize(0).unwrap();
        assert!(run.pool.drain().is_empty());
        each_once(&tasks[..1], run.ended(), &[]);
    });
}

#[test]
fn a_pool_that_cannot_start_ends_when_it_is_told() {
    let (log, tasks) = jobs();
    let reader = log.reader();
    in_every_order(2, move || {
        let mut run = Run::new(&reader, 1, 1, 1);
        run.pool.hand(tasks[0].clone());
        let back = run.pool.drain();
        each_once(&tasks[..1], run.ended(), &back);
    });
}
