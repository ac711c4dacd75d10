//! The status page: rendered here, kept live by a small script that fetches the same fragment again.
//!
//! Owns how the ecosystem looks to people; shows nothing that [`EcosystemView`] does not say. Works without the script.

mod verdict;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;

use crate::engine::view::{EcosystemView, TypeView};
use crate::http::problem::Problem;
use crate::http::{App, ecosystem};
use crate::types::UnixMs;
use verdict::{Verdict, verdict};

const STYLE: &str = include_str!("../../web/style.css");
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

    fn since_start(&self) -> String {
        ago(&self.now.saturating_sub(self.view.started_at_ms))
    }

    /// Of all types together.
    fn total(&self, count: impl Fn(&TypeView) -> u64) -> String {
        number(&self.view.types.iter().map(count).sum())
    }
}

/// A number with thin spaces between thousands.
fn number(value: &u64) -> String {
    let digits = value.to_string();
    let mut shown = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push('\u{2009}');
        }
        shown.push(digit);
    }
    shown
}

/// Bytes in the largest unit that leaves at least one.
fn bytes(value: &u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut rest = *value;
    while rest >= 10 * 1024 && unit + 1 < UNITS.len() {
        rest /= 1024;
        unit += 1;
    }
    format!("{rest} {}", UNITS.get(unit).unwrap_or(&"B"))
}

/// A time that has passed, in words as short as can be read.
fn ago(ms: &u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms} ms"),
        1..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::view::{GenerationView, LogView, ScaleView, VersionView};
    use crate::recent::Shares;

    pub(super) fn view() -> EcosystemView {
        let version = VersionView {
            version: "v1".to_owned(),
            state: "current",
            pool_size: 2,
            busy: 1,
            percent: 100,
            run_ms: Some(Shares { p50: 12.0, p95: 340.0, p99: 5600.0 }),
            wait_ms: None,
            per_second: 7.25,
            failures_per_second: 0.0,
            reason: None,
            failing: None,
            restarts: 0,
            last_restart: None,
            rss_bytes: None,
            workers: Vec::new(),
        };
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
            run_ms: version.run_ms,
            wait_ms: None,
            per_second: 7.25,
            failures_per_second: 0.0,
            scale: None,
            versions: vec![version],
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
    fn figures_are_short() {
        assert_eq!(number(&0), "0");
        assert_eq!(number(&1_234_567), "1\u{2009}234\u{2009}567");
        assert_eq!((bytes(&512), bytes(&(64 << 20))), ("512 B".to_owned(), "64 MiB".to_owned()));
        assert_eq!((ago(&999), ago(&119_000), ago(&86_400_000)), ("999 ms".into(), "119 s".into(), "24 h".into()));
    }
}
