//! What the page says of rollovers: what goes on, and what of it needs a look; pure.

use crate::engine::view::{DrainView, EcosystemView, TypeView, VersionView};
use crate::types::UnixMs;
use crate::wording::{self, Drain, Trial};

/// Things that go on, and are named in the head of the page; more are only counted.
const NAMED: usize = 4;

/// The version of a type that is on trial.
pub(super) fn trial(of_type: &TypeView) -> Option<Trial<'_>> {
    let trial = of_type.trial.as_ref()?;
    Some(Trial {
        worker_type: of_type.worker_type.as_str(),
        version: &trial.version,
        baseline: &trial.baseline,
        state: trial.state,
        percent: u64::from(trial.percent),
        next: trial.steps.iter().find(|step| **step > trial.percent).map(|step| u64::from(*step)),
        paused: trial.paused,
        stepped_back: trial.stepped_back,
        held_for_ms: trial.held_for_ms.unwrap_or(0),
        samples: trial.samples,
        samples_missing: trial.samples_missing,
        beside: trial.evidence.baseline.attempts,
        says: &trial.says,
        slower: trial.slower.as_deref(),
    })
}

pub(super) fn drain(drain: &DrainView, now: UnixMs) -> Drain<'_> {
    Drain {
        in_flight: drain.in_flight,
        for_ms: now.saturating_sub(drain.since_ms),
        eta_ms: drain.eta_ms,
        cut_off_in_ms: drain.cut_off_in_ms,
        held_up_by: drain.held_up_by.as_ref().map(|held| (held.id.as_str(), held.age_ms)),
    }
}

/// The state of a version in words, with its share.
pub(super) fn state(version: &VersionView) -> String {
    wording::state(version.state, u64::from(version.percent))
}

/// Whether a version is not used for what is known against it: that is told with the reason.
pub(super) fn is_refused(version: &VersionView) -> bool {
    matches!(version.state, "rejected" | "quarantined")
}

/// What needs a look.
pub(super) fn troubles(of_type: &TypeView) -> Vec<String> {
    let name = of_type.worker_type.as_str();
    let mut all = Vec::new();
    for version in of_type.versions.iter().filter(|version| version.configured) {
        let why = version.reason.as_deref().unwrap_or("nothing more is known");
        match version.state {
            "quarantined" => all.push(wording::withdrawn(name, &version.version, why)),
            "rejected" => all.push(wording::rejected(name, &version.version, why)),
            _ => {}
        }
    }
    if let Some(trial) = trial(of_type) {
        if of_type.storm {
            all.push(trial.storm());
        }
        if trial.is_suspected() {
            all.push(trial.suspicion());
        }
        all.extend(trial.slowness());
    }
    all.extend(of_type.no_way_back.as_deref().map(|says| wording::no_way_back(name, says)));
    all
}

/// What goes on and needs nobody, in a line; nothing if nothing does.
pub(super) fn goes_on(view: &EcosystemView) -> Option<String> {
    let all: Vec<String> = view.types.iter().flat_map(of_type_goes_on).collect();
    let more = all.len().saturating_sub(NAMED);
    let named = all.get(..NAMED).unwrap_or(&all).join(" · ");
    match (all.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(named),
        (false, more) => Some(format!("{named} · and {more} more")),
    }
}

fn of_type_goes_on(of_type: &TypeView) -> Vec<String> {
    let name = &of_type.worker_type;
    let trial = trial(of_type).filter(|trial| !trial.is_suspected()).map(|trial| trial.short());
    let rolls = of_type.versions.iter().any(|version| version.state == "current");
    let starts = |version: &&VersionView| rolls && version.state == "starting" && version.failing.is_none();
    let starting = of_type.versions.iter().filter(starts).map(|version| format!("{name} {} starts", version.version));
    let draining = of_type.versions.iter().filter_map(|version| {
        let drain = version.drain.as_ref()?;
        Some(format!("{name} {} drains, {} in flight", version.version, drain.in_flight))
    });
    trial.into_iter().chain(starting).chain(draining).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::view::{HeldView, TrialView};
    use crate::page::tests::{first, view};
    use crate::page::verdict::verdict;
    use crate::rollover::evidence::Evidence;

    /// A type with v1 that does the work and v2 on trial.
    fn on_trial(state: &'static str, percent: u8) -> EcosystemView {
        let mut view = view();
        let of_type = &mut view.types[0];
        let mut second = of_type.versions[0].clone();
        (second.version, second.state, second.percent) = ("v2".to_owned(), "ramping", percent);
        (of_type.versions[0].percent, of_type.versions[0].configured) = (100 - percent, false);
        of_type.versions.push(second);
        of_type.trial = Some(TrialView {
            version: "v2".to_owned(),
            baseline: "v1".to_owned(),
            state,
            percent,
            steps: vec![1, 10, 50],
            paused: false,
            stepped_back: false,
            held_for_ms: Some(72_000),
            samples: 63,
            samples_missing: 37,
            says: "v2 failed 0 of 63 first attempts that v1 then did".to_owned(),
            slower: None,
            evidence: Evidence::ramp().shown(),
        });
        view
    }

    #[test]
    fn a_ramp_is_shown_and_is_no_reason_to_worry() {
        let mut view = on_trial("ramp", 10);
        let seen = verdict(&view);
        assert_eq!((seen.class, seen.reasons.len()), ("ok", 0), "{seen:?}");
        assert_eq!(goes_on(&view).unwrap(), "press v2 on a ramp at 10 %");
        let line = "v2 on a ramp at 10 % (next 50 %), held 72 s more, 37 more first attempts needed; v2 failed 0 of 63";
        let html = first(view.clone(), 61_000);
        for shown in [
            line,
            "<b>v2</b> <span class=\"state\">ramping 10 %",
            "<b>v1</b> <span class=\"state\">current 90 %",
            "width=\"90\"",
            "href=\"/v1/generations\"",
        ] {
            assert!(html.contains(shown), "{shown} is missing in\n{html}");
        }
        assert!(!html.contains("style="), "{html}");
        view.types[0].trial.as_mut().unwrap().state = "probation";
        assert_eq!(verdict(&view).class, "ok");
    }

    #[test]
    fn a_drain_and_a_warm_version_say_how_long_yet() {
        let mut view = view();
        let mut old = view.types[0].versions[0].clone();
        (old.version, old.state, old.warm_for_ms) = ("v0".to_owned(), "warm", Some(540_000));
        let held_up_by = Some(HeldView { id: "order<17>".to_owned(), age_ms: 240_000 });
        let (eta_ms, cut_off_in_ms) = (Some(4000), Some(180_000));
        let drain = DrainView { in_flight: 3, since_ms: 1000, cut_off_in_ms, eta_ms, held_up_by };
        let older = VersionView { version: "v00".to_owned(), state: "draining", warm_for_ms: None, ..old.clone() };
        view.types[0].versions.splice(0..0, [VersionView { drain: Some(drain), ..older }, old]);
        assert_eq!((verdict(&view).class, goes_on(&view).unwrap()), ("ok", "press v00 drains, 3 in flight".to_owned()));
        let html = first(view, 61_000);
        for shown in
            ["<b>v0</b> <span class=\"state\">warm", "v0 stays warm for a way back, 9 min more", "draining</span>"]
        {
            assert!(html.contains(shown), "{shown} is missing in\n{html}");
        }
        let line = "v00: 3 in flight, draining for 60 s, through in about 4 s, cut off in 3 min; held up by order";
        assert!(html.contains(line) && !html.contains("order<17>"), "{html}");
    }

    #[test]
    fn what_was_withdrawn_is_a_warning_as_long_as_the_config_asks_for_it() {
        let mut view = view();
        view.generation.state = "partial";
        let mut bad = view.types[0].versions[0].clone();
        (bad.version, bad.state, bad.percent) = ("v2".to_owned(), "quarantined", 0);
        bad.reason = Some("v2 failed 6 of 8 first attempts that v1 then did".to_owned());
        view.types[0].versions.insert(0, bad);
        let seen = verdict(&view);
        assert_eq!((seen.class, seen.reasons.len()), ("look", 1), "{seen:?}");
        for shown in ["press v2 was withdrawn", "failed 6 of 8", "`biotope rollout resume press`"] {
            assert!(seen.reasons[0].says.contains(shown), "{seen:?}");
        }
        view.types[0].versions[0].state = "rejected";
        assert!(verdict(&view).reasons[0].says.contains("`biotope reload --wait`"), "{:?}", verdict(&view));
        (view.types[0].versions[0].configured, view.types[0].versions[0].state) = (false, "quarantined");
        let seen = verdict(&view);
        assert!(seen.reasons.len() == 1 && seen.reasons[0].says.contains("`biotope generations`"), "{seen:?}");
        view.generation.state = "ok";
        assert_eq!(verdict(&view).class, "ok", "it is history");
        let html = first(view, 61_000);
        assert!(html.contains("<li class=\"said\">v2 quarantined: v2 failed 6 of 8"), "{html}");
    }

    #[test]
    fn a_suspicion_and_a_storm_are_warnings() {
        let mut view = on_trial("suspected", 10);
        let seen = verdict(&view);
        assert_eq!((seen.class, seen.reasons.len(), goes_on(&view)), ("look", 1, None), "{seen:?}");
        assert!(seen.reasons[0].says.contains("`biotope rollout abort press`"), "{seen:?}");
        view.types[0].storm = true;
        let seen = verdict(&view);
        assert!(seen.reasons.len() == 2 && seen.reasons[0].says.contains("`biotope pause press`"), "{seen:?}");
        let html = first(view, 61_000);
        assert!(
            html.contains("badge bad\">storm") && html.contains("<li class=\"warn\">more fails on v2 than on v1"),
            "{html}"
        );
    }

    #[test]
    fn a_probation_that_is_over_for_want_of_a_way_back_is_a_warning() {
        let mut view = view();
        view.types[0].no_way_back = Some("v2 was on probation, and v1 is gone".to_owned());
        let seen = verdict(&view);
        assert_eq!((seen.class, seen.reasons.len()), ("look", 1), "{seen:?}");
        assert!(seen.reasons[0].says.contains("and v1 is gone; nothing makes up for its failures"), "{seen:?}");
    }

    #[test]
    fn a_slower_version_is_a_warning() {
        let mut view = on_trial("ramp", 10);
        view.types[0].trial.as_mut().unwrap().slower = Some("v2 takes longer".to_owned());
        let seen = verdict(&view);
        assert_eq!((seen.class, seen.reasons.len()), ("look", 1), "{seen:?}");
        assert!(seen.reasons[0].says.starts_with("press: v2 takes longer; `biotope rollout abort press`"), "{seen:?}");
        assert_eq!(goes_on(&view).unwrap(), "press v2 on a ramp at 10 %");
    }

    #[test]
    fn of_much_that_goes_on_only_some_is_named() {
        let mut view = on_trial("ramp", 10);
        let of_type = view.types[0].clone();
        view.types.extend(std::iter::repeat_n(of_type, 6));
        let line = goes_on(&view).unwrap();
        assert!(line.matches("on a ramp").count() == NAMED && line.ends_with("and 3 more"), "{line}");
    }
}
