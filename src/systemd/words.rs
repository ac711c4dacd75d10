//! How it stands, in one line for `systemctl status`: what is served, how many jobs wait, what is on its way out or in, and
//! what somebody should look at.

use crate::engine::view::{BinaryView, EcosystemView, TypeView};
use crate::figures::counted;

/// Versions that are named, at most; the others are counted.
const NAMED_MAX: usize = 3;
/// States of versions that are told of, and the words for them.
const STATES: [(&str, &str); 4] =
    [("starting", "starting"), ("gating", "on trial"), ("ramping", "on trial"), ("draining", "draining")];

/// How it stands with what lives here; `place`: where it is served.
pub(super) fn words(place: &str, seen: &EcosystemView, binary: &BinaryView) -> String {
    let count = |of: fn(&TypeView) -> u64| seen.types.iter().map(of).sum::<u64>();
    let (waiting, running) = (count(|of| of.ready + of.delayed + of.parked), count(|of| of.reserved));
    let mut said = Vec::new();
    if seen.stopping {
        let runs = if running == 1 { "job still runs" } else { "jobs still run" };
        said.push(format!("stopping: {running} {runs}, {waiting} wait for the next start"));
    } else {
        let types = counted(seen.types.iter().filter(|of| of.configured).count() as u64, "worker type");
        said.push(format!(
            "serves {place}: {types}, {waiting} waiting, {running} running, {} dead",
            count(|of| of.dead)
        ));
    }
    // In a stop, all of them go.
    let states = if seen.stopping { &[][..] } else { &STATES };
    said.extend(states.iter().filter_map(|(state, verb)| versions(seen, state, verb)));
    if binary.state == "draining" {
        said.push("a new binary takes over when what runs has ended".to_owned());
    }
    if let Some(why) = &binary.last_error {
        said.push(format!("the binary was not replaced: {}", first_line(why)));
    }
    if let Some(why) = &seen.generation.last_error {
        said.push(format!("the config was refused, what ran goes on: {}", first_line(why)));
    }
    if let Some(full) = &seen.log.full {
        said.push(format!("refuses jobs: {full}"));
    }
    if !seen.log.damaged.is_empty() {
        said.push("the log is damaged".to_owned());
    }
    said.join("; ")
}

/// Versions in a state, by name.
fn versions(seen: &EcosystemView, state: &str, verb: &str) -> Option<String> {
    let of_type = |of: &TypeView| -> Vec<String> {
        let there = of.versions.iter().filter(|version| version.state == state);
        there.map(|version| format!("{} {}", of.worker_type, version.version)).collect()
    };
    let mut names: Vec<String> = seen.types.iter().flat_map(of_type).collect();
    let more = names.len().saturating_sub(NAMED_MAX);
    names.truncate(NAMED_MAX);
    if more > 0 {
        names.push(format!("{more} more"));
    }
    (!names.is_empty()).then(|| format!("{verb}: {}", names.join(", ")))
}

/// The first line of a text that says something: problems of a config are shown over several.
fn first_line(text: &str) -> &str {
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default()
}
