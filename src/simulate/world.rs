//! A simulated world: one engine on one simulated disk, its producers, workers and operators, and the model beside it.
//!
//! After every turn the engine's table is compared with the model, job by job and count by count; after every crash it
//! must be the model's word for what was acknowledged, and one of the model's possibilities for what was not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::disk::{Fault, Loss, SimDisk};
use super::figures::Figures;
use super::held::Routes;
use super::held::Shown;
use super::invariant::Invariant;
use super::model::{Happening, Known, Model, Place};
use super::needs::Numbers;
use super::op::{FAR, How, Op, PushOp};
use super::plan::{self, TYPES};
use super::pools::Hands;
use crate::clock::Clock;
use crate::engine::handle::JobAction;
use crate::engine::stepped::Stepped;
use crate::engine::view::JobView;
use crate::job::new::{NewJob, Pushed, Start};
use crate::log::LogOptions;
use crate::refusal::Refusal;
use crate::types::{Fence, Lease, Priority, Seq, UnixMs};
use crate::worker::Outcome;

/// Seconds by which one long delay differs from the next: the longest is ten years.
const FAR_STEP_SECONDS: u64 = 57_000;

/// What does not hold.
pub(super) type Violation = String;

/// A clock that moves when it is told to.
pub(super) struct SimClock {
    pub(super) wall_ms: AtomicU64,
    pub(super) mono_ms: Arc<AtomicU64>,
}

impl Clock for SimClock {
    fn wall_ms(&self) -> UnixMs {
        self.wall_ms.load(Ordering::Relaxed)
    }

    fn mono(&self) -> Duration {
        Duration::from_millis(self.mono_ms.load(Ordering::Relaxed))
    }
}

/// Something that was sent to the engine, of which it is not known yet what follows; an outcome with the attempts that had
/// failed before, 0 for each one that cost nothing.
pub(super) enum Sent {
    Push { jobs: Vec<NewJob>, reply: usize },
    Outcome { lease: Lease, outcome: Outcome, failures: Vec<u16> },
    Act { job: usize, action: JobAction, reply: usize },
    Purge { of: &'static str, reply: usize, ended: u64 },
    Redrive { meant: Vec<usize>, reply: usize, redriven: u64 },
}

/// An answer of the engine.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    Pushed(Vec<Result<Pushed, Refusal>>),
    Acted(Result<Acted, Refusal>),
    Purged(Result<u64, Refusal>),
    Redriven(Result<u64, Refusal>),
}

/// What was done to a job, as the answer has it.
#[derive(Debug, Clone)]
pub(super) struct Acted {
    pub(super) of: String,
    pub(super) attempts: u16,
    /// Its failed attempts, 0 for each one that cost nothing.
    pub(super) failures: Vec<u16>,
}

/// The world.
pub(super) struct World {
    pub(super) disk: SimDisk,
    pub(super) clock: Arc<SimClock>,
    pub(super) engine: Option<Stepped>,
    pub(super) hands: Hands,
    pub(super) model: Model,
    pub(super) plan: u8,
    pub(super) sent: Vec<Sent>,
    pub(super) replies: Arc<Mutex<BTreeMap<usize, Reply>>>,
    pub(super) fences: BTreeSet<Fence>,
    /// The latest time that ever was.
    pub(super) latest: UnixMs,
    /// Whether space is short, or was and the engine may not know better yet.
    pub(super) tight: bool,
    /// Whether a stop was asked for.
    pub(super) stops: bool,
    /// Jobs that were given back in the last turn.
    pub(super) just_back: BTreeSet<usize>,
    /// Runs whose outcome was counted in this turn: a second one is of an older lease.
    pub(super) answered: BTreeSet<Fence>,
    /// Runs whose outcome came before a cancellation, and was decided after it: it waited for what must be read.
    pub(super) overtaken: BTreeSet<Fence>,
    /// Whether a turn failed, so that nobody knows what of it is on disk.
    pub(super) loose: bool,
    /// Whether a read failed in the life before, so that what hung on a name was decided without it.
    pub(super) misread: bool,
    /// Whether the world stops at the first crash that it did not ask for, so that somebody else opens what is left.
    pub(super) stops_at_fault: bool,
    /// Whether it has.
    pub(super) fallen: bool,
    pub(super) figures: Figures,
    pub(super) options: LogOptions,
    /// What the log has shown; `None` where its bytes were meddled with.
    pub(super) shown: Option<Shown>,
    /// The numbers of all versions, by type and label.
    pub(super) numbers: Numbers,
    /// Where the work of each type went after the turn before.
    pub(super) routes: BTreeMap<&'static str, Routes>,
    /// Types of which a version ever was on trial.
    pub(super) trials: BTreeSet<&'static str>,
    pub(super) retain: u64,
    pub(super) old: Vec<Lease>,
    pub(super) asked: usize,
    pub(super) made: u64,
    pub(super) lives: u64,
    pub(super) seed: u64,
}

impl World {
    /// A world with an empty disk.
    pub(super) fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let segment_bytes = *random.choice(&[12 << 10, 16 << 10, 48 << 10]).unwrap_or(&(16 << 10));
        let clock = SimClock { wall_ms: AtomicU64::new(1_800_000_000_000), mono_ms: Arc::new(AtomicU64::new(1000)) };
        Self {
            disk: SimDisk::new(random.u64(..)),
            latest: clock.wall_ms(),
            clock: Arc::new(clock),
            engine: None,
            hands: Hands::default(),
            model: Model::default(),
            plan: random.u8(..),
            sent: Vec::new(),
            replies: Arc::default(),
            fences: BTreeSet::new(),
            tight: false,
            stops: false,
            just_back: BTreeSet::new(),
            answered: BTreeSet::new(),
            overtaken: BTreeSet::new(),
            loose: false,
            misread: false,
            stops_at_fault: false,
            fallen: false,
            figures: Figures::default(),
            options: LogOptions {
                frame_bytes_full: *random.choice(&[512, 2048, 4096]).unwrap_or(&2048),
                frame_bytes_max: 5 << 10,
                ..LogOptions::new(segment_bytes)
            },
            shown: Some(Shown::new()),
            numbers: Numbers::new(),
            routes: BTreeMap::new(),
            trials: BTreeSet::new(),
            retain: *random.choice(&[0, 0, 64 << 10]).unwrap_or(&0),
            old: Vec::new(),
            asked: 0,
            made: 0,
            lives: 0,
            seed,
        }
    }

    /// A world of the small workloads: nothing of it is left to a seed.
    pub(super) fn small() -> Self {
        let mut world = Self::new(1);
        world.options.segment_bytes = 12 << 10;
        world.options.frame_bytes_full = 512;
        (world.plan, world.retain) = (plan::ALL, 0);
        world
    }

    /// The same world after its end, on another disk.
    pub(super) fn fork(&self, disk: SimDisk) -> Self {
        let clock = SimClock {
            wall_ms: AtomicU64::new(self.clock.wall_ms()),
            mono_ms: Arc::new(AtomicU64::new(self.clock.mono_ms.load(Ordering::Relaxed))),
        };
        Self {
            disk,
            clock: Arc::new(clock),
            engine: None,
            hands: Hands::default(),
            model: self.model.clone(),
            plan: self.plan,
            sent: Vec::new(),
            replies: Arc::default(),
            fences: self.fences.clone(),
            latest: self.latest,
            tight: self.tight,
            stops: self.stops,
            just_back: BTreeSet::new(),
            answered: BTreeSet::new(),
            overtaken: BTreeSet::new(),
            loose: self.loose,
            misread: self.misread,
            stops_at_fault: false,
            fallen: false,
            figures: Figures::default(),
            options: self.options,
            shown: None,
            numbers: self.numbers.clone(),
            routes: BTreeMap::new(),
            trials: BTreeSet::new(),
            retain: self.retain,
            old: self.old.clone(),
            asked: self.asked,
            made: self.made,
            lives: self.lives,
            seed: self.seed,
        }
    }

    /// Does one thing.
    pub(super) fn step(&mut self, op: &Op) -> Result<(), Violation> {
        if self.fallen {
            return Ok(());
        }
        if self.engine.is_none() {
            self.open(&[])?;
        }
        self.figures.count("operation", op_name(op));
        match op {
            Op::Push(jobs) => self.push(jobs),
            Op::Turn => return self.turn(),
            Op::Take(pick) => return self.take(*pick),
            Op::Finish(pick, how) => self.finish(*pick, how),
            Op::Late(pick, how) => self.late(*pick, how),
            Op::Act(pick, action) => {
                self.turn_of_trials()?;
                self.act(*pick, *action);
            }
            Op::Purge(of) => {
                self.turn_of_trials()?;
                return self.purge(*of);
            }
            Op::Redrive(of, version) => {
                self.turn_of_trials()?;
                return self.redrive(*of, *version);
            }
            Op::PoolUp(pick) => self.pool_up(*pick),
            Op::PoolNotUp(pick) => self.pool_not_up(*pick),
            Op::PoolEnds(pick) => self.pool_ends(*pick),
            Op::MakeSegment => {
                if let Some(engine) = &mut self.engine {
                    engine.make_segment();
                }
                self.tight &= self.disk.space().is_some();
            }
            Op::Clean => {
                if let Some(engine) = &mut self.engine
                    && engine.clean()
                {
                    self.figures.count("work", "cleaning");
                    return self.turn();
                }
            }
            Op::Wait(ms) => self.wait(u64::from(*ms)),
            Op::Jump(seconds) => self.jump(i64::from(*seconds) * 1000),
            Op::Reload(plan) => return self.reload(*plan),
            Op::Say(word) => return self.say(*word),
            Op::Stop => return self.stop(),
            Op::Crash(power, again) => {
                return self.crash(power.map_or(Loss::Process, Loss::Power), again);
            }
            Op::Fail(after, fault) => {
                let fault = match fault % 3 {
                    0 => Fault::Once,
                    1 => Fault::ForEver,
                    _ => Fault::Power,
                };
                self.disk.plan(u64::from(*after), fault);
            }
            Op::Stall(ms) => self.disk.stall(Arc::clone(&self.clock.mono_ms), u64::from(*ms)),
            Op::Rot(seed) => return self.rot(*seed),
            Op::Space(segments) => self.space(*segments),
        }
        Ok(())
    }

    /// Makes sure that all is served in the end, once nothing fails any more: every job ends, but for the dead
    /// ones, and those that need a version which there never was.
    pub(super) fn settle(&mut self) -> Result<(), Violation> {
        // Somebody sets the clock right, too: what was due at some time is due in the end.
        self.clock.wall_ms.store(self.latest, Ordering::Relaxed);
        self.disk.unplan();
        if self.disk.is_dead() || self.engine.is_none() {
            self.crash(Loss::Process, &[])?;
        }
        self.space(None);
        self.hands.fail(0);
        self.step(&Op::MakeSegment)?;
        for round in 1..10_000 {
            let newest = self.newest_plan();
            if self.plan != newest {
                self.reload(newest)?;
            }
            self.step(&Op::Clean)?;
            self.step(&Op::MakeSegment)?;
            for pick in 0..self.pools() {
                self.pool_up(pick);
                self.pool_ends(pick);
            }
            self.turn()?;
            while self.queued() > 0 {
                self.take(0)?;
            }
            while self.held() > 0 {
                self.finish(0, &How::Done { follow_ups: Vec::new() });
            }
            self.turn()?;
            if self.model.live().all(|(_, known)| known.now.place == Place::Dead || self.is_parked(known)) {
                self.figures.count("held", Invariant::Served.name());
                return self.check_log();
            }
            // What is due in years is waited for once nothing else is left.
            let waits = |known: &Known| known.now.place == Place::Waiting && !self.is_parked(known);
            let dues = self.model.live().filter(|(_, known)| waits(known));
            let due = dues.map(|(_, known)| known.now.ready_ms.1).min().unwrap_or(0);
            let far = if round % 16 == 0 { due.saturating_sub(self.clock.wall_ms()) } else { 0 };
            self.wait(far.max(1000));
        }
        let left: Vec<_> = self.model.live().map(|(_, known)| known).collect();
        Err(Invariant::Served
            .broken(format!("after 10,000 turns without a fault these jobs have not ended: {left:#?}")))
    }

    pub(super) fn ask(&mut self) -> (usize, impl Fn(Reply) + Send + 'static) {
        self.asked += 1;
        let (number, replies) = (self.asked, Arc::clone(&self.replies));
        let put = move |reply| {
            replies.lock().unwrap_or_else(PoisonError::into_inner).insert(number, reply);
        };
        (number, put)
    }

    pub(super) fn frame_bytes_max(&self) -> usize {
        self.options.frame_bytes_max
    }

    pub(super) fn reply(&self, number: usize) -> Option<Reply> {
        self.replies.lock().unwrap_or_else(PoisonError::into_inner).get(&number).cloned()
    }

    pub(super) fn push(&mut self, jobs: &[PushOp]) {
        let jobs: Vec<NewJob> = jobs.iter().map(|job| self.new_job(job)).collect();
        let (reply, put) = self.ask();
        if let Some(engine) = &self.engine {
            engine.handle().submit(jobs.clone(), Box::new(move |answers| put(Reply::Pushed(answers))));
        }
        self.sent.push(Sent::Push { jobs, reply });
    }

    /// A job as somebody would enqueue it now. One with a chosen name has one of two bodies.
    pub(super) fn new_job(&mut self, op: &PushOp) -> NewJob {
        let of = TYPES.get(usize::from(op.of) % (TYPES.len() + 1)).copied().unwrap_or("nobody");
        let mut new = NewJob::new(of.parse().expect("a name"), Vec::new());
        new.id = op.id.map(|id| format!("id-{id}").parse().expect("an id"));
        new.idempotency_key = op.key.map(|key| format!("key-{key}").parse().expect("a key"));
        new.min_version = op.min.map(|which| plan::needed(of, which).parse().expect("a label"));
        if new.id.is_some() || new.idempotency_key.is_some() {
            new.payload = format!("{{\"chosen\":{}}}", op.variant).into_bytes();
            return new;
        }
        self.made += 1;
        let pad = "x".repeat(usize::from(op.bytes));
        new.payload = format!("{{\"n\":{},\"pad\":\"{pad}\"}}", self.made).into_bytes();
        new.priority = Priority::new(op.priority % 10).unwrap_or_default();
        new.max_attempts = op.max_attempts.map(u16::from);
        new.expires_at = op.expires_ms.map(|ms| self.clock.wall_ms() + u64::from(ms));
        if op.delay_ms > 0 {
            let far = op.delay_ms.checked_sub(FAR).map(|far| Duration::from_secs(u64::from(far) * FAR_STEP_SECONDS));
            new.start = Start::After(far.unwrap_or(Duration::from_millis(u64::from(op.delay_ms))));
        }
        new
    }

    pub(super) fn act(&mut self, pick: u16, action: u8) {
        let Some(job) = usize::from(pick).checked_rem(self.model.jobs.len()) else { return };
        let Some(id) = self.model.jobs.get(job).and_then(|known| known.id.clone()) else { return };
        let action = match action % 3 {
            0 => JobAction::Retry,
            1 => JobAction::Cancel,
            _ => JobAction::Discard,
        };
        let chosen = |at: usize| self.model.jobs.get(at).and_then(|known| known.new.id.as_ref());
        let namesake = |sent: &Sent| matches!(sent, Sent::Act { job: other, .. } if chosen(*other) == chosen(job));
        if chosen(job).is_some() && self.sent.iter().any(namesake) {
            // Which of several namesakes each was about could not be told afterwards.
            return;
        }
        let acted = |view: JobView| Acted {
            of: view.worker_type.to_string(),
            attempts: view.attempts,
            failures: view.failures.iter().map(|failure| failure.attempt).collect(),
        };
        let (reply, put) = self.ask();
        if let Some(engine) = &self.engine {
            engine.handle().act(&id, action, Box::new(move |done| put(Reply::Acted(done.map(acted)))));
        }
        self.sent.push(Sent::Act { job, action, reply });
    }

    /// Purges a type. Alone in its turn: what is missing then was purged.
    pub(super) fn purge(&mut self, of: u8) -> Result<(), Violation> {
        self.turn()?;
        if !self.sent.is_empty() {
            return Ok(());
        }
        let of = TYPES.get(usize::from(of) % TYPES.len()).copied().unwrap_or("a");
        let (reply, put) = self.ask();
        if let Some(engine) = &self.engine {
            engine.handle().purge(of, Box::new(move |done| put(Reply::Purged(done))));
        }
        self.sent.push(Sent::Purge { of, reply, ended: 0 });
        self.turn()
    }

    pub(super) fn wait(&mut self, ms: u64) {
        self.clock.mono_ms.fetch_add(ms, Ordering::Relaxed);
        self.jump(i64::try_from(ms).unwrap_or(0));
    }

    pub(super) fn jump(&mut self, ms: i64) {
        let wall = self.clock.wall_ms().saturating_add_signed(ms);
        self.clock.wall_ms.store(wall, Ordering::Relaxed);
        self.latest = self.latest.max(wall);
    }

    pub(super) fn space(&mut self, segments: Option<u8>) {
        let segment = usize::try_from(self.options.segment_bytes).unwrap_or(usize::MAX);
        let used = self.disk.used();
        self.disk.set_space(segments.map(|segments| used + usize::from(segments) * segment));
        self.tight |= segments.is_some();
    }

    /// The happening of a job by its born seq, if the model knows it.
    pub(super) fn known(&self, born: Seq) -> Option<usize> {
        self.model.by_born.get(&born).copied()
    }

    /// What a failure led to is looked up in the table, where versions are on trial: before anything else is done to the job.
    fn turn_of_trials(&mut self) -> Result<(), Violation> {
        if self.sent.is_empty() || (self.trials.is_empty() && !plan::may_try(self.plan)) { Ok(()) } else { self.turn() }
    }

    pub(super) fn happen(&mut self, job: usize, sure: bool, happening: Happening) {
        self.model.happen(job, sure, happening);
    }
}

fn op_name(op: &Op) -> &'static str {
    match op {
        Op::Push(_) => "push",
        Op::Turn => "turn",
        Op::Take(_) => "take",
        Op::Finish(..) => "finish",
        Op::Late(..) => "late",
        Op::Act(..) => "act",
        Op::Purge(_) => "purge",
        Op::Redrive(..) => "redrive",
        Op::PoolUp(_) => "pool up",
        Op::PoolNotUp(_) => "pool not up",
        Op::PoolEnds(_) => "pool ends",
        Op::MakeSegment => "make a segment",
        Op::Clean => "clean",
        Op::Wait(_) => "wait",
        Op::Jump(_) => "jump",
        Op::Reload(_) => "reload",
        Op::Say(_) => "say",
        Op::Stop => "stop",
        Op::Crash(..) => "crash",
        Op::Fail(..) => "fail",
        Op::Space(_) => "space",
        Op::Stall(_) => "stall",
        Op::Rot(_) => "rot",
    }
}
