//! One frame on its way to the disk, so that the next one can be filled meanwhile, by whoever carries this one out.

use std::io;
use std::sync::Arc;

use super::disk::DiskFile;

/// A frame that is to be written and synced. Made by [`super::Log::begin_commit`], which takes it back in the end.
pub struct Commit {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) at: u64,
    pub(super) frame: Vec<u8>,
}

/// What failed of a commit: "write" or "sync", and why.
pub type Failed = (&'static str, io::Error);

impl Commit {
    /// Writes and syncs the frame. When it returns `Ok`, its records and all before them are on stable storage.
    ///
    /// # Errors
    /// What failed: the frame may be there or not.
    pub fn carry_out(&self) -> Result<(), Failed> {
        self.file.write_at(self.at, &self.frame).map_err(|error| ("write", error))?;
        self.file.sync_data().map_err(|error| ("sync", error))
    }
}
