//! The status page: rendered here, kept live by a small script that fetches the same fragment again.
//!
//! Owns how the ecosystem looks to people; shows nothing that [`EcosystemView`] does not say. Works without the script.

mod rollover;
mod verdict;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;

use crate::engine::view::{DrainView, EcosystemView, TypeView, VersionView};
use crate::figures::{ago, bytes, first_line, number, rate, took};
use crate::http::problem::Problem;
use crate::http::{App, ecosystem};
use crate::recent::Shares;
use crate::types::UnixMs;
use rollover::{is_refused, state, trial};
use verdict::{Verdict, tried, verdict};

const STYLE: &str = include_str!("../../web/style.css");
/// A job that takes shorter than this is not worth a figure.
const AT_IT_FOR_SHOWN_MS: u64 = 1000;
const SCRIPT: &str = include_str!("../../web/live.js");

/// The page, its fragment, and what they need.
pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/", get(page))
        .route("/fragment", get(fragment))
        .route("/assets/style.css", get(|| async { asset("text/css; charset=utf-8", STYLE) }))
        .route("/assets/live.js", get(|| async { asset("text/javascript; charset=utf-8", SCRIPT) }))
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        // The binary may be another one a minute later.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, text).into_response()
}

#[derive(Template)]
#[template(path = "page.html", config = "web/askama.toml")]
struct Page {
    fragment: Fragment,
}

#[derive(Template)]
#[template(path = "fragment.html", config = "web/askama.toml")]
struct Fragment {
    view: EcosystemView,
    verdict: Verdict,
    now: UnixMs,
    version: &'static str,
}

async fn page(State(app): State<App>) -> Result<Response, Problem> {
    render(&Page { fragment: look(&app).await? })
}

async fn fragment(State(app): State<App>) -> Result<Response, Problem> {
    render(&look(&app).await?)
}

async fn look(app: &App) -> Result<Fragment, Problem> {
    let view = ecosystem(app).await?;
    Ok(Fragment::new(view, app.clock.wall_ms()))
}

fn render(template: &impl Template) -> Result<Response, Problem> {
    let status = axum::http::StatusCode::INTERNAL_SERVER_ERROR;
    let html = template.render().map_err(|error| Problem::new(status, "bug", error.to_string()))?;
    Ok(Html(html).into_response())
}

impl Fragment {
    fn new(view: EcosystemView, now: UnixMs) -> Self {
        Self { verdict: verdict(&view), view, now, version: env!("CARGO_PKG_VERSION") }
    }

    fn ready(&self) -> String {
        self.total(|of_type| of_type.ready)
    }

    fn at_work(&self) -> String {
        self.total(|of_type| of_type.reserved)
    }

    fn delayed(&self) -> String {
        self.total(|of_type| of_type.delayed)
    }

    fn completed(&self) -> String {
        self.total(|of_type| of_type.completed)
    }

    fn since_accepted(&self) -> String {
        ago(&self.now.saturating_sub(self.view.generation.accepted_at_ms))
    }

    /// How long ago something was.
    fn since(&self, at: &UnixMs) -> String {
        ago(&self.now.saturating_sub(*at))
    }

    fn since_start(&self) -> String {
        ago(&self.now.saturating_sub(self.view.started_at_ms))
    }

    /// How a version comes to its end.
    fn draining(&self, drain: &DrainView) -> String {
        rollover::drain(drain, self.now).words()
    }

    /// What goes on and needs nobody.
    fn goes_on(&self) -> Option<String> {
        rollover::goes_on(&self.view)
    }

    /// Whether there is any figure that needs to be explained.
    fn has_figures(&self) -> bool {
        self.view.types.iter().any(|of_type| of_type.pace.run_ms.is_some())
    }

    /// Of all types together.
    fn total(&self, count: impl Fn(&TypeView) -> u64) -> String {
        number(&self.view.types.iter().map(count).sum())
    }
}

/// Half, most, and all but few of something: one beside the other.
fn spread(shares: &Shares) -> String {
    [shares.p50, shares.p95, shares.p99].map(|ms| took(&ms)).join(" · ")
}

/// What else a row has to say of a version: that it runs something, or has done so, or does not come to it.
fn has_more(version: &VersionView) -> bool {
    version.pace.run_ms.is_some()
        || version.restarts > 0
        || version.rss_bytes.is_some()
        || needs_look(version)
        || at_it_for(version).is_some()
        || version.drain.is_some()
        || version.reason.is_some()
}

/// Whether somebody should see it at once.
fn needs_look(version: &VersionView) -> bool {
    version.failing.is_some() || has_stuck(version) || (version.reason.is_some() && !is_refused(version))
}

fn has_stuck(version: &VersionView) -> bool {
    version.workers.iter().any(|worker| worker.stuck)
}

/// Whether its workers have more to say than that they are idle.
fn is_at_work(version: &VersionView) -> bool {
    version.workers.iter().any(|worker| worker.state != "idle" || worker.pid.is_some())
}

/// The age of the job that a worker has been at for longest, if that is worth telling.
fn at_it_for(version: &VersionView) -> Option<u64> {
    let ages = version.workers.iter().flat_map(|worker| &worker.jobs).map(|job| job.age_ms);
    ages.max().filter(|age| *age >= AT_IT_FOR_SHOWN_MS)
}

fn size(version: &VersionView) -> usize {
    version.pool_size as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::view::{
        FailingView, GenerationView, HeldView, LogView, PaceView, RestartView, ScaleView, WorkerView,
    };

    fn version(pace: PaceView) -> VersionView {
        VersionView {
            version: "v1".to_owned(),
            state: "current",
            configured: true,
            pool_size: 2,
            busy: 1,
            percent: 100,
            pace,
            reason: None,
            drifted: None,
            failing: None,
            restarts: 0,
            last_restart: None,
            drain: None,
            warm_for_ms: None,
            rss_bytes: None,
            workers: Vec::new(),
        }
    }

    pub(super) fn view() -> EcosystemView {
        let run_ms = Some(Shares { p50: 12.0, p95: 340.0, p99: 5600.0 });
        let pace = PaceView { run_ms, per_second: 7.25, ..PaceView::default() };
        let of_type = TypeView {
            worker_type: "press".parse().unwrap(),
            ready: 12_345,
            delayed: 0,
            reserved: 1,
            parked: 0,
            dead: 0,
            enqueued: 20_000,
            completed: 7_654,
            failed: 3,
            cancelled: 0,
            expired: 0,
            discarded: 0,
            oldest_ms: 61_000,
            retries_held_ms: 0,
            paused: false,
            configured: true,
            pace,
            scale: None,
            trial: None,
            storm: false,
            versions: vec![version(pace)],
        };
        EcosystemView {
            types: vec![of_type],
            log: LogView {
                sync: "always".to_owned(),
                head_segment: 1,
                active_segment: 2,
                durable_up_to: 99,
                disk_bytes: 128 << 20,
                live_bytes: 1000,
                epoch: 1,
                commits: 5,
                written_bytes: 5000,
                last_sync_us: 150,
                full: None,
                damaged: Vec::new(),
                scrubbed_at_ms: None,
            },
            history: crate::archive::Standing::off(),
            generation: GenerationView {
                number: 1,
                accepted_at_ms: 1000,
                state: "ok",
                last_error: None,
                last_error_at_ms: None,
            },
            started_at_ms: 1000,
            stopping: false,
            binary: None,
        }
    }

    #[test]
    fn the_page_shows_what_the_view_says() {
        let html = Page { fragment: Fragment::new(view(), 61_000) }.render().unwrap();
        for shown in ["All is well", "press", "12\u{2009}345", "v1", "128 MiB", "61 s", "data-verdict=\"ok\""] {
            assert!(html.contains(shown), "{shown} is missing in\n{html}");
        }
        assert!(html.starts_with("<!DOCTYPE html>"));
    }

    #[test]
    fn a_size_that_follows_its_queue_is_shown_with_its_reason() {
        let mut view = view();
        let reason = "to work off what waits within target_wait";
        view.types[0].scale = Some(ScaleView { min: 0, max: 16, target_wait_ms: 2000, workers: 7, reason });
        let html = Fragment::new(view, 2000).render().unwrap();
        assert!(html.contains(&format!("7 workers (0 to 16): {reason}")), "{html}");
    }

    #[test]
    fn retries_that_are_more_than_their_budget_are_told_of() {
        let mut view = view();
        view.types[0].retries_held_ms = 180_000;
        let html = Fragment::new(view, 2000).render().unwrap();
        assert!(html.contains("retries come 3 min later"), "{html}");
    }

    #[test]
    fn nothing_that_others_wrote_becomes_markup() {
        let mut view = view();
        view.generation.last_error = Some("<script>alert(1)</script>".to_owned());
        view.types[0].versions[0].reason = Some("<img src=x onerror=alert(1)>".to_owned());
        let html = Fragment::new(view, 2000).render().unwrap();
        assert!(!html.contains("<script>") && !html.contains("<img"), "{html}");
    }

    #[test]
    fn what_fails_or_is_stuck_is_shown_with_its_reason_and_what_is_done() {
        let mut view = view();
        let version = &mut view.types[0].versions[0];
        version.restarts = 12;
        version.last_restart = Some(RestartView { at_ms: 1000, reason: "it broke\nand said so".to_owned() });
        let worker = WorkerView {
            state: "working",
            for_ms: 300_000,
            beat_ms: 240_000,
            stuck: true,
            reason: None,
            next_try_ms: None,
            pid: Some(4711),
            rss_bytes: Some(64 << 20),
            holds: 3,
            jobs: vec![HeldView { id: "order-17".to_owned(), age_ms: 300_000 }],
        };
        version.workers = vec![worker];
        version.rss_bytes = Some(64 << 20);
        let html = Fragment::new(view.clone(), 61_000).render().unwrap();
        for shown in [
            "data-verdict=\"bad\"",
            "press v1 has a stuck worker: 4 min without a sign of life, with job order-17",
            "12, the last 60 s ago: it broke",
            "12 ms · 340 ms · 5.6 s",
            "stuck for 5 min",
            "process 4711 · 64 MiB",
            "<code>order-17</code> for 5 min and 2 more",
            " open>",
        ] {
            assert!(html.contains(shown), "{shown} is missing in\n{html}");
        }
        let failing =
            FailingView { reason: "no".to_owned(), since_ms: 1000, tries: 7, next_try_ms: Some(3000), none_up: true };
        view.types[0].versions[0].workers.clear();
        view.types[0].versions[0].failing = Some(failing);
        view.types[0].versions[0].reason = Some("no".to_owned());
        let html = Fragment::new(view, 61_000).render().unwrap();
        for shown in [
            "· failing</span>",
            ">failing for 60 s, tried 7 times, again in 3 s</span>",
            "is failing: no; its jobs wait; tried 7 times, again",
        ] {
            assert!(html.contains(shown), "{shown} is missing in\n{html}");
        }
        assert!(html.contains("press v1 is failing: no") && !html.contains("needs a look"), "{html}");
    }
}
