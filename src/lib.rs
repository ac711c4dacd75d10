//! Biotope: a home for worker ecosystems, in one process.
#![warn(missing_docs)]

#[cfg(feature = "daemon")]
pub mod cli;
pub mod clock;
pub mod config;
#[cfg(feature = "daemon")]
mod daemon;
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
#[cfg(feature = "daemon")]
mod signal;
pub mod sync;
pub mod types;
pub mod worker;
