//! Runs that change nothing, and `--root DIR`, which lays files down and runs nothing.

use std::path::Path;
use std::process::{Command, Output};

use super::host::Host;
use crate::support::{has_program, repository, shown, skipped};

#[test]
fn a_dry_run_says_everything_and_changes_nothing() {
    let Some(host) = Host::start("a_dry_run_says_everything_and_changes_nothing") else { return };
    let (one, two) = (host.binary("1"), host.binary("2"));
    let (v1, v2) = (host.config("v1"), host.config("v2"));
    let said = host.deploys(0, "install", &["--binary", &one, "--config", &v1, "--dry-run"]);
    for step in [
        "would send the binary",
        "would send the config",
        "would check the config",
        "would put the new binary",
        "would start it",
        "nothing starts it after a reboot",
    ] {
        assert!(said.contains(step), "{step}: {said}");
    }
    assert!(!host.path("h").exists() && std::fs::read_dir(host.path("home")).unwrap().next().is_none());

    host.deploys(0, "install", &["--binary", &one, "--config", &v1]);
    host.deploys(0, "upgrade", &["--config", &v2]);
    let before = (host.tree("h"), host.tree("home"), host.ecosystem()["generation"].clone());
    let runs: [(&str, &[&str], &str); 4] = [
        ("upgrade", &["--binary", &two, "--config", &v1, "--dry-run"], "would replace the running binary"),
        ("install", &["--binary", &one, "--config", &v2, "--dry-run"], "would have the config taken over"),
        ("check", &["--binary", &two, "--dry-run"], "would check the config"),
        ("rollback", &["--dry-run"], "would put the new config into its place"),
    ];
    for (action, args, step) in runs {
        let said = host.deploys(0, action, args);
        assert!(said.contains(step), "{action}: {said}");
        assert_eq!(
            (host.tree("h"), host.tree("home"), host.ecosystem()["generation"].clone()),
            before,
            "{action}: {said}"
        );
    }
    host.deploys(0, "status", &[]);
    assert_eq!((host.tree("h"), host.tree("home")), (before.0, before.1), "nor does a look");
}

fn lay_down(action: &str, root: &Path, args: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.args(["120"]).arg(repository().join("deploy.sh")).args([action, "--root"]).arg(root).args(args);
    command.output().unwrap()
}

#[test]
fn a_root_gets_files_alone() {
    let host = Host::silent();
    let (one, two) = (host.binary("1"), host.binary("2"));
    let (v1, v2) = (host.config("v1"), host.config("v2"));
    let root = host.path("image");
    let missing = lay_down("install", &root, &["--binary", &one, "--config", &v1]);
    assert_eq!(missing.status.code(), Some(73), "{}", shown(&missing));
    std::fs::create_dir(&root).unwrap();
    let dry = lay_down("install", &root, &["--binary", &one, "--config", &v1, "--dry-run"]);
    assert!(dry.status.success() && shown(&dry).contains("would put the new binary"), "{}", shown(&dry));
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0, "{}", shown(&dry));

    // The binary that ships runs there, and looks for what the config names.
    std::fs::create_dir(root.join("bin")).unwrap();
    std::fs::rename(host.program("cat", b"#!/bin/sh\n"), root.join("bin/cat")).unwrap();
    let laid = lay_down("install", &root, &["--binary", &one, "--config", &v1]);
    assert!(laid.status.success(), "{}", shown(&laid));
    let places = [("usr/local/bin/biotope", &one), ("etc/biotope/biotope.toml", &v1)];
    for (place, file) in places {
        assert!(host.holds(&format!("image/{place}"), file), "{place}");
    }
    let unit = host.text("image/etc/systemd/system/biotope.service");
    assert!(unit.contains("ExecStart=/usr/local/bin/biotope run /etc/biotope/biotope.toml"), "{unit}");
    assert!(host.text("image/etc/sysusers.d/biotope.conf").contains("u biotope"));
    let link = std::fs::read_link(root.join("etc/systemd/system/multi-user.target.wants/biotope.service")).unwrap();
    assert_eq!(link, Path::new("../biotope.service"));
    let names = host.tree("image");
    assert!(
        !names.keys().any(|path| path.display().to_string().contains(".new") || path.ends_with("biotope-deploy")),
        "{names:?}"
    );

    // Again, nothing is touched; then both files are others.
    let again = lay_down("install", &root, &["--binary", &one, "--config", &v1]);
    assert!(again.status.success(), "{}", shown(&again));
    assert_eq!(
        host.tree("image/usr/local/bin/biotope"),
        names.clone().into_iter().filter(|(path, _)| path.ends_with("bin/biotope")).collect()
    );
    let other = lay_down("upgrade", &root, &["--binary", &two, "--config", &v2]);
    assert!(other.status.success(), "{}", shown(&other));
    assert!(host.holds("image/usr/local/bin/biotope", &two) && host.holds("image/etc/biotope/biotope.toml", &v2));

    // Where a package has put biotope, it is the package's.
    let unit = root.join("usr/lib/systemd/system/biotope.service");
    std::fs::create_dir_all(unit.parent().unwrap()).unwrap();
    std::fs::write(&unit, "[Service]\n").unwrap();
    let before = host.tree("image");
    for action in ["check", "install", "upgrade"] {
        let refused = lay_down(action, &root, &["--binary", &one, "--config", &v1]);
        assert_eq!(refused.status.code(), Some(73), "{action}: {}", shown(&refused));
        assert!(shown(&refused).contains("a package has put biotope here"), "{action}: {}", shown(&refused));
    }
    assert_eq!(host.tree("image"), before, "nothing was changed");
}

/// What a config names is looked for in the folder that will be `/`, not on the machine that lays it down.
#[test]
fn a_root_is_checked_as_seen_from_inside() {
    if !rustix::process::geteuid().is_root() {
        skipped("a_root_is_checked_as_seen_from_inside", "needs chroot, which is root's");
        return;
    }
    let host = Host::silent();
    let (one, v1) = (host.binary("1"), host.config("v1"));
    let root = host.path("image");
    std::fs::create_dir(&root).unwrap();
    // The binary that ships needs no library; the one under test does.
    let needed = Command::new("ldd").arg(&one).output().unwrap();
    for library in String::from_utf8(needed.stdout).unwrap().split_whitespace().filter(|word| word.starts_with('/')) {
        let place = root.join(library.trim_start_matches('/'));
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::copy(library, place).unwrap();
    }
    let text = std::fs::read_to_string(&v1).unwrap();
    let of = |name: &str, program: &str| {
        host.write(name, &text.replace("[\"cat\"]", &format!("[{program:?}]")));
        host.path(name).display().to_string()
    };
    let before = host.tree("image");
    let outside = lay_down("install", &root, &["--binary", &one, "--config", &of("outside.toml", "/bin/sh")]);
    assert_eq!(outside.status.code(), Some(78), "{}", shown(&outside));
    assert!(
        shown(&outside).contains("/etc/biotope/biotope.toml:"),
        "by the name that it has there: {}",
        shown(&outside)
    );
    assert_eq!(host.tree("image").keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    std::fs::create_dir(root.join("opt")).unwrap();
    std::fs::rename(host.program("hello", b"#!/bin/sh\n"), root.join("opt/hello")).unwrap();
    let inside = lay_down("install", &root, &["--binary", &one, "--config", &of("inside.toml", "/opt/hello")]);
    assert!(inside.status.success() && shown(&inside).contains("seen from inside"), "{}", shown(&inside));
}

/// A host that has nothing but busybox: its shell, and its own coreutils.
#[test]
fn a_host_needs_no_more_than_busybox() {
    if !has_program("busybox") {
        skipped("a_host_needs_no_more_than_busybox", "needs busybox, of the package busybox-static");
        return;
    }
    let host = Host::silent();
    std::fs::create_dir(host.path("bin")).unwrap();
    let said = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let busybox = said("sh", &["-c", "command -v busybox"]);
    for applet in said("busybox", &["--list"]).lines() {
        std::os::unix::fs::symlink(&busybox, host.path("bin").join(applet)).unwrap();
    }
    let run = |settings: &[String]| {
        let mut command = Command::new("sh");
        command.args(["-c", "cat packaging/deploy/*.sh | env -i HOME=/ PATH=\"$0\" busybox sh -s -- \"$@\""]);
        command.arg(host.path("bin")).args(settings);
        command.arg(format!("prefix={}", host.path("h").display())).arg("settle=0");
        let output = command.current_dir(repository()).output().unwrap();
        assert!(output.status.success(), "{}\n{}", shown(&output), host.text("h/biotope.log"));
        shown(&output)
    };
    let (one, two) = (host.binary("1"), host.binary("2"));
    let (v1, v2) = (host.config("v1"), host.config("v2"));
    let file = |what: &str, path: &str| {
        let sum = said("sha256sum", &[path]);
        [format!("{what}_file={path}"), format!("{what}_sha={}", sum.split(' ').next().unwrap())]
    };
    let with = |action: &str, files: &[[String; 2]]| {
        let words = files.iter().flatten().cloned();
        run(&[vec![format!("action={action}")], words.collect()].concat())
    };
    with("install", &[file("binary", &one), file("config", &v1)]);
    let pid = host.pid();
    host.under_load(|| {
        with("upgrade", &[file("binary", &two), file("config", &v2)]);
        assert_eq!(host.version(), "v2");
        with("rollback", &[]);
    });
    assert_eq!((host.version(), host.pid()), ("v1".to_owned(), pid));
    assert!(host.holds("h/biotope", &one));
    let shown = with("status", &[]);
    assert!(shown.contains("of that binary"), "{shown}");
}
