//! The index of ids and keys that callers chose: from a name to the records that may bear it.
//!
//! Pure. It holds eight bytes a name and never the name itself: whoever asks gets the seqs of records, reads them, and
//! compares. A false one comes once in thousands, a missing one never. A name's record is its job's home, and once the
//! job has ended, the record that says so; when that has left the log, so has the name.
//!
//! ```text
//! slot   tag, 26 bits of the name's hash, not 0 │ seq modulo 2^38          0: empty
//! ```
//!
//! The log never holds 2^38 records at once, so that a seq is told by its lower bits. A slot whose record has left the log
//! is stale: it is passed over, taken by another name, or dropped when its part is spread anew. Parts are tables of
//! their own with linear probing; a slot stands at or behind the place that its tag says. They grow by pages of one size, so
//! that growing leaves no holes of other sizes in memory.

use super::{IdMaker, SPACE_ID, SPACE_KEY};
use crate::job::event::Names;
use crate::types::Seq;

/// Bits of the hash that choose a part. Each part grows by itself, so that no moment's growth is long. (Miri
/// takes a second to make two thousand of them.)
const PART_BITS: u32 = if cfg!(miri) { 4 } else { 11 };
const TAG_BITS: u32 = 26;
const SEQ_BITS: u32 = 64 - TAG_BITS;
const SEQ_MASK: u64 = (1 << SEQ_BITS) - 1;
/// A part is spread anew when more than this share of it is taken, of 100, and is then filled to the lower one.
const FULL_PERCENT: usize = 89;
const FILLED_PERCENT: usize = 80;
/// Slots of a page.
const PAGE_SLOTS: usize = 128;

type Page = Box<[u64; PAGE_SLOTS]>;

/// A name, as the index knows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    part: usize,
    tag: u64,
}

impl Place {
    pub(super) fn new(hash: u128) -> Self {
        let bits = |shift: u32, bits: u32| u64::try_from(hash >> shift & ((1 << bits) - 1)).unwrap_or(0);
        Self { part: usize::try_from(bits(0, PART_BITS)).unwrap_or(0), tag: bits(64, TAG_BITS).max(1) }
    }

    fn slot(self, seq: Seq) -> u64 {
        self.tag << SEQ_BITS | seq & SEQ_MASK
    }
}

/// Where the names stand in an index.
pub(super) fn places(maker: &IdMaker, type_no: u32, names: &Names<'_>) -> impl Iterator<Item = Place> + use<> {
    let id = names.id.map(|id| maker.slot(SPACE_ID, type_no, id));
    let key = names.key.map(|key| maker.slot(SPACE_KEY, type_no, key));
    id.into_iter().chain(key).map(Place::new)
}

fn tag_of(slot: u64) -> u64 {
    slot >> SEQ_BITS
}

#[derive(Debug, Default, Clone)]
struct Part {
    pages: Vec<Page>,
    /// Slots that are not empty.
    taken: usize,
}

impl Part {
    fn slots(&self) -> usize {
        self.pages.len() * PAGE_SLOTS
    }

    fn all(&self) -> impl Iterator<Item = u64> + '_ {
        self.pages.iter().flat_map(|page| page.iter()).copied()
    }

    fn start(&self, tag: u64) -> usize {
        usize::try_from((tag * self.slots() as u64) >> TAG_BITS).unwrap_or(0)
    }

    fn set(&mut self, at: usize, slot: u64) {
        if let Some(place) = self.pages.get_mut(at / PAGE_SLOTS).and_then(|page| page.get_mut(at % PAGE_SLOTS)) {
            *place = slot;
        }
    }

    /// Shows number and contents of each slot in which a tag may stand, up to the first empty one, whose number is returned.
    fn probe(&self, tag: u64, mut see: impl FnMut(usize, u64)) -> Option<usize> {
        let start = self.start(tag);
        let (page, within) = (start / PAGE_SLOTS, start % PAGE_SLOTS);
        let around = (page..self.pages.len()).chain(0..=page);
        let mut skip = within;
        for number in around {
            let slots = self.pages.get(number)?.get(std::mem::take(&mut skip)..)?;
            let first = number * PAGE_SLOTS + PAGE_SLOTS - slots.len();
            for (at, slot) in (first..).zip(slots) {
                if *slot == 0 {
                    return Some(at);
                }
                see(at, *slot);
            }
        }
        None
    }

    /// Puts a slot into the first empty place; there is one.
    fn add(&mut self, slot: u64) {
        if let Some(at) = self.probe(tag_of(slot), |_, _| {}) {
            self.set(at, slot);
            self.taken += 1;
        }
    }

    fn is_full(&self) -> bool {
        (self.taken + 1) * 100 > self.slots() * FULL_PERCENT
    }

    /// Spreads what it holds over as many pages as that needs, and one more slot.
    fn spread(&mut self, kept: &[u64]) {
        let slots = (kept.len() + 1) * 100 / FILLED_PERCENT + 1;
        self.pages.iter_mut().for_each(|page| page.fill(0));
        self.pages.resize_with(slots.div_ceil(PAGE_SLOTS), || Box::new([0; PAGE_SLOTS]));
        self.pages.shrink_to(self.pages.len() + self.pages.len() / 8);
        self.taken = 0;
        kept.iter().for_each(|slot| self.add(*slot));
    }
}

/// Chosen ids and keys → records.
#[derive(Debug)]
pub struct IdIndex {
    maker: IdMaker,
    parts: Box<[Part]>,
    /// First seq that is in the log.
    first_seq: Seq,
    /// The newest seq that was noted.
    newest: Seq,
}

impl IdIndex {
    /// An empty index.
    pub fn new(maker: IdMaker) -> Self {
        Self { maker, parts: vec![Part::default(); 1 << PART_BITS].into(), first_seq: 1, newest: 0 }
    }

    /// Seqs of the records that may bear this id, in no order.
    pub fn by_id(&self, type_no: u32, id: &str) -> Vec<Seq> {
        self.candidates(Place::new(self.maker.slot(SPACE_ID, type_no, id)))
    }

    /// Seqs of the records that may bear this key, in no order.
    pub fn by_key(&self, type_no: u32, key: &str) -> Vec<Seq> {
        self.candidates(Place::new(self.maker.slot(SPACE_KEY, type_no, key)))
    }

    fn candidates(&self, place: Place) -> Vec<Seq> {
        let Some(part) = self.parts.get(place.part) else { return Vec::new() };
        let mut seqs = Vec::new();
        part.probe(place.tag, |_, slot| {
            if tag_of(slot) == place.tag {
                seqs.extend(self.seq_of(slot));
            }
        });
        seqs
    }

    /// The seq of a slot, unless its record has left the log.
    fn seq_of(&self, slot: u64) -> Option<Seq> {
        let ahead = (slot & SEQ_MASK).wrapping_sub(self.first_seq) & SEQ_MASK;
        let seq = self.first_seq + ahead;
        (seq <= self.newest).then_some(seq)
    }

    /// Notes that the record `seq` bears these names, and no more the record `old`, if there was one.
    pub fn note(&mut self, type_no: u32, names: &Names<'_>, old: Option<Seq>, seq: Seq) {
        for place in places(&self.maker, type_no, names) {
            self.put_at(place, old, seq);
        }
    }

    /// Notes that the record `seq` bears the name that stands there, and no more the record `old`.
    pub(super) fn put_at(&mut self, place: Place, old: Option<Seq>, seq: Seq) {
        self.newest = self.newest.max(seq);
        let new = place.slot(seq);
        let old = old.map_or(0, |old| place.slot(old));
        let Some(part) = self.parts.get(place.part) else { return };
        let (mut same, mut twin, mut stale) = (None, None, None);
        let empty = part.probe(place.tag, |at, slot| {
            if slot == new || slot == old {
                // Both may be there, after a replay of what was known already.
                twin = same.replace(at);
            } else if stale.is_none() && self.seq_of(slot).is_none() {
                stale = Some(at);
            }
        });
        let spread = same.or(stale).is_none() && part.is_full();
        if spread {
            self.spread(place.part);
        }
        let Some(part) = self.parts.get_mut(place.part) else { return };
        if let Some(at) = twin {
            // Never empty, since others may stand behind it: stale, as one whose record has left the log.
            part.set(at, place.slot(self.first_seq.wrapping_sub(1)));
        }
        match (same.or(stale), empty.filter(|_| !spread)) {
            (Some(at), _) => part.set(at, new),
            (None, Some(at)) => {
                part.set(at, new);
                part.taken += 1;
            }
            (None, None) => part.add(new),
        }
    }

    /// Spreads a part anew, with room for more, without what is stale.
    fn spread(&mut self, number: usize) {
        let Some(part) = self.parts.get(number) else { return };
        let kept: Vec<u64> = part.all().filter(|slot| *slot != 0 && self.seq_of(*slot).is_some()).collect();
        if let Some(part) = self.parts.get_mut(number) {
            part.spread(&kept);
        }
    }

    /// Some parts from `part` on, in about so many bytes, and the part to go on with; `None` after the last one. What is noted
    /// between two blocks may be in the second one: to note it again says the same again.
    ///
    /// ```text
    /// newest seq u64 │ for each part that is not empty: part u32 │ slots u32 │ taken u32 │ slot u64 …
    /// ```
    pub fn block(&self, part: usize, bytes: usize) -> Option<(Vec<u8>, usize)> {
        if part >= self.parts.len() {
            return None;
        }
        let mut block = self.newest.to_le_bytes().to_vec();
        let mut next = part;
        while let Some(part) = self.parts.get(next).filter(|_| block.len() < bytes) {
            if part.taken > 0 {
                for number in [next, part.slots(), part.taken] {
                    block.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
                }
                part.all().for_each(|slot| block.extend_from_slice(&slot.to_le_bytes()));
            }
            next += 1;
        }
        Some((block, next))
    }

    /// Takes a block over; `None` if it is none.
    pub fn load(&mut self, block: &[u8]) -> Option<()> {
        let (newest, mut rest) = block.split_first_chunk()?;
        self.newest = self.newest.max(u64::from_le_bytes(*newest));
        while !rest.is_empty() {
            let (head, more) = rest.split_first_chunk::<12>()?;
            let number = |at: usize| Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?) as usize);
            let bytes = number(4)?.checked_mul(8)?;
            let mut slots = more.get(..bytes)?.chunks_exact(8);
            let mut part = Part { pages: Vec::new(), taken: number(8)? };
            while slots.len() > 0 {
                let mut page: Page = Box::new([0; PAGE_SLOTS]);
                for place in page.iter_mut() {
                    *place = slots.next()?.try_into().map_or(0, u64::from_le_bytes);
                }
                part.pages.push(page);
            }
            *self.parts.get_mut(number(0)?)? = part;
            rest = more.get(bytes..)?;
        }
        Some(())
    }

    /// The log begins at `first_seq` now.
    pub fn forget_below(&mut self, first_seq: Seq) {
        self.first_seq = self.first_seq.max(first_seq);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn names(id: &str) -> Names<'_> {
        Names { id: Some(id), key: None, digest: 0 }
    }

    #[test]
    fn a_name_is_found_where_it_was_noted_last_until_that_has_left_the_log() {
        let mut index = IdIndex::new(IdMaker::new([1; 16]));
        let both = Names { id: Some("a"), key: Some("k"), digest: 5 };
        index.note(1, &both, None, 10);
        assert_eq!((index.by_id(1, "a"), index.by_key(1, "k")), (vec![10], vec![10]));
        assert!(index.by_id(2, "a").is_empty() && index.by_id(1, "k").is_empty());
        index.note(1, &both, Some(10), 120);
        index.forget_below(120);
        assert_eq!((index.by_id(1, "a"), index.by_key(1, "k")), (vec![120], vec![120]));
        index.forget_below(121);
        assert!(index.by_id(1, "a").is_empty() && index.by_key(1, "k").is_empty());
    }

    #[test]
    fn no_name_of_many_is_missed_and_few_are_mistaken() {
        let seed = fastrand::u64(..);
        eprintln!("SEED={seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut index = IdIndex::new(IdMaker::new([7; 16]));
        let mut last: HashMap<u64, Seq> = HashMap::new();
        let (mut first, mut false_ones) = (1, 0);
        // Few for Miri, which interprets each step.
        let all: Seq = if cfg!(miri) { 500 } else { 200_000 };
        for seq in 1..all {
            let name = random.u64(0..all * 3 / 10);
            let text = name.to_string();
            let old = last.insert(name, seq).filter(|old| *old >= first);
            let found = index.by_id(1, &text);
            assert!(old.is_none_or(|old| found.contains(&old)), "SEED={seed} {name} at {seq}: {found:?}");
            false_ones += found.len() - usize::from(old.is_some());
            index.note(1, &names(&text), old, seq);
            if seq > all / 2 {
                first = seq - all / 2;
                index.forget_below(first);
            }
        }
        assert!(false_ones < 100, "SEED={seed}: {false_ones} of {all} were other names'");
        let slots: usize = index.parts.iter().map(Part::slots).sum();
        assert!(slots < (1 << PART_BITS) * PAGE_SLOTS + 2 * 60_000, "{slots} slots for at most 60,000 names");
    }

    #[test]
    fn what_was_kept_part_by_part_and_what_came_meanwhile_give_the_same_again() {
        /// A record bears a name, in the place of an older one.
        type Noted = (u64, Option<Seq>, Seq);
        let seed = fastrand::u64(..);
        eprintln!("SEED={seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let (rounds, before) = if cfg!(miri) { (1, 60) } else { (20, 6000) };
        for _ in 0..rounds {
            let (mut live, mut again) = (IdIndex::new(IdMaker::new([7; 16])), IdIndex::new(IdMaker::new([7; 16])));
            let mut last: HashMap<u64, Seq> = HashMap::new();
            let note = |index: &mut IdIndex, (name, old, seq): Noted| {
                index.note(1, &names(&name.to_string()), old, seq);
            };
            let mut happens = |random: &mut fastrand::Rng, seq| -> Noted {
                let name = random.u64(0..3000);
                (name, last.insert(name, seq), seq)
            };
            let mut seq = 0;
            let mut next = || {
                seq += 1;
                seq
            };
            for _ in 0..random.usize(..before) {
                note(&mut live, happens(&mut random, next()));
            }
            let (mut part, mut meanwhile) = (0, Vec::new());
            while let Some((block, then)) = live.block(part, random.usize(1..4000)) {
                again.load(&block).unwrap();
                part = then;
                for _ in 0..random.usize(..5) {
                    meanwhile.push(happens(&mut random, next()));
                    note(&mut live, *meanwhile.last().unwrap());
                }
            }
            meanwhile.into_iter().for_each(|noted| note(&mut again, noted));
            for (name, seq) in &last {
                let found = again.by_id(1, &name.to_string());
                assert!(found.contains(seq), "SEED={seed} {name} at {seq}: {found:?}");
                assert_eq!(found.len(), 1, "SEED={seed} {name}: no older record bears it any more");
            }
        }
    }

    #[test]
    fn any_bytes_are_a_block_or_refused() {
        let seed = fastrand::u64(..);
        eprintln!("SEED={seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut index = IdIndex::new(IdMaker::new([7; 16]));
        (1..600).for_each(|seq| index.note(1, &names(&seq.to_string()), None, seq));
        let whole = index.block(0, 20_000).unwrap().0;
        let (mut refused, rounds) = (0, if cfg!(miri) { 6 } else { 2000 });
        for round in 0..rounds {
            let mut block = whole.clone();
            let at = random.usize(..block.len());
            block[at] = random.u8(..);
            block.truncate(block.len() - round % 3);
            let mut loaded = IdIndex::new(IdMaker::new([7; 16]));
            match loaded.load(&block) {
                Some(()) => (1..600)
                    .step_by(if cfg!(miri) { 100 } else { 1 })
                    .for_each(|seq| drop(loaded.by_id(1, &seq.to_string()))),
                None => refused += 1,
            }
        }
        assert!(refused > rounds / 2, "SEED={seed}: {refused}");
    }

    #[test]
    fn a_seq_is_told_by_its_lower_bits() {
        let mut index = IdIndex::new(IdMaker::new([1; 16]));
        let first = (3 << SEQ_BITS) - 5;
        index.forget_below(first);
        index.note(1, &names("a"), None, first + 2);
        index.note(1, &names("b"), None, first + 20);
        assert_eq!(index.by_id(1, "a"), [first + 2]);
        assert_eq!(index.by_id(1, "b"), [first + 20]);
    }
}
