//! Starts a process from a [`Launch`], as a child of this one: its environment, its group, its pipes, and the signal that it gets when we die.
//!
//! Owns all that is `unsafe` in the workers: what a child does between fork and exec. Waits for nothing but a program that is busy being written.

use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use rustix::event::{Timespec, poll};
use rustix::fd::BorrowedFd;
#[cfg(feature = "daemon")]
use rustix::fd::OwnedFd;
use rustix::fs::{Dir, Mode, OFlags};
use rustix::io::{Errno, FdFlags};
use rustix::process::{Pid, Signal};

use super::confined::Taking;
use super::launch::Launch;

#[cfg(feature = "daemon")]
mod quick;

#[cfg(feature = "daemon")]
pub(super) use quick::Quick;

/// Starts that are tried while the program is "busy": another thread that forks may hold its file open for writing a moment.
const BUSY_STARTS: u32 = 8;

/// Descriptors below this may be inherited, where nothing tells which are.
const INHERITED_MAX: RawFd = 1024;

/// The last of the kernel's signals.
const SIGNAL_MAX: i32 = 64;

/// Starts `launch` with `env` on top of its environment, and with these as its stdin, stdout and stderr.
pub(super) fn spawn(launch: &Launch, env: &[(&str, &OsStr)], stdio: [Stdio; 3]) -> io::Result<Child> {
    let mut command = Command::new(&launch.program);
    command.arg0(&launch.name).args(&launch.args);
    command.env_clear().envs(launch.env.iter().map(|(k, v)| (k, v))).envs(env.iter().copied());
    let [stdin, stdout, stderr] = stdio;
    command.stdin(stdin).stdout(stdout).stderr(stderr).process_group(0);
    // Its user, and its directory after that, are taken on there: the standard library knows a user, but not all of its groups.
    guard(&mut command, launch.confined.prepare(&launch.dir)?);
    spawn_busy(&mut command)
}

/// As [`spawn`], for the helper, with all of the environment in `launch`; without a copy of this process where that can be.
#[cfg(feature = "daemon")]
pub(super) fn spawn_for_helper(quick: &mut Quick, launch: &Launch, stdio: [OwnedFd; 3]) -> io::Result<Pid> {
    if launch.confined.user.is_none()
        && let Ok(pid) = quick.start(launch, &stdio)
    {
        return Ok(pid);
    }
    // Whatever was in its way: the other one waits for a busy file, knows a script that does not say what runs it, and tells why.
    spawn(launch, &[], stdio.map(Stdio::from)).map(|child| Pid::from_child(&child))
}

/// Starts a process, and tries again for a quarter of a second while its program is busy.
fn spawn_busy(command: &mut Command) -> io::Result<Child> {
    for tried in 0..BUSY_STARTS {
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                let pause = Timespec { tv_sec: 0, tv_nsec: 1_000_000 << tried };
                let _ = poll(&mut [], Some(&pause));
            }
            done => return done,
        }
    }
    command.spawn()
}

/// Has the kernel kill the child when the thread that spawned it ends, and so also when this whole process is killed;
/// keeps from it what this process itself was given without need, be it descriptors or signals, and confines it.
fn guard(command: &mut Command, confined: Taking) {
    let parent = rustix::process::getpid();
    let inherited = inherited();
    let prepare = move || {
        keep_back(inherited);
        if TAKES_EVERY_SIGNAL.get().is_none() {
            take_every_signal(1..=SIGNAL_MAX)?;
        }
        confined.take_on()?;
        // After its user is set, which would undo it.
        Ok(die_with(parent)?)
    };
    #[expect(unsafe_code, reason = "the standard library has no safe way to set the death signal of a child")]
    // SAFETY: between fork and exec only async-signal-safe work is allowed. `prepare` makes system calls, through rustix
    // and so without libc's locks; it neither allocates nor touches memory that another thread may hold locked.
    unsafe {
        command.pre_exec(prepare);
    }
}

/// Has the kernel kill this process, a child before its exec, when the thread that started it ends.
fn die_with(parent: Pid) -> Result<(), Errno> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // A parent that died before the line above sends no signal any more.
    if rustix::process::getppid() == Some(parent) { Ok(()) } else { Err(Errno::SRCH) }
}

/// Has descriptors closed by exec.
fn keep_back(fds: &[RawFd]) {
    for fd in fds {
        #[expect(unsafe_code, reason = "descriptors that nobody in this process owns have no safe handle")]
        // SAFETY: nothing is read or written through it. The number is open here, as it was when this process
        // started, or belongs to something opened since, which closes on exec anyhow, or gives EBADF.
        let fd = unsafe { BorrowedFd::borrow_raw(*fd) };
        let _ = rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC);
    }
}

/// Set where this process ignores and blocks nothing itself, so that its children need not see to it. (SIGPIPE it does, and the
/// standard library sees to that.)
static TAKES_EVERY_SIGNAL: OnceLock<()> = OnceLock::new();

/// Lets this process ignore and block no signal: a child before its exec may have been given both through us, who need not
/// know, and neither ends with exec.
fn take_every_signal(all: impl Iterator<Item = i32>) -> Result<(), Errno> {
    for signal in all {
        #[expect(unsafe_code, reason = "the dispositions of signals have no safe handle")]
        // SAFETY: a system call, safe between fork and exec, and before anything is handled; what was handled is only set to
        // what exec would make of it.
        // The two signals that cannot be set, and those that the C library keeps, give an error.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
    block_no_signal()
}

/// Lets the calling thread block no signal: whoever started this process may have had reasons that end there.
fn block_no_signal() -> Result<(), Errno> {
    #[expect(unsafe_code, reason = "the mask of signals has no safe handle")]
    // SAFETY: `none` is written to before it is read; both calls are safe between fork and exec, too.
    let failed = unsafe {
        let mut none = MaybeUninit::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut())
    };
    if failed == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(failed)) }
}

/// Makes this process one that starts others and does nothing else: keeps what it was started with to itself, before anything
/// else is opened, and ignores and blocks no signal, before any is handled.
///
/// # Errors
/// As the operating system says.
#[cfg(feature = "daemon")]
pub(super) fn become_helper() -> Result<(), Errno> {
    keep_back(inherited());
    take_every_signal((1..=SIGNAL_MAX).filter(|signal| *signal != Signal::PIPE.as_raw()))?;
    TAKES_EVERY_SIGNAL.get_or_init(|| ());
    Ok(())
}

/// Descriptors above 2 that would pass on to children: what we open closes on exec, what we were started with may not.
/// Taken once; changing the flags in the child alone leaves the process that embeds us as it is.
fn inherited() -> &'static [RawFd] {
    static INHERITED: OnceLock<Vec<RawFd>> = OnceLock::new();
    INHERITED.get_or_init(|| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(entries) = rustix::fs::open("/proc/self/fd", flags, Mode::empty()).and_then(Dir::new) else {
            // Nobody can tell without /proc: any of these may be one.
            return (3..INHERITED_MAX).collect();
        };
        let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str().ok()?.parse().ok());
        numbers.filter(|fd| *fd > 2).collect()
    })
}
