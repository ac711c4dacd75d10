//! The real binary on the rack: killed, cut off from power, starved of disk, and judged by what the world outside saw.
//!
//! A campaign has producers that push over HTTP, workers that note every run, and a fault at the end of each life of the
//! process; all of it goes into one [`history`] on another file system, and the [`checker`] judges that. Tests are named
//! after the faults of the catalogue (D1 kill, D2 power cut, D7 failed sync, D9 full disk, P2 storm of signals, …).
//!
//! `SEED=n` repeats a campaign's choices, `TORTURE_KILLS=n` and `TORTURE_CUTS=n` set how many lives it has (30 and 10;
//! 10,000 and 1,000 with `BIOTOPE_TEST_LONG`), and `TORTURE_BIOTOPE=path` which binary is put on the rack.
//! A home in which something fails is kept, with its history, and what `biotope log verify` says of it is told.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected has to fail loudly, and a panic is how"
)]

mod campaign;
mod checker;
mod doctored;
mod evidence;
mod full;
mod ground;
mod history;
mod index;
mod kills;
mod names;
mod native;
mod opening;
mod process;
mod producer;
mod reloads;
mod replaced;
mod roller;
mod service;
mod stall;
#[expect(dead_code, reason = "shared with the other integration tests, which use all of it")]
#[path = "../it/support/mod.rs"]
mod support;
mod wire;
mod workers;
