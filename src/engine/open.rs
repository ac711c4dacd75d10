//! Opening: takes the directory, replays the log, takes the config over, and starts the engine's thread.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crossbeam_channel::Sender;

use super::ahead::Carrier;
use super::command::Command;
use super::core::{Core, CoreParts};
use super::facts::Librarian;
use super::handle::Handle;
use super::shared::Shared;
use super::upkeep::checkpoint::Scribe;
use super::upkeep::clean::Cleaning;
use super::upkeep::gather::{Gatherer, Gathering};
use super::upkeep::scrubber::Scrubber;
use super::{GenerationSpec, Resolver};
use crate::clock::Clock;
use crate::config::{LogConfig, SyncPolicy};
use crate::job::event::{self, Event, decode_home};
use crate::job::ids::IdMaker;
use crate::job::table::{OwnedNames, Table};
use crate::log::disk::{Disk, RealDisk};
use crate::log::frame::RecordRef;
use crate::log::lock::{DirLock, LockError};
use crate::log::{LogId, LogOptions, Poisoned, Position, Reader, recovery};
use crate::pool::{About, PoolMaker, ThreadPools};
use crate::types::Seq;

/// Why no engine could be started. Nothing was changed, but for the directory itself.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory could not be taken.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The log could not be opened.
    #[error(transparent)]
    Log(#[from] recovery::OpenError),
    /// The log could not be written.
    #[error("the log cannot be written: {0}")]
    Poisoned(#[from] Poisoned),
    /// No thread, or no random number, to be had.
    #[error("cannot {doing}: {source}")]
    System {
        /// A verb phrase.
        doing: &'static str,
        /// What the operating system said.
        source: std::io::Error,
    },
}

impl OpenError {
    /// The exit code that a program gives it (sysexits).
    pub fn exit_code(&self) -> u8 {
        let io = |error: &std::io::Error, else_code| match error.kind() {
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => 77,
            _ => else_code,
        };
        match self {
            Self::Lock(LockError::Held { .. }) => 75,
            Self::Lock(LockError::Io { source, .. }) => io(source, 73),
            Self::Log(recovery::OpenError::Newer { .. }) => 76,
            Self::Log(recovery::OpenError::Io { source, .. }) => io(source, 74),
            Self::Log(_) => 65,
            Self::Poisoned(_) => 74,
            Self::System { .. } => 71,
        }
    }

    /// The error and all its causes in one line.
    pub fn in_full(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let said = error.to_string();
            if !text.contains(&said) {
                text = format!("{text}: {said}");
            }
            cause = error.source();
        }
        text
    }
}

/// What opening found.
#[derive(Debug, Clone)]
pub struct Opened {
    /// Whether the log was made just now.
    pub created: bool,
    /// Jobs that live.
    pub live_jobs: u64,
    /// Segments of the log that count.
    pub segments: u64,
    /// Bytes of a torn tail that were cut: nothing in them was ever acknowledged.
    pub cut_bytes: u64,
    /// The segment of a checkpoint that the log does not go on from: a mistake in this program or the one before. The log was
    /// read without.
    pub unfit_checkpoint: Option<u32>,
    /// Whether the last process did not stop in good order.
    pub unclean: bool,
    /// How long it took.
    pub took: Duration,
}

/// Told every so often while a log opens: how many records of it, and blocks of its picture, have been read by now.
pub type Progress = Box<dyn FnMut(u64) + Send>;
/// How often: after so many records, which take some milliseconds, and after each block.
const PROGRESS_EVERY: u64 = 4096;

/// The engine: starts, and is reached by a [`Handle`] from then on.
pub struct Engine;

impl Engine {
    /// Opens `spec.config.data_dir`, and starts. When it returns, everything that was acknowledged is there, and the
    /// engine serves; workers start meanwhile.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(spec: GenerationSpec, clock: Arc<dyn Clock>) -> Result<(Handle, Opened), OpenError> {
        Self::open_with(spec, super::no_resolver(), clock)
    }

    /// As [`Engine::open`], with a way back from the text of a config that was accepted to what it asked for.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_with(
        spec: GenerationSpec,
        resolver: Resolver,
        clock: Arc<dyn Clock>,
    ) -> Result<(Handle, Opened), OpenError> {
        let lock = DirLock::take(&spec.config.data_dir)?;
        Self::open_locked(spec, resolver, clock, lock, Box::new(|_| ()))
    }

    /// As [`Engine::open_with`], with the lock of the data directory in the caller's hand: it is given back when the engine
    /// has stopped, unless the caller holds a copy of it. `progress` hears how the opening goes on.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_locked(
        spec: GenerationSpec,
        resolver: Resolver,
        clock: Arc<dyn Clock>,
        lock: DirLock,
        progress: Progress,
    ) -> Result<(Handle, Opened), OpenError> {
        let dir = spec.config.data_dir.clone();
        let disk = open_disk(&dir.join("log"))?;
        let mut new_id: LogId = [0; 16];
        getrandom::fill(&mut new_id).map_err(|error| OpenError::System {
            doing: "draw a random number",
            source: std::io::Error::other(error.to_string()),
        })?;
        let options = LogOptions::new(spec.config.log.segment);
        let (core, handle, opened) = open_core(
            spec,
            Surroundings {
                disk,
                options,
                new_id,
                pool_maker: Box::new(ThreadPools { clock: Arc::clone(&clock) }),
                clock,
                resolver,
                cleaning: Cleaning::default(),
                threads: true,
                random: fastrand::Rng::new(),
                lock: Some(lock),
                progress,
            },
        )?;
        let shared = Arc::clone(&core.shared);
        let thread = std::thread::Builder::new().name("engine".to_owned());
        thread
            .spawn(move || serve(core, &shared))
            .map_err(|source| OpenError::System { doing: "start the engine's thread", source })?;
        Ok((handle, opened))
    }
}

/// What an engine is put into: the real thing, or a simulated one.
pub(super) struct Surroundings {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) options: LogOptions,
    /// Identity of the log, if there is none yet.
    pub(super) new_id: LogId,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) pool_maker: Box<dyn PoolMaker>,
    pub(super) resolver: Resolver,
    pub(super) cleaning: Cleaning,
    /// Whether records are read by a thread beside the engine's.
    pub(super) threads: bool,
    pub(super) random: fastrand::Rng,
    pub(super) lock: Option<DirLock>,
    pub(super) progress: Progress,
}

/// Who works beside the engine's thread: threads, or nobody, where a simulation must see none.
pub(super) struct Beside {
    pub(super) librarian: Librarian,
    pub(super) gatherer: Option<Gatherer>,
    pub(super) scribe: Scribe,
    pub(super) scrubber: Option<Scrubber>,
    pub(super) carrier: Option<Carrier>,
}

impl Beside {
    fn start(
        reader: &Reader,
        gathering: Option<Gathering>,
        engine: &Sender<Command>,
        log: &LogConfig,
        clock: &Arc<dyn Clock>,
    ) -> std::io::Result<Self> {
        let librarian = Librarian::start(reader.clone(), engine.clone())?;
        let gatherer = gathering.map(|gathering| Gatherer::start(gathering, engine.clone())).transpose()?;
        let scrub = |every| Scrubber::start(reader.clone(), Arc::clone(clock), every, log.scrub_rate);
        let scrubber = log.scrub.map(scrub).transpose()?;
        Ok(Self {
            librarian,
            gatherer,
            scribe: Scribe::start()?,
            scrubber,
            carrier: Some(Carrier::start(Arc::clone(clock))?),
        })
    }
}

/// The table that comes of what is in the log.
pub(super) struct Replayed {
    table: Option<Table>,
    progress: Progress,
    read: u64,
}

impl Replayed {
    /// Nothing yet.
    pub(super) fn nothing(progress: Progress) -> Self {
        Self { table: None, progress, read: 0 }
    }

    /// Jobs that live.
    pub(super) fn live_jobs(&self) -> u64 {
        self.table.as_ref().map_or(0, Table::live_jobs)
    }
}

impl recovery::Replay for Replayed {
    fn takes_checkpoints(&self) -> bool {
        true
    }

    fn begin(&mut self, names_id: LogId) {
        self.table = Some(Table::to_replay(names_id));
    }

    fn block(&mut self, block: &[u8]) -> Result<(), String> {
        self.read += 1;
        (self.progress)(self.read);
        self.table.as_mut().map_or(Ok(()), |table| table.load(block))
    }

    fn record(&mut self, names_id: LogId, position: Position, record: RecordRef<'_>) -> Result<(), String> {
        let event = Event::decode(record.kind, record.version, record.body).map_err(|error| error.to_string())?;
        self.read += 1;
        if self.read.is_multiple_of(PROGRESS_EVERY) {
            (self.progress)(self.read);
        }
        let table = self.table.get_or_insert_with(|| Table::to_replay(names_id));
        table.apply(record.seq, position, &event).map_err(|error| error.to_string())
    }
}

/// Replays the log and takes the config over. When it returns, that is on disk; nothing runs yet but pools.
pub(super) fn open_core(spec: GenerationSpec, around: Surroundings) -> Result<(Core, Handle, Opened), OpenError> {
    let began = around.clock.mono();
    let mut replayed = Replayed::nothing(around.progress);
    let disk = Arc::clone(&around.disk);
    let found = recovery::open(around.disk, around.options, around.new_id, &mut replayed)?;
    let ids = IdMaker::new(found.log.names_id());
    let mut table = replayed.table.unwrap_or_else(|| Table::new(found.log.names_id()));
    table.forget_below(found.log.reader().first_seq());
    let unclean = !found.created && !table.stopped_cleanly();
    let shared = Arc::new(Shared::new(found.log.reader(), ids, &spec));
    let (to_engine, inbox) = crossbeam_channel::unbounded();
    let handle = Handle::new(to_engine.clone(), Arc::clone(&shared));
    let clock = Arc::clone(&around.clock);
    let gathering = (!found.created).then(|| Gathering::new(disk, found.log.reader(), ids));
    if gathering.is_some() {
        table.gather_names();
    }
    let beside = if around.threads {
        let started = Beside::start(&found.log.reader(), gathering, &to_engine, &spec.config.log, &clock);
        started.map_err(|source| OpenError::System { doing: "start a thread", source })?
    } else {
        if let Some(gathered) = gathering.and_then(|gathering| gathering.gather(&AtomicBool::new(false))) {
            table.names_gathered(gathered);
        }
        Beside { librarian: Librarian::Inline, gatherer: None, scribe: Scribe::Inline, scrubber: None, carrier: None }
    };
    let mut core = Core::new(CoreParts {
        log: found.log,
        table,
        clock: around.clock,
        ids,
        shared,
        inbox,
        to_self: to_engine,
        config: spec.config.clone(),
        unclean,
        lock: around.lock,
        pool_maker: around.pool_maker,
        resolver: around.resolver,
        cleaning: around.cleaning,
        beside,
        random: around.random,
    });
    core.begin(spec)?;
    let opened = Opened {
        created: found.created,
        live_jobs: core.table.live_jobs(),
        segments: u64::from(found.segments),
        cut_bytes: found.cut_bytes,
        unfit_checkpoint: found.unfit_checkpoint,
        unclean,
        took: clock.mono().saturating_sub(began),
    };
    Ok((core, handle, opened))
}

fn open_disk(dir: &Path) -> Result<Arc<dyn Disk>, OpenError> {
    match RealDisk::open(dir) {
        Ok(disk) => Ok(Arc::new(disk)),
        Err(source) => {
            let path: PathBuf = dir.to_path_buf();
            Err(OpenError::Lock(LockError::Io { doing: "create the log's directory", path, source }))
        }
    }
}

/// The engine's thread. However it ends but by a stop, those who watch are told: a process without its engine must end.
pub(super) fn serve(core: Core, shared: &Shared) {
    /// Speaks up when the thread panics.
    struct Alarm<'a>(&'a Shared);
    impl Drop for Alarm<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                self.0.set_poisoned("the engine failed by a bug; what was acknowledged is on disk");
            }
        }
    }
    let alarm = Alarm(shared);
    if let Err(poisoned) = core.run() {
        shared.set_poisoned(&poisoned.to_string());
    }
    drop(alarm);
}

impl Core {
    /// The first records of an opening: what died with the last process, the epoch, and what the config changes.
    fn begin(&mut self, spec: GenerationSpec) -> Result<(), Poisoned> {
        self.tick();
        let dying = self.table.dying();
        if !dying.is_empty() {
            // The segment may have been begun without it (below), and a replay that begins with it must know the types of summaries.
            self.ensure_context()?;
        }
        // Each death is one group with its summary. The epoch's record would kill these jobs, too, and may be on disk long before a
        // summary that follows it.
        for born in dying {
            let about = self.about(born);
            self.died_with_host(born, about.as_ref())?;
        }
        self.record(&Event::Opened(event::Opened { epoch: self.log.epoch(), at: self.now }))?;
        // The segment may have been begun without it, if the process ended right then.
        self.ensure_context()?;
        let before = self.config_before(&spec);
        self.accept(spec, before)?;
        // Where nothing of it is left to happen, nothing else would say so.
        self.settle()?;
        self.commit()?;
        // Whatever `log.sync` says: an epoch that a power cut takes back would come again, and fences with it.
        if matches!(self.config.log.sync, SyncPolicy::Always) { Ok(()) } else { self.sync() }
    }

    /// What a job says of itself, from the log: only while nothing is served yet.
    fn about(&self, born: Seq) -> Option<About> {
        let home = self.table.noted(born)?.home;
        let read = || self.log.reader().read(home.position(), home.seq);
        // What the system could not read now it may read a moment later: the job's own name hangs on it.
        let body = read().or_else(|_| read()).ok()?;
        let kind = if home.seq == born { event::Kind::Enqueued } else { event::Kind::Restated };
        let (meta, _) = decode_home(kind as u8, &body).ok()?;
        let names = meta.names.as_ref().map(OwnedNames::from);
        Some(About { task: meta.task.to_owned(), tenant: meta.tenant.map(str::to_owned), names, trace: meta.trace })
    }
}
