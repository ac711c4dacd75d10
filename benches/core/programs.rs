//! How many jobs a second does a worker that starts a program for each complete, against `xargs` starting the same one?
//!
//! In turns: `xargs -P 2 -n 1 /bin/true` with so many arguments, and a pool of two whose jobs wait already: from `resume`
//! to the last completion, payloads read from the log, every end synced; if asked for, with others waiting behind. Programs are started by the helper that the
//! program `biotope` has, and, for comparison, by this process itself.

use std::io::Write;
use std::process::{Command, Stdio};

use biotope::clock::{Clock, RealClock};
use biotope::worker::native::Natives;
use biotope::worker::spawner::{Orphans, Spawner, asked_of_this_program};

use crate::setup::{drained, fresh, median};

const ROUNDS: usize = 5;

pub(crate) fn run(jobs: usize, waiting: usize) {
    let (mut limits, mut by_helper, mut by_us) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        limits.push(xargs(jobs));
        by_helper.push(ours(Spawner::helper(asked_of_this_program, Orphans::Left), jobs, waiting));
        by_us.push(ours(Spawner::Direct, jobs, 0));
    }
    let limit = median(limits);
    println!("programs/true/w2  xargs            {limit:>6.0} /s");
    for (name, rates) in [("jobs", by_helper), ("jobs, no helper", by_us)] {
        let rate = median(rates);
        println!("programs/true/w2  {name:<16} {rate:>6.0} /s  {:.2} of xargs  (at least 0.85)", rate / limit);
    }
}

fn xargs(count: usize) -> f64 {
    let began = RealClock.mono();
    let mut child =
        Command::new("xargs").args(["-P", "2", "-n", "1", "/bin/true"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut arguments = child.stdin.take().unwrap();
    for number in 0..count {
        writeln!(arguments, "{number}").unwrap();
    }
    drop(arguments);
    assert!(child.wait().unwrap().success());
    count as f64 / (RealClock.mono() - began).as_secs_f64()
}

fn ours(spawner: Spawner, jobs: usize, waiting: usize) -> f64 {
    let dir = fresh();
    let config = "[history]\nindex = \"off\"\n[workers.t]\nversion = \"v1\"\nexec = [\"/bin/true\"]\nconcurrency = 2\n";
    let path = dir.path().join("biotope.toml");
    std::fs::write(&path, config).unwrap();
    let natives = Natives::none().with_spawner(spawner.clone());
    let spec = biotope::generation::load(&path, &natives).unwrap();
    std::fs::create_dir_all(&spec.config.data_dir).unwrap();
    spawner.live_in(&spec.config.data_dir);
    let rate = drained(spec, "t", jobs, waiting);
    spawner.stop();
    rate
}
