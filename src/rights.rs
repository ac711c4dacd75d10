//! What the kernel lets this process do, and others do to it: how many files it may have open, and that nobody reads its memory.
//!
//! Owns what is asked of the kernel at the start, and says what does not suffice. Programs that are started get back what
//! this process was started with.

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

use crate::config::{Config, KindConfig};
use crate::worker::confined;

/// Descriptors that the log, the index, and what comes and goes need, beside those of connections and workers.
const KEPT: u64 = 256;
/// Descriptors of one program that runs: its stdin, stdout and stderr, and its end.
const OF_PROGRAM: u64 = 4;

/// Takes as many descriptors as the kernel gives. `before`: what an earlier image of the program in this process was started
/// with. What this process was started with, and what it has now.
pub(crate) fn take_descriptors(before: Option<u64>) -> OpenFiles {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let started = before.or(current).unwrap_or(u64::MAX);
    confined::give_back_open_files(started);
    // Where it cannot be raised, what is there is what there is.
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    OpenFiles { started, now: if raised { maximum } else { current }.unwrap_or(u64::MAX) }
}

/// How many files may be open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpenFiles {
    /// As this process was started, and as programs get it.
    pub(crate) started: u64,
    now: u64,
}

impl OpenFiles {
    /// Says so if a config asks for more.
    pub(crate) fn check(self, config: &Config) {
        let needed = needed(config);
        if self.now < needed {
            tracing::warn!(
                allowed = self.now,
                needed,
                "fewer files may be open than the config can need: raise the limit (`ulimit -Hn`, LimitNOFILE=), or lower \
                 `http.connections_max` or `workers_max`"
            );
        }
    }
}

/// Descriptors that a config may come to need.
fn needed(config: &Config) -> u64 {
    let of_workers = config.workers.iter().map(|worker| {
        let each = match worker.kind {
            KindConfig::Exec(_) => OF_PROGRAM,
            KindConfig::Http(_) => 1,
            KindConfig::Native => 0,
        };
        u64::from(worker.live.concurrency.max) * each
    });
    let most = u64::from(config.workers_max) * OF_PROGRAM;
    KEPT + u64::from(config.serving.connections_max) + of_workers.sum::<u64>().min(most)
}

/// Has the kernel write no memory of this process to a core file, and show it to nobody but root: tokens and secrets are in
/// it; or lets it.
pub(crate) fn guard_memory(may_be_dumped: bool) {
    let wanted = if may_be_dumped { DumpableBehavior::Dumpable } else { DumpableBehavior::NotDumpable };
    if let Err(error) = set_dumpable_behavior(wanted) {
        tracing::warn!(%error, "whether this process may be dumped cannot be set");
    }
}
