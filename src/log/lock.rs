//! One process a data directory: an flock on `LOCK`, held for life, with the pid in it for people.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The right to a data directory, given back when it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

/// Why a data directory could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("data directory {} is in use by process {pid}; stop that one first, or choose another `data_dir`", dir.display())]
    Held {
        /// The data directory.
        dir: PathBuf,
        /// What the lock file says of its holder.
        pid: String,
    },
    /// The directory could not be made or opened.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// A verb phrase.
        doing: &'static str,
        /// The place.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl DirLock {
    /// Makes `dir` (mode 0700) if it is missing, and takes its lock.
    ///
    /// # Errors
    /// `Held` at once if another process has it; `Io` if the directory cannot be made or written.
    pub fn take(dir: &Path) -> Result<Self, LockError> {
        let io = |doing, path: &Path| {
            let path = path.to_path_buf();
            move |source| LockError::Io { doing, path, source }
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(io("create the data directory", dir))?;
        let path = dir.join("LOCK");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(io("write in the data directory: open", &path))?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                drop((&file).take(32).read_to_string(&mut pid));
                let pid = if pid.trim().is_empty() { "?".to_owned() } else { pid.trim().to_owned() };
                return Err(LockError::Held { dir: dir.to_path_buf(), pid });
            }
            Err(error) => return Err(io("lock", &path)(error.into())),
        }
        file.set_len(0).map_err(io("write", &path))?;
        writeln!(file, "{}", std::process::id()).map_err(io("write", &path))?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_until_the_first_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirLock::take(dir.path()).unwrap();
        let Err(LockError::Held { pid, .. }) = DirLock::take(dir.path()) else { panic!("taken twice") };
        assert_eq!(pid, std::process::id().to_string());
        drop(first);
        DirLock::take(dir.path()).unwrap();
    }
}
