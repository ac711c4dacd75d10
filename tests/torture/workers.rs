//! The workers of a campaign: programs that note in the history when a run begins and how it is about to end.
//!
//! A job's task is `N WHAT`: its number, and what its run shall do. Its payload is made of its number, so that whoever
//! runs it can tell whether it is what was pushed. A program that is given the number of its version notes that as well,
//! and fails always if it is told that it is a bad one.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::OWN_PROGRAM;
use crate::support::{Home, repository};

/// One process for each job. It may not be ended between its last note and its exit: it ignores SIGTERM there.
const EACH: &str = r#"
history=$1
[ ! -d "$1" ] || history=$1/history.ndjson
n=${BIOTOPE_TASK%% *} what=${BIOTOPE_TASK#* }
read -r up _ </proc/uptime
begin='{"ev":"begin","n":%s,"id":"%s","attempt":%s,"fence":%s,"at":%s}\n'
[ -z "$2" ] || begin=$begin'{"ev":"on","n":'$n',"id":"'$BIOTOPE_JOB_ID'","fence":'$BIOTOPE_FENCE',"version":'$2',"pid":'$$'}\n'
printf "$begin" "$n" "$BIOTOPE_JOB_ID" "$BIOTOPE_ATTEMPT" "$BIOTOPE_FENCE" "${up%.*}${up#*.}" >>"$history"
end() {
    printf '{"ev":"end","n":%s,"id":"%s","fence":%s,"how":"%s"}\n' "$n" "$BIOTOPE_JOB_ID" "$BIOTOPE_FENCE" "$1" >>"$history"
}
[ "$what" = hang ] || trap '' TERM
[ "$3" != bad ] || { end bad; exit $((BIOTOPE_FENCE % 2 * 64 + 1)); }
case $what in
slow) sleep 0.05 ;;
fail) [ "$BIOTOPE_ATTEMPT" -gt 1 ] || { end fail; exit 1; } ;;
defer) [ $((BIOTOPE_FENCE % 2)) -eq 0 ] || { end defer; exit 75; } ;;
crash) [ "$BIOTOPE_ATTEMPT" -gt 1 ] || { end crash; kill -9 $$; } ;;
hang) [ "$BIOTOPE_ATTEMPT" -gt 1 ] || { end hang; exec sleep 60; } ;;
dead) end dead; exit 65 ;;
esac
end ok
"#;

/// A persistent process, several jobs a cycle, which checks every payload.
const HELD: &str = r##"#!/usr/bin/env -S python3 -I -S
import json, os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
history = sys.argv[1] if os.path.isfile(sys.argv[1]) else sys.argv[1] + "/history.ndjson"
history = os.open(history, os.O_WRONLY | os.O_APPEND)
version, bad = int((sys.argv + ["0"])[2]), sys.argv[3:] == ["bad"]
def note(*events):
    os.write(history, "".join(json.dumps(event) + "\n" for event in events).encode())
def answer(id, **what):
    sys.stdout.write(json.dumps({"id": id, "jsonrpc": "2.0", **what}) + "\n")
    sys.stdout.flush()
def fails(id, outcome, **data):
    answer(id, error={"code": 1, "message": "as told", "data": {"outcome": outcome, **data}})
def run(id, job):
    n, what = job["task"].split(" ")
    run = {"n": int(n), "id": job["job_id"]}
    at = int(open("/proc/uptime").read().split(" ")[0].replace(".", ""))
    on = dict(ev="on", **run, fence=job["fence"], version=version, pid=os.getpid())
    note(dict(ev="begin", **run, attempt=job["attempt"], fence=job["fence"], at=at), *([on] if version else []))
    def end(how):
        note(dict(ev="end", **run, fence=job["fence"], how=how))
    if bad:
        end("bad")
        fails(id, "dead" if job["fence"] % 2 else "fail")
    elif job["payload"] != {"n": int(n), "pad": "x" * len(job["payload"]["pad"])}:
        end("wrong")
        answer(id, result={})
    elif what == "fail" and job["attempt"] == 1:
        end("fail")
        fails(id, "fail")
    elif what == "defer" and job["fence"] % 2:
        end("defer")
        fails(id, "retry", after_ms=5)
    elif what == "dead":
        end("dead")
        fails(id, "dead")
    else:
        end("ok")
        answer(id, result={"value": int(n)})
for line in sys.stdin:
    message = json.loads(line)
    if message["method"] == "hello":
        answer(message["id"], result={"protocol": 1})
    elif message["method"] == "job":
        run(message["id"], message["params"])
    elif "id" in message:
        answer(message["id"], result={})
"##;

/// What the runs of a job may be told to do, by worker type; `ok` more often than all others together.
pub(crate) const TYPES: [(&str, &[&str]); 3] = [
    ("held", &["ok", "ok", "ok", "ok", "ok", "ok", "ok", "fail", "defer", "dead"]),
    ("each", &["ok", "ok", "ok", "ok", "ok", "ok", "ok", "slow", "fail", "fail", "defer", "defer", "crash", "dead"]),
    // Few, and of a type of their own: on a busy machine any run may be late for a short timeout.
    ("hung", &["hang"]),
];

/// The same where versions come and go: what a good one does in the end.
pub(crate) const DOABLE: [(&str, &[&str]); 4] = [
    ("each", &["ok", "ok", "ok", "ok", "ok", "slow", "fail", "defer", "crash"]),
    ("held", &["ok", "ok", "ok", "ok", "ok", "ok", "fail", "defer"]),
    ("call", &["ok", "ok", "ok", "ok", "ok", "slow", "fail", "defer"]),
    ("own", &["ok", "ok", "ok", "ok", "ok", "fail", "defer"]),
];

/// Builds the program that is all that biotope is, with a native worker, and puts it into the home, with a way to the history.
/// `TORTURE_HOST_PROGRAM` names one that is built already. It is built as this test is.
pub(crate) fn equip_with_native(home: &Home, history: &Path) {
    let program = std::env::var_os("TORTURE_HOST_PROGRAM").map_or_else(build, PathBuf::from);
    std::os::unix::fs::symlink(program, home.path(OWN_PROGRAM)).unwrap();
    std::os::unix::fs::symlink(history, home.path("history.ndjson")).unwrap();
}

fn build() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    // What cargo tells a test of its package would have crates built anew that look at it.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_MANIFEST") || name.starts_with("CARGO_PKG")) {
            cargo.env_remove(name);
        }
    }
    cargo.args(["build", "--quiet", "--locked", "--offline", "--example", "torture-host", "--manifest-path"]);
    cargo.arg(repository().join("Cargo.toml"));
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    assert!(cargo.status().unwrap().success(), "the program of native workers cannot be built");
    profile.join("examples/torture-host")
}

/// Writes the programs.
pub(crate) fn equip(home: &Home) {
    home.script("each.sh", EACH);
    home.script("held.py", HELD);
}

/// A log that rotates and is cleaned. What ended is known by its name as long as it is retained, which is 32 MiB here beside the two
/// segments that are always there: more than is written until a producer has the answer that it asks for again. (Three bulks
/// that go on side by side are 11 MiB on average; with 16 MiB retained, a name was forgotten that somebody still asked for.)
pub(crate) const SHORT_LOG: &str = "stop_timeout = \"20s\"\n[log]\nsegment = \"8MiB\"\nretain = \"48MiB\"";

/// Writes programs and config: small segments and a short history, so that the log rotates and is cleaned all the time.
pub(crate) fn furnish(home: &Home, history: &Path) {
    equip(home);
    let history = history.display();
    let retry = "max_attempts = 1000\nbackoff = { first = \"10ms\", factor = 2, max = \"40ms\" }";
    home.configure_with(
        SHORT_LOG,
        &format!(
            "[workers.each]\nversion = \"v1\"\nexec = [\"./each.sh\", \"{history}\"]\nconcurrency = 2\n{retry}\n\
             [workers.held]\nversion = \"v1\"\nexec = [\"./held.py\", \"{history}\"]\nmode = \"persistent\"\nbatch = 8\n{retry}\n\
             [workers.hung]\nversion = \"v1\"\nexec = [\"./each.sh\", \"{history}\"]\nconcurrency = 8\ntimeout = \"2s\"\nkill_after = \"100ms\"\n{retry}\n"
        ),
    );
}
