//! The simulated disk as the log sees it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::state::{Change, Inode, Naming, State};
use super::{Call, Fault, SimDisk};
use crate::log::disk::{Disk, DiskFile, Free};

struct SimFile {
    disk: SimDisk,
    inode: usize,
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.state();
        state.call(Call::Read)?;
        Ok(state.names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.call(Call::Create)?;
        let inode = state.inodes.len();
        state.inodes.push(Inode::default());
        state.names.insert(name.to_owned(), inode);
        state.namings.push(Naming::Put(name.to_owned(), inode));
        Ok(Arc::new(SimFile { disk: self.clone(), inode }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.call(Call::Open)?;
        let inode = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.call(Call::Rename)?;
        let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), inode);
        state.namings.push(Naming::Moved(from.to_owned(), to.to_owned(), inode));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.call(Call::Remove)?;
        state.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        state.namings.push(Naming::Gone(name.to_owned()));
        Ok(())
    }

    /// No call that a fault may strike.
    fn free(&self) -> Option<Free> {
        let state = self.state();
        let total = state.space?;
        Some(Free { total: total as u64, free: total.saturating_sub(state.used()) as u64 })
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state();
        if let Err(error) = state.call(Call::SyncDir) {
            // What a failed sync wrote nobody knows, and what it did not is not written by the next one either.
            let some = state.namings.len();
            let kept = state.chance(some);
            let namings = std::mem::take(&mut state.namings);
            if state.dead != Some(Fault::Power) {
                namings.iter().take(kept).for_each(|naming| naming.apply(&mut state.durable_names));
            } else {
                state.namings = namings;
            }
            return Err(error);
        }
        state.durable_names = state.names.clone();
        state.namings.clear();
        Ok(())
    }

    fn place(&self) -> PathBuf {
        PathBuf::from("/simulated")
    }
}

impl SimFile {
    fn with<T>(
        &self,
        call: Call,
        on_error: impl FnOnce(&mut State),
        then: impl FnOnce(&mut Inode) -> T,
    ) -> io::Result<T> {
        let mut state = self.disk.state();
        if let Err(error) = state.call(call) {
            if state.dead != Some(Fault::Power) {
                on_error(&mut state);
            }
            return Err(error);
        }
        state.inodes.get_mut(self.inode).map(then).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl DiskFile for SimFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let more = {
            let state = self.disk.state();
            let length = state.inodes.get(self.inode).map_or(0, |inode| inode.cached.len());
            (offset + bytes.len()).saturating_sub(length)
        };
        if more > 0 {
            self.disk.state().room_for(more)?;
        }
        let some = |state: &mut State| {
            // One time in four all of it is there, and is said not to be.
            let part = state.chance(bytes.len() + bytes.len() / 3).min(bytes.len());
            if let Some(inode) = state.inodes.get_mut(self.inode) {
                inode.write(offset, bytes.get(..part).unwrap_or_default());
            }
        };
        self.with(Call::Write, some, |inode| inode.write(offset, bytes))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        self.with(
            Call::Read,
            |_| {},
            |inode| {
                let there = inode.cached.get(offset..).unwrap_or_default();
                let read = there.len().min(buffer.len());
                if let (Some(to), Some(from)) = (buffer.get_mut(..read), there.get(..read)) {
                    to.copy_from_slice(from);
                }
                read
            },
        )
    }

    fn sync_data(&self) -> io::Result<()> {
        let some = |state: &mut State| {
            let pending = state.inodes.get(self.inode).map_or(0, |inode| inode.pending.len());
            let kept = state.chance(pending);
            if let Some(inode) = state.inodes.get_mut(self.inode) {
                let pending = std::mem::take(&mut inode.pending);
                let durable = Arc::make_mut(&mut inode.durable);
                pending.iter().take(kept).for_each(|change| change.apply(durable, |_| true));
            }
        };
        if let Some((clock, ms)) = self.disk.state().stall.take() {
            clock.fetch_add(ms, Ordering::Relaxed);
        }
        self.with(Call::Sync, some, |inode| {
            let pending = std::mem::take(&mut inode.pending);
            if !pending.is_empty() {
                let durable = Arc::make_mut(&mut inode.durable);
                pending.iter().for_each(|change| change.apply(durable, |_| true));
            }
        })
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let bytes = usize::try_from(bytes).map_err(io::Error::other)?;
        let more = {
            let state = self.disk.state();
            bytes.saturating_sub(state.inodes.get(self.inode).map_or(0, |inode| inode.cached.len()))
        };
        self.disk.state().room_for(more)?;
        self.with(
            Call::Allocate,
            |_| {},
            |inode| {
                let length = inode.cached.len().max(bytes);
                Arc::make_mut(&mut inode.cached).resize(length, 0);
                inode.pending.push(Change::Length(length));
            },
        )
    }

    fn written_to(&self, offset: u64) -> io::Result<u64> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        self.with(
            Call::Read,
            |_| {},
            |inode| {
                let there = inode.cached.get(offset..).unwrap_or_default();
                (offset + there.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1)) as u64
            },
        )
    }

    fn bytes(&self) -> io::Result<u64> {
        self.with(Call::Read, |_| {}, |inode| inode.cached.len() as u64)
    }
}
