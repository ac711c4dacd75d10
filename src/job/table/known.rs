//! What the table knows besides jobs: types, versions, and the accepted config; plain values.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::held::FirstNumbers;
use super::{Illegal, Table, tail_of};
use crate::job::event::{Event, Ramped, Totals};
use crate::job::queue::{Fresh, Queue};
use crate::job::transition::State;
use crate::limits::ERROR_BYTES_KEPT;
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
    /// Version that new work went to before that; 0: none.
    pub previous: u32,
    /// The version that is on trial, and its share.
    pub ramp: Option<Ramped>,
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
            previous: 0,
            ramp: None,
            paused_since: 0,
        }
    }

    /// The version on trial and the one before, as a record says it again; `None` if there is neither.
    pub fn trial(&self, type_no: u32) -> Option<Ramped> {
        let none = (self.previous != 0).then(|| Ramped { type_no, previous: self.previous, ..Ramped::default() });
        self.ramp.or(none).map(|ramp| Ramped { previous: self.previous, ..ramp })
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// As long as it is out of service.
    pub quarantined: Option<Quarantine>,
}

/// Why a version is out of service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// Since when.
    pub at: UnixMs,
    /// What speaks against it, in words.
    pub why: Box<str>,
}

impl Table {
    /// Takes an event over that is about no job.
    pub(super) fn apply_known(&mut self, event: &Event<'_>) -> Result<(), Illegal> {
        match event {
            Event::TypeNamed(event) => self.type_named(event.no, event.name),
            Event::VersionAccepted(event) => self.version_accepted(event),
            Event::VersionRejected(event, _) => {
                if let Some(version) = self.versions.get_mut(&event.no) {
                    version.rejected = true;
                }
                Ok(())
            }
            Event::Generation(event, text) => {
                self.generations.accepted(event, text);
                self.prune_texts();
                Ok(())
            }
            Event::Settled(event) => {
                self.generations.settled(event);
                Ok(())
            }
            Event::Routed(event) => self.routed(*event),
            Event::Quarantined(event, why) => {
                if let Some(version) = self.versions.get_mut(&event.no) {
                    let why = tail_of(&String::from_utf8_lossy(why), ERROR_BYTES_KEPT).into();
                    version.quarantined = Some(Quarantine { at: event.at, why });
                }
                Ok(())
            }
            Event::Ramped(event) => {
                let of_type = self.type_mut(event.type_no)?;
                of_type.ramp = (event.version_no != 0).then_some(Ramped { previous: 0, ..*event });
                of_type.previous = event.previous;
                self.trust(event.version_no);
                self.prune_texts();
                Ok(())
            }
            Event::Totals(totals) => {
                self.type_mut(totals.type_no)?.totals = *totals;
                Ok(())
            }
            Event::Paused(event) => {
                self.type_mut(event.type_no)?.paused_since = event.since;
                Ok(())
            }
            // All others are about jobs, or about the process.
            _ => Ok(()),
        }
    }

    /// A version gets work: whatever was held against it is over.
    pub(super) fn trust(&mut self, version_no: u32) {
        if let Some(version) = self.versions.get_mut(&version_no) {
            (version.rejected, version.quarantined) = (false, None);
        }
    }

    fn type_named(&mut self, no: u32, name: &str) -> Result<(), Illegal> {
        let name: WorkerType = name.parse().map_err(|_| Illegal::BadName(name.to_owned()))?;
        if self.type_numbers.get(&name) == Some(&no) {
            return Ok(());
        }
        if no as usize != self.types.len() + 1 || self.type_numbers.contains_key(&name) {
            return Err(Illegal::NoType(no));
        }
        self.type_numbers.insert(name.clone(), no);
        let totals = Totals { type_no: no, ..Totals::default() };
        self.types.push(TypeState::new(name, totals));
        Ok(())
    }
}
