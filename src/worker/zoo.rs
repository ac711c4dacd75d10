//! What the tests of the workers share: assignments, cutoffs, and a cage for misbehaving programs.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::confined::Confined;
use super::launch::{Launch, OutputLimits};
use super::run::Board;
use super::spawner::Spawner;
use super::{Assignment, Cutoff, Outcome, Run, Worker};
use crate::clock::{Clock, RealClock};
use crate::types::{Fence, Lease, UnixMs};

/// Job `born`: id `job-N`, first attempt of two, long timeouts.
pub(super) fn assignment(born: u64) -> Assignment {
    let lease = Lease { born, fence: Fence { epoch: 1, counter: born } };
    Assignment {
        lease,
        id: format!("job-{born}").into(),
        worker_type: "zoo".into(),
        version: "v1".into(),
        task: "feed".into(),
        payload: format!("{{\"n\":{born}}}").into_bytes().into(),
        attempt: 1,
        max_attempts: 2,
        tenant: None,
        traceparent: None,
        created_ms: 1_700_000_000_000,
        deadline_ms: 1_900_000_000_000,
        run: Run::alone(lease, 1_900_000_000_000),
        timeout: Duration::from_secs(20),
        timeout_max: Duration::from_secs(200),
        kill_after: Duration::from_secs(5),
    }
}

/// A clock by which ten seconds of wall time pass whenever somebody looks at it.
#[derive(Default)]
pub(super) struct TenSeconds(AtomicU64);

impl Clock for TenSeconds {
    fn wall_ms(&self) -> UnixMs {
        self.0.fetch_add(10_000, Ordering::SeqCst) + 10_000
    }

    fn mono(&self) -> Duration {
        Duration::ZERO
    }
}

/// Three jobs of a batch, all with the deadline of its beginning; each has twenty seconds, and ten pass before each.
pub(super) fn ten_seconds_apart() -> Vec<Assignment> {
    let board = Board::new(cutoff(), Arc::<TenSeconds>::default());
    let job = |born| {
        let job = assignment(born);
        Assignment { deadline_ms: 20_000, run: board.run(job.lease, 20_000), ..job }
    };
    (1..=3).map(job).collect()
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

/// A shell script, run in `dir`.
pub(super) fn sh(dir: &Path, script: &str) -> Launch {
    Launch {
        program: "/bin/sh".into(),
        name: "sh".to_owned(),
        args: vec!["-c".to_owned(), script.to_owned()],
        env: vec![("LANG".into(), "C.UTF-8".into()), ("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())],
        dir: dir.to_owned(),
        confined: Confined::default(),
    }
}

/// Makes a named pipe.
pub(super) fn fifo(path: &Path) {
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}

/// Writes a program in sh into `dir`, which is made if it is not there.
pub(super) fn script(dir: &Path, text: &str) -> PathBuf {
    std::fs::create_dir_all(dir).unwrap();
    let path = dir.join("beast");
    program(&path, &format!("#!/bin/sh\n{text}\n"));
    path
}

/// Writes a program. By a process of its own: what this one has open for writing is, for a moment, open in whatever another
/// test is just starting, and a file that is open for writing cannot be run.
pub(super) fn program(path: &Path, text: &str) {
    let mut install = Command::new("install");
    let mut install = install.args(["-m", "755", "/dev/stdin"]).arg(path).stdin(Stdio::piped()).spawn().unwrap();
    install.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(install.wait().unwrap().success(), "{}", path.display());
}

/// Waits for something that happens in another process; `what` is what did not, if it takes over a minute.
pub(super) fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = RealClock.mono() + Duration::from_secs(60);
    while !happened() {
        assert!(RealClock.mono() < deadline, "waited in vain: {what}");
        std::thread::yield_now();
    }
}

/// Whether a process runs: neither gone nor only waiting to be reaped.
pub(super) fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

/// Sets the cutoff as soon as a program has written to the pipe `dir/running`.
pub(super) fn cut_when_running(dir: &Path, cut: &Arc<Cutoff>) -> std::thread::JoinHandle<()> {
    let cut = Arc::clone(cut);
    when_running(dir, move || cut.set())
}

/// Does something as soon as a program has written to the pipe `dir/running`.
pub(super) fn when_running(dir: &Path, then: impl FnOnce() + Send + 'static) -> std::thread::JoinHandle<()> {
    let pipe = dir.join("running");
    fifo(&pipe);
    std::thread::spawn(move || {
        std::fs::read(pipe).unwrap();
        then();
    })
}

/// Who starts the children of a test: this process, unless the whole test runs again under a helper.
pub(super) fn spawner() -> Spawner {
    super::spawner::tests::chosen()
}
