//! Jobs that are cancelled while they run: what may have come first, and that their runs are told.

use std::collections::BTreeSet;

use super::invariant::Invariant;
use super::model::{Happening, Known, Place};
use super::world::{Acted, Reply, Sent, Violation, World};
use crate::engine::handle::JobAction;
use crate::job::event::End;
use crate::refusal::Refusal;
use crate::types::{Fence, Lease};

impl World {
    /// A job is cancelled: for sure, or perhaps. Perhaps while it still ran, though an outcome came before.
    pub(super) fn cancelled(&mut self, job: usize, sure: bool) {
        let first_seq = self.first_seq();
        let Some(known) = self.model.jobs.get_mut(job) else { return };
        let while_it_ran = known.now.after(Happening::Ended(End::Cancelled));
        let ran = matches!(known.now.place, Place::Running(_));
        if matches!(known.latest().place, Place::Waiting | Place::Running(_)) {
            self.end(job, sure, End::Cancelled);
        }
        if let Some(known) = self.model.jobs.get_mut(job).filter(|_| ran && !sure) {
            known.maybe.insert(0, while_it_ran);
            known.ended_at = first_seq;
        }
    }

    /// Whether it may be that a job was cancelled before an outcome that had come first: of a turn that failed nobody knows.
    pub(super) fn may_overtake(known: &Known, action: JobAction, reply: Option<&Reply>, sure: bool) -> bool {
        let open = matches!(reply, Some(Reply::Acted(Err(Refusal::Poisoned))) | None);
        !sure && open && action == JobAction::Cancel && matches!(known.now.place, Place::Running(_))
    }

    /// Runs whose outcome came before a cancellation, and was decided after it, since it waited for what must be read: the
    /// answer to who cancelled tells the attempts that had failed by then, also those that cost nothing. (Where somebody retried the job in between, none are
    /// counted any more; but then the outcome had come, since what runs cannot be retried.)
    pub(super) fn overtaken_of(&self, sent: &[Sent]) -> BTreeSet<Fence> {
        let done = |wanted: JobAction| -> Vec<(usize, Acted)> {
            let of = |sent: &Sent| match sent {
                Sent::Act { job, action, reply } if *action == wanted => match self.reply(*reply) {
                    Some(Reply::Acted(Ok(acted))) => Some((*job, acted)),
                    _ => None,
                },
                _ => None,
            };
            sent.iter().filter_map(of).collect()
        };
        let (cancelled, retried) = (done(JobAction::Cancel), done(JobAction::Retry));
        let overtaken = |(lease, failures): (&Lease, &Vec<u16>)| {
            let job = self.known(lease.born)?;
            let known = self.model.jobs.get(job)?;
            let gone = self.engine.as_ref()?.table().job(lease.born).is_none();
            let ran = gone && known.now.place == Place::Running(lease.fence);
            let ours = |(at, acted): &(usize, Acted)| {
                let other = self.model.jobs.get(*at);
                // A chosen id may stand for another one than was asked for.
                let namesake = other.is_some_and(|other| other.new.id == known.new.id);
                let ours = acted.of == known.new.worker_type.as_str();
                if known.new.id.is_some() { namesake && ours } else { *at == job }
            };
            let unheard = |acted: &Acted| acted.attempts == known.now.attempts && acted.failures == *failures;
            let by = |act: &(usize, Acted)| ours(act) && unheard(&act.1);
            (ran && cancelled.iter().any(by) && !retried.iter().any(ours)).then_some(lease.fence)
        };
        let outcomes = sent.iter().filter_map(|sent| match sent {
            Sent::Outcome { lease, failures, .. } => Some((lease, failures)),
            _ => None,
        });
        outcomes.filter_map(overtaken).collect()
    }

    /// O4: after every turn.
    pub(super) fn check_told(&mut self) -> Result<(), Violation> {
        // An outcome that the engine has not come to is not forgotten yet.
        let open = self.sent.iter().any(|sent| matches!(sent, Sent::Outcome { .. }));
        let waits = open || self.engine.as_mut().is_some_and(|engine| engine.is_busy() || engine.stands_still());
        let hands = self.hands.all();
        let mut told = 0;
        for hand in hands.iter().filter(|hand| !hand.ended) {
            for task in hand.queue.iter().chain(&hand.held) {
                let known = self.known(task.lease.born).and_then(|job| self.model.jobs.get(job));
                let cancelled = known.is_some_and(|known| known.now.place == Place::Gone(End::Cancelled));
                if hand.board.is_cancelled(task.lease) != cancelled {
                    let how = format!("{task:?} of {} was told: {}; the job is {known:?}", hand.label, !cancelled);
                    return Err(Invariant::RunIsTold.broken(how));
                }
                told += usize::from(cancelled);
            }
        }
        // Every pool of the version has the note. That of a run whose worker panicked nobody takes away.
        let waits = waits || hands.iter().any(|hand| hand.panicked);
        let notes = hands.iter().filter(|hand| !hand.ended).map(|hand| hand.board.notes_count()).max();
        if !waits && notes.is_some_and(|notes| notes > told) {
            return Err(Invariant::RunIsTold.broken(format!("{notes:?} notes on a board, for {told} runs")));
        }
        drop(hands);
        self.figures.count("held", Invariant::RunIsTold.name());
        Ok(())
    }
}
