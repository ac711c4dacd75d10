//! Answers whose bytes are under way, and doors that close meanwhile.

use super::super::places::Places;
use super::*;
use crate::clock::RealClock;
use crate::embed;
use crate::engine::Handle;
use crate::worker::native::{Context, Natives};
use std::io::{Read, Write};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// A biotope that nobody asks for anything but places, in a directory that goes with what is returned first.
fn opened() -> (tempfile::TempDir, Handle, Arc<Places>) {
    let dir = tempfile::tempdir().unwrap();
    let mut natives = Natives::default();
    natives.register_fn("w", "1", |n: u64, _: &mut Context<'_>| Ok::<_, String>(n)).unwrap();
    let handle = embed::open(dir.path(), &natives).unwrap();
    let places = Places::new(handle.clone(), RealClock::shared());
    (dir, handle, places)
}

/// An answer that tells when it was given away.
struct Large(Option<Bytes>, Option<oneshot::Sender<()>>);

/// More than sockets hold.
const LARGE: usize = 64 << 20;

impl Body for Large {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

impl Drop for Large {
    fn drop(&mut self) {
        self.1.take().map(|given| given.send(()));
    }
}

/// An answer counted as sent when it was given away to be written: its bytes were free for others while all of them were
/// there yet, and who read them slowly but steadily was cut off as one who asks nothing.
#[tokio::test]
async fn an_answer_is_under_way_and_holds_its_bytes_until_the_last_one_was_written() {
    let (_dir, handle, places) = opened();
    let (given, was_given) = oneshot::channel();
    let answer = Arc::new(std::sync::Mutex::new(Some(Large(Some(vec![0; LARGE].into()), Some(given)))));
    let large = move || async move { Response::new(axum::body::Body::new(answer.lock().unwrap().take().unwrap())) };
    let router = TowerToHyperService::new(Router::new().route("/", axum::routing::get(large)));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let (served, peer) = listener.accept().await.unwrap();
    let place = places.take(peer.ip()).await.unwrap();
    let stream = Stream::new(served, Arc::clone(&place.seat));
    let buffers = Buffers::new(handle.clone());
    let around = Around { router, buffers: buffers.clone(), peer: Peer(peer.ip()) };
    let (_open, doors) = watch::channel(Doors::Open);
    // Whatever anybody holds, this is too much beside it.
    let is_held = || buffers.share().hold(usize::MAX >> 1).is_err();
    let reads = async {
        was_given.await.unwrap();
        assert!(place.seat.is(Phase::Work) && is_held());
        let reads = move || client.read_to_end(&mut Vec::new());
        let read = tokio::task::spawn_blocking(reads).await.unwrap().unwrap();
        assert!(read > LARGE);
    };
    let builder = Builder::new();
    tokio::join!(serve_one(&builder, stream, around, doors), reads);
    assert!(place.seat.is(Phase::Idle) && !is_held());
    drop(place);
    handle.stop_and_wait();
}

#[tokio::test]
async fn a_request_is_waited_for_once_all_that_came_are_answered_to_their_last_byte() {
    let (_dir, handle, places) = opened();
    let place = places.take([127, 0, 0, 1].into()).await.unwrap();
    let (_open, doors) = watch::channel(Doors::Open);
    let requests = Arc::new(Requests::new(doors));
    let begins = || UnderWay::begins(&requests, &place.seat, Buffers::new(handle.clone()).share());
    let (first, second) = (begins(), begins());
    drop(first);
    assert!(place.seat.is(Phase::Work), "the second one is worked on");
    let third = begins();
    drop(third);
    assert!(place.seat.is(Phase::Work), "an answer without a body is no sign that those before it were written");
    drop(second);
    assert!(place.seat.is(Phase::Idle));
    drop(place);
    handle.stop_and_wait();
}

/// Which of the two the one that serves a connection looks at first is left to chance.
#[tokio::test]
async fn an_answer_after_the_doors_closed_says_that_none_follows_whether_or_not_that_was_noticed_before() {
    let (_dir, handle, places) = opened();
    let router = TowerToHyperService::new(Router::new());
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    for doors in [Doors::Closed, Doors::HandedOver] {
        for _ in 0..32 {
            let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            client.write_all(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            let (served, peer) = listener.accept().await.unwrap();
            served.readable().await.unwrap();
            let place = places.take(peer.ip()).await.unwrap();
            let stream = Stream::new(served, Arc::clone(&place.seat));
            let buffers = Buffers::new(handle.clone());
            let around = Around { router: router.clone(), buffers, peer: Peer(peer.ip()) };
            let (_shut, doors) = watch::channel(doors);
            if serve_one(&Builder::new(), stream, around, doors).await.is_some() {
                // It was not looked at, and goes to the next image as it is.
                continue;
            }
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("connection: close\r\n"), "{answer:?}");
        }
    }
    handle.stop_and_wait();
}
