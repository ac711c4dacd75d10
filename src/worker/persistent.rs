//! A program as a worker, one process that stays and answers JSON-RPC lines.
//!
//! Owns when the process is begun and ended, and what its end means for the jobs that it holds. What may be said is
//! `rpc`'s. Never starts a process within a cycle: a job is not to wait for that, nor to be charged for it.
//!
//! | what happens | the jobs that are not answered yet |
//! |---|---|
//! | an answer | that job: as the answer says |
//! | the process ends, closes its stdin or stdout, or breaks the protocol | Fail, with the reason; the process is replaced |
//! | no answer for as long as `timeout`, counted from the batch or the last answer, or for as long as an `extend` has said, up to `timeout_max` | the same |
//! | the helper that has started it ends | HostDeath; the process is replaced |
//! | the cutoff | Interrupted; what is answered between TERM and the end still counts |
//! | a job is cancelled, and not answered within `kill_after` of being told so | the same; the process is replaced |
//! | the process was gone, or had closed its stdin, before it was given anything | NotStarted |
//! | it ended before it was asked for a job of the batch | Interrupted, that job |

mod running;

use std::sync::Arc;
use std::time::Duration;

use self::running::{Batch, Running, Stop, broken};

use super::child::{Child, Signs, Wake};
use super::files::Files;
use super::launch::{Launch, OutputLimits};
use super::output::error_text;
use super::process::Ended;
use super::pulse::Pulse;
use super::rpc::{Event, LINE_BYTES_MAX, Level, LogLine, Session};
use super::run::Bell;
use super::spawner::Spawner;
use super::{Assignment, Cutoff, Outcome, StartError, Worker, WorkerFactory, Worn};
use crate::clock::{Clock, RealClock};
use crate::config::Recycle;
use crate::types::{Label, Lease, WorkerType};

/// Between TERM and KILL for a process that never had a job, whose `kill_after` would tell.
const KILL_AFTER_IDLE: Duration = Duration::from_secs(5);

/// Makes workers that keep a process of their own.
#[derive(Debug, Clone)]
pub struct PersistentFactory {
    shared: Arc<Shared>,
    files: Arc<Files>,
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
        let shared = Arc::new(Shared { launch, limits, spawner, worker_type, version });
        Self { shared, files: Arc::default() }
    }

    /// Made of these files.
    #[must_use]
    pub fn of(self, files: Files) -> Self {
        Self { files: Arc::new(files), ..self }
    }
}

impl WorkerFactory for PersistentFactory {
    fn make(&self, cutoff: &Arc<Cutoff>) -> Box<dyn Worker> {
        Box::new(PersistentWorker {
            shared: Arc::clone(&self.shared),
            files: Arc::clone(&self.files),
            cutoff: Arc::clone(cutoff),
            running: None,
            kill_after: KILL_AFTER_IDLE,
            pulse: None,
            broke: None,
        })
    }

    fn check(&self) -> Result<(), StartError> {
        self.shared.launch.check()
    }

    fn files(&self) -> Option<&Arc<Files>> {
        Some(&self.files)
    }
}

/// One worker and its process.
struct PersistentWorker {
    shared: Arc<Shared>,
    files: Arc<Files>,
    cutoff: Arc<Cutoff>,
    /// Absent before the start, and after the process broke.
    running: Option<Running>,
    /// As the latest job said.
    kill_after: Duration,
    /// Where its process is shown.
    pulse: Option<Arc<Pulse>>,
    /// Why the process broke, until that is told.
    broke: Option<String>,
}

impl Worker for PersistentWorker {
    fn start(&mut self, timeout: Duration) -> Result<(), StartError> {
        if self.is_ready() {
            return Ok(());
        }
        self.end();
        let Shared { launch, limits, spawner, worker_type, version } = &*self.shared;
        launch.check()?;
        self.files.look(RealClock.mono(), true);
        let mut child = Child::spawn(spawner, launch, &[], LINE_BYTES_MAX, timeout)
            .map_err(|e| StartError(launch.start_failure(&e)))?;
        child.show_on(self.pulse.as_ref());
        let bell = Bell::new().map_err(|e| {
            StartError(format!("{}: no descriptor to be told by that a job is cancelled: {e}", launch.name))
        })?;
        let mut running = Running {
            child,
            session: Session::new(*limits),
            waited_for: false,
            since: RealClock.mono(),
            cycles: 0,
            bell,
            rung: false,
        };
        let hello = running.session.hello(worker_type.as_str(), version.as_str());
        running.child.send(&hello);
        let deadline = RealClock.mono().saturating_add(timeout);
        let mut nobody = Batch::of(&[]);
        let why = loop {
            match running.next(deadline, &self.cutoff) {
                Ok(Some(Event::Hello)) => {
                    self.running = Some(running);
                    return Ok(());
                }
                Ok(event) => {
                    self.pass_on(&mut running.child);
                    if let Some(event) = event {
                        self.note(&event, &mut nobody);
                    }
                }
                Err(Stop::Cutoff) => break "was cut off while it started".to_owned(),
                Err(stop) => break format!("{} before it said hello (`start_timeout` {timeout:?})", stop.told().0),
            }
        };
        running.child.terminate(self.kill_after);
        Err(StartError(error_text(&format!("{} {why}", launch.name), &running.child.stderr_text())))
    }

    fn cycle(&mut self, batch: Vec<Assignment>, sink: &mut dyn FnMut(Lease, Outcome)) {
        let name = &self.shared.launch.name;
        let refuse = match &mut self.running {
            _ if self.cutoff.is_set() => Some(Outcome::Interrupted),
            None => Some(Outcome::NotStarted { error: format!("{name}: the worker is not started") }),
            Some(running) if running.is_fit() => None,
            Some(running) => Some(Outcome::NotStarted { error: running.end_unfit(name, self.kill_after) }),
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
        self.running.as_ref().is_some_and(Running::is_fit)
    }

    fn recycle(&mut self, bounds: &Recycle) -> Option<Worn> {
        let worn = self.running.as_ref()?.worn(bounds, RealClock.mono())?;
        self.end();
        Some(worn)
    }

    fn stop(&mut self) {
        self.end();
    }

    fn watch(&mut self, pulse: &Arc<Pulse>) {
        self.pulse = Some(Arc::clone(pulse));
    }

    fn broke(&mut self) -> Option<String> {
        self.broke.take()
    }
}

impl PersistentWorker {
    /// A cycle with a process that is there. Keeps it if it can take another one.
    fn talk(&mut self, mut running: Running, batch: &[Assignment], sink: &mut dyn FnMut(Lease, Outcome)) {
        self.kill_after = batch.iter().map(|job| job.kill_after).max().unwrap_or(KILL_AFTER_IDLE);
        self.files.look(RealClock.mono(), false);
        running.child.lines().refill();
        let mut batch = Batch::of(batch);
        match self.listen(&mut running, &mut batch, sink) {
            Ok(()) => {
                running.cycles = running.cycles.saturating_add(1);
                self.running = Some(running);
            }
            Err(stop) => {
                self.give_up(running, stop, sink);
                // What it was never asked for it has not failed at.
                batch.waiting.for_each(|job| sink(job.lease, Outcome::Interrupted));
            }
        }
    }

    /// Asks for all jobs, hears all answers, and then that the cycle's state is dropped. Leaves in `batch` what was not
    /// asked for.
    fn listen(
        &self,
        running: &mut Running,
        batch: &mut Batch<'_>,
        sink: &mut dyn FnMut(Lease, Outcome),
    ) -> Result<(), Stop> {
        loop {
            running.ask(batch, sink);
            if running.session.open_jobs().next().is_none() {
                if batch.waiting.as_slice().is_empty() {
                    break;
                }
                if running.child.stdin_closed() {
                    return Err(broken("closed its stdin".to_owned()));
                }
            }
            if std::mem::take(&mut running.rung) {
                running.tell_cancelled(batch);
            }
            let next = running.next(batch.next_moment(), &self.cutoff);
            self.pass_on(&mut running.child);
            let deaf = matches!(next, Err(Stop::Late)) && batch.is_ignored();
            match next.map_err(|stop| if deaf { Stop::Deaf } else { stop })? {
                Some(Event::Answer(lease, outcome)) => {
                    sink(lease, outcome);
                    batch.answered(lease);
                }
                Some(event) => self.note(&event, batch),
                None => {}
            }
        }
        let wipe = running.session.wipe();
        running.child.send(&wipe);
        loop {
            let next = running.next(batch.deadline(), &self.cutoff)?;
            self.pass_on(&mut running.child);
            match next {
                Some(Event::Wiped) => return Ok(()),
                Some(event) => self.note(&event, batch),
                None => {}
            }
        }
    }

    /// Ends a process that cannot go on, and answers for what it was asked.
    fn give_up(&mut self, mut running: Running, stop: Stop, sink: &mut dyn FnMut(Lease, Outcome)) {
        let Running { child, session, .. } = &mut running;
        child.terminate(self.kill_after);
        self.pass_on(child);
        let outcome = match stop {
            Stop::Cutoff | Stop::Deaf => {
                if matches!(stop, Stop::Deaf) {
                    self.tell_replaced(&stop.told().0);
                }
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
            Stop::Late | Stop::Broken { .. } | Stop::Lost => {
                let lost = matches!(stop, Stop::Lost);
                let (why, killed) = stop.told();
                let error = error_text(&format!("{} {why}", self.shared.launch.name), &child.stderr_text());
                self.tell_replaced(&error);
                self.broke = Some(error.clone());
                if lost { Outcome::HostDeath { error } } else { Outcome::Fail { error, killed } }
            }
        };
        session.open_jobs().for_each(|lease| sink(lease, outcome.clone()));
    }

    fn tell_replaced(&self, error: &str) {
        tracing::warn!(worker_type = %self.shared.worker_type, error, "a worker's process is replaced");
    }

    /// Ends the process in good order, if there is one: stdin closed, then TERM, then KILL.
    fn end(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        running.child.close_stdin();
        let until = RealClock.mono().saturating_add(self.kill_after);
        while running.child.step(Some(until), Signs { cutoff: Some(&self.cutoff), bell: None }) == Wake::Progress {
            drop(running.child.take_stdout());
        }
        running.child.terminate(self.kill_after);
        if !matches!(running.child.ended(), Some(Ended::Exited(0))) {
            let ended = running.child.ended().unwrap_or(Ended::Unknown);
            tracing::debug!(worker_type = %self.shared.worker_type, %ended, "a worker's process left in bad order");
        }
    }

    /// Passes on what a program says besides its answers.
    fn note(&self, event: &Event, batch: &mut Batch<'_>) {
        let now = RealClock.mono();
        match event {
            Event::Extended(lease, more) => {
                let within = batch.extend(*lease, *more);
                if let Some(pulse) = &self.pulse {
                    pulse.allow(now, within.saturating_add(self.kill_after));
                }
            }
            Event::Progressed(lease, progress) => {
                if let Some(job) = batch.job(*lease) {
                    job.run.progress(progress.clone());
                }
                if let Some(pulse) = &self.pulse {
                    pulse.beat(now);
                }
            }
            Event::Log(line) if batch.may_log() => self.log(line, batch),
            Event::Log(_) | Event::Hello | Event::Answer(..) | Event::Wiped => {}
        }
    }

    fn log(&self, line: &LogLine, batch: &Batch<'_>) {
        let Shared { worker_type, version, .. } = &*self.shared;
        let text = &line.text;
        let job = line.lease.and_then(|lease| batch.job(lease));
        let traceparent = job.and_then(|job| job.traceparent).map(tracing::field::display);
        let job = job.map(|job| job.id.as_str());
        match line.level {
            Level::Debug => tracing::debug!(job, traceparent, %worker_type, %version, "{text}"),
            Level::Info => tracing::info!(job, traceparent, %worker_type, %version, "{text}"),
            Level::Warn => tracing::warn!(job, traceparent, %worker_type, %version, "{text}"),
            Level::Error => tracing::error!(job, traceparent, %worker_type, %version, "{text}"),
        }
    }

    /// Passes on what it has written to stderr since the last time.
    fn pass_on(&self, child: &mut Child) {
        let Shared { worker_type, version, .. } = &*self.shared;
        while let Some(line) = child.lines().next() {
            tracing::info!(%worker_type, %version, "{line}");
        }
    }
}

#[cfg(test)]
mod tests;
