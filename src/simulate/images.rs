//! Every image that a power cut may leave of the small workloads: enumerated, nothing left to chance.
//!
//! A workload is cut at every call of the disk. From each cut every subset of the unsynced writes is left, at most the
//! last [`PENDING`] of them free, every one of them torn at every sector, and every prefix of the unsynced names. Each
//! image is opened, and held against the model; and opening it is cut itself, at every call, twice and three times over,
//! after which it must give the same records and the same bytes as if it never had been.

use std::collections::HashSet;
use std::sync::Arc;

use super::disk::{Fault, Loss, SimDisk};
use super::invariant::Invariant;
use super::op::Op;
use super::workloads::Workload;
use super::world::{Violation, World};
use crate::job::event::Event;
use crate::job::table::Table;
use crate::log::{LogOptions, Making, StoredRecord, recovery};

/// Unsynced writes that are free to be there or not; older ones are there. A commit has one.
const PENDING: usize = 6;
/// A torn write of up to so many sectors has every subset of them, a larger one every prefix, and all but each one.
const SECTORS: usize = 6;

/// What was enumerated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImageCounts {
    /// Workloads.
    pub workloads: u64,
    /// Calls of the disk at which one was cut.
    pub cuts: u64,
    /// Images that these left.
    pub images: u64,
    /// Of them, those that differ, in themselves or in what was acknowledged before; each was opened.
    pub distinct: u64,
    /// Openings that were cut themselves, and done again.
    pub recoveries: u64,
}

impl ImageCounts {
    /// Adds others.
    pub fn add(&mut self, other: Self) {
        self.workloads += other.workloads;
        self.cuts += other.cuts;
        self.images += other.images;
        self.distinct += other.distinct;
        self.recoveries += other.recoveries;
    }
}

/// The world in which a workload begins.
pub(super) fn prepare(workload: &Workload) -> Result<World, Violation> {
    let mut world = World::small();
    for op in &workload.before {
        world.step(op)?;
    }
    if !workload.before.is_empty() {
        world.turn()?;
    }
    Ok(world)
}

/// Does a workload: a turn after every operation.
pub(super) fn perform(world: &mut World, ops: &[Op]) -> Result<(), Violation> {
    for op in ops {
        world.step(op)?;
        if !world.fallen {
            world.step(&Op::Turn)?;
        }
    }
    Ok(())
}

/// Enumerates one workload.
pub(super) fn enumerate(workload: &Workload) -> Result<ImageCounts, Violation> {
    let mut counts = ImageCounts { workloads: 1, ..ImageCounts::default() };
    let mut seen = Seen::default();
    for cut in 0_u64.. {
        let mut world = prepare(workload)?;
        world.stops_at_fault = true;
        world.disk.plan(cut, Fault::Power);
        perform(&mut world, &workload.ops)?;
        let whole = !world.fallen;
        counts.cuts += 1;
        each_image(&world.disk, |image, how| {
            counts.images += 1;
            let told = |what: Violation| format!("cut at call {cut}, {how:?}: {what}");
            seen.check(&world, image, &mut counts).map_err(told)
        })?;
        if whole {
            return Ok(counts);
        }
    }
    Ok(counts)
}

/// Calls `then` with every image that a power cut may leave now, and how it came about.
fn each_image(
    disk: &SimDisk,
    mut then: impl FnMut(SimDisk, &dyn std::fmt::Debug) -> Result<(), Violation>,
) -> Result<(), Violation> {
    #[derive(Debug)]
    #[expect(dead_code, reason = "read by Debug")]
    struct How {
        names: usize,
        writes: u32,
        torn: Option<(usize, u64)>,
    }
    let (namings, sectors) = disk.unsynced();
    let free = sectors.len().min(PENDING);
    let fixed = sectors.len() - free;
    for names in 0..=namings {
        for writes in 0..1_u32 << free {
            let keep = |number: usize| number < fixed || writes >> (number - fixed) & 1 == 1;
            let mut image = |torn: Option<(usize, u64)>| {
                let sector = |at: usize| torn.is_none_or(|(_, there)| there >> at.min(63) & 1 == 1);
                let image = disk.after_exactly(names, keep, torn.map(|(number, _)| number), sector);
                then(image, &How { names, writes, torn })
            };
            image(None)?;
            for (number, sectors) in sectors.iter().enumerate().filter(|(number, _)| keep(*number)) {
                for there in torn_masks(*sectors) {
                    image(Some((number, there)))?;
                }
            }
        }
    }
    Ok(())
}

/// Which sectors of a torn write may be there.
fn torn_masks(sectors: usize) -> Vec<u64> {
    let all = (1_u64 << sectors.min(63)) - 1;
    if sectors <= SECTORS {
        return (1..all).collect();
    }
    let prefixes = (1..sectors).map(|there| (1_u64 << there.min(63)) - 1);
    let holes = (0..sectors).map(|hole| all & !(1_u64 << hole.min(63)));
    prefixes.chain(holes).collect()
}

/// What was looked at already.
#[derive(Default)]
struct Seen {
    /// Images by what the model had acknowledged.
    held: HashSet<(u64, u64)>,
    /// Images whose opening was cut.
    cut: HashSet<u64>,
}

impl Seen {
    fn check(&mut self, world: &World, image: SimDisk, counts: &mut ImageCounts) -> Result<(), Violation> {
        let print = image.fingerprint();
        if self.cut.insert(print) {
            counts.recoveries += cut_recoveries(&image, world.options)?;
        }
        if self.held.insert((print, world.model.fingerprint())) {
            counts.distinct += 1;
            let mut after = world.fork(image);
            after.open(&[])?;
            // I6: what was recovered is found again, by a process and after another loss of power.
            after.crash(Loss::Process, &[])?;
            after.crash(Loss::Power(counts.images), &[])?;
            after.settle()?;
        }
        Ok(())
    }
}

/// What opening a log gives.
#[derive(PartialEq, Eq)]
struct Recovered {
    records: Vec<u8>,
    files: std::collections::BTreeMap<String, Arc<Vec<u8>>>,
}

/// Opens an image; `None` if power was lost before it was open.
fn recover(disk: &SimDisk, options: LogOptions) -> Result<Option<Recovered>, Violation> {
    let options = LogOptions { making: Making::Stepped, ..options };
    let mut records = Vec::new();
    let mut table: Option<Table> = None;
    let opened =
        recovery::open(Arc::new(disk.clone()), options, *b"a simulated log.", &mut |log_id, record: StoredRecord| {
            let event = Event::decode(record.kind, record.version, &record.body).map_err(|error| error.to_string())?;
            let table = table.get_or_insert_with(|| Table::new(log_id));
            table.apply(record.seq, record.position, &event).map_err(|error| error.to_string())?;
            records.extend_from_slice(&record.seq.to_le_bytes());
            records.extend_from_slice(&[record.kind, record.version, u8::from(record.joined)]);
            records.extend_from_slice(&record.body);
            Ok(())
        });
    match opened {
        Ok(_) => Ok(Some(Recovered { records, files: disk.files() })),
        Err(_) if disk.has_lost_power() => Ok(None),
        Err(error) => Err(format!("the log cannot be opened: {error}")),
    }
}

/// Cuts the opening of an image at every call, and the opening after that again at the same call and one later: in the
/// end it gives what it gives uncut. Says how many were cut.
fn cut_recoveries(image: &SimDisk, options: LogOptions) -> Result<u64, Violation> {
    let whole = recover(&image.after(Loss::Process), options)?.ok_or("power was lost of itself")?;
    let mut cuts = 0;
    for cut in 0_u64.. {
        let first = image.after(Loss::Process);
        first.plan(cut, Fault::Power);
        if recover(&first, options)?.is_some() {
            break;
        }
        for left in [Left::Nothing, Left::Everything, Left::Names, Left::Bytes] {
            let second = left.of(&first);
            cuts += 1;
            for again in [cut, cut + 1] {
                let third = second.after(Loss::Process);
                third.plan(again, Fault::Power);
                let third = match recover(&third, options)? {
                    Some(_) => third.after(Loss::Process),
                    None => left.of(&third),
                };
                cuts += 1;
                expect_same(&third, options, &whole, || format!("opening cut at calls {cut} and {again}, {left:?}"))?;
            }
            expect_same(&second, options, &whole, || format!("opening cut at call {cut}, {left:?}"))?;
        }
    }
    Ok(cuts)
}

fn expect_same(
    disk: &SimDisk,
    options: LogOptions,
    whole: &Recovered,
    told: impl Fn() -> String,
) -> Result<(), Violation> {
    disk.unplan();
    let again = recover(disk, options).map_err(|what| format!("{}: {what}", told()))?;
    if again.as_ref() == Some(whole) {
        Ok(())
    } else {
        Err(Invariant::RecoveryRepeats.broken(format!("{}: it gives another log", told())))
    }
}

/// What the cut of an opening leaves of what was not synced.
#[derive(Debug, Clone, Copy)]
enum Left {
    Nothing,
    Everything,
    Names,
    Bytes,
}

impl Left {
    fn of(self, disk: &SimDisk) -> SimDisk {
        let names = matches!(self, Self::Everything | Self::Names);
        let bytes = matches!(self, Self::Everything | Self::Bytes);
        disk.after_exactly(if names { usize::MAX } else { 0 }, |_| bytes, None, |_| true)
    }
}
