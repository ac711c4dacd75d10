//! Looking into logs, saving what is damaged, and copies of a data directory: by the real binary, also under load.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::support::wait::until;
use crate::support::{Home, LATER, SOON, http, shown, tell};

const ECHO: &str = r#"
[log]
segment = "8MiB"

[workers.echo]
version = "v1"
exec = ["cat"]
concurrency = 2

[workers.later]
version = "v1"
exec = ["cat"]
"#;

/// What a command prints, and its exit code.
fn cli(home: &Home, args: &[&str]) -> (i32, String) {
    let output = home.cli(args);
    (output.status.code().unwrap(), shown(&output))
}

/// Pushes until it is told to leave; every id that was answered is noted.
fn produce(port: u16, name: &str, leave: &AtomicBool, acknowledged: &Mutex<Vec<String>>) {
    for round in 0.. {
        if leave.load(Ordering::Relaxed) {
            return;
        }
        let lines: Vec<String> = (0..20)
            .map(|n| match n % 4 {
                0 => format!("{{\"type\":\"echo\",\"payload\":{n}}}"),
                1 => format!("{{\"type\":\"echo\",\"id\":\"{name}-{round}-{n}\",\"payload\":\"{}\"}}", "x".repeat(2000)),
                _ => format!("{{\"type\":\"later\",\"delay\":\"1h\",\"payload\":[{n}],\"idempotency_key\":\"{name}-{round}-{n}\"}}"),
            })
            .collect();
        let answer = http::post(port, "/v1/jobs", "application/x-ndjson", lines.join("\n").as_bytes()).unwrap();
        let ids = answer.lines().into_iter().map(|line| line["id"].as_str().unwrap().to_owned());
        acknowledged.lock().unwrap().extend(ids);
    }
}

#[test]
fn a_backup_under_load_has_everything_that_was_acknowledged_before_it() {
    let home = Home::new(ECHO);
    let biotope = home.start();
    let (leave, acknowledged) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let (before, backed) = std::thread::scope(|scope| {
        for name in ["one", "two"] {
            let (leave, acknowledged) = (&leave, &acknowledged);
            scope.spawn(move || produce(home.port, name, leave, acknowledged));
        }
        let before = until("a thousand jobs", SOON, || {
            let ids = acknowledged.lock().unwrap();
            if ids.len() >= 1000 { Ok(ids.clone()) } else { Err(ids.len().to_string()) }
        });
        let backed = cli(&home, &["backup", "saved"]);
        leave.store(true, Ordering::Relaxed);
        (before, backed)
    });
    assert_eq!(backed.0, 0, "{}", backed.1);
    tell(&format!("{} acknowledged before, {} in all; {}", before.len(), acknowledged.lock().unwrap().len(), backed.1));
    assert_eq!(cli(&home, &["log", "verify", "saved"]).0, 0);
    assert_eq!(cli(&home, &["log", "verify", "data"]).0, 0, "a directory that is being written");
    assert_eq!(cli(&home, &["backup", "saved"]).0, 73, "a backup is never overwritten");
    biotope.kill();

    // Restored elsewhere, both go on: the same ids, the same keys.
    let other = Home::new(ECHO);
    let saved = home.path("saved");
    let args = ["restore", saved.to_str().unwrap(), "--to", "data"];
    let restored = cli(&other, &args);
    assert_eq!(restored.0, 0, "{}", restored.1);
    assert_eq!(cli(&other, &args).0, 73, "a data directory is never overwritten");
    let biotope = other.start();
    let jobs: Vec<Value> = before.iter().map(|id| biotope.job(id)).collect();
    let later = jobs.iter().filter(|job| job["type"] == "later").collect::<Vec<_>>();
    assert!(later.len() >= 400 && later.iter().all(|job| job["state"] == "delayed"), "{later:?}");
    let first = later[0];
    let again = json!({"type": "later", "delay": "1h", "payload": first["payload"], "idempotency_key": first["idempotency_key"]});
    let answer = biotope.post("/v1/jobs", &again.to_string());
    assert_eq!((answer.status, &answer.json()["id"]), (200, &first["id"]), "a key goes on to count: {answer:?}");
    let enqueued = biotope.of_type("echo")["enqueued"].as_u64().unwrap();
    biotope.until_count_in("echo", "completed", enqueued, LATER);
    let ids: BTreeSet<&String> = before.iter().collect();
    assert_eq!(ids.len(), before.len());
    for id in before.iter().filter(|id| biotope.job(id)["type"] == "echo") {
        let job = biotope.job(id);
        assert_eq!(job["state"], "completed", "{job}");
        assert_eq!(job["result"], job["payload"], "{job}");
    }
    biotope.stop();
    assert_eq!(cli(&other, &["log", "verify", "data"]).0, 0);

    // The first one, killed in the middle of it all, goes on as well.
    let biotope = home.start();
    for id in acknowledged.into_inner().unwrap().iter().step_by(17) {
        biotope.job(id);
    }
    biotope.stop();
}

#[test]
fn a_stopped_biotope_is_backed_up_offline_and_restored() {
    let home = Home::new(ECHO);
    let biotope = home.start();
    let id = biotope.push(&json!({"type": "later", "delay": "1h", "payload": {"a": 1}}));
    biotope.stop();
    let (code, said) = cli(&home, &["backup", "saved"]);
    assert_eq!(code, 0, "{said}");
    std::fs::remove_dir_all(home.path("data")).unwrap();
    let (code, said) = cli(&home, &["restore", "saved", "--to", "data"]);
    assert_eq!(code, 0, "{said}");
    let biotope = home.start();
    assert_eq!(biotope.job(&id)["payload"], json!({"a": 1}));
    let (code, said) = cli(&home, &["restore", "data", "--to", "other"]);
    assert_eq!(code, 75, "a directory in use is not copied past its process: {said}");
    assert!(!home.path("other").exists() && !home.path("other.unfinished").exists());
    biotope.stop();
}

/// Flips one bit of the first place in the log where `needle` stands.
fn damage(home: &Home, needle: &str) {
    let path = home.path("data/log/0000000001.seg");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(needle.len()).position(|window| window == needle.as_bytes()).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn damage_is_found_named_and_the_rest_saved() {
    let home = Home::new(ECHO);
    let biotope = home.start();
    for n in 0..20 {
        let job = json!({"type": "later", "delay": "1h", "id": format!("job-{n}"), "payload": format!("payload-{n}-")});
        biotope.push(&job);
    }
    biotope.push(&json!({"type": "echo", "id": "done", "payload": 7}));
    biotope.until_state("done", "completed");
    biotope.stop();
    let (code, said) = cli(&home, &["log", "verify", "data"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("sound") && said.contains("20 jobs live"), "{said}");
    std::fs::write(home.path("data/log/0000000000.seg.damaged"), "of old").unwrap();
    let (code, said) = cli(&home, &["log", "verify", "data"]);
    assert!(code == 0 && said.contains("segment 0 was damaged, and is kept beside the log"), "{said}");

    damage(&home, "payload-7-");
    let before = std::fs::read(home.path("data/log/0000000001.seg")).unwrap();
    let (code, said) = cli(&home, &["log", "verify", "data"]);
    assert_eq!(code, 65, "{said}");
    assert!(said.contains("segment 1 at offset") && said.contains("a record does not hold"), "{said}");
    let (code, said) = cli(&home, &["run"]);
    assert_eq!(code, 65, "{said}");
    let (code, said) = cli(&home, &["backup", "saved"]);
    assert_eq!(code, 65, "a damaged log is not taken for a backup: {said}");
    let (code, said) = cli(&home, &["log", "salvage", "data", "--to", "rest"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("dropped: segment 1 at offset") && said.contains("19 jobs live"), "{said}");
    assert_eq!(before, std::fs::read(home.path("data/log/0000000001.seg")).unwrap(), "the original is never changed");
    assert_eq!(cli(&home, &["log", "salvage", "data", "--to", "rest"]).0, 73);
    assert_eq!(cli(&home, &["log", "verify", "rest"]).0, 0);

    std::fs::rename(home.path("data"), home.path("broken")).unwrap();
    std::fs::rename(home.path("rest"), home.path("data")).unwrap();
    let biotope = home.start();
    for n in (0..20).filter(|n| *n != 7) {
        let job = biotope.job(&format!("job-{n}"));
        assert_eq!((&job["state"], &job["payload"]), (&json!("delayed"), &json!(format!("payload-{n}-"))), "{job}");
    }
    assert_eq!(biotope.get("/v1/jobs/job-7").status, 404);
    let done = biotope.job("done");
    assert_eq!((&done["state"], &done["result"]), (&json!("completed"), &json!(7)), "{done}");
    biotope.stop();
}

#[test]
fn a_job_whose_first_record_is_lost_is_named_with_what_follows_it() {
    let home = Home::new(ECHO);
    let biotope = home.start();
    for n in 0..3 {
        biotope.push(&json!({"type": "echo", "id": format!("job-{n}"), "payload": format!("payload-{n}-")}));
        biotope.until_state(&format!("job-{n}"), "completed");
    }
    biotope.stop();
    damage(&home, "payload-1-");
    let (code, said) = cli(&home, &["log", "salvage", "data", "--to", "rest"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.lines().any(|line| line.contains("dropped") && line.contains("job-1 completed")), "{said}");
    assert!(!said.contains("job-0") && !said.contains("job-2"), "{said}");
}

#[test]
fn a_dump_tells_every_record_in_words_and_as_json() {
    let home = Home::new(ECHO);
    let biotope = home.start();
    biotope.push(&json!({"type": "echo", "id": "mine", "payload": {"n": [1, 2]}, "task": "say"}));
    biotope.until_state("mine", "completed");
    let live = cli(&home, &["log", "dump", "data"]);
    assert!(live.0 == 0 && live.1.contains("job mine enqueued for echo task \"say\""), "{}", live.1);
    biotope.stop();
    let (code, said) = cli(&home, &["log", "dump", "data"]);
    assert_eq!(code, 0, "{said}");
    for words in ["opened, epoch 1", "job mine reserved by echo v1", "job mine completed", "stopped in good order"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let output = home.cli(&["log", "dump", "data", "--json"]);
    let lines: Vec<Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seqs: Vec<u64> = lines.iter().map(|line| line["seq"].as_u64().unwrap()).collect();
    assert!(seqs.iter().copied().eq(1..=seqs.len() as u64), "{seqs:?}");
    let mine = |event: &str| {
        let found = lines.iter().find(|line| line["event"] == event && line["job"] == "mine");
        found.unwrap_or_else(|| panic!("{event}: {lines:?}")).clone()
    };
    assert_eq!(mine("enqueued")["payload"], json!({"n": [1, 2]}));
    assert_eq!(mine("enqueued")["type"], "echo");
    assert_eq!(mine("reserved")["version"], "v1");
    assert_eq!(mine("ended")["result"], json!({"n": [1, 2]}));
    let ended = mine("ended")["seq"].as_u64().unwrap();
    let output = home.cli(&["log", "dump", "data", "--json", "--from", &ended.to_string()]);
    let first = String::from_utf8(output.stdout).unwrap();
    let first: Value = serde_json::from_str(first.lines().next().unwrap()).unwrap();
    assert_eq!((&first["seq"], &first["job"]), (&json!(ended), &json!("mine")), "names from before are known");
}

#[test]
fn d16_a_newer_log_is_named_by_every_tool_with_76() {
    let home = Home::new(ECHO);
    home.start().stop();
    let path = home.path("data/log/0000000001.seg");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8] = 9;
    std::fs::write(path, bytes).unwrap();
    for args in [
        &["run"][..],
        &["log", "verify", "data"],
        &["log", "dump", "data"],
        &["log", "salvage", "data", "--to", "rest"],
        &["backup", "saved"],
        &["restore", "data", "--to", "rest"],
    ] {
        let (code, said) = cli(&home, args);
        assert_eq!(code, 76, "{args:?}: {said}");
        assert!(said.contains("format 9") && said.contains("up to 1"), "{args:?}: {said}");
    }
    std::fs::create_dir(home.path("empty")).unwrap();
    for args in [&["log", "verify", "empty"][..], &["log", "verify", "nowhere"], &["restore", "empty", "--to", "rest"]]
    {
        let (code, said) = cli(&home, args);
        assert_eq!(code, 65, "{args:?}: {said}");
    }
}
