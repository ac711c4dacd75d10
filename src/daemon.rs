//! `biotope run`: puts the rooms together, says what it did and where to look, and waits for the end.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, mpsc};

use tokio::sync::watch;

use crate::archive::{Archive, ArchiveOptions, History};
use crate::clock::{Clock, RealClock};
use crate::config::units;
use crate::engine::{Engine, GenerationSpec, Handle, Opened, Resolver};
use crate::exit::{Failure, IO, PERMISSION, SYSTEM, TEMPORARY};
use crate::http::{App, serve};
use crate::log::lock::{DirLock, LockError};
use crate::reload::Reloader;
use crate::signal::{self, Wish};
use crate::start::{self, Instead, Starting};
use crate::worker::native::Natives;
use crate::worker::spawner::{self, Orphans, Spawner};

/// Threads that serve HTTP.
const HTTP_THREADS: usize = 2;
/// Times that a port in use is tried again, with pauses that double from a millisecond on: a quarter of a second in all.
const BIND_TRIES: u32 = 8;

/// How a biotope ends.
enum End {
    Stopped,
    Poisoned(String),
}

/// Runs a biotope until a signal ends it, or its disk fails.
/// `strict`: only what the file says is run.
pub(crate) fn run(path: &Path, natives: &Natives, strict: bool) -> Result<(), Failure> {
    let system =
        |doing: &'static str| move |error: std::io::Error| Failure::new(SYSTEM, format!("cannot {doing}: {error}"));
    // First of all, so that no signal comes too early, and none not at all.
    spawner::block_no_signal().map_err(system("unblock signals"))?;
    let signals = signal::catch().map_err(system("catch signals"))?;
    log_to_stderr();
    let clock = RealClock::shared();
    let began = clock.mono();
    let spawner = Spawner::helper(spawner::asked_of_this_program, Orphans::Adopted);
    let natives = &natives.clone().with_spawner(spawner.clone());
    let Starting { spec, instead } = start::config(path, natives, strict)?;
    spawner.live_in(&spec.config.data_dir);
    // Before the log is opened: a biotope that nobody can reach must not take jobs up.
    let listener = listen(spec.config.listen, &spec.config.data_dir)?;
    let address = listener.local_addr().map_err(system("find out the address"))?;
    let said = Said::of(&spec, path, instead.as_ref());
    let history_dir = spec.config.history_index.then(|| spec.config.data_dir.join("history"));
    let folder = crate::generation::folder_of(path).map_err(system("find the config's folder"))?;
    let resolver = crate::generation::resolver(folder, natives.clone());
    let (handle, opened) = open(spec, resolver, instead, &clock)?;

    let archive =
        history_dir.map(|dir| Archive::start(dir, handle.reader(), Arc::clone(&clock), ArchiveOptions::default()));
    let archive = archive.transpose().map_err(system("start a thread"))?.map(Arc::new);
    if let Some(archive) = &archive {
        handle.use_history(Arc::clone(archive) as Arc<dyn History>);
    }

    let (to_main, ends) = mpsc::channel();
    let poisoned = to_main.clone();
    handle.on_poisoned(Box::new(move |why| drop(poisoned.send(End::Poisoned(why)))));
    let reloader =
        Reloader::start(path.to_path_buf(), natives.clone(), handle.clone()).map_err(system("start a thread"))?;
    watch_signals(signals, &handle, &reloader, to_main).map_err(system("start a thread"))?;

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(HTTP_THREADS)
        .thread_name("http")
        .enable_all()
        .build()
        .map_err(system("start the HTTP threads"))?;
    let (stop_serving, stopping) = watch::channel(false);
    let app = App { handle, reloader, clock: Arc::clone(&clock) };
    let listener = {
        let _inside = runtime.enter();
        tokio::net::TcpListener::from_std(listener).map_err(system("serve HTTP"))?
    };
    let serving = runtime.spawn(serve(listener, app, crate::page::routes(), stopping));
    said.tell(address, &opened, clock.mono().saturating_sub(began));

    let end = ends.recv().unwrap_or_else(|_| End::Poisoned("the engine is gone".to_owned()));
    match end {
        End::Stopped => {
            let _: Result<(), _> = stop_serving.send(true);
            drop(runtime.block_on(serving));
            runtime.shutdown_background();
            if let Some(archive) = archive {
                archive.stop();
            }
            spawner.stop();
            tell("biotope stopped; every acknowledged job is in the log");
            Ok(())
        }
        End::Poisoned(why) => {
            // Nothing is waited for: whoever still asks is not answered any more.
            runtime.shutdown_background();
            Err(Failure::new(
                IO,
                format!(
                    "{why}; nothing more is acknowledged, and what was is in the log. Mend the disk, then start again"
                ),
            ))
        }
    }
}

/// Opens the engine; where another config runs than that of the file, everyone who looks is told.
fn open(
    spec: GenerationSpec,
    resolver: Resolver,
    instead: Option<Instead>,
    clock: &Arc<dyn Clock>,
) -> Result<(Handle, Opened), Failure> {
    let opened = Engine::open_with(spec, resolver, Arc::clone(clock));
    let (handle, opened) = opened.map_err(|error| Failure::new(error.exit_code(), error.in_full()))?;
    if let Some(instead) = instead {
        handle.reload_failed(instead.error);
    }
    Ok((handle, opened))
}

fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("BIOTOPE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .with_target(false);
    // A program that embeds this may have one already.
    drop(subscriber.try_init());
}

fn listen(address: SocketAddr, data_dir: &Path) -> Result<std::net::TcpListener, Failure> {
    let listener = bind(address, data_dir)?;
    let failure = |error: std::io::Error| Failure::new(SYSTEM, format!("cannot serve {address}: {error}"));
    listener.set_nonblocking(true).map_err(failure)?;
    Ok(listener)
}

fn bind(address: SocketAddr, data_dir: &Path) -> Result<std::net::TcpListener, Failure> {
    for tried in 0.. {
        let error = match std::net::TcpListener::bind(address) {
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

fn watch_signals(
    signals: signal_hook::iterator::Signals,
    handle: &Handle,
    reloader: &Reloader,
    to_main: mpsc::Sender<End>,
) -> std::io::Result<()> {
    let (handle, reloader) = (handle.clone(), reloader.clone());
    signal::watch(signals, move |wish| match wish {
        // What became of it is told by whoever reads the file.
        Wish::Reload => reloader.reload(Box::new(|_| ())),
        Wish::Stop => {
            let stopped = to_main.clone();
            tracing::info!("stopping: running jobs may finish; a second signal cuts them off");
            handle.stop(Box::new(move |()| drop(stopped.send(End::Stopped))));
        }
    })
}

/// What is said of a config when it runs.
struct Said {
    config: String,
    /// What is wrong with the file, if it is not what runs.
    error: Option<String>,
    data_dir: String,
    pools: Vec<String>,
}

impl Said {
    fn of(spec: &GenerationSpec, path: &Path, instead: Option<&Instead>) -> Self {
        let pool = |worker: &crate::config::WorkerConfig| {
            format!("{} {} × {}", worker.worker_type, worker.version, worker.live.concurrency)
        };
        Self {
            config: match instead {
                Some(Instead { number, .. }) => format!("the last accepted config, generation {number}"),
                None => path.display().to_string(),
            },
            error: instead.map(|instead| instead.error.trim_end().to_owned()),
            data_dir: spec.config.data_dir.display().to_string(),
            pools: spec.config.workers.iter().map(pool).collect(),
        }
    }

    fn tell(&self, address: SocketAddr, opened: &Opened, took: std::time::Duration) {
        let Opened { created, live_jobs, segments, cut_bytes, unclean, .. } = opened;
        let log = if *created {
            format!("made a new log in {}", self.data_dir)
        } else {
            format!("opened the log in {}: {live_jobs} jobs in {segments} segments", self.data_dir)
        };
        if let Some(error) = &self.error {
            tell(error);
            tell("this config was not accepted; the last one that was runs instead. Mend it, then `biotope reload`");
        }
        tell(&format!("biotope {} runs {}, pid {}", env!("CARGO_PKG_VERSION"), self.config, std::process::id()));
        tell(&format!("  {log}"));
        if *unclean {
            tell("  the last process did not stop in good order; what it was working on is begun again");
        }
        if *cut_bytes > 0 {
            let bytes = units::show_size(*cut_bytes);
            tell(&format!("  cut {bytes} of an unfinished write off the log's end: nothing in them was acknowledged"));
        }
        tell(&format!("  workers: {}", self.pools.join(", ")));
        tell(&format!("  status page: http://{address}/ (ready after {} ms)", took.as_millis()));
        tell("  kill -HUP to take a changed config over, Ctrl-C or kill to stop");
    }
}

/// A line for people, on stderr: stdout is for results.
fn tell(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
}
