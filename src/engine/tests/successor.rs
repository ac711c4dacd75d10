//! A successor: what it finds beforehand, and what is left to it.

use std::time::Duration;

use super::*;
use crate::engine::rehearse;

#[test]
fn until_a_successor_takes_over_jobs_are_taken_in_and_none_begins() {
    let dir = tempfile::tempdir().unwrap();
    let (factory, given, answer) = asked();
    let settings = LiveConfig { concurrency: Concurrency::fixed(1), ..live() };
    let handle = Spec::new(dir.path()).with_live("t", "v1", factory, settings).open();
    let runs = push(&handle, "t", "1");
    given.recv().unwrap();
    let waits = push(&handle, "t", "2");
    let (to, idle) = crossbeam_channel::bounded(1);
    handle.hand_over(Box::new(move |()| to.send(()).unwrap()));
    let later = push(&handle, "t", "3");
    assert_eq!(later.state, "ready");
    assert!(!ecosystem(&handle).stopping && handle.ready().is_ok());
    assert!(idle.try_recv().is_err(), "one runs");
    answer.send(done()).unwrap();
    idle.recv_timeout(SOON).unwrap();
    until(&handle, &runs.id, "completed");
    assert!(given.try_recv().is_err(), "nothing else has begun");
    let last = push(&handle, "t", "4");
    handle.stop_and_wait();
    assert_eq!(handle.push(job("t", "5")), Err(Refusal::Stopping));

    let handle = Spec::new(dir.path()).with("t", "v1", echo()).open();
    for pushed in [&runs, &waits, &later, &last] {
        let view = until(&handle, &pushed.id, "completed");
        assert_eq!((view.attempts, view.host_deaths), (0, 0));
    }
    assert_eq!(of_type(&handle, "t").enqueued, 4);
    handle.stop_and_wait();
}

#[test]
fn a_stop_comes_before_a_successor_and_a_run_without_an_end_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let (factory, given, _answer) = asked();
    let settings = LiveConfig { kill_after: Duration::ZERO, ..live() };
    let mut spec = Spec::new(dir.path()).with_live("t", "v1", factory, settings).make();
    spec.config.stop_timeout = Duration::ZERO;
    let (handle, clock) = open_at(spec, 1_000_000).unwrap();
    let runs = push(&handle, "t", "1");
    given.recv().unwrap();
    let (to, idle) = crossbeam_channel::bounded(1);
    handle.hand_over(Box::new(move |()| to.send(()).unwrap()));
    // Cut off, and still there: it is waited for a little longer, and then no more.
    assert!(ecosystem(&handle).types[0].reserved == 1 && idle.try_recv().is_err());
    clock.ahead(60);
    ecosystem(&handle);
    idle.recv_timeout(SOON).unwrap();
    handle.stop_and_wait();
    let handle = Spec::new(dir.path()).with("t", "v1", echo()).open();
    let view = until(&handle, &runs.id, "completed");
    assert_eq!((view.attempts, view.interrupts, view.host_deaths), (0, 1, 0));

    // Who waits for the first step of a takeover learns nothing of it when a stop comes, and nor does who asks after it.
    let (to, idle) = crossbeam_channel::bounded(2);
    let second = to.clone();
    let (stopped, stop) = crossbeam_channel::bounded(1);
    handle.stop(Box::new(move |()| stopped.send(()).unwrap()));
    handle.hand_over(Box::new(move |()| second.send(()).unwrap()));
    stop.recv_timeout(SOON).unwrap();
    drop(to);
    assert!(idle.recv().is_err());
}

#[test]
fn a_log_is_rehearsed_while_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(rehearse(&dir.path().join("nowhere")).unwrap().live_jobs, 0);
    let mut spec = Spec::new(dir.path()).with("t", "v1", echo());
    spec.segment = 4 << 20;
    spec.retain = 0;
    let handle = spec.open();
    let delayed =
        |n: usize| NewJob { start: Start::At(u64::MAX / 2), ..job("t", &format!("\"{n} {}\"", "x".repeat(100_000))) };
    for n in 0..30 {
        handle.push(delayed(n)).unwrap();
    }
    let before = std::fs::read_dir(dir.path().join("log")).unwrap().count();
    assert_eq!(rehearse(dir.path()).unwrap().live_jobs, 30);
    assert_eq!(std::fs::read_dir(dir.path().join("log")).unwrap().count(), before);
    // While segments come and go: never fewer than were there before, and no false alarm.
    std::thread::scope(|scope| {
        let pushing = scope.spawn(|| {
            for n in 0..150 {
                push(&handle, "t", &format!("\"{n} {}\"", "y".repeat(200_000)));
            }
        });
        while !pushing.is_finished() {
            let seen = rehearse(dir.path()).unwrap();
            assert!((30..=180).contains(&seen.live_jobs), "{seen:?}");
        }
    });
    handle.stop_and_wait();
    assert!((30..=180).contains(&rehearse(dir.path()).unwrap().live_jobs));

    // What an opening refuses, a rehearsal does.
    let log = dir.path().join("log");
    let mut names: Vec<_> = std::fs::read_dir(&log).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    names.sort();
    let mut bytes = std::fs::read(&names[0]).unwrap();
    bytes[8] = 0xEE;
    std::fs::write(&names[0], bytes).unwrap();
    let refused = rehearse(dir.path()).unwrap_err();
    let opened = Spec::new(dir.path()).with("t", "v1", echo()).try_open().err().unwrap();
    assert_eq!(refused.to_string(), opened.to_string());
}
