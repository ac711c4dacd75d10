//! What `biotope status` says of rollovers: what goes on, a line each, and what of it needs a look.

use serde_json::Value;

use super::print;
use super::show::{count, list_of, text};
use crate::clock::{Clock, RealClock};
use crate::exit::Failure;
use crate::figures::{ago, in_short};
use crate::wording::{self, Drain, Trial};

/// A version with its state, and its share where it has a part of the work.
pub(super) fn version(version: &Value) -> String {
    format!("{} {}", text(version, "version"), wording::state(text(version, "state"), count(version, "percent")))
}

/// Why a version is not used, if it is not.
pub(super) fn refused(name: &str, version: &Value) -> Option<String> {
    let (label, why) = (text(version, "version"), text(version, "reason"));
    match (text(version, "state"), is_configured(version)) {
        ("quarantined", true) => Some(wording::withdrawn(name, label, why)),
        ("rejected", true) => Some(wording::rejected(name, label, why)),
        (state @ ("quarantined" | "rejected"), false) => Some(format!("{name} {label} {state}: {}", in_short(why))),
        _ => None,
    }
}

/// Everything about trials, drains and versions that are kept.
pub(super) fn rollovers(view: &Value) -> Result<(), Failure> {
    for of_type in list_of(view, "types") {
        for line in of_type_lines(of_type, RealClock.wall_ms()) {
            print(&line)?;
        }
    }
    partial(view).map_or(Ok(()), |line| print(&line))
}

/// That not all of a config runs, where no version is told of by itself for that.
fn partial(view: &Value) -> Option<String> {
    let generation = view.get("generation")?;
    let mut versions = list_of(view, "types").iter().flat_map(|of_type| list_of(of_type, "versions"));
    let is_told =
        versions.any(|version| is_configured(version) && matches!(text(version, "state"), "quarantined" | "rejected"));
    let is_partial = text(generation, "state") == "partial" && !is_told;
    is_partial.then(|| wording::partial(count(generation, "number")))
}

fn is_configured(version: &Value) -> bool {
    version.get("configured").and_then(Value::as_bool) == Some(true)
}

/// What a reload waits for: versions that start, trials and drains, a line each.
pub(super) fn waited_for(view: &Value) -> Vec<String> {
    let of_type = |of_type| {
        let starts = list_of(of_type, "versions").iter().filter(|of| text(of, "state") == "starting");
        let starts = starts.map(|of| format!("{} {}", text(of_type, "type"), version(of)));
        let trial = trial(of_type).filter(|trial| trial.state != "probation");
        let trial = trial.map(|trial| format!("{}: {}", trial.worker_type, trial.words()));
        starts.chain(trial).chain(drains(of_type, RealClock.wall_ms())).collect::<Vec<_>>()
    };
    list_of(view, "types").iter().flat_map(of_type).collect()
}

/// Versions that finish what they hold.
fn drains(of_type: &Value, now: u64) -> impl Iterator<Item = String> + '_ {
    let drain = move |version| Some((text(version, "version"), drain(version.get("drain")?, now).words()));
    let drains = list_of(of_type, "versions").iter().filter_map(drain);
    drains.map(move |(label, words)| format!("{} {label}: {words}", text(of_type, "type")))
}

fn of_type_lines(of_type: &Value, now: u64) -> Vec<String> {
    let name = text(of_type, "type");
    let mut lines = Vec::new();
    if let Some(trial) = trial(of_type) {
        if of_type.get("storm").and_then(Value::as_bool) == Some(true) {
            lines.push(trial.storm());
        }
        lines.push(if trial.is_suspected() { trial.suspicion() } else { format!("{name}: {}", trial.words()) });
        lines.extend(trial.slowness());
    }
    let no_way_back = of_type.get("no_way_back").and_then(Value::as_str);
    lines.extend(no_way_back.map(|says| wording::no_way_back(name, says)));
    lines.extend(drains(of_type, now));
    for version in list_of(of_type, "versions") {
        let label = text(version, "version");
        if let Some(left) = version.get("warm_for_ms").and_then(Value::as_u64) {
            lines.push(format!("{name} {label}: warm for {} more, a way back", ago(&left)));
        }
    }
    lines
}

fn trial(of_type: &Value) -> Option<Trial<'_>> {
    let trial = of_type.get("trial")?;
    let percent = count(trial, "percent");
    let next = list_of(trial, "steps").iter().filter_map(Value::as_u64).find(|step| *step > percent);
    Some(Trial {
        worker_type: text(of_type, "type"),
        version: text(trial, "version"),
        baseline: text(trial, "baseline"),
        state: text(trial, "state"),
        percent,
        next,
        paused: trial.get("paused").and_then(Value::as_bool) == Some(true),
        stepped_back: trial.get("stepped_back").and_then(Value::as_bool) == Some(true),
        held_for_ms: count(trial, "held_for_ms"),
        samples: count(trial, "samples"),
        samples_missing: count(trial, "samples_missing"),
        beside: trial.pointer("/evidence/baseline/attempts").and_then(Value::as_u64).unwrap_or(0),
        says: text(trial, "says"),
        slower: trial.get("slower").and_then(Value::as_str),
    })
}

fn drain(drain: &Value, now: u64) -> Drain<'_> {
    let known = |key: &str| drain.get(key).and_then(Value::as_u64);
    Drain {
        in_flight: count(drain, "in_flight"),
        for_ms: now.saturating_sub(count(drain, "since_ms")),
        eta_ms: known("eta_ms"),
        cut_off_in_ms: known("cut_off_in_ms"),
        held_up_by: drain.get("held_up_by").map(|held| (text(held, "id"), count(held, "age_ms"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_goes_on_is_told_in_lines() {
        let says = "v2 failed 0 of 63 first attempts that v1 then did";
        let held = json!({"id": "order-17", "age_ms": 90_000});
        let drain =
            json!({"in_flight": 3, "since_ms": 1000, "eta_ms": 4000, "cut_off_in_ms": 240_000, "held_up_by": held});
        let trial = json!({
            "version": "v2", "baseline": "v1", "state": "ramp", "percent": 10, "steps": [1, 10, 50], "paused": false,
            "held_for_ms": 72_000, "samples": 63, "samples_missing": 37, "says": says,
            "slower": "v2 takes longer",
        });
        let of_type = json!({"type": "press", "trial": trial, "versions": [
            {"version": "v0", "state": "draining", "drain": drain},
            {"version": "v1", "state": "warm", "warm_for_ms": 540_000},
        ]});
        let lines = of_type_lines(&of_type, 91_000);
        let alone = json!({"type": "press", "no_way_back": "v1 is gone", "versions": []});
        assert!(of_type_lines(&alone, 0).concat().starts_with("press: v1 is gone; nothing makes up"));
        let ramp =
            format!("press: v2 on a ramp at 10 % (next 50 %), held 72 s more, 37 more first attempts needed; {says}");
        let slower = "press: v2 takes longer; `biotope rollout abort press` withdraws it, if that is too long";
        let drains = "press v0: 3 in flight, draining for 90 s, through in about 4 s, cut off in 4 min; held up by order-17, at it for 90 s";
        assert_eq!(lines, [ramp.as_str(), slower, drains, "press v1: warm for 9 min more, a way back"]);
    }

    #[test]
    fn a_config_is_told_to_run_in_part_where_no_version_is_told_of() {
        let version = |state: &str, configured: bool| json!([{"version": "v2", "state": state, "configured": configured, "reason": "it broke"}]);
        let view = |state, versions| json!({"generation": {"number": 3, "state": state}, "types": [{"type": "press", "versions": versions}]});
        let of = |state, versions| partial(&view(state, versions));
        assert_eq!(of("partial", version("quarantined", true)), None, "its own line says more");
        assert!(of("partial", version("quarantined", false)).unwrap().starts_with("Not all of config generation 3"));
        assert_eq!(of("ok", version("current", true)), None);
    }

    #[test]
    fn a_version_that_is_not_used_is_told_with_its_reason_and_what_to_do() {
        let version = |state: &str, configured: bool| json!({"version": "v2", "state": state, "configured": configured, "reason": "it broke\nhere"});
        let told = |state, configured| refused("press", &version(state, configured)).unwrap_or_default();
        assert!(told("quarantined", true).contains("it broke; put another version in the config"));
        assert!(told("quarantined", true).contains("`biotope rollout resume press`"));
        assert!(told("rejected", true).ends_with("it broke; mend it, then `biotope reload --wait`"));
        assert_eq!(told("quarantined", false), "press v2 quarantined: it broke");
        assert_eq!(told("current", true), "");
    }
}
