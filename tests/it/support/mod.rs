//! What every test needs: a home for one biotope, the running process, and a patient look at it.

pub(crate) mod http;
pub(crate) mod manager;
pub(crate) mod wait;

use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde_json::Value;

use http::Answer;
use wait::until;

/// Long enough for anything that takes a moment, on a machine whose disk and processors others keep busy for a minute; nothing
/// waits that long when all is well.
pub(crate) const SOON: Duration = Duration::from_secs(120);
/// For thousands of jobs.
pub(crate) const LATER: Duration = Duration::from_secs(240);

/// Gives the next image of a biotope more time to come up than it has: for tests of what comes then, on a busy disk.
pub(crate) const UNHURRIED: (&str, &str) = ("BIOTOPE_TEST_TAKEOVER", "patient@120");

/// The binary under test.
pub(crate) const BIOTOPE: &str = env!("CARGO_BIN_EXE_biotope");

/// The file that is shipped, where `BIOTOPE_SHIPPED` names it.
pub(crate) fn shipped() -> Option<PathBuf> {
    std::env::var_os("BIOTOPE_SHIPPED").map(PathBuf::from)
}

/// Whether the longer rounds are asked for (`tests/run --long`).
pub(crate) fn long() -> bool {
    std::env::var_os("BIOTOPE_TEST_LONG").is_some()
}

/// Says that a test cannot run here; `tests/run` counts the line.
#[expect(clippy::print_stdout, reason = "the line is what tests/run reads")]
pub(crate) fn skipped(name: &str, reason: &str) {
    println!("SKIPPED {name}: {reason}");
}

/// Tells a figure or a seed; shown by `tests/run` in the log of the tests.
#[expect(clippy::print_stdout, reason = "figures and seeds belong to a test's output")]
pub(crate) fn tell(text: &str) {
    println!("{text}");
}

/// Whether a program can be found.
pub(crate) fn has_program(name: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(name).is_file()))
}

/// A port of this test alone. Below the range that the kernel takes for outgoing connections, and never given twice in
/// one process; one that another process serves is passed over. It is not listened on to find that out: whatever another test
/// is just starting would, for a moment, go on doing so.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() * 61 % 12_000).unwrap();
    loop {
        let port = 20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        let served = TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, port).into(), SOON);
        if served.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused) {
            return port;
        }
    }
}

/// A table that switches the index of ended jobs off, where the tests are asked to do without (`BIOTOPE_TEST_HISTORY=off`)
/// and the config does not say itself.
fn history(config: &str) -> String {
    let off = std::env::var_os("BIOTOPE_TEST_HISTORY").is_some_and(|value| value == "off");
    if off && !config.contains("[history]") { "[history]\nindex = \"off\"\n".to_owned() } else { String::new() }
}

/// A directory with a config and programs, in which a biotope can live, die and live again.
pub(crate) struct Home {
    dir: tempfile::TempDir,
    /// The binary that is run here.
    program: PathBuf,
    /// Where its biotope serves.
    pub(crate) port: u16,
}

impl Home {
    /// A home with these worker tables.
    pub(crate) fn new(workers: &str) -> Self {
        let home = Self::bare();
        home.configure(workers);
        home
    }

    /// As [`Home::new`], for the file that is shipped, if it was made.
    pub(crate) fn shipped(workers: &str) -> Self {
        let home = Self::new(workers);
        Self { program: shipped().unwrap_or_else(|| BIOTOPE.into()), ..home }
    }

    /// A home without a config.
    pub(crate) fn bare() -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        Self { dir, program: BIOTOPE.into(), port: free_port() }
    }

    /// A home that holds a copy of `examples/NAME`, with `config` as its biotope.toml, on a port of its own.
    pub(crate) fn example(name: &str, config: &str) -> Self {
        let home = Self::bare();
        let from = std::fs::read_dir(repository().join("examples").join(name)).unwrap();
        let files = from.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
        // By another process, as in `program`.
        assert!(Command::new("cp").args(files).arg(home.path("")).status().unwrap().success());
        home.use_config(config);
        home
    }

    /// Makes `config`, a file of the home, its biotope.toml, with the home's port instead of the one it names.
    pub(crate) fn use_config(&self, config: &str) {
        let text = std::fs::read_to_string(self.path(config)).unwrap();
        let text: Vec<String> = text
            .lines()
            .map(|line| if line.starts_with("listen =") { self.listen() } else { line.to_owned() })
            .collect();
        self.write("biotope.toml", &(text.join("\n") + "\n" + &history(&text.concat())));
    }

    fn listen(&self) -> String {
        format!("listen = \"127.0.0.1:{}\"", self.port)
    }

    /// Replaces the config by one with these worker tables.
    pub(crate) fn configure(&self, workers: &str) {
        self.configure_with("", workers);
    }

    /// Replaces the config by one with these lines at its top and these worker tables.
    pub(crate) fn configure_with(&self, top: &str, workers: &str) {
        let text = format!("data_dir = \"data\"\n{top}\n[http]\n{}\n{workers}\n{}", self.listen(), history(top));
        self.write("biotope.toml", &text);
    }

    /// A path in the home.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file, in one step as a careful editor does.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let new = self.path(&format!("{name}.new"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, self.path(name)).unwrap();
    }

    /// Writes a file that is nobody else's to read.
    pub(crate) fn private(&self, name: &str, text: &str) {
        self.write(name, text);
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Writes a program, of POSIX sh unless its first line says otherwise.
    pub(crate) fn script(&self, name: &str, text: &str) {
        let first = if text.starts_with("#!") { "" } else { "#!/bin/sh\n" };
        program(&self.path(name), format!("{first}{text}\n").as_bytes());
    }

    /// A file's text; empty while there is none.
    pub(crate) fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// A named pipe, by which a worker and a test meet: opening one end waits for the other.
    pub(crate) fn pipe(&self, name: &str) {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, self.path(name), mode).unwrap();
    }

    /// Lets one reader of a named pipe go on; waits until there is one.
    pub(crate) fn open_gate(&self, name: &str) {
        use rustix::fs::{Mode, OFlags};
        until("a reader of the pipe", SOON, || {
            rustix::fs::open(self.path(name), OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
                .map(drop)
                .map_err(|error| error.to_string())
        });
    }

    /// A command of the binary with this home's config.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(self.path("biotope.toml")).args(args);
        command.stdin(Stdio::null()).current_dir(self.dir.path());
        command
    }

    /// Runs a command of the binary to its end; one that does not end within [`LATER`] exits with 124.
    pub(crate) fn cli(&self, args: &[&str]) -> Output {
        let command = self.command(args);
        let mut bounded = Command::new("timeout");
        bounded.args(["--kill-after=5", &LATER.as_secs().to_string()]);
        bounded.arg(command.get_program()).args(command.get_args());
        bounded.stdin(Stdio::null()).current_dir(self.dir.path()).output().unwrap()
    }

    /// Starts a biotope and waits until it is ready.
    pub(crate) fn start(&self) -> Biotope<'_> {
        self.start_by(self.command(&["run"]))
    }

    /// Starts a biotope by a command of the caller's and waits until it is ready.
    pub(crate) fn start_by(&self, mut command: Command) -> Biotope<'_> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path("stderr.txt")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
        let mut biotope = Biotope { home: self, child: command.spawn().unwrap() };
        until("ready", SOON, || {
            if let Some(status) = biotope.child.try_wait().unwrap() {
                panic!("biotope ended with {status} before it was ready:\n{}", self.text("stderr.txt"));
            }
            match http::get(self.port, "/readyz") {
                Ok(answer) if answer.status == 200 => Ok(()),
                // It serves what is whole, and says that not all is.
                Ok(answer) if answer.status == 503 && answer.json()["code"] == "damaged" => Ok(()),
                other => Err(format!("{other:?}\n{}", self.text("stderr.txt"))),
            }
        });
        biotope
    }
}

/// A running biotope. Dropped, it is killed with its process group, and reaped.
pub(crate) struct Biotope<'a> {
    home: &'a Home,
    child: Child,
}

impl Biotope<'_> {
    /// Its process id.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// `GET path`.
    pub(crate) fn get(&self, path: &str) -> Answer {
        http::get(self.home.port, path).unwrap()
    }

    /// `POST path` with JSON.
    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        http::post(self.home.port, path, "application/json", body.as_bytes()).unwrap()
    }

    /// `POST /v1/jobs` with NDJSON; the answer's lines.
    pub(crate) fn push_lines(&self, lines: &str) -> Vec<Value> {
        let answer = http::post(self.home.port, "/v1/jobs", "application/x-ndjson", lines.as_bytes()).unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.lines()
    }

    /// Enqueues one job, given as a whole; its id.
    pub(crate) fn push(&self, job: &Value) -> String {
        let answer = self.post("/v1/jobs", &job.to_string());
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    /// One job as it stands.
    pub(crate) fn job(&self, id: &str) -> Value {
        let answer = self.get(&format!("/v1/jobs/{id}"));
        assert_eq!(answer.status, 200, "{id}: {answer:?}");
        answer.json()
    }

    /// All jobs of a query such as `type=echo&state=completed`, over all pages.
    pub(crate) fn jobs(&self, query: &str) -> Vec<Value> {
        let mut jobs = Vec::new();
        let mut cursor = String::new();
        loop {
            let answer = self.get(&format!("/v1/jobs?{query}{cursor}"));
            assert_eq!(answer.status, 200, "{answer:?}");
            let page = answer.json();
            jobs.extend(page["jobs"].as_array().unwrap().iter().cloned());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return jobs,
            }
        }
    }

    /// `GET /v1/ecosystem`.
    pub(crate) fn ecosystem(&self) -> Value {
        let answer = self.get("/v1/ecosystem");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// One type of the ecosystem; null if it is not there.
    pub(crate) fn of_type(&self, name: &str) -> Value {
        let types = self.ecosystem()["types"].as_array().unwrap().clone();
        types.into_iter().find(|of_type| of_type["type"] == name).unwrap_or_default()
    }

    /// Waits until a type's count is at least `count`.
    pub(crate) fn until_count(&self, name: &str, what: &str, count: u64) {
        self.until_count_in(name, what, count, SOON);
    }

    /// Waits until a type's count is at least `count`, for as long as `deadline`.
    pub(crate) fn until_count_in(&self, name: &str, what: &str, count: u64, deadline: Duration) {
        until(&format!("{name}: {what} >= {count}"), deadline, || {
            let seen = self.of_type(name);
            if seen[what].as_u64().is_some_and(|value| value >= count) { Ok(()) } else { Err(seen.to_string()) }
        });
    }

    /// Waits until a job is in a state; the job then.
    pub(crate) fn until_state(&self, id: &str, state: &str) -> Value {
        until(&format!("{id} {state}"), SOON, || {
            let job = self.job(id);
            if job["state"] == state { Ok(job) } else { Err(job.to_string()) }
        })
    }

    /// Waits until a version of a type is in a state.
    pub(crate) fn until_version(&self, name: &str, version: &str, state: &str) {
        until(&format!("{name} {version} {state}"), SOON, || {
            let seen = self.of_type(name);
            let versions = seen["versions"].as_array().cloned().unwrap_or_default();
            let there = versions.iter().any(|one| one["version"] == version && one["state"] == state);
            if there { Ok(()) } else { Err(format!("{seen}\n{}", self.home.text("stderr.txt"))) }
        });
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) fn until_end(&mut self) -> ExitStatus {
        until("the end of the process", LATER, || {
            self.child.try_wait().unwrap().ok_or_else(|| self.home.text("stderr.txt"))
        })
    }

    /// Asks it to stop, and expects exit 0.
    pub(crate) fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = self.until_end();
        assert_eq!(status.code(), Some(0), "{status}\n{}", self.home.text("stderr.txt"));
    }

    /// Ends it without a warning, as a crash would.
    pub(crate) fn kill(mut self) {
        self.signal(Signal::KILL);
        self.until_end();
    }
}

impl Drop for Biotope<'_> {
    fn drop(&mut self) {
        // A child that was reaped has given its pid back: it must not be signalled any more.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = rustix::process::kill_process_group(self.pid(), Signal::KILL);
            drop(self.child.wait());
        }
        if std::thread::panicking() {
            tell(&format!("--- stderr of biotope ---\n{}", self.home.text("stderr.txt")));
        }
    }
}

/// Writes a program, in one step. By a process of its own: what this one has open for writing is, for a moment, open in
/// whatever another test is just starting, and a file that is open for writing cannot be run.
pub(crate) fn program(path: &Path, bytes: &[u8]) {
    let new = format!("{}.new", path.display());
    let mut install = Command::new("install");
    let mut install = install.args(["-m", "755", "/dev/stdin", &new]).stdin(Stdio::piped()).spawn().unwrap();
    install.stdin.take().unwrap().write_all(bytes).unwrap();
    assert!(install.wait().unwrap().success(), "{new}");
    std::fs::rename(new, path).unwrap();
}

/// The repository's root.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A command's output as text, for messages.
pub(crate) fn shown(output: &Output) -> String {
    format!(
        "{}\nstdout: {}\nstderr: {}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
