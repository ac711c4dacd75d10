//! Children that behave badly: floods, deaf ones, grandchildren that stay.

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::*;
use crate::worker::zoo::sh;

fn spawn(script: &str) -> Child {
    Child::spawn(&Spawner::Direct, &sh(&std::env::temp_dir(), script), &[], 1000, Duration::ZERO).unwrap()
}

/// Steps until something else than progress.
fn settle(child: &mut Child, within: Duration) -> Wake {
    let deadline = RealClock.mono() + within;
    loop {
        match child.step(Some(deadline), Signs::default()) {
            Wake::Progress => {}
            wake => return wake,
        }
    }
}

#[test]
fn child_dies_with_the_thread_that_spawned_it() {
    let spawned = std::thread::spawn(|| {
        let child = spawn("echo up; exec sleep 30");
        let pidfd = child.process.end().0.try_clone_to_owned().unwrap();
        // As if this process were killed: nobody ends the child.
        std::mem::forget(child);
        pidfd
    });
    let pidfd = spawned.join().unwrap();
    let ready = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&Timespec { tv_sec: 10, tv_nsec: 0 }));
    assert_eq!(ready, Ok(1));
}

#[test]
fn dropped_child_is_dead_with_its_group() {
    let mut child = spawn("trap '' TERM; sleep 30 & echo $!; wait");
    while child.incoming.is_empty() {
        assert_eq!(child.step(None, Signs::default()), Wake::Progress);
    }
    let grandchild = String::from_utf8(child.take_stdout()).unwrap();
    let pidfd = pidfd_open(Pid::from_raw(grandchild.trim().parse().unwrap()).unwrap(), PidfdFlags::empty()).unwrap();
    drop(child);
    let ready = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&Timespec { tv_sec: 10, tv_nsec: 0 }));
    assert_eq!(ready, Ok(1));
}

#[test]
fn end_counts_even_if_the_deadline_and_the_cutoff_came_before_we_looked() {
    let cutoff = Cutoff::new().unwrap();
    cutoff.set();
    let mut child = spawn("echo out; exit 3");
    poll(&mut [PollFd::from_borrowed_fd(child.process.end().0, PollFlags::IN)], None).unwrap();
    assert_eq!(child.step(Some(Duration::ZERO), Signs { cutoff: Some(&cutoff), bell: None }), Wake::Exited);
    assert_eq!((child.ended(), child.take_stdout()), (Some(Ended::Exited(3)), b"out\n".to_vec()));
    assert_eq!(child.step(None, Signs::default()), Wake::Exited);
}

#[test]
fn busy_child_cannot_pass_its_deadline() {
    let mut child = spawn("exec yes");
    while !child.overflowed() {
        assert_eq!(child.step(None, Signs::default()), Wake::Progress);
    }
    assert_eq!(settle(&mut child, Duration::from_millis(50)), Wake::Deadline);
    assert!(child.overflowed() && child.take_stdout().len() == 1000);
}

#[test]
fn quiet_child_with_closed_pipes_is_waited_for_without_spinning() {
    let mut child = spawn("exec <&- >&- 2>&-; exec sleep 0.1");
    // More than its pipe takes, and nobody reads it.
    child.send(&[b'x'; 1 << 20]);
    let mut steps = 0;
    while child.step(None, Signs::default()) != Wake::Exited {
        steps += 1;
    }
    // A step for each pipe's closing, or fewer; and two while stdin takes something, and then nothing more.
    assert!(steps <= 5, "{steps} steps");
    assert_eq!(child.ended(), Some(Ended::Exited(0)));
}

#[test]
fn escaped_grandchild_that_floods_the_pipe_does_not_hold_the_end_up() {
    let mut child = spawn("setsid sh -c 'echo $$; exec yes' </dev/null & read go");
    while !child.overflowed() {
        assert_eq!(child.step(None, Signs::default()), Wake::Progress);
    }
    child.send(b"go\n");
    assert_eq!(settle(&mut child, Duration::from_secs(10)), Wake::Exited);
    // With the last reader gone, the flood ends by SIGPIPE.
    assert!(child.stdout_closed());
}
