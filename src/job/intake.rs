//! Untrusted JSON in, [`NewJob`](super::new::NewJob) or a refusal out.

use super::new::NewJob;
use crate::refusal::Refusal;
use crate::types::{UnixMs, WorkerType};

/// Bounds that depend on the config.
#[derive(Debug, Clone, Copy)]
pub struct IntakeLimits {
    /// `[log] payload_max`, bytes.
    pub payload_max: usize,
}

/// Parses one job object; `default_type` stands in where `type` is absent.
///
/// # Errors
/// `InvalidJson` with its place, `InvalidJob` naming the member, `TooLarge` for the payload.
#[allow(unused_variables, clippy::todo, reason = "skeleton, replaced by the parser")]
pub fn parse_job(
    text: &[u8],
    default_type: Option<&WorkerType>,
    limits: IntakeLimits,
    now: UnixMs,
) -> Result<NewJob, Refusal> {
    todo!()
}
