//! The table: each measurement with its floor, their ratio, and the goal.

use std::fmt::Write;
use std::path::Path;
use std::{fs, io};

/// The goal for a number.
#[derive(Clone, Copy)]
pub enum Goal {
    AtMost(f64),
    AtLeast(f64),
    /// There is none.
    None,
}

impl Goal {
    fn verdict(self, value: f64) -> &'static str {
        match self {
            Self::AtMost(limit) if value <= limit => "met",
            Self::AtLeast(limit) if value >= limit => "met",
            Self::None => "",
            _ => "**missed**",
        }
    }

    fn text(self, unit: Unit) -> String {
        match self {
            Self::AtMost(limit) => format!("≤ {}", unit.show(limit)),
            Self::AtLeast(limit) => format!("≥ {}", unit.show(limit)),
            Self::None => String::new(),
        }
    }
}

#[derive(Clone, Copy)]
pub enum Unit {
    /// Given in seconds.
    Time,
    /// Per second.
    Rate,
    Bytes,
    /// One number divided by another.
    Ratio,
    /// A fraction of one, shown in percent.
    Share,
    Count,
}

impl Unit {
    pub fn show(self, value: f64) -> String {
        match self {
            Self::Time if value < 1e-3 => format!("{:.0} µs", value * 1e6),
            Self::Time if value < 1.0 => format!("{:.2} ms", value * 1e3),
            Self::Time => format!("{value:.2} s"),
            Self::Rate => format!("{value:.0}/s"),
            Self::Bytes if value < 10_240.0 => format!("{value:.0} B"),
            Self::Bytes if value < 1_048_576.0 => format!("{:.1} KiB", value / 1024.0),
            Self::Bytes => format!("{:.2} MiB", value / 1_048_576.0),
            Self::Ratio => format!("{value:.2}"),
            Self::Share => format!("{:.3} %", value * 100.0),
            Self::Count if value < 10.0 => format!("{value:.2}"),
            Self::Count => format!("{value:.0}"),
        }
    }
}

struct Row {
    target: u8,
    what: String,
    measured: String,
    floor: String,
    compared: String,
    goal: String,
    verdict: &'static str,
}

/// The table. Each row is printed when it is added.
#[derive(Default)]
pub struct Report {
    rows: Vec<Row>,
    /// Remarks below the table.
    notes: Vec<String>,
}

impl Report {
    /// Adds a number with a goal of its own.
    pub fn number(&mut self, target: u8, what: &str, value: f64, unit: Unit, goal: Goal) {
        self.push(Row {
            target,
            what: what.into(),
            measured: unit.show(value),
            floor: String::new(),
            compared: String::new(),
            goal: goal.text(unit),
            verdict: goal.verdict(value),
        });
    }

    /// Adds a number and its floor, with a goal for their ratio.
    pub fn ratio(&mut self, target: u8, what: &str, unit: Unit, value: f64, floor: (&str, f64), goal: Goal) {
        let ratio = value / floor.1;
        self.push(Row {
            target,
            what: what.into(),
            measured: unit.show(value),
            floor: format!("{} {}", floor.0, unit.show(floor.1)),
            compared: format!("{ratio:.2}"),
            goal: goal.text(Unit::Ratio),
            verdict: goal.verdict(ratio),
        });
    }

    pub fn note(&mut self, text: String) {
        println!("    {text}");
        self.notes.push(text);
    }

    fn push(&mut self, row: Row) {
        println!(
            "{}  {:<58} {:>12}  {:<34} {:>6}  {:<10} {}",
            row.target, row.what, row.measured, row.floor, row.compared, row.goal, row.verdict
        );
        self.rows.push(row);
    }

    fn markdown(&self) -> String {
        let mut text = String::from("| | what | measured | floor | ratio | goal | |\n|---|---|---|---|---|---|---|\n");
        for row in &self.rows {
            let Row { target, what, measured, floor, compared, goal, verdict } = row;
            _ = writeln!(text, "| {target} | {what} | {measured} | {floor} | {compared} | {goal} | {verdict} |");
        }
        if !self.notes.is_empty() {
            text.push('\n');
        }
        for note in &self.notes {
            _ = writeln!(text, "- {note}");
        }
        text
    }

    /// Writes the table into a file, replacing the text between its two marks.
    pub fn write_into(&self, file: &Path) -> io::Result<()> {
        const MARKS: [&str; 2] = ["<!-- table: written by the command above -->\n", "<!-- end of table -->"];
        let text = fs::read_to_string(file)?;
        let parts = text.split_once(MARKS[0]).and_then(|(head, rest)| Some((head, rest.split_once(MARKS[1])?.1)));
        let Some((head, tail)) = parts else {
            return Err(io::Error::other(format!("{} has no place for the table", file.display())));
        };
        fs::write(file, format!("{head}{}\n{}\n{}{tail}", MARKS[0], self.markdown(), MARKS[1]))
    }
}
