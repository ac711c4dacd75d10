//! What a program is confined to: `user`, `umask` and `limits`.
//!
//! Owns what these keys may say. Whether there is such a user, and whether the machine allows it, is found out elsewhere.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::section::{Gathered, Section};

const DAY: Duration = Duration::from_secs(86_400);
const KIB: u64 = 1 << 10;
const TIB: u64 = 1 << 40;

/// `user`, `umask` and `limits`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Confinement {
    /// The user that the program runs as; `None`: biotope's own.
    pub user: Option<String>,
    /// Permissions that its files do not get; `None`: biotope's own mask.
    pub umask: Option<u32>,
    /// What it may use.
    pub limits: Limits,
}

/// `limits`: what a program may use, each process of it; `None`: as much as biotope itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Address space, in bytes.
    pub memory: Option<u64>,
    /// Descriptors.
    pub open_files: Option<u64>,
    /// Processes and threads of its user, all together.
    pub processes: Option<u64>,
    /// Processor time, in seconds.
    pub cpu: Option<u64>,
    /// Size of a file that it writes, in bytes.
    pub file_size: Option<u64>,
    /// Size of a core dump, in bytes.
    pub core: Option<u64>,
}

/// Reads the three keys of a worker's table.
pub(super) fn read(gathered: &mut Gathered, section: &mut Section<'_>) -> Confinement {
    let user = section.text(gathered, "user").and_then(|(user, span)| {
        if user.is_empty() || user.contains([':', '\n', '\0']) {
            let message = format!("`{}` cannot be {user:?}", section.path_of("user"));
            gathered.add(span, message, "write the name of a user of this machine");
            return None;
        }
        Some(user)
    });
    let umask = section.parsed(gathered, "umask", None, |text| {
        let digits = text.len() == 3 || (text.len() == 4 && text.starts_with('0'));
        let mask = u32::from_str_radix(text, 8).ok().filter(|_| digits && !text.starts_with('+'));
        mask.map(Some).ok_or_else(|| "write three octal digits, like \"027\"".to_owned())
    });
    let limits = limits(gathered, section);
    Confinement { user, umask, limits }
}

fn limits(gathered: &mut Gathered, section: &mut Section<'_>) -> Limits {
    let mut inner = section.section(gathered, "limits");
    let memory = size(gathered, &mut inner, "memory", 64 * KIB);
    // Three are its standard streams, and the loader needs one.
    let open_files = number(gathered, &mut inner, "open_files", 4);
    let processes = number(gathered, &mut inner, "processes", 1);
    let second = Duration::from_secs(1);
    let has_cpu = inner.has("cpu");
    let cpu = inner.duration(gathered, "cpu", second, second..=7 * DAY);
    // The kernel counts whole seconds.
    let cpu = has_cpu.then_some(cpu.as_secs() + u64::from(cpu.subsec_nanos() > 0));
    let file_size = size(gathered, &mut inner, "file_size", 0);
    let core = size(gathered, &mut inner, "core", 0);
    inner.finish(gathered);
    Limits { memory, open_files, processes, cpu, file_size, core }
}

fn size(gathered: &mut Gathered, section: &mut Section<'_>, key: &'static str, least: u64) -> Option<u64> {
    let is_there = section.has(key);
    let size = section.size(gathered, key, least, least..=64 * TIB);
    is_there.then_some(size)
}

fn number(gathered: &mut Gathered, section: &mut Section<'_>, key: &'static str, least: u32) -> Option<u64> {
    let is_there = section.has(key);
    let number = section.number(gathered, key, least, least..=1 << 30);
    is_there.then_some(number.into())
}
