//! Jobs that are cancelled while they run, or wait in a pool.

use super::*;
use crate::worker::native::{Context, Natives, Raw};
use crate::worker::run::Stop;

#[test]
fn a_running_job_is_cancelled_at_once_and_its_late_result_changes_nothing() {
    for late in [done(), fail("late"), Outcome::Dead { error: "late".to_owned() }, Outcome::Interrupted] {
        let dir = tempfile::tempdir().unwrap();
        let (factory, given, answer) = asked();
        let settings = LiveConfig { concurrency: Concurrency::fixed(1), ..live() };
        let handle = Spec::new(dir.path()).with_live("t", "v1", factory, settings).open();
        let pushed = push(&handle, "t", "1");
        let run = given.recv().unwrap().run;
        assert_eq!(run.stop(), None);
        let cancelled = act(&handle, &pushed.id, JobAction::Cancel).unwrap();
        assert_eq!((cancelled.state, cancelled.ended_at.is_some()), ("cancelled", true));
        assert_eq!(run.stop(), Some(Stop::Cancelled), "told before who cancelled is answered");
        let again = act(&handle, &pushed.id, JobAction::Cancel);
        assert!(matches!(again, Err(Refusal::WrongState { state: "finished", .. })), "{again:?}");
        answer.send(late).unwrap();
        // The next one runs as if nothing had been.
        let next = push(&handle, "t", "2");
        assert_eq!((given.recv().unwrap().run.stop(), answer.send(done())), (None, Ok(())));
        until(&handle, &next.id, "completed");
        let view = of_type(&handle, "t");
        assert_eq!((view.completed, view.failed, view.cancelled, view.dead), (1, 0, 1, 0));
        assert_eq!((view.reserved, view.versions[0].busy), (0, 0), "the pool holds nothing more");
        assert_eq!(run.stop(), None, "what was told is forgotten with the run");
        handle.stop_and_wait();

        let handle = Spec::new(dir.path()).with("t", "v1", echo()).open();
        assert_eq!(handle.job(&pushed.id).unwrap().state, "cancelled");
        handle.stop_and_wait();
    }
}

#[test]
fn a_job_that_waits_in_its_pool_is_cancelled_and_never_begins() {
    let dir = tempfile::tempdir().unwrap();
    let (to_test, given) = crossbeam_channel::unbounded();
    let (go_on, may) = crossbeam_channel::unbounded();
    let mut natives = Natives::new();
    let slow = move |_: Raw, context: &mut Context<'_>| {
        to_test.send(context.id().to_owned()).unwrap();
        may.recv().unwrap();
    };
    natives.register_fn("t", "1", slow).unwrap();
    // One thread, three jobs at once: one runs, two wait in its batch or before it.
    let settings = LiveConfig { concurrency: Concurrency::fixed(1), batch: 3, ..live() };
    let mut spec = Spec::new(dir.path()).with_live("t", "v1", echo(), settings);
    spec.versions[0].factory = natives.get("t").unwrap().0;
    let handle = spec.open();
    let jobs = handle.push_many((0..3).map(|n| job("t", &n.to_string())).collect());
    let ids: Vec<String> = jobs.into_iter().map(|pushed| pushed.unwrap().id).collect();
    assert_eq!(given.recv().unwrap(), ids[0]);
    assert_eq!(of_type(&handle, "t").reserved, 3);
    assert_eq!(act(&handle, &ids[1], JobAction::Cancel).unwrap().state, "cancelled");
    for _ in 0..2 {
        go_on.send(()).unwrap();
    }
    assert_eq!(given.recv().unwrap(), ids[2], "the second one is passed over");
    until(&handle, &ids[2], "completed");
    assert_eq!(of_type(&handle, "t").completed, 2);
    handle.stop_and_wait();
}

#[test]
fn what_is_cancelled_in_the_queue_of_a_pool_that_drains_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let (factory, given, answer) = asked();
    let settings = LiveConfig { concurrency: Concurrency::fixed(1), batch: 2, ..live() };
    let handle = Spec::new(dir.path()).with_live("t", "v1", factory, settings.clone()).open();
    let first = push(&handle, "t", "1");
    given.recv().unwrap();
    // The thread has its batch: this one waits in the queue.
    let second = push(&handle, "t", "2");
    until(&handle, &second.id, "reserved");
    act(&handle, &second.id, JobAction::Cancel).unwrap();
    let draining = handle.clone();
    let next = Spec::new(dir.path()).with_live("t", "v2", echo(), settings);
    let reloaded = std::thread::spawn(move || reload(&draining, next));
    while of_type(&handle, "t").versions.iter().all(|version| version.state != "draining") {}
    answer.send(done()).unwrap();
    assert_eq!(reloaded.join().unwrap().verdict, "ok");
    until(&handle, &first.id, "completed");
    let view = of_type(&handle, "t");
    assert_eq!((view.completed, view.cancelled, view.ready, view.reserved), (1, 1, 0, 0));
    handle.stop_and_wait();
}

#[test]
fn a_run_that_is_cut_off_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let (to_test, given) = crossbeam_channel::unbounded();
    let until_told = Factory(Arc::new(move |job: &Assignment| {
        to_test.send(job.run.clone()).unwrap();
        while !job.run.is_cancelled() {
            std::thread::yield_now();
        }
        Outcome::Interrupted
    }));
    let handle = Spec::new(dir.path()).with("t", "v1", until_told).open();
    let pushed = push(&handle, "t", "1");
    let run = given.recv().unwrap();
    // Asked a second time, it does not wait.
    handle.stop(Box::new(|()| ()));
    handle.stop_and_wait();
    assert_eq!(run.stop(), Some(Stop::CutOff));
    let (factory, given, answer) = asked();
    let handle = Spec::new(dir.path()).with("t", "v1", factory).open();
    assert_eq!(given.recv().unwrap().attempt, 1, "it cost nothing");
    answer.send(done()).unwrap();
    assert_eq!(until(&handle, &pushed.id, "completed").interrupts, 1);
    handle.stop_and_wait();
}
