//! What room there is: in the frame, in the segment, for a next one; and what the log takes on its disk.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Log, LogFigures, SEGMENT_RESERVE};
use crate::log::disk::Free;
use crate::log::frame::{FRAME_ALIGN, FRAME_HEADER_BYTES, RECORD_HEADER_BYTES};

impl Log {
    /// Why no new segment can be made, if none is ready: then new jobs should be refused.
    pub fn full(&self) -> Option<Arc<String>> {
        if self.has_spare() { None } else { self.maker.trouble() }
    }

    /// Whether it is space that no new segment can be made for.
    pub fn wants_space(&self) -> bool {
        !self.has_spare() && self.maker.wants_space()
    }

    /// Whether the head is on stable storage as it is.
    pub fn is_head_durable(&self) -> bool {
        self.head_durable == self.head
    }

    /// Whether a file will be free to be written again without anything more that is passed: one is, or it is about to be.
    pub fn frees_a_segment(&self) -> bool {
        !self.is_head_durable() || self.maker.keeps() || !self.retired.is_empty()
    }

    /// How much room there is where it lies, if that can be known.
    pub fn free(&self) -> Option<Free> {
        self.disk.free()
    }

    /// Where it lies.
    pub fn place(&self) -> PathBuf {
        self.disk.place()
    }

    fn has_spare(&self) -> bool {
        self.spare.is_some() || self.maker.is_ready()
    }

    /// Waits until the next segment is ready, or it is known that it cannot be made just now; says whether it is ready.
    pub fn await_spare(&mut self) -> bool {
        // A log that is poisoned may have taken the one that was ready, and ordered no other.
        self.poisoned.is_none() && (self.spare.is_some() || self.maker.settle())
    }

    /// Makes the next segment, if that was not done yet: for a log whose segments no thread makes.
    pub fn make_ahead(&mut self) {
        self.maker.step();
    }

    /// Bytes that the active segment still takes.
    pub fn room(&self) -> u64 {
        let used = u64::from(self.offset) + self.frame.len() as u64 + SEGMENT_RESERVE as u64;
        self.active_bytes.saturating_sub(used)
    }

    /// Figures for people.
    pub fn figures(&self) -> LogFigures {
        let spares = u64::from(self.has_spare());
        let segments = u64::from(self.active.number - self.head) + 1 + spares + u64::from(self.maker.keeps());
        let held = self.retired.len() as u64;
        LogFigures {
            head: self.head,
            active: self.active.number,
            durable_up_to: self.durable_up_to,
            disk_bytes: (segments + held) * self.options.segment_bytes,
            ordered_bytes: (1 - spares) * self.options.segment_bytes,
            held_bytes: held * self.options.segment_bytes,
            commits: self.commits,
            written_bytes: self.written_bytes,
        }
    }

    /// Most bytes that the bodies of so many records may have together, if they are one group: with them a frame is full.
    pub fn group_bytes_max(&self, records: usize) -> usize {
        self.options.frame_bytes_max.saturating_sub(FRAME_HEADER_BYTES + FRAME_ALIGN + records * RECORD_HEADER_BYTES)
    }

    /// Whether records with bodies of these sizes, all of one group, fit in the frame and the segment as they stand.
    pub fn has_room(&self, bodies: usize, body_bytes: usize) -> bool {
        let more = bodies * RECORD_HEADER_BYTES + body_bytes + FRAME_ALIGN;
        let frame = self.frame.len() + more;
        let segment = usize::try_from(self.active_bytes).unwrap_or(usize::MAX) - self.offset as usize;
        frame <= self.options.frame_bytes_max && frame + SEGMENT_RESERVE <= segment
    }
}
