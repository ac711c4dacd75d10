//! The file that biotope's log goes to, where stderr is one: opened again on USR1, after something has moved it away.
//!
//! If stderr is a file, its name is noted at the start. Closes nothing before the next one is open, and makes no folder.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fd::AsFd;
use rustix::fs::{FileType, Stat, fstat};

/// The name of the file that stderr was when the program began; `None`: it was no file, or one without a name.
#[derive(Debug)]
pub(crate) struct LogFile(Option<PathBuf>);

impl LogFile {
    /// What stderr is now.
    pub(crate) fn of_stderr() -> Self {
        let is_file = fstat(io::stderr()).is_ok_and(|stat| is_file(&stat) && stat.st_nlink > 0);
        Self(is_file.then(|| std::fs::read_link("/proc/self/fd/2").ok()).flatten())
    }

    /// Opens the file by its name again, and has the log go there from now on, and stdout too, if that went along; says where
    /// it goes now.
    pub(crate) fn reopen(&self) {
        let Some(path) = &self.0 else {
            tracing::info!("the log goes to no file: there is nothing to open again");
            return;
        };
        match reopened(path) {
            Ok(true) => tracing::info!(file = %path.display(), "the log goes on in this file"),
            Ok(false) => tracing::info!(file = %path.display(), "the log's file is where it was"),
            Err(error) => {
                tracing::error!(file = %path.display(), "the log's file cannot be opened again, the old one is written on: {error}");
            }
        }
    }
}

/// Whether there is another file by this name, which stderr is from now on.
fn reopened(path: &Path) -> io::Result<bool> {
    let before = fstat(io::stderr())?;
    let mode = before.st_mode & 0o777;
    let file = OpenOptions::new().append(true).create(true).mode(mode).open(path)?;
    let new = file.metadata()?;
    if same(&before, new.dev(), new.ino()) {
        return Ok(false);
    }
    tracing::info!(file = %path.display(), "the log goes on in another file of this name");
    let went_along = fstat(io::stdout()).is_ok_and(|stdout| same(&stdout, before.st_dev, before.st_ino));
    rustix::stdio::dup2_stderr(file.as_fd())?;
    if went_along {
        rustix::stdio::dup2_stdout(file.as_fd())?;
    }
    Ok(true)
}

fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

fn same(stat: &Stat, dev: u64, ino: u64) -> bool {
    (stat.st_dev, stat.st_ino) == (dev, ino)
}
