//! The names that callers chose, as the table knows them: all of them, or those that came since the log was opened.
//!
//! Pure. To make the index of a large log takes longer than to take over what waits in it, and only who pushes or asks by
//! a chosen name needs it. So a replay leaves the names out; somebody gathers them beside, from the log, while the engine
//! serves; and what is noted meanwhile is kept until their index is there.

use super::IdMaker;
use super::index::{IdIndex, Place, places};
use crate::job::event::{Enqueued, Event, Kind, Names, decode_home};
use crate::types::Seq;

/// A record bears a name from now on, and another one no more.
#[derive(Debug, Clone, Copy)]
struct Noted {
    place: Place,
    old: Option<Seq>,
    seq: Seq,
}

#[derive(Debug)]
enum State {
    /// Records are replayed: their names are left to who gathers them.
    Left,
    /// They are being gathered; this came meanwhile.
    Gathering(Vec<Noted>),
    /// All are known.
    Known(IdIndex),
    /// They could not be gathered.
    Unknown(String),
}

/// Chosen ids and keys.
#[derive(Debug)]
pub struct ChosenNames {
    maker: IdMaker,
    state: State,
    first_seq: Seq,
}

impl ChosenNames {
    /// Those of a log that has none yet.
    pub fn none(maker: IdMaker) -> Self {
        Self { maker, state: State::Known(IdIndex::new(maker)), first_seq: 1 }
    }

    /// Those of a log that is being replayed.
    pub fn left_out(maker: IdMaker) -> Self {
        Self { maker, state: State::Left, first_seq: 1 }
    }

    /// The replay is over: whoever has the names gathered calls [`ChosenNames::gathered`] in the end.
    pub fn gather(&mut self) {
        self.state = State::Gathering(Vec::new());
    }

    /// Takes over what was gathered from the records up to [`ChosenNames::gather`].
    pub fn gathered(&mut self, gathered: Result<IdIndex, String>) {
        let noted = match &mut self.state {
            State::Gathering(noted) => std::mem::take(noted),
            State::Left | State::Known(_) | State::Unknown(_) => Vec::new(),
        };
        self.state = match gathered {
            Ok(mut index) => {
                index.forget_below(self.first_seq);
                noted.iter().for_each(|noted| index.put_at(noted.place, noted.old, noted.seq));
                State::Known(index)
            }
            Err(why) => State::Unknown(why),
        };
    }

    /// The index, once all names are known.
    pub fn index(&self) -> Option<&IdIndex> {
        match &self.state {
            State::Known(index) => Some(index),
            State::Left | State::Gathering(_) | State::Unknown(_) => None,
        }
    }

    /// Why the names will never be known.
    pub fn unknown(&self) -> Option<&str> {
        match &self.state {
            State::Unknown(why) => Some(why),
            State::Left | State::Gathering(_) | State::Known(_) => None,
        }
    }

    /// Notes that the record `seq` bears these names, and no more the record `old`, if there was one.
    pub fn note(&mut self, type_no: u32, names: &Names<'_>, old: Option<Seq>, seq: Seq) {
        match &mut self.state {
            State::Known(index) => index.note(type_no, names, old, seq),
            State::Gathering(noted) => {
                noted.extend(places(&self.maker, type_no, names).map(|place| Noted { place, old, seq }));
            }
            State::Left | State::Unknown(_) => {}
        }
    }

    /// The log begins at `first_seq` now.
    pub fn forget_below(&mut self, first_seq: Seq) {
        self.first_seq = self.first_seq.max(first_seq);
        if let State::Known(index) = &mut self.state {
            index.forget_below(first_seq);
        }
    }
}

impl IdIndex {
    /// Notes the names that a record bears, by the record alone: how a log's index is made from its records, in order. A job
    /// that was restated more than once may be found at an older record, too, until that has left the log.
    pub fn note_record(&mut self, seq: Seq, kind: u8, version: u8, body: &[u8]) {
        if ![Kind::Enqueued as u8, Kind::Ended as u8, Kind::Restated as u8].contains(&kind) {
            return;
        }
        let mut home = |meta: &Enqueued<'_>, old| {
            if let Some(names) = &meta.names {
                self.note(meta.type_no, names, old, seq);
            }
        };
        match Event::decode(kind, version, body) {
            Ok(Event::Enqueued(meta, _)) => home(&meta, None),
            Ok(Event::Restated(state, enqueued)) => {
                if let Ok((meta, _)) = decode_home(Kind::Enqueued as u8, enqueued) {
                    home(&meta, Some(state.born));
                }
            }
            Ok(Event::Ended(ended, _)) => {
                if let Some(names) = &ended.names {
                    self.note(ended.type_no, names, Some(ended.home.seq), seq);
                }
            }
            // What cannot be read was refused by whoever replayed it.
            Ok(_) | Err(_) => {}
        }
    }
}
