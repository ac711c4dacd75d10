//! The engine on a real directory with workers in this process: every state of a job, restarts, rollover.

mod ahead;
mod bounds;
mod cancel;
mod full;
mod health;
mod jobs;
mod listed;
mod log;
mod overdue;
mod panics;
mod remembered;
mod resumed;
mod rollout;
mod sizes;
mod standby;
mod successor;
mod told;
mod versions;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use super::view::{EcosystemView, JobFilter, JobView, ReloadVerdict, TypeView};
use super::{Engine, GenerationSpec, Handle, JobAction, OpenError, VersionSpec};
use crate::clock::{Clock, RealClock};
use crate::config::{
    Backoff, Concurrency, Config, FreeMin, KindConfig, LiveConfig, LogConfig, RetryBudget, Rollout, SyncPolicy,
    WorkerConfig,
};
use crate::job::new::{NewJob, Pushed, Start};
use crate::refusal::Refusal;
use crate::types::{Lease, UnixMs};
use crate::worker::{Assignment, Cutoff, Outcome, StartError, Worker, WorkerFactory};

/// A clock whose wall part the test moves; the steady part goes on as the real one does, since threads wait by it, and may
/// be moved ahead.
struct TestClock(AtomicU64, AtomicU64);

impl TestClock {
    /// Moves the steady part ahead, by seconds.
    fn ahead(&self, seconds: u64) {
        self.1.fetch_add(seconds, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn wall_ms(&self) -> UnixMs {
        self.0.load(Ordering::SeqCst)
    }

    fn mono(&self) -> Duration {
        RealClock.mono() + Duration::from_secs(self.1.load(Ordering::SeqCst))
    }
}

type Run = Arc<dyn Fn(&Assignment) -> Outcome + Send + Sync>;

/// A worker that does what a closure says.
struct Doing(Run);

impl Worker for Doing {
    fn start(&mut self, _: Duration) -> Result<(), StartError> {
        Ok(())
    }

    fn cycle(&mut self, batch: Vec<Assignment>, sink: &mut dyn FnMut(Lease, Outcome)) {
        for assignment in batch {
            sink(assignment.lease, (self.0)(&assignment));
        }
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn stop(&mut self) {}
}

struct Factory(Run);

impl WorkerFactory for Factory {
    fn make(&self, _: &Arc<Cutoff>) -> Box<dyn Worker> {
        Box::new(Doing(Arc::clone(&self.0)))
    }

    fn check(&self) -> Result<(), StartError> {
        Ok(())
    }
}

/// A worker that never starts.
struct Broken;

impl WorkerFactory for Broken {
    fn make(&self, _: &Arc<Cutoff>) -> Box<dyn Worker> {
        Box::new(Self)
    }

    fn check(&self) -> Result<(), StartError> {
        Err(StartError("broken on purpose".to_owned()))
    }
}

impl Worker for Broken {
    fn start(&mut self, _: Duration) -> Result<(), StartError> {
        Err(StartError("broken on purpose".to_owned()))
    }

    fn cycle(&mut self, _: Vec<Assignment>, _: &mut dyn FnMut(Lease, Outcome)) {
        unreachable!("it never starts")
    }

    fn is_ready(&self) -> bool {
        false
    }

    fn stop(&mut self) {}
}

fn live() -> LiveConfig {
    LiveConfig {
        concurrency: Concurrency::fixed(2),
        kill_after: Duration::from_secs(1),
        start_timeout: Duration::from_secs(1),
        max_attempts: 3,
        backoff: Backoff { first: Duration::ZERO, factor: 1, max: Duration::ZERO },
        rollout: Rollout { drain_timeout: Duration::from_secs(10), warm_for: Duration::ZERO, ..Rollout::default() },
        ..LiveConfig::default()
    }
}

struct Spec {
    dir: std::path::PathBuf,
    versions: Vec<VersionSpec>,
    segment: u64,
    retain: u64,
}

impl Spec {
    fn new(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf(), versions: Vec::new(), segment: 8 << 20, retain: 1 << 30 }
    }

    fn with(self, name: &str, version: &str, factory: impl WorkerFactory + 'static) -> Self {
        self.with_live(name, version, factory, live())
    }

    fn with_live(mut self, name: &str, version: &str, factory: impl WorkerFactory + 'static, live: LiveConfig) -> Self {
        let worker = WorkerConfig {
            worker_type: name.parse().unwrap(),
            version: version.parse().unwrap(),
            kind: KindConfig::Native,
            live,
        };
        let mut definition_hash = [0; 32];
        definition_hash[..version.len()].copy_from_slice(version.as_bytes());
        self.versions.push(VersionSpec { worker, definition_hash, factory: Arc::new(factory) });
        self
    }

    fn make(self) -> GenerationSpec {
        let config = Config {
            serving: Default::default(),
            access: Default::default(),
            core_dumps: false,
            log_output: Default::default(),
            history_index: false,
            data_dir: self.dir,
            stop_timeout: Duration::from_secs(10),
            workers_max: 1024,
            listen: "127.0.0.1:0".parse().unwrap(),
            log: LogConfig {
                sync: SyncPolicy::Always,
                retain: self.retain,
                segment: self.segment,
                payload_max: 1 << 20,
                result_max: 64 << 10,
                dead_retain: Duration::from_secs(3600),
                dead_max: 1000,
                scrub: None,
                disk_max: None,
                disk_free_min: FreeMin::Share(0),
                scrub_rate: 16 << 20,
            },
            workers: self.versions.iter().map(|version| version.worker.clone()).collect(),
        };
        GenerationSpec { config, versions: self.versions, text: Arc::from(""), access: Default::default() }
    }

    fn open(self) -> Handle {
        self.try_open().unwrap()
    }

    fn try_open(self) -> Result<Handle, OpenError> {
        open_at(self.make(), 1_000_000).map(|(handle, _)| handle)
    }
}

fn open_at(spec: GenerationSpec, wall: UnixMs) -> Result<(Handle, Arc<TestClock>), OpenError> {
    let clock = Arc::new(TestClock(AtomicU64::new(wall), AtomicU64::new(0)));
    let (handle, _) = Engine::open(spec, Arc::clone(&clock) as Arc<dyn Clock>)?;
    Ok((handle, clock))
}

fn ecosystem(handle: &Handle) -> EcosystemView {
    wait(|then| handle.ecosystem(then)).unwrap()
}

fn of_type(handle: &Handle, name: &str) -> TypeView {
    ecosystem(handle).types.into_iter().find(|view| view.worker_type.as_str() == name).unwrap()
}

fn wait<T: Send + 'static>(call: impl FnOnce(crate::engine::handle::Then<T>)) -> T {
    let (to, from) = crossbeam_channel::bounded(1);
    call(Box::new(move |answer| to.send(answer).unwrap()));
    from.recv_timeout(SOON).expect("an answer")
}

fn act(handle: &Handle, id: &str, action: JobAction) -> Result<JobView, Refusal> {
    wait(|then| handle.act(id, action, then))
}

fn reload(handle: &Handle, spec: Spec) -> ReloadVerdict {
    wait(|then| handle.reload(spec.make(), then)).unwrap()
}

fn job(name: &str, payload: &str) -> NewJob {
    NewJob::new(name.parse().unwrap(), payload)
}

fn push(handle: &Handle, name: &str, payload: &str) -> Pushed {
    handle.push(job(name, payload)).unwrap()
}

/// Longer than anything takes that comes at all, where others keep disk and processors busy.
const SOON: Duration = Duration::from_secs(120);

/// Asks again and again, as long as may be; the engine answers every time, so nothing spins.
fn ask<T>(mut answer: impl FnMut() -> Option<T>) -> Option<T> {
    let end = RealClock.mono() + SOON;
    loop {
        let found = answer();
        if found.is_some() || RealClock.mono() > end {
            return found;
        }
    }
}

/// Asks until the job is in this state.
fn until(handle: &Handle, id: &str, state: &str) -> JobView {
    ask(|| Some(handle.job(id).unwrap()).filter(|view| view.state == state))
        .unwrap_or_else(|| panic!("{id} never became {state}: {:?}", handle.job(id)))
}

fn echo() -> Factory {
    Factory(Arc::new(|assignment| Outcome::Done { result: Some(assignment.payload.to_vec()), enqueue: Vec::new() }))
}

/// A worker that says what it was given, and answers what it is told.
fn asked() -> (Factory, Receiver<Assignment>, Sender<Outcome>) {
    let (to_test, given) = crossbeam_channel::unbounded();
    let (answer, answers) = crossbeam_channel::unbounded::<Outcome>();
    let run = move |assignment: &Assignment| {
        to_test.send(assignment.clone()).unwrap();
        answers.recv().unwrap_or(Outcome::Interrupted)
    };
    (Factory(Arc::new(run)), given, answer)
}

fn fail(error: &str) -> Outcome {
    Outcome::Fail { error: error.to_owned(), killed: false }
}

fn done() -> Outcome {
    Outcome::Done { result: None, enqueue: Vec::new() }
}
