//! Pools whose size follows their queue: real threads, and a steady clock that the test moves ahead.

use std::sync::atomic::AtomicBool;

use super::*;
use crate::engine::view::ScaleView;

fn range(min: u32, max: u32) -> LiveConfig {
    LiveConfig { concurrency: Concurrency { min, max }, ..live() }
}

/// The size that a type's version has, and how it was decided.
fn size(handle: &Handle, name: &str) -> (u32, Option<ScaleView>) {
    let view = of_type(handle, name);
    let current = view.versions.iter().find(|version| version.state == "current");
    (current.map_or(0, |version| version.pool_size), view.scale)
}

/// Asks until a type has this size for this reason, while time goes by, though not for ever: threads may start late.
fn until_size(handle: &Handle, clock: &TestClock, name: &str, wanted: (u32, &str), seconds: u64) {
    let mut steps = 0;
    let found = ask(|| {
        let (workers, scale) = size(handle, name);
        if scale.is_some_and(|scale| (workers, scale.reason) == wanted && scale.workers == workers) {
            return Some(());
        }
        if steps < 1000 {
            steps += 1;
            clock.ahead(seconds);
        }
        None
    });
    found.unwrap_or_else(|| panic!("{name} never had {wanted:?}: {:?}", size(handle, name)));
}

const IDLE: &str = "nothing to do";
const MAX: &str = "the most that concurrency.max allows";
const BUDGET: &str = "all that workers_max leaves";

/// A worker that says when it starts and when it ends, and does not start while it is broken.
struct Told(Sender<&'static str>, Run, Arc<AtomicBool>);

impl WorkerFactory for Told {
    fn make(&self, _: &Arc<Cutoff>) -> Box<dyn Worker> {
        Box::new(ToldWorker(self.0.clone(), Doing(Arc::clone(&self.1)), Arc::clone(&self.2)))
    }

    fn check(&self) -> Result<(), StartError> {
        Ok(())
    }
}

struct ToldWorker(Sender<&'static str>, Doing, Arc<AtomicBool>);

impl Worker for ToldWorker {
    fn start(&mut self, _: Duration) -> Result<(), StartError> {
        let broken = self.2.load(Ordering::SeqCst);
        let _: Result<_, _> = self.0.send(if broken { "broken" } else { "started" });
        if broken { Err(StartError("broken on purpose".to_owned())) } else { Ok(()) }
    }

    fn cycle(&mut self, batch: Vec<Assignment>, sink: &mut dyn FnMut(Lease, Outcome)) {
        self.1.cycle(batch, sink);
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn stop(&mut self) {
        let _: Result<_, _> = self.0.send("ended");
    }
}

fn told() -> (Told, Receiver<&'static str>, Receiver<Assignment>, Sender<Outcome>) {
    let (factory, given, answer) = asked();
    let (to_test, events) = crossbeam_channel::unbounded();
    (Told(to_test, factory.0, Arc::default()), events, given, answer)
}

/// Waits for so many events of workers, all of this kind.
fn hear(events: &Receiver<&'static str>, count: usize, event: &str) {
    for number in 0..count {
        let heard = events.recv_timeout(SOON).unwrap_or_else(|_| panic!("{event} {number}"));
        assert_eq!(heard, event, "number {number}");
    }
}

#[test]
fn a_queue_drives_a_pool_from_nothing_to_the_most_and_back_to_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (factory, events, given, answer) = told();
    let spec = Spec::new(dir.path()).with_live("t", "v1", factory, range(0, 6)).make();
    let (handle, clock) = open_at(spec, 1_000_000).unwrap();
    // One worker shows that the version can start; nothing needs it.
    hear(&events, 1, "started");
    until_size(&handle, &clock, "t", (0, IDLE), 5);
    hear(&events, 1, "ended");

    let pushed: Vec<Pushed> = (0..50).map(|n| push(&handle, "t", &n.to_string())).collect();
    until_size(&handle, &clock, "t", (6, MAX), 1);
    hear(&events, 6, "started");
    let begun: Vec<Assignment> = (0..6).map(|_| given.recv_timeout(SOON).unwrap()).collect();
    assert!(events.is_empty() && given.is_empty(), "six at once, and no more: {}", begun.len());

    for _ in &pushed {
        answer.send(done()).unwrap();
    }
    for pushed in &pushed {
        let view = until(&handle, &pushed.id, "completed");
        assert_eq!((view.attempts, view.interrupts), (0, 0));
    }
    until_size(&handle, &clock, "t", (0, IDLE), 5);
    hear(&events, 6, "ended");

    // A pool of none wakes for the next job, and a stop of one ends it.
    let next = push(&handle, "t", "1");
    answer.send(done()).unwrap();
    until(&handle, &next.id, "completed");
    until_size(&handle, &clock, "t", (0, IDLE), 5);
    handle.stop_and_wait();
    assert_eq!(
        events.try_iter().collect::<Vec<_>>(),
        ["started", "ended"],
        "it was one and the same pool all the time"
    );
}

#[test]
fn while_none_can_be_started_there_are_no_more_tries_and_the_jobs_wait() {
    let dir = tempfile::tempdir().unwrap();
    let (factory, events, given, answer) = told();
    let broken = Arc::clone(&factory.2);
    let spec = Spec::new(dir.path()).with_live("t", "v1", factory, range(0, 6)).make();
    let (handle, clock) = open_at(spec, 1_000_000).unwrap();
    hear(&events, 1, "started");
    // A run takes twenty seconds, as far as is known.
    let first = push(&handle, "t", "1");
    given.recv_timeout(SOON).unwrap();
    clock.ahead(20);
    answer.send(done()).unwrap();
    until(&handle, &first.id, "completed");
    until_size(&handle, &clock, "t", (0, IDLE), 5);
    hear(&events, 1, "ended");

    broken.store(true, Ordering::SeqCst);
    let pushed: Vec<Pushed> = (0..30).map(|n| push(&handle, "t", &n.to_string())).collect();
    hear(&events, 1, "broken");
    until_size(&handle, &clock, "t", (1, "no more until one is up"), 1);
    let mut views = std::iter::repeat_with(|| of_type(&handle, "t")).take(20_000);
    let view = views.find(|view| view.versions[0].reason.is_some()).expect("a reason");
    assert_eq!((view.ready, view.reserved, view.versions[0].reason.as_deref()), (30, 0, Some("broken on purpose")));
    broken.store(false, Ordering::SeqCst);
    for _ in &pushed {
        answer.send(done()).unwrap();
    }
    for pushed in &pushed {
        let view = until(&handle, &pushed.id, "completed");
        assert_eq!(view.attempts, 0);
    }
    handle.stop_and_wait();
}

#[test]
fn a_worker_too_many_finishes_its_job_before_it_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let (factory, events, given, answer) = told();
    let spec = Spec::new(dir.path()).with_live("t", "v1", factory, range(1, 3)).make();
    let (handle, clock) = open_at(spec, 1_000_000).unwrap();
    let pushed: Vec<Pushed> = (0..9).map(|n| push(&handle, "t", &n.to_string())).collect();
    until_size(&handle, &clock, "t", (3, MAX), 1);
    hear(&events, 3, "started");
    for _ in 0..3 {
        given.recv_timeout(SOON).unwrap();
    }
    // A smaller pool by a reload: all three hold a job.
    let (factory, ..) = told();
    let verdict = reload(&handle, Spec::new(dir.path()).with_live("t", "v1", factory, range(0, 1)));
    assert_eq!((verdict.verdict, &*verdict.types[0].change), ("ok", "changed_live"));
    let (workers, scale) = size(&handle, "t");
    assert_eq!((workers, scale.map(|scale| (scale.min, scale.max))), (1, Some((0, 1))));
    assert!(events.is_empty(), "who is busy stays");
    for _ in &pushed {
        answer.send(done()).unwrap();
    }
    for pushed in &pushed {
        assert_eq!(until(&handle, &pushed.id, "completed").interrupts, 0);
    }
    hear(&events, 2, "ended");
    handle.stop_and_wait();
}

#[test]
fn a_reload_turns_a_number_into_a_range_and_back_without_a_new_version() {
    let dir = tempfile::tempdir().unwrap();
    let (factory, events, ..) = told();
    let spec = Spec::new(dir.path()).with_live("t", "v1", factory, live()).make();
    let (handle, clock) = open_at(spec, 1_000_000).unwrap();
    hear(&events, 2, "started");
    assert!(size(&handle, "t").1.is_none());
    for (settings, workers) in [(range(3, 5), 3), (live(), 2), (range(0, 5), 2), (live(), 2)] {
        let (factory, ..) = told();
        let verdict = reload(&handle, Spec::new(dir.path()).with_live("t", "v1", factory, settings.clone()));
        assert_eq!((verdict.verdict, &*verdict.types[0].change), ("ok", "changed_live"));
        assert_eq!(size(&handle, "t").0, workers);
        assert_eq!(size(&handle, "t").1.is_some(), settings.concurrency.is_scaled());
        assert_eq!(of_type(&handle, "t").versions.len(), 1, "no other version");
    }
    // One came and one went; who went may have done so before the other was there.
    let mut both = [0, 1].map(|_| events.recv_timeout(SOON).unwrap());
    both.sort_unstable();
    assert_eq!(both, ["ended", "started"]);
    // A new version with a range begins with what the old one had, and goes down once that was not needed for a while.
    let (factory, next_events, ..) = told();
    let verdict = reload(&handle, Spec::new(dir.path()).with_live("t", "v2", factory, range(0, 5)));
    assert_eq!((verdict.verdict, size(&handle, "t").0), ("ok", 2));
    hear(&events, 2, "ended");
    hear(&next_events, 2, "started");
    until_size(&handle, &clock, "t", (0, IDLE), 5);
    hear(&next_events, 2, "ended");
    handle.stop_and_wait();
}

#[test]
fn one_budget_is_shared_and_a_new_version_keeps_the_size() {
    let dir = tempfile::tempdir().unwrap();
    let (busy, _events, given, answer) = told();
    let (slow, _slow_events, slow_given, slow_answer) = told();
    let types = |version: &str, busy: Told, slow: Told, budget: u32| {
        let spec = Spec::new(dir.path()).with_live("busy", version, busy, range(0, 50));
        let mut spec = spec.with_live("slow", "v1", slow, range(0, 50)).with("fixed", "v1", echo()).make();
        spec.config.workers_max = budget;
        spec
    };
    let (handle, clock) = open_at(types("v1", busy, slow, 8), 1_000_000).unwrap();
    for n in 0..100 {
        push(&handle, "busy", &n.to_string());
    }
    // Two are the fixed type's; the type that has nothing to do keeps its first one for a while.
    until_size(&handle, &clock, "busy", (5, BUDGET), 1);
    until_size(&handle, &clock, "busy", (6, BUDGET), 1);
    for n in 0..100 {
        push(&handle, "slow", &n.to_string());
    }
    until_size(&handle, &clock, "slow", (3, BUDGET), 1);
    assert_eq!(size(&handle, "busy").0, 3, "fair shares");
    let runs = (given.recv_timeout(SOON), slow_given.recv_timeout(SOON));
    assert!(runs.0.is_ok() && runs.1.is_ok());

    // A larger budget by a reload, and another version of one of them: as long as the old one's workers finish what they hold,
    // three, or more if they have become more before it was up, it has what they leave of their share; all of it afterwards.
    let (next, next_events, next_given, next_answer) = told();
    let (to, verdict) = crossbeam_channel::bounded(1);
    handle.reload(types("v2", next, told().0, 12), Box::new(move |answer| to.send(answer).unwrap()));
    until_size(&handle, &clock, "slow", (5, BUDGET), 1);
    let of_the_new = || {
        clock.ahead(1);
        let is_new = of_type(&handle, "busy").versions.iter().any(|v| v.version == "v2" && v.state == "current");
        let (workers, scale) = size(&handle, "busy");
        (is_new && scale.is_some_and(|scale| scale.reason == BUDGET && scale.workers == workers)).then_some(workers)
    };
    let left = ask(of_the_new).expect("v2 takes over");
    hear(&next_events, usize::try_from(left).unwrap(), "started");
    for _ in 0..50 {
        let now = of_the_new();
        assert!(now.is_none_or(|workers| (1..3).contains(&workers)), "three at least are still the old one's: {now:?}");
    }
    drop(answer);
    until_size(&handle, &clock, "busy", (5, BUDGET), 1);
    hear(&next_events, usize::try_from(5 - left).unwrap(), "started");
    assert!(next_given.recv_timeout(SOON).is_ok());
    assert_eq!((size(&handle, "busy").0, size(&handle, "slow").0), (5, 5), "ten are theirs");
    // Whoever waits for an answer learns that there is none.
    drop((slow_answer, next_answer));
    assert_eq!(verdict.recv_timeout(SOON).unwrap().unwrap().verdict, "ok");
    handle.stop_and_wait();
}

#[test]
fn what_drains_of_a_type_whose_number_is_fixed_is_of_the_budget_too() {
    let dir = tempfile::tempdir().unwrap();
    let (busy, _events, _given, _answer) = told();
    let (old, _old_events, old_given, old_answer) = told();
    let four = || LiveConfig { concurrency: Concurrency::fixed(4), ..live() };
    let types = |version: &str, busy: Told, fixed: Told| {
        let spec = Spec::new(dir.path()).with_live("busy", "v1", busy, range(0, 50));
        let mut spec = spec.with_live("fixed", version, fixed, four()).make();
        spec.config.workers_max = 10;
        spec
    };
    let (handle, clock) = open_at(types("v1", busy, old), 1_000_000).unwrap();
    for n in 0..100 {
        push(&handle, "busy", &n.to_string());
    }
    until_size(&handle, &clock, "busy", (6, BUDGET), 1);
    let held: Vec<Pushed> = (0..4).map(|n| push(&handle, "fixed", &n.to_string())).collect();
    let begun: Vec<Assignment> = (0..4).map(|_| old_given.recv_timeout(SOON).unwrap()).collect();

    let (to, verdict) = crossbeam_channel::bounded(1);
    handle.reload(types("v2", told().0, told().0), Box::new(move |answer| to.send(answer).unwrap()));
    until_size(&handle, &clock, "busy", (2, BUDGET), 1);
    assert_eq!((size(&handle, "fixed").0, begun.len()), (4, 4), "eight are theirs");
    drop(begun);
    for _ in &held {
        old_answer.send(done()).unwrap();
    }
    until_size(&handle, &clock, "busy", (6, BUDGET), 1);
    assert_eq!(verdict.recv_timeout(SOON).unwrap().unwrap().verdict, "ok");
    handle.stop_and_wait();
}
