//! The line at the bottom: a question, the filter, a message, or the keys.

use super::{Canvas, Paint, columns_of};
use crate::top::view::{Overlay, View};

pub(super) fn draw(canvas: &mut Canvas<'_>, view: &View) {
    let area = canvas.buffer.area;
    let Some(y) = area.bottom().checked_sub(1).filter(|y| *y >= area.y) else { return };
    let place = place(view);
    let columns = columns_of(&place);
    let room = area.width.saturating_sub(columns + 3);
    let (text, paint) = left(view);
    // What needs an answer or is to be read goes before the place in the list.
    if room < 20 || matches!(paint, Paint::Warn | Paint::Bad | Paint::Plain) && columns_of(&text) > room {
        canvas.text(area.x + 1, y, area.width.saturating_sub(1), &text, paint);
        return;
    }
    canvas.text(area.x + 1, y, room, &text, paint);
    canvas.text(area.right().saturating_sub(columns + 1), y, columns, &place, Paint::Dim);
}

fn left(view: &View) -> (String, Paint) {
    match (&view.overlay, &view.message) {
        (Overlay::CloseQuestion(id), _) => (format!("close {id} permanently? y/n"), Paint::Warn),
        (Overlay::Filter, _) => (format!("/{}_", view.filter), Paint::Plain),
        (_, Some(message)) => (message.text.clone(), if message.is_error { Paint::Bad } else { Paint::Plain }),
        (Overlay::Details { .. }, None) => {
            ("Esc back  up/down scroll  y copy command  r resume  c close".to_owned(), Paint::Dim)
        }
        (Overlay::Help(_), None) => ("Esc back  up/down scroll".to_owned(), Paint::Dim),
        (Overlay::None, None) => (
            "? help  q quit  Enter details  y copy  r resume  c close  / filter  g group  s sort".to_owned(),
            Paint::Dim,
        ),
    }
}

/// How the list is arranged, and the place in it: `by attention  3/120`.
fn place(view: &View) -> String {
    let (at, all) = view.position();
    let arrangement = view.arrangement();
    let arrangement = if matches!(view.overlay, Overlay::Filter) { "" } else { arrangement.as_str() };
    format!("{arrangement}  {at}/{all}").trim_start().to_owned()
}
