//! Small workloads, each of at most three operations on a log that was prepared before: what is cut, torn and failed at
//! every place, one after the other, with nothing left to chance.

use super::op::{How, Op, PushOp};

/// A workload.
pub(super) struct Workload {
    pub(super) name: &'static str,
    /// What was done before, with no fault.
    pub(super) before: Vec<Op>,
    /// What is done, a turn of the engine after each.
    pub(super) ops: Vec<Op>,
}

/// A config in which the type `a` has another version.
const OTHER_VERSION: u8 = 1;
/// A config without the type `c`.
const WITHOUT_C: u8 = 0b100;
/// A config in which two dead jobs are kept.
const FEW_DEAD: u8 = 0b1000;
/// Longer than a dead job is kept.
const DEAD_RETAIN_MS: u32 = 21_000;

fn job(of: u8) -> PushOp {
    PushOp { of, priority: 5, bytes: 60, ..PushOp::default() }
}

fn named(of: u8, id: u8) -> PushOp {
    PushOp { id: Some(id), ..job(of) }
}

fn push(job: PushOp) -> Op {
    Op::Push(vec![job])
}

fn finish(how: How) -> Op {
    Op::Finish(0, how)
}

fn done(follow_ups: Vec<PushOp>) -> Op {
    finish(How::Done { follow_ups })
}

/// One job waits.
fn waiting(job: PushOp) -> Vec<Op> {
    vec![push(job), Op::Turn]
}

/// One job runs.
fn running(job: PushOp) -> Vec<Op> {
    let up = |pick| Op::PoolUp(pick);
    vec![up(0), up(1), up(2), push(job), Op::Turn, Op::Turn, Op::Take(0)]
}

/// One job runs, and has lost two runs with the helper.
fn lost_twice() -> Vec<Op> {
    let mut ops = running(job(0));
    for _ in 0..2 {
        ops.extend([finish(How::HostDeath), Op::Wait(2000), Op::Turn, Op::Take(0)]);
    }
    ops
}

/// One job was handed to a pool, and is not begun.
fn handed() -> Vec<Op> {
    let mut ops = running(job(0));
    ops.pop();
    ops
}

/// One job is dead.
fn dead(of: u8) -> Vec<Op> {
    let mut ops = running(job(of));
    ops.extend([finish(How::Dead), Op::Turn]);
    ops
}

/// The first segment is nearly filled, and the next one made.
fn nearly_full() -> Vec<Op> {
    let mut ops = vec![Op::MakeSegment];
    for _ in 0..13 {
        ops.extend([push(PushOp { bytes: 700, ..job(1) }), Op::Turn]);
    }
    ops
}

/// Segments with little in them that lives: the head can be cleaned, and files are taken again.
fn worn() -> Vec<Op> {
    let mut ops = vec![push(job(2)), push(named(0, 1)), Op::Turn];
    for _ in 0..4 {
        ops.extend((0..13).flat_map(|_| [push(PushOp { bytes: 700, ..job(1) }), Op::Turn]));
        ops.extend([Op::Purge(1), Op::MakeSegment]);
    }
    ops
}

/// A job of `a` that needs the version that it has in the other config.
fn needy() -> PushOp {
    PushOp { min: Some(OTHER_VERSION), ..job(0) }
}

/// Two jobs wait, one of them for a version that came and went.
fn held() -> Vec<Op> {
    let mut ops = vec![Op::PoolUp(0), Op::PoolUp(1), Op::PoolUp(2), push(needy()), push(job(0)), Op::Turn];
    ops.extend([Op::Reload(OTHER_VERSION), Op::PoolUp(3), Op::Turn, Op::Reload(0), Op::PoolUp(4), Op::Turn]);
    ops
}

/// All of them.
pub(super) fn all() -> Vec<Workload> {
    let mut all = producers();
    all.extend(workers());
    all.extend(operators());
    all.extend(segments());
    all
}

fn producers() -> Vec<Workload> {
    let large = PushOp { bytes: 900, ..job(0) };
    let workload = |name, before, ops| Workload { name, before, ops };
    vec![
        workload("the first start", vec![], vec![Op::Turn]),
        workload("the first job of all", vec![], vec![push(job(0))]),
        workload("three jobs, one after the other", vec![Op::Turn], vec![push(job(0)), push(job(1)), push(job(2))]),
        workload("three jobs at once", vec![Op::Turn], vec![Op::Push(vec![job(0), job(1), job(2)])]),
        workload("a large job", vec![Op::Turn], vec![push(large)]),
        workload("more than one frame holds", vec![Op::Turn], vec![Op::Push(vec![large, large, large])]),
        workload("a chosen id, twice", vec![Op::Turn], vec![push(named(0, 1)), push(named(0, 1))]),
        workload("a key with another body", waiting(PushOp { key: Some(1), ..job(0) }), {
            vec![push(PushOp { key: Some(1), variant: 1, ..job(0) }), push(job(0))]
        }),
        workload("a delayed job", vec![Op::Turn], vec![push(PushOp { delay_ms: 500, ..job(0) }), Op::Wait(600)]),
        workload("a job that expires", vec![Op::Turn], {
            vec![push(PushOp { expires_ms: Some(100), ..job(0) }), Op::Wait(200)]
        }),
        workload("a seal after a push", vec![Op::Turn], vec![push(job(0)), Op::Wait(20)]),
    ]
}

fn workers() -> Vec<Workload> {
    let last = PushOp { max_attempts: Some(1), ..job(0) };
    let more = PushOp { max_attempts: Some(3), ..job(0) };
    let workload = |name, before, ops| Workload { name, before, ops };
    vec![
        workload("a job is handed out", waiting(job(0)), vec![Op::PoolUp(0)]),
        workload("a job completes", running(job(0)), vec![done(vec![])]),
        workload(
            "completed and repeated",
            running(job(0)),
            vec![done(vec![]), Op::Late(0, How::Done { follow_ups: vec![] })],
        ),
        workload("completed with a follow-up job", running(job(0)), vec![done(vec![job(1)])]),
        workload("completed with three", running(job(0)), vec![done(vec![job(1), named(2, 3), job(0)])]),
        workload("a follow-up job is refused", running(more), vec![done(vec![PushOp { bytes: 5000, ..job(1) }])]),
        workload("completed beside a push", running(job(0)), vec![done(vec![]), push(job(1))]),
        workload("failed, to be retried", running(more), vec![finish(How::Fail { killed: false }), Op::Wait(600)]),
        workload("killed, to be retried", running(more), vec![finish(How::Fail { killed: true }), Op::Wait(60)]),
        workload("failed for the last time", running(last), vec![finish(How::Fail { killed: false })]),
        workload("dead at once", running(more), vec![finish(How::Dead)]),
        workload("dead at once, with a chosen id", running(named(0, 1)), vec![finish(How::Dead)]),
        workload("cancelled by its worker", running(more), vec![finish(How::Cancel)]),
        workload(
            "given back for a pause",
            running(job(0)),
            vec![finish(How::Defer { after_ms: Some(50) }), Op::Wait(60)],
        ),
        workload("interrupted", running(job(0)), vec![finish(How::Interrupted)]),
        workload("not started", running(job(0)), vec![finish(How::NotStarted)]),
        workload("lost with the helper", running(job(0)), vec![finish(How::HostDeath)]),
        workload("lost once too often", lost_twice(), vec![finish(How::HostDeath)]),
        workload("a pool has no worker any more", waiting(job(0)), vec![Op::PoolUp(0), Op::PoolNotUp(0)]),
        workload("died with the process", running(job(0)), vec![Op::Crash(None, vec![])]),
        workload("died with the process once too often", twice_died(), vec![Op::Crash(None, vec![])]),
    ]
}

/// A job runs that died with its process twice.
fn twice_died() -> Vec<Op> {
    let mut ops = running(job(0));
    for _ in 0..2 {
        ops.extend([Op::Crash(None, vec![]), Op::PoolUp(0), Op::Turn, Op::Take(0)]);
    }
    ops
}

fn operators() -> Vec<Workload> {
    let mut old_dead = dead(2);
    old_dead.push(Op::Wait(DEAD_RETAIN_MS));
    let mut draining = running(job(0));
    draining.extend([Op::Reload(OTHER_VERSION), Op::PoolUp(3), Op::Turn]);
    let mut many_dead = Vec::new();
    for _ in 0..3 {
        many_dead.extend(dead(2));
    }
    let workload = |name, before, ops| Workload { name, before, ops };
    vec![
        workload("cancelled", waiting(job(0)), vec![Op::Act(0, 1)]),
        workload("cancelled while it runs", running(job(0)), vec![Op::Act(0, 1), done(vec![job(1)])]),
        workload("cancelled while it waits for a worker", handed(), vec![Op::Act(0, 1), Op::PoolNotUp(0)]),
        workload("a delayed job is run now", waiting(PushOp { delay_ms: 9000, ..job(0) }), vec![Op::Act(0, 0)]),
        workload("redriven", dead(2), vec![Op::Act(0, 0)]),
        workload("discarded", dead(2), vec![Op::Act(0, 2)]),
        workload("dead for too long", old_dead, vec![Op::Turn]),
        workload("too many dead", many_dead, vec![Op::Reload(FEW_DEAD)]),
        workload("purged", waiting(job(1)), vec![push(job(1)), Op::Purge(1)]),
        workload("another version", running(job(0)), vec![Op::Reload(OTHER_VERSION), Op::PoolUp(3)]),
        workload("the old version ends", draining, vec![finish(How::Interrupted), Op::PoolEnds(0)]),
        workload("a type less", waiting(job(2)), vec![Op::Reload(WITHOUT_C)]),
        workload("a type less and back", waiting(job(2)), vec![Op::Reload(WITHOUT_C), Op::Reload(0)]),
        workload("a job for a version to come", running(job(0)), {
            vec![push(needy()), Op::Reload(OTHER_VERSION), Op::PoolUp(3)]
        }),
        workload("a version that is needed comes again", held(), vec![Op::Reload(OTHER_VERSION), Op::PoolUp(5)]),
        workload("held, then purged", held(), vec![push(needy()), Op::Purge(0)]),
        workload("held, then started", held(), vec![Op::Act(0, 1), Op::Crash(None, vec![]), Op::Reload(OTHER_VERSION)]),
        workload("stopped", running(job(0)), vec![Op::Stop]),
        workload("stopped and started", waiting(job(0)), vec![Op::Stop, Op::Turn]),
    ]
}

fn segments() -> Vec<Workload> {
    let large = PushOp { bytes: 900, ..job(0) };
    let mut half_cleaned = worn();
    half_cleaned.extend([Op::Clean, Op::Turn]);
    let mut full = nearly_full();
    full.push(Op::Space(Some(0)));
    let mut run_full = running(job(0));
    run_full.extend([Op::Space(Some(0)), push(large), Op::Turn]);
    let workload = |name, before, ops| Workload { name, before, ops };
    vec![
        workload("the next segment is made", waiting(job(0)), vec![Op::MakeSegment]),
        workload("a segment ends", nearly_full(), vec![push(large), push(large)]),
        workload("a segment ends and the next is made", nearly_full(), vec![push(large), push(large), Op::MakeSegment]),
        workload("a portion is restated", worn(), vec![Op::Clean]),
        workload("the head moves", half_cleaned, vec![Op::Clean, Op::Clean, Op::Clean]),
        workload("a file is taken again", worn(), vec![Op::Clean, Op::Clean, Op::MakeSegment]),
        workload("cleaned, then started", worn(), vec![Op::Clean, Op::Crash(None, vec![])]),
        workload("the last segment, and no space", full, vec![push(large), push(large), push(large)]),
        workload("completed with no space", run_full, vec![done(vec![])]),
    ]
}
