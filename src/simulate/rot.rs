//! A bit of what was durable rots: within the promise, since a later frame is its witness.
//!
//! A reader refuses the record; an opening that reads it refuses the log and changes nothing; one that a checkpoint spares
//! the reading finds what the model has. Then the bit is right again.

use std::sync::Arc;

use super::disk::{Loss, SimDisk};
use super::invariant::Invariant;
use super::world::{Violation, World};
use crate::log::frame::{Frame, FrameKind, SEGMENT_HEADER_BYTES};
use crate::log::{LogOptions, Making, StoredRecord, recovery};

impl World {
    pub(super) fn rot(&mut self, seed: u64) -> Result<(), Violation> {
        self.turn()?;
        if self.engine.is_none() || self.disk.is_dead() {
            return Ok(());
        }
        self.rot_under_a_reader(seed)?;
        let image = self.disk.after(Loss::Process);
        image.unplan();
        let Some((name, bit)) = durable_bit(&image, seed) else { return Ok(()) };
        image.rot(&name, bit);
        let told = |what: &str| Err(Invariant::DamageRefused.broken(format!("bit {bit} of {name} has rotted: {what}")));
        let before = segments_of(&image);
        let options = LogOptions { making: Making::Stepped, ..self.options };
        let nothing = &mut |_, _: StoredRecord| Ok(());
        match recovery::open(Arc::new(image.clone()), options, [0; 16], nothing) {
            Ok(_) => return told("the log is opened"),
            Err(recovery::OpenError::Io { source, .. }) => return told(&format!("an I/O error: {source}")),
            Err(_) if segments_of(&image) != before => return told("a refused opening has changed the log"),
            Err(_) => {}
        }
        let mut other = self.fork(image.after(Loss::Process));
        match other.open(&[]) {
            Ok(()) => self.figures.count("rot", "not read, by a checkpoint's grace"),
            Err(what) if what.starts_with("the log cannot be opened") => self.figures.count("rot", "refused"),
            Err(what) => return told(&what),
        }
        Ok(())
    }

    /// A job's record has a flipped bit: it is not read, and the next one is.
    fn rot_under_a_reader(&mut self, seed: u64) -> Result<(), Violation> {
        let Some(engine) = &self.engine else { return Ok(()) };
        let homes: Vec<_> = engine.table().jobs().map(|(_, job)| job.home).collect();
        let Some(home) = usize::try_from(seed >> 32).ok().and_then(|at| homes.get(at % homes.len().max(1))) else {
            return Ok(());
        };
        let position = home.position();
        let bits = (crate::log::frame::RECORD_HEADER_BYTES + position.body as usize) * 8;
        let bit = position.offset as usize * 8 + usize::try_from(seed & 0xFFFF_FFFF).unwrap_or(0) % bits;
        let name = format!("{:010}.seg", position.segment);
        let reader = engine.reader();
        let read = || self.disk.quietly(|| reader.read(position, home.seq)).is_ok();
        if !self.disk.rot(&name, bit) {
            return Err(format!("the record of a live job is not in {name}"));
        }
        let while_rotten = read();
        self.disk.rot(&name, bit);
        if while_rotten || !read() {
            let how = format!("bit {bit} of {name} has rotted under a reader: read {while_rotten}");
            return Err(Invariant::DamageRefused.broken(how));
        }
        self.figures.count("rot", "noticed by a reader");
        Ok(())
    }
}

fn segments_of(disk: &SimDisk) -> Vec<(String, Arc<Vec<u8>>)> {
    disk.files().into_iter().filter(|(name, _)| name.ends_with(".seg")).collect()
}

/// A bit of a data frame that counts and has a witness that it was durable.
fn durable_bit(disk: &SimDisk, seed: u64) -> Option<(String, usize)> {
    let segments = segments_of(disk);
    let mut frames = Vec::new();
    let (mut durable, mut head) = (0, 1);
    for (name, bytes) in &segments {
        let mut at = SEGMENT_HEADER_BYTES;
        while let Some(frame) = Frame::decode(bytes.get(at..).unwrap_or_default()).filter(Frame::is_whole) {
            let header = frame.header;
            if crate::log::segment_number(name) != Some(header.segment) {
                // What a recycled file still has of its last life.
                break;
            }
            durable = durable.max(header.durable_up_to);
            head = head.max(header.head);
            frames.push((name, at, header));
            at += header.bytes as usize;
        }
    }
    frames.retain(|(_, _, header)| {
        let counts = header.kind == FrameKind::Data && header.segment >= head;
        counts && header.first_seq + u64::from(header.records) <= durable
    });
    let (name, at, header) = frames.get(usize::try_from(seed >> 32).ok()? % frames.len().max(1))?;
    let bit = usize::try_from(seed & 0xFFFF_FFFF).ok()? % (header.bytes as usize * 8);
    Some(((*name).clone(), at * 8 + bit))
}
