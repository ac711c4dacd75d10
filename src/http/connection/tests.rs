//! Answers, and doors that close meanwhile.

use super::super::places::Places;
use super::*;
use crate::clock::RealClock;
use crate::embed;
use crate::worker::native::{Context, Natives};
use std::io::{Read, Write};
use tokio::net::TcpListener;

/// Which of the two the one that serves a connection looks at first is left to chance.
#[tokio::test]
async fn an_answer_after_the_doors_closed_says_that_none_follows_whether_or_not_that_was_noticed_before() {
    let dir = tempfile::tempdir().unwrap();
    let mut natives = Natives::default();
    natives.register_fn("w", "1", |n: u64, _: &mut Context<'_>| Ok::<_, String>(n)).unwrap();
    let handle = embed::open(dir.path(), &natives).unwrap();
    let places = Places::new(handle.clone(), RealClock::shared());
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
