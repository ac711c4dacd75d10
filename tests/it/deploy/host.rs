//! A host for deploy.sh: a real sshd on a loopback port, with keys and a home of its own, and the folder that is deployed to.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::support::wait::until;
use crate::support::{BIOTOPE, LATER, SOON, free_port, has_program, http, program, repository, shipped, skipped};

/// It wants to be called by its full name.
const SSHD: &str = "/usr/sbin/sshd";
/// Whose number the process has that who may not write elsewhere has deployed into a folder of his own.
const OWN_LOCK: &str = "/var/lib/deployer/own/data/LOCK";
/// How long one run of deploy.sh may take on a busy machine, in seconds.
const DEPLOY_TIMEOUT: &str = "240";
/// Jobs that are under way at once while there is load.
const JOBS: u64 = 5;

pub(super) struct Host {
    dir: tempfile::TempDir,
    sshd: Option<Child>,
    ssh_port: u16,
    /// Where its biotope serves.
    pub(super) port: u16,
    /// Who logs in.
    user: String,
    /// Whether all is deployed where it belongs, not to a folder.
    is_world: bool,
}

/// The file that is shipped, if it was made; else the binary under test.
fn binary() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| shipped().map_or_else(|| debug_binary().to_vec(), |path| std::fs::read(path).unwrap()))
}

/// The binary under test without its debug information, which would have to be copied again and again.
fn debug_binary() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let lean = dir.path().join("biotope");
        let stripped = Command::new("strip").arg("-o").arg(&lean).arg(BIOTOPE).status();
        let lean = if stripped.is_ok_and(|status| status.success()) { lean } else { PathBuf::from(BIOTOPE) };
        std::fs::read(lean).unwrap()
    })
}

fn user() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl Host {
    /// A host without an sshd.
    pub(super) fn silent() -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        Self { dir, sshd: None, ssh_port: free_port(), port: free_port(), user: user(), is_world: false }
    }

    /// A host that can be reached; none where there is no sshd, which is told for `test`. All is deployed to its folder `h`.
    pub(super) fn start(test: &str) -> Option<Self> {
        let mut host = Self::furnished(test)?;
        let line = format!(
            "SetEnv HOME={}\nAuthorizedKeysFile {}\n",
            host.path("home").display(),
            host.path("key.pub").display()
        );
        host.write_sshd_config(&line);
        let mut command = host.sshd_command();
        command.args(["-D", "-e"]);
        host.listen(command);
        Some(host)
    }

    /// A host that is this machine in a mount namespace of its own, which the shell script `world` makes: it is given the folder
    /// of the test and `args`, and becomes sshd. All is deployed where it belongs there, by the user `deployer`.
    pub(super) fn start_in(test: &str, world: &str, args: &[&str]) -> Option<Self> {
        let mut host = Self::furnished(test)?;
        host.user = "deployer".to_owned();
        host.is_world = true;
        host.write_sshd_config("AuthorizedKeysFile /etc/deploy/authorized_keys\n");
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", world, "sh"]).arg(host.dir.path()).args(args);
        host.listen(command);
        Some(host)
    }

    /// With keys, and a home.
    fn furnished(test: &str) -> Option<Self> {
        if !Path::new(SSHD).is_file() || !has_program("ssh") {
            skipped(test, "needs /usr/sbin/sshd and ssh, of the packages openssh-server and openssh-client");
            return None;
        }
        let host = Self::silent();
        for key in ["host_key", "key"] {
            let made =
                Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(host.path(key)).status();
            assert!(made.unwrap().success());
        }
        std::fs::create_dir(host.path("home")).unwrap();
        // An sshd of root's wants its empty folder, which boot scripts make otherwise; another one needs none.
        drop(std::fs::create_dir("/run/sshd"));
        Some(host)
    }

    fn write_sshd_config(&self, more: &str) {
        let config = format!(
            "Port {}\nListenAddress 127.0.0.1\nHostKey {}\nPidFile none\nUsePAM no\nStrictModes no\n\
             PasswordAuthentication no\nPermitRootLogin prohibit-password\nMaxStartups 100\n{more}",
            self.ssh_port,
            self.path("host_key").display()
        );
        // Newer ones shut out who breaks off too often, which is what is done here; older ones do not know the key.
        self.write("sshd_config", &format!("{config}PerSourcePenalties no\n"));
        if !self.sshd_command().arg("-t").output().unwrap().status.success() {
            self.write("sshd_config", &config);
        }
    }

    /// Starts it, and waits until it answers.
    fn listen(&mut self, mut command: Command) {
        let said = std::fs::File::create(self.path("sshd.txt")).unwrap();
        command.stdin(Stdio::null()).stdout(said.try_clone().unwrap()).stderr(said).process_group(0);
        self.sshd = Some(command.spawn().unwrap());
        until("sshd listens", SOON, || {
            let listens = std::net::TcpStream::connect(("127.0.0.1", self.ssh_port));
            listens.map(drop).map_err(|error| format!("{error}; {}", self.text("sshd.txt")))
        });
    }

    /// A path as it is seen on the host.
    pub(super) fn world(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.sshd.as_ref().unwrap().id()))
    }

    fn sshd_command(&self) -> Command {
        let mut command = Command::new(SSHD);
        command.arg("-f").arg(self.path("sshd_config"));
        command
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// A config with this version of `echo`, to be deployed.
    pub(super) fn config(&self, version: &str) -> String {
        self.config_at(version, self.port)
    }

    /// The same, served at another port.
    pub(super) fn config_at(&self, version: &str, port: u16) -> String {
        let name = format!("{version}-{port}.toml");
        self.write(
            &name,
            &format!(
                "data_dir = \"data\"\n[http]\nlisten = \"127.0.0.1:{port}\"\n[workers.echo]\nversion = \"{version}\"\nexec = [\"cat\"]\n"
            ),
        );
        self.path(&name).display().to_string()
    }

    /// A binary that differs from others by what is appended to it.
    pub(super) fn binary(&self, appended: &str) -> String {
        self.program(&format!("biotope-{appended}"), &[binary(), appended.as_bytes()].concat())
    }

    /// As [`Host::binary`], of the debug build: it goes wrong when a test asks for it.
    pub(super) fn ill_binary(&self, appended: &str) -> String {
        self.program(&format!("ill-{appended}"), &[debug_binary(), appended.as_bytes()].concat())
    }

    /// Some file that is to be deployed as the binary.
    pub(super) fn program(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.path(name);
        program(&path, bytes);
        path.display().to_string()
    }

    /// The binary for another kind of machine.
    pub(super) fn foreign_binary(&self) -> String {
        let mut bytes = binary().to_vec();
        bytes[18] ^= 0x55;
        self.program("foreign", &bytes)
    }

    /// deploy.sh for the folder `h` of this host.
    pub(super) fn command(&self, action: &str, args: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", DEPLOY_TIMEOUT]).arg(repository().join("deploy.sh"));
        command.args([action, "--port", &self.ssh_port.to_string(), "--identity"]).arg(self.path("key"));
        let options = [
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "IdentitiesOnly=yes",
            "ConnectTimeout=100",
        ];
        command.args(options.iter().flat_map(|option| ["-o", option]));
        command.args(["--settle", "0"]);
        if !self.is_world {
            command.arg("--prefix").arg(self.path("h"));
        }
        command.args(args).arg(format!("{}@127.0.0.1", self.user));
        command.stdin(Stdio::null()).env_remove("BIOTOPE_TOKEN");
        command
    }

    /// Runs deploy.sh to its end.
    pub(super) fn deploy(&self, action: &str, args: &[&str]) -> Output {
        self.command(action, args).output().unwrap()
    }

    /// Runs deploy.sh, which has to exit with `code`; what it said.
    #[track_caller]
    pub(super) fn deploys(&self, code: i32, action: &str, args: &[&str]) -> String {
        let output = self.deploy(action, args);
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{action} {args:?}: {said}\n{}", self.text("h/biotope.log"));
        said
    }

    /// Runs deploy.sh; `at` hears of each line that it says, counted from 1. Its exit code, and all it said.
    pub(super) fn watched(
        &self,
        action: &str,
        args: &[&str],
        mut at: impl FnMut(usize, &str),
    ) -> (Option<i32>, String) {
        let mut child = self.command(action, args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        for (number, line) in (1..).zip(BufReader::new(child.stderr.take().unwrap()).lines()) {
            let line = line.unwrap();
            at(number, &line);
            said.push_str(&line);
            said.push('\n');
        }
        (child.wait().unwrap().code(), said)
    }

    /// Breaks every connection to the host.
    pub(super) fn drop_connections(&self) {
        let sshd = self.sshd.as_ref().unwrap().id();
        let children = std::fs::read_to_string(format!("/proc/{sshd}/task/{sshd}/children")).unwrap();
        for child in children.split_whitespace() {
            kill(child.parse().unwrap());
        }
    }

    /// Kills what runs on the host for a deployment, if it holds the lock.
    pub(super) fn kill_script(&self) {
        if let Ok(holder) = std::fs::read_link(self.path("h/.deploy/lock")) {
            let holder = holder.display().to_string();
            let pid = holder.split(':').next().unwrap().parse().unwrap();
            // A test may hold it itself.
            if pid != std::process::id().cast_signed() {
                kill(pid);
            }
        }
    }

    /// Waits until no deployment is under way on the host.
    pub(super) fn until_quiet(&self) {
        until("the end of what goes on there", LATER, || {
            let Ok(holder) = std::fs::read_link(self.path("h/.deploy/lock")) else { return Ok(()) };
            let holder = holder.display().to_string();
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", holder.split(':').next().unwrap()));
            let gone = stat.as_ref().map_or(true, |stat| stat.contains(") Z "));
            if gone { Ok(()) } else { Err(holder) }
        });
    }

    /// The process that serves; nothing while none does.
    pub(super) fn pid(&self) -> Option<i32> {
        let pid = self.text("h/data/LOCK").trim().parse().ok()?;
        let exe = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        exe.starts_with(self.dir.path()).then_some(pid)
    }

    /// Ends the process that serves, as a crash would.
    pub(super) fn crash(&self) {
        let pid = self.pid().unwrap();
        kill(pid);
        until("its end", SOON, || self.pid().map_or(Ok(()), |pid| Err(pid.to_string())));
    }

    pub(super) fn ecosystem(&self) -> Value {
        http::get(self.port, "/v1/ecosystem").unwrap().json()
    }

    /// The version of `echo` that is current.
    pub(super) fn version(&self) -> String {
        let seen = self.ecosystem();
        let versions = seen["types"][0]["versions"].as_array().unwrap().clone();
        let current = versions.iter().find(|version| version["state"] == "current");
        current.unwrap_or_else(|| panic!("{seen}"))["version"].as_str().unwrap().to_owned()
    }

    /// Whether what lies in `place` is what lies in the file `path`.
    pub(super) fn holds(&self, place: &str, path: &str) -> bool {
        std::fs::read(self.path(place)).ok() == std::fs::read(path).ok()
    }

    /// Everything in a folder of the host, but for what biotope itself writes: its kind, mode, time, inode and size.
    pub(super) fn tree(&self, name: &str) -> BTreeMap<PathBuf, (u32, i64, i64, u64, u64)> {
        let mut found = BTreeMap::new();
        let mut open = vec![self.path(name)];
        while let Some(path) = open.pop() {
            let Ok(of) = std::fs::symlink_metadata(&path) else { continue };
            if of.is_dir() && !path.ends_with("data") {
                open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
            // A folder's own times tell of files that came and went.
            found.insert(path, (of.mode(), of.mtime(), of.mtime_nsec(), of.ino(), of.size()));
        }
        found
    }

    /// Has jobs done and asks for signs of life all the while. Every request of both must be answered, and every job be done.
    pub(super) fn under_load<T>(&self, work: impl FnOnce() -> T) -> T {
        struct Over<'a>(&'a AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let over = AtomicBool::new(false);
        let before = self.completed();
        let (value, pushed, probed) = std::thread::scope(|scope| {
            let pushing = scope.spawn(|| again(&over, || self.has_jobs_done()));
            let probing = scope.spawn(|| {
                again(&over, || {
                    let alive = http::get(self.port, "/healthz").unwrap();
                    assert_eq!(alive.status, 200, "{alive:?}");
                })
            });
            let ends = Over(&over);
            let value = work();
            drop(ends);
            (value, pushing.join().unwrap(), probing.join().unwrap())
        });
        assert!(pushed > 0 && probed > 0);
        let seen = self.ecosystem()["types"][0].clone();
        assert_eq!(self.completed(), before + pushed * JOBS, "{seen}");
        assert!(["failed", "dead", "ready", "reserved"].iter().all(|key| seen[key] == 0), "{seen}");
        value
    }

    fn completed(&self) -> u64 {
        self.ecosystem()["types"][0]["completed"].as_u64().unwrap()
    }

    /// Pushes some jobs, and waits until they are done.
    fn has_jobs_done(&self) {
        let lines = "{\"type\":\"echo\",\"payload\":7}\n".repeat(usize::try_from(JOBS).unwrap());
        let answer = http::post(self.port, "/v1/jobs", "application/x-ndjson", lines.as_bytes()).unwrap();
        for line in answer.lines() {
            assert_eq!(line["status"], 201, "{line}");
            let path = format!("/v1/jobs/{}", line["id"].as_str().unwrap());
            until("a job is done", LATER, || {
                let job = http::get(self.port, &path).unwrap().json();
                if job["state"] == "completed" { Ok(()) } else { Err(job.to_string()) }
            });
        }
    }
}

/// Does it again and again until it is over; how often.
fn again(over: &AtomicBool, act: impl Fn()) -> u64 {
    let mut times = 0;
    while !over.load(Ordering::Relaxed) {
        act();
        times += 1;
    }
    times
}

fn kill(pid: i32) {
    // One that is gone already is as it should be.
    let _: rustix::io::Result<()> = rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
}

impl Drop for Host {
    fn drop(&mut self) {
        for lock in ["/var/lib/biotope/LOCK", OWN_LOCK] {
            if self.is_world
                && let Ok(pid) = std::fs::read_to_string(self.world(lock))
            {
                kill(pid.trim().parse().unwrap());
            }
        }
        self.kill_script();
        if let Some(sshd) = &mut self.sshd {
            drop(sshd.kill());
            drop(sshd.wait());
        }
        // What a test has started there is in no group of its own: every process that runs a file of this folder.
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let exe = std::fs::read_link(entry.path().join("exe"));
            if exe.is_ok_and(|exe| exe.starts_with(self.dir.path()))
                && let Ok(pid) = entry.file_name().to_string_lossy().parse()
            {
                kill(pid);
            }
        }
    }
}
