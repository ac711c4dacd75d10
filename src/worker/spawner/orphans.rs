//! What a process leaves behind that has started others: its orphans come to the nearest subreaper among its ancestors, and
//! where that ended with it they are known by a mark that they were started with.
//!
//! Owns how this process becomes a subreaper, how it ends all whose parent it is, and how it ends all that bear a mark. For a
//! process that starts nothing that it wants to keep meanwhile.

use std::fs::File;
use std::io::Read;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
#[cfg(feature = "daemon")]
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, kill_process, pidfd_open, set_child_subreaper, waitpid,
};
#[cfg(feature = "daemon")]
use rustix::process::{getppid, pidfd_send_signal};

use crate::clock::{Clock, RealClock};

/// Room for what the system says of a process, environments included; for more it is made larger.
const SAID_BYTES: usize = 8 << 10;

/// From now on the orphans of what this process starts come to it.
///
/// # Errors
/// As the operating system says.
pub(super) fn adopt() -> Result<(), Errno> {
    set_child_subreaper(Some(getpid()))
}

/// Kills every child of this process, and what comes to it as their orphans, and waits until none is left; no longer than
/// `most`. False if some still end: they were sent their KILL, and run no code of their own any more.
pub(super) fn end_all(most: Duration) -> bool {
    let until = RealClock.mono().saturating_add(most);
    loop {
        let children = own_children();
        if children.is_empty() {
            return true;
        }
        for pid in &children {
            let _ = kill_process(*pid, Signal::KILL);
        }
        for pid in children {
            let left = until.saturating_sub(RealClock.mono());
            if left.is_zero() {
                return false;
            }
            // Ours and not reaped: the number is its own still.
            if let (Ok(pidfd), Ok(left)) = (pidfd_open(pid, PidfdFlags::empty()), Timespec::try_from(left)) {
                let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&left));
            }
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
    }
}

/// Takes note of the ends of what an earlier image of this process has started, if anything of it is left. Before this one
/// starts anything.
#[cfg(feature = "daemon")]
pub(crate) fn reap_what_was_left() {
    let left = own_children();
    if left.is_empty() {
        return;
    }
    let reap = move || {
        for pid in left {
            while matches!(waitpid(Some(pid), WaitOptions::empty()), Err(Errno::INTR)) {}
        }
    };
    if let Err(error) = std::thread::Builder::new().name("left".to_owned()).spawn(reap) {
        tracing::warn!(%error, "what the program before has started is not taken note of when it ends");
    }
}

/// All processes whose parent we are.
pub(super) fn own_children() -> Vec<Pid> {
    let own = std::process::id().to_string();
    let is_own = |pid: &Pid| {
        let stat = said_of(*pid, "stat").unwrap_or_default();
        let stat = String::from_utf8_lossy(&stat);
        // The name stands in brackets, and may hold anything; behind it are the state and the parent.
        stat.rsplit_once(')').is_some_and(|(_, behind)| behind.split_whitespace().nth(1) == Some(own.as_str()))
    };
    all_processes().filter(is_own).collect()
}

/// A file of the system's about a process, if it can be read: most often at once, since its length is not known before.
fn said_of(pid: Pid, what: &str) -> Option<Vec<u8>> {
    let mut said = Vec::with_capacity(SAID_BYTES);
    let mut file = File::open(format!("/proc/{}/{what}", pid.as_raw_nonzero())).ok()?;
    file.read_to_end(&mut said).ok().map(|_| said)
}

fn all_processes() -> impl Iterator<Item = Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw))
}

/// Kills every process that was started with `mark`, a variable and its value, in its environment, and waits until none is
/// left, however long that takes. Not this process, nor its parent, which may have been started by one of them.
#[cfg(feature = "daemon")]
pub(super) fn end_marked(mark: &[u8]) {
    let spared = [Some(getpid()), getppid()];
    loop {
        let others = all_processes().filter(|pid| !spared.contains(&Some(*pid)));
        // What cannot be killed is not waited for.
        let killed: Vec<_> = others.filter_map(|pid| kill_if_marked(pid, mark)).collect();
        if killed.is_empty() {
            return;
        }
        for process in killed {
            while poll(&mut [PollFd::new(&process, PollFlags::IN)], None) == Err(Errno::INTR) {}
        }
    }
}

/// Kills a process, if it has the mark.
#[cfg(feature = "daemon")]
fn kill_if_marked(pid: Pid, mark: &[u8]) -> Option<OwnedFd> {
    // First, so that it is the one whose environment is read, or one that has ended: nobody else is killed.
    let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    let environment = said_of(pid, "environ")?;
    let is_marked = environment.split(|byte| *byte == 0).any(|variable| variable == mark);
    (is_marked && pidfd_send_signal(&process, Signal::KILL).is_ok()).then_some(process)
}
