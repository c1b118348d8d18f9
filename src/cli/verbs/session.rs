//! register, heartbeat, close, footer: what a session does with itself.

use crate::cli::args::{CloseArgs, FooterArgs, HeartbeatArgs, RegisterArgs};
use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::cli::text;
use crate::client::Client;
use crate::domain::session::valid_working_dir;
use crate::wire::{HeartbeatRequest, RegisterRequest};

pub fn register(client: &Client, args: RegisterArgs, out: &mut Output<'_>) -> Result<(), CliError> {
    let request = RegisterRequest {
        project: args.project,
        instance_type: Some(args.instance_type),
        host_machine: args.machine,
        current_epic: args.epic,
        context_percent: args.context,
        pid: args.pid,
        claude_session_uuid: args.claude_session_uuid,
        claude_session_path: args.claude_session_path,
        working_dir: args.working_dir.or_else(current_dir),
    };
    let session = client.register(&request)?;
    match (args.json, args.id_only) {
        (true, _) => out.json(&session),
        (_, true) => out.line(&session.instance_id),
        _ => out.line(&format!("registered {} on {}", session.instance_id, session.host_machine)),
    }
}

pub fn heartbeat(client: &Client, args: HeartbeatArgs, out: &mut Output<'_>) -> Result<(), CliError> {
    let current_epic = if args.clear_epic { Some(None) } else { args.epic.map(Some) };
    let request = HeartbeatRequest { context_percent: args.context, current_epic };
    let session = client.heartbeat(&args.id, &request)?;
    if args.json {
        return out.json(&session);
    }
    let epic = session.current_epic.as_deref().map_or("no epic".to_owned(), |epic| format!("epic {epic}"));
    out.line(&format!("{} is {}, context {}%, {epic}", session.instance_id, session.status, session.context_percent))
}

pub fn close(client: &Client, args: &CloseArgs, out: &mut Output<'_>) -> Result<(), CliError> {
    let session = client.close(&args.id)?;
    if args.json { out.json(&session) } else { out.line(&format!("closed {}", session.instance_id)) }
}

pub fn footer(client: &Client, args: &FooterArgs, out: &mut Output<'_>) -> Result<(), CliError> {
    let footer = client.footer(&args.id, args.separator)?;
    out.print(&format!("{}\n", text::lines(&footer)))
}

/// A path that is not text, or has control characters, cannot be recorded; then the session has no folder.
fn current_dir() -> Option<String> {
    let dir = std::env::current_dir().ok()?.into_os_string().into_string().ok()?;
    valid_working_dir(&dir).ok()
}
