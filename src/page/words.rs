//! Figures of versions and types in words, as more than one of the pages has them; pure.

use crate::engine::view::VersionView;
use crate::figures::{ago, rate, took};
use crate::page::rollover::is_refused;
use crate::recent::Shares;
use crate::types::UnixMs;

/// A job that takes shorter than this is not worth a figure.
const AT_IT_FOR_SHOWN_MS: u64 = 1000;

/// Half, most, and all but few of something: one beside the other; a unit stands where the next one is another.
pub(super) fn spread(shares: &Shares) -> String {
    let all = [shares.p50, shares.p95, shares.p99].map(|ms| took(&ms));
    let unit = |at: usize| all.get(at).and_then(|shown| shown.split_once(' ')).map(|(_, unit)| unit);
    let parts = all.iter().enumerate().map(|(at, shown)| match shown.split_once(' ') {
        Some((figure, _)) if unit(at) == unit(at + 1) => figure,
        _ => shown,
    });
    parts.collect::<Vec<_>>().join(" · ")
}

/// How fast a version goes, beside another one.
pub(super) fn pace(version: &VersionView) -> String {
    let pace = &version.pace;
    let runs =
        pace.run_ms.as_ref().map(|run| format!(", {} to {}", took(&run.p50), took(&run.p99))).unwrap_or_default();
    let fails = if pace.failures_per_second > 0.0 {
        format!(", {} fail", shown_rate(pace.failures_per_second, pace.per_second + pace.failures_per_second))
    } else {
        String::new()
    };
    format!("{}/s{runs}{fails}", rate(&pace.per_second))
}

/// A part of a whole, in percent.
pub(super) fn shown_rate(part: f64, whole: f64) -> String {
    let percent = if whole > 0.0 { part * 100.0 / whole } else { 0.0 };
    match percent {
        0.0 => "0 %".to_owned(),
        percent if percent < 0.1 => "under 0.1 %".to_owned(),
        percent if percent < 9.95 => format!("{percent:.1} %"),
        percent => format!("{percent:.0} %"),
    }
}

fn parsed(at: &str) -> Option<UnixMs> {
    at.parse::<jiff::Timestamp>().ok().and_then(|at| UnixMs::try_from(at.as_millisecond()).ok())
}

/// How long ago a moment was that stands in RFC 3339.
pub(super) fn since_text(at: &str, now: UnixMs) -> String {
    parsed(at).map_or_else(|| at.to_owned(), |at| format!("{} ago", ago(&now.saturating_sub(at))))
}

/// In how long a moment is that stands in RFC 3339.
pub(super) fn due(at: &str, now: UnixMs) -> String {
    match parsed(at) {
        None => at.to_owned(),
        Some(at) if at > now => format!("in {}", ago(&(at - now))),
        Some(at) => format!("{} ago", ago(&(now - at))),
    }
}

/// A text in which what stands between backticks is a command: its parts, and whether each is one.
pub(super) fn spoken(text: &str) -> Vec<(bool, &str)> {
    let parts = text.split('`').enumerate().map(|(at, part)| (at % 2 == 1, part));
    parts.filter(|(_, part)| !part.is_empty()).collect()
}

/// Whether somebody should see it at once.
pub(super) fn needs_look(version: &VersionView) -> bool {
    version.failing.is_some() || has_stuck(version) || (version.reason.is_some() && !is_refused(version))
}

pub(super) fn has_stuck(version: &VersionView) -> bool {
    version.workers.iter().any(|worker| worker.stuck)
}

/// The age of the job that a worker has been at for longest, if that is worth telling.
pub(super) fn at_it_for(version: &VersionView) -> Option<u64> {
    let ages = version.workers.iter().flat_map(|worker| &worker.jobs).map(|job| job.age_ms);
    ages.max().filter(|age| *age >= AT_IT_FOR_SHOWN_MS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::moment;

    #[test]
    fn a_share_is_never_told_as_none_where_there_is_some() {
        let cases = [(0.0, 5.0), (0.001, 10.0), (0.1, 10.0), (1.0, 3.0), (2.0, 2.0), (0.0, 0.0)];
        let words = ["0 %", "under 0.1 %", "1.0 %", "33 %", "100 %", "0 %"];
        assert_eq!(cases.map(|(part, whole)| shown_rate(part, whole)), words);
    }

    #[test]
    fn a_unit_stands_once_where_it_is_the_same() {
        let spread = |p50, p95, p99| spread(&Shares { p50, p95, p99 });
        assert_eq!(spread(12.0, 340.0, 5600.0), "12 · 340 ms · 5.6 s");
        assert_eq!(spread(12.0, 1200.0, 5600.0), "12 ms · 1.2 · 5.6 s");
        assert_eq!(spread(12.0, 34.0, 56.0), "12 · 34 · 56 ms");
    }

    #[test]
    fn commands_stand_out_of_the_text_around_them() {
        assert_eq!(spoken("mend it, then `reload`"), [(false, "mend it, then "), (true, "reload")]);
        assert_eq!(spoken("`a` or `b`"), [(true, "a"), (false, " or "), (true, "b")]);
        assert_eq!(spoken(""), []);
    }

    #[test]
    fn a_moment_is_told_by_how_long_ago_it_was() {
        assert_eq!(since_text("1970-01-01T00:00:10Z", 70_000), "60 s ago");
        assert_eq!(since_text("whenever", 70_000), "whenever");
        assert_eq!(due(&moment(10_000), 5_000), "in 5 s");
        assert_eq!(due("1970-01-01T00:00:10Z", 70_000), "60 s ago");
    }
}
