//! The helper: a process that starts children for an engine, and ends them all when that is gone.
//!
//! Owns the children, as their parent and as the subreaper of what they leave behind. One thread, no log, no memory but
//! of what runs. Never outlives its engine by more than the end of what it started.
//!
//! ```text
//! lock SPAWNER ─► KILL to all that bears its mark ─► READY ─► start, signal, reap … ─► the engine is gone ─► KILL to all, reap all ─► exit
//! ```

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Pid, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus, dumpable_behavior, kill_process,
    kill_process_group, set_dumpable_behavior, wait, waitid, waitpid,
};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

use super::orphans::{self, own_children};
use super::wire::{self, Record, Request, Start};
use crate::worker::confined::{give_back_open_files, open_files_of_children};
use crate::worker::spawn::{self, Quick};

/// The hidden first argument that makes the program `biotope` a helper.
const ARGUMENT: &str = "--spawn-children";

/// The variable by which all that a helper starts is known, whatever becomes of its parents: which file its helper has locked, as
/// device and inode. No other process of this machine has the same, but by an earlier helper of that file.
const MARK: &str = "BIOTOPE_SPAWNER";

/// What may follow the file to lock: how many files children may have open at first,
const OPEN_FILES: &str = "--open-files=";
/// and that nobody is to see this process's memory, since children's secrets go through it.
const NOT_DUMPED: &str = "--not-dumped";

/// The command that makes this very program, even if its file was replaced meanwhile, the helper that locks a file.
pub fn asked_of_this_program(lock: &Path) -> std::process::Command {
    use std::os::unix::process::CommandExt;
    let program = crate::own::path().unwrap_or_else(|error| {
        tracing::error!("the process that starts children cannot be started: {error}");
        PathBuf::from("/proc/self/exe")
    });
    let mut command = std::process::Command::new(program);
    command.arg0("biotope-spawner").arg(ARGUMENT).arg(lock);
    if let Some(files) = open_files_of_children() {
        command.arg(format!("{OPEN_FILES}{files}"));
    }
    if dumpable_behavior().is_ok_and(|now| now == DumpableBehavior::NotDumpable) {
        command.arg(NOT_DUMPED);
    }
    command
}

/// The file to lock, if this process was started to be a helper.
pub fn asked() -> Option<PathBuf> {
    let mut args = std::env::args_os().skip(1);
    (args.next()? == ARGUMENT).then(|| args.next().map(PathBuf::from))?
}

/// Lives as a helper; the engine is at the other end of stdin.
pub fn serve(lock: &Path) -> ExitCode {
    for arg in std::env::args().skip(3) {
        if let Some(files) = arg.strip_prefix(OPEN_FILES).and_then(|files| files.parse().ok()) {
            give_back_open_files(files);
        }
        if arg == NOT_DUMPED {
            let _: Result<(), _> = set_dumpable_behavior(DumpableBehavior::NotDumpable);
        }
    }
    // Before anything is opened here: what is open now is not for children.
    let begun = spawn::become_helper().map_err(std::io::Error::from).and_then(|()| Family::new(lock));
    match begun.and_then(|(mut family, _lock)| family.live()) {
        Ok(()) => ExitCode::SUCCESS,
        // The engine was gone before this one was ready. The last word is the engine's.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(std::io::stderr(), "biotope: the process that starts children: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// All that runs.
struct Family {
    /// A byte for each child that ended, or fewer.
    ends: UnixStream,
    children: HashMap<u64, Member>,
    quick: Quick,
    /// The value of [`MARK`].
    mark: String,
}

struct Member {
    pid: Pid,
    status: OwnedFd,
}

fn engine() -> BorrowedFd<'static> {
    rustix::stdio::stdin()
}

impl Family {
    /// Takes the lock, however long its holder takes, ends what is left of an earlier one that was killed together with its engine,
    /// and is ready then. The lock is held as long as the file is open.
    fn new(lock: &Path) -> std::io::Result<(Self, File)> {
        // What a service manager or a terminal sends to everybody is the engine's to answer. Handlers, not `ignore`: an
        // ignored signal would stay ignored in every child.
        for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2] {
            signal_hook::flag::register(signal, std::sync::Arc::default())?;
        }
        let (ends, told) = UnixStream::pair()?;
        ends.set_nonblocking(true)?;
        signal_hook::low_level::pipe::register(SIGCHLD, told)?;
        orphans::adopt()?;
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(lock)?;
        while let Err(errno) = rustix::fs::flock(&file, FlockOperation::LockExclusive) {
            if errno != Errno::INTR {
                return Err(errno.into());
            }
        }
        let stat = rustix::fs::fstat(&file)?;
        let mark = format!("{}:{}", stat.st_dev, stat.st_ino);
        orphans::end_marked(format!("{MARK}={mark}").as_bytes());
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())?;
        wire::say_ready(engine())?;
        Ok((Self { ends, children: HashMap::new(), quick: Quick::new(), mark }, file))
    }

    /// Does what the engine asks until it is gone, and ends what is left.
    fn live(&mut self) -> std::io::Result<()> {
        let mut buffer = Vec::new();
        let lived = loop {
            let engine = engine();
            let mut fds = [PollFd::from_borrowed_fd(engine, PollFlags::IN), PollFd::new(&self.ends, PollFlags::IN)];
            match poll(&mut fds, None) {
                Err(Errno::INTR) => continue,
                Err(errno) => break Err(errno.into()),
                Ok(_) => {}
            }
            let [asked, ended] = fds.map(|fd| !fd.revents().is_empty());
            if ended {
                self.reap();
            }
            if asked {
                match wire::receive(engine, &mut buffer) {
                    Ok(Some(passed)) => self.answer(&buffer, passed),
                    Ok(None) | Err(Errno::CONNRESET) => break Ok(()),
                    Err(Errno::INTR | Errno::AGAIN) => {}
                    // A request that cannot be taken, for want of descriptors or memory: its pipe is closed, which tells.
                    Err(_) => {}
                }
            }
        };
        self.end_all();
        lived
    }

    fn answer(&mut self, bytes: &[u8], passed: Vec<OwnedFd>) {
        match (postcard::from_bytes(bytes), <[OwnedFd; wire::PASSED]>::try_from(passed)) {
            (Ok(Request::Start(start)), Ok([stdin, stdout, stderr, status])) => {
                self.start(&start, [stdin, stdout, stderr], status);
            }
            (Ok(Request::Signal { number, signal }), _) => {
                // Not reaped, so the number is its own still.
                if let (Some(member), Some(signal)) = (self.children.get(&number), Signal::from_named_raw(signal)) {
                    let _ = kill_process_group(member.pid, signal);
                }
            }
            (Ok(Request::Ping), passed) => {
                // A `Vec` again where it does not hold what a start needs.
                if let Err(passed) = passed
                    && let Some(told) = passed.first()
                {
                    wire::tell(told, Record::Here);
                }
            }
            (Ok(Request::Start(_)) | Err(_), _) => {}
        }
    }

    fn start(&mut self, start: &Start<'_>, stdio: [OwnedFd; 3], status: OwnedFd) {
        let mut launch = start.launch();
        launch.env.push((MARK.into(), self.mark.as_str().into()));
        match spawn::spawn_for_helper(&mut self.quick, &launch, stdio) {
            Ok(pid) => {
                wire::tell(&status, Record::Started(pid.as_raw_nonzero().get()));
                self.children.insert(start.number, Member { pid, status });
            }
            Err(error) => {
                wire::tell(&status, Record::Failed(error.raw_os_error().unwrap_or(Errno::INVAL.raw_os_error())));
            }
        }
    }

    /// Takes note of all that has ended: children, and what they left to us.
    fn reap(&mut self) {
        let mut bytes = [0; 64];
        while rustix::io::read(&self.ends, &mut bytes).is_ok_and(|read| read == bytes.len()) {}
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        loop {
            let children = self.children.iter().map(|(number, member)| (*number, member.pid));
            let ended: Vec<_> =
                children.filter(|(_, pid)| matches!(waitid(WaitId::Pid(*pid), look), Ok(Some(_)))).collect();
            for (number, pid) in ended {
                // As long as it is not reaped, its number, and so its group's, is nobody else's.
                let _ = kill_process_group(pid, Signal::KILL);
                if let (Ok(Some((_, status))), Some(member)) =
                    (waitpid(Some(pid), WaitOptions::NOHANG), self.children.remove(&number))
                {
                    wire::tell(&member.status, end_of(status));
                }
            }
            // What is left is an orphan, or a child that ended this moment, of which the next round takes note.
            if !matches!(waitid(WaitId::All, look), Ok(Some(_))) {
                return;
            }
            for orphan in own_children() {
                if self.children.values().all(|member| member.pid != orphan) {
                    let _ = waitpid(Some(orphan), WaitOptions::NOHANG);
                }
            }
        }
    }

    /// Kills everything, also what left its group or its session, and waits until nothing is left: what a killed process
    /// leaves behind comes to us, its subreaper, and is killed in its turn.
    fn end_all(&mut self) {
        loop {
            for member in self.children.values() {
                let _ = kill_process_group(member.pid, Signal::KILL);
            }
            for pid in own_children() {
                let _ = kill_process(pid, Signal::KILL);
            }
            match wait(WaitOptions::empty()) {
                Ok(Some((pid, _))) => self.children.retain(|_, member| member.pid != pid),
                Ok(None) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

fn end_of(status: WaitStatus) -> Record {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Record::Exited(code),
        (None, signal) => Record::Signalled(signal.unwrap_or(Signal::KILL.as_raw())),
    }
}
