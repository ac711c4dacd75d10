//! Descriptors, threads and memory that run short: nothing is lost or charged, and service goes on by itself.

use std::net::TcpStream;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::wait::until;
use crate::support::{BIOTOPE, Biotope, Home, SOON, http};

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
