//! Threads for what blocks, of runtimes that must not fail where the system has no more threads to give.
//!
//! A runtime of tokio's makes such threads when they are needed, and panics if it cannot make the first one. With one that
//! is there from the start and stays, what comes waits for it instead. (All that are made stay: tokio tells none from the others.)

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

/// For ever, but for the arithmetic.
const STAYS: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Builds a runtime that has a thread for what blocks, and at most `most` of them, beside `workers` of its own.
///
/// # Errors
/// No thread or descriptor left.
pub(crate) fn with_a_thread(builder: &mut Builder, workers: usize, most: usize) -> std::io::Result<Runtime> {
    // Where the system gives none this says so; the runtime would panic with a word on stderr, or wait for ever.
    can_have(workers + 1)?;
    let made = catch_unwind(AssertUnwindSafe(|| {
        let runtime = builder.max_blocking_threads(most).thread_keep_alive(STAYS).build()?;
        drop(runtime.spawn_blocking(|| ()));
        Ok(runtime)
    }));
    // Somebody else has taken them meanwhile.
    made.unwrap_or_else(|_| Err(std::io::Error::new(std::io::ErrorKind::WouldBlock, "no thread is left")))
}

/// Whether so many threads can be had at once.
fn can_have(threads: usize) -> std::io::Result<()> {
    let gate = Mutex::new(());
    std::thread::scope(|scope| {
        let held = gate.lock();
        let waits = || drop(gate.lock());
        let made = (0..threads).try_for_each(|_| std::thread::Builder::new().spawn_scoped(scope, waits).map(drop));
        drop(held);
        made
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_blocks_is_run_by_the_thread_that_was_there_from_the_start() {
        let runtime = with_a_thread(Builder::new_current_thread().enable_all(), 0, 1).unwrap();
        let run = || runtime.block_on(runtime.spawn_blocking(|| std::thread::current().id())).unwrap();
        let first = run();
        assert!(first == run() && first != std::thread::current().id());
    }
}
