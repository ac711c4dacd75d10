//! A probation over a restart: the version before is started again as the way back that it was.

use super::rollout::{bad, do_jobs, rolling, says, until_version, version};
use super::versions::Slow;
use super::*;
use crate::engine::Resolver;
use crate::rollover::plan::Word;

/// What the configs `v1` and `bad` are made of; `bad` fails for good, and takes over at once.
struct Home {
    dir: tempfile::TempDir,
    /// Whether the text of a config that was accepted still says what it was.
    knows_texts: bool,
    v1: fn(&Self) -> Box<dyn WorkerFactory>,
    bad: fn(&Self) -> Box<dyn WorkerFactory>,
    /// Lets what is [`slow`] start.
    start: (Sender<()>, Receiver<()>),
}

struct Boxed(Box<dyn WorkerFactory>);

impl WorkerFactory for Boxed {
    fn make(&self, cutoff: &Arc<Cutoff>) -> Box<dyn Worker> {
        self.0.make(cutoff)
    }

    fn check(&self) -> Result<(), StartError> {
        self.0.check()
    }
}

fn good(_: &Home) -> Box<dyn WorkerFactory> {
    Box::new(echo())
}

fn slow(home: &Home) -> Box<dyn WorkerFactory> {
    Box::new(Slow(home.start.1.clone(), echo().0))
}

fn fails(_: &Home) -> Box<dyn WorkerFactory> {
    Box::new(bad(|| Outcome::Dead { error: "65".to_owned() }))
}

impl Home {
    fn spec(&self, text: &str) -> GenerationSpec {
        let factory = Boxed(if text == "bad" { (self.bad)(self) } else { (self.v1)(self) });
        let mut made = Spec::new(self.dir.path()).with_live("t", text, factory, rolling(&[])).make();
        made.text = text.into();
        made
    }

    /// Lets slow workers start, more than there will be.
    fn let_start(&self) {
        (0..8).for_each(|_| self.start.0.send(()).unwrap());
    }

    fn open(self: &Arc<Self>, text: &str) -> Handle {
        let known = Arc::clone(self);
        let resolver: Resolver = Arc::new(move |text| match known.knows_texts {
            true => Ok(known.spec(text)),
            false => Err("its program is gone".to_owned()),
        });
        Engine::open_with(self.spec(text), resolver, RealClock::shared()).unwrap().0
    }
}

/// A home in which `bad` took over from `v1` and was on probation when the process ended; `then`: what has changed since.
fn on_probation(then: impl FnOnce(&mut Home)) -> Arc<Home> {
    let dir = tempfile::tempdir().unwrap();
    let home = Home { dir, knows_texts: true, v1: good, bad: fails, start: crossbeam_channel::unbounded() };
    let home = Arc::new(home);
    let handle = home.open("v1");
    until_version(&handle, "v1", "current");
    do_jobs(&handle, 3, 1);
    handle.reload(home.spec("bad"), Box::new(|_| ()));
    until_version(&handle, "bad", "current");
    assert_eq!(of_type(&handle, "t").trial.unwrap().state, "probation");
    handle.stop_and_wait();
    let mut home = Arc::into_inner(home).expect("the engine has ended");
    then(&mut home);
    Arc::new(home)
}

fn push_once(handle: &Handle) -> Pushed {
    handle.push(NewJob { max_attempts: Some(1), ..job("t", "1") }).unwrap()
}

#[test]
fn p6_after_a_restart_a_probation_goes_on_and_ends_in_a_withdrawal_of_which_nothing_dies() {
    let home = on_probation(|_| ());
    let handle = home.open("bad");
    until_version(&handle, "bad", "current");
    assert!(until_version(&handle, "v1", "warm").warm_for_ms.is_some_and(|left| left > 500_000));
    let trial = of_type(&handle, "t").trial.unwrap();
    assert_eq!((trial.state, trial.baseline.as_str()), ("probation", "v1"));
    let mut jobs = 3;
    while version(&handle, "bad").state != "quarantined" {
        jobs += 1;
        assert!(jobs < 100, "{:?}", of_type(&handle, "t").trial);
        assert_eq!(do_jobs(&handle, 1, 1), ["v1"]);
    }
    let view = of_type(&handle, "t");
    assert_eq!((view.dead, view.completed), (0, jobs), "{view:?}");
    assert_eq!(until_version(&handle, "v1", "current").percent, 100);
    handle.stop_and_wait();
    // And once more, as it was withdrawn.
    let handle = home.open("bad");
    until_version(&handle, "v1", "current");
    assert!(of_type(&handle, "t").trial.is_none());
    handle.stop_and_wait();
}

#[test]
fn what_is_to_be_made_up_for_waits_until_the_version_before_is_up_again() {
    let home = on_probation(|home| home.v1 = slow);
    let handle = home.open("bad");
    until_version(&handle, "bad", "current");
    let pushed = push_once(&handle);
    while handle.job(&pushed.id).unwrap().failures.is_empty() {}
    let later = push_once(&handle);
    assert_eq!(version(&handle, "v1").state, "starting");
    for word in [Word::Abort, Word::Promote] {
        let refusal = says(&handle, word).unwrap_err().to_string();
        assert!(refusal.contains("still starts"), "{refusal}");
    }
    let seen = handle.job(&pushed.id).unwrap();
    assert_eq!((seen.state, seen.attempts, seen.failures.len()), ("ready", 0, 1), "{seen:?}");
    home.let_start();
    for pushed in [pushed, later] {
        let seen = until(&handle, &pushed.id, "completed");
        assert_eq!((seen.version.as_deref(), seen.attempts), (Some("v1"), 0), "{seen:?}");
    }
    until_version(&handle, "v1", "warm");
    handle.stop_and_wait();
}

#[test]
fn a_rollback_hastens_the_version_that_starts_as_a_way_back() {
    let home = on_probation(|home| home.v1 = slow);
    let handle = home.open("bad");
    until_version(&handle, "bad", "current");
    assert_eq!(says(&handle, Word::Rollback).unwrap().done, "started");
    assert_eq!(of_type(&handle, "t").versions.iter().filter(|version| version.version == "v1").count(), 1);
    home.let_start();
    until_version(&handle, "v1", "current");
    assert_eq!(do_jobs(&handle, 2, 1), ["v1"; 2]);
    assert!(of_type(&handle, "t").trial.is_none());
    handle.stop_and_wait();
}

#[test]
fn a_rollback_before_the_version_on_probation_is_up_again_is_the_end_of_that() {
    let home = on_probation(|home| home.bad = slow);
    let handle = home.open("bad");
    until_version(&handle, "v1", "warm");
    assert_eq!(version(&handle, "bad").state, "starting");
    assert_eq!(says(&handle, Word::Rollback).unwrap().done, "rolled back");
    assert_eq!(version(&handle, "v1").state, "current");
    home.let_start();
    until_version(&handle, "bad", "retired");
    assert_eq!(do_jobs(&handle, 2, 1), ["v1"; 2]);
    assert!(of_type(&handle, "t").trial.is_none());
    handle.stop_and_wait();
}

#[test]
fn after_a_restart_a_rollback_starts_what_only_the_text_of_an_old_config_says() {
    let home = on_probation(|_| ());
    let settled = |home: &Arc<Home>| {
        let handle = home.open("bad");
        // Whichever of the two is up first.
        until_version(&handle, "bad", "current");
        until_version(&handle, "v1", "warm");
        assert_eq!(says(&handle, Word::Rollback).unwrap().done, "rolled back");
        // Gone back from: no probation any more, and the version before is one that nothing runs of.
        assert_eq!(says(&handle, Word::Rollback).unwrap().done, "rolled back");
        handle.stop_and_wait();
        home.open("bad")
    };
    let handle = settled(&home);
    until_version(&handle, "bad", "current");
    assert!(of_type(&handle, "t").versions.iter().all(|version| version.version != "v1"));
    assert_eq!(says(&handle, Word::Rollback).unwrap().done, "started");
    until_version(&handle, "v1", "current");
    assert_eq!(do_jobs(&handle, 2, 1), ["v1"; 2]);
    handle.stop_and_wait();

    let home = on_probation(|_| ());
    settled(&home).stop_and_wait();
    let mut home = Arc::into_inner(home).expect("the engine has ended");
    home.knows_texts = false;
    let handle = Arc::new(home).open("bad");
    until_version(&handle, "bad", "current");
    let refusal = says(&handle, Word::Rollback).unwrap_err().to_string();
    assert!(refusal.contains("v1 cannot be started again: its program is gone; change the config back"), "{refusal}");
    handle.stop_and_wait();
}

#[test]
fn a_version_before_that_cannot_be_had_again_is_told_of_and_the_probation_is_over() {
    let gone = on_probation(|home| home.knows_texts = false);
    let broken = on_probation(|home| home.v1 = |_| Box::new(Broken));
    for (home, why) in [(gone, "its program is gone"), (broken, "broken on purpose")] {
        let handle = home.open("bad");
        until_version(&handle, "bad", "current");
        let told = || of_type(&handle, "t").no_way_back;
        let says = ask(told).expect("it is told");
        assert!(
            says.starts_with("bad was on probation, and v1 is no way back: it could not be started again"),
            "{says}"
        );
        assert!(says.contains(why), "{says}");
        assert!(of_type(&handle, "t").trial.is_none());
        let pushed = push_once(&handle);
        until(&handle, &pushed.id, "dead");
        handle.stop_and_wait();
    }
}

#[test]
fn a_version_on_probation_that_does_not_come_up_after_a_restart_is_withdrawn() {
    // Whichever of the two is through first.
    for is_late in [false, true] {
        let home = on_probation(|home| {
            home.v1 = if is_late { slow } else { good };
            home.bad = |_| Box::new(Broken);
        });
        let handle = home.open("bad");
        if is_late {
            while version(&handle, "bad").reason.is_none() {}
            home.let_start();
        }
        until_version(&handle, "v1", "current");
        let gone = until_version(&handle, "bad", "quarantined");
        assert!(gone.reason.as_deref().is_some_and(|why| why.contains("broken on purpose")), "{gone:?}");
        assert_eq!(do_jobs(&handle, 2, 1), ["v1"; 2]);
        handle.stop_and_wait();
    }
}

#[test]
fn another_version_that_is_asked_for_meanwhile_does_without_the_one_that_starts_as_a_way_back() {
    let home = on_probation(|home| home.v1 = slow);
    let handle = home.open("bad");
    until_version(&handle, "bad", "current");
    let v3 = Spec::new(home.dir.path()).with_live("t", "v3", echo(), rolling(&[])).make();
    handle.reload(v3, Box::new(|_| ()));
    until_version(&handle, "v3", "current");
    assert_eq!(do_jobs(&handle, 2, 1), ["v3"; 2]);
    // It was let go: it ends as soon as it can.
    home.let_start();
    until_version(&handle, "v1", "retired");
    until_version(&handle, "bad", "warm");
    assert_eq!(of_type(&handle, "t").trial.unwrap().baseline, "bad");
    handle.stop_and_wait();
}
