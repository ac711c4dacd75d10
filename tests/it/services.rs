//! Services as workers: the real binary calls one of the tests' own, which answers when the test says so.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use rustix::process::Signal;
use serde_json::json;

use crate::support::wait::until;
use crate::support::{Biotope, Home, LATER, SOON};

/// A service without threads: it takes a request when the test asks for one.
struct Service {
    listener: TcpListener,
    port: u16,
}

/// A request that waits for its answer.
struct Held {
    stream: TcpStream,
    head: String,
    body: String,
}

impl Service {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        Self { listener, port }
    }

    /// The worker table of a version that calls it, and waits for its answers as long as the test takes.
    fn table(&self, version: &str, more: &str) -> String {
        let url = format!("http = \"http://127.0.0.1:{}/jobs\"\nallow_private = true", self.port);
        let patient = "timeout = \"10m\"\nfirst_byte_timeout = \"10m\"";
        format!("[workers.w]\nversion = \"{version}\"\n{url}\n{patient}\n{more}\n")
    }

    /// The first request on the next connection.
    fn take(&self) -> Held {
        let stream = until("a connection", SOON, || self.listener.accept().map_err(|error| error.to_string())).0;
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let (head, body) = request(&stream);
        Held { stream, head, body }
    }
}

fn request(mut stream: &TcpStream) -> (String, String) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let mut body = vec![0; header(&head, "content-length").unwrap().parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    (head, String::from_utf8(body).unwrap())
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.split_once(": ").filter(|(key, _)| *key == name).map(|(_, value)| value))
}

impl Held {
    fn header(&self, name: &str) -> &str {
        header(&self.head, name).unwrap_or_else(|| panic!("no {name} in {}", self.head))
    }

    fn answer(&mut self, status: &str, headers: &str, body: &str) {
        let answer = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len());
        self.stream.write_all(answer.as_bytes()).unwrap();
    }

    /// Waits for the next request on the same connection.
    fn next(self) -> Self {
        let (head, body) = request(&self.stream);
        Self { stream: self.stream, head, body }
    }
}

fn threads(biotope: &Biotope<'_>) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", biotope.pid().as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Threads:")).unwrap();
    line.trim().parse().unwrap()
}

#[test]
fn n6_500_requests_in_flight_need_no_500_threads() {
    let service = Service::new();
    let home = Home::new(&service.table("v1", "concurrency = 1"));
    let biotope = home.start();
    let lines: String = (0..500).map(|n| format!("{{\"type\":\"w\",\"payload\":{n}}}\n")).collect();
    assert!(biotope.push_lines(&lines).iter().all(|line| line["status"] == 201));
    let mut held = vec![service.take()];
    let before = threads(&biotope);
    home.configure(&service.table("v1", "concurrency = 500"));
    biotope.signal(Signal::HUP);
    while held.len() < 500 {
        held.push(service.take());
    }
    let during = threads(&biotope);
    assert!(during < 50, "{before} threads with one request in flight, {during} with 500");
    assert_eq!(biotope.of_type("w")["reserved"], 500);
    for one in &mut held {
        let body = one.body.clone();
        one.answer("200 OK", "", &body);
    }
    biotope.until_count_in("w", "completed", 500, LATER);
    for job in biotope.jobs("type=w&state=completed&limit=1000") {
        let job = biotope.job(job["id"].as_str().unwrap());
        assert!(job["result"].is_number() && job["result"] == job["payload"], "{job}");
    }
    biotope.stop();
}

#[test]
fn requests_in_flight_follow_the_queue() {
    let service = Service::new();
    let home = Home::new(&service.table("v1", "concurrency = { min = 0, max = 40 }\ntarget_wait = \"100ms\""));
    let biotope = home.start();
    assert_eq!(biotope.push_lines(&"{\"type\":\"w\"}\n".repeat(42)).len(), 42);
    // None is answered: that they take their time is all there is to see, and two wait.
    let mut held: Vec<Held> = (0..40).map(|_| service.take()).collect();
    let view = biotope.of_type("w");
    assert_eq!((&view["reserved"], &view["ready"], &view["scale"]["workers"]), (&json!(40), &json!(2), &json!(40)));
    home.configure(&service.table("v1", "concurrency = 1"));
    biotope.signal(Signal::HUP);
    until("one in flight, of those to come", SOON, || {
        let view = biotope.of_type("w");
        if view["versions"][0]["pool_size"] == 1 { Ok(()) } else { Err(view.to_string()) }
    });
    for one in &mut held {
        one.answer("200 OK", "Connection: close\r\n", "");
    }
    biotope.until_count("w", "completed", 40);
    for completed in 41..=42 {
        let mut last = service.take();
        assert_eq!(biotope.of_type("w")["reserved"], 1, "one after the other");
        last.answer("200 OK", "Connection: close\r\n", "");
        biotope.until_count("w", "completed", completed);
    }
    biotope.stop();
}

#[test]
fn a_service_finishes_what_it_holds_while_a_program_takes_new_work_and_back() {
    let program = "[workers.w]\nversion = \"v2\"\nexec = [\"./two.sh\"]\n";
    let service = Service::new();
    let home = Home::new(&service.table("v1", ""));
    home.script("two.sh", "echo '\"by two\"'");
    let biotope = home.start();
    let old = biotope.push(&json!({"type": "w"}));
    let mut held = service.take();
    home.configure(program);
    biotope.signal(Signal::HUP);
    biotope.until_version("w", "v2", "current");
    let new = biotope.push(&json!({"type": "w"}));
    assert_eq!(biotope.until_state(&new, "completed")["result"], "by two");
    assert_eq!(biotope.job(&old)["state"], "reserved", "v1 still works on its job");
    biotope.until_version("w", "v1", "draining");
    held.answer("200 OK", "", "by one\n");
    let old = biotope.until_state(&old, "completed");
    assert_eq!((&old["version"], &old["result"], &old["interrupts"]), (&json!("v1"), &json!("by one"), &json!(0)));
    biotope.until_version("w", "v1", "warm");
    home.configure(&service.table("v3", ""));
    biotope.signal(Signal::HUP);
    biotope.until_version("w", "v3", "current");
    let last = biotope.push(&json!({"type": "w"}));
    service.take().answer("200 OK", "", "3");
    assert_eq!(biotope.until_state(&last, "completed")["result"], 3);
    biotope.stop();
}

#[test]
fn a_stop_in_the_middle_of_a_request_gives_the_job_back() {
    let service = Service::new();
    let home = Home::bare();
    home.configure_with("stop_timeout = \"100ms\"", &service.table("v1", ""));
    let biotope = home.start();
    let id = biotope.push(&json!({"type": "w", "payload": 7}));
    let first = service.take();
    biotope.stop();
    let biotope = home.start();
    let mut second = service.take();
    assert_eq!((second.header("webhook-id"), second.header("ce-id")), (id.as_str(), id.as_str()));
    assert_eq!((second.header("ce-attempt"), second.body.as_str()), ("1", "7"));
    let fence = |held: &Held| held.header("ce-fence").parse::<u64>().unwrap();
    assert!(fence(&second) > fence(&first), "{} {}", second.head, first.head);
    second.answer("200 OK", "", "");
    let job = biotope.until_state(&id, "completed");
    assert_eq!((&job["attempts"], &job["interrupts"]), (&json!(0), &json!(1)), "{job}");
    biotope.stop();
}

#[test]
fn a_service_says_what_follows() {
    let service = Service::new();
    let more = "max_attempts = 2\nbackoff = { first = \"1ms\", max = \"1ms\" }\n\
                [workers.next]\nversion = \"v1\"\nexec = [\"cat\"]\n";
    let home = Home::new(&service.table("v1", more));
    let biotope = home.start();
    let id = biotope.push(&json!({"type": "w"}));
    // Later, by date or seconds or its own backoff; that costs no attempt.
    let mut held = service.take();
    held.answer("503 Busy", "Retry-After: 0\r\n", "");
    let mut held = held.next();
    assert_eq!(held.header("ce-attempt"), "1");
    let body =
        json!({"value": {"ok": true}, "enqueue": [{"type": "next", "id": "follows", "payload": [1]}]}).to_string();
    held.answer("200 OK", "Content-Type: application/vnd.biotope+json\r\n", &body);
    assert_eq!(biotope.until_state(&id, "completed")["result"], json!({"ok": true}));
    assert_eq!(biotope.until_state("follows", "completed")["result"], json!([1]));
    // Never again.
    let id = biotope.push(&json!({"type": "w"}));
    let mut held = held.next();
    held.answer("410 Gone", "", "no such hook");
    let dead = biotope.until_state(&id, "dead");
    let told = dead.to_string();
    assert!(told.contains("127.0.0.1 answered 410 Gone: no such hook"), "{told}");
    // In a week.
    let id = biotope.push(&json!({"type": "w"}));
    let mut held = held.next();
    held.answer("429 Too Many Requests", "Retry-After: 604800\r\n", "");
    let delayed = biotope.until_state(&id, "delayed");
    let ready: jiff::Timestamp = delayed["ready_at"].as_str().unwrap_or_default().parse().unwrap_or_else(|error| {
        panic!("{error} in {delayed}");
    });
    let hours = (ready.as_second() - jiff::Timestamp::now().as_second()) / 3600;
    assert!((22..=24).contains(&hours), "bounded by a day: {hours} h");
    biotope.stop();
}

#[test]
fn a_service_completes_the_probe_before_it_gets_work() {
    let service = Service::new();
    let home = Home::new(&service.table("v1", "probe = { ask = 1 }\nconcurrency = 2"));
    let biotope = home.start();
    let mut probe = service.take();
    let id = biotope.push(&json!({"type": "w", "payload": 2}));
    assert!(probe.body.contains("{\"ask\":1}"), "{}", probe.body);
    probe.answer("503 Service Unavailable", "Connection: close\r\n", "");
    drop(probe);
    let mut again = service.take();
    assert!(again.body.contains("{\"ask\":1}"), "{}", again.body);
    assert_eq!(biotope.job(&id)["state"], "ready");
    again.answer("204 No Content", "", "");
    let mut job = again.next();
    job.answer("204 No Content", "", "");
    biotope.until_state(&id, "completed");

    home.configure(&service.table("v2", "probe = { ask = 3 }\nheaders = { A = \"b\" }"));
    biotope.signal(Signal::HUP);
    let mut probe = service.take();
    assert!(probe.body.contains("{\"ask\":3}"), "{}", probe.body);
    probe.answer("400 Bad Request", "", "");
    biotope.until_version("w", "v2", "rejected");
    biotope.until_version("w", "v1", "current");
    biotope.stop();
}
