//! Why a job is not running now, in one sentence, over HTTP and by `biotope why`; and what an idempotency key in a header does.

use serde_json::{Value, json};

use crate::support::http::{self, Answer};
use crate::support::wait::until;
use crate::support::{Biotope, Home, SOON, shown};

fn why(biotope: &Biotope<'_>, id: &str) -> (String, String, String) {
    let answer = biotope.get(&format!("/v1/jobs/{id}/why"));
    assert_eq!(answer.status, 200, "{answer:?}");
    let view = answer.json();
    assert_eq!(view["id"], id, "{view}");
    let text = |key: &str| view[key].as_str().unwrap().to_owned();
    (text("state"), text("reason"), text("why"))
}

fn is(seen: (String, String, String), state: &str, reason: &str, says: &str) {
    assert!(seen.0 == state && seen.1 == reason && seen.2.contains(says), "{seen:?} is not {state} {reason} {says:?}");
}

const WORKERS: &str = "[workers.slow]\nversion = \"v1\"\nexec = [\"./slow.sh\"]\n\
                       [workers.ill]\nversion = \"v1\"\nexec = [\"./ill.sh\"]\nmax_attempts = 1\n\
                       [workers.again]\nversion = \"v1\"\nexec = [\"./ill.sh\"]\nbackoff = { first = \"1h\" }\n\
                       [workers.never]\nversion = \"v1\"\nexec = [\"false\"]\nmode = \"persistent\"\n";

#[test]
fn every_job_that_does_not_run_has_its_reason() {
    let home = Home::new(WORKERS);
    home.pipe("gate");
    home.script("slow.sh", "cat gate >/dev/null");
    home.script("ill.sh", "echo the disk is on fire >&2; exit 1");
    let biotope = home.start();
    let push = |job: Value| biotope.push(&job);
    let running = push(json!({"type": "slow", "id": "running"}));
    biotope.until_state(&running, "reserved");
    is(why(&biotope, &running), "reserved", "reserved", "v1 has it: attempt 1 of 4");
    let next = push(json!({"type": "slow"}));
    let third = push(json!({"type": "slow"}));
    let fourth = push(json!({"type": "slow"}));
    let urgent = push(json!({"type": "slow", "priority": 9}));
    is(why(&biotope, &urgent), "ready", "turn", "its turn is next: it waits for the one worker of v1, which is busy");
    is(why(&biotope, &next), "ready", "behind", "it waits behind 1 other job for the one worker of v1, which is busy");
    is(why(&biotope, &third), "ready", "behind", "behind 2 other jobs");
    is(why(&biotope, &fourth), "ready", "behind", "behind 3 other jobs");

    let said = home.cli(&["why", &third]);
    assert!(said.status.success(), "{}", shown(&said));
    let said = String::from_utf8(said.stdout).unwrap();
    assert_eq!(said, "it waits behind 2 other jobs for the one worker of v1, which is busy\n");

    let later = push(json!({"type": "slow", "delay": "90m"}));
    is(why(&biotope, &later), "delayed", "not_due", "in 89 min");
    let needs = push(json!({"type": "slow", "min_version": "v9"}));
    is(why(&biotope, &needs), "parked", "parked", "it needs version v9 or one that came after it");

    assert_eq!(biotope.post("/v1/types/slow/pause", "").status, 200);
    is(why(&biotope, &third), "ready", "paused", "its type is paused, since 2");
    is(why(&biotope, &running), "reserved", "reserved", "v1 has it");

    let dead = push(json!({"type": "ill"}));
    biotope.until_state(&dead, "dead");
    is(why(&biotope, &dead), "dead", "dead", "it is dead after 1 attempt (");
    is(why(&biotope, &dead), "dead", "dead", "the disk is on fire); retry or discard it");
    let again = push(json!({"type": "again"}));
    until("tried once", SOON, || {
        let job = biotope.job(&again);
        if job["attempts"] == 1 { Ok(()) } else { Err(job.to_string()) }
    });
    let seen = why(&biotope, &again);
    assert!(seen.2.contains("attempt 1 of 4 failed") && seen.2.contains("the disk is on fire"), "{seen:?}");

    let never = push(json!({"type": "never"}));
    until("said why", SOON, || {
        let seen = why(&biotope, &never);
        if seen.1 == "not_up" && seen.2.contains("exited with code 1") { Ok(()) } else { Err(format!("{seen:?}")) }
    });

    assert_eq!(biotope.post(&format!("/v1/jobs/{later}/cancel"), "").status, 200);
    is(why(&biotope, &later), "cancelled", "ended", "it is cancelled since 2");
    let unknown = biotope.get("/v1/jobs/nobody/why");
    assert_eq!((unknown.status, &unknown.json()["code"]), (404, &json!("not_found")), "{unknown:?}");
    assert_eq!(home.cli(&["why", "nobody"]).status.code(), Some(65));
    biotope.kill();
}

fn push_with(home: &Home, key: &str, kind: &str, body: &str) -> Answer {
    http::post(home.port, "/v1/jobs", &format!("{kind}\r\nIdempotency-Key: {key}"), body.as_bytes()).unwrap()
}

#[test]
fn the_idempotency_key_of_a_header_is_the_jobs_key() {
    let home = Home::new("[workers.w]\nversion = \"v1\"\nexec = [\"true\"]\n");
    let biotope = home.start();
    let push = |key: &str, body: &str| push_with(&home, key, "application/json", body);
    let job = r#"{"type":"w","payload":{"a":1}}"#;
    let first = push("order-1", job);
    assert_eq!(first.status, 201, "{first:?}");
    let id = first.json()["id"].clone();
    assert_eq!(biotope.job(id.as_str().unwrap())["idempotency_key"], "order-1");
    for key in ["order-1", "\"order-1\""] {
        let second = push(key, job);
        assert_eq!((second.status, &second.json()["id"]), (200, &id), "{second:?}");
        assert_eq!(second.json()["duplicate"], true);
    }
    // The member says the same thing.
    let by_member = r#"{"type":"w","payload":{"a":1},"idempotency_key":"order-1"}"#;
    assert_eq!(biotope.post("/v1/jobs", by_member).json()["id"], id);
    assert_eq!(push("order-1", by_member).json()["id"], id);
    let other = push("order-1", r#"{"type":"w","payload":{"a":2}}"#);
    assert_eq!((other.status, &other.json()["code"]), (422, &json!("key_conflict")), "{other:?}");
    for (wrong, says) in [
        (push("order-2", by_member), "order-2"),
        (push("a b", job), "Idempotency-Key"),
        (push("a\r\nIdempotency-Key: b", job), "twice"),
        (push_with(&home, "k", "application/x-ndjson", job), "each line"),
    ] {
        assert_eq!((wrong.status, &wrong.json()["code"]), (400, &json!("bad_request")), "{wrong:?}");
        assert!(wrong.json()["detail"].as_str().unwrap().contains(says), "{wrong:?}");
    }
    assert_eq!(biotope.of_type("w")["enqueued"], 1);
    biotope.stop();
}

#[test]
fn what_is_no_answer_is_a_problem_with_its_code() {
    let home = Home::new("[workers.w]\nversion = \"v1\"\nexec = [\"true\"]\n");
    let biotope = home.start();
    let problem = |answer: Answer, status: u16, code: &str| {
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:?}");
        let body = answer.json();
        assert_eq!(
            (answer.status, &body["status"], &body["code"]),
            (status, &json!(status), &json!(code)),
            "{answer:?}"
        );
        assert!(body["title"].is_string() && body["detail"].is_string() && body["type"] == "about:blank", "{body}");
        answer
    };
    let delete = |path: &str| http::delete(home.port, path).unwrap();
    problem(biotope.get("/v1/nothing"), 404, "no_route");
    problem(biotope.get("/v1/jobs/nobody"), 404, "not_found");
    problem(biotope.post("/v1/types/nobody/pause", ""), 404, "unknown_type");
    for (path, allow) in [
        ("/v1/jobs", "POST,GET,HEAD"),
        ("/v1/jobs/x/why", "GET,HEAD"),
        ("/v1/jobs/x/timeline", "GET,HEAD"),
        ("/v1/reload", "POST"),
        ("/metrics", "GET,HEAD"),
    ] {
        let wrong = problem(delete(path), 405, "wrong_method");
        let mut allowed: Vec<&str> = wrong.header("allow").unwrap_or_default().split(',').map(str::trim).collect();
        let mut wanted: Vec<&str> = allow.split(',').collect();
        allowed.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(allowed, wanted, "{path}");
    }
    let kind = |kind: &str| http::post(home.port, "/v1/jobs", kind, b"{}").unwrap();
    problem(kind("text/plain"), 415, "wrong_content_type");
    let large = format!("{{\"type\":\"w\",\"payload\":\"{}\"}}", "x".repeat((1 << 20) + 1));
    problem(biotope.post("/v1/jobs", &large), 413, "too_large");
    for (path, names) in [
        ("/v1/jobs?stat=ready", "`stat`"),
        ("/v1/jobs?state=redy", "redy"),
        ("/v1/jobs?limit=x", "limit"),
        ("/v1/jobs?limit=0", "limit"),
        ("/v1/jobs/%FF", "id"),
        ("/v1/jobs/%FF/why", "id"),
    ] {
        let wrong = problem(biotope.get(path), 400, "bad_request");
        assert!(wrong.json()["detail"].as_str().unwrap().contains(names), "{path}: {wrong:?}");
    }
    problem(biotope.post("/v1/reload?wait=perhaps", ""), 400, "bad_request");
    biotope.stop();
}
