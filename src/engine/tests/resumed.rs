//! Routes, ramps and withdrawals over a restart.

use super::rollout::{bad, do_jobs, rolling, says, until_version};
use super::*;
use crate::rollover::plan::Word;

/// Settings and texts of two versions, as the configs of two generations: `v2` is asked for by the second one.
struct Two {
    dir: tempfile::TempDir,
    settings: LiveConfig,
}

impl Two {
    fn new(steps: &[u8]) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), settings: rolling(steps) }
    }

    fn spec(&self, text: &str) -> GenerationSpec {
        let spec = Spec::new(self.dir.path());
        let bad = || bad(|| fail("broken"));
        let mut made = match text {
            "v1" => spec.with_live("t", "v1", echo(), self.settings.clone()),
            "v2" => spec.with_live("t", "v2", echo(), self.settings.clone()),
            "bad" => spec.with_live("t", "bad", bad(), self.settings.clone()),
            other => panic!("{other}"),
        }
        .make();
        made.text = text.into();
        made
    }

    /// Opens with this config, and with all of them known.
    fn open(self: &Arc<Self>, text: &str) -> Handle {
        let known = Arc::clone(self);
        let resolver: crate::engine::Resolver = Arc::new(move |text| Ok(known.spec(text)));
        Engine::open_with(self.spec(text), resolver, RealClock::shared()).unwrap().0
    }
}

#[test]
fn p6_after_a_restart_a_ramp_has_the_share_that_it_had_and_a_pause_holds() {
    let two = Arc::new(Two::new(&[10, 50]));
    let handle = two.open("v1");
    until_version(&handle, "v1", "current");
    handle.reload(two.spec("v2"), Box::new(|_| ()));
    until_version(&handle, "v2", "ramping");
    says(&handle, Word::Pause).unwrap();
    handle.stop_and_wait();
    let handle = two.open("v2");
    assert_eq!(until_version(&handle, "v2", "ramping").percent, 10);
    assert_eq!(until_version(&handle, "v1", "current").percent, 90);
    assert!(of_type(&handle, "t").trial.unwrap().paused);
    assert_eq!(do_jobs(&handle, 5, 1), ["v1"; 5]);
    // The file changed while the process was down: that is a reload like any other.
    handle.stop_and_wait();
    let handle = two.open("v1");
    until_version(&handle, "v1", "current");
    assert!(of_type(&handle, "t").trial.is_none(), "{:?}", of_type(&handle, "t"));
    handle.reload(two.spec("v2"), Box::new(|_| ()));
    until_version(&handle, "v2", "ramping");
    assert!(!of_type(&handle, "t").trial.unwrap().paused, "another ramp is not that one");
    handle.stop_and_wait();
}

#[test]
fn a_file_that_was_changed_back_while_nothing_ran_is_a_rollback() {
    let two = Arc::new(Two::new(&[10, 50]));
    let handle = two.open("v1");
    until_version(&handle, "v1", "current");
    handle.reload(two.spec("v2"), Box::new(|_| ()));
    until_version(&handle, "v2", "ramping");
    assert_eq!(says(&handle, Word::Promote).unwrap().done, "promoted");
    handle.stop_and_wait();
    let handle = two.open("v1");
    until_version(&handle, "v1", "current");
    assert_eq!(until_version(&handle, "v2", "warm").percent, 0, "it was up first, and has given way");
    assert!(of_type(&handle, "t").trial.is_none(), "whoever was there before has nothing to prove");
    handle.stop_and_wait();
}

#[test]
fn p6_after_a_restart_what_was_withdrawn_or_gone_back_from_stays_so() {
    let two = Arc::new(Two::new(&[]));
    let handle = two.open("v1");
    until_version(&handle, "v1", "current");
    handle.reload(two.spec("bad"), Box::new(|_| ()));
    until_version(&handle, "bad", "current");
    assert_eq!(says(&handle, Word::Abort).unwrap().done, "withdrawn");
    handle.stop_and_wait();
    let handle = two.open("bad");
    until_version(&handle, "v1", "current");
    assert_eq!(do_jobs(&handle, 3, 1), ["v1"; 3]);
    let generation = ecosystem(&handle).generation;
    assert_eq!(generation.state, "partial", "{generation:?}");
    assert_eq!(says(&handle, Word::Resume).unwrap().done, "started");
    until_version(&handle, "bad", "current");
    handle.stop_and_wait();

    let two = Arc::new(Two::new(&[]));
    let handle = two.open("v1");
    until_version(&handle, "v1", "current");
    handle.reload(two.spec("v2"), Box::new(|_| ()));
    until_version(&handle, "v2", "current");
    assert_eq!(says(&handle, Word::Rollback).unwrap().done, "rolled back");
    handle.stop_and_wait();
    let handle = two.open("v2");
    until_version(&handle, "v1", "current");
    assert_eq!(do_jobs(&handle, 3, 3), ["v1"; 3]);
    handle.stop_and_wait();
}

#[test]
fn p6_at_a_start_with_another_file_the_version_before_serves_until_the_new_one_is_up() {
    let two = Arc::new(Two::new(&[]));
    let handle = two.open("v1");
    until_version(&handle, "v1", "current");
    let job = push(&handle, "t", "1");
    until(&handle, &job.id, "completed");
    handle.stop_and_wait();
    let handle = two.open("v2");
    until_version(&handle, "v2", "current");
    assert_eq!(do_jobs(&handle, 3, 3), ["v2"; 3]);
    assert_eq!(until_version(&handle, "v1", "warm").busy, 0);
    handle.stop_and_wait();
}
