//! statusline, which Claude Code runs to draw its status line: reports the context and the work, and prints the footer.

use std::time::Duration;

use super::agent_reporter::AgentReporter;
use crate::claude::input::Input;
use crate::claude::{limits, statusline, work};
use crate::cli::error::CliError;
use crate::cli::offline::OfflineWriter;
use crate::cli::output::Output;
use crate::client::Client;
use crate::domain::agent::AgentName;
use crate::domain::text::escaped_lines;
use crate::wire::{AgentReport, LimitsReport};

/// The deadline of the status line: the agent waits for it to draw the screen.
const STATUSLINE_TIMEOUT: Duration = Duration::from_millis(60);

pub(crate) fn statusline(client: &Client, offline: &OfflineWriter<'_>, out: &mut Output<'_>) -> Result<(), CliError> {
    let mut reporter = AgentReporter::new(client, offline, out.style.now, STATUSLINE_TIMEOUT);
    let input = reporter.read_input(&statusline::wanted());
    if let Some(complaint) = &input.complaint {
        reporter.log_complaint(&format!("statusline: {complaint}"));
    }
    if reporter.agent_of(&input) != Some(AgentName::ClaudeCode) {
        return Ok(());
    }
    let report = statusline::report(&input, &reporter.environment());
    let work = reporter.allowed(|recording| work::of_status_line(&input, recording));
    let limits = limits(&reporter, &input, report.claude_session_uuid.as_deref());
    if let Some(reported) = reporter.report(AgentReport { work, limits, ..report }) {
        reporter.print_answer(out, &escaped_lines(&reported.footer));
    }
    Ok(())
}

/// The rate limits that the status line shows, unless it shows the same again. The configuration is read only if there are
/// some.
fn limits(reporter: &AgentReporter<'_>, input: &Input, uuid: Option<&str>) -> Option<LimitsReport> {
    input.at(&[limits::WANTED])?;
    if reporter.are_shown_again(uuid, limits::observation(input)) {
        return None;
    }
    limits::of(input, reporter.recording(), &reporter.environment(), reporter.now)
}
