//! One live job, as the table holds it: bounded memory, no payload.

use serde::{Deserialize, Serialize};

use super::Illegal;
use crate::job::event::{Enqueued, Failed, Failure, GivenBack, Home, Names, Restated};
use crate::job::queue::Fresh;
use crate::job::tenant::tenant_no;
use crate::job::transition::State;
use crate::limits::{ATTEMPTS_KEPT, ERROR_BYTES_KEPT, HOST_DEATHS_MAX};
use crate::types::{Fence, Label, Priority, Seq, UnixMs};

/// A live job: everything but its payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Whether its caller chose an id or a key; they stand in its home record.
    pub named: bool,
    /// Whom it is for, as [`tenant_no`] has it; 0: nobody, or a checkpoint of before this was kept said nothing of it.
    /// Beside the job in a checkpoint.
    #[serde(skip)]
    pub tenant: u16,
    /// What few jobs have.
    extras: Option<Box<Extras>>,
}

/// What few jobs have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Extras {
    names: Option<OwnedNames>,
    failures: Vec<Failure>,
    /// Beside the job in a checkpoint.
    #[serde(skip)]
    min_version: Option<OwnedMinVersion>,
}

/// The version that a job needs, kept: this one, or one that was first accepted after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnedMinVersion {
    /// Its label.
    pub label: Label,
    /// Its number; 0: no version of this label was known when the job's home record was written.
    pub version_no: u32,
}

/// What a caller chose, kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnedNames {
    /// The job's id, if it was chosen.
    pub id: Option<Box<str>>,
    /// The idempotency key.
    pub key: Option<Box<str>>,
    /// Digest of the call's body.
    pub digest: u64,
}

impl OwnedNames {
    /// As a record bears them.
    pub fn as_names(&self) -> Names<'_> {
        Names { id: self.id.as_deref(), key: self.key.as_deref(), digest: self.digest }
    }
}

impl From<&Names<'_>> for OwnedNames {
    fn from(names: &Names<'_>) -> Self {
        Self { id: names.id.map(Box::from), key: names.key.map(Box::from), digest: names.digest }
    }
}

impl Job {
    /// Has it remember these failed attempts.
    pub(super) fn set_failures(&mut self, failures: &[Failure]) {
        if !failures.is_empty() {
            self.extras.get_or_insert_default().failures = failures.to_vec();
        }
    }

    /// Puts the workers of its failed attempts beside them; `None`: they are not those.
    pub(super) fn set_workers(&mut self, workers: &[u32]) -> Option<()> {
        Failure::set_workers(&mut self.extras.as_mut()?.failures, workers)
    }

    /// Has it need a version, or none.
    pub(super) fn set_min_version(&mut self, min_version: Option<OwnedMinVersion>) {
        if min_version.is_some() {
            self.extras.get_or_insert_default().min_version = min_version;
        }
    }

    /// The version that it needs at least, if it names one.
    pub fn min_version(&self) -> Option<&OwnedMinVersion> {
        self.extras.as_ref()?.min_version.as_ref()
    }

    /// What its caller chose, if that is kept in memory: for jobs that expire, which nobody reads before they end.
    pub fn names(&self) -> Option<&OwnedNames> {
        self.extras.as_ref()?.names.as_ref()
    }

    /// A fresh job, ready or delayed, as one of its own.
    pub(super) fn of(fresh: Fresh, state: State, type_no: u32, priority: Priority) -> Self {
        Self {
            type_no,
            priority,
            state,
            attempts: 0,
            max_attempts: fresh.max_attempts,
            given_back: GivenBack::default(),
            created_ms: fresh.created_ms,
            ready_ms: fresh.ready_ms,
            expires_ms: 0,
            since_ms: 0,
            fence: Fence::default(),
            version_no: 0,
            home: fresh.home,
            named: fresh.named,
            tenant: fresh.tenant,
            extras: None,
        }
    }

    /// The job as a fresh one, if that says all of it.
    pub(super) fn as_fresh(&self, born: Seq) -> Option<Fresh> {
        let Self { home, created_ms, ready_ms, max_attempts, named, tenant, .. } = *self;
        let fresh = Fresh { born, home, created_ms, ready_ms, max_attempts, named, tenant };
        let waits = matches!(self.state, State::Ready | State::Delayed);
        (waits && *self == Self::of(fresh, self.state, self.type_no, self.priority)).then_some(fresh)
    }

    /// Its whole state, as an event; it is the job `born`.
    pub fn restate(&self, born: Seq) -> Restated {
        Restated {
            born,
            state: self.state,
            attempts: self.attempts,
            given_back: self.given_back,
            ready_ms: self.ready_ms,
            fence: self.fence,
            version_no: self.version_no,
            since_ms: self.since_ms,
            failures: self.failures().to_vec(),
        }
    }

    /// Whether it is dead when what runs it ends once more.
    pub fn is_at_last_host_death(&self) -> bool {
        self.given_back.host_deaths + 1 >= HOST_DEATHS_MAX
    }

    /// Its failed attempts that are still known.
    pub fn failures(&self) -> &[Failure] {
        self.extras.as_ref().map_or(&[], |extras| &extras.failures)
    }

    /// The version that ran it last, failed, and is to be made up for by another one, at no cost.
    pub fn tried_on(&self) -> Option<u32> {
        let last = self.failures().last().filter(|last| last.attempt == 0)?;
        (self.ready_ms == 0).then_some(last.version_no)
    }

    /// Remembers a failed run, which cost an attempt, or none.
    pub(super) fn fail(&mut self, event: &Failed, error: &[u8], costs: bool) {
        let Failed { at, version_no, worker, .. } = *event;
        self.attempts = self.attempts.saturating_add(u16::from(costs));
        self.version_no = version_no;
        let failures = &mut self.extras.get_or_insert_default().failures;
        if failures.len() == ATTEMPTS_KEPT {
            failures.remove(0);
        }
        let error = ends_of(&String::from_utf8_lossy(error), ERROR_BYTES_KEPT);
        let attempt = if costs { self.attempts } else { 0 };
        failures.push(Failure { attempt, at, version_no, error, worker });
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

/// Both ends of a text, at most so many bytes: in front stands what happened, at the end what was said last about it.
fn ends_of(text: &str, bytes: usize) -> String {
    const GAP: &str = " … ";
    if text.len() <= bytes {
        return text.to_owned();
    }
    let front = text.get(..text.floor_char_boundary(bytes / 4)).unwrap_or_default();
    let rest = bytes.saturating_sub(front.len() + GAP.len());
    format!("{front}{GAP}{}", tail_of(text, rest))
}

/// A job as it is enqueued, in a state.
///
/// # Errors
/// The version that it needs has a label that is none.
pub(super) fn new_job(meta: &Enqueued<'_>, home: Home, state: State) -> Result<Job, Illegal> {
    // The engine reads the home record of a job that is to end, but for one that ends by itself.
    let kept = meta.names.as_ref().filter(|_| meta.expires_ms != 0).map(OwnedNames::from);
    let min_version = meta.min_version.map(|min| {
        let label = min.label.parse().map_err(|_| Illegal::BadName(min.label.to_owned()))?;
        Ok(OwnedMinVersion { label, version_no: min.version_no })
    });
    let mut job = Job {
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
        named: meta.names.is_some(),
        tenant: tenant_no(meta.tenant),
        extras: kept.map(|names| Box::new(Extras { names: Some(names), ..Extras::default() })),
    };
    job.set_min_version(min_version.transpose()?);
    Ok(job)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_error_keeps_what_happened_and_what_was_said_last() {
        assert_eq!(ends_of("exit 1: short", 256), "exit 1: short");
        let long = format!("w.py exited with code 3: {}the reason", "ä".repeat(500));
        let kept = ends_of(&long, 256);
        assert!(kept.starts_with("w.py exited with code 3: ä") && kept.ends_with("äthe reason"), "{kept}");
        assert!(kept.len() <= 256 && kept.len() > 250, "{} bytes", kept.len());
    }
}
