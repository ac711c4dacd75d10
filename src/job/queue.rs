//! The order in which a type's ready jobs are served.

use std::collections::{BTreeSet, VecDeque};

use crate::limits::{OLDEST_EVERY, PRIORITY_MAX};
use crate::types::{Priority, Seq};

/// Ready jobs of one type and priority, by born seq. Most come in order and leave from the front.
#[derive(Debug, Default)]
struct Line {
    in_order: VecDeque<Seq>,
    /// Those that came back, with later ones in line already.
    returned: BTreeSet<Seq>,
}

impl Line {
    fn insert(&mut self, born: Seq) {
        if self.in_order.back().is_none_or(|last| *last < born) {
            self.in_order.push_back(born);
        } else {
            self.returned.insert(born);
        }
    }

    fn first(&self) -> Option<Seq> {
        match (self.in_order.front(), self.returned.first()) {
            (Some(a), Some(b)) => Some(*a.min(b)),
            (a, b) => a.or(b).copied(),
        }
    }

    fn remove(&mut self, born: Seq) -> bool {
        if self.in_order.front() == Some(&born) {
            self.in_order.pop_front();
            return true;
        }
        if self.returned.remove(&born) {
            return true;
        }
        self.in_order.binary_search(&born).is_ok_and(|at| self.in_order.remove(at).is_some())
    }
}

/// A type's ready jobs: by priority, then by born seq; one pick in ten takes the oldest of all.
#[derive(Debug, Default)]
pub struct Queue {
    lines: [Line; PRIORITY_MAX as usize + 1],
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

    /// Adds a job.
    pub fn insert(&mut self, priority: Priority, born: Seq) {
        if let Some(line) = self.lines.get_mut(usize::from(priority.get())) {
            line.insert(born);
            self.len += 1;
        }
    }

    /// Takes a job out; `false` if it was not in.
    pub fn remove(&mut self, priority: Priority, born: Seq) -> bool {
        let removed = self.lines.get_mut(usize::from(priority.get())).is_some_and(|line| line.remove(born));
        self.len -= u64::from(removed);
        removed
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

    fn drain(queue: &mut Queue, priority_of: impl Fn(Seq) -> Priority) -> Vec<Seq> {
        std::iter::from_fn(|| {
            let born = queue.pick()?;
            assert!(queue.remove(priority_of(born), born));
            Some(born)
        })
        .collect()
    }

    #[test]
    fn the_highest_priority_goes_first_and_the_oldest_never_starves() {
        let priority = |born: Seq| Priority::new(if born < 3 { 0 } else { 9 }).unwrap();
        let mut queue = Queue::default();
        for born in 1..=30 {
            queue.insert(priority(born), born);
        }
        let order = drain(&mut queue, priority);
        assert_eq!(order[..9], [3, 4, 5, 6, 7, 8, 9, 10, 11]);
        assert_eq!(order[9], 1, "the tenth pick takes the oldest");
        assert_eq!(order.len(), 30);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_job_that_came_back_stands_at_its_old_place() {
        let mut queue = Queue::default();
        for born in [4, 5, 6] {
            queue.insert(Priority::default(), born);
        }
        queue.insert(Priority::default(), 2);
        assert!(queue.remove(Priority::default(), 5));
        assert!(!queue.remove(Priority::default(), 5));
        assert_eq!(drain(&mut queue, |_| Priority::default()), [2, 4, 6]);
    }
}
