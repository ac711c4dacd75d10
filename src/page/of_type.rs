//! The page of one type: its versions with all that is known of them, and their workers.

use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;

use super::board::{Board, Fresh, Look};
use super::rollover::{self, is_refused, state, trial};
use super::verdict::{Reason, tried, verdict};
use super::words::{at_it_for, has_stuck, needs_look, shown_rate, spoken, spread};
use super::{chart, render};
use crate::engine::view::{DrainView, TypeView, VersionView};
use crate::figures::{ago, bytes, first_line, number, rate};
use crate::http::problem::Problem;
use crate::http::{App, blocking};
use crate::refusal::Refusal;
use crate::types::UnixMs;

#[derive(Template)]
#[template(path = "type.html", config = "web/askama.toml")]
struct Page {
    title: String,
    live: String,
    part: Part,
}

/// The part that is kept live.
#[derive(Template)]
#[template(path = "type_live.html", config = "web/askama.toml")]
pub(super) struct Part {
    t: TypeView,
    reasons: Vec<Reason>,
    now: UnixMs,
}

pub(super) async fn page(
    State(app): State<App>,
    Extension(board): Extension<Arc<Board>>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let part = part(&app, &board, &name, Fresh::Now).await?;
    render(&Page { live: format!("/types/{}/fragment", part.t.worker_type), title: name, part })
}

pub(super) async fn fragment(
    State(app): State<App>,
    Extension(board): Extension<Arc<Board>>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    render(&part(&app, &board, &name, Fresh::Tick).await?)
}

async fn part(app: &App, board: &Board, name: &str, fresh: Fresh) -> Result<Part, Problem> {
    let look = board.look(app, fresh).await?;
    let Some(part) = Part::of(&look, name) else {
        let known = app.handle.known_types();
        let known = known.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
        return Err(Refusal::UnknownType { name: name.to_owned(), known }.into());
    };
    blocking(move || part.with_processes()).await
}

impl Part {
    pub(super) fn of(look: &Look, name: &str) -> Option<Self> {
        let t = look.view.types.iter().find(|of_type| of_type.worker_type.as_str() == name)?;
        let reasons = verdict(&look.view).reasons;
        let reasons = reasons.into_iter().filter(|reason| reason.of.as_ref() == Some(&t.worker_type)).collect();
        Some(Self { t: t.clone(), reasons, now: look.now })
    }

    /// With the memory of its processes.
    fn with_processes(mut self) -> Self {
        self.t.look_at_processes();
        self
    }

    fn since(&self, at: &UnixMs) -> String {
        ago(&self.now.saturating_sub(*at))
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
