//! One line of a queue: a type's ready jobs of one priority, by born seq.
//!
//! Pure. Most jobs come in order and leave from the front: these are fresh, and wait in chunks. The front is decoded, the
//! back is being written, and what lies between is only moved about. Those that came back (after a failed attempt, a
//! pause, an interrupt) stand in the table with all that is known of them, and here by their born seq.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::chunk::{CHUNK_JOBS, Chunk, ChunkWriter, Fresh};
use crate::types::Seq;

/// The line.
#[derive(Debug, Default, Clone)]
pub struct Line {
    /// The oldest fresh jobs.
    front: VecDeque<Fresh>,
    /// Younger ones.
    between: VecDeque<Stretch>,
    /// Which of these is open, if one is.
    open: Option<usize>,
    /// The youngest ones.
    back: ChunkWriter,
    fresh: u64,
    returned: BTreeSet<Seq>,
}

/// Some jobs between front and back, never none.
#[derive(Debug, Clone)]
enum Stretch {
    Kept(Arc<Chunk>),
    /// Decoded, for as long as changes go on in it: what is restated one after the other mostly stands together.
    Open(Vec<Fresh>),
}

impl Stretch {
    fn first(&self) -> Seq {
        match self {
            Self::Kept(chunk) => chunk.first(),
            Self::Open(jobs) => jobs.first().map_or(0, |job| job.born),
        }
    }

    fn last(&self) -> Seq {
        match self {
            Self::Kept(chunk) => chunk.last(),
            Self::Open(jobs) => jobs.last().map_or(0, |job| job.born),
        }
    }

    fn jobs(&self) -> u64 {
        match self {
            Self::Kept(chunk) => chunk.jobs() as u64,
            Self::Open(jobs) => jobs.len() as u64,
        }
    }

    fn decode(&self) -> Vec<Fresh> {
        match self {
            Self::Kept(chunk) => chunk.decode(),
            Self::Open(jobs) => jobs.clone(),
        }
    }

    fn as_chunk(&self) -> Option<Arc<Chunk>> {
        match self {
            Self::Kept(chunk) => Some(Arc::clone(chunk)),
            Self::Open(jobs) => Chunk::of(jobs),
        }
    }

    fn get(&self, born: Seq) -> Option<Fresh> {
        match self {
            Self::Kept(chunk) => find(&chunk.decode(), born),
            Self::Open(jobs) => find(jobs, born),
        }
    }
}

/// The part of a line in which a fresh job stands, or would stand.
enum Part {
    Front,
    Between(usize),
    Back,
}

impl Line {
    /// How many fresh jobs are in it.
    pub fn fresh(&self) -> u64 {
        self.fresh
    }

    /// How many jobs are in it.
    pub fn len(&self) -> u64 {
        self.fresh + self.returned.len() as u64
    }

    /// Whether none is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many of them are older than this seq.
    pub fn before(&self, born: Seq) -> u64 {
        let older = |jobs: &[Fresh]| jobs.partition_point(|job| job.born < born) as u64;
        let front = self.front.partition_point(|job| job.born < born) as u64;
        let between = self.between.iter().take_while(|stretch| stretch.first() < born);
        let between =
            between.map(|stretch| if stretch.last() < born { stretch.jobs() } else { older(&stretch.decode()) });
        let back = if self.back.first() < born { older(&self.back.decode()) } else { 0 };
        front + between.sum::<u64>() + back + self.returned.range(..born).count() as u64
    }

    /// Adds a job that came back.
    pub fn insert_returned(&mut self, born: Seq) {
        self.returned.insert(born);
    }

    /// Takes a job out that came back; `false` if it was not in.
    pub fn remove_returned(&mut self, born: Seq) -> bool {
        self.returned.remove(&born)
    }

    /// The oldest.
    pub fn first(&self) -> Option<Seq> {
        let fresh = self.first_fresh();
        match (fresh, self.returned.first().copied()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// The oldest fresh one.
    pub fn first_fresh(&self) -> Option<Seq> {
        // The front is never empty while there is a fresh job.
        self.front.front().map(|job| job.born)
    }

    fn part_of(&self, born: Seq) -> Part {
        if self.back.jobs() > 0 && born >= self.back.first() {
            return Part::Back;
        }
        let at = self.between.partition_point(|stretch| stretch.last() < born);
        match self.between.get(at) {
            Some(stretch) if at > 0 || born >= stretch.first() => Part::Between(at),
            Some(_) => Part::Front,
            // Between the chunks and the back: the last chunk takes it, if there is one.
            None if self.back.jobs() > 0 && at > 0 => Part::Between(at - 1),
            None if at > 0 => Part::Back,
            None => Part::Front,
        }
    }

    /// Born seq of the youngest fresh job; 0 if there is none.
    fn youngest(&self) -> Seq {
        let between = self.between.back().map(Stretch::last);
        let front = self.front.back().map(|job| job.born);
        if self.back.jobs() > 0 { self.back.last() } else { between.or(front).unwrap_or(0) }
    }

    /// Adds a fresh job.
    pub fn insert(&mut self, job: Fresh) {
        self.fresh += 1;
        if job.born > self.youngest() {
            if self.between.is_empty() && self.back.jobs() == 0 && self.front.len() < CHUNK_JOBS {
                return self.front.push_back(job);
            }
            self.back.push(&job);
            if self.back.jobs() == CHUNK_JOBS {
                self.between.extend(self.back.finish().map(Stretch::Kept));
            }
            return;
        }
        match self.part_of(job.born) {
            Part::Front => self.insert_into_front(job),
            Part::Between(at) => self.change_between(at, |jobs| insert_sorted(jobs, job)),
            Part::Back => self.change_back(|jobs| insert_sorted(jobs, job)),
        }
    }

    fn insert_into_front(&mut self, job: Fresh) {
        let at = self.front.partition_point(|other| other.born < job.born);
        self.front.insert(at, job);
        if self.front.len() > 2 * CHUNK_JOBS {
            let younger: Vec<Fresh> = self.front.split_off(CHUNK_JOBS).into();
            if let Some(chunk) = Chunk::of(&younger) {
                self.between.push_front(Stretch::Kept(chunk));
                self.open = self.open.map(|at| at + 1);
            }
        }
    }

    /// A fresh job.
    pub fn get(&self, born: Seq) -> Option<Fresh> {
        match self.part_of(born) {
            Part::Front => {
                let at = self.front.binary_search_by_key(&born, |job| job.born).ok()?;
                self.front.get(at).copied()
            }
            Part::Between(at) => self.between.get(at)?.get(born),
            Part::Back => find(&self.back.decode(), born),
        }
    }

    /// Takes a fresh job out.
    pub fn remove(&mut self, born: Seq) -> Option<Fresh> {
        let removed = if self.first_fresh() == Some(born) {
            self.front.pop_front()
        } else {
            match self.part_of(born) {
                Part::Front => {
                    let at = self.front.binary_search_by_key(&born, |job| job.born).ok()?;
                    self.front.remove(at)
                }
                Part::Between(at) => self.change_between(at, |jobs| remove_sorted(jobs, born)),
                Part::Back => self.change_back(|jobs| remove_sorted(jobs, born)),
            }
        }?;
        self.fresh -= 1;
        self.refill();
        Some(removed)
    }

    /// Puts a fresh job in the place of one with the same born seq, which is returned; nothing changes if there is none.
    pub fn replace(&mut self, job: Fresh) -> Option<Fresh> {
        let place = |jobs: &mut [Fresh]| {
            let at = jobs.binary_search_by_key(&job.born, |other| other.born).ok()?;
            Some(std::mem::replace(jobs.get_mut(at)?, job))
        };
        match self.part_of(job.born) {
            Part::Front => place(self.front.make_contiguous()),
            Part::Between(at) => self.change_between(at, |jobs| place(jobs)),
            Part::Back => self.change_back(|jobs| place(jobs)),
        }
    }

    /// Decodes the next ones where the front is empty.
    fn refill(&mut self) {
        if !self.front.is_empty() {
            return;
        }
        if let Some(stretch) = self.between.pop_front() {
            self.front.extend(stretch.decode());
            self.open = self.open.and_then(|at| at.checked_sub(1));
        } else if self.back.jobs() > 0 {
            self.front.extend(self.back.decode());
            self.back = ChunkWriter::default();
        } else {
            // A line that was long and is empty gives its memory back.
            self.front.shrink_to(CHUNK_JOBS);
        }
    }

    fn change_between<T: Default>(&mut self, at: usize, change: impl FnOnce(&mut Vec<Fresh>) -> T) -> T {
        if self.open != Some(at) {
            self.close();
            if let Some(stretch) = self.between.get_mut(at) {
                *stretch = Stretch::Open(stretch.decode());
                self.open = Some(at);
            }
        }
        let Some(Stretch::Open(jobs)) = self.between.get_mut(at) else { return T::default() };
        let done = change(jobs);
        if jobs.is_empty() {
            self.between.remove(at);
            self.open = None;
        } else if jobs.len() > 2 * CHUNK_JOBS {
            let younger = jobs.split_off(CHUNK_JOBS);
            self.close();
            self.between.insert(at + 1, Stretch::Open(younger));
            self.open = Some(at + 1);
        }
        done
    }

    /// Encodes the open stretch.
    fn close(&mut self) {
        if let Some(stretch) = self.open.take().and_then(|at| self.between.get_mut(at))
            && let Some(chunk) = stretch.as_chunk()
        {
            *stretch = Stretch::Kept(chunk);
        }
    }

    fn change_back<T>(&mut self, change: impl FnOnce(&mut Vec<Fresh>) -> T) -> T {
        let mut jobs = self.back.decode();
        let done = change(&mut jobs);
        self.back = ChunkWriter::default();
        for job in &jobs {
            self.back.push(job);
            if self.back.jobs() == CHUNK_JOBS {
                self.between.extend(self.back.finish().map(Stretch::Kept));
            }
        }
        done
    }

    /// All fresh jobs, oldest first.
    pub fn fresh_jobs(&self) -> impl Iterator<Item = Fresh> {
        let between = self.between.iter().flat_map(Stretch::decode);
        self.front.iter().copied().chain(between).chain(std::iter::once(()).flat_map(|()| self.back.decode()))
    }

    /// All fresh jobs as chunks, oldest first: a picture that later changes do not touch.
    pub fn picture(&self) -> Vec<Arc<Chunk>> {
        let front: Vec<Fresh> = self.front.iter().copied().collect();
        let back = self.back.clone().finish();
        let between = self.between.iter().filter_map(Stretch::as_chunk);
        front.chunks(CHUNK_JOBS).filter_map(Chunk::of).chain(between).chain(back).collect()
    }

    /// Adds a chunk of fresh jobs that was kept; `None` if they are not younger than all that are in it. What is decoded at
    /// once is looked through, the rest when it is its turn.
    pub fn extend(&mut self, chunk: Arc<Chunk>) -> Option<()> {
        let back = (self.back.jobs() > 0).then(|| self.back.last());
        let youngest =
            back.or_else(|| self.between.back().map(Stretch::last)).or(self.front.back().map(|job| job.born));
        let fits = youngest.is_none_or(|youngest| youngest < chunk.first()) && chunk.first() <= chunk.last();
        let whole = youngest.is_some() || chunk.looked_through().is_some();
        if !fits || !whole || chunk.jobs() == 0 {
            return None;
        }
        self.fresh += chunk.jobs() as u64;
        self.between.extend(self.back.finish().map(Stretch::Kept));
        self.between.push_back(Stretch::Kept(chunk));
        self.refill();
        Some(())
    }
}

fn find(jobs: &[Fresh], born: Seq) -> Option<Fresh> {
    jobs.binary_search_by_key(&born, |job| job.born).ok().and_then(|at| jobs.get(at)).copied()
}

fn insert_sorted(jobs: &mut Vec<Fresh>, job: Fresh) {
    let at = jobs.partition_point(|other| other.born < job.born);
    jobs.insert(at, job);
}

fn remove_sorted(jobs: &mut Vec<Fresh>, born: Seq) -> Option<Fresh> {
    let at = jobs.binary_search_by_key(&born, |job| job.born).ok()?;
    Some(jobs.remove(at))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::job::event::Home;

    fn job(born: Seq, home: Seq) -> Fresh {
        Fresh {
            born,
            home: Home { seq: born + home, segment: 1, offset: 64, body: 7 },
            created_ms: 5,
            ready_ms: born % 3 * 1000,
            max_attempts: 3,
            named: born.is_multiple_of(2),
            tenant: u16::try_from(born % 5).unwrap(),
        }
    }

    /// A line that holds what the model holds.
    fn same(line: &Line, model: &BTreeMap<Seq, Fresh>) {
        assert_eq!(line.fresh(), model.len() as u64);
        assert_eq!(line.first(), model.keys().next().copied());
        assert!(line.fresh_jobs().eq(model.values().copied()));
        assert_eq!(line.len(), line.fresh());
        let at = model.len() / 2;
        let before = model.keys().nth(at).map_or(0, |born| line.before(*born));
        assert_eq!([before, line.before(Seq::MAX)], [at as u64, line.len()]);
    }

    /// Steps at most, and how large each is: less of both for Miri, and still some chunks.
    const STEPS: usize = if cfg!(miri) { 10 } else { 60 };
    const SIZE: u64 = if cfg!(miri) { 1200 } else { 3000 };

    proptest! {
        #[test]
        fn a_line_is_a_sorted_map(steps in prop::collection::vec((0_u8..8, 0..SIZE, 0_u64..4), 1..STEPS), seed in 1_u64..1000) {
            let (mut line, mut model, mut next) = (Line::default(), BTreeMap::new(), 1_000_u64);
            for (what, number, step) in steps {
                match what {
                    // Many in order.
                    0 | 1 => for _ in 0..number / 4 {
                        next += 1 + step;
                        line.insert(job(next, 0));
                        model.insert(next, job(next, 0));
                    },
                    // Many from the front.
                    2 => for _ in 0..number / 4 {
                        let first = line.first();
                        prop_assert_eq!(first, model.keys().next().copied());
                        if let Some(first) = first {
                            prop_assert_eq!(line.remove(first), model.remove(&first));
                        }
                    },
                    // One from anywhere, or none.
                    3 | 4 => {
                        let born = 1000 + number * seed % (next - 999);
                        prop_assert_eq!(line.get(born), model.get(&born).copied());
                        prop_assert_eq!(line.remove(born), model.remove(&born));
                    }
                    // Some out of order.
                    5 => for n in 0..number / 8 {
                        let born = 1 + (number + n) * seed % (next + 10);
                        if let std::collections::btree_map::Entry::Vacant(place) = model.entry(born) {
                            line.insert(job(born, 0));
                            place.insert(job(born, 0));
                            next = next.max(born);
                        }
                    },
                    // One at another home.
                    _ => {
                        let at = usize::try_from(number).unwrap() % model.len().max(1);
                        let born = model.keys().nth(at).copied().unwrap_or(1);
                        let moved = job(born, 1 + number);
                        prop_assert_eq!(line.replace(moved), model.get(&born).copied());
                        model.entry(born).and_modify(|old| *old = moved);
                    }
                }
                same(&line, &model);
            }
            let mut again = Line::default();
            line.picture().into_iter().for_each(|chunk| again.extend(chunk).unwrap());
            same(&again, &model);
        }
    }

    #[test]
    fn a_picture_stays_as_it_was() {
        let mut line = Line::default();
        let jobs = if cfg!(miri) { 600 } else { 2000 };
        (1..=jobs).for_each(|born| line.insert(job(born, 0)));
        let picture = line.picture();
        (1..=jobs).for_each(|born| assert_eq!(line.remove(born).map(|job| job.born), Some(born)));
        assert_eq!(picture.iter().map(|chunk| chunk.jobs()).sum::<usize>() as u64, jobs);
        assert_eq!(line.first(), None);
    }
}
