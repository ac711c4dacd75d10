//! Jobs that are cancelled while they run: who runs them is told, and what they answer changes nothing.

use std::io::Read;

use serde_json::json;

use crate::support::wait::until;
use crate::support::{Biotope, Home, SOON, shown};

/// Waits until a process is gone, or only waits to be reaped.
fn until_gone(pid: &str) {
    until("the end of a process", SOON, || match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) if !stat.contains(") Z ") => Err(stat),
        _ => Ok(()),
    });
}

/// Waits until a file of a home has so many lines; the lines.
fn until_lines(home: &Home, name: &str, count: usize) -> Vec<String> {
    until(name, SOON, || {
        let lines: Vec<String> = home.text(name).lines().map(str::to_owned).collect();
        if lines.len() >= count { Ok(lines) } else { Err(format!("{lines:?}")) }
    })
}

fn cancel(biotope: &Biotope<'_>, id: &str) {
    let answer = biotope.post(&format!("/v1/jobs/{id}/cancel"), "");
    assert_eq!((answer.status, &answer.json()["state"]), (200, &json!("cancelled")), "{}", answer.json());
}

#[test]
fn a_program_of_a_cancelled_job_is_ended_with_its_group() {
    let home = Home::new("[workers.slow]\nversion = \"v1\"\nexec = [\"./slow.sh\"]\nkill_after = \"200ms\"\n");
    home.script(
        "slow.sh",
        "read -r payload\n[ \"$payload\" = 1 ] || exit 0\ntrap '' TERM\ntail -f /dev/null &\necho $! >>pids.txt\necho $$ >>pids.txt\nwait; wait",
    );
    let biotope = home.start();
    let id = biotope.push(&json!({"type": "slow", "payload": 1}));
    let pids = until_lines(&home, "pids.txt", 2);
    let cli = home.cli(&["jobs", "cancel", &id]);
    assert!(cli.status.success() && shown(&cli).contains("cancelled"), "{}", shown(&cli));
    assert_eq!(biotope.job(&id)["state"], "cancelled");
    pids.iter().for_each(|pid| until_gone(pid));
    // Its place is free again.
    let next = biotope.push(&json!({"type": "slow", "payload": 2}));
    biotope.until_state(&next, "completed");
    let view = biotope.of_type("slow");
    assert_eq!((&view["cancelled"], &view["completed"], &view["failed"]), (&json!(1), &json!(1), &json!(0)));
    assert_eq!(biotope.post(&format!("/v1/jobs/{id}/cancel"), "").status, 409);
    assert_eq!(home.text("pids.txt").lines().count(), 2, "it does not run again");
    biotope.stop();
}

#[test]
fn a_request_of_a_cancelled_job_is_dropped() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = format!("http = \"http://127.0.0.1:{port}/\"\nallow_private = true");
    let home = Home::new(&format!("[workers.w]\nversion = \"v1\"\n{url}\n"));
    let biotope = home.start();
    let id = biotope.push(&json!({"type": "w"}));
    let mut stream = until("a connection", SOON, || listener.accept().map_err(|error| error.to_string())).0;
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut first = [0; 1];
    stream.read_exact(&mut first).unwrap();
    cancel(&biotope, &id);
    // Nobody waits for the answer any more: the connection ends.
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    until("its end in the pool", SOON, || {
        let view = biotope.of_type("w");
        if view["versions"][0]["busy"] == 0 { Ok(()) } else { Err(view.to_string()) }
    });
    biotope.stop();
}

/// Keeps a job until it is told that it is cancelled.
const LISTENS: &str = r#"echo $$ >>starts.txt
while IFS= read -r line; do
    id=${line#*\"id\":\"} id=${id%%\"*}
    case $line in
    *'"method":"hello"'*) result='{"protocol":1}' ;;
    *'"method":"job"'*'"payload":"keep"'*) echo $id >>kept.txt; continue ;;
    *'"method":"job"'*'"payload":"deaf"'*) echo $id >>kept.txt; trap '' TERM; while :; do sleep 60; done ;;
    *) result='{}' ;;
    esac
    printf '{"id":"%s","jsonrpc":"2.0","result":%s}\n' "$id" "$result"
done"#;

#[test]
fn a_persistent_worker_is_told_of_a_cancelled_job_and_replaced_if_it_does_not_answer() {
    let kind =
        "exec = [\"./listens.sh\"]\nmode = \"persistent\"\nkill_after = \"200ms\"\nbatch = 2\nbatch_wait = \"1m\"";
    let home = Home::new(&format!("[workers.w]\nversion = \"v1\"\n{kind}\n"));
    home.script("listens.sh", LISTENS);
    let biotope = home.start();
    let push = |payload| biotope.push(&json!({"type": "w", "payload": payload}));
    let (kept, fine) = (push("keep"), push("fine"));
    until_lines(&home, "kept.txt", 1);
    biotope.until_state(&fine, "completed");
    cancel(&biotope, &kept);
    // It answered: the same process goes on.
    let (deaf, other) = (push("deaf"), push("fine"));
    until_lines(&home, "kept.txt", 2);
    let starts = home.text("starts.txt");
    assert_eq!(starts.lines().count(), 1);
    cancel(&biotope, &deaf);
    until_gone(starts.trim());
    // The batch's other job was not answered: it runs again, and nothing was counted. It waits for another one.
    push("fine");
    let other = biotope.until_state(&other, "completed");
    assert_eq!((&other["attempts"], &other["interrupts"]), (&json!(0), &json!(1)), "{other}");
    assert_eq!(biotope.job(&deaf)["state"], "cancelled");
    assert_eq!(biotope.of_type("w")["failed"], 0);
    biotope.stop();
}

/// What the protocol's page tries by hand, and a notification.
const BY_HAND: &str = r#"{"id":"a","jsonrpc":"2.0","method":"hello","params":{"protocol":1,"type":"t","version":"v1"}}
{"id":"b","jsonrpc":"2.0","method":"job","params":{"job_id":"1","task":"","payload":{},"attempt":1,"max_attempts":4,"tenant":null,"fence":1,"deadline_ms":0}}
{"jsonrpc":"2.0","method":"cancel","params":{"id":"b"}}
{"id":"c","jsonrpc":"2.0","method":"wipe","params":{}}
"#;

/// Each example answers what is asked, and passes over what is told.
fn passes_over_a_notification(worker: &str) {
    let home = Home::bare();
    home.write("lines", BY_HAND);
    let lines = std::fs::File::open(home.path("lines")).unwrap();
    let program = crate::support::repository().join("examples/workers").join(worker);
    let output = std::process::Command::new(program).stdin(lines).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    // What it tells unasked has no id.
    let said_id = |line| Some(serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_str()?.to_owned());
    let mut ids: Vec<String> = said.lines().filter_map(said_id).collect();
    // Nobody waited for the job's answer before the end of the cycle.
    ids.sort_unstable();
    assert_eq!(ids, ["a", "b", "c"], "{worker}: {said}");
}

#[test]
fn the_example_workers_in_python_and_sh_pass_over_a_notification() {
    passes_over_a_notification("worker.py");
    passes_over_a_notification("worker.sh");
}

#[test]
fn the_example_worker_in_javascript_passes_over_a_notification() {
    let name = "the_example_worker_in_javascript_passes_over_a_notification";
    match std::process::Command::new("node").arg("--version").output() {
        Ok(_) => passes_over_a_notification("worker.js"),
        Err(error) => crate::support::skipped(name, &format!("node: {error}")),
    }
}
