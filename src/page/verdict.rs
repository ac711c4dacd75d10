//! Whether all is well, in one line, and what is not; pure.

use super::rollover;
use crate::engine::view::{DAMAGE_REMEDY, DRIFT_REMEDY, EcosystemView, FailingView, TypeView, VersionView};
use crate::figures::{ago, counted, in_short};
use crate::types::WorkerType;
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
    /// What that means, in a sentence.
    pub(super) sentence: String,
    /// What there is to look at, the worst first.
    pub(super) reasons: Vec<Reason>,
}

/// Something to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reason {
    /// The type that it is about, if it is about one; its name stands at the beginning of what is said.
    pub(super) of: Option<WorkerType>,
    /// In words.
    pub(super) says: String,
}

impl From<String> for Reason {
    fn from(says: String) -> Self {
        Self { of: None, says }
    }
}

impl Reason {
    /// What is said after the name of the type.
    pub(super) fn rest(&self) -> &str {
        let name = self.of.as_ref().map_or("", |of| of.as_str());
        self.says.strip_prefix(name).unwrap_or(&self.says)
    }
}

/// Reasons about one type.
struct About<'a> {
    of: &'a WorkerType,
    all: &'a mut Vec<Reason>,
}

impl About<'_> {
    fn push(&mut self, says: String) {
        self.all.push(Reason { of: Some(self.of.clone()), says });
    }
}

pub(super) fn verdict(view: &EcosystemView) -> Verdict {
    let mut bad = Vec::new();
    let mut look = Vec::new();
    if let Some(full) = &view.log.full {
        bad.push(format!("The disk is full, new jobs are refused: {full}").into());
    }
    for place in &view.log.damaged {
        bad.push(format!("The log is damaged: {}; {DAMAGE_REMEDY}", place.what).into());
    }
    if let Some(error) = &view.generation.last_error {
        let first = error.lines().next().unwrap_or_default();
        look.push(format!("The newest config was not accepted, what ran before goes on: {first}").into());
    }
    if let Some(error) = view.binary.as_ref().and_then(|binary| binary.last_error.as_ref()) {
        look.push(format!("The binary was not replaced, the one before goes on: {}", in_short(error)).into());
    }
    for of_type in &view.types {
        let of = &of_type.worker_type;
        of_versions(of_type, &mut About { of, all: &mut bad }, &mut About { of, all: &mut look });
        of_queue(of_type, &mut About { of, all: &mut look });
    }
    let versions = || view.types.iter().flat_map(|of_type| &of_type.versions);
    let is_told = versions().any(|version| version.configured && rollover::is_refused(version));
    if view.generation.state == "partial" && !is_told {
        look.push(wording::partial(view.generation.number).into());
    }
    if view.stopping {
        look.push("Biotope is stopping: no new jobs are taken".to_owned().into());
    }
    let urgent = bad.len();
    let reasons = [bad, look].concat();
    let (class, headline, sentence) = match (urgent, reasons.len()) {
        (0, 0) => ("ok", "All is well", "Nothing needs you.".to_owned()),
        (0, all) => ("look", "Worth a look", format!("Work goes on; {} when you have a moment.", things(all))),
        (_, all) if all == urgent => ("bad", "Needs you now", format!("{} cannot wait.", capital(&things(urgent)))),
        (_, all) => {
            let rest = things(all - urgent);
            ("bad", "Needs you now", format!("{} cannot wait; {rest} can.", capital(&things(urgent))))
        }
    };
    Verdict { class, headline, sentence, reasons }
}

fn things(count: usize) -> String {
    if count == 1 { "one thing".to_owned() } else { format!("{count} things") }
}

fn capital(text: &str) -> String {
    text.replacen("one", "One", 1)
}

/// What is to be said of a type's jobs.
fn of_queue(of_type: &TypeView, look: &mut About<'_>) {
    let name = &of_type.worker_type;
    for trouble in rollover::troubles(of_type) {
        look.push(trouble);
    }
    if of_type.dead > 0 {
        look.push(format!("{name} has {} dead: retry or discard them", counted(of_type.dead, "job")));
    }
    if of_type.parked > 0 {
        let parked = counted(of_type.parked, "job");
        look.push(if of_type.configured {
            format!("{name} has {parked} parked: they need a version that takes no work")
        } else {
            format!("{name} is not in the config, {parked} parked")
        });
    }
    if of_type.paused {
        look.push(format!(
            "{name} is paused, {} waiting: resume it by `biotope resume {name}`",
            counted(of_type.ready, "job")
        ));
    } else if of_type.oldest_ms > WAITS_LONG_MS {
        look.push(format!("{name} has a job that has waited for {} min", of_type.oldest_ms / 60_000));
    }
}

/// Versions that fail, are stuck, or do not do all that they should.
fn of_versions(of_type: &TypeView, bad: &mut About<'_>, look: &mut About<'_>) {
    let name = &of_type.worker_type;
    let serving = of_type.versions.iter().any(|version| version.state == "current" && version.reason.is_none());
    for version in &of_type.versions {
        let label = &version.version;
        if let Some(failing) = &version.failing {
            let says = format!("{name} {label} is failing: {}", failing_words(failing));
            if failing.none_up && !serving { bad.push(says) } else { look.push(says) }
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
    format!("{}; its jobs wait; {}", in_short(&failing.reason), tried(failing))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::view::DamagedView;
    use crate::page::tests::view;

    #[test]
    fn the_worst_comes_first_and_nothing_is_left_out() {
        let seen = verdict(&view());
        assert_eq!((seen.class, &*seen.sentence), ("ok", "Nothing needs you."));
        let mut view = view();
        view.types[0].dead = 1;
        let seen = verdict(&view);
        assert_eq!((seen.class, seen.reasons.len()), ("look", 1));
        assert_eq!(seen.sentence, "Work goes on; one thing when you have a moment.");
        assert_eq!(seen.reasons[0].rest(), " has 1 job dead: retry or discard them");
        assert!(seen.reasons[0].says.contains("1 job dead"), "{seen:?}");
        (view.types[0].paused, view.types[0].oldest_ms) = (true, 2 * WAITS_LONG_MS);
        let seen = verdict(&view);
        assert_eq!((seen.class, seen.reasons.len()), ("look", 2), "a pause explains why jobs wait: {seen:?}");
        assert!(seen.reasons[1].says.contains("paused, 12345 jobs waiting"), "{seen:?}");
        view.types[0].paused = false;
        view.types[0].oldest_ms = 0;
        view.types[0].versions[0].reason = Some("no such program".to_owned());
        view.log.full = Some("no space".to_owned());
        let what = "record 9 in segment 3 at offset 64 is damaged".to_owned();
        view.log.damaged = vec![DamagedView { segment: 3, offset: 64, seq: 9, what }];
        view.generation.last_error = Some("line 3\nmore".to_owned());
        let seen = verdict(&view);
        assert_eq!((seen.class, seen.reasons.len()), ("bad", 5), "{seen:?}");
        assert_eq!(seen.sentence, "3 things cannot wait; 2 things can.");
        for (reason, shown) in seen.reasons.iter().zip(["no space", "segment 3", "press v1: no such program"]) {
            assert!(reason.says.contains(shown), "{seen:?}");
        }
    }
}
