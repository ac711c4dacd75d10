//! The order in which a type's ready jobs are served.
//!
//! Pure. Fresh jobs wait here, in some bytes each; those that came back wait in the table, and stand here by their seq.

mod chunk;
mod line;

pub use chunk::{Chunk, Fresh};
pub use line::Line;

use std::cmp::Ordering;
use std::sync::Arc;

use crate::limits::{OLDEST_EVERY, PRIORITY_MAX};
use crate::types::{Priority, Seq};

/// Lines of a queue.
const LINES: usize = PRIORITY_MAX as usize + 1;

/// A type's ready jobs: by priority, then by born seq; one pick in ten takes the oldest of all.
#[derive(Debug, Default)]
pub struct Queue {
    lines: [Line; LINES],
    len: u64,
    picks: u32,
}

impl Queue {
    /// How many are ready.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether none is ready.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many of them are fresh.
    pub fn fresh(&self) -> u64 {
        self.lines.iter().map(Line::fresh).sum()
    }

    fn line(&mut self, priority: Priority) -> Option<&mut Line> {
        self.lines.get_mut(usize::from(priority.get()))
    }

    /// Adds a fresh job.
    pub fn insert(&mut self, priority: Priority, job: Fresh) {
        if let Some(line) = self.line(priority) {
            line.insert(job);
            self.len += 1;
        }
    }

    /// Adds a job that came back.
    pub fn insert_returned(&mut self, priority: Priority, born: Seq) {
        if let Some(line) = self.line(priority) {
            line.insert_returned(born);
            self.len += 1;
        }
    }

    /// Takes a job out that came back; `false` if it was not in.
    pub fn remove_returned(&mut self, priority: Priority, born: Seq) -> bool {
        let removed = self.line(priority).is_some_and(|line| line.remove_returned(born));
        self.len -= u64::from(removed);
        removed
    }

    /// A fresh job, and its priority.
    pub fn get(&self, born: Seq) -> Option<(Priority, Fresh)> {
        self.by_priority().find_map(|(priority, line)| Some((priority, line.get(born)?)))
    }

    /// Takes a fresh job out.
    pub fn remove(&mut self, born: Seq) -> Option<(Priority, Fresh)> {
        // Most leave from the front of their line.
        let front = self.by_priority().find(|(_, line)| line.first() == Some(born)).map(|(priority, _)| priority);
        let found = match front.and_then(|priority| Some((priority, self.line(priority)?.remove(born)?))) {
            Some(found) => Some(found),
            None => {
                self.lines.iter_mut().zip(0..).find_map(|(line, no)| Some((Priority::new(no)?, line.remove(born)?)))
            }
        };
        self.len -= u64::from(found.is_some());
        found
    }

    /// Puts a fresh job in the place of one with the same born seq, which is returned; nothing changes if there is none.
    pub fn replace(&mut self, priority: Priority, job: Fresh) -> Option<Fresh> {
        self.line(priority)?.replace(job)
    }

    /// How many come before a job of this priority, by priority and age.
    pub fn ahead(&self, priority: Priority, born: Seq) -> u64 {
        let count = |(of, line): (Priority, &Line)| match of.get().cmp(&priority.get()) {
            Ordering::Less => 0,
            Ordering::Equal => line.before(born),
            Ordering::Greater => line.len(),
        };
        self.by_priority().map(count).sum()
    }

    /// Its lines.
    pub fn by_priority(&self) -> impl Iterator<Item = (Priority, &Line)> {
        self.lines.iter().zip(0..).filter_map(|(line, no)| Some((Priority::new(no)?, line)))
    }

    /// Adds a chunk of fresh jobs that was kept; `None` if they are not younger than those that are in their line.
    pub fn extend(&mut self, priority: Priority, chunk: Arc<Chunk>) -> Option<()> {
        let jobs = chunk.jobs() as u64;
        self.line(priority)?.extend(chunk)?;
        self.len += jobs;
        Some(())
    }

    /// The oldest.
    pub fn oldest(&self) -> Option<Seq> {
        self.lines.iter().filter_map(Line::first).min()
    }

    /// The next to be served; the caller removes it. Counts as a pick.
    pub fn pick(&mut self) -> Option<Seq> {
        self.picks = (self.picks + 1) % OLDEST_EVERY;
        if self.picks == 0 { self.oldest() } else { self.lines.iter().rev().find_map(Line::first) }
    }

    /// Any job, while there is one.
    pub fn any(&self) -> Option<Seq> {
        self.lines.iter().rev().find_map(Line::first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh(born: Seq) -> Fresh {
        Fresh { born, ..Fresh::default() }
    }

    fn drain(queue: &mut Queue) -> Vec<Seq> {
        std::iter::from_fn(|| {
            let born = queue.pick()?;
            assert!(queue.remove(born).is_some() || queue.remove_returned(Priority::default(), born));
            Some(born)
        })
        .collect()
    }

    #[test]
    fn the_highest_priority_goes_first_and_the_oldest_never_starves() {
        let priority = |born: Seq| Priority::new(if born < 3 { 0 } else { 9 }).unwrap();
        let mut queue = Queue::default();
        for born in 1..=30 {
            queue.insert(priority(born), fresh(born));
        }
        assert_eq!(queue.get(2).map(|(priority, _)| priority), Some(priority(2)));
        let order = drain(&mut queue);
        assert_eq!(order[..9], [3, 4, 5, 6, 7, 8, 9, 10, 11]);
        assert_eq!(order[9], 1, "the tenth pick takes the oldest");
        assert_eq!(order.len(), 30);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_job_that_came_back_stands_at_its_old_place() {
        let mut queue = Queue::default();
        for born in [4, 5, 6] {
            queue.insert(Priority::default(), fresh(born));
        }
        queue.insert_returned(Priority::default(), 2);
        assert!(queue.remove(5).is_some());
        assert!(queue.remove(5).is_none());
        let ahead = |priority, born| queue.ahead(Priority::new(priority).unwrap(), born);
        let own = Priority::default().get();
        assert_eq!([2, 4, 6, 7].map(|born| ahead(own, born)), [0, 1, 2, 3]);
        assert_eq!((ahead(own + 1, 7), ahead(own - 1, 1)), (0, 3), "a higher priority goes first, whatever its age");
        assert_eq!(drain(&mut queue), [2, 4, 6]);
    }
}
