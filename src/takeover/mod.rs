//! Replacing the program of a running biotope by the file that lies where it was started from: in the same process, with the
//! same sockets, so that neither who watches the process nor who connects to it notices.
//!
//! Owns the way there and back: whether the new file can take over ([`check`]), what is handed to it ([`table`]), and how
//! one image takes another one's place ([`image`]). Never touches the engine or HTTP: who owns those ends them in between.
//!
//! ```text
//! serving ─ USR2 ─► checking: the new file looks at config and log, and changes nothing
//!    ▲                 │ it cannot: why is shown
//!    ├─────────────────┘
//!    │              draining: jobs are taken in; what runs may finish, then is cut off, uncharged
//!    │              silent: open requests end, new connections wait in the sockets' queues; the log is sealed
//!    │              exec: lock, sockets, and the image before; every signal waits
//!    │                 │
//!    │                 ├─ ready: it stays
//!    └─────────────────┴─ an error, a panic, an exit, a deadly signal, too late: exec of the image before
//! ```
//!
//! Promise: until the new image is ready, it writes nothing that the one before cannot read (`log_formats` of the check), and
//! whatever goes wrong with it, the one before goes on in the same process. What no process survives, such as SIGKILL, is a
//! crash, and the next start is of the new file.

mod check;
mod environment;
#[cfg(debug_assertions)]
mod ill;
mod image;
mod table;

use std::ffi::OsString;
use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags};

pub(crate) use check::{Checked, Place, answer};
pub(crate) use image::{adopt, block_only};
pub(crate) use table::Arrival;
pub use table::Connection;

use crate::clock::{Clock, RealClock};
use crate::engine::handle::Then;
use crate::engine::view::BinaryView;
use crate::exit::{Failure, SYSTEM};
use crate::log::FORMAT;
use crate::log::lock::DirLock;
use crate::refusal::Refusal;
use crate::types::UnixMs;
use image::Words;
use table::{Left, Listener, Table};

/// How long a new image may take to come up, at least.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// And at least so many times as long as the image before took: a large log takes its time.
const READY_TIMES: u32 = 3;
/// The version of this program.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Takes over what an image before this one left, if one did; the first act of a program. From then on, until
/// [`Upgrader::settled`], everything that ends this image brings that one back.
///
/// # Errors
/// What was left cannot be taken over.
pub(crate) fn arrive() -> Result<Option<Arrival>, Failure> {
    let failure = |error| Failure::new(SYSTEM, format!("cannot take over from the program before: {error}"));
    let arrival = table::arrive().map_err(failure)?;
    #[cfg(debug_assertions)]
    passes("arrived", arrival.as_ref())?;
    if arrival.is_some() {
        // Some kernels call a process after the number of its image's descriptor.
        let name = std::env::args_os().next().map(PathBuf::from);
        let name = name.as_deref().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or("biotope");
        let name: String = name.chars().take(15).filter(char::is_ascii).collect();
        drop(std::ffi::CString::new(name).map(|name| rustix::thread::set_name(&name)));
    }
    Ok(arrival)
}

/// A place of a start where a test may have it go wrong.
///
/// # Errors
/// As the test asks.
#[cfg(debug_assertions)]
pub(crate) fn passes(place: &str, arrival: Option<&Arrival>) -> Result<(), Failure> {
    ill::goes_ill(place, arrival).map_err(|why| Failure::new(crate::exit::BUG, why))
}

/// Brings the image before this one back, if this one is not settled. Returns if it is, or if there is none.
pub(crate) fn retreat(why: &str) {
    image::bring_back(why.as_bytes());
}

/// The path that the program was started from, whatever lies there by now.
fn program() -> PathBuf {
    let exe = crate::own::path().unwrap_or_default();
    let identity = |path: &Path| std::fs::metadata(path).map(|of| (of.dev(), of.ino())).ok();
    let is_this = |path: &PathBuf| identity(path).is_some_and(|it| identity(&exe) == Some(it));
    let name = PathBuf::from(std::env::args_os().next().unwrap_or_default());
    let named = if name.as_os_str().as_encoded_bytes().contains(&b'/') {
        std::path::absolute(&name).into_iter().find(is_this)
    } else {
        let dirs = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&dirs).map(|dir| dir.join(&name)).find(is_this)
    };
    named.or_else(|| std::env::current_exe().ok()).or_else(|| crate::own::path().ok()).unwrap_or(name)
}

/// What an attempt leads to, if all goes well.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Underway {
    /// Its number.
    pub attempt: u64,
    /// The version that runs.
    pub from: &'static str,
    /// The version that takes over.
    pub to: String,
}

type Waiter = Then<Result<Underway, Refusal>>;

/// Asks for the binary to be replaced, and knows how that stands. Cheap to clone.
#[derive(Clone)]
pub struct Upgrader(Arc<Inner>);

struct Inner {
    place: Place,
    go: Box<dyn Fn(Checked) + Send + Sync>,
    state: Mutex<State>,
}

enum Stage {
    Serving,
    Checking(Vec<Waiter>),
    Draining(Underway),
}

struct State {
    stage: Stage,
    attempts: u64,
    replaced: u64,
    last_error: Option<(String, UnixMs)>,
}

/// Everything that the next image needs, made ready while this one still serves.
pub(crate) struct Handing {
    file: File,
    image: OwnedFd,
    listener: TcpListener,
    lock: DirLock,
    table_fd: File,
    why: OwnedFd,
    /// Those that are left, from when nobody is served any more.
    connections: Vec<TcpStream>,
    table: Table,
    forth: Words,
    back: Words,
}

impl Upgrader {
    /// An upgrader for a program that was started from this config; `go` is given a file that can take over.
    pub(crate) fn new(
        config: &Path,
        data_dir: &Path,
        listen: SocketAddr,
        arrival: Option<&Arrival>,
        go: Box<dyn Fn(Checked) + Send + Sync>,
    ) -> Self {
        let program = match arrival {
            // The image before has found it out, and says it so.
            Some(_) => std::env::args_os().next().map_or_else(program, PathBuf::from),
            None => program(),
        };
        let place = Place { program, config: config.to_path_buf(), data_dir: data_dir.to_path_buf(), listen };
        let (attempts, replaced) = arrival.map_or((0, 0), |arrival| (arrival.table.attempt, arrival.table.replaced));
        let back = arrival.and_then(|arrival| arrival.back.clone());
        let replaced = replaced + u64::from(arrival.is_some() && back.is_none());
        let last_error = back.map(|why| (why, RealClock.wall_ms()));
        let state = Mutex::new(State { stage: Stage::Serving, attempts, replaced, last_error });
        Self(Arc::new(Inner { place, go, state }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that panics is done under it.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the new file asked whether it can take over; `then` is told, and if it can, it does, once what runs has ended.
    /// Who asks while that is going on joins in.
    pub(crate) fn upgrade(&self, then: Waiter) {
        let mut state = self.state();
        match &mut state.stage {
            Stage::Checking(waiters) => return waiters.push(then),
            Stage::Draining(underway) => {
                let underway = underway.clone();
                drop(state);
                return then(Ok(underway));
            }
            Stage::Serving => {}
        }
        state.stage = Stage::Checking(vec![then]);
        state.attempts += 1;
        state.last_error = None;
        drop(state);
        tracing::info!(file = %self.0.place.program.display(), "asking the new file whether it can take over");
        let own = self.clone();
        let check = move || match check::ask(&own.0.place) {
            Ok(checked) => own.goes(checked),
            Err(refusal) => own.refused(refusal),
        };
        if let Err(error) = std::thread::Builder::new().name("upgrade".to_owned()).spawn(check) {
            self.failed(format!("no thread to ask the new file: {error}"));
        }
    }

    fn goes(&self, checked: Checked) {
        tracing::info!(version = checked.version, "the new file can take over, and does when what runs has ended");
        (self.0.go)(checked);
    }

    /// Notes that the engine has been told to begin nothing more, since version `to` takes over.
    pub(crate) fn drains(&self, to: String) {
        let mut state = self.state();
        let underway = Underway { attempt: state.attempts, from: VERSION, to };
        let before = std::mem::replace(&mut state.stage, Stage::Draining(underway.clone()));
        drop(state);
        if let Stage::Checking(waiters) = before {
            waiters.into_iter().for_each(|waiter| waiter(Ok(underway.clone())));
        }
    }

    /// Notes that the attempt came to nothing: this image goes on.
    pub(crate) fn failed(&self, why: String) {
        self.refused(Refusal::UpgradeRefused { detail: why });
    }

    fn refused(&self, refusal: Refusal) {
        tracing::error!("the binary was not replaced, this one goes on: {refusal}");
        let mut state = self.state();
        state.last_error = Some((refusal.to_string(), RealClock.wall_ms()));
        let before = std::mem::replace(&mut state.stage, Stage::Serving);
        drop(state);
        if let Stage::Checking(waiters) = before {
            waiters.into_iter().for_each(|waiter| waiter(Err(refusal.clone())));
        }
    }

    /// How it stands.
    pub fn view(&self) -> BinaryView {
        let state = self.state();
        BinaryView {
            version: VERSION,
            file_id: std::fs::metadata("/proc/self/exe").ok().map(|file| format!("{}:{}", file.dev(), file.ino())),
            state: match &state.stage {
                Stage::Serving => "serving",
                Stage::Checking(_) => "checking",
                Stage::Draining(_) => "draining",
            },
            attempts: state.attempts,
            replaced: state.replaced,
            last_error: state.last_error.as_ref().map(|(why, _)| why.clone()),
            last_error_at_ms: state.last_error.as_ref().map(|(_, at)| *at),
        }
    }

    /// This image serves: it stays. How it came to be there, in words, and the connections that it goes on with; nothing for
    /// the first one of a process.
    pub(crate) fn settled(&self, arrival: Option<Arrival>) -> (Option<String>, Vec<Connection>) {
        let Some(mut arrival) = arrival else { return (None, Vec::new()) };
        let connections = arrival.settle();
        let table = &arrival.table;
        let silent = RealClock.mono().saturating_sub(Duration::from_micros(table.silent_since_us));
        let ms = silent.as_millis();
        let words = match &arrival.back {
            None => format!(
                "took over from biotope {} in the same process; nobody was answered for {ms} ms, nobody was refused",
                table.version
            ),
            Some(why) => {
                tracing::error!("the binary was not replaced, this one is back: {why}");
                format!("is back after {ms} ms: the new file did not come up: {why}")
            }
        };
        (Some(words), connections)
    }

    /// Makes everything ready that a checked file needs to take over.
    ///
    /// # Errors
    /// No descriptor or memory to be had.
    pub(crate) fn prepare(
        &self,
        checked: Checked,
        listener: &TcpListener,
        lock: &DirLock,
        own_start: Duration,
    ) -> std::io::Result<Handing> {
        let (listener, lock) = (listener.try_clone()?, lock.copy()?);
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let image = rustix::fs::open(crate::own::path()?, flags, Mode::empty())?;
        let (table_fd, why) = (table::in_memory("takeover", &[])?, table::in_memory("why", &[])?);
        let state = self.state();
        let ready = READY_WITHIN.max(own_start * READY_TIMES);
        #[cfg(debug_assertions)]
        let ready = ill::patience().unwrap_or(ready);
        let serves = "http".to_owned();
        let table = Table {
            connections: Vec::new(),
            listeners: vec![Listener { serves, address: self.0.place.listen, fd: listener.as_raw_fd() }],
            data_dir: self.0.place.data_dir.clone(),
            lock: lock.as_fd().as_raw_fd(),
            image: image.as_raw_fd(),
            why: why.as_raw_fd(),
            ready_ms: u64::try_from(ready.as_millis()).unwrap_or(u64::MAX),
            log_format: FORMAT,
            attempt: state.attempts,
            replaced: state.replaced,
            version: VERSION.to_owned(),
            silent_since_us: 0,
            open_files: crate::worker::confined::open_files_of_children(),
        };
        drop(state);
        let own = std::env::args_os().skip(1);
        let args: Vec<OsString> = std::iter::once(self.0.place.program.clone().into()).chain(own).collect();
        let words = |back| table::words(&args, &table::environment(table_fd.as_raw_fd(), back));
        let (forth, back) = (words(false)?, words(true)?);
        let (file, table_fd, connections) = (checked.file, table_fd.into(), Vec::new());
        let mut handing = Handing { file, image, listener, lock, table_fd, why, connections, table, forth, back };
        handing.silent_from_now();
        handing.write()?;
        Ok(handing)
    }
}

impl Handing {
    /// How long the new image may take to come up.
    pub(crate) fn within(&self) -> Duration {
        Duration::from_millis(self.table.ready_ms)
    }

    /// Notes since when nobody is answered.
    pub(crate) fn silent_from_now(&mut self) {
        self.table.silent_since_us = u64::try_from(RealClock.mono().as_micros()).unwrap_or(u64::MAX);
    }

    /// Takes connections along.
    pub(crate) fn take_along(&mut self, connections: Vec<Connection>) {
        for Connection { stream, ahead } in connections {
            self.table.connections.push(Left { fd: stream.as_raw_fd(), ahead: BASE64.encode(&ahead) });
            self.connections.push(stream);
        }
    }

    fn write(&self) -> std::io::Result<()> {
        use std::os::unix::fs::FileExt;
        let mut text = serde_json::to_vec(&self.table)?;
        // Blanks over what an earlier, longer text may have left.
        let length = usize::try_from(self.table_fd.metadata()?.len()).unwrap_or(0);
        text.resize(text.len().max(length), b' ');
        self.table_fd.write_all_at(&text, 0)
    }

    /// Puts the new image in the place of this one. Returns only if neither that nor this one's own can be started.
    pub(crate) fn go(mut self) -> Failure {
        if self.write().is_err() {
            // No memory for what is left of connections: they close, and their other ends connect again.
            self.connections.clear();
            self.table.connections.clear();
            if let Err(error) = self.write() {
                return Failure::new(SYSTEM, format!("cannot write down what the new image needs: {error}"));
            }
        }
        let own =
            [self.listener.as_raw_fd(), self.lock.as_fd().as_raw_fd(), self.table_fd.as_raw_fd(), self.why.as_raw_fd()];
        let left: Vec<_> = self.connections.iter().map(AsRawFd::as_raw_fd).chain(own).collect();
        let forth: Vec<_> = left.iter().copied().chain([self.image.as_raw_fd()]).collect();
        let errno = image::become_image(self.file.as_raw_fd(), &forth, &self.forth);
        let reason = format!("it cannot be executed: {errno}");
        let _: Result<usize, _> = rustix::io::pwrite(&self.why, reason.as_bytes(), 0);
        let again = image::become_image(self.image.as_raw_fd(), &left, &self.back);
        Failure::new(SYSTEM, format!("the new file cannot be executed: {errno}; nor can this program again: {again}"))
    }
}
