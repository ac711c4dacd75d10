//! The small workloads with every call of the disk failing, one after the other, once and for ever.
//!
//! Each ends in a clean error or in none, is started again where it ended, keeps what was acknowledged, and then serves
//! everything.

use super::disk::Fault;
use super::figures::Figures;
use super::images::{perform, prepare};
use super::workloads::Workload;
use super::world::Violation;

/// Fails every call of one workload; says how often.
pub(super) fn fail_each(workload: &Workload) -> Result<Figures, Violation> {
    let mut figures = Figures::default();
    for fault in [Fault::Once, Fault::ForEver] {
        for call in 0_u64.. {
            let mut world = prepare(workload)?;
            world.disk.plan(call, fault);
            let told = |what: Violation| format!("call {call} failed ({fault:?}): {what}");
            perform(&mut world, &workload.ops).map_err(told)?;
            let struck = world.disk.is_spent();
            world.settle().map_err(told)?;
            figures.absorb(&world.figures);
            if !struck {
                break;
            }
        }
    }
    Ok(figures)
}
