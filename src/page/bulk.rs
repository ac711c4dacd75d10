//! Retrying or discarding all dead jobs of a search: counted and shown first, and done when that is confirmed.
//!
//! Meant are those that are in the log when they are counted: the form carries where that ended, so that what dies meanwhile
//! is not taken along. What has changed by the time is left alone, and told.

use std::sync::Arc;

use askama::Template;
use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::response::Response;
use axum::{Extension, Form};
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::act::{check_typed, job_action, sent};
use super::html;
use super::jobs::Asked;
use super::told::{Told, back_to};
use crate::engine::view::JobFilter;
use crate::engine::{Handle, JobAction};
use crate::http::asked::Path;
use crate::http::audit::Done;
use crate::http::problem::Problem;
use crate::http::visitor::Visitor;
use crate::http::{App, answer, blocking};
use crate::types::UnixMs;

/// Jobs of one such act; for more it is done again.
const JOBS_MAX: usize = 10_000;
/// Jobs of one call of the listing.
const AT_ONCE: usize = 1000;
/// Calls of the listing, each of which reads a bounded part of the log.
const CALLS_MAX: usize = 200;
/// Jobs that the engine is asked about at the same time.
const IN_FLIGHT: usize = 256;

#[derive(Template)]
#[template(path = "bulk.html", config = "web/askama.toml")]
struct Page {
    title: String,
    live: &'static str,
    visitor: Visitor,
    word: &'static str,
    asked: Asked,
    count: usize,
    /// Whether there may be more than so many.
    more: bool,
    /// What must be typed.
    name: String,
}

/// What is sent to have it done.
#[derive(Deserialize)]
pub(super) struct Confirmed {
    #[serde(flatten)]
    asked: Asked,
    #[serde(default)]
    name: String,
}

/// The two things that can be done to all of a search.
fn bulk_action(word: &str) -> Result<(&'static str, JobAction), Told> {
    let word = ["retry", "discard"].into_iter().find(|known| *known == word);
    let found = word.and_then(|word| Some((word, job_action(word)?)));
    found.ok_or_else(|| Problem::bad_request("all of a search can be retried or discarded").into())
}

/// What must be typed to have it done: the type's name, or, where all types are meant, the word.
fn to_type(asked: &Asked, word: &str) -> String {
    let name = asked.worker_type.trim();
    if name.is_empty() { word.to_owned() } else { name.to_owned() }
}

fn dead(asked: &mut Asked, now: UnixMs) -> Result<JobFilter, Problem> {
    if asked.state.trim() != "dead" {
        return Err(Problem::bad_request("only dead jobs are retried or discarded together"));
    }
    // Their ids are all that is needed of them.
    Ok(JobFilter { brief: true, ..asked.filter(AT_ONCE, now)? })
}

/// The ids of all that are meant, as many as one act takes, and whether there may be more.
fn gather(handle: &Handle, mut filter: JobFilter) -> Result<(Vec<String>, bool), Problem> {
    let mut ids = Vec::new();
    for _ in 0..CALLS_MAX {
        let page = handle.jobs(&filter)?;
        ids.extend(page.jobs.into_iter().map(|job| job.id));
        filter.cursor = page.next_cursor;
        if ids.len() >= JOBS_MAX {
            ids.truncate(JOBS_MAX);
            return Ok((ids, true));
        }
        if filter.cursor.is_none() {
            return Ok((ids, false));
        }
    }
    Ok((ids, true))
}

/// Shows how many are meant.
pub(super) async fn ask(
    State(app): State<App>,
    Extension(visitor): Extension<Visitor>,
    Path(word): Path<String>,
    query: Result<Query<Asked>, QueryRejection>,
) -> Result<Response, Told> {
    let (word, _) = bulk_action(&word)?;
    let Query(mut asked) = query.map_err(|error| Problem::bad_request(error.body_text()))?;
    asked.cursor = app.handle.reader().visible_up_to().to_string();
    let filter = dead(&mut asked, app.clock.wall_ms())?;
    let (ids, more) = blocking(move || gather(&app.handle, filter)).await??;
    let title = format!("{} all {}", if word == "retry" { "Retry" } else { "Discard" }, asked.words());
    let page = Page { title, live: "", visitor, word, name: to_type(&asked, word), asked, count: ids.len(), more };
    Ok(html(page.render().map_err(super::bug)?))
}

/// Does it.
pub(super) async fn act(
    State(app): State<App>,
    Path(word): Path<String>,
    form: Result<Form<Confirmed>, FormRejection>,
) -> Result<Response, Told> {
    let (word, action) = bulk_action(&word)?;
    let Confirmed { mut asked, name } = sent(form)?;
    if matches!(action, JobAction::Discard) {
        check_typed(&name, &to_type(&asked, word))?;
    }
    let filter = dead(&mut asked, app.clock.wall_ms())?;
    let handle = app.handle.clone();
    let (ids, _) = blocking(move || gather(&handle, filter)).await??;
    let done = act_on(&app, ids, action).await;
    let told = if word == "retry" { "retried" } else { "discarded" };
    let query = asked.query();
    let mut response = back_to(&format!("/jobs?{query}&done={told}&count={done}"));
    response.extensions_mut().insert(Done { count: Some(done as u64), on: Some(asked.words()) });
    Ok(response)
}

/// Does it to each, some at a time; how many it was done to.
async fn act_on(app: &App, ids: Vec<String>, action: JobAction) -> usize {
    let places = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut acts = JoinSet::new();
    for id in ids {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
        let handle = app.handle.clone();
        acts.spawn(async move {
            let acted = answer(&handle, |then| handle.act(&id, action, then)).await;
            drop(place);
            matches!(acted, Ok(Ok(_)))
        });
    }
    acts.join_all().await.into_iter().filter(|done| *done).count()
}
