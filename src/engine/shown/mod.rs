//! What the engine shows of itself: built on its own thread, given out once it is durable.

pub(in crate::engine) mod ended;
pub(in crate::engine) mod health;
pub(in crate::engine) mod listing;
pub(in crate::engine) mod lookup;
pub(in crate::engine) mod measured;
pub(in crate::engine) mod timeline;
pub(in crate::engine) mod why;

use crate::archive::{History, Standing};
use crate::config::SyncPolicy;
use crate::engine::core::Core;
use crate::engine::runs::{PoolRun, TypeRun};
use crate::engine::shared::KnownNames;
use crate::engine::upkeep::scrubber::Scrubber;
use crate::engine::view::{DamagedView, EcosystemView, GenerationView, LogView, PaceView, TypeView, VersionView};
use crate::job::table::TypeState;
use crate::log::damage::Place;
use crate::recent::{Step, shares};
use crate::rollover::state::State;
use crate::types::{Label, millis};

impl Core {
    pub(in crate::engine) fn ecosystem(&self) -> EcosystemView {
        let mut types: Vec<TypeView> = self.table.types().map(|(no, of_type)| self.type_view(no, of_type)).collect();
        types.sort_by(|a, b| a.worker_type.cmp(&b.worker_type));
        EcosystemView {
            types,
            log: self.log_view(),
            history: self.shared.history().map_or_else(Standing::off, History::standing),
            generation: self.generation_view(),
            started_at_ms: self.started_at,
            stopping: self.refuses_jobs(),
            binary: None,
        }
    }

    pub(in crate::engine) fn type_view(&self, no: u32, of_type: &TypeState) -> TypeView {
        let run = self.types.get(&no);
        let parked = self.is_parked(no);
        let waiting = of_type.queue.len();
        let versions = self.version_views(no, run);
        let oldest = of_type.queue.oldest().and_then(|born| self.table.job_of(no, born));
        TypeView {
            worker_type: of_type.name.clone(),
            ready: if parked { 0 } else { waiting },
            delayed: of_type.delayed,
            reserved: of_type.reserved,
            parked: of_type.held() + if parked { waiting } else { 0 },
            dead: of_type.dead,
            enqueued: of_type.totals.enqueued,
            completed: of_type.totals.completed,
            failed: of_type.totals.failed,
            cancelled: of_type.totals.cancelled,
            expired: of_type.totals.expired,
            discarded: of_type.totals.discarded,
            oldest_ms: oldest.map_or(0, |job| self.now.saturating_sub(job.created_ms.max(job.ready_ms))),
            retries_held_ms: run.map_or(0, |run| run.retries.held(self.now)),
            paused: of_type.paused_since != 0,
            configured: !parked,
            pace: self.pace_of(no, &versions),
            course: self.course_of(no),
            scale: self.scale_view(no),
            trial: self.trial_view(no),
            storm: self.is_in_storm(no),
            no_way_back: self.no_way_back_view(no),
            versions,
        }
    }

    fn version_views(&self, no: u32, run: Option<&TypeRun>) -> Vec<VersionView> {
        let live: Vec<&PoolRun> = self.pools.values().filter(|run| run.type_no == no).collect();
        let mut shown: Vec<u32> = live.iter().map(|run| run.version_no).collect();
        let mut views: Vec<VersionView> = live.iter().rev().map(|run| self.version_view(run)).collect();
        // Of a version that ended more than once, or is back, only the newest counts.
        for past in run.into_iter().flat_map(|run| run.past.iter().rev()) {
            if !shown.contains(&past.version_no) {
                shown.push(past.version_no);
                views.push(self.ended_view(past.version_no, &past.label, past.state, past.reason.clone()));
            }
        }
        // A withdrawal outlives the process.
        let withheld = run.and_then(|run| run.withheld.as_ref()).filter(|(version_no, _)| !shown.contains(version_no));
        if let Some((version_no, version)) = withheld.and_then(|(no, _)| Some((*no, self.table.version(*no)?))) {
            let why = version.quarantined.as_ref().map(|quarantine| quarantine.why.to_string());
            views.push(self.ended_view(version_no, &version.label, State::Quarantined.word(), why));
        }
        views.reverse();
        views
    }

    fn ended_view(&self, version_no: u32, label: &Label, state: &'static str, reason: Option<String>) -> VersionView {
        let configured = self.asks_for(version_no);
        VersionView { configured, reason, ..VersionView::at_rest(label.to_string(), state) }
    }

    /// Whether the config asks for a version.
    fn asks_for(&self, version_no: u32) -> bool {
        self.table.generation().targets.contains(&version_no)
    }

    /// How it went of late, with all versions of a type together.
    fn course_of(&self, no: u32) -> Vec<Step> {
        let mut sums = Vec::new();
        for run in self.pools.values().filter(|run| run.type_no == no) {
            run.recent.add_course(self.mono, &mut sums);
        }
        sums
    }

    /// How fast jobs go, of all versions of a type together.
    fn pace_of(&self, no: u32, versions: &[VersionView]) -> PaceView {
        let paces = || versions.iter().map(|version| version.pace);
        let mut with = paces().filter(|pace| pace.run_ms.is_some());
        let (run_ms, wait_ms) = match (with.next(), with.next()) {
            (Some(only), None) => (only.run_ms, only.wait_ms),
            (None, _) => (None, None),
            (Some(_), Some(_)) => {
                let live = self.pools.values().filter(|run| run.type_no == no);
                shares(live.map(|run| &run.recent), self.mono)
            }
        };
        let per_second = paces().map(|pace| pace.per_second).sum();
        let failures_per_second = paces().map(|pace| pace.failures_per_second).sum();
        PaceView { run_ms, wait_ms, per_second, failures_per_second }
    }

    fn version_view(&self, run: &PoolRun) -> VersionView {
        let (run_ms, wait_ms) = shares(std::iter::once(&run.recent), self.mono);
        let rates = run.recent.rates(self.mono);
        let (restarts, last_restart) = run.restarts_view();
        let workers = self.workers_of(run);
        VersionView {
            version: run.label.to_string(),
            state: state_word(run),
            configured: self.asks_for(run.version_no),
            pool_size: run.pool.size(),
            busy: run.handed,
            percent: self.percent_of(run),
            pace: PaceView { run_ms, wait_ms, per_second: rates.well, failures_per_second: rates.ill },
            reason: run.says(),
            drifted: run.drifted().map(|path| path.display().to_string()),
            failing: self.failing_view(run, &workers),
            restarts,
            last_restart,
            drain: self.drain_view(run, &workers),
            warm_for_ms: run
                .deadline
                .filter(|_| run.role == State::Warm)
                .map(|at| millis(at.saturating_sub(self.mono))),
            rss_bytes: None,
            workers,
        }
    }

    fn log_view(&self) -> LogView {
        let figures = self.log.figures();
        LogView {
            sync: match self.config.log.sync {
                SyncPolicy::Always => "always".to_owned(),
                SyncPolicy::Every(within) => format!("every {}ms", within.as_millis()),
                SyncPolicy::Never => "never".to_owned(),
            },
            head_segment: u64::from(figures.head),
            active_segment: u64::from(figures.active),
            durable_up_to: figures.durable_up_to,
            disk_bytes: self.disk_bytes(),
            live_bytes: self.table.live_bytes(),
            epoch: self.log.epoch(),
            commits: figures.commits,
            written_bytes: figures.written_bytes,
            last_sync_us: u64::try_from(self.measured.last_sync().as_micros()).unwrap_or(u64::MAX),
            full: self.why_full().map(|why| why.to_string()),
            damaged: self.log.reader().damaged().into_iter().map(damaged_view).collect(),
            scrubbed_at_ms: self.scrubber.as_ref().and_then(Scrubber::passed_at),
        }
    }

    fn generation_view(&self) -> GenerationView {
        let busy = self.is_rolling();
        let generation = self.table.generation();
        GenerationView {
            number: generation.number,
            accepted_at_ms: generation.at,
            state: match self.rollover.verdict() {
                _ if busy => "running",
                "partial" => "partial",
                _ => "ok",
            },
            last_error: self.rollover.last_error.as_ref().map(|(why, _)| why.clone()),
            last_error_at_ms: self.rollover.last_error.as_ref().map(|(_, at)| *at),
        }
    }

    /// Lets readers know the names of all types and versions.
    pub(in crate::engine) fn publish_names(&self) {
        let types = self.table.types().map(|(_, of_type)| of_type.name.clone()).collect();
        let labels = self.table.versions().map(|(no, version)| (no, version.label.clone())).collect();
        self.shared.set_names(KnownNames { types, labels });
    }
}

/// The state of a version; one that only finishes what it holds drains, whatever is to become of it.
impl VersionView {
    /// One that does nothing, and has done nothing of late.
    pub(crate) fn at_rest(version: String, state: &'static str) -> Self {
        Self {
            version,
            state,
            configured: false,
            pool_size: 0,
            busy: 0,
            percent: 0,
            pace: PaceView::default(),
            reason: None,
            drifted: None,
            failing: None,
            restarts: 0,
            last_restart: None,
            drain: None,
            warm_for_ms: None,
            rss_bytes: None,
            workers: Vec::new(),
        }
    }
}

fn state_word(run: &PoolRun) -> &'static str {
    if run.role == State::Retired { State::Draining.word() } else { run.role.word() }
}

fn damaged_view(place: Place) -> DamagedView {
    DamagedView { segment: place.segment, offset: place.offset, seq: place.seq, what: place.what }
}
