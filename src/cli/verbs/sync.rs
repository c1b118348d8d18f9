//! sync: pushes now, and with `--wait` waits until central has everything.

use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::cli::text::{count, count_with_verb};
use crate::client::Client;
use crate::wire::{BacklogBody, ErrorCode, SyncBody};

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond sync --wait --timeout 10")]
pub(crate) struct SyncArgs {
    /// Wait until central has everything
    #[arg(long)]
    pub wait: bool,
    /// Wait at most this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "wait")]
    #[arg(value_parser = clap::value_parser!(u64).range(..=86_400), allow_negative_numbers = true)]
    pub timeout: u64,
    /// Print the remaining backlog as JSON
    #[arg(long)]
    pub json: bool,
}

/// How long the daemon delays one answer while rows are pending.
const POLL: Duration = Duration::from_secs(1);

/// The pause before the next request, should the daemon answer early.
const BETWEEN_POLLS: Duration = Duration::from_millis(50);

pub(crate) fn sync(client: &Client, args: &SyncArgs, out: &mut Output<'_>) -> Result<(), CliError> {
    let state = if args.wait { wait(client, args.timeout, out)? } else { ask(client, None)? };
    match (args.json, is_pending(&state.backlog)) {
        (true, _) => out.print_json(&state),
        (_, false) if state.central.state == "connected" => {
            out.print_line(&format!("central has everything{}", parked(state.parked)))
        }
        // Whether central still has everything is unknown while it is not connected.
        (_, false) => {
            out.print_line(&format!("nothing is pending{}; central is {}", parked(state.parked), state.central.state))
        }
        _ => out.print_line(&format!("push requested; {}", pending_text(&state.backlog))),
    }
}

/// Repeats the request until nothing is pending.
fn wait(client: &Client, seconds: u64, out: &mut Output<'_>) -> Result<SyncBody, CliError> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let done = poll(client, deadline, out);
    out.draw_progress("");
    let state = done?;
    match (is_pending(&state.backlog), state.parked) {
        (true, _) => Err(timed_out(&state, seconds)),
        (false, 0) => Ok(state),
        (false, parked) => Err(CliError::new(
            ErrorCode::Conflict,
            format!("central has everything but {}, which it rejects", count(parked, "parked row")),
            "see `sessiond parked list`; they are retried automatically",
        )),
    }
}

/// The state once nothing is pending, or at the deadline.
fn poll(client: &Client, deadline: Instant, out: &mut Output<'_>) -> Result<SyncBody, CliError> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).min(POLL);
        let state = ask(client, Some(left))?;
        if !is_pending(&state.backlog) || Instant::now() >= deadline {
            return Ok(state);
        }
        out.draw_progress(&format!("{}; central is {}", pending_text(&state.backlog), state.central.state));
        thread::sleep(BETWEEN_POLLS.min(deadline.saturating_duration_since(Instant::now())));
    }
}

/// Requests a push; an error if no central is configured.
fn ask(client: &Client, wait: Option<Duration>) -> Result<SyncBody, CliError> {
    let wait_ms = wait.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
    let state = client.sync(wait_ms)?;
    if state.central.state == "off" {
        return Err(CliError::new(
            ErrorCode::Conflict,
            "no central database is configured, so there is nothing to push to",
            "set central.url in the config file, or SESSIOND_CENTRAL_URL for the daemon",
        ));
    }
    Ok(state)
}

fn timed_out(state: &SyncBody, seconds: u64) -> CliError {
    let why = state.central.last_error.as_deref().map_or(String::new(), |error| format!(": {error}"));
    let blocked: u64 = state.backlog.blocked.iter().map(|blocked| blocked.records).sum();
    // Waiting longer does not help if the operator must act.
    let refused = state.central.state == "refused"
        || blocked > 0 && state.backlog.sessions == 0 && blocked >= state.backlog.records;
    CliError::new(
        if refused { ErrorCode::Conflict } else { ErrorCode::Timeout },
        format!("{} after {seconds} s; central is {}{why}", pending_text(&state.backlog), state.central.state),
        "nothing is lost, sync continues in the background; see `sessiond status`",
    )
}

const fn is_pending(backlog: &BacklogBody) -> bool {
    backlog.sessions > 0 || backlog.records > 0
}

/// `3 sessions are pending`, `1 session and 2 records are pending`.
fn pending_text(backlog: &BacklogBody) -> String {
    match (backlog.sessions, backlog.records) {
        (sessions, 0) => count_with_verb(sessions, "session", "is pending", "are pending"),
        (0, records) => count_with_verb(records, "record", "is pending", "are pending"),
        (sessions, records) => format!("{} and {} are pending", count(sessions, "session"), count(records, "record")),
    }
}

fn parked(parked: u64) -> String {
    match parked {
        0 => String::new(),
        n => format!(" but {}; see `sessiond parked list`", count(n, "parked row")),
    }
}
