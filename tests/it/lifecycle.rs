//! Start, stop, crash, start again.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::support::wait::until;
use crate::support::{BIOTOPE, Home, SOON, has_program, http, shown, skipped, tell};

const ECHO: &str = r#"
[workers.echo]
version = "v1"
exec = ["cat"]
"#;

#[test]
fn a_job_runs_and_its_result_survives_a_restart() {
    let home = Home::new(ECHO);
    let biotope = home.start();
    assert_eq!(biotope.get("/healthz").status, 200);
    let answer = biotope.post("/v1/jobs", r#"{"type":"echo","payload":{"n":1}}"#);
    assert_eq!(answer.status, 201, "{answer:?}");
    let pushed = answer.json();
    assert!(
        answer.body.starts_with(b"{\"id\":\"") && answer.body.ends_with(b"\",\"type\":\"echo\",\"state\":\"ready\"}"),
        "{answer:?}"
    );
    assert_eq!(pushed["type"], "echo");
    let id = pushed["id"].as_str().unwrap().to_owned();
    assert!(answer.header("location").unwrap().ends_with(&format!("/v1/jobs/{id}")), "{answer:?}");

    let done = biotope.until_state(&id, "completed");
    assert_eq!(done["result"], json!({"n": 1}));
    assert_eq!(done["version"], "v1");
    let spelt =
        http::post(home.port, "/v1/jobs", "Application/JSON; charset=UTF-8", br#"{"type":"echo","delay":"1h"}"#);
    assert_eq!(spelt.unwrap().status, 201, "a media type is the same in any case of letters");
    assert_eq!(done["attempts"], 0);
    biotope.stop();

    let again = home.start();
    assert_eq!(again.job(&id)["result"], json!({"n": 1}));
    let counts = again.of_type("echo");
    assert_eq!((&counts["enqueued"], &counts["completed"]), (&json!(2), &json!(1)));
    again.stop();
}

#[test]
fn the_command_line_finds_the_running_biotope() {
    let home = Home::new(ECHO);
    let biotope = home.start();
    let pushed = home.cli(&["push", "echo", r#"{"from":"the command line"}"#]);
    assert_eq!(pushed.status.code(), Some(0), "{}", shown(&pushed));
    let id = String::from_utf8(pushed.stdout).unwrap().trim().to_owned();
    assert_eq!(biotope.until_state(&id, "completed")["result"], json!({"from": "the command line"}));

    let status = home.cli(&["status", "--json"]);
    assert_eq!(status.status.code(), Some(0), "{}", shown(&status));
    let ecosystem: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(ecosystem["types"][0]["completed"], 1, "{ecosystem}");
    let status = home.cli(&["status"]);
    assert!(String::from_utf8_lossy(&status.stdout).contains("echo"), "{}", shown(&status));

    let shown_job = home.cli(&["jobs", "show", &id]);
    assert!(String::from_utf8_lossy(&shown_job.stdout).contains(&id), "{}", shown(&shown_job));
    let url = format!("http://127.0.0.1:{}", home.port);
    let by_url =
        std::process::Command::new(BIOTOPE).args(["--url", &url, "jobs", "list"]).current_dir("/").output().unwrap();
    assert!(String::from_utf8_lossy(&by_url.stdout).contains(&id), "{}", shown(&by_url));
    biotope.stop();

    let nobody = home.cli(&["status"]);
    assert_eq!(nobody.status.code(), Some(69), "{}", shown(&nobody));
}

#[test]
fn a_file_of_jobs_is_pushed_line_by_line() {
    let home = Home::new(ECHO);
    let biotope = home.start();
    home.write("jobs.ndjson", "{\"payload\":1}\n{\"payload\":2}\n{\"id\":\"third\",\"payload\":3}\n");
    let file = home.path("jobs.ndjson");
    let pushed = home.cli(&["push", "echo", "--file", file.to_str().unwrap()]);
    assert_eq!(pushed.status.code(), Some(0), "{}", shown(&pushed));
    let ids: Vec<_> = String::from_utf8(pushed.stdout).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(ids.len(), 3);
    assert_eq!(ids[2], "third");
    biotope.until_count("echo", "completed", 3);

    for words in [&["push", "-"][..], &["push", "--file", "-"]] {
        let mut command = home.command(words);
        command.stdin(std::fs::File::open(&file).unwrap());
        let refused = command.output().unwrap();
        assert_eq!(refused.status.code(), Some(65), "no line names a type: {}", shown(&refused));
    }
    assert_eq!(biotope.of_type("echo")["enqueued"], 3);
}

#[test]
fn a_long_push_shows_its_progress_on_a_terminal_and_nowhere_else() {
    let name = "a_long_push_shows_its_progress_on_a_terminal_and_nowhere_else";
    if !has_program("script") {
        return skipped(name, "no `script` to give it a terminal");
    }
    let home = Home::new(ECHO);
    let biotope = home.start();
    let lines: String = (0..20_000).map(|_| "{\"type\":\"echo\",\"delay\":\"1h\"}\n").collect();
    home.write("jobs.ndjson", &lines);
    let plain = home.cli(&["push", "--file", home.path("jobs.ndjson").to_str().unwrap()]);
    assert_eq!((plain.status.code(), plain.stderr.as_slice()), (Some(0), &[][..]), "{}", shown(&plain));
    assert_eq!(plain.stdout.iter().filter(|byte| **byte == b'\n').count(), 20_000);

    let command = format!("{BIOTOPE} --config biotope.toml push --file jobs.ndjson >ids.txt");
    let mut script = std::process::Command::new("script");
    script.args(["-qec", &command, "terminal.txt"]).stdin(Stdio::null());
    let output = script.env("TERM", "xterm").current_dir(home.path("")).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    let terminal = home.text("terminal.txt");
    assert!(terminal.contains("KiB") && terminal.contains('░'), "a bar: {terminal}");
    assert_eq!(home.text("ids.txt").lines().count(), 20_000, "stdout holds ids alone");
    biotope.stop();
}

#[test]
fn jobs_go_in_though_nobody_reads_their_ids() {
    let home = Home::new(ECHO);
    let biotope = home.start();
    // Many times what a pipe holds, into a pipe whose reader has gone.
    let lines: String =
        (0..20_000).map(|n| format!("{{\"type\":\"echo\",\"delay\":\"1h\",\"payload\":{n}}}\n")).collect();
    home.write("jobs.ndjson", &lines);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = home.command(&["push", "--file", "jobs.ndjson"]);
    let pushed = command.stdout(writer).output().unwrap();
    assert_eq!(pushed.status.code(), Some(0), "{}", shown(&pushed));
    assert_eq!(biotope.of_type("echo")["enqueued"], 20_000);
    biotope.stop();
}

/// Who was let in when it stops is answered: whether it has said nothing yet, or began to.
#[test]
fn who_was_let_in_is_answered_by_one_that_stops() {
    let home = Home::new(ECHO);
    let mut biotope = home.start();
    let connect = || TcpStream::connect(("127.0.0.1", home.port)).unwrap();
    let (silent, mut begun) = (connect(), connect());
    begun.write_all(b"POST /v1/jobs HTTP/1.1\r\n").unwrap();
    // They are let in one after the other: with an answer to the third, all are.
    let mut used = connect();
    used.set_read_timeout(Some(SOON)).unwrap();
    used.write_all(b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert_ne!(used.read(&mut [0; 4096]).unwrap(), 0);
    biotope.signal(Signal::TERM);
    // Whose every question was answered is closed at once, which tells that the doors are, too.
    assert_eq!(used.read(&mut [0]).unwrap(), 0);
    let line = "POST /v1/jobs HTTP/1.1\r\n";
    let rest = "Host: localhost\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{\"type\":\"echo\"}";
    let both = [(silent, format!("{line}{rest}")), (begun, rest.to_owned())].map(|(mut stream, said)| {
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(said.as_bytes()).unwrap();
        stream
    });
    // They are waited for a second from when the doors closed: neither has waited for the other's answer.
    for mut stream in both {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\"stopping\""), "{answer:?}");
        assert!(answer.contains("retry-after: 1\r\n") && answer.contains("connection: close\r\n"), "{answer:?}");
    }
    assert_eq!(biotope.until_end().code(), Some(0));
}

#[test]
fn kill_9_keeps_every_acknowledged_job() {
    let home = Home::new(
        r#"
[workers.mark]
version = "v1"
exec = ["./mark.sh"]
concurrency = 2
"#,
    );
    home.script("mark.sh", "echo \"$BIOTOPE_JOB_ID\" >>runs.txt");
    let mut acknowledged = BTreeSet::new();
    let mut seen_completed = BTreeMap::new(); // and how often each had run by then
    for round in 0..if crate::support::long() { 30 } else { 4 } {
        let biotope = home.start();
        let port = home.port;
        // Killed while this thread pushes: whatever it was told 201 for must be there afterwards.
        let producer = std::thread::spawn(move || {
            let mut told = Vec::new();
            for n in 0.. {
                let lines: String =
                    (0..20).map(|k| format!("{{\"type\":\"mark\",\"id\":\"r{round}-{n}-{k}\"}}\n")).collect();
                match http::post(port, "/v1/jobs", "application/x-ndjson", lines.as_bytes()) {
                    Ok(answer) if answer.status == 200 => {
                        told.extend(
                            answer
                                .lines()
                                .iter()
                                .filter(|line| line["status"] == 201)
                                .map(|line| line["id"].as_str().unwrap().to_owned()),
                        );
                    }
                    _ => break,
                }
            }
            told
        });
        let want = seen_completed.len() as u64 + 30;
        biotope.until_count("mark", "completed", want);
        let completed = biotope.jobs("type=mark&state=completed&limit=10000");
        let runs = runs_by_id(&home);
        for job in completed {
            let id = job["id"].as_str().unwrap().to_owned();
            seen_completed.entry(id.clone()).or_insert(runs[&id]);
        }
        biotope.kill();
        acknowledged.extend(producer.join().unwrap());
    }
    tell(&format!("{} jobs acknowledged, {} seen completed before a kill", acknowledged.len(), seen_completed.len()));

    let biotope = home.start();
    until("all jobs completed", crate::support::LATER, || {
        let seen = biotope.of_type("mark");
        if seen["completed"] == seen["enqueued"] { Ok(()) } else { Err(seen.to_string()) }
    });
    let completed: BTreeSet<_> = biotope
        .jobs("type=mark&state=completed&limit=10000")
        .iter()
        .map(|job| job["id"].as_str().unwrap().to_owned())
        .collect();
    let lost: Vec<_> = acknowledged.difference(&completed).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    biotope.stop();
    // A job that was shown as completed never runs again; others may have run twice.
    let runs = runs_by_id(&home);
    for (id, then) in &seen_completed {
        assert_eq!(runs[id], *then, "{id} was completed and ran again");
    }
}

/// How often each job of `mark` has run.
fn runs_by_id(home: &Home) -> BTreeMap<String, u32> {
    let mut runs = BTreeMap::new();
    for id in home.text("runs.txt").lines() {
        *runs.entry(id.to_owned()).or_insert(0) += 1;
    }
    runs
}

#[test]
fn a_killed_engine_takes_its_children_along() {
    let home = Home::new(
        r#"
[workers.slow]
version = "v1"
exec = ["./slow.sh"]
"#,
    );
    home.script("slow.sh", "echo $$ >>pids.txt\nread -r line <gate || true");
    home.pipe("gate");
    let biotope = home.start();
    let id = biotope.push(&json!({"type": "slow"}));
    let pid = until("the child's pid", SOON, || home.text("pids.txt").trim().parse::<i32>().map_err(|e| e.to_string()));
    biotope.kill();
    until("the child's end", SOON, || match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) if !stat.contains(") Z ") => Err(stat),
        _ => Ok(()),
    });

    // The job was under way when the process died: it runs again, and that cost it no attempt.
    let biotope = home.start();
    let again = biotope.until_state(&id, "reserved");
    assert_eq!((&again["attempts"], &again["host_deaths"]), (&json!(0), &json!(1)), "{again}");
    home.open_gate("gate");
    assert_eq!(biotope.until_state(&id, "completed")["attempts"], 0);
    biotope.stop();
}

#[test]
fn p1_a_stop_waits_for_what_runs() {
    let home = Home::new(
        r#"
[workers.slow]
version = "v1"
exec = ["./slow.sh"]
"#,
    );
    home.script("slow.sh", "echo $$ >>pids.txt\nread -r line <gate || true\necho '\"finished\"'");
    home.pipe("gate");
    let mut biotope = home.start();
    let id = biotope.push(&json!({"type": "slow"}));
    until("the run", SOON, || if home.text("pids.txt").is_empty() { Err("not begun".into()) } else { Ok(()) });
    biotope.signal(Signal::TERM);
    until("no new jobs while stopping", SOON, || {
        match http::post(home.port, "/v1/jobs", "application/json", br#"{"type":"slow","delay":"1h"}"#) {
            Ok(answer) if answer.status == 201 => Err(format!("{answer:?}")),
            _ => Ok(()),
        }
    });
    home.open_gate("gate");
    assert_eq!(biotope.until_end().code(), Some(0));
    let biotope = home.start();
    assert_eq!(biotope.job(&id)["result"], "finished");
    biotope.stop();
}

/// A job that does not end by itself, nor by TERM; `top`: lines at the top of the config.
fn held(top: &str) -> (Home, &'static str) {
    let home = Home::bare();
    home.configure_with(top, "[workers.slow]\nversion = \"v1\"\nexec = [\"./slow.sh\"]\nkill_after = \"100ms\"\n");
    home.script("slow.sh", "trap '' TERM\necho $$ >>pids.txt\nread -r line <gate || true");
    home.pipe("gate");
    (home, "slow")
}

/// The job was cut off: that cost it no attempt, and it is the first to run again.
fn is_given_back(home: &Home, id: &str) {
    let biotope = home.start();
    let again = biotope.until_state(id, "reserved");
    assert_eq!((&again["attempts"], &again["interrupts"]), (&json!(0), &json!(1)), "{again}");
    home.open_gate("gate");
    assert_eq!(biotope.until_state(id, "completed")["attempts"], 0);
    biotope.stop();
}

#[test]
fn p1_what_runs_past_the_deadline_of_a_stop_is_given_back_and_costs_no_attempt() {
    let (home, worker_type) = held("stop_timeout = \"200ms\"");
    let mut biotope = home.start();
    let id = biotope.push(&json!({"type": worker_type}));
    until("the run", SOON, || if home.text("pids.txt").is_empty() { Err("not begun".into()) } else { Ok(()) });
    biotope.signal(Signal::TERM);
    assert_eq!(biotope.until_end().code(), Some(0), "{}", home.text("stderr.txt"));
    drop(biotope);
    is_given_back(&home, &id);
}

#[test]
fn p1_a_second_signal_cuts_off_what_runs_and_costs_no_attempt() {
    for signal in [Signal::TERM, Signal::INT] {
        let (home, worker_type) = held("stop_timeout = \"1h\"");
        let mut biotope = home.start();
        let id = biotope.push(&json!({"type": worker_type}));
        until("the run", SOON, || if home.text("pids.txt").is_empty() { Err("not begun".into()) } else { Ok(()) });
        biotope.signal(signal);
        until("stopping", SOON, || match http::get(home.port, "/readyz") {
            Ok(answer) if answer.status == 200 => Err(format!("{answer:?}")),
            _ => Ok(()),
        });
        biotope.signal(signal);
        assert_eq!(biotope.until_end().code(), Some(0), "{}", home.text("stderr.txt"));
        drop(biotope);
        is_given_back(&home, &id);
    }
}

/// How often each thread of a process has gone to sleep so far, and its nanoseconds on a processor.
fn scheduled(pid: i32) -> BTreeMap<PathBuf, (u64, u64)> {
    let number = |text: &str, at: usize| text.split_whitespace().nth(at)?.parse::<u64>().ok();
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|task| task.unwrap().path());
    // A thread may end while it is looked at.
    let of = |task: PathBuf| {
        // The index of ended jobs brings threads of its library that look about once a second, and cannot be told not to.
        if std::fs::read_to_string(task.join("comm")).ok()?.starts_with("sled") {
            return None;
        }
        let status = std::fs::read_to_string(task.join("status")).ok()?;
        // Only these are of its own will: what a busy machine takes from it counts elsewhere.
        let own = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches"))?;
        let stat = std::fs::read_to_string(task.join("schedstat")).ok()?;
        Some((task, (number(own, 1)?, number(&stat, 0)?)))
    };
    tasks.filter_map(of).collect()
}

#[test]
fn an_idle_biotope_sleeps() {
    let worker = |name: &str, exec: &str| format!("[workers.{name}]\nversion = \"v1\"\nexec = [\"{exec}\"]\n");
    let home = Home::new(&(worker("a", "cat") + &worker("b", "cat") + &worker("c", "cat") + &worker("d", "./tell.sh")));
    home.script("tell.sh", "echo done >told");
    home.pipe("told");
    let biotope = home.start();
    // The next segment is written behind the start: that is work, and it ends.
    until("the next segment", SOON, || {
        let names = std::fs::read_dir(home.path("data/log")).unwrap().map(|entry| entry.unwrap().file_name());
        let names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        let ready = names.len() >= 2 && names.iter().all(|name| name.ends_with(".seg"));
        if ready { Ok(()) } else { Err(format!("{names:?}")) }
    });
    let pid = biotope.pid().as_raw_nonzero().get();
    biotope.push(&json!({"type": "d", "delay": "3s"}));
    let before = scheduled(pid);
    // Nothing is asked of it until the job's time has come: its worker opens the pipe's other end.
    assert_eq!(home.text("told"), "done\n");
    let (mut sleeps, mut ns) = (0, 0);
    for (task, after) in scheduled(pid) {
        let before = before.get(&task).copied().unwrap_or_default();
        (sleeps, ns) = (sleeps + after.0 - before.0, ns + after.1 - before.1);
    }
    tell(&format!("went to sleep {sleeps} times in 3 s, {} us on a processor", ns / 1000));
    // The seal of the push, and the delayed job: its time, its record, its pool, its process. Who looks ten times a
    // second whether there is something to do adds 30.
    assert!(sleeps < 40, "went to sleep {sleeps} times in 3 s");
    assert!(ns < 50_000_000, "{ns} ns on a processor in 3 s");
    biotope.stop();
}

#[test]
fn the_data_directory_is_for_its_owner_alone() {
    let home = Home::new(ECHO);
    let biotope = home.start();
    biotope.push(&json!({"type": "echo"}));
    let mode = |name: &str| std::fs::metadata(home.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("data"), 0o700);
    assert_eq!(mode("data/LOCK"), 0o600);
    assert_eq!(home.text("data/LOCK").trim(), biotope.pid().as_raw_nonzero().to_string());
    for entry in std::fs::read_dir(home.path("data/log")).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
    }
}

#[test]
fn a_start_says_what_it_did_and_where_to_look() {
    let home = Home::new(ECHO);
    let biotope = home.start();
    let said = home.text("stderr.txt");
    assert!(said.contains(&format!("127.0.0.1:{}", home.port)), "{said}");
    assert!(said.contains("echo"), "the worker types are named: {said}");
    assert!(said.lines().count() <= 12, "a few readable lines: {said}");
    biotope.stop();
}

#[test]
fn p12_usr1_opens_the_logs_file_again_and_never_ends_the_process() {
    let home = Home::new(ECHO);
    let biotope = home.start();
    biotope.until_version("echo", "v1", "current");
    // A rotation: the file is moved away, and everything goes to the new one of its name.
    std::fs::rename(home.path("stderr.txt"), home.path("stderr.txt.1")).unwrap();
    let old = home.text("stderr.txt.1");
    let until_said = |name: &str, what: &str| {
        until(what, SOON, || {
            let said = std::fs::read_to_string(home.path(name)).unwrap_or_default();
            if said.contains(what) { Ok(()) } else { Err(said) }
        });
    };
    biotope.signal(Signal::USR1);
    until_said("stderr.txt", "the log goes on in this file");
    home.configure(&ECHO.replace("v1", "v2"));
    biotope.signal(Signal::HUP);
    until_said("stderr.txt", "reload settled");
    let told = home.text("stderr.txt.1");
    let last = told.strip_prefix(&old).unwrap();
    assert!(last.contains("the log goes on in another file") && last.lines().count() == 1, "{last}");
    // Nothing has moved: nothing is lost.
    biotope.signal(Signal::USR1);
    until_said("stderr.txt", "the log's file is where it was");
    assert!(home.text("stderr.txt").contains("reload settled"));
    // Where no file can be made, the old one is written on.
    std::fs::rename(home.path("stderr.txt"), home.path("stderr.txt.2")).unwrap();
    std::fs::create_dir(home.path("stderr.txt")).unwrap();
    biotope.signal(Signal::USR1);
    until_said("stderr.txt.2", "cannot be opened again, the old one is written on");
    std::fs::remove_dir(home.path("stderr.txt")).unwrap();
    biotope.signal(Signal::USR1);
    until_said("stderr.txt", "the log goes on in this file");
    biotope.stop();
}

#[test]
fn p12_usr1_changes_nothing_where_the_log_goes_to_no_file() {
    let home = Home::new(ECHO);
    let (read, write) = std::io::pipe().unwrap();
    let mut child = home.command(&["run"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(write).spawn().unwrap();
    let pid = Pid::from_child(&child);
    let mut lines = BufReader::new(read).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("status page")), "it is up");
    kill_process(pid, Signal::USR1).unwrap();
    assert!(lines.any(|line| line.contains("the log goes to no file")));
    kill_process(pid, Signal::TERM).unwrap();
    assert!(lines.any(|line| line.contains("biotope stopped")));
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
