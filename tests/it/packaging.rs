//! What a package holds: the service and its drop-ins, as systemd itself judges them; the config; completions and the manual.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::{BIOTOPE, has_program, repository, shown, skipped};

/// The highest exposure, of 10, that the service may have.
const EXPOSURE_MAX: f64 = 1.5;

/// A folder with the service as packaging/ has it, but of the program under test, and with these drop-ins.
fn service(drop_ins: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let units = repository().join("packaging/systemd");
    let service = std::fs::read_to_string(units.join("biotope.service")).unwrap();
    let (named, path) = ("ExecStart=/usr/bin/biotope ", dir.path().join("biotope.service"));
    assert!(service.contains(named), "{service}");
    std::fs::write(&path, service.replace(named, &format!("ExecStart={BIOTOPE} "))).unwrap();
    std::fs::copy(units.join("biotope.socket"), dir.path().join("biotope.socket")).unwrap();
    let folder = dir.path().join("biotope.service.d");
    std::fs::create_dir(&folder).unwrap();
    for name in drop_ins {
        std::fs::copy(units.join("drop-ins").join(name), folder.join(name)).unwrap();
    }
    (dir, path)
}

fn analyze(args: &[&str], paths: &[&Path]) -> Output {
    Command::new("systemd-analyze").args(["--no-pager", "--man=no"]).args(args).args(paths).output().unwrap()
}

/// What systemd says of a service's exposure, as a number and in full.
fn exposure(path: &Path) -> (f64, String) {
    let analyzed = analyze(&["security", "--offline=true"], &[path]);
    let told = String::from_utf8_lossy(&analyzed.stdout).into_owned();
    let overall = told.lines().find_map(|line| line.split_once("Overall exposure level for biotope.service: "));
    let number = overall.and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
    (number.unwrap_or_else(|| panic!("{analyzed:?}")), told)
}

#[test]
fn systemd_finds_nothing_wrong_with_the_service() {
    if !has_program("systemd-analyze") {
        return skipped("systemd_finds_nothing_wrong_with_the_service", "no systemd-analyze here");
    }
    // What is only of a newer systemd is told by this one.
    let newer = ["notify-reload.conf"];
    let all = std::fs::read_dir(repository().join("packaging/systemd/drop-ins")).unwrap();
    let all: Vec<String> = all.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let known: Vec<&str> = all.iter().map(String::as_str).filter(|name| !newer.contains(name)).collect();
    assert!(known.len() >= 2, "{all:?}");
    for drop_ins in [&[][..], &known] {
        let (dir, path) = service(drop_ins);
        let verified = analyze(&["verify"], &[&path, &dir.path().join("biotope.socket")]);
        assert!(verified.status.success(), "{drop_ins:?}: {verified:?}");
        assert!(verified.stdout.is_empty() && verified.stderr.is_empty(), "{drop_ins:?}: {verified:?}");
    }
}

#[test]
fn the_service_is_hardened() {
    if !has_program("systemd-analyze") {
        return skipped("the_service_is_hardened", "no systemd-analyze here");
    }
    let (_dir, path) = service(&[]);
    let (whole, told) = exposure(&path);
    assert!(whole <= EXPOSURE_MAX, "{told}");
    // What drop-ins loosen is heard of.
    let (_dir, path) = service(&["jit-workers.conf", "other-users.conf"]);
    let (loosened, told) = exposure(&path);
    assert!(loosened > whole, "{told}");
    // Each of their directives is one that the service sets, or one for which there is a word beside it.
    let service = std::fs::read_to_string(repository().join("packaging/systemd/biotope.service")).unwrap();
    for name in ["jit-workers.conf", "other-users.conf"] {
        assert!(service.contains(&format!("drop-ins/{name}")), "{name} is told of where it is needed");
    }
}

fn biotope(args: &[&str]) -> Output {
    Command::new(BIOTOPE).args(args).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn the_config_of_the_package_passes() {
    let path = repository().join("packaging/biotope.toml");
    let checked = biotope(&["check-config", path.to_str().unwrap()]);
    assert!(checked.status.success(), "{}", shown(&checked));
}

/// Every command that `--help` shows, as words behind `biotope`.
fn commands(of: &[String]) -> Vec<Vec<String>> {
    let args: Vec<&str> = of.iter().map(String::as_str).chain(["--help"]).collect();
    let help = biotope(&args);
    assert!(help.status.success(), "{args:?}: {}", shown(&help));
    let text = String::from_utf8(help.stdout).unwrap();
    let listed = text.split("\nCommands:\n").nth(1).unwrap_or_default();
    let names = listed
        .lines()
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    names
        .flat_map(|name| {
            let words: Vec<String> = of.iter().cloned().chain([name.to_owned()]).collect();
            let below = commands(&words);
            std::iter::once(words).chain(below)
        })
        .collect()
}

#[test]
fn every_command_has_a_page_in_the_manual() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let pages = dir.path().join("made/man1");
    let made = biotope(&["man", pages.to_str().unwrap()]);
    assert!(made.status.success(), "{}", shown(&made));
    let all = commands(&[]);
    assert!(all.len() > 30 && all.contains(&vec!["jobs".to_owned(), "list".to_owned()]), "{all:?}");
    let mut wanted: Vec<String> = all.iter().map(|words| format!("biotope-{}.1", words.join("-"))).collect();
    wanted.push("biotope.1".to_owned());
    wanted.sort();
    let names = std::fs::read_dir(&pages).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut there: Vec<String> = names.collect();
    there.sort();
    assert_eq!(there, wanted);
    for name in &there {
        let text = std::fs::read_to_string(pages.join(name)).unwrap();
        for part in [".TH ", ".SH NAME", ".SH SYNOPSIS"] {
            assert!(text.contains(part), "{name} has no {part}:\n{text}");
        }
    }
    let list = std::fs::read_to_string(pages.join("biotope-jobs-list.1")).unwrap();
    assert!(list.contains("Only of this worker type") && list.contains("cursor"), "{list}");

    let first = biotope(&["man"]);
    assert!(
        first.status.success() && String::from_utf8_lossy(&first.stdout).contains(".SH SUBCOMMANDS"),
        "{}",
        shown(&first)
    );
    let nowhere = biotope(&["man", "/dev/null/man1"]);
    assert_eq!(nowhere.status.code(), Some(74), "{}", shown(&nowhere));
}

#[test]
fn completions_know_every_command_and_are_sound() {
    for shell in ["bash", "zsh", "fish"] {
        let script = biotope(&["completions", shell]);
        assert!(script.status.success(), "{shell}: {}", shown(&script));
        let text = String::from_utf8(script.stdout).unwrap();
        for words in commands(&[]) {
            let name = words.last().unwrap();
            assert!(text.contains(name.as_str()), "{shell} does not know {words:?}");
        }
        for option in ["failed-on", "wait", "config"] {
            assert!(text.contains(option), "{shell} does not know --{option}");
        }
        if has_program(shell) {
            let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
            let path = dir.path().join("biotope");
            std::fs::write(&path, &text).unwrap();
            let sound = Command::new(shell).arg("-n").arg(&path).output().unwrap();
            assert!(sound.status.success() && sound.stderr.is_empty(), "{shell}: {}", shown(&sound));
        }
    }
    // What bash makes of it: every command, where none is begun.
    let asks = "source <(\"$0\" completions bash); COMP_WORDS=(biotope r); COMP_CWORD=1; _biotope biotope r biotope; echo \"${COMPREPLY[*]}\"";
    let completed = Command::new("bash").args(["-c", asks, BIOTOPE]).output().unwrap();
    let words = String::from_utf8_lossy(&completed.stdout).into_owned();
    let words: Vec<&str> = words.split_whitespace().collect();
    assert_eq!(words, ["run", "reload", "restore", "resume", "rollout", "rollback"], "{}", shown(&completed));
    assert_eq!(biotope(&["completions", "tcsh"]).status.code(), Some(64));
}
