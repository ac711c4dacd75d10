//! Why a job is not running now: looked up on the engine's thread, told in one sentence on the caller's.

use std::time::Duration;

use crate::engine::act::Found;
use crate::engine::command::{Command, Known, LiveJob, To};
use crate::engine::core::Core;
use crate::engine::runs::PoolRun;
use crate::engine::shared::Shared;
use crate::engine::shown::ended;
use crate::engine::shown::lookup::{label, why_parked};
use crate::engine::view::WhyView;
use crate::engine::words::{last_error, moment, state_word};
use crate::job::table::Job;
use crate::job::transition::State;
use crate::log::Poisoned;
use crate::refusal::Refusal;
use crate::types::UnixMs;
use crate::worker::gist;

/// What is known of a job that somebody asks why of.
pub(in crate::engine) struct Asked {
    known: Known,
    /// Of a live one.
    standing: Option<Standing>,
    now: UnixMs,
}

/// How it stands with a live job.
enum Standing {
    /// Its own state says it all.
    AsItIs,
    /// Its type is paused, since then.
    Paused(UnixMs),
    /// The process is stopping.
    Stopping,
    /// Nothing can be recorded, for want of space.
    NoSpace,
    /// No version of its type is up, for that reason if there is one.
    NotUp { label: Option<String>, why: Option<String> },
    /// Its type shall have no worker just now.
    NoWorkers { label: String, why: &'static str },
    /// It waits for its turn.
    Turn {
        label: String,
        /// Jobs of its type that come before it.
        ahead: u64,
        workers: u32,
        /// Jobs that they hold.
        held: u64,
        /// Jobs that they can hold at once.
        at_once: u64,
    },
}

impl Core {
    pub(in crate::engine) fn answer_why(&mut self, id: String, to: To<Asked>) -> Result<(), Poisoned> {
        let known = match self.find(&id) {
            Found::Unsure(seqs) => return self.look_up(seqs, Command::Why { id, to }),
            Found::Known(known) => known,
        };
        let standing = match &known {
            Known::Live(live) => Some(self.standing_of(live)),
            Known::Look { .. } | Known::Nothing => None,
        };
        let asked = Asked { known, standing, now: self.now };
        self.reply(move |_| to.give(asked));
        Ok(())
    }

    fn standing_of(&mut self, live: &LiveJob) -> Standing {
        let job = &live.job;
        if job.state != State::Ready || live.parked.is_some() {
            return Standing::AsItIs;
        }
        let of_type = self.table.worker_type(job.type_no);
        if let Some(of_type) = of_type.filter(|of_type| of_type.paused_since != 0) {
            return Standing::Paused(of_type.paused_since);
        }
        let ahead = of_type.map_or(0, |of_type| of_type.queue.ahead(job.priority, live.born));
        if self.is_stopping() {
            return Standing::Stopping;
        }
        if self.stands_still() {
            return Standing::NoSpace;
        }
        let current = self.types.get(&job.type_no).and_then(|of_type| self.pools.get(&of_type.current?));
        match current {
            Some(run) => self.turn_of(run, ahead),
            None => {
                let starting = self.pools.values().rfind(|run| run.type_no == job.type_no);
                let why = starting.and_then(|run| run.not_up.clone());
                Standing::NotUp { label: starting.map(|run| run.label.to_string()), why }
            }
        }
    }

    fn turn_of(&self, run: &PoolRun, ahead: u64) -> Standing {
        let label = run.label.to_string();
        let workers = run.pool.size();
        if workers == 0 {
            let why = self.scale_view(run.type_no).map_or("", |scale| scale.reason);
            return Standing::NoWorkers { label, why };
        }
        let hangs = run.hangs();
        if run.up == 0 || hangs.is_some() {
            return Standing::NotUp { label: Some(label), why: hangs.or_else(|| run.not_up.clone()) };
        }
        Standing::Turn { label, ahead, workers, held: run.handed, at_once: run.at_once() }
    }
}

impl Asked {
    /// In words. Reads the log, for a job that ended.
    pub(in crate::engine) fn tell(self, shared: &Shared, id: &str) -> Result<WhyView, Refusal> {
        let not_found = || Refusal::NotFound { id: id.to_owned() };
        match self.known {
            Known::Nothing => Err(not_found()),
            Known::Look { born, from, .. } => {
                let job = ended::job(shared, id, born, from).ok_or_else(not_found)?;
                let at = job.ended_at.as_ref().map(|at| format!(" since {at}")).unwrap_or_default();
                let why = format!("it is {}{at}, and stays so", job.state);
                Ok(WhyView { id: job.id, state: job.state, reason: "ended", why })
            }
            Known::Live(live) => {
                let standing = self.standing.unwrap_or(Standing::AsItIs);
                let state = state_word(live.job.state, live.parked.is_some());
                let id = live.id.as_deref().map_or_else(|| id.to_owned(), str::to_owned);
                let (reason, why) = match standing {
                    Standing::AsItIs => by_its_state(shared, &live, self.now),
                    other => by_its_type(other),
                };
                Ok(WhyView { id, state, reason, why })
            }
        }
    }
}

fn by_its_state(shared: &Shared, live: &LiveJob, now: UnixMs) -> (&'static str, String) {
    let job = &live.job;
    let version = label(shared, job.version_no).unwrap_or_else(|| "a version that is forgotten".to_owned());
    let last = last_error(job).map(first_line).unwrap_or_default();
    match (job.state, live.parked) {
        (State::Ready, Some(parked)) => ("parked", format!("it is parked: {}", why_parked(shared, job, parked))),
        (State::Ready, None) => ("turn", "its turn is next".to_owned()),
        (State::Reserved, _) => {
            let (attempt, of) = (job.attempts.saturating_add(1), job.max_attempts);
            ("reserved", format!("{version} has it: attempt {attempt} of {of} runs, or is about to"))
        }
        (State::Delayed, _) => ("not_due", not_due(job, now, &last)),
        (State::Dead, _) => {
            let attempts = job.attempts;
            ("dead", format!("it is dead after {}{last}; retry or discard it", times(u64::from(attempts), "attempt")))
        }
    }
}

fn not_due(job: &Job, now: UnixMs, last: &str) -> String {
    let due = format!("it is due at {}, in {}", moment(job.ready_ms), in_words(job.ready_ms.saturating_sub(now)));
    if job.attempts > 0 {
        format!("{due}: attempt {} of {} failed{last}", job.attempts, job.max_attempts)
    } else if job.given_back.deferrals > 0 {
        format!("{due}: its worker gave it back for a pause{last}")
    } else {
        due
    }
}

fn by_its_type(standing: Standing) -> (&'static str, String) {
    let because = |why: Option<String>| why.map(|why| format!(": {}", first(&why))).unwrap_or_default();
    match standing {
        Standing::AsItIs => ("turn", "its turn is next".to_owned()),
        Standing::Paused(since) => ("paused", format!("its type is paused, since {}", moment(since))),
        Standing::Stopping => ("stopping", "biotope is stopping: nothing begins any more".to_owned()),
        Standing::NoSpace => ("disk_full", "the disk is full: nothing begins until there is space".to_owned()),
        Standing::NotUp { label: Some(label), why } => {
            ("not_up", format!("no worker of {label} is up{}", because(why)))
        }
        Standing::NotUp { label: None, .. } => ("not_up", "no version of its type is up".to_owned()),
        Standing::NoWorkers { label, why: "" } => ("no_workers", format!("{label} has no worker now")),
        Standing::NoWorkers { label, why } => ("no_workers", format!("{label} has no worker now: {why}")),
        Standing::Turn { label, ahead, workers, held, at_once } => {
            let busy = if held >= at_once {
                format!("{} of {label}, which {} busy", all(workers), if workers == 1 { "is" } else { "are" })
            } else {
                format!("{} of {label}", all(workers))
            };
            match ahead {
                0 => ("turn", format!("its turn is next: it waits for {busy}")),
                ahead => ("behind", format!("it waits behind {} for {busy}", times(ahead, "other job"))),
            }
        }
    }
}

fn all(workers: u32) -> String {
    if workers == 1 { "the one worker".to_owned() } else { format!("one of {workers} workers") }
}

fn times(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn first(text: &str) -> String {
    const LONGEST: usize = 200;
    text.lines().next().unwrap_or_default().chars().take(LONGEST).collect()
}

fn first_line(error: &str) -> String {
    match first(&gist(error)).as_str() {
        "" => String::new(),
        line => format!(" ({line})"),
    }
}

fn in_words(ms: u64) -> String {
    let time = Duration::from_millis(ms);
    match time.as_secs() {
        0 => format!("{ms} ms"),
        seconds @ 1..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}
