//! Retries of a type within a budget, so that an outage of what its worker depends on does not become a storm.
//!
//! Owns how much later a retry comes than its backoff says: a share of what the type runs is for retries, and those that are
//! more than that wait for their turn, each behind the ones before. Pure; what it decides is recorded with the failure, so
//! that it need not be remembered over a restart. (The idea is the retry budget of RPC clients, as of Finagle and Envoy.
//! Those give a call up that is above it; a job that waits is only later.)

use crate::config::RetryBudget;
use crate::types::UnixMs;

/// What a type runs is counted over at least so long.
const COUNTED_OVER_MS: u64 = 1_000;
/// A count over so long says all; one over less may be of a moment that is calmer than the rest.
const COUNTED_WELL_MS: u64 = 10_000;
/// Times of the budget are in parts of a millisecond.
const PARTS: u64 = 1000;

/// The retries of one type.
#[derive(Debug, Default)]
pub(super) struct Retries {
    /// Times that a run was followed by a retry.
    asked: u64,
    /// When the runs were counted last, and how many there had been in all.
    counted: Option<(UnixMs, u64)>,
    /// Runs in 1,000 s, as counted last.
    runs: u64,
    /// By when the budget will have let all retries go that were promised, in parts of a millisecond.
    busy_until: u64,
    /// When the last one was asked for.
    at: UnixMs,
    /// How much later the last one came, in ms.
    held: u64,
}

impl Retries {
    /// How much later than by its backoff alone a retry comes, in ms, at most `most`. `done`: all that the type ever
    /// completed; `bound`: the longest that its backoff could be, in ms.
    ///
    /// Retries are let go one after the other, at the budget's pace; a retry that is due within its backoff anyway is no later.
    pub(super) fn hold(&mut self, budget: RetryBudget, now: UnixMs, done: u64, bound: u64, most: u64) -> u64 {
        self.asked += 1;
        self.count(now, done.saturating_add(self.asked));
        let Some(apart) = self.apart(budget) else {
            (self.busy_until, self.held) = (0, 0);
            return 0;
        };
        if now < self.at {
            // The wall clock was set back: what was promised means another time.
            self.busy_until = 0;
        }
        self.at = now;
        let now = now.saturating_mul(PARTS);
        let latest = now.saturating_add(bound.saturating_add(most).saturating_mul(PARTS));
        self.busy_until = self.busy_until.clamp(now, latest).saturating_add(apart);
        self.held = ((self.busy_until - now) / PARTS).saturating_sub(bound).min(most);
        self.held
    }

    /// How much later retries come at present, in ms: as the last one did, until all that were promised are let go.
    pub(super) fn held(&self, now: UnixMs) -> u64 {
        if now.saturating_mul(PARTS) < self.busy_until { self.held } else { 0 }
    }

    /// How far two retries are apart, in parts of a millisecond; `None` where nothing bounds them.
    fn apart(&self, budget: RetryBudget) -> Option<u64> {
        let share = self.runs.saturating_mul(u64::from(budget.percent)) / 100;
        let in_1000_s = share.max(u64::from(budget.min_per_second) * 1000);
        (budget.percent < 100).then(|| 1_000_000 * PARTS / in_1000_s)
    }

    /// Counts what ran since the last time, if that was long enough ago. What it says of more is taken at once; of less
    /// by and by, since whoever fails slowly runs few.
    fn count(&mut self, now: UnixMs, runs: u64) {
        let (at, before) = *self.counted.get_or_insert((now, runs));
        let (elapsed, ran) = (now.saturating_sub(at), runs.saturating_sub(before));
        if now < at {
            self.counted = Some((now, runs));
        }
        if elapsed < COUNTED_OVER_MS {
            return;
        }
        self.counted = Some((now, runs));
        let newly = ran.saturating_mul(1_000_000) / elapsed;
        self.runs = if elapsed >= COUNTED_WELL_MS { newly } else { newly.max(self.runs - self.runs / 8) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    fn budget(percent: u32, min_per_second: u32) -> RetryBudget {
        RetryBudget { percent, min_per_second }
    }

    /// What comes back in each second, where `fresh` jobs a second come and everything fails for so many `seconds`; every
    /// failure comes back after 0 to `bound` ms, and never in the second in which it failed, which was counted already.
    fn outage(budget: RetryBudget, fresh: u64, seconds: u64, bound: u64) -> Vec<u64> {
        let mut random = fastrand::Rng::with_seed(7);
        let mut retries = Retries::default();
        let mut due = std::collections::BTreeMap::new();
        for second in 0..seconds {
            let runs = fresh + due.get(&second).copied().unwrap_or(0);
            for n in 0..runs {
                let now = second * 1000 + n * 1000 / runs;
                let ready = now + retries.hold(budget, now, 0, bound, HOUR) + random.u64(0..=bound);
                *due.entry((ready / 1000).max(second + 1)).or_default() += 1;
            }
        }
        (0..=*due.keys().last().unwrap()).map(|second| due.get(&second).copied().unwrap_or(0)).collect()
    }

    #[test]
    fn q5_retries_of_an_outage_take_no_more_than_their_share() {
        let due = outage(budget(50, 10), 100, 600, 5_000);
        for from in (60..590).step_by(10) {
            let in_10_s: u64 = due[from..from + 10].iter().sum();
            // Half of all that runs: as many as fresh ones.
            assert!((800..=1200).contains(&in_10_s), "{in_10_s} retries in the 10 s from second {from}");
        }
        let last = due.len();
        assert!((1100..1300).contains(&last), "an outage of 600 s is over in as long again, not at second {last}");
    }

    #[test]
    fn q5_without_a_budget_an_outage_is_a_storm() {
        let due = outage(budget(100, 10), 100, 60, 5_000);
        let in_10_s: u64 = due[50..60].iter().sum();
        assert!(in_10_s > 10_000, "{in_10_s}: the test above could not fail");
    }

    #[test]
    fn few_failures_are_as_early_as_their_backoff_says() {
        let mut retries = Retries::default();
        let holds: Vec<u64> = (0..50).map(|n| retries.hold(budget(50, 10), 1_000_000 + n, 0, 5_000, HOUR)).collect();
        assert!(holds.iter().all(|hold| *hold == 0), "{holds:?}");
        let more = retries.hold(budget(50, 10), 1_000_060, 0, 5_000, HOUR);
        assert_eq!(more, 40, "the 51st of 10 a second is one more than 5 s hold, but for what has passed since");
    }

    #[test]
    fn a_hold_has_an_end_and_a_clock_that_is_set_back_does_no_harm() {
        let mut retries = Retries::default();
        let hold = |retries: &mut Retries, now| retries.hold(budget(10, 1), now, 0, 1_000, 60_000);
        let last = (0..10_000).map(|_| hold(&mut retries, HOUR)).last();
        assert_eq!(last, Some(60_000));
        assert_eq!(
            hold(&mut retries, HOUR / 2),
            0,
            "neither half an hour more, nor what was promised by another clock"
        );
        assert_eq!(hold(&mut retries, HOUR), 0, "what was promised before is long gone");
    }
}
