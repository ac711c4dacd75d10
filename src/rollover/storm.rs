//! Storm: nearly all attempts of a type fail, so that neither a job nor a version is to blame.
//!
//! Owns the last attempts of a type, a bit each. Says only whether there is a storm, and when a held retry may go; holds no
//! job itself.
//!
//! In a storm first attempts go on as ever. Retries are held, but for one at a time, the oldest that is due: the next when
//! the one before has passed, or [`PAUSE`] after it failed ([`Storm::pause`]). So attempts never cease, even where nothing
//! fresh comes in, and a storm that is over ends within [`ATTEMPTS`] of them, at full speed once they pass.
//!
//! It begins above [`BEGINS_ABOVE`] and ends below [`ENDS_BELOW`], so that it does not flap.

use std::time::Duration;

/// Attempts that are looked at.
pub const ATTEMPTS: u32 = 50;
/// A storm begins when more of them failed than this: 90 of 100.
pub const BEGINS_ABOVE: u32 = 45;
/// A storm ends when fewer of them failed than this: 80 of 100.
pub const ENDS_BELOW: u32 = 40;
/// How long nothing that is held begins after a held retry was let go and failed.
pub const PAUSE: Duration = Duration::from_secs(1);

const _: () = assert!(ENDS_BELOW < BEGINS_ABOVE && BEGINS_ABOVE < ATTEMPTS && ATTEMPTS <= u64::BITS);

/// What became of a type's last attempts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Storm {
    /// The last attempts, the latest lowest: 1 failed.
    failed: u64,
    /// Attempts, up to as many as are looked at.
    seen: u32,
    raging: bool,
}

impl Storm {
    /// An attempt of the type ended, on whichever version.
    pub fn attempt(&mut self, failed: bool) {
        self.failed = (self.failed << 1 | u64::from(failed)) & (u64::MAX >> (u64::BITS - ATTEMPTS));
        self.seen = (self.seen + 1).min(ATTEMPTS);
        let failures = self.failures();
        self.raging = if self.raging { failures >= ENDS_BELOW } else { failures > BEGINS_ABOVE };
    }

    /// Whether there is a storm.
    pub fn is_storm(&self) -> bool {
        self.raging
    }

    /// How long the next held retry waits after the one before ended so.
    pub fn pause(&self, failed: bool) -> Duration {
        if self.raging && failed { PAUSE } else { Duration::ZERO }
    }

    /// Failures among the last attempts, and how many these are.
    pub fn shown(&self) -> (u32, u32) {
        (self.failures(), self.seen)
    }

    fn failures(&self) -> u32 {
        self.failed.count_ones()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(attempts: impl IntoIterator<Item = bool>) -> Storm {
        let mut storm = Storm::default();
        attempts.into_iter().for_each(|failed| storm.attempt(failed));
        storm
    }

    #[test]
    fn over_ninety_of_a_hundred_of_the_last_fifty_are_a_storm() {
        assert!(!after([true; 45]).is_storm(), "45 are not over 90 of 100");
        assert!(after([true; 46]).is_storm());
        assert!(!after((0..500).map(|n| n % 10 != 0)).is_storm(), "ninety are not over ninety");
        assert!(after((0..500).map(|n| n % 13 != 0)).is_storm());
        assert_eq!(after((0..500).map(|n| n % 2 == 0)).shown(), (25, 50), "older ones are forgotten");
    }

    #[test]
    fn a_storm_ends_when_attempts_pass_again() {
        let mut storm = after([true; 60]);
        let passes = (1..).find(|_| {
            storm.attempt(false);
            !storm.is_storm()
        });
        assert_eq!(passes, Some(11));
    }

    #[test]
    fn held_retries_go_one_a_second_until_they_pass() {
        let mut storm = after([true; 50]);
        assert_eq!((storm.pause(true), storm.pause(false)), (PAUSE, Duration::ZERO));
        (0..20).for_each(|_| storm.attempt(false));
        assert_eq!(storm.pause(true), Duration::ZERO, "it is over, and nothing is held");
    }

    #[test]
    fn a_storm_does_not_flap() {
        // Four of five fail for long: no storm begins, and none that goes on ends.
        let mut calm = after([false; 50]);
        let mut storm = after([true; 50]);
        for n in 0..1000 {
            calm.attempt(n % 5 != 0);
            storm.attempt(n % 5 != 0);
            assert!(!calm.is_storm() && storm.is_storm(), "{n}");
        }
    }
}
