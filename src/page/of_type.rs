//! The page of one type: its versions with all that is known of them, their workers, why its jobs are dead, and what can be
//! done about it.

use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;

use super::board::{Board, Fresh};
use super::errors::Errors;
use super::overview::{Look, route, sharing};
use super::rollover::{self, is_refused, state, trial};
use super::told::{Done, Told, in_address};
use super::verdict::{Reason, tried, verdict};
use super::words::{at_it_for, has_stuck, needs_look, shown_rate, since_text, spoken, spread};
use super::{bug, chart, html};
use crate::engine::view::{DrainView, TypeView, VersionView};
use crate::figures::{ago, bytes, in_short, number, rate};
use crate::http::asked::Path;
use crate::http::problem::Problem;
use crate::http::visitor::Visitor;
use crate::http::{App, blocking};
use crate::refusal::Refusal;
use crate::types::UnixMs;

#[derive(Template)]
#[template(path = "type.html", config = "web/askama.toml")]
struct Page {
    title: String,
    live: String,
    visitor: Visitor,
    note: Option<String>,
    part: Part,
}

/// The part that is kept live.
#[derive(Template)]
#[template(path = "type_live.html", config = "web/askama.toml")]
pub(super) struct Part {
    t: TypeView,
    reasons: Vec<Reason>,
    /// Its dead jobs by their errors.
    errors: Arc<Errors>,
    now: UnixMs,
    /// Whether who sees it may do something about it.
    may_act: bool,
    /// Whether he may end all of its jobs, too.
    may_purge: bool,
}

pub(super) async fn page(
    State(app): State<App>,
    Extension(board): Extension<Arc<Board>>,
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
    done: Result<Query<Done>, QueryRejection>,
) -> Result<Response, Told> {
    let part = part(&app, &board, &name, visitor, Fresh::Now).await?;
    let note = done.ok().and_then(|Query(done)| done.words());
    let live = format!("/types/{}/fragment", part.t.worker_type);
    let page = Page { live, visitor, title: name, note, part };
    Ok(html(page.render().map_err(bug)?))
}

pub(super) async fn fragment(
    State(app): State<App>,
    Extension(board): Extension<Arc<Board>>,
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let part = part(&app, &board, &name, visitor, Fresh::Tick).await?;
    Ok(html(part.render().map_err(bug)?))
}

async fn part(app: &App, board: &Board, name: &str, visitor: Visitor, fresh: Fresh) -> Result<Part, Problem> {
    let look = board.look(app, fresh).await?;
    let Some(mut part) = Part::of(&look, name, visitor.may_act()) else {
        let known = app.handle.known_types();
        let known = known.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
        return Err(Refusal::UnknownType { name: name.to_owned(), known }.into());
    };
    part.may_purge = visitor.may_purge();
    part.errors = board.errors(app, &part.t, fresh).await?;
    blocking(move || part.with_processes()).await
}

impl Part {
    pub(super) fn of(look: &Look, name: &str, may_act: bool) -> Option<Self> {
        let t = look.view.types.iter().find(|of_type| of_type.worker_type.as_str() == name)?;
        let reasons = verdict(&look.view).reasons;
        let reasons = reasons.into_iter().filter(|reason| reason.of.as_ref() == Some(&t.worker_type)).collect();
        Some(Self { t: t.clone(), reasons, errors: Arc::default(), now: look.now, may_act, may_purge: may_act })
    }

    /// With the memory of its processes.
    fn with_processes(mut self) -> Self {
        self.t.look_at_processes();
        self
    }

    fn since(&self, at: &UnixMs) -> String {
        ago(&self.now.saturating_sub(*at))
    }

    fn since_text(&self, at: &str) -> String {
        since_text(at, self.now)
    }

    /// How a version comes to its end.
    fn draining(&self, drain: &DrainView) -> String {
        rollover::drain(drain, self.now).words()
    }
}

fn course(of_type: &TypeView) -> String {
    chart::course(&of_type.course)
}

fn pool(version: &VersionView) -> String {
    chart::pool(version.pool_size, version.busy)
}

/// The version that a rollback goes to, while it is still there.
fn way_back(of_type: &TypeView) -> Option<&str> {
    let back = of_type.versions.iter().rev().find(|version| matches!(version.state, "warm" | "draining"))?;
    Some(&back.version)
}

/// A version that was withdrawn while the config asks for it.
fn withdrawn(of_type: &TypeView) -> Option<&str> {
    let version = of_type.versions.iter().find(|version| version.configured && version.state == "quarantined")?;
    Some(&version.version)
}

fn has_to_purge(of_type: &TypeView) -> bool {
    of_type.ready + of_type.delayed + of_type.parked + of_type.dead > 0
}

/// The share of attempts that fail, of late.
fn failing_share(version: &VersionView) -> String {
    let pace = &version.pace;
    shown_rate(pace.failures_per_second, pace.per_second + pace.failures_per_second)
}

/// Whether its workers have more to say than that they are idle.
fn is_at_work(version: &VersionView) -> bool {
    version.workers.iter().any(|worker| worker.state != "idle" || worker.pid.is_some())
}

fn size(version: &VersionView) -> usize {
    version.pool_size as usize
}
