//! Who connects and does nothing good: slow heads, idle crowds, claims of huge bodies, answers that nobody reads. Others are
//! served all the same, and memory stays where it was.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use crate::support::wait::{now, until};
use crate::support::{BIOTOPE, Biotope, Home, SOON, http, long, tell};

const ECHO: &str = "[workers.echo]\nversion = \"v1\"\nexec = [\"cat\"]\n";
/// Memory that strangers may cost.
const MEMORY_MAX: u64 = 256 << 20;

/// A home whose `[http]` has these lines, too; of the file that is shipped, since a crowd's cost is one of the figures.
fn home(lines: &str) -> Home {
    let home = Home::shipped("");
    home.configure(&format!("{lines}\n{ECHO}"));
    home
}

fn connect(home: &Home) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", home.port)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

fn send(home: &Home, text: &str) -> TcpStream {
    let mut stream = connect(home);
    // A stranger may be turned away before all is said.
    drop(stream.write_all(text.as_bytes()));
    stream
}

/// Waits until the other end has closed; what it said before.
fn until_closed(mut stream: TcpStream) -> String {
    let mut said = Vec::new();
    let mut some = [0; 4096];
    loop {
        match stream.read(&mut some) {
            Ok(0) => break,
            Ok(more) => said.extend_from_slice(&some[..more]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("not closed: {error}"),
        }
    }
    String::from_utf8(said).unwrap()
}

fn head(more: &str) -> String {
    format!("POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\n{more}")
}

/// Resident memory in bytes.
fn memory(biotope: &Biotope<'_>) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", biotope.pid().as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
}

fn push(biotope: &Biotope<'_>) -> String {
    biotope.push(&json!({"type": "echo", "payload": "p"}))
}

/// Every kind of stranger, one after the other.
fn strangers() -> [String; 4] {
    [
        String::new(),
        head("X-Slow: "),
        head(
            "Content-Type: application/x-ndjson\r\nContent-Length: 1073741824\r\n\r\n{\"type\":\"echo\",\"payload\":\"",
        ),
        head("Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{\"type\":\"echo\",\"payload\":\""),
    ]
}

#[test]
fn n1_slow_and_idle_connections_do_not_keep_others_out() {
    let home = home("connections_max = 32\npeer_connections_max = 24");
    let biotope = home.start();
    // One that is worked for, whatever comes: its answer is read, line by line, to the end.
    let mut stream = connect(&home);
    let kind = "Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head(kind).as_bytes()).unwrap();
    let mut there = Vec::new();
    for round in 0..50 {
        there.extend(strangers().map(|text| send(&home, &text)));
        if round % 10 == 9 {
            let id = push(&biotope);
            biotope.until_state(&id, "completed");
        }
    }
    let mut oldest = there.into_iter();
    for stream in oldest.by_ref().take(4 * 25) {
        until_closed(stream);
    }
    // With all of them gone, those that stay are served on, and nobody is missed.
    drop(oldest);
    let id = push(&biotope);
    biotope.until_state(&id, "completed");
    biotope.stop();
}

#[test]
fn n1_who_is_worked_for_is_never_turned_out() {
    let home = Home::new("");
    home.configure(&format!("connections_max = 8\npeer_connections_max = 8\n{ECHO}"));
    let biotope = home.start();
    // A reload that waits for its verdict is work that lasts as long as the test likes.
    home.pipe("gate");
    home.script("probe.sh", "read -r line <gate; cat");
    let next = "[workers.slow]\nversion = \"v1\"\nexec = [\"./probe.sh\"]\nprobe = 1\ntimeout = \"120s\"\nstart_timeout = \"120s\"\n";
    home.configure(&format!("connections_max = 8\npeer_connections_max = 8\n{ECHO}{next}"));
    let asked = "POST /v1/reload?wait=true HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let mut waiting = Vec::new();
    // All places are at work in the end: whoever comes then is told so at once. One who has not asked yet may have to go
    // for the next one.
    until("turned away", SOON, || {
        waiting.push(send(&home, asked));
        let said = until_closed(send(&home, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
        if said.starts_with("HTTP/1.1 503 ") && said.contains("\"busy\"") { Ok(()) } else { Err(said) }
    });
    home.open_gate("gate");
    let said: Vec<String> = waiting.into_iter().map(until_closed).collect();
    let answered = said.iter().filter(|said| said.starts_with("HTTP/1.1 200 ")).count();
    assert_eq!(answered, 8, "{said:?}");
    drop(biotope);
}

#[test]
fn n1_what_takes_longer_than_it_may_is_closed() {
    let home = home("head_timeout = \"300ms\"\nidle_timeout = \"400ms\"\nbody_timeout = \"500ms\"");
    let biotope = home.start();
    let [idle, slow, stream, body] = strangers().map(|text| send(&home, &text));
    assert_eq!(until_closed(idle), "");
    assert_eq!(until_closed(slow), "");
    let said = until_closed(stream);
    assert!(!said.contains("\r\n0\r\n"), "an answer that nobody takes for whole: {said}");
    // Whoever looks first, the place or the body, closes it; nothing was enqueued.
    let said = until_closed(body);
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 408 "), "{said}");
    // On a machine that has no time for it, one that has asked in time may be closed, too; not again and again.
    until("an answer on a line that is closed after it", SOON, || {
        let said = until_closed(send(&home, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        if said.starts_with("HTTP/1.1 200 ") { Ok(()) } else { Err(said) }
    });
    let seen =
        until("how it stands", SOON, || http::get(home.port, "/v1/ecosystem").map_err(|error| error.to_string()));
    assert_eq!(seen.json()["types"][0]["completed"], 0, "{seen:?}");
    biotope.stop();
}

#[test]
fn n2_what_is_too_large_is_refused_before_it_comes() {
    let home = home("head_max = \"8KiB\"");
    let biotope = home.start();
    let before = memory(&biotope);
    let claim = head("Content-Type: application/json\r\nContent-Length: 1073741824\r\n\r\n");
    for _ in 0..20 {
        let said = until_closed(send(&home, &claim));
        assert!(said.starts_with("HTTP/1.1 413 ") && said.contains("too_large"), "{said}");
    }
    let said = until_closed(send(&home, &head(&format!("X-Long: {}\r\n\r\n", "x".repeat(16 << 10)))));
    assert!(said.starts_with("HTTP/1.1 431 "), "{said}");
    let many = (0..200).map(|n| format!("X-{n}: 1\r\n")).collect::<String>();
    let said = until_closed(send(&home, &head(&format!("{many}\r\n"))));
    assert!(said.starts_with("HTTP/1.1 431 "), "{said}");
    assert!(memory(&biotope) < before + (64 << 20), "{before} then {}", memory(&biotope));
    biotope.stop();
}

#[test]
fn n3_who_asks_on_and_on_and_never_reads_is_dropped() {
    // By no other bound: what was not read of a request may be half a head.
    let others = "head_timeout = \"10m\"\nidle_timeout = \"10m\"\nbody_timeout = \"10m\"";
    let home = home(&format!("write_timeout = \"500ms\"\n{others}"));
    let biotope = home.start();
    let before = memory(&biotope);
    let request = "GET /v1/ecosystem HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
    let mut stream = connect(&home);
    stream.set_write_timeout(Some(SOON)).unwrap();
    let ended = loop {
        if let Err(error) = stream.write_all(request.as_bytes()) {
            break error.kind();
        }
    };
    assert!(matches!(ended, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{ended:?}");
    assert!(memory(&biotope) < before + (64 << 20), "{before} then {}", memory(&biotope));
    push(&biotope);
    biotope.stop();
}

#[test]
fn n7_with_no_descriptors_left_it_goes_on_as_soon_as_there_are() {
    let home = home("");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -n 64; exec \"$@\"", "sh", BIOTOPE, "--config"]);
    command.arg(home.path("biotope.toml")).arg("run").current_dir(home.path("."));
    let biotope = home.start_by(command);
    let crowd: Vec<TcpStream> = (0..300).map(|_| connect(&home)).collect();
    // The crowd stays, and one who has something to say is heard nevertheless.
    let job = json!({"type": "echo"}).to_string();
    let id = until("heard", SOON, || match http::post(home.port, "/v1/jobs", "application/json", job.as_bytes()) {
        Ok(answer) if answer.status == 201 => Ok(answer.json()["id"].as_str().unwrap().to_owned()),
        other => Err(format!("{other:?}")),
    });
    drop(crowd);
    // Until it has noticed that they are gone, there may be no place to answer from.
    until("done", SOON, || match http::get(home.port, &format!("/v1/jobs/{id}")) {
        Ok(answer) if answer.status == 200 && answer.json()["state"] == "completed" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    biotope.stop();
}

/// Within what time so many of a hundred pushes are answered, each over a connection of its own.
fn within(biotope: &Biotope<'_>, pushes: usize, percent: usize) -> Duration {
    let mut took: Vec<Duration> = (0..pushes)
        .map(|_| {
            let began = now();
            push(biotope);
            now() - began
        })
        .collect();
    took.sort_unstable();
    took[pushes * percent / 100]
}

/// Strangers of every kind, as many as this process may have open at once.
fn besiege(home: &Home, slow: usize, idle: usize, keep: usize) -> VecDeque<TcpStream> {
    let mut crowd = VecDeque::new();
    let texts = [
        strangers()[1].clone(),
        strangers()[2].clone(),
        "GET /v1/ecosystem HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(if long() { 200 } else { 20 }),
    ];
    for number in 0..slow + idle {
        let text = if number < slow { texts[number % 3].as_str() } else { "" };
        crowd.push_back(send(home, text));
        if crowd.len() > keep {
            crowd.pop_front();
        }
    }
    crowd
}

/// As the defaults are: 2,000 slow ones, 20,000 idle ones, claims of 1 GiB, and answers that nobody reads; with fewer of
/// each where not the long rounds are asked for. Calm and siege take turns, since others use the machine as well: what is
/// compared is the median of either. What a quarter of an hour's neighbour does to both, two further tries make up for.
#[test]
fn n1_crowds_cost_little_memory_and_no_time() {
    // A hundred pushes say nothing of the slowest of a hundred: that may be a single late sync.
    let (slow, idle, pushes, rounds, percent) =
        if long() { (2000, 20_000, 1000, 5, 99) } else { (200, 1500, 100, 1, 90) };
    let home = home("");
    let biotope = home.start();
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: most.maximum, ..most };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    let keep = usize::try_from(most.maximum.unwrap_or(1 << 20)).unwrap() / 2;
    within(&biotope, 50, percent);
    let base = memory(&biotope);
    let mut grown = 0;
    let mut compare = || {
        let (mut calm, mut besieged) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            calm.push(within(&biotope, pushes, percent));
            let mut crowd = besiege(&home, slow, idle, keep);
            grown = memory(&biotope).saturating_sub(base).max(grown);
            besieged.push(within(&biotope, pushes, percent));
            // Those who say nothing give way to those who begin to.
            crowd.extend((0..slow).map(|_| send(&home, &strangers()[1])));
            grown = memory(&biotope).saturating_sub(base).max(grown);
        }
        tell(&format!(
            "crowds: {slow} slow, {idle} idle: {} MiB more, p{percent} of a push {besieged:?}, calm {calm:?}",
            grown >> 20
        ));
        calm.sort_unstable();
        besieged.sort_unstable();
        // Nor does a single round say all of a disk, and of who else wants a processor. Who waits for a stranger waits for
        // seconds.
        let spare = if long() { Duration::ZERO } else { Duration::from_secs(1) };
        besieged[rounds / 2] <= calm[rounds / 2] * 2 + spare
    };
    assert!((0..3).any(|_| compare()), "a push takes more than twice its calm time: see above");
    assert!(grown < MEMORY_MAX, "{grown} bytes more");
    biotope.stop();
}
