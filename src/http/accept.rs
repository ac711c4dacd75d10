//! The way in: connections are accepted, get a place, and are served until the house closes.
//!
//! Owns the accept loop. Who cannot get a place, because all are worked for, is told so and turned away; nothing waits
//! in a queue that nobody sees.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use super::App;
use super::connection::{Around, Stream, serve_one};
use super::doors::Doors;
use super::guard::Peer;
use super::places::{Place, Places};
use crate::access::Tls;
use crate::config::Serving;
use crate::takeover::Connection;

/// How long open requests may take to end when the doors close.
const GRACE: Duration = Duration::from_secs(3);
/// Headers of one request.
const HEADERS_MAX: usize = 100;
/// Bytes that a connection reads ahead, or has ready to be written, at most.
const BUFFER_BYTES: usize = 64 << 10;
/// How long nothing is accepted when nothing more can be opened.
const NO_DESCRIPTORS_PAUSE: Duration = Duration::from_millis(100);
/// What is said to who gets no place.
const ALL_AT_WORK: &str = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\n\
    Content-Type: application/problem+json\r\nContent-Length: 152\r\n\r\n\
    {\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,\"code\":\"busy\",\
    \"detail\":\"all connections are at work (http.connections_max); try again\"}";

/// Serves as long as the doors are open, and goes on first with the connections that were `left`; then lets open requests
/// end. What is left then, where that is handed over, are connections on which nothing is under way. Who waits in the
/// listener's queue by then is let in by whoever else has the listener: systemd, or the next image.
pub async fn serve(
    listener: TcpListener,
    left: Vec<Connection>,
    app: App,
    page: Router<App>,
    doors: watch::Receiver<Doors>,
) -> Vec<Connection> {
    let places = Places::new(app.handle.clone(), Arc::clone(&app.clock));
    let watching = tokio::spawn({
        let places = Arc::clone(&places);
        async move { places.watch().await }
    });
    let (buffers, handle) = (app.buffers.clone(), app.handle.clone());
    let router = TowerToHyperService::new(super::router(app, page));
    let (leave, mut leaving) = mpsc::unbounded_channel();
    let begin = |stream: Stream, place: Place, peer: IpAddr| {
        let around = Around { router: router.clone(), buffers: buffers.clone(), peer: Peer(peer) };
        let (builder, mut doors, leave) = (speaks(&handle.serving()), doors.clone(), leave.clone());
        let tls = handle.access().tls.as_ref().map(Tls::config);
        tokio::spawn(async move {
            let stream = match tls {
                None => Some(stream),
                Some(tls) => stream.secured(tls, &mut doors).await,
            };
            let Some(stream) = stream else { return };
            if let Some(connection) = serve_one(&builder, stream, around, doors).await {
                // Nobody wants it any more where that fails: open requests took too long to end.
                drop(leave.send(connection));
            }
            drop(place);
        });
    };
    for connection in left {
        // What was begun without TLS is not gone on with where that is asked for.
        let Ok(peer) = connection.stream.peer_addr() else { continue };
        if handle.access().speaks_tls() {
            continue;
        }
        let Some(place) = places.take(peer.ip()).await else { continue };
        if let Ok(stream) = Stream::resumed(connection, Arc::clone(&place.seat)) {
            begin(stream, place, peer.ip());
        }
    }
    let mut closing = doors.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = closing.wait_for(Doors::shut) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Some((stream, place)) = seated(&places, stream, peer.ip()).await {
                    begin(stream, place, peer.ip());
                }
            }
            Err(error) => {
                // No descriptors left, most probably: one comes back, if any can.
                tracing::warn!(%error, "a connection could not be accepted");
                places.make_room();
                tokio::time::sleep(NO_DESCRIPTORS_PAUSE).await;
            }
        }
    }
    watching.abort();
    drop((listener, leave));
    let mut left = Vec::new();
    let gather = async {
        while let Some(connection) = leaving.recv().await {
            left.push(connection);
        }
    };
    drop(tokio::time::timeout(GRACE, gather).await);
    left
}

/// Gives a connection its place, or turns it away.
async fn seated(places: &Arc<Places>, stream: TcpStream, peer: IpAddr) -> Option<(Stream, Place)> {
    let Some(place) = places.take(peer).await else {
        // What the socket does not take at once is not said.
        let _: Result<usize, _> = stream.try_write(ALL_AT_WORK.as_bytes());
        return None;
    };
    let stream = Stream::new(stream, Arc::clone(&place.seat));
    Some((stream, place))
}

/// HTTP/1.1 within its bounds. Times are kept by the places.
fn speaks(bounds: &Serving) -> Builder {
    let mut builder = Builder::new();
    builder.max_headers(HEADERS_MAX).max_header_size(bounds.head_max);
    builder.max_buf_size(BUFFER_BYTES.max(bounds.head_max));
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_at_the_door_is_a_whole_answer() {
        let (head, body) = ALL_AT_WORK.split_once("\r\n\r\n").unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
        assert_eq!(length.parse::<usize>().unwrap(), body.len());
        let problem: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!((&problem["code"], &problem["status"]), (&"busy".into(), &503.into()));
    }
}
