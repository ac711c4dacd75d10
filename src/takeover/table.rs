//! What one image of the program leaves to the next: descriptors, and what they are; and what that makes of it.
//!
//! The image before may be older or newer than this one: the table is JSON, in which members may come and none may go or
//! change. It lies in memory, in a file whose descriptor is named by an environment variable, with the process it is meant
//! for: whoever inherits the variable further down is not.
//!
//! ```text
//! BIOTOPE_TAKEOVER=PID:FD         FD: the table, written by the image before, for its successor
//! BIOTOPE_TAKEOVER=PID:FD:back    the same table, back with who wrote it: the successor did not come up; `why` says why
//! ```

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustix::fd::{AsRawFd, OwnedFd, RawFd};
use rustix::fs::MemfdFlags;
use serde::{Deserialize, Serialize};

use super::environment::{self, VARIABLE};
use super::image::{self, Before, Words};
use crate::config::Config;

/// Bytes that a table may have: hundreds of connections, each with the beginning of a request.
const TABLE_BYTES_MAX: u64 = 256 << 20;

/// What is left to the next image.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Table {
    /// Where it listens.
    pub(super) listeners: Vec<Listener>,
    /// Connections on which nothing is under way.
    #[serde(default)]
    pub(super) connections: Vec<Left>,
    /// The data directory that it runs on.
    pub(super) data_dir: PathBuf,
    /// That directory's lock.
    pub(super) lock: RawFd,
    /// The image that wrote this, to go back to.
    pub(super) image: RawFd,
    /// Where it reads why the next one did not come up.
    pub(super) why: RawFd,
    /// How long the next one may take to come up, in milliseconds.
    pub(super) ready_ms: u64,
    /// The format of the log that the image before understands: until the next one is settled it writes no newer one.
    pub(super) log_format: u16,
    /// Attempts to replace the binary since the process began, this one included.
    pub(super) attempt: u64,
    /// How many of those before it worked.
    pub(super) replaced: u64,
    /// Version of the program that wrote this.
    pub(super) version: String,
    /// When nobody was answered any more, in microseconds of the steady clock.
    pub(super) silent_since_us: u64,
    /// Files that the process was allowed to have open when it began, and may raise again: what programs get.
    #[serde(default)]
    pub(super) open_files: Option<u64>,
}

/// A socket that is listened on.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Listener {
    /// What for: `http`.
    pub(super) serves: String,
    /// Its address, as the config has it.
    pub(super) address: SocketAddr,
    /// Its descriptor.
    pub(super) fd: RawFd,
}

/// A connection that is left to the next image.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Left {
    /// Its descriptor.
    pub(super) fd: RawFd,
    /// What was read of it already, in base64.
    pub(super) ahead: String,
}

/// A connection on which nothing is under way.
#[derive(Debug)]
pub struct Connection {
    /// Its socket.
    pub stream: TcpStream,
    /// What was read of it already, and belongs to the next request.
    pub ahead: Vec<u8>,
}

/// What was left to this image.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(super) table: Table,
    listeners: Vec<(SocketAddr, OwnedFd)>,
    /// Connections of the table, in its order, once nothing can bring the image before back any more.
    connections: Vec<OwnedFd>,
    lock: Option<OwnedFd>,
    /// Why the image that was to follow this one did not come up: this is the one that was gone back to.
    pub(super) back: Option<String>,
}

/// A file in memory with these bytes.
pub(super) fn in_memory(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    Ok(file.into())
}

/// All of a file in memory.
fn text(file: &OwnedFd) -> io::Result<String> {
    let mut file = File::from(file.try_clone()?);
    file.rewind()?;
    let mut text = String::new();
    file.take(TABLE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// The environment for another image, with the table.
pub(super) fn environment(table: RawFd, back: bool) -> Vec<(OsString, OsString)> {
    let mut value = format!("{}:{table}", std::process::id());
    if back {
        value.push_str(":back");
    }
    let mut all = environment::of_an_image();
    all.push((VARIABLE.into(), value.into()));
    all
}

/// The words for another image.
pub(super) fn words(args: &[OsString], env: &[(OsString, OsString)]) -> io::Result<Words> {
    let args = args.iter().map(OsString::as_os_str);
    Words::new(args, env.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str())))
}

/// Takes over what an image before this one left, if one did; from then on this one brings that one back, should it fail.
/// The first act of a program: before anything is opened, and with one thread.
///
/// # Errors
/// What was left cannot be taken over.
pub(super) fn arrive() -> io::Result<Option<Arrival>> {
    let Some((fd, back)) = std::env::var_os(VARIABLE).and_then(|value| meant_for_us(&value)) else { return Ok(None) };
    let open = |fd| image::adopt(fd).ok_or_else(|| io::Error::other(format!("descriptor {fd} is not open")));
    let table_fd = open(fd)?;
    let table: Table = serde_json::from_str(&text(&table_fd)?)?;
    let (why, lock) = (open(table.why)?, open(table.lock)?);
    let listeners = table.listeners.iter().map(|listener| Ok((listener.address, open(listener.fd)?)));
    let listeners = listeners.collect::<io::Result<Vec<_>>>()?;
    let connections = table.connections.iter().map(|connection| open(connection.fd));
    let connections = connections.collect::<io::Result<Vec<_>>>()?;
    if back {
        // Who wrote the table reads it; its own image closed with the one that it came back from.
        let back = Some(text(&why)?);
        return Ok(Some(Arrival { table, listeners, connections, lock: Some(lock), back }));
    }
    let copies = listeners.iter().map(|(address, fd)| Ok((*address, fd.try_clone()?)));
    let (copies, lock_copy) = (copies.collect::<io::Result<_>>()?, Some(lock.try_clone()?));
    let arrival = Arrival { listeners: copies, connections: Vec::new(), lock: lock_copy, back: None, table };
    let args: Vec<OsString> = std::env::args_os().collect();
    let before = Before {
        image: open(arrival.table.image)?,
        why: why.as_raw_fd(),
        connections,
        kept: listeners.into_iter().map(|(_, fd)| fd).chain([lock, why, table_fd]).collect(),
        words: words(&args, &environment(fd, true))?,
    };
    image::arm(before, Duration::from_millis(arrival.table.ready_ms))?;
    Ok(Some(arrival))
}

/// The descriptor that a variable names, and whether it came back, if it is meant for this process.
fn meant_for_us(value: &OsStr) -> Option<(RawFd, bool)> {
    let mut parts = value.to_str()?.split(':');
    let (pid, fd, back) = (parts.next()?, parts.next()?, parts.next());
    (pid.parse() == Ok(std::process::id())).then_some(())?;
    Some((fd.parse().ok()?, back == Some("back")))
}

impl Arrival {
    /// Whether this image is the one that was gone back to.
    pub(crate) fn is_back(&self) -> bool {
        self.back.is_some()
    }

    /// Whether what was left is what a config asks for: the directory and the address.
    pub(crate) fn fits(&self, config: &Config) -> bool {
        let listens = self.table.listeners.iter().any(|listener| listener.address == config.listen);
        listens && self.table.data_dir == config.data_dir
    }

    /// Files that the process was allowed to have open when it began, if the image before said so.
    pub(crate) fn open_files(&self) -> Option<u64> {
        self.table.open_files
    }

    /// The data directory that the image before ran on.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.table.data_dir
    }

    /// The socket that listens at an address, if one was left that does.
    pub(crate) fn listener(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let at = self.listeners.iter().position(|(listens, _)| *listens == address)?;
        Some(TcpListener::from(self.listeners.swap_remove(at).1))
    }

    /// This image stays: what the one before needed no more. The connections that were left, for this one to go on with.
    pub(super) fn settle(&mut self) -> Vec<Connection> {
        let fds = match &self.back {
            Some(_) => std::mem::take(&mut self.connections),
            None => image::settle(),
        };
        let connection = |(fd, left): (OwnedFd, &Left)| {
            let ahead = BASE64.decode(&left.ahead).ok()?;
            Some(Connection { stream: TcpStream::from(fd), ahead })
        };
        fds.into_iter().zip(&self.table.connections).filter_map(connection).collect()
    }

    /// The lock of the data directory, once.
    pub(crate) fn lock(&mut self) -> Option<OwnedFd> {
        self.lock.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_only_for_the_process_that_it_names() {
        let own = std::process::id();
        assert_eq!(meant_for_us(OsStr::new(&format!("{own}:7"))), Some((7, false)));
        assert_eq!(meant_for_us(OsStr::new(&format!("{own}:7:back"))), Some((7, true)));
        for other in [format!("{}:7", own + 1), format!("{own}"), format!("{own}:x"), String::new(), "::".to_owned()] {
            assert_eq!(meant_for_us(OsStr::new(&other)), None, "{other:?}");
        }
    }

    /// A newer program adds members; an older one reads what it knows.
    #[test]
    fn a_table_of_another_version_is_read() {
        let text = r#"{"listeners":[{"serves":"http","address":"127.0.0.1:7420","fd":5,"tls":true}],"data_dir":"/data","lock":6,"image":7,
            "why":8,"ready_ms":10000,"log_format":1,"attempt":3,"replaced":2,"version":"9.9.9","silent_since_us":5,"new":[]}"#;
        let table: Table = serde_json::from_str(text).unwrap();
        assert_eq!((table.attempt, table.lock, table.version.as_str()), (3, 6, "9.9.9"));
    }
}
