//! All dead jobs of a type whose last failed attempt was on one version have all their attempts again, by one command.
//!
//! Those that are dead when the command comes are meant. They go frame by frame, and others are served in between; should
//! the process end before it is through, the command does the rest when it is given again.

use super::command::{Command, Redriving, To};
use super::core::Core;
use crate::job::event::{Event, Redriven};
use crate::job::table::Job;
use crate::job::transition::State;
use crate::log::Poisoned;
use crate::refusal::Refusal;
use crate::types::Label;

/// The version on which a dead job failed last. What died with the process, or of damage, has no failed attempt of its own
/// to show, and may have none at all: then it is the version that ran it last.
fn failed_on(job: &Job) -> u32 {
    job.failures().last().map_or(job.version_no, |failure| failure.version_no)
}

impl Core {
    /// Gives the dead jobs of a type that failed last on a version all their attempts again.
    pub(super) fn redrive(
        &mut self,
        worker_type: &str,
        version: &str,
        to: To<Result<u64, Refusal>>,
    ) -> Result<(), Poisoned> {
        match self.to_redrive(worker_type, version) {
            Ok((type_no, version_no)) => {
                let dead = self.table.noted_in(type_no, &[State::Dead]);
                self.redrive_on(Redriving { version_no, jobs: dead.into_iter(), count: 0, to })
            }
            Err(refusal) => {
                self.reply(move |_| to.give(Err(refusal)));
                Ok(())
            }
        }
    }

    /// The numbers of a type and of a version of it.
    fn to_redrive(&self, worker_type: &str, version: &str) -> Result<(u32, u32), Refusal> {
        let type_no = self.table.type_no(worker_type);
        let known = type_no.and_then(|no| Some((no, self.table.worker_type(no)?)));
        let Some((type_no, of_type)) = known else { return Err(self.shared.unknown_type(worker_type)) };
        let label: Option<Label> = version.parse().ok();
        let version_no = label.and_then(|label| of_type.first_number(&label));
        let known = || of_type.labels().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let (worker_type, label) = (worker_type.to_owned(), version.to_owned());
        let no = version_no.ok_or_else(|| Refusal::UnknownVersion { worker_type, label, known: known() })?;
        Ok((type_no, no))
    }

    /// Redrives as many as one frame holds; others are served in between.
    pub(super) fn redrive_on(&mut self, mut redriving: Redriving) -> Result<(), Poisoned> {
        while !self.log.is_full() && !self.is_short_of_room() {
            let Some(born) = redriving.jobs.next() else {
                let (count, to) = (redriving.count, redriving.to);
                self.reply(move |durable| to.give(if durable { Ok(count) } else { Err(Refusal::Poisoned) }));
                return Ok(());
            };
            let job = self.table.noted(born).filter(|job| job.state == State::Dead);
            if job.is_some_and(|job| failed_on(job) == redriving.version_no) {
                self.record(&Event::Redriven(Redriven { born, at: self.now }))?;
                redriving.count += 1;
            }
        }
        drop(self.to_self.send(Command::RedriveRest(redriving)));
        Ok(())
    }
}
