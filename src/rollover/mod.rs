//! rollover: pure planner: config diff and evidence in, steps out; knows no threads, no disk, no clock of its own.
//!
//! Owns what is decided about a type that goes from one version to the next, and on what grounds: which jobs a ramp takes
//! ([`choice`]), whether the new version does worse than the old one ([`evidence`]) or is slower ([`pace`]), and whether so
//! much fails that no version is to blame ([`storm`]). What it reckons with has its reasons and its error rates in
//! `docs/rollover.md`.

pub mod choice;
pub mod evidence;
pub mod pace;
pub mod plan;
#[cfg(test)]
mod rates;
pub mod state;
pub mod storm;
pub mod trial;
mod wager;

pub use choice::{Key, Ramp, Way, chosen};
pub use evidence::{Evidence, EvidenceView, First, History, Verdict};
pub use storm::Storm;
pub use wager::Arm;
