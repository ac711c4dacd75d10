//! The trace that a job belongs to: a W3C `traceparent`, taken apart and written again.
//!
//! Pure. Of a version that is not known here, what all versions have is kept, as the standard says; what is written is always
//! version 00.
//!
//! ```text
//! 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
//! version | trace id, 16 bytes | id of the span that is the parent, 8 bytes | flags
//! ```

use std::fmt;
use std::str::FromStr;

/// Bytes that a log holds of one.
pub const TRACE_BYTES: usize = 16 + 8 + 1;
/// Length of the text.
const TEXT_BYTES: usize = 55;

/// A trace, and the span in it that a job's runs are children of.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent([u8; TRACE_BYTES]);

/// Why a text is no `traceparent`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTrace {
    /// It does not have its shape.
    #[error("is no traceparent; write 00-, 32 hex digits, -, 16 hex digits, -, 2 hex digits, all of them small")]
    Shape,
    /// One of its ids is all zeros, which stands for none.
    #[error("has an id of zeros, which means none")]
    Zero,
    /// Version ff.
    #[error("is of version ff, which is none")]
    Version,
}

impl TraceParent {
    /// What a log holds.
    pub fn as_bytes(&self) -> &[u8; TRACE_BYTES] {
        &self.0
    }

    /// From what a log holds; `None`: it can be none.
    pub fn from_bytes(bytes: [u8; TRACE_BYTES]) -> Option<Self> {
        let (trace, rest) = bytes.split_first_chunk::<16>()?;
        let (parent, _) = rest.split_first_chunk::<8>()?;
        (*trace != [0; 16] && *parent != [0; 8]).then_some(Self(bytes))
    }
}

/// A byte of two small hex digits.
fn byte(pair: &[u8]) -> Option<u8> {
    let digit = |c: &u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let [high, low] = pair else { return None };
    Some(digit(high)? << 4 | digit(low)?)
}

fn take_apart(text: &[u8]) -> Option<(u8, [u8; TRACE_BYTES])> {
    let (front, rest) = text.split_at_checked(TEXT_BYTES)?;
    let mut parts = front.split(|c| *c == b'-');
    let version = byte(parts.next()?)?;
    // What a later version adds stands behind another dash; version 00 is nothing more.
    if !rest.is_empty() && (version == 0 || rest.first() != Some(&b'-')) {
        return None;
    }
    let mut bytes = [0; TRACE_BYTES];
    let mut at = bytes.iter_mut();
    for digits in [32, 16, 2] {
        let part = parts.next().filter(|part| part.len() == digits)?;
        for pair in part.chunks(2) {
            *at.next()? = byte(pair)?;
        }
    }
    parts.next().is_none().then_some((version, bytes))
}

impl FromStr for TraceParent {
    type Err = BadTrace;

    fn from_str(text: &str) -> Result<Self, BadTrace> {
        let (version, mut bytes) = take_apart(text.as_bytes()).ok_or(BadTrace::Shape)?;
        if version == u8::MAX {
            return Err(BadTrace::Version);
        }
        if version != 0
            && let Some(flags) = bytes.last_mut()
        {
            // All that can be known of flags of another version: whether it is recorded.
            *flags &= 1;
        }
        Self::from_bytes(bytes).ok_or(BadTrace::Zero)
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00")?;
        for (at, byte) in self.0.iter().enumerate() {
            let dash = if matches!(at, 0 | 16 | 24) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn one_is_written_as_it_was_read() {
        let trace: TraceParent = GOOD.parse().unwrap();
        assert_eq!(trace.to_string(), GOOD);
        assert_eq!(TraceParent::from_bytes(*trace.as_bytes()), Some(trace));
        let flags = GOOD.replace("-01", "-ff");
        assert_eq!(flags.parse::<TraceParent>().unwrap().to_string(), flags);
    }

    #[test]
    fn of_a_later_version_what_is_known_is_kept() {
        for later in [GOOD.replacen("00", "cc", 1), format!("{}-what-came-later", GOOD.replacen("00", "01", 1))] {
            assert_eq!(later.parse::<TraceParent>().unwrap().to_string(), GOOD, "{later}");
        }
        let flags = GOOD.replacen("00", "01", 1).replace("-01", "-fe");
        assert_eq!(flags.parse::<TraceParent>().unwrap().to_string(), GOOD.replace("b7-01", "b7-00"));
    }

    #[test]
    fn what_is_none_is_refused() {
        let shape = [
            String::new(),
            "00".to_owned(),
            GOOD[..54].to_owned(),
            format!("{GOOD}-"),
            format!("{GOOD}-x"),
            format!("{GOOD} "),
            format!("{}.x", GOOD.replacen("00", "01", 1)),
            GOOD.to_uppercase(),
            GOOD.replace('4', "g"),
            GOOD.replacen('-', "_", 1),
            GOOD.replace("-01", "--1"),
            GOOD.replace("4736-00f0", "47360-0f0"),
            GOOD.replace("b7-01", "b-701"),
            GOOD.replacen("00", "0g", 1),
            GOOD.replace("4bf9", "äf9"),
        ];
        for text in shape {
            assert_eq!(text.parse::<TraceParent>(), Err(BadTrace::Shape), "{text}");
        }
        assert_eq!(GOOD.replacen("00", "ff", 1).parse::<TraceParent>(), Err(BadTrace::Version));
        let no_trace = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        let no_parent = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01", "0".repeat(16));
        for text in [no_trace, no_parent] {
            assert_eq!(text.parse::<TraceParent>(), Err(BadTrace::Zero), "{text}");
        }
    }
}
