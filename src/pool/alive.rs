//! How many of a pool live, and who reports its end: the last one, once no other can come.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Report, Shared};
use crate::sync::AtomicU32;

/// Threads of a pool, and the pool itself.
pub(super) struct Alive {
    /// Threads, and one more as long as the pool is open: it may have none for a while. Whoever makes it 0 reports the end.
    count: AtomicU32,
    /// 0 while the pool is open, then 1.
    closed: AtomicU32,
    /// 1 once a thread has ended by a panic.
    panicked: AtomicU32,
}

impl Default for Alive {
    fn default() -> Self {
        Self { count: AtomicU32::new(1), closed: AtomicU32::new(0), panicked: AtomicU32::new(0) }
    }
}

impl Shared {
    /// No more threads will come; reports the end if none is left.
    pub(super) fn close(&self) {
        if self.alive.closed.swap(1, Ordering::AcqRel) == 0 {
            self.count_off();
        }
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
pub(super) struct Guard(Arc<Shared>);

impl Guard {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        shared.alive.count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(shared))
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.0)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.alive.panicked.store(1, Ordering::Release);
        }
        // A pool that has lost all its threads, not all of them by order, is at its end: nobody else would say so.
        if self.0.count_off() == 1 && self.0.alive.panicked.load(Ordering::Acquire) == 1 {
            self.0.close();
        }
    }
}
