//! The steps of a job's life, and its failed attempts, as they are shown.

use serde::Serialize;

use crate::types::UnixMs;

/// What became of a job, as far as the log says.
#[derive(Debug, Clone, Default, Serialize)]
pub struct TimelineView {
    /// Its steps, in order.
    pub steps: Vec<StepView>,
    /// Whether that is all: no record of it has left the log, and none lies too far on to be read for one look.
    pub whole: bool,
    /// Ids of the jobs that it enqueued.
    pub enqueued: Vec<String>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepView {
    /// `accepted`; how a run ended: `completed`, `failed`, `failed_uncharged` (another run follows at no cost), `died`, `given_back`,
    /// `deferred`, `not_started`, `lost` (what ran it ended: biotope, or its helper), `running`; `redriven`; or `cancelled`, `expired`, `discarded`.
    pub what: &'static str,
    /// When; for a run that goes on, when it began.
    pub at_ms: UnixMs,
    /// The version that ran it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The worker of that version that ran it, by its number within the pool, where it has one; there may be another one of that
    /// number since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<u32>,
    /// From when it was handed out to then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
    /// The error, or the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub says: Option<String>,
    /// When it may run next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<UnixMs>,
}

/// One failed attempt.
#[derive(Debug, Clone, Serialize)]
pub struct FailureView {
    /// Which attempt, from 1; 0: it cost none.
    pub attempt: u16,
    /// When it failed.
    pub at: String,
    /// Label of the version that ran it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The worker that ran it, by its number within the version's pool, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<u32>,
    /// The end of its error.
    pub error: String,
}
