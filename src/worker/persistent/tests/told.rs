//! What a process that stays says of the jobs that it has.

use super::*;
use crate::worker::run::Board;
use crate::worker::zoo::{fifo, when_running};

/// Words of a shell for what may be said unasked.
const SAYS: &str = r#"tell() { say '{"jsonrpc":"2.0","method":"'"$1"'","params":{"id":"'"$2"'"'"$3"'}}'; }"#;

fn cycle(cage: &mut Cage, timeout: Duration, timeout_max: Duration) -> Vec<(u64, Outcome)> {
    let job = |n| Assignment { timeout, timeout_max, kill_after: SHORT, ..assignment(n) };
    outcomes(&mut *cage.worker, vec![job(1)])
}

#[test]
fn extend_gives_as_much_as_it_says_up_to_the_bound() {
    let (timeout, most) = (Duration::from_secs(2), Duration::from_secs(5));
    let mut patient =
        started(&format!("{SAYS}\njob() {{ tell extend $1 ',\"ms\":10000'; sleep 3; result $1 '{{}}'; }}"));
    assert_eq!(cycle(&mut patient, timeout, most), [(1, Outcome::Done { result: None, enqueue: vec![] })]);
    let mut endless =
        started(&format!("{SAYS}\njob() {{ while :; do tell extend $1 ',\"ms\":10000'; sleep 0.1; done; }}"));
    let begun = RealClock.mono();
    let late = Outcome::Fail { error: "sh did not answer in time".into(), killed: false };
    assert_eq!(cycle(&mut endless, timeout, most), [(1, late)]);
    assert!(RealClock.mono() - begun >= most);
    assert!(!endless.worker.is_ready());
}

#[test]
fn progress_stands_on_the_board_while_the_job_is_open() {
    let mut cage = started(&format!(
        "{SAYS}\njob() {{ tell progress $1 ',\"percent\":40,\"text\":\"page 3\"'; echo >running; read -r go <go; result $1 '{{}}'; }}"
    ));
    let board = Board::new(Arc::clone(&cage.cut), RealClock::shared());
    let lease = assignment(1).lease;
    let go = cage.dir.path().join("go");
    fifo(&go);
    let seen = Arc::clone(&board);
    let looker = when_running(cage.dir.path(), move || {
        until("the progress", || seen.told(lease).is_some());
        assert_eq!(seen.told(lease).unwrap().progress.unwrap().0, (0.4, "page 3").into());
        std::fs::write(go, "\n").unwrap();
    });
    let got = outcomes(&mut *cage.worker, vec![Assignment { run: board.run(lease, 0), ..assignment(1) }]);
    looker.join().unwrap();
    assert_eq!(got, [(1, Outcome::Done { result: None, enqueue: vec![] })]);
}

#[test]
fn what_a_job_was_given_is_not_taken_back_by_the_answer_for_another_one() {
    let (timeout, timeout_max) = (Duration::from_secs(2), Duration::from_secs(20));
    let mut cage = started(&format!(
        "{SAYS}\njob() {{\n\
         if [ -z \"$first\" ]; then first=$1; tell extend $1 ',\"ms\":10000'; return; fi\n\
         result $1 '{{}}'; sleep 3; result $first '{{}}'\n}}"
    ));
    let job = |n| Assignment { timeout, timeout_max, kill_after: SHORT, ..assignment(n) };
    let done = || Outcome::Done { result: None, enqueue: vec![] };
    assert_eq!(outcomes(&mut *cage.worker, vec![job(1), job(2)]), [(2, done()), (1, done())]);
}
