//! The engine on a real directory with workers in this process: every state of a job, restarts, rollover.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use super::view::{EcosystemView, JobFilter, JobView, ReloadVerdict, TypeView};
use super::{Engine, GenerationSpec, Handle, JobAction, OpenError, VersionSpec};
use crate::clock::{Clock, RealClock};
use crate::config::{Backoff, Config, KindConfig, LiveConfig, LogConfig, SyncPolicy, WorkerConfig};
use crate::job::new::{NewJob, Pushed, Start};
use crate::refusal::Refusal;
use crate::types::{Lease, UnixMs};
use crate::worker::{Assignment, Cutoff, Outcome, StartError, Worker, WorkerFactory};

/// A clock whose wall part the test moves; the steady part is real, since threads wait by it.
struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn wall_ms(&self) -> UnixMs {
        self.0.load(Ordering::SeqCst)
    }

    fn mono(&self) -> Duration {
        RealClock.mono()
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
        concurrency: 2,
        batch: 1,
        timeout: Duration::from_secs(30),
        kill_after: Duration::from_secs(1),
        start_timeout: Duration::from_secs(1),
        max_attempts: 3,
        backoff: Backoff { first: Duration::ZERO, factor: 1, max: Duration::ZERO },
        on_dead: None,
        drain_timeout: Duration::from_secs(10),
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
            data_dir: self.dir,
            stop_timeout: Duration::from_secs(10),
            listen: "127.0.0.1:0".parse().unwrap(),
            log: LogConfig {
                sync: SyncPolicy::Always,
                retain: self.retain,
                segment: self.segment,
                payload_max: 1 << 20,
                result_max: 64 << 10,
                dead_retain: Duration::from_secs(3600),
                dead_max: 1000,
            },
            workers: self.versions.iter().map(|version| version.worker.clone()).collect(),
        };
        GenerationSpec { config, versions: self.versions }
    }

    fn open(self) -> Handle {
        self.try_open().unwrap()
    }

    fn try_open(self) -> Result<Handle, OpenError> {
        open_at(self.make(), 1_000_000).map(|(handle, _)| handle)
    }
}

fn open_at(spec: GenerationSpec, wall: UnixMs) -> Result<(Handle, Arc<TestClock>), OpenError> {
    let clock = Arc::new(TestClock(AtomicU64::new(wall)));
    let (handle, _) = Engine::open(spec, Arc::clone(&clock) as Arc<dyn Clock>)?;
    Ok((handle, clock))
}

fn ecosystem(handle: &Handle) -> EcosystemView {
    wait(|then| handle.ecosystem(then)).unwrap()
}

fn of_type(handle: &Handle, name: &str) -> TypeView {
    ecosystem(handle).types.into_iter().find(|view| view.worker_type.as_str() == name).unwrap()
}

fn wait<T: Send + 'static>(call: impl FnOnce(super::handle::Then<T>)) -> T {
    let (to, from) = crossbeam_channel::bounded(1);
    call(Box::new(move |answer| to.send(answer).unwrap()));
    from.recv_timeout(Duration::from_secs(20)).expect("an answer")
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

/// Asks until the job is in this state: the engine answers every time, so nothing spins.
fn until(handle: &Handle, id: &str, state: &str) -> JobView {
    for _ in 0..20_000 {
        let view = handle.job(id).unwrap();
        if view.state == state {
            return view;
        }
    }
    panic!("{id} never became {state}: {:?}", handle.job(id));
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

#[test]
fn a_job_is_done_and_its_result_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let handle = Spec::new(dir.path()).with("echo", "v1", echo()).open();
    let pushed = push(&handle, "echo", r#"{"n":1}"#);
    assert_eq!(pushed.state, "ready");
    let view = until(&handle, &pushed.id, "completed");
    assert_eq!(view.result.as_ref().unwrap().get(), r#"{"n":1}"#);
    assert_eq!((view.version.as_deref(), view.attempts), (Some("v1"), 0));
    handle.stop_and_wait();
    assert_eq!(handle.push(job("echo", "1")), Err(Refusal::Stopping));

    let handle = Spec::new(dir.path()).with("echo", "v1", echo()).open();
    assert_eq!(handle.job(&pushed.id).unwrap().result.unwrap().get(), r#"{"n":1}"#);
    assert_eq!(of_type(&handle, "echo").completed, 1);
    assert_eq!(ecosystem(&handle).generation.number, 1, "the same config makes no new generation");
    handle.stop_and_wait();
}

#[test]
fn a_failing_job_is_tried_again_then_dead_then_redriven_or_discarded() {
    let dir = tempfile::tempdir().unwrap();
    let (factory, given, answer) = asked();
    let mut settings = live();
    settings.on_dead = Some("mourner".parse().unwrap());
    settings.concurrency = 1;
    let (mourner, summaries, mourned) = asked();
    let handle = Spec::new(dir.path()).with_live("t", "v1", factory, settings).with("mourner", "v1", mourner).open();
    let pushed = push(&handle, "t", "7");
    for attempt in 1..=3 {
        assert_eq!(given.recv().unwrap().attempt, attempt);
        answer.send(fail(&format!("no {attempt}"))).unwrap();
    }
    let dead = until(&handle, &pushed.id, "dead");
    assert_eq!(dead.failures.iter().map(|f| f.error.as_str()).collect::<Vec<_>>(), ["no 1", "no 2", "no 3"]);
    let summary: serde_json::Value = serde_json::from_slice(&summaries.recv().unwrap().payload).unwrap();
    assert_eq!((summary["id"].as_str(), summary["error"].as_str()), (Some(pushed.id.as_str()), Some("no 3")));
    mourned.send(done()).unwrap();

    assert!(matches!(act(&handle, &pushed.id, JobAction::Cancel), Err(Refusal::WrongState { state: "dead", .. })));
    assert_eq!(act(&handle, &pushed.id, JobAction::Retry).unwrap().state, "ready");
    assert_eq!(given.recv().unwrap().attempt, 1);
    answer.send(Outcome::Dead { error: "never".to_owned() }).unwrap();
    until(&handle, &pushed.id, "dead");
    assert_eq!(act(&handle, &pushed.id, JobAction::Discard).unwrap().state, "discarded");
    assert_eq!(handle.job(&pushed.id).unwrap().state, "discarded");
    assert!(matches!(act(&handle, &pushed.id, JobAction::Retry), Err(Refusal::WrongState { .. })));
    let view = of_type(&handle, "t");
    assert_eq!((view.failed, view.discarded, view.dead), (4, 1, 0));
    mourned.send(done()).unwrap();
    handle.stop_and_wait();
}

#[test]
fn ids_and_keys_that_callers_choose_are_held_across_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let named = |payload: &str, id: &str, key: &str| {
        let mut job = job("echo", payload);
        job.id = Some(id.parse().unwrap());
        job.idempotency_key = Some(key.parse().unwrap());
        job
    };
    for life in 0..3 {
        let handle = Spec::new(dir.path()).with("echo", "v1", echo()).with("other", "v1", echo()).open();
        let pushed = handle.push(named("1", "order-1", "k1")).unwrap();
        assert_eq!((pushed.id.as_str(), pushed.duplicate), ("order-1", life > 0));
        until(&handle, "order-1", "completed");
        let again = handle.push(named("1", "order-1", "k1")).unwrap();
        assert_eq!((again.duplicate, again.state), (true, "completed"));
        let conflict = handle.push(named("2", "order-1", "k2")).unwrap_err();
        assert_eq!(conflict.code(), "key_conflict");
        let mut elsewhere = named("2", "order-1", "k1");
        elsewhere.worker_type = "other".parse().unwrap();
        assert_eq!(handle.push(elsewhere).unwrap().duplicate, life > 0, "ids are chosen within a type");
        handle.stop_and_wait();
    }
}

#[test]
fn delays_and_expiry_follow_the_wall_clock() {
    let dir = tempfile::tempdir().unwrap();
    let spec = Spec::new(dir.path()).with("echo", "v1", echo()).make();
    let (handle, clock) = open_at(spec, 1_000_000).unwrap();
    let mut later = job("echo", "1");
    later.start = Start::After(Duration::from_secs(3600));
    let later = handle.push(later).unwrap();
    let mut too_late = job("echo", "2");
    too_late.start = Start::At(9_000_000);
    too_late.expires_at = Some(5_000_000);
    let too_late = handle.push(too_late).unwrap();
    assert_eq!((later.state, too_late.state), ("delayed", "delayed"));
    clock.0.store(1_000_000 + 3_599_999, Ordering::SeqCst);
    assert_eq!(handle.job(&later.id).unwrap().state, "delayed");
    clock.0.store(1_000_000 + 3_600_000, Ordering::SeqCst);
    until(&handle, &later.id, "completed");
    clock.0.store(5_000_000, Ordering::SeqCst);
    until(&handle, &too_late.id, "expired");
    assert_eq!(of_type(&handle, "echo").expired, 1);
    handle.stop_and_wait();
}

#[test]
fn follow_up_jobs_come_with_the_completion_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let (factory, given, answer) = asked();
    let handle = Spec::new(dir.path()).with("first", "v1", factory).with("second", "v1", echo()).open();
    let pushed = push(&handle, "first", "1");
    given.recv().unwrap();
    let enqueue = vec![job("second", "2"), job("nowhere", "3")];
    answer.send(Outcome::Done { result: None, enqueue }).unwrap();
    assert_eq!(given.recv().unwrap().attempt, 2, "a refused follow-up fails the attempt");
    assert_eq!(of_type(&handle, "second").enqueued, 0);
    let mut twice = job("second", "4");
    twice.idempotency_key = Some("once".parse().unwrap());
    answer.send(Outcome::Done { result: None, enqueue: vec![job("second", "2"), twice.clone(), twice] }).unwrap();
    let first = until(&handle, &pushed.id, "completed");
    assert!(first.failures[0].error.contains("nowhere"), "{first:?}");
    assert_eq!(of_type(&handle, "second").enqueued, 2);
    let filter = JobFilter { worker_type: Some("second".parse().unwrap()), limit: 10, ..JobFilter::default() };
    for job in handle.jobs(&filter).unwrap().jobs {
        assert_eq!(job.parent.as_deref(), Some(pushed.id.as_str()));
    }
    handle.stop_and_wait();
}

#[test]
fn a_new_version_takes_over_and_the_old_one_finishes_what_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let (v1, given, answer) = asked();
    let mut settings = live();
    settings.concurrency = 1;
    let handle = Spec::new(dir.path()).with_live("t", "v1", v1, settings.clone()).open();
    let held = push(&handle, "t", "1");
    let waiting = push(&handle, "t", "2");
    assert_eq!(given.recv().unwrap().id, held.id);

    let (to, verdict) = crossbeam_channel::bounded(1);
    let v2 = Spec::new(dir.path()).with_live("t", "v2", echo(), settings.clone()).make();
    handle.reload(v2, Box::new(move |answer| to.send(answer).unwrap()));
    assert_eq!(until(&handle, &waiting.id, "completed").version.as_deref(), Some("v2"));
    assert!(verdict.is_empty(), "v1 still holds a job");
    assert_eq!(handle.job(&held.id).unwrap().state, "reserved");
    answer.send(done()).unwrap();
    let verdict = verdict.recv().unwrap().unwrap();
    assert_eq!((verdict.verdict, verdict.generation), ("ok", 2));
    assert_eq!(until(&handle, &held.id, "completed").version.as_deref(), Some("v1"));

    let verdict = reload(&handle, Spec::new(dir.path()).with_live("t", "v2", echo(), settings.clone()));
    assert_eq!(verdict.verdict, "unchanged");
    let verdict = reload(&handle, Spec::new(dir.path()).with_live("t", "v3", Broken, settings));
    assert_eq!(verdict.verdict, "partial");
    assert_eq!(verdict.types[0].reason.as_deref(), Some("broken on purpose"));
    let after = push(&handle, "t", "3");
    assert_eq!(until(&handle, &after.id, "completed").version.as_deref(), Some("v2"));
    handle.stop_and_wait();
}

#[test]
fn types_come_and_go_and_a_backlog_is_parked_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let handle = Spec::new(dir.path()).with("a", "v1", echo()).open();
    assert_eq!(handle.push(job("b", "1")).unwrap_err().code(), "unknown_type");
    assert_eq!(reload(&handle, Spec::new(dir.path()).with("a", "v1", echo()).with("b", "v1", echo())).verdict, "ok");
    until(&handle, &push(&handle, "b", "1").id, "completed");
    assert_eq!(reload(&handle, Spec::new(dir.path()).with("a", "v1", echo())).types[0].change, "removed");
    let parked = push(&handle, "b", "2");
    assert_eq!((parked.state, of_type(&handle, "b").parked), ("parked", 1));
    reload(&handle, Spec::new(dir.path()).with("a", "v1", echo()).with("b", "v1", echo()));
    until(&handle, &parked.id, "completed");
    reload(&handle, Spec::new(dir.path()).with("a", "v1", echo()));
    push(&handle, "b", "3");
    assert_eq!(wait(|then| handle.purge("b", then)), Ok(1));
    assert_eq!(of_type(&handle, "b").cancelled, 1);
    handle.stop_and_wait();
}

#[test]
fn a_stop_gives_back_what_runs_too_long_and_a_restart_takes_it_up() {
    let dir = tempfile::tempdir().unwrap();
    let (factory, given, answer) = asked();
    let mut spec = Spec::new(dir.path()).with("t", "v1", factory).make();
    spec.config.stop_timeout = Duration::ZERO;
    let (handle, _) = open_at(spec, 1_000_000).unwrap();
    let pushed = push(&handle, "t", "1");
    let waiting: Vec<Pushed> = (0..5).map(|n| push(&handle, "t", &n.to_string())).collect();
    given.recv().unwrap();
    // Its worker answers "interrupted" once nobody can answer it any more, as a child that was cut off would.
    drop(answer);
    handle.stop_and_wait();
    let handle = Spec::new(dir.path()).with("t", "v1", echo()).open();
    let view = until(&handle, &pushed.id, "completed");
    assert_eq!((view.attempts, view.host_deaths), (0, 0));
    for waiting in waiting {
        until(&handle, &waiting.id, "completed");
    }
    handle.stop_and_wait();
}

#[test]
fn the_log_is_cleaned_and_its_head_alone_gives_the_state() {
    let dir = tempfile::tempdir().unwrap();
    let (keeper, kept, answer) = asked();
    let mut spec = Spec::new(dir.path()).with("keep", "v1", keeper).with("echo", "v1", echo());
    spec.retain = 0;
    let handle = spec.open();
    let mut held = job("keep", r#""held""#);
    held.id = Some("held".parse().unwrap());
    handle.push(held.clone()).unwrap();
    let mut delayed = job("echo", r#""later""#);
    delayed.start = Start::After(Duration::from_secs(1_000_000));
    let delayed = handle.push(delayed).unwrap();
    let task = kept.recv().unwrap();
    let payload = format!("\"{}\"", "x".repeat(200 << 10));
    for _ in 0..60 {
        let jobs = (0..10).map(|_| job("echo", &payload)).collect();
        let ids: Vec<String> = handle.push_many(jobs).into_iter().map(|pushed| pushed.unwrap().id).collect();
        until(&handle, ids.last().unwrap(), "completed");
    }
    let log = ecosystem(&handle).log;
    assert!(log.head_segment > 3, "{log:?}");
    assert!(log.disk_bytes <= 6 * (8 << 20), "{log:?}");
    answer.send(done()).unwrap();
    until(&handle, &task.id, "completed");
    let before = ecosystem(&handle);
    handle.stop_and_wait();

    let mut spec = Spec::new(dir.path()).with("keep", "v1", echo()).with("echo", "v1", echo());
    spec.retain = 0;
    let handle = spec.open();
    let after = ecosystem(&handle);
    let totals = |view: &EcosystemView| -> HashMap<String, (u64, u64)> {
        view.types.iter().map(|t| (t.worker_type.to_string(), (t.enqueued, t.completed))).collect()
    };
    assert_eq!(totals(&before), totals(&after));
    assert_eq!(totals(&after)["echo"], (601, 600));
    let view = handle.job(&delayed.id).unwrap();
    assert_eq!((view.state, view.payload.unwrap().get()), ("delayed", r#""later""#));
    assert!(handle.push(held).unwrap().duplicate, "its last record is in the log, so its id is held");
    handle.stop_and_wait();
}

#[test]
fn a_listing_shows_each_job_once_and_goes_on_by_its_cursor() {
    let dir = tempfile::tempdir().unwrap();
    let handle = Spec::new(dir.path()).with("echo", "v1", echo()).open();
    let ids: Mutex<Vec<String>> = Mutex::default();
    for n in 0..50 {
        let pushed = push(&handle, "echo", &n.to_string());
        until(&handle, &pushed.id, "completed");
        ids.lock().unwrap().push(pushed.id);
    }
    let mut filter = JobFilter { limit: 7, state: Some("completed".to_owned()), ..JobFilter::default() };
    let mut seen = Vec::new();
    loop {
        let page = handle.jobs(&filter).unwrap();
        seen.extend(page.jobs.into_iter().map(|job| job.id));
        filter.cursor = page.next_cursor;
        if filter.cursor.is_none() {
            break;
        }
    }
    seen.reverse();
    assert_eq!(seen, ids.into_inner().unwrap());
    handle.stop_and_wait();
}
