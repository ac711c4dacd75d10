//! The life of a version in this process: its pool starts, takes over, drains, is kept warm, and ends.
//!
//! Carries out what [`crate::rollover`] says, by its table of states; what there is to decide about a version on trial is
//! carried out in [`super::trials`].

use std::sync::Arc;
use std::time::Duration;

use crate::engine::VersionSpec;
use crate::engine::command::Command;
use crate::engine::core::Core;
use crate::engine::runs::PoolRun;
use crate::engine::shown::health::Health;
use crate::job::event::{Event, Release, Routed, VersionRejected};
use crate::log::Poisoned;
use crate::pool::{PoolId, PoolSpec, Report};
use crate::recent::Recent;
use crate::rollover::History;
use crate::rollover::state::{self, Change, State as Role};
use crate::types::Label;
use crate::worker::WorkerFactory;

/// Why a version that was cut off is no way back.
const CUT_OFF: &str = "it was cut off, since it had not finished what it held";

impl Core {
    /// Starts a version, which is given work once it is up.
    pub(in crate::engine) fn start(
        &mut self,
        type_no: u32,
        version_no: u32,
        spec: VersionSpec,
    ) -> Result<(), Poisoned> {
        if self.table.version(version_no).is_none() || self.hasten(type_no, version_no)? {
            return Ok(());
        }
        match self.launch(type_no, version_no, spec.clone()) {
            Ok(pool) => {
                self.types.entry(type_no).or_default().incoming = Some(pool);
                self.make_place(type_no, spec.worker.live.rollout.versions_max)
            }
            Err(why) => self.not_made(type_no, version_no, spec, why),
        }
    }

    /// Makes a version's pool, with one worker at first; or says why there is none.
    pub(in crate::engine) fn launch(
        &mut self,
        type_no: u32,
        version_no: u32,
        spec: VersionSpec,
    ) -> Result<PoolId, String> {
        let label = self.table.version(version_no).map(|version| version.label.clone());
        let label = label.ok_or("it is not known")?;
        self.rollover.pools_made += 1;
        let id = PoolId(self.rollover.pools_made);
        let to_engine = self.to_self.clone();
        let report: crate::pool::Reporter =
            Arc::new(move |report: Report| drop(to_engine.send(Command::Pool(id, report))));
        let parts = PoolSpec {
            worker_type: spec.worker.worker_type.as_str().into(),
            label: label.as_str().into(),
            factory: Arc::clone(&spec.factory) as Arc<dyn WorkerFactory>,
            live: spec.worker.live.clone(),
        };
        let pool = self.pool_maker.make(parts, self.log.reader(), self.ids, report);
        let started = pool.and_then(|mut pool| pool.resize(1).map(|()| pool));
        let pool = started.map_err(|error| format!("no thread or descriptor for its pool: {error}"))?;
        let batch = spec.worker.live.batch;
        let run = PoolRun {
            pool,
            type_no,
            version_no,
            label,
            role: Role::Starting,
            since: self.now,
            made_at: self.mono,
            up: 0,
            handed: 0,
            leases_before: self.leases,
            begun: 0,
            quiet_since: Duration::ZERO,
            health: Health::default(),
            recent: Recent::new(self.mono),
            history: History::default(),
            runs: self.measured.take(version_no),
            look_at: Duration::ZERO,
            window: 0,
            // Long ago: a window grows only by what its pool has shown.
            handed_at: Duration::ZERO,
            batch,
            short: None,
            not_up: None,
            leaving: 0,
            deadline: None,
            why_over: None,
            unproven: false,
            spec,
        };
        self.pools.insert(id, run);
        let of_type = self.types.entry(type_no).or_default();
        of_type.past.retain(|past| past.version_no != version_no);
        Ok(id)
    }

    /// Moves a pool along the table of states; `false` if the table does not have that.
    pub(in crate::engine) fn shift(&mut self, pool: PoolId, change: Change) -> bool {
        let now = self.now;
        let Some(run) = self.pools.get_mut(&pool) else { return false };
        match state::next(run.role, change) {
            Some(next) => {
                tracing::debug!(version = %run.label, from = run.role.word(), to = next.word(), "rollover");
                (run.role, run.since) = (next, now);
                true
            }
            None => {
                debug_assert!(false, "{change:?} of a version that is {:?}", run.role);
                tracing::error!(version = %run.label, state = run.role.word(), ?change, "a change that cannot be");
                false
            }
        }
    }

    /// No more versions of a type work at once than may: the oldest one that drains is hurried.
    fn make_place(&mut self, type_no: u32, most: u32) -> Result<(), Poisoned> {
        let working = |run: &PoolRun| run.type_no == type_no && !run.role.is_over() && run.role != Role::Warm;
        let count = self.pools.values().filter(|run| working(run)).count();
        if count <= most as usize {
            return Ok(());
        }
        let draining = |(_, run): &(&PoolId, &PoolRun)| working(run) && run.role == Role::Draining;
        let Some(oldest) = self.pools.iter().find(draining).map(|(pool, _)| *pool) else { return Ok(()) };
        if let Some(run) = self.pools.get(&oldest) {
            tracing::warn!(worker_type = self.name_of(type_no), version = %run.label, "cut off: more versions would work at once than `rollout.versions_max`");
        }
        self.cut_off(oldest)
    }

    /// A worker is up: if its pool was waiting for that, the version is given work.
    pub(in crate::engine) fn pool_up(&mut self, pool: PoolId) -> Result<(), Poisoned> {
        let Some(run) = self.pools.get_mut(&pool) else { return Ok(()) };
        run.up += 1;
        run.not_up = None;
        run.health.up();
        if run.role != Role::Starting {
            return Ok(());
        }
        let type_no = run.type_no;
        if self.is_standby(pool) {
            return self.stands_by(pool);
        }
        if self.types.get(&type_no).is_some_and(|of_type| of_type.current.is_some()) {
            self.begin_trial(pool)?;
        } else {
            self.take_over(pool)?;
            self.resume_probation(type_no)?;
        }
        self.start_next(type_no)?;
        self.settle()
    }

    /// New work goes to this pool from now on; what it went to before drains.
    pub(in crate::engine) fn take_over(&mut self, pool: PoolId) -> Result<(), Poisoned> {
        let Some(run) = self.pools.get(&pool) else { return Ok(()) };
        let (type_no, version_no) = (run.type_no, run.version_no);
        if !self.shift(pool, Change::TakeOver) {
            return Ok(());
        }
        let of_type = self.types.entry(type_no).or_default();
        for place in [&mut of_type.incoming, &mut of_type.candidate, &mut of_type.warm] {
            place.take_if(|there| *there == pool);
        }
        let old = of_type.current.replace(pool);
        of_type.no_way_back.take_if(|_| old.is_some());
        if let Some(run) = self.pools.get_mut(&pool) {
            run.deadline = None;
        }
        self.first_size(pool, old);
        self.route(type_no, version_no)?;
        match old {
            Some(old) => self.replace(old),
            None => Ok(()),
        }
    }

    /// A pool that has taken new work takes none any more: it finishes what it holds, and is kept for a while after that.
    pub(in crate::engine) fn replace(&mut self, pool: PoolId) -> Result<(), Poisoned> {
        if !self.shift(pool, Change::Replace) {
            return Ok(());
        }
        let Some(run) = self.pools.get_mut(&pool) else { return Ok(()) };
        let type_no = run.type_no;
        let settings = self.types.get(&type_no).and_then(|of_type| of_type.worker.as_ref());
        let rollout = settings.map(|worker| worker.live.rollout.clone());
        // A type that the config has no more has no settings, and no way back.
        let kept = rollout.as_ref().is_some_and(|rollout| !rollout.warm_for.is_zero());
        let drain_timeout = rollout.map_or(run.spec.worker.live.rollout.drain_timeout, |rollout| rollout.drain_timeout);
        run.leaving = run.pool.size();
        run.deadline = Some(self.mono + drain_timeout);
        // The file of a program is often replaced in its place: then this version is not what it was from here on.
        let _ = run.spec.factory.files().and_then(|files| files.drifted_by(self.mono));
        let of_type = self.types.entry(type_no).or_default();
        of_type.leaves(pool);
        let before = if kept { of_type.warm.replace(pool) } else { of_type.warm.take() };
        if let Some(before) = before {
            self.let_go(before)?;
        }
        let Some(run) = self.pools.get_mut(&pool) else { return Ok(()) };
        let tasks = if kept { run.pool.take_back() } else { run.pool.drain() };
        self.take_back(pool, tasks, Release::Interrupt)?;
        self.note_empty(pool)
    }

    /// A pool that drains holds nothing any more: it is warm from then on, if it is kept.
    pub(in crate::engine) fn note_empty(&mut self, pool: PoolId) -> Result<(), Poisoned> {
        let Some(run) = self.pools.get(&pool).filter(|run| run.role == Role::Draining && run.handed == 0) else {
            return Ok(());
        };
        let of_type = self.types.get(&run.type_no).filter(|of_type| of_type.warm == Some(pool));
        let Some(worker) = of_type.and_then(|of_type| of_type.worker.as_ref()) else { return Ok(()) };
        let warm_for = worker.live.rollout.warm_for;
        let scaled = run.spec.worker.live.concurrency.is_scaled();
        self.shift(pool, Change::Empty);
        if let Some(run) = self.pools.get_mut(&pool) {
            run.deadline = Some(self.mono + warm_for);
            if scaled {
                run.resize(1, self.mono);
            }
        }
        self.settle()
    }

    /// A pool that was kept, or may finish what it holds, is not kept any more; what it holds it still finishes.
    pub(in crate::engine) fn let_go(&mut self, pool: PoolId) -> Result<(), Poisoned> {
        let Some(run) = self.pools.get_mut(&pool) else { return Ok(()) };
        let tasks = run.pool.drain();
        if run.role == Role::Warm {
            self.shift(pool, Change::Expire);
        } else if run.role == Role::Starting {
            // It was to be a way back, and is not needed any more.
            self.shift(pool, Change::Replace);
        }
        if let Some(run) = self.pools.get_mut(&pool)
            && let Some(of_type) = self.types.get_mut(&run.type_no)
        {
            of_type.leaves(pool);
        }
        self.take_back(pool, tasks, Release::Interrupt)
    }

    /// Ends a pool by this change: it gives back what it has not begun, and finishes the rest until `deadline`.
    pub(in crate::engine) fn end_pool(
        &mut self,
        pool: PoolId,
        change: Change,
        deadline: Option<Duration>,
        why: Option<String>,
    ) -> Result<(), Poisoned> {
        if !self.shift(pool, change) {
            return Ok(());
        }
        let Some(run) = self.pools.get_mut(&pool) else { return Ok(()) };
        (run.deadline, run.why_over, run.leaving) = (deadline, why, run.pool.size());
        let tasks = run.pool.drain();
        if let Some(of_type) = self.types.get_mut(&run.type_no) {
            of_type.leaves(pool);
        }
        self.take_back(pool, tasks, Release::Interrupt)
    }

    /// Ends whatever a pool is, for a stop or since its type is gone; `deadline`: for one that works.
    pub(in crate::engine) fn dismiss(&mut self, pool: PoolId, deadline: Option<Duration>) -> Result<(), Poisoned> {
        let Some(run) = self.pools.get(&pool) else { return Ok(()) };
        match run.role {
            Role::Starting => self.end_pool(pool, Change::Replace, Some(self.mono), None),
            Role::Gating | Role::Ramping | Role::Current => self.end_pool(pool, Change::Replace, deadline, None),
            Role::Draining | Role::Warm => self.let_go(pool),
            Role::Retired | Role::Rejected | Role::Quarantined => Ok(()),
        }
    }

    /// What a draining pool still runs is ended, and given back: no work goes back to it.
    fn cut_off(&mut self, pool: PoolId) -> Result<(), Poisoned> {
        let Some(run) = self.pools.get_mut(&pool) else { return Ok(()) };
        let (type_no, version_no) = (run.type_no, run.version_no);
        run.deadline = None;
        run.pool.cut_off();
        let is_way_back = self.types.get(&type_no).is_some_and(|of_type| of_type.warm == Some(pool));
        let ends_probation = is_way_back && self.is_on_probation(type_no);
        self.let_go(pool)?;
        if !ends_probation {
            return Ok(());
        }
        let warm_for = self.rollout_of(type_no).warm_for;
        self.no_way_back(type_no, version_no, warm_for, CUT_OFF)
    }

    /// Ends what had its time: to finish what it holds, or as a way back.
    pub(in crate::engine) fn end_of_deadlines(&mut self) -> Result<(), Poisoned> {
        let mono = self.mono;
        let late = self.pools.iter().filter(|(_, run)| run.deadline.is_some_and(|at| at <= mono));
        let late: Vec<(PoolId, Role)> = late.map(|(pool, run)| (*pool, run.role)).collect();
        for (pool, role) in late {
            if role == Role::Warm {
                self.end_trial_of(pool)?;
                if let Some(run) = self.pools.get_mut(&pool) {
                    run.deadline = None;
                }
                self.let_go(pool)?;
            } else {
                self.cut_off(pool)?;
            }
        }
        Ok(())
    }

    /// Starts the version that was wanted while another one was still starting.
    pub(super) fn start_next(&mut self, type_no: u32) -> Result<(), Poisoned> {
        let next = self.types.get_mut(&type_no).and_then(|of_type| of_type.next.take());
        let Some((version_no, spec)) = next else { return Ok(()) };
        let standing = self.standing(type_no);
        if standing.current == Some(version_no) {
            // It stood by, and has taken over meanwhile.
            Ok(())
        } else if standing.warm == Some(version_no) {
            self.go_back(type_no)
        } else {
            self.types.entry(type_no).or_default().worker = Some(spec.worker.clone());
            self.start(type_no, version_no, spec)
        }
    }

    pub(in crate::engine) fn route(&mut self, type_no: u32, version_no: u32) -> Result<(), Poisoned> {
        if self.table.worker_type(type_no).is_some_and(|of_type| of_type.route != version_no) {
            self.record(&Event::Routed(Routed { type_no, version_no, at: self.now }))?;
        }
        Ok(())
    }

    /// A worker could not be started.
    pub(in crate::engine) fn pool_not_up(&mut self, pool: PoolId, why: String, was_up: bool) -> Result<(), Poisoned> {
        let Some(run) = self.pools.get_mut(&pool) else { return Ok(()) };
        if was_up {
            run.up = run.up.saturating_sub(1);
        }
        run.health.fails(why.clone(), was_up, self.now, self.mono);
        let first = run.not_up.replace(why.clone()).is_none();
        let (role, up, type_no, version_no, label) = (run.role, run.up, run.type_no, run.version_no, run.label.clone());
        let of_type = self.types.get(&type_no);
        let predecessor = of_type.and_then(|of_type| of_type.current);
        let is_followed = of_type.is_some_and(|of_type| of_type.next.is_some());
        match role {
            Role::Starting if self.is_standby(pool) => return self.standby_not_up(pool, &why),
            Role::Starting if self.fall_back(type_no)? => {}
            Role::Starting if predecessor.is_some() => {
                self.end_pool(pool, Change::Fail, Some(self.mono), Some(why.clone()))?;
                self.reject_version(type_no, version_no, label, why)?;
            }
            Role::Starting if self.kept_up(type_no).is_some() => {
                self.end_pool(pool, Change::Fail, Some(self.mono), Some(why.clone()))?;
                self.stand_in(type_no)?;
                self.reject_version(type_no, version_no, label, why)?;
                self.start_next(type_no)?;
            }
            Role::Starting if is_followed => {
                self.end_pool(pool, Change::Fail, Some(self.mono), Some(why))?;
                self.start_next(type_no)?;
            }
            Role::Starting => {
                // Nothing else could serve the type: it is tried again and again, and shown.
                if first {
                    tracing::warn!(worker_type = self.name_of(type_no), version = %label, why, "a worker could not be started; it will be tried again");
                    self.tell_rejected(type_no, &label, why);
                }
            }
            Role::Gating | Role::Ramping if up == 0 => {
                self.leave_unproven(pool);
                self.end_pool(pool, Change::Fail, Some(self.mono), Some(why.clone()))?;
                self.end_trial(type_no)?;
                self.reject_version(type_no, version_no, label, why)?;
            }
            Role::Current if up == 0 && self.is_on_probation(type_no) => {
                self.withdraw(type_no, format!("no worker of it stays up: {why}"))?;
            }
            Role::Current if up == 0 => {
                tracing::warn!(worker_type = self.name_of(type_no), version = %label, why, "no worker can be started; its jobs wait");
                let tasks = self.pools.get(&pool).map(|run| run.pool.take_back()).unwrap_or_default();
                self.take_back(pool, tasks, Release::NotStarted)?;
            }
            Role::Gating | Role::Ramping | Role::Current | Role::Draining | Role::Warm => {}
            Role::Retired | Role::Rejected | Role::Quarantined => {}
        }
        self.settle()
    }

    /// A worker that was up has left, since its pool has become smaller.
    pub(in crate::engine) fn worker_left(&mut self, pool: PoolId) -> Result<(), Poisoned> {
        let Some(run) = self.pools.get_mut(&pool) else { return Ok(()) };
        run.up = run.up.saturating_sub(1);
        if run.up > 0 || run.not_up.is_none() || !run.role.takes_work() {
            return Ok(());
        }
        // It was the last one that was up, and those that are to replace it cannot start.
        let tasks = run.pool.take_back();
        self.take_back(pool, tasks, Release::NotStarted)
    }

    /// Records that a version is rejected, and tells so.
    pub(super) fn reject_version(
        &mut self,
        type_no: u32,
        version_no: u32,
        label: Label,
        why: String,
    ) -> Result<(), Poisoned> {
        tracing::warn!(worker_type = self.name_of(type_no), version = %label, why, "rejected: it could not start; what ran before goes on");
        self.record(&Event::VersionRejected(VersionRejected { no: version_no, at: self.now }, why.as_bytes()))?;
        self.tell_rejected(type_no, &label, why);
        // Nobody goes back to it any more.
        self.types.entry(type_no).or_default().way_back.take_if(|way_back| *way_back == version_no);
        self.settings_of_current(type_no);
        Ok(())
    }

    /// The settings that stand are those of the version that goes on.
    pub(in crate::engine) fn settings_of_current(&mut self, type_no: u32) {
        let of_type = self.types.entry(type_no).or_default();
        if let Some(run) = of_type.current.and_then(|pool| self.pools.get(&pool)) {
            of_type.worker = Some(run.spec.worker.clone());
        }
    }

    pub(super) fn tell_rejected(&mut self, type_no: u32, label: &Label, why: String) {
        let Some(name) = self.table.worker_type(type_no).map(|of_type| of_type.name.clone()) else { return };
        self.changed(name, "rejected", None, Some(label.to_string()), Some(why));
    }
}
