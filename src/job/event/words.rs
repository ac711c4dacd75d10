//! Events in words, for people who look into a log: with ids and names instead of numbers.
//!
//! Pure. Follows a log from its head on, record by record, since a name stands in one record and is used in others.

use std::collections::HashMap;

use super::{After, Event, Kind, Names, Quarantined, Ramped, Release, VersionRejected};
use crate::job::ids::IdMaker;
use crate::job::transition::End;
use crate::log::LogId;
use crate::types::{Seq, UnixMs};

/// Knows the names of what was seen of a log up to now. Holds those of live jobs only.
#[derive(Debug)]
pub struct Namer {
    ids: IdMaker,
    types: HashMap<u32, String>,
    versions: HashMap<u32, String>,
    jobs: HashMap<Seq, Known>,
}

/// A job that lives.
#[derive(Debug)]
struct Known {
    id: String,
    type_no: u32,
}

/// An event with its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// What happened, as one word.
    pub event: &'static str,
    /// The job's born seq and id; the id is not known where the job's first records have left the log.
    pub job: Option<(Seq, Option<String>)>,
    /// Its type's name.
    pub worker_type: Option<String>,
    /// The version's label.
    pub version: Option<String>,
}

impl Kind {
    /// The kind as one word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Enqueued => "enqueued",
            Self::Reserved => "reserved",
            Self::Ended => "ended",
            Self::Failed => "failed",
            Self::Released => "released",
            Self::Redriven => "redriven",
            Self::Restated => "restated",
            Self::Opened => "opened",
            Self::Stopped => "stopped",
            Self::TypeNamed => "type_named",
            Self::VersionAccepted => "version_accepted",
            Self::VersionRejected => "version_rejected",
            Self::Generation => "generation",
            Self::Routed => "routed",
            Self::Totals => "totals",
            Self::Lost => "lost",
            Self::Paused => "paused",
            Self::Quarantined => "quarantined",
            Self::Ramped => "ramped",
            Self::Settled => "settled",
        }
    }
}

/// A finished job's state, as everywhere.
fn end_word(end: End) -> &'static str {
    match end {
        End::Completed => "completed",
        End::Cancelled => "cancelled",
        End::Expired => "expired",
        End::Discarded => "discarded",
    }
}

/// A moment: RFC 3339, UTC, milliseconds.
fn moment(at: UnixMs) -> String {
    let at = i64::try_from(at).ok().and_then(|at| jiff::Timestamp::from_millisecond(at).ok());
    at.map_or_else(|| "?".to_owned(), |at| format!("{at:.3}"))
}

impl Namer {
    /// A namer of the log whose ids are made by this id.
    pub fn new(names_id: LogId) -> Self {
        let ids = IdMaker::new(names_id);
        Self { ids, types: HashMap::new(), versions: HashMap::new(), jobs: HashMap::new() }
    }

    fn id(&self, born: Seq, created_ms: UnixMs, names: Option<&Names<'_>>) -> String {
        let chosen = names.and_then(|names| names.id);
        chosen.map_or_else(|| self.ids.make(born, created_ms), str::to_owned)
    }

    /// The id of a live job.
    pub fn known_id(&self, born: Seq) -> Option<&str> {
        self.jobs.get(&born).map(|known| known.id.as_str())
    }

    /// Takes the next event and names it.
    pub fn name(&mut self, seq: Seq, event: &Event<'_>) -> Named {
        let mut named = Named { event: event.kind().word(), job: None, worker_type: None, version: None };
        match event {
            Event::Enqueued(meta, _) => {
                let id = self.id(seq, meta.created_ms, meta.names.as_ref());
                self.jobs.insert(seq, Known { id, type_no: meta.type_no });
                self.of_job(&mut named, seq, 0);
            }
            Event::Restated(meta, enqueued) => {
                if let Ok((first, _)) = super::decode_home(Kind::Enqueued as u8, enqueued) {
                    let id = self.id(meta.born, first.created_ms, first.names.as_ref());
                    self.jobs.insert(meta.born, Known { id, type_no: first.type_no });
                }
                self.of_job(&mut named, meta.born, meta.version_no);
            }
            Event::Reserved(meta) => self.of_job(&mut named, meta.born, meta.version_no),
            Event::Ended(meta, _) => {
                let id = self.id(meta.born, meta.created_ms, meta.names.as_ref());
                self.jobs.insert(meta.born, Known { id, type_no: meta.type_no });
                self.of_job(&mut named, meta.born, meta.version_no);
                self.jobs.remove(&meta.born);
            }
            Event::Failed(meta, _) => {
                self.of_job(&mut named, meta.born, meta.version_no);
                named.worker_type = self.types.get(&meta.type_no).cloned();
            }
            Event::Released(meta, _) => self.of_job(&mut named, meta.born, 0),
            Event::Redriven(meta) => self.of_job(&mut named, meta.born, 0),
            Event::TypeNamed(meta) => {
                self.types.insert(meta.no, meta.name.to_owned());
                named.worker_type = Some(meta.name.to_owned());
            }
            Event::VersionAccepted(meta) => {
                self.versions.insert(meta.no, meta.label.to_owned());
                named.worker_type = self.types.get(&meta.type_no).cloned();
                named.version = Some(meta.label.to_owned());
            }
            Event::VersionRejected(VersionRejected { no, .. }, _) | Event::Quarantined(Quarantined { no, .. }, _) => {
                named.version = self.versions.get(no).cloned();
            }
            Event::Routed(meta) => {
                named.worker_type = self.types.get(&meta.type_no).cloned();
                named.version = self.versions.get(&meta.version_no).cloned();
            }
            Event::Ramped(meta) => {
                named.worker_type = self.types.get(&meta.type_no).cloned();
                named.version = self.versions.get(&meta.version_no).cloned();
            }
            Event::Totals(meta) => named.worker_type = self.types.get(&meta.type_no).cloned(),
            Event::Paused(meta) => named.worker_type = self.types.get(&meta.type_no).cloned(),
            Event::Opened(_) | Event::Stopped(_) | Event::Generation(..) | Event::Settled(_) | Event::Lost(_) => {}
        }
        named
    }

    fn of_job(&self, named: &mut Named, born: Seq, version_no: u32) {
        let known = self.jobs.get(&born);
        named.job = Some((born, known.map(|known| known.id.clone())));
        named.worker_type = known.and_then(|known| self.types.get(&known.type_no)).cloned();
        named.version = self.versions.get(&version_no).cloned();
    }
}

impl Named {
    /// The job as people call it.
    fn who(&self) -> String {
        match &self.job {
            Some((_, Some(id))) => format!("job {id}"),
            Some((born, None)) => format!("the job of record {born}"),
            None => String::new(),
        }
    }

    /// The event as a line.
    pub fn words(&self, event: &Event<'_>) -> String {
        let who = self.who();
        let of_type = self.worker_type.as_deref().unwrap_or("?");
        let version = self.version.as_deref().unwrap_or("?");
        match event {
            Event::Enqueued(meta, payload) => {
                let task = if meta.task.is_empty() { String::new() } else { format!(" task {:?}", meta.task) };
                let later = if meta.ready_ms > meta.created_ms {
                    format!(", not before {}", moment(meta.ready_ms))
                } else {
                    String::new()
                };
                let bytes = payload.len();
                let (at, priority) = (moment(meta.created_ms), meta.priority.get());
                let needs = meta.min_version.map_or_else(String::new, |min| format!(", from version {} on", min.label));
                format!("{at} {who} enqueued for {of_type}{task}, priority {priority}, payload {bytes} B{later}{needs}")
            }
            Event::Reserved(meta) => {
                format!("{} {who} reserved by {of_type} {version}, fence {}", moment(meta.at), meta.fence.as_number())
            }
            Event::Ended(meta, said) => {
                let (at, end, said) = (moment(meta.at), end_word(meta.end), ended(meta.end, said));
                format!("{at} {who} {end}{} after {} failed attempts, {said}", on_worker(meta.worker), meta.attempts)
            }
            Event::Failed(meta, error) => {
                let (at, after) = (moment(meta.at), after(meta.after));
                format!("{at} {who} failed{}, {after}: {:?}", on_worker(meta.worker), String::from_utf8_lossy(error))
            }
            Event::Released(meta, reason) => {
                let why = match meta.release {
                    Release::Interrupt => "by a drain or a stop".to_owned(),
                    Release::Deferral { ready_ms } => format!("until {}", moment(ready_ms)),
                    Release::NotStarted => "since no worker started".to_owned(),
                    Release::HostDeath { .. } => "since what ran it ended".to_owned(),
                };
                let (at, by) = (moment(meta.at), on_worker(meta.worker));
                format!("{at} {who} given back{by} {why} {:?}", String::from_utf8_lossy(reason))
            }
            Event::Redriven(meta) => format!("{} {who} redriven", moment(meta.at)),
            Event::Restated(meta, enqueued) => {
                format!("{who} restated: {:?}, {} failed attempts, {} B", meta.state, meta.attempts, enqueued.len())
            }
            Event::Opened(meta) => format!("{} opened, epoch {}", moment(meta.at), meta.epoch),
            Event::Stopped(meta) => format!("{} stopped in good order", moment(meta.at)),
            Event::TypeNamed(meta) => format!("type {} is {}", meta.no, meta.name),
            Event::VersionAccepted(meta) => {
                format!("{} {of_type} {version} accepted as version {}", moment(meta.at), meta.no)
            }
            Event::VersionRejected(meta, why) => {
                format!("{} {version} rejected: {:?}", moment(meta.at), String::from_utf8_lossy(why))
            }
            Event::Generation(meta, config) => {
                format!("{} generation {}, config {} B", moment(meta.at), meta.number, config.len())
            }
            Event::Settled(meta) => format!("{} generation {} settled: {}", moment(meta.at), meta.number, meta.verdict),
            Event::Routed(meta) if meta.version_no == 0 => {
                format!("{} {of_type} goes to none, and is parked", moment(meta.at))
            }
            Event::Routed(meta) => format!("{} {of_type} goes to {version}", moment(meta.at)),
            Event::Totals(meta) => format!(
                "{of_type} so far: {} enqueued, {} completed, {} failed attempts, {} cancelled, {} expired, {} discarded",
                meta.enqueued, meta.completed, meta.failed, meta.cancelled, meta.expired, meta.discarded
            ),
            Event::Paused(meta) if meta.since == 0 => format!("{} {of_type} is resumed", moment(meta.at)),
            Event::Paused(meta) => format!("{} {of_type} is paused since {}", moment(meta.at), moment(meta.since)),
            Event::Quarantined(meta, why) => {
                format!("{} {version} quarantined: {:?}", moment(meta.at), String::from_utf8_lossy(why))
            }
            Event::Ramped(meta) => ramped(meta, of_type, version),
            Event::Lost(body) => format!("a record that was lost, {} B", body.len()),
        }
    }
}

/// The worker that ran it, where it has a number.
fn on_worker(number: u32) -> String {
    if number == 0 { String::new() } else { format!(" on worker {number}") }
}

fn after(after: After) -> String {
    match after {
        After::Retry { ready_ms } => format!("again from {} on", moment(ready_ms)),
        After::Dead => "dead".to_owned(),
        After::Again { ready_ms: 0 } => "which cost no attempt, again at once".to_owned(),
        After::Again { ready_ms } => format!("which cost no attempt, again from {} on", moment(ready_ms)),
    }
}

fn ramped(meta: &Ramped, of_type: &str, version: &str) -> String {
    let at = moment(meta.at);
    match (meta.version_no, meta.percent) {
        (0, _) => format!("{at} {of_type} has no version on trial any more"),
        (_, 100) => format!("{at} {of_type} {version} is on probation"),
        (_, percent) => {
            format!(
                "{at} {of_type} {version} gets {percent} % of first attempts{}",
                if meta.paused { ", paused" } else { "" }
            )
        }
    }
}

/// What follows the record of an end: a result, or why a worker cancelled its job.
fn ended(end: End, said: &[u8]) -> String {
    match end {
        End::Cancelled if !said.is_empty() => format!("{:?}", String::from_utf8_lossy(said)),
        End::Completed | End::Cancelled | End::Expired | End::Discarded => format!("result {} B", said.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::event::{Ended, Enqueued, Home, TypeNamed};
    use crate::types::Priority;

    #[test]
    fn a_job_is_called_by_its_id_for_as_long_as_it_lives() {
        let mut namer = Namer::new([1; 16]);
        namer.name(1, &Event::TypeNamed(TypeNamed { no: 1, name: "press" }));
        let names = Some(Names { id: Some("mine"), key: None, digest: 0 });
        let meta = Enqueued {
            type_no: 1,
            task: "",
            priority: Priority::default(),
            tenant: None,
            created_ms: 1000,
            ready_ms: 0,
            expires_ms: 0,
            max_attempts: 4,
            names: names.clone(),
            parent: None,
            min_version: None,
            trace: None,
        };
        let event = Event::Enqueued(meta, b"null");
        let named = namer.name(7, &event);
        assert_eq!(
            named.words(&event),
            "1970-01-01T00:00:01.000Z job mine enqueued for press, priority 5, payload 4 B"
        );
        assert_eq!(namer.known_id(7), Some("mine"));
        let ended = Ended {
            born: 7,
            end: End::Completed,
            at: 2000,
            type_no: 1,
            version_no: 0,
            attempts: 1,
            given_back: super::super::GivenBack::default(),
            created_ms: 1000,
            home: Home::default(),
            names,
            worker: 3,
        };
        let event = Event::Ended(ended, b"");
        let said = namer.name(9, &event).words(&event);
        assert_eq!(said, "1970-01-01T00:00:02.000Z job mine completed on worker 3 after 1 failed attempts, result 0 B");
        assert_eq!(namer.known_id(7), None);
    }
}
