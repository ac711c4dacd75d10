//! What runs in this process: pools, types, and what goes on about configs; values, and their arithmetic.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use super::VersionSpec;
use super::command::To;
use super::retries::Retries;
use super::rollover::described::Described;
use super::shown::health::Health;
use super::view::{RefusedView, ReloadTypeView, ReloadVerdict};
use crate::config::{LiveConfig, WorkerConfig};
use crate::measure::Runs;
use crate::pool::{Pool, PoolId};
use crate::recent::Recent;
use crate::refusal::Refusal;
use crate::rollover::state::State;
use crate::rollover::trial::Trial;
use crate::rollover::{History, Storm};
use crate::types::{Label, UnixMs};

/// What a reload says of a type that does not run what it asks for.
const NOT_TAKEN: [&str; 3] = ["rejected", "withdrawn", "withheld"];
/// How long something that could not be had is done without until it is tried for again.
pub(super) const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// A pool that ate its whole window within this time is given a larger one.
const WINDOW_GROWS_BELOW: Duration = Duration::from_millis(4);
/// A pool that took longer than this for its window is given a smaller one.
const WINDOW_SHRINKS_ABOVE: Duration = Duration::from_millis(20);
/// Largest window, in jobs beyond what the pool's workers hold at once.
const WINDOW_MAX: u64 = 8192;

/// A pool, and what the engine knows of it.
pub(super) struct PoolRun {
    pub(super) pool: Box<dyn Pool>,
    pub(super) type_no: u32,
    pub(super) version_no: u32,
    pub(super) label: Label,
    pub(super) role: State,
    /// Since when.
    pub(super) since: UnixMs,
    /// When it was made, by the steady clock.
    pub(super) made_at: Duration,
    /// Workers that are up.
    pub(super) up: u32,
    /// Leases that there were in this process when it was made.
    pub(super) leases_before: u64,
    /// Jobs handed to it and not answered yet.
    pub(super) handed: u64,
    /// Jobs handed to it in all, but for those that came back unbegun or interrupted.
    pub(super) begun: u64,
    /// Since when none of the jobs that it holds has ended.
    pub(super) quiet_since: Duration,
    /// How its workers fare.
    pub(super) health: Health,
    /// What its workers did of late.
    pub(super) recent: Recent,
    /// First attempts on it while it took new work.
    pub(super) history: History,
    /// What its version did in this process, but for what its other pools do.
    pub(super) runs: Box<Runs>,
    /// When its threads are to be looked at, as long as it holds anything.
    pub(super) look_at: Duration,
    /// Jobs that it may be handed.
    pub(super) window: u64,
    pub(super) handed_at: Duration,
    /// Jobs of one cycle.
    pub(super) batch: u32,
    /// It has fewer threads than it is to have.
    pub(super) short: Option<Short>,
    /// Why a worker of it could not be started when that was last tried.
    pub(super) not_up: Option<String>,
    /// Workers that it had when it began to drain.
    pub(super) leaving: u32,
    /// When its jobs are cut off; of a warm one, when it ends.
    pub(super) deadline: Option<Duration>,
    /// Why it was rejected or withdrawn, if it was.
    pub(super) why_over: Option<String>,
    /// Its trial ended, and it did not pass it: what still fails on it is made up for.
    pub(super) unproven: bool,
    pub(super) spec: VersionSpec,
}

/// A pool has fewer threads than it is to have.
pub(super) struct Short {
    /// Workers that it is to have.
    wanted: u32,
    pub(super) why: String,
    /// When more are tried for, by the steady clock.
    pub(super) at: Duration,
}

/// A version that ended.
#[derive(Clone)]
pub(super) struct Past {
    pub(super) version_no: u32,
    pub(super) spec: VersionSpec,
    pub(super) label: Label,
    pub(super) state: &'static str,
    pub(super) reason: Option<String>,
}

/// A version that could not be started, or whose workers panicked at once, and that nothing else stands in for.
pub(super) struct Unmade {
    /// As it is shown meanwhile.
    pub(super) past: Past,
    /// Its workers panicked; else there was no thread or descriptor for it, which is not its fault.
    pub(super) is_broken: bool,
    /// When it is tried again, by the steady clock.
    pub(super) at: Duration,
}

/// A version that was on probation has nobody any more to make up for it.
pub(super) struct NoWayBack {
    /// In words.
    pub(super) says: String,
    /// How long its probation would have lasted, by the steady clock.
    pub(super) until: Duration,
}

/// A worker type in this process.
#[derive(Default)]
pub(super) struct TypeRun {
    /// Its settings, if the config has it.
    pub(super) worker: Option<WorkerConfig>,
    /// The pool that takes new work.
    pub(super) current: Option<PoolId>,
    /// The pool that shall take it once it is up.
    pub(super) incoming: Option<PoolId>,
    /// The pool that is on trial beside the one that takes new work: it does its first jobs, or gets a share.
    pub(super) candidate: Option<PoolId>,
    /// The pool that took new work before, as long as it is kept for a way back: it drains, or is warm.
    pub(super) warm: Option<PoolId>,
    /// The version on trial.
    pub(super) trial: Option<Trial>,
    /// Whether nearly all fails.
    pub(super) storm: Storm,
    /// The version that is wanted after that: while nothing serves the type, what starts may finish starting.
    pub(super) next: Option<(u32, VersionSpec)>,
    /// The version that is tried again, while nothing does the work.
    pub(super) unmade: Option<Unmade>,
    /// The version that is started to go back to it: it takes over as soon as it is up, and has nothing to prove.
    pub(super) way_back: Option<u32>,
    /// The version that the config asks for, and that is not used since it was withdrawn.
    pub(super) withheld: Option<(u32, VersionSpec)>,
    /// Why the version before cannot be gone back to, though its time is not over.
    pub(super) no_way_back: Option<NoWayBack>,
    /// Versions that ended, the newest last.
    pub(super) past: VecDeque<Past>,
    pub(super) retries: Retries,
}

/// What goes on about configs.
#[derive(Default)]
pub(super) struct Rollover {
    /// Why the newest config was not accepted, and when.
    pub(super) last_error: Option<(String, UnixMs)>,
    /// Configs that were not accepted, the newest last.
    pub(super) refused: VecDeque<RefusedView>,
    /// Keys beside those of types that the last accepted config changes.
    pub(super) keys: Vec<String>,
    /// What the last accepted config changes, type by type.
    pub(super) changes: Vec<ReloadTypeView>,
    /// Whether what they began is still going on; a reload that comes meanwhile adds to it.
    pub(super) open: bool,
    /// Whether what is open, or was last, made a generation.
    pub(super) is_new: bool,
    pub(super) waiting: Vec<To<Result<ReloadVerdict, Refusal>>>,
    pub(super) pools_made: u64,
    /// What was found out for the command that is handled now.
    pub(super) described: Option<Described>,
    /// Types with a version on trial.
    pub(super) on_trial: BTreeSet<u32>,
}

impl TypeRun {
    /// A pool has no place here any more.
    pub(super) fn leaves(&mut self, pool: PoolId) {
        for place in [&mut self.current, &mut self.incoming, &mut self.candidate, &mut self.warm] {
            place.take_if(|there| *there == pool);
        }
    }

    /// All pools that have a place.
    pub(super) fn pools(&self) -> impl Iterator<Item = PoolId> {
        [self.current, self.incoming, self.candidate, self.warm].into_iter().flatten()
    }
}

impl PoolRun {
    pub(super) fn set_live(&mut self, live: LiveConfig) {
        self.batch = live.batch;
        self.look_at = Duration::ZERO;
        self.spec.worker.live = live.clone();
        self.pool.set_live(live);
    }

    /// The first of its files that was found changed since it was accepted: what it runs is not what its hash says.
    pub(super) fn drifted(&self) -> Option<PathBuf> {
        self.spec.factory.files()?.drifted()
    }

    /// Gives the pool another size.
    pub(super) fn resize(&mut self, workers: u32, mono: Duration) {
        if workers < self.pool.size() {
            // What many took at once would wait with a few.
            self.window = 0;
        }
        let resized = self.pool.resize(workers);
        let (worker_type, version) = (&self.spec.worker.worker_type, &self.label);
        let short = resized.err().map(|error| {
            let why = format!("{} of {workers} threads: {error}", self.pool.size());
            Short { wanted: workers, why, at: mono + AGAIN_AFTER }
        });
        match (&self.short, &short) {
            (None, Some(short)) => {
                tracing::warn!(%worker_type, %version, why = short.why, "fewer workers than there are to be; more are tried for");
            }
            (Some(_), None) => tracing::info!(%worker_type, %version, workers, "all workers that there are to be"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        self.short = short;
    }

    /// Tries for more threads, if it has fewer than it is to have and that is due; `waits`: whether jobs of its type do.
    pub(super) fn grow(&mut self, mono: Duration, waits: bool) {
        let Some(short) = self.short.as_mut().filter(|short| short.at <= mono) else { return };
        let follows = self.role == State::Current && self.spec.worker.live.concurrency.is_scaled();
        if follows && waits {
            // Whoever decides its size tries for them.
            short.at = mono + AGAIN_AFTER;
        } else if follows || !(self.role.takes_work() || self.role == State::Starting) {
            self.short = None;
        } else {
            let wanted = short.wanted;
            self.resize(wanted, mono);
        }
    }

    /// Jobs that its workers hold at once.
    pub(super) fn at_once(&self) -> u64 {
        u64::from(self.pool.size()) * u64::from(self.batch)
    }

    /// A job is handed to it.
    pub(super) fn hands(&mut self, mono: Duration) {
        if self.handed == 0 {
            self.quiet_since = mono;
        }
        self.handed += 1;
        self.begun += 1;
    }

    /// A job has come back; `begun`: it was run to an end of its own.
    pub(super) fn got_back(&mut self, mono: Duration, begun: bool) {
        self.handed = self.handed.saturating_sub(1);
        self.begun = self.begun.saturating_sub(u64::from(!begun));
        self.quiet_since = mono;
    }

    /// How many more jobs the pool may be handed now, of `ready` ones. Adapts the window to the pool's pace: it grows
    /// while the pool is through with it before the engine comes round, and shrinks when jobs would wait in it.
    pub(super) fn take_window(&mut self, mono: Duration, ready: u64) -> u64 {
        let base = self.at_once();
        self.window = self.window.clamp(base, base + WINDOW_MAX);
        let free = self.window.saturating_sub(self.handed);
        // While nobody is idle, half of it at once, or all that is ready: a wake-up is dear.
        if self.handed >= base && free < self.window.div_ceil(2).min(ready) {
            return 0;
        }
        let took = mono.saturating_sub(self.handed_at);
        if self.handed <= base && ready > free && took < WINDOW_GROWS_BELOW {
            self.window = (self.window * 2).min(base + WINDOW_MAX);
        } else if took > WINDOW_SHRINKS_ABOVE {
            self.window = (self.window / 2).max(base);
        }
        self.handed_at = mono;
        self.window.saturating_sub(self.handed).min(ready)
    }
}

/// Whether a type does not run what a reload asked for.
pub(super) fn is_not_taken(view: &ReloadTypeView) -> bool {
    NOT_TAKEN.contains(&view.change.as_ref())
}

impl Rollover {
    /// What became of the newest config.
    pub(super) fn verdict(&self) -> &'static str {
        if self.changes.is_empty() && self.keys.is_empty() && !self.is_new {
            "unchanged"
        } else if self.changes.iter().any(is_not_taken) {
            "partial"
        } else {
            "ok"
        }
    }
}
