//! `sessiond top`: all sessions of all machines, live in the terminal.
//!
//! Threads report to one loop (`run`): the feed what the daemon says, the terminal keys and its size, signals, and a worker
//! the answers about one session. The loop changes the state (`view`, pure) and draws it (`draw`, pure), at most ten times
//! a second, and otherwise only when a shown age changes. The terminal is restored in every case (`terminal`).

mod draw;
mod feed;
mod fleet;
mod keys;
mod once;
mod row;
mod run;
mod signals;
mod terminal;
#[cfg(test)]
mod tests;
mod text_pane;
mod view;
mod worker;

use std::sync::Arc;

use crate::client::{Client, Result};
use crate::clock::Clock;
use crate::wire::{ErrorCode, ErrorDetail};
use draw::Palette;

/// The details of a session as text of several lines, by its id.
pub type SessionText = Arc<dyn Fn(&Client, &str) -> Result<String> + Send + Sync>;

/// How the view is shown.
pub struct TopOptions {
    /// Whether colours are used.
    pub has_colour: bool,
    /// Whether the terminal's bell rings when a session begins to wait or fails.
    pub bell: bool,
    /// Whether this runs inside tmux.
    pub in_tmux: bool,
    /// The value of TERM.
    pub term: Option<String>,
    /// Gives the current time.
    pub clock: Clock,
    /// Gives the details of a session.
    pub session_text: SessionText,
}

/// What happened.
#[derive(Debug)]
enum Input {
    Key(ratatui_crossterm::crossterm::event::KeyEvent),
    Paste(String),
    Resized,
    /// Nothing can be read from the terminal any more.
    TerminalLost,
    Signal(signals::Signal),
    News(feed::News),
    Answer(worker::Answer),
}

/// Shows the view until the user leaves it. Returns the command to print, if the user asked for one.
///
/// # Errors
/// There is no terminal, or the daemon does not answer at the start.
pub fn run(client: &Client, options: &TopOptions) -> Result<Option<String>> {
    if let Some(why) = terminal::unusable(options.term.as_deref()) {
        return Err(ErrorDetail {
            code: ErrorCode::Usage,
            message: format!("top needs a terminal: {why}"),
            hint: "use `sessiond top --once` for one frame as text".to_owned(),
        });
    }
    run::run(client, options)
}

/// One frame of the view as text, all sessions in it. `has_escapes`: whether it may have escape sequences.
///
/// # Errors
/// The daemon does not answer.
pub fn once(client: &Client, options: &TopOptions, width: usize, has_escapes: bool) -> Result<String> {
    let palette = Palette { has_colour: options.has_colour };
    once::text(client, width, palette, has_escapes, &*options.clock)
}
