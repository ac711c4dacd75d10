//! Ids: the ones that we make, which carry the born seq and need no index; and the index of those that callers chose.
//!
//! Pure. What a name is compared by, and how a name becomes a place in the index, is decided here.

mod chosen;
mod index;
mod text;

pub use chosen::ChosenNames;
pub use index::IdIndex;
pub use text::JobId;

use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hasher;

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
        self.uuid(born, created_ms).hyphenated().to_string()
    }

    /// As [`IdMaker::make`], without memory of its own.
    pub fn make_inline(&self, born: Seq, created_ms: UnixMs) -> JobId {
        JobId::made(self.uuid(born, created_ms))
    }

    fn uuid(&self, born: Seq, created_ms: UnixMs) -> uuid::Uuid {
        let free = (u128::from(born) & ((1 << BORN_BITS) - 1)) << TAG_BITS | self.tag;
        let upper = free >> 62;
        let lower = free & ((1 << 62) - 1);
        let time = u128::from(created_ms) & ((1 << 48) - 1);
        uuid::Uuid::from_u128(time << 80 | 7 << 76 | upper << 64 | 0b10 << 62 | lower)
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

/// Spaces of names, kept apart in the index.
const SPACE_ID: u8 = 1;
const SPACE_KEY: u8 = 2;

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
            assert_eq!(maker.make_inline(born, 1_763_980_000_123).as_str(), id);
            assert_eq!(IdMaker::new([4; 16]).read(&id), None);
        }
        assert!(maker.make(7, 1000) < maker.make(8, 1000), "ids of one moment sort by their seq");
        assert_eq!(maker.read("order-17"), None);
    }
}
