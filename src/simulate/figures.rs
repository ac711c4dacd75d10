//! What happened in a simulation, counted, so that nobody takes for proven what never happened.

use std::collections::BTreeMap;
use std::fmt;

/// Counts by column and row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures(BTreeMap<String, BTreeMap<String, u64>>);

impl Figures {
    /// Counts one.
    pub fn count(&mut self, column: &str, row: &str) {
        self.add(column, row, 1);
    }

    /// Counts many.
    pub fn add(&mut self, column: &str, row: &str, times: u64) {
        if let Some(count) = self.0.get_mut(column).and_then(|rows| rows.get_mut(row)) {
            *count += times;
        } else {
            self.0.entry(column.to_owned()).or_default().insert(row.to_owned(), times);
        }
    }

    /// Adds another simulation's counts.
    pub fn absorb(&mut self, other: &Self) {
        for (column, rows) in &other.0 {
            for (row, times) in rows {
                self.add(column, row, *times);
            }
        }
    }

    /// All counts of a column.
    pub fn total(&self, column: &str) -> u64 {
        self.0.get(column).map_or(0, |rows| rows.values().sum())
    }

    /// A count.
    pub fn get(&self, column: &str, row: &str) -> u64 {
        self.0.get(column).and_then(|rows| rows.get(row)).copied().unwrap_or(0)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (column, rows) in &self.0 {
            let rows: Vec<String> = rows.iter().map(|(row, times)| format!("{row} {times}")).collect();
            writeln!(f, "{column}: {}", rows.join(" · "))?;
        }
        Ok(())
    }
}
