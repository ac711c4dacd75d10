//! A new image that does not come up, or has more time to: how tests have one. Of debug builds alone.

use std::time::Duration;

use super::table::Arrival;

/// What is to go wrong, and when: `panic@arrived`, for instance; `patient@120` for so many seconds to come up; or both, by a comma.
const VARIABLE: &str = "BIOTOPE_TEST_TAKEOVER";

/// Goes wrong if a test asks for it here; an image that was gone back to never does.
pub(super) fn goes_ill(at: &str, arrival: Option<&Arrival>) -> Result<(), String> {
    let asked = std::env::var(VARIABLE).unwrap_or_default();
    let mut words = asked.split(',').filter_map(|word| word.split_once('@'));
    let Some((how, _)) = words.find(|(_, place)| *place == at) else { return Ok(()) };
    if arrival.is_none_or(|arrival| arrival.back.is_some()) {
        return Ok(());
    }
    match how {
        "error" => Err("as a test asked for".to_owned()),
        "panic" => panic!("as a test asked for"),
        "abort" => std::process::abort(),
        "exit" => std::process::exit(0),
        "overflow" => Err(format!("a stack without an end: {}", deeper(1))),
        "hang" => loop {
            std::thread::park();
        },
        _ => Err(format!("{VARIABLE}={asked}")),
    }
}

/// How long a new image may take to come up, where a test says so: one that is about something else, on a disk that is busy.
pub(super) fn patience() -> Option<Duration> {
    let asked = std::env::var(VARIABLE).ok()?;
    let seconds = asked.split(',').find_map(|word| word.strip_prefix("patient@")?.parse().ok());
    seconds.map(Duration::from_secs)
}

/// Takes all of the stack.
fn deeper(depth: u64) -> u64 {
    let room = std::hint::black_box([depth; 64]);
    if depth == u64::MAX { 0 } else { deeper(depth + 1).wrapping_add(room.iter().sum()) }
}
