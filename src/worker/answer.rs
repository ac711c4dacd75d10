//! What the answer to a `job` means for the job.
//!
//! Owns the reading of `result` and `error`. An answer that makes no sense fails its job and no other: the program still
//! speaks the protocol. Pure.

use std::time::Duration;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::Outcome;
use super::followups::place;
use super::launch::OutputLimits;
use super::output::{compact, error_text, front, within};
use crate::job::intake::{IntakeLimits, parse_job};
use crate::job::new::NewJob;
use crate::limits::{DELAY_MAX, ERROR_BYTES_MAX, FOLLOW_UPS_MAX};
use crate::types::UnixMs;

/// `result` of a job. A member that is not known is told, since a misspelt `value` would be lost in silence.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct JobResult<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    value: Option<&'a RawValue>,
    #[serde(borrow, default)]
    enqueue: Vec<&'a RawValue>,
}

/// `error` of a job, or of anything else.
#[derive(Deserialize)]
struct RpcError<'a> {
    code: i64,
    #[serde(default)]
    message: String,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ErrorData {
    outcome: ErrorOutcome,
    after_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum ErrorOutcome {
    Fail,
    Retry,
    Dead,
}

/// The outcome that an answer, `result` or `error`, stands for.
pub(super) fn answer_to_job(answer: Result<&RawValue, &RawValue>, limits: OutputLimits, now: UnixMs) -> Outcome {
    match answer {
        Ok(result) => match done(result, limits, now) {
            Ok((result, enqueue)) => Outcome::Done { result, enqueue },
            Err(why) => Outcome::Fail { error: error_text("bad answer", &why), killed: false },
        },
        Err(error) => failed(error),
    }
}

/// Result and follow-up jobs.
pub(super) type Done = (Option<Vec<u8>>, Vec<NewJob>);

/// What `{value?, enqueue?}` says.
pub(super) fn done(result: &RawValue, limits: OutputLimits, now: UnixMs) -> Result<Done, String> {
    let result: Option<JobResult<'_>> =
        serde_json::from_str(result.get()).map_err(|e| format!("`result` is not {{value?, enqueue?}}: {e}"))?;
    let JobResult { value, enqueue } = result.unwrap_or_default();
    let value = match value.map(|value| compact(value.get()).ok_or("`value` is no JSON")) {
        Some(json) => Some(within(json?, limits.result_max)?),
        None => None,
    };
    if enqueue.len() > FOLLOW_UPS_MAX {
        return Err(format!("`enqueue` holds {} jobs, the most is {FOLLOW_UPS_MAX}", enqueue.len()));
    }
    let intake = IntakeLimits { payload_max: limits.payload_max };
    let parsed = (1..).zip(enqueue).map(|(number, job)| {
        parse_job(job.get().as_bytes(), None, intake, now)
            .map_err(|e| format!("job {number} of `enqueue`{}", place(&e)))
    });
    Ok((value, parsed.collect::<Result<_, _>>()?))
}

fn failed(error: &RawValue) -> Outcome {
    let text = error_message(error);
    let data = serde_json::from_str::<RpcError<'_>>(error.get()).ok().and_then(|e| e.data);
    let Some(data) = data else { return Outcome::Fail { error: text, killed: false } };
    match serde_json::from_str::<ErrorData>(data.get()) {
        Ok(ErrorData { outcome: ErrorOutcome::Fail, .. }) => Outcome::Fail { error: text, killed: false },
        Ok(ErrorData { outcome: ErrorOutcome::Dead, .. }) => Outcome::Dead { error: text },
        Ok(ErrorData { outcome: ErrorOutcome::Retry, after_ms }) => {
            Outcome::Defer { error: text, after: after_ms.map(|ms| Duration::from_millis(ms).min(DELAY_MAX)) }
        }
        Err(why) => Outcome::Fail {
            error: error_text(&format!("{} (bad `data`: {why})", front(&text, 1024)), ""),
            killed: false,
        },
    }
}

/// What an `error` says, whatever it is, within the bound for errors.
pub(super) fn error_message(error: &RawValue) -> String {
    match serde_json::from_str::<RpcError<'_>>(error.get()) {
        Ok(error) if error.message.is_empty() => format!("error {}", error.code),
        Ok(error) => error_text(&error.message, ""),
        Err(why) => error_text(&format!("bad `error` ({why})"), front(error.get(), ERROR_BYTES_MAX / 2)),
    }
}

/// Tells a member that is null from one that is not there.
pub(super) fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&'a RawValue>::deserialize(deserializer).map(Some)
}
