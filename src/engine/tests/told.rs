//! What runs tell of themselves while they go on.

use super::*;
use crate::worker::native::{Context, Natives, Raw};

#[test]
fn progress_and_more_time_are_shown_while_the_run_goes_on_and_not_after() {
    let dir = tempfile::tempdir().unwrap();
    let (to_test, at_work) = crossbeam_channel::unbounded();
    let (go_on, may) = crossbeam_channel::unbounded::<()>();
    let mut natives = Natives::new();
    let work = move |_: Raw, context: &mut Context<'_>| {
        context.progress(0.25);
        context.progress((0.5, "half\nof it"));
        let before = context.deadline_ms();
        let extended = context.extend(Duration::from_secs(100));
        to_test.send((before, extended, context.extend(Duration::MAX), context.deadline_ms())).unwrap();
        may.recv().unwrap();
    };
    natives.register_fn("t", "1", work).unwrap();
    let mut spec = Spec::new(dir.path()).with("t", "v1", echo());
    spec.versions[0].factory = natives.get("t").unwrap().0;
    // The clock's wall stands at 1,000 s, the timeout is 30 s, and 300 s at most.
    let (handle, clock) = open_at(spec.make(), 1_000_000).unwrap();
    let pushed = push(&handle, "t", "1");
    // From the beginning on, which some moments have passed since.
    let (before, extended, most, deadline) = at_work.recv().unwrap();
    assert_eq!((before, extended, deadline), (1_030_000, 1_100_000, most));
    assert!((1_280_000..=1_300_000).contains(&most), "{most}");
    clock.0.store(1_007_000, Ordering::SeqCst);
    let view = handle.job(&pushed.id).unwrap();
    let progress = view.progress.unwrap();
    assert_eq!((progress.fraction, progress.text.as_deref(), progress.age_ms), (Some(0.5), Some("half of it"), 7000));
    assert_eq!(progress.at, "1970-01-01T00:16:40.000Z");
    assert!(view.extended_until.unwrap().starts_with("1970-01-01T00:21:"));
    go_on.send(()).unwrap();
    let view = until(&handle, &pushed.id, "completed");
    assert!(view.progress.is_none() && view.extended_until.is_none(), "{view:?}");
    handle.stop_and_wait();
}
