//! Tables in Markdown, and the machine that their figures are of.
//!
//! A figure is the median of several runs with the lowest and the highest behind it: a mean would let one run in which
//! the machine did something else decide.

use std::fmt;
use std::fs;
use std::process::Command;

use everpoll_tests::database;
use serde_json::{Value, json};

/// A table, to be printed.
pub(crate) struct Table {
    title: String,
    columns: Vec<String>,
    rows: Vec<Row>,
    compared: Vec<(usize, Better)>,
    notes: Vec<String>,
}

struct Row {
    name: String,
    kind: Kind,
    cells: Vec<Cell>,
}

/// Whose figures a row has.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// The same work without Everpoll.
    Floor,
    Ours,
    /// Another program that does what Everpoll does.
    Peer,
}

/// What a table has in one place.
pub(crate) enum Cell {
    /// Words, a count, or nothing.
    Text(String),
    /// What several runs came to, shown with so many decimals.
    Figure(Vec<f64>, usize),
}

/// Which figures of a column are the good ones.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Better {
    /// Bytes, times.
    Less,
    /// Events or requests a second.
    More,
}

impl Table {
    /// An empty table. The first column names the rows.
    pub(crate) fn new(title: &str, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|&column| column.to_owned()).collect();
        let (rows, compared, notes) = (Vec::new(), Vec::new(), Vec::new());
        Self { title: title.to_owned(), columns, rows, compared, notes }
    }

    /// Appends a row. One whose name begins with `floor` is the floor, which others are compared to; the rest is ours.
    pub(crate) fn row(&mut self, name: impl Into<String>, cells: impl IntoIterator<Item = impl Into<Cell>>) {
        let name = name.into();
        let kind = if name.starts_with("floor") { Kind::Floor } else { Kind::Ours };
        self.append(name, kind, cells);
    }

    /// Appends a row with the figures of another program.
    pub(crate) fn peer(&mut self, name: impl Into<String>, cells: impl IntoIterator<Item = impl Into<Cell>>) {
        self.append(name.into(), Kind::Peer, cells);
    }

    fn append(&mut self, name: String, kind: Kind, cells: impl IntoIterator<Item = impl Into<Cell>>) {
        let cells: Vec<_> = cells.into_iter().map(Into::into).collect();
        assert_eq!(cells.len() + 1, self.columns.len(), "a cell for each column of {}", self.title);
        self.rows.push(Row { name, kind, cells });
    }

    /// Lets our figures in these columns, counted from 1 behind the names, be compared to the floor's and the peers'.
    pub(crate) fn compare(&mut self, better: Better, columns: impl IntoIterator<Item = usize>) {
        self.compared.extend(columns.into_iter().map(|column| (column, better)));
    }

    /// Appends a sentence below the table.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// How a figure of ours stands to the best floor and to the best peer of its column.
    fn ratios(&self, row: &Row, column: usize, better: Better) -> [Option<(f64, &str)>; 2] {
        let Some(ours) = row.cells[column - 1].median() else { return [None, None] };
        [Kind::Floor, Kind::Peer].map(|kind| {
            let others = self.rows.iter().filter(|other| other.kind == kind);
            let others = others.filter_map(|row| Some((row.cells[column - 1].median()?, row.name.as_str())));
            let best = match better {
                Better::Less => others.min_by(|one, two| one.0.total_cmp(&two.0)),
                Better::More => others.max_by(|one, two| one.0.total_cmp(&two.0)),
            };
            best.filter(|(figure, _)| *figure != 0.0).map(|(figure, name)| (ours / figure, name))
        })
    }

    fn fmt_ratios(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ours: Vec<_> = self.rows.iter().filter(|row| row.kind == Kind::Ours).collect();
        if self.compared.is_empty() || ours.is_empty() || ours.len() == self.rows.len() {
            return Ok(());
        }
        let columns: Vec<_> =
            self.compared.iter().map(|(column, _)| self.columns[*column].as_str()).collect();
        writeln!(f, "\n| times the floor; times the best peer | {} |", columns.join(" | "))?;
        writeln!(f, "| --- |{}", " ---: |".repeat(columns.len()))?;
        for row in ours {
            let cells = self.compared.iter().map(|(column, better)| {
                let [floor, peer] = self.ratios(row, *column, *better);
                let floor = floor.map_or_else(String::new, |(ratio, _)| format!("{ratio:.2}"));
                let peer = peer.map_or_else(String::new, |(ratio, name)| format!("; {ratio:.2} ({name})"));
                floor + &peer
            });
            writeln!(f, "| {} | {} |", row.name, cells.collect::<Vec<_>>().join(" | "))?;
        }
        Ok(())
    }

    /// All of it, with each sample, for programs.
    pub(crate) fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let kind = match row.kind {
                Kind::Floor => "floor",
                Kind::Ours => "everpoll",
                Kind::Peer => "peer",
            };
            let ratios = self.compared.iter().filter(|_| row.kind == Kind::Ours).map(|(column, better)| {
                let [floor, peer] = self.ratios(row, *column, *better);
                json!({
                    "column": self.columns[*column],
                    "to_floor": floor.map(|(ratio, _)| ratio),
                    "to_best_peer": peer.map(|(ratio, _)| ratio),
                    "best_peer": peer.map(|(_, name)| name),
                })
            });
            let ratios: Vec<_> = ratios.collect();
            let cells: Vec<_> = row.cells.iter().map(Cell::json).collect();
            json!({ "name": row.name, "kind": kind, "cells": cells, "ratios": ratios })
        });
        let rows: Vec<_> = rows.collect();
        json!({ "title": self.title, "columns": self.columns, "rows": rows, "notes": self.notes })
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "### {}\n", self.title)?;
        writeln!(f, "| {} |", self.columns.join(" | "))?;
        writeln!(f, "| --- |{}", " ---: |".repeat(self.columns.len() - 1))?;
        for Row { name, cells, .. } in &self.rows {
            let cells: Vec<_> = cells.iter().map(ToString::to_string).collect();
            writeln!(f, "| {name} | {} |", cells.join(" | "))?;
        }
        self.fmt_ratios(f)?;
        for note in &self.notes {
            writeln!(f, "\n{note}")?;
        }
        Ok(())
    }
}

impl Cell {
    fn median(&self) -> Option<f64> {
        match self {
            Self::Figure(samples, _) if !samples.is_empty() => Some(median(samples)),
            Self::Figure(..) | Self::Text(_) => None,
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Text(text) => json!(text),
            Self::Figure(samples, _) => json!({
                "median": self.median(),
                "lowest": samples.iter().copied().reduce(f64::min),
                "highest": samples.iter().copied().reduce(f64::max),
                "samples": samples,
            }),
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Figure(samples, _) if samples.is_empty() => Ok(()),
            Self::Figure(samples, decimals) => {
                let low = samples.iter().copied().fold(f64::INFINITY, f64::min);
                let high = samples.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let number = |value: f64| grouped(value, *decimals);
                write!(f, "{} ({}–{})", number(median(samples)), number(low), number(high))
            }
        }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<usize> for Cell {
    fn from(count: usize) -> Self {
        Self::Text(grouped(count as f64, 0))
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
pub(crate) fn spread(samples: &[f64], decimals: usize) -> Cell {
    Cell::Figure(samples.to_vec(), decimals)
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
        assert_eq!(spread(&[3.0, 1.0, 1234.0], 0).to_string(), "3 (1–1,234)");
        assert_eq!(spread(&[1.0, 2.0], 1).to_string(), "1.5 (1.0–2.0)");
        assert_eq!(spread(&[], 1).to_string(), "");
    }

    #[test]
    fn table_is_markdown() {
        let mut table = Table::new("T", &["a", "b"]);
        table.row("x", ["1".to_owned()]);
        table.note("So it is.");
        assert_eq!(table.to_string(), "### T\n\n| a | b |\n| --- | ---: |\n| x | 1 |\n\nSo it is.\n");
    }

    #[test]
    fn our_figures_are_compared_to_the_floor_and_to_the_best_peer() {
        let mut table = Table::new("T", &["ms", "1", "2"]);
        table.row("floor: nothing", [spread(&[10.0], 0), "".into()]);
        table.row("ours", [spread(&[12.0], 0), "".into()]);
        table.peer("slow", [spread(&[48.0], 0), "".into()]);
        table.peer("quick", [spread(&[24.0], 0), "".into()]);
        table.compare(Better::Less, [1]);
        assert!(table.to_string().contains("\n| ours | 1.20; 0.50 (quick) |\n"), "{table}");
        let json = table.json();
        assert_eq!(json["rows"][1]["ratios"][0]["to_best_peer"], 0.5);
        assert_eq!(json["rows"][2]["cells"][0]["samples"][0], 48.0);
    }
}
