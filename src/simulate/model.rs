//! The reference model: plain values, no cleverness. What the world saw acknowledged must be there; what it did not hear
//! of may be.

use std::collections::BTreeMap;

use crate::job::event::End;
use crate::job::new::NewJob;
use crate::job::table::Job;
use crate::job::transition::State;
use crate::limits::{ATTEMPTS_KEPT, HOST_DEATHS_MAX};
use crate::types::{Fence, Seq, UnixMs};

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It was never enqueued.
    Absent,
    /// It is ready, or delayed.
    Waiting,
    /// It runs, or was handed to a pool.
    Running(Fence),
    /// It is dead.
    Dead,
    /// It ended.
    Gone(End),
}

/// What a job adds to its type's counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    pub(super) enqueued: u64,
    pub(super) completed: u64,
    pub(super) failed: u64,
    pub(super) cancelled: u64,
    pub(super) expired: u64,
    pub(super) discarded: u64,
}

impl Counts {
    pub(super) fn add(&mut self, other: Self) {
        self.enqueued += other.enqueued;
        self.completed += other.completed;
        self.failed += other.failed;
        self.cancelled += other.cancelled;
        self.expired += other.expired;
        self.discarded += other.discarded;
    }
}

/// All that is known of a job at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) place: Place,
    pub(super) attempts: u16,
    /// Failures that cost no attempt.
    pub(super) made_up: u16,
    pub(super) deferrals: u16,
    pub(super) host_deaths: u8,
    /// When it may run: at the earliest and at the latest, since pauses are drawn.
    pub(super) ready_ms: (UnixMs, UnixMs),
    pub(super) since_ms: UnixMs,
    pub(super) counts: Counts,
}

/// What can happen to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Happening {
    Enqueued {
        ready_ms: UnixMs,
    },
    Reserved(Fence),
    Ended(End),
    Retried {
        ready_ms: (UnixMs, UnixMs),
    },
    /// It failed, at no cost.
    MadeUp {
        ready_ms: (UnixMs, UnixMs),
    },
    Died {
        at: UnixMs,
    },
    Deferred {
        ready_ms: (UnixMs, UnixMs),
    },
    GivenBack,
    Redriven,
    /// What ran it ended; `ready_ms` where it shall wait then.
    HostDeath {
        at: UnixMs,
        ready_ms: Option<(UnixMs, UnixMs)>,
    },
}

impl Standing {
    pub(super) const ABSENT: Self = Self {
        place: Place::Absent,
        attempts: 0,
        made_up: 0,
        deferrals: 0,
        host_deaths: 0,
        ready_ms: (0, 0),
        since_ms: 0,
        counts: Counts { enqueued: 0, completed: 0, failed: 0, cancelled: 0, expired: 0, discarded: 0 },
    };

    pub(super) fn is_live(&self) -> bool {
        matches!(self.place, Place::Waiting | Place::Running(_) | Place::Dead)
    }

    /// The standing after something happened.
    pub(super) fn after(mut self, happening: Happening) -> Self {
        match happening {
            Happening::Enqueued { ready_ms } => {
                self.place = Place::Waiting;
                self.ready_ms = (ready_ms, ready_ms);
                self.counts.enqueued += 1;
            }
            Happening::Reserved(fence) => self.place = Place::Running(fence),
            Happening::Ended(end) => {
                self.place = Place::Gone(end);
                let count = match end {
                    End::Completed => &mut self.counts.completed,
                    End::Cancelled => &mut self.counts.cancelled,
                    End::Expired => &mut self.counts.expired,
                    End::Discarded => &mut self.counts.discarded,
                };
                *count += 1;
            }
            Happening::Retried { ready_ms } => {
                self.place = Place::Waiting;
                self.attempts += 1;
                self.ready_ms = ready_ms;
                self.counts.failed += 1;
            }
            Happening::MadeUp { ready_ms } => {
                self.place = Place::Waiting;
                self.made_up += 1;
                self.ready_ms = ready_ms;
                self.counts.failed += 1;
            }
            Happening::Died { at } => {
                self.place = Place::Dead;
                self.attempts += 1;
                self.since_ms = at;
                self.counts.failed += 1;
            }
            Happening::Deferred { ready_ms } => {
                self.place = Place::Waiting;
                self.deferrals += 1;
                self.ready_ms = ready_ms;
            }
            Happening::GivenBack => self.place = Place::Waiting,
            Happening::Redriven => {
                if self.place == Place::Dead {
                    (self.attempts, self.deferrals, self.host_deaths) = (0, 0, 0);
                }
                self.place = Place::Waiting;
                self.ready_ms = (0, 0);
            }
            Happening::HostDeath { at, ready_ms } => {
                self.host_deaths += 1;
                self.place = Place::Waiting;
                self.ready_ms = ready_ms.unwrap_or(self.ready_ms);
                if self.host_deaths >= HOST_DEATHS_MAX {
                    self.place = Place::Dead;
                    self.since_ms = at;
                }
            }
        }
        self
    }

    /// Whether the table's word is this one. `latest` is the latest time that ever was.
    pub(super) fn is(&self, job: &Job, now: UnixMs, latest: UnixMs) -> bool {
        let in_place = match (self.place, job.state) {
            (Place::Waiting, State::Ready) => job.ready_ms <= latest,
            (Place::Waiting, State::Delayed) => job.ready_ms > now,
            (Place::Running(fence), State::Reserved) => fence == job.fence,
            (Place::Dead, State::Dead) => job.since_ms == self.since_ms,
            _ => false,
        };
        let timed = self.place != Place::Waiting || (self.ready_ms.0..=self.ready_ms.1).contains(&job.ready_ms);
        let made_up = job.failures().iter().filter(|failure| failure.attempt == 0).count();
        let all_known = job.failures().len() < ATTEMPTS_KEPT;
        in_place
            && timed
            && (!all_known || made_up == usize::from(self.made_up))
            && job.attempts == self.attempts
            && job.given_back.deferrals == self.deferrals
            && job.given_back.host_deaths == self.host_deaths
    }
}

/// A job that somebody tried to enqueue.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) new: NewJob,
    pub(super) max_attempts: u16,
    /// Its id, once that is known.
    pub(super) id: Option<String>,
    pub(super) born: Option<Seq>,
    /// The job whose death it tells of.
    pub(super) summary_of: Option<usize>,
    /// The job whose completion enqueued it.
    pub(super) parent: Option<usize>,
    pub(super) expires_ms: UnixMs,
    pub(super) now: Standing,
    /// What may have happened since, step by step; one of these, or none.
    pub(super) maybe: Vec<Standing>,
    /// First seq of the log when it ended.
    pub(super) ended_at: Seq,
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (of, born, id) = (&self.new.worker_type, self.born, &self.id);
        let payload = String::from_utf8_lossy(self.new.payload.get(..24).unwrap_or(&self.new.payload)).into_owned();
        write!(f, "[{of} born {born:?} id {id:?} priority {} ", self.new.priority.get())?;
        write!(f, "max_attempts {} expires {} parent {:?} ", self.max_attempts, self.expires_ms, self.parent)?;
        write!(f, "summary of {:?} payload {payload} now {:?} maybe {:?}]", self.summary_of, self.now, self.maybe)
    }
}

impl Known {
    /// What it is if all that may have happened did.
    pub(super) fn latest(&self) -> Standing {
        *self.maybe.last().unwrap_or(&self.now)
    }
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) of: String,
    pub(super) is_key: bool,
    pub(super) text: String,
}

/// Everything that was ever enqueued.
#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    pub(super) jobs: Vec<Known>,
    pub(super) by_born: BTreeMap<Seq, usize>,
    /// Who has a name; the last one is who has it now, if it was enqueued at all.
    pub(super) names: BTreeMap<Name, Vec<usize>>,
}

impl Model {
    /// Has something happen to a job: for sure, or perhaps.
    pub(super) fn happen(&mut self, job: usize, sure: bool, happening: Happening) {
        let Some(known) = self.jobs.get_mut(job) else { return };
        let after = known.latest().after(happening);
        if sure && known.maybe.is_empty() {
            known.now = after;
        } else {
            known.maybe.push(after);
        }
    }

    pub(super) fn names_of(new: &NewJob) -> Vec<Name> {
        let of = new.worker_type.to_string();
        let id = new.id.as_ref().map(|id| Name { of: of.clone(), is_key: false, text: id.to_string() });
        let key = new.idempotency_key.as_ref().map(|key| Name { of, is_key: true, text: key.to_string() });
        id.into_iter().chain(key).collect()
    }

    /// Who has one of a job's names.
    pub(super) fn holder(&self, new: &NewJob) -> Option<usize> {
        Self::names_of(new).iter().find_map(|name| self.names.get(name)?.last().copied())
    }

    pub(super) fn add(&mut self, known: Known) -> usize {
        let number = self.jobs.len();
        for name in Self::names_of(&known.new) {
            self.names.entry(name).or_default().push(number);
        }
        self.jobs.push(known);
        number
    }

    /// A job turns out never to have been enqueued.
    pub(super) fn never(&mut self, job: usize) {
        if let Some(known) = self.jobs.get_mut(job) {
            known.parent = None;
        }
        let names = self.jobs.get(job).map(|known| Self::names_of(&known.new)).unwrap_or_default();
        for name in names {
            if let Some(holders) = self.names.get_mut(&name) {
                holders.retain(|holder| *holder != job);
                if holders.is_empty() {
                    self.names.remove(&name);
                }
            }
        }
    }

    /// A number for all of it.
    pub(super) fn fingerprint(&self) -> u64 {
        let text = format!("{:?}", self.jobs);
        let mut crc = crc32fast::Hasher::new();
        crc.update(text.as_bytes());
        (text.len() as u64) << 32 | u64::from(crc.finalize())
    }

    pub(super) fn live(&self) -> impl Iterator<Item = (usize, &Known)> {
        self.jobs.iter().enumerate().filter(|(_, known)| known.now.is_live())
    }

    /// The counters of a type.
    pub(super) fn totals(&self, of: &str) -> Counts {
        let mut totals = Counts::default();
        for known in self.jobs.iter().filter(|known| known.new.worker_type.as_str() == of) {
            totals.add(known.now.counts);
        }
        totals
    }
}
