//! A reload says what it changes and what became of it, and that is remembered.

use serde_json::json;

use crate::support::wait::until;
use crate::support::{Home, SOON, shown};

/// A worker table of one per-job script.
fn table(version: &str, script: &str) -> String {
    format!("[workers.w]\nversion = \"{version}\"\nexec = [\"./{script}\"]\nconcurrency = 2\n")
}

/// One whose process should stay, and never says hello.
fn silent(version: &str) -> String {
    table(version, "w.sh") + "mode = \"persistent\"\nstart_timeout = \"50ms\"\n"
}

/// What a command prints, with a bracket for what no test can know.
fn lines(home: &Home, args: &[&str], code: i32) -> Vec<String> {
    let output = home.cli(args);
    assert_eq!(output.status.code(), Some(code), "{}", shown(&output));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn reloads_that_settle_together_are_told_of_once() {
    let home = Home::new(&table("v1", "w.sh"));
    home.script("w.sh", "cat");
    home.script("probe.sh", "read -r line <gate; cat");
    home.pipe("gate");
    let biotope = home.start();
    biotope.until_version("w", "v1", "current");
    // Three configs, each accepted while the version that all of them have is not up.
    for (generation, seconds) in [(2, 30), (3, 31), (4, 32)] {
        home.configure(
            &(table("v2", "probe.sh") + &format!("probe = 1\nstart_timeout = \"120s\"\ntimeout = \"{seconds}s\"\n")),
        );
        lines(&home, &["reload"], 0);
        until("the config is accepted", SOON, || {
            let at = biotope.get("/v1/ecosystem").json()["generation"]["number"].clone();
            if at == generation { Ok(()) } else { Err(at.to_string()) }
        });
    }
    home.open_gate("gate");
    biotope.until_version("w", "v2", "current");
    until("it is settled", SOON, || {
        let said = home.text("stderr.txt");
        if said.contains("reload settled") { Ok(()) } else { Err(said) }
    });
    // Whatever else was to be said of it stands before this.
    lines(&home, &["reload", "--wait"], 0);
    let said = home.text("stderr.txt");
    let settled: Vec<&str> = said.lines().filter(|line| line.contains("reload settled")).collect();
    let told = |generation| settled.iter().filter(|line| line.contains(&format!("generation={generation} "))).count();
    assert_eq!((settled.len(), told(4)), (2, 2), "the three, and the last one: {said}");
    assert_eq!(said.matches("w: rolled over from v1 to v2").count(), 1, "{said}");
    biotope.stop();
}

#[test]
fn a_reload_says_what_changed_and_generations_remember_it() {
    let home = Home::new(&table("v1", "w.sh"));
    home.script("w.sh", "cat");
    let biotope = home.start();
    biotope.until_version("w", "v1", "current");
    let reload = |code| lines(&home, &["reload", "--wait"], code);
    let other = "[workers.other]\nversion = \"v1\"\nexec = [\"cat\"]\n";
    home.configure_with("stop_timeout = \"20s\"", &(table("v2", "w.sh") + "timeout = \"9s\"\n" + other));
    assert_eq!(
        reload(0),
        [
            "changed live: stop_timeout",
            "other: added v1",
            "w: rolled over from v1 to v2, changed live: timeout",
            "generation 2: ok"
        ]
    );
    home.configure_with("stop_timeout = \"20s\"", &(silent("v3") + "timeout = \"9s\"\n" + other));
    let rejected = reload(79);
    assert!(rejected[0].starts_with("w: rejected v3, still v2: "), "{rejected:?}");
    assert_eq!(rejected[1..], ["generation 3: partial, 1 worker type as before"]);
    let said = home.text("stderr.txt");
    let told = |line: &str| line.contains("rejected: it could not start") && line.contains("worker_type=w version=v3 ");
    assert!(said.lines().any(told), "type and version: {said}");
    home.configure_with("stop_timeout = 20", &table("v2", "w.sh"));
    lines(&home, &["reload", "--wait"], 78);

    let shown = lines(&home, &["generations"], 0);
    assert!(shown[0].starts_with("GENERATION  ACCEPTED"), "{shown:?}");
    let row = |number: usize| shown.iter().find(|line| line.starts_with(&format!("{number} "))).unwrap();
    for (number, word) in [(3, "  partial  w: rejected v3, still v2: "), (2, "  ok "), (1, "  ok       w: added v1")] {
        assert!(row(number).contains(word), "{shown:?}");
    }
    assert!(shown[1].starts_with('3'), "the newest is the first: {shown:?}");
    assert!(shown.iter().any(|line| line.trim() == "other: added v1"), "{shown:?}");
    let refused = shown.iter().position(|line| line.starts_with("refused 2")).unwrap();
    assert!(shown[refused..].join("\n").contains("stop_timeout"), "{shown:?}");

    // Over a restart what was accepted is known, and the refused one is not the one that runs.
    biotope.stop();
    home.configure_with("stop_timeout = \"20s\"", &(table("v2", "w.sh") + "timeout = \"9s\"\n" + other));
    let biotope = home.start();
    biotope.until_version("w", "v2", "current");
    biotope.until_version("other", "v1", "current");
    let view = biotope.get("/v1/generations").json();
    let numbers: Vec<_> = view["generations"].as_array().unwrap().iter().map(|known| known["number"].clone()).collect();
    assert_eq!(numbers, [4, 3, 2, 1].map(|number| json!(number)));
    assert_eq!((&view["generations"][1]["verdict"], &view["refused"]), (&json!("partial"), &json!([])));
    biotope.stop();
}

/// Scripts tell by the code alone that a stop and a start would do.
#[test]
fn what_only_a_restart_can_change_is_refused_with_a_code_of_its_own() {
    let home = Home::new(&table("v1", "w.sh"));
    home.script("w.sh", "cat");
    let biotope = home.start();
    home.configure_with("", &(table("v2", "w.sh") + "[log]\nsegment = \"8MiB\"\n[history]\nindex = \"off\"\n"));
    let refused = biotope.post("/v1/reload?wait=true", "");
    assert_eq!((refused.status, &refused.json()["code"]), (422, &json!("needs_restart")), "{refused:?}");
    let output = home.cli(&["reload", "--wait"]);
    let said = shown(&output);
    assert!(
        output.status.code() == Some(80) && said.contains("`log.segment`, `history.index` cannot change"),
        "{said}"
    );
    biotope.until_version("w", "v1", "current");
    biotope.stop();
    let biotope = home.start();
    biotope.until_version("w", "v2", "current");
    biotope.stop();
}

#[test]
fn a_start_with_a_broken_file_runs_what_was_accepted_last_and_says_so() {
    let home = Home::new(&table("v1", "w.sh"));
    home.script("w.sh", "cat");
    let good = home.text("biotope.toml");
    let broken = good.replace("concurrency = 2", "concurency = 2");
    home.write("biotope.toml", &broken);
    let first = home.cli(&["run"]);
    assert_eq!(first.status.code(), Some(78), "there is nothing to run instead: {}", shown(&first));
    home.write("biotope.toml", &good);
    let biotope = home.start();
    biotope.until_version("w", "v1", "current");
    let held = biotope.push(&json!({"type": "w", "delay": "1h"}));
    biotope.stop();

    home.write("biotope.toml", &broken);
    let strict = home.cli(&["run", "--strict"]);
    assert_eq!(strict.status.code(), Some(78), "{}", shown(&strict));
    for what in ["\ndata_dir = 7\n", "\ndata_dir = \"nowhere\"\n"] {
        home.write("biotope.toml", &format!("{what}{}", broken.replace("data_dir", "#")));
        let lost = home.cli(&["run"]);
        assert_eq!(lost.status.code(), Some(78), "nobody knows where to look: {}", shown(&lost));
    }
    home.write("biotope.toml", &broken);
    let biotope = home.start();
    biotope.until_version("w", "v1", "current");
    let done = biotope.push(&json!({"type": "w", "payload": 3}));
    assert_eq!(biotope.until_state(&done, "completed")["result"], 3);
    assert_eq!(biotope.job(&held)["state"], "delayed");
    let generation = biotope.ecosystem()["generation"].clone();
    assert_eq!(generation["number"], 1, "{generation}");
    assert!(generation["last_error"].as_str().unwrap().contains("concurency"), "{generation}");
    assert!(lines(&home, &["status"], 0).join("\n").contains("concurency"));
    assert!(String::from_utf8_lossy(&biotope.get("/").body).contains("concurency"), "the page says so");
    assert_eq!(home.cli(&["check-config"]).status.code(), Some(78));

    home.write("biotope.toml", &good);
    let mended = lines(&home, &["reload", "--wait"], 0);
    assert_eq!(mended, ["generation 1: unchanged, 1 worker type as before"]);
    assert_eq!(biotope.ecosystem()["generation"]["last_error"], json!(null));
    biotope.stop();
}

#[test]
fn what_was_accepted_for_another_directory_is_not_run() {
    let home = Home::new(&table("v1", "w.sh"));
    home.script("w.sh", "cat");
    let biotope = home.start();
    biotope.until_version("w", "v1", "current");
    biotope.stop();
    std::fs::rename(home.path("data"), home.path("other")).unwrap();
    let text = home.text("biotope.toml").replace("concurrency = 2", "concurency = 2");
    home.write("biotope.toml", &text.replace("data_dir = \"data\"", "data_dir = \"other\""));
    let lost = home.cli(&["run"]);
    assert_eq!(lost.status.code(), Some(78), "{}", shown(&lost));
    let told = String::from_utf8_lossy(&lost.stderr);
    assert!(told.contains("concurency") && told.contains("is of the data directory"), "{told}");
}

#[test]
fn a_version_whose_files_change_underneath_is_drifted_until_a_reload() {
    let watched = |version: &str| table(version, "w.sh") + "watch = [\"words/*.txt\"]\n";
    let home = Home::new(&watched("v1"));
    std::fs::create_dir(home.path("words")).unwrap();
    home.write("words/one.txt", "one");
    home.script("w.sh", "cat words/*.txt >&2");
    let biotope = home.start();
    let run = || {
        let id = biotope.push(&json!({"type": "w"}));
        biotope.until_state(&id, "completed");
    };
    let drifted = || {
        let versions = biotope.of_type("w")["versions"].clone();
        let current = versions.as_array().unwrap().iter().find(|version| version["state"] == "current").cloned();
        current.unwrap()["drifted"].clone()
    };
    run();
    assert_eq!(drifted(), json!(null));
    // The program is looked at whenever it is started.
    home.script("w.sh", "cat words/*.txt words/*.txt >&2");
    run();
    assert!(drifted().as_str().unwrap().ends_with("/w.sh"), "{}", drifted());
    assert!(lines(&home, &["status"], 0).join("\n").contains("w v1 is drifted"));
    assert!(String::from_utf8_lossy(&biotope.get("/").body).contains("w</a> v1 is drifted"));
    let adopted = lines(&home, &["reload", "--wait"], 0);
    assert_eq!(adopted[0], "w: rolled over from v1 to v1-r2");
    run();
    assert_eq!(drifted(), json!(null));

    // What only seems changed is the same version still, and after a reload it is told no more.
    home.script("w.sh", "cat words/*.txt words/*.txt >&2");
    run();
    assert_ne!(drifted(), json!(null));
    assert_eq!(lines(&home, &["reload", "--wait"], 0), ["generation 2: unchanged, 1 worker type as before"]);
    assert_eq!(drifted(), json!(null));

    // What is watched makes a version, too.
    home.write("words/two.txt", "two");
    assert_eq!(lines(&home, &["reload", "--wait"], 0)[0], "w: rolled over from v1-r2 to v1-r3");
    std::fs::remove_dir_all(home.path("words")).unwrap();
    let output = home.cli(&["reload", "--wait"]);
    assert_eq!(output.status.code(), Some(78), "{}", shown(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("matches no file"), "{}", shown(&output));
    biotope.stop();
}
