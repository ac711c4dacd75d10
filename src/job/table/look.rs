//! Looking at the table: nothing here changes a job.

use std::collections::BTreeSet;

use super::{Job, Table, TypeState, VersionRecord};
use crate::job::ids::IdIndex;
use crate::job::queue::{Fresh, Line, Queue};
use crate::job::transition::State;
use crate::types::{Seq, UnixMs};

/// Looking at the table.
impl Table {
    /// A live job.
    pub fn job(&self, born: Seq) -> Option<Job> {
        self.noted(born).cloned().or_else(|| self.types().find_map(|(no, of_type)| fresh(of_type, no, born)))
    }

    /// A live job of a type: found sooner.
    pub fn job_of(&self, type_no: u32, born: Seq) -> Option<Job> {
        let fresh = || fresh(self.worker_type(type_no)?, type_no, born);
        self.noted(born).filter(|job| job.type_no == type_no).cloned().or_else(fresh)
    }

    /// A live job that is not fresh: every one that is reserved or dead, and some that are ready or delayed.
    pub fn noted(&self, born: Seq) -> Option<&Job> {
        self.noted.get(born)
    }

    /// All live jobs, in no order.
    pub fn jobs(&self) -> impl Iterator<Item = (Seq, Job)> {
        let fresh = self.types().flat_map(|(no, of_type)| {
            [(&of_type.queue, State::Ready), (&of_type.later, State::Delayed)].into_iter().flat_map(
                move |(queue, state)| {
                    queue.by_priority().flat_map(move |(priority, line)| {
                        line.fresh_jobs().map(move |fresh| (fresh.born, Job::of(fresh, state, no, priority)))
                    })
                },
            )
        });
        self.noted.iter().map(|(born, job)| (born, job.clone())).chain(fresh)
    }

    /// How many jobs are alive.
    pub fn live_jobs(&self) -> u64 {
        self.noted.len() as u64
            + self.types.iter().map(|of_type| of_type.queue.fresh() + of_type.later.fresh()).sum::<u64>()
    }

    /// How many live jobs have their payload in a segment.
    pub fn homes_in(&self, segment: u32) -> u64 {
        self.homes.get(&segment).copied().unwrap_or(0)
    }

    /// Bytes of the records that hold the live jobs' payloads.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Jobs that run, of all types.
    pub fn reserved(&self) -> u64 {
        self.reserved
    }

    /// The number of a type.
    pub fn type_no(&self, name: &str) -> Option<u32> {
        /// So many names are sooner looked along than one is hashed.
        const FEW: usize = 8;
        if self.types.len() > FEW {
            return self.type_numbers.get(name).copied();
        }
        (1..).zip(&self.types).find(|(_, of_type)| of_type.name.as_str() == name).map(|(no, _)| no)
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

    /// The index of chosen ids and keys, once it is there.
    pub fn ids(&self) -> Option<&IdIndex> {
        self.ids.index()
    }

    /// Why chosen ids and keys cannot be looked up, now or ever.
    pub fn names_unknown(&self) -> Option<&str> {
        self.ids.unknown()
    }

    /// The next moment at which something follows from the clock: a job ripens or expires.
    pub fn next_moment(&self) -> Option<UnixMs> {
        let first = |set: &BTreeSet<(UnixMs, Seq)>| set.first().map(|(at, _)| *at);
        self.types.iter().filter_map(|of_type| first(&of_type.due)).chain(first(&self.expiring)).min()
    }

    /// A job whose time had passed at `now`.
    pub fn expired(&self, now: UnixMs) -> Option<Seq> {
        self.expiring.first().filter(|(at, _)| *at <= now).map(|(_, born)| *born)
    }

    /// The dead job that died first, and when.
    pub fn oldest_dead(&self) -> Option<(UnixMs, Seq)> {
        self.dead.first().copied()
    }

    /// The jobs that died first, some at most, in this order.
    pub fn dead_first(&self, some: usize) -> impl Iterator<Item = Seq> {
        self.dead.iter().take(some).map(|(_, born)| *born)
    }

    /// How many jobs are dead.
    pub fn dead_jobs(&self) -> usize {
        self.dead.len()
    }

    /// Born seqs of the jobs of a type in one of these states, ascending, without the fresh ones.
    pub fn noted_in(&self, type_no: u32, states: &[State]) -> Vec<Seq> {
        let of_type = self.noted.iter().filter(|(_, job)| job.type_no == type_no && states.contains(&job.state));
        let mut born: Vec<Seq> = of_type.map(|(born, _)| born).collect();
        born.sort_unstable();
        born
    }

    /// The oldest fresh job of some priority of a type, ready or delayed, that was born before `below`.
    pub fn fresh_first(&self, type_no: u32, below: Seq) -> Option<Seq> {
        self.fresh_lines(type_no).find_map(|line| line.first_fresh().filter(|born| *born < below))
    }

    /// Fresh jobs of a type, ready or delayed, that were born before `below`, some at most; the oldest of each priority.
    pub fn fresh_in(&self, type_no: u32, below: Seq, some: usize) -> Vec<Fresh> {
        let lines = self.fresh_lines(type_no);
        lines.flat_map(|line| line.fresh_jobs().take_while(|job| job.born < below).take(some)).take(some).collect()
    }

    fn fresh_lines(&self, type_no: u32) -> impl Iterator<Item = &Line> {
        let queues = self.worker_type(type_no).into_iter().flat_map(|of_type| [&of_type.queue, &of_type.later]);
        queues.flat_map(|queue| queue.by_priority().map(|(_, line)| line))
    }

    /// Whether the last process that had the log stopped in good order; true for a new log.
    pub fn stopped_cleanly(&self) -> bool {
        self.clean_stop
    }

    /// Jobs that an [`Opened`](crate::job::event::Opened) record kills: the process has ended under them once too often. In the
    /// order in which they came.
    pub fn dying(&self) -> Vec<Seq> {
        let dying = |job: &Job| job.state == State::Reserved && job.is_at_last_host_death();
        let mut dying: Vec<Seq> = self.noted.iter().filter(|(_, job)| dying(job)).map(|(born, _)| born).collect();
        dying.sort_unstable();
        dying
    }
}

fn fresh(of_type: &TypeState, type_no: u32, born: Seq) -> Option<Job> {
    let find = |queue: &Queue, state| queue.get(born).map(|(priority, fresh)| Job::of(fresh, state, type_no, priority));
    find(&of_type.queue, State::Ready).or_else(|| find(&of_type.later, State::Delayed))
}
