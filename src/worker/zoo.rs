//! What the tests of the workers share: assignments, cutoffs, and a cage for misbehaving programs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::launch::{Launch, OutputLimits};
use super::{Assignment, Cutoff, Outcome, Worker};
use crate::types::{Fence, Lease};

/// Job `born`: id `job-N`, first attempt of two, long timeouts.
pub(super) fn assignment(born: u64) -> Assignment {
    Assignment {
        lease: Lease { born, fence: Fence { epoch: 1, counter: born } },
        id: format!("job-{born}"),
        worker_type: "zoo".into(),
        version: "v1".into(),
        task: "feed".into(),
        payload: format!("{{\"n\":{born}}}").into_bytes().into(),
        attempt: 1,
        max_attempts: 2,
        tenant: None,
        deadline_ms: 1_900_000_000_000,
        timeout: Duration::from_secs(20),
        kill_after: Duration::from_secs(5),
    }
}

/// A cutoff that is not set.
pub(super) fn cutoff() -> Arc<Cutoff> {
    Cutoff::new().unwrap()
}

/// Runs one cycle; the answers in their order, by the jobs' numbers.
pub(super) fn outcomes(worker: &mut dyn Worker, batch: Vec<Assignment>) -> Vec<(u64, Outcome)> {
    let mut got = Vec::new();
    worker.cycle(batch, &mut |lease, outcome| got.push((lease.born, outcome)));
    got
}

/// The usual bounds.
pub(super) fn limits() -> OutputLimits {
    OutputLimits { result_max: 64 << 10, payload_max: 1 << 20 }
}

/// A program that stands in the file `dir/beast`, run by `interpreter`.
pub(super) fn beast(dir: &Path, interpreter: &str, script: &str) -> Launch {
    let file = dir.join("beast");
    std::fs::write(&file, script).unwrap();
    Launch {
        program: interpreter.into(),
        name: interpreter.rsplit('/').next().unwrap_or_default().to_owned(),
        args: vec![file.to_str().unwrap().to_owned()],
        env: vec![("LANG".into(), "C.UTF-8".into()), ("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())],
        dir: dir.to_owned(),
    }
}
