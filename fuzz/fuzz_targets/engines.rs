//! An engine for a fuzz target: small sizes, a clock that stands, and no workers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use biotope::clock::Clock;
use biotope::config::parse;
use biotope::engine::{GenerationSpec, no_resolver};
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
        resolver: no_resolver(),
        seed: 1,
    }
}

/// What a config file must have: a worker, which the engine then does without.
const TEXT: &str = "data_dir = '/fuzzed'\n[workers.nobody]\nversion = '1'\n";

/// A config without workers.
pub fn spec() -> GenerationSpec {
    let natives = BTreeSet::from(["nobody".to_owned()]);
    let mut config = parse("fuzzed.toml", TEXT, &natives).expect("a good config").config;
    config.workers.clear();
    config.log.segment = OPTIONS.segment_bytes;
    config.log.retain = OPTIONS.segment_bytes * 4;
    config.log.payload_max = 1000;
    GenerationSpec { config, versions: Vec::new(), text: "".into(), access: std::sync::Arc::default() }
}
