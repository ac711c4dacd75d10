//! Jobs that need a version, by the model's word: which versions there are, in which order they came, and who must wait.

use std::collections::BTreeMap;

use super::held::Routes;
use super::invariant::Invariant;
use super::model::{Known, Place};
use super::plan::{self, TYPES};
use super::world::{Violation, World};
use crate::job::transition::State;
use crate::types::Seq;

/// Numbers of versions, by type and label.
pub(super) type Numbers = BTreeMap<(String, String), u32>;

impl World {
    /// I11: a version that was accepted keeps its number for ever.
    pub(super) fn note_versions(&mut self) -> Result<(), Violation> {
        let Some(engine) = &self.engine else { return Ok(()) };
        for (no, version) in engine.table().versions() {
            let Some(of) = engine.table().worker_type(version.type_no) else { continue };
            let name = (of.name.to_string(), version.label.to_string());
            let known = *self.numbers.entry(name).or_insert(no);
            if known != no {
                let how = format!("{} of {} had the number {known}, and has {no}", version.label, of.name);
                return Err(Invariant::RightVersion.broken(how));
            }
        }
        Ok(())
    }

    /// Whether a version may run a job, by the versions that it needs.
    pub(super) fn may_run(&self, known: &Known, label: &str) -> bool {
        let Some(needed) = &known.new.min_version else { return true };
        let of = known.new.worker_type.as_str();
        let number = |label: &str| self.numbers.get(&(of.to_owned(), label.to_owned()));
        number(needed.as_str()).is_some_and(|needed| number(label).is_some_and(|number| number >= needed))
    }

    /// Whether a job must wait for a version, once it is its time.
    pub(super) fn must_wait(&self, known: &Known) -> bool {
        let of = known.new.worker_type.as_str();
        let route = self.engine.as_ref().and_then(|engine| Routes::of(engine, of).current);
        known.new.min_version.is_some() && !route.is_some_and(|route| self.may_run(known, &route))
    }

    /// Whether a job is ready by the table's word, and must wait for a version.
    pub(super) fn is_parked(&self, known: &Known) -> bool {
        let ready = |born: Seq| {
            let job = self.engine.as_ref().and_then(|engine| engine.table().job(born));
            job.is_some_and(|job| job.state == State::Ready)
        };
        known.now.place == Place::Waiting && self.must_wait(known) && known.born.is_some_and(ready)
    }

    /// The config whose versions are those that came last.
    pub(super) fn newest_plan(&self) -> u8 {
        let of_a = self.numbers.iter().filter(|((of, _), _)| of == "a");
        of_a.max_by_key(|(_, no)| **no).map_or(plan::ALL, |((_, label), _)| plan::with_version(label))
    }

    /// What is held is what must wait, job by job, and nothing else; what it needs is what was asked for.
    pub(super) fn check_held(&mut self) -> Result<(), Violation> {
        let Some(engine) = &self.engine else { return Ok(()) };
        let table = engine.table();
        let mut waiting: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for (_, known) in self.model.live() {
            let Some(job) = known.born.and_then(|born| table.job(born)) else { continue };
            let held = table.is_held(&job);
            let needs = job.min_version().map(|min| &min.label) == known.new.min_version.as_ref();
            let ready = job.state == State::Ready;
            if !needs || held != (ready && self.must_wait(known)) {
                return Err(Invariant::RightVersion.broken(format!("{known:#?}\nis held {held}: {job:?}")));
            }
            let (served, aside) = waiting.entry(known.new.worker_type.as_str()).or_default();
            *served += u64::from(ready && !held);
            *aside += u64::from(held);
        }
        let mut parked = 0;
        for (of, type_no) in TYPES.into_iter().filter_map(|of| Some((of, table.type_no(of)?))) {
            let of_type = table.worker_type(type_no);
            let counts = of_type.map_or((0, 0), |of_type| (of_type.queue.len(), of_type.held()));
            let should = waiting.get(of).copied().unwrap_or_default();
            if counts != should {
                let how = format!("{of} has {counts:?} ready and held, it should be {should:?}");
                return Err(Invariant::RightVersion.broken(how));
            }
            parked += counts.1;
        }
        self.figures.add("work", "held for want of a version", parked);
        Ok(())
    }
}
