//! Biotope: a home for worker ecosystems, in one process.
#![warn(missing_docs)]

pub mod clock;
pub mod config;
pub mod engine;
pub mod generation;
pub mod job;
pub mod limits;
pub mod log;
pub mod pool;
pub mod refusal;
pub mod sync;
pub mod types;
pub mod worker;
