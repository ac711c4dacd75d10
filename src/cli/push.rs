//! `push`: one job, or one a line, as many as there are.

use std::io::{BufRead, IsTerminal, Read, Write};

use axum::http::{Method, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, channel};
use hyper::body::Incoming;

use super::client::{Client, escape, whole};
use super::{PushArgs, print, print_while_read};
use crate::exit::{BUG, DATA, Failure, IO, NO_INPUT, UNAVAILABLE, USAGE};
use crate::job::trace::TraceParent;

/// Bytes that are read from the file at once.
const PIECE_BYTES: usize = 64 << 10;
/// Pieces that are read ahead of a busy server.
const PIECES_AHEAD: usize = 8;

pub(super) fn push(client: &Client, args: &PushArgs) -> Result<(), Failure> {
    let file = args.file.as_ref().filter(|file| file.as_os_str() != "-");
    let from_stdin = args.payload.as_deref() == Some("-")
        || args.worker_type.as_deref() == Some("-")
        || args.file.is_some() && file.is_none();
    let worker_type = args.worker_type.as_deref().filter(|name| *name != "-");
    if let Some(file) = file {
        let opened = std::fs::File::open(file)
            .map_err(|error| Failure::new(NO_INPUT, format!("cannot read {}: {error}", file.display())))?;
        let size = opened.metadata().map_or(0, |metadata| metadata.len());
        return push_lines(client, worker_type, Box::new(opened), size);
    }
    if from_stdin {
        if args.min_version.is_some() {
            return Err(Failure::new(
                USAGE,
                "--min-version is for one job; jobs of a file say `\"min_version\":\"v2\"` themselves",
            ));
        }
        return push_lines(client, worker_type, Box::new(std::io::stdin()), 0);
    }
    let Some(worker_type) = worker_type else {
        return Err(Failure::new(USAGE, "push what? `push TYPE JSON`, `push [TYPE] --file FILE`, or `push [TYPE] -`"));
    };
    push_one(client, worker_type, args.payload.as_deref().unwrap_or("null"), args.min_version.as_deref())
}

fn push_one(client: &Client, worker_type: &str, payload: &str, min_version: Option<&str>) -> Result<(), Failure> {
    let payload: &serde_json::value::RawValue = serde_json::from_str(payload).map_err(|error| {
        Failure::new(DATA, format!("the payload is no JSON: {error}; quote it for the shell, like '{{\"a\":1}}'"))
    })?;
    let mut job = match min_version {
        Some(label) => serde_json::json!({ "type": worker_type, "min_version": label }),
        None => serde_json::json!({ "type": worker_type }),
    };
    // By this variable programs tell those that they start of the trace that they are in; what is none tells nothing.
    let trace = std::env::var("TRACEPARENT").ok().and_then(|text| text.parse::<TraceParent>().ok());
    if let (Some(trace), Some(members)) = (trace, job.as_object_mut()) {
        members.insert("traceparent".to_owned(), trace.to_string().into());
    }
    // The payload stays as it was written.
    let text = job.to_string();
    let text = format!("{},\"payload\":{}}}", text.trim_end_matches('}'), payload.get());
    let (_, answer) = client.ask(Method::POST, "/v1/jobs", whole(text))?;
    #[derive(serde::Deserialize)]
    struct Pushed {
        id: String,
    }
    let pushed: Pushed = serde_json::from_slice(&answer)
        .map_err(|error| Failure::new(UNAVAILABLE, format!("the answer is no answer of biotope's: {error}")))?;
    print(&pushed.id)
}

/// One line of the answer.
#[derive(serde::Deserialize)]
struct LineAnswer {
    line: u64,
    id: Option<String>,
    error: Option<LineError>,
}

#[derive(serde::Deserialize)]
struct LineError {
    detail: String,
}

fn push_lines(
    client: &Client,
    worker_type: Option<&str>,
    source: Box<dyn Read + Send>,
    size: u64,
) -> Result<(), Failure> {
    let path = match worker_type {
        Some(name) => format!("/v1/jobs?type={}", escape(name)),
        None => "/v1/jobs".to_owned(),
    };
    let bar = progress_bar(size);
    let refused_lines = client.block_on(async {
        let (pieces, body) = channel::Channel::<Bytes, std::io::Error>::new(PIECES_AHEAD);
        let reading = tokio::task::spawn_blocking({
            let bar = bar.clone();
            move || send_pieces(source, pieces, &bar)
        });
        let answer = client.send(Method::POST, &path, "application/x-ndjson", body.boxed()).await?;
        if answer.status != StatusCode::OK {
            let text = answer.body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            return Err(client.refused(answer.status, &text));
        }
        let refused_lines = read_answers(answer.body, &bar).await?;
        match reading.await {
            Ok(Ok(())) => Ok(refused_lines),
            Ok(Err(error)) => Err(Failure::new(IO, format!("the jobs could not be read to their end: {error}"))),
            Err(_) => Err(Failure::new(BUG, "a bug ended the reading of the jobs")),
        }
    })?;
    bar.finish_and_clear();
    match refused_lines {
        0 => Ok(()),
        1 => Err(Failure::new(DATA, "1 line was refused; the others went in")),
        count => Err(Failure::new(DATA, format!("{count} lines were refused; the others went in"))),
    }
}

/// Shown only to people: when stderr is a terminal, and the size is known.
fn progress_bar(size: u64) -> indicatif::ProgressBar {
    if size == 0 || !std::io::stderr().is_terminal() {
        return indicatif::ProgressBar::hidden();
    }
    let style = indicatif::ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    // Whatever ends the push, the terminal is left clean.
    let bar = indicatif::ProgressBar::new(size).with_finish(indicatif::ProgressFinish::AndClear);
    style.map_or_else(|_| indicatif::ProgressBar::hidden(), |style| bar.with_style(style))
}

fn send_pieces(
    mut source: Box<dyn Read + Send>,
    mut pieces: channel::Sender<Bytes, std::io::Error>,
    bar: &indicatif::ProgressBar,
) -> std::io::Result<()> {
    let mut buffer = vec![0; PIECE_BYTES];
    let runtime = tokio::runtime::Handle::current();
    loop {
        let read = match source.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => {
                // Half a line must not be taken for a whole one.
                pieces.abort(std::io::Error::new(error.kind(), error.to_string()));
                return Err(error);
            }
        };
        let piece = Bytes::copy_from_slice(buffer.get(..read).unwrap_or_default());
        if runtime.block_on(pieces.send_data(piece)).is_err() {
            // The server answers without the rest: what it says is what counts.
            return Ok(());
        }
        bar.inc(read as u64);
    }
}

/// Prints ids as they come; returns how many lines were refused.
async fn read_answers(mut body: Incoming, bar: &indicatif::ProgressBar) -> Result<u64, Failure> {
    let mut refused_lines = 0;
    let mut wanted = true;
    let mut rest = Vec::new();
    while let Some(frame) = body.frame().await {
        let broken = |error| {
            Failure::new(
                UNAVAILABLE,
                format!("the answer broke off: {error}; lines without an answer may be in or not"),
            )
        };
        let Ok(piece) = frame.map_err(broken)?.into_data() else { continue };
        rest.extend_from_slice(&piece);
        let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else { continue };
        let after = rest.split_off(end + 1);
        let lines = std::mem::replace(&mut rest, after);
        refused_lines += bar.suspend(|| print_answers(&lines, &mut wanted))?;
    }
    Ok(refused_lines)
}

/// `wanted`: whether somebody still reads the ids. Who went away has seen enough; the jobs go in all the same.
fn print_answers(lines: &[u8], wanted: &mut bool) -> Result<u64, Failure> {
    let mut refused_lines = 0;
    let mut ids = String::new();
    for line in lines.lines() {
        let line = line.map_err(|error| Failure::new(UNAVAILABLE, error.to_string()))?;
        let answer: LineAnswer = serde_json::from_str(&line)
            .map_err(|error| Failure::new(UNAVAILABLE, format!("the answer is no answer of biotope's: {error}")))?;
        if let Some(id) = answer.id {
            ids.push_str(&id);
            ids.push('\n');
        } else if let Some(error) = answer.error {
            refused_lines += 1;
            drop(writeln!(std::io::stderr(), "biotope: line {}: {}", answer.line, error.detail));
        }
    }
    if *wanted && !ids.is_empty() {
        *wanted = print_while_read(ids.trim_end())?;
    }
    Ok(refused_lines)
}
