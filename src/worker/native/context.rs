//! What a native worker is told of its run, and what it may say of it while it runs.

use std::time::Duration;

use crate::clock::{Clock, RealClock};
use crate::job::new::NewJob;
use crate::job::trace::TraceParent;
use crate::limits::FOLLOW_UPS_MAX;
use crate::types::UnixMs;
use crate::worker::pulse::Pulse;
use crate::worker::{Assignment, Cutoff, Outcome, Progress, Run};

/// One run of one job.
#[derive(Debug)]
pub struct Context<'a> {
    job: &'a Assignment,
    cutoff: &'a Cutoff,
    pulse: Option<&'a Pulse>,
    enqueue: Vec<NewJob>,
}

impl<'a> Context<'a> {
    pub(super) fn new(job: &'a Assignment, cutoff: &'a Cutoff, pulse: Option<&'a Pulse>) -> Self {
        Self { job, cutoff, pulse, enqueue: Vec::new() }
    }

    /// Enqueues a job with this one's completion: both are one record, so that either both happen or neither. Nothing is
    /// enqueued if the run ends in another way. More than 1,000 of them, or one that is refused (too large, a type never
    /// known, a chosen id that another job bears), make the completion a failed attempt that says so.
    pub fn enqueue(&mut self, job: NewJob) {
        // One too many is enough to be refused.
        if self.enqueue.len() <= FOLLOW_UPS_MAX {
            self.enqueue.push(job);
        }
    }

    /// Whether the run is to end at once: its version's drain, or the process's stop, has come to its deadline. A worker
    /// that returns then is heard as ever; one that does not is waited for.
    pub fn is_cut_off(&self) -> bool {
        self.cutoff.is_set()
    }

    /// Whether the run is to end at once: somebody cancelled its job, its time is over, or it is cut off; [`Context::run`] says
    /// which. A worker whose jobs take long asks now and then. One that does not end within `kill_after` of its timeout is
    /// abandoned: the attempt failed, a new thread takes its place, and nothing that it answers counts.
    pub fn is_cancelled(&self) -> bool {
        self.job.run.is_cancelled()
    }

    /// Waits for `most`, and returns false; or until [`Context::is_cancelled`], and returns true: at once, if it is. What a
    /// worker sleeps by.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use biotope::worker::native::{Context, Failure};
    /// fn poll_a_device(_: (), context: &mut Context<'_>) -> Result<u32, Failure> {
    ///     for round in 0..100 {
    ///         if context.cancelled_within(Duration::from_secs(10)) {
    ///             return Err("was told to stop".into());
    ///         }
    ///         // …
    ///         # return Ok(round);
    ///     }
    ///     Ok(100)
    /// }
    /// ```
    pub fn cancelled_within(&self, most: Duration) -> bool {
        self.job.run.stopped_within(most, self.cutoff).is_some()
    }

    /// Says how far it is: `0.4`, `"page 3"`, or `(0.4, "page 3")`. Shown with the job while it runs, with its age; the last
    /// word stands, and none of it is kept.
    pub fn progress(&self, progress: impl Into<Progress>) {
        self.job.run.progress(progress.into());
        if let Some(pulse) = self.pulse {
            pulse.beat(RealClock.mono());
        }
    }

    /// Asks for `more` time from now on, and returns the deadline that it then has, as [`Context::deadline_ms`] does: no later
    /// than `timeout_max` after its beginning, and no earlier than before.
    pub fn extend(&self, more: Duration) -> UnixMs {
        let Some(pulse) = self.pulse else { return self.deadline_ms() };
        let latest = pulse.turn().saturating_add(self.job.timeout_max);
        pulse.allow(RealClock.mono(), more.min(self.job.timeout_max).saturating_add(self.job.kill_after));
        self.job.run.extend(more, latest)
    }

    /// The run, for other threads to ask whether it shall stop, and why.
    pub fn run(&self) -> &'a Run {
        &self.job.run
    }

    /// The job's id, made or chosen.
    pub fn id(&self) -> &'a str {
        &self.job.id
    }

    /// The worker type.
    pub fn worker_type(&self) -> &'a str {
        &self.job.worker_type
    }

    /// Label of the version that runs it.
    pub fn version(&self) -> &'a str {
        &self.job.version
    }

    /// The task; may be empty.
    pub fn task(&self) -> &'a str {
        &self.job.task
    }

    /// Whom the job is for.
    pub fn tenant(&self) -> Option<&'a str> {
        self.job.tenant.as_deref()
    }

    /// The trace that it belongs to, for spans of the worker's own; jobs that it enqueues belong to it, too, if they name none.
    pub fn traceparent(&self) -> Option<TraceParent> {
        self.job.traceparent
    }

    /// The payload as it came: JSON text on one line.
    pub fn payload(&self) -> &'a [u8] {
        &self.job.payload
    }

    /// This attempt, from 1.
    pub fn attempt(&self) -> u16 {
        self.job.attempt
    }

    /// The last attempt that there may be.
    pub fn max_attempts(&self) -> u16 {
        self.job.max_attempts
    }

    /// A number that tells this run from every other one, of whatever job: it only grows, also across crashes.
    pub fn fence(&self) -> u64 {
        self.job.lease.fence.as_number()
    }

    /// Unix time in milliseconds at which the job was accepted.
    pub fn created_ms(&self) -> UnixMs {
        self.job.created_ms
    }

    /// Unix time in milliseconds at which the run should be through.
    pub fn deadline_ms(&self) -> UnixMs {
        self.job.run.deadline_ms()
    }

    /// How long a run may take (`timeout`).
    pub fn timeout(&self) -> Duration {
        self.job.timeout
    }

    /// The outcome, with what was enqueued for it.
    pub(super) fn finish(self, mut outcome: Outcome) -> Outcome {
        if let Outcome::Done { enqueue, .. } = &mut outcome
            && !self.enqueue.is_empty()
        {
            enqueue.splice(..0, self.enqueue);
        }
        outcome
    }
}
