//! Ending it all in good order: nothing new begins, what runs may finish for a while, and the log's last word says so.
//!
//! Where another image of the program goes on in this process, that comes in two steps: first everything but the taking
//! in of jobs ends ([`Core::hand_over_to_successor`]), which may take as long as the jobs that run; then the rest does, which is a
//! matter of milliseconds. Whoever pushes notices the second one alone.

use std::time::Duration;

use super::command::{Command, To};
use super::core::Core;
use crate::job::event::{Event, Stopped};
use crate::log::Poisoned;

/// What a cut-off pool may take beyond its children's time to be killed, before the process ends without it.
const GIVE_UP_AFTER: Duration = Duration::from_secs(5);

/// A stop in progress.
pub(super) struct Stopping {
    pub(super) deadline: Duration,
    pub(super) cut_off: bool,
    /// Whether jobs are still taken in, for a successor to run.
    pub(super) takes_jobs: bool,
    /// Told when nothing runs any more, while jobs are taken in.
    pub(super) idle: Vec<To<()>>,
    pub(super) waiting: Vec<To<()>>,
}

impl Core {
    pub(super) fn stop(&mut self, to: To<()>) -> Result<(), Poisoned> {
        match &mut self.stopping {
            Some(stopping) if stopping.takes_jobs => {
                stopping.takes_jobs = false;
                // Whoever waited for the first step learns of the end instead.
                stopping.idle.clear();
                stopping.waiting.push(to);
                self.refuse_jobs()
            }
            Some(stopping) => {
                // Asked again: now.
                stopping.deadline = stopping.deadline.min(self.mono);
                stopping.waiting.push(to);
                Ok(())
            }
            None => {
                self.let_all_end(false, vec![to])?;
                self.refuse_jobs()
            }
        }
    }

    /// Ends everything but the taking in of jobs; answers when nothing runs any more. What follows is a stop.
    pub(super) fn hand_over_to_successor(&mut self, to: To<()>) -> Result<(), Poisoned> {
        if self.stopping.is_none() {
            self.let_all_end(true, Vec::new())?;
        }
        // Where a stop goes on already, `to` is dropped: its end is what comes.
        if let Some(stopping) = self.stopping.as_mut().filter(|stopping| stopping.takes_jobs) {
            stopping.idle.push(to);
        }
        Ok(())
    }

    fn let_all_end(&mut self, takes_jobs: bool, waiting: Vec<To<()>>) -> Result<(), Poisoned> {
        let deadline = self.mono + self.config.stop_timeout;
        self.stopping = Some(Stopping { deadline, cut_off: false, takes_jobs, idle: Vec::new(), waiting });
        let pools: Vec<_> = self.pools.keys().copied().collect();
        pools.into_iter().try_for_each(|pool| self.dismiss(pool, None))
    }

    fn refuse_jobs(&mut self) -> Result<(), Poisoned> {
        self.shared.set_stopping();
        // What is refused now need not wait for any name.
        std::mem::take(&mut self.awaiting_names).into_iter().try_for_each(|command| self.handle(command))
    }

    /// Whether nothing begins any more.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// Whether jobs are refused, too.
    pub(super) fn refuses_jobs(&self) -> bool {
        self.stopping.as_ref().is_some_and(|stopping| !stopping.takes_jobs)
    }

    /// Tells those who wait for it that nothing runs any more, or that what still does is given up.
    pub(super) fn tell_idle(&mut self) {
        let mono = self.mono;
        let is_idle = self.pools.is_empty();
        let Some(stopping) = self.stopping.as_mut().filter(|stopping| stopping.takes_jobs) else { return };
        let given_up = stopping.cut_off && stopping.deadline <= mono;
        if is_idle || given_up {
            for to in std::mem::take(&mut stopping.idle) {
                self.reply(move |_| to.give(()));
            }
        }
    }

    /// When a stop goes on by itself.
    pub(super) fn stop_due(&self) -> Option<Duration> {
        let stopping = self.stopping.as_ref()?;
        // What nobody waits for any more comes with the stop that follows.
        let told = stopping.takes_jobs && stopping.idle.is_empty();
        (!told).then_some(stopping.deadline)
    }

    pub(super) fn is_over(&self) -> bool {
        let Some(stopping) = self.stopping.as_ref().filter(|stopping| !stopping.takes_jobs) else { return false };
        // What may be left to the next start is not waited for, whether it has been looked up or not.
        let left = self.waiting.iter().filter(|command| command.was_looked_up() && !command.is_owed()).count();
        let waits = self.looking > left || !self.awaiting_names.is_empty() || self.waiting.iter().any(Command::is_owed);
        (self.pools.is_empty() && !waits) || (stopping.cut_off && stopping.deadline <= self.mono)
    }

    /// Writes the last words.
    pub(super) fn finish(&mut self) -> Result<(), Poisoned> {
        for born in self.held_leases() {
            // A pool that did not let go in time: the process ends with it.
            self.give_back(born, 0)?;
        }
        self.record(&Event::Stopped(Stopped { at: self.now }))?;
        self.commit()?;
        let _waits = self.waits_for_disk();
        self.log.sync()?;
        self.log.seal()?;
        self.shared.set_closed();
        Ok(())
    }

    /// After the stop timeout, what still runs is ended.
    pub(super) fn cut_off_late_stop(&mut self) {
        let Some(stopping) = &mut self.stopping else { return };
        if stopping.deadline <= self.mono && !stopping.cut_off {
            stopping.cut_off = true;
            let kill_after = self.types.values().filter_map(|of_type| of_type.worker.as_ref());
            let kill_after = kill_after.map(|worker| worker.live.kill_after).max().unwrap_or_default();
            stopping.deadline = self.mono + kill_after + GIVE_UP_AFTER;
            for run in self.pools.values() {
                run.pool.cut_off();
            }
        }
    }
}
