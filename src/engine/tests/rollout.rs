//! Ramps, probation, withdrawal, warm standby and the way back.

use super::*;
use crate::engine::view::{RolloutView, VersionView};
use crate::rollover::plan::Word;

const WARM: Duration = Duration::from_secs(600);

/// Settings under which a version stays warm, with these shares.
pub(super) fn rolling(steps: &[u8]) -> LiveConfig {
    let usual = live();
    let rollout = Rollout { steps: steps.to_vec(), min_samples: 10, warm_for: WARM, ..usual.rollout.clone() };
    LiveConfig { rollout, ..usual }
}

pub(super) fn says(handle: &Handle, word: Word) -> Result<RolloutView, Refusal> {
    wait(|then| handle.rollout("t", word, then))
}

pub(super) fn version(handle: &Handle, label: &str) -> VersionView {
    let versions = of_type(handle, "t").versions;
    let found = versions.iter().rev().find(|version| version.version == label);
    found.unwrap_or_else(|| panic!("no {label}: {versions:?}")).clone()
}

/// Asks until a version is in this state.
pub(super) fn until_version(handle: &Handle, label: &str, state: &str) -> VersionView {
    let found = ask(|| {
        let versions = of_type(handle, "t").versions;
        let found = versions.into_iter().rev().find(|version| version.version == label);
        found.filter(|version| version.state == state)
    });
    found.unwrap_or_else(|| panic!("{label} never became {state}: {:?}", of_type(handle, "t")))
}

fn one(max_attempts: u16) -> NewJob {
    NewJob { max_attempts: Some(max_attempts), ..job("t", "1") }
}

/// Pushes so many jobs one after the other, each once the one before has ended; returns the versions that did them.
pub(super) fn do_jobs(handle: &Handle, count: usize, max_attempts: u16) -> Vec<String> {
    let run = |_| {
        let pushed = handle.push(one(max_attempts)).unwrap();
        until(handle, &pushed.id, "completed").version.unwrap()
    };
    (0..count).map(run).collect()
}

fn start_v1(dir: &Path, settings: &LiveConfig) -> Handle {
    let handle = Spec::new(dir).with_live("t", "v1", echo(), settings.clone()).open();
    until_version(&handle, "v1", "current");
    handle
}

pub(super) fn bad(outcome: impl Fn() -> Outcome + Send + Sync + 'static) -> Factory {
    Factory(Arc::new(move |_| outcome()))
}

fn begin(handle: &Handle, dir: &Path, label: &str, factory: impl WorkerFactory + 'static, settings: &LiveConfig) {
    let spec = Spec::new(dir).with_live("t", label, factory, settings.clone()).make();
    handle.reload(spec, Box::new(|_| ()));
}

#[test]
fn a_version_that_always_fails_is_withdrawn_and_no_job_dies_or_loses_an_attempt() {
    // Also where a job may fail once only, and where the worker says that no other attempt helps.
    for (max_attempts, outcome) in [(3, false), (1, false), (1, true)] {
        let dir = tempfile::tempdir().unwrap();
        let settings = rolling(&[]);
        let handle = start_v1(dir.path(), &settings);
        do_jobs(&handle, 20, 3);
        let says = move || if outcome { Outcome::Dead { error: "65".to_owned() } } else { fail("no") };
        begin(&handle, dir.path(), "v2", bad(says), &settings);
        until_version(&handle, "v2", "current");
        let mut jobs = 0;
        while version(&handle, "v2").state != "quarantined" {
            jobs += 1;
            let samples = of_type(&handle, "t").trial.map_or(0, |trial| trial.samples);
            assert!(samples < 10, "it was not found within 10 jobs: {:?}", of_type(&handle, "t").trial);
            assert_eq!(do_jobs(&handle, 1, max_attempts), ["v1"]);
        }
        let gone = until_version(&handle, "v2", "quarantined");
        let reason = gone.reason.as_deref().unwrap();
        assert!(reason.contains("first attempts that v1 then did"), "{reason}");
        assert!(
            reason.ends_with(if outcome { "; the last failure of v2: 65" } else { "; the last failure of v2: no" }),
            "{reason}"
        );
        let view = of_type(&handle, "t");
        assert_eq!((view.dead, view.completed), (0, 20 + jobs));
        assert_eq!(version(&handle, "v1").state, "current");
        assert_eq!(do_jobs(&handle, 3, 1), ["v1"; 3]);
        handle.stop_and_wait();
    }
}

#[test]
fn what_a_withdrawn_version_failed_of_is_not_held_against_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let settings = rolling(&[]);
    let handle = start_v1(dir.path(), &settings);
    do_jobs(&handle, 20, 3);
    begin(&handle, dir.path(), "v2", bad(|| fail("no")), &settings);
    until_version(&handle, "v2", "current");
    while version(&handle, "v2").state != "quarantined" {
        assert_eq!(do_jobs(&handle, 1, 3), ["v1"]);
    }
    begin(&handle, dir.path(), "v3", echo(), &settings);
    until_version(&handle, "v3", "current");
    let (attempts, failed) = of_type(&handle, "t").trial.unwrap().evidence.before.unwrap();
    assert!(attempts >= 20 && failed == 0, "v1 never failed: {failed} of {attempts}");
    handle.stop_and_wait();
}

#[test]
fn a_failure_that_is_made_up_for_costs_no_attempt_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let settings = rolling(&[]);
    let (v1, given, answer) = asked();
    let handle = Spec::new(dir.path()).with_live("t", "v1", v1, settings.clone()).open();
    until_version(&handle, "v1", "current");
    begin(&handle, dir.path(), "v2", bad(|| fail("by v2")), &settings);
    until_version(&handle, "v2", "current");
    let pushed = handle.push(one(1)).unwrap();
    let run = given.recv().unwrap();
    assert_eq!(
        (run.id.as_str(), run.attempt),
        (pushed.id.as_str(), 1),
        "v1 makes up for it, and it is still the first attempt"
    );
    let seen = handle.job(&pushed.id).unwrap();
    let failure = &seen.failures[0];
    assert_eq!((seen.attempts, failure.attempt, failure.version.as_deref()), (0, 0, Some("v2")), "{seen:?}");
    answer.send(fail("by v1, too")).unwrap();
    let seen = until(&handle, &pushed.id, "dead");
    assert_eq!((seen.attempts, seen.failures.len()), (1, 2), "what fails on both is dead: {seen:?}");
    handle.stop_and_wait();
}

#[test]
fn what_a_version_still_held_when_it_left_its_trial_is_made_up_for_too() {
    // However it leaves: withdrawn by the evidence or by command, gone back from, or replaced while on a ramp; and also if what
    // it held fails while all comes to its end.
    for how in ["evidence", "abort", "rollback", "replaced", "stop"] {
        let dir = tempfile::tempdir().unwrap();
        let (steps, attempts): (&[u8], _) = if how == "replaced" { (&[99], 2) } else { (&[], 1) };
        let settings = LiveConfig { concurrency: Concurrency::fixed(6), ..rolling(steps) };
        let handle = start_v1(dir.path(), &settings);
        do_jobs(&handle, 20, 3);
        let (to_test, given) = crossbeam_channel::unbounded();
        let (open, gate) = crossbeam_channel::bounded::<()>(0);
        // All fail for good, some of them only when the test says so.
        let run = move |assignment: &Assignment| {
            if assignment.task == "held" {
                to_test.send(()).unwrap();
                gate.recv().unwrap_err();
            }
            Outcome::Dead { error: "65".to_owned() }
        };
        begin(&handle, dir.path(), "v2", Factory(Arc::new(run)), &settings);
        until_version(&handle, "v2", if how == "replaced" { "ramping" } else { "current" });
        let held = || handle.push(NewJob { task: "held".to_owned(), ..one(attempts) }).unwrap();
        let held: Vec<Pushed> = (0..4).map(|_| held()).collect();
        let begun = held.iter().map_while(|_| given.recv_timeout(SOON).ok()).count();
        assert_eq!(begun, held.len(), "{how}: {:?}", of_type(&handle, "t"));
        match how {
            "evidence" => {
                let found = (0..500).any(|_| {
                    do_jobs(&handle, 1, 1);
                    version(&handle, "v2").state == "quarantined"
                });
                assert!(found, "{:?}", of_type(&handle, "t"));
            }
            "abort" | "stop" => assert_eq!(says(&handle, Word::Abort).unwrap().done, "withdrawn"),
            "rollback" => assert_eq!(says(&handle, Word::Rollback).unwrap().done, "rolled back"),
            _ => {
                begin(&handle, dir.path(), "v3", echo(), &settings);
                until_version(&handle, "v3", "ramping");
            }
        }
        let handle = if how == "stop" {
            let (stopped, until_stopped) = crossbeam_channel::bounded(1);
            handle.stop(Box::new(move |()| stopped.send(()).unwrap()));
            // Whoever asks is answered after that has begun.
            of_type(&handle, "t");
            drop(open);
            until_stopped.recv().unwrap();
            drop(handle);
            start_v1(dir.path(), &settings)
        } else {
            drop(open);
            handle
        };
        for job in &held {
            let done = until(&handle, &job.id, "completed");
            assert_eq!(done.attempts, 0, "{how}: {done:?}");
        }
        handle.stop_and_wait();
    }
}

#[test]
fn one_that_stepped_back_is_replaced_by_the_version_that_started_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let handle = start_v1(dir.path(), &rolling(&[]));
    do_jobs(&handle, 20, 3);
    begin(&handle, dir.path(), "v2", bad(|| fail("no")), &rolling(&[]));
    until_version(&handle, "v2", "current");
    let (start, started) = crossbeam_channel::bounded(0);
    begin(&handle, dir.path(), "v3", versions::Slow(started, echo().0), &rolling(&[50]));
    until_version(&handle, "v3", "starting");
    while of_type(&handle, "t").trial.unwrap().state != "suspected" {
        assert_eq!(do_jobs(&handle, 1, 1), ["v1"]);
    }
    assert_eq!(version(&handle, "v2").state, "ramping");
    start.send(()).unwrap();
    until_version(&handle, "v3", "ramping");
    until_version(&handle, "v2", "retired");
    assert_eq!(of_type(&handle, "t").trial.unwrap().version, "v3");
    drop(start);
    handle.stop_and_wait();
}

#[test]
fn a_ramp_goes_up_step_by_step_and_takes_over() {
    let dir = tempfile::tempdir().unwrap();
    let settings = rolling(&[20, 60]);
    let spec = Spec::new(dir.path()).with_live("t", "v1", echo(), settings.clone()).make();
    let (handle, clock) = open_at(spec, 1_000_000).unwrap();
    until_version(&handle, "v1", "current");
    begin(&handle, dir.path(), "v2", echo(), &settings);
    assert_eq!(until_version(&handle, "v2", "ramping").percent, 20);
    assert_eq!(version(&handle, "v1").percent, 80);
    let count = |versions: &[String]| versions.iter().filter(|version| *version == "v2").count();
    let mut on_v1 = 0;
    let mut count_jobs = |jobs, max_attempts| {
        let versions = do_jobs(&handle, jobs, max_attempts);
        on_v1 += jobs - count(&versions);
        versions
    };
    let share = count_jobs(200, 3);
    assert!((20..60).contains(&count(&share)), "a fifth of 200: {}", count(&share));
    assert_eq!(count(&count_jobs(50, 1)), 0, "whoever may fail once only stays with v1");
    assert_eq!(version(&handle, "v2").percent, 20, "the hold is not over");
    assert_eq!(says(&handle, Word::Pause).unwrap().done, "paused");
    clock.ahead(121);
    count_jobs(1, 3);
    assert_eq!(version(&handle, "v2").percent, 20, "paused");
    assert_eq!(says(&handle, Word::Resume).unwrap().done, "resumed");
    count_jobs(1, 3);
    assert_eq!(version(&handle, "v2").percent, 60);
    clock.ahead(121);
    count_jobs(1, 3);
    let trial = of_type(&handle, "t").trial.unwrap();
    assert!(trial.samples_missing > 0 && version(&handle, "v2").percent == 60, "too few first attempts: {trial:?}");
    count_jobs(50, 3);
    assert_eq!(until_version(&handle, "v2", "current").percent, 100);
    until_version(&handle, "v1", "warm");
    let trial = of_type(&handle, "t").trial.unwrap();
    assert_eq!(trial.state, "probation");
    assert_eq!(trial.evidence.before, Some((on_v1 as u64, 0)), "v1 is known by its own jobs alone");
    clock.ahead(601);
    until_version(&handle, "v1", "retired");
    assert!(of_type(&handle, "t").trial.is_none(), "nobody is left who could make up for it");
    handle.stop_and_wait();
}

#[test]
fn a_bad_version_on_a_ramp_is_withdrawn_and_nobody_touched_anything() {
    let dir = tempfile::tempdir().unwrap();
    let settings = rolling(&[10]);
    let handle = start_v1(dir.path(), &settings);
    let spec = Spec::new(dir.path()).with_live("t", "v2", bad(|| fail("broken")), settings.clone()).make();
    let (to, verdict) = crossbeam_channel::bounded(1);
    handle.reload(spec, Box::new(move |answer| to.send(answer).unwrap()));
    until_version(&handle, "v2", "ramping");
    let mut ids = Vec::new();
    for n in 0.. {
        assert!(n < 400, "not found within 400 jobs, 40 of them on v2: {:?}", of_type(&handle, "t").trial);
        ids.push(push(&handle, "t", "1").id);
        until(&handle, ids.last().unwrap(), "completed");
        if version(&handle, "v2").state != "ramping" {
            break;
        }
    }
    let verdict = verdict.recv().unwrap().unwrap();
    assert_eq!((verdict.verdict, verdict.types[0].change.as_ref()), ("partial", "withdrawn"), "{verdict:?}");
    assert!(verdict.types[0].reason.as_deref().unwrap().contains("v2 failed"), "{verdict:?}");
    let view = of_type(&handle, "t");
    assert_eq!((view.dead, view.completed), (0, ids.len() as u64));
    assert!(ids.iter().all(|id| handle.job(id).unwrap().attempts == 0));

    // The same file again: it stays withdrawn, and that is said.
    let again = reload(&handle, Spec::new(dir.path()).with_live("t", "v2", echo(), settings.clone()));
    assert_eq!((again.verdict, again.types[0].change.as_ref()), ("partial", "withheld"), "{again:?}");
    assert_eq!(version(&handle, "v1").state, "current");
    let seen = version(&handle, "v2");
    assert_eq!((seen.state, seen.configured), ("quarantined", true), "{seen:?}");
    assert!(seen.reason.unwrap().contains("v2 failed"));
    assert_eq!(of_type(&handle, "t").versions.iter().filter(|version| version.version == "v2").count(), 1);
    reload(&handle, Spec::new(dir.path()).with_live("t", "v1", echo(), settings.clone()));
    assert!(!version(&handle, "v2").configured && version(&handle, "v1").configured);
    handle.stop_and_wait();
}

#[test]
fn the_version_before_is_warm_and_the_way_back_needs_no_start() {
    let dir = tempfile::tempdir().unwrap();
    let settings = rolling(&[]);
    let made = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&made);
    struct Counted(Arc<AtomicU64>);
    impl WorkerFactory for Counted {
        fn make(&self, cutoff: &Arc<Cutoff>) -> Box<dyn Worker> {
            self.0.fetch_add(1, Ordering::SeqCst);
            echo().make(cutoff)
        }

        fn check(&self) -> Result<(), StartError> {
            Ok(())
        }
    }
    let handle = Spec::new(dir.path()).with_live("t", "v1", Counted(count), settings.clone()).open();
    do_jobs(&handle, 5, 3);
    assert_eq!(says(&handle, Word::Rollback).unwrap_err().code(), "no_rollout");
    let verdict = reload(&handle, Spec::new(dir.path()).with_live("t", "v2", echo(), settings.clone()));
    assert_eq!(verdict.verdict, "ok");
    let warm = version(&handle, "v1");
    assert_eq!((warm.state, warm.busy), ("warm", 0));
    assert!(warm.warm_for_ms.is_some_and(|left| left > 500_000), "{warm:?}");
    assert_eq!(do_jobs(&handle, 3, 3), ["v2"; 3]);
    assert_eq!(says(&handle, Word::Rollback).unwrap().done, "rolled back");
    assert_eq!(do_jobs(&handle, 3, 3), ["v1"; 3]);
    assert_eq!(made.load(Ordering::SeqCst), 2, "its workers were there all the time");
    // The same file once more does not undo it; a file that asks for v1 is the same way back.
    let verdict = reload(&handle, Spec::new(dir.path()).with_live("t", "v2", echo(), settings.clone()));
    assert_eq!((verdict.verdict, do_jobs(&handle, 1, 3)), ("unchanged", vec!["v1".to_owned()]));
    let verdict = reload(&handle, Spec::new(dir.path()).with_live("t", "v1", echo(), settings.clone()));
    assert_eq!((verdict.verdict, do_jobs(&handle, 1, 3)), ("ok", vec!["v1".to_owned()]));
    let verdict = reload(&handle, Spec::new(dir.path()).with_live("t", "v2", echo(), settings.clone()));
    assert_eq!((verdict.types[0].change.as_ref(), do_jobs(&handle, 1, 3)), ("rolled_over", vec!["v2".to_owned()]));
    assert!(of_type(&handle, "t").trial.is_none(), "who goes back has nothing to prove");
    handle.stop_and_wait();
}

#[test]
fn a_rollback_to_a_version_that_has_ended_starts_it_first() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = live();
    let handle = start_v1(dir.path(), &settings);
    reload(&handle, Spec::new(dir.path()).with_live("t", "v2", echo(), settings.clone()));
    until_version(&handle, "v1", "retired");
    assert_eq!(says(&handle, Word::Rollback).unwrap().done, "started");
    until_version(&handle, "v1", "current");
    assert_eq!(do_jobs(&handle, 2, 3), ["v1"; 2]);
    until_version(&handle, "v2", "retired");
    // Nor does a file that is changed back ramp: that version is known.
    settings.rollout.steps = vec![10];
    reload(&handle, Spec::new(dir.path()).with_live("t", "v1", echo(), settings.clone()));
    begin(&handle, dir.path(), "v2", echo(), &settings);
    until_version(&handle, "v2", "current");
    handle.stop_and_wait();
}

#[test]
fn a_type_that_the_config_has_no_more_is_not_rolled_back() {
    let dir = tempfile::tempdir().unwrap();
    let settings = rolling(&[]);
    let handle = start_v1(dir.path(), &settings);
    begin(&handle, dir.path(), "v2", echo(), &settings);
    until_version(&handle, "v2", "current");
    let other = Spec::new(dir.path()).with("other", "v1", echo());
    assert_eq!(reload(&handle, other).types[0].change, "removed");
    for word in [Word::Pause, Word::Resume, Word::Promote, Word::Abort, Word::Rollback] {
        let refusal = says(&handle, word).unwrap_err().to_string();
        assert!(refusal.contains("the config does not have the type"), "{word:?}: {refusal}");
    }
    handle.stop_and_wait();
}

#[test]
fn an_abort_withdraws_a_resume_tries_again_and_a_promotion_takes_over() {
    let dir = tempfile::tempdir().unwrap();
    let settings = rolling(&[1]);
    let handle = start_v1(dir.path(), &settings);
    begin(&handle, dir.path(), "v2", echo(), &settings);
    until_version(&handle, "v2", "ramping");
    assert_eq!(says(&handle, Word::Abort).unwrap().done, "withdrawn");
    assert_eq!(until_version(&handle, "v2", "quarantined").reason.as_deref(), Some("by command"));
    assert_eq!(says(&handle, Word::Promote).unwrap_err().code(), "no_rollout");
    assert_eq!(says(&handle, Word::Resume).unwrap().done, "started");
    until_version(&handle, "v2", "ramping");
    assert_eq!(says(&handle, Word::Promote).unwrap().done, "promoted");
    assert_eq!(do_jobs(&handle, 2, 3), ["v2"; 2]);
    assert!(says(&handle, Word::Promote).unwrap_err().to_string().contains("taken over already"));
    assert_eq!(says(&handle, Word::Abort).unwrap().done, "withdrawn");
    assert_eq!(do_jobs(&handle, 2, 3), ["v1"; 2]);
    handle.stop_and_wait();
}

#[test]
fn p4_of_many_versions_the_oldest_that_drains_is_hurried_and_a_new_one_is_never_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = rolling(&[]);
    settings.concurrency = Concurrency::fixed(1);
    settings.rollout.versions_max = 3;
    let hold = || {
        let (to_test, given) = crossbeam_channel::unbounded::<Assignment>();
        // Until it is cut off.
        let run = move |assignment: &Assignment| {
            to_test.send(assignment.clone()).unwrap();
            while assignment.run.stop().is_none() {
                std::thread::yield_now();
            }
            Outcome::Interrupted
        };
        (Factory(Arc::new(run)), given)
    };
    let (v1, given1) = hold();
    let handle = Spec::new(dir.path()).with_live("t", "v1", v1, settings.clone()).open();
    let first = push(&handle, "t", "1");
    assert_eq!(given1.recv().unwrap().id, first.id);
    let (v2, given2) = hold();
    begin(&handle, dir.path(), "v2", v2, &settings);
    until_version(&handle, "v2", "current");
    let drain = version(&handle, "v1").drain.unwrap();
    assert_eq!((drain.in_flight, drain.held_up_by.unwrap().id), (1, first.id.clone()));
    assert!(drain.cut_off_in_ms.is_some_and(|left| left <= 10_000), "no drain is without an end");
    let second = push(&handle, "t", "2");
    assert_eq!(given2.recv().unwrap().id, second.id);
    let (v3, given3) = hold();
    begin(&handle, dir.path(), "v3", v3, &settings);
    until_version(&handle, "v3", "current");
    assert_eq!(handle.job(&first.id).unwrap().state, "reserved", "three may work at once");
    begin(&handle, dir.path(), "v4", echo(), &settings);
    // v1 is cut off: its job is given back at no cost, and done by whoever is there then.
    let by = ask(|| match given3.try_recv() {
        Ok(taken) => Some((taken.id.to_string(), "v3".to_owned())),
        Err(_) => {
            handle.job(&first.id).unwrap().version.filter(|version| version == "v4").map(|by| (first.id.clone(), by))
        }
    });
    assert_eq!(by.as_ref().map(|(id, _)| id), Some(&first.id), "{by:?}");
    until_version(&handle, "v4", "current");
    handle.stop_and_wait();
}

#[test]
fn a_version_on_trial_that_is_older_is_not_given_what_needs_a_newer_one() {
    let dir = tempfile::tempdir().unwrap();
    let settings = rolling(&[]);
    let handle = start_v1(dir.path(), &settings);
    for label in ["v2", "v3"] {
        begin(&handle, dir.path(), label, echo(), &settings);
        until_version(&handle, label, "current");
    }
    // Not the one before v3: it has to prove itself again.
    begin(&handle, dir.path(), "v1", echo(), &rolling(&[99]));
    until_version(&handle, "v1", "ramping");
    for _ in 0..30 {
        let needs = NewJob { min_version: Some("v2".parse().unwrap()), ..one(3) };
        let pushed = handle.push(needs).unwrap();
        assert_eq!(until(&handle, &pushed.id, "completed").version.as_deref(), Some("v3"));
    }
    assert!(do_jobs(&handle, 30, 3).contains(&"v1".to_owned()), "others go there");
    handle.stop_and_wait();
}

#[test]
fn a_version_whose_way_back_was_cut_off_is_on_probation_no_more_and_goes_on_with_the_work() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = rolling(&[]);
    settings.rollout.drain_timeout = Duration::from_millis(1);
    let (v1, given, answer) = asked();
    let handle = Spec::new(dir.path()).with_live("t", "v1", v1, settings.clone()).open();
    let held = handle.push(one(1)).unwrap();
    given.recv().unwrap();
    begin(&handle, dir.path(), "v2", bad(|| fail("no")), &settings);
    let says = ask(|| of_type(&handle, "t").no_way_back).expect("it is told");
    assert_eq!(
        says,
        "v2 was on probation, and v1 is no way back: it was cut off, since it had not finished what it held"
    );
    assert!(of_type(&handle, "t").trial.is_none());
    // More than would raise a suspicion.
    for _ in 0..20 {
        let pushed = handle.push(one(1)).unwrap();
        assert_eq!(until(&handle, &pushed.id, "dead").version.as_deref(), Some("v2"));
    }
    assert_eq!(version(&handle, "v2").state, "current");
    answer.send(done()).unwrap();
    drop(answer);
    assert_eq!(until(&handle, &held.id, "completed").version.as_deref(), Some("v1"));
    handle.stop_and_wait();
}
