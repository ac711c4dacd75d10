//! An engine for a fuzz target: small sizes, a clock that stands, and no workers.

use std::sync::Arc;
use std::time::Duration;

use biotope::clock::Clock;
use biotope::config::{Config, LogConfig, SyncPolicy};
use biotope::engine::GenerationSpec;
use biotope::engine::stepped::Surrounding;
use biotope::job::ids::IdMaker;
use biotope::log::{LogId, LogOptions, Making, Reader};
use biotope::pool::{Pool, PoolMaker, PoolSpec, Reporter};
use biotope::simulate::disk::SimDisk;
use biotope::types::UnixMs;

/// Identity of every log.
pub const LOG_ID: LogId = *b"a fuzzed log id.";
/// Sizes of every log.
pub const OPTIONS: LogOptions =
    LogOptions { segment_bytes: 8 << 10, frame_bytes_full: 1 << 10, frame_bytes_max: 4 << 10, making: Making::Stepped };

struct Still;

impl Clock for Still {
    fn wall_ms(&self) -> UnixMs {
        1_764_000_000_000
    }

    fn mono(&self) -> Duration {
        Duration::from_secs(1)
    }
}

struct NoPools;

impl PoolMaker for NoPools {
    fn make(&self, _: PoolSpec, _: Reader, _: IdMaker, _: Reporter) -> std::io::Result<Box<dyn Pool>> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

/// Where an engine of this disk lives.
pub fn around(disk: SimDisk) -> Surrounding {
    Surrounding {
        disk: Arc::new(disk),
        options: OPTIONS,
        log_id: LOG_ID,
        clock: Arc::new(Still),
        pools: Box::new(NoPools),
        seed: 1,
    }
}

/// A config without workers.
pub fn spec() -> GenerationSpec {
    let config = Config {
        data_dir: "/fuzzed".into(),
        stop_timeout: Duration::from_secs(10),
        listen: ([127, 0, 0, 1], 0).into(),
        log: LogConfig {
            sync: SyncPolicy::Always,
            retain: OPTIONS.segment_bytes * 4,
            segment: OPTIONS.segment_bytes,
            payload_max: 1000,
            result_max: 100,
            dead_retain: Duration::from_secs(3600),
            dead_max: 10,
        },
        workers: Vec::new(),
    };
    GenerationSpec { config, versions: Vec::new() }
}
