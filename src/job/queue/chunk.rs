//! Fresh jobs as bytes: what a job that waits as it came needs in memory, written as the difference to the one before it.
//!
//! Pure. A chunk holds some hundred jobs of one line in ascending order of their born seq, and is never changed in place:
//! whoever looks at it may keep it. A job takes three to eight bytes, and two more if it has a
//! tenant, where a value of its own would take forty-eight.
//!
//! ```text
//! job   flags u8 │ born - born before │ [moved: home seq - born] │ [created: zigzag to the one before]
//!       │ [delayed: ready - created, zigzag] │ [tenant: its number, u16]
//!       │ [attempts: max_attempts] │ [segment: zigzag] │ offset: zigzag to where the record before it ends │ [body: zigzag]
//! ```
//!
//! All numbers but the flags and the tenant's are varints (seven bits a byte, the lowest first); what is in brackets is there if its flag is.

use std::sync::Arc;

use crate::job::event::Home;
use crate::log::frame::RECORD_HEADER_BYTES;
use crate::types::{Seq, UnixMs};

/// Jobs of a full chunk.
pub const CHUNK_JOBS: usize = 256;

const NAMED: u8 = 1;
const MOVED: u8 = 2;
const CREATED: u8 = 4;
const ATTEMPTS: u8 = 8;
const SEGMENT: u8 = 16;
const BODY: u8 = 32;
const DELAYED: u8 = 64;
const TENANT: u8 = 128;

/// A job that waits as it came: never handed out, failed or given back, and it does not expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fresh {
    /// Its born seq.
    pub born: Seq,
    /// Where its payload lies.
    pub home: Home,
    /// When it was accepted.
    pub created_ms: UnixMs,
    /// When it may run, if that was later than it was accepted; else 0.
    pub ready_ms: UnixMs,
    /// Attempts that it may have.
    pub max_attempts: u16,
    /// Whether its caller chose an id or a key.
    pub named: bool,
    /// Whom it is for, as [`tenant_no`](crate::job::tenant::tenant_no) has it; 0: nobody.
    pub tenant: u16,
}

/// Some fresh jobs of one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    first: Seq,
    last: Seq,
    jobs: u32,
    bytes: Box<[u8]>,
}

impl Chunk {
    /// The chunk of some jobs in ascending order; `None` of none.
    pub fn of(jobs: &[Fresh]) -> Option<Arc<Self>> {
        let mut writer = ChunkWriter::default();
        jobs.iter().for_each(|job| writer.push(job));
        writer.finish()
    }

    /// Born seq of its first job.
    pub fn first(&self) -> Seq {
        self.first
    }

    /// Born seq of its last job.
    pub fn last(&self) -> Seq {
        self.last
    }

    /// How many jobs it holds.
    pub fn jobs(&self) -> usize {
        self.jobs as usize
    }

    /// The jobs' bytes, as a checkpoint keeps them.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its jobs.
    pub fn decode(&self) -> Vec<Fresh> {
        // Only what was encoded here, or read back with its checksum, is ever in a chunk.
        decode(&self.bytes, self.jobs()).expect("a chunk holds what was written into it")
    }

    /// A chunk as it was kept, with its checksum seen to by who kept it: it is not looked into before it is needed.
    pub fn kept(first: Seq, last: Seq, jobs: u32, bytes: &[u8]) -> Arc<Self> {
        Arc::new(Self { first, last, jobs, bytes: bytes.into() })
    }

    /// A chunk of so many jobs from its bytes; `None` if they are no such chunk.
    pub fn read(bytes: &[u8], jobs: usize) -> Option<Arc<Self>> {
        let all = read(bytes, jobs)?;
        let (first, last) = (all.first()?.born, all.last()?.born);
        Some(Arc::new(Self { first, last, jobs: u32::try_from(jobs).unwrap_or(0), bytes: bytes.into() }))
    }

    /// Its jobs, if it is what it says: a chunk that was kept, looked through for the first time.
    pub fn looked_through(&self) -> Option<Vec<Fresh>> {
        let all = read(&self.bytes, self.jobs())?;
        ((all.first()?.born, all.last()?.born) == (self.first, self.last)).then_some(all)
    }
}

/// A chunk that is being written.
#[derive(Debug, Default, Clone)]
pub struct ChunkWriter {
    bytes: Vec<u8>,
    first: Seq,
    before: Fresh,
    jobs: u32,
}

impl ChunkWriter {
    /// How many jobs it holds.
    pub fn jobs(&self) -> usize {
        self.jobs as usize
    }

    /// Born seq of its last job; 0 if it is empty.
    pub fn last(&self) -> Seq {
        self.before.born
    }

    /// Born seq of its first job; 0 if it is empty.
    pub fn first(&self) -> Seq {
        self.first
    }

    /// Adds a job, which is younger than those before it.
    pub fn push(&mut self, job: &Fresh) {
        assert!(job.born > self.before.born, "a line is in ascending order");
        encode(&mut self.bytes, &self.before, job);
        if self.jobs == 0 {
            self.first = job.born;
        }
        self.before = *job;
        self.jobs += 1;
    }

    /// Its jobs.
    pub fn decode(&self) -> Vec<Fresh> {
        decode(&self.bytes, self.jobs()).expect("a chunk holds what was written into it")
    }

    /// What was written, as a chunk; `None` if it is empty. The writer is empty afterwards, and keeps its memory.
    pub fn finish(&mut self) -> Option<Arc<Chunk>> {
        let chunk = (self.jobs > 0).then(|| {
            let bytes = self.bytes.as_slice().into();
            Arc::new(Chunk { first: self.first, last: self.before.born, jobs: self.jobs, bytes })
        });
        self.bytes.clear();
        (self.first, self.before, self.jobs) = (0, Fresh::default(), 0);
        chunk
    }
}

fn encode(out: &mut Vec<u8>, before: &Fresh, job: &Fresh) {
    let (home, old) = (&job.home, &before.home);
    let flag = |is: bool, flag: u8| if is { flag } else { 0 };
    let moved = home.seq != job.born;
    let created = job.created_ms != before.created_ms;
    let attempts = job.max_attempts != before.max_attempts;
    let (segment, body) = (home.segment != old.segment, home.body != old.body);
    let delayed = job.ready_ms != 0;
    out.push(
        flag(job.named, NAMED)
            | flag(moved, MOVED)
            | flag(created, CREATED)
            | flag(attempts, ATTEMPTS)
            | flag(segment, SEGMENT)
            | flag(body, BODY)
            | flag(delayed, DELAYED)
            | flag(job.tenant != 0, TENANT),
    );
    put(out, job.born - before.born);
    if moved {
        // A job's later records come after its first one; wrapping, so that no bytes can make it overflow.
        put(out, home.seq.wrapping_sub(job.born));
    }
    if created {
        put(out, zigzag(job.created_ms.wrapping_sub(before.created_ms)));
    }
    if delayed {
        put(out, zigzag(job.ready_ms.wrapping_sub(job.created_ms)));
    }
    if job.tenant != 0 {
        // Any number is as likely as any other: a varint of it would be longer.
        out.extend_from_slice(&job.tenant.to_le_bytes());
    }
    if attempts {
        put(out, u64::from(job.max_attempts));
    }
    if segment {
        put(out, zigzag(u64::from(home.segment).wrapping_sub(u64::from(old.segment))));
    }
    put(out, zigzag(u64::from(home.offset).wrapping_sub(end_of(old))));
    if body {
        put(out, zigzag(u64::from(home.body).wrapping_sub(u64::from(old.body))));
    }
}

/// Where the record after this one begins, if it lies in the same frame.
fn end_of(home: &Home) -> u64 {
    u64::from(home.offset) + u64::from(home.body) + RECORD_HEADER_BYTES as u64
}

fn decode(bytes: &[u8], jobs: usize) -> Option<Vec<Fresh>> {
    // Every job takes three bytes at least: no claim is believed before it is seen.
    let mut all = Vec::with_capacity(jobs.min(bytes.len() / 3 + 1));
    let mut rest = bytes;
    let mut job = Fresh::default();
    for _ in 0..jobs {
        let (flags, more) = rest.split_first()?;
        rest = more;
        let is = |flag: u8| flags & flag != 0;
        let end = end_of(&job.home);
        job.born = job.born.checked_add(take(&mut rest)?)?;
        job.named = is(NAMED);
        job.home.seq = if is(MOVED) { job.born.wrapping_add(take(&mut rest)?) } else { job.born };
        if is(CREATED) {
            job.created_ms = job.created_ms.wrapping_add(unzigzag(take(&mut rest)?));
        }
        // Zero is no time, and would not be written.
        job.ready_ms = if is(DELAYED) { job.created_ms.wrapping_add(unzigzag(take(&mut rest)?)) } else { 0 };
        job.tenant = if is(TENANT) { take_u16(&mut rest)? } else { 0 };
        if is(ATTEMPTS) {
            job.max_attempts = u16::try_from(take(&mut rest)?).ok()?;
        }
        if is(SEGMENT) {
            let segment = u64::from(job.home.segment).wrapping_add(unzigzag(take(&mut rest)?));
            job.home.segment = u32::try_from(segment).ok()?;
        }
        job.home.offset = u32::try_from(end.wrapping_add(unzigzag(take(&mut rest)?))).ok()?;
        if is(BODY) {
            let body = u64::from(job.home.body).wrapping_add(unzigzag(take(&mut rest)?));
            job.home.body = u32::try_from(body).ok()?;
        }
        all.push(job);
    }
    rest.is_empty().then_some(all)
}

/// So many jobs, in ascending order; `None` if these bytes are something else.
fn read(bytes: &[u8], jobs: usize) -> Option<Vec<Fresh>> {
    let all = decode(bytes, jobs)?;
    let ascending = all.iter().zip(all.iter().skip(1)).all(|(a, b)| a.born < b.born);
    ascending.then_some(all)
}

/// A difference that wraps, with the small ones of both signs small.
fn zigzag(value: u64) -> u64 {
    (value << 1) ^ (value >> 63).wrapping_neg()
}

fn unzigzag(value: u64) -> u64 {
    (value >> 1) ^ (value & 1).wrapping_neg()
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(0x80 | low_bits(value));
        value >>= 7;
    }
    out.push(low_bits(value));
}

fn low_bits(value: u64) -> u8 {
    u8::try_from(value & 0x7F).unwrap_or(0)
}

fn take_u16(rest: &mut &[u8]) -> Option<u16> {
    let (bytes, more) = rest.split_first_chunk()?;
    *rest = more;
    Some(u16::from_le_bytes(*bytes))
}

fn take(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, more) = rest.split_first()?;
        *rest = more;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fresh() -> impl Strategy<Value = Fresh> {
        let home = (any::<u32>(), any::<u32>(), any::<u32>(), any::<u64>());
        let home = home.prop_map(|(segment, offset, body, seq)| Home { seq, segment, offset, body: body >> 8 });
        let tenant = prop_oneof![Just(0), any::<u16>()];
        let times = (any::<u64>(), prop_oneof![Just(0), any::<u64>()]);
        (1..1_u64 << 40, home, times, any::<u16>(), any::<bool>(), any::<bool>(), tenant).prop_map(
            |(born, mut home, (created_ms, ready_ms), max_attempts, named, moved, tenant)| {
                if !moved {
                    home.seq = born;
                }
                Fresh { born, home, created_ms, ready_ms, max_attempts, named, tenant }
            },
        )
    }

    proptest! {
        #[test]
        fn a_chunk_gives_back_what_was_put_into_it(mut jobs in prop::collection::vec(fresh(), 1..40)) {
            jobs.sort_by_key(|job| job.born);
            jobs.dedup_by_key(|job| job.born);
            let chunk = Chunk::of(&jobs).unwrap();
            prop_assert_eq!(&chunk.decode(), &jobs);
            prop_assert_eq!((chunk.first(), chunk.last()), (jobs[0].born, jobs[jobs.len() - 1].born));
            prop_assert_eq!(Chunk::read(chunk.bytes(), jobs.len()), Some(chunk));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), jobs in 0_usize..100_000) {
            if let Some(chunk) = Chunk::read(&bytes, jobs) {
                prop_assert_eq!(chunk.jobs(), jobs);
                chunk.decode();
            }
        }
    }

    #[test]
    fn jobs_that_came_one_after_the_other_take_three_bytes_each() {
        let job = |n: u32| Fresh {
            born: Seq::from(n) + 1,
            home: Home { seq: Seq::from(n) + 1, segment: 1, offset: 64 + n * 250, body: 238 },
            created_ms: 1_764_000_000_000,
            ready_ms: 0,
            max_attempts: 4,
            named: false,
            tenant: 0,
        };
        let jobs: Vec<Fresh> = (0..256).map(job).collect();
        let bytes = Chunk::of(&jobs).unwrap().bytes().len();
        assert!(bytes <= 256 * 3 + 20, "{bytes}");
        // Those with a tenant take two more, whoever it is; the others none.
        let every_other = |n: u16| if n.is_multiple_of(2) { 0 } else { u16::MAX - n };
        let jobs: Vec<Fresh> =
            jobs.into_iter().zip(0..).map(|(job, n)| Fresh { tenant: every_other(n), ..job }).collect();
        assert_eq!(Chunk::of(&jobs).unwrap().bytes().len(), bytes + 2 * 128);
    }
}
