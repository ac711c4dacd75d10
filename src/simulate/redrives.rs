//! All that died of a version is retried: by which command, and that nothing else is.

use super::invariant::Invariant;
use super::model::{Happening, Place};
use super::plan::{self, TYPES};
use super::world::{Reply, Sent, Violation, World};
use crate::job::transition::State;
use crate::refusal::Refusal;

impl World {
    /// Has the dead jobs of a type retried that failed last on a version. Alone in its turn, so that it is clear what follows.
    pub(super) fn redrive(&mut self, of: u8, version: u8) -> Result<(), Violation> {
        self.turn()?;
        if !self.sent.is_empty() {
            return Ok(());
        }
        let of = TYPES.get(usize::from(of) % TYPES.len()).copied().unwrap_or("a");
        let drawn = plan::needed(of, version);
        let label = self.killer(of, usize::from(version / 2)).filter(|_| version.is_multiple_of(2)).unwrap_or(drawn);
        let meant = self.died_of(of, &label);
        let (reply, put) = self.ask();
        if let Some(engine) = &self.engine {
            engine.handle().retry_failed_on(of, &label, Box::new(move |done| put(Reply::Redriven(done))));
        }
        self.sent.push(Sent::Redrive { meant, reply, redriven: 0 });
        self.turn()
    }

    /// The label of a version that one of a type's dead jobs ran on last.
    fn killer(&self, of: &str, pick: usize) -> Option<String> {
        let table = self.engine.as_ref()?.table();
        let dead = self.model.live().filter(|(_, known)| known.new.worker_type.as_str() == of);
        let dead = dead.filter_map(|(_, known)| table.noted(known.born?).filter(|job| job.state == State::Dead));
        let dead: Vec<u32> = dead.map(|job| job.version_no).collect();
        let version = dead.get(pick.checked_rem(dead.len())?)?;
        Some(table.version(*version)?.label.to_string())
    }

    /// Dead jobs of a type that failed last on a version; those without a failed attempt, that ran on it last.
    fn died_of(&self, of: &str, label: &str) -> Vec<usize> {
        let Some(no) = self.numbers.get(&(of.to_owned(), label.to_owned())) else { return Vec::new() };
        let Some(engine) = &self.engine else { return Vec::new() };
        let dead = self.model.live().filter(|(_, known)| {
            let job = known.born.and_then(|born| engine.table().job(born));
            let failed_on = job.map_or(0, |job| job.failures().last().map_or(job.version_no, |last| last.version_no));
            known.new.worker_type.as_str() == of && known.now.place == Place::Dead && failed_on == *no
        });
        dead.map(|(at, _)| at).collect()
    }

    /// It goes on frame by frame: what has been retried up to now.
    pub(super) fn notice_redriven(&mut self) {
        for at in 0..self.sent.len() {
            let Some(Sent::Redrive { meant, .. }) = self.sent.get(at) else { continue };
            let meant = meant.clone();
            for job in meant {
                let Some(known) = self.model.jobs.get(job).filter(|known| known.now.place == Place::Dead) else {
                    continue;
                };
                let of = known.new.worker_type.as_str();
                let due = known.expires_ms != 0 && known.expires_ms <= self.now();
                let state = known.born.and_then(|born| self.engine.as_ref()?.table().job(born)).map(|job| job.state);
                let redriven = match state {
                    Some(state) => state != State::Dead,
                    // Its time had passed: it expired as soon as it was no longer dead. Or it was dead for too long.
                    None => due && self.expired_unseen(of) > 0,
                };
                if redriven {
                    self.figures.count("work", "redriven by its version");
                    self.happen(job, true, Happening::Redriven);
                    if let Some(Sent::Redrive { redriven, .. }) = self.sent.get_mut(at) {
                        *redriven += 1;
                    }
                }
            }
        }
    }

    pub(super) fn redriven(
        &mut self,
        meant: &[usize],
        redriven: u64,
        reply: Option<Reply>,
        sure: bool,
    ) -> Result<(), Violation> {
        let dead = |at: &&usize| self.model.jobs.get(**at).is_some_and(|known| known.latest().place == Place::Dead);
        let left: Vec<usize> = meant.iter().filter(dead).copied().collect();
        if !sure {
            left.into_iter().for_each(|job| self.happen(job, false, Happening::Redriven));
            return Ok(());
        }
        match reply {
            Some(Reply::Redriven(Ok(said))) if said == redriven => Ok(()),
            Some(Reply::Redriven(Err(Refusal::UnknownType { .. } | Refusal::UnknownVersion { .. })))
                if meant.is_empty() =>
            {
                Ok(())
            }
            reply => {
                let how = format!("{redriven} of {meant:?} were redriven, {left:?} were not, and it says {reply:?}");
                Err(Invariant::RightAnswer.broken(how))
            }
        }
    }
}
