//! Versions and their pools: what a new config changes, and the life of a version from its start to its end.
//!
//! A version that is to replace another one proves itself first: it starts beside it, and only when it is up does new
//! work go to it; the other one then gives back what it has not begun, finishes what it has, and leaves. A version that
//! cannot start changes nothing. Types go each their own way; a newer config replaces what an older one had begun.

pub(in crate::engine) mod described;
mod ended;
mod places;
pub(in crate::engine) mod remembered;
pub(in crate::engine) mod rollout;
pub(in crate::engine) mod standby;
pub(in crate::engine) mod trials;
mod tried;
pub(in crate::engine) mod versions;

use crate::config::Config;
use crate::engine::command::To;
use crate::engine::core::Core;
use crate::engine::rollover::remembered::TakenUp;
use crate::engine::view::{ReloadTypeView, ReloadVerdict};
use crate::engine::{GenerationSpec, VersionSpec};
use crate::job::event::{Event, Generation, TypeNamed, VersionAccepted};
use crate::limits::LABEL_BYTES_MAX;
use crate::log::Poisoned;
use crate::pool::PoolId;
use crate::refusal::Refusal;
use crate::rollover::plan::{self, Asked, Step};
use crate::rollover::state::State;
use crate::types::WorkerType;

/// A type of a config, and the version that it shall have.
struct Wanted {
    type_no: u32,
    version_no: u32,
    spec: VersionSpec,
    /// The config before asked for it, too.
    same_as_before: bool,
    /// Settings of the type that differ from the config before.
    keys: Vec<String>,
}

impl Core {
    /// Takes a config over; answers when every version that it starts is up or rejected, and every one that it ends is gone.
    pub(in crate::engine) fn reload(
        &mut self,
        generation: GenerationSpec,
        to: To<Result<ReloadVerdict, Refusal>>,
    ) -> Result<(), Poisoned> {
        let refusal = if self.is_stopping() {
            Some(Refusal::Stopping)
        } else {
            fixed_keys(&self.config, &generation.config).map(|detail| Refusal::NeedsRestart { detail })
        };
        if let Some(refusal) = refusal {
            self.rollover.refuse(refusal.to_string(), self.now);
            self.reply(move |_| to.give(Err(refusal)));
            return Ok(());
        }
        self.rollover.last_error = None;
        self.rollover.waiting.push(to);
        let before = self.config.clone();
        self.accept(generation, Some(before))?;
        self.settle()
    }

    /// Records a config as the newest generation, and begins what it changes; `before`: what ran up to now, if it is known.
    pub(in crate::engine) fn accept(
        &mut self,
        generation: GenerationSpec,
        before: Option<Config>,
    ) -> Result<(), Poisoned> {
        if !std::mem::replace(&mut self.rollover.open, true) {
            self.rollover.changes.clear();
            self.rollover.keys.clear();
            self.rollover.is_new = false;
        }
        let live_changes = before.as_ref() != Some(&generation.config);
        let text = generation.text;
        if let Some(before) = &before {
            add(&mut self.rollover.keys, before.keys_changed(&generation.config));
        }
        let targets_before = self.table.generation().targets.clone();
        self.config = generation.config;
        self.look_at_space_again();
        self.sizes_changed();
        self.shared.set_edges(&self.config, generation.access);
        let mut targets = Vec::with_capacity(generation.versions.len());
        let mut planned = Vec::new();
        for spec in generation.versions {
            let type_no = self.name_type(&spec.worker.worker_type)?;
            let version_no = self.name_version(type_no, &spec)?;
            targets.push(version_no);
            planned.push((type_no, version_no, spec));
        }
        let newest = self.table.generation();
        if live_changes || newest.targets != targets || newest.number == 0 {
            self.rollover.is_new = true;
            let number = newest.number + 1;
            self.record(&Event::Generation(Generation { number, at: self.now, targets }, &text))?;
        } else if !text.is_empty() && newest.text.as_ref() != Some(&text) {
            // The same in other words, or not known in words up to now.
            let (number, at) = (newest.number, newest.at);
            self.record(&Event::Generation(Generation { number, at, targets }, &text))?;
        }
        let kept: Vec<u32> = planned.iter().map(|(type_no, ..)| *type_no).collect();
        let gone: Vec<u32> = self.table.types().map(|(no, _)| no).filter(|no| !kept.contains(no)).collect();
        for type_no in gone {
            self.remove_type(type_no)?;
        }
        for (type_no, version_no, spec) in planned {
            // What runs now; at an opening, what ran before.
            let runs = self.types.get(&type_no).and_then(|of_type| of_type.worker.as_ref());
            let mut before = before.iter().flat_map(|before| &before.workers);
            let before = runs.or_else(|| before.find(|worker| worker.worker_type == spec.worker.worker_type));
            let keys = before.map(|before| before.live.keys_changed(&spec.worker.live)).unwrap_or_default();
            let same_as_before = targets_before.contains(&version_no);
            self.ask(Wanted { type_no, version_no, spec, same_as_before, keys })?;
        }
        self.publish_names();
        Ok(())
    }

    /// The number of a type; a new one is recorded.
    pub(in crate::engine) fn name_type(&mut self, name: &WorkerType) -> Result<u32, Poisoned> {
        if let Some(no) = self.table.type_no(name.as_str()) {
            return Ok(no);
        }
        let no = u32::try_from(self.table.types().count()).unwrap_or(u32::MAX).saturating_add(1);
        self.record(&Event::TypeNamed(TypeNamed { no, name: name.as_str() }))?;
        Ok(no)
    }

    /// The number of a version: the same label and the same definition are the same version. A label that stands for
    /// another definition already gets a revision suffix.
    fn name_version(&mut self, type_no: u32, spec: &VersionSpec) -> Result<u32, Poisoned> {
        let of_type: Vec<_> = self.table.versions().filter(|(_, version)| version.type_no == type_no).collect();
        let base = spec.worker.version.as_str();
        let is_base = |label: &str| label == base || revision_of(label) == Some(base);
        let same =
            of_type.iter().find(|(_, version)| version.hash == spec.definition_hash && is_base(version.label.as_str()));
        if let Some((no, _)) = same {
            return Ok(*no);
        }
        let taken = |label: &str| of_type.iter().any(|(_, version)| version.label.as_str() == label);
        let label = (1_u32..).map(|revision| revised(base, revision)).find(|label| !taken(label)).unwrap_or_default();
        let no = self.table.versions().map(|(no, _)| no).max().unwrap_or(0) + 1;
        let hash = spec.definition_hash;
        self.record(&Event::VersionAccepted(VersionAccepted { no, type_no, label: &label, hash, at: self.now }))?;
        Ok(no)
    }

    /// A type that the config has no more: its pools drain, its backlog is parked.
    fn remove_type(&mut self, type_no: u32) -> Result<(), Poisoned> {
        let Some(of_type) = self.types.get_mut(&type_no) else {
            if let (Some(from), Some(of_type)) = (self.routed(type_no), self.table.worker_type(type_no)) {
                self.changed(of_type.name.clone(), "removed", Some(from), None, None);
            }
            return self.route(type_no, 0);
        };
        let Some(worker) = of_type.worker.take() else { return Ok(()) };
        (of_type.next, of_type.unmade, of_type.no_way_back) = (None, None, None);
        let pools: Vec<PoolId> = of_type.pools().collect();
        let from = of_type.current.and_then(|pool| self.pools.get(&pool)).map(|run| run.label.to_string());
        self.forget_size(type_no);
        self.end_trial(type_no)?;
        let deadline = Some(self.mono + worker.live.rollout.drain_timeout);
        for pool in pools {
            self.dismiss(pool, deadline)?;
        }
        self.changed(worker.worker_type, "removed", from, None, None);
        self.route(type_no, 0)
    }

    /// A type that the config has.
    fn ask(&mut self, wanted: Wanted) -> Result<(), Poisoned> {
        let (type_no, version_no) = (wanted.type_no, wanted.version_no);
        let runs = self.pools.values().find(|run| run.version_no == version_no);
        if let (Some(ours), Some(newer)) = (runs.and_then(|run| run.spec.factory.files()), wanted.spec.factory.files())
        {
            // The hash is the same: whatever was done to its files, they hold what was accepted.
            ours.renew(newer);
        }
        let opens = !self.types.contains_key(&type_no);
        let standing = self.standing(type_no);
        let quarantine = self.table.version(version_no).and_then(|version| version.quarantined.clone());
        let of_type = self.types.entry(type_no).or_default();
        let asked = Asked {
            version_no,
            live_changed: of_type.worker.as_ref().is_none_or(|worker| worker.live != wanted.spec.worker.live),
            quarantined: quarantine.is_some(),
            same_as_before: wanted.same_as_before,
        };
        let why = quarantine.map(|quarantine| quarantine.why.to_string());
        if opens && self.asked_at_opening(&wanted, &asked, why.clone())? {
            return Ok(());
        }
        let of_type = self.types.entry(type_no).or_default();
        (of_type.next, of_type.withheld) = (None, None);
        if let Some(unmade) = of_type.unmade.as_mut().filter(|unmade| unmade.past.version_no == version_no) {
            unmade.past.spec = wanted.spec.clone();
        }
        // What an older config could not start is history once there is a newer one.
        of_type.past.retain(|past| past.state != "rejected");
        let step = plan::step(standing, asked);
        // To ask for what was there before is to go back to it.
        let back = step == Step::Start && standing.current.is_some() && standing.previous == Some(version_no);
        of_type.way_back = back.then_some(version_no);
        if step != Step::Withheld {
            of_type.worker = Some(wanted.spec.worker.clone());
        }
        self.carry_out(step, wanted, why)
    }

    /// What an opening finds of a type; `true` if another version than the config's has to be there first.
    fn asked_at_opening(&mut self, wanted: &Wanted, asked: &Asked, why: Option<String>) -> Result<bool, Poisoned> {
        let (type_no, version_no) = (wanted.type_no, wanted.version_no);
        let ramp = self.table.worker_type(type_no).and_then(|of_type| of_type.ramp);
        if ramp.is_some_and(|ramp| ramp.version_no != version_no) {
            // What was on trial is not asked for any more.
            self.end_trial(type_no)?;
        }
        let warm_for = wanted.spec.worker.live.rollout.warm_for;
        self.go_on_with_probation(type_no, version_no, warm_for)?;
        let (from, to) = (self.routed(type_no), self.label_of(version_no));
        let Some(taken_up) = self.take_up(type_no, asked, &wanted.spec)? else { return Ok(false) };
        let name = wanted.spec.worker.worker_type.clone();
        match taken_up {
            TakenUp::Withheld => self.changed(name.clone(), "withheld", None, to, why),
            TakenUp::Next => self.changed(name.clone(), "rolled_over", from, to, None),
            TakenUp::Stays => {}
        }
        self.changed_live(name, wanted.keys.clone());
        Ok(true)
    }

    /// Does what the plan says about a type; `why`: the version was withdrawn.
    fn carry_out(&mut self, step: Step, wanted: Wanted, why: Option<String>) -> Result<(), Poisoned> {
        let Wanted { type_no, version_no, spec, keys, .. } = wanted;
        let (live, name) = (spec.worker.live.clone(), spec.worker.worker_type.clone());
        let of_type = self.types.entry(type_no).or_default();
        let target = of_type.incoming.or(of_type.candidate).or(of_type.current);
        let (current, warm) = (of_type.current, of_type.warm);
        let label = |pool: Option<PoolId>| pool.and_then(|pool| self.pools.get(&pool)).map(|run| run.label.to_string());
        let (from, heading_for) = (label(current), label(target));
        let to = self.label_of(version_no);
        match step {
            Step::Same => {}
            Step::Live => {
                if let Some(pool) = target {
                    self.set_live(pool, live);
                }
            }
            Step::Withheld => {
                self.types.entry(type_no).or_default().withheld = Some((version_no, spec));
                self.changed(name.clone(), "withheld", None, to, why);
            }
            Step::Stay => {
                self.stay(type_no)?;
                if let Some(pool) = current {
                    self.set_live(pool, live);
                }
                // Its successor never took over: nothing has changed but settings.
                self.rollover.changes.retain(|change| change.worker_type != name);
            }
            Step::Back => {
                self.stay(type_no)?;
                self.changed(name.clone(), "rolled_over", from, to, None);
                self.go_back(type_no)?;
                if let Some(pool) = warm {
                    self.set_live(pool, live);
                }
            }
            Step::StartNext => {
                // What starts may yet be the one that goes on, should this one not start.
                self.types.entry(type_no).or_default().next = Some((version_no, spec));
                self.changed(name.clone(), "rolled_over", heading_for, to, None);
            }
            Step::Start => {
                self.stay(type_no)?;
                let ran = self.table.worker_type(type_no).is_some_and(|of_type| of_type.route == version_no);
                // If it ran when the last process ended, nothing has changed.
                if from.is_some() || !ran {
                    let from = from.or_else(|| self.routed(type_no));
                    let change = if from.is_some() { "rolled_over" } else { "added" };
                    self.changed(name.clone(), change, from, to, None);
                }
                self.start(type_no, version_no, spec)?;
            }
        }
        self.changed_live(name, keys);
        Ok(())
    }

    pub(in crate::engine) fn label_of(&self, version_no: u32) -> Option<String> {
        self.table.version(version_no).map(|version| version.label.to_string())
    }

    /// The name of a type, as the log shows it.
    pub(in crate::engine) fn name_of(&self, type_no: u32) -> String {
        self.table.worker_type(type_no).map(|of_type| of_type.name.to_string()).unwrap_or_default()
    }

    /// The label of the version that a type's work went to last.
    fn routed(&self, type_no: u32) -> Option<String> {
        let route = self.table.worker_type(type_no)?.route;
        self.label_of(route)
    }

    /// A type has other settings, if it has; what became of its version is told all the same.
    fn changed_live(&mut self, worker_type: WorkerType, keys: Vec<String>) {
        let changes = &mut self.rollover.changes;
        if let Some(earlier) = changes.iter_mut().find(|earlier| earlier.worker_type == worker_type) {
            add(&mut earlier.keys, keys);
        } else if !keys.is_empty() {
            let change = "changed_live".into();
            changes.push(ReloadTypeView { worker_type, change, from: None, to: None, keys, reason: None });
        }
    }

    pub(in crate::engine) fn changed(
        &mut self,
        worker_type: WorkerType,
        change: &'static str,
        from: Option<String>,
        to: Option<String>,
        reason: Option<String>,
    ) {
        // What one reload began and the next one changed again is told once, from where it began.
        let changes = &mut self.rollover.changes;
        let earlier =
            changes.iter().position(|earlier| earlier.worker_type == worker_type).map(|at| changes.remove(at));
        let (earlier_from, keys) = earlier.map(|earlier| (earlier.from, earlier.keys)).unwrap_or_default();
        let from = earlier_from.or(from);
        // The settings that stand are then those of the version that goes on.
        let keys = if change == "rejected" { Vec::new() } else { keys };
        changes.push(ReloadTypeView { worker_type, change: change.into(), from, to, keys, reason });
    }

    /// Whether versions still start, get a share, or finish what they hold.
    pub(in crate::engine) fn is_rolling(&self) -> bool {
        self.pools.values().any(|run| match run.role {
            State::Starting => run.not_up.is_none(),
            State::Gating | State::Ramping | State::Draining => true,
            State::Retired | State::Rejected | State::Quarantined => true,
            State::Current | State::Warm => false,
        })
    }

    /// Answers those who wait for a reload, once nothing of it is left to happen.
    pub(in crate::engine) fn settle(&mut self) -> Result<(), Poisoned> {
        if self.is_rolling() {
            return Ok(());
        }
        if std::mem::take(&mut self.rollover.open) {
            self.note_settled()?;
        }
        let changes = |name: &WorkerType| self.rollover.changes.iter().any(|change| change.worker_type == *name);
        let verdict = ReloadVerdict {
            generation: self.table.generation().number,
            verdict: self.rollover.verdict(),
            keys: self.rollover.keys.clone(),
            types: self.rollover.changes.clone(),
            unchanged: self.config.workers.iter().filter(|worker| !changes(&worker.worker_type)).count(),
        };
        let waiting = std::mem::take(&mut self.rollover.waiting);
        if !waiting.is_empty() {
            // Once, however many reloads came to this.
            let verdict = verdict.clone();
            self.reply(move |durable| {
                if durable {
                    log(&verdict);
                }
            });
        }
        for to in waiting {
            let verdict = verdict.clone();
            self.reply(move |durable| to.give(if durable { Ok(verdict) } else { Err(Refusal::Poisoned) }));
        }
        Ok(())
    }
}

/// Says what became of a reload.
fn log(settled: &ReloadVerdict) {
    if !settled.keys.is_empty() {
        tracing::info!("changed live: {}", settled.keys.join(", "));
    }
    settled.types.iter().for_each(|change| tracing::info!("{change}"));
    tracing::info!(
        generation = settled.generation,
        verdict = settled.verdict,
        unchanged = settled.unchanged,
        "reload settled"
    );
}

/// Adds those that are not there yet.
fn add(keys: &mut Vec<String>, more: Vec<String>) {
    for key in more {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
}

/// Keys that a running process cannot change, and that differ.
fn fixed_keys(old: &Config, new: &Config) -> Option<String> {
    let differ = [
        ("data_dir", old.data_dir != new.data_dir),
        ("listen", old.listen != new.listen),
        ("log.segment", old.log.segment != new.log.segment),
        ("history.index", old.history_index != new.history_index),
    ];
    let keys: Vec<&str> = differ.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect();
    (!keys.is_empty()).then(|| {
        format!(
            "`{}` cannot change while biotope runs; stop it and start it again, or change it back",
            keys.join("`, `")
        )
    })
}

/// A label with its revision: the first one has no suffix.
fn revised(base: &str, revision: u32) -> String {
    if revision == 1 {
        return base.to_owned();
    }
    let suffix = format!("-r{revision}");
    let kept: String = base.chars().take(LABEL_BYTES_MAX - suffix.len()).collect();
    kept + &suffix
}

/// The label without its revision suffix, if it has one.
fn revision_of(label: &str) -> Option<&str> {
    let (base, revision) = label.rsplit_once("-r")?;
    revision.parse::<u32>().ok().filter(|revision| *revision > 1).map(|_| base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_read_back_from_its_label() {
        assert_eq!(revised("v1", 1), "v1");
        assert_eq!(revised("v1", 2), "v1-r2");
        assert_eq!(revision_of("v1-r2"), Some("v1"));
        assert_eq!(revision_of("v1"), None);
        assert_eq!(revision_of("my-release"), None);
        assert_eq!(revised(&"x".repeat(LABEL_BYTES_MAX), 12).len(), LABEL_BYTES_MAX);
    }
}
