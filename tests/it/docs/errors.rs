//! docs/errors.md against the code: an entry for every code, every exit code and every family of messages, and none besides.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::markdown::{Document, documents};
use super::session::is_like_line;
use crate::support::{repository, tell};

/// Files whose error enums tell of a start, a copy or a config: each of their texts has an entry.
const FAMILIES: [&str; 7] = [
    "src/log/lock.rs",
    "src/log/told.rs",
    "src/log/recovery.rs",
    "src/log/look.rs",
    "src/log/copy.rs",
    "src/care/mod.rs",
    "src/engine/open.rs",
];

fn reference() -> Document {
    documents().into_iter().find(|document| document.name == "docs/errors.md").unwrap()
}

/// Sources whose problems are shown at their place in a config.
const OF_CONFIGS: [&str; 7] = [
    "src/access",
    "src/config",
    "src/generation.rs",
    "src/worker/confined.rs",
    "src/worker/definition.rs",
    "src/worker/files.rs",
    "src/worker/http",
];

/// First cells of the tables under a heading, without their backticks, with the second ones.
fn entries(heading: &str) -> Vec<(String, String)> {
    let rows = reference().rows().into_iter().filter(|(under, _)| under == heading);
    let entries: Vec<_> = rows.map(|(_, cells)| (cells[0].trim_matches('`').to_owned(), cells[1].clone())).collect();
    assert!(!entries.is_empty(), "docs/errors.md has no {heading}");
    entries
}

/// All entries that quote a message.
fn messages() -> Vec<String> {
    let tables = ["A config that is refused", "A start, backup or restore that is refused", "The command line"];
    let tables = tables.into_iter().chain(["A version that does not come up, or fails"]);
    tables.flat_map(entries).map(|(message, _)| message).collect()
}

fn sources(dir: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push(text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned());
        }
    }
}

/// The second argument of a call, of which this is what stands behind its parenthesis.
fn second_argument(call: &str) -> &str {
    let (mut depth, mut inside, mut escaped, mut start) = (0, false, false, None);
    for (at, c) in call.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if inside => escaped = true,
            '"' => inside = !inside,
            _ if inside => {}
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth > 0 => depth -= 1,
            ')' | ']' | '}' => return &call[start.unwrap_or(at)..at],
            ',' if depth == 0 => match start {
                None => start = Some(at + 1),
                Some(start) => return &call[start..at],
            },
            _ => {}
        }
    }
    ""
}

/// What sources say is wrong with a config: `let message = …`, the second argument of what notes a problem, and what a
/// look-up of the machine failed by.
fn problems_of_configs() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for place in OF_CONFIGS {
        let mut texts = Vec::new();
        let path = repository().join(place);
        if path.is_dir() {
            sources(&path, &mut texts);
        } else {
            let text = std::fs::read_to_string(&path).unwrap();
            texts.push(text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned());
        }
        for text in texts {
            let messages = text.split("let message =").skip(1).map(|rest| rest.split(';').next().unwrap());
            let noted =
                [".add(", "problem("].into_iter().flat_map(|call| text.split(call).skip(1)).map(second_argument);
            let looked_up = text.split("Err(format!(").skip(1).filter(|_| place == "src/worker/files.rs");
            for part in messages.chain(noted).chain(looked_up) {
                // A variable is found where it is made.
                found.extend(literals(part).into_iter().next().map(|literal| (place.to_owned(), literal)));
            }
        }
    }
    found
}

fn source() -> String {
    let mut found = Vec::new();
    sources(&repository().join("src"), &mut found);
    found.join("\n")
}

/// The texts in quotes of a source, with `…` for what is filled in, and escapes undone.
fn literals(source: &str) -> Vec<String> {
    let mut literals = Vec::new();
    let code = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut chars = code.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' => {
                // A character, which may be a quote; a lifetime goes on with a letter and has no end.
                let rest: String = chars.clone().take(3).collect();
                let ends = if rest.starts_with('\\') { rest.chars().nth(2) } else { rest.chars().nth(1) };
                if ends == Some('\'') {
                    chars.nth(if rest.starts_with('\\') { 2 } else { 1 });
                }
            }
            '"' => literals.push(literal(&mut chars)),
            _ => {}
        }
    }
    literals
}

fn literal(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> String {
    let mut text = String::new();
    let mut depth = 0;
    while let Some(c) = chars.next() {
        match (c, depth) {
            ('"', _) => break,
            ('\\', _) => match chars.next() {
                Some('\n') => while chars.next_if(|c| c.is_whitespace()).is_some() {},
                Some('n') => text.push('\n'),
                Some(other) if depth == 0 => text.push(other),
                _ => {}
            },
            ('{', 0) if chars.peek() == Some(&'{') => text.extend(chars.next()),
            ('{', _) => {
                depth += 1;
                text.push('…');
            }
            ('}', 0) => {
                text.push('}');
                chars.next_if_eq(&'}');
            }
            ('}', _) => depth -= 1,
            (c, 0) => text.push(c),
            (_, _) => {}
        }
    }
    text
}

#[test]
fn every_code_of_the_api_has_an_entry() {
    let source = source();
    let mut codes: BTreeSet<String> = BTreeSet::new();
    let calls = source.split("Problem::new(").skip(1).chain(source.split("Self::new(StatusCode").skip(1));
    for call in calls {
        let arguments: String = call.chars().take_while(|c| *c != ';').collect();
        let code = arguments.split('"').nth(1).unwrap_or_default();
        let is_code = !code.is_empty() && code.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        assert!(is_code, "a code that is not written where the problem is made: Problem::new({arguments}");
        codes.insert(code.to_owned());
    }
    // Refusals of the engine, and answers that are written as they stand.
    let refusals =
        source.split("pub fn code(&self) -> &'static str").nth(1).unwrap().split("\n    }\n").next().unwrap();
    codes.extend(refusals.split("=> \"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()));
    for raw in source.replace('\\', "").split("\"code\":\"").skip(1) {
        codes.insert(raw.split('"').next().unwrap().to_owned());
    }
    let documented: BTreeMap<String, String> = entries("Codes of the API").into_iter().collect();
    let listed: BTreeSet<String> = documented.keys().cloned().collect();
    assert_eq!(codes, listed, "the code has those on the left, docs/errors.md those on the right");
    tell(&format!("docs/errors.md: {} codes", codes.len()));
}

#[test]
fn every_exit_code_has_an_entry() {
    let exit = std::fs::read_to_string(repository().join("src/exit.rs")).unwrap();
    let mut codes = BTreeSet::from(["0".to_owned()]);
    codes.extend(exit.split(": u8 = ").skip(1).map(|rest| rest.split(';').next().unwrap().to_owned()));
    for file in ["src/engine/open.rs", "src/care/mod.rs"] {
        let text = std::fs::read_to_string(repository().join(file)).unwrap();
        let body = text.split("pub fn exit_code").nth(1).unwrap().split("\n    }\n").next().unwrap();
        let numbers = body.split(|c: char| !c.is_ascii_digit()).filter(|word| word.len() == 2);
        codes.extend(numbers.map(str::to_owned));
    }
    let listed: BTreeSet<String> = entries("Exit codes").into_iter().map(|(code, _)| code).collect();
    assert_eq!(codes, listed, "the code has those on the left, docs/errors.md those on the right");
}

#[test]
fn every_family_of_messages_has_an_entry() {
    let messages = messages();
    let told = |text: &str| messages.iter().any(|message| is_like_line(message, text));
    let mut missing = Vec::new();
    for file in FAMILIES {
        let text = std::fs::read_to_string(repository().join(file)).unwrap();
        for attribute in text.split("#[error(").skip(1).filter(|rest| !rest.starts_with("transparent")) {
            let literal = literals(attribute).into_iter().next().unwrap();
            if !told(&literal) {
                missing.push(format!("{file}: {literal}"));
            }
        }
    }
    for entry in std::fs::read_dir(repository().join("tests/fixtures/config")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let titles = text.lines().filter_map(|line| line.strip_prefix("error: "));
        missing.extend(titles.filter(|title| !told(title)).map(|title| format!("{}: {title}", path.display())));
    }
    let problems = problems_of_configs();
    assert!(problems.len() > 60, "{problems:#?}");
    for (place, problem) in problems {
        // What has hardly a word of its own shows another one's.
        let words = problem.chars().filter(char::is_ascii_alphabetic).count();
        if words > 4 && !told(&problem) && !told(&format!("x {problem}")) {
            missing.push(format!("{place}: {problem}"));
        }
    }
    assert!(missing.is_empty(), "docs/errors.md has no entry for {missing:#?}");
}

#[test]
fn every_entry_is_something_that_the_code_says() {
    let literals = literals(&source());
    assert!(literals.len() > 2000, "{}", literals.len());
    // What other crates say, and what is put together of two.
    let elsewhere = ["unclosed …"];
    for message in messages().iter().filter(|message| !elsewhere.contains(&message.as_str())) {
        // The longest part between two `…` stands in one text of the code.
        let part = message.split('…').max_by_key(|part| part.trim().len()).unwrap().trim();
        let found = literals.iter().any(|literal| literal.contains(part) || is_like_line(message, literal));
        assert!(found, "nothing in the code says {message:?} ({part:?})");
    }
}

#[test]
fn literals_are_read_as_the_compiler_reads_them() {
    let source = "// \"no\"\nlet a = '\"'; f::<'a>(\"x {y} \\\"z\\\" {{w}} \\\n   q\"); '\\n'; \"{}: {0:?}\"";
    assert_eq!(literals(source), ["x … \"z\" {w} q", "…: …"]);
}
