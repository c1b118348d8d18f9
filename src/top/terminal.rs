//! The terminal: raw mode, the alternate screen, and putting both back.
//!
//! **Invariant: however the view ends, the terminal is as it was**: at the end of [`Screen`], on a panic of any thread (the
//! hook), on a signal (the main loop, or the signal thread if that hangs) and while the process is suspended. The settings
//! of the terminal at the start are kept in one place, [`SAVED`], which all of these put back.

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::sync::Mutex;

use ratatui_core::backend::Backend;
use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;
use ratatui_crossterm::CrosstermBackend;
use ratatui_crossterm::crossterm::event::{DisableBracketedPaste, EnableBracketedPaste};
use ratatui_crossterm::crossterm::{cursor, execute, terminal};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// The terminal's settings before the view; none while they are in force.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

/// The most lines and columns that are drawn.
const MAX_SIDE: u16 = 2_000;

pub(super) struct Screen {
    backend: CrosstermBackend<BufWriter<Stdout>>,
    shown: Buffer,
    next: Buffer,
}

impl Screen {
    /// Takes the terminal over.
    ///
    /// # Errors
    /// stdin or stdout is no terminal.
    pub(super) fn open() -> io::Result<Self> {
        restore_on_panic();
        enter()?;
        let backend = CrosstermBackend::new(BufWriter::new(io::stdout()));
        Ok(Self { backend, shown: Buffer::default(), next: Buffer::default() })
    }

    /// Draws a frame; only cells that changed are written.
    pub(super) fn draw(&mut self, frame: impl FnOnce(&mut Buffer)) -> io::Result<()> {
        let size = self.backend.size()?;
        let area = Rect::new(0, 0, size.width.min(MAX_SIDE), size.height.min(MAX_SIDE));
        if area != self.shown.area {
            self.backend.clear()?;
            self.shown = Buffer::empty(area);
        }
        self.next = Buffer::empty(area);
        frame(&mut self.next);
        self.backend.draw(self.shown.diff(&self.next).into_iter())?;
        Backend::flush(&mut self.backend)?;
        std::mem::swap(&mut self.shown, &mut self.next);
        Ok(())
    }

    /// Makes the next frame draw every cell.
    pub(super) fn forget(&mut self) {
        self.shown = Buffer::default();
    }

    /// Writes a sequence that changes no cell, such as a bell.
    pub(super) fn send(&mut self, sequence: &str) -> io::Result<()> {
        let mut stdout = io::stdout();
        stdout.write_all(sequence.as_bytes())?;
        stdout.flush()
    }

    /// Takes the terminal over again, after it was given back or another process changed it.
    pub(super) fn enter_again(&mut self) -> io::Result<()> {
        self.forget();
        enter()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// Sets raw mode and the alternate screen. The settings before are kept only the first time.
fn enter() -> io::Result<()> {
    let stdin = io::stdin();
    let settings = tcgetattr(&stdin)?;
    let mut saved = SAVED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let before = saved.get_or_insert(settings);
    let mut raw = before.clone();
    raw.make_raw();
    tcsetattr(&stdin, OptionalActions::Now, &raw)?;
    drop(saved);
    execute!(io::stdout(), terminal::EnterAlternateScreen, EnableBracketedPaste, cursor::Hide)
}

/// Puts the terminal back; harmless if it was not taken. Errors are ignored: the terminal may be gone.
pub(super) fn restore() {
    let Some(before) = SAVED.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take() else { return };
    let _ = execute!(io::stdout(), DisableBracketedPaste, terminal::LeaveAlternateScreen, cursor::Show);
    let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
}

/// Puts the terminal back before a panic is reported, and ends the process after it: a thread that panics would leave the
/// others drawing.
fn restore_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        restore();
        report(info);
        std::process::exit(101);
    }));
}

/// Whether the view can be shown: both ends are a terminal that can move its cursor. Returns why not.
pub(super) fn unusable(term: Option<&str>) -> Option<&'static str> {
    if !io::stdout().is_terminal() {
        return Some("stdout is no terminal");
    }
    if !io::stdin().is_terminal() {
        return Some("stdin is no terminal");
    }
    match term {
        None | Some("") => Some("TERM is not set"),
        Some("dumb") => Some("TERM is \"dumb\""),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use testkit::tmux::Tmux;

    use super::*;

    #[test]
    #[ignore = "run by the test below, in a terminal"]
    fn panics_in_another_thread_while_the_view_is_shown() {
        let mut screen = Screen::open().unwrap();
        let style = ratatui_core::style::Style::new();
        screen.draw(|buffer| buffer.set_string(0, 0, "the view", style)).unwrap();
        let _ = std::thread::spawn(|| {
            std::thread::sleep(Duration::from_secs(1));
            panic!("planted");
        })
        .join();
        std::thread::sleep(Duration::from_secs(600));
    }

    #[test]
    fn panic_leaves_a_sane_terminal() {
        let Some(tmux) = Tmux::for_test("panic_leaves_a_sane_terminal", 80, 24, &[]) else { return };
        let program = std::env::current_exe().unwrap();
        let name = "top::terminal::tests::panics_in_another_thread_while_the_view_is_shown";
        tmux.line(&format!("{} --ignored --nocapture --exact {name}; echo exit $?", program.display()));
        tmux.await_text("the view");
        assert_eq!(tmux.property("alternate_on"), "1");
        let screen = tmux.await_text("exit 101");
        assert!(screen.iter().any(|line| line.contains("planted")), "{screen:#?}");
        tmux.assert_sane();
    }
}
