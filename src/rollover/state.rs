//! The life of a version as one table: which state follows which change, and what is illegal.
//!
//! Pure. docs/rollover.md shows the whole table; a test compares it.

/// The state of a version in this process. The last three are those of one without workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Its first worker starts, says hello, and does its probe.
    Starting,
    /// Up, and given its first jobs one at a time, while the one before does all others.
    Gating,
    /// Given its share of first attempts.
    Ramping,
    /// New work goes to it.
    Current,
    /// Given nothing new; it finishes what it holds.
    Draining,
    /// Holds nothing; its workers stay for a way back.
    Warm,
    /// Its workers are gone, or go.
    Retired,
    /// It could not start, or not stay up, before it was trusted.
    Rejected,
    /// Withdrawn by the evidence, or by somebody's word: it gets no work until somebody says so.
    Quarantined,
}

/// What can happen to a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// It is started.
    Start,
    /// It is up, and shall show what it does with one job at a time.
    Gate,
    /// It is up, and gets a share; or one that took over has to step back to a share.
    Ramp,
    /// New work goes to it from now on: it replaces what was there, or is gone back to.
    TakeOver,
    /// New work goes to another one.
    Replace,
    /// It holds nothing any more, and is kept.
    Empty,
    /// It is up, and is kept beside the one that took over from it before a restart.
    StandBy,
    /// Its time is over: as a way back, or to finish what it holds.
    Expire,
    /// No worker of it comes up, or stays up.
    Fail,
    /// The evidence, or somebody, speaks against it.
    Withdraw,
}

/// Every state, for the printed table.
pub const ALL_STATES: [State; 9] = [
    State::Starting,
    State::Gating,
    State::Ramping,
    State::Current,
    State::Draining,
    State::Warm,
    State::Retired,
    State::Rejected,
    State::Quarantined,
];

/// Every change, for the printed table.
pub const ALL_CHANGES: [Change; 10] = [
    Change::Start,
    Change::Gate,
    Change::Ramp,
    Change::TakeOver,
    Change::Replace,
    Change::Empty,
    Change::StandBy,
    Change::Expire,
    Change::Fail,
    Change::Withdraw,
];

/// The table; `None`: the change cannot happen in this state.
pub fn next(state: State, change: Change) -> Option<State> {
    use Change as C;
    use State as S;
    let next = match (state, change) {
        (S::Retired | S::Rejected | S::Quarantined, C::Start) => S::Starting,
        (S::Starting, C::Gate) => S::Gating,
        // One that took over and is under a suspicion steps back to a share.
        (S::Starting | S::Gating | S::Current, C::Ramp) => S::Ramping,
        (S::Starting | S::Gating | S::Ramping | S::Draining | S::Warm, C::TakeOver) => S::Current,
        // It never had any work: there is nothing to finish.
        (S::Starting, C::Replace) => S::Retired,
        (S::Gating | S::Ramping | S::Current, C::Replace) => S::Draining,
        (S::Draining, C::Empty) | (S::Starting, C::StandBy) => S::Warm,
        (S::Draining | S::Warm, C::Expire) => S::Retired,
        // One that work goes to already is not given up for that: nobody else is there to do it.
        (S::Starting | S::Gating | S::Ramping, C::Fail) => S::Rejected,
        // One that had taken over before a restart may not come up after it.
        (S::Starting | S::Gating | S::Ramping | S::Current, C::Withdraw) => S::Quarantined,
        (
            S::Starting
            | S::Gating
            | S::Ramping
            | S::Current
            | S::Draining
            | S::Warm
            | S::Retired
            | S::Rejected
            | S::Quarantined,
            _,
        ) => return None,
    };
    Some(next)
}

impl State {
    /// As it is shown.
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Gating => "gating",
            Self::Ramping => "ramping",
            Self::Current => "current",
            Self::Draining => "draining",
            Self::Warm => "warm",
            Self::Retired => "retired",
            Self::Rejected => "rejected",
            Self::Quarantined => "quarantined",
        }
    }

    /// Whether it is given work.
    pub fn takes_work(self) -> bool {
        matches!(self, Self::Gating | Self::Ramping | Self::Current)
    }

    /// Whether its pool ends, or has ended.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Retired | Self::Rejected | Self::Quarantined)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    /// The table as the page of the manual has it.
    fn printed() -> String {
        let changes = ALL_CHANGES.iter().map(|change| format!(" {change:?} |"));
        let mut text = format!("| |{}\n|---|{}\n", changes.collect::<String>(), "---|".repeat(ALL_CHANGES.len()));
        for state in ALL_STATES {
            let cells =
                ALL_CHANGES.iter().map(|change| next(state, *change).map_or("–".to_owned(), |to| format!("{to:?}")));
            writeln!(text, "| **{state:?}** | {} |", cells.collect::<Vec<_>>().join(" | ")).unwrap();
        }
        text
    }

    #[test]
    fn the_table_is_the_one_of_the_manual() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/rollover.md");
        let manual = std::fs::read_to_string(path).unwrap();
        let printed = printed();
        assert!(manual.contains(&printed), "docs/rollover.md does not have this table:\n{printed}");
    }

    #[test]
    fn whatever_begins_comes_to_an_end_and_nothing_that_was_withdrawn_works_before_it_is_started_again() {
        for state in ALL_STATES {
            let reached = |over: fn(State) -> bool| {
                let mut seen = vec![state];
                let mut at = 0;
                while let Some(from) = seen.get(at).copied() {
                    let to = ALL_CHANGES.iter().filter_map(|change| next(from, *change));
                    for to in to.collect::<Vec<_>>() {
                        if !seen.contains(&to) {
                            seen.push(to);
                        }
                    }
                    at += 1;
                }
                seen.into_iter().any(over)
            };
            assert!(reached(State::is_over), "{state:?} has no end");
            if state.is_over() {
                let changes = ALL_CHANGES.iter().filter(|change| next(state, **change).is_some());
                assert_eq!(changes.collect::<Vec<_>>(), [&Change::Start], "{state:?}");
            }
        }
    }
}
