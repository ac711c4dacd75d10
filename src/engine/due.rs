//! What the engine does because it is time to, and how long it may sleep until then.

use std::time::Duration;

use super::core::Core;
use super::runs::PoolRun;
use crate::log::Poisoned;
use crate::types::millis;

/// Longest sleep: the wall clock may have been set meanwhile.
const SLEEP_MAX: Duration = Duration::from_secs(30);
/// Where no segment can be made, or a bound of the config is near, the engine looks so often whether that is still so.
pub(super) const LOOK_FOR_SPACE_EVERY: Duration = Duration::from_millis(250);
/// While a checkpoint is being written and nothing else happens, the engine gives more of it away so often.
const GO_ON_WITH_CHECKPOINT: Duration = Duration::from_micros(200);

impl Core {
    /// How long nothing is due.
    pub(super) fn sleep(&mut self) -> Duration {
        self.tick();
        let retain_ms = millis(self.config.log.dead_retain);
        let dead = self.table.oldest_dead().map(|(since, _)| since.saturating_add(retain_ms));
        let moments = [self.table.next_moment(), dead].into_iter().flatten();
        let wants_space = !self.waiting.is_empty() || self.is_short_of_room();
        let space = wants_space.then_some(LOOK_FOR_SPACE_EVERY);
        let bound = self.asks_for_space().then_some(LOOK_FOR_SPACE_EVERY);
        let checkpoint = self.more_of_checkpoint.then_some(GO_ON_WITH_CHECKPOINT);
        let by_wall =
            moments.map(|at| Duration::from_millis(at.saturating_sub(self.now)).max(space.unwrap_or_default()));
        let stop = self.stop_due();
        let drains = self.pools.values().filter_map(|run| run.deadline);
        let rollovers = drains.chain(self.next_of_trials()).chain(self.next_try());
        let looks = self.pools.values().filter_map(PoolRun::look_due);
        let deadlines =
            [self.seal_at, self.sync_at, stop, self.beat_due()].into_iter().flatten().chain(rollovers).chain(looks);
        let by_mono = deadlines.map(|at| at.saturating_sub(self.mono));
        // While nothing is handed out, no size changes.
        let sizes = if space.is_none() { self.sizes_due() } else { None };
        by_wall
            .chain(by_mono)
            .chain(sizes)
            .chain(space)
            .chain(bound)
            .chain(checkpoint)
            .min()
            .unwrap_or(SLEEP_MAX)
            .min(SLEEP_MAX)
    }

    /// What follows from the clocks.
    pub(super) fn timers(&mut self) -> Result<(), Poisoned> {
        self.table.ripen(self.now);
        if self.log.full().is_some() {
            self.clean_if_due();
            self.free_passed_segments()?;
        } else if self.asks_for_space() {
            self.clean_for_space();
            self.free_passed_segments()?;
        }
        if !self.is_short_of_room() {
            self.expire()?;
            self.forget_dead()?;
        }
        if self.sync_at.is_some_and(|at| at <= self.mono) {
            self.sync()?;
        }
        if self.seal_at.is_some_and(|at| at <= self.mono) && !self.log.has_unwritten() {
            self.seal_at = None;
            self.await_commit()?;
            let waits = self.waits_for_disk();
            self.log.seal()?;
            drop(waits);
        }
        self.look_for_overdue()?;
        self.end_of_deadlines()?;
        self.go_on_with_trials()?;
        self.try_again()?;
        self.cut_off_late_stop();
        self.tell_idle();
        Ok(())
    }
}
