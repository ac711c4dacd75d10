//! Pools without threads: what is handed to them waits until the simulation says what becomes of it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::RealClock;
use crate::config::LiveConfig;
use crate::job::ids::IdMaker;
use crate::log::Reader;
use crate::pool::{Figures, Pool, PoolMaker, PoolSpec, Report, Reporter, Task};
use crate::worker::Cutoff;
use crate::worker::run::Board;

/// A pool as the simulation sees it.
pub(super) struct Hand {
    pub(super) worker_type: Arc<str>,
    /// Its version.
    pub(super) label: Arc<str>,
    pub(super) report: Reporter,
    /// Handed, and not begun.
    pub(super) queue: VecDeque<Task>,
    /// Begun.
    pub(super) held: Vec<Task>,
    /// What its workers had, or were handed, when they panicked; until the engine knows.
    pub(super) lost: Vec<Task>,
    pub(super) up: bool,
    pub(super) draining: bool,
    pub(super) cut_off: bool,
    pub(super) ended: bool,
    pub(super) panicked: bool,
    pub(super) size: u32,
    pub(super) figures: Figures,
    pub(super) board: Arc<Board>,
}

/// All pools of one life of an engine.
#[derive(Clone, Default)]
pub(super) struct Hands {
    all: Arc<Mutex<Vec<Hand>>>,
    /// So many pools and workers cannot be made.
    failing: Arc<AtomicU32>,
}

impl Hands {
    pub(super) fn all(&self) -> MutexGuard<'_, Vec<Hand>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// None yet, for an engine that opens on what this one leaves.
    pub(super) fn of_next_life(&self) -> Self {
        Self { all: Arc::default(), failing: Arc::clone(&self.failing) }
    }

    /// The next pools and workers, so many, cannot be made.
    pub(super) fn fail(&self, next: u32) {
        self.failing.store(next, Ordering::Relaxed);
    }

    /// Whether one that is to be made cannot be made.
    fn fails(&self) -> bool {
        self.failing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

struct SimPool {
    hands: Hands,
    number: usize,
    board: Arc<Board>,
}

impl SimPool {
    fn with<T: Default>(&self, then: impl FnOnce(&mut Hand) -> T) -> T {
        self.hands.all().get_mut(self.number).map(then).unwrap_or_default()
    }
}

impl PoolMaker for Hands {
    fn make(&self, spec: PoolSpec, _: Reader, _: IdMaker, report: Reporter) -> std::io::Result<Box<dyn Pool>> {
        if self.fails() {
            return Err(std::io::Error::from(std::io::ErrorKind::WouldBlock));
        }
        let board = Board::new(Cutoff::new()?, RealClock::shared());
        let mut all = self.all();
        let number = all.len();
        all.push(Hand {
            worker_type: spec.worker_type,
            label: spec.label,
            report,
            queue: VecDeque::new(),
            held: Vec::new(),
            lost: Vec::new(),
            up: false,
            draining: false,
            cut_off: false,
            ended: false,
            panicked: false,
            size: 0,
            figures: Figures::default(),
            board: Arc::clone(&board),
        });
        drop(all);
        Ok(Box::new(SimPool { hands: self.clone(), number, board }))
    }
}

impl Pool for SimPool {
    fn size(&self) -> u32 {
        self.with(|hand| hand.size)
    }

    fn figures(&self) -> Figures {
        self.with(|hand| hand.figures)
    }

    fn resize(&mut self, size: u32) -> std::io::Result<()> {
        let more = |hand: &mut Hand| size > hand.size;
        if self.with(more) && self.hands.fails() {
            return Err(std::io::Error::from(std::io::ErrorKind::WouldBlock));
        }
        self.with(|hand| {
            hand.size = size;
            if size == 0 {
                assert!(hand.queue.is_empty() && hand.held.is_empty(), "none is to run what it holds");
                if std::mem::take(&mut hand.up) {
                    hand.tell(Report::Left);
                }
            }
        });
        Ok(())
    }

    fn set_live(&self, _: LiveConfig) {}

    fn hand(&self, task: Task) {
        self.with(|hand| {
            // That its worker is not up any more the engine may not have read yet.
            assert!(!hand.draining, "a task for a pool that takes none");
            assert!(hand.size > 0, "a task for a pool of no workers");
            if hand.ended {
                hand.lost.push(task);
            } else {
                hand.queue.push_back(task);
            }
        });
    }

    fn take_back(&self) -> Vec<Task> {
        self.with(|hand| hand.queue.drain(..).collect())
    }

    fn drain(&mut self) -> Vec<Task> {
        self.with(|hand| {
            hand.draining = true;
            hand.queue.drain(..).collect()
        })
    }

    fn cut_off(&self) {
        self.with(|hand| hand.cut_off = true);
    }

    fn board(&self) -> &Arc<Board> {
        &self.board
    }

    fn join(self: Box<Self>) {
        self.with(|hand| {
            assert!(hand.ended, "joined before its end");
            hand.lost.clear();
        });
    }
}

impl Hand {
    /// Reports to the engine.
    pub(super) fn tell(&self, report: Report) {
        (self.report)(report);
    }

    /// Whether it has nothing more to do.
    pub(super) fn may_end(&self) -> bool {
        self.draining && !self.ended && self.held.is_empty()
    }

    /// Its last worker ends.
    pub(super) fn end(&mut self) {
        (self.up, self.ended) = (false, true);
        self.lost.extend(self.held.drain(..).chain(self.queue.drain(..)));
        self.tell(Report::Ended);
    }
}
