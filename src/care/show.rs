//! A log as lines: for people, or an object each for programs.

use serde_json::{Map, Value, json};

use super::{CareError, Source};
use crate::job::event::words::{Named, Namer};
use crate::job::event::{End, Enqueued, Event};
use crate::log::StoredRecord;
use crate::log::look::{Damage, FrameSeen, LookError, RecordSeen, Seen, look};
use crate::types::Seq;

/// A place that does not hold, in words.
pub fn damage_words(damage: &Damage) -> String {
    let Damage { segment, offset, bytes, seqs, what } = damage;
    let mut line = format!("segment {segment} at offset {offset}: {what}");
    if *bytes > 0 {
        line.push_str(&format!(", {bytes} B"));
    }
    match seqs {
        Some(seqs) if seqs.end == seqs.start + 1 => line.push_str(&format!(", record {}", seqs.start)),
        Some(seqs) => line.push_str(&format!(", records {} to {}", seqs.start, seqs.end - 1)),
        None => {}
    }
    line
}

/// Why a dump ended early.
pub enum DumpError<E> {
    /// The log could not be read.
    Care(CareError),
    /// The reader of the lines does not take any more.
    Out(E),
}

impl<E> From<LookError> for DumpError<E> {
    fn from(error: LookError) -> Self {
        Self::Care(error.into())
    }
}

/// Gives a line for each record from `from` on, and for each place that does not hold.
///
/// # Errors
/// See [`DumpError`].
pub fn dump<E>(
    source: &Source,
    from: Seq,
    as_json: bool,
    out: &mut dyn FnMut(&str) -> Result<(), E>,
) -> Result<(), DumpError<E>> {
    let mut dumping = Dumping { namer: Namer::new([0; 16]), named: false, from, as_json, out };
    look(source.disk(), source.live().is_some(), &mut |seen| {
        match seen {
            Seen::Segment { header, .. } if !dumping.named => {
                dumping.namer = Namer::new(header.names_id());
                dumping.named = true;
                Ok(())
            }
            Seen::Segment { .. } => Ok(()),
            Seen::Frame(frame) => dumping.frame(&frame),
            Seen::Damage(damage) => dumping.damage(&damage),
        }
        .map_err(DumpError::Out)
    })?;
    Ok(())
}

struct Dumping<'a, E> {
    namer: Namer,
    named: bool,
    from: Seq,
    as_json: bool,
    out: &'a mut dyn FnMut(&str) -> Result<(), E>,
}

impl<E> Dumping<'_, E> {
    fn damage(&mut self, damage: &Damage) -> Result<(), E> {
        if !self.as_json {
            return (self.out)(&format!("DAMAGED {}", damage_words(damage)));
        }
        let Damage { segment, offset, bytes, seqs, what } = damage;
        let mut line = json!({"damage": what, "segment": segment, "offset": offset, "bytes": bytes});
        if let (Some(seqs), Some(members)) = (seqs, line.as_object_mut()) {
            members.insert("first_seq".to_owned(), seqs.start.into());
            members.insert("last_seq".to_owned(), (seqs.end - 1).into());
        }
        (self.out)(&line.to_string())
    }

    fn frame(&mut self, frame: &FrameSeen) -> Result<(), E> {
        for record in &frame.records {
            let RecordSeen::Whole(record) = record else { continue };
            let event = Event::decode(record.kind, record.version, &record.body);
            let named = event.as_ref().ok().map(|event| self.namer.name(record.seq, event));
            if record.seq < self.from {
                continue;
            }
            let line = match (&event, &named, self.as_json) {
                (Ok(event), Some(named), false) => line(record, &named.words(event)),
                (Ok(event), Some(named), true) => object(record, named, event).to_string(),
                (Err(bad), _, false) => line(record, &bad.to_string()),
                (Err(bad), _, true) => {
                    let mut members = place(record);
                    members.insert("unknown".to_owned(), bad.to_string().into());
                    Value::Object(members).to_string()
                }
                (Ok(_), None, _) => continue,
            };
            (self.out)(&line)?;
        }
        Ok(())
    }
}

fn line(record: &StoredRecord, words: &str) -> String {
    let place = record.position;
    let joined = if record.joined { "+" } else { " " };
    format!("{:>8}{joined} {}:{:<9} {words}", record.seq, place.segment, place.offset)
}

fn place(record: &StoredRecord) -> Map<String, Value> {
    let mut members = Map::new();
    members.insert("seq".to_owned(), record.seq.into());
    members.insert("segment".to_owned(), record.position.segment.into());
    members.insert("offset".to_owned(), record.position.offset.into());
    members.insert("bytes".to_owned(), record.position.body.into());
    members.insert("joined".to_owned(), record.joined.into());
    members
}

/// A record's members: its place, its names, everything that its body says.
fn object(record: &StoredRecord, named: &Named, event: &Event<'_>) -> Value {
    let mut members = place(record);
    members.insert("event".to_owned(), named.event.into());
    if let Some((born, id)) = &named.job {
        members.insert("born".to_owned(), (*born).into());
        members.insert("job".to_owned(), id.clone().into());
    }
    for (key, name) in [("type", &named.worker_type), ("version", &named.version)] {
        if let Some(name) = name {
            members.insert(key.to_owned(), name.clone().into());
        }
    }
    let (body, tail) = parts(event);
    if let Value::Object(body) = body {
        for (key, value) in body {
            members.entry(key).or_insert(value);
        }
    }
    if let Some((key, tail)) = tail {
        members.insert(key.to_owned(), tail);
    }
    Value::Object(members)
}

/// An event's members, and what follows them.
fn parts(event: &Event<'_>) -> (Value, Option<(&'static str, Value)>) {
    let text = |bytes: &[u8]| Value::from(String::from_utf8_lossy(bytes));
    let data = |bytes: &[u8]| serde_json::from_slice(bytes).unwrap_or_else(|_| text(bytes));
    match event {
        Event::Enqueued(meta, payload) => (enqueued(meta), Some(("payload", data(payload)))),
        Event::Reserved(meta) => (value(meta), None),
        Event::Ended(meta, []) => (with_worker(value(meta), meta.worker), None),
        Event::Ended(meta, reason) if meta.end == End::Cancelled => {
            (with_worker(value(meta), meta.worker), Some(("reason", text(reason))))
        }
        Event::Ended(meta, result) => (with_worker(value(meta), meta.worker), Some(("result", data(result)))),
        Event::Failed(meta, error) => (with_worker(value(meta), meta.worker), Some(("error", text(error)))),
        Event::Released(meta, reason) => (with_worker(value(meta), meta.worker), Some(("reason", text(reason)))),
        Event::Redriven(meta) => (value(meta), None),
        Event::Restated(meta, enqueued) => {
            let home = crate::job::event::decode_home(crate::job::event::Kind::Enqueued as u8, enqueued);
            (value(meta), home.ok().map(|(_, payload)| ("payload", data(payload))))
        }
        Event::Opened(meta) => (value(meta), None),
        Event::Stopped(meta) => (value(meta), None),
        Event::TypeNamed(meta) => (value(meta), None),
        Event::VersionAccepted(meta) => (value(meta), None),
        Event::VersionRejected(meta, reason) => (value(meta), Some(("reason", text(reason)))),
        Event::Quarantined(meta, reason) => (value(meta), Some(("reason", text(reason)))),
        Event::Generation(meta, "") => (value(meta), None),
        Event::Generation(meta, config) => (value(meta), Some(("config", Value::from(*config)))),
        Event::Settled(meta) => (value(meta), None),
        Event::Routed(meta) => (value(meta), None),
        Event::Paused(meta) => (value(meta), None),
        Event::Ramped(meta) => (value(meta), None),
        Event::Totals(meta) => (value(meta), None),
        Event::Lost(_) => (Value::Null, None),
    }
}

/// With the number of the worker that ran it, which stands in front of the rest, if it has one.
fn with_worker(mut members: Value, worker: u32) -> Value {
    if let Value::Object(members) = &mut members
        && worker > 0
    {
        members.insert("worker".to_owned(), worker.into());
    }
    members
}

/// With its least version and its trace, which stand in front of the rest.
fn enqueued(meta: &Enqueued<'_>) -> Value {
    let mut members = value(meta);
    if let (Some(min), Value::Object(members)) = (&meta.min_version, &mut members) {
        members.insert("min_version".to_owned(), value(min));
    }
    if let (Some(trace), Value::Object(members)) = (&meta.trace, &mut members) {
        members.insert("traceparent".to_owned(), Value::from(trace.to_string()));
    }
    members
}

fn value(meta: &impl serde::Serialize) -> Value {
    serde_json::to_value(meta).unwrap_or_default()
}
