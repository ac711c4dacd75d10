//! What the engine counts for monitoring systems: its own syncs, and the runs of versions whose pools are gone.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::engine::core::Core;
use crate::engine::runs::PoolRun;
use crate::engine::view::{MeasuresView, VersionRuns};
use crate::measure::{Runs, Syncs};
use crate::types::Seq;

/// Versions without a pool whose runs are still told.
const KEPT_MAX: usize = 256;

/// Counts of this process.
pub(in crate::engine) struct Measured {
    syncs: Syncs,
    last_sync: Duration,
    /// One past what the last sync made durable.
    synced_up_to: Seq,
    /// Runs of versions whose pools ended, by number.
    kept: BTreeMap<u32, Box<Runs>>,
}

impl Measured {
    /// Of a log that is durable so far.
    pub(in crate::engine) fn from(durable_up_to: Seq) -> Self {
        Self { syncs: Syncs::default(), last_sync: Duration::ZERO, synced_up_to: durable_up_to, kept: BTreeMap::new() }
    }

    /// A sync made the log durable up to here.
    pub(in crate::engine) fn synced(&mut self, took: Duration, durable_up_to: Seq) {
        self.syncs.observe(took, durable_up_to.saturating_sub(self.synced_up_to));
        (self.last_sync, self.synced_up_to) = (took, durable_up_to);
    }

    /// How long the last sync took.
    pub(in crate::engine) fn last_sync(&self) -> Duration {
        self.last_sync
    }

    /// What the pools of a version had done, for its next one.
    pub(in crate::engine) fn take(&mut self, version_no: u32) -> Box<Runs> {
        self.kept.remove(&version_no).unwrap_or_default()
    }

    /// What a pool did that is gone.
    pub(in crate::engine) fn keep(&mut self, version_no: u32, runs: &Runs) {
        self.kept.entry(version_no).or_default().add(runs);
        if self.kept.len() > KEPT_MAX {
            // The version that came first is asked for least.
            self.kept.pop_first();
        }
    }
}

impl Core {
    /// Everything that lives here, with what was counted of it.
    pub(in crate::engine) fn measures(&self) -> MeasuresView {
        let mut of: BTreeMap<u32, Runs> = self.measured.kept.iter().map(|(no, runs)| (*no, (**runs).clone())).collect();
        for PoolRun { version_no, runs, .. } in self.pools.values() {
            of.entry(*version_no).or_default().add(runs);
        }
        let named = |(no, runs)| {
            let version = self.table.version(no)?;
            let worker_type = self.table.worker_type(version.type_no)?.name.clone();
            Some(VersionRuns { worker_type, version: version.label.to_string(), runs })
        };
        MeasuresView {
            ecosystem: self.ecosystem(),
            versions: of.into_iter().filter_map(named).collect(),
            syncs: self.measured.syncs.clone(),
        }
    }
}
