//! What a start says: what it opened, what runs, where to look, and what to type next.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::config::units;
use crate::engine::{GenerationSpec, Opened};
use crate::figures::counted;
use crate::logfile::tell;
use crate::start::Instead;

/// What is said of a config when it runs.
pub(super) struct Said {
    config: String,
    /// What is wrong with the file, if it is not what runs.
    error: Option<String>,
    data_dir: String,
    pools: Vec<String>,
    /// `http` or `https`.
    pub(super) scheme: &'static str,
    /// Whether tokens go over a network for everyone to read.
    in_clear: bool,
}

impl Said {
    pub(super) fn of(spec: &GenerationSpec, path: &Path, instead: Option<&Instead>) -> Self {
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
            scheme: if spec.config.access.tls.is_some() { "https" } else { "http" },
            in_clear: spec.config.access.tls.is_none() && !spec.config.listen.ip().is_loopback(),
        }
    }

    pub(super) fn tell(&self, address: SocketAddr, opened: &Opened, took: Duration, came: Option<&str>) {
        let Opened { created, live_jobs, segments, cut_bytes, unclean, .. } = opened;
        let log = if *created {
            format!("made a new log in {}", self.data_dir)
        } else {
            let (jobs, segments) = (counted(*live_jobs, "job"), counted(*segments, "segment"));
            format!("opened the log in {}: {jobs} waiting or dead, {segments}", self.data_dir)
        };
        if let Some(error) = &self.error {
            tell(error);
            tell("this config was not accepted; the last one that was runs instead. Mend it, then `biotope reload`");
        }
        tell(&format!("biotope {} runs {}, pid {}", env!("CARGO_PKG_VERSION"), self.config, std::process::id()));
        if let Some(came) = came {
            tell(&format!("  {came}"));
        }
        tell(&format!("  {log}"));
        if *unclean {
            tell("  the last process did not stop in good order; what it was working on is begun again");
        }
        if *cut_bytes > 0 {
            let bytes = units::show_size(*cut_bytes);
            tell(&format!("  cut {bytes} of an unfinished write off the log's end: nothing in them was acknowledged"));
        }
        tell(&format!("  workers: {}", self.pools.join(", ")));
        tell(&format!("  status page: {}://{address}/ (ready after {} ms)", self.scheme, took.as_millis()));
        if self.in_clear {
            tell("  tokens go over the network for everyone to read: add [http.tls], or have a proxy speak TLS");
        }
        tell("  kill -HUP to take a changed config over, -USR2 a new binary; Ctrl-C or kill to stop");
    }
}
