//! A job as its producer describes it, before the engine has decided anything about it.

use std::time::Duration;

use super::trace::TraceParent;
use crate::refusal::Refusal;
use crate::types::{ChosenId, Label, Priority, UnixMs, WorkerType};

/// When a job may first run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// As soon as a worker is free.
    #[default]
    Now,
    /// At a moment of the wall clock.
    At(UnixMs),
    /// So long after it was accepted.
    After(Duration),
}

/// A job to enqueue. Every text in it is within its bound (`limits`), the payload is one JSON value without
/// insignificant white space, so on one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJob {
    /// The caller's own id; `None`: one is made.
    pub id: Option<ChosenId>,
    /// The worker type, and so the queue.
    pub worker_type: WorkerType,
    /// What the worker shall do, for types that know several tasks; may be empty.
    pub task: String,
    /// JSON text.
    pub payload: Vec<u8>,
    /// 0 to 9, 9 first.
    pub priority: Priority,
    /// Whom the job is for.
    pub tenant: Option<String>,
    /// When it may first run.
    pub start: Start,
    /// From this moment on the job is not begun any more, but Expired.
    pub expires_at: Option<UnixMs>,
    /// `None`: as its type says when it is accepted.
    pub max_attempts: Option<u16>,
    /// The version of its type that may run it first: this one, or one that was first accepted after it. Until one of these is
    /// where work goes, the job is parked. `None`: any may.
    pub min_version: Option<Label>,
    /// Makes a repeated call return the first job.
    pub idempotency_key: Option<ChosenId>,
    /// The trace that it belongs to; of a follow-up job, `None`: that of the job before it. A repeated call may name another one.
    pub traceparent: Option<TraceParent>,
}

impl NewJob {
    /// A job of the type with this name, with a payload of any kind that serde writes; everything else by default.
    ///
    /// ```
    /// # use biotope::job::new::{NewJob, Start};
    /// # use std::time::Duration;
    /// let job = NewJob::json("reminder", &("order", 7))?;
    /// let later = NewJob { start: Start::After(Duration::from_secs(3600)), tenant: Some("acme".into()), ..job };
    /// assert_eq!(later.payload, b"[\"order\",7]");
    /// # Ok::<(), biotope::refusal::Refusal>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidJob`: the name is none, or the payload cannot be written as JSON.
    pub fn json(worker_type: &str, payload: &impl serde::Serialize) -> Result<Self, Refusal> {
        let worker_type = worker_type.parse().map_err(|bad| Refusal::InvalidJob {
            detail: format!("member \"type\": the name {worker_type:?} {bad}"),
        })?;
        let payload = serde_json::to_vec(payload)
            .map_err(|error| Refusal::InvalidJob { detail: format!("member \"payload\": {error}") })?;
        Ok(Self::new(worker_type, payload))
    }

    /// A job of `worker_type` with a payload of JSON text; everything else by default. The text is taken as it is:
    /// see [`crate::job::intake`] for the parser of untrusted text.
    pub fn new(worker_type: WorkerType, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            id: None,
            worker_type,
            task: String::new(),
            payload: payload.into(),
            priority: Priority::default(),
            tenant: None,
            start: Start::Now,
            expires_at: None,
            max_attempts: None,
            min_version: None,
            idempotency_key: None,
            traceparent: None,
        }
    }
}

/// The answer to an accepted job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The job's id.
    pub id: String,
    /// Its worker type.
    pub worker_type: WorkerType,
    /// Its state on the wire, lower case: `ready`, `delayed`, `parked`, or what became of the first job of a duplicate.
    pub state: &'static str,
    /// Whether this is an earlier job, found by id or idempotency key.
    pub duplicate: bool,
}
