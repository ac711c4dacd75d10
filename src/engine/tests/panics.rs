//! Pools all of whose workers panic: what they held is given back, and who does the work goes on with it.

use super::rollout::{do_jobs, rolling, until_version, version};
use super::*;

/// Settings under which one panic is one of all workers.
fn of_one(steps: &[u8]) -> LiveConfig {
    LiveConfig { concurrency: Concurrency::fixed(1), ..rolling(steps) }
}

fn panics() -> Factory {
    Factory(Arc::new(|_| panic!("on purpose")))
}

/// v1 does the work, and v2 is started beside it with these shares.
fn beside_v1(dir: &Path, v2: Factory, settings: &LiveConfig, state: &str) -> Handle {
    let handle = Spec::new(dir).with_live("t", "v1", echo(), settings.clone()).open();
    until_version(&handle, "v1", "current");
    handle.reload(Spec::new(dir).with_live("t", "v2", v2, settings.clone()).make(), Box::new(|_| ()));
    until_version(&handle, "v2", state);
    handle
}

#[test]
fn p8_a_pool_whose_last_thread_panicked_is_made_anew_and_gives_its_job_back() {
    for concurrency in [Concurrency::fixed(1), Concurrency { min: 0, max: 1 }] {
        let dir = tempfile::tempdir().unwrap();
        let first = AtomicU64::new(0);
        let run = move |_: &Assignment| {
            assert_ne!(first.fetch_add(1, Ordering::SeqCst), 0, "on purpose, once");
            done()
        };
        let settings = LiveConfig { concurrency, ..live() };
        let handle = Spec::new(dir.path()).with_live("t", "v1", Factory(Arc::new(run)), settings).open();
        let pushed: Vec<Pushed> = (0..5).map(|n| push(&handle, "t", &n.to_string())).collect();
        for pushed in &pushed {
            assert_eq!(until(&handle, &pushed.id, "completed").attempts, 0);
        }
        assert_eq!(of_type(&handle, "t").versions.len(), 1);
        handle.stop_and_wait();
    }
}

#[test]
fn p8_a_version_on_probation_whose_workers_all_panic_is_withdrawn() {
    let dir = tempfile::tempdir().unwrap();
    let handle = beside_v1(dir.path(), panics(), &of_one(&[]), "current");
    let pushed = push(&handle, "t", "1");
    let view = until(&handle, &pushed.id, "completed");
    assert_eq!((view.version.as_deref(), view.attempts), (Some("v1"), 0));
    let gone = version(&handle, "v2");
    assert_eq!(gone.state, "quarantined");
    assert!(gone.configured && gone.reason.is_some_and(|why| why.contains("panic")));
    let view = of_type(&handle, "t");
    assert!(view.trial.is_none() && view.no_way_back.is_none(), "{view:?}");
    assert_eq!(do_jobs(&handle, 3, 1), ["v1"; 3]);
    handle.stop_and_wait();
}

#[test]
fn p8_a_version_that_has_a_share_and_whose_workers_all_panic_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let handle = beside_v1(dir.path(), panics(), &of_one(&[50]), "ramping");
    for number in 0.. {
        assert_eq!(do_jobs(&handle, 1, 3), ["v1"]);
        if version(&handle, "v2").state == "rejected" {
            break;
        }
        assert!(number < 200, "none of so many was for v2");
    }
    assert!(version(&handle, "v2").reason.is_some_and(|why| why.contains("panic")));
    assert!(of_type(&handle, "t").trial.is_none());
    assert_eq!(version(&handle, "v1").state, "current");
    handle.stop_and_wait();
}

#[test]
fn p8_a_way_back_whose_workers_all_panic_is_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let settings = of_one(&[]);
    let (begun, has_begun) = crossbeam_channel::unbounded();
    let (go, may_go) = crossbeam_channel::unbounded::<()>();
    let v1 = Factory(Arc::new(move |_| {
        begun.send(()).unwrap();
        may_go.recv().unwrap();
        panic!("on purpose")
    }));
    let handle = Spec::new(dir.path()).with_live("t", "v1", v1, settings.clone()).open();
    let pushed = push(&handle, "t", "1");
    has_begun.recv().unwrap();
    handle.reload(Spec::new(dir.path()).with_live("t", "v2", echo(), settings).make(), Box::new(|_| ()));
    until_version(&handle, "v2", "current");
    go.send(()).unwrap();
    assert_eq!(until(&handle, &pushed.id, "completed").version.as_deref(), Some("v2"));
    let view = of_type(&handle, "t");
    let says = "v2 was on probation, and v1 is no way back: all of its workers ended by a panic";
    assert_eq!(view.no_way_back.as_deref(), Some(says));
    assert!(view.trial.is_none());
    handle.stop_and_wait();
}

#[test]
fn p8_a_version_whose_workers_panic_at_once_is_told_of_and_a_reload_mends_it() {
    let dir = tempfile::tempdir().unwrap();
    let settings = of_one(&[]);
    let handle = Spec::new(dir.path()).with_live("t", "v1", panics(), settings.clone()).open();
    let pushed = push(&handle, "t", "1");
    let seen = until_version(&handle, "v1", "rejected");
    assert!(seen.reason.is_some_and(|why| why.contains("panic")));
    reload(&handle, Spec::new(dir.path()).with_live("t", "v2", echo(), settings));
    let view = until(&handle, &pushed.id, "completed");
    assert_eq!((view.version.as_deref(), view.attempts), (Some("v2"), 0));
    handle.stop_and_wait();
}
