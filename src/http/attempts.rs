//! Wrong tokens: counted per address, answered more and more slowly, and only so many at a time.
//!
//! Who shows a right one is never held up by those who do not: others may sit behind the same address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::places::whose;
use crate::clock::Clock;

/// How long the first wrong one waits for its answer; doubled with each.
const FIRST_DELAY: Duration = Duration::from_millis(50);
/// Longest such wait.
const DELAY_MAX: Duration = Duration::from_secs(3);
/// Wrong ones of one address that wait at once; more are turned away.
const WAITING_MAX: u32 = 8;
/// After so long without one it is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
/// Addresses that are remembered; of more the one is forgotten that was quiet for longest.
const ADDRESSES_MAX: usize = 4096;

#[derive(Debug, Default, Clone, Copy)]
struct Failed {
    count: u32,
    waiting: u32,
    last: Duration,
}

/// Wrong tokens of each address.
pub(super) struct Attempts {
    clock: Arc<dyn Clock>,
    of: Mutex<HashMap<IpAddr, Failed>>,
}

/// A wrong one that waits for its answer; dropped, it has it.
pub(super) struct Waiting<'a> {
    attempts: &'a Attempts,
    address: IpAddr,
    pub(super) delay: Duration,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(failed) = self.attempts.of().get_mut(&self.address) {
            failed.waiting = failed.waiting.saturating_sub(1);
        }
    }
}

impl Attempts {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, of: Mutex::default() }
    }

    fn of(&self) -> MutexGuard<'_, HashMap<IpAddr, Failed>> {
        // Nothing that panics is done under it.
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a wrong one. `None`: too many of that address wait already.
    pub(super) fn failed(&self, address: IpAddr) -> Option<Waiting<'_>> {
        let (address, now) = (whose(address), self.clock.mono());
        let mut of = self.of();
        if !of.contains_key(&address) && of.len() >= ADDRESSES_MAX {
            of.retain(|_, failed| failed.waiting > 0 || now.saturating_sub(failed.last) < FORGOTTEN_AFTER);
            if of.len() >= ADDRESSES_MAX {
                let quiet = of.iter().min_by_key(|(_, failed)| failed.last).map(|(address, _)| *address);
                quiet.map(|quiet| of.remove(&quiet));
            }
        }
        let failed = of.entry(address).or_default();
        if now.saturating_sub(failed.last) >= FORGOTTEN_AFTER {
            failed.count = 0;
        }
        failed.count = failed.count.saturating_add(1);
        failed.last = now;
        if failed.waiting >= WAITING_MAX {
            return None;
        }
        failed.waiting += 1;
        let doubled = FIRST_DELAY.saturating_mul(1 << (failed.count - 1).min(16));
        Some(Waiting { attempts: self, address, delay: doubled.min(DELAY_MAX) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::RealClock;

    #[test]
    fn s2_wrong_tokens_are_answered_more_and_more_slowly_and_only_so_many_at_a_time() {
        let attempts = Attempts::new(RealClock::shared());
        let (one, other): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let delays: Vec<u128> = (0..8).map(|_| attempts.failed(one).unwrap().delay.as_millis()).collect();
        assert_eq!(delays, [50, 100, 200, 400, 800, 1600, 3000, 3000]);
        let waiting: Vec<_> = (0..WAITING_MAX).map(|_| attempts.failed(one).unwrap()).collect();
        assert!(attempts.failed(one).is_none());
        assert_eq!(attempts.failed(other).unwrap().delay, FIRST_DELAY, "another address is another matter");
        drop(waiting);
        assert_eq!(attempts.failed(one).unwrap().delay, DELAY_MAX);
    }

    #[test]
    fn s4_only_so_many_addresses_are_remembered() {
        let attempts = Attempts::new(RealClock::shared());
        for number in (0_u32..).take(ADDRESSES_MAX + 100) {
            attempts.failed(std::net::Ipv4Addr::from_bits(number).into()).unwrap();
        }
        assert_eq!(attempts.of().len(), ADDRESSES_MAX);
    }
}
