//! People's word about rollovers, carried out; and what is shown of versions on trial and of drains.

use crate::engine::command::{Command, To};
use crate::engine::core::Core;
use crate::engine::runs::PoolRun;
use crate::engine::view::{DrainView, RolloutView, TrialView, WorkerView};
use crate::log::Poisoned;
use crate::recent::shares;
use crate::refusal::Refusal;
use crate::rollover::plan::{self, Deed, Known, Word};
use crate::rollover::state::State;
use crate::types::millis;

impl Core {
    /// Carries out somebody's word about the rollover of a type; answers with what stands then.
    pub(in crate::engine) fn rollout(
        &mut self,
        worker_type: &str,
        word: Word,
        to: To<Result<RolloutView, Refusal>>,
    ) -> Result<(), Poisoned> {
        if let Some(type_no) = self.table.type_no(worker_type)
            && !self.is_stopping()
            && let Ok(Deed::Start(version_no)) = self.deed(type_no, word)
            && self.is_to_be_described(type_no, version_no)
        {
            return self.describe(version_no, Command::Rollout { worker_type: worker_type.to_owned(), word, to });
        }
        let done = match self.table.type_no(worker_type) {
            None => Err(self.shared.unknown_type(worker_type)),
            Some(_) if self.is_stopping() => Err(Refusal::Stopping),
            Some(type_no) => self.obey(type_no, worker_type, word)?.map(|done| (type_no, done)),
        };
        let answer = done.and_then(|(type_no, done)| {
            let of_type = self.table.worker_type(type_no).ok_or(Refusal::Stopping)?;
            let view = self.type_view(type_no, of_type);
            Ok(RolloutView { worker_type: view.worker_type, done, trial: view.trial, versions: view.versions })
        });
        self.reply(move |durable| to.give(if durable { answer } else { Err(Refusal::Poisoned) }));
        Ok(())
    }

    /// What somebody's word leads to now.
    fn deed(&self, type_no: u32, word: Word) -> Result<Deed, plan::Idle> {
        if self.types.get(&type_no).is_none_or(|of_type| of_type.worker.is_none()) {
            return Err(plan::Idle::NotInConfig);
        }
        let mut standing = self.standing(type_no);
        if word != Word::Rollback {
            // What starts to be a way back decides nothing yet, but may be hastened.
            let standby = self.standby(type_no).and_then(|pool| self.pools.get(&pool));
            standing.starting = standing.starting.or(standby.map(|run| run.version_no));
        }
        plan::deed(word, standing, self.known_of(type_no))
    }

    fn obey(&mut self, type_no: u32, name: &str, word: Word) -> Result<Result<&'static str, Refusal>, Poisoned> {
        let refused = |detail: String| Ok(Err(Refusal::NoRollout { worker_type: name.to_owned(), detail }));
        let deed = match self.deed(type_no, word) {
            Ok(deed) => deed,
            Err(idle) => return refused(idle.to_string()),
        };
        let done = match deed {
            Deed::Hold | Deed::GoOn => {
                let paused = deed == Deed::Hold;
                if let Some(trial) = self.types.get_mut(&type_no).and_then(|of_type| of_type.trial.as_mut()) {
                    trial.paused = paused;
                }
                self.record_trial(type_no)?;
                if paused { "paused" } else { "resumed" }
            }
            Deed::TakeOver => {
                if let Some(pool) = self.types.get(&type_no).and_then(|of_type| of_type.candidate) {
                    self.promote(pool)?;
                }
                "promoted"
            }
            Deed::Withdraw => {
                self.withdraw(type_no, "by command".to_owned())?;
                "withdrawn"
            }
            Deed::Back => {
                if let Some(file) = self.warm_drifted(type_no) {
                    return refused(format!(
                        "{} has changed since the version before was accepted: what it was is gone; put the file back and reload",
                        file.display()
                    ));
                }
                if self.current_version(type_no).is_none() {
                    // After a restart: what it is to replace is not even up.
                    self.stay(type_no)?;
                }
                self.go_back(type_no)?;
                "rolled back"
            }
            Deed::Start(version_no) => {
                let spec = match self.spec_of(type_no, version_no) {
                    Ok(spec) => spec,
                    Err(why) => {
                        let label = self.label_of(version_no).unwrap_or_default();
                        return refused(format!(
                            "{label} cannot be started again: {why}; change the config back to it, and reload"
                        ));
                    }
                };
                self.stay(type_no)?;
                if word == Word::Rollback {
                    self.types.entry(type_no).or_default().way_back = Some(version_no);
                }
                self.start(type_no, version_no, spec)?;
                "started"
            }
        };
        self.settle()?;
        Ok(Ok(done))
    }

    /// A file of the version that is kept for a way back that has changed since it was accepted.
    fn warm_drifted(&self, type_no: u32) -> Option<std::path::PathBuf> {
        let run = self.pools.get(&self.types.get(&type_no)?.warm?)?;
        // Nothing of it may have been started since: it is looked at here, which takes no longer than a call for each file.
        run.spec.factory.files()?.drifted_by(self.mono)
    }

    /// What more somebody's word hangs on.
    fn known_of(&self, type_no: u32) -> Known {
        let targets = &self.table.generation().targets;
        let is_withdrawn = |no: u32| self.table.version(no).is_some_and(|version| version.quarantined.is_some());
        let of_type = |no: &&u32| self.table.version(**no).is_some_and(|version| version.type_no == type_no);
        let previous = self.table.worker_type(type_no).map_or(0, |of_type| of_type.previous);
        let trial = self.types.get(&type_no).and_then(|of_type| of_type.trial.as_ref());
        Known {
            probation: trial.filter(|_| self.is_on_probation(type_no)).map(|trial| trial.version_no),
            withdrawn: targets.iter().find(of_type).copied().filter(|no| is_withdrawn(*no)),
            previous_withdrawn: is_withdrawn(previous),
        }
    }

    /// How a version on trial stands.
    pub(in crate::engine) fn trial_view(&self, type_no: u32) -> Option<TrialView> {
        let trial = self.types.get(&type_no)?.trial.as_ref()?;
        let rollout = self.rollout_of(type_no);
        let label = |no| self.label_of(no).unwrap_or_default();
        let evidence = trial.evidence.shown();
        let (version, baseline) = (label(trial.version_no), label(trial.baseline_no));
        Some(TrialView {
            state: if trial.is_gated() {
                "first_jobs"
            } else if trial.is_suspected() {
                "suspected"
            } else if trial.is_ramp() {
                "ramp"
            } else {
                "probation"
            },
            percent: if trial.is_gated() { 0 } else { trial.percent },
            steps: rollout.steps.clone(),
            paused: trial.paused,
            stepped_back: trial.has_stepped_back(),
            held_for_ms: trial.is_ramp().then(|| millis(trial.held_for(self.mono, rollout))),
            samples: trial.evidence.samples(),
            samples_missing: trial.samples_missing(rollout),
            says: evidence.sentence(&version, &baseline),
            slower: trial.pace.slower().map(|slower| slower.sentence(&version, &baseline)),
            version,
            baseline,
            evidence,
        })
    }

    /// How a version that takes nothing new comes to its end, as long as it holds anything.
    pub(in crate::engine) fn drain_view(&self, run: &PoolRun, workers: &[WorkerView]) -> Option<DrainView> {
        let drains = run.role == State::Draining || run.role.is_over();
        if !drains || run.handed == 0 {
            return None;
        }
        let held = workers.iter().flat_map(|worker| &worker.jobs);
        let longest = held.clone().max_by_key(|held| held.age_ms).cloned();
        // As far as it can be known by how long its runs took: of one that is over what 99 of 100 take nobody can say.
        let (took, _) = shares(std::iter::once(&run.recent), self.mono);
        let ages = || held.clone().map(|held| u32::try_from(held.age_ms).map_or(f64::MAX, f64::from));
        let known = took.filter(|took| ages().all(|age| age <= took.p99) && ages().next().is_some());
        let left = known.map(|took| ages().map(|age| (took.p95 - age).max(0.0)).fold(0.0, f64::max));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time that is not negative")]
        let eta_ms = left.map(|left| left.ceil() as u64);
        let deadline = run.deadline.map(|at| at.saturating_sub(self.mono));
        Some(DrainView {
            in_flight: run.handed,
            since_ms: run.since,
            cut_off_in_ms: deadline.map(millis),
            eta_ms,
            held_up_by: longest,
        })
    }
}
