//! The single writer: commands → events → log → replies and dispatch.
//!
//! Owns the table, the log's tail, and every decision: what is accepted, what follows an outcome, who gets which job,
//! which versions live. One thread; [`handle`] is the way in, `open` its beginning, `core` its loop.

mod act;
mod ahead;
mod awaited;
mod backup;
mod checkpoint;
mod clean;
mod command;
mod core;
mod described;
mod dispatch;
mod ended;
mod ends;
mod facts;
mod gather;
pub mod handle;
mod health;
mod listing;
mod lookup;
mod measured;
mod open;
mod outcome;
mod overdue;
mod pause;
mod push;
mod redrive;
mod rehearsal;
mod remembered;
mod retries;
mod rollout;
mod rollover;
mod runs;
mod scaling;
mod scrubber;
mod shared;
mod shown;
mod standby;
pub mod stepped;
mod stop;
#[cfg(test)]
mod tests;
mod timeline;
mod trials;
mod versions;
pub mod view;
mod why;
mod words;

pub use handle::{Handle, JobAction};
pub use open::{Engine, OpenError, Opened};
pub use rehearsal::{Rehearsed, rehearse};

use command::Command;

use std::sync::Arc;

use crate::access::Access;
use crate::config::{Config, WorkerConfig};
use crate::worker::WorkerFactory;

/// A config that passed every check, with the workers that it asks for.
pub struct GenerationSpec {
    /// The config.
    pub config: Config,
    /// One entry for each of `config.workers`, in the same order.
    pub versions: Vec<VersionSpec>,
    /// The config's text, by which a [`Resolver`] makes the same again; empty: nobody can.
    pub text: Arc<str>,
    /// Who may come in over HTTP, for whoever serves that: it holds from when the config is accepted.
    pub access: Arc<Access>,
}

/// Makes of a config's text what it was made into when it was accepted; or says why that cannot be any more. Reads files.
pub type Resolver = Arc<dyn Fn(&str) -> Result<GenerationSpec, String> + Send + Sync>;

/// One that knows no text.
pub fn no_resolver() -> Resolver {
    Arc::new(|_| Err("what was accepted cannot be made again here".to_owned()))
}

/// One worker version of a generation.
#[derive(Clone)]
pub struct VersionSpec {
    /// The type's settings.
    pub worker: WorkerConfig,
    /// Hash over everything that defines the version: equal hash and label, same version.
    pub definition_hash: [u8; 32],
    /// Makes its workers.
    pub factory: Arc<dyn WorkerFactory>,
}
