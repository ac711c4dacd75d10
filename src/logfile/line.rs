//! One line of the log, in each of its shapes: for people, as logfmt, as JSON.
//!
//! ```text
//! 2026-11-26T08:39:21.970Z  INFO mail: from v1 to v2 generation=2          text
//! ts=2026-11-26T08:39:21.970Z level=info msg="mail: from v1 to v2" generation=2   logfmt
//! {"ts":"2026-11-26T08:39:21.970Z","level":"info","msg":"mail: from v1 to v2","generation":2}   JSON
//! ```
//!
//! Whatever is said in it: it is one line, and nothing in it moves a cursor, changes a colour or turns the direction of
//! writing. What would is written as what it is, `\u001b` and the like. Only a field that is called `lines`, which nobody
//! outside has a say in, is several lines for people, each of them set off.

use std::fmt::{self, Write};

use tracing::Level;
use tracing::field::{Field, Visit};

use super::Stderr;
use crate::config::LogFormat;
use crate::types::UnixMs;

/// The field that people see as lines.
const LINES: &str = "lines";

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    shape: Shape,
    stderr: Stderr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Text,
    Logfmt,
    Json,
}

impl Look {
    pub(super) fn new(format: LogFormat, stderr: Stderr) -> Self {
        let shape = match (format, stderr) {
            (LogFormat::Text, _) | (LogFormat::Auto, Stderr::Terminal) => Shape::Text,
            (LogFormat::Logfmt, _) | (LogFormat::Auto, Stderr::Journal | Stderr::Elsewhere) => Shape::Logfmt,
            (LogFormat::Json, _) => Shape::Json,
        };
        Self { shape, stderr }
    }

    pub(super) fn is_for_machines(self) -> bool {
        self.shape != Shape::Text
    }
}

/// What the journal takes in front of a line, for its level.
pub(super) fn mark(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _ => "<7>",
    }
}

/// What is said.
#[derive(Debug)]
pub(super) struct Line {
    level: Level,
    target: Option<&'static str>,
    pub(super) message: String,
    fields: Vec<(&'static str, Value)>,
}

#[derive(Debug)]
enum Value {
    Text(String),
    /// A number, true or false.
    Plain(String),
}

impl Line {
    pub(super) fn new(level: Level, target: Option<&'static str>) -> Self {
        Self { level, target, message: String::new(), fields: Vec::new() }
    }

    /// The line, its end included.
    pub(super) fn shown(&self, look: Look, at: UnixMs) -> String {
        let mut out = String::with_capacity(160);
        let in_journal = look.stderr == Stderr::Journal;
        if in_journal {
            out.push_str(mark(self.level));
        }
        // The journal knows the time by itself; what reads JSON may not ask it.
        let at = (!in_journal || look.shape == Shape::Json).then(|| moment(at));
        match look.shape {
            Shape::Text => self.text(&mut out, at, look.stderr),
            Shape::Logfmt => self.logfmt(&mut out, at),
            Shape::Json => self.json(&mut out, at),
        }
        out.push('\n');
        out
    }

    fn text(&self, out: &mut String, at: Option<String>, stderr: Stderr) {
        let (dim, colour, plain) = match (stderr, self.level) {
            (Stderr::Journal | Stderr::Elsewhere, _) => ("", "", ""),
            (Stderr::Terminal, Level::ERROR) => ("\x1b[2m", "\x1b[31m", "\x1b[0m"),
            (Stderr::Terminal, Level::WARN) => ("\x1b[2m", "\x1b[33m", "\x1b[0m"),
            (Stderr::Terminal, Level::INFO) => ("\x1b[2m", "\x1b[32m", "\x1b[0m"),
            (Stderr::Terminal, _) => ("\x1b[2m", "\x1b[34m", "\x1b[0m"),
        };
        let mut push = |parts: &[&str]| parts.iter().for_each(|part| out.push_str(part));
        if let Some(at) = at {
            push(&[dim, &at, plain, " "]);
        }
        push(&[colour, &format!("{:>5}", self.level.as_str()), plain]);
        if let Some(target) = self.target {
            push(&[" ", target, ":"]);
        }
        if !self.message.is_empty() {
            push(&[" ", &escaped(&self.message, false)]);
        }
        for (name, value) in self.fields.iter().filter(|(name, _)| *name != LINES) {
            push(&[" ", dim, name, "=", plain, &value.quoted_if_needed()]);
        }
        for (_, lines) in self.fields.iter().filter(|(name, _)| *name == LINES) {
            let (Value::Text(lines) | Value::Plain(lines)) = lines;
            lines.lines().for_each(|one| push(&["\n    | ", &escaped(one, false)]));
        }
    }

    fn logfmt(&self, out: &mut String, at: Option<String>) {
        if let Some(at) = at {
            out.extend(["ts=", &at, " "]);
        }
        out.extend(["level=", &self.level.as_str().to_ascii_lowercase()]);
        if let Some(target) = self.target {
            out.extend([" target=", target]);
        }
        out.extend([" msg=", &quoted_if_needed(&self.message)]);
        for (name, value) in &self.fields {
            out.extend([" ", name, "=", &value.quoted_if_needed()]);
        }
    }

    fn json(&self, out: &mut String, at: Option<String>) {
        out.push('{');
        if let Some(at) = at {
            out.extend(["\"ts\":\"", &at, "\","]);
        }
        out.extend(["\"level\":\"", &self.level.as_str().to_ascii_lowercase(), "\""]);
        if let Some(target) = self.target {
            out.extend([",\"target\":\"", target, "\""]);
        }
        out.extend([",\"msg\":\"", &escaped(&self.message, true), "\""]);
        for (name, value) in &self.fields {
            match value {
                Value::Plain(plain) => out.extend([",\"", name, "\":", plain]),
                Value::Text(text) => out.extend([",\"", name, "\":\"", &escaped(text, true), "\""]),
            }
        }
        out.push('}');
    }

    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::Text(text) | Value::Plain(text)) => self.message = text,
            (name, value) => self.fields.push((name, value)),
        }
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, text: &str) {
        self.put(field, Value::Text(text.to_owned()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, Value::Text(format!("{value:?}")));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Value::Plain(value.to_string()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Value::Plain(value.to_string()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, Value::Plain(value.to_string()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        let shown = value.to_string();
        self.put(field, if value.is_finite() { Value::Plain(shown) } else { Value::Text(shown) });
    }
}

impl Value {
    fn quoted_if_needed(&self) -> String {
        match self {
            Self::Plain(plain) => plain.clone(),
            Self::Text(text) => quoted_if_needed(text),
        }
    }
}

fn moment(at: UnixMs) -> String {
    let stamp = i64::try_from(at).ok().and_then(|at| jiff::Timestamp::from_millisecond(at).ok()).unwrap_or_default();
    format!("{stamp:.3}")
}

fn quoted_if_needed(text: &str) -> String {
    let plain = |c: char| !c.is_whitespace() && !is_unfit(c) && !matches!(c, '"' | '=' | '\\' | '\u{fffd}');
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("\"{}\"", escaped(text, true))
}

/// A text within a line; `quotes`: within quotes, too, as JSON has them.
fn escaped(text: &str, quotes: bool) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    for c in text.chars() {
        match c {
            '"' | '\\' if quotes => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_unfit(c) => {
                let mut units = [0; 2];
                // As JSON has it, in halves where one is not enough.
                for unit in c.encode_utf16(&mut units) {
                    write!(out, "\\u{unit:04x}").expect("a String takes any write");
                }
            }
            c => out.push(c),
        }
    }
    out
}

/// Whether a character would do something else than be seen where it stands: control a terminal, end the line, turn the
/// direction in which text is shown, or not be seen at all.
fn is_unfit(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        || matches!(c, '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests;
