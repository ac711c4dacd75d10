//! What changed, in order, as far back as a bound allows; and what is, for who comes anew. Pure.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

use crate::engine::view::{EcosystemView, GenerationView, TypeView, VersionView};
use crate::types::UnixMs;

/// Bytes of changes that are kept.
const KEPT_BYTES_MAX: usize = 1 << 20;
/// Bytes that a reader is given at once, but for the last change.
const AT_ONCE: usize = 64 << 10;

/// What changed.
#[derive(Debug, Default)]
pub(super) struct Feed {
    /// Tells one process from the next: since when it serves.
    life: UnixMs,
    /// Number of the last change.
    last: u64,
    /// What is, by part: `types` by name, then what else there is.
    parts: Parts,
    /// Changes, the newest last, each with its number.
    changes: VecDeque<(u64, String)>,
    bytes: usize,
}

/// What is, each part as JSON.
pub(super) type Parts = BTreeMap<Part, String>;

/// A part of what is told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// A worker type, by name.
    Type(String),
    /// The log's health.
    Log,
    /// The config.
    Generation,
}

/// Where a reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It knows nothing yet.
    Anew,
    /// It has had this change, and all before it.
    After(u64),
}

/// As much of a type as is told whenever it changes.
#[derive(Serialize)]
struct TypeNow<'a> {
    #[serde(rename = "type")]
    name: &'a str,
    ready: u64,
    delayed: u64,
    reserved: u64,
    parked: u64,
    dead: u64,
    enqueued: u64,
    completed: u64,
    failed: u64,
    paused: bool,
    storm: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    trial: Option<TrialNow<'a>>,
    versions: Vec<VersionNow<'a>>,
}

#[derive(Serialize)]
struct TrialNow<'a> {
    version: &'a str,
    state: &'static str,
    paused: bool,
}

#[derive(Serialize)]
struct VersionNow<'a> {
    version: &'a str,
    state: &'static str,
    percent: u8,
    pool_size: u32,
    busy: u64,
    failing: bool,
}

#[derive(Serialize)]
struct LogNow<'a> {
    full: Option<&'a str>,
    damaged: usize,
}

#[derive(Serialize)]
struct GenerationNow<'a> {
    number: u64,
    state: &'static str,
    last_error: Option<&'a str>,
}

impl Feed {
    /// Takes over what is; says whether anything of it is new. What changed since the last look is one change, however long
    /// ago that was.
    pub(super) fn look(&mut self, life: UnixMs, parts: Parts) -> bool {
        self.life = life;
        let changed = parts.iter().filter(|(part, text)| self.parts.get(part) != Some(text));
        let told = told(changed);
        let Some(told) = told.filter(|_| parts != self.parts) else { return false };
        self.parts = parts;
        self.last += 1;
        let event = self.event("change", &told);
        self.bytes += event.len();
        self.changes.push_back((self.last, event));
        while self.bytes > KEPT_BYTES_MAX
            && let Some((_, gone)) = self.changes.pop_front()
        {
            self.bytes -= gone.len();
        }
        true
    }

    fn event(&self, kind: &str, data: &str) -> String {
        format!("id: {}-{}\nevent: {kind}\ndata: {data}\n\n", self.life, self.last)
    }

    /// The place of a reader who says what it has had last; that of another process is nobody's.
    pub(super) fn place(&self, last_event_id: &str) -> Place {
        let number = |text: &str| text.parse::<u64>().ok();
        let read = last_event_id.split_once('-').and_then(|(life, of)| Some((number(life)?, number(of)?)));
        match read {
            Some((life, number)) if self.life == life && number <= self.last => Place::After(number),
            Some(_) | None => Place::Anew,
        }
    }

    /// What a reader has not had; moves it on. Some of it, where it is much: the next call goes on.
    pub(super) fn after(&self, place: &mut Place) -> String {
        if self.parts.is_empty() {
            // Nobody has looked yet.
            return String::new();
        }
        let first = self.changes.front().map_or(self.last + 1, |(number, _)| *number);
        let mut text = String::new();
        match *place {
            Place::After(number) if number + 1 >= first => {
                for (number, event) in self.changes.iter().skip_while(|(of, _)| *of <= number) {
                    text += event;
                    *place = Place::After(*number);
                    if text.len() > AT_ONCE {
                        break;
                    }
                }
            }
            Place::After(_) | Place::Anew => {
                text = self.event("ecosystem", &told(self.parts.iter()).unwrap_or_default());
                *place = Place::After(self.last);
            }
        }
        text
    }
}

/// Parts as one JSON object; `None` of none.
fn told<'a>(parts: impl Iterator<Item = (&'a Part, &'a String)>) -> Option<String> {
    let (mut types, mut others) = (Vec::new(), Vec::new());
    for (part, text) in parts {
        match part {
            Part::Type(_) => types.push(text.as_str()),
            Part::Log => others.push(format!("\"log\":{text}")),
            Part::Generation => others.push(format!("\"generation\":{text}")),
        }
    }
    let all = (!types.is_empty()).then(|| format!("\"types\":[{}]", types.join(",")));
    let members: Vec<String> = all.into_iter().chain(others).collect();
    (!members.is_empty()).then(|| format!("{{{}}}", members.join(",")))
}

/// As much of everything as is told.
pub(super) fn parts(view: &EcosystemView) -> Parts {
    let text = |value: Result<String, serde_json::Error>| value.unwrap_or_default();
    let mut parts: Parts = view
        .types
        .iter()
        .map(|of| (Part::Type(of.worker_type.to_string()), text(serde_json::to_string(&type_now(of)))))
        .collect();
    let log = LogNow { full: view.log.full.as_deref(), damaged: view.log.damaged.len() };
    parts.insert(Part::Log, text(serde_json::to_string(&log)));
    let GenerationView { number, state, last_error, .. } = &view.generation;
    let generation = GenerationNow { number: *number, state, last_error: last_error.as_deref() };
    parts.insert(Part::Generation, text(serde_json::to_string(&generation)));
    parts
}

fn type_now(of: &TypeView) -> TypeNow<'_> {
    TypeNow {
        name: of.worker_type.as_str(),
        ready: of.ready,
        delayed: of.delayed,
        reserved: of.reserved,
        parked: of.parked,
        dead: of.dead,
        enqueued: of.enqueued,
        completed: of.completed,
        failed: of.failed,
        paused: of.paused,
        storm: of.storm,
        trial: of.trial.as_ref().map(|trial| TrialNow {
            version: &trial.version,
            state: trial.state,
            paused: trial.paused,
        }),
        versions: of.versions.iter().map(version_now).collect(),
    }
}

fn version_now(of: &VersionView) -> VersionNow<'_> {
    VersionNow {
        version: &of.version,
        state: of.state,
        percent: of.percent,
        pool_size: of.pool_size,
        busy: of.busy,
        failing: of.failing.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAD: usize = 4000;

    /// An ecosystem of types `a` and `b`, so many jobs of which are ready.
    fn look(feed: &mut Feed, a: u64, b: u64) -> bool {
        // As long as a type with many versions.
        let pad = "x".repeat(PAD);
        let of_type = |name: &str, ready| {
            let text = format!("{{\"type\":\"{name}\",\"ready\":{ready},\"pad\":\"{pad}\"}}");
            (Part::Type(name.to_owned()), text)
        };
        let others = [(Part::Log, "{\"full\":null}"), (Part::Generation, "{\"number\":1}")];
        let others = others.map(|(part, text)| (part, text.to_owned()));
        feed.look(17, [of_type("a", a), of_type("b", b)].into_iter().chain(others).collect())
    }

    /// Ids and data of events.
    fn events(text: &str) -> Vec<(String, String, serde_json::Value)> {
        let part =
            |lines: &mut std::str::Lines<'_>, name: &str| lines.next().unwrap().strip_prefix(name).unwrap().to_owned();
        let event = |text: &str| {
            let mut lines = text.lines();
            let (id, kind) = (part(&mut lines, "id: "), part(&mut lines, "event: "));
            (id, kind, serde_json::from_str(&part(&mut lines, "data: ")).unwrap())
        };
        text.split_terminator("\n\n").map(event).collect()
    }

    #[test]
    fn a_reader_is_told_everything_once_and_then_what_changes() {
        let mut feed = Feed::default();
        let mut place = feed.place("");
        assert_eq!(feed.after(&mut place), "");
        assert!(look(&mut feed, 1, 1));
        let told = events(&feed.after(&mut place));
        let [(id, kind, all)] = &told[..] else { panic!("{told:?}") };
        assert_eq!((kind.as_str(), all["types"].as_array().unwrap().len()), ("ecosystem", 2));
        assert_eq!((&all["types"][0]["ready"], &all["generation"]["number"]), (&1.into(), &1.into()));
        assert!(all["log"]["full"].is_null());
        assert!(!look(&mut feed, 1, 1) && feed.after(&mut place).is_empty(), "what stays as it is is not told");
        assert!(look(&mut feed, 1, 2));
        assert!(look(&mut feed, 3, 2));
        let told = events(&feed.after(&mut place));
        assert_eq!(told.len(), 2);
        assert!(told.iter().all(|(_, kind, _)| kind == "change"));
        assert_eq!((&told[0].2["types"][0]["type"], &told[0].2["types"][0]["ready"]), (&"b".into(), &2.into()));
        assert_eq!(told[1].2["types"].as_array().unwrap().len(), 1);
        assert!(told[1].2.get("log").is_none(), "{told:?}");
        assert!(feed.after(&mut place).is_empty());

        // Who comes back goes on where it was; who was with another process begins anew.
        let mut back = feed.place(id);
        assert_eq!(events(&feed.after(&mut back)), told);
        assert_eq!(feed.place(&told[1].0), place);
        for unknown in ["", "x", "1-2-3", "999-1", &format!("{}-99", feed.life)] {
            assert_eq!(feed.place(unknown), Place::Anew, "{unknown}");
        }
    }

    #[test]
    fn what_is_kept_is_bounded_and_a_slow_reader_is_told_what_is() {
        let mut feed = Feed::default();
        assert!(look(&mut feed, 0, 0));
        let (mut slow, mut follows) = (Place::Anew, Place::Anew);
        feed.after(&mut slow);
        feed.after(&mut follows);
        let mut seen = 0;
        for number in 1..=(2 * KEPT_BYTES_MAX / PAD) as u64 {
            assert!(look(&mut feed, number, 0));
            seen += events(&feed.after(&mut follows)).len() as u64;
            assert_eq!(seen, number, "who keeps up misses nothing");
        }
        assert!(feed.bytes <= KEPT_BYTES_MAX && feed.changes.len() > 100, "{} changes", feed.changes.len());
        let kept: usize = feed.changes.iter().map(|(_, event)| event.len()).sum();
        assert_eq!(kept, feed.bytes);
        let told = events(&feed.after(&mut slow));
        assert_eq!((told.len(), told[0].1.as_str(), &told[0].2["types"][0]["ready"]), (1, "ecosystem", &seen.into()));
        assert_eq!(slow, follows);
        // What is still kept comes in pieces, and whole.
        let first = feed.changes.front().unwrap().0;
        let (mut place, mut count) = (Place::After(first - 1), 0);
        loop {
            let text = feed.after(&mut place);
            if text.is_empty() {
                break;
            }
            assert!(text.len() < 2 * AT_ONCE);
            count += events(&text).len();
        }
        assert_eq!(count, feed.changes.len());
    }
}
