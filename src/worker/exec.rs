//! A program as a worker, one process for each job.
//!
//! Owns what a run's exit code, output and follow-up file mean for its job. Never decides when a job runs again, and
//! keeps nothing from one job to the next.
//!
//! | the process | its job |
//! |---|---|
//! | exits 0 | Done: stdout is the result, the file `BIOTOPE_ENQUEUE` the follow-up jobs; Fail if either cannot be taken |
//! | exits 75 | Defer |
//! | exits 65 or 78 | Dead |
//! | exits otherwise, or is killed | Fail |
//! | writes more than `result_max`, or runs into its timeout, which a line on stderr may extend | is ended, Fail |
//! | is ended by the cutoff, or since its job was cancelled | Interrupted |
//! | cannot be started | NotStarted |
//! | ends with the helper that has started it, or was about to | HostDeath |

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::child::{Child, Signs, Wake};
use super::files::Files;
use super::followups::Tray;
use super::launch::{Launch, OutputLimits};
use super::output::{error_text, result_of};
use super::process::Ended;
use super::progress::{Said, not_to_us};
use super::pulse::Pulse;
use super::run::Bell;
use super::spawner::Spawner;
use super::{Assignment, Cutoff, Outcome, StartError, Worker, WorkerFactory};
use crate::clock::{Clock, RealClock};
use crate::types::Lease;

/// Exit codes that mean more than a failure, by sysexits: bad data, bad configuration, try later.
const EX_DATAERR: i32 = 65;
const EX_TEMPFAIL: i32 = 75;
const EX_CONFIG: i32 = 78;

/// Makes workers that run a program once for each job.
#[derive(Debug, Clone)]
pub struct ExecFactory {
    launch: Arc<Launch>,
    limits: OutputLimits,
    spawner: Spawner,
    files: Arc<Files>,
}

impl ExecFactory {
    /// Workers that have `spawner` run `launch` for each job, within `limits`.
    pub fn new(launch: Launch, limits: OutputLimits, spawner: Spawner) -> Self {
        Self { launch: Arc::new(launch), limits, spawner, files: Arc::default() }
    }

    /// Made of these files.
    #[must_use]
    pub fn of(self, files: Files) -> Self {
        Self { files: Arc::new(files), ..self }
    }
}

impl WorkerFactory for ExecFactory {
    fn make(&self, cutoff: &Arc<Cutoff>) -> Box<dyn Worker> {
        Box::new(ExecWorker {
            launch: Arc::clone(&self.launch),
            limits: self.limits,
            spawner: self.spawner.clone(),
            files: Arc::clone(&self.files),
            cutoff: Arc::clone(cutoff),
            patience: Duration::ZERO,
            started: None,
            pulse: None,
        })
    }

    fn check(&self) -> Result<(), StartError> {
        self.launch.check()
    }

    fn files(&self) -> Option<&Arc<Files>> {
        Some(&self.files)
    }
}

/// One worker: a process now and then.
struct ExecWorker {
    launch: Arc<Launch>,
    limits: OutputLimits,
    spawner: Spawner,
    files: Arc<Files>,
    cutoff: Arc<Cutoff>,
    /// How long a start may take, as the last `start` said.
    patience: Duration,
    /// Present while the worker is started.
    started: Option<Started>,
    /// Where its process is shown.
    pulse: Option<Arc<Pulse>>,
}

/// What a worker needs to run anything.
struct Started {
    tray: Tray,
    bell: Arc<Bell>,
}

impl Worker for ExecWorker {
    fn start(&mut self, timeout: Duration) -> Result<(), StartError> {
        self.patience = timeout;
        self.launch.check()?;
        self.spawner.prepare().map_err(|e| StartError(format!("{}: {e}", self.launch.name)))?;
        if self.started.is_none() {
            let why = |what: &str, e: std::io::Error| StartError(format!("{}: {what}: {e}", self.launch.name));
            let tray = Tray::make(self.launch.confined.user);
            let tray = tray.map_err(|e| why("cannot make a directory for follow-up jobs", e))?;
            let bell = Bell::new().map_err(|e| why("no descriptor to be told by that a job is cancelled", e))?;
            self.started = Some(Started { tray, bell });
        }
        Ok(())
    }

    fn cycle(&mut self, batch: Vec<Assignment>, sink: &mut dyn FnMut(Lease, Outcome)) {
        let mut broken: Option<String> = None;
        for mut job in batch {
            // Those before it took their time, and none of its own.
            job.begins();
            let outcome = if self.cutoff.is_set() || job.run.is_cancelled() {
                Outcome::Interrupted
            } else {
                // What kept one process from starting keeps the others from it, too.
                let run = match (&broken, &self.started) {
                    (Some(error), _) => Err(error.clone()),
                    (None, None) => Err(format!("{}: the worker is not started", self.launch.name)),
                    (None, Some(started)) => self.run(&job, started),
                };
                run.unwrap_or_else(|error| {
                    broken = Some(error.clone());
                    Outcome::NotStarted { error }
                })
            };
            sink(job.lease, outcome);
        }
        if broken.is_some() {
            self.started = None;
        }
    }

    fn is_ready(&self) -> bool {
        self.started.is_some()
    }

    fn stop(&mut self) {
        self.started = None;
    }

    fn watch(&mut self, pulse: &Arc<Pulse>) {
        self.pulse = Some(Arc::clone(pulse));
    }
}

/// The time that a run has.
struct Time {
    began: Duration,
    deadline: Duration,
    /// As far as it may be extended.
    latest: Duration,
}

impl Time {
    /// A run that begins now.
    fn of(job: &Assignment) -> Self {
        let began = RealClock.mono();
        let [deadline, latest] = [job.timeout, job.timeout_max].map(|time| began.saturating_add(time));
        Self { began, deadline, latest }
    }

    /// Gives so much from now on, as far as there may be more, and takes nothing away.
    fn extend(&mut self, more: Duration) {
        self.deadline = RealClock.mono().saturating_add(more).min(self.latest).max(self.deadline);
    }
}

impl ExecWorker {
    /// Runs one job. `Err`: nothing could be started.
    fn run(&self, job: &Assignment, Started { tray, bell }: &Started) -> Result<Outcome, String> {
        if let Some(what) = unfit_for_environment(job) {
            return Ok(Outcome::Dead {
                error: format!("the {what} holds a NUL character, which no program can be given"),
            });
        }
        let name = &self.launch.name;
        let file = tray.fresh().map_err(|e| format!("{name}: cannot make the file for follow-up jobs: {e}"))?;
        let mut child = self.spawn(job, &file)?;
        child.show_on(self.pulse.as_ref());
        child.send(&job.payload);
        child.send(b"\n");
        child.close_stdin();
        let mut time = Time::of(job);
        let ended = self.drive(&mut child, job, bell, &mut time);
        // What it said while it was being ended.
        self.hear(&mut child, job, &mut time);
        let outcome = match ended {
            Err(outcome) => outcome,
            Ok(ended) => self.judge(ended, &mut child, tray),
        };
        tray.clear();
        if let Outcome::NotStarted { error } = outcome { Err(error) } else { Ok(outcome) }
    }

    fn spawn(&self, job: &Assignment, enqueue: &Path) -> Result<Child, String> {
        let (attempt, max_attempts) = (job.attempt.to_string(), job.max_attempts.to_string());
        let (fence, deadline) = (job.lease.fence.as_number().to_string(), job.deadline_ms.to_string());
        let trace = job.traceparent.map(|trace| trace.to_string());
        let mut env: Vec<(&str, &OsStr)> = vec![
            ("BIOTOPE_JOB_ID", job.id.as_str().as_ref()),
            ("BIOTOPE_TYPE", job.worker_type.as_ref().as_ref()),
            ("BIOTOPE_VERSION", job.version.as_ref().as_ref()),
            ("BIOTOPE_TASK", job.task.as_ref()),
            ("BIOTOPE_ATTEMPT", attempt.as_ref()),
            ("BIOTOPE_MAX_ATTEMPTS", max_attempts.as_ref()),
            ("BIOTOPE_TENANT", job.tenant.as_deref().unwrap_or_default().as_ref()),
            ("BIOTOPE_FENCE", fence.as_ref()),
            ("BIOTOPE_DEADLINE_MS", deadline.as_ref()),
            ("BIOTOPE_ENQUEUE", enqueue.as_os_str()),
        ];
        env.extend(trace.iter().map(|trace| ("TRACEPARENT", trace.as_ref())));
        self.files.look(RealClock.mono(), true);
        // A text result of the largest size has two quotes in JSON, but maybe a newline on stdout.
        Child::begin(&self.spawner, &self.launch, &env, self.limits.result_max.saturating_add(1), self.patience)
            .map_err(|e| self.launch.start_failure(&e))
    }

    /// Waits for the child's end. `Err`: it was ended by us, or not started.
    fn drive(&self, child: &mut Child, job: &Assignment, bell: &Arc<Bell>, time: &mut Time) -> Result<Ended, Outcome> {
        if !job.run.heed(bell) {
            child.terminate(job.kill_after);
            return Err(Outcome::Interrupted);
        }
        let signs = Signs { cutoff: Some(&self.cutoff), bell: Some(bell) };
        let why = loop {
            let wake = child.step(Some(time.deadline), signs);
            self.hear(child, job, time);
            match wake {
                Wake::Progress if child.overflowed() => break self.too_much(),
                Wake::Progress => {}
                Wake::Exited if child.overflowed() => break self.too_much(),
                Wake::Exited => {
                    return child.unstarted().map_or_else(
                        || Ok(child.ended().unwrap_or(Ended::Unknown)),
                        |error| Err(Outcome::NotStarted { error: self.launch.start_failure(&error) }),
                    );
                }
                Wake::Rung => {
                    bell.mute();
                    if job.run.is_cancelled() {
                        child.terminate(job.kill_after);
                        return Err(Outcome::Interrupted);
                    }
                }
                Wake::Cutoff => {
                    child.terminate(job.kill_after);
                    return Err(Outcome::Interrupted);
                }
                // Its time has not begun.
                Wake::Deadline if !child.has_started() => *time = Time::of(job),
                Wake::Deadline => break format!("timed out after {:?}", time.deadline.saturating_sub(time.began)),
                Wake::Failed(errno) => break format!("was ended, since it could not be waited for ({errno})"),
            }
        };
        child.terminate(job.kill_after);
        Err(self.fail(&why, child, false))
    }

    /// Takes over what it has written to stderr since the last time: how far it is, that it needs more time, lines.
    fn hear(&self, child: &mut Child, job: &Assignment, time: &mut Time) {
        while let Some(line) = child.lines().next() {
            match Said::of(&line) {
                Said::Line(line) => {
                    let (worker_type, version) = (&job.worker_type, &job.version);
                    let traceparent = job.traceparent.map(tracing::field::display);
                    tracing::info!(job = job.id.as_str(), traceparent, %worker_type, %version, "{line}");
                }
                Said::Progress(progress) => {
                    job.run.progress(progress);
                    if let Some(pulse) = &self.pulse {
                        pulse.beat(RealClock.mono());
                    }
                }
                Said::Extend(more) => {
                    let more = more.unwrap_or(job.timeout);
                    time.extend(more);
                    job.run.extend(more, time.latest);
                    if let Some(pulse) = &self.pulse {
                        pulse.allow(RealClock.mono(), more.min(job.timeout_max).saturating_add(job.kill_after));
                    }
                }
            }
        }
    }

    fn too_much(&self) -> String {
        format!("wrote more than {} bytes to stdout (`result_max`)", self.limits.result_max)
    }

    /// What the end of a child means for its job.
    fn judge(&self, ended: Ended, child: &mut Child, tray: &Tray) -> Outcome {
        let error = || error_text(&format!("{} {ended}", self.launch.name), &not_to_us(&child.stderr_text()));
        match ended {
            Ended::Exited(0) => self.done(child, tray),
            Ended::Exited(EX_TEMPFAIL) => Outcome::Defer { error: error(), after: None },
            Ended::Exited(EX_DATAERR | EX_CONFIG) => Outcome::Dead { error: error() },
            Ended::Lost => Outcome::HostDeath { error: error() },
            Ended::Exited(_) | Ended::Signalled(_) | Ended::Unknown => {
                Outcome::Fail { error: error(), killed: ended.was_from_outside() }
            }
        }
    }

    fn done(&self, child: &mut Child, tray: &Tray) -> Outcome {
        let result = result_of(&child.take_stdout(), self.limits.result_max);
        let taken = result.and_then(|result| Ok((result, tray.take(self.limits.payload_max, RealClock.wall_ms())?)));
        match taken {
            Ok((result, enqueue)) => Outcome::Done { result, enqueue },
            Err(why) => self.fail(&format!("succeeded, but {why}"), child, false),
        }
    }

    fn fail(&self, why: &str, child: &Child, killed: bool) -> Outcome {
        Outcome::Fail {
            error: error_text(&format!("{} {why}", self.launch.name), &not_to_us(&child.stderr_text())),
            killed,
        }
    }
}

/// Which of a job's texts cannot be a variable's value. The engine bounds their length, but not their characters.
fn unfit_for_environment(job: &Assignment) -> Option<&'static str> {
    let texts = [("id", job.id.as_str()), ("task", job.task.as_str()), ("tenant", job.tenant.as_deref().unwrap_or(""))];
    texts.into_iter().find(|(_, text)| text.contains('\0')).map(|(what, _)| what)
}

#[cfg(test)]
mod tests;
