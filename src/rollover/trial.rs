//! A version on trial beside the one before: its share, when that grows, and what a failure of either costs.
//!
//! Pure: values in, what is to be done out. Carries nothing out, and counts only what it is told.

use std::time::Duration;

use super::choice::{PARTS, PARTS_OF_PERCENT, Ramp, Way};
use super::evidence::{CONTROL_PERCENT, Evidence, FIRST_ONE_BY_ONE, First, History, Verdict};
use super::pace::Pace;
use super::wager::Arm;
use crate::config::Rollout;
use crate::types::{Seq, millis};

/// The share of a version that has taken over, in percent.
pub const ALL: u8 = 100;
/// Whoever has done no job for so long after it came up is not kept to one at a time any more: its jobs take long.
const GATE_FOR: Duration = Duration::from_secs(10);
/// A job's death on a new version is made up for so often: once by the first attempt that failed, once by the last.
const MADE_UP_MAX: usize = 2;

/// A version on trial.
#[derive(Debug, Clone)]
pub struct Trial {
    /// The version.
    pub version_no: u32,
    /// The one before, which makes up for its failures.
    pub baseline_no: u32,
    /// What the choice of jobs is salted with.
    pub salt: u64,
    /// Its share of first attempts; [`ALL`]: it has taken over, and is on probation.
    pub percent: u8,
    /// Whether its share stays as it is until somebody says otherwise.
    pub paused: bool,
    /// How its own first attempts and those of the one before came out.
    pub evidence: Evidence,
    /// How long runs of both take.
    pub pace: Pace,
    /// Whether the files of either version have changed since it was accepted: what runs is not what is compared.
    pub drifted: bool,
    /// What its last failed run said, in a line; empty: none failed.
    pub last_error: String,
    /// Jobs that it gets one at a time before it takes over, if it is kept to that.
    gate: Option<Gate>,
    /// It had taken over, and stepped back under a suspicion.
    stepped_back: bool,
    /// Since when it has its share, by the steady clock.
    since: Duration,
    /// First attempts that it had had before that.
    before: u64,
}

#[derive(Debug, Clone, Copy)]
struct Gate {
    left: u64,
    passed: bool,
}

/// How the version before fared until another one took over; what is known of it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Before {
    /// Its last first attempts.
    pub history: History,
    /// 95 of 100 of its runs took at most so many milliseconds, of those of the last minutes.
    pub p95_ms: Option<u64>,
}

impl Before {
    fn pace(self) -> Pace {
        self.p95_ms.map_or_else(Pace::ramp, |p95_ms| Pace::at_once(p95_ms, self.history.attempts))
    }
}

/// What is to be done about a trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing before this moment, by the steady clock, or before the next job comes to its end.
    Wait(Option<Duration>),
    /// It gets this share from now on.
    Share(u8),
    /// It takes over.
    TakeOver,
    /// It had taken over, and steps back to this share, until a suspicion is cleared up.
    StepBack(u8),
    /// It does worse: it is withdrawn.
    Withdraw,
}

/// A failed run, as far as it matters who makes up for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed {
    /// The version that it ran on.
    pub on: u32,
    /// Attempts that had failed before.
    pub attempts: u16,
    /// Attempts that the job may have.
    pub max_attempts: u16,
    /// Its failures on this version that cost nothing.
    pub made_up: usize,
    /// Whether the job would be dead now.
    pub dies: bool,
    /// Whether its worker said that no other attempt helps.
    pub for_good: bool,
}

impl Failed {
    /// Whether another version owes the job a run: for its first failure, and for its death.
    pub fn is_owed(&self) -> bool {
        let first = self.attempts == 0 && self.made_up == 0;
        first || (self.dies && self.made_up < MADE_UP_MAX)
    }
}

impl Trial {
    /// The trial of a version that gets a share at first.
    pub fn ramp(version_no: u32, baseline_no: u32, salt: u64, percent: u8, now: Duration) -> Self {
        let (evidence, pace) = (Evidence::ramp(), Pace::ramp());
        let (paused, drifted, gate, stepped_back, since, before) = (false, false, None, false, now, 0);
        Self {
            version_no,
            baseline_no,
            salt,
            percent,
            paused,
            evidence,
            pace,
            drifted,
            last_error: String::new(),
            gate,
            stepped_back,
            since,
            before,
        }
    }

    /// The trial of a version that takes over at once; `before`: how the one before fared.
    pub fn probation(version_no: u32, baseline_no: u32, salt: u64, before: Before, now: Duration) -> Self {
        let (evidence, pace) = (Evidence::at_once(before.history), before.pace());
        Self { evidence, pace, ..Self::ramp(version_no, baseline_no, salt, ALL, now) }
    }

    /// As [`Trial::probation`], of a version that is to do its first jobs one at a time before.
    pub fn gate(version_no: u32, baseline_no: u32, salt: u64, before: Before, now: Duration) -> Self {
        let gate = Some(Gate { left: FIRST_ONE_BY_ONE, passed: false });
        Self { gate, ..Self::probation(version_no, baseline_no, salt, before, now) }
    }

    /// Whether it gets one job at a time.
    pub fn is_gated(&self) -> bool {
        self.gate.is_some()
    }

    /// Whether it shares the work with the one before.
    pub fn is_ramp(&self) -> bool {
        self.percent < ALL
    }

    /// Whether it had taken over, and shares the work again until a suspicion is cleared up.
    pub fn has_stepped_back(&self) -> bool {
        self.stepped_back
    }

    /// Whether more fails than should, and nobody knows yet who is to blame.
    pub fn is_suspected(&self) -> bool {
        self.evidence.verdict() == Verdict::Suspect
    }

    /// Whether it has taken over.
    pub fn is_probation(&self) -> bool {
        self.percent == ALL && self.gate.is_none()
    }

    /// It has this share from now on.
    pub fn set_share(&mut self, percent: u8, now: Duration) {
        (self.percent, self.since, self.before) = (percent, now, self.evidence.samples());
    }

    /// It has taken over; `before`: how the one before fared. What is known of it already is kept, where it did so at once.
    pub fn takes_over(&mut self, before: Before, now: Duration) {
        if self.is_ramp() && !self.stepped_back {
            (self.evidence, self.pace) = (Evidence::at_once(before.history), before.pace());
        }
        (self.gate, self.stepped_back) = (None, false);
        self.set_share(ALL, now);
    }

    /// It has stepped back to this share.
    pub fn steps_back(&mut self, percent: u8, now: Duration) {
        self.stepped_back = true;
        self.set_share(percent, now);
    }

    /// Where the first attempt of a job goes that may run on either version, and whether it is evidence.
    pub fn way(&self, tenant: u16, born: Seq) -> Way {
        let parts = if self.stepped_back { PARTS } else { u32::from(self.percent) * PARTS_OF_PERCENT };
        Ramp { salt: self.salt, parts, suspected: self.is_suspected() && !self.is_probation() }.way(tenant, born)
    }

    /// Whether a first attempt on a version is one that the choice sent there, and counts.
    pub fn is_evidence(&self, version_no: u32, tenant: u16, born: Seq) -> bool {
        let way = self.way(tenant, born);
        if self.drifted {
            return false;
        }
        self.is_gated() || (way.evidence && self.arm(version_no) == Some(way.arm))
    }

    /// Whether it may be given a job that may have so many attempts: one that may fail once only stays with the version that is
    /// known, as long as there is a choice.
    pub fn may_choose(&self, max_attempts: u16) -> bool {
        !self.is_ramp() || self.stepped_back || max_attempts > 1
    }

    /// Of which arm a version is.
    pub fn arm(&self, version_no: u32) -> Option<Arm> {
        if version_no == self.version_no {
            Some(Arm::Incoming)
        } else {
            (version_no == self.baseline_no).then_some(Arm::Baseline)
        }
    }

    /// A first attempt on this version came to its end, with the retry that made up for it, if there was one.
    pub fn first(&mut self, version_no: u32, tenant: u16, first: First) {
        let Some(arm) = self.arm(version_no) else { return };
        self.evidence.first(arm, tenant, first);
        if let (Some(gate), Arm::Incoming) = (&mut self.gate, arm) {
            gate.left = gate.left.saturating_sub(1);
            gate.passed |= first == First::Passed;
        }
    }

    /// Whether a failed run is made up for by the version before, at once and at no cost.
    pub fn makes_up(&self, failed: Failed) -> bool {
        match self.arm(failed.on) {
            Some(Arm::Incoming) if self.is_ramp() && !self.stepped_back => failed.made_up == 0,
            Some(Arm::Incoming) => failed.is_owed(),
            // The failures of the version before are treated alike, or the two could not be compared.
            Some(Arm::Baseline) => {
                let first = failed.attempts == 0 && failed.made_up == 0 && self.may_choose(failed.max_attempts);
                first && self.is_ramp() && !failed.for_good
            }
            None => false,
        }
    }

    /// A run that did its job took so long.
    pub fn ran(&mut self, version_no: u32, took: Duration) {
        if let Some(arm) = self.arm(version_no) {
            self.pace.ran(arm, millis(took));
        }
    }

    /// What is to be done now; `idle`: no job of the type waits, and the version holds none.
    pub fn next(&self, now: Duration, idle: bool, rollout: &Rollout) -> Step {
        match self.evidence.verdict() {
            Verdict::Worse => return Step::Withdraw,
            Verdict::Suspect if self.is_probation() => return Step::StepBack(CONTROL_PERCENT),
            // Until it is known who is to blame, its share stays.
            Verdict::Suspect if self.gate.is_none() => return Step::Wait(None),
            Verdict::Suspect | Verdict::Undecided => {}
        }
        if let Some(gate) = self.gate {
            let until = self.since + GATE_FOR;
            let passed = gate.left == 0 && gate.passed;
            return if idle || passed || now >= until { Step::TakeOver } else { Step::Wait(Some(until)) };
        }
        if self.stepped_back {
            return Step::TakeOver;
        }
        if !self.is_ramp() || self.paused || self.samples_missing(rollout) > 0 {
            return Step::Wait(None);
        }
        let until = self.since + rollout.hold;
        if now < until {
            return Step::Wait(Some(until));
        }
        let higher = rollout.steps.iter().find(|percent| **percent > self.percent);
        higher.map_or(Step::TakeOver, |percent| Step::Share(*percent))
    }

    /// First attempts that its share still waits for.
    pub fn samples_missing(&self, rollout: &Rollout) -> u64 {
        let had = self.evidence.samples() - self.before;
        if self.is_ramp() { u64::from(rollout.min_samples).saturating_sub(had) } else { 0 }
    }

    /// How long its share stays at least, from now on.
    pub fn held_for(&self, now: Duration, rollout: &Rollout) -> Duration {
        (self.since + rollout.hold).saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: u32 = 1;
    const NEW: u32 = 2;

    fn rollout() -> Rollout {
        Rollout { steps: vec![10, 50], hold: Duration::from_secs(60), min_samples: 3, ..Rollout::default() }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn passes(trial: &mut Trial, count: u64) {
        (0..count).for_each(|_| trial.first(NEW, 0, First::Passed));
    }

    #[test]
    fn a_share_grows_when_its_time_is_over_and_enough_was_tried() {
        let mut trial = Trial::ramp(NEW, OLD, 7, 10, at(0));
        passes(&mut trial, 2);
        assert_eq!(trial.next(at(61), false, &rollout()), Step::Wait(None), "two of three were tried");
        passes(&mut trial, 1);
        assert_eq!(trial.next(at(59), false, &rollout()), Step::Wait(Some(at(60))));
        assert_eq!(trial.next(at(60), false, &rollout()), Step::Share(50));
        trial.paused = true;
        assert_eq!(trial.next(at(60), false, &rollout()), Step::Wait(None));
        trial.paused = false;
        trial.set_share(50, at(60));
        assert_eq!((trial.samples_missing(&rollout()), trial.held_for(at(70), &rollout())), (3, at(50)));
        passes(&mut trial, 3);
        assert_eq!(trial.next(at(120), false, &rollout()), Step::TakeOver);
        // A plan that was changed meanwhile holds at once.
        let longer = Rollout { steps: vec![75], ..rollout() };
        assert_eq!(trial.next(at(120), false, &longer), Step::Share(75));
        trial.takes_over(Before::default(), at(120));
        assert_eq!(trial.next(at(999), false, &rollout()), Step::Wait(None), "it is on probation");
    }

    #[test]
    fn a_gate_opens_after_its_jobs_or_its_time_or_where_nothing_waits() {
        let gate = || Trial::gate(NEW, OLD, 7, Before::default(), at(0));
        assert_eq!(gate().next(at(1), true, &rollout()), Step::TakeOver);
        assert_eq!(gate().next(at(1), false, &rollout()), Step::Wait(Some(GATE_FOR)));
        assert_eq!(gate().next(GATE_FOR, false, &rollout()), Step::TakeOver);
        let mut trial = gate();
        passes(&mut trial, FIRST_ONE_BY_ONE - 1);
        assert_ne!(trial.next(at(1), false, &rollout()), Step::TakeOver);
        passes(&mut trial, 1);
        assert_eq!(trial.next(at(1), false, &rollout()), Step::TakeOver);
        let mut bad = gate();
        (0..FIRST_ONE_BY_ONE).for_each(|_| bad.first(NEW, 0, First::FailedThenPassed));
        assert_ne!(bad.next(at(1), false, &rollout()), Step::TakeOver, "none of them passed");
    }

    #[test]
    fn what_is_made_up_for_is_what_a_new_version_may_be_to_blame_for() {
        let failed = Failed { on: NEW, attempts: 0, max_attempts: 3, made_up: 0, dies: false, for_good: false };
        let last = Failed { attempts: 2, dies: true, ..failed };
        let once = Failed { max_attempts: 1, dies: true, ..failed };
        let ramp = Trial::ramp(NEW, OLD, 7, 10, at(0));
        let probation = Trial::probation(NEW, OLD, 7, Before::default(), at(0));
        let cases = [
            (&ramp, failed, true),
            (&ramp, Failed { for_good: true, dies: true, ..failed }, true),
            (&ramp, Failed { made_up: 1, ..failed }, false),
            // Both versions are treated alike, or they could not be compared.
            (&ramp, Failed { on: OLD, ..failed }, true),
            (&ramp, Failed { on: OLD, for_good: true, ..failed }, false),
            (&ramp, Failed { on: OLD, ..once }, false),
            (&ramp, Failed { on: OLD, attempts: 1, ..failed }, false),
            (&ramp, Failed { on: 9, ..failed }, false),
            (&probation, failed, true),
            (&probation, once, true),
            (&probation, last, true),
            (&probation, Failed { made_up: 1, ..last }, true),
            (&probation, Failed { made_up: 2, ..last }, false),
            (&probation, Failed { attempts: 1, ..failed }, false),
            (&probation, Failed { on: OLD, ..failed }, false),
        ];
        for (trial, failed, expected) in cases {
            assert_eq!(trial.makes_up(failed), expected, "{} % {failed:?}", trial.percent);
        }
    }

    #[test]
    fn a_version_whose_runs_take_longer_is_told_of() {
        let before = Before { history: History { attempts: 1000, failed: 0 }, p95_ms: Some(5) };
        let mut trial = Trial::probation(NEW, OLD, 7, before, at(0));
        (0..200).for_each(|n| trial.ran(NEW, Duration::from_millis(if n % 25 == 0 { 9 } else { 2 })));
        assert_eq!(trial.pace.slower(), None, "as many as before take long");
        (0..200).for_each(|_| trial.ran(NEW, Duration::from_millis(9)));
        let slower = trial.pace.slower().unwrap().sentence("v2", "v1");
        assert!(slower.contains("runs of v2 took over 5 ms"), "{slower}");
        assert_eq!(trial.next(at(1), false, &rollout()), Step::Wait(None), "it is no reason to withdraw it");
    }
}
