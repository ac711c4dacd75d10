//! What the engine must have read before it can decide: the records that may bear a chosen id or key.
//!
//! The engine's thread reads no disk. Where a decision hangs on what a record says, the command waits, a thread beside
//! reads the records, and the command comes back with these facts. Between the two the engine serves others, so what it
//! knew may be old by then: it looks at its index again, and asks again, if another record is the one that counts.

use std::collections::HashMap;

use crossbeam_channel::Sender;

use super::command::Command;
use super::core::Core;
use crate::job::event::{End, Enqueued, Event, Kind, TraceParent, decode_home};
use crate::job::table::{Job, OwnedNames};
use crate::log::reader::ReadError;
use crate::log::{Poisoned, Reader, StoredRecord};
use crate::pool::About;
use crate::types::{Seq, UnixMs};

/// What a record says of a job.
#[derive(Debug, Clone)]
pub(super) struct Fact {
    pub(super) born: Seq,
    pub(super) type_no: u32,
    pub(super) created_ms: UnixMs,
    pub(super) names: Option<OwnedNames>,
    /// How the job ended, if the record says that it did.
    pub(super) end: Option<End>,
    task: String,
    tenant: Option<String>,
    trace: Option<TraceParent>,
}

impl Fact {
    fn of(record: &StoredRecord) -> Option<Self> {
        let home = |born: Seq, meta: &Enqueued<'_>| Self {
            born,
            type_no: meta.type_no,
            created_ms: meta.created_ms,
            names: meta.names.as_ref().map(OwnedNames::from),
            end: None,
            task: meta.task.to_owned(),
            tenant: meta.tenant.map(str::to_owned),
            trace: meta.trace,
        };
        match Event::decode(record.kind, record.version, &record.body).ok()? {
            Event::Enqueued(meta, _) => Some(home(record.seq, &meta)),
            Event::Restated(state, enqueued) => {
                let (meta, _) = decode_home(Kind::Enqueued as u8, enqueued).ok()?;
                Some(home(state.born, &meta))
            }
            Event::Ended(ended, _) => Some(Self {
                born: ended.born,
                type_no: ended.type_no,
                created_ms: ended.created_ms,
                names: ended.names.as_ref().map(OwnedNames::from),
                end: Some(ended.end),
                task: String::new(),
                tenant: None,
                trace: None,
            }),
            // No other record bears a name: the index took one for another.
            _ => None,
        }
    }

    /// What a job said of itself.
    pub(super) fn about(&self) -> About {
        let (task, tenant) = (self.task.clone(), self.tenant.clone());
        About { task, tenant, names: self.names.clone(), trace: self.trace }
    }

    pub(super) fn id(&self) -> Option<&str> {
        self.names.as_ref()?.id.as_deref()
    }

    pub(super) fn key(&self) -> Option<&str> {
        self.names.as_ref()?.key.as_deref()
    }
}

/// What was read of a record.
#[derive(Debug, Clone)]
pub(super) enum Read {
    /// It says something of a job.
    Fact(Box<Fact>),
    /// It is another kind of record, or has left the log: no name hangs on it.
    Nothing,
    /// It cannot be read, and why.
    Damaged(String),
}

impl Read {
    fn of(found: Result<StoredRecord, ReadError>) -> Self {
        match found {
            Ok(record) => Fact::of(&record).map_or(Self::Nothing, |fact| Self::Fact(Box::new(fact))),
            Err(ReadError::Gone { .. }) => Self::Nothing,
            Err(error @ (ReadError::Damaged { .. } | ReadError::Io { .. })) => Self::Damaged(error.to_string()),
        }
    }
}

/// Records that were read, by their seq.
#[derive(Debug, Default)]
pub(super) struct Facts(HashMap<Seq, Read>);

impl Facts {
    /// Reads records.
    fn read(reader: &Reader, seqs: Vec<Seq>) -> Self {
        let mut facts = HashMap::with_capacity(seqs.len());
        let mut again = Vec::new();
        for (seq, found) in reader.records_at(seqs) {
            if matches!(found, Err(ReadError::Io { .. })) {
                again.push(seq);
            } else {
                facts.insert(seq, Read::of(found));
            }
        }
        // What the system could not read now it may read a moment later: much hangs on it.
        facts.extend(reader.records_at(again).into_iter().map(|(seq, found)| (seq, Read::of(found))));
        Self(facts)
    }

    pub(super) fn get(&self, seq: Seq) -> Option<&Read> {
        self.0.get(&seq)
    }

    pub(super) fn fact(&self, seq: Seq) -> Option<&Fact> {
        match self.0.get(&seq)? {
            Read::Fact(fact) => Some(fact),
            Read::Nothing | Read::Damaged(_) => None,
        }
    }
}

/// A command that waits for records to be read.
pub(super) struct LookUp {
    seqs: Vec<Seq>,
    then: Command,
}

/// Who reads.
pub(super) enum Librarian {
    /// A thread; it ends with the sender.
    Thread(Sender<LookUp>),
    /// The engine itself, where a simulation must see no thread.
    Inline,
}

impl Librarian {
    /// Starts the thread, which sends what it read with the command to `to_engine`.
    pub(super) fn start(reader: Reader, to_engine: Sender<Command>) -> std::io::Result<Self> {
        let (orders, inbox) = crossbeam_channel::unbounded::<LookUp>();
        std::thread::Builder::new().name("librarian".to_owned()).spawn(move || {
            for LookUp { seqs, then } in inbox {
                let facts = Facts::read(&reader, seqs);
                drop(to_engine.send(Command::Known { facts, then: Box::new(then) }));
            }
        })?;
        Ok(Self::Thread(orders))
    }
}

impl Core {
    /// Has `then` handled again once these records were read; without any, once it is known which chosen names there are.
    pub(super) fn look_up(&mut self, seqs: Vec<Seq>, then: Command) -> Result<(), Poisoned> {
        if seqs.is_empty() {
            self.awaiting_names.push(then);
            return Ok(());
        }
        if matches!(self.librarian, Librarian::Inline) {
            // What is not written cannot be read.
            self.commit()?;
            let facts = Facts::read(&self.log.reader(), seqs);
            return self.with_facts(facts, then);
        }
        self.looking += 1;
        self.look_ups.push(LookUp { seqs, then });
        Ok(())
    }

    /// Sends off what is to be read, now that all of it is written.
    pub(super) fn send_look_ups(&mut self) {
        if let Librarian::Thread(orders) = &self.librarian {
            // The thread lives until this sender is dropped.
            self.look_ups.drain(..).for_each(|look_up| drop(orders.send(look_up)));
        }
    }

    /// What was to be read was read.
    pub(super) fn known(&mut self, facts: Facts, then: Command) -> Result<(), Poisoned> {
        self.looking -= 1;
        self.with_facts(facts, then)
    }

    fn with_facts(&mut self, facts: Facts, then: Command) -> Result<(), Poisoned> {
        let outer = std::mem::replace(&mut self.facts, facts);
        let done = self.handle(then);
        self.facts = outer;
        done
    }

    /// Whether a job's chosen names are at hand, or it has none.
    pub(super) fn knows_names(&self, job: &Job) -> bool {
        !job.named || job.names().is_some() || self.facts.get(job.home.seq).is_some()
    }

    /// A job's chosen names, if it has any and they are at hand.
    pub(super) fn names_of(&self, job: &Job, about: Option<&About>) -> Option<OwnedNames> {
        if !job.named {
            return None;
        }
        let kept = job.names().or_else(|| about?.names.as_ref());
        kept.or_else(|| self.facts.fact(job.home.seq)?.names.as_ref()).cloned()
    }
}
