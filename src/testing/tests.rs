//! Attempts, delays, batches and follow-up jobs without threads and without waiting.

use super::*;
use crate::job::new::Start;
use crate::worker::native::{Context, Failure, NativeWorker};

fn natives_of<R: crate::worker::native::Reply + 'static>(
    run: impl Fn(u64, &mut Context<'_>) -> R + Send + Sync + 'static,
) -> Natives {
    let mut natives = Natives::new();
    natives.register_fn("t", "v1", run).unwrap();
    natives
}

fn job(n: u64) -> NewJob {
    NewJob::json("t", &n).unwrap()
}

#[test]
fn a_failing_job_has_all_its_attempts_each_after_its_pause_and_is_dead_then() {
    let natives = natives_of(|n, context| Err::<(), _>(Failure::retry(format_args!("{n}, {}", context.attempt()))));
    let mut inline = Inline::new(&natives).unwrap();
    let pushed = inline.push(job(7)).unwrap();
    let ran = inline.run_until_empty();
    let attempts: Vec<u16> = ran.iter().map(|run| run.attempt).collect();
    assert_eq!(attempts, [1, 2, 3, 4]);
    let pauses: Vec<u64> = ran.windows(2).map(|two| two[1].at_ms - two[0].at_ms).collect();
    assert!(pauses.iter().zip([5_000, 20_000, 80_000]).all(|(pause, most)| *pause <= most), "{pauses:?}");
    assert!(pauses.iter().any(|pause| *pause > 0), "{pauses:?}");
    let view = inline.job(&pushed.id).unwrap();
    assert_eq!((view.state, view.attempts, view.error.as_deref()), ("dead", 4, Some("7, 4")));
    assert_eq!(inline.run_until_empty(), []);
}

#[test]
fn nothing_runs_before_its_time_and_the_same_happens_every_time() {
    let once = || {
        let natives = natives_of(|n, _| if n % 3 == 0 { Err("no") } else { Ok(n) });
        let mut inline = Inline::new(&natives).unwrap();
        let later = inline.push(NewJob { start: Start::After(Duration::from_secs(3600)), ..job(1) }).unwrap();
        inline.push(NewJob { expires_at: Some(BEGINS_AT_MS), ..job(5) }).unwrap();
        for n in 2..10 {
            inline.push(job(n)).unwrap();
        }
        let first = inline.run_due();
        assert_eq!(first.len(), 8);
        assert_eq!(inline.now_ms(), BEGINS_AT_MS);
        inline.advance(Duration::from_secs(3599));
        assert_eq!(inline.job(&later.id).unwrap().state, "delayed");
        let mut ran = inline.run_until_empty();
        let at = ran.iter().find(|run| run.id == later.id).unwrap().at_ms;
        assert_eq!(at, BEGINS_AT_MS + 3_600_000);
        ran.splice(..0, first);
        ran
    };
    assert_eq!(once(), once());
}

/// Answers how many jobs of its cycle came before.
struct Counts;

impl NativeWorker for Counts {
    type Payload = u64;
    type Reply = Result<u64, Failure>;
    type Cycle = u64;

    fn begin(&self) -> u64 {
        0
    }

    fn run(&self, cycle: &mut u64, _: u64, _: &mut Context<'_>) -> Result<u64, Failure> {
        *cycle += 1;
        Ok(*cycle - 1)
    }
}

#[test]
fn a_config_says_how_jobs_come_in_batches_of_one_cycle() {
    let mut natives = Natives::new();
    natives.register("t", "v1", Counts).unwrap();
    let config = "[workers.t]\nversion = \"v1\"\nbatch = 3\nbatch_wait = \"1m\"\n";
    let mut inline = Inline::with_config(config, &natives).unwrap();
    let ids: Vec<String> = (0..5).map(|n| inline.push(job(n)).unwrap().id).collect();
    inline.run_until_empty();
    let before: Vec<u64> = ids.iter().map(|id| inline.job(id).unwrap().read_result().unwrap()).collect();
    assert_eq!(before, [0, 1, 2, 0, 1]);
    let wrong = Inline::with_config("[workers.t]\n", &natives).err().unwrap().to_string();
    assert!(wrong.contains("`workers.t.version` is missing\n --> config:1:10"), "{wrong}");
}

#[test]
fn follow_up_jobs_and_cancelled_ones_are_seen_and_a_panic_is_a_failed_attempt() {
    let natives = natives_of(|n, context| match n {
        0 => Err(Failure::cancel("enough")),
        13 => panic!("unlucky"),
        _ => {
            context.enqueue(NewJob { id: Some(format!("of-{n}").parse().unwrap()), ..job(n - 1) });
            Ok(())
        }
    });
    let mut inline = Inline::new(&natives).unwrap();
    let first = inline.push(job(2)).unwrap();
    let unlucky = inline.push(NewJob { max_attempts: Some(1), ..job(13) }).unwrap();
    assert_eq!(inline.run_until_empty().len(), 4);
    assert_eq!(inline.job("of-2").unwrap().parent.as_deref(), Some(first.id.as_str()));
    let last = inline.job("of-1").unwrap();
    assert_eq!((last.state, last.error.as_deref()), ("cancelled", Some("enough")));
    let unlucky = inline.job(&unlucky.id).unwrap();
    assert_eq!((unlucky.state, unlucky.error.as_deref()), ("dead", Some("the worker panicked: unlucky")));
    assert!(matches!(inline.job("none"), Err(Refusal::NotFound { .. })));
    assert!(matches!(inline.push(NewJob::json("other", &1).unwrap()), Err(Refusal::UnknownType { .. })));
}

#[test]
#[should_panic(expected = "100000 runs and no end: does a job enqueue itself?")]
fn a_job_that_enqueues_itself_for_ever_hangs_no_test() {
    let natives = natives_of(|n, context| context.enqueue(job(n)));
    let mut inline = Inline::new(&natives).unwrap();
    inline.push(job(1)).unwrap();
    inline.run_until_empty();
}
