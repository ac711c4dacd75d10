//! `GET /v1/events`: what changes here, as server-sent events; what a reader missed comes first, by its `Last-Event-ID`.
//!
//! Owns one feed for all readers, and looks at the ecosystem once a second as long as there are any. A reader is a place in the
//! feed and no queue: one that is slow finds that more has happened meanwhile, and, where that is no longer kept, everything.

mod feed;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::channel::{Channel, Sender};
use tokio::sync::{oneshot, watch};
use tokio::time::MissedTickBehavior;

use super::problem::Problem;
use super::{App, Doors, answer};
use crate::types::UnixMs;
use feed::{Feed, Parts, Place, parts};

/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After so much quiet a reader is told that the line is open.
const SAY_SOMETHING: Duration = Duration::from_secs(15);
/// What a reader does when the line breaks: it comes back after two seconds.
const BEGINNING: &str = "retry: 2000\n\n";

/// What readers are told, and who looks after it.
#[derive(Clone)]
pub struct Events(Arc<Inner>);

struct Inner {
    state: Mutex<Told>,
    /// Bumped whenever the feed has grown.
    grown: watch::Sender<u64>,
    /// As long as they are open, readers are told.
    doors: watch::Receiver<Doors>,
}

/// The feed, and who is there.
#[derive(Default)]
struct Told {
    feed: Feed,
    /// When it has grown last, by the clock that never goes back.
    grown_at: Duration,
    readers: usize,
    /// Whether somebody looks: from when the first reader comes until one look finds none.
    looked_after: bool,
}

impl Told {
    /// Takes in what was seen and is known at `at`; whether the feed has grown by it.
    fn take(&mut self, life: UnixMs, seen: Parts, at: Duration) -> bool {
        let grows = self.feed.look(life, seen);
        if grows {
            self.grown_at = at;
        }
        grows
    }
}

impl Events {
    /// A feed of nothing yet, which ends when the doors close.
    pub fn new(doors: watch::Receiver<Doors>) -> Self {
        Self(Arc::new(Inner { state: Mutex::default(), grown: watch::Sender::new(0), doors }))
    }

    fn state(&self) -> MutexGuard<'_, Told> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the feed has grown last: a look that begins later finds all that readers have been told.
    pub(crate) fn grown_at(&self) -> Duration {
        self.state().grown_at
    }

    /// Takes a reader in, if there are fewer than so many; `true`: nobody looks yet.
    fn enter(&self, most: u32) -> Result<bool, Problem> {
        let mut told = self.state();
        if told.readers >= most as usize {
            let detail =
                format!("there are {most} readers of events, the most (`http.events_max`): close one, or raise it");
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "busy", detail));
        }
        told.readers += 1;
        Ok(!std::mem::replace(&mut told.looked_after, true))
    }

    /// Looks at the ecosystem; `false`: nobody wants to know any more, or nobody answers.
    async fn look(&self, app: &App) -> bool {
        let view = answer(&app.handle, |then| app.handle.ecosystem(then)).await;
        let mut told = self.state();
        let view = view.ok().and_then(Result::ok).filter(|_| told.readers > 0);
        told.looked_after = view.is_some();
        if view.is_some_and(|view| told.take(view.started_at_ms, parts(&view), app.clock.mono())) {
            self.0.grown.send_modify(|times| *times += 1);
        }
        told.looked_after
    }

    /// Looks once a second, as long as somebody wants to know.
    async fn look_on(self, app: App) {
        let mut every = tokio::time::interval(LOOK_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut doors = self.0.doors.clone();
        loop {
            tokio::select! {
                _ = every.tick() => {}
                _ = doors.wait_for(Doors::shut) => return,
            }
            if !self.look(&app).await {
                return;
            }
        }
    }
}

/// One of those who read.
struct Reader(Events);

impl Drop for Reader {
    fn drop(&mut self) {
        let mut told = self.0.state();
        told.readers = told.readers.saturating_sub(1);
    }
}

impl Reader {
    async fn read(self, mut place: Place, mut to: Sender<Bytes, std::io::Error>) {
        let Self(events) = &self;
        let (mut grown, mut doors) = (events.0.grown.subscribe(), events.0.doors.clone());
        let mut text = BEGINNING.to_owned();
        loop {
            grown.mark_unchanged();
            text += &events.state().feed.after(&mut place);
            if !text.is_empty() {
                // As long as the reader takes nothing, nothing more is kept for it.
                let sent = tokio::select! {
                    sent = to.send_data(Bytes::from(std::mem::take(&mut text))) => sent.is_ok(),
                    _ = doors.wait_for(Doors::shut) => return,
                };
                if !sent {
                    return;
                }
            }
            tokio::select! {
                _ = grown.changed() => {}
                _ = doors.wait_for(Doors::shut) => return,
                () = tokio::time::sleep(SAY_SOMETHING) => text.push_str(":\n\n"),
            }
        }
    }
}

pub(super) async fn events(State(app): State<App>, headers: HeaderMap) -> Result<Response, Problem> {
    let events = app.events.clone();
    let nobody_looks = events.enter(app.handle.serving().events_max)?;
    let reader = Reader(events.clone());
    if nobody_looks {
        let (looker, (first, looked)) = (events.clone(), oneshot::channel());
        // Goes on where this reader does not: others count on it.
        tokio::spawn(async move {
            let looks_on = looker.look(&app).await;
            // Nobody may wait for it any more.
            let _: Result<(), ()> = first.send(());
            if looks_on {
                looker.look_on(app).await;
            }
        });
        // What happened while nobody looked is told first.
        drop(looked.await);
    }
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
    let place = events.state().feed.place(last);
    let (to, channel) = Channel::<Bytes, std::io::Error>::new(1);
    tokio::spawn(reader.read(place, to));
    Ok(([(header::CONTENT_TYPE, "text/event-stream")], Body::new(channel)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use feed::Part;

    #[test]
    fn the_feed_has_grown_when_readers_are_told_something_and_not_by_a_look() {
        let (_close, doors) = watch::channel(Doors::Open);
        let events = Events::new(doors);
        let seen = |ready: u32| Parts::from([(Part::Type("a".to_owned()), format!("{{\"ready\":{ready}}}"))]);
        let take = |ready, second| events.state().take(17, seen(ready), Duration::from_secs(second));
        assert!(take(1, 10) && events.grown_at() == Duration::from_secs(10));
        assert!(!take(1, 20) && events.grown_at() == Duration::from_secs(10), "nothing is told of what is as before");
        assert!(take(2, 30) && events.grown_at() == Duration::from_secs(30));
    }
}
