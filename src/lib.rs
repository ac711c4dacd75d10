//! Biotope: a home for worker ecosystems, in one process.
#![warn(missing_docs)]

pub mod clock;
pub mod config;
pub mod engine;
pub mod generation;
#[cfg(feature = "daemon")]
pub mod http;
pub mod job;
pub mod limits;
pub mod log;
#[cfg(feature = "daemon")]
mod page;
pub mod pool;
pub mod refusal;
pub mod reload;
pub mod sync;
pub mod types;
pub mod worker;
