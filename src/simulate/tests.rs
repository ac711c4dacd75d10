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

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for seed in seed()..seed() + 20 {
        let contents = || {
            let mut contents = None;
            run_with(seed, &ops(seed), |world| contents = Some(world.disk.contents())).unwrap();
            contents
        };
        assert_eq!(contents(), contents(), "SEED={seed}");
    }
}
