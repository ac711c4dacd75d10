//! What a program says unasked. What it means is told; what is not understood means nothing: no job depends on it.

use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Event, Session};
use crate::limits::LOG_LINE_BYTES_MAX;
use crate::types::Lease;
use crate::worker::output::front;
use crate::worker::progress::Progress;

/// Something for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::worker) struct LogLine {
    /// The job that it is about, if it names one that is open.
    pub(in crate::worker) lease: Option<Lease>,
    pub(in crate::worker) level: Level,
    /// Cut, and as it was written.
    pub(in crate::worker) text: String,
}

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::worker) enum Level {
    Debug,
    #[default]
    Info,
    #[serde(alias = "warning")]
    Warn,
    Error,
}

#[derive(Deserialize)]
struct Extend {
    id: String,
    ms: Option<u64>,
}

#[derive(Deserialize)]
struct Progressed {
    id: String,
    fraction: Option<f64>,
    percent: Option<f64>,
    text: Option<String>,
}

#[derive(Deserialize)]
struct Log {
    id: Option<String>,
    #[serde(default)]
    level: Level,
    text: String,
}

impl Session {
    /// What a notification means.
    pub(super) fn handle_notice(&self, method: &str, params: &RawValue) -> Option<Event> {
        match method {
            "extend" => {
                let Extend { id, ms } = serde_json::from_str(params.get()).ok()?;
                Some(Event::Extended(self.open(&id)?, ms.map(Duration::from_millis)))
            }
            "progress" => {
                let said: Progressed = serde_json::from_str(params.get()).ok()?;
                let fraction = said.fraction.or(said.percent.map(|percent| percent / 100.0));
                Some(Event::Progressed(self.open(&said.id)?, Progress::new(fraction, said.text.as_deref())))
            }
            "log" => Some(Event::Log(self.log_line(params))),
            _ => None,
        }
    }

    fn log_line(&self, params: &RawValue) -> LogLine {
        let cut = |text: &str| front(text, LOG_LINE_BYTES_MAX).to_owned();
        match serde_json::from_str::<Log>(params.get()) {
            Ok(Log { id, level, text }) => LogLine { lease: id.and_then(|id| self.open(&id)), level, text: cut(&text) },
            Err(_) => LogLine { lease: None, level: Level::Info, text: cut(params.get()) },
        }
    }

    /// The job of this id, if it is not answered yet: for any other one it comes too late.
    fn open(&self, id: &str) -> Option<Lease> {
        self.jobs.get(id).filter(|asked| !asked.answered).map(|asked| asked.lease)
    }
}
