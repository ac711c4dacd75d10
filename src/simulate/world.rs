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
use super::model::{Happening, Model, Place};
use super::op::{How, Op, PushOp};
use super::plan::{self, TYPES};
use super::pools::Hands;
use crate::clock::Clock;
use crate::engine::handle::JobAction;
use crate::engine::stepped::{Stepped, Surrounding};
use crate::job::new::{NewJob, Pushed, Start};
use crate::log::LogOptions;
use crate::pool::{Report, Task};
use crate::refusal::Refusal;
use crate::types::{Fence, Lease, Priority, Seq, UnixMs};
use crate::worker::Outcome;

/// What does not hold.
pub(super) type Violation = String;

/// A clock that moves when it is told to.
pub(super) struct SimClock {
    wall_ms: AtomicU64,
    mono_ms: AtomicU64,
}

impl Clock for SimClock {
    fn wall_ms(&self) -> UnixMs {
        self.wall_ms.load(Ordering::Relaxed)
    }

    fn mono(&self) -> Duration {
        Duration::from_millis(self.mono_ms.load(Ordering::Relaxed))
    }
}

/// Something that was sent to the engine, of which it is not known yet what follows.
pub(super) enum Sent {
    Push { jobs: Vec<NewJob>, reply: usize },
    Outcome { lease: Lease, outcome: Outcome },
    Act { job: usize, action: JobAction, reply: usize },
    Purge { of: &'static str, reply: usize, ended: u64 },
}

/// An answer of the engine.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    Pushed(Vec<Result<Pushed, Refusal>>),
    Acted(Result<(), Refusal>),
    Purged(Result<u64, Refusal>),
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
    /// Jobs that were given back in the last turn.
    pub(super) just_back: BTreeSet<usize>,
    /// Whether a turn failed, so that nobody knows what of it is on disk.
    pub(super) loose: bool,
    /// Whether power was lost while the log was opened.
    pub(super) cut_while_opening: bool,
    pub(super) figures: Figures,
    options: LogOptions,
    retain: u64,
    old: Vec<Lease>,
    asked: usize,
    made: u64,
    lives: u64,
    seed: u64,
}

impl World {
    /// A world with an empty disk.
    pub(super) fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let segment_bytes = *random.choice(&[12 << 10, 16 << 10, 48 << 10]).unwrap_or(&(16 << 10));
        let clock = SimClock { wall_ms: AtomicU64::new(1_800_000_000_000), mono_ms: AtomicU64::new(1000) };
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
            just_back: BTreeSet::new(),
            loose: false,
            cut_while_opening: false,
            figures: Figures::default(),
            options: LogOptions {
                frame_bytes_full: *random.choice(&[512, 2048, 4096]).unwrap_or(&2048),
                frame_bytes_max: 5 << 10,
                ..LogOptions::new(segment_bytes)
            },
            retain: *random.choice(&[0, 0, 64 << 10]).unwrap_or(&0),
            old: Vec::new(),
            asked: 0,
            made: 0,
            lives: 0,
            seed,
        }
    }

    /// Does one thing.
    pub(super) fn step(&mut self, op: &Op) -> Result<(), Violation> {
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
            Op::Act(pick, action) => self.act(*pick, *action),
            Op::Purge(of) => return self.purge(*of),
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
            Op::Space(segments) => self.space(*segments),
        }
        Ok(())
    }

    /// Makes sure that all is served in the end, once nothing fails any more: every job ends, but for the dead ones.
    pub(super) fn settle(&mut self) -> Result<(), Violation> {
        // Somebody sets the clock right, too: what was due at some time is due in the end.
        self.clock.wall_ms.store(self.latest, Ordering::Relaxed);
        self.disk.unplan();
        if self.disk.is_dead() || self.engine.is_none() {
            self.crash(Loss::Process, &[])?;
        }
        self.space(None);
        self.step(&Op::MakeSegment)?;
        self.reload(plan::ALL)?;
        for _ in 0..10_000 {
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
            if self.model.live().all(|(_, known)| known.now.place == Place::Dead) {
                return Ok(());
            }
            self.wait(1000);
        }
        let left: Vec<_> = self.model.live().map(|(_, known)| known).collect();
        Err(format!("after 10,000 turns without a fault these jobs have not ended: {left:#?}"))
    }

    fn ask(&mut self) -> (usize, impl Fn(Reply) + Send + 'static) {
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

    fn push(&mut self, jobs: &[PushOp]) {
        let jobs: Vec<NewJob> = jobs.iter().map(|job| self.new_job(job)).collect();
        let (reply, put) = self.ask();
        if let Some(engine) = &self.engine {
            engine.handle().submit(jobs.clone(), Box::new(move |answers| put(Reply::Pushed(answers))));
        }
        self.sent.push(Sent::Push { jobs, reply });
    }

    /// A job as somebody would enqueue it now. One with a chosen name has one of two bodies.
    fn new_job(&mut self, op: &PushOp) -> NewJob {
        let of = TYPES.get(usize::from(op.of) % (TYPES.len() + 1)).copied().unwrap_or("nobody");
        let mut new = NewJob::new(of.parse().expect("a name"), Vec::new());
        new.id = op.id.map(|id| format!("id-{id}").parse().expect("an id"));
        new.idempotency_key = op.key.map(|key| format!("key-{key}").parse().expect("a key"));
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
            new.start = Start::After(Duration::from_millis(u64::from(op.delay_ms)));
        }
        new
    }

    fn pools(&self) -> u16 {
        u16::try_from(self.hands.all().len()).unwrap_or(u16::MAX)
    }

    fn queued(&self) -> usize {
        self.hands.all().iter().map(|hand| hand.queue.len()).sum()
    }

    fn held(&self) -> usize {
        self.hands.all().iter().map(|hand| hand.held.len()).sum()
    }

    /// A worker takes what was handed to its pool, and reads what it shall do.
    fn take(&mut self, pick: u16) -> Result<(), Violation> {
        let taken: Option<(usize, Task)> = {
            let mut all = self.hands.all();
            let full: Vec<usize> =
                (0..all.len()).filter(|at| all.get(*at).is_some_and(|h| !h.queue.is_empty())).collect();
            let at = full.get(usize::from(pick) % full.len().max(1)).copied();
            at.and_then(|at| Some((at, all.get_mut(at)?.queue.pop_front()?)))
        };
        let Some((at, task)) = taken else { return Ok(()) };
        self.old.push(task.lease);
        let Some(engine) = &self.engine else { return Ok(()) };
        let read = self.disk.quietly(|| engine.reader().read(task.home.position(), task.home.seq));
        let moved = engine.table().job(task.lease.born).is_none_or(|job| job.home != task.home);
        match read {
            Ok(body) => {
                let (_, payload) = plan::decode(task.lease.born, task.home.seq, &body)?;
                let known = self.model.by_born.get(&task.lease.born).and_then(|job| self.model.jobs.get(*job));
                let known = known.ok_or_else(|| format!("job {} runs and was never enqueued", task.lease.born))?;
                if known.summary_of.is_none() && payload != known.new.payload {
                    return Err(format!("job {} runs with another's payload", task.lease.born));
                }
            }
            Err(_) if moved => {
                // It was restated meanwhile, and its segment is gone: given back, it is found at its new place.
                self.report(at, task.lease, Outcome::Interrupted);
                return Ok(());
            }
            Err(error) => return Err(format!("the payload of job {} cannot be read: {error}", task.lease.born)),
        }
        if let Some(hand) = self.hands.all().get_mut(at) {
            hand.held.push(task);
        }
        Ok(())
    }

    fn report(&mut self, hand: usize, lease: Lease, outcome: Outcome) {
        if let Some(hand) = self.hands.all().get(hand) {
            hand.tell(Report::Outcome { lease, outcome: outcome.clone(), about: None });
        }
        self.sent.push(Sent::Outcome { lease, outcome });
    }

    fn finish(&mut self, pick: u16, how: &How) {
        let done: Option<(usize, Task, bool)> = {
            let mut all = self.hands.all();
            let busy: Vec<usize> =
                (0..all.len()).filter(|at| all.get(*at).is_some_and(|h| !h.held.is_empty())).collect();
            let at = busy.get(usize::from(pick) % busy.len().max(1)).copied();
            at.and_then(|at| {
                let hand = all.get_mut(at)?;
                let task = hand.held.remove(usize::from(pick) % hand.held.len());
                Some((at, task, hand.cut_off))
            })
        };
        let Some((at, task, cut_off)) = done else { return };
        let outcome = if cut_off { Outcome::Interrupted } else { self.outcome(how) };
        self.report(at, task.lease, outcome);
    }

    /// An answer under a lease that is no more.
    fn late(&mut self, pick: u16, how: &How) {
        let held: BTreeSet<Fence> =
            self.hands.all().iter().flat_map(|hand| hand.held.iter().map(|task| task.lease.fence)).collect();
        let gone: Vec<Lease> = self.old.iter().filter(|lease| !held.contains(&lease.fence)).copied().collect();
        let Some(lease) = gone.get(usize::from(pick) % gone.len().max(1)).copied() else { return };
        let outcome = self.outcome(how);
        self.report(0, lease, outcome);
    }

    fn outcome(&mut self, how: &How) -> Outcome {
        match how {
            How::Done { follow_ups } => {
                let mut enqueue: Vec<NewJob> = follow_ups.iter().map(|job| self.new_job(job)).collect();
                enqueue.iter_mut().for_each(|job| job.expires_at = None);
                Outcome::Done { result: Some(b"1".to_vec()), enqueue }
            }
            How::Fail { killed } => Outcome::Fail { error: "no luck".to_owned(), killed: *killed },
            How::Dead => Outcome::Dead { error: "never".to_owned() },
            How::Defer { after_ms } => {
                let after = after_ms.map(|ms| Duration::from_millis(u64::from(ms)));
                Outcome::Defer { error: "later".to_owned(), after }
            }
            How::Interrupted => Outcome::Interrupted,
            How::NotStarted => Outcome::NotStarted { error: "no program".to_owned() },
        }
    }

    fn act(&mut self, pick: u16, action: u8) {
        let Some(job) = usize::from(pick).checked_rem(self.model.jobs.len()) else { return };
        let Some(id) = self.model.jobs.get(job).and_then(|known| known.id.clone()) else { return };
        let action = match action % 3 {
            0 => JobAction::Retry,
            1 => JobAction::Cancel,
            _ => JobAction::Discard,
        };
        let (reply, put) = self.ask();
        if let Some(engine) = &self.engine {
            engine.handle().act(&id, action, Box::new(move |done| put(Reply::Acted(done.map(|_| ())))));
        }
        self.sent.push(Sent::Act { job, action, reply });
    }

    /// Purges a type. Alone in its turn: what is missing then was purged.
    fn purge(&mut self, of: u8) -> Result<(), Violation> {
        self.turn()?;
        let of = TYPES.get(usize::from(of) % TYPES.len()).copied().unwrap_or("a");
        let (reply, put) = self.ask();
        if let Some(engine) = &self.engine {
            engine.handle().purge(of, Box::new(move |done| put(Reply::Purged(done))));
        }
        self.sent.push(Sent::Purge { of, reply, ended: 0 });
        self.turn()
    }

    fn pool_up(&self, pick: u16) {
        let mut all = self.hands.all();
        let Some(at) = usize::from(pick).checked_rem(all.len()) else { return };
        if let Some(hand) = all.get_mut(at).filter(|hand| !hand.up && !hand.draining) {
            hand.up = true;
            hand.tell(Report::Up);
        }
    }

    fn pool_not_up(&self, pick: u16) {
        let mut all = self.hands.all();
        let Some(at) = usize::from(pick).checked_rem(all.len()) else { return };
        // A pool that says so has no worker left, and so holds nothing.
        if let Some(hand) = all.get_mut(at).filter(|hand| !hand.ended && hand.held.is_empty()) {
            let was_up = std::mem::take(&mut hand.up);
            hand.tell(Report::NotUp { why: "no program".to_owned(), was_up });
        }
    }

    fn pool_ends(&self, pick: u16) {
        let mut all = self.hands.all();
        let Some(at) = usize::from(pick).checked_rem(all.len()) else { return };
        if let Some(hand) = all.get_mut(at).filter(|hand| hand.may_end()) {
            hand.ended = true;
            hand.tell(Report::Ended);
        }
    }

    fn wait(&mut self, ms: u64) {
        self.clock.mono_ms.fetch_add(ms, Ordering::Relaxed);
        self.jump(i64::try_from(ms).unwrap_or(0));
    }

    fn jump(&mut self, ms: i64) {
        let wall = self.clock.wall_ms().saturating_add_signed(ms);
        self.clock.wall_ms.store(wall, Ordering::Relaxed);
        self.latest = self.latest.max(wall);
    }

    fn space(&mut self, segments: Option<u8>) {
        let segment = usize::try_from(self.options.segment_bytes).unwrap_or(usize::MAX);
        let used = self.disk.used();
        self.disk.set_space(segments.map(|segments| used + usize::from(segments) * segment));
        self.tight |= segments.is_some();
    }

    /// Takes a config over. Alone in its turn, so that it is clear which settings hold for what.
    fn reload(&mut self, plan: u8) -> Result<(), Violation> {
        self.turn()?;
        let still = self.engine.as_mut().is_some_and(Stepped::stands_still);
        if still || !self.sent.is_empty() {
            return Ok(());
        }
        self.plan = plan;
        if let Some(engine) = &self.engine {
            engine.handle().reload(plan::spec(plan, self.retain, self.options.segment_bytes), Box::new(|_| {}));
        }
        self.turn()
    }

    /// Stops in good order: what is held is given back or done, every pool ends, and the log says so.
    fn stop(&mut self) -> Result<(), Violation> {
        self.turn()?;
        let Some(engine) = &self.engine else { return Ok(()) };
        engine.handle().stop(Box::new(|()| {}));
        let life = self.lives;
        for _ in 0..1000 {
            self.turn()?;
            if self.engine.is_none() || self.lives != life {
                return Ok(());
            }
            while self.held() > 0 {
                self.finish(0, &How::Interrupted);
            }
            for pick in 0..self.pools() {
                self.pool_ends(pick);
            }
        }
        Err("a stop never came to its end".to_owned())
    }

    /// Opens the disk; power is lost after so many calls, once for each number, before it is left in peace.
    pub(super) fn open(&mut self, again: &[u16]) -> Result<(), Violation> {
        let mut again = again.iter();
        self.note_faults("serving");
        loop {
            self.lives += 1;
            self.hands = Hands::default();
            let cut = again.next();
            if let Some(after) = cut {
                self.disk.plan(u64::from(*after), Fault::Power);
            }
            let around = Surrounding {
                disk: Arc::new(self.disk.clone()),
                options: self.options,
                log_id: *b"a simulated log.",
                clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
                pools: Box::new(self.hands.clone()),
                seed: self.seed ^ self.lives,
            };
            let opened = Stepped::open(plan::spec(self.plan, self.retain, self.options.segment_bytes), around);
            let struck = self.disk.has_struck();
            self.disk.unplan();
            match opened {
                Ok((engine, opened)) => {
                    self.figures.count("opening", if opened.cut_bytes > 0 { "cut a torn tail" } else { "whole" });
                    self.engine = Some(engine);
                    return self.reconcile();
                }
                Err(_) if struck => {
                    self.note_faults("opening");
                    let seed = self.seed.wrapping_add(self.lives);
                    let power = self.disk.has_lost_power() || seed.is_multiple_of(2);
                    self.disk = self.disk.after(if power { Loss::Power(seed) } else { Loss::Process });
                    self.cut_while_opening = true;
                }
                Err(error) => return Err(format!("the log cannot be opened: {}", error.in_full())),
            }
        }
    }

    /// The process ends, with or without the machine, and is started again.
    pub(super) fn crash(&mut self, loss: Loss, again: &[u16]) -> Result<(), Violation> {
        self.figures.count("crash", if loss == Loss::Process { "process" } else { "power" });
        self.engine = None;
        // What no turn has taken never happened.
        self.sent.clear();
        self.replies.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let held: Vec<Lease> =
            self.hands.all().iter().flat_map(|hand| hand.queue.iter().map(|task| task.lease)).collect();
        self.old.extend(held);
        self.note_faults("serving");
        self.disk = self.disk.after(loss);
        self.open(again)
    }

    fn note_faults(&mut self, during: &'static str) {
        let (struck, refused) = self.disk.take_struck();
        for ((call, fault), times) in struck {
            self.figures.add(&format!("{fault:?} fault while {during}"), &format!("{call:?}"), times);
        }
        if refused > 0 {
            self.figures.add("fault", "no space", refused);
        }
    }

    /// The happening of a job by its born seq, if the model knows it.
    pub(super) fn known(&self, born: Seq) -> Option<usize> {
        self.model.by_born.get(&born).copied()
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
        Op::PoolUp(_) => "pool up",
        Op::PoolNotUp(_) => "pool not up",
        Op::PoolEnds(_) => "pool ends",
        Op::MakeSegment => "make a segment",
        Op::Clean => "clean",
        Op::Wait(_) => "wait",
        Op::Jump(_) => "jump",
        Op::Reload(_) => "reload",
        Op::Stop => "stop",
        Op::Crash(..) => "crash",
        Op::Fail(..) => "fail",
        Op::Space(_) => "space",
    }
}
