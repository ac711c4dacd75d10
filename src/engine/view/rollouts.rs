//! Versions on trial and drains, as they are shown.

use serde::Serialize;

use super::{HeldView, VersionView};
use crate::rollover::evidence::EvidenceView;
use crate::types::{UnixMs, WorkerType};

/// A version on trial beside the one before.
#[derive(Debug, Clone, Serialize)]
pub struct TrialView {
    /// Its label.
    pub version: String,
    /// The one before, which makes up for its failures.
    pub baseline: String,
    /// `first_jobs` (one at a time), `ramp`, `probation` (it has taken over), or `suspected` (most of its share goes to the one
    /// before until it is clear who is to blame).
    pub state: &'static str,
    /// Its share of first attempts, in percent.
    pub percent: u8,
    /// The shares that it gets one after the other.
    pub steps: Vec<u8>,
    /// Whether its share stays as it is until somebody says otherwise.
    pub paused: bool,
    /// Whether it had taken over, and stepped back to its share under a suspicion.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stepped_back: bool,
    /// How long its share stays at least yet, on a ramp.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_for_ms: Option<u64>,
    /// First attempts on it.
    pub samples: u64,
    /// First attempts that its share waits for.
    pub samples_missing: u64,
    /// The evidence in words.
    pub says: String,
    /// That its runs take longer than those of the one before, in words, if they do: a warning, and no reason to withdraw it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slower: Option<String>,
    /// The evidence.
    pub evidence: EvidenceView,
}

/// A version that takes nothing new, and holds jobs.
#[derive(Debug, Clone, Serialize)]
pub struct DrainView {
    /// Jobs that it holds.
    pub in_flight: u64,
    /// Since when it takes nothing new.
    pub since_ms: UnixMs,
    /// In how many milliseconds they are cut off, and given back at no cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut_off_in_ms: Option<u64>,
    /// In how many milliseconds it will be through, by how long its runs took of late, where that says anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta_ms: Option<u64>,
    /// The job that has been held for longest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_up_by: Option<HeldView>,
}

/// What somebody's word about a rollover led to.
#[derive(Debug, Clone, Serialize)]
pub struct RolloutView {
    /// The type.
    #[serde(rename = "type")]
    pub worker_type: WorkerType,
    /// `paused`, `resumed`, `promoted`, `withdrawn`, `rolled back` or `started`.
    pub done: &'static str,
    /// The version on trial now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trial: Option<TrialView>,
    /// Its versions now.
    pub versions: Vec<VersionView>,
}
