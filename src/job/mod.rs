//! The job: its words, its life, and the table that holds all of them.
pub mod intake;
pub mod new;
