//! Processes that stay, for as long as they may: `recycle`, and one that has ended while nobody looked.

use std::collections::BTreeMap;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::support::wait::until;
use crate::support::{Biotope, Home, SOON};

/// Answers each job with its process id; one with the payload "grow" makes it hold 30 MB first.
const SHOWS_ITSELF: &str = r#"while IFS= read -r line; do
    id=${line#*\"id\":\"}; id=${id%%\"*}
    case $line in
    *'"method":"hello"'*) result='{"protocol":1}' ;;
    *'"payload":"grow"'*) held=$(head -c 30000000 /dev/zero | tr '\0' x); result="{\"value\":$$}" ;;
    *) result="{\"value\":$$}" ;;
    esac
    case $line in *'"method":"wipe"'*) result='{}' ;; esac
    printf '{"jsonrpc":"2.0","id":"%s","result":%s}\n' "$id" "$result"
done
echo $$ >>left.txt"#;

fn table(recycle: &str) -> String {
    format!("[workers.stays]\nversion = \"v1\"\nexec = [\"./stays.sh\"]\nmode = \"persistent\"\n{recycle}\n")
}

fn home(recycle: &str) -> Home {
    let home = Home::new(&table(recycle));
    home.script("stays.sh", SHOWS_ITSELF);
    home
}

/// Runs a job, alone in its cycle; the process that did it.
fn run(biotope: &Biotope<'_>, payload: &str) -> u64 {
    let job = biotope.until_state(&biotope.push(&json!({"type": "stays", "payload": payload})), "completed");
    assert_eq!((&job["attempts"], &job["interrupts"]), (&json!(0), &json!(0)), "{job}");
    job["result"].as_u64().unwrap_or_else(|| panic!("{job}"))
}

#[test]
fn a_process_is_replaced_after_its_cycles_and_a_reload_changes_how_many() {
    let home = home("recycle = { cycles = 2 }");
    let biotope = home.start();
    let mut cycles = BTreeMap::<u64, u32>::new();
    for _ in 0..6 {
        *cycles.entry(run(&biotope, "")).or_default() += 1;
    }
    assert_eq!(cycles.values().copied().collect::<Vec<_>>(), [2, 2, 2]);
    let seen = biotope.of_type("stays")["versions"][0].clone();
    assert!(seen["restarts"].as_u64().is_some_and(|restarts| restarts >= 2), "{seen}");
    assert_eq!(seen["last_restart"]["reason"], "it has done 2 cycles (`recycle.cycles`)", "{seen}");
    home.configure(&table(""));
    let reload = home.cli(&["reload", "--wait"]);
    assert!(reload.status.success(), "{}", crate::support::shown(&reload));
    let stays = run(&biotope, "");
    for _ in 0..4 {
        assert_eq!(run(&biotope, ""), stays);
    }
    biotope.stop();
    // In good order: each of them saw the end of its stdin.
    let left = home.text("left.txt");
    let left: Vec<u64> = left.lines().map(|pid| pid.parse().unwrap()).collect();
    assert!(cycles.keys().all(|pid| left.contains(pid)), "{left:?} of {cycles:?}");
}

#[test]
fn a_process_that_has_grown_is_replaced() {
    let home = home("recycle = { rss = \"20MiB\" }");
    let biotope = home.start();
    let first = run(&biotope, "");
    assert_eq!(run(&biotope, "grow"), first);
    let second = run(&biotope, "");
    assert_ne!(second, first);
    assert_eq!(run(&biotope, ""), second);
    biotope.stop();
}

#[test]
fn a_process_that_waits_for_work_is_replaced_when_it_is_too_old() {
    let home = home("recycle = { age = \"1s\" }");
    let biotope = home.start();
    let first = run(&biotope, "");
    // Younger than a second, or not: another one comes within two of them.
    until("another process", SOON, || {
        let now = run(&biotope, "");
        if now == first { Err(format!("{now} still")) } else { Ok(()) }
    });
    biotope.stop();
}

#[test]
fn a_process_that_ended_while_it_waited_for_work_costs_nothing() {
    let home = home("");
    let biotope = home.start();
    let first = run(&biotope, "");
    let pid = Pid::from_raw(i32::try_from(first).unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    until("its end", SOON, || match std::fs::read_to_string(format!("/proc/{first}/stat")) {
        Ok(stat) => Err(stat),
        Err(_) => Ok(()),
    });
    assert_ne!(run(&biotope, ""), first);
    assert_eq!(biotope.of_type("stays")["failed"], 0);
    biotope.stop();
    // Nor was it given back, and a pause made.
    let said = home.text("stderr.txt");
    assert!(!said.contains("between two cycles") && !said.contains("be started"), "{said}");
}
