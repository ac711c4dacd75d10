//! A service as a worker: one POST for each job, and its answer.
//!
//! Owns what a job looks like as a request, how the service is reached, and what its answer means. Never follows a
//! redirect, never asks a proxy, and connects to no address that it has not checked: the config says whether addresses off
//! the open internet may be called. Never decides when a job runs again.
//!
//! | the service | its job |
//! |---|---|
//! | answers 2xx | Done: the body is the result; of type `application/vnd.biotope+json` it may hold follow-up jobs |
//! | answers 2xx with more than `result_max`, or with follow-up jobs that cannot be taken | Fail |
//! | answers 408, 425, 429 or 5xx | Defer, for as long as `Retry-After` says, else by backoff |
//! | answers 410 or another 4xx | Dead |
//! | answers anything else: a redirect | Fail |
//! | cannot be reached, breaks off, speaks no HTTP, runs into a deadline | Fail |
//! | has an address that is not allowed | Fail |
//! | is cut off | Interrupted |
//!
//! Delivery is at least once: where the cutoff, a deadline or a broken connection comes between the service's work and its
//! answer, the same `webhook-id` comes again.

mod answer;
mod connect;
pub mod definition;
mod head;
mod sign;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use self::answer::Answer;
use self::connect::{Connections, Sent};
use self::definition::Hook;
use super::output::error_text;
use super::{Assignment, Cutoff, Outcome, SideBySide, StartError, Worker, WorkerFactory};
use crate::clock::{Clock, RealClock};
use crate::config::RequestTimeouts;

/// Makes workers that call a service.
#[derive(Clone)]
pub struct HttpFactory {
    hook: Arc<Hook>,
}

impl WorkerFactory for HttpFactory {
    fn make(&self, cutoff: &Arc<Cutoff>) -> Box<dyn Worker> {
        Box::new(OneByOne { caller: Caller::new(&self.hook), cutoff: Arc::clone(cutoff), runtime: None })
    }

    fn check(&self) -> Result<(), StartError> {
        Ok(())
    }

    fn side_by_side(&self) -> Option<Arc<dyn SideBySide>> {
        Some(Arc::new(Caller::new(&self.hook)))
    }
}

/// Calls the service, with connections of its own.
struct Caller {
    hook: Arc<Hook>,
    connections: Connections,
}

impl SideBySide for Caller {
    fn run<'a>(
        &'a self,
        job: &'a Assignment,
        timeouts: RequestTimeouts,
    ) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'a>> {
        Box::pin(self.call(job, timeouts))
    }
}

impl Caller {
    fn new(hook: &Arc<Hook>) -> Self {
        Self { hook: Arc::clone(hook), connections: Connections::default() }
    }

    async fn call(&self, job: &Assignment, timeouts: RequestTimeouts) -> Outcome {
        let why = match timeout(job.timeout, self.exchange(job, timeouts)).await {
            Ok(Ok(answer)) => return answer.outcome(&self.hook, RealClock.wall_ms()),
            Ok(Err(why)) => why,
            Err(_) => format!("timed out after {:?}", job.timeout),
        };
        Outcome::Fail { error: error_text(&format!("{} {why}", self.hook.target.host), ""), killed: false }
    }

    /// Sends the job and reads the answer. `Err`: why there is none, in words that follow the host's name.
    async fn exchange(&self, job: &Assignment, timeouts: RequestTimeouts) -> Result<Answer, String> {
        if let Some(connection) = self.connections.idle() {
            let request = head::request(&self.hook, job, RealClock.wall_ms())?;
            match self.connections.send(connection, request, timeouts.first_byte).await {
                Sent::Head(response, connection) => return self.read(response, connection).await,
                // It was closed while nobody looked; the service has most probably not seen the request.
                Sent::Stale(_) => {}
                Sent::Failed(why) => return Err(why),
            }
        }
        let connection = match timeout(timeouts.connect, connect::connect(&self.hook)).await {
            Ok(connected) => connected?,
            Err(_) => return Err(format!("could not be reached within {:?} (`connect_timeout`)", timeouts.connect)),
        };
        let request = head::request(&self.hook, job, RealClock.wall_ms())?;
        match self.connections.send(connection, request, timeouts.first_byte).await {
            Sent::Head(response, connection) => self.read(response, connection).await,
            Sent::Stale(why) | Sent::Failed(why) => Err(why),
        }
    }

    async fn read(
        &self,
        response: hyper::Response<hyper::body::Incoming>,
        connection: connect::Connection,
    ) -> Result<Answer, String> {
        let answer = Answer::read(response, self.hook.limits.result_max).await?;
        if answer.is_whole() {
            self.connections.keep(connection);
        }
        Ok(answer)
    }
}

/// One caller on a thread of its own: one job after the other.
struct OneByOne {
    caller: Caller,
    cutoff: Arc<Cutoff>,
    /// Present while the worker is started.
    runtime: Option<tokio::runtime::Runtime>,
}

impl Worker for OneByOne {
    fn start(&mut self, _timeout: Duration) -> Result<(), StartError> {
        self.runtime = Some(runtime().map_err(|error| StartError(format!("cannot wait for sockets: {error}")))?);
        Ok(())
    }

    fn cycle(&mut self, batch: Vec<Assignment>, sink: &mut dyn FnMut(super::Lease, Outcome)) {
        for job in batch {
            let outcome = match &self.runtime {
                None => Outcome::NotStarted { error: "the worker is not started".to_owned() },
                Some(runtime) => runtime.block_on(async {
                    tokio::select! {
                        biased;
                        () = self.cutoff.wait() => Outcome::Interrupted,
                        outcome = self.caller.call(&job, RequestTimeouts::default()) => outcome,
                    }
                }),
            };
            sink(job.lease, outcome);
        }
    }

    fn is_ready(&self) -> bool {
        self.runtime.is_some()
    }

    fn stop(&mut self) {
        // A name that is being looked up must not hold us.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Names that are looked up at once; the system's resolver blocks.
const LOOKUPS_MAX: usize = 4;

/// What runs jobs side by side on the calling thread.
///
/// # Errors
/// No descriptor left.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(LOOKUPS_MAX).build()
}

#[cfg(test)]
mod tests;
