//! The life of a version in this process: its pool starts, takes over, drains and ends.

use std::sync::Arc;
use std::time::Duration;

use super::VersionSpec;
use super::command::Command;
use super::core::Core;
use super::health::Health;
use super::runs::{Past, PoolRun, Role};
use crate::job::event::{Event, Release, Routed, VersionRejected};
use crate::job::transition::State;
use crate::log::Poisoned;
use crate::pool::{PoolId, PoolSpec, Report};
use crate::recent::Recent;
use crate::types::Label;
use crate::worker::WorkerFactory;

/// Versions that ended and are still shown, for each type.
const PAST_SHOWN: usize = 3;

impl Core {
    /// Starts a version's pool, with one worker at first.
    pub(super) fn start(&mut self, type_no: u32, version_no: u32, spec: VersionSpec) -> Result<(), Poisoned> {
        let Some(version) = self.table.version(version_no) else { return Ok(()) };
        let label = version.label.clone();
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
        let pool = match started {
            Ok(pool) => pool,
            Err(error) => {
                let reason = format!("no thread or descriptor for its pool: {error}");
                return self.reject_version(type_no, version_no, label, reason);
            }
        };
        let batch = spec.worker.live.batch;
        let run = PoolRun {
            pool,
            type_no,
            version_no,
            label,
            role: Role::Starting,
            up: 0,
            handed: 0,
            begun: 0,
            quiet_since: Duration::ZERO,
            health: Health::default(),
            recent: Recent::new(self.mono),
            look_at: Duration::ZERO,
            window: 0,
            // Long ago: a window grows only by what its pool has shown.
            handed_at: Duration::ZERO,
            batch,
            not_up: None,
            leaving: 0,
            drain_deadline: None,
            rejected: None,
            spec,
        };
        self.pools.insert(id, run);
        self.types.entry(type_no).or_default().incoming = Some(id);
        Ok(())
    }

    /// A worker is up: if its pool was waiting for that, the version takes over.
    pub(super) fn pool_up(&mut self, pool: PoolId) -> Result<(), Poisoned> {
        let Some(run) = self.pools.get_mut(&pool) else { return Ok(()) };
        run.up += 1;
        run.not_up = None;
        run.health.up();
        if run.role != Role::Starting {
            return Ok(());
        }
        run.role = Role::Current;
        let (type_no, version_no) = (run.type_no, run.version_no);
        let of_type = self.types.entry(type_no).or_default();
        of_type.incoming = None;
        let old = of_type.current.replace(pool);
        self.first_size(pool, old);
        let of_type = self.types.entry(type_no).or_default();
        let drain_timeout = of_type.worker.as_ref().map_or(Duration::ZERO, |worker| worker.live.drain_timeout);
        self.route(type_no, version_no)?;
        if let Some(old) = old {
            self.drain(old, Some(self.mono + drain_timeout))?;
        }
        self.start_next(type_no)?;
        self.settle()
    }

    /// Starts the version that was wanted while another one was still starting.
    fn start_next(&mut self, type_no: u32) -> Result<(), Poisoned> {
        match self.types.get_mut(&type_no).and_then(|of_type| of_type.next.take()) {
            Some((version_no, spec)) => self.start(type_no, version_no, spec),
            None => Ok(()),
        }
    }

    pub(super) fn route(&mut self, type_no: u32, version_no: u32) -> Result<(), Poisoned> {
        if self.table.worker_type(type_no).is_some_and(|of_type| of_type.route != version_no) {
            self.record(&Event::Routed(Routed { type_no, version_no, at: self.now }))?;
        }
        Ok(())
    }

    /// A worker could not be started.
    pub(super) fn pool_not_up(&mut self, pool: PoolId, why: String, was_up: bool) -> Result<(), Poisoned> {
        let Some(run) = self.pools.get_mut(&pool) else { return Ok(()) };
        if was_up {
            run.up = run.up.saturating_sub(1);
        }
        run.health.fails(why.clone(), was_up, self.now, self.mono);
        let first = run.not_up.replace(why.clone()).is_none();
        let (role, type_no, version_no, label) = (run.role, run.type_no, run.version_no, run.label.clone());
        let predecessor = self.types.get(&type_no).and_then(|of_type| of_type.current);
        match role {
            Role::Starting if predecessor.is_some() => {
                run.rejected = Some(why.clone());
                self.drain(pool, Some(self.mono))?;
                self.reject_version(type_no, version_no, label, why)?;
            }
            Role::Starting if self.types.get(&type_no).is_some_and(|of_type| of_type.next.is_some()) => {
                run.rejected = Some(why);
                self.drain(pool, Some(self.mono))?;
                self.start_next(type_no)?;
            }
            Role::Starting => {
                // Nothing else could serve the type: it is tried again and again, and shown.
                if first {
                    tracing::warn!(version = %label, why, "a worker could not be started; it will be tried again");
                    self.tell_rejected(type_no, &label, why);
                }
            }
            Role::Current if run.up == 0 => {
                tracing::warn!(version = %label, why, "no worker can be started; its jobs wait");
                let tasks = run.pool.take_back();
                self.take_back(pool, tasks, Release::NotStarted)?;
            }
            Role::Current | Role::Draining => {}
        }
        self.settle()
    }

    /// A worker that was up has left, since its pool has become smaller.
    pub(super) fn worker_left(&mut self, pool: PoolId) -> Result<(), Poisoned> {
        let Some(run) = self.pools.get_mut(&pool) else { return Ok(()) };
        run.up = run.up.saturating_sub(1);
        if run.up > 0 || run.not_up.is_none() || run.role != Role::Current {
            return Ok(());
        }
        // It was the last one that was up, and those that are to replace it cannot start.
        let tasks = run.pool.take_back();
        self.take_back(pool, tasks, Release::NotStarted)
    }

    fn reject_version(&mut self, type_no: u32, version_no: u32, label: Label, why: String) -> Result<(), Poisoned> {
        tracing::warn!(version = %label, why, "rejected: it could not start; what ran before goes on");
        self.record(&Event::VersionRejected(VersionRejected { no: version_no, at: self.now }, why.as_bytes()))?;
        self.tell_rejected(type_no, &label, why);
        // The settings that stand are those of the version that goes on.
        let of_type = self.types.entry(type_no).or_default();
        if let Some(run) = of_type.current.and_then(|pool| self.pools.get(&pool)) {
            of_type.worker = Some(run.spec.worker.clone());
        }
        Ok(())
    }

    fn tell_rejected(&mut self, type_no: u32, label: &Label, why: String) {
        let Some(name) = self.table.worker_type(type_no).map(|of_type| of_type.name.clone()) else { return };
        self.changed(name, "rejected", None, Some(label.to_string()), Some(why));
    }

    /// Ends a pool: it gives back what it has not begun, and finishes the rest until `deadline`.
    pub(super) fn drain(&mut self, pool: PoolId, deadline: Option<Duration>) -> Result<(), Poisoned> {
        let Some(run) = self.pools.get_mut(&pool) else { return Ok(()) };
        run.role = Role::Draining;
        run.drain_deadline = deadline;
        run.leaving = run.pool.size();
        let tasks = run.pool.drain();
        if let Some(of_type) = self.types.get_mut(&run.type_no) {
            of_type.current = of_type.current.filter(|current| *current != pool);
            of_type.incoming = of_type.incoming.filter(|incoming| *incoming != pool);
        }
        self.take_back(pool, tasks, Release::Interrupt)
    }

    pub(super) fn cut_off_late_drains(&mut self) {
        let mono = self.mono;
        for run in self.pools.values_mut() {
            if run.drain_deadline.is_some_and(|at| at <= mono) {
                run.drain_deadline = None;
                run.pool.cut_off();
            }
        }
    }

    /// The last thread of a pool has ended.
    pub(super) fn pool_ended(&mut self, pool: PoolId) -> Result<(), Poisoned> {
        let Some(run) = self.pools.remove(&pool) else { return Ok(()) };
        run.pool.join();
        if run.role == Role::Draining {
            let of_type = self.types.entry(run.type_no).or_default();
            let state = if run.rejected.is_some() { "rejected" } else { "retired" };
            of_type.past.push_back(Past { label: run.label, state, reason: run.rejected });
            if of_type.past.len() > PAST_SHOWN {
                of_type.past.pop_front();
            }
            return self.settle();
        }
        // Nobody asked it to: its threads panicked. What it held is given back, and it is made anew.
        tracing::error!(version = %run.label, "all workers of a pool ended by a panic; the pool is made anew");
        let of_type = self.types.entry(run.type_no).or_default();
        of_type.current = of_type.current.filter(|current| *current != pool);
        of_type.incoming = None;
        for born in self.table.noted_in(run.type_no, &[State::Reserved]) {
            if self.table.noted(born).is_some_and(|job| job.version_no == run.version_no) {
                self.give_back(born)?;
            }
        }
        self.start(run.type_no, run.version_no, run.spec)
    }
}
