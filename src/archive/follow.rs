//! From records of the log to changes of the index.
//!
//! Taking a record in twice changes nothing: after a crash everything above the watermark comes again.

use std::collections::HashMap;

use super::entry::{Entry, Note, place};
use super::plain;
use super::slice::{Changes, Slice, Trouble};
use crate::job::event::{Ended, Event, Kind, Restated, decode_home};
use crate::log::nearby::NearbyReader;
use crate::log::{Position, StoredRecord};
use crate::types::Seq;

/// Changes that are gathered, over a slice that does not have them yet.
pub(super) struct Gathering<'a> {
    slice: &'a Slice,
    homes: &'a mut NearbyReader,
    notes: HashMap<Seq, Option<Note>>,
    ended: Vec<(Seq, Entry)>,
}

impl<'a> Gathering<'a> {
    pub(super) fn new(slice: &'a Slice, homes: &'a mut NearbyReader) -> Self {
        Self { slice, homes, notes: HashMap::new(), ended: Vec::new() }
    }

    /// Notes what a record says. One that this program does not understand is none of the index's business.
    pub(super) fn record(&mut self, record: &StoredRecord) -> Result<(), Trouble> {
        const WANTED: [Kind; 3] = [Kind::Ended, Kind::Failed, Kind::Restated];
        if !WANTED.iter().any(|kind| *kind as u8 == record.kind) {
            return Ok(());
        }
        let Ok(event) = Event::decode(record.kind, record.version, &record.body) else { return Ok(()) };
        match event {
            Event::Ended(ended, _) => self.ended(record.seq, record.position, &ended),
            Event::Failed(failed, error) => {
                let mut note = self.note(failed.born)?.unwrap_or_default();
                note.add(place(record), plain(&String::from_utf8_lossy(error)));
                self.notes.insert(failed.born, Some(note));
                Ok(())
            }
            Event::Restated(restated, _) => {
                self.restated(record, &restated);
                Ok(())
            }
            Event::Enqueued(..)
            | Event::Reserved(_)
            | Event::Released(..)
            | Event::Redriven(_)
            | Event::Opened(_)
            | Event::Stopped(_)
            | Event::TypeNamed(_)
            | Event::VersionAccepted(_)
            | Event::VersionRejected(..)
            | Event::Generation(..)
            | Event::Settled(_)
            | Event::Routed(_)
            | Event::Paused(_)
            | Event::Quarantined(..)
            | Event::Ramped(_)
            | Event::Totals(_)
            | Event::Lost(_) => Ok(()),
        }
    }

    fn note(&self, born: Seq) -> Result<Option<Note>, Trouble> {
        self.notes.get(&born).map_or_else(|| self.slice.note(born), |note| Ok(note.clone()))
    }

    /// A job's whole state stands here: what was noted before is not needed any more.
    fn restated(&mut self, record: &StoredRecord, restated: &Restated) {
        let note = restated.failures.last().map(|last| {
            let mut note = Note::default();
            note.add(place(record), plain(&last.error));
            note
        });
        self.notes.insert(restated.born, note);
    }

    fn ended(&mut self, seq: Seq, position: Position, ended: &Ended<'_>) -> Result<(), Trouble> {
        let mut note = self.note(ended.born)?;
        if note.is_some() {
            self.notes.insert(ended.born, None);
        } else if ended.attempts > 0 {
            // It may be here a second time, and its note gone since the first.
            note = self.slice.entry(seq)?.and_then(|entry| entry.note);
        }
        let tenant = self.tenant(ended);
        self.ended.push((
            seq,
            Entry {
                born: ended.born,
                end: ended.end,
                at: ended.at,
                type_no: ended.type_no,
                segment: position.segment,
                offset: position.offset,
                body: position.body,
                home: ended.home.seq,
                tenant,
                note: note.filter(|_| ended.attempts > 0),
            },
        ));
        Ok(())
    }

    /// Whom the job was for: that stands where its payload is, if it is still there.
    fn tenant(&mut self, ended: &Ended<'_>) -> Option<String> {
        let body = self.homes.read_if_kept(ended.home.position(), ended.home.seq).ok()?;
        let kind = if ended.home.seq == ended.born { Kind::Enqueued } else { Kind::Restated };
        let (meta, _) = decode_home(kind as u8, &body).ok()?;
        meta.tenant.map(str::to_owned)
    }

    /// What is to be changed.
    pub(super) fn changes(self) -> Changes {
        Changes { ended: self.ended, notes: self.notes.into_iter().collect() }
    }
}
