//! Which jobs a ramp takes: a stable choice by tenant, or by job where it has none.
//!
//! Promise: the same key is chosen or not chosen whenever it is asked about, by every release of biotope; a larger share
//! only adds keys. Another salt chooses others: it is not always the same tenants who go first.

use super::evidence::CONTROL_PERCENT;
use super::wager::Arm;
use crate::types::Seq;

/// Parts of which a share is made: hundredths of a percent.
pub const PARTS: u32 = 10_000;
/// Parts of a percent.
pub const PARTS_OF_PERCENT: u32 = PARTS / 100;

/// Under a suspicion, the share of what a ramp takes that goes on to the new version: where it takes half or more, and where
/// it takes less. The fewer, the more is known of the old version for each job of the new one; the more, the sooner.
const CONTROL: [u32; 2] = [CONTROL_PERCENT as u32 * PARTS_OF_PERCENT, 15 * PARTS_OF_PERCENT];

/// How far a type has gone over to a new version. At once is all of it: [`PARTS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ramp {
    /// The ramp's own number.
    pub salt: u64,
    /// The share that it takes, in [`PARTS`].
    pub parts: u32,
    /// Whether the new version is suspected ([`super::Verdict::Suspect`]): then most of what the ramp takes goes to the old
    /// version, to be compared with. Which, is chosen by job: a tenant's jobs go both ways, and tenants that fail more than
    /// others are on both sides.
    pub suspected: bool,
}

/// Where the first attempt of a job goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// To which version.
    pub arm: Arm,
    /// Whether what becomes of it is evidence: under a suspicion only of what the ramp takes.
    pub evidence: bool,
}

impl Ramp {
    /// Where the first attempt goes of a job that may run on either version.
    pub fn way(&self, tenant: u16, born: Seq) -> Way {
        let taken = chosen(self.salt, Key::of(tenant, born), self.parts);
        if !self.suspected {
            return Way { arm: if taken { Arm::Incoming } else { Arm::Baseline }, evidence: true };
        }
        let [of_much, of_little] = CONTROL;
        let control = if self.parts >= PARTS / 2 { of_much } else { of_little };
        let goes_on = taken && chosen(!self.salt, Key::Job(born), control);
        Way { arm: if goes_on { Arm::Incoming } else { Arm::Baseline }, evidence: taken }
    }
}

/// By what a job is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// All jobs of a tenant go the same way.
    Tenant(u16),
    /// A job of no tenant goes its own.
    Job(Seq),
}

impl Key {
    /// The key of a job, by the hash of its tenant (0: it has none) and the seq that it was born with.
    pub fn of(tenant: u16, born: Seq) -> Self {
        if tenant == 0 { Self::Job(born) } else { Self::Tenant(tenant) }
    }
}

/// Whether the ramp with this salt takes the jobs of this key, at a share of so many [`PARTS`].
pub fn chosen(salt: u64, key: Key, parts: u32) -> bool {
    place(salt, key) < parts
}

/// Where a key stands in the order in which a ramp takes them, below [`PARTS`].
fn place(salt: u64, key: Key) -> u32 {
    let (kind, value) = match key {
        Key::Tenant(tenant) => (1, u64::from(tenant)),
        Key::Job(seq) => (2, seq),
    };
    let mixed = mix(mix(mix(salt) ^ kind) ^ value);
    // The upper half, scaled to the parts: no remainder, so no part is larger than another by more than one in 400,000.
    let scaled = ((mixed >> 32) * u64::from(PARTS)) >> 32;
    u32::try_from(scaled).unwrap_or(PARTS)
}

/// The step of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014): every bit of the
/// result hangs on every bit of what is given, and no two numbers give the same. It must never change.
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> impl Strategy<Value = Key> {
        (any::<bool>(), any::<u64>(), any::<u16>())
            .prop_map(|(by_tenant, seq, tenant)| if by_tenant { Key::Tenant(tenant) } else { Key::Job(seq) })
    }

    proptest! {
        #[test]
        fn a_larger_share_only_adds(salt: u64, key in key(), some in 0..=PARTS, more in 0..=PARTS) {
            let (less, more) = (some.min(more), some.max(more));
            prop_assert!(!chosen(salt, key, less) || chosen(salt, key, more));
            prop_assert!(!chosen(salt, key, 0) && chosen(salt, key, PARTS));
        }
    }

    #[test]
    fn the_share_is_what_was_asked_for() {
        for salt in [0, 1, 2, 77, u64::MAX] {
            for parts in [1, 10, 100, 1000, 5000, 9000] {
                let share = f64::from(parts) / f64::from(PARTS);
                let close = |count: usize, of: f64| {
                    let off = (count as f64 - of * share).abs();
                    assert!(off <= 5.0 * (of * share * (1.0 - share)).sqrt(), "{count} of {of}, {parts} parts, {salt}");
                };
                close((1..=u16::MAX).filter(|tenant| chosen(salt, Key::Tenant(*tenant), parts)).count(), 65_535.0);
                close((1..=200_000).filter(|seq| chosen(salt, Key::Job(*seq), parts)).count(), 200_000.0);
            }
        }
    }

    #[test]
    fn under_a_suspicion_most_of_what_the_ramp_takes_goes_back_and_is_compared() {
        for (parts, control) in [(PARTS, 0.05), (PARTS / 2, 0.05), (PARTS / 10, 0.15)] {
            let ramp = Ramp { salt: 5, parts, suspected: false };
            let (mut taken, mut gone_on) = (0, 0);
            for born in 0..100_000 {
                let tenant = u16::try_from(born % 3000).unwrap();
                let (before, under) = (ramp.way(tenant, born), Ramp { suspected: true, ..ramp }.way(tenant, born));
                assert!(before.evidence);
                assert_eq!(under.evidence, before.arm == Arm::Incoming, "{born}");
                assert!(under.arm == Arm::Baseline || before.arm == Arm::Incoming, "{born}");
                taken += u32::from(under.evidence);
                gone_on += u32::from(under.arm == Arm::Incoming);
            }
            let share = f64::from(gone_on) / f64::from(taken);
            assert!((share - control).abs() < 0.02, "{parts}: {share}");
        }
    }

    #[test]
    fn another_ramp_begins_with_others() {
        let first_tenth = |salt| (1..=u16::MAX).filter(move |tenant| chosen(salt, Key::Tenant(*tenant), 1000));
        let again = first_tenth(1).filter(|tenant| chosen(2, Key::Tenant(*tenant), 1000)).count();
        assert!((500..800).contains(&again), "{again} of {} are first again", first_tenth(1).count());
    }

    #[test]
    fn a_job_of_a_tenant_goes_where_the_tenant_goes() {
        assert_eq!((Key::of(7, 1), Key::of(7, 2), Key::of(0, 2)), (Key::Tenant(7), Key::Tenant(7), Key::Job(2)));
    }

    /// A ramp that goes on under another release chooses the same jobs: these places must never change.
    #[test]
    fn places_are_the_same_in_every_release() {
        let found: Vec<u32> = [Key::Tenant(1), Key::Tenant(65_535), Key::Job(1), Key::Job(u64::MAX)]
            .into_iter()
            .flat_map(|key| [0, 1, 0xdead_beef].map(|salt| place(salt, key)))
            .collect();
        assert_eq!(found, GOLDEN);
    }

    const GOLDEN: [u32; 12] = [2747, 4397, 5308, 7742, 9782, 7947, 3193, 7190, 1683, 692, 7448, 6258];
}
