//! A number of workers that follows its queue, seen from outside.

use std::io::Write;

use rustix::process::Signal;
use serde_json::json;

use crate::support::wait::until;
use crate::support::{Biotope, Home, SOON, shown};

fn table(concurrency: &str) -> String {
    format!("[workers.w]\nversion = \"v1\"\nexec = [\"./w.sh\"]\nconcurrency = {concurrency}\ntimeout = \"10m\"\n")
}

fn until_workers(biotope: &Biotope<'_>, workers: u64, begun: impl Fn() -> usize, runs: usize) {
    until("the size", SOON, || {
        let view = biotope.of_type("w");
        let right = view["versions"][0]["pool_size"] == workers && begun() == runs;
        if right { Ok(()) } else { Err(format!("{view}, {} begun", begun())) }
    });
}

#[test]
fn a_backlog_has_more_processes_started_and_a_reload_fewer() {
    let home = Home::new(&(table("{ min = 0, max = 3 }") + "target_wait = \"100ms\"\n"));
    home.script("w.sh", "echo $$ >>begun.txt\nread -r line <gate");
    home.pipe("gate");
    let mut gate = std::fs::OpenOptions::new().read(true).write(true).open(home.path("gate")).unwrap();
    let biotope = home.start();
    let begun = || home.text("begun.txt").lines().count();
    assert_eq!(biotope.push_lines(&"{\"type\":\"w\"}\n".repeat(20)).len(), 20);
    until_workers(&biotope, 3, begun, 3);
    let scale = until("the most", SOON, || {
        let scale = biotope.of_type("w")["scale"].clone();
        if scale["reason"].as_str().unwrap().contains("concurrency.max") { Ok(scale) } else { Err(scale.to_string()) }
    });
    assert_eq!((&scale["min"], &scale["max"], &scale["workers"]), (&json!(0), &json!(3), &json!(3)), "{scale}");
    let words = "3 workers (0 to 3)";
    let status = home.cli(&["status"]);
    let told = String::from_utf8_lossy(&status.stdout).contains(&format!("w: {words}: the most that"));
    assert!(told, "{}", shown(&status));
    let page = String::from_utf8(biotope.get("/fragment").body).unwrap();
    assert!(page.contains(words), "{page}");

    // What is too many leaves once it is through, and nothing is started in its place.
    home.configure(&table("1"));
    biotope.signal(Signal::HUP);
    until_workers(&biotope, 1, begun, 3);
    assert!(biotope.of_type("w")["scale"].is_null());
    gate.write_all(b"\n\n\n").unwrap();
    until_workers(&biotope, 1, begun, 4);
    biotope.until_count("w", "completed", 3);
    let view = biotope.of_type("w");
    assert_eq!((&view["completed"], view["versions"].as_array().unwrap().len()), (&json!(3), 1), "{view}");
    gate.write_all(&[b'\n'; 17]).unwrap();
    biotope.until_count("w", "completed", 20);
    biotope.stop();
}

#[test]
fn a_budget_that_is_too_small_is_refused_with_what_it_needs() {
    let home = Home::new(&table("4"));
    home.script("w.sh", "true");
    home.configure_with("workers_max = 3", &table("4"));
    let checked = home.cli(&["check-config"]);
    assert_eq!(checked.status.code(), Some(78), "{}", shown(&checked));
    let said = shown(&checked);
    assert!(said.contains("`workers_max` is 3, the worker types need 4") && said.contains("raise it to 4"), "{said}");
}
