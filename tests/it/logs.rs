//! What the process says of itself: how it looks where, what is in it, and what is not.

use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::wait::until;
use crate::support::{Home, SOON};

const FAILS: &str = "[workers.fails]\nversion = \"v1\"\nexec = [\"./fails.sh\"]\nmax_attempts = 1\n";
/// A line of a worker's that would be two, one of them forged.
const SAYS: &str = "cat >/dev/null; printf 'own \\033[31mred \"q\" level=error\\r\\377\\n' >&2; exit 1";

fn output(format: &str) -> String {
    format!("[log_output]\nformat = \"{format}\"\n{FAILS}")
}

/// Has a job fail that a worker says something hostile about; its payload must not be seen.
fn run_one(biotope: &crate::support::Biotope<'_>) {
    let id = biotope.push(&json!({"type": "fails", "tenant": "a\u{202e}b", "payload": "secret-payload"}));
    biotope.until_state(&id, "dead");
    let answer = biotope.post("/v1/jobs", "{\"type\":\"fails\",\"payload\":\"secret-payload\",\"x\":1}");
    assert_eq!(answer.status, 400);
}

#[test]
fn s15_json_lines_are_json_from_the_first_to_the_last_and_hold_no_payload() {
    let home = Home::new(&output("json"));
    home.script("fails.sh", SAYS);
    let mut command = home.command(&["run"]);
    command.env("BIOTOPE_LOG", "trace");
    let biotope = home.start_by(command);
    run_one(&biotope);
    biotope.stop();
    let text = home.text("stderr.txt");
    let lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect();
    for line in &lines {
        assert!(line["ts"].is_string() && line["level"].is_string() && line["msg"].is_string(), "{line}");
    }
    let said = lines.iter().find(|line| line["msg"].as_str().unwrap().starts_with("own ")).unwrap();
    assert_eq!((&said["level"], &said["worker_type"]), (&json!("info"), &json!("fails")), "{said}");
    // Escaped once, by the format: what a program reads is what the worker wrote.
    assert_eq!(said["msg"], "own \u{1b}[31mred \"q\" level=error\r\u{fffd}", "{said}");
    assert!(lines.last().unwrap()["msg"].as_str().unwrap().starts_with("biotope stopped"), "{text}");
    assert!(!text.contains("secret-payload"), "{text}");
}

#[test]
fn a_reload_changes_format_and_level_at_once_and_a_broken_config_neither() {
    let home = Home::new(&output("json"));
    home.script("fails.sh", SAYS);
    let biotope = home.start();
    let reload = || biotope.post("/v1/reload?wait=true", "").status;
    home.configure(&output("text").replace("\"v1\"", "\"v2\""));
    assert_eq!(reload(), 200);
    let settled = " INFO reload settled generation=2 verdict=ok";
    let found = home.text("stderr.txt").lines().any(|line| line.contains(settled) && !line.contains('{'));
    assert!(found, "{}", home.text("stderr.txt"));
    // What is wrong with a file is shown to people as they know it.
    home.configure(&output("jsn"));
    assert_eq!(reload(), 422);
    let said = home.text("stderr.txt");
    assert!(said.contains("ERROR the config was not accepted, what runs goes on\n    | error:"), "{said}");
    assert!(said.contains("write \"auto\", \"text\", \"json\" or \"logfmt\""), "{said}");
    home.configure(&output("logfmt").replace("[workers", "level = \"warn\"\n[workers"));
    assert_eq!(reload(), 200);
    let before = home.text("stderr.txt").len();
    assert_eq!(reload(), 200);
    home.configure("nonsense");
    assert_eq!(reload(), 422);
    let said = home.text("stderr.txt")[before..].to_owned();
    let heeds = |line: &str| !line.contains("level=info") || line.contains(" target=audit ");
    assert!(said.lines().all(heeds) && said.contains(" target=audit "), "{said}");
    assert!(said.contains("level=error msg=\"the config was not accepted, what runs goes on\" lines=\""), "{said}");
    biotope.stop();
}

#[test]
fn the_journal_gets_the_level_of_each_line() {
    // On a slow disk the index may rightly warn that it was not done in time for the stop.
    let home = Home::new(&format!("[history]\nindex = \"off\"\n{FAILS}"));
    home.script("fails.sh", SAYS);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let stat = rustix::fs::fstat(&theirs).unwrap();
    let mut command = home.command(&["run"]);
    command.env("JOURNAL_STREAM", format!("{}:{}", stat.st_dev, stat.st_ino));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(OwnedFd::from(theirs));
    let mut child = command.spawn().unwrap();
    // The other end is in the command.
    drop(command);
    let reader = std::thread::spawn(move || BufReader::new(ours).lines().map(Result::unwrap).collect::<Vec<_>>());
    let pid = rustix::process::Pid::from_child(&child);
    let ready = || crate::support::http::get(home.port, "/readyz").is_ok_and(|answer| answer.status == 200);
    until("ready", SOON, || if ready() { Ok(()) } else { Err(String::new()) });
    home.write("biotope.toml", "nonsense");
    let answer = crate::support::http::post(home.port, "/v1/reload?wait=true", "application/json", b"").unwrap();
    assert_eq!(answer.status, 422);
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let lines = reader.join().unwrap();
    let marked = |line: &String| line.starts_with("<6>level=info ") || line.starts_with("<3>level=error msg=");
    assert!(lines.iter().all(marked), "{lines:#?}");
    let page = |line: &&String| line.contains("status page: http://127.0.0.1:");
    assert_eq!(lines.iter().filter(page).count(), 1, "{lines:#?}");
    let errors: Vec<_> = lines.iter().filter(|line| line.starts_with("<3>")).collect();
    assert!(errors.len() == 1 && errors[0].contains("the config was not accepted"), "{lines:#?}");
}
