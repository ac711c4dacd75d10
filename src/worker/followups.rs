//! The file named by `BIOTOPE_ENQUEUE`, in which a program leaves the jobs that shall follow.
//!
//! Owns one directory (0700) per worker under the system's temporary directory, and in it one file (0600) per run. Trusts
//! nothing about the file but its bytes: it may have been replaced, removed, or made a pipe. Both belong to the user that the
//! program runs as.
//! Promise: what a run has put into its file, or beside it, is gone when it is over, the directory when its worker is; what a
//! killed process left behind is removed by the next one, which can tell by the lock that nobody holds.
//!
//! A file that nobody has so much as opened serves the next run, too, since file systems take long to make many: ext4 looks for
//! an inode that was not in use a moment ago.

mod watch;

use std::cell::RefCell;
use std::ffi::{CString, OsStr};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Once;

use rustix::fd::OwnedFd;
use rustix::fs::{
    AtFlags, Dir, FileType, FlockOperation, Gid, Mode, OFlags, Uid, fchown, flock, fstat, mkdir, open, openat, unlinkat,
};
use rustix::io::Errno;

use self::watch::Watch;
use crate::job::intake::{IntakeLimits, parse_job};
use crate::job::new::NewJob;
use crate::limits::{FOLLOW_UPS_MAX, FRAME_BYTES_MAX};
use crate::refusal::Refusal;
use crate::types::UnixMs;

/// What the directories' names begin with.
const PREFIX: &str = "biotope-enqueue-";
/// Where in the directory the file of a run is: one run at a time, so one name.
const FILE: &str = "jobs.ndjson";
/// Names that are tried for a directory: each is taken with a chance of one in 2^64, or swept just before it was locked.
const NAMES_TRIED: usize = 4;

/// One worker's directory.
#[derive(Debug)]
pub(super) struct Tray {
    path: PathBuf,
    /// Held open with an exclusive lock, which tells that the directory is in use.
    dir: OwnedFd,
    /// User and group that it is for, if not ours.
    owner: Option<(u32, u32)>,
    /// Tells whether the file is as it was made; `None`: there is none, or it cannot be told.
    watch: RefCell<Option<Watch>>,
}

impl Tray {
    /// Makes a directory for a program of ours or of this user and group; the first one of a process removes what dead
    /// processes left.
    pub(super) fn make(owner: Option<(u32, u32)>) -> io::Result<Self> {
        static SWEEP: Once = Once::new();
        let parent = std::path::absolute(std::env::temp_dir())?;
        if !parent.exists() && std::env::var_os("TMPDIR").is_none() {
            make_for_all(&parent)?;
        }
        SWEEP.call_once(|| sweep(&parent));
        let mut last = Errno::EXIST;
        for _ in 0..NAMES_TRIED {
            let mut name = [0; 8];
            getrandom::fill(&mut name).map_err(io::Error::other)?;
            match Self::make_at(parent.join(format!("{PREFIX}{:016x}", u64::from_le_bytes(name))), owner) {
                Ok(tray) => return Ok(tray),
                Err(errno @ (Errno::EXIST | Errno::NOENT | Errno::AGAIN)) => last = errno,
                Err(errno) => return Err(errno.into()),
            }
        }
        Err(last.into())
    }

    fn make_at(path: PathBuf, owner: Option<(u32, u32)>) -> Result<Self, Errno> {
        mkdir(&path, Mode::RWXU)?;
        let dir = open_dir(&path)?;
        flock(&dir, FlockOperation::NonBlockingLockExclusive)?;
        give(&dir, owner)?;
        Ok(Self { path, dir, owner, watch: RefCell::default() })
    }

    /// Whether the file is there as it was made, and nobody has it open.
    fn is_untouched(&self) -> bool {
        self.watch.borrow().as_ref().is_some_and(|watch| !watch.is_touched())
    }

    /// An empty file for the next run, after `clear`; never one that anybody has had in his hands.
    pub(super) fn fresh(&self) -> io::Result<PathBuf> {
        let path = self.path.join(FILE);
        if self.is_untouched() {
            return Ok(path);
        }
        self.watch.replace(None);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let make = || openat(&self.dir, FILE, flags, Mode::RUSR | Mode::WUSR);
        let file = match make() {
            // Something that had outlived its run made it.
            Err(Errno::EXIST) => {
                self.clear();
                make()?
            }
            made => made?,
        };
        give(&file, self.owner)?;
        drop(file);
        self.watch.replace(Watch::new(&self.path, &path));
        Ok(path)
    }

    /// The jobs in the file, all of them or none.
    ///
    /// # Errors
    /// What is wrong, with the line.
    pub(super) fn take(&self, payload_max: usize, now: UnixMs) -> Result<Vec<NewJob>, String> {
        if self.is_untouched() {
            return Ok(Vec::new());
        }
        let text = self.read().map_err(|e| format!("cannot read the file named by BIOTOPE_ENQUEUE: {e}"))?;
        if text.len() > FRAME_BYTES_MAX {
            return Err(format!(
                "BIOTOPE_ENQUEUE holds more than {FRAME_BYTES_MAX} bytes, the most that goes in at once"
            ));
        }
        parse_lines(&text, payload_max, now)
    }

    /// At most one byte more than is allowed, so that the caller can tell.
    fn read(&self) -> io::Result<Vec<u8>> {
        // A pipe in the file's place must not hold us.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = openat(&self.dir, FILE, flags, Mode::empty())?;
        let stat = fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("it is no regular file any more"));
        }
        // We may read what the program may not: a link to somebody else's file is none of its own.
        if self.owner.is_some_and(|(user, _)| user != stat.st_uid) {
            return Err(io::Error::other("it belongs to somebody else now"));
        }
        let mut text = Vec::new();
        std::fs::File::from(file).take(FRAME_BYTES_MAX as u64 + 1).read_to_end(&mut text)?;
        Ok(text)
    }

    /// Removes the file, and whatever else was left in the directory, unless nobody has touched anything.
    pub(super) fn clear(&self) {
        if !self.is_untouched() {
            self.watch.replace(None);
            empty(&self.dir);
        }
    }
}

impl Drop for Tray {
    fn drop(&mut self) {
        remove(&self.path, &self.dir);
    }
}

fn parse_lines(text: &[u8], payload_max: usize, now: UnixMs) -> Result<Vec<NewJob>, String> {
    let mut jobs = Vec::new();
    for (line, text) in (1..).zip(text.split(|b| *b == b'\n')) {
        if text.trim_ascii().is_empty() {
            continue;
        }
        if jobs.len() == FOLLOW_UPS_MAX {
            return Err(format!("BIOTOPE_ENQUEUE line {line}: more than {FOLLOW_UPS_MAX} jobs"));
        }
        let job = parse_job(text, None, IntakeLimits { payload_max }, now);
        jobs.push(job.map_err(|refusal| format!("BIOTOPE_ENQUEUE line {line}{}", place(&refusal)))?);
    }
    Ok(jobs)
}

/// A refusal behind a line's number: its own line, always the first, would only confuse.
pub(super) fn place(refusal: &Refusal) -> String {
    match refusal {
        Refusal::InvalidJson { column, detail, .. } => format!(", column {column}: invalid JSON: {detail}"),
        other => format!(": {other}"),
    }
}

/// Makes something of ours a user's and group's.
/// Makes the directory that other systems have for such files, as it is there: one that is this program alone has none.
fn make_for_all(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    match std::fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o1777))),
    }
}

fn give(file: &OwnedFd, owner: Option<(u32, u32)>) -> Result<(), Errno> {
    owner.map_or(Ok(()), |(user, group)| fchown(file, Some(Uid::from_raw(user)), Some(Gid::from_raw(group))))
}

fn open_dir(path: &Path) -> Result<OwnedFd, Errno> {
    open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Removes the directories in `parent` that no living process holds.
fn sweep(parent: &Path) {
    let Ok(entries) = open_dir(parent).and_then(Dir::new) else { return };
    let ours = rustix::process::geteuid();
    for entry in entries.flatten() {
        let name = entry.file_name().to_bytes();
        if !name.starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let path = parent.join(OsStr::from_bytes(name));
        if let Ok(dir) = open_dir(&path)
            && fstat(&dir).is_ok_and(|stat| ours.is_root() || stat.st_uid == ours.as_raw())
            && flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            remove(&path, &dir);
        }
    }
}

/// Removes a directory that holds at most files.
fn remove(path: &Path, dir: &OwnedFd) {
    empty(dir);
    if let Err(errno) = rustix::fs::rmdir(path) {
        tracing::debug!(path = %path.display(), %errno, "a directory for follow-up jobs stays behind");
    }
}

/// Removes the files in a directory, not what is in further directories.
fn empty(dir: &OwnedFd) {
    let names: Vec<CString> = match Dir::read_from(dir) {
        Ok(entries) => entries.flatten().map(|entry| entry.file_name().to_owned()).collect(),
        Err(_) => return,
    };
    for name in names.iter().filter(|name| !matches!(name.to_bytes(), b"." | b"..")) {
        let _ = unlinkat(dir, name, AtFlags::empty());
    }
}

#[cfg(test)]
mod tests {
    use std::cell::OnceCell;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn write(path: &Path, text: &[u8]) {
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn file_is_fresh_and_private_for_each_run_and_the_directory_goes_with_its_worker() {
        let tray = Tray::make(None).unwrap();
        let path = tray.fresh().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(std::fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o7777, 0o700);
        assert_eq!(tray.take(100, 0).unwrap(), []);
        write(&path, b"left over");
        write(&path.with_extension("tmp"), b"left over");
        assert_eq!(tray.fresh().unwrap(), path);
        assert_eq!(tray.take(100, 0).unwrap(), []);
        write(&path, b"left over");
        tray.clear();
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
        drop(tray);
        assert!(!path.parent().unwrap().exists());
    }

    #[test]
    fn a_file_that_nobody_has_opened_serves_the_next_run_and_one_that_somebody_has_does_not() {
        use std::fs::{OpenOptions, Permissions, hard_link, rename, set_permissions};
        use std::io::Write;
        use std::os::unix::fs::PermissionsExt;
        let (tray, elsewhere) = (Tray::make(None).unwrap(), tempfile::tempdir().unwrap());
        let path = tray.fresh().unwrap();
        // Whether the run after one in which this happens has the same file.
        let same_after = |happens: &dyn Fn()| {
            // No watch has the number of one before.
            let file = || format!("{:?}", tray.watch.borrow());
            let before = file();
            happens();
            assert_eq!(tray.take(100, 0).unwrap(), []);
            tray.clear();
            assert_eq!((tray.fresh().unwrap(), std::fs::metadata(&path).unwrap().len()), (path.clone(), 0));
            assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
            before == file()
        };
        assert!(same_after(&|| assert!(path.exists())));
        let open = OnceCell::new();
        assert!(!same_after(&|| open.set(OpenOptions::new().append(true).open(&path).unwrap()).unwrap()));
        assert!(same_after(&|| open.get().unwrap().write_all(b"too late").unwrap()));
        assert!(!same_after(&|| write(&path.with_extension("tmp"), b"left over")));
        assert!(!same_after(&|| hard_link(&path, elsewhere.path().join("link")).unwrap()));
        assert!(same_after(&|| write(&elsewhere.path().join("link"), b"too late")));
        assert!(!same_after(&|| set_permissions(&path, Permissions::from_mode(0o644)).unwrap()));
        assert!(!same_after(&|| {
            rename(&path, elsewhere.path().join("moved")).unwrap();
            write(&path, b"");
        }));
        assert!(same_after(&|| {}));
    }

    #[test]
    fn file_that_is_none_any_more_is_an_error_and_hangs_nobody() {
        let tray = Tray::make(None).unwrap();
        let path = tray.fresh().unwrap();
        std::fs::remove_file(&path).unwrap();
        let error = |tray: &Tray| tray.take(100, 0).unwrap_err();
        assert!(error(&tray).contains("No such file"), "{}", error(&tray));
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, mode, 0).unwrap();
        assert!(error(&tray).contains("no regular file"), "{}", error(&tray));
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
        assert!(tray.take(100, 0).is_err());
    }

    #[test]
    fn flood_of_follow_ups_is_not_read_in() {
        let tray = Tray::make(None).unwrap();
        write(&tray.fresh().unwrap(), &vec![b'\n'; FRAME_BYTES_MAX + 1]);
        assert!(tray.take(100, 0).unwrap_err().contains("more than 4194304 bytes"));
    }

    #[test]
    fn sweep_removes_what_nobody_holds() {
        let parent = tempfile::tempdir().unwrap();
        let held = Tray::make_at(parent.path().join(format!("{PREFIX}held")), None).unwrap();
        let stale = parent.path().join(format!("{PREFIX}stale"));
        std::fs::create_dir(&stale).unwrap();
        write(&stale.join(FILE), b"{}");
        std::fs::create_dir(parent.path().join("other")).unwrap();
        sweep(parent.path());
        assert!(held.path.exists() && !stale.exists() && parent.path().join("other").exists());
    }
}
