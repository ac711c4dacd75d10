//! `[workers.TYPE.rollout]`: how a new version takes a type's work over, and how long the one before stays.

use std::time::Duration;

use toml::de::DeValue;

use super::section::{Gathered, Section, kind};
use crate::limits::{
    DRAIN_TIMEOUT_DEFAULT, HOLD_DEFAULT, LIVE_VERSIONS_DEFAULT, LIVE_VERSIONS_MAX, MIN_SAMPLES_DEFAULT, RAMP_STEPS_MAX,
    WARM_FOR_DEFAULT,
};

const DAY: Duration = Duration::from_secs(86_400);

/// How a version takes over. Live: what changes holds from the next step on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    /// Shares of first attempts that it gets one after the other, in percent, ascending, each 1 to 99; none: all at once.
    pub steps: Vec<u8>,
    /// How long each share stays at least.
    pub hold: Duration,
    /// First attempts on it that each share waits for.
    pub min_samples: u32,
    /// How long a draining version may finish what it holds.
    pub drain_timeout: Duration,
    /// How long a drained version stays, for a way back.
    pub warm_for: Duration,
    /// Versions of the type that work at once, those that drain among them; one more, and the oldest that drains is cut off.
    pub versions_max: u32,
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            steps: Vec::new(),
            hold: HOLD_DEFAULT,
            min_samples: MIN_SAMPLES_DEFAULT,
            drain_timeout: DRAIN_TIMEOUT_DEFAULT,
            warm_for: WARM_FOR_DEFAULT,
            versions_max: LIVE_VERSIONS_DEFAULT,
        }
    }
}

/// Reads a worker type's `rollout`.
pub(super) fn read(gathered: &mut Gathered, section: &mut Section<'_>) -> Rollout {
    let usual = Rollout::default();
    let mut rollout = section.section(gathered, "rollout");
    let steps = steps(gathered, &mut rollout);
    let hold = rollout.duration(gathered, "hold", usual.hold, Duration::ZERO..=30 * DAY);
    let min_samples = rollout.number(gathered, "min_samples", usual.min_samples, 0..=1_000_000);
    for key in ["hold", "min_samples"] {
        if rollout.has(key) && !rollout.has("steps") {
            let message = format!("`{}` says nothing without `steps`", rollout.path_of(key));
            gathered.add_at(&rollout.path_of(key), message, "add steps = [1, 10, 50], or leave it out");
        }
    }
    let drain_timeout = rollout.duration(gathered, "drain_timeout", usual.drain_timeout, Duration::ZERO..=7 * DAY);
    let warm_for = rollout.duration(gathered, "warm_for", usual.warm_for, Duration::ZERO..=7 * DAY);
    let versions_max = rollout.number(gathered, "versions_max", usual.versions_max, 2..=LIVE_VERSIONS_MAX);
    rollout.finish(gathered);
    Rollout { steps, hold, min_samples, drain_timeout, warm_for, versions_max }
}

/// `steps`: ascending percentages.
fn steps(gathered: &mut Gathered, section: &mut Section<'_>) -> Vec<u8> {
    let path = section.path_of("steps");
    let Some(value) = section.get(gathered, "steps") else { return Vec::new() };
    let help = "write percentages from 1 to 99 that rise, like steps = [1, 10, 50]";
    let DeValue::Array(items) = value.get_ref() else {
        gathered.add(value.span(), format!("`{path}` is {}, not a list of numbers", kind(value)), help);
        return Vec::new();
    };
    if items.len() > RAMP_STEPS_MAX {
        let message = format!("`{path}` has {} entries, the most is {RAMP_STEPS_MAX}", items.len());
        gathered.add(value.span(), message, "leave some of them out");
        return Vec::new();
    }
    let mut steps: Vec<u8> = Vec::with_capacity(items.len());
    for item in items {
        let number = match item.get_ref() {
            DeValue::Integer(number) => u8::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        match number.filter(|number| (1..100).contains(number) && steps.last().is_none_or(|last| last < number)) {
            Some(number) => steps.push(number),
            None => {
                gathered.add(item.span(), format!("an entry of `{path}` is no percentage above the one before"), help);
                return Vec::new();
            }
        }
    }
    steps
}
