//! Workers written in Rust, registered through the library.
//!
//! Owns the cycle as a trait: its state is made by [`NativeWorker::begin`], lent to every job of the batch, and dropped
//! at the end, so nothing survives from one cycle to the next. Never starts a process, never reads a clock, takes no
//! lock: a job costs a call, a catch of its panic and a load of the cutoff.
//! Promise: a panic is a failed run of its job; the jobs after it see a state made anew.
//!
//! ```
//! use biotope::worker::native::Natives;
//! use biotope::worker::Outcome;
//!
//! let mut natives = Natives::new();
//! natives.register_fn("echo", "1", |job| Outcome::Done { result: Some(job.payload.to_vec()), enqueue: Vec::new() })?;
//! assert!(natives.names().contains("echo"));
//! # Ok::<(), biotope::worker::native::RegisterError>(())
//! ```

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::spawner::Spawner;
use super::{Assignment, Cutoff, Outcome, StartError, Worker, WorkerFactory};
use crate::types::{BadName, Lease, WorkerType};

/// A worker in Rust. One value serves all threads of its pool; what a batch shares lives in [`NativeWorker::Cycle`].
pub trait NativeWorker: Send + Sync + 'static {
    /// State of one cycle: made at its start, dropped at its end, never seen by another thread.
    type Cycle;

    /// Begins a cycle. A panic here fails the job that it was begun for.
    fn begin(&self) -> Self::Cycle;

    /// Runs one job. A panic is a [`Outcome::Fail`] with its message; the next job then gets a new cycle's state.
    fn run(&self, cycle: &mut Self::Cycle, job: &Assignment) -> Outcome;

    /// Ends a cycle after its last job was answered. Not called for a state that a panic has left behind.
    fn end(&self, cycle: Self::Cycle) {
        drop(cycle);
    }
}

/// A closure as a worker: no state between jobs, not even within a cycle.
struct FromFn<F>(F);

impl<F> NativeWorker for FromFn<F>
where
    F: Fn(&Assignment) -> Outcome + Send + Sync + 'static,
{
    type Cycle = ();

    fn begin(&self) {}

    fn run(&self, (): &mut (), job: &Assignment) -> Outcome {
        (self.0)(job)
    }
}

/// Why a native worker was not registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// The name is no worker type's name.
    #[error("native worker {name:?}: the name {why}")]
    BadName {
        /// What was given.
        name: String,
        /// What is wrong with it.
        why: BadName,
    },
    /// The type has a native worker already.
    #[error("native worker {name:?} is registered twice")]
    Duplicate {
        /// The type's name.
        name: String,
    },
}

/// What a program brings along for a config: the native workers that it may name, by worker type, and who starts the others.
#[derive(Clone, Default)]
pub struct Natives {
    workers: BTreeMap<String, (Arc<dyn WorkerFactory>, String)>,
    spawner: Spawner,
}

impl Natives {
    /// An empty registry, to register workers in.
    pub fn new() -> Self {
        Self::default()
    }

    /// No native workers: what the program `biotope` itself runs with.
    pub fn none() -> Self {
        Self::default()
    }

    /// Has the programs that a config names started by `spawner`, instead of by this process itself.
    #[must_use]
    pub fn with_spawner(mut self, spawner: Spawner) -> Self {
        self.spawner = spawner;
        self
    }

    /// Who starts the programs that a config names.
    pub(crate) fn spawner(&self) -> &Spawner {
        &self.spawner
    }

    /// Registers the worker of a type. `tag` stands for the worker's code: a version is a new one when it changes.
    ///
    /// # Errors
    /// `BadName`, `Duplicate`; the registry is then as before.
    pub fn register(
        &mut self,
        name: &str,
        tag: impl Into<String>,
        worker: impl NativeWorker,
    ) -> Result<(), RegisterError> {
        if let Err(why) = name.parse::<WorkerType>() {
            return Err(RegisterError::BadName { name: name.to_owned(), why });
        }
        if self.workers.contains_key(name) {
            return Err(RegisterError::Duplicate { name: name.to_owned() });
        }
        let factory: Arc<dyn WorkerFactory> = Arc::new(NativeFactory { worker: Arc::new(worker) });
        self.workers.insert(name.to_owned(), (factory, tag.into()));
        Ok(())
    }

    /// Registers a closure, as [`Natives::register`] does a worker.
    ///
    /// # Errors
    /// As [`Natives::register`].
    pub fn register_fn(
        &mut self,
        name: &str,
        tag: impl Into<String>,
        run: impl Fn(&Assignment) -> Outcome + Send + Sync + 'static,
    ) -> Result<(), RegisterError> {
        self.register(name, tag, FromFn(run))
    }

    /// The types that have a native worker.
    pub fn names(&self) -> BTreeSet<String> {
        self.workers.keys().cloned().collect()
    }

    /// What makes the workers of a type, and the tag that stands for its code.
    pub fn get(&self, name: &str) -> Option<(Arc<dyn WorkerFactory>, String)> {
        self.workers.get(name).cloned()
    }
}

impl std::fmt::Debug for Natives {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.workers.iter().map(|(name, (_, tag))| (name, tag))).finish()
    }
}

/// Makes the threads' handles of one native worker.
struct NativeFactory<W> {
    worker: Arc<W>,
}

impl<W: NativeWorker> WorkerFactory for NativeFactory<W> {
    fn make(&self, cutoff: &Arc<Cutoff>) -> Box<dyn Worker> {
        Box::new(NativeRun { worker: Arc::clone(&self.worker), cutoff: Arc::clone(cutoff) })
    }

    fn check(&self) -> Result<(), StartError> {
        Ok(())
    }
}

/// One thread's handle of a native worker.
struct NativeRun<W> {
    worker: Arc<W>,
    cutoff: Arc<Cutoff>,
}

impl<W: NativeWorker> NativeRun<W> {
    /// Runs one job, beginning the cycle if it is not begun; takes the cycle's state away after a panic.
    fn run(&self, cycle: &mut Option<W::Cycle>, job: &Assignment) -> Outcome {
        let run = AssertUnwindSafe(|| self.worker.run(cycle.get_or_insert_with(|| self.worker.begin()), job));
        match catch_unwind(run) {
            Ok(outcome) => outcome,
            Err(panic) => {
                let error = format!("the worker panicked: {}", panic_text(panic.as_ref()));
                // What the panic left half-done is not for the next job.
                quietly(|| drop(cycle.take()));
                Outcome::Fail { error, killed: false }
            }
        }
    }
}

impl<W: NativeWorker> Worker for NativeRun<W> {
    fn start(&mut self, _timeout: Duration) -> Result<(), StartError> {
        Ok(())
    }

    fn cycle(&mut self, batch: Vec<Assignment>, sink: &mut dyn FnMut(Lease, Outcome)) {
        let mut cycle = None;
        for job in batch {
            let outcome = if self.cutoff.is_set() { Outcome::Interrupted } else { self.run(&mut cycle, &job) };
            sink(job.lease, outcome);
        }
        if let Some(cycle) = cycle {
            quietly(|| self.worker.end(cycle));
        }
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn stop(&mut self) {}
}

/// Runs what has no job to fail; its panic is told and goes no further.
fn quietly(f: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(f)) {
        tracing::warn!(panic = panic_text(panic.as_ref()), "a native worker panicked at the end of its cycle");
    }
}

/// The message of a panic, as far as it has one.
fn panic_text(panic: &(dyn Any + Send)) -> &str {
    if let Some(text) = panic.downcast_ref::<&'static str>() {
        text
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text
    } else {
        "(no message)"
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::worker::zoo::{assignment, cutoff, outcomes};

    fn done(text: &str) -> Outcome {
        Outcome::Done { result: Some(text.as_bytes().to_vec()), enqueue: Vec::new() }
    }

    /// Counts the jobs of a cycle in its state, and the states alive at all.
    #[derive(Default)]
    struct Counting {
        alive: Arc<AtomicUsize>,
        ended: Arc<AtomicUsize>,
    }

    struct State(usize, Arc<AtomicUsize>);

    impl Drop for State {
        fn drop(&mut self) {
            self.1.fetch_sub(1, Ordering::Relaxed);
        }
    }

    impl NativeWorker for Counting {
        type Cycle = State;

        fn begin(&self) -> State {
            self.alive.fetch_add(1, Ordering::Relaxed);
            State(0, Arc::clone(&self.alive))
        }

        fn run(&self, cycle: &mut State, job: &Assignment) -> Outcome {
            assert!(job.task != "panic", "bad job {}", job.id);
            cycle.0 += 1;
            done(&cycle.0.to_string())
        }

        fn end(&self, cycle: State) {
            self.ended.fetch_add(1, Ordering::Relaxed);
            drop(cycle);
        }
    }

    fn worker_of(natives: &Natives, name: &str, cut: &Arc<Cutoff>) -> Box<dyn Worker> {
        natives.get(name).unwrap().0.make(cut)
    }

    #[test]
    fn state_is_shared_within_a_cycle_and_dropped_at_its_end() {
        let counting = Counting::default();
        let (alive, ended) = (Arc::clone(&counting.alive), Arc::clone(&counting.ended));
        let mut natives = Natives::new();
        natives.register("count", "1", counting).unwrap();
        let mut worker = worker_of(&natives, "count", &cutoff());
        for cycle in 1..=2 {
            let got = outcomes(&mut *worker, vec![assignment(1), assignment(2)]);
            assert_eq!(got, [(1, done("1")), (2, done("2"))]);
            assert_eq!((alive.load(Ordering::Relaxed), ended.load(Ordering::Relaxed)), (0, cycle));
        }
    }

    #[test]
    fn panic_fails_its_job_and_the_next_one_gets_a_new_state() {
        let counting = Counting::default();
        let alive = Arc::clone(&counting.alive);
        let mut natives = Natives::new();
        natives.register("count", "1", counting).unwrap();
        let mut bad = assignment(2);
        bad.task = "panic".into();
        let got = outcomes(&mut *worker_of(&natives, "count", &cutoff()), vec![assignment(1), bad, assignment(3)]);
        let error = "the worker panicked: bad job job-2".to_owned();
        assert_eq!(got, [(1, done("1")), (2, Outcome::Fail { error, killed: false }), (3, done("1"))]);
        assert_eq!(alive.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn cutoff_gives_back_the_jobs_not_begun() {
        let cut = cutoff();
        let inner = Arc::clone(&cut);
        let mut natives = Natives::new();
        natives
            .register_fn("cut", "1", move |_| {
                inner.set();
                done("1")
            })
            .unwrap();
        let got = outcomes(&mut *worker_of(&natives, "cut", &cut), vec![assignment(1), assignment(2)]);
        assert_eq!(got, [(1, done("1")), (2, Outcome::Interrupted)]);
    }

    #[test]
    fn registry_refuses_bad_and_double_names() {
        let mut natives = Natives::new();
        natives.register_fn("echo", "1", |_| done("1")).unwrap();
        let twice = natives.register_fn("echo", "2", |_| done("2")).unwrap_err();
        assert_eq!(twice.to_string(), "native worker \"echo\" is registered twice");
        assert!(matches!(natives.register_fn("a b", "1", |_| done("1")), Err(RegisterError::BadName { .. })));
        assert_eq!(natives.names(), BTreeSet::from(["echo".to_owned()]));
        assert_eq!(natives.get("echo").unwrap().1, "1");
        assert!(natives.get("other").is_none() && Natives::none().names().is_empty());
    }
}
