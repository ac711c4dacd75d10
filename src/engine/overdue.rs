//! Looking after runs past their deadline where nobody can end them: what the pools decide is asked for here, in time.

use std::time::Duration;

use super::core::Core;
use super::runs::PoolRun;
use crate::job::event::Release;
use crate::limits::ABANDONED_MAX;
use crate::log::Poisoned;
use crate::rollover::state::State;

impl PoolRun {
    /// Why it takes nothing more, if too many of its threads are abandoned.
    pub(super) fn hangs(&self) -> Option<String> {
        let many = self.pool.abandoned();
        (many >= ABANDONED_MAX).then(|| {
            format!("{many} threads hang in runs past their deadline: it takes nothing more until one of them returns")
        })
    }

    /// When it is to be looked at, if it holds anything, or may hold its probe.
    pub(super) fn look_due(&self) -> Option<Duration> {
        let probes = self.up == 0 && self.role != State::Current && self.spec.worker.live.probe.is_some();
        (self.handed > 0 || probes).then_some(self.look_at)
    }
}

impl Core {
    /// Has pools look at their threads, where that is due.
    pub(super) fn look_for_overdue(&mut self) -> Result<(), Poisoned> {
        let mono = self.mono;
        let mut hanging = Vec::new();
        for (pool, run) in &mut self.pools {
            if run.look_due().is_none_or(|at| at > mono) {
                continue;
            }
            let before = run.pool.size();
            run.look_at = run.pool.look(mono).unwrap_or(Duration::MAX);
            if run.pool.size() < before {
                // One was abandoned, and none was to be had for it.
                run.resize(before, mono);
            }
            if let Some(why) = run.hangs() {
                tracing::error!(version = %run.label, why, "a pool takes nothing more");
                hanging.push((*pool, run.pool.take_back()));
            }
        }
        for (pool, tasks) in hanging {
            self.take_back(pool, tasks, Release::NotStarted)?;
        }
        Ok(())
    }
}
