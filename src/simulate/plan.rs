//! The configs of a simulated world: 256 of them, each a number; and what its records mean.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{
    Backoff, Concurrency, Config, Confinement, ExecConfig, ExecMode, FreeMin, KindConfig, LiveConfig, LogConfig,
    Rollout, SyncPolicy, WorkerConfig,
};
use crate::engine::{GenerationSpec, Resolver, VersionSpec};
use crate::job::event::{Kind, decode_home};
use crate::types::{Lease, Seq, UnixMs};
use crate::worker::{Assignment, Cutoff, Outcome, StartError, Worker, WorkerFactory};

/// The worker types that a config may have.
pub(super) const TYPES: [&str; 3] = ["a", "b", "c"];
/// A config with all types.
pub(super) const ALL: u8 = 0;
/// Largest payload.
pub(super) const PAYLOAD_MAX: usize = 1000;
/// How long a dead job is kept.
pub(super) const DEAD_RETAIN: Duration = Duration::from_secs(20);
/// The longest pause before a retry.
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Dead jobs that are kept.
pub(super) fn dead_max(plan: u8) -> usize {
    if plan & 0b1000 == 0 { 1000 } else { 2 }
}

/// Attempts of a job of this type that names none.
pub(super) fn max_attempts(plan: u8, of: &str) -> Option<u16> {
    has(plan, of).then_some(1 + u16::from(plan >> 6))
}

/// Whether a config has a type.
pub(super) fn has(plan: u8, of: &str) -> bool {
    TYPES.contains(&of) && (of != "c" || plan & 0b100 == 0)
}

/// The type that is told of the dead jobs of another.
pub(super) fn on_dead(of: &str) -> Option<&'static str> {
    (of == "a").then_some("b")
}

/// The label of a version that a job needs: one of those that its type may have, or one that none ever has.
pub(super) fn needed(of: &str, which: u8) -> String {
    match which % 8 {
        7 => "v9".to_owned(),
        label if of == "a" => format!("v{}", label & 0b11),
        _ => "v0".to_owned(),
    }
}

/// A config with all types, in which `a` has this version.
pub(super) fn with_version(label: &str) -> u8 {
    label.strip_prefix('v').and_then(|number| number.parse().ok()).unwrap_or(ALL) & 0b11
}

/// The config of a number.
pub(super) fn spec(plan: u8, retain: u64, segment: u64) -> GenerationSpec {
    let versions: Vec<VersionSpec> = TYPES.into_iter().filter(|of| has(plan, of)).map(|of| version(plan, of)).collect();
    let config = Config {
        data_dir: "/simulated".into(),
        stop_timeout: Duration::from_secs(10),
        workers_max: 1024,
        listen: ([127, 0, 0, 1], 0).into(),
        serving: Default::default(),
        access: Default::default(),
        core_dumps: false,
        log_output: Default::default(),
        history_index: false,
        log: LogConfig {
            sync: SyncPolicy::Always,
            retain,
            segment,
            payload_max: PAYLOAD_MAX,
            result_max: 100,
            dead_retain: DEAD_RETAIN,
            dead_max: dead_max(plan),
            scrub: None,
            disk_max: None,
            // Worlds have their own way to run short of space.
            disk_free_min: FreeMin::Share(0),
            scrub_rate: 16 << 20,
        },
        workers: versions.iter().map(|version| version.worker.clone()).collect(),
    };
    GenerationSpec { config, versions, text: format!("plan {plan}").into(), access: Default::default() }
}

/// Makes of a config's text the same again.
pub(super) fn resolver(retain: u64, segment: u64) -> Resolver {
    Arc::new(move |text| {
        let number = text.strip_prefix("plan ").and_then(|number| number.parse().ok());
        number.map(|plan| spec(plan, retain, segment)).ok_or_else(|| format!("{text:?} is no config"))
    })
}

fn version(plan: u8, of: &str) -> VersionSpec {
    let label = if of == "a" { plan & 0b11 } else { 0 };
    let live = LiveConfig {
        concurrency: if of == "c" { Concurrency { min: 0, max: 3 } } else { Concurrency::fixed(2) },
        batch: 1 + u32::from(plan >> 5 & 1),
        kill_after: Duration::from_secs(1),
        start_timeout: Duration::from_secs(1),
        max_attempts: max_attempts(plan, of).unwrap_or(1),
        backoff: Backoff { first: Duration::from_millis(500), factor: 4, max: BACKOFF_MAX },
        on_dead: on_dead(of).map(|to| to.parse().expect("a name")),
        rollout: rollout(plan, of),
        ..LiveConfig::default()
    };
    let worker = WorkerConfig {
        worker_type: of.parse().expect("a name"),
        version: format!("v{label}").parse().expect("a label"),
        kind: if label == GATED { KindConfig::Exec(program()) } else { KindConfig::Native },
        live,
    };
    VersionSpec { worker, definition_hash: [label; 32], factory: Arc::new(Nobody) }
}

/// The version of `a` that does its first jobs one at a time, since it is a program that runs once a job.
const GATED: u8 = 2;

fn program() -> ExecConfig {
    ExecConfig {
        argv: vec!["work".to_owned()],
        mode: ExecMode::PerJob,
        env: Vec::new(),
        env_pass: Vec::new(),
        dir: None,
        confinement: Confinement::default(),
        watch: Vec::new(),
    }
}

/// The bit of a config in which versions are watched beside the one before.
pub(super) const WATCHED: u8 = 0b1_0000;

/// Whether versions of a type are watched beside the one before, which makes up for their failures.
pub(super) fn has_trials(plan: u8, of: &str) -> bool {
    of == "a" && plan & WATCHED != 0
}

/// Whether a version may come on trial as soon as a config is taken over.
pub(super) fn may_try(plan: u8) -> bool {
    has_trials(plan, "a") || plan & 0b11 == GATED
}

/// How a type's new versions take over: those of an odd number by a ramp, where they are watched at all.
fn rollout(plan: u8, of: &str) -> Rollout {
    let watched = has_trials(plan, of);
    let steps: &[u8] = match (watched && plan & 1 == 1, plan >> 5 & 1) {
        (false, _) => &[],
        (true, 0) => &[30, 60],
        (true, _) => &[60],
    };
    Rollout {
        steps: steps.to_vec(),
        hold: Duration::from_secs(2),
        min_samples: 2,
        drain_timeout: Duration::from_secs(if plan >> 6 & 1 == 0 { 10 } else { 2 }),
        warm_for: if watched { Duration::from_secs(20) } else { Duration::ZERO },
        versions_max: 3 - u32::from(plan >> 7),
    }
}

/// Who would work, if the pools of the simulation had workers.
struct Nobody;

impl WorkerFactory for Nobody {
    fn make(&self, _: &Arc<Cutoff>) -> Box<dyn Worker> {
        Box::new(Self)
    }

    fn check(&self) -> Result<(), StartError> {
        Ok(())
    }
}

impl Worker for Nobody {
    fn start(&mut self, _: Duration) -> Result<(), StartError> {
        Ok(())
    }

    fn cycle(&mut self, batch: Vec<Assignment>, sink: &mut dyn FnMut(Lease, Outcome)) {
        for assignment in batch {
            sink(assignment.lease, Outcome::Interrupted);
        }
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn stop(&mut self) {}
}

/// What the record that holds a job's payload says.
pub(super) struct HomeRecord {
    pub(super) id: Option<String>,
    pub(super) key: Option<String>,
    pub(super) created_ms: UnixMs,
    pub(super) max_attempts: u16,
    pub(super) payload: Vec<u8>,
}

/// Reads the record `home` of the job `born`.
pub(super) fn decode(born: Seq, home: Seq, body: &[u8]) -> Result<HomeRecord, String> {
    let kind = if home == born { Kind::Enqueued } else { Kind::Restated };
    let (meta, payload) = decode_home(kind as u8, body).map_err(|error| error.to_string())?;
    let (id, key) = meta.names.as_ref().map_or((None, None), |names| (names.id, names.key));
    Ok(HomeRecord {
        id: id.map(str::to_owned),
        key: key.map(str::to_owned),
        created_ms: meta.created_ms,
        max_attempts: meta.max_attempts,
        payload: payload.to_vec(),
    })
}
