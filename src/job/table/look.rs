//! Looking at the table: nothing here changes a job.

use std::collections::BTreeSet;

use super::{GenerationRecord, Job, Table, TypeState, VersionRecord};
use crate::job::event::Restated;
use crate::job::ids::IdIndex;
use crate::job::transition::State;
use crate::types::{Seq, UnixMs};

/// Looking at the table.
impl Table {
    /// A live job.
    pub fn job(&self, born: Seq) -> Option<&Job> {
        self.jobs.get(&born)
    }

    /// All live jobs, in no order.
    pub fn jobs(&self) -> impl Iterator<Item = (Seq, &Job)> {
        self.jobs.iter().map(|(born, job)| (*born, job))
    }

    /// How many jobs are alive.
    pub fn live_jobs(&self) -> u64 {
        self.jobs.len() as u64
    }

    /// Bytes of the records that hold the live jobs' payloads.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// The number of a type.
    pub fn type_no(&self, name: &str) -> Option<u32> {
        self.type_numbers.get(name).copied()
    }

    /// A type by its number.
    pub fn worker_type(&self, no: u32) -> Option<&TypeState> {
        self.types.get((no as usize).wrapping_sub(1))
    }

    /// All types with their numbers.
    pub fn types(&self) -> impl Iterator<Item = (u32, &TypeState)> {
        (1..).zip(&self.types)
    }

    /// The next ready job of a type to be served; it stays ready until an event says otherwise.
    pub fn pick(&mut self, type_no: u32) -> Option<Seq> {
        self.type_mut(type_no).ok()?.queue.pick()
    }

    /// A version by its number.
    pub fn version(&self, no: u32) -> Option<&VersionRecord> {
        self.versions.get(&no)
    }

    /// All versions, by number.
    pub fn versions(&self) -> impl Iterator<Item = (u32, &VersionRecord)> {
        self.versions.iter().map(|(no, version)| (*no, version))
    }

    /// The newest accepted config.
    pub fn generation(&self) -> &GenerationRecord {
        &self.generation
    }

    /// The index of chosen ids and keys.
    pub fn ids(&self) -> &IdIndex {
        &self.ids
    }

    /// The next moment at which something follows from the clock: a job ripens or expires.
    pub fn next_moment(&self) -> Option<UnixMs> {
        let first = |set: &BTreeSet<(UnixMs, Seq)>| set.first().map(|(at, _)| *at);
        [first(&self.delayed), first(&self.expiring)].into_iter().flatten().min()
    }

    /// A job whose time had passed at `now`.
    pub fn expired(&self, now: UnixMs) -> Option<Seq> {
        self.expiring.first().filter(|(at, _)| *at <= now).map(|(_, born)| *born)
    }

    /// The dead job that died first, and when.
    pub fn oldest_dead(&self) -> Option<(UnixMs, Seq)> {
        self.dead.first().copied()
    }

    /// How many jobs are dead.
    pub fn dead_jobs(&self) -> usize {
        self.dead.len()
    }

    /// Born seqs of all jobs of a type in one of these states, ascending.
    pub fn jobs_in(&self, type_no: u32, states: &[State]) -> Vec<Seq> {
        let of_type = self.jobs.iter().filter(|(_, job)| job.type_no == type_no && states.contains(&job.state));
        let mut born: Vec<Seq> = of_type.map(|(born, _)| *born).collect();
        born.sort_unstable();
        born
    }

    /// Whether the last process that had the log stopped in good order; true for a new log.
    pub fn stopped_cleanly(&self) -> bool {
        self.clean_stop
    }

    /// Jobs that died in the last opening, because the process had ended under them too often.
    pub fn died_at_opening(&self) -> &[Seq] {
        &self.died_at_opening
    }

    /// A live job's whole state, as an event.
    pub fn restate(&self, born: Seq) -> Option<Restated> {
        let job = self.jobs.get(&born)?;
        Some(Restated {
            born,
            state: job.state,
            attempts: job.attempts,
            given_back: job.given_back,
            ready_ms: job.ready_ms,
            fence: job.fence,
            version_no: job.version_no,
            since_ms: job.since_ms,
            failures: job.failures().to_vec(),
        })
    }
}
