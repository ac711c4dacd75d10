//! A service manager, as far as a service notices: a socket that it tells how it does.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use super::SOON;
use super::wait::now;

/// One datagram: its lines, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told(Vec<(String, String)>);

impl Told {
    /// What a name is set to.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }

    /// The names that are set, in order.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// How it stands, in words.
    pub(crate) fn status(&self) -> &str {
        self.get("STATUS").unwrap_or_default()
    }
}

/// Listens to what a service tells, all the time: who tells it never waits.
pub(crate) struct Manager {
    name: String,
    told: mpsc::Receiver<Told>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Manager {
    /// A socket of a name that is no file.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("biotope-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        Self::on(UnixDatagram::bind_addr(&address).unwrap(), format!("@{name}"))
    }

    /// A socket that is a file.
    pub(crate) fn at(path: &std::path::Path) -> Self {
        Self::on(UnixDatagram::bind(path).unwrap(), path.to_str().unwrap().to_owned())
    }

    fn on(socket: UnixDatagram, name: String) -> Self {
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let (sender, told) = mpsc::channel();
        let over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while !ends.load(Ordering::Relaxed) {
                let Ok(length) = socket.recv(&mut bytes) else { continue };
                let text = std::str::from_utf8(&bytes[..length]).unwrap();
                let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
                let lines = text.lines().map(|line| pair(line).unwrap_or_else(|| panic!("{text:?}")));
                drop(sender.send(Told(lines.collect())));
            }
        });
        Self { name, told, over, thread: Some(thread) }
    }

    /// Has a command's process tell this.
    pub(crate) fn watches(&self, command: &mut Command) {
        command.env("NOTIFY_SOCKET", &self.name);
    }

    /// What is told next, if that comes within this time.
    pub(crate) fn within(&self, time: Duration) -> Option<Told> {
        self.told.recv_timeout(time).ok()
    }

    /// What is told next.
    pub(crate) fn next(&self) -> Told {
        self.within(SOON).expect("something is told")
    }

    /// Waits until something is told that fits; what was told up to it, the last one included.
    pub(crate) fn until(&self, what: &str, fits: impl Fn(&Told) -> bool) -> Vec<Told> {
        let (end, mut all) = (now() + SOON, Vec::new());
        while let Some(told) = self.within(end.saturating_sub(now())) {
            let found = fits(&told);
            all.push(told);
            if found {
                return all;
            }
        }
        panic!("{what} was not told within {SOON:?}: {all:#?}");
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
    }
}
