//! `/v1/events`: everything first, then what changes; a reader who comes back goes on where it was; a stop ends it.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::support::wait::until;
use crate::support::{Home, LATER, SOON};

/// One who reads events.
pub(crate) struct Reader(BufReader<TcpStream>);

/// One of them: id, kind, data.
pub(crate) type Event = (String, String, Value);

impl Reader {
    /// Begins to read, with this `Last-Event-ID` if there is one.
    pub(crate) fn new(home: &Home, last: Option<&str>) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", home.port)).unwrap();
        stream.set_read_timeout(Some(LATER)).unwrap();
        let last = last.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        stream.write_all(format!("GET /v1/events HTTP/1.1\r\nHost: localhost\r\n{last}\r\n").as_bytes()).unwrap();
        let mut reader = Self(BufReader::new(stream));
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.0.read_line(&mut head).unwrap() > 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("content-type: text/event-stream\r\n"), "{head}");
        reader
    }

    /// The next line; `None` at the end. The sizes of chunks are lines of their own, and are passed over by who looks for
    /// names.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        (self.0.read_line(&mut line).unwrap() > 0).then(|| line.trim_end().to_owned())
    }

    fn named(&mut self, name: &str) -> Option<String> {
        loop {
            if let Some(value) = self.line()?.strip_prefix(name) {
                return Some(value.to_owned());
            }
        }
    }

    fn next(&mut self) -> Option<Event> {
        let (id, kind) = (self.named("id: ")?, self.named("event: ")?);
        Some((id, kind, serde_json::from_str(&self.named("data: ")?).unwrap()))
    }

    /// Reads until an event is what it shall be.
    pub(crate) fn until(&mut self, is: impl Fn(&Value) -> bool) -> Event {
        loop {
            let event = self.next().expect("it goes on");
            if is(&event.2) {
                return event;
            }
        }
    }
}

pub(crate) fn of<'a>(data: &'a Value, name: &str) -> &'a Value {
    let types = data["types"].as_array().map(Vec::as_slice).unwrap_or_default();
    types.iter().find(|of_type| of_type["type"] == name).unwrap_or(&Value::Null)
}

#[test]
fn readers_are_told_what_changes_and_go_on_where_they_were() {
    let table = |version: &str| {
        format!(
            "[workers.a]\nversion = \"{version}\"\nexec = [\"true\"]\n[workers.b]\nversion = \"v1\"\nexec = [\"true\"]\n"
        )
    };
    let home = Home::new(&table("v1"));
    let biotope = home.start();
    // What a start changes is over.
    until("both versions up", SOON, || {
        let all = biotope.get("/v1/ecosystem").json();
        let up = ["a", "b"].iter().all(|name| of(&all, name)["versions"][0]["state"] == "current");
        if up && all["generation"]["state"] == "ok" { Ok(()) } else { Err(all.to_string()) }
    });
    let mut reader = Reader::new(&home, None);
    let (_, kind, all) = reader.next().unwrap();
    assert_eq!((kind.as_str(), all["types"].as_array().unwrap().len()), ("ecosystem", 2));
    assert_eq!((&all["generation"]["number"], &of(&all, "a")["versions"][0]["version"]), (&json!(1), &json!("v1")));

    biotope.push(&json!({"type": "a"}));
    let (id, kind, change) = reader.until(|data| of(data, "a")["completed"] == 1);
    assert_eq!(kind, "change");
    assert!(of(&change, "b").is_null() && change.get("log").is_none(), "only what changed: {change}");
    drop(reader);

    // What happens while nobody reads is told to who comes back.
    biotope.push(&json!({"type": "b"}));
    biotope.until_count("b", "completed", 1);
    let mut back = Reader::new(&home, Some(&id));
    let (_, kind, missed) = back.until(|data| of(data, "b")["completed"] == 1);
    assert!(kind == "change" && of(&missed, "a").is_null(), "{kind} {missed}");
    // One who had that of another process begins anew.
    assert_eq!(Reader::new(&home, Some("1-1")).next().unwrap().1, "ecosystem");

    home.configure(&table("v2"));
    assert_eq!(home.cli(&["reload", "--wait"]).status.code(), Some(0));
    let two = |data: &Value| data["generation"]["number"] == 2;
    back.until(two);
    // Pages of other sites are not told, and neither do readers keep biotope from stopping.
    biotope.stop();
    while back.next().is_some() {}
}

#[test]
fn readers_are_few() {
    let home = Home::new("[workers.a]\nversion = \"v1\"\nexec = [\"true\"]\n");
    let biotope = home.start();
    let mut readers: Vec<Reader> = (0..64).map(|_| Reader::new(&home, None)).collect();
    let refused = biotope.get("/v1/events");
    assert_eq!((refused.status, &refused.json()["code"]), (429, &json!("busy")), "{refused:?}");
    assert_eq!(refused.header("retry-after"), Some("1"));
    for reader in &mut readers {
        assert_eq!(reader.next().unwrap().1, "ecosystem");
    }
    drop(readers);
    until("room", LATER, || {
        let mut stream = TcpStream::connect(("127.0.0.1", home.port)).unwrap();
        stream.set_read_timeout(Some(LATER)).unwrap();
        stream.write_all(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        if line.contains(" 200 ") { Ok(()) } else { Err(line) }
    });
    biotope.stop();
}

/// The first of readers looks for all of them: one that left while it did so once left nobody who looks.
#[test]
fn the_first_reader_may_leave_at_once() {
    let home = Home::new("[workers.a]\nversion = \"v1\"\nexec = [\"true\"]\n");
    let biotope = home.start();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(("127.0.0.1", home.port)).unwrap();
        stream.write_all(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    }
    let mut reader = Reader::new(&home, None);
    biotope.push(&json!({"type": "a"}));
    reader.until(|event| event["types"][0]["completed"] == 1);
    biotope.stop();
}
