//! The only place that reads a clock. Everything else is told the time, or asks a [`Clock`].

use std::sync::Arc;
use std::time::Duration;

use crate::types::UnixMs;

/// A source of time. The real one is [`RealClock`]; tests and simulations bring their own.
pub trait Clock: Send + Sync {
    /// Milliseconds since the Unix epoch, by the wall clock: may jump either way. For schedules and for people.
    fn wall_ms(&self) -> UnixMs;

    /// Time since an arbitrary start, suspend included; never goes back. For timeouts and leases.
    fn mono(&self) -> Duration;
}

/// The machine's clocks: CLOCK_REALTIME, and CLOCK_BOOTTIME, since `Instant` stops while the machine sleeps.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealClock;

impl RealClock {
    /// A shared handle to it.
    pub fn shared() -> Arc<dyn Clock> {
        Arc::new(Self)
    }
}

impl Clock for RealClock {
    fn wall_ms(&self) -> UnixMs {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        // Before 1970 is no time that a job was ever made: clamp instead of failing.
        u64::try_from(now.tv_sec).unwrap_or(0) * 1000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
    }

    fn mono(&self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
    }
}

/// CLOCK_MONOTONIC in microseconds: the clock by which systemd compares when a reload began with when it asked for it.
pub fn monotonic_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1000
}
