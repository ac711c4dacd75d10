//! Any text as a config file: a config or problems, the same twice, and every problem is told with a place in the text.
#![no_main]

mod bounded;

use std::collections::BTreeSet;

use biotope::config::{Concurrency, EnvValue, KindConfig, parse, units};
use biotope::limits::{BATCH_MAX, CONCURRENCY_MAX, MAX_ATTEMPTS_MAX, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let natives: BTreeSet<String> = ["native".to_owned()].into();
    let parsed = parse("biotope.toml", text, &natives);
    assert_eq!(parsed, parse("biotope.toml", text, &natives));
    match parsed {
        Ok(parsed) => {
            let config = parsed.config;
            assert!(config.listen.ip().is_loopback() || !config.access.tokens.is_empty());
            assert!((SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&config.log.segment));
            assert!(config.workers.is_sorted_by(|one, next| one.worker_type < next.worker_type));
            for worker in &config.workers {
                let live = &worker.live;
                let Concurrency { min, max } = live.concurrency;
                assert!(min <= max && (1..=CONCURRENCY_MAX).contains(&max) && (1..=BATCH_MAX).contains(&live.batch));
                assert!((1..=MAX_ATTEMPTS_MAX).contains(&live.max_attempts));
                match &worker.kind {
                    KindConfig::Exec(exec) => assert!(!exec.argv.is_empty()),
                    KindConfig::Http(http) => {
                        let written = http.secrets.iter().any(|secret| matches!(secret, EnvValue::Text(_)));
                        assert!(!written, "a secret stands in no config");
                    }
                    KindConfig::Native => assert!(natives.contains(worker.worker_type.as_str())),
                }
            }
        }
        Err(problems) => {
            let told = problems.to_string();
            assert!(told.contains("biotope.toml:"), "a problem without a place: {told}");
        }
    }
    units(text);
});

/// Durations and sizes, which stand in jobs, too.
fn units(text: &str) {
    let lines = text.lines().take(8);
    for word in lines.map(|line| line.trim_matches(|c: char| c == '"' || c.is_whitespace())) {
        drop(units::duration(word));
        drop(units::size(word));
    }
}
