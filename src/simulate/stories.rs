//! Worlds in which something once did not hold, or in which the model was wrong about it, told by their operations.

mod deaths;
mod purges;
mod small;

use super::world::World;
use super::{How, Op, PushOp, run};

/// A job: type, priority and body; id and key; and the rest.
fn job(
    [of, priority, variant]: [u8; 3],
    [id, key]: [Option<u8>; 2],
    delay_ms: u16,
    expires_ms: Option<u16>,
    max_attempts: Option<u8>,
    bytes: u16,
) -> PushOp {
    PushOp { of, priority, id, key, variant, delay_ms, expires_ms, max_attempts, bytes, min: None }
}

fn holds(seed: u64, ops: &[Op]) {
    run(seed, ops).unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn a_job_given_back_and_cancelled_in_the_turn_whose_sync_failed() {
    let ops = [
        Op::Push(vec![
            job([1, 5, 1], [None, None], 1810, Some(1083), None, 256),
            job([1, 5, 0], [None, Some(2)], 0, Some(828), None, 231),
        ]),
        Op::Push(vec![
            job([2, 8, 1], [None, None], 0, None, Some(1), 275),
            job([1, 5, 1], [Some(0), None], 0, None, None, 206),
        ]),
        Op::PoolUp(19451),
        Op::Push(vec![
            job([2, 5, 0], [None, None], 0, None, None, 191),
            job([2, 5, 0], [Some(3), None], 1842, None, None, 332),
            job([0, 2, 0], [None, None], 2089, None, Some(1), 264),
        ]),
        Op::Turn,
        Op::PoolNotUp(9419),
        Op::Act(43410, 1),
        Op::Fail(1, 0),
        Op::Turn,
    ];
    holds(1_770_802_080, &ops);
}

#[test]
fn a_follow_up_lost_with_its_first_completion_is_not_missed_after_a_later_one() {
    let ops = [
        Op::Push(vec![
            job([1, 8, 1], [None, None], 0, None, None, 53),
            job([0, 5, 0], [None, None], 0, Some(3883), None, 11),
            job([1, 5, 0], [None, None], 0, None, None, 5000),
        ]),
        Op::Reload(99),
        Op::PoolUp(57751),
        Op::Reload(63),
        Op::Fail(2, 1),
        Op::Take(6399),
        Op::Push(vec![
            job([2, 5, 1], [None, None], 0, None, Some(2), 160),
            job([2, 5, 0], [None, None], 0, None, Some(1), 360),
            job([2, 9, 0], [None, None], 0, None, None, 288),
        ]),
        Op::Turn,
        Op::Finish(6705, How::Done { follow_ups: vec![job([0, 7, 1], [None, None], 0, None, None, 318)] }),
        Op::Turn,
        Op::PoolUp(61937),
        Op::Turn,
        Op::Take(22298),
        Op::Finish(7428, How::Done { follow_ups: vec![] }),
        Op::Turn,
        Op::Crash(None, vec![47, 62]),
    ];
    holds(7_778_158, &ops);
}

#[test]
fn a_namesake_redriven_and_cancelled_in_one_turn() {
    let ops = [
        Op::PoolUp(23400),
        Op::Push(vec![
            job([3, 5, 1], [None, Some(2)], 0, None, None, 89),
            job([0, 5, 1], [Some(0), Some(0)], 0, None, None, 114),
            job([2, 5, 0], [None, Some(3)], 0, None, None, 372),
        ]),
        Op::Turn,
        Op::Take(51222),
        Op::Finish(31948, How::Fail { killed: false }),
        Op::Turn,
        Op::Act(13329, 0),
        Op::Act(24105, 1),
    ];
    holds(31_113_411, &ops);
}

#[test]
fn a_retry_and_a_purge_that_wait_for_room_together() {
    let ops = [
        Op::Push(vec![
            job([2, 5, 0], [None, None], 0, Some(3968), None, 93),
            job([0, 5, 1], [None, None], 0, Some(3957), Some(2), 81),
        ]),
        Op::Push(vec![job([0, 2, 0], [None, None], 0, None, None, 224)]),
        Op::Push(vec![job([1, 9, 0], [None, None], 1397, None, None, 156)]),
        Op::Push(vec![
            job([0, 1, 0], [None, None], 0, None, None, 260),
            job([0, 5, 0], [None, None], 2532, None, Some(3), 341),
            job([2, 9, 0], [None, None], 0, None, None, 70),
        ]),
        Op::Push(vec![
            job([1, 5, 0], [None, None], 0, None, None, 295),
            job([0, 3, 0], [None, None], 0, None, Some(1), 308),
        ]),
        Op::Push(vec![
            job([2, 0, 0], [None, None], 0, None, None, 20),
            job([0, 3, 0], [None, None], 0, None, Some(2), 86),
            job([1, 4, 0], [None, None], 0, None, None, 188),
        ]),
        Op::Push(vec![
            job([0, 5, 1], [None, None], 0, None, Some(2), 66),
            job([3, 0, 0], [None, None], 1790, None, None, 178),
            job([1, 5, 1], [None, None], 0, None, None, 88),
        ]),
        Op::Push(vec![
            job([2, 5, 1], [None, None], 0, None, None, 327),
            job([0, 1, 1], [None, None], 0, None, None, 187),
        ]),
        Op::Push(vec![
            job([1, 5, 0], [None, None], 0, None, None, 303),
            job([2, 5, 1], [None, None], 2328, None, None, 276),
        ]),
        Op::Push(vec![job([2, 0, 0], [None, None], 0, None, None, 347)]),
        Op::Reload(111),
        Op::Space(Some(0)),
        Op::Push(vec![
            job([2, 5, 1], [None, None], 2379, None, None, 57),
            job([1, 0, 0], [None, None], 129, None, None, 43),
            job([2, 4, 0], [None, None], 0, None, None, 5000),
        ]),
        Op::Stop,
        Op::Crash(Some(1100068012841950109), vec![110, 42]),
        Op::Push(vec![
            job([2, 6, 0], [None, None], 1153, None, None, 223),
            job([0, 3, 0], [None, None], 2037, None, None, 153),
        ]),
        Op::Act(44838, 0),
        Op::Purge(1),
    ];
    holds(38_893_655, &ops);
}

#[test]
fn d9_the_second_half_of_the_last_segment_is_not_for_new_jobs() {
    let mut world = World::small();
    let push = |jobs| Op::Push(vec![job([1, 5, 0], [None, None], 0, None, None, 300); jobs]);
    // Whether another segment can be made is not known when the last jobs come: nobody tried.
    for op in [push(17), Op::Turn, Op::Space(Some(0)), push(2), Op::Turn] {
        world.step(&op).unwrap_or_else(|failure| panic!("{failure}"));
    }
    assert_eq!(world.figures.get("refused", "disk full"), 2, "{}", world.figures);
}

/// A crowd runs when the process ends, and once more, and once more: it dies at the next opening, in more than a frame has room
/// for. Wherever power is lost in that opening, each death is told of.
#[test]
fn deaths_at_an_opening_that_is_cut_are_told_of() {
    let run = [Op::PoolUp(0), Op::Turn, Op::Turn];
    let mut ops = vec![Op::Push(vec![job([0, 5, 0], [None, None], 0, None, None, 10); 30])];
    for _ in 0..2 {
        ops.extend(run.clone().into_iter().chain([Op::Crash(None, vec![])]));
    }
    ops.extend(run);
    for cut in 0..40 {
        holds(1, &[&ops[..], &[Op::Crash(Some(7), vec![cut])]].concat());
    }
}

#[test]
fn a_dead_job_that_makes_room_for_another_at_once_was_not_made_up_for() {
    let ops = [
        Op::Reload(29),
        Op::PoolUp(41976),
        Op::Push(vec![
            job([0, 5, 1], [None, None], 0, None, Some(1), 284),
            job([0, 2, 1], [None, None], 0, None, None, 228),
            job([1, 5, 0], [None, None], 0, None, Some(3), 103),
        ]),
        Op::Push(vec![
            job([0, 4, 1], [None, None], 0, None, Some(2), 161),
            job([1, 5, 0], [None, None], 0, None, Some(1), 5000),
        ]),
        Op::PoolUp(9731),
        Op::Turn,
        Op::Take(19500),
        Op::Push(vec![
            job([0, 5, 0], [None, None], 0, None, None, 275),
            job([0, 5, 1], [None, None], 0, None, None, 20),
            job([0, 5, 1], [None, None], 0, Some(3329), None, 149),
        ]),
        Op::Push(vec![
            job([1, 5, 0], [None, None], 0, None, Some(2), 226),
            job([2, 8, 0], [None, None], 0, Some(3093), None, 28),
        ]),
        Op::Take(49588),
        Op::Take(42289),
        Op::Take(196),
        Op::Turn,
        Op::Finish(
            8680,
            How::Done {
                follow_ups: vec![
                    job([0, 5, 0], [None, None], 0, None, None, 187),
                    job([1, 5, 0], [None, None], 0, None, None, 277),
                    job([1, 8, 0], [None, None], 0, None, None, 367),
                ],
            },
        ),
        Op::Finish(47149, How::Done { follow_ups: vec![] }),
        Op::Finish(17863, How::HostDeath),
        Op::Take(7919),
        Op::PoolUp(44342),
        Op::Take(64876),
        Op::Finish(28753, How::Done { follow_ups: vec![] }),
        Op::Finish(26697, How::Done { follow_ups: vec![] }),
        Op::Finish(2923, How::Done { follow_ups: vec![] }),
        Op::Take(28194),
        Op::Finish(1091, How::Fail { killed: false }),
        Op::Jump(3600),
        Op::Redrive(2, 104),
        Op::Take(6897),
        Op::Finish(
            18244,
            How::Done {
                follow_ups: vec![
                    job([2, 5, 1], [None, None], 2202, None, None, 383),
                    job([1, 5, 1], [None, None], 0, None, None, 5000),
                ],
            },
        ),
        Op::Take(42892),
        Op::Finish(28928, How::Fail { killed: false }),
        Op::Take(32265),
        Op::Finish(24552, How::Fail { killed: false }),
    ];
    holds(76_540_048_144_568, &ops);
}

#[test]
fn a_version_whose_way_back_is_cut_off_in_a_stall_goes_on_with_the_work() {
    let ops = [
        Op::Push(vec![
            job([0, 5, 0], [None, Some(5)], 0, None, None, 360),
            job([0, 3, 0], [None, None], 0, None, None, 289),
        ]),
        Op::Reload(190),
        Op::Push(vec![
            job([2, 5, 0], [Some(3), Some(4)], 0, None, None, 151),
            job([0, 5, 0], [Some(1), None], 0, None, None, 178),
            job([1, 8, 1], [None, None], 0, None, None, 243),
        ]),
        Op::Push(vec![
            job([2, 5, 1], [None, None], 0, None, Some(2), 85),
            job([0, 5, 1], [None, Some(2)], 0, None, Some(3), 15),
        ]),
        Op::PoolUp(3531),
        Op::Reload(146),
        Op::PoolUp(38596),
        Op::Turn,
        Op::PoolUp(46023),
        Op::Take(19716),
        Op::Take(56368),
        Op::Take(44149),
        Op::Finish(
            13588,
            How::Done {
                follow_ups: vec![
                    job([2, 7, 1], [None, None], 0, None, Some(1), 218),
                    job([2, 3, 1], [Some(5), Some(3)], 0, None, None, 116),
                ],
            },
        ),
        Op::Stall(54355),
        Op::Turn,
        Op::Finish(16752, How::Fail { killed: true }),
        Op::Wait(2553),
        Op::Finish(40055, How::Cancel),
        Op::Take(3675),
        Op::Finish(54071, How::Fail { killed: false }),
        Op::Turn,
        Op::Take(16581),
        Op::PoolNotUp(47731),
        Op::Finish(14877, How::Fail { killed: false }),
        Op::Turn,
        Op::Take(48576),
        Op::Take(26339),
        Op::Finish(43176, How::Dead),
        Op::Finish(41716, How::Fail { killed: false }),
    ];
    holds(151_306_386_794_815, &ops);
}

/// The trial begins in the turn whose sync fails: nothing that the model looks at has it.
#[test]
fn a_failure_made_up_for_in_the_turn_in_which_a_trial_begins_and_whose_sync_fails() {
    let ops = [
        Op::Fail(32, 2),
        Op::Push(vec![job([1, 5, 0], [Some(5), Some(2)], 0, None, None, 257)]),
        Op::Turn,
        Op::Wait(1298),
        Op::Turn,
        Op::PoolUp(433),
        Op::PoolUp(4768),
        Op::Reload(255),
        Op::Push(vec![
            job([1, 5, 0], [None, None], 0, Some(4489), None, 315),
            job([2, 5, 0], [Some(0), None], 0, None, Some(1), 147),
            job([0, 5, 1], [Some(4), None], 2069, None, None, 69),
        ]),
        Op::MakeSegment,
        Op::Reload(151),
        Op::Take(57700),
        Op::PoolUp(42950),
        Op::Finish(26686, How::Done { follow_ups: vec![job([3, 6, 0], [Some(4), None], 0, None, None, 91)] }),
        Op::Take(2371),
        Op::Finish(63014, How::Done { follow_ups: vec![job([0, 5, 1], [None, Some(5)], 0, None, None, 265)] }),
        Op::Push(vec![
            job([0, 8, 0], [Some(4), None], 0, Some(5342), None, 319),
            job([1, 8, 1], [Some(3), None], 0, None, Some(3), 170),
            job([2, 2, 1], [None, Some(5)], 0, Some(3222), None, 58),
        ]),
        Op::Reload(19),
    ];
    holds(211_757_807_378_952, &ops);
}

#[test]
fn a_completion_refused_since_nothing_could_be_read_and_the_job_retried_and_run_again_in_one_turn() {
    let ops = [
        Op::Fail(36, 0),
        Op::Push(vec![PushOp { min: Some(237), ..job([0, 2, 0], [None, None], 0, None, None, 331) }]),
        Op::Push(vec![
            job([0, 5, 0], [None, Some(4)], 0, None, None, 313),
            job([2, 5, 1], [None, Some(1)], 0, None, None, 319),
            job([1, 9, 1], [None, Some(0)], 0, None, None, 46),
        ]),
        Op::Turn,
        Op::Push(vec![
            PushOp { min: Some(247), ..job([2, 2, 0], [None, None], 0, None, None, 53) },
            job([0, 5, 0], [Some(4), Some(2)], 0, None, None, 104),
            job([0, 3, 1], [Some(3), Some(5)], 0, Some(5773), None, 197),
        ]),
        Op::Act(3967, 2),
        Op::Act(42272, 1),
        Op::Stop,
        Op::PoolUp(13079),
        Op::Push(vec![
            PushOp { min: Some(57), ..job([0, 5, 0], [None, None], 1626, None, None, 131) },
            PushOp { min: Some(6), ..job([0, 9, 1], [Some(5), Some(1)], 1784, Some(3490), Some(2), 394) },
            job([1, 3, 0], [None, None], 0, Some(3147), None, 233),
        ]),
        Op::Turn,
        Op::Take(32632),
        Op::Finish(8144, How::Done { follow_ups: vec![job([1, 5, 0], [None, Some(1)], 0, None, None, 164)] }),
        Op::Act(8518, 0),
    ];
    holds(17_634_044_072_491, &ops);
}

#[test]
fn what_starts_goes_on_when_the_version_that_took_over_is_withdrawn() {
    let ops = [Op::PoolUp(42628), Op::Reload(52), Op::PoolUp(30668), Op::Reload(254), Op::Say(163)];
    holds(1_795_742_483_676, &ops);
}

#[test]
fn who_waits_for_a_reload_is_told_though_a_way_back_panicked() {
    let ops = [
        Op::Reload(88),
        Op::PoolUp(6531),
        Op::Push(vec![
            job([1, 7, 0], [Some(4), None], 0, None, Some(1), 181),
            job([1, 5, 1], [Some(0), None], 0, Some(5013), None, 257),
            job([0, 6, 0], [None, Some(1)], 0, None, None, 212),
        ]),
        Op::Turn,
        Op::PoolNotUp(48837),
        Op::PoolUp(26719),
        Op::PoolNotUp(46646),
        Op::PoolEnds(59148),
    ];
    holds(1_795_742_489_304, &ops);
}

#[test]
fn a_trial_is_not_one_beside_a_version_whose_workers_panicked() {
    let ops = [
        Op::Reload(152),
        Op::Crash(Some(821069673843939824), vec![]),
        Op::PoolUp(17937),
        Op::Reload(118),
        Op::Reload(21),
        Op::PoolUp(32569),
        Op::PoolEnds(51045),
        Op::Reload(145),
        Op::PoolNotUp(6382),
    ];
    holds(4_004_904, &ops);
}

#[test]
fn a_panic_takes_no_jobs_from_another_pool_of_its_version() {
    let ops = [
        Op::Reload(251),
        Op::Push(vec![job([0, 5, 0], [None, None], 0, None, None, 378)]),
        Op::PoolUp(49692),
        Op::Reload(114),
        Op::Take(42578),
        Op::PoolUp(31199),
        Op::Push(vec![job([0, 5, 0], [None, None], 460, None, None, 192)]),
        Op::Reload(182),
        Op::Wait(4333),
        Op::Push(vec![
            job([0, 5, 1], [None, None], 0, None, Some(1), 191),
            job([0, 4, 1], [None, None], 0, None, Some(2), 338),
        ]),
        Op::Reload(81),
        Op::PoolUp(56635),
        Op::Turn,
        Op::PoolEnds(64883),
    ];
    holds(4_001_472, &ops);
}

#[test]
fn a_ramp_goes_on_when_a_way_back_of_another_version_does_not_come_up() {
    let ops = [
        Op::PoolUp(20319),
        Op::Reload(152),
        Op::PoolUp(48155),
        Op::Stop,
        Op::PoolUp(58229),
        Op::Reload(29),
        Op::PoolUp(31509),
        Op::PoolNotUp(7230),
    ];
    holds(880_046_740, &ops);
}

/// It may be that a failure was made up for and the job then expired, or that it died of it: both in the turn that failed.
#[test]
fn a_job_whose_failure_is_made_up_for_expires_in_the_turn_whose_sync_failed() {
    let ops = [
        Op::Reload(188),
        Op::PoolUp(62865),
        Op::Redrive(1, 92),
        Op::Push(vec![job([0, 5, 0], [None, None], 0, Some(1015), Some(1), 133)]),
        Op::PoolUp(48839),
        Op::Fail(17, 0),
        Op::Reload(152),
        Op::Push(vec![
            job([1, 0, 0], [None, None], 0, None, Some(1), 51),
            job([0, 5, 0], [None, None], 0, None, None, 153),
            job([1, 5, 0], [None, None], 0, None, Some(3), 341),
        ]),
        Op::Take(20290),
        Op::Wait(4684),
        Op::Reload(89),
        Op::Finish(3647, How::Fail { killed: false }),
        Op::MakeSegment,
        Op::Reload(222),
    ];
    holds(130_163_086_290_264, &ops);
}
