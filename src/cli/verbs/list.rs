//! list and show: sessions of all machines.

use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::watch;
use crate::cli::error::CliError;
use crate::cli::freshness::freshness;
use crate::cli::output::Output;
use crate::cli::style::{OutputStyle, Tone};
use crate::cli::table::{Cell, FieldList, TableColumn, TextTable};
use crate::cli::text::{age, count, time_with_age};
use crate::client::{Client, Resolved};
use crate::domain::Timestamp;
use crate::wire::{ListQuery, SessionBody, SessionList, WatchQuery};

#[derive(Clone, Debug, Args)]
#[command(after_help = "Example: sessiond list --project odin --active")]
pub(crate) struct ListArgs {
    /// List only sessions of this project
    #[arg(long)]
    pub project: Option<String>,
    /// List only sessions on this machine
    #[arg(long, value_name = "NAME")]
    pub machine: Option<String>,
    /// List only sessions with this status
    #[arg(long, value_parser = ["active", "stale", "closed"])]
    pub status: Option<String>,
    /// List only active sessions
    #[arg(long)]
    pub active: bool,
    /// List only sessions of this host
    #[arg(long)]
    pub local: bool,
    /// List also sessions that were closed long ago
    #[arg(long)]
    pub all: bool,
    /// Print a line for each later change, until interrupted
    #[arg(long)]
    pub watch: bool,
    /// Print the list as JSON; with --watch, each change is a document on a line of its own
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond show odin-PS")]
pub(crate) struct ShowArgs {
    /// The session's id, or a prefix of it
    #[arg(value_name = "ID|PREFIX", value_parser = NonEmptyStringValueParser::new())]
    pub id: String,
    /// Print the session as JSON
    #[arg(long)]
    pub json: bool,
}

pub(crate) fn list(client: &Client, args: ListArgs, out: &mut Output<'_>) -> Result<(), CliError> {
    if !args.watch {
        return list_once(client, args, out);
    }
    let (project, machine) = (args.project.clone(), args.machine.clone());
    let query = WatchQuery { project, machine, local: args.local.then_some(true), after: None };
    watch::watch(client, query, args.json, out, |out| list_once(client, args.clone(), out))
}

fn list_once(client: &Client, args: ListArgs, out: &mut Output<'_>) -> Result<(), CliError> {
    let query = ListQuery {
        project: args.project,
        machine: args.machine,
        status: args.status,
        active_only: args.active.then_some(true),
        local: args.local.then_some(true),
        all: args.all.then_some(true),
        ..ListQuery::default()
    };
    let filtered = query != ListQuery::default();
    let sessions = client.list(&query)?;
    if args.json {
        return out.print_json(&sessions);
    }
    if sessions.instances.is_empty() {
        out.print_note(if filtered {
            "no session matches"
        } else {
            "no sessions yet; `sessiond register` registers one"
        });
        return Ok(());
    }
    out.print_rendered(&format!(
        "{}\n{}\n",
        table(&sessions.instances, out.style.now).render(&out.style),
        summary(&sessions)
    ))
}

fn table(sessions: &[SessionBody], now: Timestamp) -> TextTable {
    let mut table = TextTable::new([
        TableColumn::new("ID").cut_middle().shrink_rank(1),
        TableColumn::new("MACHINE").shrink_rank(2),
        TableColumn::new("STATUS"),
        TableColumn::new("CONTEXT").right(),
        TableColumn::new("EPIC").shrink_rank(3),
        TableColumn::new("HEARTBEAT").right(),
        TableColumn::new("KNOWN"),
    ]);
    for session in sessions {
        table.row([
            Cell::new(&session.instance_id),
            Cell::new(&session.host_machine),
            Cell::new(&session.status).tone(Tone::of_status(&session.status)),
            Cell::new(format!("{}%", session.context_percent)),
            Cell::new(session.current_epic.as_deref().unwrap_or("—")),
            Cell::new(age(Duration::from_secs(session.age_seconds))),
            freshness(session, now),
        ]);
    }
    table
}

/// `3 sessions, 2 active, 1 stale`
fn summary(sessions: &SessionList) -> String {
    let closed = sessions.total_count.saturating_sub(sessions.active_count).saturating_sub(sessions.stale_count);
    let parts = [(sessions.active_count, "active"), (sessions.stale_count, "stale"), (closed, "closed")];
    let mut summary = count(sessions.total_count, "session");
    for (n, state) in parts.into_iter().filter(|(n, _)| *n > 0) {
        summary.push_str(&format!(", {n} {state}"));
    }
    summary
}

pub(crate) fn show(client: &Client, args: &ShowArgs, out: &mut Output<'_>) -> Result<(), CliError> {
    match client.show(&args.id)? {
        Resolved::Several(several) => Err(CliError::ambiguous(&args.id, several.matches)),
        Resolved::One(session) if args.json => out.print_json(&session),
        Resolved::One(session) => out.print_rendered(&sheet(&session, &out.style).render(&out.style)),
    }
}

fn sheet(session: &SessionBody, style: &OutputStyle) -> FieldList {
    let mut sheet = FieldList::default();
    sheet.row("id", &session.instance_id);
    if let Some(former) = &session.former_id {
        sheet.row("formerly", format!("{former}, which another session holds in central"));
    }
    sheet.row("project", &session.project);
    sheet.row("type", &session.instance_type);
    sheet.row("machine", format!("{}{}", session.host_machine, if session.local { " (this host)" } else { "" }));
    sheet.row("status", Cell::new(&session.status).tone(Tone::of_status(&session.status)));
    sheet.row("context", format!("{}%", session.context_percent));
    sheet.row("epic", session.current_epic.as_deref().unwrap_or("—"));
    sheet.row("heartbeat", time_with_age(&session.last_heartbeat, style.now));
    sheet.row("created", time_with_age(&session.created_at, style.now));
    if let Some(closed_at) = &session.closed_at {
        sheet.row("closed", time_with_age(closed_at, style.now));
    }
    if let Some(from) = &session.resumed_from {
        sheet.row("resumed from", from);
    }
    if let Some(dir) = &session.working_dir {
        sheet.row("folder", dir);
    }
    if let Some(uuid) = &session.claude_session_uuid {
        sheet.row("claude id", uuid);
    }
    if let Some(path) = &session.claude_session_path {
        sheet.row("transcript", path);
    }
    sheet.row("known as of", time_with_age(&session.as_of, style.now));
    sheet.row("central", if session.synced { "has this state" } else { "does not have this state yet" });
    sheet
}
