//! A campaign: one home, one history, many lives of the process, each ended by a fault; then all is drained and judged.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::checker::{Figures, check};
use crate::evidence;
use crate::ground::{LoopDisk, history_dir};
use crate::history::{Event, Fault, History};
use crate::process::Process;
use crate::producer::{Jobs, PRODUCERS, Shared, alive, produce, rest, watch};
use crate::roller::Roller;
use crate::service::Service;
use crate::support::wait::until;
use crate::support::{Home, LATER, SOON, tell};
use crate::wire::{get, jobs, post};
use crate::workers;

/// How a life ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ending {
    /// SIGKILL so many milliseconds after the start: while it opens the log, or soon after.
    KillOpening(u64),
    /// SIGKILL so many milliseconds after it began to serve.
    Kill(u64),
    /// SIGKILL at exactly the n-th fdatasync of a thread.
    KillAtSync(u64),
    /// The n-th fdatasync of a thread fails, and all after it.
    FailSync(u64),
    /// A stop in good order.
    Stop(u64),
    /// A stop that is cut short.
    Halt(u64),
    /// A stop that is killed so many milliseconds after it began.
    KillStopping(u64),
    /// The power is cut.
    Cut(u64),
}

/// A campaign that goes on. Dropped by a panic, its threads end with the test's process.
pub(crate) struct Campaign {
    pub(crate) home: Home,
    pub(crate) shared: Arc<Shared>,
    disk: Option<LoopDisk>,
    service: Option<Service>,
    threads: Vec<JoinHandle<()>>,
    watcher: Option<JoinHandle<()>>,
    _history_dir: tempfile::TempDir,
}

impl Campaign {
    /// Begins a campaign: the producers are there, and wait for a biotope.
    ///
    /// # Errors
    /// Why the disk cannot be had, if one of its own is asked for.
    pub(crate) fn begin(seed: u64, disk_mebibytes: Option<u64>) -> Result<Self, String> {
        let home = Home::bare();
        let disk = disk_mebibytes.map(|mebibytes| LoopDisk::mount(&home, mebibytes)).transpose()?;
        let history_dir = history_dir();
        let history = History::new(history_dir.path());
        workers::furnish(&home, history.path());
        let shared = Arc::new(Shared::new(home.port, history, Jobs::Untidy));
        Ok(Self::with(home, shared, seed, history_dir, disk, None))
    }

    /// Begins a campaign in which versions come and go; returns who changes the file.
    pub(crate) fn rolling(seed: u64, jobs: Jobs) -> (Self, Roller) {
        let home = Home::bare();
        let history_dir = history_dir();
        let history = History::new(history_dir.path());
        workers::equip(&home);
        workers::equip_with_native(&home, history.path());
        let service = Service::begin(history.path());
        let roller = Roller::begin(&home, history.path(), service.port, seed);
        let shared = Arc::new(Shared::new(home.port, history, jobs));
        (Self::with(home, shared, seed, history_dir, None, Some(service)), roller)
    }

    fn with(
        home: Home,
        shared: Arc<Shared>,
        seed: u64,
        history_dir: tempfile::TempDir,
        disk: Option<LoopDisk>,
        service: Option<Service>,
    ) -> Self {
        let threads = (0..PRODUCERS).map(|lane| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || produce(&shared, lane, seed ^ (lane as u64 + 1)))
        });
        let threads = threads.collect();
        let watcher = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || watch(&shared, seed)
        });
        Self { home, shared, disk, service, threads, watcher: Some(watcher), _history_dir: history_dir }
    }

    /// Removes or damages checkpoints, now and then, as nobody should: the log alone gives the state.
    pub(crate) fn spoil_checkpoints(&self, random: &mut fastrand::Rng) {
        for entry in std::fs::read_dir(self.home.path("data/log")).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_none_or(|extension| extension != "ckpt" && extension != "names") {
                continue;
            }
            match random.u8(..8) {
                0 | 1 => std::fs::remove_file(path).unwrap(),
                2 => {
                    let mut bytes = std::fs::read(&path).unwrap();
                    let at = random.usize(..bytes.len());
                    bytes[at] ^= 1 << random.u8(..8);
                    std::fs::write(path, bytes).unwrap();
                }
                _ => {}
            }
        }
    }

    /// One life, from its start to the end of its last child.
    pub(crate) fn live(&self, ending: Ending) {
        let history = &self.shared.history;
        let inject = match ending {
            Ending::KillAtSync(n) => Some(format!("fdatasync:signal=SIGKILL:when={n}")),
            Ending::FailSync(n) => Some(format!("fdatasync:error=EIO:when={n}+")),
            _ => None,
        };
        let mut process = Process::start(&self.home, inject.as_deref());
        if let Ending::KillOpening(ms) = ending {
            rest(ms);
            expect_alive(&mut process, ending);
            return self.gone(process, Signal::KILL, Fault::Kill);
        }
        let serves = process.is_serving();
        if serves {
            history.add(&Event::Up);
        }
        match ending {
            Ending::KillOpening(_) => {}
            Ending::KillAtSync(_) => {
                // The sync may come late: then it is killed as it stands.
                let end = crate::support::wait::now() + Duration::from_millis(500);
                until("its death at a sync", SOON, || {
                    let over = process.ended().is_some() || crate::support::wait::now() > end;
                    if over { Ok(()) } else { Err(String::new()) }
                });
                self.gone(process, Signal::KILL, Fault::Kill);
            }
            Ending::FailSync(_) => self.failed(process),
            Ending::Kill(ms) | Ending::Stop(ms) | Ending::Halt(ms) | Ending::Cut(ms) => {
                assert!(serves, "{ending:?}: ended before it served:\n{}", process.said());
                rest(ms);
                expect_alive(&mut process, ending);
                self.end(process, ending);
            }
            Ending::KillStopping(ms) => {
                assert!(serves, "{ending:?}: ended before it served:\n{}", process.said());
                process.signal(Signal::TERM);
                rest(ms);
                self.gone(process, Signal::KILL, Fault::Halt);
            }
        }
    }

    /// A life of its own in which everything that was pushed gets its answer; it is killed, too.
    pub(crate) fn catch_up(&self) {
        let process = Process::serving(&self.home);
        self.shared.history.add(&Event::Up);
        self.shared.catch_up();
        self.gone(process, Signal::KILL, Fault::Kill);
    }

    fn end(&self, process: Process<'_>, ending: Ending) {
        match ending {
            Ending::Stop(_) => {
                process.signal(Signal::TERM);
                self.stopped(process, Fault::Stop);
            }
            Ending::Halt(_) => {
                process.signal(Signal::TERM);
                process.signal(Signal::TERM);
                self.stopped(process, Fault::Halt);
            }
            Ending::Cut(_) => {
                let disk = self.disk.as_ref().unwrap();
                disk.cut(&self.shared.history);
                self.gone(process, Signal::KILL, Fault::Cut);
                disk.power_on();
            }
            _ => self.gone(process, Signal::KILL, Fault::Kill),
        }
    }

    pub(crate) fn gone(&self, process: Process<'_>, signal: Signal, by: Fault) {
        process.signal(signal);
        process.until_gone();
        self.note_end(by);
    }

    pub(crate) fn stopped(&self, process: Process<'_>, by: Fault) {
        let (status, said) = process.until_gone();
        assert_eq!(status.code(), Some(0), "{status}\n{said}");
        self.note_end(by);
    }

    fn note_end(&self, by: Fault) {
        if let Some(service) = &self.service {
            service.until_quiet();
        }
        self.shared.history.add(&Event::Gone { by });
    }

    /// A failed sync ends it by itself: with 74, and a last word that names the file and says what holds.
    fn failed(&self, process: Process<'_>) {
        let (status, said) = process.until_gone();
        self.shared.history.add(&Event::Gone { by: Fault::Disk });
        assert_eq!(status.code(), Some(74), "{status}\n{said}");
        let last = said.lines().last().unwrap_or_default();
        for word in ["Input/output error", "/data/log", "nothing more is acknowledged"] {
            // An opening that fails acknowledges nothing, and says so in its own words.
            let opening = said.contains("cannot ");
            assert!(last.contains(word) || opening, "no {word:?} in its last word: {said}");
        }
    }

    /// Ends the pushing, lets everything come to its end, and judges the history.
    pub(crate) fn judge(mut self, name: &str) -> Figures {
        let process = Process::serving(&self.home);
        self.shared.history.add(&Event::Up);
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("a producer failed");
        }
        self.drain();
        self.shared.watched.store(true, Ordering::Relaxed);
        self.watcher.take().unwrap().join().expect("the watcher failed");
        let completed = self.completed();
        self.shared.history.add(&Event::Drained { completed });
        // What is finished stays finished, and counted, over one more crash.
        self.gone(process, Signal::KILL, Fault::Kill);
        let process = Process::serving(&self.home);
        self.shared.history.add(&Event::Up);
        assert_eq!((self.lives(), self.completed()), (0, completed), "after the last crash");
        process.stop();

        let events = self.shared.history.events();
        match check(&events) {
            Ok(figures) => {
                let cleaned = self.shared.cleaned.load(Ordering::Relaxed);
                let parked = self.shared.parked.load(Ordering::Relaxed);
                tell(&format!(
                    "{name}: {figures:?}, {cleaned} segments cleaned, {parked} parked at most, {} events",
                    events.len()
                ));
                figures
            }
            Err(violations) => {
                let first: Vec<String> = violations.iter().take(20).map(ToString::to_string).collect();
                panic!("{name}: {} violations:\n{}", violations.len(), first.join("\n"));
            }
        }
    }

    /// Waits until nothing lives. The dead are decided on: what died with its hosts runs again, and so does what needs a version, if
    /// only a bad one was new enough for it; what asked for it is given up.
    pub(crate) fn drain(&self) {
        until("an empty queue", LATER, || {
            for job in jobs(self.home.port, "state=dead") {
                self.decide(&job);
            }
            match self.lives() {
                0 => Ok(()),
                some => Err(format!("{some} jobs live: {}", get(self.home.port, "/v1/ecosystem").unwrap())),
            }
        });
    }

    fn decide(&self, job: &Value) {
        let id = job["id"].as_str().unwrap().to_owned();
        let died_with_hosts = job["host_deaths"].as_u64().unwrap() >= 3;
        let on_bad = job["version"].as_str().is_some_and(|version| version.starts_with('b'));
        let none_before = on_bad && job["min_version"].is_string();
        let may_be = died_with_hosts || none_before || self.service.is_none();
        assert!(may_be, "dead, though any good version does it: {job}");
        let (event, action) = if died_with_hosts || none_before {
            (Event::Redriven { id: id.clone() }, "retry")
        } else {
            (Event::Discarded { id: id.clone() }, "discard")
        };
        self.shared.history.add(&event);
        assert_eq!(post(self.home.port, &format!("/v1/jobs/{id}/{action}")), Some(200), "{action} {job}");
    }

    fn types(&self) -> Vec<Value> {
        get(self.home.port, "/v1/ecosystem").unwrap()["types"].as_array().unwrap().clone()
    }

    pub(crate) fn lives(&self) -> u64 {
        self.types().iter().map(alive).sum()
    }

    fn completed(&self) -> u64 {
        self.types().iter().map(|of_type| of_type["completed"].as_u64().unwrap()).sum()
    }
}

impl Drop for Campaign {
    fn drop(&mut self) {
        evidence::keep(&self.home, Some(self.shared.history.path()));
    }
}

/// Whoever ends by itself before the fault has a fault of its own.
fn expect_alive(process: &mut Process<'_>, ending: Ending) {
    if let Some(status) = process.ended() {
        panic!("{ending:?}: ended by itself with {status}:\n{}", process.said());
    }
}
