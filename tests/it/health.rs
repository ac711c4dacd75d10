//! How workers fare, seen from outside: programs that never come up, and what those hold and weigh that do.

use serde_json::{Value, json};

use crate::support::wait::until;
use crate::support::{Biotope, Home, SOON};

/// Waits until the one version of a type is as it shall be.
fn until_version(biotope: &Biotope<'_>, name: &str, is: impl Fn(&Value) -> bool) -> Value {
    until(name, SOON, || {
        let version = biotope.of_type(name)["versions"][0].clone();
        if is(&version) { Ok(version) } else { Err(version.to_string()) }
    })
}

#[test]
fn programs_that_never_come_up_are_shown_as_failing_and_no_job_is_burned() {
    let stays = "version = \"v1\"\nmode = \"persistent\"\nmax_attempts = 1\n";
    let home = Home::new(&format!(
        "[workers.dies]\n{stays}exec = [\"false\"]\n\
         [workers.mute]\n{stays}exec = [\"sleep\", \"1000\"]\nstart_timeout = \"50ms\"\n\
         [workers.well]\nversion = \"v1\"\nexec = [\"true\"]\n"
    ));
    let biotope = home.start();
    let kinds = [("dies", "exited with code 1"), ("mute", "did not answer in time")];
    let ids = kinds.map(|(name, _)| biotope.push(&json!({"type": name})));
    for (name, reason) in kinds {
        let version = until_version(&biotope, name, |version| {
            version["failing"]["tries"].as_u64() >= Some(3) && version["workers"][0]["state"] == "backing_off"
        });
        let said = version["failing"]["reason"].as_str().unwrap();
        assert!(said.contains(reason) && said.contains("before it said hello"), "{version}");
        assert_eq!(version["failing"]["none_up"], true, "{version}");
        assert!(version["restarts"].as_u64() >= Some(3) && version["last_restart"]["at_ms"].is_u64(), "{version}");
        let worker = &version["workers"][0];
        let pause = worker["for_ms"].as_u64().unwrap() + worker["next_try_ms"].as_u64().unwrap();
        assert!(pause >= 390, "the third pause is four times the first one, of 100 ms: {version}");
    }
    for id in ids {
        let job = biotope.job(&id);
        assert_eq!((&job["state"], &job["attempts"]), (&json!("ready"), &json!(0)), "{job}");
    }
    // Said first, and in words, on the page and by `status`.
    let page = String::from_utf8(biotope.get("/").body).unwrap();
    assert!(page.contains("data-verdict=\"bad\"") && page.contains("dies</a> v1 is failing: "), "{page}");
    let status = home.cli(&["status"]);
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    for (name, reason) in kinds {
        let line = said.lines().find(|line| line.starts_with(&format!("{name} v1 is failing for "))).unwrap_or(&said);
        assert!(line.contains(reason) && line.contains("its jobs wait; tried"), "{said}");
    }
    // Others are not held up.
    biotope.until_state(&biotope.push(&json!({"type": "well"})), "completed");
    biotope.stop();
}

#[test]
fn what_a_worker_holds_and_what_its_process_weighs_are_shown() {
    let home = Home::new(
        "[workers.once]\nversion = \"v1\"\nexec = [\"./once.sh\"]\n\
         [workers.stays]\nversion = \"v1\"\nexec = [\"./stays.sh\"]\nmode = \"persistent\"\n",
    );
    home.pipe("gate");
    home.script("once.sh", "cat gate >/dev/null");
    home.script("stays.sh", r#"while IFS= read -r line; do id=${line#*\"id\":\"}; echo "{\"jsonrpc\":\"2.0\",\"id\":\"${id%%\"*}\",\"result\":{\"protocol\":1}}"; done"#);
    let biotope = home.start();
    let weighs = |version: &Value| {
        let worker = &version["workers"][0];
        let pid = worker["pid"].as_u64().unwrap();
        let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
        assert!(worker["rss_bytes"].as_u64().unwrap() > 100_000, "{version}");
        assert_eq!(version["rss_bytes"], worker["rss_bytes"], "one worker: {version}");
        command
    };
    let stays = until_version(&biotope, "stays", |version| version["workers"][0]["state"] == "idle");
    assert!(weighs(&stays).contains("stays.sh"));
    assert_eq!(biotope.of_type("once")["versions"][0]["workers"][0]["pid"], Value::Null, "it runs nothing");

    let id = biotope.push(&json!({"type": "once"}));
    let works = until_version(&biotope, "once", |version| {
        // Until it has become the program, the process is the one that starts it.
        version["workers"][0]["rss_bytes"].as_u64() > Some(100_000) && weighs(version).contains("once.sh")
    });
    let worker = &works["workers"][0];
    assert_eq!(
        (&worker["state"], &worker["holds"], &worker["jobs"][0]["id"]),
        (&json!("working"), &json!(1), &json!(id))
    );
    home.open_gate("gate");
    biotope.until_state(&id, "completed");
    let idle = until_version(&biotope, "once", |version| version["workers"][0]["state"] == "idle");
    assert_eq!((&idle["workers"][0]["pid"], &idle["workers"][0]["holds"]), (&Value::Null, &json!(0)), "{idle}");
    assert!(idle["run_ms"]["p50"].as_f64() > Some(0.0) && idle["per_second"].as_f64() > Some(0.0), "{idle}");
    let status = home.cli(&["status"]);
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(said.contains("RUN P50") && said.contains("MEMORY") && said.contains(" KiB"), "{said}");
    biotope.stop();
}
