//! USR2: the binary replaces itself, in the same process, and a new one that does not come up leaves the old one carrying on.

use std::io::{BufRead, Read, Write};
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::wait::until;
use crate::support::{BIOTOPE, Biotope, Home, SOON, UNHURRIED, http, program, shown};

const ECHO: &str = r#"
[workers.echo]
version = "v1"
exec = ["cat"]
"#;

/// A job that ends when the test says so, however long that takes.
const SLOW: &str = "[workers.slow]\nversion = \"v1\"\nexec = [\"./slow.sh\"]\ntimeout = \"10m\"\n";
/// And it is waited for.
const PATIENT: &str = "stop_timeout = \"10m\"";

/// A command that runs the home's own copy of the binary.
fn own_copy(home: &Home) -> Command {
    put_same(home);
    let mut command = Command::new(home.path("biotope"));
    command.envs([UNHURRIED]);
    command.arg("--config").arg(home.path("biotope.toml")).arg("run").current_dir(home.path("."));
    command
}

/// Puts another file in the place of the home's binary, as people do: beside it, then renamed over it.
fn put(home: &Home, new: &[u8]) {
    program(&home.path("biotope"), new);
}

fn put_same(home: &Home) {
    put(home, &std::fs::read(BIOTOPE).unwrap());
}

/// The file whose code a process runs.
fn image(biotope: &Biotope<'_>) -> PathBuf {
    std::fs::read_link(format!("/proc/{}/exe", biotope.pid().as_raw_nonzero())).unwrap()
}

/// Waits until an attempt is over; what is shown of the binary then.
fn until_attempt(home: &Home, attempt: u64) -> Value {
    until(&format!("attempt {attempt} is over"), SOON, || match http::get(home.port, "/v1/ecosystem") {
        Ok(answer) if answer.status == 200 => {
            let binary = answer.json()["binary"].clone();
            let over = binary["attempts"] == attempt && binary["state"] == "serving";
            if over { Ok(binary) } else { Err(format!("{binary}\n{}", home.text("stderr.txt"))) }
        }
        other => Err(format!("{other:?}\n{}", home.text("stderr.txt"))),
    })
}

fn counts(home: &Home, what: &str) -> u64 {
    let seen = http::get(home.port, "/v1/ecosystem").unwrap().json();
    seen["types"].as_array().unwrap().iter().map(|of_type| of_type[what].as_u64().unwrap()).sum()
}

#[test]
fn a_new_binary_takes_over_in_the_same_process() {
    let home = Home::new(ECHO);
    let biotope = home.start_by(own_copy(&home));
    let before = biotope.push(&json!({"type": "echo", "payload": 1}));
    biotope.until_state(&before, "completed");
    let lock = home.text("data/LOCK");
    put_same(&home);
    assert!(image(&biotope).to_str().unwrap().ends_with("biotope (deleted)"), "the old file is gone");
    biotope.signal(Signal::USR2);
    let binary = until_attempt(&home, 1);
    assert_eq!((&binary["replaced"], binary.get("last_error")), (&json!(1), None), "{binary}");
    assert_eq!(image(&biotope), home.path("biotope").canonicalize().unwrap());
    assert_eq!(home.text("data/LOCK"), lock, "the same process holds the lock");

    // What was there is there, and new work is done; so it goes again, by the command.
    assert_eq!(biotope.job(&before)["result"], 1);
    let after = biotope.push(&json!({"type": "echo", "payload": 2}));
    assert_eq!(biotope.until_state(&after, "completed")["result"], 2);
    put_same(&home);
    let upgraded = home.cli(&["upgrade", "--wait"]);
    assert_eq!(upgraded.status.code(), Some(0), "{}", shown(&upgraded));
    assert!(String::from_utf8_lossy(&upgraded.stdout).contains(" took over from "), "{}", shown(&upgraded));
    assert_eq!(until_attempt(&home, 2)["replaced"], 2);
    assert_eq!(counts(&home, "completed"), 2);

    // Signals, that of a reload and that of a stop, reach the new image.
    home.configure(&ECHO.replace("v1", "v2"));
    biotope.signal(Signal::HUP);
    biotope.until_version("echo", "v2", "current");
    biotope.stop();
    let said = home.text("stderr.txt");
    assert!(said.contains("took over from biotope") && !said.contains("did not stop in good order"), "{said}");
}

#[test]
fn nothing_of_the_image_before_is_left_open() {
    let home = Home::new(ECHO);
    let biotope = home.start_by(own_copy(&home));
    biotope.until_version("echo", "v1", "current");
    let mut open = None;
    for attempt in 1..=4 {
        put_same(&home);
        biotope.signal(Signal::USR2);
        until_attempt(&home, attempt);
        let id = biotope.push(&json!({"type": "echo"}));
        biotope.until_state(&id, "completed");
        let pid = biotope.pid().as_raw_nonzero();
        // The segment that is written to, and the next one, which is made beside all else. What is open for a moment is closed
        // soon; what was left never is.
        let count = until("no more open than after the first time, and nothing of an image", SOON, || {
            let names = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
            let names = names.filter_map(|fd| std::fs::read_link(fd.path()).ok()).map(|to| to.display().to_string());
            // Connections and the index's files come and go.
            let names: Vec<String> =
                names.filter(|to| !to.contains("/history/") && !to.starts_with("socket:")).collect();
            let is_left = |to: &String| to.contains("memfd") || to.contains("biotope (deleted)");
            let made = names.iter().filter(|to| to.ends_with(".seg")).count() >= 2;
            let more = open.is_some_and(|open| names.len() > open);
            if !made || more || names.iter().any(is_left) { Err(format!("{names:?}")) } else { Ok(names.len()) }
        });
        open.get_or_insert(count);
    }
    biotope.stop();
}

#[test]
fn what_runs_may_finish_and_jobs_are_taken_in_meanwhile() {
    let home = Home::bare();
    home.configure_with(PATIENT, SLOW);
    home.script("slow.sh", "echo run >>runs\nread -r line <gate || true\necho '\"finished\"'");
    home.pipe("gate");
    let biotope = home.start_by(own_copy(&home));
    let running = biotope.push(&json!({"type": "slow"}));
    until("the run", SOON, || if home.text("runs").is_empty() { Err("not begun".into()) } else { Ok(()) });
    put_same(&home);
    biotope.signal(Signal::USR2);
    until("draining", SOON, || match biotope.ecosystem()["binary"]["state"].as_str() {
        Some("draining") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(biotope.get("/readyz").status, 200);
    let waiting = biotope.push(&json!({"type": "slow"}));
    assert_eq!(biotope.job(&waiting)["state"], "ready", "nothing new begins");
    home.open_gate("gate");
    let binary = until_attempt(&home, 1);
    assert_eq!(binary["replaced"], 1, "{binary}");
    assert_eq!(biotope.until_state(&running, "completed")["result"], "finished");
    until("the next run", SOON, || if home.text("runs").lines().count() == 2 { Ok(()) } else { Err("none".into()) });
    home.open_gate("gate");
    let done = biotope.until_state(&waiting, "completed");
    assert_eq!((&done["attempts"], &done["interrupts"]), (&json!(0), &json!(0)));
    biotope.stop();
}

#[test]
fn what_does_not_finish_in_time_is_given_back_uncharged() {
    let home = Home::bare();
    home.configure_with(
        "stop_timeout = \"300ms\"",
        "[workers.slow]\nversion = \"v1\"\nexec = [\"./slow.sh\"]\nkill_after = \"100ms\"\nmax_attempts = 1\n",
    );
    home.script("slow.sh", "echo run >>runs\nmkdir begun 2>/dev/null || exit 0\nsleep 1000");
    let biotope = home.start_by(own_copy(&home));
    let id = biotope.push(&json!({"type": "slow"}));
    until("the run", SOON, || if home.path("begun").exists() { Ok(()) } else { Err("not begun".into()) });
    put_same(&home);
    biotope.signal(Signal::USR2);
    assert_eq!(until_attempt(&home, 1)["replaced"], 1);
    let done = biotope.until_state(&id, "completed");
    let spent = (&done["attempts"], &done["interrupts"], &done["host_deaths"]);
    assert_eq!(spent, (&json!(0), &json!(1), &json!(0)), "{done}");
    assert_eq!(home.text("runs").lines().count(), 2);
    biotope.stop();
}

#[test]
fn a_stop_while_it_drains_is_a_stop() {
    let home = Home::bare();
    home.configure_with(PATIENT, SLOW);
    home.script("slow.sh", "echo run >>runs\nread -r line <gate || true");
    home.pipe("gate");
    let mut biotope = home.start_by(own_copy(&home));
    biotope.push(&json!({"type": "slow"}));
    until("the run", SOON, || if home.text("runs").is_empty() { Err("not begun".into()) } else { Ok(()) });
    biotope.signal(Signal::USR2);
    until("draining", SOON, || match biotope.ecosystem()["binary"]["state"].as_str() {
        Some("draining") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    biotope.signal(Signal::TERM);
    home.open_gate("gate");
    assert_eq!(biotope.until_end().code(), Some(0), "{}", home.text("stderr.txt"));
    let said = home.text("stderr.txt");
    assert!(said.contains("biotope stopped;") && !said.contains("took over"), "{said}");
}

/// A connection that stays open, and asks when it is told to.
struct Line(std::io::BufReader<std::net::TcpStream>);

impl Line {
    fn open(home: &Home) -> Self {
        let stream = std::net::TcpStream::connect(("127.0.0.1", home.port)).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        Self(std::io::BufReader::new(stream))
    }

    fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// Reads an answer; whether the other end wants to go on.
    fn answer(&mut self) -> bool {
        let (mut length, mut stays, mut line) = (0, true, String::new());
        self.0.read_line(&mut line).unwrap();
        assert!(line.starts_with("HTTP/1.1 200 ") || line.starts_with("HTTP/1.1 201 "), "{line:?}");
        while line != "\r\n" {
            line.clear();
            assert_ne!(self.0.read_line(&mut line).unwrap(), 0, "the answer broke off");
            let lower = line.to_ascii_lowercase();
            stays &= lower.trim() != "connection: close";
            length = lower.strip_prefix("content-length:").map_or(length, |text| text.trim().parse().unwrap());
        }
        std::io::copy(&mut self.0.by_ref().take(length), &mut std::io::sink()).unwrap();
        stays
    }
}

const ASK: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn open_connections_go_on_with_the_new_image() {
    // As long as three images take one another's place, half a head stays one that may be ended.
    let home = Home::new(&format!("head_timeout = \"10m\"\nidle_timeout = \"10m\"\n{ECHO}"));
    let biotope = home.start_by(own_copy(&home));
    let (mut fresh, mut half, mut used) = (Line::open(&home), Line::open(&home), Line::open(&home));
    half.send(&ASK[..30]);
    used.send(ASK);
    assert!(used.answer());
    // The next request has begun on a connection that was used before.
    let mut between = Line::open(&home);
    between.send(&format!("{ASK}{}", &ASK[..30]));
    assert!(between.answer());
    for attempt in 1..=3 {
        put_same(&home);
        biotope.signal(Signal::USR2);
        assert_eq!(until_attempt(&home, attempt)["replaced"], attempt);
    }
    fresh.send(ASK);
    half.send(&ASK[30..]);
    used.send(ASK);
    between.send(&ASK[30..]);
    for line in [&mut fresh, &mut half, &mut used, &mut between] {
        assert!(line.answer());
    }
    let job = r#"{"type":"echo"}"#;
    used.send(&format!(
        "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{job}",
        job.len()
    ));
    assert!(used.answer());
    biotope.until_count("echo", "completed", 1);
    biotope.stop();
}

#[test]
fn a_request_that_is_under_way_is_answered() {
    let home = Home::new(ECHO);
    let biotope = home.start_by(own_copy(&home));
    let mut line = Line::open(&home);
    let job = r#"{"type":"echo"}"#;
    let head = "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Type: application/json";
    line.send(&format!("{head}\r\nContent-Length: {}\r\n\r\n", job.len()));
    // Asked for its body, it is under way.
    let mut asked = String::new();
    line.0.read_line(&mut asked).unwrap();
    line.0.read_line(&mut asked).unwrap();
    assert_eq!(asked, "HTTP/1.1 100 Continue\r\n\r\n");
    put_same(&home);
    biotope.signal(Signal::USR2);
    until("nothing else is waited for", SOON, || {
        let said = home.text("stderr.txt");
        if said.contains("nothing runs any more") { Ok(()) } else { Err(said) }
    });
    line.send(job);
    // Where it was answered before the house closed, the connection goes on.
    let stays = line.answer();
    assert_eq!(until_attempt(&home, 1)["replaced"], 1);
    if stays {
        line.send(ASK);
        assert!(line.answer());
    } else {
        assert_eq!(line.0.read(&mut [0]).unwrap(), 0);
    }
    biotope.until_count("echo", "completed", 1);
    biotope.stop();
}

/// Between the check and the start the config goes: the new image cannot run it, and the old one goes on with what it ran.
#[test]
fn a_config_that_goes_while_it_drains_keeps_the_old_one() {
    let elsewhere = format!("data_dir = \"elsewhere\"\n[http]\nlisten = \"127.0.0.1:1\"\n{SLOW}");
    for config in [None, Some("nonsense"), Some(elsewhere.as_str())] {
        let home = Home::bare();
        home.configure_with(PATIENT, SLOW);
        home.script("slow.sh", "echo run >>runs\nread -r line <gate || true");
        home.pipe("gate");
        let biotope = home.start_by(own_copy(&home));
        let id = biotope.push(&json!({"type": "slow"}));
        until("the run", SOON, || if home.text("runs").is_empty() { Err("not begun".into()) } else { Ok(()) });
        put_same(&home);
        biotope.signal(Signal::USR2);
        until("draining", SOON, || match biotope.ecosystem()["binary"]["state"].as_str() {
            Some("draining") => Ok(()),
            other => Err(format!("{other:?}")),
        });
        match config {
            None => std::fs::remove_file(home.path("biotope.toml")).unwrap(),
            Some(text) => home.write("biotope.toml", text),
        }
        home.open_gate("gate");
        let binary = until_attempt(&home, 1);
        if config == Some("nonsense") {
            // It runs the last accepted config, as any start does with a file that does not pass.
            assert_eq!(binary["replaced"], 1, "{binary}");
        } else {
            let error = binary["last_error"].as_str().unwrap_or_default();
            assert!(error.contains("config") && binary["replaced"] == 0, "{config:?}: {binary}");
        }
        assert_eq!(biotope.until_state(&id, "completed")["attempts"], 0);
        let shown = biotope.ecosystem()["generation"]["last_error"].clone();
        assert!(shown.is_string(), "{config:?}: everybody who looks is told: {shown}");
        assert!(!home.path("elsewhere").exists());
        let next = biotope.push(&json!({"type": "slow"}));
        until(
            "the next run",
            SOON,
            || if home.text("runs").lines().count() == 2 { Ok(()) } else { Err("none".into()) },
        );
        home.open_gate("gate");
        biotope.until_state(&next, "completed");
        biotope.stop();
    }
}

/// What may lie there instead of a biotope, and what is said of it.
#[test]
fn a_file_that_is_no_successor_leaves_the_old_one_carrying_on() {
    let home = Home::new(ECHO);
    let biotope = home.start_by(own_copy(&home));
    let id = biotope.push(&json!({"type": "echo"}));
    biotope.until_state(&id, "completed");
    let epoch = biotope.ecosystem()["log"]["epoch"].clone();
    let elf = std::fs::read(BIOTOPE).unwrap();
    let files: [(&[u8], &str); 6] = [
        (b"#!/bin/sh\nexit 0\n", "is no program of this machine's own kind"),
        (b"\x00\x01garbage", "is no program of this machine's own kind"),
        (b"", "is no program of this machine's own kind"),
        (&elf[..5000], "its takeover-check "),
        (&std::fs::read("/bin/true").unwrap(), "did not answer as a biotope does"),
        (&std::fs::read("/bin/false").unwrap(), "its takeover-check exited with code 1"),
    ];
    for (attempt, (file, why)) in (1..).zip(files) {
        put(&home, file);
        biotope.signal(Signal::USR2);
        let binary = until_attempt(&home, attempt);
        let error = binary["last_error"].as_str().unwrap_or_default();
        assert!(error.contains(why), "{why}: {binary}");
        assert_eq!(binary["replaced"], 0);
        let id = biotope.push(&json!({"type": "echo"}));
        biotope.until_state(&id, "completed");
    }
    std::fs::remove_file(home.path("biotope")).unwrap();
    let upgraded = home.cli(&["upgrade", "--wait"]);
    assert_eq!(upgraded.status.code(), Some(65), "{}", shown(&upgraded));
    assert!(String::from_utf8_lossy(&upgraded.stderr).contains("No such file"), "{}", shown(&upgraded));
    let page = String::from_utf8(biotope.get("/").body).unwrap();
    assert!(page.contains("The binary was not replaced"), "{page}");
    assert_eq!(biotope.ecosystem()["log"]["epoch"], epoch, "nothing was opened anew");
    // And a good one still takes over.
    put_same(&home);
    biotope.signal(Signal::USR2);
    assert_eq!(until_attempt(&home, 8)["replaced"], 1);
    biotope.stop();
}

#[test]
fn a_config_that_a_successor_could_not_run_keeps_the_old_one() {
    let home = Home::new(ECHO);
    let biotope = home.start_by(own_copy(&home));
    let elsewhere = format!("data_dir = \"elsewhere\"\n[http]\nlisten = \"127.0.0.1:{}\"\n{ECHO}", home.port);
    let other_port = format!("data_dir = \"data\"\n[http]\nlisten = \"127.0.0.1:1\"\n{ECHO}");
    let configs =
        [("nonsense = 1", "nonsense", 65), (&elsewhere, "`data_dir`", 80), (&other_port, "`http.listen`", 80)];
    let url = format!("http://127.0.0.1:{}", home.port);
    for (attempt, (config, why, code)) in (1..).zip(configs) {
        home.write("biotope.toml", config);
        let upgraded = Command::new(BIOTOPE).args(["--url", &url, "upgrade", "--wait"]).output().unwrap();
        assert_eq!(upgraded.status.code(), Some(code), "{why}: {}", shown(&upgraded));
        let binary = until_attempt(&home, attempt);
        assert!(binary["last_error"].as_str().unwrap_or_default().contains(why), "{why}: {binary}");
        assert!(!home.path("elsewhere").exists(), "a check makes nothing");
    }
    home.configure(ECHO);
    biotope.signal(Signal::USR2);
    assert_eq!(until_attempt(&home, 4)["replaced"], 1);
    biotope.stop();
}

/// The new image fails after it has taken the process: the old one is back there, and all goes on.
fn goes_back(ill: &str, why: &str, times: u64) {
    let home = Home::new(ECHO);
    let mut command = own_copy(&home);
    // Whoever hangs does so for the usual time; a busy disk is no reason for the others.
    let ill_or_slow = if ill.starts_with("hang") { ill.to_owned() } else { format!("{ill},patient@120") };
    command.env("BIOTOPE_TEST_TAKEOVER", ill_or_slow).env("RUST_BACKTRACE", "0");
    let biotope = home.start_by(command);
    let before = biotope.push(&json!({"type": "echo", "payload": 1}));
    biotope.until_state(&before, "completed");
    let old = image(&biotope).display().to_string();
    let mut line = Line::open(&home);
    for attempt in 1..=times {
        put_same(&home);
        let waiting = biotope.push(&json!({"type": "echo", "delay": "1h"}));
        let upgraded = home.cli(&["upgrade", "--wait"]);
        assert_eq!(upgraded.status.code(), Some(79), "{ill}: {}\n{}", shown(&upgraded), home.text("stderr.txt"));
        let binary = until_attempt(&home, attempt);
        assert!(binary["last_error"].as_str().unwrap_or_default().contains(why), "{ill}: {binary}");
        assert_eq!(binary["replaced"], 0, "{ill}");
        assert_eq!(image(&biotope).display().to_string(), format!("{old} (deleted)"), "{ill}");
        let id = biotope.push(&json!({"type": "echo", "payload": 2}));
        assert_eq!(biotope.until_state(&id, "completed")["result"], 2);
        assert_eq!(biotope.job(&waiting)["state"], "delayed");
        line.send(ASK);
        assert!(line.answer(), "{ill}");
        let pid = biotope.pid().as_raw_nonzero();
        let children = || std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        until("one helper, and nothing of the image that failed", SOON, || {
            let children = children();
            if children.split_whitespace().count() <= 1 { Ok(()) } else { Err(children) }
        });
    }
    assert_eq!(biotope.job(&before)["result"], 1, "{ill}");
    biotope.stop();
}

#[test]
fn a_new_image_that_fails_at_once_brings_the_old_one_back() {
    goes_back("error@arrived", "as a test asked for", 1);
    goes_back("panic@arrived", "it exited", 1);
    goes_back("abort@arrived", "it aborted", 1);
    goes_back("exit@arrived", "it exited", 1);
    goes_back("overflow@arrived", "segmentation fault", 2);
}

#[test]
fn a_new_image_that_fails_with_an_open_log_brings_the_old_one_back() {
    goes_back("error@opened", "as a test asked for", 2);
    goes_back("panic@opened", "it exited", 1);
    goes_back("abort@opened", "it aborted", 1);
    goes_back("exit@opened", "it exited", 1);
    goes_back("overflow@opened", "segmentation fault", 1);
}

#[test]
fn a_new_image_that_is_not_ready_in_time_brings_the_old_one_back() {
    // Side by side, since both do little but wait.
    std::thread::scope(|scope| {
        scope.spawn(|| goes_back("hang@arrived", "it was not ready within 10s", 1));
        scope.spawn(|| goes_back("hang@opened", "it was not ready within 10s", 1));
    });
}
