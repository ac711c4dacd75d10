//! The log's end at an opening: which segment is written, where its valid frames end, and what lies behind them. Found, and what the
//! disk has to do there done, while others read a checkpoint.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::super::disk::Disk;
use super::super::frame::{FRAME_ALIGN, FRAME_HEADER_BYTES, Frame, FrameHeader, FrameKind, claimed_bytes};
use super::super::meanwhile::Meanwhile;
use super::super::reader::{FrameStream, HEADER_END, ReadError};
use super::super::tail::{Copying, Tail};
use super::super::verdict::{self, Behind, LastFrames, Stop, Wrong};
use super::super::{LogId, LogOptions};
use super::{Found, OpenError, Opening};
use crate::types::Seq;

/// The segments that are there.
pub(super) struct Segments {
    pub(super) log_id: LogId,
    /// Those below the last gap in their numbers.
    pub(super) strays: Vec<Found>,
    /// Those from there on.
    pub(super) found: Vec<Found>,
}

/// The end of the log, and what is done there while the rest is read.
pub(super) struct End {
    /// Places among the segments of the head, and of the one that is written.
    pub(super) skip: usize,
    pub(super) active: usize,
    /// That one.
    pub(super) last: Found,
    pub(super) tail: Tail,
    pub(super) copying: Copying,
    pub(super) past: Meanwhile<Result<PastEnd, ReadError>>,
}

impl End {
    fn find(disk: &Arc<dyn Disk>, options: LogOptions, segments: &Arc<Segments>) -> Result<Self, OpenError> {
        let opening = Opening::new(disk.as_ref(), options);
        let Segments { log_id, strays, found } = segments.as_ref();
        let (active, head, end) = opening.tail_and_head(strays, found, *log_id)?;
        let (Some(first), Some(last)) = (found.first(), found.get(active)) else {
            return Err(opening.corrupt(head, 0, "the tail is missing"));
        };
        let tail = Tail { file: Arc::clone(&last.file), header: last.header, end, head, options };
        let copying = Copying::begin(disk, tail.clone());
        let (of, log_id) = (last.clone(), *log_id);
        let past = Meanwhile::begin(options.making, "past-end", move || past_end(&of, log_id, end));
        Ok(Self { skip: (head - first.number) as usize, active, last: last.clone(), tail, copying, past })
    }
}

/// The end of the log, which may still be looked for.
pub(super) struct Ending<'a> {
    disk: &'a Arc<dyn Disk>,
    options: LogOptions,
    segments: &'a Arc<Segments>,
    looking: Option<Meanwhile<Result<End, OpenError>>>,
    found: Option<End>,
}

impl<'a> Ending<'a> {
    pub(super) fn begin(disk: &'a Arc<dyn Disk>, options: LogOptions, segments: &'a Arc<Segments>) -> Self {
        let (on, among) = (Arc::clone(disk), Arc::clone(segments));
        let looking = Meanwhile::begin(options.making, "end", move || End::find(&on, options, &among));
        Self { disk, options, segments, looking: Some(looking), found: None }
    }

    pub(super) fn end(&mut self) -> Result<End, OpenError> {
        let found = self.found.take().map(Ok).or_else(|| self.looking.take()?.end());
        found.unwrap_or_else(|| End::find(self.disk, self.options, self.segments))
    }

    /// Places among the segments of those that count.
    pub(super) fn reach(&mut self) -> Result<RangeInclusive<usize>, OpenError> {
        let end = self.end()?;
        let reach = end.skip..=end.active;
        self.found = Some(end);
        Ok(reach)
    }
}

/// How far the valid frames of a segment go.
struct Extent {
    last: Option<FrameHeader>,
    /// Where they end.
    end: u32,
    ended: bool,
    /// No frame is whole, and yet something like one begins there.
    begun: bool,
}

impl Opening<'_> {
    /// Place in `found` of the segment that is written, the number of the head, and where the valid frames of that segment
    /// end.
    pub(super) fn tail_and_head(
        &self,
        strays: &[Found],
        found: &[Found],
        log_id: LogId,
    ) -> Result<(usize, u32, u32), OpenError> {
        let (mut last, mut begun, mut end) = (None, None, HEADER_END);
        for (at, segment) in found.iter().enumerate().rev() {
            let extent = self.extent(segment, log_id)?;
            if extent.begun {
                begun = begun.or(Some(at));
            }
            if let Some(frame) = extent.last {
                last = Some(LastFrames { at, ended: extent.ended, head: frame.head });
                end = if extent.ended { HEADER_END } else { extent.end };
                break;
            }
        }
        let segments: Vec<_> = found.iter().map(|segment| (segment.number, segment.header.head)).collect();
        let reach = verdict::reach(&segments, last, begun).map_err(|wrong| match (wrong, strays.last()) {
            // What is missing counts: the first file of the gap.
            (Wrong::Missing { .. }, Some(stray)) => self.wrong(Wrong::Missing { segment: stray.number + 1 }),
            (wrong, _) => self.wrong(wrong),
        })?;
        Ok((reach.active, reach.head, end))
    }

    fn extent(&self, segment: &Found, log_id: LogId) -> Result<Extent, OpenError> {
        let mut frames = FrameStream::new(segment.number, &segment.file, log_id, HEADER_END);
        let mut extent = Extent { last: None, end: HEADER_END, ended: false, begun: false };
        while let Some((_, bytes, header)) = frames.next_any().map_err(|error| self.read_error(error))? {
            if !is_whole(&bytes) {
                break;
            }
            extent =
                Extent { last: Some(header), end: frames.offset, ended: header.kind == FrameKind::End, begun: false };
            if extent.ended {
                break;
            }
        }
        if extent.last.is_none() {
            frames.offset = HEADER_END;
            let first = frames.ahead(FRAME_HEADER_BYTES).map_err(|error| self.read_error(error))?;
            extent.begun = first.is_some_and(|first| Frame::begins_one_of(first, &log_id, segment.number));
        }
        Ok(extent)
    }

    /// Looks for a witness that something behind the end of the valid frames was durable. Returns the bytes to cut.
    pub(super) fn check_tail(&self, segment: u32, end: u32, next_seq: Seq, past: &PastEnd) -> Result<u64, OpenError> {
        let witness = past.frames.iter().find(|(_, durable_up_to)| is_witness(next_seq, *durable_up_to));
        witness.map_or(Ok(u64::from(past.cut_to - end)), |(here, durable_up_to)| {
            let what = format!(
                "records {next_seq} to {} were durable and are damaged; a frame at offset {here} is a witness",
                durable_up_to - 1
            );
            Err(self.corrupt(segment, end, what))
        })
    }
}

/// What lies behind the end of a segment's valid frames.
pub(super) struct PastEnd {
    /// Where it ends.
    cut_to: u32,
    /// Frames that are valid, each by where it lies and up to which record it says that the log was durable.
    frames: Vec<(u32, Seq)>,
}

/// Looks past the end of a segment's valid frames.
pub(super) fn past_end(segment: &Found, log_id: LogId, end: u32) -> Result<PastEnd, ReadError> {
    let segment_no = segment.number;
    let mut stream = FrameStream::new(segment_no, &segment.file, log_id, end);
    let mut past = PastEnd { cut_to: end, frames: Vec::new() };
    let claim = stream.ahead(FRAME_HEADER_BYTES)?;
    if let Some(claim) = claim.filter(|claim| Frame::begins_one_of(claim, &log_id, segment_no)) {
        past.cut_to += claimed_bytes(claim).and_then(|bytes| u32::try_from(bytes).ok()).unwrap_or(0);
    }
    while stream.seek_magic()? {
        let here = stream.offset;
        match stream.next_any()? {
            Some((_, _, header)) => {
                past.frames.push((here, header.durable_up_to));
                past.cut_to = past.cut_to.max(stream.offset);
            }
            None => stream.offset = here + u32::try_from(FRAME_ALIGN).unwrap_or(8),
        }
    }
    Ok(past)
}

/// Whether a frame's records hold, too.
fn is_whole(bytes: &[u8]) -> bool {
    Frame::decode(bytes).is_some_and(|frame| frame.records().all(|record| record.is_some()))
}

/// Whether a frame behind the last whole one tells that something there was durable.
fn is_witness(next_seq: Seq, durable_up_to: Seq) -> bool {
    verdict::stop(true, false, true, next_seq, Behind::Frames { durable_up_to }) == Stop::Witnessed
}
