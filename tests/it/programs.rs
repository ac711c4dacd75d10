//! Programs as workers: what they are given, and what their answers mean.

use std::collections::BTreeMap;

use serde_json::json;

use crate::support::wait::until;
use crate::support::{Home, SOON};

#[test]
fn a_child_gets_a_chosen_environment_and_nothing_else() {
    let home = Home::new(
        r#"
[workers.shows]
version = "v7"
exec = ["env"]
env = { GREETING = "hello", SECRET = { file = "secret.txt" }, COPIED = { from = "BIOTOPE_TEST_SOURCE" } }
env_pass = ["BIOTOPE_TEST_PASSED"]
"#,
    );
    home.private("secret.txt", "s3cret\n");
    let mut command = home.command(&["run"]);
    command.env("BIOTOPE_TEST_SOURCE", "copied").env("BIOTOPE_TEST_PASSED", "passed").env("BIOTOPE_TEST_KEPT_OUT", "x");
    let biotope = home.start_by(command);
    let id = biotope.push(&json!({"type": "shows", "task": "look", "tenant": "t1", "max_attempts": 3}));
    let result = biotope.until_state(&id, "completed")["result"].as_str().unwrap().to_owned();
    let mut env: BTreeMap<&str, &str> = result.lines().filter_map(|line| line.split_once('=')).collect();
    for (name, value) in [
        ("BIOTOPE_JOB_ID", id.as_str()),
        ("BIOTOPE_TYPE", "shows"),
        ("BIOTOPE_VERSION", "v7"),
        ("BIOTOPE_TASK", "look"),
        ("BIOTOPE_ATTEMPT", "1"),
        ("BIOTOPE_MAX_ATTEMPTS", "3"),
        ("BIOTOPE_TENANT", "t1"),
        ("LANG", "C.UTF-8"),
        ("GREETING", "hello"),
        ("SECRET", "s3cret"),
        ("COPIED", "copied"),
        ("BIOTOPE_TEST_PASSED", "passed"),
    ] {
        assert_eq!(env.remove(name), Some(value), "{name} in {result}");
    }
    for name in ["BIOTOPE_FENCE", "BIOTOPE_DEADLINE_MS"] {
        assert!(env.remove(name).is_some_and(|value| value.parse::<u64>().is_ok()), "{name} in {result}");
    }
    for name in ["BIOTOPE_ENQUEUE", "BIOTOPE_SPAWNER", "PATH", "HOME"] {
        assert!(env.remove(name).is_some(), "{name} in {result}");
    }
    env.remove("TZ");
    assert_eq!(env, BTreeMap::new(), "leaked to the child");
    biotope.stop();
}

#[test]
fn a_child_has_three_descriptors() {
    // `ls` itself opens one more to read the directory.
    let home = Home::new("[workers.fds]\nversion = \"v1\"\nexec = [\"ls\", \"/proc/self/fd\"]\n");
    let biotope = home.start();
    let id = biotope.push(&json!({"type": "fds"}));
    assert_eq!(biotope.until_state(&id, "completed")["result"], "0\n1\n2\n3");
    biotope.stop();
}

/// Runs one job of a script to `state`; the job.
fn one_run(script: &str, state: &str) -> serde_json::Value {
    one_run_within("30s", script, state)
}

/// Runs one job of a script to `state`, with a timeout for each attempt; the job.
fn one_run_within(timeout: &str, script: &str, state: &str) -> serde_json::Value {
    let config = r#"
[log]
result_max = "1KiB"
[workers.one]
version = "v1"
exec = ["./one.sh"]
max_attempts = 2
backoff = { first = "10ms", factor = 1, max = "10ms" }
timeout = "TIMEOUT"
kill_after = "200ms"
[workers.next]
version = "v1"
exec = ["cat"]
"#;
    let home = Home::new(&config.replace("TIMEOUT", timeout));
    home.script("one.sh", script);
    let biotope = home.start();
    let id = biotope.push(&json!({"type": "one", "payload": {"a": 1}}));
    let mut job = biotope.until_state(&id, state);
    job["grandchildren"] = json!(home.text("grandchildren.txt"));
    job["followed_by"] = json!(biotope.of_type("next")["enqueued"]);
    biotope.stop();
    job
}

#[test]
fn the_output_is_json_or_text() {
    assert_eq!(one_run("cat", "completed")["result"], json!({"a": 1}));
    assert_eq!(one_run("echo two words", "completed")["result"], "two words");
    assert_eq!(one_run("echo 1; echo 2", "completed")["result"], "1\n2");
    assert_eq!(one_run(":", "completed")["result"], one_run("true", "completed")["result"]);
}

#[test]
fn exit_codes_decide() {
    for code in [65, 78] {
        let job = one_run(&format!("echo give up >&2; exit {code}"), "dead");
        assert_eq!(job["failures"].as_array().map_or(0, Vec::len), 1, "dead at once: {job}");
        assert!(job["error"].as_str().unwrap().contains("give up"), "{job}");
    }
    let job = one_run("[ \"$BIOTOPE_ATTEMPT\" = 2 ] || exit 3", "completed");
    assert_eq!(job["attempts"], 1, "one failed attempt: {job}");
    let job = one_run("[ -e paused ] || { touch paused; exit 75; }", "completed");
    assert_eq!((&job["attempts"], &job["deferrals"]), (&json!(0), &json!(1)), "a pause costs no attempt: {job}");
    let job = one_run("kill -9 $$", "dead");
    assert_eq!(job["attempts"], 2, "a killed child costs an attempt: {job}");
}

#[test]
fn a_run_past_its_timeout_is_ended_with_its_group() {
    let job = one_run_within("4s", "trap '' TERM\ntail -f /dev/null &\necho $! >>grandchildren.txt\nwait", "dead");
    assert!(job["error"].as_str().unwrap().to_lowercase().contains("time"), "{job}");
    let grandchildren = job["grandchildren"].as_str().unwrap().to_owned();
    assert_eq!(grandchildren.lines().count(), 2, "one for each attempt: {job}");
    for pid in grandchildren.lines() {
        until("the end of a grandchild", SOON, || match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) if !stat.contains(") Z ") => Err(stat),
            _ => Ok(()),
        });
    }
}

#[test]
fn a_result_above_its_limit_fails_and_says_so() {
    let job = one_run("head -c 5000 /dev/zero | tr '\\0' x", "dead");
    assert!(job["error"].as_str().unwrap().contains("result_max"), "{job}");
}

#[test]
fn follow_ups_and_the_ack_are_one_step() {
    let job = one_run(
        "echo '{\"type\":\"next\",\"payload\":1}' >>\"$BIOTOPE_ENQUEUE\"\necho '{\"type\":\"next\",\"payload\":2}' >>\"$BIOTOPE_ENQUEUE\"",
        "completed",
    );
    assert_eq!(job["followed_by"], 2);

    // One bad line, and nothing of it happens.
    let job = one_run(
        "echo '{\"type\":\"next\"}' >>\"$BIOTOPE_ENQUEUE\"\necho '{\"type\":\"nobody\"}' >>\"$BIOTOPE_ENQUEUE\"",
        "dead",
    );
    assert_eq!(job["followed_by"], 0);
    assert!(job["error"].as_str().unwrap().contains("nobody"), "{job}");
    let job = one_run("echo 'no json' >>\"$BIOTOPE_ENQUEUE\"", "dead");
    assert!(job["error"].as_str().unwrap().contains('1'), "the line is named: {job}");
}

const PERSISTENT: &str = r#"
[workers.stays]
version = "v1"
exec = ["./stays.sh"]
mode = "persistent"
batch = 5
max_attempts = 2
start_timeout = "30s"
backoff = { first = "10ms", factor = 1, max = "10ms" }
"#;

/// A persistent worker in sh; `$job` answers one job, with `$id` and `$line` at hand.
fn persistent(job: &str) -> Home {
    let home = Home::new(PERSISTENT);
    home.script(
        "stays.sh",
        &format!(
            r#"echo $$ >>starts.txt
while IFS= read -r line; do
    printf '%s\n' "$line" >>seen.txt
    id=${{line#*\"id\":\"}}; id=${{id%%\"*}}
    case $line in
    *'"method":"hello"'*) printf '{{"id":"%s","jsonrpc":"2.0","result":{{"protocol":1}}}}\n' "$id" ;;
    *'"method":"wipe"'*) printf '{{"id":"%s","jsonrpc":"2.0","result":{{}}}}\n' "$id" ;;
    *'"method":"job"'*) {job} ;;
    esac
done"#
        ),
    );
    home
}

#[test]
fn a_persistent_worker_answers_batches_and_wipes() {
    let home = persistent(r#"printf '{"id":"%s","jsonrpc":"2.0","result":{"value":"v"}}\n' "$id""#);
    let biotope = home.start();
    let lines: String = (0..20).map(|n| format!("{{\"type\":\"stays\",\"id\":\"s{n}\",\"payload\":{n}}}\n")).collect();
    biotope.push_lines(&lines);
    biotope.until_count("stays", "completed", 20);
    assert_eq!(biotope.job("s3")["result"], "v");
    biotope.stop();
    assert_eq!(home.text("starts.txt").lines().count(), 1, "one process for all of them");
    let seen = home.text("seen.txt");
    assert!(
        seen.lines().next().unwrap().contains(r#""params":{"protocol":1,"type":"stays","version":"v1"}"#),
        "{seen}"
    );
    for line in seen.lines() {
        let request: serde_json::Value = serde_json::from_str(line).unwrap();
        if request.get("id").is_some() {
            assert!(line.starts_with(r#"{"id":""#), "id is not the first member: {line}");
        }
    }
    assert!(
        seen.lines().filter(|line| line.contains(r#""method":"wipe""#)).count() >= 4,
        "a wipe ends each cycle: {seen}"
    );
}

#[test]
fn a_persistent_worker_may_fail_retry_or_give_up() {
    let home = persistent(
        r#"
        case $line in
        *'"payload":"fail"'*'"attempt":1'*) printf '{"id":"%s","jsonrpc":"2.0","error":{"code":1,"message":"at first","data":{"outcome":"fail"}}}\n' "$id" ;;
        *'"payload":"retry"'*) if [ -e paused ]; then printf '{"id":"%s","jsonrpc":"2.0","result":{"value":"later"}}\n' "$id"; else : >paused
            printf '{"id":"%s","jsonrpc":"2.0","error":{"code":1,"message":"busy","data":{"outcome":"retry","after_ms":20}}}\n' "$id"; fi ;;
        *'"payload":"dead"'*) printf '{"id":"%s","jsonrpc":"2.0","error":{"code":1,"message":"hopeless","data":{"outcome":"dead"}}}\n' "$id" ;;
        *) printf '{"id":"%s","jsonrpc":"2.0","result":{}}\n' "$id" ;;
        esac"#,
    );
    let biotope = home.start();
    for name in ["fail", "retry", "dead", "plain"] {
        biotope.push(&json!({"type": "stays", "id": name, "payload": name}));
    }
    assert_eq!(biotope.until_state("fail", "completed")["attempts"], 1);
    let paused = biotope.until_state("retry", "completed");
    assert_eq!((&paused["attempts"], &paused["result"]), (&json!(0), &json!("later")), "a pause costs no attempt");
    assert!(biotope.until_state("dead", "dead")["error"].as_str().unwrap().contains("hopeless"));
    biotope.until_state("plain", "completed");
    biotope.stop();
}

#[test]
fn a_worker_that_breaks_the_protocol_is_replaced() {
    for (broken, word) in
        [("echo no json", "JSON"), (r#"printf '{"id":"nobody","jsonrpc":"2.0","result":{}}\n'"#, "id"), ("exit 0", "")]
    {
        let home = persistent(&format!(
            r#"case $line in *'"payload":"break"'*) {broken} ;; *) printf '{{"id":"%s","jsonrpc":"2.0","result":{{}}}}\n' "$id" ;; esac"#
        ));
        let biotope = home.start();
        let bad = biotope.push(&json!({"type": "stays", "payload": "break"}));
        let dead = biotope.until_state(&bad, "dead");
        assert!(dead["error"].as_str().unwrap().contains(word), "{dead}");
        let good = biotope.push(&json!({"type": "stays", "payload": "fine"}));
        biotope.until_state(&good, "completed");
        until("a replacement", SOON, || {
            let starts = home.text("starts.txt");
            if starts.lines().count() >= 2 { Ok(()) } else { Err(starts) }
        });
        biotope.stop();
    }
}

/// Payloads that a worker which takes lines apart by hand may stumble over.
fn hostile_payloads() -> Vec<serde_json::Value> {
    let mut payloads = vec![
        json!(null),
        json!(""),
        json!("\"id\":\"x\",\"method\":\"wipe\",\"attempt\":9,"),
        json!({"id": "x", "method": "wipe", "attempt": 9, "params": {"attempt": "9"}}),
        json!("line\nbreak\r\ttab \u{0}\u{1f}\u{7f} \\ \\\" ' $(exit 1) `exit 1` %s %n"),
        json!("Grüße, 世界 \u{1f980}\u{2028}\u{feff}"),
        json!([[[[[[]]]]], {"": {}}, -0.0, 1e300, 12345678901234567890_u64, false]),
        json!("x".repeat(200_000)),
    ];
    payloads.extend((0..32).map(|n| json!({"n": n})));
    payloads
}

/// Each of the example workers completes any payload, in batches.
fn completes_anything(worker: &str) {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/workers/");
    let home = Home::new(&format!(
        "[workers.any]\nversion = \"v1\"\nexec = [\"{example}{worker}\"]\nmode = \"persistent\"\nbatch = 10\nenv_pass = [\"PATH\"]\n"
    ));
    let biotope = home.start();
    let payloads = hostile_payloads();
    let push = |payload| biotope.push(&json!({"type": "any", "tenant": "\"attempt\":7,", "payload": payload}));
    let ids: Vec<String> = payloads.iter().map(push).collect();
    for (id, payload) in ids.iter().zip(&payloads) {
        let job = biotope.until_state(id, "completed");
        assert_eq!((&job["result"]["attempt"], &job["attempts"]), (&json!(1), &json!(0)), "{payload}: {job}");
    }
    assert_eq!(biotope.of_type("any")["failed"], 0);
    biotope.stop();
}

#[test]
fn the_example_worker_in_python_completes_any_payload() {
    completes_anything("worker.py");
}

#[test]
fn the_example_worker_in_sh_completes_any_payload() {
    completes_anything("worker.sh");
}

#[test]
fn the_example_worker_in_javascript_completes_any_payload() {
    let name = "the_example_worker_in_javascript_completes_any_payload";
    match std::process::Command::new("node").arg("--version").output() {
        Ok(_) => completes_anything("worker.js"),
        Err(error) => crate::support::skipped(name, &format!("node: {error}")),
    }
}

/// A worker that answers each job with the how manieth of its cycle it is.
const COUNTS: &str = r#"n=0
while IFS= read -r line; do
    id=${line#*\"id\":\"} id=${id%%\"*}
    case $line in
    *'"method":"hello"'*) result='{"protocol":1}' ;;
    *'"method":"job"'*) n=$((n + 1)) result="{\"value\":$n}" ;;
    *) n=0 result='{}' ;;
    esac
    printf '{"jsonrpc":"2.0","id":"%s","result":%s}\n' "$id" "$result"
done"#;

#[test]
fn a_cycle_waits_for_a_fuller_batch_and_no_longer_than_it_may() {
    let worker = |name: &str, wait: &str| {
        let kind = "version = \"v1\"\nexec = [\"./counts.sh\"]\nmode = \"persistent\"\nbatch = 3";
        format!("[workers.{name}]\n{kind}\nbatch_wait = \"{wait}\"\n")
    };
    let home = Home::new(&(worker("patient", "1m") + &worker("brisk", "20ms")));
    home.script("counts.sh", COUNTS);
    let biotope = home.start();
    // One by one: without waiting each would be a cycle of its own.
    let ids: Vec<String> = (0..3).map(|_| biotope.push(&json!({"type": "patient"}))).collect();
    let mut places: Vec<u64> =
        ids.iter().map(|id| biotope.until_state(id, "completed")["result"].as_u64().unwrap()).collect();
    places.sort_unstable();
    assert_eq!(places, [1, 2, 3]);
    let alone = biotope.push(&json!({"type": "brisk"}));
    assert_eq!(biotope.until_state(&alone, "completed")["result"], 1);
    biotope.stop();
}
