//! The gate of a pool: where its version has a probe, its first worker completes that before it counts as up.
//!
//! A probe is a run of its own: no job, no lease, no place in the log; its worker cannot tell it from another but by its id,
//! `probe-` and the time, and by the fence 0, which no job's run has. Each has an id of its own: a worker may keep those that it
//! has done. What it answers is thrown away, but for whether it is a success.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Shared;
use crate::config::LiveConfig;
use crate::job::ids::JobId;
use crate::types::{Fence, Lease, millis};
use crate::worker::{Assignment, Outcome};

/// The lease of every probe: none of a job begins with record 0.
pub(super) const LEASE: Lease = Lease { born: 0, fence: Fence { epoch: 0, counter: 0 } };

/// Whether a worker of the pool has completed the probe. Written and read by its threads; it guards nothing: relaxed.
#[derive(Default)]
pub(super) struct Gate(AtomicBool);

impl Gate {
    fn is_passed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn pass(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a worker is to complete before its pool counts as up, if anything.
pub(super) fn due(shared: &Shared, live: &LiveConfig) -> Option<Assignment> {
    let payload = live.probe.as_ref().filter(|_| !shared.gate.is_passed())?;
    let now = shared.clock.wall_ms();
    let deadline_ms = now.saturating_add(millis(live.start_timeout));
    Some(Assignment {
        lease: LEASE,
        id: JobId::from(format!("probe-{now}")),
        worker_type: Arc::clone(&shared.worker_type),
        version: Arc::clone(&shared.label),
        task: String::new(),
        payload: payload.as_bytes().to_vec().into(),
        attempt: 1,
        max_attempts: 1,
        tenant: None,
        traceparent: None,
        created_ms: now,
        deadline_ms,
        run: shared.board.run(LEASE, deadline_ms),
        timeout: live.start_timeout,
        timeout_max: live.start_timeout,
        kill_after: live.kill_after,
    })
}

/// Whether the pool counts as up by what its worker answered; else why not.
pub(super) fn judge(shared: &Shared, outcome: Option<Outcome>) -> Result<(), String> {
    shared.board.forget(LEASE);
    match outcome {
        Some(Outcome::Done { .. }) => {
            shared.gate.pass();
            Ok(())
        }
        Some(Outcome::NotStarted { error } | Outcome::HostDeath { error }) => Err(error),
        Some(Outcome::Fail { error, .. } | Outcome::Dead { error }) => Err(format!("its probe failed: {error}")),
        Some(Outcome::Defer { error, .. }) => Err(format!("its probe was put off: {error}")),
        Some(Outcome::Cancel { reason }) => Err(format!("its probe was not done: {reason}")),
        Some(Outcome::Interrupted) => Err("its probe was cut off".to_owned()),
        None => Err("its probe was not answered".to_owned()),
    }
}
