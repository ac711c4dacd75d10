//! One connection: its requests, one after the other, and what becomes of it when the house closes.
//!
//! Where another image of the program goes on in this process, a connection on which nothing is under way is given to that,
//! as it is: whoever is at its other end notices nothing. A request that is under way is answered, and the connection then
//! closed, as the answer's head says. Where none goes on, who was let in and has no answer yet still gets one.
//!
//! Tells its place what it is doing, and goes when that asks it to. One that speaks TLS cannot be given to another image,
//! and is closed.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, Request, Response, Version, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1::Builder;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;

use super::buffers::{Buffers, Share};
use super::doors::Doors;
use super::guard::Peer;
use super::places::{Phase, Seat};
use super::problem::Problem;
use crate::takeover::Connection;

/// How long who was let in and has no answer yet may take to ask when the doors close: some round trips of the longest way.
const ASK_WITHIN: Duration = Duration::from_secs(1);

/// Serves a connection until it ends, or the doors close; what is left of it then, if nothing was under way.
pub(super) async fn serve_one(
    builder: &Builder,
    stream: Stream,
    around: Around,
    mut doors: watch::Receiver<Doors>,
) -> Option<Connection> {
    let requests = Arc::new(Requests::new(doors.clone()));
    let seat = Arc::clone(&stream.seat);
    let counted = Counted { around, seat: Arc::clone(&seat), requests: Arc::clone(&requests) };
    let mut connection = builder.serve_connection(TokioIo::new(stream), counted);
    loop {
        tokio::select! {
            // A client that goes away in the middle is no event.
            _ = &mut connection => return None,
            _ = doors.wait_for(Doors::shut) => break,
            waited_for = seat.asked_to_leave() => {
                if waited_for {
                    return None;
                }
                // A request came meanwhile: it is the last one.
                Pin::new(&mut connection).graceful_shutdown();
            }
        }
    }
    let somebody_goes_on = *doors.borrow() == Doors::HandedOver;
    if !somebody_goes_on && requests.is_unheard(&seat) {
        tokio::select! {
            _ = &mut connection => return None,
            () = tokio::time::sleep(ASK_WITHIN) => {}
        }
    }
    let before = requests.under_way();
    let ended = match before {
        // Nothing was ever written here, and nothing was read but, perhaps, the beginning of a request.
        (0, _) => Ok(()),
        _ => {
            Pin::new(&mut connection).graceful_shutdown();
            poll_fn(|cx| connection.poll_without_shutdown(cx)).await
        }
    };
    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner();
    if somebody_goes_on && ended.is_ok() && requests.are_none_since(before) {
        let ahead = [parts.read_buf, std::mem::take(&mut stream.ahead)].concat();
        match stream.wire {
            Wire::Plain(tcp) => return Some(Connection { stream: tcp.into_std().ok()?, ahead }),
            Wire::Tls(tls) => stream.wire = Wire::Tls(tls),
        }
    }
    // As hyper ends a connection by itself.
    drop(poll_fn(|cx| Pin::new(&mut stream).poll_shutdown(cx)).await);
    None
}

/// Returns when a connection that is not ready to be asked on is no longer waited for.
async fn given_up(doors: &mut watch::Receiver<Doors>) {
    let nobody_goes_on = doors.wait_for(Doors::shut).await.is_ok_and(|doors| *doors == Doors::Closed);
    if nobody_goes_on {
        tokio::time::sleep(ASK_WITHIN).await;
    }
}

/// The requests of one connection. Counted by the one task that serves it, so relaxed.
#[derive(Debug)]
struct Requests {
    begun: AtomicU32,
    answered: AtomicU32,
    /// Begun, and not answered to the last byte.
    unsent: AtomicU32,
    /// Nothing may follow on this connection.
    last: AtomicBool,
    doors: watch::Receiver<Doors>,
}

impl Requests {
    fn new(doors: watch::Receiver<Doors>) -> Self {
        let (begun, answered, unsent) = <(AtomicU32, AtomicU32, AtomicU32)>::default();
        Self { begun, answered, unsent, last: AtomicBool::new(false), doors }
    }

    fn under_way(&self) -> (u32, u32) {
        (self.begun.load(Ordering::Relaxed), self.answered.load(Ordering::Relaxed))
    }

    /// Whether none was under way, none came since, and another one may.
    fn are_none_since(&self, before: (u32, u32)) -> bool {
        before.0 == before.1 && self.under_way() == before && !self.last.load(Ordering::Relaxed)
    }

    /// Whether the first request, or one that has begun to come in, is still to be heard.
    fn is_unheard(&self, seat: &Seat) -> bool {
        let (begun, answered) = self.under_way();
        begun == answered && (begun == 0 || seat.is(Phase::Head))
    }

    fn end_with_this(&self) {
        self.last.store(true, Ordering::Relaxed);
    }
}

/// What requests are answered by, and what their answers take room in.
#[derive(Clone)]
pub(super) struct Around {
    pub(super) router: TowerToHyperService<Router>,
    pub(super) buffers: Buffers,
    /// From where the connection came.
    pub(super) peer: Peer,
}

/// The router, and which requests are under way.
struct Counted {
    around: Around,
    seat: Arc<Seat>,
    requests: Arc<Requests>,
}

type Answering = Pin<Box<dyn Future<Output = Result<Response<Answer>, std::convert::Infallible>> + Send>>;

impl Service<Request<Incoming>> for Counted {
    type Response = Response<Answer>;
    type Error = std::convert::Infallible;
    type Future = Answering;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.around.peer);
        let requests = Arc::clone(&self.requests);
        let mut under_way = UnderWay::begins(&requests, &self.seat, self.around.buffers.share());
        let wishes = request.headers().get(header::CONNECTION);
        let stays = wishes.is_none_or(|wish| wish.as_bytes().eq_ignore_ascii_case(b"keep-alive"));
        if request.version() != Version::HTTP_11 || !stays {
            requests.end_with_this();
        }
        let watched = Arc::clone(&requests);
        let seat = Arc::clone(&self.seat);
        let body = |body| Watched { body, ended: false, requests: watched, seat };
        let answering = self.around.router.call(request.map(body));
        Box::pin(async move {
            let answer = answering.await?;
            requests.answered.fetch_add(1, Ordering::Relaxed);
            let bytes = answer.body().size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
            let mut answer = match under_way.share.hold(bytes.unwrap_or(0)) {
                Ok(()) => answer,
                Err(busy) => Problem::from(busy).into_response(),
            };
            // Whether or not the one that serves this connection has noticed yet.
            if requests.doors.borrow().shut() {
                requests.end_with_this();
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(answer.map(|body| Answer { body, under_way: Arc::new(under_way) }))
        })
    }
}

/// A request until the last byte of its answer was written, or nobody goes on with it; when it is gone, and none that came
/// after it is there, the next one is waited for.
struct UnderWay {
    requests: Arc<Requests>,
    seat: Arc<Seat>,
    /// What its answer takes room in.
    share: Share,
}

impl UnderWay {
    fn begins(requests: &Arc<Requests>, seat: &Arc<Seat>, share: Share) -> Self {
        requests.begun.fetch_add(1, Ordering::Relaxed);
        requests.unsent.fetch_add(1, Ordering::Relaxed);
        seat.enter(Phase::Work);
        Self { requests: Arc::clone(requests), seat: Arc::clone(seat), share }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if self.requests.unsent.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.seat.enter(Phase::Idle);
        }
    }
}

/// An answer's body. It is given away before it is written: what its bytes are in then keeps the request under way.
pub(super) struct Answer {
    body: axum::body::Body,
    under_way: Arc<UnderWay>,
}

/// Bytes of an answer, until they are written.
struct Unsent {
    bytes: Bytes,
    _of: Arc<UnderWay>,
}

impl AsRef<[u8]> for Unsent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        let unsent = |bytes: Bytes| match bytes.is_empty() {
            true => bytes,
            false => Bytes::from_owner(Unsent { bytes, _of: Arc::clone(&self.under_way) }),
        };
        frame.map_ok(|frame| frame.map_data(unsent))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A request's body. Where it is not read to its end, what follows on the connection is no request.
struct Watched {
    body: Incoming,
    ended: bool,
    requests: Arc<Requests>,
    seat: Arc<Seat>,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        self.ended |= matches!(frame, Poll::Ready(None));
        match &frame {
            Poll::Pending if self.seat.is(Phase::Work) => self.seat.enter(Phase::Body),
            Poll::Ready(_) if self.seat.is(Phase::Body) => self.seat.enter(Phase::Work),
            Poll::Pending | Poll::Ready(_) => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // It was given up while it was waited for.
        if self.seat.is(Phase::Body) {
            self.seat.enter(Phase::Work);
        }
        if !self.ended && !self.body.is_end_stream() {
            self.requests.end_with_this();
        }
    }
}

/// A connection's bytes: first those that an earlier image had read of it already.
pub(super) struct Stream {
    ahead: Bytes,
    wire: Wire,
    seat: Arc<Seat>,
}

enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Does the same with either.
macro_rules! on {
    ($wire:expr, $inner:ident => $does:expr) => {
        match $wire {
            Wire::Plain($inner) => $does,
            Wire::Tls($inner) => $does,
        }
    };
}

impl Stream {
    /// A connection that was accepted.
    pub(super) fn new(tcp: TcpStream, seat: Arc<Seat>) -> Self {
        // Answers are written as a whole: nothing is won by waiting for more.
        drop(tcp.set_nodelay(true));
        Self { ahead: Bytes::new(), wire: Wire::Plain(tcp), seat }
    }

    /// The same, by TLS from now on; `None`: the other end does not speak it, or takes too long, or the doors close.
    pub(super) async fn secured(self, tls: Arc<ServerConfig>, doors: &mut watch::Receiver<Doors>) -> Option<Self> {
        let Self { ahead, wire: Wire::Plain(tcp), seat } = self else { return Some(self) };
        // The beginning of a head, as far as time goes.
        seat.enter(Phase::Head);
        let tls = tokio::select! {
            tls = TlsAcceptor::from(tls).accept(tcp) => tls.ok()?,
            _ = seat.asked_to_leave() => return None,
            () = given_up(doors) => return None,
        };
        seat.enter(Phase::Idle);
        Some(Self { ahead, wire: Wire::Tls(Box::new(tls)), seat })
    }

    /// One that was handed over.
    pub(super) fn resumed(left: Connection, seat: Arc<Seat>) -> io::Result<Self> {
        left.stream.set_nonblocking(true)?;
        Ok(Self { ahead: left.ahead.into(), wire: Wire::Plain(TcpStream::from_std(left.stream)?), seat })
    }

    fn wrote(&self, wrote: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.seat.wrote(wrote.is_ready());
        wrote
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            let before = buf.filled().len();
            let read = on!(&mut self.wire, wire => Pin::new(wire).poll_read(cx, buf));
            if buf.filled().len() > before {
                self.seat.read();
            }
            return read;
        }
        self.seat.read();
        let most = self.ahead.len().min(buf.remaining());
        buf.put_slice(&self.ahead.split_to(most));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = on!(&mut self.wire, wire => Pin::new(wire).poll_write(cx, bytes));
        self.wrote(wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = on!(&mut self.wire, wire => Pin::new(wire).poll_write_vectored(cx, bytes));
        self.wrote(wrote)
    }

    fn is_write_vectored(&self) -> bool {
        on!(&self.wire, wire => wire.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // TLS may hold back what it took.
        let flushed = on!(&mut self.wire, wire => Pin::new(wire).poll_flush(cx));
        self.seat.wrote(flushed.is_ready());
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(&mut self.wire, wire => Pin::new(wire).poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests;
