//! Whether all is well, in one line, and what is not; pure.

use super::rollover;
use crate::engine::view::{DAMAGE_REMEDY, DRIFT_REMEDY, EcosystemView, FailingView, TypeView, VersionView};
use crate::figures::{ago, first_line};
use crate::wording;

/// A job that waits longer than this, with workers there to take it, is worth a look.
const WAITS_LONG_MS: u64 = 10 * 60 * 1000;

/// What a person should know first.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// `ok`, `look` or `bad`: a class of the page.
    pub(super) class: &'static str,
    /// The headline.
    pub(super) headline: &'static str,
    /// What there is to look at, the worst first.
    pub(super) reasons: Vec<String>,
}

pub(super) fn verdict(view: &EcosystemView) -> Verdict {
    let mut bad = Vec::new();
    let mut look = Vec::new();
    if let Some(full) = &view.log.full {
        bad.push(format!("The disk is full, new jobs are refused: {full}"));
    }
    for place in &view.log.damaged {
        bad.push(format!("The log is damaged: {}; {DAMAGE_REMEDY}", place.what));
    }
    if let Some(error) = &view.generation.last_error {
        let first = error.lines().next().unwrap_or_default();
        look.push(format!("The newest config was not accepted, what ran before goes on: {first}"));
    }
    if let Some(error) = view.binary.as_ref().and_then(|binary| binary.last_error.as_ref()) {
        look.push(format!("The binary was not replaced, the one before goes on: {}", first_line(error)));
    }
    for of_type in &view.types {
        let name = &of_type.worker_type;
        of_versions(of_type, &mut bad, &mut look);
        look.extend(rollover::troubles(of_type));
        if of_type.dead > 0 {
            look.push(format!("{name} has {} dead: retry or discard them", counted(of_type.dead)));
        }
        if of_type.parked > 0 {
            let parked = counted(of_type.parked);
            look.push(if of_type.configured {
                format!("{name} has {parked} parked: they need a version that takes no work")
            } else {
                format!("{name} is not in the config, {parked} parked")
            });
        }
        if of_type.paused {
            look.push(format!(
                "{name} is paused, {} waiting: resume it by `biotope resume {name}`",
                counted(of_type.ready)
            ));
        } else if of_type.oldest_ms > WAITS_LONG_MS {
            look.push(format!("{name} has a job that has waited for {} min", of_type.oldest_ms / 60_000));
        }
    }
    let versions = || view.types.iter().flat_map(|of_type| &of_type.versions);
    let is_told = versions().any(|version| version.configured && rollover::is_refused(version));
    if view.generation.state == "partial" && !is_told {
        look.push(wording::partial(view.generation.number));
    }
    if view.stopping {
        look.push("Biotope is stopping: no new jobs are taken".to_owned());
    }
    match (bad.is_empty(), look.is_empty()) {
        (true, true) => Verdict { class: "ok", headline: "All is well", reasons: Vec::new() },
        (true, false) => Verdict { class: "look", headline: "Worth a look", reasons: look },
        (false, _) => Verdict { class: "bad", headline: "Needs you now", reasons: [bad, look].concat() },
    }
}

/// Versions that fail, are stuck, or do not do all that they should.
fn of_versions(of_type: &TypeView, bad: &mut Vec<String>, look: &mut Vec<String>) {
    let name = &of_type.worker_type;
    let serving = of_type.versions.iter().any(|version| version.state == "current" && version.reason.is_none());
    for version in &of_type.versions {
        let label = &version.version;
        if let Some(failing) = &version.failing {
            let says = format!("{name} {label} is failing: {}", failing_words(failing));
            if failing.none_up && !serving { &mut *bad } else { &mut *look }.push(says);
        }
        if let Some(file) = &version.drifted {
            look.push(format!("{name} {label} is drifted, {file} {DRIFT_REMEDY}"));
        }
        if let Some(says) = stuck_words(version) {
            bad.push(format!("{name} {label} has {says}"));
        }
        let Some(reason) = version.reason.as_ref().filter(|_| version.failing.is_none()) else { continue };
        match version.state {
            // Told with what to do while the config asks for it; else it is history.
            "rejected" | "quarantined" => {}
            "starting" | "current" if !serving => bad.push(format!("{name} {label}: {reason}")),
            _ => look.push(format!("{name} {label}: {reason}")),
        }
    }
}

/// Why a version fails, and what is done about it.
fn failing_words(failing: &FailingView) -> String {
    format!("{}; its jobs wait; {}", first_line(&failing.reason), tried(failing))
}

/// What was tried, and when it is again.
pub(super) fn tried(failing: &FailingView) -> String {
    let times = if failing.tries == 1 { "once".to_owned() } else { format!("{} times", failing.tries) };
    let next = failing.next_try_ms.map_or_else(|| "now again".to_owned(), |ms| format!("again in {}", ago(&ms)));
    format!("tried {times}, {next}")
}

/// How many of a version's workers are stuck, if any, and with what.
fn stuck_words(version: &VersionView) -> Option<String> {
    let mut stuck = version.workers.iter().filter(|worker| worker.stuck);
    let first = stuck.next()?;
    let count = match stuck.count() {
        0 => "a stuck worker".to_owned(),
        more => format!("{} stuck workers", more + 1),
    };
    let held = first.jobs.first().map(|job| format!(", with job {}", job.id)).unwrap_or_default();
    Some(format!("{count}: {} without a sign of life{held}", ago(&first.beat_ms)))
}

fn counted(jobs: u64) -> String {
    if jobs == 1 { "1 job".to_owned() } else { format!("{jobs} jobs") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::view::DamagedView;
    use crate::page::tests::view;

    #[test]
    fn the_worst_comes_first_and_nothing_is_left_out() {
        assert_eq!(verdict(&view()).class, "ok");
        let mut view = view();
        view.types[0].dead = 1;
        let seen = verdict(&view);
        assert_eq!((seen.class, seen.reasons.len()), ("look", 1));
        assert!(seen.reasons[0].contains("1 job dead"), "{seen:?}");
        (view.types[0].paused, view.types[0].oldest_ms) = (true, 2 * WAITS_LONG_MS);
        let seen = verdict(&view);
        assert_eq!((seen.class, seen.reasons.len()), ("look", 2), "a pause explains why jobs wait: {seen:?}");
        assert!(seen.reasons[1].contains("paused, 12345 jobs waiting"), "{seen:?}");
        view.types[0].paused = false;
        view.types[0].oldest_ms = 0;
        view.types[0].versions[0].reason = Some("no such program".to_owned());
        view.log.full = Some("no space".to_owned());
        let what = "record 9 in segment 3 at offset 64 is damaged".to_owned();
        view.log.damaged = vec![DamagedView { segment: 3, offset: 64, seq: 9, what }];
        view.generation.last_error = Some("line 3\nmore".to_owned());
        let seen = verdict(&view);
        assert_eq!((seen.class, seen.reasons.len()), ("bad", 5), "{seen:?}");
        for (reason, shown) in seen.reasons.iter().zip(["no space", "segment 3", "press v1: no such program"]) {
            assert!(reason.contains(shown), "{seen:?}");
        }
    }
}
