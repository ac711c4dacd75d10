//! The sizes that follow their queues, as they are shown.

use serde::Serialize;

/// How many workers a type has been given, and why.
#[derive(Debug, Clone, Serialize)]
pub struct ScaleView {
    /// `concurrency.min`.
    pub min: u32,
    /// `concurrency.max`.
    pub max: u32,
    /// `target_wait`.
    pub target_wait_ms: u64,
    /// Workers that it shall have.
    pub workers: u32,
    /// Why so many, in words.
    pub reason: &'static str,
}
