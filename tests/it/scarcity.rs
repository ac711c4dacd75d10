//! Descriptors, threads and memory that run short: nothing is lost or charged, and service goes on by itself.

use std::net::TcpStream;
use std::process::{Child, Command};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::wait::until;
use crate::support::{BIOTOPE, Biotope, Home, SOON, has_program, http, skipped};

/// A biotope that is started by a shell, after these of its commands.
fn started<'a>(home: &'a Home, before: &str) -> Biotope<'a> {
    let mut command = Command::new("sh");
    let config = home.path("biotope.toml");
    command
        .current_dir(home.path(""))
        .args(["-c", &format!("{before}; exec \"$0\" run \"$1\"")])
        .arg(BIOTOPE)
        .arg(config);
    home.start_by(command)
}

#[test]
fn p11_without_descriptors_jobs_wait_and_connections_are_taken_again_when_there_are_some() {
    let home = Home::new("[workers.opens]\nversion = \"v1\"\nmax_attempts = 1\nexec = [\"true\"]\n");
    let biotope = started(&home, "ulimit -n 40");
    // They are due when there are no descriptors any more for the pipes that they would be started with.
    let due = |n: u32| biotope.push(&json!({"type": "opens", "payload": n, "delay": "8s"}));
    let ids: Vec<String> = (0..20).map(due).collect();
    let held: Vec<TcpStream> = (0..120).filter_map(|_| TcpStream::connect(("127.0.0.1", home.port)).ok()).collect();
    assert!(held.len() > 100, "{}", held.len());
    let said = |what: &str| {
        until(what, SOON, || if home.text("stderr.txt").contains(what) { Ok(()) } else { Err(String::new()) });
    };
    said("a connection could not be accepted");
    said("no worker can be started");
    drop(held);
    for id in &ids {
        let job = biotope.until_state(id, "completed");
        assert_eq!(job["attempts"], 0, "{job}");
    }
    assert_eq!(biotope.get("/readyz").status, 200);
    biotope.stop();
}

#[test]
fn p10_memory_is_bounded_however_much_comes_in_at_once() {
    let home = Home::new("[workers.later]\nversion = \"v1\"\nexec = [\"true\"]\n");
    let biotope = home.start();
    let peak = || -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", biotope.pid().as_raw_nonzero())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
    };
    let before = peak();
    let line = json!({"type": "later", "delay": "1h", "payload": "x".repeat(1 << 19)}).to_string() + "\n";
    let body = line.repeat(12);
    let answers: Vec<Vec<Value>> = std::thread::scope(|scope| {
        let push = || http::post(home.port, "/v1/jobs", "application/x-ndjson", body.as_bytes()).unwrap().lines();
        let pushes: Vec<_> = (0..40).map(|_| scope.spawn(push)).collect();
        pushes.into_iter().map(|push| push.join().unwrap()).collect()
    });
    // 240 MiB came in at once: what is in flight is bounded, and what does not fit is told to come again.
    let statuses: Vec<&Value> = answers.iter().flatten().map(|answer| &answer["status"]).collect();
    assert!(statuses.iter().all(|status| **status == 201 || **status == 503 || **status == 429), "{statuses:?}");
    let taken = statuses.iter().filter(|status| ***status == 201).count();
    assert_eq!(biotope.of_type("later")["delayed"], taken);
    assert!(taken >= 12 && peak() < before + 256, "{taken} taken, {before} MiB before, {} MiB at most", peak());
    biotope.stop();
}

/// Processes of a user, which take of what it may have.
struct Others(Vec<Child>);

impl Others {
    fn start(uid: u32, count: usize) -> Self {
        let user = format!("--reuid={uid}");
        let one = || Command::new("setpriv").args([&user, "sleep", "1000"]).spawn().unwrap();
        Self((0..count).map(|_| one()).collect())
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

#[test]
fn p11_without_threads_types_wait_the_pages_answer_and_all_have_theirs_once_there_are_some() {
    let name = "p11_without_threads_types_wait_the_pages_answer_and_all_have_theirs_once_there_are_some";
    if !rustix::process::geteuid().is_root() || !has_program("setpriv") || !has_program("prlimit") {
        return skipped(name, "needs root, setpriv and prlimit to run as a user that may have few threads");
    }
    const TYPES: usize = 30;
    let of_type = |number| format!("[workers.t{number}]\nversion = \"v1\"\nconcurrency = 2\nexec = [\"true\"]\n");
    let home = Home::new(&(0..TYPES).map(of_type).collect::<String>());
    // A user of this test alone, which may have 80 threads: biotope has some 25 of its own.
    let uid = 100_000 + std::process::id();
    let others = Others::start(uid, 30);
    let mut command = Command::new("prlimit");
    command.current_dir(home.path("")).args(["--nproc=80", "setpriv", &format!("--reuid={uid}")]);
    command.args(["--inh-caps=+dac_override", "--ambient-caps=+dac_override", BIOTOPE, "run"]);
    command.arg(home.path("biotope.toml"));
    let biotope = home.start_by(command);
    let versions = || -> Vec<Value> {
        let ecosystem = biotope.get("/v1/ecosystem");
        assert_eq!(ecosystem.status, 200, "{ecosystem:?}");
        let types = ecosystem.json()["types"].as_array().unwrap().clone();
        types.iter().map(|of_type| of_type["versions"][0].clone()).collect()
    };
    let until_one_says = |what: &str, state: &str| {
        let says = |version: &Value| {
            version["state"] == state && version["reason"].as_str().is_some_and(|reason| reason.contains(what))
        };
        until(what, SOON, || {
            let versions = versions();
            if versions.iter().any(says) { Ok(()) } else { Err(format!("{versions:#?}")) }
        });
    };
    until_one_says("fewer workers than there are to be: 1 of 2", "current");
    home.configure(&(0..=TYPES).map(of_type).collect::<String>());
    biotope.signal(Signal::HUP);
    until_one_says("no thread or descriptor for its pool", "rejected");
    let push = |n| biotope.push(&json!({"type": format!("t{n}"), "payload": n, "max_attempts": 1}));
    let ids: Vec<String> = (0..=TYPES).map(push).collect();
    assert_eq!(biotope.get(&format!("/v1/jobs/{}", ids[TYPES])).status, 200);
    drop(others);
    for id in &ids {
        let job = biotope.until_state(id, "completed");
        assert_eq!(job["attempts"], 0, "{job}");
    }
    let is_whole =
        |version: &Value| version["state"] == "current" && version["pool_size"] == 2 && version["reason"].is_null();
    until("all have their threads", SOON, || {
        let versions = versions();
        if versions.iter().all(is_whole) { Ok(()) } else { Err(format!("{versions:#?}")) }
    });
    biotope.stop();
}
