//! The single writer: commands → events → log → replies and dispatch.
//!
//! Owns the table, the log's tail, and every decision: what is accepted, what follows an outcome, who gets which job,
//! which versions live. One thread; [`handle`] is the way in, `open` its beginning, `core` its loop. Commands about jobs are
//! carried out beside them, a file each. Three rooms of their own: `rollover` (which versions live, carried out as
//! [`crate::rollover`] plans it), `shown` (what people and monitoring see), `upkeep` (what keeps the log small and sound).

mod act;
mod ahead;
mod awaited;
mod command;
mod core;
mod dispatch;
mod due;
mod ends;
mod facts;
pub mod handle;
mod open;
mod outcome;
mod overdue;
mod pause;
mod pulse;
mod push;
mod redrive;
mod rehearsal;
mod retries;
mod rollover;
mod room;
mod runs;
mod scaling;
mod shared;
mod shown;
mod space;
pub mod stepped;
mod stop;
#[cfg(test)]
mod tests;
mod upkeep;
pub mod view;
mod words;

pub use handle::{Handle, JobAction};
pub use open::{Engine, OpenError, Opened, Progress};
pub use pulse::Pulse;
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
