//! A run while it goes on: what its worker may ask, and what others have to say to it.
//!
//! Owns a pool's board, on which stands what is to be known of single runs beside their jobs: that one shall stop, and
//! whom to wake for that; how far one is; until when it is extended. All of it in memory, and none of it kept longer than
//! the run. Knows no job states, and stops nothing: a worker looks, or is woken and then looks. Most runs
//! have nothing on the board, and then a look is two loads: no lock, no allocation.
//!
//! ```text
//! engine ── cancel(lease) ─► board ── ring ─► bell of the worker that heeds it, or sleeps     forget(lease): the run is over
//!                              ▲
//!                 is_cancelled ├── a worker, between two jobs or within one
//!             progress, extend ┘                                                 told(lease): for who looks at the job
//! ```

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};

use super::{Cutoff, Progress};
use crate::clock::Clock;
use crate::limits::NOTES_MAX;
use crate::types::{Lease, UnixMs, millis};

/// One run of a job, in the hands of its worker: part of its [`Assignment`](super::Assignment). Cheap to clone, and may be
/// asked from any thread; once the run is over it answers as if nothing had happened.
#[derive(Clone)]
pub struct Run {
    lease: Lease,
    deadline_ms: UnixMs,
    /// `None`: nobody outside hears of it.
    board: Option<Arc<Board>>,
}

/// Why a run shall stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Somebody cancelled its job: whatever it answers changes nothing any more.
    Cancelled,
    /// Its time is over. What it answers within `kill_after` counts; code that does not end by then is abandoned with its
    /// thread, and fails.
    Overdue,
    /// Its pool is ended by a drain or a stop that takes too long: what answers
    /// [`Outcome::Interrupted`](super::Outcome::Interrupted) runs again, at no cost.
    CutOff,
}

impl Run {
    /// A run of which nobody outside hears: it is never told to stop. For tests of workers.
    pub fn alone(lease: Lease, deadline_ms: UnixMs) -> Self {
        Self { lease, deadline_ms, board: None }
    }

    /// It begins now, and not before: its `timeout` is over so much later. Returns its deadline; one of which nobody outside
    /// hears keeps the one that it was given.
    pub(super) fn begins(&mut self, timeout: Duration) -> UnixMs {
        if let Some(board) = &self.board {
            self.deadline_ms = board.clock.wall_ms().saturating_add(millis(timeout));
        }
        self.deadline_ms
    }

    /// Unix time in milliseconds at which its timeout is over, as far as it is extended now.
    pub fn deadline_ms(&self) -> UnixMs {
        let extended =
            self.board.as_ref().and_then(|board| board.seen(self.lease, |note| note.extended.map(|(_, wall)| wall)));
        extended.map_or(self.deadline_ms, |extended| extended.max(self.deadline_ms))
    }

    /// Notes how far it is. To be called only while it goes on.
    pub(super) fn progress(&self, progress: Progress) {
        if let Some(board) = &self.board {
            let now = board.clock.wall_ms();
            board.note_if_few(self.lease, |note| note.progress = Some((progress, now)));
        }
    }

    /// Gives it `more` time from now on, up to `latest` of the steady clock, and takes none away; returns its deadline then.
    /// To be called only while it goes on.
    pub(crate) fn extend(&self, more: Duration, latest: Duration) -> UnixMs {
        let before = self.deadline_ms();
        let Some(board) = &self.board else { return before };
        let now = board.clock.mono();
        let until = now.saturating_add(more).min(latest);
        let left = u64::try_from(until.saturating_sub(now).as_millis()).unwrap_or(u64::MAX);
        let deadline_ms = board.clock.wall_ms().saturating_add(left).max(before);
        board.note_if_few(self.lease, |note| {
            let until = note.extended.map_or(until, |(before, _)| before.max(until));
            note.extended = Some((until, deadline_ms));
            note.overdue &= until <= now;
        });
        deadline_ms
    }

    /// Why it shall stop, if it shall: the first of its reasons in the order of [`Stop`].
    pub fn stop(&self) -> Option<Stop> {
        let board = self.board.as_ref()?;
        let noted = board.stop(self.lease);
        noted.or_else(|| board.cutoff.is_set().then_some(Stop::CutOff))
    }

    /// Whether it shall stop. A worker whose jobs take long asks now and then, and returns early; what it answers then
    /// does not matter if its job was cancelled, and else says what becomes of it, as always.
    pub fn is_cancelled(&self) -> bool {
        self.stop().is_some()
    }

    /// Waits for `most`, or until it shall stop; why it shall, if it shall. One of which nobody outside hears may be cut off.
    pub(super) fn stopped_within(&self, most: Duration, cutoff: &Cutoff) -> Option<Stop> {
        let cutoff = self.board.as_ref().map_or(cutoff, |board| &board.cutoff);
        cutoff.sleep(most, || self.stop().or_else(|| cutoff.is_set().then_some(Stop::CutOff)))
    }

    /// Has `bell` rung when it is cancelled; false if it is already.
    pub(super) fn heed(&self, bell: &Arc<Bell>) -> bool {
        let Some(board) = &self.board else { return true };
        board.note(self.lease, |note| {
            note.bell = Some(Arc::clone(bell));
            !note.cancelled
        })
    }
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("lease", &self.lease).field("deadline_ms", &self.deadline_ms).finish()
    }
}

/// What is to be known of a pool's runs.
pub struct Board {
    cutoff: Arc<Cutoff>,
    clock: Arc<dyn Clock>,
    /// How many notes there are. Written under the lock (Release); read without it (Acquire), so that who sees none need
    /// not lock.
    count: AtomicUsize,
    notes: Mutex<HashMap<Lease, Note>>,
    /// Wakes who runs jobs side by side when one of them is cancelled.
    #[cfg(feature = "daemon")]
    changed: tokio::sync::Notify,
}

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Board").field("notes", &self.notes_count()).finish_non_exhaustive()
    }
}

/// What is to be known of one run.
#[derive(Debug, Default)]
struct Note {
    cancelled: bool,
    overdue: bool,
    bell: Option<Arc<Bell>>,
    /// How far it is, and when it said so.
    progress: Option<(Progress, UnixMs)>,
    /// Until when it was extended, by the steady and by the wall clock.
    extended: Option<(Duration, UnixMs)>,
}

/// What a run has told of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// How far it is, and when it said so.
    pub progress: Option<(Progress, UnixMs)>,
    /// Its deadline, if that was extended.
    pub extended_ms: Option<UnixMs>,
}

impl Board {
    /// The board of a pool that is ended by `cutoff`.
    pub fn new(cutoff: Arc<Cutoff>, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            cutoff,
            clock,
            count: AtomicUsize::new(0),
            notes: Mutex::default(),
            #[cfg(feature = "daemon")]
            changed: tokio::sync::Notify::new(),
        })
    }

    /// A run of the pool, with its deadline.
    pub fn run(self: &Arc<Self>, lease: Lease, deadline_ms: UnixMs) -> Run {
        Run { lease, deadline_ms, board: Some(Arc::clone(self)) }
    }

    /// Tells a run that its job was cancelled. It may not have begun, and may be over; then it is to be forgotten.
    pub fn cancel(&self, lease: Lease) {
        let bell = self.note(lease, |note| {
            note.cancelled = true;
            note.bell.clone()
        });
        if let Some(bell) = bell {
            bell.ring();
        }
        self.cutoff.look_again();
        #[cfg(feature = "daemon")]
        self.changed.notify_one();
    }

    /// Tells a run that its time is over.
    pub fn overdue(&self, lease: Lease) {
        self.note(lease, |note| note.overdue = true);
        self.cutoff.look_again();
    }

    /// Whether a run was told that its job was cancelled.
    pub fn is_cancelled(&self, lease: Lease) -> bool {
        self.stop(lease) == Some(Stop::Cancelled)
    }

    /// Why a run was told to stop.
    fn stop(&self, lease: Lease) -> Option<Stop> {
        self.seen(lease, |note| match note {
            Note { cancelled: true, .. } => Some(Stop::Cancelled),
            Note { overdue: true, .. } => Some(Stop::Overdue),
            Note { .. } => None,
        })
    }

    /// What a run has told of itself.
    pub fn told(&self, lease: Lease) -> Option<Told> {
        let told = self.seen(lease, |note| {
            Some(Told { progress: note.progress.clone(), extended_ms: note.extended.map(|(_, wall)| wall) })
        })?;
        (told.progress.is_some() || told.extended_ms.is_some()).then_some(told)
    }

    /// Until when a run was extended, by the steady clock.
    pub fn extended(&self, lease: Lease) -> Option<Duration> {
        self.seen(lease, |note| note.extended.map(|(until, _)| until))
    }

    /// A run is over.
    pub fn forget(&self, lease: Lease) {
        if self.count.load(Ordering::Acquire) > 0 {
            let mut notes = self.notes();
            notes.remove(&lease);
            self.count.store(notes.len(), Ordering::Release);
        }
    }

    /// How many runs there is something to be known of.
    pub fn notes_count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Waits until a run may have been cancelled since it was last waited for. For one who waits.
    #[cfg(feature = "daemon")]
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn seen<T>(&self, lease: Lease, see: impl FnOnce(&Note) -> Option<T>) -> Option<T> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.notes().get(&lease).and_then(see)
    }

    /// As `note`, of what may be left out where there are many.
    fn note_if_few(&self, lease: Lease, write: impl FnOnce(&mut Note)) {
        let mut notes = self.notes();
        if notes.len() < NOTES_MAX || notes.contains_key(&lease) {
            write(notes.entry(lease).or_default());
            self.count.store(notes.len(), Ordering::Release);
        }
    }

    fn note<T>(&self, lease: Lease, write: impl FnOnce(&mut Note) -> T) -> T {
        let mut notes = self.notes();
        let written = write(notes.entry(lease).or_default());
        self.count.store(notes.len(), Ordering::Release);
        written
    }

    fn notes(&self) -> MutexGuard<'_, HashMap<Lease, Note>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What wakes a worker that waits on descriptors: readable from a ring until it is muted.
#[derive(Debug)]
pub(super) struct Bell(OwnedFd);

impl Bell {
    /// A bell that was not rung.
    ///
    /// # Errors
    /// No descriptor left.
    pub(super) fn new() -> std::io::Result<Arc<Self>> {
        Ok(Arc::new(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    fn ring(&self) {
        // An eventfd takes it unless its counter is at the brim, and then it is readable anyhow. Any non-zero number does.
        let _: rustix::io::Result<usize> = rustix::io::write(&self.0, &[1; 8]);
    }

    /// Takes all rings up to now.
    pub(super) fn mute(&self) {
        // Nothing to be read means that it was not rung.
        let _: rustix::io::Result<usize> = rustix::io::read(&self.0, &mut [0; 8]);
    }

    /// Readable while it rings.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::RealClock;
    use crate::types::Fence;

    fn lease(counter: u64) -> Lease {
        Lease { born: 7, fence: Fence { epoch: 1, counter } }
    }

    fn board() -> Arc<Board> {
        Board::new(Cutoff::new().unwrap(), RealClock::shared())
    }

    fn rings(bell: &Bell) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut fds = [PollFd::from_borrowed_fd(bell.fd(), PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).unwrap() > 0
    }

    #[test]
    fn one_run_is_told_and_no_other() {
        let board = board();
        let (run, other) = (board.run(lease(1), 0), board.run(lease(2), 0));
        board.cancel(lease(1));
        assert_eq!((run.stop(), other.stop()), (Some(Stop::Cancelled), None));
        board.forget(lease(2));
        assert_eq!((run.is_cancelled(), board.notes_count()), (true, 1));
        board.forget(lease(1));
        assert_eq!((run.is_cancelled(), board.notes_count()), (false, 0));
    }

    #[test]
    fn a_bell_rings_for_who_heeds_it_until_it_is_muted() {
        let board = board();
        let (run, bell) = (board.run(lease(1), 0), Bell::new().unwrap());
        assert!(run.heed(&bell) && !rings(&bell));
        board.cancel(lease(2));
        assert!(!rings(&bell), "of another run");
        board.cancel(lease(1));
        assert!(rings(&bell) && run.is_cancelled());
        bell.mute();
        assert!(!rings(&bell) && run.is_cancelled());
        assert!(!run.heed(&bell) && !board.run(lease(2), 0).heed(&bell), "too late to wait for it");
    }

    #[test]
    fn the_cutoff_stops_every_run_and_a_cancelled_one_stays_cancelled() {
        let cutoff = Cutoff::new().unwrap();
        let board = Board::new(Arc::clone(&cutoff), RealClock::shared());
        board.cancel(lease(1));
        cutoff.set();
        let stops = |counter| board.run(lease(counter), 0).stop();
        assert_eq!((stops(1), stops(2)), (Some(Stop::Cancelled), Some(Stop::CutOff)));
        assert_eq!(Run::alone(lease(1), 5).stop(), None);
    }

    /// A clock that stands still.
    struct Still(UnixMs);

    impl Clock for Still {
        fn wall_ms(&self) -> UnixMs {
            self.0
        }

        fn mono(&self) -> Duration {
            Duration::ZERO
        }
    }

    #[test]
    fn a_run_is_extended_from_now_on_as_far_as_it_may_be_and_never_shortened() {
        let board = Board::new(Cutoff::new().unwrap(), Arc::new(Still(10_000)));
        let (run, s) = (board.run(lease(1), 12_000), Duration::from_secs);
        // The steady clock stands at zero.
        assert_eq!((run.deadline_ms(), board.told(lease(1)), board.extended(lease(1))), (12_000, None, None));
        assert_eq!(run.extend(s(1), s(10)), 12_000, "it has that already");
        assert_eq!((run.extend(s(5), s(10)), board.extended(lease(1))), (15_000, Some(s(5))));
        assert_eq!((run.extend(s(1), s(10)), board.extended(lease(1))), (15_000, Some(s(5))));
        assert_eq!((run.extend(Duration::MAX, s(10)), run.deadline_ms()), (20_000, 20_000));
        assert_eq!((board.extended(lease(1)), board.told(lease(1)).unwrap().extended_ms), (Some(s(10)), Some(20_000)));
        board.forget(lease(1));
        assert_eq!((run.deadline_ms(), board.told(lease(1))), (12_000, None));
    }

    #[test]
    fn a_run_that_was_told_that_its_time_is_over_may_ask_for_more() {
        let board = Board::new(Cutoff::new().unwrap(), Arc::new(Still(0)));
        let run = board.run(lease(1), 0);
        board.overdue(lease(1));
        run.extend(Duration::from_secs(1), Duration::ZERO);
        assert_eq!(run.stop(), Some(Stop::Overdue), "there is none to be had");
        run.extend(Duration::from_secs(1), Duration::from_secs(1));
        assert_eq!(run.stop(), None);
    }

    #[test]
    fn the_last_progress_stands_with_its_time_until_the_run_is_over_and_so_many_are_kept() {
        let board = Board::new(Cutoff::new().unwrap(), Arc::new(Still(7)));
        let run = |counter| board.run(lease(counter), 0);
        run(1).progress(0.5.into());
        run(1).progress((0.75, "nearly").into());
        let progress = board.told(lease(1)).unwrap().progress.unwrap();
        assert_eq!((progress.0.fraction(), progress.0.text(), progress.1), (Some(0.75), Some("nearly"), 7));
        (2..2 * NOTES_MAX as u64).for_each(|counter| run(counter).progress(1.0.into()));
        assert_eq!(board.notes_count(), NOTES_MAX);
        run(1).progress("there".into());
        assert_eq!(board.told(lease(1)).unwrap().progress.unwrap().0, "there".into());
        board.cancel(lease(3 * NOTES_MAX as u64));
        assert!(run(3 * NOTES_MAX as u64).is_cancelled(), "what must be known is");
        board.forget(lease(1));
        assert_eq!(board.told(lease(1)), None);
    }
}
