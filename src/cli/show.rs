//! Looking at a running biotope, and changing single jobs of it.

use std::io::Write as _;

use axum::http::Method;
use serde_json::Value;

use super::client::{Client, escape, whole};
use super::print;
use crate::exit::{Failure, UNAVAILABLE, USAGE};
use crate::figures::{in_short, moment, took};
use crate::wording;

/// Jobs that are asked for at once.
const PAGE: usize = 1000;

pub(super) fn get(client: &Client, path: &str) -> Result<Value, Failure> {
    let (_, text) = client.ask(Method::GET, path, whole(""))?;
    json(&text)
}

pub(super) fn json(text: &[u8]) -> Result<Value, Failure> {
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
        let page = get(client, &format!("/v1/jobs?limit={}{query}{after}", left.min(PAGE)))?;
        let jobs = list_of(&page, "jobs");
        for job in jobs {
            if as_json {
                print(&job.to_string())?;
            } else {
                let when = job.get("ended_at").or(job.get("created_at")).and_then(Value::as_str).unwrap_or("-");
                let error = job.get("error").and_then(Value::as_str).map(in_short);
                let line = format!("{}  {:<9}  {}  {when}", text(job, "id"), text(job, "state"), text(job, "type"));
                print(&error.map_or_else(|| line.clone(), |error| format!("{line}  {error}")))?;
            }
        }
        left = left.saturating_sub(jobs.len());
        cursor = page.get("next_cursor").and_then(Value::as_str).map(str::to_owned);
        let Some(more) = &cursor else { return Ok(()) };
        if left == 0 {
            drop(writeln!(std::io::stderr(), "there may be more: --cursor {more}"));
            return Ok(());
        }
    }
}

pub(super) fn job(client: &Client, id: &str) -> Result<(), Failure> {
    let job = get(client, &format!("/v1/jobs/{}", escape(id)))?;
    print(&serde_json::to_string_pretty(&job).unwrap_or_else(|_| job.to_string()))
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
                let job = json(&answer)?;
                print(&format!("{}  {}", text(&job, "id"), text(&job, "state")))?;
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
    print(&format!("{} retried", count(&json(&answer)?, "retried")))
}

pub(super) fn purge(client: &Client, worker_type: &str) -> Result<(), Failure> {
    let (_, answer) = client.ask(Method::POST, &format!("/v1/types/{}/purge", escape(worker_type)), whole(""))?;
    print(&format!("{} purged", count(&json(&answer)?, "purged")))
}

/// Says something about a type's rollover, and prints what stands then.
pub(super) fn rollout(client: &Client, worker_type: &str, word: &str) -> Result<(), Failure> {
    let path = format!("/v1/types/{}/{word}", escape(worker_type));
    let (_, answer) = client.ask(Method::POST, &path, whole(""))?;
    let view = json(&answer)?;
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
