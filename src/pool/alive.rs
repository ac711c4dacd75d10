//! Who of a pool lives, and who reports its end: the last one, once no other can come.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use super::overdue::Slot;
use super::{Report, Shared};
use crate::sync::AtomicU32;
use crate::worker::pulse::{Pulse, Seen};

/// Threads of a pool, and the pool itself.
pub(super) struct Alive {
    /// Threads, and one more as long as the pool is open: it may have none for a while. Whoever makes it 0 reports the end.
    count: AtomicU32,
    /// 0 while the pool is open, then 1.
    closed: AtomicU32,
    /// 1 once a thread has ended by a panic.
    panicked: AtomicU32,
    /// Threads that were abandoned, and have not ended; they are not in `count`.
    abandoned: AtomicU32,
}

impl Default for Alive {
    fn default() -> Self {
        Self {
            count: AtomicU32::new(1),
            closed: AtomicU32::new(0),
            panicked: AtomicU32::new(0),
            abandoned: AtomicU32::new(0),
        }
    }
}

impl Shared {
    /// No more threads will come; reports the end if none is left.
    pub(super) fn close(&self) {
        if self.alive.closed.swap(1, Ordering::AcqRel) == 0 {
            self.count_off();
        }
    }

    fn pulses(&self) -> MutexGuard<'_, Vec<Arc<Pulse>>> {
        // Nothing that panics is done under it.
        self.pulses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What each worker does.
    pub(super) fn workers(&self, at: Duration, most: usize) -> Vec<Seen> {
        self.pulses().iter().map(|pulse| pulse.seen(at, most)).collect()
    }

    /// A thread is not one of the pool's any more, though it goes on.
    pub(super) fn abandon(&self) {
        self.alive.abandoned.fetch_add(1, Ordering::AcqRel);
        self.count_off();
    }

    /// Threads that were abandoned, and have not ended.
    pub(super) fn abandoned(&self) -> u32 {
        self.alive.abandoned.load(Ordering::Acquire)
    }

    /// Returns how many are left.
    fn count_off(&self) -> u32 {
        // AcqRel: the last one comes after all that the others did.
        let left = self.alive.count.fetch_sub(1, Ordering::AcqRel) - 1;
        if left == 0 {
            (self.report)(Report::Ended);
        }
        left
    }
}

/// Counts a thread, and counts it off however it ends.
pub(super) struct Guard(Arc<Shared>, Arc<Pulse>, Arc<Slot>);

impl Guard {
    /// Of a worker, which gets the first number that no other one of the pool has.
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        let is_free = |pulses: &[Arc<Pulse>], number: &u32| pulses.iter().all(|pulse| pulse.number() != *number);
        Self::numbered(shared, |pulses| (1..).find(|number| is_free(pulses, number)).unwrap_or_default())
    }

    /// Of a thread on which jobs run side by side: it is none of several workers, and has no number.
    #[cfg(feature = "daemon")]
    pub(super) fn of_lanes(shared: &Arc<Shared>) -> Self {
        Self::numbered(shared, |_| 0)
    }

    fn numbered(shared: &Arc<Shared>, number: impl FnOnce(&[Arc<Pulse>]) -> u32) -> Self {
        // Before the lock is held: under loom another thread may go on from here.
        shared.alive.count.fetch_add(1, Ordering::AcqRel);
        let mut pulses = shared.pulses();
        let number = number(&pulses);
        let pulse = Arc::new(Pulse::new(shared.clock.mono(), number));
        pulses.push(Arc::clone(&pulse));
        Self(Arc::clone(shared), pulse, Arc::new(Slot::of(number)))
    }

    /// Where the thread's worker is shown.
    pub(super) fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.1)
    }

    /// What the thread holds.
    pub(super) fn slot(&self) -> Arc<Slot> {
        Arc::clone(&self.2)
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.0)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.pulses().retain(|pulse| !Arc::ptr_eq(pulse, &self.1));
        if self.2.is_abandoned() {
            self.0.alive.abandoned.fetch_sub(1, Ordering::AcqRel);
            (self.0.report)(Report::Returned);
            return;
        }
        if std::thread::panicking() {
            self.0.alive.panicked.store(1, Ordering::Release);
        }
        // A pool that has lost all its threads, not all of them by order, is at its end: nobody else would say so.
        if self.0.count_off() == 1 && self.0.alive.panicked.load(Ordering::Acquire) == 1 {
            self.0.close();
        }
    }
}
