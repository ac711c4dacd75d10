//! Ways to the service: looked up, checked, connected, and kept for the next job.
//!
//! Owns that nothing is connected to but an address that was checked: a name is looked up once for a connection, each of
//! its addresses is checked, and the connection is made to that very address. Reads no variable, so no proxy's either.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::definition::Hook;
use crate::clock::{Clock, RealClock};
use crate::config::target::is_public;

/// A connection that nobody used for so long is not used again: services close theirs, some after 5 s.
const IDLE_MAX: Duration = Duration::from_secs(4);
/// After so long the name is looked up anew, however busy the connection is.
const AGE_MAX: Duration = Duration::from_secs(60);
/// Longest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;

/// A connection to the service.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    made: Duration,
    /// When its last answer had been read; `None`: it had none yet.
    used: Option<Duration>,
}

/// Connections that nobody uses right now.
#[derive(Default)]
pub(super) struct Connections {
    idle: std::sync::Arc<Mutex<Vec<Connection>>>,
}

/// What became of a request.
pub(super) enum Sent {
    /// The head of the answer is here.
    Head(Response<Incoming>, Connection),
    /// A connection that had been used before is closed, and no answer came.
    Stale(String),
    /// There is no answer; in words that follow the host's name.
    Failed(String),
}

impl Connections {
    /// The connection that was used last, if it can be used again.
    pub(super) fn idle(&self) -> Option<Connection> {
        let now = RealClock.mono();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(connection) = idle.pop() {
            let fresh = connection.used.is_some_and(|used| now.saturating_sub(used) < IDLE_MAX);
            if fresh && connection.sender.is_ready() && now.saturating_sub(connection.made) < AGE_MAX {
                return Some(connection);
            }
            // Those below it were used even earlier.
            if !fresh {
                idle.clear();
            }
        }
        None
    }

    /// Keeps a connection whose answer was read to its end, once it is ready for the next request, if ever.
    pub(super) fn keep(&self, mut connection: Connection) {
        let idle = std::sync::Arc::clone(&self.idle);
        let keep = move |mut connection: Connection| {
            connection.used = Some(RealClock.mono());
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        };
        if connection.sender.is_ready() {
            return keep(connection);
        }
        tokio::spawn(async move {
            let ready = timeout(IDLE_MAX, connection.sender.ready()).await;
            if matches!(ready, Ok(Ok(()))) {
                keep(connection);
            }
        });
    }

    /// Sends a request, and waits for the head of its answer.
    pub(super) async fn send(
        &self,
        mut connection: Connection,
        request: Request<Full<Bytes>>,
        first_byte: Duration,
    ) -> Sent {
        let error = match timeout(first_byte, connection.sender.send_request(request)).await {
            Ok(Ok(response)) => return Sent::Head(response, connection),
            Ok(Err(error)) => error,
            Err(_) => return Sent::Failed(format!("did not answer within {first_byte:?} (`first_byte_timeout`)")),
        };
        if error.is_parse() {
            return Sent::Failed(format!("did not answer in HTTP: {}", in_full(&error)));
        }
        let why = format!("closed the connection before it answered: {}", in_full(&error));
        if connection.used.is_some() { Sent::Stale(why) } else { Sent::Failed(why) }
    }
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
    let stream = TlsConnector::from(std::sync::Arc::clone(config))
        .connect(name.clone(), stream)
        .await
        .map_err(|error| format!("could not be spoken to by TLS: {error}"))?;
    speak(stream).await
}

async fn speak<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> Result<Connection, String> {
    let (sender, connection) = Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| format!("could not be spoken to: {}", in_full(&error)))?;
    // How it ends is told to whoever waits for an answer by it.
    tokio::spawn(async move { drop(connection.await) });
    Ok(Connection { sender, made: RealClock.mono(), used: None })
}

/// An error and its causes.
pub(super) fn in_full(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
