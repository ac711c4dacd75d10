//! What is left of a home whose test fails: a copy of it that outlives the test, and what `biotope log verify` says of it.
//!
//! Whether the bytes on the disk are wrong, or only what was read of them, cannot be asked any more once they are gone.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::binary;
use crate::support::{Home, shown, tell};

/// What is copied of a home, where it is there; of a disk of its own what lies on it, not its image.
const KEPT: [&str; 3] = ["data", "biotope.toml", "stderr.txt"];

/// Where what is left of a home goes: beside it, once.
fn place(home: &Home) -> Option<PathBuf> {
    let dir = home.path(".").canonicalize().ok()?;
    let name = dir.file_name()?.to_str()?.trim_start_matches('.');
    Some(dir.with_file_name(format!("failed-{name}")))
}

/// Keeps what is left of a home, and of its history, if the test is failing. Nothing may be at work in it any more.
pub(crate) fn keep(home: &Home, history: Option<&Path>) {
    let Some(place) = place(home).filter(|_| std::thread::panicking()) else { return };
    if std::fs::create_dir(&place).is_ok() {
        let what = KEPT.iter().map(|name| home.path(name)).filter(|path| path.exists());
        let copied = Command::new("cp").arg("-a").args(what).arg(&place).output();
        let log = place.join("data/log");
        let said = if log.is_dir() {
            let verify = Command::new(binary()).args(["log", "verify"]).arg(place.join("data")).output();
            verify.map_or_else(|error| error.to_string(), |output| shown(&output))
        } else {
            copied.map_or_else(|error| error.to_string(), |output| shown(&output))
        };
        tell(&format!("--- what is left is in {}; log verify: {said}", place.display()));
    }
    if let Some(history) = history {
        drop(std::fs::copy(history, place.join("history.ndjson")));
    }
}
