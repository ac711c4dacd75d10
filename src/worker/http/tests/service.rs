//! Services that behave badly in one way each, on a port of their own.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The shortest good answer.
pub(super) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// What a service is asked.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) line: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The next request on a connection; `None` at its end.
    pub(super) fn read(stream: &mut impl Read) -> Option<Self> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte).ok()? == 0 {
                return None;
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.lines();
        let line = lines.next()?.to_owned();
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let mut request = Self { line, headers, body: Vec::new() };
        request.body = vec![0; request.header("content-length").map_or(0, |length| length.parse().unwrap())];
        stream.read_exact(&mut request.body).ok()?;
        Some(request)
    }
}

#[derive(Default)]
struct Seen {
    connections: AtomicU32,
    ended: AtomicU32,
    closing: AtomicBool,
    requests: Mutex<Vec<Request>>,
}

/// A service; dropped, it takes no connection any more.
pub(super) struct Service {
    pub(super) port: u16,
    seen: Arc<Seen>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Service {
    fn doing(behave: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> Self {
        Self::reading(move |stream, seen| {
            while let Some(request) = Request::read(stream) {
                seen.requests.lock().unwrap().push(request);
                behave(stream);
            }
        })
    }

    fn reading(serve: impl Fn(&mut TcpStream, &Seen) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Seen::default());
        let (of_thread, serve) = (Arc::clone(&seen), Arc::new(serve));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if of_thread.closing.load(Ordering::SeqCst) {
                    return;
                }
                let mut stream = stream.unwrap();
                of_thread.connections.fetch_add(1, Ordering::SeqCst);
                let (seen, serve) = (Arc::clone(&of_thread), Arc::clone(&serve));
                std::thread::spawn(move || {
                    serve(&mut stream, &seen);
                    seen.ended.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Self { port, seen, thread: Some(thread) }
    }

    /// Serves every connection by `serve`.
    pub(super) fn by(serve: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> Self {
        Self::reading(move |stream, _| serve(stream))
    }

    /// Gives every request this answer.
    pub(super) fn answering(answer: &str) -> Self {
        let answer = answer.to_owned();
        Self::doing(move |stream| drop(stream.write_all(answer.as_bytes())))
    }

    /// Takes connections, and says nothing.
    pub(super) fn silent() -> Self {
        Self::reading(|stream, _| drop(stream.read_to_end(&mut Vec::new())))
    }

    /// Begins an answer, and never ends it.
    pub(super) fn hanging_after(head: &str) -> Self {
        let head = head.to_owned();
        Self::doing(move |stream| {
            drop(stream.write_all(head.as_bytes()));
            drop(stream.read_to_end(&mut Vec::new()));
        })
    }

    /// Closes the connection after so much of an answer.
    pub(super) fn closing_after(answer: &str) -> Self {
        let answer = answer.to_owned();
        Self::doing(move |stream| {
            drop(stream.write_all(answer.as_bytes()));
            drop(stream.shutdown(std::net::Shutdown::Both));
        })
    }

    /// Answers its first request, and closes each connection by which another one has come for so long.
    pub(super) fn giving_up(after: Duration) -> Self {
        let answered = AtomicBool::new(false);
        Self::doing(move |stream| {
            if answered.swap(true, Ordering::SeqCst) {
                stream.set_read_timeout(Some(after)).unwrap();
                // The caller says nothing meanwhile: a wait.
                drop(stream.read(&mut [0]));
                drop(stream.shutdown(std::net::Shutdown::Both));
            } else {
                drop(stream.write_all(OK.as_bytes()));
            }
        })
    }

    /// Goes on with an answer, a byte now and then.
    pub(super) fn dripping(head: &str) -> Self {
        let head = head.to_owned();
        Self::doing(move |stream| {
            drop(stream.write_all(head.as_bytes()));
            stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
            // The caller says nothing meanwhile: each read is a short wait, until it leaves.
            while matches!(stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock) {
                drop(stream.write_all(b"x"));
            }
        })
    }

    /// Goes on with an answer as fast as it can, for as long as anybody reads.
    pub(super) fn flooding(head: &str) -> Self {
        let head = head.to_owned();
        Self::doing(move |stream| {
            drop(stream.write_all(head.as_bytes()));
            let some = vec![b'x'; 1 << 16];
            while stream.write_all(&some).is_ok() {}
        })
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.seen.requests.lock().unwrap().clone()
    }

    pub(super) fn connections(&self) -> u32 {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// Connections that have ended.
    pub(super) fn ended(&self) -> u32 {
        self.seen.ended.load(Ordering::SeqCst)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.seen.closing.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], self.port))));
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}
