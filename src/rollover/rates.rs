//! How often the evidence errs, and how soon it finds out: rollouts by the thousand, of versions that are known to be
//! innocent or worse, in worlds of all kinds.
//!
//! A few minutes' worth with `BIOTOPE_TEST_LONG`, which prints the tables of `docs/rollover.md`; else as many as fit into
//! some seconds. `SEED=` gives the first seed.

use super::choice::{PARTS, PARTS_OF_PERCENT, Ramp};
use super::evidence::{Evidence, First, History, Verdict};
use super::wager::Arm;

/// What makes jobs fail, on either version.
#[derive(Debug, Clone, Copy)]
struct World {
    /// This share, by chance, on every try anew.
    base: f64,
    /// So much more on the new version; 1 is always.
    extra: f64,
    /// Jobs that fail wherever they run.
    poison: f64,
    /// From this job on so many of so many fail at this rate.
    outage: Option<(u64, u64, u64, f64)>,
    /// Tenants, the share of those that fail more, and their rate.
    tenants: Option<(u16, f64, f64)>,
}

const CALM: World = World { base: 0.01, extra: 0.0, poison: 0.0, outage: None, tenants: None };

/// How the new version comes.
#[derive(Debug, Clone, Copy)]
enum How {
    Ramp(u32),
    /// 1, 10 and 50 percent.
    Steps,
    /// With what is known of so many attempts before.
    AtOnce(u64),
}

const HOWS: [How; 7] =
    [How::Ramp(1), How::Ramp(10), How::Ramp(50), How::Steps, How::AtOnce(1000), How::AtOnce(100), How::AtOnce(0)];

/// How a rollout ended: after how many of its jobs the new version was withdrawn, by the evidence and by a naive count.
struct Ended {
    withdrawn: Option<u64>,
    naive: Option<u64>,
}

/// A naive count withdraws at so many jobs that failed on the new version and passed on the old one.
const NAIVE: u64 = 5;

impl World {
    /// The rate of failures of a job on the old version.
    fn rate(&self, job: u64, is_bad_tenant: bool) -> f64 {
        let base = if is_bad_tenant { self.tenants.map_or(self.base, |(.., rate)| rate) } else { self.base };
        let outage = self.outage.filter(|(from, some, of, _)| job >= *from && (job - from) % of < *some);
        outage.map_or(base, |(.., rate)| base.max(rate))
    }

    /// One rollout, until so many jobs ran on the new version, or so many at all.
    fn rollout(&self, how: How, limit: u64, jobs_max: u64, seed: u64) -> Ended {
        let mut rng = fastrand::Rng::with_seed(seed);
        let salt = rng.u64(..);
        let (tenants, bad_share, _) = self.tenants.unwrap_or((0, 0.0, 0.0));
        let bad: Vec<bool> = (0..=tenants).map(|_| rng.f64() < bad_share).collect();
        let mut evidence = match how {
            How::Ramp(_) | How::Steps => Evidence::ramp(),
            How::AtOnce(attempts) => {
                let fails = |_: &u64| rng.f64() < self.base || rng.f64() < self.poison;
                let failed = (0..attempts).filter(fails).count() as u64;
                Evidence::at_once(History { attempts, failed })
            }
        };
        let (mut ran, mut made_up, mut naive) = (0, 0, None);
        for job in 0..jobs_max {
            let tenant = if tenants > 0 { rng.u16(1..=tenants) } else { 0 };
            let parts = match how {
                How::Ramp(percent) => percent * PARTS_OF_PERCENT,
                How::Steps => PARTS_OF_PERCENT * if ran < 100 { 1 } else { 10 + 40 * u32::from(ran >= 600) },
                How::AtOnce(_) => PARTS,
            };
            let suspected = evidence.verdict() == Verdict::Suspect;
            let way = Ramp { salt, parts, suspected }.way(tenant, job);
            let old = self.rate(job, bad[usize::from(tenant)]);
            let new = if way.arm == Arm::Incoming { (old + self.extra).min(1.0) } else { old };
            let poison = rng.f64() < self.poison;
            let first = match (poison || rng.f64() < new, poison || rng.f64() < old) {
                (false, _) => First::Passed,
                (true, false) => First::FailedThenPassed,
                (true, true) => First::FailedTwice,
            };
            if way.arm == Arm::Incoming {
                ran += 1;
                made_up += u64::from(first == First::FailedThenPassed);
                naive = naive.or((made_up == NAIVE).then_some(ran));
            }
            if way.evidence {
                evidence.first(way.arm, tenant, first);
            }
            if evidence.verdict() == Verdict::Worse {
                return Ended { withdrawn: Some(ran), naive };
            }
            if ran >= limit {
                break;
            }
        }
        Ended { withdrawn: None, naive }
    }
}

fn long() -> bool {
    std::env::var_os("BIOTOPE_TEST_LONG").is_some()
}

fn seed() -> u64 {
    std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

/// Of so many rollouts, those withdrawn within so many jobs of the new version, by the evidence and by the naive count.
fn withdrawn(world: World, how: How, within: u64, jobs_max: u64, rollouts: u64) -> (u64, u64) {
    let ends = (0..rollouts).map(|n| world.rollout(how, within, jobs_max, seed() * 1_000_000 + n));
    ends.fold((0, 0), |(evidence, naive), ended| {
        (evidence + u64::from(ended.withdrawn.is_some()), naive + u64::from(ended.naive.is_some()))
    })
}

/// Prints a row of the table: for each way to come, the percentage withdrawn; last, what a naive count withdraws.
fn row(name: &str, world: World, within: u64, jobs_max: u64, rollouts: u64) -> Vec<u64> {
    let each = HOWS.map(|how| withdrawn(world, how, within, jobs_max, rollouts));
    let percent = |count: u64, of: u64| format!("{:.2}", count as f64 * 100.0 / of as f64);
    let cells: Vec<String> = each.iter().map(|(count, _)| percent(*count, rollouts)).collect();
    let naive: u64 = each.iter().map(|(_, naive)| naive).sum();
    println!("| {name} | {} | {} |", cells.join(" | "), percent(naive, rollouts * HOWS.len() as u64));
    each.map(|(count, _)| count).to_vec()
}

/// Worlds in which nothing is the new version's fault.
fn innocent() -> Vec<(String, World)> {
    let rates = [0.0, 0.001, 0.01, 0.05, 0.2, 0.5, 0.9];
    let mut worlds: Vec<_> =
        rates.map(|base| (format!("{}% fail by chance", base * 100.0), World { base, ..CALM })).to_vec();
    for rate in [0.03, 0.1, 0.5, 0.9] {
        let outage = Some((0, 1, 1, rate));
        worlds.push((format!("outage with the switch: {}%", rate * 100.0), World { outage, ..CALM }));
    }
    for rate in [0.1, 0.5, 0.9] {
        let outage = Some((500, 300, 3000, rate));
        worlds.push((format!("outages later: {}%", rate * 100.0), World { outage, ..CALM }));
    }
    worlds.push(("2% poison jobs".into(), World { poison: 0.02, ..CALM }));
    worlds.push(("20% poison jobs".into(), World { poison: 0.2, ..CALM }));
    for (tenants, share, rate) in [(20, 0.05, 0.5), (100, 0.1, 0.5), (1000, 0.1, 0.2)] {
        let name = format!("{}% of {tenants} tenants fail {}%", share * 100.0, rate * 100.0);
        worlds.push((name, World { base: 0.001, tenants: Some((tenants, share, rate)), ..CALM }));
    }
    worlds
}

#[test]
fn an_innocent_version_is_withdrawn_in_under_one_rollout_of_a_hundred() {
    let (jobs, jobs_max, rollouts) = if long() { (2000, 200_000, 600) } else { (400, 5000, 8) };
    let (mut all, mut of) = (0, 0);
    for (name, world) in innocent() {
        let counts = row(&name, world, jobs, jobs_max, rollouts);
        // A true rate of one of 100 would seldom be seen as more than this.
        let most = rollouts / 100 + 3 * (rollouts / 100).isqrt() + 2;
        assert!(counts.iter().all(|count| *count <= most), "SEED={}: {name}: {counts:?}", seed());
        all += counts.iter().sum::<u64>();
        of += rollouts * HOWS.len() as u64;
    }
    assert!(all * 100 < of, "SEED={}: {all} of {of}", seed());
}

#[test]
fn a_long_rollout_of_an_innocent_version_goes_through() {
    let rollouts = if long() { 100 } else { 1 };
    let (mut all, mut of) = (0, 0);
    for base in [0.001, 0.05, 0.5] {
        for how in [How::Ramp(10), How::Ramp(50), How::AtOnce(1000), How::AtOnce(0)] {
            let jobs = if long() { 20_000 } else { 2500 };
            all += withdrawn(World { base, ..CALM }, how, jobs, jobs * 20, rollouts).0;
            of += rollouts;
        }
    }
    println!("20,000 jobs on the new version: {all} of {of} withdrawn");
    assert!(all * 100 <= of, "SEED={}: {all} of {of}", seed());
}

#[test]
fn a_version_that_fails_ten_points_more_is_found_in_time() {
    let rollouts = if long() { 2000 } else { 40 };
    for (base, within, wanted) in [(0.0, 200, 99), (0.001, 200, 99), (0.01, 200, 99), (0.05, 500, 95)] {
        let name = format!("{}% by chance, within {within}", base * 100.0);
        let counts = row(&name, World { base, extra: 0.1, ..CALM }, within, within * 2000, rollouts);
        for (how, count) in HOWS.into_iter().zip(counts) {
            let chance = if long() { 0 } else { 2 };
            assert!(count + chance >= wanted * rollouts / 100, "SEED={}: {name}, {how:?}: {count}", seed());
        }
    }
    for base in [0.0, 0.01, 0.05, 0.2, 0.5] {
        let name = format!("{}% by chance, always fails, within 10", base * 100.0);
        let counts = row(&name, World { base, extra: 1.0, ..CALM }, 10, 20_000, rollouts);
        let all = base > 0.01 || counts.iter().all(|count| *count == rollouts);
        assert!(all, "SEED={}: {name}: {counts:?}", seed());
    }
}
