//! How two configs differ: the keys that have another value.

use super::{Config, LiveConfig, LogConfig};
use crate::limits::TIMEOUT_MAX_FACTOR;

fn named<const N: usize>(differ: [(&'static str, bool); N]) -> Vec<String> {
    differ.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key.to_owned()).collect()
}

/// Whether `timeout_max` is what it is where the config does not say.
fn follows(live: &LiveConfig) -> bool {
    live.timeout_max == live.timeout.saturating_mul(TIMEOUT_MAX_FACTOR)
}

impl LiveConfig {
    /// Keys of a worker type that have another value in `other`.
    pub fn keys_changed(&self, other: &Self) -> Vec<String> {
        let Self {
            concurrency,
            target_wait,
            batch,
            batch_wait,
            timeout,
            timeout_max,
            kill_after,
            start_timeout,
            probe,
            recycle,
            max_attempts,
            backoff,
            retry_budget,
            on_dead,
            rollout,
            request,
        } = self;
        named([
            ("concurrency", *concurrency != other.concurrency),
            ("target_wait", *target_wait != other.target_wait),
            ("batch", *batch != other.batch),
            ("batch_wait", *batch_wait != other.batch_wait),
            ("timeout", *timeout != other.timeout),
            // Where nobody says another thing, it goes with the timeout.
            ("timeout_max", *timeout_max != other.timeout_max && !(follows(self) && follows(other))),
            ("kill_after", *kill_after != other.kill_after),
            ("start_timeout", *start_timeout != other.start_timeout),
            ("probe", *probe != other.probe),
            ("recycle", *recycle != other.recycle),
            ("max_attempts", *max_attempts != other.max_attempts),
            ("backoff", *backoff != other.backoff),
            ("retry_budget", *retry_budget != other.retry_budget),
            ("on_dead", *on_dead != other.on_dead),
            ("rollout.steps", rollout.steps != other.rollout.steps),
            ("rollout.hold", rollout.hold != other.rollout.hold),
            ("rollout.min_samples", rollout.min_samples != other.rollout.min_samples),
            ("rollout.drain_timeout", rollout.drain_timeout != other.rollout.drain_timeout),
            ("rollout.warm_for", rollout.warm_for != other.rollout.warm_for),
            ("rollout.versions_max", rollout.versions_max != other.rollout.versions_max),
            ("connect_timeout", request.connect != other.request.connect),
            ("first_byte_timeout", request.first_byte != other.request.first_byte),
        ])
    }
}

impl Config {
    /// Keys beside those of worker types that have another value in `other`.
    pub fn keys_changed(&self, other: &Self) -> Vec<String> {
        let Self { data_dir, stop_timeout, workers_max, core_dumps, listen, serving, access, log, .. } = self;
        let Self { log_output, history_index, workers: _, .. } = self;
        let LogConfig {
            sync,
            retain,
            segment,
            disk_max,
            disk_free_min,
            payload_max,
            result_max,
            dead_retain,
            dead_max,
            scrub,
            scrub_rate,
        } = log;
        let theirs = &other.log;
        let mut keys = named([
            ("data_dir", *data_dir != other.data_dir),
            ("stop_timeout", *stop_timeout != other.stop_timeout),
            ("workers_max", *workers_max != other.workers_max),
            ("core_dumps", *core_dumps != other.core_dumps),
            ("http.listen", *listen != other.listen),
            ("log.sync", *sync != theirs.sync),
            ("log.retain", *retain != theirs.retain),
            ("log.segment", *segment != theirs.segment),
            ("log.disk_max", *disk_max != theirs.disk_max),
            ("log.disk_free_min", *disk_free_min != theirs.disk_free_min),
            ("log.payload_max", *payload_max != theirs.payload_max),
            ("log.result_max", *result_max != theirs.result_max),
            ("log.dead_retain", *dead_retain != theirs.dead_retain),
            ("log.dead_max", *dead_max != theirs.dead_max),
            ("log.scrub", *scrub != theirs.scrub),
            ("log.scrub_rate", *scrub_rate != theirs.scrub_rate),
            ("history.index", *history_index != other.history_index),
        ]);
        keys.extend(named(log_output.differ(other.log_output)));
        keys.extend(named(serving.differ(&other.serving)));
        keys.extend(named(access.differ(&other.access)));
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_keys_that_differ_are_named_and_no_others() {
        let one = LiveConfig::default();
        assert_eq!(one.keys_changed(&one.clone()), Vec::<String>::new());
        let mut other = one.clone();
        (other.timeout, other.batch) = (Duration::from_secs(1), 7);
        other.timeout_max = Duration::from_secs(10);
        other.request.connect = Duration::from_secs(1);
        assert_eq!(one.keys_changed(&other), ["batch", "timeout", "connect_timeout"]);
        other.timeout_max = Duration::from_secs(11);
        assert_eq!(one.keys_changed(&other), ["batch", "timeout", "timeout_max", "connect_timeout"]);
    }
}
