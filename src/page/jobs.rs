//! Jobs by a search: which are meant, a page of them, and the way to the next.

use askama::Template;
use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;

use super::html;
use super::told::{Done, Told, back_to, in_address};
use super::words::{due, since_text};
use crate::config::units;
use crate::engine::Handle;
use crate::engine::view::{JobFilter, JobView};
use crate::figures::{in_short, moment};
use crate::http::jobs::{ListQuery, STATES};
use crate::http::problem::Problem;
use crate::http::visitor::Visitor;
use crate::http::{App, blocking};
use crate::refusal::Refusal;
use crate::types::{UnixMs, WorkerType};

/// Jobs on one page.
const PAGE: usize = 50;
/// Calls of the listing for one page, each of which reads a bounded part of the log.
const CALLS_MAX: usize = 10;

/// Which jobs somebody asks for; what is empty means any.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    /// An id, a type, or a part of an error.
    q: String,
    #[serde(rename = "type")]
    pub(super) worker_type: String,
    pub(super) state: String,
    pub(super) tenant: String,
    pub(super) error: String,
    pub(super) since: String,
    pub(super) cursor: String,
}

fn some(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

impl Asked {
    /// As the listing takes it at `now`, checked. An age becomes the moment that it means: the next page, and what is done to all
    /// of them, mean the same.
    pub(super) fn filter(&mut self, limit: usize, now: UnixMs) -> Result<JobFilter, Problem> {
        let query = ListQuery {
            worker_type: some(&self.worker_type),
            state: some(&self.state),
            tenant: some(&self.tenant),
            error: some(&self.error),
            since: some(&self.since),
            limit: Some(limit),
            cursor: some(&self.cursor),
        };
        let filter = query.filter(now)?;
        self.since = filter.since.map(moment).unwrap_or_default();
        Ok(filter)
    }

    /// What is asked for, with its names, but for where to go on.
    pub(super) fn fields(&self) -> Vec<(&'static str, &str)> {
        let all = [
            ("type", &self.worker_type),
            ("state", &self.state),
            ("tenant", &self.tenant),
            ("error", &self.error),
            ("since", &self.since),
        ];
        all.into_iter().map(|(name, value)| (name, value.trim())).filter(|(_, value)| !value.is_empty()).collect()
    }

    /// As a part of an address.
    pub(super) fn query(&self) -> String {
        let fields = self.fields();
        fields.iter().map(|(name, value)| format!("{name}={}", in_address(value))).collect::<Vec<_>>().join("&")
    }

    /// In words.
    pub(super) fn words(&self) -> String {
        let state = some(&self.state).map_or_else(|| "jobs".to_owned(), |state| format!("{state} jobs"));
        let parts = [
            some(&self.worker_type).map(|name| format!(" of {name}")),
            some(&self.tenant).map(|tenant| format!(" of tenant {tenant}")),
            some(&self.error).map(|error| format!(" with the error \u{201c}{error}\u{201d}")),
            some(&self.since).map(|since| match units::duration(&since) {
                Ok(_) => format!(" of the last {since}"),
                Err(_) => format!(" since {since}"),
            }),
        ];
        parts.into_iter().flatten().fold(state, |words, part| words + &part)
    }
}

/// Words as a title: a state, or what is not one, comes first.
fn capital(words: &str) -> String {
    let (first, rest) = words.split_at_checked(1).unwrap_or_default();
    first.to_ascii_uppercase() + rest
}

#[derive(Template)]
#[template(path = "jobs.html", config = "web/askama.toml")]
struct Page {
    title: String,
    live: &'static str,
    visitor: Visitor,
    asked: Asked,
    /// Since when, as it was written.
    since: String,
    types: Vec<WorkerType>,
    jobs: Vec<JobView>,
    next: Option<String>,
    note: Option<String>,
    now: UnixMs,
}

pub(super) async fn page(
    State(app): State<App>,
    Extension(visitor): Extension<Visitor>,
    query: Result<Query<Asked>, QueryRejection>,
    done: Result<Query<Done>, QueryRejection>,
) -> Result<Response, Told> {
    let note = done.ok().and_then(|Query(done)| done.words());
    let Query(asked) = query.map_err(|error| Problem::bad_request(error.body_text()))?;
    let now = app.clock.wall_ms();
    let page = blocking(move || Page::of(&app.handle, asked, visitor, note, now)).await?;
    match page? {
        Found::Jobs(page) => Ok(html(page.render().map_err(super::bug)?)),
        Found::Place(place) => Ok(back_to(&place)),
    }
}

/// What somebody looked for.
enum Found {
    Jobs(Box<Page>),
    /// One thing, which has a page of its own.
    Place(String),
}

impl Page {
    fn of(
        handle: &Handle,
        mut asked: Asked,
        visitor: Visitor,
        note: Option<String>,
        now: UnixMs,
    ) -> Result<Found, Problem> {
        let types = handle.known_types();
        if let Some(q) = some(&asked.q) {
            if handle.job(&q).is_ok() {
                return Ok(Found::Place(format!("/jobs/{}", in_address(&q))));
            }
            if types.iter().any(|name| name.as_str() == q) {
                return Ok(Found::Place(format!("/types/{}", in_address(&q))));
            }
            if STATES.contains(&&*q) { asked.state = q } else { asked.error = q }
        }
        let (title, since) = (capital(&asked.words()), asked.since.clone());
        let (jobs, next) = gather(handle, asked.filter(PAGE, now)?, CALLS_MAX)?;
        Ok(Found::Jobs(Box::new(Self { title, live: "", visitor, asked, since, types, jobs, next, note, now })))
    }

    fn next_query(&self, next: &str) -> String {
        let query = self.asked.query();
        let cursor = format!("cursor={}", in_address(next));
        if query.is_empty() { cursor } else { format!("{query}&{cursor}") }
    }

    /// What can be done to all that are meant.
    fn can_act(&self) -> bool {
        self.visitor.may_act() && self.asked.state.trim() == "dead" && !self.jobs.is_empty()
    }

    fn since(&self, at: &str) -> String {
        since_text(at, self.now)
    }

    /// When it ended, or when it is due.
    fn when(&self, job: &JobView) -> String {
        match (&job.ended_at, &job.ready_at, job.failures.last()) {
            (Some(at), _, _) => format!("ended {}", self.since(at)),
            (None, Some(at), _) => format!("due {}", due(at, self.now)),
            (None, None, Some(failure)) => format!("failed {}", self.since(&failure.at)),
            (None, None, None) => String::new(),
        }
    }
}

/// As many jobs as go on a page, without what no list shows of them, and where the next one begins.
pub(super) fn gather(
    handle: &Handle,
    mut filter: JobFilter,
    calls: usize,
) -> Result<(Vec<JobView>, Option<String>), Refusal> {
    let most = filter.limit;
    filter.brief = true;
    let mut jobs = Vec::new();
    for _ in 0..calls {
        filter.limit = most - jobs.len();
        let page = handle.jobs(&filter)?;
        jobs.extend(page.jobs);
        filter.cursor = page.next_cursor;
        if filter.cursor.is_none() || jobs.len() >= most {
            break;
        }
    }
    Ok((jobs, filter.cursor))
}
