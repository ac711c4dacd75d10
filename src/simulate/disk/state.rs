//! What a simulated disk holds: bytes and names as they are read, as they are on disk, and what lies between.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::{Call, Fault, SECTOR_BYTES};

/// A fault to come: it strikes the call after so many others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Planned {
    pub(super) after: u64,
    pub(super) fault: Fault,
}

/// A write or a change of length that was not synced.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Debug, Clone, Default)]
pub(super) struct Inode {
    /// As it is read. Shared with what it was copied from until one of them is written.
    pub(super) cached: Arc<Vec<u8>>,
    /// As it is on disk.
    pub(super) durable: Arc<Vec<u8>>,
    pub(super) pending: Vec<Change>,
}

/// A change of the directory that was not synced.
#[derive(Debug, Clone)]
pub(super) enum Naming {
    Put(String, usize),
    Moved(String, String, usize),
    Gone(String),
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) names: BTreeMap<String, usize>,
    pub(super) durable_names: BTreeMap<String, usize>,
    pub(super) namings: Vec<Naming>,
    pub(super) inodes: Vec<Inode>,
    pub(super) calls: u64,
    pub(super) planned: Option<Planned>,
    /// What every call fails with from now on.
    pub(super) dead: Option<Fault>,
    pub(super) space: Option<usize>,
    /// Faults that struck, by what they struck.
    pub(super) struck: BTreeMap<(Call, Fault), u64>,
    /// A clock, and how far it goes on during the next sync.
    pub(super) stall: Option<(Arc<AtomicU64>, u64)>,
    /// Calls refused for want of space.
    pub(super) refused: u64,
    /// Calls are not counted, and do not fail.
    pub(super) quiet: bool,
    /// Which bytes of a failed write or sync get through.
    pub(super) random: Option<fastrand::Rng>,
}

impl Change {
    /// Applies what of it reached the disk: of a write the sectors that `sector` says.
    pub(super) fn apply(&self, to: &mut Vec<u8>, mut sector: impl FnMut(usize) -> bool) {
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

pub(super) fn put(to: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if to.len() < at + bytes.len() {
        to.resize(at + bytes.len(), 0);
    }
    if let Some(place) = to.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

impl Naming {
    pub(super) fn apply(&self, names: &mut BTreeMap<String, usize>) {
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
    pub(super) fn reborn(&self) -> Self {
        let mut random = self.random.clone().unwrap_or_default();
        let random = Some(random.fork());
        let (struck, refused) = (self.struck.clone(), self.refused);
        Self { calls: self.calls, space: self.space, struck, refused, random, ..Self::default() }
    }

    pub(super) fn used(&self) -> usize {
        self.names.values().filter_map(|inode| self.inodes.get(*inode)).map(|inode| inode.cached.len()).sum()
    }

    /// Drops the bytes of files that no name leads to any more.
    pub(super) fn forget_unnamed(&mut self) {
        let named: std::collections::BTreeSet<usize> =
            self.names.values().chain(self.durable_names.values()).copied().collect();
        for (number, inode) in self.inodes.iter_mut().enumerate() {
            if !named.contains(&number) {
                *inode = Inode::default();
            }
        }
    }

    /// Counts a call; fails it, if a fault strikes.
    pub(super) fn call(&mut self, call: Call) -> io::Result<()> {
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

    pub(super) fn chance(&mut self, below: usize) -> usize {
        self.random.as_mut().map_or(0, |random| random.usize(..=below))
    }

    pub(super) fn room_for(&mut self, more: usize) -> io::Result<()> {
        if self.space.is_some_and(|space| self.used() + more > space) {
            self.refused += 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

pub(super) fn error(fault: Fault) -> io::Error {
    match fault {
        Fault::Power => io::Error::other("power is lost"),
        Fault::Once | Fault::ForEver => io::Error::from_raw_os_error(5),
    }
}

impl Inode {
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        put(Arc::make_mut(&mut self.cached), offset, bytes);
        self.pending.push(Change::Write { offset, bytes: bytes.to_vec() });
    }
}
