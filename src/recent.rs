//! What a version has done of late: how long its runs took, how long jobs had waited for them, how many ended well and ill.
//!
//! Pure: it is told the time. Owns its counts, a table for each minute of the last five, made when the first run of that
//! minute ends: an idle version has none. Never holds a single run: times are counted by size, each size at most a
//! thirty-second off what it counts.
//!
//! Shares are of the present minute and the four before it; rates of the present one and the one before. For a picture of how
//! it went there are counts of each five seconds of the last five minutes.

use std::time::Duration;

use serde::Serialize;

/// Minutes that are kept, the present one included.
const MINUTES: usize = 5;
/// How long one of them is, in seconds.
const MINUTE: u64 = 60;
/// How long a step of a course is, in seconds.
pub const COURSE_STEP: u64 = 5;
/// Steps of a course: five minutes.
pub const COURSE_STEPS: usize = 60;
/// Sizes between a power of two and the next, as a power of two.
const STEPS_LOG2: u32 = 4;
const STEPS: u64 = 1 << STEPS_LOG2;
/// Powers of two that have steps of their own; all that is longer counts as the longest: 19 hours, in microseconds.
const OCTAVES: usize = 32;
/// Below [`STEPS`] every microsecond is a size of its own.
const SIZES: usize = (OCTAVES + 1) << STEPS_LOG2;

/// A run that came to an end of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ran {
    /// From when the job was due to when the run began; `None` where nobody knows since when it was.
    pub waited: Option<Duration>,
    /// How long it took.
    pub took: Duration,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Its job is done.
    Well,
    /// The attempt failed.
    Ill,
    /// Neither: the job was given back for later, or given up without a failure.
    Neither,
}

/// How long half, most, and all but few of something took at most, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Shares {
    /// Half of them.
    pub p50: f64,
    /// 95 of 100.
    pub p95: f64,
    /// 99 of 100.
    pub p99: f64,
}

/// Runs a second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rates {
    /// That ended well.
    pub well: f64,
    /// That ended ill.
    pub ill: f64,
}

/// Runs that ended within one step of a course.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Step {
    /// That ended well.
    pub well: u32,
    /// That ended ill.
    pub ill: u32,
}

/// Steps by their number, each in the place of the one so many before it, and which number was counted last.
struct Course {
    last: u64,
    steps: [Step; COURSE_STEPS + 1],
}

/// Times, counted by size.
struct Sizes {
    counts: [u32; SIZES],
    /// Where there are any: what shall be looked at is mostly a small part of it.
    from: usize,
    to: usize,
}

/// One minute.
struct Minute {
    /// Which one, from the clock's start.
    number: u64,
    took: Sizes,
    waited: Sizes,
    well: u64,
    ill: u64,
}

/// What was done of late.
pub struct Recent {
    /// Since when it is counted.
    since: Duration,
    minutes: [Option<Box<Minute>>; MINUTES],
    course: Option<Box<Course>>,
}

impl Recent {
    /// Nothing, so far.
    pub fn new(since: Duration) -> Self {
        Self { since, minutes: Default::default(), course: None }
    }

    /// Takes a run over that ended at `now`.
    pub fn add(&mut self, now: Duration, ran: Ran, how: How) {
        let minute = self.minute(now.as_secs() / MINUTE);
        minute.took.add(ran.took);
        if let Some(waited) = ran.waited {
            minute.waited.add(waited);
        }
        match how {
            How::Well => minute.well += 1,
            How::Ill => minute.ill += 1,
            How::Neither => return,
        }
        self.course.get_or_insert_default().add(now.as_secs() / COURSE_STEP, how == How::Well);
    }

    /// Adds the steps that are over at `now` to `sums`, the last one at its end; nothing where nothing was counted.
    pub fn add_course(&self, now: Duration, sums: &mut Vec<Step>) {
        let Some(course) = &self.course else { return };
        let present = now.as_secs() / COURSE_STEP;
        if course.last + (COURSE_STEPS as u64) < present {
            return;
        }
        sums.resize(COURSE_STEPS, Step::default());
        for (back, sum) in (1..).zip(sums.iter_mut().rev()) {
            if let Some(step) = present.checked_sub(back).and_then(|number| course.step(number)) {
                sum.well = sum.well.saturating_add(step.well);
                sum.ill = sum.ill.saturating_add(step.ill);
            }
        }
    }

    /// The table of this minute, which takes the place of one that is too old.
    fn minute(&mut self, number: u64) -> &mut Minute {
        let at = usize::try_from(number % MINUTES as u64).unwrap_or(0);
        #[expect(clippy::indexing_slicing, reason = "a remainder is less than what divided")]
        let minute = self.minutes[at].get_or_insert_with(|| Box::new(Minute::new(number)));
        if minute.number != number {
            **minute = Minute::new(number);
        }
        minute
    }

    /// Those that count at `now`: this minute and the `before` ones before it.
    fn last(&self, now: Duration, before: u64) -> impl Iterator<Item = &Minute> + Clone {
        let number = now.as_secs() / MINUTE;
        let kept = self.minutes.iter().filter_map(Option::as_deref);
        kept.filter(move |minute| minute.number <= number && number - minute.number <= before)
    }

    /// Runs a second at `now`.
    pub fn rates(&self, now: Duration) -> Rates {
        let counted =
            Duration::from_secs(MINUTE + now.as_secs() % MINUTE) + Duration::from_nanos(now.subsec_nanos().into());
        // Of what began less than a second ago nobody can say more than what one second would give.
        let seconds = counted.min(now.saturating_sub(self.since)).as_secs_f64().max(1.0);
        let (mut well, mut ill) = (0, 0);
        for minute in self.last(now, 1) {
            well += minute.well;
            ill += minute.ill;
        }
        Rates { well: thousandths(well as f64 / seconds), ill: thousandths(ill as f64 / seconds) }
    }
}

/// How long runs took and jobs had waited, of one version or of several; `None` where nothing was counted.
pub fn shares<'a>(of: impl Iterator<Item = &'a Recent> + Clone, now: Duration) -> (Option<Shares>, Option<Shares>) {
    let minutes = of.flat_map(|recent| recent.last(now, MINUTES as u64 - 1));
    let of_sizes = |sizes: fn(&Minute) -> &Sizes| {
        let all = minutes.clone().map(sizes);
        let from = all.clone().map(|sizes| sizes.from).min()?;
        let to = all.clone().map(|sizes| sizes.to).max()?;
        let mut sums = vec![0; to.saturating_sub(from)];
        for sizes in all {
            for (sum, count) in sums.iter_mut().zip(sizes.counts.get(from..to)?) {
                *sum += u64::from(*count);
            }
        }
        Shares::of(from, &sums)
    };
    (of_sizes(|minute| &minute.took), of_sizes(|minute| &minute.waited))
}

impl Default for Course {
    fn default() -> Self {
        Self { last: 0, steps: [Step::default(); COURSE_STEPS + 1] }
    }
}

impl Course {
    fn place(number: u64) -> usize {
        usize::try_from(number % (COURSE_STEPS as u64 + 1)).unwrap_or(0)
    }

    fn add(&mut self, number: u64, well: bool) {
        // What lies between was calm, and its places hold what is too old.
        let from = (self.last + 1).max(number.saturating_sub(COURSE_STEPS as u64));
        for calm in from..=number {
            if let Some(step) = self.steps.get_mut(Self::place(calm)) {
                *step = Step::default();
            }
        }
        self.last = self.last.max(number);
        if let Some(step) = self.steps.get_mut(Self::place(number)) {
            let count = if well { &mut step.well } else { &mut step.ill };
            *count = count.saturating_add(1);
        }
    }

    /// A step that is not too old to be known.
    fn step(&self, number: u64) -> Option<&Step> {
        let is_kept = number <= self.last && number + COURSE_STEPS as u64 >= self.last;
        self.steps.get(Self::place(number)).filter(|_| is_kept)
    }
}

impl Minute {
    fn new(number: u64) -> Self {
        Self { number, took: Sizes::none(), waited: Sizes::none(), well: 0, ill: 0 }
    }
}

impl Sizes {
    fn none() -> Self {
        Self { counts: [0; SIZES], from: SIZES, to: 0 }
    }

    fn add(&mut self, time: Duration) {
        let size = size_of_time(time);
        if let Some(count) = self.counts.get_mut(size) {
            *count = count.saturating_add(1);
            self.from = self.from.min(size);
            self.to = self.to.max(size + 1);
        }
    }
}

impl Shares {
    /// Of counts by size, the first of which is of size `from`.
    fn of(from: usize, counts: &[u64]) -> Option<Self> {
        let all: u64 = counts.iter().sum();
        let mut sizes = (from..).zip(counts);
        let mut below = 0;
        let mut size = from;
        let mut at = |percent: u64| {
            // The first that has so many at or below it; rounded up, so that one run is its own half.
            while below < (all * percent).div_ceil(100)
                && let Some((next, count)) = sizes.next()
            {
                (size, below) = (next, below + count);
            }
            thousandths(middle_of(size) as f64 / 1000.0)
        };
        (all > 0).then(|| Self { p50: at(50), p95: at(95), p99: at(99) })
    }
}

/// As many digits as mean something.
fn thousandths(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Which size a time is.
fn size_of_time(time: Duration) -> usize {
    let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    if us < STEPS {
        return usize::try_from(us).unwrap_or(0);
    }
    // The highest bit says which octave, the bits behind it which step of it.
    let octave = us.ilog2() - STEPS_LOG2;
    let step = (us >> octave) - STEPS;
    let size = (usize::try_from(octave).unwrap_or(0) + 1) << STEPS_LOG2 | usize::try_from(step).unwrap_or(0);
    size.min(SIZES - 1)
}

/// The middle of the times of a size, in microseconds.
fn middle_of(size: usize) -> u64 {
    let (octave, step) = ((size >> STEPS_LOG2) as u64, size as u64 % STEPS);
    match octave.checked_sub(1) {
        None => step,
        Some(octave) => ((STEPS + step) << octave) + ((1 << octave) - 1) / 2,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ran(waited_ms: u64, took: Duration) -> Ran {
        Ran { waited: Some(Duration::from_millis(waited_ms)), took }
    }

    #[test]
    fn shares_are_those_of_the_runs_that_were_told() {
        let at = Duration::from_secs(1000);
        let mut recent = Recent::new(at);
        assert_eq!(shares([&recent].into_iter(), at), (None, None));
        for number in 1..=1000 {
            recent.add(at, ran(number * 10, Duration::from_micros(number)), How::Well);
        }
        let (took, waited) = shares([&recent].into_iter(), at);
        let (took, waited) = (took.unwrap(), waited.unwrap());
        for (found, exact) in
            [(took.p50, 0.5), (took.p95, 0.95), (took.p99, 0.99), (waited.p50, 5000.0), (waited.p99, 9900.0)]
        {
            assert!((found / exact - 1.0).abs() <= 1.0 / 32.0, "{found} for {exact}");
        }
        let one = |took| {
            let mut recent = Recent::new(at);
            recent.add(at, Ran { waited: None, took }, How::Ill);
            shares([&recent].into_iter(), at)
        };
        let three = Shares { p50: 0.003, p95: 0.003, p99: 0.003 };
        assert_eq!(one(Duration::from_micros(3)), (Some(three), None), "a wait that nobody knows is none of 0");
        assert!(one(Duration::MAX).0.unwrap().p50 > 3.6e6 * 18.0);
    }

    #[test]
    fn what_is_older_than_five_minutes_does_not_count() {
        let at = |seconds: u64| Duration::from_secs(600 + seconds);
        let mut recent = Recent::new(Duration::ZERO);
        recent.add(at(0), ran(1, Duration::from_secs(8)), How::Ill);
        recent.add(at(60), ran(1, Duration::from_millis(8)), How::Well);
        let p50 = |recent: &Recent, now| shares([recent].into_iter(), now).0.map(|took| took.p50);
        assert!(p50(&recent, at(299)).unwrap() > 7.7);
        assert!(shares([&recent].into_iter(), at(299)).0.unwrap().p99 > 7700.0);
        assert!(shares([&recent].into_iter(), at(300)).0.unwrap().p99 < 8.3, "only the one of a minute later");
        assert_eq!(p50(&recent, at(360)), None);
        // The place of a minute that is over is the next one's.
        recent.add(at(360), ran(1, Duration::from_millis(2)), How::Well);
        assert!(p50(&recent, at(360)).unwrap() < 2.1);
        assert_eq!(recent.rates(at(360)), Rates { well: thousandths(1.0 / 60.0), ill: 0.0 });
    }

    #[test]
    fn rates_are_of_the_last_two_minutes_or_of_as_long_as_it_is_counted() {
        let since = Duration::from_secs(6000);
        let mut recent = Recent::new(since);
        for number in 0..40 {
            let how = [How::Well, How::Ill, How::Well, How::Neither][number % 4];
            recent.add(since, ran(0, Duration::ZERO), how);
        }
        assert_eq!(recent.rates(since), Rates { well: 20.0, ill: 10.0 }, "not more than in a whole second");
        assert_eq!(recent.rates(since + Duration::from_secs(10)), Rates { well: 2.0, ill: 1.0 });
        assert_eq!(recent.rates(since + Duration::from_secs(100)), Rates { well: 0.2, ill: 0.1 });
        assert_eq!(recent.rates(since + Duration::from_secs(120)), Rates::default());
    }

    #[test]
    fn several_versions_together_are_as_one() {
        let at = Duration::from_secs(1000);
        let (mut one, mut other, mut all) = (Recent::new(at), Recent::new(at), Recent::new(at));
        for number in 0..100 {
            let ran = ran(number, Duration::from_micros(number * number));
            if number % 3 == 0 { &mut one } else { &mut other }.add(at, ran, How::Well);
            all.add(at, ran, How::Well);
        }
        assert_eq!(shares([&one, &other].into_iter(), at), shares([&all].into_iter(), at));
    }

    #[test]
    fn a_course_has_the_steps_that_are_over_each_in_its_place() {
        let at = |step: u64| Duration::from_secs(1000 + step * COURSE_STEP);
        let course = |of: &[&Recent], now| {
            let mut sums = Vec::new();
            of.iter().for_each(|recent| recent.add_course(now, &mut sums));
            sums
        };
        let mut recent = Recent::new(at(0));
        assert_eq!(course(&[&recent], at(0)), []);
        for (step, how) in [(0, How::Well), (0, How::Well), (0, How::Ill), (0, How::Neither), (2, How::Well)] {
            recent.add(at(step), ran(0, Duration::ZERO), how);
        }
        let (first, none, one) = (Step { well: 2, ill: 1 }, Step::default(), Step { well: 1, ill: 0 });
        let ends = |now| course(&[&recent], now)[COURSE_STEPS - 3..].to_vec();
        assert_eq!(ends(at(2)), [none, first, none], "the present step is not over");
        assert_eq!(ends(at(3)), [first, none, one]);
        assert_eq!(ends(at(4)), [none, one, none]);
        assert_eq!(course(&[&recent], at(60))[..3], [first, none, one]);
        assert_eq!(course(&[&recent], at(61))[..3], [none, one, none]);
        assert_eq!(course(&[&recent], at(62)), course(&[&recent], at(62)));
        assert_eq!((course(&[&recent], at(62))[0], course(&[&recent], at(63))), (one, Vec::new()), "all is too old");
        // What comes after a calm takes the places of what was before it.
        let mut other = Recent::new(at(0));
        other.add(at(70), ran(0, Duration::ZERO), How::Ill);
        recent.add(at(70), ran(0, Duration::ZERO), How::Well);
        let both = course(&[&recent, &other], at(71));
        assert_eq!(both.iter().filter(|step| **step != none).collect::<Vec<_>>(), [&Step { well: 1, ill: 1 }]);
        assert_eq!(both.last(), Some(&Step { well: 1, ill: 1 }));
    }

    proptest! {
        #[test]
        fn a_size_is_near_its_times(us in prop_oneof![0..1000_u64, 0..1_u64 << 36]) {
            let middle = middle_of(size_of_time(Duration::from_micros(us)));
            prop_assert!(middle.abs_diff(us) * 32 <= us.max(middle), "{us} is counted as {middle}");
        }

        #[test]
        fn longer_times_have_larger_sizes(us in 0..1_u64 << 40, more in 0..1_u64 << 40) {
            let size = |us| size_of_time(Duration::from_micros(us));
            prop_assert!(size(us) <= size(us + more));
            prop_assert!(size(us + more) < SIZES);
        }
    }
}
