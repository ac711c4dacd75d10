//! What monitoring systems are told.

use super::EcosystemView;
use crate::measure::{Runs, Syncs};
use crate::types::WorkerType;

/// Everything that lives here, and counts since the process began.
#[derive(Debug, Clone)]
pub struct MeasuresView {
    /// Everything, at the same moment.
    pub ecosystem: EcosystemView,
    /// What the versions did that have a pool, or had one not long ago.
    pub versions: Vec<VersionRuns>,
    /// What the log's syncs came to.
    pub syncs: Syncs,
}

/// What one version did.
#[derive(Debug, Clone)]
pub struct VersionRuns {
    /// Its type.
    pub worker_type: WorkerType,
    /// Its label.
    pub version: String,
    /// Its runs.
    pub runs: Runs,
}
