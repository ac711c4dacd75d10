//! Directories that are read, and directories that are made.

use std::fs::File;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::CareError;
use crate::log::copy::read_back;
use crate::log::disk::{Disk, RealDisk};
use crate::log::lock::DirLock;
use crate::log::look::Summary;
use crate::log::stream::Receiver;

/// A data directory, a backup, or a log's own directory, to be read.
pub struct Source {
    dir: PathBuf,
    disk: Box<dyn Disk>,
    live: Option<String>,
}

impl Source {
    /// Opens a directory that holds a log, or is one.
    ///
    /// # Errors
    /// `Io`.
    pub fn open(dir: &Path) -> Result<Self, CareError> {
        let inner = dir.join("log");
        let log = if inner.is_dir() { inner.as_path() } else { dir };
        let data = if inner.is_dir() { dir } else { dir.parent().unwrap_or(dir) };
        let io = |source| CareError::Io { doing: "open", path: log.to_path_buf(), source };
        let disk = RealDisk::to_look_at(log).map_err(io)?;
        Ok(Self { dir: data.to_path_buf(), disk: Box::new(disk), live: DirLock::holder(data) })
    }

    /// Its log's files.
    pub fn disk(&self) -> &dyn Disk {
        self.disk.as_ref()
    }

    /// The process that runs on it, if one did when it was opened.
    pub fn live(&self) -> Option<&str> {
        self.live.as_deref()
    }

    /// Keeps processes from running on it for as long as what is returned lives.
    ///
    /// # Errors
    /// `Lock`: one does.
    pub fn hold(&self) -> Result<Option<DirLock>, CareError> {
        Ok(DirLock::hold(&self.dir)?)
    }
}

/// A data directory that is being made: under another name until it is whole. Dropped before that, it is removed.
pub struct Target {
    to: PathBuf,
    unfinished: PathBuf,
    disk: RealDisk,
    finished: bool,
}

impl Target {
    /// Begins a directory at a place where there is none, or an empty one.
    ///
    /// # Errors
    /// `There`, `Left`, `Io`.
    pub fn make(to: &Path) -> Result<Self, CareError> {
        let io = |doing, path: &Path| {
            let path = path.to_path_buf();
            move |source| CareError::Io { doing, path, source }
        };
        match std::fs::read_dir(to).map(|mut entries| entries.next().is_none()) {
            Ok(true) => {}
            Ok(false) => return Err(CareError::There { path: to.to_path_buf() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(CareError::There { path: to.to_path_buf() });
            }
            Err(error) => return Err(io("look at", to)(error)),
        }
        let name = to.file_name().ok_or_else(|| CareError::There { path: to.to_path_buf() })?;
        let mut unfinished = name.to_owned();
        unfinished.push(".unfinished");
        let unfinished = to.with_file_name(unfinished);
        let made = std::fs::DirBuilder::new().mode(0o700).create(&unfinished);
        made.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => CareError::Left { path: unfinished.clone() },
            _ => io("make", &unfinished)(error),
        })?;
        let disk = RealDisk::open(&unfinished.join("log")).map_err(io("make", &unfinished))?;
        Ok(Self { to: to.to_path_buf(), unfinished, disk, finished: false })
    }

    /// Where the log's files go.
    pub fn disk(&self) -> &dyn Disk {
        &self.disk
    }

    /// Takes the pieces of a backup.
    pub fn receiver(&self) -> Receiver<'_> {
        Receiver::new(&self.disk)
    }

    /// Reads back what was received.
    ///
    /// # Errors
    /// `Copy`.
    pub fn read_back(&self) -> Result<Summary, CareError> {
        Ok(read_back(&self.disk)?)
    }

    /// Gives the directory its name. When it returns, all of it is on stable storage under that name.
    ///
    /// # Errors
    /// `Io`; then it is removed.
    pub fn finish(mut self) -> Result<(), CareError> {
        let io = |doing| {
            let path = self.to.clone();
            move |source| CareError::Io { doing, path, source }
        };
        sync_dir(&self.unfinished).map_err(io("sync"))?;
        // An empty directory gives way; one with anything in it does not.
        std::fs::rename(&self.unfinished, &self.to).map_err(io("make"))?;
        self.finished = true;
        let parent = self.to.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync_dir(parent.unwrap_or(Path::new("."))).map_err(io("sync the directory of"))
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

impl Drop for Target {
    fn drop(&mut self) {
        if !self.finished {
            // What cannot be removed is told by the next attempt.
            drop(std::fs::remove_dir_all(&self.unfinished));
        }
    }
}
