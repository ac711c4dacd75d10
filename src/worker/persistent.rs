//! A program as a worker, one process that stays and answers JSON-RPC lines.
//!
//! Owns when the process is begun and ended, and what its end means for the jobs that it holds. What may be said is
//! `rpc`'s. Never starts a process within a cycle: a job is not to wait for that, nor to be charged for it.
//!
//! | what happens | the jobs that are not answered yet |
//! |---|---|
//! | an answer | that job: as the answer says |
//! | the process ends, closes its stdin or stdout, or breaks the protocol | Fail, with the reason; the process is replaced |
//! | no answer for as long as `timeout`, counted from the batch, the last answer or the last `extend` | the same |
//! | the cutoff | Interrupted; what is answered between TERM and the end still counts |
//! | a job is cancelled, and not answered within `kill_after` of being told so | the same; the process is replaced |
//! | the process was gone, or had closed its stdin, before it was given anything | NotStarted |
//! | it ended before it was asked for a job of the batch | Interrupted, that job |

use std::sync::Arc;
use std::time::Duration;

use super::child::{Child, Ended, Signs, Wake};
use super::launch::{Launch, OutputLimits};
use super::output::error_text;
use super::pulse::Pulse;
use super::rpc::{Event, LINE_BYTES_MAX, Session};
use super::run::Bell;
use super::spawner::Spawner;
use super::{Assignment, Cutoff, Outcome, StartError, Worker, WorkerFactory, Worn};
use crate::clock::{Clock, RealClock};
use crate::config::Recycle;
use crate::types::{Label, Lease, WorkerType};

/// Between TERM and KILL for a process that never had a job, whose `kill_after` would tell.
const KILL_AFTER_IDLE: Duration = Duration::from_secs(5);

/// How long a process that has closed its stdin or stdout may take to exit before that itself is the error.
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
            pulse: None,
            broke: None,
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
    /// Where its process is shown.
    pulse: Option<Arc<Pulse>>,
    /// Why the process broke, until that is told.
    broke: Option<String>,
}

/// A process and the conversation with it.
struct Running {
    child: Child,
    session: Session,
    /// Whether it has closed a pipe and was given its time to exit.
    waited_for: bool,
    /// When it was started, by [`Clock::mono`].
    since: Duration,
    /// Cycles that it has done.
    cycles: u32,
    /// Rung when a job that it was asked for is cancelled.
    bell: Arc<Bell>,
    /// Whether it has rung, and nobody looked yet.
    rung: bool,
}

/// Why a conversation does not go on.
enum Stop {
    Cutoff,
    /// The deadline has passed.
    Late,
    /// It did not answer for a job of which it was told that it is cancelled.
    Deaf,
    Broken {
        why: String,
        killed: bool,
    },
}

impl Stop {
    /// In words that follow the program's name; and whether a signal from outside ended it.
    fn told(self) -> (String, bool) {
        match self {
            Self::Cutoff => ("was cut off".to_owned(), false),
            Self::Late => ("did not answer in time".to_owned(), false),
            Self::Deaf => ("did not answer for a cancelled job within `kill_after`".to_owned(), false),
            Self::Broken { why, killed } => (why, killed),
        }
    }
}

/// What of a cycle's batch is not done with.
struct Batch<'a> {
    jobs: &'a [Assignment],
    /// Those that were not asked for.
    waiting: std::slice::Iter<'a, Assignment>,
    /// Cancelled ones of which the process was told, and when it is to have answered.
    told: Vec<(Lease, Duration)>,
}

impl Batch<'_> {
    /// Whether the process has not answered in time for a cancelled job.
    fn is_ignored(&self) -> bool {
        let now = RealClock.mono();
        self.told.iter().any(|(_, by)| *by <= now)
    }

    /// The next moment at which something follows from the clock; `deadline`, if nothing does before.
    fn next_moment(&self, deadline: Duration) -> Duration {
        self.told.iter().map(|(_, by)| *by).fold(deadline, Duration::min)
    }
}

impl Running {
    /// Which bound it has reached.
    fn worn(&self, bounds: &Recycle, now: Duration) -> Option<Worn> {
        if let Some(most) = bounds.cycles
            && self.cycles >= most
        {
            return Some(Worn::Cycles(self.cycles));
        }
        let age = now.saturating_sub(self.since);
        if let Some(most) = bounds.age
            && age >= most
        {
            return Some(Worn::Age(age));
        }
        let most = bounds.rss?;
        self.child.resident_bytes().filter(|rss| *rss > most).map(Worn::Rss)
    }

    /// Whether it can take a cycle.
    fn is_fit(&self) -> bool {
        !self.child.is_gone() && self.child.listens()
    }

    /// Ends one that cannot take a cycle; returns why not.
    fn end_unfit(&mut self, name: &str, kill_after: Duration) -> String {
        self.wait_a_moment(Duration::MAX, None);
        let ended = self.child.ended().map(|ended| ended.to_string());
        self.child.terminate(kill_after);
        let why = ended.unwrap_or_else(|| "closed its stdin".to_owned());
        error_text(&format!("{name} {why} between two cycles"), &self.child.stderr_text())
    }

    /// The next thing that the program says, by `deadline`; `None` if it only took or gave some bytes.
    fn next(&mut self, deadline: Duration, cutoff: &Cutoff) -> Result<Option<Event>, Stop> {
        match self.session.poll(RealClock.wall_ms()) {
            Ok(Some(event)) => return Ok(Some(event)),
            Ok(None) => {}
            Err(violation) => return Err(broken(violation.to_string())),
        }
        if let Some(ended) = self.child.ended() {
            return Err(Stop::Broken { why: ended.to_string(), killed: ended.was_from_outside() });
        }
        if self.child.refused() {
            return self.closed("stdin", deadline, cutoff);
        }
        let signs = Signs { cutoff: Some(cutoff), bell: Some(&self.bell) };
        let wake = self.child.step(Some(deadline), signs);
        self.session.handle_bytes(&self.child.take_stdout());
        match wake {
            Wake::Progress if self.child.stdout_closed() => self.closed("stdout", deadline, cutoff),
            Wake::Progress | Wake::Exited => Ok(None),
            Wake::Rung => {
                self.bell.mute();
                self.rung = true;
                Ok(None)
            }
            Wake::Cutoff => Err(Stop::Cutoff),
            Wake::Deadline => Err(Stop::Late),
            Wake::Failed(errno) => Err(broken(format!("cannot be waited for ({errno})"))),
        }
    }

    /// Asks for jobs, as many as shall be on their way at once, as long as the process may read them.
    fn ask(&mut self, batch: &mut Batch<'_>, sink: &mut dyn FnMut(Lease, Outcome)) {
        while self.child.unsent() < ASKED_AHEAD_BYTES
            && !self.child.stdin_closed()
            && let Some(job) = batch.waiting.next()
        {
            if !job.run.heed(&self.bell) {
                sink(job.lease, Outcome::Interrupted);
                continue;
            }
            match self.session.job(job) {
                Ok(line) => self.child.send(&line),
                Err(outcome) => sink(job.lease, outcome),
            }
        }
    }

    /// Tells the process of the jobs that it was asked for and that are cancelled meanwhile.
    fn tell_cancelled(&mut self, batch: &mut Batch<'_>) {
        let open: Vec<Lease> = self.session.open_jobs().collect();
        let is_new = |job: &&Assignment| !batch.told.iter().any(|(lease, _)| *lease == job.lease);
        let cancelled = batch.jobs.iter().filter(|job| open.contains(&job.lease) && job.run.is_cancelled());
        let cancelled: Vec<&Assignment> = cancelled.filter(is_new).collect();
        for job in cancelled {
            self.child.send(&Session::cancel(job.lease));
            batch.told.push((job.lease, RealClock.mono().saturating_add(job.kill_after)));
        }
    }

    /// What follows from a pipe that the process has closed. It may be about to exit, and how it does says more, as do
    /// the answers that it has given: first it is waited for a moment.
    fn closed(&mut self, pipe: &str, deadline: Duration, cutoff: &Cutoff) -> Result<Option<Event>, Stop> {
        if cutoff.is_set() {
            return Err(Stop::Cutoff);
        }
        if std::mem::replace(&mut self.waited_for, true) {
            return Err(broken(format!("closed its {pipe}")));
        }
        self.wait_a_moment(deadline, Some(cutoff));
        self.session.handle_bytes(&self.child.take_stdout());
        Ok(None)
    }

    /// Gives a process that has closed a pipe the time to exit.
    fn wait_a_moment(&mut self, deadline: Duration, cutoff: Option<&Cutoff>) {
        let deadline = deadline.min(RealClock.mono() + CLOSED_GRACE);
        while self.child.step(Some(deadline), Signs { cutoff, bell: None }) == Wake::Progress {}
    }
}

fn broken(why: String) -> Stop {
    Stop::Broken { why, killed: false }
}

impl Worker for PersistentWorker {
    fn start(&mut self, timeout: Duration) -> Result<(), StartError> {
        if self.is_ready() {
            return Ok(());
        }
        self.end();
        let Shared { launch, limits, spawner, worker_type, version } = &*self.shared;
        launch.check()?;
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
        let why = loop {
            match running.next(deadline, &self.cutoff) {
                Ok(Some(Event::Hello)) => {
                    self.running = Some(running);
                    return Ok(());
                }
                Ok(event) => self.note(event),
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
        let timeout = batch.iter().map(|job| job.timeout).max().unwrap_or_default();
        self.kill_after = batch.iter().map(|job| job.kill_after).max().unwrap_or(KILL_AFTER_IDLE);
        let mut batch = Batch { jobs: batch, waiting: batch.iter(), told: Vec::new() };
        match self.listen(&mut running, &mut batch, timeout, sink) {
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
        timeout: Duration,
        sink: &mut dyn FnMut(Lease, Outcome),
    ) -> Result<(), Stop> {
        let mut deadline = RealClock.mono().saturating_add(timeout);
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
            let next = running.next(batch.next_moment(deadline), &self.cutoff);
            let deaf = matches!(next, Err(Stop::Late)) && batch.is_ignored();
            match next.map_err(|stop| if deaf { Stop::Deaf } else { stop })? {
                Some(Event::Answer(lease, outcome)) => {
                    sink(lease, outcome);
                    batch.told.retain(|(told, _)| *told != lease);
                    deadline = RealClock.mono().saturating_add(timeout);
                }
                Some(Event::Extended) => {
                    let now = RealClock.mono();
                    if let Some(pulse) = &self.pulse {
                        pulse.beat(now);
                    }
                    deadline = now.saturating_add(timeout);
                }
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
    fn give_up(&mut self, mut running: Running, stop: Stop, sink: &mut dyn FnMut(Lease, Outcome)) {
        let Running { child, session, .. } = &mut running;
        child.terminate(self.kill_after);
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
            Stop::Late | Stop::Broken { .. } => {
                let (why, killed) = stop.told();
                let error = error_text(&format!("{} {why}", self.shared.launch.name), &child.stderr_text());
                self.tell_replaced(&error);
                self.broke = Some(error.clone());
                Outcome::Fail { error, killed }
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
    fn note(&self, event: Option<Event>) {
        if let Some(Event::Log(text)) = event {
            tracing::info!(worker_type = %self.shared.worker_type, version = %self.shared.version, "{text}");
        }
    }
}

#[cfg(test)]
mod tests;
