//! The lives of a simulated engine: opened, taken over by another config, stopped, cut off, and opened again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

use super::disk::{Call, Fault, Loss};
use super::invariant::Invariant;
use super::op::How;
use super::plan;
use super::world::{Violation, World};
use crate::clock::Clock;
use crate::engine::stepped::{Stepped, Surrounding};
use crate::engine::{OpenError, Opened};
use crate::rollover::plan::Word;
use crate::types::Lease;

impl World {
    /// Takes a config over. Alone in its turn, so that it is clear which settings hold for what.
    pub(super) fn reload(&mut self, plan: u8) -> Result<(), Violation> {
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

    /// Has the engine do something about the rollover of a type. Alone in its turn, as a config.
    pub(super) fn say(&mut self, word: u8) -> Result<(), Violation> {
        const WORDS: [Word; 5] = [Word::Pause, Word::Resume, Word::Promote, Word::Abort, Word::Rollback];
        self.turn()?;
        let still = self.engine.as_mut().is_some_and(Stepped::stands_still);
        if still || !self.sent.is_empty() {
            return Ok(());
        }
        let word = WORDS.get(usize::from(word) % WORDS.len()).copied().unwrap_or(Word::Abort);
        let done = Arc::new(AtomicBool::new(false));
        if let Some(engine) = &self.engine {
            let done = Arc::clone(&done);
            engine.handle().rollout("a", word, Box::new(move |view| done.store(view.is_ok(), Ordering::Relaxed)));
        }
        self.turn()?;
        self.figures.count("word", if done.load(Ordering::Relaxed) { "done" } else { "refused" });
        Ok(())
    }

    /// Stops in good order: what is held is given back or done, every pool ends, and the log says so.
    pub(super) fn stop(&mut self) -> Result<(), Violation> {
        self.turn()?;
        self.stops = true;
        let stopped = self.stop_now();
        self.stops = false;
        stopped
    }

    fn stop_now(&mut self) -> Result<(), Violation> {
        let Some(engine) = &self.engine else { return Ok(()) };
        engine.handle().stop(Box::new(|()| {}));
        let life = self.lives;
        for _ in 0..1000 {
            self.turn()?;
            if self.engine.is_none() {
                // A purge that waited for space to the end is left undone; what it has ended was noticed.
                self.sent.clear();
            }
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
        Err(Invariant::Served.broken("a stop never came to its end"))
    }

    /// Opens the disk; power is lost after so many calls, once for each number, before it is left in peace.
    pub(super) fn open(&mut self, again: &[u16]) -> Result<(), Violation> {
        let mut again = again.iter();
        let mut cut_before = 0;
        self.note_faults("serving");
        loop {
            let cut = again.next();
            if let Some(after) = cut {
                self.disk.plan(u64::from(*after), Fault::Power);
            }
            let opened = self.open_once();
            let struck = self.disk.has_struck();
            if cut.is_some() {
                self.disk.unplan();
            }
            match opened {
                Ok((engine, opened)) => {
                    if let Some(segment) = opened.unfit_checkpoint {
                        return Err(format!("the log does not go on from the checkpoint of segment {segment}"));
                    }
                    self.figures.count("opening", if opened.cut_bytes > 0 { "cut a torn tail" } else { "whole" });
                    self.engine = Some(engine);
                    if self.probation_goes_on() {
                        self.figures.count("opening", "with a probation that goes on");
                    }
                    self.reconcile()?;
                    self.check_log()?;
                    self.note_shown();
                    return Ok(());
                }
                Err(_) if struck && self.stops_at_fault => {
                    self.fall();
                    return Ok(());
                }
                Err(_) if struck => {
                    self.note_faults("opening");
                    cut_before += 1;
                    self.figures.count("crash", cut_in_opening(cut_before));
                    let seed = self.seed.wrapping_add(self.lives);
                    let power = self.disk.has_lost_power() || seed.is_multiple_of(2);
                    self.disk = self.disk.after(if power { Loss::Power(seed) } else { Loss::Process });
                }
                Err(OpenError::Poisoned(_)) if self.disk.space().is_some() => {
                    // Every opening writes a little, and a small segment takes few of them: where no other can be made, a
                    // real opening waits for space, and a stepped one is told.
                    self.figures.count("opening", "waited for space");
                    self.disk.set_space(None);
                    self.disk = self.disk.after(Loss::Process);
                }
                Err(error) => return Err(format!("the log cannot be opened: {}", error.in_full())),
            }
        }
    }

    /// Opens the disk as it is.
    pub(super) fn open_once(&mut self) -> Result<(Stepped, Opened), OpenError> {
        self.lives += 1;
        self.hands = self.hands.of_next_life();
        let around = Surrounding {
            disk: Arc::new(self.disk.clone()),
            options: self.options,
            log_id: *b"a simulated log.",
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            pools: Box::new(self.hands.clone()),
            resolver: plan::resolver(self.retain, self.options.segment_bytes),
            seed: self.seed ^ self.lives,
        };
        Stepped::open(plan::spec(self.plan, self.retain, self.options.segment_bytes), around)
    }

    /// The process ends, with or without the machine, and is started again.
    pub(super) fn crash(&mut self, loss: Loss, again: &[u16]) -> Result<(), Violation> {
        self.figures.count("crash", if loss == Loss::Process { "of the process" } else { "of the machine" });
        self.fall();
        self.note_faults("serving");
        self.disk = self.disk.going_on_after(loss);
        self.fallen = false;
        self.open(again)
    }

    /// The process is gone, and nobody starts it again.
    pub(super) fn fall(&mut self) {
        self.fallen = true;
        self.engine = None;
        // What no turn has taken never happened.
        self.sent.clear();
        self.replies.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let held: Vec<Lease> =
            self.hands.all().iter().flat_map(|hand| hand.queue.iter().map(|task| task.lease)).collect();
        self.old.extend(held);
    }

    pub(super) fn note_faults(&mut self, during: &'static str) {
        let (struck, refused) = self.disk.take_struck();
        self.misread |= struck.keys().any(|(call, _)| *call == Call::Read);
        for ((call, fault), times) in struck {
            self.figures.add(&format!("{fault:?} fault while {during}"), &format!("{call:?}"), times);
        }
        if refused > 0 {
            self.figures.add("fault", "no space", refused);
        }
    }
}

fn cut_in_opening(times: u32) -> &'static str {
    match times {
        1 => "in an opening",
        2 => "in an opening twice",
        _ => "in an opening three times",
    }
}
