//! Looking at a running biotope, and changing single jobs of it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use axum::http::Method;
use serde_json::Value;

use super::client::{Client, escape, whole};
use super::print;
use crate::config::units;
use crate::engine::view::DAMAGE_REMEDY;
use crate::exit::{Failure, PARTIAL, UNAVAILABLE};

/// A reload that is waited for may drain for as long as the config says.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(630);
/// Jobs that are asked for at once.
const PAGE: usize = 1000;

fn get(client: &Client, path: &str) -> Result<Value, Failure> {
    let (_, text) = client.ask(Method::GET, path, whole(""))?;
    json(&text)
}

fn json(text: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(text)
        .map_err(|error| Failure::new(UNAVAILABLE, format!("the answer is no answer of biotope's: {error}")))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or("-")
}

fn count(value: &Value, key: &str) -> u64 {
    value.get(key).and_then(Value::as_u64).unwrap_or(0)
}

fn list_of<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

pub(super) fn status(client: &Client, as_json: bool) -> Result<(), Failure> {
    if as_json {
        let (_, answer) = client.ask(Method::GET, "/v1/ecosystem", whole(""))?;
        return print(&String::from_utf8_lossy(&answer));
    }
    let view = get(client, "/v1/ecosystem")?;
    let mut rows = vec![
        ["TYPE", "VERSION", "READY", "AT WORK", "DELAYED", "PARKED", "DEAD", "COMPLETED", "FAILED"].map(str::to_owned),
    ];
    for of_type in list_of(&view, "types") {
        let versions: Vec<String> = list_of(of_type, "versions")
            .iter()
            .filter(|version| !matches!(text(version, "state"), "retired"))
            .map(|version| format!("{} {}", text(version, "version"), text(version, "state")))
            .collect();
        let mut versions = if versions.is_empty() { "-".to_owned() } else { versions.join(", ") };
        if of_type.get("paused").and_then(Value::as_bool) == Some(true) {
            versions.push_str(", paused");
        }
        let counts = ["ready", "reserved", "delayed", "parked", "dead", "completed", "failed"];
        let [ready, reserved, delayed, parked, dead, completed, failed] =
            counts.map(|key| count(of_type, key).to_string());
        let name = text(of_type, "type").to_owned();
        rows.push([name, versions, ready, reserved, delayed, parked, dead, completed, failed]);
    }
    print(&table(&rows, 2))?;
    for of_type in list_of(&view, "types") {
        if let Some(scale) = of_type.get("scale") {
            let [workers, min, max] = ["workers", "min", "max"].map(|key| count(scale, key));
            print(&format!(
                "{}: {workers} workers ({min} to {max}): {}",
                text(of_type, "type"),
                text(scale, "reason")
            ))?;
        }
    }
    for of_type in list_of(&view, "types").iter().filter(|of_type| count(of_type, "retries_held_ms") > 0) {
        let held = units::show_duration(Duration::from_secs(count(of_type, "retries_held_ms").div_ceil(1000)));
        print(&format!("{}: retries come {held} later: more than retry_budget lets go", text(of_type, "type")))?;
    }
    let (log, generation) = (view.get("log").unwrap_or(&Value::Null), view.get("generation").unwrap_or(&Value::Null));
    print(&format!(
        "log: sync {}, {} MiB on disk · config: generation {}, {}",
        text(log, "sync"),
        count(log, "disk_bytes") >> 20,
        count(generation, "number"),
        text(generation, "state")
    ))?;
    for place in list_of(log, "damaged") {
        print(&format!("log: {}; {DAMAGE_REMEDY}", text(place, "what")))?;
    }
    let history = view.get("history").and_then(|history| history.get("reason"));
    for (what, value) in [("log", log.get("full")), ("history", history), ("config", generation.get("last_error"))] {
        if let Some(trouble) = value.and_then(Value::as_str) {
            print(&format!("{what}: {trouble}"))?;
        }
    }
    Ok(())
}

/// Columns as wide as their widest cell; those from `numbers` on are set to the right.
fn table<const N: usize>(rows: &[[String; N]], numbers: usize) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut shown = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (width, cell)) in widths.iter().zip(row).enumerate() {
            // Writing into a string has no way to fail.
            let _: std::fmt::Result =
                if column < numbers { write!(line, "{cell:<width$}  ") } else { write!(line, "{cell:>width$}  ") };
        }
        shown.push_str(line.trim_end());
        shown.push('\n');
    }
    shown.pop();
    shown
}

pub(super) fn reload(client: &Client, wait: bool) -> Result<(), Failure> {
    let path = if wait { "/v1/reload?wait=true" } else { "/v1/reload" };
    let (_, answer) = client.ask_within(RELOAD_TIMEOUT, Method::POST, path, whole(""))?;
    if !wait {
        return print("accepted; `biotope status` or the page show how it goes");
    }
    let verdict = json(&answer)?;
    for of_type in list_of(&verdict, "types") {
        let mut line = format!("{}: {}", text(of_type, "type"), text(of_type, "change").replace('_', " "));
        for (word, key) in [("from", "from"), ("to", "to"), ("because", "reason")] {
            if let Some(value) = of_type.get(key).and_then(Value::as_str) {
                let _: std::fmt::Result = write!(line, " {word} {value}");
            }
        }
        print(&line)?;
    }
    let word = text(&verdict, "verdict");
    print(&format!("generation {}: {word}", count(&verdict, "generation")))?;
    if word == "partial" {
        return Err(Failure::new(PARTIAL, "at least one version could not start; what ran before goes on"));
    }
    Ok(())
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
                let error = job.get("error").and_then(Value::as_str).and_then(|error| error.lines().next());
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

pub(super) fn purge(client: &Client, worker_type: &str) -> Result<(), Failure> {
    let (_, answer) = client.ask(Method::POST, &format!("/v1/types/{}/purge", escape(worker_type)), whole(""))?;
    print(&format!("{} purged", count(&json(&answer)?, "purged")))
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
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["A", "N"], ["long", "7"], ["b", "123"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows, 1), "A       N\nlong    7\nb     123");
    }
}
