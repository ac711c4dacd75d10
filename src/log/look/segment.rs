//! Looking at one segment: from frame to frame, over what does not hold to what does again.

use std::ops::Range;

use bytes::Bytes;

use super::super::frame::{self, FRAME_ALIGN, FRAME_HEADER_BYTES, Frame, FrameHeader, FrameKind, RECORD_HEADER_BYTES};
use super::super::reader::{HEADER_END, StoredRecord};
use super::super::verdict::{self, Before, Behind, Stop};
use super::{Damage, FrameSeen, LookError, Looking, RecordSeen, Seen, Segment, io_error, read_error};
use crate::types::Seq;

impl<E: From<LookError>> Looking<'_, E> {
    /// Looks at one segment; says whether it was ended.
    pub(super) fn segment(&mut self, number: u32, segment: &Segment, tail: bool) -> Result<bool, E> {
        let mut frames = self.stream(number, segment, HEADER_END);
        let mut again = None;
        loop {
            let at = frames.offset;
            let read = frames.next_any().map_err(|error| read_error(self.disk, error))?;
            // At the tail a frame may be torn behind its header, as it may be anywhere else.
            let holds = |bytes: &Bytes| !tail || Frame::decode(bytes).is_some_and(|frame| frame.is_whole());
            if let Some((_, bytes, header)) = read.as_ref().filter(|(_, bytes, _)| holds(bytes)) {
                self.frame(number, at, bytes, header)?;
                if header.kind == FrameKind::End {
                    return Ok(true);
                }
                continue;
            }
            if self.live && again != Some(at) {
                // It may have been written just now, in the middle of the reading.
                again = Some(at);
                frames = self.stream(number, segment, at);
                continue;
            }
            let Some((next, header, durable_up_to)) = self.next_whole(number, segment, at)? else {
                return self.rest(number, segment, at, tail).map(|()| false);
            };
            let next_seq = self.before.next_seq.unwrap_or(1);
            let behind = Behind::Frames { durable_up_to };
            if tail && verdict::stop(true, false, true, next_seq, behind) == Stop::Tail {
                self.summary.torn_bytes = u64::from(next - at) + u64::from(header.bytes);
                return Ok(false);
            }
            if let Some((_, bytes, header)) = &read {
                // What holds in it is seen; the stream stands behind it.
                self.frame(number, at, bytes, header)?;
                continue;
            }
            self.lost_frames(number, segment, at..next, header.first_seq)?;
            frames = self.stream(number, segment, next);
        }
    }

    /// The next frame that holds behind a place that does not, and how far any frame behind says that the log was durable.
    fn next_whole(
        &self,
        number: u32,
        segment: &Segment,
        from: u32,
    ) -> Result<Option<(u32, FrameHeader, Seq)>, LookError> {
        let step = u32::try_from(FRAME_ALIGN).unwrap_or(8);
        let mut frames = self.stream(number, segment, from + step);
        let mut first: Option<(u32, FrameHeader, Seq)> = None;
        while frames.seek_magic().map_err(|error| read_error(self.disk, error))? {
            let here = frames.offset;
            match frames.next_any().map_err(|error| read_error(self.disk, error))? {
                Some((at, _, header)) => match &mut first {
                    None => first = Some((at, header, header.durable_up_to)),
                    Some((_, _, durable_up_to)) => *durable_up_to = header.durable_up_to.max(*durable_up_to),
                },
                None => frames.offset = here + step,
            }
        }
        Ok(first)
    }

    /// Nothing holds any more from here to the segment's end.
    fn rest(&mut self, number: u32, segment: &Segment, at: u32, tail: bool) -> Result<(), E> {
        let mut frames = self.stream(number, segment, at);
        let claim = frames.ahead(FRAME_HEADER_BYTES).map_err(|error| read_error(self.disk, error))?;
        let begun =
            claim.filter(|claim| Frame::begins_one_of(claim, &self.log_id, number)).and_then(frame::claimed_bytes);
        if tail {
            self.summary.torn_bytes = begun.map_or(0, |bytes| bytes as u64);
            return Ok(());
        }
        self.lost_frames(number, segment, at..u32::try_from(segment.bytes).unwrap_or(u32::MAX).max(at), Seq::MAX)
    }

    /// Frames that do not hold: tells them, and gives what of their records holds all the same. `next_seq`: seq of the first
    /// record behind, if one is known.
    fn lost_frames(&mut self, number: u32, segment: &Segment, place: Range<u32>, next_seq: Seq) -> Result<(), E> {
        let first = self.before.next_seq;
        let records = match first {
            Some(first) => self.records_without_frame(number, segment, &place, first..next_seq)?,
            None => Vec::new(),
        };
        let saved = records.iter().filter(|record| matches!(record, RecordSeen::Whole(_))).count();
        let known = next_seq != Seq::MAX;
        let what = match (saved, known) {
            (0, true) => "no frame holds here".to_owned(),
            (0, false) => "no frame holds from here to the end of the segment".to_owned(),
            (saved, _) => format!("no frame holds here; {saved} of its records hold by themselves"),
        };
        let bytes = u64::from(place.end - place.start);
        let seqs = first.map(|first| first..next_seq).filter(|seqs| records.is_empty() && known && !seqs.is_empty());
        self.damage(Damage { segment: number, offset: place.start, bytes, seqs, what })?;
        self.lost_records(number, place.start, &records)?;
        let epoch = self.before.epoch;
        if let Some(first_seq) = self.before.next_seq.filter(|_| !records.is_empty()) {
            self.summary.records += saved as u64;
            self.before.next_seq = Some(first_seq + records.len() as u64);
            let count = u32::try_from(records.len()).unwrap_or(u32::MAX);
            let header = FrameHeader {
                bytes: 0,
                records: count,
                log_id: self.log_id,
                segment: number,
                epoch,
                first_seq,
                durable_up_to: first_seq,
                previous: 0,
                head: self.summary.head,
                kind: FrameKind::Data,
            };
            (self.see)(Seen::Frame(FrameSeen { segment: number, offset: place.start, header, records }))?;
        }
        self.before.previous = None;
        if known {
            self.before.next_seq = Some(next_seq);
        }
        Ok(())
    }

    /// Tells the records of a frame without a header that are lost, those that stand together as one.
    fn lost_records(&mut self, number: u32, frame: u32, records: &[RecordSeen]) -> Result<(), E> {
        let mut at = frame + u32::try_from(FRAME_HEADER_BYTES).unwrap_or(0);
        let mut run: Option<Damage> = None;
        for record in records {
            let body = match record {
                RecordSeen::Whole(record) => record.position.body,
                RecordSeen::Lost { body, .. } => *body,
            };
            let bytes = body + u32::try_from(RECORD_HEADER_BYTES).unwrap_or(0);
            match (record, &mut run) {
                (RecordSeen::Lost { seq, .. }, Some(Damage { bytes: all, seqs: Some(seqs), .. })) => {
                    *all += u64::from(bytes);
                    seqs.end = seq + 1;
                }
                (RecordSeen::Lost { seq, .. }, _) => {
                    let what = "a record does not hold".to_owned();
                    let seqs = Some(*seq..seq + 1);
                    run = Some(Damage { segment: number, offset: at, bytes: bytes.into(), seqs, what });
                }
                (RecordSeen::Whole(_), _) => run.take().map_or(Ok(()), |damage| self.damage(damage))?,
            }
            at += bytes;
        }
        run.map_or(Ok(()), |damage| self.damage(damage))
    }

    /// The records of one frame whose header is lost, as far as they hold at the places where they should be. One whose
    /// body does not hold is passed over if the next one does.
    fn records_without_frame(
        &self,
        number: u32,
        segment: &Segment,
        place: &Range<u32>,
        seqs: Range<Seq>,
    ) -> Result<Vec<RecordSeen>, LookError> {
        let most = (place.end - place.start) as usize;
        let mut bytes = vec![0; most.min(crate::limits::FRAME_BYTES_MAX + FRAME_HEADER_BYTES)];
        let io = |source| io_error(self.disk, Some(number), source);
        let read = segment.file.read_at(u64::from(place.start), &mut bytes).map_err(io)?;
        bytes.truncate(read);
        let bytes = Bytes::from(bytes);
        let mut records = Vec::new();
        let mut at = FRAME_HEADER_BYTES;
        let record = |at: usize, seq| {
            let offset = u32::try_from(at).ok()?;
            frame::decode_record(seq, offset, bytes.get(at..)?)
        };
        for seq in seqs.clone() {
            if let Some(whole) = record(at, seq) {
                records.push(RecordSeen::Whole(stored(number, place.start, whole, &bytes)));
                at += RECORD_HEADER_BYTES + whole.body.len();
                continue;
            }
            // Where the next one begins: most often where this one says that it ends, else where one is found.
            let claimed = bytes.get(at..).and_then(frame::claimed_body).unwrap_or(usize::MAX);
            let claimed = at.saturating_add(RECORD_HEADER_BYTES).saturating_add(claimed);
            let mut places = std::iter::once(claimed).chain(at + RECORD_HEADER_BYTES..bytes.len());
            let Some(next) = places.find(|place| record(*place, seq + 1).is_some()) else {
                // The last ones of the frame take what is left of its place.
                let (rest, count) = (bytes.len().saturating_sub(at), seqs.end.saturating_sub(seq));
                let fits = bytes.len() == most
                    && usize::try_from(count).is_ok_and(|count| count <= rest / RECORD_HEADER_BYTES);
                if fits && !records.is_empty() {
                    let spare = rest - usize::try_from(count).unwrap_or(0) * RECORD_HEADER_BYTES;
                    records.extend((seq..seqs.end).map(|lost| {
                        let body = if lost + 1 == seqs.end { u32::try_from(spare).unwrap_or(0) } else { 0 };
                        RecordSeen::Lost { seq: lost, body }
                    }));
                }
                break;
            };
            let body = next - at - RECORD_HEADER_BYTES;
            records.push(RecordSeen::Lost { seq, body: u32::try_from(body).unwrap_or(0) });
            at = next;
        }
        Ok(records)
    }

    /// A frame whose header holds.
    fn frame(&mut self, number: u32, at: u32, bytes: &Bytes, header: &FrameHeader) -> Result<(), E> {
        if let Err(what) = verdict::follows(&self.before, header) {
            let next = self.before.next_seq.unwrap_or(header.first_seq);
            let seqs = (next < header.first_seq).then_some(next..header.first_seq);
            self.damage(Damage { segment: number, offset: at, bytes: u64::from(header.bytes), seqs, what })?;
            if header.first_seq < next {
                // What it holds was seen before.
                return Ok(());
            }
        }
        let Some(frame) = Frame::decode(bytes) else { return Ok(()) };
        let mut records = Vec::new();
        let mut place = FRAME_HEADER_BYTES;
        for (record, seq) in frame.records().zip(header.first_seq..) {
            let body = bytes.get(place..).and_then(frame::claimed_body).unwrap_or(0);
            if let Some(record) = record {
                records.push(RecordSeen::Whole(stored(number, at, record, bytes)));
                self.summary.records += 1;
            } else {
                let offset = at + u32::try_from(place).unwrap_or(0);
                let body = u32::try_from(body).unwrap_or(0);
                records.push(RecordSeen::Lost { seq, body });
                let lost = u64::from(body) + RECORD_HEADER_BYTES as u64;
                let what = "a record does not hold".to_owned();
                self.damage(Damage { segment: number, offset, bytes: lost, seqs: Some(seq..seq + 1), what })?;
            }
            place += RECORD_HEADER_BYTES + body;
        }
        if self.summary.frames == 0 {
            self.summary.first_seq = header.first_seq;
        }
        self.summary.frames += 1;
        self.summary.epoch = header.epoch;
        self.before = Before {
            next_seq: Some(header.first_seq + u64::from(header.records)),
            previous: Some(frame.digest),
            epoch: header.epoch,
        };
        (self.see)(Seen::Frame(FrameSeen { segment: number, offset: at, header: *header, records }))
    }
}

fn stored(segment: u32, frame_at: u32, record: frame::RecordRef<'_>, bytes: &Bytes) -> StoredRecord {
    StoredRecord::new(record.position(segment, frame_at), record, bytes.slice_ref(record.body))
}
