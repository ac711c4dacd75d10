//! Signals: HUP reloads, TERM and INT stop, and a second one of those cuts short; USR1 opens the log's file again, USR2
//! replaces the binary.
//!
//! They are blocked in every thread but the one that takes them, and there, too, once another image of the program is to
//! have them: what comes from then on waits for that.

use std::thread::JoinHandle;

use rustix::process::{Signal, getpid, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::{Handle, Signals};

use crate::takeover::block_only;

/// All that are caught.
const CAUGHT: [i32; 5] = [SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2];

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Take the config file over.
    Reload,
    /// End in good order.
    Stop,
    /// Open the file that the log goes to again.
    ReopenLog,
    /// Replace the binary.
    Upgrade,
}

impl Wish {
    fn of(signal: i32) -> Self {
        match signal {
            SIGHUP => Self::Reload,
            SIGUSR1 => Self::ReopenLog,
            SIGUSR2 => Self::Upgrade,
            _ => Self::Stop,
        }
    }
}

/// Begins to catch the signals; from here on none of them ends the process by itself, and no other one is blocked, whatever
/// this process was started with. The first act of a process that has no thread yet.
///
/// # Errors
/// As the operating system says.
pub fn catch() -> std::io::Result<Signals> {
    // What waits already, for an image of the program that has begun only now, waits on until somebody takes it.
    block_only(&CAUGHT)?;
    Signals::new(CAUGHT)
}

/// Who takes the signals.
#[derive(Debug)]
pub struct Watch {
    handle: Handle,
    thread: JoinHandle<()>,
}

/// Waits on a thread of its own, and has `wish` called with what each signal asks for.
///
/// # Errors
/// No thread to be had.
pub fn watch(mut signals: Signals, wish: impl Fn(Wish) + Send + 'static) -> std::io::Result<Watch> {
    let handle = signals.handle();
    let take = move || {
        // Neither fails: the signals are there.
        let _ = block_only(&[]);
        for signal in signals.forever() {
            wish(Wish::of(signal));
        }
        let _ = block_only(&CAUGHT);
        // What came up to now, and nobody has taken, comes once more, and waits.
        for signal in signals.pending().filter_map(Signal::from_named_raw) {
            let _ = kill_process(getpid(), signal);
        }
    };
    let thread = std::thread::Builder::new().name("signals".to_owned()).spawn(take)?;
    Ok(Watch { handle, thread })
}

impl Watch {
    /// Takes no more signals: those that come from now on wait for the next image of the program.
    pub fn end(self) {
        self.handle.close();
        // It does nothing that panics.
        drop(self.thread.join());
    }
}
