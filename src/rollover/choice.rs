//! Which jobs a ramp takes: a stable choice by tenant, or by job where it has none.
//!
//! Promise: the same key is chosen or not chosen whenever it is asked about, by every release of biotope; a larger share
//! only adds keys. Another salt chooses others: it is not always the same tenants who go first.

use crate::types::Seq;

/// Parts of which a share is made: hundredths of a percent.
pub const PARTS: u32 = 10_000;
/// Parts of a percent.
pub const PARTS_OF_PERCENT: u32 = PARTS / 100;

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
