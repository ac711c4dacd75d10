//! One process a data directory: an flock on `LOCK`, held for life, with the pid in it for people.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, test_kill_process};
use rustix::thread::{Timespec, nanosleep};

/// Times that a lock is tried whose holder is gone: a child of it, caught between fork and exec, holds it a moment longer.
/// The pauses double from a millisecond on: a second in all.
const TRIES: u32 = 10;

/// The right to a data directory, given back when it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct DirLock {
    file: File,
}

impl AsFd for DirLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
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
    /// `Held` at once if another process has it, and after a second if that process is gone and something of it is left;
    /// `Io` if the directory cannot be made or written.
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
        let mut tried = 0;
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) => {
                    let pid = pid_in(&file);
                    if tried == TRIES || !is_gone(&pid) {
                        return Err(LockError::Held { dir: dir.to_path_buf(), pid });
                    }
                    pause(tried);
                    tried += 1;
                }
                Err(error) => return Err(io("lock", &path)(error.into())),
            }
        }
        file.set_len(0).map_err(io("write", &path))?;
        writeln!(file, "{}", std::process::id()).map_err(io("write", &path))?;
        Ok(Self { file })
    }

    /// Takes the lock of a directory that is only read, and changes nothing there; `None` if it never had one.
    ///
    /// # Errors
    /// `Held` at once if another process has it; `Io`.
    pub fn hold(dir: &Path) -> Result<Option<Self>, LockError> {
        let path = dir.join("LOCK");
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(LockError::Io { doing: "open", path, source }),
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { file })),
            Err(Errno::WOULDBLOCK) => Err(LockError::Held { dir: dir.to_path_buf(), pid: pid_in(&file) }),
            Err(error) => Err(LockError::Io { doing: "lock", path, source: error.into() }),
        }
    }

    /// The same lock once more: it is given back when the last copy is dropped.
    ///
    /// # Errors
    /// No descriptor to be had.
    pub fn copy(&self) -> io::Result<Self> {
        Ok(Self { file: self.file.try_clone()? })
    }

    /// Takes a copy over that an earlier image of this process left open, if it is this directory's lock.
    ///
    /// # Errors
    /// As [`DirLock::take`]; where the descriptor is of another file, that is what is done instead.
    pub fn inherit(dir: &Path, left: OwnedFd) -> Result<Self, LockError> {
        use std::os::unix::fs::MetadataExt;
        let file = File::from(left);
        let identity = |of: io::Result<std::fs::Metadata>| of.map(|of| (of.dev(), of.ino())).ok();
        let same =
            identity(file.metadata()).is_some_and(|it| identity(std::fs::metadata(dir.join("LOCK"))) == Some(it));
        if same && rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return Ok(Self { file });
        }
        drop(file);
        Self::take(dir)
    }

    /// The process that has a directory's lock, as the kernel tells, without touching the lock.
    pub fn holder(dir: &Path) -> Option<String> {
        use std::os::unix::fs::MetadataExt;
        let file = File::open(dir.join("LOCK")).ok()?;
        let inode = format!(":{}", file.metadata().ok()?.ino());
        let locks = std::fs::read_to_string("/proc/locks").ok()?;
        let held = locks
            .lines()
            .map(str::split_whitespace)
            .any(|mut words| words.any(|word| word == "FLOCK") && words.any(|word| word.ends_with(&inode)));
        held.then(|| pid_in(&file))
    }
}

/// The pid that a lock file names; "?" if it names none.
fn pid_in(file: &File) -> String {
    let mut bytes = [0; 32];
    let read = file.read_at(&mut bytes, 0).unwrap_or(0);
    let text = String::from_utf8_lossy(bytes.get(..read).unwrap_or_default()).trim().to_owned();
    if text.is_empty() { "?".to_owned() } else { text }
}

/// Whether no process has this pid any more, or one that is ending.
fn is_gone(pid: &str) -> bool {
    let Some(number) = pid.parse().ok().and_then(Pid::from_raw) else { return false };
    test_kill_process(number) == Err(Errno::SRCH) || is_ending(pid).unwrap_or(false)
}

/// Whether a process was killed, or exits, and has yet to close what it holds; `None` if nobody can tell.
fn is_ending(pid: &str) -> Option<bool> {
    /// The kernel's flag of a task that exits.
    const EXITING: u32 = 4;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let pending = status.lines().filter(|line| line.starts_with("SigPnd:") || line.starts_with("ShdPnd:"));
    let kill = 1_u64 << (Signal::KILL.as_raw() - 1);
    let mut masks = pending.filter_map(|line| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok());
    // Read behind the other: a signal that is taken up leads to the flag.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in brackets, and may hold anything; behind it are the state and, seventh, the flags.
    let mut behind = stat.rsplit_once(')')?.1.split_whitespace();
    let (state, flags) = (behind.next()?, behind.nth(5)?.parse::<u32>().ok()?);
    Some(matches!(state, "Z" | "X") || flags & EXITING != 0 || masks.any(|mask| mask & kill != 0))
}

/// The n-th pause, from 0.
fn pause(n: u32) {
    // A signal that cuts it short costs a try.
    let _ = nanosleep(&Timespec { tv_sec: 0, tv_nsec: 1_000_000 << n });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `kill -9` returns before the process is gone: a start right behind it gave up.
    #[test]
    fn a_holder_that_is_ending_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let mut ending = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = ending.id().to_string();
        let left = DirLock::take(dir.path()).unwrap();
        std::fs::write(dir.path().join("LOCK"), &pid).unwrap();
        assert!(matches!(DirLock::take(dir.path()), Err(LockError::Held { .. })), "it lives");
        // Killed, and nobody has taken note of its end yet.
        ending.kill().unwrap();
        let seen = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        rustix::process::waitid(rustix::process::WaitId::Pid(Pid::from_child(&ending)), seen).unwrap();
        assert_eq!(is_ending(&pid), Some(true));
        std::thread::scope(|scope| {
            let taking = scope.spawn(|| DirLock::take(dir.path()).map(drop));
            pause(5);
            drop(left);
            taking.join().unwrap().unwrap();
        });
        ending.wait().unwrap();
    }

    /// A process was killed while it forked: its child had the lock a moment longer, and the next start gave up.
    #[test]
    fn what_a_dead_holder_left_behind_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let mut gone = std::process::Command::new("true").spawn().unwrap();
        let pid = gone.id();
        gone.wait().unwrap();
        let left = DirLock::take(dir.path()).unwrap();
        std::fs::write(dir.path().join("LOCK"), pid.to_string()).unwrap();
        std::thread::scope(|scope| {
            let taking = scope.spawn(|| DirLock::take(dir.path()).map(drop));
            pause(5);
            drop(left);
            taking.join().unwrap().unwrap();
        });
        let _left = DirLock::take(dir.path()).unwrap();
        std::fs::write(dir.path().join("LOCK"), pid.to_string()).unwrap();
        assert!(matches!(DirLock::take(dir.path()), Err(LockError::Held { .. })), "not for ever");
    }

    #[test]
    fn a_second_holder_is_refused_until_the_first_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirLock::take(dir.path()).unwrap();
        let Err(LockError::Held { pid, .. }) = DirLock::take(dir.path()) else { panic!("taken twice") };
        assert_eq!(pid, std::process::id().to_string());
        drop(first);
        // A child that another test forks just now has the lock, too, until it runs its own program.
        let taken = (0..TRIES).any(|n| {
            pause(n);
            DirLock::take(dir.path()).is_ok()
        });
        assert!(taken);
    }
}
