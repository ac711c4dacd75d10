//! Versions come and go, types too, and a process stops.

use super::*;

#[test]
fn a_new_version_takes_over_and_the_old_one_finishes_what_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let (v1, given, answer) = asked();
    let mut settings = live();
    settings.concurrency = Concurrency::fixed(1);
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

/// A worker whose start waits for a word.
pub(super) struct Slow(pub(super) Receiver<()>, pub(super) Run);

impl WorkerFactory for Slow {
    fn make(&self, _: &Arc<Cutoff>) -> Box<dyn Worker> {
        Box::new(SlowWorker(self.0.clone(), Doing(Arc::clone(&self.1))))
    }

    fn check(&self) -> Result<(), StartError> {
        Ok(())
    }
}

struct SlowWorker(Receiver<()>, Doing);

impl Worker for SlowWorker {
    fn start(&mut self, _: Duration) -> Result<(), StartError> {
        self.0.recv().map_err(|_| StartError("never".to_owned()))
    }

    fn cycle(&mut self, batch: Vec<Assignment>, sink: &mut dyn FnMut(Lease, Outcome)) {
        self.1.cycle(batch, sink);
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn stop(&mut self) {}
}

#[test]
fn a_version_that_still_starts_is_not_given_up_for_one_that_cannot() {
    let dir = tempfile::tempdir().unwrap();
    let (start, started) = crossbeam_channel::bounded(0);
    let mut settings = live();
    settings.concurrency = Concurrency::fixed(1);
    let handle = Spec::new(dir.path()).with_live("t", "v1", Slow(started, echo().0), settings.clone()).open();
    let (to, verdict) = crossbeam_channel::bounded(1);
    let v2 = Spec::new(dir.path()).with_live("t", "v2", Broken, settings.clone()).make();
    handle.reload(v2, Box::new(move |answer| to.send(answer).unwrap()));
    // An answer of the engine: the reload has been taken up, v1 has not started yet.
    assert_eq!(of_type(&handle, "t").versions.len(), 1);
    start.send(()).unwrap();
    let verdict = verdict.recv().unwrap().unwrap();
    assert_eq!((verdict.verdict, verdict.types[0].reason.as_deref()), ("partial", Some("broken on purpose")));
    let pushed = push(&handle, "t", "1");
    assert_eq!(until(&handle, &pushed.id, "completed").version.as_deref(), Some("v1"));
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
fn what_died_of_a_version_is_retried_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let deadly = || Factory(Arc::new(|_: &Assignment| Outcome::Dead { error: "on purpose".to_owned() }));
    let handle = Spec::new(dir.path()).with("t", "v1", deadly()).open();
    let die = |handle: &Handle, count: usize| -> Vec<Pushed> {
        let pushed: Vec<Pushed> = (0..count).map(|n| push(handle, "t", &n.to_string())).collect();
        pushed.iter().for_each(|pushed| drop(until(handle, &pushed.id, "dead")));
        pushed
    };
    let of_v1 = die(&handle, 3);
    reload(&handle, Spec::new(dir.path()).with("t", "v2", deadly()));
    let of_v2 = die(&handle, 2);
    reload(&handle, Spec::new(dir.path()).with("t", "v3", echo()));
    let retry = |version: &str| wait(|then| handle.retry_failed_on("t", version, then));
    assert_eq!(retry("v2"), Ok(2));
    for pushed in &of_v2 {
        assert_eq!(until(&handle, &pushed.id, "completed").version.as_deref(), Some("v3"));
    }
    assert!(of_v1.iter().all(|pushed| handle.job(&pushed.id).unwrap().state == "dead"));
    assert_eq!((retry("v2"), retry("v1")), (Ok(0), Ok(3)));
    let unknown = retry("v4").unwrap_err();
    assert_eq!(
        (unknown.code(), unknown.to_string()),
        ("unknown_version", "no version \"v4\" of t; known are: v1, v2, v3".to_owned())
    );
    handle.stop_and_wait();
}

#[test]
fn a_paused_type_takes_jobs_in_and_runs_none_until_it_is_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let (factory, given, answer) = asked();
    let handle = Spec::new(dir.path()).with("t", "v1", factory).with("u", "v1", echo()).open();
    let pushed: Vec<Pushed> = (0..10).map(|n| push(&handle, "t", &n.to_string())).collect();
    let held = [given.recv().unwrap(), given.recv().unwrap()];
    let pause = |handle: &Handle, paused| wait(|then| handle.pause("t", paused, then));
    assert_eq!(pause(&handle, true), Ok(1_000_000));
    assert_eq!(wait(|then| handle.pause("tt", true, then)).unwrap_err().code(), "unknown_type");
    // What runs goes on; nothing else begins, though workers are idle and a later version serves.
    // Which of the two takes which answer is theirs.
    held.iter().for_each(|_| answer.send(done()).unwrap());
    for task in held {
        assert_eq!(until(&handle, &task.id, "completed").interrupts, 0);
    }
    until(&handle, &push(&handle, "u", "1").id, "completed");
    assert_eq!(push(&handle, "t", "10").state, "ready");
    let view = of_type(&handle, "t");
    assert_eq!((view.paused, view.ready, view.reserved, view.completed), (true, 9, 0, 2));
    assert!(given.is_empty());
    let verdict = reload(&handle, Spec::new(dir.path()).with("t", "v2", echo()).with("u", "v1", echo()));
    assert_eq!((verdict.verdict, of_type(&handle, "t").ready), ("ok", 9));
    handle.stop_and_wait();

    let handle = Spec::new(dir.path()).with("t", "v2", echo()).with("u", "v1", echo()).open();
    until(&handle, &push(&handle, "u", "2").id, "completed");
    let view = of_type(&handle, "t");
    assert_eq!((view.paused, view.ready), (true, 9), "a pause outlives the process");
    assert_eq!(pause(&handle, true), Ok(1_000_000), "it stays as it was");
    assert_eq!(pause(&handle, false), Ok(0));
    for pushed in &pushed {
        let view = until(&handle, &pushed.id, "completed");
        assert_eq!((view.attempts, view.interrupts, view.deferrals), (0, 0, 0), "it costs a job nothing");
    }
    assert!(!of_type(&handle, "t").paused);
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
