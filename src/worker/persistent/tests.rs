//! A process that stays: hello, batches, wipes, and everything that breaks the protocol.

mod cancel;
mod told;

use super::*;
use crate::worker::zoo::{assignment, cut_when_running, cutoff, limits, outcomes, runs, script, sh, spawner, until};

const SHORT: Duration = Duration::from_millis(100);

/// What well-behaved programs share: `say LINE`, `id` of a line, and a loop that calls `job ID LINE` for each job.
const TAME: &str = r#"
say() { printf '%s\n' "$1"; }
result() { say '{"id":"'"$1"'","jsonrpc":"2.0","result":'"$2"'}'; }
failure() { say '{"id":"'"$1"'","jsonrpc":"2.0","error":'"$2"'}'; }
job() { result "$1" '{"value":1}'; }
hello() { result hello '{"protocol":1}'; }
wipe() { result "$1" null; }
cancel() { :; }
loop() {
    while IFS= read -r line; do
        id=${line#'{"id":"'}; id=${id%%'"'*}
        case $line in
            *'"method":"hello"'*) hello ;;
            *'"method":"wipe"'*) wipe "$id" ;;
            *'"method":"cancel"'*) cancel "$line" ;;
            *) job "$id" "$line" ;;
        esac
    done
}
"#;

struct Cage {
    dir: tempfile::TempDir,
    cut: Arc<Cutoff>,
    worker: Box<dyn Worker>,
}

/// A worker on a program that begins with the tame parts, replaces some, and loops; not yet started.
fn cage(wild: &str) -> Cage {
    let (dir, cut) = (tempfile::tempdir().unwrap(), cutoff());
    let launch = sh(dir.path(), &format!("{TAME}\n{wild}\nloop"));
    let factory = PersistentFactory::new(launch, limits(), spawner(), &"zoo".parse().unwrap(), &"v1".parse().unwrap());
    let worker = factory.make(&cut);
    Cage { dir, cut, worker }
}

fn started(wild: &str) -> Cage {
    let mut cage = cage(wild);
    cage.worker.start(Duration::from_secs(10)).unwrap();
    cage
}

impl Cage {
    fn cycle(&mut self, jobs: impl IntoIterator<Item = u64>) -> Vec<(u64, Outcome)> {
        self.cycle_within(Duration::from_secs(20), jobs)
    }

    fn cycle_within(&mut self, timeout: Duration, jobs: impl IntoIterator<Item = u64>) -> Vec<(u64, Outcome)> {
        let job = |n| Assignment { timeout, kill_after: SHORT, ..assignment(n) };
        outcomes(&mut *self.worker, jobs.into_iter().map(job).collect())
    }

    /// The errors of a cycle that breaks the process: without the jobs answered before.
    fn broken_cycle(&mut self, jobs: impl IntoIterator<Item = u64>) -> Vec<(u64, String)> {
        let got = self.cycle(jobs);
        assert!(!self.worker.is_ready(), "{got:?}");
        let fails = got.into_iter().filter_map(|(n, outcome)| match outcome {
            Outcome::Fail { error, killed: false } => Some((n, error)),
            _ => None,
        });
        fails.collect()
    }
}

fn done(json: &str) -> Outcome {
    Outcome::Done { result: Some(json.as_bytes().to_vec()), enqueue: Vec::new() }
}

#[test]
fn batch_is_answered_in_any_order_by_one_process_over_cycles() {
    let mut cage = started(
        r#"
        job() { held="$held $1"; n=$((n+1)); [ $n -lt 3 ] || { for i in $held; do back="$i $back"; done
                for i in $back; do result $i "{\"value\":$$}"; done; n=0; held=; back=; }; }"#,
    );
    let first = cage.cycle([1, 2, 3]);
    assert_eq!(first.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [3, 2, 1]);
    assert!(cage.worker.is_ready());
    let second = cage.cycle([4, 5, 6]);
    assert_eq!(second.first().unwrap().1, first.first().unwrap().1);
}

#[test]
fn questions_are_lines_with_their_members_in_a_fixed_order() {
    let mut cage = started(
        r#"hello() { first=$line; result hello '{"protocol":1}'; }
        job() { printf '%s\n' "$first" "$2" >lines; result "$1" '{}'; }
        wipe() { printf '%s\n' "$line" >>lines; result "$1" '{}'; }"#,
    );
    assert_eq!(cage.cycle([3]), [(3, Outcome::Done { result: None, enqueue: vec![] })]);
    let lines = std::fs::read_to_string(cage.dir.path().join("lines")).unwrap();
    let want = concat!(
        r#"{"id":"hello","jsonrpc":"2.0","method":"hello","params":{"protocol":1,"type":"zoo","version":"v1"}}"#,
        "\n",
        r#"{"id":"3-1-3","jsonrpc":"2.0","method":"job","params":{"job_id":"job-3","task":"feed","payload":{"n":3},"#,
        r#""attempt":1,"max_attempts":2,"tenant":null,"fence":1099511627779,"deadline_ms":1900000000000}}"#,
        "\n",
        r#"{"id":"wipe-1","jsonrpc":"2.0","method":"wipe","params":{}}"#,
        "\n",
    );
    assert_eq!(lines, want);
}

#[test]
fn start_that_fails_says_why() {
    let within = |timeout, wild: &str| cage(wild).worker.start(timeout).unwrap_err().to_string();
    let start = |wild: &str| within(Duration::from_secs(10), wild);
    let after = "before it said hello (`start_timeout` 10s)";
    assert_eq!(start("echo no luck >&2; exit 3"), format!("sh exited with code 3 {after}: no luck"));
    let late = "sh did not answer in time before it said hello (`start_timeout` 100ms)";
    assert_eq!(within(SHORT, "exec sleep 30"), late);
    assert_eq!(start("hello() { result hello '{\"protocol\":2}'; }"), format!("sh speaks protocol 2, not 1 {after}"));
    assert!(start("echo booting").contains("wrote a line that is no JSON-RPC 2.0"));
    assert_eq!(start("exec >&-; sleep 30"), format!("sh closed its stdout {after}"));
}

#[test]
fn start_follows_a_failed_start_and_a_broken_cycle() {
    let mut cage =
        cage("[ -e lucky ] || { >lucky; exit 1; }; job() { [ -e second ] || { >second; exit 1; }; result $1 '{}'; }");
    assert!(cage.worker.start(Duration::from_secs(10)).is_err() && !cage.worker.is_ready());
    let not_started = Outcome::NotStarted { error: "sh: the worker is not started".into() };
    assert_eq!(cage.cycle([1]), [(1, not_started)]);
    cage.worker.start(Duration::from_secs(10)).unwrap();
    assert_eq!(cage.broken_cycle([1]), [(1, "sh exited with code 1".to_owned())]);
    cage.worker.start(Duration::from_secs(10)).unwrap();
    assert!(matches!(cage.cycle([1]).as_slice(), [(1, Outcome::Done { .. })]));
}

#[test]
fn crash_in_the_middle_fails_the_unanswered_jobs_only() {
    let mut cage = started("job() { n=$((n+1)); [ $n = 1 ] || { echo oh >&2; exit 7; }; result $1 '{\"value\":1}'; }");
    let fail = Outcome::Fail { error: "sh exited with code 7: oh".into(), killed: false };
    assert_eq!(cage.cycle([1, 2, 3]), [(1, done("1")), (2, fail.clone()), (3, fail)]);
    let mut killed = started("job() { kill -9 $$; }");
    let fail = Outcome::Fail { error: "sh was killed by signal 9".into(), killed: true };
    assert_eq!(killed.cycle([1]), [(1, fail)]);
}

#[test]
fn broken_protocol_replaces_the_process_and_fails_what_is_open() {
    let reason = |job: &str| {
        let errors = started(job).broken_cycle([1, 2]);
        assert!(errors.last().is_some_and(|(n, _)| *n == 2), "{job}: {errors:?}");
        errors.last().unwrap().1.clone()
    };
    assert!(reason("job() { say garbage; }").contains("no JSON-RPC 2.0"));
    assert_eq!(reason("job() { result $1 '{}'; result $1 '{}'; }"), "sh answered \"1-1-1\" twice");
    assert_eq!(reason("job() { result 9-9-9 '{}'; }"), "sh answered the unknown id \"9-9-9\"");
    assert_eq!(reason("job() { exec >&-; sleep 30; }"), "sh closed its stdout");
}

#[test]
fn closed_stdin_breaks_the_protocol_at_once() {
    // The second question is in the pipe: nobody will ever read it.
    let errors = started("job() { exec <&-; sleep 1000; }").broken_cycle([1, 2]);
    assert_eq!(errors, [1, 2].map(|n| (n, "sh closed its stdin".to_owned())));
    // What is answered counts, also when the end of the cycle can no longer be asked for.
    let mut cage = started("job() { exec <&-; result $1 '{\"value\":1}'; sleep 1000; }");
    assert_eq!(cage.cycle([1]), [(1, done("1"))]);
    assert!(!cage.worker.is_ready());
    // How it exits says more.
    let errors = started("job() { exec <&-; exit 4; }").broken_cycle([1, 2]);
    assert_eq!(errors, [1, 2].map(|n| (n, "sh exited with code 4".to_owned())));
}

#[test]
fn process_that_closed_its_stdin_between_cycles_costs_no_attempt() {
    let mut cage =
        started("wipe() { result $1 '{}'; [ -e second ] || { >second; echo why >&2; exec <&-; sleep 1000; }; }");
    assert_eq!(cage.cycle([1]), [(1, done("1"))]);
    until("the closing", || !cage.worker.is_ready());
    let gone = Outcome::NotStarted { error: "sh closed its stdin between two cycles: why".into() };
    assert_eq!(cage.cycle([2]), [(2, gone)]);
    cage.worker.start(Duration::from_secs(10)).unwrap();
    assert_eq!(cage.cycle([2]), [(2, done("1"))]);
}

#[test]
fn what_a_closed_stdin_was_never_asked_is_given_back() {
    let mut cage = started("job() { exec <&-; sleep 1000; }");
    let big = |n| Assignment { payload: vec![b'1'; 10 << 10].into(), kill_after: SHORT, ..assignment(n) };
    let got = outcomes(&mut *cage.worker, (1..=20).map(big).collect());
    let closed = Outcome::Fail { error: "sh closed its stdin".to_owned(), killed: false };
    let asked = got.iter().take_while(|(_, outcome)| *outcome == closed).count();
    assert!((1..20).contains(&asked), "{got:?}");
    assert!(got[asked..].iter().all(|(_, outcome)| *outcome == Outcome::Interrupted), "{got:?}");
}

#[test]
fn grandchild_that_holds_the_pipes_of_a_process_that_stayed_neither_hangs_the_cycle_nor_stays() {
    let mut cage = started("job() { sleep 1000 & echo $! >grandchild; exit 3; }");
    assert_eq!(cage.broken_cycle([1]), [(1, "sh exited with code 3".to_owned())]);
    let pid = std::fs::read_to_string(cage.dir.path().join("grandchild")).unwrap();
    until("the grandchild's end", || !runs(pid.trim()));
}

#[test]
fn silent_exit_fails_the_job_also_with_code_0() {
    assert_eq!(started("job() { exit 0; }").broken_cycle([1]), [(1, "sh exited with code 0".to_owned())]);
}

#[test]
fn flood_of_notifications_cannot_pass_the_timeout() {
    let mut cage = started("job() { while :; do say '{\"jsonrpc\":\"2.0\",\"method\":\"moo\"}'; done; }");
    let late = Outcome::Fail { error: "sh did not answer in time".into(), killed: false };
    assert_eq!(cage.cycle_within(SHORT, [1]), [(1, late)]);
}

#[test]
fn flood_on_stderr_blocks_nothing_and_its_end_is_kept() {
    let mut cage = started("job() { yes | head -c 1000000 >&2; echo the end >&2; result $1 '{\"value\":1}'; }");
    assert_eq!(cage.cycle([1]), [(1, done("1"))]);
    let errors =
        started("job() { yes | head -c 1000000 >&2; echo the end >&2; exit 1; }").broken_cycle([1]).remove(0).1;
    assert!(errors.starts_with("sh exited with code 1:\ny") && errors.ends_with("y\nthe end"), "{errors}");
}

#[test]
fn answer_to_a_job_of_the_cycle_before_is_to_one_that_is_not_held() {
    let mut cage = started("job() { result ${old:-$1} '{}'; old=$1; }");
    assert!(matches!(cage.cycle([1]).as_slice(), [(1, Outcome::Done { .. })]));
    assert_eq!(cage.broken_cycle([2]), [(2, "sh answered the unknown id \"1-1-1\"".to_owned())]);
}

#[test]
fn endless_line_is_ended_within_bounded_memory() {
    let errors = started("job() { yes x | tr -d '\\n'; }").broken_cycle([1]);
    assert_eq!(errors, [(1, format!("sh wrote a line of more than {LINE_BYTES_MAX} bytes"))]);
}

#[test]
fn hung_job_times_out_and_a_program_that_ignores_term_is_killed() {
    let mut cage = started("trap '' TERM; job() { while :; do sleep 30; done; }");
    let late = Outcome::Fail { error: "sh did not answer in time".into(), killed: false };
    assert_eq!(cage.cycle_within(SHORT, [1, 2]), [1, 2].map(|n| (n, late.clone())));
    assert!(!cage.worker.is_ready());
}

#[test]
fn each_answer_begins_the_timeout_anew() {
    let mut cage = started("job() { sleep 1; result $1 '{}'; }");
    let outcomes = cage.cycle_within(Duration::from_millis(2800), [1, 2, 3]);
    assert!(outcomes.iter().all(|(_, outcome)| matches!(outcome, Outcome::Done { .. })), "{outcomes:?}");
}

#[test]
fn each_extend_begins_the_timeout_anew() {
    let extend = r#"extend() { sleep 1; say '{"jsonrpc":"2.0","method":"extend","params":{"id":"'"$1"'"}}'; }"#;
    let mut cage = started(&format!("{extend}\njob() {{ extend $1; extend $1; extend $1; result $1 '{{}}'; }}"));
    let outcomes = cage.cycle_within(Duration::from_millis(2800), [1]);
    assert!(matches!(outcomes.as_slice(), [(1, Outcome::Done { .. })]), "{outcomes:?}");
}

#[test]
fn wipe_that_fails_replaces_the_process_but_harms_no_job() {
    for wild in ["wipe() { :; }", "wipe() { failure $1 '{\"code\":1,\"message\":\"no\"}'; }"] {
        let mut cage = started(wild);
        assert_eq!(cage.cycle_within(Duration::from_millis(2800), [1]), [(1, done("1"))]);
        assert!(!cage.worker.is_ready());
    }
}

#[test]
fn process_that_left_between_cycles_costs_no_attempt() {
    let mut cage = started("wipe() { result $1 '{}'; exit 0; }");
    assert_eq!(cage.cycle([1]), [(1, done("1"))]);
    until("the end of the process", || !cage.worker.is_ready());
    let gone = Outcome::NotStarted { error: "sh exited with code 0 between two cycles".into() };
    assert_eq!(cage.cycle([2]), [(2, gone)]);
    cage.worker.start(Duration::from_secs(10)).unwrap();
    assert_eq!(cage.cycle([2]), [(2, done("1"))]);
}

#[test]
fn cutoff_gives_back_what_is_open_and_takes_the_last_answers() {
    let mut cage = started(
        "job() { ids=\"$ids $1\"; [ \"${ids% *}\" = '' ] && return; trap 'result ${ids##* } \"{}\"; exit 0' TERM
                 echo >running; while :; do sleep 0.01; done; }",
    );
    let cutter = cut_when_running(cage.dir.path(), &cage.cut);
    let got = outcomes(&mut *cage.worker, vec![assignment(1), assignment(2)]);
    cutter.join().unwrap();
    assert_eq!(got, [(2, Outcome::Done { result: None, enqueue: vec![] }), (1, Outcome::Interrupted)]);
    assert_eq!(cage.cycle([3]), [(3, Outcome::Interrupted)]);
}

#[test]
fn stop_closes_stdin_and_insists() {
    let mut tame = started("job() { result $1 \"{\\\"value\\\":$$}\"; }; bye() { loop; echo bye >left; exit 0; }; bye");
    outcomes(&mut *tame.worker, vec![assignment(1)]);
    tame.worker.stop();
    assert_eq!(std::fs::read_to_string(tame.dir.path().join("left")).unwrap(), "bye\n");
    let mut wild =
        started("trap '' TERM; job() { result $1 \"{\\\"value\\\":$$}\"; }; loop; while :; do sleep 30; done");
    let pid = match wild.cycle([1]).into_iter().next().unwrap().1 {
        Outcome::Done { result: Some(pid), .. } => String::from_utf8(pid).unwrap(),
        other => panic!("{other:?}"),
    };
    assert!(runs(&pid));
    wild.worker.stop();
    assert!(!runs(&pid) && !wild.worker.is_ready());
    wild.worker.stop();
}

#[test]
fn process_that_has_reached_a_bound_leaves_in_good_order_between_cycles() {
    let pid_and_bye = "job() { result $1 \"{\\\"value\\\":$$}\"; }; loop; echo bye >>left; exit 0";
    let mut cage = started(pid_and_bye);
    // Who leaves in good order has time for it.
    let cycle = |cage: &mut Cage| outcomes(&mut *cage.worker, vec![assignment(1)]);
    let left = cage.dir.path().join("left");
    let cycles = |most| Recycle { cycles: Some(most), ..Recycle::default() };
    let first = cycle(&mut cage);
    assert_eq!(cage.worker.recycle(&cycles(2)), None);
    assert_eq!(cycle(&mut cage), first);
    assert_eq!(cage.worker.recycle(&Recycle::default()), None);
    assert_eq!(cage.worker.recycle(&cycles(2)), Some(Worn::Cycles(2)));
    assert!(!cage.worker.is_ready());
    assert_eq!(std::fs::read_to_string(&left).unwrap(), "bye\n");
    assert_eq!(cage.worker.recycle(&cycles(2)), None, "there is none");
    cage.worker.start(Duration::from_secs(10)).unwrap();
    let second = cycle(&mut cage);
    assert_ne!(second, first);
    // What it has done and how old it is begins anew.
    assert_eq!(cage.worker.recycle(&cycles(2)), None);
    let age = |age| Recycle { age: Some(age), ..Recycle::default() };
    assert_eq!(cage.worker.recycle(&age(Duration::from_secs(3600))), None);
    assert!(matches!(cage.worker.recycle(&age(Duration::ZERO)), Some(Worn::Age(_))));
    cage.worker.start(Duration::from_secs(10)).unwrap();
    let rss = |bytes| Recycle { rss: Some(bytes), ..Recycle::default() };
    assert_eq!(cage.worker.recycle(&rss(1 << 40)), None);
    assert!(matches!(cage.worker.recycle(&rss(4096)), Some(Worn::Rss(bytes)) if bytes > 4096));
    assert_eq!(std::fs::read_to_string(&left).unwrap(), "bye\n".repeat(3));
}

#[test]
fn process_that_ignores_its_end_is_recycled_all_the_same() {
    let mut cage =
        started("trap '' TERM; job() { result $1 \"{\\\"value\\\":$$}\"; }; loop; while :; do sleep 30; done");
    let pid = match cage.cycle([1]).remove(0).1 {
        Outcome::Done { result: Some(pid), .. } => String::from_utf8(pid).unwrap(),
        other => panic!("{other:?}"),
    };
    assert!(cage.worker.recycle(&Recycle { cycles: Some(1), ..Recycle::default() }).is_some());
    assert!(!runs(&pid));
}

#[test]
fn large_batch_neither_deadlocks_on_full_pipes_nor_is_copied_at_once() {
    let mut cage = started("job() { result $1 '{\"value\":\"'$(printf %01000d 7)'\"}'; }");
    let big = |n| Assignment { payload: vec![b'1'; 1200].into(), ..assignment(n) };
    let got = outcomes(&mut *cage.worker, (1..=100).map(big).collect());
    assert_eq!(got.iter().map(|(n, _)| *n).collect::<Vec<_>>(), (1..=100).collect::<Vec<_>>());
    assert!(got.iter().all(|(_, outcome)| matches!(outcome, Outcome::Done { .. })));
}

#[test]
fn jobs_that_were_never_asked_for_are_given_back_and_the_unanswered_ones_fail() {
    // It keeps its stdin open and full: what does not fit is not asked for.
    let mut cage = started("job() { echo nonsense; while :; do sleep 60; done; }");
    let timeout = Duration::from_secs(2);
    let big = |n| Assignment { payload: vec![b'1'; 10 << 10].into(), timeout, kill_after: SHORT, ..assignment(n) };
    let mut got = outcomes(&mut *cage.worker, (1..=20).map(big).collect());
    got.sort_by_key(|(n, _)| *n);
    let asked = got.iter().take_while(|(_, outcome)| matches!(outcome, Outcome::Fail { .. })).count();
    assert!((1..20).contains(&asked), "{got:?}");
    let rest = (1..=20).skip(asked).map(|n| (n, Outcome::Interrupted));
    assert_eq!(got[asked..], rest.collect::<Vec<_>>());
}

#[test]
fn bad_payload_answers_its_job_and_hinders_no_other() {
    let mut cage = started("");
    let bad = Assignment { payload: vec![b'{'].into(), ..assignment(1) };
    let got = outcomes(&mut *cage.worker, vec![bad.clone(), assignment(2)]);
    assert!(matches!(got.as_slice(), [(1, Outcome::Dead { .. }), (2, Outcome::Done { .. })]), "{got:?}");
    assert!(matches!(outcomes(&mut *cage.worker, vec![bad]).as_slice(), [(1, Outcome::Dead { .. })]));
    assert!(cage.worker.is_ready());
}

#[test]
fn answer_to_a_job_that_was_not_read_to_its_end_does_not_lose_the_next() {
    // A step that had sent the last of what waited went on to wait for the program, which waited for its second job,
    // which was to be asked for after the step.
    // This one answers the first job by its id as soon as it begins to come in, then skips most of it.
    let mut cage = started(
        r#"hello() { result hello '{"protocol":1}'; head -c 10 >/dev/null; result 1-1-1 '{}'; head -c 140000 >/dev/null; }
        job() { case $1 in 2-1-2) result "$1" '{}' ;; esac; }"#,
    );
    let long = Assignment { payload: vec![b'1'; 140 << 10].into(), ..assignment(1) };
    let got = outcomes(&mut *cage.worker, vec![long, assignment(2)]);
    assert_eq!(got, [1, 2].map(|n| (n, Outcome::Done { result: None, enqueue: vec![] })));
}

#[test]
fn p12_program_that_cannot_be_started_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let error = |launch: &Launch| {
        let (name, version) = ("zoo".parse().unwrap(), "v1".parse().unwrap());
        let factory = PersistentFactory::new(launch.clone(), limits(), spawner(), &name, &version);
        factory.make(&cutoff()).start(Duration::from_secs(10)).unwrap_err().to_string()
    };
    let mut launch = sh(dir.path(), ":");
    launch.env.push(("LARGE".into(), "x".repeat(200_000).into()));
    assert_eq!(error(&launch), "sh: cannot start /bin/sh: Argument list too long (os error 7)");
    launch.env.clear();
    launch.program = dir.path().join("beast");
    let path = launch.program.display().to_string();
    assert_eq!(error(&launch), format!("sh: cannot find the program {path}: No such file or directory"));
    std::fs::copy("/bin/sh", &launch.program).unwrap();
    let _writer = std::fs::OpenOptions::new().append(true).open(&launch.program).unwrap();
    assert_eq!(error(&launch), format!("sh: cannot start {path}: Text file busy (os error 26)"));
    std::fs::set_permissions(&launch.program, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    assert_eq!(error(&launch), format!("sh: {path} is not executable: Permission denied"));
}

#[test]
fn program_that_is_replaced_stays_as_it_is_until_its_process_ends() {
    let dir = tempfile::tempdir().unwrap();
    let says =
        |word: &str| format!("{TAME}\njob() {{ [ ! -e end ] || exit 5; result $1 '{{\"value\":\"{word}\"}}'; }}\nloop");
    let mut launch = sh(dir.path(), "");
    launch.program = script(dir.path(), &says("old"));
    let program = launch.program.clone();
    let factory = PersistentFactory::new(launch, limits(), spawner(), &"zoo".parse().unwrap(), &"v1".parse().unwrap());
    let cut = cutoff();
    let mut cage = Cage { worker: factory.make(&cut), dir, cut };
    cage.worker.start(Duration::from_secs(10)).unwrap();
    assert_eq!(cage.cycle([1]), [(1, done("\"old\""))]);
    std::fs::rename(script(&cage.dir.path().join("new"), &says("new")), program).unwrap();
    assert_eq!(cage.cycle([2]), [(2, done("\"old\""))]);
    let end = cage.dir.path().join("end");
    std::fs::write(&end, "").unwrap();
    assert_eq!(cage.broken_cycle([3]), [(3, "sh exited with code 5".to_owned())]);
    std::fs::remove_file(end).unwrap();
    cage.worker.start(Duration::from_secs(10)).unwrap();
    assert_eq!(cage.cycle([4]), [(4, done("\"new\""))]);
}

#[test]
fn p15_only_the_three_pipes_are_open_in_a_process_that_stays() {
    let mut cage = started("job() { result $1 \"{\\\"value\\\":\\\"$(ls /proc/self/fd | tr '\\n' ' ')\\\"}\"; }");
    assert_eq!(cage.cycle([1]), [(1, done("\"0 1 2 3 \""))]);
}
