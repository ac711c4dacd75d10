//! P2, P6: versions come and go all the time while jobs of every kind run; signals storm, workers are killed, the process is.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::campaign::{Campaign, Ending};
use crate::history::{Event, Fault};
use crate::kills::{number, seed};
use crate::process::Process;
use crate::producer::{Jobs, rest};
use crate::roller::Roller;
use crate::support::wait::{now, until};
use crate::support::{LATER, SOON, tell};
use crate::wire::{get, post};

/// From one signal of a storm to the next: a thousand in a minute.
const PACE: Duration = Duration::from_millis(60);
/// What a process may hold beyond what it held: freed memory that the allocator keeps.
const RSS_MORE_KIB: usize = 24 << 10;
/// Lives of one campaign at most.
const LIVES_MAX: u64 = 100;

/// What a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Holds {
    threads: usize,
    descriptors: usize,
    children: usize,
    rss_kib: usize,
}

impl Holds {
    /// As little as it is seen to hold within some looks: who asks it something meanwhile adds to it.
    fn least(pid: Pid) -> Self {
        let looks = (0..20).map(|_| {
            rest(5);
            Self::now(pid)
        });
        looks
            .reduce(|a, b| Self {
                threads: a.threads.min(b.threads),
                descriptors: a.descriptors.min(b.descriptors),
                children: a.children.min(b.children),
                rss_kib: a.rss_kib.min(b.rss_kib),
            })
            .unwrap()
    }

    fn now(pid: Pid) -> Self {
        let of = format!("/proc/{}", pid.as_raw_nonzero());
        let status = std::fs::read_to_string(format!("{of}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let count = |dir: &str| std::fs::read_dir(format!("{of}/{dir}")).unwrap().count();
        Self {
            threads: threads(&of),
            descriptors: count("fd"),
            children: descendants(pid),
            rss_kib: line.split_whitespace().next().unwrap().parse().unwrap(),
        }
    }
}

/// Threads of a process, but for those of the two pools that come and go by themselves, each with a bound of its own: the ones
/// that serve callers (`http`), and the ones of the index of ended jobs (`sled-io`, up to eight).
fn threads(of: &str) -> usize {
    let tasks = std::fs::read_dir(format!("{of}/task")).unwrap().flatten();
    // One that has ended meanwhile is none.
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| !name.starts_with("http") && !name.starts_with("sled-io")).count()
}

/// How many processes descend from this one.
fn descendants(pid: Pid) -> usize {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // The name may hold anything but ends with the last bracket; then come the state and the parent.
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        if let (Some(parent), Ok(own)) = (parent, entry.file_name().to_str().unwrap().parse()) {
            children.entry(parent).or_default().push(own);
        }
    }
    let (mut open, mut count) = (vec![pid.as_raw_nonzero().get()], 0);
    while let Some(one) = open.pop() {
        let of_it = children.remove(&one).unwrap_or_default();
        count += of_it.len();
        open.extend(of_it);
    }
    count
}

/// Kills a worker's process, whichever comes first in a random order; notes that before.
fn strike(campaign: &Campaign, random: &mut fastrand::Rng) {
    let history = campaign.shared.history.path().parent().unwrap();
    let mut all: Vec<i32> = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| is_worker(*pid, history))
        .collect();
    random.shuffle(&mut all);
    for raw in all {
        let pid = Pid::from_raw(raw).unwrap();
        let Ok(fd) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        // Whoever has the number now is held by the descriptor: it is looked at once more.
        if is_worker(raw, history) {
            campaign.shared.history.add(&Event::Strike { pid: raw.cast_unsigned() });
            let _ = pidfd_send_signal(fd, Signal::KILL);
            return;
        }
    }
}

/// Whether a process is a worker that writes into the history in this directory.
fn is_worker(pid: i32, history: &Path) -> bool {
    let told = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&told).contains(history.to_str().unwrap())
}

/// Lets everything come to its end, and every version but the last one leave.
fn come_to_rest(campaign: &Campaign, label: &str) {
    campaign.shared.quiet.store(true, Ordering::Relaxed);
    campaign.shared.catch_up();
    let alone = || {
        let seen = get(campaign.home.port, "/v1/ecosystem").unwrap();
        let over = |state: &str| matches!(state, "retired" | "rejected" | "quarantined");
        let alone = seen["types"].as_array().unwrap().iter().all(|of_type| {
            let versions = of_type["versions"].as_array().unwrap().iter();
            let mut there = versions.filter(|version| !over(version["state"].as_str().unwrap()));
            there.next().is_some_and(|one| one["version"] == label && one["state"] == "current")
                && there.next().is_none()
        });
        if alone { Ok(()) } else { Err(seen["types"].to_string()) }
    };
    until("the last version alone", LATER, alone);
    campaign.drain();
}

#[test]
fn p2_a_storm_of_reloads_and_killed_workers_loses_no_job_and_leaves_nothing_behind() {
    let (seed, hups) = (seed(), number("TORTURE_HUPS", 100, 1000));
    let mut random = fastrand::Rng::with_seed(seed);
    let (campaign, mut roller) = Campaign::rolling(random.u64(..), Jobs::Patient);
    let process = Process::serving(&campaign.home);
    campaign.shared.history.add(&Event::Up);
    // What is made once, by the first jobs of each kind, has been made before anything is counted.
    until("some jobs of each kind", LATER, || {
        let seen = get(campaign.home.port, "/v1/ecosystem").unwrap();
        let some = seen["types"].as_array().unwrap().iter().all(|of_type| of_type["completed"].as_u64() >= Some(100));
        if some { Ok(()) } else { Err(seen["types"].to_string()) }
    });
    come_to_rest(&campaign, roller.label());
    let before = Holds::least(process.pid());
    campaign.shared.quiet.store(false, Ordering::Relaxed);

    let began = now();
    for hup in 1..=hups {
        roller.turn(&campaign.home, &campaign.shared);
        process.signal(Signal::HUP);
        if random.u8(..4) == 0 {
            strike(&campaign, &mut random);
        }
        roller.look(&campaign.shared);
        let next = began + PACE * u32::try_from(hup).unwrap();
        until("the next signal's moment", SOON, || if now() >= next { Ok(()) } else { Err(String::new()) });
    }
    let took = now() - began;
    roller.finish(&campaign.home);
    process.signal(Signal::HUP);
    come_to_rest(&campaign, roller.label());
    let seen = get(campaign.home.port, "/v1/ecosystem").unwrap();
    let generations = seen["generation"]["number"].as_u64().unwrap();
    until("as much as before", LATER, || {
        let after = Holds::least(process.pid());
        let back = after.threads <= before.threads
            && after.descriptors <= before.descriptors
            && after.children <= before.children
            && after.rss_kib <= before.rss_kib + RSS_MORE_KIB;
        if back { Ok(()) } else { Err(format!("{before:?}, now {after:?}")) }
    });
    tell(&format!("p2: {hups} signals in {took:?}, {generations} generations"));
    tell(&format!("p2: {before:?}, afterwards {:?}", Holds::now(process.pid())));
    process.signal(Signal::TERM);
    campaign.stopped(process, Fault::Stop);
    campaign.shared.quiet.store(false, Ordering::Relaxed);
    let figures = campaign.judge("p2");
    let some = figures.versions > 3 && figures.strikes > 0 && figures.bad > 0 && figures.needed > 0;
    assert!(some, "too little was going on: {figures:?}");
}

/// Sets a flag at the end, also at that of a panic.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Changes the file, has it read, and looks at the routes, until it is told to stop.
fn roll(roller: &mut Roller, campaign: &Campaign, over: &AtomicBool, random: &mut fastrand::Rng) {
    while !over.load(Ordering::Relaxed) {
        roller.look(&campaign.shared);
        if post(campaign.home.port, "/v1/reload").is_some() {
            roller.turn(&campaign.home, &campaign.shared);
        }
        rest(random.u64(..150));
    }
}

/// A campaign of so many lives, in each of which versions roll over until it ends.
fn campaign(seed: u64, lives: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let (campaign, mut roller) = Campaign::rolling(random.u64(..), Jobs::Doable);
    for life in 1..=lives {
        if random.bool() {
            // The file changed while nothing ran.
            roller.turn(&campaign.home, &campaign.shared);
        }
        let ending = match random.u8(..10) {
            // The first start has no config to fall back on, and nothing to open.
            _ if life == 1 => Ending::Kill(1000),
            0 => Ending::KillOpening(random.u64(..200)),
            1 => Ending::Stop(random.u64(..500)),
            2 => Ending::Halt(random.u64(..500)),
            3 => Ending::KillStopping(random.u64(..50)),
            _ => Ending::Kill(random.u64(..1500)),
        };
        let (over, mut pauses) = (AtomicBool::new(false), random.fork());
        std::thread::scope(|scope| {
            let rolling = scope.spawn(|| roll(&mut roller, &campaign, &over, &mut pauses));
            let ends = Ends(&over);
            if life % 5 == 0 {
                campaign.catch_up()
            } else {
                campaign.live(ending)
            }
            drop(ends);
            rolling.join().expect("a route is not valid");
        });
    }
    roller.finish(&campaign.home);
    let figures = campaign.judge("p6");
    assert_eq!(figures.ends, lives + 1);
    assert!(figures.acked > lives, "too little was going on: {figures:?}");
}

#[test]
fn p6_a_kill_at_any_moment_of_rollovers_loses_no_job_and_leaves_a_valid_route() {
    let (seed, began) = (seed(), now());
    let lives = number("TORTURE_ROLLS", 10, 1000);
    let mut left = lives;
    while left > 0 {
        let some = left.min(LIVES_MAX);
        campaign(seed ^ left, some);
        left -= some;
    }
    tell(&format!("p6: {lives} lives in {} s", (now() - began).as_secs()));
}
