//! The kinds of worker. A worker lives on one thread of its pool and does one cycle after the other.
//!
//! Owns what happens to a batch of jobs between reserve and outcome. Never touches the job table or the log: what
//! became of a job leaves as an [`Outcome`] through the cycle's sink, job by job, as soon as it is known.

mod answer;
mod child;
pub mod confined;
pub mod definition;
pub mod exec;
pub mod files;
mod followups;
#[cfg(feature = "daemon")]
pub mod http;
pub mod launch;
pub mod native;
#[cfg(feature = "daemon")]
pub(crate) mod once;
mod output;
pub mod persistent;
mod process;
mod progress;
pub mod pulse;
mod rpc;
pub mod run;
mod spawn;
pub mod spawner;
#[cfg(test)]
mod zoo;

pub use progress::Progress;
#[cfg(fuzzing)]
pub use rpc::told;
pub use run::Run;

#[cfg(feature = "daemon")]
pub(crate) use output::tail;
pub(crate) use output::{front, gist};
pub(crate) use process::resident_bytes;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::config::{Recycle, units};
use crate::job::ids::JobId;
use crate::job::new::NewJob;
use crate::job::trace::TraceParent;
use crate::types::{Lease, UnixMs};
use pulse::Pulse;

/// One job in the hands of a worker, for one run.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// The right to this run.
    pub lease: Lease,
    /// The job's id, made or chosen.
    pub id: JobId,
    /// Worker type.
    pub worker_type: Arc<str>,
    /// Label of the version that runs it.
    pub version: Arc<str>,
    /// The task; may be empty.
    pub task: String,
    /// JSON text on one line.
    pub payload: Bytes,
    /// This attempt, from 1.
    pub attempt: u16,
    /// The last attempt.
    pub max_attempts: u16,
    /// Whom the job is for.
    pub tenant: Option<String>,
    /// The trace that it belongs to.
    pub traceparent: Option<TraceParent>,
    /// Unix time at which the job was accepted.
    pub created_ms: UnixMs,
    /// Unix time at which the run is cut off, if it begins with its batch: informative, `timeout` decides.
    pub deadline_ms: UnixMs,
    /// The run while it goes on: whether it shall stop.
    pub run: Run,
    /// How long the run may take, if it is not extended.
    pub timeout: Duration,
    /// How long it may take at most, however often it is extended.
    pub timeout_max: Duration,
    /// How long after TERM a child is killed.
    pub kill_after: Duration,
}

impl Assignment {
    /// The run begins now, and not with its batch: its deadline is `timeout` from now on.
    fn begins(&mut self) {
        self.deadline_ms = self.run.begins(self.timeout);
    }
}

/// What became of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done: the job is Completed and its follow-up jobs are enqueued, in one step.
    Done {
        /// JSON text on one line.
        result: Option<Vec<u8>>,
        /// Follow-up jobs.
        enqueue: Vec<NewJob>,
    },
    /// Failed: counts an attempt; tried again by backoff, or Dead after the last one.
    Fail {
        /// Why; its end is kept.
        error: String,
        /// Whether a signal from outside ended the run: the first retry then comes within 100 ms.
        killed: bool,
    },
    /// Given back after a pause, at no cost but a deferral (exit 75).
    Defer {
        /// Why; may be empty.
        error: String,
        /// The pause; `None`: by backoff.
        after: Option<Duration>,
    },
    /// Dead at once (exit 65 and 78).
    Dead {
        /// Why.
        error: String,
    },
    /// Not to be done any more, by its worker's own decision: the job is Cancelled. No attempt is counted, nobody is told.
    Cancel {
        /// Why; kept with the job's end, may be empty.
        reason: String,
    },
    /// Cut off by a drain or a stop: given back at the front of its queue, at no cost.
    Interrupted,
    /// The worker could not be started: the version's fault; given back at no cost, and the pool backs off.
    NotStarted {
        /// Why.
        error: String,
    },
    /// What ran it ended, and not by its worker's doing: the helper that starts processes. Given back at no cost but a host
    /// death, of which a job has few.
    HostDeath {
        /// How.
        error: String,
    },
}

impl Outcome {
    /// Whether the run came to an end of its own: nothing cut it off, or kept it from beginning.
    pub fn is_own_end(&self) -> bool {
        match self {
            Self::Done { .. } | Self::Fail { .. } | Self::Dead { .. } | Self::Cancel { .. } | Self::Defer { .. } => {
                true
            }
            Self::Interrupted | Self::NotStarted { .. } | Self::HostDeath { .. } => false,
        }
    }

    /// Its follow-up jobs.
    pub fn follow_ups(&self) -> &[NewJob] {
        match self {
            Self::Done { enqueue, .. } => enqueue,
            Self::Fail { .. }
            | Self::Defer { .. }
            | Self::Dead { .. }
            | Self::Cancel { .. }
            | Self::Interrupted
            | Self::NotStarted { .. }
            | Self::HostDeath { .. } => &[],
        }
    }
}

/// Why a worker could not be started; the text names the program and the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub String);

/// The bound that a worker's process has reached, and where it stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Worn {
    /// It has done so many cycles.
    Cycles(u32),
    /// It is so old.
    Age(Duration),
    /// Its resident memory is so many bytes.
    Rss(u64),
}

impl std::fmt::Display for Worn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cycles(cycles) => write!(f, "it has done {cycles} cycles (`recycle.cycles`)"),
            Self::Age(age) => write!(f, "it is {} s old (`recycle.age`)", age.as_secs()),
            Self::Rss(bytes) => write!(f, "it holds {} of memory (`recycle.rss`)", units::show_size(*bytes)),
        }
    }
}

/// One worker, on one thread. `start`, then any number of `cycle`s, then `stop`.
pub trait Worker: Send {
    /// Makes the worker able to take jobs within `timeout`; called again after it failed, or after a cycle left it broken.
    ///
    /// # Errors
    /// Why it could not be started. No job is charged for it.
    fn start(&mut self, timeout: Duration) -> Result<(), StartError>;

    /// Works on a batch of 1 to `batch` jobs. Calls `sink` exactly once for each job, as soon as its outcome is known;
    /// returns when all are answered and all state of the cycle is dropped.
    fn cycle(&mut self, batch: Vec<Assignment>, sink: &mut dyn FnMut(Lease, Outcome));

    /// Whether the worker can take another cycle as it is; if not, the pool calls `start` again first.
    fn is_ready(&self) -> bool;

    /// Between two cycles: ends in good order what has reached a bound, so that `start` makes a new one. Returns which bound that was.
    fn recycle(&mut self, bounds: &Recycle) -> Option<Worn> {
        let _ = bounds;
        None
    }

    /// Ends the worker in good order; children are gone when it returns.
    fn stop(&mut self);

    /// Has the worker show on `pulse` what its pool cannot see: its process, and signs of life within a run. Called once,
    /// before anything else.
    fn watch(&mut self, pulse: &Arc<Pulse>) {
        let _ = pulse;
    }

    /// Why the worker is not ready any more, if it broke and knows why; told once.
    fn broke(&mut self) -> Option<String> {
        None
    }
}

/// Makes the workers of one pool.
pub trait WorkerFactory: Send + Sync {
    /// One more worker. `cutoff` is set when what runs must be ended at once.
    fn make(&self, cutoff: &Arc<Cutoff>) -> Box<dyn Worker>;

    /// Checks what can be checked without starting anything, for instance that the program is there.
    ///
    /// # Errors
    /// Why no worker can start.
    fn check(&self) -> Result<(), StartError>;

    /// The files that its workers are made of, where it knows.
    fn files(&self) -> Option<&Arc<files::Files>> {
        None
    }

    /// Whether its workers run code of this process, which nobody can end: they answer job by job, in order, and a run past its
    /// deadline is told to stop, then abandoned with its thread.
    fn may_hang(&self) -> bool {
        false
    }

    /// What runs all jobs of a pool on one thread, for workers that only wait for others; `None`: a thread for each worker.
    #[cfg(feature = "daemon")]
    fn side_by_side(&self) -> Option<Arc<dyn SideBySide>> {
        None
    }
}

/// Runs jobs side by side on one thread, as many as its pool is large.
#[cfg(feature = "daemon")]
pub trait SideBySide: Send + Sync {
    /// Runs one job; within a tokio runtime. Dropped before it is through, it leaves nothing behind.
    fn run<'a>(
        &'a self,
        job: &'a Assignment,
        timeouts: crate::config::RequestTimeouts,
    ) -> std::pin::Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;

    /// Runs one job after the other until there is no more, with what the one before has left ready for the next. As `run`.
    fn run_all<'a>(&'a self, jobs: Box<dyn Jobs + 'a>) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
}

/// Jobs for one who runs them one after the other.
#[cfg(feature = "daemon")]
pub trait Jobs: Send {
    /// The next one; the one before has ended.
    fn next(&mut self) -> Option<(Assignment, crate::config::RequestTimeouts)>;

    /// What became of the one that was taken last. One of which this is not said was cut off.
    fn ended(&mut self, outcome: Outcome);
}

/// Set once, when the runs of a pool must be cut off. A worker that waits on descriptors polls [`Cutoff::fd`] too.
#[derive(Debug)]
pub struct Cutoff {
    event: rustix::fd::OwnedFd,
    set: std::sync::atomic::AtomicBool,
    /// Held by those who look whether to go on sleeping in [`Cutoff::sleep`].
    sleeping: std::sync::Mutex<()>,
    /// Wakes them.
    woken: std::sync::Condvar,
    /// Wakes those who wait in [`Cutoff::wait`].
    #[cfg(feature = "daemon")]
    waiting: tokio::sync::Notify,
}

impl Cutoff {
    /// A cutoff that is not set.
    ///
    /// # Errors
    /// No descriptor left.
    pub fn new() -> std::io::Result<Arc<Self>> {
        use rustix::event::{EventfdFlags, eventfd};
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Arc::new(Self {
            event,
            set: std::sync::atomic::AtomicBool::new(false),
            sleeping: std::sync::Mutex::default(),
            woken: std::sync::Condvar::new(),
            #[cfg(feature = "daemon")]
            waiting: tokio::sync::Notify::new(),
        }))
    }

    /// Sets it, for good.
    pub fn set(&self) {
        self.set.store(true, std::sync::atomic::Ordering::Release);
        // An eventfd takes a write of 1 unless its counter is at the brim, and then it is readable anyhow.
        // Any non-zero number does: the byte order does not matter.
        let _: rustix::io::Result<usize> = rustix::io::write(&self.event, &[1; 8]);
        self.look_again();
        #[cfg(feature = "daemon")]
        self.waiting.notify_waiters();
    }

    /// Waits for `most`, or until there is a reason not to, which is returned. It is asked for first, when this is set, and at
    /// each [`Cutoff::look_again`].
    pub(crate) fn sleep<T>(&self, most: Duration, reason: impl Fn() -> Option<T>) -> Option<T> {
        let mut found = None;
        // What is guarded is nothing, so it does not matter if somebody has panicked there.
        let sleeping = self.sleeping.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        drop(self.woken.wait_timeout_while(sleeping, most, |()| {
            found = reason();
            found.is_none()
        }));
        found
    }

    /// Has those who sleep look whether they still may: after something has changed that is a reason for any of them.
    pub(crate) fn look_again(&self) {
        // Nobody is between his look and his sleep now.
        drop(self.sleeping.lock());
        self.woken.notify_all();
    }

    /// Waits until it is set.
    #[cfg(feature = "daemon")]
    pub async fn wait(&self) {
        // A set after this line wakes it, awaited or not.
        let set = self.waiting.notified();
        if !self.is_set() {
            set.await;
        }
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        self.set.load(std::sync::atomic::Ordering::Acquire)
    }

    /// Readable once it is set, and ever after.
    pub fn fd(&self) -> rustix::fd::BorrowedFd<'_> {
        use rustix::fd::AsFd;
        self.event.as_fd()
    }
}
