//! The checker itself on trial: one good history, and one for each way in which it can be wrong.

use crate::checker::{Fail, Figures, check};
use crate::history::{Event, Fault, How};

fn push(n: u64, named: bool) -> Event {
    Event::Push { n, named }
}

fn acked(n: u64, id: &str) -> Event {
    Event::Acked { n, id: id.to_owned() }
}

fn begin(n: u64, id: &str, attempt: u16, fence: u64) -> Event {
    Event::Begin { n, id: id.to_owned(), attempt, fence, at: 0 }
}

fn end(n: u64, id: &str, fence: u64, how: How) -> Event {
    Event::End { n, id: id.to_owned(), fence, how }
}

fn gone(by: Fault) -> Event {
    Event::Gone { by }
}

/// Five pushes with all that may happen in good order: a failure, a pause, a crash in and after a run, an unknown answer.
fn good() -> Vec<Event> {
    vec![
        push(1, false),
        acked(1, "a"),
        begin(1, "a", 1, 10),
        end(1, "a", 10, How::Fail),
        begin(1, "a", 2, 11),
        end(1, "a", 11, How::Defer),
        push(2, true),
        push(3, false),
        begin(2, "b", 1, 12),
        begin(1, "a", 2, 13),
        end(1, "a", 13, How::Ok),
        // 13: the process dies; b was going on, a was perhaps not recorded, 2 and 3 have no answer.
        gone(Fault::Kill),
        Event::Up,
        Event::Unknown { n: 2 },
        Event::Unknown { n: 3 },
        push(2, true),
        acked(2, "b"),
        push(3, false),
        acked(3, "d"),
        begin(2, "b", 1, 20),
        end(2, "b", 20, How::Ok),
        Event::Done { id: "b".to_owned() },
        begin(1, "a", 2, 21),
        end(1, "a", 21, How::Ok),
        begin(3, "c", 1, 22),
        end(3, "c", 22, How::Ok),
        begin(3, "d", 1, 23),
        end(3, "d", 23, How::Ok),
        push(4, false),
        Event::Refused { n: 4 },
        push(5, false),
        acked(5, "e"),
        begin(5, "e", 1, 24),
        end(5, "e", 24, How::Dead),
        Event::Discarded { id: "e".to_owned() },
        Event::Drained { completed: 4 },
    ]
}

/// What the checker finds in the good history after `doctor` was at it; all of it must be of one kind.
fn found(doctor: impl FnOnce(&mut Vec<Event>)) -> Fail {
    let mut events = good();
    doctor(&mut events);
    let violations = check(&events).expect_err("the doctored history was taken for a good one");
    let first = violations[0].fail;
    assert!(violations.iter().all(|violation| violation.fail == first), "{violations:#?}");
    first
}

/// Where an event stands in the good history.
fn place(events: &[Event], event: &Event) -> usize {
    events.iter().position(|other| other == event).unwrap_or_else(|| panic!("no {event:?}"))
}

fn remove(events: &mut Vec<Event>, event: &Event) {
    let at = place(events, event);
    events.remove(at);
}

fn replace(events: &mut [Event], event: &Event, by: Event) {
    let at = place(events, event);
    events[at] = by;
}

/// Puts events right before the last one, which says that nothing is left to do.
fn late<const N: usize>(events: &mut Vec<Event>, more: [Event; N]) {
    let at = events.len() - 1;
    events.splice(at..at, more);
}

#[test]
fn the_good_history_is_good() {
    let figures = Figures {
        acked: 4,
        runs: 9,
        recovered: 0,
        run_twice: 1,
        pushed_twice: 1,
        ends: 1,
        bad: 0,
        strikes: 0,
        needed: 0,
        versions: 0,
    };
    assert_eq!(check(&good()), Ok(figures));
}

#[test]
fn an_acknowledged_job_without_a_run_is_lost() {
    let verdict = found(|events| late(events, [push(6, true), acked(6, "f")]));
    assert_eq!(verdict, Fail::Lost);
}

#[test]
fn a_job_whose_last_run_was_cut_off_and_never_repeated_is_lost() {
    let verdict = found(|events| {
        late(events, [push(6, true), acked(6, "f"), begin(6, "f", 1, 30), gone(Fault::Cut), Event::Up]);
    });
    assert_eq!(verdict, Fail::Lost);
}

#[test]
fn an_answer_after_the_power_was_cut_is_none_and_one_before_it_is() {
    let cut = |answer_first: bool| {
        let mut events = good();
        let (answer, cutting) = (acked(6, "f"), Event::Cutting);
        let [first, second] = if answer_first { [answer, cutting] } else { [cutting, answer] };
        late(&mut events, [push(6, false), first, second, gone(Fault::Cut), Event::Up]);
        check(&events).map_err(|violations| violations[0].fail)
    };
    assert_eq!(cut(true), Err(Fail::Lost));
    assert_eq!(cut(false).unwrap().acked, 4);
}

#[test]
fn a_job_shown_as_completed_before_its_run_ended_is_found() {
    let verdict = found(|events| {
        let at = place(events, &end(2, "b", 20, How::Ok));
        events.swap(at, at + 1);
    });
    assert_eq!(verdict, Fail::Lost);
}

#[test]
fn a_run_of_what_nobody_pushed_is_unexpected() {
    let verdict = found(|events| {
        late(events, [begin(7, "g", 1, 30), end(7, "g", 30, How::Dead), Event::Discarded { id: "g".to_owned() }]);
    });
    assert_eq!(verdict, Fail::Unexpected);
}

#[test]
fn a_run_of_what_was_refused_is_unexpected() {
    let verdict = found(|events| {
        late(events, [begin(4, "g", 1, 30), end(4, "g", 30, How::Dead), Event::Discarded { id: "g".to_owned() }]);
    });
    assert_eq!(verdict, Fail::Unexpected);
}

#[test]
fn a_run_after_the_completion_was_seen_is_found() {
    let verdict = found(|events| {
        late(events, [gone(Fault::Kill), Event::Up, begin(2, "b", 1, 30), end(2, "b", 30, How::Ok)]);
    });
    assert_eq!(verdict, Fail::AfterEnd);
}

#[test]
fn a_second_run_without_a_crash_is_a_duplicate() {
    let verdict = found(|events| late(events, [begin(3, "d", 1, 30), end(3, "d", 30, How::Ok)]));
    assert_eq!(verdict, Fail::Duplicate);
}

#[test]
fn a_stop_in_good_order_is_no_reason_for_a_duplicate() {
    let verdict = found(|events| {
        late(events, [gone(Fault::Stop), Event::Up, begin(3, "d", 1, 30), end(3, "d", 30, How::Ok)]);
    });
    assert_eq!(verdict, Fail::Duplicate);
}

#[test]
fn a_crash_before_the_good_run_is_no_reason_for_a_duplicate() {
    // The last end of a process lies before d's only run, so it explains nothing about a second one.
    let verdict = found(|events| {
        let at = place(events, &begin(3, "d", 1, 23));
        events.splice(at..at, [gone(Fault::Kill), Event::Up]);
        late(events, [begin(3, "d", 1, 30), end(3, "d", 30, How::Ok)]);
    });
    assert_eq!(verdict, Fail::Duplicate);
}

#[test]
fn two_live_leases_of_one_job_are_found() {
    let verdict = found(|events| {
        let run = begin(3, "d", 1, 23);
        let at = place(events, &run);
        events.insert(at, begin(3, "d", 1, 22));
    });
    assert_eq!(verdict, Fail::Overlap);
}

#[test]
fn a_fence_that_repeats_is_found() {
    let verdict = found(|events| {
        replace(events, &begin(2, "b", 1, 20), begin(2, "b", 1, 12));
        replace(events, &end(2, "b", 20, How::Ok), end(2, "b", 12, How::Ok));
    });
    assert_eq!(verdict, Fail::Fence);
}

#[test]
fn a_name_that_became_two_jobs_is_found() {
    let verdict = found(|events| {
        events.pop();
        events.extend([push(2, true), acked(2, "x"), begin(2, "x", 1, 30), end(2, "x", 30, How::Ok)]);
        events.push(Event::Drained { completed: 5 });
    });
    assert_eq!(verdict, Fail::TwoJobs);
}

#[test]
fn a_push_that_became_two_jobs_without_an_unknown_answer_is_found() {
    let verdict = found(|events| remove(events, &Event::Unknown { n: 3 }));
    assert_eq!(verdict, Fail::TwoJobs);
}

#[test]
fn an_attempt_counted_for_a_crash_of_the_host_is_found() {
    let verdict = found(|events| replace(events, &begin(2, "b", 1, 20), begin(2, "b", 2, 20)));
    assert_eq!(verdict, Fail::Attempt);
}

#[test]
fn a_failure_that_was_not_counted_is_found() {
    let verdict = found(|events| {
        for event in events.iter_mut() {
            if let Event::Begin { id, attempt, .. } = event
                && id == "a"
            {
                *attempt = 1;
            }
        }
    });
    assert_eq!(verdict, Fail::Attempt);
}

#[test]
fn a_payload_that_changed_is_found() {
    let verdict = found(|events| replace(events, &end(3, "d", 23, How::Ok), end(3, "d", 23, How::Wrong)));
    assert_eq!(verdict, Fail::Payload);
}

#[test]
fn a_history_that_was_not_drained_is_no_proof() {
    let verdict = found(|events| {
        events.pop();
    });
    assert_eq!(verdict, Fail::NotDrained);
}

#[test]
fn a_push_after_the_drain_takes_its_word_back() {
    let verdict = found(|events| {
        events.extend([push(6, true), acked(6, "f"), begin(6, "f", 1, 30), end(6, "f", 30, How::Ok)]);
    });
    assert_eq!(verdict, Fail::NotDrained);
}

#[test]
fn a_counter_that_lost_a_job_is_found() {
    let verdict = found(|events| replace(events, &Event::Drained { completed: 4 }, Event::Drained { completed: 3 }));
    assert_eq!(verdict, Fail::Count);
}

#[test]
fn an_end_without_a_beginning_is_nonsense() {
    let verdict = found(|events| late(events, [end(3, "d", 99, How::Ok)]));
    assert_eq!(verdict, Fail::Nonsense);
}

fn on(n: u64, id: &str, fence: u64, version: u32, pid: u32) -> Event {
    Event::On { n, id: id.to_owned(), fence, version, pid }
}

/// A good history in which versions come and go: 2 is a bad one, 3 stands in a file that must not pass, and the process 9 of
/// a worker is killed while it runs one job, right after it ended another.
fn rolling() -> Vec<Event> {
    vec![
        Event::Never { version: 3 },
        Event::Needs { n: 2, version: 1 },
        push(1, true),
        push(2, true),
        acked(1, "a"),
        acked(2, "b"),
        begin(1, "a", 1, 10),
        on(1, "a", 10, 2, 8),
        end(1, "a", 10, How::Bad),
        begin(2, "b", 1, 11),
        on(2, "b", 11, 1, 9),
        end(2, "b", 11, How::Ok),
        begin(1, "a", 1, 12),
        on(1, "a", 12, 1, 9),
        Event::Strike { pid: 9 },
        begin(1, "a", 2, 13),
        on(1, "a", 13, 1, 10),
        end(1, "a", 13, How::Ok),
        begin(2, "b", 1, 14),
        on(2, "b", 14, 4, 0),
        end(2, "b", 14, How::Ok),
        Event::Drained { completed: 2 },
    ]
}

/// What the checker finds first in that one, with `event` replaced by `by`.
fn rolling_found(event: &Event, by: Event) -> Fail {
    let mut events = rolling();
    replace(&mut events, event, by);
    check(&events).expect_err("the doctored history was taken for a good one")[0].fail
}

#[test]
fn a_history_of_versions_that_come_and_go_is_good() {
    let figures =
        Figures { acked: 2, runs: 5, run_twice: 1, bad: 1, strikes: 1, needed: 2, versions: 3, ..Figures::default() };
    assert_eq!(check(&rolling()), Ok(figures));
}

#[test]
fn a_run_on_a_version_that_the_job_may_not_run_on_is_found() {
    assert_eq!(rolling_found(&Event::Needs { n: 2, version: 1 }, Event::Needs { n: 2, version: 5 }), Fail::Version);
    assert_eq!(rolling_found(&on(2, "b", 14, 4, 0), on(2, "b", 14, 3, 0)), Fail::Version, "its file must not pass");
    assert_eq!(rolling_found(&on(1, "a", 12, 1, 9), on(1, "a", 12, 2, 9)), Fail::Version, "it makes up for itself");
}

#[test]
fn a_bad_version_that_costs_an_attempt_is_found() {
    let mut events = rolling();
    remove(&mut events, &Event::Strike { pid: 9 });
    replace(&mut events, &begin(1, "a", 1, 12), begin(1, "a", 2, 12));
    let found = check(&events).expect_err("the doctored history was taken for a good one");
    assert_eq!(found[0].fail, Fail::Attempt);
}

#[test]
fn more_attempts_than_killed_workers_can_explain_are_found() {
    let counted = |attempt| {
        let mut events = rolling();
        replace(&mut events, &begin(1, "a", 2, 13), begin(1, "a", attempt, 13));
        check(&events).map_err(|violations| violations[0].fail)
    };
    assert!(counted(5).is_ok(), "killed before they could say that they began");
    assert_eq!(counted(20), Err(Fail::Attempt));
}

#[test]
fn a_killed_worker_explains_its_own_runs_and_no_other() {
    let strike = |pid| rolling_found(&Event::Strike { pid: 9 }, Event::Strike { pid });
    assert_eq!(strike(8), Fail::Overlap);
    let twice = rolling_found(&on(2, "b", 11, 1, 9), on(2, "b", 11, 1, 7));
    assert_eq!(twice, Fail::Duplicate);
}
