//! Looks at a service's name, which all share who need its addresses at the same time.
//!
//! Owns that one look is under way at most, and that its answer, good or bad, serves whoever asks in the moment that
//! follows. A look goes on in a task of its own: who waits for it may give up, and the next one still waits for the same.
//! A resolver that hangs so holds one of the few threads that may block, however many wait for it, and however often.
//! Never decides whether an address may be called.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::definition::{LookUp, Resolver};
use crate::clock::Clock;

/// For so long an answer serves those who ask after it came.
const SERVES_FOR: Duration = Duration::from_secs(1);
/// Looks that one who asks waits for, where they end without an answer.
const LOOKS_MAX: usize = 3;

/// Looks up by another resolver, once for all who ask at the same time. For one name alone: who asks is told what became of
/// the last look, whatever that was for.
pub(super) struct Shared {
    resolver: Arc<dyn Resolver>,
    clock: Arc<dyn Clock>,
    /// The last look. Written by its task; `None` in it: under way, or, once that task is gone, never to be answered.
    look: Mutex<Option<Look>>,
}

type Look = watch::Receiver<Option<Answer>>;

/// What became of a look.
#[derive(Clone)]
struct Answer {
    /// When, by the steady clock.
    at: Duration,
    /// An error cannot be cloned: its kind, and its words.
    found: Result<Vec<SocketAddr>, (io::ErrorKind, String)>,
}

impl Shared {
    pub(super) fn new(resolver: Arc<dyn Resolver>, clock: Arc<dyn Clock>) -> Self {
        Self { resolver, clock, look: Mutex::default() }
    }

    /// The look that serves now, which is begun if there is none.
    fn look(&self, host: &str, port: u16) -> Look {
        // Nothing that panics leaves half of a change.
        let mut last = self.look.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(look) = last.as_ref().filter(|look| serves(look, self.clock.mono())) {
            return look.clone();
        }
        let (to, look) = watch::channel(None);
        let (resolver, clock, host) = (Arc::clone(&self.resolver), Arc::clone(&self.clock), host.to_owned());
        tokio::spawn(async move {
            let found = resolver.look_up(&host, port).await.map_err(|error| (error.kind(), error.to_string()));
            to.send_replace(Some(Answer { at: clock.mono(), found }));
        });
        last.insert(look).clone()
    }
}

/// Whether a look serves who asks at `now`.
fn serves(look: &Look, now: Duration) -> bool {
    match &*look.borrow() {
        Some(answer) => now.saturating_sub(answer.at) < SERVES_FOR,
        // Its task is gone with the runtime that it was of.
        None => look.has_changed().is_ok(),
    }
}

impl Resolver for Shared {
    fn look_up<'a>(&'a self, host: &'a str, port: u16) -> LookUp<'a> {
        Box::pin(async move {
            for _ in 0..LOOKS_MAX {
                let mut look = self.look(host, port);
                let answer = look.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone());
                if let Some(answer) = answer {
                    return answer.found.map_err(|(kind, words)| io::Error::new(kind, words));
                }
            }
            Err(io::Error::other("it is looked up, and no look comes to its end"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::UnixMs;
    use crate::worker::http::runtime;
    use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
    use tokio::sync::Semaphore;
    use tokio::task::{JoinSet, yield_now};

    /// A resolver that counts its looks, and answers them when it may.
    #[derive(Default)]
    struct Counting {
        begun: AtomicU32,
        may: Option<Semaphore>,
    }

    impl Counting {
        fn held() -> Arc<Self> {
            Arc::new(Self { may: Some(Semaphore::new(0)), ..Self::default() })
        }

        fn begun(&self) -> u32 {
            self.begun.load(Ordering::SeqCst)
        }

        fn answer(&self) {
            self.may.as_ref().unwrap().add_permits(10_000);
        }
    }

    impl Resolver for Counting {
        fn look_up<'a>(&'a self, host: &'a str, port: u16) -> LookUp<'a> {
            let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
            Box::pin(async move {
                if let Some(may) = &self.may {
                    may.acquire().await.unwrap().forget();
                }
                let address = SocketAddr::from(([127, 0, 0, u8::try_from(number).unwrap_or(255)], port));
                if host == "none.invalid" {
                    return Err(io::Error::new(io::ErrorKind::NotFound, format!("look {number} found none")));
                }
                Ok(vec![address])
            })
        }
    }

    /// A clock that the test moves, in milliseconds.
    #[derive(Default)]
    struct Moved(AtomicU64);

    impl Clock for Moved {
        fn wall_ms(&self) -> UnixMs {
            0
        }

        fn mono(&self) -> Duration {
            Duration::from_millis(self.0.load(Ordering::SeqCst))
        }
    }

    fn shared(counting: &Arc<Counting>) -> (Arc<Shared>, Arc<Moved>) {
        let (resolver, clock) = (Arc::clone(counting), Arc::<Moved>::default());
        (Arc::new(Shared::new(resolver, Arc::clone(&clock) as Arc<dyn Clock>)), clock)
    }

    /// Each connection looked the name up by itself, two at a time: the last of a thousand waited longer than it may take to
    /// connect, and its job was charged an attempt; where the resolver hung, they piled up without end.
    #[test]
    fn who_asks_while_a_name_is_looked_up_waits_for_the_same_look_and_may_give_up() {
        let counting = Counting::held();
        let (shared, _) = shared(&counting);
        runtime().unwrap().block_on(async {
            let mut asking = JoinSet::new();
            let ask = |shared: &Arc<Shared>| {
                let shared = Arc::clone(shared);
                async move { shared.look_up("name.invalid", 80).await }
            };
            let first = asking.spawn(ask(&shared));
            while counting.begun() == 0 {
                yield_now().await;
            }
            (0..1000).for_each(|_| drop(asking.spawn(ask(&shared))));
            yield_now().await;
            // The one for whom it was begun.
            first.abort();
            assert!(asking.join_next().await.unwrap().unwrap_err().is_cancelled());
            counting.answer();
            while let Some(found) = asking.join_next().await {
                assert_eq!(found.unwrap().unwrap(), ["127.0.0.1:80".parse().unwrap()]);
            }
        });
        assert_eq!(counting.begun(), 1);
    }

    #[test]
    fn an_answer_and_an_error_serve_for_a_second() {
        for host in ["name.invalid", "none.invalid"] {
            let counting = Arc::new(Counting::default());
            let (shared, clock) = shared(&counting);
            runtime().unwrap().block_on(async {
                let said = async || match shared.look_up(host, 80).await {
                    Ok(found) => found[0].to_string(),
                    Err(error) => {
                        assert_eq!(error.kind(), io::ErrorKind::NotFound);
                        error.to_string()
                    }
                };
                let first = said().await;
                clock.0.store(999, Ordering::SeqCst);
                assert_eq!((said().await, counting.begun()), (first.clone(), 1));
                clock.0.store(1000, Ordering::SeqCst);
                assert_ne!(said().await, first);
                assert_eq!(counting.begun(), 2);
            });
        }
    }

    #[test]
    fn a_look_that_ended_with_its_runtime_is_begun_again() {
        let counting = Counting::held();
        let (shared, _) = shared(&counting);
        let ended = runtime().unwrap();
        ended.block_on(async {
            let look = shared.look("name.invalid", 80);
            while counting.begun() == 0 {
                yield_now().await;
            }
            assert!(look.borrow().is_none());
        });
        drop(ended);
        counting.answer();
        let found = runtime().unwrap().block_on(shared.look_up("name.invalid", 80));
        assert_eq!(found.unwrap(), ["127.0.0.2:80".parse().unwrap()]);
    }
}
