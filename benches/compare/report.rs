//! The table: what was measured, the floor beside it, the ratio, and what is wanted.

use std::fmt::Write;
use std::path::Path;
use std::{fs, io};

/// What a target asks of a number.
#[derive(Clone, Copy)]
pub enum Wanted {
    AtMost(f64),
    AtLeast(f64),
    /// Measured for its own sake.
    Nothing,
}

impl Wanted {
    fn verdict(self, value: f64) -> &'static str {
        match self {
            Self::AtMost(limit) if value <= limit => "met",
            Self::AtLeast(limit) if value >= limit => "met",
            Self::Nothing => "",
            _ => "**missed**",
        }
    }

    fn words(self, unit: Unit) -> String {
        match self {
            Self::AtMost(limit) => format!("≤ {}", unit.show(limit)),
            Self::AtLeast(limit) => format!("≥ {}", unit.show(limit)),
            Self::Nothing => String::new(),
        }
    }
}

#[derive(Clone, Copy)]
pub enum Unit {
    /// Given in seconds.
    Time,
    /// A number a second.
    Rate,
    Bytes,
    /// One over another.
    Ratio,
    /// Given as a share of one.
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

struct Line {
    target: u8,
    what: String,
    measured: String,
    floor: String,
    compared: String,
    wanted: String,
    verdict: &'static str,
}

/// The table as it grows; each line is printed as it comes.
#[derive(Default)]
pub struct Report {
    lines: Vec<Line>,
    /// What was found out beside the numbers.
    notes: Vec<String>,
}

impl Report {
    /// A number that has to be so by itself.
    pub fn number(&mut self, target: u8, what: &str, value: f64, unit: Unit, wanted: Wanted) {
        self.push(Line {
            target,
            what: what.into(),
            measured: unit.show(value),
            floor: String::new(),
            compared: String::new(),
            wanted: wanted.words(unit),
            verdict: wanted.verdict(value),
        });
    }

    /// A number and its floor; what is wanted is said of their ratio.
    pub fn ratio(&mut self, target: u8, what: &str, unit: Unit, value: f64, floor: (&str, f64), wanted: Wanted) {
        let ratio = value / floor.1;
        self.push(Line {
            target,
            what: what.into(),
            measured: unit.show(value),
            floor: format!("{} {}", floor.0, unit.show(floor.1)),
            compared: format!("{ratio:.2}"),
            wanted: wanted.words(Unit::Ratio),
            verdict: wanted.verdict(ratio),
        });
    }

    pub fn note(&mut self, text: String) {
        println!("    {text}");
        self.notes.push(text);
    }

    fn push(&mut self, line: Line) {
        println!(
            "{}  {:<58} {:>12}  {:<34} {:>6}  {:<10} {}",
            line.target, line.what, line.measured, line.floor, line.compared, line.wanted, line.verdict
        );
        self.lines.push(line);
    }

    fn markdown(&self) -> String {
        let mut text =
            String::from("| | what | measured | floor | ratio | wanted | |\n|---|---|---|---|---|---|---|\n");
        for line in &self.lines {
            let Line { target, what, measured, floor, compared, wanted, verdict } = line;
            _ = writeln!(text, "| {target} | {what} | {measured} | {floor} | {compared} | {wanted} | {verdict} |");
        }
        if !self.notes.is_empty() {
            text.push('\n');
        }
        for note in &self.notes {
            _ = writeln!(text, "- {note}");
        }
        text
    }

    /// Puts the table into a file, in place of what stands between its two marks.
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
