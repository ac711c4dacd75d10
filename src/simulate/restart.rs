//! After a start: everything acknowledged is there, and of what was not, the model learns what became of it.

use std::collections::BTreeSet;

use super::check::totals_of;
use super::invariant::Invariant;
use super::model::{Happening, Place, Standing};
use super::plan::TYPES;
use super::world::{Violation, World};
use crate::job::event::End;
use crate::types::UnixMs;

impl World {
    /// Everything acknowledged is there; what was not is there or not, and the model learns which.
    pub(super) fn reconcile(&mut self) -> Result<(), Violation> {
        let now = self.now();
        let loose = std::mem::take(&mut self.loose);
        let may_die: Vec<usize> = (0..self.model.jobs.len()).filter(|at| self.may_die(*at, loose)).collect();
        let old_jobs = self.model.jobs.len();
        let told: BTreeSet<usize> = (0..old_jobs).filter(|at| self.is_summary(*at)).collect();
        for job in may_die {
            self.summarise(job, false);
        }
        self.bind(true)?;
        let mut choices: Vec<(usize, Vec<Standing>)> = Vec::new();
        for at in 0..self.model.jobs.len() {
            let options = self.options(at, loose, now);
            let Some(known) = self.model.jobs.get(at) else { continue };
            let job = known.born.and_then(|born| self.engine.as_ref()?.table().job(born));
            let fitting: Vec<Standing> = options
                .iter()
                .filter(|option| match &job {
                    Some(job) => option.is(job, 0, self.latest),
                    None => !option.is_live(),
                })
                .copied()
                .collect();
            if fitting.is_empty() {
                let how =
                    format!("after a start the table has {job:?}\nit should be one of {options:?}\nof {known:#?}");
                return Err(Invariant::NothingLost.broken(how));
            }
            choices.push((at, fitting));
        }
        self.choose(choices)?;
        self.check_groups(old_jobs, &told)?;
        for at in 0..self.model.jobs.len() {
            if self.model.jobs.get(at).is_some_and(|known| known.now.place == Place::Absent) {
                self.model.never(at);
            }
        }
        self.misread = false;
        self.compare_after_start()
    }

    /// Whether a start may find that a job died with its process once too often.
    pub(super) fn may_die(&self, at: usize, loose: bool) -> bool {
        let Some(known) = self.model.jobs.get(at) else { return false };
        let dying = |standing: &Standing| {
            let runs = matches!(standing.place, Place::Running(_)) || loose && standing.place == Place::Waiting;
            runs && standing.host_deaths + 1 >= crate::limits::HOST_DEATHS_MAX
        };
        std::iter::once(&known.now).chain(&known.maybe).any(dying)
    }

    /// What a job may be after a start.
    pub(super) fn options(&self, at: usize, loose: bool, now: UnixMs) -> Vec<Standing> {
        let Some(known) = self.model.jobs.get(at) else { return Vec::new() };
        let mut options = Vec::new();
        for standing in std::iter::once(&known.now).chain(&known.maybe) {
            let death = standing.after(Happening::HostDeath { at: now, ready_ms: None });
            match standing.place {
                Place::Running(_) => {
                    options.push(death);
                    if loose {
                        // A drain of the turn that failed may have given it back.
                        options.push(standing.after(Happening::GivenBack));
                    }
                }
                Place::Waiting => {
                    options.push(*standing);
                    if loose {
                        // It may have been reserved in the turn that failed.
                        options.push(death);
                    }
                }
                Place::Absent | Place::Dead | Place::Gone(_) => options.push(*standing),
            }
        }
        options
    }

    /// Of what each job may be, the choice with which the counters are right.
    pub(super) fn choose(&mut self, choices: Vec<(usize, Vec<Standing>)>) -> Result<(), Violation> {
        let Some(engine) = &self.engine else { return Ok(()) };
        let mut open: Vec<(usize, Vec<Standing>)> = Vec::new();
        for (at, mut fitting) in choices {
            let first = fitting.first().map(|standing| standing.counts);
            if fitting.iter().any(|standing| Some(standing.counts) != first) {
                open.push((at, fitting));
            } else if let (Some(known), Some(standing)) = (self.model.jobs.get_mut(at), fitting.pop()) {
                (known.now, known.maybe) = (standing, Vec::new());
            }
        }
        // Few are open: those that nobody can see any more, whichever they are.
        let combinations = open.iter().map(|(_, fitting)| fitting.len()).try_fold(1_usize, usize::checked_mul);
        for number in 0..combinations.unwrap_or(usize::MAX).min(4096) {
            let mut rest = number;
            for (at, fitting) in &open {
                let standing = fitting.get(rest % fitting.len()).copied();
                rest /= fitting.len();
                if let (Some(known), Some(standing)) = (self.model.jobs.get_mut(*at), standing) {
                    (known.now, known.maybe) = (standing, Vec::new());
                }
            }
            if TYPES.iter().all(|of| totals_of(engine, of).is_none_or(|totals| totals == self.model.totals(of))) {
                return Ok(());
            }
        }
        let told: Vec<_> = TYPES.iter().map(|of| (totals_of(engine, of), self.model.totals(of))).collect();
        Err(Invariant::NothingLost.broken(format!("after a start the counters are not explained: {told:?}")))
    }

    /// A completion and its follow-up jobs are there together, and a death and its summary. `told`: summaries that were there
    /// before, for instance of a death after which the job was given all its attempts again.
    fn check_groups(&self, old_jobs: usize, told: &BTreeSet<usize>) -> Result<(), Violation> {
        for (at, known) in self.model.jobs.iter().enumerate() {
            let there = known.now.place != Place::Absent;
            if let Some(parent) = known.parent.and_then(|parent| self.model.jobs.get(parent)) {
                let done = parent.now.place == Place::Gone(End::Completed);
                if there && !done {
                    let how = format!("a follow-up job is there without its completion: {known:#?} of {parent:#?}");
                    return Err(Invariant::Together.broken(how));
                }
                if done && !there {
                    let how = format!("a completion is there without its follow-up job: {known:#?} of {parent:#?}");
                    return Err(Invariant::Together.broken(how));
                }
            }
            // One that a failed turn may have made, and this one, are the same job to who looks at it.
            if let Some(number) = known.summary_of.filter(|_| at >= old_jobs)
                && let Some(dead) = self.model.jobs.get(number)
                && !self.is_told_as_it_is(number, told)
            {
                let how = format!("a death at a start and its summary are not there together: {dead:#?}");
                return Err(Invariant::Together.broken(how));
            }
        }
        Ok(())
    }

    /// Whether a job's death is told of, if it has died, and no new one is if it has not.
    fn is_told_as_it_is(&self, job: usize, told: &BTreeSet<usize>) -> bool {
        let of_it = |at: &usize| self.model.jobs.get(*at).is_some_and(|known| known.summary_of == Some(job));
        let mut summaries = (0..self.model.jobs.len()).filter(|at| of_it(at) && self.is_summary(*at));
        match self.model.jobs.get(job).map(|known| known.now.place) {
            // It may have had to leave in the turn in which it died, as one of too many.
            Some(Place::Dead | Place::Gone(End::Discarded)) => summaries.next().is_some(),
            _ => summaries.all(|at| told.contains(&at)),
        }
    }

    /// Whether this is a job that tells of another's death, and is there.
    fn is_summary(&self, at: usize) -> bool {
        self.model.jobs.get(at).is_some_and(|known| known.summary_of.is_some() && known.now.place != Place::Absent)
    }

    pub(super) fn compare_after_start(&self) -> Result<(), Violation> {
        let Some(engine) = &self.engine else { return Ok(()) };
        let live = self.model.live().count() as u64;
        if engine.table().live_jobs() != live {
            let how = format!("after a start {} jobs live, {live} should", engine.table().live_jobs());
            return Err(Invariant::NothingFromNowhere.broken(how));
        }
        Ok(())
    }
}
