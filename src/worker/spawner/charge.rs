//! A child of a helper, as the engine sees it.
//!
//! Owns how its start and its end are learnt. One that lives for a moment wakes its engine once, at its end: its records are
//! read only when the helper is done with their pipe, or when it has had time to be long about it.

use std::ffi::OsStr;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::wire::{self, Record, Request};
use super::{Helper, LOST_WAIT, Link, Orphans, SILENCE_MAX, about};
use crate::clock::{Clock, RealClock};
use crate::worker::launch::Launch;
use crate::worker::process::Ended;

/// After so much time a child that was not waited for is asked after: most that are short have ended then.
const FIRST_LOOK: Duration = Duration::from_millis(10);

/// A child that a helper started for us, or was asked to start.
#[derive(Debug)]
pub(in crate::worker) struct Charge {
    helper: Arc<Helper>,
    link: Arc<Link>,
    number: u64,
    /// The child's records, and the end of them.
    status: OwnedFd,
    start: Start,
    /// What the child has as its stdout and stderr: as long as we have them, too, nobody is woken when it closes them.
    held: Option<[OwnedFd; 2]>,
}

/// What is known of its start.
#[derive(Debug, Clone, Copy)]
enum Start {
    /// It was asked for at this moment, by one who has so much patience; the first look is at this one, unless it is over.
    Asked { at: Duration, patience: Duration, first_look: Option<Duration> },
    /// It is this process.
    Done(Pid),
    /// The helper has ended, and did not say.
    Untold,
}

impl Charge {
    /// Has a child started by a helper, and waits for nothing; for the helper's word it will be waited for for `patience`, and
    /// longer only if that has answered others meanwhile.
    ///
    /// # Errors
    /// What the operating system says.
    pub(in crate::worker) fn spawn(
        helper: &Arc<Helper>,
        launch: &Launch,
        env: &[(&str, &OsStr)],
        stdio: [OwnedFd; 3],
        patience: Duration,
    ) -> io::Result<Self> {
        let patience = patience.max(SILENCE_MAX);
        let at = RealClock.mono();
        let (link, number, status) = helper.ask(launch, env, &stdio, patience)?;
        let [_, stdout, stderr] = stdio;
        let start = Start::Asked { at, patience, first_look: Some(at.saturating_add(FIRST_LOOK)) };
        Ok(Self { helper: Arc::clone(helper), link, number, status, start, held: Some([stdout, stderr]) })
    }

    /// Its process, if it is known to have started.
    pub(in crate::worker) fn pid(&self) -> Option<Pid> {
        match self.start {
            Start::Asked { .. } | Start::Untold => None,
            Start::Done(pid) => Some(pid),
        }
    }

    /// When to look whether it has started; `None` once that is known.
    pub(in crate::worker) fn look_at(&self) -> Option<Duration> {
        match self.start {
            Start::Asked { at, patience, first_look } => {
                Some(first_look.unwrap_or_else(|| self.link.patience_until(at, patience)))
            }
            Start::Done(_) | Start::Untold => None,
        }
    }

    /// Readable when it is known whether it has started; of a child that was looked at in vain.
    pub(in crate::worker) fn start_fd(&self) -> Option<BorrowedFd<'_>> {
        matches!(self.start, Start::Asked { first_look: None, .. }).then_some(self.status.as_fd())
    }

    /// Waits until it has started. From then on it is seen when it closes its stdout or its stderr.
    ///
    /// # Errors
    /// As [`Charge::look`], or the helper is gone.
    pub(in crate::worker) fn await_start(&mut self) -> io::Result<()> {
        self.held = None;
        while let Start::Asked { at, patience, .. } = self.start {
            wire::is_told(&self.status, self.link.patience_until(at, patience).saturating_sub(RealClock.mono()));
            self.look()?;
        }
        if matches!(self.start, Start::Untold) { Err(about("the process that starts children ended")) } else { Ok(()) }
    }

    /// Looks whether it has started. Where the helper is gone that cannot be known any more: its end is seen then, as
    /// [`Ended::Lost`].
    ///
    /// # Errors
    /// It has not, and will not: what the operating system says, or that the helper has not answered.
    pub(in crate::worker) fn look(&mut self) -> io::Result<()> {
        let Start::Asked { at, patience, .. } = self.start else { return Ok(()) };
        if !wire::is_told(&self.status, Duration::ZERO) {
            if self.link.patience_until(at, patience) <= RealClock.mono() {
                return Err(self.helper.silent(&self.link, patience));
            }
            self.start = Start::Asked { at, patience, first_look: None };
            return Ok(());
        }
        match wire::read_record(&self.status) {
            Ok(Some(Record::Started(pid))) => {
                self.note(pid);
                Ok(())
            }
            Ok(Some(Record::Failed(errno))) => {
                self.link.heard();
                Err(io::Error::from_raw_os_error(errno))
            }
            Ok(Some(Record::Exited(_) | Record::Signalled(_) | Record::Here) | None) | Err(_) => {
                self.helper.lost(&self.link);
                self.start = Start::Untold;
                Ok(())
            }
        }
    }

    /// Its pipe is hung up when the child has ended, or was not started.
    pub(in crate::worker) fn end_fd(&self) -> BorrowedFd<'_> {
        self.status.as_fd()
    }

    /// Has a signal sent to the child's group, if the child has not ended.
    pub(in crate::worker) fn signal(&self, signal: Signal) {
        // A helper that is gone took the child along, which `wait` sees.
        let _: Result<(), Errno> =
            wire::send(&self.link.socket, &Request::signal(self.number, signal), &[], SILENCE_MAX);
    }

    /// Waits for the child's end, which is near or was asked for; its group was killed then.
    pub(in crate::worker) fn wait(&mut self) -> Ended {
        loop {
            while !wire::is_told(&self.status, SILENCE_MAX) {
                // The child may take its time; the helper must not.
                if !self.link.answers() {
                    return self.lost();
                }
            }
            match wire::read_record(&self.status) {
                Ok(Some(Record::Started(pid))) => self.note(pid),
                Ok(Some(Record::Exited(code))) => return Ended::Exited(code),
                Ok(Some(Record::Signalled(signal))) => return Ended::Signalled(signal),
                // It was to be ended before it was known that there is none.
                Ok(Some(Record::Failed(_))) => return Ended::Unknown,
                Ok(Some(Record::Here) | None) | Err(_) => return self.lost(),
            }
        }
    }

    fn note(&mut self, pid: i32) {
        self.link.heard();
        if let Some(pid) = Pid::from_raw(pid) {
            self.start = Start::Done(pid);
        }
    }

    /// Sees to it that a child whose helper is gone is gone, too, and the rest of its group. The kernel has sent it a KILL
    /// when the helper ended, a moment ago, so nobody else has its number yet.
    fn lost(&mut self) -> Ended {
        self.helper.lost(&self.link);
        if self.helper.orphans == Orphans::Adopted {
            // All of it was ended; its number may be somebody else's by now.
            return Ended::Lost;
        }
        if self.pid().is_none()
            && wire::is_told(&self.status, Duration::ZERO)
            && let Ok(Some(Record::Started(pid))) = wire::read_record(&self.status)
        {
            self.note(pid);
        }
        if let Some(pid) = self.pid() {
            let _ = kill_process_group(pid, Signal::KILL);
            if let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) {
                let wait = Timespec::try_from(LOST_WAIT).ok();
                let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], wait.as_ref());
            }
        }
        Ended::Lost
    }
}
