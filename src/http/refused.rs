//! A refusal as people read it: the same status and code as everywhere, on a page.

use askama::Template;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};

use super::problem::Problem;
use super::visitor::Visitor;

#[derive(Template)]
#[template(path = "problem.html", config = "web/askama.toml")]
struct Page<'a> {
    title: &'static str,
    live: &'static str,
    visitor: Visitor,
    detail: &'a str,
    code: &'static str,
}

/// Whether who asks is a browser that wants to show a page.
pub(super) fn wants_page(headers: &HeaderMap) -> bool {
    let accepts = headers.get(header::ACCEPT).and_then(|accepts| accepts.to_str().ok());
    accepts.is_some_and(|accepts| accepts.contains("text/html"))
}

/// The page that tells of a refusal.
pub(crate) fn page(problem: &Problem) -> Response {
    let Problem { status, code, detail } = problem;
    let title = match *status {
        StatusCode::NOT_FOUND => "Not here",
        StatusCode::CONFLICT => "Not as things stand",
        StatusCode::FORBIDDEN => "Not with this token",
        status if status.is_server_error() => "Not now",
        _ => "Not so",
    };
    match (Page { title, live: "", visitor: Visitor::NOBODY, detail, code }).render() {
        Ok(text) => (*status, [(header::REFERRER_POLICY, "same-origin")], Html(text)).into_response(),
        Err(_) => problem.clone().into_response(),
    }
}

/// An answer as a browser shows it: where it is a refusal, its page, with whatever else the answer says.
pub(super) fn for_people(answer: Response) -> Response {
    let Some(problem) = answer.extensions().get::<Problem>() else { return answer };
    let mut page = page(problem);
    for (name, value) in answer.headers() {
        if *name != header::CONTENT_TYPE && *name != header::CONTENT_LENGTH {
            page.headers_mut().insert(name, value.clone());
        }
    }
    page
}
