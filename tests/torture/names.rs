//! Q1 to Q4 and P9, each by itself: what a client repeats, what comes too late, what can never go well, and what kills its host.

use serde_json::{Value, json};

use crate::process::Process;
use crate::producer::alive;
use crate::support::wait::until;
use crate::support::{Home, SOON, tell};
use crate::wire::{Answer, connect, get, post};

const ECHO: &str = "[workers.echo]\nversion = \"v1\"\nexec = [\"cat\"]\n";

fn push(home: &Home, job: &Value) -> Answer {
    connect(home.port).unwrap().push(std::slice::from_ref(job)).remove(0)
}

fn job(home: &Home, id: &str) -> Value {
    get(home.port, &format!("/v1/jobs/{id}")).unwrap()
}

fn until_state(home: &Home, id: &str, state: &str) -> Value {
    until(state, SOON, || {
        let job = job(home, id);
        if job["state"] == state { Ok(job) } else { Err(job.to_string()) }
    })
}

#[test]
fn q1_an_action_repeated_after_a_lost_answer_takes_effect_once() {
    let home = Home::new(ECHO);
    let process = Process::serving(&home);
    let Answer::Yes(id) = push(&home, &json!({"type": "echo", "delay": "1h"})) else { panic!("not pushed") };
    // The answer is never read: whether it came is unknown to the client.
    let path = format!("/v1/jobs/{id}/cancel");
    let line = connect(home.port).unwrap();
    std::thread::spawn(move || line.send("POST", &path, "application/json", b"")).join().unwrap();
    process.kill();
    let process = Process::serving(&home);
    // Repeated, it is done, or says that there is nothing left to do.
    let again = connect(home.port).unwrap().send("POST", &format!("/v1/jobs/{id}/cancel"), "application/json", b"");
    let (status, said) = again.unwrap();
    let said = String::from_utf8(said).unwrap();
    assert!(status == 200 || status == 409 && said.contains("wrong_state"), "{status} {said}");
    assert_eq!(job(&home, &id)["state"], "cancelled");
    let seen = get(home.port, "/v1/ecosystem").unwrap();
    assert_eq!((&seen["types"][0]["cancelled"], alive(&seen["types"][0])), (&json!(1), 0), "{seen}");
    process.stop();
}

/// A persistent worker that answers its first run's lease in the second one, too: late, under an older fence.
const LATE: &str = r##"#!/usr/bin/env -S python3 -I -S
import json, os, sys
def answer(id, **what):
    sys.stdout.write(json.dumps({"id": id, "jsonrpc": "2.0", **what}) + "\n")
    sys.stdout.flush()
for line in sys.stdin:
    message = json.loads(line)
    if message["method"] == "hello":
        answer(message["id"], result={"protocol": 1})
    elif message["method"] == "job":
        with open("runs", "a") as runs:
            runs.write(message["id"] + "\n")
        leases = open("runs").read().split()
        if len(leases) == 1:
            open("gate").read()
        elif len(leases) == 2:
            answer(leases[0], result={"value": "late"})
        else:
            answer(message["id"], result={"value": "in time"})
    elif "id" in message:
        answer(message["id"], result={})
"##;

#[test]
fn q2_an_answer_under_an_older_lease_changes_nothing() {
    let home = Home::bare();
    home.script("late.py", LATE);
    home.pipe("gate");
    home.configure(
        "[workers.late]\nversion = \"v1\"\nexec = [\"./late.py\"]\nmode = \"persistent\"\nbackoff = { first = \"1ms\", factor = 1, max = \"1ms\" }\n",
    );
    let process = Process::serving(&home);
    let Answer::Yes(id) = push(&home, &json!({"type": "late"})) else { panic!("not pushed") };
    until(
        "the first run",
        SOON,
        || if home.text("runs").lines().count() == 1 { Ok(()) } else { Err(home.text("runs")) },
    );
    process.kill();
    let process = Process::serving(&home);
    let done = until_state(&home, &id, "completed");
    let leases: Vec<String> = home.text("runs").lines().map(str::to_owned).collect();
    assert_eq!((leases.len(), &done["result"]), (3, &json!("in time")), "{leases:?} {done}");
    // The late answer was an offence against the protocol: it cost its run, and was not taken for a result.
    assert_eq!((&done["attempts"], &done["host_deaths"]), (&json!(1), &json!(1)), "{done}");
    process.stop();
}

#[test]
fn q3_a_push_repeated_after_a_crash_is_the_same_job() {
    let home = Home::new(ECHO);
    for named in ["id", "idempotency_key"] {
        let first = json!({"type": "echo", named: format!("by-{named}"), "payload": {"a": 1}});
        let process = Process::serving(&home);
        // Sent, and the process killed before its answer is read.
        let line = connect(home.port).unwrap();
        let sent = first.clone();
        let pushing = std::thread::spawn(move || line.push(&[sent]).remove(0));
        process.kill();
        let before = pushing.join().unwrap();
        let process = Process::serving(&home);
        let Answer::Yes(id) = push(&home, &first) else { panic!("{first} was not taken") };
        if let Answer::Yes(known) = &before {
            assert_eq!(*known, id);
        }
        assert_eq!(push(&home, &first), Answer::Yes(id.clone()), "and once more");
        until_state(&home, &id, "completed");
        assert_eq!(push(&home, &first), Answer::Yes(id), "finished jobs are remembered, too");
        let other = json!({"type": "echo", named: format!("by-{named}"), "payload": {"a": 2}});
        assert_eq!(push(&home, &other), Answer::No(422, "key_conflict".to_owned()));
        process.stop();
    }
    let process = Process::serving(&home);
    let seen = get(home.port, "/v1/ecosystem").unwrap();
    assert_eq!((&seen["types"][0]["enqueued"], &seen["types"][0]["completed"]), (&json!(2), &json!(2)), "{seen}");
    process.stop();
}

#[test]
fn q4_a_job_that_never_goes_well_is_dead_after_its_attempts_over_crashes() {
    let home = Home::bare();
    home.script("poison.sh", "echo run >>runs; echo \"no luck with $BIOTOPE_ATTEMPT\" >&2; exit 1");
    home.configure(
        "[workers.poison]\nversion = \"v1\"\nexec = [\"./poison.sh\"]\nbackoff = { first = \"20ms\", factor = 1, max = \"20ms\" }\n",
    );
    let process = Process::serving(&home);
    let Answer::Yes(id) = push(&home, &json!({"type": "poison", "max_attempts": 6})) else { panic!("not pushed") };
    let failed = |at_least: u64| {
        until("failed attempts", SOON, || {
            let job = job(&home, &id);
            if job["attempts"].as_u64() >= Some(at_least) { Ok(()) } else { Err(job.to_string()) }
        });
    };
    failed(2);
    process.kill();
    let process = Process::serving(&home);
    failed(4);
    process.stop();
    let process = Process::serving(&home);
    let dead = until_state(&home, &id, "dead");
    assert_eq!(
        (&dead["attempts"], &dead["error"]),
        (&json!(6), &json!("./poison.sh exited with code 1: no luck with 6")),
        "{dead}"
    );
    let runs = home.text("runs").lines().count();
    tell(&format!("{runs} runs for 6 attempts"));
    // A run that the kill cut off counts no attempt.
    assert!((6..=7).contains(&runs), "{runs} runs");
    process.stop();
}

#[test]
fn p9_a_job_that_kills_its_host_is_dead_after_three_deaths() {
    let home = Home::bare();
    home.script("killer.sh", "[ \"$BIOTOPE_TASK\" != kill ] || kill -9 \"$(cat data/LOCK)\"");
    home.configure("[workers.killer]\nversion = \"v1\"\nexec = [\"./killer.sh\"]\n");
    let process = Process::serving(&home);
    let harmless = json!({"type": "killer", "id": "harmless", "delay": "1h"});
    assert_eq!(push(&home, &harmless), Answer::Yes("harmless".to_owned()));
    // Whether its answer arrives before the end of its host is a matter of luck.
    push(&home, &json!({"type": "killer", "id": "killer", "task": "kill"}));
    let (status, _) = process.until_gone();
    assert_eq!(status.code(), None, "{status}");
    for death in 2..=3 {
        let (status, said) = Process::start(&home, None).until_gone();
        assert_eq!(status.code(), None, "death {death}: {status}\n{said}");
    }
    let process = Process::serving(&home);
    let dead = until_state(&home, "killer", "dead");
    assert_eq!((&dead["host_deaths"], &dead["attempts"]), (&json!(3), &json!(0)), "{dead}");
    assert_eq!(post(home.port, "/v1/jobs/harmless/retry"), Some(200));
    until_state(&home, "harmless", "completed");
    process.stop();
}
