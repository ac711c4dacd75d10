//! What of this process's environment others see: the new file while it is asked, and the image that takes this one's place.
//!
//! Owns the names of what a service manager sets for the process that it starts, and for nobody below it. Workers, and the
//! helper that starts them, inherit nothing anyhow.

use std::ffi::{OsStr, OsString};

/// Says to the next image where its table is.
pub(super) const VARIABLE: &str = "BIOTOPE_TAKEOVER";
/// Where the process tells how it does, and how often it must.
const NOTIFIED: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];
/// Sockets that were handed over when the process began: another image gets them by the table.
const HANDED_OVER: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// The environment of a program that is a child of this process.
pub(super) fn of_a_child() -> Vec<(OsString, OsString)> {
    without(|name| is_one_of(name, &NOTIFIED) || is_one_of(name, &HANDED_OVER))
}

/// The environment of an image that takes this one's place, but for the table.
pub(super) fn of_an_image() -> Vec<(OsString, OsString)> {
    without(|name| is_one_of(name, &HANDED_OVER))
}

fn without(left_out: impl Fn(&OsStr) -> bool) -> Vec<(OsString, OsString)> {
    std::env::vars_os().filter(|(name, _)| name != VARIABLE && !left_out(name)).collect()
}

fn is_one_of(name: &OsStr, names: &[&str]) -> bool {
    names.iter().any(|one| name == *one)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs this test again in a process with such an environment, and has it say what others would see.
    #[test]
    fn an_image_hears_of_the_manager_and_a_child_of_nothing() {
        const SAYS: &str = "BIOTOPE_TEST_SAYS_ENVIRONMENT";
        if std::env::var_os(SAYS).is_some() {
            let names = |env: Vec<(OsString, OsString)>| -> Vec<String> {
                env.into_iter().filter_map(|(name, _)| name.into_string().ok()).collect()
            };
            let (child, image) = (names(of_a_child()), names(of_an_image()));
            for name in NOTIFIED {
                assert!(image.iter().any(|one| one == name) && !child.iter().any(|one| one == name), "{name}");
            }
            for name in HANDED_OVER.into_iter().chain([VARIABLE]) {
                assert!(!image.iter().chain(&child).any(|one| one == name), "{name}");
            }
            assert!(child.iter().any(|one| one == SAYS), "all else is there");
            return;
        }
        let test = "takeover::environment::tests::an_image_hears_of_the_manager_and_a_child_of_nothing";
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", test]).env(SAYS, "1");
        for name in NOTIFIED.into_iter().chain(HANDED_OVER).chain([VARIABLE]) {
            again.env(name, "0");
        }
        let ran = again.output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
        assert!(String::from_utf8_lossy(&ran.stdout).contains("1 passed"));
    }
}
