//! What waits where no next segment can be made: what can wait, in the order in which it came.

use super::command::Command;
use super::core::Core;
use super::outcome::RECORD_SPARE;
use crate::limits::ERROR_BYTES_MAX;
use crate::refusal::Refusal;
use crate::worker::Outcome;

/// Most bytes of a record by which a job is given back with nothing said.
const RELEASE_BYTES: u64 = 64;

impl Core {
    /// Whether nothing may be recorded that can wait: no segment can be made, and what is left of this one is for a stop.
    pub(super) fn stands_still(&mut self) -> bool {
        !self.is_stopping() && self.is_short_of_room()
    }

    /// Whether no segment can be made, and what is left of this one is for what a stop must record: outcomes, and what is
    /// given back.
    pub(super) fn is_short_of_room(&mut self) -> bool {
        let options = self.log.options();
        let kept = (options.frame_bytes_max + options.frame_bytes_full) as u64 + self.table.reserved() * RELEASE_BYTES;
        self.log.room() < kept && !self.await_spare()
    }

    /// Whether a command must wait for room.
    pub(super) fn must_wait(&mut self, command: &Command) -> bool {
        match command {
            // In their order: the last portion of a sweep says that all of the segment was restated.
            Command::Survivors(_) if self.waiting.iter().any(Command::is_of_a_sweep) => true,
            Command::Survivors(_) if self.is_stopping() && self.is_short_of_room() => true,
            Command::Survivors(survivors) => !self.may_restate(survivors),
            // Each is small, but nothing bounds how many come.
            Command::Act { .. } | Command::Pause { .. } if self.is_stopping() => self.is_short_of_room(),
            _ if command.waits_for_a_start() => self.is_short_of_room(),
            // Nor does what a pool reports overtake what it reported before.
            _ => command.needs_room() && (self.waiting.iter().any(Command::is_owed) || self.stands_still()),
        }
    }

    /// Has a command wait for room; where none will come, who can be told is told.
    pub(super) fn wait_for_room(&mut self, command: Command) {
        match command {
            Command::Act { to, .. } if self.is_stopping() => {
                let refusal = self.refusal_for_space();
                self.reply(move |_| to.give(Err(refusal)));
            }
            Command::Pause { to, .. } if self.is_stopping() => {
                let refusal = self.refusal_for_space();
                self.reply(move |_| to.give(Err(refusal)));
            }
            other => self.waiting.push_back(other),
        }
    }

    fn refusal_for_space(&self) -> Refusal {
        Refusal::DiskFull { detail: self.why_full().map_or_else(String::new, |why| why.to_string()) }
    }

    /// Whether a stop leaves an outcome unrecorded, since no room for it will come: the job is given back at the end, with all that
    /// run by then. A frame is kept for that.
    pub(super) fn is_left_at_a_stop(&mut self, outcome: &Outcome) -> bool {
        if !self.is_stopping() || !self.is_short_of_room() {
            return false;
        }
        let kept = self.log.options().frame_bytes_full as u64 + self.table.reserved() * RELEASE_BYTES;
        self.log.room() < kept + record_bytes(outcome) as u64
    }

    /// Whether all that waits for room has to wait on.
    pub(super) fn waits_for_room(&mut self) -> bool {
        let waiting = std::mem::take(&mut self.waiting);
        let mut sweeps = false;
        let all_wait = waiting.iter().all(|command| {
            let comes_later = command.is_of_a_sweep() && std::mem::replace(&mut sweeps, true);
            comes_later || self.must_wait(command)
        });
        self.waiting = waiting;
        all_wait
    }

    /// Waits until the next segment is ready, or it is known that it cannot be made just now; says whether it is ready.
    pub(super) fn await_spare(&mut self) -> bool {
        let _waits = self.waits_for_disk();
        self.log.await_spare()
    }
}

/// Most bytes of the records of an outcome.
fn record_bytes(outcome: &Outcome) -> usize {
    let own = match outcome {
        Outcome::Done { result, .. } => result.as_ref().map_or(0, Vec::len),
        _ => ERROR_BYTES_MAX,
    };
    own + RECORD_SPARE + outcome.follow_ups().iter().map(|job| job.payload.len() + RECORD_SPARE).sum::<usize>()
}
