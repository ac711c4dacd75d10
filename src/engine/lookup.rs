//! Jobs as people see them: put together on the caller's thread, from the table's word and the log's records.

use serde_json::value::RawValue;

use super::command::{LiveJob, LiveOrEnded};
use super::shared::Shared;
use super::view::{FailureView, JobFilter, JobPage, JobView};
use super::words::{end_word, moment, state_word};
use crate::job::event::{After, Ended, Enqueued, Event, Failure, Home, Kind, decode_home};
use crate::job::transition::State;
use crate::limits::{ATTEMPTS_KEPT, LIST_RECORDS_MAX};
use crate::log::StoredRecord;
use crate::refusal::Refusal;
use crate::types::{Seq, UnixMs, WorkerType};

/// A view with what is the same for all jobs; the rest is filled in.
fn blank(shared: &Shared, born: Seq, type_no: u32, created_ms: UnixMs, state: &'static str) -> JobView {
    let names = shared.names();
    // Every type number in the log was named before it was used.
    let unknown = || "unknown".parse::<WorkerType>();
    let worker_type = names.worker_type(type_no).cloned().map_or_else(unknown, Ok);
    JobView {
        id: shared.ids.make(born, created_ms),
        worker_type: worker_type.expect("`unknown` is a name"),
        state,
        task: String::new(),
        payload: None,
        priority: 0,
        tenant: None,
        idempotency_key: None,
        attempts: 0,
        max_attempts: 0,
        interrupts: 0,
        deferrals: 0,
        host_deaths: 0,
        created_at: moment(created_ms),
        ready_at: None,
        expires_at: None,
        ended_at: None,
        version: None,
        result: None,
        error: None,
        parent: None,
        failures: Vec::new(),
    }
}

fn label(shared: &Shared, version_no: u32) -> Option<String> {
    shared.names().labels.get(&version_no).map(ToString::to_string)
}

fn json(text: &[u8]) -> Option<Box<RawValue>> {
    serde_json::from_slice(text).ok()
}

/// Fills in what the job's home record says, if that is still in the log.
fn fill_from_home(shared: &Shared, view: &mut JobView, born: Seq, home: Home) {
    let Ok(body) = shared.reader.read(home.position(), home.seq) else { return };
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
    view.expires_at = (meta.expires_ms != 0).then(|| moment(meta.expires_ms));
    view.parent = meta.parent.map(str::to_owned);
}

fn failure_view(shared: &Shared, failure: &Failure) -> FailureView {
    FailureView {
        attempt: failure.attempt,
        at: moment(failure.at),
        version: label(shared, failure.version_no),
        error: failure.error.clone(),
    }
}

/// A live job from the table alone.
fn live_without_payload(shared: &Shared, live: &LiveJob) -> JobView {
    let job = &live.job;
    let mut view = blank(shared, live.born, job.type_no, job.created_ms, state_word(job.state, live.parked));
    if let Some(id) = &live.id {
        id.as_ref().clone_into(&mut view.id);
    }
    view.priority = job.priority.get();
    view.attempts = job.attempts;
    view.max_attempts = job.max_attempts;
    view.interrupts = job.given_back.interrupts;
    view.deferrals = job.given_back.deferrals;
    view.host_deaths = job.given_back.host_deaths;
    view.ready_at = (job.state == State::Delayed).then(|| moment(job.ready_ms));
    view.expires_at = (job.expires_ms != 0).then(|| moment(job.expires_ms));
    view.version = label(shared, job.version_no);
    view.failures = job.failures().iter().map(|failure| failure_view(shared, failure)).collect();
    view.error = job.failures().last().map(|failure| failure.error.clone());
    view
}

/// A live job with its payload.
pub(super) fn live_view(shared: &Shared, live: &LiveJob) -> JobView {
    let mut view = live_without_payload(shared, live);
    fill_from_home(shared, &mut view, live.born, live.job.home);
    view
}

/// What an action left of a job, from the table alone.
pub(super) fn acted(shared: &Shared, left: &LiveOrEnded) -> JobView {
    match left {
        LiveOrEnded::Live(live) => live_without_payload(shared, live),
        LiveOrEnded::Ended { last, end, at } => {
            let mut view = live_without_payload(shared, last);
            view.state = end_word(*end);
            view.ready_at = None;
            view.ended_at = Some(moment(*at));
            view
        }
    }
}

fn ended_view(shared: &Shared, event: &Ended<'_>, result: &[u8]) -> JobView {
    let mut view = blank(shared, event.born, event.type_no, event.created_ms, end_word(event.end));
    if let Some(id) = event.names.as_ref().and_then(|names| names.id) {
        id.clone_into(&mut view.id);
    }
    fill_from_home(shared, &mut view, event.born, event.home);
    view.attempts = event.attempts;
    view.interrupts = event.given_back.interrupts;
    view.deferrals = event.given_back.deferrals;
    view.host_deaths = event.given_back.host_deaths;
    view.ended_at = Some(moment(event.at));
    view.version = label(shared, event.version_no);
    view.result = json(result);
    view
}

/// A job that ended, with its failed attempts as far as they are in the log; `id` must be the job's own.
pub(super) fn ended_job(shared: &Shared, id: &str, born: Seq, from: Seq) -> Option<JobView> {
    let (mut view, first) = shared.reader.scan(from).find_map(|record| {
        let record = record.ok()?;
        match Event::decode(record.kind, record.version, &record.body) {
            Ok(Event::Ended(event, result)) if event.born == born => {
                Some((ended_view(shared, &event, result), event.home.seq))
            }
            _ => None,
        }
    })?;
    if view.id != id {
        return None;
    }
    if view.attempts > 0 {
        view.failures = failures(shared, born, first, view.attempts);
        view.error = view.failures.last().map(|failure| failure.error.clone());
    }
    Some(view)
}

/// The failed attempts of a job that are in the log from `from` on.
fn failures(shared: &Shared, born: Seq, from: Seq, attempts: u16) -> Vec<FailureView> {
    let mut known: Vec<FailureView> = Vec::new();
    for record in shared.reader.scan(from).map_while(Result::ok) {
        match Event::decode(record.kind, record.version, &record.body) {
            Ok(Event::Restated(state, _)) if state.born == born => {
                known = state.failures.iter().map(|failure| failure_view(shared, failure)).collect();
            }
            Ok(Event::Failed(failed, error)) if failed.born == born => {
                let attempt = known.last().map_or(1, |last| last.attempt.saturating_add(1));
                let error = String::from_utf8_lossy(error).into_owned();
                let version = label(shared, failed.version_no);
                known.push(FailureView { attempt, at: moment(failed.at), version, error });
                if failed.after == After::Dead || attempt >= attempts {
                    break;
                }
            }
            Ok(Event::Ended(ended, _)) if ended.born == born => break,
            _ => {}
        }
    }
    let skip = known.len().saturating_sub(ATTEMPTS_KEPT);
    known.split_off(skip)
}

/// A record of a listing's page that may be a job.
enum Candidate {
    Ended(Box<JobView>),
    /// Shown if it is alive, at its home.
    Live {
        born: Seq,
        home: Seq,
    },
}

/// A page of a listing; `live_at` asks the engine which of these jobs live, with their payload in the record beside.
pub(super) fn page(
    shared: &Shared,
    filter: &JobFilter,
    live_at: impl Fn(Vec<(Seq, Seq)>) -> Result<Vec<Option<LiveJob>>, Refusal>,
) -> Result<JobPage, Refusal> {
    let names = shared.names();
    if let Some(wanted) = &filter.worker_type
        && !names.types.contains(wanted)
    {
        return Err(shared.unknown_type(wanted.as_str()));
    }
    let mut before = match &filter.cursor {
        None => shared.reader.visible_up_to(),
        Some(cursor) => cursor.parse().map_err(|_| Refusal::InvalidJob {
            detail: format!("cursor {cursor:?} is none of ours; leave it out to begin with the newest"),
        })?,
    };
    let mut jobs = Vec::new();
    let mut records = 0;
    while jobs.len() < filter.limit && records < LIST_RECORDS_MAX {
        let block = shared.reader.block_before(before);
        let block =
            block.map_err(|error| Refusal::InvalidJob { detail: format!("the log cannot be read: {error}") })?;
        if block.is_empty() {
            return Ok(JobPage { jobs, next_cursor: None });
        }
        let found: Vec<(Seq, Candidate)> =
            block.iter().rev().filter_map(|record| Some((record.seq, candidate(shared, record, filter)?))).collect();
        records += block.len();
        let places = found.iter().filter_map(|(_, candidate)| match candidate {
            Candidate::Live { born, home } => Some((*born, *home)),
            Candidate::Ended(_) => None,
        });
        let places: Vec<_> = places.collect();
        let mut live = if places.is_empty() { Vec::new() } else { live_at(places)? }.into_iter();
        for (seq, candidate) in found {
            let view = match candidate {
                Candidate::Ended(view) => Some(*view),
                Candidate::Live { .. } => live.next().flatten().map(|live| live_view(shared, &live)),
            };
            if let Some(view) = view.filter(|view| passes(view, filter)) {
                jobs.push(view);
                if jobs.len() == filter.limit {
                    return Ok(JobPage { jobs, next_cursor: Some(seq.to_string()) });
                }
            }
        }
        before = block.first().map_or(0, |record| record.seq);
    }
    Ok(JobPage { jobs, next_cursor: Some(before.to_string()) })
}

fn candidate(shared: &Shared, record: &StoredRecord, filter: &JobFilter) -> Option<Candidate> {
    match Event::decode(record.kind, record.version, &record.body).ok()? {
        Event::Ended(event, result) => {
            let names = shared.names();
            let wrong_type =
                filter.worker_type.is_some() && names.worker_type(event.type_no) != filter.worker_type.as_ref();
            let wrong_state = filter.state.as_ref().is_some_and(|state| state != end_word(event.end));
            (!wrong_type && !wrong_state).then(|| Candidate::Ended(Box::new(ended_view(shared, &event, result))))
        }
        Event::Enqueued(..) => Some(Candidate::Live { born: record.seq, home: record.seq }),
        Event::Restated(state, _) => Some(Candidate::Live { born: state.born, home: record.seq }),
        _ => None,
    }
}

fn passes(view: &JobView, filter: &JobFilter) -> bool {
    filter.worker_type.as_ref().is_none_or(|wanted| *wanted == view.worker_type)
        && filter.state.as_ref().is_none_or(|wanted| wanted == view.state)
        && filter.tenant.as_ref().is_none_or(|wanted| view.tenant.as_ref() == Some(wanted))
}
