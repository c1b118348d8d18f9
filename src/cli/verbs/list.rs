//! list and show: sessions of all machines.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::list_columns::ListColumn;
use super::{list_columns, show_work, watch};
use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::cli::style::{OutputStyle, Tone};
use crate::cli::table::{Cell, FieldList};
use crate::cli::text::{count, time_with_age};
use crate::client::{Client, Resolved};
use crate::domain::agent::AgentName;
use crate::domain::attention::SortKey;
use crate::domain::text::escaped_line;
use crate::wire::{
    ActivityHistoryBody, ActivityParams, ErrorCode, ListQuery, SessionBody, SessionList, Source, WatchQuery,
};

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
    /// List only sessions that wait for their user; exit with 1 if there is none
    #[arg(long)]
    pub waiting: bool,
    /// List only sessions that this host keeps, not those of other machines
    #[arg(long)]
    pub local: bool,
    /// List also headless and closed sessions, however old
    #[arg(long)]
    pub all: bool,
    /// Sort in this order
    #[arg(long, value_name = "KEY", value_enum, default_value_t)]
    pub sort: SortKey,
    /// Show these columns, separated by commas
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',')]
    pub columns: Option<Vec<ListColumn>>,
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
    /// Show when it changed what it does, in the last 7 days, instead of its fields
    #[arg(long)]
    pub activity: bool,
    /// Print JSON
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
        activity: args.waiting.then(|| "waiting".to_owned()),
        ..ListQuery::default()
    };
    let filtered = query != ListQuery::default();
    let shows_closed = args.all || query.status.as_deref() == Some("closed");
    let mut sessions = client.list(&query)?;
    if args.json {
        let is_empty = sessions.instances.is_empty();
        out.print_json(&sessions)?;
        return if args.waiting && is_empty { Err(nothing_waits()) } else { Ok(()) };
    }
    if args.waiting && sessions.instances.is_empty() {
        return Err(nothing_waits());
    }
    let known = sessions.instances.len();
    sessions.instances.retain(|session| args.all || is_listed(session, shows_closed));
    let hidden = known - sessions.instances.len();
    sessions.instances.sort_by_cached_key(|session| args.sort.position(&session.sort_fields()));
    if let Some(note) = &sessions.note {
        out.print_note(note);
    }
    if sessions.instances.is_empty() && hidden > 0 {
        out.print_note(&format!("no session is active or stale; {} with --all", count(hidden as u64, "more session")));
        return Ok(());
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
        list_columns::table(&sessions.instances, args.columns.as_deref(), &out.style).render(&out.style),
        summary(&sessions, hidden)
    ))
}

/// Whether a session is listed without `--all`: a closed one only if it is asked for, and no prompt that ran by itself.
fn is_listed(session: &SessionBody, shows_closed: bool) -> bool {
    session.is_open_work() || (shows_closed && !session.is_headless())
}

/// The exit code of `--waiting` without any; scripts need no message.
fn nothing_waits() -> CliError {
    let error = CliError::new(ErrorCode::NotFound, "no session waits for its user", "");
    CliError { is_reported: true, ..error }
}

/// `3 sessions, 2 active, 1 stale; 4 more with --all`
fn summary(sessions: &SessionList, hidden: usize) -> String {
    let closed = sessions.total_count.saturating_sub(sessions.active_count).saturating_sub(sessions.stale_count);
    let parts = [(sessions.active_count, "active"), (sessions.stale_count, "stale"), (closed, "closed")];
    let mut summary = count(sessions.total_count, "session");
    let more = if hidden > 0 { format!("; {hidden} of them only with --all") } else { String::new() };
    for (n, state) in parts.into_iter().filter(|(n, _)| *n > 0) {
        summary.push_str(&format!(", {n} {state}"));
    }
    summary + &more
}

pub(crate) fn show(client: &Client, args: &ShowArgs, out: &mut Output<'_>) -> Result<(), CliError> {
    match client.show(&args.id)? {
        Resolved::Several(several) => Err(CliError::ambiguous(&args.id, several.matches)),
        Resolved::One(session) if args.activity => {
            let history = client.activity(&session.instance_id, &ActivityParams::default())?;
            if args.json { out.print_json(&history) } else { out.print_rendered(&changes(&history, &out.style)) }
        }
        Resolved::One(session) if args.json => out.print_json(&session),
        Resolved::One(session) => {
            let work = client.work(&session.instance_id)?;
            let mut text = sheet(&session, &out.style).render(&out.style);
            text.push_str(&show_work::render(&work, &out.style));
            out.print_rendered(&text)
        }
    }
}

/// A line for each change: when, what, and how full the context was.
fn changes(history: &ActivityHistoryBody, style: &OutputStyle) -> String {
    let mut text = String::new();
    for change in &history.changes {
        let words = [change.activity.as_deref(), change.waiting_for.as_deref(), change.detail.as_deref()];
        let words = words.into_iter().flatten().collect::<Vec<_>>().join(" ");
        let what = if words.is_empty() { "—".to_owned() } else { escaped_line(&words) };
        text.push_str(&format!("{}  {what}, context {}%\n", change.at, change.context_percent));
    }
    if history.changes.is_empty() {
        text.push_str("no change of its activity is recorded\n");
    }
    text.push_str(&format!("known as of {}\n", time_with_age(&history.as_of, style.now)));
    text
}

pub(super) fn sheet(session: &SessionBody, style: &OutputStyle) -> FieldList {
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
    if let Some(alive) = session.alive_as_of.as_deref().filter(|_| session.status == "active") {
        sheet.row("alive", format!("alive, as of {}", time_with_age(alive, style.now)));
    }
    sheet.row("created", time_with_age(&session.created_at, style.now));
    if let Some(closed_at) = &session.closed_at {
        sheet.row("closed", time_with_age(closed_at, style.now));
    }
    if let Some(from) = &session.resumed_from {
        sheet.row("resumed from", from);
    }
    if !session.conflicts_with.is_empty() {
        let others = session.conflicts_with.join(", ");
        sheet.row("conflicts with", Cell::new(others).tone(Tone::Warn));
    }
    if let Some(dir) = &session.working_dir {
        sheet.row("folder", dir);
    }
    if let Some(agent) = &session.agent {
        let version = session.agent_version.as_ref().map(|version| format!(" {version}"));
        sheet.row("agent", format!("{agent}{}", version.unwrap_or_default()));
    }
    if let Some(id) = &session.claude_session_uuid {
        let is_claude = session.agent.as_deref().is_none_or(|agent| agent == AgentName::ClaudeCode.as_str());
        sheet.row(if is_claude { "claude id" } else { "agent id" }, id);
    }
    if let Some(path) = &session.claude_session_path {
        sheet.row("transcript", path);
    }
    sheet.row("known as of", time_with_age(&session.as_of, style.now));
    if session.source.as_deref() == Some(Source::Central.as_str()) {
        sheet.row("source", "central, asked because it is not in mirror.scope");
    }
    if let Some(note) = &session.note {
        sheet.row("note", Cell::new(note).tone(Tone::Warn));
    }
    sheet.row("central", if session.synced { "has this state" } else { "does not have this state yet" });
    sheet
}
