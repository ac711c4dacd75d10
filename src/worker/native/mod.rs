//! Workers written in Rust, registered through the library.
//!
//! Owns the cycle as a trait: its state is made by [`NativeWorker::begin`], lent to every job of the batch, and dropped
//! at the end, so nothing survives from one cycle to the next. Never starts a process, never reads a clock, takes no
//! lock: a job costs a call, a catch of its panic and a look at whether it shall stop, and the reading of its payload.
//! Promise: a panic is a failed run of its job; the jobs after it see a state made anew. A payload that cannot be read makes
//! its job dead at once: what is wrong with it no attempt would mend.
//!
//! ```
//! use biotope::job::new::NewJob;
//! use biotope::worker::native::{Context, Failure, Natives};
//!
//! #[derive(serde::Deserialize)]
//! struct Order {
//!     customer: String,
//!     cents: u64,
//! }
//!
//! fn charge(order: Order, context: &mut Context<'_>) -> Result<u64, Failure> {
//!     if order.cents == 0 {
//!         return Err(Failure::cancel("nothing to charge"));
//!     }
//!     context.enqueue(NewJob::json("receipt", &order.customer)?); // with the completion, or not at all
//!     Ok(order.cents)
//! }
//!
//! let mut natives = Natives::new();
//! natives.register_fn("payment", "1", charge)?;
//! natives.register_fn("receipt", "1", |customer: String, _: &mut Context<'_>| println!("thank you, {customer}"))?;
//! # Ok::<(), biotope::worker::native::RegisterError>(())
//! ```

mod context;
mod payload;
mod reply;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

pub use self::context::Context;
pub use self::payload::{Payload, Raw};
pub use self::reply::{Failure, Reply};

use super::pulse::Pulse;
use super::spawner::Spawner;
use super::{Assignment, Cutoff, Outcome, StartError, Worker, WorkerFactory};
use crate::types::{BadName, Lease, WorkerType};

/// A worker in Rust. One value serves all threads of its pool; what a batch shares lives in [`NativeWorker::Cycle`].
///
/// ```
/// use std::collections::HashMap;
/// use biotope::worker::native::{Context, Failure, NativeWorker};
///
/// /// Looks up prices; what one job of a batch has found, the others need not look for.
/// struct Prices;
///
/// impl NativeWorker for Prices {
///     type Payload = String;
///     type Reply = Result<u64, Failure>;
///     type Cycle = HashMap<String, u64>;
///
///     fn begin(&self) -> Self::Cycle {
///         HashMap::new()
///     }
///
///     fn run(&self, found: &mut Self::Cycle, article: String, _: &mut Context<'_>) -> Self::Reply {
///         Ok(*found.entry(article).or_insert_with_key(|article| 100 * article.len() as u64))
///     }
/// }
/// # let mut natives = biotope::worker::native::Natives::new();
/// # natives.register("prices", "v1", Prices)?;
/// # let mut inline = biotope::testing::Inline::new(&natives)?;
/// # let tea = inline.push(biotope::job::new::NewJob::json("prices", &"tea")?)?;
/// # inline.run_until_empty();
/// # assert_eq!(inline.job(&tea.id)?.read_result::<u64>()?, 300);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait NativeWorker: Send + Sync + 'static {
    /// What its payloads are read as: a type that serde reads, or [`Raw`].
    type Payload: Payload;

    /// What it answers: `()`, a `Result` of something that serde writes and an error, or an [`Outcome`].
    type Reply: Reply;

    /// State of one cycle: made at its start, dropped at its end, never seen by another thread.
    type Cycle;

    /// Begins a cycle. A panic here fails the job that it was begun for.
    fn begin(&self) -> Self::Cycle;

    /// Runs one job. A panic is a failed attempt with its message; the next job then gets a new cycle's state.
    fn run(&self, cycle: &mut Self::Cycle, payload: Self::Payload, context: &mut Context<'_>) -> Self::Reply;

    /// Ends a cycle after its last job was answered. Not called for a state that a panic has left behind.
    fn end(&self, cycle: Self::Cycle) {
        drop(cycle);
    }
}

/// A closure as a worker: no state between jobs, not even within a cycle.
struct FromFn<F, P, R>(F, PhantomData<fn(P) -> R>);

impl<F, P, R> NativeWorker for FromFn<F, P, R>
where
    F: Fn(P, &mut Context<'_>) -> R + Send + Sync + 'static,
    P: Payload + 'static,
    R: Reply + 'static,
{
    type Payload = P;
    type Reply = R;
    type Cycle = ();

    fn begin(&self) {}

    fn run(&self, (): &mut (), payload: P, context: &mut Context<'_>) -> R {
        (self.0)(payload, context)
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

    /// Registers a function or a closure, as [`Natives::register`] does a worker.
    ///
    /// # Errors
    /// As [`Natives::register`].
    pub fn register_fn<P: Payload + 'static, R: Reply + 'static>(
        &mut self,
        name: &str,
        tag: impl Into<String>,
        run: impl Fn(P, &mut Context<'_>) -> R + Send + Sync + 'static,
    ) -> Result<(), RegisterError> {
        self.register(name, tag, FromFn(run, PhantomData))
    }

    /// The types that have a native worker.
    pub fn names(&self) -> BTreeSet<String> {
        self.workers.keys().cloned().collect()
    }

    /// A config of these types alone, all settings by default; a type's version is its tag.
    pub fn config(&self) -> String {
        // A JSON string is one of TOML, too.
        let text = |text: &str| serde_json::Value::from(text).to_string();
        let table =
            |(name, (_, tag)): (&String, &(_, String))| format!("[workers.{}]\nversion = {}\n", text(name), text(tag));
        self.workers.iter().map(table).collect()
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
        Box::new(NativeRun { worker: Arc::clone(&self.worker), cutoff: Arc::clone(cutoff), pulse: None })
    }

    fn check(&self) -> Result<(), StartError> {
        Ok(())
    }

    fn may_hang(&self) -> bool {
        true
    }
}

/// One thread's handle of a native worker.
struct NativeRun<W> {
    worker: Arc<W>,
    cutoff: Arc<Cutoff>,
    /// Where its signs of life are shown.
    pulse: Option<Arc<Pulse>>,
}

impl<W: NativeWorker> NativeRun<W> {
    /// Runs one job, beginning the cycle if it is not begun; takes the cycle's state away after a panic.
    fn run(&self, cycle: &mut Option<W::Cycle>, job: &Assignment) -> Outcome {
        let run = AssertUnwindSafe(|| {
            let payload = match W::Payload::read(&job.payload) {
                Ok(payload) => payload,
                Err(error) => return Outcome::Dead { error: format!("the payload cannot be read: {error}") },
            };
            let cycle = cycle.get_or_insert_with(|| self.worker.begin());
            let mut context = Context::new(job, &self.cutoff, self.pulse.as_deref());
            let outcome = self.worker.run(cycle, payload, &mut context).outcome();
            context.finish(outcome)
        });
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
        for mut job in batch {
            let stops = self.cutoff.is_set() || job.run.is_cancelled();
            // Those before it took their time, and none of its own.
            job.begins();
            let outcome = if stops { Outcome::Interrupted } else { self.run(&mut cycle, &job) };
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

    fn watch(&mut self, pulse: &Arc<Pulse>) {
        self.pulse = Some(Arc::clone(pulse));
    }
}

/// Runs what has no job to fail; its panic is told and goes no further.
fn quietly(f: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(f)) {
        tracing::warn!(panic = panic_text(panic.as_ref()), "a native worker panicked at the end of its cycle");
    }
}

/// The message of a panic, as far as it has one.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    if let Some(text) = panic.downcast_ref::<&'static str>() {
        text
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text
    } else {
        "(no message)"
    }
}

#[cfg(test)]
mod tests;
