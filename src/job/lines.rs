//! Lines out of a body that comes in pieces.
//!
//! Pure. Holds one line at most, and no more of it than the bound; the same bytes make the same lines, however they are split.

/// Cuts a stream of bytes into lines, with a bound on their length.
pub struct Lines {
    max: usize,
    partial: Vec<u8>,
    /// The line that comes is too long already: it is dropped up to its end.
    overlong: bool,
    number: u64,
}

/// A line with its number from 1.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number, blank lines counted.
    pub number: u64,
    /// `None`: it was longer than the bound.
    pub text: Option<Vec<u8>>,
}

impl Lines {
    /// Lines of at most `max` bytes each.
    pub fn new(max: usize) -> Self {
        Self { max, partial: Vec::new(), overlong: false, number: 0 }
    }

    /// Bytes of the line that has not ended yet.
    pub fn held(&self) -> usize {
        self.partial.len()
    }

    /// The lines that end in `piece`; empty ones are counted and left out.
    pub fn take(&mut self, piece: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut parts = piece.split(|byte| *byte == b'\n');
        let last = parts.next_back().unwrap_or_default();
        for part in parts {
            self.keep(part);
            lines.extend(self.end());
        }
        self.keep(last);
        lines
    }

    /// What is left when the stream is over: a last line without an end.
    pub fn finish(mut self) -> Option<Line> {
        self.end()
    }

    fn keep(&mut self, part: &[u8]) {
        if self.partial.len() + part.len() > self.max {
            self.overlong = true;
            self.partial.clear();
        }
        if !self.overlong {
            self.partial.extend_from_slice(part);
        }
    }

    fn end(&mut self) -> Option<Line> {
        self.number += 1;
        let text = std::mem::take(&mut self.partial);
        if std::mem::take(&mut self.overlong) {
            return Some(Line { number: self.number, text: None });
        }
        let blank = text.iter().all(u8::is_ascii_whitespace);
        (!blank).then_some(Line { number: self.number, text: Some(text) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(pieces: &[&[u8]], max: usize) -> Vec<(u64, Option<String>)> {
        let mut lines = Lines::new(max);
        let mut found: Vec<Line> = pieces.iter().flat_map(|piece| lines.take(piece)).collect();
        found.extend(lines.finish());
        found.into_iter().map(|line| (line.number, line.text.map(|text| String::from_utf8(text).unwrap()))).collect()
    }

    #[test]
    fn blank_lines_count_and_long_ones_are_dropped_alone() {
        let line = |number, text: &str| (number, Some(text.to_owned()));
        assert_eq!(
            all(&[b"a\n\n", b"b\r\n12345", b"67\nc"], 5),
            [line(1, "a"), line(3, "b\r"), (4, None), line(5, "c")]
        );
        assert_eq!(all(&[b""], 5), []);
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_the_pieces_end(text in "[ab\n]{0,40}", cuts in prop::collection::vec(0_usize..40, 0..5)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]).collect();
            prop_assert_eq!(all(&pieces, 6), all(&[text.as_bytes()], 6));
        }
    }
}
