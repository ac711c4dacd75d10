//! Stories of purges, and of chosen ids: one that two jobs have, and one that cannot be read.

use super::{holds, job};
use crate::simulate::disk::SimDisk;
use crate::simulate::world::World;
use crate::simulate::{How, Op, PushOp};

/// Whoever asks for it means the job that the purge ends, by an id that another one has, too.
#[test]
fn a_job_is_purged_and_its_namesake_of_another_type_cancelled_in_one_turn() {
    let ops = [
        Op::Push(vec![
            job([2, 4, 1], [None, Some(2)], 0, Some(1756), Some(1), 1),
            job([1, 5, 1], [Some(1), Some(0)], 64990, None, None, 275),
        ]),
        Op::Space(Some(0)),
        Op::Push(vec![job([0, 5, 0], [Some(3), Some(2)], 62999, None, None, 150)]),
        Op::Reload(40),
        Op::Push(vec![
            job([0, 5, 1], [None, None], 2561, None, Some(1), 262),
            job([2, 0, 1], [Some(2), Some(0)], 915, None, None, 102),
            PushOp { min: Some(135), ..job([0, 0, 0], [Some(0), None], 0, Some(615), None, 216) },
        ]),
        Op::Push(vec![
            job([2, 2, 0], [None, Some(0)], 0, None, None, 289),
            job([2, 1, 0], [Some(1), Some(4)], 0, None, Some(2), 101),
        ]),
        Op::Reload(86),
        Op::Push(vec![
            PushOp { min: Some(63), ..job([1, 1, 1], [None, Some(4)], 0, None, None, 373) },
            job([0, 7, 1], [Some(5), None], 0, None, None, 395),
        ]),
        Op::Push(vec![
            job([0, 5, 1], [Some(2), None], 0, None, None, 21),
            job([1, 5, 0], [None, Some(3)], 0, None, None, 2),
        ]),
        Op::Push(vec![
            job([2, 0, 1], [Some(3), Some(5)], 0, None, Some(1), 55),
            job([2, 5, 1], [None, None], 0, None, None, 393),
        ]),
        Op::Push(vec![
            job([0, 4, 0], [Some(2), None], 0, None, None, 309),
            PushOp { min: Some(127), ..job([1, 1, 0], [None, None], 1951, None, Some(1), 312) },
        ]),
        Op::Push(vec![
            job([0, 5, 0], [Some(3), Some(2)], 2777, None, None, 197),
            job([0, 5, 0], [None, Some(4)], 0, None, Some(2), 145),
            PushOp { min: Some(151), ..job([1, 0, 1], [None, Some(2)], 370, None, None, 50) },
        ]),
        Op::Purge(2),
        Op::Act(50915, 1),
    ];
    holds(5_280_117, &ops);
}

/// Both waited for room.
#[test]
fn jobs_given_back_and_purged_in_one_turn() {
    let ops = [
        Op::Push(vec![
            job([1, 5, 0], [None, None], 0, None, Some(3), 374),
            job([0, 5, 0], [None, None], 0, None, None, 378),
            job([0, 8, 1], [None, None], 0, None, Some(1), 36),
        ]),
        Op::Turn,
        Op::PoolUp(33290),
        Op::Turn,
        Op::Push(vec![
            job([2, 2, 0], [None, None], 0, None, Some(2), 357),
            job([1, 8, 0], [None, None], 0, None, None, 82),
            job([0, 5, 0], [None, None], 0, None, None, 114),
        ]),
        Op::Stop,
        Op::Crash(Some(18229792787130222602), vec![]),
        Op::PoolUp(20136),
        Op::Redrive(0, 147),
        Op::Push(vec![
            job([1, 5, 1], [None, None], 0, None, Some(3), 180),
            job([3, 9, 1], [None, None], 2947, None, None, 72),
            job([1, 5, 1], [None, None], 0, None, None, 256),
        ]),
        Op::Push(vec![job([1, 5, 1], [None, None], 0, Some(1529), None, 125)]),
        Op::Turn,
        Op::PoolUp(49807),
        Op::Space(Some(0)),
        Op::Reload(187),
        Op::Push(vec![
            job([0, 2, 1], [None, None], 0, None, Some(1), 221),
            job([2, 5, 0], [None, None], 360, None, None, 97),
        ]),
        Op::Turn,
        Op::Push(vec![job([2, 6, 1], [None, None], 0, Some(5223), Some(1), 195)]),
        Op::Turn,
        Op::PoolNotUp(39674),
        Op::PoolNotUp(34125),
        Op::Purge(1),
    ];
    holds(900_266_150, &ops);
}

/// The frame that says so may be there all the same: it has the id that the job would have without a chosen one.
#[test]
fn a_job_dies_when_its_chosen_id_can_no_more_be_read() {
    let up = [Op::PoolUp(0), Op::PoolUp(1), Op::PoolUp(2)];
    let push = Op::Push(vec![PushOp { id: Some(1), ..PushOp::default() }]);
    // What is there is written, and then read.
    let ops = [push, Op::Turn, Op::Turn, Op::Take(0), Op::Finish(0, How::Dead), Op::Fail(1, 1), Op::Turn];
    let mut told = 0;
    for seed in 0..32 {
        let mut world = World::small();
        world.disk = SimDisk::new(seed);
        for op in up.iter().chain(&ops) {
            world.step(op).unwrap_or_else(|failure| panic!("SEED={seed}: {failure}"));
        }
        told += usize::from(world.model.jobs.iter().any(|known| known.summary_of.is_some() && known.born.is_some()));
        world.settle().unwrap_or_else(|failure| panic!("SEED={seed}: {failure}"));
    }
    assert!((2..31).contains(&told), "{told} of 32 were told of");
}
