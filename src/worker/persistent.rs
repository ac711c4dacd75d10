//! A program as a worker, one process that stays and answers JSON-RPC lines.
//!
//! Owns when the process is begun and ended, and what its end means for the jobs that it holds. What may be said is
//! `rpc`'s. Never starts a process within a cycle: a job is not to wait for that, nor to be charged for it.
//!
//! | what happens | the jobs that are not answered yet |
//! |---|---|
//! | an answer | that job: as the answer says |
//! | the process ends, closes its stdout, or breaks the protocol | Fail, with the reason; the process is replaced |
//! | no answer for as long as `timeout`, counted from the batch, the last answer or the last `extend` | the same |
//! | the cutoff | Interrupted; what is answered between TERM and the end still counts |
//! | the process was gone before it was given anything | NotStarted |
//! | it ended before it was asked for a job of the batch | Interrupted, that job |

use std::sync::Arc;
use std::time::Duration;

use super::child::{Child, Ended, Wake};
use super::launch::{Launch, OutputLimits};
use super::output::error_text;
use super::rpc::{Event, LINE_BYTES_MAX, Session};
use super::spawner::Spawner;
use super::{Assignment, Cutoff, Outcome, StartError, Worker, WorkerFactory};
use crate::clock::{Clock, RealClock};
use crate::types::{Label, Lease, WorkerType};

/// Between TERM and KILL for a process that never had a job, whose `kill_after` would tell.
const KILL_AFTER_IDLE: Duration = Duration::from_secs(5);

/// How long a process that has closed its stdout may take to exit before that itself is the error.
const CLOSED_GRACE: Duration = Duration::from_millis(50);
/// Questions that wait for the process to read them, in bytes: no more are made while there are so many.
const ASKED_AHEAD_BYTES: usize = 64 << 10;

/// Makes workers that keep a process of their own.
#[derive(Debug, Clone)]
pub struct PersistentFactory {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    launch: Launch,
    limits: OutputLimits,
    spawner: Spawner,
    worker_type: WorkerType,
    version: Label,
}

impl PersistentFactory {
    /// Workers that keep a process of `launch` that `spawner` starts, within `limits`; type and version are what its
    /// `hello` is told.
    pub fn new(
        launch: Launch,
        limits: OutputLimits,
        spawner: Spawner,
        worker_type: &WorkerType,
        version: &Label,
    ) -> Self {
        let (worker_type, version) = (worker_type.clone(), version.clone());
        Self { shared: Arc::new(Shared { launch, limits, spawner, worker_type, version }) }
    }
}

impl WorkerFactory for PersistentFactory {
    fn make(&self, cutoff: &Arc<Cutoff>) -> Box<dyn Worker> {
        Box::new(PersistentWorker {
            shared: Arc::clone(&self.shared),
            cutoff: Arc::clone(cutoff),
            running: None,
            kill_after: KILL_AFTER_IDLE,
        })
    }

    fn check(&self) -> Result<(), StartError> {
        self.shared.launch.check()
    }
}

/// One worker and its process.
struct PersistentWorker {
    shared: Arc<Shared>,
    cutoff: Arc<Cutoff>,
    /// Absent before the start, and after the process broke.
    running: Option<Running>,
    /// As the latest job said.
    kill_after: Duration,
}

/// A process and the conversation with it.
struct Running {
    child: Child,
    session: Session,
}

/// Why a conversation does not go on.
enum Stop {
    Cutoff,
    Broken { why: String, killed: bool },
}

impl Running {
    /// The next thing that the program says, by `deadline`; `None` if it only took or gave some bytes.
    fn next(&mut self, deadline: Duration, cutoff: &Cutoff) -> Result<Option<Event>, Stop> {
        let broken = |why: String| Stop::Broken { why, killed: false };
        match self.session.poll(RealClock.wall_ms()) {
            Ok(Some(event)) => return Ok(Some(event)),
            Ok(None) => {}
            Err(violation) => return Err(broken(violation.to_string())),
        }
        if let Some(ended) = self.child.ended() {
            return Err(Stop::Broken { why: ended.to_string(), killed: ended.was_from_outside() });
        }
        let wake = self.child.step(Some(deadline), Some(cutoff));
        self.session.handle_bytes(&self.child.take_stdout());
        match wake {
            // It may be about to exit: how it does says more than that it says nothing more.
            Wake::Progress if self.child.stdout_closed() && !self.wait_for_end(deadline, cutoff) => {
                Err(broken("closed its stdout".into()))
            }
            Wake::Progress | Wake::Exited => Ok(None),
            Wake::Cutoff => Err(Stop::Cutoff),
            Wake::Deadline => Err(broken("did not answer in time".into())),
            Wake::Failed(errno) => Err(broken(format!("cannot be waited for ({errno})"))),
        }
    }

    /// Asks for jobs, as many as shall be on their way at once.
    fn ask(&mut self, waiting: &mut std::slice::Iter<'_, Assignment>, sink: &mut dyn FnMut(Lease, Outcome)) {
        while self.child.unsent() < ASKED_AHEAD_BYTES
            && let Some(job) = waiting.next()
        {
            match self.session.job(job) {
                Ok(line) => self.child.send(&line),
                Err(outcome) => sink(job.lease, outcome),
            }
        }
    }

    /// Waits a moment for a process that has closed its stdout; false if it stays.
    fn wait_for_end(&mut self, deadline: Duration, cutoff: &Cutoff) -> bool {
        let deadline = deadline.min(RealClock.mono() + CLOSED_GRACE);
        loop {
            match self.child.step(Some(deadline), Some(cutoff)) {
                Wake::Progress => {}
                Wake::Exited => return true,
                Wake::Cutoff | Wake::Deadline | Wake::Failed(_) => return false,
            }
        }
    }
}

impl Worker for PersistentWorker {
    fn start(&mut self, timeout: Duration) -> Result<(), StartError> {
        if self.is_ready() {
            return Ok(());
        }
        self.end();
        let Shared { launch, limits, spawner, worker_type, version } = &*self.shared;
        launch.check()?;
        let child =
            Child::spawn(spawner, launch, &[], LINE_BYTES_MAX).map_err(|e| StartError(launch.start_failure(&e)))?;
        let mut running = Running { child, session: Session::new(*limits) };
        let hello = running.session.hello(worker_type.as_str(), version.as_str());
        running.child.send(&hello);
        let deadline = RealClock.mono().saturating_add(timeout);
        let why = loop {
            match running.next(deadline, &self.cutoff) {
                Ok(Some(Event::Hello)) => {
                    self.running = Some(running);
                    return Ok(());
                }
                Ok(event) => self.note(event),
                Err(Stop::Cutoff) => break "was cut off while it started".to_owned(),
                Err(Stop::Broken { why, .. }) => {
                    break format!("{why} before it said hello (`start_timeout` {timeout:?})");
                }
            }
        };
        running.child.terminate(self.kill_after);
        Err(StartError(error_text(&format!("{} {why}", launch.name), &running.child.stderr_text())))
    }

    fn cycle(&mut self, batch: Vec<Assignment>, sink: &mut dyn FnMut(Lease, Outcome)) {
        let name = &self.shared.launch.name;
        let refuse = match &self.running {
            _ if self.cutoff.is_set() => Some(Outcome::Interrupted),
            None => Some(Outcome::NotStarted { error: format!("{name}: the worker is not started") }),
            Some(running) if running.child.is_gone() => {
                Some(Outcome::NotStarted { error: format!("{name} ended between two cycles") })
            }
            Some(_) => None,
        };
        match (refuse, self.running.take()) {
            (None, Some(running)) => self.talk(running, &batch, sink),
            (refuse, running) => {
                self.running = running;
                let outcome = refuse.unwrap_or(Outcome::Interrupted);
                batch.iter().for_each(|job| sink(job.lease, outcome.clone()));
            }
        }
    }

    fn is_ready(&self) -> bool {
        self.running.as_ref().is_some_and(|running| !running.child.is_gone())
    }

    fn stop(&mut self) {
        self.end();
    }
}

impl PersistentWorker {
    /// A cycle with a process that is there. Keeps it if it can take another one.
    fn talk(&mut self, mut running: Running, batch: &[Assignment], sink: &mut dyn FnMut(Lease, Outcome)) {
        let timeout = batch.iter().map(|job| job.timeout).max().unwrap_or_default();
        self.kill_after = batch.iter().map(|job| job.kill_after).max().unwrap_or(KILL_AFTER_IDLE);
        let mut waiting = batch.iter();
        match self.listen(&mut running, &mut waiting, timeout, sink) {
            Ok(()) => self.running = Some(running),
            Err(stop) => {
                self.give_up(running, stop, sink);
                // What it was never asked for it has not failed at.
                waiting.for_each(|job| sink(job.lease, Outcome::Interrupted));
            }
        }
    }

    /// Asks for all jobs, hears all answers, and then that the cycle's state is dropped. Leaves in `waiting` what was
    /// not asked for.
    fn listen(
        &self,
        running: &mut Running,
        waiting: &mut std::slice::Iter<'_, Assignment>,
        timeout: Duration,
        sink: &mut dyn FnMut(Lease, Outcome),
    ) -> Result<(), Stop> {
        let mut deadline = RealClock.mono().saturating_add(timeout);
        loop {
            running.ask(waiting, sink);
            if running.session.open_jobs().next().is_none() && waiting.as_slice().is_empty() {
                break;
            }
            match running.next(deadline, &self.cutoff)? {
                Some(Event::Answer(lease, outcome)) => {
                    sink(lease, outcome);
                    deadline = RealClock.mono().saturating_add(timeout);
                }
                Some(Event::Extended) => deadline = RealClock.mono().saturating_add(timeout),
                event => self.note(event),
            }
        }
        let wipe = running.session.wipe();
        running.child.send(&wipe);
        loop {
            match running.next(deadline, &self.cutoff)? {
                Some(Event::Wiped) => return Ok(()),
                event => self.note(event),
            }
        }
    }

    /// Ends a process that cannot go on, and answers for what it was asked.
    fn give_up(&self, mut running: Running, stop: Stop, sink: &mut dyn FnMut(Lease, Outcome)) {
        let Running { child, session } = &mut running;
        child.terminate(self.kill_after);
        let outcome = match stop {
            Stop::Cutoff => {
                if !child.overflowed() {
                    session.handle_bytes(&child.take_stdout());
                }
                while let Ok(Some(event)) = session.poll(RealClock.wall_ms()) {
                    if let Event::Answer(lease, outcome) = event {
                        sink(lease, outcome);
                    }
                }
                Outcome::Interrupted
            }
            Stop::Broken { why, killed } => {
                let error = error_text(&format!("{} {why}", self.shared.launch.name), &child.stderr_text());
                tracing::warn!(worker_type = %self.shared.worker_type, %error, "a worker's process is replaced");
                Outcome::Fail { error, killed }
            }
        };
        session.open_jobs().for_each(|lease| sink(lease, outcome.clone()));
    }

    /// Ends the process in good order, if there is one: stdin closed, then TERM, then KILL.
    fn end(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        running.child.close_stdin();
        let until = RealClock.mono().saturating_add(self.kill_after);
        while running.child.step(Some(until), Some(&self.cutoff)) == Wake::Progress {
            drop(running.child.take_stdout());
        }
        running.child.terminate(self.kill_after);
        if !matches!(running.child.ended(), Some(Ended::Exited(0))) {
            let ended = running.child.ended().unwrap_or(Ended::Unknown);
            tracing::debug!(worker_type = %self.shared.worker_type, %ended, "a worker's process left in bad order");
        }
    }

    /// Passes on what a program says besides its answers.
    fn note(&self, event: Option<Event>) {
        if let Some(Event::Log(text)) = event {
            tracing::info!(worker_type = %self.shared.worker_type, version = %self.shared.version, "{text}");
        }
    }
}

#[cfg(test)]
mod tests;
