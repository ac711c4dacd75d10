//! Programs as workers: persistent.

use std::sync::Arc;
use std::time::Duration;

use super::launch::{Launch, OutputLimits};
use super::{Assignment, Cutoff, Outcome, StartError, Worker, WorkerFactory};
use crate::types::{Label, Lease, WorkerType};

/// Makes the workers of one program.
#[derive(Debug, Clone)]
pub struct PersistentFactory {
    launch: Arc<Launch>,
    limits: OutputLimits,
    worker_type: Arc<str>,
    version: Arc<str>,
}

impl PersistentFactory {
    /// Workers that run `launch` within `limits`; type and version are what its `hello` is told.
    pub fn new(launch: Launch, limits: OutputLimits, worker_type: &WorkerType, version: &Label) -> Self {
        Self {
            launch: Arc::new(launch),
            limits,
            worker_type: worker_type.as_str().into(),
            version: version.as_str().into(),
        }
    }
}

impl WorkerFactory for PersistentFactory {
    fn make(&self, cutoff: &Arc<Cutoff>) -> Box<dyn Worker> {
        Box::new(PersistentWorker {
            launch: Arc::clone(&self.launch),
            _limits: self.limits,
            _cutoff: Arc::clone(cutoff),
        })
    }

    fn check(&self) -> Result<(), StartError> {
        self.launch.check()
    }
}

/// Not built yet: starts nothing, and says so.
struct PersistentWorker {
    launch: Arc<Launch>,
    _limits: OutputLimits,
    _cutoff: Arc<Cutoff>,
}

impl Worker for PersistentWorker {
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
