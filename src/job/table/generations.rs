//! The accepted configs that are remembered: the last ones, and the text of those by which what lives can be made again.
//!
//! Pure. What is remembered follows from the records alone, in whatever order they are said again: a log that was cleaned
//! gives the same.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Table, TypeState};
use crate::job::event::{Generation, Settled};
use crate::limits::{GENERATION_TEXTS_BYTES_MAX, GENERATIONS_KEPT};
use crate::types::UnixMs;

/// An accepted config.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GenerationRecord {
    /// Its number; 0: there was none yet.
    pub number: u64,
    /// When it was accepted.
    pub at: UnixMs,
    /// The versions that it asks for.
    pub targets: Vec<u32>,
    /// Its text, as long as something that lives may have to be made of it.
    pub text: Option<Arc<str>>,
    /// What became of it, once that was certain.
    pub settled: Option<Arc<Settled>>,
}

static NONE: GenerationRecord = GenerationRecord { number: 0, at: 0, targets: Vec::new(), text: None, settled: None };

/// The last accepted configs, the newest last.
#[derive(Debug, Default)]
pub(super) struct Generations(Vec<GenerationRecord>);

impl Generations {
    pub(super) fn newest(&self) -> &GenerationRecord {
        self.0.last().unwrap_or(&NONE)
    }

    pub(super) fn all(&self) -> &[GenerationRecord] {
        &self.0
    }

    /// All of them, as they were kept.
    pub(super) fn load(&mut self, all: Vec<GenerationRecord>) {
        self.0 = all;
    }

    /// One was accepted, or is said again.
    pub(super) fn accepted(&mut self, event: &Generation, text: &str) {
        let (number, at, targets) = (event.number, event.at, event.targets.clone());
        let text = (!text.is_empty()).then(|| Arc::from(text));
        match self.0.binary_search_by_key(&number, |known| known.number) {
            Ok(place) => {
                if let Some(known) = self.0.get_mut(place) {
                    known.text = text.or(known.text.take());
                }
            }
            Err(place) => self.0.insert(place, GenerationRecord { number, at, targets, text, settled: None }),
        }
    }

    pub(super) fn settled(&mut self, event: &Settled) {
        if let Some(known) = self.0.iter_mut().find(|known| known.number == event.number) {
            known.settled = Some(Arc::new(event.clone()));
        }
    }

    /// The newest remembered text by which a version can be made.
    pub(super) fn text_for(&self, version_no: u32) -> Option<&Arc<str>> {
        let with = self.0.iter().rev().filter(|known| known.targets.contains(&version_no));
        with.filter_map(|known| known.text.as_ref()).next()
    }

    /// Forgets the texts that nothing which lives can need: all but the newest one, and those that are the newest to say
    /// what one of `live` is. Where these are too many bytes, the older ones go. Then forgets the configs themselves but for the
    /// last ones: of an older one nothing is kept but its text, if that is needed, for a version that serves on and on while
    /// newer ones come and are withdrawn.
    pub(super) fn prune(&mut self, live: &BTreeSet<u32>) {
        let mut missing = live.clone();
        let mut bytes = 0;
        for (place, known) in self.0.iter_mut().rev().enumerate() {
            let Some(text) = &known.text else { continue };
            let before = missing.len();
            missing.retain(|version_no| !known.targets.contains(version_no));
            let is_needed = place == 0 || missing.len() < before;
            if is_needed && (place == 0 || bytes + text.len() <= GENERATION_TEXTS_BYTES_MAX) {
                bytes += text.len();
            } else {
                known.text = None;
            }
        }
        self.forget();
    }

    fn forget(&mut self) {
        let newest = self.newest().number;
        let is_old = |known: &GenerationRecord| known.number + GENERATIONS_KEPT as u64 <= newest;
        let needed = self.0.iter().filter(|known| is_old(known) && known.text.is_some()).count();
        let mut too_many = needed.saturating_sub(GENERATIONS_KEPT);
        self.0.retain_mut(|known| {
            if !is_old(known) {
                return true;
            }
            known.settled = None;
            let goes = known.text.is_none() || too_many > 0;
            too_many = too_many.saturating_sub(usize::from(known.text.is_some()));
            !goes
        });
    }
}

impl Table {
    /// The newest accepted config.
    pub fn generation(&self) -> &GenerationRecord {
        self.generations.newest()
    }

    /// The accepted configs that are remembered, the newest last.
    pub fn generations(&self) -> &[GenerationRecord] {
        self.generations.all()
    }

    /// The text of the newest remembered config that says what a version is.
    pub fn text_for(&self, version_no: u32) -> Option<Arc<str>> {
        self.generations.text_for(version_no).cloned()
    }

    /// Versions that work may go to, and so may have to be made again.
    fn live_versions(&self) -> BTreeSet<u32> {
        let of =
            |of_type: &TypeState| [of_type.route, of_type.previous, of_type.ramp.map_or(0, |ramp| ramp.version_no)];
        self.types.iter().flat_map(of).filter(|no| *no != 0).collect()
    }

    pub(super) fn prune_texts(&mut self) {
        let live = self.live_versions();
        self.generations.prune(&live);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(known: &mut Generations, number: u64, targets: &[u32], text: &str, live: &[u32]) {
        known.accepted(&Generation { number, at: 10 * number, targets: targets.to_vec() }, text);
        known.prune(&live.iter().copied().collect());
    }

    fn texts(known: &Generations) -> Vec<(u64, Option<&str>)> {
        known.all().iter().map(|known| (known.number, known.text.as_deref())).collect()
    }

    #[test]
    fn a_text_is_kept_for_as_long_as_a_version_that_lives_is_said_nowhere_newer() {
        let mut known = Generations::default();
        accept(&mut known, 1, &[1, 2], "one", &[]);
        accept(&mut known, 2, &[1, 3], "two", &[1, 2]);
        assert_eq!(
            texts(&known),
            [(1, Some("one")), (2, Some("two"))],
            "2 lives, and only the first one says what it is"
        );
        accept(&mut known, 3, &[4, 3], "three", &[1, 2]);
        assert_eq!(texts(&known), [(1, Some("one")), (2, Some("two")), (3, Some("three"))]);
        assert_eq!(known.text_for(1).map(AsRef::as_ref), Some("two"));
        known.prune(&[4, 2].into());
        assert_eq!(texts(&known), [(1, Some("one")), (2, None), (3, Some("three"))]);
        known.prune(&[4, 3].into());
        assert_eq!(texts(&known), [(1, None), (2, None), (3, Some("three"))]);
        assert_eq!(known.text_for(2), None);
    }

    #[test]
    fn what_is_said_again_changes_nothing_and_a_text_may_come_later() {
        let mut known = Generations::default();
        accept(&mut known, 1, &[1], "one", &[]);
        accept(&mut known, 2, &[2], "two", &[1]);
        accept(&mut known, 1, &[1], "one", &[1]);
        accept(&mut known, 2, &[2], "", &[1]);
        assert_eq!(texts(&known), [(1, Some("one")), (2, Some("two"))]);
        accept(&mut known, 2, &[2], "two, with a comment", &[1]);
        assert_eq!(known.newest().text.as_deref(), Some("two, with a comment"));
    }

    #[test]
    fn the_last_ones_are_kept_and_no_more_bytes_of_text_than_may_be() {
        let mut known = Generations::default();
        let large = "x".repeat(GENERATION_TEXTS_BYTES_MAX / 2);
        let live: Vec<u32> = (1..=4).collect();
        for number in 1..=4 {
            accept(&mut known, number.into(), &[number], &large, &live);
        }
        let kept: Vec<u64> =
            known.all().iter().filter(|known| known.text.is_some()).map(|known| known.number).collect();
        assert_eq!(kept, [3, 4]);
        for number in 5..=40 {
            accept(&mut known, number, &[9], "small", &live);
        }
        let numbers = |known: &Generations| known.all().iter().map(|known| known.number).collect::<Vec<u64>>();
        let last: Vec<u64> = (21..=40).collect();
        assert_eq!(numbers(&known), [&[4], &*last].concat(), "what 4 is, an old one says alone");
        accept(&mut known, 3, &[3], "", &live);
        assert_eq!(numbers(&known), [&[4], &*last].concat(), "one that was forgotten is not there again");
        known.prune(&[9].into());
        assert_eq!(numbers(&known), last);
    }

    #[test]
    fn a_version_that_serves_on_is_known_however_many_configs_come() {
        let mut known = Generations::default();
        for number in 1..=50 {
            accept(&mut known, number, &[u32::try_from(number).unwrap()], &number.to_string(), &[2, 7]);
        }
        let of = |known: &Generations, version| known.text_for(version).map(ToString::to_string);
        assert_eq!((of(&known, 2).as_deref(), of(&known, 7).as_deref(), of(&known, 3)), (Some("2"), Some("7"), None));
        assert_eq!(known.all().len(), GENERATIONS_KEPT + 2);
        // Too many for so few places: the newest of them stay.
        let mut many = Generations::default();
        let live: Vec<u32> = (1..=50).collect();
        for number in 1..=100 {
            accept(&mut many, number, &[u32::try_from(number).unwrap()], &number.to_string(), &live);
        }
        assert_eq!(many.all().len(), 2 * GENERATIONS_KEPT);
        assert_eq!((of(&many, 30), of(&many, 31).as_deref()), (None, Some("31")));
    }
}
