//! Jobs that ended, put together from the log's records: by the index of ended jobs where it knows them, else by reading on.

use crate::archive::Found;
use crate::engine::shared::Shared;
use crate::engine::shown::lookup::{blank, failure_view, fill_from_home, json, label, numbered};
use crate::engine::view::{FailureView, JobView};
use crate::engine::words::{end_word, moment};
use crate::job::event::{After, End, Ended, Event, Kind, shape_of};
use crate::limits::ATTEMPTS_KEPT;
use crate::types::{Seq, UnixMs};

/// A job that ended.
pub(in crate::engine) struct EndedJob {
    pub(in crate::engine) view: JobView,
    pub(in crate::engine) born: Seq,
    /// When it ended.
    pub(in crate::engine) at: UnixMs,
    /// Seq of the record that holds its payload.
    home: Seq,
}

impl EndedJob {
    pub(in crate::engine) fn of(shared: &Shared, event: &Ended<'_>, result: &[u8]) -> Self {
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
        match event.end {
            End::Cancelled => view.error = reason(result),
            End::Completed | End::Expired | End::Discarded => view.result = json(result),
        }
        Self { view, born: event.born, at: event.at, home: event.home.seq }
    }

    /// Where the index found it; `None` if that has left the log, or is not what it was.
    pub(in crate::engine) fn found(shared: &Shared, found: &Found) -> Option<Self> {
        let body = shared.reader.read(found.position, found.seq).ok()?;
        match Event::decode(Kind::Ended as u8, shape_of(Kind::Ended as u8, &body), &body) {
            Ok(Event::Ended(event, result)) => Some(Self::of(shared, &event, result)),
            _ => None,
        }
    }

    /// With its failed attempts, as the index found them.
    pub(in crate::engine) fn with_failures_found(mut self, shared: &Shared, found: &Found) -> Self {
        let records = found.failures.iter().filter_map(|(seq, position, kind)| {
            let body = shared.reader.read(*position, *seq).ok()?;
            Some((*kind, shape_of(*kind, &body), body))
        });
        self.fill(failures(shared, self.born, records, self.view.attempts));
        self
    }

    /// With its failed attempts, as far as they are among the next `budget` records of the log from its home on; the
    /// budget shrinks by those that were read.
    pub(in crate::engine) fn with_failures_read(mut self, shared: &Shared, budget: &mut usize) -> Self {
        if self.view.attempts == 0 {
            return self;
        }
        let records = shared.reader.scan(self.home).map_while(Result::ok).take_while(|_| {
            let more = *budget > 0;
            *budget = budget.saturating_sub(1);
            more
        });
        let records = records.map(|record| (record.kind, record.version, record.body));
        self.fill(failures(shared, self.born, records, self.view.attempts));
        self
    }

    fn fill(&mut self, failures: Vec<FailureView>) {
        if self.view.attempts > 0 {
            self.view.failures = failures;
            let last = || self.view.failures.last().map(|failure| failure.error.clone());
            self.view.error = self.view.error.take().or_else(last);
        }
    }
}

/// Why a worker cancelled its job, if it did and said so.
fn reason(said: &[u8]) -> Option<String> {
    (!said.is_empty()).then(|| String::from_utf8_lossy(said).into_owned())
}

/// A job that ended, with its failed attempts as far as they are in the log; `id` must be the job's own. It is in no
/// record below `from`.
pub(in crate::engine) fn job(shared: &Shared, id: &str, born: Seq, from: Seq) -> Option<JobView> {
    let mut from = from;
    if let Some(history) = shared.history()
        && let Some(covered) = history.covered()
        && let Some(answer) = history.find(born)
    {
        if let Some(found) = answer
            && let Some(ended) = EndedJob::found(shared, &found)
        {
            let view = ended.with_failures_found(shared, &found).view;
            return (view.id == id).then_some(view);
        }
        // It is in nothing that the index has seen.
        if covered.start <= from.max(shared.reader.first_seq()) {
            from = from.max(covered.end);
        }
    }
    let ended = shared.reader.scan(from).find_map(|record| {
        let record = record.ok()?;
        match Event::decode(record.kind, record.version, &record.body) {
            Ok(Event::Ended(event, result)) if event.born == born => Some(EndedJob::of(shared, &event, result)),
            _ => None,
        }
    })?;
    if ended.view.id != id {
        return None;
    }
    Some(ended.with_failures_read(shared, &mut { usize::MAX }).view)
}

/// The failed attempts of a job, from its records, or from all records, in order: kind, version and body.
fn failures(
    shared: &Shared,
    born: Seq,
    records: impl Iterator<Item = (u8, u8, bytes::Bytes)>,
    attempts: u16,
) -> Vec<FailureView> {
    let mut known: Vec<FailureView> = Vec::new();
    for (kind, version, body) in records {
        match Event::decode(kind, version, &body) {
            Ok(Event::Restated(state, _)) if state.born == born => {
                known = state.failures.iter().map(|failure| failure_view(shared, failure)).collect();
            }
            Ok(Event::Failed(failed, error)) if failed.born == born => {
                let costs = !matches!(failed.after, After::Again { .. });
                let before = known.iter().map(|failure| failure.attempt).max().unwrap_or(0);
                let attempt = if costs { before.saturating_add(1) } else { 0 };
                let error = String::from_utf8_lossy(error).into_owned();
                let version = label(shared, failed.version_no);
                known.push(FailureView {
                    attempt,
                    at: moment(failed.at),
                    version,
                    worker: numbered(failed.worker),
                    error,
                });
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
