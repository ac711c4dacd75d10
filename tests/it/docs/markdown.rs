//! As much of Markdown as the documents use: fenced blocks, tables, headings, links, code within a line.

use std::path::PathBuf;

use crate::support::repository;

/// A document of the repository.
pub(super) struct Document {
    /// Its path in the repository.
    pub(super) name: String,
    pub(super) text: String,
}

/// A fenced block.
pub(super) struct Block {
    /// The first word behind the fence: its language.
    pub(super) language: String,
    /// The other words.
    pub(super) words: String,
    /// What stands in it.
    pub(super) text: String,
    /// The line of its fence, from 1.
    pub(super) line: usize,
}

/// README.md and all of docs/*.md.
pub(super) fn documents() -> Vec<Document> {
    let mut paths = vec![PathBuf::from("README.md")];
    for entry in std::fs::read_dir(repository().join("docs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            paths.push(path.strip_prefix(repository()).unwrap().to_owned());
        }
    }
    paths.sort();
    let read = |path: PathBuf| Document {
        text: std::fs::read_to_string(repository().join(&path)).unwrap(),
        name: path.display().to_string(),
    };
    paths.into_iter().map(read).collect()
}

impl Document {
    /// Every fenced block, in order.
    pub(super) fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut open: Option<Block> = None;
        for (number, line) in self.text.lines().enumerate() {
            match (&mut open, line.strip_prefix("```")) {
                (None, Some(info)) => {
                    let (language, words) = info.split_once(' ').unwrap_or((info, ""));
                    let (language, words) = (language.to_owned(), words.to_owned());
                    open = Some(Block { language, words, text: String::new(), line: number + 1 });
                }
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some(block), None) => block.text += &format!("{line}\n"),
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a block has no end", self.name);
        blocks
    }

    /// Every line that is in no fenced block, with its number from 1.
    pub(super) fn prose(&self) -> Vec<(usize, &str)> {
        let mut inside = false;
        let mut lines = Vec::new();
        for (number, line) in self.text.lines().enumerate() {
            let is_fence = line.starts_with("```");
            inside ^= is_fence;
            if !inside && !is_fence {
                lines.push((number + 1, line));
            }
        }
        lines
    }

    /// What stands between `backticks` in prose.
    pub(super) fn spans(&self) -> Vec<String> {
        let prose: Vec<&str> = self.prose().into_iter().map(|(_, line)| line).collect();
        prose.join("\n").split('`').skip(1).step_by(2).map(|span| span.replace('\n', " ")).collect()
    }

    /// Each row of each table with the heading that it stands under: cells without their blanks.
    pub(super) fn rows(&self) -> Vec<(String, Vec<String>)> {
        let mut heading = String::new();
        let mut rows = Vec::new();
        for (_, line) in self.prose() {
            if line.starts_with('#') {
                heading = line.trim_start_matches('#').trim().to_owned();
            }
            let Some(inner) = line.strip_prefix('|') else { continue };
            let inner = inner.trim_end().trim_end_matches('|').replace("\\|", "\u{1}");
            let cells: Vec<_> = inner.split('|').map(|cell| cell.trim().replace('\u{1}', "|")).collect();
            if cells.iter().all(|cell| cell.chars().all(|c| "-: ".contains(c))) {
                rows.pop(); // what stood above was the table's head
                continue;
            }
            rows.push((heading.clone(), cells));
        }
        rows
    }

    /// The names by which links lead to its headings.
    pub(super) fn anchors(&self) -> Vec<String> {
        let headings = self.prose().into_iter().filter(|(_, line)| line.starts_with('#'));
        let anchor = |line: &str| {
            let text = line.trim_start_matches('#').trim().to_lowercase();
            let kept = text.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        };
        headings.map(|(_, line)| anchor(line)).collect()
    }

    /// Where its links and pictures lead.
    pub(super) fn links(&self) -> Vec<String> {
        let mut links = Vec::new();
        for (_, line) in self.prose() {
            for part in line.split("](").skip(1) {
                links.extend(part.split(')').next().map(str::to_owned));
            }
            for part in line.split("src=\"").skip(1) {
                links.extend(part.split('"').next().map(str::to_owned));
            }
        }
        links
    }
}
