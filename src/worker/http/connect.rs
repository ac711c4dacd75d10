//! Ways to the service: looked up, checked, connected, and kept for the next job.
//!
//! Owns that nothing is connected to but an address that was checked: a name is looked up once for a connection, or for all
//! that are made in the same moment, each of its addresses is checked, and the connection is made to that very address.
//! Reads no variable, so no proxy's either.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::definition::Hook;
use super::joined::Joined;
use crate::clock::{Clock, RealClock};
use crate::config::target::is_public;

/// A connection that nobody used for so long is not used again: services close theirs, some after 5 s.
const IDLE_MAX: Duration = Duration::from_secs(4);
/// After so long the name is looked up anew, however busy the connection is.
const AGE_MAX: Duration = Duration::from_secs(60);
/// One that was closed while nobody looked shows that within this time of a request: what is closed later had the service at work.
pub(super) const STALE_WITHIN: Duration = Duration::from_secs(1);
/// Longest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;

/// A connection to the service. It goes on only while somebody waits for an answer by it.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// What reads and writes; `None`: it is closed.
    wire: Option<Wire>,
    bell: Arc<Bell>,
    /// Rings it.
    waker: Waker,
    made: Instant,
    /// When it was put aside, by the clock that goes on while the machine sleeps; `None`: it never was.
    aside: Option<Duration>,
    /// Whether it has had an answer.
    answered: bool,
}

type Wire = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Wakes who waits for a connection, unless he looks anyhow.
struct Bell {
    waiting: Mutex<Waker>,
    /// Written and read by the thread of the connection: relaxed.
    muted: AtomicBool,
}

impl Bell {
    fn waiting(&self) -> MutexGuard<'_, Waker> {
        // Half of a waker is never there.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.muted.load(Ordering::Relaxed) {
            self.waiting().wake_by_ref();
        }
    }
}

/// Connections that nobody uses right now.
#[derive(Default)]
pub(super) struct Connections {
    idle: Arc<Mutex<Idle>>,
}

#[derive(Default)]
struct Idle {
    /// The one that was used last is the last.
    connections: Vec<Connection>,
    /// Whether somebody closes those that stay unused.
    swept: bool,
}

/// Why there is no answer.
pub(super) enum Unanswered {
    /// A connection that had an answer before is closed at once, and no answer came.
    Stale(String),
    /// In words that follow the host's name.
    Failed(String),
}

impl Connection {
    fn new(sender: SendRequest<Full<Bytes>>, wire: Wire) -> Self {
        let bell = Arc::new(Bell { waiting: Mutex::new(Waker::noop().clone()), muted: AtomicBool::new(false) });
        let waker = Waker::from(Arc::clone(&bell));
        Self { sender, wire: Some(wire), bell, waker, made: Instant::now(), aside: None, answered: false }
    }

    /// Reads and writes what can be without waiting; `waiting` is woken when there is more.
    fn go_on(&mut self, waiting: &Waker) {
        self.bell.waiting().clone_from(waiting);
        let mut context = Context::from_waker(&self.waker);
        if self.wire.as_mut().is_some_and(|wire| wire.as_mut().poll(&mut context).is_ready()) {
            self.wire = None;
        }
    }

    /// Waits for what comes of the connection's going on, and of nothing else.
    pub(super) async fn until<T>(&mut self, awaited: impl Future<Output = T>) -> T {
        let mut awaited = std::pin::pin!(awaited);
        poll_fn(|context| {
            self.go_on(context.waker());
            // By this alone it comes about, so it need not wake anybody.
            awaited.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        })
        .await
    }

    /// Sends a request, and waits for the head of its answer.
    pub(super) async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Unanswered> {
        let sent = Instant::now();
        // This would ring for the wire to look, which it does at once.
        self.bell.muted.store(true, Ordering::Relaxed);
        let answer = self.sender.send_request(request);
        self.bell.muted.store(false, Ordering::Relaxed);
        let error = match self.until(answer).await {
            Ok(response) => {
                self.answered = true;
                return Ok(response);
            }
            Err(error) => error,
        };
        if error.is_parse() {
            return Err(Unanswered::Failed(format!("did not answer in HTTP: {}", in_full(&error))));
        }
        let why = format!("closed the connection before it answered: {}", in_full(&error));
        let is_stale = self.answered && sent.elapsed() < STALE_WITHIN;
        Err(if is_stale { Unanswered::Stale(why) } else { Unanswered::Failed(why) })
    }

    /// Whether it can be used for another request, once the answer to the last one was read to its end.
    pub(super) fn is_ready(&self, now: Instant) -> bool {
        self.wire.is_some() && self.sender.is_ready() && now.saturating_duration_since(self.made) < AGE_MAX
    }

    /// Whether it can be used although it was put aside: the service may have closed it.
    fn is_fresh(&mut self, now: Duration) -> bool {
        self.go_on(Waker::noop());
        self.aside.is_some_and(|aside| now.saturating_sub(aside) < IDLE_MAX) && self.is_ready(Instant::now())
    }
}

impl Connections {
    /// The connection that was used last, if it can be used again.
    pub(super) fn idle(&self) -> Option<Connection> {
        let now = RealClock.mono();
        let mut idle = locked(&self.idle);
        std::iter::from_fn(|| idle.connections.pop()).find_map(|mut found| found.is_fresh(now).then_some(found))
    }

    /// Puts a connection aside that can be used for another request; it is closed if nobody does soon.
    pub(super) fn put_aside(&self, mut connection: Connection) {
        connection.aside = Some(RealClock.mono());
        let mut idle = locked(&self.idle);
        idle.connections.push(connection);
        if !std::mem::replace(&mut idle.swept, true) {
            tokio::spawn(sweep(Arc::clone(&self.idle)));
        }
    }
}

/// Closes what stays unused, until there is nothing more.
async fn sweep(idle: Arc<Mutex<Idle>>) {
    loop {
        tokio::time::sleep(IDLE_MAX).await;
        let now = RealClock.mono();
        let mut idle = locked(&idle);
        idle.connections.retain_mut(|connection| connection.is_fresh(now));
        if idle.connections.is_empty() {
            idle.swept = false;
            return;
        }
    }
}

fn locked(idle: &Mutex<Idle>) -> MutexGuard<'_, Idle> {
    // Nothing that panics leaves half of a change.
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a connection to the service.
///
/// # Errors
/// Why there is none, in words that follow the host's name.
pub(super) async fn connect(hook: &Hook) -> Result<Connection, String> {
    let addresses = addresses(hook).await?;
    let mut last = None;
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return establish(hook, stream).await,
            Err(error) => last = Some(format!("could not be reached at {address}: {error}")),
        }
    }
    Err(last.unwrap_or_else(|| "has no address".to_owned()))
}

/// The service's addresses, those that may be called.
pub(super) async fn addresses(hook: &Hook) -> Result<Vec<SocketAddr>, String> {
    let found = match hook.target.address() {
        Some(address) => vec![SocketAddr::new(address, hook.target.port)],
        None => hook
            .resolver
            .look_up(&hook.target.host, hook.target.port)
            .await
            .map_err(|error| format!("has no address that can be found: {error}"))?,
    };
    let mut refused = None;
    let mut allowed = Vec::new();
    for address in found {
        if hook.allow_private || is_public(address.ip()) {
            allowed.push(address);
        } else {
            refused = Some(address.ip());
        }
    }
    allowed.truncate(ADDRESSES_MAX);
    match refused {
        Some(address) if allowed.is_empty() => Err(format!(
            "has the address {address}, which is no public one: nothing was sent; `allow_private = true` lets this worker call it"
        )),
        _ => Ok(allowed),
    }
}

async fn establish(hook: &Hook, stream: TcpStream) -> Result<Connection, String> {
    // Nothing depends on it but speed.
    drop(stream.set_nodelay(true));
    let Some((config, name)) = &hook.tls else { return speak(stream).await };
    let stream = TlsConnector::from(Arc::clone(config))
        .connect(name.clone(), stream)
        .await
        .map_err(|error| format!("could not be spoken to by TLS: {error}"))?;
    speak(stream).await
}

async fn speak<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> Result<Connection, String> {
    let (sender, connection) = Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake(TokioIo::new(Joined(stream)))
        .await
        .map_err(|error| format!("could not be spoken to: {}", in_full(&error)))?;
    // How it ends is told to whoever waits for an answer by it.
    let wire: Wire = Box::pin(async move { drop(connection.await) });
    Ok(Connection::new(sender, wire))
}

/// An error and its causes.
pub(super) fn in_full(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
