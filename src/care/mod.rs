//! Looking after data directories: verify, dump, salvage, backup and restore.
//!
//! Reads logs by [`crate::log::look`], and knows what their records mean by [`crate::job`]. Never changes a directory that
//! it reads; writes only directories that were not there, under another name until they are whole and synced.

mod accepted;
mod place;
mod show;

pub use accepted::last_config;
pub use place::{Source, Target};
pub use show::{DumpError, damage_words, dump};

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::job::event::words::Namer;
use crate::job::event::{Event, Kind, TypeNamed};
use crate::job::table::Table;
use crate::log::copy::{self, CopyError, Dropped, Identity, Keeping};
use crate::log::damage::set_aside_among;
use crate::log::lock::LockError;
use crate::log::look::{Damage, LookError, RecordSeen, Seen, Summary, look};
use crate::log::{LogId, StoredRecord};
use crate::types::Seq;

/// Damaged places that are told one by one.
const DAMAGES_MAX: usize = 1000;

/// Why a directory could not be looked after.
#[derive(Debug, thiserror::Error)]
pub enum CareError {
    /// Its log could not be read.
    #[error(transparent)]
    Look(#[from] LookError),
    /// Its log could not be copied.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// A process runs on it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// What was to be made is there already.
    #[error("{} is there already; nothing was changed. Choose another place", path.display())]
    There {
        /// The place.
        path: PathBuf,
    },
    /// What an earlier attempt left.
    #[error("{} is left of an attempt that did not finish; remove it, then try again", path.display())]
    Left {
        /// The place.
        path: PathBuf,
    },
    /// The operating system said no.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// A verb phrase.
        doing: &'static str,
        /// The place.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
}

impl CareError {
    /// The exit code that a program gives it (sysexits).
    pub fn exit_code(&self) -> u8 {
        let io = |error: &std::io::Error| match error.kind() {
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => 77,
            std::io::ErrorKind::NotFound => 65,
            _ => 74,
        };
        match self {
            Self::Look(LookError::Newer { .. }) | Self::Copy(CopyError::Look(LookError::Newer { .. })) => 76,
            Self::Look(LookError::NoLog { .. }) | Self::Copy(CopyError::Look(LookError::NoLog { .. })) => 65,
            Self::Look(LookError::Io { source, .. }) | Self::Copy(CopyError::Look(LookError::Io { source, .. })) => {
                io(source)
            }
            Self::Copy(CopyError::Damaged(_)) => 65,
            Self::Copy(CopyError::NotRead(_)) => 74,
            Self::Copy(CopyError::Write { source, .. }) | Self::Io { source, .. } => io(source),
            Self::Lock(LockError::Held { .. }) => 75,
            Self::Lock(LockError::Io { source, .. }) => io(source),
            Self::There { .. } | Self::Left { .. } => 73,
        }
    }
}

/// What verifying found.
#[derive(Debug)]
pub struct Verified {
    /// The log at a glance.
    pub summary: Summary,
    /// The places that do not hold, the first thousand.
    pub damages: Vec<Damage>,
    /// The first record that holds, and yet cannot follow from those before it; not looked for in a live or damaged log.
    pub illegal: Option<(Seq, String)>,
    /// Segments that were damaged when the log's head had passed them, and are kept beside it: no part of it any more.
    pub set_aside: BTreeSet<u32>,
    /// Jobs that live; not counted in a live or damaged log.
    pub live_jobs: Option<u64>,
}

impl Verified {
    /// Whether a biotope would open it.
    pub fn is_sound(&self) -> bool {
        self.damages.is_empty() && self.illegal.is_none()
    }
}

/// Reads every record of a log, and follows it as an opening does.
///
/// # Errors
/// The log could not be read at all; damage is no error, but a finding.
pub fn verify(source: &Source) -> Result<Verified, CareError> {
    let mut damages = Vec::new();
    let mut replay = Replay::default();
    let live = source.live().is_some();
    let summary = look(source.disk(), live, &mut |seen| {
        match seen {
            Seen::Segment { header, .. } => replay.names_id = header.names_id(),
            Seen::Frame(frame) if !live && damages.is_empty() => {
                for record in &frame.records {
                    if let RecordSeen::Whole(record) = record
                        && replay.illegal.is_none()
                        && let Err(why) = replay.take(record)
                    {
                        replay.illegal = Some((record.seq, why));
                    }
                }
            }
            Seen::Frame(_) => {}
            Seen::Damage(damage) if damages.len() < DAMAGES_MAX => damages.push(damage),
            Seen::Damage(_) => {}
        }
        Ok::<(), LookError>(())
    })?;
    let follows = !live && damages.is_empty();
    let names = source.disk().list();
    Ok(Verified {
        summary,
        set_aside: names.map_or_else(|_| BTreeSet::new(), |names| set_aside_among(&names)),
        live_jobs: follows.then(|| replay.table.as_ref().map_or(0, Table::live_jobs)),
        illegal: replay.illegal.filter(|_| follows),
        damages,
    })
}

/// The state that a log's records lead to.
#[derive(Default)]
struct Replay {
    names_id: LogId,
    table: Option<Table>,
    illegal: Option<(Seq, String)>,
}

impl Replay {
    fn table(&mut self) -> &mut Table {
        let names_id = self.names_id;
        self.table.get_or_insert_with(|| Table::to_replay(names_id))
    }

    fn take(&mut self, record: &StoredRecord) -> Result<(), String> {
        let event = Event::decode(record.kind, record.version, &record.body).map_err(|error| error.to_string())?;
        self.table().apply(record.seq, record.position, &event).map_err(|error| error.to_string())
    }
}

/// What salvaging left and dropped.
#[derive(Debug)]
pub struct Salvaged {
    /// The damaged log at a glance.
    pub summary: Summary,
    /// Records that were dropped: lost ones, and those that cannot be without them.
    pub dropped: u64,
    /// Jobs that live in what was saved.
    pub live_jobs: u64,
}

/// Saves what can be saved of a log into a new data directory; `told` gets a line for everything that it drops.
///
/// # Errors
/// See [`CareError`]; then nothing is left at the new place.
pub fn salvage(source: &Source, to: &Path, id: LogId, told: &mut dyn FnMut(&str)) -> Result<Salvaged, CareError> {
    let _held = source.hold()?;
    let target = Target::make(to)?;
    let types = type_names(source)?;
    let replay = std::cell::RefCell::new(Replay::default());
    let mut namer: Option<Namer> = None;
    let mut dropped = 0;
    let mut keep = |names_id, record: &StoredRecord| {
        let mut replay = replay.borrow_mut();
        replay.names_id = names_id;
        let namer = namer.get_or_insert_with(|| Namer::new(names_id));
        let event = Event::decode(record.kind, record.version, &record.body).map_err(|error| error.to_string())?;
        let words = namer.name(record.seq, &event).words(&event);
        replay.take(record).map_err(|why| format!("{words}: {why}"))
    };
    let mut known = |seq, body| {
        // A type's name is lost with its record, and stands in later ones: without it none of its jobs could be kept.
        let mut replay = replay.borrow_mut();
        let no = u32::try_from(replay.table().types().count()).unwrap_or(u32::MAX).saturating_add(1);
        let event = Event::TypeNamed(TypeNamed { no, name: types.get(&no)? });
        let mut bytes = Vec::new();
        event.encode(&mut bytes);
        let fits = bytes.len() == body && replay.table().apply(seq, crate::log::Position::default(), &event).is_ok();
        fits.then(|| (Kind::TypeNamed.record_kind(), bytes))
    };
    let mut drop_one = |what: Dropped<'_>| {
        let (line, records) = told_of(&what);
        dropped += records;
        told(&line);
    };
    let lost = Kind::Lost.record_kind();
    let keeping = Keeping { lost, known: &mut known, keep: &mut keep, dropped: &mut drop_one };
    let summary = copy::salvage(source.disk(), target.disk(), id, keeping)?;
    target.finish()?;
    let live_jobs = replay.into_inner().table.map_or(0, |table| table.live_jobs());
    Ok(Salvaged { summary, dropped, live_jobs })
}

/// A line for something that is dropped, and how many records it is.
fn told_of(what: &Dropped<'_>) -> (String, u64) {
    match what {
        Dropped::Damage(damage) => {
            let records = damage.seqs.as_ref().map_or(0, |seqs| seqs.end - seqs.start);
            (damage_words(damage), records)
        }
        Dropped::Record { record, why } => {
            let place = record.position;
            (format!("segment {} at offset {}: record {} dropped: {why}", place.segment, place.offset, record.seq), 1)
        }
    }
}

/// The names of all types that any record tells.
fn type_names(source: &Source) -> Result<BTreeMap<u32, String>, CareError> {
    let mut types = BTreeMap::new();
    look(source.disk(), false, &mut |seen| {
        if let Seen::Frame(frame) = seen {
            for record in &frame.records {
                if let RecordSeen::Whole(record) = record
                    && record.kind == Kind::TypeNamed as u8
                    && let Ok(Event::TypeNamed(named)) = Event::decode(record.kind, record.version, &record.body)
                {
                    types.insert(named.no, named.name.to_owned());
                }
            }
        }
        Ok::<(), LookError>(())
    })?;
    Ok(types)
}

/// Copies the log of a data directory that no process runs on.
///
/// # Errors
/// See [`CareError`]; then nothing is left at the new place.
pub fn backup(source: &Source, to: &Path) -> Result<Summary, CareError> {
    let _held = source.hold()?;
    let target = Target::make(to)?;
    let summary = copy::copy(source.disk(), target.disk(), Identity::Same, Kind::Lost.record_kind())?;
    target.finish()?;
    Ok(summary)
}

/// Makes a data directory of a backup, with a log of a new identity.
///
/// # Errors
/// See [`CareError`]; then nothing is left at the new place.
pub fn restore(source: &Source, to: &Path, id: LogId) -> Result<Summary, CareError> {
    let _held = source.hold()?;
    let target = Target::make(to)?;
    let summary = copy::copy(source.disk(), target.disk(), Identity::New(id), Kind::Lost.record_kind())?;
    target.finish()?;
    Ok(summary)
}
