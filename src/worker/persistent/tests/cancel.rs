//! Jobs that are cancelled while a process that stays has them.

use super::*;
use crate::worker::run::Board;
use crate::worker::zoo::when_running;

/// A cycle of three jobs, of which the first is cancelled once the program has written to `running`.
fn cancelled_cycle(cage: &mut Cage) -> Vec<(u64, Outcome)> {
    let board = Board::new(Arc::clone(&cage.cut), RealClock::shared());
    let job = |n| Assignment { kill_after: SHORT, run: board.run(assignment(n).lease, 0), ..assignment(n) };
    let batch = vec![job(1), job(2), job(3)];
    let cancelled = batch[0].lease;
    let canceller = when_running(cage.dir.path(), move || board.cancel(cancelled));
    let got = outcomes(&mut *cage.worker, batch);
    canceller.join().unwrap();
    got
}

#[test]
fn a_program_is_told_of_a_cancelled_job_and_goes_on_with_the_others() {
    let mut cage = started(
        r#"
        job() { ids="$ids $1"; [ "$1" != 3-1-3 ] || echo >running; }
        cancel() { printf '%s\n' "$1" >told; for i in $ids; do [ $i = 1-1-1 ] || result $i '{"value":1}'; done
                   failure 1-1-1 '{"code":1,"message":"stopped"}'; }"#,
    );
    let got = cancelled_cycle(&mut cage);
    let answered = Outcome::Fail { error: "stopped".into(), killed: false };
    assert_eq!(got, [(2, done("1")), (3, done("1")), (1, answered)]);
    let told = std::fs::read_to_string(cage.dir.path().join("told")).unwrap();
    assert_eq!(told, "{\"jsonrpc\":\"2.0\",\"method\":\"cancel\",\"params\":{\"id\":\"1-1-1\"}}\n");
    assert!(cage.worker.is_ready());
}

#[test]
fn a_program_that_does_not_stop_is_replaced_and_the_others_are_given_back() {
    let mut cage =
        started("trap '' TERM; job() { [ $1 != 2-1-2 ] || result $1 '{}'; [ $1 != 3-1-3 ] || echo >running; }");
    let got = cancelled_cycle(&mut cage);
    let answered = Outcome::Done { result: None, enqueue: vec![] };
    assert_eq!(got, [(2, answered), (1, Outcome::Interrupted), (3, Outcome::Interrupted)]);
    assert!(!cage.worker.is_ready());
}

#[test]
fn a_job_that_is_cancelled_before_it_is_asked_for_is_not() {
    let mut cage = started("job() { echo $1 >>asked; result $1 '{}'; }");
    let board = Board::new(Arc::clone(&cage.cut), RealClock::shared());
    let job = |n| Assignment { run: board.run(assignment(n).lease, 0), ..assignment(n) };
    board.cancel(assignment(1).lease);
    let got = outcomes(&mut *cage.worker, vec![job(1), job(2)]);
    assert_eq!(got, [(1, Outcome::Interrupted), (2, Outcome::Done { result: None, enqueue: vec![] })]);
    assert_eq!(std::fs::read_to_string(cage.dir.path().join("asked")).unwrap(), "2-1-2\n");
}
