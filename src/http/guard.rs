//! What every request passes: names of this machine alone, no other site's pages, and answers that browsers keep to.
//!
//! A page of another site can have a browser send requests here. It can neither choose the Host header (so that a name
//! which was made to point at 127.0.0.1 is refused) nor leave out Origin where it changes something.

use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;

const HEADERS: [(&str, &str); 6] = [
    (
        "content-security-policy",
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
];

pub(super) async fn guard(request: Request, next: Next) -> Response {
    let mut response = match check(request.method(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

fn check(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    if !host.is_some_and(is_loopback) {
        let detail = "the Host header must be a loopback name: 127.0.0.1, [::1] or localhost";
        return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "wrong_host", detail));
    }
    if method == Method::GET || method == Method::HEAD {
        return Ok(());
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let own = origin.to_str().ok().and_then(|origin| origin.strip_prefix("http://")) == host;
    if own {
        return Ok(());
    }
    Err(Problem::new(StatusCode::FORBIDDEN, "wrong_origin", "pages of other sites may not do this"))
}

fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || address.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(method: Method, headers: &[(&'static str, &str)]) -> Option<StatusCode> {
        let map = headers.iter().map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap())).collect();
        check(&method, &map).err().map(|problem| problem.status)
    }

    #[test]
    fn only_names_of_this_machine_are_served() {
        for host in ["127.0.0.1:7420", "127.0.0.1", "[::1]:7420", "localhost:1", "LOCALHOST"] {
            assert_eq!(status(Method::GET, &[("host", host)]), None, "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example:7420", "10.0.0.1", "", "a@127.0.0.1.x"] {
            assert_eq!(status(Method::GET, &[("host", host)]), Some(StatusCode::MISDIRECTED_REQUEST), "{host}");
        }
        assert_eq!(status(Method::GET, &[]), Some(StatusCode::MISDIRECTED_REQUEST));
    }

    #[test]
    fn no_other_origin_may_change_anything() {
        let host = ("host", "127.0.0.1:7420");
        assert_eq!(status(Method::POST, &[host]), None);
        assert_eq!(status(Method::POST, &[host, ("origin", "http://127.0.0.1:7420")]), None);
        for origin in ["http://evil.example", "null", "https://127.0.0.1:7420", "http://127.0.0.1:8000"] {
            assert_eq!(status(Method::POST, &[host, ("origin", origin)]), Some(StatusCode::FORBIDDEN), "{origin}");
        }
    }
}
