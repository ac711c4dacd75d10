//! What is shown of workers and of what they do: times by an injected clock, restarts, and what is stuck.

use std::sync::OnceLock;

use super::*;
use crate::engine::view::VersionView;
use crate::recent::Shares;

fn version(handle: &Handle, name: &str) -> VersionView {
    of_type(handle, name).versions.pop().unwrap()
}

/// A worker whose run takes as many seconds as its payload says, by the test's clock; a run of 7 seconds fails.
fn timed(clock: &Arc<OnceLock<Arc<TestClock>>>) -> Factory {
    let clock = Arc::clone(clock);
    Factory(Arc::new(move |assignment| {
        let seconds: u64 = serde_json::from_slice(&assignment.payload).unwrap();
        let clock = clock.wait();
        clock.ahead(seconds);
        clock.0.fetch_add(seconds * 1000, Ordering::SeqCst);
        if seconds == 7 { fail("seven") } else { done() }
    }))
}

fn near(shares: Option<Shares>, [p50, p95, p99]: [f64; 3]) {
    let found = shares.unwrap();
    for (found, wanted) in [(found.p50, p50), (found.p95, p95), (found.p99, p99)] {
        assert!((found - wanted).abs() <= wanted / 32.0 + 50.0, "{found} for {wanted}");
    }
}

#[test]
fn runs_and_waits_are_shown_by_how_long_they_took() {
    let dir = tempfile::tempdir().unwrap();
    let known = Arc::default();
    let settings = LiveConfig { concurrency: Concurrency::fixed(1), max_attempts: 1, ..live() };
    let spec = Spec::new(dir.path()).with_live("t", "v1", timed(&known), settings).with("idle", "v1", echo()).make();
    let (handle, clock) = open_at(spec, 1_000_000).unwrap();
    known.set(Arc::clone(&clock)).map_err(|_| ()).unwrap();
    assert_eq!(wait(|then| handle.pause("t", true, then)), Ok(1_000_000));
    let before = of_type(&handle, "t");
    assert_eq!((before.pace.run_ms, before.pace.wait_ms, before.pace.per_second), (None, None, 0.0));

    // Ten seconds after these could have been run the first of them begins, and each waits for all before it.
    let pushed: Vec<Pushed> = ["5"; 9].iter().chain(&["80"]).map(|payload| push(&handle, "t", payload)).collect();
    clock.0.fetch_add(10_000, Ordering::SeqCst);
    assert_eq!(wait(|then| handle.pause("t", false, then)), Ok(0));
    pushed.iter().for_each(|pushed| drop(until(&handle, &pushed.id, "completed")));
    let view = version(&handle, "t");
    near(view.pace.run_ms, [5_000.0, 80_000.0, 80_000.0]);
    near(view.pace.wait_ms, [10_000.0 + 4.0 * 5_000.0, 55_000.0, 55_000.0]);
    let all = of_type(&handle, "t");
    assert_eq!(
        (all.pace.run_ms, all.pace.wait_ms, all.pace.per_second),
        (view.pace.run_ms, view.pace.wait_ms, view.pace.per_second)
    );

    // A failed run took its time, too; and a job that was delayed was not kept waiting by that.
    let mut late = job("t", "7");
    late.start = Start::After(Duration::from_secs(3600));
    let late = handle.push(late).unwrap();
    clock.0.fetch_add(3_601_000, Ordering::SeqCst);
    // Awake, it sees what time it is.
    until(&handle, &late.id, "dead");
    let view = version(&handle, "t");
    near(view.pace.wait_ms, [10_000.0 + 4.0 * 5_000.0, 55_000.0, 55_000.0]);
    assert!(view.pace.failures_per_second > 0.0 && view.pace.failures_per_second < 1.0, "{view:?}");
    assert_eq!(version(&handle, "idle").pace.run_ms, None);

    // After five minutes nothing of it is left.
    clock.ahead(300);
    let view = version(&handle, "t");
    assert_eq!((view.pace.run_ms, view.pace.wait_ms), (None, None));
    assert_eq!((view.pace.per_second, view.pace.failures_per_second), (0.0, 0.0));
    handle.stop_and_wait();
}

/// Asks until a version is as it shall be.
fn until_version(handle: &Handle, name: &str, what: &str, is: impl Fn(&VersionView) -> bool) -> VersionView {
    ask(|| Some(version(handle, name)).filter(&is))
        .unwrap_or_else(|| panic!("{name} never {what}: {:#?}", version(handle, name)))
}

#[test]
fn a_worker_that_is_past_its_time_is_shown_as_stuck_with_what_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let (factory, given, answer) = asked();
    let (handle, clock) = open_at(Spec::new(dir.path()).with("t", "v1", factory).make(), 1_000_000).unwrap();
    let idle = |v: &VersionView| v.workers.len() == 2 && v.workers.iter().all(|worker| worker.state == "idle");
    until_version(&handle, "t", "was idle", idle);
    let pushed = push(&handle, "t", "1");
    given.recv().unwrap();
    let view = version(&handle, "t");
    // The one that works comes first.
    assert_eq!((view.workers[0].state, view.workers[0].holds, view.workers[0].stuck), ("working", 1, false));
    assert_eq!((view.workers[0].jobs[0].id.as_str(), view.workers[1].state), (pushed.id.as_str(), "idle"));

    // 30 s `timeout`, 1 s `kill_after`, and a little.
    clock.ahead(30);
    assert!(!version(&handle, "t").workers[0].stuck, "it may run for so long");
    clock.ahead(4);
    let view = version(&handle, "t");
    assert!(view.workers[0].stuck && !view.workers[1].stuck, "{view:?}");
    assert!((34_000..60_000).contains(&view.workers[0].beat_ms), "{view:?}");
    assert!((34_000..60_000).contains(&view.workers[0].jobs[0].age_ms), "{view:?}");
    answer.send(done()).unwrap();
    until(&handle, &pushed.id, "completed");
    until_version(&handle, "t", "went on", |v| v.workers.iter().all(|worker| !worker.stuck && worker.holds == 0));
    handle.stop_and_wait();
}

/// A worker that does not start, or breaks in every cycle, as long as it is told so.
#[derive(Clone, Default)]
struct Breaks {
    at_start: Arc<std::sync::atomic::AtomicBool>,
    in_cycle: Arc<std::sync::atomic::AtomicBool>,
    is_up: bool,
}

impl WorkerFactory for Breaks {
    fn make(&self, _: &Arc<Cutoff>) -> Box<dyn Worker> {
        Box::new(self.clone())
    }

    fn check(&self) -> Result<(), StartError> {
        Ok(())
    }
}

impl Worker for Breaks {
    fn start(&mut self, _: Duration) -> Result<(), StartError> {
        self.is_up = !self.at_start.load(Ordering::SeqCst);
        if self.is_up { Ok(()) } else { Err(StartError("it dies at once".to_owned())) }
    }

    fn cycle(&mut self, batch: Vec<Assignment>, sink: &mut dyn FnMut(Lease, Outcome)) {
        self.is_up = !self.in_cycle.load(Ordering::SeqCst);
        for job in batch {
            sink(job.lease, if self.is_up { done() } else { fail("it broke") });
        }
    }

    fn is_ready(&self) -> bool {
        self.is_up
    }

    fn broke(&mut self) -> Option<String> {
        Some("it broke in the middle".to_owned())
    }

    fn stop(&mut self) {}
}

fn one_worker() -> LiveConfig {
    LiveConfig { concurrency: Concurrency::fixed(1), ..live() }
}

#[test]
fn a_worker_that_never_starts_backs_off_longer_and_longer_and_its_jobs_wait() {
    let dir = tempfile::tempdir().unwrap();
    let worker = Breaks::default();
    worker.at_start.store(true, Ordering::SeqCst);
    let handle = Spec::new(dir.path()).with_live("t", "v1", worker.clone(), one_worker()).open();
    let pushed: Vec<Pushed> = (0..3).map(|n| push(&handle, "t", &n.to_string())).collect();
    // Each pause is twice the one before. One may pass unseen, and a worker be further than the engine has heard yet.
    let mut seen = 0;
    while seen < 3 {
        let pause_ms = |tries: u32| 100 << (tries - 1).min(9);
        let view = until_version(&handle, "t", "failed so often", |v| {
            let worker = &v.workers[0];
            let pause = worker.next_try_ms.map(|ms| ms + worker.for_ms);
            v.failing.as_ref().is_some_and(|failing| {
                failing.tries > seen && pause.is_some_and(|pause| pause.abs_diff(pause_ms(failing.tries)) <= 5)
            })
        });
        assert_eq!(view.workers[0].state, "backing_off");
        let failing = view.failing.unwrap();
        seen = failing.tries;
        assert_eq!((failing.reason.as_str(), failing.none_up, failing.since_ms), ("it dies at once", true, 1_000_000));
        assert!(failing.next_try_ms.unwrap() <= pause_ms(seen) && view.restarts >= u64::from(seen));
        assert_eq!(view.last_restart.unwrap().reason, "it dies at once");
    }
    for pushed in &pushed {
        let job = handle.job(&pushed.id).unwrap();
        assert_eq!((job.state, job.attempts, job.interrupts), ("ready", 0, 0));
    }
    worker.at_start.store(false, Ordering::SeqCst);
    until_version(&handle, "t", "came up", |v| v.failing.is_none());
    for pushed in &pushed {
        assert_eq!(until(&handle, &pushed.id, "completed").attempts, 0);
    }
    let view = version(&handle, "t");
    assert!(view.failing.is_none() && view.reason.is_none() && view.restarts >= 3, "{view:?}");
    handle.stop_and_wait();
}

#[test]
fn a_worker_that_breaks_again_and_again_is_shown_as_failing_until_it_has_done_something() {
    let dir = tempfile::tempdir().unwrap();
    let worker = Breaks::default();
    let settings = LiveConfig { max_attempts: 100, ..one_worker() };
    let handle = Spec::new(dir.path()).with_live("t", "v1", worker.clone(), settings).open();
    until(&handle, &push(&handle, "t", "1").id, "completed");
    assert_eq!(version(&handle, "t").restarts, 0);

    // Once is nothing: it is started again at once.
    worker.in_cycle.store(true, Ordering::SeqCst);
    let pushed = push(&handle, "t", "2");
    let view = until_version(&handle, "t", "failed", |v| v.failing.as_ref().is_some_and(|failing| failing.tries >= 2));
    assert!(view.restarts >= 3, "once at once, then after pauses: {view:?}");
    assert_eq!(view.failing.unwrap().reason, "it broke in the middle");
    let attempts = handle.job(&pushed.id).unwrap().attempts;
    assert!(attempts <= 5, "{attempts} in some hundred milliseconds");
    worker.in_cycle.store(false, Ordering::SeqCst);
    until_version(&handle, "t", "went on", |v| v.failing.is_none());
    until(&handle, &pushed.id, "completed");
    assert!(version(&handle, "t").failing.is_none());
    handle.stop_and_wait();
}
