//! D1, D2, D7, D8: the process dies at any moment, in any way; what was acknowledged is there after it.

use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::campaign::{Campaign, Ending};
use crate::support::wait::now;
use crate::support::{long, skipped, tell};

/// Lives of one campaign at most: then it is judged, and another one begins.
const LIVES_MAX: u64 = 250;
/// One life in so many goes on until every push has its answer.
const CATCH_UP_EVERY: u64 = 5;
/// Campaigns that go on side by side, where there is more than one: each waits for processes and disks most of the time.
const ABREAST: usize = 3;

/// A number from the environment, or what this tier has.
pub(crate) fn number(name: &str, short: u64, in_long: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")),
        Err(_) if long() => in_long,
        Err(_) => short,
    }
}

/// The seed of a campaign: given, or drawn; told in any case.
pub(crate) fn seed() -> u64 {
    let seed = number("SEED", fastrand::u64(1..1 << 32), fastrand::u64(1..1 << 32));
    tell(&format!("SEED={seed}"));
    seed
}

/// Whether processes may be traced here.
pub(crate) fn can_trace() -> bool {
    Command::new("strace").args(["-o", "/dev/null", "true"]).output().is_ok_and(|output| output.status.success())
}

/// Campaigns of `lives` lives in all, the end of the n-th life of each chosen by `ending`.
///
/// # Errors
/// Why the disk cannot be had, if one of its own is asked for.
fn run(
    name: &str,
    lives: u64,
    disk: Option<u64>,
    ending: impl Fn(&mut fastrand::Rng, u64) -> Ending + Sync,
) -> Result<(), String> {
    let (seed, began) = (seed(), now());
    let campaigns: Vec<u64> = (0..lives.div_ceil(LIVES_MAX)).map(|n| (lives - n * LIVES_MAX).min(LIVES_MAX)).collect();
    let (next, refused) = (AtomicUsize::new(0), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..ABREAST.min(campaigns.len()) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(lives) = campaigns.get(at) else { return };
                    let random = fastrand::Rng::with_seed(seed.wrapping_add(at as u64));
                    if let Err(why) = campaign(name, *lives, disk, random, &ending) {
                        *refused.lock().unwrap() = Some(why);
                        return;
                    }
                }
            });
        }
    });
    tell(&format!("{name}: {lives} lives in {} s", (now() - began).as_secs()));
    refused.into_inner().unwrap().map_or(Ok(()), Err)
}

/// One campaign: its lives, and what the checker says of them all.
fn campaign(
    name: &str,
    lives: u64,
    disk: Option<u64>,
    mut random: fastrand::Rng,
    ending: impl Fn(&mut fastrand::Rng, u64) -> Ending,
) -> Result<(), String> {
    let campaign = Campaign::begin(random.u64(..), disk)?;
    for life in 0..lives {
        campaign.spoil_checkpoints(&mut random);
        if life % CATCH_UP_EVERY == CATCH_UP_EVERY - 1 {
            campaign.catch_up();
        } else {
            campaign.live(ending(&mut random, life));
        }
    }
    let figures = campaign.judge(name);
    // The last crash, after all is drained, is one more.
    assert_eq!(figures.ends, lives + 1);
    assert!(figures.acked > lives, "too little was going on: {figures:?}");
    Ok(())
}

/// A moment of a life, in milliseconds since it serves: most in the first ones, where what the life before left is taken
/// up and the first syncs go one by one; some when it is in full swing.
fn moment(random: &mut fastrand::Rng) -> u64 {
    match random.u8(..8) {
        0..3 => random.u64(..15),
        3..6 => random.u64(..60),
        6 => random.u64(..150),
        _ => random.u64(..400),
    }
}

#[test]
fn d1_a_kill_at_any_moment_loses_nothing_acknowledged() {
    let traced = can_trace();
    let kills = number("TORTURE_KILLS", 30, 10_000);
    let ending = |random: &mut fastrand::Rng, _| match random.u8(..20) {
        0..4 => Ending::KillOpening(random.u64(..60)),
        4..6 if traced => Ending::KillAtSync(random.u64(1..40)),
        6 => Ending::Stop(moment(random)),
        7 => Ending::Halt(moment(random)),
        8 => Ending::KillStopping(random.u64(..50)),
        _ => Ending::Kill(moment(random)),
    };
    run("d1", kills, None, ending).unwrap();
}

#[test]
fn d2_a_power_cut_at_any_moment_loses_nothing_acknowledged() {
    let cuts = number("TORTURE_CUTS", 10, 1000);
    if let Err(why) = run("d2", cuts, Some(256), |random, _| Ending::Cut(moment(random))) {
        skipped("d2_a_power_cut_at_any_moment_loses_nothing_acknowledged", &why);
    }
}

#[test]
fn d7_a_failed_sync_ends_the_process_and_loses_nothing_acknowledged() {
    if !can_trace() {
        skipped(
            "d7_a_failed_sync_ends_the_process_and_loses_nothing_acknowledged",
            "strace is missing, or may not trace here",
        );
        return;
    }
    let fails = number("TORTURE_FAILS", 6, 200);
    run("d7", fails, None, |random, _| Ending::FailSync(random.u64(1..60))).unwrap();
}

#[test]
fn d8_what_a_failed_sync_left_is_made_durable_by_the_next_opening() {
    let name = "d8_what_a_failed_sync_left_is_made_durable_by_the_next_opening";
    if !can_trace() {
        skipped(name, "strace is missing, or may not trace here");
        return;
    }
    // A failed sync, and soon after the next start a power cut: what that start served by then is on the disk.
    let lives = number("TORTURE_FAILED_CUTS", 6, 200);
    let ending = |random: &mut fastrand::Rng, life: u64| {
        if life.is_multiple_of(2) { Ending::FailSync(random.u64(1..60)) } else { Ending::Cut(random.u64(..30)) }
    };
    if let Err(why) = run("d8", lives, Some(256), ending) {
        skipped(name, &why);
    }
}
