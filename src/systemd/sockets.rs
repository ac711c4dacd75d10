//! Sockets that systemd listens on and hands over when it starts the process: `LISTEN_FDS`.
//!
//! Owns which of them is taken: the one whose address the config names. That a config checked for loopback serves the
//! whole network because a unit says so cannot be.

use std::net::{SocketAddr, TcpListener};

use rustix::fd::OwnedFd;
use rustix::net::sockopt::{socket_acceptconn, socket_type};
use rustix::net::{SocketType, getsockname};

use crate::exit::{CONFIG, Failure};
use crate::takeover::adopt;

/// The first descriptor that is handed over.
const FIRST: i32 = 3;
/// Sockets that are looked at, at most: a unit has a handful.
const SOCKETS_MAX: i32 = 64;

/// What was handed over, by the name that its unit gives it.
#[derive(Debug, Default)]
pub(crate) struct Sockets(Vec<(String, OwnedFd)>);

impl Sockets {
    /// Takes what was handed to this process. Its first act: before anything is opened, and with one thread.
    pub(crate) fn of_environment() -> Self {
        let text = |name: &str| std::env::var(name).unwrap_or_default();
        let Some(count) = count(&text("LISTEN_PID"), &text("LISTEN_FDS")) else { return Self::default() };
        let names = text("LISTEN_FDNAMES");
        let names = names.split(':').map(str::to_owned).chain(std::iter::repeat(String::new()));
        let fds = FIRST..FIRST.saturating_add(count);
        Self(fds.zip(names).filter_map(|(fd, name)| Some((name, adopt(fd)?))).collect())
    }

    /// The socket that listens at an address, if any was handed over; the others close.
    ///
    /// # Errors
    /// There are some, and none listens there.
    pub(crate) fn listener(self, address: SocketAddr) -> Result<Option<TcpListener>, Failure> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let mut others = Vec::new();
        let mut found = None;
        for (name, fd) in self.0 {
            match listens_at(&fd) {
                Some(at) if at == address && found.is_none() => found = Some(TcpListener::from(fd)),
                Some(at) => others.push(format!("{name} at {at}")),
                None => others.push(format!("{name}, where nobody listens over TCP")),
            }
        }
        let others = others.join(", ");
        if found.is_none() {
            let message = format!(
                "systemd handed over {others}; none is at {address}: let `ListenStream` of the socket's unit and `http.listen` name the same address"
            );
            return Err(Failure::new(CONFIG, message));
        }
        if !others.is_empty() {
            tracing::warn!("sockets that systemd handed over are not used: {others}");
        }
        Ok(found)
    }
}

/// How many descriptors were handed to this very process.
fn count(pid: &str, fds: &str) -> Option<i32> {
    (pid.parse() == Ok(std::process::id())).then_some(())?;
    fds.parse().ok().filter(|count| (1..=SOCKETS_MAX).contains(count))
}

/// Where a socket listens, if it does, over TCP.
fn listens_at(fd: &OwnedFd) -> Option<SocketAddr> {
    let streams = socket_type(fd).ok()? == SocketType::STREAM;
    (streams && socket_acceptconn(fd).ok()?).then_some(())?;
    getsockname(fd).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpStream, UdpSocket};
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn descriptors_are_taken_by_the_process_that_they_are_meant_for() {
        let own = std::process::id().to_string();
        assert_eq!(count(&own, "2"), Some(2));
        for (pid, fds) in [("1", "2"), ("", "2"), (&own, ""), (&own, "0"), (&own, "-1"), (&own, "100000"), (&own, "x")]
        {
            assert_eq!(count(pid, fds), None, "{pid:?} {fds:?}");
        }
    }

    #[test]
    fn the_socket_is_the_one_whose_address_the_config_names() {
        let bind = || TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let (one, other, connected, datagrams) = (bind(), bind(), bind(), UdpSocket::bind(("127.0.0.1", 0)).unwrap());
        let (at, elsewhere) = (other.local_addr().unwrap(), connected.local_addr().unwrap());
        let dir = tempfile::tempdir().unwrap();
        let local = UnixListener::bind(dir.path().join("socket")).unwrap();
        let stream = TcpStream::connect(elsewhere).unwrap();
        let others = [OwnedFd::from(one), datagrams.into(), local.into(), stream.into()];
        let given = |last: Option<TcpListener>, others: &[OwnedFd]| {
            let all = others.iter().map(|fd| fd.try_clone().unwrap()).chain(last.map(OwnedFd::from));
            Sockets(all.map(|fd| ("http".to_owned(), fd)).collect())
        };
        assert!(given(None, &[]).listener(at).unwrap().is_none(), "nothing was handed over");
        let refused = given(None, &others).listener(at).unwrap_err();
        assert_eq!(refused.code, CONFIG);
        assert!(refused.message.contains(&at.to_string()) && refused.message.contains("http.listen"), "{refused:?}");
        assert!(refused.message.contains("nobody listens over TCP"), "{refused:?}");
        let found = given(Some(other), &others).listener(at).unwrap().unwrap();
        assert_eq!(found.local_addr().unwrap(), at);
    }
}
