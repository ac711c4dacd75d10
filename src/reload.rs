//! Reloads: whoever asks, one at a time, always of the newest file.
//!
//! A thread of its own reads and checks the file, since that may take its time. Requests that come meanwhile become one.

use std::path::{Path, PathBuf};

use crossbeam_channel::{Receiver, Sender};

use crate::config::Config;
use crate::engine::Handle;
use crate::engine::handle::Then;
use crate::engine::view::ReloadVerdict;
use crate::generation;
use crate::refusal::Refusal;
use crate::worker::native::Natives;

type Waiter = Then<Result<ReloadVerdict, Refusal>>;

/// How far a reload is; whoever watches over the process may want to know.
#[derive(Debug, Clone, Copy)]
pub enum Stage<'a> {
    /// The file is about to be read.
    Begun,
    /// This config has passed; the engine is about to take it over.
    Passed(&'a Config),
    /// It was accepted or refused: whatever the engine is asked from now on it answers after it has decided. What an accepted
    /// one asks for may take its time.
    Decided,
}

/// Asks for reloads. Cheap to clone.
#[derive(Clone)]
pub struct Reloader {
    requests: Sender<Waiter>,
}

impl Reloader {
    /// Starts the thread. `told` hears how far each reload is.
    ///
    /// # Errors
    /// No thread to be had.
    pub fn start(
        path: PathBuf,
        natives: Natives,
        handle: Handle,
        told: impl Fn(Stage<'_>) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (requests, inbox) = crossbeam_channel::unbounded();
        let thread = std::thread::Builder::new().name("reload".to_owned());
        thread.spawn(move || run(&path, &natives, &handle, &inbox, &told))?;
        Ok(Self { requests })
    }

    /// Has the file read and taken over; `then` is told when that is settled, or why it was not accepted.
    pub fn reload(&self, then: Waiter) {
        drop(self.requests.send(then));
    }
}

fn run(path: &Path, natives: &Natives, handle: &Handle, inbox: &Receiver<Waiter>, told: &impl Fn(Stage<'_>)) {
    while let Ok(first) = inbox.recv() {
        // Whoever asked up to here is served by the file as it is now.
        let waiters: Vec<Waiter> = std::iter::once(first).chain(inbox.try_iter()).collect();
        told(Stage::Begun);
        match generation::load(path, natives) {
            Ok(spec) => {
                let then: Waiter = Box::new(move |answer| {
                    if let Err(refusal) = &answer {
                        tracing::error!("the config was not accepted, what runs goes on: {refusal}");
                    }
                    for waiter in waiters {
                        waiter(answer.clone());
                    }
                });
                told(Stage::Passed(&spec.config));
                handle.reload(spec, then);
            }
            Err(error) => {
                let detail = error.to_string();
                tracing::error!(lines = detail, "the config was not accepted, what runs goes on");
                handle.reload_failed(detail.clone());
                for waiter in waiters {
                    waiter(Err(Refusal::InvalidConfig { detail: detail.clone() }));
                }
            }
        }
        told(Stage::Decided);
    }
}
