//! `[http]`: where it is served, and how much of everything those who connect may take.

use std::net::SocketAddr;
use std::time::Duration;

use super::section::{Gathered, Section};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Bounds on what connections may take, in number, bytes and time. All of them change with a reload; those of a
/// connection hold for those that come after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serving {
    /// Connections at once. One more, and the one goes that has been waited for longest.
    pub connections_max: u32,
    /// Connections of one address at once.
    pub peer_connections_max: u32,
    /// Readers of events at once.
    pub events_max: u32,
    /// Largest head of a request, in bytes.
    pub head_max: usize,
    /// From a head's first byte to its last.
    pub head_timeout: Duration,
    /// From one request's end to the next one's begin.
    pub idle_timeout: Duration,
    /// All of a body that is one job; of a stream of them, from one piece to the next.
    pub body_timeout: Duration,
    /// How long an answer's reader may take nothing.
    pub write_timeout: Duration,
    /// Bytes of bodies and answers in memory together, beyond a small share of each request's own.
    pub buffers_max: usize,
}

impl Default for Serving {
    fn default() -> Self {
        Self {
            connections_max: 2048,
            peer_connections_max: 1024,
            events_max: 64,
            head_max: 32 << 10,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(30),
            buffers_max: 64 << 20,
        }
    }
}

/// Reads `[http]`: the address, and the bounds.
pub(super) fn read(gathered: &mut Gathered, http: &mut Section<'_>) -> (SocketAddr, Serving) {
    let listen = http.parsed(gathered, "listen", SocketAddr::from(([127, 0, 0, 1], 7420)), listen_address);
    let default = Serving::default();
    let time = Duration::from_millis(100)..=Duration::from_secs(3600);
    let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let serving = Serving {
        connections_max: http.number(gathered, "connections_max", default.connections_max, 8..=100_000),
        peer_connections_max: http.number(gathered, "peer_connections_max", default.peer_connections_max, 4..=100_000),
        events_max: http.number(gathered, "events_max", default.events_max, 1..=100_000),
        head_max: bytes(http.size(gathered, "head_max", default.head_max as u64, 4 * KIB..=MIB)),
        head_timeout: http.duration(gathered, "head_timeout", default.head_timeout, time.clone()),
        idle_timeout: http.duration(gathered, "idle_timeout", default.idle_timeout, time.clone()),
        body_timeout: http.duration(gathered, "body_timeout", default.body_timeout, time.clone()),
        write_timeout: http.duration(gathered, "write_timeout", default.write_timeout, time),
        buffers_max: bytes(http.size(gathered, "buffers_max", default.buffers_max as u64, 16 * MIB..=KIB << 34)),
    };
    (listen, serving)
}

fn listen_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write address and port, like \"127.0.0.1:7420\"".to_owned())
}

impl Serving {
    /// Keys that have another value in `other`.
    pub(super) fn differ(&self, other: &Self) -> [(&'static str, bool); 9] {
        let Self {
            connections_max,
            peer_connections_max,
            events_max,
            head_max,
            head_timeout,
            idle_timeout,
            body_timeout,
            write_timeout,
            buffers_max,
        } = self;
        [
            ("http.connections_max", *connections_max != other.connections_max),
            ("http.peer_connections_max", *peer_connections_max != other.peer_connections_max),
            ("http.events_max", *events_max != other.events_max),
            ("http.head_max", *head_max != other.head_max),
            ("http.head_timeout", *head_timeout != other.head_timeout),
            ("http.idle_timeout", *idle_timeout != other.idle_timeout),
            ("http.body_timeout", *body_timeout != other.body_timeout),
            ("http.write_timeout", *write_timeout != other.write_timeout),
            ("http.buffers_max", *buffers_max != other.buffers_max),
        ]
    }
}
