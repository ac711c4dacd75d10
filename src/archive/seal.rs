//! What a directory of the index was like when it was closed: damage done since is known before the database is opened.
//!
//! The database finds torn and foreign bytes by its own checksums, but goes on with an older page where a newer one cannot
//! be read: its answers would be wrong without a word. The seal lies beside the directory, and is gone while that is open.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use super::slice::Trouble;

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 256 << 10;
/// How a seal's file ends.
const ENDING: &str = "seal";

/// Whether this is a seal, and no directory.
pub(super) fn is_seal(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == ENDING)
}

/// Seals a directory that nobody has open. When it returns, the seal is on stable storage, or there is none.
pub(super) fn write(dir: &Path) -> io::Result<()> {
    let (text, seal) = (picture(dir)?, dir.with_extension(ENDING));
    let written = File::create(&seal).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.inspect_err(|_| drop(std::fs::remove_file(&seal)))
}

/// Breaks a seal; the caller syncs the directory in which it lies.
///
/// # Errors
/// `Unusable` if what it seals is not as it was.
pub(super) fn open(seal: &Path) -> Result<(), Trouble> {
    let dir = seal.with_extension("");
    let is_whole = dir.is_dir() && std::fs::read(seal)? == picture(&dir)?.as_bytes();
    if !is_whole {
        return Err(Trouble::Unusable(format!("{} is not as it was left", dir.display())));
    }
    Ok(std::fs::remove_file(seal)?)
}

/// Every file below: checksum, bytes, name.
fn picture(dir: &Path) -> io::Result<String> {
    let mut files = Vec::new();
    list(dir, &mut files)?;
    files.sort();
    let (mut text, mut chunk) = (String::new(), vec![0; CHUNK_BYTES]);
    for path in files {
        let mut file = File::open(&path)?;
        let (mut crc, mut bytes) = (crc32fast::Hasher::new(), 0);
        loop {
            let read = file.read(&mut chunk)?;
            let Some(part) = chunk.get(..read).filter(|part| !part.is_empty()) else { break };
            crc.update(part);
            bytes += read;
        }
        // Names are the database's own, and ASCII.
        let name = path.strip_prefix(dir).unwrap_or(&path).display();
        let _: std::fmt::Result = writeln!(text, "{:08x} {bytes} {name}", crc.finalize());
    }
    Ok(text)
}

fn list(dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            list(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}
