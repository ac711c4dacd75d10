//! A running process, started by this one or by its helper: its signals and its end.
//!
//! Owns what differs between the two. Knows nothing of pipes' contents.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::launch::Launch;
use super::spawn::spawn;
use super::spawner::{Charge, Spawner};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
    /// Somebody else took its status.
    Unknown,
    /// It was killed when the helper process that had started it ended, or was about to be started by that.
    Lost,
}

impl Ended {
    /// Whether a signal that others send ended the process, not one that it brought upon itself.
    pub(super) fn was_from_outside(self) -> bool {
        let others = [Signal::HUP, Signal::INT, Signal::KILL, Signal::TERM];
        match self {
            Self::Signalled(number) => others.iter().any(|signal| signal.as_raw() == number),
            Self::Exited(_) | Self::Unknown | Self::Lost => false,
        }
    }
}

impl From<ExitStatus> for Ended {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Exited(code),
            (None, Some(signal)) => Self::Signalled(signal),
            (None, None) => Self::Unknown,
        }
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited with code {code}"),
            Self::Signalled(number) => write!(f, "was killed by signal {number}"),
            Self::Unknown => write!(f, "ended in an unknown way"),
            Self::Lost => write!(f, "was killed with the process that starts children"),
        }
    }
}

/// A process that was started, or is to be, and whose end was not taken yet, or only just.
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
    /// Starts `launch` with `env` on top of its environment, and these as its stdin, stdout and stderr; a helper is only asked to,
    /// and has `patience` to answer.
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
            Spawner::Helper(helper) => Charge::spawn(helper, launch, env, stdio, patience).map(Self::Charge),
        }
    }

    /// Its number, if it is known to have started.
    pub(super) fn pid(&self) -> Option<Pid> {
        match self {
            Self::Own { pid, .. } => Some(*pid),
            Self::Charge(charge) => charge.pid(),
        }
    }

    /// Waits until it has started.
    ///
    /// # Errors
    /// It has not, and will not.
    pub(super) fn await_start(&mut self) -> io::Result<()> {
        match self {
            Self::Own { .. } => Ok(()),
            Self::Charge(charge) => charge.await_start(),
        }
    }

    /// When to look whether it has started; `None` once that is known.
    pub(super) fn look_at(&self) -> Option<Duration> {
        match self {
            Self::Own { .. } => None,
            Self::Charge(charge) => charge.look_at(),
        }
    }

    /// Readable when it is known whether it has started; of one that was looked at in vain.
    pub(super) fn start_fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Own { .. } => None,
            Self::Charge(charge) => charge.start_fd(),
        }
    }

    /// Looks whether it has started.
    ///
    /// # Errors
    /// It has not, and will not.
    pub(super) fn look(&mut self) -> io::Result<()> {
        match self {
            Self::Own { .. } => Ok(()),
            Self::Charge(charge) => charge.look(),
        }
    }

    /// What is ready when the process has ended, and for what.
    pub(super) fn end(&self) -> (BorrowedFd<'_>, PollFlags) {
        match self {
            Self::Own { pidfd, .. } => (pidfd.as_fd(), PollFlags::IN),
            // Nothing is asked for: no single record wakes anybody, but that the pipe is hung up.
            Self::Charge(charge) => (charge.end_fd(), PollFlags::empty()),
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
