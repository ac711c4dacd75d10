//! What the log does for the engine: cleaning, and reading it backwards.

use std::collections::HashMap;
use std::sync::Mutex;

use super::*;

#[test]
fn the_log_is_cleaned_and_its_head_alone_gives_the_state() {
    let dir = tempfile::tempdir().unwrap();
    let (keeper, kept, answer) = asked();
    let quiet = Factory(Arc::new(|_: &Assignment| done()));
    let mut spec =
        Spec::new(dir.path()).with("keep", "v1", keeper).with("echo", "v1", quiet).with("rest", "v1", echo());
    spec.retain = 0;
    let handle = spec.open();
    assert_eq!(wait(|then| handle.pause("rest", true, then)), Ok(1_000_000));
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
    assert!(handle.push(held.clone()).unwrap().duplicate, "it was restated, and its id with it");
    answer.send(done()).unwrap();
    until(&handle, &task.id, "completed");
    let before = ecosystem(&handle);
    handle.stop_and_wait();
    // The log alone, without what would spare its reading.
    files(dir.path(), ".ckpt").iter().for_each(|file| std::fs::remove_file(file).unwrap());

    let mut spec =
        Spec::new(dir.path()).with("keep", "v1", echo()).with("echo", "v1", echo()).with("rest", "v1", echo());
    spec.retain = 0;
    let handle = spec.open();
    assert!(of_type(&handle, "rest").paused, "the record that says so has left the log, and was said again");
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

/// Bytes of a log's directory: what its files claim, or take, whichever is more. And of the largest checkpoint of each sort.
fn held(dir: &Path) -> (u64, u64) {
    let (mut bytes, mut checkpoints) = (0, std::collections::BTreeMap::<_, u64>::new());
    for path in files(dir, "") {
        // What was listed may be gone, or have another name, by now.
        let Ok(meta) = path.metadata() else { continue };
        let taken = meta.len().max(std::os::unix::fs::MetadataExt::blocks(&meta) * 512);
        bytes += taken;
        let ending = path.extension().unwrap().to_owned();
        if ending == "ckpt" || ending == "names" {
            let most = checkpoints.entry(ending).or_default();
            *most = taken.max(*most);
        }
    }
    (bytes, 2 * checkpoints.values().sum::<u64>())
}

/// `cargo bench --bench core -- churn` does it 20 million times.
#[test]
fn the_disk_stays_within_its_bound_while_jobs_come_and_go() {
    const SEGMENT: u64 = 8 << 20;
    let dir = tempfile::tempdir().unwrap();
    let mut spec = Spec::new(dir.path()).with("echo", "v1", echo());
    (spec.segment, spec.retain) = (SEGMENT, 2 * SEGMENT);
    let handle = spec.open();
    let payload = format!("\"{}\"", "x".repeat(20 << 10));
    let push = |delay: Option<Duration>| {
        let mut jobs = vec![job("echo", &payload); 50];
        jobs.iter_mut().for_each(|job| job.start = delay.map_or(Start::Now, Start::After));
        handle.push_many(jobs).into_iter().map(|pushed| pushed.unwrap().id).last().unwrap()
    };
    // What waits for ever is restated again and again.
    push(Some(Duration::from_secs(1_000_000)));
    for round in 0..120 {
        until(&handle, &push(None), "completed");
        let (bytes, checkpoints) = held(dir.path());
        let log = ecosystem(&handle).log;
        let bound = 2 * log.live_bytes + 2 * SEGMENT + 3 * SEGMENT + checkpoints;
        assert!(bytes <= bound, "round {round}: {bytes} bytes, more than {bound}: {log:?}");
    }
    let log = ecosystem(&handle).log;
    assert!(log.head_segment > 7 && log.live_bytes > 50 * (20 << 10), "{log:?}");
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

/// Files of a log with this ending, oldest first.
fn files(dir: &Path, ending: &str) -> Vec<std::path::PathBuf> {
    let all = std::fs::read_dir(dir.join("log")).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<_> = all.filter(|path| path.to_str().unwrap().ends_with(ending)).collect();
    all.sort();
    all
}

fn copy_of(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    std::fs::create_dir(copy.path().join("log")).unwrap();
    for file in files(dir, "") {
        std::fs::copy(&file, copy.path().join("log").join(file.file_name().unwrap())).unwrap();
    }
    copy
}

fn flip(file: &Path, at: usize) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[at] ^= 1;
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn a_checkpoint_gives_the_state_and_is_not_needed() {
    let dir = tempfile::tempdir().unwrap();
    let spec = |dir: &Path| Spec::new(dir).with("echo", "v1", echo());
    // Parked, since the config has no such type any more: nobody takes them.
    let handle = spec(dir.path()).with("wait", "v1", echo()).open();
    handle.stop_and_wait();
    let handle = spec(dir.path()).open();
    let payload = format!("\"{}\"", "x".repeat(100 << 10));
    for n in 0..300 {
        let mut jobs = vec![job("wait", &payload), job("echo", &payload), job("wait", "1")];
        jobs[0].id = Some(format!("id-{n}").parse().unwrap());
        jobs[2].start = Start::After(Duration::from_secs(10_000));
        handle.push_many(jobs).into_iter().for_each(|pushed| drop(pushed.unwrap()));
    }
    act(&handle, "id-7", JobAction::Cancel).unwrap();
    let told = |handle: &Handle| {
        let view = of_type(handle, "wait");
        let mut again = job("wait", &payload);
        again.id = Some("id-3".parse().unwrap());
        assert!(handle.push(again).unwrap().duplicate);
        let cancelled = handle.job("id-7").unwrap();
        assert_eq!((cancelled.state, handle.job("id-299").unwrap().state), ("cancelled", "parked"));
        (view.parked, view.delayed, view.enqueued, view.cancelled)
    };
    let before = told(&handle);
    assert_eq!(before, (299, 300, 600, 1));
    handle.stop_and_wait();
    for sort in [".ckpt", ".names"] {
        let checkpoints = files(dir.path(), sort);
        assert_eq!(checkpoints.len(), 2, "{checkpoints:?}");
    }

    // History that is in a checkpoint is not read: damage in it does not even show.
    let copy = copy_of(dir.path());
    flip(&files(copy.path(), ".seg")[1], 100_000);
    let handle = spec(copy.path()).open();
    assert_eq!(told(&handle), before);
    handle.stop_and_wait();
    // Without a checkpoint of the names, these cannot be known: no job is taken in whose id may be another's.
    files(copy.path(), ".names").iter().for_each(|file| std::fs::remove_file(file).unwrap());
    let handle = spec(copy.path()).open();
    let mut named = job("wait", "1");
    named.id = Some("id-3".parse().unwrap());
    assert!(matches!(handle.push(named), Err(Refusal::Damaged { .. })));
    assert!(handle.push(job("wait", "1")).is_ok());
    handle.stop_and_wait();
    files(copy.path(), ".ckpt").iter().for_each(|file| std::fs::remove_file(file).unwrap());
    assert!(spec(copy.path()).try_open().is_err(), "without a checkpoint of the table it is not opened");

    // Without a checkpoint, with a damaged one, and with two: the log has everything.
    for damaged in 0..=2 {
        let copy = copy_of(dir.path());
        for sort in [".ckpt", ".names"] {
            for file in files(copy.path(), sort).iter().rev().take(damaged) {
                flip(file, std::fs::read(file).unwrap().len() / 2);
            }
            if damaged == 0 {
                files(copy.path(), sort).iter().for_each(|file| std::fs::remove_file(file).unwrap());
            }
        }
        let handle = spec(copy.path()).open();
        assert_eq!(told(&handle), before);
        for bad in [".ckpt.bad", ".names.bad"] {
            assert_eq!(files(copy.path(), bad).len(), damaged);
        }
        handle.stop_and_wait();
    }
}

/// An index that claims to know everything, and never answers.
struct Silent;

impl crate::archive::History for Silent {
    fn shown(&self) {}

    fn covered(&self) -> Option<std::ops::Range<crate::types::Seq>> {
        Some(1..crate::types::Seq::MAX)
    }

    fn ended(&self, _: crate::archive::Ask) -> Option<crate::archive::EndedPage> {
        None
    }

    fn find(&self, _: crate::types::Seq) -> Option<Option<crate::archive::Found>> {
        None
    }

    fn standing(&self) -> crate::archive::Standing {
        crate::archive::Standing { state: "degraded", behind: 0, reason: Some("it says nothing".to_owned()) }
    }
}

#[test]
fn d17_an_index_that_hangs_changes_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    let handle = Spec::new(dir.path()).with("echo", "v1", echo()).open();
    let ids: Vec<_> = (0..30).map(|n| push(&handle, "echo", &n.to_string()).id).collect();
    for id in &ids {
        until(&handle, id, "completed");
    }
    let answers = |handle: &Handle| {
        let filter = JobFilter { state: Some("completed".to_owned()), limit: 100, ..JobFilter::default() };
        let jobs = handle.jobs(&filter).unwrap().jobs;
        let listed: Vec<_> = jobs.iter().map(|job| serde_json::to_string(job).unwrap()).collect();
        let single: Vec<_> = ids.iter().map(|id| serde_json::to_string(&handle.job(id).unwrap()).unwrap()).collect();
        (listed, single)
    };
    let before = answers(&handle);
    assert_eq!((before.0.len(), ecosystem(&handle).history.state), (30, "off"));
    handle.use_history(Arc::new(Silent));
    assert_eq!(answers(&handle), before);
    assert_eq!(ecosystem(&handle).history.state, "degraded");
    handle.stop_and_wait();
}

#[test]
fn an_opening_tells_how_far_it_is_by_the_records_that_it_reads() {
    let dir = tempfile::tempdir().unwrap();
    let handle = Spec::new(dir.path()).with("rest", "v1", echo()).open();
    let later = || NewJob { start: Start::After(Duration::from_secs(1_000_000)), ..job("rest", "1") };
    for _ in 0..10 {
        handle.push_many((0..1000).map(|_| later()).collect()).into_iter().for_each(|pushed| drop(pushed.unwrap()));
    }
    handle.stop_and_wait();
    // All of them are read, and no picture of them.
    files(dir.path(), ".ckpt").iter().for_each(|file| std::fs::remove_file(file).unwrap());

    let (heard, told) = crossbeam_channel::unbounded();
    let lock = crate::log::lock::DirLock::take(dir.path()).unwrap();
    let spec = Spec::new(dir.path()).with("rest", "v1", echo()).make();
    let clock = Arc::new(TestClock(AtomicU64::new(2_000_000), AtomicU64::new(0)));
    let progress = Box::new(move |read| heard.send(read).unwrap());
    let (handle, opened) = Engine::open_locked(spec, crate::engine::no_resolver(), clock, lock, progress).unwrap();
    assert_eq!(opened.live_jobs, 10_000);
    let told: Vec<u64> = told.try_iter().collect();
    assert!(told.len() >= 2 && told.is_sorted() && told.iter().all(|read| *read <= 10_100), "{told:?}");
    handle.stop_and_wait();
}
