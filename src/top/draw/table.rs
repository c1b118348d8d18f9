//! The table of sessions.

use ratatui_core::layout::Rect;

use super::columns::{Column, fitting};
use super::style::symbol;
use super::{Ages, Canvas, Paint};
use crate::domain::attention::{Need, NeedCounts};
use crate::domain::text_width::{cut_middle, width};
use crate::top::fleet::{DaemonLink, Fleet};
use crate::top::row::Row;
use crate::top::view::{Line, View};

/// The columns before the first one: the selection, the symbol, whether its machine is away, and a blank.
const MARKS: u16 = 4;

pub(super) fn draw(canvas: &mut Canvas<'_>, area: Rect, view: &mut View, ages: &Ages) {
    if area.height == 0 {
        return;
    }
    let columns = fitting(area.width.saturating_sub(MARKS));
    let titles = u16::from(area.height > 1);
    if titles > 0 {
        draw_titles(canvas, area, &columns);
    }
    let body = Rect { y: area.y + titles, height: area.height - titles, ..area };
    view.scroll_to_selected(usize::from(body.height));
    if view.lines.is_empty() {
        canvas.text(area.x + 1, body.y, area.width.saturating_sub(1), nothing(view), Paint::Dim);
    }
    let end = (view.offset + usize::from(body.height)).min(view.lines.len());
    for (y, index) in (body.y..body.bottom()).zip(view.offset..end) {
        match &view.lines[index] {
            Line::Group { name, counts } => draw_heading(canvas, area, y, name, counts),
            Line::Session(id) => {
                let Some(row) = view.fleet.get(id) else { continue };
                draw_row(canvas, Rect { y, height: 1, ..area }, row, &view.fleet, &columns, ages);
                if view.is_selected(index) {
                    canvas.text(area.x, y, 1, ">", Paint::Plain);
                    canvas.line_style(area, y, Paint::Selected);
                }
            }
        }
    }
}

/// Why the table has no lines.
const fn nothing(view: &View) -> &'static str {
    match (view.fleet.is_listed, view.filter.is_empty(), view.fleet.link) {
        (false, _, DaemonLink::Connected) => "reading the sessions ...",
        (false, ..) => "no sessions are known: the daemon has not answered yet",
        (true, true, _) => "no session is open; `sessiond register` registers one, `a` shows closed ones",
        (true, false, _) => "no session matches the filter; Esc clears it",
    }
}

fn draw_titles(canvas: &mut Canvas<'_>, area: Rect, columns: &[(Column, u16)]) {
    let mut x = area.x + MARKS;
    for (column, columns) in columns {
        let title = match column {
            Column::Activity => "ACTIVITY",
            Column::Machine => "MACHINE",
            Column::Title => "TITLE",
            Column::Project => "PROJECT",
            Column::Branch => "BRANCH",
            Column::Context if *columns < 7 => "CTX",
            Column::Context => "CONTEXT",
            Column::Trend => "TREND",
            Column::Age => "AGE",
            Column::Id => "ID",
        };
        canvas.text(x, area.y, *columns, title, Paint::Dim);
        x += columns + 1;
    }
}

fn draw_heading(canvas: &mut Canvas<'_>, area: Rect, y: u16, name: &str, counts: &NeedCounts) {
    let used = canvas.text(area.x, y, area.width, name, Paint::Title);
    let left = area.width.saturating_sub(used + 2);
    canvas.text(area.x + used + 2, y, left, &counts.to_string(), Paint::Dim);
}

fn draw_row(canvas: &mut Canvas<'_>, at: Rect, row: &Row, fleet: &Fleet, columns: &[(Column, u16)], ages: &Ages) {
    let need = row.need();
    let is_away = fleet.is_away(row);
    // What another machine did when it was last heard of may have changed since.
    let paint = |paint: Paint| if is_away { Paint::Dim } else { paint };
    let right = at.right();
    canvas.text(at.x + 1, at.y, right.saturating_sub(at.x + 1), symbol(need), paint(Paint::Need(need)));
    if is_away {
        canvas.text(at.x + 2, at.y, right.saturating_sub(at.x + 2), "?", Paint::Dim);
    }
    let mut x = at.x + MARKS;
    for (column, columns) in columns {
        let tone = match column {
            Column::Activity => Paint::Need(need),
            Column::Title | Column::Machine | Column::Project => {
                if need == Need::Closed {
                    Paint::Dim
                } else {
                    Paint::Plain
                }
            }
            Column::Context if row.context_percent >= 90 => Paint::Bad,
            Column::Context if row.context_percent >= 80 => Paint::Warn,
            Column::Context => Paint::Plain,
            Column::Branch | Column::Trend | Column::Age | Column::Id => Paint::Dim,
        };
        let room = (*columns).min(right.saturating_sub(x));
        canvas.text(x, at.y, room, &cell(*column, row, fleet, ages, *columns), paint(tone));
        x += columns + 1;
    }
}

fn cell(column: Column, row: &Row, fleet: &Fleet, ages: &Ages, columns: u16) -> String {
    let columns = usize::from(columns);
    match column {
        Column::Activity => activity(row, ages, columns),
        Column::Machine => machine(row, fleet, ages, columns),
        Column::Title if row.title.is_none() => cut_middle(row.name(), columns),
        Column::Title => row.name().to_owned(),
        Column::Project => row.project.clone(),
        Column::Branch => row.branch.as_deref().map_or_else(String::new, |branch| cut_middle(branch, columns)),
        Column::Context => context(row.context_percent, columns),
        Column::Trend => trend(row, columns),
        Column::Age => fleet.alive_at(row).map_or_else(|| "-".to_owned(), |at| ages.since(at)),
        Column::Id => cut_middle(&row.instance_id, columns),
    }
}

/// `waiting 4m: permission Bash`, as much of it as fits.
fn activity(row: &Row, ages: &Ages, columns: usize) -> String {
    let need = row.need();
    let mut text = need.as_str().to_owned();
    if let Some(since) = row.since.filter(|_| !matches!(need, Need::Stale | Need::Closed)) {
        text.push(' ');
        text.push_str(&ages.since(since));
    }
    match &row.detail {
        Some(detail) if columns > width(&text) + 4 => format!("{text}: {detail}"),
        _ => text,
    }
}

/// The machine; how long ago its daemon was heard of, where it is away and there is room.
fn machine(row: &Row, fleet: &Fleet, ages: &Ages, columns: usize) -> String {
    let seen = fleet.machine(&row.machine).and_then(|machine| machine.last_seen.as_deref());
    let seen = seen.and_then(crate::domain::Timestamp::parse).filter(|_| fleet.is_away(row));
    match seen.map(|seen| format!("{} {}", row.machine, ages.since(seen))) {
        Some(text) if width(&text) <= columns => text,
        _ => row.machine.clone(),
    }
}

/// ` 42% ██▌  `: the number, then a bar in what is left.
fn context(percent: u8, columns: usize) -> String {
    let number = format!("{percent:>3}%");
    let cells = columns.saturating_sub(5);
    if cells == 0 {
        return number;
    }
    let halves = (usize::from(percent) * cells * 2).div_ceil(100);
    let half = if halves % 2 == 1 { "▌" } else { "" };
    let empty = cells - halves.div_ceil(2);
    format!("{number} {}{half}{}", "█".repeat(halves / 2), "·".repeat(empty))
}

/// The last values of the context window as a sparkline; empty before it changed.
pub(super) fn trend(row: &Row, columns: usize) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    if row.trend.len() < 2 {
        return String::new();
    }
    let first = row.trend.len().saturating_sub(columns);
    row.trend[first..].iter().map(|percent| LEVELS[usize::from(*percent).min(100) * 7 / 100]).collect()
}
