//! The way in: what producers, edges and embedders call. Cheap to clone; every call may come from any thread.
//!
//! A blocking call returns when its answer is durable. A call that takes a callback returns at once and calls back from
//! the engine's thread when the answer is durable; the callback must not block. A callback that is dropped without a
//! call means that the engine is gone.

use std::sync::Arc;

use crossbeam_channel::Sender;

pub use super::command::{JobAction, Then};

use super::command::{Command, Known, LiveJob, LiveOrEnded, PushAnswers, Pushing, To};
use super::pulse::Pulse;
use super::shared::Shared;
use super::shown::{ended, listing, lookup, timeline};
use super::view::{
    EcosystemView, GenerationsView, JobFilter, JobPage, JobView, MeasuresView, ReloadVerdict, RolloutView,
    TimelineView, WhyView,
};
use crate::access::Access;
use crate::archive::{History, Standing};
use crate::config::Serving;
use crate::job::intake::IntakeLimits;
use crate::job::new::{NewJob, Pushed};
use crate::log::Reader;
use crate::log::stream::Held;
use crate::refusal::Refusal;
use crate::rollover::plan::Word;
use crate::types::{Seq, UnixMs, WorkerType};

/// The way into a running engine.
#[derive(Clone)]
pub struct Handle {
    to_engine: Sender<Command>,
    shared: Arc<Shared>,
}

impl Handle {
    pub(super) fn new(to_engine: Sender<Command>, shared: Arc<Shared>) -> Self {
        Self { to_engine, shared }
    }

    /// Takes a call's bytes into the bound of what may be in flight.
    fn enter(&self, jobs: &[NewJob]) -> Result<usize, Refusal> {
        self.ready()?;
        let bytes: usize = jobs.iter().map(|job| job.payload.len() + size_of::<NewJob>()).sum();
        self.shared.enter(bytes)?;
        Ok(bytes)
    }

    /// Enqueues jobs, each by itself; answers in order, when all of them are durable.
    pub fn submit(&self, jobs: Vec<NewJob>, then: Then<Vec<Result<Pushed, Refusal>>>) {
        match self.enter(&jobs) {
            Err(refusal) => then(vec![Err(refusal); jobs.len()]),
            Ok(bytes) => {
                let ids = self.shared.ids;
                let to = To::Then(Box::new(move |answers: PushAnswers| then(answers.tell(&ids))));
                drop(self.to_engine.send(push_command(jobs, bytes, to)));
            }
        }
    }

    /// Enqueues one job and waits until it is durable.
    ///
    /// # Errors
    /// Why it was refused.
    pub fn push(&self, job: NewJob) -> Result<Pushed, Refusal> {
        self.push_many(vec![job]).pop().unwrap_or_else(|| Err(self.shared.gone()))
    }

    /// Enqueues jobs, each by itself, and waits until all of them are durable; answers in order.
    pub fn push_many(&self, jobs: Vec<NewJob>) -> Vec<Result<Pushed, Refusal>> {
        let count = jobs.len();
        let bytes = match self.enter(&jobs) {
            Ok(bytes) => bytes,
            Err(refusal) => return vec![Err(refusal); count],
        };
        let answers = self.ask::<PushAnswers>(|to| push_command(jobs, bytes, to));
        // The ids are made here, and the jobs freed: their caller's thread has the time.
        answers.map_or_else(|| vec![Err(self.shared.gone()); count], |answers| answers.tell(&self.shared.ids))
    }

    fn ask<T>(&self, command: impl FnOnce(To<T>) -> Command) -> Option<T> {
        let (slot, to) = To::slot(&self.shared.broadcast);
        // A command that reaches nobody drops its answerer, and that wakes the slot.
        drop(self.to_engine.send(command(to)));
        slot.wait()
    }

    /// Does something to one job; answers with the job afterwards.
    pub fn act(&self, id: &str, action: JobAction, then: Then<Result<JobView, Refusal>>) {
        let handle = self.clone();
        let to = To::Then(Box::new(move |done: Result<LiveOrEnded, Refusal>| {
            // Without its payload: the engine's thread does not read the disk.
            then(done.map(|left| lookup::acted(&handle.shared, &left)));
        }));
        drop(self.to_engine.send(Command::Act { id: id.to_owned(), action, to }));
    }

    /// Cancels every job of a type that does not run, and discards its dead ones; answers with how many.
    pub fn purge(&self, worker_type: &str, then: Then<Result<u64, Refusal>>) {
        drop(self.to_engine.send(Command::Purge { worker_type: worker_type.to_owned(), to: To::Then(then) }));
    }

    /// Does something about a type's rollover: pauses or resumes a ramp, has a version take over, withdraws it, or goes back to
    /// the version before. Answers with what stands then; it is durable.
    pub fn rollout(&self, worker_type: &str, word: Word, then: Then<Result<RolloutView, Refusal>>) {
        drop(self.to_engine.send(Command::Rollout { worker_type: worker_type.to_owned(), word, to: To::Then(then) }));
    }

    /// Gives every dead job of a type whose last failed attempt was on this version all its attempts again; answers with how
    /// many. Versions are named by their labels as they are shown.
    pub fn retry_failed_on(&self, worker_type: &str, version: &str, then: Then<Result<u64, Refusal>>) {
        let (worker_type, version) = (worker_type.to_owned(), version.to_owned());
        drop(self.to_engine.send(Command::Redrive { worker_type, version, to: To::Then(then) }));
    }

    /// Pauses or resumes a type: while it is paused its jobs are taken in and wait. Answers since when it is; 0: it is not.
    /// When it is called back, that is durable.
    pub fn pause(&self, worker_type: &str, paused: bool, then: Then<Result<UnixMs, Refusal>>) {
        drop(self.to_engine.send(Command::Pause { worker_type: worker_type.to_owned(), paused, to: To::Then(then) }));
    }

    /// Everything that lives here.
    pub fn ecosystem(&self, then: Then<Result<EcosystemView, Refusal>>) {
        drop(self.to_engine.send(Command::Ecosystem { to: To::Then(then) }));
    }

    /// Everything that lives here, with counts of what was done.
    pub fn measures(&self, then: Then<Result<MeasuresView, Refusal>>) {
        drop(self.to_engine.send(Command::Measures { to: To::Then(then) }));
    }

    /// One job with everything known about it. Reads the log on the calling thread: of a job that ended what the index
    /// of ended jobs points to, or, where there is none, all records from its first to its last.
    ///
    /// # Errors
    /// `NotFound`; `Stopping` or `Poisoned` when nobody answers.
    pub fn job(&self, id: &str) -> Result<JobView, Refusal> {
        let known = self.ask(|to| Command::Find { id: id.to_owned(), to }).ok_or_else(|| self.shared.gone())?;
        self.view(id, known)
    }

    /// Why a job is not running now, in one sentence. Reads the log on the calling thread as [`Handle::job`] does.
    ///
    /// # Errors
    /// `NotFound`; `Stopping` or `Poisoned` when nobody answers.
    pub fn why(&self, id: &str) -> Result<WhyView, Refusal> {
        let asked = self.ask(|to| Command::Why { id: id.to_owned(), to }).ok_or_else(|| self.shared.gone())?;
        asked.tell(&self.shared, id)
    }

    /// What became of a job, step by step, as far as the log says. Reads the log on the calling thread, from the job's first
    /// record on, so far and no farther.
    ///
    /// # Errors
    /// `NotFound`; `Stopping` or `Poisoned` when nobody answers.
    pub fn timeline(&self, id: &str) -> Result<TimelineView, Refusal> {
        let known = self.ask(|to| Command::Find { id: id.to_owned(), to }).ok_or_else(|| self.shared.gone())?;
        timeline::timeline(&self.shared, id, &known).ok_or_else(|| Refusal::NotFound { id: id.to_owned() })
    }

    /// What is known of a job, put together.
    pub(super) fn view(&self, id: &str, known: Known) -> Result<JobView, Refusal> {
        let not_found = || Refusal::NotFound { id: id.to_owned() };
        match known {
            Known::Live(live) => Ok(lookup::live_view(&self.shared, &live)),
            Known::Look { born, from, .. } => ended::job(&self.shared, id, born, from).ok_or_else(not_found),
            Known::Nothing => Err(not_found()),
        }
    }

    /// Has `then` called once a job has ended (`completed`, `cancelled`, `expired`, `discarded`) or is `dead`, durably.
    pub fn on_end(&self, id: &str, then: Then<Result<(), Refusal>>) {
        drop(self.to_engine.send(Command::AwaitEnd { id: id.to_owned(), to: To::Then(then) }));
    }

    /// Waits until a job has ended or is dead, as long as that takes, and gives it as [`Handle::job`] does.
    ///
    /// # Errors
    /// `NotFound`; `Busy` with too many who wait; `Stopping` or `Poisoned` when the engine ends before.
    pub fn wait(&self, id: &str) -> Result<JobView, Refusal> {
        let ended = self.ask(|to| Command::AwaitEnd { id: id.to_owned(), to });
        ended.unwrap_or_else(|| Err(self.shared.gone()))?;
        self.job(id)
    }

    /// A page of jobs: live ones where their payload lies in the log, ended ones where they ended, newest first. Ended
    /// ones are looked up in their index, as far as there is one; for the others the log is read backwards on the calling
    /// thread, at most 10,000 records a call.
    ///
    /// # Errors
    /// `InvalidJob` for a cursor that is none; `UnknownType`; `Stopping` or `Poisoned` when nobody answers.
    pub fn jobs(&self, filter: &JobFilter) -> Result<JobPage, Refusal> {
        listing::page(&self.shared, filter, self)
    }

    /// Has ended jobs looked up in an index from now on, and the index told when the log grows; the first one stays.
    pub fn use_history(&self, history: Arc<dyn History>) {
        self.shared.use_history(history);
    }

    /// How it stands with the index of ended jobs.
    pub fn history(&self) -> Standing {
        self.shared.history().map_or_else(Standing::off, History::standing)
    }

    /// Access to the log.
    pub fn reader(&self) -> Reader {
        self.shared.reader.clone()
    }

    /// Whether any job of a type, or of all, is alive.
    pub(super) fn any_lives(&self, worker_type: Option<&WorkerType>) -> Result<bool, Refusal> {
        let view = self.ask(|to| Command::Ecosystem { to }).ok_or_else(|| self.shared.gone())??;
        let mut meant = view.types.iter().filter(|of_type| worker_type.is_none_or(|name| *name == of_type.worker_type));
        Ok(meant.any(|of_type| of_type.ready + of_type.delayed + of_type.reserved + of_type.parked + of_type.dead > 0))
    }

    pub(super) fn live_at(&self, places: Vec<(u32, Seq, Seq)>) -> Result<Vec<Option<LiveJob>>, Refusal> {
        self.ask(|to| Command::LiveAt { places, to }).ok_or_else(|| self.shared.gone())
    }

    /// The names of all types ever known here, in alphabetical order.
    pub fn known_types(&self) -> Vec<WorkerType> {
        let mut types = self.shared.names().types.clone();
        types.sort();
        types
    }

    /// Limits that an edge checks before it parses.
    pub fn limits(&self) -> IntakeLimits {
        IntakeLimits { payload_max: self.shared.payload_max() }
    }

    /// What those who connect may take, as the config that runs says.
    pub fn serving(&self) -> Arc<Serving> {
        self.shared.serving()
    }

    /// Who may come in, as the config that runs says.
    pub fn access(&self) -> Arc<Access> {
        self.shared.access()
    }

    /// Whether jobs are accepted.
    ///
    /// # Errors
    /// `Stopping` or `Poisoned`.
    pub fn ready(&self) -> Result<(), Refusal> {
        self.shared.ready()
    }

    /// Takes a config over; answers when it is settled.
    pub fn reload(&self, generation: super::GenerationSpec, then: Then<Result<ReloadVerdict, Refusal>>) {
        let generation = Box::new(generation);
        drop(self.to_engine.send(Command::Reload { generation, to: To::Then(then) }));
    }

    /// The last configs, and what became of them.
    pub fn generations(&self, then: Then<Result<GenerationsView, Refusal>>) {
        drop(self.to_engine.send(Command::Generations { to: To::Then(then) }));
    }

    /// Tells that the newest config was not accepted, for the page.
    pub fn reload_failed(&self, why: String) {
        drop(self.to_engine.send(Command::ReloadFailed { why }));
    }

    /// Has the engine's own loop beat from now on.
    pub fn beat(&self, pulse: Arc<Pulse>) {
        drop(self.to_engine.send(Command::Beat(pulse)));
    }

    /// Holds everything that was acknowledged up to now, for a copy: nothing of it leaves the disk while what is answered
    /// lives.
    pub fn hold_for_backup(&self, then: Then<Result<Held, Refusal>>) {
        drop(self.to_engine.send(Command::Backup { to: To::Then(then) }));
    }

    /// Ends everything but the taking in of jobs, for a successor that goes on with this log: running jobs may finish up to
    /// the stop timeout, then they are cut off. Calls back when nothing runs any more; [`Handle::stop`] follows then.
    pub fn hand_over(&self, then: Then<()>) {
        drop(self.to_engine.send(Command::HandOver { to: To::Then(then) }));
    }

    /// Ends it all in good order: takes no more jobs, lets running ones finish up to the stop timeout, then cuts them off;
    /// a second call cuts them off at once. Calls back when the log is sealed and its directory free.
    pub fn stop(&self, then: Then<()>) {
        drop(self.to_engine.send(Command::Stop { to: To::Then(then) }));
    }

    /// Ends it all as [`Handle::stop`] does, and waits for the end.
    pub fn stop_and_wait(&self) {
        // `None`: it had ended already.
        let _: Option<()> = self.ask(|to| Command::Stop { to });
    }

    /// Has `then` called once, with the reason, if the log is poisoned, or was.
    pub fn on_poisoned(&self, then: Then<String>) {
        self.shared.on_poisoned(then);
    }
}

fn push_command(jobs: Vec<NewJob>, bytes: usize, to: To<PushAnswers>) -> Command {
    Command::Push(Pushing { answers: PushAnswers::of(jobs), bytes, to })
}
