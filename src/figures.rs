//! Figures as people read them: short, in the largest unit that says enough. For the page and the command line.

use crate::types::UnixMs;
use crate::worker::gist;

/// Times below this many milliseconds are told in milliseconds.
const MS_UP_TO: f64 = 999.5;

/// A number with thin spaces between thousands.
pub(crate) fn number(value: &u64) -> String {
    let digits = value.to_string();
    let mut shown = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push('\u{2009}');
        }
        shown.push(digit);
    }
    shown
}

/// So many of what a noun names.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// Bytes in the largest unit that leaves at least ten, or in bytes.
pub(crate) fn bytes(value: &u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut rest = *value;
    while rest >= 10 * 1024 && unit + 1 < UNITS.len() {
        rest /= 1024;
        unit += 1;
    }
    format!("{rest} {}", UNITS.get(unit).unwrap_or(&"B"))
}

/// A time that has passed, in words as short as can be read.
pub(crate) fn ago(ms: &u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms} ms"),
        1..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// A moment: RFC 3339, UTC, milliseconds.
pub(crate) fn moment(at: UnixMs) -> String {
    let at = i64::try_from(at).ok().and_then(|at| jiff::Timestamp::from_millisecond(at).ok());
    at.map_or_else(String::new, |at| format!("{at:.3}"))
}

/// How long something takes, in milliseconds or more; two digits say enough.
pub(crate) fn took(ms: &f64) -> String {
    match *ms {
        ms if ms < 0.1 => format!("{ms:.3} ms"),
        ms if ms < 1.0 => format!("{ms:.2} ms"),
        ms if ms < 9.95 => format!("{ms:.1} ms"),
        ms if ms < MS_UP_TO => format!("{ms:.0} ms"),
        ms if ms < 9_950.0 => format!("{:.1} s", ms / 1000.0),
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a time above every bound is the longest"
        )]
        ms => ago(&(ms as u64)),
    }
}

/// So many a second.
pub(crate) fn rate(per_second: &f64) -> String {
    match *per_second {
        0.0 => "0".to_owned(),
        rate if rate < 0.1 => format!("{rate:.3}"),
        rate if rate < 9.95 => format!("{rate:.1}"),
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate above every bound is the highest"
        )]
        rate => number(&(rate.round() as u64)),
    }
}

/// An error or a reason in a line, shortened to so many characters.
pub(crate) fn in_short(text: &str) -> String {
    const LONGEST: usize = 200;
    let line = gist(text);
    match line.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", line.get(..at).unwrap_or_default()),
        None => line.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        assert_eq!(number(&0), "0");
        assert_eq!(number(&1_234_567), "1\u{2009}234\u{2009}567");
        assert_eq!((bytes(&512), bytes(&(64 << 20))), ("512 B".to_owned(), "64 MiB".to_owned()));
        assert_eq!((ago(&999), ago(&119_000), ago(&86_400_000)), ("999 ms".into(), "119 s".into(), "24 h".into()));
        let times = [0.004, 0.25, 3.12, 42.4, 999.4, 999.6, 5_600.0, 61_000.0, 600_000.0];
        let words = ["0.004 ms", "0.25 ms", "3.1 ms", "42 ms", "999 ms", "1.0 s", "5.6 s", "61 s", "10 min"];
        assert_eq!(times.map(|ms| took(&ms)), words);
        assert_eq!([0.0, 0.017, 7.25, 1234.4].map(|n| rate(&n)), ["0", "0.017", "7.2", "1\u{2009}234"]);
        assert_eq!(in_short("one\ntwo"), "one");
        assert_eq!(in_short(&"ä".repeat(300)), format!("{}…", "ä".repeat(200)));
    }
}
