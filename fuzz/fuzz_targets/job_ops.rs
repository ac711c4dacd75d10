//! Bytes as operations of the simulated world: the whole core beside its model, on a disk that fails, by the fuzzer's choice
//! instead of a seed's. In the end all faults are off, and everything must be served. `SHRINK=1` with a file that failed
//! leaves out what the failure does not need.
#![no_main]

use biotope::simulate::{How, Op, PushOp, run, shrink};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;

/// Operations of one world: longer stories find no more, and take longer.
const OPS_MAX: usize = 80;
/// Starts of one world: each takes some of the room that a full disk has left, and small segments have room for about 40.
const STARTS_MAX: usize = 16;

fuzz_target!(|data: &[u8]| {
    let mut u = Unstructured::new(data);
    let seed = u64::from(u.arbitrary::<u8>().unwrap_or(0));
    let (mut ops, mut starts) = (Vec::new(), 0);
    while ops.len() < OPS_MAX && !u.is_empty() {
        let Ok(op) = op(&mut u) else { break };
        starts += match &op {
            Op::Stop | Op::Fail(..) => 1,
            Op::Crash(_, again) => 1 + again.len(),
            _ => 0,
        };
        if starts > STARTS_MAX {
            break;
        }
        ops.push(op);
    }
    if let Err(failure) = run(seed, &ops) {
        // Shrinking takes longer than an input may: it is asked for with a file that failed.
        let failure = if std::env::var_os("SHRINK").is_some() { shrink(failure) } else { failure };
        panic!("{failure}");
    }
});

fn op(u: &mut Unstructured<'_>) -> Result<Op> {
    Ok(match u.int_in_range(0..=28)? {
        0..=3 => Op::Push((0..u.int_in_range(1..=3)?).map(|_| job(u)).collect::<Result<_>>()?),
        4..=7 => Op::Turn,
        8 | 9 => Op::Take(u.arbitrary()?),
        10..=12 => Op::Finish(u.arbitrary()?, how(u)?),
        13 => Op::Late(u.arbitrary()?, how(u)?),
        14 => Op::Act(u.arbitrary()?, u.int_in_range(0..=2)?),
        15 => Op::Purge(u.int_in_range(0..=3)?),
        16 => Op::PoolUp(u.arbitrary()?),
        17 => Op::PoolNotUp(u.arbitrary()?),
        18 => Op::PoolEnds(u.arbitrary()?),
        19 => Op::MakeSegment,
        20 => Op::Clean,
        21 => Op::Wait(u.int_in_range(0..=5000)?),
        22 => Op::Jump(*u.choose(&[-315_576_000, -3_600, -1, 1, 3_600, 315_576_000])?),
        23 => Op::Reload(u.arbitrary()?),
        24 => Op::Stop,
        25 => {
            let again = (0..u.int_in_range(0..=2)?).map(|_| u.int_in_range(0..=120)).collect::<Result<_>>()?;
            Op::Crash(u.arbitrary()?, again)
        }
        27 => Op::Redrive(u.int_in_range(0..=2)?, u.arbitrary()?),
        26 => Op::Fail(u.int_in_range(0..=60)?, u.int_in_range(0..=2)?),
        _ => Op::Space(if u.arbitrary()? { Some(u.int_in_range(0..=2)?) } else { None }),
    })
}

fn job(u: &mut Unstructured<'_>) -> Result<PushOp> {
    let shape: u8 = u.arbitrary()?;
    let when = |u: &mut Unstructured<'_>, bit: u8, most: u16| -> Result<Option<u16>> {
        Ok(if shape & bit == 0 { None } else { Some(u.int_in_range(0..=most)?) })
    };
    let name = |u: &mut Unstructured<'_>, bit: u8| -> Result<Option<u8>> {
        Ok(if shape & bit == 0 { None } else { Some(u.int_in_range(0..=5)?) })
    };
    Ok(PushOp {
        of: u.int_in_range(0..=3)?,
        priority: u.int_in_range(0..=9)?,
        id: name(u, 1)?,
        key: name(u, 2)?,
        variant: shape >> 2 & 1,
        delay_ms: when(u, 8, 3000)?.unwrap_or(0),
        expires_ms: when(u, 16, 6000)?,
        max_attempts: if shape & 32 == 0 { None } else { Some(u.int_in_range(1..=3)?) },
        // Where it waits for long, it needs a version as well.
        min: name(u, 128)?,
        bytes: if shape & 192 == 192 { 5000 } else { u.int_in_range(0..=400)? },
    })
}

fn how(u: &mut Unstructured<'_>) -> Result<How> {
    Ok(match u.int_in_range(0..=10)? {
        0..=2 => How::Done { follow_ups: Vec::new() },
        3 => How::Cancel,
        4 => How::Done { follow_ups: (0..u.int_in_range(1..=3)?).map(|_| job(u)).collect::<Result<_>>()? },
        5 => How::Fail { killed: u.arbitrary()? },
        6 => How::Dead,
        7 => How::Defer { after_ms: u.arbitrary()? },
        8 => How::Interrupted,
        9 => How::HostDeath,
        _ => How::NotStarted,
    })
}
