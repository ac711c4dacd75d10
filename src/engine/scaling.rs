//! Sizes that follow the queue: looks at what waits and runs, asks [`crate::scale`], has pools grow and shrink.
//!
//! Looks some times a second while there is something to do, or a size to take back, and not at all while there is not. All
//! types are decided together, since they share one budget. Starts no worker and ends none: that is the pools' own.

use std::collections::BTreeMap;
use std::time::Duration;

use super::core::Core;
use super::runs::PoolRun;
use super::view::ScaleView;
use crate::config::{Concurrency, LiveConfig};
use crate::pool::PoolId;
use crate::scale::{Bounds, Reason, Scaler, Seen, Size, share};
use crate::types::millis;

/// From one look to the next while jobs wait.
const LOOK_WHILE_WAITING: Duration = Duration::from_millis(100);
/// While jobs run, a size is to be taken back, no worker can be started, or no thread be had for one.
const LOOK_WHILE_BUSY: Duration = Duration::from_secs(1);

/// The sizes that follow their queues.
#[derive(Default)]
pub(super) struct Sizes {
    of_types: BTreeMap<u32, Scaling>,
    /// Something that all sizes hang on has changed.
    changed: bool,
}

/// The size of one type.
struct Scaling {
    scaler: Scaler,
    size: Size,
    looked_at: Duration,
}

impl Core {
    /// Has all sizes looked at again, soon.
    pub(super) fn sizes_changed(&mut self) {
        self.sizes.changed = true;
    }

    /// A type has no workers any more.
    pub(super) fn forget_size(&mut self, type_no: u32) {
        self.sizes.of_types.remove(&type_no);
        self.sizes.changed = true;
    }

    /// Gives a pool that takes a type's work over its size: where it may change, as many workers as the one before had, as far as
    /// the budget allows.
    pub(super) fn first_size(&mut self, pool: PoolId, before: Option<PoolId>) {
        let had = before.and_then(|before| self.pools.get(&before)).map_or(1, |run| run.pool.size());
        let Some(run) = self.pools.get_mut(&pool) else { return };
        let concurrency = run.spec.worker.live.concurrency;
        let workers = had.max(1).clamp(concurrency.min, concurrency.max);
        if !concurrency.is_scaled() {
            run.resize(workers, self.mono);
        }
        self.follow(pool, workers);
    }

    /// Settings of a pool change while it runs, its size too.
    pub(super) fn set_live(&mut self, pool: PoolId, live: LiveConfig) {
        let Some(run) = self.pools.get_mut(&pool) else { return };
        let concurrency = live.concurrency;
        run.set_live(live);
        if run.role.takes_work() {
            run.resize(run.pool.size().clamp(concurrency.min, concurrency.max), self.mono);
            self.follow(pool, self.pools.get(&pool).map_or(1, |run| run.pool.size()));
        }
    }

    /// From now on a pool's size follows its queue, or does not; it shall have `workers` at first.
    fn follow(&mut self, pool: PoolId, workers: u32) {
        let Some(run) = self.pools.get(&pool) else { return };
        self.sizes.changed = true;
        if !run.spec.worker.live.concurrency.is_scaled() {
            self.sizes.of_types.remove(&run.type_no);
            return;
        }
        let seen = self.seen(run);
        let scaling = self.sizes.of_types.entry(run.type_no).or_insert_with(|| Scaling {
            scaler: Scaler::new(self.mono, workers),
            size: Size { workers, reason: Reason::Calm },
            looked_at: self.mono,
        });
        // Another pool counts anew.
        scaling.scaler.counts_from(seen);
    }

    /// What is to be seen of the type that a pool works for.
    fn seen(&self, run: &PoolRun) -> Seen {
        let of_type = self.table.worker_type(run.type_no);
        let queued = of_type.map_or(0, |of_type| of_type.queue.len());
        let paused = of_type.is_some_and(|of_type| of_type.paused_since != 0);
        // Of what a pool holds, some may wait until a worker comes round to it.
        let unbegun = run.handed.saturating_sub(run.at_once());
        let figures = run.pool.figures();
        Seen {
            at: self.mono,
            waiting: unbegun + if paused { 0 } else { queued },
            arrived: run.begun + queued,
            ended: figures.ended,
            worked: figures.worked,
            quiet: if run.handed > 0 { self.mono.saturating_sub(run.quiet_since) } else { Duration::ZERO },
            running: run.handed - unbegun,
        }
    }

    /// When sizes are to be looked at again, from now on; `None` while nothing is to be done about any.
    pub(super) fn sizes_due(&self) -> Option<Duration> {
        if self.sizes.of_types.is_empty() || self.is_stopping() {
            return None;
        }
        if self.sizes.changed {
            return Some(Duration::ZERO);
        }
        let due = |(type_no, scaling): (&u32, &Scaling)| {
            let run = self.current(*type_no)?;
            let seen = self.seen(run);
            let pause = match (seen.waiting > 0, run.not_up.is_some() || run.short.is_some()) {
                (true, true) => LOOK_WHILE_BUSY,
                (true, false) if run.pool.size() == 0 => Duration::ZERO,
                (true, false) => LOOK_WHILE_WAITING,
                (false, _) if seen.running > 0 || run.pool.size() > run.spec.worker.live.concurrency.min => {
                    LOOK_WHILE_BUSY
                }
                (false, _) => return None,
            };
            Some((scaling.looked_at + pause).saturating_sub(self.mono))
        };
        self.sizes.of_types.iter().filter_map(due).min()
    }

    /// Gives every type the size that it should have now, if that is due.
    pub(super) fn set_sizes(&mut self) {
        if self.sizes_due().is_none_or(|due| due > Duration::ZERO) {
            return;
        }
        self.sizes.changed = false;
        let mut sizes = std::mem::take(&mut self.sizes.of_types);
        let mut wanted = Vec::with_capacity(sizes.len());
        for (type_no, scaling) in &mut sizes {
            let Some(run) = self.current(*type_no) else { continue };
            let live = &run.spec.worker.live;
            let Concurrency { min, max } = live.concurrency;
            scaling.looked_at = self.mono;
            scaling.size = scaling.scaler.decide(self.seen(run), Bounds { min, max, target_wait: live.target_wait });
            wanted.push((*type_no, scaling));
        }
        // Who has something to do is never left without a worker.
        let wants: Vec<(u32, u32)> =
            wanted.iter().map(|(type_no, scaling)| self.wants(*type_no, scaling.size)).collect();
        let beside = self.workers_beside();
        let budget = self.config.workers_max.saturating_sub(self.fixed_workers(&wanted, &beside));
        let granted = share(budget, &wants);
        let mut spare = budget.saturating_sub(granted.iter().sum());
        for (((type_no, scaling), granted), (least, _)) in wanted.into_iter().zip(granted).zip(wants) {
            // What its other versions work at is covered by what nobody wants, or else waits.
            let beside = beside.get(&type_no).copied().unwrap_or(0);
            let covered = beside.min(spare);
            spare -= covered;
            let granted = granted.saturating_sub(beside - covered).max(least);
            if granted < scaling.size.workers {
                scaling.size = Size { workers: granted, reason: Reason::Budget };
            }
            self.set_size(type_no, &mut scaling.size);
        }
        self.sizes.of_types = sizes;
    }

    /// The least and the most that a type is to have.
    fn wants(&self, type_no: u32, size: Size) -> (u32, u32) {
        let min = self.current(type_no).map_or(0, |run| run.spec.worker.live.concurrency.min);
        (min.max(1).min(size.workers), size.workers)
    }

    /// Workers of the types whose number does not change, those of their other versions included.
    fn fixed_workers(&self, scaled: &[(u32, &mut Scaling)], beside: &BTreeMap<u32, u32>) -> u32 {
        let is_fixed = |type_no: &u32| scaled.iter().all(|(scaled, _)| scaled != type_no);
        let current = |no: &u32| self.current(*no).map_or(0, |run| run.pool.size());
        let of_type = |no: &u32| current(no) + beside.get(no).copied().unwrap_or(0);
        self.types.keys().filter(|no| is_fixed(no)).map(of_type).sum()
    }

    /// Workers of other versions than the one that serves, by type, those that drain and the one on trial: who has nothing to do
    /// does not count, and each of the others holds a job at least.
    fn workers_beside(&self) -> BTreeMap<u32, u32> {
        let mut beside = BTreeMap::new();
        for (pool, run) in &self.pools {
            let Some(of_type) = self.types.get(&run.type_no).filter(|of_type| of_type.current != Some(*pool)) else {
                continue;
            };
            let has = if of_type.candidate == Some(*pool) { run.pool.size() } else { run.leaving };
            let busy = has.min(u32::try_from(run.handed).unwrap_or(u32::MAX));
            *beside.entry(run.type_no).or_insert(0) += busy;
        }
        beside
    }

    fn set_size(&mut self, type_no: u32, size: &mut Size) {
        let mono = self.mono;
        let Some(run) = self.current_mut(type_no) else { return };
        let before = run.pool.size();
        if run.up == 0 && size.workers > before.max(1) {
            // More of those that cannot start would not help.
            *size = Size { workers: before.max(1), reason: Reason::NotUp };
        }
        if run.handed > 0 {
            // Whatever was handed to it is run by somebody.
            size.workers = size.workers.max(1);
        }
        if size.workers != before {
            tracing::debug!(version = %run.label, from = before, to = size.workers, why = size.reason.word(), "workers");
            run.resize(size.workers, mono);
        } else {
            run.short = None;
        }
    }

    fn current(&self, type_no: u32) -> Option<&PoolRun> {
        self.pools.get(&self.types.get(&type_no)?.current?)
    }

    fn current_mut(&mut self, type_no: u32) -> Option<&mut PoolRun> {
        self.pools.get_mut(&self.types.get(&type_no)?.current?)
    }

    /// How a type's size was decided, if it follows the queue.
    pub(super) fn scale_view(&self, type_no: u32) -> Option<ScaleView> {
        let scaling = self.sizes.of_types.get(&type_no)?;
        let live = &self.current(type_no)?.spec.worker.live;
        Some(ScaleView {
            min: live.concurrency.min,
            max: live.concurrency.max,
            target_wait_ms: millis(live.target_wait),
            workers: scaling.size.workers,
            reason: scaling.size.reason.word(),
        })
    }
}
