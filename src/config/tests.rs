//! Config files as people write them, right and wrong: every file of `tests/fixtures/config` against what is said of it.

use std::collections::BTreeSet;
use std::path::Path;

use proptest::prelude::*;

use super::{Concurrency, KindConfig, SyncPolicy, data_dir_of, parse};

fn natives() -> BTreeSet<String> {
    BTreeSet::from(["built-in".to_owned()])
}

#[test]
fn every_fixture_says_what_was_reviewed() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config");
    let mut seen = 0;
    for entry in std::fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        seen += 1;
        let text = std::fs::read_to_string(&path).unwrap();
        let said = match parse(path.file_name().unwrap().to_str().unwrap(), &text, &natives()) {
            Ok(parsed) => format!("{:#?}\n", parsed.config),
            Err(problems) => format!("{problems}\n"),
        };
        let expected = path.with_extension("expected");
        if std::env::var_os("UPDATE_FIXTURES").is_some() {
            std::fs::write(&expected, &said).unwrap();
        }
        let reviewed = std::fs::read_to_string(&expected).unwrap_or_default();
        assert_eq!(reviewed, said, "{}: UPDATE_FIXTURES=1 writes it anew, for review", path.display());
    }
    assert!(seen >= 8, "{seen} fixtures");
}

#[test]
fn defaults_are_those_of_the_reference() {
    let config = parse("b.toml", "[workers.built-in]\nversion = \"v1\"\n", &natives()).unwrap().config;
    assert_eq!(config.data_dir, Path::new("data"));
    assert_eq!(config.listen.to_string(), "127.0.0.1:7420");
    assert_eq!((config.log.sync, config.log.retain), (SyncPolicy::Always, 1 << 30));
    assert_eq!(config.workers[0].kind, KindConfig::Native);
    let live = &config.workers[0].live;
    assert_eq!((live.concurrency, live.max_attempts, config.workers_max), (Concurrency::fixed(1), 4, 1024));
}

#[test]
fn the_data_directory_is_known_in_spite_of_mistakes_elsewhere_or_not_at_all() {
    let known = [
        ("", "data"),
        ("data_dir = \"a/b\"\nstop_timeout = 5\n", "a/b"),
        ("data_dir = 'd' # here\n[workers.x\nversion =\n", "d"),
        ("stop_timeout = \"5s\n\"data_dir\" = \"d\"\n", "d"),
        ("[workers.x]\nexec = [\n", "data"),
    ];
    for (text, dir) in known {
        assert_eq!(data_dir_of(text), Some(dir.into()), "{text}");
    }
    let unknown = [
        "data_dir = \"a\n",
        "data_dir = a\n",
        "data_dir = \"\"\n",
        "data_dir = 7\n",
        "data_dir\n",
        "data_dir = \"a\"\ndata_dir = \"b\"\n",
        "x = \"\"\"\ndata_dir = \"a\"\n",
        "[http]\ndata_dir = \"a\"\n",
    ];
    for text in unknown {
        assert_eq!(data_dir_of(text), None, "{text}");
    }
}

proptest! {
    #[test]
    fn any_text_is_a_config_or_a_list_of_problems(text in "(?s).{0,200}") {
        if let Err(problems) = parse("x.toml", &text, &natives()) {
            prop_assert!(!problems.list.is_empty());
            prop_assert!(problems.to_string().contains("x.toml"));
        }
    }

    #[test]
    fn any_change_of_a_good_config_is_a_config_or_a_list_of_problems(at in 0_usize..600, with in "[\\[\\]=\"a-z0-9 .\n{}]{0,3}") {
        let text = include_str!("../../tests/fixtures/config/full.toml");
        let at = (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let changed = format!("{}{with}{}", &text[..at], &text[at..]);
        if let Err(problems) = parse("x.toml", &changed, &natives()) {
            prop_assert!(!problems.to_string().is_empty());
        }
    }
}
