//! What a thread does while an opening goes on.

use std::thread::{Builder, JoinHandle};

use super::Making;

/// Something that is being done, or was.
pub(super) enum Meanwhile<T> {
    Thread(JoinHandle<T>),
    Done(T),
}

impl<T: Send + 'static> Meanwhile<T> {
    /// Has a thread do it; where a log does things step by step, or no thread is to be had, does it now.
    pub(super) fn begin(making: Making, name: &str, run: impl Fn() -> T + Clone + Send + 'static) -> Self {
        let builder = (making == Making::Thread).then(|| Builder::new().name(name.to_owned()));
        let thread = builder.and_then(|builder| builder.spawn(run.clone()).ok());
        thread.map_or_else(|| Self::Done(run()), Self::Thread)
    }

    /// What came of it; `None` if the thread has panicked, which it said then.
    pub(super) fn end(self) -> Option<T> {
        match self {
            Self::Thread(thread) => thread.join().ok(),
            Self::Done(done) => Some(done),
        }
    }
}

/// Drops something whose end takes a while, such as the last handle of a file that has no name any more; a thread does, where
/// there may be one.
pub(super) fn let_go<T: Send + 'static>(making: Making, thing: T) {
    if making == Making::Thread {
        // Where no thread is to be had, the thing is dropped with the closure, here.
        drop(Builder::new().name("lets-go".to_owned()).spawn(move || drop(thing)));
    }
}
