//! From text to a [`Config`], or to everything that is wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeTable;

use super::problem::{Places, Problem, Problems};
use super::section::{Gathered, Section, closest};
use super::{
    Config, FreeMin, LogConfig, SyncPolicy, WorkerConfig, access, concurrency, log_output, serving, units, worker,
};
use crate::limits::{
    DISK_FREE_MIN_DEFAULT, DISK_SEGMENTS_MIN, PAYLOAD_BYTES_MAX_DEFAULT, PAYLOAD_BYTES_MAX_MAX,
    RESULT_BYTES_MAX_DEFAULT, RESULT_BYTES_MAX_MAX, RETAIN_BYTES_DEFAULT, SCRUB_RATE_DEFAULT, SEGMENT_BYTES_DEFAULT,
    SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, TYPES_MAX,
};
use crate::types::WorkerType;

const DAY: Duration = Duration::from_secs(86_400);

/// A config and where its keys stand.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// The config.
    pub config: Config,
    /// Where its keys stand.
    pub places: Places,
}

/// A config as far as it can be read, and what is wrong with it: for who has more to check, and tells all at once.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// What could be read; what could not has its default, and a worker type without a kind is left out.
    pub config: Config,
    /// Where its keys stand.
    pub places: Places,
    /// What is wrong with it. With any problem in here the config must not be used.
    pub problems: Vec<Problem>,
}

impl Draft {
    /// Whether a problem lies in the value of a key like `http`, or in one of its own keys.
    pub fn is_wrong_at(&self, key: &str) -> bool {
        let inner = format!("{key}.");
        let mut spans = self.places.spans.iter().filter(|(name, _)| *name == key || name.starts_with(&inner));
        spans.any(|(_, span)| self.problems.iter().any(|problem| problem.span == *span))
    }
}

/// Parses a config. `file` is what messages call it; `natives` are the types with a worker in this program.
///
/// # Errors
/// Every problem, each with its place and a remedy.
pub fn parse(file: &str, text: &str, natives: &BTreeSet<String>) -> Result<Parsed, Problems> {
    let Draft { config, places, problems } = draft(file, text, natives)?;
    if problems.is_empty() { Ok(Parsed { config, places }) } else { Err(places.problems(problems)) }
}

/// Parses a config, and gives back what could be read of it beside its problems.
///
/// # Errors
/// The text is no TOML.
pub fn draft(file: &str, text: &str, natives: &BTreeSet<String>) -> Result<Draft, Problems> {
    let mut gathered = Gathered::default();
    gathered.places.file = file.to_owned();
    gathered.places.text = text.to_owned();
    let (root, errors) = DeTable::parse_recoverable(text);
    let only_duplicates = syntax_problems(&mut gathered, text, &errors);
    if !only_duplicates {
        // What else is wrong with a text of broken syntax would be guesswork.
        return Err(Problems::new(file, text, gathered.problems));
    }
    let config = read(&mut gathered, root.get_ref(), natives);
    Ok(Draft { config, places: gathered.places, problems: gathered.problems })
}

/// The data directory that a text names, as written, whatever else is wrong with it. `None` where it may name one that cannot
/// be read: a guess could lead to another one's log.
pub fn data_dir_of(text: &str) -> Option<PathBuf> {
    const KEY: &str = "data_dir";
    let (root, errors) = DeTable::parse_recoverable(text);
    let names = |line: &str| line.trim_start().trim_start_matches(['"', '\'']).starts_with(KEY);
    let mut lines = text.lines().enumerate().filter(|(_, line)| names(line)).map(|(number, _)| number);
    let Some(line) = lines.next() else { return Some(PathBuf::from("data")) };
    let number_at = |at: usize| text.get(..at).map(|before| before.bytes().filter(|byte| *byte == b'\n').count());
    let is_wrong = |error: &toml::de::Error| error.span().is_none_or(|span| number_at(span.start) == Some(line));
    let (_, value) = root.get_ref().iter().find(|(name, _)| name.get_ref() == KEY)?;
    let is_it = number_at(value.span().start) == Some(line) && lines.next().is_none() && !errors.iter().any(is_wrong);
    let named = value.get_ref().as_str().filter(|named| is_it && !named.is_empty())?;
    Some(PathBuf::from(named))
}

/// Notes what the parser found. Returns whether the text can be read on: its only errors are keys and tables given twice.
fn syntax_problems(gathered: &mut Gathered, text: &str, errors: &[toml::de::Error]) -> bool {
    let mut only_duplicates = true;
    let mut in_second_table = false;
    let mut read_up_to = 0;
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        if error.message() != "duplicate key" {
            only_duplicates = false;
            gathered.add(span, error.message(), "");
            continue;
        }
        let line_start = text.get(..span.start).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
        let is_header = text.get(line_start..).is_some_and(|line| line.trim_start().starts_with('['));
        let name = text.get(span.clone()).unwrap_or_default();
        // The keys of a table that is given twice are duplicates, too: one word is enough for all of them.
        let between = text.get(read_up_to..line_start).unwrap_or_default();
        in_second_table &= !between.lines().any(|line| line.trim_start().starts_with('['));
        if is_header {
            in_second_table = true;
            gathered.add(span.clone(), format!("table `{name}` is given twice"), "merge the two, or rename one");
        } else if !in_second_table {
            gathered.add(span.clone(), format!("`{name}` is given twice"), "leave one of them");
        }
        read_up_to = line_start + usize::from(is_header);
    }
    only_duplicates
}

fn read(gathered: &mut Gathered, root: &DeTable<'_>, natives: &BTreeSet<String>) -> Config {
    let mut top = Section::new("", 0..0, Some(root));
    let data_dir = top.parsed(gathered, "data_dir", PathBuf::from("data"), |text| match text {
        "" => Err("name a directory, like \"data\"".to_owned()),
        text => Ok(PathBuf::from(text)),
    });
    let stop_timeout =
        top.duration(gathered, "stop_timeout", Duration::from_secs(25), Duration::ZERO..=Duration::from_secs(3600));
    let workers_max = concurrency::workers_max(gathered, &mut top);
    let core_dumps = top.flag(gathered, "core_dumps", false);
    let mut http = top.section(gathered, "http");
    let (listen, serving) = serving::read(gathered, &mut http);
    let access = access::read(gathered, &mut http, listen);
    http.finish(gathered);
    let log = top.section(gathered, "log");
    let log = log_config(gathered, log);
    let log_output = top.section(gathered, "log_output");
    let log_output = log_output::read(gathered, log_output);
    let mut history = top.section(gathered, "history");
    let history_index = history.parsed(gathered, "index", true, |text| match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("write \"on\", or \"off\": then a search reads the log".to_owned()),
    });
    history.finish(gathered);
    let workers = top.section(gathered, "workers");
    let table =
        root.iter().find(|(name, _)| name.get_ref() == "workers").and_then(|(_, value)| value.get_ref().as_table());
    let workers = worker_configs(gathered, &workers, table, natives);
    if !root.iter().any(|(name, _)| name.get_ref() == "workers") || table.is_some_and(|table| table.is_empty()) {
        gathered.add(
            0..0,
            "no worker type",
            "add one, for instance:\n[workers.hello]\nversion = \"v1\"\nexec = [\"cat\"]",
        );
    }
    top.finish(gathered);
    let workers_max = concurrency::budget(gathered, workers_max, &workers);
    Config {
        data_dir,
        stop_timeout,
        workers_max,
        core_dumps,
        listen,
        serving,
        access,
        log,
        log_output,
        history_index,
        workers,
    }
}

fn log_config(gathered: &mut Gathered, mut log: Section<'_>) -> LogConfig {
    let usize_of = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let segment = log.size(gathered, "segment", SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX);
    let config = LogConfig {
        sync: log.parsed(gathered, "sync", SyncPolicy::Always, sync_policy),
        retain: log.size(gathered, "retain", RETAIN_BYTES_DEFAULT, 0..=1 << 50),
        segment,
        disk_max: log.parsed(gathered, "disk_max", None, |text| disk_max(text, segment).map(Some)),
        disk_free_min: log.parsed(gathered, "disk_free_min", FreeMin::Share(DISK_FREE_MIN_DEFAULT), free_min),
        payload_max: usize_of(log.size(
            gathered,
            "payload_max",
            PAYLOAD_BYTES_MAX_DEFAULT as u64,
            1..=PAYLOAD_BYTES_MAX_MAX as u64,
        )),
        result_max: usize_of(log.size(
            gathered,
            "result_max",
            RESULT_BYTES_MAX_DEFAULT as u64,
            0..=RESULT_BYTES_MAX_MAX as u64,
        )),
        dead_retain: log.duration(gathered, "dead_retain", 90 * DAY, Duration::ZERO..=3660 * DAY),
        dead_max: log.number(gathered, "dead_max", 100_000, 0..=10_000_000) as usize,
        scrub: log.parsed(gathered, "scrub", Some(7 * DAY), scrub),
        scrub_rate: log.size(gathered, "scrub_rate", SCRUB_RATE_DEFAULT, 1 << 20..=1 << 40),
    };
    log.finish(gathered);
    config
}

fn disk_max(text: &str, segment: u64) -> Result<u64, String> {
    let least = DISK_SEGMENTS_MIN * segment;
    match units::size(text)? {
        bytes if bytes < least => {
            let (least, segment) = (units::show_size(least), units::show_size(segment));
            Err(format!("it must be {least:?} at least: {DISK_SEGMENTS_MIN} segments (`log.segment` is {segment})"))
        }
        bytes => Ok(bytes),
    }
}

fn free_min(text: &str) -> Result<FreeMin, String> {
    if text.contains('%') {
        return units::percent(text).map(FreeMin::Share);
    }
    units::size(text).map(FreeMin::Bytes).map_err(|help| format!("{help}, or a share, like \"5%\""))
}

fn scrub(text: &str) -> Result<Option<Duration>, String> {
    match (text, units::duration(text)) {
        ("off", _) => Ok(None),
        (_, Ok(every)) if every >= Duration::from_millis(10) && every <= 3660 * DAY => Ok(Some(every)),
        _ => Err("write a time like \"7d\" (10ms to 3660d), or \"off\"".to_owned()),
    }
}

fn sync_policy(text: &str) -> Result<SyncPolicy, String> {
    match text {
        "always" => return Ok(SyncPolicy::Always),
        "never" => return Ok(SyncPolicy::Never),
        _ => {}
    }
    let every = text.strip_prefix("every ").map(units::duration);
    match every {
        Some(Ok(every)) if every >= Duration::from_millis(1) && every <= Duration::from_secs(60) => {
            Ok(SyncPolicy::Every(every))
        }
        _ => {
            Err("write \"always\" (nothing acknowledged is lost), \"every 5ms\" (1ms to 60s), or \"never\"".to_owned())
        }
    }
}

fn worker_configs(
    gathered: &mut Gathered,
    section: &Section<'_>,
    table: Option<&DeTable<'_>>,
    natives: &BTreeSet<String>,
) -> Vec<WorkerConfig> {
    let mut workers = Vec::new();
    let mut on_dead = BTreeMap::new();
    for (name, value) in table.into_iter().flatten() {
        let worker_type: Result<WorkerType, _> = name.get_ref().parse();
        if let Err(bad) = &worker_type {
            let message = format!("the name of worker type {:?} {bad}", name.get_ref());
            gathered.add(name.span(), message, "rename it, for instance to \"order-processor\"");
        }
        let path = section.path_of(name.get_ref());
        let Some(inner) = value.get_ref().as_table() else {
            let message = format!("`{path}` is {}, not a table", super::section::kind(value));
            gathered.add(value.span(), message, format!("write [{path}]"));
            continue;
        };
        gathered.places.spans.insert(path.clone(), name.span());
        let inner = Section::new(&path, name.span(), Some(inner));
        let worker::Table { version, kind, live } = worker::read(gathered, inner, name.get_ref(), natives);
        let Ok(worker_type) = worker_type else { continue };
        on_dead.insert(worker_type.clone(), live.on_dead.clone());
        if let Some(kind) = kind {
            // Its lack is among the problems; what the kind names is looked up all the same.
            let version = version.unwrap_or_else(|| "unknown".parse().expect("a label"));
            workers.push(WorkerConfig { worker_type, version, kind, live });
        }
    }
    let count = table.into_iter().flatten().count();
    if count > TYPES_MAX {
        gathered.add(section.span(), format!("{count} worker types, the most is {TYPES_MAX}"), "");
    }
    check_on_dead(gathered, &on_dead);
    workers.sort_by(|a: &WorkerConfig, b| a.worker_type.cmp(&b.worker_type));
    workers
}

/// Who gets whose dead jobs' summaries; every well-named type of the file is in here.
type OnDead = BTreeMap<WorkerType, Option<WorkerType>>;

/// Whether the chain of `on_dead` comes back to where it began.
fn leads_back(first: &WorkerType, on_dead: &OnDead) -> bool {
    let next = |at: &WorkerType| on_dead.get(at).cloned().flatten();
    // A chain that comes back later than this runs in a circle that does not hold `first`.
    let mut chain = std::iter::successors(next(first), next).take(on_dead.len());
    chain.any(|worker_type| worker_type == *first)
}

/// `on_dead` must name another type of this file, and not in a circle.
fn check_on_dead(gathered: &mut Gathered, on_dead: &OnDead) {
    for (worker_type, to) in on_dead {
        let Some(to) = to else { continue };
        let key = format!("workers.{worker_type}.on_dead");
        let (message, help) = if to == worker_type {
            (format!("`{key}` names its own type"), "a dead job's summary goes to another type".to_owned())
        } else if !on_dead.contains_key(to) {
            let close = closest(to.as_str(), on_dead.keys().map(WorkerType::as_str));
            let help = close.map_or_else(|| format!("add [workers.{to}]"), |close| format!("did you mean {close:?}?"));
            (format!("`{key}` names {to:?}, which is no worker type of this file"), help)
        } else if leads_back(worker_type, on_dead) {
            let help = "end the chain: a summary that dies has nobody left to tell".to_owned();
            (format!("`{key}` leads back to {worker_type} itself"), help)
        } else {
            continue;
        };
        gathered.add_at(&key, message, help);
    }
}
