//! One frame as text.

use std::fmt::Write;

use ratatui_core::buffer::{Buffer, Cell};
use ratatui_core::layout::Rect;
use ratatui_core::style::{Color, Modifier};

use super::draw::{self, Ages, Palette};
use super::feed;
use super::view::View;
use crate::client::{Client, Result};
use crate::domain::Timestamp;

/// How many lines of the table are drawn at once.
const CHUNK: usize = 1_000;
/// The widest frame, in columns.
const MAX_WIDTH: usize = 1_000;

/// Reads everything once and returns a frame that shows all sessions, with a line break at its end.
pub(super) fn text(
    client: &Client,
    width: usize,
    palette: Palette,
    has_escapes: bool,
    now: &dyn Fn() -> Timestamp,
) -> Result<String> {
    let mut view = View::default();
    view.set_facts(feed::facts(client)?);
    view.list(feed::list(client)?);
    Ok(frame(&mut view, width, palette, has_escapes, now()))
}

fn frame(view: &mut View, width: usize, palette: Palette, has_escapes: bool, now: Timestamp) -> String {
    view.update_lines();
    view.select_nothing();
    let ages = Ages::at(now);
    let width = u16::try_from(width.clamp(1, MAX_WIDTH)).unwrap_or(u16::MAX);
    let mut text = String::new();
    let lines = std::mem::take(&mut view.lines);
    let above = usize::from(draw::LINES_ABOVE);
    let chunks = if lines.is_empty() { vec![&lines[..]] } else { lines.chunks(CHUNK).collect() };
    for (index, chunk) in chunks.into_iter().enumerate() {
        view.lines = chunk.to_vec();
        let height = u16::try_from(above + chunk.len().max(1)).unwrap_or(u16::MAX);
        let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
        draw::plain_frame(&mut buffer, view, &ages, palette);
        for y in (if index == 0 { 0 } else { draw::LINES_ABOVE })..height {
            write_line(&mut text, &buffer, y, has_escapes);
        }
    }
    text
}

fn write_line(text: &mut String, buffer: &Buffer, y: u16, has_escapes: bool) {
    let start = text.len();
    let mut style = String::new();
    let mut x = 0;
    while x < buffer.area.width {
        let cell = &buffer[(x, y)];
        let wanted = if has_escapes { escape(cell) } else { String::new() };
        if wanted != style {
            text.push_str("\u{1b}[0m");
            text.push_str(&wanted);
            style = wanted;
        }
        text.push_str(cell.symbol());
        // A wide character takes the next cell too.
        x += u16::try_from(crate::domain::text_width::width(cell.symbol())).unwrap_or(1).clamp(1, 2);
    }
    text.truncate(start + text[start..].trim_end().len());
    if !style.is_empty() {
        text.push_str("\u{1b}[0m");
    }
    text.push('\n');
}

/// The escape sequence of a cell's style; empty for a plain one.
fn escape(cell: &Cell) -> String {
    let colour = match cell.fg {
        Color::Red => Some(31),
        Color::Green => Some(32),
        Color::Yellow => Some(33),
        _ => None,
    };
    let modifiers = [(Modifier::BOLD, 1), (Modifier::DIM, 2), (Modifier::REVERSED, 7)];
    let codes = modifiers.into_iter().filter(|(modifier, _)| cell.modifier.contains(*modifier)).map(|(_, code)| code);
    let mut text = String::new();
    for code in codes.chain(colour) {
        let _ = write!(text, "\u{1b}[{code}m");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::text::is_unsafe;

    fn row(id: usize) -> crate::top::row::Row {
        let session = serde_json::json!({
            "instance_id": format!("odin-PS-{id:06}"), "project": "odin", "instance_type": "PS", "status": "active",
            "context_percent": 1, "current_epic": null, "last_heartbeat": "2026-01-30T12:03:00Z", "closed_at": null,
            "created_at": "2026-01-30T11:00:00Z", "host_machine": "odin3", "claude_session_uuid": null,
            "claude_session_path": null, "age_seconds": 60, "local": true, "as_of": "2026-01-30T12:03:00Z",
            "synced": true, "title": "日本 \u{1b}[2J", "activity": "failed"
        });
        crate::top::row::Row::from(serde_json::from_value::<crate::wire::SessionBody>(session).unwrap())
    }

    fn shown(sessions: usize, has_escapes: bool) -> String {
        let mut view = View::default();
        view.list((0..sessions).map(row).collect());
        let now = Timestamp::parse("2026-01-30T12:04:00Z").unwrap();
        frame(&mut view, 120, Palette { has_colour: has_escapes }, has_escapes, now)
    }

    #[test]
    fn a_plain_frame_has_a_line_for_each_session_and_no_escapes() {
        for sessions in [1, CHUNK, 2 * CHUNK + 500] {
            let text = shown(sessions, false);
            assert_eq!(text.lines().count(), usize::from(draw::LINES_ABOVE) + sessions);
            assert!(text.lines().all(|line| !line.contains(is_unsafe)), "{text}");
            assert_eq!(text.matches("odin-PS-").count(), sessions, "each once");
        }
        let empty = shown(0, false);
        assert!(empty.contains("no session is open"), "{empty}");
    }

    #[test]
    fn colours_are_ended_in_each_line() {
        let text = shown(2, true);
        let failed = text.lines().last().unwrap();
        assert!(failed.contains("\u{1b}[1m\u{1b}[31mx\u{1b}[0m") && failed.ends_with("\u{1b}[0m"), "{failed:?}");
    }
}
