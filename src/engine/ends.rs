//! How jobs leave the table: the record of an end, and dead ones whose time is over.

use std::borrow::Cow;

use super::command::Command;
use super::core::Core;
use crate::job::event::{End, Ended, Event};
use crate::job::table::OwnedNames;
use crate::log::Poisoned;
use crate::pool::About;
use crate::types::{Seq, millis};

/// What is known of a run that ended, beside its job.
#[derive(Clone, Copy, Default)]
pub(super) struct By<'a> {
    /// The worker that had it, by its number within its pool; 0: none, or it has no number.
    pub(super) worker: u32,
    /// What the job said of itself.
    pub(super) about: Option<&'a About>,
}

impl Core {
    /// Waiting jobs that ought to have begun by now end.
    pub(super) fn expire(&mut self) -> Result<(), Poisoned> {
        while let Some(born) = self.table.expired(self.now) {
            // What is left of a full disk is for outcomes: the others leave once there is space.
            if self.is_short_of_room() {
                break;
            }
            self.end(born, End::Expired, &[], By::default())?;
        }
        Ok(())
    }

    /// Dead jobs leave after `dead_retain`, or when there are more than `dead_max`.
    pub(super) fn forget_dead(&mut self) -> Result<(), Poisoned> {
        /// Records that are read at once.
        const AT_ONCE: usize = 256;
        let retain_ms = millis(self.config.log.dead_retain);
        while let Some((since, born)) = self.table.oldest_dead().filter(|_| !self.forgetting) {
            let old = since.saturating_add(retain_ms) <= self.now;
            let is_due = old || self.table.dead_jobs() > self.config.log.dead_max;
            if !is_due || self.is_short_of_room() {
                break;
            }
            if self.table.noted(born).is_some_and(|job| !self.knows_names(job)) {
                self.forgetting = true;
                let named = self.table.dead_first(AT_ONCE).filter_map(|born| self.table.noted(born));
                let seqs = named.filter(|job| job.named).map(|job| job.home.seq).collect();
                return self.look_up(seqs, Command::ForgetDead);
            }
            self.end(born, End::Discarded, &[], By::default())?;
        }
        Ok(())
    }

    /// Records that a live job is finished; `result` is empty unless it was completed with one, or cancelled by
    /// its worker: then it is the reason. The job's names are at hand,
    /// or cannot be read.
    pub(super) fn end(&mut self, born: Seq, end: End, result: &[u8], by: By<'_>) -> Result<(), Poisoned> {
        let bytes = 512 + result.len();
        self.make_room(1, bytes)?;
        self.put_end(born, end, result, by);
        Ok(())
    }

    /// As [`Core::end`], where there is room.
    pub(super) fn put_end(&mut self, born: Seq, end: End, result: &[u8], by: By<'_>) {
        let found = self.table.noted(born).map(Cow::Borrowed).or_else(|| self.table.job(born).map(Cow::Owned));
        let Some(job) = found else { return };
        let names = self.names_of(&job, by.about);
        let ended = Ended {
            born,
            end,
            at: self.now,
            type_no: job.type_no,
            version_no: job.version_no,
            attempts: job.attempts,
            given_back: job.given_back,
            created_ms: job.created_ms,
            home: job.home,
            names: names.as_ref().map(OwnedNames::as_names),
            worker: by.worker,
        };
        self.put(&Event::Ended(ended, result), false);
        self.tell_end(born);
    }
}
