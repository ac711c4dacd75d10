//! What a program gives back: its result, and the words for its failure.
//!
//! Owns the bounds of both. Does no I/O; says nothing about what a failure means for the job.
//! Promise: a result is one JSON value on one line within `result_max`; an error text is within `ERROR_BYTES_MAX`.

use std::borrow::Cow;

use serde::de::IgnoredAny;

use crate::job::intake::compact_json;
use crate::limits::ERROR_BYTES_MAX;

/// The last bytes of a stream.
#[derive(Debug, Default)]
pub(super) struct Tail {
    /// At most twice the bound, so that cutting costs little per byte.
    bytes: Vec<u8>,
}

impl Tail {
    /// Adds what came; forgets what is too old.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(last(bytes, ERROR_BYTES_MAX));
        if self.bytes.len() > 2 * ERROR_BYTES_MAX {
            self.bytes.drain(..self.bytes.len() - ERROR_BYTES_MAX);
        }
    }

    /// The end of the stream as text, without white space around it.
    pub(super) fn text(&self) -> String {
        // A character cut in half at the front would come out as a replacement character: leave it away.
        let bytes = last(&self.bytes, ERROR_BYTES_MAX);
        let cut = bytes.iter().take(3).take_while(|b| **b & 0xC0 == 0x80).count();
        String::from_utf8_lossy(bytes.get(cut..).unwrap_or_default()).trim().to_owned()
    }
}

fn last(bytes: &[u8], most: usize) -> &[u8] {
    bytes.get(bytes.len().saturating_sub(most)..).unwrap_or_default()
}

/// `what` happened, and the end of what the program said about it, within the bound for errors: behind a colon on the same line,
/// or, where it is more than one line, on lines of its own.
pub(super) fn error_text(what: &str, said: &str) -> String {
    let said = said.trim();
    let what = front(what, ERROR_BYTES_MAX);
    let room = ERROR_BYTES_MAX.saturating_sub(what.len() + 2);
    let mut from = said.len().saturating_sub(room);
    while !said.is_char_boundary(from) {
        from += 1;
    }
    match said.get(from..) {
        None | Some("") => what.to_owned(),
        Some(said) if said.contains('\n') => format!("{what}:\n{said}"),
        Some(said) => format!("{what}: {said}"),
    }
}

/// The lines that a program wrote, of an error in which they stand apart; of one that was written before they did, those behind
/// the first.
#[cfg(feature = "daemon")]
pub(crate) fn tail(error: &str) -> &str {
    error.split_once('\n').map_or("", |(_, tail)| tail)
}

/// An error in a line: what happened, and what was said last about it where that stands apart.
pub(crate) fn gist(error: &str) -> Cow<'_, str> {
    let (message, tail) = error.split_once('\n').unwrap_or((error, ""));
    let message = message.trim_end();
    match tail.lines().map(str::trim).rfind(|line| !line.is_empty()).filter(|_| message.ends_with(':')) {
        Some(last) => Cow::Owned(format!("{message} {last}")),
        None => Cow::Borrowed(message),
    }
}

/// The front of a text, at most `most` bytes of it, in whole characters.
pub(crate) fn front(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or_default()
}

/// The result that a program wrote: JSON if it is one value, else a string without its last newline; nothing if empty.
///
/// # Errors
/// Above `result_max` bytes of JSON; the text says so.
pub(super) fn result_of(stdout: &[u8], result_max: usize) -> Result<Option<Vec<u8>>, String> {
    if stdout.is_empty() {
        return Ok(None);
    }
    let json = match std::str::from_utf8(stdout).ok().and_then(compact) {
        Some(json) => json,
        None => {
            let text = String::from_utf8_lossy(stdout.strip_suffix(b"\n").unwrap_or(stdout));
            serde_json::to_vec(&text).map_err(|e| format!("the result is no text: {e}"))?
        }
    };
    within(json, result_max).map(Some)
}

/// Lets a result pass that is within its bound.
///
/// # Errors
/// The bound and the size, in words.
pub(super) fn within(json: Vec<u8>, result_max: usize) -> Result<Vec<u8>, String> {
    if json.len() > result_max {
        return Err(format!("the result is {} bytes of JSON, the most is {result_max} (`result_max`)", json.len()));
    }
    Ok(json)
}

/// One JSON value without white space between its parts, every part as it was written; `None` if it is not one value.
pub(super) fn compact(text: &str) -> Option<Vec<u8>> {
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    Some(compact_json(text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn result(stdout: &str) -> Option<String> {
        result_of(stdout.as_bytes(), 64).unwrap().map(|json| String::from_utf8(json).unwrap())
    }

    #[test]
    fn result_is_one_json_value_or_text() {
        assert_eq!(result(""), None);
        assert_eq!(result("42\n").unwrap(), "42");
        assert_eq!(result(" {\"a\" : [ 1,\n 2 ] , \"b c\":\"\\\" x\"} \n").unwrap(), r#"{"a":[1,2],"b c":"\" x"}"#);
        assert_eq!(result("12345678901234567890.10\n").unwrap(), "12345678901234567890.10");
        assert_eq!(result("1 2\n").unwrap(), r#""1 2""#);
        assert_eq!(result("done\n\n").unwrap(), r#""done\n""#);
        assert_eq!(result("\n").unwrap(), r#""""#);
        assert_eq!(result_of(b"caf\xC3\n", 64).unwrap().unwrap(), "\"caf\u{fffd}\"".as_bytes());
    }

    #[test]
    fn result_above_its_bound_is_refused_with_both_sizes() {
        let error = result_of(&[b'x'; 63], 64).unwrap_err();
        assert_eq!(error, "the result is 65 bytes of JSON, the most is 64 (`result_max`)");
        assert!(result_of(&[b'x'; 62], 64).is_ok());
    }

    #[test]
    fn tail_keeps_the_end_and_whole_characters() {
        let mut tail = Tail::default();
        for _ in 0..3000 {
            tail.push("ä".as_bytes());
        }
        tail.push(b"end\n");
        let text = tail.text();
        assert!(text.len() <= ERROR_BYTES_MAX && text.ends_with("äend") && text.starts_with('ä'), "{text}");
        let error = error_text("exit 1", &text);
        assert!(error.len() <= ERROR_BYTES_MAX && error.starts_with("exit 1: ä") && error.ends_with("äend"));
        assert_eq!(error_text("exit 1", " \n"), "exit 1");
    }

    #[test]
    fn lines_stand_apart_from_what_happened_and_the_last_one_goes_with_it_in_short() {
        let error = error_text("w.py exited with code 1", "Traceback:\n  line 3\nKeyError: 'ink'\n");
        assert_eq!(error, "w.py exited with code 1:\nTraceback:\n  line 3\nKeyError: 'ink'");
        assert_eq!(gist(&error), "w.py exited with code 1: KeyError: 'ink'");
        // One line, and what was written when lines did not stand apart.
        for (error, says) in [
            ("w.py exited with code 1: no ink", "w.py exited with code 1: no ink"),
            ("w.py exited with code 1: first\nlast", "w.py exited with code 1: first"),
            ("ends so:", "ends so:"),
            ("", ""),
        ] {
            assert_eq!(gist(error), says);
        }
    }

    proptest! {
        #[test]
        fn any_stdout_gives_one_json_value_on_one_line(stdout in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(json) = result_of(&stdout, 1 << 20).unwrap() {
                prop_assert!(!json.contains(&b'\n'));
                prop_assert!(serde_json::from_slice::<IgnoredAny>(&json).is_ok());
            }
        }

        #[test]
        fn compact_keeps_the_value(text in "[\\[\\]{}:,\" \\\\a0-9.\n-]{0,12}") {
            if let (Some(json), Ok(value)) = (compact(&text), serde_json::from_str::<serde_json::Value>(&text)) {
                prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&json).unwrap(), value);
            }
        }
    }
}
