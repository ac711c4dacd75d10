//! Starts a process that shares this one's memory until its exec, so that no page of it is copied.
//!
//! Owns the child between `clone` and `execve`: there it runs on a stack of its own, and the thread that started it waits. For
//! the helper, whose handled signals it knows. Never gives a child another user, which would change what others may see of
//! the memory that is shared; says no more of a failure than its number.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::{CString, c_char, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, waitpid};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::{die_with, take_every_signal};
use crate::worker::confined::Taking;
use crate::worker::launch::Launch;

/// Words of a child's stack, 128 KiB: many times what its few system calls need, of which no more than that is ever touched.
const STACK_WORDS: usize = 8 << 10;
/// What the helper handles or ignores, and what the standard library does. The child must not: a handler would run in our memory.
const HANDLED: [i32; 8] = [
    Signal::HUP.as_raw(),
    Signal::INT.as_raw(),
    Signal::QUIT.as_raw(),
    Signal::TERM.as_raw(),
    Signal::CHILD.as_raw(),
    Signal::PIPE.as_raw(),
    Signal::SEGV.as_raw(),
    Signal::BUS.as_raw(),
];

/// Starts processes, one after the other.
pub(in crate::worker) struct Quick {
    /// The next child's; in words of the alignment that a stack has.
    stack: Box<[MaybeUninit<u128>]>,
}

/// All that a child needs; it only reads it, but for the error.
struct Order<'a> {
    program: CString,
    /// Pointers into strings that live as long as this, and a null.
    args: Vec<*const c_char>,
    env: Vec<*const c_char>,
    stdio: &'a [OwnedFd; 3],
    taking: Taking,
    parent: Pid,
    /// Why it was not started; zero if it was. Written by the child, read when that is through: relaxed.
    error: AtomicI32,
}

impl Quick {
    /// Nothing is started yet.
    pub(in crate::worker) fn new() -> Self {
        Self { stack: Box::new_uninit_slice(STACK_WORDS) }
    }

    /// Starts `launch`, as its own user, with these as its stdin, stdout and stderr, all of them above 2.
    ///
    /// # Errors
    /// What the operating system says; no process is left then.
    pub(super) fn start(&mut self, launch: &Launch, stdio: &[OwnedFd; 3]) -> io::Result<Pid> {
        let program = c_string(launch.program.as_os_str().as_bytes())?;
        let args = [launch.name.as_str()].into_iter().chain(launch.args.iter().map(String::as_str));
        let args = args.map(|arg| c_string(arg.as_bytes())).collect::<io::Result<Vec<_>>>()?;
        // The last one of a name counts, as it does for the standard library.
        let env: BTreeMap<_, _> = launch.env.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        let env = env.iter().map(|(name, value)| c_string(&[name, b"=".as_slice(), value].concat()));
        let env = env.collect::<io::Result<Vec<_>>>()?;
        let pointers =
            |strings: &[CString]| strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect::<Vec<_>>();
        let order = Order {
            program,
            args: pointers(&args),
            env: pointers(&env),
            stdio,
            taking: launch.confined.prepare(Path::new(&launch.dir))?,
            parent: rustix::process::getpid(),
            error: AtomicI32::new(0),
        };
        let pid = self.clone_for(&order)?;
        match order.error.load(Ordering::Relaxed) {
            0 => Ok(pid),
            errno => {
                // It is ours, has said why, and ends.
                while matches!(waitpid(Some(pid), WaitOptions::empty()), Err(Errno::INTR)) {}
                Err(io::Error::from_raw_os_error(errno))
            }
        }
    }

    /// Makes the child, and waits until it runs its program or has failed.
    fn clone_for(&mut self, order: &Order<'_>) -> io::Result<Pid> {
        let top = self.stack.as_mut_ptr_range().end;
        let order: *const Order<'_> = order;
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        #[expect(unsafe_code, reason = "there is no safe way to start a process without a copy of this one")]
        // SAFETY: `child` runs on a stack that is ours alone and that nothing else is on, from its top downwards. With
        // CLONE_VFORK this thread goes on only when the child has left our memory by exec or exit, so the order and the
        // stack outlive it, and nobody but it uses this thread's errno meanwhile. No signal is handled in it: all are
        // blocked until it has let go of the handlers. The masks are written before they are read.
        let (pid, error) = unsafe {
            let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            let pid = libc::clone(child, top.cast(), flags, order.cast_mut().cast());
            let error = io::Error::last_os_error();
            libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut());
            (pid, error)
        };
        Pid::from_raw(pid.max(0)).ok_or(error)
    }
}

/// The child's life until its exec.
extern "C" fn child(order: *mut c_void) -> c_int {
    #[expect(unsafe_code, reason = "what the system hands on is a pointer")]
    // SAFETY: it is the one that `clone_for` has passed, which lives until this is through, and nobody writes to it meanwhile.
    let order = unsafe { &*order.cast::<Order<'_>>() };
    let Err(errno) = order.follow();
    order.error.store(errno.raw_os_error(), Ordering::Relaxed);
    127
}

impl Order<'_> {
    /// Becomes the program. In shared memory: makes system calls, and nothing else.
    fn follow(&self) -> Result<Infallible, Errno> {
        let [stdin, stdout, stderr] = self.stdio;
        rustix::process::setpgid(None, None)?;
        dup2_stdin(stdin)?;
        dup2_stdout(stdout)?;
        dup2_stderr(stderr)?;
        self.taking.take_on()?;
        die_with(self.parent)?;
        // The rest the helper takes as they come.
        take_every_signal(HANDLED.into_iter())?;
        #[expect(unsafe_code, reason = "what execve is given are pointers")]
        // SAFETY: all strings are whole and the lists end with a null; it comes back only if it has failed.
        unsafe {
            libc::execve(self.program.as_ptr(), self.args.as_ptr(), self.env.as_ptr());
        }
        Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL))
    }
}

fn c_string(bytes: &[u8]) -> io::Result<CString> {
    Ok(CString::new(bytes)?)
}
