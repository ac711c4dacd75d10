//! The form that asks for a token, so that a browser gets a session; and its end.

use std::net::IpAddr;

use askama::Template;
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};

use super::App;
use super::asked::Query;
use super::body::collect;
use super::guard::{Peer, wrong_token};
use super::problem::Problem;
use super::sessions::{LASTS, shows_session};
use super::ways::within;
use crate::access::Role;

/// Largest form, in bytes: one token and the way on, each of their letters escaped.
const FORM_BYTES_MAX: usize = 8 << 10;

#[derive(Template)]
#[template(path = "login.html", config = "web/askama.toml")]
struct Form<'a> {
    title: &'static str,
    /// Nothing of it is kept live.
    live: &'static str,
    /// Where to go on from here.
    then: &'a str,
    /// Why it is asked for again.
    why: Option<Why>,
    hours: u64,
}

/// Why a token is asked for again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// The browser shows a session that is over.
    Ended,
    /// That token is not known.
    Wrong,
    /// Too many were not, from that address.
    TooMany,
}

fn form(status: StatusCode, then: &str, why: Option<Why>) -> Result<Response, Problem> {
    let bug = |error: askama::Error| Problem::bug(error.to_string());
    let hours = LASTS.as_secs() / 3600;
    let html = Html(Form { title: "Log in", live: "", then, why, hours }.render().map_err(bug)?);
    // So that the form says where it came from.
    Ok((status, [(header::REFERRER_POLICY, "same-origin")], html).into_response())
}

/// Goes on somewhere else, by GET.
fn see(place: &str, cookie: Option<String>) -> Result<Response, Problem> {
    let mut response = StatusCode::SEE_OTHER.into_response();
    let place = HeaderValue::from_str(place).map_err(|_| Problem::bug("an address that is none"))?;
    response.headers_mut().insert(header::LOCATION, place);
    if let Some(cookie) = cookie {
        let cookie = HeaderValue::try_from(cookie).map_err(|_| Problem::bug("a cookie that is none"))?;
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// What stands in the address of the form.
#[derive(serde::Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    then: String,
}

/// `GET /login`.
pub(super) async fn show(
    State(app): State<App>,
    headers: HeaderMap,
    asked: Result<Query<Asked>, Problem>,
) -> Result<Response, Problem> {
    let then = asked.map(|Query(asked)| asked.then).unwrap_or_default();
    let (then, access) = (within(&then), app.handle.access());
    if !access.asks() || app.guard.sessions.role_of(&headers, &access).is_some() {
        return see(then, None);
    }
    let shows = shows_session(&headers);
    let mut response = form(StatusCode::OK, then, shows.then_some(Why::Ended))?;
    if !shows && is_led_from_elsewhere(&headers) {
        // Whoever follows a link on another site's page has no cookie sent along (SameSite=Strict), be there a session or not. From
        // here the way on is this house's own: with a session it leads there, and without one back here.
        let on =
            HeaderValue::try_from(format!("0; url={then}")).map_err(|_| Problem::bug("an address that is none"))?;
        response.headers_mut().insert(header::REFRESH, on);
    }
    Ok(response)
}

/// Whether a browser says that another site's page led here.
fn is_led_from_elsewhere(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site" || site == "same-site")
}

/// `POST /login`.
pub(super) async fn login(
    State(app): State<App>,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.starts_with("application/x-www-form-urlencoded") {
        let detail = "the form is sent as application/x-www-form-urlencoded";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "wrong_content_type", detail));
    }
    let (text, _share) = collect(&app, body, FORM_BYTES_MAX).await?;
    let Some(token) = value(&text, "token") else { return Err(Problem::bad_request("the form has a field: token")) };
    let access = app.handle.access();
    let known = access.role_of(token.trim_ascii()).filter(|(role, _)| *role > Role::Metrics);
    let then = value(&text, "then").and_then(|then| String::from_utf8(then).ok()).unwrap_or_default();
    let then = within(&then);
    let Some((_, hash)) = known else { return refuse(&app, peer, then).await };
    let cookie = app.guard.sessions.begin(hash, access.tls.is_some());
    see(then, Some(cookie.ok_or_else(|| Problem::bug("the system gives no random bytes"))?))
}

async fn refuse(app: &App, peer: IpAddr, then: &str) -> Result<Response, Problem> {
    let refused = wrong_token(&app.guard, peer).await;
    if refused.status != StatusCode::TOO_MANY_REQUESTS {
        return form(StatusCode::UNAUTHORIZED, then, Some(Why::Wrong));
    }
    let mut response = form(refused.status, then, Some(Why::TooMany))?;
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    Ok(response)
}

/// `POST /logout`.
pub(super) async fn logout(State(app): State<App>, headers: HeaderMap) -> Result<Response, Problem> {
    let secure = app.handle.access().tls.is_some();
    see("/login", Some(app.guard.sessions.end(&headers, secure)))
}

/// A field's value in a form that a browser has sent.
fn value(form: &[u8], name: &str) -> Option<Vec<u8>> {
    let mut fields = form.split(|byte| *byte == b'&').filter_map(|field| {
        let at = field.iter().position(|byte| *byte == b'=')?;
        Some((field.get(..at)?, field.get(at + 1..)?))
    });
    let (_, value) = fields.find(|(field, _)| *field == name.as_bytes())?;
    let mut plain = Vec::with_capacity(value.len());
    let mut rest = value.iter().copied();
    while let Some(byte) = rest.next() {
        plain.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            other => other,
        });
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_as_browsers_write_it() {
        let read = |form: &str| value(form.as_bytes(), "token").map(|value| String::from_utf8(value).unwrap());
        assert_eq!(read("token=abc"), Some("abc".to_owned()));
        assert_eq!(read("a=b&token=a%2Bb%3d%3D+c&x=y"), Some("a+b== c".to_owned()));
        for none in ["", "token", "tokens=a", "token=%", "token=%2", "token=%zz"] {
            assert_eq!(read(none), None, "{none}");
        }
    }
}
