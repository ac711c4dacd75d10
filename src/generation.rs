//! From a config file to a [`GenerationSpec`]: parsed, resolved against the machine, with a factory for each version.
//!
//! Reads files and variables; starts nothing. All problems at once, as the config's parser does.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::access;
use crate::config::{self, Draft, KindConfig, Problem, Problems, WorkerConfig, units};
use crate::engine::{GenerationSpec, Resolver, VersionSpec};
use crate::limits::CONFIG_BYTES_MAX;
use crate::worker::WorkerFactory;
use crate::worker::definition::{self, Surroundings};
use crate::worker::exec::ExecFactory;
use crate::worker::launch::OutputLimits;
use crate::worker::native::Natives;
use crate::worker::persistent::PersistentFactory;

/// What messages call the text of a config that was accepted.
const ACCEPTED: &str = "the last accepted config";

/// Why a config was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be read.
    #[error("cannot read the config {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// It did not pass.
    #[error("{0}")]
    Invalid(Problems),
}

/// Reads and checks a config file, and all that it names.
///
/// # Errors
/// See [`LoadError`].
pub fn load(path: &Path, natives: &Natives) -> Result<GenerationSpec, LoadError> {
    let read_error = |source| LoadError::Read { path: path.to_path_buf(), source };
    if std::fs::metadata(path).map_err(read_error)?.len() > CONFIG_BYTES_MAX as u64 {
        let most = units::show_size(CONFIG_BYTES_MAX as u64);
        return Err(read_error(io::Error::other(format!("it is larger than {most}, the most that a config may have"))));
    }
    let text = std::fs::read_to_string(path).map_err(read_error)?;
    from_text(&path.display().to_string(), &text, &folder_of(path).map_err(read_error)?, natives)
}

/// The folder that a config's paths are relative to.
///
/// # Errors
/// The folder that this process runs in cannot be found.
pub fn folder_of(path: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    Ok(absolute.parent().unwrap_or(Path::new("/")).to_path_buf())
}

/// Makes of the text of a config that was accepted what it asks for, as if it stood in this folder.
pub fn resolver(folder: PathBuf, natives: Natives) -> Resolver {
    Arc::new(move |text| from_text(ACCEPTED, text, &folder, &natives).map_err(|error| error.to_string()))
}

/// Checks a config's text, and all that it names, as if it stood in this folder; `file` is what messages call it.
///
/// # Errors
/// `Invalid`.
pub fn from_text(file: &str, text: &str, folder: &Path, natives: &Natives) -> Result<GenerationSpec, LoadError> {
    let mut draft = config::draft(file, text, &natives.names()).map_err(LoadError::Invalid)?;
    draft.config.data_dir = folder.join(&draft.config.data_dir);
    resolve(draft, text, folder, natives)
}

/// Looks up what the config names, even if something else is wrong with it: people mend everything in one go.
fn resolve(draft: Draft, text: &str, folder: &Path, natives: &Natives) -> Result<GenerationSpec, LoadError> {
    let Draft { config, places, mut problems } = draft;
    let variable = |name: &str| std::env::var_os(name);
    let around = Surroundings { folder, variable: &variable, places: &places };
    let limits = OutputLimits { result_max: config.log.result_max, payload_max: config.log.payload_max };
    let mut versions = Vec::new();
    for worker in &config.workers {
        match version(worker, &around, limits, natives) {
            Ok(version) => versions.push(version),
            Err(found) => problems.extend(found),
        }
    }
    let access = access::resolve(&config, &around).map_err(|found| problems.extend(found));
    match access {
        Ok(access) if problems.is_empty() => {
            Ok(GenerationSpec { config, versions, text: text.into(), access: Arc::new(access) })
        }
        Ok(_) | Err(()) => Err(LoadError::Invalid(places.problems(problems))),
    }
}

fn version(
    worker: &WorkerConfig,
    around: &Surroundings<'_>,
    limits: OutputLimits,
    natives: &Natives,
) -> Result<VersionSpec, Vec<Problem>> {
    let (factory, definition_hash): (Arc<dyn WorkerFactory>, _) = match &worker.kind {
        KindConfig::Native => {
            let Some((factory, tag)) = natives.get(worker.worker_type.as_str()) else {
                let message = format!("biotope has no worker {}", worker.worker_type);
                return Err(vec![around.places.problem(&format!("workers.{}", worker.worker_type), message, None)]);
            };
            (factory, definition::native_hash(&worker.worker_type, &tag))
        }
        #[cfg(feature = "daemon")]
        KindConfig::Http(http) => {
            let (factory, hash) = crate::worker::http::definition::resolve(&worker.worker_type, http, around, limits)?;
            (Arc::new(factory), hash)
        }
        #[cfg(not(feature = "daemon"))]
        KindConfig::Http(_) => {
            let key = format!("workers.{}.http", worker.worker_type);
            let help = "build biotope with its feature `daemon`".to_owned();
            return Err(vec![around.places.problem(&key, "this program calls no services".to_owned(), Some(help))]);
        }
        KindConfig::Exec(exec) => {
            let (launch, files, hash) = definition::resolve(&worker.worker_type, exec, around)?;
            match exec.mode {
                config::ExecMode::PerJob => {
                    (Arc::new(ExecFactory::new(launch, limits, natives.spawner().clone()).of(files)), hash)
                }
                config::ExecMode::Persistent => {
                    let factory = PersistentFactory::new(
                        launch,
                        limits,
                        natives.spawner().clone(),
                        &worker.worker_type,
                        &worker.version,
                    );
                    (Arc::new(factory.of(files)), hash)
                }
            }
        }
    };
    Ok(VersionSpec { worker: worker.clone(), definition_hash, factory })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const CONFIG: &str = "
[workers.shout]
version = \"v1\"
exec = [\"./shout.sh\", \"words.txt\"]
env = { KEY = { file = \"key\" } }

[workers.other]
version = \"v1\"
exec = [\"sh\", \"-c\", \"true\"]
";

    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("b.toml", CONFIG), ("shout.sh", "#!/bin/sh\n"), ("words.txt", "a\n"), ("key", "1\n")] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        for (name, mode) in [("shout.sh", 0o755), ("key", 0o600)] {
            std::fs::set_permissions(dir.path().join(name), PermissionsExt::from_mode(mode)).unwrap();
        }
        dir
    }

    #[test]
    fn a_secret_that_others_may_read_is_refused() {
        let dir = folder();
        std::fs::set_permissions(dir.path().join("key"), PermissionsExt::from_mode(0o640)).unwrap();
        let Err(LoadError::Invalid(problems)) = load(&dir.path().join("b.toml"), &Natives::none()) else { panic!() };
        assert!(
            problems.list.len() == 1 && problems.to_string().contains("is open to others (mode 640)"),
            "{problems}"
        );
    }

    fn hash(dir: &Path, name: &str) -> [u8; 32] {
        let spec = load(&dir.join("b.toml"), &Natives::none()).unwrap();
        spec.versions.into_iter().find(|v| v.worker.worker_type.as_str() == name).unwrap().definition_hash
    }

    #[test]
    fn a_definition_changes_with_the_program_its_files_and_its_values_and_with_nothing_else() {
        let dir = folder();
        let dir = dir.path();
        let first = hash(dir, "shout");
        assert_eq!(first, hash(dir, "shout"));
        let mut seen = vec![first];
        for (name, text) in [("shout.sh", "#!/bin/sh\n:\n"), ("words.txt", "b\n"), ("key", "2\n")] {
            std::fs::write(dir.join(name), text).unwrap();
            let changed = hash(dir, "shout");
            assert!(!seen.contains(&changed), "{name}");
            seen.push(changed);
        }
        std::fs::write(dir.join("b.toml"), CONFIG.replace("[\"./shout.sh\"", "[\"./shout.sh\", \"-v\"")).unwrap();
        assert!(!seen.contains(&hash(dir, "shout")));
        let live = CONFIG.replace("version = \"v1\"", "version = \"v1\"\ntimeout = \"9s\"");
        std::fs::write(dir.join("b.toml"), live).unwrap();
        assert_eq!(seen.last(), Some(&hash(dir, "shout")), "a live key is no part of it");
    }

    #[test]
    fn what_is_missing_is_named_at_its_place_all_at_once() {
        let dir = folder();
        std::fs::remove_file(dir.path().join("shout.sh")).unwrap();
        std::fs::remove_file(dir.path().join("key")).unwrap();
        let text = CONFIG.replace("\"sh\"", "\"no-such-program\"") + "concurency = 2\n";
        std::fs::write(dir.path().join("b.toml"), text).unwrap();
        let Err(LoadError::Invalid(problems)) = load(&dir.path().join("b.toml"), &Natives::none()) else { panic!() };
        let lines: Vec<usize> = problems.list.iter().map(|problem| problems.line_and_column(problem).0).collect();
        assert_eq!(lines, [4, 5, 9, 10], "what is missing and what is misspelt: {problems}");
    }

    #[cfg(feature = "daemon")]
    #[test]
    fn a_services_definition_changes_with_its_url_its_secret_and_its_headers_and_with_no_deadline() {
        const SERVICE: &str = "
[workers.notify]
version = \"v1\"
http = \"https://example.com/a\"
secret = { file = \"secret\" }
headers = { Authorization = { file = \"token\" }, X-A = \"a\" }
";
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).unwrap();
        write("b.toml", SERVICE);
        write("token", "one\n");
        write("secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n");
        for name in ["token", "secret"] {
            std::fs::set_permissions(dir.join(name), PermissionsExt::from_mode(0o600)).unwrap();
        }
        let mut seen = vec![hash(dir, "notify")];
        write("secret", "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n");
        seen.push(hash(dir, "notify"));
        write("token", "two\n");
        seen.push(hash(dir, "notify"));
        for (from, to) in [
            ("/a", "/b"),
            ("https:", "http:"),
            ("X-A", "X-B"),
            ("\"a\"", "\"b\""),
            ("version", "allow_private = true\nversion"),
        ] {
            write("b.toml", &SERVICE.replace(from, to));
            seen.push(hash(dir, "notify"));
        }
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count, "each is a version of its own");
        write("b.toml", &format!("{SERVICE}connect_timeout = \"1s\"\nfirst_byte_timeout = \"1s\"\ntimeout = \"9s\"\n"));
        assert!(seen.contains(&hash(dir, "notify")), "a live key is no part of it");
        write("b.toml", &SERVICE.replace("version", "ca = \"token\"\nversion").replace("\"secret\"", "\"token\""));
        std::fs::write(dir.join("token"), "a\nb\n").unwrap();
        let Err(LoadError::Invalid(problems)) = load(&dir.join("b.toml"), &Natives::none()) else { panic!() };
        let lines: Vec<usize> = problems.list.iter().map(|problem| problems.line_and_column(problem).0).collect();
        assert_eq!(lines, [3, 6, 7], "authority, secret and header: {problems}");
    }
}
