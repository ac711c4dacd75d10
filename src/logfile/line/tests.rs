//! Lines with whatever may be in them, read back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

use super::*;

const AT: UnixMs = 1_795_682_361_970;
const HOSTILE: &str = "a \"b\"=\\\nlevel=error msg=\"forged\"\r\n{\"level\":\"error\"} \u{1b}[31m\u{1b}]0;t\u{7}\t\u{9b}\u{7f}\0\u{202e}\u{2028}\u{e0041}\u{fffd} ä 漢 \u{1f600}";

/// Gathers what is said, in one look.
#[derive(Clone)]
struct Gather(Look, Arc<Mutex<String>>);

impl<S: Subscriber> Layer<S> for Gather {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut line = Line::new(*metadata.level(), Some(metadata.target()).filter(|target| *target == "audit"));
        event.record(&mut line);
        self.1.lock().unwrap().push_str(&line.shown(self.0, AT));
    }
}

/// What is written of what `says` says.
fn said(format: LogFormat, stderr: Stderr, says: impl FnOnce()) -> String {
    let gather = Gather(Look::new(format, stderr), Arc::default());
    let subscriber = tracing_subscriber::registry().with(gather.clone());
    tracing::subscriber::with_default(subscriber, says);
    gather.1.lock().unwrap().clone()
}

fn samples() {
    let absent: Option<&str> = None;
    tracing::info!(generation = 2, verdict = "ok", ok = true, share = 0.5, nan = f64::NAN, absent, "settled");
    let path = std::path::Path::new(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"a\xFF\n\x1b[0m"));
    tracing::warn!(job = "x", said = HOSTILE, error = %HOSTILE, shown = ?HOSTILE, path = %path.display(), "{HOSTILE}");
    tracing::info!(target: "audit", who = "", "");
}

/// A strict reader of logfmt: names, and values plain or in quotes as JSON has them. Panics where it is none.
fn read_logfmt(line: &str) -> BTreeMap<String, String> {
    let mut rest = line;
    let mut read = BTreeMap::new();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=').unwrap_or_else(|| panic!("{rest:?} of {line:?}"));
        assert!(!name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name:?} in {line:?}");
        let value;
        if after.starts_with('"') {
            let mut values = serde_json::Deserializer::from_str(after).into_iter::<String>();
            value = values.next().unwrap().unwrap_or_else(|error| panic!("{error}: {after:?}"));
            rest = &after[values.byte_offset()..];
        } else {
            let end = after.find(' ').unwrap_or(after.len());
            assert!(end > 0 && !after[..end].contains(['"', '=']), "{after:?}");
            value = after[..end].to_owned();
            rest = &after[end..];
        }
        assert!(read.insert(name.to_owned(), value).is_none(), "{name} twice in {line:?}");
        assert!(rest.is_empty() || rest.starts_with(' '), "{rest:?} of {line:?}");
        rest = rest.strip_prefix(' ').unwrap_or(rest);
    }
    read
}

/// No more than its line ends does anything to a terminal.
fn is_harmless(text: &str) -> bool {
    text.chars().all(|c| c == '\n' || !is_unfit(c))
}

#[test]
fn logfmt_says_what_was_said_whatever_that_is() {
    let text = said(LogFormat::Auto, Stderr::Elsewhere, samples);
    let lines: Vec<&str> = text.lines().collect();
    let [settled, hostile, audit] = lines[..] else { panic!("{text:?}") };
    assert_eq!(
        settled,
        "ts=2026-11-26T08:39:21.970Z level=info msg=settled generation=2 verdict=ok ok=true share=0.5 nan=NaN"
    );
    let read = read_logfmt(hostile);
    for key in ["msg", "said", "error"] {
        assert_eq!(read[key], HOSTILE, "{key}");
    }
    assert_eq!((read["level"].as_str(), read["shown"].as_str()), ("warn", format!("{HOSTILE:?}").as_str()));
    assert_eq!(read["path"], "a\u{fffd}\n\u{1b}[0m");
    assert_eq!(audit, "ts=2026-11-26T08:39:21.970Z level=info target=audit msg=\"\" who=\"\"");
    assert!(is_harmless(&text), "{text:?}");
}

#[test]
fn json_says_what_was_said_whatever_that_is() {
    let text = said(LogFormat::Json, Stderr::Elsewhere, samples);
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let settled = serde_json::json!({
        "ts": "2026-11-26T08:39:21.970Z", "level": "info", "msg": "settled",
        "generation": 2, "verdict": "ok", "ok": true, "share": 0.5, "nan": "NaN",
    });
    assert_eq!((lines.len(), &lines[0]), (3, &settled));
    for key in ["msg", "said", "error"] {
        assert_eq!(lines[1][key], HOSTILE, "{key}");
    }
    assert_eq!((&lines[1]["level"], &lines[1]["path"]), (&"warn".into(), &"a\u{fffd}\n\u{1b}[0m".into()));
    assert_eq!((&lines[2]["target"], &lines[2]["who"]), (&"audit".into(), &"".into()));
    assert!(is_harmless(&text), "{text:?}");
}

#[test]
fn people_get_one_line_each_with_colours_of_ours_alone() {
    let text = said(LogFormat::Text, Stderr::Elsewhere, samples);
    assert_eq!(text.lines().count(), 3, "{text:?}");
    assert!(text.starts_with("2026-11-26T08:39:21.970Z  INFO settled generation=2 verdict=ok"), "{text:?}");
    assert!(text.contains("\n2026-11-26T08:39:21.970Z  WARN a \"b\"=\\\\nlevel=error"), "{text:?}");
    assert!(text.contains("INFO audit: who=\"\"\n"), "{text:?}");
    assert!(is_harmless(&text), "{text:?}");
    let on_terminal = said(LogFormat::Auto, Stderr::Terminal, samples);
    let ours = ["\u{1b}[0m", "\u{1b}[2m", "\u{1b}[32m", "\u{1b}[33m"];
    let plain = ours.iter().fold(on_terminal.clone(), |text, ours| text.replace(ours, ""));
    assert!(on_terminal.contains("\u{1b}[33m WARN\u{1b}[0m"), "{on_terminal:?}");
    assert_eq!(plain, text);
}

#[test]
fn the_problems_of_a_config_are_lines_for_people_and_one_line_for_programs() {
    let says = || tracing::error!(lines = %"error: bad\n  --> b.toml:1:1\n\u{1b}[2J", "not accepted");
    assert_eq!(
        said(LogFormat::Text, Stderr::Elsewhere, says),
        "2026-11-26T08:39:21.970Z ERROR not accepted\n    | error: bad\n    |   --> b.toml:1:1\n    | \\u001b[2J\n"
    );
    assert_eq!(
        said(LogFormat::Auto, Stderr::Journal, says),
        "<3>level=error msg=\"not accepted\" lines=\"error: bad\\n  --> b.toml:1:1\\n\\u001b[2J\"\n"
    );
}

#[test]
fn the_journal_gets_each_level_in_front_of_its_line() {
    let says = || {
        tracing::error!("e");
        tracing::warn!("w");
        tracing::info!("i");
        tracing::debug!("d");
        tracing::trace!("t");
    };
    let text = said(LogFormat::Text, Stderr::Journal, says);
    assert_eq!(text, "<3>ERROR e\n<4> WARN w\n<6> INFO i\n<7>DEBUG d\n<7>TRACE t\n");
    let json = said(LogFormat::Json, Stderr::Journal, || tracing::warn!("w"));
    assert_eq!(json, "<4>{\"ts\":\"2026-11-26T08:39:21.970Z\",\"level\":\"warn\",\"msg\":\"w\"}\n");
    let logfmt = said(LogFormat::Auto, Stderr::Journal, || tracing::warn!("w"));
    assert_eq!(logfmt, "<4>level=warn msg=w\n");
}

proptest! {
    #[test]
    fn any_text_comes_back(text in "(?s).{0,40}") {
        let says = || tracing::info!(text = text.as_str(), "{}", text);
        let logfmt = said(LogFormat::Logfmt, Stderr::Elsewhere, says);
        let read = read_logfmt(logfmt.strip_suffix('\n').unwrap());
        prop_assert_eq!((&read["msg"], &read["text"]), (&text, &text));
        let json = said(LogFormat::Json, Stderr::Elsewhere, says);
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        prop_assert_eq!((&read["msg"], &read["text"]), (&text.as_str().into(), &text.as_str().into()));
        let people = said(LogFormat::Text, Stderr::Elsewhere, says);
        for shown in [logfmt, json, people] {
            prop_assert!(shown.matches('\n').count() == 1 && is_harmless(&shown), "{:?}", shown);
        }
    }
}
