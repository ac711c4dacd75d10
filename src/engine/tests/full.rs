//! A full disk: what is restated keeps its order, a stop comes to its end, history gives way no further than it must.

use super::bounds::{OPTIONS, step_by, step_with};
use super::*;
use crate::engine::stepped::Stepped;
use crate::job::transition::State;
use crate::log::LogOptions;
use crate::log::disk::Disk;
use crate::log::tests::scarce::NoDescriptor;
use crate::simulate::disk::{Loss, SimDisk};

fn later(payload: &str) -> NewJob {
    NewJob { start: Start::After(Duration::from_secs(1_000_000)), ..job("echo", payload) }
}

fn over(payload: &str) -> NewJob {
    NewJob { expires_at: Some(1), ..job("echo", payload) }
}

/// Pushes in one turn; says how many were taken.
fn push(engine: &mut Stepped, jobs: Vec<NewJob>) -> usize {
    let (to, told) = crossbeam_channel::bounded(1);
    engine.handle().submit(jobs, Box::new(move |answers| to.send(answers).unwrap()));
    turns(engine);
    told.recv().unwrap().into_iter().filter(Result::is_ok).count()
}

/// Takes turns until nothing is left to do.
fn turns(engine: &mut Stepped) {
    while engine.turn().map(|_| engine.is_busy()).expect("the log goes on") {}
}

fn head(engine: &Stepped) -> u64 {
    engine.reader().first_seq()
}

/// The last portion of a sweep, which is a small one, was once restated before those that waited for room: the head moved, and a
/// power cut took all that waited.
#[test]
fn a_sweep_on_a_full_disk_restates_all_before_the_head_moves() {
    const SEGMENT: u64 = 4 << 20;
    let options =
        LogOptions { segment_bytes: SEGMENT, frame_bytes_full: 512 << 10, frame_bytes_max: 3 << 19, ..OPTIONS };
    let payload = format!("\"{}\"", "x".repeat(120));
    let mut moved = 0;
    for count in [14_000, 14_400, 14_800, 15_200] {
        let disk = SimDisk::new(1);
        let dir = tempfile::tempdir().unwrap();
        let spec = || Spec { segment: SEGMENT, ..Spec::new(dir.path()) }.with("echo", "v1", Broken).make();
        let (mut engine, _) = step_with(&disk, spec(), options);
        engine.make_segment();
        assert_eq!(push(&mut engine, vec![later(&payload); count]), count);
        let filler = over(&format!("\"{}\"", "x".repeat(12 << 10)));
        while disk.bytes_of("0000000003.seg").is_none() {
            assert_eq!(push(&mut engine, vec![filler.clone(); 10]), 10);
            engine.make_segment();
        }
        let first = head(&engine);
        disk.set_space(Some(disk.used()));
        while engine.reader().first_seq_of(3).is_none() {
            push(&mut engine, vec![filler.clone(); 10]);
        }
        engine.make_segment();
        engine.turn().unwrap();
        // As the cleaner does, all portions ahead; and the power fails once the head has moved.
        while engine.clean() {}
        while head(&engine) == first && engine.turn().map(|_| engine.is_busy()).unwrap() {}
        moved += usize::from(head(&engine) > first);
        let live = engine.table().live_jobs();
        drop(engine);
        let disk = disk.after(Loss::Power(1));
        disk.set_space(None);
        let (engine, _) = step_with(&disk, spec(), options);
        let reader = engine.reader();
        let there = engine.table().jobs().filter(|(_, job)| reader.read(job.home.position(), job.home.seq).is_ok());
        assert_eq!(there.count() as u64, live, "of {count}");
    }
    assert_eq!(moved, 4, "all of it has room");
}

/// What expires, and what a purge would end, is left to the next start: the room is for what was given back.
#[test]
fn a_stop_on_a_full_disk_comes_to_its_end() {
    for purge in [false, true] {
        let disk = SimDisk::new(1);
        let dir = tempfile::tempdir().unwrap();
        let (mut engine, clock) = step_with(&disk, Spec::new(dir.path()).with("echo", "v1", Broken).make(), OPTIONS);
        let late = NewJob { expires_at: (!purge).then_some(1_001_000), ..later("1") };
        for _ in 0..40 {
            assert_eq!(push(&mut engine, vec![late.clone(); 600]), 600);
            engine.make_segment();
        }
        disk.set_space(Some(disk.used()));
        if purge {
            engine.handle().purge("echo", Box::new(drop));
        } else {
            clock.0.store(1_002_000, Ordering::SeqCst);
        }
        turns(&mut engine);
        assert!(engine.stands_still() && engine.table().live_jobs() > 1000, "{} live", engine.table().live_jobs());
        // A seal that follows soon would be a reason.
        clock.ahead(5);
        turns(&mut engine);
        engine.handle().stop(Box::new(drop));
        // What is due and cannot be recorded is no reason to look again at once.
        let over = engine.turn().expect("the log goes on");
        assert!(over || engine.is_busy() || engine.idle_for() >= Duration::from_millis(250), "it spins");
        let end = RealClock.mono() + SOON;
        while !over && !engine.turn().expect("the log goes on") {
            assert!(RealClock.mono() < end, "it does not end");
        }
        assert!(engine.table().live_jobs() > 1000, "what waited for space waits on");
    }
}

/// What was done and finds no room is given back, and runs again after the next start: no attempt and no host death is counted.
#[test]
fn a_stop_on_a_full_disk_gives_back_what_it_has_no_room_to_record() {
    // Whatever the last one that has room leaves, the rest is enough for the others.
    for bytes in (8 << 10..13 << 10).step_by(512) {
        stop_with_results_of(bytes);
    }
}

fn stop_with_results_of(bytes: usize) {
    const JOBS: usize = 24;
    let disk = SimDisk::new(1);
    let dir = tempfile::tempdir().unwrap();
    let (begun, given) = crossbeam_channel::unbounded();
    let (end, ends) = crossbeam_channel::bounded::<()>(0);
    let work = Factory(Arc::new(move |_: &Assignment| {
        begun.send(()).unwrap();
        ends.recv().unwrap_err();
        Outcome::Done { result: Some(format!("\"{}\"", "x".repeat(bytes)).into_bytes()), enqueue: Vec::new() }
    }));
    let threads = u32::try_from(JOBS).unwrap();
    let live = LiveConfig { concurrency: Concurrency::fixed(threads), ..live() };
    let spec = |work| {
        let spec = Spec::new(dir.path()).with_live("work", "v1", work, live.clone());
        let mut spec = spec.with("echo", "v1", Broken).make();
        spec.config.stop_timeout = SOON;
        spec
    };
    let (mut engine, _) = step_with(&disk, spec(work), OPTIONS);
    engine.make_segment();
    engine.handle().submit(vec![job("work", "1"); JOBS], Box::new(drop));
    while given.len() < JOBS {
        engine.turn().unwrap();
        std::thread::yield_now();
    }
    disk.set_space(Some(disk.used()));
    let filler = later(&format!("\"{}\"", "x".repeat(4 << 10)));
    while push(&mut engine, vec![filler.clone()]) == 1 {}
    engine.handle().stop(Box::new(drop));
    turns(&mut engine);
    drop(end);
    while !engine.turn().expect("the log goes on") {
        std::thread::yield_now();
    }
    drop(engine);
    let (engine, _) = step_with(&disk, spec(Factory(Arc::new(|_: &Assignment| Outcome::Interrupted))), OPTIONS);
    let (_, of_type) = engine.table().types().find(|(_, of_type)| of_type.name.as_str() == "work").unwrap();
    let jobs = engine.table().jobs().filter(|(_, job)| job.fence.epoch == 1).map(|(_, job)| job);
    let back: Vec<_> =
        jobs.map(|job| (job.state, job.attempts, job.given_back.interrupts, job.given_back.host_deaths)).collect();
    assert_eq!((of_type.totals.completed + back.len() as u64, of_type.totals.failed), (JOBS as u64, 0));
    assert!(of_type.totals.completed > 5 && back.len() > 5, "{} of {JOBS} have room", of_type.totals.completed);
    assert!(back.iter().all(|back| *back == (State::Ready, 0, 1, 0)), "{back:?}");
}

/// Nothing else would sync the frame by which the head moves, and so nothing would be freed.
#[test]
fn a_full_disk_ends_by_itself_whatever_is_synced() {
    for sync in [SyncPolicy::Always, SyncPolicy::Every(Duration::from_secs(3600)), SyncPolicy::Never] {
        let disk = SimDisk::new(1);
        let dir = tempfile::tempdir().unwrap();
        let mut spec = Spec::new(dir.path()).with("echo", "v1", Broken).make();
        spec.config.log.sync = sync;
        (spec.config.log.segment, spec.config.log.retain) = (OPTIONS.segment_bytes, 0);
        let (mut engine, _) = step_with(&disk, spec, OPTIONS);
        let lives = later(&format!("\"{}\"", "x".repeat(12 << 10)));
        while disk.bytes_of("0000000004.seg").is_none() {
            assert_eq!(push(&mut engine, vec![lives.clone()]), 1);
            engine.make_segment();
        }
        disk.set_space(Some(disk.used()));
        while push(&mut engine, vec![lives.clone()]) == 1 {}
        engine.handle().purge("echo", Box::new(drop));
        let mut taken = 0;
        for _ in 0..20 {
            turns(&mut engine);
            engine.make_segment();
            taken += push(&mut engine, vec![lives.clone()]);
        }
        assert!(taken > 10, "{sync:?}: {taken} taken once nothing lived any more");
    }
}

fn refusal(engine: &mut Stepped, one: NewJob) -> Option<String> {
    let (to, told) = crossbeam_channel::bounded(1);
    engine.handle().submit(vec![one], Box::new(move |answers| to.send(answers).unwrap()));
    turns(engine);
    told.recv().unwrap().pop().unwrap().err().map(|refusal| refusal.to_string())
}

/// History gives way as far as it must, and only where that is enough; outcomes and words about jobs go on.
#[test]
fn what_must_stay_free_refuses_new_jobs_and_costs_no_more_history_than_it_must() {
    const SEGMENT: usize = 256 << 10;
    for (too_few, helps) in [(3, true), (100, false)] {
        let disk = SimDisk::new(1);
        let dir = tempfile::tempdir().unwrap();
        let mut spec = Spec::new(dir.path()).with("echo", "v1", Broken).make();
        (spec.config.log.segment, spec.config.log.retain) = (OPTIONS.segment_bytes, 1 << 30);
        spec.config.log.disk_free_min = FreeMin::Bytes((too_few * SEGMENT) as u64);
        let (mut engine, clock) = step_with(&disk, spec, OPTIONS);
        let done = over(&format!("\"{}\"", "x".repeat(12 << 10)));
        while disk.bytes_of("0000000012.seg").is_none() {
            assert_eq!(push(&mut engine, vec![done.clone()]), 1);
            engine.make_segment();
        }
        let named = NewJob { id: Some("waits".parse().unwrap()), ..later("1") };
        assert_eq!(push(&mut engine, vec![named]), 1);
        let first = head(&engine);
        disk.set_space(Some(disk.used() + SEGMENT / 2));
        clock.ahead(1);
        let why = refusal(&mut engine, done.clone()).expect("too little is free");
        assert!(why.contains("log.disk_free_min"), "{why}");
        for _ in 0..30 {
            clock.ahead(1);
            turns(&mut engine);
            engine.make_segment();
        }
        let free = disk.space().unwrap() - disk.used();
        assert_eq!((refusal(&mut engine, done.clone()).is_none(), free >= too_few * SEGMENT), (helps, helps));
        let left = (1..13).filter(|number| engine.reader().first_seq_of(*number).is_some()).count();
        if helps {
            assert!(head(&engine) > first && left >= 5, "{left} segments are left, and {free} bytes are free");
        } else {
            assert_eq!(head(&engine), first, "it would be lost for nothing");
            engine.handle().act("waits", JobAction::Cancel, Box::new(|done| assert!(done.is_ok())));
            turns(&mut engine);
            assert_eq!(engine.table().live_jobs(), 0);
            disk.set_space(None);
            clock.ahead(1);
            assert_eq!(refusal(&mut engine, done.clone()), None);
        }
    }
}

/// Files of the log, in bytes.
fn segments(disk: &SimDisk) -> u64 {
    let names = disk.list().unwrap().into_iter().filter(|name| name.contains(".seg"));
    names.filter_map(|name| disk.bytes_of(&name)).map(|bytes| bytes.len() as u64).sum()
}

/// Lets the log be cleaned, and time go on.
fn settle(engine: &mut Stepped, clock: &TestClock) {
    engine.make_segment();
    turns(engine);
    let mut portions = 0;
    while engine.clean() {
        turns(engine);
        portions += 1;
        assert!(portions < 100, "the log is cleaned without end");
    }
    clock.ahead(1);
}

/// What has ended gives way to what comes; what lives does not, until it has ended.
#[test]
fn a_log_is_as_large_as_it_may_be_and_no_larger() {
    for most in [4, 8] {
        let disk = SimDisk::new(1);
        let dir = tempfile::tempdir().unwrap();
        let mut spec = Spec::new(dir.path()).with("echo", "v1", Broken).make();
        (spec.config.log.segment, spec.config.log.retain) = (OPTIONS.segment_bytes, 1 << 30);
        let bytes_max = most * OPTIONS.segment_bytes;
        spec.config.log.disk_max = Some(bytes_max);
        let (mut engine, clock) = step_with(&disk, spec, OPTIONS);
        let payload = format!("\"{}\"", "x".repeat(12 << 10));
        let round = |engine: &mut Stepped, one: &NewJob| {
            let refused = refusal(engine, one.clone());
            settle(engine, &clock);
            assert!(segments(&disk) <= bytes_max, "{} bytes", segments(&disk));
            refused
        };
        // It lives in the head all the time.
        assert_eq!(round(&mut engine, &later("1")), None);
        for _ in 0..500 {
            assert_eq!(round(&mut engine, &over(&payload)), None, "{most}");
        }
        let mut taken = 0;
        let why = loop {
            match round(&mut engine, &later(&payload)) {
                None => taken += 1,
                Some(why) => break why,
            }
            assert!(taken < 200, "it is bounded");
        };
        assert!(why.contains("`log.disk_max`, "), "{why}");
        assert!(taken > 20 * (most - 3), "{taken} taken of {most} segments");
        engine.handle().purge("echo", Box::new(drop));
        settle(&mut engine, &clock);
        let taken = (0..100).filter(|_| round(&mut engine, &over(&payload)).is_none()).count();
        assert!(taken > 80, "{taken} of 100 taken once nothing lived any more");
    }
}

/// What lives is not restated again and again where that gains nothing: more of it than the bound leaves room for.
#[test]
fn a_log_at_its_bound_comes_to_rest() {
    let disk = SimDisk::new(1);
    let dir = tempfile::tempdir().unwrap();
    let spec = |most: Option<u64>| {
        let mut spec = Spec::new(dir.path()).with("echo", "v1", Broken).make();
        (spec.config.log.segment, spec.config.log.retain) = (OPTIONS.segment_bytes, 0);
        spec.config.log.disk_max = most;
        spec
    };
    let (mut engine, _) = step_with(&disk, spec(None), OPTIONS);
    for lives in [10, 30, 60, 70, 80, 90, 100, 110] {
        let payload = format!("\"{}\"", "x".repeat(4 << 10));
        while engine.table().live_jobs() < lives {
            engine.make_segment();
            assert_eq!(push(&mut engine, vec![later(&payload)]), 1);
        }
        drop(engine);
        let clock;
        (engine, clock) = step_with(&disk, spec(Some(4 * OPTIONS.segment_bytes)), OPTIONS);
        let made = |disk: &SimDisk| disk.list().unwrap().into_iter().filter(|name| name.contains(".seg")).max();
        // What comes and goes brings it to its bound, if it is not there.
        for _ in 0..100 {
            refusal(&mut engine, over(&payload));
            settle(&mut engine, &clock);
        }
        let before = made(&disk);
        (0..30).for_each(|_| settle(&mut engine, &clock));
        assert_eq!(made(&disk), before, "{lives} live, and nothing else happens");
        drop(engine);
        (engine, _) = step_with(&disk, spec(None), OPTIONS);
    }
}

/// One that is wanted costs one that was needed least; and none where it is no space that is wanted.
#[test]
fn a_segment_that_cannot_be_made_does_not_cost_all_history() {
    const SEGMENTS: u64 = 12;
    for no_space in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut spec = Spec::new(dir.path()).with("echo", "v1", Broken).make();
        (spec.config.log.segment, spec.config.log.retain) = (OPTIONS.segment_bytes, 1 << 30);
        let sim = SimDisk::new(1);
        let disk = Arc::new(NoDescriptor(sim.clone(), 0.into()));
        let (mut engine, _) = step_by(Arc::clone(&disk) as Arc<dyn Disk>, spec, OPTIONS);
        let done = over(&format!("\"{}\"", "x".repeat(12 << 10)));
        let active = |engine: &Stepped| (1..100).rev().find(|n| engine.reader().first_seq_of(*n).is_some()).unwrap();
        while u64::from(active(&engine)) < SEGMENTS {
            assert_eq!(push(&mut engine, vec![done.clone()]), 1);
            engine.make_segment();
        }
        if no_space {
            sim.set_space(Some(sim.used()));
        } else {
            disk.1.store(3, Ordering::SeqCst);
        }
        let before = active(&engine);
        for _ in 0..200 {
            push(&mut engine, vec![done.clone()]);
            engine.make_segment();
        }
        let (made, passed) = (active(&engine) - before, engine.reader().first_seq_of(1).is_none());
        let left = (1..=before).filter(|n| engine.reader().first_seq_of(*n).is_some()).count() as u64;
        assert!(made > 2, "{made}");
        assert_eq!(passed, no_space);
        let least = if no_space { u64::from(before - made).saturating_sub(3) } else { SEGMENTS };
        assert!(left >= least, "{left} of {before} are left, and {made} were made");
    }
}

/// A start in the middle of a sweep finds a job at two places; once it has ended, the one that is left says that it lives.
#[test]
fn a_job_that_a_start_found_twice_is_found_by_its_id_once_it_has_ended() {
    const SEGMENT: u64 = 1 << 20;
    let disk = SimDisk::new(1);
    let dir = tempfile::tempdir().unwrap();
    let options =
        LogOptions { segment_bytes: SEGMENT, frame_bytes_full: 16 << 10, frame_bytes_max: 64 << 10, ..OPTIONS };
    let spec = || {
        let mut spec = Spec { segment: SEGMENT, ..Spec::new(dir.path()) }.with("echo", "v1", Broken).make();
        spec.config.log.retain = 0;
        spec
    };
    let (mut engine, _) = step_with(&disk, spec(), options);
    let named = NewJob { id: Some("mine".parse().unwrap()), ..later("1") };
    assert_eq!(push(&mut engine, vec![named]), 1);
    let filler = format!("\"{}\"", "x".repeat(12 << 10));
    assert_eq!(push(&mut engine, vec![later(&filler); 30]), 30);
    let home = |engine: &Stepped| engine.table().jobs().find(|(_, job)| job.named).unwrap().1.home;
    // Restated once, and then in the first portion of a sweep that goes no further.
    let mut homes = vec![home(&engine)];
    while homes.len() < 3 {
        push(&mut engine, vec![over(&filler)]);
        engine.make_segment();
        if engine.clean() {
            turns(&mut engine);
            if home(&engine).seq != homes.last().unwrap().seq {
                homes.push(home(&engine));
            }
            while homes.len() < 3 && engine.clean() {
                turns(&mut engine);
            }
        }
    }
    assert!(engine.reader().first_seq() <= homes[1].seq, "the place before is still there");
    drop(engine);
    let (mut engine, _) = step_with(&disk.after(Loss::Process), spec(), options);
    assert_eq!(engine.job("mine").unwrap().state, "delayed");
    engine.handle().act("mine", JobAction::Cancel, Box::new(|done| assert!(done.is_ok())));
    turns(&mut engine);
    assert_eq!(engine.job("mine").unwrap().state, "cancelled");
}
