//! What a biotope refuses, in what words, and with which exit code.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::json;

use crate::support::wait::until;
use crate::support::{BIOTOPE, Home, SOON, has_program, http, program, shown, skipped};

const ECHO: &str = r#"
[log]
payload_max = "1KiB"

[workers.echo]
version = "v1"
exec = ["cat"]
"#;

#[test]
fn a_bad_job_is_refused_with_its_place_and_remedy() {
    let home = Home::new(ECHO);
    let biotope = home.start();
    let large = format!("{{\"type\":\"echo\",\"payload\":\"{}\"}}", "x".repeat(1100));
    let cases = [
        (large.as_str(), 413, "too_large", "payload_max"),
        ("{\"type\":\"echo\",\n  \"payload\": }", 400, "invalid_json", "line 2, column 14"),
        ("", 400, "invalid_json", "line 1"),
        (r#"{"type":"ehco"}"#, 404, "unknown_type", "echo"),
        (r#"{"payload":1}"#, 400, "invalid_job", "type"),
        (r#"{"type":"echo","prority":3}"#, 400, "invalid_job", "prority"),
        (r#"{"type":"echo","priority":10}"#, 400, "invalid_job", "priority"),
        (r#"{"type":"echo","delay":"5 parsecs"}"#, 400, "invalid_job", "delay"),
        (r#"{"type":"echo","run_at":"tomorrow"}"#, 400, "invalid_job", "run_at"),
        (r#"{"type":"echo","id":"with space"}"#, 400, "invalid_job", "id"),
        (r#"{"type":"echo","max_attempts":0}"#, 400, "invalid_job", "max_attempts"),
        (r#"["echo"]"#, 400, "invalid_job", ""),
    ];
    for (body, status, code, words) in cases {
        let answer = biotope.post("/v1/jobs", body);
        assert_eq!(answer.status, status, "{body}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{body}: {answer:?}");
        let problem = answer.json();
        assert_eq!(problem["code"], code, "{body}: {problem}");
        assert_eq!(problem["status"], status, "{body}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(words), "{body}: {problem}");
    }
    let huge = biotope.post("/v1/jobs", &format!("{{\"type\":\"echo\",\"payload\":\"{}\"}}", "x".repeat(100_000)));
    assert_eq!((huge.status, huge.json()["code"].as_str()), (413, Some("too_large")), "{huge:?}");
    assert!(huge.json()["detail"].as_str().unwrap().contains("at most 1024 bytes"), "the limit is told: {huge:?}");
    let text = http::post(home.port, "/v1/jobs", "text/plain", b"hello").unwrap();
    assert_eq!(text.status, 415, "{text:?}");
    for path in ["/v1/reload?wiat=true", "/v1/jobs?typ=echo"] {
        let answer = biotope.post(path, r#"{"type":"echo"}"#);
        assert_eq!((answer.status, answer.json()["code"].as_str()), (400, Some("bad_request")), "{path}: {answer:?}");
    }
    assert_eq!(biotope.get("/v1/nothing").status, 404);
    assert_eq!(biotope.of_type("echo")["enqueued"], 0, "nothing half-done is left behind");
    biotope.stop();
}

#[test]
fn a_bad_line_is_named_and_the_others_go_in() {
    let home = Home::new(ECHO);
    let biotope = home.start();
    let lines = [
        r#"{"type":"echo","id":"one"}"#.to_owned(),
        "{\"type\":\"echo\"".to_owned(),
        r#"{"type":"ehco"}"#.to_owned(),
        format!("{{\"type\":\"echo\",\"payload\":\"{}\"}}", "x".repeat(1100)),
        r#"{"type":"echo","id":"five"}"#.to_owned(),
    ];
    let answers = biotope.push_lines(&(lines.join("\n") + "\n"));
    let numbers: Vec<_> = answers.iter().map(|answer| answer["line"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    let statuses: Vec<_> = answers.iter().map(|answer| answer["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [201, 400, 404, 413, 201], "{answers:?}");
    assert_eq!(answers[0]["id"], "one");
    assert_eq!(answers[1]["error"]["code"], "invalid_json");
    let detail = answers[1]["error"]["detail"].as_str().unwrap();
    assert!(detail.contains("column 14") && !detail.contains("line"), "the line is told once: {detail}");
    assert!(answers[2]["error"]["detail"].as_str().unwrap().contains("echo"), "{answers:?}");
    biotope.until_count("echo", "completed", 2);

    home.write("bad.ndjson", &(lines.join("\n").replace("one", "six").replace("five", "seven") + "\n"));
    let output = home.cli(&["push", "--file", home.path("bad.ndjson").to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(65), "{}", shown(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "six\nseven\n");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for line in ["2", "3", "4"] {
        assert!(said.contains(line), "line {line} is not named: {said}");
    }
    biotope.until_count("echo", "completed", 4);
    biotope.stop();
}

#[test]
fn a_hostile_connection_ends_without_harm() {
    use std::io::{Read, Write};
    let home = Home::new(ECHO);
    let biotope = home.start();
    for bytes in [
        b"\x00\xff\x00\xff\r\n\r\n".as_slice(),
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999\r\nContent-Type: application/json\r\n\r\n{",
        b"POST /v1/jobs HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    ] {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", home.port)).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer)); // a reset is an answer, too
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 5"), "{answer}");
    }
    let rebound = "GET /v1/ecosystem HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", home.port)).unwrap();
    stream.write_all(rebound.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(!answer.starts_with("HTTP/1.1 2"), "another Host is not served (DNS rebinding): {answer}");
    assert_eq!(biotope.get("/readyz").status, 200);
    biotope.stop();
}

/// Runs `run` where it must refuse: one readable sentence and the exit code.
fn refused(home: &Home, code: i32, words: &[&str]) {
    let output = home.cli(&["run"]);
    assert_refusal(&output, code, words);
}

fn assert_refusal(output: &std::process::Output, code: i32, words: &[&str]) {
    assert_eq!(output.status.code(), Some(code), "{}", shown(output));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn a_data_directory_or_port_in_use_is_75() {
    let home = Home::new(ECHO);
    let biotope = home.start();
    let other = Home::new(ECHO);
    let own = other.text("biotope.toml");
    other.write("biotope.toml", &own.replace("\"data\"", &format!("{:?}", home.path("data"))));
    refused(&other, 75, &["in use", &biotope.pid().as_raw_nonzero().to_string()]);
    other.write("biotope.toml", &own.replace(&other.port.to_string(), &home.port.to_string()));
    refused(&other, 75, &[&home.port.to_string()]);
    assert!(!other.path("data").exists(), "nothing half-done is left behind");
    assert_eq!(biotope.get("/readyz").status, 200, "the first one is not disturbed");
    biotope.stop();
}

#[test]
fn a_foreign_log_is_65_and_stays_as_it_is() {
    let home = Home::new(ECHO);
    std::fs::create_dir_all(home.path("data/log")).unwrap();
    let file = "data/log/0000000001.seg";
    home.write(file, &"no log of ours\n".repeat(1000));
    refused(&home, 65, &["0000000001.seg"]);
    assert_eq!(home.text(file), "no log of ours\n".repeat(1000), "nothing was changed");
}

/// A home whose log has lived and ended; the path of the segment that was written last.
fn lived(jobs: u32) -> (Home, std::path::PathBuf) {
    let home = Home::new(&ECHO.replace("[log]", "[log]\nsegment = \"8MiB\""));
    let biotope = home.start();
    for n in 0..jobs {
        biotope.push(&json!({"type": "echo", "payload": n}));
    }
    biotope.until_count("echo", "completed", u64::from(jobs));
    biotope.stop();
    let mut segments: Vec<_> = std::fs::read_dir(home.path("data/log"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        // A segment that was made ahead has a header of 64 bytes, and no frame behind it.
        .filter(|path| std::fs::read(path).unwrap().get(64).is_some_and(|&byte| byte != 0))
        .collect();
    segments.sort();
    let last = segments.pop().unwrap();
    (home, last)
}

#[test]
fn a_log_of_a_newer_format_is_76() {
    let (home, segment) = lived(3);
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[8] = 99; // the header's format number, see the header of src/log/mod.rs
    std::fs::write(&segment, &bytes).unwrap();
    refused(&home, 76, &["99", "newer"]);
    assert_eq!(std::fs::read(&segment).unwrap(), bytes, "nothing was changed");
}

#[test]
fn a_damaged_log_is_65_and_not_repaired_by_forgetting() {
    let (home, segment) = lived(50);
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[64 + 80] ^= 0x10; // a record of the first frame, with many durable ones behind it
    std::fs::write(&segment, &bytes).unwrap();
    refused(&home, 65, &["corrupt", segment.file_name().unwrap().to_str().unwrap()]);
    assert_eq!(std::fs::read(&segment).unwrap(), bytes, "nothing was changed");
}

#[test]
fn a_torn_tail_is_cut_and_told() {
    let (home, segment) = lived(5);
    // Half a frame behind the last one, as a crash in the middle of a write leaves it.
    let bytes = std::fs::read(&segment).unwrap();
    let end = bytes.iter().rposition(|&byte| byte != 0).unwrap() / 8 * 8 + 8;
    let mut torn = bytes.clone();
    torn.splice(end..end + 40, [0xF8, b'B', b'T', b'F'].into_iter().chain(std::iter::repeat_n(7, 36)));
    std::fs::write(&segment, torn).unwrap();
    let biotope = home.start();
    assert_eq!(biotope.of_type("echo")["completed"], 5);
    biotope.stop();
}

#[test]
fn an_unwritable_directory_is_73_or_77() {
    let name = "an_unwritable_directory_is_73_or_77";
    let home = Home::new(ECHO);
    home.write("data", "a file, not a directory");
    let output = home.cli(&["run"]);
    assert_refusal(&output, 73, &["data"]);

    if !rustix::process::geteuid().is_root() || !has_program("setpriv") {
        return skipped(name, "needs root and setpriv to run as another user");
    }
    // Another user must reach the binary: a copy of it, in a directory that all may enter.
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    let mode = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(dir.path(), 0o755);
    let binary = dir.path().join("biotope");
    program(&binary, &std::fs::read(BIOTOPE).unwrap());
    let config = dir.path().join("biotope.toml");
    std::fs::write(&config, home.text("biotope.toml")).unwrap();
    mode(&config, 0o644);
    let run_as_nobody = || {
        Command::new("setpriv")
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
            .arg(&binary)
            .arg("--config")
            .arg(&config)
            .arg("run")
            .output()
            .unwrap()
    };
    let output = run_as_nobody();
    assert!(matches!(output.status.code(), Some(73 | 77)), "cannot be made: {}", shown(&output));
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let output = run_as_nobody();
    assert_refusal(&output, 77, &["data"]);
    assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0, "nothing half-done is left behind");
}

#[test]
fn check_config_tells_all_problems_at_once() {
    let home = Home::new(ECHO);
    let good = home.path("biotope.toml");
    let output = home.cli(&["check-config", good.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));

    let bad = "[http]\nlisten = \"0.0.0.0:7420\"\n\n[workers.echo]\nvesrion = \"v1\"\nexec = [\"cat\"]\nconcurrency = 0\ntimeout = \"5 parsecs\"\n";
    home.write("bad.toml", bad);
    let output = home.cli(&["check-config", home.path("bad.toml").to_str().unwrap()]);
    // The place of each, the line itself, and a suggestion where one is near.
    let words = ["bad.toml", "0.0.0.0", "loopback", "vesrion", "version", "concurrency", "5 parsecs", "5", "7", "8"];
    assert_refusal(&output, 78, &words);

    let status = Command::new(BIOTOPE).arg("--config").arg(home.path("bad.toml")).arg("status").output().unwrap();
    assert_refusal(&status, 78, &["0.0.0.0", "loopback"]);
    // What is missing on the machine, what is misspelt, and what names nobody: one reading tells all of it.
    let mixed = "[workers.a]\nexec = [\"no-such-program\"]\non_dead = \"c\"\n\n[workers.b]\nversion = \"v1\"\nexec = [\"no-such-program\"]\nbatsh = 2\n\n[workers.\"b c\"]\ntimeout = 5\n";
    home.write("mixed.toml", mixed);
    let output = home.cli(&["check-config", home.path("mixed.toml").to_str().unwrap()]);
    let places =
        ["a.version` is missing", "toml:2:", "toml:3:", "toml:7:", "toml:8:", "toml:10:", "toml:11:", "9 problems"];
    assert_refusal(&output, 78, &places);

    let missing = home.cli(&["check-config", home.path("none.toml").to_str().unwrap()]);
    assert_refusal(&missing, 78, &["none.toml"]);
    home.write("biotope.toml", bad);
    refused(&home, 78, &["vesrion"]);
    assert!(!home.path("data").exists(), "a first start with a bad config makes nothing");
}

#[test]
fn wrong_usage_is_64() {
    let home = Home::new(ECHO);
    for args in [&["no-such-command"][..], &["push"], &["jobs", "retry"], &["run", "--no-such-flag"], &[]] {
        let output = home.cli(args);
        assert_eq!(output.status.code(), Some(64), "{args:?}: {}", shown(&output));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(said.lines().count(), 1, "one line: {said}");
    }
    let elsewhere = Command::new(BIOTOPE).args(["--url", "http://127.0.0.1:7420", "run"]).output().unwrap();
    assert_refusal(&elsewhere, 64, &["--url"]);
    let bare = Command::new(BIOTOPE).output().unwrap();
    assert_refusal(&bare, 64, &["Commands:", "check-config"]);
    let help = home.cli(&["--help"]);
    assert_eq!(help.status.code(), Some(0), "{}", shown(&help));
    let version = home.cli(&["--version"]);
    assert!(String::from_utf8_lossy(&version.stdout).contains(env!("CARGO_PKG_VERSION")), "{}", shown(&version));
}

#[test]
fn bad_input_on_the_command_line_is_65() {
    let home = Home::new(ECHO);
    let biotope = home.start();
    for args in [&["push", "echo", "{"][..], &["push", "ehco", "{}"], &["jobs", "show", "no-such-job"]] {
        let output = home.cli(args);
        assert_eq!(output.status.code(), Some(65), "{args:?}: {}", shown(&output));
        assert_eq!(String::from_utf8_lossy(&output.stderr).trim().lines().count(), 1, "one line: {}", shown(&output));
    }
    until("still there", SOON, || if biotope.get("/readyz").status == 200 { Ok(()) } else { Err("not ready".into()) });
    biotope.stop();
}
