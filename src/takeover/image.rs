//! The image of this process: how another one is put in its place, which signals reach it, and how one that does not come
//! up brings the one before it back.
//!
//! Owns all that is `unsafe` in a takeover. Decides nothing: what is put in whose place, and when, is told.
//!
//! ```text
//! become_image ─► the new image: arm ─► … starts … ─► settle: it stays
//!                                 └── an error, a panic, an exit, a deadly signal, too late ─► the image before
//! ```
//!
//! What brings the image before back runs in a signal handler, too: all it needs is made ready when it is armed, and it
//! does nothing but system calls.

use std::ffi::{CString, OsStr, c_char, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::Duration;

use rustix::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use rustix::io::Errno;

use crate::clock::{Clock, RealClock};

/// Signals by which a process ends of its own fault.
const DEADLY: [c_int; 7] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT, libc::SIGSYS, libc::SIGTRAP];
/// Bytes that are kept of why an image did not come up.
const WHY_BYTES_MAX: usize = 2000;

/// What an image is started with: arguments and environment, as the kernel takes them.
#[derive(Debug)]
pub(super) struct Words {
    args: Vec<*const c_char>,
    env: Vec<*const c_char>,
    /// What these point to.
    _strings: Vec<CString>,
}

#[expect(unsafe_code, reason = "pointers are neither")]
// SAFETY: they point into strings that live as long as they do, wherever they are moved to, and that nobody changes.
unsafe impl Send for Words {}

impl Words {
    /// # Errors
    /// A word holds a zero, which none of the kernel's own can.
    pub(super) fn new<'a>(
        args: impl Iterator<Item = &'a OsStr>,
        env: impl Iterator<Item = (&'a OsStr, &'a OsStr)>,
    ) -> io::Result<Self> {
        let args = args.map(|arg| CString::new(arg.as_bytes())).collect::<Result<Vec<_>, _>>()?;
        let pair = |(name, value): (&OsStr, &OsStr)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat());
        let env = env.map(pair).collect::<Result<Vec<_>, _>>()?;
        let pointers = |strings: &[CString]| -> Vec<*const c_char> {
            strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
        };
        // Moved, not copied: what is pointed to stays where it is.
        Ok(Self { args: pointers(&args), env: pointers(&env), _strings: args.into_iter().chain(env).collect() })
    }
}

/// Lets the calling thread, and those that it starts from now on, block these signals and no others, whatever this process
/// was started with.
///
/// # Errors
/// As the operating system says.
pub(crate) fn block_only(signals: &[c_int]) -> Result<(), Errno> {
    #[expect(unsafe_code, reason = "the mask of signals has no safe handle")]
    // SAFETY: `set` is written to before it is read.
    let failed = unsafe {
        let mut set = MaybeUninit::uninit();
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut())
    };
    if failed == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(failed)) }
}

/// Takes a descriptor over that was left open for this process, by the image before or by who started it; it closes on the
/// next exec. `None` if nothing is open there.
pub(crate) fn adopt(fd: RawFd) -> Option<OwnedFd> {
    #[expect(unsafe_code, reason = "descriptors that nobody in this process owns have no safe handle")]
    // SAFETY: it is open, and nobody's: it was left to this image, which takes each over once, as its first act.
    unsafe {
        (fd > 2 && libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) == 0).then(|| OwnedFd::from_raw_fd(fd))
    }
}

/// Puts `image` in the place of this one: the same process, with `kept` open, every signal blocked, and nothing else left.
/// Returns only if that cannot be. Safe in a signal handler.
pub(super) fn become_image(image: RawFd, kept: &[RawFd], words: &Words) -> Errno {
    #[expect(unsafe_code, reason = "what takes this process's place has no safe handle")]
    // SAFETY: system calls, all of them safe in a signal handler; `all` is written to before it is read; the words end
    // with a null, and what they point to lives as long as they do.
    unsafe {
        let mut all = MaybeUninit::uninit();
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), std::ptr::null_mut());
        for fd in kept {
            libc::fcntl(*fd, libc::F_SETFD, 0);
        }
        let (args, env) = (words.args.as_ptr(), words.env.as_ptr());
        libc::syscall(libc::SYS_execveat, image, c"".as_ptr(), args, env, libc::AT_EMPTY_PATH);
        Errno::from_raw_os_error(*libc::__errno_location())
    }
}

/// The image before, and all that it needs to go on.
#[derive(Debug)]
pub(super) struct Before {
    /// Its file.
    pub(super) image: OwnedFd,
    /// What it gets back, under the numbers that it knows.
    pub(super) kept: Vec<OwnedFd>,
    /// And connections, which this image goes on with once it is settled.
    pub(super) connections: Vec<OwnedFd>,
    /// Where it reads why it is back; one of `kept`.
    pub(super) why: RawFd,
    /// What it is started with.
    pub(super) words: Words,
}

/// Who is to be brought back, if this image does not come up; null where nobody is, [`RETURNING`] while that is done.
/// Whoever takes a box out of it alone has it then: SeqCst throughout, since nothing here needs to be fast.
static BEFORE: AtomicPtr<Before> = AtomicPtr::new(std::ptr::null_mut());
/// Somebody is bringing it back: everybody else who would end this process waits for that.
const RETURNING: *mut Before = std::ptr::without_provenance_mut(1);
/// What was done on deadly signals before.
static HANDLERS: Mutex<Vec<(c_int, libc::sigaction)>> = Mutex::new(Vec::new());

/// Takes out who is to be brought back, and leaves `instead`; what was there, as it was, where that is nobody.
fn take(instead: *mut Before) -> *mut Before {
    let change = |before: *mut Before| (!before.is_null() && before != RETURNING).then_some(instead);
    BEFORE.fetch_update(Ordering::SeqCst, Ordering::SeqCst, change).unwrap_or_else(|left| left)
}

/// From now on everything that ends this image, and every moment after `within`, brings the one before back.
///
/// # Errors
/// As the operating system says; then it is armed all the same.
pub(super) fn arm(before: Before, within: Duration) -> io::Result<()> {
    BEFORE.store(Box::into_raw(Box::new(before)), Ordering::SeqCst);
    let mut handlers = HANDLERS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for signal in DEADLY {
        #[expect(unsafe_code, reason = "the standard library has no safe way to handle a deadly signal, or the end")]
        // SAFETY: both structures are written to before they are read; the handler does nothing but system calls.
        unsafe {
            let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
            let mut old = MaybeUninit::uninit();
            action.sa_sigaction = on_deadly_signal as extern "C" fn(c_int) as usize;
            // The stack may be what is at fault.
            action.sa_flags = libc::SA_ONSTACK;
            if libc::sigaction(signal, &raw const action, old.as_mut_ptr()) == 0 {
                handlers.push((signal, old.assume_init()));
            }
        }
    }
    #[expect(unsafe_code, reason = "the standard library has no way to be told of an exit")]
    // SAFETY: the function lives as long as the process; `deadly` is written to before it is read. The image before has
    // blocked every signal, and a blocked one that is deadly ends a process without a word.
    unsafe {
        libc::atexit(on_exit);
        let mut deadly = MaybeUninit::uninit();
        libc::sigemptyset(deadly.as_mut_ptr());
        for signal in DEADLY {
            libc::sigaddset(deadly.as_mut_ptr(), signal);
        }
        libc::pthread_sigmask(libc::SIG_UNBLOCK, deadly.as_ptr(), std::ptr::null_mut());
    }
    let until = RealClock.mono().saturating_add(within);
    let watch = move || {
        while !BEFORE.load(Ordering::SeqCst).is_null() {
            let left = until.saturating_sub(RealClock.mono());
            if left.is_zero() {
                return bring_back(format!("it was not ready within {within:?}").as_bytes());
            }
            std::thread::park_timeout(left);
        }
    };
    std::thread::Builder::new().name("takeover".to_owned()).spawn(watch).map(drop)
}

/// This image has come up, and stays. The connections that it goes on with.
pub(super) fn settle() -> Vec<OwnedFd> {
    let before = take(std::ptr::null_mut());
    if before.is_null() || before == RETURNING {
        wait_for_who_returns();
        return Vec::new();
    }
    let mut handlers = HANDLERS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for (signal, old) in handlers.drain(..) {
        #[expect(unsafe_code, reason = "the dispositions of signals have no safe handle")]
        // SAFETY: what is set is what the system said was set before.
        unsafe {
            libc::sigaction(signal, &raw const old, std::ptr::null_mut());
        }
    }
    #[expect(unsafe_code, reason = "a signal handler takes no lock, so what it needs lies behind a bare pointer")]
    // SAFETY: it came of a box, and whoever swaps it out is the only one who has it.
    unsafe { Box::from_raw(before) }.connections
}

/// Brings the image before back, if there is one and this one is not settled; returns otherwise.
pub(super) fn bring_back(why: &[u8]) {
    let before = take(RETURNING);
    if before.is_null() || before == RETURNING {
        return wait_for_who_returns();
    }
    #[expect(unsafe_code, reason = "a signal handler takes no lock, so what it needs lies behind a bare pointer")]
    // SAFETY: it came of a box, whoever swaps it out is the only one who has it, and it is never freed from here on.
    let before = unsafe { &*before };
    let kept = why.get(..WHY_BYTES_MAX).unwrap_or(why);
    #[expect(unsafe_code, reason = "a system call that a signal handler may make")]
    // SAFETY: the bytes are there, and as many as is said.
    unsafe {
        libc::pwrite(before.why, kept.as_ptr().cast::<c_void>(), kept.len(), 0);
    }
    become_image_before(before);
    // It cannot be: then this one ends as it would have.
    BEFORE.store(std::ptr::null_mut(), Ordering::SeqCst);
}

fn become_image_before(before: &Before) {
    // One by one, since a signal handler has no room to gather them.
    for fd in before.kept.iter().chain(&before.connections) {
        #[expect(unsafe_code, reason = "a system call that a signal handler may make")]
        // SAFETY: nothing but a flag of an open descriptor changes.
        unsafe {
            libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0);
        }
    }
    let _: Errno = become_image(before.image.as_raw_fd(), &[], &before.words);
}

extern "C" fn on_deadly_signal(signal: c_int) {
    let why: &[u8] = match signal {
        libc::SIGSEGV => b"it was ended by a segmentation fault",
        libc::SIGBUS => b"it was ended by a bus error",
        libc::SIGABRT => b"it aborted",
        _ => b"it was ended by a signal of its own fault",
    };
    bring_back(why);
    #[expect(unsafe_code, reason = "the dispositions of signals have no safe handle")]
    // SAFETY: safe in a signal handler; what was at fault happens again when this returns, and ends the process.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
    }
}

extern "C" fn on_exit() {
    bring_back(b"it exited");
}

/// Another thread is in the middle of bringing the image before back, and this one must not end the process meanwhile.
fn wait_for_who_returns() {
    while BEFORE.load(Ordering::SeqCst) == RETURNING {
        #[expect(unsafe_code, reason = "the standard library has no wait that a signal handler may use")]
        // SAFETY: safe in a signal handler; waits for a millisecond.
        unsafe {
            libc::poll(std::ptr::null_mut(), 0, 1);
        }
    }
}
