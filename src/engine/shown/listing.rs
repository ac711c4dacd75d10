//! Listings: from the newest record down, page by page, by the index of ended jobs as far as it goes.
//!
//! A job stands where its last home or its end is in the log; so what comes in while somebody turns pages stands before
//! the cursor. A page has an end in jobs, in records that are read for it, and in bytes; each of them leaves a cursor to go
//! on by. Where the index has no answer the log itself is read backwards: the same jobs, only slower.

use std::ops::ControlFlow;

use crate::archive::{Ask, History, plain};
use crate::engine::command::LiveJob;
use crate::engine::handle::Handle;
use crate::engine::shared::Shared;
use crate::engine::shown::ended::EndedJob;
use crate::engine::shown::lookup::live_view;
use crate::engine::view::{JobFilter, JobPage, JobView};
use crate::engine::words::end_word;
use crate::job::event::{End, Ended, Event, Kind, decode_home};
use crate::limits::{LIST_BYTES_MAX, LIST_ERROR_RECORDS_MAX, LIST_JOB_BYTES, LIST_RECORDS_MAX};
use crate::log::StoredRecord;
use crate::refusal::Refusal;
use crate::types::{Seq, UnixMs};

/// A page that is being filled.
struct Filling<'a> {
    shared: &'a Shared,
    filter: &'a JobFilter,
    /// The filter's text for errors, as it is searched.
    error: Option<String>,
    /// Records below this are not looked through yet.
    before: Seq,
    jobs: Vec<JobView>,
    /// What these jobs count.
    bytes: usize,
    /// Records that may still be read for errors.
    budget: usize,
    /// Records or bytes were spent: the next page begins with what they were too few for.
    spent: bool,
}

/// A record of a listing's page that may be a job.
enum Candidate<'a> {
    /// Its payload is not read before its turn comes: a block of small records may end many large jobs.
    Ended(Box<Ended<'a>>, &'a [u8]),
    /// Shown if it is alive, at its home.
    Live { type_no: u32, born: Seq, home: Seq },
}

/// A page of a listing.
pub(in crate::engine) fn page(shared: &Shared, filter: &JobFilter, handle: &Handle) -> Result<JobPage, Refusal> {
    if let Some(wanted) = &filter.worker_type
        && !shared.names().types.contains(wanted)
    {
        return Err(shared.unknown_type(wanted.as_str()));
    }
    let before = match &filter.cursor {
        None => shared.reader.visible_up_to(),
        Some(cursor) => cursor.parse().map_err(|_| Refusal::InvalidJob {
            detail: format!("cursor {cursor:?} is none of ours; leave it out to begin with the newest"),
        })?,
    };
    let error = filter.error.as_deref().map(plain);
    let budget = LIST_ERROR_RECORDS_MAX;
    let mut page = Filling { shared, filter, error, before, jobs: Vec::new(), bytes: 0, budget, spent: false };
    let mut indexed = match shared.history() {
        Some(history) => page.ended_alone(handle)?.then_some(history),
        None => None,
    };
    let mut records = 0;
    while page.jobs.len() < filter.limit && !page.spent && records < LIST_RECORDS_MAX {
        if page.before <= shared.reader.first_seq() {
            return Ok(JobPage { jobs: page.jobs, next_cursor: None });
        }
        if let Some(history) = indexed
            && let Some(covered) = history.covered()
            && covered.start < page.before
            && page.before <= covered.end
        {
            let from = page.before;
            match page.by_index(history) {
                Some(()) if page.before < from => {
                    if page.before > covered.start {
                        break;
                    }
                }
                // No answer: the log has it.
                _ => indexed = None,
            }
            continue;
        }
        let read = page.by_log(handle)?;
        if read == 0 {
            return Ok(JobPage { jobs: page.jobs, next_cursor: None });
        }
        records += read;
    }
    let more = page.before > shared.reader.first_seq();
    Ok(JobPage { jobs: page.jobs, next_cursor: more.then(|| page.before.to_string()) })
}

impl Filling<'_> {
    /// Whether only ended jobs can be meant: by the filter, or because no other is alive.
    fn ended_alone(&self, handle: &Handle) -> Result<bool, Refusal> {
        if self.filter.state.is_some() && self.end().is_some() {
            return Ok(true);
        }
        Ok(!handle.any_lives(self.filter.worker_type.as_ref())?)
    }

    fn end(&self) -> Option<End> {
        const ENDS: [End; 4] = [End::Completed, End::Cancelled, End::Expired, End::Discarded];
        let state = self.filter.state.as_deref()?;
        ENDS.into_iter().find(|end| end_word(*end) == state)
    }

    /// Goes on by the index. `None`: it does not answer.
    fn by_index(&mut self, history: &dyn History) -> Option<()> {
        let first = self.shared.reader.first_seq();
        if self.filter.state.is_some() && self.end().is_none() {
            // Of these none is alive, and none can have ended.
            self.before = first;
            return Some(());
        }
        let types = &self.shared.names().types;
        let no = |name| types.iter().position(|known| known == name).and_then(|at| u32::try_from(at + 1).ok());
        let page = history.ended(Ask {
            type_no: self.filter.worker_type.as_ref().and_then(no),
            end: self.end(),
            tenant: self.filter.tenant.clone(),
            error: self.error.clone(),
            since: self.filter.since,
            before: self.before,
            limit: self.filter.limit - self.jobs.len(),
        })?;
        for found in &page.found {
            let Some(job) = EndedJob::found(self.shared, found) else { continue };
            // As a reading of the log shows it: failures belong to a search for them.
            let job = if self.error.is_some() { job.with_failures_found(self.shared, found) } else { job };
            if self.show(job.view, job.at, found.seq).is_break() {
                return Some(());
            }
        }
        self.before = page.down_to;
        Some(())
    }

    /// Goes on by the log: one block of it. Says how many records were read.
    fn by_log(&mut self, handle: &Handle) -> Result<usize, Refusal> {
        let unreadable = |error| Refusal::InvalidJob { detail: format!("the log cannot be read: {error}") };
        let block = self.shared.reader.block_before(self.before).map_err(unreadable)?;
        let found: Vec<(Seq, Candidate<'_>)> =
            block.iter().rev().filter_map(|record| Some((record.seq, self.candidate(record)?))).collect();
        let places = found.iter().filter_map(|(_, candidate)| match candidate {
            Candidate::Live { type_no, born, home } => Some((*type_no, *born, *home)),
            Candidate::Ended(..) => None,
        });
        let places: Vec<_> = places.collect();
        let mut live = if places.is_empty() { Vec::new() } else { handle.live_at(places)? }.into_iter();
        for (seq, candidate) in found {
            let shown = match candidate {
                Candidate::Ended(event, result) => {
                    let mut job = EndedJob::of(self.shared, &event, result);
                    if self.error.is_some() {
                        let is_first = self.budget == LIST_ERROR_RECORDS_MAX;
                        job = job.with_failures_read(self.shared, &mut self.budget);
                        if self.budget == 0 && !is_first {
                            (self.before, self.spent) = (seq + 1, true);
                            return Ok(block.len());
                        }
                    }
                    self.show(job.view, job.at, seq)
                }
                Candidate::Live { .. } => match live.next().flatten() {
                    Some(live) => self.show(live_view(self.shared, &live), last_change(&live), seq),
                    None => ControlFlow::Continue(()),
                },
            };
            if shown.is_break() {
                return Ok(block.len());
            }
            if self.jobs.len() == self.filter.limit {
                self.before = seq;
                return Ok(block.len());
            }
        }
        self.before = block.first().map_or(0, |record| record.seq);
        Ok(block.len())
    }

    fn candidate<'r>(&self, record: &'r StoredRecord) -> Option<Candidate<'r>> {
        match Event::decode(record.kind, record.version, &record.body).ok()? {
            Event::Ended(event, result) => {
                let wanted = self.filter.worker_type.as_ref();
                let wrong_type = wanted.is_some() && self.shared.names().worker_type(event.type_no) != wanted;
                let wrong_state = self.filter.state.as_ref().is_some_and(|state| state != end_word(event.end));
                let too_old = self.filter.since.is_some_and(|since| event.at < since);
                let is_wanted = !wrong_type && !wrong_state && !too_old;
                is_wanted.then(|| Candidate::Ended(Box::new(event), result))
            }
            Event::Enqueued(meta, _) => self.live(meta.type_no, record.seq, record.seq),
            Event::Restated(state, enqueued) => {
                let (meta, _) = decode_home(Kind::Enqueued as u8, enqueued).ok()?;
                self.live(meta.type_no, state.born, record.seq)
            }
            _ => None,
        }
    }

    fn live(&self, type_no: u32, born: Seq, home: Seq) -> Option<Candidate<'static>> {
        let wanted = self.filter.worker_type.as_ref();
        let wrong_type = wanted.is_some() && self.shared.names().worker_type(type_no) != wanted;
        (!wrong_type).then_some(Candidate::Live { type_no, born, home })
    }

    /// Puts a job on the page, if it is wanted; `at` is when it ended or last changed, `seq` where it stands. Breaks where the
    /// page has no room for it: then the next one begins with it.
    fn show(&mut self, mut view: JobView, at: UnixMs, seq: Seq) -> ControlFlow<()> {
        let filter = self.filter;
        let said = |part: &String| view.error.as_deref().is_some_and(|error| plain(error).contains(part.as_str()));
        let wanted = filter.worker_type.as_ref().is_none_or(|wanted| *wanted == view.worker_type)
            && filter.state.as_ref().is_none_or(|wanted| wanted == view.state)
            && filter.tenant.as_ref().is_none_or(|wanted| view.tenant.as_ref() == Some(wanted))
            && filter.since.is_none_or(|since| at >= since)
            && self.error.as_ref().is_none_or(said);
        if !wanted {
            return ControlFlow::Continue(());
        }
        if filter.brief {
            (view.payload, view.result) = (None, None);
        }
        let bytes = self.bytes + counts(&view);
        if bytes > LIST_BYTES_MAX && !self.jobs.is_empty() {
            (self.before, self.spent) = (seq + 1, true);
            return ControlFlow::Break(());
        }
        self.bytes = bytes;
        self.jobs.push(view);
        ControlFlow::Continue(())
    }
}

/// What a job counts of a page's bytes.
fn counts(view: &JobView) -> usize {
    let json = [&view.payload, &view.result].into_iter().flatten().map(|json| json.get().len());
    let errors = view.error.iter().chain(view.failures.iter().map(|failure| &failure.error)).map(String::len);
    LIST_JOB_BYTES + json.chain(errors).sum::<usize>()
}

fn last_change(live: &LiveJob) -> UnixMs {
    live.job.failures().last().map_or(live.job.created_ms, |failure| failure.at)
}
