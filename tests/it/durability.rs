//! Acknowledged means synced: watched from outside, system call by system call.

use std::process::Command;

use serde_json::json;

use crate::support::wait::until;
use crate::support::{BIOTOPE, Home, SOON, http, skipped, tell};

const ECHO: &str = "[workers.echo]\nversion = \"v1\"\nexec = [\"cat\"]\n";

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

/// What one line of a trace tells about job number n, or about syncs.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Seen {
    Written(usize),
    SyncBegun(u32),
    SyncDone(u32),
    Acknowledged,
}

fn read_line(line: &str) -> Option<Seen> {
    let pid = line.split_whitespace().next()?.parse().ok()?;
    if line.contains("HTTP/1.1 201") {
        return Some(Seen::Acknowledged);
    }
    if let Some(at) = line.find("marker-") {
        let digits = line.get(at + 7..at + 10)?;
        // The request itself carries the marker, too, but is read, not written.
        return line.contains("write").then(|| digits.parse().ok().map(Seen::Written)).flatten();
    }
    if line.contains("resumed>") && line.contains("sync") {
        return line.ends_with("= 0").then_some(Seen::SyncDone(pid));
    }
    if line.contains("sync(") {
        return Some(Seen::SyncBegun(pid));
    }
    None
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

    let mut written = None; // the job whose record was written last, not yet seen synced
    let mut begun: Option<(u32, usize)> = None; // a sync that began after that write
    let mut synced = 0; // jobs whose record was synced
    let mut acknowledged = 0;
    for line in trace.lines() {
        match read_line(line) {
            Some(Seen::Written(n)) if n >= synced => written = Some(n),
            Some(Seen::SyncBegun(pid)) => {
                // A call that was not interrupted stands on one line, with its result.
                if line.ends_with("= 0") {
                    synced = written.map_or(synced, |n| n + 1);
                } else if let Some(n) = written {
                    begun = Some((pid, n));
                }
            }
            Some(Seen::SyncDone(pid)) => {
                if let Some((_, n)) = begun.take_if(|(by, _)| *by == pid) {
                    synced = n + 1;
                }
            }
            Some(Seen::Acknowledged) => {
                acknowledged += 1;
                assert!(
                    synced >= acknowledged,
                    "201 number {acknowledged} came when {synced} records were synced: {line}"
                );
            }
            _ => {}
        }
    }
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
