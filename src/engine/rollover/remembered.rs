//! What is remembered of configs: which were accepted and what became of them, which were refused, and how the first one of
//! an opening differs from the last one before it.

use crate::config::Config;
use crate::engine::core::Core;
use crate::engine::runs::{Rollover, is_not_taken};
use crate::engine::view::{GenerationEntry, GenerationsView, RefusedView, ReloadTypeView};
use crate::engine::words::moment;
use crate::engine::{GenerationSpec, VersionSpec};
use crate::job::event::{Event, Settled, TypeChange};
use crate::job::table::GenerationRecord;
use crate::limits::{ERROR_BYTES_KEPT, ERROR_BYTES_MAX, REFUSED_SHOWN_MAX, SETTLED_BYTES_MAX};
use crate::log::Poisoned;
use crate::rollover::plan::Asked;
use crate::types::UnixMs;
use crate::worker::front;

/// How the version that a config asks for stands at an opening, where another one starts first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum TakenUp {
    /// It follows: by a ramp, or at once.
    Next,
    /// Somebody has gone back from it.
    Stays,
    /// It was withdrawn.
    Withheld,
}

impl Core {
    /// The config that ran before this opening, if it can be known.
    pub(in crate::engine) fn config_before(&self, spec: &GenerationSpec) -> Option<Config> {
        match &self.table.generation().text {
            Some(text) if **text != *spec.text => (self.resolver)(text).ok().map(|before| before.config),
            Some(_) | None => Some(spec.config.clone()),
        }
    }

    /// At an opening: takes the route of a type up where the last process left it, if another version than the config's had
    /// the work: it starts first, and the config's version after it, unless it was withdrawn or gone back from.
    pub(in crate::engine) fn take_up(
        &mut self,
        type_no: u32,
        asked: &Asked,
        spec: &VersionSpec,
    ) -> Result<Option<TakenUp>, Poisoned> {
        let Some(of_type) = self.table.worker_type(type_no) else { return Ok(None) };
        let (route, ramp, previous) = (of_type.route, of_type.ramp, of_type.previous);
        let name = of_type.name.clone();
        if route == 0 || route == asked.version_no {
            return Ok(None);
        }
        let before = match self.spec_by_text(route) {
            Ok(before) => before,
            Err(why) => {
                tracing::warn!(
                    "{name}: {}, which did its work, cannot be started again: {why}; what the config asks for does it now, with no way back",
                    self.label_of(route).unwrap_or_default()
                );
                return Ok(None);
            }
        };
        let on_ramp = ramp.is_some_and(|ramp| ramp.version_no == asked.version_no);
        let stays = asked.quarantined || (asked.same_as_before && !on_ramp);
        let of_type = self.types.entry(type_no).or_default();
        of_type.worker = Some(spec.worker.clone());
        if stays {
            of_type.withheld = asked.quarantined.then(|| (asked.version_no, spec.clone()));
        } else {
            of_type.next = Some((asked.version_no, spec.clone()));
            // To ask for what was there before is to go back to it.
            of_type.way_back = (!on_ramp && previous == asked.version_no).then_some(previous);
        }
        self.start(type_no, route, before)?;
        Ok(Some(match (asked.quarantined, stays) {
            (true, _) => TakenUp::Withheld,
            (false, true) => TakenUp::Stays,
            (false, false) => TakenUp::Next,
        }))
    }

    /// The newest file did not pass.
    pub(in crate::engine) fn reload_failed(&mut self, why: String) -> Result<(), Poisoned> {
        self.rollover.refuse(why, self.now);
        Ok(())
    }

    /// Records what became of the newest generation, where that is news.
    pub(in crate::engine) fn note_settled(&mut self) -> Result<(), Poisoned> {
        let newest = self.table.generation();
        let is_news = newest.settled.is_none() || !self.rollover.changes.is_empty();
        if newest.number == 0 || !is_news || self.is_stopping() {
            return Ok(());
        }
        let settled = self.rollover.settled(newest.number, self.now);
        self.record(&Event::Settled(settled))?;
        Ok(())
    }

    /// The last configs, newest first.
    pub(in crate::engine) fn generations_view(&self) -> GenerationsView {
        let newest = self.table.generation().number;
        let open = self.rollover.open.then_some(&self.rollover);
        let entry = |known: &GenerationRecord| entry(known, newest, open);
        GenerationsView {
            generations: self.table.generations().iter().rev().map(entry).collect(),
            refused: self.rollover.refused.iter().rev().cloned().collect(),
        }
    }
}

impl Rollover {
    /// A config was not accepted.
    pub(in crate::engine) fn refuse(&mut self, why: String, at: UnixMs) {
        let reason = front(&why, ERROR_BYTES_MAX).to_owned();
        if self.refused.len() == REFUSED_SHOWN_MAX {
            self.refused.pop_front();
        }
        self.refused.push_back(RefusedView { at: moment(at), reason });
        self.last_error = Some((why, at));
    }

    /// What became of it all, as much of it as may be kept: what was not taken comes first.
    fn settled(&self, number: u64, at: UnixMs) -> Settled {
        let (mut changes, mut bytes, mut left_out) = (Vec::new(), 0, 0);
        let (not_taken, others): (Vec<_>, Vec<_>) = self.changes.iter().partition(|view| is_not_taken(view));
        for view in not_taken.into_iter().chain(others) {
            let change = kept(view);
            bytes += change.bytes_max();
            if bytes > SETTLED_BYTES_MAX {
                left_out += 1;
            } else {
                changes.push(change);
            }
        }
        let (verdict, keys) = (self.verdict().to_owned(), self.keys.clone());
        Settled { number, at, verdict, keys, changes, left_out }
    }
}

fn kept(view: &ReloadTypeView) -> TypeChange {
    TypeChange {
        name: view.worker_type.to_string(),
        change: view.change.clone().into_owned(),
        from: view.from.clone(),
        to: view.to.clone(),
        keys: view.keys.clone(),
        reason: view.reason.as_deref().map(|reason| front(reason, ERROR_BYTES_KEPT).to_owned()),
    }
}

fn shown(change: &TypeChange) -> Option<ReloadTypeView> {
    Some(ReloadTypeView {
        worker_type: change.name.parse().ok()?,
        change: change.change.clone().into(),
        from: change.from.clone(),
        to: change.to.clone(),
        keys: change.keys.clone(),
        reason: change.reason.clone(),
    })
}

/// One generation; `open`: what goes on about the newest one.
fn entry(known: &GenerationRecord, newest: u64, open: Option<&Rollover>) -> GenerationEntry {
    let open = open.filter(|_| known.number == newest);
    let settled = known.settled.as_deref().filter(|_| open.is_none());
    let verdict = match (settled, open) {
        (Some(settled), _) => settled.verdict.clone(),
        (None, Some(_)) => "rolling".to_owned(),
        (None, None) if known.number < newest => "superseded".to_owned(),
        (None, None) => "unknown".to_owned(),
    };
    let keys = match (settled, open) {
        (Some(settled), _) => settled.keys.clone(),
        (None, open) => open.map(|open| open.keys.clone()).unwrap_or_default(),
    };
    let types = match (settled, open) {
        (Some(settled), _) => settled.changes.iter().filter_map(shown).collect(),
        (None, open) => open.map(|open| open.changes.clone()).unwrap_or_default(),
    };
    GenerationEntry {
        number: known.number,
        accepted_at: moment(known.at),
        settled_at: settled.map(|settled| moment(settled.at)),
        verdict,
        keys,
        types,
        left_out: settled.map_or(0, |settled| settled.left_out),
    }
}
