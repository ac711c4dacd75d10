//! What handles and the engine's thread share: names, bounds, and how it stands with the process.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;

use super::GenerationSpec;
use super::command::Then;
use crate::access::Access;
use crate::archive::History;
use crate::config::{Config, Serving};
use crate::job::ids::IdMaker;
use crate::limits::IN_FLIGHT_BYTES_MAX;
use crate::log::Reader;
use crate::refusal::Refusal;
use crate::sync::Broadcast;
use crate::types::{Label, WorkerType};

/// Names by number, as readers of the log need them.
#[derive(Debug, Default)]
pub(super) struct KnownNames {
    /// Types, in order of their numbers from 1.
    pub(super) types: Vec<WorkerType>,
    /// Labels of versions, by number.
    pub(super) labels: HashMap<u32, Label>,
}

impl KnownNames {
    pub(super) fn worker_type(&self, no: u32) -> Option<&WorkerType> {
        self.types.get((no as usize).wrapping_sub(1))
    }
}

const RUNNING: u8 = 0;
const STOPPING: u8 = 1;
const POISONED: u8 = 2;
const CLOSED: u8 = 3;

/// What handles and the engine share.
pub(super) struct Shared {
    pub(super) broadcast: Arc<Broadcast>,
    pub(super) reader: Reader,
    pub(super) ids: IdMaker,
    /// Bytes of jobs that are on their way in; relaxed, a bound and no order.
    in_flight: AtomicUsize,
    /// Stored by the engine, loaded by everyone; it guards nothing else, so relaxed would do.
    state: AtomicU8,
    payload_max: AtomicUsize,
    serving: ArcSwap<Serving>,
    access: ArcSwap<Access>,
    names: ArcSwap<KnownNames>,
    poisoned: Mutex<PoisonWatch>,
    /// The index of ended jobs, if there is one. Set once, soon after the start.
    history: OnceLock<Arc<dyn History>>,
}

#[derive(Default)]
struct PoisonWatch {
    reason: Option<String>,
    watchers: Vec<Then<String>>,
}

impl Shared {
    pub(super) fn new(reader: Reader, ids: IdMaker, spec: &GenerationSpec) -> Self {
        let config = &spec.config;
        Self {
            broadcast: Arc::new(Broadcast::default()),
            reader,
            ids,
            in_flight: AtomicUsize::new(0),
            state: AtomicU8::new(RUNNING),
            payload_max: AtomicUsize::new(config.log.payload_max),
            serving: ArcSwap::from_pointee(config.serving.clone()),
            access: ArcSwap::new(Arc::clone(&spec.access)),
            names: ArcSwap::default(),
            poisoned: Mutex::default(),
            history: OnceLock::new(),
        }
    }

    /// Has ended jobs looked up in an index; the first one given stays.
    pub(super) fn use_history(&self, history: Arc<dyn History>) {
        history.shown();
        drop(self.history.set(history));
    }

    pub(super) fn history(&self) -> Option<&dyn History> {
        self.history.get().map(|history| &**history)
    }

    /// More of the log may be read.
    pub(super) fn shown(&self) {
        if let Some(history) = self.history() {
            history.shown();
        }
    }

    pub(super) fn settled(&self, bytes: usize) {
        self.in_flight.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn set_stopping(&self) {
        self.state.store(STOPPING, Ordering::Release);
    }

    pub(super) fn set_closed(&self) {
        self.state.store(CLOSED, Ordering::Release);
    }

    /// The log is poisoned: everyone who watches is told.
    pub(super) fn set_poisoned(&self, reason: &str) {
        self.state.store(POISONED, Ordering::Release);
        let watchers = {
            let mut watch = self.poisoned.lock().unwrap_or_else(PoisonError::into_inner);
            watch.reason = Some(reason.to_owned());
            std::mem::take(&mut watch.watchers)
        };
        for watcher in watchers {
            watcher(reason.to_owned());
        }
    }

    /// What those go by who take jobs in, from now on.
    pub(super) fn set_edges(&self, config: &Config, access: Arc<Access>) {
        self.payload_max.store(config.log.payload_max, Ordering::Relaxed);
        self.serving.store(Arc::new(config.serving.clone()));
        self.access.store(access);
    }

    pub(super) fn set_names(&self, names: KnownNames) {
        self.names.store(Arc::new(names));
    }

    pub(super) fn names(&self) -> Arc<KnownNames> {
        self.names.load_full()
    }

    pub(super) fn unknown_type(&self, name: &str) -> Refusal {
        let names = self.names();
        let mut known: Vec<&str> = names.types.iter().map(WorkerType::as_str).collect();
        known.sort_unstable();
        Refusal::UnknownType { name: name.to_owned(), known: known.join(", ") }
    }

    /// Why nobody answers.
    pub(super) fn gone(&self) -> Refusal {
        match self.state.load(Ordering::Acquire) {
            POISONED => Refusal::Poisoned,
            _ => Refusal::Stopping,
        }
    }

    /// Whether jobs are accepted.
    pub(super) fn ready(&self) -> Result<(), Refusal> {
        match self.state.load(Ordering::Acquire) {
            RUNNING => Ok(()),
            _ => Err(self.gone()),
        }
    }

    /// Takes bytes into the bound of what may be in flight.
    pub(super) fn enter(&self, bytes: usize) -> Result<(), Refusal> {
        let before = self.in_flight.fetch_add(bytes, Ordering::Relaxed);
        // One call always gets in, whatever its size.
        if before > 0 && before + bytes > IN_FLIGHT_BYTES_MAX {
            self.settled(bytes);
            return Err(Refusal::Busy { what: "bytes of jobs on their way in" });
        }
        Ok(())
    }

    pub(super) fn serving(&self) -> Arc<Serving> {
        self.serving.load_full()
    }

    pub(super) fn access(&self) -> Arc<Access> {
        self.access.load_full()
    }

    pub(super) fn payload_max(&self) -> usize {
        self.payload_max.load(Ordering::Relaxed)
    }

    /// Has `then` called once, with the reason, if the log is poisoned, or was.
    pub(super) fn on_poisoned(&self, then: Then<String>) {
        let reason = {
            let mut watch = self.poisoned.lock().unwrap_or_else(PoisonError::into_inner);
            match watch.reason.clone() {
                Some(reason) => reason,
                None => return watch.watchers.push(then),
            }
        };
        then(reason);
    }
}
