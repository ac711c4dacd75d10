//! Evidence: whether a new version does worse than the old one, by what became of first attempts.
//!
//! Owns the counts of one rollout, and what the wagers against the new version are worth. Pure: no clock, bounded memory,
//! the same work for each attempt. Never says that a version is good: that nothing is known against it is all that it says.
//!
//! Whoever feeds it tries a first attempt that failed again at once, on the old version, whichever version it failed on, and
//! tells it when that retry has ended. What was cut off or given back is not told at all. Told are only attempts that the
//! ramp might have sent to either version ([`super::choice::Ramp::way`]): a job that may not go to the new one says nothing.
//!
//! A suspicion costs little and condemns nobody: it only sends most jobs to the old version for a while, so that more is
//! known of both at the same time. What condemns is worth [`WORTH_WITHDRAWAL`], whatever began with the new version.

use serde::Serialize;

use super::wager::{Abreast, Arm, Before, Counts, Retried, Tries};

/// Failures of a tenant that count on the new version; all its later attempts there are left out, the good ones as well.
pub const FAILURES_OF_A_TENANT: u8 = 3;
/// Tenants whose failures are counted: all that a hash of 16 bits can tell apart, a byte each.
const TENANTS: usize = 1 << u16::BITS;
/// A version is withdrawn after so many counted failures at least.
pub const FAILURES_MIN: u64 = 5;
/// What the wagers must be worth to withdraw a version: at most one innocent version in so many gets there.
pub const WORTH_WITHDRAWAL: f64 = 100.0;
/// How much of the stake is on retries; the rest is on first attempts side by side.
const SHARE_OF_RETRIES: f64 = 0.15;
/// What a comparison must be worth to raise a suspicion, and after how many failures. It is dropped below a worth of 1.
pub const WORTH_SUSPICION: f64 = 2.0;
const SUSPICION_FAILURES_MIN: u64 = 3;
/// The same where all went to the new version at once, and fewer than so many attempts of the old one are known: what is not
/// known can only be learned under a suspicion.
pub const WORTH_SUSPICION_UNKNOWN: f64 = 0.5;
const KNOWN_WELL: u64 = 250;
/// Share of what the ramp takes that still goes to the new version under a suspicion, in percent, where it takes much.
pub const CONTROL_PERCENT: u8 = 5;
/// First attempts on the new version under a suspicion after which it may be dropped, if the odds to fail are not more than
/// so many times those of the old version.
pub const CONTROL_ATTEMPTS: u64 = 100;
const SAME_ODDS: f64 = 1.5;
/// First attempts before the switch that are looked at.
pub const HISTORY_MAX: u64 = 1000;
/// Attempts of the old version from which on something is known of it.
const KNOWN_ATTEMPTS: u64 = 20;
/// What the comparison with the old version must be worth for its retries to be evidence: side by side, and with the time
/// before the switch, which is blind to more.
const WORTH_ABREAST: f64 = 40.0;
const WORTH_BEFORE: f64 = 10_000.0;
/// Jobs of a version without a process of its own and without a probe that go one at a time, before it is let loose.
pub const FIRST_ONE_BY_ONE: u64 = 5;

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

impl History {
    /// A first attempt came to its end.
    pub fn note(&mut self, failed: bool) {
        self.attempts += 1;
        self.failed += u64::from(failed);
        if self.attempts >= 2 * HISTORY_MAX {
            // Older ones count half.
            self.attempts /= 2;
            self.failed /= 2;
        }
    }
}

/// What the evidence says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is known against the new version.
    Undecided,
    /// More fails than it should, and it is not known whether the new version is to blame. Until it is, most of what the ramp
    /// takes should go to the old version ([`super::choice::Ramp::suspected`]); else it takes longer to find out.
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
    /// Counted failures on the new version by tenant hash; none until a tenant fails.
    tenants: Option<Box<[u8]>>,
    abreast: Abreast,
    retried: Retried,
    /// Where all went to the new version at once.
    before: Option<Before>,
    /// First attempts since a suspicion arose: the new version's, the old one's.
    control: Option<[Counts; 2]>,
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
        Self { before: Some(Before::new(Counts { attempts, failed })), ..Self::ramp() }
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
        let before = self.before.as_ref().map(Before::old);
        EvidenceView {
            incoming,
            baseline,
            before: before.map(|old| (old.attempts, old.failed)),
            e_value: self.worth().min(1e9),
            needed: WORTH_WITHDRAWAL,
        }
    }

    fn incoming(&self) -> &ArmView {
        let [incoming, _] = &self.arms;
        incoming
    }

    /// Whether an attempt counts; a failure that does is noted for its tenant. The old version's all count: the more of them
    /// fail, the less is known against the new one.
    fn counts(&mut self, arm: Arm, tenant: u16, first: First) -> bool {
        if arm == Arm::Baseline || tenant == 0 || (self.tenants.is_none() && first == First::Passed) {
            return true;
        }
        let tenants = self.tenants.get_or_insert_with(|| vec![0; TENANTS].into_boxed_slice());
        let Some(failures) = tenants.get_mut(usize::from(tenant)) else { return true };
        if *failures >= FAILURES_OF_A_TENANT {
            return false;
        }
        *failures += u8::from(first != First::Passed);
        true
    }

    /// What the wagers are worth together.
    fn worth(&self) -> f64 {
        let retried = if self.retries_count() { self.retried.worth() } else { 0.0 };
        (1.0 - SHARE_OF_RETRIES) * self.abreast.worth() + SHARE_OF_RETRIES * retried
    }

    /// Whether it counts that retries pass: not where as much fails on the old version, for then jobs may fail by what a
    /// retry heals, such as two that are in each other's way. Where nothing is known of the old version, it counts.
    fn retries_count(&self) -> bool {
        let [_, baseline] = &self.arms;
        let unknown = self.before.is_none() && baseline.attempts < KNOWN_ATTEMPTS;
        unknown || self.abreast.worth() >= WORTH_ABREAST || self.before() >= WORTH_BEFORE
    }

    fn before(&self) -> f64 {
        self.before.as_ref().map_or(0.0, Before::worth)
    }

    /// Whether one of the comparisons with the old version alone is worth a suspicion.
    fn is_suspicious(&self) -> bool {
        let known_well = self.before.as_ref().is_none_or(|before| before.old().attempts >= KNOWN_WELL);
        let before = if known_well { WORTH_SUSPICION } else { WORTH_SUSPICION_UNKNOWN };
        self.abreast.worth() >= WORTH_SUSPICION || self.before() >= before
    }

    /// Raises and drops the suspicion.
    fn suspect(&mut self, arm: Arm, failed: bool) {
        if let (Some(before), Arm::Incoming) = (&mut self.before, arm) {
            before.add(failed);
        }
        let Some([new, old]) = &mut self.control else {
            let [incoming, _] = &self.arms;
            if incoming.failed_then_passed + incoming.failed_twice >= SUSPICION_FAILURES_MIN && self.is_suspicious() {
                self.control = Some([Counts::default(); 2]);
                if self.before.is_some() {
                    // What stands there was long before anything ran beside it.
                    self.abreast.forget_block();
                }
            }
            return;
        };
        match arm {
            Arm::Incoming => new.add(failed),
            Arm::Baseline => old.add(failed),
        }
        let (new, old) = (*new, *old);
        let enough = new.attempts >= CONTROL_ATTEMPTS && old.attempts >= new.attempts;
        if enough && new.odds() <= SAME_ODDS * old.odds() && self.abreast.worth() < 1.0 {
            self.control = None;
            self.abreast.forget_block();
            // The old version fails as often now: that is what the new one is measured by from here on.
            self.before = self.before.take().map(|_| Before::new(old));
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
        assert_eq!(evidence.verdict(), Verdict::Suspect, "{:?}", evidence.shown());
        let counted = ArmView { attempts: 3, failed_then_passed: 3, failed_twice: 0, left_out: 997 };
        assert_eq!((evidence.shown().incoming, evidence.samples()), (counted, 1000));
        (0..9).for_each(|_| evidence.first(Arm::Baseline, 7, First::FailedThenPassed));
        assert_eq!(evidence.shown().baseline.failed_then_passed, 9, "whatever speaks for the new version counts");
        for tenant in 9..12 {
            evidence.first(Arm::Incoming, tenant, First::FailedThenPassed);
        }
        assert_eq!(evidence.verdict(), Verdict::Worse, "{:?}", evidence.shown());
    }

    #[test]
    fn where_little_is_known_of_the_old_version_a_suspicion_comes_sooner() {
        let jobs = |attempts| {
            let mut evidence = Evidence::at_once(History { attempts, failed: 2 });
            let suspects = |job: &u64| {
                let first = if job.is_multiple_of(20) { First::FailedThenPassed } else { First::Passed };
                evidence.first(Arm::Incoming, 0, first);
                evidence.verdict() == Verdict::Suspect
            };
            (1..1000).find(suspects).unwrap()
        };
        let (little, well) = (jobs(KNOWN_WELL - 1), jobs(KNOWN_WELL));
        assert!(little < well, "after {little} jobs, and after {well}");
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
