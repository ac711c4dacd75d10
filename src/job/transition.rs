//! The job's life as one table: which state follows which change, and what is illegal.
//!
//! Pure. `tests/fixtures/transitions.txt` shows the whole table; a test compares it.

use serde::{Deserialize, Serialize};

/// The state of a live job. Parked is Ready of a type that no live version serves: it is derived, and not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum State {
    /// Waits for a worker.
    Ready,
    /// Waits for its time.
    Delayed,
    /// Handed to a worker.
    Reserved,
    /// Waits for a decision by a person.
    Dead,
}

/// How a job came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum End {
    /// A worker did it.
    Completed,
    /// Somebody took it back, or its worker found that it is not to be done any more.
    Cancelled,
    /// Its time had passed.
    Expired,
    /// It was dead, and given up.
    Discarded,
}

/// What can happen to a live job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// Its time has come; not recorded, follows from the clock.
    Ripen,
    /// Handed to a worker.
    Reserve,
    /// Given back by a drain, a stop, or for want of a worker.
    GiveBack,
    /// Given back by its worker, for a pause.
    Defer,
    /// An attempt failed, another follows.
    Retry,
    /// A run failed, and is to be done again at once, elsewhere.
    Again,
    /// An attempt failed, none follows.
    Die,
    /// What ran it ended while it did; there may be another run.
    HostDeath,
    /// What ran it ended while it did once too often.
    LastHostDeath,
    /// All attempts again, or at once instead of later.
    Redrive,
    /// Finished.
    End(End),
}

/// Every change, for the printed table.
pub const ALL_CHANGES: [Change; 14] = [
    Change::Ripen,
    Change::Reserve,
    Change::GiveBack,
    Change::Defer,
    Change::Retry,
    Change::Again,
    Change::Die,
    Change::HostDeath,
    Change::LastHostDeath,
    Change::Redrive,
    Change::End(End::Completed),
    Change::End(End::Cancelled),
    Change::End(End::Expired),
    Change::End(End::Discarded),
];

/// Where a change leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// To this state.
    To(State),
    /// Out of the table.
    Finished,
    /// The change cannot happen in this state.
    Illegal,
}

/// The table.
pub fn next(state: State, change: Change) -> Next {
    use Change as C;
    use State as S;
    match (state, change) {
        (S::Delayed, C::Ripen) => Next::To(S::Ready),
        // A delayed job may be reserved: that its time had come is not recorded.
        (S::Ready | S::Delayed, C::Reserve) => Next::To(S::Reserved),
        (S::Reserved, C::GiveBack | C::Again | C::HostDeath) => Next::To(S::Ready),
        (S::Reserved, C::Defer | C::Retry) => Next::To(S::Delayed),
        // A job that was reserved by nobody can die too, when its record is found damaged.
        (S::Ready | S::Delayed | S::Reserved, C::Die) => Next::To(S::Dead),
        (S::Reserved, C::LastHostDeath) => Next::To(S::Dead),
        // A ready one as well: a checkpoint may have seen the time come that the process which redrove it had not.
        (S::Ready | S::Delayed | S::Dead, C::Redrive) => Next::To(S::Ready),
        (S::Reserved, C::End(End::Completed)) => Next::Finished,
        // By its worker's word, or by somebody's: then the run is told.
        (S::Ready | S::Delayed | S::Reserved, C::End(End::Cancelled)) => Next::Finished,
        (S::Ready | S::Delayed, C::End(End::Expired)) => Next::Finished,
        (S::Dead, C::End(End::Discarded)) => Next::Finished,
        (S::Ready | S::Delayed | S::Reserved | S::Dead, _) => Next::Illegal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    #[test]
    fn the_table_is_the_reviewed_one() {
        let mut shown = String::new();
        for change in ALL_CHANGES {
            for state in [State::Ready, State::Delayed, State::Reserved, State::Dead] {
                let to = match next(state, change) {
                    Next::To(state) => format!("{state:?}"),
                    Next::Finished => "finished".to_owned(),
                    Next::Illegal => "-".to_owned(),
                };
                writeln!(shown, "{:<16} {:<9} {to}", format!("{change:?}"), format!("{state:?}")).unwrap();
            }
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/transitions.txt");
        if std::env::var_os("UPDATE_FIXTURES").is_some() {
            std::fs::write(path, &shown).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), shown, "UPDATE_FIXTURES=1 writes it anew, for review");
    }
}
