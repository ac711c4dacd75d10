//! The processes of workers: what they are started as, and that nothing of them outlives its time.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::wait::until;
use crate::support::{Home, SOON};

/// The first process of a group, stopped, until this is dropped.
struct Stopped {
    pid: Pid,
    /// Another one of its group, a child of ours: the kernel wakes what is stopped in a group that nobody is a parent of.
    company: Child,
}

impl Stopped {
    fn stop(pid: Pid) -> Self {
        let company = Command::new("sleep").arg("1000").process_group(pid.as_raw_nonzero().get()).spawn().unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        Self { pid, company }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // It may have been killed.
        let _ = kill_process(self.pid, Signal::CONT);
        drop(self.company.kill());
        drop(self.company.wait());
    }
}

/// Waits for a file with numbers of processes.
fn pids(home: &Home, file: &str, count: usize) -> Vec<Pid> {
    until("the numbers of processes", SOON, || {
        let text = home.text(file);
        let pids: Vec<Pid> = text.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect();
        if pids.len() == count { Ok(pids) } else { Err(text) }
    })
}

/// Whether a process runs: neither gone nor only waiting to be reaped.
fn runs(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

#[test]
fn p14_a_job_runs_again_when_nothing_of_its_run_before_is_left() {
    let home = Home::new("[workers.leaver]\nversion = \"v1\"\nexec = [\"./leaver.sh\"]\n");
    // The first run leaves a child and one that has left its session; the second one says who of them still runs.
    home.script(
        "leaver.sh",
        "if mkdir begun 2>/dev/null; then\n\
           sleep 1000 & child=$!\n\
           setsid sh -c 'echo $$ >escaped.txt; exec sleep 1000' &\n\
           echo $$ $child >pids.txt\n\
           wait\n\
         fi\n\
         for pid in $(cat pids.txt escaped.txt); do\n\
           ! grep -q '^State:.[^ZX]' /proc/$pid/status 2>/dev/null || echo \"$pid runs\"\n\
         done",
    );
    let biotope = home.start();
    let id = biotope.push(&json!({"type": "leaver"}));
    let mut left = pids(&home, "pids.txt", 2);
    left.extend(pids(&home, "escaped.txt", 1));
    // Who shall end them is held up when biotope is killed, so that they outlive it.
    let helper = Stopped::stop(pids(&home, "data/SPAWNER", 1).remove(0));
    biotope.kill();
    let biotope = home.start();
    until("somebody who waits for the end of all", SOON, || {
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        let waiting = locks.lines().filter(|line| line.contains("-> FLOCK"));
        let waits = |line: &str| {
            let pid = line.split_whitespace().nth(5).unwrap_or_default();
            let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            command.contains(&home.path("data/SPAWNER").display().to_string())
        };
        if waiting.clone().any(waits) { Ok(()) } else { Err(locks.clone()) }
    });
    assert!(left.iter().all(|pid| runs(*pid)), "this test has nothing to see: {left:?}");
    drop(helper);
    let job = biotope.until_state(&id, "completed");
    assert_eq!((&job["result"], &job["host_deaths"]), (&Value::Null, &json!(1)), "{job}");
    assert!(!left.iter().any(|pid| runs(*pid)), "{left:?}");
    biotope.stop();
}
