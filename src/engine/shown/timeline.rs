//! What became of a job, step by step, read from the log's records on the caller's thread.

use crate::engine::command::Known;
use crate::engine::shared::Shared;
use crate::engine::shown::lookup::{label, numbered};
use crate::engine::view::{StepView, TimelineView};
use crate::engine::words::{HOST_ENDED, end_word};
use crate::job::event::{After, Ended, Event, Failed, Release, Released, Reserved};
use crate::limits::{FOLLOW_UPS_MAX, TIMELINE_RECORDS_MAX};
use crate::types::{Seq, UnixMs};

/// The steps that were read so far.
struct Reading<'a> {
    shared: &'a Shared,
    id: &'a str,
    born: Seq,
    timeline: TimelineView,
    /// The run that goes on at this place of the log.
    runs: Option<Reserved>,
    ended: bool,
}

/// The steps of a job: its records from its first one on, as far as the log has them and one look reads on.
pub(in crate::engine) fn timeline(shared: &Shared, id: &str, known: &Known) -> Option<TimelineView> {
    let (born, from) = match known {
        Known::Live(live) => (live.born, live.born),
        // Its end may be the first that is known of it.
        Known::Look { born, .. } => (*born, *born),
        Known::Nothing => return None,
    };
    let whole = shared.reader.first_seq() <= from;
    let timeline = TimelineView { whole, ..TimelineView::default() };
    let mut reading = Reading { shared, id, born, timeline, runs: None, ended: false };
    let mut left = TIMELINE_RECORDS_MAX;
    for record in shared.reader.scan(from) {
        left = left.saturating_sub(1);
        let Some(record) = record.ok().filter(|_| left > 0) else {
            reading.timeline.whole = false;
            break;
        };
        let Ok(event) = Event::decode(record.kind, record.version, &record.body) else { continue };
        if !reading.take(record.seq, &event) {
            break;
        }
    }
    reading.jump_to_the_end();
    reading.finish();
    Some(reading.timeline)
}

impl Reading<'_> {
    /// Takes one record in; whether more may follow.
    fn take(&mut self, seq: Seq, event: &Event<'_>) -> bool {
        match event {
            Event::Enqueued(meta, _) if seq == self.born => {
                self.step("accepted", meta.created_ms);
                let due = (meta.ready_ms > meta.created_ms).then_some(meta.ready_ms);
                self.last(|step| step.until_ms = due);
            }
            Event::Enqueued(meta, _) if meta.parent == Some(self.id) => {
                let chosen = meta.names.as_ref().and_then(|names| names.id);
                let id = chosen.map_or_else(|| self.shared.ids.make(seq, meta.created_ms), str::to_owned);
                self.timeline.enqueued.push(id);
            }
            // Follow-up jobs stand right behind the end that they came with.
            _ if self.ended => return false,
            Event::Reserved(reserved) if reserved.born == self.born => self.runs = Some(*reserved),
            Event::Failed(failed, error) if failed.born == self.born => self.failed(failed, error),
            Event::Released(released, reason) if released.born == self.born => self.released(released, reason),
            Event::Redriven(redriven) if redriven.born == self.born => self.step("redriven", redriven.at),
            Event::Opened(opened) if self.runs.is_some() => {
                self.run_ended("lost", opened.at, None, 0);
                self.last(|step| step.says = Some(HOST_ENDED.to_owned()));
            }
            Event::Ended(ended, _) if ended.born == self.born => self.end(ended),
            _ => {}
        }
        true
    }

    /// Where the end was not read yet, and the index of ended jobs knows it.
    fn jump_to_the_end(&mut self) {
        if self.ended || self.timeline.whole {
            return;
        }
        let Some(found) = self.shared.history().and_then(|history| history.find(self.born)).flatten() else { return };
        self.runs = None;
        for record in self.shared.reader.scan(found.seq).map_while(Result::ok).take(1 + FOLLOW_UPS_MAX) {
            match Event::decode(record.kind, record.version, &record.body) {
                Ok(event) if self.take(record.seq, &event) => {}
                _ => return,
            }
        }
    }

    fn step(&mut self, what: &'static str, at_ms: UnixMs) {
        self.timeline.steps.push(StepView {
            what,
            at_ms,
            version: None,
            worker: None,
            took_ms: None,
            says: None,
            until_ms: None,
        });
    }

    fn last(&mut self, change: impl FnOnce(&mut StepView)) {
        if let Some(step) = self.timeline.steps.last_mut() {
            change(step);
        }
    }

    /// The run that went on came to its end.
    fn run_ended(&mut self, what: &'static str, at: UnixMs, version_no: Option<u32>, worker: u32) {
        let run = self.runs.take();
        self.step(what, at);
        let version_no = version_no.filter(|no| *no != 0).or_else(|| run.map(|run| run.version_no));
        let version = version_no.and_then(|no| label(self.shared, no));
        self.last(|step| {
            step.version = version;
            step.worker = numbered(worker);
            step.took_ms = run.map(|run| at.saturating_sub(run.at));
        });
    }

    fn failed(&mut self, failed: &Failed, error: &[u8]) {
        let (what, until) = match failed.after {
            After::Retry { ready_ms } => ("failed", Some(ready_ms)),
            After::Again { ready_ms } => ("failed_uncharged", Some(ready_ms).filter(|at| *at != 0)),
            After::Dead => ("died", None),
        };
        self.run_ended(what, failed.at, Some(failed.version_no), failed.worker);
        let error = String::from_utf8_lossy(error).into_owned();
        self.last(|step| (step.says, step.until_ms) = (Some(error), until));
    }

    fn released(&mut self, released: &Released, reason: &[u8]) {
        let (what, until) = match released.release {
            Release::Interrupt => ("given_back", None),
            Release::Deferral { ready_ms } => ("deferred", Some(ready_ms)),
            Release::NotStarted => ("not_started", None),
            Release::HostDeath { ready_ms } => ("lost", Some(ready_ms).filter(|at| *at != 0)),
        };
        self.run_ended(what, released.at, None, released.worker);
        let reason = (!reason.is_empty()).then(|| String::from_utf8_lossy(reason).into_owned());
        self.last(|step| (step.says, step.until_ms) = (reason, until));
    }

    fn end(&mut self, ended: &Ended<'_>) {
        if self.runs.is_some() {
            self.run_ended(end_word(ended.end), ended.at, Some(ended.version_no), ended.worker);
        } else {
            self.step(end_word(ended.end), ended.at);
        }
        self.ended = true;
    }

    /// A run that has no end yet.
    fn finish(&mut self) {
        if let Some(run) = self.runs.take() {
            self.step("running", run.at);
            let version = label(self.shared, run.version_no);
            self.last(|step| step.version = version);
        }
    }
}
