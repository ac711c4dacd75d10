//! Every state of a job, through the handle.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::*;

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
fn a_job_that_loses_its_host_three_times_is_dead_of_that_and_lost_no_attempt() {
    let dir = tempfile::tempdir().unwrap();
    let (factory, given, answer) = asked();
    let settings = LiveConfig { on_dead: Some("mourner".parse().unwrap()), ..live() };
    let spec = |factory| Spec::new(dir.path()).with_live("t", "v1", factory, settings.clone());
    let (mourner, summaries, mourned) = asked();
    let handle = spec(factory).with("mourner", "v1", mourner).open();
    let named = NewJob { id: Some("killer".parse().unwrap()), ..job("t", "7") };
    handle.push(named).unwrap();
    for lost in 0..3 {
        assert_eq!(given.recv().unwrap().attempt, 1);
        let seen = handle.job("killer").unwrap();
        assert_eq!((seen.attempts, seen.host_deaths, seen.error), (0, lost, None));
        answer.send(Outcome::HostDeath { error: format!("gone {lost}") }).unwrap();
    }
    let dead = until(&handle, "killer", "dead");
    assert_eq!((dead.attempts, dead.host_deaths, dead.failures.len()), (0, 3, 0));
    let why = dead.error.unwrap();
    assert!(why.contains("its process that starts children, ended while the job ran, once too often"), "{why}");
    let summary: serde_json::Value = serde_json::from_slice(&summaries.recv().unwrap().payload).unwrap();
    assert_eq!((summary["id"].as_str(), summary["error"].as_str()), (Some("killer"), Some(why.as_str())));
    mourned.send(done()).unwrap();
    let steps = handle.timeline("killer").unwrap().steps;
    let said: Vec<_> = steps.iter().filter(|step| step.what == "lost").map(|step| step.says.as_deref()).collect();
    assert_eq!(said, [Some("gone 0"), Some("gone 1"), Some("gone 2")]);
    handle.stop_and_wait();

    let handle = spec(echo()).with("mourner", "v1", echo()).open();
    assert_eq!(handle.job("killer").unwrap().error.as_deref(), Some(why.as_str()));
    // A person's word gives it all of them again.
    act(&handle, "killer", JobAction::Retry).unwrap();
    until(&handle, "killer", "completed");
    handle.stop_and_wait();
}

#[test]
fn a_failing_job_is_tried_again_then_dead_then_redriven_or_discarded() {
    let dir = tempfile::tempdir().unwrap();
    let (factory, given, answer) = asked();
    let mut settings = live();
    settings.on_dead = Some("mourner".parse().unwrap());
    settings.concurrency = Concurrency::fixed(1);
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

/// What failed together must not come back together.
#[test]
fn failed_runs_come_back_after_pauses_that_differ_up_to_the_bound() {
    let dir = tempfile::tempdir().unwrap();
    let bound = Duration::from_secs(1000);
    let mut settings = live();
    settings.backoff = Backoff { first: bound, factor: 1, max: bound };
    let factory = Factory(Arc::new(|_: &Assignment| fail("no")));
    let handle = Spec::new(dir.path()).with_live("t", "v1", factory, settings).open();
    let pause = |id: &str| {
        let ready_at = until(&handle, id, "delayed").ready_at.unwrap();
        let ready_at: jiff::Timestamp = ready_at.parse().unwrap();
        Duration::from_millis(u64::try_from(ready_at.as_millisecond()).unwrap() - 1_000_000)
    };
    let pushed = handle.push_many((0..50).map(|_| job("t", "1")).collect());
    let pauses: Vec<Duration> = pushed.into_iter().map(|pushed| pause(&pushed.unwrap().id)).collect();
    let below = pauses.iter().filter(|pause| **pause < bound / 3).count();
    let above = pauses.iter().filter(|pause| **pause > bound / 3 * 2).count();
    assert!(below > 0 && above > 0 && pauses.iter().all(|pause| *pause <= bound), "{pauses:?}");
    handle.stop_and_wait();
}

/// However many fail at once, what comes back a second is bounded, and the hold is shown.
#[test]
fn q5_retries_above_the_budget_come_later_than_their_backoff() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = live();
    settings.backoff = Backoff { first: Duration::from_secs(1), factor: 1, max: Duration::from_secs(20) };
    settings.retry_budget = RetryBudget { percent: 50, min_per_second: 10 };
    let factory = Factory(Arc::new(|job: &Assignment| match &*job.payload {
        b"1" => fail("no"),
        _ => Outcome::Defer { error: String::new(), after: None },
    }));
    let handle = Spec::new(dir.path()).with_live("t", "v1", factory, settings).open();
    let pushed = handle.push_many((0..100).map(|n| job("t", if n % 2 == 0 { "1" } else { "2" })).collect());
    let mut per_second = [0; 12];
    for pushed in pushed {
        let ready_at: jiff::Timestamp =
            until(&handle, &pushed.unwrap().id, "delayed").ready_at.unwrap().parse().unwrap();
        let pause = u64::try_from(ready_at.as_millisecond()).unwrap() - 1_000_000;
        per_second[usize::try_from(pause / 1000).unwrap()] += 1;
    }
    assert!(per_second.iter().all(|due| *due <= 20), "10 a second, over a second each: {per_second:?}");
    assert_eq!(per_second[11], 0, "{per_second:?}");
    assert_eq!(of_type(&handle, "t").retries_held_ms, 9_000);
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
fn a_worker_ends_its_job_as_cancelled_and_its_reason_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (factory, given, answer) = asked();
    let handle = Spec::new(dir.path()).with("t", "v1", factory).open();
    let pushed = push(&handle, "t", "1");
    given.recv().unwrap();
    answer.send(fail("not yet")).unwrap();
    given.recv().unwrap();
    answer.send(Outcome::Cancel { reason: "the order was withdrawn".to_owned() }).unwrap();
    let view = until(&handle, &pushed.id, "cancelled");
    assert_eq!((view.error.as_deref(), view.attempts), (Some("the order was withdrawn"), 1));
    assert_eq!((view.failures.len(), view.result.is_none()), (1, true));
    assert_eq!((of_type(&handle, "t").cancelled, of_type(&handle, "t").failed), (1, 1));
    handle.stop_and_wait();
    let handle = Spec::new(dir.path()).with("t", "v1", echo()).open();
    assert_eq!(handle.job(&pushed.id).unwrap().error.as_deref(), Some("the order was withdrawn"));
    handle.stop_and_wait();
}

#[test]
fn a_completion_beyond_its_bounds_is_a_fail_that_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (factory, given, answer) = asked();
    let handle = Spec::new(dir.path()).with("t", "v1", factory).open();
    let pushed = push(&handle, "t", "1");
    let large = Outcome::Done { result: Some(vec![b'1'; (64 << 10) + 1]), enqueue: Vec::new() };
    let many = Outcome::Done { result: None, enqueue: vec![job("t", "2"); 1001] };
    for outcome in [large, many, done()] {
        given.recv().unwrap();
        answer.send(outcome).unwrap();
    }
    let view = until(&handle, &pushed.id, "completed");
    let errors: Vec<&str> = view.failures.iter().map(|failure| failure.error.as_str()).collect();
    let result = "the result is 65537 bytes, the most is 65536 (`log.result_max`)";
    assert_eq!(errors, [result, "1001 follow-up jobs, the most is 1000"]);
    assert_eq!(of_type(&handle, "t").ready, 0);
    handle.stop_and_wait();
}

#[test]
fn a_task_or_tenant_beyond_its_bound_is_refused_whoever_asks() {
    let dir = tempfile::tempdir().unwrap();
    let handle = Spec::new(dir.path()).with("t", "v1", echo()).open();
    let tenant = NewJob { tenant: Some("x".repeat(129)), ..job("t", "1") };
    let task = NewJob { task: "x".repeat(257), ..job("t", "1") };
    let told = |job| handle.push(job).unwrap_err().to_string();
    assert_eq!(told(tenant), "member \"tenant\" is 129 bytes long, the most is 128");
    assert_eq!(told(task), "member \"task\" is 257 bytes long, the most is 256");
    handle.stop_and_wait();
}

#[test]
fn who_waits_for_a_job_is_told_when_it_has_ended_or_is_dead() {
    let dir = tempfile::tempdir().unwrap();
    let (factory, given, answer) = asked();
    let handle = Spec::new(dir.path()).with("t", "v1", factory).open();
    let wait_beside = |id: &str| {
        let (to, from) = crossbeam_channel::bounded(1);
        handle.on_end(id, Box::new(move |ended| to.send(ended).unwrap()));
        from
    };
    let good = push(&handle, "t", "1");
    given.recv().unwrap();
    let waiting = [wait_beside(&good.id), wait_beside(&good.id)];
    answer.send(fail("not yet")).unwrap();
    given.recv().unwrap();
    assert!(waiting.iter().all(Receiver::is_empty), "a failed attempt is no end");
    answer.send(Outcome::Done { result: Some(b"[5]".to_vec()), enqueue: Vec::new() }).unwrap();
    assert_eq!(handle.wait(&good.id).unwrap().read_result::<[u8; 1]>().unwrap(), [5]);
    assert_eq!(waiting.map(|from| from.recv().unwrap()), [Ok(()), Ok(())]);

    let bad = push(&handle, "t", "2");
    given.recv().unwrap();
    let waiting = wait_beside(&bad.id);
    answer.send(Outcome::Dead { error: "never".to_owned() }).unwrap();
    assert_eq!(waiting.recv().unwrap(), Ok(()));
    assert_eq!(handle.wait(&bad.id).unwrap().state, "dead");
    assert!(matches!(handle.wait("none"), Err(Refusal::NotFound { .. })));

    let open = push(&handle, "t", "3");
    given.recv().unwrap();
    let waiting = wait_beside(&open.id);
    answer.send(Outcome::Interrupted).unwrap();
    drop(answer);
    handle.stop_and_wait();
    assert!(waiting.recv().is_err(), "nobody is told of an end that was none");
    assert_eq!(handle.wait(&open.id).unwrap_err(), Refusal::Stopping);
}
