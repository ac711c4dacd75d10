//! A failed attempt, as a job remembers it: in the table, in a restated job, and in a checkpoint.
//!
//! Which worker ran it is kept beside the failures where they are written: records and checkpoints of before have none.

use serde::{Deserialize, Serialize};

use crate::types::UnixMs;

/// A failed attempt, as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Which attempt, from 1; 0: it cost none.
    pub attempt: u16,
    /// When.
    pub at: UnixMs,
    /// The version that ran it; 0: none.
    pub version_no: u32,
    /// The end of its error.
    pub error: String,
    /// The worker that ran it; as in [`Ended`](super::Ended). 0 as well where a checkpoint of before this was kept said nothing
    /// of it. Written beside the failures: see [`Failure::workers`].
    #[serde(skip)]
    pub worker: u32,
}

impl Failure {
    /// The workers of these, one for each; `None` where no worker has a number.
    pub fn workers(failures: &[Self]) -> Option<Vec<u32>> {
        let workers = || failures.iter().map(|failure| failure.worker);
        workers().any(|worker| worker != 0).then(|| workers().collect())
    }

    /// Puts the workers of these beside them, as [`Failure::workers`] gave them; `None`: it did not.
    pub fn set_workers(failures: &mut [Self], workers: &[u32]) -> Option<()> {
        let is_fit = failures.len() == workers.len() && workers.iter().any(|worker| *worker != 0);
        failures.iter_mut().zip(workers).for_each(|(failure, worker)| failure.worker = *worker);
        is_fit.then_some(())
    }
}
