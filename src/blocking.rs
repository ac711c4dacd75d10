//! Threads for what blocks, of runtimes that must not fail where the system has no more threads to give.
//!
//! A runtime of tokio's makes such threads when they are needed, and panics if it cannot make the first one. With one that
//! is there from the start and stays, what comes waits for it instead. (All that are made stay: tokio tells none from the others.)

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

/// For ever, but for the arithmetic.
const STAYS: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Builds a runtime with a thread for what blocks, and at most `most` of them.
///
/// # Errors
/// No thread or descriptor left.
pub(crate) fn with_a_thread(builder: &mut Builder, most: usize) -> std::io::Result<Runtime> {
    // Where the system gives none, this one says so, and the runtime would panic, with a word on stderr.
    std::thread::Builder::new().spawn(|| ())?.join().map_err(|_| no_thread())?;
    let made = catch_unwind(AssertUnwindSafe(|| {
        let runtime = builder.max_blocking_threads(most).thread_keep_alive(STAYS).build()?;
        drop(runtime.spawn_blocking(|| ()));
        Ok(runtime)
    }));
    made.unwrap_or_else(|_| Err(no_thread()))
}

fn no_thread() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::WouldBlock, "no thread is left")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_blocks_is_run_by_the_thread_that_was_there_from_the_start() {
        let runtime = with_a_thread(Builder::new_current_thread().enable_all(), 1).unwrap();
        let run = || runtime.block_on(runtime.spawn_blocking(|| std::thread::current().id())).unwrap();
        let first = run();
        assert!(first == run() && first != std::thread::current().id());
    }
}
