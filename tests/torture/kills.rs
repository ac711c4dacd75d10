//! D1, D2, D7, D8: the process dies at any moment, in any way; what was acknowledged is there after it.

use std::process::Command;

use crate::campaign::{Campaign, Ending};
use crate::support::{long, skipped, tell};

/// Lives of one campaign at most: then it is judged, and another one begins.
const LIVES_MAX: u64 = 250;

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

/// Campaigns of `lives` lives in all, each life's end chosen by `ending`.
fn run(
    name: &str,
    lives: u64,
    disk: Option<u64>,
    mut ending: impl FnMut(&mut fastrand::Rng) -> Ending,
) -> Result<(), String> {
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut left = lives;
    while left > 0 {
        let campaign = Campaign::begin(random.u64(..), disk)?;
        let now = left.min(LIVES_MAX);
        for _ in 0..now {
            campaign.spoil_checkpoints(&mut random);
            campaign.live(ending(&mut random));
        }
        left -= now;
        let figures = campaign.judge(name);
        // The last crash, after all is drained, is one more.
        assert_eq!(figures.ends, now + 1);
        assert!(figures.acked > now, "too little was going on: {figures:?}");
    }
    Ok(())
}

#[test]
fn d1_a_kill_at_any_moment_loses_nothing_acknowledged() {
    let traced = can_trace();
    let kills = number("TORTURE_KILLS", 30, 10_000);
    let ending = |random: &mut fastrand::Rng| match random.u8(..20) {
        0..4 => Ending::KillOpening(random.u64(..60)),
        4..6 if traced => Ending::KillAtSync(random.u64(1..80)),
        6 => Ending::Stop(random.u64(..100)),
        7 => Ending::Halt(random.u64(..100)),
        8 => Ending::KillStopping(random.u64(..50)),
        _ => Ending::Kill(random.u64(..400)),
    };
    run("d1", kills, None, ending).unwrap();
}

#[test]
fn d2_a_power_cut_at_any_moment_loses_nothing_acknowledged() {
    let cuts = number("TORTURE_CUTS", 10, 1000);
    if let Err(why) = run("d2", cuts, Some(256), |random| Ending::Cut(random.u64(..400))) {
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
    run("d7", fails, None, |random| Ending::FailSync(random.u64(1..60))).unwrap();
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
    let mut failed = false;
    let ending = |random: &mut fastrand::Rng| {
        failed = !failed;
        if failed { Ending::FailSync(random.u64(1..60)) } else { Ending::Cut(random.u64(..30)) }
    };
    if let Err(why) = run("d8", lives, Some(256), ending) {
        skipped(name, &why);
    }
}
