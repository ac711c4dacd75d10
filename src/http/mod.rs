//! HTTP: what producers, people and scripts reach a running biotope by.
//!
//! Owns connections, requests and answers. Parses by the house's one parser, asks the engine by its
//! [`Handle`], and decides nothing about jobs. An answer of success is sent only after the engine said "durable".

mod accept;
pub(crate) mod asked;
mod attempts;
pub(crate) mod audit;
mod backup;
mod body;
mod buffers;
mod bulk;
mod connection;
mod doors;
mod events;
pub(crate) mod guard;
pub(crate) mod jobs;
mod login;
mod metrics;
mod openapi;
mod places;
pub mod problem;
pub(crate) mod refused;
mod routes;
mod sessions;
pub(crate) mod visitor;
pub(crate) mod ways;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::engine::Handle;
use crate::engine::view::{DAMAGE_REMEDY, EcosystemView};
use crate::job::new::Pushed;
use crate::refusal::Refusal;
use crate::reload::Reloader;
use crate::rollover::plan::Word;
use crate::takeover::Upgrader;
pub use accept::serve;
use asked::{Path, Query};
use audit::Done;
pub use buffers::Buffers;
pub use doors::Doors;
pub use events::Events;
pub use guard::Guard;
use problem::Problem;

/// How long a caller waits for the verdict of a reload at most.
const RELOAD_WAIT_MAX: Duration = Duration::from_secs(600);

/// What requests are answered from.
#[derive(Clone)]
pub struct App {
    /// The engine.
    pub handle: Handle,
    /// Takes the config file over.
    pub reloader: Reloader,
    /// Replaces the binary.
    pub upgrader: Upgrader,
    /// What bodies and answers take together.
    pub buffers: Buffers,
    /// Who has shown a token.
    pub guard: Arc<Guard>,
    /// What is told as it changes.
    pub events: Events,
    /// For moments in the past and the future.
    pub clock: Arc<dyn Clock>,
}

/// All routes, behind the guard.
fn router(app: App, page: Router<App>) -> Router {
    let guard = axum::middleware::from_fn_with_state(app.clone(), guard::guard);
    routes(page).layer(guard).with_state(app)
}

/// All routes, those of the page among them; what each needs is in [`routes::ROUTES`].
fn routes(page: Router<App>) -> Router<App> {
    Router::new()
        .route("/v1/jobs", post(jobs::push).get(jobs::list))
        .route("/v1/jobs/{id}", get(jobs::show))
        .route("/v1/jobs/{id}/why", get(jobs::why))
        .route("/v1/jobs/{id}/timeline", get(jobs::timeline))
        .route("/v1/jobs/{id}/{action}", post(jobs::act))
        .route("/v1/types/{type}/purge", post(purge))
        .route("/v1/types/{type}/retry", post(jobs::retry_failed))
        .route("/v1/types/{type}/pause", post(pause))
        .route("/v1/types/{type}/resume", post(resume))
        .route("/v1/types/{type}/rollback", post(rollback))
        .route("/v1/types/{type}/rollout/{word}", post(rollout))
        .route("/v1/ecosystem", get(show_ecosystem))
        .route("/v1/reload", post(reload))
        .route("/v1/generations", get(generations))
        .route("/v1/upgrade", post(upgrade))
        .route("/v1/backup", post(backup::backup))
        .route("/login", get(login::show).post(login::login))
        .route("/logout", post(login::logout))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics::metrics))
        .route("/v1/events", get(events::events))
        .route("/v1/openapi.json", get(openapi::show))
        .route("/docs", get(openapi::docs))
        .merge(page)
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
}

/// Waits for the engine's callback; an engine that is gone answers nothing any more.
pub(crate) async fn answer<T: Send + 'static>(
    handle: &Handle,
    call: impl FnOnce(crate::engine::handle::Then<T>),
) -> Result<T, Problem> {
    let (to, from) = oneshot::channel();
    call(Box::new(move |answer| drop(to.send(answer))));
    from.await.map_err(|_| Problem::from(handle.ready().err().unwrap_or(Refusal::Stopping)))
}

/// Runs what reads the disk or sleeps on a thread where that hurts nobody.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Problem::bug("a bug ended this request"))
}

/// Bytes that a job object may have beside its payload.
const AROUND_PAYLOAD_MAX: usize = 64 << 10;

/// 201 for a new job, 200 for one that was there.
fn status_of(pushed: &Pushed) -> StatusCode {
    if pushed.duplicate { StatusCode::OK } else { StatusCode::CREATED }
}

/// Everything that lives here, with the memory of its processes.
pub(crate) async fn ecosystem(app: &App) -> Result<EcosystemView, Problem> {
    let mut view = answer(&app.handle, |then| app.handle.ecosystem(then)).await??;
    view.binary = Some(app.upgrader.view());
    blocking(move || {
        view.look_at_processes();
        view
    })
    .await
}

async fn show_ecosystem(State(app): State<App>) -> Result<Response, Problem> {
    Ok(Json(ecosystem(&app).await?).into_response())
}

async fn purge(State(app): State<App>, Path(worker_type): Path<String>) -> Result<Response, Problem> {
    let purged = answer(&app.handle, |then| app.handle.purge(&worker_type, then)).await??;
    let done = Extension(Done::to(purged as u64));
    Ok((done, Json(serde_json::json!({ "type": worker_type, "purged": purged }))).into_response())
}

async fn pause(State(app): State<App>, Path(worker_type): Path<String>) -> Result<Response, Problem> {
    set_paused(&app, &worker_type, true).await
}

async fn resume(State(app): State<App>, Path(worker_type): Path<String>) -> Result<Response, Problem> {
    set_paused(&app, &worker_type, false).await
}

async fn rollback(State(app): State<App>, Path(worker_type): Path<String>) -> Result<Response, Problem> {
    obey(&app, &worker_type, Word::Rollback).await
}

async fn rollout(
    State(app): State<App>,
    Path((worker_type, word)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let word = match word.as_str() {
        "pause" => Word::Pause,
        "resume" => Word::Resume,
        "promote" => Word::Promote,
        "abort" => Word::Abort,
        other => {
            let detail = format!("a rollout knows pause, resume, promote and abort, and not {other:?}");
            return Err(Problem::new(StatusCode::NOT_FOUND, "no_route", detail));
        }
    };
    obey(&app, &worker_type, word).await
}

async fn obey(app: &App, worker_type: &str, word: Word) -> Result<Response, Problem> {
    let view = answer(&app.handle, |then| app.handle.rollout(worker_type, word, then)).await??;
    Ok(Json(view).into_response())
}

async fn set_paused(app: &App, worker_type: &str, paused: bool) -> Result<Response, Problem> {
    let since = answer(&app.handle, |then| app.handle.pause(worker_type, paused, then)).await??;
    let since = paused.then_some(since);
    Ok(Json(serde_json::json!({ "type": worker_type, "paused": paused, "since_ms": since })).into_response())
}

async fn generations(State(app): State<App>) -> Result<Response, Problem> {
    Ok(Json(answer(&app.handle, |then| app.handle.generations(then)).await??).into_response())
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct WaitQuery {
    #[serde(default)]
    wait: bool,
}

/// Replaces the binary. Who waits is told whether the new file can take over; whether it has, the next one tells.
async fn upgrade(State(app): State<App>, Query(query): Query<WaitQuery>) -> Result<Response, Problem> {
    app.handle.ready()?;
    if !query.wait {
        app.upgrader.upgrade(Box::new(|_| ()));
        return Ok((StatusCode::ACCEPTED, Json(serde_json::json!({ "accepted": true }))).into_response());
    }
    let underway = answer(&app.handle, |then| app.upgrader.upgrade(then)).await??;
    Ok(Json(underway).into_response())
}

async fn reload(State(app): State<App>, Query(query): Query<WaitQuery>) -> Result<Response, Problem> {
    if !query.wait {
        app.reloader.reload(Box::new(|_| ()));
        return Ok((StatusCode::ACCEPTED, Json(serde_json::json!({ "accepted": true }))).into_response());
    }
    let verdict = answer(&app.handle, |then| app.reloader.reload(then));
    match tokio::time::timeout(RELOAD_WAIT_MAX, verdict).await {
        Ok(verdict) => Ok(Json(verdict??).into_response()),
        Err(_) => Err(Problem::new(
            StatusCode::GATEWAY_TIMEOUT,
            "reload_timeout",
            "the reload goes on, but was not settled within 10 minutes; see the page",
        )),
    }
}

async fn healthz() -> Response {
    Json(serde_json::json!({ "status": "ok" })).into_response()
}

async fn readyz(State(app): State<App>) -> Result<Response, Problem> {
    app.handle.ready()?;
    let view = answer(&app.handle, |then| app.handle.ecosystem(then)).await??;
    if let Some(full) = view.log.full {
        return Err(Refusal::DiskFull { detail: full }.into());
    }
    if let Some(place) = view.log.damaged.first() {
        let detail = format!("the log is damaged: {}; {DAMAGE_REMEDY}", place.what);
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "damaged", detail));
    }
    Ok(Json(serde_json::json!({ "status": "ready" })).into_response())
}

async fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no_route", "nothing is here; jobs are pushed to /v1/jobs, the page is at /")
}

async fn wrong_method() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", "this address takes another method")
}
