//! The conversation with a program that stays: JSON-RPC 2.0, one object a line.
//!
//! Owns what is asked, what may be answered, and what an answer means for its job. Bytes in, events out: does no I/O,
//! knows no process, reads no clock. The same bytes give the same events, however they are split.
//!
//! Promises:
//! - Each job asked for comes out at most once, as [`Event::Answer`]; what is still open is told by [`Session::open_jobs`].
//! - The first violation is final: it comes out of every later [`Session::poll`].
//! - Holds at most one line of [`LINE_BYTES_MAX`], and the open questions of one cycle.
//!
//! ```text
//! hello ─► (job × batch ─► answer × batch ─► wipe ─► answer)*        anything else is a violation
//! ```

mod notice;

use std::collections::BTreeMap;
use std::time::Duration;

pub(super) use self::notice::{Level, LogLine};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::answer::{answer_to_job, error_message, present};
use super::launch::OutputLimits;
use super::output::front;
use super::progress::Progress;
use super::{Assignment, Outcome};
use crate::limits::FRAME_BYTES_MAX;
use crate::types::{Lease, UnixMs};

/// Version of this protocol.
const PROTOCOL: u32 = 1;
/// Longest line: a result and follow-up jobs that fill the largest frame, and what JSON-RPC puts around them.
pub(super) const LINE_BYTES_MAX: usize = FRAME_BYTES_MAX + (64 << 10);
/// How much of a bad line an error shows, in bytes.
const SHOWN_BYTES_MAX: usize = 120;

/// What a program said.
#[derive(Debug, PartialEq)]
pub(super) enum Event {
    /// It speaks our protocol.
    Hello,
    /// What became of a job.
    Answer(Lease, Outcome),
    /// It needs more time for a job that is open: so much, or as much as its timeout is.
    Extended(Lease, Option<Duration>),
    /// How far a job is that is open.
    Progressed(Lease, Progress),
    /// All state of the cycle is dropped.
    Wiped,
    /// It wants something to be logged.
    Log(LogLine),
}

/// What a program may not do, in words that fit after its name. It cannot be talked to any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Violation(String);

/// A question that is not a job.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Control {
    Hello,
    Wipe(String),
}

impl Control {
    fn id(&self) -> &str {
        match self {
            Self::Hello => "hello",
            Self::Wipe(id) => id,
        }
    }
}

/// A job of this cycle.
#[derive(Debug)]
struct Asked {
    lease: Lease,
    answered: bool,
}

/// The conversation with one process.
#[derive(Debug)]
pub(super) struct Session {
    limits: OutputLimits,
    /// The line that is coming in, and perhaps more lines.
    buffer: Vec<u8>,
    /// Bytes of `buffer` that are done with.
    done: usize,
    /// Bytes of `buffer` behind `done` that hold no newline.
    searched: usize,
    control: Option<Control>,
    jobs: BTreeMap<String, Asked>,
    wipes: u64,
    violation: Option<Violation>,
}

#[derive(Serialize)]
struct Request<'a, P> {
    id: &'a str,
    jsonrpc: &'static str,
    method: &'static str,
    params: P,
}

#[derive(Serialize)]
struct HelloParams<'a> {
    protocol: u32,
    #[serde(rename = "type")]
    worker_type: &'a str,
    version: &'a str,
}

#[derive(Serialize)]
struct JobParams<'a> {
    job_id: &'a str,
    task: &'a str,
    payload: &'a RawValue,
    attempt: u16,
    max_attempts: u16,
    tenant: Option<&'a str>,
    fence: u64,
    deadline_ms: UnixMs,
    /// Last, and only where there is one: what is known of its members by their order stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
}

#[derive(Serialize)]
struct NoParams {}

/// What is told without a question.
#[derive(Serialize)]
struct Notification<P> {
    jsonrpc: &'static str,
    method: &'static str,
    params: P,
}

#[derive(Serialize)]
struct CancelParams<'a> {
    id: &'a str,
}

#[derive(Deserialize)]
struct HelloResult {
    protocol: u32,
}

/// One line from the program.
#[derive(Deserialize)]
struct Message<'a> {
    jsonrpc: String,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    method: Option<String>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    error: Option<&'a RawValue>,
}

impl Session {
    /// A conversation that has not begun.
    pub(super) fn new(limits: OutputLimits) -> Self {
        Self {
            limits,
            buffer: Vec::new(),
            done: 0,
            searched: 0,
            control: None,
            jobs: BTreeMap::new(),
            wipes: 0,
            violation: None,
        }
    }

    /// The opening question.
    pub(super) fn hello(&mut self, worker_type: &str, version: &str) -> Vec<u8> {
        self.control = Some(Control::Hello);
        request("hello", "hello", HelloParams { protocol: PROTOCOL, worker_type, version })
    }

    /// The question that gives a job. `Err`: its payload is no JSON, so it cannot be asked.
    pub(super) fn job(&mut self, job: &Assignment) -> Result<Vec<u8>, Outcome> {
        let payload = serde_json::from_slice(&job.payload)
            .map_err(|e| Outcome::Dead { error: format!("the payload is no JSON: {e}") })?;
        let id = id_of(job.lease);
        let params = JobParams {
            job_id: &job.id,
            task: &job.task,
            payload,
            attempt: job.attempt,
            max_attempts: job.max_attempts,
            tenant: job.tenant.as_deref(),
            fence: job.lease.fence.as_number(),
            deadline_ms: job.deadline_ms,
            traceparent: job.traceparent.map(|trace| trace.to_string()),
        };
        let line = request(&id, "job", params);
        self.jobs.insert(id, Asked { lease: job.lease, answered: false });
        Ok(line)
    }

    /// What tells that a job is cancelled. It may be answered already, and the answer on its way.
    pub(super) fn cancel(lease: Lease) -> Vec<u8> {
        let params = CancelParams { id: &id_of(lease) };
        line_of(&Notification { jsonrpc: "2.0", method: "cancel", params })
    }

    /// The question that ends a cycle.
    pub(super) fn wipe(&mut self) -> Vec<u8> {
        self.wipes += 1;
        let id = format!("wipe-{}", self.wipes);
        let line = request(&id, "wipe", NoParams {});
        self.control = Some(Control::Wipe(id));
        line
    }

    /// The jobs that are not answered, in the order of their leases.
    pub(super) fn open_jobs(&self) -> impl Iterator<Item = Lease> {
        self.jobs.values().filter(|asked| !asked.answered).map(|asked| asked.lease)
    }

    /// Takes bytes that came. To be followed by [`Session::poll`] until it has no more events.
    pub(super) fn handle_bytes(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.done);
        self.done = 0;
        if self.violation.is_none() {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// The next thing that the program said; `None` until more bytes come.
    ///
    /// # Errors
    /// The program broke the protocol, now or before.
    pub(super) fn poll(&mut self, now: UnixMs) -> Result<Option<Event>, Violation> {
        if let Some(violation) = &self.violation {
            return Err(violation.clone());
        }
        let polled = self.poll_lines(now);
        if let Err(violation) = &polled {
            self.violation = Some(violation.clone());
            self.buffer = Vec::new();
            self.done = 0;
        }
        polled
    }

    fn poll_lines(&mut self, now: UnixMs) -> Result<Option<Event>, Violation> {
        while let Some(line) = self.line()? {
            if line.trim_ascii().is_empty() {
                return Err(Violation("wrote an empty line".into()));
            }
            if let Some(event) = self.handle_line(&line, now)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// The next whole line, without its newline.
    fn line(&mut self) -> Result<Option<Vec<u8>>, Violation> {
        let rest = self.buffer.get(self.done..).unwrap_or_default();
        let newline = rest.iter().skip(self.searched).position(|b| *b == b'\n').map(|at| at + self.searched);
        if newline.unwrap_or(rest.len()) > LINE_BYTES_MAX {
            return Err(Violation(format!("wrote a line of more than {LINE_BYTES_MAX} bytes")));
        }
        let Some(newline) = newline else {
            self.searched = rest.len();
            return Ok(None);
        };
        let line = rest.get(..newline).unwrap_or_default().to_vec();
        self.done += newline + 1;
        self.searched = 0;
        Ok(Some(line))
    }

    fn handle_line(&mut self, line: &[u8], now: UnixMs) -> Result<Option<Event>, Violation> {
        let no_rpc = |why: String| Violation(format!("wrote a line that is no JSON-RPC 2.0 ({why}): {}", shown(line)));
        let text = std::str::from_utf8(line).map_err(|_| no_rpc("not UTF-8".into()))?;
        let message: Message<'_> = serde_json::from_str(text).map_err(|e| no_rpc(e.to_string()))?;
        if message.jsonrpc != "2.0" {
            return Err(no_rpc("`jsonrpc` is not \"2.0\"".into()));
        }
        match (message.method.as_deref(), message.id) {
            (Some(method), None) => Ok(message.params.and_then(|params| self.handle_notice(method, params))),
            (Some(method), Some(_)) => Err(Violation(format!("asks for {:?}; a worker answers", front(method, 64)))),
            (None, None) => Err(no_rpc("neither `id` nor `method`".into())),
            (None, Some(id)) => match (message.result, message.error) {
                (Some(result), None) => self.handle_answer(id, Ok(result), now).map(Some),
                (None, Some(error)) => self.handle_answer(id, Err(error), now).map(Some),
                (Some(_), Some(_)) => Err(no_rpc("both `result` and `error`".into())),
                (None, None) => Err(no_rpc("neither `result` nor `error`".into())),
            },
        }
    }

    fn handle_answer(
        &mut self,
        id: &RawValue,
        answer: Result<&RawValue, &RawValue>,
        now: UnixMs,
    ) -> Result<Event, Violation> {
        let known: Option<String> = serde_json::from_str(id.get()).ok();
        let known = known.unwrap_or_default();
        if let Some(asked) = self.jobs.get_mut(&known) {
            if asked.answered {
                return Err(Violation(format!("answered {known:?} twice")));
            }
            asked.answered = true;
            return Ok(Event::Answer(asked.lease, answer_to_job(answer, self.limits, now)));
        }
        let Some(control) = self.control.take_if(|control| control.id() == known) else {
            let said = answer.err().map(|error| format!(": {}", error_message(error))).unwrap_or_default();
            return Err(Violation(format!("answered the unknown id {}{said}", front(id.get(), SHOWN_BYTES_MAX))));
        };
        match (control, answer) {
            (Control::Hello, Ok(result)) => self.handle_hello(result),
            (Control::Wipe(_), Ok(_)) => {
                self.jobs.clear();
                Ok(Event::Wiped)
            }
            (Control::Hello, Err(error)) => Err(Violation(format!("refused hello: {}", error_message(error)))),
            (Control::Wipe(_), Err(error)) => Err(Violation(format!("did not wipe: {}", error_message(error)))),
        }
    }

    fn handle_hello(&self, result: &RawValue) -> Result<Event, Violation> {
        match serde_json::from_str::<HelloResult>(result.get()) {
            Ok(HelloResult { protocol: PROTOCOL }) => Ok(Event::Hello),
            Ok(HelloResult { protocol }) => Err(Violation(format!("speaks protocol {protocol}, not {PROTOCOL}"))),
            Err(e) => Err(Violation(format!("answered hello without `protocol` ({e})"))),
        }
    }
}

/// The id of the question that gives a job.
fn id_of(Lease { born, fence }: Lease) -> String {
    format!("{born}-{}-{}", fence.epoch, fence.counter)
}

fn request(id: &str, method: &'static str, params: impl Serialize) -> Vec<u8> {
    line_of(&Request { id, jsonrpc: "2.0", method, params })
}

fn line_of(message: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).expect("texts, numbers and checked JSON have a JSON form");
    // White space between the parts of a payload is not ours, but a newline there would end the line.
    line.iter_mut().filter(|b| matches!(b, b'\n' | b'\r')).for_each(|b| *b = b' ');
    line.push(b'\n');
    line
}

/// The front of a line, for an error.
fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line.get(..line.len().min(SHOWN_BYTES_MAX)).unwrap_or_default());
    format!("{text:?}")
}

#[cfg(fuzzing)]
mod told;
#[cfg(fuzzing)]
pub use told::told;

#[cfg(test)]
mod tests;
