//! What a key means. Pure.

use ratatui_crossterm::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// What the user asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Details,
    CopyCommand,
    Resume,
    Close,
    Group,
    Sort,
    ShowAll,
    Filter,
    Help,
    /// A character of the filter.
    Type(char),
    Erase,
    EraseAll,
    Accept,
    /// Leaves what was opened last; the program, if nothing was.
    Back,
    Quit,
    Suspend,
    Repaint,
}

/// What has the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Focus {
    Table,
    /// The line that is typed after `/`.
    Filter,
    /// A question that is answered by y or n.
    Question,
    /// Text that is scrolled.
    Text,
}

pub(super) fn action(key: KeyEvent, focus: Focus) -> Option<Action> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return with_control(key.code, focus);
    }
    match focus {
        Focus::Filter => in_filter(key.code),
        Focus::Question => Some(if key.code == KeyCode::Char('y') { Action::Accept } else { Action::Back }),
        Focus::Table => movement(key.code).or_else(|| in_table(key.code)),
        Focus::Text => movement(key.code).or_else(|| in_text(key.code)),
    }
}

fn with_control(code: KeyCode, focus: Focus) -> Option<Action> {
    match code {
        KeyCode::Char('c') => Some(Action::Quit),
        KeyCode::Char('z') => Some(Action::Suspend),
        KeyCode::Char('l') => Some(Action::Repaint),
        KeyCode::Char('u') if focus == Focus::Filter => Some(Action::EraseAll),
        KeyCode::Char('h') if focus == Focus::Filter => Some(Action::Erase),
        KeyCode::Char('f' | 'd') if focus != Focus::Filter => Some(Action::PageDown),
        KeyCode::Char('b' | 'u') if focus != Focus::Filter => Some(Action::PageUp),
        _ => None,
    }
}

fn in_filter(code: KeyCode) -> Option<Action> {
    match code {
        KeyCode::Enter => Some(Action::Accept),
        KeyCode::Esc => Some(Action::Back),
        KeyCode::Backspace => Some(Action::Erase),
        KeyCode::Up => Some(Action::Up),
        KeyCode::Down => Some(Action::Down),
        KeyCode::Char(c) => Some(Action::Type(c)),
        _ => None,
    }
}

fn movement(code: KeyCode) -> Option<Action> {
    match code {
        KeyCode::Up | KeyCode::Char('k') => Some(Action::Up),
        KeyCode::Down | KeyCode::Char('j') => Some(Action::Down),
        KeyCode::PageUp => Some(Action::PageUp),
        KeyCode::PageDown | KeyCode::Char(' ') => Some(Action::PageDown),
        KeyCode::Home => Some(Action::Home),
        KeyCode::End | KeyCode::Char('G') => Some(Action::End),
        _ => None,
    }
}

fn in_table(code: KeyCode) -> Option<Action> {
    match code {
        KeyCode::Enter => Some(Action::Details),
        KeyCode::Char('g') => Some(Action::Group),
        KeyCode::Char('s') => Some(Action::Sort),
        KeyCode::Char('a') => Some(Action::ShowAll),
        KeyCode::Char('/') => Some(Action::Filter),
        KeyCode::Char('y') => Some(Action::CopyCommand),
        KeyCode::Char('r') => Some(Action::Resume),
        KeyCode::Char('c') => Some(Action::Close),
        KeyCode::Char('?') => Some(Action::Help),
        KeyCode::Char('q') => Some(Action::Quit),
        KeyCode::Esc => Some(Action::Back),
        _ => None,
    }
}

fn in_text(code: KeyCode) -> Option<Action> {
    match code {
        KeyCode::Enter | KeyCode::Esc | KeyCode::Char('q' | '?') => Some(Action::Back),
        KeyCode::Char('y') => Some(Action::CopyCommand),
        KeyCode::Char('r') => Some(Action::Resume),
        KeyCode::Char('c') => Some(Action::Close),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(code: KeyCode, focus: Focus) -> Option<Action> {
        action(KeyEvent::new(code, KeyModifiers::NONE), focus)
    }

    #[test]
    fn keys_mean_what_has_the_focus_makes_of_them() {
        let q = KeyCode::Char('q');
        assert_eq!(press(q, Focus::Table), Some(Action::Quit));
        assert_eq!(press(q, Focus::Text), Some(Action::Back));
        assert_eq!(press(q, Focus::Filter), Some(Action::Type('q')));
        assert_eq!(press(q, Focus::Question), Some(Action::Back), "only y is yes");
        assert_eq!(press(KeyCode::Char('Y'), Focus::Question), Some(Action::Back));
        assert_eq!(press(KeyCode::Char('y'), Focus::Question), Some(Action::Accept));
        assert_eq!(press(KeyCode::Char('j'), Focus::Table), press(KeyCode::Down, Focus::Text));
    }

    #[test]
    fn control_c_quits_from_everywhere() {
        for focus in [Focus::Table, Focus::Filter, Focus::Question, Focus::Text] {
            let key = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
            assert_eq!(action(key, focus), Some(Action::Quit));
        }
        let released = KeyEvent::new_with_kind(KeyCode::Enter, KeyModifiers::NONE, KeyEventKind::Release);
        assert_eq!(action(released, Focus::Table), None);
    }
}
