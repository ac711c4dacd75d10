//! Places for connections: how many there are, who has one, and who gives his up.
//!
//! Owns the bounds in number and time. A connection is either worked for, or waited for: until a request comes, its head or
//! body goes on, or its answer is read. When there are too many, from one address or from all, the one that has been waited
//! for longest goes, so that who has something to ask always gets in; when what is waited for takes too long, it goes, too.
//! A connection that is worked for never does.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::Clock;
use crate::config::Serving;
use crate::engine::Handle;

/// How often it is looked who takes too long, while anyone is connected.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How long a place that is given up may take to become free.
const LEAVING_MAX: Duration = Duration::from_millis(50);
/// Times that somebody is asked to leave for one who comes.
const TRIES: usize = 20;
/// Descriptors that the log, the index, programs and the like need beside those of connections.
const DESCRIPTORS_KEPT: u64 = 256;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// No byte of a request is here.
    Idle = 0,
    /// The head comes in.
    Head = 1,
    /// The rest of the body is waited for.
    Body = 2,
    /// Its request is worked on, or its answer is under way.
    Work = 3,
}

/// One connection's place. Its own task writes, whoever looks for places reads; each value stands for itself, so relaxed.
pub(super) struct Seat {
    clock: Arc<dyn Clock>,
    phase: AtomicU8,
    /// Since when it is in that phase; of a body, since when nothing came. Milliseconds of the clock.
    since: AtomicU64,
    /// Since when its reader takes nothing; 0: he does, or there is nothing to take.
    unread_since: AtomicU64,
    /// It was asked to leave, and has not heard it yet.
    leaving: AtomicBool,
    leave: Notify,
}

impl Seat {
    fn new(clock: Arc<dyn Clock>) -> Self {
        let since = AtomicU64::new(ms(clock.mono()));
        let (phase, unread_since) = (AtomicU8::new(Phase::Idle as u8), AtomicU64::new(0));
        Self { clock, phase, since, unread_since, leaving: AtomicBool::new(false), leave: Notify::new() }
    }

    fn now(&self) -> u64 {
        ms(self.clock.mono())
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.since.store(self.now(), Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    pub(super) fn is(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::Relaxed) == phase as u8
    }

    /// Bytes came in.
    pub(super) fn read(&self) {
        if self.is(Phase::Idle) {
            self.enter(Phase::Head);
        } else if self.is(Phase::Body) {
            self.since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Bytes were to go out: whether some did.
    pub(super) fn wrote(&self, some: bool) {
        if some {
            self.unread_since.store(0, Ordering::Relaxed);
        } else if self.unread_since.load(Ordering::Relaxed) == 0 {
            self.unread_since.store(self.now().max(1), Ordering::Relaxed);
        }
    }

    /// Since when its other end is waited for; `None`: it is worked for.
    pub(super) fn waited_for_since(&self) -> Option<u64> {
        let unread = self.unread_since.load(Ordering::Relaxed);
        match unread {
            0 if self.is(Phase::Work) => None,
            0 => Some(self.since.load(Ordering::Relaxed)),
            since => Some(since),
        }
    }

    /// Whether its other end takes longer than it may.
    fn is_late(&self, now: u64, bounds: &Serving) -> bool {
        let lasts = |since: u64, most: Duration| now.saturating_sub(since) > ms(most);
        let unread = self.unread_since.load(Ordering::Relaxed);
        let since = self.since.load(Ordering::Relaxed);
        let most = [bounds.idle_timeout, bounds.head_timeout, bounds.body_timeout];
        let most = most.get(usize::from(self.phase.load(Ordering::Relaxed)));
        (unread > 0 && lasts(unread, bounds.write_timeout)) || most.is_some_and(|most| lasts(since, *most))
    }

    fn ask_to_leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
        self.leave.notify_one();
    }

    /// Returns when this connection is to go, with whether it is still waited for: else a request came meanwhile.
    pub(super) async fn asked_to_leave(&self) -> bool {
        self.leave.notified().await;
        self.leaving.store(false, Ordering::Relaxed);
        self.waited_for_since().is_some()
    }
}

/// All places.
pub(super) struct Places {
    handle: Handle,
    clock: Arc<dyn Clock>,
    taken: Mutex<Taken>,
    /// Somebody left.
    freed: Notify,
    /// Somebody came.
    came: Notify,
}

#[derive(Default)]
struct Taken {
    next: u64,
    seats: HashMap<u64, (IpAddr, Arc<Seat>)>,
    of_peer: HashMap<IpAddr, u32>,
}

impl Taken {
    /// Asks the one to leave that has been waited for longest; of those of one address, if one is given. Whether anybody leaves.
    fn make_room(&self, of: Option<IpAddr>) -> bool {
        let mut seats = self.seats.values().filter(|(peer, _)| of.is_none_or(|of| of == *peer)).map(|(_, seat)| seat);
        let leaving = seats.clone().any(|seat| seat.leaving.load(Ordering::Relaxed));
        let waited_for = seats.by_ref().filter_map(|seat| Some((seat.waited_for_since()?, seat)));
        let longest =
            waited_for.filter(|(_, seat)| !seat.leaving.load(Ordering::Relaxed)).min_by_key(|(since, _)| *since);
        if let Some((_, seat)) = longest {
            seat.ask_to_leave();
        }
        leaving || longest.is_some()
    }
}

/// A place that is taken; dropped, it is free again.
pub(super) struct Place {
    places: Arc<Places>,
    key: u64,
    pub(super) seat: Arc<Seat>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        if let Some((peer, _)) = taken.seats.remove(&self.key)
            && let Some(count) = taken.of_peer.get_mut(&peer)
        {
            *count -= 1;
            if *count == 0 {
                taken.of_peer.remove(&peer);
            }
        }
        drop(taken);
        self.places.freed.notify_one();
    }
}

enum Try {
    Taken(Place),
    SomebodyLeaves,
    AllAtWork,
}

impl Places {
    pub(super) fn new(handle: Handle, clock: Arc<dyn Clock>) -> Arc<Self> {
        let (freed, came) = (Notify::new(), Notify::new());
        Arc::new(Self { handle, clock, taken: Mutex::default(), freed, came })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Nothing that panics is done under it.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for one who came from there; asks others to leave for it. `None`: all are worked for.
    pub(super) async fn take(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        for _ in 0..TRIES {
            match self.try_take(peer) {
                Try::Taken(place) => return Some(place),
                Try::AllAtWork => return None,
                Try::SomebodyLeaves => drop(tokio::time::timeout(LEAVING_MAX, self.freed.notified()).await),
            }
        }
        None
    }

    fn try_take(self: &Arc<Self>, peer: IpAddr) -> Try {
        let peer = whose(peer);
        let bounds = self.handle.serving();
        let mut taken = self.taken();
        let of_peer = taken.of_peer.get(&peer).copied().unwrap_or(0);
        let narrow = match () {
            () if of_peer >= bounds.peer_connections_max => Some(Some(peer)),
            () if taken.seats.len() >= most(&bounds) => Some(None),
            () => None,
        };
        if let Some(of) = narrow {
            return if taken.make_room(of) { Try::SomebodyLeaves } else { Try::AllAtWork };
        }
        let (key, seat) = (taken.next, Arc::new(Seat::new(Arc::clone(&self.clock))));
        taken.next += 1;
        taken.seats.insert(key, (peer, Arc::clone(&seat)));
        *taken.of_peer.entry(peer).or_default() += 1;
        drop(taken);
        self.came.notify_one();
        Try::Taken(Place { places: Arc::clone(self), key, seat })
    }

    /// Nothing more can be opened: whoever has been waited for longest goes.
    pub(super) fn make_room(&self) {
        self.taken().make_room(None);
    }

    /// Asks those to leave that take longer than they may, again and again.
    pub(super) async fn watch(&self) {
        loop {
            let now = ms(self.clock.mono());
            let bounds = self.handle.serving();
            let anybody = {
                let taken = self.taken();
                let late = taken.seats.values().map(|(_, seat)| seat).filter(|seat| seat.is_late(now, &bounds));
                late.for_each(|seat| seat.ask_to_leave());
                !taken.seats.is_empty()
            };
            match anybody {
                true => tokio::time::sleep(SWEEP_EVERY).await,
                false => self.came.notified().await,
            }
        }
    }
}

/// Places that there are: as many as the config says, as far as the process may have so many descriptors.
fn most(bounds: &Serving) -> usize {
    let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let left = descriptors.map(|all| all.saturating_sub(DESCRIPTORS_KEPT).max(all / 2));
    let left = left.and_then(|left| usize::try_from(left).ok()).unwrap_or(usize::MAX);
    left.min(bounds.connections_max as usize)
}

/// Who is counted as one: an address, or all of a network that one customer of a provider gets.
pub(super) fn whose(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            let [a, b, c, d, ..] = address.segments();
            [a, b, c, d, 0, 0, 0, 0].into()
        }
        other => other,
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::RealClock;

    fn seat(phase: Phase, since: u64) -> Arc<Seat> {
        let seat = Seat::new(RealClock::shared());
        seat.enter(phase);
        seat.since.store(since, Ordering::Relaxed);
        Arc::new(seat)
    }

    fn taken(seats: &[(&str, &Arc<Seat>)]) -> Taken {
        let mut taken = Taken::default();
        for (peer, seat) in seats {
            taken.seats.insert(taken.next, (peer.parse().unwrap(), Arc::clone(seat)));
            taken.next += 1;
        }
        taken
    }

    fn leaving(seat: &Seat) -> bool {
        seat.leaving.load(Ordering::Relaxed)
    }

    #[test]
    fn who_has_been_waited_for_longest_goes_first_and_who_is_worked_for_never() {
        let (work, head, idle, body) =
            (seat(Phase::Work, 1), seat(Phase::Head, 2), seat(Phase::Idle, 3), seat(Phase::Body, 4));
        let all = taken(&[("10.0.0.1", &work), ("10.0.0.1", &idle), ("10.0.0.2", &head), ("10.0.0.1", &body)]);
        assert!(all.make_room(Some("10.0.0.1".parse().unwrap())));
        assert!(leaving(&idle) && !leaving(&head), "of that address alone");
        assert!(all.make_room(None));
        assert!(leaving(&head) && !leaving(&body), "of all");
        assert!(all.make_room(None) && leaving(&body) && !leaving(&work));
        assert!(all.make_room(None), "those who leave are waited for");
        assert!(!taken(&[("10.0.0.1", &work)]).make_room(None), "nobody is to go who is worked for");
        work.wrote(false);
        assert!(taken(&[("10.0.0.1", &work)]).make_room(None) && leaving(&work), "but for who reads no answer");
    }

    #[test]
    fn each_wait_has_its_own_bound() {
        let bounds = Serving {
            idle_timeout: Duration::from_millis(100),
            head_timeout: Duration::from_millis(10),
            body_timeout: Duration::from_millis(20),
            write_timeout: Duration::from_millis(30),
            ..Serving::default()
        };
        for (phase, most) in [(Phase::Idle, 100), (Phase::Head, 10), (Phase::Body, 20)] {
            let seat = seat(phase, 1000);
            assert!(!seat.is_late(1000 + most, &bounds) && seat.is_late(1001 + most, &bounds), "{phase:?}");
        }
        let work = seat(Phase::Work, 1000);
        assert!(!work.is_late(u64::MAX, &bounds));
        work.wrote(false);
        let since = work.unread_since.load(Ordering::Relaxed);
        work.wrote(false);
        assert_eq!(since, work.unread_since.load(Ordering::Relaxed), "since the first time");
        assert!(!work.is_late(since + 30, &bounds) && work.is_late(since + 31, &bounds));
        work.wrote(true);
        assert!(!work.is_late(u64::MAX, &bounds));
    }

    #[test]
    fn a_customers_network_counts_as_one() {
        let whose = |text: &str| whose(text.parse().unwrap()).to_string();
        assert_eq!(whose("2001:db8:1:2:3:4:5:6"), whose("2001:db8:1:2::9"));
        assert_ne!(whose("2001:db8:1:2::9"), whose("2001:db8:1:3::9"));
        assert_eq!(whose("::ffff:10.0.0.1"), "10.0.0.1");
        assert_eq!(whose("::1"), "::1");
    }
}
