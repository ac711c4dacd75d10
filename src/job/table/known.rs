//! What the table knows besides jobs: types, versions, and the accepted config; plain values.

use crate::job::event::Totals;
use crate::job::queue::Queue;
use crate::types::{Label, UnixMs, WorkerType};

/// A worker type that was ever known here.
#[derive(Debug)]
pub struct TypeState {
    /// Its name.
    pub name: WorkerType,
    /// Its ready jobs.
    pub queue: Queue,
    /// Its delayed, reserved and dead jobs.
    pub delayed: u64,
    /// See `delayed`.
    pub reserved: u64,
    /// See `delayed`.
    pub dead: u64,
    /// Its counters.
    pub totals: Totals,
    /// Version that new work goes to, as recorded; 0: none.
    pub route: u32,
    /// Since when it is paused; 0: it is not.
    pub paused_since: UnixMs,
}

/// A version that was ever accepted here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionRecord {
    /// Its type.
    pub type_no: u32,
    /// Its label as shown.
    pub label: Label,
    /// Hash over what defines it.
    pub hash: [u8; 32],
    /// When it was accepted.
    pub at: UnixMs,
    /// Whether it could not start when it was tried last.
    pub rejected: bool,
}

/// The newest accepted config.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GenerationRecord {
    /// Its number; 0: there was none yet.
    pub number: u64,
    /// When it was accepted.
    pub at: UnixMs,
    /// The versions that it asks for.
    pub targets: Vec<u32>,
}
