//! What a worker says while it works: how far it is, and lines for the log.
//!
//! Owns their bounds, and that no progress can steer a terminal: control characters of it come out as blanks. Lines are as they were
//! written: how they are written out is the log's.

use std::collections::VecDeque;
use std::time::Duration;

use super::output::front;
use crate::config::units;
use crate::limits::{LOG_LINE_BYTES_MAX, LOG_LINES_MAX, PROGRESS_TEXT_BYTES_MAX};

/// How far a run is, by its worker's word. Made of a number, of words, or of both: `0.4.into()`, `"page 3".into()`,
/// `(0.4, "page 3").into()`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    fraction: Option<f64>,
    text: Option<String>,
}

impl Progress {
    /// A share of the work, 0 to 1, and a few words: a share beyond that is the nearest one, words beyond 256 bytes are cut.
    pub fn new(fraction: Option<f64>, text: Option<&str>) -> Self {
        let fraction = fraction.filter(|fraction| !fraction.is_nan()).map(|fraction| fraction.clamp(0.0, 1.0));
        let plain = |text: &str| -> String {
            front(text, PROGRESS_TEXT_BYTES_MAX).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
        };
        let text = text.map(|text| plain(text).trim().to_owned());
        Self { fraction, text: text.filter(|text| !text.is_empty()) }
    }

    /// The share, 0 to 1.
    pub fn fraction(&self) -> Option<f64> {
        self.fraction
    }

    /// The words.
    pub fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// Reads `40% page 3`, `0.4 page 3`, or words alone.
    fn read(said: &str) -> Self {
        let (first, rest) = said.trim().split_once(char::is_whitespace).unwrap_or((said.trim(), ""));
        let share = match first.strip_suffix('%') {
            Some(percent) => percent.parse::<f64>().ok().map(|percent| percent / 100.0),
            None => first.parse::<f64>().ok(),
        };
        match share.filter(|share| share.is_finite()) {
            Some(share) => Self::new(Some(share), Some(rest)),
            None => Self::new(None, Some(said)),
        }
    }
}

impl From<f64> for Progress {
    fn from(fraction: f64) -> Self {
        Self::new(Some(fraction), None)
    }
}

impl From<&str> for Progress {
    fn from(text: &str) -> Self {
        Self::new(None, Some(text))
    }
}

impl From<(f64, &str)> for Progress {
    fn from((fraction, text): (f64, &str)) -> Self {
        Self::new(Some(fraction), Some(text))
    }
}

/// What a line on the stderr of a program that runs for one job says.
#[derive(Debug, PartialEq)]
pub(super) enum Said<'a> {
    /// How far it is.
    Progress(Progress),
    /// That it needs more time: so much, or as much as its timeout is.
    Extend(Option<Duration>),
    /// Something for the log.
    Line(&'a str),
}

/// What lines to biotope begin with.
const TO_US: &str = "biotope:";

impl<'a> Said<'a> {
    /// Reads a line.
    pub(super) fn of(line: &'a str) -> Self {
        let Some(said) = line.strip_prefix(TO_US) else { return Self::Line(line) };
        let (word, rest) = said.split_once(char::is_whitespace).unwrap_or((said, ""));
        match (word, rest.trim()) {
            ("progress", rest) => Self::Progress(Progress::read(rest)),
            ("extend", "") => Self::Extend(None),
            ("extend", more) => units::duration(more).map_or(Self::Line(line), |more| Self::Extend(Some(more))),
            _ => Self::Line(line),
        }
    }
}

/// What was written to stderr without the lines that were for biotope.
pub(super) fn not_to_us(stderr: &str) -> String {
    let others = stderr.lines().filter(|line| matches!(Said::of(line), Said::Line(_)));
    others.collect::<Vec<_>>().join("\n")
}

/// The lines of a stream, whole ones: each is cut, and so many are given out until there may be more again.
#[derive(Debug)]
pub(super) struct Lines {
    /// The beginning of the line that comes in.
    partial: Vec<u8>,
    whole: VecDeque<String>,
    /// Lines that may still come out.
    left: u32,
}

impl Default for Lines {
    fn default() -> Self {
        Self { partial: Vec::new(), whole: VecDeque::new(), left: LOG_LINES_MAX }
    }
}

impl Lines {
    /// Takes what came.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = part.strip_suffix(b"\n").map_or((part, false), |text| (text, true));
            let room = LOG_LINE_BYTES_MAX.saturating_sub(self.partial.len());
            self.partial.extend_from_slice(text.get(..room).unwrap_or(text));
            if ends {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.partial);
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        if line.is_empty() {
            return;
        }
        let line = String::from_utf8_lossy(line).into_owned();
        // What is said to us is no line of the log, and counts for none.
        let is_logged = matches!(Said::of(&line), Said::Line(_));
        if is_logged && self.left == 0 {
            return;
        }
        self.whole.push_back(line);
        if !is_logged {
            return;
        }
        self.left -= 1;
        if self.left == 0 {
            self.whole.push_back(format!("(more than {LOG_LINES_MAX} lines; the others are left out)"));
        }
    }

    /// The stream is at its end: what came last is a line, too.
    pub(super) fn end(&mut self) {
        self.end_line();
    }

    /// The next line.
    pub(super) fn next(&mut self) -> Option<String> {
        self.whole.pop_front()
    }

    /// As many may come out again as at first.
    pub(super) fn refill(&mut self) {
        self.left = LOG_LINES_MAX;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(pieces: &[&[u8]]) -> Vec<String> {
        let mut lines = Lines::default();
        pieces.iter().for_each(|piece| lines.push(piece));
        lines.end();
        std::iter::from_fn(|| lines.next()).collect()
    }

    #[test]
    fn lines_come_whole_however_they_are_split() {
        let text = "one\r\n\ntwo ä\nthree".as_bytes();
        for at in 0..text.len() {
            let (front, back) = text.split_at(at);
            assert_eq!(lines_of(&[front, back]), ["one", "two ä", "three"], "{at}");
        }
    }

    #[test]
    fn long_lines_are_cut_and_many_are_left_out() {
        let long = vec![b'x'; 3 * LOG_LINE_BYTES_MAX];
        assert_eq!(lines_of(&[&long, b"y\nz\n"]).iter().map(String::len).collect::<Vec<_>>(), [LOG_LINE_BYTES_MAX, 1]);
        let many = lines_of(&["x\n".repeat(5000).as_bytes()]);
        assert_eq!(many.len(), LOG_LINES_MAX as usize + 1);
        assert_eq!(many.last().unwrap(), "(more than 1000 lines; the others are left out)");
        // However much a program says to the log, what it says to us is heard.
        let chatty = lines_of(&["x\nbiotope:progress 1%\n".repeat(2000).as_bytes(), b"biotope:extend 90s\n"]);
        assert_eq!(chatty.len(), 1000 + 2000 + 1 + 1);
        assert_eq!(chatty.last().unwrap(), "biotope:extend 90s");
        let mut lines = Lines::default();
        lines.push("x\n".repeat(5000).as_bytes());
        while lines.next().is_some() {}
        lines.refill();
        lines.push(b"again\n");
        assert_eq!(lines.next().as_deref(), Some("again"));
    }

    #[test]
    fn a_line_says_how_far_it_is_or_asks_for_time_or_is_for_the_log() {
        let progress = |fraction, text| Said::Progress(Progress::new(fraction, text));
        for (line, said) in [
            ("biotope:progress 40% page 3 of 7", progress(Some(0.4), Some("page 3 of 7"))),
            ("biotope:progress 0.25", progress(Some(0.25), None)),
            ("biotope:progress 250%", progress(Some(1.0), None)),
            ("biotope:progress nearly there", progress(None, Some("nearly there"))),
            ("biotope:progress", progress(None, None)),
            ("biotope:extend 90s", Said::Extend(Some(Duration::from_secs(90)))),
            ("biotope:extend", Said::Extend(None)),
            ("biotope:extend soon", Said::Line("biotope:extend soon")),
            ("biotope:other", Said::Line("biotope:other")),
            ("biotope: hello", Said::Line("biotope: hello")),
            (" biotope:extend", Said::Line(" biotope:extend")),
        ] {
            assert_eq!(Said::of(line), said, "{line}");
        }
        assert_eq!(not_to_us("a\nbiotope:progress 1\nb"), "a\nb");
    }

    #[test]
    fn no_progress_can_steer_a_terminal() {
        let progress = Progress::new(Some(f64::NAN), Some("\u{1b}[2Jx\ny"));
        assert_eq!((progress.fraction(), progress.text()), (None, Some("[2Jx y")));
        let long = "ä".repeat(1000);
        assert_eq!(Progress::from(long.as_str()).text().map(str::len), Some(PROGRESS_TEXT_BYTES_MAX));
        assert_eq!(Progress::from(f64::INFINITY).fraction(), Some(1.0));
    }
}
