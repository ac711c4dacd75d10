//! The trace that a job belongs to: taken in, kept, and handed on to whoever works on it and to what follows.

use serde_json::{Value, json};

use crate::support::{Home, http, shown};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const OTHER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

/// A program that says which trace it is in, both as its result and in the log, and enqueues one job that names no trace and
/// one that does.
fn tells(follow_up: &str) -> String {
    format!(
        "cat >/dev/null\n\
         echo \"{{\\\"type\\\":\\\"{follow_up}\\\",\\\"id\\\":\\\"$BIOTOPE_JOB_ID-heir\\\"}}\" >>\"$BIOTOPE_ENQUEUE\"\n\
         echo \"{{\\\"type\\\":\\\"{follow_up}\\\",\\\"id\\\":\\\"$BIOTOPE_JOB_ID-own\\\",\\\"traceparent\\\":\\\"{OTHER}\\\"}}\" >>\"$BIOTOPE_ENQUEUE\"\n\
         echo said-by-the-program >&2\n\
         echo \"\\\"${{TRACEPARENT-none}}\\\"\""
    )
}

/// A program that stays, and answers with its params.
const STAYS: &str = r#"#!/usr/bin/env python3
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    result = {"protocol": 1} if asked["method"] == "hello" else {}
    if asked["method"] == "job":
        result = {"value": asked["params"]}
    print(json.dumps({"id": asked["id"], "jsonrpc": "2.0", "result": result}), flush=True)
"#;

fn home() -> Home {
    let home = Home::new(
        "[log_output]\nformat = \"json\"\n\
         [workers.once]\nversion = \"v1\"\nexec = [\"./once.sh\"]\n\
         [workers.stays]\nversion = \"v1\"\nexec = [\"./stays.py\"]\nmode = \"persistent\"\n\
         [workers.dies]\nversion = \"v1\"\nexec = [\"false\"]\nmax_attempts = 1\non_dead = \"stays\"\n",
    );
    home.script("once.sh", &tells("stays"));
    home.script("stays.py", STAYS);
    home
}

#[test]
fn a_trace_reaches_every_run_and_what_follows_across_a_crash() {
    let home = home();
    let biotope = home.start();
    let traced = biotope.push(&json!({"type": "once", "id": "a", "traceparent": TRACE}));
    let later = biotope.push(&json!({"type": "stays", "id": "later", "delay": "9h", "traceparent": TRACE}));
    let without = biotope.push(&json!({"type": "once", "id": "b"}));
    let dead = biotope.push(&json!({"type": "dies", "id": "d", "traceparent": TRACE}));
    for (id, trace, of_heir) in [(&traced, json!(TRACE), json!(TRACE)), (&without, Value::Null, Value::Null)] {
        let job = biotope.until_state(id, "completed");
        let told = job["result"].as_str().unwrap();
        assert_eq!(told, trace.as_str().unwrap_or("none"), "{job}");
        assert_eq!(job["traceparent"], trace, "{job}");
        let heir = biotope.until_state(&format!("{id}-heir"), "completed");
        assert_eq!((&heir["traceparent"], &heir["result"]["traceparent"]), (&of_heir, &of_heir), "{heir}");
        let own = biotope.until_state(&format!("{id}-own"), "completed");
        assert_eq!((&own["traceparent"], &own["result"]["traceparent"]), (&json!(OTHER), &json!(OTHER)), "{own}");
    }
    biotope.until_state(&dead, "dead");
    biotope.until_count("stays", "completed", 5);
    let summary = biotope.jobs("type=stays&state=completed").into_iter().find(|job| job["parent"] == "d").unwrap();
    assert_eq!(biotope.job(summary["id"].as_str().unwrap())["traceparent"], TRACE);
    // What a worker says of a job is in the log with its trace.
    let said: Vec<Value> = home.text("stderr.txt").lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let of = |id: &str| said.iter().find(|line| line["job"] == id && line["msg"] == "said-by-the-program").unwrap();
    assert_eq!((&of("a")["traceparent"], &of("b")["traceparent"]), (&json!(TRACE), &Value::Null));
    // It is in the log of jobs, and so as durable as they are.
    biotope.kill();
    let dumped = home.cli(&["log", "dump", home.path("data").to_str().unwrap(), "--json"]);
    assert!(String::from_utf8_lossy(&dumped.stdout).contains(TRACE), "{}", shown(&dumped));
    let biotope = home.start();
    assert_eq!(biotope.job(&later)["traceparent"], TRACE);
    assert_eq!(biotope.job(&dead)["traceparent"], TRACE);
    assert_eq!(biotope.post(&format!("/v1/jobs/{later}/cancel"), "").status, 200);
    assert_eq!(biotope.job(&later)["traceparent"], TRACE);
    biotope.stop();
}

#[test]
fn a_trace_comes_by_member_or_header_and_what_is_none_is_refused() {
    let home = home();
    let biotope = home.start();
    let push = |header: &str, kind: &str, body: &str| {
        let head = format!(
            "POST /v1/jobs HTTP/1.1\r\n{header}Content-Type: application/{kind}\r\nContent-Length: {}\r\n",
            body.len()
        );
        http::request(home.port, &head, body.as_bytes()).unwrap()
    };
    let header = format!("Traceparent: {TRACE}\r\n");
    let trace = |id: &str| biotope.job(id)["traceparent"].clone();
    let job = |id: &str, more: &str| format!("{{\"type\":\"stays\",\"id\":\"{id}\",\"delay\":\"9h\"{more}}}");
    let other = format!(",\"traceparent\":\"{OTHER}\"");
    assert_eq!(push(&header, "json", &job("a", "")).status, 201);
    assert_eq!(push(&header, "json", &job("b", &other)).status, 201);
    assert_eq!((trace("a"), trace("b")), (json!(TRACE), json!(OTHER)), "the member is nearer");
    // The same call comes with a span of its own: it is the same all the same.
    let again = push(&format!("Traceparent: {OTHER}\r\n"), "json", &job("a", ""));
    assert_eq!((again.status, trace("a")), (200, json!(TRACE)), "{again:?}");
    let lines = format!("{}\n{}\n{}\n", job("c", ""), job("d", &other), job("e", ",\"traceparent\":\"no\""));
    let answers = push(&header, "x-ndjson", &lines).lines();
    assert_eq!((&answers[0]["status"], &answers[1]["status"]), (&json!(201), &json!(201)), "{answers:?}");
    assert_eq!((trace("c"), trace("d")), (json!(TRACE), json!(OTHER)));
    let refused = &answers[2];
    assert_eq!((&refused["status"], &refused["error"]["code"]), (&json!(400), &json!("invalid_job")), "{refused}");
    assert!(refused["error"]["detail"].as_str().unwrap().contains("traceparent \"no\" is no traceparent"), "{refused}");
    for bad in ["00-1-2-3", "", &TRACE.to_uppercase(), &format!("{TRACE}\r\nTraceparent: {OTHER}")] {
        for (kind, body) in [("json", job("f", "")), ("x-ndjson", job("f", ""))] {
            let answer = push(&format!("Traceparent: {bad}\r\n"), kind, &body);
            assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("bad_request")), "{bad}: {answer:?}");
            assert!(answer.json()["detail"].as_str().unwrap().contains("the header traceparent"), "{answer:?}");
        }
    }
    assert_eq!(biotope.get("/v1/jobs/f").status, 404);
    // From a shell it is what the environment says.
    let mut command = home.command(&["push", "stays", "1"]);
    let pushed = command.env("TRACEPARENT", TRACE).output().unwrap();
    assert_eq!(trace(String::from_utf8_lossy(&pushed.stdout).trim()), TRACE, "{}", shown(&pushed));
    let mut command = home.command(&["push", "stays", "1"]);
    let pushed = command.env("TRACEPARENT", "nonsense").output().unwrap();
    assert_eq!(trace(String::from_utf8_lossy(&pushed.stdout).trim()), Value::Null, "{}", shown(&pushed));
    biotope.stop();
}
