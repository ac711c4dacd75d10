//! What an engine and its helper say to each other. Both are the same program, so the form is of no version.
//!
//! ```text
//! engine ── Request, with stdin, stdout, stderr and a pipe ─► helper      a SOCK_SEQPACKET pair
//! engine ◄─ READY, once ───────────────────────────────────── helper
//! engine ◄─ Record: Started or Failed, later the end ──────── helper      that pipe, one a child
//! engine ── Ping, with a pipe ──────────────────────────────► helper
//! engine ◄─ Record: Here ──────────────────────────────────── helper      that pipe
//! ```

use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::worker::confined::Confined;
use crate::worker::launch::Launch;

/// Descriptors that come with a start: the child's three, and the pipe for its records.
pub(super) const PASSED: usize = 4;
/// What a helper says when it can start children.
const READY: &[u8] = b"ready";
/// Bytes of a request that go through the socket; larger ones are put into a file in memory, which is passed.
/// Few, since what is written to before a fork is copied after it.
const INLINE_BYTES: usize = 8 << 10;
/// Most bytes that a request can have: more than the kernel lets any program be started with.
#[cfg(feature = "daemon")]
const REQUEST_BYTES_MAX: u64 = 16 << 20;

/// What an engine asks for.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(super) enum Request<'a> {
    /// A child, under a number.
    #[serde(borrow)]
    Start(Box<Start<'a>>),
    /// A signal to the group of a child.
    Signal {
        /// The child's number.
        number: u64,
        /// The signal's.
        signal: i32,
    },
    /// A sign of life.
    Ping,
}

/// A program to be started.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(super) struct Start<'a> {
    pub(super) number: u64,
    #[serde(borrow)]
    pub(super) program: &'a [u8],
    pub(super) name: &'a str,
    pub(super) args: Vec<&'a str>,
    pub(super) env: Vec<(&'a [u8], &'a [u8])>,
    pub(super) dir: &'a [u8],
    pub(super) confined: Confined,
}

impl<'a> Request<'a> {
    pub(super) fn start(number: u64, launch: &'a Launch, env: &[(&'a str, &'a OsStr)]) -> Self {
        let own = launch.env.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let on_top = env.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        Self::Start(Box::new(Start {
            number,
            program: launch.program.as_os_str().as_bytes(),
            name: &launch.name,
            args: launch.args.iter().map(String::as_str).collect(),
            env: own.chain(on_top).collect(),
            dir: launch.dir.as_os_str().as_bytes(),
            confined: launch.confined.clone(),
        }))
    }

    pub(super) fn signal(number: u64, signal: Signal) -> Self {
        Self::Signal { number, signal: signal.as_raw() }
    }
}

#[cfg(feature = "daemon")]
impl Start<'_> {
    /// The launch that was asked for; its environment is whole.
    pub(super) fn launch(&self) -> Launch {
        let os = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
        Launch {
            program: os(self.program).into(),
            name: self.name.to_owned(),
            args: self.args.iter().map(|&arg| arg.to_owned()).collect(),
            env: self.env.iter().map(|(name, value)| (os(name), os(value))).collect(),
            dir: os(self.dir).into(),
            confined: self.confined.clone(),
        }
    }
}

/// What became of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Record {
    /// It runs, as this process.
    Started(i32),
    /// It could not be started, for this error.
    Failed(i32),
    /// It exited with this code.
    Exited(i32),
    /// A signal ended it.
    Signalled(i32),
    /// Of no child: the helper lives.
    Here,
}

impl Record {
    const BYTES: usize = 8;

    #[cfg(feature = "daemon")]
    fn to_bytes(self) -> [u8; Self::BYTES] {
        let (kind, value) = match self {
            Self::Started(pid) => (1_i32, pid),
            Self::Failed(errno) => (2, errno),
            Self::Exited(code) => (3, code),
            Self::Signalled(signal) => (4, signal),
            Self::Here => (5, 0),
        };
        let ([a, b, c, d], [e, f, g, h]) = (kind.to_le_bytes(), value.to_le_bytes());
        [a, b, c, d, e, f, g, h]
    }

    fn from_bytes([a, b, c, d, e, f, g, h]: [u8; Self::BYTES]) -> Option<Self> {
        let value = i32::from_le_bytes([e, f, g, h]);
        match i32::from_le_bytes([a, b, c, d]) {
            1 => Some(Self::Started(value)),
            2 => Some(Self::Failed(value)),
            3 => Some(Self::Exited(value)),
            4 => Some(Self::Signalled(value)),
            5 => Some(Self::Here),
            _ => None,
        }
    }
}

/// Tells a record. The pipe holds all records of a child, so this never waits; nobody may listen any more.
#[cfg(feature = "daemon")]
pub(super) fn tell(pipe: &OwnedFd, record: Record) {
    while rustix::io::write(pipe, &record.to_bytes()) == Err(Errno::INTR) {}
}

/// The next record of a child; `None` if whoever writes them is gone.
pub(super) fn read_record(pipe: &OwnedFd) -> Result<Option<Record>, Errno> {
    let mut bytes = [0; Record::BYTES];
    loop {
        return match rustix::io::read(pipe, &mut bytes) {
            // A pipe passes on writes this small in one piece.
            Ok(Record::BYTES) => Ok(Record::from_bytes(bytes)),
            Ok(_) => Ok(None),
            Err(Errno::INTR) => continue,
            Err(errno) => Err(errno),
        };
    }
}

/// Whether there is something to read within `wait`: bytes, or the end.
pub(super) fn is_told(pipe: &impl AsFd, wait: Duration) -> bool {
    is_ready(pipe, PollFlags::IN, wait)
}

fn is_ready(fd: &impl AsFd, flags: PollFlags, wait: Duration) -> bool {
    // A wait that no clock can tell is one for ever.
    let wait = Timespec::try_from(wait).ok();
    loop {
        match poll(&mut [PollFd::new(fd, flags)], wait.as_ref()) {
            Err(Errno::INTR) => {}
            // An error is for whoever reads or writes next.
            ready => return ready != Ok(0),
        }
    }
}

/// Asks for something. Waits no longer than `wait` for a helper that does not listen: EAGAIN, then.
pub(super) fn send(
    socket: &OwnedFd,
    request: &Request<'_>,
    passed: &[BorrowedFd<'_>],
    wait: Duration,
) -> Result<(), Errno> {
    let bytes = postcard::to_allocvec(request).map_err(|_| Errno::INVAL)?;
    if bytes.len() <= INLINE_BYTES {
        return send_message(socket, &bytes, passed, wait);
    }
    let file = rustix::fs::memfd_create("request", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        at += rustix::io::pwrite(&file, rest, at as u64)?;
    }
    // One byte, which no request begins with: the rest is in the last descriptor.
    let with_file: Vec<_> = passed.iter().copied().chain([file.as_fd()]).collect();
    send_message(socket, &[u8::MAX], &with_file, wait)
}

fn send_message(socket: &OwnedFd, bytes: &[u8], passed: &[BorrowedFd<'_>], wait: Duration) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(PASSED + 1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !passed.is_empty() && !control.push(SendAncillaryMessage::ScmRights(passed)) {
        return Err(Errno::INVAL);
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    loop {
        match sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags) {
            Err(Errno::INTR) => {}
            // Others may be quicker to take the room that there is: each time it was not for want of an answer.
            Err(Errno::AGAIN) if is_ready(socket, PollFlags::OUT, wait) => {}
            sent => return sent.map(drop),
        }
    }
}

/// Waits until a helper is ready; false if it is not after `wait`.
pub(super) fn hear_ready(socket: &OwnedFd, wait: Duration) -> io::Result<bool> {
    if !is_told(socket, wait) {
        return Ok(false);
    }
    let mut bytes = [0; 16];
    match rustix::io::read(socket, &mut bytes)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        count if bytes.get(..count) == Some(READY) => Ok(true),
        count => Err(io::Error::other(String::from_utf8_lossy(bytes.get(..count).unwrap_or_default()).into_owned())),
    }
}

/// Says that children can be started.
#[cfg(feature = "daemon")]
pub(super) fn say_ready(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::io::write(socket, READY).map(drop)
}

/// Takes the next request into `buffer`, with what was passed; `None` if nobody asks any more.
#[cfg(feature = "daemon")]
pub(super) fn receive(socket: BorrowedFd<'_>, buffer: &mut Vec<u8>) -> Result<Option<Vec<OwnedFd>>, Errno> {
    buffer.resize(INLINE_BYTES, 0);
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(PASSED + 1))];
    let mut control = rustix::net::RecvAncillaryBuffer::new(&mut space);
    let got = rustix::net::recvmsg(
        socket,
        &mut [io::IoSliceMut::new(buffer)],
        &mut control,
        rustix::net::RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut passed = Vec::with_capacity(PASSED);
    for message in control.drain() {
        if let rustix::net::RecvAncillaryMessage::ScmRights(fds) = message {
            passed.extend(fds);
        }
    }
    buffer.truncate(got.bytes);
    match buffer.as_slice() {
        [] => return Ok(None),
        [u8::MAX] => {
            let file = passed.pop().ok_or(Errno::BADMSG)?;
            let size = rustix::fs::fstat(&file)?.st_size;
            let size = u64::try_from(size).ok().filter(|size| *size <= REQUEST_BYTES_MAX).ok_or(Errno::TOOBIG)?;
            buffer.resize(usize::try_from(size).map_err(|_| Errno::TOOBIG)?, 0);
            let mut at = 0;
            while let Some(rest) = buffer.get_mut(at..).filter(|rest| !rest.is_empty()) {
                match rustix::io::pread(&file, rest, at as u64)? {
                    0 => return Err(Errno::BADMSG),
                    read => at += read,
                }
            }
        }
        _ => {}
    }
    Ok(Some(passed))
}
