//! Tables without borders and lists of fields, fitted to the width of the terminal.

use super::style::{OutputStyle, Tone};
use super::text::{cut_end, cut_middle, width};
use crate::domain::text::escaped_line;

const COLUMN_GAP: usize = 2;

/// The narrowest that a column becomes, in columns of the terminal, so that its cells stay distinguishable.
const MIN_SHRUNK_WIDTH: usize = 6;

/// A column, and how it is narrowed where the terminal is too narrow.
#[derive(Clone, Copy, Debug)]
pub(super) struct TableColumn {
    title: &'static str,
    right: bool,
    /// Columns with a higher rank are narrowed first; those with 0 never.
    shrink_rank: u8,
    cut: fn(&str, usize) -> String,
}

impl TableColumn {
    pub(super) const fn new(title: &'static str) -> Self {
        Self { title, right: false, shrink_rank: 0, cut: cut_end }
    }

    /// Aligns its cells to the right.
    pub(super) const fn right(mut self) -> Self {
        self.right = true;
        self
    }

    /// Allows it to be narrowed, the highest `rank` first.
    pub(super) const fn shrink_rank(mut self, rank: u8) -> Self {
        self.shrink_rank = rank;
        self
    }

    /// Cuts the middle of its cells rather than the end.
    pub(super) const fn cut_middle(mut self) -> Self {
        self.cut = cut_middle;
        self
    }
}

#[derive(Clone, Debug)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub(super) fn new(text: impl AsRef<str>) -> Self {
        Self { text: escaped_line(text.as_ref()), tone: Tone::Plain }
    }

    pub(super) const fn tone(mut self, tone: Tone) -> Self {
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
pub(super) struct TextTable {
    columns: Vec<TableColumn>,
    rows: Vec<Vec<Cell>>,
}

impl TextTable {
    pub(super) fn new(columns: impl Into<Vec<TableColumn>>) -> Self {
        Self { columns: columns.into(), rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: impl Into<Vec<Cell>>) {
        self.rows.push(cells.into());
    }

    /// The table as text, a line break at its end.
    pub(super) fn render(&self, style: &OutputStyle) -> String {
        let widths = self.widths(style.width);
        let titles: Vec<_> = self.columns.iter().map(|column| Cell::new(column.title).tone(Tone::Dim)).collect();
        std::iter::once(&titles).chain(&self.rows).map(|cells| self.line(cells, &widths, style)).collect()
    }

    fn line(&self, cells: &[Cell], widths: &[usize], style: &OutputStyle) -> String {
        let mut line = String::new();
        let mut blanks = 0;
        for ((column, cell), columns) in self.columns.iter().zip(cells).zip(widths) {
            let text = (column.cut)(&cell.text, *columns);
            let padding = columns.saturating_sub(width(&text));
            blanks += if column.right { padding } else { 0 };
            if !text.is_empty() {
                line.push_str(&" ".repeat(blanks));
                line.push_str(&style.paint(&text, cell.tone));
                blanks = 0;
            }
            blanks += COLUMN_GAP + if column.right { 0 } else { padding };
        }
        line.push('\n');
        line
    }

    /// The width in which it fits when its columns are as narrow as they may become.
    pub(super) fn least_width(&self) -> usize {
        let mut widths = self.widths(None);
        for (index, least) in self.shrinking() {
            widths[index] = widths[index].min(least);
        }
        widths.iter().sum::<usize>() + COLUMN_GAP * widths.len().saturating_sub(1)
    }

    /// As wide as the widest cell, then narrowed until all fits or no column may be narrowed further.
    fn widths(&self, limit: Option<usize>) -> Vec<usize> {
        let widest = |(index, column): (usize, &TableColumn)| {
            let cells = self.rows.iter().filter_map(|row| row.get(index)).map(|cell| width(&cell.text));
            cells.chain([width(column.title)]).max().unwrap_or(0)
        };
        let mut widths: Vec<usize> = self.columns.iter().enumerate().map(widest).collect();
        let total = widths.iter().sum::<usize>() + COLUMN_GAP * widths.len().saturating_sub(1);
        let mut excess = total.saturating_sub(limit.unwrap_or(usize::MAX));
        for (index, least) in self.shrinking() {
            let given = excess.min(widths[index].saturating_sub(least));
            widths[index] -= given;
            excess -= given;
        }
        widths
    }

    /// The columns that may be narrowed, in that order, and the least width of each.
    fn shrinking(&self) -> Vec<(usize, usize)> {
        let mut shrinking: Vec<_> =
            self.columns.iter().enumerate().filter(|(_, column)| column.shrink_rank > 0).collect();
        shrinking.sort_by_key(|(_, column)| std::cmp::Reverse(column.shrink_rank));
        shrinking.into_iter().map(|(index, column)| (index, width(column.title).max(MIN_SHRUNK_WIDTH))).collect()
    }
}

/// Fields, each a name and a value on a line of its own.
#[derive(Clone, Debug, Default)]
pub(super) struct FieldList(Vec<(&'static str, Vec<Cell>)>);

impl FieldList {
    pub(super) fn row(&mut self, name: &'static str, value: impl Into<Cell>) {
        self.0.push((name, vec![value.into()]));
    }

    /// Adds a field whose value has several parts, each with its own tone.
    pub(super) fn parts(&mut self, name: &'static str, parts: impl Into<Vec<Cell>>) {
        self.0.push((name, parts.into()));
    }

    /// The fields as text, with a line break at the end. Values are never cut, so that they can be copied.
    pub(super) fn render(&self, style: &OutputStyle) -> String {
        let column = self.0.iter().map(|(name, _)| width(name)).max().unwrap_or(0) + COLUMN_GAP;
        let line = |(name, parts): &(&str, Vec<Cell>)| {
            let value: String = parts.iter().map(|part| style.paint(&part.text, part.tone)).collect();
            format!("{}{}{value}\n", style.paint(name, Tone::Dim), " ".repeat(column - width(name)))
        };
        self.0.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> TextTable {
        let mut table = TextTable::new([
            TableColumn::new("ID").shrink_rank(1).cut_middle(),
            TableColumn::new("MACHINE").shrink_rank(2),
            TableColumn::new("STATUS"),
            TableColumn::new("CONTEXT").right(),
            TableColumn::new("EPIC").shrink_rank(3),
            TableColumn::new("HEARTBEAT").right(),
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

    fn style(width: Option<usize>, colour: bool) -> OutputStyle {
        OutputStyle { width, colour, ..OutputStyle::plain() }
    }

    #[test]
    fn at_200_nothing_is_cut() {
        assert_eq!(
            table().render(&style(Some(200), false)),
            "\
ID                               MACHINE                    STATUS  CONTEXT  EPIC                                                             HEARTBEAT
odin-PS-8f4a2b                   odin3                      active      42%  003 the store that never forgets anything at all, not even this         4m
a-rather-long-project-PS-abc123  the-machine-in-the-cellar  stale        7%                                                                        2.1h
"
        );
    }

    #[test]
    fn at_80_the_epic_is_narrowed_then_the_machine() {
        assert_eq!(
            table().render(&style(Some(80), false)),
            "\
ID                               MACHINE      STATUS  CONTEXT  EPIC    HEARTBEAT
odin-PS-8f4a2b                   odin3        active      42%  003 t…         4m
a-rather-long-project-PS-abc123  the-machin…  stale        7%               2.1h
"
        );
    }

    #[test]
    fn at_60_ids_are_cut_in_the_middle() {
        assert_eq!(
            table().render(&style(Some(60), false)),
            "\
ID               MACHINE  STATUS  CONTEXT  EPIC    HEARTBEAT
odin-PS-8f4a2b   odin3    active      42%  003 t…         4m
a-rathe…-abc123  the-ma…  stale        7%               2.1h
"
        );
    }

    #[test]
    fn every_line_fits_the_width() {
        for limit in 60..200 {
            let text = table().render(&style(Some(limit), false));
            assert!(text.lines().all(|line| width(line) <= limit && line.trim_end() == line), "{limit}\n{text}");
        }
    }

    #[test]
    fn colours_do_not_change_alignment() {
        let painted = table().render(&style(Some(80), true));
        assert!(painted.contains("\u{1b}[32mactive\u{1b}[0m  "), "{painted}");
        let mut bare = painted;
        for code in ["0", "2", "32", "33"] {
            bare = bare.replace(&format!("\u{1b}[{code}m"), "");
        }
        assert_eq!(bare, table().render(&style(Some(80), false)));
    }

    #[test]
    fn fields_are_aligned_and_escaped() {
        let mut sheet = FieldList::default();
        sheet.row("id", "odin-PS-8f4a2b");
        sheet.row("machine", "odin3\u{1b}[2J");
        assert_eq!(sheet.render(&OutputStyle::plain()), "id       odin-PS-8f4a2b\nmachine  odin3\\u{1b}[2J\n");
    }
}
