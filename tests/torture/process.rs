//! One life of the real process: started plainly or under strace, ended in one of many ways, and seen off with all its children.

use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::evidence;
use crate::support::wait::{now, until};
use crate::support::{BIOTOPE, Home, LATER, SOON, UNHURRIED, http, skipped};

/// A running biotope. Dropped, it is killed and reaped.
pub(crate) struct Process<'a> {
    home: &'a Home,
    child: Child,
}

/// The link to the program of a home that has one.
pub(crate) const OWN_PROGRAM: &str = "program";

/// The binary on the rack. `TORTURE_BIOTOPE` names another one: the one that users get opens its log, and serves, in a fifth of
/// the time.
pub(crate) fn binary() -> std::ffi::OsString {
    std::env::var_os("TORTURE_BIOTOPE").unwrap_or_else(|| BIOTOPE.into())
}

/// The program that a home has of its own, by a link; else the binary.
fn program(home: &Home) -> std::ffi::OsString {
    let own = home.path(OWN_PROGRAM);
    if own.exists() { own.into_os_string() } else { binary() }
}

/// A command that runs `biotope run`, under strace with `inject`, such as `fdatasync:error=EIO:when=3`, if there is one.
/// strace stands aside (`-D`), so that signals and exit codes are biotope's own. It counts calls by thread.
fn command(home: &Home, inject: Option<&str>) -> Command {
    let biotope = program(home);
    let mut command = match inject {
        None => Command::new(biotope),
        Some(inject) => {
            let call = inject.split(':').next().unwrap();
            let mut strace = Command::new("strace");
            strace.args(["-D", "-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
            strace.args(["-e", &format!("inject={inject}")]).arg(biotope);
            strace
        }
    };
    command.arg("--config").arg(home.path("biotope.toml")).arg("run").current_dir(home.path("."));
    command
}

impl<'a> Process<'a> {
    /// Starts it, and does not wait for anything.
    pub(crate) fn start(home: &'a Home, inject: Option<&str>) -> Self {
        let said = std::fs::File::create(home.path("stderr.txt")).unwrap();
        let mut command = command(home, inject);
        command.stdin(Stdio::null()).stdout(said.try_clone().unwrap()).stderr(said).process_group(0);
        Self { home, child: command.spawn().unwrap() }
    }

    /// Starts a copy of the binary that lies in the home, and waits until it serves.
    pub(crate) fn of_own_copy(home: &'a Home) -> Self {
        let said = std::fs::File::create(home.path("stderr.txt")).unwrap();
        let mut command = Command::new(home.path("biotope"));
        command.envs([UNHURRIED]).arg("--config").arg(home.path("biotope.toml")).arg("run").current_dir(home.path("."));
        command.stdin(Stdio::null()).stdout(said.try_clone().unwrap()).stderr(said).process_group(0);
        let mut process = Self { home, child: command.spawn().unwrap() };
        assert!(process.is_serving(), "ended before it served:\n{}", process.said());
        process
    }

    /// Starts it and waits until it serves.
    pub(crate) fn serving(home: &'a Home) -> Self {
        let mut process = Self::start(home, None);
        assert!(process.is_serving(), "ended before it served:\n{}", process.said());
        process
    }

    /// Waits until it serves, whether it takes new jobs or not; `false` if it ended before.
    pub(crate) fn is_serving(&mut self) -> bool {
        let (began, pid) = (now(), self.pid());
        until("serving", SOON, || {
            if self.child.try_wait().unwrap().is_some() {
                return Ok(false);
            }
            if now() - began > TRACER_PATIENCE {
                end_idle_tracer(pid);
            }
            match http::get(self.home.port, "/readyz") {
                Ok(answer) if answer.status == 200 || answer.status == 507 => Ok(true),
                other => Err(format!("{other:?}\n{}", self.said())),
            }
        })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// What it said so far.
    pub(crate) fn said(&self) -> String {
        self.home.text("stderr.txt")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // It may have ended by itself just now: then there is nobody to hear it.
        let _ = rustix::process::kill_process(Pid::from_child(&self.child), signal);
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end and for that of everything that it had started.
    pub(crate) fn until_gone(mut self) -> (ExitStatus, String) {
        let said = self.said();
        let (began, pid) = (now(), self.pid());
        let status = until("the end of the process", LATER, || {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            if now() - began > TRACER_PATIENCE {
                end_idle_tracer(pid);
            }
            Err(said.clone())
        });
        until_deserted(self.home);
        (status, self.said())
    }

    /// Kills it.
    pub(crate) fn kill(self) {
        self.signal(Signal::KILL);
        self.until_gone();
    }

    /// Stops it in good order.
    pub(crate) fn stop(self) {
        self.signal(Signal::TERM);
        let (status, said) = self.until_gone();
        assert_eq!(status.code(), Some(0), "{status}\n{said}");
    }
}

impl Drop for Process<'_> {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.signal(Signal::KILL);
            drop(self.child.wait());
        }
        evidence::keep(self.home, None);
    }
}

/// How long a dead process may wait for strace to take note of that.
const TRACER_PATIENCE: Duration = Duration::from_secs(2);

/// Ends the strace that holds a process which is dead already: one that is killed while it makes a thread may have strace wait
/// for ever for a thread that never comes. Whoever lives is left alone.
fn end_idle_tracer(pid: Pid) {
    let is_dead = field(pid, "State:").is_some_and(|state| state.starts_with('Z'));
    if let Some(tracer) = tracer(pid).filter(|_| is_dead) {
        // It may have taken note just now.
        let _ = rustix::process::kill_process(tracer, Signal::KILL);
    }
}

/// Who traces a process.
fn tracer(pid: Pid) -> Option<Pid> {
    Pid::from_raw(field(pid, "TracerPid:")?.parse().ok()?)
}

/// What the system says of a process.
fn field(pid: Pid, name: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(name)).map(|text| text.trim().to_owned())
}

/// Waits until no process works in the home any more: what a dead biotope leaves behind must not write into a history.
fn until_deserted(home: &Home) {
    let place = home.path(".").canonicalize().unwrap();
    until("the end of all children", SOON, || {
        let mut left = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            // Who starts the children works elsewhere, but holds a file of the data directory.
            let open = std::fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten().map(|fd| fd.path());
            let mut held = open.chain([entry.path().join("cwd")]).filter_map(|link| std::fs::read_link(link).ok());
            if held.any(|held| held.starts_with(&place)) {
                left.push(entry.file_name());
            }
        }
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?} work in {}", place.display())) }
    });
}

/// Traces a process, and never takes note of anything.
const IDLE_TRACER: &str = "\
import ctypes, signal, sys
if ctypes.CDLL(None).ptrace(0x4206, int(sys.argv[1]), 0, 0) != 0:
    sys.exit('may not trace')
print('traces', flush=True)
signal.pause()
";

#[test]
fn a_dead_process_is_not_held_by_a_tracer_that_takes_no_note() {
    let home = Home::bare();
    home.configure("[workers.idle]\nversion = \"v1\"\nexec = [\"/bin/true\"]\n");
    let process = Process::serving(&home);
    let mut python = Command::new("python3");
    python.args(["-I", "-S", "-c", IDLE_TRACER, &process.pid().to_string()]).stdout(Stdio::piped());
    let mut tracer = python.spawn().unwrap();
    let mut said = String::new();
    drop(BufReader::new(tracer.stdout.take().unwrap()).read_line(&mut said));
    if said == "traces\n" {
        process.kill();
        assert_eq!(tracer.wait().unwrap().signal(), Some(Signal::KILL.as_raw()), "it was ended for its idleness");
    } else {
        skipped("a_dead_process_is_not_held_by_a_tracer_that_takes_no_note", "one process may not trace another here");
        process.kill();
        tracer.wait().unwrap();
    }
}
