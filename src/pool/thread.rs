//! One thread of a pool: starts its worker, takes a batch, runs a cycle, reports job by job.

use std::sync::Arc;
use std::time::Duration;

use super::alive::Guard;
use super::{About, Order, Report, Shared, Task};
use crate::config::LiveConfig;
use crate::job::event::{Kind, decode_home};
use crate::job::ids::JobId;
use crate::job::table::OwnedNames;
use crate::log::nearby::NearbyReader;
use crate::log::reader::ReadError;
use crate::recent::Ran;
use crate::sync::channel::{Receiver, RecvTimeoutError, TryRecvError};
use crate::sync::thread::{Builder, JoinHandle};
use crate::types::UnixMs;
use crate::worker::{Assignment, Outcome, StartError, Worker};

/// First pause before a worker that could not be started is started again; doubles up to the most.
const START_AGAIN_FIRST: Duration = Duration::from_millis(100);
const START_AGAIN_MAX: Duration = Duration::from_secs(10);

/// Starts a thread that takes orders from `queue` until it is told to leave, or nobody can send any more.
pub(super) fn spawn(
    shared: &Arc<Shared>,
    queue: &Receiver<Order>,
    leaving: &Receiver<()>,
) -> std::io::Result<JoinHandle<()>> {
    let name: String = format!("{}@{}", shared.worker_type, shared.label).chars().take(15).collect();
    let guard = Guard::new(shared);
    let (queue, leaving) = (queue.clone(), leaving.clone());
    Builder::new().name(name).spawn(move || {
        let shared = guard.shared();
        let reader = NearbyReader::new(shared.reader.clone());
        let mut thread = Thread { shared: &shared, queue: &queue, leaving: &leaving, reader };
        thread.run();
        drop(guard);
    })
}

pub(super) struct Thread<'a> {
    pub(super) shared: &'a Shared,
    pub(super) queue: &'a Receiver<Order>,
    pub(super) leaving: &'a Receiver<()>,
    pub(super) reader: NearbyReader,
}

/// Whether a thread goes on.
pub(super) enum Then {
    GoOn,
    Leave,
}

impl Thread<'_> {
    fn run(&mut self) {
        let mut worker = self.shared.factory.make(&self.shared.cutoff);
        let mut pause = START_AGAIN_FIRST;
        let mut up = false;
        let mut start_again = true;
        loop {
            if start_again || !worker.is_ready() {
                let timeout = self.shared.live.load().start_timeout;
                if let Err(error) = worker.start(timeout) {
                    (self.shared.report)(Report::NotUp { why: error.0, was_up: std::mem::take(&mut up) });
                    if matches!(self.pause(&mut pause), Then::Leave) {
                        break;
                    }
                    continue;
                }
                start_again = false;
            }
            if !std::mem::replace(&mut up, true) {
                (self.shared.report)(Report::Up);
            }
            let live = self.shared.live.load_full();
            let (tasks, then) = self.take(&live);
            // What was changed while it waited counts.
            let live = self.shared.live.load_full();
            if let Some(why) = self.cycle(worker.as_mut(), tasks, &live) {
                (self.shared.report)(Report::NotUp { why, was_up: std::mem::take(&mut up) });
                start_again = true;
                if matches!(then, Then::Leave) || matches!(self.pause(&mut pause), Then::Leave) {
                    break;
                }
            } else {
                pause = START_AGAIN_FIRST;
            }
            if matches!(then, Then::Leave) {
                break;
            }
            self.recycle(worker.as_mut(), &live);
        }
        if up {
            // Before its end, which may take a while: it takes nothing more.
            (self.shared.report)(Report::Left);
        }
        worker.stop();
    }

    /// Starts a worker again whose process has grown too old while it waited for these tasks, or has ended: none of them is to be
    /// charged, or given back, for what a start mends.
    fn make_ready(&self, worker: &mut dyn Worker, tasks: &[Task], live: &LiveConfig) -> Result<(), StartError> {
        if tasks.is_empty() {
            return Ok(());
        }
        self.recycle(worker, live);
        if worker.is_ready() { Ok(()) } else { worker.start(live.start_timeout) }
    }

    /// Lets a worker go that has reached a bound; the next one is started before the next cycle.
    fn recycle(&self, worker: &mut dyn Worker, live: &LiveConfig) {
        if let Some(worn) = worker.recycle(&live.recycle) {
            let Shared { worker_type, label, .. } = self.shared;
            tracing::debug!(%worker_type, version = %label, %worn, "a worker is replaced in good order");
        }
    }

    /// Waits before the worker is started again.
    fn pause(&self, pause: &mut Duration) -> Then {
        let now = *pause;
        *pause = (now * 2).min(START_AGAIN_MAX);
        match self.leaving.recv_timeout(now) {
            Err(RecvTimeoutError::Disconnected) => Then::Leave,
            Ok(()) | Err(RecvTimeoutError::Timeout) => Then::GoOn,
        }
    }

    /// Waits for work, and takes up to `batch` tasks, for which it waits no longer than `batch_wait`; none, and `Leave`, when
    /// the thread shall end.
    pub(super) fn take(&self, live: &LiveConfig) -> (Vec<Task>, Then) {
        let Ok(Order::Work(first)) = self.queue.recv() else { return (Vec::new(), Then::Leave) };
        let mut tasks = vec![first];
        let until = (!live.batch_wait.is_zero()).then(|| self.shared.clock.mono() + live.batch_wait);
        while tasks.len() < live.batch as usize {
            let next = match (self.queue.try_recv(), until) {
                (Err(TryRecvError::Empty), Some(until)) => {
                    self.queue.recv_timeout(until.saturating_sub(self.shared.clock.mono())).ok()
                }
                (next, _) => next.ok(),
            };
            match next {
                Some(Order::Work(task)) => tasks.push(task),
                Some(Order::Leave) => return (tasks, Then::Leave),
                None => break,
            }
        }
        (tasks, Then::GoOn)
    }

    /// Runs a batch. Returns why no worker could be started for some of it, if that was so.
    pub(super) fn cycle(&mut self, worker: &mut dyn Worker, tasks: Vec<Task>, live: &LiveConfig) -> Option<String> {
        let report = &self.shared.report;
        if let Err(StartError(error)) = self.make_ready(worker, &tasks, live) {
            for Task { lease, .. } in tasks {
                let outcome = Outcome::NotStarted { error: error.clone() };
                report(Report::Outcome { lease, outcome, about: None, ran: None });
            }
            return Some(error);
        }
        let mut batch = Vec::with_capacity(tasks.len());
        let now = self.shared.clock.wall_ms();
        for task in &tasks {
            match assignment(self.shared, &mut self.reader, task, live, now) {
                Ok(assignment) => batch.push(assignment),
                Err(outcome) => report(Report::Outcome { lease: task.lease, outcome, about: None, ran: None }),
            }
        }
        if batch.is_empty() {
            return None;
        }
        let clock = &self.shared.clock;
        let began = clock.mono();
        // A run begins where the one before it in the batch has ended.
        let mut last = began;
        let mut ended = 0;
        let mut not_started = None;
        let mut next = 0;
        worker.cycle(batch, &mut |lease, outcome| {
            // Most answers come in order.
            let at = match tasks.get(next) {
                Some(task) if task.lease == lease => Some(next),
                _ => tasks.iter().position(|task| task.lease == lease),
            };
            next = at.map_or(next, |at| at + 1);
            let task = at.and_then(|at| tasks.get(at));
            if let Outcome::NotStarted { error } = &outcome {
                not_started = Some(error.clone());
            }
            let ran = outcome.is_own_end().then(|| {
                ended += 1;
                let (since, at) = (last, clock.mono());
                last = at;
                let waited = task
                    .filter(|task| task.due_ms > 0)
                    .map(|task| Duration::from_millis(now.saturating_sub(task.due_ms)) + since.saturating_sub(began));
                Ran { waited, took: at.saturating_sub(since) }
            });
            let about = task.filter(|task| tells_about(task, &outcome)).and_then(|task| about(&mut self.reader, task));
            report(Report::Outcome { lease, outcome, about, ran });
        });
        if ended > 0 && live.concurrency.is_scaled() {
            self.shared.counts.add(ended, clock.mono().saturating_sub(began));
        }
        not_started
    }
}

/// Whether the engine has to know what a job said of itself.
pub(super) fn tells_about(task: &Task, outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Fail { .. } | Outcome::Dead { .. } | Outcome::Defer { .. } => true,
        Outcome::Cancel { .. } => task.named,
        Outcome::Done { enqueue, .. } => !enqueue.is_empty() || task.named,
        Outcome::Interrupted | Outcome::NotStarted { .. } => false,
    }
}

/// What a job said of itself; read once more, since few need it.
pub(super) fn about(reader: &mut NearbyReader, task: &Task) -> Option<Box<About>> {
    let body = reader.read(task.home.position(), task.home.seq).ok()?;
    let (meta, _) = decode_home(home_kind(task) as u8, &body).ok()?;
    let names = meta.names.as_ref().map(OwnedNames::from);
    Some(Box::new(About { task: meta.task.to_owned(), tenant: meta.tenant.map(str::to_owned), names }))
}

/// Reads a task's payload, and what else its worker shall know.
pub(super) fn assignment(
    shared: &Shared,
    reader: &mut NearbyReader,
    task: &Task,
    live: &LiveConfig,
    now: UnixMs,
) -> Result<Assignment, Outcome> {
    let body = match reader.read(task.home.position(), task.home.seq) {
        Ok(body) => body,
        // The job was restated meanwhile: its next run finds it at its new place.
        Err(ReadError::Gone { .. }) => return Err(Outcome::Interrupted),
        // It may be read a moment later: nothing is guessed, and nothing given up.
        Err(error @ ReadError::Io { .. }) => return Err(Outcome::Defer { error: error.to_string(), after: None }),
        Err(error @ ReadError::Damaged { .. }) => {
            return Err(Outcome::Dead { error: format!("damaged: {error}") });
        }
    };
    let (meta, payload) = decode_home(home_kind(task) as u8, &body)
        .map_err(|error| Outcome::Dead { error: format!("damaged: {error}") })?;
    let chosen = meta.names.as_ref().and_then(|names| names.id);
    let timeout_ms = u64::try_from(live.timeout.as_millis()).unwrap_or(u64::MAX);
    Ok(Assignment {
        lease: task.lease,
        id: chosen.map_or_else(|| shared.ids.make_inline(task.lease.born, task.created_ms), JobId::from),
        worker_type: Arc::clone(&shared.worker_type),
        version: Arc::clone(&shared.label),
        task: meta.task.to_owned(),
        payload: body.slice_ref(payload),
        attempt: task.attempt,
        max_attempts: task.max_attempts,
        tenant: meta.tenant.map(str::to_owned),
        created_ms: task.created_ms,
        deadline_ms: now.saturating_add(timeout_ms),
        timeout: live.timeout,
        kill_after: live.kill_after,
    })
}

/// What the record at a task's home is: only a job's first record has its born seq.
fn home_kind(task: &Task) -> Kind {
    if task.home.seq == task.lease.born { Kind::Enqueued } else { Kind::Restated }
}
