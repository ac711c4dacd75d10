//! A tenant as a small number, which a waiting job has in memory: who shares a ramp is chosen by it, without the disk.
//!
//! Pure. The number is the same in every log and every release, so that a choice by it outlives both.

use siphasher::sip::SipHasher13;
use std::hash::Hasher;

/// The number of a tenant, never 0; 0 for a job that has none. It is SipHash-1-3 of the tenant's bytes, with a key of
/// zeros, modulo 65,535, plus one. Two tenants may have the same number.
pub fn tenant_no(tenant: Option<&str>) -> u16 {
    let Some(tenant) = tenant else { return 0 };
    let mut hasher = SipHasher13::new();
    hasher.write(tenant.as_bytes());
    let below = hasher.finish() % u64::from(u16::MAX);
    u16::try_from(below).unwrap_or(0) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_the_number_that_it_always_had() {
        let numbers = ["", "acme", "globex", "München", "tenant-17"].map(|tenant| tenant_no(Some(tenant)));
        assert_eq!(
            numbers,
            [57751, 22948, 31203, 51419, 25632],
            "a release that gives other numbers moves tenants about on a ramp"
        );
        assert_eq!(tenant_no(None), 0);
    }

    #[test]
    fn many_tenants_are_spread_over_all_numbers_and_none_has_the_number_of_nobody() {
        let mut of_tenths = [0_u32; 10];
        for n in 0..100_000 {
            let number = tenant_no(Some(&format!("tenant-{n}")));
            assert_ne!(number, 0);
            of_tenths[usize::from(number - 1) * 10 / 65_535] += 1;
        }
        assert!(of_tenths.iter().all(|tenth| (9_500..10_500).contains(tenth)), "{of_tenths:?}");
    }
}
