//! One thread of a pool: starts its worker, takes a batch, runs a cycle, reports job by job.

use std::sync::Arc;
use std::time::Duration;

use super::alive::Guard;
use super::overdue::Slot;
use super::{About, Order, Report, Shared, Task, probe};
use crate::config::LiveConfig;
use crate::job::event::{Kind, decode_home};
use crate::job::ids::JobId;
use crate::job::table::OwnedNames;
use crate::log::nearby::NearbyReader;
use crate::log::reader::ReadError;
use crate::recent::Ran;
use crate::sync::channel::{Receiver, RecvTimeoutError, TryRecvError};
use crate::sync::thread::{Builder, JoinHandle};
use crate::types::{UnixMs, millis};
use crate::worker::pulse::{Doing, Pulse};
use crate::worker::{Assignment, Outcome, StartError, Worker};

/// First pause before a worker that could not be started is started again; doubles up to the most.
pub(super) const START_AGAIN_FIRST: Duration = Duration::from_millis(100);
pub(super) const START_AGAIN_MAX: Duration = Duration::from_secs(10);
/// A start may take so much longer than `start_timeout` before its worker is shown as stuck: a process that did not come up
/// is ended in that time.
const START_SLACK: Duration = Duration::from_secs(7);
/// A run may take so much longer than `timeout` and `kill_after` before its worker is shown as stuck.
pub(super) const RUN_SLACK: Duration = Duration::from_secs(2);

/// Starts a thread that takes orders from `queue` until it is told to leave, or nobody can send any more.
pub(super) fn spawn(
    shared: &Arc<Shared>,
    queue: &Receiver<Order>,
    leaving: &Receiver<()>,
) -> std::io::Result<(JoinHandle<()>, Arc<Slot>)> {
    let name: String = format!("{}@{}", shared.worker_type, shared.label).chars().take(15).collect();
    let guard = Guard::new(shared);
    let slot = guard.slot();
    let (queue, leaving) = (queue.clone(), leaving.clone());
    let handle = Builder::new().name(name).spawn(move || {
        let shared = guard.shared();
        let pulse = guard.pulse();
        let mut thread = Thread::new(&shared, &queue, &leaving, &pulse);
        thread.slot = guard.slot();
        thread.run();
        drop(guard);
    })?;
    Ok((handle, slot))
}

pub(super) struct Thread<'a> {
    shared: &'a Shared,
    queue: &'a Receiver<Order>,
    leaving: &'a Receiver<()>,
    reader: NearbyReader,
    pulse: &'a Arc<Pulse>,
    /// What it holds, if nobody can end that.
    slot: Arc<Slot>,
    /// The next one before the worker is started again.
    pause: Duration,
    /// Times in a row that the worker broke before it had done a job.
    broken: u32,
    /// Whether the worker has done a job since it was started.
    has_done: bool,
    /// Whether the worker was let go in good order, and is to be started again.
    recycled: bool,
}

/// Whether a thread goes on.
pub(super) enum Then {
    GoOn,
    Leave,
}

impl<'a> Thread<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        queue: &'a Receiver<Order>,
        leaving: &'a Receiver<()>,
        pulse: &'a Arc<Pulse>,
    ) -> Self {
        let reader = NearbyReader::new(shared.reader.clone());
        let (pause, broken, has_done, recycled) = (START_AGAIN_FIRST, 0, false, false);
        let slot = Arc::default();
        Self { shared, queue, leaving, reader, pulse, slot, pause, broken, has_done, recycled }
    }

    fn run(&mut self) {
        let mut worker = self.shared.factory.make(&self.shared.cutoff);
        worker.watch(self.pulse);
        let mut up = false;
        let mut start_again = true;
        loop {
            if up
                && !worker.is_ready()
                && let Some(why) = self.lost(worker.as_mut())
                && matches!(self.pause(why, std::mem::take(&mut up)), Then::Leave)
            {
                break;
            }
            if start_again || !worker.is_ready() {
                if let Err(error) = self.start(worker.as_mut()) {
                    if matches!(self.pause(error.0, std::mem::take(&mut up)), Then::Leave) {
                        break;
                    }
                    continue;
                }
                start_again = false;
            }
            if let Err(error) = self.probe(worker.as_mut()) {
                if self.slot.is_abandoned() {
                    return;
                }
                if matches!(self.pause(error.0, std::mem::take(&mut up)), Then::Leave) {
                    break;
                }
                continue;
            }
            if !std::mem::replace(&mut up, true) {
                (self.shared.report)(Report::Up);
            }
            let live = self.shared.live.load_full();
            let (tasks, then) = self.take(&live);
            // What was changed while it waited counts.
            let live = self.shared.live.load_full();
            if matches!(then, Then::Leave) {
                self.slot.leaves();
            }
            let not_started = self.cycle(worker.as_mut(), tasks, &live);
            if self.slot.is_abandoned() {
                return;
            }
            if matches!(then, Then::Leave) {
                if let Some(why) = not_started {
                    (self.shared.report)(Report::NotUp { why, was_up: std::mem::take(&mut up) });
                }
                break;
            }
            if let Some(why) = not_started {
                start_again = true;
                if matches!(self.pause(why, std::mem::take(&mut up)), Then::Leave) {
                    break;
                }
            } else if worker.is_ready() {
                (self.pause, self.broken) = (START_AGAIN_FIRST, 0);
            }
            self.recycle(worker.as_mut(), &live);
        }
        if up {
            // Before its end, which may take a while: it takes nothing more.
            (self.shared.report)(Report::Left);
        }
        worker.stop();
    }

    fn start(&mut self, worker: &mut dyn Worker) -> Result<(), StartError> {
        let timeout = self.shared.live.load().start_timeout;
        // To make its process, and for that to come up.
        let within = timeout.saturating_mul(2).saturating_add(START_SLACK);
        self.pulse.does(Doing::Starting, self.shared.clock.mono(), Some(within));
        (self.has_done, self.recycled) = (false, false);
        worker.start(timeout)
    }

    /// Has the worker complete the version's probe, if the pool still has to.
    pub(super) fn probe(&mut self, worker: &mut dyn Worker) -> Result<(), StartError> {
        let shared = self.shared;
        let live = shared.live.load_full();
        let Some(job) = probe::due(shared, &live) else { return Ok(()) };
        let began = shared.clock.mono();
        let within = live.start_timeout.saturating_add(live.kill_after).saturating_add(START_SLACK);
        self.pulse.does(Doing::Starting, began, Some(within));
        if shared.factory.may_hang() {
            self.slot.begins(std::iter::once(probe::LEASE), began, live.start_timeout, live.kill_after);
        }
        let mut answer = None;
        worker.cycle(vec![job], &mut |lease, outcome| {
            if self.slot.answers(lease, shared.clock.mono()) {
                answer = Some(outcome);
            }
        });
        probe::judge(shared, answer).map_err(StartError)
    }

    /// Starts a worker again whose process has grown too old while it waited for these tasks, or has ended: none of them is to be
    /// charged, or given back, for what a start mends.
    fn make_ready(&mut self, worker: &mut dyn Worker, tasks: &[Task], live: &LiveConfig) -> Result<(), StartError> {
        if tasks.is_empty() {
            return Ok(());
        }
        self.recycle(worker, live);
        if worker.is_ready() {
            return Ok(());
        }
        if !self.recycled {
            self.restarts(worker.broke());
        }
        self.start(worker)
    }

    /// Lets a worker go that has reached a bound; the next one is started before the next cycle.
    fn recycle(&mut self, worker: &mut dyn Worker, live: &LiveConfig) {
        if let Some(worn) = worker.recycle(&live.recycle) {
            let Shared { worker_type, label, .. } = self.shared;
            tracing::debug!(%worker_type, version = %label, %worn, "a worker is replaced in good order");
            self.recycled = true;
            self.restarts(Some(worn.to_string()));
        }
    }

    /// Says that a worker which was up is started again at once.
    fn restarts(&self, why: Option<String>) {
        let why = why.unwrap_or_else(|| "it had ended".to_owned());
        (self.shared.report)(Report::Restarts { why });
    }

    /// A worker that was up is not any more, and is to be started again. Returns why it must not be at once, if it must not:
    /// it has broken twice or more, and not done a job before.
    fn lost(&mut self, worker: &mut dyn Worker) -> Option<String> {
        self.broken = if self.recycled || self.has_done { 0 } else { self.broken + 1 };
        if self.recycled {
            return None;
        }
        let why = worker.broke();
        if self.broken > 1 {
            return Some(why.unwrap_or_else(|| "it ends again and again".to_owned()));
        }
        self.restarts(why);
        None
    }

    /// Says that no worker is up, and waits before it is started again.
    fn pause(&mut self, why: String, was_up: bool) -> Then {
        let now = self.pause;
        self.pause = (now * 2).min(START_AGAIN_MAX);
        let at = self.shared.clock.mono();
        self.pulse.does(Doing::BackingOff { why: why.clone(), until: at + now }, at, None);
        (self.shared.report)(Report::NotUp { why, was_up });
        match self.leaving.recv_timeout(now) {
            Err(RecvTimeoutError::Disconnected) => Then::Leave,
            Ok(()) | Err(RecvTimeoutError::Timeout) => Then::GoOn,
        }
    }

    /// Waits for work, and takes up to `batch` tasks, for which it waits no longer than `batch_wait`; none, and `Leave`, when
    /// the thread shall end.
    pub(super) fn take(&self, live: &LiveConfig) -> (Vec<Task>, Then) {
        let next = self.queue.try_recv().or_else(|_| {
            self.pulse.does(Doing::Idle, self.shared.clock.mono(), None);
            self.queue.recv()
        });
        let Ok(Order::Work(first)) = next else { return (Vec::new(), Then::Leave) };
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
    pub(super) fn cycle(&mut self, worker: &mut dyn Worker, mut tasks: Vec<Task>, live: &LiveConfig) -> Option<String> {
        let shared = self.shared;
        let (report, board, worker_no) = (&shared.report, &shared.board, self.pulse.number());
        if let Err(StartError(error)) = self.make_ready(worker, &tasks, live) {
            for Task { lease, .. } in tasks {
                let outcome = Outcome::NotStarted { error: error.clone() };
                report(Report::Outcome { lease, worker: worker_no, outcome, about: None, ran: None });
            }
            return Some(error);
        }
        let mut batch = Vec::with_capacity(tasks.len());
        let now = self.shared.clock.wall_ms();
        tasks.retain(|task| match assignment(self.shared, &mut self.reader, task, live, now) {
            Ok(assignment) => {
                batch.push(assignment);
                true
            }
            Err(outcome) => {
                report(Report::Outcome { lease: task.lease, worker: worker_no, outcome, about: None, ran: None });
                false
            }
        });
        if batch.is_empty() {
            return None;
        }
        let clock = &shared.clock;
        let began = clock.mono();
        // A run begins where the one before it in the batch has ended.
        let mut last = began;
        let within = live.timeout.saturating_add(live.kill_after).saturating_add(RUN_SLACK);
        self.pulse.works(batch.iter().map(|job| job.id.clone()), began, within);
        if shared.factory.may_hang() {
            self.slot.begins(batch.iter().map(|job| job.lease), began, live.timeout, live.kill_after);
        }
        let mut ended = 0;
        let mut not_started = None;
        let mut next = 0;
        worker.cycle(batch, &mut |lease, outcome| {
            let at = clock.mono();
            if !self.slot.answers(lease, at) {
                board.forget(lease);
                return;
            }
            // Most answers come in order.
            let place = match tasks.get(next) {
                Some(task) if task.lease == lease => Some(next),
                _ => tasks.iter().position(|task| task.lease == lease),
            };
            next = place.map_or(next, |place| place + 1);
            let task = place.and_then(|place| tasks.get(place));
            if let Outcome::NotStarted { error } = &outcome {
                not_started = Some(error.clone());
            }
            let ran = outcome.is_own_end().then(|| {
                ended += 1;
                let since = std::mem::replace(&mut last, at);
                if let Some(place) = place {
                    self.pulse.answered(place, at);
                }
                self.has_done |= matches!(outcome, Outcome::Done { .. });
                let waited = task
                    .filter(|task| task.due_ms > 0)
                    .map(|task| Duration::from_millis(now.saturating_sub(task.due_ms)) + since.saturating_sub(began));
                Ran { waited, took: at.saturating_sub(since) }
            });
            board.forget(lease);
            let about = task.filter(|task| tells_about(task, &outcome)).and_then(|task| about(&mut self.reader, task));
            report(Report::Outcome { lease, worker: worker_no, outcome, about, ran });
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
        Outcome::Fail { .. } | Outcome::Dead { .. } | Outcome::Defer { .. } | Outcome::HostDeath { .. } => true,
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
    Some(Box::new(About {
        task: meta.task.to_owned(),
        tenant: meta.tenant.map(str::to_owned),
        names,
        trace: meta.trace,
    }))
}

/// Reads a task's payload, and what else its worker shall know.
pub(super) fn assignment(
    shared: &Shared,
    reader: &mut NearbyReader,
    task: &Task,
    live: &LiveConfig,
    now: UnixMs,
) -> Result<Assignment, Outcome> {
    if shared.board.is_cancelled(task.lease) {
        return Err(Outcome::Interrupted);
    }
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
    let deadline_ms = now.saturating_add(millis(live.timeout));
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
        traceparent: meta.trace,
        created_ms: task.created_ms,
        deadline_ms,
        run: shared.board.run(task.lease, deadline_ms),
        timeout: live.timeout,
        timeout_max: live.timeout_max,
        kill_after: live.kill_after,
    })
}
/// What the record at a task's home is: only a job's first record has its born seq.
fn home_kind(task: &Task) -> Kind {
    if task.home.seq == task.lease.born { Kind::Enqueued } else { Kind::Restated }
}
