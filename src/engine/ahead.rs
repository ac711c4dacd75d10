//! Commits that are carried out beside the engine: while one frame is written and synced, the engine fills the next.
//!
//! Only under load, and only for large frames: to wake another thread takes as long as a fifth of a sync. What a frame
//! brings about (answers, tasks, records that are to be read) waits here until it is durable. At most one is on its way, and
//! as long as none is, the engine ends its turn as soon as it has filled one that is large enough: the disk is not to wait for
//! commands that the engine can take meanwhile.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Select, Sender};

use super::command::Command;
use super::core::{Core, Reply, Staged};
use super::facts::LookUp;
use crate::clock::Clock;
use crate::config::SyncPolicy;
use crate::log::Poisoned;
use crate::log::commit::{Commit, Failed};

/// A frame of at least this share of a full one is worth another thread.
const WORTH_A_THREAD: usize = 16;

/// A commit that was carried out, what came of it, and how long it took.
type Done = (Commit, Result<(), Failed>, Duration);

/// The thread that carries commits out; it ends with the sender. A simulation, which must see no thread, has none: then
/// nothing goes ahead.
pub(super) struct Carrier {
    commits: Option<Sender<Commit>>,
    done: Receiver<Done>,
    thread: Option<JoinHandle<()>>,
}

/// What waits for the frame that is on its way.
pub(super) struct Ahead {
    replies: Vec<Reply>,
    pub(super) staged: Vec<Staged>,
    look_ups: Vec<LookUp>,
}

impl Ahead {
    /// Those who wait to hear of it.
    pub(super) fn into_replies(self) -> Vec<Reply> {
        self.replies
    }
}

impl Carrier {
    pub(super) fn start(clock: Arc<dyn Clock>) -> std::io::Result<Self> {
        let (commits, inbox) = crossbeam_channel::bounded::<Commit>(1);
        let (outbox, done) = crossbeam_channel::bounded::<Done>(1);
        let builder = std::thread::Builder::new().name("commits".to_owned());
        let thread = builder.spawn(move || {
            for commit in inbox {
                let began = clock.mono();
                let carried_out = commit.carry_out();
                // Where the engine is gone, nobody was told anything of this frame.
                drop(outbox.send((commit, carried_out, clock.mono().saturating_sub(began))));
            }
        })?;
        Ok(Self { commits: Some(commits), done, thread: Some(thread) })
    }

    fn carry(&self, commit: Commit) {
        // The thread lives as long as this.
        drop(self.commits.as_ref().map(|commits| commits.send(commit)));
    }

    /// The end of what is on its way, if it is known, or once it is.
    fn end(&self, wait: bool) -> Option<Done> {
        // Where the thread is gone by a bug, nothing is known of what is on its way: so the engine's thread must end, too.
        if wait {
            Some(self.done.recv().expect("the thread that carries commits out lives"))
        } else {
            self.done.try_recv().ok()
        }
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.commits = None;
        // The directory is another one's to open once this engine is gone. A thread that panicked has said so.
        drop(self.thread.take().map(JoinHandle::join));
    }
}

impl Core {
    /// Whether the frame is one that goes to the disk beside the engine.
    pub(super) fn may_go_ahead(&self) -> bool {
        let large = self.log.frame_bytes() >= self.log.options().frame_bytes_full / WORTH_A_THREAD;
        let always = matches!(self.config.log.sync, SyncPolicy::Always);
        self.carrier.is_some() && always && large && self.log.has_unwritten()
    }

    /// Ends a turn: what was recorded is on its way to the disk, or there. Before it, whatever was on its way has arrived.
    pub(super) fn commit_or_go_ahead(&mut self) -> Result<(), Poisoned> {
        self.await_commit()?;
        let goes_ahead = self.may_go_ahead();
        let Some(carrier) = self.carrier.as_ref().filter(|_| goes_ahead) else { return self.commit() };
        carrier.carry(self.log.begin_commit()?);
        self.ahead = Some(Ahead {
            replies: std::mem::take(&mut self.replies),
            staged: std::mem::take(&mut self.staged),
            look_ups: std::mem::take(&mut self.look_ups),
        });
        Ok(())
    }

    /// Waits until what is on its way is durable, and brings about what waits for that.
    ///
    /// # Errors
    /// The log is poisoned.
    pub(super) fn await_commit(&mut self) -> Result<(), Poisoned> {
        self.await_commit_if(true)
    }

    /// As [`Core::await_commit`], if that is so already.
    ///
    /// # Errors
    /// The log is poisoned.
    pub(super) fn look_after_commit(&mut self) -> Result<(), Poisoned> {
        self.await_commit_if(false)
    }

    /// Waits until what is on its way is durable, or for a command, whichever comes first; `None` if it was the former, or
    /// nothing is on its way.
    ///
    /// # Errors
    /// The log is poisoned.
    pub(super) fn await_commit_or_command(&mut self) -> Result<Option<Command>, Poisoned> {
        while let Some(carrier) = self.carrier.as_ref().filter(|_| self.ahead.is_some()) {
            let mut either = Select::new();
            let (done, inbox) = (either.recv(&carrier.done), either.recv(&self.inbox));
            let waits = self.waits_for_disk();
            let ready = either.ready();
            drop(waits);
            if ready == inbox
                && let Ok(command) = self.inbox.try_recv()
            {
                return Ok(Some(command));
            }
            if ready == done {
                self.await_commit()?;
            }
        }
        Ok(None)
    }

    fn await_commit_if(&mut self, wait: bool) -> Result<(), Poisoned> {
        let Some(carrier) = self.carrier.as_ref().filter(|_| self.ahead.is_some()) else { return Ok(()) };
        let waits = if wait { self.waits_for_disk() } else { None };
        let Some((commit, carried_out, took)) = carrier.end(wait) else { return Ok(()) };
        drop(waits);
        let ended = self.log.end_commit(commit, carried_out);
        let Some(ahead) = self.ahead.take() else { return Ok(()) };
        if ended.is_err() {
            // These come before all others who are told that nothing more is acknowledged.
            self.replies.splice(..0, ahead.replies);
            return ended;
        }
        self.log.show();
        self.shared.shown();
        self.measured.synced(took, self.log.durable_up_to());
        self.note_synced();
        for reply in ahead.replies {
            reply(true);
        }
        self.shared.broadcast.send();
        self.hand_over(ahead.staged);
        let later = std::mem::replace(&mut self.look_ups, ahead.look_ups);
        self.send_look_ups();
        self.look_ups = later;
        Ok(())
    }
}
