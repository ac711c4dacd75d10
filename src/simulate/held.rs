//! Checks against the log itself, and of bounds: what the model does not know of.

use std::collections::BTreeMap;

use super::model::Standing;

use super::invariant::Invariant;
use super::plan::TYPES;
use super::pools::Hand;
use super::world::{Violation, World};
use crate::engine::stepped::Stepped;
use crate::job::event::Event;
use crate::job::table::{Job, Table, TypeState, VersionRecord};
use crate::job::transition::State;
use crate::types::Seq;

/// Two are kept, and a third is there before the first of them leaves.
const CHECKPOINTS_MAX: usize = 3;

/// The records that were shown, by seq: kind, and checksum of the body. What is shown is durable.
pub(super) type Shown = BTreeMap<Seq, (u8, u32)>;

impl World {
    /// Notes what the log shows that it has not shown before.
    pub(super) fn note_shown(&mut self) {
        let Some(shown) = &mut self.shown else { return };
        let Some(reader) = self.engine.as_ref().map(Stepped::reader) else { return };
        let from = shown.last_key_value().map_or(1, |(seq, _)| seq + 1);
        if from >= reader.visible_up_to() {
            return;
        }
        self.disk.quietly(|| {
            for record in reader.scan(from).map_while(Result::ok) {
                shown.insert(record.seq, (record.kind, crc32fast::hash(&record.body)));
            }
        });
    }

    /// I5, I7: right after a start, and at the end.
    pub(super) fn check_log(&mut self) -> Result<(), Violation> {
        let (Some(engine), Some(shown)) = (&self.engine, &self.shown) else { return Ok(()) };
        let reader = engine.reader();
        let (first, next) = (reader.first_seq(), reader.visible_up_to());
        let expected = shown.range(first..).map(|(seq, record)| (*seq, *record));
        let table = self.disk.quietly(|| {
            let mut expected = expected.peekable();
            let mut table = Table::to_replay(reader.log_id());
            for record in reader.scan(first) {
                let record = record.map_err(|error| Invariant::NothingLost.broken(error))?;
                let found = (record.seq, (record.kind, crc32fast::hash(&record.body)));
                if expected.peek().is_some_and(|expected| expected.0 <= record.seq) && expected.next() != Some(found) {
                    return Err(Invariant::PrefixRecovered.broken(format!("record {} is another one", record.seq)));
                }
                let event = Event::decode(record.kind, record.version, &record.body);
                let applied = event.map_err(|error| error.to_string()).and_then(|event| {
                    table.apply(record.seq, record.position, &event).map_err(|error| error.to_string())
                });
                applied.map_err(|error| Invariant::LogIsTheState.broken(error))?;
            }
            match expected.next() {
                Some((seq, _)) => Err(Invariant::PrefixRecovered.broken(format!("record {seq} of {next} is gone"))),
                None => Ok(table),
            }
        })?;
        same(&table, engine.table()).map_err(|what| Invariant::LogIsTheState.broken(what))?;
        self.figures.count("held", Invariant::PrefixRecovered.name());
        self.figures.count("held", Invariant::LogIsTheState.name());
        Ok(())
    }

    /// Notes where the work of each type goes.
    pub(super) fn note_routes(&mut self) {
        let Some(engine) = &self.engine else { return };
        self.routes = TYPES.into_iter().map(|of| (of, Routes::of(engine, of))).collect();
        let table = engine.table();
        let on_trial = |of: &&str| {
            let Some(no) = table.type_no(of) else { return false };
            engine.gated(no).is_some() || table.worker_type(no).is_some_and(|of_type| of_type.ramp.is_some())
        };
        self.trials.extend(TYPES.into_iter().filter(on_trial));
    }

    /// Whether an opening has begun a version again that is to make up for what fails on the one on probation.
    pub(super) fn probation_goes_on(&self) -> bool {
        let Some(engine) = &self.engine else { return false };
        TYPES.into_iter().any(|of| {
            let Routes { current, trial, previous } = Routes::of(engine, of);
            let hands = self.hands.all();
            let begun = |hand: &Hand| *hand.worker_type == *of && Some(&*hand.label) == previous.as_deref();
            current.is_some() && current == trial && hands.iter().any(begun)
        })
    }

    /// O5: after every turn.
    pub(super) fn check_places(&mut self) -> Result<(), Violation> {
        if let Some(what) = self.engine.as_ref().and_then(Stepped::misplaced) {
            return Err(Invariant::InPlace.broken(what));
        }
        self.figures.count("held", Invariant::InPlace.name());
        Ok(())
    }

    /// I9, I10, I12: after every turn.
    pub(super) fn check_bounds(&mut self) -> Result<(), Violation> {
        let Some(engine) = &self.engine else { return Ok(()) };
        for (name, holders) in &self.model.names {
            let live = holders.iter().filter_map(|at| self.model.jobs.get(*at)).filter(|known| known.now.is_live());
            let live: Vec<_> = live.map(|known| known.born).collect();
            if live.len() > 1 {
                return Err(Invariant::OneHolder.broken(format!("{name:?} is held by {live:?}")));
            }
        }
        let (bytes, max) = (engine.frame_bytes(), self.options.frame_bytes_max);
        if bytes > max {
            return Err(Invariant::Bounded.broken(format!("a frame of {bytes} bytes, {max} at most")));
        }
        for suffix in [".ckpt", ".names"] {
            let files = self.disk.files().into_keys().filter(|name| name.ends_with(suffix)).count();
            if files > CHECKPOINTS_MAX {
                return Err(
                    Invariant::Bounded.broken(format!("{files} files end with {suffix}, {CHECKPOINTS_MAX} at most"))
                );
            }
        }
        for hand in self.hands.all().iter().filter(|hand| hand.ended) {
            let has = hand.queue.len() + hand.held.len();
            if has > 0 {
                return Err(Invariant::NoOrphanedLease.broken(format!("{} has ended with {has} jobs", hand.label)));
            }
        }
        for invariant in [Invariant::OneHolder, Invariant::Bounded, Invariant::NoOrphanedLease] {
            self.figures.count("held", invariant.name());
        }
        Ok(())
    }
}

/// Where a type's work may go, by label.
#[derive(Debug, Clone, Default)]
pub(super) struct Routes {
    /// The version that new work goes to.
    pub(super) current: Option<String>,
    /// The one on trial.
    pub(super) trial: Option<String>,
    /// The one before, which makes up for what failed.
    previous: Option<String>,
}

impl Routes {
    pub(super) fn of(engine: &Stepped, of: &str) -> Self {
        let table = engine.table();
        let label = |no| table.version(no).map(|version| version.label.to_string());
        let found = table.type_no(of).and_then(|no| Some((no, table.worker_type(no)?)));
        let Some((no, of_type)) = found else { return Self::default() };
        let trial = engine.gated(no).or_else(|| Some(of_type.ramp?.version_no)).and_then(label);
        Self { current: label(of_type.route), trial, previous: label(of_type.previous) }
    }

    /// Whether a job that stands so may go to this version.
    pub(super) fn take(&self, label: &str, standing: Standing) -> bool {
        let is = |version: &Option<String>| version.as_deref() == Some(label);
        // A trial takes first attempts only; who was there before, what has failed at no cost.
        let first = standing.attempts == 0 && standing.made_up == 0;
        is(&self.current) || (is(&self.trial) && first) || (is(&self.previous) && standing.made_up > 0)
    }
}

/// How two tables differ in what they say of jobs, types, versions, routes and counters.
fn same(replayed: &Table, live: &Table) -> Result<(), String> {
    // That a job's time has come is no record.
    let ripe = |mut job: Job| {
        job.state = if job.state == State::Delayed { State::Ready } else { job.state };
        job
    };
    let jobs = |table: &Table| table.jobs().map(|(born, job)| (born, ripe(job))).collect::<BTreeMap<Seq, Job>>();
    let (ours, theirs) = (jobs(replayed), jobs(live));
    for (born, job) in &ours {
        if theirs.get(born) != Some(job) {
            return Err(format!("the log has {born} {job:#?}\nthe table has {:#?}", theirs.get(born)));
        }
    }
    if let Some((born, job)) = theirs.iter().find(|(born, _)| !ours.contains_key(born)) {
        return Err(format!("the table has {born} {job:#?}\nthe log has no such job"));
    }
    let types = |table: &Table| -> Vec<_> {
        let told = |(no, of): (u32, &TypeState)| {
            (no, of.name.clone(), of.route, of.totals, of.paused_since, of.previous, of.ramp)
        };
        table.types().map(told).collect()
    };
    let routed = |table: &Table| -> Vec<_> {
        let told = |version: &VersionRecord| (version.label.clone(), version.quarantined.clone());
        let of = |no| table.version(no).map(told);
        table.types().flat_map(|(_, of_type)| [of(of_type.route), of(of_type.previous)]).collect()
    };
    let parts = [
        ("types", format!("{:?}", types(replayed)), format!("{:?}", types(live))),
        ("routed versions", format!("{:?}", routed(replayed)), format!("{:?}", routed(live))),
        ("the accepted configs", format!("{:?}", replayed.generations()), format!("{:?}", live.generations())),
        ("live bytes", replayed.live_bytes().to_string(), live.live_bytes().to_string()),
    ];
    match parts.into_iter().find(|(_, ours, theirs)| ours != theirs) {
        Some((what, ours, theirs)) => Err(format!("{what}: the log has {ours}\nthe table has {theirs}")),
        None => Ok(()),
    }
}
