//! What biotope says of itself, on stderr: who sees which lines, and how they look.
//!
//! Owns the level, the shape of lines, and the marks of levels where the journal takes them. A terminal gets lines for
//! people, everything else gets logfmt, if the config (`[log_output]`) does not say otherwise; both may change while it runs.
//! Never shows what a line could do to a terminal, or begin a line of its own with: see [`line`]. Where stderr leads is the
//! business of whoever starts the program; [`LogFile`] opens it again.

mod line;
mod reopen;

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::clock::{Clock, RealClock};
use crate::config::{LogFormat, LogLevel, LogOutput};
use line::{Line, Look};
pub(crate) use reopen::LogFile;

/// The variable that says, instead of the config, which lines are written: `debug`, or `biotope::log=trace,warn`.
const VARIABLE: &str = "BIOTOPE_LOG";
/// The variable that says, instead of the config, how lines look.
const FORMAT_VARIABLE: &str = "BIOTOPE_LOG_FORMAT";
/// What lines of the audit are marked with.
pub(crate) const AUDIT: &str = "audit";

/// What the process says, and how. Set once.
static OUTPUT: OnceLock<Output> = OnceLock::new();

struct Output {
    stderr: Stderr,
    /// A [`LogFormat`]. Written by whoever takes a config over, read for each line; stands for itself, so relaxed.
    format: AtomicU8,
    /// A [`LogLevel`]; as `format`.
    level: AtomicU8,
    /// What the environment says, which goes before the config.
    asked: Option<LogFormat>,
    /// Whether a config has said how lines are to look; as `format`.
    told: AtomicBool,
}

/// Where stderr led when the program began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stderr {
    /// To a person.
    Terminal,
    /// To systemd's journal, which knows the time, and takes a level in front of each line.
    Journal,
    /// To a file, a pipe or the like.
    Elsewhere,
}

impl Stderr {
    fn of_process() -> Self {
        let journal = std::env::var("JOURNAL_STREAM").unwrap_or_default();
        match rustix::fs::fstat(io::stderr()) {
            Ok(stat) if is_journal(&journal, stat.st_dev, stat.st_ino) => Self::Journal,
            _ if io::stderr().is_terminal() => Self::Terminal,
            _ => Self::Elsewhere,
        }
    }
}

/// Whether that is what systemd says it has connected: `DEVICE:INODE`.
fn is_journal(said: &str, device: u64, inode: u64) -> bool {
    said.split_once(':').is_some_and(|(dev, ino)| dev.parse() == Ok(device) && ino.parse() == Ok(inode))
}

fn asked_format() -> Option<LogFormat> {
    let asked = std::env::var(FORMAT_VARIABLE).ok()?;
    LogFormat::ALL.into_iter().find(|one| one.name() == asked)
}

/// Has everything said on stderr from now on, as long as no config was read as `auto` and from `info` on.
pub(crate) fn start() {
    let output = OUTPUT.get_or_init(|| Output {
        stderr: Stderr::of_process(),
        asked: asked_format(),
        format: AtomicU8::new(LogFormat::default() as u8),
        level: AtomicU8::new(LogLevel::default() as u8),
        told: AtomicBool::new(false),
    });
    let asked = std::env::var(VARIABLE).ok().filter(|asked| !asked.is_empty());
    let (filter, wrong): (Box<dyn Layer<Registry> + Send + Sync>, _) = match asked.as_deref().map(EnvFilter::try_new) {
        Some(Ok(filter)) => (Box::new(filter), None),
        Some(Err(error)) => (Box::new(Levels(output)), Some(error)),
        None => (Box::new(Levels(output)), None),
    };
    // A program that embeds this may have one already.
    drop(tracing_subscriber::registry().with(filter).with(Lines(output)).try_init());
    if let Some(error) = wrong {
        tracing::warn!(%error, "{VARIABLE} is no filter, and is not heard; like: debug, or warn,biotope::engine=debug");
    }
}

/// Does as a config says, from now on.
pub(crate) fn use_config(config: LogOutput) {
    let Some(output) = OUTPUT.get() else { return };
    output.format.store(config.format as u8, Ordering::Relaxed);
    output.level.store(config.level as u8, Ordering::Relaxed);
    output.told.store(true, Ordering::Relaxed);
    tracing::callsite::rebuild_interest_cache();
}

/// Says something to whoever looks on: to a person as it is, and else as a line of the log. Whatever the level is, it is said.
pub(crate) fn tell(text: &str) {
    say(Level::INFO, text);
}

/// Says why the process ends: to people as long as no config was read that says otherwise, since they are about to find out
/// why nothing runs.
pub(crate) fn last_word(text: &str) {
    say(Level::ERROR, text);
}

fn say(level: Level, text: &str) {
    match OUTPUT.get() {
        Some(output) if output.look().is_for_machines() && (level != Level::ERROR || output.told()) => {
            let mut line = Line::new(level, None);
            text.trim().clone_into(&mut line.message);
            output.write(&line);
        }
        Some(Output { stderr: Stderr::Journal, .. }) => {
            let marked: Vec<String> = text.lines().map(|part| format!("{}{part}", line::mark(level))).collect();
            drop(writeln!(io::stderr(), "{}", marked.join("\n")));
        }
        _ => drop(writeln!(io::stderr(), "{text}")),
    }
}

impl Output {
    fn told(&self) -> bool {
        self.told.load(Ordering::Relaxed)
    }

    fn look(&self) -> Look {
        let of_config = || LogFormat::ALL.into_iter().find(|one| *one as u8 == self.format.load(Ordering::Relaxed));
        Look::new(self.asked.or_else(of_config).unwrap_or_default(), self.stderr)
    }

    fn level(&self) -> LevelFilter {
        let level = LogLevel::ALL.into_iter().find(|one| *one as u8 == self.level.load(Ordering::Relaxed));
        match level.unwrap_or_default() {
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Trace => LevelFilter::TRACE,
        }
    }

    /// One line, in one write. Who does not take it misses it: nothing waits for that.
    fn write(&self, line: &Line) {
        let at = RealClock.wall_ms();
        drop(io::stderr().write_all(line.shown(self.look(), at).as_bytes()));
    }
}

/// Lets through what the config's level says; of what it is built from, warnings at most; of the audit, everything.
struct Levels(&'static Output);

impl Levels {
    fn lets(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        let is_own = target == "biotope" || target.starts_with("biotope::");
        let most = match target {
            AUDIT => LevelFilter::INFO,
            _ if is_own => self.0.level(),
            _ => self.0.level().min(LevelFilter::WARN),
        };
        *metadata.level() <= most
    }
}

impl<S: Subscriber> Layer<S> for Levels {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.lets(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.lets(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.0.level().max(LevelFilter::INFO))
    }
}

/// Writes what is let through.
struct Lines(&'static Output);

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let target = Some(metadata.target()).filter(|target| *target == AUDIT);
        let mut line = Line::new(*metadata.level(), target);
        event.record(&mut line);
        self.0.write(&line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_is_known_by_what_systemd_says_and_by_nothing_else() {
        assert!(is_journal("9:4711", 9, 4711));
        for said in ["", "9", "9:", ":4711", "9:4712", "8:4711", "9:4711:1", "x:4711", " 9:4711"] {
            assert!(!is_journal(said, 9, 4711), "{said}");
        }
    }
}
