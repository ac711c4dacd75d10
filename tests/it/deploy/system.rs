//! A host as they are: somebody who is not root and may use sudo, a unit of systemd, files where they belong. It is this machine in a
//! mount namespace of its own, with a stand-in for systemctl that does what the unit says.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use super::host::Host;
use crate::support::{has_program, http, repository, skipped};

/// Lays folders of its own over those that are written to, then becomes sshd. `$1` is the folder of the test.
const WORLD: &str = r#"
set -eu
mount --make-rprivate /
mkdir -p "$1/over"
mount -t tmpfs tmpfs "$1/over"
for dir in etc var/lib var/log; do
    mkdir -p "$1/over/$dir/up" "$1/over/$dir/work"
    mount -t overlay overlay -o "lowerdir=/$dir,upperdir=$1/over/$dir/up,workdir=$1/over/$dir/work" "/$dir"
done
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /usr/local/bin
mkdir -p /run/systemd/system /run/sshd /etc/deploy
sed -i '/^biotope:/d' /etc/passwd /etc/group /etc/shadow
echo 'deployer:x:54321:54321::/var/lib/deployer:/bin/sh' >>/etc/passwd
echo 'deployer:x:54321:' >>/etc/group
echo 'deployer:*:19000:0:99999:7:::' >>/etc/shadow
mkdir -p /var/lib/deployer /etc/sudoers.d
chown 54321:54321 /var/lib/deployer
[ "$2" = no-sudo ] || (umask 227 && echo 'deployer ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/deployer)
cp "$1/key.pub" /etc/deploy/authorized_keys
chmod 644 /etc/deploy/authorized_keys
cp "$3" /usr/local/bin/systemctl
exec /usr/sbin/sshd -D -e -f "$1/sshd_config"
"#;

/// Why such a host cannot be made here.
fn missing() -> Option<&'static str> {
    let programs = ["unshare", "setpriv", "runuser", "systemd-sysusers"];
    if !programs.iter().all(|name| has_program(name)) || !std::path::Path::new("/usr/bin/sudo").is_file() {
        return Some("needs unshare, setpriv, runuser, systemd-sysusers and sudo");
    }
    let try_it = "mount -t tmpfs tmpfs /mnt && mkdir /mnt/u /mnt/w && mount -t overlay overlay -o lowerdir=/etc,upperdir=/mnt/u,workdir=/mnt/w /etc";
    let output = Command::new("unshare").args(["-m", "sh", "-c", try_it]).output().unwrap();
    (!output.status.success()).then_some("needs a mount namespace, which a container may not give")
}

#[test]
fn who_may_use_sudo_installs_a_service_and_evolves_it() {
    let test = "who_may_use_sudo_installs_a_service_and_evolves_it";
    if let Some(why) = missing() {
        return skipped(test, why);
    }
    let stand_in = repository().join("tests/it/deploy/systemctl.sh").display().to_string();
    let Some(host) = Host::start_in(test, WORLD, &["sudo", &stand_in]) else { return };
    let (one, two, v1, v2) = (host.binary("1"), host.binary("2"), host.config("v1"), host.config("v2"));
    let config = std::fs::read_to_string(&v1).unwrap();
    for (file, version) in [(&v1, "v1"), (&v2, "v2")] {
        std::fs::write(
            file,
            config.replace("\"data\"", "\"/var/lib/biotope\"").replace("\"v1\"", &format!("{version:?}")),
        )
        .unwrap();
    }
    let said = host.deploys(0, "install", &["--binary", &one, "--config", &v1, "--dry-run"]);
    assert!(said.contains("would install the unit") && said.contains("systemctl start biotope"), "{said}");
    assert!(!host.world("/etc/biotope").exists() && !host.world("/usr/local/bin/biotope").exists());

    let said = host.deploys(0, "install", &["--binary", &one, "--config", &v1]);
    assert!(said.contains("enable it at boot") && said.contains("done: biotope "), "{said}");
    let unit = std::fs::read_to_string(host.world("/etc/systemd/system/biotope.service")).unwrap();
    assert!(unit.contains("ExecStart=/usr/local/bin/biotope run /etc/biotope/biotope.toml"), "{unit}");
    let of = std::fs::metadata(host.world("/etc/biotope/biotope.toml")).unwrap();
    let data = std::fs::metadata(host.world("/var/lib/biotope")).unwrap();
    assert_eq!((of.mode() & 0o777, of.uid()), (0o640, 0), "root's, and for its service to read");
    assert_eq!(of.gid(), data.gid(), "the group of whom the service runs as");
    assert_ne!(data.uid(), 0);
    let pid = std::fs::read_to_string(host.world("/var/lib/biotope/LOCK")).unwrap();

    host.under_load(|| {
        host.deploys(0, "upgrade", &["--config", &v2]);
        host.deploys(0, "upgrade", &["--binary", &two]);
    });
    assert_eq!((host.version(), host.ecosystem()["binary"]["replaced"].clone()), ("v2".to_owned(), 1.into()));
    assert_eq!(std::fs::read_to_string(host.world("/var/lib/biotope/LOCK")).unwrap(), pid, "one process all the while");
    let of = std::fs::metadata(host.world("/etc/biotope/biotope.toml")).unwrap();
    assert_eq!((of.mode() & 0o777, of.gid()), (0o640, data.gid()), "as it was");
    // What root may read and the service may not is no config for it.
    let secret = host.world("/etc/biotope/secret");
    std::fs::write(&secret, "x").unwrap();
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
    let text = std::fs::read_to_string(&v2).unwrap();
    host.write("secret.toml", &format!("{text}env = {{ X = {{ file = \"/etc/biotope/secret\" }} }}\n"));
    let said = host.deploys(78, "upgrade", &["--config", &host.path("secret.toml").display().to_string()]);
    assert!(said.contains("secret") && said.contains("nothing was changed"), "{said}");

    let calls = std::fs::read_to_string(host.world("/run/systemctl/calls")).unwrap();
    let count = |call: &str| calls.lines().filter(|line| *line == call).count();
    assert_eq!((count("start biotope.service"), count("daemon-reload")), (1, 1), "{calls}");
    assert_eq!((count("restart biotope.service"), count("stop biotope.service")), (0, 0), "{calls}");
    host.deploys(0, "rollback", &[]);
    host.deploys(0, "install", &["--binary", &one, "--config", &v1]);
    let calls = std::fs::read_to_string(host.world("/run/systemctl/calls")).unwrap();
    assert_eq!(calls.lines().filter(|line| *line == "daemon-reload").count(), 1, "the unit is as it is: {calls}");
    assert_eq!(http::get(host.port, "/readyz").unwrap().status, 200);

    // Tokens and secrets are of whom the service runs as, and of nobody else: so is who asks.
    let token = host.world("/etc/biotope/token");
    std::fs::write(&token, "0123456789abcdef0123456789abcdef\n").unwrap();
    std::fs::set_permissions(&token, PermissionsExt::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(&token, Some(data.uid()), Some(data.gid())).unwrap();
    let named = "{ file = \"/etc/biotope/token\" }";
    host.write("own.toml", &format!("{text}env = {{ X = {named} }}\n[http.tokens]\nadmin = {named}\n"));
    host.deploys(0, "upgrade", &["--config", &host.path("own.toml").display().to_string()]);
    host.deploys(0, "upgrade", &["--binary", &two]);
    let said = host.deploys(0, "status", &[]);
    assert!(said.contains("of that binary") && said.contains("v2-r2 current"), "{said}");
    assert_eq!(http::get(host.port, "/v1/ecosystem").unwrap().status, 401);
}

#[test]
fn who_may_not_write_there_is_told_and_deploys_into_a_folder_of_his_own() {
    let test = "who_may_not_write_there_is_told_and_deploys_into_a_folder_of_his_own";
    if let Some(why) = missing() {
        return skipped(test, why);
    }
    let stand_in = repository().join("tests/it/deploy/systemctl.sh").display().to_string();
    let Some(host) = Host::start_in(test, WORLD, &["no-sudo", &stand_in]) else { return };
    let (one, two, v1, v2) = (host.binary("1"), host.binary("2"), host.config("v1"), host.config("v2"));
    let said = host.deploys(77, "install", &["--binary", &one, "--config", &v1]);
    assert!(said.contains("has no sudo without a password") && said.contains("--prefix DIR"), "{said}");
    assert!(!host.world("/usr/local/bin/biotope").exists());

    // The kernel shows him no /proc/PID/exe, since the memory of biotope is shown to nobody.
    let own = |action: &str, args: &[&str]| {
        host.deploys(0, action, &[&["--prefix", "/var/lib/deployer/own"], args].concat());
    };
    own("install", &["--binary", &one, "--config", &v1]);
    own("upgrade", &["--binary", &two, "--config", &v2]);
    assert_eq!((host.version(), host.ecosystem()["binary"]["replaced"].clone()), ("v2".to_owned(), 1.into()));
    own("rollback", &[]);
    assert_eq!((host.version(), host.ecosystem()["binary"]["replaced"].clone()), ("v1".to_owned(), 2.into()));
    let said = host.deploys(0, "status", &["--prefix", "/var/lib/deployer/own"]);
    assert!(said.contains("of that binary"), "{said}");
}
