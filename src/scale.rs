//! How many workers a type shall have: by what comes in, how long a job takes, and what waits (Little's law).
//!
//! Pure: figures and moments come in, a size and its reason go out. A size follows the need up at once, and down only when
//! the need has been lower for a calm while. One budget bounds all types together; under pressure each has its fair share.

use std::collections::VecDeque;
use std::time::Duration;

/// Weight of what came in lately: older arrivals count less, by e over so much time.
const ARRIVALS_FADE: Duration = Duration::from_secs(10);
/// Runs after which a new run time has half the say.
const RUNS_FADE: f64 = 20.0;
/// Workers are busy for this share of their time, so that what comes in by chance seldom waits.
const LOAD: f64 = 0.8;
/// The need must have been lower for so long before a size goes down.
pub const CALM: Duration = Duration::from_secs(30);
/// No more workers than there are jobs, and will be in this time: who is needed later is started later.
const SOON: f64 = 2.0;
/// A need below this is none.
const NOTHING: f64 = 0.02;

/// What a type's size may be, and what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Workers at least.
    pub min: u32,
    /// Workers at most.
    pub max: u32,
    /// What waits shall be begun within this time.
    pub target_wait: Duration,
}

/// What is seen of a type; counts and times since its process began.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// When: the steady clock.
    pub at: Duration,
    /// Jobs that nobody has begun.
    pub waiting: u64,
    /// Jobs that became ready.
    pub arrived: u64,
    /// Runs that ended.
    pub ended: u64,
    /// Time that workers spent on these runs.
    pub worked: Duration,
    /// Jobs that somebody has begun and not ended.
    pub running: u64,
    /// How long none of the runs that go on has ended; zero when none goes on. It takes at least so long to end one.
    pub quiet: Duration,
}

/// Why a size is what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Nothing comes in, nothing waits.
    Idle,
    /// It is what comes in that needs so many.
    Arrivals,
    /// What waits would else wait longer than it should.
    Backlog,
    /// The need was higher a moment ago.
    Calm,
    /// The most that the type may have.
    Max,
    /// The least that the type shall have.
    Min,
    /// The budget of all types together leaves no more.
    Budget,
    /// No worker is up just now.
    NotUp,
}

impl Reason {
    /// In words that complete "so many workers: …".
    pub fn word(self) -> &'static str {
        match self {
            Self::Idle => "nothing to do",
            Self::Arrivals => "as many as comes in needs",
            Self::Backlog => "to work off what waits within target_wait",
            Self::Calm => "until the need has been lower for 30 s",
            Self::Max => "the most that concurrency.max allows",
            Self::Min => "the least that concurrency.min asks for",
            Self::Budget => "all that workers_max leaves",
            Self::NotUp => "no more until one is up",
        }
    }
}

/// A size and its reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Workers.
    pub workers: u32,
    /// Why so many.
    pub reason: Reason,
}

/// Follows one type.
#[derive(Debug, Default)]
pub struct Scaler {
    last: Seen,
    /// Jobs a second.
    arrivals: f64,
    /// Seconds a run; `None` before any has ended.
    run: Option<f64>,
    /// Needs of the last calm while that no later one exceeds: a falling line.
    needs: VecDeque<(Duration, u32)>,
}

impl Scaler {
    /// Follows a type that has `workers` now.
    pub fn new(at: Duration, workers: u32) -> Self {
        Self { last: Seen { at, ..Seen::default() }, needs: VecDeque::from([(at, workers)]), ..Self::default() }
    }

    /// What is counted, is counted from here: others count now.
    pub fn counts_from(&mut self, seen: Seen) {
        self.last = seen;
    }

    /// The size that a type should have, of what is seen now. Called often while there is something to do, and not at all while
    /// there is not.
    pub fn decide(&mut self, seen: Seen, bounds: Bounds) -> Size {
        self.learn(seen);
        let quiet = seen.quiet.as_secs_f64();
        let run = self.run.unwrap_or(quiet);
        let arrivals = self.arrivals * run / LOAD;
        // Where nothing has ended for longer than a run takes, runs take longer now: what waits must not wait for them.
        let backlog = seen.waiting as f64 * run.max(quiet) / bounds.target_wait.as_secs_f64().max(0.001);
        let present = seen.waiting + seen.running;
        let need = (arrivals + backlog).min(present as f64 + (self.arrivals * SOON).floor());
        let busy = present > 0;
        let least = if busy { 1.0 } else { 0.0 };
        let need = if need < NOTHING { least } else { need.ceil().max(least) };
        #[expect(clippy::cast_possible_truncation, reason = "a number above every bound becomes the largest")]
        let need = need as u32;
        let highest = self.highest(seen.at, need);
        let reason = match (highest > need, busy || need > 0) {
            (true, _) => Reason::Calm,
            (false, false) => Reason::Idle,
            (false, true) if backlog > arrivals => Reason::Backlog,
            (false, true) => Reason::Arrivals,
        };
        if highest > bounds.max {
            Size { workers: bounds.max, reason: Reason::Max }
        } else if highest < bounds.min {
            Size { workers: bounds.min, reason: Reason::Min }
        } else {
            Size { workers: highest, reason }
        }
    }

    /// Takes over what came in and what ended since the last look.
    fn learn(&mut self, seen: Seen) {
        let since = seen.at.saturating_sub(self.last.at).as_secs_f64();
        let came = seen.arrived.saturating_sub(self.last.arrived) as f64;
        if since > 0.0 {
            let say = 1.0 - (-since / ARRIVALS_FADE.as_secs_f64()).exp();
            self.arrivals += say * (came / since - self.arrivals);
        }
        let ended = seen.ended.saturating_sub(self.last.ended) as f64;
        if ended > 0.0 {
            let each = seen.worked.saturating_sub(self.last.worked).as_secs_f64() / ended;
            let say = ended / (ended + RUNS_FADE);
            self.run = Some(self.run.map_or(each, |run| run + say * (each - run)));
        }
        self.last = seen;
    }

    /// The highest need of the last calm while, this one included.
    fn highest(&mut self, at: Duration, need: u32) -> u32 {
        while self.needs.back().is_some_and(|(_, older)| *older <= need) {
            self.needs.pop_back();
        }
        self.needs.push_back((at, need));
        while self.needs.front().is_some_and(|(since, _)| at.saturating_sub(*since) > CALM) {
            self.needs.pop_front();
        }
        self.needs.front().map_or(need, |(_, highest)| *highest)
    }
}

/// Divides a budget: each gets the least that it shall have, and of the rest, in equal steps, up to what it wants, so that
/// nobody gets more while somebody who has less wants it. `wants`: the least and the wanted size of each.
pub fn share(budget: u32, wants: &[(u32, u32)]) -> Vec<u32> {
    let mut sizes: Vec<u32> = wants.iter().map(|(least, _)| *least).collect();
    let mut rest = budget.saturating_sub(sizes.iter().sum());
    loop {
        let lowest = wants.iter().zip(&sizes).filter(|((_, want), size)| *size < want).map(|(_, size)| *size).min();
        let Some(lowest) = lowest.filter(|_| rest > 0) else { return sizes };
        for ((_, want), size) in wants.iter().zip(&mut sizes) {
            if rest > 0 && *size == lowest && *size < *want {
                *size += 1;
                rest -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TICK: Duration = Duration::from_millis(250);

    /// A type under a load: jobs that wait, and workers that are busy until some moment.
    struct Load {
        scaler: Scaler,
        bounds: Bounds,
        seen: Seen,
        waiting: VecDeque<Duration>,
        /// When each busy worker is through, and how long its run takes.
        busy: Vec<(Duration, Duration)>,
        quiet_since: Duration,
        size: u32,
        /// Each change of size.
        changes: Vec<(Duration, Size)>,
        longest_wait: Duration,
    }

    impl Load {
        fn new(bounds: Bounds) -> Self {
            Self {
                scaler: Scaler::default(),
                bounds,
                seen: Seen::default(),
                waiting: VecDeque::new(),
                busy: Vec::new(),
                quiet_since: Duration::ZERO,
                size: bounds.min,
                changes: Vec::new(),
                longest_wait: Duration::ZERO,
            }
        }

        /// One tick: `jobs` come in, each of which takes `run`; the size is at most `budget`.
        fn tick(&mut self, jobs: u64, run: Duration, budget: u32) -> Size {
            self.seen.at += TICK;
            self.seen.arrived += jobs;
            self.waiting.extend((0..jobs).map(|_| self.seen.at));
            // Workers go on from run to run, each by itself, within the tick.
            self.busy.sort_unstable();
            let now = self.seen.at;
            let (ended, was_busy) = (self.seen.ended, !self.busy.is_empty());
            let through = self.busy.partition_point(|(until, _)| *until <= now);
            let mut spare: Vec<Duration> = Vec::new();
            for (until, took) in self.busy.drain(..through) {
                self.seen.ended += 1;
                self.seen.worked += took;
                spare.push(until);
            }
            while self.busy.len() < self.size as usize {
                let Some(came) = self.waiting.pop_front() else { break };
                let start = spare.pop().unwrap_or(now).max(came);
                self.longest_wait = self.longest_wait.max(start.saturating_sub(came));
                if start + run > now {
                    self.busy.push((start + run, run));
                } else {
                    self.seen.ended += 1;
                    self.seen.worked += run;
                    spare.push(start + run);
                }
            }
            self.seen.waiting = self.waiting.len() as u64;
            self.seen.running = self.busy.len() as u64;
            self.quiet_since = if self.seen.ended > ended || !was_busy { now } else { self.quiet_since };
            self.seen.quiet = if self.seen.running > 0 { now - self.quiet_since } else { Duration::ZERO };
            let mut size = self.scaler.decide(self.seen, self.bounds);
            if size.workers > budget {
                size = Size { workers: budget, reason: Reason::Budget };
            }
            if size.workers != self.size {
                self.changes.push((now, size));
                self.size = size.workers;
            }
            size
        }
    }

    fn bounds(min: u32, max: u32, wait_secs: u64) -> Bounds {
        Bounds { min, max, target_wait: Duration::from_secs(wait_secs) }
    }

    #[test]
    fn a_burst_is_worked_off_within_the_target_and_the_size_goes_back_to_nothing() {
        let mut load = Load::new(bounds(0, 100, 10));
        for _ in 0..40 {
            assert_eq!(load.tick(0, TICK, u32::MAX), Size { workers: 0, reason: Reason::Idle });
        }
        load.tick(400, Duration::from_secs(1), u32::MAX);
        assert_eq!(load.size, 1, "nobody knows yet how long a run takes, and somebody must find out");
        let mut ticks = 0;
        while load.seen.waiting > 0 {
            load.tick(0, Duration::from_secs(1), u32::MAX);
            ticks += 1;
            assert!(ticks < 200, "{:?}", load.changes);
        }
        assert!(load.longest_wait < Duration::from_secs(20), "{:?}", load.longest_wait);
        let most = load.changes.iter().map(|(_, size)| size.workers).max().unwrap();
        assert!((40..=100).contains(&most), "{:?}", load.changes);
        for _ in 0..600 {
            load.tick(0, TICK, u32::MAX);
        }
        assert_eq!((load.size, load.changes.last().unwrap().1.reason), (0, Reason::Idle));
        let peak = load.changes.iter().position(|(_, size)| size.workers == most).unwrap();
        let down = load.changes[peak..].windows(2).all(|pair| pair[1].1.workers < pair[0].1.workers);
        assert!(down, "nothing came in, so it only goes down: {:?}", load.changes);
    }

    #[test]
    fn a_steady_load_does_not_make_the_size_flap() {
        let seed = fastrand::u64(..);
        eprintln!("SEED={seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut load = Load::new(bounds(1, 100, 10));
        // Twenty jobs a second of half a second each, by chance: ten workers would be busy all the time.
        let mut tick = |load: &mut Load| {
            let jobs = (0..40).filter(|_| random.u8(0..8) == 0).count();
            load.tick(jobs as u64, Duration::from_millis(500), u32::MAX);
        };
        for _ in 0..480 {
            tick(&mut load);
        }
        load.changes.clear();
        load.longest_wait = Duration::ZERO;
        for _ in 0..2400 {
            tick(&mut load);
        }
        assert!((11..=20).contains(&load.size), "SEED={seed} {}", load.size);
        assert!(load.changes.len() <= 40, "SEED={seed}: {} changes in ten minutes", load.changes.len());
        let apart = load.changes.iter().map(|(_, size)| size.workers);
        let (least, most) = (apart.clone().min().unwrap_or(load.size), apart.max().unwrap_or(load.size));
        assert!(most - least <= 5, "SEED={seed}: {least} to {most}");
        assert!(load.longest_wait < Duration::from_secs(10), "SEED={seed} {:?}", load.longest_wait);
    }

    #[test]
    fn a_slow_type_has_its_share_of_the_budget_beside_a_busy_one() {
        let (mut busy, mut slow) = (Load::new(bounds(0, 100, 10)), Load::new(bounds(0, 100, 10)));
        let mut sizes = vec![0, 0];
        let mut wants = vec![(0, 0), (0, 0)];
        for second in 0..480 {
            wants[0].1 = busy.tick(500, Duration::from_millis(200), sizes[0]).workers.max(busy.wanted());
            let jobs = u64::from(second % 4 == 0);
            wants[1].1 = slow.tick(jobs, Duration::from_secs(3), sizes[1]).workers.max(slow.wanted());
            sizes = share(16, &wants);
            assert!(sizes.iter().sum::<u32>() <= 16);
        }
        assert!(sizes[1] >= 3, "one job a second of three seconds: {sizes:?}");
        assert!(sizes[0] >= 8 && busy.seen.waiting > 1000, "the rest is the busy one's: {sizes:?}");
        assert!(slow.longest_wait < Duration::from_secs(10), "{:?}", slow.longest_wait);
    }

    impl Load {
        /// What it would have without a budget.
        fn wanted(&self) -> u32 {
            self.scaler.needs.front().map_or(0, |(_, need)| (*need).min(self.bounds.max))
        }
    }

    #[test]
    fn runs_that_take_longer_than_ever_have_more_workers_before_any_ends() {
        let mut load = Load::new(bounds(1, 50, 10));
        for _ in 0..200 {
            load.tick(2, Duration::from_millis(10), u32::MAX);
        }
        assert_eq!(load.size, 1, "{:?}", load.changes);
        load.tick(100, Duration::from_secs(600), u32::MAX);
        for _ in 0..40 {
            load.tick(0, Duration::from_secs(600), u32::MAX);
        }
        // Ten seconds later none of these has ended, and what is known of the others' 10 ms would ask for one worker.
        assert_eq!(load.size, 50, "{:?}", load.changes);
    }

    #[test]
    fn a_few_long_jobs_have_a_worker_each_and_no_more() {
        let mut load = Load::new(bounds(0, 100, 1));
        for tick in 0..2000 {
            // Three of a minute each, every two minutes: 1.5 workers would do, and none is to wait.
            load.tick(if tick % 480 == 0 { 3 } else { 0 }, Duration::from_secs(60), u32::MAX);
            assert!(load.size <= 3, "{:?}", load.changes);
        }
        let ups = load.changes.iter().filter(|(_, size)| size.workers == 3).count();
        assert!(ups >= 4, "each time there is one for each: {:?}", load.changes);
        assert!(load.longest_wait < Duration::from_secs(5), "{:?}", load.longest_wait);
    }

    #[test]
    fn who_is_taken_over_keeps_its_size_for_a_calm_while_and_counts_from_there() {
        let at = Duration::from_secs(1000);
        let mut scaler = Scaler::new(at, 7);
        let seen = Seen { at, arrived: 1_000_000, ended: 1_000_000, ..Seen::default() };
        scaler.counts_from(seen);
        let bounds = bounds(0, 100, 10);
        let later = |seconds| Seen { at: at + Duration::from_secs(seconds), ..seen };
        for seconds in [0, 1, 30] {
            assert_eq!(scaler.decide(later(seconds), bounds), Size { workers: 7, reason: Reason::Calm });
        }
        assert_eq!(scaler.decide(later(31), bounds), Size { workers: 0, reason: Reason::Idle });
        // Another pool of the type counts anew, and nothing came in by that.
        scaler.counts_from(Seen { at: at + Duration::from_secs(32), ..Seen::default() });
        assert_eq!(scaler.decide(Seen { arrived: 0, ..later(33) }, bounds), Size { workers: 0, reason: Reason::Idle });
    }

    #[test]
    fn bounds_are_kept_and_named() {
        let mut load = Load::new(bounds(2, 4, 1));
        assert_eq!(load.tick(0, TICK, u32::MAX), Size { workers: 2, reason: Reason::Min });
        for _ in 0..20 {
            load.tick(100, Duration::from_secs(1), u32::MAX);
        }
        assert_eq!(load.tick(100, TICK, u32::MAX), Size { workers: 4, reason: Reason::Max });
        let mut fixed = Load::new(bounds(3, 3, 1));
        for jobs in [0, 10_000, 0] {
            assert_eq!(fixed.tick(jobs, TICK, u32::MAX).workers, 3);
        }
    }

    proptest! {
        #[test]
        fn a_budget_is_divided_fairly(
            budget in 0_u32..100,
            wants in prop::collection::vec((0_u32..4, 0_u32..40), 0..12),
        ) {
            let wants: Vec<(u32, u32)> = wants.into_iter().map(|(least, more)| (least, least + more)).collect();
            let sizes = share(budget, &wants);
            let least: u32 = wants.iter().map(|(least, _)| least).sum();
            prop_assert!(sizes.iter().sum::<u32>() <= budget.max(least));
            for ((least, want), size) in wants.iter().zip(&sizes) {
                prop_assert!(size >= least && size <= want);
            }
            let all: u32 = wants.iter().map(|(_, want)| want).sum();
            if all > budget.max(least) {
                prop_assert_eq!(sizes.iter().sum::<u32>(), budget.max(least), "nothing is left over");
            }
            for ((_, want), size) in wants.iter().zip(&sizes) {
                for ((least, _), other) in wants.iter().zip(&sizes) {
                    prop_assert!(size == want || other <= &(size + 1) || other == least, "{:?} of {:?}", sizes, wants);
                }
            }
        }
    }
}
