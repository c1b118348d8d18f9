//! Where the words go: stdout for what was asked for, stderr for everything else.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use super::error::CliError;
use super::table::{Cell, Column, Table};
use super::text;
use crate::domain::Timestamp;
use crate::wire::{ErrorCode, SessionBody};

/// What a word means, as far as a colour can say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Good,
    Warn,
    Bad,
    Dim,
}

impl Tone {
    /// The tone of a session's status.
    pub fn of_status(status: &str) -> Self {
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

/// What the surroundings ask of the output.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// The columns there are; no limit where nobody looks.
    pub width: Option<usize>,
    pub colour: bool,
    /// JSON is laid out for people.
    pub pretty: bool,
    /// A line may be drawn over and over on stderr.
    pub progress: bool,
    /// The moment that ages are counted from.
    pub now: Timestamp,
}

impl Look {
    /// Of the process's own stdout and stderr.
    pub fn detect(env: impl Fn(&str) -> Option<OsString>, now: Timestamp) -> Self {
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

    /// Of a pipe.
    #[cfg(test)]
    pub const fn plain() -> Self {
        Self { width: None, colour: false, pretty: false, progress: false, now: Timestamp::from_micros(0) }
    }

    pub fn paint(&self, text: &str, tone: Tone) -> String {
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

/// The two streams of a verb.
pub struct Output<'a> {
    stdout: &'a mut dyn Write,
    stderr: &'a mut dyn Write,
    pub look: Look,
}

impl<'a> Output<'a> {
    pub fn new(stdout: &'a mut dyn Write, stderr: &'a mut dyn Write, look: Look) -> Self {
        Self { stdout, stderr, look }
    }

    /// Prints what was asked for, in one write. A reader who has seen enough is no error.
    pub fn print(&mut self, text: &str) -> Result<(), CliError> {
        let printed = self.stdout.write_all(text.as_bytes()).and_then(|()| self.stdout.flush());
        match printed {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CliError::stdout(&error)),
            _ => Ok(()),
        }
    }

    /// Prints one line of text that may hold anything.
    pub fn line(&mut self, text: &str) -> Result<(), CliError> {
        self.print(&format!("{}\n", text::one_line(text)))
    }

    /// Prints a document.
    pub fn json(&mut self, document: &impl Serialize) -> Result<(), CliError> {
        let render = if self.look.pretty { serde_json::to_string_pretty } else { serde_json::to_string };
        let document = render(document)
            .map_err(|error| CliError::new(ErrorCode::Internal, format!("cannot write JSON: {error}"), ""))?;
        self.print(&format!("{}\n", text::json(&document)))
    }

    /// Says something beside the answer. That nobody may be there to read it is no reason to fail.
    pub fn note(&mut self, text: &str) {
        let _ = writeln!(self.stderr, "{}", text::one_line(text));
    }

    /// Draws the line of progress anew; an empty one clears it.
    pub fn progress(&mut self, text: &str) {
        if self.look.progress {
            let room = self.look.width.unwrap_or(80).saturating_sub(1);
            let _ = write!(self.stderr, "\r\u{1b}[K{}", text::cut_end(&text::one_line(text), room));
            let _ = self.stderr.flush();
        }
    }

    /// Tells of a failure, and gives its exit code.
    pub fn fail(&mut self, error: &CliError, json: bool) -> u8 {
        if json {
            // stderr still has the line if stdout is gone.
            let _ = self.json(&error.document());
        }
        let _ = write!(self.stderr, "{}\n{}", error.line(), self.candidates(&error.matches));
        error.exit_code()
    }

    fn candidates(&self, matches: &[SessionBody]) -> String {
        if matches.is_empty() {
            return String::new();
        }
        // stderr may go elsewhere than the stdout whose colours these are.
        let look = Look { colour: false, ..self.look };
        let mut table = Table::new([
            Column::new("").right(),
            Column::new("ID").cut_middle().yields(1),
            Column::new("MACHINE").yields(2),
            Column::new("STATUS"),
            Column::new("EPIC").yields(3),
            Column::new("HEARTBEAT").right(),
        ]);
        for (index, session) in matches.iter().enumerate() {
            table.row([
                Cell::new((index + 1).to_string()),
                Cell::new(&session.instance_id),
                Cell::new(&session.host_machine),
                Cell::new(&session.status),
                Cell::new(session.current_epic.as_deref().unwrap_or("—")),
                Cell::new(text::age(std::time::Duration::from_secs(session.age_seconds))),
            ]);
        }
        table.render(&look)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fails(io::ErrorKind);

    impl Write for Fails {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    #[test]
    fn a_reader_who_left_is_no_error() {
        let mut err = Vec::new();
        let mut gone = Fails(io::ErrorKind::BrokenPipe);
        assert!(Output::new(&mut gone, &mut err, Look::plain()).print("x").is_ok());
        let mut full = Fails(io::ErrorKind::StorageFull);
        assert!(Output::new(&mut full, &mut err, Look::plain()).print("x").is_err());
        let mut out = Vec::new();
        Output::new(&mut out, &mut gone, Look::plain()).note("x");
    }

    #[test]
    fn the_surroundings_decide() {
        let look = |pairs: &'static [(&str, &str)]| {
            let env = move |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, v)| OsString::from(v));
            Look::detect(env, Timestamp::from_micros(0))
        };
        assert_eq!(look(&[("COLUMNS", "60")]).width, Some(60));
        assert_ne!(look(&[("COLUMNS", "wide")]).width, Some(0));
        assert!(!look(&[("NO_COLOR", "1")]).colour);
        assert!(!look(&[("TERM", "dumb")]).colour);
    }

    #[test]
    fn a_failure_is_a_line_and_with_json_also_a_document() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let error = CliError::new(ErrorCode::Unreachable, "no daemon", "start it");
        assert_eq!(Output::new(&mut out, &mut err, Look::plain()).fail(&error, true), 69);
        assert_eq!(String::from_utf8(err).unwrap(), "sessiond: no daemon; start it\n");
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"error\":{\"code\":\"unreachable\",\"message\":\"no daemon\",\"hint\":\"start it\"}}\n"
        );
    }
}
