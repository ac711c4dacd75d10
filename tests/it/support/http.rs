//! As much of an HTTP client as the tests need: one request a connection, the answer read to its end.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use super::LATER;

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Status line and headers.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let end = self.body.len().min(2000);
        write!(f, "{}\n{}", self.head, String::from_utf8_lossy(&self.body[..end]))
    }
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The body as lines of JSON.
    pub(crate) fn lines(&self) -> Vec<Value> {
        let text = std::str::from_utf8(&self.body).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

/// `GET path`.
pub(crate) fn get(port: u16, path: &str) -> io::Result<Answer> {
    request(port, &format!("GET {path} HTTP/1.1\r\n"), &[])
}

/// `DELETE path`.
pub(crate) fn delete(port: u16, path: &str) -> io::Result<Answer> {
    request(port, &format!("DELETE {path} HTTP/1.1\r\n"), &[])
}

/// `POST path`.
pub(crate) fn post(port: u16, path: &str, content_type: &str, body: &[u8]) -> io::Result<Answer> {
    let head = format!("POST {path} HTTP/1.1\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n", body.len());
    request(port, &head, body)
}

/// A request with a head of the caller's, up to what every one has.
pub(crate) fn request(port: u16, head: &str, body: &[u8]) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(LATER))?;
    stream.set_write_timeout(Some(LATER))?;
    let head = format!("{head}Host: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
    let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    // A server that refuses a body may answer and close before it has read all of it: the answer counts.
    let mut all = Vec::new();
    let mut some = vec![0; 1 << 16];
    loop {
        let read = stream.read(&mut some);
        // With a timeout set, a read is cut short when the whole machine is stopped for a while.
        if read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::Interrupted) {
            continue;
        }
        all.extend_from_slice(&some[..*read.as_ref().unwrap_or(&0)]);
        let ended = !matches!(read, Ok(1..));
        match parse(&all, ended) {
            Some(answer) => return Ok(answer),
            None if ended => return sent.and(read).and(Err(io::Error::other("no whole answer"))),
            None => {}
        }
    }
}

/// The answer, once it is whole: by its length, by its last chunk, or by the end of the stream.
fn parse(all: &[u8], ended: bool) -> Option<Answer> {
    let end = all.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&all[..end]).ok()?.to_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let body = &all[end + 4..];
    let mut answer = Answer { status, head, body: Vec::new() };
    if let Some(length) = answer.header("content-length") {
        answer.body = body.get(..length.parse().ok()?)?.to_vec();
        return Some(answer);
    }
    if answer.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        answer.body = unchunk(body)?;
        return Some(answer);
    }
    answer.body = body.to_vec();
    ended.then_some(answer)
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|two| two == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).ok()?.trim(), 16).ok()?;
        rest = rest.get(line + 2..)?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size + 2..)?;
    }
}
