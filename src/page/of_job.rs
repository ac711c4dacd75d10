//! The page of one job: how it stands and why, what became of it step by step, and what can be done about it.

use std::borrow::Cow;
use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;

use super::board::{Board, Fresh};
use super::told::{Done, Told, in_address};
use super::words::{due, since_text};
use super::{bug, html};
use crate::engine::Handle;
use crate::engine::view::{JobView, StepView, TimelineView, WorkerView};
use crate::figures::{ago, moment, took};
use crate::http::asked::Path;
use crate::http::problem::Problem;
use crate::http::visitor::Visitor;
use crate::http::{App, blocking};
use crate::refusal::Refusal;
use crate::types::UnixMs;
use crate::wording::step;
use crate::worker::{gist, tail};

/// Bytes of a payload or a result that are shown.
const SHOWN_BYTES_MAX: usize = 32 << 10;
/// Jobs that it enqueued, of which the ids are shown.
const ENQUEUED_SHOWN: usize = 100;

#[derive(Template)]
#[template(path = "job.html", config = "web/askama.toml")]
struct Page {
    title: String,
    live: String,
    visitor: Visitor,
    note: Option<String>,
    part: Part,
    timeline: TimelineView,
    now: UnixMs,
}

/// The part that is kept live.
#[derive(Template)]
#[template(path = "job_live.html", config = "web/askama.toml")]
struct Part {
    job: JobView,
    /// Why it is not running now.
    why: Option<String>,
    /// The worker that has it, as far as that is shown.
    worker: Option<WorkerView>,
    now: UnixMs,
    /// Whether who sees it may do something about it.
    may_act: bool,
}

pub(super) async fn page(
    State(app): State<App>,
    Extension(board): Extension<Arc<Board>>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
    done: Result<Query<Done>, QueryRejection>,
) -> Result<Response, Told> {
    let note = done.ok().and_then(|Query(done)| done.words());
    let now = app.clock.wall_ms();
    let handle = app.handle.clone();
    let found = blocking(move || Ok::<_, Refusal>((Part::of(&handle, &id, now, visitor)?, handle.timeline(&id)?)));
    let (part, timeline) = found.await??;
    let part = part.with_worker(&app, &board, Fresh::Now).await?;
    let title = part.job.id.clone();
    // What is over does not change any more.
    let live = if part.is_over() { String::new() } else { format!("/jobs/{}/fragment", in_address(&title)) };
    let page = Page { title, live, visitor, note, part, timeline, now };
    Ok(html(page.render().map_err(bug)?))
}

pub(super) async fn fragment(
    State(app): State<App>,
    Extension(board): Extension<Arc<Board>>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let now = app.clock.wall_ms();
    let handle = app.handle.clone();
    let part = blocking(move || Part::of(&handle, &id, now, visitor)).await??;
    let part = part.with_worker(&app, &board, Fresh::Tick).await?;
    Ok(html(part.render().map_err(bug)?))
}

/// A sentence as it begins; where that is a version's label, it stays as it is.
fn begun(says: &str) -> String {
    let own = ["it ", "its ", "the ", "no ", "biotope "].iter().any(|word| says.starts_with(word));
    let (first, rest) = says.split_at(usize::from(own));
    first.to_uppercase() + rest
}

impl Part {
    fn of(handle: &Handle, id: &str, now: UnixMs, visitor: Visitor) -> Result<Self, Refusal> {
        let job = handle.job(id)?;
        let why = handle.why(id).ok().filter(|_| job.ended_at.is_none()).map(|told| begun(&told.why));
        Ok(Self { job, why, worker: None, now, may_act: visitor.may_act() })
    }

    /// With the worker that has it, if one has.
    async fn with_worker(mut self, app: &App, board: &Board, fresh: Fresh) -> Result<Self, Problem> {
        if self.job.state == "reserved" {
            let look = board.look(app, fresh).await?;
            let of_type = look.view.types.iter().find(|of_type| of_type.worker_type == self.job.worker_type);
            let mut workers =
                of_type.into_iter().flat_map(|of_type| &of_type.versions).flat_map(|version| &version.workers);
            self.worker = workers.find(|worker| worker.jobs.iter().any(|held| held.id == self.job.id)).cloned();
        }
        Ok(self)
    }

    fn is_over(&self) -> bool {
        self.job.ended_at.is_some()
    }

    /// Another one each time that more has become of it than the figures here show.
    fn key(&self) -> String {
        let JobView { state, attempts, interrupts, deferrals, .. } = &self.job;
        format!("{state}-{attempts}-{interrupts}-{deferrals}-{}", self.job.failures.len())
    }

    fn can_retry(&self) -> bool {
        self.may_act && matches!(self.job.state, "dead" | "delayed")
    }

    fn can_cancel(&self) -> bool {
        self.may_act && matches!(self.job.state, "ready" | "delayed" | "reserved" | "parked")
    }

    fn can_discard(&self) -> bool {
        self.may_act && self.job.state == "dead"
    }

    fn since(&self, at: &str) -> String {
        since_text(at, self.now)
    }

    fn due(&self, at: &str) -> String {
        due(at, self.now)
    }

    /// How far it is, in percent.
    fn percent(&self) -> Option<u64> {
        let fraction = self.job.progress.as_ref()?.fraction?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of one, clamped")]
        let percent = (fraction.clamp(0.0, 1.0) * 100.0).round() as u64;
        Some(percent)
    }
}

impl Page {
    fn class(&self, step: &StepView) -> &'static str {
        match step.what {
            "completed" => "good",
            "failed" | "died" | "lost" | "not_started" => "ill",
            "failed_uncharged" | "deferred" => "look",
            "running" => "runs",
            _ => "plain",
        }
    }

    /// What happened, with the last word about it, and the lines that a program wrote.
    fn said<'a>(&self, says: &'a str) -> (Cow<'a, str>, &'a str) {
        (gist(says), tail(says))
    }

    fn took(&self, ms: &u64) -> String {
        took(&(*ms as f64))
    }

    fn moment(&self, at: &UnixMs) -> String {
        moment(*at)
    }

    fn since(&self, at: &str) -> String {
        since_text(at, self.now)
    }

    /// When it may run next, as long as that is to come.
    fn again(&self, step: &StepView) -> Option<String> {
        let at = step.until_ms.filter(|at| *at > self.now)?;
        Some(due(&moment(at), self.now))
    }

    fn ago(&self, at: &UnixMs) -> String {
        format!("{} ago", ago(&self.now.saturating_sub(*at)))
    }

    fn enqueued(&self) -> &[String] {
        let all = &self.timeline.enqueued;
        all.get(..ENQUEUED_SHOWN).unwrap_or(all)
    }

    fn payload(&self) -> Option<Shown> {
        self.part.job.payload.as_ref().map(|json| shown(json.get()))
    }

    fn result(&self) -> Option<Shown> {
        self.part.job.result.as_ref().map(|json| shown(json.get()))
    }
}

/// JSON as it is shown: with its lines, and not all of what is very long.
struct Shown {
    text: String,
    more: bool,
}

fn shown(json: &str) -> Shown {
    let parsed = serde_json::from_str::<serde_json::Value>(json).ok().filter(|_| json.len() <= SHOWN_BYTES_MAX);
    let mut text =
        parsed.and_then(|value| serde_json::to_string_pretty(&value).ok()).unwrap_or_else(|| json.to_owned());
    let mut end = text.len().min(SHOWN_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let more = end < text.len();
    text.truncate(end);
    Shown { text, more }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_begins_with_a_capital_and_a_label_is_left_as_it_is() {
        assert_eq!(begun("its turn is next"), "Its turn is next");
        assert_eq!(begun("v2 has it: attempt 1 of 4 runs"), "v2 has it: attempt 1 of 4 runs");
        assert_eq!(begun(""), "");
    }

    #[test]
    fn failed_attempts_whose_records_have_left_the_log_are_shown_by_what_is_remembered_of_them() {
        let (visitor, now) = (Visitor::NOBODY, 70_000);
        let page = |whole| {
            let job = super::super::tests::job("a", "no ink");
            let part = Part { job, why: None, worker: None, now, may_act: false };
            let timeline = TimelineView { whole, ..TimelineView::default() };
            let (title, live) = ("a".to_owned(), String::new());
            Page { title, live, visitor, note: None, part, timeline, now }.render().unwrap()
        };
        let shown = "<b>Failed</b> on v1, worker 3, <time";
        assert!(page(false).contains(shown) && page(false).contains("no ink"), "{}", page(false));
        assert!(!page(true).contains(shown), "all of them stand among the steps");
    }

    #[test]
    fn what_is_long_is_cut_where_a_character_ends() {
        let long = format!("\"{}\"", "\u{e9}".repeat(SHOWN_BYTES_MAX));
        let cut = shown(&long);
        assert!(cut.more && cut.text.len() <= SHOWN_BYTES_MAX && cut.text.starts_with("\"\u{e9}"));
        let small = shown("{\"b\":1,\"a\":[2]}");
        assert!(!small.more && small.text.contains("\n  \"b\": 1"), "{}", small.text);
    }
}
