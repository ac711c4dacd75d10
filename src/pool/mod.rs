//! Pools: the worker threads of one version of one type.
//!
//! Owns threads and what they hold. Takes tasks from a lock-free queue that the engine fills, reads their payloads from
//! the log, runs them through a [`Worker`](crate::worker::Worker), and reports what became of each. Knows no job states and decides nothing:
//! how many tasks it is handed, what follows an outcome, and when it ends, is the engine's. The engine knows a pool by
//! its trait alone; a simulation brings pools of its own.

mod alive;
#[cfg(all(test, any(loom, miri)))]
mod hand_off;
pub mod inline;
mod overdue;
mod probe;
#[cfg(feature = "daemon")]
mod side_by_side;
mod thread;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;

use self::alive::Alive;
use self::overdue::Slot;
use crate::clock::Clock;
use crate::config::LiveConfig;
use crate::job::event::Home;
use crate::job::ids::IdMaker;
use crate::job::table::OwnedNames;
use crate::job::trace::TraceParent;
use crate::log::Reader;
use crate::recent::Ran;
use crate::sync::channel::{Receiver, Sender, TryRecvError};
use crate::sync::thread::JoinHandle;
use crate::sync::{channel, has_finished};
use crate::types::{Lease, UnixMs};
use crate::worker::pulse::{Pulse, Seen};
use crate::worker::run::Board;
use crate::worker::{Cutoff, Outcome, WorkerFactory};

/// A job that is handed to a pool.
#[derive(Debug, Clone)]
pub struct Task {
    /// The run.
    pub lease: Lease,
    /// Where its payload lies.
    pub home: Home,
    /// When it was accepted: part of its id.
    pub created_ms: UnixMs,
    /// This attempt, from 1.
    pub attempt: u16,
    /// The last attempt.
    pub max_attempts: u16,
    /// Whether its caller chose an id or a key: its end is reported with them.
    pub named: bool,
    /// Since when it could have been run; 0: nobody knows.
    pub due_ms: UnixMs,
}

/// Names a pool among those of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(pub u64);

/// What a job said of itself, where the engine has to know it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// Its task.
    pub task: String,
    /// Whom it was for.
    pub tenant: Option<String>,
    /// What its caller chose.
    pub names: Option<OwnedNames>,
    /// The trace that it belongs to, and what follows it does.
    pub trace: Option<TraceParent>,
}

/// What a pool tells the engine.
#[derive(Debug)]
pub enum Report {
    /// A worker is up.
    Up,
    /// A worker could not be started, or broke again before it had done anything; it is tried again after a pause.
    NotUp {
        /// Why.
        why: String,
        /// Whether it was up before, and has not said since that it is not.
        was_up: bool,
    },
    /// A worker that is up is started again, at once.
    Restarts {
        /// Why.
        why: String,
    },
    /// A worker that was up has left: the pool has become smaller, or drains.
    Left,
    /// What became of a run.
    Outcome {
        /// The run.
        lease: Lease,
        /// The worker that had it, by its number within the pool; 0: it has none.
        worker: u32,
        /// What became of it.
        outcome: Outcome,
        /// For a run that failed or has follow-up jobs, and for a job whose caller chose its name.
        about: Option<Box<About>>,
        /// For a run that came to an end of its own.
        ran: Option<Ran>,
    },
    /// A thread that was abandoned has ended after all.
    Returned,
    /// The last thread has ended; nothing is held any more.
    Ended,
}

/// Takes reports.
pub type Reporter = Arc<dyn Fn(Report) + Send + Sync>;

/// What a pool is made of.
pub struct PoolSpec {
    /// Worker type.
    pub worker_type: Arc<str>,
    /// Label of the version.
    pub label: Arc<str>,
    /// Makes its workers.
    pub factory: Arc<dyn WorkerFactory>,
    /// Settings that may change while it runs.
    pub live: LiveConfig,
}

/// What a pool's workers have done since it was made; counted only while its size follows its queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Runs that came to an end of their own.
    pub ended: u64,
    /// Time that workers spent on them.
    pub worked: Duration,
}

/// As [`Figures`], counted by many; numbers alone, which order nothing: relaxed.
#[derive(Default)]
struct Counts {
    ended: AtomicU64,
    worked_us: AtomicU64,
}

impl Counts {
    fn add(&self, ended: u64, worked: Duration) {
        self.ended.fetch_add(ended, Ordering::Relaxed);
        self.worked_us.fetch_add(u64::try_from(worked.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn figures(&self) -> Figures {
        let worked = Duration::from_micros(self.worked_us.load(Ordering::Relaxed));
        Figures { ended: self.ended.load(Ordering::Relaxed), worked }
    }
}

/// What the threads of a pool share.
struct Shared {
    worker_type: Arc<str>,
    label: Arc<str>,
    factory: Arc<dyn WorkerFactory>,
    live: ArcSwap<LiveConfig>,
    cutoff: Arc<Cutoff>,
    board: Arc<Board>,
    reader: Reader,
    ids: IdMaker,
    clock: Arc<dyn Clock>,
    report: Reporter,
    alive: Alive,
    counts: Counts,
    gate: probe::Gate,
    /// Of the threads that live. Locked when one comes or goes, and by who looks.
    pulses: Mutex<Vec<Arc<Pulse>>>,
}

impl Shared {
    fn new(
        spec: PoolSpec,
        reader: Reader,
        ids: IdMaker,
        report: Reporter,
        clock: &Arc<dyn Clock>,
    ) -> std::io::Result<Self> {
        let cutoff = Cutoff::new()?;
        Ok(Self {
            worker_type: spec.worker_type,
            label: spec.label,
            factory: spec.factory,
            live: ArcSwap::from_pointee(spec.live),
            board: Board::new(Arc::clone(&cutoff), Arc::clone(clock)),
            cutoff,
            reader,
            ids,
            clock: Arc::clone(clock),
            report,
            alive: Alive::default(),
            counts: Counts::default(),
            gate: probe::Gate::default(),
            pulses: Mutex::default(),
        })
    }
}

/// What the engine puts into a pool's queue.
enum Order {
    Work(Task),
    /// One thread shall end.
    Leave,
}

/// The workers of one version, as the engine sees them.
pub trait Pool: Send {
    /// Workers that it shall have.
    fn size(&self) -> u32;
    /// What its workers have done.
    fn figures(&self) -> Figures;
    /// What each of its workers does at `at`, by the steady clock, and `most` of the jobs that it holds.
    fn workers(&self, at: Duration, most: usize) -> Vec<Seen> {
        let _ = (at, most);
        Vec::new()
    }
    /// Grows or shrinks to `size` workers; those too many leave when they are through with what they hold. A pool of none
    /// goes on, and runs nothing.
    ///
    /// # Errors
    /// A thread could not be made: the pool has fewer.
    fn resize(&mut self, size: u32) -> std::io::Result<()>;
    /// Takes changed settings over, from the next cycle on; the size by [`Pool::resize`].
    fn set_live(&self, live: LiveConfig);
    /// Looks for runs that are past their deadline where nobody can end them: those are told to stop, and after a while their
    /// threads are abandoned and replaced. Returns when to look again as long as it holds jobs; `None`: never.
    fn look(&mut self, now: Duration) -> Option<Duration> {
        let _ = now;
        None
    }
    /// Threads that were abandoned, and have not ended.
    fn abandoned(&self) -> u32 {
        0
    }
    /// Puts a task into the queue.
    fn hand(&self, task: Task);
    /// Takes back what no worker has taken yet.
    fn take_back(&self) -> Vec<Task>;
    /// Hands out nothing more: workers finish what they hold, and end. Returns what none of them has taken.
    fn drain(&mut self) -> Vec<Task>;
    /// Ends what runs, at once; it is reported as interrupted.
    fn cut_off(&self);
    /// What is to be known of its runs beside their jobs. Whoever cancels one there forgets it there, once it is reported.
    fn board(&self) -> &Arc<Board>;
    /// Waits for the workers' end. To be called after [`Report::Ended`].
    fn join(self: Box<Self>);
}

/// Makes pools.
pub trait PoolMaker: Send {
    /// Makes a pool without workers, which reads payloads by `reader` and tells everything to `report`.
    ///
    /// # Errors
    /// No descriptor left.
    fn make(&self, spec: PoolSpec, reader: Reader, ids: IdMaker, report: Reporter) -> std::io::Result<Box<dyn Pool>>;
}

/// Makes pools of threads; of one thread for workers that only wait for others.
pub struct ThreadPools {
    /// For deadlines.
    pub clock: Arc<dyn Clock>,
}

impl PoolMaker for ThreadPools {
    fn make(&self, spec: PoolSpec, reader: Reader, ids: IdMaker, report: Reporter) -> std::io::Result<Box<dyn Pool>> {
        let shared = Shared::new(spec, reader, ids, report, &self.clock)?;
        #[cfg(feature = "daemon")]
        if let Some(worker) = shared.factory.side_by_side() {
            return Ok(Box::new(side_by_side::SideBySidePool::new(shared, worker)));
        }
        Ok(Box::new(ThreadPool::without_threads(shared)))
    }
}

/// The worker threads of one version.
struct ThreadPool {
    shared: Arc<Shared>,
    orders: Option<Sender<Order>>,
    queue: Receiver<Order>,
    /// Dropped to wake threads that wait before they start a worker again.
    leave: Option<Sender<()>>,
    leaving: Receiver<()>,
    /// Those that were not abandoned.
    threads: Vec<(JoinHandle<()>, Arc<Slot>)>,
    size: u32,
}

impl ThreadPool {
    fn without_threads(shared: Shared) -> Self {
        let (orders, queue) = channel::unbounded();
        let (leave, leaving) = channel::bounded(0);
        Self {
            shared: Arc::new(shared),
            orders: Some(orders),
            queue,
            leave: Some(leave),
            leaving,
            threads: Vec::new(),
            size: 0,
        }
    }
}

impl Pool for ThreadPool {
    fn size(&self) -> u32 {
        self.size
    }

    fn figures(&self) -> Figures {
        self.shared.counts.figures()
    }

    fn workers(&self, at: Duration, most: usize) -> Vec<Seen> {
        self.shared.workers(at, most)
    }

    fn resize(&mut self, size: u32) -> std::io::Result<()> {
        let Some(orders) = &self.orders else { return Ok(()) };
        while self.size > size {
            drop(orders.send(Order::Leave));
            self.size -= 1;
        }
        while self.size < size {
            self.threads.push(thread::spawn(&self.shared, &self.queue, &self.leaving)?);
            self.size += 1;
        }
        self.threads.retain(|(handle, _)| !has_finished(handle));
        Ok(())
    }

    fn set_live(&self, live: LiveConfig) {
        self.shared.live.store(Arc::new(live));
    }

    fn look(&mut self, now: Duration) -> Option<Duration> {
        self.look_at_threads(now)
    }

    fn abandoned(&self) -> u32 {
        self.shared.abandoned()
    }

    fn hand(&self, task: Task) {
        if let Some(orders) = &self.orders {
            // The queue lives as long as this pool.
            drop(orders.send(Order::Work(task)));
        }
    }

    fn take_back(&self) -> Vec<Task> {
        let mut tasks = Vec::new();
        let mut others = VecDeque::new();
        loop {
            match self.queue.try_recv() {
                Ok(Order::Work(task)) => tasks.push(task),
                Ok(other @ Order::Leave) => others.push_back(other),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        for other in others {
            if let Some(orders) = &self.orders {
                drop(orders.send(other));
            }
        }
        tasks
    }

    fn drain(&mut self) -> Vec<Task> {
        let tasks = self.take_back();
        self.orders = None;
        self.leave = None;
        self.size = 0;
        self.shared.close();
        tasks
    }

    fn cut_off(&self) {
        self.shared.cutoff.set();
    }

    fn board(&self) -> &Arc<Board> {
        &self.shared.board
    }

    fn join(self: Box<Self>) {
        let Self { threads, orders, leave, .. } = *self;
        // After a panic of the last thread others may have been started meanwhile.
        drop((orders, leave));
        for (handle, _) in threads {
            // A thread that panicked has reported its end by its guard; there is nothing to add.
            drop(handle.join());
        }
    }
}
