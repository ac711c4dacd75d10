//! Biotope: a home for worker ecosystems, in one process.
//!
//! # The house
//!
//! ```text
//!   cli ── daemon ── signal          people, scripts, signals; `start`: the config that it begins with; `logfile`: how it says what
//!            │                       it does; `rights`: what the kernel allows it; `systemd`, if that watches
//!            │
//!     http ──┤── page                producers; the status page
//!     care ──┘                       data directories that nobody runs on: verify, dump, salvage, backup, restore
//!            │
//!        takeover                    the next image of the program, in this process: its check, what it is left, the way back
//!            │
//!          reload ── generation      a config file, resolved to versions
//!            │            ├── access   who may come in: tokens, names, the certificate
//!          engine ◄──── config       the single writer: every decision is made here
//!          │    │
//!        job    pool ── worker       the table, pure      │  threads, and what runs on them: code, programs, services
//!          │    │
//!          log ─┘                    the only thing on disk that must not be lost
//!          │
//!        archive                     what has ended, to be searched: follows the log, may be lost at any time
//! ```
//!
//! Beside them stand small ones that many use: [`types`], [`limits`], [`refusal`] and [`clock`]; [`sync`], answers that all wait for
//! one commit; `names` and `trust`, how hosts are looked up and whose certificates are believed; `own`, the file that this
//! process was started from; `private`, files that nobody else may read; `blocking`, threads for what blocks; `heap`, how many heaps
//! there are; and for what people read, `exit`, `figures` and `wording`.
//!
//! Imports go down only; `config` and `access` are read from where calls come in, too. `job`, `config`, `types`, `scale`, by which the engine decides how many workers a type has, and
//! `recent` and `measure`, what a version has done of late and in all, are pure: no disk, no clock, no thread; so is
//! [`rollover`], which says how a type goes from one version to the next, and on what evidence back. Only [`clock`] reads a
//! clock (the deadlines of requests to services are tokio's), only [`log`] and [`archive`] write below the data directory, only [`worker`] starts processes and calls services. (The program
//! `biotope` starts them by a small process beside it, the helper, which ends with it and takes all that it started along; the
//! file that it locks is in the data directory, too: [`worker::spawner`].) [`simulate`] stands beside the house: it runs
//! engine, table and log on a disk and a clock of its own. So does [`testing`], for the tests of programs that bring workers of
//! their own; [`embed`] opens a biotope within such a program.
//!
//! # The way of a job
//!
//! 1. `http` or an embedder's own code has [`job::intake`] parse it, its [`job::trace`] included, and gives it to a
//!    [`engine::Handle`].
//! 2. The engine's thread admits it (type, size, id, key), appends an `Enqueued` record to the [`log`]'s frame, and
//!    applies the same event to the [`job::table`]. One commit writes and syncs the frame; then the caller is answered.
//! 3. The engine picks it by priority and age, records `Reserved`, and hands a [`pool::Task`] (a lease and a place in
//!    the log, no payload) to the pool of the type's current version, or of one that is on trial beside it.
//! 4. A pool's thread reads the payload from the log and runs a cycle of its [`worker::Worker`]; a pool that calls a
//!    service runs as many jobs side by side on its one thread as it is large. What each worker does, and when it last gave a
//!    sign of life, its [`worker::pulse`] says, which is read without asking it.
//! 5. The outcome goes back to the engine, which checks the lease's fence and records what follows: the end together
//!    with its follow-up jobs, another attempt, death, or a return to the queue.
//!
//! A chosen id or key is known by eight bytes that lead to a record. Where a decision hangs on what that record says, the
//! command waits while a thread beside the engine reads it, and comes back with what it says: the engine itself reads no
//! disk.
//!
//! # What is on disk
//!
//! Records in segments, which say everything. Beside them, derived and expendable: checkpoints ([`log::checkpoint`]), a
//! picture of the table at a segment's beginning, so that a start reads one picture and the records since; checkpoints of
//! the index of chosen names, which is gathered beside the engine once it serves; and the index of what has ended
//! ([`archive`]). Where a record was found damaged, a note beside its segment ([`log::damage`]): what is ended is read again
//! now and then ([`log::scrub`]).
//!
//! # What always holds
//!
//! - Nothing is answered as done before its record is on stable storage (`log.sync = "always"`).
//! - The table is what the log's records say: live traffic and replay go through one [`job::table::Table::apply`].
//! - The log from its head alone gives the state; what lives is restated before the head moves on.
//! - With and without a checkpoint a start finds the same.
//! - A job that waits as it came takes some bytes of memory, whatever its payload ([`job::queue`]).
//! - A lease counts once: an outcome under an older fence changes nothing.
//! - After a failed write or sync nothing more is acknowledged.
//! - A version loses its work only to one that is up.
//! - What fails on a version on trial costs nothing where the one before can make up for it: no job dies of a new version.
#![warn(missing_docs)]

pub mod access;
pub mod archive;
#[cfg(feature = "daemon")]
mod blocking;
pub mod care;
#[cfg(feature = "daemon")]
pub mod cli;
pub mod clock;
pub mod config;
#[cfg(feature = "daemon")]
mod daemon;
pub mod embed;
pub mod engine;
#[cfg(feature = "daemon")]
mod exit;
#[cfg(feature = "daemon")]
mod figures;
pub mod generation;
#[cfg(feature = "daemon")]
mod heap;
#[cfg(feature = "daemon")]
pub mod http;
pub mod job;
pub mod limits;
pub mod log;
#[cfg(feature = "daemon")]
mod logfile;
pub mod measure;
#[cfg(feature = "daemon")]
mod names;
#[cfg(feature = "daemon")]
mod own;
#[cfg(feature = "daemon")]
mod page;
pub mod pool;
mod private;
pub mod recent;
pub mod refusal;
pub mod reload;
#[cfg(feature = "daemon")]
mod rights;
pub mod rollover;
mod scale;
#[cfg(feature = "daemon")]
mod signal;
pub mod simulate;
#[cfg(feature = "daemon")]
mod start;
pub mod sync;
#[cfg(feature = "daemon")]
mod systemd;
#[cfg(feature = "daemon")]
mod takeover;
pub mod testing;
#[cfg(feature = "daemon")]
mod trust;
pub mod types;
#[cfg(feature = "daemon")]
mod wording;
pub mod worker;

/// The code of the reference of Rust workers is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../docs/rust-workers.md")]
struct RustWorkers;
