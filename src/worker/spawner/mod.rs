//! Who starts a worker's processes: this process itself, or one small helper beside it.
//!
//! Owns the engine's end of the helper: when it is started and replaced, and what is asked of it. Never decides what is
//! started. The helper's own life is `serve`'s, the words between the two are `wire`'s, what is known of a child is `charge`'s.
//!
//! A program that embeds biotope has nothing to re-execute and starts its children itself ([`Spawner::Direct`]). The
//! program `biotope` has a helper ([`Spawner::Helper`]): it starts them without a copy of itself, and, as its one thread lives
//! as long as it does, no thread that ends here takes children along.
//!
//! Promises:
//! - No helper starts anything before the one of an earlier process with the same data directory has ended, and with it
//!   all that it had started: a helper holds the file `SPAWNER` there by flock, and looks for what is left.
//! - A helper that dies takes its children along, which is noticed at once. The next start makes a new one, when nothing of
//!   the old one's is left: what was its children's comes to this process, if that is a daemon ([`Orphans::Adopted`]).
//! - A helper that no longer answers is ended, and so counts as one that has died. Nobody waits for it any longer than that takes.
//!
//! If this process and its helper are both killed by KILL, one before the other has seen its end, the helper's children die with
//! it, but not theirs. All of them bear a mark in their environment, by which the next helper knows them and ends them before it
//! starts anything. What remains is a program that gives its own children another environment, and is killed in such a moment.

mod charge;
mod orphans;
#[cfg(feature = "daemon")]
mod serve;
#[cfg(test)]
pub(super) mod tests;
mod wire;

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::launch::Launch;
use super::process::Ended;
use crate::clock::{Clock, RealClock};
pub(super) use charge::Charge;
use wire::Request;

#[cfg(feature = "daemon")]
pub(crate) use orphans::reap_what_was_left;
#[cfg(feature = "daemon")]
pub use serve::{asked, asked_of_this_program, serve};

/// How long a new helper waits for an earlier one, which kills its children and sees them gone.
const LOCK_WAIT: Duration = Duration::from_secs(10);
/// How long the last of a lost child may take: it was sent a KILL.
const LOST_WAIT: Duration = Duration::from_secs(5);
/// How long a helper may be silent while it is waited for. Long, since its end is the end of all that it has started.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Helpers that are asked for one start: one may have died since it was last asked.
const HELPERS_ASKED: usize = 2;

/// What becomes of what a helper that died had started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orphans {
    /// Its children die with it; where theirs go is the system's to say.
    Left,
    /// They come to this process, which ends them all: for one that starts no other processes than helpers.
    Adopted,
}

/// Who starts processes.
#[derive(Debug, Clone, Default)]
pub enum Spawner {
    /// This process. A child dies with the *thread* that started it.
    #[default]
    Direct,
    /// A helper process of this one.
    Helper(Arc<Helper>),
}

impl Spawner {
    /// A helper, started when it is first needed. `program` makes the command that becomes it, given the file to lock.
    pub fn helper(program: fn(&Path) -> Command, orphans: Orphans) -> Self {
        Self::Helper(Arc::new(Helper { program, orphans, lock: OnceLock::new(), link: Mutex::new(None) }))
    }

    /// Tells where the data directory is: its file `SPAWNER` is the helper's to lock. Only the first call counts.
    pub fn live_in(&self, data_dir: &Path) {
        if let Self::Helper(helper) = self {
            // A data directory cannot change while a process lives.
            let _: Result<(), PathBuf> = helper.lock.set(data_dir.join("SPAWNER"));
        }
    }

    /// Makes sure that something can be started.
    ///
    /// # Errors
    /// Why not: no process to be had, or an earlier helper is not gone yet.
    pub(super) fn prepare(&self) -> io::Result<()> {
        match self {
            Self::Direct => Ok(()),
            Self::Helper(helper) => helper.link().map(drop),
        }
    }

    /// Ends the helper, and waits until it and all that it started are gone.
    pub fn stop(&self) {
        if let Self::Helper(helper) = self {
            let link = helper.current().take();
            if let Some(link) = link
                && !link.end()
            {
                helper.bury(&link);
            }
        }
    }
}

/// This process's end of its helper.
#[derive(Debug)]
pub struct Helper {
    program: fn(&Path) -> Command,
    orphans: Orphans,
    lock: OnceLock<PathBuf>,
    link: Mutex<Option<Arc<Link>>>,
}

/// One helper, as long as it lives.
#[derive(Debug)]
struct Link {
    socket: OwnedFd,
    process: Mutex<std::process::Child>,
    /// The number of the next child.
    next: AtomicU64,
    /// When it last answered anybody, in milliseconds of [`Clock::mono`]. A number alone, which orders nothing: relaxed.
    heard_ms: AtomicU64,
}

impl Helper {
    fn current(&self) -> MutexGuard<'_, Option<Arc<Link>>> {
        // Nothing that panics is done under it.
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The helper, started if there is none.
    fn link(self: &Arc<Self>) -> io::Result<Arc<Link>> {
        let mut current = self.current();
        if let Some(link) = &*current {
            return Ok(Arc::clone(link));
        }
        let link = Arc::new(self.start()?);
        *current = Some(Arc::clone(&link));
        self.watch(&link);
        Ok(link)
    }

    /// Has a thread wait for the end of a helper: also one that nobody needs just now may leave something behind.
    fn watch(self: &Arc<Self>, link: &Arc<Link>) {
        let (helper, link) = (Arc::downgrade(self), Arc::clone(link));
        let watch = move || {
            // It says nothing unasked, so this is its end, or ours.
            if wire::is_told(&link.socket, Duration::MAX)
                && let Some(helper) = helper.upgrade()
            {
                helper.lost(&link);
            }
        };
        if let Err(error) = std::thread::Builder::new().name("helper".to_owned()).spawn(watch) {
            tracing::warn!(%error, "the end of the process that starts children will be noticed when it is next needed");
        }
    }

    fn start(&self) -> io::Result<Link> {
        if self.orphans == Orphans::Adopted {
            orphans::adopt()?;
        }
        let lock = self.lock.get().ok_or_else(|| io::Error::other("the process that starts children has no place"))?;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let mut command = (self.program)(lock);
        // A group of its own: the Ctrl-C of a terminal is for us.
        command.env_clear().stdin(Stdio::from(theirs)).stdout(nowhere()?).current_dir("/").process_group(0);
        let process =
            command.spawn().map_err(|e| about(&format!("cannot start the process that starts children: {e}")))?;
        // With it goes our copy of its end.
        drop(command);
        let (next, heard_ms) = (AtomicU64::new(0), AtomicU64::new(0));
        let link = Link { socket: ours, process: Mutex::new(process), next, heard_ms };
        match wire::hear_ready(&link.socket, LOCK_WAIT) {
            Ok(true) => Ok(link),
            Ok(false) => {
                let pid = std::fs::read_to_string(lock).unwrap_or_default();
                link.kill();
                let pid = pid.trim();
                Err(about(&format!(
                    "process {pid} of an earlier biotope holds {} and has not ended yet",
                    lock.display()
                )))
            }
            Err(error) => {
                let ended = link.kill();
                Err(about(&format!("the process that starts children did not come up ({error}): it {ended}")))
            }
        }
    }

    /// Notes that a helper is gone, or is to go; the next start makes a new one. When it returns, nothing of the old one's is
    /// left, if that can be had.
    fn lost(&self, link: &Link) {
        let mut current = self.current();
        if current.as_ref().is_some_and(|current| std::ptr::eq(Arc::as_ptr(current), link)) {
            *current = None;
            let ended = self.bury(link);
            tracing::warn!(
                "the process that starts children {ended}, and its children with it; another one is started"
            );
        }
    }

    /// Ends a helper at once, and what it leaves.
    fn bury(&self, link: &Link) -> Ended {
        let ended = link.kill();
        // The kernel has given us its orphans before it let us know of its end.
        if self.orphans == Orphans::Adopted && !orphans::end_all(LOST_WAIT) {
            tracing::warn!("some of what the process that starts children has left still ends");
        }
        ended
    }

    /// Asks for a child; whom, under which number, and the pipe for what becomes of it.
    fn ask(
        self: &Arc<Self>,
        launch: &Launch,
        env: &[(&str, &OsStr)],
        stdio: &[OwnedFd; 3],
        patience: Duration,
    ) -> io::Result<(Arc<Link>, u64, OwnedFd)> {
        for _ in 0..HELPERS_ASKED {
            let link = self.link()?;
            let number = link.next.fetch_add(1, Ordering::Relaxed);
            let (status, told) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
            let [stdin, stdout, stderr] = stdio;
            let passed = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd(), told.as_fd()];
            match wire::send(&link.socket, &Request::start(number, launch, env), &passed, patience) {
                Ok(()) => return Ok((link, number, status)),
                // It was gone before it could be asked.
                Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => self.lost(&link),
                Err(Errno::AGAIN) => return Err(self.silent(&link, patience)),
                Err(error) => return Err(error.into()),
            }
        }
        Err(about("the process that starts children ends again and again"))
    }

    /// Ends a helper that does not answer: what it was asked for it may do any time, and only its end rules that out. The error
    /// that says so.
    fn silent(&self, link: &Link, patience: Duration) -> io::Error {
        self.lost(link);
        about(&format!("the process that starts children did not answer within {patience:?}, and was ended"))
    }
}

impl Link {
    /// Ends the helper as the end of this process would, and waits for it; false if it takes too long.
    fn end(&self) -> bool {
        // Whoever still asks gets an error.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        let pid = i32::try_from(self.process().id()).ok().and_then(Pid::from_raw);
        let pidfd = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        if pidfd.is_some_and(|pidfd| !wire::is_told(&pidfd, LOCK_WAIT)) {
            return false;
        }
        self.wait();
        true
    }

    /// Notes that it has answered.
    fn heard(&self) {
        let now = u64::try_from(RealClock.mono().as_millis()).unwrap_or(u64::MAX);
        self.heard_ms.fetch_max(now, Ordering::Relaxed);
    }

    /// Until when somebody who has asked at `began` waits on.
    fn patience_until(&self, began: Duration, patience: Duration) -> Duration {
        let heard = Duration::from_millis(self.heard_ms.load(Ordering::Relaxed));
        began.max(heard).saturating_add(patience)
    }

    /// Whether it answers at all.
    fn answers(&self) -> bool {
        let Ok((status, told)) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC) else { return true };
        let asked = wire::send(&self.socket, &Request::Ping, &[told.as_fd()], SILENCE_MAX);
        drop(told);
        asked.is_ok() && wire::is_told(&status, SILENCE_MAX)
    }

    fn kill(&self) -> Ended {
        // It may have ended.
        let _ = self.process().kill();
        self.wait()
    }

    fn wait(&self) -> Ended {
        self.process().wait().map_or(Ended::Unknown, Ended::from)
    }

    fn process(&self) -> MutexGuard<'_, std::process::Child> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An output that nobody reads. Where there is no /dev, a file in memory: the helper prints nothing.
fn nowhere() -> io::Result<Stdio> {
    let null = std::fs::OpenOptions::new().write(true).open("/dev/null").map(Stdio::from);
    null.or_else(|_| Ok(rustix::fs::memfd_create("nowhere", rustix::fs::MemfdFlags::CLOEXEC)?.into()))
}

fn about(text: &str) -> io::Error {
    io::Error::other(text.to_owned())
}
