//! The words of the wire: states and moments.

use crate::job::event::End;
use crate::job::transition::State;
use crate::types::UnixMs;

/// A live job's state on the wire.
pub(super) fn state_word(state: State, parked: bool) -> &'static str {
    match state {
        State::Ready if parked => "parked",
        State::Ready => "ready",
        State::Delayed => "delayed",
        State::Reserved => "reserved",
        State::Dead => "dead",
    }
}

/// A finished job's state on the wire.
pub(super) fn end_word(end: End) -> &'static str {
    match end {
        End::Completed => "completed",
        End::Cancelled => "cancelled",
        End::Expired => "expired",
        End::Discarded => "discarded",
    }
}

/// A moment as people and programs read it: RFC 3339, UTC, milliseconds.
pub(super) fn moment(at: UnixMs) -> String {
    let at = i64::try_from(at).ok().and_then(|at| jiff::Timestamp::from_millisecond(at).ok());
    at.map_or_else(String::new, |at| format!("{at:.3}"))
}
