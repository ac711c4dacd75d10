//! Opening, but for the opening: whether this program can take a data directory over, found out while another process runs
//! on it.

use std::path::Path;

use super::open::{OpenError, Replayed};
use crate::log::recovery;

/// What would be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rehearsed {
    /// Jobs that live.
    pub live_jobs: u64,
}

/// Reads the checkpoint and the log of `data_dir`, and makes the table of them, as [`super::Engine::open`] would. Changes
/// nothing and takes no lock.
///
/// # Errors
/// What an opening would say of anything but the log's tail.
pub fn rehearse(data_dir: &Path) -> Result<Rehearsed, OpenError> {
    let replayed = recovery::rehearse(&data_dir.join("log"), || Replayed::nothing(Box::new(|_| ())))?;
    Ok(Rehearsed { live_jobs: replayed.map_or(0, |replayed| replayed.live_jobs()) })
}
