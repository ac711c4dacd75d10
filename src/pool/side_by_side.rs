//! A pool of one thread, on which jobs run side by side: for workers that only wait for others.
//!
//! Owns the thread, its tokio runtime, and which jobs are in flight on it: as many as the pool is large. As the pools of
//! threads: takes what it is handed, reports what became of it, decides nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam_queue::SegQueue;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

use super::alive::Guard;
use super::thread::{RUN_SLACK, START_AGAIN_FIRST, START_AGAIN_MAX, about, assignment, tells_about};
use super::{Figures, Pool, Report, Shared, Task, probe};
use crate::config::LiveConfig;
use crate::log::nearby::NearbyReader;
use crate::recent::Ran;
use crate::worker::pulse::{Doing, Pulse, Seen};
use crate::worker::run::Board;
use crate::worker::{Outcome, SideBySide, http};

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
        let guard = Guard::new(&self.shared);
        let (worker, line) = (Arc::clone(&self.worker), Arc::clone(&self.line));
        Builder::new().name(name).spawn(move || {
            let shared = guard.shared();
            let reader = NearbyReader::new(shared.reader.clone());
            let (running, held, pulse) = (JoinSet::new(), HashMap::new(), guard.pulse());
            let mut thread = Thread { shared: &shared, line: &line, worker, reader, running, held, pulse };
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

/// A job that runs.
struct Held {
    task: Task,
    began: Duration,
    waited: Option<Duration>,
    /// Its place on the pulse.
    place: usize,
    /// Drops it.
    abort: AbortHandle,
}

struct Thread<'a> {
    shared: &'a Shared,
    line: &'a Line,
    worker: Arc<dyn SideBySide>,
    reader: NearbyReader,
    running: JoinSet<Outcome>,
    /// What runs, by the ids of `running`.
    held: HashMap<Id, Held>,
    pulse: Arc<Pulse>,
}

impl Thread<'_> {
    async fn run(&mut self) {
        if !self.gate().await {
            return;
        }
        self.pulse.does(Doing::Idle, self.shared.clock.mono(), None);
        (self.shared.report)(Report::Up);
        let mut cutoff = std::pin::pin!(self.shared.cutoff.wait());
        let mut is_cut_off = false;
        loop {
            // Acquire: what was handed before the end is seen with it.
            let closed = self.line.closed.load(Ordering::Acquire);
            self.begin(is_cut_off);
            if closed && self.running.is_empty() && self.line.tasks.is_empty() {
                return;
            }
            tokio::select! {
                () = &mut cutoff, if !is_cut_off => {
                    is_cut_off = true;
                    self.running.abort_all();
                }
                Some(ended) = self.running.join_next_with_id() => {
                    self.ended(ended);
                    while let Some(ended) = self.running.try_join_next_with_id() {
                        self.ended(ended);
                    }
                }
                () = self.line.changed.notified() => {}
                () = self.shared.board.changed() => self.drop_cancelled(),
            }
        }
    }

    /// Has the service complete the version's probe, again and again until it does; false: nobody waits for that any more.
    async fn gate(&self) -> bool {
        let mut pause = START_AGAIN_FIRST;
        loop {
            let live = self.shared.live.load_full();
            let Some(job) = probe::due(self.shared, &live) else { return true };
            let within = live.start_timeout.saturating_add(RUN_SLACK);
            self.pulse.does(Doing::Starting, self.shared.clock.mono(), Some(within));
            let answer = tokio::select! {
                answer = self.worker.run(&job, live.request) => answer,
                () = self.closed() => return false,
            };
            let Err(why) = probe::judge(self.shared, Some(answer)) else { return true };
            let at = self.shared.clock.mono();
            self.pulse.does(Doing::BackingOff { why: why.clone(), until: at + pause }, at, None);
            (self.shared.report)(Report::NotUp { why, was_up: false });
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.closed() => return false,
            }
            pause = (pause * 2).min(START_AGAIN_MAX);
        }
    }

    /// Waits until nothing more will come, or what runs shall end.
    async fn closed(&self) {
        let mut cutoff = std::pin::pin!(self.shared.cutoff.wait());
        while !self.line.closed.load(Ordering::Acquire) {
            tokio::select! {
                () = &mut cutoff => return,
                () = self.line.changed.notified() => {}
            }
        }
    }

    /// Begins as many jobs as there is room for.
    fn begin(&mut self, is_cut_off: bool) {
        let size = self.line.size.load(Ordering::Acquire) as usize;
        let live = self.shared.live.load_full();
        while self.running.len() < size {
            let Some(task) = self.line.tasks.pop() else { return };
            let now = self.shared.clock.wall_ms();
            let read = if is_cut_off {
                Err(Outcome::Interrupted)
            } else {
                assignment(self.shared, &mut self.reader, &task, &live, now)
            };
            let job = match read {
                Ok(job) => job,
                Err(outcome) => {
                    (self.shared.report)(Report::Outcome { lease: task.lease, outcome, about: None, ran: None });
                    continue;
                }
            };
            let (worker, timeouts) = (Arc::clone(&self.worker), live.request);
            let began = self.shared.clock.mono();
            let place = self.pulse.takes(job.id.clone(), began, live.timeout.saturating_add(RUN_SLACK));
            let running = self.running.spawn(async move { worker.run(&job, timeouts).await });
            let waited = (task.due_ms > 0).then(|| Duration::from_millis(now.saturating_sub(task.due_ms)));
            self.held.insert(running.id(), Held { task, began, waited, place, abort: running });
        }
    }

    /// Drops what was cancelled; it ends as interrupted, and nobody waits for that.
    fn drop_cancelled(&self) {
        let cancelled = |held: &&Held| self.shared.board.is_cancelled(held.task.lease);
        self.held.values().filter(cancelled).for_each(|held| held.abort.abort());
    }

    fn ended(&mut self, ended: Result<(Id, Outcome), JoinError>) {
        let (id, outcome) = ended.unwrap_or_else(|error| {
            let panicked = || Outcome::Fail { error: "the worker panicked".to_owned(), killed: false };
            (error.id(), if error.is_panic() { panicked() } else { Outcome::Interrupted })
        });
        let Some(Held { task, began, waited, place, .. }) = self.held.remove(&id) else { return };
        let now = self.shared.clock.mono();
        self.pulse.gives_back(place, now);
        let ran = outcome.is_own_end().then(|| {
            let took = now.saturating_sub(began);
            self.shared.counts.add(1, took);
            Ran { waited, took }
        });
        let about = if tells_about(&task, &outcome) { about(&mut self.reader, &task) } else { None };
        self.shared.board.forget(task.lease);
        (self.shared.report)(Report::Outcome { lease: task.lease, outcome, about, ran });
    }
}
