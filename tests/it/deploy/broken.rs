//! What does not pass is refused before anything changes; what does not come up is taken back.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::host::Host;
use crate::support::free_port;

#[test]
fn what_is_broken_is_refused_before_anything_changes() {
    let Some(host) = Host::start("what_is_broken_is_refused_before_anything_changes") else { return };
    let (one, v1) = (host.binary("1"), host.config("v1"));
    host.deploys(0, "install", &["--binary", &one, "--config", &v1]);
    let pid = host.pid();
    let good = std::fs::read_to_string(&v1).unwrap();
    let configs = [
        (format!("nonsense = 1\n{good}"), "unknown key"),
        (good.replace("\"cat\"", "\"./missing\""), "is no file"),
        (format!("{good}["), "error"),
        (good.replace("\"data\"", "\"elsewhere\""), "moves data_dir"),
    ];
    let cut = std::fs::read(&one).unwrap()[..5000].to_vec();
    let programs = [
        (host.program("cut", &cut), "does not even tell its version"),
        (host.program("exits", b"#!/bin/sh\nexit 1\n"), "does not even tell its version"),
        (host.program("true", b"#!/bin/sh\necho true 1.0\n"), "is no biotope"),
        (host.program("garbage", b"\x00\x01garbage"), "no program"),
        (host.program("empty", b""), "no program"),
        (host.foreign_binary(), "for another machine"),
    ];
    let before = (host.tree("h/biotope"), host.tree("h/biotope.toml"), host.text("h/.deploy/current"));
    host.under_load(|| {
        for (text, why) in configs {
            host.write("bad.toml", &text);
            let bad = host.path("bad.toml").display().to_string();
            let action = if why == "error" { "check" } else { "upgrade" };
            let said = host.deploys(78, action, &["--binary", &one, "--config", &bad]);
            assert!(said.contains(why) && said.contains("nothing was changed"), "{why}: {said}");
        }
        for (program, why) in programs {
            let said = host.deploys(65, "upgrade", &["--binary", &program]);
            assert!(said.contains(why) && said.contains("nothing was changed"), "{why}: {said}");
        }
    });
    let after = (host.tree("h/biotope"), host.tree("h/biotope.toml"), host.text("h/.deploy/current"));
    assert_eq!(before, after);
    assert!(!host.path("h/elsewhere").exists() && !host.path("h/.deploy/doing").exists());
    let seen = host.ecosystem();
    assert_eq!((&seen["binary"]["attempts"], host.pid()), (&json!(0), pid), "nobody was even asked");
    assert!(seen["generation"]["last_error"].is_null(), "{seen}");
}

/// It passes every check, takes the process over, and fails there: the image before is back by itself, its file is by deploy.sh.
#[test]
fn a_binary_that_does_not_come_up_is_taken_back() {
    let Some(host) = Host::start("a_binary_that_does_not_come_up_is_taken_back") else { return };
    let (one, two) = (host.ill_binary("1"), host.ill_binary("2"));
    let (v1, v2) = (host.config("v1"), host.config("v2"));
    for ill in ["exit@arrived", "hang@opened"] {
        let run = format!(
            "BIOTOPE_TEST_TAKEOVER={ill} setsid nohup \"$BIN\" run \"$CONFIG\" >>\"{}\" 2>&1 </dev/null &",
            host.path("h/biotope.log").display()
        );
        host.deploys(0, "install", &["--binary", &one, "--config", &v1, "--run", &run]);
        let pid = host.pid();
        host.under_load(|| {
            let said = host.deploys(79, "upgrade", &["--binary", &two, "--config", &v2]);
            assert!(said.contains("goes on: ") && said.contains("it was taken back"), "{ill}: {said}");
        });
        assert!(host.holds("h/biotope", &one) && host.holds("h/biotope.toml", &v1), "{ill}");
        assert_eq!((host.pid(), host.version()), (pid, "v1".to_owned()), "{ill}");
        assert!(!host.path("h/.deploy/doing").exists());
        host.crash();
    }
}

#[test]
fn a_version_that_does_not_start_takes_all_of_its_deployment_back() {
    let Some(host) = Host::start("a_version_that_does_not_start_takes_all_of_its_deployment_back") else { return };
    let (one, two, v1) = (host.binary("1"), host.binary("2"), host.config("v1"));
    host.deploys(0, "install", &["--binary", &one, "--config", &v1]);
    let pid = host.pid();
    let text = std::fs::read_to_string(&v1).unwrap().replace("\"v1\"", "\"v2\"").replace("[\"cat\"]", "[\"false\"]");
    host.write("ill.toml", &format!("{text}probe = 1\nstart_timeout = \"5s\"\n"));
    let ill = host.path("ill.toml").display().to_string();
    host.under_load(|| {
        let said = host.deploys(79, "upgrade", &["--binary", &two, "--config", &ill]);
        assert!(said.contains("rejected v2") && said.contains("it was taken back"), "{said}");
    });
    assert!(host.holds("h/biotope", &one) && host.holds("h/biotope.toml", &v1));
    assert_eq!((host.pid(), host.version()), (pid, "v1".to_owned()));
    assert_eq!(host.ecosystem()["binary"]["replaced"], 2, "there and back");
}

/// Programs that pass the checks, and then do not serve. As the running biotope takes no script for its successor, they come
/// where nothing runs.
#[test]
fn what_never_serves_is_taken_back_where_it_had_to_be_started() {
    let Some(host) = Host::start("what_never_serves_is_taken_back_where_it_had_to_be_started") else { return };
    let (one, v1) = (host.binary("1"), host.config("v1"));
    let like = |name: &str, run: &str| {
        let text = format!("#!/bin/sh\ncase \"$*\" in\n*run*) {run} ;;\n*) exec \"{one}\" \"$@\" ;;\nesac\n");
        host.program(name, text.as_bytes())
    };
    let ill = [
        (like("exits", "exit 3"), "60", "ended at once"),
        (like("hangs", "exec sleep 1000"), "5", "did not serve within 5 s"),
    ];
    for (program, timeout, why) in &ill {
        let said = host.deploys(79, "install", &["--binary", program, "--config", &v1, "--timeout", timeout]);
        assert!(said.contains(why) && said.contains("it was taken back"), "{said}");
        assert!(!host.path("h/biotope").exists() && !host.path("h/biotope.toml").exists());
    }
    host.deploys(0, "install", &["--binary", &one, "--config", &v1]);
    for (program, timeout, why) in &ill {
        host.crash();
        let said = host.deploys(79, "upgrade", &["--binary", program, "--timeout", timeout]);
        assert!(said.contains(why) && said.contains("it was taken back"), "{said}");
        assert!(host.holds("h/biotope", &one));
        assert_eq!(host.version(), "v1", "what was there serves again");
    }
    // And the running one takes none of them, and serves on.
    host.under_load(|| {
        let said = host.deploys(79, "upgrade", &["--binary", &ill[0].0]);
        assert!(
            said.contains("is no program of this machine's own kind") && said.contains("it was taken back"),
            "{said}"
        );
    });
    assert!(host.holds("h/biotope", &one));
}

#[test]
fn what_only_a_restart_can_change_is_restarted_or_left() {
    let Some(mut host) = Host::start("what_only_a_restart_can_change_is_restarted_or_left") else { return };
    let (one, v1) = (host.binary("1"), host.config("v1"));
    host.deploys(0, "install", &["--binary", &one, "--config", &v1]);
    let pid = host.pid();
    let port = free_port();
    let moved = host.config_at("v2", port);
    host.under_load(|| {
        let said = host.deploys(79, "upgrade", &["--config", &moved, "--restart", "never"]);
        assert!(said.contains("--restart never forbids it"), "{said}");
    });
    assert_eq!((host.pid(), host.holds("h/biotope.toml", &v1)), (pid, true));
    let said = host.deploys(0, "upgrade", &["--config", &moved]);
    assert!(said.contains("stopping biotope and starting it again"), "{said}");
    host.port = port;
    assert_eq!((host.version(), host.holds("h/biotope.toml", &moved)), ("v2".to_owned(), true));
    assert_ne!(host.pid(), pid);

    // What the running one itself refuses with a word on it, of a config and of a binary: here, of a config that somebody has
    // changed by hand since.
    let text = std::fs::read_to_string(&moved).unwrap();
    host.write("segment.toml", &format!("{text}[log]\nsegment = \"8MiB\"\n"));
    let segment = host.path("segment.toml").display().to_string();
    let pid = host.pid();
    let said = host.deploys(79, "upgrade", &["--config", &segment, "--restart", "never"]);
    assert!(said.contains("`log.segment` cannot change while biotope runs"), "{said}");
    assert_eq!((host.pid(), host.holds("h/biotope.toml", &moved)), (pid, true));
    let said = host.deploys(0, "upgrade", &["--config", &segment]);
    assert!(said.contains("stopping biotope and starting it again"), "{said}");
    assert_ne!(host.pid(), pid);
    let pid = host.pid();
    host.write("h/token", "0123456789abcdef0123456789abcdef\n");
    std::fs::set_permissions(host.path("h/token"), PermissionsExt::from_mode(0o600)).unwrap();
    let open = text.replace("127.0.0.1", "0.0.0.0");
    host.write("h/biotope.toml", &format!("{open}[http.tokens]\nadmin = {{ file = \"token\" }}\n"));
    let said = host.deploys(0, "upgrade", &["--binary", &host.binary("2")]);
    assert!(said.contains("`http.listen` of the config is not what it was"), "{said}");
    assert!(said.contains("stopping biotope and starting it again"), "{said}");
    assert_ne!(host.pid(), pid);
    assert!(host.deploys(0, "status", &[]).contains("of that binary"));
}
