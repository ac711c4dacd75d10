//! docs/config.md against the parser itself: which keys there are, what each is where it is not given, and its bounds.
//!
//! The parser is asked from outside: what it says of an unknown key names all known ones; a key with its documented default
//! makes the config that it makes without; what it says of a value out of bounds names them.

use std::collections::{BTreeMap, BTreeSet};

use biotope::config::{Config, parse};

use super::markdown::{Document, documents};
use crate::support::tell;

/// Configs in which a key may stand: one of each kind of worker, and some in which keys that need another one have it.
const BASES: [&str; 6] = [
    "workers.w.exec = [\"cat\"]\n",
    "workers.w.exec = [\"cat\"]\nworkers.w.concurrency.max = 8\n",
    "workers.w.exec = [\"cat\"]\nworkers.w.rollout.steps = [10]\n",
    "workers.w.exec = [\"cat\"]\nworkers.w.mode = \"persistent\"\n",
    "workers.w.http = \"https://example.com/\"\n",
    "",
];

/// Defaults that are no value, and so cannot be tried: each says in words what holds without the key.
const IN_WORDS: [(&str, &str); 34] = [
    ("log.disk_max", "none"),
    ("http.names", "none"),
    ("http.tokens.metrics", "none"),
    ("http.tokens.read", "none"),
    ("http.tokens.operate", "none"),
    ("http.tokens.admin", "none"),
    ("http.tls.cert", "none"),
    ("http.tls.key", "none"),
    ("http.tls.ca", "none"),
    ("workers.w.version", "required"),
    ("workers.w.exec", "none"),
    ("workers.w.http", "none"),
    ("workers.w.timeout_max", "ten times `timeout`"),
    ("workers.w.concurrency.max", "required"),
    ("workers.w.probe", "none"),
    ("workers.w.on_dead", "none"),
    ("workers.w.watch", "none"),
    ("workers.w.env", "none"),
    ("workers.w.dir", "the config's folder"),
    ("workers.w.user", "biotope's own"),
    ("workers.w.umask", "biotope's own"),
    ("workers.w.limits.memory", "biotope's own"),
    ("workers.w.limits.open_files", "biotope's own"),
    ("workers.w.limits.processes", "biotope's own"),
    ("workers.w.limits.cpu", "biotope's own"),
    ("workers.w.limits.file_size", "biotope's own"),
    ("workers.w.limits.core", "biotope's own"),
    ("workers.w.recycle.cycles", "none"),
    ("workers.w.recycle.age", "none"),
    ("workers.w.recycle.rss", "none"),
    ("workers.w.secret", "none"),
    ("workers.w.headers", "none"),
    ("workers.w.ca", "none"),
    ("workers.w.rollout.steps", "none"),
];

/// A row of the reference.
struct Row {
    key: String,
    default: String,
    values: String,
}

fn reference() -> Document {
    documents().into_iter().find(|document| document.name == "docs/config.md").unwrap()
}

/// The rows of docs/config.md, by full key, with `w` for the name of a worker type.
fn rows(document: &Document) -> Vec<Row> {
    let mut rows = Vec::new();
    for (heading, cells) in document.rows() {
        let [key, default, values, _] = cells.as_slice() else { continue };
        let table = heading.split('`').nth(1).unwrap_or_default().trim_matches(['[', ']']).replace("TYPE", "w");
        let key = key.trim_matches('`');
        let key = if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") };
        rows.push(Row { key, default: default.clone(), values: values.clone() });
    }
    rows
}

fn read(text: &str) -> Result<Config, String> {
    let text = format!("workers.w.version = \"v1\"\n{text}");
    match parse("b.toml", &text, &BTreeSet::from(["w".to_owned()])) {
        Ok(parsed) => Ok(parsed.config),
        Err(problems) => Err(problems.to_string()),
    }
}

/// Every key that the parser knows, below a table; tables whose members anybody may name count as keys.
fn known(table: &str, found: &mut BTreeSet<String>) {
    let prefix = if table.is_empty() { String::new() } else { format!("{table}.") };
    let unknown = format!("{prefix}zzzzzzzz");
    let mut keys = BTreeSet::new();
    for base in BASES {
        let Err(told) = read(&format!("{unknown} = 1\n{base}")) else { continue };
        let Some(of) = told.split(&format!("unknown key `{unknown}`")).nth(1) else { continue };
        let Some(list) = of.split("known here: ").nth(1).and_then(|rest| rest.lines().next()) else { continue };
        keys.extend(list.split(", ").map(str::to_owned));
    }
    if keys.is_empty() {
        found.insert(table.to_owned());
    }
    for key in keys {
        // Of tables by worker type there is one for each; here that is `w`.
        let key = if key == "workers" { "workers.w".to_owned() } else { key };
        known(&format!("{prefix}{key}"), found);
    }
}

#[test]
fn the_reference_has_every_key_of_the_parser_and_no_other() {
    let mut found = BTreeSet::new();
    known("", &mut found);
    // A number or a table: both are told of.
    found.insert("workers.w.concurrency".to_owned());
    let documented: Vec<String> = rows(&reference()).into_iter().map(|row| row.key).collect();
    let set: BTreeSet<String> = documented.iter().cloned().collect();
    let missing: Vec<_> = found.difference(&set).collect();
    let stale: Vec<_> = set.difference(&found).collect();
    assert!(missing.is_empty(), "docs/config.md lacks {missing:?}");
    assert!(stale.is_empty(), "docs/config.md has {stale:?}, which the parser does not know");
    assert_eq!(documented.len(), set.len(), "a key stands twice in docs/config.md");
    tell(&format!("docs/config.md: {} keys", documented.len()));
}

#[test]
fn the_reference_has_the_parsers_defaults() {
    let in_words: BTreeMap<&str, &str> = IN_WORDS.into_iter().collect();
    let mut tried = 0;
    for row in rows(&reference()) {
        if let Some(words) = in_words.get(row.key.as_str()) {
            assert_eq!(&row.default, words, "{}", row.key);
            continue;
        }
        let literal = row.default.trim_matches('`');
        assert!(row.default.starts_with('`'), "{}: the default {:?} is no value", row.key, row.default);
        let line = format!("{} = {literal}\n", row.key);
        let without = BASES.iter().filter_map(|base| Some((base, read(base).ok()?)));
        let mut told = Vec::new();
        let found = without.into_iter().find_map(|(base, config)| match read(&format!("{base}{line}")) {
            Ok(with) => Some((config, with)),
            Err(problems) => {
                told.push(problems);
                None
            }
        });
        let Some((without, with)) = found else { panic!("{line}is refused: {told:#?}") };
        assert!(without == with, "{line}is not what holds without it");
        tried += 1;
    }
    assert!(tried > 35, "{tried}");
}

#[test]
fn the_reference_has_the_parsers_bounds() {
    let mut compared = 0;
    for row in rows(&reference()) {
        let beyond = ["\"99999d\"", "\"999999TiB\"", "\"101%\"", "4000000000"];
        let mut told = None;
        for (value, base) in beyond.iter().flat_map(|value| BASES.map(|base| (value, base))) {
            let Err(problems) = read(&format!("{base}{} = {value}\n", row.key)) else { continue };
            let of = problems.split(&format!("error: `{}` cannot be ", row.key)).nth(1);
            let of = of.and_then(|of| of.split("\n\n").next()?.split("it must lie between ").nth(1)?.lines().next());
            told = told.or(of.and_then(|of| of.split_once(" and ")).map(|(low, high)| format!("`{low}` to `{high}`")));
        }
        let has_bounds = row.values.contains("` to `");
        match told {
            Some(told) => {
                assert!(row.values.contains(&told), "{}: {:?}, and the parser has {told}", row.key, row.values)
            }
            None => assert!(!has_bounds, "{}: {:?}, and the parser has no such bounds", row.key, row.values),
        }
        compared += usize::from(has_bounds);
    }
    assert!(compared > 35, "{compared}");
}

#[test]
fn every_value_that_the_reference_names_is_one() {
    let mut tried = 0;
    for row in rows(&reference()) {
        let named = row.values.split('`').skip(1).step_by(2);
        for value in named.filter(|value| value.starts_with('"') || value.parse::<u64>().is_ok() || *value == "true") {
            let refused = |base: &str| {
                let told = read(&format!("{base}{} = {value}\n", row.key)).err()?;
                // What does not go with another key is no matter here.
                let of = format!("`{}` ", row.key);
                let kind = told.split(&format!("{of}is a")).nth(1).and_then(|rest| rest.lines().next());
                let is_kind = kind.is_some_and(|rest| rest.contains(", not "));
                Some(told).filter(|told| is_kind || told.contains(&format!("{of}cannot be")))
            };
            let told: Vec<String> = BASES.iter().filter_map(|base| refused(base)).collect();
            // The patterns of `watch` stand in a list.
            assert!(told.is_empty() || row.key.ends_with("watch"), "{} = {value}: {}", row.key, told.concat());
            tried += 1;
        }
    }
    assert!(tried > 90, "{tried}");
}

#[test]
fn the_references_example_passes() {
    let document = reference();
    let examples: Vec<_> = document.blocks().into_iter().filter(|block| block.language == "toml").collect();
    assert!(!examples.is_empty());
    for block in examples {
        let parsed = parse("docs/config.md", &block.text, &BTreeSet::new());
        assert_eq!(parsed.err().map(|problems| problems.to_string()), None, "line {}", block.line);
    }
}
