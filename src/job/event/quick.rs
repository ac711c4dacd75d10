//! The three shapes of which every job writes one record, written field by field: the same bytes as postcard makes, in
//! less time. A test holds both against each other.

use super::{End, Ended, Enqueued, Fence, GivenBack, Home, Names, Reserved};

/// Most bytes of one shape's numbers.
const NUMBERS_MAX: usize = 128;

pub(super) fn enqueued(out: &mut Vec<u8>, meta: &Enqueued<'_>, tail: &[u8]) {
    let Enqueued { type_no, task, priority, tenant, created_ms, ready_ms, expires_ms, max_attempts, names, parent } =
        meta;
    out.reserve(NUMBERS_MAX + tail.len());
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
    let Ended { born, end, at, type_no, version_no, attempts, given_back, created_ms, home, names } = meta;
    let GivenBack { interrupts, deferrals, host_deaths } = given_back;
    let Home { seq, segment, offset, body } = home;
    out.reserve(NUMBERS_MAX + tail.len());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Priority;

    /// Numbers of every length.
    fn any(random: &mut fastrand::Rng) -> u64 {
        random.u64(..) >> random.u32(..64)
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
        for _ in 0..20_000 {
            let long = "n".repeat(random.usize(..300));
            let r = &mut random;
            let text = |r: &mut fastrand::Rng| r.bool().then_some(long.as_str());
            let small = |r: &mut fastrand::Rng| (any(r) & 0xFFFF_FFFF) as u32;
            let half = |r: &mut fastrand::Rng| (any(r) & 0xFFFF) as u16;
            let names = r.bool().then(|| Names { id: text(r), key: text(r), digest: any(r) });
            let meta = Enqueued {
                type_no: small(r),
                task: text(r).unwrap_or_default(),
                priority: Priority::new(r.u8(..10)).unwrap(),
                tenant: text(r),
                created_ms: any(r),
                ready_ms: any(r),
                expires_ms: any(r),
                max_attempts: half(r),
                names: names.clone(),
                parent: text(r),
            };
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
                names,
            };
            out.clear();
            ended(&mut out, &meta, b"7");
            same(&out, &meta, b"7", seed);
        }
    }
}
