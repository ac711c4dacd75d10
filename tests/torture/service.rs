//! A service that jobs are sent to: it notes in the history when a run begins and how it is about to end, as programs do.
//!
//! A thread for each connection. Its path says which version calls: `/good/N` or `/bad/N`. Knows when nobody talks to it
//! any more: what a dead biotope had sent is then noted.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::history::{Event, History, How};
use crate::producer::rest;
use crate::support::SOON;
use crate::support::wait::until;

/// A request, as far as it matters.
#[derive(Default)]
struct Request {
    path: String,
    id: String,
    task: String,
    attempt: u16,
    fence: u64,
}

/// The service. Its threads end with the test's process.
pub(crate) struct Service {
    pub(crate) port: u16,
    /// Connections that are open. Written by each connection's thread, and by the one that takes them.
    open: Arc<AtomicUsize>,
}

impl Service {
    /// Begins to serve.
    pub(crate) fn begin(history: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, open) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
        let (history, counted) = (Arc::new(History::join(history)), Arc::clone(&open));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, history, counted) = (stream.unwrap(), Arc::clone(&history), Arc::clone(&counted));
                counted.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    // Whoever hangs up has gone: its job is tried again, or its process was killed.
                    drop(serve(&stream, &history));
                    counted.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { port, open }
    }

    /// Waits until everything that was sent by callers that are gone has been dealt with.
    pub(crate) fn until_quiet(&self) {
        // Connections are taken in order: once this one is answered, all before it were taken.
        let mut last = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        last.write_all(b"GET /quiet HTTP/1.1\r\nconnection: close\r\n\r\n").unwrap();
        last.read_to_end(&mut Vec::new()).unwrap();
        drop(last);
        until("a quiet service", SOON, || match self.open.load(Ordering::SeqCst) {
            0 => Ok(()),
            some => Err(format!("{some} connections are open")),
        });
    }
}

fn serve(stream: &TcpStream, history: &History) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream);
    while let Some(request) = read(&mut lines)? {
        let answer = if request.path == "/quiet" { "200 OK" } else { run(history, &request) };
        (&mut &*stream).write_all(format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n").as_bytes())?;
        if request.path == "/quiet" {
            return Ok(());
        }
    }
    Ok(())
}

/// The next whole request of a connection, if one comes.
fn read(lines: &mut impl BufRead) -> std::io::Result<Option<Request>> {
    let (mut request, mut length, mut line) = (Request::default(), 0, String::new());
    loop {
        line.clear();
        if lines.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let text = line.trim_end();
        if request.path.is_empty() {
            text.split(' ').nth(1).unwrap_or("/").clone_into(&mut request.path);
            continue;
        }
        let Some((name, value)) = text.split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap_or(0),
            "ce-id" => value.clone_into(&mut request.id),
            "ce-task" => request.task = value.replace("%20", " "),
            "ce-attempt" => request.attempt = value.parse().unwrap_or(0),
            "ce-fence" => request.fence = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    lines.read_exact(&mut vec![0; length])?;
    Ok(Some(request))
}

/// Does a job; the status that says how.
fn run(history: &History, request: &Request) -> &'static str {
    let (n, what) = request.task.split_once(' ').unwrap();
    let (n, id, fence) = (n.parse().unwrap(), request.id.clone(), request.fence);
    let (kind, version) = request.path.trim_start_matches('/').split_once('/').unwrap();
    let version = version.parse().unwrap();
    let begin = Event::Begin { n, id: id.clone(), attempt: request.attempt, fence, at: 0 };
    history.add_all(&[begin, Event::On { n, id: id.clone(), fence, version, pid: 0 }]);
    if what == "slow" {
        rest(50);
    }
    let (how, answer) = match what {
        _ if kind == "bad" => (How::Bad, "404 Not Found"),
        "fail" if request.attempt == 1 => (How::Fail, "302 Found"),
        "defer" if fence % 2 == 1 => (How::Defer, "503 Service Unavailable"),
        _ => (How::Ok, "200 OK"),
    };
    history.add(&Event::End { n, id, fence, how });
    answer
}
