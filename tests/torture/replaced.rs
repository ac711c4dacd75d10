//! USR2 under load: the binary is replaced again and again while producers push over HTTP and workers of all sorts run.
//! Nobody is refused, nothing is lost, and nothing runs twice: no fault is in the history, so the checker lets none explain it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use crate::campaign::Campaign;
use crate::history::{Event, Fault};
use crate::kills::{number, seed};
use crate::process::{Process, binary};
use crate::producer::rest;
use crate::support::wait::{now, until};
use crate::support::{Home, LATER, program, tell};
use crate::wire::get;

/// Lays a copy of the binary beside the home's, for [`put`].
fn furnish(home: &Home) {
    std::fs::copy(binary(), home.path("biotope.copy")).unwrap();
    put(home);
}

/// Puts another file with the same content in the place of the home's binary.
fn put(home: &Home) {
    program(&home.path("biotope"), &std::fs::read(home.path("biotope.copy")).unwrap());
}

/// Waits until `attempt` is over: the new image serves. Connects in the sockets' queue while nobody does.
fn until_replaced(home: &Home, attempt: u64) {
    until(&format!("replacement {attempt}"), LATER, || {
        let binary = get(home.port, "/v1/ecosystem").map(|seen| seen["binary"].clone()).unwrap_or_default();
        let (over, error) = (binary["attempts"] == attempt && binary["state"] == "serving", &binary["last_error"]);
        assert!(error.is_null(), "{binary}\n{}", home.text("stderr.txt"));
        if over && binary["replaced"] == attempt { Ok(()) } else { Err(binary.to_string()) }
    });
}

/// Asks for an answer again and again until told to stop; the longest time between two of them, one for each slot that `at` names.
fn listen(port: u16, over: &AtomicBool, at: &AtomicU64) -> (Vec<Duration>, u64) {
    let (mut longest, mut refused) = (Vec::new(), 0);
    let mut last = now();
    while !over.load(Ordering::Relaxed) {
        match get(port, "/healthz") {
            Some(_) => {
                let slot = usize::try_from(at.load(Ordering::Relaxed)).unwrap();
                longest.resize(longest.len().max(slot + 1), Duration::ZERO);
                longest[slot] = longest[slot].max(now() - last);
                last = now();
            }
            None => refused += 1,
        }
    }
    (longest, refused)
}

#[test]
fn usr2_under_load_refuses_nobody_loses_nothing_and_runs_nothing_twice() {
    let times = number("TORTURE_REPLACEMENTS", 8, 100);
    let campaign = Campaign::begin(seed(), None).unwrap();
    furnish(&campaign.home);
    let process = Process::of_own_copy(&campaign.home);
    campaign.shared.history.add(&Event::Up);
    let (port, over, round) = (campaign.home.port, AtomicBool::new(false), AtomicU64::new(0));
    let before = campaign.shared.refused.load(Ordering::Relaxed);
    let unknown = campaign.shared.unknown.load(Ordering::Relaxed);
    let (longest, unanswered) = std::thread::scope(|scope| {
        let listening = scope.spawn(|| listen(port, &over, &round));
        for attempt in 1..=times {
            rest(fastrand::u64(..300));
            put(&campaign.home);
            round.store(attempt, Ordering::Relaxed);
            process.signal(Signal::USR2);
            until_replaced(&campaign.home, attempt);
        }
        over.store(true, Ordering::Relaxed);
        listening.join().unwrap()
    });
    let refused = campaign.shared.refused.load(Ordering::Relaxed) - before;
    let unknown = campaign.shared.unknown.load(Ordering::Relaxed) - unknown;
    process.signal(Signal::TERM);
    campaign.stopped(process, Fault::Stop);
    let figures = campaign.judge("replaced");
    let mut pauses = longest.get(1..).unwrap_or_default().to_vec();
    pauses.sort();
    let (half, most) = (pauses[pauses.len() / 2], pauses[pauses.len() - 1]);
    tell(&format!(
        "{times} replacements: {refused} refused, {unknown} without an answer; longest time between two answers: {} ms in half of them, {} ms at most",
        half.as_millis(),
        most.as_millis()
    ));
    assert_eq!((refused, unanswered, unknown), (0, 0, 0), "refused, unanswered, unknown");
    assert_eq!((figures.run_twice, figures.pushed_twice), (0, 0), "{figures:?}");
    assert!(figures.acked > times, "too little was going on: {figures:?}");
}

/// Killed at any moment of it, between the signal and some time after the new image serves.
#[test]
fn a_kill_in_the_middle_of_usr2_loses_nothing_acknowledged() {
    let lives = number("TORTURE_REPLACED_KILLS", 6, 300);
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let campaign = Campaign::begin(seed, None).unwrap();
    furnish(&campaign.home);
    for _ in 0..lives {
        let process = Process::of_own_copy(&campaign.home);
        campaign.shared.history.add(&Event::Up);
        rest(random.u64(..200));
        put(&campaign.home);
        process.signal(Signal::USR2);
        rest(random.u64(..600));
        campaign.gone(process, Signal::KILL, Fault::Kill);
    }
    let figures = campaign.judge("replaced and killed");
    assert_eq!(figures.ends, lives + 1);
    assert!(figures.acked > lives, "too little was going on: {figures:?}");
}
