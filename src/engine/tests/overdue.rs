//! Native workers that do not end: told to stop, abandoned, replaced, and no more than four of them.

use super::*;
use crate::worker::native::{Context, Natives};
use crate::worker::run::Stop;

/// A run under way, as the test sees it.
struct Under {
    n: u64,
    attempt: u16,
    run: crate::worker::Run,
    /// Has the run end well.
    end: Sender<()>,
}

/// A worker whose runs end when the test has them end, and the runs as they begin.
fn hanging() -> (Arc<dyn WorkerFactory>, Receiver<Under>) {
    let (to_test, begun) = crossbeam_channel::unbounded();
    let mut natives = Natives::new();
    let run = move |n: u64, context: &mut Context<'_>| {
        let (end, ended) = crossbeam_channel::bounded(1);
        let under = Under { n, attempt: context.attempt(), run: context.run().clone(), end };
        to_test.send(under).unwrap();
        // The test drops what it has no more use for.
        let _ = ended.recv();
    };
    natives.register_fn("t", "1", run).unwrap();
    (natives.get("t").unwrap().0, begun)
}

struct Kept(Arc<dyn WorkerFactory>);

impl WorkerFactory for Kept {
    fn make(&self, cutoff: &Arc<Cutoff>) -> Box<dyn Worker> {
        self.0.make(cutoff)
    }

    fn check(&self) -> Result<(), StartError> {
        self.0.check()
    }

    fn may_hang(&self) -> bool {
        self.0.may_hang()
    }
}

fn open(dir: &Path, batch: u32, max_attempts: u16) -> (Handle, Arc<TestClock>, Receiver<Under>) {
    let (factory, begun) = hanging();
    let (timeout, kill_after) = (Duration::from_secs(1000), Duration::from_secs(100));
    let settings =
        LiveConfig { concurrency: Concurrency::fixed(1), batch, timeout, kill_after, max_attempts, ..live() };
    let (handle, clock) =
        open_at(Spec::new(dir).with_live("t", "v1", Kept(factory), settings).make(), 1_000_000).unwrap();
    (handle, clock, begun)
}

/// Lets time pass, and the engine see it.
fn pass(handle: &Handle, clock: &TestClock, seconds: u64) {
    clock.ahead(seconds);
    ecosystem(handle);
    ecosystem(handle);
}

#[test]
fn a_native_run_past_its_deadline_is_told_then_fenced_and_its_thread_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (handle, clock, begun) = open(dir.path(), 1, 3);
    let pushed = push(&handle, "t", "1");
    let first = begun.recv().unwrap();
    pass(&handle, &clock, 990);
    assert_eq!(first.run.stop(), None);
    pass(&handle, &clock, 20);
    assert_eq!(first.run.stop(), Some(Stop::Overdue));
    pass(&handle, &clock, 90);
    assert_eq!(handle.job(&pushed.id).unwrap().state, "reserved");
    pass(&handle, &clock, 20);
    let second = begun.recv().unwrap();
    assert_eq!((second.n, second.attempt, second.run.stop()), (1, 2, None));
    let failed = handle.job(&pushed.id).unwrap().error.unwrap();
    assert_eq!(failed, "timed out after 1000s and did not end when it was told to: its thread is abandoned");
    // What the first one answers now is of an older lease.
    first.end.send(()).unwrap();
    pass(&handle, &clock, 1);
    assert_eq!(handle.job(&pushed.id).unwrap().state, "reserved");
    // One that heeds what it is told is no worse off than one in time.
    pass(&handle, &clock, 1010);
    assert_eq!(second.run.stop(), Some(Stop::Overdue));
    second.end.send(()).unwrap();
    let view = handle.wait(&pushed.id).unwrap();
    assert_eq!((view.state, view.attempts), ("completed", 1));
    handle.stop_and_wait();
}

#[test]
fn what_a_hanging_batch_has_not_begun_runs_elsewhere_and_once() {
    let dir = tempfile::tempdir().unwrap();
    let (handle, clock, begun) = open(dir.path(), 3, 1);
    handle.pause("t", true, Box::new(|_| ()));
    let pushed: Vec<Pushed> = (1..=3).map(|n| push(&handle, "t", &n.to_string())).collect();
    handle.pause("t", false, Box::new(|_| ()));
    begun.recv().unwrap().end.send(()).unwrap();
    let hangs = begun.recv().unwrap();
    pass(&handle, &clock, 1010);
    pass(&handle, &clock, 110);
    let third = begun.recv().unwrap();
    assert_eq!((hangs.n, third.n, third.attempt), (2, 3, 1));
    hangs.end.send(()).unwrap();
    third.end.send(()).unwrap();
    let states: Vec<&str> = pushed.iter().map(|pushed| handle.wait(&pushed.id).unwrap().state).collect();
    assert_eq!(states, ["completed", "dead", "completed"]);
    assert_eq!(handle.job(&pushed[2].id).unwrap().interrupts, 1);
    handle.stop_and_wait();
    assert!(begun.try_recv().is_err(), "nothing ran twice");
}

#[test]
fn with_four_threads_abandoned_a_pool_takes_nothing_more_until_one_returns() {
    let dir = tempfile::tempdir().unwrap();
    let (handle, clock, begun) = open(dir.path(), 1, 1);
    let mut hanging = Vec::new();
    for n in 1..=4 {
        let pushed = push(&handle, "t", &n.to_string());
        hanging.push(begun.recv().unwrap());
        pass(&handle, &clock, 1010);
        pass(&handle, &clock, 110);
        assert_eq!(handle.wait(&pushed.id).unwrap().state, "dead");
    }
    let waits = push(&handle, "t", "5");
    pass(&handle, &clock, 1);
    assert_eq!(handle.job(&waits.id).unwrap().state, "ready");
    let why = "4 threads hang in runs past their deadline: it takes nothing more until one of them returns";
    assert_eq!(of_type(&handle, "t").versions[0].reason.as_deref(), Some(why));
    assert!(begun.is_empty());
    drop(hanging.pop());
    begun.recv().unwrap().end.send(()).unwrap();
    assert_eq!(handle.wait(&waits.id).unwrap().state, "completed");
    assert_eq!(of_type(&handle, "t").versions[0].reason, None);
    // Threads that never return hold up no stop.
    handle.stop_and_wait();
}

#[test]
fn a_version_that_drains_ends_without_the_thread_that_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let (handle, clock, begun) = open(dir.path(), 2, 1);
    let pushed = push(&handle, "t", "1");
    let hangs = begun.recv().unwrap();
    let (factory, begun_v2) = hanging();
    let (to, verdict) = crossbeam_channel::bounded(1);
    let new = Spec::new(dir.path()).with("t", "v2", Kept(factory)).make();
    handle.reload(new, Box::new(move |settled| to.send(settled).unwrap()));
    let states = || -> Vec<&str> { of_type(&handle, "t").versions.iter().map(|version| version.state).collect() };
    assert!(ask(|| (states() == ["draining", "current"]).then_some(())).is_some(), "{:?}", states());
    pass(&handle, &clock, 1010);
    pass(&handle, &clock, 110);
    // With its last thread abandoned the old version is at its end, whatever that thread does.
    assert_eq!(handle.wait(&pushed.id).unwrap().state, "dead");
    assert_eq!(verdict.recv().unwrap().unwrap().verdict, "ok");
    assert_eq!(states(), ["retired", "current"]);
    drop(hangs);
    let next = push(&handle, "t", "2");
    begun_v2.recv().unwrap().end.send(()).unwrap();
    assert_eq!(handle.wait(&next.id).unwrap().state, "completed");
    handle.stop_and_wait();
}

#[test]
fn a_native_version_whose_probe_hangs_is_rejected_and_its_thread_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let (factory, begun) = hanging();
    let (start_timeout, kill_after) = (Duration::from_secs(50), Duration::from_secs(100));
    let settings = LiveConfig { start_timeout, kill_after, probe: Some("7".into()), ..live() };
    let spec = || Spec::new(dir.path());
    let (handle, clock) = open_at(spec().with("t", "v1", echo()).make(), 1_000_000).unwrap();
    until(&handle, &push(&handle, "t", "1").id, "completed");
    let (to, verdict) = crossbeam_channel::bounded(1);
    let v2 = spec().with_live("t", "v2", Kept(factory), settings.clone()).make();
    handle.reload(v2, Box::new(move |answer| to.send(answer).unwrap()));
    let hangs = begun.recv().unwrap();
    assert_eq!((hangs.n, hangs.attempt), (7, 1));
    pass(&handle, &clock, 60);
    assert_eq!(hangs.run.stop(), Some(Stop::Overdue));
    pass(&handle, &clock, 110);
    // The thread that replaces the one that was given up may begin the probe once more before it hears that it shall leave:
    // then it hangs as long.
    let verdict = loop {
        crossbeam_channel::select! {
            recv(verdict) -> settled => break settled.unwrap().unwrap(),
            recv(begun) -> again => if again.is_ok() {
                pass(&handle, &clock, 60);
                pass(&handle, &clock, 110);
            },
            default(SOON) => panic!("neither rejected nor probed again: {:?}", of_type(&handle, "t")),
        }
    };
    let why = verdict.types[0].reason.as_deref().unwrap();
    assert_eq!(verdict.verdict, "partial");
    assert!(why.starts_with("its probe failed: timed out after 50s and did not end"), "{why}");
    until(&handle, &push(&handle, "t", "2").id, "completed");
    hangs.end.send(()).unwrap();

    // One that passes takes over.
    let (factory, begun) = hanging();
    let (to, verdict) = crossbeam_channel::bounded(1);
    let v3 = spec().with_live("t", "v3", Kept(factory), settings).make();
    handle.reload(v3, Box::new(move |answer| to.send(answer).unwrap()));
    begun.recv().unwrap().end.send(()).unwrap();
    assert_eq!(verdict.recv_timeout(SOON).unwrap().unwrap().verdict, "ok");
    let pushed = push(&handle, "t", "3");
    let runs = begun.recv().unwrap();
    assert_eq!(runs.n, 3, "each worker need not be probed");
    runs.end.send(()).unwrap();
    assert_eq!(until(&handle, &pushed.id, "completed").version.as_deref(), Some("v3"));
    handle.stop_and_wait();
}
