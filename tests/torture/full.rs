//! D9, D10: a disk that is really full. New jobs are refused, results are taken, and all goes on by itself once there is space.

use std::time::Duration;

use serde_json::{Value, json};

use crate::ground::LoopDisk;
use crate::process::Process;
use crate::producer::alive;
use crate::support::wait::{now, until};
use crate::support::{Home, SOON, skipped, tell};
use crate::wire::{Answer, connect, get, jobs};

/// Two segments of eight mebibytes fit, and two more; the rest is the file system's own.
const MEBIBYTES: u64 = 48;

/// A worker that waits for its gate, and then does what its task says.
const GATED: &str = r#"
[workers.gated]
version = "v1"
exec = ["./gated.sh"]
concurrency = 2
backoff = { first = "10ms", factor = 1, max = "10ms" }
"#;

/// A home whose data directory is a small disk of its own.
fn small(name: &str) -> Option<(Home, LoopDisk)> {
    let home = Home::bare();
    home.script("gated.sh", "read -r _ <gate\n[ \"$BIOTOPE_TASK\" = ok ] || { echo as told >&2; exit 1; }");
    home.pipe("gate");
    home.configure_with("[log]\nsegment = \"8MiB\"\nretain = \"0B\"\ndisk_free_min = \"0%\"", GATED);
    match LoopDisk::mount(&home, MEBIBYTES) {
        Ok(disk) => Some((home, disk)),
        Err(why) => {
            skipped(name, &why);
            None
        }
    }
}

fn push(home: &Home, job: &Value) -> Answer {
    connect(home.port).unwrap().push(std::slice::from_ref(job)).remove(0)
}

/// Parked jobs of a mebibyte, until one is refused; how many went in.
fn push_until_refused(home: &Home) -> u64 {
    let large = json!({"type": "gated", "task": "ok", "delay": "1h", "payload": "x".repeat(900_000)});
    let mut taken = 0;
    until("a full disk", SOON * 4, || match push(home, &large) {
        Answer::No(507, code) if code == "disk_full" => Ok(()),
        Answer::Yes(_) => {
            taken += 1;
            Err(format!("{taken} taken"))
        }
        other => panic!("{other:?}"),
    });
    taken
}

fn of_type(home: &Home) -> Value {
    get(home.port, "/v1/ecosystem").unwrap()["types"][0].clone()
}

/// Opens the gate for whoever waits, until there were as many results.
fn until_counts(home: &Home, completed: u64, failed: u64) {
    use rustix::fs::{Mode, OFlags, open};
    until("results that are taken", SOON, || {
        // Nobody may be waiting just now: then the next look opens it.
        drop(open(home.path("gate"), OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()));
        let seen = of_type(home);
        if seen["completed"] == completed && seen["failed"] == failed { Ok(()) } else { Err(seen.to_string()) }
    });
}

#[test]
fn d9_a_full_disk_refuses_jobs_takes_results_and_recovers_by_itself() {
    let name = "d9_a_full_disk_refuses_jobs_takes_results_and_recovers_by_itself";
    let Some((home, disk)) = small(name) else { return };
    let process = Process::serving(&home);
    for task in ["ok", "ok", "fail", "fail"] {
        let answer = push(&home, &json!({"type": "gated", "task": task, "max_attempts": 1}));
        assert!(matches!(answer, Answer::Yes(_)), "{answer:?}");
    }
    until("two runs", SOON, || {
        let seen = of_type(&home);
        if seen["reserved"].as_u64() >= Some(2) { Ok(()) } else { Err(seen.to_string()) }
    });
    disk.fill();
    let taken = push_until_refused(&home);
    let refused = connect(home.port).unwrap().send("POST", "/v1/jobs", "application/json", b"{\"type\":\"gated\"}");
    let (status, said) = refused.unwrap();
    let said = String::from_utf8(said).unwrap();
    assert!(status == 507 && said.contains("the disk is full") && said.contains("No space left"), "{status} {said}");
    let told = |what: &str| process.said().matches(what).count();
    assert_eq!((told("no new segment could be made in"), told("could be made again")), (1, 0), "{}", process.said());

    // Results go on: two completions, two failures that are deaths.
    until_counts(&home, 2, 2);
    // Stopping and starting need no space.
    process.stop();
    let process = Process::serving(&home);
    until_counts(&home, 2, 2);
    assert_eq!(of_type(&home)["delayed"], taken);
    // Until it is known that no segment can be made, the first half of the last one is open to new jobs.
    let taken = taken + push_until_refused(&home);

    // A disk that others keep busy may take its time now and then.
    let mut served = 2;
    let took = loop {
        disk.free();
        let freed = now();
        until("service again", SOON, || match push(&home, &json!({"type": "gated", "task": "ok"})) {
            Answer::Yes(_) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        let took = now() - freed;
        served += 1;
        tell(&format!("{taken} large jobs until full; served again {took:?} after space came back"));
        if took < Duration::from_secs(1) || served == 10 {
            break took;
        }
        disk.fill();
        push_until_refused(&home);
    };
    assert!(took < Duration::from_secs(1), "{took:?}");
    let said = process.said();
    assert!(
        said.contains("no new segment could be made in") && said.contains("a new segment could be made again"),
        "{said}"
    );
    until_counts(&home, served, 2);
    process.stop();
}

#[test]
fn d10_cleaning_that_finds_no_space_is_put_off_and_serving_goes_on() {
    let name = "d10_cleaning_that_finds_no_space_is_put_off_and_serving_goes_on";
    let Some((home, disk)) = small(name) else { return };
    let process = Process::serving(&home);
    disk.fill();
    // What lives fills more than half of what there is: nothing can be cleaned, and nothing can be made.
    let taken = push_until_refused(&home);
    let seen = of_type(&home);
    assert_eq!((alive(&seen), seen["delayed"].as_u64()), (taken, Some(taken)));
    // All of it can be acted upon: the record of an end needs no new segment.
    let jobs = jobs(home.port, "state=delayed");
    assert_eq!(jobs.len() as u64, taken);
    for job in &jobs {
        let id = job["id"].as_str().unwrap();
        assert_eq!(crate::wire::post(home.port, &format!("/v1/jobs/{id}/cancel")), Some(200), "{id}");
    }
    // Nothing lives: history gives way, and there is room again without anybody's help.
    until("service again", SOON, || match push(&home, &json!({"type": "gated", "delay": "1h"})) {
        Answer::Yes(_) => Ok(()),
        other => Err(format!("{other:?}\n{}", get(home.port, "/v1/ecosystem").unwrap())),
    });
    process.kill();
    let process = Process::serving(&home);
    let seen = of_type(&home);
    assert_eq!((alive(&seen), seen["cancelled"].as_u64()), (1, Some(taken)), "{seen}");
    process.stop();
}
