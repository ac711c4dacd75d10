//! Jobs and versions: parked until the one that they need takes work, and retried together if they died of one.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::wait::until;
use crate::support::{Biotope, Home, SOON, shown};

fn table(version: &str) -> String {
    format!("[workers.w]\nversion = \"{version}\"\nexec = [\"./w.sh\"]\nmax_attempts = 1\n")
}

/// A home of a worker that notes which version ran which job.
fn home(version: &str) -> Home {
    let home = Home::new(&table(version));
    home.script("w.sh", "echo \"$BIOTOPE_JOB_ID $BIOTOPE_VERSION\" >>runs.txt");
    home
}

/// Has another version take over by a signal.
fn roll(home: &Home, biotope: &Biotope<'_>, version: &str) {
    home.configure(&table(version));
    biotope.signal(Signal::HUP);
    biotope.until_version("w", version, "current");
}

fn counts(biotope: &Biotope<'_>) -> (Value, Value, Value) {
    let seen = biotope.of_type("w");
    (seen["ready"].clone(), seen["parked"].clone(), seen["completed"].clone())
}

#[test]
fn a_job_waits_for_its_version_over_a_restart_and_waits_again_after_going_back() {
    let home = home("v1");
    let biotope = home.start();
    biotope.until_version("w", "v1", "current");
    let pushed = biotope.post("/v1/jobs", &json!({"type": "w", "id": "a", "min_version": "v2"}).to_string());
    assert_eq!((pushed.status, &pushed.json()["state"]), (201, &json!("parked")), "{pushed:?}");
    let by_shell = home.cli(&["push", "w", "{}", "--min-version", "v2"]);
    assert!(by_shell.status.success(), "{}", shown(&by_shell));
    let b = String::from_utf8(by_shell.stdout).unwrap().trim().to_owned();
    let lines =
        biotope.push_lines("{\"type\":\"w\",\"id\":\"c\",\"min_version\":\"v1\"}\n{\"type\":\"w\",\"id\":\"d\"}\n");
    assert!(lines.iter().all(|line| line["status"] == 201), "{lines:?}");
    biotope.until_state("c", "completed");
    biotope.until_state("d", "completed");
    assert_eq!(counts(&biotope), (json!(0), json!(2), json!(2)));
    let job = biotope.job("a");
    assert_eq!((&job["state"], &job["min_version"], &job["attempts"]), (&json!("parked"), &json!("v2"), &json!(0)));
    let why = job["why"].as_str().unwrap();
    assert!(why.contains("v2") && why.contains("no config has had yet") && why.contains("v1 takes work"), "{why}");
    assert_eq!(biotope.jobs("state=parked").len(), 2, "they are listed as what they are");
    biotope.kill();

    // The log has it all.
    let biotope = home.start();
    biotope.until_version("w", "v1", "current");
    assert_eq!(counts(&biotope), (json!(0), json!(2), json!(2)));
    roll(&home, &biotope, "v2");
    for id in ["a", &b] {
        let job = biotope.until_state(id, "completed");
        assert_eq!((&job["version"], &job["attempts"], &job["why"]), (&json!("v2"), &json!(0), &Value::Null));
        assert_eq!(job["min_version"], "v2");
    }
    let job = biotope.push(&json!({"type": "w", "min_version": "v2"}));
    biotope.until_state(&job, "completed");

    // Back to v1 by the file of before, and on to a third one: it came later, whatever its label.
    roll(&home, &biotope, "v1");
    let again = biotope.push(&json!({"type": "w", "min_version": "v2"}));
    let job = biotope.job(&again);
    assert_eq!(job["state"], "parked");
    assert!(!job["why"].as_str().unwrap().contains("no config"), "{job}");
    let status = home.cli(&["jobs", "cancel", &biotope.push(&json!({"type": "w", "min_version": "v9"}))]);
    assert!(status.status.success(), "{}", shown(&status));
    roll(&home, &biotope, "a-third-one");
    assert_eq!(biotope.until_state(&again, "completed")["version"], "a-third-one");
    assert_eq!(counts(&biotope), (json!(0), json!(0), json!(6)));
    biotope.stop();
    let runs = home.text("runs.txt");
    assert_eq!(runs.lines().count(), 6, "each of them ran once:\n{runs}");
}

#[test]
fn a_follow_up_job_may_need_a_version_and_a_wrong_label_is_refused_with_its_place() {
    let home =
        Home::new(&(table("v1") + "[workers.first]\nversion = \"v1\"\nexec = [\"./first.sh\"]\nmax_attempts = 1\n"));
    home.script("w.sh", "true");
    home.script(
        "first.sh",
        "read -r line\ncase $line in *bad*) label='v 2' ;; *) label=v2 ;; esac\n\
         echo \"{\\\"type\\\":\\\"w\\\",\\\"id\\\":\\\"next\\\",\\\"min_version\\\":\\\"$label\\\"}\" >>\"$BIOTOPE_ENQUEUE\"",
    );
    let biotope = home.start();
    let bad = biotope.push(&json!({"type": "first", "payload": "bad"}));
    let bad = biotope.until_state(&bad, "dead");
    assert!(bad["error"].as_str().unwrap().contains("min_version"), "{bad}");
    let good = biotope.push(&json!({"type": "first"}));
    biotope.until_state(&good, "completed");
    biotope.until_state("next", "parked");
    biotope.until_version("w", "v1", "current");
    roll(&home, &biotope, "v2");
    assert_eq!(biotope.until_state("next", "completed")["version"], "v2");

    for (label, word) in [(json!("v 2"), "' '"), (json!(""), "empty"), (json!(2), "a string")] {
        let answer = biotope.post("/v1/jobs", &json!({"type": "w", "min_version": label}).to_string());
        let problem = answer.json();
        let detail = problem["detail"].as_str().unwrap();
        assert_eq!((answer.status, &problem["code"]), (400, &json!("invalid_job")));
        assert!(detail.contains("min_version") && detail.contains(word), "{detail}");
    }
    let lines = biotope.push_lines("{\"type\":\"w\"}\n{\"type\":\"w\",\"min_version\":\"-\"}\n");
    assert_eq!((&lines[1]["line"], &lines[1]["status"]), (&json!(2), &json!(400)), "{lines:?}");
    // What a repeated call needs is a part of its body.
    let repeated = |label: &str| {
        biotope.post("/v1/jobs", &json!({"type": "w", "idempotency_key": "k", "min_version": label}).to_string()).status
    };
    assert_eq!([repeated("v1"), repeated("v1"), repeated("v2")], [201, 200, 422]);
    biotope.stop();
}

#[test]
fn a_backlog_that_waits_for_a_version_is_let_go_whole_and_in_order() {
    let home = home("v1");
    let biotope = home.start();
    biotope.until_version("w", "v1", "current");
    let lines: String =
        (0..200).map(|n| format!("{{\"type\":\"w\",\"id\":\"j{n:03}\",\"min_version\":\"v2\"}}\n")).collect();
    assert!(biotope.push_lines(&lines).iter().all(|line| line["status"] == 201));
    assert_eq!(counts(&biotope), (json!(0), json!(200), json!(0)));
    let purged = home.cli(&["jobs", "list", "--state", "parked", "--limit", "0"]);
    assert_eq!(String::from_utf8_lossy(&purged.stdout).lines().count(), 200, "{}", shown(&purged));
    roll(&home, &biotope, "v2");
    until("all of them", SOON, || {
        let seen = counts(&biotope);
        if seen == (json!(0), json!(0), json!(200)) { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    biotope.stop();
    let runs = home.text("runs.txt");
    let ran: Vec<&str> = runs.lines().collect();
    assert!(ran.is_sorted() && ran.iter().all(|line| line.ends_with(" v2")) && ran.len() == 200, "{runs}");
}

#[test]
fn all_that_died_of_a_version_is_retried_by_one_command() {
    // Where the version before is kept warm, it makes up for what fails on the new one: nothing dies of that.
    let table = |version: &str| table(version) + "[workers.w.rollout]\nwarm_for = \"0s\"\n";
    let home = Home::new(&table("v1"));
    home.script("w.sh", "echo 'out of ink' >&2; exit 1");
    let biotope = home.start();
    let roll = |version: &str| {
        home.configure(&table(version));
        biotope.signal(Signal::HUP);
        biotope.until_version("w", version, "current");
    };
    let push = |count: usize| -> Vec<String> {
        let ids: Vec<String> = (0..count).map(|_| biotope.push(&json!({"type": "w"}))).collect();
        ids.iter().for_each(|id| drop(biotope.until_state(id, "dead")));
        ids
    };
    let of_v1 = push(4);
    roll("v2");
    let of_v2 = push(2);
    // One that died of v1 dies of v2 as well: the last time counts.
    assert_eq!(biotope.post(&format!("/v1/jobs/{}/retry", of_v1[0]), "").status, 200);
    until("the second death", SOON, || {
        let job = biotope.job(&of_v1[0]);
        let died = job["state"] == "dead" && job["version"] == "v2";
        if died { Ok(()) } else { Err(job.to_string()) }
    });
    home.script("w.sh", "true");
    roll("v3");
    let said = home.cli(&["jobs", "retry", "--failed-on", "w@v1"]);
    assert_eq!(
        (said.status.code(), String::from_utf8_lossy(&said.stdout).trim()),
        (Some(0), "3 retried"),
        "{}",
        shown(&said)
    );
    for id in &of_v1[1..] {
        let job = biotope.until_state(id, "completed");
        assert_eq!((&job["version"], &job["attempts"]), (&json!("v3"), &json!(0)));
    }
    assert!(of_v2.iter().chain(&of_v1[..1]).all(|id| biotope.job(id)["state"] == "dead"), "only what died of v1");
    let retried = biotope.post("/v1/types/w/retry?failed_on=v2", "");
    assert_eq!((retried.status, retried.json()), (200, json!({"type": "w", "failed_on": "v2", "retried": 3})));
    biotope.until_count("w", "completed", 6);
    assert_eq!(biotope.post("/v1/types/w/retry?failed_on=v2", "").json()["retried"], 0, "none is left");

    // What is not there is named with what is.
    for (failed_on, word) in [("w@v9", "known are: v1, v2, v3"), ("x@v1", "known are: w"), ("w@v 1", "known are: v1")] {
        let said = home.cli(&["jobs", "retry", "--failed-on", failed_on]);
        assert_eq!((said.status.code(), shown(&said).contains(word)), (Some(65), true), "{}", shown(&said));
    }
    assert_eq!(home.cli(&["jobs", "retry", "--failed-on", "w"]).status.code(), Some(64));
    let codes = ["/v1/types/w/retry?failed_on=v9", "/v1/types/x/retry?failed_on=v1", "/v1/types/w/retry"];
    let codes = codes.map(|path| biotope.post(path, "")).map(|answer| (answer.status, answer.json()["code"].clone()));
    let unknown = [(404, json!("unknown_version")), (404, json!("unknown_type")), (400, json!("bad_request"))];
    assert_eq!(codes, unknown);
    biotope.stop();
}
