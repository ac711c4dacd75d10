//! What the index holds of a job, as bytes: postcard values under big-endian seqs, so that they sort by seq.

use serde::{Deserialize, Serialize};

use super::{Ask, Found};
use crate::job::event::End;
use crate::limits::HISTORY_PLACES_KEPT;
use crate::log::{Position, StoredRecord};
use crate::types::{Seq, UnixMs};

/// A record and its place: seq, segment, offset, body bytes, kind.
pub(super) type Place = (Seq, u32, u32, u32, u8);

pub(super) fn place(record: &StoredRecord) -> Place {
    let Position { segment, offset, body } = record.position;
    (record.seq, segment, offset, body, record.kind)
}

pub(super) fn position((_, segment, offset, body, _): Place) -> Position {
    Position { segment, offset, body }
}

/// A key that sorts by seq.
pub(super) fn key(seq: Seq) -> [u8; 8] {
    let mut key = [0; 8];
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = u8::try_from((seq >> (56 - 8 * at)) & 0xFF).unwrap_or(0);
    }
    key
}

/// The seq of a key.
pub(super) fn seq_of(key: &[u8]) -> Option<Seq> {
    (key.len() == 8).then(|| key.iter().fold(0, |seq, byte| seq << 8 | Seq::from(*byte)))
}

/// An ended job, under the seq of the record that ended it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) born: Seq,
    pub(super) end: End,
    pub(super) at: UnixMs,
    pub(super) type_no: u32,
    pub(super) segment: u32,
    pub(super) offset: u32,
    pub(super) body: u32,
    /// Seq of the record that holds its payload, and says whom it was for.
    pub(super) home: Seq,
    pub(super) tenant: Option<String>,
    pub(super) note: Option<Note>,
}

impl Entry {
    pub(super) fn encode(&self) -> Vec<u8> {
        // Plain values in memory: there is no way to fail.
        postcard::to_allocvec(self).unwrap_or_default()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }

    /// Whether it is looked for; `first` is the first seq that is in the log. What stood in a record that has left the log
    /// is not known any more: an index that is made anew from the log would not know it either.
    pub(super) fn passes(&self, ask: &Ask, first: Seq) -> bool {
        let said = |part: &String| {
            let error = self.note.as_ref().filter(|note| note.last_seq() >= first).map(|note| &note.error);
            error.is_some_and(|error| error.contains(part.as_str()))
        };
        ask.type_no.is_none_or(|no| no == self.type_no)
            && ask.end.is_none_or(|end| end == self.end)
            && ask.since.is_none_or(|since| self.at >= since)
            && ask.tenant.as_ref().is_none_or(|tenant| self.home >= first && self.tenant.as_ref() == Some(tenant))
            && ask.error.as_ref().is_none_or(said)
    }

    /// Where its records lie, as far as they are in the log from `first` on.
    pub(super) fn found(&self, seq: Seq, first: Seq) -> Found {
        let places = self.note.iter().flat_map(|note| &note.places);
        Found {
            seq,
            position: Position { segment: self.segment, offset: self.offset, body: self.body },
            failures: places.filter(|(seq, ..)| *seq >= first).map(|at| (at.0, position(*at), at.4)).collect(),
        }
    }
}

/// What is remembered of a job that failed, until it ends: where that is written, and the last error.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Note {
    /// Records of its failures, ascending; the last ones.
    pub(super) places: Vec<Place>,
    /// The last error, as it is searched.
    pub(super) error: String,
}

impl Note {
    pub(super) fn encode(&self) -> Vec<u8> {
        postcard::to_allocvec(self).unwrap_or_default()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }

    /// Another failure; one that is known already changes nothing.
    pub(super) fn add(&mut self, at: Place, error: String) {
        if self.last_seq() >= at.0 {
            return;
        }
        self.places.push(at);
        let surplus = self.places.len().saturating_sub(HISTORY_PLACES_KEPT);
        self.places.drain(..surplus);
        self.error = error;
    }

    fn last_seq(&self) -> Seq {
        self.places.last().map_or(0, |at| at.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_their_seqs_do_and_give_them_back() {
        let seqs = [0, 1, 255, 256, 1 << 31, u64::MAX - 1, u64::MAX];
        for pair in seqs.windows(2) {
            assert!(key(pair[0]) < key(pair[1]));
        }
        assert!(seqs.iter().all(|seq| seq_of(&key(*seq)) == Some(*seq)));
        assert_eq!(seq_of(b"short"), None);
    }

    #[test]
    fn a_failure_that_is_read_twice_counts_once() {
        let mut note = Note::default();
        for seq in [3, 5, 5, 3, 9] {
            note.add((seq, 1, 0, 0, 4), format!("error {seq}"));
        }
        assert_eq!(note.places.iter().map(|at| at.0).collect::<Vec<_>>(), [3, 5, 9]);
        assert_eq!(note.error, "error 9");
        assert_eq!(Note::decode(&note.encode()), Some(note));
    }
}
