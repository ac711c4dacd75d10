//! The zoo of bad children: what becomes of their jobs, what it costs, and that nothing of them stays.
//!
//! One line for each animal; beside it the tests that show it, per job and persistent. `exec::` and `persistent::` are the
//! workers' own tests in `src/worker`, which run twice, with and without the helper; the others are here or in a file beside
//! this one. `every_animal_has_its_tests` holds the list to what is there.
//!
//! | animal | its job | per job | persistent |
//! |---|---|---|---|
//! | ignores TERM | fails, killed after `kill_after` | `exec::timeout_ends_a_program_that_obeys_and_one_that_ignores_term` | `persistent::hung_job_times_out_and_a_program_that_ignores_term_is_killed` |
//! | a grandchild keeps the pipes | as its parent ended; the grandchild is killed | `exec::grandchild_that_holds_the_pipes_neither_hangs_the_worker_nor_stays` | `persistent::grandchild_that_holds_the_pipes_of_a_process_that_stayed_neither_hangs_the_cycle_nor_stays` |
//! | a grandchild leaves the session | as its parent ended; the grandchild ends with the helper | `p14_a_job_runs_again_when_nothing_of_its_run_before_is_left` | `p14_a_helper_that_ends_takes_everything_along` |
//! | floods stdout | fails at once | `exec::flood_on_stdout_is_ended_and_fails` | `persistent::endless_line_is_ended_within_bounded_memory` |
//! | floods with what is allowed | fails after its timeout | `exec::timeout_ends_a_program_that_obeys_and_one_that_ignores_term` | `persistent::flood_of_notifications_cannot_pass_the_timeout` |
//! | floods stderr | as it answers | `exec::flood_on_stderr_does_not_block_and_its_end_is_kept` | `persistent::flood_on_stderr_blocks_nothing_and_its_end_is_kept` |
//! | answers garbage | text is a result; no line of the protocol: fails | `exec::payload_comes_on_stdin_and_stdout_is_the_result` | `persistent::broken_protocol_replaces_the_process_and_fails_what_is_open` |
//! | answers twice | two values are a text; the first answer counts, the second one fails what is open | `the_output_is_json_or_text` | `persistent::broken_protocol_replaces_the_process_and_fails_what_is_open` |
//! | answers for a job that it does not hold | what is open fails | | `persistent::answer_to_a_job_of_the_cycle_before_is_to_one_that_is_not_held` |
//! | closes stdin | no failure per job; what it has not answered fails | `exec::payload_that_nobody_reads_is_no_failure` | `persistent::closed_stdin_breaks_the_protocol_at_once` |
//! | closes stdin, and is asked for much | what was not asked costs nothing | | `persistent::what_a_closed_stdin_was_never_asked_is_given_back` |
//! | closes stdin between cycles | costs nothing | | `persistent::process_that_closed_its_stdin_between_cycles_costs_no_attempt` |
//! | closes stdout | ends as it exits; what is open fails | `exec::payload_comes_on_stdin_and_stdout_is_the_result` | `persistent::broken_protocol_replaces_the_process_and_fails_what_is_open` |
//! | exits silently | by its code; persistent: fails | `exec::silent_failure_is_named_by_its_code` | `persistent::silent_exit_fails_the_job_also_with_code_0` |
//! | exits between cycles | costs nothing | | `persistent::process_that_left_between_cycles_costs_no_attempt` |
//! | sleeps for ever | fails after its timeout | `exec::timeout_ends_a_program_that_obeys_and_one_that_ignores_term` | `persistent::hung_job_times_out_and_a_program_that_ignores_term_is_killed` |
//! | stops itself | fails after its timeout | `exec::timeout_ends_a_program_that_obeys_and_one_that_ignores_term` | |
//! | never says hello | waits, costs nothing | | `persistent::start_that_fails_says_why` |
//! | is not executable, does not exist | waits, costs nothing | `exec::program_that_cannot_be_started_costs_no_attempt_and_is_named` | `persistent::p12_program_that_cannot_be_started_says_why` |
//! | is gone while biotope runs, and comes back | waits, costs nothing, then runs | `a_program_that_is_gone_costs_nothing_until_it_is_back` | `a_program_that_is_gone_costs_nothing_until_it_is_back` |
//! | is replaced while running | ends as it began; the next start is of the new one | `exec::program_that_is_replaced_while_it_runs_ends_as_it_began_and_the_next_run_is_of_the_new_one` | `persistent::program_that_is_replaced_stays_as_it_is_until_its_process_ends` |
//! | is being written (ETXTBSY) | waits, costs nothing | `exec::p12_program_that_is_being_written_costs_no_attempt` | `persistent::p12_program_that_cannot_be_started_says_why` |
//! | is given too much (E2BIG) | waits, costs nothing | `exec::p12_environment_that_is_too_large_costs_no_attempt` | `persistent::p12_program_that_cannot_be_started_says_why` |
//! | leaves zombies | none stays | `every_animal_costs_what_it_should_and_leaves_nothing` | `every_animal_costs_what_it_should_and_leaves_nothing` |
//! | inherits descriptors | 0 to 2 | `exec::descriptors_that_this_process_was_started_with_do_not_pass_on` | `persistent::p15_only_the_three_pipes_are_open_in_a_process_that_stays` |
//! | inherits signals that are blocked or ignored | none | `p16_a_child_takes_every_signal_whatever_biotope_was_started_with` | `p16_a_child_takes_every_signal_whatever_biotope_was_started_with` |
//! | loses the helper that started it, killed | runs again at no cost, when nothing of it is left | `p14_a_killed_helper_is_replaced_when_nothing_that_it_started_is_left` | `p14_a_killed_helper_is_replaced_when_nothing_that_it_started_is_left` |
//! | kills the helper, three times | dead of that, at no attempt; what ran beside it goes on | `p14_a_job_that_kills_the_helper_is_dead_after_three_times_and_others_lose_no_attempt` | `p14_a_killed_helper_is_replaced_when_nothing_that_it_started_is_left` |
//! | leaves something that left its session, and loses the helper | that ends at once | `p14_a_killed_helper_is_replaced_when_nothing_that_it_started_is_left` | `p14_what_a_killed_helper_leaves_ends_at_once_also_if_nobody_needs_it` |
//! | leaves something that left its session; helper and biotope are killed at once | runs again when nothing of it is left | `p14_nothing_is_left_of_a_run_when_biotope_and_its_helper_are_killed_at_once` | |
//! | has a helper that is stopped | waits, costs nothing; what shall end ends | `p14_a_stopped_helper_holds_nothing_up_for_long` | |
//! | outlives the thread that started it | is unharmed | `p13_a_thread_that_ends_takes_no_healthy_child_along` | `p13_a_thread_that_ends_takes_no_healthy_child_along` |

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::wait::until;
use crate::support::{BIOTOPE, Home, SOON, repository, skipped};

/// An animal: what it does with a job that is wild, and what is said of it then.
struct Animal {
    name: &'static str,
    /// Lines of sh that deal with the job, and a part of the error.
    per_job: Option<(&'static str, &'static str)>,
    /// As that; `answer ID RESULT` answers, `$id` is the job's.
    persistent: Option<(&'static str, &'static str)>,
}

const ANIMALS: [Animal; 7] = [
    Animal {
        name: "ignores-term",
        per_job: Some(("trap '' TERM; while :; do sleep 1000; done", "timed out after 3s")),
        persistent: Some(("trap '' TERM; while :; do sleep 1000; done", "did not answer in time")),
    },
    Animal {
        name: "leaves-grandchildren",
        per_job: Some(("sleep 1000 & (sleep 1000 &); setsid true & echo oh >&2; exit 7", "exited with code 7: oh")),
        persistent: Some(("sleep 1000 & (sleep 1000 &); setsid true & echo oh >&2; exit 7", "exited with code 7: oh")),
    },
    Animal {
        name: "floods",
        per_job: Some(("exec yes", "(`result_max`)")),
        persistent: Some(("exec yes", "no JSON-RPC 2.0")),
    },
    Animal {
        name: "answers-for-others",
        per_job: None,
        persistent: Some((r#"answer nobody "{}""#, "answered the unknown id \"nobody\"")),
    },
    Animal {
        name: "closes-stdin",
        per_job: Some(("exec <&-; echo deaf >&2; exit 1", "exited with code 1: deaf")),
        // It has read all that it was sent, so an answer may come yet.
        persistent: Some(("exec <&-; sleep 1000", "did not answer in time")),
    },
    Animal {
        name: "exits-silently",
        per_job: Some(("exit 1", "one.sh exited with code 1")),
        persistent: Some(("exit 0", "one.sh exited with code 0")),
    },
    Animal {
        name: "sleeps",
        per_job: Some(("exec sleep 1000", "timed out after 3s")),
        persistent: Some(("exec sleep 1000", "did not answer in time")),
    },
];

/// What all have; a short `timeout` only those whose end it is, since others may take their time where much goes on.
fn common(wild: &str) -> String {
    let timeout = if wild.contains("sleep 1000") && !wild.contains("exit") { "3s" } else { "2m" };
    format!(
        "version = \"v1\"\nmax_attempts = 2\ntimeout = \"{timeout}\"\nkill_after = \"200ms\"\nstart_timeout = \"30s\"\n\
         backoff = {{ first = \"10ms\", factor = 1, max = \"10ms\" }}\n"
    )
}

/// A worker per job, and its program, which does this with a job that is wild.
fn per_job(home: &Home, name: &str, wild: &str) -> String {
    std::fs::create_dir(home.path(name)).unwrap();
    let script = format!("read -r payload\n[ \"$payload\" = '\"wild\"' ] || {{ echo tame; exit; }}\n{wild}");
    home.script(&format!("{name}/one.sh"), &script);
    format!("[workers.{name}]\n{}exec = [\"{name}/one.sh\"]\n", common(wild))
}

/// A persistent worker, and its program, which does this with a job that is wild.
fn persistent(home: &Home, name: &str, wild: &str) -> String {
    std::fs::create_dir(home.path(name)).unwrap();
    let script = format!(
        r#"answer() {{ printf '{{"id":"%s","jsonrpc":"2.0","result":%s}}\n' "$1" "$2"; }}
while IFS= read -r line; do
    id=${{line#*\"id\":\"}}; id=${{id%%\"*}}
    case $line in
    *'"method":"hello"'*) answer "$id" '{{"protocol":1}}' ;;
    *'"method":"wipe"'*) answer "$id" '{{}}' ;;
    *'"payload":"wild"'*)
        {wild}
        ;;
    *) answer "$id" '{{"value":"tame"}}' ;;
    esac
done"#
    );
    home.script(&format!("{name}/one.sh"), &script);
    format!("[workers.{name}]\n{}exec = [\"{name}/one.sh\"]\nmode = \"persistent\"\n", common(wild))
}

/// Processes of which `stat`, all behind the name in brackets, and the working directory are as wanted.
pub(crate) fn processes(wanted: impl Fn(&[&str], &Path) -> bool) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let seen = pids.filter_map(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let dir = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        wanted(&fields, &dir).then(|| stat.clone())
    });
    seen.collect()
}

#[test]
fn every_animal_costs_what_it_should_and_leaves_nothing() {
    let home = Home::bare();
    let mut config = String::new();
    let mut kept: Vec<(String, &str)> = Vec::new();
    for Animal { name, per_job: first, persistent: second } in &ANIMALS {
        if let Some((wild, error)) = first {
            let name = format!("once-{name}");
            config += &per_job(&home, &name, wild);
            kept.push((name, error));
        }
        if let Some((wild, error)) = second {
            let name = format!("stays-{name}");
            config += &persistent(&home, &name, wild);
            kept.push((name, error));
        }
    }
    home.configure(&config);
    let biotope = home.start();
    let push = |payload: &'static str| {
        let biotope = &biotope;
        move |(name, error): &(String, &'static str)| {
            (biotope.push(&json!({"type": name, "payload": payload})), name.clone(), *error)
        }
    };
    let wild: Vec<_> = kept.iter().map(push("wild")).collect();
    for (id, name, error) in wild {
        let job = biotope.until_state(&id, "dead");
        assert_eq!(job["attempts"], 2, "{name}: {job}");
        assert!(job["error"].as_str().unwrap().contains(error), "{name}: {job}");
    }
    let tame: Vec<_> = kept.iter().map(push("tame")).collect();
    for (id, name, _) in tame {
        let job = biotope.until_state(&id, "completed");
        assert_eq!((&job["attempts"], &job["result"]), (&json!(0), &json!("tame")), "{name}: {job}");
    }
    let helper = home.text("data/SPAWNER").trim().to_owned();
    until("the burial of the dead", SOON, || {
        let zombies = processes(|stat, _| stat[0] == "Z" && stat[1] == helper);
        if zombies.is_empty() { Ok(()) } else { Err(format!("{zombies:?}")) }
    });
    biotope.stop();
    let dir = home.path(".").canonicalize().unwrap();
    let left = processes(|_, at| at.starts_with(&dir));
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_program_that_is_gone_costs_nothing_until_it_is_back() {
    let home = Home::bare();
    home.configure(&(per_job(&home, "once", ":") + &persistent(&home, "stays", "exit 1")));
    let biotope = home.start();
    // It is up when it has done something.
    biotope.until_state(&biotope.push(&json!({"type": "stays"})), "completed");
    let programs = ["once", "stays"].map(|name| home.path(&format!("{name}/one.sh")));
    for program in &programs {
        std::fs::rename(program, program.with_extension("away")).unwrap();
    }
    // What runs is not disturbed; the next start is.
    let broken = biotope.push(&json!({"type": "stays", "payload": "wild", "max_attempts": 1}));
    biotope.until_state(&broken, "dead");
    let waiting = ["once", "stays"].map(|name| biotope.push(&json!({"type": name, "payload": "tame"})));
    for name in ["once", "stays"] {
        until("a reason", SOON, || {
            let shown = biotope.of_type(name)["versions"][0]["reason"].to_string();
            if shown.contains("cannot find the program") { Ok(()) } else { Err(shown) }
        });
    }
    for program in &programs {
        std::fs::rename(program.with_extension("away"), program).unwrap();
    }
    for id in waiting {
        let job = biotope.until_state(&id, "completed");
        assert_eq!((&job["attempts"], &job["deferrals"]), (&json!(0), &json!(0)), "{job}");
    }
    biotope.stop();
}

#[test]
fn p16_a_child_takes_every_signal_whatever_biotope_was_started_with() {
    let name = "p16_a_child_takes_every_signal_whatever_biotope_was_started_with";
    let given = ["--block-signal=TERM,USR1,CHLD", "--ignore-signal=USR2,PIPE,QUIT,TTIN"];
    if !Command::new("env").args(given).arg("true").output().is_ok_and(|output| output.status.success()) {
        return skipped(name, "needs an env that blocks signals");
    }
    let home = Home::bare();
    let masks = "masks=$(grep -E 'SigBlk|SigIgn' /proc/self/status | tr -d '\\n\\t')";
    let once = per_job(&home, "once", &format!("{masks}; echo \"$masks\""));
    let stays = persistent(&home, "stays", &format!("{masks}; answer \"$id\" \"{{\\\"value\\\":\\\"$masks\\\"}}\""));
    home.configure(&(once + &stays));
    let mut command = Command::new("env");
    command.args(given).arg(BIOTOPE).arg("--config").arg(home.path("biotope.toml")).arg("run");
    let biotope = home.start_by(command);
    for name in ["once", "stays"] {
        let id = biotope.push(&json!({"type": name, "payload": "wild"}));
        let job = biotope.until_state(&id, "completed");
        let (blocked, ignored) = job["result"].as_str().unwrap().split_once("SigIgn:").unwrap();
        let mask = |text: &str| u64::from_str_radix(text.trim_start_matches("SigBlk:"), 16).unwrap();
        // Two are the C library's own, and may be ignored where the tests were started.
        assert_eq!((mask(blocked), mask(ignored) & !(0b11 << 31)), (0, 0), "{name}: {job}");
    }
    // What asks it to stop was blocked, too.
    biotope.stop();
}

#[test]
fn every_animal_has_its_tests() {
    let text = |path: &str| std::fs::read_to_string(repository().join(path)).unwrap();
    let (once, stays) = (text("src/worker/exec/tests.rs"), text("src/worker/persistent/tests.rs"));
    let others =
        ["src/worker/spawner/tests/helped.rs", "tests/it/zoo.rs", "tests/it/processes.rs", "tests/it/programs.rs"];
    let others = others.map(text).concat();
    let mut named = 0;
    for line in text("tests/it/zoo.rs").lines().filter_map(|line| line.strip_prefix("//! | ")) {
        // Columns in between say what becomes of the job.
        for cell in line.split(" | ").skip(2) {
            let Some(test) = cell.trim_matches([' ', '|']).strip_prefix('`').and_then(|cell| cell.strip_suffix('`'))
            else {
                continue;
            };
            let (place, test) = match test.split_once("::") {
                Some(("exec", test)) => (&once, test),
                Some(("persistent", test)) => (&stays, test),
                _ => (&others, test),
            };
            assert!(place.contains(&format!("fn {test}(")), "{test} is no test");
            named += 1;
        }
    }
    assert!(named > 40, "{named}");
}
