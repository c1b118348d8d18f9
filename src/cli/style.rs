//! The style of output: width, colours, and whether it goes to a terminal.

use std::ffi::OsString;
use std::io::{self, IsTerminal};

use crate::domain::Timestamp;

/// The meaning of a cell, shown as its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Good,
    Warn,
    Bad,
    Dim,
}

impl Tone {
    /// The tone of a session's status.
    pub(super) fn of_status(status: &str) -> Self {
        match status {
            "active" => Self::Good,
            "stale" => Self::Warn,
            "closed" => Self::Dim,
            _ => Self::Plain,
        }
    }

    const fn code(self) -> Option<u8> {
        match self {
            Self::Plain => None,
            Self::Good => Some(32),
            Self::Warn => Some(33),
            Self::Bad => Some(31),
            Self::Dim => Some(2),
        }
    }
}

/// How output is laid out, by the environment and the terminal.
#[derive(Clone, Copy, Debug)]
pub(super) struct OutputStyle {
    /// The width of the terminal in columns; `None`: unlimited.
    pub width: Option<usize>,
    pub colour: bool,
    /// Whether JSON is indented.
    pub pretty: bool,
    /// Whether a progress line may be redrawn on stderr.
    pub progress: bool,
    /// The time from which ages are counted.
    pub now: Timestamp,
}

impl OutputStyle {
    /// The style for this process's stdout and stderr.
    pub(super) fn detect(env: impl Fn(&str) -> Option<OsString>, now: Timestamp) -> Self {
        let terminal = io::stdout().is_terminal();
        let dumb = env("TERM").is_some_and(|term| term == "dumb");
        Self {
            width: columns(&env).or_else(terminal_width),
            colour: terminal && !dumb && env("NO_COLOR").is_none_or(|value| value.is_empty()),
            pretty: terminal,
            progress: io::stderr().is_terminal() && !dumb,
            now,
        }
    }

    /// The style for a pipe.
    #[cfg(test)]
    pub(super) const fn plain() -> Self {
        Self { width: None, colour: false, pretty: false, progress: false, now: Timestamp::from_micros(0) }
    }

    pub(super) fn paint(&self, text: &str, tone: Tone) -> String {
        match tone.code().filter(|_| self.colour) {
            Some(code) => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            None => text.to_owned(),
        }
    }
}

fn columns(env: &impl Fn(&str) -> Option<OsString>) -> Option<usize> {
    env("COLUMNS")?.to_str()?.parse().ok().filter(|columns| *columns > 0)
}

fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_sets_width_and_colour() {
        let style = |pairs: &'static [(&str, &str)]| {
            let env = move |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, v)| OsString::from(v));
            OutputStyle::detect(env, Timestamp::from_micros(0))
        };
        assert_eq!(style(&[("COLUMNS", "60")]).width, Some(60));
        assert_ne!(style(&[("COLUMNS", "wide")]).width, Some(0));
        assert!(!style(&[("NO_COLOR", "1")]).colour);
        assert!(!style(&[("TERM", "dumb")]).colour);
    }
}
