//! What this program is: its version, the commit that it was built from, and what was built in.

use std::sync::OnceLock;

/// The commit that `deploy.sh build` built.
const COMMIT: Option<&str> = option_env!("BIOTOPE_COMMIT");

/// What follows the name in `biotope --version`.
pub(super) fn of_program() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| {
        let commit = COMMIT.map_or_else(|| "commit unknown".to_owned(), |commit| format!("commit {commit}"));
        let (number, arch) = (env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
        format!("{number} ({commit}; {arch}, {}; features: {})", linked(), features().join(", "))
    })
}

/// The C library, and how it is there.
fn linked() -> String {
    let libc = if cfg!(target_env = "musl") { "musl" } else { "glibc" };
    let how = if cfg!(target_feature = "crt-static") { "static" } else { "dynamic" };
    format!("{libc}, {how}")
}

fn features() -> Vec<&'static str> {
    [("daemon", cfg!(feature = "daemon"))].into_iter().filter_map(|(name, on)| on.then_some(name)).collect()
}
