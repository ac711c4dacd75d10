//! The time that a call has, and what is said when it is over.
//!
//! Owns one timer for all bounds of all calls of a lane, one after the other: to set it later costs next to nothing, where a
//! timer of its own for each bound would have to be put into the runtime's wheel and taken out again.

use std::fmt::{Display, Formatter};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// As good as never: some decades.
const FAR: Duration = Duration::from_secs(1 << 30);

/// How long something may take; reads as what is said when it takes longer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Within {
    /// All of a job.
    Job(Duration),
    /// To find the service and to connect to it.
    Connect(Duration),
    /// From the request to the head of its answer.
    FirstByte(Duration),
}

impl Display for Within {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Job(time) => write!(f, "timed out after {time:?}"),
            Self::Connect(time) => write!(f, "could not be reached within {time:?} (`connect_timeout`)"),
            Self::FirstByte(time) => write!(f, "did not answer within {time:?} (`first_byte_timeout`)"),
        }
    }
}

impl Within {
    /// When it is over for what has begun then.
    pub(super) fn from(self, begun: Instant) -> Bound {
        let (Self::Job(time) | Self::Connect(time) | Self::FirstByte(time)) = self;
        Bound { at: begun + time.min(FAR), within: self }
    }
}

/// When something is too late.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound {
    at: Instant,
    within: Within,
}

impl Bound {
    /// The earlier one of two.
    pub(super) fn or(self, other: Self) -> Self {
        if other.at < self.at { other } else { self }
    }
}

/// Goes off at one bound after the other.
pub(super) struct Alarm(Pin<Box<Sleep>>);

impl Alarm {
    /// Within a tokio runtime.
    pub(super) fn new() -> Self {
        Self(Box::pin(sleep_until(Instant::now())))
    }

    /// Waits for `work`.
    ///
    /// # Errors
    /// The bound comes before its end; what is said then.
    pub(super) async fn within<T>(&mut self, bound: Bound, work: impl Future<Output = T>) -> Result<T, String> {
        let mut work = pin!(work);
        let mut is_set = false;
        poll_fn(|context| {
            if let Poll::Ready(done) = work.as_mut().poll(context) {
                return Poll::Ready(Ok(done));
            }
            // What is done at once needs no alarm.
            if !std::mem::replace(&mut is_set, true) {
                self.0.as_mut().reset(bound.at);
            }
            self.0.as_mut().poll(context).map(|()| Err(bound.within.to_string()))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::http::runtime;

    #[test]
    fn each_bound_is_that_of_its_own_work() {
        let (short, long) = (Duration::from_millis(20), Duration::from_secs(60));
        let runtime = runtime().unwrap();
        runtime.block_on(async {
            let mut alarm = Alarm::new();
            let begun = Instant::now();
            // Not done at once, so that the alarm is set.
            let late = Within::Job(long).from(Instant::now());
            assert_eq!(alarm.within(late, tokio::task::yield_now()).await, Ok(()));
            let never = std::future::pending::<()>;
            let early = Within::FirstByte(short).from(Instant::now());
            let error = alarm.within(early.or(late), never()).await.unwrap_err();
            assert_eq!(error, "did not answer within 20ms (`first_byte_timeout`)");
            // It has gone off, and is set again.
            let early = Within::Connect(short).from(Instant::now());
            let slow = tokio::time::sleep(short * 3);
            assert_eq!(alarm.within(late.or(late), slow).await, Ok(()), "the bound before has nothing to say");
            let error = alarm.within(late.or(early), never()).await.unwrap_err();
            assert_eq!(error, "could not be reached within 20ms (`connect_timeout`)");
            assert!(begun.elapsed() < long);
        });
    }
}
