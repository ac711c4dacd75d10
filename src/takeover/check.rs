//! Whether another file of the program can take over: it is asked itself, while this one serves on.
//!
//! Owns both ends: how the new file is run (`biotope takeover-check`, bounded in time and in what it says), and how it
//! answers. The answer changes nothing on disk, and takes no lock. Only what is a program of the machine's own kind is
//! asked: a script could answer, and yet not bring this program back should it fail later.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::environment;
use crate::config::units;
use crate::exit::{CONFIG, Failure};
use crate::log::FORMAT;
use crate::refusal::Refusal;
use crate::worker::launch::Launch;
use crate::worker::native::Natives;
use crate::worker::once::{Ran, run_once};

/// How long the new file may take to look at everything.
const CHECK_MAX: Duration = Duration::from_secs(60);
/// Bytes of its answer.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// What a program of this machine's kind begins with.
const ELF: [u8; 4] = *b"\x7fELF";

/// What a successor must fit.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The file that the program was started from, which may be another one by now.
    pub(crate) program: PathBuf,
    /// The config file.
    pub(crate) config: PathBuf,
    /// Whose lock is handed over.
    pub(crate) data_dir: PathBuf,
    /// Whose listener is handed over.
    pub(crate) listen: SocketAddr,
}

/// What the new file says of itself.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    /// Its version.
    pub(super) version: String,
    /// Formats of the log that it can write before it is settled, and be gone back from.
    pub(super) log_formats: Vec<u16>,
    /// The data directory of its config.
    pub(super) data_dir: PathBuf,
    /// The address of its config.
    pub(super) listen: SocketAddr,
    /// Jobs that it found alive in the log.
    pub(super) live_jobs: u64,
}

/// A file that can take over.
#[derive(Debug)]
pub(crate) struct Checked {
    /// The very file that was asked.
    pub(super) file: File,
    /// Its version.
    pub(crate) version: String,
}

/// Asks the new file whether it can take over.
///
/// # Errors
/// Why not, in one line or more: `NeedsRestart` where a stop and a start would do, else `UpgradeRefused`.
pub(super) fn ask(place: &Place) -> Result<Checked, Refusal> {
    let refused = |detail| Refusal::UpgradeRefused { detail };
    let name = place.program.display();
    // A pipe in its place must not be waited for.
    let mut how = OpenOptions::new();
    how.read(true).custom_flags(libc::O_NONBLOCK);
    let mut file = how.open(&place.program).map_err(|error| refused(format!("cannot read {name}: {error}")))?;
    let mut first = [0; ELF.len()];
    if file.read_exact(&mut first).is_err() || first != ELF {
        return Err(refused(format!("{name} is no program of this machine's own kind (ELF)")));
    }
    let identity = |file: io::Result<std::fs::Metadata>| {
        file.map(|of| (of.dev(), of.ino(), of.size(), of.mtime(), of.mtime_nsec())).ok()
    };
    let before = identity(file.metadata());
    let ran = run_once(&launch(place).map_err(refused)?, ANSWER_BYTES_MAX, CHECK_MAX)
        .map_err(|error| refused(format!("{name} cannot be started: {error}")))?;
    let answer = answer_of(&ran).map_err(refused)?;
    fits(&answer, place).map_err(|detail| Refusal::NeedsRestart { detail })?;
    if before.is_none() || identity(std::fs::metadata(&place.program)) != before {
        return Err(refused(format!("{name} was replaced again while it was looked at; try again")));
    }
    Ok(Checked { file, version: answer.version })
}

fn launch(place: &Place) -> Result<Launch, String> {
    let config = place.config.to_str().ok_or("the config's path is no UTF-8 text")?;
    let mut env = environment::of_a_child();
    env.sort();
    Ok(Launch {
        program: place.program.clone(),
        name: "biotope".to_owned(),
        args: ["--config", config, "takeover-check"].map(str::to_owned).to_vec(),
        env,
        dir: std::env::current_dir().map_err(|error| format!("cannot tell the working directory: {error}"))?,
        confined: Default::default(),
    })
}

fn answer_of(ran: &Ran) -> Result<Answer, String> {
    let said = ran.stderr.trim();
    let with_words = |what: String| if said.is_empty() { what } else { format!("{what}: {said}") };
    if ran.late {
        return Err(with_words(format!("its takeover-check did not end within {}", units::show_duration(CHECK_MAX))));
    }
    if ran.code != Some(0) {
        return Err(with_words(format!("its takeover-check {}", ran.ended)));
    }
    serde_json::from_slice(&ran.stdout)
        .map_err(|_| with_words("its takeover-check did not answer as a biotope does".to_owned()))
}

/// Whether what is handed over is what the new file needs, and whether it can be gone back from.
fn fits(answer: &Answer, place: &Place) -> Result<(), String> {
    if !answer.log_formats.contains(&FORMAT) {
        let formats: Vec<_> = answer.log_formats.iter().map(u16::to_string).collect();
        return Err(format!(
            "it writes the log in format {}, and this program reads format {FORMAT}: there would be no way back. Stop biotope and start it again instead",
            formats.join(", ")
        ));
    }
    for (key, same) in [("data_dir", answer.data_dir == place.data_dir), ("http.listen", answer.listen == place.listen)]
    {
        if !same {
            return Err(format!("`{key}` of the config is not what it was: stop biotope and start it again instead"));
        }
    }
    Ok(())
}

/// What this program answers when it is the new file: whether the config passes, and the log can be read.
///
/// # Errors
/// Why it could not take over.
pub(crate) fn answer(config: &Path, natives: &Natives) -> Result<String, Failure> {
    let spec = crate::generation::load(config, natives).map_err(|error| Failure::new(CONFIG, error.to_string()))?;
    let data_dir = spec.config.data_dir;
    let seen = crate::engine::rehearse(&data_dir).map_err(|error| Failure::new(error.exit_code(), error.in_full()))?;
    let answer = Answer {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        log_formats: vec![FORMAT],
        data_dir,
        listen: spec.config.listen,
        live_jobs: seen.live_jobs,
    };
    serde_json::to_string(&answer).map_err(|error| Failure::new(crate::exit::BUG, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place {
            program: "/bin/biotope".into(),
            config: "/etc/biotope.toml".into(),
            data_dir: "/data".into(),
            listen: ([127, 0, 0, 1], 7420).into(),
        }
    }

    fn answered() -> Answer {
        let Place { data_dir, listen, .. } = place();
        Answer { version: "2.0.0".to_owned(), log_formats: vec![FORMAT, FORMAT + 1], data_dir, listen, live_jobs: 0 }
    }

    #[test]
    fn a_successor_must_fit_what_is_handed_over_and_be_gone_back_from() {
        assert_eq!(fits(&answered(), &place()), Ok(()));
        let elsewhere = Answer { data_dir: "/other".into(), ..answered() };
        assert!(fits(&elsewhere, &place()).unwrap_err().starts_with("`data_dir` "));
        let other_port = Answer { listen: ([127, 0, 0, 1], 7421).into(), ..answered() };
        assert!(fits(&other_port, &place()).unwrap_err().starts_with("`http.listen` "));
        let newer = Answer { log_formats: vec![FORMAT + 1], ..answered() };
        assert!(fits(&newer, &place()).unwrap_err().contains("no way back"));
    }

    #[test]
    fn only_a_good_answer_is_one() {
        let ran = |code, stdout: &str, stderr: &str| Ran {
            code,
            ended: code.map_or("was killed by signal 9".to_owned(), |code| format!("exited with code {code}")),
            stdout: stdout.as_bytes().to_vec(),
            stderr: stderr.to_owned(),
            late: false,
        };
        let good = serde_json::to_string(&answered()).unwrap();
        assert_eq!(answer_of(&ran(Some(0), &good, "")), Ok(answered()));
        assert_eq!(
            answer_of(&ran(Some(78), "", "no such key\n")).unwrap_err(),
            "its takeover-check exited with code 78: no such key"
        );
        assert_eq!(answer_of(&ran(None, &good, "")).unwrap_err(), "its takeover-check was killed by signal 9");
        for garbage in ["", "hello\n", "{}", "[1]"] {
            let why = answer_of(&ran(Some(0), garbage, "")).unwrap_err();
            assert_eq!(why, "its takeover-check did not answer as a biotope does");
        }
        let late = Ran { late: true, ..ran(None, &good, "") };
        assert!(answer_of(&late).unwrap_err().contains("within"));
    }
}
