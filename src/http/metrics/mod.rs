//! `GET /metrics`: figures for a monitoring system, in the text format of Prometheus, or in OpenMetrics for who asks for it.
//!
//! Owns the names of the figures; docs/monitoring.md lists them. Labels are types, versions, states and outcomes, and never
//! what there may be millions of: jobs, tenants, errors. Counts nothing itself.

mod family;

use std::fmt;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::registry::{Registry, Unit};

use super::problem::Problem;
use super::{App, answer};
use crate::engine::view::{EcosystemView, LogView, MeasuresView, TypeView, VersionView};
use crate::measure::{Histogram, Runs};
use family::{Families, Scale};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) async fn metrics(State(app): State<App>, headers: HeaderMap) -> Result<Response, Problem> {
    let view = answer(&app.handle, |then| app.handle.measures(then)).await??;
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    let openmetrics = accepted.flat_map(|accept| accept.split(',')).any(is_openmetrics);
    let kind = if openmetrics { OPENMETRICS } else { prometheus_text::CONTENT_TYPE };
    let text = render(&view, openmetrics).map_err(|_| Problem::bug("the figures could not be written"))?;
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(kind))], text).into_response())
}

/// Whether a media range of an `Accept` header is that of OpenMetrics, and wanted at all.
fn is_openmetrics(range: &str) -> bool {
    let mut parts = range.split(';').map(str::trim);
    let named = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/openmetrics-text"));
    let refused = |part: &str| part.strip_prefix("q=").is_some_and(|weight| weight.parse() == Ok(0.0));
    named && !parts.any(refused)
}

fn render(view: &MeasuresView, openmetrics: bool) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("biotope");
    registry.register_collector(Box::new(families(view)));
    let mut out = String::new();
    match openmetrics {
        true => text::encode(&mut out, &registry)?,
        false => prometheus_text::encode(&mut out, &registry)?,
    }
    Ok(out)
}

fn families(view: &MeasuresView) -> Families {
    let mut to = Families::default();
    process(&mut to, &view.ecosystem);
    log(&mut to, &view.ecosystem.log);
    to.histogram(
        "log_sync",
        "How long a sync of the log took",
        Some(Unit::Seconds),
        &[],
        &view.syncs.took,
        Scale::Micro,
    );
    let records = &view.syncs.records;
    to.histogram("log_group_records", "Records that one sync made durable", None, &[], records, Scale::One);
    for of_type in &view.ecosystem.types {
        jobs(&mut to, of_type);
        for of_version in &of_type.versions {
            version(&mut to, of_type.worker_type.as_str(), of_version);
        }
    }
    for of in &view.versions {
        runs(&mut to, of.worker_type.as_str(), &of.version, &of.runs);
    }
    to
}

fn process(to: &mut Families, view: &EcosystemView) {
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    to.gauge("build_info", "The program that runs; always 1", None, &version, 1.0);
    to.gauge("start_time", "When this process began to serve", Some(Unit::Seconds), &[], seconds(view.started_at_ms));
    to.gauge("stopping", "Whether the process is stopping", None, &[], truth(view.stopping));
    let generation = &view.generation;
    let help = "Whether the newest config that was to be taken over was accepted";
    to.gauge("config_last_reload_success", help, None, &[], truth(generation.last_error.is_none()));
    let help = "When a config was last accepted";
    let at = seconds(generation.accepted_at_ms);
    to.gauge("config_last_reload_success_timestamp", help, Some(Unit::Seconds), &[], at);
    to.gauge("config_generation", "Number of the config that was accepted last", None, &[], generation.number as f64);
    let help = "Whether a version of that config did not come to serve";
    to.gauge("config_partial", help, None, &[], truth(generation.state == "partial"));
}

fn log(to: &mut Families, log: &LogView) {
    to.gauge("log_live", "Records of live jobs", Some(Unit::Bytes), &[], log.live_bytes as f64);
    to.gauge(
        "log_used",
        "What the log takes on disk, spare segments included",
        Some(Unit::Bytes),
        &[],
        log.disk_bytes as f64,
    );
    to.gauge("log_full", "Whether new jobs are refused for want of space", None, &[], truth(log.full.is_some()));
    let help = "Segments of the log in which damage was found";
    to.gauge("log_damaged_segments", help, None, &[], log.damaged.len() as f64);
    to.counter("log_commits", "Frames that were written to the log", None, &[], log.commits);
    to.counter("log_written", "What was written to the log", Some(Unit::Bytes), &[], log.written_bytes);
    let help = "One past the last record that is durable";
    to.gauge("log_durable_up_to", help, None, &[], log.durable_up_to as f64);
}

fn jobs(to: &mut Families, of: &TypeView) {
    let name = of.worker_type.as_str();
    let states = [
        ("ready", of.ready),
        ("delayed", of.delayed),
        ("reserved", of.reserved),
        ("parked", of.parked),
        ("dead", of.dead),
    ];
    for (state, count) in states {
        to.gauge("jobs", "Live jobs, by state", None, &[("type", name), ("state", state)], count as f64);
    }
    let of_type = [("type", name)];
    let help = "For how long the oldest ready job could have been run";
    to.gauge("oldest_ready_age", help, Some(Unit::Seconds), &of_type, seconds(of.oldest_ms));
    to.counter("jobs_enqueued", "Jobs enqueued since the data directory was made", None, &of_type, of.enqueued);
    let ends = [
        ("completed", of.completed),
        ("cancelled", of.cancelled),
        ("expired", of.expired),
        ("discarded", of.discarded),
    ];
    for (outcome, count) in ends {
        let labels = [("type", name), ("outcome", outcome)];
        to.counter("jobs_ended", "Jobs ended since the data directory was made, by how", None, &labels, count);
    }
    let help = "Attempts failed since the data directory was made";
    to.counter("attempts_failed", help, None, &of_type, of.failed);
    to.gauge("paused", "Whether the type is paused", None, &of_type, truth(of.paused));
    to.gauge("storm", "Whether nearly all of it fails while a version is on trial", None, &of_type, truth(of.storm));
    let help = "How much later than by its backoff a retry comes, for want of budget";
    to.gauge("retries_held", help, Some(Unit::Seconds), &of_type, seconds(of.retries_held_ms));
}

fn version(to: &mut Families, name: &str, of: &VersionView) {
    let labels = [("type", name), ("version", of.version.as_str())];
    let state = [("type", name), ("version", of.version.as_str()), ("state", of.state)];
    to.gauge("version_state", "Versions that are shown, 1 each, by state", None, &state, 1.0);
    let share = f64::from(of.percent) / 100.0;
    to.gauge(
        "version_share",
        "Share of new work that goes to a version",
        Some(Unit::Other("ratio".to_owned())),
        &labels,
        share,
    );
    to.gauge("workers", "Workers that a version has", None, &labels, f64::from(of.pool_size));
    to.gauge("jobs_held", "Jobs that the workers of a version hold", None, &labels, of.busy as f64);
    let failing = truth(of.failing.is_some());
    to.gauge("version_failing", "Whether its workers break, or cannot be started", None, &labels, failing);
    let stuck = of.workers.iter().filter(|worker| worker.stuck).count();
    to.gauge("workers_stuck", "Workers that are past the time they have", None, &labels, stuck as f64);
    if of.pool_size > 0 {
        let help = "Times that a worker had to be started again";
        to.counter("worker_restarts", help, None, &labels, of.restarts);
    }
}

fn runs(to: &mut Families, name: &str, version: &str, runs: &Runs) {
    for (outcome, count) in runs.ended() {
        let labels = [("type", name), ("version", version), ("outcome", outcome)];
        to.counter("runs", "Runs that ended in this process, by how", None, &labels, count);
    }
    let labels = [("type", name), ("version", version)];
    let mut times =
        |name, help, of: &Histogram| to.histogram(name, help, Some(Unit::Seconds), &labels, of, Scale::Micro);
    times("run", "How long runs took", &runs.took);
    times("wait", "For how long jobs had been due when their runs began", &runs.waited);
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

fn truth(is: bool) -> f64 {
    f64::from(u8::from(is))
}
