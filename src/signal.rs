//! Signals: HUP reloads, TERM and INT stop; a second one of those cuts short.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Take the config file over.
    Reload,
    /// End in good order.
    Stop,
}

/// Begins to catch the signals; from here on none of them ends the process by itself.
///
/// # Errors
/// As the operating system says.
pub fn catch() -> std::io::Result<Signals> {
    Signals::new([SIGHUP, SIGTERM, SIGINT])
}

/// Waits on a thread of its own, and has `wish` called with what each signal asks for.
///
/// # Errors
/// No thread to be had.
pub fn watch(mut signals: Signals, wish: impl Fn(Wish) + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            wish(if signal == SIGHUP { Wish::Reload } else { Wish::Stop });
        }
    })?;
    Ok(())
}
