//! Callers who wait until a job has ended, or is dead.
//!
//! Owns who waits for which job. Nobody is told before that is durable; who still waits when the engine ends is told by
//! that.

use std::collections::HashMap;

use super::act::Found;
use super::command::{Command, Known, To};
use super::core::Core;
use crate::job::transition::State;
use crate::limits::AWAITED_MAX;
use crate::log::Poisoned;
use crate::refusal::Refusal;
use crate::types::Seq;

/// Who waits for which job.
#[derive(Default)]
pub(super) struct Awaited {
    of: HashMap<Seq, Vec<To<Result<(), Refusal>>>>,
    count: usize,
}

impl Core {
    /// Answers once the job has ended, or is dead; at once if that is so, or there is none.
    pub(super) fn await_end(&mut self, id: String, to: To<Result<(), Refusal>>) -> Result<(), Poisoned> {
        let known = match self.find(&id) {
            Found::Unsure(seqs) => return self.look_up(seqs, Command::AwaitEnd { id, to }),
            Found::Known(known) => known,
        };
        let answer = match known {
            Known::Live(live) if live.job.state == State::Dead => Ok(()),
            Known::Live(_) if self.awaited.count >= AWAITED_MAX => Err(Refusal::Busy { what: "callers who wait" }),
            Known::Live(live) => {
                self.awaited.of.entry(live.born).or_default().push(to);
                self.awaited.count += 1;
                return Ok(());
            }
            Known::Look { .. } => Ok(()),
            Known::Nothing => Err(Refusal::NotFound { id }),
        };
        self.reply(move |_| to.give(answer));
        Ok(())
    }

    /// A job has ended, or is dead: that was recorded.
    pub(super) fn tell_end(&mut self, born: Seq) {
        if self.awaited.count == 0 {
            return;
        }
        let waiting = self.awaited.of.remove(&born).unwrap_or_default();
        self.awaited.count -= waiting.len();
        for to in waiting {
            self.reply(move |durable| to.give(if durable { Ok(()) } else { Err(Refusal::Poisoned) }));
        }
    }
}
