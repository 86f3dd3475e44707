//! Tables in Markdown, and the machine that their figures are of.
//!
//! A figure is the median of several runs with the lowest and the highest behind it: a mean would let one run in which
//! the machine did something else decide.

use std::fmt;
use std::fs;
use std::process::Command;

use everpoll_tests::database;

/// A table, to be printed.
pub(crate) struct Table {
    title: String,
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
    notes: Vec<String>,
}

impl Table {
    /// An empty table. The first column names the rows.
    pub(crate) fn new(title: &str, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|&column| column.to_owned()).collect();
        Self { title: title.to_owned(), columns, rows: Vec::new(), notes: Vec::new() }
    }

    /// Appends a row.
    pub(crate) fn row(&mut self, name: impl Into<String>, cells: impl IntoIterator<Item = String>) {
        let mut row = vec![name.into()];
        row.extend(cells);
        assert_eq!(row.len(), self.columns.len(), "a cell for each column of {}", self.title);
        self.rows.push(row);
    }

    /// Appends a sentence below the table.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "### {}\n", self.title)?;
        writeln!(f, "| {} |", self.columns.join(" | "))?;
        writeln!(f, "| --- |{}", " ---: |".repeat(self.columns.len() - 1))?;
        for row in &self.rows {
            writeln!(f, "| {} |", row.join(" | "))?;
        }
        for note in &self.notes {
            writeln!(f, "\n{note}")?;
        }
        Ok(())
    }
}

/// The median of some samples.
///
/// # Panics
///
/// When there are none.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

/// `median (lowest–highest)`, with so many decimals.
pub(crate) fn spread(samples: &[f64], decimals: usize) -> String {
    let low = samples.iter().copied().fold(f64::INFINITY, f64::min);
    let high = samples.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let number = |value: f64| grouped(value, decimals);
    format!("{} ({}–{})", number(median(samples)), number(low), number(high))
}

/// What the figures were measured on, as a sentence.
pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let value = text.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(':'));
        value.map_or_else(|| "unknown".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let kilobytes: f64 =
        field("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse().unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let postgres = first_line(database::tool("postgres").arg("--version"));
    // nginx tells its version on the other output.
    let nginx = first_line(Command::new("sh").args(["-c", "PATH=$PATH:/usr/sbin nginx -v 2>&1"]));
    format!(
        "Measured on {cores} cores ({}), {:.0} GB of memory, Linux {}, {postgres}, {nginx}, SQLite {}.",
        field("/proc/cpuinfo", "model name"),
        kilobytes / 1024.0 / 1024.0,
        kernel.trim(),
        rusqlite::version(),
    )
}

fn first_line(command: &mut Command) -> String {
    let output = command.output().map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    output.unwrap_or_default().lines().next().unwrap_or("(not installed)").to_owned()
}

/// With commas between thousands.
fn grouped(value: f64, decimals: usize) -> String {
    let plain = format!("{value:.decimals$}");
    let whole = plain.find('.').unwrap_or(plain.len());
    let mut text = String::new();
    for (at, character) in plain.char_indices() {
        if at > 0 && at < whole && (whole - at) % 3 == 0 {
            text.push(',');
        }
        text.push(character);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_shows_the_median_and_both_ends() {
        assert_eq!(spread(&[3.0, 1.0, 1234.0], 0), "3 (1–1,234)");
        assert_eq!(spread(&[1.0, 2.0], 1), "1.5 (1.0–2.0)");
    }

    #[test]
    fn table_is_markdown() {
        let mut table = Table::new("T", &["a", "b"]);
        table.row("x", ["1".to_owned()]);
        table.note("So it is.");
        assert_eq!(table.to_string(), "### T\n\n| a | b |\n| --- | ---: |\n| x | 1 |\n\nSo it is.\n");
    }
}
