//! Checkpoints while the engine serves: begun when a segment ends, written by a thread beside.
//!
//! The engine gives away a picture of its table, which costs it some hundred microseconds, and after that, turn by turn, the
//! index of chosen names, part by part. A checkpoint that fails is left: the log has everything.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, TrySendError};

use super::core::Core;
use crate::job::table::Picture;
use crate::log::checkpoint::{Beginning, Writer};

/// Blocks that may wait for the thread that writes them.
const BLOCKS_AHEAD: usize = 4;

/// What the thread is told.
pub(super) enum Piece {
    Begin(Box<(Beginning, Picture)>),
    Names(Vec<u8>),
    End,
}

/// Who writes checkpoints.
pub(super) enum Scribe {
    /// A thread; it ends with the sender.
    Thread {
        pieces: Option<Sender<Piece>>,
        thread: Option<JoinHandle<()>>,
        /// Bytes of the last checkpoint: stored by the thread, loaded by the engine; it guards nothing, so relaxed.
        last_bytes: Arc<AtomicU64>,
    },
    /// The engine itself, where a simulation must see no thread.
    Inline,
}

/// A checkpoint that is under way, and the one before it.
#[derive(Default)]
pub(super) struct Checkpointing {
    /// The part of the index of names to go on with.
    next: Option<usize>,
    /// Bytes that had been written to the log when the last one was begun.
    begun_at: u64,
    /// A block that the thread had no room for.
    waiting: Option<Vec<u8>>,
}

impl Scribe {
    pub(super) fn start() -> std::io::Result<Self> {
        let (pieces, inbox) = crossbeam_channel::bounded(BLOCKS_AHEAD);
        let last_bytes = Arc::new(AtomicU64::new(0));
        let told = Arc::clone(&last_bytes);
        let builder = std::thread::Builder::new().name("checkpoints".to_owned());
        let thread = builder.spawn(move || write_all(&inbox, &told))?;
        Ok(Self::Thread { pieces: Some(pieces), thread: Some(thread), last_bytes })
    }
}

impl Drop for Scribe {
    fn drop(&mut self) {
        if let Self::Thread { pieces, thread, .. } = self {
            *pieces = None;
            // The directory is another one's to open once this engine is gone. A thread that panicked has said so.
            drop(thread.take().map(JoinHandle::join));
        }
    }
}

fn write_all(inbox: &Receiver<Piece>, last_bytes: &AtomicU64) {
    let mut writer: Option<Writer> = None;
    for piece in inbox {
        let done = match (piece, writer.take()) {
            (Piece::Begin(begin), _) => begin_one(&begin.0, &begin.1).map(Some),
            (Piece::Names(block), Some(mut going)) => going.block(&block).map(|()| Some(going)),
            (Piece::End, Some(going)) => going.finish().map(|bytes| {
                last_bytes.store(bytes, Ordering::Relaxed);
                None
            }),
            (Piece::Names(_) | Piece::End, None) => Ok(None),
        };
        writer = done.unwrap_or_else(|error| {
            tracing::warn!(%error, "a checkpoint could not be written; the next start reads more of the log");
            None
        });
    }
}

/// Begins a checkpoint, and writes all but the names.
fn begin_one(beginning: &Beginning, picture: &Picture) -> std::io::Result<Writer> {
    let mut writer = Writer::begin(beginning)?;
    picture.blocks().try_for_each(|block| writer.block(&block))?;
    Ok(writer)
}

impl Core {
    /// Begins a checkpoint of everything before the segment that was just begun, unless one is under way, or the last one was
    /// larger than what was written since.
    pub(super) fn begin_checkpoint(&mut self) {
        if self.log.full().is_some() {
            // What space there is, is the log's.
            return;
        }
        let written = self.log.figures().written_bytes;
        match &self.scribe {
            Scribe::Inline => self.write_checkpoint(),
            Scribe::Thread { pieces: Some(pieces), last_bytes, .. } => {
                let since = written - self.checkpointing.begun_at;
                if self.checkpointing.next.is_some() || since < last_bytes.load(Ordering::Relaxed) {
                    return;
                }
                let begin = Box::new((self.log.beginning(), self.table.picture()));
                if pieces.try_send(Piece::Begin(begin)).is_ok() {
                    self.checkpointing = Checkpointing { next: Some(0), begun_at: written, waiting: None };
                }
            }
            Scribe::Thread { pieces: None, .. } => {}
        }
    }

    fn write_checkpoint(&self) {
        let write = || -> std::io::Result<u64> {
            let mut writer = begin_one(&self.log.beginning(), &self.table.picture())?;
            let mut next = 0;
            while let Some((block, then)) = self.table.names_block(next) {
                writer.block(&block)?;
                next = then;
            }
            writer.finish()
        };
        if let Err(error) = write() {
            tracing::debug!(%error, "a checkpoint could not be written");
        }
    }

    /// Gives the thread more of the names, as much as it takes now. Says whether there is more.
    pub(super) fn go_on_with_checkpoint(&mut self) -> bool {
        let Scribe::Thread { pieces: Some(pieces), .. } = &self.scribe else { return false };
        let Some(next) = self.checkpointing.next else { return false };
        let block = match self.checkpointing.waiting.take() {
            Some(block) => Some((block, next)),
            None => self.table.names_block(next),
        };
        let (piece, then) = match block {
            Some((block, then)) => (Piece::Names(block), Some(then)),
            None => (Piece::End, None),
        };
        match pieces.try_send(piece) {
            Ok(()) => self.checkpointing.next = then,
            Err(TrySendError::Full(Piece::Names(block))) => {
                (self.checkpointing.waiting, self.checkpointing.next) = (Some(block), then);
            }
            Err(TrySendError::Full(_)) => {}
            // The thread is gone: it is not tried again.
            Err(TrySendError::Disconnected(_)) => self.checkpointing.next = None,
        }
        self.checkpointing.next.is_some()
    }
}
