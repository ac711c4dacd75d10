//! What went wrong, or what was done, as people read it: the same refusals as everywhere, on a page.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::http::problem::Problem;
use crate::http::refused;
pub(super) use crate::http::ways::in_address;
use crate::refusal::Refusal;

/// A refusal that is answered with a page.
pub(super) struct Told(Problem);

impl From<Problem> for Told {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<Refusal> for Told {
    fn from(refusal: Refusal) -> Self {
        Self(refusal.into())
    }
}

impl IntoResponse for Told {
    fn into_response(self) -> Response {
        refused::page(&self.0)
    }
}

/// What is shown once something was done: a word that stands in the address, and how many it was about.
const DONE: [(&str, &str); 14] = [
    ("paused", "Paused: its jobs are taken in, and wait."),
    ("resumed", "Resumed: its jobs are handed out again."),
    ("ramp-paused", "The ramp is paused: the share stays as it is."),
    ("ramp-resumed", "The rollout goes on."),
    ("promoted", "Promoted: the new version has all of the work."),
    ("aborted", "Withdrawn: the version before does all of the work."),
    ("rolled-back", "Rolled back to the version before."),
    ("purged", "Purged: so many jobs were cancelled or discarded: "),
    ("retry", "The job has all its attempts again."),
    ("cancel", "The job is cancelled."),
    ("discard", "The job is discarded."),
    ("retried", "So many jobs have all their attempts again: "),
    ("discarded", "So many jobs were discarded: "),
    ("left", "So many were not as they had been, and were left alone: "),
];

/// What was done, in words; nothing for a word that is none of ours.
fn done(word: &str, count: Option<u64>) -> Option<String> {
    let (_, says) = DONE.iter().find(|(known, _)| *known == word)?;
    Some(match count {
        Some(count) if says.ends_with(": ") => format!("{says}{count}."),
        _ => says.trim_end_matches(": ").to_owned(),
    })
}

/// What was done before, as it stands in an address.
#[derive(Debug, Clone, Default, serde::Deserialize)]
pub(super) struct Done {
    #[serde(default)]
    done: String,
    count: Option<u64>,
}

impl Done {
    /// In words.
    pub(super) fn words(&self) -> Option<String> {
        done(&self.done, self.count)
    }
}

/// The way back after something was done.
pub(super) fn back_to(place: &str) -> Response {
    // Made of names and numbers of ours, percent-encoded.
    let Ok(place) = HeaderValue::from_str(place) else { return StatusCode::SEE_OTHER.into_response() };
    (StatusCode::SEE_OTHER, [(header::LOCATION, place)]).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_told_only_in_our_own_words() {
        assert_eq!(done("retried", Some(3)).unwrap(), "So many jobs have all their attempts again: 3.");
        assert_eq!(done("paused", Some(3)).unwrap(), "Paused: its jobs are taken in, and wait.");
        assert_eq!(done("<script>", None), None);
    }

    #[test]
    fn what_stands_in_an_address_cannot_end_it() {
        assert_eq!(back_to(&format!("/jobs?error={}", in_address("a\r\nb"))).status(), StatusCode::SEE_OTHER);
    }
}
