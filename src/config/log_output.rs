//! `[log_output]`: what biotope says of itself on stderr. (`[log]` is the log of jobs.)

use super::section::{Gathered, Section};

/// What is said, and how it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogOutput {
    /// `format`.
    pub format: LogFormat,
    /// `level`.
    pub level: LogLevel,
}

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum LogFormat {
    /// For people on a terminal, logfmt elsewhere.
    #[default]
    Auto,
    /// For people.
    Text,
    /// One JSON object.
    Json,
    /// `key=value`, and quotes where they are needed.
    Logfmt,
}

impl LogFormat {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Text, Self::Json, Self::Logfmt];

    /// As the config calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Text => "text",
            Self::Json => "json",
            Self::Logfmt => "logfmt",
        }
    }
}

/// The least that is said, by weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum LogLevel {
    /// What has to be seen to.
    Error,
    /// And what may have to be.
    Warn,
    /// And what was done.
    #[default]
    Info,
    /// And how.
    Debug,
    /// And everything else.
    Trace,
}

impl LogLevel {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// As the config calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

pub(super) fn read(gathered: &mut Gathered, mut section: Section<'_>) -> LogOutput {
    let format = section.parsed(gathered, "format", LogFormat::default(), |text| {
        let known = LogFormat::ALL.into_iter().find(|known| known.name() == text);
        known.ok_or_else(|| "write \"auto\", \"text\", \"json\" or \"logfmt\"".to_owned())
    });
    let level = section.parsed(gathered, "level", LogLevel::default(), |text| {
        let known = LogLevel::ALL.into_iter().find(|known| known.name() == text);
        known.ok_or_else(|| "write \"error\", \"warn\", \"info\", \"debug\" or \"trace\"".to_owned())
    });
    section.finish(gathered);
    LogOutput { format, level }
}

impl LogOutput {
    /// Keys that have another value in `other`.
    pub(super) fn differ(self, other: Self) -> [(&'static str, bool); 2] {
        let Self { format, level } = self;
        [("log_output.format", format != other.format), ("log_output.level", level != other.level)]
    }
}
