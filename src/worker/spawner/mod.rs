//! Who starts a worker's processes: this process itself, or one small helper beside it.
//!
//! Owns the engine's end of the helper: when it is started and replaced, and what is asked of it. Never decides what is
//! started. The helper's own life is `serve`'s, the words between the two are `wire`'s.
//!
//! A program that embeds biotope has nothing to re-execute and starts its children itself ([`Spawner::Direct`]). The
//! program `biotope` has a helper ([`Spawner::Helper`]): a process of few pages forks fast, and, as its one thread lives
//! as long as it does, no thread that ends here takes children along.
//!
//! Promises:
//! - No helper starts anything before the one of an earlier process with the same data directory has ended, and with it
//!   all that it had started: a helper holds the file `SPAWNER` there by flock.
//! - A helper that dies takes its children along. The next start makes a new one.

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

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::child::Ended;
use super::launch::Launch;
pub(super) use wire::Record;
use wire::Request;

#[cfg(feature = "daemon")]
pub use serve::{asked, asked_of_this_program, serve};

/// Lets the calling thread, and those that it starts from now on, block no signal, whatever this process was started with: a blocked
/// signal would not stop it, nor tell it of a child's end.
///
/// # Errors
/// As the operating system says.
#[cfg(feature = "daemon")]
pub fn block_no_signal() -> io::Result<()> {
    Ok(super::spawn::block_no_signal()?)
}

/// How long a new helper waits for an earlier one, which kills its children and sees them gone.
const LOCK_WAIT: Duration = Duration::from_secs(10);
/// How long the last of a lost child may take: it was sent a KILL.
const LOST_WAIT: Duration = Duration::from_secs(5);

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
    pub fn helper(program: fn(&Path) -> Command) -> Self {
        Self::Helper(Arc::new(Helper { program, lock: OnceLock::new(), link: Mutex::new(None) }))
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
            if let Some(link) = link {
                link.end();
            }
        }
    }
}

/// This process's end of its helper.
#[derive(Debug)]
pub struct Helper {
    program: fn(&Path) -> Command,
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
}

impl Helper {
    fn current(&self) -> MutexGuard<'_, Option<Arc<Link>>> {
        // Nothing that panics is done under it.
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The helper, started if there is none.
    fn link(&self) -> io::Result<Arc<Link>> {
        let mut current = self.current();
        if let Some(link) = &*current {
            return Ok(Arc::clone(link));
        }
        let link = Arc::new(self.start()?);
        *current = Some(Arc::clone(&link));
        Ok(link)
    }

    fn start(&self) -> io::Result<Link> {
        let lock = self.lock.get().ok_or_else(|| io::Error::other("the process that starts children has no place"))?;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let mut command = (self.program)(lock);
        // A group of its own: the Ctrl-C of a terminal is for us.
        command.env_clear().stdin(Stdio::from(theirs)).stdout(Stdio::null()).current_dir("/").process_group(0);
        let process =
            command.spawn().map_err(|e| about(&format!("cannot start the process that starts children: {e}")))?;
        // With it goes our copy of its end.
        drop(command);
        let link = Link { socket: ours, process: Mutex::new(process), next: AtomicU64::new(0) };
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

    /// Notes that a helper is gone; the next start makes a new one.
    fn lost(&self, link: &Arc<Link>) {
        let mut current = self.current();
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, link)) {
            *current = None;
            let ended = link.kill();
            tracing::warn!(
                "the process that starts children {ended}, and its children with it; another one is started"
            );
        }
    }

    /// Has a child started; its number, its process id, and what tells its end.
    fn spawn(self: &Arc<Self>, launch: &Launch, env: &[(&str, &OsStr)], stdio: &[OwnedFd; 3]) -> io::Result<Charge> {
        let link = self.link()?;
        let number = link.next.fetch_add(1, Ordering::Relaxed);
        let (status, told) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let request = Request::start(number, launch, env);
        let [stdin, stdout, stderr] = stdio;
        let passed = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd(), told.as_fd()];
        if let Err(error) = wire::send(&link.socket, &request, &passed) {
            if matches!(error, Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) {
                self.lost(&link);
            }
            return Err(error.into());
        }
        drop(told);
        match wire::read_record(&status) {
            Ok(Some(Record::Started(pid))) => {
                let pid = Pid::from_raw(pid).ok_or(Errno::SRCH)?;
                Ok(Charge { helper: Arc::clone(self), link, number, pid, status })
            }
            Ok(Some(Record::Failed(errno))) => Err(io::Error::from_raw_os_error(errno)),
            Ok(Some(Record::Exited(_) | Record::Signalled(_)) | None) | Err(_) => {
                self.lost(&link);
                Err(about("the process that starts children ended"))
            }
        }
    }
}

impl Link {
    /// Ends the helper as the end of this process would, and waits for it.
    fn end(&self) -> Ended {
        // Whoever still asks gets an error.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        self.wait()
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

/// A child that a helper started for us.
#[derive(Debug)]
pub(super) struct Charge {
    helper: Arc<Helper>,
    link: Arc<Link>,
    number: u64,
    pid: Pid,
    status: OwnedFd,
}

impl Charge {
    /// Starts a child by a helper.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn spawn(
        helper: &Arc<Helper>,
        launch: &Launch,
        env: &[(&str, &OsStr)],
        stdio: &[OwnedFd; 3],
    ) -> io::Result<Self> {
        helper.spawn(launch, env, stdio)
    }

    /// The child's number.
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Readable when the child has ended.
    pub(super) fn end_fd(&self) -> BorrowedFd<'_> {
        self.status.as_fd()
    }

    /// Has a signal sent to the child's group, if the child has not ended.
    pub(super) fn signal(&self, signal: Signal) {
        // A helper that is gone took the child along, which `wait` sees.
        let _: Result<(), Errno> = wire::send(&self.link.socket, &Request::signal(self.number, signal), &[]);
    }

    /// Waits for the child's end; its group was killed then.
    pub(super) fn wait(&mut self) -> Ended {
        match wire::read_record(&self.status) {
            Ok(Some(Record::Exited(code))) => Ended::Exited(code),
            Ok(Some(Record::Signalled(signal))) => Ended::Signalled(signal),
            Ok(Some(Record::Started(_) | Record::Failed(_)) | None) | Err(_) => self.lost(),
        }
    }

    /// Sees to it that a child whose helper is gone is gone, too, and the rest of its group. The kernel has sent it a KILL
    /// when the helper ended, a moment ago, so nobody else has its number yet.
    fn lost(&self) -> Ended {
        self.helper.lost(&self.link);
        let _ = kill_process_group(self.pid, Signal::KILL);
        if let Ok(pidfd) = pidfd_open(self.pid, PidfdFlags::empty()) {
            let wait = Timespec::try_from(LOST_WAIT).ok();
            let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], wait.as_ref());
        }
        Ended::Lost
    }
}

fn about(text: &str) -> io::Error {
    io::Error::other(text.to_owned())
}
