//! Every order in which callers may sleep and be answered.

use super::*;
use crate::sync::thread;

/// Runs `story` in every order with up to so many switches where no thread had to wait.
#[cfg(loom)]
pub(crate) fn in_every_order(switches: usize, story: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(switches);
    model.check(story);
}

/// Runs `story` with the machine's own threads, as Miri switches between them: some orders of the many, in each of which
/// a race for memory is found.
#[cfg(miri)]
pub(crate) fn in_every_order(_: usize, story: impl Fn() + Send + Sync + 'static) {
    (0..3).for_each(|_| story());
}

#[test]
fn no_answer_is_slept_through() {
    in_every_order(3, || {
        let broadcast = Arc::new(Broadcast::default());
        let (first, to_first) = Slot::new(&broadcast);
        let (second, to_second) = Slot::new(&broadcast);
        let engine = {
            let broadcast = Arc::clone(&broadcast);
            thread::spawn(move || {
                // Two commits, each with one answer: the first broadcast wakes one caller in vain.
                to_first.put(1);
                broadcast.send();
                to_second.put(2);
                broadcast.send();
            })
        };
        let other = thread::spawn(move || second.wait());
        assert_eq!(first.wait(), Some(1));
        assert_eq!(other.join().unwrap(), Some(2));
        engine.join().unwrap();
    });
}

#[test]
fn who_is_never_answered_learns_it() {
    in_every_order(3, || {
        let broadcast = Arc::new(Broadcast::default());
        let (answered, to_answered) = Slot::new(&broadcast);
        let (forgotten, to_forgotten) = Slot::<u32>::new(&broadcast);
        let engine = {
            let broadcast = Arc::clone(&broadcast);
            thread::spawn(move || {
                to_answered.put(1);
                drop(to_forgotten);
                broadcast.send();
            })
        };
        let other = thread::spawn(move || forgotten.wait());
        assert_eq!(answered.wait(), Some(1));
        assert_eq!(other.join().unwrap(), None);
        engine.join().unwrap();
    });
}
