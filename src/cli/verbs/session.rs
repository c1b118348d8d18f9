//! register, heartbeat, close, footer: what a session does with itself.

use std::time::Duration;

use serde_json::json;

use crate::cli::args::{CloseArgs, FooterArgs, HeartbeatArgs, RegisterArgs};
use crate::cli::away::{Away, met_nobody};
use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::client::{Client, register_with_env};
use crate::domain::session::valid_working_dir;
use crate::domain::{InstanceId, MachineName, Session};
use crate::platform::process::start_time;
use crate::spool::ClientWrite;
use crate::wire::{ErrorDetail, HeartbeatRequest, RegisterRequest, SessionBody, SessionView};

pub fn register(client: &Client, args: RegisterArgs, away: &Away<'_>, out: &mut Output<'_>) -> Result<(), CliError> {
    let mut request = RegisterRequest {
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
    let session = match register_with_env(client, &mut request, away.env) {
        Err(error) if met_nobody(&error) => leave_registration(request, away, error, out)?,
        answer => answer?,
    };
    match (args.json, args.id_only) {
        (true, _) => out.json(&session),
        (_, true) => out.line(&session.instance_id),
        _ => out.line(&format!("registered {} on {}", session.instance_id, session.host_machine)),
    }
}

/// Registers in the spool, under an id that the daemon will keep.
pub fn leave_registration(
    request: RegisterRequest,
    away: &Away<'_>,
    error: ErrorDetail,
    out: &mut Output<'_>,
) -> Result<SessionBody, CliError> {
    let now = out.look.now;
    let machine = away.machine();
    // What the daemon would refuse is refused now: later there is nobody to tell.
    let checked = MachineName::parse(&machine).and_then(|this| request.validate(&this));
    let what = checked.map_err(|invalid| CliError::usage(invalid.to_string(), "see `sessiond register --help`"))?;
    let pid_started = match request.pid {
        Some(pid) => Some(start_time(pid).ok_or_else(|| {
            CliError::usage(
                format!("pid: no process {pid} runs on this machine"),
                "name one that does, or leave it out",
            )
        })?),
        None => None,
    };
    let id = away.draw(&what.project, what.instance_type);
    away.leave(ClientWrite::Register { id: id.to_string(), request, pid_started }, now, error)?;
    spooled(out);
    let session = Session::register(id, what, now);
    let seen = SessionView {
        session: &session,
        local: true,
        as_of: now,
        synced: false,
        machine_synced: false,
        former_id: None,
        checkpoint_due: false,
    };
    Ok(seen.body(now, Duration::MAX))
}

fn spooled(out: &mut Output<'_>) {
    out.note("sessiond: no daemon answers; this waits in the spool until one is started");
}

pub fn heartbeat(client: &Client, args: HeartbeatArgs, away: &Away<'_>, out: &mut Output<'_>) -> Result<(), CliError> {
    let current_epic = if args.clear_epic { Some(None) } else { args.epic.map(Some) };
    let request = HeartbeatRequest { context_percent: args.context, current_epic };
    let session = match client.heartbeat(&args.id, &request) {
        Err(error) if met_nobody(&error) => {
            request
                .validate()
                .map_err(|invalid| CliError::usage(invalid.to_string(), "see `sessiond heartbeat --help`"))?;
            return leave(
                ClientWrite::Heartbeat { id: args.id.clone(), request },
                &args.id,
                args.json,
                away,
                error,
                out,
            );
        }
        answer => answer?,
    };
    if args.json {
        return out.json(&session);
    }
    let epic = session.current_epic.as_deref().map_or("no epic".to_owned(), |epic| format!("epic {epic}"));
    out.line(&format!("{} is {}, context {}%, {epic}", session.instance_id, session.status, session.context_percent))
}

pub fn close(client: &Client, args: &CloseArgs, away: &Away<'_>, out: &mut Output<'_>) -> Result<(), CliError> {
    match client.close(&args.id) {
        Err(error) if met_nobody(&error) => {
            leave(ClientWrite::Close { id: args.id.clone() }, &args.id, args.json, away, error, out)
        }
        answer => {
            let session = answer?;
            if args.json { out.json(&session) } else { out.line(&format!("closed {}", session.instance_id)) }
        }
    }
}

/// Leaves a change of a session whose state nobody here can tell.
fn leave(
    write: ClientWrite,
    id: &str,
    json: bool,
    away: &Away<'_>,
    error: ErrorDetail,
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    InstanceId::parse(id).map_err(|invalid| CliError::usage(invalid.to_string(), "give the whole id"))?;
    away.leave(write, out.look.now, error)?;
    spooled(out);
    if json { out.json(&json!({"instance_id": id, "spooled": true})) } else { Ok(()) }
}

pub fn footer(client: &Client, args: &FooterArgs, out: &mut Output<'_>) -> Result<(), CliError> {
    let footer = client.footer(&args.id, args.separator)?;
    out.lines(&footer)
}

/// A path that is not text, or has control characters, cannot be recorded; then the session has no folder.
pub fn current_dir() -> Option<String> {
    let dir = std::env::current_dir().ok()?.into_os_string().into_string().ok()?;
    valid_working_dir(&dir).ok()
}
