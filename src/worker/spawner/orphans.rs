//! What a process leaves behind that has started others: its orphans come to the nearest subreaper among its ancestors.
//!
//! Owns how this process becomes one, and how it ends all whose parent it is. For a process that starts nothing that it wants
//! to keep meanwhile.

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, kill_process, pidfd_open, set_child_subreaper, waitpid,
};

use crate::clock::{Clock, RealClock};

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
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw));
    pids.filter(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
        // The name stands in brackets, and may hold anything; behind it are the state and the parent.
        stat.rsplit_once(')').is_some_and(|(_, behind)| behind.split_whitespace().nth(1) == Some(own.as_str()))
    })
    .collect()
}
