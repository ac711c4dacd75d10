//! What the questions share: a config, workers in this program, payloads, medians.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use biotope::clock::{Clock, RealClock};
use biotope::config::{Config, FreeMin, KindConfig, LiveConfig, LogConfig, SyncPolicy, WorkerConfig};
use biotope::engine::view::EcosystemView;
use biotope::engine::{Engine, GenerationSpec, Handle, VersionSpec};
use biotope::job::new::NewJob;
use biotope::worker::native::{Context, Natives, Raw};

/// Jobs of one push.
const AT_A_TIME: usize = 1_000;

/// What a worker does with a payload.
pub(crate) type Work = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// A config with one worker for each type, which does this and then acks.
pub(crate) fn generation(dir: &Path, types: &[&str], work: &Work) -> GenerationSpec {
    let live = LiveConfig {
        timeout: Duration::from_secs(3600),
        timeout_max: Duration::from_secs(36_000),
        ..LiveConfig::default()
    };
    let mut natives = Natives::new();
    let mut versions = Vec::new();
    for name in types {
        let work = Arc::clone(work);
        let ack = move |payload: Raw, _: &mut Context<'_>| work(&payload);
        natives.register_fn(name, "1", ack).unwrap();
        let (factory, _) = natives.get(name).unwrap();
        let worker = WorkerConfig {
            worker_type: name.parse().unwrap(),
            version: "v1".parse().unwrap(),
            kind: KindConfig::Native,
            live: live.clone(),
        };
        versions.push(VersionSpec { worker, definition_hash: [1; 32], factory });
    }
    let config = Config {
        serving: Default::default(),
        access: Default::default(),
        core_dumps: false,
        log_output: Default::default(),
        history_index: false,
        data_dir: dir.to_path_buf(),
        stop_timeout: Duration::from_secs(1),
        workers_max: 1024,
        listen: "127.0.0.1:0".parse().unwrap(),
        log: LogConfig {
            sync: SyncPolicy::Always,
            retain: 256 << 20,
            segment: 64 << 20,
            payload_max: 1 << 20,
            result_max: 64 << 10,
            dead_retain: Duration::from_secs(90 * 86400),
            dead_max: 100_000,
            scrub: None,
            disk_max: None,
            disk_free_min: FreeMin::Share(0),
            scrub_rate: 16 << 20,
        },
        workers: versions.iter().map(|version| version.worker.clone()).collect(),
    };
    GenerationSpec { config, versions, text: Arc::from(""), access: Default::default() }
}

/// 200 bytes of JSON.
pub(crate) fn payload() -> Vec<u8> {
    let mut text = br#"{"order":123456,"note":""#.to_vec();
    text.resize(198, b'x');
    text.extend_from_slice(br#""}"#);
    text
}

/// Everything that lives, as of everything that was sent before, durable.
pub(crate) fn ecosystem(handle: &Handle) -> EcosystemView {
    let (to, from) = crossbeam_channel::bounded(1);
    handle.ecosystem(Box::new(move |view| to.send(view).unwrap()));
    from.recv().unwrap().unwrap()
}

/// A directory on the disk that holds the build: a temporary one may lie in memory.
pub(crate) fn fresh() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// The value below which so many of a hundred lie.
pub(crate) fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() * percent / 100).copied().unwrap_or(f64::NAN)
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    percentile(&mut values, 50)
}

/// Jobs a second of a type whose jobs wait already: from `resume` to the last completion of so many, while `more` wait.
pub(crate) fn drained(spec: GenerationSpec, worker_type: &str, jobs: usize, more: usize) -> f64 {
    drained_between(spec, worker_type, jobs, more, || ()).0
}

/// As [`drained`]; with what `look` saw before `resume`, and after the last completion.
pub(crate) fn drained_between<T>(
    spec: GenerationSpec,
    worker_type: &str,
    jobs: usize,
    more: usize,
    look: impl Fn() -> T,
) -> (f64, [T; 2]) {
    let handle = Engine::open(spec, RealClock::shared()).unwrap().0;
    pause(&handle, worker_type, true);
    let body = payload();
    for from in (0..jobs + more).step_by(AT_A_TIME) {
        let some = from..(jobs + more).min(from + AT_A_TIME);
        let some = some.map(|_| NewJob::new(worker_type.parse().unwrap(), body.clone())).collect();
        assert!(handle.push_many(some).iter().all(Result::is_ok));
    }
    let before = look();
    let began = RealClock.mono();
    pause(&handle, worker_type, false);
    // A look every few milliseconds of work: what it misses is far below the noise.
    let completed = || ecosystem(&handle).types.iter().map(|of_type| of_type.completed).sum::<u64>();
    let mut done = completed();
    while done < jobs as u64 {
        pause_for(Duration::from_millis(5));
        done = completed();
    }
    let took = RealClock.mono() - began;
    let after = look();
    handle.stop_and_wait();
    (done as f64 / took.as_secs_f64(), [before, after])
}

/// Lets so much time pass.
pub(crate) fn pause_for(time: Duration) {
    let (_keep, never) = crossbeam_channel::bounded::<()>(0);
    let _ = never.recv_timeout(time);
}

fn pause(handle: &Handle, worker_type: &str, paused: bool) {
    let (to, from) = crossbeam_channel::bounded(1);
    handle.pause(worker_type, paused, Box::new(move |answer| to.send(answer).unwrap()));
    from.recv().unwrap().unwrap();
}
