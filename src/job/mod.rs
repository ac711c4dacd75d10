//! The job: its words, its life, and the table that holds all of them.
//!
//! Pure throughout: no clock, no disk, no thread. [`lines`] and [`intake`] parse what callers send, [`event`] is what the log
//! records, [`transition`] is the life of a job as one table, [`table`] is everything that lives.

pub mod event;
pub mod ids;
pub mod intake;
pub mod lines;
pub mod new;
pub mod queue;
pub mod table;
pub mod tenant;
pub mod trace;
pub mod transition;
