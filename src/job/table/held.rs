//! Ready jobs that the version which takes new work may not run: they stand aside, and no attempt is spent on them.
//!
//! A job may name the version that it needs. Versions are compared by the order in which they were first accepted, which is
//! that of their numbers, and never by their labels. Of the ready jobs that name one, those that may go where the type's work
//! goes stand in its queue, at the place that they always had; the others are held. A job whose version is not known is held,
//! until one of that label is accepted. What is held follows from jobs, versions and routes, and is no record.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::{Illegal, Job, Noted, Table, TypeState, VersionRecord};
use crate::job::event::{Routed, VersionAccepted};
use crate::types::{Label, Seq};

/// What a job needs of which no version is known: more than any number.
const UNKNOWN: u64 = 1 << 32;

/// Which labels of a type were accepted, and the number of the first version of each.
pub(super) type FirstNumbers = BTreeMap<Label, u32>;

impl TypeState {
    /// The number of the first version that had this label; `None` if none is known.
    pub fn first_number(&self, label: &Label) -> Option<u32> {
        self.first.get(label).copied()
    }

    /// The labels of all its versions that are known, in the order in which they were accepted.
    pub fn labels(&self) -> Vec<Label> {
        let mut labels: Vec<(u32, &Label)> = self.first.iter().map(|(label, no)| (*no, label)).collect();
        labels.sort_unstable();
        labels.into_iter().map(|(_, label)| label.clone()).collect()
    }

    /// The lowest number of a version that may run a job; 0: any may.
    pub(super) fn need(&self, job: &Job) -> u64 {
        match job.min_version() {
            None => 0,
            Some(min) if min.version_no != 0 => u64::from(min.version_no),
            Some(min) => self.first_number(&min.label).map_or(UNKNOWN, u64::from),
        }
    }

    /// How many ready jobs are held, since the version that takes new work may not run them.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// Ready jobs that are held, which this version may run all the same: those that need the oldest version first.
    pub fn held_for(&self, version_no: u32) -> impl Iterator<Item = Seq> {
        let from = (u64::from(self.route) + 1, 0);
        let up_to = (u64::from(version_no.max(self.route)) + 1, 0);
        self.needy.range(from..up_to).map(|(_, born)| *born)
    }

    /// Puts a ready job that is not fresh where it waits.
    pub(super) fn put_ready(&mut self, born: Seq, job: &Job) {
        let need = self.need(job);
        if need > 0 {
            self.needy.insert((need, born));
        }
        if need > u64::from(self.route) {
            self.held += 1;
        } else {
            self.queue.insert_returned(job.priority, born);
        }
    }

    /// Takes a ready job that is not fresh out.
    pub(super) fn take_ready(&mut self, born: Seq, job: &Job) {
        let need = self.need(job);
        if need > 0 {
            self.needy.remove(&(need, born));
        }
        if need > u64::from(self.route) {
            self.held -= 1;
        } else {
            self.queue.remove_returned(job.priority, born);
        }
    }

    /// Work goes to another version now: what that may run is let go, what it may not run is held.
    fn set_route(&mut self, route: u32, noted: &Noted) {
        let before = std::mem::replace(&mut self.route, route);
        let bound = |no: u32| (u64::from(no) + 1, 0);
        let changed = self.needy.range(bound(before.min(route))..bound(before.max(route)));
        for (_, born) in changed {
            let Some(job) = noted.get(*born) else { continue };
            if route > before {
                self.held -= 1;
                self.queue.insert_returned(job.priority, *born);
            } else {
                self.held += 1;
                self.queue.remove_returned(job.priority, *born);
            }
        }
    }

    /// A label was accepted for the first time, as far as is known: those that wait for it know now what they wait for.
    pub(super) fn accepted(&mut self, label: &Label, no: u32, noted: &Noted) {
        let Entry::Vacant(place) = self.first.entry(label.clone()) else { return };
        place.insert(no);
        let unknown = self.needy.range((UNKNOWN, 0)..).filter_map(|(_, born)| Some((*born, noted.get(*born)?)));
        let waited = unknown.filter(|(_, job)| job.min_version().is_some_and(|min| min.label == *label));
        for (born, job) in waited.collect::<Vec<_>>() {
            self.needy.remove(&(UNKNOWN, born));
            self.held -= 1;
            self.put_ready(born, job);
        }
    }
}

impl Table {
    /// Whether a version of a job's type may run it, by the version that it needs.
    pub fn may_run(&self, job: &Job, version_no: u32) -> bool {
        let need = self.worker_type(job.type_no).map_or(0, |of_type| of_type.need(job));
        need <= u64::from(version_no)
    }

    /// The number of the version that a job needs, where that is known and its home record does not say it.
    pub fn known_need(&self, job: &Job) -> Option<u32> {
        let min = job.min_version().filter(|min| min.version_no == 0)?;
        self.worker_type(job.type_no)?.first_number(&min.label)
    }

    /// Whether a job is ready, and held: the version that takes its type's work may not run it.
    pub fn is_held(&self, job: &Job) -> bool {
        let route = self.worker_type(job.type_no).map_or(0, |of_type| of_type.route);
        job.state == crate::job::transition::State::Ready && !self.may_run(job, route)
    }

    pub(super) fn routed(&mut self, event: Routed) -> Result<(), Illegal> {
        let Some(of_type) = self.types.get_mut((event.type_no as usize).wrapping_sub(1)) else {
            return Err(Illegal::NoType(event.type_no));
        };
        let before = of_type.route;
        of_type.set_route(event.version_no, &self.noted);
        if before != 0 && before != event.version_no {
            of_type.previous = before;
        }
        if of_type.previous == of_type.route {
            of_type.previous = 0;
        }
        self.trust(event.version_no);
        self.prune_texts();
        Ok(())
    }

    pub(super) fn version_accepted(&mut self, event: &VersionAccepted<'_>) -> Result<(), Illegal> {
        let label: Label = event.label.parse().map_err(|_| Illegal::BadName(event.label.to_owned()))?;
        if let Some(of_type) = self.types.get_mut((event.type_no as usize).wrapping_sub(1)) {
            of_type.accepted(&label, event.no, &self.noted);
        }
        let (rejected, quarantined) = (false, None);
        let VersionAccepted { type_no, hash, at, .. } = *event;
        let version = VersionRecord { type_no, label, hash, at, rejected, quarantined };
        self.versions.entry(event.no).or_insert(version);
        Ok(())
    }
}
