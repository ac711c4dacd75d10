//! The program on the rack where versions of native workers come and go, too: all that `biotope` is, and one Rust worker.
//!
//! Started as `biotope` is, in a home in which `history.ndjson` leads to the history of the campaign. The worker notes there
//! when a run begins, on which version, and how it is about to end, as the programs of a campaign do.

use std::fs::OpenOptions;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use biotope::worker::native::{Context, Failure, Natives, Raw};
use serde_json::{Value, json};

/// Appends these lines with one write.
fn note(events: &[Value]) -> Result<(), Failure> {
    let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
    let history = OpenOptions::new().append(true).open("history.ndjson");
    let noted = history.and_then(|mut file| file.write_all(lines.as_bytes()));
    noted.map_err(|error| Failure::dead(format!("the history cannot be written: {error}")))
}

/// Does a job as its task says; on a version whose label begins with `b` it fails always.
fn run(_: Raw, job: &mut Context<'_>) -> Result<(), Failure> {
    let unknown = || Failure::dead("no job of a campaign");
    let (n, what) = job.task().split_once(' ').ok_or_else(unknown)?;
    let n: u64 = n.parse().map_err(|_| unknown())?;
    let (is_bad, version) = job.version().split_at_checked(1).ok_or_else(unknown)?;
    let version: u32 = version.parse().map_err(|_| unknown())?;
    let (id, fence) = (job.id(), job.fence());
    let begin = json!({"ev": "begin", "n": n, "id": id, "attempt": job.attempt(), "fence": fence, "at": 0});
    let on = json!({"ev": "on", "n": n, "id": id, "fence": fence, "version": version, "pid": 0});
    note(&[begin, on])?;
    let end = |how: &str| note(&[json!({"ev": "end", "n": n, "id": id, "fence": fence, "how": how})]);
    match what {
        _ if is_bad == "b" => {
            end("bad")?;
            if fence % 2 == 0 { Err("as told".into()) } else { Err(Failure::dead("as told")) }
        }
        "fail" if job.attempt() == 1 => end("fail").and_then(|()| Err("as told".into())),
        "defer" if fence % 2 == 1 => {
            end("defer")?;
            Err(Failure::retry_after(Duration::from_millis(5), "as told"))
        }
        _ => end("ok"),
    }
}

fn main() -> ExitCode {
    let mut natives = Natives::new();
    match natives.register_fn("own", "1", run) {
        Ok(_) => biotope::cli::main(natives),
        Err(_) => ExitCode::FAILURE,
    }
}
