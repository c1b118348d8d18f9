//! register, heartbeat, close and footer.

use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueHint};
use serde_json::json;

use crate::cli::command_line::percent;
use crate::cli::error::CliError;
use crate::cli::offline::{OfflineWriter, is_unreachable};
use crate::cli::output::Output;
use crate::client::{Client, register_with_env};
use crate::domain::agent::AgentName;
use crate::domain::footer::FooterForm;
use crate::domain::session::valid_working_dir;
use crate::domain::{InstanceId, MachineName, Session};
use crate::platform::process::start_time;
use crate::spool::ClientWrite;
use crate::wire::{ErrorDetail, HeartbeatRequest, RegisterRequest, SessionBody, SessionView};

// The agent of a session, for the verbs that begin or resume one. No doc comment: clap would take it for the verb's.
#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    /// Set its process on this host; when the process ends, the session turns stale at once
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..), allow_negative_numbers = true)]
    pub pid: Option<i32>,
    /// Set the agent's own id of its conversation
    #[arg(long, value_name = "UUID")]
    pub claude_session_uuid: Option<String>,
    /// Set the file of the agent's transcript
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub claude_session_path: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: id=$(sessiond register --project odin --epic 003 --pid $$ --id-only)")]
pub(crate) struct RegisterArgs {
    /// Set the project: lower-case letters, digits and dashes, at most 22 characters
    #[arg(long)]
    pub project: String,
    /// Set the type: PS, a project supervisor, or MS, a meta supervisor
    #[arg(long = "type", value_name = "TYPE", value_parser = ["PS", "MS"], default_value = "PS")]
    pub instance_type: String,
    /// Set the machine it runs on [default: this one]
    #[arg(long, value_name = "NAME")]
    pub machine: Option<String>,
    /// Set the epic it works on
    #[arg(long)]
    pub epic: Option<String>,
    /// Set how much of its context window is used, in percent
    #[arg(long, value_name = "PERCENT", value_parser = percent(), allow_negative_numbers = true)]
    pub context: Option<i64>,
    /// Set which agent runs it
    #[arg(long = "agent", value_name = "NAME", value_parser = AgentName::ALL.map(AgentName::as_str))]
    pub agent_name: Option<String>,
    #[command(flatten)]
    pub agent: AgentArgs,
    /// Set the folder in which it runs [default: this one]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub working_dir: Option<String>,
    /// Print the session as JSON
    #[arg(long)]
    pub json: bool,
    /// Print only the id
    #[arg(long, conflicts_with = "json")]
    pub id_only: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond heartbeat odin-PS-8f4a2b --context 42")]
pub(crate) struct HeartbeatArgs {
    /// The session's id
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub id: String,
    /// Set how much of its context window is used, in percent
    #[arg(long, value_name = "PERCENT", value_parser = percent(), allow_negative_numbers = true)]
    pub context: Option<i64>,
    /// Set the epic it works on now [default: unchanged]
    #[arg(long)]
    pub epic: Option<String>,
    /// Clear the epic
    #[arg(long, conflicts_with = "epic")]
    pub clear_epic: bool,
    /// Set what it does now
    #[arg(long, value_parser = ["working", "waiting", "idle", "failed"])]
    pub activity: Option<String>,
    /// Set what it waits for [default: input]
    #[arg(long, requires = "activity", value_name = "WHAT", value_parser = ["permission", "question", "plan", "input"])]
    pub waiting_for: Option<String>,
    /// Describe the activity, such as the tool that waits for permission
    #[arg(long, requires = "activity", value_name = "TEXT")]
    pub detail: Option<String>,
    /// Print the session as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond close odin-PS-8f4a2b")]
pub(crate) struct CloseArgs {
    /// The session's id
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub id: String,
    /// Print the session as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond footer odin-PS-8f4a2b --separator")]
pub(crate) struct FooterArgs {
    /// The session's id
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub id: String,
    /// Print a line `---` first
    #[arg(long)]
    pub separator: bool,
}

pub(crate) fn register(
    client: &Client,
    args: RegisterArgs,
    offline: &OfflineWriter<'_>,
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    let mut request = RegisterRequest {
        project: args.project,
        instance_type: Some(args.instance_type),
        host_machine: args.machine,
        current_epic: args.epic,
        context_percent: args.context,
        pid: args.agent.pid,
        agent: args.agent_name,
        claude_session_uuid: args.agent.claude_session_uuid,
        claude_session_path: args.agent.claude_session_path,
        working_dir: args.working_dir.or_else(current_dir),
    };
    let session = match register_with_env(client, &mut request, offline.env) {
        Err(error) if is_unreachable(&error) => spool_registration(request, offline, error, out)?,
        answer => answer?,
    };
    match (args.json, args.id_only) {
        (true, _) => out.print_json(&session),
        (_, true) => out.print_line(&session.instance_id),
        _ => out.print_line(&format!("registered {} on {}", session.instance_id, session.host_machine)),
    }
}

/// Registers in the spool, under an id that the daemon keeps.
pub(crate) fn spool_registration(
    request: RegisterRequest,
    offline: &OfflineWriter<'_>,
    error: ErrorDetail,
    out: &mut Output<'_>,
) -> Result<SessionBody, CliError> {
    let now = out.style.now;
    let machine = offline.machine_name();
    // Invalid requests are refused now: an error of the import would not be shown.
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
    let id = offline.draw_id(&what.project, what.instance_type);
    offline.write_to_spool(ClientWrite::Register { id: id.to_string(), request, pid_started }, now, error)?;
    note_spooled(out);
    let session = Session::register(id, what, now);
    let seen = SessionView {
        session: &session,
        local: true,
        as_of: now,
        synced: false,
        machine_synced: false,
        alive_as_of: None,
        source: None,
        former_id: None,
        checkpoint_due: false,
        conflicts: &[],
        work: None,
    };
    Ok(seen.body(now, Duration::MAX))
}

fn note_spooled(out: &mut Output<'_>) {
    out.print_note("sessiond: no daemon answers; the request is spooled until one is started");
}

pub(crate) fn heartbeat(
    client: &Client,
    args: HeartbeatArgs,
    offline: &OfflineWriter<'_>,
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    let current_epic = if args.clear_epic { Some(None) } else { args.epic.map(Some) };
    let request = HeartbeatRequest {
        context_percent: args.context,
        current_epic,
        activity: args.activity,
        waiting_for: args.waiting_for,
        activity_detail: args.detail,
    };
    let session = match client.heartbeat(&args.id, &request) {
        Err(error) if is_unreachable(&error) => {
            request
                .validate(out.style.now)
                .map_err(|invalid| CliError::usage(invalid.to_string(), "see `sessiond heartbeat --help`"))?;
            return spool_write(
                ClientWrite::Heartbeat { id: args.id.clone(), request },
                &args.id,
                args.json,
                offline,
                error,
                out,
            );
        }
        answer => answer?,
    };
    if args.json {
        return out.print_json(&session);
    }
    if !session.conflicts_with.is_empty() {
        let others = session.conflicts_with.join(", ");
        out.print_note(&format!("sessiond: also at work here: {others}; `sessiond conflicts` says what they share"));
    }
    let epic = session.current_epic.as_deref().map_or("no epic".to_owned(), |epic| format!("epic {epic}"));
    out.print_line(&format!(
        "{} is {}, context {}%, {epic}",
        session.instance_id, session.status, session.context_percent
    ))
}

pub(crate) fn close(
    client: &Client,
    args: &CloseArgs,
    offline: &OfflineWriter<'_>,
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    match client.close(&args.id) {
        Err(error) if is_unreachable(&error) => {
            spool_write(ClientWrite::Close { id: args.id.clone() }, &args.id, args.json, offline, error, out)
        }
        answer => {
            let session = answer?;
            if args.json {
                out.print_json(&session)
            } else {
                out.print_line(&format!("closed {}", session.instance_id))
            }
        }
    }
}

/// Spools a change of a session whose state is unknown here.
fn spool_write(
    write: ClientWrite,
    id: &str,
    json: bool,
    offline: &OfflineWriter<'_>,
    error: ErrorDetail,
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    InstanceId::parse(id).map_err(|invalid| CliError::usage(invalid.to_string(), "give the whole id"))?;
    offline.write_to_spool(write, out.style.now, error)?;
    note_spooled(out);
    if json { out.print_json(&json!({"instance_id": id, "spooled": true})) } else { Ok(()) }
}

pub(crate) fn footer(client: &Client, args: &FooterArgs, out: &mut Output<'_>) -> Result<(), CliError> {
    let form = if args.separator { FooterForm::Separated } else { FooterForm::Plain };
    let footer = client.footer(&args.id, form)?;
    out.print_lines(&footer)
}

/// The current folder; `None` if its path is not valid text, which cannot be recorded.
pub(crate) fn current_dir() -> Option<String> {
    let dir = std::env::current_dir().ok()?.into_os_string().into_string().ok()?;
    valid_working_dir(&dir).ok()
}
