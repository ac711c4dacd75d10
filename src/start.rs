//! The config that a process starts with: that of its file, or, where that one does not pass, the last one that did.
//!
//! Reads the file, and where need be the log of the directory that it names; changes nothing. What ran before runs only
//! where it is certain that it is what ran here: the file must be readable, the directory that it names must be known in
//! spite of its mistakes, and the config that was accepted there must name the same directory.

use std::path::{Path, PathBuf};

use crate::care::{Source, last_config};
use crate::config::{Config, data_dir_of};
use crate::engine::GenerationSpec;
use crate::exit::{CONFIG, Failure};
use crate::generation::{self, LoadError};
use crate::worker::native::Natives;

/// The config that a process starts with.
pub(crate) struct Starting {
    /// What runs.
    pub(crate) spec: GenerationSpec,
    /// Why that is not what the file says, if it is not.
    pub(crate) instead: Option<Instead>,
}

/// A config that runs in place of the file's.
pub(crate) struct Instead {
    /// Number of its generation.
    pub(crate) number: u64,
    /// What is wrong with the file.
    pub(crate) error: String,
}

/// Finds the config to start with; `strict`: that of the file, or none.
///
/// # Errors
/// The file's does not pass, and there is none that ran before, or it cannot be known or made any more.
pub(crate) fn config(path: &Path, natives: &Natives, strict: bool) -> Result<Starting, Failure> {
    let problems = match generation::load(path, natives) {
        Ok(spec) => return Ok(Starting { spec, instead: None }),
        Err(LoadError::Invalid(problems)) if !strict => problems,
        Err(error) => return Err(Failure::new(CONFIG, error.to_string())),
    };
    let error = problems.to_string();
    match accepted(path, &problems.text, natives) {
        Ok(Some((number, spec))) => Ok(Starting { spec, instead: Some(Instead { number, error }) }),
        Ok(None) => Err(Failure::new(CONFIG, error)),
        Err(why) => {
            let message =
                format!("{}\n\nThe last config that was accepted does not run either: {why}", error.trim_end());
            Err(Failure::new(CONFIG, message))
        }
    }
}

/// Finds the config for a program that goes on where it ran a moment ago: the file's, if it passes and `fits`; else the last one
/// that was accepted in `data_dir`, whatever has become of the file.
///
/// # Errors
/// Neither can be had.
pub(crate) fn as_before(
    path: &Path,
    natives: &Natives,
    data_dir: &Path,
    fits: impl Fn(&Config) -> bool,
) -> Result<Starting, Failure> {
    let error = match config(path, natives, false) {
        Ok(starting) if fits(&starting.spec.config) => return Ok(starting),
        Ok(_) => "`data_dir` or `http.listen` of the config is not what it was".to_owned(),
        Err(failure) => failure.message,
    };
    let ran = || {
        let folder = generation::folder_of(path).map_err(|error| error.to_string())?;
        let source = Source::open(data_dir).map_err(|error| error.to_string())?;
        let last = last_config(&source).map_err(|error| error.to_string())?;
        let (number, text) = last.ok_or("the log does not know its text")?;
        Ok((number, generation::resolver(folder, natives.clone())(&text)?))
    };
    match ran() {
        Ok((number, spec)) => Ok(Starting { spec, instead: Some(Instead { number, error }) }),
        Err::<_, String>(why) => {
            Err(Failure::new(CONFIG, format!("{error}\nThe config that ran before does not run either: {why}")))
        }
    }
}

/// The last accepted config of the directory that this text names; `None` where nothing ran there yet.
fn accepted(path: &Path, text: &str, natives: &Natives) -> Result<Option<(u64, GenerationSpec)>, String> {
    let folder = generation::folder_of(path).map_err(|error| error.to_string())?;
    let dir = data_dir_of(text).ok_or("which data directory is meant cannot be read from the file as it is")?;
    let dir = folder.join(dir);
    if !dir.join("log").is_dir() {
        return Ok(None);
    }
    let source = Source::open(&dir).map_err(|error| error.to_string())?;
    let Some((number, text)) = last_config(&source).map_err(|error| error.to_string())? else {
        return Err(format!("the log in {} does not know its text", dir.display()));
    };
    let spec = generation::resolver(folder, natives.clone())(&text)?;
    if same_place(&spec.config.data_dir, &dir) {
        return Ok(Some((number, spec)));
    }
    let (of, dir) = (spec.config.data_dir.display(), dir.display());
    Err(format!("the one that the log in {dir} knows is of the data directory {of}"))
}

fn same_place(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| -> Option<PathBuf> { std::fs::canonicalize(path).ok() };
    real(one).is_some_and(|one| Some(one) == real(other))
}
