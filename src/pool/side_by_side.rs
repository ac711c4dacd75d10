//! A pool of one thread, on which jobs run side by side: for workers that only wait for others.
//!
//! Owns the thread, its tokio runtime, and the lanes on it: as many as the pool is large, and no more than there is work
//! for. As the pools of threads: takes what it is handed, reports what became of it, decides nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam_queue::SegQueue;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

use super::alive::Guard;
use super::thread::{RUN_SLACK, START_AGAIN_FIRST, START_AGAIN_MAX, about, assignment, tells_about};
use super::{Figures, Pool, Report, Shared, Task, probe};
use crate::config::{LiveConfig, RequestTimeouts};
use crate::log::nearby::NearbyReader;
use crate::recent::Ran;
use crate::types::Lease;
use crate::worker::pulse::{Doing, Pulse, Seen};
use crate::worker::run::Board;
use crate::worker::{Assignment, Jobs, Outcome, SideBySide, http};

/// What the engine and the thread share.
#[derive(Default)]
struct Line {
    tasks: SegQueue<Task>,
    /// Jobs that may be in flight. Written by the engine, read by the thread: a `changed` follows, which orders them.
    size: AtomicU32,
    /// Whether nothing more will come. As `size`.
    closed: AtomicBool,
    /// Wakes the thread.
    changed: Notify,
}

/// The jobs of one version, side by side.
pub(super) struct SideBySidePool {
    shared: Arc<Shared>,
    worker: Arc<dyn SideBySide>,
    line: Arc<Line>,
    /// Once it has been given a size.
    thread: Option<JoinHandle<()>>,
}

impl SideBySidePool {
    pub(super) fn new(shared: Shared, worker: Arc<dyn SideBySide>) -> Self {
        Self { shared: Arc::new(shared), worker, line: Arc::new(Line::default()), thread: None }
    }

    fn start(&self) -> std::io::Result<JoinHandle<()>> {
        let name = format!("{}@{}", self.shared.worker_type, self.shared.label).chars().take(15).collect();
        let runtime = http::runtime()?;
        let guard = Guard::of_lanes(&self.shared);
        let (worker, line) = (Arc::clone(&self.worker), Arc::clone(&self.line));
        Builder::new().name(name).spawn(move || {
            let common = Common::new(guard.shared(), line, guard.pulse());
            let mut thread = Thread { common: Arc::new(common), worker, lanes: JoinSet::new(), seats: HashMap::new() };
            runtime.block_on(thread.run());
            drop(thread);
            // A name that is being looked up must not hold the end.
            runtime.shutdown_background();
            drop(guard);
        })
    }
}

impl Pool for SideBySidePool {
    fn size(&self) -> u32 {
        self.line.size.load(Ordering::Relaxed)
    }

    fn figures(&self) -> Figures {
        self.shared.counts.figures()
    }

    fn workers(&self, at: Duration, most: usize) -> Vec<Seen> {
        self.shared.workers(at, most)
    }

    fn resize(&mut self, size: u32) -> std::io::Result<()> {
        if self.thread.is_none() {
            self.thread = Some(self.start()?);
        }
        self.line.size.store(size, Ordering::Release);
        self.line.changed.notify_one();
        Ok(())
    }

    fn set_live(&self, live: LiveConfig) {
        self.shared.live.store(Arc::new(live));
    }

    fn hand(&self, task: Task) {
        self.line.tasks.push(task);
        self.line.changed.notify_one();
    }

    fn take_back(&self) -> Vec<Task> {
        std::iter::from_fn(|| self.line.tasks.pop()).collect()
    }

    fn drain(&mut self) -> Vec<Task> {
        let tasks = self.take_back();
        self.line.closed.store(true, Ordering::Release);
        self.line.changed.notify_one();
        self.shared.close();
        tasks
    }

    fn cut_off(&self) {
        self.shared.cutoff.set();
    }

    fn board(&self) -> &Arc<Board> {
        &self.shared.board
    }

    fn join(self: Box<Self>) {
        if let Some(thread) = self.thread {
            // A thread that panicked has reported its end by its guard; there is nothing to add.
            drop(thread.join());
        }
    }
}

struct Thread {
    common: Arc<Common>,
    worker: Arc<dyn SideBySide>,
    lanes: JoinSet<()>,
    /// What each lane holds, by the ids of `lanes`, and what drops it.
    seats: HashMap<Id, (Arc<Seat>, AbortHandle)>,
}

impl Thread {
    async fn run(&mut self) {
        if !self.gate().await {
            return;
        }
        let common = Arc::clone(&self.common);
        let (shared, line) = (&common.shared, &common.line);
        common.pulse.does(Doing::Idle, shared.clock.mono(), None);
        (shared.report)(Report::Up);
        let mut cutoff = std::pin::pin!(shared.cutoff.wait());
        let mut is_cut_off = false;
        loop {
            // Acquire: what was handed before the end is seen with it.
            let closed = line.closed.load(Ordering::Acquire);
            self.begin(is_cut_off);
            if closed && self.lanes.is_empty() && line.tasks.is_empty() {
                return;
            }
            tokio::select! {
                () = &mut cutoff, if !is_cut_off => {
                    is_cut_off = true;
                    self.lanes.abort_all();
                }
                Some(ended) = self.lanes.join_next_with_id() => {
                    self.left(&ended);
                    while let Some(ended) = self.lanes.try_join_next_with_id() {
                        self.left(&ended);
                    }
                }
                () = line.changed.notified() => {}
                () = shared.board.changed() => self.drop_cancelled(),
            }
        }
    }

    /// Has the service complete the version's probe, again and again until it does; false: nobody waits for that any more.
    async fn gate(&self) -> bool {
        let Common { shared, pulse, .. } = &*self.common;
        let mut pause = START_AGAIN_FIRST;
        loop {
            let live = shared.live.load_full();
            let Some(job) = probe::due(shared, &live) else { return true };
            let within = live.start_timeout.saturating_add(RUN_SLACK);
            pulse.does(Doing::Starting, shared.clock.mono(), Some(within));
            let answer = tokio::select! {
                answer = self.worker.run(&job, live.request) => answer,
                () = self.closed() => return false,
            };
            let Err(why) = probe::judge(shared, Some(answer)) else { return true };
            let at = shared.clock.mono();
            pulse.does(Doing::BackingOff { why: why.clone(), until: at + pause }, at, None);
            (shared.report)(Report::NotUp { why, was_up: false });
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.closed() => return false,
            }
            pause = (pause * 2).min(START_AGAIN_MAX);
        }
    }

    /// Waits until nothing more will come, or what runs shall end.
    async fn closed(&self) {
        let Common { shared, line, .. } = &*self.common;
        let mut cutoff = std::pin::pin!(shared.cutoff.wait());
        while !line.closed.load(Ordering::Acquire) {
            tokio::select! {
                () = &mut cutoff => return,
                () = line.changed.notified() => {}
            }
        }
    }

    /// Opens lanes for what waits, as many as there is room for.
    fn begin(&mut self, is_cut_off: bool) {
        let Common { shared, line, .. } = &*self.common;
        if is_cut_off {
            for task in std::iter::from_fn(|| line.tasks.pop()) {
                let outcome = Outcome::Interrupted;
                (shared.report)(Report::Outcome { lease: task.lease, worker: 0, outcome, about: None, ran: None });
            }
            return;
        }
        let room = self.common.size().saturating_sub(self.lanes.len());
        for _ in 0..room.min(line.tasks.len()) {
            let lane = Lane::open(&self.common);
            let (seat, worker) = (Arc::clone(&lane.seat), Arc::clone(&self.worker));
            let abort = self.lanes.spawn(async move { worker.run_all(Box::new(lane)).await });
            self.seats.insert(abort.id(), (seat, abort));
        }
    }

    /// A lane has ended: it found nothing more to do, or was dropped, or its worker panicked; it has said so itself of its job.
    fn left(&mut self, ended: &Result<(Id, ()), JoinError>) {
        let id = match ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        self.seats.remove(&id);
    }

    /// Drops what was cancelled, with its lane; it ends as interrupted, and nobody waits for that.
    fn drop_cancelled(&self) {
        let board = &self.common.shared.board;
        for (seat, lane) in self.seats.values() {
            if seat.holds().is_some_and(|lease| board.is_cancelled(lease)) {
                lane.abort();
            }
        }
    }
}

/// What the thread's lanes share. All of it is of one thread: no lock here is ever waited for.
struct Common {
    shared: Arc<Shared>,
    line: Arc<Line>,
    pulse: Arc<Pulse>,
    reader: Mutex<NearbyReader>,
    /// Lanes that there are; a number alone: relaxed.
    lanes: AtomicUsize,
}

impl Common {
    fn new(shared: Arc<Shared>, line: Arc<Line>, pulse: Arc<Pulse>) -> Self {
        let reader = Mutex::new(NearbyReader::new(shared.reader.clone()));
        Self { shared, line, pulse, reader, lanes: AtomicUsize::new(0) }
    }

    fn size(&self) -> usize {
        self.line.size.load(Ordering::Acquire) as usize
    }

    fn reader(&self) -> MutexGuard<'_, NearbyReader> {
        // A reader that panicked has at worst no block.
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a lane holds, for who looks.
#[derive(Default)]
struct Seat(Mutex<Option<Lease>>);

impl Seat {
    fn holds(&self) -> Option<Lease> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn takes(&self, lease: Option<Lease>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = lease;
    }
}

/// A job that runs.
struct Held {
    task: Task,
    began: Duration,
    waited: Option<Duration>,
    /// Its place on the pulse.
    place: usize,
}

/// Jobs one after the other: until nothing more waits, or the pool has become smaller, or is cut off.
struct Lane {
    common: Arc<Common>,
    seat: Arc<Seat>,
    held: Option<Held>,
}

impl Lane {
    fn open(common: &Arc<Common>) -> Self {
        common.lanes.fetch_add(1, Ordering::Relaxed);
        Self { common: Arc::clone(common), seat: Arc::default(), held: None }
    }

    /// Takes a task, or reports why it is not begun.
    fn take(&mut self, task: Task, live: &LiveConfig) -> Option<Assignment> {
        let shared = &self.common.shared;
        let now = shared.clock.wall_ms();
        let job = match assignment(shared, &mut self.common.reader(), &task, live, now) {
            Ok(job) => job,
            Err(outcome) => {
                (shared.report)(Report::Outcome { lease: task.lease, worker: 0, outcome, about: None, ran: None });
                return None;
            }
        };
        let began = shared.clock.mono();
        let place = self.common.pulse.takes(job.id.clone(), began, live.timeout.saturating_add(RUN_SLACK));
        let waited = (task.due_ms > 0).then(|| Duration::from_millis(now.saturating_sub(task.due_ms)));
        self.seat.takes(Some(task.lease));
        self.held = Some(Held { task, began, waited, place });
        Some(job)
    }
}

impl Jobs for Lane {
    fn next(&mut self) -> Option<(Assignment, RequestTimeouts)> {
        let common = Arc::clone(&self.common);
        let live = common.shared.live.load();
        while !common.shared.cutoff.is_set() && common.lanes.load(Ordering::Relaxed) <= common.size() {
            let task = common.line.tasks.pop()?;
            if let Some(job) = self.take(task, &live) {
                return Some((job, live.request));
            }
        }
        None
    }

    fn ended(&mut self, outcome: Outcome) {
        let Some(Held { task, began, waited, place }) = self.held.take() else { return };
        self.seat.takes(None);
        let Common { shared, pulse, .. } = &*self.common;
        let now = shared.clock.mono();
        pulse.gives_back(place, now);
        let ran = outcome.is_own_end().then(|| {
            let took = now.saturating_sub(began);
            shared.counts.add(1, took);
            Ran { waited, took }
        });
        let about = if tells_about(&task, &outcome) { about(&mut self.common.reader(), &task) } else { None };
        shared.board.forget(task.lease);
        (shared.report)(Report::Outcome { lease: task.lease, worker: 0, outcome, about, ran });
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.ended(if std::thread::panicking() {
            Outcome::Fail { error: "the worker panicked".to_owned(), killed: false }
        } else {
            Outcome::Interrupted
        });
        self.common.lanes.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
