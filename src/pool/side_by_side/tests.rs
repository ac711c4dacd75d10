//! What becomes of jobs whose lane comes to no good end, and of those beside them.

use std::collections::BTreeMap;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use tokio::sync::Semaphore;

use super::*;
use crate::clock::RealClock;
use crate::config::Concurrency;
use crate::job::event::{Enqueued, Event};
use crate::job::ids::IdMaker;
use crate::log::{Log, LogOptions, Making, recovery};
use crate::pool::{PoolMaker, PoolSpec, ThreadPools};
use crate::simulate::disk::SimDisk;
use crate::types::Fence;
use crate::worker::{Cutoff, StartError, Worker, WorkerFactory};

const LONG: Duration = Duration::from_secs(60);
/// The job whose worker panics.
const PANICS: u64 = 13;

/// Says which jobs it begins, and ends one for each permit.
struct Waits {
    begun: Sender<u64>,
    go: Semaphore,
}

impl SideBySide for Waits {
    fn run<'a>(
        &'a self,
        _: &'a Assignment,
        _: RequestTimeouts,
    ) -> std::pin::Pin<Box<dyn Future<Output = Outcome> + Send + 'a>> {
        Box::pin(std::future::ready(Outcome::Interrupted))
    }

    fn run_all<'a>(&'a self, mut jobs: Box<dyn Jobs + 'a>) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            while let Some((job, _)) = jobs.next() {
                let number = job.lease.fence.counter;
                self.begun.send(number).unwrap();
                assert_ne!(number, PANICS, "as the test wants");
                self.go.acquire().await.unwrap().forget();
                jobs.ended(Outcome::Done { result: None, enqueue: Vec::new() });
            }
        })
    }
}

struct Factory(Arc<Waits>);

impl WorkerFactory for Factory {
    fn make(&self, _: &Arc<Cutoff>) -> Box<dyn Worker> {
        unreachable!("its jobs run side by side")
    }

    fn check(&self) -> Result<(), StartError> {
        Ok(())
    }

    fn side_by_side(&self) -> Option<Arc<dyn SideBySide>> {
        Some(self.0.clone())
    }
}

/// A pool of this size, with these jobs.
struct Run {
    pool: Box<dyn Pool>,
    worker: Arc<Waits>,
    begun: Receiver<u64>,
    reports: Receiver<Report>,
    leases: Vec<Lease>,
    _log: Log,
}

impl Run {
    fn new(size: u32, jobs: std::ops::RangeInclusive<u64>) -> Self {
        let options = LogOptions { making: Making::Stepped, ..LogOptions::new(64 << 10) };
        let mut log = recovery::open(Arc::new(SimDisk::new(0)), options, [1; 16], &mut |_, _| Ok(())).unwrap().log;
        let tasks: Vec<Task> = jobs.map(|number| task(&mut log, number)).collect();
        log.write().unwrap();
        log.sync().unwrap();
        log.show();
        let ((begins, begun), (reporter, reports)) = (unbounded(), unbounded());
        let worker = Arc::new(Waits { begun: begins, go: Semaphore::new(0) });
        let live = LiveConfig { concurrency: Concurrency::fixed(size), ..LiveConfig::default() };
        let factory = Arc::new(Factory(Arc::clone(&worker)));
        let spec = PoolSpec { worker_type: "a".into(), label: "v1".into(), factory, live };
        let report = Arc::new(move |report| drop(reporter.send(report)));
        let maker = ThreadPools { clock: RealClock::shared() };
        let mut pool = maker.make(spec, log.reader(), IdMaker::new([1; 16]), report).unwrap();
        let leases = tasks.iter().map(|task| task.lease).collect();
        tasks.into_iter().for_each(|task| pool.hand(task));
        pool.resize(size).unwrap();
        Self { pool, worker, begun, reports, leases, _log: log }
    }

    /// The numbers of the next jobs that are begun, in order.
    fn begins(&self, jobs: usize) -> Vec<u64> {
        let mut begun: Vec<u64> = (0..jobs).map(|_| self.begun.recv_timeout(LONG).unwrap()).collect();
        begun.sort_unstable();
        begun
    }

    /// What became of so many jobs, by their numbers; anything else that is said is passed over.
    fn outcomes(&self, jobs: usize) -> BTreeMap<u64, Outcome> {
        let mut outcomes = BTreeMap::new();
        while outcomes.len() < jobs {
            if let Report::Outcome { lease, outcome, .. } = self.reports.recv_timeout(LONG).unwrap() {
                assert!(outcomes.insert(lease.fence.counter, outcome).is_none(), "{lease:?} is reported once");
            }
        }
        outcomes
    }

    /// The pool ends, and says nothing more of any job.
    fn end(mut self) {
        assert!(self.pool.drain().is_empty());
        loop {
            match self.reports.recv_timeout(LONG).unwrap() {
                Report::Ended => break,
                Report::Outcome { lease, outcome, .. } => panic!("{lease:?}: {outcome:?}"),
                Report::Up | Report::Left | Report::Returned | Report::Restarts { .. } | Report::NotUp { .. } => {}
            }
        }
        self.pool.join();
        assert!(self.reports.try_recv().is_err(), "something is reported after the end");
    }
}

fn lease(born: u64, counter: u64) -> Lease {
    Lease { born, fence: Fence { epoch: 1, counter } }
}

fn task(log: &mut Log, number: u64) -> Task {
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
    let home = crate::job::event::Home::new(born, position);
    Task { lease: lease(born, number), home, created_ms: 0, attempt: 1, max_attempts: 1, named: false, due_ms: 0 }
}

fn is_done(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Done { .. })
}

#[test]
fn no_more_jobs_than_the_pool_is_large_run_at_once_and_each_runs_once() {
    let run = Run::new(2, 1..=5);
    assert_eq!(run.begins(2), [1, 2]);
    assert!(run.begun.is_empty());
    run.worker.go.add_permits(1);
    assert_eq!(run.begins(1), [3]);
    run.worker.go.add_permits(4);
    assert_eq!(run.begins(2), [4, 5]);
    assert!(run.outcomes(5).values().all(is_done));
    run.end();
}

#[test]
fn a_worker_that_panics_fails_its_job_and_no_other() {
    let run = Run::new(2, 12..=15);
    assert_eq!(run.begins(3), [12, 13, 14]);
    run.worker.go.add_permits(3);
    let outcomes = run.outcomes(4);
    for (number, outcome) in outcomes {
        match outcome {
            Outcome::Fail { error, killed: false } if number == PANICS => assert_eq!(error, "the worker panicked"),
            other => assert!(is_done(&other) && number != PANICS, "{number}: {other:?}"),
        }
    }
    run.end();
}

#[test]
fn a_job_that_is_cancelled_makes_room_and_those_beside_it_go_on() {
    let run = Run::new(2, 1..=3);
    assert_eq!(run.begins(2), [1, 2]);
    run.pool.board().cancel(run.leases[0]);
    assert_eq!(run.outcomes(1), BTreeMap::from([(1, Outcome::Interrupted)]));
    assert_eq!(run.begins(1), [3]);
    run.worker.go.add_permits(2);
    assert!(run.outcomes(2).values().all(is_done));
    run.end();
}

#[test]
fn a_pool_that_is_cut_off_gives_everything_back() {
    let run = Run::new(2, 1..=4);
    assert_eq!(run.begins(2), [1, 2]);
    run.pool.cut_off();
    let outcomes = run.outcomes(4);
    assert!(outcomes.values().all(|outcome| *outcome == Outcome::Interrupted), "{outcomes:?}");
    assert!(run.begun.is_empty(), "what waits is not begun");
    run.end();
}

#[test]
fn a_pool_that_becomes_smaller_goes_on_with_fewer_at_once() {
    let mut run = Run::new(3, 1..=6);
    assert_eq!(run.begins(3), [1, 2, 3]);
    run.pool.resize(1).unwrap();
    run.worker.go.add_permits(2);
    assert!(run.outcomes(2).values().all(is_done));
    assert!(run.begun.is_empty(), "one still runs");
    run.worker.go.add_permits(1);
    assert_eq!(run.begins(1), [4]);
    assert!(run.begun.is_empty());
    run.worker.go.add_permits(3);
    assert!(run.outcomes(4).values().all(is_done));
    run.end();
}
