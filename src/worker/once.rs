//! Runs a program once, to its end: for whoever wants to know what it says, and not for jobs.

use std::io;
use std::time::Duration;

use super::child::{Child, Signs, Wake};
use super::launch::Launch;
use super::process::Ended;
use super::spawner::Spawner;
use crate::clock::{Clock, RealClock};

/// How long a program that is too late may take to end itself.
const KILL_AFTER: Duration = Duration::from_secs(1);

/// What became of it.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Its exit code, if it ended by itself.
    pub(crate) code: Option<i32>,
    /// How it ended, in words.
    pub(crate) ended: String,
    /// What it wrote to its stdout, as far as there was room.
    pub(crate) stdout: Vec<u8>,
    /// The end of what it wrote to its stderr.
    pub(crate) stderr: String,
    /// Whether it was ended since it took too long.
    pub(crate) late: bool,
}

/// Runs `launch` as a child of the calling thread, which it does not outlive; keeps at most `room` bytes of its stdout, and
/// ends it and its group when it is not through `within` that time.
///
/// # Errors
/// It could not be started.
pub(crate) fn run_once(launch: &Launch, room: usize, within: Duration) -> io::Result<Ran> {
    let until = RealClock.mono().saturating_add(within);
    let mut child = Child::spawn(&Spawner::Direct, launch, &[], room, Duration::ZERO)?;
    child.close_stdin();
    let late = loop {
        match child.step(Some(until), Signs::default()) {
            Wake::Progress => {}
            Wake::Exited => break false,
            Wake::Deadline | Wake::Cutoff | Wake::Rung | Wake::Failed(_) => break true,
        }
    };
    child.terminate(KILL_AFTER);
    let ended = child.ended().unwrap_or(Ended::Unknown);
    Ok(Ran {
        code: if let Ended::Exited(code) = ended { Some(code) } else { None },
        ended: ended.to_string(),
        stdout: child.take_stdout(),
        stderr: child.stderr_text(),
        late,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::zoo::sh;

    #[test]
    fn a_program_says_its_word_and_no_more_than_there_is_room_for() {
        let ran = run_once(&sh(&std::env::temp_dir(), "cat; echo 12345678; echo why >&2; exit 3"), 4, Duration::MAX);
        let ran = ran.unwrap();
        assert_eq!(
            (ran.code, ran.stdout.as_slice(), ran.stderr.as_str(), ran.late),
            (Some(3), &b"1234"[..], "why", false)
        );
        assert_eq!(ran.ended, "exited with code 3");
    }

    #[test]
    fn a_program_that_hangs_is_ended_with_all_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let script = "trap '' TERM; echo begun; sleep 1000 & wait; sleep 1000";
        let ran = run_once(&sh(dir.path(), script), 100, Duration::from_secs(2)).unwrap();
        assert_eq!((ran.code, ran.late), (None, true), "{ran:?}");
        assert!(ran.ended.contains("signal 9"), "{}", ran.ended);
    }
}
