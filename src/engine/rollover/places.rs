//! What holds of every type between two turns: its places and the roles of its pools say the same, a trial is one of pools
//! that are there, and somebody does its work, or starts to.
//!
//! Changes nothing. The rest of the rollover relies on it; tests and simulations ask after every turn.

use crate::engine::core::Core;
use crate::engine::runs::{PoolRun, TypeRun};
use crate::pool::PoolId;
use crate::rollover::state::State as Role;

impl Core {
    /// What does not hold, of whom, and how that stands; `None`: all of it holds.
    pub(in crate::engine) fn misplaced(&self) -> Option<String> {
        let out_of_place = self.pools.iter().find(|(pool, run)| !self.is_in_place(**pool, run));
        let wrong = out_of_place.map(|(_, run)| (run.type_no, "a pool is not where its role says"));
        let wrong = wrong.or_else(|| {
            self.types.iter().find_map(|(type_no, of_type)| Some((*type_no, self.wrong_with(*type_no, of_type)?)))
        });
        let wrong = wrong.map(|(type_no, what)| format!("{}: {what}: {}", self.name_of(type_no), self.places(type_no)));
        let is_open = self.rollover.open || !self.rollover.waiting.is_empty();
        let is_untold = is_open && !self.is_rolling() && !self.is_stopping();
        wrong.or_else(|| is_untold.then(|| "what a config began is through, and nobody is told".to_owned()))
    }

    /// Whether a pool has the place that its role wants, and no other one.
    fn is_in_place(&self, pool: PoolId, run: &PoolRun) -> bool {
        let Some(of_type) = self.types.get(&run.type_no) else { return false };
        let TypeRun { current, incoming, candidate, warm, .. } = of_type;
        let has = [current, incoming, candidate, warm].map(|place| *place == Some(pool));
        match run.role {
            // The one before, which is started again after a restart, is to be a way back.
            Role::Starting => has == [false, true, false, false] || has == [false, false, false, true],
            Role::Gating | Role::Ramping => has == [false, false, true, false],
            Role::Current => has == [true, false, false, false],
            Role::Draining => has == [false; 4] || has == [false, false, false, true],
            Role::Warm => has == [false, false, false, true],
            Role::Retired | Role::Rejected | Role::Quarantined => has == [false; 4],
        }
    }

    /// What does not hold of a type.
    fn wrong_with(&self, type_no: u32, of_type: &TypeRun) -> Option<&'static str> {
        let version = |place: Option<PoolId>| Some(self.pools.get(&place?)?.version_no);
        let serves = of_type.current.or(of_type.incoming);
        let recorded = self.table.worker_type(type_no);
        if of_type.pools().any(|pool| self.pools.get(&pool).is_none_or(|run| run.type_no != type_no)) {
            return Some("a place holds a pool that is not there");
        }
        if self.is_stopping() {
            return None;
        }
        let is_asked_of = of_type.pools().next().is_some() || of_type.trial.is_some() || of_type.unmade.is_some();
        if of_type.worker.is_none() && is_asked_of {
            return Some("the config does not have it, and a pool of it may be given work");
        }
        if of_type.worker.is_some() && serves.is_none() && of_type.unmade.is_none() {
            return Some("nobody does its work");
        }
        if of_type.next.is_some()
            && (of_type.current.is_some() || (of_type.incoming.is_none() && of_type.unmade.is_none()))
        {
            return Some("a version waits for one that starts, and none does");
        }
        let mut versions: Vec<_> = of_type.pools().filter_map(|pool| version(Some(pool))).collect();
        versions.sort_unstable();
        if !versions.is_sorted_by(|one, other| one < other) {
            return Some("a version has two places");
        }
        if version(of_type.current).is_some_and(|current| recorded.is_none_or(|of_type| of_type.route != current)) {
            return Some("its work goes where the log does not say");
        }
        let Some(trial) = &of_type.trial else {
            return of_type.candidate.map(|_| "a candidate is not on trial");
        };
        let (tried, baseline) =
            if trial.is_probation() { (of_type.current, of_type.warm) } else { (of_type.candidate, serves) };
        if (version(tried), version(baseline)) != (Some(trial.version_no), Some(trial.baseline_no)) {
            return Some("a trial is not one of its pools");
        }
        if trial.is_probation() && of_type.candidate.is_some() {
            return Some("two versions are on trial");
        }
        let gating = tried.and_then(|pool| self.pools.get(&pool)).is_some_and(|run| run.role == Role::Gating);
        let ramp = recorded.and_then(|of_type| of_type.ramp).map(|ramp| (ramp.version_no, ramp.percent, ramp.paused));
        if gating != trial.is_gated() || (!gating && ramp != Some((trial.version_no, trial.percent, trial.paused))) {
            return Some("a trial is not what is recorded of it");
        }
        (!self.rollover.on_trial.contains(&type_no)).then_some("nobody goes on with a trial")
    }

    /// How a type stands, for whoever looks into it.
    fn places(&self, type_no: u32) -> String {
        let Some(of_type) = self.types.get(&type_no) else { return "not known".to_owned() };
        let pools = self.pools.iter().filter(|(_, run)| run.type_no == type_no);
        let pools: Vec<_> = pools.map(|(pool, run)| format!("{}: {} {:?}", pool.0, run.label, run.role)).collect();
        let TypeRun { current, incoming, candidate, warm, trial, next, .. } = of_type;
        let trial = trial.as_ref().map(|trial| (trial.version_no, trial.baseline_no, trial.percent, trial.is_gated()));
        let next = next.as_ref().map(|(version_no, _)| version_no);
        format!(
            "current {current:?}, incoming {incoming:?}, candidate {candidate:?}, warm {warm:?}, trial {trial:?}, next {next:?}; pools {pools:?}"
        )
    }
}
