//! What packaging/ holds: the service and its drop-ins, as systemd itself judges them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::{BIOTOPE, has_program, repository, skipped};

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
