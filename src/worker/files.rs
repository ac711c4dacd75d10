//! The files that a version is made of, as they were when it was accepted; and whether they still are.
//!
//! Owns what `watch` may match. Reads no content but to make a hash of it; afterwards it only looks at what the file system
//! says of each file: device, inode, size and time of change.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use glob::{MatchOptions, Pattern};

use crate::config::units;
use crate::limits::{WATCHED_BYTES_MAX, WATCHED_FILES_MAX};

/// Watched files are looked at no more often than this.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the file system says of a file; `None`: that it is not there.
type Stamp = Option<[u64; 5]>;

fn stamp(path: &Path) -> Stamp {
    let seen = std::fs::metadata(path).ok()?;
    let [seconds, nanos] = [seen.mtime(), seen.mtime_nsec()].map(i64::cast_unsigned);
    Some([seen.dev(), seen.ino(), seen.size(), seconds, nanos])
}

/// The files of a version. It is *drifted* once one of them is not the one that was accepted: what runs is then not what the
/// version's hash says.
#[derive(Debug, Default)]
pub struct Files(Mutex<Known>);

#[derive(Debug, Clone, Default)]
struct Known {
    /// The program and the arguments that are files.
    own: Vec<(PathBuf, Stamp)>,
    watched: Vec<(PathBuf, Stamp)>,
    /// When the watched ones were last looked at, by the steady clock.
    looked_at: Option<Duration>,
    /// The first one that was found changed.
    drifted: Option<PathBuf>,
}

impl Files {
    /// Files as they are now. To be called before they are read.
    pub(super) fn new(own: Vec<PathBuf>, watched: Vec<PathBuf>) -> Self {
        let stamped = |paths: Vec<PathBuf>| paths.into_iter().map(|path| (path.clone(), stamp(&path))).collect();
        let known = Known { own: stamped(own), watched: stamped(watched), ..Known::default() };
        Self(Mutex::new(known))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing that panics is done under it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks whether they are still the same, at `now` of the steady clock: who starts a program looks at its own files each
    /// time, and at the rest once a second at most.
    pub(super) fn look(&self, now: Duration, spawning: bool) {
        let mut known = self.known();
        if known.drifted.is_some() {
            return;
        }
        let is_due = known.looked_at.is_none_or(|at| now.saturating_sub(at) >= LOOK_EVERY);
        let some = |is_looked_at: bool, files| if is_looked_at { files } else { &[] as &[(PathBuf, Stamp)] };
        let (own, watched) = (some(is_due || spawning, &known.own), some(is_due, &known.watched));
        let changed = own.iter().chain(watched).find(|(path, was)| stamp(path) != *was);
        let changed = changed.map(|(path, _)| path.clone());
        if is_due {
            known.looked_at = Some(now);
        }
        known.drifted = changed;
    }

    /// As [`Files::drifted`], after a look at the files of the program itself: a call of the system for each.
    pub fn drifted_by(&self, now: Duration) -> Option<PathBuf> {
        self.look(now, true);
        self.drifted()
    }

    /// The first file that was found changed, if one was.
    pub fn drifted(&self) -> Option<PathBuf> {
        self.known().drifted.clone()
    }

    /// What is now was accepted: it has the same content.
    pub(crate) fn renew(&self, newer: &Self) {
        let newer = newer.known().clone();
        *self.known() = newer;
    }
}

/// The files that match any of the patterns, which are relative to `folder`, in order.
///
/// # Errors
/// A pattern that is none, or matches nothing; too many files, or too many bytes.
pub(super) fn matching(folder: &Path, patterns: &[String]) -> Result<Vec<PathBuf>, String> {
    let options = MatchOptions { require_literal_leading_dot: true, ..MatchOptions::new() };
    let folder = Pattern::escape(&folder.to_string_lossy());
    let mut found = BTreeSet::new();
    let mut bytes = 0;
    for pattern in patterns {
        let whole = if pattern.starts_with('/') { pattern.clone() } else { format!("{folder}/{pattern}") };
        let paths =
            glob::glob_with(&whole, options).map_err(|error| format!("{pattern:?} is no pattern: {}", error.msg))?;
        let mut any = false;
        for path in paths {
            let path = path.map_err(|error| format!("cannot read {}: {}", error.path().display(), error.error()))?;
            let Ok(seen) = std::fs::metadata(&path) else { continue };
            if !seen.is_file() {
                continue;
            }
            any = true;
            if found.insert(path) {
                bytes += seen.len();
            }
            if found.len() > WATCHED_FILES_MAX {
                return Err(format!("more than {WATCHED_FILES_MAX} files match"));
            }
            if bytes > WATCHED_BYTES_MAX {
                return Err(format!("the files that match have more than {}", units::show_size(WATCHED_BYTES_MAX)));
            }
        }
        if !any {
            return Err(format!("{pattern:?} matches no file"));
        }
    }
    Ok(found.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path, patterns: &[&str]) -> Result<Vec<String>, String> {
        let patterns: Vec<String> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        let name = |path: PathBuf| path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
        Ok(matching(dir, &patterns)?.into_iter().map(name).collect())
    }

    #[test]
    fn patterns_match_files_below_the_folder_each_once() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("a [b]");
        for folder in ["lib/deep", ".git"] {
            std::fs::create_dir_all(dir.join(folder)).unwrap();
        }
        for name in ["a.py", "b.py", "c.txt", "lib/d.py", "lib/deep/e.py", ".git/f.py", ".g.py"] {
            std::fs::write(dir.join(name), name).unwrap();
        }
        assert_eq!(names(&dir, &["*.py", "a*"]).unwrap(), ["a.py", "b.py"]);
        assert_eq!(names(&dir, &["**/*.py"]).unwrap(), ["a.py", "b.py", "lib/d.py", "lib/deep/e.py"]);
        assert_eq!(names(&dir, &["lib"]).unwrap_err(), "\"lib\" matches no file");
        assert!(names(&dir, &["*.py", "***"]).unwrap_err().starts_with("\"***\" is no pattern"));
    }

    #[test]
    fn too_many_files_or_bytes_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let large = std::fs::File::create(dir.path().join("large")).unwrap();
        large.set_len(WATCHED_BYTES_MAX).unwrap();
        assert_eq!(names(dir.path(), &["*"]).unwrap(), ["large"]);
        large.set_len(WATCHED_BYTES_MAX + 1).unwrap();
        assert!(names(dir.path(), &["*"]).unwrap_err().contains("more than 64MiB"));
        large.set_len(0).unwrap();
        for number in 0..WATCHED_FILES_MAX {
            std::fs::write(dir.path().join(number.to_string()), "").unwrap();
        }
        assert!(names(dir.path(), &["*"]).unwrap_err().contains("more than 1000 files"));
    }

    #[test]
    fn a_file_that_changes_is_seen_when_one_looks_and_until_it_is_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let [own, watched] = ["own", "watched"].map(|name| dir.path().join(name));
        let write = |path: &Path, text: &str| std::fs::write(path, text).unwrap();
        write(&own, "1");
        write(&watched, "1");
        let now = || Files::new(vec![own.clone()], vec![watched.clone()]);
        let files = now();
        let second = |seconds| Duration::from_secs(seconds);
        files.look(second(10), true);
        assert_eq!(files.drifted(), None);
        write(&watched, "12");
        files.look(second(10), true);
        assert_eq!(files.drifted(), None, "not so soon again");
        files.look(second(11), true);
        assert_eq!(files.drifted().as_ref(), Some(&watched));
        write(&own, "12");
        files.look(second(12), true);
        assert_eq!(files.drifted().as_ref(), Some(&watched), "one is enough");
        files.renew(&now());
        files.look(second(13), true);
        assert_eq!(files.drifted(), None);
        std::fs::remove_file(&own).unwrap();
        files.look(second(13), true);
        assert_eq!(files.drifted().as_ref(), Some(&own), "the program is looked at each time");
    }
}
