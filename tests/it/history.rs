//! The index of ended jobs: whatever happens to it, listings say what the log says, and everything else goes on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::wait::until;
use crate::support::{Biotope, Home, LATER, http, shown, tell};

/// What the payload says: `ok`, or an error. One in three of those that fail passes in the end.
const WORKERS: &str = r#"
[workers.press]
version = "v1"
exec = ["./work.sh"]
concurrency = 2
max_attempts = 2
backoff = { first = "1ms", factor = 1, max = "1ms" }

[workers.post]
version = "v1"
exec = ["./work.sh"]
max_attempts = 1
"#;

const ON: &str = "[history]\nindex = \"on\"\n[log]\nsegment = \"8MiB\"";
const OFF: &str = "[history]\nindex = \"off\"\n[log]\nsegment = \"8MiB\"";

fn home() -> Home {
    let home = Home::bare();
    home.configure_with(ON, WORKERS);
    home.script(
        "work.sh",
        "read -r said\ncase $said in\n'\"ok\"') echo '\"done\"' ;;\n'\"later\"') [ \"$BIOTOPE_ATTEMPT\" -gt 1 ] || { echo 'not YET,  ready' >&2; exit 1; } ;;\n*) echo \"cannot do $said\" >&2; exit 65 ;;\nesac",
    );
    home
}

fn rng() -> fastrand::Rng {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    tell(&format!("SEED={seed}"));
    fastrand::Rng::with_seed(seed)
}

/// Jobs of all kinds, some with ids of their own; discards some of the dead, cancels some that wait.
fn work(biotope: &Biotope<'_>, rng: &mut fastrand::Rng, count: usize) {
    let tenants = ["acme", "Zürich", "t 3"];
    let mut lines = String::new();
    for n in 0..count {
        let payload = ["ok", "ok", "ok", "later", "later", "this", "that"][rng.usize(0..7)];
        let mut job = json!({"type": if rng.bool() { "press" } else { "post" }, "payload": payload});
        if rng.bool() {
            job["tenant"] = json!(tenants[rng.usize(0..3)]);
        }
        if rng.bool() {
            job["id"] = json!(format!("chosen-{n}-{}", rng.u32(..)));
        }
        if rng.u8(0..6) == 0 {
            job["delay"] = json!("1h");
        }
        lines += &format!("{job}\n");
    }
    let answers = biotope.push_lines(&lines);
    assert!(answers.iter().all(|answer| answer["status"] == 201), "{answers:?}");
    until_idle(biotope);
    for (state, action) in [("dead", "discard"), ("delayed", "cancel")] {
        for job in biotope.jobs(&format!("state={state}")) {
            if rng.u8(0..4) != 0 {
                let id = job["id"].as_str().unwrap();
                assert_eq!(biotope.post(&format!("/v1/jobs/{id}/{action}"), "").status, 200, "{job}");
            }
        }
    }
}

fn until_idle(biotope: &Biotope<'_>) {
    // What was pushed for later, and has not been tried, stays as it is; all else ends, and that is seen at one moment.
    let later = biotope.jobs("state=delayed").iter().filter(|job| job["attempts"] == 0).count() as u64;
    until("nothing to do", LATER, || {
        let seen = biotope.ecosystem();
        let open = |of_type: &Value| -> u64 {
            ["ready", "reserved", "delayed"].iter().map(|state| of_type[state].as_u64().unwrap()).sum()
        };
        let open: u64 = seen["types"].as_array().unwrap().iter().map(open).sum();
        if open == later { Ok(()) } else { Err(seen.to_string()) }
    });
}

fn until_indexed(biotope: &Biotope<'_>) {
    until("an index that has seen everything", LATER, || {
        let seen = biotope.ecosystem()["history"].clone();
        if seen["state"] == "ok" && seen["behind"] == 0 { Ok(()) } else { Err(seen.to_string()) }
    });
}

/// What every filter finds, in order, over all pages; and some jobs one by one.
fn answers(biotope: &Biotope<'_>) -> BTreeMap<String, Vec<Value>> {
    let mut queries = vec!["limit=10000".to_owned(), "limit=7".to_owned(), "since=2020-01-01T00:00:00Z".to_owned()];
    let mut parts: Vec<String> = Vec::new();
    for state in ["completed", "cancelled", "expired", "discarded", "dead", "delayed", "ready"] {
        parts.push(format!("state={state}"));
    }
    parts.extend(["type=press", "type=post", "tenant=acme", "tenant=Z%C3%BCrich", "tenant=t%203"].map(str::to_owned));
    parts.extend(["error=cannot%20do", "error=not%20yet%2C%20READY", "error=that", "error=nothing"].map(str::to_owned));
    parts.push("since=2999-01-01T00:00:00Z".to_owned());
    for (at, part) in parts.iter().enumerate() {
        queries.push(part.clone());
        for other in parts.iter().skip(at + 1).filter(|other| other.split('=').next() != part.split('=').next()) {
            queries.push(format!("{part}&{other}&limit=20"));
        }
    }
    let mut all: BTreeMap<_, _> = queries.into_iter().map(|query| (query.clone(), biotope.jobs(&query))).collect();
    let ids: Vec<_> = all["limit=10000"].iter().step_by(5).map(|job| job["id"].as_str().unwrap().to_owned()).collect();
    all.extend(ids.into_iter().map(|id| (id.clone(), vec![biotope.job(&id)])));
    all
}

/// Fails with what differs, and not with all of it.
fn same(what: &str, a: &BTreeMap<String, Vec<Value>>, b: &BTreeMap<String, Vec<Value>>) {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>(), "{what}");
    for (query, jobs) in a {
        let ids = |jobs: &[Value]| jobs.iter().map(|job| format!("{} {}", job["id"], job["state"])).collect::<Vec<_>>();
        assert_eq!(ids(jobs), ids(&b[query]), "{what}: {query}");
        assert_eq!(jobs, &b[query], "{what}: {query}");
    }
}

/// What the log itself says: by a biotope without an index.
fn by_the_log(home: &Home) -> BTreeMap<String, Vec<Value>> {
    home.configure_with(OFF, WORKERS);
    let biotope = home.start();
    assert_eq!(biotope.ecosystem()["history"], json!({"state": "off", "behind": 0}));
    let said = answers(&biotope);
    biotope.stop();
    home.configure_with(ON, WORKERS);
    said
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn d17_listings_say_what_the_log_says_whatever_happens_to_the_index() {
    let home = home();
    let mut rng = rng();
    let biotope = home.start();
    work(&biotope, &mut rng, 150);
    until_indexed(&biotope);
    let indexed = answers(&biotope);
    assert!(indexed["state=completed"].len() > 30 && indexed["state=discarded"].len() > 5);
    assert!(indexed["state=cancelled"].len() > 2 && indexed["error=not%20yet%2C%20READY"].len() > 5);
    biotope.kill();
    let by_the_log = by_the_log(&home);
    same("by the log", &by_the_log, &indexed);

    // Each of its files in turn, deleted and damaged; then all of it.
    let history = home.path("data/history");
    let names = files(&history);
    assert!(!names.is_empty());
    for (n, file) in names.iter().chain([&history]).enumerate() {
        if *file == history {
            std::fs::remove_dir_all(file).unwrap();
        } else if n % 2 == 0 || !file.exists() {
            drop(std::fs::remove_file(file));
        } else {
            let mut bytes = std::fs::read(file).unwrap();
            for _ in 0..1 + bytes.len() / 50 {
                let at = rng.usize(0..bytes.len().max(1));
                bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = rng.u8(..));
            }
            std::fs::write(file, bytes).unwrap();
        }
        let biotope = home.start();
        // At once, while it heals; and when it has.
        same(&format!("{} damaged", file.display()), &by_the_log, &answers(&biotope));
        until_indexed(&biotope);
        same(&format!("{} healed", file.display()), &by_the_log, &answers(&biotope));
        biotope.kill();
    }
}

#[test]
fn d17_a_kill_in_the_middle_leaves_an_index_that_catches_up() {
    let home = home();
    let mut rng = rng();
    for _ in 0..4 {
        let biotope = home.start();
        work(&biotope, &mut rng, 40);
        if rng.bool() {
            until_indexed(&biotope);
        }
        let lines: String = (0..200).map(|_| "{\"type\":\"press\",\"payload\":\"ok\"}\n").collect();
        biotope.push_lines(&lines);
        biotope.until_count("press", "completed", 1);
        biotope.kill();
    }
    let biotope = home.start();
    until_idle(&biotope);
    until_indexed(&biotope);
    let indexed = answers(&biotope);
    biotope.stop();
    same("by the log", &by_the_log(&home), &indexed);
    assert!(!home.path("data/history.aside").exists(), "nothing was wrong with it:\n{}", home.text("stderr.txt"));
}

#[test]
fn pages_stay_as_they_are_while_jobs_come_in() {
    let home = home();
    let biotope = home.start();
    for n in 0..20 {
        biotope.push(&json!({"type": "post", "id": format!("old-{n:02}"), "payload": "ok"}));
        biotope.until_count("post", "completed", n + 1);
    }
    for state in ["", "&state=completed"] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        for page in 0.. {
            let answer = biotope.get(&format!("/v1/jobs?type=post&limit=3{state}{cursor}")).json();
            seen.extend(answer["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()));
            biotope.push(
                &json!({"type": "post", "id": format!("new{state}{page}").replace(['&', '='], "-"), "payload": "ok"}),
            );
            match answer["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        let old: Vec<_> = seen.iter().filter(|id| id.starts_with("old")).cloned().collect();
        let expected: Vec<_> = (0..20).rev().map(|n| format!("old-{n:02}")).collect();
        assert_eq!(old, expected, "{state}: each once, newest first, whatever comes in: {seen:?}");
        until_idle(&biotope);
    }
    biotope.stop();
}

#[test]
fn a_search_is_checked_and_the_shell_has_it_too() {
    let home = home();
    let biotope = home.start();
    biotope.push(&json!({"type": "post", "id": "bad", "payload": "this", "tenant": "acme"}));
    biotope.push(&json!({"type": "post", "id": "good", "payload": "ok"}));
    biotope.until_state("bad", "dead");
    biotope.until_state("good", "completed");
    let long = format!("error={}", "x".repeat(257));
    let wrong =
        ["limit=0", "limit=10001", "limit=x", "state=asleep", "since=yesterday", "error=", "error=%20%09", &long];
    for query in wrong.into_iter().chain(["cursor=x", "cursor=-1", "type=a%20b", "color=red"]) {
        let answer = http::get(home.port, &format!("/v1/jobs?{query}")).unwrap();
        assert_eq!(answer.status, 400, "{query}: {answer:?}");
        assert!(!answer.json()["detail"].as_str().unwrap().is_empty(), "{query}");
    }
    for (args, found) in [
        (vec!["--error", "CANNOT  do", "--state", "dead"], vec!["bad"]),
        (vec!["--tenant", "acme"], vec!["bad"]),
        (vec!["--type", "post", "--since", "2020-01-01T00:00:00Z"], vec!["good", "bad"]),
        (vec!["--since", "2999-01-01T00:00:00Z"], vec![]),
    ] {
        let output = home.cli(&[vec!["jobs", "list"], args].concat());
        assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        let mut ids: Vec<_> = text.lines().filter_map(|line| line.split("  ").next()).collect();
        ids.sort_unstable_by(|a, b| b.cmp(a));
        assert_eq!(ids, found, "{}", shown(&output));
    }
    // Page by page: the second listing begins where the first one ended.
    let first = home.cli(&["jobs", "list", "--limit", "1"]);
    let told = String::from_utf8(first.stderr.clone()).unwrap();
    let cursor = told.trim().rsplit(' ').next().unwrap();
    let rest = home.cli(&["jobs", "list", "--cursor", cursor]);
    assert_eq!(first.stdout.iter().chain(&rest.stdout).filter(|byte| **byte == b'\n').count(), 2, "{}", shown(&rest));
    let refused = home.cli(&["jobs", "list", "--since", "yesterday"]);
    assert_eq!(refused.status.code(), Some(65), "{}", shown(&refused));
    biotope.stop();
}
