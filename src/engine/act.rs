//! Finding a job, and what somebody wants done to one, or to all of a type.

use std::collections::BTreeMap;

use super::command::{Command, JobAction, Known, LiveJob, LiveOrEnded, Parked, Purging, To};
use super::core::Core;
use super::ends::By;
use super::facts::Fact;
use super::words::{end_word, state_word};
use crate::job::event::{End, Event, Redriven};
use crate::job::table::Job;
use crate::job::transition::State;
use crate::log::Poisoned;
use crate::refusal::Refusal;
use crate::types::{Lease, Seq};
use crate::worker::run::Told;

/// Records that are read at once for a purge.
const READ_AT_ONCE: usize = 256;

/// What is known of a job that somebody asks for, or what must be read first.
pub(super) enum Found {
    Known(Known),
    /// These records must be read; without any, the log's names are not known yet.
    Unsure(Vec<Seq>),
}

impl Core {
    /// A live job's state on the wire.
    pub(super) fn state_of(&self, type_no: u32, born: Seq) -> &'static str {
        self.table.job_of(type_no, born).map_or("completed", |job| state_word(job.state, self.parked(&job).is_some()))
    }

    pub(super) fn is_parked(&self, type_no: u32) -> bool {
        self.types.get(&type_no).is_none_or(|of_type| of_type.worker.is_none())
    }

    /// Why a job is parked, if it is ready and nobody may run it.
    fn parked(&self, job: &Job) -> Option<Parked> {
        if job.state != State::Ready {
            return None;
        }
        if self.is_parked(job.type_no) {
            return Some(Parked::NoVersion);
        }
        let min = job.min_version().filter(|_| self.table.is_held(job))?;
        let of_type = self.table.worker_type(job.type_no)?;
        let is_known = min.version_no != 0 || of_type.first_number(&min.label).is_some();
        Some(Parked::NeedsVersion { is_known, route: of_type.route })
    }

    fn live(&self, born: Seq, job: Job) -> LiveJob {
        let parked = self.parked(&job);
        let id = self.names_of(&job, None).and_then(|names| names.id);
        let told = self.told(born, &job).map(|told| (told, self.now));
        LiveJob { born, job, id, parked, told }
    }

    /// What the run of a job has told, if it runs.
    fn told(&self, born: Seq, job: &Job) -> Option<Told> {
        let lease = Lease { born, fence: job.fence };
        let mut pools =
            self.pools.values().filter(|run| job.state == State::Reserved && run.version_no == job.version_no);
        pools.find_map(|run| run.pool.board().told(lease))
    }

    /// Finds a job by any id.
    pub(super) fn find(&self, id: &str) -> Found {
        if let Some((born, _)) = self.ids.read(id) {
            match self.table.job(born) {
                Some(job) if !self.knows_names(&job) => return Found::Unsure(vec![job.home.seq]),
                Some(job) => {
                    let live = self.live(born, job);
                    if live.id.is_none() {
                        return Found::Known(Known::Live(Box::new(live)));
                    }
                }
                None if born < self.log.next_seq() => {
                    return Found::Known(Known::Look { born, from: born, ended: None });
                }
                None => {}
            }
        }
        // Ids are chosen within a type: a live job is shown first, then the latest one.
        let Some(ids) = self.table.ids() else {
            let never = self.table.names_unknown().is_some();
            return if never { Found::Known(Known::Nothing) } else { Found::Unsure(Vec::new()) };
        };
        let seqs: Vec<Seq> = self.table.types().flat_map(|(no, _)| ids.by_id(no, id)).collect();
        if seqs.iter().any(|seq| self.facts.get(*seq).is_none()) {
            return Found::Unsure(seqs);
        }
        // Of each job its last record counts: a start in the middle of a sweep has found it at two places.
        let facts = seqs.iter().filter_map(|seq| Some((*seq, self.facts.fact(*seq)?)));
        let mut last = BTreeMap::new();
        for (seq, fact) in facts.filter(|(_, fact)| fact.id() == Some(id)) {
            let known = last.entry(fact.born).or_insert((seq, fact));
            if seq > known.0 {
                *known = (seq, fact);
            }
        }
        let Some((seq, fact)) = last.into_values().max_by_key(|(_, fact)| (fact.end.is_none(), fact.born)) else {
            return Found::Known(Known::Nothing);
        };
        Found::Known(self.known_by(seq, fact))
    }

    fn known_by(&self, seq: Seq, fact: &Fact) -> Known {
        match (fact.end, self.table.job_of(fact.type_no, fact.born)) {
            (None, Some(job)) => Known::Live(Box::new(self.live(fact.born, job))),
            (Some(end), _) => Known::Look { born: fact.born, from: seq, ended: Some(end) },
            (None, None) => Known::Nothing,
        }
    }

    pub(super) fn answer_find(&mut self, id: String, to: To<Known>) -> Result<(), Poisoned> {
        match self.find(&id) {
            Found::Unsure(seqs) => self.look_up(seqs, Command::Find { id, to }),
            Found::Known(known) => {
                self.reply(move |_| to.give(known));
                Ok(())
            }
        }
    }

    pub(super) fn answer_live_at(
        &mut self,
        places: &[(u32, Seq, Seq)],
        to: To<Vec<Option<LiveJob>>>,
    ) -> Result<(), Poisoned> {
        let live = |(type_no, born, home): &(u32, Seq, Seq)| {
            let job = self.table.job_of(*type_no, *born).filter(|job| job.home.seq == *home)?;
            Some(self.live(*born, job))
        };
        let live = places.iter().map(live).collect();
        self.reply(move |_| to.give(live));
        Ok(())
    }

    pub(super) fn act(
        &mut self,
        id: String,
        action: JobAction,
        to: To<Result<LiveOrEnded, Refusal>>,
    ) -> Result<(), Poisoned> {
        let done = match self.find(&id) {
            Found::Unsure(seqs) => return self.look_up(seqs, Command::Act { id, action, to }),
            Found::Known(Known::Live(live)) if !self.knows_names(&live.job) => {
                return self.look_up(vec![live.job.home.seq], Command::Act { id, action, to });
            }
            Found::Known(known) => self.act_on(known, id, action)?,
        };
        self.reply(move |durable| to.give(if durable { done } else { Err(Refusal::Poisoned) }));
        Ok(())
    }

    fn act_on(
        &mut self,
        known: Known,
        id: String,
        action: JobAction,
    ) -> Result<Result<LiveOrEnded, Refusal>, Poisoned> {
        let live = match known {
            Known::Live(live) => live,
            Known::Look { ended, .. } => {
                let state = ended.map_or("finished", end_word);
                return Ok(Err(Refusal::WrongState { id, state, remedy: "a finished job stays as it is" }));
            }
            Known::Nothing => return Ok(Err(Refusal::NotFound { id })),
        };
        let (born, at) = (live.born, self.now);
        let state = state_word(live.job.state, live.parked.is_some());
        match (action, live.job.state) {
            (JobAction::Retry, State::Dead | State::Delayed) => {
                self.record(&Event::Redriven(Redriven { born, at }))?;
                let job = self.table.job_of(live.job.type_no, born);
                let job =
                    job.map(|job| LiveOrEnded::Live(Box::new(LiveJob { parked: self.parked(&job), job, ..*live })));
                Ok(job.ok_or(Refusal::NotFound { id }))
            }
            (JobAction::Cancel, State::Ready | State::Delayed | State::Reserved) => {
                self.end(born, End::Cancelled, &[], By::default())?;
                if live.job.state == State::Reserved {
                    self.stop_run(Lease { born, fence: live.job.fence }, live.job.version_no);
                }
                Ok(Ok(LiveOrEnded::Ended { last: live, end: End::Cancelled, at }))
            }
            (JobAction::Discard, State::Dead) => {
                self.end(born, End::Discarded, &[], By::default())?;
                Ok(Ok(LiveOrEnded::Ended { last: live, end: End::Discarded, at }))
            }
            _ => Ok(Err(Refusal::WrongState { id, state, remedy: remedy(action) })),
        }
    }

    pub(super) fn purge(&mut self, worker_type: &str, to: To<Result<u64, Refusal>>) -> Result<(), Poisoned> {
        let Some(type_no) = self.table.type_no(worker_type) else {
            let refusal = self.shared.unknown_type(worker_type);
            self.reply(move |_| to.give(Err(refusal)));
            return Ok(());
        };
        let noted = self.table.noted_in(type_no, &[State::Ready, State::Delayed, State::Dead]);
        let below = self.log.next_seq();
        self.purge_on(Purging { type_no, noted: noted.into_iter().peekable(), below, count: 0, to })
    }

    /// Ends as many as one frame holds; others are served in between.
    pub(super) fn purge_on(&mut self, mut purge: Purging) -> Result<(), Poisoned> {
        while !self.log.is_full() && !self.is_short_of_room() {
            let fresh = || self.table.fresh_first(purge.type_no, purge.below);
            let Some(born) = purge.noted.peek().copied().or_else(fresh) else {
                let (count, to) = (purge.count, purge.to);
                self.reply(move |durable| to.give(if durable { Ok(count) } else { Err(Refusal::Poisoned) }));
                return Ok(());
            };
            let job = self.table.job_of(purge.type_no, born);
            if job.as_ref().is_some_and(|job| job.state != State::Reserved && !self.knows_names(job)) {
                return self.look_up(self.to_purge_next(&purge), Command::PurgeRest(purge));
            }
            purge.noted.next_if_eq(&born);
            let end = match job.map(|job| job.state) {
                Some(State::Ready | State::Delayed) => End::Cancelled,
                Some(State::Dead) => End::Discarded,
                Some(State::Reserved) | None => continue,
            };
            self.end(born, end, &[], By::default())?;
            purge.count += 1;
        }
        drop(self.to_self.send(Command::PurgeRest(purge)));
        Ok(())
    }

    /// Home records of the next named jobs of a purge.
    fn to_purge_next(&self, purge: &Purging) -> Vec<Seq> {
        let noted = purge.noted.clone().take(READ_AT_ONCE).filter_map(|born| self.table.noted(born));
        let noted = noted.filter(|job| job.named).map(|job| job.home.seq);
        let fresh = self.table.fresh_in(purge.type_no, purge.below, READ_AT_ONCE);
        noted.chain(fresh.into_iter().filter(|job| job.named).map(|job| job.home.seq)).collect()
    }
}

fn remedy(action: JobAction) -> &'static str {
    match action {
        JobAction::Retry => "only a dead or a delayed job can be retried",
        JobAction::Cancel => "only a job that waits or runs can be cancelled; discard a dead one",
        JobAction::Discard => "only a dead job can be discarded; cancel one that waits",
    }
}
