//! One live job, as the table holds it: bounded memory, no payload.

use crate::job::event::{Enqueued, Failure, GivenBack, Home, Names};
use crate::job::transition::State;
use crate::limits::{ATTEMPTS_KEPT, ERROR_BYTES_KEPT};
use crate::log::frame::RECORD_HEADER_BYTES;
use crate::types::{Fence, Priority, UnixMs};

/// A live job: everything but its payload.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its type.
    pub type_no: u32,
    /// Its place in the order.
    pub priority: Priority,
    /// Its state.
    pub state: State,
    /// Failed attempts.
    pub attempts: u16,
    /// Attempts that it may have.
    pub max_attempts: u16,
    /// How often it was given back.
    pub given_back: GivenBack,
    /// When it was accepted.
    pub created_ms: UnixMs,
    /// When it may run; 0: at once.
    pub ready_ms: UnixMs,
    /// From when on it is not begun any more; 0: never.
    pub expires_ms: UnixMs,
    /// When it died, for a dead one.
    pub since_ms: UnixMs,
    /// Its run, if it is reserved; its last one, if not.
    pub fence: Fence,
    /// The version that runs it, or ran it last; 0: none.
    pub version_no: u32,
    /// Where its payload lies.
    pub home: Home,
    /// What few jobs have.
    extras: Option<Box<Extras>>,
}

/// What few jobs have.
#[derive(Debug, Clone, Default)]
struct Extras {
    names: Option<OwnedNames>,
    failures: Vec<Failure>,
}

#[derive(Debug, Clone)]
struct OwnedNames {
    id: Option<Box<str>>,
    key: Option<Box<str>>,
    digest: u64,
}

impl Job {
    /// Has it remember these failed attempts.
    pub(super) fn set_failures(&mut self, failures: &[Failure]) {
        if !failures.is_empty() {
            self.extras.get_or_insert_default().failures = failures.to_vec();
        }
    }

    /// What its caller chose.
    pub fn names(&self) -> Option<Names<'_>> {
        let names = self.extras.as_ref()?.names.as_ref()?;
        Some(Names { id: names.id.as_deref(), key: names.key.as_deref(), digest: names.digest })
    }

    /// Its failed attempts that are still known.
    pub fn failures(&self) -> &[Failure] {
        self.extras.as_ref().map_or(&[], |extras| &extras.failures)
    }

    pub(super) fn bytes(&self) -> u64 {
        u64::from(self.home.body) + RECORD_HEADER_BYTES as u64
    }

    pub(super) fn fail(&mut self, at: UnixMs, version_no: u32, error: &[u8]) {
        self.attempts = self.attempts.saturating_add(1);
        self.version_no = version_no;
        let failures = &mut self.extras.get_or_insert_default().failures;
        if failures.len() == ATTEMPTS_KEPT {
            failures.remove(0);
        }
        let error = tail_of(&String::from_utf8_lossy(error), ERROR_BYTES_KEPT).to_owned();
        failures.push(Failure { attempt: self.attempts, at, version_no, error });
    }
}

/// The last bytes of a text, at most so many, from a character's start on.
pub fn tail_of(text: &str, bytes: usize) -> &str {
    let mut from = text.len().saturating_sub(bytes);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    text.get(from..).unwrap_or_default()
}

/// A job as it is enqueued, in a state.
pub(super) fn new_job(meta: &Enqueued<'_>, home: Home, state: State) -> Job {
    let names = meta.names.as_ref().map(|names| OwnedNames {
        id: names.id.map(Box::from),
        key: names.key.map(Box::from),
        digest: names.digest,
    });
    Job {
        type_no: meta.type_no,
        priority: meta.priority,
        state,
        attempts: 0,
        max_attempts: meta.max_attempts,
        given_back: GivenBack::default(),
        created_ms: meta.created_ms,
        ready_ms: meta.ready_ms,
        expires_ms: meta.expires_ms,
        since_ms: 0,
        fence: Fence::default(),
        version_no: 0,
        home,
        extras: names.map(|names| Box::new(Extras { names: Some(names), failures: Vec::new() })),
    }
}
