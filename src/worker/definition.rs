//! What a program worker is: its config, resolved against the machine, and a hash over all of it.
//!
//! Reads the file system, and variables through the caller. Starts nothing. Two definitions with the same hash are the
//! same version; the values of variables and of files of secrets go into the hash, and into nothing else.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::confined::Confined;
use super::files::{self, Files};
use super::launch::Launch;
use crate::config::{EnvValue, ExecConfig, ExecMode, Places, Problem};
use crate::private;
use crate::types::WorkerType;

/// Where a child's programs are looked up, unless its own environment says otherwise.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// A file above this size counts by its size and time of change, not by its content.
const HASHED_BYTES_MAX: u64 = 64 << 20;
/// Largest value that is read from a file, in bytes: an environment is small.
const ENV_FILE_BYTES_MAX: u64 = 128 << 10;

/// What a definition is resolved against.
pub struct Surroundings<'a> {
    /// The config file's folder, absolute.
    pub folder: &'a Path,
    /// Biotope's own variables.
    pub variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// Where the config's keys stand.
    pub places: &'a Places,
}

/// Resolves a program worker. Returns how it is started, the files that it is made of, and the hash of its definition.
///
/// # Errors
/// Everything that is missing, each at its place in the config.
pub fn resolve(
    worker_type: &WorkerType,
    exec: &ExecConfig,
    around: &Surroundings<'_>,
) -> Result<(Launch, Files, [u8; 32]), Vec<Problem>> {
    let mut resolving = Resolving::new(around, worker_type);
    let dir = resolving.dir(exec);
    let env = resolving.env(exec, &dir);
    let program = resolving.program(exec, &env);
    let confined = Confined::resolve(&mut resolving, &exec.confinement);
    let watched = resolving.watched(exec);
    let (Some(program), true) = (program, resolving.problems.is_empty()) else { return Err(resolving.problems) };
    let name = exec.argv.first().cloned().unwrap_or_default();
    let args = exec.argv.iter().skip(1).cloned().collect();
    let launch = Launch { program, name, args, env, dir, confined };
    // As they are before they are read: what changes meanwhile is seen as changed.
    let files = Files::new(own_files(&launch), watched.clone());
    let hash = hash(exec, &launch, &watched);
    Ok((launch, files, hash))
}

/// Looks up what a worker's config names, and notes what is missing.
pub(super) struct Resolving<'a> {
    pub(super) around: &'a Surroundings<'a>,
    key: String,
    pub(super) problems: Vec<Problem>,
}

impl<'a> Resolving<'a> {
    pub(super) fn new(around: &'a Surroundings<'a>, worker_type: &WorkerType) -> Self {
        Self { around, key: format!("workers.{worker_type}"), problems: Vec::new() }
    }

    /// Notes a problem at a key of the worker's table.
    pub(super) fn problem(&mut self, key: &str, message: String, help: &str) {
        let key = format!("{}.{key}", self.key);
        self.problems.push(self.around.places.problem(&key, message, Some(help.to_owned())));
    }

    fn dir(&mut self, exec: &ExecConfig) -> PathBuf {
        let dir =
            exec.dir.as_ref().map_or_else(|| self.around.folder.to_path_buf(), |dir| self.around.folder.join(dir));
        if !dir.is_dir() {
            self.problem("dir", format!("the working directory {} is no directory", dir.display()), "create it first");
        }
        dir
    }

    /// The whole environment, in order of name.
    fn env(&mut self, exec: &ExecConfig, dir: &Path) -> Vec<(OsString, OsString)> {
        let mut env = std::collections::BTreeMap::<OsString, OsString>::new();
        env.insert("PATH".into(), PATH.into());
        env.insert("HOME".into(), dir.into());
        env.insert("LANG".into(), "C.UTF-8".into());
        for name in exec.env_pass.iter().map(String::as_str).chain(["TZ"]) {
            if let Some(value) = (self.around.variable)(name) {
                env.insert(name.into(), value);
            }
        }
        for (name, value) in &exec.env {
            let key = format!("env.{name}");
            let value = self.value(&key, value);
            if let Some(value) = value {
                env.insert(name.into(), value);
            }
        }
        env.into_iter().collect()
    }

    /// A value, from where the config says it is; `key` is told where it is not there.
    pub(super) fn value(&mut self, key: &str, value: &EnvValue) -> Option<OsString> {
        match value {
            EnvValue::Text(text) => Some(text.into()),
            EnvValue::From(variable) => {
                let value = (self.around.variable)(variable);
                if value.is_none() {
                    let message = format!("the variable {variable:?} is not set where biotope was started");
                    self.problem(key, message, "set it, or give the value another way");
                }
                value
            }
            EnvValue::File(file) => self.env_file(key, file),
        }
    }

    /// A value out of a file, without the newline at its end.
    fn env_file(&mut self, key: &str, file: &Path) -> Option<OsString> {
        let path = self.around.folder.join(file);
        let bytes = match private::read(&path, ENV_FILE_BYTES_MAX + 1, self.around.variable) {
            Ok(bytes) => bytes,
            Err((message, help)) => {
                self.problem(key, message, &help);
                return None;
            }
        };
        if bytes.len() as u64 > ENV_FILE_BYTES_MAX {
            let message = format!("{} is larger than {ENV_FILE_BYTES_MAX} bytes", path.display());
            self.problem(key, message, "a variable is small: pass the file's path instead");
            return None;
        }
        let Ok(text) = String::from_utf8(bytes) else {
            self.problem(key, format!("{} is no text in UTF-8", path.display()), "pass the file's path instead");
            return None;
        };
        Some(text.strip_suffix('\n').unwrap_or(&text).into())
    }

    /// The files that match `watch`.
    fn watched(&mut self, exec: &ExecConfig) -> Vec<PathBuf> {
        files::matching(self.around.folder, &exec.watch).unwrap_or_else(|why| {
            let help =
                "patterns like \"lib/**/*.py\" are relative to the config file; name what the program is made of";
            self.problem("watch", why, help);
            Vec::new()
        })
    }

    fn program(&mut self, exec: &ExecConfig, env: &[(OsString, OsString)]) -> Option<PathBuf> {
        let name = exec.argv.first()?;
        if name.contains('/') {
            let path = self.around.folder.join(name);
            let why = if path.is_file() {
                (!is_executable(&path)).then_some("is not executable")
            } else {
                Some("is no file")
            };
            if let Some(why) = why {
                let help = "check the path, which is relative to the config file, and chmod +x";
                // Without the dot of "./program".
                let shown: PathBuf = path.components().collect();
                self.problem("exec", format!("{} {why}", shown.display()), help);
                return None;
            }
            return Some(path);
        }
        let search = env.iter().find(|(key, _)| key == "PATH").map(|(_, value)| value.clone()).unwrap_or_default();
        let found = std::env::split_paths(&search).map(|dir| dir.join(name)).find(|path| is_executable(path));
        if found.is_none() {
            let message = format!("no program {name:?} in {}", search.to_string_lossy());
            self.problem("exec", message, "install it, or write its path, like \"./program\"");
        }
        found
    }
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

/// Hash over everything that defines the version.
fn hash(exec: &ExecConfig, launch: &Launch, watched: &[PathBuf]) -> [u8; 32] {
    let mut hasher = Fields::new(b"exec 1");
    hasher.add(match exec.mode {
        ExecMode::PerJob => b"per-job",
        ExecMode::Persistent => b"persistent",
    });
    hasher.add(launch.program.as_os_str().as_bytes());
    // A program that was found by PATH belongs to the machine, and counts by its path.
    if launch.name.contains('/') {
        hasher.add_file(&launch.program);
    }
    for argument in &launch.args {
        hasher.add(argument.as_bytes());
        let path = launch.dir.join(argument);
        if !argument.is_empty() && path.is_file() {
            hasher.add_file(&path);
        }
    }
    hasher.add(launch.dir.as_os_str().as_bytes());
    for (name, value) in &launch.env {
        hasher.add(name.as_bytes());
        hasher.add(value.as_bytes());
    }
    launch.confined.add_to(&mut hasher);
    if !exec.watch.is_empty() {
        hasher.add(b"watch");
    }
    for path in watched {
        hasher.add(path.as_os_str().as_bytes());
        hasher.add_file(path);
    }
    hasher.finish()
}

/// The files whose contents are part of the definition, but for those that are watched.
fn own_files(launch: &Launch) -> Vec<PathBuf> {
    let program = launch.name.contains('/').then(|| launch.program.clone());
    let arguments =
        launch.args.iter().filter(|argument| !argument.is_empty()).map(|argument| launch.dir.join(argument));
    program.into_iter().chain(arguments.filter(|path| path.is_file())).collect()
}

/// Hash of the definition of a worker in this program, by its name and the tag that stands for its code.
pub fn native_hash(worker_type: &WorkerType, tag: &str) -> [u8; 32] {
    let mut hasher = Fields::new(b"native 1");
    hasher.add(worker_type.as_str().as_bytes());
    hasher.add(tag.as_bytes());
    hasher.finish()
}

/// Fields, each with its length in front, so that no two lists of them look alike.
pub(super) struct Fields(Sha256);

impl Fields {
    /// Begins with the kind of the worker.
    pub(super) fn new(kind: &[u8]) -> Self {
        let mut fields = Self(Sha256::new());
        fields.add(kind);
        fields
    }

    pub(super) fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }

    pub(super) fn add(&mut self, field: &[u8]) {
        self.0.update((field.len() as u64).to_le_bytes());
        self.0.update(field);
    }

    pub(super) fn add_file(&mut self, path: &Path) {
        let Ok(mut file) = std::fs::File::open(path) else { return self.add(b"unreadable") };
        let Ok(metadata) = file.metadata() else { return self.add(b"unreadable") };
        if metadata.len() > HASHED_BYTES_MAX {
            use std::os::unix::fs::MetadataExt;
            return self.add(format!("{} {} {}", metadata.len(), metadata.mtime(), metadata.mtime_nsec()).as_bytes());
        }
        let mut inner = Sha256::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => inner.update(buffer.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return self.add(b"unreadable"),
            }
        }
        self.add(&inner.finalize());
    }
}
