//! All directories of the index: which there are, which one grows, and what is set aside.
//!
//! A directory speaks for a range of the log, and is named by its first seq. Together they leave no gap. Once all that one speaks for has left the log, it is removed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::entry::position;
use super::seal;
use super::slice::{Slice, Trouble};
use super::{Ask, EndedPage, Found};
use crate::log::reader::ReadError;
use crate::log::{LogId, Reader};
use crate::types::Seq;

/// The open index.
pub(super) struct Shelf {
    dir: PathBuf,
    log_id: LogId,
    /// By the first seq that each speaks for; at least one.
    slices: BTreeMap<Seq, Slice>,
}

fn name(from: Seq) -> String {
    format!("{from:020}")
}

/// The first seq of a slice's directory.
fn from_of(path: &Path) -> Option<Seq> {
    let name = path.file_name()?.to_str()?;
    (name.len() == 20).then(|| name.parse().ok()).flatten()
}

/// Where the index is put when it cannot be used.
fn aside_of(dir: &Path) -> PathBuf {
    dir.with_extension("aside")
}

/// Sets the directory aside: at most one is kept, for who wants to look into it.
pub(super) fn set_aside(dir: &Path) -> Result<(), Trouble> {
    let aside = aside_of(dir);
    remove(&aside)?;
    match std::fs::rename(dir, &aside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Removes the directory, and what was set aside: space is wanted for the log.
pub(super) fn remove_all(dir: &Path) -> Result<(), Trouble> {
    remove(&aside_of(dir))?;
    remove(dir)
}

fn remove(dir: &Path) -> Result<(), Trouble> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => Ok(std::fs::remove_file(dir)?),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

impl Shelf {
    /// Opens what is there, for the log of this reader; makes what is missing.
    ///
    /// # Errors
    /// `Unusable` if it must be set aside: it is damaged, foreign, or ahead of the log.
    pub(super) fn open(dir: &Path, reader: &Reader) -> Result<Self, Trouble> {
        let (log_id, first, visible) = (reader.log_id(), reader.first_seq(), reader.visible_up_to());
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let mut found: Vec<PathBuf> = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            found.push(entry?.path());
        }
        found.sort();
        let (seals, found): (Vec<_>, Vec<_>) = found.into_iter().partition(|path| seal::is_seal(path));
        for seal in &seals {
            seal::open(seal)?;
        }
        if !seals.is_empty() {
            std::fs::File::open(dir)?.sync_all()?;
        }
        let mut slices: BTreeMap<Seq, Slice> = BTreeMap::new();
        let last = found.last().cloned();
        for path in found {
            let Some(from) = from_of(&path) else {
                return Err(Trouble::Unusable(format!("{} is none of its directories", path.display())));
            };
            match Slice::open(&path, log_id)? {
                Some(slice) if slice.from != from => {
                    return Err(Trouble::Unusable("a directory has another one's name".to_owned()));
                }
                Some(slice) => drop(slices.insert(from, slice)),
                // The last one may not have been finished: it is made again when it is time.
                None if Some(&path) == last.as_ref() => remove(&path)?,
                None => return Err(Trouble::Unusable("a watermark is missing".to_owned())),
            }
        }
        let ends: Vec<(Seq, Seq)> = slices.values().map(|slice| (slice.from, slice.up_to)).collect();
        if ends.windows(2).any(|pair| matches!(pair, [(_, end), (next, _)] if end != next)) {
            return Err(Trouble::Unusable("its directories leave a gap".to_owned()));
        }
        if let Some((_, up_to)) = ends.last().filter(|(_, up_to)| *up_to > visible) {
            return Err(Trouble::Unusable(format!("it is ahead of the log: {up_to}, and the log ends at {visible}")));
        }
        if let Some((at, crc)) = slices.values().next_back().and_then(|slice| slice.last) {
            // Another record there is no damage of the log: it may have lost what was not synced, and gone another way.
            let body = reader.look(position(at), at.0);
            if !matches!(&body, Err(ReadError::Gone { .. }))
                && body.ok().map(|body| crc32fast::hash(&body)) != Some(crc)
            {
                return Err(Trouble::Unusable("the log has another record where it ended".to_owned()));
            }
        }
        if let (Some(oldest), Some((from, _))) = (slices.values().next_back().map(|slice| slice.oldest), ends.first())
            && *from > oldest.max(first)
        {
            return Err(Trouble::Unusable("its oldest directory is missing".to_owned()));
        }
        let mut shelf = Self { dir: dir.to_path_buf(), log_id, slices };
        shelf.forget_below(first)?;
        if shelf.up_to() < first {
            // What it never saw has left the log: nothing of it is any use.
            for (_, slice) in std::mem::take(&mut shelf.slices) {
                let dir = slice.dir.clone();
                drop(slice);
                remove(&dir)?;
            }
        }
        if shelf.slices.is_empty() {
            let slice = Slice::make(&dir.join(name(first)), log_id, first, None)?;
            shelf.slices.insert(first, slice);
        }
        Ok(shelf)
    }

    /// The first seq that it speaks for.
    pub(super) fn from(&self) -> Seq {
        self.slices.values().next().map_or(0, |slice| slice.from)
    }

    /// One past the last one.
    pub(super) fn up_to(&self) -> Seq {
        self.newest().map_or(0, |slice| slice.up_to)
    }

    /// Ended jobs in the directory that grows.
    pub(super) fn keys(&self) -> u64 {
        self.newest().map_or(0, |slice| slice.keys)
    }

    fn newest(&self) -> Option<&Slice> {
        self.slices.values().next_back()
    }

    /// The one that grows.
    pub(super) fn growing(&mut self) -> Result<&mut Slice, Trouble> {
        self.slices.values_mut().next_back().ok_or_else(|| Trouble::Failed("it has no directory".to_owned()))
    }

    /// Begins a new directory; the one before is as it will stay.
    pub(super) fn begin_slice(&mut self) -> Result<(), Trouble> {
        self.sync()?;
        let from = self.up_to();
        if self.slices.contains_key(&from) {
            return Ok(());
        }
        let dir = self.dir.join(name(from));
        remove(&dir)?;
        let slice = Slice::make(&dir, self.log_id, from, self.newest())?;
        self.slices.insert(from, slice);
        Ok(())
    }

    /// Brings everything that was taken in to stable storage.
    pub(super) fn sync(&self) -> Result<(), Trouble> {
        self.newest().map_or(Ok(()), |slice| slice.sync(self.log_id))
    }

    /// Removes directories that speak only for what has left the log.
    pub(super) fn forget_below(&mut self, first: Seq) -> Result<(), Trouble> {
        while self.slices.len() > 1 && self.slices.values().next().is_some_and(|slice| slice.up_to <= first) {
            self.forget_oldest()?;
        }
        Ok(())
    }

    /// How many directories there are.
    pub(super) fn len(&self) -> usize {
        self.slices.len()
    }

    /// Removes the oldest directory; there must be others.
    pub(super) fn forget_oldest(&mut self) -> Result<(), Trouble> {
        if let Some((_, slice)) = self.slices.pop_first() {
            // Those that stay say first that it is not missing.
            let from = self.from();
            self.growing()?.oldest = from;
            self.sync()?;
            let dir = slice.dir.clone();
            drop(slice);
            remove(&dir)?;
        }
        Ok(())
    }

    /// Ends in good order: everything is on stable storage, and sealed against what may happen to it until it is opened
    /// again, as far as that many bytes go, newest first: a stop must not take long.
    pub(super) fn close(mut self, mut bytes: u64) -> Result<(), Trouble> {
        self.sync()?;
        while let Some((_, slice)) = self.slices.pop_last() {
            let (dir, size) = (slice.dir.clone(), slice.bytes()?);
            drop(slice);
            bytes = bytes.saturating_sub(size);
            if bytes > 0
                && let Err(error) = seal::write(&dir)
            {
                // Without it the next start believes what it finds, as after a crash.
                tracing::warn!(%error, dir = %dir.display(), "could not seal a directory of the index of ended jobs");
            }
        }
        Ok(())
    }

    /// Bytes on disk.
    pub(super) fn bytes(&self) -> Result<u64, Trouble> {
        self.slices.values().map(Slice::bytes).sum()
    }

    /// Searches from `ask.before` down; `first` is the first seq that is in the log.
    pub(super) fn search(&self, ask: &Ask, first: Seq) -> Result<EndedPage, Trouble> {
        let mut page = EndedPage { found: Vec::new(), down_to: ask.before };
        let mut keys = 0;
        for slice in self.slices.values().rev() {
            if !slice.search(ask, first, &mut page, &mut keys)? {
                break;
            }
        }
        Ok(page)
    }

    /// Where the job `born` ended.
    pub(super) fn find(&self, born: Seq, first: Seq) -> Result<Option<Found>, Trouble> {
        for slice in self.slices.values().rev() {
            if let Some(found) = slice.find(born, first)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Everything in here, for a comparison with another one.
    #[cfg(test)]
    pub(super) fn contents(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let newest = self.newest().map(|slice| slice.from);
        self.slices.values().flat_map(|slice| slice.contents(Some(slice.from) == newest)).collect()
    }
}
