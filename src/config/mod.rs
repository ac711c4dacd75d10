//! The config: one TOML file, parsed to final types, or every problem at once with its place.
//!
//! Pure: takes text, returns values. Reads no file, no environment, no clock.

mod access;
mod concurrency;
mod confinement;
mod differ;
mod env;
mod log_output;
mod parse;
mod probe;
mod problem;
mod recycle;
mod request;
mod rollout;
mod section;
mod serving;
pub mod target;
#[cfg(test)]
mod tests;
pub mod units;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use access::{AccessConfig, Role, TlsConfig};
pub use concurrency::Concurrency;
pub use confinement::{Confinement, Limits};
pub use log_output::{LogFormat, LogLevel, LogOutput};
pub use parse::{Draft, Parsed, data_dir_of, draft, parse};
pub use problem::{Places, Problem, Problems};
pub use recycle::Recycle;
pub use rollout::Rollout;
pub use serving::Serving;

use self::target::Target;
use crate::limits::{
    MAX_ATTEMPTS_DEFAULT, RETRIES_PER_SECOND_DEFAULT, RETRY_SHARE_DEFAULT, TARGET_WAIT_DEFAULT, TIMEOUT_MAX_FACTOR,
};
use crate::types::{Label, WorkerType};

/// A checked config. Paths are as written; what they are relative to is the config file's folder.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where log and lock live.
    pub data_dir: PathBuf,
    /// How long a stop waits for running jobs before it cuts them off.
    pub stop_timeout: Duration,
    /// Workers of all types together, at most; of versions that drain, those of types whose number is fixed do not count.
    pub workers_max: u32,
    /// Whether the memory of this process may be written to a core file, and be read by its own user.
    pub core_dumps: bool,
    /// Where HTTP is served: a loopback address, unless tokens are asked for.
    pub listen: std::net::SocketAddr,
    /// What those who connect may take.
    pub serving: Serving,
    /// Who may come in.
    pub access: AccessConfig,
    /// The log's settings.
    pub log: LogConfig,
    /// What is said on stderr.
    pub log_output: LogOutput,
    /// `history.index`: whether ended jobs are indexed.
    pub history_index: bool,
    /// The worker types, sorted by name.
    pub workers: Vec<WorkerConfig>,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq)]
pub struct LogConfig {
    /// When a record counts as durable.
    pub sync: SyncPolicy,
    /// History kept beyond the live jobs, in bytes.
    pub retain: u64,
    /// Size of a segment, in bytes.
    pub segment: u64,
    /// Most bytes that the log may take for new jobs to be taken, if there is such a bound.
    pub disk_max: Option<u64>,
    /// What must be free on the log's disk for new jobs to be taken.
    pub disk_free_min: FreeMin,
    /// Largest payload, in bytes.
    pub payload_max: usize,
    /// Largest result, in bytes.
    pub result_max: usize,
    /// How long a dead job is kept.
    pub dead_retain: Duration,
    /// How many dead jobs are kept; the oldest leave first.
    pub dead_max: usize,
    /// From one reading of all that is ended to the next; `None`: it is not read again.
    pub scrub: Option<Duration>,
    /// Bytes a second that such a reading takes at most.
    pub scrub_rate: u64,
}

/// How much of a disk stays free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreeMin {
    /// So much of all that it has, in percent.
    Share(u32),
    /// So many bytes.
    Bytes(u64),
}

/// When a record counts as durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncPolicy {
    /// After fdatasync: nothing acknowledged is ever lost.
    Always,
    /// After the write; a sync follows within this time. A kernel crash or a power cut loses up to that much.
    Every(Duration),
    /// After the write; a kernel crash or a power cut loses what the kernel had not written by itself.
    Never,
}

/// `[workers.TYPE]`.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerConfig {
    /// TYPE.
    pub worker_type: WorkerType,
    /// `version`.
    pub version: Label,
    /// What runs.
    pub kind: KindConfig,
    /// Settings that apply at once when they change.
    pub live: LiveConfig,
}

/// What runs a type's jobs; all of it is part of the version's definition.
#[derive(Debug, Clone, PartialEq)]
pub enum KindConfig {
    /// A program.
    Exec(ExecConfig),
    /// A service that takes jobs by HTTP.
    Http(HttpConfig),
    /// A worker registered through the library under the type's name.
    Native,
}

/// A program as a worker.
#[derive(Debug, Clone, PartialEq)]
pub struct ExecConfig {
    /// Program and arguments, at least the program.
    pub argv: Vec<String>,
    /// A process per job, or one that stays.
    pub mode: ExecMode,
    /// Environment entries, in order of name.
    pub env: Vec<(String, EnvValue)>,
    /// Names of variables that are passed on from biotope's own environment.
    pub env_pass: Vec<String>,
    /// Working directory, as written; `None`: the config file's folder.
    pub dir: Option<PathBuf>,
    /// Its user, its mask and its limits.
    pub confinement: Confinement,
    /// Patterns of files that it is made of besides, relative to the config file's folder.
    pub watch: Vec<String>,
}

/// A process per job, or one that stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecMode {
    /// One process for each job.
    PerJob,
    /// One process for each worker, which answers JSON-RPC lines.
    Persistent,
}

/// A service as a worker: one POST for each job.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpConfig {
    /// Where requests go.
    pub target: Target,
    /// Headers beyond those that every request has, by name in small letters, in order.
    pub headers: Vec<(String, EnvValue)>,
    /// What signs requests, all at once; variables and files, never a text.
    pub secrets: Vec<EnvValue>,
    /// Certificates in PEM that are trusted besides the well-known ones.
    pub ca: Option<PathBuf>,
    /// Whether addresses that are not on the open internet may be called.
    pub allow_private: bool,
}

/// Where a variable's or a header's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvValue {
    /// `K = "v"`.
    Text(String),
    /// `K = { from = "VAR" }`.
    From(String),
    /// `K = { file = "path" }`.
    File(PathBuf),
}

/// Settings of a type that are no part of its version's definition.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveConfig {
    /// Workers in the pool.
    pub concurrency: Concurrency,
    /// Where their number follows the queue: what waits shall be begun within this time.
    pub target_wait: Duration,
    /// Most jobs of one cycle.
    pub batch: u32,
    /// How long a cycle waits for more jobs, once it has one and less than `batch`.
    pub batch_wait: Duration,
    /// How long one run may take, if it is not extended.
    pub timeout: Duration,
    /// How long one run may take at most, however often it is extended.
    pub timeout_max: Duration,
    /// Between TERM and KILL.
    pub kill_after: Duration,
    /// How long a worker may take to start.
    pub start_timeout: Duration,
    /// What a new version must complete before it gets work: JSON on one line.
    pub probe: Option<Arc<str>>,
    /// How long a persistent worker's process may stay.
    pub recycle: Recycle,
    /// Attempts of a job that names no number itself.
    pub max_attempts: u16,
    /// Delays between attempts.
    pub backoff: Backoff,
    /// How much of what runs may be retries.
    pub retry_budget: RetryBudget,
    /// The type that gets a dead job's summary.
    pub on_dead: Option<WorkerType>,
    /// How a new version takes over.
    pub rollout: Rollout,
    /// How long an http worker's requests may wait.
    pub request: RequestTimeouts,
}

impl Default for LiveConfig {
    /// As a worker type is that says nothing of it.
    fn default() -> Self {
        let timeout = Duration::from_secs(30);
        Self {
            concurrency: Concurrency::fixed(1),
            target_wait: TARGET_WAIT_DEFAULT,
            batch: 1,
            batch_wait: Duration::ZERO,
            timeout,
            timeout_max: timeout.saturating_mul(TIMEOUT_MAX_FACTOR),
            kill_after: Duration::from_secs(5),
            start_timeout: Duration::from_secs(10),
            probe: None,
            recycle: Recycle::default(),
            max_attempts: MAX_ATTEMPTS_DEFAULT,
            backoff: Backoff::default(),
            retry_budget: RetryBudget::default(),
            on_dead: None,
            rollout: Rollout::default(),
            request: RequestTimeouts::default(),
        }
    }
}

/// Deadlines within a request; `timeout` is over all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestTimeouts {
    /// Until the name is looked up, and the connection is there, TLS included.
    pub connect: Duration,
    /// From the request's first byte to the end of the answer's head.
    pub first_byte: Duration,
}

impl Default for RequestTimeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), first_byte: Duration::from_secs(20) }
    }
}

/// Exponential backoff with full jitter: the n-th retry waits a random time up to `min(max, first × factor^(n-1))`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// Bound of the first delay.
    pub first: Duration,
    /// Growth per attempt, 1 to 100.
    pub factor: u32,
    /// Highest bound.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_secs(5), factor: 4, max: Duration::from_secs(3600) }
    }
}

/// Retries that are more than both come later than their backoff says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryBudget {
    /// Share of the type's runs; 100: no bound.
    pub percent: u32,
    /// So many a second in any case, at least 1.
    pub min_per_second: u32,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { percent: RETRY_SHARE_DEFAULT, min_per_second: RETRIES_PER_SECOND_DEFAULT }
    }
}
