//! Checkpoints while the engine serves: begun when a segment ends, written by a thread beside.
//!
//! The engine gives away a picture of its table, which costs it some hundred microseconds, and after that, turn by turn, the
//! index of chosen names, part by part. A checkpoint that fails is left: the log has everything. One of the names is begun only
//! when as much was written to the log as the last one had; one of the table, for which the first job of an opening waits, when
//! it was half as much.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, TrySendError};

use crate::config::SyncPolicy;
use crate::engine::core::Core;
use crate::job::table::Picture;
use crate::log::Poisoned;
use crate::log::checkpoint::{Beginning, Sort, Writer};

/// Blocks that may wait for the thread that writes them; beside them there is always room for a table.
const BLOCKS_AHEAD: usize = 4;
/// The table's last checkpoint may have so many times as many bytes as are written to the log before the next one is begun.
const TABLE_BYTES_PER_LOG_BYTE: u64 = 2;
/// Bytes of a block of names, about.
const BLOCK_BYTES: usize = 256 << 10;

/// What the thread is told.
pub(in crate::engine) enum Piece {
    /// A checkpoint of the table, whole.
    Table(Box<(Beginning, Picture)>),
    /// One of the names begins.
    Names(Box<Beginning>),
    Block(Vec<u8>),
    End,
}

/// Bytes of the last checkpoint of each sort: stored by the thread, loaded by the engine; they guard nothing, so relaxed.
#[derive(Default)]
pub(in crate::engine) struct LastBytes {
    table: AtomicU64,
    names: AtomicU64,
}

/// Who writes checkpoints.
pub(in crate::engine) enum Scribe {
    /// A thread; it ends with the sender.
    Thread { pieces: Option<Sender<Piece>>, thread: Option<JoinHandle<()>>, last_bytes: Arc<LastBytes> },
    /// The engine itself, where a simulation must see no thread.
    Inline,
}

/// A checkpoint of the names that is under way, and those before.
#[derive(Default)]
pub(in crate::engine) struct Checkpointing {
    /// The part of the index of names to go on with.
    next: Option<usize>,
    /// Bytes that had been written to the log when the last one of the table was begun.
    table_at: u64,
    /// The same of the names.
    names_at: u64,
    /// A block that the thread had no room for.
    waiting: Option<Vec<u8>>,
}

impl Scribe {
    pub(in crate::engine) fn start() -> std::io::Result<Self> {
        let (pieces, inbox) = crossbeam_channel::bounded(BLOCKS_AHEAD + 1);
        let last_bytes = Arc::new(LastBytes::default());
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

fn write_all(inbox: &Receiver<Piece>, last_bytes: &LastBytes) {
    let mut names: Option<Writer> = None;
    for piece in inbox {
        let done = match (piece, names.take()) {
            (Piece::Table(picture), going) => {
                names = going;
                match write_table(&picture.0, &picture.1) {
                    Ok(bytes) => last_bytes.table.store(bytes, Ordering::Relaxed),
                    Err(error) => not_written(&error),
                }
                continue;
            }
            (Piece::Names(beginning), _) => Writer::begin(Sort::Names, &beginning).map(Some),
            (Piece::Block(block), Some(mut going)) => going.block(&block).map(|()| Some(going)),
            (Piece::End, Some(going)) => going.finish().map(|bytes| {
                last_bytes.names.store(bytes, Ordering::Relaxed);
                None
            }),
            (Piece::Block(_) | Piece::End, None) => Ok(None),
        };
        names = done.unwrap_or_else(|error| {
            not_written(&error);
            None
        });
    }
}

fn not_written(error: &std::io::Error) {
    tracing::warn!(%error, "a checkpoint could not be written; the next start reads more of the log");
}

/// Writes a checkpoint of the table; says how many bytes it has.
fn write_table(beginning: &Beginning, picture: &Picture) -> std::io::Result<u64> {
    let mut writer = Writer::begin(Sort::Table, beginning)?;
    picture.blocks().try_for_each(|block| writer.block(&block))?;
    writer.finish()
}

impl Core {
    /// Begins checkpoints of everything before the segment that was just begun, where they are due.
    pub(in crate::engine) fn begin_checkpoint(&mut self) {
        if self.log.full().is_some() {
            // What space there is, is the log's.
            return;
        }
        let Scribe::Thread { pieces: Some(pieces), last_bytes, .. } = &self.scribe else {
            if matches!(self.scribe, Scribe::Inline) {
                self.write_checkpoints();
            }
            return;
        };
        let (going, written) = (&mut self.checkpointing, self.log.figures().written_bytes);
        let log_bytes = written - going.table_at;
        if log_bytes.saturating_mul(TABLE_BYTES_PER_LOG_BYTE) >= last_bytes.table.load(Ordering::Relaxed) {
            let picture = Box::new((self.log.beginning(), self.table.picture()));
            if pieces.try_send(Piece::Table(picture)).is_ok() {
                going.table_at = written;
            }
        }
        let due = written - going.names_at >= last_bytes.names.load(Ordering::Relaxed);
        if going.next.is_none()
            && due
            && self.table.ids().is_some()
            && pieces.try_send(Piece::Names(Box::new(self.log.beginning()))).is_ok()
        {
            (going.next, going.names_at, going.waiting) = (Some(0), written, None);
        }
    }

    fn write_checkpoints(&self) {
        let write = || -> std::io::Result<u64> {
            write_table(&self.log.beginning(), &self.table.picture())?;
            let Some(ids) = self.table.ids() else { return Ok(0) };
            let mut writer = Writer::begin(Sort::Names, &self.log.beginning())?;
            let mut next = 0;
            while let Some((block, then)) = ids.block(next, BLOCK_BYTES) {
                writer.block(&block)?;
                next = then;
            }
            writer.finish()
        };
        if let Err(error) = write() {
            tracing::debug!(%error, "a checkpoint could not be written");
        }
    }

    /// Gives the thread more of the names, as much as it takes now. Says whether there is more. Before the end, all that was
    /// noted is synced: a name may have left its older record for one that power could take.
    ///
    /// # Errors
    /// The log is poisoned.
    pub(in crate::engine) fn go_on_with_checkpoint(&mut self) -> Result<bool, Poisoned> {
        let Some(next) = self.checkpointing.next else { return Ok(false) };
        let waiting = self.checkpointing.waiting.take().map(|block| (block, next));
        let block = waiting.or_else(|| self.table.ids()?.block(next, BLOCK_BYTES));
        if block.is_none() {
            self.await_commit()?;
            if !matches!(self.config.log.sync, SyncPolicy::Always) {
                self.sync()?;
            }
        }
        let Scribe::Thread { pieces: Some(pieces), .. } = &self.scribe else { return Ok(false) };
        let (piece, then) = match block {
            Some((block, then)) => (Piece::Block(block), Some(then)),
            None => (Piece::End, None),
        };
        let going = &mut self.checkpointing;
        // Nobody else sends.
        let sent = if pieces.len() < BLOCKS_AHEAD { pieces.try_send(piece) } else { Err(TrySendError::Full(piece)) };
        match sent {
            Ok(()) => going.next = then,
            Err(TrySendError::Full(Piece::Block(block))) => (going.waiting, going.next) = (Some(block), then),
            Err(TrySendError::Full(_)) => {}
            // The thread is gone: it is not tried again.
            Err(TrySendError::Disconnected(_)) => going.next = None,
        }
        Ok(going.next.is_some())
    }
}
