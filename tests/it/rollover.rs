//! Versions come and go under load; a bad one changes nothing.

use std::collections::BTreeMap;

use biotope::clock::{Clock, RealClock};
use rustix::process::Signal;
use serde_json::json;

use crate::support::wait::until;
use crate::support::{Biotope, Home, LATER, SOON, shown};

/// A worker table of one per-job script.
fn table(version: &str, script: &str) -> String {
    format!("[workers.w]\nversion = \"{version}\"\nexec = [\"./{script}\"]\nconcurrency = 2\ntimeout = \"10m\"\n")
}

/// A process that stays, and does every job.
const GOOD: &str = r#"while IFS= read -r line; do
    id=${line#*\"id\":\"}; id=${id%%\"*}
    case $line in
    *'"method":"hello"'*) printf '{"id":"%s","jsonrpc":"2.0","result":{"protocol":1}}\n' "$id" ;;
    *'"id":"'*) printf '{"id":"%s","jsonrpc":"2.0","result":{}}\n' "$id" ;;
    esac
done"#;

fn generation(biotope: &Biotope<'_>) -> u64 {
    biotope.ecosystem()["generation"]["number"].as_u64().unwrap()
}

#[test]
fn v1_finishes_what_it_holds_while_v2_takes_new_work() {
    let home = Home::new(&table("v1", "one.sh"));
    home.script("one.sh", "echo $$ >>begun.txt\nread -r line <gate || true\necho '\"by one\"'");
    home.script("two.sh", "echo '\"by two\"'");
    home.pipe("gate");
    let biotope = home.start();
    let held = biotope.push(&json!({"type": "w"}));
    until("the run", SOON, || if home.text("begun.txt").is_empty() { Err("not begun".into()) } else { Ok(()) });
    home.configure(&table("v2", "two.sh"));
    biotope.signal(Signal::HUP);
    biotope.until_version("w", "v2", "current");
    let new = biotope.push(&json!({"type": "w"}));
    let new = biotope.until_state(&new, "completed");
    assert_eq!((&new["version"], &new["result"]), (&json!("v2"), &json!("by two")));
    assert_eq!(biotope.job(&held)["state"], "reserved", "v1 still works on its job");
    biotope.until_version("w", "v1", "draining");
    home.open_gate("gate");
    let held = biotope.until_state(&held, "completed");
    assert_eq!((&held["version"], &held["result"], &held["interrupts"]), (&json!("v1"), &json!("by one"), &json!(0)));
    biotope.until_version("w", "v1", "warm");
    biotope.stop();
}

#[test]
fn many_rollovers_under_load_run_each_job_once() {
    let home = Home::new(&table("v0", "w.sh"));
    home.script("w.sh", "echo \"$BIOTOPE_JOB_ID $BIOTOPE_VERSION\" >>runs.txt");
    let biotope = home.start();
    let total: u64 = if crate::support::long() { 20_000 } else { 2_000 };
    let rollovers = 8;
    for round in 1..=rollovers {
        let lines: String =
            (0..total / rollovers).map(|n| format!("{{\"type\":\"w\",\"id\":\"{round}-{n}\"}}\n")).collect();
        assert!(biotope.push_lines(&lines).iter().all(|line| line["status"] == 201));
        home.configure(&table(&format!("v{round}"), "w.sh"));
        biotope.signal(Signal::HUP);
        // The next round begins as soon as this version is known, whatever has become of the older ones.
        until("the version", SOON, || {
            let seen = biotope.of_type("w");
            if seen["versions"].to_string().contains(&format!("\"v{round}\"")) { Ok(()) } else { Err(seen.to_string()) }
        });
    }
    biotope.until_count_in("w", "completed", total, LATER);
    biotope.until_version("w", &format!("v{rollovers}"), "current");
    let counts = biotope.of_type("w");
    assert_eq!((&counts["completed"], &counts["failed"], &counts["dead"]), (&json!(total), &json!(0), &json!(0)));
    biotope.stop();
    let runs = home.text("runs.txt");
    let mut by_job = BTreeMap::new();
    for line in runs.lines() {
        let (id, version) = line.split_once(' ').unwrap();
        assert_eq!(by_job.insert(id, version), None, "{id} ran twice, though nothing crashed");
    }
    assert_eq!(by_job.len() as u64, total);
}

/// Ways in which a config can be of no use, and a word of what is said about each.
const USELESS: [(&str, &str); 7] = [
    ("[workers.w\n", "biotope.toml"),
    ("data_dri = \"x\"\n", "data_dri"),
    ("data_dir = \"data\"\n[workers.w]\nversion = 2\n", "version"),
    ("data_dir = \"data\"\n[workers.w]\nversion = \"v1\"\nexec = [\"./absent.sh\"]\n", "absent.sh"),
    ("missing", "No such file"),
    ("a directory", "directory"),
    ("a loop of links", "symbolic links"),
];

/// Puts a useless config where the good one was.
fn spoil(home: &Home, how: &str) {
    let path = home.path("biotope.toml");
    std::fs::remove_file(&path).unwrap();
    match how {
        "missing" => {}
        "a directory" => std::fs::create_dir(&path).unwrap(),
        "a loop of links" => std::os::unix::fs::symlink(&path, &path).unwrap(),
        text => home.write("biotope.toml", text),
    }
}

#[test]
fn p3_a_broken_missing_or_unreadable_config_changes_nothing_and_is_shown_and_counted() {
    let good = table("v1", "w.sh");
    let home = Home::new(&good);
    home.script("w.sh", "echo '\"fine\"'");
    let biotope = home.start();
    let before = generation(&biotope);
    for (counted, (how, word)) in (1..).zip(USELESS) {
        let began = RealClock.wall_ms();
        spoil(&home, how);
        biotope.signal(Signal::HUP);
        let refused = until("the refusal", SOON, || {
            let refused = biotope.get("/v1/generations").json()["refused"].clone();
            if refused.as_array().unwrap().len() == counted { Ok(refused) } else { Err(refused.to_string()) }
        });
        assert!(refused[0]["reason"].as_str().unwrap().contains(word), "{how}: {refused}");
        let seen = biotope.ecosystem()["generation"].clone();
        let since = seen["last_error_at_ms"].as_u64().unwrap();
        assert!(seen["number"] == before && (began..=RealClock.wall_ms()).contains(&since), "{how}: {seen}");
        assert!(seen["last_error"].as_str().unwrap().contains(word), "{how}: {seen}");
        assert!(String::from_utf8_lossy(&biotope.get("/").body).contains(word), "{how}: the page says so");
        let id = biotope.push(&json!({"type": "w"}));
        assert_eq!(biotope.until_state(&id, "completed")["version"], "v1", "{how}");
        if how == "a directory" {
            std::fs::remove_dir(home.path("biotope.toml")).unwrap();
        }
        home.configure(&good);
        // Whoever asks finds the process by the config, which says nothing wrong any more: it still tells what it was.
        let status = home.cli(&["status"]);
        let told = String::from_utf8_lossy(&status.stdout).into_owned();
        assert!(status.status.success() && told.contains(word), "{how}: {}", shown(&status));
    }
    // A good file goes in afterwards.
    home.configure(&table("v2", "w.sh"));
    biotope.signal(Signal::HUP);
    biotope.until_version("w", "v2", "current");
    let seen = biotope.ecosystem()["generation"].clone();
    assert_eq!((&seen["number"], &seen["last_error"]), (&json!(before + 1), &json!(null)), "{seen}");
    biotope.stop();
}

#[test]
fn a_file_with_mistakes_still_says_where_the_process_is() {
    let home = Home::new(&table("v1", "w.sh"));
    home.script("w.sh", "echo '\"fine\"'");
    let biotope = home.start();
    home.write("biotope.toml", &format!("data_dri = \"x\"\n[http]\nlisten = \"127.0.0.1:{}\"\n", home.port));
    assert_eq!(home.cli(&["reload", "--wait"]).status.code(), Some(78));
    let status = home.cli(&["status"]);
    let told = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.status.success() && told.contains("data_dri"), "{}", shown(&status));
    biotope.stop();
}

#[test]
fn p5_a_v2_that_cannot_start_changes_nothing() {
    let persistent = |version: &str, script: &str| {
        format!("{}mode = \"persistent\"\nstart_timeout = \"4s\"\n", table(version, script))
    };
    let other = |version: &str| format!("[workers.other]\nversion = \"{version}\"\nexec = [\"cat\"]\n");
    let home = Home::new(&(persistent("v1", "good.sh") + &other("v1")));
    home.script("good.sh", GOOD);
    home.script("dies.sh", "echo 'the licence has run out' >&2\nexit 1");
    home.script("mute.sh", "while read -r line; do :; done");
    home.script("stranger.sh", "#!/no/such/interpreter");
    let biotope = home.start();
    biotope.until_version("w", "v1", "current");
    for (version, script, word) in
        [("v2", "dies.sh", "licence"), ("v3", "mute.sh", ""), ("v4", "stranger.sh", "stranger.sh")]
    {
        home.configure(&(persistent(version, script) + &other(version)));
        let output = home.cli(&["reload", "--wait"]);
        assert_eq!(output.status.code(), Some(79), "{script}: {}", shown(&output));
        biotope.until_version("w", version, "rejected");
        biotope.until_version("w", "v1", "current");
        biotope.until_version("other", version, "current");
        let versions = biotope.of_type("w")["versions"].clone();
        assert!(versions.to_string().contains(word), "the reason is shown: {versions}");
        let id = biotope.push(&json!({"type": "w"}));
        assert_eq!(biotope.until_state(&id, "completed")["version"], "v1");
    }
    biotope.stop();
}

#[test]
fn p5_a_v2_that_dies_as_soon_as_it_is_up_is_withdrawn() {
    let hello = r#"read -r line; id=${line#*\"id\":\"}; id=${id%%\"*}
printf '{"id":"%s","jsonrpc":"2.0","result":{"protocol":1}}\n' "$id""#;
    let persistent = |version: &str, script: &str| table(version, script) + "mode = \"persistent\"\n";
    let home = Home::new(&persistent("v1", "good.sh"));
    home.script("good.sh", GOOD);
    home.script("brief.sh", &format!("{hello}\necho 'out of memory' >&2\nexit 9"));
    let biotope = home.start();
    biotope.until_version("w", "v1", "current");
    home.configure(&persistent("v2", "brief.sh"));
    biotope.signal(Signal::HUP);
    let mut ids = Vec::new();
    until("the withdrawal", SOON, || {
        ids.push(biotope.push(&json!({"type": "w", "max_attempts": 1})));
        let versions = biotope.of_type("w")["versions"].clone();
        let gone = ["quarantined", "rejected"].iter().any(|state| versions.to_string().contains(state));
        if gone { Ok(()) } else { Err(versions.to_string()) }
    });
    for id in &ids {
        assert_eq!(biotope.until_state(id, "completed")["version"], "v1");
    }
    biotope.until_version("w", "v1", "current");
    let seen = biotope.of_type("w");
    assert_eq!(seen["dead"], 0, "{seen}");
    assert!(seen["versions"].to_string().contains("out of memory"), "the reason is shown: {seen}");
    biotope.stop();
}

#[test]
fn reload_tells_the_verdict_by_its_exit_code() {
    let home = Home::new(&table("v1", "w.sh"));
    home.script("w.sh", ":");
    let biotope = home.start();
    // Until then a reload has the start itself to wait for, and tells what that came to.
    biotope.until_version("w", "v1", "current");
    let unchanged = home.cli(&["reload", "--wait"]);
    assert_eq!(unchanged.status.code(), Some(0), "{}", shown(&unchanged));
    assert!(String::from_utf8_lossy(&unchanged.stdout).contains("generation 1: unchanged"), "{}", shown(&unchanged));
    home.configure_with("stop_timeout = \"20s\"", &table("v1", "w.sh"));
    let changed = home.cli(&["reload", "--wait"]);
    assert!(String::from_utf8_lossy(&changed.stdout).contains("generation 2: ok"), "{}", shown(&changed));
    home.configure(&table("v2", "w.sh"));
    let done = home.cli(&["reload", "--wait"]);
    assert_eq!(done.status.code(), Some(0), "{}", shown(&done));
    biotope.until_version("w", "v2", "current");
    home.write("biotope.toml", &home.text("biotope.toml").replace("version = \"v2\"", "version = 2"));
    let refused = home.cli(&["reload", "--wait"]);
    assert_eq!(refused.status.code(), Some(78), "{}", shown(&refused));
    home.configure(&table("v3", "absent.sh"));
    let refused = home.cli(&["reload", "--wait"]);
    assert_eq!(
        refused.status.code(),
        Some(78),
        "a program that is not there is a mistake in the file: {}",
        shown(&refused)
    );
    biotope.until_version("w", "v2", "current");
    biotope.stop();
}

#[test]
fn types_are_added_and_removed() {
    let two = "[workers.second]\nversion = \"v1\"\nexec = [\"cat\"]\n";
    let home = Home::new(&table("v1", "w.sh"));
    home.script("w.sh", ":");
    let biotope = home.start();
    assert_eq!(biotope.post("/v1/jobs", r#"{"type":"second"}"#).status, 404);
    home.configure(&(table("v1", "w.sh") + two));
    biotope.signal(Signal::HUP);
    biotope.until_version("second", "v1", "current");
    let id = biotope.push(&json!({"type": "second", "payload": 2}));
    biotope.until_state(&id, "completed");
    let waiting = biotope.push(&json!({"type": "second", "delay": "1h"}));

    // Removed: it drains, its backlog is parked, and what follows is parked, too.
    home.configure(&table("v1", "w.sh"));
    biotope.signal(Signal::HUP);
    until("the removal", SOON, || {
        let seen = biotope.of_type("second");
        if seen["configured"] == false { Ok(()) } else { Err(seen.to_string()) }
    });
    let retried = biotope.post(&format!("/v1/jobs/{waiting}/retry"), "");
    assert_eq!(retried.status, 200, "{retried:?}");
    biotope.until_state(&waiting, "parked");

    // Added again: it runs.
    home.configure(&(table("v1", "w.sh") + two));
    biotope.signal(Signal::HUP);
    biotope.until_state(&waiting, "completed");
    biotope.stop();
}

#[test]
fn live_settings_apply_without_a_new_version() {
    let home = Home::new(&table("v1", "w.sh"));
    home.script("w.sh", "exit 1");
    let biotope = home.start();
    let pool = || biotope.of_type("w")["versions"].clone();
    until("the first pool", SOON, || if pool()[0]["pool_size"] == 2 { Ok(()) } else { Err(pool().to_string()) });
    home.configure(&(table("v1", "w.sh").replace("concurrency = 2", "concurrency = 5") + "max_attempts = 1\n"));
    biotope.signal(Signal::HUP);
    until("the larger pool", SOON, || if pool()[0]["pool_size"] == 5 { Ok(()) } else { Err(pool().to_string()) });
    assert_eq!(pool().as_array().unwrap().len(), 1, "no other version: {}", pool());
    let id = biotope.push(&json!({"type": "w"}));
    assert_eq!(biotope.until_state(&id, "dead")["max_attempts"], 1);
    home.configure(&table("v1", "w.sh").replace("concurrency = 2", "concurrency = 1"));
    biotope.signal(Signal::HUP);
    until("the smaller pool", SOON, || if pool()[0]["pool_size"] == 1 { Ok(()) } else { Err(pool().to_string()) });
    biotope.stop();
}

#[test]
fn the_same_label_with_another_program_rolls_over_too() {
    let home = Home::new(&table("v1", "w.sh"));
    home.script("w.sh", "echo '\"old\"'");
    let biotope = home.start();
    let id = biotope.push(&json!({"type": "w"}));
    assert_eq!(biotope.until_state(&id, "completed")["result"], "old");
    home.script("w.sh", "echo '\"new\"'");
    let output = home.cli(&["reload", "--wait"]);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    let id = biotope.push(&json!({"type": "w"}));
    let job = biotope.until_state(&id, "completed");
    assert_eq!(job["result"], "new");
    let label = job["version"].as_str().unwrap();
    assert!(label.starts_with("v1") && label != "v1", "a revision of its own: {label}");
    biotope.stop();
}

#[test]
fn p2_a_storm_of_signals_becomes_few_reloads() {
    let home = Home::new(&table("v1", "w.sh"));
    home.script("w.sh", ":");
    let biotope = home.start();
    for _ in 0..1000 {
        biotope.signal(Signal::HUP);
    }
    home.configure(&table("v2", "w.sh"));
    biotope.signal(Signal::HUP);
    biotope.until_version("w", "v2", "current");
    assert!(generation(&biotope) <= 3, "{}", biotope.ecosystem()["generation"]);
    let id = biotope.push(&json!({"type": "w"}));
    assert_eq!(biotope.until_state(&id, "completed")["version"], "v2");
    biotope.stop();
}

#[test]
fn a_start_with_a_changed_file_is_a_reload() {
    let home = Home::new(&table("v1", "w.sh"));
    home.script("w.sh", ":");
    let biotope = home.start();
    let delayed = biotope.push(&json!({"type": "w", "delay": "1h"}));
    biotope.stop();
    home.configure(&table("v2", "w.sh"));
    let biotope = home.start();
    biotope.until_version("w", "v2", "current");
    assert_eq!(biotope.post(&format!("/v1/jobs/{delayed}/retry"), "").status, 200);
    assert_eq!(
        biotope.until_state(&delayed, "completed")["version"],
        "v2",
        "the version is bound when a job is reserved"
    );
    biotope.stop();
}

#[test]
fn p7_a_job_that_never_ends_holds_a_rollover_up_until_the_drain_timeout_and_costs_nothing() {
    let never = "[workers.w.rollout]\ndrain_timeout = \"300ms\"\n";
    let home = Home::new(&(table("v1", "never.sh") + "kill_after = \"100ms\"\n" + never));
    // TERM does not move it, nor what it has started.
    home.script("never.sh", "trap '' TERM\nsleep 1000 &\necho $! >>sleeps.txt\nwait\nwait\nwait");
    home.script("two.sh", "echo '\"by two\"'");
    let biotope = home.start();
    let id = biotope.push(&json!({"type": "w", "max_attempts": 1}));
    until("the run", SOON, || if home.text("sleeps.txt").is_empty() { Err("not begun".into()) } else { Ok(()) });
    home.configure(&(table("v2", "two.sh") + never));
    let told = home.cli(&["reload", "--wait"]);
    assert_eq!(told.status.code(), Some(0), "{}", shown(&told));
    let done = biotope.until_state(&id, "completed");
    let seen = (&done["version"], &done["result"], &done["attempts"], &done["interrupts"]);
    assert_eq!(seen, (&json!("v2"), &json!("by two"), &json!(0), &json!(1)), "cut off, at no cost: {done}");
    let sleeps: i32 = home.text("sleeps.txt").trim().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(sleeps).unwrap();
    until("the end of what it had started", SOON, || match rustix::process::test_kill_process(pid) {
        Err(_) => Ok(()),
        Ok(()) => Err(format!("{sleeps} lives")),
    });
    biotope.stop();
}

#[test]
fn a_program_that_was_replaced_in_its_place_is_no_way_back_and_no_evidence() {
    let home = Home::new(&table("v1", "w.sh"));
    home.script("w.sh", "echo 1");
    let biotope = home.start();
    biotope.until_version("w", "v1", "current");
    let first = biotope.push(&json!({"type": "w"}));
    assert_eq!(biotope.until_state(&first, "completed")["result"], 1);
    home.script("w.sh", "echo 2");
    home.configure(&table("v2", "w.sh"));
    assert_eq!(home.cli(&["reload", "--wait"]).status.code(), Some(0));
    biotope.until_version("w", "v1", "warm");
    let back = biotope.post("/v1/types/w/rollback", "");
    assert_eq!(back.status, 409, "{back:?}");
    assert!(back.json()["detail"].as_str().unwrap().contains("w.sh has changed"), "{back:?}");
    // The file put back, and a reload: that is the way back then.
    home.script("w.sh", "echo 1");
    home.configure(&table("v1", "w.sh"));
    assert_eq!(home.cli(&["reload", "--wait"]).status.code(), Some(0));
    let last = biotope.push(&json!({"type": "w"}));
    let done = biotope.until_state(&last, "completed");
    assert_eq!((&done["result"], &done["version"]), (&json!(1), &json!("v1")));
    biotope.stop();
}
