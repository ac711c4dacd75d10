//! What may happen in a simulated world, and how it is drawn from a seed.
//!
//! An operation holds all its chance itself and means something in any state, so that a run can be cut short, or an
//! operation left out, and the rest still runs. Untidy on purpose: late and repeated answers, names used twice, jobs too
//! large, types that are not there, clocks that jump, crashes within recoveries.

use super::plan;

/// What becomes of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the outcome of its name")]
pub enum How {
    Done { follow_ups: Vec<PushOp> },
    Fail { killed: bool },
    Dead,
    Cancel,
    Defer { after_ms: Option<u16> },
    Interrupted,
    NotStarted,
    HostDeath,
}

/// Delays from here on are long ones, up to ten years.
pub const FAR: u16 = 60_000;

/// From here on a pool ends by a panic of all its workers, whatever it holds; and what does not come up is one that cannot be
/// made.
pub const BREAKS: u16 = 0xC000;

/// A job that somebody enqueues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PushOp {
    /// Which type, of the known ones and one that is not.
    pub of: u8,
    /// Its priority.
    pub priority: u8,
    /// Which chosen id, if any: few, so that they meet again.
    pub id: Option<u8>,
    /// Which key, if any.
    pub key: Option<u8>,
    /// Which body, where a name is chosen.
    pub variant: u8,
    /// Milliseconds until it may run; from `FAR` on, years.
    pub delay_ms: u16,
    /// Milliseconds until it expires.
    pub expires_ms: Option<u16>,
    /// Attempts.
    pub max_attempts: Option<u8>,
    /// Bytes that its payload is padded to.
    pub bytes: u16,
    /// Which version it needs, if any.
    pub min: Option<u8>,
}

/// One thing that happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Somebody enqueues.
    Push(Vec<PushOp>),
    /// The engine takes a turn.
    Turn,
    /// A worker begins a job.
    Take(u16),
    /// A worker is through with a job.
    Finish(u16, How),
    /// A worker of long ago is through with a job that is not its own any more, or answers twice.
    Late(u16, How),
    /// Somebody retries, cancels or discards a job.
    Act(u16, u8),
    /// Somebody purges a type.
    Purge(u8),
    /// Somebody has all dead jobs of a type retried that failed last on a version.
    Redrive(u8, u8),
    /// A worker is up.
    PoolUp(u16),
    /// A worker could not be started; from `BREAKS` on, the next pools and threads cannot be made, up to four of them.
    PoolNotUp(u16),
    /// The last worker of a pool has ended: of one that drains and holds nothing; from `BREAKS` on by a panic, and of any one.
    PoolEnds(u16),
    /// The next segment is made.
    MakeSegment,
    /// A portion of the head segment is read for cleaning.
    Clean,
    /// Time passes.
    Wait(u32),
    /// The wall clock is set.
    Jump(i32),
    /// A config is taken over.
    Reload(u8),
    /// Somebody says something about the rollover of a type.
    Say(u8),
    /// The process is stopped in good order.
    Stop,
    /// The process ends, with the machine if a seed says what is left; then it is opened, and power is lost again after
    /// so many calls, once for each number.
    Crash(Option<u64>, Vec<u16>),
    /// After so many calls of the disk power is lost, or a call fails once, or for ever.
    Fail(u16, u8),
    /// The next sync takes so many milliseconds.
    Stall(u16),
    /// A bit of what is durable rots, is looked for, and is set right again.
    Rot(u64),
    /// So many segments fit beside what is there; `None`: any number.
    Space(Option<u8>),
}

/// Which operations a run has, how often: another mixture for every seed, so that rare ones meet.
#[derive(Debug, Clone, Copy)]
pub struct Mixture {
    weights: [u32; KINDS],
    /// Chance that a job bears a chosen id, of 100; and a key.
    named: u32,
    /// Chance that a job needs a version, of 100.
    needy: u32,
    /// Whether versions are watched beside the one before in every config.
    watched: bool,
    /// Whether most is about versions: jobs are of few types.
    rolling: bool,
}

const KINDS: usize = 23;

impl Mixture {
    /// Draws a mixture.
    pub fn draw(random: &mut fastrand::Rng) -> Self {
        //          push turn take fin late act purge up not end make clean wait jump rel stop crash fail stall rot space say redrive
        let usual = [40, 60, 40, 40, 4, 10, 1, 12, 3, 8, 12, 16, 12, 2, 4, 1, 6, 4, 3, 2, 1, 1, 2];
        let mut weights = usual;
        for weight in &mut weights {
            *weight *= *random.choice(&[0, 1, 1, 2, 2, 4]).unwrap_or(&1);
        }
        // A world in which nothing is enqueued, or nobody ever decides, shows nothing.
        for (weight, usual) in weights.iter_mut().zip(usual).take(2) {
            *weight = (*weight).max(usual);
        }
        let named = *random.choice(&[0, 10, 50]).unwrap_or(&10);
        Self {
            weights,
            named,
            needy: *random.choice(&[0, 0, 20, 60]).unwrap_or(&20),
            watched: random.bool(),
            rolling: false,
        }
    }

    /// One in which versions come and go all the time.
    pub fn of_versions() -> Self {
        let weights = [30, 50, 40, 50, 2, 3, 0, 60, 8, 24, 2, 2, 20, 1, 24, 1, 4, 2, 4, 0, 0, 16, 1];
        Self { weights, named: 0, needy: 5, watched: true, rolling: true }
    }

    /// Draws an operation.
    pub fn next(&self, random: &mut fastrand::Rng) -> Op {
        let mut at = random.u32(0..self.weights.iter().sum());
        let mut kind = 0;
        for (number, weight) in self.weights.iter().enumerate() {
            if at < *weight {
                kind = number;
                break;
            }
            at -= weight;
        }
        let pick = random.u16(..);
        match kind {
            0 => Op::Push((0..random.usize(1..=3)).map(|_| self.job(random)).collect()),
            1 => Op::Turn,
            2 => Op::Take(pick),
            3 => Op::Finish(pick, self.how(random)),
            4 => Op::Late(pick, self.how(random)),
            5 => Op::Act(pick, random.u8(0..3)),
            6 => Op::Purge(random.u8(0..4)),
            7 => Op::PoolUp(pick),
            8 => Op::PoolNotUp(pick),
            9 => Op::PoolEnds(pick),
            10 => Op::MakeSegment,
            11 => Op::Clean,
            12 => Op::Wait(random.u32(0..5000)),
            13 => Op::Jump(*random.choice(&[-315_576_000, -3_600, -1, 1, 3_600, 315_576_000]).unwrap_or(&1)),
            14 => Op::Reload(random.u8(..) | if self.watched { plan::WATCHED } else { 0 }),
            15 => Op::Stop,
            16 => {
                let loss = random.bool().then(|| random.u64(..));
                let again = (0..random.usize(0..=3)).map(|_| random.u16(0..120)).collect();
                Op::Crash(loss, again)
            }
            17 => Op::Fail(random.u16(0..60), random.u8(0..3)),
            18 => Op::Stall(random.u16(..)),
            19 => Op::Rot(random.u64(..)),
            20 => Op::Space(random.bool().then(|| random.u8(0..3))),
            21 => Op::Say(random.u8(..)),
            _ => Op::Redrive(random.u8(0..3), random.u8(..)),
        }
    }

    fn job(&self, random: &mut fastrand::Rng) -> PushOp {
        let rare = |random: &mut fastrand::Rng, of_100: u32| random.u32(0..100) < of_100;
        PushOp {
            of: if rare(random, 3) { 3 } else { random.u8(0..3) % if self.rolling { 2 } else { 3 } },
            priority: if rare(random, 50) { 5 } else { random.u8(0..10) },
            id: rare(random, self.named).then(|| random.u8(0..6)),
            key: rare(random, self.named).then(|| random.u8(0..6)),
            variant: random.u8(0..2),
            delay_ms: match random.u32(0..100) {
                0..20 => random.u16(0..3000),
                20 => random.u16(FAR..),
                _ => 0,
            },
            expires_ms: rare(random, 10).then(|| random.u16(0..6000)),
            max_attempts: rare(random, 30).then(|| random.u8(1..4)),
            bytes: if rare(random, 2) { 5000 } else { random.u16(0..400) },
            min: rare(random, self.needy).then(|| random.u8(..)),
        }
    }

    fn how(&self, random: &mut fastrand::Rng) -> How {
        match random.u32(0..21) {
            0..10 => {
                let many = if random.u32(0..4) == 0 { random.usize(1..=3) } else { 0 };
                How::Done { follow_ups: (0..many).map(|_| self.job(random)).collect() }
            }
            10..14 => How::Fail { killed: random.bool() },
            14 => How::Dead,
            15 => How::Cancel,
            16 => How::Defer { after_ms: random.bool().then(|| random.u16(..)) },
            17 | 18 => How::Interrupted,
            19 => How::NotStarted,
            _ => How::HostDeath,
        }
    }
}
