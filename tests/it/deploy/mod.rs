//! deploy.sh against a real sshd: what it lays down, what it refuses, what it takes back, and that nobody notices.

mod broken;
mod drops;
mod files;
mod host;
mod system;

use std::process::Command;

use crate::support::{has_program, repository, shown, skipped};
use host::Host;

#[test]
fn a_first_installation_then_config_and_binary_under_load() {
    let Some(host) = Host::start("a_first_installation_then_config_and_binary_under_load") else { return };
    let (one, two) = (host.binary("1"), host.binary("2"));
    let (v1, v2) = (host.config("v1"), host.config("v2"));
    host.deploys(69, "status", &[]);
    host.deploys(69, "upgrade", &["--binary", &one, "--config", &v1]);
    let said = host.deploys(0, "install", &["--binary", &one, "--config", &v1]);
    assert!(said.contains("done: biotope "), "{said}");
    assert_eq!(host.version(), "v1");
    let pid = host.pid().unwrap();

    // The same again changes nothing.
    let generation = host.ecosystem()["generation"]["number"].clone();
    let current = host.text("h/.deploy/current");
    let said = host.deploys(0, "install", &["--binary", &one, "--config", &v1]);
    assert!(said.contains("binary: ") && said.contains("as it is") && !said.contains("put the new"), "{said}");
    let seen = host.ecosystem();
    assert_eq!((&seen["generation"]["number"], &seen["binary"]["attempts"]), (&generation, &0.into()));
    assert_eq!(host.text("h/.deploy/current"), current);

    host.under_load(|| {
        host.deploys(0, "upgrade", &["--binary", &one, "--config", &v2]);
        assert_eq!(host.version(), "v2");
        host.deploys(0, "upgrade", &["--binary", &two]);
        assert_eq!(host.ecosystem()["binary"]["replaced"], 1);
        // Both at once, and back again by what was kept.
        host.deploys(0, "upgrade", &["--binary", &one, "--config", &v1]);
        assert_eq!((host.version(), host.holds("h/biotope", &one)), ("v1".to_owned(), true));
        let said = host.deploys(0, "rollback", &[]);
        assert!(said.contains("done: back at "), "{said}");
    });
    assert_eq!((host.version(), host.holds("h/biotope", &two)), ("v2".to_owned(), true));
    assert!(host.holds("h/biotope.toml", &v2));
    assert_eq!(host.ecosystem()["binary"]["replaced"], 3);
    assert_eq!(host.pid(), Some(pid), "one process all the while");
    let said = host.deploys(0, "status", &[]);
    assert!(
        said.contains("of that binary") && said.contains("kept for a rollback") && said.contains("v2 current"),
        "{said}"
    );
    // Nothing is left beside the files, and no more is kept than the two that may be gone to.
    let names = |folder: &str| {
        let entries = std::fs::read_dir(host.path(folder)).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names("h"), [".deploy", "biotope", "biotope.log", "biotope.toml", "data"]);
    assert_eq!(names("h/.deploy"), ["current", "kept", "log", "previous"]);
    assert!(names("h/.deploy/kept").len() <= 4, "{:?}", names("h/.deploy/kept"));
    assert!(names("home/.biotope-deploy").is_empty(), "what was sent is gone");
}

#[test]
fn deploy_sh_is_as_shellcheck_wants_it() {
    if !has_program("shellcheck") {
        skipped("deploy_sh_is_as_shellcheck_wants_it", "needs shellcheck");
        return;
    }
    // What runs on a host is one script in several files.
    let scripts = ["deploy.sh", "tests/it/deploy/systemctl.sh", "-"];
    for script in scripts {
        let check = format!("cat packaging/deploy/*.sh | shellcheck --shell=sh {script}");
        let output = Command::new("sh").args(["-c", &check]).current_dir(repository()).output().unwrap();
        assert!(output.status.success(), "{script}: {}", shown(&output));
    }
}

#[test]
fn what_is_asked_for_wrongly_is_told() {
    let host = Host::silent();
    let deploy = |args: &[&str]| {
        let output = Command::new(repository().join("deploy.sh")).args(args).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let missing = host.path("missing").display().to_string();
    let file = host.config("v1");
    let cases: [(&[&str], i32, &str); 11] = [
        (&[], 64, "Usage:"),
        (&["dance"], 64, "Usage:"),
        (&["upgrade"], 64, "needs a host"),
        (&["upgrade", "a", "b"], 64, "one host at a time"),
        (&["upgrade", "--config"], 64, "--config needs a value"),
        (&["upgrade", "--no-such", "x", "a"], 64, "knows no --no-such"),
        (&["upgrade", "--timeout", "soon", "a"], 64, "a number of seconds"),
        (&["upgrade", "--service", "upstart", "a"], 64, "auto, systemd or none"),
        (&["upgrade", "--prefix", "here", "a"], 64, "begins with /"),
        (&["upgrade", "--config", &missing, "a"], 66, "there is no file"),
        (&["rollback", "--root", &file], 64, "nothing runs in --root"),
    ];
    for (args, code, why) in cases {
        let (got, said) = deploy(args);
        assert!(got == Some(code) && said.contains(why), "{args:?}: {got:?} {said}");
    }
}

#[test]
fn a_host_that_does_not_answer_is_told() {
    let host = Host::silent();
    if !has_program("ssh") {
        skipped("a_host_that_does_not_answer_is_told", "needs ssh");
        return;
    }
    let said = host.deploys(69, "status", &[]);
    assert!(said.contains("no connection to "), "{said}");
}
