//! With what the tests of the workers run: this process alone, or a helper beside it.

#[cfg(feature = "daemon")]
mod helped;

use super::*;

/// Tells a test that its children are a helper's.
const UNDER_A_HELPER: &str = "BIOTOPE_TEST_HELPER";

/// What the tests of the workers run with.
pub(in crate::worker) fn chosen() -> Spawner {
    if std::env::var_os(UNDER_A_HELPER).is_some() { by_helper() } else { Spawner::Direct }
}

/// A helper with a place of its own, for one test.
fn by_helper() -> Spawner {
    let spawner = Spawner::helper(this_test_program, Orphans::Left);
    let dir = tempfile::tempdir().unwrap();
    spawner.live_in(dir.path());
    // The file is open before the directory goes, and what it says nobody needs.
    spawner.prepare().unwrap();
    spawner
}

/// The command by which this test program becomes a helper: its test below is one, then.
fn this_test_program(lock: &Path) -> Command {
    let mut command = Command::new("/bin/sh");
    let name = "worker::spawner::tests::helper_of_another_test";
    let script = "BIOTOPE_TEST_LOCK=$2 exec \"$0\" --exact --nocapture --test-threads=1 \"$1\"";
    command.args(["-c", script]).arg(std::env::current_exe().unwrap()).arg(name).arg(lock);
    command
}

#[test]
#[cfg(feature = "daemon")]
fn helper_of_another_test() {
    if let Some(lock) = std::env::var_os("BIOTOPE_TEST_LOCK") {
        assert_eq!(serve(Path::new(&lock)), std::process::ExitCode::SUCCESS);
    }
}
