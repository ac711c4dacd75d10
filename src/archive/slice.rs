//! One directory of the index: a sled database over a range of the log. The only file that names sled.
//!
//! Four trees: ended jobs by the seq of their last record, the same by born seq, notes by born seq about live jobs that
//! failed (dead letters among them), and the watermark. The watermark is written after everything that it speaks for was flushed and
//! synced: `flush` alone does not bring the size of a file to the disk.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sled::{Batch, Db, Tree};

use super::entry::{Entry, Note, Place, key, seq_of};
use super::{Ask, EndedPage, Found};
use crate::limits::HISTORY_KEYS_MAX;
use crate::log::LogId;
use crate::types::Seq;

/// The shape of everything in here. Another one is set aside and made anew.
const FORMAT: u16 = 1;
/// Memory of one database's cache, in bytes.
const CACHE_BYTES: u64 = 4 << 20;

/// What went wrong with an index.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// The database or the file system said no.
    #[error("{0}")]
    Failed(String),
    /// What is there is of another log, another format, or damaged.
    #[error("{0}")]
    Unusable(String),
    /// The disk is full.
    #[error("no space is left where it lies")]
    NoSpace,
    /// The log cannot be read.
    #[error("the log cannot be read: {0}")]
    Log(String),
    /// Another process has it open still.
    #[error("another process has it open")]
    Held,
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::NoSpace,
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<sled::Error> for Trouble {
    fn from(error: sled::Error) -> Self {
        match error {
            sled::Error::Io(error) if error.to_string().contains("could not acquire lock") => Self::Held,
            sled::Error::Io(error) => error.into(),
            sled::Error::Corruption { .. } => Self::Unusable(error.to_string()),
            other => Self::Failed(other.to_string()),
        }
    }
}

/// How far a slice speaks for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    format: u16,
    log_id: LogId,
    /// Records from this one on,
    pub(super) from: Seq,
    /// up to this one, not included.
    pub(super) up_to: Seq,
    /// Ended jobs in here.
    pub(super) keys: u64,
    /// The first seq that all directories together speak for: an older one is not missing.
    oldest: Seq,
    /// The last record that was taken in, if there was one: a log that has another one there went another way.
    last: Option<Witness>,
}

/// A record's place, and the checksum of its body.
pub(super) type Witness = (Place, u32);

/// Changes that are taken in together.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) ended: Vec<(Seq, Entry)>,
    /// `None`: no more.
    pub(super) notes: Vec<(Seq, Option<Note>)>,
}

/// One directory.
pub(super) struct Slice {
    pub(super) dir: PathBuf,
    pub(super) from: Seq,
    pub(super) up_to: Seq,
    pub(super) keys: u64,
    pub(super) oldest: Seq,
    pub(super) last: Option<Witness>,
    db: Db,
    ended: Tree,
    born: Tree,
    notes: Tree,
    mark: Tree,
}

impl Slice {
    fn open_db(dir: &Path) -> Result<Self, Trouble> {
        let config = sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        let db = config.open()?;
        Ok(Self {
            dir: dir.to_path_buf(),
            from: 0,
            up_to: 0,
            keys: 0,
            oldest: 0,
            last: None,
            ended: db.open_tree("ended")?,
            born: db.open_tree("born")?,
            notes: db.open_tree("notes")?,
            mark: db.open_tree("mark")?,
            db,
        })
    }

    /// Opens a slice of this log. `None`: it was never finished being made.
    pub(super) fn open(dir: &Path, log_id: LogId) -> Result<Option<Self>, Trouble> {
        let mut slice = Self::open_db(dir)?;
        let Some(bytes) = slice.mark.get("mark")? else { return Ok(None) };
        let unreadable = || Trouble::Unusable("its watermark cannot be read".to_owned());
        let mark: Mark = postcard::from_bytes(&bytes).map_err(|_| unreadable())?;
        if mark.format != FORMAT {
            return Err(Trouble::Unusable(format!("it is of format {}, not {FORMAT}", mark.format)));
        }
        if mark.log_id != log_id {
            return Err(Trouble::Unusable("it belongs to another log".to_owned()));
        }
        if mark.from > mark.up_to {
            return Err(unreadable());
        }
        (slice.from, slice.up_to, slice.keys) = (mark.from, mark.up_to, mark.keys);
        (slice.oldest, slice.last) = (mark.oldest, mark.last);
        Ok(Some(slice))
    }

    /// Makes a slice that begins at `from`, with what the one before knows of live jobs.
    pub(super) fn make(dir: &Path, log_id: LogId, from: Seq, before: Option<&Self>) -> Result<Self, Trouble> {
        let mut slice = Self::open_db(dir)?;
        (slice.from, slice.up_to, slice.oldest) = (from, from, from);
        if let Some(before) = before {
            (slice.oldest, slice.last) = (before.oldest, before.last);
            for pair in before.notes.iter() {
                let (key, value) = pair?;
                slice.notes.insert(key, value)?;
            }
        }
        slice.sync(log_id)?;
        Ok(slice)
    }

    /// Takes changes in; they speak for all records below `up_to`, of which `last` is the last.
    pub(super) fn take_in(&mut self, changes: Changes, up_to: Seq, last: Option<Witness>) -> Result<(), Trouble> {
        let (mut ended, mut born) = (Batch::default(), Batch::default());
        for (seq, entry) in &changes.ended {
            ended.insert(&key(*seq), entry.encode());
            born.insert(&key(entry.born), &key(*seq));
        }
        let mut notes = Batch::default();
        for (job, note) in &changes.notes {
            match note {
                Some(note) => notes.insert(&key(*job), note.encode()),
                None => notes.remove(&key(*job)),
            }
        }
        self.keys += changes.ended.len() as u64;
        for (tree, batch) in [(&self.ended, ended), (&self.born, born), (&self.notes, notes)] {
            tree.apply_batch(batch)?;
        }
        self.up_to = up_to;
        self.last = last.or(self.last);
        Ok(())
    }

    /// What is remembered of a live job that failed.
    pub(super) fn note(&self, born: Seq) -> Result<Option<Note>, Trouble> {
        Ok(self.notes.get(key(born))?.and_then(|bytes| Note::decode(&bytes)))
    }

    /// An entry that is there already.
    pub(super) fn entry(&self, seq: Seq) -> Result<Option<Entry>, Trouble> {
        Ok(self.ended.get(key(seq))?.and_then(|bytes| Entry::decode(&bytes)))
    }

    /// When it returns, everything that was taken in is on stable storage, and then the watermark, too.
    pub(super) fn sync(&self, log_id: LogId) -> Result<(), Trouble> {
        let Self { from, up_to, keys, oldest, last, .. } = *self;
        self.db.flush()?;
        sync_tree(&self.dir)?;
        let mark = Mark { format: FORMAT, log_id, from, up_to, keys, oldest, last };
        self.mark.insert("mark", postcard::to_allocvec(&mark).unwrap_or_default())?;
        self.db.flush()?;
        sync_tree(&self.dir)?;
        if let Some(parent) = self.dir.parent() {
            File::open(parent)?.sync_all()?;
        }
        Ok(())
    }

    /// Bytes on disk.
    pub(super) fn bytes(&self) -> Result<u64, Trouble> {
        Ok(self.db.size_on_disk()?)
    }

    /// Goes on with a search down this slice; `keys` counts the entries that were looked at.
    pub(super) fn search(
        &self,
        ask: &Ask,
        first: Seq,
        page: &mut EndedPage,
        keys: &mut usize,
    ) -> Result<bool, Trouble> {
        let below = key(ask.before.min(page.down_to));
        let lowest = key(first.max(self.from));
        if lowest >= below {
            page.down_to = page.down_to.min(self.from);
            return Ok(true);
        }
        for pair in self.ended.range(lowest..below).rev() {
            let (at, value) = pair?;
            let (Some(seq), Some(entry)) = (seq_of(&at), Entry::decode(&value)) else {
                return Err(Trouble::Unusable("an entry cannot be read".to_owned()));
            };
            page.down_to = seq;
            *keys += 1;
            if entry.passes(ask, first) {
                page.found.push(entry.found(seq, first));
                if page.found.len() >= ask.limit {
                    return Ok(false);
                }
            }
            if *keys >= HISTORY_KEYS_MAX {
                return Ok(false);
            }
        }
        page.down_to = page.down_to.min(self.from.max(1));
        Ok(true)
    }

    /// Where the job `born` ended, if that is in here.
    pub(super) fn find(&self, born: Seq, first: Seq) -> Result<Option<Found>, Trouble> {
        let Some(at) = self.born.get(key(born))? else { return Ok(None) };
        let Some(seq) = seq_of(&at).filter(|seq| *seq >= first) else { return Ok(None) };
        Ok(self.entry(seq)?.map(|entry| entry.found(seq, first)))
    }

    /// Everything in here, for a comparison with another one.
    #[cfg(test)]
    pub(super) fn contents(&self, with_notes: bool) -> Vec<(Vec<u8>, Vec<u8>)> {
        let notes = with_notes.then_some(&self.notes);
        let trees = [&self.ended, &self.born].into_iter().chain(notes);
        let all = trees.flat_map(|tree| tree.iter()).map(|pair| pair.unwrap());
        all.map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
    }
}

/// Syncs every file below a directory, and the directories.
fn sync_tree(dir: &Path) -> Result<(), Trouble> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            match File::open(entry.path()) {
                Ok(file) => file.sync_all()?,
                // A snapshot that was replaced meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    File::open(dir)?.sync_all()?;
    Ok(())
}
