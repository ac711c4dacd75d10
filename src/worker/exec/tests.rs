//! A process for each job: exit codes, output, follow-up jobs, environment, cutoff.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::*;
use crate::worker::run::Board;
use crate::worker::zoo::{
    assignment, cut_when_running, cutoff, fifo, limits, outcomes, program, runs, script, sh, spawner,
    ten_seconds_apart, until, when_running,
};

const SHORT: Duration = Duration::from_millis(80);

fn worker(launch: Launch, cut: &Arc<Cutoff>) -> Box<dyn Worker> {
    let mut worker = ExecFactory::new(launch, limits(), spawner()).make(cut);
    worker.start(SHORT).unwrap();
    worker
}

/// Runs one job; the outcome, and that it came in good time.
fn run_job(script: &str, job: Assignment) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    let begun = RealClock.mono();
    let got = outcomes(&mut *worker(sh(dir.path(), script), &cutoff()), vec![job]);
    assert!(RealClock.mono() - begun < Duration::from_secs(20), "{got:?}");
    got.into_iter().next().unwrap().1
}

fn run(script: &str) -> Outcome {
    run_job(script, assignment(1))
}

fn run_short(script: &str) -> Outcome {
    run_job(script, Assignment { timeout: SHORT, kill_after: SHORT, ..assignment(1) })
}

fn result(outcome: Outcome) -> String {
    match outcome {
        Outcome::Done { result, .. } => String::from_utf8(result.unwrap_or_default()).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn fail(error: &str) -> Outcome {
    Outcome::Fail { error: error.to_owned(), killed: false }
}

fn error(outcome: Outcome) -> String {
    match outcome {
        Outcome::Fail { error, killed: false } => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn payload_comes_on_stdin_and_stdout_is_the_result() {
    assert_eq!(result(run("cat")), r#"{"n":1}"#);
    assert_eq!(result(run("echo three words here")), r#""three words here""#);
    assert_eq!(result(run(":")), "");
    assert_eq!(result(run("yes | head -n 1")), r#""y""#);
}

#[test]
fn environment_is_the_chosen_one_and_nothing_else() {
    let job = Assignment { tenant: Some("acme".into()), ..assignment(7) };
    let vars = result(run_job(
        "env | grep -v ^BIOTOPE_SPAWNER= | sed 's/ENQUEUE=.*/ENQUEUE=/' | LC_ALL=C sort | tr '\\n' ' '",
        job,
    ));
    let want = "\"BIOTOPE_ATTEMPT=1 BIOTOPE_DEADLINE_MS=1900000000000 BIOTOPE_ENQUEUE= BIOTOPE_FENCE=1099511627783 \
                BIOTOPE_JOB_ID=job-7 BIOTOPE_MAX_ATTEMPTS=2 BIOTOPE_TASK=feed BIOTOPE_TENANT=acme BIOTOPE_TYPE=zoo \
                BIOTOPE_VERSION=v1 LANG=C.UTF-8 PATH=/usr/local/bin:/usr/bin:/bin PWD=";
    assert!(vars.starts_with(want), "{vars}");
    assert_eq!(vars.matches('=').count(), want.matches('=').count(), "{vars}");
}

/// All of a batch were told the deadline of its beginning, though each has its whole timeout: after 29 s of others the next
/// one was told that it had one second of its thirty left.
#[test]
fn each_of_a_batch_is_told_its_own_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let mut worker = worker(sh(dir.path(), "echo $BIOTOPE_DEADLINE_MS"), &cutoff());
    let told = outcomes(&mut *worker, ten_seconds_apart()).into_iter().map(|(_, outcome)| result(outcome));
    assert_eq!(told.collect::<Vec<_>>(), ["30000", "40000", "50000"]);
}

#[test]
fn only_the_three_pipes_are_open_in_the_child() {
    // The fourth is the listing's own directory.
    assert_eq!(result(run("ls /proc/self/fd | tr '\\n' ' '")), r#""0 1 2 3 ""#);
}

#[test]
fn descriptors_that_this_process_was_started_with_do_not_pass_on() {
    // The test above once more, in a process that was given one: `exec` alone leaves it open.
    let test = "worker::exec::tests::only_the_three_pipes_are_open_in_the_child";
    let mut again = Command::new("/bin/sh");
    again.args(["-c", "exec 9</dev/null; exec \"$0\" --exact \"$1\""]).arg(std::env::current_exe().unwrap()).arg(test);
    let output = again.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn follow_up_file_is_gone_after_a_run_that_used_it_and_its_directory_after_the_stop() {
    let dir = tempfile::tempdir().unwrap();
    let mut worker = worker(sh(dir.path(), ": >>$BIOTOPE_ENQUEUE; printf %s $BIOTOPE_ENQUEUE"), &cutoff());
    let file = result(outcomes(&mut *worker, vec![assignment(1)]).remove(0).1);
    let file = PathBuf::from(file.trim_matches('"'));
    assert!(!file.exists() && file.parent().unwrap().exists(), "{file:?}");
    worker.stop();
    assert!(!file.parent().unwrap().exists() && !worker.is_ready());
}

#[test]
fn every_exit_code_has_its_meaning() {
    for code in [0, 1, 2, 64, 65, 70, 75, 78, 126, 127, 137, 255] {
        let got = run(&format!("echo why >&2; exit {code}"));
        let error = format!("sh exited with code {code}: why");
        let want = match code {
            0 => Outcome::Done { result: None, enqueue: vec![] },
            75 => Outcome::Defer { error, after: None },
            65 | 78 => Outcome::Dead { error },
            _ => fail(&error),
        };
        assert_eq!(got, want, "exit {code}");
    }
}

#[test]
fn signal_from_outside_is_told_from_a_crash() {
    let killed = |number, killed| Outcome::Fail { error: format!("sh was killed by signal {number}"), killed };
    assert_eq!(run("kill -KILL $$"), killed(9, true));
    assert_eq!(run("kill -TERM $$"), killed(15, true));
    assert_eq!(run("ulimit -c 0; kill -SEGV $$"), killed(11, false));
}

#[test]
fn timeout_ends_a_program_that_obeys_and_one_that_ignores_term() {
    for script in ["exec sleep 30", "trap '' TERM; while :; do sleep 30; done", "kill -STOP $$"] {
        let got = error(run_short(script));
        assert!(got.starts_with("sh timed out after 80ms"), "{script}: {got}");
    }
}

#[test]
fn exit_0_after_the_timeout_is_still_a_failure() {
    assert_eq!(
        error(run_short("exec 2>&-; trap 'exit 0' TERM; while :; do sleep 30; done")),
        "sh timed out after 80ms"
    );
}

#[test]
fn flood_on_stdout_is_ended_and_fails() {
    assert_eq!(error(run("exec yes")), "sh wrote more than 65536 bytes to stdout (`result_max`)");
}

#[test]
fn flood_on_stderr_does_not_block_and_its_end_is_kept() {
    let error = error(run("yes | head -c 1000000 >&2; echo the end >&2; exit 1"));
    assert!(error.starts_with("sh exited with code 1:\ny") && error.ends_with("y\nthe end"), "{error}");
    assert!(error.len() <= crate::limits::ERROR_BYTES_MAX);
}

#[test]
fn large_payload_passes_both_ways_at_once() {
    let text = format!("\"{}\"", "x".repeat(60 << 10));
    let job = Assignment { payload: text.clone().into_bytes().into(), ..assignment(1) };
    assert_eq!(result(run_job("cat; echo noise >&2", job)), text);
}

#[test]
fn payload_that_nobody_reads_is_no_failure() {
    let job = || Assignment { payload: vec![b'1'; 1 << 20].into(), ..assignment(1) };
    assert_eq!(result(run_job("exec <&-; sleep 0.05; echo 1", job())), "1");
    assert_eq!(result(run_job("exit 0", job())), "");
}

#[test]
fn grandchild_that_holds_the_pipes_neither_hangs_the_worker_nor_stays() {
    let pid = result(run("sleep 30 & echo $!"));
    until("the grandchild's end", || !runs(&pid));
}

#[test]
fn too_large_a_result_fails_the_job() {
    let got = error(run("head -c 65535 /dev/zero | tr '\\0' x"));
    assert_eq!(got, "sh succeeded, but the result is 65537 bytes of JSON, the most is 65536 (`result_max`)");
}

#[test]
fn cutoff_gives_back_what_runs_and_what_waits() {
    let (dir, cut) = (tempfile::tempdir().unwrap(), cutoff());
    let cutter = cut_when_running(dir.path(), &cut);
    let mut worker = worker(sh(dir.path(), "trap 'exit 0' TERM; echo >running; while :; do sleep 30; done"), &cut);
    let job = |n| Assignment { kill_after: SHORT, ..assignment(n) };
    let got = outcomes(&mut *worker, vec![job(1), job(2)]);
    assert_eq!(got, [(1, Outcome::Interrupted), (2, Outcome::Interrupted)]);
    cutter.join().unwrap();
}

/// Cancels the first of two jobs once its program, which says so in `running`, runs; what became of both, and its pid.
fn cancelled(script: &str) -> (Vec<(u64, Outcome)>, String) {
    let (dir, cut) = (tempfile::tempdir().unwrap(), cutoff());
    let board = Board::new(Arc::clone(&cut), RealClock::shared());
    let job = |n| Assignment { kill_after: SHORT, run: board.run(assignment(n).lease, 0), ..assignment(n) };
    let batch = vec![job(1), job(2)];
    let first = batch[0].lease;
    let script = format!("[ $BIOTOPE_JOB_ID = job-1 ] || exit 0; echo $$ >pid; {script}");
    let mut worker = worker(sh(dir.path(), &script), &cut);
    let canceller = when_running(dir.path(), move || board.cancel(first));
    let got = outcomes(&mut *worker, batch);
    canceller.join().unwrap();
    (got, std::fs::read_to_string(dir.path().join("pid")).unwrap())
}

#[test]
fn cancelled_job_ends_its_process_and_the_next_one_runs() {
    let next = (2, Outcome::Done { result: None, enqueue: vec![] });
    for script in [
        "trap 'exit 0' TERM; echo >running; while :; do sleep 30; done",
        "trap '' TERM; echo >running; while :; do sleep 30; done",
        "echo >running; exec yes >&2",
    ] {
        let (got, pid) = cancelled(script);
        assert_eq!(got, [(1, Outcome::Interrupted), next.clone()], "{script}");
        assert!(!runs(pid.trim()), "{script}");
    }
}

#[test]
fn job_that_was_cancelled_before_its_turn_is_not_begun() {
    let dir = tempfile::tempdir().unwrap();
    let board = Board::new(cutoff(), RealClock::shared());
    let job = |n| Assignment { run: board.run(assignment(n).lease, 0), ..assignment(n) };
    board.cancel(assignment(1).lease);
    let mut worker = worker(sh(dir.path(), "echo $BIOTOPE_JOB_ID >>begun"), &cutoff());
    let got = outcomes(&mut *worker, vec![job(1), job(2)]);
    assert_eq!(got, [(1, Outcome::Interrupted), (2, Outcome::Done { result: None, enqueue: vec![] })]);
    assert_eq!(std::fs::read_to_string(dir.path().join("begun")).unwrap(), "job-2\n");
}

#[test]
fn program_that_cannot_be_started_costs_no_attempt_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut launch = sh(dir.path(), ":");
    launch.program = dir.path().join("beast");
    let check =
        |launch: &Launch| ExecFactory::new(launch.clone(), limits(), spawner()).check().unwrap_err().to_string();
    let path = launch.program.display().to_string();
    assert_eq!(check(&launch), format!("sh: cannot find the program {path}: No such file or directory"));
    std::fs::write(&launch.program, "").unwrap();
    assert_eq!(check(&launch), format!("sh: {path} is not executable: Permission denied"));
    program(&launch.program, "#!/no/such/interpreter\n");
    let mut worker = worker(launch.clone(), &cutoff());
    assert!(worker.is_ready());
    let why = Outcome::NotStarted { error: format!("sh: cannot start {path}: its interpreter is missing") };
    assert_eq!(outcomes(&mut *worker, vec![assignment(1), assignment(2)]), [(1, why.clone()), (2, why)]);
    assert!(!worker.is_ready());
    launch.dir = PathBuf::from("/no/such/dir");
    assert!(check(&launch).contains("cannot enter the working directory /no/such/dir"), "{}", check(&launch));
}

#[test]
fn nul_in_a_text_is_dead_at_once() {
    let got = run_job(":", Assignment { task: "a\0b".into(), ..assignment(1) });
    assert_eq!(got, Outcome::Dead { error: "the task holds a NUL character, which no program can be given".into() });
}

#[test]
fn follow_ups_come_with_the_result_all_or_none() {
    let types = |script: &str| match run(script) {
        Outcome::Done { enqueue, .. } => enqueue.iter().map(|job| job.worker_type.to_string()).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    let good = r#"echo '{"type":"pay","payload":{"n" : 1}}' >>"$BIOTOPE_ENQUEUE""#;
    assert_eq!(
        types(&format!("{good}; echo >>$BIOTOPE_ENQUEUE; printf '{{\"type\":\"ship\"}}' >>$BIOTOPE_ENQUEUE")),
        ["pay", "ship"]
    );
    // A program may put a whole file in its place, too.
    assert_eq!(
        types(&format!(
            "{good}; echo '{{\"type\":\"mail\"}}' >$BIOTOPE_ENQUEUE.tmp; mv $BIOTOPE_ENQUEUE.tmp $BIOTOPE_ENQUEUE"
        )),
        ["mail"]
    );
    assert_eq!(run(&format!("{good}; exit 3")), fail("sh exited with code 3"));
}

#[test]
fn bad_follow_up_fails_the_attempt_and_is_named_by_its_line() {
    let bad = |line: &str| error(run(&format!("printf '%s\\n' '{{\"type\":\"pay\"}}' '' '{line}' >$BIOTOPE_ENQUEUE")));
    let no_json = bad(r#"{"type":"pay",}"#);
    assert!(no_json.starts_with("sh succeeded, but BIOTOPE_ENQUEUE line 3, column 15: invalid JSON: "), "{no_json}");
    let no_type = bad("{}");
    assert!(no_type.starts_with("sh succeeded, but BIOTOPE_ENQUEUE line 3: ") && no_type.contains("type"), "{no_type}");
    let many = error(run("yes '{\"type\":\"pay\"}' | head -n 1001 >$BIOTOPE_ENQUEUE"));
    assert_eq!(many, "sh succeeded, but BIOTOPE_ENQUEUE line 1001: more than 1000 jobs");
}

#[test]
fn p12_environment_that_is_too_large_costs_no_attempt() {
    let dir = tempfile::tempdir().unwrap();
    let mut launch = sh(dir.path(), ":");
    launch.env.push(("LARGE".into(), "x".repeat(200_000).into()));
    let mut worker = worker(launch, &cutoff());
    let error = "sh: cannot start /bin/sh: Argument list too long (os error 7)".to_owned();
    assert_eq!(outcomes(&mut *worker, vec![assignment(1)]), [(1, Outcome::NotStarted { error })]);
    assert!(!worker.is_ready());
}

#[test]
fn p12_program_that_is_being_written_costs_no_attempt() {
    let dir = tempfile::tempdir().unwrap();
    let mut launch = sh(dir.path(), ":");
    launch.program = dir.path().join("beast");
    // Another process writes it, for the reason that `program` gives.
    let mut writer = Command::new("/bin/sh");
    writer.args(["-c", "cp /bin/sh \"$0\"; exec 3>>\"$0\"; echo; read -r go"]).arg(&launch.program);
    let mut writer = writer.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    writer.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let mut worker = worker(launch.clone(), &cutoff());
    let error = format!("sh: cannot start {}: Text file busy (os error 26)", launch.program.display());
    assert_eq!(outcomes(&mut *worker, vec![assignment(1)]), [(1, Outcome::NotStarted { error })]);
    drop(writer.stdin.take());
    writer.wait().unwrap();
    worker.start(SHORT).unwrap();
    assert_eq!(result(outcomes(&mut *worker, vec![assignment(1)]).remove(0).1), "");
}

#[test]
fn program_that_is_replaced_while_it_runs_ends_as_it_began_and_the_next_run_is_of_the_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut launch = sh(dir.path(), "");
    launch.program = script(dir.path(), "read go <gate; echo old");
    let gate = dir.path().join("gate");
    fifo(&gate);
    let program = launch.program.clone();
    let mut worker = worker(launch, &cutoff());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Opens when the old one has.
            let gate = std::fs::File::create(gate).unwrap();
            let new = script(&dir.path().join("new"), "echo new");
            std::fs::rename(new, program).unwrap();
            drop(gate);
        });
        assert_eq!(result(outcomes(&mut *worker, vec![assignment(1)]).remove(0).1), "\"old\"");
    });
    assert_eq!(result(outcomes(&mut *worker, vec![assignment(2)]).remove(0).1), "\"new\"");
}

#[test]
fn script_that_does_not_say_what_runs_it_is_run_by_sh() {
    let dir = tempfile::tempdir().unwrap();
    let mut launch = sh(dir.path(), "");
    launch.program = script(dir.path(), "");
    std::fs::write(&launch.program, "echo $0 is run\n").unwrap();
    launch.args.clear();
    let want = format!("\"{} is run\"", launch.program.display());
    assert_eq!(result(outcomes(&mut *worker(launch, &cutoff()), vec![assignment(1)]).remove(0).1), want);
}

#[test]
fn silent_failure_is_named_by_its_code() {
    assert_eq!(error(run("exit 9")), "sh exited with code 9");
}

#[test]
fn a_line_on_stderr_may_say_how_far_it_is_and_the_error_leaves_it_out() {
    let dir = tempfile::tempdir().unwrap();
    let (cut, job) = (cutoff(), assignment(1));
    let board = Board::new(Arc::clone(&cut), RealClock::shared());
    let lease = job.lease;
    let script =
        "echo first >&2; echo biotope:progress 40% page 3 >&2; echo >running; read -r go <go; echo last >&2; exit 1";
    fifo(&dir.path().join("go"));
    let (seen, go) = (Arc::clone(&board), dir.path().join("go"));
    let looker = when_running(dir.path(), move || {
        until("the progress", || seen.told(lease).is_some());
        let progress = seen.told(lease).unwrap().progress.unwrap().0;
        assert_eq!((progress.fraction(), progress.text()), (Some(0.4), Some("page 3")));
        std::fs::write(go, "\n").unwrap();
    });
    let job = Assignment { run: board.run(lease, 0), ..job };
    let got = outcomes(&mut *worker(sh(dir.path(), script), &cut), vec![job]);
    looker.join().unwrap();
    assert_eq!(got, [(1, fail("sh exited with code 1:\nfirst\nlast"))]);
}

#[test]
fn a_line_on_stderr_moves_the_timeout_up_to_its_bound() {
    let (timeout, timeout_max) = (Duration::from_millis(1500), Duration::from_secs(6));
    let run = |script| run_job(script, Assignment { timeout, timeout_max, kill_after: SHORT, ..assignment(1) });
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(result(run("echo biotope:extend 10s >&2; sleep 2; echo 1")), "1"));
        let again = "for i in 1 2 3 4; do echo biotope:extend >&2; sleep 0.5; done; echo 1";
        scope.spawn(|| assert_eq!(result(run(again)), "1"));
        let ever = "while :; do echo biotope:extend 10s >&2; sleep 0.1; done";
        scope.spawn(|| assert_eq!(run(ever), fail("sh timed out after 6s")));
        scope.spawn(|| assert_eq!(run("echo biotope:extend 1ms >&2; sleep 30"), fail("sh timed out after 1.5s")));
    });
}
