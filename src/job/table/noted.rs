//! Jobs with a state of their own: reserved, delayed, dead, given back, or about to expire. Fresh ones wait in their queue.
//!
//! A map in shards, so that a picture of it costs a pointer a shard, and a change after that a copy of one of them.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use super::Job;
use crate::types::Seq;

const SHARDS: usize = 128;
/// A shard that is larger than this gives memory back when little of it is used.
const SHARD_KEEPS: usize = 64;

/// Born seqs are ours and ascend: spreading their bits is all that a map needs.
#[derive(Debug, Default, Clone, Copy)]
pub struct SeqHasher(u64);

impl Hasher for SeqHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(26);
    }
}

type Shard = HashMap<Seq, Job, BuildHasherDefault<SeqHasher>>;

/// The map.
#[derive(Debug, Clone)]
pub(super) struct Noted {
    shards: Vec<Arc<Shard>>,
    len: usize,
}

impl Noted {
    pub(super) fn new() -> Self {
        Self { shards: vec![Arc::default(); SHARDS], len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn number(born: Seq) -> usize {
        usize::try_from(born % SHARDS as u64).unwrap_or(0)
    }

    pub(super) fn get(&self, born: Seq) -> Option<&Job> {
        self.shards.get(Self::number(born))?.get(&born)
    }

    pub(super) fn insert(&mut self, born: Seq, job: Job) {
        if let Some(shard) = self.shards.get_mut(Self::number(born)) {
            self.len += usize::from(Arc::make_mut(shard).insert(born, job).is_none());
        }
    }

    pub(super) fn remove(&mut self, born: Seq) -> Option<Job> {
        let shard = self.shards.get_mut(Self::number(born))?;
        // Looked at first: what is not there need not be copied.
        shard.get(&born)?;
        let shard = Arc::make_mut(shard);
        let removed = shard.remove(&born);
        self.len -= usize::from(removed.is_some());
        if shard.capacity() > SHARD_KEEPS && shard.len() * 8 < shard.capacity() {
            shard.shrink_to(shard.len() * 2);
        }
        removed
    }

    /// All of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Seq, &Job)> {
        self.shards.iter().flat_map(|shard| shard.iter()).map(|(born, job)| (*born, job))
    }
}
