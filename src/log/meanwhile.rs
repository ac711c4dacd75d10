//! What a thread does while an opening goes on.

use std::panic::resume_unwind;
use std::thread::{Builder, JoinHandle};

use crossbeam_channel::bounded;

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

/// All that `begin` makes, in order: where there may be a thread, it makes some more, at most, while what came before is in use.
/// The more these are, the less often one of both has to wait for a processor that others use, too.
pub(super) fn ahead<I>(
    making: Making,
    name: &str,
    some: usize,
    begin: impl Fn() -> I + Clone + Send + 'static,
) -> Box<dyn Iterator<Item = I::Item>>
where
    I: Iterator<Item: Send> + 'static,
{
    let (give, take) = bounded(some);
    let on_thread = begin.clone();
    let builder = (making == Making::Thread).then(|| Builder::new().name(name.to_owned()));
    // It ends, too, when nobody takes what it makes any more.
    let run = move || _ = on_thread().try_for_each(|made| give.send(made));
    let Some(thread) = builder.and_then(|builder| builder.spawn(run).ok()) else { return Box::new(begin()) };
    let mut thread = Some(thread);
    Box::new(std::iter::from_fn(move || {
        let made = take.recv().ok();
        if made.is_none()
            && let Some(Err(panic)) = thread.take().map(JoinHandle::join)
        {
            // What it has not come to must not pass for what is not there.
            resume_unwind(panic);
        }
        made
    }))
}

/// Drops something whose end takes a while, such as the last handle of a file that has no name any more; a thread does, where
/// there may be one.
pub(super) fn let_go<T: Send + 'static>(making: Making, thing: T) {
    if making == Making::Thread {
        // Where no thread is to be had, the thing is dropped with the closure, here.
        drop(Builder::new().name("lets-go".to_owned()).spawn(move || drop(thing)));
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    #[test]
    fn what_is_made_ahead_comes_in_order_whoever_makes_it() {
        for making in [Making::Stepped, Making::Thread] {
            assert!(ahead(making, "counts", 2, || 0..1000).eq(0..1000), "{making:?}");
            // Nobody waits for the rest.
            assert_eq!(ahead(making, "counts on", 2, || 0_u64..).nth(3), Some(3), "{making:?}");
        }
    }

    #[test]
    fn a_panic_of_who_makes_it_is_no_end() {
        for making in [Making::Stepped, Making::Thread] {
            let two = || (0..3).inspect(|made| assert!(*made < 2, "the third"));
            let mut made = ahead(making, "panics", 2, two);
            assert_eq!((made.next(), made.next()), (Some(0), Some(1)));
            let third = catch_unwind(std::panic::AssertUnwindSafe(|| made.next()));
            assert_eq!(third.unwrap_err().downcast_ref::<&str>(), Some(&"the third"), "{making:?}");
        }
    }
}
