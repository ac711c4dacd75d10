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
    assert_eq!((before.run_ms, before.wait_ms, before.per_second), (None, None, 0.0));

    // Ten seconds after these could have been run the first of them begins, and each waits for all before it.
    let pushed: Vec<Pushed> = ["5"; 9].iter().chain(&["80"]).map(|payload| push(&handle, "t", payload)).collect();
    clock.0.fetch_add(10_000, Ordering::SeqCst);
    assert_eq!(wait(|then| handle.pause("t", false, then)), Ok(0));
    pushed.iter().for_each(|pushed| drop(until(&handle, &pushed.id, "completed")));
    let view = version(&handle, "t");
    near(view.run_ms, [5_000.0, 80_000.0, 80_000.0]);
    near(view.wait_ms, [10_000.0 + 4.0 * 5_000.0, 55_000.0, 55_000.0]);
    let all = of_type(&handle, "t");
    assert_eq!((all.run_ms, all.wait_ms, all.per_second), (view.run_ms, view.wait_ms, view.per_second));

    // A failed run took its time, too; and a job that was delayed was not kept waiting by that.
    let mut late = job("t", "7");
    late.start = Start::After(Duration::from_secs(3600));
    let late = handle.push(late).unwrap();
    clock.0.fetch_add(3_601_000, Ordering::SeqCst);
    // Awake, it sees what time it is.
    until(&handle, &late.id, "dead");
    let view = version(&handle, "t");
    near(view.wait_ms, [10_000.0 + 4.0 * 5_000.0, 55_000.0, 55_000.0]);
    assert!(view.failures_per_second > 0.0 && view.failures_per_second < 1.0, "{view:?}");
    assert_eq!(version(&handle, "idle").run_ms, None);

    // After five minutes nothing of it is left.
    clock.ahead(300);
    let view = version(&handle, "t");
    assert_eq!((view.run_ms, view.wait_ms), (None, None));
    assert_eq!((view.per_second, view.failures_per_second), (0.0, 0.0));
    handle.stop_and_wait();
}
