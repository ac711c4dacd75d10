//! What is done in whose name, and what the process itself is allowed: the audit, its memory, its open files.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::wait::until;
use crate::support::{BIOTOPE, Biotope, Home, SOON, UNHURRIED, http, program, skipped};

/// The table of routes, as the source has it: what stands there is all that there is, which a unit test holds.
const ROUTES: &str = include_str!("../../src/http/routes.rs");
/// What only adds, and what begins and ends sessions.
const NOT_AUDITED: [&str; 3] = ["/v1/jobs", "/login", "/logout"];

/// Paths of the routes that take POST.
fn changing_routes() -> Vec<&'static str> {
    let table = ROUTES.split("const ROUTES").nth(1).unwrap().split("];").next().unwrap();
    let looks = table.matches("(Method::GET, \"").count();
    let posts: Vec<_> = table.split("(Method::POST, \"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert_eq!(looks + posts.len(), table.matches("(Method::").count(), "another method: have it audited, too");
    posts.into_iter().filter(|path| !NOT_AUDITED.contains(path)).collect()
}

/// What is audited up to now.
fn audit(home: &Home) -> Vec<Value> {
    let text = home.text("stderr.txt");
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["target"] == "audit").collect()
}

/// Each route, as it is asked, with what is sent, and what its line says: what, on what.
fn asked(path: &str, id: &str) -> Vec<(String, String, String, String)> {
    let words: &[&str] = match path {
        "/types/{type}/{word}" => &["pause", "resume", "rollback", "promote"],
        "/jobs/{id}/{word}" | "/v1/jobs/{id}/{action}" => &["retry", "discard", "cancel"],
        "/jobs/all/{word}" => &["retry", "discard"],
        "/v1/types/{type}/rollout/{word}" => &["pause", "resume", "promote", "abort"],
        _ => &[""],
    };
    let ask = |word: &&str| {
        let of = |path: &str| path.replace("{type}", "mail").replace("{id}", id);
        let path = of(path).replace("{word}", word).replace("{action}", word);
        assert!(!path.contains('{'), "say in this test how {path} is asked");
        let (body, query) = match path.as_str() {
            "/types/mail/purge" => ("name=mail", ""),
            "/jobs/all/discard" | "/jobs/all/retry" => ("type=mail&state=dead&name=mail", ""),
            "/v1/types/mail/retry" => ("", "?failed_on=v1"),
            // It is another test's to replace the program: here it is refused.
            "/v1/upgrade" => ("", "?wait=maybe"),
            "/v1/reload" => ("", "?wait=true"),
            _ => ("", ""),
        };
        let parts: Vec<&str> = path.trim_start_matches("/v1").split('/').skip(1).collect();
        let (what, on) = match parts[..] {
            ["jobs", "all", _] => (parts.join("/"), "dead jobs of mail".to_owned()),
            ["types" | "jobs", on, ..] => (parts[2..].join("/"), on.to_owned()),
            _ => (parts.join("/"), String::new()),
        };
        (format!("{path}{query}"), body.to_owned(), what, on)
    };
    words.iter().map(ask).collect()
}

#[test]
fn s9_every_call_that_changes_something_is_in_the_audit() {
    let log = "[log_output]\nformat = \"json\"\nlevel = \"error\"\n";
    let fails = "[workers.mail]\nversion = \"v1\"\nexec = [\"false\"]\nmax_attempts = 1\n";
    let home = Home::new(&format!("{log}{fails}"));
    let biotope = home.start();
    let die = || {
        let id = biotope.push(&json!({"type": "mail"}));
        biotope.until_state(&id, "dead");
        id
    };
    let routes = changing_routes();
    assert!(routes.len() > 10, "{routes:?}");
    let mut seen = 0;
    for (path, body, what, on) in routes.iter().flat_map(|path| {
        let id = if path.contains("{id}") { die() } else { String::new() };
        asked(path, &id)
    }) {
        let kind = "application/x-www-form-urlencoded";
        let answer = http::post(home.port, &path, kind, body.as_bytes()).unwrap();
        let lines = audit(&home);
        assert_eq!(lines.len(), seen + 1, "{path}: one line\n{answer:?}\n{lines:#?}");
        let line = &lines[seen];
        assert_eq!((&line["who"], &line["by"]), (&json!("admin"), &json!("nothing")), "{line}");
        assert_eq!((&line["from"], &line["what"]), (&json!("127.0.0.1"), &json!(what)), "{line}");
        assert_eq!(line["status"], answer.status, "{line}");
        let said = if answer.status < 400 { "done" } else { "refused" };
        assert_eq!(line["msg"], said, "{line}");
        assert!(line["on"].as_str().unwrap_or_default() == on || answer.status >= 400, "{path}: {line}");
        seen += 1;
    }
    // To how many: what died meanwhile is what the purge ends.
    let (one, two) = (die(), die());
    let answer = biotope.post("/v1/types/mail/purge", "");
    let purged = answer.json()["purged"].as_u64().unwrap();
    assert!(purged >= 2, "{one} {two} {answer:?}");
    assert_eq!(audit(&home).last().unwrap()["count"], purged);
    // Looking and adding leave no line.
    assert_eq!(audit(&home).len(), seen + 1);
    biotope.stop();
}

/// What was begun goes on, and was changed: who hangs up is no way around the audit.
#[test]
fn s9_a_call_whose_caller_hangs_up_is_in_the_audit() {
    let log = "[log_output]\nformat = \"json\"\nlevel = \"error\"\n";
    let slow = |version: &str| format!("{log}[workers.slow]\nversion = \"{version}\"\nexec = [\"./slow\"]\n");
    let home = Home::new(&slow("v1"));
    // Passes its probe only when it is told to.
    home.script("slow", ": >asked\nuntil [ -e go ]; do sleep 0.01; done\n");
    let biotope = home.start();
    home.configure(&format!("{}probe = 1\n", slow("v2")));
    {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", home.port)).unwrap();
        write!(stream, "POST /v1/reload?wait=true HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n").unwrap();
        until("the new version starts", SOON, || home.path("asked").exists().then_some(()).ok_or_else(String::new));
    }
    // A look that is answered later than that connection has ended.
    biotope.get("/healthz");
    assert_eq!(audit(&home).len(), 0);
    home.write("go", "");
    until("its line", SOON, || match audit(&home).as_slice() {
        [line] if line["what"] == "reload" => Ok(()),
        lines => Err(format!("{lines:?}")),
    });
    biotope.kill();
}

#[test]
fn s9_who_may_not_is_in_the_audit_by_his_role() {
    let tokens = "[http.tokens]\nadmin = { file = \"a\" }\noperate = { file = \"o\" }\n";
    let home = Home::new(&format!(
        "{tokens}[log_output]\nformat = \"json\"\n[workers.mail]\nversion = \"v1\"\nexec = [\"true\"]\n"
    ));
    for (name, token) in [("a", "admin-token-0123456789"), ("o", "operate-token-0123456789")] {
        home.write(name, token);
        let mode = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o600);
        std::fs::set_permissions(home.path(name), mode).unwrap();
    }
    let biotope = home.start();
    let ask = |token: &str, path: &str| {
        let head = format!("POST {path} HTTP/1.1\r\nAuthorization: Bearer {token}\r\nContent-Length: 0\r\n");
        http::request(home.port, &head, &[]).unwrap().status
    };
    assert_eq!(ask("operate-token-0123456789", "/v1/types/mail/purge"), 403);
    assert_eq!(ask("operate-token-0123456789", "/v1/types/mail/pause"), 200);
    assert_eq!(ask("admin-token-0123456789", "/v1/types/mail/purge"), 200);
    assert_eq!(ask("no-token-at-all-01234567", "/v1/types/mail/purge"), 401);
    let said: Vec<String> = audit(&home)
        .iter()
        .map(|line| format!("{} {} {} {} {}", line["msg"], line["who"], line["by"], line["what"], line["status"]))
        .collect();
    let wanted = [
        r#""refused" "operate" "token" "purge" 403"#,
        r#""done" "operate" "token" "pause" 200"#,
        r#""done" "admin" "token" "purge" 200"#,
    ];
    assert_eq!(said, wanted);
    biotope.stop();
}

/// Runs a program as the user that nobody is; whether it went well.
fn nobody(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).uid(65_534).gid(65_534).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().unwrap().success()
}

/// Whether that user may see into a process.
fn is_seen(pid: i32) -> bool {
    nobody("head", &["-c", "1", &format!("/proc/{pid}/environ")])
}

/// A biotope run by nobody, in a directory that is his.
fn of_nobody(home: &Home) -> Biotope<'_> {
    let program = home.path("biotope");
    std::fs::hard_link(BIOTOPE, &program).unwrap();
    let mut command = Command::new(program);
    command.arg("--config").arg(home.path("biotope.toml")).arg("run").current_dir(home.path(""));
    command.uid(65_534).gid(65_534).envs([UNHURRIED]);
    home.start_by(command)
}

/// The process that starts children for another one.
fn helper_of(parent: i32) -> i32 {
    let pids =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let is_it = |pid: &i32| {
        let read = |what: &str| std::fs::read_to_string(format!("/proc/{pid}/{what}")).unwrap_or_default();
        read("status").contains(&format!("\nPPid:\t{parent}\n")) && read("cmdline").contains("--spawn-children")
    };
    pids.into_iter().find(is_it).unwrap_or_else(|| panic!("{parent} has no helper"))
}

#[test]
fn s2_memory_is_shown_to_nobody_and_dumped_nowhere() {
    if !rustix::process::geteuid().is_root() {
        skipped("s2_memory_is_shown_to_nobody_and_dumped_nowhere", "only root can become another user");
        return;
    }
    let workers = "[workers.stays]\nversion = \"v1\"\nexec = [\"./stays.sh\"]\nmode = \"persistent\"\n";
    let home = Home::new(workers);
    let stays = crate::support::repository().join("examples/workers/worker.sh");
    program(&home.path("stays.sh"), &std::fs::read(stays).unwrap());
    std::os::unix::fs::chown(home.path(""), Some(65_534), Some(65_534)).unwrap();
    if !nobody("test", &["-x", home.path("stays.sh").to_str().unwrap()]) {
        let reason = "the way to the tests' directory is closed to other users";
        skipped("s2_memory_is_shown_to_nobody_and_dumped_nowhere", reason);
        return;
    }
    let biotope = of_nobody(&home);
    let pid = biotope.pid().as_raw_nonzero().get();
    let worker = until("a worker with its memory", SOON, || {
        let seen = biotope.of_type("stays");
        let worker = seen["versions"][0]["workers"][0].clone();
        let known = worker["rss_bytes"].as_u64().is_some_and(|bytes| bytes > 0);
        if known { Ok(worker) } else { Err(seen.to_string()) }
    });
    assert!(is_seen(i32::try_from(worker["pid"].as_i64().unwrap()).unwrap()), "a program is as any other: {worker}");
    for (whose, pid) in [("its own", pid), ("its helper's", helper_of(pid))] {
        assert!(!is_seen(pid), "{whose} memory can be read");
    }
    // The next image of the program is kept as this one.
    assert_eq!(home.cli(&["upgrade", "--wait"]).status.code(), Some(0), "{}", home.text("stderr.txt"));
    assert!(!is_seen(pid), "the next image's memory can be read");
    home.configure_with("core_dumps = true", workers);
    assert_eq!(biotope.post("/v1/reload?wait=true", "").status, 200);
    assert!(is_seen(pid), "the config lets it");
    biotope.stop();
}

#[test]
fn n7_the_limit_on_open_files_is_raised_and_programs_get_it_back() {
    let workers = "[workers.tells]\nversion = \"v1\"\nexec = [\"./tells.sh\"]\n\
        [workers.own]\nversion = \"v1\"\nexec = [\"./tells.sh\"]\nlimits = { open_files = 77 }\n";
    let home = Home::new(workers);
    home.script("tells.sh", "cat >/dev/null; echo \"\\\"$(ulimit -Sn) $(ulimit -Hn)\\\"\"");
    let mut command = Command::new("sh");
    let script = "ulimit -Sn 300; ulimit -Hn 1000; exec \"$0\" --config \"$1\" run";
    command.args(["-c", script, BIOTOPE]).arg(home.path("biotope.toml")).current_dir(home.path("")).envs([UNHURRIED]);
    let biotope = home.start_by(command);
    let pid = biotope.pid().as_raw_nonzero().get();
    let limits = || {
        let text = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let line = text.lines().find(|line| line.starts_with("Max open files")).unwrap().to_owned();
        line.split_whitespace().skip(3).take(2).map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    let told = |name: &str| {
        let id = biotope.push(&json!({"type": name}));
        biotope.until_state(&id, "completed")["result"].as_str().unwrap().to_owned()
    };
    assert_eq!(limits(), "1000 1000");
    assert_eq!((told("tells"), told("own")), ("300 1000".to_owned(), "77 77".to_owned()));
    // 2,048 connections by default, and more.
    let said = home.text("stderr.txt");
    assert!(said.contains("level=warn msg=\"fewer files may be open") && said.contains("allowed=1000"), "{said}");
    // The next image has not forgotten what it was.
    let upgraded = home.cli(&["upgrade", "--wait"]);
    assert_eq!(upgraded.status.code(), Some(0), "{}", home.text("stderr.txt"));
    assert_eq!((limits(), told("tells")), ("1000 1000".to_owned(), "300 1000".to_owned()));
    let before = home.text("stderr.txt").len();
    home.write("biotope.toml", &home.text("biotope.toml").replace("[http]", "[http]\nconnections_max = 100"));
    assert_eq!(biotope.post("/v1/reload?wait=true", "").status, 200);
    assert!(!home.text("stderr.txt")[before..].contains("fewer files"), "{}", home.text("stderr.txt"));
    biotope.signal(Signal::TERM);
    let mut biotope = biotope;
    assert_eq!(biotope.until_end().code(), Some(0));
}

#[test]
fn readers_of_events_have_their_bound_and_are_told_its_key() {
    let home = Home::bare();
    let workers = "[workers.mail]\nversion = \"v1\"\nexec = [\"true\"]\n";
    home.configure(&format!("events_max = 2\n{workers}"));
    let biotope = home.start();
    let read = || {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", home.port)).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        write!(stream, "GET /v1/events HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n", home.port).unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        (stream, String::from_utf8_lossy(&head[9..]).into_owned())
    };
    let (one, two, three) = (read(), read(), read());
    assert_eq!((one.1.as_str(), two.1.as_str(), three.1.as_str()), ("200", "200", "429"));
    let refused = biotope.get("/v1/events");
    assert!(refused.json()["detail"].as_str().unwrap().contains("`http.events_max`"), "{refused:?}");
    // A place that is left is there for the next.
    drop(one);
    until("a place", SOON, || {
        let (_, status) = read();
        if status == "200" { Ok(()) } else { Err(status) }
    });
    home.configure(&format!("events_max = 5\n{workers}"));
    assert_eq!(biotope.post("/v1/reload?wait=true", "").status, 200);
    let more = [read(), read()];
    assert!(more.iter().all(|(_, status)| status == "200"), "{more:?}");
    drop((two, three, more));
    biotope.stop();
}
