//! What lasts long, comes in great number, or fails while the log is looked after: a backup, a head that cannot be read,
//! jobs that expire together, an opening that a power cut follows.

use super::*;
use crate::engine::stepped::{Stepped, Surrounding};
use crate::job::event::Kind;
use crate::log::disk::Disk;
use crate::log::{LogOptions, Making};
use crate::pool::ThreadPools;
use crate::simulate::disk::{Loss, SimDisk};
use crate::types::Seq;

pub(super) const OPTIONS: LogOptions = LogOptions {
    segment_bytes: 256 << 10,
    frame_bytes_full: 4 << 10,
    frame_bytes_max: 16 << 10,
    making: Making::Stepped,
};

/// An engine that the test steps, and its clock.
fn step_on(disk: &SimDisk, spec: GenerationSpec) -> (Stepped, Arc<TestClock>) {
    step_with(disk, spec, OPTIONS)
}

pub(super) fn step_with(disk: &SimDisk, spec: GenerationSpec, options: LogOptions) -> (Stepped, Arc<TestClock>) {
    step_by(Arc::new(disk.clone()), spec, options)
}

pub(super) fn step_by(disk: Arc<dyn Disk>, spec: GenerationSpec, options: LogOptions) -> (Stepped, Arc<TestClock>) {
    let clock = Arc::new(TestClock(AtomicU64::new(1_000_000), AtomicU64::new(0)));
    let around = Surrounding {
        disk,
        options,
        log_id: [7; 16],
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
        pools: Box::new(ThreadPools { clock: Arc::clone(&clock) as Arc<dyn Clock> }),
        resolver: crate::engine::no_resolver(),
        seed: 1,
    };
    (Stepped::open(spec, around).unwrap().0, clock)
}

/// Kinds of the records from `from` on, in order.
fn kinds(engine: &Stepped, from: Seq) -> Vec<u8> {
    engine.reader().scan(from).map(|record| record.unwrap().kind).collect()
}

/// A backup once had every segment end pass more of the history, since what it holds could not be freed.
#[test]
fn a_backup_that_lasts_costs_no_history() {
    const SEGMENT: u64 = 8 << 20;
    let dir = tempfile::tempdir().unwrap();
    let mut spec = Spec::new(dir.path()).with("echo", "v1", Factory(Arc::new(|_: &Assignment| done())));
    (spec.segment, spec.retain) = (SEGMENT, 4 * SEGMENT);
    let handle = spec.open();
    let payload = format!("\"{}\"", "x".repeat(200 << 10));
    let round = || {
        let ids = handle.push_many(vec![job("echo", &payload); 10]).into_iter().map(|pushed| pushed.unwrap().id);
        let last = ids.last().unwrap();
        until(&handle, &last, "completed");
    };
    (0..30).for_each(|_| round());
    let held = wait(|then| handle.hold_for_backup(then)).unwrap();
    (0..60).for_each(|_| round());
    let log = ecosystem(&handle).log;
    let kept = (log.active_segment - log.head_segment) * SEGMENT;
    assert!(kept >= 3 * SEGMENT, "{kept} bytes of history are left: {log:?}");
    assert!(log.disk_bytes > 12 * SEGMENT, "what the backup holds is there, and counted: {log:?}");
    drop(held);
    (0..12).for_each(|_| round());
    let log = ecosystem(&handle).log;
    assert!(log.disk_bytes <= 8 * SEGMENT, "what it held is gone: {log:?}");
    handle.stop_and_wait();
}

/// A sweep that failed once had none follow for the life of the process.
#[test]
fn a_head_that_cannot_be_read_is_passed_once_nothing_in_it_lives() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = Spec::new(dir.path()).with("echo", "v1", Factory(Arc::new(|_: &Assignment| done())));
    spec.retain = 0;
    let handle = spec.open();
    let payload = format!("\"{}\"", "x".repeat(200 << 10));
    let later = NewJob { start: Start::After(Duration::from_secs(1_000_000)), ..job("echo", &payload) };
    let later = handle.push(later).unwrap();
    let head = ecosystem(&handle).log.head_segment;
    // In the middle of its payload, by the very file that is written.
    let path = dir.path().join("log").join(format!("{head:010}.seg"));
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"?", 100 << 10).unwrap();
    let round = || {
        let ids = handle.push_many(vec![job("echo", &payload); 10]).into_iter().map(|pushed| pushed.unwrap().id);
        until(&handle, &ids.last().unwrap(), "completed");
    };
    (0..20).for_each(|_| round());
    assert_eq!(ecosystem(&handle).log.head_segment, head, "what lives there is not given up");
    act(&handle, &later.id, JobAction::Cancel).unwrap();
    (0..20).for_each(|_| round());
    let log = ecosystem(&handle).log;
    assert!(log.head_segment > head + 3, "{log:?}");
    handle.stop_and_wait();
}

/// A full disk has the engine look at each turn whether there is something to clean.
#[test]
fn on_a_full_disk_a_head_that_cannot_be_read_is_not_read_again_and_again() {
    const SEGMENT: u64 = 4 << 20;
    let disk = SimDisk::new(1);
    let dir = tempfile::tempdir().unwrap();
    let spec = Spec { segment: SEGMENT, ..Spec::new(dir.path()) }.with("echo", "v1", Broken);
    let (mut engine, _) = step_with(&disk, spec.make(), LogOptions { segment_bytes: SEGMENT, ..OPTIONS });
    let later = |payload: &str| NewJob { start: Start::After(Duration::from_secs(1_000_000)), ..job("echo", payload) };
    let push = |engine: &mut Stepped, job| {
        let (to, told) = crossbeam_channel::bounded(1);
        engine.handle().submit(vec![job], Box::new(move |answers| to.send(answers[0].is_ok()).unwrap()));
        engine.turn().unwrap();
        engine.make_segment();
        told.recv().unwrap()
    };
    assert!(push(&mut engine, later("\"lives in the head\"")));
    let done = NewJob { expires_at: Some(1), ..job("echo", &format!("\"{}\"", "x".repeat(12 << 10))) };
    let head = "0000000001.seg";
    let at = |text: &[u8], bytes: &[u8]| bytes.windows(text.len()).position(|window| window == text).unwrap();
    assert!(disk.rot(head, 8 * at(b"lives in", &disk.bytes_of(head).unwrap())));
    while disk.bytes_of("0000000004.seg").is_none() {
        assert!(push(&mut engine, done.clone()));
    }
    // Into the segment that was made ahead, for which there is no next one.
    disk.set_space(Some(disk.used()));
    while push(&mut engine, done.clone()) {}
    let mut swept = 0;
    for _ in 0..20 {
        engine.make_segment();
        engine.turn().unwrap();
        swept += usize::from(engine.clean());
    }
    assert_eq!(swept, 1);
}

/// Otherwise all the room went that is kept for outcomes, and the engine waited for more, which only it can make. Those that are
/// left do not begin meanwhile.
#[test]
fn d9_many_that_expire_together_leave_as_there_is_room_for_them() {
    let disk = SimDisk::new(1);
    let dir = tempfile::tempdir().unwrap();
    let (mut engine, clock) = step_on(&disk, Spec::new(dir.path()).with("echo", "v1", echo()).make());
    let turns = |engine: &mut Stepped| {
        while engine.turn().map(|_| engine.is_busy()).expect("the log goes on") {
            engine.make_segment();
        }
    };
    let push = |engine: &mut Stepped, job: NewJob, count| {
        engine.handle().submit(vec![job; count], Box::new(|answers| assert!(answers.iter().all(Result::is_ok))));
        turns(engine);
    };
    let ended = |engine: &Stepped| kinds(engine, 0).into_iter().filter(|kind| *kind == Kind::Ended as u8).count();
    // Nothing is freed while this one lives in the head, since nobody sweeps that.
    push(&mut engine, NewJob { start: Start::After(Duration::from_secs(1_000_000)), ..job("echo", "1") }, 1);
    push(&mut engine, job("echo", "1"), 1);
    let end = RealClock.mono() + SOON;
    while ended(&engine) == 0 {
        turns(&mut engine);
        assert!(RealClock.mono() < end, "the pool does not come up");
    }
    let late = NewJob { start: Start::At(1_000_900), expires_at: Some(1_001_000), ..job("echo", "1") };
    (0..40).for_each(|_| push(&mut engine, late.clone(), 600));
    disk.set_space(Some(disk.used()));
    clock.0.store(1_002_000, Ordering::SeqCst);
    turns(&mut engine);
    let first = ended(&engine);
    assert!((2..24_000).contains(&first) && engine.stands_still(), "{first} have left");
    disk.set_space(None);
    engine.make_segment();
    turns(&mut engine);
    assert_eq!(ended(&engine), 24_001);
    let totals = engine.table().types().next().map(|(_, of_type)| of_type.totals).unwrap();
    assert_eq!((totals.completed, totals.expired), (1, 24_000));
    let begun = kinds(&engine, 0).into_iter().filter(|kind| *kind == Kind::Reserved as u8).count();
    assert_eq!(begun, 1, "none of them began");
}

/// Fences of runs begin with the epoch: one that came twice would let an old run pass for a new one.
#[test]
fn an_epoch_never_comes_twice_whatever_is_synced() {
    let dir = tempfile::tempdir().unwrap();
    for sync in [SyncPolicy::Always, SyncPolicy::Every(Duration::from_millis(5)), SyncPolicy::Never] {
        let mut disk = SimDisk::new(1);
        let mut last = 0;
        for power in 0..8 {
            let mut spec = Spec::new(dir.path()).with("echo", "v1", echo()).make();
            spec.config.log.sync = sync;
            let (mut engine, _) = step_on(&disk, spec);
            let (to, told) = crossbeam_channel::bounded(1);
            engine.handle().ecosystem(Box::new(move |view| to.send(view.unwrap().log.epoch).unwrap()));
            engine.turn().unwrap();
            let epoch = told.recv().unwrap();
            assert!(epoch > last, "{sync:?}: epoch {epoch} after {last}");
            last = epoch;
            drop(engine);
            disk = disk.after(Loss::Power(power));
        }
    }
}

/// The summary of a death names its type: where the segment has just begun, a replay from there must have met that.
#[test]
fn deaths_at_an_opening_come_after_what_they_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = SimDisk::new(1);
    let mut last = None;
    for _ in 0..4 {
        let (holds, given, answer) = asked();
        let settings = LiveConfig { on_dead: Some("mourner".parse().unwrap()), ..live() };
        let spec = Spec::new(dir.path()).with_live("dies", "v1", holds, settings).with("mourner", "v1", Broken);
        let (mut engine, _) = step_on(&disk, spec.make());
        let said = kinds(&engine, last.unwrap_or(0));
        if let Some(enqueued) = said.iter().position(|kind| *kind == Kind::Enqueued as u8) {
            let named = said.iter().position(|kind| *kind == Kind::TypeNamed as u8).unwrap();
            assert!(named < enqueued, "{said:?}");
            return;
        }
        if last.is_none() {
            engine.handle().submit(vec![job("dies", "1")], Box::new(|answers| assert!(answers[0].is_ok())));
        }
        let end = RealClock.mono() + SOON;
        while given.is_empty() {
            engine.turn().unwrap();
            assert!(RealClock.mono() < end, "nobody begins it");
        }
        last = Some(engine.reader().visible_up_to());
        disk = disk.after(Loss::Process);
        drop((engine, answer));
    }
    panic!("it has not died");
}

/// Code of an embedder may ask for any pause.
#[test]
fn a_pause_for_ever_is_one_of_ten_years() {
    let dir = tempfile::tempdir().unwrap();
    let later = || Outcome::Defer { error: String::new(), after: Some(Duration::MAX) };
    let handle = Spec::new(dir.path()).with("defers", "v1", Factory(Arc::new(move |_: &Assignment| later()))).open();
    let view = until(&handle, &push(&handle, "defers", "1").id, "delayed");
    assert!(view.ready_at.as_deref().is_some_and(|at| at.starts_with("1980-01")), "{view:?}");
    handle.stop_and_wait();
}
