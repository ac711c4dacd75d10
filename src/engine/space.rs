//! The bounds that the config sets for the disk before it is full: how much the log takes (`log.disk_max`), and how much stays free
//! (`log.disk_free_min`).
//!
//! Beyond them new jobs are refused, and nothing else: what becomes of jobs is recorded as long as there is space at all
//! ([`super::room`]). History gives way before, where that is enough.

use std::sync::Arc;
use std::time::Duration;

use super::core::Core;
use super::due::LOOK_FOR_SPACE_EVERY;
use crate::config::{FreeMin, units};
use crate::log::LogFigures;
use crate::log::disk::Free;

/// History gives way while less than so many segments are free beyond what must be: so it is out of the way in time.
const GIVES_WAY_AT: u64 = 2;
/// What gave way may be seen as free only after so long: some file systems free late. Until then no more is given than was wanted.
const SEEN_FREE_AFTER: Duration = Duration::from_secs(10);
/// A log is told of so often at most when space comes and goes.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// How it stands with them.
#[derive(Default)]
pub(super) struct Space {
    /// The bound that is met, as a clause.
    met: Option<Arc<String>>,
    /// When it is looked at again.
    look_at: Duration,
    /// Segments of history that may still give way for the disk's sake.
    gives: u64,
    /// When that is reckoned again.
    gives_until: Duration,
    /// Whether it was said that a bound is met, and when one may be told of again.
    said: bool,
    say_at: Duration,
}

impl Core {
    /// Why new jobs are refused for want of space, if they are.
    pub(super) fn why_full(&self) -> Option<Arc<String>> {
        self.log.full().or_else(|| self.space.met.clone())
    }

    /// Whether a bound is met, or history is to give way before one is.
    pub(super) fn asks_for_space(&self) -> bool {
        self.space.met.is_some() || self.space.gives > 0
    }

    /// Looks whether a bound is met, if that was not done just now.
    pub(super) fn look_at_space(&mut self) {
        if self.mono < self.space.look_at {
            return;
        }
        self.space.look_at = self.mono + LOOK_FOR_SPACE_EVERY;
        let waits = self.waits_for_disk();
        // What no file system says is no reason to refuse anything.
        let free = self.log.free();
        drop(waits);
        let must = free.map_or(0, |free| self.must_be_free(free));
        self.reckon_what_gives_way(free.map_or(u64::MAX, |free| free.free), must);
        let met = self.log_is_at_its_bound(&self.log.figures()).then(|| self.too_large());
        self.space.met = met
            .or_else(|| free.filter(|free| free.free < must).map(|free| self.too_little_free(free, must)))
            .map(Arc::new);
        match (&self.space.met, self.space.said) {
            (Some(why), false) if self.mono >= self.space.say_at => {
                tracing::warn!("{why}; new jobs are refused until there is more");
                (self.space.said, self.space.say_at) = (true, self.mono + SAY_EVERY);
            }
            (None, true) => {
                tracing::info!("there is space again: new jobs are taken");
                self.space.said = false;
            }
            _ => {}
        }
    }

    /// Has the next turn look again: what was seen does not hold any more.
    pub(super) fn look_at_space_again(&mut self) {
        self.space.look_at = Duration::ZERO;
    }

    /// Bytes that the log takes of its disk, but for checkpoints.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.log.figures().disk_bytes + self.set_aside_bytes()
    }

    fn set_aside_bytes(&self) -> u64 {
        self.log.reader().set_aside_count() as u64 * self.log.options().segment_bytes
    }

    /// Whether another segment would take the log beyond its bound; the next one counts, whether it is there yet or not.
    fn log_is_at_its_bound(&self, figures: &LogFigures) -> bool {
        let taken = figures.disk_bytes + figures.ordered_bytes + self.set_aside_bytes();
        self.config.log.disk_max.is_some_and(|most| taken + self.log.options().segment_bytes > most)
    }

    fn too_large(&self) -> String {
        let most = units::show_size(self.config.log.disk_max.unwrap_or_default());
        format!("the log takes {} MiB, and a segment more is beyond `log.disk_max`, {most}", self.disk_bytes() >> 20)
    }

    fn must_be_free(&self, disk: Free) -> u64 {
        match self.config.log.disk_free_min {
            FreeMin::Share(percent) => disk.total / 100 * u64::from(percent),
            FreeMin::Bytes(bytes) => bytes,
        }
    }

    fn too_little_free(&self, disk: Free, must: u64) -> String {
        let said = match self.config.log.disk_free_min {
            FreeMin::Share(percent) => format!("{percent}%"),
            FreeMin::Bytes(bytes) => units::show_size(bytes),
        };
        let (place, free, must) = (self.log.place(), disk.free >> 20, must >> 20);
        format!("only {free} MiB are free in {}, and `log.disk_free_min` is {said}, {must} MiB there", place.display())
    }

    /// How much history gives way for the disk's sake: what is wanted, if that can be had at all; else it would be lost for nothing.
    fn reckon_what_gives_way(&mut self, free: u64, must: u64) {
        let segment = self.log.options().segment_bytes;
        let wanted = if must == 0 { 0 } else { must.saturating_add(GIVES_WAY_AT * segment).saturating_sub(free) };
        if wanted == 0 {
            (self.space.gives, self.space.gives_until) = (0, Duration::ZERO);
        } else if self.mono >= self.space.gives_until {
            let can = self.can_give_way(&self.log.figures());
            // The first file that is freed is kept for the log's next segment.
            self.space.gives = if wanted <= can { wanted.div_ceil(segment) + 1 } else { 0 };
            self.space.gives_until = self.mono + SEEN_FREE_AFTER;
        }
    }

    /// Bytes that the log could do without: what lives is in other segments then, in the one that is written and the next.
    fn can_give_way(&self, figures: &LogFigures) -> u64 {
        let segment = self.log.options().segment_bytes;
        (u64::from(figures.active - figures.head) * segment).saturating_sub(self.table.live_bytes() + 2 * segment)
    }

    /// Whether the head should move on for the sake of a bound.
    pub(super) fn should_give_way(&self, figures: &LogFigures) -> bool {
        // What was passed and is not free yet comes first.
        let seen = figures.held_bytes == 0 && self.log.is_head_durable();
        let without = LogFigures { disk_bytes: figures.disk_bytes - figures.held_bytes, ..*figures };
        self.space.gives > 0 && seen || self.log_is_at_its_bound(&without)
    }

    /// Whether the log becomes smaller by sweeps: not where it holds little but what lives, which would be restated for ever.
    pub(super) fn gains_by_sweeps(&self, figures: &LogFigures) -> bool {
        self.can_give_way(figures) > 0 || self.table.live_bytes() <= self.log.options().segment_bytes / 2
    }

    /// The head has moved on.
    pub(super) fn has_given_way(&mut self) {
        self.space.gives = self.space.gives.saturating_sub(1);
    }

    /// History that is kept, in bytes: less than `log.retain` where the log would be at its bound with it. `least`: what it takes
    /// without any.
    pub(super) fn retained(&self, least: u64) -> u64 {
        let log = &self.config.log;
        // What comes while the head is cleaned, and the segment that is made ahead, are beyond what is retained.
        let beyond = 2 * self.log.options().segment_bytes + least + self.set_aside_bytes();
        log.retain.min(log.disk_max.map_or(u64::MAX, |most| most.saturating_sub(beyond)))
    }
}
