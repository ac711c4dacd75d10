//! The file that this process was started from: to be started again, also where it was replaced meanwhile, and where no
//! /proc is mounted.
//!
//! Owns how it is found. Starts nothing.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// What leads to it wherever there is a /proc, even after it was removed.
const LINK: &str = "/proc/self/exe";

/// Where it lay when it was first asked for, and what was found there: device and inode.
static BEGAN: OnceLock<Option<Began>> = OnceLock::new();

type Began = (PathBuf, (u64, u64));

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).map(|of| (of.dev(), of.ino())).ok()
}

/// Notes where the file lies, while it surely is what runs; to be called before anybody could have replaced it.
pub(crate) fn note() {
    began();
}

fn began() -> Option<&'static Began> {
    BEGAN.get_or_init(|| if has_link() { None } else { begun_from(rustix::param::linux_execfn().to_bytes()) }).as_ref()
}

/// Where this process was started from, by what the kernel says, or else by its first argument: the kernel knows no path of
/// a file that was handed over open.
fn begun_from(told: &[u8]) -> Option<Began> {
    let told = Path::new(OsStr::from_bytes(told)).to_path_buf();
    let first = std::env::args_os().next().map(PathBuf::from);
    let path = Some(told).filter(|path| !path.starts_with("/dev/fd")).or(first)?;
    let path = std::path::absolute(path).ok()?;
    let found = identity(&path)?;
    Some((path, found))
}

fn has_link() -> bool {
    // The link itself: where it leads may be gone.
    std::fs::symlink_metadata(LINK).is_ok()
}

/// A path by which the very file that runs can be opened or started now.
///
/// # Errors
/// There is no /proc, and where it was started from lies another file by now, or none.
pub(crate) fn path() -> io::Result<PathBuf> {
    if has_link() {
        return Ok(LINK.into());
    }
    still_there(began())
}

fn still_there(began: Option<&Began>) -> io::Result<PathBuf> {
    let no_proc = "no /proc is mounted";
    let Some((path, was)) = began else {
        return Err(io::Error::other(format!("{no_proc}, and nothing says where this program lies: mount it")));
    };
    if identity(path) == Some(*was) {
        Ok(path.clone())
    } else {
        let why =
            format!("{no_proc}, and {} is no longer the program that runs: mount it, or start anew", path.display());
        Err(io::Error::other(why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_is_found_without_proc_as_long_as_it_is_there() {
        let began = begun_from(rustix::param::linux_execfn().to_bytes()).unwrap();
        assert_eq!(Some(began.1), identity(Path::new(LINK)), "by what the kernel says");
        assert_eq!(begun_from(b"/dev/fd/7").unwrap().1, began.1, "by the first argument");
        assert_eq!(still_there(Some(&began)).unwrap(), began.0);
        let replaced = (began.0.clone(), (began.1.0, began.1.1 + 1));
        let why = still_there(Some(&replaced)).unwrap_err().to_string();
        assert!(why.contains("no longer the program that runs"), "{why}");
        assert!(still_there(None).is_err());
    }
}
