//! The real binary, from outside: started in a directory of its own, spoken to over HTTP and by signals, killed.
//!
//! Nothing here sleeps for a fixed time: an outside process is waited for by `until(what, deadline, condition)`.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected has to fail loudly, and a panic is how"
)]

mod access;
mod bad_input;
mod cancel;
mod connections;
mod copies;
mod deploy;
mod docs;
mod durability;
mod embed;
mod events;
mod health;
mod history;
mod jobs;
mod lifecycle;
mod logs;
mod metrics;
mod needs;
mod openapi;
mod packaging;
mod page;
mod press;
mod probe;
mod processes;
mod programs;
mod ramp;
mod recycle;
mod reload;
mod rights;
mod rollover;
mod scaling;
mod scarcity;
mod services;
mod shipped;
mod shop;
mod support;
mod systemd;
mod tidy;
mod told;
mod traces;
mod upgrade;
mod why;
mod zoo;
