//! A disk in memory that forgets, tears, fills up and fails as real ones do, by a seed.
//!
//! The faults that it injects: power is lost at any call, and then of what was not synced any subset is there, writes
//! torn at 512 bytes, sizes without their data, names of files old or new; a sync fails, after which its pages read as
//! written but are not on disk, and the next sync succeeds; a write fails after some of its bytes; a read fails; space
//! runs out; a bit rots. What it never does, since one disk cannot promise it: lose what was synced, or lie about a sync.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::log::disk::{Disk, DiskFile};

/// Bytes that reach the disk together or not at all.
pub const SECTOR_BYTES: usize = 512;

/// A kind of call, for figures and for faults that strike one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the call of its name")]
pub enum Call {
    Create,
    Open,
    Rename,
    Remove,
    SyncDir,
    Write,
    Read,
    Sync,
    Allocate,
}

/// What happens to a call that a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// It fails with EIO; the next one of its kind may succeed.
    Once,
    /// It and every call after it fails with EIO.
    ForEver,
    /// Power is lost: it does nothing any more, and nothing after it does.
    Power,
}

/// A fault to come: it strikes the call after so many others.
#[derive(Debug, Clone, Copy)]
struct Planned {
    after: u64,
    fault: Fault,
}

/// A write or a change of length that was not synced.
#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Debug, Clone, Default)]
struct Inode {
    cached: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

/// A change of the directory that was not synced.
#[derive(Debug, Clone)]
enum Naming {
    Put(String, usize),
    Moved(String, String, usize),
    Gone(String),
}

#[derive(Debug, Default)]
struct State {
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    namings: Vec<Naming>,
    inodes: Vec<Inode>,
    calls: u64,
    planned: Option<Planned>,
    /// What every call fails with from now on.
    dead: Option<Fault>,
    space: Option<usize>,
    /// Faults that struck, by what they struck.
    struck: BTreeMap<(Call, Fault), u64>,
    /// Calls refused for want of space.
    refused: u64,
    /// Calls are not counted, and do not fail.
    quiet: bool,
    /// Which bytes of a failed write or sync get through.
    random: Option<fastrand::Rng>,
}

/// The disk. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

struct SimFile {
    disk: SimDisk,
    inode: usize,
}

/// What a crash leaves: which of the changes that were not synced are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The process is gone, the machine is not: everything.
    Process,
    /// Power is gone: what this seed keeps.
    Power(u64),
}

impl SimDisk {
    /// An empty disk that leaves to this seed what it leaves to chance.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State { random: Some(fastrand::Rng::with_seed(seed)), ..State::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a fault strike after so many more calls.
    pub fn plan(&self, after: u64, fault: Fault) {
        let mut state = self.state();
        let after = state.calls + after;
        state.planned = Some(Planned { after, fault });
    }

    /// Forgets a fault that has not struck.
    pub fn unplan(&self) {
        self.state().planned = None;
    }

    /// Bounds the bytes that all files may have together.
    pub fn set_space(&self, bytes: Option<usize>) {
        self.state().space = bytes;
    }

    /// Does something of which the faults to come take no notice.
    pub fn quietly<T>(&self, then: impl FnOnce() -> T) -> T {
        self.state().quiet = true;
        let done = then();
        self.state().quiet = false;
        done
    }

    /// Bytes of all files.
    pub fn used(&self) -> usize {
        self.state().used()
    }

    /// Calls up to now.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Whether a fault has struck for good.
    pub fn is_dead(&self) -> bool {
        self.state().dead.is_some()
    }

    /// Faults that struck since the last call, by what they struck; and how often space was refused.
    pub fn take_struck(&self) -> (BTreeMap<(Call, Fault), u64>, u64) {
        let mut state = self.state();
        (std::mem::take(&mut state.struck), std::mem::take(&mut state.refused))
    }

    /// Whether power was lost.
    pub fn has_lost_power(&self) -> bool {
        self.state().dead == Some(Fault::Power)
    }

    /// Whether a fault has struck since `take_struck`.
    pub fn has_struck(&self) -> bool {
        !self.state().struck.is_empty()
    }

    /// The bound of all files' bytes.
    pub fn space(&self) -> Option<usize> {
        self.state().space
    }

    /// The disk after a crash, as another machine would find it. This one is not changed.
    pub fn after(&self, loss: Loss) -> Self {
        let state = self.state();
        let Loss::Power(seed) = loss else {
            let namings = state.namings.clone();
            return Self(Arc::new(Mutex::new(State {
                names: state.names.clone(),
                durable_names: state.durable_names.clone(),
                namings,
                inodes: state.inodes.clone(),
                ..state.reborn()
            })));
        };
        let mut random = fastrand::Rng::with_seed(seed);
        let keep = *random.choice(&[0.0, 0.5, 0.9, 1.0]).unwrap_or(&0.5);
        let tear = *random.choice(&[0.0, 0.1, 0.5]).unwrap_or(&0.5);
        let mut names = state.durable_names.clone();
        for naming in &state.namings {
            if random.f64() < keep {
                naming.apply(&mut names);
            }
        }
        let survive = |inode: &Inode| {
            let mut bytes = inode.durable.clone();
            for change in &inode.pending {
                if random.f64() < keep {
                    let torn = random.f64() < tear;
                    change.apply(&mut bytes, |_| !torn || random.bool());
                }
            }
            bytes
        };
        Self::image(&state, survive, names)
    }

    /// The disk after a crash that kept just those changes that `keep` says, by their number over all files in order; of
    /// the torn one only the sectors that `sector` says. Names are as `namings` of their changes in order left them.
    pub fn after_exactly(
        &self,
        namings: usize,
        mut keep: impl FnMut(usize) -> bool,
        torn: Option<usize>,
        sector: impl Fn(usize) -> bool,
    ) -> Self {
        let state = self.state();
        let mut names = state.durable_names.clone();
        for naming in state.namings.iter().take(namings) {
            naming.apply(&mut names);
        }
        let mut number = 0;
        let survive = |inode: &Inode| {
            let mut bytes = inode.durable.clone();
            for change in &inode.pending {
                if keep(number) {
                    change.apply(&mut bytes, |at| torn != Some(number) || sector(at));
                }
                number += 1;
            }
            bytes
        };
        Self::image(&state, survive, names)
    }

    /// Changes that are not synced: of names, of files, and the sectors of each of these.
    pub fn unsynced(&self) -> (usize, Vec<usize>) {
        let state = self.state();
        let changes = state.inodes.iter().flat_map(|inode| &inode.pending);
        let sectors = |change: &Change| match change {
            Change::Write { offset, bytes } => (offset + bytes.len()).div_ceil(SECTOR_BYTES) - offset / SECTOR_BYTES,
            Change::Length(_) => 1,
        };
        (state.namings.len(), changes.map(sectors).collect())
    }

    fn image(state: &State, mut survive: impl FnMut(&Inode) -> Vec<u8>, names: BTreeMap<String, usize>) -> Self {
        let on_disk = |inode: &Inode| {
            let bytes = survive(inode);
            Inode { cached: bytes.clone(), durable: bytes, pending: Vec::new() }
        };
        let inodes = state.inodes.iter().map(on_disk).collect();
        let mut after = State { durable_names: names.clone(), names, inodes, ..state.reborn() };
        after.forget_unnamed();
        Self(Arc::new(Mutex::new(after)))
    }

    /// Flips one bit of a file on disk. Says whether there is such a bit.
    pub fn rot(&self, name: &str, bit: usize) -> bool {
        let mut state = self.state();
        let Some(inode) = state.names.get(name).copied() else { return false };
        let Some(inode) = state.inodes.get_mut(inode) else { return false };
        for bytes in [&mut inode.cached, &mut inode.durable] {
            let Some(byte) = bytes.get_mut(bit / 8) else { return false };
            *byte ^= 1 << (bit % 8);
        }
        true
    }

    /// A file's bytes as they are read.
    pub fn bytes_of(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        state.inodes.get(*state.names.get(name)?).map(|inode| inode.cached.clone())
    }

    /// All names and bytes as they are read, for comparing two disks.
    pub fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.state();
        let bytes = |inode: &usize| state.inodes.get(*inode).map(|inode| inode.cached.clone()).unwrap_or_default();
        state.names.iter().map(|(name, inode)| (name.clone(), bytes(inode))).collect()
    }
}

impl Change {
    /// Applies what of it reached the disk: of a write the sectors that `sector` says.
    fn apply(&self, to: &mut Vec<u8>, mut sector: impl FnMut(usize) -> bool) {
        match self {
            Self::Length(length) => to.resize(*length, 0),
            Self::Write { offset, bytes } => {
                let mut from = 0;
                while from < bytes.len() {
                    let at = offset + from;
                    let until = (at / SECTOR_BYTES + 1) * SECTOR_BYTES - offset;
                    let part = bytes.get(from..until.min(bytes.len())).unwrap_or_default();
                    if sector(at / SECTOR_BYTES - offset / SECTOR_BYTES) {
                        put(to, at, part);
                    }
                    from += part.len();
                }
            }
        }
    }
}

fn put(to: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if to.len() < at + bytes.len() {
        to.resize(at + bytes.len(), 0);
    }
    if let Some(place) = to.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

impl Naming {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Put(name, inode) => drop(names.insert(name.clone(), *inode)),
            Self::Moved(from, to, inode) => {
                // Of two names of one file the old one may have been given to another meanwhile.
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
            Self::Gone(name) => drop(names.remove(name)),
        }
    }
}

impl State {
    /// The same disk without a file, working again.
    fn reborn(&self) -> Self {
        let mut random = self.random.clone().unwrap_or_default();
        let random = Some(random.fork());
        let (struck, refused) = (self.struck.clone(), self.refused);
        Self { calls: self.calls, space: self.space, struck, refused, random, ..Self::default() }
    }

    fn used(&self) -> usize {
        self.names.values().filter_map(|inode| self.inodes.get(*inode)).map(|inode| inode.cached.len()).sum()
    }

    /// Drops the bytes of files that no name leads to any more.
    fn forget_unnamed(&mut self) {
        let named: std::collections::BTreeSet<usize> =
            self.names.values().chain(self.durable_names.values()).copied().collect();
        for (number, inode) in self.inodes.iter_mut().enumerate() {
            if !named.contains(&number) {
                *inode = Inode::default();
            }
        }
    }

    /// Counts a call; fails it, if a fault strikes.
    fn call(&mut self, call: Call) -> io::Result<()> {
        if self.quiet {
            return Ok(());
        }
        self.calls += 1;
        if let Some(fault) = self.dead {
            *self.struck.entry((call, fault)).or_default() += 1;
            return Err(error(fault));
        }
        let Some(planned) = self.planned.filter(|planned| planned.after < self.calls) else { return Ok(()) };
        self.planned = None;
        *self.struck.entry((call, planned.fault)).or_default() += 1;
        if planned.fault != Fault::Once {
            self.dead = Some(planned.fault);
        }
        Err(error(planned.fault))
    }

    fn chance(&mut self, below: usize) -> usize {
        self.random.as_mut().map_or(0, |random| random.usize(..=below))
    }

    fn room_for(&mut self, more: usize) -> io::Result<()> {
        if self.space.is_some_and(|space| self.used() + more > space) {
            self.refused += 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

fn error(fault: Fault) -> io::Error {
    match fault {
        Fault::Power => io::Error::other("power is lost"),
        Fault::Once | Fault::ForEver => io::Error::from_raw_os_error(5),
    }
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
            let part = state.chance(bytes.len());
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
                for (to, from) in buffer.iter_mut().zip(there) {
                    *to = *from;
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
                pending.iter().take(kept).for_each(|change| change.apply(&mut inode.durable, |_| true));
            }
        };
        self.with(Call::Sync, some, |inode| {
            for change in std::mem::take(&mut inode.pending) {
                change.apply(&mut inode.durable, |_| true);
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
                inode.cached.resize(length, 0);
                inode.pending.push(Change::Length(length));
            },
        )
    }

    fn next_written(&self, offset: u64) -> io::Result<Option<u64>> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        self.with(
            Call::Read,
            |_| {},
            |inode| {
                let there = inode.cached.get(offset..).unwrap_or_default();
                there.iter().position(|byte| *byte != 0).map(|at| (offset + at) as u64)
            },
        )
    }

    fn bytes(&self) -> io::Result<u64> {
        self.with(Call::Read, |_| {}, |inode| inode.cached.len() as u64)
    }
}

impl Inode {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        put(&mut self.cached, offset, bytes);
        self.pending.push(Change::Write { offset, bytes: bytes.to_vec() });
    }
}
