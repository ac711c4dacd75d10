//! The engine's loop: commands in, events into the log and the table, one commit, answers and tasks out.
//!
//! One thread owns all of it. It never reads the disk, and waits for nothing but its queue and its own commits.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use super::Resolver;
use super::ahead::{Ahead, Carrier};
use super::awaited::Awaited;
use super::command::{Command, To};
use super::facts::{Facts, Librarian, LookUp};
use super::open::Beside;
use super::pulse::Beating;
use super::runs::{PoolRun, Rollover, TypeRun};
use super::scaling::Sizes;
use super::shared::Shared;
use super::shown::measured::Measured;
use super::space::Space;
use super::stop::Stopping;
use super::upkeep::checkpoint::{Checkpointing, Scribe};
use super::upkeep::clean::Cleaning;
use super::upkeep::gather::Gatherer;
use super::upkeep::scrubber::Scrubber;
use crate::clock::Clock;
use crate::config::{Config, SyncPolicy};
use crate::job::event::Event;
use crate::job::ids::IdMaker;
use crate::job::table::Table;
use crate::log::lock::DirLock;
use crate::log::{Log, Poisoned};
use crate::pool::{PoolId, PoolMaker, Task};
use crate::refusal::Refusal;
use crate::types::{Seq, UnixMs};

/// A seal follows a burst of commits after so much quiet.
const SEAL_AFTER: Duration = Duration::from_millis(10);
/// Commands that one commit gathers at most, so that the first of them does not wait for ever.
const COMMANDS_PER_COMMIT: usize = 4096;
/// Commands between two looks at whether the frame before is durable.
const COMMANDS_BETWEEN_LOOKS: usize = 64;
/// After an unclean stop, runs begin only once their lease is synced, for so long.
const CAREFUL_FOR: Duration = Duration::from_secs(60);

/// Called once its commit is settled: `true` if it is durable, `false` if the log is poisoned.
pub(super) type Reply = Box<dyn FnOnce(bool) + Send>;

/// A task that is handed out once its lease is written, or synced.
pub(super) struct Staged {
    pub(super) pool: PoolId,
    pub(super) task: Task,
    /// Whether written is enough.
    pub(super) when_written: bool,
}

/// Everything that the engine's thread owns.
pub(super) struct Core {
    pub(super) log: Log,
    pub(super) table: Table,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) ids: IdMaker,
    pub(super) shared: Arc<Shared>,
    pub(super) inbox: Receiver<Command>,
    /// Commands that go before those of the queue.
    inbox_first: VecDeque<Command>,
    /// Commands that wait until there is room to record what follows from them.
    pub(super) waiting: VecDeque<Command>,
    pub(super) to_self: Sender<Command>,
    pub(super) config: Config,
    /// The wall clock at the start of this turn.
    pub(super) now: UnixMs,
    /// The steady clock at the start of this turn.
    pub(super) mono: Duration,
    pub(super) started_at: UnixMs,
    pub(super) careful_until: Duration,
    pub(super) replies: Vec<Reply>,
    pub(super) awaited: Awaited,
    pub(super) staged: Vec<Staged>,
    /// Counts leases of this epoch.
    pub(super) leases: u64,
    pub(super) pool_maker: Box<dyn PoolMaker>,
    pub(super) resolver: Resolver,
    pub(super) pools: BTreeMap<PoolId, PoolRun>,
    pub(super) types: BTreeMap<u32, TypeRun>,
    pub(super) rollover: Rollover,
    pub(super) sizes: Sizes,
    pub(super) cleaning: Cleaning,
    /// The segment that was written when the head could not be read last: in that one it is not tried again.
    pub(super) unreadable_in: Option<u32>,
    /// What was read for the command that is handled now.
    pub(super) facts: Facts,
    pub(super) librarian: Librarian,
    /// Who gathers the chosen names, as long as that lasts.
    pub(super) gatherer: Option<Gatherer>,
    /// Commands that wait for these names.
    pub(super) awaiting_names: Vec<Command>,
    /// Who carries commits out beside the engine, and what waits for the one that is on its way.
    pub(super) carrier: Option<Carrier>,
    pub(super) ahead: Option<Ahead>,
    pub(super) scribe: Scribe,
    pub(super) scrubber: Option<Scrubber>,
    pub(super) checkpointing: Checkpointing,
    /// Commands whose records are to be read once they are written.
    pub(super) look_ups: Vec<LookUp>,
    /// Commands whose records are being read.
    pub(super) looking: usize,
    /// Whether records of dead jobs that leave are being read.
    pub(super) forgetting: bool,
    /// For pauses that shall differ.
    pub(super) random: fastrand::Rng,
    pub(super) measured: Measured,
    /// There is more to do than one commit holds.
    pub(super) again: bool,
    /// There is more of a checkpoint to be given away.
    pub(super) more_of_checkpoint: bool,
    pub(super) seal_at: Option<Duration>,
    pub(super) sync_at: Option<Duration>,
    pub(super) stopping: Option<Stopping>,
    pub(super) space: Space,
    pub(super) beating: Beating,
    _lock: Option<DirLock>,
}

/// What a new core is made of.
pub(super) struct CoreParts {
    pub(super) log: Log,
    pub(super) table: Table,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) ids: IdMaker,
    pub(super) shared: Arc<Shared>,
    pub(super) inbox: Receiver<Command>,
    pub(super) to_self: Sender<Command>,
    pub(super) config: Config,
    pub(super) unclean: bool,
    pub(super) lock: Option<DirLock>,
    pub(super) pool_maker: Box<dyn PoolMaker>,
    pub(super) resolver: Resolver,
    pub(super) cleaning: Cleaning,
    pub(super) beside: Beside,
    pub(super) random: fastrand::Rng,
}

impl Core {
    pub(super) fn new(parts: CoreParts) -> Self {
        let mono = parts.clock.mono();
        let now = parts.clock.wall_ms();
        let measured = Measured::from(parts.log.durable_up_to());
        Self {
            log: parts.log,
            table: parts.table,
            ids: parts.ids,
            shared: parts.shared,
            inbox: parts.inbox,
            inbox_first: VecDeque::new(),
            waiting: VecDeque::new(),
            to_self: parts.to_self,
            config: parts.config,
            now,
            mono,
            started_at: now,
            careful_until: if parts.unclean { mono + CAREFUL_FOR } else { Duration::ZERO },
            clock: parts.clock,
            replies: Vec::new(),
            awaited: Awaited::default(),
            staged: Vec::new(),
            leases: 0,
            pool_maker: parts.pool_maker,
            resolver: parts.resolver,
            pools: BTreeMap::new(),
            types: BTreeMap::new(),
            rollover: Rollover::default(),
            sizes: Sizes::default(),
            cleaning: parts.cleaning,
            unreadable_in: None,
            facts: Facts::default(),
            librarian: parts.beside.librarian,
            gatherer: parts.beside.gatherer,
            awaiting_names: Vec::new(),
            carrier: parts.beside.carrier,
            ahead: None,
            scribe: parts.beside.scribe,
            scrubber: parts.beside.scrubber,
            checkpointing: Checkpointing::default(),
            look_ups: Vec::new(),
            looking: 0,
            forgetting: false,
            random: parts.random,
            measured,
            again: false,
            more_of_checkpoint: false,
            seal_at: None,
            sync_at: None,
            stopping: None,
            space: Space::default(),
            beating: Beating::default(),
            _lock: parts.lock,
        }
    }

    /// Serves until a stop is through.
    ///
    /// # Errors
    /// The log is poisoned; every caller who waited was told so.
    pub(super) fn run(mut self) -> Result<(), Poisoned> {
        let ended = self.serve();
        if ended.is_err() {
            self.disown();
            return ended;
        }
        // Those who asked for the stop are told when log and directory are free again.
        let waiting = self.stopping.take().map(|stopping| stopping.waiting).unwrap_or_default();
        let shared = Arc::clone(&self.shared);
        drop(self);
        for to in waiting {
            to.give(());
        }
        shared.broadcast.send();
        ended
    }

    /// Tells all who wait that nothing more is acknowledged.
    pub(super) fn disown(&mut self) {
        let on_its_way = self.ahead.take().map(Ahead::into_replies).unwrap_or_default();
        for reply in on_its_way.into_iter().chain(self.replies.drain(..)) {
            reply(false);
        }
        self.shared.broadcast.send();
        for run in self.pools.values() {
            run.pool.cut_off();
        }
    }

    fn serve(&mut self) -> Result<(), Poisoned> {
        loop {
            let first = match self.is_busy() {
                true => self.wait(),
                // What is on its way is waited for here, unless something comes first.
                false => match self.await_commit_or_command()? {
                    Some(command) => Some(command),
                    None => self.wait(),
                },
            };
            if self.turn(first)? {
                return Ok(());
            }
        }
    }

    /// One turn: takes commands, decides, commits, and hands out what may begin. Says whether a stop is through.
    ///
    /// # Errors
    /// The log is poisoned.
    pub(super) fn turn(&mut self, first: Option<Command>) -> Result<bool, Poisoned> {
        self.tick();
        self.look_at_space();
        self.beat_if_due();
        self.again = false;
        if self.stands_still() {
            // Nothing may be committed for long: what can never be made is told here.
            self.log.check()?;
        } else {
            // These are older than what the turn before has left.
            self.waiting.append(&mut self.inbox_first);
            self.inbox_first = std::mem::take(&mut self.waiting);
        }
        self.inbox_first.extend(first);
        for number in 0..COMMANDS_PER_COMMIT {
            if number.is_multiple_of(COMMANDS_BETWEEN_LOOKS) {
                self.look_after_commit()?;
                if self.ahead.is_none() && self.may_go_ahead() {
                    // The disk is idle.
                    self.again = true;
                    break;
                }
            }
            if self.log.is_full() {
                self.again = true;
                break;
            }
            let Some(command) = self.inbox_first.pop_front().or_else(|| self.inbox.try_recv().ok()) else { break };
            if self.must_wait(&command) {
                self.wait_for_room(command);
            } else {
                self.handle(command)?;
            }
        }
        // A stop that came just now may record what had to wait for space; and there may be space since.
        let may_go_on = !self.waiting.is_empty() && !self.waits_for_room();
        self.again |= may_go_on || !self.inbox_first.is_empty();
        self.timers()?;
        self.dispatch()?;
        self.commit_or_go_ahead()?;
        self.send_look_ups();
        self.more_of_checkpoint = self.go_on_with_checkpoint()?;
        debug_assert_eq!(self.misplaced(), None);
        if self.is_over() {
            self.finish()?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Whether there is more to do than one turn held.
    pub(super) fn is_busy(&self) -> bool {
        self.again || !self.inbox_first.is_empty() || !self.inbox.is_empty()
    }

    pub(super) fn tick(&mut self) {
        self.now = self.clock.wall_ms();
        self.mono = self.clock.mono();
    }

    /// The next command, or `None` when something else is due.
    fn wait(&mut self) -> Option<Command> {
        if std::mem::take(&mut self.again) {
            return None;
        }
        if let Ok(command) = self.inbox.try_recv() {
            return Some(command);
        }
        let sleep = self.sleep();
        // The engine holds a sender itself: the queue is never disconnected, and an error means that time is up.
        self.inbox.recv_timeout(sleep).ok()
    }

    pub(super) fn handle(&mut self, command: Command) -> Result<(), Poisoned> {
        match command {
            Command::Push(pushing) => self.push(pushing),
            Command::Act { id, action, to } => self.act(id, action, to),
            Command::Purge { worker_type, to } => self.purge(&worker_type, to),
            Command::PurgeRest(purge) => self.purge_on(purge),
            Command::Redrive { worker_type, version, to } => self.redrive(&worker_type, &version, to),
            Command::RedriveRest(redriving) => self.redrive_on(redriving),
            Command::Pause { worker_type, paused, to } => self.pause(&worker_type, paused, to),
            Command::Rollout { worker_type, word, to } => self.rollout(&worker_type, word, to),
            Command::Ecosystem { to } => self.show(self.ecosystem(), to),
            Command::Measures { to } => self.show(self.measures(), to),
            Command::Generations { to } => self.show(self.generations_view(), to),
            Command::Find { id, to } => self.answer_find(id, to),
            Command::Why { id, to } => self.answer_why(id, to),
            Command::AwaitEnd { id, to } => self.await_end(id, to),
            Command::Known { facts, then } => self.known(facts, *then),
            Command::Described { described, then } => self.described(*described, *then),
            Command::NamesGathered(gathered) => self.names_gathered(gathered),
            Command::Outcome { lease, worker, outcome, about } => self.outcome(lease, worker, outcome, about),
            Command::ForgetDead => {
                self.forgetting = false;
                self.forget_dead()
            }
            Command::LiveAt { places, to } => self.answer_live_at(&places, to),
            Command::Reload { generation, to } => self.reload(*generation, to),
            Command::ReloadFailed { why } => self.reload_failed(why),
            Command::Beat(pulse) => {
                self.begin_to_beat(pulse);
                Ok(())
            }
            Command::Backup { to } => self.hold_for_backup(to),
            Command::HandOver { to } => self.hand_over_to_successor(to),
            Command::Stop { to } => self.stop(to),
            Command::Pool(pool, report) => self.pool_report(pool, report),
            Command::Survivors(survivors) => self.restate(survivors),
        }
    }

    /// Has `reply` called once what was recorded up to now is settled.
    pub(super) fn reply(&mut self, reply: impl FnOnce(bool) + Send + 'static) {
        self.replies.push(Box::new(reply));
    }

    /// Shows something once all that it says is durable.
    fn show<T: Send + 'static>(&mut self, view: T, to: To<Result<T, Refusal>>) -> Result<(), Poisoned> {
        self.reply(move |durable| to.give(if durable { Ok(view) } else { Err(Refusal::Poisoned) }));
        Ok(())
    }

    /// Makes sure that records of this many bytes fit in the frame together: commits, or ends the segment, if need be.
    pub(super) fn make_room(&mut self, records: usize, bytes: usize) -> Result<(), Poisoned> {
        if self.log.has_room(records, bytes) {
            return Ok(());
        }
        self.commit()?;
        if self.log.has_room(records, bytes) {
            return Ok(());
        }
        self.end_segment()?;
        if !self.log.has_room(records, bytes) {
            self.commit()?;
        }
        Ok(())
    }

    /// Ends the segment; everything was written. The next one begins with what a replay from there needs.
    pub(super) fn end_segment(&mut self) -> Result<(), Poisoned> {
        let waits = self.waits_for_disk();
        self.log.rotate()?;
        drop(waits);
        self.look_at_space_again();
        self.begin_checkpoint();
        self.put_context();
        self.clean_if_due();
        Ok(())
    }

    /// Records an event for which there is room: in the frame, and in the table.
    pub(super) fn put(&mut self, event: &Event<'_>, joined: bool) -> Seq {
        let (seq, position) = self.log.append(event.record_kind(), joined, |out| event.encode(out));
        if let Err(illegal) = self.table.apply(seq, position, event) {
            // Decisions are made on the table itself. An engine that contradicts it must not go on.
            unreachable!("decided an illegal event: {illegal}");
        }
        seq
    }

    /// Records an event by itself.
    pub(super) fn record(&mut self, event: &Event<'_>) -> Result<Seq, Poisoned> {
        self.make_room(1, event.bytes_max())?;
        Ok(self.put(event, false))
    }

    /// Writes what was recorded, hands out what may begin, syncs, answers, and hands out the rest. When it returns,
    /// everything recorded is as durable as the `sync` setting says.
    pub(super) fn commit(&mut self) -> Result<(), Poisoned> {
        self.await_commit()?;
        if self.log.has_unwritten() {
            let waits = self.waits_for_disk();
            self.log.write()?;
            drop(waits);
            self.hand_out(true);
            match self.config.log.sync {
                SyncPolicy::Always => self.sync()?,
                SyncPolicy::Every(within) => {
                    self.sync_at.get_or_insert(self.mono + within);
                }
                SyncPolicy::Never => {}
            }
            self.log.show();
            self.shared.shown();
        }
        if !self.replies.is_empty() {
            for reply in self.replies.drain(..) {
                reply(true);
            }
            self.shared.broadcast.send();
        }
        self.hand_out(false);
        Ok(())
    }

    pub(super) fn sync(&mut self) -> Result<(), Poisoned> {
        let before = self.clock.mono();
        let waits = self.waits_for_disk();
        self.log.sync()?;
        drop(waits);
        self.mono = self.clock.mono();
        self.measured.synced(self.mono.saturating_sub(before), self.log.durable_up_to());
        self.sync_at = None;
        self.note_synced();
        Ok(())
    }

    /// After some quiet a seal follows a sync.
    pub(super) fn note_synced(&mut self) {
        self.seal_at = Some(self.mono + SEAL_AFTER);
    }
}
