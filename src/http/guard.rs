//! What every request passes: its own names alone, no other site's pages, who may do it, and answers that browsers keep to.
//!
//! A page of another site can have a browser send requests here. It can neither choose the Host header (so that a name
//! which was made to point here is refused) nor hide where it comes from where it changes something. What a route needs is
//! looked up in one table ([`super::routes`]); where the config knows tokens, whoever may do that shows one, or a session.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::App;
use super::attempts::Attempts;
use super::audit::{By, Call};
use super::problem::Problem;
use super::refused::{for_people, wants_page};
use super::routes::needed;
use super::sessions::Sessions;
use super::visitor::Visitor;
use super::ways::{sent_from, to_form};
use crate::access::{Access, Role};
use crate::clock::Clock;
use crate::refusal::Refusal;

const HEADERS: [(&str, &str); 6] = [
    (
        "content-security-policy",
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; \
         base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
];

/// What is below this address is answered to programs, whoever asks.
const API: &str = "/v1/";

/// From where a request came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// What is remembered of those who showed a token, right or wrong.
pub struct Guard {
    pub(super) sessions: Sessions,
    pub(super) attempts: Attempts,
}

impl Guard {
    /// One that knows nobody yet.
    pub fn new(clock: &Arc<dyn Clock>) -> Arc<Self> {
        let (sessions, attempts) = (Sessions::new(Arc::clone(clock)), Attempts::new(Arc::clone(clock)));
        Arc::new(Self { sessions, attempts })
    }
}

pub(super) async fn guard(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let people = wants_page(request.headers()) && !request.uri().path().starts_with(API);
    let mut response = match admit(&app, &request) {
        Admitted::As(visitor, by) => {
            request.extensions_mut().insert(visitor);
            let (mut parts, body) = request.into_parts();
            let call = Call::of(&mut parts).await;
            let from = parts.extensions.get::<Peer>().map(|peer| peer.0);
            let answering = next.run(Request::from_parts(parts, body));
            match call {
                None => answering.await,
                Some(call) => to_its_end(answering, call, visitor.role, by, from).await,
            }
        }
        Admitted::Short(role, by, refused) => {
            let (mut parts, _) = request.into_parts();
            if let Some(call) = Call::of(&mut parts).await {
                call.tell(role, by, parts.extensions.get::<Peer>().map(|peer| peer.0), &refused);
            }
            *refused
        }
        Admitted::Not(refused) => *refused,
        Admitted::WithWrongToken(peer) => challenge(wrong_token(&app.guard, peer).await),
    };
    if people {
        response = for_people(response);
    }
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Answers a call that has a line in the audit. It goes on to its end, and has its line, when nobody waits for it any more: what it
/// changes may be done already.
async fn to_its_end(
    answering: impl Future<Output = Response> + Send + 'static,
    call: Call,
    role: Role,
    by: By,
    from: Option<IpAddr>,
) -> Response {
    let task = tokio::spawn(async move {
        let response = answering.await;
        call.tell(role, by, from, &response);
        response
    });
    match task.await {
        Ok(response) => response,
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The process is on its way out.
            Err(_) => Problem::from(Refusal::Stopping).into_response(),
        },
    }
}

/// Whether a request is let in.
enum Admitted {
    /// It is; and that is who asks.
    As(Visitor, By),
    /// It is not, since this role does not suffice.
    Short(Role, By, Box<Response>),
    /// It is not, and this is why.
    Not(Box<Response>),
    /// It is not; who came from there has shown a token that is not known.
    WithWrongToken(IpAddr),
}

fn admit(app: &App, request: &Request) -> Admitted {
    let not = |problem: Problem| Admitted::Not(Box::new(problem.into_response()));
    let access = app.handle.access();
    if let Err(problem) = check(&access, request.method(), request.headers()) {
        return not(problem);
    }
    if !access.asks() {
        return Admitted::As(Visitor { role: Role::Admin, by_session: false }, By::Nothing);
    }
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let needed = needed(request.method(), path);
    let shown = bearer(request.headers());
    let (role, by) = match shown {
        Some(token) => (access.role_of(token).map(|(role, _)| role), By::Token),
        None => (app.guard.sessions.role_of(request.headers(), &access), By::Session),
    };
    match (needed, role) {
        (None, None) => Admitted::As(Visitor::NOBODY, by),
        (None, Some(role)) => Admitted::As(Visitor { role, by_session: shown.is_none() }, by),
        (Some(needed), Some(role)) if role >= needed => Admitted::As(Visitor { role, by_session: shown.is_none() }, by),
        (Some(needed), Some(role)) => {
            let detail =
                format!("this needs a token of the role {}, and this one is of {}", needed.name(), role.name());
            let refused = Problem::new(StatusCode::FORBIDDEN, "forbidden", detail).into_response();
            Admitted::Short(role, by, Box::new(refused))
        }
        (Some(_), None) if shown.is_some() => {
            let peer = request.extensions().get::<Peer>().map_or(IpAddr::from([0; 4]), |peer| peer.0);
            Admitted::WithWrongToken(peer)
        }
        (Some(_), None) => Admitted::Not(Box::new(ask(request))),
    }
}

/// Asks for a token: a browser that wants to show a page gets the form, and goes on from there where it wanted to be, or, where
/// it has sent something, where it was.
fn ask(request: &Request) -> Response {
    let text = |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if wants_page(request.headers()) {
        let back = if *request.method() == Method::POST {
            sent_from(text(header::REFERER), text(header::HOST))
        } else {
            request.uri().path_and_query().map(ToString::to_string).unwrap_or_default()
        };
        return (StatusCode::SEE_OTHER, [(header::LOCATION, to_form(&back))]).into_response();
    }
    let detail = "show a token: Authorization: Bearer …; the command line takes it from BIOTOPE_TOKEN";
    challenge(Problem::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail))
}

fn challenge(problem: Problem) -> Response {
    let mut response = problem.into_response();
    if response.status() == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"biotope\""));
    }
    response
}

/// What a wrong token is answered, after a while.
pub(super) async fn wrong_token(guard: &Guard, peer: IpAddr) -> Problem {
    let Some(waiting) = guard.attempts.failed(peer) else {
        let detail = "too many wrong tokens from this address";
        return Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_attempts", detail);
    };
    tracing::warn!(%peer, "a token was shown that is not known");
    tokio::time::sleep(waiting.delay).await;
    Problem::new(StatusCode::UNAUTHORIZED, "wrong_token", "this token is not known here")
}

/// The token that a request shows.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let shown = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = shown.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

fn check(access: &Access, method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let host = text(header::HOST);
    let is_own = |host: &str| host.parse::<Authority>().is_ok_and(|host| access.is_own_name(host.host()));
    let once = headers.get_all(header::HOST).iter().count() == 1;
    if !once || !host.is_some_and(is_own) {
        let detail = "the Host header must be an address that is served, localhost, or one of `http.names`";
        return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "wrong_host", detail));
    }
    if method == Method::GET || method == Method::HEAD {
        return Ok(());
    }
    let from_elsewhere = match (headers.get("sec-fetch-site"), headers.get(header::ORIGIN)) {
        // Set by the browser itself: its own pages, or its user by hand.
        (Some(site), _) => site != "same-origin" && site != "none",
        (None, Some(origin)) => {
            let scheme = if access.speaks_tls() { "https://" } else { "http://" };
            origin.to_str().ok().and_then(|origin| origin.strip_prefix(scheme)) != host
        }
        // No browser.
        (None, None) => false,
    };
    if from_elsewhere {
        return Err(Problem::new(StatusCode::FORBIDDEN, "wrong_origin", "pages of other sites may not do this"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(method: Method, headers: &[(&'static str, &str)]) -> Option<StatusCode> {
        let map = headers.iter().map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap())).collect();
        check(&Access::default(), &method, &map).err().map(|problem| problem.status)
    }

    #[test]
    fn s10_only_its_own_names_are_served() {
        for host in ["127.0.0.1:7420", "127.0.0.1", "[::1]:7420", "localhost:1", "LOCALHOST"] {
            assert_eq!(status(Method::GET, &[("host", host)]), None, "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example:7420", "10.0.0.1", "", "a@127.0.0.1.x"] {
            assert_eq!(status(Method::GET, &[("host", host)]), Some(StatusCode::MISDIRECTED_REQUEST), "{host}");
        }
        assert_eq!(status(Method::GET, &[]), Some(StatusCode::MISDIRECTED_REQUEST));
        let mut twice = HeaderMap::new();
        for host in ["localhost", "evil.example"] {
            twice.append(header::HOST, HeaderValue::from_static(host));
        }
        assert!(check(&Access::default(), &Method::GET, &twice).is_err());
    }

    #[test]
    fn s9_no_other_origin_may_change_anything() {
        let host = ("host", "127.0.0.1:7420");
        assert_eq!(status(Method::POST, &[host]), None);
        assert_eq!(status(Method::POST, &[host, ("origin", "http://127.0.0.1:7420")]), None);
        for origin in ["http://evil.example", "null", "https://127.0.0.1:7420", "http://127.0.0.1:8000"] {
            assert_eq!(status(Method::POST, &[host, ("origin", origin)]), Some(StatusCode::FORBIDDEN), "{origin}");
        }
        for (site, refused) in [("same-origin", false), ("none", false), ("same-site", true), ("cross-site", true)] {
            let wanted = refused.then_some(StatusCode::FORBIDDEN);
            assert_eq!(status(Method::POST, &[host, ("sec-fetch-site", site)]), wanted, "{site}");
            assert_eq!(status(Method::DELETE, &[host, ("sec-fetch-site", site)]), wanted, "{site}");
        }
        let both = [host, ("sec-fetch-site", "cross-site"), ("origin", "http://127.0.0.1:7420")];
        assert_eq!(status(Method::POST, &both), Some(StatusCode::FORBIDDEN));
    }

    #[test]
    fn s7_answers_keep_browsers_from_running_what_is_not_ours() {
        let (_, policy) = HEADERS[0];
        let rules: Vec<&str> = policy.split(';').map(str::trim).collect();
        for rule in ["default-src 'none'", "script-src 'self'", "base-uri 'none'", "frame-ancestors 'none'"] {
            assert!(rules.contains(&rule), "{policy}");
        }
        for loose in ["unsafe", "*", "http:", "https:"] {
            assert!(!policy.contains(loose), "{policy}");
        }
    }

    #[test]
    fn a_token_is_shown_as_the_standard_says() {
        let of = |text: &str| {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, text.parse().unwrap())]);
            bearer(&headers).map(<[u8]>::to_vec)
        };
        assert_eq!(of("Bearer abc"), Some(b"abc".to_vec()));
        assert_eq!(of("bearer  abc "), Some(b"abc".to_vec()));
        for none in ["Basic abc", "Bearer", "abc", ""] {
            assert_eq!(of(none), None, "{none}");
        }
    }
}
