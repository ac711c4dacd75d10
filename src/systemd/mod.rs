//! systemd, where it started this process: what it is told, and the sockets that it hands over.
//!
//! Owns the datagrams and their order ([`Reporter`]), and the words in them. Decides nothing: the engine and the disk are
//! asked, never waited for. Where no `NOTIFY_SOCKET` is set, nothing is sent and no thread is started. What systemd set in the
//! environment is for this process alone ([`crate::takeover`] sees to what another image of the program gets of it).
//!
//! ```text
//! start     STATUS, EXTEND_TIMEOUT_USEC (again and again while a long log opens)   READY=1, STATUS
//! reload    RELOADING=1, MONOTONIC_USEC, STATUS      READY=1, STATUS: once the config was accepted, or refused
//! USR2      RELOADING=1, MONOTONIC_USEC, STATUS, EXTEND_TIMEOUT_USEC               READY=1, STATUS: of the new image
//! serving   WATCHDOG=1 by the engine's own loop      STATUS, where it has changed
//! stop      STOPPING=1, STATUS, EXTEND_TIMEOUT_USEC (again and again as long as the engine says what still runs)
//! ```
//!
//! The process keeps its number whatever takes its place in it, so `MAINPID` is never sent.

mod reporter;
mod sockets;
mod words;

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

pub(crate) use reporter::Reporter;
pub(crate) use sockets::Sockets;

use crate::clock::{Clock, RealClock, monotonic_us};

/// How much more time is asked for at once, while an opening or a drain goes on.
const MORE_TIME: Duration = Duration::from_secs(60);
/// And how often.
const MORE_EVERY: Duration = Duration::from_secs(5);
/// A datagram that finds no room at its reader's is waited for so long, where it must not be lost.
const SEND_WITHIN: Duration = Duration::from_secs(5);
/// Longest status, in bytes: a datagram must fit.
const STATUS_BYTES_MAX: usize = 500;

/// Who started this process and wants to know how it does, if anybody does. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Supervisor(Option<Arc<Line>>);

struct Line {
    /// Waits for room.
    patient: UnixDatagram,
    /// Does not.
    quick: UnixDatagram,
    to: SocketAddr,
    /// How long the process may be silent.
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// As the environment says.
    pub(crate) fn of_environment() -> Self {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return Self(None) };
        let text = |name: &str| std::env::var(name).ok();
        match Line::to(&name, watchdog(text("WATCHDOG_USEC"), text("WATCHDOG_PID"))) {
            Ok(line) => Self(Some(Arc::new(line))),
            Err(error) => {
                tracing::warn!("cannot tell the service manager anything: NOTIFY_SOCKET={}: {error}", name.display());
                Self(None)
            }
        }
    }

    /// How long the process may be silent, if somebody ends it then.
    fn watchdog(&self) -> Option<Duration> {
        self.0.as_ref()?.watchdog
    }

    /// The log is being opened: asks for time.
    pub(crate) fn opening(&self, what: &str) {
        self.send(&format!("{}\n{}", status(what), more_time(MORE_TIME)));
    }

    /// Asks for time again while the log is being opened, whenever that is due.
    pub(crate) fn progress(&self) -> Box<dyn FnMut(u64) + Send> {
        if self.0.is_none() {
            return Box::new(|_| ());
        }
        let (own, mut due) = (self.clone(), Due::every(MORE_EVERY, RealClock.mono()));
        Box::new(move |read| {
            if due.is_due(RealClock.mono()) {
                own.opening(&format!("opening the log: {read} records read"));
            }
        })
    }

    /// Another image of the program takes this one's place, in this much time.
    pub(crate) fn hands_over(&self, within: Duration) {
        let status = status("a new binary takes over");
        self.send(&format!("{}\n{status}\n{}", reloading(), more_time(within.saturating_add(MORE_TIME))));
    }

    /// The process ends, for this reason.
    pub(crate) fn ends(&self, why: &str) {
        self.send(&format!("STOPPING=1\n{}", status(why)));
    }

    /// It has stopped in good order, or says the like with its last words.
    pub(crate) fn says(&self, what: &str) {
        self.send(&status(what));
    }

    /// Sends a datagram; waits a moment where there is no room for it.
    fn send(&self, datagram: &str) {
        let Some(line) = &self.0 else { return };
        if let Err(error) = line.patient.send_to_addr(datagram.as_bytes(), &line.to) {
            tracing::warn!("cannot tell the service manager anything: {error}");
        }
    }

    /// Says that the engine makes progress. Does not wait: one of these may be lost.
    fn beat(&self) {
        let Some(line) = &self.0 else { return };
        let _: std::io::Result<usize> = line.quick.send_to_addr(b"WATCHDOG=1", &line.to);
    }
}

impl Line {
    /// A line to a socket: a path, or after an `@` a name of no file.
    fn to(name: &OsStr, watchdog: Option<Duration>) -> std::io::Result<Self> {
        let bytes = name.as_bytes();
        let to = match bytes.strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None if bytes.starts_with(b"/") => SocketAddr::from_pathname(name)?,
            None => return Err(std::io::Error::other("neither a path nor an abstract name")),
        };
        let (patient, quick) = (UnixDatagram::unbound()?, UnixDatagram::unbound()?);
        patient.set_write_timeout(Some(SEND_WITHIN))?;
        quick.set_nonblocking(true)?;
        Ok(Self { patient, quick, to, watchdog })
    }
}

/// How long the process with this number may be silent.
fn watchdog(usec: Option<String>, pid: Option<String>) -> Option<Duration> {
    let is_ours = pid.is_none_or(|pid| pid.parse() == Ok(std::process::id()));
    let usec: u64 = usec?.parse().ok()?;
    (is_ours && usec > 0).then(|| Duration::from_micros(usec))
}

/// The beginning of a reload, now.
fn reloading() -> String {
    format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_us())
}

fn more_time(more: Duration) -> String {
    format!("EXTEND_TIMEOUT_USEC={}", more.as_micros())
}

/// How it stands, in words: on one line, since the next one would say something else.
fn status(words: &str) -> String {
    let mut line: String = words.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    if line.len() > STATUS_BYTES_MAX {
        line.truncate(line.floor_char_boundary(STATUS_BYTES_MAX - '…'.len_utf8()));
        line.push('…');
    }
    format!("STATUS={line}")
}

/// Something that is done every so often, and at once.
struct Due {
    every: Duration,
    next: Duration,
}

impl Due {
    /// For the first time `every` from now on.
    fn every(every: Duration, now: Duration) -> Self {
        Self { every, next: now + every }
    }

    /// Whether it is time; then the next time is later.
    fn is_due(&mut self, now: Duration) -> bool {
        let due = self.next <= now;
        if due {
            self.next = now + self.every;
        }
        due
    }

    /// How long not.
    fn left(&self, now: Duration) -> Duration {
        self.next.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_one_line_of_a_bounded_length() {
        assert_eq!(status("a\nREADY=1\tb\u{7f}"), "STATUS=a READY=1 b ");
        let long = status(&"ä".repeat(STATUS_BYTES_MAX));
        assert!(long.len() <= STATUS_BYTES_MAX + "STATUS=".len() && long.ends_with("ä…"), "{long}");
    }

    #[test]
    fn a_watchdog_is_meant_for_the_process_that_it_names() {
        let own = std::process::id();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(watchdog(some("30000000"), None), Some(Duration::from_secs(30)));
        assert_eq!(watchdog(some("1500"), some(&own.to_string())), Some(Duration::from_micros(1500)));
        assert_eq!(watchdog(some("30000000"), some(&(own + 1).to_string())), None);
        for none in [None, some("0"), some("soon"), some("-1")] {
            assert_eq!(watchdog(none, None), None);
        }
    }

    #[test]
    fn time_is_asked_for_every_so_often_and_not_with_each_record() {
        let at = Duration::from_secs;
        let mut due = Due::every(at(5), at(100));
        let asked = (100..120).filter(|now| due.is_due(at(*now))).collect::<Vec<_>>();
        assert_eq!(asked, [105, 110, 115]);
        assert_eq!((due.left(at(118)), due.left(at(130))), (at(2), at(0)));
    }

    #[test]
    fn what_is_no_address_is_told_from_one() {
        for (name, is_one) in [("/run/notify", true), ("@biotope", true), ("vsock:2:1234", false), ("notify", false)] {
            assert_eq!(Line::to(OsStr::new(name), None).is_ok(), is_one, "{name}");
        }
    }
}
