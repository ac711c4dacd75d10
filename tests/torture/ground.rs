//! The file systems of a campaign: where its history goes, and a disk of its own whose power can be cut, or that fills up.
//!
//! A disk is ext4 on a file, mounted over the data directory of a home. The power is cut by the file system's own
//! shutdown call without a flush of its journal: what was not synced is gone, what was stays. Needs root.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use crate::history::History;
use crate::support::wait::until;
use crate::support::{Home, SOON, shown};

/// A directory for a history: in memory where that can be had, so that the log's disk has nothing to do with it.
pub(crate) fn history_dir() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let at = if memory.is_dir() { memory } else { Path::new(env!("CARGO_TARGET_TMPDIR")) };
    tempfile::tempdir_in(at).unwrap()
}

/// EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH, each time that a line comes with the disk's and the history's place.
const SWITCH: &str = "\
import fcntl, os, struct, sys
for line in sys.stdin:
    place, history = line.rstrip('\\n').split('\\t')
    disk = os.open(place, os.O_RDONLY)
    history = os.open(history, os.O_WRONLY | os.O_APPEND)
    os.write(history, b'{\"ev\":\"cutting\"}\\n')
    fcntl.ioctl(disk, 0x8004587d, struct.pack('I', 2))
    os.close(disk)
    os.close(history)
    print('cut', flush=True)
";

/// The main switch of a disk: a process that stands by, so that a cut comes when it is asked for.
struct Switch {
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Switch {
    fn stand_by() -> io::Result<Self> {
        let mut python = Command::new("python3");
        let mut process =
            python.args(["-I", "-S", "-c", SWITCH]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (orders, answers) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        Ok(Self { process, orders, answers: BufReader::new(answers) })
    }

    fn throw(&mut self, place: &Path, history: &History) {
        writeln!(self.orders, "{}\t{}", place.display(), history.path().display()).unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        assert_eq!(answer, "cut\n", "the power could not be cut");
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// A disk, mounted. Dropped, it is taken off; its image goes with the home.
pub(crate) struct LoopDisk {
    image: PathBuf,
    /// Where it is mounted.
    pub(crate) place: PathBuf,
    switch: Mutex<Switch>,
}

impl LoopDisk {
    /// Makes an ext4 of this size in the home, and mounts it over the data directory.
    ///
    /// # Errors
    /// Why such a thing cannot be had here.
    pub(crate) fn mount(home: &Home, mebibytes: u64) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root may mount a file system".to_owned());
        }
        let switch = Switch::stand_by().map_err(|error| format!("python3: {error}"))?;
        let disk = Self { image: home.path("disk.img"), place: home.path("data"), switch: Mutex::new(switch) };
        File::create(&disk.image).and_then(|file| file.set_len(mebibytes << 20)).map_err(|error| error.to_string())?;
        let make = ["-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
        run(Command::new("mkfs.ext4").args(make).arg(&disk.image))?;
        std::fs::create_dir(&disk.place).map_err(|error| error.to_string())?;
        disk.put_on()?;
        Ok(disk)
    }

    fn put_on(&self) -> Result<(), String> {
        run(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.place))
    }

    fn take_off(&self) -> Result<(), String> {
        run(Command::new("umount").arg(&self.place))
    }

    /// Cuts the power: from now on nothing reaches the disk. Notes it right before, since the file system lets a sync
    /// that is going on return as if it had succeeded; a machine without power would not have told anybody.
    pub(crate) fn cut(&self, history: &History) {
        self.switch.lock().unwrap().throw(&self.place, history);
    }

    /// Brings the power back, once nobody has a file open there: what the page cache held is gone.
    pub(crate) fn power_on(&self) {
        // A process on its way out has no descriptors any more a moment before its files are closed.
        until("the end of all files", SOON, || self.take_off());
        self.put_on().unwrap();
    }

    /// Takes all space that is left.
    pub(crate) fn fill(&self) {
        for bytes in [1 << 20, 1 << 12] {
            // Ends when there is no space: that is what it is for.
            let to = format!("of={}", self.filler().display());
            let append = ["if=/dev/zero", &format!("bs={bytes}"), "oflag=append", "conv=notrunc", &to];
            drop(Command::new("dd").args(append).output());
        }
    }

    /// Gives the space back that [`LoopDisk::fill`] took.
    pub(crate) fn free(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.place.join("filler")
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        // A test that failed may have left somebody there.
        if self.take_off().is_err() {
            drop(run(Command::new("umount").arg("--lazy").arg(&self.place)));
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {}", shown(&output))) }
}
