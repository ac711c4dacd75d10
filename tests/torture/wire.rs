//! As much of an HTTP client as a campaign needs: it tells apart what was answered and what stays unknown.
//!
//! One request a connection. An answer that breaks off counts as far as it came: each line of an NDJSON answer is an
//! answer of its own. Never repeats a request.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crate::support::SOON;

/// How long an answer is waited for, on a disk that others keep busy, too. Past it, it is unknown what happened.
const PATIENCE: Duration = SOON;

/// What became of one pushed job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is durable, under this id.
    Yes(String),
    /// It was refused: this status, this code.
    No(u16, String),
    /// Nobody knows.
    Unknown,
}

/// An open connection, on which nothing was sent yet.
pub(crate) struct Line {
    stream: TcpStream,
    port: u16,
}

/// Connects; an error here is a clear no: nothing was sent.
pub(crate) fn connect(port: u16) -> io::Result<Line> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(Line { stream, port })
}

impl Line {
    /// Pushes jobs, one as JSON, several as NDJSON; an answer for each, in order.
    pub(crate) fn push(self, jobs: &[Value]) -> Vec<Answer> {
        let text: Vec<String> = jobs.iter().map(Value::to_string).collect();
        let kind = if jobs.len() == 1 { "application/json" } else { "application/x-ndjson" };
        let answer = self.send("POST", "/v1/jobs", kind, text.join("\n").as_bytes());
        let mut answers = match answer {
            Some((200 | 201, body)) if jobs.len() == 1 => vec![one(&body)],
            Some((200, body)) => body.split(|byte| *byte == b'\n').filter_map(line).collect(),
            Some((status, body)) => vec![refusal(status, &code(&body)); jobs.len()],
            None => Vec::new(),
        };
        answers.resize(jobs.len(), Answer::Unknown);
        answers
    }

    /// Sends a request; status and body of the answer as far as they came, `None` if not even the head did.
    pub(crate) fn send(mut self, method: &str, path: &str, kind: &str, body: &[u8]) -> Option<(u16, Vec<u8>)> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            self.port,
            body.len()
        );
        // Who refuses a body may answer before it has read all of it: what comes back counts, whatever this says.
        drop(self.stream.write_all(head.as_bytes()).and_then(|()| self.stream.write_all(body)));
        let mut all = Vec::new();
        // An error is the end of what came.
        drop(self.stream.read_to_end(&mut all));
        split(&all)
    }
}

/// `GET path`, parsed; `None` if there was no whole answer with status 200.
pub(crate) fn get(port: u16, path: &str) -> Option<Value> {
    let (status, body) = connect(port).ok()?.send("GET", path, "", b"")?;
    (status == 200).then(|| serde_json::from_slice(&body).ok())?
}

/// All jobs of a query such as `state=dead`, over all pages.
pub(crate) fn jobs(port: u16, query: &str) -> Vec<Value> {
    let (mut jobs, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = get(port, &format!("/v1/jobs?{query}&limit=1000{cursor}")).unwrap();
        jobs.extend(page["jobs"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return jobs,
        }
    }
}

/// `POST path` without a body; the status.
pub(crate) fn post(port: u16, path: &str) -> Option<u16> {
    Some(connect(port).ok()?.send("POST", path, "application/json", b"")?.0)
}

/// Status and body, without the framing of chunks; a body that breaks off is as long as it came.
fn split(all: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = all.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&all[..end]).ok()?.to_ascii_lowercase();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let body = &all[end + 4..];
    if head.contains("transfer-encoding: chunked") {
        return Some((status, unchunk(body)));
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok())?;
    Some((status, body.get(..length).unwrap_or_default().to_vec()))
}

fn unchunk(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(line) = rest.windows(2).position(|two| two == b"\r\n")
        && let Some(size) = std::str::from_utf8(&rest[..line]).ok().and_then(|hex| usize::from_str_radix(hex, 16).ok())
        && size > 0
    {
        let from = line + 2;
        body.extend_from_slice(&rest[from.min(rest.len())..(from + size).min(rest.len())]);
        rest = rest.get(from + size + 2..).unwrap_or_default();
    }
    body
}

fn one(body: &[u8]) -> Answer {
    let id = serde_json::from_slice::<Value>(body).ok().and_then(|body| Some(body["id"].as_str()?.to_owned()));
    id.map_or(Answer::Unknown, Answer::Yes)
}

/// A line of an NDJSON answer; one that broke off in the middle is none.
fn line(text: &[u8]) -> Option<Answer> {
    let line: Value = serde_json::from_slice(text).ok()?;
    let status = u16::try_from(line["status"].as_u64()?).ok()?;
    match line["id"].as_str() {
        Some(id) => Some(Answer::Yes(id.to_owned())),
        None => Some(refusal(status, line["error"]["code"].as_str()?)),
    }
}

fn code(body: &[u8]) -> String {
    let body: Option<Value> = serde_json::from_slice(body).ok();
    body.and_then(|body| Some(body["code"].as_str()?.to_owned())).unwrap_or_default()
}

/// Only what is certain to have had no effect is a no: a stopping or poisoned process does not always know.
fn refusal(status: u16, code: &str) -> Answer {
    match (status, code) {
        (_, "stopping" | "poisoned" | "") | (500 | 502..=504, _) => Answer::Unknown,
        (status, code) => Answer::No(status, code.to_owned()),
    }
}

#[test]
fn an_answer_that_breaks_off_counts_as_far_as_it_came() {
    let line = "{\"line\":1,\"status\":201,\"id\":\"a\"}\n{\"line\":2,\"status\":20";
    let broken = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{line}", line.len() + 9);
    let (status, body) = split(broken.as_bytes()).unwrap();
    let lines: Vec<Answer> = body.split(|byte| *byte == b'\n').filter_map(self::line).collect();
    assert_eq!((status, lines), (200, vec![Answer::Yes("a".to_owned())]));
    let short = split(b"HTTP/1.1 201 Created\r\ncontent-length: 12\r\n\r\n{\"id\":\"a\"");
    assert_eq!(short, Some((201, Vec::new())), "half a body of known length is none");
}
