//! The engine's pulse: by it, who supervises the process knows that the engine makes progress, and not only that it is there.
//!
//! The engine's own loop beats, so that one that hangs is silent. While its thread waits for the disk it cannot: then
//! [`Pulse::stand_in`] beats for it, called from another thread, for as long as a disk may take.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::core::Core;
use crate::clock::Clock;
use crate::limits::DISK_PATIENCE;

/// Where the time is kept at which the wait began, that no wait is on.
const NO_WAIT: u64 = 0;

/// How often the engine beats, and who hears it.
pub struct Pulse {
    clock: Arc<dyn Clock>,
    every: Duration,
    beat: Box<dyn Fn() + Send + Sync>,
    /// Since when the engine's thread waits for the disk, in microseconds of the steady clock; [`NO_WAIT`]: it does not.
    /// Stored by the engine, loaded by who stands in; it guards nothing else, so relaxed does.
    waits_since: AtomicU64,
}

impl Pulse {
    /// Has `beat` called by the engine every so often; it must not block.
    pub fn new(clock: Arc<dyn Clock>, every: Duration, beat: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { clock, every, beat: Box::new(beat), waits_since: AtomicU64::new(NO_WAIT) })
    }

    /// How often the engine beats.
    pub fn every(&self) -> Duration {
        self.every
    }

    /// Beats if the engine's thread cannot, since it waits for the disk, and has not done so for too long. Says whether it did.
    pub fn stand_in(&self) -> bool {
        let since = self.waits_since.load(Ordering::Relaxed);
        let waits = self.clock.mono().saturating_sub(Duration::from_micros(since));
        let stands_in = since != NO_WAIT && waits < DISK_PATIENCE;
        if stands_in {
            (self.beat)();
        }
        stands_in
    }

    /// Notes that the engine's thread waits for the disk, until the answer is dropped.
    fn waits(self: &Arc<Self>) -> Waits {
        let now = u64::try_from(self.clock.mono().as_micros()).unwrap_or(u64::MAX);
        self.waits_since.store(now.max(NO_WAIT + 1), Ordering::Relaxed);
        Waits(Arc::clone(self))
    }
}

/// The engine's thread waits for the disk; not twice at a time.
pub(super) struct Waits(Arc<Pulse>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.waits_since.store(NO_WAIT, Ordering::Relaxed);
    }
}

/// The engine's own side of it.
#[derive(Default)]
pub(super) struct Beating {
    pulse: Option<Arc<Pulse>>,
    /// When the next beat is due, by the steady clock.
    next: Duration,
}

impl Core {
    /// Beats from now on.
    pub(super) fn begin_to_beat(&mut self, pulse: Arc<Pulse>) {
        self.beating = Beating { pulse: Some(pulse), next: self.mono };
        self.beat_if_due();
    }

    /// Beats, if it is time to. Called once a turn: what came before has come to an end.
    pub(super) fn beat_if_due(&mut self) {
        let Some(pulse) = self.beating.pulse.as_ref().filter(|_| self.beating.next <= self.mono) else { return };
        self.beating.next = self.mono + pulse.every;
        (pulse.beat)();
    }

    /// When the next beat is due.
    pub(super) fn beat_due(&self) -> Option<Duration> {
        self.beating.pulse.as_ref().map(|_| self.beating.next)
    }

    /// To be held while this thread waits for the disk.
    pub(super) fn waits_for_disk(&self) -> Option<Waits> {
        self.beating.pulse.as_ref().map(Pulse::waits)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::types::UnixMs;

    /// A clock that its test sets.
    #[derive(Default)]
    struct Set(AtomicU64);

    impl Clock for Set {
        fn wall_ms(&self) -> UnixMs {
            0
        }

        fn mono(&self) -> Duration {
            Duration::from_millis(self.0.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn who_stands_in_beats_while_the_disk_is_waited_for_and_no_longer_than_a_disk_may_take() {
        let (clock, beats) = (Arc::new(Set::default()), Arc::new(AtomicUsize::new(0)));
        let heard = Arc::clone(&beats);
        let beat = move || {
            heard.fetch_add(1, Ordering::Relaxed);
        };
        let pulse = Pulse::new(Arc::clone(&clock) as Arc<dyn Clock>, Duration::from_secs(10), beat);
        let begun = 1000;
        clock.0.store(begun, Ordering::Relaxed);
        assert!(!pulse.stand_in(), "an engine that does not wait beats by itself, or not at all");
        let waits = pulse.waits();
        let patience = u64::try_from(DISK_PATIENCE.as_millis()).unwrap();
        for (at, stands_in) in
            [(0, true), (patience / 2, true), (patience - 1, true), (patience, false), (2 * patience, false)]
        {
            clock.0.store(begun + at, Ordering::Relaxed);
            assert_eq!(pulse.stand_in(), stands_in, "after {at} ms");
        }
        // The disk answers, and the next wait has all of its time.
        drop(waits);
        assert!(!pulse.stand_in());
        let _waits = pulse.waits();
        assert!(pulse.stand_in());
        assert_eq!(beats.load(Ordering::Relaxed), 4);
    }
}
