//! Draws the view into a buffer of cells. Pure; only visible rows are drawn.
//!
//! Everything is told apart without colour: activities by symbols, the selected row by `>`, a machine that is away by `?`.

mod columns;
mod footer;
mod header;
mod help;
mod style;
mod table;

use std::cell::Cell;
use std::time::Duration;

use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;
use ratatui_core::style::Style;

use super::view::{Overlay, View};
use crate::domain::Timestamp;
use crate::domain::text::escaped_line;
use crate::domain::text_width::{cut_end, width};
use crate::domain::time::age;
pub(super) use help::help_text;
pub(super) use style::{Paint, Palette};

/// From this height on, details share the screen with the table.
const SPLIT_HEIGHT: u16 = 30;
/// How many lines stand above the table's rows: the header and the titles of the columns.
pub(super) const LINES_ABOVE: u16 = header::HEIGHT + 1;

/// Ages relative to one time, and how long the frame stays true.
pub(super) struct Ages {
    now: Timestamp,
    unchanged_for: Cell<Duration>,
}

impl Ages {
    pub(super) const fn at(now: Timestamp) -> Self {
        Self { now, unchanged_for: Cell::new(Duration::MAX) }
    }

    /// The age of `then`, such as `4m`.
    fn since(&self, then: Timestamp) -> String {
        let passed = self.now.since(then);
        // The steps in which domain::time::age shows an age.
        let step = match passed.as_secs() {
            0..60 => 1_000,
            60..3_600 => 60_000,
            3_600..86_400 => 360_000,
            _ => 86_400_000,
        };
        let millis = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        let left = Duration::from_millis(step - millis % step);
        self.unchanged_for.set(self.unchanged_for.get().min(left));
        age(passed)
    }

    /// How long it takes until the first of the shown ages changes.
    pub(super) const fn unchanged_for(&self) -> Duration {
        self.unchanged_for.get()
    }
}

/// A buffer with a palette: writes cut and escaped text.
struct Canvas<'a> {
    buffer: &'a mut Buffer,
    palette: Palette,
}

impl Canvas<'_> {
    /// Writes text at a place, cut to `columns`, and returns how many it took.
    fn text(&mut self, x: u16, y: u16, columns: u16, text: &str, paint: Paint) -> u16 {
        self.styled(x, y, columns, text, self.palette.style(paint))
    }

    fn styled(&mut self, x: u16, y: u16, columns: u16, text: &str, style: Style) -> u16 {
        let area = self.buffer.area;
        if y >= area.bottom() || x >= area.right() || columns == 0 {
            return 0;
        }
        let columns = columns.min(area.right() - x);
        let text = cut_end(&escaped_line(text), usize::from(columns));
        let (end, _) = self.buffer.set_stringn(x, y, &text, usize::from(columns), style);
        end - x
    }

    /// Changes the style of a line, text and blanks.
    fn line_style(&mut self, area: Rect, y: u16, paint: Paint) {
        let line = Rect { y, height: 1, ..area }.intersection(self.buffer.area);
        self.buffer.set_style(line, self.palette.style(paint));
    }
}

/// Draws a whole frame.
pub(super) fn frame(buffer: &mut Buffer, view: &mut View, ages: &Ages, palette: Palette) {
    view.update_lines();
    let area = buffer.area;
    let mut canvas = Canvas { buffer, palette };
    header::draw(&mut canvas, view, ages);
    let body = Rect {
        y: area.y + header::HEIGHT.min(area.height),
        height: area.height.saturating_sub(header::HEIGHT + 1),
        ..area
    };
    let is_split = area.height >= SPLIT_HEIGHT && matches!(view.overlay, Overlay::Details { .. });
    let (above, below) = if is_split { split(body) } else { (body, body) };
    if is_split || !matches!(view.overlay, Overlay::Details { .. } | Overlay::Help(_)) {
        table::draw(&mut canvas, above, view, ages);
    }
    draw_pane(&mut canvas, below, view);
    footer::draw(&mut canvas, view);
}

/// Draws the header and these lines of the table, without the line at the bottom.
pub(super) fn plain_frame(buffer: &mut Buffer, view: &mut View, ages: &Ages, palette: Palette) {
    view.update_lines();
    let area = buffer.area;
    let mut canvas = Canvas { buffer, palette };
    header::draw(&mut canvas, view, ages);
    let body = Rect { y: area.y + header::HEIGHT, height: area.height.saturating_sub(header::HEIGHT), ..area };
    table::draw(&mut canvas, body, view, ages);
}

/// The table above, a third of the place, and the details below.
fn split(body: Rect) -> (Rect, Rect) {
    let height = body.height / 3;
    (Rect { height, ..body }, Rect { y: body.y + height, height: body.height - height, ..body })
}

/// Draws the details or the help.
fn draw_pane(canvas: &mut Canvas<'_>, area: Rect, view: &mut View) {
    let (title, trend) = match &view.overlay {
        Overlay::Details { instance_id, .. } => match view.fleet.get(instance_id) {
            Some(row) => {
                (format!("{instance_id}  {}", row.title.as_deref().unwrap_or_default()), table::trend(row, 32))
            }
            None => (instance_id.clone(), String::new()),
        },
        Overlay::Help(_) => ("help".to_owned(), String::new()),
        _ => return,
    };
    let (Overlay::Details { pane, .. } | Overlay::Help(pane)) = &mut view.overlay else { return };
    let inner = Rect {
        x: area.x + 1,
        y: area.y + 1,
        width: area.width.saturating_sub(2),
        height: area.height.saturating_sub(1),
    };
    let lines = pane.visible(usize::from(inner.width), usize::from(inner.height)).to_vec();
    let (last, all) = pane.position();
    canvas.line_style(area, area.y, Paint::Title);
    let place = if all > usize::from(inner.height) { format!("{last}/{all}") } else { String::new() };
    let place_columns = columns_of(&place);
    let room = area.width.saturating_sub(place_columns + 2);
    let used = canvas.text(area.x + 1, area.y, room, title.trim_end(), Paint::Title);
    let left = room.saturating_sub(used + 2);
    if usize::from(left) >= width(&trend) {
        canvas.text(area.x + used + 3, area.y, left, &trend, Paint::Title);
    }
    canvas.text((area.x + area.width).saturating_sub(place_columns + 1), area.y, place_columns, &place, Paint::Title);
    for (y, line) in (inner.y..).zip(&lines) {
        canvas.text(inner.x, y, inner.width, line, Paint::Plain);
    }
}

fn columns_of(text: &str) -> u16 {
    u16::try_from(width(text)).unwrap_or(u16::MAX)
}
