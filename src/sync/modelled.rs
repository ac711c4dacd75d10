//! Loom's models of what [`super::real`] takes from the machine, and of the parts of it that loom does not know.

use std::sync::PoisonError;

pub(crate) use loom::sync::Mutex;
pub(crate) use loom::sync::atomic::AtomicU32;
pub(crate) use loom::thread;

use loom::sync::Condvar;

/// A futex as the kernel has it: the look at the number and the falling asleep are one step for whoever wakes.
#[derive(Debug, Default)]
pub(crate) struct Word {
    number: AtomicU32,
    sleepers: Mutex<()>,
    wake: Condvar,
}

impl Word {
    pub(super) fn number(&self) -> &AtomicU32 {
        &self.number
    }

    pub(super) fn wake_all(&self) {
        let sleepers = self.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
        self.wake.notify_all();
        drop(sleepers);
    }

    pub(super) fn sleep(&self, seen: u32) {
        let sleepers = self.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
        // Relaxed, as the kernel's own look at it: what is ordered is ordered by our loads and stores.
        if self.number.load(std::sync::atomic::Ordering::Relaxed) == seen {
            drop(self.wake.wait(sleepers));
        }
    }
}

/// Loom does not tell: a thread that is through is joined like one that is not.
pub(crate) fn has_finished<T>(_: &thread::JoinHandle<T>) -> bool {
    false
}

/// Channels with crossbeam's manners, of which loom sees the inside.
pub(crate) mod channel {
    use std::collections::VecDeque;
    use std::sync::{Arc, PoisonError};
    use std::time::Duration;

    pub(crate) use crossbeam_channel::{RecvError, RecvTimeoutError, SendError, TryRecvError};
    use loom::sync::{Condvar, Mutex, MutexGuard};

    struct State<T> {
        queue: VecDeque<T>,
        senders: usize,
        receivers: usize,
    }

    struct Shared<T> {
        state: Mutex<State<T>>,
        changed: Condvar,
    }

    impl<T> Shared<T> {
        fn state(&self) -> MutexGuard<'_, State<T>> {
            self.state.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    pub(crate) struct Sender<T>(Arc<Shared<T>>);
    pub(crate) struct Receiver<T>(Arc<Shared<T>>);

    pub(crate) fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
        let state = Mutex::new(State { queue: VecDeque::new(), senders: 1, receivers: 1 });
        let shared = Arc::new(Shared { state, changed: Condvar::new() });
        (Sender(Arc::clone(&shared)), Receiver(shared))
    }

    /// A channel that nothing is sent through: a sign that is given by dropping its sender.
    pub(crate) fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
        assert_eq!(capacity, 0, "nothing that is modelled waits to send");
        unbounded()
    }

    impl<T> Sender<T> {
        pub(crate) fn send(&self, message: T) -> Result<(), SendError<T>> {
            let mut state = self.0.state();
            if state.receivers == 0 {
                return Err(SendError(message));
            }
            state.queue.push_back(message);
            drop(state);
            self.0.changed.notify_one();
            Ok(())
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            self.0.state().senders -= 1;
            self.0.changed.notify_all();
        }
    }

    impl<T> Clone for Receiver<T> {
        fn clone(&self) -> Self {
            self.0.state().receivers += 1;
            Self(Arc::clone(&self.0))
        }
    }

    impl<T> Drop for Receiver<T> {
        fn drop(&mut self) {
            self.0.state().receivers -= 1;
        }
    }

    impl<T> Receiver<T> {
        pub(crate) fn recv(&self) -> Result<T, RecvError> {
            let mut state = self.0.state();
            loop {
                if let Some(message) = state.queue.pop_front() {
                    return Ok(message);
                }
                if state.senders == 0 {
                    return Err(RecvError);
                }
                state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }

        pub(crate) fn try_recv(&self) -> Result<T, TryRecvError> {
            let mut state = self.0.state();
            let empty = if state.senders == 0 { TryRecvError::Disconnected } else { TryRecvError::Empty };
            state.queue.pop_front().ok_or(empty)
        }

        pub(crate) fn is_empty(&self) -> bool {
            self.0.state().queue.is_empty()
        }

        /// All time passes at once.
        pub(crate) fn recv_timeout(&self, _: Duration) -> Result<T, RecvTimeoutError> {
            self.try_recv().map_err(|error| match error {
                TryRecvError::Empty => RecvTimeoutError::Timeout,
                TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
            })
        }
    }
}
