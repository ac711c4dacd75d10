//! Durations and sizes as people write them: a whole number and its unit in one string, `"5s"`, `"64MiB"`.

use std::time::Duration;

use crate::types::millis;

/// Units of time, in milliseconds.
const TIMES: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
/// Units of size, in bytes.
const SIZES: [(&str, u64); 5] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

/// Reads a duration, `"250ms"`, `"5s"`, `"10m"`, `"2h"`, `"90d"`.
///
/// # Errors
/// What is wrong and what is right, as a clause.
pub fn duration(text: &str) -> Result<Duration, String> {
    number_and_unit(text, &TIMES, "\"250ms\", \"5s\", \"10m\", \"2h\" or \"90d\"").map(Duration::from_millis)
}

/// Reads a size, `"512B"`, `"64KiB"`, `"1MiB"`, `"1GiB"`; in bytes.
///
/// # Errors
/// What is wrong and what is right, as a clause.
pub fn size(text: &str) -> Result<u64, String> {
    number_and_unit(text, &SIZES, "\"512B\", \"64KiB\", \"1MiB\" or \"1GiB\"")
}

/// Reads a share, `"5%"`, 0 to 100; in percent.
///
/// # Errors
/// What is wrong and what is right, as a clause.
pub fn percent(text: &str) -> Result<u32, String> {
    let share = number_and_unit(text, &[("%", 1)], "\"5%\" or \"50%\"")?;
    u32::try_from(share)
        .ok()
        .filter(|share| *share <= 100)
        .ok_or_else(|| "it must lie between \"0%\" and \"100%\"".to_owned())
}

fn number_and_unit(text: &str, units: &[(&str, u64)], examples: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let bad = || format!("write a whole number with its unit, like {examples}");
    let scale = units.iter().find(|(name, _)| *name == unit.trim_start()).map(|(_, scale)| *scale).ok_or_else(bad)?;
    let number: u64 = number.parse().map_err(|_| bad())?;
    number.checked_mul(scale).ok_or_else(|| "that is too large".to_owned())
}

/// A duration as it would be written: in its largest unit that leaves no rest.
pub fn show_duration(duration: Duration) -> String {
    let ms = millis(duration);
    show(ms, &TIMES)
}

/// A size as it would be written: in its largest unit that leaves no rest.
pub fn show_size(bytes: u64) -> String {
    show(bytes, &SIZES)
}

fn show(value: u64, units: &[(&str, u64)]) -> String {
    let fitting = units.iter().rev().find(|(_, scale)| value >= *scale && value.is_multiple_of(*scale));
    let (unit, scale) = fitting.or_else(|| units.first()).copied().unwrap_or(("", 1));
    format!("{}{unit}", value / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_shown_again() {
        for text in ["250ms", "5s", "10m", "2h", "90d"] {
            assert_eq!(show_duration(duration(text).unwrap()), text);
        }
        for text in ["512B", "64KiB", "1MiB", "3GiB"] {
            assert_eq!(show_size(size(text).unwrap()), text);
        }
        assert_eq!(duration("90s").unwrap(), Duration::from_secs(90));
        assert_eq!(duration("1 s").unwrap(), Duration::from_secs(1));
        assert_eq!(show_duration(Duration::ZERO), "0ms");
    }

    #[test]
    fn what_has_no_unit_or_too_much_of_it_is_refused() {
        for text in ["", "5", "s", "-5s", "1.5s", "5 seconds", "99999999999999999999s", "999999999999999999d"] {
            assert!(duration(text).is_err(), "{text}");
        }
        for text in ["64", "64MB", "64mib", "KiB"] {
            assert!(size(text).is_err(), "{text}");
        }
        for text in ["5", "%", "101%", "1.5%", "-1%"] {
            assert!(percent(text).is_err(), "{text}");
        }
        assert_eq!((percent("0%"), percent("100%")), (Ok(0), Ok(100)));
    }
}
