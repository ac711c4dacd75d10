//! The words of the wire: states and moments.

use crate::job::event::End;
use crate::job::table::Job;
use crate::job::transition::State;
use crate::limits::HOST_DEATHS_MAX;
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

/// What a job died of that lost its run with its host as often as that may be.
pub(super) const HOST_DEATHS: &str =
    "biotope, or its process that starts children, ended while the job ran, once too often";

/// Why a run was lost that went on when biotope's process before this one ended.
pub(super) const HOST_ENDED: &str = "biotope itself ended";

/// What a job failed of last, or is dead of.
pub(super) fn last_error(job: &Job) -> Option<&str> {
    if job.given_back.host_deaths >= HOST_DEATHS_MAX {
        return Some(HOST_DEATHS);
    }
    job.failures().last().map(|failure| failure.error.as_str())
}

/// A moment as people and programs read it: RFC 3339, UTC, milliseconds.
pub(super) fn moment(at: UnixMs) -> String {
    let at = i64::try_from(at).ok().and_then(|at| jiff::Timestamp::from_millisecond(at).ok());
    at.map_or_else(String::new, |at| format!("{at:.3}"))
}
