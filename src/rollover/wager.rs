//! Wagers against the claim that the new version does no worse: a stake that grows only if the claim is wrong.
//!
//! A wager is an *e-process* (Ramdas, Grünwald, Vovk, Shafer: Game-theoretic statistics and safe anytime-valid inference,
//! 2023): while the claim holds, what it is worth is expected to be one at most, whenever one looks. So it is ever worth 100
//! in at most one of 100 rollouts (Ville's inequality), however long they go on and however often it is looked at.
//!
//! Owns three of them, each against the claim in another form: [`Abreast`], [`Retried`] and [`Before`]. Knows neither
//! versions nor tenants: counts come in, what the wager is worth goes out.

/// How much worse the new version may be, as odds ratios; the stake is divided among them.
const ODDS: [f64; 3] = [3.0, 10.0, 50.0];
/// A block is judged when it holds so many attempts, and one of each version at least.
const BLOCK: u32 = 20;
/// A block that holds attempts of one version alone is given up at this size: what is compared shall be close in time.
const BLOCK_MAX: u32 = 1000;
/// How often the new version may fail, and what share of that the old one fails; the stake is divided among them.
const SHARES: [f64; 4] = [0.1, 0.3, 0.7, 0.99];
const OF_THAT: [f64; 2] = [0.1, 0.4];

/// Which version a first attempt ran on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arm {
    /// The new version.
    Incoming,
    /// The old one.
    Baseline,
}

/// Stakes of a wager, as logarithms of what they are worth, and what is not at stake yet.
///
/// A version may turn bad late, when a stake is long lost: half of what is held back is staked anew after 1,000 attempts,
/// 2,000, 4,000 and so on.
#[derive(Debug, Clone)]
struct Stakes<const N: usize> {
    staked: [f64; N],
    held_back: f64,
    attempts: u64,
    next: u64,
}

impl<const N: usize> Stakes<N> {
    const HELD_BACK: f64 = 0.05;
    const FIRST: u64 = 1000;

    fn new() -> Self {
        Self {
            staked: [((1.0 - Self::HELD_BACK) / N as f64).ln(); N],
            held_back: Self::HELD_BACK,
            attempts: 0,
            next: Self::FIRST,
        }
    }

    /// What all is worth.
    fn worth(&self) -> f64 {
        self.held_back + self.staked.iter().map(|stake| stake.exp()).sum::<f64>()
    }

    /// An attempt of the new version was counted.
    fn attempt(&mut self) {
        self.attempts += 1;
        if self.attempts == self.next {
            self.next *= 2;
            self.held_back /= 2.0;
            let more = self.held_back / N as f64;
            for stake in &mut self.staked {
                *stake = (stake.exp() + more).ln();
            }
        }
    }
}

/// Claim: of first attempts that are made side by side, those of the new version fail no more often.
///
/// Attempts are compared in blocks, each closed by which versions it holds, never by how they fared. Given how many of a
/// block failed, any of them are equally likely to be the new version's, if the claim holds; so it needs no rate of failures,
/// and the rate may be another in each block: an outage is no evidence. The wager is the ratio of the noncentral to the
/// central hypergeometric likelihood, block by block (strata as in Mantel and Haenszel 1959, blocks as in Turner, Ly,
/// Grünwald: Generic E-variables for exact sequential k-sample tests, 2024).
#[derive(Debug, Clone)]
pub(super) struct Abreast {
    /// Attempts in the open block: the new version's, the old one's.
    attempts: [u32; 2],
    failed: [u32; 2],
    stakes: Stakes<{ ODDS.len() }>,
}

impl Abreast {
    pub(super) fn new() -> Self {
        Self { attempts: [0; 2], failed: [0; 2], stakes: Stakes::new() }
    }

    pub(super) fn worth(&self) -> f64 {
        self.stakes.worth()
    }

    pub(super) fn add(&mut self, arm: Arm, failed: bool) {
        let [new, old] = &mut self.attempts;
        let [new_failed, old_failed] = &mut self.failed;
        match arm {
            Arm::Incoming => {
                (*new, *new_failed) = (*new + 1, *new_failed + u32::from(failed));
                self.stakes.attempt();
            }
            Arm::Baseline => (*old, *old_failed) = (*old + 1, *old_failed + u32::from(failed)),
        }
        let both = *new > 0 && *old > 0;
        let all = *new + *old;
        if both && all >= BLOCK {
            self.judge();
        }
        if (both && all >= BLOCK) || all >= BLOCK_MAX {
            self.forget_block();
        }
    }

    /// Gives the open block up, unjudged.
    pub(super) fn forget_block(&mut self) {
        (self.attempts, self.failed) = ([0; 2], [0; 2]);
    }

    fn judge(&mut self) {
        let ([new, old], [new_failed, old_failed]) = (self.attempts, self.failed);
        let failed = new_failed + old_failed;
        if failed == 0 || failed == new + old {
            return;
        }
        let [new, old, failed, new_failed] = [new, old, failed, new_failed].map(f64::from);
        // Logarithms of how likely it is that so many of the failures are the new version's, from the fewest to the most.
        let (fewest, most) = ((failed - old).max(0.0), failed.min(new));
        let likely = |odds: f64| {
            let (mut here, mut count) = (0.0_f64, fewest);
            let (mut sum, mut at) = (1.0_f64, 0.0_f64);
            // The largest is kept at one, so that no sum is too large for a number.
            let mut largest = 0.0_f64;
            while count < most {
                here += ((new - count) * (failed - count) / ((count + 1.0) * (old - failed + count + 1.0)) * odds).ln();
                count += 1.0;
                if here > largest {
                    sum = sum * (largest - here).exp() + 1.0;
                    largest = here;
                } else {
                    sum += (here - largest).exp();
                }
                if count <= new_failed {
                    at = here;
                }
            }
            at - largest - sum.ln()
        };
        let by_chance = likely(1.0);
        for (stake, odds) in self.stakes.staked.iter_mut().zip(ODDS) {
            *stake += likely(odds) - by_chance;
        }
    }
}

/// Claim: a job that failed on the new version fails as often on the old one, tried at once, as any job on the new one.
///
/// So it must be if the new version is innocent: whatever makes a job fail, the job's own or the hour's, is still there when
/// it is tried again. Each job is an E-variable of its own: passed, failed then passed, or failed twice, against the same
/// rate for both tries, the one for which the wager is worth most; so the rate may be another for every job.
#[derive(Debug, Clone)]
pub(super) struct Retried {
    stakes: Stakes<{ SHARES.len() * OF_THAT.len() }>,
}

/// What became of a first attempt, and of the retry where it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tries {
    Passed,
    FailedThenPassed,
    FailedTwice,
}

impl Retried {
    pub(super) fn new() -> Self {
        Self { stakes: Stakes::new() }
    }

    pub(super) fn worth(&self) -> f64 {
        self.stakes.worth()
    }

    pub(super) fn add(&mut self, tries: Tries) {
        let suspected = SHARES.iter().flat_map(|share| OF_THAT.map(|of_that| (*share, share * of_that)));
        for (stake, (first, again)) in self.stakes.staked.iter_mut().zip(suspected) {
            // The rate that explains both tries best.
            let same = first * (1.0 + again) / (1.0 + first);
            let gain = match tries {
                Tries::Passed => (1.0 - first) / (1.0 - same),
                Tries::FailedThenPassed => first * (1.0 - again) / (same * (1.0 - same)),
                Tries::FailedTwice => first * again / (same * same),
            };
            *stake += gain.ln();
        }
        self.stakes.attempt();
    }
}

/// Claim: the new version fails as often as the old one did before it came.
///
/// A Bayes factor: how likely its failures are at a rate that nobody knows (Jeffreys' prior), against the rate that the old
/// version's attempts lead to expect. Blind to what else began with the new version: it raises a suspicion, and never
/// condemns.
#[derive(Debug, Clone)]
pub(super) struct Before {
    old: Counts,
    new: Counts,
    log_worth: f64,
}

/// What is assumed of an old version of which nobody knows anything: that one of 100 attempts fails, or so.
const UNKNOWN: [f64; 2] = [0.5, 50.0];

/// Attempts of one version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) attempts: u64,
    pub(super) failed: u64,
}

impl Counts {
    pub(super) fn add(&mut self, failed: bool) {
        self.attempts += 1;
        self.failed += u64::from(failed);
    }

    /// Failures for every pass; half of each is added, so that there is always an answer.
    pub(super) fn odds(self) -> f64 {
        (self.failed as f64 + 0.5) / ((self.attempts - self.failed) as f64 + 0.5)
    }
}

impl Before {
    pub(super) fn new(old: Counts) -> Self {
        Self { old, new: Counts::default(), log_worth: 0.0 }
    }

    pub(super) fn add(&mut self, failed: bool) {
        let of = |counts: Counts| (if failed { counts.failed } else { counts.attempts - counts.failed }) as f64;
        let [fails, passes] = UNKNOWN;
        let known = of(self.old) + of(self.new) + if failed { fails } else { passes };
        let expected = known / ((self.old.attempts + self.new.attempts) as f64 + fails + passes);
        let alone = (of(self.new) + 0.5) / (self.new.attempts as f64 + 1.0);
        self.log_worth += (alone / expected).ln();
        self.new.add(failed);
    }

    /// The old version's attempts.
    pub(super) fn old(&self) -> Counts {
        self.old
    }

    /// None where the new version fails no more often.
    pub(super) fn worth(&self) -> f64 {
        let [fails, passes] = UNKNOWN;
        let old = (self.old.failed as f64 + fails) / ((self.old.attempts - self.old.failed) as f64 + passes);
        if self.new.odds() <= old { 0.0 } else { self.log_worth.exp() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each stake of a fresh wager gains by one more.
    fn gains<const N: usize>(stakes: &Stakes<N>) -> [f64; N] {
        let at_first = Stakes::<N>::new().staked;
        std::array::from_fn(|n| (stakes.staked[n] - at_first[n]).exp())
    }

    #[test]
    fn a_retry_that_fails_as_often_gains_nothing_whatever_the_rate() {
        let gained = |tries| {
            let mut retried = Retried::new();
            retried.add(tries);
            gains(&retried.stakes)
        };
        let (passed, then_passed, twice) =
            (gained(Tries::Passed), gained(Tries::FailedThenPassed), gained(Tries::FailedTwice));
        for first in (0..=1000).map(|rate| f64::from(rate) / 1000.0) {
            for again in (0..=100).map(|more| first + (1.0 - first) * f64::from(more) / 100.0) {
                for stake in 0..passed.len() {
                    let expected = (1.0 - first) * passed[stake]
                        + first * (1.0 - again) * then_passed[stake]
                        + first * again * twice[stake];
                    assert!(expected <= 1.0 + 1e-9, "{first} {again} {stake}: {expected}");
                }
            }
        }
    }

    #[test]
    fn a_block_gains_nothing_on_average_however_many_of_it_failed() {
        // All ways in which `failed` of a block's attempts may have failed are equally likely.
        for (new, failed) in [(1, 1), (1, 5), (5, 1), (5, 5), (9, 9), (4, 7)] {
            let mut expected = [0.0; ODDS.len()];
            let ways: Vec<u32> = (0..1_u32 << BLOCK).filter(|way| way.count_ones() == failed).collect();
            for way in &ways {
                let mut abreast = Abreast::new();
                for attempt in 0..BLOCK {
                    let arm = if attempt < new { Arm::Incoming } else { Arm::Baseline };
                    abreast.add(arm, way >> attempt & 1 == 1);
                }
                let gained = gains(&abreast.stakes);
                expected = std::array::from_fn(|n| expected[n] + gained[n] / ways.len() as f64);
            }
            assert!(expected.iter().all(|gain| (gain - 1.0).abs() < 1e-9), "{new} {failed}: {expected:?}");
        }
    }

    #[test]
    fn a_large_block_is_judged_as_exactly_as_a_small_one() {
        let mut abreast = Abreast::new();
        (0..BLOCK_MAX - 1).for_each(|attempt| abreast.add(Arm::Baseline, attempt % 2 == 0));
        abreast.add(Arm::Incoming, true);
        // One of 1,000, half of which failed: twice as likely by odds that are high enough.
        let gained = gains(&abreast.stakes);
        assert!(gained.iter().all(|gain| (1.3..2.0).contains(gain)), "{gained:?}");
        let mut alone = Abreast::new();
        (0..3 * BLOCK_MAX).for_each(|_| alone.add(Arm::Incoming, true));
        assert!(alone.worth() <= 1.0 && alone.attempts[0] <= BLOCK_MAX, "{alone:?}");
    }

    #[test]
    fn what_is_held_back_is_staked_when_much_is_lost() {
        let mut stakes = Stakes::<2>::new();
        assert!((stakes.worth() - 1.0).abs() < 1e-9);
        stakes.staked = [-500.0; 2];
        for attempts in [1000, 1000, 2000] {
            let before = stakes.worth();
            (0..attempts).for_each(|_| stakes.attempt());
            assert!((stakes.worth() - before).abs() < 1e-9, "nothing is gained by that");
            assert!(stakes.staked[0].exp() * 2.0 >= stakes.held_back * 0.999);
            stakes.staked = [-500.0; 2];
        }
        assert!((stakes.held_back - Stakes::<2>::HELD_BACK / 8.0).abs() < 1e-9);
    }
}
