//! The output of verbs: the answer on stdout, everything else on stderr.
//!
//! Text that may hold control characters is escaped: [`Output::print_line`], [`Output::print_lines`] and the JSON functions
//! do it; [`Output::print_rendered`] is for tables and lists whose cells are escaped already. A closed pipe is not an
//! error: the reader needs no more.

use std::io::{self, Write};

use serde::Serialize;

use super::error::CliError;
use super::freshness::freshness;
use super::style::OutputStyle;
use super::table::{Cell, TableColumn, TextTable};
use super::text;
use crate::domain::text::{escaped_line, escaped_lines, safe_document};
use crate::wire::{ErrorCode, SessionBody};

/// The two streams of a verb.
pub(super) struct Output<'a> {
    stdout: &'a mut dyn Write,
    stderr: &'a mut dyn Write,
    pub style: OutputStyle,
}

impl<'a> Output<'a> {
    pub(super) fn new(stdout: &'a mut dyn Write, stderr: &'a mut dyn Write, style: OutputStyle) -> Self {
        Self { stdout, stderr, style }
    }

    /// Prints text that is already escaped, in one write.
    pub(super) fn print_rendered(&mut self, text: &str) -> Result<(), CliError> {
        let printed = self.stdout.write_all(text.as_bytes()).and_then(|()| self.stdout.flush());
        match printed {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CliError::stdout(&error)),
            _ => Ok(()),
        }
    }

    /// Prints text as one escaped line.
    pub(super) fn print_line(&mut self, text: &str) -> Result<(), CliError> {
        self.print_rendered(&format!("{}\n", escaped_line(text)))
    }

    /// Prints text as escaped lines, with a line break at its end.
    pub(super) fn print_lines(&mut self, text: &str) -> Result<(), CliError> {
        let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        self.print_rendered(&format!("{}{end}", escaped_lines(text)))
    }

    /// Prints a JSON document on one line.
    pub(super) fn print_json_line(&mut self, document: &impl Serialize) -> Result<(), CliError> {
        let document = serde_json::to_string(document)
            .map_err(|error| CliError::new(ErrorCode::Internal, format!("cannot write JSON: {error}"), ""))?;
        self.print_rendered(&format!("{}\n", safe_document(document)))
    }

    /// Prints a JSON document.
    pub(super) fn print_json(&mut self, document: &impl Serialize) -> Result<(), CliError> {
        let render = if self.style.pretty { serde_json::to_string_pretty } else { serde_json::to_string };
        let document = render(document)
            .map_err(|error| CliError::new(ErrorCode::Internal, format!("cannot write JSON: {error}"), ""))?;
        self.print_rendered(&format!("{}\n", safe_document(document)))
    }

    /// Prints a line to stderr. A closed stderr is ignored.
    pub(super) fn print_note(&mut self, text: &str) {
        let _ = writeln!(self.stderr, "{}", escaped_line(text));
    }

    /// Redraws the progress line; an empty text clears it.
    pub(super) fn draw_progress(&mut self, text: &str) {
        if self.style.progress {
            let room = self.style.width.unwrap_or(80).saturating_sub(1);
            let _ = write!(self.stderr, "\r\u{1b}[K{}", text::cut_end(&escaped_line(text), room));
            let _ = self.stderr.flush();
        }
    }

    /// Prints a failure, and returns its exit code.
    pub(super) fn report_failure(&mut self, error: &CliError, json: bool) -> u8 {
        if json && !error.is_reported {
            // If stdout is closed, stderr still has the line.
            let _ = self.print_json(&error.document());
        }
        let _ = write!(self.stderr, "{}\n{}", error.line(), self.match_table(&error.matches));
        error.exit_code()
    }

    fn match_table(&self, matches: &[SessionBody]) -> String {
        if matches.is_empty() {
            return String::new();
        }
        // The colours were chosen for stdout.
        let style = OutputStyle { colour: false, ..self.style };
        let mut table = TextTable::new([
            TableColumn::new("").right(),
            TableColumn::new("ID").cut_middle().shrink_rank(1),
            TableColumn::new("MACHINE").shrink_rank(2),
            TableColumn::new("STATUS"),
            TableColumn::new("EPIC").shrink_rank(3),
            TableColumn::new("HEARTBEAT").right(),
            TableColumn::new("KNOWN"),
        ]);
        for (index, session) in matches.iter().enumerate() {
            table.row([
                Cell::new((index + 1).to_string()),
                Cell::new(&session.instance_id),
                Cell::new(&session.host_machine),
                Cell::new(&session.status),
                Cell::new(session.current_epic.as_deref().unwrap_or("—")),
                Cell::new(text::age(std::time::Duration::from_secs(session.age_seconds))),
                freshness(session, style.now),
            ]);
        }
        table.render(&style)
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
    fn closed_pipe_is_not_an_error() {
        let mut err = Vec::new();
        let mut gone = Fails(io::ErrorKind::BrokenPipe);
        assert!(Output::new(&mut gone, &mut err, OutputStyle::plain()).print_rendered("x").is_ok());
        let mut full = Fails(io::ErrorKind::StorageFull);
        assert!(Output::new(&mut full, &mut err, OutputStyle::plain()).print_rendered("x").is_err());
        let mut out = Vec::new();
        Output::new(&mut out, &mut gone, OutputStyle::plain()).print_note("x");
    }

    #[test]
    fn failure_is_a_line_and_with_json_also_a_document() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let error = CliError::new(ErrorCode::Unreachable, "no daemon", "start it");
        assert_eq!(Output::new(&mut out, &mut err, OutputStyle::plain()).report_failure(&error, true), 69);
        assert_eq!(String::from_utf8(err).unwrap(), "sessiond: no daemon; start it\n");
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"error\":{\"code\":\"unreachable\",\"message\":\"no daemon\",\"hint\":\"start it\"}}\n"
        );
    }
}
