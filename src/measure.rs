//! Counts since the process began, for monitoring systems, which ask again and again and look at the difference.
//!
//! Pure, and cheap: an observation is a search among a few fixed bounds and two additions, by the one thread that owns the
//! counts. Nothing here ever goes down, and nothing is known of a single run. What was done of late is [`crate::recent`]'s.

use crate::recent::Ran;
use crate::worker::Outcome;

/// Bounds of run and wait times, in microseconds.
const TIMES_US: [u64; 17] = [
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    300_000_000,
    1_800_000_000,
];
/// Bounds of the times of a sync, in microseconds.
const SYNCS_US: [u64; 14] =
    [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000];
/// Bounds of the records that one sync makes durable.
const GROUPS: [u64; 9] = [1, 2, 4, 16, 64, 256, 1024, 4096, 16384];
/// The most bounds that a histogram has.
const BOUNDS_MAX: usize = TIMES_US.len();
const _: () = assert!(SYNCS_US.len() <= BOUNDS_MAX && GROUPS.len() <= BOUNDS_MAX);

/// How a run ended, as a label.
pub const OUTCOMES: [&str; 8] =
    ["completed", "failed", "dead", "cancelled", "deferred", "interrupted", "not_started", "host_death"];

/// Observations, counted between fixed bounds.
#[derive(Debug, Clone)]
pub struct Histogram {
    /// The largest value that counts in each place.
    bounds: &'static [u64],
    /// One place more: what is above all bounds.
    counts: [u64; BOUNDS_MAX + 1],
    sum: u64,
}

impl Histogram {
    fn new(bounds: &'static [u64]) -> Self {
        Self { bounds, counts: [0; BOUNDS_MAX + 1], sum: 0 }
    }

    fn observe(&mut self, value: u64) {
        let place = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get_mut(place) {
            *count += 1;
        }
        self.sum = self.sum.saturating_add(value);
    }

    /// All observations together.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How many there were at each bound and above the one before it; the last place, without a bound, is for the rest.
    pub fn places(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let bounds = self.bounds.iter().copied().map(Some).chain([None]);
        bounds.zip(self.counts.iter().copied())
    }

    fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.sum = self.sum.saturating_add(other.sum);
    }
}

/// What the runs of one version came to.
#[derive(Debug, Clone)]
pub struct Runs {
    /// How many ended how, in the order of [`OUTCOMES`].
    ended: [u64; OUTCOMES.len()],
    /// How long they took, in microseconds.
    pub took: Histogram,
    /// How long their jobs had waited, in microseconds.
    pub waited: Histogram,
}

impl Default for Runs {
    fn default() -> Self {
        Self { ended: [0; OUTCOMES.len()], took: Histogram::new(&TIMES_US), waited: Histogram::new(&TIMES_US) }
    }
}

impl Runs {
    /// Takes a run over that ended; `ran`: where it came to an end of its own.
    pub fn observe(&mut self, outcome: &Outcome, ran: Option<Ran>) {
        if let Some(count) = self.ended.get_mut(number_of(outcome)) {
            *count += 1;
        }
        let Some(ran) = ran else { return };
        self.took.observe(micros(ran.took));
        if let Some(waited) = ran.waited {
            self.waited.observe(micros(waited));
        }
    }

    /// How many ended how.
    pub fn ended(&self) -> impl Iterator<Item = (&'static str, u64)> {
        OUTCOMES.into_iter().zip(self.ended)
    }

    /// Adds what another pool of the same version did.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.ended.iter_mut().zip(other.ended) {
            *count += more;
        }
        self.took.add(&other.took);
        self.waited.add(&other.waited);
    }
}

/// What the log's syncs came to.
#[derive(Debug, Clone)]
pub struct Syncs {
    /// How long they took, in microseconds.
    pub took: Histogram,
    /// How many records each of them made durable.
    pub records: Histogram,
}

impl Default for Syncs {
    fn default() -> Self {
        Self { took: Histogram::new(&SYNCS_US), records: Histogram::new(&GROUPS) }
    }
}

impl Syncs {
    /// Takes over one that made so many records durable.
    pub fn observe(&mut self, took: std::time::Duration, records: u64) {
        self.took.observe(micros(took));
        if records > 0 {
            self.records.observe(records);
        }
    }
}

fn number_of(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Done { .. } => 0,
        Outcome::Fail { .. } => 1,
        Outcome::Dead { .. } => 2,
        Outcome::Cancel { .. } => 3,
        Outcome::Defer { .. } => 4,
        Outcome::Interrupted => 5,
        Outcome::NotStarted { .. } => 6,
        Outcome::HostDeath { .. } => 7,
    }
}

fn micros(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_observation_counts_at_the_first_bound_that_is_not_below_it() {
        let mut groups = Histogram::new(&GROUPS);
        for records in [1, 2, 3, 4, 16_384, 16_385] {
            groups.observe(records);
        }
        let places: Vec<_> = groups.places().filter(|(_, count)| *count > 0).collect();
        assert_eq!(places, [(Some(1), 1), (Some(2), 1), (Some(4), 2), (Some(16_384), 1), (None, 1)]);
        assert_eq!((groups.count(), groups.sum()), (6, 32_779));
        groups.add(&groups.clone());
        assert_eq!((groups.count(), groups.sum()), (12, 65_558));
        groups.observe(u64::MAX);
        assert_eq!(groups.sum(), u64::MAX);
    }

    #[test]
    fn every_outcome_has_a_place_of_its_own() {
        let (error, reason) = (String::new, String::new);
        let outcomes = [
            Outcome::Done { result: None, enqueue: Vec::new() },
            Outcome::Fail { error: error(), killed: false },
            Outcome::Dead { error: error() },
            Outcome::Cancel { reason: reason() },
            Outcome::Defer { error: error(), after: None },
            Outcome::Interrupted,
            Outcome::NotStarted { error: error() },
            Outcome::HostDeath { error: error() },
        ];
        let mut runs = Runs::default();
        let ran = Ran { waited: Some(Duration::from_millis(3)), took: Duration::from_micros(700) };
        for (number, outcome) in outcomes.iter().enumerate() {
            for _ in 0..=number {
                runs.observe(outcome, (number < 2).then_some(ran));
            }
        }
        let ended: Vec<_> = runs.ended().collect();
        let wanted: Vec<_> = OUTCOMES.into_iter().zip(1..).collect();
        assert_eq!(ended, wanted);
        assert_eq!((runs.took.count(), runs.took.sum(), runs.waited.sum()), (3, 2100, 9000));
    }
}
