//! Ids: the ones that we make, which carry the born seq and need no index; and the index of those that callers chose.

use std::collections::{HashMap, VecDeque};

use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hasher;

use super::event::{End, Names};
use crate::log::LogId;
use crate::types::{Seq, UnixMs};

/// Bits of a made id that hold the born seq: enough for a million jobs a second for 35 years.
const BORN_BITS: u32 = 50;
/// Bits of a made id that tell logs apart.
const TAG_BITS: u32 = 24;

/// Makes and reads the ids of one log.
#[derive(Debug, Clone, Copy)]
pub struct IdMaker {
    tag: u128,
    keys: (u64, u64),
}

impl IdMaker {
    /// The maker of a log.
    pub fn new(log_id: LogId) -> Self {
        let whole = u128::from_le_bytes(log_id);
        let half = |shift: u32| u64::try_from((whole >> shift) & u128::from(u64::MAX)).unwrap_or(0);
        let keys = (half(0), half(64));
        let mut hasher = SipHasher13::new_with_keys(keys.0, keys.1);
        hasher.write(b"tag");
        Self { tag: hasher.finish128().as_u128() & ((1 << TAG_BITS) - 1), keys }
    }

    /// The id of the job `born`: a uuid v7 whose free bits are the born seq and the log's tag.
    pub fn make(&self, born: Seq, created_ms: UnixMs) -> String {
        let free = (u128::from(born) & ((1 << BORN_BITS) - 1)) << TAG_BITS | self.tag;
        let upper = free >> 62;
        let lower = free & ((1 << 62) - 1);
        let time = u128::from(created_ms) & ((1 << 48) - 1);
        let id = uuid::Uuid::from_u128(time << 80 | 7 << 76 | upper << 64 | 0b10 << 62 | lower);
        id.hyphenated().to_string()
    }

    /// Born seq and time of an id that this log made; `None` for any other text.
    pub fn read(&self, id: &str) -> Option<(Seq, UnixMs)> {
        let id = uuid::Uuid::try_parse(id).ok()?.as_u128();
        let free = ((id >> 64) & 0xFFF) << 62 | (id & ((1 << 62) - 1));
        if (id >> 76) & 0xF != 7 || (id >> 62) & 0b11 != 0b10 || free & ((1 << TAG_BITS) - 1) != self.tag {
            return None;
        }
        let born = Seq::try_from(free >> TAG_BITS).ok()?;
        (born != 0).then_some((born, UnixMs::try_from(id >> 80).ok()?))
    }

    /// Digest of a call's body, to compare a repeated call by.
    pub fn digest(&self, parts: &[&[u8]]) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.keys.1, self.keys.0);
        for part in parts {
            hasher.write_usize(part.len());
            hasher.write(part);
        }
        hasher.finish128().h1
    }

    fn slot(&self, space: u8, type_no: u32, text: &str) -> u128 {
        let mut hasher = SipHasher13::new_with_keys(self.keys.0, self.keys.1);
        hasher.write_u8(space);
        hasher.write_u32(type_no);
        hasher.write(text.as_bytes());
        hasher.finish128().as_u128()
    }
}

/// A job that holds a chosen id or key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The job.
    pub born: Seq,
    /// When it was accepted.
    pub created_ms: UnixMs,
    /// Digest of the call that enqueued it.
    pub digest: u64,
    /// Its id, if that was chosen.
    pub id: Option<Box<str>>,
    /// How it ended, and the seq of the record that says so.
    pub ended: Option<(End, Seq)>,
}

/// Chosen ids and keys → jobs. Remembered until the job's last record leaves the log.
#[derive(Debug)]
pub struct IdIndex {
    maker: IdMaker,
    holders: HashMap<u128, Holder>,
    /// Slots of finished jobs, in order of their last record.
    ended: VecDeque<(Seq, u128)>,
}

/// Spaces of names, kept apart in the index.
const SPACE_ID: u8 = 1;
const SPACE_KEY: u8 = 2;

impl IdIndex {
    /// An empty index.
    pub fn new(maker: IdMaker) -> Self {
        Self { maker, holders: HashMap::new(), ended: VecDeque::new() }
    }

    /// The job with a chosen id.
    pub fn by_id(&self, type_no: u32, id: &str) -> Option<&Holder> {
        self.holders.get(&self.maker.slot(SPACE_ID, type_no, id))
    }

    /// The job with an idempotency key.
    pub fn by_key(&self, type_no: u32, key: &str) -> Option<&Holder> {
        self.holders.get(&self.maker.slot(SPACE_KEY, type_no, key))
    }

    fn slots(&self, type_no: u32, names: &Names<'_>) -> impl Iterator<Item = u128> + use<> {
        let id = names.id.map(|id| self.maker.slot(SPACE_ID, type_no, id));
        let key = names.key.map(|key| self.maker.slot(SPACE_KEY, type_no, key));
        id.into_iter().chain(key)
    }

    /// Notes a job's names.
    pub fn insert(&mut self, type_no: u32, born: Seq, created_ms: UnixMs, names: &Names<'_>) {
        for slot in self.slots(type_no, names) {
            let id = names.id.map(Box::from);
            self.holders.insert(slot, Holder { born, created_ms, digest: names.digest, id, ended: None });
        }
    }

    /// Notes that a job is finished, by the record `seq`.
    pub fn end(&mut self, type_no: u32, born: Seq, names: &Names<'_>, end: End, seq: Seq) {
        for slot in self.slots(type_no, names) {
            if let Some(holder) = self.holders.get_mut(&slot).filter(|holder| holder.born == born) {
                holder.ended = Some((end, seq));
                self.ended.push_back((seq, slot));
            }
        }
    }

    /// Forgets finished jobs whose last record is below `first_seq`.
    pub fn forget_below(&mut self, first_seq: Seq) {
        while let Some((seq, slot)) = self.ended.front().copied().filter(|(seq, _)| *seq < first_seq) {
            self.ended.pop_front();
            if self.holders.get(&slot).is_some_and(|holder| holder.ended.is_some_and(|(_, last)| last == seq)) {
                self.holders.remove(&slot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_id_gives_back_what_it_was_made_of_and_belongs_to_its_log() {
        let maker = IdMaker::new([3; 16]);
        for born in [1, 2, 255, 1 << 20, (1 << BORN_BITS) - 1] {
            let id = maker.make(born, 1_763_980_000_123);
            assert_eq!(uuid::Uuid::try_parse(&id).unwrap().get_version_num(), 7);
            assert_eq!(maker.read(&id), Some((born, 1_763_980_000_123)));
            assert_eq!(IdMaker::new([4; 16]).read(&id), None);
        }
        assert!(maker.make(7, 1000) < maker.make(8, 1000), "ids of one moment sort by their seq");
        assert_eq!(maker.read("order-17"), None);
    }

    #[test]
    fn names_are_forgotten_with_the_last_record_and_not_before() {
        let mut index = IdIndex::new(IdMaker::new([1; 16]));
        let names = Names { id: Some("a"), key: Some("k"), digest: 5 };
        index.insert(1, 10, 0, &names);
        index.forget_below(100);
        assert_eq!(index.by_id(1, "a").unwrap().born, 10);
        assert!(index.by_id(2, "a").is_none() && index.by_id(1, "k").is_none());
        index.end(1, 10, &names, End::Completed, 120);
        index.forget_below(120);
        assert_eq!(index.by_key(1, "k").unwrap().ended, Some((End::Completed, 120)));
        index.forget_below(121);
        assert!(index.by_key(1, "k").is_none() && index.holders.is_empty());
    }
}
