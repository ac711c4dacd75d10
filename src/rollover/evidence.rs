//! Evidence: whether a new version does worse than the old one, by what became of first attempts.
//!
//! Owns the counts of one rollout, and what the wagers against the new version are worth. Pure: no clock, bounded memory,
//! the same work for each attempt. Never says that a version is good: that nothing is known against it is all that it says.
//!
//! Whoever feeds it tries a first attempt that failed again at once, on the old version, whichever version it failed on, and
//! tells it when that retry has ended. What was cut off or given back is not told at all. Told are only attempts that the
//! choice of the ramp sent where they went: a job that may not go to the new version says nothing about either.

use serde::Serialize;

use super::wager::{Abreast, Before, Rate, Retried, Tries};

/// Failures that count of one tenant on one version; its later attempts there are left out, the good ones as well.
pub const FAILURES_OF_A_TENANT: u8 = 3;
/// A version is withdrawn after so many counted failures at least.
pub const FAILURES_MIN: u64 = 5;
/// What the wagers must be worth to withdraw a version: at most one innocent version in so many gets there.
pub const WORTH_WITHDRAWAL: f64 = 100.0;
/// What the wager on the time before must be worth to raise a suspicion, and after how many failures.
pub const WORTH_SUSPICION: f64 = 20.0;
const SUSPICION_FAILURES_MIN: u64 = 3;
/// Share of first attempts that go on to the new version under a suspicion, in percent; the others go to the old one.
pub const CONTROL_PERCENT: u8 = 10;
/// First attempts on the new version under a suspicion, after which it may be dropped.
pub const CONTROL_ATTEMPTS: u64 = 100;
/// First attempts before the switch that are looked at.
pub const HISTORY_MAX: u64 = 1000;
/// Below so many attempts of the old version nobody can say that its own fail likewise.
const LIKEWISE_ATTEMPTS: u64 = 20;
/// The new version's odds of failing are those of the old one at least so many times, or its retries are no evidence.
const LIKEWISE_ODDS: f64 = 1.5;
/// Jobs of a version without a process of its own and without a probe that go one at a time, before it is let loose.
pub const FIRST_ONE_BY_ONE: u64 = 5;

/// Which version a first attempt ran on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arm {
    /// The new version.
    Incoming,
    /// The old one.
    Baseline,
}

/// What became of a first attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// It passed.
    Passed,
    /// It failed, and its retry on the old version passed.
    FailedThenPassed,
    /// It failed, and so did its retry on the old version.
    FailedTwice,
}

/// How the old version fared before the switch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct History {
    /// Its last first attempts; of more than [`HISTORY_MAX`] only the share that failed counts.
    pub attempts: u64,
    /// How many of them failed.
    pub failed: u64,
}

/// What the evidence says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is known against the new version.
    Undecided,
    /// The new version fails more often than the old one did before; nobody knows whether it is to blame. All but
    /// [`CONTROL_PERCENT`] of first attempts should go to the old version until this is known; else it takes longer.
    Suspect,
    /// The new version does worse: it is to be withdrawn.
    Worse,
}

/// First attempts on one version, as they count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ArmView {
    /// All that count.
    pub attempts: u64,
    /// That failed, and then passed on the old version.
    pub failed_then_passed: u64,
    /// That failed on both.
    pub failed_twice: u64,
    /// That do not count: their tenant had failed too often.
    pub left_out: u64,
}

/// The evidence, to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct EvidenceView {
    /// The new version.
    pub incoming: ArmView,
    /// The old one, at the same time.
    pub baseline: ArmView,
    /// First attempts of the old one before the switch, and how many failed.
    pub before: Option<(u64, u64)>,
    /// What the wagers against the new version are worth.
    pub e_value: f64,
    /// What they must be worth.
    pub needed: f64,
}

/// The evidence of one rollout.
#[derive(Debug, Clone)]
pub struct Evidence {
    arms: [ArmView; 2],
    /// Counted failures by tenant hash: the lower half of each byte is the new version's. None until a tenant fails.
    tenants: Option<Box<[u8]>>,
    abreast: Abreast,
    retried: Retried,
    /// Where all went to the new version at once.
    before: Option<Before>,
    /// First attempts since a suspicion arose: the new version's, the old one's.
    control: Option<Before>,
    worse: bool,
}

impl Evidence {
    /// Nothing so far, of a ramp: both versions get first attempts.
    pub fn ramp() -> Self {
        Self {
            arms: [ArmView::default(); 2],
            tenants: None,
            abreast: Abreast::new(),
            retried: Retried::new(),
            before: None,
            control: None,
            worse: false,
        }
    }

    /// Nothing so far, where all first attempts go to the new version at once.
    pub fn at_once(history: History) -> Self {
        let attempts = history.attempts.min(HISTORY_MAX);
        let failed = history.failed.min(history.attempts) * attempts / history.attempts.max(1);
        Self { before: Some(Before::new(Rate::of(attempts, failed))), ..Self::ramp() }
    }

    /// A first attempt came to its end, and so did its retry; `tenant` is a hash, 0 where the job has none.
    pub fn first(&mut self, arm: Arm, tenant: u16, first: First) {
        let counted = self.counts(arm, tenant, first);
        let [incoming, baseline] = &mut self.arms;
        let view = match arm {
            Arm::Incoming => incoming,
            Arm::Baseline => baseline,
        };
        if !counted {
            view.left_out += 1;
            return;
        }
        view.attempts += 1;
        let (tries, passed_then) = match first {
            First::Passed => (Tries::Passed, false),
            First::FailedThenPassed => (Tries::FailedThenPassed, true),
            First::FailedTwice => (Tries::FailedTwice, false),
        };
        view.failed_then_passed += u64::from(passed_then);
        view.failed_twice += u64::from(first == First::FailedTwice);
        self.abreast.add(arm, passed_then);
        if arm == Arm::Incoming {
            self.retried.add(tries);
        }
        self.suspect(arm, first != First::Passed);
        self.worse |= self.incoming().failed_then_passed >= FAILURES_MIN && self.worth() >= WORTH_WITHDRAWAL;
    }

    /// What it says.
    pub fn verdict(&self) -> Verdict {
        match (self.worse, &self.control) {
            (true, _) => Verdict::Worse,
            (false, Some(_)) => Verdict::Suspect,
            (false, None) => Verdict::Undecided,
        }
    }

    /// First attempts of the new version, those that do not count as well.
    pub fn samples(&self) -> u64 {
        self.incoming().attempts + self.incoming().left_out
    }

    /// All of it.
    pub fn shown(&self) -> EvidenceView {
        let [incoming, baseline] = self.arms;
        let before = self.before.as_ref().map(|before| before.rates().0);
        EvidenceView {
            incoming,
            baseline,
            before: before.map(|rate| (rate.attempts, rate.failed)),
            e_value: self.worth().min(1e9),
            needed: WORTH_WITHDRAWAL,
        }
    }

    fn incoming(&self) -> &ArmView {
        let [incoming, _] = &self.arms;
        incoming
    }

    /// Whether an attempt counts; a failure that does is noted for its tenant.
    fn counts(&mut self, arm: Arm, tenant: u16, first: First) -> bool {
        if tenant == 0 || (self.tenants.is_none() && first == First::Passed) {
            return true;
        }
        let shift = match arm {
            Arm::Incoming => 0,
            Arm::Baseline => 4,
        };
        let tenants = self.tenants.get_or_insert_with(|| vec![0; 1 << u16::BITS].into_boxed_slice());
        let Some(counts) = tenants.get_mut(usize::from(tenant)) else { return true };
        if *counts >> shift & 0xf >= FAILURES_OF_A_TENANT {
            return false;
        }
        *counts += u8::from(first != First::Passed) << shift;
        true
    }

    /// What the wagers are worth together.
    fn worth(&self) -> f64 {
        let retried = if self.old_fails_likewise() { 0.0 } else { self.retried.worth() };
        f64::midpoint(self.abreast.worth(), retried)
    }

    /// Whether jobs of the old version fail likewise: then they fail by what a retry heals, such as two that are in each
    /// other's way, and a retry that passes is no evidence.
    fn old_fails_likewise(&self) -> bool {
        let (old, new) = match &self.before {
            Some(before) => before.rates(),
            None => {
                let [new, old] = self.arms.map(|arm| Rate::counted(arm.attempts, arm.failed_then_passed));
                (old, new)
            }
        };
        old.attempts >= LIKEWISE_ATTEMPTS && new.odds() < LIKEWISE_ODDS * old.odds()
    }

    /// Raises and drops the suspicion that more fails than before the switch.
    fn suspect(&mut self, arm: Arm, failed: bool) {
        let Some(before) = &mut self.before else { return };
        match (&mut self.control, arm) {
            (None, Arm::Baseline) => {}
            (None, Arm::Incoming) => {
                before.new_attempt(failed);
                if before.rates().1.failed >= SUSPICION_FAILURES_MIN && before.log_worth() >= WORTH_SUSPICION.ln() {
                    self.control = Some(Before::new(Rate::default()));
                    self.abreast.forget_block();
                }
            }
            (Some(control), Arm::Baseline) => control.old_attempt(failed),
            (Some(control), Arm::Incoming) => {
                before.new_attempt(failed);
                control.new_attempt(failed);
                let (old, new) = control.rates();
                if new.attempts >= CONTROL_ATTEMPTS && old.attempts >= new.attempts && control.log_worth() <= 0.0 {
                    // The old version fails as often now: that is what the new one is measured by from here on.
                    self.before = self.control.take();
                }
            }
        }
    }
}

impl EvidenceView {
    /// What it comes to, in a line, with the names of both versions.
    pub fn sentence(&self, incoming: &str, baseline: &str) -> String {
        let new = &self.incoming;
        let mut line = format!(
            "{incoming} failed {} of {} first attempts that {baseline} then did",
            new.failed_then_passed, new.attempts
        );
        if self.baseline.attempts > 0 {
            let old = &self.baseline;
            line += &format!("; {baseline}: {} of {}", old.failed_then_passed, old.attempts);
        }
        if let Some((attempts, failed)) = self.before.filter(|(attempts, _)| *attempts > 0) {
            line += &format!("; {baseline} before: {failed} of {attempts} failed");
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(evidence: &mut Evidence, count: u64, arm: Arm, first: First) {
        (0..count).for_each(|_| evidence.first(arm, 0, first));
    }

    #[test]
    fn a_version_that_always_fails_is_withdrawn_within_ten_jobs() {
        for mut evidence in [Evidence::ramp(), Evidence::at_once(History::default())] {
            let found = (1..=10).find(|_| {
                evidence.first(Arm::Incoming, 0, First::FailedThenPassed);
                evidence.verdict() == Verdict::Worse
            });
            assert!(found.is_some_and(|jobs| jobs >= FAILURES_MIN), "{found:?}: {:?}", evidence.shown());
        }
    }

    #[test]
    fn what_fails_on_both_versions_is_no_evidence() {
        for mut evidence in [Evidence::ramp(), Evidence::at_once(History { attempts: 1000, failed: 0 })] {
            all(&mut evidence, 5000, Arm::Incoming, First::FailedTwice);
            assert_ne!(evidence.verdict(), Verdict::Worse, "{:?}", evidence.shown());
        }
    }

    #[test]
    fn one_tenant_alone_withdraws_no_version() {
        let mut evidence = Evidence::ramp();
        for _ in 0..1000 {
            evidence.first(Arm::Incoming, 7, First::FailedThenPassed);
            evidence.first(Arm::Baseline, 8, First::Passed);
        }
        assert_eq!(evidence.verdict(), Verdict::Undecided, "{:?}", evidence.shown());
        let counted = ArmView { attempts: 3, failed_then_passed: 3, failed_twice: 0, left_out: 997 };
        assert_eq!((evidence.shown().incoming, evidence.samples()), (counted, 1000));
        evidence.first(Arm::Baseline, 7, First::FailedThenPassed);
        assert_eq!(evidence.shown().baseline.failed_then_passed, 1, "each version has counts of its own");
        for tenant in 9..12 {
            evidence.first(Arm::Incoming, tenant, First::FailedThenPassed);
        }
        assert_eq!(evidence.verdict(), Verdict::Worse, "{:?}", evidence.shown());
    }

    #[test]
    fn more_failures_than_before_the_switch_are_a_suspicion_and_no_more() {
        let mut evidence = Evidence::at_once(History { attempts: 5000, failed: 5 });
        let passes_between = [First::FailedThenPassed, First::Passed, First::Passed, First::Passed];
        for first in passes_between.into_iter().cycle().take(20) {
            evidence.first(Arm::Incoming, 0, first);
        }
        assert_eq!((evidence.verdict(), evidence.shown().before), (Verdict::Suspect, Some((1000, 1))));
        // The old version fails as often now: it is the hour, and the suspicion is dropped.
        for first in passes_between.into_iter().cycle().take(400) {
            (0..9).for_each(|_| evidence.first(Arm::Baseline, 0, first));
            evidence.first(Arm::Incoming, 0, first);
        }
        assert_eq!(evidence.verdict(), Verdict::Undecided, "{:?}", evidence.shown());
        assert_ne!(evidence.shown().before, Some((1000, 1)), "what it is measured by is the old version's present");
    }

    #[test]
    fn what_is_shown_says_what_was_found() {
        let mut evidence = Evidence::ramp();
        all(&mut evidence, 397, Arm::Baseline, First::Passed);
        all(&mut evidence, 3, Arm::Baseline, First::FailedThenPassed);
        all(&mut evidence, 28, Arm::Incoming, First::Passed);
        all(&mut evidence, 12, Arm::Incoming, First::FailedThenPassed);
        let shown = evidence.shown();
        assert_eq!(shown.sentence("v2", "v1"), "v2 failed 12 of 40 first attempts that v1 then did; v1: 3 of 400");
        let at_once = Evidence::at_once(History { attempts: 300, failed: 2 }).shown();
        let said = "b failed 0 of 0 first attempts that a then did; a before: 2 of 300 failed";
        assert_eq!(at_once.sentence("b", "a"), said);
    }
}
