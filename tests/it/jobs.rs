//! The life of single jobs: ids, order, time, failure, and what people do to them.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::wait::{until, wall_after};
use crate::support::{Biotope, Home, SOON, shown};

/// `gated` waits for the named pipe `gate` before each job and writes down which one ran. It has looked whether it must before
/// it says that it has begun.
const GATED: &str = r#"
[workers.gated]
version = "v1"
exec = ["./gated.sh"]
timeout = "10m"
"#;

fn gated_home() -> Home {
    let home = Home::new(GATED);
    home.script(
        "gated.sh",
        "[ -e open ]; waits=$?\necho \"$BIOTOPE_JOB_ID\" >>begun.txt\n[ $waits = 0 ] || { read -r line <gate || true; }\necho \"$BIOTOPE_JOB_ID\" >>runs.txt",
    );
    home.pipe("gate");
    home
}

/// Pushes a job that holds the only worker, and waits until it does.
fn hold_worker(home: &Home, biotope: &Biotope<'_>) {
    biotope.push(&json!({"type": "gated", "id": "holder", "priority": 9}));
    until("the holder", SOON, || if home.text("begun.txt").is_empty() { Err("not begun".into()) } else { Ok(()) });
}

/// Lets the held worker go, and every later job pass at once.
fn let_go(home: &Home) {
    home.write("open", "");
    home.open_gate("gate");
}

#[test]
fn a_chosen_id_or_key_counts_once() {
    let home = Home::new("[workers.echo]\nversion = \"v1\"\nexec = [\"cat\"]\n");
    let biotope = home.start();
    for member in ["id", "idempotency_key"] {
        let body = json!({"type": "echo", member: format!("my.{member}:1"), "payload": [1]}).to_string();
        let first = biotope.post("/v1/jobs", &body);
        assert_eq!(first.status, 201, "{first:?}");
        let id = first.json()["id"].clone();
        let again = biotope.post("/v1/jobs", &body);
        assert_eq!(again.status, 200, "{again:?}");
        assert_eq!((&again.json()["id"], &again.json()["duplicate"]), (&id, &json!(true)));
        let other = biotope
            .post("/v1/jobs", &json!({"type": "echo", member: format!("my.{member}:1"), "payload": [2]}).to_string());
        assert_eq!(other.status, 422, "{other:?}");
        assert_eq!(other.json()["code"], "key_conflict");
    }
    biotope.until_count("echo", "completed", 2);
    biotope.stop();

    // A restart forgets neither: the log itself remembers.
    let biotope = home.start();
    let again = biotope.post("/v1/jobs", r#"{"type":"echo","id":"my.id:1","payload":[1]}"#);
    assert_eq!((again.status, &again.json()["duplicate"]), (200, &json!(true)), "{again:?}");
    assert_eq!(biotope.of_type("echo")["enqueued"], 2);
    biotope.stop();
}

#[test]
fn higher_priorities_run_first_and_nothing_starves() {
    let home = gated_home();
    let biotope = home.start();
    hold_worker(&home, &biotope);
    let mut lines = String::new();
    for (priority, name) in [(1, "low"), (5, "middle"), (9, "high")] {
        for n in 0..30 {
            lines += &format!("{{\"type\":\"gated\",\"id\":\"{name}-{n:02}\",\"priority\":{priority}}}\n");
        }
    }
    assert!(biotope.push_lines(&lines).iter().all(|line| line["status"] == 201));
    let_go(&home);
    biotope.until_count("gated", "completed", 91);
    let runs = home.text("runs.txt");
    let order: Vec<&str> = runs.lines().skip(1).collect();
    // One pick in ten is the oldest whatever its priority, and a few jobs may have been handed over already.
    let high_early = order.iter().take(40).filter(|id| id.starts_with("high")).count();
    assert!(high_early >= 28, "only {high_early} of 30 among the first 40: {order:?}");
    let low_late = order.iter().skip(60).filter(|id| id.starts_with("low")).count();
    assert!(low_late >= 18, "only {low_late} among the last 30: {order:?}");
    assert!(order.iter().take(60).any(|id| id.starts_with("low")), "the oldest is never picked: {order:?}");
    biotope.stop();
}

#[test]
fn a_delayed_job_waits_and_an_expired_one_never_runs() {
    let home = gated_home();
    let biotope = home.start();
    hold_worker(&home, &biotope);
    let later = biotope.push(&json!({"type": "gated", "delay": "1h"}));
    assert_eq!(biotope.job(&later)["state"], "delayed");
    let soon = biotope.push(&json!({"type": "gated", "id": "soon", "run_at": wall_after(Duration::from_millis(200))}));
    // A first job may be handed to the pool already; the ones behind it wait in the queue and expire there.
    let ready: Vec<_> = (0..5).map(|n| json!({"type": "gated", "id": format!("filler-{n}")})).collect();
    for job in &ready {
        biotope.push(job);
    }
    // Later than its push, on a slow disk, too; then the marker's time comes.
    let [expires, then] = [3000, 3100].map(|ms| wall_after(Duration::from_millis(ms)));
    let short = biotope.push(&json!({"type": "gated", "id": "short", "priority": 0, "expires_at": expires}));
    let marker = biotope.push(&json!({"type": "gated", "run_at": then}));
    until("the moment of the marker", SOON, || {
        let job = biotope.job(&marker);
        if job["state"] == "delayed" { Err(job.to_string()) } else { Ok(()) }
    });
    let_go(&home);
    biotope.until_state(&short, "expired");
    biotope.until_state(&soon, "completed");
    biotope.until_count("gated", "completed", 8);
    assert!(!home.text("runs.txt").lines().any(|id| id == "short"), "an expired job ran");
    let counts = biotope.of_type("gated");
    assert_eq!((&counts["expired"], &counts["delayed"]), (&json!(1), &json!(1)), "{counts}");

    let now = biotope.post(&format!("/v1/jobs/{later}/retry"), "");
    assert_eq!(now.status, 200, "a delayed job can be let go at once: {now:?}");
    biotope.until_state(&later, "completed");
    biotope.stop();
}

#[test]
fn a_waiting_job_can_be_cancelled_a_finished_one_cannot() {
    let home = gated_home();
    let biotope = home.start();
    let id = biotope.push(&json!({"type": "gated", "delay": "1h"}));
    let answer = biotope.post(&format!("/v1/jobs/{id}/cancel"), "");
    assert_eq!((answer.status, &answer.json()["state"]), (200, &json!("cancelled")), "{answer:?}");
    let again = biotope.post(&format!("/v1/jobs/{id}/cancel"), "");
    assert_eq!((again.status, &again.json()["code"]), (409, &json!("wrong_state")), "{again:?}");

    let by_cli = biotope.push(&json!({"type": "gated", "delay": "1h"}));
    let output = home.cli(&["jobs", "cancel", &by_cli]);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert_eq!(biotope.job(&by_cli)["state"], "cancelled");
    let output = home.cli(&["jobs", "discard", &by_cli]);
    assert_eq!(output.status.code(), Some(65), "{}", shown(&output));
    biotope.stop();
}

const FLAKY: &str = r#"
[workers.flaky]
version = "v1"
exec = ["./flaky.sh"]
max_attempts = 2
backoff = { first = "20ms", factor = 2, max = "100ms" }
on_dead = "mourner"

[workers.mourner]
version = "v1"
exec = ["cat"]
"#;

fn flaky_home() -> Home {
    let home = Home::new(FLAKY);
    home.script("flaky.sh", "[ -e mended ] || { echo \"no such luck\" >&2; exit 1; }\necho '\"lucky\"'");
    home
}

#[test]
fn a_failing_job_is_retried_then_dead_and_can_be_redriven() {
    let home = flaky_home();
    let biotope = home.start();
    let id = biotope.push(&json!({"type": "flaky", "payload": "p"}));
    let dead = biotope.until_state(&id, "dead");
    assert_eq!((&dead["attempts"], &dead["max_attempts"]), (&json!(2), &json!(2)), "{dead}");
    assert!(dead["error"].as_str().unwrap().contains("no such luck"), "{dead}");
    assert_eq!(dead["failures"].as_array().unwrap().len(), 2, "{dead}");
    let counts = biotope.of_type("flaky");
    assert_eq!((&counts["dead"], &counts["failed"]), (&json!(1), &json!(2)), "{counts}");

    // Someone is told.
    biotope.until_count("mourner", "completed", 1);
    let told = &biotope.jobs("type=mourner")[0];
    assert!(told["payload"].to_string().contains(&id), "{told}");

    home.write("mended", "");
    let output = home.cli(&["jobs", "retry", &id]);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert_eq!(biotope.until_state(&id, "completed")["result"], "lucky");
    assert_eq!(biotope.of_type("flaky")["dead"], 0);
    biotope.stop();
}

#[test]
fn a_dead_job_survives_a_restart_and_can_be_discarded() {
    let home = flaky_home();
    let biotope = home.start();
    let id = biotope.push(&json!({"type": "flaky", "max_attempts": 1}));
    biotope.until_state(&id, "dead");
    biotope.stop();
    let biotope = home.start();
    let dead = biotope.job(&id);
    assert_eq!(dead["state"], "dead");
    assert!(dead["error"].as_str().unwrap().contains("no such luck"), "{dead}");
    let answer = biotope.post(&format!("/v1/jobs/{id}/discard"), "");
    assert_eq!((answer.status, &answer.json()["state"]), (200, &json!("discarded")), "{answer:?}");
    let counts = biotope.of_type("flaky");
    assert_eq!((&counts["dead"], &counts["discarded"]), (&json!(0), &json!(1)), "{counts}");
    biotope.stop();
}

#[test]
fn a_type_can_be_purged() {
    let home = flaky_home();
    let biotope = home.start();
    let lines: String = (0..10).map(|n| format!("{{\"type\":\"flaky\",\"id\":\"w{n}\",\"delay\":\"1h\"}}\n")).collect();
    biotope.push_lines(&lines);
    let dead = biotope.push(&json!({"type": "flaky", "max_attempts": 1}));
    biotope.until_state(&dead, "dead");
    let refused = home.cli(&["purge", "flakey"]);
    assert_eq!(refused.status.code(), Some(65), "{}", shown(&refused));
    let output = home.cli(&["purge", "flaky"]);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    let counts = biotope.of_type("flaky");
    let numbers: Vec<_> = ["ready", "delayed", "dead", "cancelled", "discarded"].map(|key| counts[key].as_u64()).into();
    assert_eq!(numbers, [Some(0), Some(0), Some(0), Some(10), Some(1)], "{counts}");
    biotope.stop();
}

#[test]
fn a_type_can_be_paused_and_resumed() {
    let home = flaky_home();
    home.write("mended", "");
    let biotope = home.start();
    let refused = home.cli(&["pause", "flakey"]);
    assert_eq!(refused.status.code(), Some(65), "{}", shown(&refused));
    let output = home.cli(&["pause", "flaky"]);
    assert_eq!((output.status.code(), &*output.stdout), (Some(0), &b"flaky paused\n"[..]), "{}", shown(&output));
    let ids: Vec<String> = (0..5).map(|_| biotope.push(&json!({"type": "flaky"}))).collect();
    let counts = biotope.of_type("flaky");
    assert_eq!((&counts["paused"], &counts["ready"]), (&json!(true), &json!(5)), "{counts}");
    let status = home.cli(&["status"]);
    assert!(String::from_utf8_lossy(&status.stdout).contains("paused"), "{}", shown(&status));
    let page = String::from_utf8(biotope.get("/").body).unwrap();
    assert!(page.contains("flaky</a> is paused, 5 jobs waiting"), "{page}");
    let answer = biotope.post("/v1/types/flaky/resume", "");
    assert_eq!((answer.status, &answer.json()["paused"]), (200, &json!(false)), "{answer:?}");
    for id in ids {
        biotope.until_state(&id, "completed");
    }
    biotope.stop();
}

#[test]
fn listings_filter_and_page() {
    let home = flaky_home();
    home.write("mended", "");
    let biotope = home.start();
    for n in 0..10 {
        biotope.push(
            &json!({"type": "flaky", "id": format!("done-{n}"), "tenant": if n % 2 == 0 { "even" } else { "odd" }}),
        );
    }
    for n in 0..4 {
        biotope.push(&json!({"type": "flaky", "id": format!("wait-{n}"), "delay": "1h"}));
    }
    biotope.until_count("flaky", "completed", 10);
    let ids = |jobs: Vec<Value>| -> BTreeSet<String> {
        let list: Vec<_> = jobs.iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect();
        let set: BTreeSet<_> = list.iter().cloned().collect();
        assert_eq!(list.len(), set.len(), "a job is listed twice: {list:?}");
        set
    };
    assert_eq!(ids(biotope.jobs("type=flaky&limit=3")).len(), 14);
    assert_eq!(ids(biotope.jobs("type=flaky&state=completed&limit=3")).len(), 10);
    assert_eq!(ids(biotope.jobs("type=flaky&state=delayed")).len(), 4);
    assert_eq!(ids(biotope.jobs("tenant=odd&limit=2")).len(), 5);
    assert_eq!(biotope.jobs("type=flaky&state=dead").len(), 0);
    assert_eq!(biotope.get("/v1/jobs?limit=0").status, 400);
    assert_eq!(biotope.get("/v1/jobs?limit=10001").status, 400);
    assert_eq!(biotope.get("/v1/jobs?state=asleep").status, 400);
    let missing = biotope.get("/v1/jobs/no-such-job");
    assert_eq!((missing.status, &missing.json()["code"]), (404, &json!("not_found")), "{missing:?}");
    biotope.stop();
}

#[test]
fn a_dead_jobs_summary_goes_to_the_type_that_mourns_it() {
    let home = Home::new(
        "[workers.fails]\nversion = \"v1\"\nexec = [\"sh\", \"-c\", \"echo no >&2; exit 65\"]\non_dead = \"mourner\"\n\
         [workers.mourner]\nversion = \"v1\"\nexec = [\"cat\"]\n",
    );
    let biotope = home.start();
    biotope.push(&json!({"type": "fails", "id": "f", "task": "t", "tenant": "north"}));
    biotope.until_count("mourner", "completed", 1);
    let mourned = biotope.jobs("type=mourner&state=completed").remove(0);
    assert_eq!(mourned["parent"], "f", "{mourned}");
    for (member, value) in [("id", "f"), ("type", "fails"), ("task", "t"), ("tenant", "north"), ("version", "v1")] {
        assert_eq!(mourned["result"][member], value, "{member} in {mourned}");
    }
    assert!(mourned["result"]["error"].as_str().unwrap().ends_with("no"), "{mourned}");
    assert_eq!(biotope.job("f")["state"], "dead", "it can still be retried or discarded");
    biotope.stop();
}

/// The steps of a job's runs: what, and by which worker.
fn runs(biotope: &Biotope<'_>, id: &str) -> Vec<(String, Option<u64>)> {
    let timeline = biotope.get(&format!("/v1/jobs/{id}/timeline")).json();
    assert_eq!(timeline["whole"], true, "{timeline}");
    let steps = timeline["steps"].as_array().unwrap().iter();
    let runs = steps.filter(|step| step["version"].is_string());
    runs.map(|step| (step["what"].as_str().unwrap().to_owned(), step["worker"].as_u64())).collect()
}

/// Where a job's failed attempts were made, as the job says it.
fn failed_on(biotope: &Biotope<'_>, id: &str) -> Vec<Value> {
    let mut failures = biotope.job(id)["failures"].as_array().unwrap().clone();
    for failure in failures.iter_mut().map(|failure| failure.as_object_mut().unwrap()) {
        failure.retain(|member, _| ["attempt", "version", "worker"].contains(&member.as_str()));
    }
    failures
}

#[test]
fn an_attempt_names_the_worker_that_made_it() {
    let home = Home::new(
        "[workers.pair]\nversion = \"v1\"\nexec = [\"./pair.sh\"]\nconcurrency = 2\nmax_attempts = 2\n\
         backoff = { first = \"1ms\", factor = 1, max = \"1ms\" }\n\
         [workers.lanes]\nversion = \"v1\"\nhttp = \"http://127.0.0.1:1/\"\nallow_private = true\nmax_attempts = 1\n",
    );
    // Each job waits at its own gate, and fails once where its payload says so.
    home.script(
        "pair.sh",
        "read -r said; touch \"begun-$BIOTOPE_JOB_ID\"\n[ $BIOTOPE_ATTEMPT -gt 1 ] || read -r line <\"gate-$BIOTOPE_JOB_ID\"\n\
         case $said$BIOTOPE_ATTEMPT in '\"fails\"1' | '\"never\"'*) echo 'no ink' >&2; exit 1 ;; esac",
    );
    home.pipe("gate-a");
    home.pipe("gate-b");
    let biotope = home.start();
    biotope.push(&json!({"type": "pair", "id": "a", "payload": "fails"}));
    biotope.push(&json!({"type": "pair", "id": "b"}));
    for id in ["a", "b"] {
        let begun = home.path(&format!("begun-{id}"));
        until("both to run", SOON, || if begun.exists() { Ok(()) } else { Err(format!("{id} does not")) });
    }
    // The numbers are those that the workers are shown by while they hold the jobs.
    let seen = biotope.of_type("pair");
    let workers = seen["versions"][0]["workers"].as_array().unwrap();
    let number = |id: &str| {
        let holds = |worker: &&Value| worker["jobs"].as_array().is_some_and(|jobs| jobs[0]["id"] == id);
        workers.iter().find(holds).and_then(|worker| worker["number"].as_u64())
    };
    let (a, b) = (number("a"), number("b"));
    assert_eq!(BTreeSet::from([a, b]), BTreeSet::from([Some(1), Some(2)]), "{seen}");
    assert_eq!(runs(&biotope, "a"), [("running".to_owned(), None)]);
    home.open_gate("gate-a");
    biotope.until_state("a", "completed");
    // The other one still holds its job: the free one made both attempts.
    assert_eq!(runs(&biotope, "a"), [("failed".to_owned(), a), ("completed".to_owned(), a)]);
    home.open_gate("gate-b");
    biotope.until_state("b", "completed");
    assert_eq!(runs(&biotope, "b"), [("completed".to_owned(), b)]);
    // Jobs side by side on one thread have no worker of their own.
    let lane = biotope.push(&json!({"type": "lanes"}));
    biotope.until_state(&lane, "dead");
    assert_eq!(runs(&biotope, &lane), [("died".to_owned(), None)]);
    assert_eq!(failed_on(&biotope, &lane), [json!({"attempt": 1, "version": "v1"})]);
    // What the table remembers of a job that lives, and of one that ended what the log says, is the same.
    assert_eq!(failed_on(&biotope, "a"), [json!({"attempt": 1, "version": "v1", "worker": a})]);
    let dead = biotope.push(&json!({"type": "pair", "payload": "never"}));
    biotope.until_state(&dead, "dead");
    let workers: Vec<Value> = failed_on(&biotope, &dead).into_iter().map(|failure| failure["worker"].clone()).collect();
    assert_eq!(workers, runs(&biotope, &dead).into_iter().map(|(_, worker)| json!(worker)).collect::<Vec<_>>());
    assert!(workers.len() == 2 && workers.iter().all(Value::is_u64), "{workers:?}");
    let told = shown(&home.cli(&["jobs", "show", "--steps", "a"]));
    let failed = format!("Failed on v1, worker {}, after ", a.unwrap());
    assert!(told.contains(&failed) && told.contains("\n    ./pair.sh exited with code 1: no ink\n"), "{told}");
    biotope.stop();
    // It stands in the log, and is found there again.
    let biotope = home.start();
    assert_eq!(runs(&biotope, "a"), [("failed".to_owned(), a), ("completed".to_owned(), a)]);
    assert_eq!(biotope.job("a")["state"], "completed");
    assert_eq!(failed_on(&biotope, "a"), [json!({"attempt": 1, "version": "v1", "worker": a})]);
    assert_eq!(
        failed_on(&biotope, &dead).iter().map(|failure| &failure["worker"]).collect::<Vec<_>>(),
        workers.iter().collect::<Vec<_>>()
    );
    biotope.stop();
}

#[test]
fn a_line_is_enqueued_while_the_next_one_is_waited_for() {
    let home = Home::new("[workers.echo]\nversion = \"v1\"\nexec = [\"cat\"]\n");
    let biotope = home.start();
    let mut pushing = home.command(&["push", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut lines, mut ids) = (pushing.stdin.take().unwrap(), BufReader::new(pushing.stdout.take().unwrap()).lines());
    for id in ["first", "second"] {
        writeln!(lines, "{{\"type\":\"echo\",\"id\":\"{id}\"}}").unwrap();
        assert_eq!(ids.next().unwrap().unwrap(), id);
        biotope.until_state(id, "completed");
    }
    drop(lines);
    assert!(pushing.wait().unwrap().success());
    biotope.stop();
}
