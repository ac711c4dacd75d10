//! Untrusted JSON in, [`NewJob`] or a refusal out.
//!
//! Pure. The only parser of jobs: HTTP, the command line and the follow-up jobs of workers all come through here.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::new::{NewJob, Start};
use super::trace::TraceParent;
use crate::config::units;
use crate::limits::{DELAY_MAX, MAX_ATTEMPTS_MAX, PRIORITY_MAX, TASK_BYTES_MAX, TENANT_BYTES_MAX};
use crate::refusal::Refusal;
use crate::types::{ChosenId, Label, Priority, UnixMs, WorkerType, millis};

/// Bounds that depend on the config.
#[derive(Debug, Clone, Copy)]
pub struct IntakeLimits {
    /// `[log] payload_max`, bytes.
    pub payload_max: usize,
}

/// Members of a job, in the order in which the reference lists them.
const MEMBERS: [&str; 13] = [
    "type",
    "task",
    "payload",
    "id",
    "priority",
    "tenant",
    "run_at",
    "delay",
    "expires_at",
    "max_attempts",
    "min_version",
    "idempotency_key",
    "traceparent",
];

/// Parses one job object; `default_type` stands in where `type` is absent. `now` is what `expires_at` is compared with.
///
/// # Errors
/// `InvalidJson` with its place, `InvalidJob` naming the member, `TooLarge` for the payload.
pub fn parse_job(
    text: &[u8],
    default_type: Option<&WorkerType>,
    limits: IntakeLimits,
    now: UnixMs,
) -> Result<NewJob, Refusal> {
    let text = std::str::from_utf8(text).map_err(|error| invalid_utf8(text, error.valid_up_to()))?;
    let members = members(text)?;
    let mut job = Draft::default();
    for (name, value) in members {
        job.take(&name, value, limits)?;
    }
    job.finish(default_type, now)
}

fn invalid_utf8(text: &[u8], valid: usize) -> Refusal {
    let before = text.get(..valid).unwrap_or_default();
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
    Refusal::InvalidJson { line, column, detail: "not UTF-8".to_owned() }
}

fn invalid_json(error: &serde_json::Error) -> Refusal {
    // The position that serde_json writes behind its message has members of its own in a refusal.
    let said = error.to_string();
    let detail = said.rsplit_once(" at line ").map_or(said.as_str(), |(detail, _)| detail).to_owned();
    Refusal::InvalidJson { line: error.line(), column: error.column(), detail }
}

/// The members of a JSON object, each with its value as text. Keeps doubles, so that they can be refused.
fn members(text: &str) -> Result<Vec<(Cow<'_, str>, &RawValue)>, Refusal> {
    struct Members;
    impl<'de> Visitor<'de> for Members {
        type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a job: a JSON object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some(member) = map.next_entry()? {
                members.push(member);
            }
            Ok(members)
        }
    }
    let mut parser = serde_json::Deserializer::from_str(text);
    let members = parser.deserialize_map(Members).and_then(|members| parser.end().map(|()| members));
    members.map_err(|error| {
        // A value of another kind is JSON all the same: that is another mistake.
        let is_json = serde_json::from_str::<IgnoredAny>(text).is_ok();
        if is_json {
            let detail = "a job is a JSON object, like {\"type\":\"mail\",\"payload\":{}}".to_owned();
            return Refusal::InvalidJob { detail };
        }
        invalid_json(&error)
    })
}

fn refused(detail: impl Into<String>) -> Refusal {
    Refusal::InvalidJob { detail: detail.into() }
}

/// A job whose members are being read.
#[derive(Default)]
struct Draft {
    seen: Vec<&'static str>,
    worker_type: Option<WorkerType>,
    task: String,
    payload: Option<Vec<u8>>,
    id: Option<ChosenId>,
    priority: Priority,
    tenant: Option<String>,
    run_at: Option<UnixMs>,
    delay: Option<Duration>,
    expires_at: Option<UnixMs>,
    max_attempts: Option<u16>,
    min_version: Option<Label>,
    idempotency_key: Option<ChosenId>,
    traceparent: Option<TraceParent>,
}

impl Draft {
    fn take(&mut self, name: &str, value: &RawValue, limits: IntakeLimits) -> Result<(), Refusal> {
        let Some(member) = MEMBERS.into_iter().find(|member| *member == name) else {
            return Err(unknown(name));
        };
        if self.seen.contains(&member) {
            return Err(refused(format!("member {member:?} is given twice")));
        }
        self.seen.push(member);
        match member {
            "payload" => {
                let payload = compact_json(value.get());
                if payload.len() > limits.payload_max {
                    return Err(Refusal::TooLarge {
                        what: "the payload",
                        bytes: payload.len(),
                        max: limits.payload_max,
                        key: "log.payload_max",
                    });
                }
                self.payload = Some(payload);
            }
            // An absent member and one that is null are the same.
            _ if value.get() == "null" => {}
            "type" => self.worker_type = Some(named(member, &text(member, value)?)?),
            "task" => self.task = bounded(member, text(member, value)?, TASK_BYTES_MAX)?,
            "id" => self.id = Some(named(member, &text(member, value)?)?),
            "priority" => {
                let priority = number(member, value, u64::from(PRIORITY_MAX))?;
                self.priority = u8::try_from(priority).ok().and_then(Priority::new).unwrap_or_default();
            }
            "tenant" => self.tenant = Some(bounded(member, text(member, value)?, TENANT_BYTES_MAX)?),
            "run_at" => self.run_at = Some(moment(member, &text(member, value)?)?),
            "delay" => {
                // A number lacks its unit, in quotes or not.
                let delay = text(member, value).unwrap_or_else(|_| value.get().to_owned());
                let delay = units::duration(&delay).map_err(|help| refused(format!("{member} {delay:?}: {help}")))?;
                self.delay = Some(delay);
            }
            "expires_at" => self.expires_at = Some(moment(member, &text(member, value)?)?),
            "max_attempts" => {
                let attempts = number(member, value, u64::from(MAX_ATTEMPTS_MAX))?;
                let attempts = u16::try_from(attempts).ok().filter(|attempts| *attempts > 0);
                self.max_attempts = Some(attempts.ok_or_else(|| refused("max_attempts is at least 1"))?);
            }
            "min_version" => self.min_version = Some(version(member, &text(member, value)?)?),
            "traceparent" => self.traceparent = Some(named(member, &text(member, value)?)?),
            _ => self.idempotency_key = Some(named(member, &text(member, value)?)?),
        }
        Ok(())
    }

    fn finish(self, default_type: Option<&WorkerType>, now: UnixMs) -> Result<NewJob, Refusal> {
        let worker_type = self.worker_type.or_else(|| default_type.cloned());
        let worker_type = worker_type.ok_or_else(|| refused("member \"type\" is missing: name a worker type"))?;
        let start = match (self.run_at, self.delay) {
            (Some(_), Some(_)) => return Err(refused("give run_at or delay, not both")),
            (Some(at), None) => Start::At(at),
            (None, Some(delay)) => Start::After(delay),
            (None, None) => Start::Now,
        };
        let wait = match start {
            Start::Now => Duration::ZERO,
            Start::At(at) => Duration::from_millis(at.saturating_sub(now)),
            Start::After(delay) => delay,
        };
        if wait > DELAY_MAX {
            return Err(refused("a job can wait for at most 10 years"));
        }
        if let Some(expires_at) = self.expires_at {
            if expires_at <= now {
                return Err(refused("expires_at has passed"));
            }
            let begins = now.saturating_add(millis(wait));
            if expires_at <= begins {
                return Err(refused("expires_at comes before the job may run"));
            }
        }
        Ok(NewJob {
            id: self.id,
            worker_type,
            task: self.task,
            payload: self.payload.unwrap_or_else(|| b"null".to_vec()),
            priority: self.priority,
            tenant: self.tenant,
            start,
            expires_at: self.expires_at,
            max_attempts: self.max_attempts,
            min_version: self.min_version,
            idempotency_key: self.idempotency_key,
            traceparent: self.traceparent,
        })
    }
}

/// Bytes of a member's name that are shown at most; a longer one is like none that is known.
const NAME_SHOWN_MAX: usize = 64;

fn unknown(name: &str) -> Refusal {
    if name.len() > NAME_SHOWN_MAX {
        let front = name.get(..name.floor_char_boundary(NAME_SHOWN_MAX)).unwrap_or_default();
        let bytes = name.len();
        return refused(format!("unknown member {front:?}… ({bytes} bytes); known are {}", MEMBERS.join(", ")));
    }
    let scored = MEMBERS.into_iter().map(|member| (strsim::damerau_levenshtein(name, member), member));
    match scored.min().filter(|(distance, member)| *distance <= 1 + member.len() / 4) {
        Some((_, close)) => refused(format!("unknown member {name:?}; did you mean {close:?}?")),
        None => refused(format!("unknown member {name:?}; known are {}", MEMBERS.join(", "))),
    }
}

fn text(member: &str, value: &RawValue) -> Result<String, Refusal> {
    serde_json::from_str(value.get()).map_err(|_| refused(format!("{member} must be a string")))
}

fn number(member: &str, value: &RawValue, max: u64) -> Result<u64, Refusal> {
    let number: Option<u64> = serde_json::from_str(value.get()).ok();
    number
        .filter(|number| *number <= max)
        .ok_or_else(|| refused(format!("{member} must be a whole number up to {max}")))
}

fn named<T: std::str::FromStr>(member: &str, text: &str) -> Result<T, Refusal>
where
    T::Err: fmt::Display,
{
    text.parse().map_err(|bad| refused(format!("{member} {text:?} {bad}")))
}

fn version(member: &str, text: &str) -> Result<Label, Refusal> {
    let help = "write the label of a version of its type, like \"v2\"";
    text.parse().map_err(|bad| refused(format!("{member} {text:?} {bad}; {help}")))
}

fn bounded(member: &str, text: String, max: usize) -> Result<String, Refusal> {
    if text.len() > max {
        return Err(refused(format!("{member} is {} bytes long, the most is {max}", text.len())));
    }
    match text.chars().find(|c| c.is_control()) {
        Some(c) => Err(refused(format!("{member} holds the control character {c:?}"))),
        None => Ok(text),
    }
}

/// RFC 3339, with an offset or Z.
fn moment(member: &str, text: &str) -> Result<UnixMs, Refusal> {
    let read = text.parse::<jiff::Timestamp>().ok().and_then(|at| UnixMs::try_from(at.as_millisecond()).ok());
    read.ok_or_else(|| refused(format!("{member} {text:?}: write a moment since 1970 like \"2026-11-24T08:00:00Z\"")))
}

/// A JSON value on one line: white space between its parts is dropped, everything else stays as it was written.
/// `text` must be valid JSON.
pub fn compact_json(text: &str) -> Vec<u8> {
    let mut compact = Vec::with_capacity(text.len());
    let mut in_string = false;
    let mut escaped = false;
    for byte in text.bytes() {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            continue;
        } else {
            in_string = byte == b'"';
        }
        compact.push(byte);
    }
    compact
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: IntakeLimits = IntakeLimits { payload_max: 100 };
    const NOW: UnixMs = 1_764_000_000_000;

    fn parse(text: &str) -> Result<NewJob, Refusal> {
        parse_job(text.as_bytes(), None, LIMITS, NOW)
    }

    #[test]
    fn every_member_is_read() {
        let job = parse(
            r#" {"type":"mail","task":"send","payload":{"a" : [1, "x y\" z"]},"id":"m-1","priority":9,"tenant":"t",
                "run_at":"2026-11-24T08:00:00+01:00","expires_at":"2027-01-01T00:00:00Z","max_attempts":2,
                "min_version":"v2+b.1","idempotency_key":"k",
                "traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"} "#,
        )
        .unwrap();
        assert_eq!((job.worker_type.as_str(), job.task.as_str(), job.priority.get()), ("mail", "send", 9));
        assert_eq!(job.payload, br#"{"a":[1,"x y\" z"]}"#);
        assert_eq!(job.start, Start::At(1_795_503_600_000));
        assert_eq!((job.max_attempts, job.tenant.as_deref()), (Some(2), Some("t")));
        assert_eq!(job.min_version.as_ref().map(Label::as_str), Some("v2+b.1"));
        let trace = job.traceparent.map(|trace| trace.to_string());
        assert_eq!(trace.as_deref(), Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        assert_eq!(parse(r#"{"type":"a","min_version":null}"#).unwrap().min_version, None);
        assert_eq!(parse(r#"{"type":"a","delay":"5m"}"#).unwrap().start, Start::After(Duration::from_secs(300)));
        let bare = parse_job(b"{}", Some(&"a".parse().unwrap()), LIMITS, NOW).unwrap();
        assert_eq!(bare.payload, b"null");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let said = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(said("{}"), "member \"type\" is missing: name a worker type");
        assert_eq!(said(r#"{"tpye":"a"}"#), "unknown member \"tpye\"; did you mean \"type\"?");
        let long = said(&format!(r#"{{"{}ä":1}}"#, "x".repeat(100_000)));
        assert!(
            long.starts_with("unknown member \"xxx") && long.contains("… (100002 bytes)") && long.len() < 400,
            "{long}"
        );
        assert_eq!(said(r#"{"type":"a","type":"b"}"#), "member \"type\" is given twice");
        assert_eq!(said(r#"{"type":"a","priority":10}"#), "priority must be a whole number up to 9");
        assert_eq!(
            said(r#"{"type":"a","delay":"5m","run_at":"2030-01-01T00:00:00Z"}"#),
            "give run_at or delay, not both"
        );
        assert_eq!(
            said(r#"{"type":"a","min_version":"v 2"}"#),
            "min_version \"v 2\" holds ' '; allowed are letters, digits and . _ + -; write the label of a version of its \
             type, like \"v2\""
        );
        assert!(said(r#"{"type":"a","delay":5}"#).starts_with("delay \"5\": write a whole number with its unit"));
        assert_eq!(said(r#"{"type":"a","min_version":2}"#), "min_version must be a string");
        assert_eq!(
            said(r#"{"type":"a","traceparent":"00-1-2-3"}"#),
            "traceparent \"00-1-2-3\" is no traceparent; write 00-, 32 hex digits, -, 16 hex digits, -, 2 hex digits, all of \
             them small"
        );
        assert!(said(r#"{"type":"a","expires_at":"2020-01-01T00:00:00Z"}"#).contains("has passed"));
        assert!(said(r#"{"type":"a","id":"a/b"}"#).contains("'/'"));
        assert!(said("[1]").contains("a JSON object"));
        let Refusal::InvalidJson { line, column, .. } = parse("{\"type\":\n  nope}").unwrap_err() else { panic!() };
        assert_eq!((line, column), (2, 4));
        let Refusal::InvalidJson { column: 11, .. } =
            parse_job(b"{\"type\":\"a\xFF\"}", None, LIMITS, NOW).unwrap_err()
        else {
            panic!()
        };
        assert!(matches!(parse("{\"type\":\"a\"} x"), Err(Refusal::InvalidJson { line: 1, .. })));
    }

    #[test]
    fn a_payload_is_measured_as_it_is_stored() {
        let payload = |digits: usize, spaces: usize| {
            format!("{{\"type\":\"a\",\"payload\":[{}{}]}}", " ".repeat(spaces), "1".repeat(digits))
        };
        assert!(parse(&payload(98, 500)).is_ok());
        assert!(matches!(parse(&payload(99, 0)), Err(Refusal::TooLarge { bytes: 101, max: 100, .. })));
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            ".{0,8}".prop_map(Into::into),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::btree_map(".{0,4}", inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn compact_json_is_the_same_value_on_one_line(value in json()) {
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            let compact = compact_json(&pretty);
            prop_assert_eq!(&compact, &serde_json::to_vec(&value).unwrap());
            prop_assert!(!compact.contains(&b'\n'));
        }

        #[test]
        fn any_bytes_are_a_job_or_a_refusal(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse_job(&bytes, None, LIMITS, NOW);
        }

        #[test]
        fn any_text_near_json_is_a_job_or_a_refusal(text in "[{}\\[\\]:,\"a-z0-9 .\\\\]{0,60}") {
            let _ = parse(&text);
        }
    }
}
