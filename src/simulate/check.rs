//! Holding the engine's word against the model after every turn, whether it succeeded or failed.

use super::disk::Loss;
use super::invariant::Invariant;
use super::model::{Counts, Place};
use super::plan::TYPES;
use super::world::{Reply, Sent, Violation, World};
use crate::engine::stepped::Stepped;
use crate::job::event::{Event, Release};
use crate::job::transition::State;
use crate::refusal::Refusal;
use crate::types::{Lease, Seq, UnixMs};
use crate::worker::Outcome;

impl World {
    /// The engine takes turns until it has nothing to do, and what it did is compared with the model.
    pub(super) fn turn(&mut self) -> Result<(), Violation> {
        for _ in 0..1000 {
            let Some(engine) = &mut self.engine else { return Ok(()) };
            match engine.turn() {
                Ok(over) => {
                    self.absorb()?;
                    if over {
                        self.engine = None;
                        return Ok(());
                    }
                    if !self.engine.as_ref().is_some_and(Stepped::is_busy) {
                        return Ok(());
                    }
                }
                Err(_) => {
                    self.note_shown();
                    self.unsure();
                    if self.stops_at_fault {
                        self.fall();
                        return Ok(());
                    }
                    let seed = self.disk.calls();
                    let power = self.disk.has_lost_power() || seed.is_multiple_of(2);
                    return self.crash(if power { Loss::Power(seed) } else { Loss::Process }, &[]);
                }
            }
        }
        Err(Invariant::Served.broken("the engine never comes to rest"))
    }

    /// After a turn that succeeded.
    pub(super) fn absorb(&mut self) -> Result<(), Violation> {
        self.note_versions()?;
        self.just_back.clear();
        if self.sent.iter().any(|sent| matches!(sent, Sent::Purge { .. })) {
            // What waited for room together with the purge may have been given back before it.
            self.notice_given_back(true);
        }
        self.notice_purged();
        self.notice_redriven();
        self.answered.clear();
        self.overtaken = self.overtaken_of(&self.sent);
        let mut at = 0;
        while let Some(sent) = self.sent.get(at) {
            if self.is_open(sent) {
                at += 1;
                continue;
            }
            let sent = self.sent.remove(at);
            if matches!(sent, Sent::Act { .. }) {
                self.bind(false)?;
                self.notice_given_back(true);
            }
            self.follow(sent, true)?;
        }
        self.bind(true)?;
        self.notice_given_back(true);
        self.notice_time(true);
        self.notice_reserved()?;
        self.compare()?;
        self.check_held()?;
        self.note_shown();
        self.check_bounds()?;
        self.check_told()?;
        self.check_places()?;
        self.note_routes();
        Ok(())
    }

    /// Whether the engine has not come to it yet.
    pub(super) fn is_open(&self, sent: &Sent) -> bool {
        match sent {
            Sent::Push { reply, .. }
            | Sent::Act { reply, .. }
            | Sent::Purge { reply, .. }
            | Sent::Redrive { reply, .. } => self.reply(*reply).is_none(),
            Sent::Outcome { lease, .. } => {
                let ours = self.known(lease.born).and_then(|job| self.model.jobs.get(job));
                let ours = ours.is_some_and(|known| known.now.place == Place::Running(lease.fence));
                let job = self.engine.as_ref().and_then(|engine| engine.table().job(lease.born));
                ours && job.is_some_and(|job| job.state == State::Reserved && job.fence == lease.fence)
            }
        }
    }

    /// After a turn that failed: what was answered holds, and what came before it; the rest may hold.
    pub(super) fn unsure(&mut self) {
        self.loose = true;
        // What a pool gave back may have been acted on in the same turn.
        self.notice_given_back(false);
        let sent = std::mem::take(&mut self.sent);
        self.overtaken = self.overtaken_of(&sent);
        let answered = |sent: &Sent| match sent {
            Sent::Push { reply, .. } => {
                matches!(self.reply(*reply), Some(Reply::Pushed(all)) if all.iter().any(Result::is_ok))
            }
            Sent::Act { reply, .. } => matches!(self.reply(*reply), Some(Reply::Acted(Ok(_)))),
            Sent::Purge { reply, .. } => matches!(self.reply(*reply), Some(Reply::Purged(Ok(_)))),
            Sent::Redrive { reply, .. } => matches!(self.reply(*reply), Some(Reply::Redriven(Ok(_)))),
            Sent::Outcome { .. } => false,
        };
        let sure = sent.iter().rposition(answered).map_or(0, |at| at + 1);
        for (at, sent) in sent.into_iter().enumerate() {
            // What a purge has ended in this turn nobody has noticed, even where it was answered; nor what was redriven.
            let sure = at < sure && !matches!(sent, Sent::Purge { .. } | Sent::Redrive { .. });
            // A surprise here is one of the comparison after the start.
            drop(self.follow(sent, sure));
        }
        self.notice_time(false);
    }

    pub(super) fn follow(&mut self, sent: Sent, sure: bool) -> Result<(), Violation> {
        match sent {
            Sent::Push { jobs, reply } => {
                let answers = match self.reply(reply) {
                    Some(Reply::Pushed(answers)) => answers,
                    _ => vec![Err(Refusal::Poisoned); jobs.len()],
                };
                for (new, answer) in jobs.into_iter().zip(answers) {
                    self.pushed(new, answer, sure)?;
                }
                Ok(())
            }
            Sent::Outcome { lease, .. } if self.overtaken.contains(&lease.fence) => {
                self.figures.count("refused", "an older lease");
                Ok(())
            }
            Sent::Outcome { lease, outcome, .. } if sure && outcome != Outcome::Interrupted && self.was_left(lease) => {
                self.figures.count("work", "left by a stop on a full disk");
                self.outcome_of(lease, Outcome::Interrupted, true);
                Ok(())
            }
            Sent::Outcome { lease, outcome, .. } => {
                self.outcome_of(lease, outcome, sure);
                Ok(())
            }
            Sent::Act { job, action, reply } => self.acted(job, action, self.reply(reply), sure),
            Sent::Purge { of, reply, ended } => self.purged(of, ended, self.reply(reply), sure),
            Sent::Redrive { meant, reply, redriven } => self.redriven(&meant, redriven, self.reply(reply), sure),
        }
    }

    /// Whether a stop had no room to record an outcome, and gave the job back.
    fn was_left(&self, lease: Lease) -> bool {
        let engine = self.engine.as_ref().filter(|_| self.tight && self.stops);
        let job = engine.and_then(|engine| engine.table().job(lease.born));
        let job = job.filter(|job| job.state == State::Ready && job.fence == lease.fence);
        let (Some(engine), Some(job)) = (engine, job) else { return false };
        self.disk.quietly(|| {
            let records = engine.reader().scan(job.home.seq).filter_map(Result::ok);
            let back = records.filter_map(|record| match Event::decode(record.kind, record.version, &record.body) {
                Ok(Event::Reserved(event)) if event.born == lease.born => Some(false),
                Ok(Event::Failed(event, _)) if event.born == lease.born => Some(false),
                Ok(Event::Released(event, _)) if event.born == lease.born => Some(event.release == Release::Interrupt),
                _ => None,
            });
            back.last().unwrap_or(false)
        })
    }

    pub(super) fn now(&self) -> UnixMs {
        crate::clock::Clock::wall_ms(self.clock.as_ref())
    }

    pub(super) fn first_seq(&self) -> Seq {
        self.engine.as_ref().map_or(0, |engine| engine.reader().first_seq())
    }

    /// The table is the model's, job by job and count by count; what runs is held by a pool, since whatever no pool holds
    /// was noticed to be given back.
    pub(super) fn compare(&mut self) -> Result<(), Violation> {
        let Some(engine) = &self.engine else { return Ok(()) };
        let (table, now) = (engine.table(), self.now());
        for (_, known) in self.model.live() {
            let job = known.born.and_then(|born| table.job(born));
            if !job.as_ref().is_some_and(|job| known.now.is(job, now, self.latest)) {
                return Err(Invariant::NothingLost.broken(format!("the model has {known:#?}\nthe table has {job:?}")));
            }
        }
        if table.live_jobs() != self.model.live().count() as u64 {
            let (live, should) = (table.live_jobs(), self.model.live().count());
            return Err(Invariant::EndedStaysEnded.broken(format!("{live} jobs live, {should} should")));
        }
        for of in TYPES {
            let totals = totals_of(engine, of);
            if totals.is_some_and(|totals| totals != self.model.totals(of)) {
                let should = self.model.totals(of);
                return Err(
                    Invariant::NothingLost.broken(format!("counters of {of}: {totals:?}, they should be {should:?}"))
                );
            }
        }
        for invariant in [Invariant::NothingLost, Invariant::EndedStaysEnded] {
            self.figures.count("held", invariant.name());
        }
        Ok(())
    }
}

pub(super) fn totals_of(engine: &Stepped, of: &str) -> Option<Counts> {
    let type_no = engine.table().type_no(of)?;
    let totals = engine.table().worker_type(type_no)?.totals;
    Some(Counts {
        enqueued: totals.enqueued,
        completed: totals.completed,
        failed: totals.failed,
        cancelled: totals.cancelled,
        expired: totals.expired,
        discarded: totals.discarded,
    })
}
