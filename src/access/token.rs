//! Tokens as they lie in files, which must be private, and in variables.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::Hash;
use crate::config::EnvValue;
use crate::private;

/// Shortest token, in bytes: what is drawn at random from so many characters is not guessed.
const TOKEN_BYTES_MIN: usize = 16;
/// Longest token, in bytes.
const TOKEN_BYTES_MAX: usize = 512;

/// Reads a token from where the config says it is, relative to the config's folder.
///
/// # Errors
/// What is wrong, and what to do.
pub fn read_token(
    place: &EnvValue,
    folder: &Path,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Vec<u8>, (String, String)> {
    const MAKE: &str = "make one: (umask 077; head -c 32 /dev/urandom | base64 >admin.token)";
    let (token, from) = match place {
        EnvValue::Text(_) => return Err(("a token must not stand in the config itself".to_owned(), MAKE.to_owned())),
        EnvValue::From(name) => {
            let value = variable(name).ok_or_else(|| {
                (
                    format!("the variable {name:?} is not set where biotope was started"),
                    "set it, or name a file".to_owned(),
                )
            })?;
            (value.into_vec(), format!("the variable {name:?}"))
        }
        EnvValue::File(path) => {
            let path = folder.join(path);
            (private::read(&path, TOKEN_BYTES_MAX as u64 * 2, variable)?, path.display().to_string())
        }
    };
    let token = token.trim_ascii().to_vec();
    let plain = token.iter().all(u8::is_ascii_graphic);
    if !plain || !(TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token.len()) {
        let message = format!(
            "{from} holds no token: {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} letters, digits and signs, on one line"
        );
        return Err((message, MAKE.to_owned()));
    }
    Ok(token)
}

/// What stands in for a token. Tokens are random and long, so that a plain hash of one is not undone.
pub(super) fn hash(token: &[u8]) -> Hash {
    Sha256::digest(token).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_that_others_may_read_holds_no_token() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.token");
        std::fs::write(&path, "0123456789abcdef\n").unwrap();
        let place = EnvValue::File("admin.token".into());
        let read = || read_token(&place, dir.path(), &|_| None);
        for (mode, passes) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o620, false)] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            assert_eq!(read().is_ok(), passes, "{mode:o}");
        }
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(read().unwrap(), b"0123456789abcdef");
        for bad in ["", "short", "with a blank in it", "zwölf Zeichen und mehr", &"x".repeat(600)] {
            std::fs::write(&path, bad).unwrap();
            let (message, _) = read().unwrap_err();
            assert!(!message.contains("Zeichen"), "what was read is not told: {message}");
        }
    }

    #[test]
    fn a_variable_holds_one_as_well() {
        let set = |name: &str| (name == "TOKEN").then(|| OsString::from("0123456789abcdef"));
        let read = |name: &str| read_token(&EnvValue::From(name.to_owned()), Path::new("/"), &set);
        assert_eq!(read("TOKEN").unwrap(), b"0123456789abcdef");
        assert!(read("OTHER").unwrap_err().0.contains("not set"));
    }
}
