//! A running process, started by this one or by its helper: its signals and its end.
//!
//! Owns what differs between the two. Knows nothing of pipes' contents.

use std::ffi::OsStr;
use std::io;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::child::Ended;
use super::launch::Launch;
use super::spawn::spawn;
use super::spawner::{Charge, Spawner};

/// A process that was started, and whose end was not taken yet, or only just.
#[derive(Debug)]
pub(super) enum Process {
    /// A child of this process.
    Own {
        /// The child.
        child: std::process::Child,
        /// Its number.
        pid: Pid,
        /// Readable when it has ended.
        pidfd: OwnedFd,
    },
    /// A child of the helper.
    Charge(Charge),
}

impl Process {
    /// Starts `launch` with `env` on top of its environment, and these as its stdin, stdout and stderr; waits for a helper that does
    /// not answer for `patience`.
    ///
    /// # Errors
    /// What the operating system says; no process is left then.
    pub(super) fn start(
        spawner: &Spawner,
        launch: &Launch,
        env: &[(&str, &OsStr)],
        stdio: [OwnedFd; 3],
        patience: Duration,
    ) -> io::Result<Self> {
        match spawner {
            Spawner::Direct => {
                let mut child = spawn(launch, env, stdio.map(Into::into))?;
                let pid = Pid::from_child(&child);
                match pidfd_open(pid, PidfdFlags::empty()) {
                    Ok(pidfd) => Ok(Self::Own { child, pid, pidfd }),
                    Err(error) => {
                        // Neither can fail: the process is ours and not yet waited for.
                        let _ = child.kill();
                        let _ = child.wait();
                        Err(error.into())
                    }
                }
            }
            Spawner::Helper(helper) => Charge::spawn(helper, launch, env, &stdio, patience).map(Self::Charge),
        }
    }

    /// Its number.
    pub(super) fn pid(&self) -> Pid {
        match self {
            Self::Own { pid, .. } => *pid,
            Self::Charge(charge) => charge.pid(),
        }
    }

    /// Readable when the process has ended.
    pub(super) fn end_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Own { pidfd, .. } => pidfd.as_fd(),
            Self::Charge(charge) => charge.end_fd(),
        }
    }

    /// Sends a signal to its group.
    pub(super) fn signal(&self, signal: Signal) {
        match self {
            // Until `wait` has reaped the child its pid, and so its group's number, is nobody else's. ESRCH cannot come
            // then, and EPERM only if all of the group has changed its user.
            Self::Own { pid, .. } => drop(kill_process_group(*pid, signal)),
            Self::Charge(charge) => charge.signal(signal),
        }
    }

    /// Waits for its end, and has the rest of its group killed.
    pub(super) fn wait(&mut self) -> Ended {
        match self {
            Self::Own { child, pid, pidfd } => {
                let mut fds = [PollFd::new(&*pidfd, PollFlags::IN)];
                while poll(&mut fds, None) == Err(Errno::INTR) {}
                let _ = kill_process_group(*pid, Signal::KILL);
                child.wait().map_or(Ended::Unknown, Ended::from)
            }
            Self::Charge(charge) => charge.wait(),
        }
    }
}

/// The memory that a process has in use, in bytes, without that of the processes that it has started; `None` if it cannot be
/// told.
pub(crate) fn resident_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
    kib.map(|kib: u64| kib << 10)
}
