//! The documents: every command in them is run as it stands, every link leads somewhere, and what they say of keys and
//! errors is what the program has.
//!
//! How a document says what is run: a fenced block of the language `sh` holds commands that each succeed; one of `console`
//! shows them after `$`, with what they print (`…` is anything). ` in terminal 1` behind the language names a second
//! terminal, whose command stays; the next step is taken when it shows what the block shows. `^C` there is that key.

mod config;
mod errors;
mod markdown;
mod session;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use self::markdown::{Block, Document, documents};
use self::session::Session;
use crate::support::wait::now;
use crate::support::{BIOTOPE, repository, shown, tell};

/// Documents that begin in a clone of the repository, whose examples they use. All others begin in an empty directory.
const IN_A_CLONE: [&str; 2] = ["docs/tour.md", "docs/worker-protocol.md"];
/// Documents that go on where the first section of the README ends, as they say themselves: with its worker running.
const AFTER_THE_FIRST_JOB: [&str; 6] =
    ["docs/access.md", "docs/errors.md", "docs/jobs.md", "docs/operations.md", "docs/signals.md", "docs/upgrade.md"];
/// What ends the first section of the README.
const FIRST_JOB_ENDS: &str = "## A new version";

/// Documents with blocks that change a server: tests/deb/booted types them, in a Debian of its own with sshd and systemd.
const ON_A_SERVER: [&str; 3] = ["README.md", "docs/deploy.md", "docs/operations.md"];
/// How those begin.
const SERVER_BLOCKS: [&str; 4] = ["./deploy.sh build", "./deploy.sh install", "ssh ", "sudo "];

/// Blocks that cannot be run here: how they begin, and why.
const CANNOT_RUN: [(&str, &str); 7] = [
    ("./deploy.sh build", "a build of its own takes minutes; what else stands there tests/deb/booted types"),
    ("./deploy.sh install", "it changes a server; tests/deb/booted types it"),
    ("ssh ", "it changes a server; tests/deb/booted types it"),
    ("sudo ", "it changes a server; tests/deb/booted types it"),
    ("tests/run", "this is one of the tests that it runs"),
    ("cargo test", "these are tests of this very suite, which run with it"),
    ("BIOTOPE_TEST_LONG=1 cargo", "thousands of simulated rollouts, which tests/run --long runs"),
];

/// Languages of blocks; only the first two are run.
const LANGUAGES: [&str; 11] =
    ["sh", "console", "text", "toml", "json", "yaml", "rust", "rust,no_run", "python", "js", "ini"];

fn is_run(block: &Block) -> bool {
    block.language == "sh" || block.language == "console"
}

/// Why a block is not run here.
fn excuse(block: &Block) -> Option<&'static str> {
    CANNOT_RUN.iter().find(|(begins, _)| block.text.starts_with(begins)).map(|(_, reason)| *reason)
}

/// Runs all blocks of a document, up to a line that begins with `end`; says how many commands that were.
fn run(document: &Document, end: &str, session: &mut Session) -> usize {
    let end = document.text.lines().position(|line| !end.is_empty() && line.starts_with(end)).unwrap_or(usize::MAX);
    let mut count = 0;
    for block in document.blocks() {
        if !is_run(&block) || block.line > end || excuse(&block).is_some() {
            continue;
        }
        count += match (block.language.as_str(), block.words.strip_prefix("in ")) {
            ("sh", None) => {
                session.run(block.line, &block.text);
                block.text.lines().filter(|line| !line.is_empty() && !line.starts_with([' ', '#'])).count()
            }
            ("console", terminal) => run_console(&block, terminal, session),
            (language, Some(terminal)) => {
                panic!("{}:{}: {language} in {terminal}: show what it prints: console", document.name, block.line)
            }
            (language, None) => panic!("{}:{}: {language}", document.name, block.line),
        };
    }
    count
}

/// Runs the commands of one `console` block.
fn run_console(block: &Block, terminal: Option<&str>, session: &mut Session) -> usize {
    let mut steps: Vec<(String, String)> = Vec::new();
    for line in block.text.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push((command.to_owned(), String::new()));
        } else if let (Some(more), Some((command, _))) = (line.strip_prefix("> "), steps.last_mut()) {
            *command += &format!("\n{more}");
        } else if line == "^C" || steps.is_empty() {
            steps.push((line.to_owned(), String::new()));
        } else if let Some((_, expected)) = steps.last_mut() {
            *expected += &format!("{line}\n");
        }
    }
    for (number, (command, expected)) in steps.iter().enumerate() {
        match (terminal, command.as_str()) {
            (Some(terminal), "^C") => session.interrupt(block.line, terminal, expected),
            (Some(terminal), shown) if !block.text.contains(&format!("$ {shown}")) => {
                session.wait_for(block.line, terminal, &format!("{shown}\n{expected}"));
            }
            (Some(terminal), command) => session.start(block.line, terminal, command, expected),
            (None, command) => {
                let may_fail = steps.get(number + 1).is_some_and(|(next, _)| next == "echo $?");
                session.run_and_compare(block.line, command, expected, may_fail);
            }
        }
    }
    steps.len()
}

#[test]
fn the_commands_of_every_document_run_as_they_stand() {
    let documents = documents();
    let readme = documents.iter().find(|document| document.name == "README.md").unwrap();
    let with_commands = documents.iter().filter(|document| document.blocks().iter().any(is_run));
    let with_commands: Vec<&Document> = with_commands.collect();
    // Three at a time: each waits most of its time for something outside.
    let queue = std::sync::Mutex::new(with_commands.iter());
    let counts = std::sync::Mutex::new(BTreeMap::new());
    let failed = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                loop {
                    let Some(document) = queue.lock().unwrap().next() else { return };
                    let began = now();
                    let count = std::panic::catch_unwind(|| {
                        let mut session = Session::new(&document.name, IN_A_CLONE.contains(&document.name.as_str()));
                        if AFTER_THE_FIRST_JOB.contains(&document.name.as_str()) {
                            run(readme, FIRST_JOB_ENDS, &mut session);
                        }
                        run(document, "", &mut session)
                    });
                    match count {
                        Ok(count) => {
                            tell(&format!("{}: {count} commands in {:.1?}", document.name, now() - began));
                            counts.lock().unwrap().insert(document.name.clone(), count);
                        }
                        Err(_) => failed.lock().unwrap().push(&document.name),
                    }
                }
            });
        }
    });
    let (counts, failed) = (counts.into_inner().unwrap(), failed.into_inner().unwrap());
    assert!(failed.is_empty(), "what is told above happened in {failed:?}");
    tell(&format!("documents: {} commands run", counts.values().sum::<usize>()));
    let mut excused = 0;
    for document in &documents {
        for block in document.blocks().iter().filter(|block| is_run(block)) {
            let Some(reason) = excuse(block) else { continue };
            excused += 1;
            tell(&format!("not run here: {}:{}: {reason}", document.name, block.line));
        }
    }
    tell(&format!("documents: {excused} blocks not run here"));
    assert!(counts.values().sum::<usize>() > 50, "{counts:?}");
}

#[test]
fn what_is_not_run_is_there_and_has_a_reason() {
    let mut found = BTreeSet::new();
    for document in documents() {
        for block in document.blocks() {
            let at = format!("{}:{}", document.name, block.line);
            assert!(
                LANGUAGES.contains(&block.language.as_str()),
                "{at}: {:?} is no language of a block",
                block.language
            );
            let looks_run = block.text.lines().any(|line| line.starts_with("$ ") || line.starts_with("biotope "));
            assert!(
                is_run(&block) || !looks_run,
                "{at}: commands in a block of {}: make it sh or console",
                block.language
            );
            let on_a_server = is_run(&block) && SERVER_BLOCKS.iter().any(|begins| block.text.starts_with(begins));
            assert!(!on_a_server || ON_A_SERVER.contains(&&*document.name), "{at}: who runs that? tests/deb/systemd");
            found.extend(CANNOT_RUN.iter().map(|(begins, _)| *begins).filter(|begins| block.text.starts_with(begins)));
        }
        let indented =
            document.prose().into_iter().find(|(_, line)| line.starts_with("    ") && line.contains("cargo"));
        assert_eq!(indented, None, "{}: commands stand in fenced blocks", document.name);
    }
    for (begins, reason) in CANNOT_RUN {
        assert!(reason.len() > 20, "{begins:?}: say why it cannot be run here");
        assert!(found.contains(begins), "no block begins with {begins:?}");
    }
}

#[test]
fn every_command_that_the_text_names_is_one() {
    let mut helps: BTreeMap<String, String> = BTreeMap::new();
    let mut seen = 0;
    for document in documents() {
        for span in document.spans() {
            let Some(words) = span.strip_prefix("biotope ") else { continue };
            if words.starts_with(['-', '0', '…']) {
                continue;
            }
            let words: Vec<&str> = words.split_whitespace().collect();
            let is_name =
                |word: &&&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-');
            // A word behind the first may be one of several, `jobs list|show`, or a value: only some commands have a second.
            let two = ["jobs", "log", "rollout"].contains(&words[0]);
            let names = words.iter().take(if two { 2 } else { 1 }).flat_map(|word| word.split('|').take(1));
            let names: Vec<&str> = names.collect();
            let names: Vec<&str> = names.iter().filter(is_name).copied().collect();
            let help = helps.entry(names.join(" ")).or_insert_with(|| {
                let output = Command::new(BIOTOPE).args(&names).arg("--help").output().unwrap();
                assert!(output.status.success(), "{}: `{span}`: {}", document.name, shown(&output));
                String::from_utf8(output.stdout).unwrap()
            });
            let is_hidden = |option: &str| names == ["simulate"] && option == "--bits";
            for option in words.iter().filter(|word| word.starts_with("--")).map(|word| word.trim_end_matches(',')) {
                let option = option.split('=').next().unwrap();
                assert!(help.contains(option) || is_hidden(option), "{}: `{span}`: {option}", document.name);
            }
            seen += 1;
        }
    }
    assert!(seen > 40, "{seen}");
}

#[test]
fn every_link_leads_somewhere() {
    let documents = documents();
    let anchors: BTreeMap<&str, Vec<String>> =
        documents.iter().map(|document| (document.name.as_str(), document.anchors())).collect();
    let mut seen = 0;
    for document in &documents {
        for link in document.links().into_iter().filter(|link| !link.contains("://")) {
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let folder = document.name.rsplit_once('/').map_or("", |(folder, _)| folder);
            let joined = if folder.is_empty() { path.to_owned() } else { format!("{folder}/{path}") };
            let target = match (path, joined.strip_prefix("docs/../")) {
                ("", _) => document.name.clone(),
                (_, Some(above)) => above.to_owned(),
                (_, None) => joined,
            };
            assert!(repository().join(&target).exists(), "{}: {link} leads nowhere", document.name);
            let has_anchor = anchors.get(target.as_str()).is_none_or(|of| of.iter().any(|one| one == anchor));
            assert!(anchor.is_empty() || has_anchor, "{}: {link}: {target} has no such heading", document.name);
            seen += 1;
        }
    }
    assert!(seen > 40, "{seen} links");
}

#[test]
fn every_document_can_be_found_from_the_readme() {
    let documents = documents();
    let mut found = BTreeSet::from(["README.md".to_owned()]);
    let mut open = vec!["README.md".to_owned()];
    while let Some(name) = open.pop() {
        let document = documents.iter().find(|document| document.name == name).unwrap();
        // A document may be named before it is there to be linked.
        for link in document.links().into_iter().chain(document.spans()) {
            let path = link.split('#').next().unwrap().trim_start_matches("../");
            let path = if path.contains('/') || path == "README.md" { path.to_owned() } else { format!("docs/{path}") };
            if documents.iter().any(|document| document.name == path) && found.insert(path.clone()) {
                open.push(path);
            }
        }
    }
    for document in &documents {
        assert!(found.contains(&document.name), "no link leads to {}", document.name);
    }
}
