//! Pools without threads: their owner has them run what they were handed, a batch at a time, on its own thread.
//!
//! The same hand-off, the same cycle and the same reports as those of threads. What waits stays where it is until somebody
//! calls [`InlinePools::run_some`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::thread::Thread;
use super::{Figures, Order, Pool, PoolMaker, PoolSpec, Report, Reporter, Shared, Task, ThreadPool};
use crate::clock::Clock;
use crate::config::{LiveConfig, Recycle};
use crate::job::ids::IdMaker;
use crate::log::Reader;
use crate::sync::channel;
use crate::sync::channel::Receiver;
use crate::types::Lease;
use crate::worker::pulse::Pulse;
use crate::worker::run::Board;
use crate::worker::{Assignment, Outcome, StartError, Worker, Worn};

/// Makes such pools, and has them run. Clones are the same pools.
#[derive(Clone)]
pub struct InlinePools {
    clock: Arc<dyn Clock>,
    hands: Arc<Mutex<Vec<Hand>>>,
}

/// What runs a pool's jobs.
struct Hand {
    shared: Arc<Shared>,
    queue: Receiver<Order>,
    worker: Box<dyn Worker>,
    pulse: Arc<Pulse>,
    up: bool,
    size: u32,
    /// Why its worker could not be started, when that was tried.
    not_up: Option<String>,
}

impl InlinePools {
    /// No pools yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, hands: Arc::default() }
    }

    fn hands(&self) -> MutexGuard<'_, Vec<Hand>> {
        self.hands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has every pool run one batch of what it was handed; `each` is told of every run. Says whether anything was done: if
    /// so, the engine has something to read.
    pub fn run_some(&self, mut each: impl FnMut(&Assignment, &Outcome) + Send) -> bool {
        let mut any = false;
        for hand in self.hands().iter_mut().filter(|hand| hand.size > 0) {
            any |= hand.run(&mut each);
        }
        any
    }

    /// Why a worker could not be started: type, and reason.
    pub fn not_up(&self) -> Vec<(String, String)> {
        let not_up = |hand: &Hand| Some((hand.shared.worker_type.to_string(), hand.not_up.clone()?));
        self.hands().iter().filter_map(not_up).collect()
    }
}

impl Hand {
    fn run(&mut self, each: &mut (dyn FnMut(&Assignment, &Outcome) + Send)) -> bool {
        let live = LiveConfig { batch_wait: Duration::ZERO, ..(**self.shared.live.load()).clone() };
        if (!self.up || !self.worker.is_ready()) && !self.start(live.start_timeout) {
            return false;
        }
        if self.queue.is_empty() {
            // That a worker is up may be news.
            return !std::mem::replace(&mut self.up, true);
        }
        self.up = true;
        let (_leave, leaving) = channel::bounded(0);
        let mut thread = Thread::new(&self.shared, &self.queue, &leaving, &self.pulse);
        let (tasks, _) = thread.take(&live);
        let mut telling = Telling { worker: self.worker.as_mut(), each };
        if let Some(why) = thread.cycle(&mut telling, tasks, &live) {
            self.fell(why);
        }
        true
    }

    fn start(&mut self, timeout: Duration) -> bool {
        let started = self.worker.start(timeout).and_then(|()| {
            let (_leave, leaving) = channel::bounded(0);
            Thread::new(&self.shared, &self.queue, &leaving, &self.pulse).probe(self.worker.as_mut())
        });
        match started {
            Ok(()) => {
                self.not_up = None;
                if !self.up {
                    (self.shared.report)(Report::Up);
                }
                true
            }
            Err(error) => {
                // Said once, and tried again whenever somebody asks.
                if self.not_up.as_ref() != Some(&error.0) {
                    self.fell(error.0);
                }
                false
            }
        }
    }

    fn fell(&mut self, why: String) {
        self.not_up = Some(why.clone());
        (self.shared.report)(Report::NotUp { why, was_up: std::mem::take(&mut self.up) });
    }
}

/// A worker, and who is told what it answers.
struct Telling<'a> {
    worker: &'a mut dyn Worker,
    each: &'a mut (dyn FnMut(&Assignment, &Outcome) + Send),
}

impl Worker for Telling<'_> {
    fn start(&mut self, timeout: Duration) -> Result<(), StartError> {
        self.worker.start(timeout)
    }

    fn cycle(&mut self, batch: Vec<Assignment>, sink: &mut dyn FnMut(Lease, Outcome)) {
        let given = batch.clone();
        self.worker.cycle(batch, &mut |lease, outcome| {
            if let Some(job) = given.iter().find(|job| job.lease == lease) {
                (self.each)(job, &outcome);
            }
            sink(lease, outcome);
        });
    }

    fn is_ready(&self) -> bool {
        self.worker.is_ready()
    }

    fn recycle(&mut self, bounds: &Recycle) -> Option<Worn> {
        self.worker.recycle(bounds)
    }

    fn watch(&mut self, pulse: &Arc<Pulse>) {
        self.worker.watch(pulse);
    }

    fn broke(&mut self) -> Option<String> {
        self.worker.broke()
    }

    fn stop(&mut self) {
        self.worker.stop();
    }
}

impl PoolMaker for InlinePools {
    fn make(&self, spec: PoolSpec, reader: Reader, ids: IdMaker, report: Reporter) -> std::io::Result<Box<dyn Pool>> {
        let shared = Shared::new(spec, reader, ids, report, &self.clock)?;
        #[cfg(feature = "daemon")]
        if shared.factory.side_by_side().is_some() {
            return Err(std::io::Error::other("a service cannot be called inline"));
        }
        let mut worker = shared.factory.make(&shared.cutoff);
        let pulse = Arc::new(Pulse::new(shared.clock.mono(), 1));
        worker.watch(&pulse);
        let threads = ThreadPool::without_threads(shared);
        let mut hands = self.hands();
        let number = hands.len();
        hands.push(Hand {
            shared: Arc::clone(&threads.shared),
            queue: threads.queue.clone(),
            worker,
            pulse,
            up: false,
            size: 0,
            not_up: None,
        });
        drop(hands);
        Ok(Box::new(InlinePool { threads, pools: self.clone(), number }))
    }
}

/// One pool, as the engine sees it.
struct InlinePool {
    threads: ThreadPool,
    pools: InlinePools,
    /// Its hand's.
    number: usize,
}

impl InlinePool {
    fn set_size(&mut self, size: u32) {
        self.threads.size = size;
        if let Some(hand) = self.pools.hands().get_mut(self.number) {
            hand.size = size;
            if size == 0 && std::mem::take(&mut hand.up) {
                (hand.shared.report)(Report::Left);
            }
        }
    }
}

impl Pool for InlinePool {
    fn size(&self) -> u32 {
        self.threads.size()
    }

    fn figures(&self) -> Figures {
        self.threads.figures()
    }

    fn resize(&mut self, size: u32) -> std::io::Result<()> {
        self.set_size(size);
        Ok(())
    }

    fn set_live(&self, live: LiveConfig) {
        self.threads.set_live(live);
    }

    fn hand(&self, task: Task) {
        self.threads.hand(task);
    }

    fn take_back(&self) -> Vec<Task> {
        self.threads.take_back()
    }

    fn drain(&mut self) -> Vec<Task> {
        self.set_size(0);
        self.threads.drain()
    }

    fn cut_off(&self) {
        self.threads.cut_off();
    }

    fn board(&self) -> &Arc<Board> {
        self.threads.board()
    }

    fn join(self: Box<Self>) {
        if let Some(hand) = self.pools.hands().get_mut(self.number) {
            hand.worker.stop();
        }
    }
}
