//! Bodies as bytes, and back: every event, borrowed from the record it was read from or made of.

use serde::{Deserialize, Serialize};

use super::{
    Ended, Enqueued, Failed, Failure, Generation, Kind, MinVersion, Names, Opened, Paused, Quarantined, Ramped,
    Redriven, Release, Released, Reserved, Restated, Routed, Settled, Stopped, TRACE_BYTES, Totals, TraceParent,
    TypeChange, TypeNamed, VERSION, VersionAccepted, VersionRejected, quick,
};
use crate::log::RecordKind;

/// The shape of a generation that says what its config was.
const WITH_TEXT: u8 = 2;
/// The shape of an [`Enqueued`] record with a [`MinVersion`], and of a [`Restated`] one that holds such a body. In front of
/// what shape 1 has there is a zero, where that has the number of a type, and then the least version. So a body says itself
/// which it is, and one without a least version is the same in both.
const WITH_MIN_VERSION: u8 = 2;
/// The shape of an [`Enqueued`] record with a trace, and of a [`Restated`] one that holds such a body: two zeros and the trace
/// in front of what shape 1 or 2 has. (A least version's label is never empty, so that a second zero says which it is.)
const WITH_TRACE: u8 = 3;
/// The shape of an [`Ended`], a [`Failed`] and a [`Released`] record that says which worker ran the job: a zero, where shape 1 has
/// the job's seq, which is never zero, and the worker's number in front of what shape 1 has. So a body says itself which it is.
const WITH_WORKER: u8 = 2;
/// The shape of a [`Released`] record whose reason is [`Release::HostDeath`], which the first two do not have; else it is as they
/// are, and its first byte says which of them.
const WITH_HOST_DEATH: u8 = 3;
/// The shape of a [`Restated`] record of a job with a failed attempt whose worker has a number: a zero, where the others have the
/// job's seq, and the workers of all its failed attempts in front of what they have.
const WITH_WORKERS: u8 = 4;

/// Any event, borrowed from the record it was read from or made of.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each is the value of its kind")]
pub enum Event<'a> {
    Enqueued(Enqueued<'a>, &'a [u8]),
    Reserved(Reserved),
    Ended(Ended<'a>, &'a [u8]),
    Failed(Failed, &'a [u8]),
    Released(Released, &'a [u8]),
    Redriven(Redriven),
    Restated(Restated, &'a [u8]),
    Opened(Opened),
    Stopped(Stopped),
    TypeNamed(TypeNamed<'a>),
    VersionAccepted(VersionAccepted<'a>),
    VersionRejected(VersionRejected, &'a [u8]),
    /// And the config's text; empty where it is not known.
    Generation(Generation, &'a str),
    Routed(Routed),
    Totals(Totals),
    Lost(&'a [u8]),
    Paused(Paused),
    Quarantined(Quarantined, &'a [u8]),
    Ramped(Ramped),
    Settled(Settled),
}

/// A record that this program does not understand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    /// The kind is not known, or its shape.
    #[error("kind {kind} version {version} is not known to this program; a newer biotope wrote it")]
    Unknown {
        /// The kind.
        kind: u8,
        /// The shape.
        version: u8,
    },
    /// The body is not of its kind's shape.
    #[error("the body of a record of kind {kind} does not have its shape")]
    Shape {
        /// The kind.
        kind: u8,
    },
}

impl<'a> Event<'a> {
    /// Reads a record's body.
    ///
    /// # Errors
    /// See [`BadRecord`].
    pub fn decode(kind: u8, version: u8, body: &'a [u8]) -> Result<Self, BadRecord> {
        if !(VERSION..=newest_shape(kind)).contains(&version) {
            return Err(BadRecord::Unknown { kind, version });
        }
        let with_text = kind == Kind::Generation as u8 && version == WITH_TEXT;
        let with_host_death = version == WITH_HOST_DEATH && kind == Kind::Released as u8;
        let with_worker = match body.first() {
            Some(&WORKER_FIRST) if with_host_death => true,
            _ => version == WITH_WORKER && may_have_worker(kind),
        };
        let (worker, body) = if with_worker { take_worker(body, kind)? } else { (0, body) };
        /// A body without a tail.
        fn whole<'a, T: Deserialize<'a>>(body: &'a [u8], kind: u8) -> Result<T, BadRecord> {
            let (value, tail) = take(body, kind)?;
            if tail.is_empty() { Ok(value) } else { Err(BadRecord::Shape { kind }) }
        }
        const ENQUEUED: u8 = Kind::Enqueued as u8;
        Ok(match kind {
            ENQUEUED => {
                let (trace, rest) = if version == WITH_TRACE { take_trace(body)? } else { (None, body) };
                let has_min = match version {
                    WITH_TRACE => rest.first() == Some(&MIN_VERSION_FIRST),
                    version => version == WITH_MIN_VERSION,
                };
                let (min_version, rest) = if has_min { take_min_version(rest)? } else { (None, rest) };
                let (meta, tail) = quick::take_enqueued(rest).ok_or(BadRecord::Shape { kind })?;
                // However it is written, it would be taken for what stands in front of a least version.
                if version == WITH_TRACE && meta.type_no == 0 {
                    return Err(BadRecord::Shape { kind });
                }
                Self::Enqueued(Enqueued { min_version, trace, ..meta }, tail)
            }
            k if k == Kind::Reserved as u8 => Self::Reserved(whole(body, kind)?),
            k if k == Kind::Ended as u8 => {
                take(body, kind).map(|(meta, tail)| Self::Ended(Ended { worker, ..meta }, tail))?
            }
            k if k == Kind::Failed as u8 => {
                take(body, kind).map(|(meta, tail)| Self::Failed(Failed { worker, ..meta }, tail))?
            }
            k if k == Kind::Released as u8 => {
                let (meta, tail): (Released, _) = take(body, kind)?;
                // However a seq of zero is written, it would be taken for what stands in front of a worker.
                let is_fit = matches!(meta.release, Release::HostDeath { .. }) == with_host_death;
                if !is_fit || with_host_death && meta.born == 0 {
                    return Err(BadRecord::Shape { kind });
                }
                Self::Released(Released { worker, ..meta }, tail)
            }
            k if k == Kind::Redriven as u8 => Self::Redriven(whole(body, kind)?),
            k if k == Kind::Restated as u8 => {
                take_restated(body, version).map(|(meta, tail)| Self::Restated(meta, tail))?
            }
            k if k == Kind::Opened as u8 => Self::Opened(whole(body, kind)?),
            k if k == Kind::Stopped as u8 => Self::Stopped(whole(body, kind)?),
            k if k == Kind::TypeNamed as u8 => Self::TypeNamed(whole(body, kind)?),
            k if k == Kind::VersionAccepted as u8 => Self::VersionAccepted(whole(body, kind)?),
            k if k == Kind::VersionRejected as u8 => {
                take(body, kind).map(|(meta, tail)| Self::VersionRejected(meta, tail))?
            }
            k if k == Kind::Generation as u8 && with_text => {
                let (meta, tail) = take(body, kind)?;
                Self::Generation(meta, std::str::from_utf8(tail).map_err(|_| BadRecord::Shape { kind })?)
            }
            k if k == Kind::Generation as u8 => Self::Generation(whole(body, kind)?, ""),
            k if k == Kind::Routed as u8 => Self::Routed(whole(body, kind)?),
            k if k == Kind::Totals as u8 => Self::Totals(whole(body, kind)?),
            k if k == Kind::Lost as u8 => Self::Lost(body),
            k if k == Kind::Paused as u8 => Self::Paused(whole(body, kind)?),
            k if k == Kind::Quarantined as u8 => take(body, kind).map(|(meta, tail)| Self::Quarantined(meta, tail))?,
            k if k == Kind::Ramped as u8 => Self::Ramped(whole(body, kind)?),
            k if k == Kind::Settled as u8 => Self::Settled(whole(body, kind)?),
            _ => return Err(BadRecord::Unknown { kind, version }),
        })
    }

    /// Its kind, and the shape in which it is written.
    pub fn record_kind(&self) -> RecordKind {
        let version = match self {
            Self::Generation(_, text) if !text.is_empty() => WITH_TEXT,
            Self::Enqueued(meta, _) if meta.trace.is_some() => WITH_TRACE,
            Self::Enqueued(meta, _) if meta.min_version.is_some() => WITH_MIN_VERSION,
            Self::Restated(meta, _) if Failure::workers(&meta.failures).is_some() => WITH_WORKERS,
            Self::Restated(_, enqueued) => shape_of(Kind::Enqueued as u8, enqueued),
            Self::Released(Released { release: Release::HostDeath { .. }, .. }, _) => WITH_HOST_DEATH,
            Self::Ended(Ended { worker: 1.., .. }, _)
            | Self::Failed(Failed { worker: 1.., .. }, _)
            | Self::Released(Released { worker: 1.., .. }, _) => WITH_WORKER,
            _ => VERSION,
        };
        RecordKind { version, ..self.kind().record_kind() }
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Enqueued(..) => Kind::Enqueued,
            Self::Reserved(_) => Kind::Reserved,
            Self::Ended(..) => Kind::Ended,
            Self::Failed(..) => Kind::Failed,
            Self::Released(..) => Kind::Released,
            Self::Redriven(_) => Kind::Redriven,
            Self::Restated(..) => Kind::Restated,
            Self::Opened(_) => Kind::Opened,
            Self::Stopped(_) => Kind::Stopped,
            Self::TypeNamed(_) => Kind::TypeNamed,
            Self::VersionAccepted(_) => Kind::VersionAccepted,
            Self::VersionRejected(..) => Kind::VersionRejected,
            Self::Generation(..) => Kind::Generation,
            Self::Routed(_) => Kind::Routed,
            Self::Totals(_) => Kind::Totals,
            Self::Lost(_) => Kind::Lost,
            Self::Paused(_) => Kind::Paused,
            Self::Quarantined(..) => Kind::Quarantined,
            Self::Ramped(_) => Kind::Ramped,
            Self::Settled(_) => Kind::Settled,
        }
    }

    /// Appends the body to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Enqueued(meta, tail) => quick::enqueued(out, meta, tail),
            Self::Reserved(meta) => quick::reserved(out, meta),
            Self::Ended(meta, tail) => quick::ended(out, meta, tail),
            Self::Failed(meta, tail) => {
                quick::put_worker(out, meta.worker);
                put(out, meta, tail);
            }
            Self::Released(meta, tail) => {
                quick::put_worker(out, meta.worker);
                put(out, meta, tail);
            }
            Self::Redriven(meta) => put(out, meta, &[]),
            Self::Restated(meta, tail) => {
                if let Some(workers) = Failure::workers(&meta.failures) {
                    out.push(WORKER_FIRST);
                    put(out, &workers, &[]);
                }
                put(out, meta, tail);
            }
            Self::Opened(meta) => put(out, meta, &[]),
            Self::Stopped(meta) => put(out, meta, &[]),
            Self::TypeNamed(meta) => put(out, meta, &[]),
            Self::VersionAccepted(meta) => put(out, meta, &[]),
            Self::VersionRejected(meta, tail) => put(out, meta, tail),
            Self::Generation(meta, text) => put(out, meta, text.as_bytes()),
            Self::Routed(meta) => put(out, meta, &[]),
            Self::Totals(meta) => put(out, meta, &[]),
            Self::Lost(body) => out.extend_from_slice(body),
            Self::Paused(meta) => put(out, meta, &[]),
            Self::Quarantined(meta, tail) => put(out, meta, tail),
            Self::Ramped(meta) => put(out, meta, &[]),
            Self::Settled(meta) => put(out, meta, &[]),
        }
    }

    /// An upper bound on the bytes that [`Event::encode`] appends.
    pub fn bytes_max(&self) -> usize {
        /// Numbers and lengths of the largest shape.
        const FIXED: usize = 160;
        let names = |names: &Option<Names<'_>>| {
            names.as_ref().map_or(0, |n| n.id.map_or(0, str::len) + n.key.map_or(0, str::len) + 16)
        };
        FIXED
            + match self {
                Self::Enqueued(meta, tail) => {
                    meta.task.len()
                        + meta.tenant.map_or(0, str::len)
                        + meta.parent.map_or(0, str::len)
                        + names(&meta.names)
                        + meta.min_version.map_or(0, |min| min.label.len() + 16)
                        + meta.trace.map_or(0, |_| TRACE_FIRST.len() + TRACE_BYTES)
                        + tail.len()
                }
                Self::Ended(meta, tail) => names(&meta.names) + tail.len(),
                Self::Failed(_, tail)
                | Self::Released(_, tail)
                | Self::VersionRejected(_, tail)
                | Self::Quarantined(_, tail) => tail.len(),
                Self::Restated(meta, tail) => {
                    meta.failures.iter().map(|failure| failure.error.len() + 32).sum::<usize>() + tail.len()
                }
                Self::Lost(body) => body.len(),
                Self::TypeNamed(meta) => meta.name.len(),
                Self::VersionAccepted(meta) => meta.label.len(),
                Self::Generation(meta, text) => meta.targets.len() * 5 + text.len(),
                Self::Settled(meta) => {
                    let keys = meta.keys.iter().map(|key| key.len() + 2).sum::<usize>();
                    meta.verdict.len() + keys + meta.changes.iter().map(TypeChange::bytes_max).sum::<usize>()
                }
                _ => 0,
            }
    }
}

fn put<T: Serialize>(out: &mut Vec<u8>, meta: &T, tail: &[u8]) {
    let taken = std::mem::take(out);
    // Writing a plain value into memory has no way to fail.
    *out = postcard::to_extend(meta, taken).expect("a plain value can be written into memory");
    out.extend_from_slice(tail);
}

/// What stands in front of a least version, where otherwise the number of a type does, which is never zero.
pub(super) const MIN_VERSION_FIRST: u8 = 0;
/// What stands in front of a trace, where otherwise the zero of a least version and the length of its label do.
pub(super) const TRACE_FIRST: [u8; 2] = [MIN_VERSION_FIRST, 0];

/// What stands in front of the numbers of workers, where otherwise a job's seq does, which is never zero.
pub(super) const WORKER_FIRST: u8 = 0;

/// The shape of a body that was found without it, by how it begins: of an [`Enqueued`], an [`Ended`], a [`Failed`], a
/// [`Restated`] and a [`Released`] one, unless that is a host death. That of every other kind is its first.
pub fn shape_of(kind: u8, body: &[u8]) -> u8 {
    match body {
        [MIN_VERSION_FIRST, 0, ..] if kind == Kind::Enqueued as u8 => WITH_TRACE,
        [MIN_VERSION_FIRST, ..] if kind == Kind::Enqueued as u8 => WITH_MIN_VERSION,
        [WORKER_FIRST, ..] if may_have_worker(kind) => WITH_WORKER,
        [WORKER_FIRST, ..] if kind == Kind::Restated as u8 => WITH_WORKERS,
        _ => VERSION,
    }
}

/// The newest shape of a kind; those before it are read, too.
fn newest_shape(kind: u8) -> u8 {
    match kind {
        k if k == Kind::Enqueued as u8 => WITH_TRACE,
        k if k == Kind::Restated as u8 => WITH_WORKERS,
        k if k == Kind::Released as u8 => WITH_HOST_DEATH,
        k if k == Kind::Generation as u8 => WITH_TEXT,
        k if may_have_worker(k) => WITH_WORKER,
        _ => VERSION,
    }
}

fn may_have_worker(kind: u8) -> bool {
    [Kind::Ended, Kind::Failed, Kind::Released].iter().any(|one| *one as u8 == kind)
}

/// What is behind the zero in front of the numbers of workers.
fn after_zero(body: &[u8], kind: u8) -> Result<&[u8], BadRecord> {
    body.strip_prefix(&[WORKER_FIRST]).ok_or(BadRecord::Shape { kind })
}

/// The number of a worker in front of a body that has one, and the rest, which is as in shape 1.
fn take_worker(body: &[u8], kind: u8) -> Result<(u32, &[u8]), BadRecord> {
    match take(after_zero(body, kind)?, kind)? {
        // However that is written: a body without a number is of shape 1.
        (0, _) => Err(BadRecord::Shape { kind }),
        found => Ok(found),
    }
}

/// A restated job, with the workers of its failed attempts where these stand in front of it.
fn take_restated(body: &[u8], version: u8) -> Result<(Restated, &[u8]), BadRecord> {
    let kind = Kind::Restated as u8;
    if version != WITH_WORKERS {
        return take(body, kind);
    }
    let (workers, rest): (Vec<u32>, _) = take(after_zero(body, kind)?, kind)?;
    let (mut meta, tail): (Restated, _) = take(rest, kind)?;
    Failure::set_workers(&mut meta.failures, &workers).ok_or(BadRecord::Shape { kind })?;
    Ok((meta, tail))
}

/// The trace in front of an `Enqueued` body that has one, and the rest, which is as in shape 1 or 2.
fn take_trace(body: &[u8]) -> Result<(Option<TraceParent>, &[u8]), BadRecord> {
    let bad = BadRecord::Shape { kind: Kind::Enqueued as u8 };
    let rest = body.strip_prefix(&TRACE_FIRST).and_then(<[u8]>::split_first_chunk::<TRACE_BYTES>);
    let (trace, rest) = rest.ok_or(bad.clone())?;
    Ok((Some(TraceParent::from_bytes(*trace).ok_or(bad)?), rest))
}

fn take<'a, T: Deserialize<'a>>(body: &'a [u8], kind: u8) -> Result<(T, &'a [u8]), BadRecord> {
    postcard::take_from_bytes(body).map_err(|_| BadRecord::Shape { kind })
}

/// The least version in front of an `Enqueued` body that has one, and the rest, which is as in shape 1.
fn take_min_version(body: &[u8]) -> Result<(Option<MinVersion<'_>>, &[u8]), BadRecord> {
    let kind = Kind::Enqueued as u8;
    let rest = body.strip_prefix(&[MIN_VERSION_FIRST]).ok_or(BadRecord::Shape { kind })?;
    let (min, rest): (MinVersion<'_>, _) = take(rest, kind)?;
    // However that is written, it would be taken for what stands in front of a trace.
    if min.label.is_empty() {
        return Err(BadRecord::Shape { kind });
    }
    Ok((Some(min), rest))
}

/// The body of an `Enqueued` record, with the number of its least version, which was not known when it was written; `None`
/// where it has none, or has a number.
pub fn with_version_no(enqueued: &[u8], version_no: u32) -> Option<Vec<u8>> {
    let shape = shape_of(Kind::Enqueued as u8, enqueued);
    let (trace, after) = if shape == WITH_TRACE { take_trace(enqueued).ok()? } else { (None, enqueued) };
    after.first().filter(|first| **first == MIN_VERSION_FIRST)?;
    let (min, rest) = take_min_version(after).ok()?;
    let min = min.filter(|min| min.version_no == 0)?;
    let mut body = Vec::with_capacity(enqueued.len() + 4);
    if let Some(trace) = &trace {
        quick::put_trace(&mut body, trace);
    }
    quick::put_min_version(&mut body, &MinVersion { version_no, ..min });
    body.extend_from_slice(rest);
    Some(body)
}

/// The `Enqueued` part of a home record's body, and the payload.
///
/// # Errors
/// See [`BadRecord`].
pub fn decode_home(kind: u8, body: &[u8]) -> Result<(Enqueued<'_>, &[u8]), BadRecord> {
    match Event::decode(kind, shape_of(kind, body), body)? {
        Event::Enqueued(meta, payload) => Ok((meta, payload)),
        Event::Restated(_, enqueued) => decode_home(Kind::Enqueued as u8, enqueued),
        _ => Err(BadRecord::Shape { kind }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_read_in_both_its_shapes() {
        let generation = Generation { number: 3, at: 7, targets: vec![1, 300] };
        let old = [3, 7, 2, 1, 0xac, 2];
        let kind = Kind::Generation as u8;
        assert_eq!(Event::decode(kind, 1, &old), Ok(Event::Generation(generation.clone(), "")));
        for text in ["", "x = 1\n"] {
            let event = Event::Generation(generation.clone(), text);
            let mut body = Vec::new();
            event.encode(&mut body);
            let record = event.record_kind();
            assert_eq!(
                (record.version, &body),
                (if text.is_empty() { 1 } else { 2 }, &[&old, text.as_bytes()].concat())
            );
            assert_eq!(Event::decode(record.kind, record.version, &body), Ok(event));
        }
        assert_eq!(Event::decode(kind, 1, &[&old[..], b"x"].concat()), Err(BadRecord::Shape { kind }));
        assert_eq!(Event::decode(kind, 2, &[&old[..], &[0xff]].concat()), Err(BadRecord::Shape { kind }));
        assert_eq!(Event::decode(kind, 3, &old), Err(BadRecord::Unknown { kind, version: 3 }));
    }

    #[test]
    fn a_host_death_and_no_other_reason_is_written_in_the_third_shape_of_a_release() {
        let kind = Kind::Released as u8;
        let host_death = Release::HostDeath { ready_ms: 9 };
        let reasons = [Release::Interrupt, Release::Deferral { ready_ms: 9 }, Release::NotStarted, host_death];
        for (release, worker) in reasons.into_iter().flat_map(|release| [(release, 0), (release, 5)]) {
            let event = Event::Released(Released { born: 7, at: 8, release, worker }, b"why");
            let mut body = Vec::new();
            event.encode(&mut body);
            let shape = event.record_kind().version;
            assert_eq!(shape, if release == host_death { 3 } else { 1 + u8::from(worker > 0) });
            assert_eq!(Event::decode(kind, shape, &body), Ok(event));
            for other in [1, 2, 3].into_iter().filter(|other| *other != shape) {
                assert_eq!(Event::decode(kind, other, &body), Err(BadRecord::Shape { kind }), "{release:?} {worker}");
            }
        }
        assert!(
            Event::decode(kind, 3, &[7, 8, 3, 9, b'w']).is_ok() && Event::decode(kind, 3, &[0, 5, 7, 8, 3, 9]).is_ok()
        );
        // A seq of zero, written so that its first byte is none.
        assert_eq!(Event::decode(kind, 3, &[0x80, 0, 8, 3, 9]), Err(BadRecord::Shape { kind }));
        assert_eq!(Event::decode(kind, 4, &[7, 8, 3, 9]), Err(BadRecord::Unknown { kind, version: 4 }));
    }
}
