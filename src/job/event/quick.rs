//! The three shapes of which every job writes one record, written field by field: the same bytes as postcard makes, in
//! less time; and the first of them, which an opening meets for every job that waits, read so. Tests hold both against
//! each other.

use super::codec::{MIN_VERSION_FIRST, TRACE_FIRST, WORKER_FIRST};
use super::{End, Ended, Enqueued, Fence, GivenBack, Home, MinVersion, Names, Reserved, TraceParent};
use crate::types::Priority;

/// Most bytes of one shape's numbers.
const NUMBERS_MAX: usize = 128;

pub(super) fn enqueued(out: &mut Vec<u8>, meta: &Enqueued<'_>, tail: &[u8]) {
    let Enqueued { type_no, task, priority, tenant, created_ms, ready_ms, expires_ms, max_attempts, .. } = meta;
    let Enqueued { names, parent, min_version, trace, .. } = meta;
    out.reserve(NUMBERS_MAX + tail.len());
    if let Some(trace) = trace {
        put_trace(out, trace);
    }
    if let Some(min) = min_version {
        put_min_version(out, min);
    }
    number(out, u64::from(*type_no));
    text(out, task);
    out.push(priority.get());
    optional(out, *tenant);
    number(out, *created_ms);
    number(out, *ready_ms);
    number(out, *expires_ms);
    number(out, u64::from(*max_attempts));
    put_names(out, names.as_ref());
    optional(out, *parent);
    out.extend_from_slice(tail);
}

pub(super) fn put_trace(out: &mut Vec<u8>, trace: &TraceParent) {
    out.extend_from_slice(&TRACE_FIRST);
    out.extend_from_slice(trace.as_bytes());
}

pub(super) fn put_min_version(out: &mut Vec<u8>, min: &MinVersion<'_>) {
    out.push(MIN_VERSION_FIRST);
    text(out, min.label);
    number(out, u64::from(min.version_no));
}

pub(super) fn reserved(out: &mut Vec<u8>, meta: &Reserved) {
    let Reserved { born, fence: Fence { epoch, counter }, version_no, at } = meta;
    out.reserve(NUMBERS_MAX);
    number(out, *born);
    number(out, u64::from(*epoch));
    number(out, *counter);
    number(out, u64::from(*version_no));
    number(out, *at);
}

pub(super) fn ended(out: &mut Vec<u8>, meta: &Ended<'_>, tail: &[u8]) {
    let Ended { born, end, at, type_no, version_no, attempts, given_back, created_ms, home, names, worker } = meta;
    let GivenBack { interrupts, deferrals, host_deaths } = given_back;
    let Home { seq, segment, offset, body } = home;
    out.reserve(NUMBERS_MAX + tail.len());
    put_worker(out, *worker);
    number(out, *born);
    out.push(match end {
        End::Completed => 0,
        End::Cancelled => 1,
        End::Expired => 2,
        End::Discarded => 3,
    });
    number(out, *at);
    number(out, u64::from(*type_no));
    number(out, u64::from(*version_no));
    number(out, u64::from(*attempts));
    number(out, u64::from(*interrupts));
    number(out, u64::from(*deferrals));
    out.push(*host_deaths);
    number(out, *created_ms);
    number(out, *seq);
    number(out, u64::from(*segment));
    number(out, u64::from(*offset));
    number(out, u64::from(*body));
    put_names(out, names.as_ref());
    out.extend_from_slice(tail);
}

/// Nothing where there is none.
pub(super) fn put_worker(out: &mut Vec<u8>, worker: u32) {
    if worker > 0 {
        out.push(WORKER_FIRST);
        number(out, u64::from(worker));
    }
}

/// Seven bits a byte, the lowest first; the last byte has its upper bit clear.
fn number(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let [low, ..] = value.to_le_bytes();
        if value < 0x80 {
            return out.push(low);
        }
        out.push(low | 0x80);
        value >>= 7;
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    number(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn optional(out: &mut Vec<u8>, value: Option<&str>) {
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        text(out, value);
    }
}

fn put_names(out: &mut Vec<u8>, names: Option<&Names<'_>>) {
    out.push(u8::from(names.is_some()));
    if let Some(Names { id, key, digest }) = names {
        optional(out, *id);
        optional(out, *key);
        number(out, *digest);
    }
}

/// What postcard takes from the start of a body, and the tail; `None` where it refuses it.
pub(super) fn take_enqueued(body: &[u8]) -> Option<(Enqueued<'_>, &[u8])> {
    let mut rest = body;
    let from = &mut rest;
    let meta = Enqueued {
        type_no: take_number(from)?,
        task: take_text(from)?,
        priority: Priority::new(take_byte(from)?)?,
        tenant: take_optional(from)?,
        created_ms: take_number(from)?,
        ready_ms: take_number(from)?,
        expires_ms: take_number(from)?,
        max_attempts: take_number(from)?,
        names: take_names(from)?,
        parent: take_optional(from)?,
        min_version: None,
        trace: None,
    };
    Some((meta, rest))
}

fn take_byte(from: &mut &[u8]) -> Option<u8> {
    let (first, rest) = from.split_first()?;
    *from = rest;
    Some(*first)
}

fn take_number<T: TryFrom<u64>>(from: &mut &[u8]) -> Option<T> {
    let bytes_max = (8 * size_of::<T>()).div_ceil(7);
    let mut value = 0_u64;
    for (place, byte) in from.iter().take(bytes_max).enumerate() {
        // 64 bits are nine times seven, and one.
        if place == 9 && *byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7F) << (7 * place);
        if *byte < 0x80 {
            *from = from.get(place + 1..)?;
            return value.try_into().ok();
        }
    }
    None
}

fn take_text<'a>(from: &mut &'a [u8]) -> Option<&'a str> {
    let bytes = take_number(from)?;
    let (text, rest) = from.split_at_checked(bytes)?;
    *from = rest;
    std::str::from_utf8(text).ok()
}

fn take_optional<'a>(from: &mut &'a [u8]) -> Option<Option<&'a str>> {
    match take_byte(from)? {
        0 => Some(None),
        1 => take_text(from).map(Some),
        _ => None,
    }
}

fn take_names<'a>(from: &mut &'a [u8]) -> Option<Option<Names<'a>>> {
    match take_byte(from)? {
        0 => Some(None),
        1 => Some(Some(Names { id: take_optional(from)?, key: take_optional(from)?, digest: take_number(from)? })),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        After, BadRecord, Event, Failed, Failure, Kind, Release, Released, Restated, decode_home, shape_of,
        with_version_no,
    };
    use super::*;
    use crate::job::transition::State;
    use crate::types::Priority;

    /// Numbers of every length.
    fn any(random: &mut fastrand::Rng) -> u64 {
        random.u64(..) >> random.u32(..64)
    }

    fn small(random: &mut fastrand::Rng) -> u32 {
        (any(random) & 0xFFFF_FFFF) as u32
    }

    fn half(random: &mut fastrand::Rng) -> u16 {
        (any(random) & 0xFFFF) as u16
    }

    fn any_names<'a>(r: &mut fastrand::Rng, long: &'a str) -> Option<Names<'a>> {
        let text = |r: &mut fastrand::Rng| r.bool().then_some(long);
        r.bool().then(|| Names { id: text(r), key: text(r), digest: any(r) })
    }

    fn any_enqueued<'a>(r: &mut fastrand::Rng, long: &'a str) -> Enqueued<'a> {
        let text = |r: &mut fastrand::Rng| r.bool().then_some(long);
        Enqueued {
            type_no: small(r),
            task: text(r).unwrap_or_default(),
            priority: Priority::new(r.u8(..10)).unwrap(),
            tenant: text(r),
            created_ms: any(r),
            ready_ms: any(r),
            expires_ms: any(r),
            max_attempts: half(r),
            names: any_names(r, long),
            parent: text(r),
            min_version: None,
            trace: None,
        }
    }

    fn same(quick: &[u8], meta: &impl serde::Serialize, tail: &[u8], seed: u64) {
        let mut slow = postcard::to_allocvec(meta).unwrap();
        slow.extend_from_slice(tail);
        assert_eq!(quick, slow, "SEED={seed}");
    }

    #[test]
    fn the_bytes_are_those_of_postcard() {
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
        eprintln!("SEED={seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..if cfg!(miri) { 40 } else { 20_000 } {
            let long = "n".repeat(random.usize(..300));
            let r = &mut random;
            let meta = any_enqueued(r, &long);
            let mut out = Vec::new();
            enqueued(&mut out, &meta, b"null");
            same(&out, &meta, b"null", seed);

            let meta = Reserved {
                born: any(r),
                fence: Fence { epoch: small(r), counter: any(r) },
                version_no: small(r),
                at: any(r),
            };
            out.clear();
            reserved(&mut out, &meta);
            same(&out, &meta, b"", seed);

            let ends = [End::Completed, End::Cancelled, End::Expired, End::Discarded];
            let meta = Ended {
                born: any(r),
                end: *r.choice(&ends).unwrap(),
                at: any(r),
                type_no: small(r),
                version_no: small(r),
                attempts: half(r),
                given_back: GivenBack { interrupts: small(r), deferrals: half(r), host_deaths: r.u8(..) },
                created_ms: any(r),
                home: Home { seq: any(r), segment: small(r), offset: small(r), body: small(r) },
                names: any_names(r, &long),
                worker: 0,
            };
            out.clear();
            ended(&mut out, &meta, b"7");
            same(&out, &meta, b"7", seed);
        }
    }

    #[test]
    fn what_is_taken_is_what_postcard_takes() {
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
        eprintln!("SEED={seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut taken, mut refused) = (0, 0);
        for _ in 0..if cfg!(miri) { 100 } else { 200_000 } {
            let r = &mut random;
            let long = ["n", "ü"][r.usize(..2)].repeat(r.usize(..200));
            let meta = any_enqueued(r, &long);
            let mut body = Vec::new();
            enqueued(&mut body, &meta, b"null");
            // Most damage that counts is in front, where the numbers are, or makes one of them longer.
            for _ in 0..r.usize(..3) {
                let at = r.usize(..body.len().min(40));
                match r.u8(..4) {
                    0 => body[at] = r.u8(..),
                    1 => body[at] ^= 1 << r.u8(..8),
                    2 => body.truncate(at + 1),
                    _ => drop(body.splice(at..at, vec![0x80 | r.u8(..); r.usize(..11)])),
                }
            }
            let slow = postcard::take_from_bytes::<Enqueued<'_>>(&body).ok();
            assert_eq!(take_enqueued(&body), slow, "SEED={seed}");
            *if slow.is_some() { &mut taken } else { &mut refused } += 1;
        }
        assert!(taken.min(refused) > if cfg!(miri) { 10 } else { 20_000 }, "{taken} taken, {refused} refused");
    }

    #[test]
    fn a_least_version_stands_in_front_of_what_is_there_without_it() {
        let meta = Enqueued {
            type_no: 7,
            task: "print",
            priority: Priority::default(),
            tenant: Some("acme"),
            created_ms: 1_764_000_000_000,
            ready_ms: 0,
            expires_ms: 0,
            max_attempts: 4,
            names: Some(Names { id: Some("a"), key: None, digest: 9 }),
            parent: None,
            min_version: None,
            trace: None,
        };
        let plain = Event::Enqueued(meta.clone(), b"null");
        let mut without = Vec::new();
        plain.encode(&mut without);
        assert_eq!((plain.record_kind().kind, plain.record_kind().version), (1, 1));
        assert_eq!(with_version_no(&without, 9), None, "a job that needs none gets none");
        for version_no in [0, 1, 300] {
            let event = Event::Enqueued(
                Enqueued { min_version: Some(MinVersion { label: "v2", version_no }), ..meta.clone() },
                b"null",
            );
            let (kind, mut body) = (event.record_kind(), Vec::new());
            event.encode(&mut body);
            assert!(body.len() <= event.bytes_max());
            let number: &[u8] = if version_no == 300 { &[0xAC, 2] } else { &[u8::try_from(version_no).unwrap()] };
            assert_eq!(body, [b"\0\x02v2", number, &without].concat());
            assert_eq!((kind.kind, kind.version), (1, 2));
            assert_eq!(Event::decode(1, 2, &body).as_ref(), Ok(&event));
            let Event::Enqueued(said, payload) = event else { unreachable!("made above") };
            assert_eq!(decode_home(1, &body), Ok((said.clone(), payload)));
            let numbered = with_version_no(&body, 9);
            assert_eq!(numbered.is_some(), version_no == 0, "a number that is there stays");
            if let Some(numbered) = numbered {
                let min_version = Some(MinVersion { label: "v2", version_no: 9 });
                assert_eq!(decode_home(1, &numbered), Ok((Enqueued { min_version, ..said.clone() }, payload)));
            }
            assert!(Event::decode(1, 1, &body).map_or(true, |read| read != Event::Enqueued(said, payload)));
            assert_eq!(Event::decode(1, 2, &without), Err(BadRecord::Shape { kind: 1 }));
        }
        let unknown = BadRecord::Unknown { kind: 2, version: 2 };
        assert_eq!(Event::decode(2, 2, &without), Err(unknown), "a kind that has no second shape");
    }

    #[test]
    fn a_trace_stands_in_front_of_what_is_there_without_it() {
        let trace: TraceParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap();
        for min_version in [None, Some(MinVersion { label: "v2", version_no: 0 })] {
            let meta = Enqueued {
                type_no: 7,
                task: "",
                priority: Priority::default(),
                tenant: None,
                created_ms: 1_764_000_000_000,
                ready_ms: 0,
                expires_ms: 0,
                max_attempts: 4,
                names: None,
                parent: None,
                min_version,
                trace: None,
            };
            let mut without = Vec::new();
            Event::Enqueued(meta.clone(), b"null").encode(&mut without);
            let event = Event::Enqueued(Enqueued { trace: Some(trace), ..meta.clone() }, b"null");
            let mut body = Vec::new();
            event.encode(&mut body);
            assert!(body.len() <= event.bytes_max());
            assert_eq!(body, [&[0, 0], trace.as_bytes().as_slice(), &without].concat());
            assert_eq!((event.record_kind().kind, event.record_kind().version), (1, 3));
            assert_eq!(Event::decode(1, 3, &body).as_ref(), Ok(&event));
            let with = Enqueued { trace: Some(trace), ..meta.clone() };
            assert_eq!(decode_home(1, &body), Ok((with.clone(), b"null".as_slice())));
            let numbered = with_version_no(&body, 9);
            let needs = numbered.as_ref().map(|body| decode_home(1, body).unwrap().0);
            let min_version = min_version.map(|min| MinVersion { version_no: 9, ..min });
            assert_eq!(needs, min_version.map(|min| Enqueued { min_version: Some(min), ..with.clone() }));
            // Of another shape it is nothing that it is not, and cut short nothing at all.
            assert_eq!(Event::decode(1, 3, &without), Err(BadRecord::Shape { kind: 1 }));
            assert_ne!(Event::decode(1, 1, &body), Ok(Event::Enqueued(with.clone(), b"null")));
            assert_ne!(Event::decode(1, 2, &body), Ok(Event::Enqueued(with, b"null")));
            for cut in 0..body.len() - without.len() {
                assert_eq!(Event::decode(1, 3, &body[..cut]), Err(BadRecord::Shape { kind: 1 }), "{cut}");
            }
            let twice = [&[0, 0], trace.as_bytes().as_slice(), &body].concat();
            assert_eq!(Event::decode(1, 3, &twice), Err(BadRecord::Shape { kind: 1 }));
            let zeros = [&[0, 0], [0; 25].as_slice(), &without].concat();
            assert_eq!(Event::decode(1, 3, &zeros), Err(BadRecord::Shape { kind: 1 }));
        }
    }

    #[test]
    fn the_workers_of_failed_attempts_stand_in_front_of_a_restated_job() {
        let restated = |workers: [u32; 2]| {
            let failure = |worker| Failure { attempt: 1, at: 9, version_no: 2, error: "no ink".to_owned(), worker };
            let failures = workers.map(failure).to_vec();
            let (given_back, fence) = (GivenBack::default(), Fence::default());
            let (born, state, attempts, ready_ms, version_no, since_ms) = (7, State::Ready, 2, 0, 2, 0);
            let meta = Restated { born, state, attempts, given_back, ready_ms, fence, version_no, since_ms, failures };
            Event::Restated(meta, b"the job")
        };
        let bytes = |event: &Event<'_>| {
            let mut body = Vec::new();
            event.encode(&mut body);
            assert!(body.len() <= event.bytes_max());
            body
        };
        let (kind, without) = (Kind::Restated as u8, bytes(&restated([0, 0])));
        assert_eq!((without[0], shape_of(kind, &without)), (7, 1), "as it ever was");
        for (workers, numbers) in [([0, 1], &[2, 0, 1][..]), ([300, 0], &[2, 0xAC, 2, 0])] {
            let (event, body) = (restated(workers), bytes(&restated(workers)));
            assert_eq!(body, [&[0], numbers, &without].concat());
            assert_eq!((event.record_kind().version, shape_of(kind, &body)), (4, 4));
            assert_eq!(Event::decode(kind, 4, &body).as_ref(), Ok(&event));
            assert_ne!(Event::decode(kind, 1, &body), Ok(event));
        }
        let shape = Err(BadRecord::Shape { kind });
        // No number at all, more or fewer than failed attempts, none that is one; and what is cut short is nothing at all.
        assert_eq!(Event::decode(kind, 4, &without), shape);
        for numbers in [&[0, 0][..], &[0, 1, 5], &[0, 3, 5, 5, 5], &[0, 2, 0, 0]] {
            assert_eq!(Event::decode(kind, 4, &[numbers, &without].concat()), shape, "{numbers:?}");
        }
        for cut in [&[][..], &[0], &[0, 2, 1], &[0, 2, 1, 1]] {
            assert_eq!(Event::decode(kind, 4, cut), shape, "{cut:?}");
        }
        assert_eq!(Event::decode(kind, 5, &without), Err(BadRecord::Unknown { kind, version: 5 }));
        let meta = Failed { born: 7, at: 9, type_no: 1, version_no: 2, after: After::Dead, worker: 0 };
        let body = bytes(&Event::Failed(meta, b""));
        let kind = Kind::Failed as u8;
        assert_eq!(Event::decode(kind, 4, &body), Err(BadRecord::Unknown { kind, version: 4 }));
    }

    #[test]
    fn a_workers_number_stands_in_front_of_what_is_there_without_it() {
        let ended = |worker| {
            let names = Some(Names { id: Some("a"), key: None, digest: 9 });
            let (given_back, home) = (GivenBack::default(), Home::default());
            let (born, end, at) = (7, End::Completed, 1_764_000_000_000);
            let (type_no, version_no, attempts, created_ms) = (1, 2, 0, 1_763_000_000_000);
            let meta =
                Ended { born, end, at, type_no, version_no, attempts, given_back, created_ms, home, names, worker };
            Event::Ended(meta, b"7")
        };
        let failed = |worker| {
            let meta = Failed { born: 7, at: 9, type_no: 1, version_no: 2, after: After::Dead, worker };
            Event::Failed(meta, b"no ink")
        };
        let released = |worker| Event::Released(Released { born: 7, at: 9, release: Release::Interrupt, worker }, b"");
        let all: [&dyn Fn(u32) -> Event<'static>; 3] = [&ended, &failed, &released];
        for event in all {
            let mut without = Vec::new();
            event(0).encode(&mut without);
            let kind = event(0).kind() as u8;
            assert_eq!((event(0).record_kind().version, shape_of(kind, &without)), (1, 1));
            for (worker, number) in [(1, &[1][..]), (300, &[0xAC, 2]), (u32::MAX, &[255, 255, 255, 255, 15])] {
                let (event, mut body) = (event(worker), Vec::new());
                event.encode(&mut body);
                assert!(body.len() <= event.bytes_max());
                assert_eq!(body, [&[0], number, &without].concat());
                assert_eq!((event.record_kind().version, shape_of(kind, &body)), (2, 2));
                assert_eq!(Event::decode(kind, 2, &body).as_ref(), Ok(&event));
                assert_ne!(Event::decode(kind, 1, &body), Ok(event));
            }
            let shape = Err(BadRecord::Shape { kind });
            assert_eq!(Event::decode(kind, 2, &without), shape, "there is no number");
            // However it is written, zero is none; and what is cut short is nothing at all.
            for none in [&[0, 0][..], &[0, 0x80, 0]] {
                assert_eq!(Event::decode(kind, 2, &[none, &without].concat()), shape, "{none:?}");
            }
            for cut in [&[][..], &[0], &[0, 0x80]] {
                assert_eq!(Event::decode(kind, 2, cut), shape, "{cut:?}");
            }
            assert_eq!(Event::decode(kind, 4, &without), Err(BadRecord::Unknown { kind, version: 4 }));
        }
    }
}
