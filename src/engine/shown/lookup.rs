//! Jobs as people see them: put together on the caller's thread, from the table's word and the log's records.

use serde_json::value::RawValue;

use crate::engine::command::{LiveJob, LiveOrEnded, Parked};
use crate::engine::shared::Shared;
use crate::engine::view::{FailureView, JobView, ProgressView};
use crate::engine::words::{end_word, last_error, moment, state_word};
use crate::job::event::{Enqueued, Failure, Home, Kind, decode_home};
use crate::job::table::Job;
use crate::job::transition::State;
use crate::types::{Seq, UnixMs, WorkerType};
use crate::worker::Progress;

/// A view with what is the same for all jobs; the rest is filled in.
pub(in crate::engine) fn blank(
    shared: &Shared,
    born: Seq,
    type_no: u32,
    created_ms: UnixMs,
    state: &'static str,
) -> JobView {
    let names = shared.names();
    // Every type number in the log was named before it was used.
    let unknown = || "unknown".parse::<WorkerType>();
    let worker_type = names.worker_type(type_no).cloned().map_or_else(unknown, Ok);
    JobView {
        id: shared.ids.make(born, created_ms),
        worker_type: worker_type.expect("`unknown` is a name"),
        state,
        why: None,
        task: String::new(),
        payload: None,
        priority: 0,
        tenant: None,
        idempotency_key: None,
        attempts: 0,
        max_attempts: 0,
        min_version: None,
        interrupts: 0,
        deferrals: 0,
        host_deaths: 0,
        created_at: moment(created_ms),
        ready_at: None,
        expires_at: None,
        ended_at: None,
        version: None,
        progress: None,
        extended_until: None,
        result: None,
        error: None,
        parent: None,
        traceparent: None,
        failures: Vec::new(),
    }
}

pub(in crate::engine) fn label(shared: &Shared, version_no: u32) -> Option<String> {
    shared.names().labels.get(&version_no).map(ToString::to_string)
}

/// The number of a worker that has one.
pub(in crate::engine) fn numbered(worker: u32) -> Option<u32> {
    (worker != 0).then_some(worker)
}

pub(in crate::engine) fn json(text: &[u8]) -> Option<Box<RawValue>> {
    serde_json::from_slice(text).ok()
}

/// Fills in what the job's home record says, if that is still in the log.
pub(in crate::engine) fn fill_from_home(shared: &Shared, view: &mut JobView, born: Seq, home: Home) {
    let Ok(body) = shared.reader.read_if_kept(home.position(), home.seq) else { return };
    let kind = if home.seq == born { Kind::Enqueued } else { Kind::Restated };
    let Ok((meta, payload)) = decode_home(kind as u8, &body) else { return };
    fill_from_meta(view, &meta, payload);
}

fn fill_from_meta(view: &mut JobView, meta: &Enqueued<'_>, payload: &[u8]) {
    let names = meta.names.as_ref();
    if let Some(id) = names.and_then(|names| names.id) {
        id.clone_into(&mut view.id);
    }
    meta.task.clone_into(&mut view.task);
    view.payload = json(payload);
    view.priority = meta.priority.get();
    view.tenant = meta.tenant.map(str::to_owned);
    view.idempotency_key = names.and_then(|names| names.key).map(str::to_owned);
    view.max_attempts = meta.max_attempts;
    view.min_version = meta.min_version.map(|min| min.label.to_owned());
    view.expires_at = (meta.expires_ms != 0).then(|| moment(meta.expires_ms));
    view.parent = meta.parent.map(str::to_owned);
    view.traceparent = meta.trace.map(|trace| trace.to_string());
}

pub(in crate::engine) fn failure_view(shared: &Shared, failure: &Failure) -> FailureView {
    FailureView {
        attempt: failure.attempt,
        at: moment(failure.at),
        version: label(shared, failure.version_no),
        worker: numbered(failure.worker),
        error: failure.error.clone(),
    }
}

fn progress_view(progress: &Progress, at: UnixMs, now: UnixMs) -> ProgressView {
    ProgressView {
        fraction: progress.fraction(),
        text: progress.text().map(str::to_owned),
        at: moment(at),
        age_ms: now.saturating_sub(at),
    }
}

pub(in crate::engine) fn why_parked(shared: &Shared, job: &Job, parked: Parked) -> String {
    match (parked, job.min_version()) {
        (Parked::NeedsVersion { is_known, route }, Some(min)) => {
            let wanted = &min.label;
            let unknown = if is_known { "" } else { ", which no config has had yet" };
            let now =
                label(shared, route).map_or_else(|| "none takes work".to_owned(), |now| format!("{now} takes work"));
            format!("it needs version {wanted} or one that came after it{unknown}; {now} now")
        }
        (Parked::NoVersion | Parked::NeedsVersion { .. }, _) => "no version of its type is in the config".to_owned(),
    }
}

/// A live job from the table alone.
fn live_without_payload(shared: &Shared, live: &LiveJob) -> JobView {
    let job = &live.job;
    let mut view = blank(shared, live.born, job.type_no, job.created_ms, state_word(job.state, live.parked.is_some()));
    view.why = live.parked.map(|parked| why_parked(shared, job, parked));
    if let Some(id) = &live.id {
        id.as_ref().clone_into(&mut view.id);
    }
    view.priority = job.priority.get();
    view.attempts = job.attempts;
    view.max_attempts = job.max_attempts;
    view.min_version = job.min_version().map(|min| min.label.to_string());
    view.interrupts = job.given_back.interrupts;
    view.deferrals = job.given_back.deferrals;
    view.host_deaths = job.given_back.host_deaths;
    view.ready_at = (job.state == State::Delayed).then(|| moment(job.ready_ms));
    view.expires_at = (job.expires_ms != 0).then(|| moment(job.expires_ms));
    view.version = label(shared, job.version_no);
    if let Some((told, now)) = &live.told {
        view.progress = told.progress.as_ref().map(|(progress, at)| progress_view(progress, *at, *now));
        view.extended_until = told.extended_ms.map(moment);
    }
    view.failures = job.failures().iter().map(|failure| failure_view(shared, failure)).collect();
    view.error = last_error(job).map(str::to_owned);
    view
}

/// A live job with its payload.
pub(in crate::engine) fn live_view(shared: &Shared, live: &LiveJob) -> JobView {
    let mut view = live_without_payload(shared, live);
    fill_from_home(shared, &mut view, live.born, live.job.home);
    view
}

/// What an action left of a job, from the table alone.
pub(in crate::engine) fn acted(shared: &Shared, left: &LiveOrEnded) -> JobView {
    match left {
        LiveOrEnded::Live(live) => live_without_payload(shared, live),
        LiveOrEnded::Ended { last, end, at } => {
            let mut view = live_without_payload(shared, last);
            view.state = end_word(*end);
            view.why = None;
            (view.ready_at, view.progress, view.extended_until) = (None, None, None);
            view.ended_at = Some(moment(*at));
            view
        }
    }
}
