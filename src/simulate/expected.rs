//! What a campaign must have seen, so that nobody takes for proven what never happened.
//!
//! Each line: a column of the figures, the number of worlds from which on it is asked for, and its rows. A number is so
//! large that thirty of each are to be expected; what is rarer than one in three thousand worlds is not asked for.

use super::figures::Figures;

const EXPECTED: &[(&str, u64, &[&str])] = &[
    ("ForEver fault while opening", 5_000, &["Read"]),
    (
        "ForEver fault while opening",
        20_000,
        &["Allocate", "Create", "Open", "Remove", "Rename", "Sync", "SyncDir", "Write"],
    ),
    ("ForEver fault while serving", 1_000, &["Read", "Sync", "Write"]),
    ("ForEver fault while serving", 5_000, &["Remove"]),
    ("ForEver fault while serving", 20_000, &["Create"]),
    ("ForEver fault while serving", 100_000, &["Allocate", "Rename", "SyncDir"]),
    ("Once fault while opening", 5_000, &["Read"]),
    ("Once fault while opening", 20_000, &["Open", "Rename", "Sync", "SyncDir", "Write"]),
    ("Once fault while serving", 1_000, &["Sync", "Write"]),
    ("Once fault while serving", 5_000, &["Read"]),
    ("Once fault while serving", 20_000, &["Allocate", "Create"]),
    ("Once fault while serving", 100_000, &["Rename", "SyncDir"]),
    ("Power fault while opening", 1_000, &["Open", "Read", "Remove", "Rename", "Sync", "Write"]),
    ("Power fault while opening", 5_000, &["Allocate", "Create", "SyncDir"]),
    ("Power fault while serving", 1_000, &["Read", "Sync", "Write"]),
    ("Power fault while serving", 5_000, &["Remove"]),
    ("Power fault while serving", 20_000, &["Create"]),
    ("Power fault while serving", 100_000, &["Allocate", "Rename", "SyncDir"]),
    ("crash", 1_000, &["in an opening", "in an opening twice", "of the machine", "of the process"]),
    ("crash", 20_000, &["in an opening three times"]),
    ("fault", 1_000, &["no space"]),
    ("opening", 1_000, &["cut a torn tail", "whole"]),
    ("opening", 5_000, &["with a probation that goes on"]),
    ("held", 1_000, &["I1", "I2", "I3", "I4", "I5", "I7", "I9", "I10", "I11", "I12", "O5", "L1"]),
    (
        "operation",
        1_000,
        &[
            "act",
            "clean",
            "crash",
            "fail",
            "finish",
            "jump",
            "late",
            "make a segment",
            "pool ends",
            "pool not up",
            "pool up",
            "purge",
            "push",
            "redrive",
            "reload",
            "rot",
            "say",
            "space",
            "stall",
            "stop",
            "take",
            "turn",
            "wait",
        ],
    ),
    (
        "refused",
        1_000,
        &["an older lease", "disk full", "duplicate", "key_conflict", "too_large", "unknown_type", "unreadable"],
    ),
    ("rot", 1_000, &["noticed by a reader", "refused"]),
    ("rot", 20_000, &["not read, by a checkpoint's grace"]),
    (
        "work",
        1_000,
        &[
            "cleaning",
            "dead too long",
            "expired",
            "follow-up",
            "given back unworked",
            "handed to a version that it needs",
            "held for want of a version",
            "made up for",
            "no thread",
            "summary of a dead job",
        ],
    ),
    ("word", 1_000, &["done", "refused"]),
    ("work", 1_000, &["a panic"]),
    ("work", 5_000, &["redriven by its version"]),
    ("work", 20_000, &["a panic while it drains"]),
];

/// What should have happened in so many worlds, and never did.
pub(super) fn missing(figures: &Figures, worlds: u64) -> Vec<String> {
    let asked = EXPECTED.iter().filter(|(_, floor, _)| worlds >= *floor);
    let rows = asked.flat_map(|(column, _, rows)| rows.iter().map(move |row| (column, row)));
    let none = rows.filter(|(column, row)| figures.get(column, row) == 0);
    none.map(|(column, row)| format!("{column}: {row}")).collect()
}
