//! Files that hold a secret: a token, a value of a worker's environment, a key to sign by.
//!
//! Owns whose such a file may be, and who else may read it. A file must be its owner's alone, and its owner this process's user,
//! or root. Of the credentials that systemd lays down for a service, the bits of the group are the mask of an access list that
//! names the service's user: they may be read. What stands in a file is never told.

use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Where systemd lays credentials down, a folder for each service; nobody but root makes any there.
const CREDENTIALS: &str = "/run/credentials";

/// Reads a secret's file, `bytes_max` bytes of it at most.
///
/// # Errors
/// What is wrong, and what to do.
pub(crate) fn read(
    path: &Path,
    bytes_max: u64,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Vec<u8>, (String, String)> {
    let name = path.display();
    let unreadable = |error: std::io::Error| {
        let remedy = if error.kind() == ErrorKind::NotFound && path.starts_with(CREDENTIALS) {
            "it is there while the service runs, where its unit has LoadCredential= for it: start that first, or name a \
             file of the service's user"
        } else {
            "create it, or mend its mode"
        };
        (format!("{name} cannot be read: {error}"), remedy.to_owned())
    };
    let file = File::open(path).map_err(unreadable)?;
    let about = file.metadata().map_err(unreadable)?;
    let open = if is_credential(path, variable) && about.uid() == 0 { 0o037 } else { 0o077 };
    if about.mode() & open != 0 {
        let message = format!("{name} is open to others (mode {:o})", about.mode() & 0o777);
        return Err((message, format!("chmod 600 {name}, and replace what it holds: it may have been read")));
    }
    let own = rustix::process::geteuid().as_raw();
    if about.uid() != own && about.uid() != 0 {
        let user = about.uid();
        let message = format!("{name} belongs to user {user}, who can change it");
        return Err((
            message,
            format!("be that user (sudo -u '#{user}' biotope …), or chown it to your own, or to root"),
        ));
    }
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

fn is_credential(path: &Path, variable: &dyn Fn(&str) -> Option<OsString>) -> bool {
    let named = variable("CREDENTIALS_DIRECTORY").filter(|dir| !dir.is_empty());
    path.starts_with(CREDENTIALS) || named.is_some_and(|dir| path.parent() == Some(Path::new(&dir)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_credential_of_root_may_be_read_by_the_group_of_its_access_list() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.token");
        std::fs::write(&path, "0123456789abcdef\n").unwrap();
        let roots = std::fs::metadata(&path).unwrap().uid() == 0;
        let there = dir.path().as_os_str().to_owned();
        let set = move |name: &str| (name == "CREDENTIALS_DIRECTORY").then(|| there.clone());
        for (mode, passes) in [(0o400, true), (0o440, roots), (0o444, false), (0o460, false), (0o404, false)] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            assert_eq!(read(&path, 100, &set).is_ok(), passes, "{mode:o}");
            assert_eq!(read(&path, 100, &|_| None).is_ok(), mode == 0o400, "{mode:o}: no credential");
        }
        let none = |_: &str| None;
        assert!(
            is_credential(Path::new("/run/credentials/biotope.service/admin.token"), &none),
            "also for who asks it"
        );
        assert!(!is_credential(Path::new("/run/credentialsof/admin.token"), &none));
        let (message, remedy) = read(Path::new("/run/credentials/none.service/admin.token"), 100, &none).unwrap_err();
        assert!(message.contains("cannot be read") && remedy.contains("LoadCredential="), "{message}: {remedy}");
    }

    #[test]
    fn who_may_show_a_file_of_another_user_is_told() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED who_may_show_a_file_of_another_user_is_told: only root can give a file away");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.token");
        std::fs::write(&path, "0123456789abcdef\n").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        std::os::unix::fs::chown(&path, Some(4711), None).unwrap();
        let (message, remedy) = read(&path, 100, &|_| None).unwrap_err();
        assert!(message.contains("belongs to user 4711") && remedy.contains("sudo -u '#4711' biotope"), "{remedy}");
    }
}
