//! Bodies of `POST /v1/jobs`: any bytes are a job or a refusal, one object or a line each, however they come in pieces;
//! and what is accepted is what a plain JSON reader finds in the text.
#![no_main]

mod bounded;

use biotope::job::intake::{IntakeLimits, compact_json, parse_job};
use biotope::job::lines::{Line, Lines};
use biotope::job::new::NewJob;
use biotope::types::UnixMs;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const LIMITS: IntakeLimits = IntakeLimits { payload_max: 300 };
const NOW: UnixMs = 1_764_000_000_000;
const LINE_BYTES_MAX: usize = 400;

fuzz_target!(|data: &[u8]| {
    let Some((first, body)) = data.split_first() else { return };
    let default_type = "mail".parse().ok();
    let default_type = default_type.as_ref().filter(|_| first & 1 == 1);
    if let Ok(job) = parse_job(body, default_type, LIMITS, NOW) {
        as_a_plain_reader_has_it(&job, body);
    }
    let whole = cut(&[body]);
    let piece = usize::from(first >> 1) + 1;
    let pieces: Vec<&[u8]> = body.chunks(piece).collect();
    assert_eq!(cut(&pieces), whole, "it matters where the pieces end");
    for line in whole.iter().filter_map(|line| line.text.as_ref()) {
        assert!(line.len() <= LINE_BYTES_MAX && !line.contains(&b'\n'));
        drop(parse_job(line, default_type, LIMITS, NOW));
    }
});

fn cut(pieces: &[&[u8]]) -> Vec<Line> {
    let mut lines = Lines::new(LINE_BYTES_MAX);
    let mut all: Vec<Line> = pieces.iter().flat_map(|piece| lines.take(piece)).collect();
    all.extend(lines.finish());
    all
}

fn as_a_plain_reader_has_it(job: &NewJob, body: &[u8]) {
    let text = std::str::from_utf8(body).expect("a job is UTF-8");
    let payload = std::str::from_utf8(&job.payload).expect("a payload is UTF-8");
    assert!(payload.len() <= LIMITS.payload_max && !payload.contains('\n'));
    assert_eq!(compact_json(payload), payload.as_bytes(), "the payload is stored with white space");
    // Numbers beyond a plain reader's range, and surrogates without their other half, are JSON all the same.
    let Ok(Value::Object(members)) = serde_json::from_str::<Value>(text) else { return };
    let text_of = |name: &str| members.get(name).and_then(Value::as_str);
    if let Some(of) = text_of("type") {
        assert_eq!(job.worker_type.as_str(), of);
    }
    assert_eq!(job.task, text_of("task").unwrap_or_default());
    assert_eq!(job.tenant.as_deref(), text_of("tenant"));
    assert_eq!(job.id.as_ref().map(|id| id.as_str()), text_of("id"));
    assert_eq!(job.idempotency_key.as_ref().map(|key| key.as_str()), text_of("idempotency_key"));
    let number = |name: &str| members.get(name).and_then(Value::as_u64);
    assert_eq!(u64::from(job.priority.get()), number("priority").unwrap_or(5));
    assert_eq!(job.max_attempts.map(u64::from), number("max_attempts"));
    let trace = text_of("traceparent").map(|text| text.parse().expect("a trace that was taken"));
    assert_eq!(job.traceparent, trace);
    assert_eq!(job.min_version.as_ref().map(|label| label.as_str()), text_of("min_version"));
    let stored: Value = serde_json::from_str(payload).expect("a payload is JSON");
    assert_eq!(&stored, members.get("payload").unwrap_or(&Value::Null));
}
