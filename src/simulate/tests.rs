//! Worlds of fresh seeds, worlds that once failed, and that one seed is one world.

use super::*;

/// The seed to begin with: `SEED`, or one that is printed.
fn seed() -> u64 {
    let seed =
        std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..1 << 32));
    eprintln!("SEED={seed}");
    seed
}

#[test]
fn worlds_hold() {
    let first = seed();
    let runs = std::env::var("RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(200);
    let mut figures = Figures::default();
    for seed in first..first + runs {
        match run(seed, &ops(seed)) {
            Ok(more) => figures.absorb(&more),
            Err(failure) => panic!("{}", shrink(failure)),
        }
    }
    eprintln!("{figures}");
}

/// Seeds of worlds that failed while the generator was as it is; [`super::stories`] has those from before.
#[test]
fn seeds_that_failed_once_hold() {
    for seed in [
        145,
        3_620_639_629,
        100_000_047,
        200_151_534,
        50_444_329_339_073,
        4_200_078_697,
        4_200_170_614,
        4_200_190_333,
        8_846_535_956_490,
        20_322_053,
        20_428_441,
        20_498_367,
        20_530_509,
    ] {
        run(seed, &ops(seed)).unwrap_or_else(|failure| panic!("{failure}"));
    }
}

#[test]
fn what_never_happened_is_named() {
    let seed = seed();
    let campaign = Campaign { seed, runs: Some(3), time: None, threads: 2 };
    let report = campaign.run(&crate::clock::RealClock, &|_| {});
    assert!(report.failure.is_none() && report.worlds == 3 && report.missing.is_empty(), "SEED={seed} {report:?}");
    let missing = expected::missing(&report.figures, 1_000_000);
    assert!(missing.len() > 10, "three worlds have seen what a million should: SEED={seed} {missing:?}");
    assert!(!missing.contains(&"operation: turn".to_owned()), "SEED={seed} {missing:?}");
    assert_eq!(campaign.run(&crate::clock::RealClock, &|_| {}).figures, report.figures, "SEED={seed}");
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let first = seed();
    for seed in first..first + 20 {
        let contents = || {
            let mut contents = None;
            run_with(seed, &ops(seed), |world| contents = Some(world.disk.contents())).unwrap();
            contents
        };
        assert_eq!(contents(), contents(), "SEED={seed}");
    }
}

/// All of them are for `biotope simulate --crash-images`; here are those with the most to tear.
#[test]
fn every_crash_image_of_the_first_workloads_is_opened() {
    let mut counts = ImageCounts::default();
    for workload in workloads::all().iter().take(9) {
        counts.add(images::enumerate(workload).unwrap_or_else(|what| panic!("{}: {what}", workload.name)));
    }
    assert!(counts.cuts >= 50 && counts.images > counts.distinct && counts.distinct >= 50, "{counts:?}");
    assert!(counts.recoveries > 100 * counts.distinct, "{counts:?}");
}

#[test]
fn every_failed_call_of_the_small_workloads_is_survived() {
    let figures = failed_calls(2, &|_| {}).unwrap();
    for fault in ["Once", "ForEver"] {
        for call in ["Allocate", "Create", "Read", "Rename", "Sync", "SyncDir", "Write"] {
            let times = figures.get(&format!("{fault} fault while serving"), call);
            assert!(
                times + figures.get(&format!("{fault} fault while opening"), call) > 0,
                "{fault} {call}\n{figures}"
            );
        }
    }
    assert!(workload_count() >= 40);
    assert!(workloads::all().iter().all(|workload| workload.ops.len() <= 3));
}

/// 100,000 of them are for `biotope simulate --bits`.
#[test]
fn a_flipped_bit_is_noticed() {
    let seed = seed();
    let log = bits::FlippedLog::make().unwrap();
    let mut counts = BitCounts::default();
    for number in 0..50 {
        let bit = fastrand::Rng::with_seed(seed + number).u64(..log.bits());
        log.flip_and_open(bit, &mut counts).unwrap_or_else(|what| panic!("SEED={seed}: {what}"));
    }
    assert!(counts.refused + counts.cut == 50 && log.bits() >= 8 << 20, "{counts:?}");
}
