//! Ending it all in good order: nothing new begins, what runs may finish for a while, and the log's last word says so.

use std::time::Duration;

use super::command::To;
use super::core::Core;
use crate::job::event::{Event, Stopped};
use crate::log::Poisoned;

/// What a cut-off pool may take beyond its children's time to be killed, before the process ends without it.
const GIVE_UP_AFTER: Duration = Duration::from_secs(5);

/// A stop in progress.
pub(super) struct Stopping {
    pub(super) deadline: Duration,
    pub(super) cut_off: bool,
    pub(super) waiting: Vec<To<()>>,
}

impl Core {
    pub(super) fn stop(&mut self, to: To<()>) -> Result<(), Poisoned> {
        match &mut self.stopping {
            Some(stopping) => {
                // Asked again: now.
                stopping.deadline = stopping.deadline.min(self.mono);
                stopping.waiting.push(to);
            }
            None => {
                let deadline = self.mono + self.config.stop_timeout;
                self.stopping = Some(Stopping { deadline, cut_off: false, waiting: vec![to] });
                self.shared.set_stopping();
                let pools: Vec<_> = self.pools.keys().copied().collect();
                for pool in pools {
                    self.dismiss(pool, None)?;
                }
                // What is refused now need not wait for any name.
                std::mem::take(&mut self.awaiting_names).into_iter().try_for_each(|command| self.handle(command))?;
            }
        }
        Ok(())
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    pub(super) fn is_over(&self) -> bool {
        let Some(stopping) = &self.stopping else { return false };
        let waits = self.looking > 0 || !self.awaiting_names.is_empty();
        (self.pools.is_empty() && !waits) || (stopping.cut_off && stopping.deadline <= self.mono)
    }

    /// Writes the last words.
    pub(super) fn finish(&mut self) -> Result<(), Poisoned> {
        for born in self.held_leases() {
            // A pool that did not let go in time: the process ends with it.
            self.give_back(born)?;
        }
        self.record(&Event::Stopped(Stopped { at: self.now }))?;
        self.commit()?;
        self.log.sync()?;
        self.log.seal()?;
        self.shared.set_closed();
        Ok(())
    }

    /// After the stop timeout, what still runs is ended.
    pub(super) fn cut_off_late_stop(&mut self) {
        let Some(stopping) = &mut self.stopping else { return };
        if stopping.deadline <= self.mono && !stopping.cut_off {
            stopping.cut_off = true;
            let kill_after = self.types.values().filter_map(|of_type| of_type.worker.as_ref());
            let kill_after = kill_after.map(|worker| worker.live.kill_after).max().unwrap_or_default();
            stopping.deadline = self.mono + kill_after + GIVE_UP_AFTER;
            for run in self.pools.values() {
                run.pool.cut_off();
            }
        }
    }
}
