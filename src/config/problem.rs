//! What is wrong with a config, shown at its place: file, line, column, the line itself, and what to do.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What, in one line.
    pub message: String,
    /// Where, in bytes of the text.
    pub span: Range<usize>,
    /// What to do about it.
    pub help: Option<String>,
}

/// Everything that is wrong with a config, in order of place; shown in full by `Display`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    /// The file's name, as given.
    pub file: String,
    /// Its text.
    pub text: String,
    /// At least one.
    pub list: Vec<Problem>,
}

impl Problems {
    pub(super) fn new(file: &str, text: &str, mut list: Vec<Problem>) -> Self {
        list.sort_by_key(|problem| (problem.span.start, problem.span.end));
        list.dedup();
        Self { file: file.to_owned(), text: text.to_owned(), list }
    }

    /// Line and column of a problem, from 1.
    pub fn line_and_column(&self, problem: &Problem) -> (usize, usize) {
        let before = self.text.get(..problem.span.start.min(self.text.len())).unwrap_or(&self.text);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
        (line, column)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.list {
            // A span past the end, as at an unexpected end of the file, is shown at the end.
            let end = problem.span.end.min(self.text.len());
            let start = problem.span.start.min(end);
            let annotation = AnnotationKind::Primary.span(start..end);
            let snippet = Snippet::source(self.text.as_str()).path(self.file.as_str()).annotation(annotation);
            let mut group = Level::ERROR.primary_title(problem.message.as_str()).element(snippet);
            if let Some(help) = &problem.help {
                group = group.element(Level::HELP.message(help.as_str()));
            }
            writeln!(f, "{}\n", Renderer::plain().render(&[group]))?;
        }
        let count = self.list.len();
        let noun = if count == 1 { "problem" } else { "problems" };
        write!(f, "{}: {count} {noun}; nothing was changed", self.file)
    }
}

impl std::error::Error for Problems {}

/// Where the keys of a config stand, for problems that are found only when files and variables are looked up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Places {
    pub(super) file: String,
    pub(super) text: String,
    pub(super) spans: BTreeMap<String, Range<usize>>,
}

impl Places {
    /// A problem at a key, `workers.press.exec`, or at what encloses it.
    pub fn problem(&self, key: &str, message: String, help: Option<String>) -> Problem {
        let mut at = key;
        loop {
            if let Some(span) = self.spans.get(at) {
                return Problem { message, span: span.clone(), help };
            }
            match at.rsplit_once('.') {
                Some((outer, _)) => at = outer,
                None => return Problem { message, span: 0..0, help },
            }
        }
    }

    /// The problems, ready to be shown.
    pub fn problems(&self, list: Vec<Problem>) -> Problems {
        Problems::new(&self.file, &self.text, list)
    }
}
