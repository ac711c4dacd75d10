//! The thread that owns the index: it follows the log, answers searches, and begins anew after trouble.
//!
//! Woken by the engine, and asleep while there is nothing to do. Every call of the database is made here, guarded against
//! panics; who asks waits with a deadline and can do without. Its thread runs at a low priority, so that the index takes
//! only what acknowledgements leave.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, never};

use super::entry::place;
use super::follow::Gathering;
use super::shelf::{Shelf, remove_all, set_aside};
use super::slice::Trouble;
use super::{Ask, EndedPage, Found, History, Standing};
use crate::clock::Clock;
use crate::limits::{
    HISTORY_ANSWER_MAX, HISTORY_BATCH_RECORDS, HISTORY_BYTES_MAX, HISTORY_FREE_MIN, HISTORY_HANGS_AFTER, HISTORY_REST,
    HISTORY_RETRY_FIRST, HISTORY_RETRY_MAX, HISTORY_SEAL_BYTES, HISTORY_SLICE_KEYS, HISTORY_STOP_MAX,
    HISTORY_STRIKES_MAX, HISTORY_SYNC_EVERY,
};
use crate::log::Reader;
use crate::log::nearby::NearbyReader;
use crate::log::scan::Scan;
use crate::types::{Seq, millis};

/// Searches that may wait for their turn; more read the log.
const SEARCHES_MAX: usize = 16;
/// Priority of the thread by default: the engine and the workers go first.
const NICE: i32 = 5;

/// Bounds of an index. Tests have smaller ones.
#[derive(Debug, Clone, Copy)]
pub struct ArchiveOptions {
    /// Ended jobs of one directory.
    pub slice_keys: u64,
    /// Records that are taken in at once.
    pub batch: usize,
    /// Bytes on disk.
    pub bytes_max: u64,
    /// Bytes that must be free where it lies.
    pub free_min: u64,
    /// How much the thread stands back behind others, as `nice` counts.
    pub nice: i32,
}

impl Default for ArchiveOptions {
    fn default() -> Self {
        Self {
            slice_keys: HISTORY_SLICE_KEYS,
            batch: HISTORY_BATCH_RECORDS,
            bytes_max: HISTORY_BYTES_MAX,
            free_min: HISTORY_FREE_MIN,
            nice: NICE,
        }
    }
}

/// What somebody wants of the thread.
enum Request {
    Ended(Ask, Sender<EndedPage>),
    Find(Seq, Sender<Option<Found>>),
    /// Everything in the index, once it has seen this seq.
    #[cfg(test)]
    Contents(Seq, Sender<Vec<(Vec<u8>, Vec<u8>)>>),
}

/// What the thread lets others know.
struct Posted {
    /// What is covered; equal when nothing is. Stored by the thread: `up_to` after `from` when it grows.
    from: AtomicU64,
    up_to: AtomicU64,
    /// One more than the milliseconds at which the thread began what it is at; 0: nothing.
    busy_since: AtomicU64,
    reason: Mutex<Option<String>>,
}

/// The index of ended jobs. Dropped, it goes on until [`Archive::stop`] or the end of the process.
pub struct Archive {
    posted: Arc<Posted>,
    reader: Reader,
    clock: Arc<dyn Clock>,
    wake: Sender<()>,
    requests: Sender<Request>,
    stop: Mutex<Option<Sender<()>>>,
    stopped: Receiver<()>,
}

impl Archive {
    /// Starts to follow the log of `reader` into `dir`.
    ///
    /// # Errors
    /// No thread to be had.
    pub fn start(
        dir: PathBuf,
        reader: Reader,
        clock: Arc<dyn Clock>,
        options: ArchiveOptions,
    ) -> std::io::Result<Self> {
        let posted = Arc::new(Posted {
            from: AtomicU64::new(0),
            up_to: AtomicU64::new(0),
            busy_since: AtomicU64::new(0),
            reason: Mutex::default(),
        });
        let (wake, woken) = bounded(1);
        let (requests, inbox) = bounded(SEARCHES_MAX);
        let (stop, stopping) = bounded(0);
        let (done, stopped) = bounded(1);
        let owner = Owner {
            dir,
            reader: reader.clone(),
            clock: Arc::clone(&clock),
            options,
            posted: Arc::clone(&posted),
            shelf: None,
            scan: None,
            scan_up_to: 0,
            homes: NearbyReader::new(reader.clone()),
            sync_at: None,
            rest_until: Duration::ZERO,
            retry_at: Some(Duration::ZERO),
            retry_after: HISTORY_RETRY_FIRST,
            strikes: 0,
        };
        std::thread::Builder::new().name("history".to_owned()).spawn(move || {
            // Not allowed to, on some machines: then it runs as everyone does.
            let me = Some(rustix::thread::gettid());
            let _: rustix::io::Result<()> = rustix::process::setpriority_process(me, owner.options.nice);
            owner.run(&woken, &inbox, &stopping);
            // Nobody may wait.
            let _: Result<(), _> = done.send(());
        })?;
        Ok(Self { posted, reader, clock, wake, requests, stop: Mutex::new(Some(stop)), stopped })
    }

    /// Lets the index end in good order, and waits for it, but not for long: what it did not write it will read again.
    pub fn stop(&self) {
        drop(self.stop.lock().unwrap_or_else(PoisonError::into_inner).take());
        if self.stopped.recv_timeout(HISTORY_STOP_MAX).is_err() {
            tracing::warn!("the index of ended jobs did not end in time; the next start reads what it missed");
        }
    }

    fn hangs(&self) -> bool {
        let since = self.posted.busy_since.load(Ordering::Relaxed);
        since != 0 && millis(self.clock.mono()).saturating_sub(since - 1) > millis(HISTORY_HANGS_AFTER)
    }

    fn ask<T>(&self, request: impl FnOnce(Sender<T>) -> Request) -> Option<T> {
        if self.hangs() {
            return None;
        }
        let (to, answer) = bounded(1);
        self.requests.try_send(request(to)).ok()?;
        answer.recv_timeout(HISTORY_ANSWER_MAX).ok()
    }

    #[cfg(test)]
    pub(super) fn contents(&self, once: Seq) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
        let (to, answer) = bounded(1);
        self.requests.send(Request::Contents(once, to)).ok()?;
        self.shown();
        answer.recv_timeout(Duration::from_secs(30)).ok()
    }
}
impl History for Archive {
    fn shown(&self) {
        // Full: it will look anyway.
        let _: Result<(), _> = self.wake.try_send(());
    }

    fn covered(&self) -> Option<Range<Seq>> {
        if self.hangs() {
            return None;
        }
        // What is covered begins later as time goes on: read first, it is never too early.
        let up_to = self.posted.up_to.load(Ordering::Acquire);
        let from = self.posted.from.load(Ordering::Acquire);
        (from < up_to).then_some(from..up_to)
    }

    fn ended(&self, ask: Ask) -> Option<EndedPage> {
        self.ask(|to| Request::Ended(ask, to))
    }

    fn find(&self, born: Seq) -> Option<Option<Found>> {
        self.ask(|to| Request::Find(born, to))
    }

    fn standing(&self) -> Standing {
        let seen = self.posted.up_to.load(Ordering::Acquire).max(self.reader.first_seq());
        let behind = self.reader.visible_up_to().saturating_sub(seen);
        let mut reason = self.posted.reason.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if self.hangs() {
            reason = Some(format!("it has been busy with one thing for over {} s", HISTORY_HANGS_AFTER.as_secs()));
        }
        let state = match (&reason, behind > HISTORY_BATCH_RECORDS as u64) {
            (Some(_), _) => "degraded",
            (None, true) => "catching_up",
            (None, false) => "ok",
        };
        Standing { state, behind, reason }
    }
}

/// The thread.
struct Owner {
    dir: PathBuf,
    reader: Reader,
    clock: Arc<dyn Clock>,
    options: ArchiveOptions,
    posted: Arc<Posted>,
    shelf: Option<Shelf>,
    /// A reading that goes on, and the first seq of the log when it began: it must not hold back what leaves the log.
    scan: Option<(Scan, Seq)>,
    /// Where that reading ends.
    scan_up_to: Seq,
    homes: NearbyReader,
    sync_at: Option<Duration>,
    /// What is new is gathered until then.
    rest_until: Duration,
    /// When the index is opened, or tried again.
    retry_at: Option<Duration>,
    retry_after: Duration,
    strikes: u32,
}

impl Owner {
    fn run(mut self, woken: &Receiver<()>, inbox: &Receiver<Request>, stopping: &Receiver<()>) {
        let (no_wake, no_request) = (never(), never());
        loop {
            let now = self.clock.mono();
            if self.retry_at.is_some_and(|at| at <= now) {
                self.retry_at = None;
                self.open();
            }
            let behind = self.is_behind();
            if behind && self.rest_until <= now {
                self.attempt(Self::follow);
            }
            if self.sync_at.is_some_and(|at| at <= now) {
                self.sync_at = None;
                self.attempt(|owner| owner.shelf.as_ref().map_or(Ok(()), Shelf::sync));
            }
            let now = self.clock.mono();
            let rest = self.is_behind().then(|| self.rest_until.saturating_sub(now));
            let due = [self.retry_at, self.sync_at].into_iter().flatten().map(|at| at.saturating_sub(now));
            let pause = due.chain(rest).min().unwrap_or(Duration::MAX);
            // Who is awake already need not be woken.
            let woken = if rest.is_some() { &no_wake } else { woken };
            let inbox = if self.shelf.is_some() { inbox } else { &no_request };
            let timeout = if pause == Duration::MAX { never() } else { crossbeam_channel::after(pause) };
            crossbeam_channel::select! {
                recv(stopping) -> _ => break,
                recv(inbox) -> request => if let Ok(request) = request { self.answer(request) },
                recv(woken) -> _ => (),
                recv(timeout) -> _ => (),
            }
        }
        let shelf = self.shelf.take();
        self.attempt(|_| shelf.map_or(Ok(()), |shelf| shelf.close(HISTORY_SEAL_BYTES)));
    }

    /// Whether there is more in the log than the index has seen.
    fn is_behind(&self) -> bool {
        self.shelf.as_ref().is_some_and(|shelf| shelf.up_to() < self.reader.visible_up_to()) && self.retry_at.is_none()
    }

    /// Does something with the database, and notices when that goes wrong.
    fn attempt(&mut self, work: impl FnOnce(&mut Self) -> Result<(), Trouble>) {
        self.posted.busy_since.store(millis(self.clock.mono()) + 1, Ordering::Relaxed);
        let done = catch_unwind(AssertUnwindSafe(|| work(self)));
        self.posted.busy_since.store(0, Ordering::Relaxed);
        match done {
            Ok(Ok(())) => {}
            Ok(Err(trouble)) => self.trouble(trouble),
            Err(panic) => {
                let said = panic.downcast_ref::<String>().map(String::as_str);
                let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no word");
                self.trouble(Trouble::Unusable(format!("the database panicked: {said}")));
            }
        }
    }

    fn open(&mut self) {
        if self.shelf.is_none() {
            self.attempt(|owner| {
                let shelf = Shelf::open(&owner.dir, &owner.reader)?;
                owner.shelf = Some(shelf);
                Ok(())
            });
        }
        if self.shelf.is_some() {
            self.post();
        }
    }

    /// The index is given up as it is: set aside, or removed where its space is wanted; and begun anew a little later.
    fn trouble(&mut self, trouble: Trouble) {
        self.scan = None;
        if matches!(trouble, Trouble::Log(_) | Trouble::Held) {
            // No fault of the index: it stays as it is.
            self.try_later();
            return self.degraded(trouble.to_string());
        }
        self.posted.up_to.store(0, Ordering::Release);
        self.sync_at = None;
        if let Some(shelf) = self.shelf.take() {
            bury(shelf);
        }
        self.strikes += 1;
        let removed = match &trouble {
            Trouble::NoSpace => remove_all(&self.dir),
            _ => set_aside(&self.dir),
        };
        let mut reason = trouble.to_string();
        if let Err(error) = removed {
            reason = format!("{reason}; and it cannot be set aside: {error}");
        }
        if self.strikes < HISTORY_STRIKES_MAX {
            self.try_later();
        } else {
            reason = format!("{reason}; that was the {}th time, now it rests until the next start", self.strikes);
        }
        self.degraded(reason);
    }

    fn try_later(&mut self) {
        self.retry_at = Some(self.clock.mono() + self.retry_after);
        self.retry_after = (self.retry_after * 2).min(HISTORY_RETRY_MAX);
    }

    fn degraded(&self, reason: String) {
        tracing::warn!("the index of ended jobs is set back, searches read the log: {reason}");
        *self.posted.reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    }

    /// Lets others know what is covered.
    fn post(&self) {
        let Some(shelf) = &self.shelf else { return };
        self.posted.from.store(shelf.from(), Ordering::Release);
        self.posted.up_to.store(shelf.up_to(), Ordering::Release);
    }

    /// Takes some records in.
    fn follow(&mut self) -> Result<(), Trouble> {
        if !self.has_space()? {
            return Ok(());
        }
        let first = self.reader.first_seq();
        let Some(shelf) = &mut self.shelf else { return Ok(()) };
        if shelf.up_to() < first {
            // The log left it behind: it begins anew with what there is.
            return Err(Trouble::Unusable("the log has left it behind".to_owned()));
        }
        shelf.forget_below(first)?;
        let held_back = self.scan.as_ref().is_none_or(|(_, began)| *began != first);
        if held_back || self.scan_up_to <= shelf.up_to() {
            self.scan_up_to = self.reader.visible_up_to();
            self.scan = Some((self.reader.scan(shelf.up_to()), first));
        }
        let Some((scan, _)) = &mut self.scan else { return Ok(()) };
        let mut gathering = Gathering::new(shelf.growing()?, &mut self.homes);
        let mut last = None;
        for record in scan.by_ref().take(self.options.batch) {
            let record = record.map_err(|error| Trouble::Log(error.to_string()))?;
            gathering.record(&record)?;
            last = Some((record.seq, (place(&record), crc32fast::hash(&record.body))));
        }
        let changes = gathering.changes();
        let Some((seq, witness)) = last else {
            return Err(Trouble::Log(format!("record {} cannot be found", shelf.up_to())));
        };
        shelf.growing()?.take_in(changes, seq + 1, Some(witness))?;
        self.sync_at.get_or_insert(self.clock.mono() + HISTORY_SYNC_EVERY);
        if shelf.keys() >= self.options.slice_keys {
            shelf.begin_slice()?;
            while shelf.bytes()? > self.options.bytes_max && shelf.len() > 2 {
                shelf.forget_oldest()?;
            }
        }
        if shelf.up_to() >= self.reader.visible_up_to() {
            self.scan = None;
            self.rest_until = self.clock.mono() + HISTORY_REST;
            self.retry_after = HISTORY_RETRY_FIRST;
            *self.posted.reason.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        self.post();
        Ok(())
    }

    /// Whether the log's disk has space to spare; if not, the index stays as it is for a while.
    fn has_space(&mut self) -> Result<bool, Trouble> {
        let disk = rustix::fs::statvfs(&self.dir).map_err(std::io::Error::from)?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free >= self.options.free_min {
            return Ok(true);
        }
        let (free, min) = (free >> 20, self.options.free_min >> 20);
        self.scan = None;
        self.try_later();
        self.degraded(format!("only {free} MiB are free where it lies; it grows while there are {min} MiB"));
        Ok(false)
    }

    fn answer(&mut self, request: Request) {
        self.attempt(|owner| {
            let Some(shelf) = &owner.shelf else { return Ok(()) };
            let first = owner.reader.first_seq();
            match request {
                // Nobody may wait any more.
                Request::Ended(ask, to) => drop(to.send(shelf.search(&ask, first)?)),
                Request::Find(born, to) => drop(to.send(shelf.find(born, first)?)),
                #[cfg(test)]
                Request::Contents(once, to) => {
                    while owner.shelf.as_ref().is_some_and(|shelf| shelf.up_to() < once) {
                        owner.follow()?;
                    }
                    drop(owner.shelf.as_ref().map(|shelf| to.send(shelf.contents())));
                }
            }
            Ok(())
        });
    }
}

/// Lets an index go on a thread of its own: that may take long, or panic, and nobody waits for it.
fn bury(shelf: Shelf) {
    let thread = std::thread::Builder::new().name("history-end".to_owned());
    let buried = thread.spawn(move || drop(catch_unwind(AssertUnwindSafe(|| drop(shelf)))));
    if let Err(error) = buried {
        tracing::warn!(%error, "no thread to close the index of ended jobs on");
    }
}
