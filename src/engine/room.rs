//! What waits where no next segment can be made: what can wait, in the order in which it came.

use super::command::Command;
use super::core::Core;

impl Core {
    /// Whether nothing may be recorded that can wait: no segment can be made, and what is left of this one is for a stop.
    pub(super) fn stands_still(&mut self) -> bool {
        !self.is_stopping() && self.is_short_of_room()
    }

    /// Whether no segment can be made, and what is left of this one is for what a stop must record: outcomes, and what is
    /// given back.
    pub(super) fn is_short_of_room(&mut self) -> bool {
        let options = self.log.options();
        let low = self.log.room() < (options.frame_bytes_max + options.frame_bytes_full) as u64;
        low && !self.await_spare()
    }

    /// Whether a command must wait for room.
    pub(super) fn must_wait(&mut self, command: &Command) -> bool {
        match command {
            // In their order: the last portion of a sweep says that all of the segment was restated.
            Command::Survivors(_) if self.waiting.iter().any(Command::is_of_a_sweep) => true,
            Command::Survivors(_) if self.is_stopping() && self.is_short_of_room() => true,
            Command::Survivors(survivors) => !self.may_restate(survivors),
            _ if command.waits_for_a_start() => self.is_short_of_room(),
            // Nor does what a pool reports overtake what it reported before.
            _ => command.needs_room() && (self.waiting.iter().any(Command::is_owed) || self.stands_still()),
        }
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
