//! The audit: one line of the log for each call that may change something, whatever came of it: who, from where, what, on what,
//! and to how many.
//!
//! Written by the guard for every route that is not a look, so that none can be forgotten; a handler only adds what nobody else
//! knows ([`Done`]). Says nothing of bodies. What is only added, and what tokens begin and end, has no line:
//! [`NOT_AUDITED`].

use std::net::IpAddr;

use axum::extract::{FromRequestParts, MatchedPath, RawPathParams};
use axum::http::Method;
use axum::http::request::Parts;
use axum::response::Response;

use crate::access::Role;
use crate::logfile::AUDIT;

/// Routes that take other methods than those to look, and have no line: a push adds, and is itself in the log of jobs; a session
/// changes nothing.
const NOT_AUDITED: [&str; 3] = ["/v1/jobs", "/login", "/logout"];
/// Longest text of a line's field, in bytes: names are shorter.
const TEXT_BYTES_MAX: usize = 512;

/// By what somebody was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// A token that the request shows.
    Token,
    /// A session of the page, which a token began.
    Session,
    /// Nobody is asked here.
    Nothing,
}

impl By {
    fn word(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Session => "session",
            Self::Nothing => "nothing",
        }
    }
}

/// What a handler adds to its answer: to how many it was done, and what was asked for beside the address.
#[derive(Debug, Clone, Default)]
pub(crate) struct Done {
    pub(crate) count: Option<u64>,
    pub(crate) on: Option<String>,
}

impl Done {
    /// Done to so many.
    pub(crate) fn to(count: u64) -> Self {
        Self { count: Some(count), on: None }
    }
}

/// A call that will have its line.
pub(super) struct Call {
    what: String,
    on: String,
}

impl Call {
    /// The call of a request, if it may change something.
    pub(super) async fn of(parts: &mut Parts) -> Option<Self> {
        let path = parts.extensions.get::<MatchedPath>().map(|path| path.as_str().to_owned())?;
        if !is_audited(&parts.method, &path) {
            return None;
        }
        let params = RawPathParams::from_request_parts(parts, &()).await.ok();
        let params: Vec<(&str, &str)> = params.iter().flatten().collect();
        Some(Self::named(&path, &params))
    }

    fn named(path: &str, params: &[(&str, &str)]) -> Self {
        let (mut what, mut on) = (Vec::new(), "");
        for part in path.split('/').filter(|part| !part.is_empty() && *part != "v1") {
            let name = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
            let value = name.map(|name| params.iter().find(|(of, _)| *of == name).map_or("", |(_, value)| value));
            match (part, value) {
                ("{id}" | "{type}", Some(value)) => {
                    what.clear();
                    on = value;
                }
                (_, Some(value)) => what.push(value),
                (_, None) => what.push(part),
            }
        }
        Self { what: cut(&what.join("/")).to_owned(), on: cut(on).to_owned() }
    }

    /// Writes its line.
    pub(super) fn tell(self, role: Role, by: By, from: Option<IpAddr>, response: &Response) {
        let (status, who) = (response.status(), role.name());
        let Done { count, on } = response.extensions().get::<Done>().cloned().unwrap_or_default();
        let on = Some(on.as_deref().map_or(self.on.as_str(), cut)).filter(|on| !on.is_empty());
        let (what, by, from) = (self.what.as_str(), by.word(), from.map(tracing::field::display));
        let refused = status.is_client_error() || status.is_server_error();
        let said = if refused { "refused" } else { "done" };
        tracing::info!(target: AUDIT, who, by, from, what, on, count, status = status.as_u16(), "{said}");
    }
}

/// Whether calls of a route have a line.
fn is_audited(method: &Method, path: &str) -> bool {
    *method != Method::GET && *method != Method::HEAD && !NOT_AUDITED.contains(&path)
}

/// The front of a text.
fn cut(text: &str) -> &str {
    let end = (0..=TEXT_BYTES_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s9_a_call_is_named_by_its_address() {
        let named = |path: &str, params: &[(&str, &str)]| {
            let call = Call::named(path, params);
            (call.what, call.on)
        };
        let said = |what: &str, on: &str| (what.to_owned(), on.to_owned());
        assert_eq!(named("/v1/reload", &[]), said("reload", ""));
        assert_eq!(named("/v1/types/{type}/purge", &[("type", "mail")]), said("purge", "mail"));
        let rollout = "/v1/types/{type}/rollout/{word}";
        assert_eq!(named(rollout, &[("type", "mail"), ("word", "pause")]), said("rollout/pause", "mail"));
        assert_eq!(named("/v1/jobs/{id}/{action}", &[("id", "j"), ("action", "cancel")]), said("cancel", "j"));
        assert_eq!(named("/jobs/all/{word}", &[("word", "discard")]), said("jobs/all/discard", ""));
        assert_eq!(named("/v1/types/{type}/purge", &[("type", &"ä".repeat(300))]).1, "ä".repeat(256));
    }

    #[test]
    fn s9_every_route_that_changes_something_is_audited() {
        for (method, path, _) in super::super::routes::ROUTES {
            let adds = *method == Method::POST && NOT_AUDITED.contains(path);
            assert_eq!(is_audited(method, path), *method != Method::GET && !adds, "{method} {path}");
        }
    }
}
