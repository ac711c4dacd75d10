//! What the log does for the engine: cleaning, and reading it backwards.

use std::collections::HashMap;
use std::sync::Mutex;

use super::*;

#[test]
fn the_log_is_cleaned_and_its_head_alone_gives_the_state() {
    let dir = tempfile::tempdir().unwrap();
    let (keeper, kept, answer) = asked();
    let mut spec = Spec::new(dir.path()).with("keep", "v1", keeper).with("echo", "v1", echo());
    spec.retain = 0;
    let handle = spec.open();
    let mut held = job("keep", r#""held""#);
    held.id = Some("held".parse().unwrap());
    handle.push(held.clone()).unwrap();
    let mut delayed = job("echo", r#""later""#);
    delayed.start = Start::After(Duration::from_secs(1_000_000));
    let delayed = handle.push(delayed).unwrap();
    let task = kept.recv().unwrap();
    let payload = format!("\"{}\"", "x".repeat(200 << 10));
    for _ in 0..60 {
        let jobs = (0..10).map(|_| job("echo", &payload)).collect();
        let ids: Vec<String> = handle.push_many(jobs).into_iter().map(|pushed| pushed.unwrap().id).collect();
        until(&handle, ids.last().unwrap(), "completed");
    }
    let log = ecosystem(&handle).log;
    assert!(log.head_segment > 3, "{log:?}");
    assert!(log.disk_bytes <= 6 * (8 << 20), "{log:?}");
    answer.send(done()).unwrap();
    until(&handle, &task.id, "completed");
    let before = ecosystem(&handle);
    handle.stop_and_wait();

    let mut spec = Spec::new(dir.path()).with("keep", "v1", echo()).with("echo", "v1", echo());
    spec.retain = 0;
    let handle = spec.open();
    let after = ecosystem(&handle);
    let totals = |view: &EcosystemView| -> HashMap<String, (u64, u64)> {
        view.types.iter().map(|t| (t.worker_type.to_string(), (t.enqueued, t.completed))).collect()
    };
    assert_eq!(totals(&before), totals(&after));
    assert_eq!(totals(&after)["echo"], (601, 600));
    let view = handle.job(&delayed.id).unwrap();
    assert_eq!((view.state, view.payload.unwrap().get()), ("delayed", r#""later""#));
    assert!(handle.push(held).unwrap().duplicate, "its last record is in the log, so its id is held");
    handle.stop_and_wait();
}

#[test]
fn a_listing_shows_each_job_once_and_goes_on_by_its_cursor() {
    let dir = tempfile::tempdir().unwrap();
    let handle = Spec::new(dir.path()).with("echo", "v1", echo()).open();
    let ids: Mutex<Vec<String>> = Mutex::default();
    for n in 0..50 {
        let pushed = push(&handle, "echo", &n.to_string());
        until(&handle, &pushed.id, "completed");
        ids.lock().unwrap().push(pushed.id);
    }
    let mut filter = JobFilter { limit: 7, state: Some("completed".to_owned()), ..JobFilter::default() };
    let mut seen = Vec::new();
    loop {
        let page = handle.jobs(&filter).unwrap();
        seen.extend(page.jobs.into_iter().map(|job| job.id));
        filter.cursor = page.next_cursor;
        if filter.cursor.is_none() {
            break;
        }
    }
    seen.reverse();
    assert_eq!(seen, ids.into_inner().unwrap());
    handle.stop_and_wait();
}
