//! How many workers: of a type, always the same or as many as its queue asks for, and of all types together.

use std::fmt;
use std::time::Duration;

use super::WorkerConfig;
use super::section::{Gathered, Section};
use crate::limits::{CONCURRENCY_MAX, TARGET_WAIT_DEFAULT, WORKERS_MAX_DEFAULT, WORKERS_MAX_MAX};

const DAY: Duration = Duration::from_secs(86_400);
/// Sizes are looked at a few times a second: no wait can be aimed at that is shorter.
const TARGET_WAIT_MIN: Duration = Duration::from_millis(100);

/// `concurrency`: workers of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Concurrency {
    /// At least.
    pub min: u32,
    /// At most.
    pub max: u32,
}

impl Concurrency {
    /// Always so many.
    pub const fn fixed(workers: u32) -> Self {
        Self { min: workers, max: workers }
    }

    /// Whether the number follows the queue.
    pub const fn is_scaled(self) -> bool {
        self.min < self.max
    }

    /// What the type must be able to have: even one that may go down to none needs one to do anything.
    pub fn least(self) -> u32 {
        self.min.max(1)
    }
}

impl fmt::Display for Concurrency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_scaled() { write!(f, "{} to {}", self.min, self.max) } else { write!(f, "{}", self.max) }
    }
}

/// Reads `concurrency` and `target_wait` of a worker type.
pub(super) fn of_type(gathered: &mut Gathered, section: &mut Section<'_>) -> (Concurrency, Duration) {
    let had = gathered.problems.len();
    let concurrency = concurrency(gathered, section);
    let is_clear = gathered.problems.len() == had;
    let target_wait = section.duration(gathered, "target_wait", TARGET_WAIT_DEFAULT, TARGET_WAIT_MIN..=DAY);
    if section.has("target_wait") && is_clear && !concurrency.is_scaled() {
        let message = format!("`{}` needs a `concurrency` that can change", section.path_of("target_wait"));
        let help = "write concurrency = { min = 1, max = 8 }, or leave it out";
        gathered.add_at(&section.path_of("target_wait"), message, help);
    }
    (concurrency, target_wait)
}

fn concurrency(gathered: &mut Gathered, section: &mut Section<'_>) -> Concurrency {
    let path = section.path_of("concurrency");
    let table = section.get(gathered, "concurrency").filter(|value| value.get_ref().as_table().is_some());
    let Some(span) = table.map(toml::Spanned::span) else {
        return Concurrency::fixed(section.number(gathered, "concurrency", 1, 1..=CONCURRENCY_MAX));
    };
    let mut range = section.section(gathered, "concurrency");
    let had = gathered.problems.len();
    let min = range.number(gathered, "min", 1, 0..=CONCURRENCY_MAX);
    let max = range.number(gathered, "max", min.max(1), 1..=CONCURRENCY_MAX);
    // Where one of the two is wrong, nothing can be said about both.
    let is_clear = gathered.problems.len() == had;
    if is_clear && !range.has("max") {
        gathered.add(span, format!("`{path}.max` is missing"), "write concurrency = { min = 1, max = 8 }, or a number");
    } else if is_clear && max < min {
        let message = format!("`{path}.max` is {max}, below `min`, which is {min}");
        let help = "raise `max`, or lower `min`";
        gathered.add_at(&range.path_of("max"), message, help);
    }
    range.finish(gathered);
    Concurrency { min: min.min(max), max }
}

/// Reads `workers_max`, if it is there.
pub(super) fn workers_max(gathered: &mut Gathered, top: &mut Section<'_>) -> Option<u32> {
    let had = gathered.problems.len();
    let workers = top.number(gathered, "workers_max", WORKERS_MAX_DEFAULT, 1..=WORKERS_MAX_MAX);
    (top.has("workers_max") && gathered.problems.len() == had).then_some(workers)
}

/// The budget of all types together: what is asked for, if the types can do with that; else the default, or what they need.
pub(super) fn budget(gathered: &mut Gathered, asked: Option<u32>, workers: &[WorkerConfig]) -> u32 {
    let needed: u32 = workers.iter().map(|worker| worker.live.concurrency.least()).sum();
    let Some(asked) = asked else { return WORKERS_MAX_DEFAULT.max(needed) };
    if asked < needed {
        let message = format!("`workers_max` is {asked}, the worker types need {needed} at least");
        let help = format!("raise it to {needed} or more, or lower `concurrency` of some type");
        gathered.add_at("workers_max", message, help);
    }
    asked.max(needed)
}
