//! `recycle`: how long a process that stays may stay.
//!
//! Owns what the key may say, and whose it is. When a process has reached a bound is found out elsewhere.

use std::time::Duration;

use super::section::{Gathered, Section};
use super::{ExecConfig, ExecMode, KindConfig};

const DAY: Duration = Duration::from_secs(86_400);
const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;

/// Bounds of a process that stays; one that has reached any of them is ended between two cycles, and another one started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recycle {
    /// Cycles; `None`: any number.
    pub cycles: Option<u32>,
    /// Since its start; `None`: any time.
    pub age: Option<Duration>,
    /// Its resident memory, in bytes; `None`: as much as it can get.
    pub rss: Option<u64>,
}

/// Reads `recycle` of a worker of this kind, as far as that is known.
pub(super) fn read(gathered: &mut Gathered, section: &mut Section<'_>, kind: Option<&KindConfig>) -> Recycle {
    // What an http worker cannot have is told with its other keys.
    if section.has("http") {
        return Recycle::default();
    }
    let stays = match kind {
        Some(KindConfig::Exec(ExecConfig { mode, .. })) => *mode == ExecMode::Persistent,
        Some(KindConfig::Native) => false,
        Some(KindConfig::Http(_)) | None => true,
    };
    if let (false, Some(value)) = (stays, section.get(gathered, "recycle")) {
        let message = format!("`{}` is for programs that stay", section.path_of("recycle"));
        gathered.add(value.span(), message, "leave it out, or set mode = \"persistent\"");
        return Recycle::default();
    }
    let mut inner = section.section(gathered, "recycle");
    let is_there = ["cycles", "age", "rss"].map(|key| inner.has(key));
    let cycles = inner.number(gathered, "cycles", 1, 1..=1 << 30);
    let second = Duration::from_secs(1);
    let age = inner.duration(gathered, "age", second, second..=365 * DAY);
    let rss = inner.size(gathered, "rss", MIB, MIB..=64 * TIB);
    inner.finish(gathered);
    let [has_cycles, has_age, has_rss] = is_there;
    Recycle { cycles: has_cycles.then_some(cycles), age: has_age.then_some(age), rss: has_rss.then_some(rss) }
}
