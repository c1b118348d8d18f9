//! Failures of verbs: a line on stderr, an exit code and, with `--json`, a document on stdout.

use std::io;

use clap::error::Error as ClapError;
use serde::Serialize;

use crate::domain::text::escaped_line;
use crate::wire::{ErrorCode, ErrorDetail, SessionBody};

/// The failure of a verb: what failed, why, and what to do.
#[derive(Clone, Debug, PartialEq)]
pub struct CliError {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
    pub(crate) hint: String,
    /// The sessions to choose from, where several match.
    pub matches: Vec<SessionBody>,
    /// The verb's own document on stdout already reports it.
    pub is_reported: bool,
}

impl CliError {
    /// An error with this code and these lines.
    pub fn new(code: ErrorCode, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: hint.into(), matches: Vec::new(), is_reported: false }
    }

    pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(ErrorCode::Usage, message, hint)
    }

    /// Several sessions match the hint.
    pub fn ambiguous(asked: &str, matches: Vec<SessionBody>) -> Self {
        let message = format!("\"{asked}\" matches {} sessions", matches.len());
        Self { matches, ..Self::new(ErrorCode::Ambiguous, message, "choose one and give its whole id") }
    }

    pub(crate) fn stdout(error: &io::Error) -> Self {
        Self::new(
            ErrorCode::Internal,
            format!("cannot write to stdout: {error}"),
            "free space there, or redirect the output",
        )
    }

    /// Converts clap's message, which has several paragraphs: the error, sometimes a tip, the usage, and how to get help.
    pub fn from_clap(error: &ClapError, verb: Option<&str>) -> Self {
        let text = error.render().to_string();
        let mut paragraphs = text.split("\n\n").map(joined);
        let message = paragraphs.next().unwrap_or_default();
        let message = message.strip_prefix("error: ").unwrap_or(&message);
        let rest: Vec<String> = paragraphs.collect();
        let hint = rest.iter().find_map(|paragraph| tip(paragraph)).or_else(|| rest.iter().find_map(|p| usage(p)));
        let help = || verb.map_or("see `sessiond --help`".to_owned(), |verb| format!("see `sessiond {verb} --help`"));
        Self::usage(message, hint.unwrap_or_else(help))
    }

    /// The line on stderr.
    pub fn line(&self) -> String {
        let hint = if self.hint.is_empty() { String::new() } else { format!("; {}", self.hint) };
        escaped_line(&format!("sessiond: {}{hint}", self.message))
    }

    /// The document on stdout.
    pub fn document(&self) -> ErrorDocument<'_> {
        let Self { code, message, hint, matches, .. } = self;
        ErrorDocument { error: ErrorDetail { code: *code, message: message.clone(), hint: hint.clone() }, matches }
    }

    /// The exit code of the verb that failed.
    pub const fn exit_code(&self) -> u8 {
        self.code.exit_code()
    }
}

/// A failure as JSON.
#[derive(Debug, Serialize)]
pub struct ErrorDocument<'a> {
    pub error: ErrorDetail,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub matches: &'a [SessionBody],
}

impl From<ErrorDetail> for CliError {
    fn from(detail: ErrorDetail) -> Self {
        Self::new(detail.code, detail.message, detail.hint)
    }
}

/// Joins a paragraph into one line.
fn joined(paragraph: &str) -> String {
    paragraph.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `tip: a similar subcommand exists: 'list'` becomes `did you mean 'list'?`.
fn tip(paragraph: &str) -> Option<String> {
    // Further tips follow in the same paragraph.
    let tip = paragraph.strip_prefix("tip: ")?.split(" tip: ").next()?;
    let similar = tip.split_once(" exists: ").or_else(|| tip.split_once(" exist: "));
    Some(similar.map_or(tip.to_owned(), |(_, names)| format!("did you mean {names}?")))
}

fn usage(paragraph: &str) -> Option<String> {
    Some(format!("usage: {}", paragraph.strip_prefix("Usage: ")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_has_a_safe_line_and_a_document() {
        let error = CliError::new(ErrorCode::NotFound, "no session \"x\"\n\u{1b}[31m", "see `sessiond list`");
        assert_eq!(error.line(), "sessiond: no session \"x\"\\n\\u{1b}[31m; see `sessiond list`");
        assert_eq!(error.exit_code(), 1);
        let document = serde_json::to_string(&error.document()).unwrap();
        assert!(document.starts_with(r#"{"error":{"code":"not_found","message":"no session"#), "{document}");
        assert!(!document.contains("matches"), "{document}");
    }

    #[test]
    fn line_without_a_hint_has_no_semicolon() {
        assert_eq!(CliError::new(ErrorCode::Internal, "m", "").line(), "sessiond: m");
    }
}
