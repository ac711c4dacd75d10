//! What the workers of a simulated world do: they come up, take jobs, are through with them or are not, and end.

use std::collections::BTreeSet;
use std::time::Duration;

use super::invariant::Invariant;
use super::op::{BREAKS, How};
use super::plan;
use super::world::{Sent, Violation, World};
use crate::job::new::NewJob;
use crate::pool::{Report, Task};
use crate::types::{Fence, Lease};
use crate::worker::Outcome;

/// Time that a run counts for.
const WORKS_FOR: Duration = Duration::from_millis(700);

impl World {
    pub(super) fn pools(&self) -> u16 {
        u16::try_from(self.hands.all().len()).unwrap_or(u16::MAX)
    }

    pub(super) fn queued(&self) -> usize {
        self.hands.all().iter().map(|hand| hand.queue.len()).sum()
    }

    pub(super) fn held(&self) -> usize {
        self.hands.all().iter().map(|hand| hand.held.len()).sum()
    }

    /// A worker takes what was handed to its pool, and reads what it shall do.
    pub(super) fn take(&mut self, pick: u16) -> Result<(), Violation> {
        let taken: Option<(usize, Task)> = {
            let mut all = self.hands.all();
            let full: Vec<usize> =
                (0..all.len()).filter(|at| all.get(*at).is_some_and(|h| !h.queue.is_empty())).collect();
            let at = full.get(usize::from(pick) % full.len().max(1)).copied();
            at.and_then(|at| Some((at, all.get_mut(at)?.queue.pop_front()?)))
        };
        let Some((at, task)) = taken else { return Ok(()) };
        self.old.push(task.lease);
        let Some(engine) = &self.engine else { return Ok(()) };
        let read = self.disk.quietly(|| engine.reader().read(task.home.position(), task.home.seq));
        let moved = engine.table().job(task.lease.born).is_none_or(|job| job.home != task.home);
        match read {
            Ok(body) => {
                let payload = plan::decode(task.lease.born, task.home.seq, &body)?.payload;
                let known = self.model.by_born.get(&task.lease.born).and_then(|job| self.model.jobs.get(*job));
                let known = known
                    .ok_or_else(|| Invariant::NothingFromNowhere.broken(format!("job {} runs", task.lease.born)))?;
                if known.summary_of.is_none() && payload != known.new.payload {
                    let how = format!("job {} runs with another's payload", task.lease.born);
                    return Err(Invariant::NothingLost.broken(how));
                }
            }
            Err(_) if moved => {
                // It was restated meanwhile, and its segment is gone: given back, it is found at its new place.
                self.report(Some(at), u32::from(pick), task.lease, Outcome::Interrupted);
                return Ok(());
            }
            Err(error) => {
                let how = format!("the payload of job {} cannot be read: {error}", task.lease.born);
                return Err(Invariant::NothingLost.broken(how));
            }
        }
        if let Some(hand) = self.hands.all().get_mut(at) {
            hand.held.push(task);
        }
        Ok(())
    }

    /// A pool says what became of a run; `None`: one that is not there any more does.
    fn report(&mut self, hand: Option<usize>, worker: u32, lease: Lease, outcome: Outcome) {
        let report = Report::Outcome { lease, worker, outcome: outcome.clone(), about: None, ran: None };
        match (hand.and_then(|at| self.hands.all().get(at).map(|hand| hand.report.clone())), &self.engine) {
            (Some(of_pool), _) => of_pool(report),
            (None, Some(engine)) => engine.hears(report),
            (None, None) => {}
        }
        let job = self.engine.as_ref().and_then(|engine| engine.table().job(lease.born));
        let failures = job.iter().flat_map(|job| job.failures()).map(|failure| failure.attempt).collect();
        self.sent.push(Sent::Outcome { lease, outcome, failures });
    }

    pub(super) fn finish(&mut self, pick: u16, how: &How) {
        let done: Option<(usize, Task, bool)> = {
            let mut all = self.hands.all();
            let busy: Vec<usize> =
                (0..all.len()).filter(|at| all.get(*at).is_some_and(|h| !h.held.is_empty())).collect();
            let at = busy.get(usize::from(pick) % busy.len().max(1)).copied();
            at.and_then(|at| {
                let hand = all.get_mut(at)?;
                let task = hand.held.remove(usize::from(pick) % hand.held.len());
                Some((at, task, hand.cut_off))
            })
        };
        let Some((at, task, cut_off)) = done else { return };
        let outcome = if cut_off { Outcome::Interrupted } else { self.outcome(how) };
        if let Some(hand) = self.hands.all().get_mut(at) {
            hand.figures.ended += 1;
            hand.figures.worked += WORKS_FOR;
        }
        self.report(Some(at), u32::from(pick), task.lease, outcome);
    }

    /// An answer under a lease that is no more.
    pub(super) fn late(&mut self, pick: u16, how: &How) {
        let held: BTreeSet<Fence> = {
            let all = self.hands.all();
            all.iter().flat_map(|hand| hand.held.iter().chain(&hand.lost)).map(|task| task.lease.fence).collect()
        };
        let gone: Vec<Lease> = self.old.iter().filter(|lease| !held.contains(&lease.fence)).copied().collect();
        let Some(lease) = gone.get(usize::from(pick) % gone.len().max(1)).copied() else { return };
        let outcome = self.outcome(how);
        self.report(None, u32::from(pick), lease, outcome);
    }

    pub(super) fn outcome(&mut self, how: &How) -> Outcome {
        match how {
            How::Done { follow_ups } => {
                let mut enqueue: Vec<NewJob> = follow_ups.iter().map(|job| self.new_job(job)).collect();
                enqueue.iter_mut().for_each(|job| job.expires_at = None);
                Outcome::Done { result: Some(b"1".to_vec()), enqueue }
            }
            How::Fail { killed } => Outcome::Fail { error: "no luck".to_owned(), killed: *killed },
            How::Dead => Outcome::Dead { error: "never".to_owned() },
            How::Cancel => Outcome::Cancel { reason: "no need".to_owned() },
            How::Defer { after_ms } => {
                let after = after_ms.map(|ms| Duration::from_millis(u64::from(ms)));
                Outcome::Defer { error: "later".to_owned(), after }
            }
            How::Interrupted => Outcome::Interrupted,
            How::NotStarted => Outcome::NotStarted { error: "no program".to_owned() },
            How::HostDeath => Outcome::HostDeath { error: "no helper".to_owned() },
        }
    }

    pub(super) fn pool_up(&self, pick: u16) {
        let mut all = self.hands.all();
        let Some(at) = usize::from(pick).checked_rem(all.len()) else { return };
        if let Some(hand) = all.get_mut(at).filter(|hand| !hand.up && !hand.draining && !hand.ended && hand.size > 0) {
            hand.up = true;
            hand.tell(Report::Up);
        }
    }

    pub(super) fn pool_not_up(&mut self, pick: u16) {
        if pick >= BREAKS {
            self.figures.count("work", "no thread");
            self.hands.fail(u32::from(pick % 4) + 1);
            return;
        }
        let mut all = self.hands.all();
        let Some(at) = usize::from(pick).checked_rem(all.len()) else { return };
        // A pool that says so has no worker left, and so holds nothing.
        if let Some(hand) = all.get_mut(at).filter(|hand| !hand.ended && hand.held.is_empty() && hand.size > 0) {
            let was_up = std::mem::take(&mut hand.up);
            hand.tell(Report::NotUp { why: "no program".to_owned(), was_up });
        }
    }

    pub(super) fn pool_ends(&mut self, pick: u16) {
        let mut all = self.hands.all();
        let Some(at) = usize::from(pick).checked_rem(all.len()) else { return };
        let Some(hand) = all.get_mut(at).filter(|hand| !hand.ended) else { return };
        if hand.may_end() {
            hand.end();
        } else if pick >= BREAKS && hand.size > 0 {
            self.figures.count("work", if hand.draining { "a panic while it drains" } else { "a panic" });
            hand.panicked = true;
            hand.end();
        }
    }
}
