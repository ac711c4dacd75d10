//! Cycles, payloads, answers and panics of native workers.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::clock::RealClock;
use crate::job::new::NewJob;
use crate::worker::run::{Board, Stop};
use crate::worker::zoo::{assignment, cutoff, outcomes, ten_seconds_apart};

fn done(text: &str) -> Outcome {
    Outcome::Done { result: Some(text.as_bytes().to_vec()), enqueue: Vec::new() }
}

/// Counts the jobs of a cycle in its state, and the states alive at all.
#[derive(Default)]
struct Counting {
    alive: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
}

struct State(usize, Arc<AtomicUsize>);

impl Drop for State {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::Relaxed);
    }
}

impl NativeWorker for Counting {
    type Payload = Raw;
    type Reply = Outcome;
    type Cycle = State;

    fn begin(&self) -> State {
        self.alive.fetch_add(1, Ordering::Relaxed);
        State(0, Arc::clone(&self.alive))
    }

    fn run(&self, cycle: &mut State, _: Raw, context: &mut Context<'_>) -> Outcome {
        assert!(context.task() != "panic", "bad job {}", context.id());
        cycle.0 += 1;
        done(&cycle.0.to_string())
    }

    fn end(&self, cycle: State) {
        self.ended.fetch_add(1, Ordering::Relaxed);
        drop(cycle);
    }
}

fn worker_of(natives: &Natives, name: &str, cut: &Arc<Cutoff>) -> Box<dyn Worker> {
    natives.get(name).unwrap().0.make(cut)
}

#[test]
fn state_is_shared_within_a_cycle_and_dropped_at_its_end() {
    let counting = Counting::default();
    let (alive, ended) = (Arc::clone(&counting.alive), Arc::clone(&counting.ended));
    let mut natives = Natives::new();
    natives.register("count", "1", counting).unwrap();
    let mut worker = worker_of(&natives, "count", &cutoff());
    for cycle in 1..=2 {
        let got = outcomes(&mut *worker, vec![assignment(1), assignment(2)]);
        assert_eq!(got, [(1, done("1")), (2, done("2"))]);
        assert_eq!((alive.load(Ordering::Relaxed), ended.load(Ordering::Relaxed)), (0, cycle));
    }
}

#[test]
fn p8_a_panic_fails_its_job_and_the_next_one_gets_a_new_state() {
    let counting = Counting::default();
    let alive = Arc::clone(&counting.alive);
    let mut natives = Natives::new();
    natives.register("count", "1", counting).unwrap();
    let mut bad = assignment(2);
    bad.task = "panic".into();
    let got = outcomes(&mut *worker_of(&natives, "count", &cutoff()), vec![assignment(1), bad, assignment(3)]);
    let error = "the worker panicked: bad job job-2".to_owned();
    assert_eq!(got, [(1, done("1")), (2, Outcome::Fail { error, killed: false }), (3, done("1"))]);
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}

#[test]
fn cutoff_gives_back_the_jobs_not_begun() {
    let cut = cutoff();
    let inner = Arc::clone(&cut);
    let mut natives = Natives::new();
    natives
        .register_fn("cut", "1", move |_: Raw, context: &mut Context<'_>| {
            assert!(!context.is_cut_off());
            inner.set();
            assert!(context.is_cut_off());
            done("1")
        })
        .unwrap();
    let got = outcomes(&mut *worker_of(&natives, "cut", &cut), vec![assignment(1), assignment(2)]);
    assert_eq!(got, [(1, done("1")), (2, Outcome::Interrupted)]);
}

#[test]
fn registry_refuses_bad_and_double_names() {
    let mut natives = Natives::new();
    natives.register_fn("echo", "1", |_: Raw, _: &mut Context<'_>| done("1")).unwrap();
    let twice = natives.register_fn("echo", "2", |_: Raw, _: &mut Context<'_>| done("2")).unwrap_err();
    assert_eq!(twice.to_string(), "native worker \"echo\" is registered twice");
    assert!(matches!(
        natives.register_fn("a b", "1", |_: Raw, _: &mut Context<'_>| done("1")),
        Err(RegisterError::BadName { .. })
    ));
    assert_eq!(natives.names(), BTreeSet::from(["echo".to_owned()]));
    assert_eq!(natives.get("echo").unwrap().1, "1");
    assert!(natives.get("other").is_none() && Natives::none().names().is_empty());
}

#[derive(serde::Deserialize)]
struct Order {
    n: u64,
}

/// Answers as the task says.
fn ordered(order: Order, context: &mut Context<'_>) -> Result<u64, Failure> {
    context.enqueue(NewJob::json("next", &order.n).unwrap());
    match context.task() {
        "error" => Err("x".parse::<u64>().unwrap_err())?,
        "text" => Err("no luck".into()),
        "later" => Err(Failure::retry_after(Duration::from_secs(9), "busy")),
        "dead" => Err(Failure::dead("never")),
        "cancel" => Err(Failure::cancel("no need")),
        _ => Ok(order.n),
    }
}

fn outcome_of(natives: &Natives, name: &str, job: Assignment) -> Outcome {
    outcomes(&mut *worker_of(natives, name, &cutoff()), vec![job]).pop().unwrap().1
}

#[test]
fn payloads_and_results_are_typed_and_each_failure_says_what_follows() {
    let mut natives = Natives::new();
    natives.register_fn("t", "1", ordered).unwrap();
    let of = |task: &str| outcome_of(&natives, "t", Assignment { task: task.into(), ..assignment(7) });
    let follow_up = NewJob::new("next".parse().unwrap(), "7");
    assert_eq!(of(""), Outcome::Done { result: Some(b"7".to_vec()), enqueue: vec![follow_up] });
    let fail = |error: &str| Outcome::Fail { error: error.into(), killed: false };
    assert_eq!(of("error"), fail("invalid digit found in string"));
    assert_eq!(of("text"), fail("no luck"));
    assert_eq!(of("later"), Outcome::Defer { error: "busy".into(), after: Some(Duration::from_secs(9)) });
    assert_eq!(of("dead"), Outcome::Dead { error: "never".into() });
    assert_eq!(of("cancel"), Outcome::Cancel { reason: "no need".into() });
}

#[test]
fn a_payload_that_cannot_be_read_makes_its_job_dead_at_once_and_says_where() {
    let mut natives = Natives::new();
    natives.register_fn("t", "1", ordered).unwrap();
    let outcome = outcome_of(&natives, "t", Assignment { payload: r#"{"n":"7"}"#.into(), ..assignment(1) });
    let error = "the payload cannot be read: invalid type: string \"7\", expected u64 at line 1 column 8";
    assert_eq!(outcome, Outcome::Dead { error: error.into() });
}

#[test]
fn a_result_may_be_none_and_one_that_is_no_json_fails() {
    let mut natives = Natives::new();
    natives.register_fn("unit", "1", |_: Order, _: &mut Context<'_>| Ok::<(), Failure>(())).unwrap();
    natives.register_fn("nothing", "1", |_: Raw, context: &mut Context<'_>| drop(context.id().to_owned())).unwrap();
    let keys = |_: Raw, _: &mut Context<'_>| Ok::<_, Failure>(BTreeMap::from([((1, 2), 3)]));
    natives.register_fn("keys", "1", keys).unwrap();
    let nothing = Outcome::Done { result: None, enqueue: Vec::new() };
    assert_eq!(outcome_of(&natives, "unit", assignment(1)), nothing);
    assert_eq!(outcome_of(&natives, "nothing", assignment(1)), nothing);
    let Outcome::Fail { error, .. } = outcome_of(&natives, "keys", assignment(1)) else { panic!() };
    assert_eq!(error, "the result cannot be written as JSON: key must be a string");
}

#[test]
fn follow_up_jobs_of_an_outcome_come_after_those_of_the_context_and_too_many_are_not_kept() {
    let next = |n: usize| NewJob::json("next", &n).unwrap();
    let mut natives = Natives::new();
    natives
        .register_fn("both", "1", move |many: usize, context: &mut Context<'_>| {
            (0..many).for_each(|n| context.enqueue(next(n)));
            Outcome::Done { result: None, enqueue: vec![next(many)] }
        })
        .unwrap();
    let of = |many: &'static str| {
        let outcome = outcome_of(&natives, "both", Assignment { payload: many.into(), ..assignment(1) });
        outcome.follow_ups().to_vec()
    };
    assert_eq!(of("2"), [next(0), next(1), next(2)]);
    assert_eq!(of("5000").len(), 1002, "enough to be refused, and no more");
}

#[test]
fn a_worker_that_sleeps_is_woken_by_whatever_ends_its_run_and_by_nothing_else() {
    type End = fn(&Board, Lease, &Cutoff);
    let ends: [(Stop, End); 3] = [
        (Stop::Cancelled, |board, lease, _| board.cancel(lease)),
        (Stop::Overdue, |board, lease, _| board.overdue(lease)),
        (Stop::CutOff, |_, _, cut| cut.set()),
    ];
    for (stop, end) in ends {
        let (cut, (to, sleeps)) = (cutoff(), crossbeam_channel::bounded(1));
        let mut natives = Natives::new();
        let sleeper = move |_: Raw, context: &mut Context<'_>| {
            let before = context.cancelled_within(Duration::from_millis(1));
            to.send(before).unwrap();
            let after = context.cancelled_within(Duration::MAX);
            done(&format!("{before} {after} {:?}", context.run().stop()))
        };
        natives.register_fn("sleeps", "1", sleeper).unwrap();
        let board = Board::new(Arc::clone(&cut), RealClock::shared());
        let job = assignment(1);
        let lease = job.lease;
        let job = Assignment { run: board.run(lease, 0), ..job };
        let mut worker = worker_of(&natives, "sleeps", &cut);
        let run = std::thread::spawn(move || outcomes(&mut *worker, vec![job]));
        assert_eq!(sleeps.recv(), Ok(false));
        // Of another run.
        board.cancel(assignment(2).lease);
        board.overdue(assignment(2).lease);
        end(&board, lease, &cut);
        let want = done(&format!("false true Some({stop:?})"));
        assert_eq!(run.join().unwrap(), [(1, want)], "{stop:?}");
    }
}

/// All of a batch were told the deadline of its beginning, though each has its whole timeout from its own.
#[test]
fn each_of_a_batch_has_its_own_deadline() {
    let mut natives = Natives::new();
    let deadline = |_: Raw, context: &mut Context<'_>| done(&context.deadline_ms().to_string());
    natives.register_fn("t", "1", deadline).unwrap();
    let got = outcomes(&mut *worker_of(&natives, "t", &cutoff()), ten_seconds_apart());
    assert_eq!(got, [(1, done("30000")), (2, done("40000")), (3, done("50000"))]);
}
