//! The engine without threads: its owner takes every step, and so decides what happens when. For simulations and fuzzing.
//!
//! The same core, table and log as in production; only the clock, the disk, the pools and who steps are others.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::TryRecvError;

use super::command::To;
use super::core::Core;
use super::handle::Handle;
use super::open::{OpenError, Opened, Surroundings, open_core};
use super::upkeep::clean::Cleaning;
use super::view::JobView;
use super::{Command, GenerationSpec, Resolver};
use crate::clock::Clock;
use crate::job::table::Table;
use crate::log::disk::Disk;
use crate::log::{LogId, LogOptions, Making, Poisoned, Reader};
use crate::pool::{PoolId, PoolMaker, Report};
use crate::refusal::Refusal;

/// What a stepped engine is put into.
pub struct Surrounding {
    /// Where its log lies.
    pub disk: Arc<dyn Disk>,
    /// Sizes of its log.
    pub options: LogOptions,
    /// Identity of its log, if it is to be made.
    pub log_id: LogId,
    /// Its time.
    pub clock: Arc<dyn Clock>,
    /// What makes its pools.
    pub pools: Box<dyn PoolMaker>,
    /// What makes of a config's text the same again.
    pub resolver: Resolver,
    /// Seed of the little that it leaves to chance.
    pub seed: u64,
}

/// An engine that stands still until it is stepped.
pub struct Stepped {
    core: Core,
    handle: Handle,
}

impl Stepped {
    /// Opens the log. When it returns, everything that was acknowledged is there.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(spec: GenerationSpec, around: Surrounding) -> Result<(Self, Opened), OpenError> {
        let (core, handle, opened) = open_core(
            spec,
            Surroundings {
                disk: around.disk,
                options: LogOptions { making: Making::Stepped, ..around.options },
                new_id: around.log_id,
                clock: around.clock,
                pool_maker: around.pools,
                resolver: around.resolver,
                cleaning: Cleaning::SteppedIdle,
                threads: false,
                random: fastrand::Rng::with_seed(around.seed),
                lock: None,
                progress: Box::new(|_| ()),
            },
        )?;
        Ok((Self { core, handle }, opened))
    }

    /// The way in. Only calls with a callback: nobody would answer one that waits.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// One job with everything known about it: takes turns until that is found.
    ///
    /// # Errors
    /// `NotFound`; `Poisoned`.
    pub fn job(&mut self, id: &str) -> Result<JobView, Refusal> {
        let (to, found) = crossbeam_channel::bounded(1);
        let to = To::Then(Box::new(move |known| drop(to.send(known))));
        drop(self.core.to_self.send(Command::Find { id: id.to_owned(), to }));
        loop {
            self.turn().map_err(|_| Refusal::Poisoned)?;
            match found.try_recv() {
                Ok(known) => return self.handle.view(id, known),
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return Err(Refusal::Stopping),
            }
        }
    }

    /// Lets it hear from a pool that is not there any more.
    pub fn hears(&self, report: Report) {
        drop(self.core.to_self.send(Command::Pool(PoolId(0), report)));
    }

    /// Takes one turn: what was sent meanwhile, what is due, one commit. Says whether a stop is through.
    ///
    /// # Errors
    /// The log is poisoned; everyone who waits was told so.
    pub fn turn(&mut self) -> Result<bool, Poisoned> {
        let ended = self.core.turn(None);
        if ended.is_err() {
            self.core.disown();
        }
        ended
    }

    /// Whether it has more to do than one turn held.
    pub fn is_busy(&self) -> bool {
        self.core.is_busy()
    }

    /// Whether it records nothing that can wait, for want of space.
    pub fn stands_still(&mut self) -> bool {
        self.core.stands_still()
    }

    /// How long nothing is due, if nothing is sent.
    pub fn idle_for(&mut self) -> Duration {
        self.core.sleep()
    }

    /// Makes the next segment, if it is not there yet.
    pub fn make_segment(&mut self) {
        self.core.log.make_ahead();
    }

    /// Sends the next portion of what is to be restated, if the log is being cleaned; says whether it is.
    pub fn clean(&mut self) -> bool {
        match self.core.step_cleaning() {
            Some(survivors) => self.core.to_self.send(Command::Survivors(survivors)).is_ok(),
            None => false,
        }
    }

    /// Bytes of the frame that is being filled.
    pub fn frame_bytes(&self) -> usize {
        self.core.log.frame_bytes()
    }

    /// What lives.
    pub fn table(&self) -> &Table {
        &self.core.table
    }

    /// The version of a type that does its first jobs one at a time: of that the log says nothing.
    pub fn gated(&self, type_no: u32) -> Option<u32> {
        let trial = self.core.types.get(&type_no)?.trial.as_ref();
        trial.filter(|trial| trial.is_gated()).map(|trial| trial.version_no)
    }

    /// What does not hold of the places of pools, if anything does not.
    pub fn misplaced(&self) -> Option<String> {
        self.core.misplaced()
    }

    /// For reading the log.
    pub fn reader(&self) -> Reader {
        self.core.log.reader()
    }
}
