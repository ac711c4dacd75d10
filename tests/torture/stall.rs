//! D12: a disk that stalls. Answers wait for it, and so do the runs of what is not durable yet; nothing else suffers: no
//! run is taken for late, the house answers.

use std::time::Duration;

use serde_json::json;

use crate::kills::can_trace;
use crate::process::Process;
use crate::support::wait::{now, until};
use crate::support::{Home, SOON, http, skipped};
use crate::wire::{Answer, connect, get};

#[test]
fn d12_a_stalled_sync_delays_answers_and_costs_no_run_its_lease() {
    if !can_trace() {
        skipped(
            "d12_a_stalled_sync_delays_answers_and_costs_no_run_its_lease",
            "strace is missing, or may not trace here",
        );
        return;
    }
    let home = Home::bare();
    home.script("each.sh", "echo run >>runs");
    home.configure_with(
        "[log]\nsegment = \"8MiB\"",
        "[workers.each]\nversion = \"v1\"\nexec = [\"./each.sh\"]\ntimeout = \"3s\"\nmax_attempts = 1\n",
    );
    // The engine's thread stands still at one of its syncs, twice as long as a run may take.
    let stall = Duration::from_secs(6);
    let inject = format!("fdatasync:delay_enter={}:when=60", stall.as_micros());
    let mut process = Process::start(&home, Some(&inject));
    assert!(process.is_serving(), "{}", process.said());
    let (mut pushed, mut longest, mut live) = (0, Duration::ZERO, 0);
    while longest < stall / 2 && pushed < 500 {
        let began = now();
        let pushing = std::thread::spawn({
            let port = home.port;
            move || connect(port).unwrap().push(&[json!({"type": "each", "task": "t"})]).remove(0)
        });
        let mut ran = None;
        while !pushing.is_finished() {
            live += usize::from(http::get(home.port, "/healthz").is_ok_and(|answer| answer.status == 200));
            let runs = home.text("runs").lines().count();
            if runs > pushed {
                ran.get_or_insert_with(now);
            }
        }
        // The run and the answer come after the same sync; who waits for the answer may hear of it a moment later.
        let early = ran.map(|ran| now() - ran);
        assert!(early.is_none_or(|early| early < stall / 2), "a run {early:?} before its push was durable");
        assert!(matches!(pushing.join().unwrap(), Answer::Yes(_)));
        longest = longest.max(now() - began);
        pushed += 1;
    }
    assert!(longest >= stall / 2, "no sync of {pushed} pushes stalled");
    assert!(live > 0, "/healthz did not answer during a stall");
    until("all runs well at their first attempt", SOON, || {
        let seen = &get(home.port, "/v1/ecosystem").unwrap()["types"][0];
        let good = seen["completed"] == json!(pushed) && seen["failed"] == 0;
        if good { Ok(()) } else { Err(seen.to_string()) }
    });
    process.stop();
}
