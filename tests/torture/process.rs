//! One life of the real process: started plainly or under strace, ended in one of many ways, and seen off with all its children.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal};

use crate::evidence;
use crate::support::wait::until;
use crate::support::{BIOTOPE, Home, LATER, SOON, UNHURRIED, http};

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
        until("serving", SOON, || {
            if self.child.try_wait().unwrap().is_some() {
                return Ok(false);
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
        let status = until("the end of the process", LATER, || self.ended().ok_or_else(|| said.clone()));
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
