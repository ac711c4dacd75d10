//! The single writer: commands → events → log → replies and dispatch.

pub mod handle;
pub mod view;

use std::sync::Arc;

use crate::config::{Config, WorkerConfig};
use crate::worker::WorkerFactory;

/// A config that passed every check, with the workers that it asks for.
pub struct GenerationSpec {
    /// The config.
    pub config: Config,
    /// One entry for each of `config.workers`, in the same order.
    pub versions: Vec<VersionSpec>,
}

/// One worker version of a generation.
pub struct VersionSpec {
    /// The type's settings.
    pub worker: WorkerConfig,
    /// Hash over everything that defines the version: equal hash and label, same version.
    pub definition_hash: [u8; 32],
    /// Makes its workers.
    pub factory: Arc<dyn WorkerFactory>,
}
