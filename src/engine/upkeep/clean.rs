//! Cleaning: what lives in the log's head segment is restated at the tail, then the head moves on.
//!
//! A sweep reads the segment, on a thread of its own; the engine restates those that are still alive with their payload
//! there.
//! What is no job (types, versions, routes, the accepted configs, the counters) is restated where each segment begins, so
//! that a replay may begin with any of them.

use std::collections::VecDeque;

use crate::engine::command::{Command, Survivor, Survivors, Swept};
use crate::engine::core::Core;
use crate::job::event::{
    Event, Generation, Paused, Quarantined, Ramped, Routed, Totals, TypeNamed, VersionAccepted, decode_home,
    with_version_no,
};
use crate::job::table::{GenerationRecord, Table, VersionRecord};
use crate::log::frame::RECORD_HEADER_BYTES;
use crate::log::scan::Scan;
use crate::log::{LogFigures, Poisoned, Reader};
use crate::types::{UnixMs, WorkerType};

/// Payload bytes that the cleaner hands to the engine at once.
const PORTION_BYTES: usize = 256 << 10;
/// Portions that the engine may have before the cleaner waits for it: one turn of the engine takes them all, and writes a
/// frame at most meanwhile. With one at a time a segment is filled sooner than the next one is cleaned.
const PORTIONS_AHEAD: usize = 8;
/// Room that is left beside what is restated on a full disk, in bytes: for outcomes.
const CLEANING_SPARE: u64 = 1 << 20;
/// What the frames take in which a portion is restated, beside its records.
const FRAMES_SPARE: u64 = 4096;
/// What a restated job takes at most beside its payload: numbers, headers and attempts.
const RESTATED_SPARE: u64 = 4096;
/// What the number of a version that a job needs may add to its record.
const NUMBER_BYTES_MAX: usize = 5;
/// Versions that stay known though nothing names them any more, since a job may need one of them: of all types together, and of
/// each of them at least and at most. All that is known fits in a frame.
const VERSIONS_KEPT: usize = 5_000;
const OF_TYPE_AT_LEAST: usize = 5;
const OF_TYPE_AT_MOST: usize = 50;

/// Who sweeps.
#[derive(Default)]
pub(in crate::engine) enum Cleaning {
    /// Nothing is swept; a sweep gets a thread.
    #[default]
    Idle,
    /// A thread sweeps.
    Thread,
    /// Nothing is swept; a sweep is stepped by the engine's owner.
    SteppedIdle,
    /// A sweep that the engine's owner steps.
    Stepped(Box<Sweep>),
}

impl Core {
    /// Starts to clean the head segment, if the log is larger than it need be.
    pub(in crate::engine) fn clean_if_due(&mut self) {
        let live = self.table.live_bytes();
        let full = self.log.wants_space();
        // On a full disk history gives way; but what lives must fit in the segment at hand, since there is no other.
        let retain = if full { 0 } else { self.retained(2 * live) };
        // What comes while the head is cleaned, and the segment that is made ahead, are beyond it: a segment each.
        let bound = 2 * live + retain.max(self.config.log.segment);
        // What somebody reads that the head has passed, such as a backup, leaves with that one, and by no sweep.
        self.clean(full, |_, _| true, |_, figures| figures.disk_bytes - figures.held_bytes > bound);
    }

    /// Starts to clean the head segment, if a bound of the disk asks for it.
    pub(in crate::engine) fn clean_for_space(&mut self) {
        self.clean(false, Self::gains_by_sweeps, Self::should_give_way);
    }

    fn clean(
        &mut self,
        full: bool,
        may_sweep: impl Fn(&Self, &LogFigures) -> bool,
        is_due: impl Fn(&Self, &LogFigures) -> bool,
    ) {
        let live = self.table.live_bytes();
        let busy = matches!(self.cleaning, Cleaning::Thread | Cleaning::Stepped(_));
        let mut figures = self.log.figures();
        while !busy && figures.head < figures.active && is_due(self, &figures) && self.table.homes_in(figures.head) == 0
        {
            if full && self.log.frees_a_segment() {
                // One segment is wanted, not all of history.
                return;
            }
            // Nothing in it lives: it need not even be read.
            self.pass_head();
            figures = self.log.figures();
        }
        if busy || figures.head >= figures.active || !is_due(self, &figures) || !may_sweep(self, &figures) {
            return;
        }
        if full && (live + CLEANING_SPARE > self.log.room() || self.log.frees_a_segment())
            || self.unreadable_in == Some(figures.active)
        {
            return;
        }
        let Some(mut sweep) = Sweep::new(&self.log.reader(), figures.head) else { return };
        if matches!(self.cleaning, Cleaning::SteppedIdle) {
            self.cleaning = Cleaning::Stepped(Box::new(sweep));
            return;
        }
        let to_engine = self.to_self.clone();
        let thread = std::thread::Builder::new().name("cleaner".to_owned());
        let run = move || {
            let mut ahead = VecDeque::new();
            for mut survivors in &mut sweep {
                let (done, wait) = crossbeam_channel::bounded::<()>(0);
                survivors.done = Some(done);
                if to_engine.send(Command::Survivors(survivors)).is_err() {
                    return;
                }
                ahead.push_back(wait);
                if ahead.len() == PORTIONS_AHEAD
                    && let Some(wait) = ahead.pop_front()
                {
                    // The engine drops its end when it is through: that is the word to go on.
                    let _ = wait.recv();
                }
            }
        };
        match thread.spawn(run) {
            Ok(_) => self.cleaning = Cleaning::Thread,
            Err(error) => tracing::warn!(%error, "could not start to clean the log; tried again with the next segment"),
        }
    }

    /// Leaves the head segment behind: nothing that lives is in it.
    fn pass_head(&mut self) {
        let next = self.log.figures().head + 1;
        self.log.move_head(next);
        self.has_given_way();
        if let Some(first) = self.log.reader().first_seq_of(next) {
            self.table.forget_below(first);
        }
    }

    /// The next portion of a sweep that nobody else steps.
    pub(in crate::engine) fn step_cleaning(&mut self) -> Option<Survivors> {
        let Cleaning::Stepped(sweep) = &mut self.cleaning else { return None };
        sweep.next()
    }

    /// Restates those that live; after the last portion, moves the head.
    pub(in crate::engine) fn restate(&mut self, survivors: Survivors) -> Result<(), Poisoned> {
        for record in &survivors.records {
            let job = self.table.job_of(record.type_no, record.born).filter(|job| job.home.seq == record.seq);
            let Some(job) = job else { continue };
            // What version it needs may have become known since it was written, and that record may leave the log, too.
            let number = self.table.known_need(&job).and_then(|no| with_version_no(&record.enqueued, no));
            let enqueued = number.as_deref().unwrap_or(&record.enqueued);
            self.record(&Event::Restated(job.restate(record.born), enqueued))?;
        }
        drop(survivors.done);
        let head = self.log.figures().head;
        match survivors.swept {
            Swept::Part => return Ok(()),
            Swept::All if self.table.homes_in(head) == 0 => {}
            Swept::All | Swept::Unreadable => {
                // Tried again with the next segment: it may be readable then, or nothing in it may live any more.
                self.unreadable_in = Some(self.log.figures().active);
                self.end_cleaning();
                return Ok(());
            }
        }
        self.pass_head();
        if !self.log.has_unwritten() {
            // The head moves with a frame, and on a full disk there may be none for long.
            let totals = self.table.types().next().map(|(_, of_type)| of_type.totals);
            if let Some(totals) = totals {
                self.record(&Event::Totals(totals))?;
            }
        }
        self.end_cleaning();
        self.clean_if_due();
        Ok(())
    }

    /// Whether a portion can be restated now: there is room, or a next segment.
    pub(in crate::engine) fn may_restate(&mut self, survivors: &Survivors) -> bool {
        let room = self.log.room();
        let at_most = survivors.records.len() as u64 * RESTATED_SPARE + 2 * PORTION_BYTES as u64;
        at_most <= room || self.restated_bytes_max(survivors) <= room || self.await_spare()
    }

    /// The most bytes that this portion may take: what has ended since it was read takes none.
    fn restated_bytes_max(&self, survivors: &Survivors) -> u64 {
        let bytes = |record: &Survivor| {
            let job = self.table.job_of(record.type_no, record.born).filter(|job| job.home.seq == record.seq)?;
            let restated = Event::Restated(job.restate(record.born), &record.enqueued);
            Some((RECORD_HEADER_BYTES + restated.bytes_max() + NUMBER_BYTES_MAX) as u64)
        };
        survivors.records.iter().filter_map(bytes).sum::<u64>() + FRAMES_SPARE
    }

    /// On a full disk there may be no frame for long, and where commits are not synced, no sync: what the head has passed
    /// is freed here. When it returns, the head is durable, if there was room to say so.
    pub(in crate::engine) fn free_passed_segments(&mut self) -> Result<(), Poisoned> {
        self.log.release_retired();
        if self.log.is_head_durable() {
            return Ok(());
        }
        if !self.log.has_unwritten() {
            let totals = self.table.types().next().map(|(_, of_type)| Event::Totals(of_type.totals));
            let Some(totals) = totals.filter(|totals| self.log.has_room(1, totals.bytes_max())) else { return Ok(()) };
            self.put(&totals, false);
        }
        self.commit()?;
        if self.log.is_head_durable() { Ok(()) } else { self.sync() }
    }

    fn end_cleaning(&mut self) {
        self.cleaning = match self.cleaning {
            Cleaning::Idle | Cleaning::Thread => Cleaning::Idle,
            Cleaning::SteppedIdle | Cleaning::Stepped(_) => Cleaning::SteppedIdle,
        };
    }

    /// Restates what is no job. For the beginning of a segment: there is always room.
    pub(in crate::engine) fn put_context(&mut self) {
        let context = Context::of(&self.table);
        for event in context.events(self.now) {
            self.put(&event, false);
        }
    }

    /// Restates what is no job, in this segment or at the beginning of the next one.
    pub(in crate::engine) fn ensure_context(&mut self) -> Result<(), Poisoned> {
        let context = Context::of(&self.table);
        let events = context.events(self.now);
        let active = self.log.figures().active;
        self.make_room(events.len(), events.iter().map(Event::bytes_max).sum())?;
        if self.log.figures().active == active {
            for event in events {
                self.put(&event, false);
            }
        }
        Ok(())
    }
}

/// What is no job, as a replay that begins with it needs it.
struct Context {
    types: Vec<(u32, WorkerType, u32, Totals)>,
    /// Versions on trial, and those that were there before.
    ramps: Vec<Ramped>,
    /// Types that are paused, and since when.
    paused: Vec<(u32, UnixMs)>,
    versions: Vec<(u32, VersionRecord)>,
    generations: Vec<GenerationRecord>,
}

impl Context {
    fn of(table: &Table) -> Self {
        let types: Vec<_> =
            table.types().map(|(no, of_type)| (no, of_type.name.clone(), of_type.route, of_type.totals)).collect();
        let paused = table.types().filter(|(_, of_type)| of_type.paused_since != 0);
        let paused = paused.map(|(no, of_type)| (no, of_type.paused_since)).collect();
        let ramps: Vec<Ramped> = table.types().filter_map(|(no, of_type)| of_type.trial(no)).collect();
        let generations = table.generations().to_vec();
        let targets: &[u32] = generations.last().map_or(&[], |newest| &newest.targets);
        let mut versions: Vec<_> = table.versions().map(|(no, version)| (no, version.clone())).collect();
        versions.sort_by_key(|(no, _)| std::cmp::Reverse(*no));
        let kept = (VERSIONS_KEPT / types.len().max(1)).clamp(OF_TYPE_AT_LEAST, OF_TYPE_AT_MOST);
        let mut seen = std::collections::BTreeMap::new();
        versions.retain_mut(|(no, version)| {
            let count: &mut usize = seen.entry(version.type_no).or_default();
            *count += 1;
            let named = targets.contains(no)
                || types.iter().any(|(_, _, route, _)| route == no)
                || ramps.iter().any(|ramp| [ramp.version_no, ramp.previous].contains(no));
            if let Some(quarantine) = version.quarantined.as_mut().filter(|_| !named) {
                // That it was withdrawn is enough where nobody asks for it.
                quarantine.why = Box::default();
            }
            *count <= kept || named
        });
        versions.reverse();
        Self { types, ramps, paused, versions, generations }
    }

    fn events(&self, at: UnixMs) -> Vec<Event<'_>> {
        let mut events: Vec<Event<'_>> = self
            .types
            .iter()
            .map(|(no, name, ..)| Event::TypeNamed(TypeNamed { no: *no, name: name.as_str() }))
            .collect();
        for (no, version) in &self.versions {
            let (type_no, label, hash) = (version.type_no, version.label.as_str(), version.hash);
            let accepted = VersionAccepted { no: *no, type_no, label, hash, at: version.at };
            events.push(Event::VersionAccepted(accepted));
        }
        for (type_no, _, version_no, totals) in &self.types {
            if *version_no != 0 {
                events.push(Event::Routed(Routed { type_no: *type_no, version_no: *version_no, at }));
            }
            events.push(Event::Totals(*totals));
        }
        let paused = self.paused.iter().map(|(type_no, since)| Paused { type_no: *type_no, since: *since, at });
        events.extend(paused.map(Event::Paused));
        events.extend(self.ramps.iter().map(|ramp| Event::Ramped(*ramp)));
        // Whoever gets work is trusted again: what is held against the others comes last.
        for (no, version) in &self.versions {
            if let Some(quarantine) = &version.quarantined {
                let event = Quarantined { no: *no, at: quarantine.at };
                events.push(Event::Quarantined(event, quarantine.why.as_bytes()));
            }
        }
        for known in &self.generations {
            let (number, at, targets) = (known.number, known.at, known.targets.clone());
            let text = known.text.as_deref().unwrap_or_default();
            events.push(Event::Generation(Generation { number, at, targets }, text));
            events.extend(known.settled.as_deref().cloned().map(Event::Settled));
        }
        events
    }
}

/// Reads a segment's payload records, portion by portion, up to the last one, or to one that cannot be read.
pub(in crate::engine) struct Sweep {
    segment: u32,
    /// `None` once it is through.
    scan: Option<Scan>,
}

impl Sweep {
    fn new(reader: &Reader, segment: u32) -> Option<Self> {
        let from = reader.first_seq_of(segment)?;
        Some(Self { segment, scan: Some(reader.scan(from)) })
    }
}

impl Iterator for Sweep {
    type Item = Survivors;

    fn next(&mut self) -> Option<Survivors> {
        let mut scan = self.scan.take()?;
        let segment = self.segment;
        let mut records = Vec::new();
        let mut bytes = 0;
        while bytes < PORTION_BYTES {
            let record = match scan.next() {
                Some(Ok(record)) if record.position.segment == segment => record,
                Some(Ok(_)) | None => return Some(Survivors { records, done: None, swept: Swept::All }),
                Some(Err(error)) => {
                    // Nothing is given up: the segment stays, and the log grows.
                    tracing::error!(%error, segment, "the log's head cannot be cleaned; tried again with the next segment");
                    return Some(Survivors { records, done: None, swept: Swept::Unreadable });
                }
            };
            let Ok((meta, _)) = decode_home(record.kind, &record.body) else { continue };
            let type_no = meta.type_no;
            let (born, enqueued) = match Event::decode(record.kind, record.version, &record.body) {
                Ok(Event::Restated(state, enqueued)) => (state.born, record.body.slice_ref(enqueued)),
                _ => (record.seq, record.body.clone()),
            };
            bytes += enqueued.len();
            records.push(Survivor { born, seq: record.seq, type_no, enqueued });
        }
        self.scan = Some(scan);
        Some(Survivors { records, done: None, swept: Swept::Part })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::event::{Settled, TypeChange};
    use crate::limits::{
        CONFIG_BYTES_MAX, ERROR_BYTES_MAX, FRAME_BYTES_MAX, GENERATION_TEXTS_BYTES_MAX, GENERATIONS_KEPT,
        LABEL_BYTES_MAX, SETTLED_BYTES_MAX, TYPE_NAME_BYTES_MAX, TYPES_MAX,
    };
    use crate::log::Position;

    /// The context of the largest config that there may be, changed as often as is remembered.
    fn largest() -> Context {
        let mut table = Table::new([0; 16]);
        let mut seq = 0;
        let mut apply = |event: &Event<'_>| {
            seq += 1;
            table.apply(seq, Position { segment: 1, offset: 0, body: 0 }, event).unwrap();
        };
        let types = u32::try_from(TYPES_MAX).unwrap();
        let versions = u32::try_from(OF_TYPE_AT_LEAST).unwrap() + 1;
        let at = UnixMs::MAX;
        const OLD: u32 = 1 << 20;
        let label = "v".repeat(LABEL_BYTES_MAX);
        for type_no in 1..=types {
            let name = format!("{type_no:0>width$}", width = TYPE_NAME_BYTES_MAX);
            apply(&Event::TypeNamed(TypeNamed { no: type_no, name: &name }));
            for round in 0..versions {
                let no = 1 + round * types + type_no;
                apply(&Event::VersionAccepted(VersionAccepted { no, type_no, label: &label, hash: [1; 32], at }));
            }
            // Work went to one of them before, one is on trial, and all were withdrawn but that one.
            let (previous, trial) = (1 + type_no, 1 + types + type_no);
            let ramp = Ramped { type_no, version_no: trial, percent: 99, salt: u64::MAX, paused: true, previous, at };
            apply(&Event::Ramped(ramp));
            for no in (0..versions).map(|round| 1 + round * types + type_no).filter(|no| *no != trial) {
                apply(&Event::Quarantined(Quarantined { no, at }, "w".repeat(ERROR_BYTES_MAX).as_bytes()));
            }
            // Each of the last configs is the newest to say what some type's work goes to.
            apply(&Event::Routed(Routed { type_no, version_no: OLD + type_no, at }));
            apply(&Event::Paused(Paused { type_no, since: at, at }));
            let totals =
                Totals { type_no, enqueued: u64::MAX, completed: u64::MAX, failed: u64::MAX, ..Totals::default() };
            apply(&Event::Totals(totals));
        }
        let targets: Vec<u32> = (1..=types).map(|type_no| (versions - 1) * types + type_no).collect();
        let change = TypeChange {
            name: "x".repeat(SETTLED_BYTES_MAX - 32),
            change: String::new(),
            from: None,
            to: None,
            keys: Vec::new(),
            reason: None,
        };
        let last = 2 * GENERATIONS_KEPT;
        for (number, place) in (1_u64..).zip(1..=last) {
            let bytes = if place == last { CONFIG_BYTES_MAX } else { GENERATION_TEXTS_BYTES_MAX / last };
            let mut targets = targets.clone();
            targets.push(OLD + u32::try_from(number).unwrap());
            let generation = Generation { number, at, targets };
            apply(&Event::Generation(generation, &"c".repeat(bytes)));
            let changes = vec![change.clone()];
            let (verdict, keys) = ("partial".to_owned(), Vec::new());
            apply(&Event::Settled(Settled { number, at, verdict, keys, changes, left_out: 0 }));
        }
        Context::of(&table)
    }

    #[test]
    fn the_largest_context_fits_in_a_frame() {
        let context = largest();
        let mut bytes = 0;
        for event in context.events(UnixMs::MAX) {
            let mut body = Vec::new();
            event.encode(&mut body);
            assert!(body.len() <= event.bytes_max());
            bytes += RECORD_HEADER_BYTES + body.len();
        }
        assert!(bytes > 3 << 20, "{bytes} B: it is the largest");
        assert!(bytes + (64 << 10) <= FRAME_BYTES_MAX, "{bytes} B");
    }
}
