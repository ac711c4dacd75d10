//! Copies of a log that nobody writes: as it is, under a new id, or what can be saved of a damaged one.
//!
//! Reads one directory and writes another; the first is never changed. A copy has every record under its seq, at its
//! place. It is complete, synced and read back before a call here returns; the caller makes its directory's name durable.

use std::io;
use std::path::PathBuf;

use super::disk::Disk;
use super::frame::SegmentHeader;
use super::look::{Damage, FrameSeen, LookError, RecordSeen, Seen, Summary, look};
use super::rewrite::{Record, Rewriter};
use super::{LogId, RecordKind, StoredRecord};
use crate::limits::RESTORE_EPOCHS;
use crate::types::Seq;

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The log could not be read.
    #[error(transparent)]
    Look(#[from] LookError),
    /// It is damaged, and a whole copy was asked for.
    #[error("segment {} at offset {}: {}", .0.segment, .0.offset, .0.what)]
    Damaged(Damage),
    /// The copy could not be written.
    #[error("cannot write {}: {source}", place.display())]
    Write {
        /// The directory.
        place: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// What was written does not read back.
    #[error("the copy does not read back: segment {} at offset {}: {}", .0.segment, .0.offset, .0.what)]
    NotRead(Damage),
}

/// Something that a salvaged log does not have.
#[derive(Debug)]
pub enum Dropped<'a> {
    /// A place that does not hold.
    Damage(&'a Damage),
    /// A record that holds, and cannot be kept without one that was lost.
    Record {
        /// The record.
        record: &'a StoredRecord,
        /// Why not.
        why: String,
    },
}

/// Under which identity a copy is written.
#[derive(Debug, Clone, Copy)]
pub enum Identity {
    /// The same: the copy stands for the log.
    Same,
    /// A new one: both may live.
    New(LogId),
}

/// What is done about each record and each damage.
pub struct Keeping<'a> {
    /// Kind of the record that stands where one was lost.
    pub lost: RecordKind,
    /// Kind and body of a record that is known to have stood at this seq, with a body of so many bytes.
    pub known: &'a mut dyn FnMut(Seq, usize) -> Option<(RecordKind, Vec<u8>)>,
    /// Says whether a record can be kept.
    pub keep: &'a mut dyn FnMut(LogId, &StoredRecord) -> Result<(), String>,
    /// Is told what is dropped.
    pub dropped: &'a mut dyn FnMut(Dropped<'_>),
}

/// Copies a whole log. When it returns, the copy is on stable storage and was read back.
///
/// # Errors
/// See [`CopyError`]; any damage is one.
pub fn copy(from: &dyn Disk, to: &dyn Disk, identity: Identity, lost: RecordKind) -> Result<Summary, CopyError> {
    let mut keep = |_, _: &StoredRecord| Ok(());
    let mut dropped = |_: Dropped<'_>| ();
    let keeping = Keeping { lost, known: &mut |_, _| None, keep: &mut keep, dropped: &mut dropped };
    Copying { to, identity, keeping, whole: true, writer: None, begun: None, names_id: [0; 16] }.run(from)
}

/// Saves what can be saved of a log, under a new id. When it returns, the copy is on stable storage and was read back.
///
/// # Errors
/// See [`CopyError`].
pub fn salvage<'a>(from: &dyn Disk, to: &'a dyn Disk, id: LogId, keeping: Keeping<'a>) -> Result<Summary, CopyError> {
    let identity = Identity::New(id);
    Copying { to, identity, keeping, whole: false, writer: None, begun: None, names_id: [0; 16] }.run(from)
}

/// Looks whether a log that was just written holds, all of it.
///
/// # Errors
/// `NotRead`; `Look`.
pub fn read_back(disk: &dyn Disk) -> Result<Summary, CopyError> {
    look(disk, false, &mut |seen| match seen {
        Seen::Damage(damage) => Err(CopyError::NotRead(damage)),
        Seen::Segment { .. } | Seen::Frame(_) => Ok(()),
    })
}

struct Copying<'a> {
    to: &'a dyn Disk,
    identity: Identity,
    keeping: Keeping<'a>,
    /// Whether damage ends it.
    whole: bool,
    writer: Option<Rewriter<'a>>,
    /// A segment that was seen to begin, and of which no frame was seen yet: its number and size.
    begun: Option<(u32, u64)>,
    names_id: LogId,
}

impl Copying<'_> {
    fn run(mut self, from: &dyn Disk) -> Result<Summary, CopyError> {
        let seen = look(from, false, &mut |seen| self.see(seen))?;
        let written = self.finish();
        written.map_err(|source| CopyError::Write { place: self.to.place(), source })?;
        read_back(self.to)?;
        Ok(seen)
    }

    fn see(&mut self, seen: Seen) -> Result<(), CopyError> {
        match seen {
            Seen::Damage(damage) if self.whole => return Err(CopyError::Damaged(damage)),
            Seen::Damage(damage) => (self.keeping.dropped)(Dropped::Damage(&damage)),
            Seen::Segment { number, bytes, header } => {
                self.names_id = header.names_id();
                self.start(&header);
                self.begun = Some((number, bytes));
            }
            Seen::Frame(frame) => {
                let written = self.frame(&frame);
                written.map_err(|source| CopyError::Write { place: self.to.place(), source })?;
            }
        }
        Ok(())
    }

    fn start(&mut self, header: &SegmentHeader) {
        let (id, origin) = match self.identity {
            Identity::Same => (header.log_id, header.origin),
            Identity::New(id) => (id, header.names_id()),
        };
        let (to, lost) = (self.to, self.keeping.lost);
        self.writer.get_or_insert_with(|| Rewriter::new(to, id, origin, header.head, lost));
    }

    fn frame(&mut self, frame: &FrameSeen) -> io::Result<()> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        if let Some((number, bytes)) = self.begun.take() {
            writer.begin_with(number, bytes, frame.header.first_seq)?;
        }
        // First what stands for the lost ones, so that all bodies live as long as the frame is written.
        let mut lost = Vec::new();
        for record in &frame.records {
            lost.push(match record {
                RecordSeen::Whole(_) => None,
                RecordSeen::Lost { seq, body } => {
                    let body = *body as usize;
                    Some((self.keeping.known)(*seq, body).unwrap_or_else(|| (self.keeping.lost, vec![0; body])))
                }
            });
            if let (RecordSeen::Whole(whole), Some(last)) = (record, lost.last_mut())
                && let Err(why) = (self.keeping.keep)(self.names_id, whole)
            {
                (self.keeping.dropped)(Dropped::Record { record: whole, why });
                *last = Some((self.keeping.lost, whole.body.to_vec()));
            }
        }
        let records: Vec<_> = frame.records.iter().zip(&lost).map(record).collect();
        writer.put(frame.offset, &frame.header, &records)
    }

    /// Ends the copy as a log stands that can go on.
    fn finish(&mut self) -> io::Result<()> {
        let Some(mut writer) = self.writer.take() else { return Ok(()) };
        let after = writer.segment().map(|(number, bytes)| (number + 1, bytes));
        let begun = self.begun.take().filter(|_| writer.is_ended());
        if let Some((number, bytes)) = begun.or(after.filter(|_| writer.is_ended())) {
            let next_seq = writer.next_seq();
            writer.begin_with(number, bytes, next_seq)?;
        }
        if let Identity::New(_) = self.identity {
            writer.skip_epochs(RESTORE_EPOCHS)?;
        }
        writer.finish()
    }
}

/// A record as it was, or what stands for it.
fn record<'r>((seen, instead): (&'r RecordSeen, &'r Option<(RecordKind, Vec<u8>)>)) -> Record<'r> {
    match (seen, instead) {
        (_, Some((kind, body))) => Record { kind: *kind, joined: false, body },
        (RecordSeen::Whole(whole), None) => {
            let kind = RecordKind { kind: whole.kind, version: whole.version };
            Record { kind, joined: whole.joined, body: &whole.body }
        }
        // One is never without the other.
        (RecordSeen::Lost { .. }, None) => {
            Record { kind: RecordKind { kind: 0, version: 0 }, joined: false, body: &[] }
        }
    }
}
