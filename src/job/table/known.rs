//! What the table knows besides jobs: types, versions, and the accepted config; plain values.

use std::collections::BTreeSet;

use super::held::FirstNumbers;
use crate::job::event::Totals;
use crate::job::queue::{Fresh, Queue};
use crate::job::transition::State;
use crate::types::{Label, Priority, Seq, UnixMs, WorkerType};

/// A worker type that was ever known here.
#[derive(Debug)]
pub struct TypeState {
    /// Its name.
    pub name: WorkerType,
    /// Its ready jobs, but for those that are held.
    pub queue: Queue,
    /// Its ready jobs that need a version, held or not, by the number of that one.
    pub(super) needy: BTreeSet<(u64, Seq)>,
    /// How many of them are held.
    pub(super) held: u64,
    /// The first version of each label.
    pub(super) first: FirstNumbers,
    /// Its delayed jobs that wait as they came, and when each delayed one of all kinds is due.
    pub(super) later: Queue,
    /// See `later`.
    pub(super) due: BTreeSet<(UnixMs, Seq)>,
    /// Its delayed, reserved and dead jobs.
    pub delayed: u64,
    /// See `delayed`.
    pub reserved: u64,
    /// See `delayed`.
    pub dead: u64,
    /// Its counters.
    pub totals: Totals,
    /// Version that new work goes to, as recorded; 0: none.
    pub route: u32,
    /// Since when it is paused; 0: it is not.
    pub paused_since: UnixMs,
}

impl TypeState {
    /// A type without jobs, whose work goes nowhere.
    pub(super) fn new(name: WorkerType, totals: Totals) -> Self {
        Self {
            name,
            queue: Queue::default(),
            needy: BTreeSet::new(),
            held: 0,
            first: FirstNumbers::new(),
            later: Queue::default(),
            due: BTreeSet::new(),
            delayed: 0,
            reserved: 0,
            dead: 0,
            totals,
            route: 0,
            paused_since: 0,
        }
    }

    /// Puts a fresh job where it waits.
    pub(super) fn put_fresh(&mut self, priority: Priority, state: State, fresh: Fresh) {
        if state == State::Delayed {
            self.later.insert(priority, fresh);
            self.due.insert((fresh.ready_ms, fresh.born));
            self.delayed += 1;
        } else {
            self.queue.insert(priority, fresh);
        }
    }

    /// The delayed jobs that are due by now, ascending.
    pub(super) fn due_by(&self, now: UnixMs) -> Vec<Seq> {
        let due = self.due.iter().take_while(|(ready_ms, _)| *ready_ms <= now);
        let mut born: Vec<Seq> = due.map(|(_, born)| *born).collect();
        born.sort_unstable();
        born
    }
}

/// A version that was ever accepted here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionRecord {
    /// Its type.
    pub type_no: u32,
    /// Its label as shown.
    pub label: Label,
    /// Hash over what defines it.
    pub hash: [u8; 32],
    /// When it was accepted.
    pub at: UnixMs,
    /// Whether it could not start when it was tried last.
    pub rejected: bool,
}
