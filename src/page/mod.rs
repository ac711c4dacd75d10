//! The page: how the ecosystem looks to people, and what they can do about it there.
//!
//! Owns its looks and its addresses; shows nothing that the engine's views do not say, and does nothing that the engine's
//! handle does not offer. Rendered here, and kept live by a small script that fetches the same part again; it works
//! without the script. Nothing that a page shows is trusted: templates escape all of it.

mod act;
mod board;
mod bulk;
mod chart;
mod errors;
mod jobs;
mod of_job;
mod of_type;
mod overview;
mod rollover;
#[cfg(test)]
mod tests;
mod told;
mod verdict;
mod words;

use std::sync::Arc;

use askama::Template;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};

use crate::http::App;
use crate::http::problem::Problem;
use crate::http::visitor::Visitor;
use board::{Board, Fresh};
use told::Told;

const STYLE: &str = include_str!("../../web/style.css");
const SCRIPT: &str = include_str!("../../web/live.js");

/// A form is never longer than this: it holds names and a search.
const FORM_BYTES_MAX: usize = 16 << 10;

/// The pages, the parts of them that are kept live, and what they need.
pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/", get(page))
        .route("/fragment", get(fragment))
        .route("/types/{type}", get(of_type::page))
        .route("/types/{type}/fragment", get(of_type::fragment))
        .route("/types/{type}/purge", post(act::purge))
        .route("/types/{type}/{word}", post(act::of_type))
        .route("/jobs", get(jobs::page))
        .route("/jobs/all/{word}", get(bulk::ask).post(bulk::act))
        .route("/jobs/{id}", get(of_job::page))
        .route("/jobs/{id}/fragment", get(of_job::fragment))
        .route("/jobs/{id}/{word}", post(act::of_job))
        .route("/assets/style.css", get(|| async { asset("text/css; charset=utf-8", STYLE) }))
        .route("/assets/live.js", get(|| async { asset("text/javascript; charset=utf-8", SCRIPT) }))
        .layer(Extension(Arc::<Board>::default()))
        .layer(DefaultBodyLimit::max(FORM_BYTES_MAX))
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        // The binary may be another one a minute later.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, text).into_response()
}

#[derive(Template)]
#[template(path = "screen.html", config = "web/askama.toml")]
struct Page<'a> {
    title: &'a str,
    /// Where the part that is kept live comes from; empty for a page that stays as it is.
    live: &'a str,
    visitor: Visitor,
    screen: &'a str,
}

async fn page(
    State(app): State<App>,
    Extension(board): Extension<Arc<Board>>,
    Extension(visitor): Extension<Visitor>,
) -> Result<Response, Told> {
    let screen = board.screen(&app, Fresh::Now).await?;
    let page = Page { title: screen.headline, live: "/fragment", visitor, screen: &screen.live };
    Ok(html(page.render().map_err(bug)?))
}

async fn fragment(State(app): State<App>, Extension(board): Extension<Arc<Board>>) -> Result<Response, Problem> {
    Ok(html(board.screen(&app, Fresh::Tick).await?.live.clone()))
}

/// A page; as everything here, but that a form on it says where it came from.
fn html(text: String) -> Response {
    ([(header::REFERRER_POLICY, "same-origin")], Html(text)).into_response()
}

/// A template that cannot be rendered is a bug.
fn bug(error: askama::Error) -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "bug", error.to_string())
}
