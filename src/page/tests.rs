//! What the pages show of a view that is put together here.

use askama::Template as _;

use super::of_type::Part;
use super::overview::{Look, screen};
use crate::engine::view::{
    EcosystemView, FailingView, FailureView, GenerationEntry, GenerationView, GenerationsView, HeldView, JobView,
    LogView, PaceView, RestartView, ScaleView, TypeView, VersionView, WorkerView,
};
use crate::recent::{COURSE_STEPS, Shares, Step};
use crate::types::UnixMs;

pub(super) fn look(view: EcosystemView, now: UnixMs) -> Look {
    Look { view, generations: GenerationsView { generations: Vec::new(), refused: Vec::new() }, now }
}

/// A dead job that failed once.
pub(super) fn job(id: &str, error: &str) -> JobView {
    let at = "1970-01-01T00:00:10Z".to_owned();
    let failure = FailureView {
        attempt: 1,
        at: at.clone(),
        version: Some("v1".to_owned()),
        worker: Some(3),
        error: error.to_owned(),
    };
    JobView {
        id: id.to_owned(),
        worker_type: "press".parse().unwrap(),
        state: "dead",
        why: None,
        task: String::new(),
        payload: None,
        priority: 5,
        tenant: None,
        idempotency_key: None,
        attempts: 1,
        max_attempts: 1,
        min_version: None,
        interrupts: 0,
        deferrals: 0,
        host_deaths: 0,
        created_at: at,
        ready_at: None,
        expires_at: None,
        ended_at: None,
        version: Some("v1".to_owned()),
        progress: None,
        extended_until: None,
        result: None,
        error: Some(error.to_owned()),
        traceparent: None,
        parent: None,
        failures: vec![failure],
    }
}

/// The first screen.
pub(super) fn first(view: EcosystemView, now: UnixMs) -> String {
    screen(&look(view, now)).unwrap().live
}

/// The page of the view's type.
fn of_type(view: EcosystemView, now: UnixMs) -> String {
    Part::of(&look(view, now), "press", true).unwrap().render().unwrap()
}

fn version(pace: PaceView) -> VersionView {
    let (configured, pool_size, busy, percent) = (true, 2, 1, 100);
    VersionView { configured, pool_size, busy, percent, pace, ..VersionView::at_rest("v1".to_owned(), "current") }
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
        course: vec![Step { well: 60, ill: 1 }; COURSE_STEPS],
        scale: None,
        trial: None,
        storm: false,
        no_way_back: None,
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
    let html = first(view(), 61_000);
    for shown in [
        "All is well",
        "Nothing needs you.",
        "press",
        "12\u{2009}345",
        "v1",
        "128 MiB",
        "61 s",
        "data-verdict=\"ok\"",
        "12 · 340 ms · 5.6 s",
    ] {
        assert!(html.contains(shown), "{shown} is missing in\n{html}");
    }
    assert!(html.contains("<path class=\"well\"") && html.contains("<path class=\"ill\""), "{html}");
    assert!(!html.contains("style="), "the policy lets no style in markup be: {html}");
}

#[test]
fn the_first_screen_stays_small_with_many_types() {
    let one = first(view(), 61_000).len();
    let mut view = view();
    let of_type = view.types[0].clone();
    view.types.extend(std::iter::repeat_n(of_type, 199));
    view.types.iter_mut().for_each(|of_type| of_type.dead = 1);
    let html = first(view, 61_000);
    assert!(html.len() - one < 199 * 2600, "{} bytes for 200 types", html.len());
    // What needs a look is told of in part, and all of it is a click away.
    let (open, more) = html.split_once("<details id=\"more-reasons\">").unwrap();
    assert_eq!((open.matches("has 1 job dead").count(), more.matches("has 1 job dead").count()), (8, 192));
}

#[test]
fn a_size_that_follows_its_queue_is_shown_with_its_reason() {
    let mut view = view();
    let reason = "to work off what waits within target_wait";
    view.types[0].scale = Some(ScaleView { min: 0, max: 16, target_wait_ms: 2000, workers: 7, reason });
    let html = of_type(view.clone(), 2000);
    assert!(html.contains(&format!("7 workers (0 to 16): {reason}")), "{html}");
    let html = first(view, 2000);
    assert!(html.contains(&format!("title=\"{reason}\">7 workers (0 to 16)")), "{html}");
}

#[test]
fn retries_that_are_more_than_their_budget_are_told_of() {
    let mut view = view();
    view.types[0].retries_held_ms = 180_000;
    for html in [first(view.clone(), 2000), of_type(view, 2000)] {
        assert!(html.contains("retries come 3 min later"), "{html}");
    }
}

#[test]
fn nothing_that_others_wrote_becomes_markup() {
    let mut view = view();
    view.generation.last_error = Some("<script>alert(1)</script>".to_owned());
    view.types[0].versions[0].reason = Some("<img src=x onerror=alert(1)>`<b>`".to_owned());
    view.types[0].versions[0].drifted = Some("<img src=y>".to_owned());
    for html in [first(view.clone(), 2000), of_type(view, 2000)] {
        assert!(!html.contains("<script>") && !html.contains("<img") && html.contains("&#60;img"), "{html}");
    }
}

#[test]
fn a_type_that_is_gone_is_named_as_long_as_it_is_known() {
    let mut view = view();
    let mut gone = view.types[0].clone();
    (gone.worker_type, gone.configured, gone.ready, gone.reserved) = ("old".parse().unwrap(), false, 0, 0);
    view.types.push(gone);
    let html = first(view.clone(), 2000);
    assert!(html.contains("nothing left of them: <a href=\"/types/old\">old</a>"), "{html}");
    assert!(!html.contains("id=\"type-old\""), "{html}");
    view.types[1].dead = 1;
    let html = first(view, 2000);
    assert!(html.contains("id=\"type-old\" class=\"gone\"") && html.contains("not in the config"), "{html}");
}

#[test]
fn the_last_configs_are_shown_with_what_they_changed() {
    let changed = |name: &str| {
        serde_json::from_value(serde_json::json!({"type": name, "change": "rolled_over", "from": "v1", "to": "v2"}))
            .unwrap()
    };
    let entry = |number, types: usize| GenerationEntry {
        number,
        accepted_at: "1970-01-01T00:00:10Z".to_owned(),
        settled_at: None,
        verdict: "partial".to_owned(),
        keys: vec!["log.retain".to_owned()],
        types: (0..types).map(|no| changed(&format!("t{no}"))).collect(),
        left_out: 3,
    };
    let mut look = look(view(), 70_000);
    look.generations.generations = (0..9).map(|no| entry(9 - no, 6)).collect();
    let html = screen(&look).unwrap().live;
    for shown in [
        "<b>9</b> <span class=\"warn\">partial</span> <small>60 s ago",
        "changed: log.retain",
        "t0: rolled over from v1 to v2",
        "and 5 more",
    ] {
        assert!(html.contains(shown), "{shown} is missing in\n{html}");
    }
    assert!(html.contains("<b>5</b>") && !html.contains("<b>4</b>"), "{html}");
}

#[test]
fn what_fails_or_is_stuck_is_shown_with_its_reason_and_what_is_done() {
    let mut view = view();
    let version = &mut view.types[0].versions[0];
    version.restarts = 12;
    version.last_restart = Some(RestartView { at_ms: 1000, reason: "it broke\nand said so".to_owned() });
    let worker = WorkerView {
        number: Some(1),
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
    let html = first(view.clone(), 61_000);
    for shown in
        ["data-verdict=\"bad\"", "press</a> v1 has a stuck worker: 4 min without a sign of life, with job order-17"]
    {
        assert!(html.contains(shown), "{shown} is missing in\n{html}");
    }
    let html = of_type(view.clone(), 61_000);
    for shown in [
        "restarts: 12, the last 60 s ago: it broke",
        "12 · 340 ms · 5.6 s",
        "stuck for 5 min",
        "process 4711 · 64 MiB",
        "<a href=\"/jobs/order-17\"><code>order-17</code></a> for 5 min and 2 more",
        " open>",
    ] {
        assert!(html.contains(shown), "{shown} is missing in\n{html}");
    }
    let failing =
        FailingView { reason: "no".to_owned(), since_ms: 1000, tries: 7, next_try_ms: Some(3000), none_up: true };
    view.types[0].versions[0].workers.clear();
    view.types[0].versions[0].failing = Some(failing);
    view.types[0].versions[0].reason = Some("no".to_owned());
    let html = first(view, 61_000);
    for shown in [
        ", failing</span>",
        "v1 failing for 60 s, tried 7 times, again in 3 s",
        "press</a> v1 is failing: no; its jobs wait; tried 7 times, again",
    ] {
        assert!(html.contains(shown), "{shown} is missing in\n{html}");
    }
    assert!(!html.contains("needs a look"), "{html}");
}
