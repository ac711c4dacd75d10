//! One child process and its three pipes, driven by one thread.
//!
//! Owns the process: its group, its pipes, and its end. Knows nothing of jobs or of what the bytes mean.
//! Never blocks but in [`Child::step`], which waits for pipes, end, signs and a deadline at once, in [`Child::kill`], and in
//! [`Child::spawn`], which [`Child::begin`] does without.
//!
//! Promises:
//! - The child has descriptors 0 to 2 and the given environment, nothing else, and a process group of its own.
//! - When its end was seen, its whole group is killed before its pid is given up, so a grandchild neither stays nor
//!   holds a pipe against us; what the pipes held is read first. (A grandchild that left the group with `setsid` lives on
//!   until the helper that started the child ends, or for ever if there is none.)
//! - A dropped `Child` is dead. It also dies with whoever spawned it: the helper, or, without one, the *thread*, so a
//!   worker is started on its own thread.
//!
//! ```text
//! begin ─► running ──── exits, or was not started ─────┐
//!             │                                        ▼
//!             ├─ terminate: TERM to the group ─ … ─► KILL to the group ─► reaped, pipes drained ─► ended
//!             └─ kill ───────────────────────────────►─┘
//! ```

use std::ffi::OsStr;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;

use super::Cutoff;
use super::launch::Launch;
use super::output::Tail;
use super::process::{Ended, Process, resident_bytes};
use super::progress::Lines;
use super::pulse::Pulse;
use super::run::Bell;
use super::spawner::Spawner;
use crate::clock::{Clock, RealClock};

/// Bytes that one read asks for: a quarter of what a pipe holds by default.
const READ_BYTES: usize = 16 << 10;
/// Reads of one pipe after the child's end: more than the largest pipe (1 MiB) needs, should an escaped grandchild go on writing.
const DRAIN_READS: usize = 2 * (1 << 20) / READ_BYTES;

/// Why [`Child::step`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wake {
    /// Bytes went in or out, or a pipe was closed.
    Progress,
    /// The child has ended; all that it wrote is in.
    Exited,
    /// The cutoff is set.
    Cutoff,
    /// The bell rings, until it is muted.
    Rung,
    /// The deadline has passed.
    Deadline,
    /// The operating system does not let us wait.
    Failed(Errno),
}

/// What a step is to be woken by, besides the child.
#[derive(Clone, Copy, Default)]
pub(super) struct Signs<'a> {
    pub(super) cutoff: Option<&'a Cutoff>,
    pub(super) bell: Option<&'a Bell>,
}

/// What of the poll is ready.
#[derive(Default)]
struct Ready {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    start: bool,
    end: bool,
    cutoff: bool,
    bell: bool,
}

/// A child process.
#[derive(Debug)]
pub(super) struct Child {
    process: Process,
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    outgoing: Vec<u8>,
    /// Bytes of `outgoing` that are written.
    sent: usize,
    closing: bool,
    /// Whether the child has closed its stdin on something that it was sent.
    refused: bool,
    incoming: Vec<u8>,
    /// Most bytes of `incoming`; what does not fit is dropped.
    room: usize,
    overflowed: bool,
    tail: Tail,
    /// What it writes to its stderr, line by line.
    lines: Lines,
    ended: Option<Ended>,
    /// Why it was not started, once a step has seen that.
    unstarted: Option<io::Error>,
    /// Where it is shown that the process lives.
    pulse: Option<Arc<Pulse>>,
}

impl Child {
    /// As [`Child::begin`], and waits until it has started. From then on it is seen when it closes its stdout.
    ///
    /// # Errors
    /// What the operating system says; no process is left then.
    pub(super) fn spawn(
        spawner: &Spawner,
        launch: &Launch,
        env: &[(&str, &OsStr)],
        room: usize,
        patience: Duration,
    ) -> io::Result<Self> {
        let mut child = Self::begin(spawner, launch, env, room, patience)?;
        match child.process.await_start() {
            Ok(()) => Ok(child),
            Err(error) => {
                child.ended = Some(Ended::Unknown);
                Err(error)
            }
        }
    }

    /// Has `spawner` start `launch` with `env` on top of its environment, within `patience` or as long as the spawner takes to be
    /// given up: a step tells if it was not. Holds at most `room` bytes of its stdout at a time.
    ///
    /// # Errors
    /// What the operating system says; no process is left then.
    pub(super) fn begin(
        spawner: &Spawner,
        launch: &Launch,
        env: &[(&str, &OsStr)],
        room: usize,
        patience: Duration,
    ) -> io::Result<Self> {
        let (theirs, ours) = pipes()?;
        let process = Process::start(spawner, launch, env, theirs, patience)?;
        let [stdin, stdout, stderr] = ours.map(Some);
        Ok(Self {
            process,
            stdin,
            stdout,
            stderr,
            outgoing: Vec::new(),
            sent: 0,
            closing: false,
            refused: false,
            incoming: Vec::new(),
            room,
            overflowed: false,
            tail: Tail::default(),
            lines: Lines::default(),
            ended: None,
            unstarted: None,
            pulse: None,
        })
    }

    fn pid(&self) -> Option<u32> {
        u32::try_from(self.process.pid()?.as_raw_nonzero().get()).ok()
    }

    /// Has the process shown on a worker's pulse as long as it lives, from when it is known to have started.
    pub(super) fn show_on(&mut self, pulse: Option<&Arc<Pulse>>) {
        self.pulse = pulse.cloned();
        self.show();
    }

    fn show(&self) {
        if let (Some(pulse), Some(pid)) = (&self.pulse, self.pid()) {
            pulse.child_is(Some(pid));
        }
    }

    /// Whether it has started, as far as the steps have seen.
    pub(super) fn has_started(&self) -> bool {
        self.process.pid().is_some()
    }

    /// Why it was not started, if a step has seen that: to the caller that was its end.
    pub(super) fn unstarted(&mut self) -> Option<io::Error> {
        self.unstarted.take()
    }

    /// Adds to what is written to the child's stdin, in the steps to come. Dropped if the child has closed it.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        if self.stdin.is_none() {
            self.refused = true;
            return;
        }
        self.outgoing.drain(..std::mem::take(&mut self.sent));
        self.outgoing.extend_from_slice(bytes);
    }

    /// Whether the child has closed its stdin and left something unread, as far as the steps have seen.
    pub(super) fn refused(&self) -> bool {
        self.refused
    }

    /// Whether the child has closed its stdin, as far as the steps have seen.
    pub(super) fn stdin_closed(&self) -> bool {
        self.stdin.is_none()
    }

    /// Whether something that is sent may still be read, seen by a step or not.
    pub(super) fn listens(&self) -> bool {
        // Nothing is asked for: what comes is the reader's going away.
        let gone = |stdin| poll(&mut [PollFd::new(stdin, PollFlags::empty())], Some(&Timespec::default())) != Ok(0);
        self.stdin.as_ref().is_some_and(|stdin| !gone(stdin))
    }

    /// Bytes that wait to be written to the child's stdin.
    pub(super) fn unsent(&self) -> usize {
        self.outgoing.len() - self.sent
    }

    /// Closes the child's stdin once all is sent.
    pub(super) fn close_stdin(&mut self) {
        self.closing = true;
        self.flush();
    }

    /// Takes what the child wrote to its stdout since the last time.
    pub(super) fn take_stdout(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.incoming)
    }

    /// Whether the child wrote more than there was room for: what did not fit is lost.
    pub(super) fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// Whether the child has closed its stdout, and all of it was read.
    pub(super) fn stdout_closed(&self) -> bool {
        self.stdout.is_none()
    }

    /// What the child has written to its stderr, line by line.
    pub(super) fn lines(&mut self) -> &mut Lines {
        &mut self.lines
    }

    /// The end of what the child wrote to its stderr.
    pub(super) fn stderr_text(&self) -> String {
        self.tail.text()
    }

    /// How the child ended, once a step has seen it.
    pub(super) fn ended(&self) -> Option<Ended> {
        self.ended
    }

    /// The memory that the child has in use, in bytes, without that of the processes that it has started; `None` if it cannot be told.
    pub(super) fn resident_bytes(&self) -> Option<u64> {
        resident_bytes(self.pid()?)
    }

    /// Whether the child has ended, seen by a step or not.
    pub(super) fn is_gone(&self) -> bool {
        if self.ended.is_some() {
            return true;
        }
        let (end, flags) = self.process.end();
        let mut fds = [PollFd::from_borrowed_fd(end, flags)];
        poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    /// Waits until anything happens, and does what that makes possible. Bounded work: a busy child cannot keep it.
    /// `deadline` is a moment of [`Clock::mono`].
    pub(super) fn step(&mut self, deadline: Option<Duration>, signs: Signs<'_>) -> Wake {
        if self.ended.is_some() {
            return Wake::Exited;
        }
        // The caller may have more to send now, which whoever is at the other end may wait for.
        if self.flush() {
            return Wake::Progress;
        }
        let look_at = self.process.look_at();
        let [left, to_look] = [deadline, look_at].map(|at| at.map(|at| at.saturating_sub(RealClock.mono())));
        let ready = match self.wait(left.into_iter().chain(to_look).min(), signs) {
            Ok(ready) => ready,
            Err(Errno::INTR) => return Wake::Progress,
            Err(errno) => return Wake::Failed(errno),
        };
        let is_late = left.is_some_and(|left| left.is_zero());
        let is_to_look = look_at.is_some_and(|at| at <= RealClock.mono());
        if look_at.is_some() && (ready.start || ready.end || is_late || is_to_look) && !self.look() {
            return Wake::Exited;
        }
        // An end that came in time counts, also if we come late.
        if ready.end {
            self.collect();
            return Wake::Exited;
        }
        if ready.cutoff {
            return Wake::Cutoff;
        }
        if is_late {
            return Wake::Deadline;
        }
        if ready.bell {
            return Wake::Rung;
        }
        if ready.stdin && self.sent == self.outgoing.len() {
            // Nothing was to be sent, so this is the reader gone. What it has not read is in the pipe still.
            let unread = self.stdin.take().is_some_and(|pipe| rustix::io::ioctl_fionread(pipe).is_ok_and(|n| n > 0));
            self.refused |= unread;
        }
        if ready.stdout {
            self.read_stdout();
        }
        if ready.stderr {
            self.read_stderr();
        }
        Wake::Progress
    }

    /// Looks whether it has started; false if it was not, and never will be.
    fn look(&mut self) -> bool {
        let looked = self.process.look();
        let is_well = looked.is_ok();
        if let Err(error) = looked {
            (self.ended, self.unstarted) = (Some(Ended::Unknown), Some(error));
            (self.stdin, self.stdout, self.stderr) = (None, None, None);
        }
        self.show();
        is_well
    }

    fn wait<'a>(&'a self, left: Option<Duration>, signs: Signs<'a>) -> Result<Ready, Errno> {
        type Mark = fn(&mut Ready);
        let mut fds: Vec<PollFd<'a>> = Vec::with_capacity(7);
        let mut marks: Vec<Mark> = Vec::with_capacity(7);
        let mut watch = |fd: Option<BorrowedFd<'a>>, flags: PollFlags, mark: Mark| {
            if let Some(fd) = fd {
                fds.push(PollFd::from_borrowed_fd(fd, flags));
                marks.push(mark);
            }
        };
        let (end, flags) = self.process.end();
        watch(Some(end), flags, |r| r.end = true);
        watch(self.process.start_fd(), PollFlags::IN, |r| r.start = true);
        watch(signs.cutoff.map(Cutoff::fd), PollFlags::IN, |r| r.cutoff = true);
        watch(signs.bell.map(Bell::fd), PollFlags::IN, |r| r.bell = true);
        // Without anything to send, stdin is watched for its reader's going away only.
        let unsent = if self.sent < self.outgoing.len() { PollFlags::OUT } else { PollFlags::empty() };
        watch(self.stdin.as_ref().map(AsFd::as_fd), unsent, |r| r.stdin = true);
        watch(self.stdout.as_ref().map(AsFd::as_fd), PollFlags::IN, |r| r.stdout = true);
        watch(self.stderr.as_ref().map(AsFd::as_fd), PollFlags::IN, |r| r.stderr = true);
        // A time that no clock can tell is no deadline at all.
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        poll(&mut fds, left.as_ref())?;
        let mut ready = Ready::default();
        for (_, mark) in fds.iter().zip(&marks).filter(|(fd, _)| !fd.revents().is_empty()) {
            mark(&mut ready);
        }
        Ok(ready)
    }

    /// Writes what the pipe takes; true if that was anything, or if it takes nothing any more.
    fn flush(&mut self) -> bool {
        let mut wrote = false;
        while let (Some(stdin), Some(unsent)) = (&self.stdin, self.outgoing.get(self.sent..).filter(|b| !b.is_empty()))
        {
            match rustix::io::write(stdin, unsent) {
                Ok(written) => {
                    self.sent += written;
                    wrote = true;
                }
                Err(Errno::AGAIN) => return wrote,
                Err(Errno::INTR) => {}
                // The child does not want it: its exit code or its answers tell what that means.
                Err(_) => {
                    self.stdin = None;
                    self.refused = true;
                    wrote = true;
                }
            }
        }
        self.outgoing.clear();
        self.sent = 0;
        if self.closing {
            self.stdin = None;
        }
        wrote
    }

    /// Reads from stdout once; false when nothing is there.
    fn read_stdout(&mut self) -> bool {
        read(&mut self.stdout, |bytes| {
            let room = self.room.saturating_sub(self.incoming.len());
            self.incoming.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
            self.overflowed |= bytes.len() > room;
        })
    }

    /// Reads from stderr once; false when nothing is there.
    fn read_stderr(&mut self) -> bool {
        read(&mut self.stderr, |bytes| {
            self.tail.push(bytes);
            self.lines.push(bytes);
        })
    }

    /// Ends the child: TERM to its group, KILL after `kill_after`. Reads on meanwhile, as far as there is room.
    pub(super) fn terminate(&mut self, kill_after: Duration) {
        if self.ended.is_some() {
            return;
        }
        self.signal(Signal::TERM);
        // A stopped process takes its TERM only when it goes on.
        self.signal(Signal::CONT);
        let until = RealClock.mono().saturating_add(kill_after);
        loop {
            match self.step(Some(until), Signs::default()) {
                Wake::Progress => {}
                Wake::Exited => return,
                Wake::Deadline | Wake::Cutoff | Wake::Rung | Wake::Failed(_) => return self.kill(),
            }
        }
    }

    /// Kills the child's group and waits for the child's end, however long the kernel takes: a process that still runs
    /// must not be taken for gone.
    pub(super) fn kill(&mut self) {
        if self.ended.is_none() {
            self.signal(Signal::KILL);
            self.collect();
        }
    }

    fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Takes the status of a child that has ended, or is about to, and what its pipes still hold.
    fn collect(&mut self) {
        self.ended = Some(self.process.wait());
        if let Some(pulse) = self.pulse.take() {
            pulse.child_is(None);
        }
        for _ in 0..DRAIN_READS {
            // Both, whatever the first one gave.
            if !(self.read_stdout() | self.read_stderr()) {
                break;
            }
        }
        self.lines.end();
        (self.stdin, self.stdout, self.stderr) = (None, None, None);
    }
}

/// A child's three pipes: its ends of them, and ours, which never block us.
fn pipes() -> Result<([OwnedFd; 3], [OwnedFd; 3]), Errno> {
    let (child_in, our_in) = pipe_with(PipeFlags::CLOEXEC)?;
    let (our_out, child_out) = pipe_with(PipeFlags::CLOEXEC)?;
    let (our_err, child_err) = pipe_with(PipeFlags::CLOEXEC)?;
    for ours in [&our_in, &our_out, &our_err] {
        rustix::io::ioctl_fionbio(ours, true)?;
    }
    Ok(([child_in, child_out, child_err], [our_in, our_out, our_err]))
}

/// Reads from a pipe once, and gives it up at its end; false when nothing is there.
fn read(pipe: &mut Option<impl AsFd>, take: impl FnOnce(&[u8])) -> bool {
    let Some(open) = pipe else { return false };
    let mut buffer = [0; READ_BYTES];
    match rustix::io::read(open, &mut buffer) {
        Err(Errno::AGAIN | Errno::INTR) => return false,
        Ok(0) | Err(_) => *pipe = None,
        Ok(count) => take(buffer.get(..count).unwrap_or_default()),
    }
    pipe.is_some()
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests;
