//! What keeps the log small, quick to open and sound while the engine serves: checkpoints, cleaning, scrubbing, backups, and
//! the gathering of names after a start. Decides nothing about jobs.

pub(in crate::engine) mod backup;
pub(in crate::engine) mod checkpoint;
pub(in crate::engine) mod clean;
pub(in crate::engine) mod gather;
pub(in crate::engine) mod scrubber;
