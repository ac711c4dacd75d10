//! `[workers.TYPE]`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::env::{env, env_pass};
use super::section::{Gathered, Section};
use super::{Backoff, ExecConfig, ExecMode, KindConfig, LiveConfig, RetryBudget, units};
use super::{concurrency, confinement, probe, recycle, request, rollout};
use crate::limits::{BATCH_MAX, MAX_ATTEMPTS_MAX, RETRIES_PER_SECOND_MAX, TIMEOUT_MAX_FACTOR};
use crate::types::Label;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
/// A run, a start or a drain takes at least this long to be one.
const SHORTEST: Duration = Duration::from_millis(10);

/// What a worker type's table says, as far as it can be read; what is missing is among the problems.
pub(super) struct Table {
    pub(super) version: Option<Label>,
    pub(super) kind: Option<KindConfig>,
    pub(super) live: LiveConfig,
}

/// Reads the table of the worker type `name`.
pub(super) fn read(gathered: &mut Gathered, mut section: Section<'_>, name: &str, natives: &BTreeSet<String>) -> Table {
    let version = version(gathered, &mut section);
    let kind = read_kind(gathered, &mut section, natives.contains(name));
    let live = live(gathered, &mut section, kind.as_ref());
    section.finish(gathered);
    Table { version, kind, live }
}

fn version(gathered: &mut Gathered, section: &mut Section<'_>) -> Option<Label> {
    let path = section.path_of("version");
    let had = gathered.problems.len();
    let Some((text, span)) = section.text(gathered, "version") else {
        if gathered.problems.len() == had {
            gathered.add(section.span(), format!("`{path}` is missing"), "add version = \"v1\"");
        }
        return None;
    };
    match text.parse() {
        Ok(label) => Some(label),
        Err(bad) => {
            gathered.add(span, format!("`{path}` {bad}"), "write a label like \"v1\" or \"2026-11-24.3\"");
            None
        }
    }
}

fn read_kind(gathered: &mut Gathered, section: &mut Section<'_>, is_native: bool) -> Option<KindConfig> {
    let had = gathered.problems.len();
    let argv = section.texts(gathered, "exec");
    let exec_is_bad = gathered.problems.len() > had;
    let mode = section.parsed(gathered, "mode", ExecMode::PerJob, |text| match text {
        "per-job" => Ok(ExecMode::PerJob),
        "persistent" => Ok(ExecMode::Persistent),
        _ => Err("write \"per-job\" or \"persistent\"".to_owned()),
    });
    let env = env(gathered, section);
    let env_pass = env_pass(gathered, section);
    let dir = section.text(gathered, "dir").map(|(dir, _)| PathBuf::from(dir));
    let confinement = confinement::read(gathered, section);
    let watch = section.texts(gathered, "watch");
    if let (Some((_, span)), None) = (&watch, &argv) {
        let message = format!("`{}` is for programs", section.path_of("watch"));
        gathered.add(span.clone(), message, "leave it out: only a program is made of files");
    }
    let watch = watch.map_or_else(Vec::new, |(patterns, _)| patterns);
    let http_is_there = section.has("http");
    let http = request::http(gathered, section);
    if let (Some((_, span)), true) = (&argv, http_is_there) {
        let message = format!("`{}` has two kinds, `exec` and `http`", section.path());
        gathered.add(span.clone(), message, "leave one of them out");
        return None;
    }
    request::foreign_keys(gathered, section, http_is_there);
    if http_is_there {
        return http.map(KindConfig::Http);
    }
    match argv {
        Some((argv, span)) => {
            if argv.first().is_none_or(String::is_empty) {
                gathered.add(
                    span,
                    format!("`{}` names no program", section.path_of("exec")),
                    "write exec = [\"program\", \"argument\"]",
                );
                return None;
            }
            Some(KindConfig::Exec(ExecConfig { argv, mode, env, env_pass, dir, confinement, watch }))
        }
        None if is_native => Some(KindConfig::Native),
        None => {
            if !exec_is_bad {
                let help = "add exec = [\"program\", \"argument\"], or http = \"https://…\"; biotope itself has no worker of this name";
                gathered.add(section.span(), format!("`{}` has no kind", section.path()), help);
            }
            None
        }
    }
}

fn live(gathered: &mut Gathered, section: &mut Section<'_>, kind: Option<&KindConfig>) -> LiveConfig {
    let usual = LiveConfig::default();
    let (concurrency, target_wait) = concurrency::of_type(gathered, section);
    let batch = section.number(gathered, "batch", usual.batch, 1..=BATCH_MAX);
    let batch_wait = section.duration(gathered, "batch_wait", usual.batch_wait, Duration::ZERO..=MINUTE);
    let timeout = section.duration(gathered, "timeout", usual.timeout, SHORTEST..=7 * DAY);
    let timeout_max = timeout.saturating_mul(TIMEOUT_MAX_FACTOR);
    let timeout_max = section.duration(gathered, "timeout_max", timeout_max, timeout..=70 * DAY);
    let kill_after = section.duration(gathered, "kill_after", usual.kill_after, Duration::ZERO..=60 * MINUTE);
    let start_timeout = section.duration(gathered, "start_timeout", usual.start_timeout, SHORTEST..=10 * MINUTE);
    let probe = probe::read(gathered, section);
    let recycle = recycle::read(gathered, section, kind);
    let attempts = section.number(gathered, "max_attempts", usual.max_attempts.into(), 1..=MAX_ATTEMPTS_MAX.into());
    let backoff = backoff(gathered, section);
    let retry_budget = retry_budget(gathered, section);
    let had = gathered.problems.len();
    let on_dead = section.text(gathered, "on_dead").and_then(|(text, span)| match text.parse() {
        Ok(worker_type) => Some(worker_type),
        Err(bad) if gathered.problems.len() == had => {
            gathered.add(span, format!("the name {text:?} {bad}"), "name a worker type of this file");
            None
        }
        Err(_) => None,
    });
    let rollout = rollout::read(gathered, section);
    let request = request::timeouts(gathered, section);
    LiveConfig {
        concurrency,
        target_wait,
        batch,
        batch_wait,
        timeout,
        timeout_max,
        kill_after,
        start_timeout,
        probe,
        recycle,
        max_attempts: u16::try_from(attempts).unwrap_or(usual.max_attempts),
        backoff,
        retry_budget,
        on_dead,
        rollout,
        request,
    }
}

fn backoff(gathered: &mut Gathered, section: &mut Section<'_>) -> Backoff {
    let mut inner = section.section(gathered, "backoff");
    let usual = Backoff::default();
    let first = inner.duration(gathered, "first", usual.first, Duration::ZERO..=DAY);
    let factor = inner.number(gathered, "factor", usual.factor, 1..=100);
    let max = inner.duration(gathered, "max", usual.max, Duration::ZERO..=30 * DAY);
    if max < first {
        let (first, max) = (units::show_duration(first), units::show_duration(max));
        let message = format!("`{}` is {max:?}, below `first`, which is {first:?}", inner.path_of("max"));
        gathered.add_at(&inner.path_of("max"), message, "raise `max`, or lower `first`");
    }
    inner.finish(gathered);
    Backoff { first, factor, max }
}

fn retry_budget(gathered: &mut Gathered, section: &mut Section<'_>) -> RetryBudget {
    let default = RetryBudget::default();
    let mut inner = section.section(gathered, "retry_budget");
    let percent = inner.parsed(gathered, "share", default.percent, units::percent);
    let min_per_second = inner.number(gathered, "min_per_second", default.min_per_second, 1..=RETRIES_PER_SECOND_MAX);
    inner.finish(gathered);
    RetryBudget { percent, min_per_second }
}
