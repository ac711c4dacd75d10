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

mod alarm;
mod answer;
mod connect;
pub mod definition;
mod head;
mod joined;
mod lookup;
mod sign;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::Response;
use hyper::body::Incoming;
use tokio::time::Instant;

use self::alarm::{Alarm, Bound, Within};
use self::answer::Answer;
use self::connect::{Connection, Connections, Unanswered};
use self::definition::Hook;
use super::output::error_text;
use super::{Assignment, Cutoff, Jobs, Outcome, SideBySide, StartError, Worker, WorkerFactory};
use crate::blocking;
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

    fn run_all<'a>(&'a self, mut jobs: Box<dyn Jobs + 'a>) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            let mut lane = Lane::new(self);
            while let Some((job, timeouts)) = jobs.next() {
                let outcome = lane.call(&job, timeouts).await;
                jobs.ended(outcome);
                // First all answers that are there are taken, then the next requests are sent one after the other: the service,
                // and the engine, are woken for many at once.
                tokio::task::yield_now().await;
            }
            lane.leave();
        })
    }
}

impl Caller {
    fn new(hook: &Arc<Hook>) -> Self {
        Self { hook: Arc::clone(hook), connections: Connections::default() }
    }

    async fn call(&self, job: &Assignment, timeouts: RequestTimeouts) -> Outcome {
        let mut lane = Lane::new(self);
        let outcome = lane.call(job, timeouts).await;
        lane.leave();
        outcome
    }
}

/// Jobs one after the other, on one connection as long as it lasts. What one leaves behind serves the next: the
/// connection, the alarm, the room for heads.
struct Lane<'a> {
    caller: &'a Caller,
    connection: Option<Connection>,
    alarm: Alarm,
    heads: head::Writer,
}

impl<'a> Lane<'a> {
    fn new(caller: &'a Caller) -> Self {
        Self { caller, connection: None, alarm: Alarm::new(), heads: head::Writer::default() }
    }

    async fn call(&mut self, job: &Assignment, timeouts: RequestTimeouts) -> Outcome {
        let hook = &self.caller.hook;
        match self.exchange(job, timeouts).await {
            Ok(answer) => {
                let outcome = answer.outcome(hook, &|| RealClock.wall_ms());
                self.heads.take_back(answer.into_headers());
                outcome
            }
            Err(why) => Outcome::Fail { error: error_text(&format!("{} {why}", hook.target.host), ""), killed: false },
        }
    }

    /// Sends the job and reads the answer. `Err`: why there is none, in words that follow the host's name.
    async fn exchange(&mut self, job: &Assignment, timeouts: RequestTimeouts) -> Result<Answer, String> {
        let hook = &self.caller.hook;
        let begun = Instant::now();
        let end = Within::Job(job.timeout).from(begun);
        let mut before = String::new();
        if let Some(mut connection) = self.ready_connection(begun) {
            let request = self.heads.request(hook, job, RealClock.wall_ms())?;
            let answering = end.or(Within::FirstByte(timeouts.first_byte).from(begun));
            match self.alarm.within(answering, connection.send(request)).await? {
                Ok(response) => return self.read(response, connection, end).await,
                // It was closed while nobody looked; the service has most probably not seen the request.
                Err(Unanswered::Stale(why)) => before = format!("{why}; then "),
                Err(Unanswered::Failed(why)) => return Err(why),
            }
        }
        self.exchange_anew(job, timeouts, end).await.map_err(|why| format!("{before}{why}"))
    }

    /// As [`Lane::exchange`], on a connection that is made for it.
    async fn exchange_anew(
        &mut self,
        job: &Assignment,
        timeouts: RequestTimeouts,
        end: Bound,
    ) -> Result<Answer, String> {
        let hook = &self.caller.hook;
        let connecting = end.or(Within::Connect(timeouts.connect).from(Instant::now()));
        let mut connection = self.alarm.within(connecting, connect::connect(hook)).await??;
        let request = self.heads.request(hook, job, RealClock.wall_ms())?;
        let answering = end.or(Within::FirstByte(timeouts.first_byte).from(Instant::now()));
        match self.alarm.within(answering, connection.send(request)).await? {
            Ok(response) => self.read(response, connection, end).await,
            Err(Unanswered::Stale(why) | Unanswered::Failed(why)) => Err(why),
        }
    }

    /// The connection of the job before, or one that was put aside.
    fn ready_connection(&mut self, now: Instant) -> Option<Connection> {
        let own = self.connection.take().filter(|connection| connection.is_ready(now));
        own.or_else(|| self.caller.connections.idle())
    }

    async fn read(
        &mut self,
        response: Response<Incoming>,
        mut connection: Connection,
        end: Bound,
    ) -> Result<Answer, String> {
        let reading = Answer::read(response, &mut connection, self.caller.hook.limits.result_max);
        let answer = self.alarm.within(end, reading).await??;
        if answer.is_whole() {
            self.connection = Some(connection);
        }
        Ok(answer)
    }

    /// Leaves the connection to whoever needs one next.
    fn leave(self) {
        if let Some(connection) = self.connection.filter(|connection| connection.is_ready(Instant::now())) {
            self.caller.connections.put_aside(connection);
        }
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
const LOOKUPS_MAX: usize = 2;

/// What runs jobs side by side on the calling thread.
///
/// # Errors
/// No thread or descriptor left.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    blocking::with_a_thread(tokio::runtime::Builder::new_current_thread().enable_all(), 0, LOOKUPS_MAX)
}

#[cfg(test)]
mod tests;
