//! A new version gets its share of real programs' jobs, and what becomes of a bad one while nobody touches anything.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::wait::until;
use crate::support::{Biotope, Home, LATER, shown, tell};

/// Fails in every way that a program can: with a failure, for good, by a signal.
const BROKEN: &str = "echo \"$BIOTOPE_JOB_ID $BIOTOPE_ATTEMPT\" >>broken.txt\ncase $((BIOTOPE_FENCE % 3)) in 0) exit 1 ;; 1) exit 65 ;; 2) kill -9 $$ ;; esac";

fn table(version: &str) -> String {
    format!(
        "[workers.w]\nversion = \"{version}\"\nexec = [\"./{version}.sh\"]\nconcurrency = 4\n\
         rollout = {{ steps = [10], hold = \"1h\", min_samples = 100000 }}\n"
    )
}

/// Pushes jobs that may fail twice; their ids.
fn push(biotope: &Biotope<'_>, count: usize) -> Vec<String> {
    let answers = biotope.push_lines(&"{\"type\":\"w\",\"max_attempts\":2}\n".repeat(count));
    answers.iter().map(|answer| answer["id"].as_str().unwrap().to_owned()).collect()
}

fn version(biotope: &Biotope<'_>, label: &str) -> Value {
    let versions = biotope.of_type("w")["versions"].as_array().unwrap().clone();
    versions.into_iter().rev().find(|version| version["version"] == label).unwrap_or_default()
}

#[test]
fn a_bad_version_on_a_tenth_of_all_jobs_is_withdrawn_with_its_evidence_and_no_job_dies() {
    let home = Home::new(&table("v1"));
    home.script("v1.sh", "echo '\"by v1\"'");
    home.script("v2.sh", BROKEN);
    let biotope = home.start();
    biotope.until_version("w", "v1", "current");
    home.configure(&table("v2"));
    let verdict = std::thread::scope(|scope| {
        let reload = scope.spawn(|| home.cli(&["reload", "--wait"]));
        biotope.until_version("w", "v2", "ramping");
        assert_eq!(
            (&version(&biotope, "v1")["percent"], &version(&biotope, "v2")["percent"]),
            (&json!(90), &json!(10))
        );
        let mut ids = Vec::new();
        until("the withdrawal", LATER, || {
            assert!(ids.len() < 1000, "100 of its jobs, and not found: {}", biotope.of_type("w"));
            ids.extend(push(&biotope, 100));
            biotope.until_count_in("w", "completed", ids.len() as u64, LATER);
            let seen = version(&biotope, "v2");
            if seen["state"] == "quarantined" { Ok(()) } else { Err(seen.to_string()) }
        });
        ids.extend(push(&biotope, 20));
        judge(&home, &biotope, &ids);
        reload.join().unwrap()
    });
    let told = String::from_utf8_lossy(&verdict.stdout).into_owned();
    assert!(
        verdict.status.code() == Some(79) && told.contains("w: withdrawn from v1 to v2: v2 failed "),
        "{}",
        shown(&verdict)
    );

    let seen = version(&biotope, "v2");
    let reason = seen["reason"].as_str().unwrap().to_owned();
    assert!(
        reason.starts_with("v2 failed ") && reason.contains(" first attempts that v1 then did; v1: 0 of "),
        "{seen}"
    );
    let status = String::from_utf8(home.cli(&["status"]).stdout).unwrap();
    assert!(status.contains(&format!("w v2 was withdrawn, and the config still asks for it: {reason}")), "{status}");
    assert_eq!(biotope.of_type("w")["dead"], 0);
    tell(&reason);

    // Nobody says that it may come back: it stays out over a restart.
    biotope.stop();
    let biotope = home.start();
    biotope.until_version("w", "v1", "current");
    let id = &push(&biotope, 1)[0];
    assert_eq!(biotope.until_state(id, "completed")["version"], "v1");
    biotope.stop();
}

#[test]
fn a_reload_that_is_waited_for_says_what_it_waits_for() {
    let home = Home::new(&table("v1"));
    home.script("v1.sh", ":");
    home.script("v2.sh", ":");
    let biotope = home.start();
    biotope.until_version("w", "v1", "current");
    home.configure(&table("v2"));
    let mut reload = home.command(&["reload", "--wait"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut told = String::new();
    BufReader::new(reload.stderr.take().unwrap()).read_line(&mut told).unwrap();
    assert!(told.starts_with("waiting: w: v2 on a ramp at 10 % (next all), held "), "{told:?}");
    assert!(told.ends_with(" more, 100000 more first attempts needed\n"), "{told:?}");
    assert_eq!(home.cli(&["rollout", "promote", "w"]).status.code(), Some(0));
    let verdict = reload.wait_with_output().unwrap();
    assert_eq!((verdict.status.code(), verdict.stdout.is_empty()), (Some(0), false), "{}", shown(&verdict));
    biotope.stop();
}

/// All jobs were done by v1, also those that v2 had first, and lost no attempt.
fn judge(home: &Home, biotope: &Biotope<'_>, ids: &[String]) {
    biotope.until_count_in("w", "completed", ids.len() as u64, LATER);
    for id in ids {
        let job = biotope.job(id);
        assert_eq!((&job["state"], &job["version"], &job["attempts"]), (&json!("completed"), &json!("v1"), &json!(0)));
        assert_eq!(job["result"], "by v1");
    }
    let broken = home.text("broken.txt");
    let had: BTreeSet<&str> = broken.lines().map(|line| line.strip_suffix(" 1").expect("a first attempt")).collect();
    assert_eq!(had.len(), broken.lines().count(), "nobody was sent to v2 twice");
    assert!((5..=60).contains(&had.len()), "{had:?}");
    tell(&format!("{} jobs, {} of them v2 had first", ids.len(), had.len()));
}
