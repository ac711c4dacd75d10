//! One worker as others see it: what it does, since when, what it holds, when it last gave a sign of life.
//!
//! Written by the worker's own thread as it goes from one thing to the next, read by whoever asks. Owns no clock and no
//! decision: a worker is called late by the time that its thread has allowed it for what it does.
//!
//! ```text
//! starting ─► idle ─► working ─┐      a sign of life: every step along an arrow, every answer, every `extend`
//!    ▲ ▲       ▲ └─────────────┘
//!    │ └─ backing off ◄─ (could not be started, or broke again and again)
//! ```

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::job::ids::JobId;

/// What a worker does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doing {
    /// It is being started.
    Starting,
    /// It waits for jobs.
    Idle,
    /// It runs what it holds.
    Working,
    /// It waits until it is started again.
    BackingOff {
        /// Why it has to be.
        why: String,
        /// When it is tried, by the steady clock.
        until: Duration,
    },
}

/// A job in a worker's hands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// The job.
    pub id: JobId,
    /// When it was taken, by the steady clock.
    pub since: Duration,
}

/// What a worker does, as one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The worker's number within its pool, from 1; 0: it has none.
    pub number: u32,
    /// What it does.
    pub doing: Doing,
    /// Since when, by the steady clock.
    pub since: Duration,
    /// Its last sign of life.
    pub beat: Duration,
    /// Whether it is long past the time that it has for what it does.
    pub stuck: bool,
    /// Its process, if it has one.
    pub child: Option<u32>,
    /// The jobs that it holds, in the order in which it took them; some of them, if they are many.
    pub holding: Vec<Holding>,
    /// How many it holds.
    pub holds: usize,
}

/// A worker's pulse.
#[derive(Debug)]
pub struct Pulse {
    number: u32,
    now: Mutex<Now>,
    /// The last sign of life within what `now` says, in microseconds of the steady clock. Written by the worker's thread,
    /// read by anyone; a number alone, which orders nothing: relaxed.
    beat_us: AtomicU64,
    /// When the batch was taken, or its last answer came: then the job that runs began, where one comes after the other. As
    /// `beat_us`.
    turn_us: AtomicU64,
    /// So many places of `now.held`, from the first on, are answered. As `beat_us`.
    answered: AtomicUsize,
}

#[derive(Debug)]
struct Now {
    doing: Doing,
    since: Duration,
    /// How long it may be without a sign of life; `None`: for ever.
    within: Option<Duration>,
    child: Option<u32>,
    /// What it holds; a place that is empty is answered.
    held: Vec<Option<Holding>>,
    /// Places of `held` that are empty, where they are used again.
    free: Vec<usize>,
}

impl Pulse {
    /// The pulse of a worker that is about to start; its number within its pool, or 0.
    pub fn new(at: Duration, number: u32) -> Self {
        let now =
            Now { doing: Doing::Starting, since: at, within: None, child: None, held: Vec::new(), free: Vec::new() };
        Self {
            number,
            now: Mutex::new(now),
            beat_us: AtomicU64::new(0),
            turn_us: AtomicU64::new(0),
            answered: AtomicUsize::new(0),
        }
    }

    /// The worker's number within its pool; 0: it has none.
    pub fn number(&self) -> u32 {
        self.number
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        // Nothing that panics is done under it.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The worker does something else now, for which it has so much time.
    pub fn does(&self, doing: Doing, at: Duration, within: Option<Duration>) {
        let mut now = self.now();
        now.held.clear();
        now.free.clear();
        (now.doing, now.since, now.within) = (doing, at, within);
    }

    /// The worker takes a batch, and has so much time until each next answer.
    pub fn works(&self, batch: impl Iterator<Item = JobId>, at: Duration, within: Duration) {
        let mut now = self.now();
        now.held.clear();
        now.free.clear();
        now.held.extend(batch.map(|id| Some(Holding { id, since: at })));
        (now.doing, now.since, now.within) = (Doing::Working, at, Some(within));
        self.answered.store(0, Ordering::Relaxed);
        self.turn_us.store(micros(at), Ordering::Relaxed);
    }

    /// The job at this place of the batch is answered.
    pub fn answered(&self, place: usize, at: Duration) {
        self.beat(at);
        self.turn_us.store(micros(at), Ordering::Relaxed);
        // Most answers come in order: then a number says all.
        if self.answered.load(Ordering::Relaxed) == place {
            self.answered.store(place + 1, Ordering::Relaxed);
        } else if let Some(held) = self.now().held.get_mut(place) {
            *held = None;
        }
    }

    /// A sign of life.
    pub fn beat(&self, at: Duration) {
        self.beat_us.store(micros(at), Ordering::Relaxed);
    }

    /// When the job that runs began, of a worker that runs one after the other.
    pub fn turn(&self) -> Duration {
        Duration::from_micros(self.turn_us.load(Ordering::Relaxed))
    }

    /// A sign of life, after which it may be without one for `within` at least.
    pub fn allow(&self, at: Duration, within: Duration) {
        self.beat(at);
        let mut now = self.now();
        now.within = now.within.map(|before| before.max(within));
    }

    /// One more job is taken beside those that are held, by a worker that runs many side by side; returns its place.
    pub fn takes(&self, id: JobId, at: Duration, within: Duration) -> usize {
        let mut now = self.now();
        if now.held.len() == now.free.len() {
            (now.doing, now.since) = (Doing::Working, at);
        }
        now.within = Some(within);
        let holding = Some(Holding { id, since: at });
        match now.free.pop() {
            Some(place) => {
                if let Some(held) = now.held.get_mut(place) {
                    *held = holding;
                }
                place
            }
            None => {
                now.held.push(holding);
                now.held.len() - 1
            }
        }
    }

    /// The job at this place is answered, of many that run side by side.
    pub fn gives_back(&self, place: usize, at: Duration) {
        self.beat(at);
        let mut now = self.now();
        if now.held.get_mut(place).is_some_and(|held| held.take().is_some()) {
            now.free.push(place);
        }
        if now.held.len() == now.free.len() {
            (now.doing, now.since, now.within) = (Doing::Idle, at, None);
        }
    }

    /// The process that does the work now.
    pub fn child_is(&self, child: Option<u32>) {
        self.now().child = child;
    }

    /// What is to be seen at `at`, with `most` of its jobs.
    pub fn seen(&self, at: Duration, most: usize) -> Seen {
        let now = self.now();
        let answered = if now.free.is_empty() { self.answered.load(Ordering::Relaxed) } else { 0 };
        let held = || now.held.iter().skip(answered).flatten();
        let beat = Duration::from_micros(self.beat_us.load(Ordering::Relaxed)).max(now.since).min(at.max(now.since));
        Seen {
            number: self.number,
            doing: now.doing.clone(),
            since: now.since,
            beat,
            stuck: now.within.is_some_and(|within| at.saturating_sub(beat) > within),
            child: now.child,
            holding: held().take(most).cloned().collect(),
            holds: held().count(),
        }
    }
}

fn micros(at: Duration) -> u64 {
    u64::try_from(at.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::ids::IdMaker;

    fn id(born: u64) -> JobId {
        IdMaker::new([1; 16]).make_inline(born, 1000)
    }

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn held(seen: &Seen) -> Vec<JobId> {
        seen.holding.iter().map(|holding| holding.id.clone()).collect()
    }

    #[test]
    fn what_is_answered_is_held_no_more_in_whatever_order() {
        let pulse = Pulse::new(s(1), 1);
        pulse.works((1..=4).map(id), s(10), s(5));
        assert_eq!(held(&pulse.seen(s(10), 2)), [id(1), id(2)]);
        assert_eq!(pulse.seen(s(10), 2).holds, 4);
        pulse.answered(2, s(11));
        assert_eq!(held(&pulse.seen(s(11), 9)), [id(1), id(2), id(4)]);
        pulse.answered(0, s(12));
        pulse.answered(1, s(13));
        let seen = pulse.seen(s(14), 9);
        assert_eq!((held(&seen), seen.since, seen.beat), (vec![id(4)], s(10), s(13)));
        pulse.answered(3, s(14));
        assert_eq!(pulse.seen(s(14), 9).holds, 0);
        pulse.does(Doing::Idle, s(15), None);
        pulse.works([id(7)].into_iter(), s(16), s(5));
        assert_eq!(held(&pulse.seen(s(16), 9)), [id(7)], "the next batch counts anew");
    }

    #[test]
    fn a_worker_is_stuck_when_it_gives_no_sign_of_life_within_its_time() {
        let pulse = Pulse::new(s(1), 1);
        pulse.does(Doing::Starting, s(1), Some(s(10)));
        assert!(!pulse.seen(s(11), 0).stuck && pulse.seen(s(12), 0).stuck);
        pulse.does(Doing::Idle, s(13), None);
        assert!(!pulse.seen(s(10_000), 0).stuck, "it may be idle for ever");
        pulse.works((1..=2).map(id), s(20), s(10));
        assert!(!pulse.seen(s(30), 0).stuck && pulse.seen(s(31), 0).stuck);
        pulse.answered(0, s(31));
        assert!(!pulse.seen(s(41), 0).stuck && pulse.seen(s(42), 0).stuck);
        pulse.beat(s(42));
        assert!(!pulse.seen(s(43), 0).stuck);
    }

    #[test]
    fn places_of_jobs_side_by_side_are_used_again() {
        let pulse = Pulse::new(s(1), 1);
        let places: Vec<usize> = (1..=3).map(|born| pulse.takes(id(born), s(born), s(10))).collect();
        assert_eq!(places, [0, 1, 2]);
        pulse.gives_back(1, s(4));
        assert_eq!(held(&pulse.seen(s(4), 9)), [id(1), id(3)]);
        assert_eq!(pulse.takes(id(4), s(5), s(10)), 1);
        assert_eq!(pulse.seen(s(5), 9).holds, 3);
        places.iter().for_each(|place| pulse.gives_back(*place, s(6)));
        let seen = pulse.seen(s(6), 9);
        assert_eq!((seen.doing, seen.holds, seen.since), (Doing::Idle, 0, s(6)));
        pulse.takes(id(5), s(7), s(10));
        assert_eq!((pulse.seen(s(7), 9).doing, pulse.seen(s(7), 9).holds), (Doing::Working, 1));
    }
}
