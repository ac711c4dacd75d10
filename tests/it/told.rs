//! What programs say while they run: how far they are, that they need more time, and lines for the log.

use serde_json::{Value, json};

use crate::support::wait::until;
use crate::support::{Biotope, Home, SOON, shown};

/// Waits until a job shows its progress; the job.
fn until_progress(biotope: &Biotope<'_>, id: &str) -> Value {
    until("progress", SOON, || {
        let job = biotope.job(id);
        if job["progress"].is_object() { Ok(job) } else { Err(job.to_string()) }
    })
}

/// The line of biotope's own log that holds a text.
fn logged(home: &Home, text: &str) -> String {
    until(text, SOON, || {
        let log = home.text("stderr.txt");
        log.lines().find(|line| line.contains(text)).map(str::to_owned).ok_or(log)
    })
}

#[test]
fn a_program_says_on_stderr_how_far_it_is_asks_for_time_and_is_heard_in_the_log() {
    let home = Home::new("[workers.slow]\nversion = \"v7\"\nexec = [\"./slow.sh\"]\ntimeout = \"5m\"\n");
    home.script(
        "slow.sh",
        "printf 'one \\033[31mred\\033[0m line\\n' >&2\necho biotope:extend 30m >&2\necho biotope:progress 40% page 3 of 7 >&2\nread -r go <gate\nexit 0",
    );
    home.pipe("gate");
    let biotope = home.start();
    let id = biotope.push(&json!({"type": "slow"}));
    let job = until_progress(&biotope, &id);
    assert_eq!((&job["progress"]["fraction"], &job["progress"]["text"]), (&json!(0.4), &json!("page 3 of 7")), "{job}");
    assert!(job["progress"]["age_ms"].is_u64() && job["progress"]["at"].is_string(), "{job}");
    assert!(job["extended_until"].is_string(), "{job}");
    let told = home.cli(&["jobs", "show", &id]);
    assert!(shown(&told).contains("page 3 of 7"), "{}", shown(&told));
    let line = logged(&home, "one ");
    assert!(line.contains(&id) && line.contains("slow") && line.contains("v7"), "{line}");
    assert!(line.contains("one \\u001b[31mred\\u001b[0m line"), "escaped once, so that it steers no terminal: {line}");
    home.open_gate("gate");
    let job = biotope.until_state(&id, "completed");
    assert!(job["progress"].is_null() && job["extended_until"].is_null(), "none of it is kept: {job}");
    biotope.stop();
}

/// Says how far it is, that it needs time, and something for the log; then waits.
const SAYS: &str = r#"tell() { printf '{"jsonrpc":"2.0","method":"%s","params":{"id":"%s",%s}}\n' "$1" "$id" "$2"; }
while IFS= read -r line; do
    id=${line#*\"id\":\"} id=${id%%\"*} result='{}'
    case $line in
    *'"method":"hello"'*) result='{"protocol":1}' ;;
    *'"method":"job"'*)
        tell log '"level":"warn","text":"about to begin"'
        tell extend '"ms":1800000'
        tell progress '"percent":40,"text":"page 3"'
        echo from stderr >&2
        read -r go <gate
        ;;
    esac
    printf '{"id":"%s","jsonrpc":"2.0","result":%s}\n' "$id" "$result"
done"#;

#[test]
fn a_program_that_stays_says_how_far_a_job_is_and_is_heard_in_the_log() {
    let home =
        Home::new("[workers.w]\nversion = \"v8\"\nexec = [\"./says.sh\"]\nmode = \"persistent\"\ntimeout = \"5m\"\n");
    home.script("says.sh", SAYS);
    home.pipe("gate");
    let biotope = home.start();
    let id = biotope.push(&json!({"type": "w"}));
    let job = until_progress(&biotope, &id);
    assert_eq!((&job["progress"]["fraction"], &job["progress"]["text"]), (&json!(0.4), &json!("page 3")), "{job}");
    assert!(job["extended_until"].is_string(), "{job}");
    let line = logged(&home, "about to begin");
    assert!(line.contains(" level=warn ") && line.contains(&id) && line.contains("v8"), "{line}");
    assert!(logged(&home, "from stderr").contains("v8"));
    home.open_gate("gate");
    let job = biotope.until_state(&id, "completed");
    assert!(job["progress"].is_null() && job["extended_until"].is_null(), "{job}");
    biotope.stop();
}
