//! What a native worker answers: a result, a [`Failure`] that says what shall follow, or an [`Outcome`] as it is.

use std::fmt::Display;
use std::time::Duration;

use serde::Serialize;

use crate::worker::Outcome;

/// What a worker may answer a job with: nothing, a `Result`, or an [`Outcome`].
pub trait Reply {
    /// What becomes of the run.
    fn outcome(self) -> Outcome;
}

impl Reply for Outcome {
    fn outcome(self) -> Outcome {
        self
    }
}

/// Done, without a result.
impl Reply for () {
    fn outcome(self) -> Outcome {
        Outcome::Done { result: None, enqueue: Vec::new() }
    }
}

/// Done with what the value is as JSON, where `null` is no result; or what the failure says.
impl<T: Serialize, E: Into<Failure>> Reply for Result<T, E> {
    fn outcome(self) -> Outcome {
        let value = match self {
            Ok(value) => value,
            Err(failure) => return failure.into().outcome(),
        };
        match serde_json::to_vec(&value) {
            Ok(json) => Outcome::Done { result: (json != b"null").then_some(json), enqueue: Vec::new() },
            Err(error) => Failure::retry(format_args!("the result cannot be written as JSON: {error}")).outcome(),
        }
    }
}

impl Reply for Failure {
    fn outcome(self) -> Outcome {
        match self {
            Self::Retry { error } => Outcome::Fail { error, killed: false },
            Self::RetryAfter { error, after } => Outcome::Defer { error, after: Some(after) },
            Self::Dead { error } => Outcome::Dead { error },
            Self::Cancel { reason } => Outcome::Cancel { reason },
        }
    }
}

/// Why a run was not successful, and what shall follow. Every error that can be shown becomes one by `?`: its attempt
/// counts, and the job is tried again by backoff.
///
/// ```
/// use std::time::Duration;
/// use biotope::worker::native::Failure;
///
/// fn charge(cents: &str) -> Result<u64, Failure> {
///     let cents: u64 = cents.parse()?; // a failed attempt, with the error's text
///     match cents {
///         0 => Err(Failure::cancel("nothing to charge")),
///         1..100 => Err("the terminal did not answer".into()),
///         100..10_000 => Ok(cents),
///         10_000..1_000_000 => Err(Failure::retry_after(Duration::from_secs(60), "the limit is reached")),
///         _ => Err(Failure::dead("nobody has that much")),
///     }
/// }
/// assert!(matches!(charge("12"), Err(Failure::Retry { .. })));
/// assert_eq!(charge("x"), Err(Failure::Retry { error: "invalid digit found in string".to_owned() }));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The attempt counts; the job is tried again by backoff, and dead after its last attempt.
    Retry {
        /// Why; its end is kept.
        error: String,
    },
    /// The job is tried again after a pause, and no attempt counts: at most 100 times, then it is dead.
    RetryAfter {
        /// Why; may be empty.
        error: String,
        /// The pause.
        after: Duration,
    },
    /// The job is dead, whatever attempts it has left.
    Dead {
        /// Why.
        error: String,
    },
    /// The job is cancelled: it is not to be done any more, and nothing is wrong.
    Cancel {
        /// Why; may be empty.
        reason: String,
    },
}

impl Failure {
    /// A failed attempt: tried again by backoff.
    pub fn retry(error: impl Display) -> Self {
        // An error with causes tells them all in this form.
        Self::Retry { error: format!("{error:#}") }
    }

    /// To be tried again after a pause, at no attempt's cost.
    pub fn retry_after(after: Duration, error: impl Display) -> Self {
        Self::RetryAfter { error: format!("{error:#}"), after }
    }

    /// Never to be tried again, until a person says so.
    pub fn dead(error: impl Display) -> Self {
        Self::Dead { error: format!("{error:#}") }
    }

    /// Not to be done any more.
    pub fn cancel(reason: impl Display) -> Self {
        Self::Cancel { reason: format!("{reason:#}") }
    }
}

impl<E: Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::retry(error)
    }
}
