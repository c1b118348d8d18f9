//! Tables and sheets without borders, cut to the width of the terminal.

use super::look::{Look, Tone};
use super::text::{cut_end, cut_middle, width};
use crate::domain::text::escaped_line;

const GAP: usize = 2;

/// A column that yields keeps its title, and enough to tell its cells apart.
const LEAST: usize = 6;

/// A column, and what becomes of it when there is too little room.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    title: &'static str,
    right: bool,
    /// Columns with a higher yield are narrowed first; with 0, never.
    yields: u8,
    cut: fn(&str, usize) -> String,
}

impl Column {
    pub const fn new(title: &'static str) -> Self {
        Self { title, right: false, yields: 0, cut: cut_end }
    }

    /// Its cells stand at the right.
    pub const fn right(mut self) -> Self {
        self.right = true;
        self
    }

    /// It gives way, the highest `rank` first.
    pub const fn yields(mut self, rank: u8) -> Self {
        self.yields = rank;
        self
    }

    /// Its cells lose their middle rather than their end.
    pub const fn cut_middle(mut self) -> Self {
        self.cut = cut_middle;
        self
    }
}

#[derive(Clone, Debug)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub fn new(text: impl AsRef<str>) -> Self {
        Self { text: escaped_line(text.as_ref()), tone: Tone::Plain }
    }

    pub const fn tone(mut self, tone: Tone) -> Self {
        self.tone = tone;
        self
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text)
    }
}

#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub fn new(columns: impl Into<Vec<Column>>) -> Self {
        Self { columns: columns.into(), rows: Vec::new() }
    }

    pub fn row(&mut self, cells: impl Into<Vec<Cell>>) {
        self.rows.push(cells.into());
    }

    /// The table as text, a line break at its end.
    pub fn render(&self, look: &Look) -> String {
        let widths = self.widths(look.width);
        let titles: Vec<_> = self.columns.iter().map(|column| Cell::new(column.title).tone(Tone::Dim)).collect();
        std::iter::once(&titles).chain(&self.rows).map(|cells| self.line(cells, &widths, look)).collect()
    }

    fn line(&self, cells: &[Cell], widths: &[usize], look: &Look) -> String {
        let mut line = String::new();
        let mut blanks = 0;
        for ((column, cell), columns) in self.columns.iter().zip(cells).zip(widths) {
            let text = (column.cut)(&cell.text, *columns);
            let padding = columns.saturating_sub(width(&text));
            blanks += if column.right { padding } else { 0 };
            if !text.is_empty() {
                line.push_str(&" ".repeat(blanks));
                line.push_str(&look.paint(&text, cell.tone));
                blanks = 0;
            }
            blanks += GAP + if column.right { 0 } else { padding };
        }
        line.push('\n');
        line
    }

    /// As wide as the widest cell, then narrowed until all fits or nothing yields any more.
    fn widths(&self, limit: Option<usize>) -> Vec<usize> {
        let widest = |(index, column): (usize, &Column)| {
            let cells = self.rows.iter().filter_map(|row| row.get(index)).map(|cell| width(&cell.text));
            cells.chain([width(column.title)]).max().unwrap_or(0)
        };
        let mut widths: Vec<usize> = self.columns.iter().enumerate().map(widest).collect();
        let total = widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
        let mut excess = total.saturating_sub(limit.unwrap_or(usize::MAX));
        for (index, least) in self.yielding() {
            let given = excess.min(widths[index].saturating_sub(least));
            widths[index] -= given;
            excess -= given;
        }
        widths
    }

    /// The columns that give way, in that order, and how narrow each may become.
    fn yielding(&self) -> Vec<(usize, usize)> {
        let mut yielding: Vec<_> = self.columns.iter().enumerate().filter(|(_, column)| column.yields > 0).collect();
        yielding.sort_by_key(|(_, column)| std::cmp::Reverse(column.yields));
        yielding.into_iter().map(|(index, column)| (index, width(column.title).max(LEAST))).collect()
    }
}

/// Names and values, one to a line.
#[derive(Clone, Debug, Default)]
pub struct Sheet(Vec<(&'static str, Vec<Cell>)>);

impl Sheet {
    pub fn row(&mut self, name: &'static str, value: impl Into<Cell>) {
        self.0.push((name, vec![value.into()]));
    }

    /// A value of several parts, each in its own tone.
    pub fn parts(&mut self, name: &'static str, parts: impl Into<Vec<Cell>>) {
        self.0.push((name, parts.into()));
    }

    /// The sheet as text, a line break at its end. Values are never cut: they are here to be copied.
    pub fn render(&self, look: &Look) -> String {
        let column = self.0.iter().map(|(name, _)| width(name)).max().unwrap_or(0) + GAP;
        let line = |(name, parts): &(&str, Vec<Cell>)| {
            let value: String = parts.iter().map(|part| look.paint(&part.text, part.tone)).collect();
            format!("{}{}{value}\n", look.paint(name, Tone::Dim), " ".repeat(column - width(name)))
        };
        self.0.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new([
            Column::new("ID").yields(1).cut_middle(),
            Column::new("MACHINE").yields(2),
            Column::new("STATUS"),
            Column::new("CONTEXT").right(),
            Column::new("EPIC").yields(3),
            Column::new("HEARTBEAT").right(),
        ]);
        table.row([
            "odin-PS-8f4a2b".into(),
            "odin3".into(),
            Cell::new("active").tone(Tone::Good),
            "42%".into(),
            "003 the store that never forgets anything at all, not even this".into(),
            "4m".into(),
        ]);
        table.row([
            "a-rather-long-project-PS-abc123".into(),
            "the-machine-in-the-cellar".into(),
            Cell::new("stale").tone(Tone::Warn),
            "7%".into(),
            "".into(),
            "2.1h".into(),
        ]);
        table
    }

    fn look(width: Option<usize>, colour: bool) -> Look {
        Look { width, colour, ..Look::plain() }
    }

    #[test]
    fn at_200_nothing_is_cut() {
        assert_eq!(
            table().render(&look(Some(200), false)),
            "\
ID                               MACHINE                    STATUS  CONTEXT  EPIC                                                             HEARTBEAT
odin-PS-8f4a2b                   odin3                      active      42%  003 the store that never forgets anything at all, not even this         4m
a-rather-long-project-PS-abc123  the-machine-in-the-cellar  stale        7%                                                                        2.1h
"
        );
    }

    #[test]
    fn at_80_the_epic_gives_way_then_the_machine() {
        assert_eq!(
            table().render(&look(Some(80), false)),
            "\
ID                               MACHINE      STATUS  CONTEXT  EPIC    HEARTBEAT
odin-PS-8f4a2b                   odin3        active      42%  003 t…         4m
a-rather-long-project-PS-abc123  the-machin…  stale        7%               2.1h
"
        );
    }

    #[test]
    fn at_60_ids_lose_their_middle() {
        assert_eq!(
            table().render(&look(Some(60), false)),
            "\
ID               MACHINE  STATUS  CONTEXT  EPIC    HEARTBEAT
odin-PS-8f4a2b   odin3    active      42%  003 t…         4m
a-rathe…-abc123  the-ma…  stale        7%               2.1h
"
        );
    }

    #[test]
    fn every_line_fits() {
        for limit in 60..200 {
            let text = table().render(&look(Some(limit), false));
            assert!(text.lines().all(|line| width(line) <= limit && line.trim_end() == line), "{limit}\n{text}");
        }
    }

    #[test]
    fn colours_do_not_move_anything() {
        let painted = table().render(&look(Some(80), true));
        assert!(painted.contains("\u{1b}[32mactive\u{1b}[0m  "), "{painted}");
        let mut bare = painted;
        for code in ["0", "2", "32", "33"] {
            bare = bare.replace(&format!("\u{1b}[{code}m"), "");
        }
        assert_eq!(bare, table().render(&look(Some(80), false)));
    }

    #[test]
    fn sheets_align_and_escape() {
        let mut sheet = Sheet::default();
        sheet.row("id", "odin-PS-8f4a2b");
        sheet.row("machine", "odin3\u{1b}[2J");
        assert_eq!(sheet.render(&Look::plain()), "id       odin-PS-8f4a2b\nmachine  odin3\\u{1b}[2J\n");
    }
}
