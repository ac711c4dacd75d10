//! `biotope run`: puts the rooms together, says what it did and where to look, and waits for the end, or hands everything over
//! to the next image of the program.

mod said;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::sync::watch;

use crate::archive::{Archive, ArchiveOptions, History};
use crate::blocking;
use crate::clock::{Clock, RealClock};
use crate::config::Config;
use crate::engine::{Engine, GenerationSpec, Handle, OpenError, Opened};
use crate::exit::{CONFIG, Failure, IO, PERMISSION, SYSTEM, TEMPORARY};
use crate::http::{App, Buffers, Doors, Events, Guard, serve};
use crate::log::lock::{DirLock, LockError};
use crate::logfile::{self, LogFile, tell};
use crate::reload::{Reloader, Stage};
use crate::rights::{self, OpenFiles};
use crate::signal::{self, Wish};
use crate::start::{self, Starting};
use crate::systemd::{Reporter, Sockets, Supervisor};
use crate::takeover::{Arrival, Checked, Connection, Handing, Upgrader};
use crate::worker::native::Natives;
use crate::worker::spawner::{self, Orphans, Spawner};

/// Threads that serve HTTP.
const HTTP_THREADS: usize = 2;
/// Threads that read the log for those who ask by HTTP; others wait.
const READERS_MAX: usize = 16;
/// Times that a port in use is tried again, with pauses that double from a millisecond on: a quarter of a second in all.
const BIND_TRIES: u32 = 8;
/// The last words.
const STOPPED: &str = "biotope stopped; every acknowledged job is in the log";

/// What the main thread is told.
enum Event {
    /// A stop is through.
    Stopped,
    /// The log is poisoned.
    Poisoned(String),
    /// A file was checked, and may take this program's place.
    Upgrade(Checked),
    /// Nothing runs any more, and another image may go on.
    Idle,
}

/// All that runs, and what its end needs.
struct Running {
    handle: Handle,
    archive: Option<Arc<Archive>>,
    spawner: Spawner,
    runtime: tokio::runtime::Runtime,
    doors: watch::Sender<Doors>,
    serving: tokio::task::JoinHandle<Vec<Connection>>,
    upgrader: Upgrader,
    signals: signal::Watch,
    /// Whether somebody asked for a stop. Written by the thread that takes signals, read by the main one after that thread has ended.
    stop_asked: Arc<AtomicBool>,
    /// Copies of what the next image of the program gets.
    listener: TcpListener,
    lock: DirLock,
    /// How long the start took.
    start_took: Duration,
    to_main: mpsc::Sender<Event>,
    events: mpsc::Receiver<Event>,
    supervisor: Supervisor,
}

fn system(doing: &'static str) -> impl Fn(std::io::Error) -> Failure {
    move |error| Failure::new(SYSTEM, format!("cannot {doing}: {error}"))
}

/// What this image of the program was given to begin with.
pub(crate) struct Given {
    /// What an earlier one in this process has left.
    pub(crate) arrival: Option<Arrival>,
    /// What systemd has handed over.
    pub(crate) sockets: Sockets,
}

/// Runs a biotope until a signal ends it, or its disk fails; `strict`: only what the file says is run.
pub(crate) fn run(path: &Path, natives: &Natives, strict: bool, given: Given) -> Result<(), Failure> {
    // First of all, so that no signal comes too early, and none not at all.
    let signals = signal::catch().map_err(system("catch signals"))?;
    logfile::start();
    let supervisor = Supervisor::of_environment();
    let is_first = given.arrival.is_none();
    if !is_first {
        spawner::reap_what_was_left();
    }
    let running = set_up(path, natives, strict, given, signals, &supervisor).inspect_err(|failure| {
        // Else the image before goes on.
        if is_first {
            supervisor.says(&format!("did not start: {}", failure.message));
        }
    });
    running?.until_end()
}

/// The config to start with: that of the file, unless another image was here before.
fn starting(path: &Path, natives: &Natives, strict: bool, arrival: Option<&Arrival>) -> Result<Starting, Failure> {
    let fits = |config: &Config| arrival.is_none_or(|arrival| arrival.fits(config));
    let starting = match arrival {
        // With what ran, whatever has become of the file.
        Some(arrival) if arrival.is_back() => start::as_before(path, natives, arrival.data_dir(), fits),
        _ => start::config(path, natives, strict),
    }?;
    if !fits(&starting.spec.config) {
        return Err(Failure::new(CONFIG, "`data_dir` or `http.listen` of the config was changed since it was checked"));
    }
    Ok(starting)
}

fn set_up(
    path: &Path,
    natives: &Natives,
    strict: bool,
    Given { mut arrival, sockets }: Given,
    signals: signal_hook::iterator::Signals,
    supervisor: &Supervisor,
) -> Result<Running, Failure> {
    let clock = RealClock::shared();
    let began = clock.mono();
    let spawner = Spawner::helper(spawner::asked_of_this_program, Orphans::Adopted);
    let natives = &natives.clone().with_spawner(spawner.clone());
    let Starting { spec, instead } = starting(path, natives, strict, arrival.as_ref())?;
    let open_files = rights::take_descriptors(arrival.as_ref().and_then(Arrival::open_files));
    obey(&spec.config, open_files);
    let data_dir = spec.config.data_dir.clone();
    spawner.live_in(&data_dir);
    // Before the log is opened: a biotope that nobody can reach must not take jobs up.
    let listener = listen(spec.config.listen, &data_dir, arrival.as_mut(), sockets)?;
    let address = listener.local_addr().map_err(system("find out the address"))?;
    let (runtime, to_serve) = ready_to_serve(&listener)?;
    let said = said::Said::of(&spec, path, instead.as_ref());
    let (to_main, events) = mpsc::channel();
    let go = to_main.clone();
    let go = Box::new(move |checked| drop(go.send(Event::Upgrade(checked))));
    let upgrader = Upgrader::new(path, &data_dir, spec.config.listen, arrival.as_ref(), go);
    let history_dir = spec.config.history_index.then(|| data_dir.join("history"));
    let (lock, handle, opened) = open_engine(path, natives, spec, &clock, arrival.as_mut(), supervisor)?;
    if let Some(instead) = instead {
        // Everyone who looks is told that another config runs than that of the file.
        handle.reload_failed(instead.error);
    }
    #[cfg(debug_assertions)]
    crate::takeover::passes("opened", arrival.as_ref())?;

    let archive = start_archive(history_dir, &handle, &clock)?;
    let poisoned = to_main.clone();
    handle.on_poisoned(Box::new(move |why| drop(poisoned.send(Event::Poisoned(why)))));
    let place = format!("{}://{address}/", said.scheme);
    let reporter = Reporter::start(supervisor, place, handle.clone(), upgrader.clone(), Arc::clone(&clock));
    let reporter = reporter.map_err(system("start a thread"))?;
    let reloader = start_reloader(path, natives, &handle, open_files, &reporter)?;
    let (doors, are_open) = watch::channel(Doors::Open);
    let app = App {
        handle: handle.clone(),
        reloader: reloader.clone(),
        upgrader: upgrader.clone(),
        buffers: Buffers::new(handle.clone()),
        guard: Guard::new(&clock),
        events: Events::new(are_open.clone()),
        clock: Arc::clone(&clock),
    };
    let stop_asked = Arc::new(AtomicBool::new(false));
    let (upgrades, to_stop) = (upgrader.clone(), to_main.clone());
    let told =
        Told { handle: handle.clone(), reloader, upgrader: upgrades, reporter: reporter.clone(), to_main: to_stop };
    let signals = watch_signals(signals, told, Arc::clone(&stop_asked)).map_err(system("start a thread"))?;
    let start_took = clock.mono().saturating_sub(began);
    let (came, connections) = upgrader.settled(arrival);
    // Before anybody can be told that it is ready: who was, finds the log saying so.
    said.tell(address, &opened, start_took, came.as_deref());
    let serving = runtime.spawn(serve(to_serve, connections, app, crate::page::routes(), are_open));
    reporter.up(&came.unwrap_or_else(|| format!("serves {}://{address}/", said.scheme)));
    Ok(Running {
        handle,
        archive,
        spawner,
        runtime,
        doors,
        serving,
        upgrader,
        signals,
        stop_asked,
        listener,
        lock,
        start_took,
        to_main,
        events,
        supervisor: supervisor.clone(),
    })
}

impl Running {
    /// Waits for the end, or for what another image of the program makes of it.
    fn until_end(self) -> Result<(), Failure> {
        let mut handing = None;
        loop {
            match self.event() {
                Event::Stopped => return self.stopped(),
                Event::Poisoned(why) => return Err(self.poisoned(&why)),
                Event::Upgrade(checked) => {
                    let to = checked.version.clone();
                    match self.upgrader.prepare(checked, &self.listener, &self.lock, self.start_took) {
                        Ok(ready) => handing = Some(ready),
                        Err(error) => {
                            self.upgrader.failed(format!("what it needs cannot be had: {error}"));
                            continue;
                        }
                    }
                    let idle = self.to_main.clone();
                    self.handle.hand_over(Box::new(move |()| drop(idle.send(Event::Idle))));
                    // Whoever sees it drain finds that nothing new begins.
                    self.upgrader.drains(to);
                }
                Event::Idle => {
                    if let Some(handing) = handing.take() {
                        return self.hand_over(handing);
                    }
                }
            }
        }
    }

    fn event(&self) -> Event {
        self.events.recv().unwrap_or_else(|_| Event::Poisoned("the engine is gone".to_owned()))
    }

    /// The engine has stopped: everything else does.
    fn stopped(self) -> Result<(), Failure> {
        let _: Result<(), _> = self.doors.send(Doors::Closed);
        drop(self.runtime.block_on(self.serving));
        self.runtime.shutdown_background();
        if let Some(archive) = self.archive {
            archive.stop();
        }
        self.spawner.stop();
        tell(STOPPED);
        self.supervisor.says(STOPPED);
        Ok(())
    }

    fn poisoned(self, why: &str) -> Failure {
        self.supervisor.ends(why);
        // Nothing is waited for: whoever still asks is not answered any more.
        self.runtime.shutdown_background();
        let remedy = "nothing more is acknowledged, and what was is in the log. Mend the disk, then start again";
        Failure::new(IO, format!("{why}; {remedy}"))
    }

    /// Nothing runs any more: the rest ends, and another image of the program goes on in this process. Returns if a stop was
    /// asked for meanwhile, or if that cannot be.
    fn hand_over(mut self, mut handing: Handing) -> Result<(), Failure> {
        self.supervisor.hands_over(handing.within());
        // Nobody needs it any more, and it may take a moment.
        self.spawner.stop();
        handing.silent_from_now();
        tracing::info!("nothing runs any more: the new file takes over");
        let _: Result<(), _> = self.doors.send(Doors::HandedOver);
        handing.take_along(self.runtime.block_on(&mut self.serving).unwrap_or_default());
        let stopped = self.to_main.clone();
        self.handle.stop(Box::new(move |()| drop(stopped.send(Event::Stopped))));
        loop {
            match self.event() {
                Event::Stopped => break,
                Event::Poisoned(why) => return Err(self.poisoned(&why)),
                Event::Upgrade(_) | Event::Idle => {}
            }
        }
        if let Some(archive) = &self.archive {
            archive.stop();
        }
        self.signals.end();
        if self.stop_asked.load(Ordering::Acquire) {
            tell(STOPPED);
            self.supervisor.says(STOPPED);
            return Ok(());
        }
        Err(handing.go())
    }
}

fn start_reloader(
    path: &Path,
    natives: &Natives,
    handle: &Handle,
    open_files: OpenFiles,
    reporter: &Reporter,
) -> Result<Reloader, Failure> {
    let reporter = reporter.clone();
    let told = move |stage: Stage<'_>| match stage {
        Stage::Begun => reporter.reload_begun(),
        Stage::Passed(config) => obey(config, open_files),
        Stage::Decided => reporter.reload_decided(),
    };
    Reloader::start(path.to_path_buf(), natives.clone(), handle.clone(), told).map_err(system("start a thread"))
}

/// Does what a config says of this process itself.
fn obey(config: &Config, open_files: OpenFiles) {
    logfile::use_config(config.log_output);
    rights::guard_memory(config.core_dumps);
    open_files.check(config);
}

/// Opens the log, and starts the engine on it; with the lock that both hold.
fn open_engine(
    path: &Path,
    natives: &Natives,
    spec: GenerationSpec,
    clock: &Arc<dyn Clock>,
    arrival: Option<&mut Arrival>,
    supervisor: &Supervisor,
) -> Result<(DirLock, Handle, Opened), Failure> {
    let failure = |error: OpenError| Failure::new(error.exit_code(), error.in_full());
    let folder = crate::generation::folder_of(path).map_err(system("find the config's folder"))?;
    let resolver = crate::generation::resolver(folder, natives.clone());
    let data_dir = &spec.config.data_dir;
    let lock = match arrival.and_then(Arrival::lock) {
        Some(left) => DirLock::inherit(data_dir, left),
        None => DirLock::take(data_dir),
    };
    let lock = lock.map_err(|error| failure(error.into()))?;
    let to_engine = lock.copy().map_err(system("keep the lock of the data directory"))?;
    supervisor.opening("opening the log");
    let opened = Engine::open_locked(spec, resolver, Arc::clone(clock), to_engine, supervisor.progress());
    let (handle, opened) = opened.map_err(failure)?;
    Ok((lock, handle, opened))
}

/// Starts the index of what has ended, if there is to be one.
fn start_archive(
    dir: Option<PathBuf>,
    handle: &Handle,
    clock: &Arc<dyn Clock>,
) -> Result<Option<Arc<Archive>>, Failure> {
    let Some(dir) = dir else { return Ok(None) };
    let archive = Archive::start(dir, handle.reader(), Arc::clone(clock), ArchiveOptions::default());
    let archive = Arc::new(archive.map_err(system("start a thread"))?);
    handle.use_history(Arc::clone(&archive) as Arc<dyn History>);
    Ok(Some(archive))
}

/// Threads for HTTP, and a copy of the listener for them.
fn ready_to_serve(listener: &TcpListener) -> Result<(tokio::runtime::Runtime, tokio::net::TcpListener), Failure> {
    let mut threads = tokio::runtime::Builder::new_multi_thread();
    threads.worker_threads(HTTP_THREADS).thread_name("http").enable_all();
    let runtime =
        blocking::with_a_thread(&mut threads, HTTP_THREADS, READERS_MAX).map_err(system("start the HTTP threads"))?;
    let to_serve = {
        let _inside = runtime.enter();
        listener.try_clone().and_then(tokio::net::TcpListener::from_std)
    };
    Ok((runtime, to_serve.map_err(system("serve HTTP"))?))
}

fn listen(
    address: SocketAddr,
    data_dir: &Path,
    arrival: Option<&mut Arrival>,
    sockets: Sockets,
) -> Result<TcpListener, Failure> {
    let left = arrival.and_then(|arrival| arrival.listener(address));
    let listener = match left.map_or_else(|| sockets.listener(address), |left| Ok(Some(left)))? {
        Some(listener) => listener,
        None => bind(address, data_dir)?,
    };
    let failure = |error: std::io::Error| Failure::new(SYSTEM, format!("cannot serve {address}: {error}"));
    listener.set_nonblocking(true).map_err(failure)?;
    Ok(listener)
}

fn bind(address: SocketAddr, data_dir: &Path) -> Result<TcpListener, Failure> {
    for tried in 0.. {
        let error = match TcpListener::bind(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => error,
        };
        match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                // The same config a second time, most often: then the directory is the better word.
                if data_dir.is_dir()
                    && let Err(held @ LockError::Held { .. }) = DirLock::take(data_dir)
                {
                    return Err(Failure::new(TEMPORARY, held.to_string()));
                }
                if tried == BIND_TRIES || !data_dir.is_dir() {
                    let message =
                        format!("{address} is in use; stop what serves there, or choose another `http.listen`");
                    return Err(Failure::new(TEMPORARY, message));
                }
                // Nobody has the directory: a child of a killed process, caught between fork and exec, may have the port.
                let pause = rustix::thread::Timespec { tv_sec: 0, tv_nsec: 1_000_000 << tried };
                let _ = rustix::thread::nanosleep(&pause);
            }
            std::io::ErrorKind::PermissionDenied => {
                let message = format!("{address} may not be served: {error}; choose a port above 1023");
                return Err(Failure::new(PERMISSION, message));
            }
            _ => return Err(Failure::new(SYSTEM, format!("cannot serve {address}: {error}"))),
        }
    }
    unreachable!("the last try returns")
}

/// Who is told of signals.
struct Told {
    handle: Handle,
    reloader: Reloader,
    upgrader: Upgrader,
    reporter: Reporter,
    to_main: mpsc::Sender<Event>,
}

fn watch_signals(
    signals: signal_hook::iterator::Signals,
    told: Told,
    stop_asked: Arc<AtomicBool>,
) -> std::io::Result<signal::Watch> {
    let log = LogFile::of_stderr();
    signal::watch(signals, move |wish| match wish {
        Wish::ReopenLog => log.reopen(),
        // What became of it is told by whoever reads the file.
        Wish::Reload => told.reloader.reload(Box::new(|_| ())),
        // And this by whoever asks the new one.
        Wish::Upgrade => told.upgrader.upgrade(Box::new(|_| ())),
        Wish::Stop => {
            let stopped = told.to_main.clone();
            tracing::info!("stopping: running jobs may finish; a second signal cuts them off");
            stop_asked.store(true, Ordering::Release);
            told.reporter.stopping();
            told.handle.stop(Box::new(move |()| drop(stopped.send(Event::Stopped))));
        }
    })
}
