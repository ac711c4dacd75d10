//! Who tells systemd how it goes on: one thread, so that what is told comes in order.
//!
//! It asks the engine how things stand, and never waits for the answer: where the engine hangs, no status comes, no more time
//! is asked for, and nothing is beaten for it but while it waits for the disk ([`Pulse::stand_in`]).

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::{Due, MORE_EVERY, MORE_TIME, Supervisor, more_time, reloading, status, words};
use crate::clock::Clock;
use crate::engine::view::EcosystemView;
use crate::engine::{Handle, Pulse};
use crate::refusal::Refusal;
use crate::takeover::Upgrader;

/// How often it is looked whether there is something to say.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The engine beats so many times within the time after which it is taken for dead.
const BEATS: u32 = 3;

/// What there is to tell.
enum News {
    /// The process serves; how that came, in words.
    Up(String),
    /// A config is about to be read.
    ReloadBegun,
    /// It was accepted or refused.
    ReloadDecided,
    /// The process is to stop.
    Stopping,
    /// How it stands; after a reload, with its number.
    Seen(Result<Box<EcosystemView>, Refusal>, Option<u64>),
}

/// Tells systemd how it goes on. Cheap to clone; does nothing where nobody asked for it.
#[derive(Clone)]
pub(crate) struct Reporter(Option<Sender<News>>);

impl Reporter {
    /// One that says nothing before it is told to.
    ///
    /// # Errors
    /// No thread to be had.
    pub(crate) fn start(
        supervisor: &Supervisor,
        place: String,
        handle: Handle,
        upgrader: Upgrader,
        clock: Arc<dyn Clock>,
    ) -> std::io::Result<Self> {
        if supervisor.0.is_none() {
            return Ok(Self(None));
        }
        let supervisor = supervisor.clone();
        let (news, inbox) = crossbeam_channel::unbounded();
        let beats = supervisor.clone();
        let pulse = supervisor.watchdog();
        let pulse = pulse.map(|silent_max| Pulse::new(Arc::clone(&clock), silent_max / BEATS, move || beats.beat()));
        let own = news.clone();
        let mut telling = Telling {
            supervisor,
            place,
            handle,
            upgrader,
            pulse,
            own,
            reloads: 0,
            is_up: false,
            is_stopping: false,
            said: String::new(),
        };
        std::thread::Builder::new().name("supervisor".to_owned()).spawn(move || telling.run(&inbox, &*clock))?;
        Ok(Self(Some(news)))
    }

    /// The process serves; how that came, in words.
    pub(crate) fn up(&self, came: &str) {
        self.tell(News::Up(came.to_owned()));
    }

    /// A config is about to be read.
    pub(crate) fn reload_begun(&self) {
        self.tell(News::ReloadBegun);
    }

    /// It was accepted or refused.
    pub(crate) fn reload_decided(&self) {
        self.tell(News::ReloadDecided);
    }

    /// The process is to stop.
    pub(crate) fn stopping(&self) {
        self.tell(News::Stopping);
    }

    fn tell(&self, news: News) {
        if let Some(inbox) = &self.0 {
            drop(inbox.send(news));
        }
    }
}

/// What the thread owns.
struct Telling {
    supervisor: Supervisor,
    /// Where the process serves, in words.
    place: String,
    handle: Handle,
    upgrader: Upgrader,
    pulse: Option<Arc<Pulse>>,
    own: Sender<News>,
    /// Reloads that have begun.
    reloads: u64,
    is_up: bool,
    is_stopping: bool,
    /// The last status.
    said: String,
}

impl Telling {
    fn run(&mut self, inbox: &Receiver<News>, clock: &dyn Clock) {
        let mut look = Due::every(LOOK_EVERY, clock.mono());
        let mut beat = self.pulse.as_ref().map(|pulse| Due::every(pulse.every(), clock.mono()));
        loop {
            let now = clock.mono();
            let left = beat.as_ref().map_or(Duration::MAX, |beat| beat.left(now)).min(look.left(now));
            match inbox.recv_timeout(left) {
                Ok(news) => {
                    if matches!(news, News::Stopping) {
                        look = Due::every(MORE_EVERY, clock.mono());
                    }
                    self.hear(news);
                }
                Err(RecvTimeoutError::Timeout) => {}
                // Not as long as this thread has a sender of its own.
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let now = clock.mono();
            if beat.as_mut().is_some_and(|beat| beat.is_due(now))
                && let Some(pulse) = &self.pulse
            {
                pulse.stand_in();
            }
            if look.is_due(now) {
                self.look(None);
            }
        }
    }

    fn hear(&mut self, news: News) {
        match news {
            News::Up(came) => {
                self.is_up = true;
                self.supervisor.send(&format!("READY=1\n{}", status(&came)));
                if let Some(pulse) = &self.pulse {
                    self.handle.beat(Arc::clone(pulse));
                }
                self.look(None);
            }
            News::ReloadBegun => {
                self.reloads += 1;
                self.supervisor.send(&format!("{}\n{}", reloading(), status("reading the config")));
                self.said.clear();
            }
            // The engine answers after it has decided: what it is asked it is asked in order.
            News::ReloadDecided => self.look(Some(self.reloads)),
            News::Stopping => {
                self.is_stopping = true;
                self.said = "stopping: what runs may finish".to_owned();
                self.supervisor.send(&format!("STOPPING=1\n{}\n{}", status(&self.said), more_time(MORE_TIME)));
                self.look(None);
            }
            News::Seen(Ok(seen), reload) => self.seen(&seen, reload),
            // The engine is gone, or cannot go on: whoever ends the process says so.
            News::Seen(Err(_), _) => {}
        }
    }

    /// Asks the engine how it stands.
    fn look(&self, reload: Option<u64>) {
        let own = self.own.clone();
        self.handle.ecosystem(Box::new(move |seen| drop(own.send(News::Seen(seen.map(Box::new), reload)))));
    }

    fn seen(&mut self, seen: &EcosystemView, reload: Option<u64>) {
        let words = words::words(&self.place, seen, &self.upgrader.view());
        // One that was overtaken by the next is over when that one is.
        let is_ready = reload == Some(self.reloads) && self.is_up && !self.is_stopping;
        let mut lines = Vec::new();
        if is_ready {
            lines.push("READY=1".to_owned());
        }
        if self.is_up && words != self.said {
            lines.push(status(&words));
            self.said = words;
        }
        if self.is_stopping {
            lines.push(more_time(MORE_TIME));
        }
        if !lines.is_empty() {
            self.supervisor.send(&lines.join("\n"));
        }
    }
}
