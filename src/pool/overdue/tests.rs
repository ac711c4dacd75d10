//! What a look at a thread says, at every point of a batch.

use super::*;
use crate::clock::{Clock, RealClock};
use crate::types::Fence;
use crate::worker::Cutoff;
use crate::worker::run::Stop;

const SECOND: Duration = Duration::from_secs(1);

fn lease(counter: u64) -> Lease {
    Lease { born: counter, fence: Fence { epoch: 1, counter } }
}

/// A board, and why runs 1 to 3 shall stop.
struct Told(Arc<Board>);

impl Told {
    fn new() -> Self {
        Self(Board::new(Cutoff::new().unwrap(), RealClock::shared()))
    }

    fn stops(&self) -> [Option<Stop>; 3] {
        [1, 2, 3].map(|n| self.0.run(lease(n), 0).stop())
    }
}

/// A slot that holds these since second 100; 10 s for a run, 5 s from when it was told.
fn holding(leases: &[u64]) -> Slot {
    let slot = Slot::default();
    slot.begins(leases.iter().map(|n| lease(*n)), 100 * SECOND, 10 * SECOND, 5 * SECOND);
    slot
}

#[test]
fn a_run_is_told_at_its_timeout_and_its_thread_is_abandoned_when_it_does_not_heed_it() {
    let told = Told::new();
    let slot = holding(&[1, 2, 3]);
    assert_eq!(slot.look(109 * SECOND, &told.0), Look::Again(110 * SECOND));
    assert!(slot.answers(lease(1), 105 * SECOND));
    // Each run of a batch has the whole time.
    assert_eq!(slot.look(114 * SECOND, &told.0), Look::Again(115 * SECOND));
    assert_eq!(told.stops(), [None; 3]);
    assert_eq!(slot.look(116 * SECOND, &told.0), Look::Again(121 * SECOND));
    assert_eq!(told.stops(), [None, Some(Stop::Overdue), None]);
    assert_eq!(slot.look(120 * SECOND, &told.0), Look::Again(121 * SECOND));
    let abandon =
        Look::Abandon { run: lease(2), took: 16 * SECOND, timeout: 10 * SECOND, rest: vec![lease(3)], leaves: false };
    assert_eq!(slot.look(121 * SECOND, &told.0), abandon);
    assert_eq!(told.stops(), [None, Some(Stop::Overdue), Some(Stop::Cancelled)], "the third is to be passed over");
    assert!(slot.is_abandoned() && !slot.answers(lease(2), 122 * SECOND) && !slot.answers(lease(3), 122 * SECOND));
    assert_eq!(slot.look(200 * SECOND, &told.0), Look::Idle, "it is abandoned once");
}

#[test]
fn an_answer_in_time_after_it_was_told_counts_and_the_next_run_begins_anew() {
    let told = Told::new();
    let slot = holding(&[1, 2]);
    assert_eq!(slot.look(110 * SECOND, &told.0), Look::Again(115 * SECOND));
    assert!(slot.answers(lease(1), 114 * SECOND) && !slot.is_abandoned());
    assert_eq!(slot.look(115 * SECOND, &told.0), Look::Again(124 * SECOND));
    assert!(slot.answers(lease(2), 115 * SECOND));
    assert_eq!(slot.look(500 * SECOND, &told.0), Look::Idle);
    assert_eq!(Slot::default().look(SECOND, &told.0), Look::Idle);
}

#[test]
fn however_late_one_looks_a_run_has_its_time_from_when_it_was_told() {
    let told = Told::new();
    let slot = holding(&[1]);
    assert_eq!(slot.look(1000 * SECOND, &told.0), Look::Again(1005 * SECOND));
    assert_eq!(slot.look(1001 * SECOND, &told.0), Look::Again(1005 * SECOND));
    slot.leaves();
    let abandoned = slot.look(1005 * SECOND, &told.0);
    assert!(matches!(abandoned, Look::Abandon { leaves: true, .. }), "{abandoned:?}");
}

/// A clock that stands still.
struct At(Duration);

impl Clock for At {
    fn wall_ms(&self) -> u64 {
        0
    }

    fn mono(&self) -> Duration {
        self.0
    }
}

#[test]
fn a_run_that_asks_for_more_time_is_told_when_that_is_over_and_each_run_asks_for_itself() {
    let told = Told(Board::new(Cutoff::new().unwrap(), Arc::new(At(105 * SECOND))));
    let slot = holding(&[1, 2]);
    // It asks for a minute, and has until second 120.
    told.0.run(lease(1), 0).extend(60 * SECOND, 120 * SECOND);
    assert_eq!(slot.look(111 * SECOND, &told.0), Look::Again(120 * SECOND));
    assert_eq!((slot.look(120 * SECOND, &told.0), told.stops()[0]), (Look::Again(125 * SECOND), Some(Stop::Overdue)));
    // Told, it asks once more, and gets some.
    told.0.run(lease(1), 0).extend(60 * SECOND, 123 * SECOND);
    assert_eq!((slot.look(121 * SECOND, &told.0), told.stops()[0]), (Look::Again(123 * SECOND), None));
    assert!(slot.answers(lease(1), 122 * SECOND));
    assert_eq!(slot.look(131 * SECOND, &told.0), Look::Again(132 * SECOND), "the next one has its own time");
}
