//! What the engine shows: plain values with their shape on the wire.

mod configs;
mod measures;
mod rollouts;
mod scale;
mod timeline;

use serde::Serialize;

use crate::archive::Standing;
use crate::recent::{Shares, Step};
use crate::types::{Seq, UnixMs, WorkerType};
use crate::worker::resident_bytes;

pub use configs::{GenerationEntry, GenerationsView, RefusedView, ReloadTypeView, ReloadVerdict};
pub use measures::{MeasuresView, VersionRuns};
pub use rollouts::{DrainView, RolloutView, TrialView};
pub use scale::ScaleView;
pub use timeline::{FailureView, StepView, TimelineView};

/// `GET /v1/ecosystem`: everything that lives here, at one moment, all of it durable.
#[derive(Debug, Clone, Serialize)]
pub struct EcosystemView {
    /// Every type ever known here, by name.
    pub types: Vec<TypeView>,
    /// The log's health.
    pub log: LogView,
    /// The index of ended jobs.
    pub history: Standing,
    /// The accepted config.
    pub generation: GenerationView,
    /// Since when this process serves.
    pub started_at_ms: UnixMs,
    /// Whether the process is stopping.
    pub stopping: bool,
    /// The program, where that can be replaced while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binary: Option<BinaryView>,
}

/// The program that runs, and what became of replacing it by another file of it.
#[derive(Debug, Clone, Serialize)]
pub struct BinaryView {
    /// Its version.
    pub version: &'static str,
    /// Device and inode of its file, `2049:131`, as `stat -c %d:%i` shows them: a process whose memory is shown to nobody
    /// shows its own user no `/proc/PID/exe` either.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_id: Option<String>,
    /// `serving`, `checking` a new file, or `draining`: running jobs end, then the new file takes over.
    pub state: &'static str,
    /// How often it was to be replaced since the process began.
    pub attempts: u64,
    /// How often it was.
    pub replaced: u64,
    /// Why the last attempt came to nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When that was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error_at_ms: Option<UnixMs>,
}

/// One worker type and its queue.
#[derive(Debug, Clone, Serialize)]
pub struct TypeView {
    /// Its name.
    #[serde(rename = "type")]
    pub worker_type: WorkerType,
    /// Jobs that wait for a worker.
    pub ready: u64,
    /// Jobs that wait for their time.
    pub delayed: u64,
    /// Jobs that are being worked on, or handed to a pool.
    pub reserved: u64,
    /// Jobs that the version which takes new work may not take, or that there is none for.
    pub parked: u64,
    /// Jobs that need a decision by a person.
    pub dead: u64,
    /// Jobs enqueued since the data directory was made.
    pub enqueued: u64,
    /// Jobs completed since the data directory was made.
    pub completed: u64,
    /// Attempts failed since the data directory was made.
    pub failed: u64,
    /// Jobs cancelled since the data directory was made.
    pub cancelled: u64,
    /// Jobs expired since the data directory was made.
    pub expired: u64,
    /// Dead jobs discarded since the data directory was made.
    pub discarded: u64,
    /// Age of the oldest ready job in milliseconds; 0 when none is ready.
    pub oldest_ms: u64,
    /// How much later than by its backoff a retry comes, that is decided on now: where retries are more than the budget, in ms.
    pub retries_held_ms: u64,
    /// Whether the type is paused: its jobs are taken in, and wait.
    pub paused: bool,
    /// Whether the config has the type.
    pub configured: bool,
    /// How fast its jobs go.
    #[serde(flatten)]
    pub pace: PaceView,
    /// How many runs ended, well and ill, in each step of the last five minutes; empty where none did. A picture for the page.
    #[serde(skip)]
    pub course: Vec<Step>,
    /// How its size was decided, where that follows the queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<ScaleView>,
    /// The version on trial, if one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trial: Option<TrialView>,
    /// Whether nearly all of it fails while a version is on trial: no attempt is used up by that, and nothing dies of it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub storm: bool,
    /// That a version which was on probation before a restart has nobody any more to make up for its failures, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_way_back: Option<String>,
    /// Its live versions and the last ones that ended, newest last.
    pub versions: Vec<VersionView>,
}

/// How fast jobs go, of a type or of one of its versions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct PaceView {
    /// How long runs took, of the last five minutes, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_ms: Option<Shares>,
    /// How long jobs had waited when their runs began, from when they were due, of the last five minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<Shares>,
    /// Jobs completed a second, of the last two minutes.
    pub per_second: f64,
    /// Attempts failed a second, of the last two minutes.
    pub failures_per_second: f64,
}

/// One version of a type.
#[derive(Debug, Clone, Serialize)]
pub struct VersionView {
    /// Its label.
    pub version: String,
    /// `starting`, `gating`, `ramping`, `current`, `draining`, `warm`, `retired`, `rejected` or `quarantined`.
    pub state: &'static str,
    /// Whether the config asks for it.
    pub configured: bool,
    /// Worker threads.
    pub pool_size: u32,
    /// Jobs handed to the pool and not answered yet.
    pub busy: u64,
    /// Share of new work that goes to it.
    pub percent: u8,
    /// How fast its jobs go.
    #[serde(flatten)]
    pub pace: PaceView,
    /// Why it was rejected, or why it cannot start just now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The first of its files that changed since it was accepted, if one did: a reload adopts that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drifted: Option<String>,
    /// As long as its workers cannot be started, or break again and again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing: Option<FailingView>,
    /// Times that a worker of it had to be started again in this process.
    pub restarts: u64,
    /// The last of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_restart: Option<RestartView>,
    /// How it comes to its end, as long as it takes nothing new and holds anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainView>,
    /// For how long its workers are kept yet, for a way back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warm_for_ms: Option<u64>,
    /// Resident memory of its workers' processes that are shown, in bytes, where they have any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rss_bytes: Option<u64>,
    /// Its workers, those first that need a look; some of them, if they are many.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub workers: Vec<WorkerView>,
}

/// Why a version fails, while its jobs wait.
#[derive(Debug, Clone, Serialize)]
pub struct FailingView {
    /// What was last wrong.
    pub reason: String,
    /// Since when.
    pub since_ms: UnixMs,
    /// Starts since then that did not help.
    pub tries: u32,
    /// In how many milliseconds a worker is started again, unless one just is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_try_ms: Option<u64>,
    /// Whether no worker is up.
    pub none_up: bool,
}

/// A worker was started again.
#[derive(Debug, Clone, Serialize)]
pub struct RestartView {
    /// When.
    pub at_ms: UnixMs,
    /// Why.
    pub reason: String,
}

/// One worker.
#[derive(Debug, Clone, Serialize)]
pub struct WorkerView {
    /// Its number within its pool, from 1; it has none where jobs run side by side on one thread.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<u32>,
    /// `starting`, `idle`, `working` or `backing_off`.
    pub state: &'static str,
    /// For how long.
    pub for_ms: u64,
    /// How long ago its last sign of life was.
    pub beat_ms: u64,
    /// Whether it is past the time that it has for what it does, and was to be ended before.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stuck: bool,
    /// Why it backs off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// In how many milliseconds it is started again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_try_ms: Option<u64>,
    /// Its process, if it has one now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// That process's resident memory, without that of what it started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rss_bytes: Option<u64>,
    /// Jobs that it holds.
    pub holds: usize,
    /// Those that it has held for longest; some of them, if they are many.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub jobs: Vec<HeldView>,
}

/// A job in a worker's hands.
#[derive(Debug, Clone, Serialize)]
pub struct HeldView {
    /// Its id.
    pub id: String,
    /// For how long the worker has had it.
    pub age_ms: u64,
}

impl EcosystemView {
    /// Looks up how much memory the workers' processes have in use: to be called by who shows this, and not by the engine,
    /// whose thread reads no file.
    pub fn look_at_processes(&mut self) {
        self.types.iter_mut().for_each(TypeView::look_at_processes);
    }
}

impl TypeView {
    /// As [`EcosystemView::look_at_processes`], of one type.
    pub fn look_at_processes(&mut self) {
        for version in &mut self.versions {
            for worker in &mut version.workers {
                worker.rss_bytes = worker.pid.and_then(resident_bytes);
            }
            let known = version.workers.iter().filter_map(|worker| worker.rss_bytes);
            version.rss_bytes = known.reduce(|sum, bytes| sum + bytes);
        }
    }
}

/// The log's health.
#[derive(Debug, Clone, Serialize)]
pub struct LogView {
    /// `always`, `every 5ms`, `never`.
    pub sync: String,
    /// First segment that counts.
    pub head_segment: u64,
    /// Segment that is written.
    pub active_segment: u64,
    /// One past the last durable seq.
    pub durable_up_to: Seq,
    /// Bytes on disk, spare segments included.
    pub disk_bytes: u64,
    /// Bytes of live jobs' records.
    pub live_bytes: u64,
    /// Opening of the log that runs.
    pub epoch: u32,
    /// Commits (frames written) in this process.
    pub commits: u64,
    /// Bytes written in this process.
    pub written_bytes: u64,
    /// Time of the last sync, in microseconds.
    pub last_sync_us: u64,
    /// Why new jobs are refused, if they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full: Option<String>,
    /// Places that are damaged, the first of each segment.
    pub damaged: Vec<DamagedView>,
    /// When all that was ended had last been read again and checked by this process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scrubbed_at_ms: Option<UnixMs>,
}

/// A place of the log that does not hold what was written there.
#[derive(Debug, Clone, Serialize)]
pub struct DamagedView {
    /// Number of the segment.
    pub segment: u32,
    /// Offset in bytes.
    pub offset: u32,
    /// The record that was expected there.
    pub seq: Seq,
    /// What is wrong.
    pub what: String,
}

/// What to do where the log is damaged: on the page, in status, and as the reason why biotope is not ready.
pub const DAMAGE_REMEDY: &str = "what can be read is served; keep a backup, `biotope log verify DATA_DIR` tells all, `biotope log salvage` saves the rest";

/// What to do about a version whose files changed: after the name of one of them.
pub const DRIFT_REMEDY: &str = "changed since it was accepted; reload to adopt that";

/// The accepted config.
#[derive(Debug, Clone, Serialize)]
pub struct GenerationView {
    /// Counts accepted configs from 1.
    pub number: u64,
    /// When it was accepted.
    pub accepted_at_ms: UnixMs,
    /// `running`: some version still starts or drains; `ok`; `partial`: some version was rejected.
    pub state: &'static str,
    /// Why the newest config was not accepted, if it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When it was not accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error_at_ms: Option<UnixMs>,
}

impl JobView {
    /// Its result as what it was before it became JSON; a job without one has `null`.
    ///
    /// # Errors
    /// It is something else.
    pub fn read_result<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.result.as_ref().map_or("null", |result| result.get()))
    }
}

/// One job, as `GET /v1/jobs/{id}` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct JobView {
    /// Its id.
    pub id: String,
    /// Its worker type.
    #[serde(rename = "type")]
    pub worker_type: WorkerType,
    /// `ready`, `delayed`, `reserved`, `parked`, `dead`, `completed`, `cancelled`, `expired`, `discarded`.
    pub state: &'static str,
    /// Why it is parked, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Its task.
    pub task: String,
    /// Its payload; absent where the record has left the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<Box<serde_json::value::RawValue>>,
    /// Its priority.
    pub priority: u8,
    /// Its tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The idempotency key it came with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// Failed attempts.
    pub attempts: u16,
    /// Attempts that it may have.
    pub max_attempts: u16,
    /// The version that may run it first, by label: this one, or one that was first accepted after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_version: Option<String>,
    /// Times it was given back by a drain or a stop.
    pub interrupts: u32,
    /// Times it was given back after a pause.
    pub deferrals: u16,
    /// Times that what ran it ended while it did: biotope, or its helper.
    pub host_deaths: u8,
    /// When it was accepted (RFC 3339, UTC, milliseconds).
    pub created_at: String,
    /// When it may run, for a delayed job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_at: Option<String>,
    /// After this it is not begun any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// Label of the version that ran it last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// How far its run is, by its worker's last word; gone with the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<ProgressView>,
    /// Until when its run was extended, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extended_until: Option<String>,
    /// Its result, for a completed job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Box<serde_json::value::RawValue>>,
    /// The last error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Id of the job that enqueued it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// The trace that it belongs to: a W3C `traceparent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Its failed attempts that are still known, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<FailureView>,
}

/// Why a job is not running now, as `GET /v1/jobs/{id}/why` tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WhyView {
    /// Its id.
    pub id: String,
    /// Its state.
    pub state: &'static str,
    /// `behind`, `turn`, `not_due`, `paused`, `parked`, `not_up`, `no_workers`, `disk_full`, `stopping`, `reserved`, `dead`
    /// or `ended`.
    pub reason: &'static str,
    /// In one sentence.
    pub why: String,
}

/// How far a run is.
#[derive(Debug, Clone, Serialize)]
pub struct ProgressView {
    /// Its share of the work, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fraction: Option<f64>,
    /// In words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// When it said so.
    pub at: String,
    /// How long ago that was.
    pub age_ms: u64,
}

/// A page of a listing.
#[derive(Debug, Clone, Serialize)]
pub struct JobPage {
    /// The jobs, newest last change first.
    pub jobs: Vec<JobView>,
    /// Where the next page begins; `None` at the end of the log. A page may be empty, or shorter than asked for, and yet have
    /// a next one. Jobs that come in, or change, meanwhile stand before it: what is listed stays as it is.
    pub next_cursor: Option<String>,
}

/// Which jobs a listing shows; every `None` means any.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Only of this type.
    pub worker_type: Option<WorkerType>,
    /// Only in this state, lower case as on the wire.
    pub state: Option<String>,
    /// Only of this tenant.
    pub tenant: Option<String>,
    /// Only with this in the last error, however it is spelt there: case and blanks do not matter.
    pub error: Option<String>,
    /// Only ended at or after this; a live job counts by its last failure, and without one by when it was accepted.
    pub since: Option<UnixMs>,
    /// At most so many; fewer where their payloads, results and errors are large.
    pub limit: usize,
    /// Whether they are shown without payload and result.
    pub brief: bool,
    /// Continue where an earlier page ended.
    pub cursor: Option<String>,
}
