//! Pausing a type, until somebody resumes it: its jobs are taken in and wait, what runs goes on to its end.
//!
//! Durable: a pause outlives restarts, rollovers and cleaning.

use super::command::To;
use super::core::Core;
use crate::job::event::{Event, Paused, Release};
use crate::log::Poisoned;
use crate::pool::PoolId;
use crate::refusal::Refusal;
use crate::types::UnixMs;

impl Core {
    /// Pauses or resumes a type; one that is so already stays so.
    pub(super) fn pause(
        &mut self,
        worker_type: &str,
        paused: bool,
        to: To<Result<UnixMs, Refusal>>,
    ) -> Result<(), Poisoned> {
        let known = self.table.type_no(worker_type).and_then(|no| Some((no, self.table.worker_type(no)?.paused_since)));
        let Some((type_no, before)) = known else {
            let refusal = self.shared.unknown_type(worker_type);
            self.reply(move |_| to.give(Err(refusal)));
            return Ok(());
        };
        let since = match (paused, before) {
            (false, _) => 0,
            (true, 0) => self.now,
            (true, before) => before,
        };
        if since != before {
            self.record(&Event::Paused(Paused { type_no, since, at: self.now }))?;
            if paused {
                self.take_back_unbegun(type_no)?;
            }
        }
        self.reply(move |durable| to.give(if durable { Ok(since) } else { Err(Refusal::Poisoned) }));
        Ok(())
    }

    /// What the pools of a type have not begun waits in its queue again.
    fn take_back_unbegun(&mut self, type_no: u32) -> Result<(), Poisoned> {
        let pools: Vec<PoolId> =
            self.pools.iter().filter(|(_, run)| run.type_no == type_no).map(|(pool, _)| *pool).collect();
        for pool in pools {
            let tasks = self.pools.get(&pool).map(|run| run.pool.take_back()).unwrap_or_default();
            self.take_back(pool, tasks, Release::NotStarted)?;
        }
        Ok(())
    }
}
