//! Judges a history: nothing acknowledged is lost, nothing runs that nobody pushed, and nothing runs twice without a reason.
//!
//! The semantics are those of a total queue: lost = acknowledged pushes without a run; unexpected = runs of what was
//! never pushed; recovered = runs of pushes whose answer is unknown; duplicated = runs beyond the first good one. A
//! history is valid only if nothing is lost, nothing is unexpected, every duplicate has its reason in the history, and
//! the queue was drained. One pass, and what is kept is kept by job: O(n). Pure; never looks at a biotope.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::history::{Event, Fault, How};

/// Runs of a process that may not have been recorded yet when it is killed: two batches.
const UNRECORDED_MAX: usize = 16;
/// Jobs that a process which is killed may hold, begun or not.
const BATCH: u64 = 8;

/// What a valid history holds.
#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
pub(crate) struct Figures {
    /// Pushes that were answered with yes, by number.
    pub(crate) acked: u64,
    /// Runs that began.
    pub(crate) runs: u64,
    /// Jobs that ran though no push of theirs was ever answered with yes.
    pub(crate) recovered: u64,
    /// Runs after a good one, each explained by the end of the process.
    pub(crate) run_twice: u64,
    /// Jobs beyond the first of one push without a name, each explained by an unknown answer.
    pub(crate) pushed_twice: u64,
    /// Ends of the process, stops in good order included.
    pub(crate) ends: u64,
    /// Runs on a version that does nothing well, each made up for.
    pub(crate) bad: u64,
    /// Processes of workers that were killed.
    pub(crate) strikes: u64,
    /// Runs of jobs that need a version.
    pub(crate) needed: u64,
    /// Versions that anything ran on.
    pub(crate) versions: usize,
}

/// What makes a history invalid. One word for each promise.
#[derive(Debug, PartialEq, Eq, Clone, Copy, Hash)]
pub(crate) enum Fail {
    /// A job that was acknowledged never ran, or its last run is not a good one though nothing is left to do.
    Lost,
    /// A run of what nobody pushed, of what was refused, or under an id that was not given.
    Unexpected,
    /// A run after the job was seen as completed, discarded, or dead.
    AfterEnd,
    /// A run that began while another one of its job was going on.
    Overlap,
    /// A fence that is not above the one before.
    Fence,
    /// A run after a good one, or after one that goes on, without a reason.
    Duplicate,
    /// Two jobs for one name, or more jobs for one push than unknown answers allow.
    TwoJobs,
    /// An attempt that was counted without a failure, or a failure that was not counted.
    Attempt,
    /// A run on a version that the job may not run on.
    Version,
    /// A payload that is not what was pushed.
    Payload,
    /// The history does not end with an empty queue.
    NotDrained,
    /// The counter of completed jobs is not the number of jobs that were.
    Count,
    /// A line that no honest writer writes, such as the end of a run that never began.
    Nonsense,
}

/// A violation and where it was seen: the line, from 1; 0 at the end.
#[derive(Debug, PartialEq, Eq, Clone)]
pub(crate) struct Violation {
    pub(crate) fail: Fail,
    pub(crate) line: usize,
    pub(crate) what: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {:?}: {}", self.line, self.fail, self.what)
    }
}

/// What is known of a push.
#[derive(Default)]
struct Push {
    named: bool,
    acked: Option<String>,
    unknown: u32,
    refused: bool,
    ids: Vec<String>,
    /// The version that it needs at least.
    needs: u32,
}

/// The last run of a job.
#[derive(Clone, Copy)]
struct Run {
    fence: u64,
    attempt: u16,
    end: Option<How>,
    /// What ended the process since, if it did.
    gone: Option<Fault>,
    redriven: bool,
    /// Which version it is on, and the worker's own process; 0: not known.
    version: u32,
    pid: u32,
    /// The version that failed the job right before: another one has to make up for that.
    shuns: u32,
}

#[derive(Default)]
struct Job {
    last: Option<Run>,
    over: bool,
    discarded: bool,
}

#[derive(Default)]
struct Checker {
    pushes: HashMap<u64, Push>,
    jobs: HashMap<String, Job>,
    /// Jobs whose last run has not ended.
    going: HashSet<String>,
    /// Jobs whose last run ended and was perhaps not recorded when the process went.
    ended: Vec<String>,
    figures: Figures,
    violations: Vec<Violation>,
    line: usize,
    drained: Option<u64>,
    /// The power is cut, and the process has not noticed yet: what it says does not count.
    dark: bool,
    /// Versions come and go, and one may make up for another's failure at no cost.
    rolls: bool,
    /// Attempts that were counted and not seen: of runs whose process was killed before they could note that they began.
    unseen: u64,
    versions: HashSet<u32>,
    never: HashSet<u32>,
    struck: HashSet<u32>,
    /// The last jobs of each process that has several.
    by_pid: HashMap<u32, VecDeque<String>>,
}

/// Judges a history.
///
/// # Errors
/// Every violation, in the order of the history.
pub(crate) fn check(events: &[Event]) -> Result<Figures, Vec<Violation>> {
    let mut checker = Checker::default();
    for (at, event) in events.iter().enumerate() {
        checker.line = at + 1;
        checker.take(event);
    }
    checker.line = 0;
    checker.finish();
    if checker.violations.is_empty() { Ok(checker.figures) } else { Err(checker.violations) }
}

impl Checker {
    fn fail(&mut self, fail: Fail, what: impl Into<String>) {
        let what = what.into();
        self.violations.push(Violation { fail, line: self.line, what });
    }

    fn take(&mut self, event: &Event) {
        match event {
            Event::Push { n, named } => {
                let push = self.pushes.entry(*n).or_default();
                push.named = *named;
                push.refused = false;
            }
            Event::Acked { n, .. } if self.dark => self.pushes.entry(*n).or_default().unknown += 1,
            Event::Acked { n, id } => self.acked(*n, id),
            Event::Refused { n } => self.pushes.entry(*n).or_default().refused = true,
            Event::Unknown { n } => self.pushes.entry(*n).or_default().unknown += 1,
            Event::Begin { n, id, attempt, fence, .. } => self.begin(*n, id, *attempt, *fence),
            Event::End { id, fence, how, .. } => self.end(id, *fence, *how),
            Event::Done { .. } if self.dark => {}
            Event::Done { id } => self.done(id),
            Event::Redriven { id } => self.redriven(id),
            Event::Discarded { id } => {
                let job = self.jobs.entry(id.clone()).or_default();
                (job.over, job.discarded) = (true, true);
            }
            Event::Cutting => self.dark = true,
            Event::Needs { n, version } => self.pushes.entry(*n).or_default().needs = *version,
            Event::On { n, id, fence, version, pid } => self.on(*n, id, *fence, (*version, *pid)),
            Event::Never { version } => drop(self.never.insert(*version)),
            Event::Strike { pid } => self.strike(*pid),
            Event::Gone { by } => self.gone(*by),
            Event::Up => {}
            Event::Drained { completed } => self.drained = Some(*completed),
        }
        if !matches!(event, Event::Drained { .. } | Event::Up | Event::Gone { .. } | Event::Done { .. }) {
            self.drained = None;
        }
    }

    fn acked(&mut self, n: u64, id: &str) {
        let Some(push) = self.pushes.get_mut(&n) else {
            return self.fail(Fail::Nonsense, format!("{n} was acknowledged and never pushed"));
        };
        if push.acked.is_none() {
            self.figures.acked += 1;
        }
        push.acked = Some(id.to_owned());
        self.job_of(n, id);
    }

    /// Notes that `id` is a job of push `n`, and checks that it may be.
    fn job_of(&mut self, n: u64, id: &str) {
        let Some(push) = self.pushes.get_mut(&n) else {
            return self.fail(Fail::Unexpected, format!("{id} runs {n}, which nobody pushed"));
        };
        if push.ids.iter().any(|known| known == id) {
            return;
        }
        push.ids.push(id.to_owned());
        let (named, ids) = (push.named, push.ids.len());
        // Each unknown answer may have left a job, and one may be answered yes or still be on its way.
        let allowed = if named { 1 } else { push.unknown as usize + 1 };
        if ids > 1 {
            self.figures.pushed_twice += 1;
        }
        if ids > allowed {
            let all = push.ids.join(", ");
            self.fail(Fail::TwoJobs, format!("push {n} (named: {named}) became {all}"));
        }
    }

    fn begin(&mut self, n: u64, id: &str, attempt: u16, fence: u64) {
        self.figures.runs += 1;
        let push = self.pushes.get(&n);
        if push.is_some_and(|push| push.refused && push.unknown == 0 && push.acked.is_none()) {
            self.fail(Fail::Unexpected, format!("{id} runs {n}, which was refused"));
        }
        self.job_of(n, id);
        let job = self.jobs.entry(id.to_owned()).or_default();
        let (last, over) = (job.last, job.over);
        let bad = last.filter(|last| last.end == Some(How::Bad) && last.gone.is_none());
        let shuns = bad.map_or(0, |last| last.version);
        job.last = Some(Run { fence, attempt, end: None, gone: None, redriven: false, version: 0, pid: 0, shuns });
        self.going.insert(id.to_owned());
        if over {
            self.fail(Fail::AfterEnd, format!("{id} runs under fence {fence} after its end was seen"));
        }
        match last {
            Some(last) => self.again(n, id, attempt, last, fence),
            // A first run may have been lost with the process; what it counted can only be told from runs.
            None if attempt != 1 && self.figures.strikes > 0 => self.unseen += u64::from(attempt - 1),
            None if attempt != 1 => self.fail(Fail::Attempt, format!("{id}: the first run is attempt {attempt}")),
            None => {}
        }
    }

    /// A run after another one of the same job.
    fn again(&mut self, n: u64, id: &str, attempt: u16, last: Run, fence: u64) {
        if fence <= last.fence {
            self.fail(Fail::Fence, format!("{id}: fence {fence} after {}", last.fence));
        }
        let crashed = last.gone.is_some_and(|by| by != Fault::Stop);
        let counted = match last.end {
            None if last.gone.is_none() => {
                return self.fail(Fail::Overlap, format!("{id}: fence {fence} while {} is going on", last.fence));
            }
            None => false,
            Some(How::Ok | How::Wrong) => {
                if !crashed && !last.redriven {
                    return self.fail(Fail::Duplicate, format!("{id}: fence {fence} after {} went well", last.fence));
                }
                self.figures.run_twice += 1;
                false
            }
            Some(How::Dead) if !crashed && !last.redriven => {
                return self.fail(Fail::AfterEnd, format!("{id}: fence {fence} after it asked to be dead"));
            }
            Some(How::Defer) => false,
            Some(How::Fail | How::Bad | How::Crash | How::Hang | How::Dead) => true,
        };
        let before = last.attempt;
        // Of a version that does nothing well a job that another one may do suffers nothing.
        let may_shun = last.end == Some(How::Bad) && self.pushes.get(&n).is_none_or(|push| push.needs == 0);
        // A process that is killed is a failure, and one that is made up for is not counted.
        let may_be_free = self.rolls && counted || last.gone == Some(Fault::Strike);
        let fits = match (last.redriven, counted, crashed) {
            (false, ..) if may_shun && last.gone != Some(Fault::Strike) => attempt == before,
            (false, ..) if may_be_free => attempt == before || attempt == before + 1,
            (true, ..) => attempt == 1 || attempt == before || attempt == before + 1,
            (false, true, false) => attempt == before + 1,
            // Whether the failure was recorded before the crash, nobody outside knows.
            (false, true, true) => attempt == before || attempt == before + 1,
            (false, false, _) => attempt == before,
        };
        if !fits && self.figures.strikes > 0 && attempt > before {
            self.unseen += u64::from(attempt - before);
        } else if !fits {
            self.fail(Fail::Attempt, format!("{id}: attempt {attempt} after attempt {before}, {:?}", last.end));
        }
    }

    fn end(&mut self, id: &str, fence: u64, how: How) {
        let last = self.jobs.get_mut(id).and_then(|job| job.last.as_mut());
        match last {
            Some(last) if last.fence == fence && last.end.is_none() => {
                last.end = Some(how);
                self.going.remove(id);
                self.ended.push(id.to_owned());
            }
            _ => self.fail(Fail::Nonsense, format!("{id}: the end of fence {fence}, which is not going on")),
        }
        self.figures.bad += u64::from(how == How::Bad);
        if how == How::Wrong {
            self.fail(Fail::Payload, format!("{id}: another payload than was pushed"));
        }
    }

    /// The run of `id` that began last is on this version.
    fn on(&mut self, n: u64, id: &str, fence: u64, (version, pid): (u32, u32)) {
        self.rolls = true;
        self.versions.insert(version);
        self.figures.versions = self.versions.len();
        let struck = self.struck.contains(&pid);
        let last = self.jobs.get_mut(id).and_then(|job| job.last.as_mut()).filter(|last| last.fence == fence);
        let Some(last) = last else {
            return self.fail(Fail::Nonsense, format!("{id}: fence {fence} is on a version and never began"));
        };
        (last.version, last.pid) = (version, pid);
        if struck {
            last.gone = Some(Fault::Strike);
        }
        let shuns = last.shuns;
        let needs = self.pushes.get(&n).map_or(0, |push| push.needs);
        if pid != 0 {
            let recent = self.by_pid.entry(pid).or_default();
            recent.push_back(id.to_owned());
            if recent.len() > UNRECORDED_MAX {
                recent.pop_front();
            }
        }
        self.figures.needed += u64::from(needs > 0);
        if version < needs {
            self.fail(Fail::Version, format!("{id} needs version {needs} and runs on {version}"));
        }
        if shuns == version && needs == 0 {
            self.fail(Fail::Version, format!("{id} failed on version {version}, which is to make up for it itself"));
        }
        if self.never.contains(&version) {
            self.fail(Fail::Version, format!("{id} runs on version {version}, whose file must not pass"));
        }
    }

    /// A worker's own process is killed: its run, or its last ones, may come to no end, or to one that nobody heard of.
    fn strike(&mut self, pid: u32) {
        self.figures.strikes += 1;
        self.struck.insert(pid);
        for id in self.by_pid.remove(&pid).unwrap_or_default() {
            if let Some(last) = self.jobs.get_mut(&id).and_then(|job| job.last.as_mut())
                && last.pid == pid
            {
                last.gone = Some(Fault::Strike);
                self.going.remove(&id);
            }
        }
    }

    fn done(&mut self, id: &str) {
        let job = self.jobs.entry(id.to_owned()).or_default();
        job.over = true;
        if job.last.is_none_or(|run| run.end != Some(How::Ok)) {
            self.fail(Fail::Lost, format!("{id} is shown as completed, and its last run did not go well"));
        }
    }

    fn redriven(&mut self, id: &str) {
        if let Some(last) = self.jobs.get_mut(id).and_then(|job| job.last.as_mut()) {
            last.redriven = true;
        }
    }

    fn gone(&mut self, by: Fault) {
        self.figures.ends += 1;
        self.dark = false;
        for id in self.going.drain().chain(self.ended.drain(..)) {
            if let Some(last) = self.jobs.get_mut(&id).and_then(|job| job.last.as_mut()) {
                // A crash explains more than a stop for which runs were waited, so it is what is remembered.
                last.gone = last.gone.filter(|before| *before != Fault::Stop).or(Some(by));
            }
        }
    }

    fn finish(&mut self) {
        let mut completed = 0;
        let mut wrong = Vec::new();
        for (n, push) in &self.pushes {
            let ran = |id: &String| self.jobs.get(id).is_some_and(|job| job.last.is_some());
            self.figures.recovered += u64::from(push.acked.is_none() && push.ids.iter().any(ran));
            for id in &push.ids {
                let job = self.jobs.get(id);
                let end = job.and_then(|job| job.last).and_then(|run| run.end);
                match end {
                    Some(How::Ok | How::Wrong) => completed += 1,
                    _ if job.is_some_and(|job| job.discarded) => {}
                    _ => wrong.push(format!("{id} of push {n}: its last run is {end:?}")),
                }
            }
        }
        for what in wrong {
            self.fail(Fail::Lost, what);
        }
        if self.unseen > self.figures.strikes * BATCH {
            let what = format!("{} attempts without a run, {} killed workers", self.unseen, self.figures.strikes);
            self.fail(Fail::Attempt, what);
        }
        match self.drained {
            None => self.fail(Fail::NotDrained, "the history does not end with an empty queue"),
            Some(counted) if counted != completed => {
                self.fail(Fail::Count, format!("{counted} are counted as completed, {completed} were"));
            }
            Some(_) => {}
        }
    }
}
