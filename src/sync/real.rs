//! The machine's own.

pub(crate) use std::sync::Mutex;
pub(crate) use std::sync::atomic::AtomicU32;
pub(crate) use std::thread;

pub(crate) use crossbeam_channel as channel;
use rustix::thread::futex;

/// A number on which threads sleep.
#[derive(Debug, Default)]
pub(crate) struct Word(AtomicU32);

impl Word {
    /// The number.
    pub(super) fn number(&self) -> &AtomicU32 {
        &self.0
    }

    /// Wakes every sleeper.
    pub(super) fn wake_all(&self) {
        // The word is private to this process and aligned: waking has no way to fail.
        let _: rustix::io::Result<usize> = futex::wake(&self.0, futex::Flags::PRIVATE, u32::MAX >> 1);
    }

    /// Sleeps until the number is no more `seen`; may return early.
    pub(super) fn sleep(&self, seen: u32) {
        // EAGAIN: it moved on already. EINTR: a signal. Both mean: look again.
        let _: rustix::io::Result<()> = futex::wait(&self.0, futex::Flags::PRIVATE, seen, None);
    }
}

/// Whether a thread is through.
pub(crate) fn has_finished<T>(handle: &thread::JoinHandle<T>) -> bool {
    handle.is_finished()
}
