//! A version with a probe completes it before it gets work; one that does not changes nothing.

use rustix::process::Signal;
use serde_json::json;

use crate::support::wait::until;
use crate::support::{Home, SOON, shown};

/// A worker table of one script.
fn table(version: &str, more: &str) -> String {
    format!("[workers.w]\nversion = \"{version}\"\nexec = [\"./w.sh\"]\nconcurrency = 2\n{more}\n")
}

/// What a reload prints.
fn reload(home: &Home, code: i32) -> String {
    let output = home.cli(&["reload", "--wait"]);
    assert_eq!(output.status.code(), Some(code), "{}", shown(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_program_completes_the_probe_once_before_it_gets_work() {
    let home = Home::new(&table("v1", "probe = { ask = \"good\", n = [1] }"));
    home.script(
        "w.sh",
        r#"read -r payload
echo "${BIOTOPE_JOB_ID%%-*}/$BIOTOPE_FENCE/$BIOTOPE_TASK/$BIOTOPE_VERSION $payload" >>runs.txt
case $payload in
*good*) echo '{"type":"w","payload":"a follow-up"}' >"$BIOTOPE_ENQUEUE" ;;
*bad*) echo 'the disk is not mounted' >&2; exit 65 ;;
*slow*) exec sleep 1000 ;;
esac"#,
    );
    let biotope = home.start();
    biotope.until_version("w", "v1", "current");
    let id = biotope.push(&json!({"type": "w", "payload": "a job"}));
    biotope.until_state(&id, "completed");
    let runs = home.text("runs.txt");
    let (first, second) = runs.split_once('\n').unwrap();
    assert_eq!(first, "probe/0//v1 {\"ask\":\"good\",\"n\":[1]}");
    assert!(second.ends_with("//v1 \"a job\"\n") && second.matches('\n').count() == 1, "{runs}");
    assert_eq!(biotope.of_type("w")["enqueued"], 1, "what a probe enqueues is thrown away");

    for (version, more, word) in [
        ("v2", "probe = \"bad\"", "its probe failed: ./w.sh exited with code 65: the disk is not mounted"),
        ("v3", "probe = \"slow\"\nstart_timeout = \"100ms\"", "its probe failed: ./w.sh timed out after 100ms"),
    ] {
        home.configure(&table(version, more));
        let told = reload(&home, 79);
        assert!(told.starts_with(&format!("w: rejected {version}, still v1: {word}")), "{told}");
    }
    let id = biotope.push(&json!({"type": "w", "payload": "another"}));
    assert_eq!(biotope.until_state(&id, "completed")["version"], "v1");
    assert_eq!(biotope.of_type("w")["failed"], 0, "a probe is no attempt");

    // As a live key it is for the next version.
    home.configure(&table("v1", "probe = \"bad\""));
    assert!(reload(&home, 0).starts_with("w: changed live: probe\n"));
    biotope.stop();
}

#[test]
fn a_program_that_stays_completes_the_probe_before_it_gets_work() {
    let config = |version: &str, answer: &str| {
        table(version, &format!("mode = \"persistent\"\nprobe = \"are you there\"\nenv = {{ ANSWER = '{answer}' }}"))
    };
    let home = Home::new(&config("v1", r#""result":{"value":1}"#));
    home.script(
        "w.sh",
        r#"while IFS= read -r line; do
    id=${line#*\"id\":\"}; id=${id%%\"*}
    case $line in
    *'"method":"hello"'*) printf '{"id":"%s","jsonrpc":"2.0","result":{"protocol":1}}\n' "$id" ;;
    *'"method":"job"'*) echo "$line" >>jobs.txt; printf '{"id":"%s","jsonrpc":"2.0",%s}\n' "$id" "$ANSWER" ;;
    *'"id":"'*) printf '{"id":"%s","jsonrpc":"2.0","result":{}}\n' "$id" ;;
    esac
done"#,
    );
    let biotope = home.start();
    biotope.until_version("w", "v1", "current");
    let jobs = home.text("jobs.txt");
    assert!(jobs.contains("\"job_id\":\"probe-") && jobs.contains("\"payload\":\"are you there\""), "{jobs}");
    assert_eq!(jobs.matches('\n').count(), 1, "{jobs}");
    home.configure(&config("v2", r#""error":{"code":1,"message":"no database"}"#));
    let told = reload(&home, 79);
    assert!(told.contains("w: rejected v2, still v1: its probe failed: no database"), "{told}");
    biotope.stop();
}

#[test]
fn a_first_version_is_probed_again_until_it_passes() {
    let home = Home::new(&table("v1", "probe = 1"));
    home.script("w.sh", "test -e ready || { echo 'not yet' >&2; exit 1; }");
    let biotope = home.start();
    let id = biotope.push(&json!({"type": "w"}));
    until("the probe to fail", SOON, || {
        let seen = biotope.of_type("w")["versions"].to_string();
        if seen.contains("its probe failed") { Ok(()) } else { Err(seen) }
    });
    assert_eq!(biotope.job(&id)["state"], "ready", "no job is given to it");
    home.write("ready", "");
    assert_eq!(biotope.until_state(&id, "completed")["attempts"], 0);
    // After a SIGHUP the log has what the command line would say.
    home.configure(&table("v1", "probe = 1\ntimeout = \"7s\""));
    biotope.signal(Signal::HUP);
    until("the changes to be told", SOON, || {
        let told = home.text("stderr.txt");
        if told.contains("w: changed live: timeout") { Ok(()) } else { Err(told) }
    });
    biotope.stop();
}
