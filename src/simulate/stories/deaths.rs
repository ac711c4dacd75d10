//! Stories of jobs that die in a turn that fails.

use super::{How, Op, PushOp, holds, job};

/// A death and its summary, then the discarding of one of too many dead jobs: all in a turn whose commit failed, and all on disk.
#[test]
fn a_job_that_died_in_a_turn_that_failed_and_left_in_it_as_one_of_too_many_is_told_of() {
    let failing = [
        Op::Jump(-3600),
        Op::Take(27848),
        Op::Turn,
        Op::Finish(
            11594,
            How::Done {
                follow_ups: vec![
                    job([0, 7, 1], [Some(5), Some(2)], 0, None, Some(1), 191),
                    job([0, 6, 1], [Some(2), None], 0, None, Some(1), 213),
                    job([2, 4, 0], [None, None], 0, None, None, 59),
                ],
            },
        ),
        Op::Turn,
        Op::Fail(14, 2),
        Op::Push(vec![
            job([0, 4, 0], [None, None], 0, Some(5750), None, 109),
            job([0, 5, 1], [None, Some(4)], 0, None, Some(2), 299),
            job([1, 5, 0], [None, Some(3)], 0, None, Some(2), 101),
        ]),
        Op::PoolUp(7266),
        Op::Push(vec![
            job([2, 5, 0], [Some(4), Some(0)], 0, None, Some(3), 274),
            job([0, 5, 1], [Some(1), Some(0)], 0, None, None, 243),
            PushOp { min: Some(206), ..job([1, 4, 1], [None, Some(2)], 2126, None, None, 107) },
        ]),
        Op::Wait(2919),
        Op::Turn,
        Op::Push(vec![
            job([0, 5, 0], [Some(2), None], 0, None, None, 95),
            job([0, 5, 1], [None, None], 0, None, None, 202),
            job([1, 5, 1], [None, None], 0, None, Some(3), 225),
        ]),
        Op::Turn,
        Op::PoolUp(38001),
        Op::Turn,
        Op::Fail(7, 0),
        Op::Take(50002),
        Op::Take(36343),
        Op::Finish(48193, How::HostDeath),
        Op::Turn,
    ];
    holds(9_200_298_901, &[before(), failing.to_vec()].concat());
}

/// A job of which two processes ended, which runs again, and others beside it.
fn before() -> Vec<Op> {
    vec![
        Op::Push(vec![job([1, 6, 0], [Some(3), Some(5)], 0, None, Some(2), 263)]),
        Op::PoolUp(4819),
        Op::PoolUp(22356),
        Op::Push(vec![
            job([0, 5, 1], [Some(1), None], 2426, None, None, 322),
            job([1, 9, 1], [None, None], 0, None, None, 9),
        ]),
        Op::Turn,
        Op::Push(vec![
            job([0, 5, 1], [Some(2), Some(5)], 0, None, Some(1), 111),
            job([0, 5, 0], [Some(5), None], 1660, None, None, 325),
            job([1, 4, 1], [Some(5), None], 0, None, None, 166),
        ]),
        Op::Take(33713),
        Op::Take(31949),
        Op::Take(56595),
        Op::Push(vec![
            job([0, 7, 1], [None, Some(1)], 0, None, Some(1), 209),
            PushOp { min: Some(56), ..job([1, 5, 0], [None, None], 0, None, None, 65) },
        ]),
        Op::MakeSegment,
        Op::Fail(42, 0),
        Op::Push(vec![
            job([0, 5, 1], [None, None], 0, None, None, 103),
            job([0, 5, 1], [None, Some(4)], 2019, Some(5124), Some(2), 9),
            job([1, 2, 1], [Some(3), Some(1)], 0, None, Some(3), 50),
        ]),
        Op::Finish(53235, How::Fail { killed: false }),
        Op::Finish(4878, How::Done { follow_ups: vec![] }),
        Op::Turn,
        Op::Finish(23333, How::Dead),
        Op::Take(50192),
        Op::Finish(19834, How::Done { follow_ups: vec![] }),
        Op::Take(9008),
        Op::Finish(37124, How::Fail { killed: true }),
        Op::Turn,
        Op::Take(55995),
        Op::Push(vec![
            job([0, 7, 1], [None, None], 302, None, None, 315),
            PushOp { min: Some(231), ..job([0, 7, 0], [None, Some(0)], 0, None, None, 51) },
            job([0, 5, 1], [None, None], 0, None, None, 22),
        ]),
        Op::Finish(30310, How::Fail { killed: true }),
    ]
}
