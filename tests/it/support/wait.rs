//! The one place that waits for an outside process.

use std::time::Duration;

use biotope::clock::{Clock, RealClock};

/// Time since some start, for deadlines.
pub(crate) fn now() -> Duration {
    RealClock.mono()
}

/// The wall clock `after` from now, as RFC 3339.
pub(crate) fn wall_after(after: Duration) -> String {
    let at = RealClock.wall_ms() + u64::try_from(after.as_millis()).unwrap();
    jiff::Timestamp::from_millisecond(i64::try_from(at).unwrap()).unwrap().to_string()
}

/// Asks `poll` again and again until it answers `Ok`; past the deadline it fails with what was seen last.
pub(crate) fn until<T>(what: &str, deadline: Duration, mut poll: impl FnMut() -> Result<T, String>) -> T {
    let end = now() + deadline;
    loop {
        match poll() {
            Ok(found) => return found,
            Err(seen) if now() >= end => panic!("{what}: not within {deadline:?}; seen last: {seen}"),
            Err(_) => pause(),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "an outside process gives no other event; bounded by until's deadline")]
fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}
