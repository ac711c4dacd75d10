//! Waiting for answers: one broadcast per commit wakes every caller whose answer came with it.
//!
//! Owns too what the hand-off between engine and pools is made of: under `cfg(loom)` the same names stand for loom's
//! models, and tests there run every order in which the threads may come; under Miri, the real ones in some orders.

#[cfg(all(test, any(loom, miri)))]
pub(crate) mod hand_off;
#[cfg(loom)]
mod modelled;
#[cfg(not(loom))]
mod real;

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

#[cfg(loom)]
pub(crate) use modelled::{AtomicU32, Mutex, Word, channel, has_finished, thread};
#[cfg(not(loom))]
pub(crate) use real::{AtomicU32, Mutex, Word, channel, has_finished, thread};

/// Counts broadcasts; callers sleep on it.
#[derive(Debug, Default)]
pub struct Broadcast(Word);

impl Broadcast {
    /// Wakes every sleeper.
    pub fn send(&self) {
        // Release: whoever sees the new count sees the answers that were put before it.
        self.0.number().fetch_add(1, Ordering::Release);
        self.0.wake_all();
    }

    fn count(&self) -> u32 {
        self.0.number().load(Ordering::Acquire)
    }
}

/// A place for one answer, and the caller who waits for it.
#[derive(Debug)]
pub struct Slot<T> {
    answer: Mutex<Answer<T>>,
    broadcast: Arc<Broadcast>,
}

#[derive(Debug)]
enum Answer<T> {
    Awaited,
    Here(T),
    /// The other end went away without an answer.
    Gone,
}

/// The end that answers. Dropped without an answer, it tells the caller so.
#[derive(Debug)]
pub struct Answerer<T>(Option<Arc<Slot<T>>>);

impl<T> Answerer<T> {
    /// Puts the answer; the caller sees it with the next broadcast.
    pub fn put(mut self, answer: T) {
        if let Some(slot) = self.0.take() {
            *slot.answer.lock().unwrap_or_else(PoisonError::into_inner) = Answer::Here(answer);
        }
    }
}

impl<T> Drop for Answerer<T> {
    fn drop(&mut self) {
        if let Some(slot) = self.0.take() {
            *slot.answer.lock().unwrap_or_else(PoisonError::into_inner) = Answer::Gone;
            slot.broadcast.send();
        }
    }
}

impl<T> Slot<T> {
    /// A slot and its answering end.
    pub fn new(broadcast: &Arc<Broadcast>) -> (Arc<Self>, Answerer<T>) {
        let slot = Arc::new(Self { answer: Mutex::new(Answer::Awaited), broadcast: Arc::clone(broadcast) });
        (Arc::clone(&slot), Answerer(Some(slot)))
    }

    /// Sleeps until the answer is here; `None` if it never will be.
    pub fn wait(&self) -> Option<T> {
        loop {
            let seen = self.broadcast.count();
            let answer =
                std::mem::replace(&mut *self.answer.lock().unwrap_or_else(PoisonError::into_inner), Answer::Awaited);
            match answer {
                Answer::Here(answer) => return Some(answer),
                Answer::Gone => return None,
                Answer::Awaited => self.broadcast.0.sleep(seen),
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_waiter_gets_its_own_answer_or_learns_that_none_comes() {
        let broadcast = Arc::new(Broadcast::default());
        let mut waiters = Vec::new();
        let mut answerers = Vec::new();
        for _ in 0..16 {
            let (slot, answerer) = Slot::new(&broadcast);
            waiters.push(thread::spawn(move || slot.wait()));
            answerers.push(answerer);
        }
        for (number, answerer) in (0..).zip(answerers) {
            if number % 4 != 3 {
                answerer.put(number);
            }
        }
        broadcast.send();
        for (number, waiter) in (0..).zip(waiters) {
            assert_eq!(waiter.join().unwrap(), (number % 4 != 3).then_some(number));
        }
    }
}
