//! D13: an opening that is killed, and the next one, and the one after that, at each of its system calls.

use serde_json::json;

use crate::kills::can_trace;
use crate::process::Process;
use crate::producer::alive;
use crate::support::{Home, skipped, tell};
use crate::wire::{Answer, connect, get};

/// What an opening changes the disk by.
const CALLS: [&str; 7] = ["openat", "fallocate", "pwrite64", "fdatasync", "fsync", "rename", "unlink"];
/// More than an opening has of any.
const MOST: u32 = 400;

#[test]
fn d13_an_opening_killed_at_each_of_its_system_calls_is_made_good_by_the_next() {
    if !can_trace() {
        skipped(
            "d13_an_opening_killed_at_each_of_its_system_calls_is_made_good_by_the_next",
            "strace is missing, or may not trace here",
        );
        return;
    }
    let home = Home::bare();
    home.configure_with(
        "[log]\nsegment = \"8MiB\"\nretain = \"0B\"",
        "[workers.echo]\nversion = \"v1\"\nexec = [\"cat\"]\n",
    );
    let jobs = 30;
    let process = Process::serving(&home);
    for n in 0..jobs {
        let pad = "x".repeat(if n % 3 == 0 { 900_000 } else { 10 });
        let job = json!({"type": "echo", "id": format!("n{n}"), "delay": "1h", "payload": pad});
        assert_eq!(connect(home.port).unwrap().push(&[job]), [Answer::Yes(format!("n{n}"))]);
    }
    process.kill();

    let mut deaths = 0;
    for call in CALLS {
        for nth in 1..=MOST {
            let mut process = Process::start(&home, Some(&format!("{call}:signal=SIGKILL:when={nth}")));
            let serves = process.is_serving();
            let said = process.said();
            let end = process.ended();
            process.kill();
            if serves {
                break;
            }
            // Killed, and nothing else: an opening that refuses its own log would say so.
            let end = end.unwrap();
            assert_eq!(end.code(), None, "{call} {nth}: {end}\n{said}");
            deaths += 1;
        }
    }
    tell(&format!("{deaths} openings killed"));
    assert!(deaths > 10, "{deaths}");
    let process = Process::serving(&home);
    let seen = &get(home.port, "/v1/ecosystem").unwrap()["types"][0];
    assert_eq!((alive(seen), &seen["delayed"], &seen["enqueued"]), (jobs, &json!(jobs), &json!(jobs)), "{seen}");
    for n in 0..jobs {
        let pad = if n % 3 == 0 { 900_000 } else { 10 };
        let job = get(home.port, &format!("/v1/jobs/n{n}")).unwrap();
        assert_eq!(job["payload"].as_str().unwrap().len(), pad, "n{n}");
    }
    process.stop();
}
