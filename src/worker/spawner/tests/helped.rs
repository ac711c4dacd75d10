//! Children of a helper: the zoo once more, and what the helper promises.

use rustix::process::{Pid, Signal};

use super::*;
use crate::worker::child::{Child, Signs, Wake};
use crate::worker::zoo::{runs, sh, until};

/// Runs the zoo of one kind of worker again, its children a helper's.
fn zoo_again(name: &str) {
    let mut again = Command::new(std::env::current_exe().unwrap());
    let output = again.arg(name).env(UNDER_A_HELPER, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !said.contains(" 0 passed"), "{said}");
}

#[test]
fn p12_the_zoo_of_programs_per_job_lives_under_a_helper() {
    zoo_again("worker::exec::tests::");
}

#[test]
fn p12_the_zoo_of_programs_that_stay_lives_under_a_helper() {
    zoo_again("worker::persistent::tests::");
}

fn spawn(spawner: &Spawner, script: &str) -> Child {
    Child::spawn(spawner, &sh(&std::env::temp_dir(), script), &[], 1000, SILENCE_MAX).unwrap()
}

/// The first line that a child says.
fn line(child: &mut Child) -> String {
    let mut said = Vec::new();
    while !said.ends_with(b"\n") {
        let wake = child.step(None, Signs::default());
        said.extend(child.take_stdout());
        assert!(wake == Wake::Progress || said.ends_with(b"\n"), "{wake:?}");
    }
    String::from_utf8(said).unwrap().trim().to_owned()
}

#[test]
fn p13_a_thread_that_ends_takes_no_healthy_child_along() {
    let spawner = by_helper();
    let by = spawner.clone();
    let mut child = std::thread::spawn(move || spawn(&by, "read line; exit 7")).join().unwrap();
    child.send(b"go\n");
    while child.step(None, Signs::default()) != Wake::Exited {}
    assert_eq!(child.ended(), Some(Ended::Exited(7)));
    spawner.stop();
}

#[test]
fn p14_a_helper_that_ends_takes_everything_along() {
    let spawner = by_helper();
    let mut child = spawn(&spawner, "sleep 1000 & setsid sh -c 'echo $$ $1; exec sleep 1000' sh \"$! $$\" & wait");
    let pids = line(&mut child);
    assert_eq!(pids.split(' ').count(), 3, "{pids}");
    spawner.stop();
    for pid in pids.split(' ') {
        assert!(!runs(pid), "{pid} of {pids}");
    }
    assert_eq!(child.step(None, Signs::default()), Wake::Exited);
}

#[test]
fn p14_a_helper_whose_engine_has_gone_before_it_came_up_ends_without_a_word() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    drop(ours);
    let ended = this_test_program(&dir.path().join("SPAWNER")).stdin(Stdio::from(theirs)).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && !said.contains("biotope:"), "{ended:?}");
}

#[test]
fn p14_a_killed_helper_is_replaced_and_its_children_are_lost() {
    let spawner = by_helper();
    let Spawner::Helper(helper) = &spawner else { panic!("{spawner:?}") };
    let mut child = spawn(&spawner, "sleep 1000 & echo $! $$; wait");
    let pids = line(&mut child);
    let pid = helper.link().unwrap().process().id();
    rustix::process::kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
    while child.step(None, Signs::default()) != Wake::Exited {}
    assert_eq!(child.ended(), Some(Ended::Lost));
    for pid in pids.split(' ') {
        until("the end of a lost process", || !runs(pid));
    }
}

#[test]
fn p14_a_child_whose_helper_is_killed_before_it_says_that_it_started_is_lost() {
    // The helper is its parent, and may be gone before it has said anything.
    let launch = sh(&std::env::temp_dir(), "kill -KILL $PPID; exec sleep 1000");
    for _ in 0..5 {
        let spawner = by_helper();
        let mut child = Child::begin(&spawner, &launch, &[], 1000, SILENCE_MAX).unwrap();
        while child.step(None, Signs::default()) != Wake::Exited {}
        assert_eq!((child.ended(), child.unstarted().map(|error| error.to_string())), (Some(Ended::Lost), None));
    }
}

#[test]
fn p14_the_children_of_a_killed_helper_die_though_nobody_ends_them() {
    let spawner = by_helper();
    let mut child = spawn(&spawner, "echo $$; exec sleep 1000");
    let pid = line(&mut child);
    // As if this process had been killed, too.
    std::mem::forget(child);
    let Spawner::Helper(helper) = &spawner else { panic!("{spawner:?}") };
    let helper = helper.link().unwrap().process().id();
    rustix::process::kill_process(Pid::from_raw(i32::try_from(helper).unwrap()).unwrap(), Signal::KILL).unwrap();
    until("the end of a child", || !runs(&pid));
}

#[test]
fn a_child_that_is_not_waited_for_is_seen_at_its_end_and_not_before() {
    let spawner = by_helper();
    let launch = sh(&std::env::temp_dir(), "exec >&-; sleep 0.02; exec 2>&-; sleep 0.02; exit 3");
    let mut child = Child::begin(&spawner, &launch, &[], 1000, SILENCE_MAX).unwrap();
    child.close_stdin();
    let mut steps = 1;
    while child.step(None, Signs::default()) != Wake::Exited {
        steps += 1;
    }
    // The first one looks whether it has started; where that takes long, the second is told.
    assert!(steps <= 3 && child.has_started(), "{steps} steps");
    assert_eq!(child.ended(), Some(Ended::Exited(3)));
    spawner.stop();
}

#[test]
fn p15_p16_a_child_has_three_descriptors_and_no_signal_blocked_or_ignored() {
    let spawner = by_helper();
    let mut child =
        spawn(&spawner, "ls /proc/self/fd | tr '\\n' ' '; grep -E 'SigBlk|SigIgn' /proc/self/status | tr -d '\\n'");
    while child.step(None, Signs::default()) != Wake::Exited {}
    let said = String::from_utf8(child.take_stdout()).unwrap();
    let (fds, masks) = said.split_once("SigBlk:").unwrap();
    let (blocked, ignored) = masks.split_once("SigIgn:").unwrap();
    let mask = |text: &str| u64::from_str_radix(text.trim(), 16).unwrap();
    assert_eq!((fds, mask(blocked)), ("0 1 2 3 ", 0), "{said}");
    // The signals that have names; others may be ignored by whoever started the tests, and the C library keeps its own.
    assert_eq!(mask(ignored) & ((1 << 31) - 1), 0, "{said}");
    spawner.stop();
}

#[test]
fn large_request_reaches_the_helper() {
    let spawner = by_helper();
    let large = "x".repeat(100_000);
    let launch = sh(&std::env::temp_dir(), "echo ${#LARGE}");
    let mut child = Child::spawn(&spawner, &launch, &[("LARGE", large.as_ref())], 1000, SILENCE_MAX).unwrap();
    assert_eq!(line(&mut child), "100000");
    spawner.stop();
}
