//! The first screen: whether all is well, every type with its versions side by side, the log, and the last configs.

use askama::Template;

use super::rollover::{is_refused, state, trial};
use super::verdict::{Reason, Verdict, tried, verdict};
use super::words::{needs_look, pace, shown_rate, since_text, spoken, spread};
use super::{chart, rollover};
use crate::engine::view::{EcosystemView, GenerationEntry, GenerationsView, LogView, TypeView, VersionView};
use crate::figures::{ago, bytes, in_short, number, rate};
use crate::http::problem::Problem;
use crate::types::UnixMs;

/// Things to look at that stand open; more are a click away.
const REASONS_OPEN: usize = 8;
/// Configs that are shown.
const GENERATIONS_SHOWN: usize = 5;
/// Changes of one config that are shown.
const CHANGES_SHOWN: usize = 5;

/// Everything that lives here, at one moment.
pub(super) struct Look {
    pub(super) view: EcosystemView,
    pub(super) generations: GenerationsView,
    /// When that was.
    pub(super) now: UnixMs,
}

/// The first screen, rendered.
pub(super) struct Screen {
    pub(super) headline: &'static str,
    pub(super) live: String,
}

#[derive(Template)]
#[template(path = "overview.html", config = "web/askama.toml")]
struct Overview<'a> {
    view: &'a EcosystemView,
    log: &'a LogView,
    generations: &'a GenerationsView,
    verdict: Verdict,
    now: UnixMs,
    version: &'static str,
}

/// Something to say of a type beneath its figures.
struct Note {
    class: &'static str,
    says: String,
}

/// The first screen of what was looked at.
pub(super) fn screen(look: &Look) -> Result<Screen, Problem> {
    let overview = Overview::new(look);
    let live = overview.render().map_err(super::bug)?;
    Ok(Screen { headline: overview.verdict.headline, live })
}

impl<'a> Overview<'a> {
    fn new(look: &'a Look) -> Self {
        let Look { view, generations, now } = look;
        let version = env!("CARGO_PKG_VERSION");
        Self { verdict: verdict(view), view, log: &view.log, generations, now: *now, version }
    }

    fn first_reasons(&self) -> &[Reason] {
        let all = &self.verdict.reasons;
        all.get(..REASONS_OPEN).unwrap_or(all)
    }

    fn more_reasons(&self) -> &[Reason] {
        self.verdict.reasons.get(REASONS_OPEN..).unwrap_or_default()
    }

    /// What goes on and needs nobody.
    fn goes_on(&self) -> Option<String> {
        rollover::goes_on(self.view)
    }

    fn ready(&self) -> String {
        self.total(|of_type| of_type.ready)
    }

    fn at_work(&self) -> String {
        self.total(|of_type| of_type.reserved)
    }

    fn delayed(&self) -> String {
        self.total(|of_type| of_type.delayed)
    }

    fn dead(&self) -> String {
        self.total(|of_type| of_type.dead)
    }

    fn completed(&self) -> String {
        self.total(|of_type| of_type.completed)
    }

    fn done_a_second(&self) -> String {
        rate(&self.view.types.iter().map(|of_type| of_type.pace.per_second).sum())
    }

    fn failed_a_second(&self) -> String {
        rate(&self.view.types.iter().map(|of_type| of_type.pace.failures_per_second).sum())
    }

    /// Of all types together.
    fn total(&self, count: impl Fn(&TypeView) -> u64) -> String {
        number(&self.view.types.iter().map(count).sum())
    }

    /// Types that are in the config, or of which anything is left.
    fn lively(&self) -> Vec<&TypeView> {
        self.view.types.iter().filter(|of_type| is_lively(of_type)).collect()
    }

    /// All others.
    fn past(&self) -> Vec<&TypeView> {
        self.view.types.iter().filter(|of_type| !is_lively(of_type)).collect()
    }

    /// How long ago something was.
    fn since(&self, at: &UnixMs) -> String {
        ago(&self.now.saturating_sub(*at))
    }

    fn since_text(&self, at: &str) -> String {
        since_text(at, self.now)
    }

    fn generations(&self) -> &[GenerationEntry] {
        let all = &self.generations.generations;
        all.get(..GENERATIONS_SHOWN).unwrap_or(all)
    }

    /// What there is to say of a type beside its figures.
    fn notes(&self, of_type: &TypeView) -> Vec<Note> {
        let mut notes = Vec::new();
        if let Some(trial) = trial(of_type) {
            let class = if trial.is_suspected() { "warn" } else { "trial" };
            notes.push(Note { class, says: trial.words() });
        }
        if of_type.retries_held_ms > 0 {
            let later = ago(&of_type.retries_held_ms);
            notes.push(Note {
                class: "warn",
                says: format!("retries come {later} later: more than retry_budget lets go"),
            });
        }
        for version in shown_versions(of_type) {
            notes.extend(self.note(version));
        }
        notes
    }

    fn note(&self, version: &VersionView) -> Option<Note> {
        let label = &version.version;
        if let Some(failing) = &version.failing {
            let says = format!("{label} failing for {}, {}", self.since(&failing.since_ms), tried(failing));
            return Some(Note { class: "bad", says });
        }
        if let Some(reason) = &version.reason {
            let before = if is_refused(version) { format!("{}: ", version.state) } else { String::new() };
            let class = if version.configured || needs_look(version) { "bad" } else { "said" };
            return Some(Note { class, says: format!("{label} {before}{}", in_short(reason)) });
        }
        if let Some(drain) = &version.drain {
            let says = format!("{label}: {}", rollover::drain(drain, self.now).words());
            return Some(Note { class: "said", says });
        }
        let warm = version.warm_for_ms?;
        Some(Note { class: "said", says: format!("{label} stays warm for a way back, {} more", ago(&warm)) })
    }
}

fn is_lively(of_type: &TypeView) -> bool {
    let jobs = of_type.ready + of_type.delayed + of_type.reserved + of_type.parked + of_type.dead;
    of_type.configured || jobs > 0
}

/// The versions of a type that do or may do anything, and those that the config asks for.
fn shown_versions(of_type: &TypeView) -> Vec<&VersionView> {
    let is_shown = |version: &&VersionView| version.configured || !matches!(version.state, "retired" | "rejected");
    of_type.versions.iter().filter(is_shown).collect()
}

/// The versions that share the work.
pub(super) fn sharing(of_type: &TypeView) -> Vec<&VersionView> {
    shown_versions(of_type).into_iter().filter(|version| version.percent > 0).collect()
}

/// The route between versions that share the work.
pub(super) fn route(of_type: &TypeView) -> Option<String> {
    let shares: Vec<u8> = sharing(of_type).iter().map(|version| version.percent).collect();
    (shares.len() > 1).then(|| chart::route(&shares))
}

fn pool(version: &VersionView) -> String {
    chart::pool(version.pool_size, version.busy)
}

fn course(of_type: &TypeView) -> String {
    chart::course(&of_type.course)
}

fn has_pace(of_type: &TypeView) -> bool {
    of_type.pace.per_second > 0.0 || of_type.pace.failures_per_second > 0.0
}

/// Whether a version has figures of its own beside those of its type.
fn is_one_of_many(of_type: &TypeView, version: &VersionView) -> bool {
    version.pace.run_ms.is_some() && of_type.versions.iter().filter(|version| version.pace.run_ms.is_some()).count() > 1
}

/// The share of attempts that fail, of late.
fn failing_share(of_type: &TypeView) -> String {
    let pace = &of_type.pace;
    shown_rate(pace.failures_per_second, pace.per_second + pace.failures_per_second)
}

/// What a config changed, the first of it.
fn changes(entry: &GenerationEntry) -> Vec<String> {
    let keys = entry.keys.iter().map(|key| format!("changed: {key}"));
    let all: Vec<String> = keys.chain(entry.types.iter().map(ToString::to_string)).collect();
    let left = all.len().saturating_sub(CHANGES_SHOWN) + entry.left_out as usize;
    let mut shown: Vec<String> = all.iter().take(CHANGES_SHOWN).map(|line| in_short(line)).collect();
    if left > 0 {
        shown.push(format!("and {left} more"));
    }
    shown
}

fn class_of_verdict(verdict: &str) -> &'static str {
    match verdict {
        "ok" => "good",
        "partial" => "warn",
        _ => "quiet",
    }
}
