//! Runs that change nothing, and `--root DIR`, which lays files down and runs nothing.

use std::path::Path;
use std::process::{Command, Output};

use super::host::Host;
use crate::support::{repository, shown};

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
}
