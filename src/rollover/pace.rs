//! Pace: whether a new version is slower than the old one, by the share of runs that take long.
//!
//! Owns the limit above which a run takes long, which is the time that 95 of 100 runs of the old version took at most, and
//! how many runs of each version did. It only warns: nothing is withdrawn for being slow.

use serde::Serialize;

use super::wager::Arm;
use super::wager::{Abreast, Before, Counts};

/// Runs of the old version from which the limit is learned, where it is not known before.
pub const LEARNED_FROM: u64 = 100;
/// As many of them as are above the limit, and the one that is the limit: 95 of 100 are not longer.
const LONGEST: usize = 6;
/// What the comparison must be worth to warn: at most one version in so many that is no slower gets there.
pub const WORTH_WARNING: f64 = 100.0;
/// Runs that took long before anything is said.
const LONG_MIN: u64 = 5;
/// A version is slower whose runs take long so many times as often as those of the old one.
const TIMES: f64 = 2.0;

/// How long runs of both versions take.
#[derive(Debug, Clone)]
pub struct Pace {
    limit_ms: Option<u64>,
    /// The longest of the runs that the limit is learned from, the longest first.
    longest: [u64; LONGEST],
    /// Runs of each version, and how many took long: the new one's, the old one's.
    runs: [Counts; 2],
    abreast: Abreast,
    before: Option<Before>,
    slower: bool,
}

/// A version that is slower, to be shown.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SlowerView {
    /// 95 of 100 runs of the old version took at most so many milliseconds.
    pub limit_ms: u64,
    /// Runs of the new version, and how many took longer.
    pub incoming: (u64, u64),
    /// The same of the old one.
    pub baseline: (u64, u64),
}

impl Pace {
    /// Of a ramp: the limit is learned from the first runs of the old version.
    pub fn ramp() -> Self {
        Self {
            limit_ms: None,
            longest: [0; LONGEST],
            runs: [Counts::default(); 2],
            abreast: Abreast::new(),
            before: None,
            slower: false,
        }
    }

    /// Where all goes to the new version at once: 95 of 100 of so many runs of the old version took at most `p95_ms`. Of
    /// too few runs nothing is said.
    pub fn at_once(p95_ms: u64, runs: u64) -> Self {
        if runs < LEARNED_FROM {
            return Self::ramp();
        }
        let old = Counts { attempts: runs, failed: runs / 20 };
        let before = Some(Before::new(old));
        Self { limit_ms: Some(p95_ms), runs: [Counts::default(), old], before, ..Self::ramp() }
    }

    /// A run came to an end of its own after so long.
    pub fn ran(&mut self, arm: Arm, ms: u64) {
        let [new, old] = &mut self.runs;
        let Some(limit) = self.limit_ms else {
            if arm == Arm::Baseline {
                old.add(false);
                let learned = old.attempts >= LEARNED_FROM;
                self.learn(ms, learned);
            }
            return;
        };
        let long = ms > limit;
        match arm {
            Arm::Incoming => new.add(long),
            Arm::Baseline => old.add(long),
        }
        self.abreast.add(arm, long);
        if let (Some(before), Arm::Incoming) = (&mut self.before, arm) {
            before.add(long);
        }
        let worth = self.before.as_ref().map_or(0.0, Before::worth).max(self.abreast.worth());
        let [new, old] = self.runs;
        let share = |of: Counts| of.failed as f64 / of.attempts.max(1) as f64;
        self.slower = worth >= WORTH_WARNING && new.failed >= LONG_MIN && share(new) >= TIMES * share(old);
    }

    /// The new version, if it is slower.
    pub fn slower(&self) -> Option<SlowerView> {
        let [new, old] = self.runs.map(|runs| (runs.attempts, runs.failed));
        self.limit_ms.filter(|_| self.slower).map(|limit_ms| SlowerView { limit_ms, incoming: new, baseline: old })
    }

    fn learn(&mut self, ms: u64, learned: bool) {
        let mut next = ms;
        for kept in &mut self.longest {
            if next > *kept {
                std::mem::swap(&mut next, kept);
            }
        }
        if learned {
            let [.., limit] = self.longest;
            self.limit_ms = Some(limit);
            self.runs = [Counts::default(); 2];
        }
    }
}

impl SlowerView {
    /// What it comes to, in a line, with the names of both versions.
    pub fn sentence(&self, incoming: &str, baseline: &str) -> String {
        let ((new, new_long), (old, old_long)) = (self.incoming, self.baseline);
        format!(
            "{new_long} of {new} runs of {incoming} took over {} ms; {baseline}: {old_long} of {old}",
            self.limit_ms
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed() -> u64 {
        std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
    }

    /// Times of which a few are long: 100 ms on average.
    #[expect(clippy::cast_possible_truncation, reason = "whole milliseconds are meant")]
    fn ms(rng: &mut fastrand::Rng, times: f64) -> u64 {
        (-rng.f64().max(1e-12).ln() * 100.0 * times) as u64
    }

    /// How many of so many rollouts warn, of a version that takes so many times as long.
    fn warned(rollouts: u64, times: f64, at_once: bool) -> u64 {
        let warned = (0..rollouts).filter(|rollout| {
            let mut rng = fastrand::Rng::with_seed(seed() * 1_000_000 + rollout);
            let mut before: Vec<u64> = (0..1000).map(|_| ms(&mut rng, 1.0)).collect();
            before.sort_unstable();
            let mut pace = if at_once { Pace::at_once(before[949], 1000) } else { Pace::ramp() };
            (0..2000).any(|_| {
                let incoming = at_once || rng.u32(0..10) == 0;
                let (arm, times) = if incoming { (Arm::Incoming, times) } else { (Arm::Baseline, 1.0) };
                pace.ran(arm, ms(&mut rng, times));
                pace.slower().is_some()
            })
        });
        warned.count() as u64
    }

    #[test]
    fn a_version_that_is_no_slower_is_warned_of_in_under_one_of_a_hundred() {
        for at_once in [false, true] {
            let warned = warned(400, 1.0, at_once);
            assert!(warned < 4, "SEED={} at once: {at_once}: {warned} of 400", seed());
        }
    }

    #[test]
    fn a_version_that_takes_twice_as_long_is_warned_of() {
        for at_once in [false, true] {
            let warned = warned(100, 2.0, at_once);
            assert!(warned >= 98, "SEED={} at once: {at_once}: {warned} of 100", seed());
        }
    }

    #[test]
    fn the_limit_is_the_time_of_95_of_100() {
        let mut pace = Pace::ramp();
        (1..=LEARNED_FROM).for_each(|ms| pace.ran(Arm::Baseline, (ms * 37) % 101));
        assert_eq!(pace.limit_ms, Some(95));
        let few = Pace::at_once(10, LEARNED_FROM - 1);
        assert_eq!(few.limit_ms, None, "too few to go by");
        let said = SlowerView { limit_ms: 95, incoming: (40, 20), baseline: (400, 19) }.sentence("v2", "v1");
        assert_eq!(said, "20 of 40 runs of v2 took over 95 ms; v1: 19 of 400");
    }
}
