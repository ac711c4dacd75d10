//! Refusals: what the caller of a command may mend. One stable code each, the same on every surface.

/// Why a command was refused. Nothing happened; `code` is stable, the text is for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such worker type was ever known here.
    #[error("no worker type {name:?}; known are: {known}")]
    UnknownType {
        /// The name that was asked for.
        name: String,
        /// The known names, joined by commas.
        known: String,
    },
    /// No such version of a worker type was ever accepted here, or it was forgotten.
    #[error("no version {label:?} of {worker_type}; known are: {known}")]
    UnknownVersion {
        /// The type.
        worker_type: String,
        /// The label that was asked for.
        label: String,
        /// The known ones, in the order in which they came.
        known: String,
    },
    /// The text is no JSON.
    #[error("invalid JSON at line {line}, column {column}: {detail}")]
    InvalidJson {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What the parser expected.
        detail: String,
    },
    /// JSON, but no job: a member is unknown, missing, of the wrong kind or out of its range.
    #[error("{detail}")]
    InvalidJob {
        /// The member and the remedy.
        detail: String,
    },
    /// A payload, result or body above its limit.
    #[error("{what} is {bytes} bytes, the most is {max} (`{key}`)")]
    TooLarge {
        /// What is too large, for instance "the payload".
        what: &'static str,
        /// Its size in bytes.
        bytes: usize,
        /// The limit in bytes.
        max: usize,
        /// The config key that sets the limit.
        key: &'static str,
    },
    /// The id or idempotency key was used with another body.
    #[error("{what} {value:?} was used before with another body; the first job is {first_id}")]
    KeyConflict {
        /// "the id" or "the idempotency key".
        what: &'static str,
        /// The id or key.
        value: String,
        /// The id of the job that holds it.
        first_id: String,
    },
    /// No job with this id is in the log.
    #[error("no job {id:?} in the log")]
    NotFound {
        /// The id that was asked for.
        id: String,
    },
    /// The job's state does not allow the command.
    #[error("job {id} is {state}; {remedy}")]
    WrongState {
        /// The job's id.
        id: String,
        /// Its state, in lower case.
        state: &'static str,
        /// What can be done instead.
        remedy: &'static str,
    },
    /// More is in flight than the bounds allow; the same call may pass a moment later.
    #[error("too much is in flight ({what}); try again in a moment")]
    Busy {
        /// Which bound was met.
        what: &'static str,
    },
    /// The disk, or its share, is full: new jobs are refused, outcomes still go in.
    #[error("the disk is full: {detail}; new jobs are refused until space is freed, outcomes still go in")]
    DiskFull {
        /// What the operating system said.
        detail: String,
    },
    /// A record on which the answer hangs cannot be read.
    #[error(
        "{what} may be known, and the record that would tell cannot be read: {detail}; `biotope log verify` tells more"
    )]
    Damaged {
        /// "the id" or "the idempotency key".
        what: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// A word about a rollover, where there is nothing that it could be about.
    #[error("{worker_type}: {detail}")]
    NoRollout {
        /// The type.
        worker_type: String,
        /// Why not, and what can be done instead.
        detail: String,
    },
    /// The process is stopping.
    #[error("biotope is stopping")]
    Stopping,
    /// A write or sync of the log failed; nothing more is acknowledged, and the process ends.
    #[error("the log is poisoned by a failed write or sync; whether this call took effect is unknown")]
    Poisoned,
    /// The config was not accepted.
    #[error("{detail}")]
    InvalidConfig {
        /// All problems, as printed by `check-config`.
        detail: String,
    },
    /// What is to be taken over cannot be while this process runs; a stop and a start can.
    #[error("{detail}")]
    NeedsRestart {
        /// What it is that cannot, and what to do.
        detail: String,
    },
    /// The new binary may not take over.
    #[error("{detail}")]
    UpgradeRefused {
        /// Why not.
        detail: String,
    },
}

impl Refusal {
    /// The stable code, the same on every surface.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownType { .. } => "unknown_type",
            Self::UnknownVersion { .. } => "unknown_version",
            Self::InvalidJson { .. } => "invalid_json",
            Self::InvalidJob { .. } => "invalid_job",
            Self::TooLarge { .. } => "too_large",
            Self::KeyConflict { .. } => "key_conflict",
            Self::NotFound { .. } => "not_found",
            Self::WrongState { .. } => "wrong_state",
            Self::Busy { .. } => "busy",
            Self::DiskFull { .. } => "disk_full",
            Self::Damaged { .. } => "damaged",
            Self::NoRollout { .. } => "no_rollout",
            Self::Stopping => "stopping",
            Self::Poisoned => "poisoned",
            Self::InvalidConfig { .. } => "invalid_config",
            Self::NeedsRestart { .. } => "needs_restart",
            Self::UpgradeRefused { .. } => "upgrade_refused",
        }
    }
}
