//! Versions on trial: carries out what [`crate::rollover::trial`] says, and takes people's word.
//!
//! A trial has a *candidate* (a pool beside the current one, which does its first jobs or gets a share) until its version
//! takes over; then it is on *probation* for as long as the version before stays warm.

use std::sync::LazyLock;
use std::time::Duration;

use crate::config::{ExecMode, KindConfig, Rollout};
use crate::engine::core::Core;
use crate::engine::runs::PoolRun;
use crate::job::event::{Event, Quarantined, Ramped};
use crate::log::Poisoned;
use crate::pool::PoolId;
use crate::recent::shares;
use crate::rollover::plan::Standing;
use crate::rollover::state::{Change, State};
use crate::rollover::trial::{ALL, Before, Step, Trial};

impl Core {
    /// A version is up, and another one does the work: it is given its share, or its first jobs, or all of it.
    pub(in crate::engine) fn begin_trial(&mut self, pool: PoolId) -> Result<(), Poisoned> {
        let Some(run) = self.pools.get(&pool) else { return Ok(()) };
        let (type_no, version_no) = (run.type_no, run.version_no);
        // One that had taken over, and stepped back while this one started, is replaced by it.
        self.end_candidate(type_no)?;
        let way_back = self.types.get_mut(&type_no).and_then(|of_type| of_type.way_back.take());
        if way_back == Some(version_no) {
            self.end_trial(type_no)?;
            return self.take_over(pool);
        }
        let Some(run) = self.pools.get(&pool) else { return Ok(()) };
        // Where there is a probe, that was the gate.
        let is_gated = matches!(&run.spec.worker.kind, KindConfig::Exec(exec) if exec.mode == ExecMode::PerJob)
            && run.spec.worker.live.probe.is_none();
        let recorded = self.table.worker_type(type_no).and_then(|of_type| of_type.ramp);
        let resumed = recorded.filter(|ramp| ramp.version_no == version_no && ramp.percent < ALL);
        let first_step = self.rollout_of(type_no).steps.first().copied();
        let Some(baseline_no) = self.current_version(type_no) else { return Ok(()) };
        let salt = resumed.map_or_else(|| self.salt(version_no), |ramp| ramp.salt);
        let mono = self.mono;
        if let Some(percent) = resumed.map(|ramp| ramp.percent).or(first_step) {
            let mut trial = Trial::ramp(version_no, baseline_no, salt, percent, mono);
            trial.paused = resumed.is_some_and(|ramp| ramp.paused);
            self.try_beside(pool, Change::Ramp, trial);
            return self.record_trial(type_no);
        }
        if is_gated && !self.is_idle(type_no, pool) {
            let trial = Trial::gate(version_no, baseline_no, salt, self.before(type_no), mono);
            self.try_beside(pool, Change::Gate, trial);
            return Ok(());
        }
        self.promote(pool)
    }

    /// How the version that new work goes to has fared.
    fn before(&self, type_no: u32) -> Before {
        let current = self.types.get(&type_no).and_then(|of_type| of_type.current);
        let Some(run) = current.and_then(|current| self.pools.get(&current)) else { return Before::default() };
        let (took, _) = shares(std::iter::once(&run.recent), self.mono);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time that is not negative")]
        let p95_ms = took.map(|took| took.p95.ceil() as u64);
        Before { history: run.history, p95_ms }
    }

    /// Tells ramps apart: each chooses other jobs.
    fn salt(&self, version_no: u32) -> u64 {
        self.table.generation().number << 32 | u64::from(version_no)
    }

    fn try_beside(&mut self, pool: PoolId, change: Change, trial: Trial) {
        if !self.shift(pool, change) {
            return;
        }
        let Some(run) = self.pools.get_mut(&pool) else { return };
        let of_type = self.types.entry(run.type_no).or_default();
        of_type.leaves(pool);
        of_type.candidate = Some(pool);
        of_type.trial = Some(trial);
        self.rollover.on_trial.insert(run.type_no);
        self.candidate_size(pool);
    }

    /// A candidate has as many workers as it may have, or as the version that it is to replace has now.
    fn candidate_size(&mut self, pool: PoolId) {
        let Some(type_no) = self.pools.get(&pool).map(|run| run.type_no) else { return };
        let current = self.types.get(&type_no).and_then(|of_type| self.pools.get(&of_type.current?));
        let has = current.map_or(1, |run| run.pool.size());
        let mono = self.mono;
        let Some(run) = self.pools.get_mut(&pool) else { return };
        let concurrency = run.spec.worker.live.concurrency;
        run.resize(has.max(1).clamp(concurrency.min.max(1), concurrency.max), mono);
    }

    /// A version takes over, and is on probation while the one before stays.
    pub(in crate::engine) fn promote(&mut self, pool: PoolId) -> Result<(), Poisoned> {
        let Some(run) = self.pools.get(&pool) else { return Ok(()) };
        let (type_no, version_no) = (run.type_no, run.version_no);
        let Some(baseline_no) = self.current_version(type_no) else { return Ok(()) };
        let before = self.before(type_no);
        let of_type = self.types.entry(type_no).or_default();
        let trial = of_type.trial.take().filter(|trial| trial.version_no == version_no);
        self.take_over(pool)?;
        let (salt, mono) = (self.salt(version_no), self.mono);
        let of_type = self.types.entry(type_no).or_default();
        if of_type.warm.is_none() {
            return self.end_trial(type_no);
        }
        let mut trial = trial.unwrap_or_else(|| Trial::probation(version_no, baseline_no, salt, before, mono));
        trial.takes_over(before, mono);
        of_type.trial = Some(trial);
        self.rollover.on_trial.insert(type_no);
        self.record_trial(type_no)
    }

    /// Records how a type's trial stands.
    pub(in crate::engine) fn record_trial(&mut self, type_no: u32) -> Result<(), Poisoned> {
        let Some(of_type) = self.table.worker_type(type_no) else { return Ok(()) };
        let none = Ramped { type_no, previous: of_type.previous, at: self.now, ..Ramped::default() };
        let trial = self.types.get(&type_no).and_then(|of_type| of_type.trial.as_ref());
        let now = trial.filter(|trial| !trial.is_gated()).map_or(none, |trial| Ramped {
            version_no: trial.version_no,
            percent: trial.percent,
            salt: trial.salt,
            paused: trial.paused,
            ..none
        });
        let before = of_type.ramp.unwrap_or(Ramped { type_no, ..Ramped::default() });
        if (Ramped { at: 0, previous: 0, ..now }) != (Ramped { at: 0, previous: 0, ..before }) {
            self.record(&Event::Ramped(now))?;
        }
        Ok(())
    }

    /// No version of a type is on trial any more.
    pub(in crate::engine) fn end_trial(&mut self, type_no: u32) -> Result<(), Poisoned> {
        if let Some(of_type) = self.types.get_mut(&type_no) {
            of_type.trial = None;
        }
        self.rollover.on_trial.remove(&type_no);
        self.record_trial(type_no)
    }

    /// A warm pool ends: whatever was on probation beside it is not any more.
    pub(in crate::engine) fn end_trial_of(&mut self, warm: PoolId) -> Result<(), Poisoned> {
        let Some(type_no) = self.pools.get(&warm).map(|run| run.type_no) else { return Ok(()) };
        if self.is_on_probation(type_no) { self.end_trial(type_no) } else { Ok(()) }
    }

    /// What starts, or is on trial without having taken over, ends, and nothing follows it; what new work goes to goes on.
    pub(in crate::engine) fn stay(&mut self, type_no: u32) -> Result<(), Poisoned> {
        let Some(of_type) = self.types.get_mut(&type_no) else { return Ok(()) };
        (of_type.next, of_type.unmade) = (None, None);
        if let Some(incoming) = of_type.incoming {
            self.dismiss(incoming, Some(self.mono))?;
        }
        self.end_candidate(type_no)
    }

    /// What is on trial without having taken over ends.
    pub(super) fn end_candidate(&mut self, type_no: u32) -> Result<(), Poisoned> {
        let candidate = self.types.get(&type_no).and_then(|of_type| of_type.candidate);
        let Some(candidate) = candidate else { return Ok(()) };
        self.end_trial(type_no)?;
        self.leave_unproven(candidate);
        let deadline = self.mono + self.rollout_of(type_no).drain_timeout;
        self.end_pool(candidate, Change::Replace, Some(deadline), None)
    }

    /// The version whose workers stayed takes over again, as it was: nobody has to prove anything.
    pub(in crate::engine) fn go_back(&mut self, type_no: u32) -> Result<(), Poisoned> {
        let Some(warm) = self.types.get(&type_no).and_then(|of_type| of_type.warm) else { return Ok(()) };
        let current = self.types.get(&type_no).and_then(|of_type| of_type.current);
        if let Some(current) = current.filter(|_| self.is_on_probation(type_no)) {
            self.leave_unproven(current);
        }
        self.end_trial(type_no)?;
        self.take_over(warm)?;
        self.settings_of_current(type_no);
        Ok(())
    }

    /// The version on trial does worse, or somebody says so: it gets no work any more, and the one before all of it.
    pub(in crate::engine) fn withdraw(&mut self, type_no: u32, why: String) -> Result<(), Poisoned> {
        let Some(of_type) = self.types.get_mut(&type_no) else { return Ok(()) };
        let Some(trial) = of_type.trial.take() else { return Ok(()) };
        let withdrawn = match (of_type.candidate, of_type.warm) {
            (Some(candidate), _) => Some(candidate),
            // On probation: work goes back to where it went before.
            (None, Some(warm)) => {
                // What starts beside it may be a newer one; it itself may be gone.
                let is_it =
                    |pool: &mut PoolId| self.pools.get(pool).is_some_and(|run| run.version_no == trial.version_no);
                let over = of_type.current.take_if(is_it).or_else(|| of_type.incoming.take_if(is_it));
                self.take_over(warm)?;
                over
            }
            (None, None) => {
                debug_assert!(false, "a probation without a way back");
                return self.end_trial(type_no);
            }
        };
        self.end_trial(type_no)?;
        let no = trial.version_no;
        let label = self.label_of(no);
        self.record(&Event::Quarantined(Quarantined { no, at: self.now }, why.as_bytes()))?;
        let name = self.name_of(type_no);
        tracing::warn!(worker_type = name, version = label, why, "withdrawn; the version before does the work");
        let deadline = self.mono + self.rollout_of(type_no).drain_timeout;
        if let Some(pool) = withdrawn {
            self.leave_unproven(pool);
            self.end_pool(pool, Change::Withdraw, Some(deadline), Some(why.clone()))?;
        }
        self.settings_of_current(type_no);
        if let Some(name) = self.table.worker_type(type_no).map(|of_type| of_type.name.clone()) {
            self.changed(name, "withdrawn", None, label, Some(why));
        }
        self.settle()?;
        Ok(())
    }

    /// A version that took over is under a suspicion: the one before takes over again, and it keeps a share until that is
    /// cleared up.
    fn step_back(&mut self, type_no: u32, percent: u8) -> Result<(), Poisoned> {
        let Some(of_type) = self.types.get_mut(&type_no) else { return Ok(()) };
        let (Some(warm), Some(over)) = (of_type.warm, of_type.current) else {
            debug_assert!(false, "a probation without a way back");
            return self.end_trial(type_no);
        };
        of_type.current = None;
        self.take_over(warm)?;
        if !self.shift(over, Change::Ramp) {
            return Ok(());
        }
        let mono = self.mono;
        let of_type = self.types.entry(type_no).or_default();
        of_type.candidate = Some(over);
        if let Some(trial) = &mut of_type.trial {
            trial.steps_back(percent, mono);
        }
        tracing::warn!(
            worker_type = self.name_of(type_no),
            percent,
            "more fails than before: the version before does the rest meanwhile"
        );
        self.record_trial(type_no)
    }

    /// Does what is due about versions on trial.
    pub(in crate::engine) fn go_on_with_trials(&mut self) -> Result<(), Poisoned> {
        if self.rollover.on_trial.is_empty() || self.is_stopping() || self.stands_still() {
            return Ok(());
        }
        for type_no in self.rollover.on_trial.clone() {
            self.note_drift(type_no);
            match self.step_of(type_no) {
                Some(Step::Share(percent)) => {
                    let mono = self.mono;
                    if let Some(trial) = self.types.get_mut(&type_no).and_then(|of_type| of_type.trial.as_mut()) {
                        trial.set_share(percent, mono);
                    }
                    self.record_trial(type_no)?;
                }
                Some(Step::TakeOver) => {
                    if let Some(pool) = self.types.get(&type_no).and_then(|of_type| of_type.candidate) {
                        self.promote(pool)?;
                        self.settle()?;
                    }
                }
                Some(Step::StepBack(percent)) => self.step_back(type_no, percent)?,
                Some(Step::Withdraw) => {
                    let why = self.why_worse(type_no).unwrap_or_default();
                    self.withdraw(type_no, why)?;
                }
                Some(Step::Wait(_)) => {}
                None => {
                    self.rollover.on_trial.remove(&type_no);
                }
            }
        }
        Ok(())
    }

    /// Of a version whose files have changed nothing is learned.
    fn note_drift(&mut self, type_no: u32) {
        let Some(of_type) = self.types.get_mut(&type_no) else { return };
        let drifted = of_type.pools().any(|pool| self.pools.get(&pool).is_some_and(|run| run.drifted().is_some()));
        if let Some(trial) = &mut of_type.trial {
            trial.drifted = drifted;
        }
    }

    fn step_of(&self, type_no: u32) -> Option<Step> {
        let of_type = self.types.get(&type_no)?;
        let trial = of_type.trial.as_ref()?;
        let idle = of_type.candidate.is_some_and(|pool| self.is_idle(type_no, pool));
        Some(trial.next(self.mono, idle, self.rollout_of(type_no)))
    }

    /// When something is due about a trial, by the steady clock.
    pub(in crate::engine) fn next_of_trials(&self) -> impl Iterator<Item = Duration> + '_ {
        self.rollover.on_trial.iter().filter_map(|type_no| match self.step_of(*type_no)? {
            Step::Wait(until) => until,
            Step::Share(_) | Step::TakeOver | Step::StepBack(_) | Step::Withdraw => None,
        })
    }

    /// What speaks against the version on trial, in a line.
    pub(in crate::engine) fn evidence_sentence(&self, type_no: u32) -> Option<String> {
        let trial = self.types.get(&type_no)?.trial.as_ref()?;
        let label = |no| self.label_of(no).unwrap_or_default();
        Some(trial.evidence.shown().sentence(&label(trial.version_no), &label(trial.baseline_no)))
    }

    /// Why the version on trial is withdrawn: what speaks against it, and what it failed of last.
    fn why_worse(&self, type_no: u32) -> Option<String> {
        let trial = self.types.get(&type_no)?.trial.as_ref()?;
        let version = self.label_of(trial.version_no).unwrap_or_default();
        Some(format!("{}; the last failure of {version}: {}", self.evidence_sentence(type_no)?, trial.last_error))
    }

    /// Whether no job of a type waits to be handed out, and a pool holds none.
    fn is_idle(&self, type_no: u32, pool: PoolId) -> bool {
        let waits = self.table.worker_type(type_no).is_some_and(|of_type| !of_type.queue.is_empty());
        !waits && self.pools.get(&pool).is_none_or(|run| run.handed == 0)
    }

    pub(in crate::engine) fn is_on_probation(&self, type_no: u32) -> bool {
        let Some(of_type) = self.types.get(&type_no) else { return false };
        let has_way_back = of_type.warm.is_some() && self.standby(type_no).is_none();
        has_way_back && of_type.trial.as_ref().is_some_and(Trial::is_probation)
    }

    /// How new versions of a type take over.
    pub(in crate::engine) fn rollout_of(&self, type_no: u32) -> &Rollout {
        static USUAL: LazyLock<Rollout> = LazyLock::new(Rollout::default);
        let worker = self.types.get(&type_no).and_then(|of_type| of_type.worker.as_ref());
        worker.map_or(&USUAL, |worker| &worker.live.rollout)
    }

    /// The version that new work of a type goes to.
    pub(in crate::engine) fn current_version(&self, type_no: u32) -> Option<u32> {
        let current = self.types.get(&type_no)?.current?;
        Some(self.pools.get(&current)?.version_no)
    }

    /// What stands of a type.
    pub(in crate::engine) fn standing(&self, type_no: u32) -> Standing {
        let Some(of_type) = self.types.get(&type_no) else { return Standing::default() };
        let run = |pool: Option<PoolId>| pool.and_then(|pool| self.pools.get(&pool));
        let version = |pool: Option<PoolId>| run(pool).map(|run| run.version_no);
        let previous = self.table.worker_type(type_no).map_or(0, |of_type| of_type.previous);
        let unmade = of_type.unmade.as_ref().filter(|_| of_type.current.is_none());
        Standing {
            current: version(of_type.current),
            starting: version(of_type.incoming).or(unmade.map(|unmade| unmade.past.version_no)),
            not_up: match run(of_type.incoming) {
                Some(run) => run.not_up.is_some(),
                None => unmade.is_some_and(|unmade| unmade.is_broken),
            },
            on_trial: version(of_type.candidate),
            // While it starts, nobody can go back to it yet.
            warm: version(of_type.warm.filter(|warm| !self.is_standby(*warm))),
            previous: (previous != 0).then_some(previous),
        }
    }

    /// A pool leaves its trial without having passed it, and may hold jobs yet.
    pub(in crate::engine) fn leave_unproven(&mut self, pool: PoolId) {
        if let Some(run) = self.pools.get_mut(&pool) {
            run.unproven = true;
        }
    }

    /// A version's share of first attempts, in percent.
    pub(in crate::engine) fn percent_of(&self, run: &PoolRun) -> u8 {
        let trial = self.types.get(&run.type_no).and_then(|of_type| of_type.trial.as_ref());
        let share = trial.filter(|trial| trial.is_ramp()).map_or(0, |trial| trial.percent);
        match run.role {
            State::Ramping => share,
            State::Current => ALL - share,
            State::Starting | State::Gating | State::Draining | State::Warm => 0,
            State::Retired | State::Rejected | State::Quarantined => 0,
        }
    }
}
