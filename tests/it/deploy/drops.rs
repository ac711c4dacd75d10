//! Connections that drop, scripts that are killed, two at once: nothing is lost, and the next run mends what is left.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use super::host::Host;
use crate::support::{long, tell};

/// Which of `steps` a run is broken at: some, or each of them with `tests/run --long`.
fn chosen(steps: usize) -> impl Iterator<Item = usize> {
    (1..=steps).step_by(if long() { 1 } else { 5 })
}

/// Deploys to and fro, each time broken by `breaks` at another step, then once more. Nobody notices, and the next run makes it whole.
fn broken_at_every_step(host: &Host, may_stay_half_way: bool, breaks: impl Fn(&Host)) {
    let sides = ["1", "2"].map(|side| [host.binary(side), host.config(&format!("v{side}"))]);
    let args = |side: &[String; 2]| ["--binary".to_owned(), side[0].clone(), "--config".to_owned(), side[1].clone()];
    let [there, back] = [args(&sides[0]), args(&sides[1])].map(|args| args.to_vec());
    let [there, back] = [&there, &back].map(|args| args.iter().map(String::as_str).collect::<Vec<_>>());
    host.deploys(0, "install", &there);
    let pid = host.pid();
    let (_, said) = host.watched("upgrade", &back, |_, _| ());
    let steps = said.lines().count();
    assert!(steps > 12, "{said}");
    let mut at_first = true;
    let (mut broken, mut through, mut unfinished) = (0, 0, 0);
    host.under_load(|| {
        for step in chosen(steps) {
            let (to, want) = if at_first { (&there, &sides[0]) } else { (&back, &sides[1]) };
            let from = if at_first { &sides[1] } else { &sides[0] };
            let (code, said) = host.watched("upgrade", to, |number, _| {
                if number == step {
                    breaks(host);
                }
            });
            broken += usize::from(code != Some(0));
            through += usize::from(code == Some(0));
            // Left alone, it is whole on the one side or the other, unless the script itself was killed half-way.
            host.until_quiet();
            let whole =
                |side: &[String; 2]| host.holds("h/biotope", &side[0]) && host.holds("h/biotope.toml", &side[1]);
            let killed = host.path("h/.deploy/doing").exists();
            assert!(killed || whole(want) || whole(from), "step {step}: {code:?} {said}");
            unfinished += usize::from(killed);
            let said = host.deploys(0, "upgrade", to);
            assert!(host.holds("h/biotope", &want[0]) && host.holds("h/biotope.toml", &want[1]), "step {step}: {said}");
            assert_eq!(host.version(), if at_first { "v1" } else { "v2" }, "step {step}: {said}");
            assert!(!host.path("h/.deploy/doing").exists() && !host.path("h/.biotope.new").exists());
            at_first = !at_first;
        }
    });
    tell(&format!(
        "{steps} steps: {broken} runs broken off, {through} came through; {unfinished} were left half-way there"
    ));
    assert!(broken > 0);
    assert!(may_stay_half_way || unfinished == 0, "the script went on to its end");
    assert_eq!(host.pid(), pid, "one process all the while");
    // What is kept is what was there before the last one, not what lay there half-way.
    let last = if at_first { &sides[0] } else { &sides[1] };
    host.deploys(0, "rollback", &[]);
    assert!(host.holds("h/biotope", &last[0]) && host.holds("h/biotope.toml", &last[1]));
}

#[test]
fn a_connection_that_drops_at_any_step_costs_nothing() {
    let Some(host) = Host::start("a_connection_that_drops_at_any_step_costs_nothing") else { return };
    broken_at_every_step(&host, false, |host| host.drop_connections());
}

#[test]
fn what_is_killed_on_the_host_at_any_step_is_mended_by_the_next_run() {
    let Some(host) = Host::start("what_is_killed_on_the_host_at_any_step_is_mended_by_the_next_run") else { return };
    broken_at_every_step(&host, true, |host| {
        host.kill_script();
        host.drop_connections();
    });
}

#[test]
fn a_dropped_first_installation_is_mended_by_the_next_run() {
    let Some(host) = Host::start("a_dropped_first_installation_is_mended_by_the_next_run") else { return };
    let (one, v1) = (host.binary("1"), host.config("v1"));
    let args = ["--binary", &one, "--config", &v1];
    for kills in [false, true] {
        for step in chosen(13) {
            host.watched("install", &args, |number, _| {
                if number == step {
                    if kills {
                        host.kill_script();
                    }
                    host.drop_connections();
                }
            });
            host.deploys(0, "install", &args);
            assert!(host.holds("h/biotope", &one) && host.holds("h/biotope.toml", &v1), "step {step}");
            assert_eq!(host.version(), "v1", "step {step}");
            host.crash();
            std::fs::remove_dir_all(host.path("h")).unwrap();
        }
    }
}

#[test]
fn two_at_once_come_one_after_the_other() {
    let Some(host) = Host::start("two_at_once_come_one_after_the_other") else { return };
    let (one, v1, v2) = (host.binary("1"), host.config("v1"), host.config("v2"));
    host.deploys(0, "install", &["--binary", &one, "--config", &v1]);
    // This test holds the lock itself: who it is stands there as the script writes it, its number and when it began.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let began = stat.rsplit(") ").next().unwrap().split(' ').nth(19).unwrap().to_owned();
    let lock = host.path("h/.deploy/lock");
    std::os::unix::fs::symlink(format!("{}:{began}", std::process::id()), &lock).unwrap();
    let said = host.deploys(75, "upgrade", &["--config", &v2, "--timeout", "2"]);
    assert!(said.contains("another deployment is under way"), "{said}");
    assert_eq!(host.version(), "v1");

    let mut waiting = host.command("upgrade", &["--config", &v2]);
    let mut waiting = waiting.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(waiting.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("another deployment is under way")));
    std::fs::remove_file(&lock).unwrap();
    let rest: Vec<String> = lines.collect();
    assert!(waiting.wait().unwrap().success(), "{rest:?}");
    assert_eq!(host.version(), "v2");

    // A lock whose holder is gone, or another process with its number, holds nobody up.
    for left in ["999999999:1".to_owned(), format!("{}:1", std::process::id())] {
        std::os::unix::fs::symlink(left, &lock).unwrap();
        host.deploys(0, "upgrade", &["--config", &v1]);
    }
    assert_eq!(host.version(), "v1");
}
