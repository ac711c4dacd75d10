//! Word counts of this machine's packaged changelogs: real files, real programs, and a sum that must hold whatever
//! happens in the middle.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::OnceLock;

use rustix::process::Signal;

use crate::support::{Biotope, Home, LATER, repository, shown, tell};

/// The files, listed once, and what v1's pipe counts over all of them at once.
struct Changelogs {
    /// One job object a line.
    jobs: String,
    files: BTreeSet<String>,
    words: u64,
}

fn changelogs() -> &'static Changelogs {
    static LISTED: OnceLock<Changelogs> = OnceLock::new();
    LISTED.get_or_init(|| {
        let output = Command::new(repository().join("examples/press/list_files.sh")).output().unwrap();
        assert!(output.status.success(), "{}", shown(&output));
        let jobs = String::from_utf8(output.stdout).unwrap();
        let jobs_parsed: Vec<serde_json::Value> =
            jobs.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let files: BTreeSet<_> =
            jobs_parsed.iter().map(|job| job["payload"]["file"].as_str().unwrap().to_owned()).collect();
        let ids: BTreeSet<_> = jobs_parsed.iter().map(|job| job["id"].as_str().unwrap()).collect();
        assert_eq!((files.len(), ids.len()), (jobs_parsed.len(), jobs_parsed.len()), "a file or an id twice");
        tell(&format!("{} files", files.len()));
        assert!(files.len() >= 100, "only {} changelogs on this machine: too few to prove anything", files.len());
        let pipe = r#"set -o pipefail; zcat -- "$@" | LC_ALL=C tr -c 'A-Za-z0-9\n' ' ' | LC_ALL=C wc -w"#;
        let output = Command::new("bash").args(["-c", pipe, "bash"]).args(&files).output().unwrap();
        assert!(output.status.success(), "{}", shown(&output));
        let words = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
        tell(&format!("{words} words by one pipe over all files"));
        Changelogs { jobs, files, words }
    })
}

fn push(home: &Home, jobs: &[&str]) {
    home.write("list.ndjson", &jobs.join("\n"));
    let output = home.cli(&["push", "--file", home.path("list.ndjson").to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), jobs.len());
}

fn push_all(home: &Home) {
    push(home, &changelogs().jobs.lines().collect::<Vec<_>>());
}

/// Pushes two thirds of the files; the last ones are for when another version takes work.
fn push_most(home: &Home) -> Vec<&'static str> {
    let jobs: Vec<&str> = changelogs().jobs.lines().collect();
    let (most, last) = jobs.split_at(jobs.len() * 2 / 3);
    push(home, most);
    last.to_vec()
}

/// Waits until a share of the files is counted: `part` of `whole`.
fn until_part(biotope: &Biotope<'_>, part: u64, whole: u64) {
    biotope.until_count_in("word-count", "completed", changelogs().files.len() as u64 * part / whole, LATER);
}

/// Each file is counted exactly once, and the sum is the pipe's. Gives back how many each version counted.
fn check(biotope: &Biotope<'_>) -> BTreeMap<String, usize> {
    until_part(biotope, 1, 1);
    let expected = changelogs();
    let mut counted = BTreeMap::new();
    let mut by_version = BTreeMap::new();
    for job in biotope.jobs("type=word-count&limit=10000") {
        assert_eq!(job["state"], "completed", "{job}");
        let file = job["result"]["file"].as_str().unwrap().to_owned();
        assert_eq!(job["payload"]["file"], file.as_str());
        let words = job["result"]["words"].as_u64().unwrap();
        assert_eq!(counted.insert(file, words), None, "counted twice: {job}");
        *by_version.entry(job["version"].as_str().unwrap().to_owned()).or_insert(0) += 1;
    }
    assert!(counted.keys().eq(expected.files.iter()), "other files than the list's");
    assert_eq!(counted.values().sum::<u64>(), expected.words);
    let counts = biotope.of_type("word-count");
    for (key, value) in [
        ("completed", expected.files.len()),
        ("enqueued", expected.files.len()),
        ("dead", 0),
        ("ready", 0),
        ("reserved", 0),
    ] {
        assert_eq!(counts[key], value, "{key} in {counts}");
    }
    tell(&format!("by version: {by_version:?}"));
    by_version
}

fn roll_over(home: &Home, biotope: &Biotope<'_>) {
    home.use_config("biotope-v2.toml");
    biotope.signal(Signal::HUP);
}

#[test]
fn the_sum_holds() {
    let home = Home::example("press", "biotope-v1.toml");
    let biotope = home.start();
    push_all(&home);
    let by_version = check(&biotope);
    assert_eq!(by_version.len(), 1, "{by_version:?}");
    // The same list again is known already, job by job.
    push_all(&home);
    check(&biotope);
    biotope.stop();
}

#[test]
fn the_sum_holds_over_a_rollover() {
    let home = Home::example("press", "biotope-v1.toml");
    let biotope = home.start();
    let last = push_most(&home);
    until_part(&biotope, 1, 3);
    roll_over(&home, &biotope);
    biotope.until_version("word-count", "v2", "current");
    push(&home, &last);
    let by_version = check(&biotope);
    assert_eq!(by_version.len(), 2, "both versions have counted: {by_version:?}");
    biotope.stop();
}

#[test]
fn the_sum_holds_over_a_kill() {
    let home = Home::example("press", "biotope-v1.toml");
    let mut biotope = home.start();
    push_all(&home);
    let kills = if crate::support::long() { 20 } else { 3 };
    for kill in 1..=kills {
        until_part(&biotope, kill, kills + 1);
        biotope.kill();
        biotope = home.start();
    }
    // A producer that does not know what became of its push repeats it.
    push_all(&home);
    check(&biotope);
    biotope.stop();
}

#[test]
fn the_sum_holds_over_a_rollover_and_a_kill() {
    let home = Home::example("press", "biotope-v1.toml");
    let biotope = home.start();
    let last = push_most(&home);
    until_part(&biotope, 1, 3);
    // Killed in the middle of the rollover itself, wherever that is by now.
    roll_over(&home, &biotope);
    biotope.kill();
    let biotope = home.start();
    until_part(&biotope, 1, 2);
    biotope.kill();
    let biotope = home.start();
    biotope.until_version("word-count", "v2", "current");
    push(&home, &last);
    let by_version = check(&biotope);
    assert_eq!(by_version.len(), 2, "both versions have counted: {by_version:?}");
    biotope.stop();
}
