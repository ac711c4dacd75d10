//! Looking at a running biotope, and changing single jobs of it.

use std::io::Write as _;

use axum::http::Method;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::client::{Client, escape, whole};
use super::print;
use crate::exit::{Failure, UNAVAILABLE, USAGE};
use crate::figures::{in_short, moment, took};
use crate::wording;

/// Jobs that are asked for at once.
const PAGE: usize = 1000;
/// Levels that are indented.
const INDENTED_MAX: usize = 50;

/// As much of a job as is told in a line. Its payload and its result may be JSON that not everybody can read: numbers without
/// end, halves of characters, more levels than a parser takes. They are shown as they are.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct InLine {
    id: String,
    #[serde(rename = "type")]
    worker_type: String,
    state: String,
    created_at: String,
    ended_at: Option<String>,
    error: Option<String>,
}

/// A page of a listing.
#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    jobs: Vec<&'a RawValue>,
    next_cursor: Option<String>,
}

pub(super) fn get(client: &Client, path: &str) -> Result<Value, Failure> {
    let (_, text) = client.ask(Method::GET, path, whole(""))?;
    json(&text)
}

pub(super) fn json<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, Failure> {
    serde_json::from_slice(text)
        .map_err(|error| Failure::new(UNAVAILABLE, format!("the answer is no answer of biotope's: {error}")))
}

pub(super) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or("-")
}

pub(super) fn count(value: &Value, key: &str) -> u64 {
    value.get(key).and_then(Value::as_u64).unwrap_or(0)
}

pub(super) fn list_of<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

pub(super) fn list(
    client: &Client,
    filter: Vec<(&str, &str)>,
    limit: usize,
    mut cursor: Option<String>,
    as_json: bool,
) -> Result<(), Failure> {
    let mut left = if limit == 0 { usize::MAX } else { limit };
    let query: String = filter.iter().map(|(key, value)| format!("&{key}={}", escape(value))).collect();
    loop {
        let after = cursor.as_ref().map_or_else(String::new, |cursor| format!("&cursor={}", escape(cursor)));
        let path = format!("/v1/jobs?limit={}{query}{after}", left.min(PAGE));
        let (_, answer) = client.ask(Method::GET, &path, whole(""))?;
        let page: Page<'_> = json(&answer)?;
        for job in &page.jobs {
            print(&if as_json { job.get().to_owned() } else { json::<InLine>(job.get().as_bytes())?.line() })?;
        }
        left = left.saturating_sub(page.jobs.len());
        cursor = page.next_cursor;
        let Some(more) = &cursor else { return Ok(()) };
        if left == 0 {
            drop(writeln!(std::io::stderr(), "there may be more: --cursor {more}"));
            return Ok(());
        }
    }
}

impl InLine {
    fn line(&self) -> String {
        let Self { id, worker_type, state, created_at, ended_at, error } = self;
        let line = format!("{id}  {state:<9}  {worker_type}  {}", ended_at.as_ref().unwrap_or(created_at));
        error.as_ref().map_or_else(|| line.clone(), |error| format!("{line}  {}", in_short(error)))
    }
}

pub(super) fn job(client: &Client, id: &str) -> Result<(), Failure> {
    let (_, answer) = client.ask(Method::GET, &format!("/v1/jobs/{}", escape(id)), whole(""))?;
    print(&indented(json::<&RawValue>(&answer)?.get()))
}

/// A JSON text on several lines, its values as they are written.
fn indented(text: &str) -> String {
    let mut out = String::with_capacity(2 * text.len());
    let (mut depth, mut before, mut in_string, mut escaped) = (0_usize, ' ', false, false);
    for letter in text.chars() {
        if in_string {
            in_string = escaped || letter != '"';
            escaped = !escaped && letter == '\\';
            out.push(letter);
            continue;
        }
        if letter.is_ascii_whitespace() {
            continue;
        }
        let (opened, closes) = (matches!(before, '{' | '['), matches!(letter, '}' | ']'));
        depth = depth.saturating_sub(usize::from(closes));
        let begins_a_line = if closes { !opened } else { opened || before == ',' };
        if begins_a_line {
            out.push('\n');
            out.extend(std::iter::repeat_n("  ", depth.min(INDENTED_MAX)));
        }
        out.push(letter);
        if letter == ':' {
            out.push(' ');
        }
        depth += usize::from(matches!(letter, '{' | '['));
        in_string = letter == '"';
        before = letter;
    }
    out
}

/// What became of a job.
pub(super) fn steps(client: &Client, id: &str) -> Result<(), Failure> {
    let timeline = get(client, &format!("/v1/jobs/{}/timeline", escape(id)))?;
    if timeline.get("whole") != Some(&Value::Bool(true)) {
        drop(writeln!(
            std::io::stderr(),
            "not all of it: some of its records have left the log, or lie far apart in it"
        ));
    }
    for step in list_of(&timeline, "steps") {
        print(&step_line(step))?;
    }
    list_of(&timeline, "enqueued").iter().filter_map(Value::as_str).try_for_each(|id| print(&format!("enqueued {id}")))
}

fn step_line(step: &Value) -> String {
    let mut line = format!("{}  {}", moment(count(step, "at_ms")), wording::step(text(step, "what")));
    if let Some(version) = step.get("version").and_then(Value::as_str) {
        line += &format!(" on {version}");
    }
    if let Some(worker) = step.get("worker").and_then(Value::as_u64) {
        line += &format!(", worker {worker},");
    }
    if let Some(ms) = step.get("took_ms").and_then(Value::as_f64) {
        line += &format!(" after {}", took(&ms));
    }
    for said in step.get("says").and_then(Value::as_str).into_iter().flat_map(str::lines) {
        line += &format!("\n    {said}");
    }
    line
}

/// Why a job is not running now.
pub(super) fn why(client: &Client, id: &str) -> Result<(), Failure> {
    let view = get(client, &format!("/v1/jobs/{}/why", escape(id)))?;
    print(text(&view, "why"))
}

/// Does the same to each; goes on after a refusal, and fails in the end.
pub(super) fn act(client: &Client, ids: &[String], action: &str) -> Result<(), Failure> {
    let mut failed: Option<Failure> = None;
    for id in ids {
        match client.ask(Method::POST, &format!("/v1/jobs/{}/{action}", escape(id)), whole("")) {
            Ok((_, answer)) => {
                let job: InLine = json(&answer)?;
                print(&format!("{}  {}", job.id, job.state))?;
            }
            Err(failure) => {
                if let Some(earlier) = failed.replace(failure) {
                    drop(writeln!(std::io::stderr(), "biotope: {}", earlier.message));
                }
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Has all dead jobs of a type retried that failed last on a version.
pub(super) fn retry_failed(client: &Client, failed_on: &str) -> Result<(), Failure> {
    let Some((worker_type, version)) = failed_on.split_once('@') else {
        let says = format!("--failed-on {failed_on:?}: write a type and one of its versions, like mail@v2");
        return Err(Failure::new(USAGE, says));
    };
    let path = format!("/v1/types/{}/retry?failed_on={}", escape(worker_type), escape(version));
    let (_, answer) = client.ask(Method::POST, &path, whole(""))?;
    print(&format!("{} retried", count(&json::<Value>(&answer)?, "retried")))
}

pub(super) fn purge(client: &Client, worker_type: &str) -> Result<(), Failure> {
    let (_, answer) = client.ask(Method::POST, &format!("/v1/types/{}/purge", escape(worker_type)), whole(""))?;
    print(&format!("{} purged", count(&json::<Value>(&answer)?, "purged")))
}

/// Says something about a type's rollover, and prints what stands then.
pub(super) fn rollout(client: &Client, worker_type: &str, word: &str) -> Result<(), Failure> {
    let path = format!("/v1/types/{}/{word}", escape(worker_type));
    let (_, answer) = client.ask(Method::POST, &path, whole(""))?;
    let view: Value = json(&answer)?;
    print(&format!("{}: {}", text(&view, "type"), text(&view, "done")))?;
    for version in list_of(&view, "versions") {
        let mut line = format!("  {} {}", text(version, "version"), text(version, "state"));
        match count(version, "percent") {
            0 => {}
            percent => line += &format!(", {percent} % of first attempts"),
        }
        print(&line)?;
    }
    match view.get("trial") {
        Some(trial) => print(&format!("  {}", text(trial, "says"))),
        None => Ok(()),
    }
}

pub(super) fn pause(client: &Client, worker_type: &str, paused: bool) -> Result<(), Failure> {
    let verb = if paused { "pause" } else { "resume" };
    client.ask(Method::POST, &format!("/v1/types/{}/{verb}", escape(worker_type)), whole(""))?;
    print(&format!("{worker_type} {verb}d"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_indented_as_it_is_written() {
        for value in [
            serde_json::json!({"a": [], "b": {}, "c": [1, {"d": "x,{\"}:\\", "e": null}], "f": "ä"}),
            serde_json::json!([]),
            serde_json::json!("a: b"),
        ] {
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            assert_eq!(indented(&value.to_string()), pretty);
            assert_eq!(indented(&pretty), pretty);
        }
        let odd = r#"[1e999,12345678901234567890.10,"\ud800"]"#;
        assert_eq!(indented(odd).split_whitespace().collect::<String>(), odd);
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert!(indented(&deep).len() < 30_000_000);
    }

    #[test]
    fn a_listing_shows_jobs_whose_payloads_nobody_else_could_read() {
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        for payload in [r#""\ud800""#, "1e999", &deep] {
            let text =
                format!(r#"{{"jobs":[{{"id":"a","state":"dead","type":"t","payload":{payload}}}],"next_cursor":"7"}}"#);
            let page: Page<'_> = json(text.as_bytes()).unwrap();
            let job: InLine = json(page.jobs[0].get().as_bytes()).unwrap();
            assert_eq!((job.line().as_str(), page.next_cursor.as_deref()), ("a  dead       t  ", Some("7")));
        }
    }
}
