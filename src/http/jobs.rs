//! `/v1/jobs`: enqueue one or many, show, list, act.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};

use super::asked::{self, Path, Query};
use super::audit::Done;
use super::body::collect;
use super::problem::Problem;
use super::{AROUND_PAYLOAD_MAX, App, answer, blocking, bulk, status_of};
use crate::archive::plain;
use crate::config::units;
use crate::engine::JobAction;
use crate::engine::view::JobFilter;
use crate::job::intake::parse_job;
use crate::job::trace::TraceParent;
use crate::limits::{ERROR_SEARCH_BYTES_MAX, LIST_DEFAULT, LIST_MAX, TENANT_BYTES_MAX};
use crate::refusal::Refusal;
use crate::types::{ChosenId, UnixMs, WorkerType, millis};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PushQuery {
    /// Stands in for jobs that name no type.
    #[serde(rename = "type")]
    worker_type: Option<String>,
}

pub(super) async fn push(
    State(app): State<App>,
    Query(query): Query<PushQuery>,
    request: Request,
) -> Result<Response, Problem> {
    let default_type = query.worker_type.map(|name| worker_type(&name)).transpose()?;
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let key = asked::key(request.headers())?;
    let trace = asked::trace(request.headers())?;
    match kind.as_str() {
        "application/json" => push_one(app, default_type, (key, trace), request.into_body()).await,
        "application/x-ndjson" if key.is_some() => {
            Err(Problem::bad_request("the header Idempotency-Key is for one job; of many, each line has its own"))
        }
        "application/x-ndjson" => Ok(bulk::push_lines(app, default_type, trace, request.into_body())),
        _ => {
            let detail =
                "say what is sent: Content-Type: application/json for one job, application/x-ndjson for one a line";
            Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "wrong_content_type", detail))
        }
    }
}

fn worker_type(name: &str) -> Result<WorkerType, Problem> {
    name.parse().map_err(|bad| Problem::bad_request(format!("the type {name:?} {bad}")))
}

async fn push_one(
    app: App,
    default_type: Option<WorkerType>,
    (key, trace): (Option<ChosenId>, Option<TraceParent>),
    body: Body,
) -> Result<Response, Problem> {
    let limits = app.handle.limits();
    let (text, _share) = collect(&app, body, limits.payload_max * 2 + AROUND_PAYLOAD_MAX).await?;
    let mut job = parse_job(&text, default_type.as_ref(), limits, app.clock.wall_ms())?;
    asked::set_key(&mut job, key)?;
    job.traceparent = job.traceparent.or(trace);
    let pushed = answer(&app.handle, |then| app.handle.submit(vec![job], then)).await?;
    let pushed = pushed.into_iter().next().unwrap_or(Err(Refusal::Stopping))?;
    let body = PushedBody {
        id: &pushed.id,
        worker_type: &pushed.worker_type,
        state: pushed.state,
        duplicate: pushed.duplicate,
    };
    let mut response = (status_of(&pushed), Json(body)).into_response();
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/jobs/{}", pushed.id)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// The answer to a push, in the order of the reference.
#[derive(serde::Serialize)]
struct PushedBody<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    worker_type: &'a WorkerType,
    state: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
}

pub(super) async fn show(State(app): State<App>, Path(id): Path<String>) -> Result<Response, Problem> {
    let view = blocking(move || app.handle.job(&id)).await??;
    Ok(Json(view).into_response())
}

pub(super) async fn why(State(app): State<App>, Path(id): Path<String>) -> Result<Response, Problem> {
    let view = blocking(move || app.handle.why(&id)).await??;
    Ok(Json(view).into_response())
}

pub(super) async fn timeline(State(app): State<App>, Path(id): Path<String>) -> Result<Response, Problem> {
    let view = blocking(move || app.handle.timeline(&id)).await??;
    Ok(Json(view).into_response())
}

pub(super) async fn act(
    State(app): State<App>,
    Path((id, action)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let action = match action.as_str() {
        "retry" => JobAction::Retry,
        "cancel" => JobAction::Cancel,
        "discard" => JobAction::Discard,
        _ => {
            let detail = format!("no action {action:?}; there are retry, cancel and discard");
            return Err(Problem::new(StatusCode::NOT_FOUND, "no_route", detail));
        }
    };
    let view = answer(&app.handle, |then| app.handle.act(&id, action, then)).await??;
    Ok(Json(view).into_response())
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RetryQuery {
    failed_on: Option<String>,
}

/// All dead jobs of a type that failed last on a version.
pub(super) async fn retry_failed(
    State(app): State<App>,
    Path(worker_type): Path<String>,
    Query(query): Query<RetryQuery>,
) -> Result<Response, Problem> {
    let Some(version) = query.failed_on else {
        let detail = "say of which version: ?failed_on=VERSION has the dead jobs retried that failed last on it";
        return Err(Problem::bad_request(detail));
    };
    let retried = answer(&app.handle, |then| app.handle.retry_failed_on(&worker_type, &version, then)).await??;
    let done = Extension(Done::to(retried as u64));
    let told = Json(serde_json::json!({ "type": worker_type, "failed_on": version, "retried": retried }));
    Ok((done, told).into_response())
}

/// Which jobs are asked for, as it stands in a query.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    #[serde(rename = "type")]
    pub(crate) worker_type: Option<String>,
    pub(crate) state: Option<String>,
    pub(crate) tenant: Option<String>,
    pub(crate) error: Option<String>,
    pub(crate) since: Option<String>,
    pub(crate) limit: Option<usize>,
    pub(crate) cursor: Option<String>,
}

/// A text that is looked for in errors.
fn check_error(error: &str) -> Result<(), Problem> {
    if error.len() > ERROR_SEARCH_BYTES_MAX {
        let detail = format!("error is {} bytes long, the most is {ERROR_SEARCH_BYTES_MAX}", error.len());
        return Err(Problem::bad_request(detail));
    }
    if plain(error).is_empty() {
        return Err(Problem::bad_request("error is empty; leave it out, or give a part of the error's text"));
    }
    Ok(())
}

/// A moment in a query, or how long ago it is at `now`.
fn moment(text: &str, now: UnixMs) -> Result<UnixMs, Problem> {
    if let Ok(age) = units::duration(text) {
        return Ok(now.saturating_sub(millis(age)));
    }
    let at = text.parse::<jiff::Timestamp>().ok().and_then(|at| UnixMs::try_from(at.as_millisecond()).ok());
    at.ok_or_else(|| {
        let detail = format!(
            "since {text:?} is no moment; write RFC 3339, like 2026-01-31T12:00:00Z, or an age, like 15m, 2h or 7d"
        );
        Problem::bad_request(detail)
    })
}

/// States of a job on the wire.
pub(crate) const STATES: [&str; 9] =
    ["ready", "delayed", "reserved", "parked", "dead", "completed", "cancelled", "expired", "discarded"];

impl ListQuery {
    /// What is asked for at `now`, checked.
    pub(crate) fn filter(self, now: UnixMs) -> Result<JobFilter, Problem> {
        if let Some(state) = self.state.as_deref().filter(|state| !STATES.contains(state)) {
            return Err(Problem::bad_request(format!("no state {state:?}; there are {}", STATES.join(", "))));
        }
        let limit = self.limit.unwrap_or(LIST_DEFAULT);
        if !(1..=LIST_MAX).contains(&limit) {
            return Err(Problem::bad_request(format!("limit must lie between 1 and {LIST_MAX}")));
        }
        let worker_type = self.worker_type.as_deref().map(worker_type).transpose()?;
        if let Some(tenant) = self.tenant.as_deref().filter(|tenant| tenant.len() > TENANT_BYTES_MAX) {
            let detail = format!("tenant is {} bytes long, the most is {TENANT_BYTES_MAX}", tenant.len());
            return Err(Problem::bad_request(detail));
        }
        if let Some(error) = &self.error {
            check_error(error)?;
        }
        let since = self.since.as_deref().map(|since| moment(since, now)).transpose()?;
        let Self { state, tenant, error, cursor, .. } = self;
        Ok(JobFilter { worker_type, state, tenant, error, since, limit, brief: false, cursor })
    }
}

pub(super) async fn list(State(app): State<App>, Query(query): Query<ListQuery>) -> Result<Response, Problem> {
    let filter = query.filter(app.clock.wall_ms())?;
    let page = blocking(move || app.handle.jobs(&filter)).await??;
    Ok(Json(page).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_said_by_itself_or_by_how_long_ago_it_is() {
        let now = 1_795_662_763_638;
        assert_eq!(moment("1970-01-01T00:00:10Z", now).unwrap(), 10_000);
        assert_eq!(moment("2h", now).unwrap(), now - 7_200_000);
        assert_eq!(moment("90d", 5).unwrap(), 0, "before there was time");
        for bad in ["yesterday", "2", "h", "-2h", "2026-01-31", ""] {
            assert!(moment(bad, now).is_err(), "{bad}");
        }
    }
}
