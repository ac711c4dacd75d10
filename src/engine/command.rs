//! What reaches the engine: one queue for callers, pools and the cleaner.

use std::sync::Arc;

use bytes::Bytes;
use crossbeam_channel::Sender;

use super::GenerationSpec;
use super::facts::Facts;
use super::pulse::Pulse;
use super::rollover::described::Described;
use super::shown::why::Asked;
use super::view::{EcosystemView, GenerationsView, MeasuresView, ReloadVerdict, RolloutView};
use crate::job::event::End;
use crate::job::ids::{IdIndex, IdMaker};
use crate::job::new::{NewJob, Pushed};
use crate::job::table::Job;
use crate::log::stream::Held;
use crate::pool::{About, PoolId, Report};
use crate::refusal::Refusal;
use crate::rollover::plan::Word;
use crate::sync::{Answerer, Broadcast, Slot};
use crate::types::{Lease, Seq, UnixMs};
use crate::worker::Outcome;
use crate::worker::run::Told;

/// What can be done to one job from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobAction {
    /// A dead job becomes Ready with all attempts again; a delayed one becomes Ready at once.
    Retry,
    /// A job that waits or runs becomes Cancelled; where it runs, its worker is told to stop, and what it answers changes
    /// nothing.
    Cancel,
    /// A dead job becomes Discarded.
    Discard,
}

/// A callback that takes an answer.
pub type Then<T> = Box<dyn FnOnce(T) + Send>;

/// What became of jobs that somebody enqueues; the jobs go back with it, to be freed by who made them.
pub(super) struct PushAnswers {
    pub(super) jobs: Vec<NewJob>,
    /// In order, for the first ones of them.
    pub(super) of: Vec<Result<Accepted, Box<Refusal>>>,
}

/// A job that was accepted.
pub(super) enum Accepted {
    /// It is new. Who asked makes its id: the engine has more to do.
    New {
        /// The job.
        born: Seq,
        /// When it was accepted.
        created_ms: UnixMs,
        /// Its state on the wire.
        state: &'static str,
    },
    /// It was enqueued before.
    Known(Box<Pushed>),
}

impl PushAnswers {
    pub(super) fn of(jobs: Vec<NewJob>) -> Self {
        let of = Vec::with_capacity(jobs.len());
        Self { jobs, of }
    }

    /// As the caller sees them.
    pub(super) fn tell(self, ids: &IdMaker) -> Vec<Result<Pushed, Refusal>> {
        let tell = |(job, answer): (NewJob, Result<Accepted, Box<Refusal>>)| match answer {
            Ok(Accepted::New { born, created_ms, state }) => {
                let id = job.id.map_or_else(|| ids.make(born, created_ms), |id| id.as_str().to_owned());
                Ok(Pushed { id, worker_type: job.worker_type, state, duplicate: false })
            }
            Ok(Accepted::Known(pushed)) => Ok(*pushed),
            Err(refusal) => Err(*refusal),
        };
        self.jobs.into_iter().zip(self.of).map(tell).collect()
    }
}

/// Where an answer goes.
pub(super) enum To<T> {
    /// To a caller who sleeps.
    Slot(Answerer<T>),
    /// To a callback.
    Then(Then<T>),
}

impl<T> To<T> {
    /// A slot and the way to it.
    pub(super) fn slot(broadcast: &Arc<Broadcast>) -> (Arc<Slot<T>>, Self) {
        let (slot, answerer) = Slot::new(broadcast);
        (slot, Self::Slot(answerer))
    }

    /// Gives the answer; a sleeper sees it with the next broadcast.
    pub(super) fn give(self, answer: T) {
        match self {
            Self::Slot(answerer) => answerer.put(answer),
            Self::Then(then) => then(answer),
        }
    }
}

/// What is known of a job that somebody asks for.
pub(super) enum Known {
    /// It lives.
    Live(Box<LiveJob>),
    /// It ended, or may have: its records lie at or after this seq.
    Look {
        /// The job.
        born: Seq,
        /// Where to look first.
        from: Seq,
        /// How it ended, where the index knows.
        ended: Option<End>,
    },
    /// There is no such job.
    Nothing,
}

/// A live job, as the table has it.
#[derive(Debug, Clone)]
pub(super) struct LiveJob {
    pub(super) born: Seq,
    pub(super) job: Job,
    /// Its id, if its caller chose one and it is at hand.
    pub(super) id: Option<Box<str>>,
    pub(super) parked: Option<Parked>,
    /// What its run has told by now, if it runs.
    pub(super) told: Option<(Told, UnixMs)>,
}

/// Why a ready job is given to nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parked {
    /// No version of its type is in the config.
    NoVersion,
    /// It needs a version.
    NeedsVersion {
        /// Whether one of that label was ever accepted.
        is_known: bool,
        /// Where its type's work goes; 0: nowhere.
        route: u32,
    },
}

/// What somebody wants of the engine.
pub(super) enum Command {
    /// Enqueue.
    Push(Pushing),
    /// Do something to a job; answers with its born seq and its id.
    Act { id: String, action: JobAction, to: To<Result<LiveOrEnded, Refusal>> },
    /// Cancel and discard all of a type that does not run.
    Purge { worker_type: String, to: To<Result<u64, Refusal>> },
    /// Let the jobs of a type wait, or no more; answers since when they do.
    Pause { worker_type: String, paused: bool, to: To<Result<UnixMs, Refusal>> },
    /// Do something about a type's rollover.
    Rollout { worker_type: String, word: Word, to: To<Result<RolloutView, Refusal>> },
    /// Go on with a purge.
    PurgeRest(Purging),
    /// Give the dead jobs of a type that failed last on a version all their attempts again.
    Redrive { worker_type: String, version: String, to: To<Result<u64, Refusal>> },
    /// Go on with that.
    RedriveRest(Redriving),
    /// Show everything.
    Ecosystem { to: To<Result<EcosystemView, Refusal>> },
    /// Show everything, and what was counted.
    Measures { to: To<Result<MeasuresView, Refusal>> },
    /// Show the last configs.
    Generations { to: To<Result<GenerationsView, Refusal>> },
    /// Find a job.
    Find { id: String, to: To<Known> },
    /// Find a job, and how it stands with it.
    Why { id: String, to: To<Asked> },
    /// Answer once a job has ended, or is dead.
    AwaitEnd { id: String, to: To<Result<(), Refusal>> },
    /// Which of these jobs live: type, born seq, and the record in which their payload lies.
    LiveAt { places: Vec<(u32, Seq, Seq)>, to: To<Vec<Option<LiveJob>>> },
    /// Take a config over.
    Reload { generation: Box<GenerationSpec>, to: To<Result<ReloadVerdict, Refusal>> },
    /// The newest config did not pass.
    ReloadFailed { why: String },
    /// Let somebody hear that the engine makes progress.
    Beat(Arc<Pulse>),
    /// End the segment that is written, and hold all ended ones.
    Backup { to: To<Result<Held, Refusal>> },
    /// End everything but the taking in of jobs.
    HandOver { to: To<()> },
    /// Stop.
    Stop { to: To<()> },
    /// The records that a command waited for were read.
    Known { facts: Facts, then: Box<Self> },
    /// What a version is made of was found out for a command that waited for it, or could not be.
    Described { described: Box<Described>, then: Box<Self> },
    /// The chosen names of the log that was opened, or why they cannot be known.
    NamesGathered(Result<Box<IdIndex>, String>),
    /// What became of a run, once more.
    Outcome { lease: Lease, worker: u32, outcome: Outcome, about: Option<Box<About>> },
    /// Dead jobs whose time is over leave.
    ForgetDead,
    /// A pool reports.
    Pool(PoolId, Report),
    /// The cleaner found what may have to be restated.
    Survivors(Survivors),
}

/// Jobs that are being enqueued.
pub(super) struct Pushing {
    pub(super) answers: PushAnswers,
    /// Bytes that they take of the bound of what may be in flight.
    pub(super) bytes: usize,
    pub(super) to: To<PushAnswers>,
}

/// A purge that is under way.
pub(super) struct Purging {
    pub(super) type_no: u32,
    /// Jobs of the type that did not run when it began, but for fresh ones.
    pub(super) noted: std::iter::Peekable<std::vec::IntoIter<Seq>>,
    /// Fresh jobs that were born before this are meant, too.
    pub(super) below: Seq,
    pub(super) count: u64,
    pub(super) to: To<Result<u64, Refusal>>,
}

/// Dead jobs that are given their attempts again.
pub(super) struct Redriving {
    /// The version on which they failed last.
    pub(super) version_no: u32,
    /// Jobs of the type that were dead when it began.
    pub(super) jobs: std::vec::IntoIter<Seq>,
    pub(super) count: u64,
    pub(super) to: To<Result<u64, Refusal>>,
}

impl Command {
    /// Whether it is a portion of a sweep.
    pub(super) fn is_of_a_sweep(&self) -> bool {
        matches!(self, Self::Survivors(_))
    }

    /// Whether it comes back with what was looked up for it.
    pub(super) fn was_looked_up(&self) -> bool {
        matches!(self, Self::Known { .. } | Self::Described { .. })
    }

    /// Whether a stop waits for it, where it has to wait for room.
    pub(super) fn is_owed(&self) -> bool {
        !self.waits_for_a_start() && !self.is_of_a_sweep()
    }

    /// Whether it may record so much, for as many jobs as there are, that a stop on a full disk leaves it to the next start.
    pub(super) fn waits_for_a_start(&self) -> bool {
        match self {
            Self::Known { then, .. } | Self::Described { then, .. } => then.waits_for_a_start(),
            Self::Purge { .. }
            | Self::PurgeRest(_)
            | Self::Redrive { .. }
            | Self::RedriveRest(_)
            | Self::ForgetDead => true,
            _ => false,
        }
    }

    /// Whether it must wait where no more room can be had than is kept for a stop: what only asks need not, and what
    /// is refused; nor does what makes room.
    pub(super) fn needs_room(&self) -> bool {
        match self {
            Self::Push(_)
            | Self::Ecosystem { .. }
            | Self::Measures { .. }
            | Self::Generations { .. }
            | Self::Find { .. }
            | Self::Why { .. }
            | Self::LiveAt { .. } => false,
            Self::AwaitEnd { .. } => false,
            Self::Known { then, .. } | Self::Described { then, .. } => then.needs_room(),
            Self::Outcome { .. } | Self::ForgetDead => true,
            Self::Backup { .. } | Self::NamesGathered(_) | Self::Survivors(_) => false,
            Self::ReloadFailed { .. } | Self::Beat(_) | Self::HandOver { .. } | Self::Stop { .. } => false,
            Self::Act { .. }
            | Self::Pause { .. }
            | Self::Rollout { .. }
            | Self::Purge { .. }
            | Self::PurgeRest(_)
            | Self::Redrive { .. }
            | Self::RedriveRest(_)
            | Self::Reload { .. }
            | Self::Pool(..) => true,
        }
    }
}

/// What an action left of a job.
pub(super) enum LiveOrEnded {
    /// It lives.
    Live(Box<LiveJob>),
    /// It ended with this action.
    Ended {
        /// What it was.
        last: Box<LiveJob>,
        /// How it ended.
        end: End,
        /// When.
        at: UnixMs,
    },
}

/// Records of the head segment that hold the payloads of jobs which may be alive.
pub(super) struct Survivors {
    pub(super) records: Vec<Survivor>,
    /// Told when they are restated; the cleaner then goes on.
    pub(super) done: Option<Sender<()>>,
    /// What was read of the segment with these.
    pub(super) swept: Swept,
}

/// How far a sweep has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Swept {
    /// There is more.
    Part,
    /// All of it was read.
    All,
    /// What comes next cannot be read.
    Unreadable,
}

/// One such record.
pub(super) struct Survivor {
    pub(super) born: Seq,
    pub(super) seq: Seq,
    pub(super) type_no: u32,
    /// Body of the job's `Enqueued` record.
    pub(super) enqueued: Bytes,
}
