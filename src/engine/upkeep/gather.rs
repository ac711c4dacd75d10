//! Gathers the chosen names of a log that was opened, beside the engine, from the newest checkpoint of them and the log.
//!
//! Who asks or pushes by a chosen name waits for it; nothing else does. A log whose history cannot be read leaves its names
//! unknown: to take a job in whose name may be another's would be a guess.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::Sender;

use crate::engine::command::Command;
use crate::engine::core::Core;
use crate::job::ids::{IdIndex, IdMaker};
use crate::log::checkpoint::read_names;
use crate::log::disk::Disk;
use crate::log::scan::Scan;
use crate::log::{Poisoned, Reader};

/// Records between two looks at whether the engine has ended.
const RECORDS_AT_ONCE: usize = 1024;

/// The names that are to be gathered: those of all records that were there when it was made.
pub(in crate::engine) struct Gathering {
    disk: Arc<dyn Disk>,
    reader: Reader,
    ids: IdMaker,
    /// Keeps the segments on disk.
    records: Scan,
}

impl Gathering {
    pub(in crate::engine) fn new(disk: Arc<dyn Disk>, reader: Reader, ids: IdMaker) -> Self {
        let records = reader.scan(0);
        Self { disk, reader, ids, records }
    }

    /// Gathers. An `Err` says why they cannot be known; `None`, that it was told to end.
    pub(in crate::engine) fn gather(self, ended: &AtomicBool) -> Option<Result<IdIndex, String>> {
        let load = |index: &mut IdIndex, block: &[u8]| index.load(block).ok_or_else(|| "a block is none".to_owned());
        let (mut index, from) = read_names(self.disk.as_ref(), &self.reader, || IdIndex::new(self.ids), load);
        let mut records = self.records.starting_at(from).peekable();
        while records.peek().is_some() {
            if ended.load(Ordering::Relaxed) {
                return None;
            }
            for record in records.by_ref().take(RECORDS_AT_ONCE) {
                match record {
                    Ok(record) => index.note_record(record.seq, record.kind, record.version, &record.body),
                    Err(error) => return Some(Err(error.to_string())),
                }
            }
        }
        Some(Ok(index))
    }
}

/// The thread that gathers; it is ended with this.
pub(in crate::engine) struct Gatherer {
    /// Stored by the engine, loaded by the thread; it guards nothing, so relaxed.
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Gatherer {
    /// Starts the thread, which sends what it gathered to `to_engine`.
    pub(in crate::engine) fn start(gathering: Gathering, to_engine: Sender<Command>) -> std::io::Result<Self> {
        let ended = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ended);
        let thread = std::thread::Builder::new().name("names".to_owned()).spawn(move || {
            if let Some(gathered) = gathering.gather(&told) {
                drop(to_engine.send(Command::NamesGathered(gathered.map(Box::new))));
            }
        })?;
        Ok(Self { ended, thread: Some(thread) })
    }
}

impl Drop for Gatherer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // The directory is another one's to open once this engine is gone. A thread that panicked has said so.
        drop(self.thread.take().map(JoinHandle::join));
    }
}

impl Core {
    /// All names are known from here on, or never; those who waited for them go on.
    pub(in crate::engine) fn names_gathered(&mut self, gathered: Result<Box<IdIndex>, String>) -> Result<(), Poisoned> {
        if let Err(why) = &gathered {
            tracing::error!(why, "the chosen ids and keys of the log cannot be read: jobs with one are refused");
        }
        self.table.names_gathered(gathered.map(|index| *index));
        self.gatherer = None;
        std::mem::take(&mut self.awaiting_names).into_iter().try_for_each(|command| self.handle(command))
    }

    /// Whether nobody knows yet what chosen names there are.
    pub(in crate::engine) fn gathers_names(&self) -> bool {
        self.table.ids().is_none() && self.table.names_unknown().is_none()
    }
}
