//! `POST /v1/jobs` with a job a line: read, enqueued and answered in portions, so that neither side holds all of it.

use std::time::Duration;

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, channel};
use tokio::time::timeout;

use super::buffers::Share;
use super::problem::{Problem, status_of as status_of_refusal};
use super::{AROUND_PAYLOAD_MAX, App, answer, status_of};
use crate::job::intake::parse_job;
use crate::job::lines::{Line, Lines};
use crate::job::new::{NewJob, Pushed};
use crate::job::trace::TraceParent;
use crate::refusal::Refusal;
use crate::types::WorkerType;

/// Lines that are enqueued at once.
const PORTION_LINES: usize = 1000;
/// Bytes of lines that are enqueued at once.
const PORTION_BYTES: usize = 4 << 20;
/// Lines wait so long for more of them, to be enqueued together.
const QUIET: Duration = Duration::from_millis(20);
/// Portions of answers that may wait for a slow reader.
const ANSWERS_AHEAD: usize = 1;

/// Answers with a line for each line, as soon as its job is durable or refused.
/// Jobs that name no trace belong to `trace`.
pub(super) fn push_lines(
    app: App,
    default_type: Option<WorkerType>,
    trace: Option<TraceParent>,
    body: Body,
) -> Response {
    let (answers, channel) = channel::Channel::<Bytes, std::io::Error>::new(ANSWERS_AHEAD);
    tokio::spawn(async move {
        let mut answers = answers;
        let max = app.handle.limits().payload_max * 2 + AROUND_PAYLOAD_MAX;
        let share = app.buffers.share();
        let mut portions = Portions { app, default_type, trace, waiting: Vec::new(), bytes: 0, answered: 0, share };
        if let Err(problem) = portions.run(body, Lines::new(max), &mut answers).await {
            // In the middle of an answer nothing is left but to break it off, so that nobody takes it for whole.
            tracing::debug!(detail = problem.detail, "an NDJSON request was broken off");
            answers.abort(std::io::Error::other(problem.detail));
        }
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::new(channel)).into_response()
}

/// The lines that wait to be enqueued.
struct Portions {
    app: App,
    default_type: Option<WorkerType>,
    trace: Option<TraceParent>,
    waiting: Vec<(u64, Result<NewJob, Refusal>)>,
    bytes: usize,
    /// Bytes of the last portion's answers, which may not have been read.
    answered: usize,
    share: Share,
}

type Answers = channel::Sender<Bytes, std::io::Error>;

impl Portions {
    async fn run(&mut self, mut body: Body, mut lines: Lines, answers: &mut Answers) -> Result<(), Problem> {
        while let Some(piece) = self.piece(&mut body, answers).await? {
            for line in lines.take(&piece) {
                self.add(line);
                if self.waiting.len() >= PORTION_LINES || self.bytes >= PORTION_BYTES {
                    self.enqueue(answers).await?;
                }
            }
            self.fit(lines.held(), answers).await?;
        }
        if let Some(line) = lines.finish() {
            self.add(line);
        }
        self.enqueue(answers).await
    }

    /// The next piece of the body. Where it does not come at once, what waits is enqueued meanwhile: who sends a line now and
    /// then is not to wait for the next one.
    async fn piece(&mut self, body: &mut Body, answers: &mut Answers) -> Result<Option<Bytes>, Problem> {
        let most = self.app.handle.serving().body_timeout;
        let late = || {
            let detail = format!("nothing more came within {most:?} (`http.body_timeout`)");
            Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", detail)
        };
        let quick = if self.waiting.is_empty() { None } else { timeout(QUIET, body.frame()).await.ok() };
        let frame = match quick {
            Some(frame) => frame,
            None => {
                self.enqueue(answers).await?;
                timeout(most, body.frame()).await.map_err(|_| late())?
            }
        };
        let frame = frame.transpose().map_err(|error| Problem::bad_request(error.to_string()))?;
        // Trailers are no data.
        Ok(frame.map(|frame| frame.into_data().unwrap_or_default()))
    }

    /// Keeps what is in memory within the bound that all share: what waits is enqueued first, then the others are waited for.
    async fn fit(&mut self, partial: usize, answers: &mut Answers) -> Result<(), Problem> {
        let beside = partial + self.answered * (ANSWERS_AHEAD + 1);
        if self.share.hold(self.bytes + beside).is_ok() {
            return Ok(());
        }
        self.enqueue(answers).await?;
        let beside = partial + self.answered * (ANSWERS_AHEAD + 1);
        let most = self.app.handle.serving().body_timeout;
        Ok(self.share.hold_in_time(beside, most).await?)
    }

    fn add(&mut self, line: Line) {
        let limits = self.app.handle.limits();
        let job = match &line.text {
            Some(text) => {
                self.bytes += text.len();
                parse_job(text, self.default_type.as_ref(), limits, self.app.clock.wall_ms())
            }
            None => Err(Refusal::TooLarge {
                what: "the line, at least,",
                bytes: limits.payload_max * 2 + AROUND_PAYLOAD_MAX,
                max: limits.payload_max,
                key: "log.payload_max",
            }),
        };
        let job = job.map(|job| NewJob { traceparent: job.traceparent.or(self.trace), ..job });
        self.waiting.push((line.number, job));
    }

    /// Enqueues what waits, and answers it in order.
    async fn enqueue(&mut self, answers: &mut Answers) -> Result<(), Problem> {
        let waiting = std::mem::take(&mut self.waiting);
        self.bytes = 0;
        if waiting.is_empty() {
            return Ok(());
        }
        let mut places = Vec::with_capacity(waiting.len());
        let mut jobs = Vec::with_capacity(waiting.len());
        for (number, job) in waiting {
            let job = job.map(|job| jobs.push(job));
            places.push((number, job));
        }
        let pushed = answer(&self.app.handle, |then| self.app.handle.submit(jobs, then)).await?;
        let mut pushed = pushed.into_iter();
        let mut text = String::new();
        for (number, place) in places {
            let result = place.and_then(|()| pushed.next().unwrap_or(Err(Refusal::Stopping)));
            let line = serde_json::to_string(&line_answer(number, &result));
            text.push_str(
                &line.map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "bug", error.to_string()))?,
            );
            text.push('\n');
        }
        self.answered = text.len();
        let gone = |_| Problem::bad_request("the client went away");
        answers.send_data(Bytes::from(text)).await.map_err(gone)
    }
}

/// The answer to a line, in the order of the reference.
#[derive(serde::Serialize)]
struct LineAnswer<'a> {
    line: u64,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<LineError>,
}

#[derive(serde::Serialize)]
struct LineError {
    code: &'static str,
    detail: String,
}

fn line_answer(line: u64, result: &Result<Pushed, Refusal>) -> LineAnswer<'_> {
    match result {
        Ok(pushed) => {
            let (status, duplicate) = (status_of(pushed).as_u16(), pushed.duplicate);
            LineAnswer { line, status, id: Some(&pushed.id), duplicate, error: None }
        }
        Err(refusal) => {
            // A job's only line would be called line 1, beside the number of this one.
            let detail = match refusal {
                Refusal::InvalidJson { column, detail, .. } => format!("invalid JSON at column {column}: {detail}"),
                other => other.to_string(),
            };
            let error = Some(LineError { code: refusal.code(), detail });
            LineAnswer { line, status: status_of_refusal(refusal).as_u16(), id: None, duplicate: false, error }
        }
    }
}
