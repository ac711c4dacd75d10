//! The way in: what producers, edges and embedders call. Cheap to clone; every call may come from any thread.
//!
//! A blocking call returns when its answer is durable. A `submit_`/`*_then` call returns at once and calls back from an
//! engine or reader thread when the answer is durable; the callback must not block.

use super::view::{EcosystemView, JobFilter, JobPage, JobView, ReloadVerdict};
use crate::job::new::{NewJob, Pushed};
use crate::refusal::Refusal;
use crate::types::WorkerType;

/// What can be done to one job from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobAction {
    /// A dead job becomes Ready with all attempts again; a delayed one becomes Ready at once.
    Retry,
    /// A job that does not run becomes Cancelled.
    Cancel,
    /// A dead job becomes Discarded.
    Discard,
}

/// A callback that takes an answer.
pub type Then<T> = Box<dyn FnOnce(T) + Send>;

/// The way into a running engine.
#[derive(Clone)]
pub struct Handle {
    _skeleton: (),
}

#[allow(missing_docs, unused_variables, clippy::todo, reason = "skeleton, replaced by the engine")]
impl Handle {
    /// Enqueues jobs, each by itself; answers in order, when all of them are durable.
    pub fn submit(&self, jobs: Vec<NewJob>, then: Then<Vec<Result<Pushed, Refusal>>>) {
        todo!()
    }
    /// Enqueues one job and waits until it is durable.
    pub fn push(&self, job: NewJob) -> Result<Pushed, Refusal> {
        todo!()
    }
    /// Enqueues jobs and waits until they are durable.
    pub fn push_many(&self, jobs: Vec<NewJob>) -> Vec<Result<Pushed, Refusal>> {
        todo!()
    }
    /// Does something to one job; answers with the job afterwards.
    pub fn act(&self, id: &str, action: JobAction, then: Then<Result<JobView, Refusal>>) {
        todo!()
    }
    /// Cancels every job of a type that does not run, and discards its dead ones; answers with how many.
    pub fn purge(&self, worker_type: &str, then: Then<Result<u64, Refusal>>) {
        todo!()
    }
    /// Everything that lives here.
    pub fn ecosystem(&self, then: Then<Result<EcosystemView, Refusal>>) {
        todo!()
    }
    /// One job with everything known about it. Reads the log: runs on the calling thread, may take as long as a disk read.
    pub fn job(&self, id: &str) -> Result<JobView, Refusal> {
        todo!()
    }
    /// A page of jobs. Reads the log: runs on the calling thread.
    pub fn jobs(&self, filter: &JobFilter) -> Result<JobPage, Refusal> {
        todo!()
    }
    /// The names of all types ever known here.
    pub fn known_types(&self) -> Vec<WorkerType> {
        todo!()
    }
    /// Limits that an edge checks before it parses.
    pub fn limits(&self) -> crate::job::intake::IntakeLimits {
        todo!()
    }
    /// Whether jobs are accepted: `Err` says why not (stopping, poisoned).
    pub fn ready(&self) -> Result<(), Refusal> {
        todo!()
    }
    /// Takes a config over; answers when it is settled.
    pub fn reload(&self, generation: super::GenerationSpec, then: Then<Result<ReloadVerdict, Refusal>>) {
        todo!()
    }
    /// Tells that the newest config was not accepted, for the page.
    pub fn reload_failed(&self, why: String) {
        todo!()
    }
    /// Ends it all in good order: takes no more jobs, lets running ones finish up to the stop timeout, then cuts them off;
    /// a second call cuts them off at once. Calls back when the log is sealed and closed.
    pub fn stop(&self, then: Then<()>) {
        todo!()
    }
    /// Called once, with the reason, if the log is poisoned.
    pub fn on_poisoned(&self, then: Then<String>) {
        todo!()
    }
}
