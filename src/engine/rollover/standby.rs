//! A probation that goes on after a restart: the version before is started again beside the one that took over, as the way
//! back that it was.
//!
//! Its time and what is known of both begin anew. Until it is up, what it has to make up for waits for it; if it does not
//! come up, or is not known any more, the probation ends, and that is said. Reads files only while nothing is served yet.

use std::time::Duration;

use crate::engine::core::Core;
use crate::engine::runs::NoWayBack;
use crate::job::event::Ramped;
use crate::log::Poisoned;
use crate::pool::PoolId;
use crate::rollover::state::{Change, State as Role};
use crate::rollover::trial::{ALL, Before, Trial};

impl Core {
    /// At an opening: starts the version before again, if the one that the config asks for was on probation. When it returns,
    /// the log says of a probation only where it goes on.
    pub(in crate::engine) fn go_on_with_probation(
        &mut self,
        type_no: u32,
        version_no: u32,
        warm_for: Duration,
    ) -> Result<(), Poisoned> {
        let Some(of_type) = self.table.worker_type(type_no) else { return Ok(()) };
        let (route, previous) = (of_type.route, of_type.previous);
        let Some(ramp) = self.probation_of(type_no) else { return Ok(()) };
        let withdrawn = self.table.version(previous).is_none_or(|version| version.quarantined.is_some());
        if ramp.version_no != version_no || route != version_no || withdrawn || warm_for.is_zero() {
            return self.end_trial(type_no);
        }
        match self.spec_by_text(previous).and_then(|spec| self.launch(type_no, previous, spec)) {
            Ok(pool) => {
                self.types.entry(type_no).or_default().warm = Some(pool);
                Ok(())
            }
            Err(why) => self.no_way_back(type_no, previous, warm_for, &not_started(&why)),
        }
    }

    /// The version before cannot be had again: nothing makes up for the failures of the one that took over.
    pub(super) fn no_way_back(
        &mut self,
        type_no: u32,
        before: u32,
        warm_for: Duration,
        why: &str,
    ) -> Result<(), Poisoned> {
        let label = |no| self.label_of(no).unwrap_or_default();
        let (version, before) = (label(self.probation_of(type_no).map_or(0, |ramp| ramp.version_no)), label(before));
        tracing::warn!(
            worker_type = self.name_of(type_no),
            version,
            before,
            why,
            "the version before is no way back, and the probation over"
        );
        let says = format!("{version} was on probation, and {before} is no way back: {why}");
        let of_type = self.types.entry(type_no).or_default();
        of_type.no_way_back = Some(NoWayBack { says, until: self.mono + warm_for });
        self.end_trial(type_no)
    }

    /// What is recorded of a version of a type that has taken over, and is on probation; that it has all of the work may have
    /// been recorded no more.
    fn probation_of(&self, type_no: u32) -> Option<Ramped> {
        let of_type = self.table.worker_type(type_no)?;
        of_type.ramp.filter(|ramp| ramp.percent == ALL || ramp.version_no == of_type.route)
    }

    /// The pool of a type that starts to be a way back.
    pub(in crate::engine) fn standby(&self, type_no: u32) -> Option<PoolId> {
        let warm = self.types.get(&type_no)?.warm?;
        self.pools.get(&warm).filter(|run| run.role == Role::Starting).map(|_| warm)
    }

    /// Whether a pool starts to be a way back.
    pub(in crate::engine) fn is_standby(&self, pool: PoolId) -> bool {
        self.pools.get(&pool).is_some_and(|run| self.standby(run.type_no) == Some(pool))
    }

    /// It is up: it is kept from now on, as if it had been drained just now.
    pub(in crate::engine) fn stands_by(&mut self, pool: PoolId) -> Result<(), Poisoned> {
        let Some(type_no) = self.pools.get(&pool).map(|run| run.type_no) else { return Ok(()) };
        if !self.shift(pool, Change::StandBy) {
            return Ok(());
        }
        let until = self.mono + self.rollout_of(type_no).warm_for;
        if let Some(run) = self.pools.get_mut(&pool) {
            run.deadline = Some(until);
        }
        if !self.fall_back(type_no)? {
            self.stand_in_for_unmade(type_no)?;
        }
        self.settle()
    }

    /// The version that took over does not come up after a restart, and the one before is there: it does the work again.
    pub(in crate::engine) fn fall_back(&mut self, type_no: u32) -> Result<bool, Poisoned> {
        let Some(of_type) = self.types.get(&type_no) else { return Ok(false) };
        let works = |pool: PoolId| self.pools.get(&pool).filter(|run| run.role == Role::Warm && run.up > 0);
        let baseline_no = of_type.warm.and_then(works).map(|run| run.version_no);
        let over = of_type.current.or(of_type.incoming).and_then(|pool| self.pools.get(&pool));
        let over = over.filter(|run| run.up == 0 && (run.role == Role::Current || run.role == Role::Starting));
        let why = over.and_then(|run| Some((run.version_no, run.not_up.clone()?)));
        let (Some(baseline_no), Some((version_no, why))) = (baseline_no, why) else { return Ok(false) };
        let Some(ramp) = self.probation_of(type_no).filter(|ramp| ramp.version_no == version_no) else {
            return Ok(false);
        };
        self.types.entry(type_no).or_default().trial = Some(self.probation(ramp, baseline_no));
        self.withdraw(type_no, format!("no worker of it comes up: {why}"))?;
        self.start_next(type_no)?;
        Ok(true)
    }

    fn probation(&self, ramp: Ramped, baseline_no: u32) -> Trial {
        Trial::probation(ramp.version_no, baseline_no, ramp.salt, Before::default(), self.mono)
    }

    /// The first version of a type to be up has taken over: if it was on probation before the restart, it is again.
    pub(in crate::engine) fn resume_probation(&mut self, type_no: u32) -> Result<(), Poisoned> {
        let Some(ramp) = self.probation_of(type_no) else { return Ok(()) };
        let warm = self.types.get(&type_no).and_then(|of_type| self.pools.get(&of_type.warm?));
        let baseline_no = warm.map(|run| run.version_no);
        match baseline_no.filter(|_| self.current_version(type_no) == Some(ramp.version_no)) {
            Some(baseline_no) => {
                self.types.entry(type_no).or_default().trial = Some(self.probation(ramp, baseline_no));
                self.rollover.on_trial.insert(type_no);
                self.record_trial(type_no)
            }
            None => self.end_trial(type_no),
        }
    }

    /// It does not come up.
    pub(in crate::engine) fn standby_not_up(&mut self, pool: PoolId, why: &str) -> Result<(), Poisoned> {
        let Some((type_no, before)) = self.pools.get(&pool).map(|run| (run.type_no, run.version_no)) else {
            return Ok(());
        };
        let is_way_back = self.keeps_way_back(type_no);
        self.end_pool(pool, Change::Fail, Some(self.mono), Some(why.to_owned()))?;
        if is_way_back {
            let warm_for = self.rollout_of(type_no).warm_for;
            self.no_way_back(type_no, before, warm_for, &not_started(why))?;
        }
        self.settle()
    }

    /// Whether what is kept of a type is the way back of a probation, and not a version older than those of another trial.
    pub(super) fn keeps_way_back(&self, type_no: u32) -> bool {
        let trial = self.types.get(&type_no).and_then(|of_type| of_type.trial.as_ref());
        self.probation_of(type_no).is_some() && trial.is_none_or(Trial::is_probation)
    }

    /// Somebody wants the version that starts as a way back to take over: it does so as soon as it is up. Says whether there is
    /// one.
    pub(in crate::engine) fn hasten(&mut self, type_no: u32, version_no: u32) -> Result<bool, Poisoned> {
        let pool = self.standby(type_no);
        let Some(pool) = pool.filter(|pool| self.pools.get(pool).is_some_and(|run| run.version_no == version_no))
        else {
            return Ok(false);
        };
        let of_type = self.types.entry(type_no).or_default();
        (of_type.warm, of_type.incoming) = (None, Some(pool));
        if let Some(current) = of_type.current {
            self.leave_unproven(current);
        }
        self.end_trial(type_no)?;
        Ok(true)
    }

    /// That nothing makes up for the failures of a version that was on probation, as long as that would have lasted.
    pub(in crate::engine) fn no_way_back_view(&self, type_no: u32) -> Option<String> {
        let none = self.types.get(&type_no)?.no_way_back.as_ref()?;
        (self.mono < none.until).then(|| none.says.clone())
    }
}

/// Why a version is no way back that could not be started again.
fn not_started(why: &str) -> String {
    format!("it could not be started again: {why}")
}
