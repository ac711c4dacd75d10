//! Programs as workers: exec.

use std::sync::Arc;
use std::time::Duration;

use super::launch::{Launch, OutputLimits};
use super::{Assignment, Cutoff, Outcome, StartError, Worker, WorkerFactory};
use crate::types::Lease;

/// Makes the workers of one program.
#[derive(Debug, Clone)]
pub struct ExecFactory {
    launch: Arc<Launch>,
    limits: OutputLimits,
}

impl ExecFactory {
    /// Workers that run `launch` within `limits`.
    pub fn new(launch: Launch, limits: OutputLimits) -> Self {
        Self { launch: Arc::new(launch), limits }
    }
}

impl WorkerFactory for ExecFactory {
    fn make(&self, cutoff: &Arc<Cutoff>) -> Box<dyn Worker> {
        Box::new(ExecWorker { launch: Arc::clone(&self.launch), _limits: self.limits, _cutoff: Arc::clone(cutoff) })
    }

    fn check(&self) -> Result<(), StartError> {
        self.launch.check()
    }
}

/// Not built yet: starts nothing, and says so.
struct ExecWorker {
    launch: Arc<Launch>,
    _limits: OutputLimits,
    _cutoff: Arc<Cutoff>,
}

impl Worker for ExecWorker {
    fn start(&mut self, _timeout: Duration) -> Result<(), StartError> {
        self.launch.check()?;
        Err(StartError("programs as workers are not built yet".into()))
    }

    fn cycle(&mut self, batch: Vec<Assignment>, sink: &mut dyn FnMut(Lease, Outcome)) {
        for job in batch {
            sink(job.lease, Outcome::NotStarted { error: "programs as workers are not built yet".into() });
        }
    }

    fn is_ready(&self) -> bool {
        false
    }

    fn stop(&mut self) {}
}
