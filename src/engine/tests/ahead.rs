//! Commits that are carried out beside the engine: under load, on a disk that fails or loses power at any of its calls.

use std::collections::BTreeSet;
use std::sync::Mutex;

use super::super::open::{Surroundings, open_core, serve};
use super::super::upkeep::clean::Cleaning;
use super::*;
use crate::engine::Pulse;
use crate::engine::command::{Command, To};
use crate::engine::core::Core;
use crate::job::event::Kind;
use crate::job::ids::IdMaker;
use crate::log::disk::{Disk, DiskFile, RealDisk};
use crate::log::{LogOptions, Making};
use crate::pool::ThreadPools;
use crate::simulate::disk::{Fault, Loss, SimDisk};
use crate::types::Seq;

/// Frames are large enough for another thread from 256 bytes on.
const OPTIONS: LogOptions = LogOptions {
    segment_bytes: 256 << 10,
    frame_bytes_full: 4 << 10,
    frame_bytes_max: 16 << 10,
    making: Making::Thread,
};

/// An engine with its threads, but for its own.
fn core_on(disk: Arc<dyn Disk>, dir: &Path) -> Option<(Core, Handle)> {
    let clock: Arc<dyn Clock> = Arc::new(TestClock(AtomicU64::new(1_000_000), AtomicU64::new(0)));
    let around = Surroundings {
        disk,
        options: OPTIONS,
        new_id: [7; 16],
        pool_maker: Box::new(ThreadPools { clock: Arc::clone(&clock) }),
        resolver: crate::engine::no_resolver(),
        clock,
        cleaning: Cleaning::default(),
        threads: true,
        random: fastrand::Rng::with_seed(1),
        lock: None,
        progress: Box::new(|_| ()),
    };
    let (core, handle, _) = open_core(Spec::new(dir).with("echo", "v1", echo()).make(), around).ok()?;
    Some((core, handle))
}

/// An engine with its threads.
fn open_on(disk: Arc<dyn Disk>, dir: &Path) -> Option<(Handle, std::thread::JoinHandle<()>)> {
    let (core, handle) = core_on(disk, dir)?;
    let shared = Arc::clone(&core.shared);
    Some((handle, std::thread::spawn(move || serve(core, &shared))))
}

/// Has four threads push until the disk fails, or for long; returns the ids that were acknowledged.
fn push_until_it_fails(handle: &Handle) -> BTreeSet<String> {
    let acknowledged = Mutex::new(BTreeSet::new());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let acknowledged = &acknowledged;
            scope.spawn(move || {
                // One that fails once may fail where nobody minds, such as a checkpoint.
                for _ in 0..100 {
                    let jobs: Vec<NewJob> = (0..20).map(|n| job("echo", &format!("{}", thread + n))).collect();
                    let pushed = handle.push_many(jobs);
                    let failed = pushed.iter().any(Result::is_err);
                    acknowledged.lock().unwrap().extend(pushed.into_iter().flatten().map(|pushed| pushed.id));
                    if failed {
                        break;
                    }
                }
            });
        }
    });
    acknowledged.into_inner().unwrap()
}

#[test]
fn what_is_acknowledged_while_commits_go_ahead_outlives_any_fault() {
    let seed = fastrand::u64(..);
    eprintln!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut all, mut runs) = (0, 0);
    for fault in [Fault::Power, Fault::Once, Fault::ForEver].into_iter().cycle().take(24) {
        let disk = SimDisk::new(random.u64(..));
        let dir = tempfile::tempdir().unwrap();
        let Some((handle, engine)) = open_on(Arc::new(disk.clone()), dir.path()) else {
            panic!("nothing has failed yet, SEED={seed}")
        };
        disk.plan(random.u64(1..400), fault);
        let (told, poisoned) = crossbeam_channel::bounded(1);
        handle.on_poisoned(Box::new(move |why| told.send(why).unwrap()));
        let acknowledged = push_until_it_fails(&handle);
        if fault == Fault::Once && poisoned.is_empty() {
            handle.stop_and_wait();
        } else {
            poisoned.recv_timeout(SOON).expect("an engine that says why it ends");
        }
        engine.join().unwrap();
        let power = random.u64(..);
        let left = disk.after(if fault == Fault::Power { Loss::Power(power) } else { Loss::Process });
        let (handle, engine) = open_on(Arc::new(left), dir.path()).expect("the log opens after any fault");
        let enqueued = handle.reader().scan(0).map(|record| record.expect("what is left can be read"));
        let enqueued = enqueued.filter(|record| record.kind == Kind::Enqueued as u8);
        let born: BTreeSet<Seq> = enqueued.map(|record| record.seq).collect();
        for id in &acknowledged {
            let (seq, _) = IdMaker::new([7; 16]).read(id).expect("an id that was made here");
            assert!(born.contains(&seq), "SEED={seed}: {id} of {} is lost after {fault:?}", acknowledged.len());
        }
        handle.stop_and_wait();
        engine.join().unwrap();
        all += acknowledged.len();
        runs += 1;
    }
    assert!(all > runs * 100, "SEED={seed}: {all} acknowledged in {runs} runs");
}

#[test]
fn an_idle_disk_gets_a_frame_as_soon_as_one_is_large_enough() {
    let dir = tempfile::tempdir().unwrap();
    let (mut core, handle) = core_on(Arc::new(SimDisk::new(1)), dir.path()).unwrap();
    let answered = Arc::new(AtomicU64::new(0));
    for _ in 0..200 {
        let answered = Arc::clone(&answered);
        let then = Box::new(move |_| {
            answered.fetch_add(1, Ordering::SeqCst);
        });
        handle.submit(vec![job("echo", "1")], then);
    }
    core.turn(None).unwrap();
    assert!(core.ahead.is_some(), "the first of them are on their way");
    // Beside them, the pool may have said something.
    assert!(core.inbox.len() >= 200 - 64, "the others can be taken meanwhile: {}", core.inbox.len());
    while core.is_busy() {
        core.turn(None).unwrap();
    }
    core.await_commit().unwrap();
    assert_eq!(answered.load(Ordering::SeqCst), 200);
}

/// A commit is on its way with records that hand jobs out; a stop comes before its end is known.
#[test]
fn what_a_commit_on_its_way_would_hand_to_a_pool_that_ends_goes_back() {
    let dir = tempfile::tempdir().unwrap();
    let (mut core, handle) = core_on(Arc::new(SimDisk::new(1)), dir.path()).unwrap();
    while core.pools.values().all(|run| run.up == 0) {
        let said = core.inbox.recv_timeout(SOON).expect("a pool that comes up");
        core.turn(Some(said)).unwrap();
    }
    for _ in 0..8 {
        handle.submit(vec![job("echo", "1")], Box::new(|_| ()));
    }
    core.turn(None).unwrap();
    let on_its_way = |core: &Core| core.ahead.as_ref().map(|ahead| ahead.staged.len());
    let leased = core.held_leases().len();
    assert!(leased > 0 && on_its_way(&core) == Some(leased), "{leased}, {:?}", on_its_way(&core));
    let (stopped, to) = To::slot(&core.shared.broadcast);
    core.handle(Command::Stop { to }).unwrap();
    assert_eq!((on_its_way(&core), core.held_leases()), (Some(0), vec![]));
    while !core.turn(None).unwrap() {
        std::thread::yield_now();
    }
    drop((core, stopped));
}

/// A disk that makes no second segment before its gate is closed for good.
struct Held {
    disk: SimDisk,
    gate: Receiver<()>,
}

impl Disk for Held {
    fn list(&self) -> std::io::Result<Vec<String>> {
        self.disk.list()
    }
    fn create(&self, name: &str) -> std::io::Result<Arc<dyn DiskFile>> {
        if name.starts_with("0000000002.") {
            self.gate.recv().unwrap_err();
        }
        self.disk.create(name)
    }
    fn open(&self, name: &str) -> std::io::Result<Arc<dyn DiskFile>> {
        self.disk.open(name)
    }
    fn rename(&self, from: &str, to: &str) -> std::io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> std::io::Result<()> {
        self.disk.remove(name)
    }
    fn sync_dir(&self) -> std::io::Result<()> {
        self.disk.sync_dir()
    }
    fn place(&self) -> std::path::PathBuf {
        self.disk.place()
    }
}

#[test]
fn who_waits_for_the_next_segment_waits_for_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (open, gate) = crossbeam_channel::bounded(0);
    let (mut core, handle) = core_on(Arc::new(Held { disk: SimDisk::new(1), gate }), dir.path()).unwrap();
    let pulse = Pulse::new(Arc::new(RealClock), Duration::from_secs(10), || ());
    core.begin_to_beat(Arc::clone(&pulse));
    // Where this fails, it ends nevertheless.
    let open = open;
    // Jobs that nobody begins: nothing but what is pushed takes room.
    let push = || {
        let later = NewJob { start: Start::After(Duration::from_secs(3600)), ..job("echo", &"1".repeat(1000)) };
        handle.submit(vec![later], Box::new(|_| ()));
    };
    // In the second half of a segment it is waited for the next one.
    let half = OPTIONS.segment_bytes / 2;
    while core.log.room() > half + 2000 {
        push();
        core.turn(None).unwrap();
    }
    assert!(core.log.room() > half && !pulse.stand_in());
    (0..3).for_each(|_| push());
    std::thread::scope(|scope| {
        let turn = scope.spawn(|| core.turn(None).is_ok());
        let until = RealClock.mono() + Duration::from_secs(20);
        while !pulse.stand_in() && RealClock.mono() < until {
            std::thread::yield_now();
        }
        let stood_in = pulse.stand_in();
        drop(open);
        assert!(turn.join().unwrap() && stood_in);
    });
}

#[test]
fn a_rollover_takes_back_what_a_commit_on_its_way_would_hand_out() {
    let dir = tempfile::tempdir().unwrap();
    let disk = RealDisk::open(&dir.path().join("log")).unwrap();
    let (handle, engine) = open_on(Arc::new(disk), dir.path()).unwrap();
    let over = std::sync::atomic::AtomicBool::new(false);
    let pushed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    let jobs: Vec<NewJob> = (0..20).map(|n| job("echo", &n.to_string())).collect();
                    let all = handle.push_many(jobs).into_iter().filter(Result::is_ok).count();
                    pushed.fetch_add(all as u64, Ordering::SeqCst);
                }
            });
        }
        for number in 2..100 {
            let next = Spec::new(dir.path()).with("echo", &format!("v{number}"), echo());
            assert_eq!(reload(&handle, next).verdict, "ok");
        }
        over.store(true, Ordering::SeqCst);
    });
    let all = pushed.load(Ordering::SeqCst);
    // However slow the disk is, something goes on until nothing is left.
    let (mut completed, mut since) = (0, RealClock.mono());
    while completed < all {
        let view = of_type(&handle, "echo");
        if view.completed > completed {
            (completed, since) = (view.completed, RealClock.mono());
        }
        assert!(RealClock.mono() < since + SOON, "of {all} jobs some run nowhere: {view:?}");
    }
    handle.stop_and_wait();
    engine.join().unwrap();
}
