//! A biotope within another program: its own code as workers, a directory for the log, and no more.
//!
//! Owns only how it is opened: what comes back is the engine's [`Handle`], by which jobs are pushed, looked up and waited
//! for, and which ends it all. Serves no HTTP and no page, handles no signal.
//!
//! ```no_run
//! use biotope::job::new::NewJob;
//! use biotope::worker::native::{Context, Failure, Natives};
//!
//! let mut natives = Natives::new();
//! natives.register_fn("double", "1", |n: u64, _: &mut Context<'_>| n.checked_mul(2).ok_or("too large"))?;
//! let biotope = biotope::embed::open("data", &natives)?;
//! let id = biotope.push(NewJob::json("double", &21)?)?.id;
//! assert_eq!(biotope.wait(&id)?.read_result::<u64>()?, 42);
//! biotope.stop_and_wait();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::path::Path;
use std::sync::Arc;

use crate::clock::RealClock;
use crate::engine::{Engine, Handle, OpenError, Resolver};
use crate::generation::{LoadError, from_text, resolver};
use crate::worker::native::Natives;

/// Why no biotope could be opened.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    /// The config did not pass, or a worker's tag is no label.
    #[error(transparent)]
    Config(#[from] LoadError),
    /// The directory, or the log in it, could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Opens a biotope of these workers in a directory, which is made if it is missing; all settings by default: one worker a
/// type, four attempts. When it returns, everything that was ever acknowledged is there, and workers start.
///
/// # Errors
/// See [`EmbedError`].
pub fn open(dir: impl AsRef<Path>, natives: &Natives) -> Result<Handle, EmbedError> {
    open_with(dir, &natives.config(), natives)
}

/// As [`open`], with the settings of a config's text, which may name programs as workers, too: their paths are relative to
/// the directory that this process runs in. `data_dir`, `[http]` and `[history]` mean nothing here.
///
/// # Errors
/// See [`EmbedError`].
pub fn open_with(dir: impl AsRef<Path>, config: &str, natives: &Natives) -> Result<Handle, EmbedError> {
    let here = std::path::absolute(".").map_err(|source| OpenError::System { doing: "find this directory", source })?;
    let mut spec = from_text("config", config, &here, natives)?;
    spec.config.data_dir = dir.as_ref().to_path_buf();
    let (resolve, data_dir) = (resolver(here, natives.clone()), spec.config.data_dir.clone());
    let resolver: Resolver = Arc::new(move |text| {
        let mut spec = resolve(text)?;
        spec.config.data_dir.clone_from(&data_dir);
        Ok(spec)
    });
    let (handle, _) = Engine::open_with(spec, resolver, RealClock::shared())?;
    Ok(handle)
}
