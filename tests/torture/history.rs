//! The history of a campaign: what producers, workers and faults did, as JSON lines in the order in which it happened.
//!
//! One file on another file system than the log's. Everybody appends with `O_APPEND` and one write a line, so the order
//! of the lines is an order in which it can have happened: what is written after an answer came after it. Never judges;
//! that is [`crate::checker`]'s.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What happened. `n` numbers what producers want done: one logical job each, however often it is pushed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ev", rename_all = "lowercase")]
pub(crate) enum Event {
    /// A push is about to be sent; `named` if the caller chose an id or a key, so that a repeat is the same job.
    Push { n: u64, named: bool },
    /// It was answered with yes.
    Acked { n: u64, id: String },
    /// It was answered with a clear no.
    Refused { n: u64 },
    /// It got no answer, or one that does not say what happened.
    Unknown { n: u64 },
    /// A worker began a run. `at` is in hundredths of a second since the machine started.
    Begin { n: u64, id: String, attempt: u16, fence: u64, at: u64 },
    /// A worker is about to end its run.
    End { n: u64, id: String, fence: u64, how: How },
    /// The job was shown as completed.
    Done { id: String },
    /// A dead job got all its attempts again.
    Redriven { id: String },
    /// A dead job was given up.
    Discarded { id: String },
    /// The power is about to be cut. What is seen from here on until the process is gone, nobody would have seen.
    Cutting,
    /// The process is gone, and all its children are.
    Gone { by: Fault },
    /// The process serves again.
    Up,
    /// The job needs this version, or a later one.
    Needs { n: u64, version: u32 },
    /// The run that just began is on this version, in this process; 0: it has none of its own.
    On { n: u64, id: String, fence: u64, version: u32, pid: u32 },
    /// This version stands in a file that must not pass: nothing may run on it.
    Never { version: u32 },
    /// A worker's own process is about to be killed.
    Strike { pid: u32 },
    /// Nothing is left to do: no job lives; as many were ever counted as completed.
    Drained { completed: u64 },
}

/// How a run ended, as its worker says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum How {
    /// Well.
    Ok,
    /// Well, but the payload was not what was pushed.
    Wrong,
    /// With a failure.
    Fail,
    /// With the wish never to be run again.
    Dead,
    /// With a failure, as every run on this version does.
    Bad,
    /// Given back for a pause.
    Defer,
    /// By a signal that the run sent to itself.
    Crash,
    /// Not at all: it waits for its timeout.
    Hang,
}

/// What ended the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Fault {
    /// SIGKILL.
    Kill,
    /// SIGKILL of a worker's own process, not of biotope.
    Strike,
    /// The power.
    Cut,
    /// A failed sync.
    Disk,
    /// SIGTERM: a stop in good order, for which all runs are waited for.
    Stop,
    /// SIGTERM, and again: a stop that cuts off what runs.
    Halt,
}

/// A history that is being written. Cheap to clone, for any thread.
#[derive(Debug)]
pub(crate) struct History {
    path: PathBuf,
    file: File,
}

impl History {
    /// Begins a new history in `dir`.
    pub(crate) fn new(dir: &Path) -> Self {
        let path = dir.join("history.ndjson");
        let file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        Self { path, file }
    }

    /// The same history, to append to from another process.
    pub(crate) fn join(path: &Path) -> Self {
        let file = OpenOptions::new().append(true).open(path).unwrap();
        Self { path: path.to_path_buf(), file }
    }

    /// Its file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends one event.
    pub(crate) fn add(&self, event: &Event) {
        self.add_all(std::slice::from_ref(event));
    }

    /// Appends events, with one write.
    pub(crate) fn add_all(&self, events: &[Event]) {
        let mut text = Vec::new();
        for event in events {
            serde_json::to_writer(&mut text, event).unwrap();
            text.push(b'\n');
        }
        (&self.file).write_all(&text).unwrap();
    }

    /// All that was appended up to now.
    ///
    /// A SIGKILL can end a write where one page ends and the next begins, and the next event then follows on the same
    /// line. What is left of the torn one is no event: its process did not live to do what it was about to note.
    pub(crate) fn events(&self) -> Vec<Event> {
        let text = std::fs::read_to_string(&self.path).unwrap();
        let mut torn = 0;
        let event = |line: &str| {
            serde_json::from_str(line).unwrap_or_else(|error| {
                let whole = line.rfind("{\"ev\":").filter(|at| *at > 0).map(|at| serde_json::from_str(&line[at..]));
                torn += 1;
                whole.and_then(Result::ok).unwrap_or_else(|| panic!("{error}: {line:?}"))
            })
        };
        let events: Vec<Event> = text.lines().map(event).collect();
        let killed = events.iter().filter(|event| matches!(event, Event::Gone { .. } | Event::Strike { .. })).count();
        assert!(torn <= killed, "{torn} torn lines, and {killed} ends of a process that can have torn one");
        events
    }
}

#[test]
fn what_a_kill_left_of_a_line_is_no_event() {
    let dir = tempfile::tempdir().unwrap();
    let history = History::new(dir.path());
    let (push, gone) = (Event::Push { n: 1, named: false }, Event::Gone { by: Fault::Kill });
    let line = serde_json::to_string(&push).unwrap();
    for kept in 0..=line.len() {
        history.add(&push);
        (&history.file).write_all(&line.as_bytes()[..kept]).unwrap();
        history.add(&gone);
    }
    let expected = [push, gone].map(|event| format!("{event:?}"));
    for (at, event) in history.events().iter().enumerate() {
        assert_eq!(format!("{event:?}"), expected[at % 2]);
    }
    assert_eq!(history.events().len(), 2 * (line.len() + 1));
}

#[test]
#[should_panic(expected = "torn lines")]
fn a_line_that_is_torn_without_a_kill_is_a_fault_of_the_history() {
    let dir = tempfile::tempdir().unwrap();
    let history = History::new(dir.path());
    (&history.file).write_all(b"{\"ev\":\"push\",\"n\":34").unwrap();
    history.add(&Event::Up);
    history.events();
}
