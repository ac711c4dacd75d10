//! Segment headers, frames, records and their bodies, out of any bytes: no panic, nothing read past the end, and what is
//! read can be written again, byte by byte.
#![no_main]

mod bounded;

use biotope::job::event::{Event, decode_home};
use biotope::log::frame::{
    FRAME_HEADER_BYTES, Frame, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader, decode_record, put_record,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    segment_header(data);
    frame(data);
    record(data);
    let Some(([kind, version], body)) = data.split_first_chunk() else { return };
    event(*kind, *version, body);
});

fn segment_header(data: &[u8]) {
    if let Ok(header) = SegmentHeader::decode(data) {
        assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
    }
    // The checksum made right, so that what it guards is reached, too.
    let Some(bytes) = data.get(16..SEGMENT_HEADER_BYTES) else { return };
    let header = SegmentHeader {
        log_id: bytes[..16].try_into().expect("16 bytes"),
        segment: u32::from_le_bytes(bytes[16..20].try_into().expect("4 bytes")),
        head: u32::from_le_bytes(bytes[20..24].try_into().expect("4 bytes")),
        bytes: u64::from_le_bytes(bytes[24..32].try_into().expect("8 bytes")),
        origin: bytes[32..48].try_into().expect("16 bytes"),
    };
    // Segments beyond half the numbers are refused.
    assert_eq!(SegmentHeader::decode(&header.encode()).ok(), Some(header).filter(|header| header.segment >> 31 == 0));
}

fn frame(data: &[u8]) {
    let Some(frame) = Frame::decode(data) else { return };
    let bytes = frame.header.bytes as usize;
    assert!(bytes <= data.len() && bytes >= FRAME_HEADER_BYTES);
    let mut crcs = Vec::new();
    let mut again = vec![0; FRAME_HEADER_BYTES];
    let mut whole = true;
    for record in frame.records() {
        let Some(record) = record else {
            whole = false;
            break;
        };
        let at = record.offset as usize + RECORD_HEADER_BYTES;
        assert_eq!(data[..bytes].get(at..at + record.body.len()), Some(record.body));
        let head = [record.kind, record.version, record.flags];
        let put = put_record(&mut again, &mut crcs, record.seq, head, |out| out.extend_from_slice(record.body));
        assert_eq!(put, record.offset as usize);
    }
    if whole {
        again.resize(bytes, 0);
        assert_eq!(frame.header.encode_into(&mut again, &crcs), frame.digest);
        let records = again.len().min(data.len());
        assert_eq!(again.get(..records), data.get(..records), "another frame came out than went in");
    }
}

fn record(data: &[u8]) {
    let Some((seq, bytes)) = data.split_first_chunk() else { return };
    let seq = u64::from_le_bytes(*seq);
    if let Some(record) = decode_record(seq, 0, bytes) {
        assert!(record.body.len() + RECORD_HEADER_BYTES <= bytes.len());
    }
    let (mut frame, mut crcs) = (Vec::new(), Vec::new());
    let head = [1, 2, 3];
    put_record(&mut frame, &mut crcs, seq, head, |out| out.extend_from_slice(bytes));
    let record = decode_record(seq, 0, &frame).expect("what was written can be read");
    assert_eq!((record.body, [record.kind, record.version, record.flags]), (bytes, head));
    assert!(decode_record(seq ^ 1, 0, &frame).is_none(), "a record is read under another seq");
}

fn event(kind: u8, version: u8, body: &[u8]) {
    if let Ok(event) = Event::decode(kind, version, body) {
        let mut written = Vec::new();
        event.encode(&mut written);
        assert!(written.len() <= event.bytes_max(), "{} bytes, {} were promised", written.len(), event.bytes_max());
        let again = Event::decode(event.kind() as u8, version, &written).expect("what was written can be read");
        assert_eq!(again, event);
    }
    if let Ok((_, payload)) = decode_home(kind, body) {
        assert!(payload.len() <= body.len());
    }
}
