//! Stories in the world of the small workloads, of versions and their pools.

use crate::simulate::op::BREAKS;
use crate::simulate::plan::WATCHED;
use crate::simulate::world::World;
use crate::simulate::{Op, PushOp};

/// Operations in the world of the small workloads: `a`, `b` and `c` have the first three pools.
fn small(ops: &[Op]) {
    let mut world = World::small();
    for op in ops {
        world.step(op).unwrap_or_else(|failure| panic!("{failure}"));
    }
    world.settle().unwrap_or_else(|failure| panic!("{failure}"));
}

/// A config in which `a` has this version, and is watched.
fn watched(label: u8) -> Op {
    Op::Reload(WATCHED | label)
}

#[test]
fn a_ramp_goes_on_when_an_older_version_that_was_kept_panics() {
    let up = [Op::PoolUp(0), Op::PoolUp(1), Op::PoolUp(2), Op::Turn];
    let begun = [watched(0), watched(2), Op::PoolUp(3), Op::Turn, watched(3), Op::PoolUp(4), Op::Turn];
    // The first of five, which is the one of v0.
    small(&[&up[..], &begun, &[Op::PoolEnds(BREAKS / 5 * 5 + 5), Op::Turn]].concat());
}

/// v2 took over from v0, and was on probation when the process ended: both start again, v0 as the way back.
fn on_probation(then: &[Op]) -> Vec<Op> {
    let before = [Op::PoolUp(0), Op::Turn, watched(0), watched(2), Op::PoolUp(3), Op::Turn, Op::Crash(None, vec![])];
    [&before[..], then].concat()
}

#[test]
fn a_version_that_waits_for_one_on_probation_starts_when_that_does_not_come_up() {
    small(&on_probation(&[Op::PoolUp(0), Op::Turn, watched(3), Op::PoolNotUp(1), Op::Turn]));
}

#[test]
fn a_version_that_waits_for_one_that_is_gone_back_from_does_not_start() {
    const ROLLBACK: u8 = 4;
    small(&on_probation(&[Op::PoolUp(0), Op::Turn, watched(3), Op::Say(ROLLBACK), Op::Turn]));
}

#[test]
fn a_way_back_that_is_asked_for_is_not_started_a_second_time() {
    for then in [Op::PoolNotUp(1), Op::PoolUp(1)] {
        small(&on_probation(&[watched(0), Op::PoolUp(0), Op::Turn, then, Op::Turn]));
    }
}

#[test]
fn a_type_whose_pool_cannot_be_made_is_served_once_one_can() {
    let push = Op::Push(vec![PushOp::default()]);
    // At an opening; in the place of one that panics at once; and of one that did the work for a while.
    let none = Op::PoolNotUp(BREAKS | 3);
    small(&[none.clone(), Op::Crash(None, vec![]), push.clone(), Op::Turn, Op::Wait(10_000), Op::Turn]);
    for lived in [0, 5000] {
        let all = (0..3).map(|of| Op::PoolEnds(BREAKS / 3 * 3 + of));
        let ops = [Op::PoolUp(0), Op::Turn, Op::Wait(lived), none.clone()].into_iter().chain(all);
        small(&ops.chain([push.clone(), Op::Turn, Op::Wait(5000), Op::Turn]).collect::<Vec<_>>());
    }
}

#[test]
fn a_version_that_panics_at_once_does_not_hold_up_the_one_that_starts_beside_it() {
    let mut world = World::small();
    for op in [Op::PoolUp(0), Op::Turn, watched(3), Op::PoolEnds(BREAKS / 4 * 4), Op::Turn] {
        world.step(&op).unwrap_or_else(|failure| panic!("{failure}"));
    }
    // Those of `a`, `b` and `c`, and the one that starts; none was started again.
    assert_eq!(world.hands.all().len(), 4);
    for op in [Op::PoolUp(3), Op::Turn] {
        world.step(&op).unwrap_or_else(|failure| panic!("{failure}"));
    }
    assert!(world.hands.all().iter().any(|hand| &*hand.label == "v3" && hand.up && !hand.draining));
    world.settle().unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn nothing_spins_while_no_thread_is_to_be_had_for_a_pool_of_none() {
    let mut world = World::small();
    let calm = [Op::Turn, Op::Wait(60_000)];
    let ops = [Op::PoolUp(0), Op::PoolUp(1), Op::PoolUp(2)].into_iter().chain((0..8).flat_map(|_| calm.clone()));
    let push = Op::Push(vec![PushOp { of: 2, ..PushOp::default() }]);
    let fails = [Op::PoolNotUp(BREAKS | 3), push, Op::Turn, Op::Wait(20), Op::Turn];
    for op in ops.chain(fails) {
        world.step(&op).unwrap_or_else(|failure| panic!("{failure}"));
    }
    let idle = |world: &mut World| world.engine.as_mut().map(|engine| engine.idle_for()).unwrap_or_default();
    assert!(idle(&mut world) >= std::time::Duration::from_millis(500), "{:?}", idle(&mut world));
    world.settle().unwrap_or_else(|failure| panic!("{failure}"));
}
