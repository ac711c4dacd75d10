//! What always holds, by name: every check of the simulation says which of these it is about.
//!
//! One is looked at elsewhere: that the index of ended jobs is what the log says (I8) is compared by the tests of
//! [`crate::archive`], since the simulation has no such index. I6 is that of crash images, which are opened again and again.

use std::fmt::Display;

use super::world::Violation;

/// The invariants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Invariant {
    /// I1.
    NothingLost,
    /// I2.
    NothingFromNowhere,
    /// I3.
    EndedStaysEnded,
    /// I4.
    OneLease,
    /// I5.
    PrefixRecovered,
    /// I6.
    RecoveryRepeats,
    /// I7.
    LogIsTheState,
    /// I9.
    OneHolder,
    /// I10.
    Bounded,
    /// I11.
    RightVersion,
    /// I12.
    NoOrphanedLease,
    /// Every pick is the first of the highest priority, or the oldest of all.
    InOrder,
    /// A group of records is there whole or not at all.
    Together,
    /// An answer is the one that the model gives.
    RightAnswer,
    /// The run of a cancelled job is told to stop, no other one is, and what was told is forgotten with it.
    RunIsTold,
    /// Places and roles of pools say the same, and somebody does the work of each type.
    InPlace,
    /// Liveness: with no fault any more everything is served.
    Served,
    /// What cannot be read or is not whole is refused, and said.
    DamageRefused,
}

impl Invariant {
    /// Its name, and what it says.
    pub(super) const fn says(self) -> &'static str {
        match self {
            Self::NothingLost => "I1 no acknowledged job is missing, and it stands as it was answered",
            Self::NothingFromNowhere => "I2 no job comes from nowhere",
            Self::EndedStaysEnded => "I3 what ended is never handed out again",
            Self::OneLease => "I4 attempts rise, a fence is new, a job has one lease",
            Self::PrefixRecovered => "I5 what is recovered is a beginning of what was committed",
            Self::RecoveryRepeats => "I6 recovering again gives the same",
            Self::LogIsTheState => "I7 the table is what the log says, cleaned or not, with a checkpoint or without",
            Self::OneHolder => "I9 a name is held by one live job at most",
            Self::Bounded => "I10 no buffer is over its cap",
            Self::RightVersion => {
                "I11 a job is handed to the version that its type is routed to, is on trial there, or makes up for a failure"
            }
            Self::NoOrphanedLease => "I12 what has retired owns no lease",
            Self::InOrder => "O1 the first of the highest priority is handed out, or the oldest",
            Self::Together => "O2 what was recorded together is there together",
            Self::RightAnswer => "O3 the answer is right",
            Self::RunIsTold => "O4 the run of a cancelled job is told, and no other",
            Self::InPlace => "O5 a pool is where its role says, and each type has one that does its work, or starts to",
            Self::Served => "L1 in the end everything is served",
            Self::DamageRefused => "D1 damage is refused, and changes nothing",
        }
    }

    /// Its short name.
    pub(super) fn name(self) -> &'static str {
        self.says().split(' ').next().unwrap_or_default()
    }

    /// That it does not hold, and how.
    pub(super) fn broken(self, how: impl Display) -> Violation {
        format!("{}: {how}", self.says())
    }
}
