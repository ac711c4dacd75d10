//! A disk in memory that forgets, tears, fills up and fails as real ones do, by a seed.
//!
//! The faults that it injects: power is lost at any call, and then of what was not synced any subset is there, writes
//! torn at 512 bytes, sizes without their data, names of files old or new; a sync fails, after which its pages read as
//! written but are not on disk, and the next sync succeeds; a write fails after some of its bytes; a read fails; space
//! runs out; a sync stalls; a bit rots. What it never does, since one disk cannot promise it: lose what was synced, or lie about a sync.

mod files;
mod state;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use state::{Change, Inode, Planned, State};

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

/// The disk. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

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

    /// Has the next sync take so long by a clock.
    pub fn stall(&self, clock: Arc<AtomicU64>, ms: u64) {
        self.state().stall = Some((clock, ms));
    }

    /// Whether no fault is to come.
    pub fn is_spent(&self) -> bool {
        self.state().planned.is_none()
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
            let mut bytes = Arc::clone(&inode.durable);
            for change in &inode.pending {
                if random.f64() < keep {
                    let torn = random.f64() < tear;
                    change.apply(Arc::make_mut(&mut bytes), |_| !torn || random.bool());
                }
            }
            bytes
        };
        Self::image(&state, survive, names)
    }

    /// As [`SimDisk::after`]; a fault that has not struck yet is still to come.
    pub fn going_on_after(&self, loss: Loss) -> Self {
        let after = self.after(loss);
        after.state().planned = self.state().planned;
        after
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
            let mut bytes = Arc::clone(&inode.durable);
            for change in &inode.pending {
                if keep(number) {
                    change.apply(Arc::make_mut(&mut bytes), |at| torn != Some(number) || sector(at));
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

    fn image(state: &State, mut survive: impl FnMut(&Inode) -> Arc<Vec<u8>>, names: BTreeMap<String, usize>) -> Self {
        let on_disk = |inode: &Inode| {
            let bytes = survive(inode);
            Inode { cached: Arc::clone(&bytes), durable: bytes, pending: Vec::new() }
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
            let Some(byte) = Arc::make_mut(bytes).get_mut(bit / 8) else { return false };
            *byte ^= 1 << (bit % 8);
        }
        true
    }

    /// A file's bytes as they are read.
    pub fn bytes_of(&self, name: &str) -> Option<Arc<Vec<u8>>> {
        let state = self.state();
        state.inodes.get(*state.names.get(name)?).map(|inode| Arc::clone(&inode.cached))
    }

    /// All names and bytes as they are read, for comparing two disks.
    pub fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        self.files().into_iter().map(|(name, bytes)| (name, bytes.to_vec())).collect()
    }

    /// As [`SimDisk::contents`], without copying them.
    pub fn files(&self) -> BTreeMap<String, Arc<Vec<u8>>> {
        let state = self.state();
        let bytes = |inode: &usize| state.inodes.get(*inode).map(|inode| Arc::clone(&inode.cached));
        state.names.iter().map(|(name, inode)| (name.clone(), bytes(inode).unwrap_or_default())).collect()
    }

    /// A number for its contents: two checksums of all names and bytes as they are read.
    pub fn fingerprint(&self) -> u64 {
        let mut crcs = [crc32fast::Hasher::new(), crc32fast::Hasher::new_with_initial(0x5EED)];
        for (name, bytes) in self.files() {
            for crc in &mut crcs {
                crc.update(name.as_bytes());
                crc.update(&(bytes.len() as u64).to_le_bytes());
                crc.update(&bytes);
            }
        }
        let [low, high] = crcs.map(crc32fast::Hasher::finalize);
        u64::from(high) << 32 | u64::from(low)
    }
}
