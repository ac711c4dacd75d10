//! Acknowledged means synced: watched from outside, system call by system call.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::json;

use crate::support::wait::until;
use crate::support::{BIOTOPE, Home, SOON, http, shown, skipped, tell};

/// Small segments: each of their mebibytes is synced by the thread that makes them, and strace counts by thread.
const ECHO: &str = r#"
[log]
segment = "8MiB"

[workers.echo]
version = "v1"
exec = ["cat"]
"#;

/// A command that runs biotope under strace, which stands aside (`-D`), so that signals and exit codes are biotope's own.
fn traced(home: &Home, options: &[&str]) -> Command {
    let mut command = Command::new("strace");
    command.args(["-D", "-f", "-o"]).arg(home.path("trace.txt")).args(options);
    command.arg(BIOTOPE).arg("--config").arg(home.path("biotope.toml")).arg("run").current_dir(home.path("."));
    command
}

/// Whether processes may be traced here; tells the skip if not.
fn can_trace(name: &str) -> bool {
    let able =
        Command::new("strace").args(["-o", "/dev/null", "true"]).output().is_ok_and(|output| output.status.success());
    if !able {
        skipped(name, "strace is missing, or may not trace here");
    }
    able
}

/// The descriptor that a line's call is about: `1234 fdatasync(8) = 0`.
fn descriptor(line: &str) -> Option<&str> {
    let rest = line.split_once('(')?.1;
    rest.split([',', ')', ' ']).next()
}

/// Reads a trace of `strace -f`: how many 201s went out, each after the sync of its record. Jobs are pushed one after
/// the other, with `marker-000`, `marker-001` and so on in their payloads, so that the n-th 201 is job n's.
fn acknowledged_after_sync(trace: &str) -> usize {
    let mut written: Option<(&str, usize)> = None; // the log's descriptor, and jobs written so far
    let mut syncing = BTreeMap::new(); // thread to the jobs written when its sync began
    let mut synced = 0; // jobs whose record is on disk
    let mut acknowledged = 0;
    for line in trace.lines() {
        let thread = line.split(' ').next().unwrap();
        if line.contains("HTTP/1.1 201") {
            acknowledged += 1;
            assert!(synced >= acknowledged, "201 number {acknowledged} came when {synced} records were synced: {line}");
        } else if let Some(at) = line.find("marker-") {
            let number: usize = line[at + 7..at + 10].parse().unwrap();
            written = Some((descriptor(line).unwrap(), number + 1));
        } else if line.contains("sync resumed>") {
            if let Some(jobs) = syncing.remove(thread).filter(|_| line.ends_with("= 0")) {
                synced = synced.max(jobs);
            }
        } else if line.contains("sync(")
            && let Some((log, jobs)) = written
            && descriptor(line) == Some(log)
        {
            if line.ends_with("= 0") {
                synced = synced.max(jobs);
            } else {
                syncing.insert(thread, jobs);
            }
        }
    }
    acknowledged
}

#[test]
fn a_trace_without_a_sync_is_found_out() {
    let good = "7 pwrite64(8, \"marker-000\") = 9\n7 fdatasync(8 <unfinished ...>\n9 fdatasync(5) = 0\n\
                7 <... fdatasync resumed>) = 0\n9 writev(15, \"HTTP/1.1 201\") = 5";
    assert_eq!(acknowledged_after_sync(good), 1);
    for bad in [good.replace("resumed>) = 0", "resumed>) = -1 EIO"), good.replace("7 fdatasync(8 ", "7 fdatasync(6 ")] {
        assert!(std::panic::catch_unwind(|| acknowledged_after_sync(&bad)).is_err(), "{bad}");
    }
}

#[test]
fn no_201_before_its_record_is_synced() {
    if !can_trace("no_201_before_its_record_is_synced") {
        return;
    }
    let home = Home::new(ECHO);
    let calls = "trace=write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg,fsync,fdatasync";
    let biotope = home.start_by(traced(&home, &["-s", "4096", "-e", calls]));
    let jobs = 100;
    for n in 0..jobs {
        // One after the other: the n-th 201 is job n's.
        biotope.push(&json!({"type": "echo", "payload": format!("marker-{n:03}"), "delay": "1h"}));
    }
    biotope.stop();
    let trace = until("the end of the trace", SOON, || {
        let trace = home.text("trace.txt");
        if trace.trim_end().ends_with("+++") { Ok(trace) } else { Err(format!("{} bytes", trace.len())) }
    });

    let acknowledged = acknowledged_after_sync(&trace);
    tell(&format!("{acknowledged} acknowledgements, each after its sync"));
    assert_eq!(acknowledged, jobs);
}

#[test]
fn a_failed_sync_ends_the_process_and_loses_nothing_acknowledged() {
    if !can_trace("a_failed_sync_ends_the_process_and_loses_nothing_acknowledged") {
        return;
    }
    for after in [20, 21, 35] {
        let home = Home::new(ECHO);
        let inject = format!("inject=fdatasync:error=EIO:when={after}+");
        let mut biotope = home.start_by(traced(&home, &["-e", "trace=fdatasync", "-e", &inject]));
        let mut acknowledged = Vec::new();
        let ended = (0..1000).any(|n| {
            let body = format!("{{\"type\":\"echo\",\"id\":\"n{n}\",\"delay\":\"1h\"}}");
            match http::post(home.port, "/v1/jobs", "application/json", body.as_bytes()) {
                Ok(answer) if answer.status == 201 => {
                    acknowledged.push(format!("n{n}"));
                    false
                }
                _ => true,
            }
        });
        assert!(ended, "1000 jobs were acknowledged though every sync fails from the {after}th on");
        assert_eq!(biotope.until_end().code(), Some(74), "{}", home.text("stderr.txt"));
        drop(biotope);

        let biotope = home.start();
        tell(&format!("{} acknowledged before sync {after} failed", acknowledged.len()));
        for id in &acknowledged {
            assert_eq!(biotope.job(id)["state"], "delayed", "{id}");
        }
        biotope.stop();
    }
}

#[test]
fn d4_damage_that_is_found_while_serving_is_told_everywhere_and_does_not_go_away() {
    let home = Home::new(&ECHO.replace("segment =", "scrub = \"50ms\"\nscrub_rate = \"1GiB\"\nsegment ="));
    let biotope = home.start();
    let payload = "x".repeat(900 << 10);
    let ids: Vec<String> = (0..20).map(|_| biotope.push(&json!({"type": "echo", "payload": payload}))).collect();
    biotope.until_count("echo", "failed", 0);
    assert_eq!(biotope.get("/readyz").status, 200);
    biotope.stop();
    // A start reads no history that is in a checkpoint: what has rotted there is found by reading it again.
    let segment = home.path("data/log/0000000001.seg");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[3 << 20] ^= 4;
    std::fs::write(&segment, bytes).unwrap();
    let biotope = home.start();
    let ready = until("the damage to be found", SOON, || {
        let ready = biotope.get("/readyz");
        if ready.status == 503 { Ok(ready) } else { Err(format!("{ready:?}")) }
    });
    assert_eq!(ready.json()["code"], "damaged", "{ready:?}");
    assert!(ready.json()["detail"].as_str().unwrap().contains("biotope log salvage"), "{ready:?}");
    let told = |biotope: &crate::support::Biotope<'_>| {
        let damaged = biotope.ecosystem()["log"]["damaged"].clone();
        assert_eq!((damaged.as_array().map(Vec::len), damaged[0]["segment"].as_u64()), (Some(1), Some(1)), "{damaged}");
        let page = String::from_utf8(biotope.get("/").body).unwrap();
        assert!(page.contains("Needs you now") && page.contains("The log is damaged"), "{page}");
        let status = home.cli(&["status"]);
        assert!(String::from_utf8_lossy(&status.stdout).contains("segment 1 at offset"), "{}", shown(&status));
        damaged
    };
    let before = told(&biotope);
    // What is whole is served, and goes on.
    biotope.until_state(&biotope.push(&json!({"type": "echo", "payload": 1})), "completed");
    assert!(ids.iter().any(|id| biotope.get(&format!("/v1/jobs/{id}")).status == 200));
    biotope.stop();
    home.write("biotope.toml", &home.text("biotope.toml").replace("scrub = \"50ms\"", "scrub = \"off\""));
    let biotope = home.start();
    assert_eq!(told(&biotope), before, "it is known before anything is read again");
    biotope.stop();
}

#[test]
fn d9_the_bounds_of_the_config_refuse_jobs_before_the_disk_is_full() {
    let bounded = |bound: &str| ECHO.replace("segment =", &format!("{bound}\nsegment ="));
    let home = Home::new(ECHO);
    let biotope = home.start();
    let large = json!({"type": "echo", "delay": "1h", "payload": "x".repeat(900_000)}).to_string();
    let reloaded = |bound: &str| {
        home.configure(&bounded(bound));
        let output = home.cli(&["reload", "--wait"]);
        assert!(output.status.success(), "{}", shown(&output));
    };
    reloaded("disk_free_min = \"100%\"");
    for (path, answer) in [("/v1/jobs", biotope.post("/v1/jobs", &large)), ("/readyz", biotope.get("/readyz"))] {
        let said = answer.json();
        assert_eq!((answer.status, &said["code"]), (507, &json!("disk_full")), "{path}: {said}");
        assert!(said["detail"].as_str().unwrap().contains("`log.disk_free_min` is 100%"), "{said}");
    }
    let status = home.cli(&["status"]);
    assert!(shown(&status).contains("log: new jobs are refused: only "), "{}", shown(&status));
    reloaded("disk_max = \"32MiB\"");
    let mut taken = 0;
    let refused = loop {
        match biotope.post("/v1/jobs", &large) {
            answer if answer.status == 201 => taken += 1,
            answer => break answer,
        }
        assert!(taken < 40, "it is bounded");
    };
    let said = refused.json();
    assert!(refused.status == 507 && said["detail"].as_str().unwrap().contains("`log.disk_max`, 32MiB"), "{said}");
    assert!(taken > 5, "{taken}");
    let files = std::fs::read_dir(home.path("data/log")).unwrap().map(Result::unwrap);
    let segments = files.filter(|file| file.file_name().to_string_lossy().contains(".seg"));
    let bytes: u64 = segments.map(|file| file.metadata().unwrap().len()).sum();
    assert!(bytes <= 32 << 20, "{bytes}");
    // What lives may go.
    let first = biotope.jobs("state=delayed").pop().unwrap();
    assert_eq!(biotope.post(&format!("/v1/jobs/{}/cancel", first["id"].as_str().unwrap()), "").status, 200);
    reloaded("disk_max = \"1GiB\"\ndisk_free_min = \"0%\"");
    assert_eq!(biotope.get("/readyz").status, 200);
    let id = biotope.push(&json!({"type": "echo"}));
    biotope.until_state(&id, "completed");
    biotope.stop();
}
