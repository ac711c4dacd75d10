//! A process that stays, and the conversation with it while a cycle goes on.
//!
//! Owns what is asked and told, and how long an answer is waited for. Decides nothing of jobs: what becomes of them is its
//! worker's to say.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, RealClock};
use crate::config::Recycle;
use crate::limits::LOG_LINES_MAX;
use crate::types::Lease;
use crate::worker::child::{Child, Signs, Wake};
use crate::worker::output::error_text;
use crate::worker::process::Ended;
use crate::worker::rpc::{Event, Session};
use crate::worker::run::Bell;
use crate::worker::{Assignment, Cutoff, Outcome, Worn};

/// How long a process that has closed its stdin or stdout may take to exit before that itself is the error.
const CLOSED_GRACE: Duration = Duration::from_millis(if cfg!(test) { 1000 } else { 50 });
/// Questions that wait for the process to read them, in bytes: no more are made while there are so many.
const ASKED_AHEAD_BYTES: usize = 64 << 10;

/// A process and the conversation with it.
pub(super) struct Running {
    pub(super) child: Child,
    pub(super) session: Session,
    /// Whether it has closed a pipe and was given its time to exit.
    pub(super) waited_for: bool,
    /// When it was started, by [`Clock::mono`].
    pub(super) since: Duration,
    /// Cycles that it has done.
    pub(super) cycles: u32,
    /// Rung when a job that it was asked for is cancelled.
    pub(super) bell: Arc<Bell>,
    /// Whether it has rung, and nobody looked yet.
    pub(super) rung: bool,
}

/// Why a conversation does not go on.
pub(super) enum Stop {
    Cutoff,
    /// The deadline has passed.
    Late,
    /// It did not answer for a job of which it was told that it is cancelled.
    Deaf,
    Broken {
        why: String,
        killed: bool,
    },
    /// The helper that had started it has ended, and the process with it.
    Lost,
}

impl Stop {
    /// In words that follow the program's name; and whether a signal from outside ended it.
    pub(super) fn told(self) -> (String, bool) {
        match self {
            Self::Cutoff => ("was cut off".to_owned(), false),
            Self::Late => ("did not answer in time".to_owned(), false),
            Self::Deaf => ("did not answer for a cancelled job within `kill_after`".to_owned(), false),
            Self::Broken { why, killed } => (why, killed),
            Self::Lost => (Ended::Lost.to_string(), false),
        }
    }
}

/// What of a cycle's batch is not done with.
pub(super) struct Batch<'a> {
    pub(super) jobs: &'a [Assignment],
    /// Those that were not asked for.
    pub(super) waiting: std::slice::Iter<'a, Assignment>,
    /// Cancelled ones of which the process was told, and when it is to have answered.
    pub(super) told: Vec<(Lease, Duration)>,
    /// As long as the batch's most patient job says, without an answer and without an `extend`; and with one.
    timeout: Duration,
    timeout_max: Duration,
    /// Until when jobs that are not answered have asked for time.
    granted: Vec<(Lease, Duration)>,
    /// When the batch was taken, or the last answer came.
    since: Duration,
    deadline: Duration,
    /// Lines that the process may still have logged.
    lines_left: u32,
}

impl<'a> Batch<'a> {
    /// A batch that is taken now.
    pub(super) fn of(jobs: &'a [Assignment]) -> Self {
        let longest = |time: fn(&Assignment) -> Duration| jobs.iter().map(time).max().unwrap_or_default();
        let mut batch = Self {
            jobs,
            waiting: jobs.iter(),
            told: Vec::new(),
            timeout: longest(|job| job.timeout),
            timeout_max: longest(|job| job.timeout_max),
            granted: Vec::new(),
            since: Duration::ZERO,
            deadline: Duration::ZERO,
            lines_left: LOG_LINES_MAX,
        };
        batch.begin_anew();
        batch
    }

    /// A job's answer has come: the next one has as much time as the first, and no less than it has asked for.
    pub(super) fn answered(&mut self, lease: Lease) {
        self.told.retain(|(told, _)| *told != lease);
        self.granted.retain(|(granted, _)| *granted != lease);
        self.begin_anew();
    }

    fn begin_anew(&mut self) {
        self.since = RealClock.mono();
        let first = self.since.saturating_add(self.timeout);
        self.deadline = self.granted.iter().map(|(_, until)| *until).fold(first, Duration::max);
    }

    /// A job needs so much more time from now on, or as much as its timeout is; returns what it was given at most.
    pub(super) fn extend(&mut self, lease: Lease, more: Option<Duration>) -> Duration {
        let Some(job) = self.job(lease) else { return Duration::ZERO };
        let more = more.unwrap_or(job.timeout).min(self.timeout_max);
        let latest = self.since.saturating_add(self.timeout_max);
        job.run.extend(more, latest);
        let until = RealClock.mono().saturating_add(more).min(latest);
        self.granted.retain(|(granted, _)| *granted != lease);
        self.granted.push((lease, until));
        self.deadline = self.deadline.max(until);
        more
    }

    /// Until when an answer is waited for.
    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// A job of it.
    pub(super) fn job(&self, lease: Lease) -> Option<&'a Assignment> {
        self.jobs.iter().find(|job| job.lease == lease)
    }

    /// Whether one more line may be logged.
    pub(super) fn may_log(&mut self) -> bool {
        let may = self.lines_left > 0;
        self.lines_left = self.lines_left.saturating_sub(1);
        may
    }

    /// Whether the process has not answered in time for a cancelled job.
    pub(super) fn is_ignored(&self) -> bool {
        let now = RealClock.mono();
        self.told.iter().any(|(_, by)| *by <= now)
    }

    /// The next moment at which something follows from the clock.
    pub(super) fn next_moment(&self) -> Duration {
        self.told.iter().map(|(_, by)| *by).fold(self.deadline, Duration::min)
    }
}

impl Running {
    /// Which bound it has reached.
    pub(super) fn worn(&self, bounds: &Recycle, now: Duration) -> Option<Worn> {
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
    pub(super) fn is_fit(&self) -> bool {
        !self.child.is_gone() && self.child.listens()
    }

    /// Ends one that cannot take a cycle; returns why not.
    pub(super) fn end_unfit(&mut self, name: &str, kill_after: Duration) -> String {
        self.wait_a_moment(Duration::MAX, None);
        let ended = self.child.ended().map(|ended| ended.to_string());
        self.child.terminate(kill_after);
        let why = ended.unwrap_or_else(|| "closed its stdin".to_owned());
        error_text(&format!("{name} {why} between two cycles"), &self.child.stderr_text())
    }

    /// The next thing that the program says, by `deadline`; `None` if it only took or gave some bytes.
    pub(super) fn next(&mut self, deadline: Duration, cutoff: &Cutoff) -> Result<Option<Event>, Stop> {
        match self.session.poll(RealClock.wall_ms()) {
            Ok(Some(event)) => return Ok(Some(event)),
            Ok(None) => {}
            Err(violation) => return Err(broken(violation.to_string())),
        }
        match self.child.ended() {
            None => {}
            Some(Ended::Lost) => return Err(Stop::Lost),
            Some(ended) => return Err(Stop::Broken { why: ended.to_string(), killed: ended.was_from_outside() }),
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
    pub(super) fn ask(&mut self, batch: &mut Batch<'_>, sink: &mut dyn FnMut(Lease, Outcome)) {
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
    pub(super) fn tell_cancelled(&mut self, batch: &mut Batch<'_>) {
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

pub(super) fn broken(why: String) -> Stop {
    Stop::Broken { why, killed: false }
}
