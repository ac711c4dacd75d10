//! The form that asks for a token, so that a browser gets a session; and its end.

use std::net::IpAddr;

use askama::Template;
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};

use super::App;
use super::body::collect;
use super::guard::{Peer, wrong_token};
use super::problem::Problem;
use crate::access::Role;

/// Largest form, in bytes: one token, each of its letters escaped.
const FORM_BYTES_MAX: usize = 4 << 10;

#[derive(Template)]
#[template(path = "login.html", config = "web/askama.toml")]
struct Form {
    title: &'static str,
    /// Nothing of it is kept live.
    live: &'static str,
    why: Option<&'static str>,
}

fn form(status: StatusCode, why: Option<&'static str>) -> Result<Response, Problem> {
    let bug = |error: askama::Error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "bug", error.to_string());
    let html = Html(Form { title: "Log in", live: "", why }.render().map_err(bug)?);
    // So that the form says where it came from.
    Ok((status, [(header::REFERRER_POLICY, "same-origin")], html).into_response())
}

/// Goes on somewhere else, by GET.
fn see(place: &'static str, cookie: Option<String>) -> Result<Response, Problem> {
    let mut response = (StatusCode::SEE_OTHER, [(header::LOCATION, place)]).into_response();
    if let Some(cookie) = cookie {
        let bug = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "bug", "a cookie that is none");
        response.headers_mut().insert(header::SET_COOKIE, HeaderValue::try_from(cookie).map_err(bug)?);
    }
    Ok(response)
}

/// `GET /login`.
pub(super) async fn show(State(app): State<App>) -> Result<Response, Problem> {
    if app.handle.access().asks() { form(StatusCode::OK, None) } else { see("/", None) }
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
    let Some((_, hash)) = known else { return refuse(&app, peer).await };
    let cookie = app.guard.sessions.begin(hash, access.tls.is_some());
    let none = || Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "bug", "the system gives no random bytes");
    see("/", Some(cookie.ok_or_else(none)?))
}

async fn refuse(app: &App, peer: IpAddr) -> Result<Response, Problem> {
    let refused = wrong_token(&app.guard, peer).await;
    if refused.status == StatusCode::TOO_MANY_REQUESTS {
        return Err(refused);
    }
    form(StatusCode::UNAUTHORIZED, Some("This token is not known here."))
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
