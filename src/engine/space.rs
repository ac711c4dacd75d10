//! The bounds that the config sets for the disk before it is full: how much the log takes (`log.disk_max`), and how much stays free
//! (`log.disk_free_min`).
//!
//! Beyond them new jobs are refused, and nothing else: what becomes of jobs is recorded as long as there is space at all
//! ([`super::room`]). History gives way first, where that is enough.

use std::sync::Arc;
use std::time::Duration;

use super::core::Core;
use super::due::LOOK_FOR_SPACE_EVERY;
use crate::config::{FreeMin, units};
use crate::log::LogFigures;

/// A bound that is met.
struct Met {
    /// Which, as a clause.
    why: Arc<String>,
    /// Bytes that are wanted of the disk; 0: it is the log that is too large.
    wanted: u64,
}

/// How it stands with them.
#[derive(Default)]
pub(super) struct Space {
    met: Option<Met>,
    /// When it is looked at again.
    look_at: Duration,
    /// A segment of history may give way for what is wanted: one for each look, until what it leaves is seen.
    may_give_way: bool,
}

impl Core {
    /// Why new jobs are refused for want of space, if they are.
    pub(super) fn why_full(&self) -> Option<Arc<String>> {
        self.log.full().or_else(|| self.space.met.as_ref().map(|met| Arc::clone(&met.why)))
    }

    /// Looks whether a bound is met, if that was not done just now.
    pub(super) fn look_at_space(&mut self) {
        if self.mono < self.space.look_at {
            return;
        }
        self.space.look_at = self.mono + LOOK_FOR_SPACE_EVERY;
        let waits = self.waits_for_disk();
        let met = self.bound_met();
        drop(waits);
        match (&met, &self.space.met) {
            (Some(met), None) => tracing::warn!("{}; new jobs are refused until there is more", met.why),
            (None, Some(_)) => tracing::info!("there is space again: new jobs are taken"),
            _ => {}
        }
        self.space.may_give_way = met.as_ref().is_some_and(|met| met.wanted > 0);
        self.space.met = met;
    }

    /// Has the next turn look again: by other bounds.
    pub(super) fn look_at_space_again(&mut self) {
        self.space.look_at = Duration::ZERO;
    }

    /// Bytes that the log takes of its disk, but for checkpoints.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.log.figures().disk_bytes + self.log.reader().set_aside_count() as u64 * self.log.options().segment_bytes
    }

    fn bound_met(&self) -> Option<Met> {
        let log = &self.config.log;
        let (taken, segment) = (self.disk_bytes(), self.log.options().segment_bytes);
        if let Some(most) = log.disk_max.filter(|most| taken + segment > *most) {
            let (taken, most) = (taken >> 20, units::show_size(most));
            let why = format!("the log takes {taken} MiB, and a segment more is beyond `log.disk_max`, {most}");
            return Some(Met { why: Arc::new(why), wanted: 0 });
        }
        // What no file system says is no reason to refuse anything.
        let free = self.log.free()?;
        let (min, said) = match log.disk_free_min {
            FreeMin::Share(percent) => (free.total / 100 * u64::from(percent), format!("{percent}%")),
            FreeMin::Bytes(bytes) => (bytes, units::show_size(bytes)),
        };
        // It ends with a segment to spare, so that it does not come and go.
        let spare = if self.space.met.as_ref().is_some_and(|met| met.wanted > 0) { segment } else { 0 };
        let wanted = min.saturating_add(spare).checked_sub(free.free).filter(|wanted| *wanted > 0 && min > 0)?;
        let place = self.log.place();
        let (free, min) = (free.free >> 20, min >> 20);
        let why = format!(
            "only {free} MiB are free in {}, and `log.disk_free_min` is {said}, {min} MiB there",
            place.display()
        );
        Some(Met { why: Arc::new(why), wanted })
    }

    /// Whether a bound is met.
    pub(super) fn is_bound_met(&self) -> bool {
        self.space.met.is_some()
    }

    /// History that is kept just now, in bytes: less than `log.retain` where it would leave no room for new jobs. `figures`: the log's;
    /// `least`: what it takes without any.
    pub(super) fn retained(&self, figures: &LogFigures, least: u64) -> u64 {
        let (log, segment) = (&self.config.log, self.log.options().segment_bytes);
        // What comes while the head is cleaned, and the segment that is made ahead, are beyond what is retained.
        let fits = log.disk_max.map(|most| most.saturating_sub(2 * segment + least));
        let retain = log.retain.min(fits.unwrap_or(u64::MAX));
        let wanted = self.space.met.as_ref().map_or(0, |met| met.wanted);
        let history = figures.disk_bytes.saturating_sub(figures.held_bytes + least + segment);
        // Where all of it is not enough, it would be lost for nothing.
        if wanted > 0 && wanted <= history { 0 } else { retain }
    }

    /// Whether history may give way once more before it is looked again; where the config's bounds ask for nothing, they forbid nothing.
    pub(super) fn may_give_way(&mut self) -> bool {
        let wants = self.space.met.as_ref().is_some_and(|met| met.wanted > 0);
        !wants || std::mem::take(&mut self.space.may_give_way)
    }
}
