//! `biotope status`: what lives, how it fares, and what is wrong, as tables and lines.

use std::fmt::Write as _;
use std::time::Duration;

use axum::http::Method;
use serde_json::Value;

use super::client::{Client, whole};
use super::print;
use super::rollovers;
use super::show::{count, get, list_of, text};
use crate::clock::{Clock, RealClock};
use crate::config::units;
use crate::engine::view::{DAMAGE_REMEDY, DRIFT_REMEDY};
use crate::exit::Failure;
use crate::figures::{ago, bytes, counted, in_short, rate, took};

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
            .map(rollovers::version)
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
    figures(&view)?;
    rollovers::rollovers(&view)?;
    troubles(&view)?;
    sizes(&view)?;
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
    let binary = view.get("binary").and_then(|binary| binary.get("last_error"));
    let config = generation.get("last_error");
    let full = ("log: new jobs are refused", log.get("full"));
    for (what, value) in [full, ("history", history), ("config", config), ("binary", binary)] {
        if let Some(trouble) = value.and_then(Value::as_str) {
            print(&format!("{what}: {trouble}"))?;
        }
    }
    Ok(())
}

/// Each version of each type.
fn versions(view: &Value) -> impl Iterator<Item = (&str, &Value)> {
    list_of(view, "types").iter().flat_map(|of_type| {
        let name = text(of_type, "type");
        list_of(of_type, "versions").iter().map(move |version| (name, version))
    })
}

/// How fast and how well versions work that have done something of late, or that have processes or had to be started again.
fn figures(view: &Value) -> Result<(), Failure> {
    let head = [
        "TYPE", "VERSION", "A SECOND", "FAILED", "RUN P50", "P95", "P99", "WAIT P50", "P95", "P99", "RESTARTS",
        "MEMORY",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    for (name, version) in versions(view) {
        let known = version.get("run_ms").is_some() || version.get("rss_bytes").is_some();
        if !known && count(version, "restarts") == 0 {
            continue;
        }
        let per_second = |key: &str| version.get(key).and_then(Value::as_f64).map_or_else(String::new, |n| rate(&n));
        let of = |what: &str, share: &str| {
            let ms = version.get(what).and_then(|shares| shares.get(share)).and_then(Value::as_f64);
            ms.map_or_else(|| "-".to_owned(), |ms| took(&ms))
        };
        let [run50, run95, run99] = ["p50", "p95", "p99"].map(|share| of("run_ms", share));
        let [wait50, wait95, wait99] = ["p50", "p95", "p99"].map(|share| of("wait_ms", share));
        let memory = version.get("rss_bytes").and_then(Value::as_u64).map_or_else(|| "-".to_owned(), |n| bytes(&n));
        rows.push([
            name.to_owned(),
            text(version, "version").to_owned(),
            per_second("per_second"),
            per_second("failures_per_second"),
            run50,
            run95,
            run99,
            wait50,
            wait95,
            wait99,
            count(version, "restarts").to_string(),
            memory,
        ]);
    }
    if rows.len() == 1 { Ok(()) } else { print(&format!("\n{}\n", table(&rows, 2))) }
}

/// Versions that fail, or do not do all that they should, and workers that are stuck.
fn troubles(view: &Value) -> Result<(), Failure> {
    let since = |at: u64| ago(&RealClock.wall_ms().saturating_sub(at));
    for (name, version) in versions(view) {
        let label = text(version, "version");
        if let Some(failing) = version.get("failing") {
            let next = failing.get("next_try_ms").and_then(Value::as_u64);
            print(&format!(
                "{name} {label} is failing for {}: {}; its jobs wait; tried {} times, {}",
                since(count(failing, "since_ms")),
                in_short(text(failing, "reason")),
                count(failing, "tries"),
                next.map_or_else(|| "now again".to_owned(), |ms| format!("again in {}", ago(&ms))),
            ))?;
        } else if let Some(refused) = rollovers::refused(name, version) {
            print(&refused)?;
        } else if let Some(reason) = version.get("reason").and_then(Value::as_str) {
            print(&format!("{name} {label} {}: {}", text(version, "state"), in_short(reason)))?;
        } else if let Some(last) = version.get("last_restart") {
            let reason = in_short(text(last, "reason"));
            print(&format!("{name} {label}: last restart {} ago: {reason}", since(count(last, "at_ms"))))?;
        }
        if let Some(file) = version.get("drifted").and_then(Value::as_str) {
            print(&format!("{name} {label} is drifted, {file} {DRIFT_REMEDY}"))?;
        }
        for worker in list_of(version, "workers").iter().filter(|worker| worker.get("stuck").is_some()) {
            let held: Vec<&str> = list_of(worker, "jobs").iter().map(|job| text(job, "id")).collect();
            let beat = ago(&count(worker, "beat_ms"));
            print(&format!(
                "{name} {label} has a stuck worker: {beat} without a sign of life, with {}",
                held.join(", ")
            ))?;
        }
    }
    Ok(())
}

/// Sizes that follow their queues, and retries that are held back.
fn sizes(view: &Value) -> Result<(), Failure> {
    for of_type in list_of(view, "types") {
        if let Some(scale) = of_type.get("scale") {
            let [workers, min, max] = ["workers", "min", "max"].map(|key| count(scale, key));
            let workers = counted(workers, "worker");
            print(&format!("{}: {workers} ({min} to {max}): {}", text(of_type, "type"), text(scale, "reason")))?;
        }
    }
    for of_type in list_of(view, "types").iter().filter(|of_type| count(of_type, "retries_held_ms") > 0) {
        let held = units::show_duration(Duration::from_secs(count(of_type, "retries_held_ms").div_ceil(1000)));
        print(&format!("{}: retries come {held} later: more than retry_budget lets go", text(of_type, "type")))?;
    }
    Ok(())
}

/// Columns as wide as their widest cell; those from `numbers` on are set to the right.
pub(super) fn table<const N: usize>(rows: &[[String; N]], numbers: usize) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["A", "N"], ["long", "7"], ["b", "123"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows, 1), "A       N\nlong    7\nb     123");
    }
}
