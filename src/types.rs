//! The words that cross rooms: names, ids and priorities, each parsed once and valid ever after.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::limits::{CHOSEN_ID_BYTES_MAX, LABEL_BYTES_MAX, PRIORITY_DEFAULT, PRIORITY_MAX, TYPE_NAME_BYTES_MAX};

/// Position of a record in the log's order; the first record of a log has seq 1.
pub type Seq = u64;

/// Milliseconds since the Unix epoch, by the wall clock.
pub type UnixMs = u64;

/// A time in whole milliseconds; as many as there is a number for, of one that is longer.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Why a name was refused; reads after "the name … ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Nothing was given.
    #[error("is empty")]
    Empty,
    /// More bytes than the bound.
    #[error("is {len} bytes long, the most is {max}")]
    TooLong {
        /// Bytes given.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// A character outside of the allowed set.
    #[error("holds {found:?}; allowed are {allowed}")]
    BadCharacter {
        /// The first offending character.
        found: char,
        /// The allowed set, in words.
        allowed: &'static str,
    },
}

fn check_name(text: &str, max: usize, allowed: &'static str, ok: impl Fn(char) -> bool) -> Result<(), BadName> {
    if text.is_empty() {
        return Err(BadName::Empty);
    }
    if text.len() > max {
        return Err(BadName::TooLong { len: text.len(), max });
    }
    // A leading dot could be a path's "." or "..", a leading dash a flag.
    let leading = text.chars().next().filter(|c| matches!(c, '.' | '-'));
    match leading.or_else(|| text.chars().find(|c| !ok(*c))) {
        Some(found) => Err(BadName::BadCharacter { found, allowed }),
        None => Ok(()),
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $max:expr, $allowed:expr, $ok:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadName;

            fn from_str(text: &str) -> Result<Self, BadName> {
                check_name(text, $max, $allowed, $ok)?;
                Ok(Self(text.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

name_type!(
    /// The name of a worker type, and of its queue: 1 to 64 of `A-Z a-z 0-9 . _ -`, with no dot or dash in front.
    WorkerType,
    TYPE_NAME_BYTES_MAX,
    "letters, digits and . _ -, with no dot or dash in front",
    |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
);

name_type!(
    /// The label of a worker version: 1 to 64 of `A-Z a-z 0-9 . _ + -`.
    Label,
    LABEL_BYTES_MAX,
    "letters, digits and . _ + -",
    |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+')
);

name_type!(
    /// An id or idempotency key that a caller chose: 1 to 128 bytes of printable ASCII without space, quote,
    /// backslash or slash, so that it stands unescaped in URLs' last segment, JSON and logs.
    ChosenId,
    CHOSEN_ID_BYTES_MAX,
    "printable ASCII but space, quote, slash, backslash, ? # and %",
    |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '/' | '\\' | '?' | '#' | '%')
);

/// A priority: 0 to 9, 9 is served first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Priority(u8);

impl Priority {
    /// Parses a number from 0 to 9.
    pub fn new(value: u8) -> Option<Self> {
        (value <= PRIORITY_MAX).then_some(Self(value))
    }

    /// The number.
    pub fn get(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(PRIORITY_DEFAULT)
    }
}

impl TryFrom<u8> for Priority {
    type Error = String;

    fn try_from(value: u8) -> Result<Self, String> {
        Self::new(value).ok_or_else(|| format!("priority {value} is above {PRIORITY_MAX}, the highest"))
    }
}

impl From<Priority> for u8 {
    fn from(priority: Priority) -> Self {
        priority.0
    }
}

/// What makes a run of a job distinct from every other run of any job: the epoch (one per opening of the log) and a
/// counter within it. It never repeats and only grows, also across crashes; a result under an older fence is refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Fence {
    /// Opening of the log in which the lease was given.
    pub epoch: u32,
    /// Counter of leases within the epoch, from 1.
    pub counter: u64,
}

impl Fence {
    /// The fence as one growing number, as workers see it (`BIOTOPE_FENCE`): epoch in the upper 24 bits, counter in the lower 40.
    pub fn as_number(self) -> u64 {
        (u64::from(self.epoch) << 40) | (self.counter & ((1 << 40) - 1))
    }
}

/// The right to work on one job once, for one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    /// Seq of the job's first record.
    pub born: Seq,
    /// Tells this run from every other one.
    pub fence: Fence,
}
