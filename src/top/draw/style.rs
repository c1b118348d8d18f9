//! Symbols and colours.

use ratatui_core::style::{Color, Modifier, Style};

use crate::domain::attention::Need;

/// What a piece of text is, from which its style follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::top) enum Paint {
    Plain,
    Title,
    Dim,
    Good,
    Warn,
    Bad,
    Selected,
    Need(Need),
}

/// Which styles are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::top) struct Palette {
    /// False under NO_COLOR: bold, dim and reversed text stay.
    pub has_colour: bool,
}

impl Palette {
    pub(in crate::top) fn style(self, paint: Paint) -> Style {
        let (colour, modifier) = match paint {
            Paint::Plain => (None, Modifier::empty()),
            Paint::Title => (None, Modifier::BOLD),
            Paint::Selected => (None, Modifier::REVERSED),
            Paint::Dim => (None, Modifier::DIM),
            Paint::Good => (Some(Color::Green), Modifier::empty()),
            Paint::Warn => (Some(Color::Yellow), Modifier::BOLD),
            Paint::Bad => (Some(Color::Red), Modifier::BOLD),
            Paint::Need(need) => return self.style(of_need(need)),
        };
        let style = Style::new().add_modifier(modifier);
        match colour.filter(|_| self.has_colour) {
            Some(colour) => style.fg(colour),
            None => style,
        }
    }
}

const fn of_need(need: Need) -> Paint {
    match need {
        Need::Waiting => Paint::Warn,
        Need::Failed => Paint::Bad,
        Need::Working => Paint::Good,
        Need::Idle | Need::Active => Paint::Plain,
        Need::Stale | Need::Closed => Paint::Dim,
    }
}

/// The symbol of a need, as wide as one column everywhere.
pub(super) const fn symbol(need: Need) -> &'static str {
    match need {
        Need::Waiting => "!",
        Need::Failed => "x",
        Need::Idle => "-",
        Need::Working => "*",
        Need::Active => "+",
        Need::Stale => "~",
        Need::Closed => ".",
    }
}
