//! How many jobs a second does a program that stays complete, against the same program fed the same lines by a pipe?
//!
//! A Python program that does nothing but read its protocol and answer, in turns: once with all lines written into its
//! stdin as fast as it takes them, once as the one worker of a type with batches of 100 whose jobs wait already: from
//! `resume` to the last completion, payloads read from the log, every end synced.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use biotope::clock::{Clock, RealClock};
use biotope::worker::native::Natives;
use biotope::worker::spawner::{Orphans, Spawner, asked_of_this_program};

use crate::setup::{drained, fresh, median, payload};

const ROUNDS: usize = 5;

const PROGRAM: &str = r#"
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    result = {"protocol": 1} if request["method"] == "hello" else {}
    sys.stdout.write(json.dumps({"id": request["id"], "jsonrpc": "2.0", "result": result}) + "\n")
    sys.stdout.flush()
"#;

pub(crate) fn run(jobs: usize) {
    let dir = fresh();
    let program = dir.path().join("noop.py");
    std::fs::write(&program, PROGRAM).unwrap();
    let program = program.to_str().unwrap();
    let (mut limits, mut rates) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        limits.push(pipe(program, jobs));
        rates.push(ours(program, jobs));
    }
    let (limit, rate) = (median(limits), median(rates));
    println!("persistent/python/b100  pipe {limit:>8.0} /s");
    println!("persistent/python/b100  jobs {rate:>8.0} /s  {:.2} of the pipe  (at least 0.60)", rate / limit);
}

fn pipe(program: &str, jobs: usize) -> f64 {
    let mut child = Command::new("python3").arg(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut answers = BufReader::new(from).lines();
    // Started and ready, as the worker is.
    writeln!(to, r#"{{"id":"0","jsonrpc":"2.0","method":"hello","params":{{"protocol":1}}}}"#).unwrap();
    answers.next().unwrap().unwrap();
    let payload = String::from_utf8(payload()).unwrap();
    let began = RealClock.mono();
    let feeder = std::thread::spawn(move || {
        let mut lines = std::io::BufWriter::new(to);
        for n in 0..jobs {
            writeln!(
                lines,
                "{{\"id\":\"1-{n}\",\"jsonrpc\":\"2.0\",\"method\":\"job\",\"params\":{{\"job_id\":\"0000000f-4240-7000-8000-{n:012}\",\
                 \"task\":\"\",\"payload\":{payload},\"attempt\":1,\"max_attempts\":4,\"tenant\":null,\
                 \"fence\":\"4294967296{n}\",\"deadline_ms\":1764000000000}}}}"
            )
            .unwrap();
        }
        lines.into_inner().unwrap()
    });
    for _ in 0..jobs {
        answers.next().unwrap().unwrap();
    }
    let took = RealClock.mono() - began;
    drop(feeder.join().unwrap());
    child.wait().unwrap();
    jobs as f64 / took.as_secs_f64()
}

fn ours(program: &str, jobs: usize) -> f64 {
    let dir = fresh();
    let config = format!(
        "[history]\nindex = \"off\"\n[workers.t]\nversion = \"v1\"\nexec = [\"python3\", \"{program}\"]\n\
         mode = \"persistent\"\nbatch = 100\nconcurrency = 1\n"
    );
    let path = dir.path().join("biotope.toml");
    std::fs::write(&path, config).unwrap();
    let spawner = Spawner::helper(asked_of_this_program, Orphans::Left);
    let spec = biotope::generation::load(&path, &Natives::none().with_spawner(spawner.clone())).unwrap();
    std::fs::create_dir_all(&spec.config.data_dir).unwrap();
    spawner.live_in(&spec.config.data_dir);
    let rate = drained(spec, "t", jobs, 0);
    spawner.stop();
    rate
}
