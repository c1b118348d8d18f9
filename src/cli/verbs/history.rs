//! event, command and checkpoint, and their lists.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::cli::table::{Cell, TableColumn, TextTable};
use crate::cli::text::age_since;
use crate::client::{Client, Resolved};
use crate::wire::{
    CheckpointList, CheckpointRequest, CommandList, CommandRequest, EventList, EventRequest, HistoryParams, RecordState,
};

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond event odin-PS-8f4a2b epic_completed --data '{\"epic\": \"003\"}'")]
pub(crate) struct EventArgs {
    /// The session's id
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub id: String,
    /// The type of event, such as epic_completed
    #[arg(value_name = "TYPE")]
    pub event_type: String,
    /// Set its data, a JSON object; secrets in it are redacted
    #[arg(long, value_name = "JSON")]
    pub data: Option<String>,
    /// Set the id of the event that caused it
    #[arg(long, value_name = "UUID")]
    pub parent: Option<String>,
    /// Print the event as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond command odin-PS-8f4a2b build --took 1200 --tag release")]
pub(crate) struct CommandArgs {
    /// The session's id
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub id: String,
    /// The action that was run
    pub action: String,
    /// Set the type: mcp_tool or explicit [default: mcp_tool with --tool, else explicit]
    #[arg(long = "type", value_name = "TYPE", value_parser = ["mcp_tool", "explicit"])]
    pub command_type: Option<String>,
    /// Set the tool that ran it
    #[arg(long, value_name = "NAME")]
    pub tool: Option<String>,
    /// Set its parameters, a JSON object; secrets in it are redacted
    #[arg(long, value_name = "JSON")]
    pub parameters: Option<String>,
    /// Set its result, any JSON; secrets in it are redacted
    #[arg(long, value_name = "JSON")]
    pub result: Option<String>,
    /// Record that it failed, with this error message
    #[arg(long, value_name = "MESSAGE")]
    pub failed: Option<String>,
    /// Set how long it took, in milliseconds
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(i64).range(0..), allow_negative_numbers = true)]
    pub took: Option<i64>,
    /// Add a tag; may be repeated
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// Print the command as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example: sessiond checkpoint odin-PS-8f4a2b --type manual --work-state '{\"next_steps\": [\"run the tests\"]}'"
)]
pub(crate) struct CheckpointArgs {
    /// The session's id
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub id: String,
    /// Set the reason for the checkpoint
    #[arg(long = "type", value_name = "TYPE", value_parser = ["context_window", "epic_completion", "manual"])]
    pub checkpoint_type: String,
    /// Set the state of the work, a JSON object; secrets in it are redacted
    #[arg(long, value_name = "JSON")]
    pub work_state: String,
    /// Print the checkpoint as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// The session's id, or a prefix of it
    #[arg(value_name = "ID|PREFIX", value_parser = NonEmptyStringValueParser::new())]
    pub id: String,
    /// List only records of this type
    #[arg(long = "type", value_name = "TYPE")]
    pub record_type: Option<String>,
    /// List only records at or after this time, such as 2026-01-30T12:00:00Z
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// List only records before this time
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// List only records that contain this text
    #[arg(long, value_name = "TEXT")]
    pub contains: Option<String>,
    /// List at most this many [default: 50]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000), allow_negative_numbers = true)]
    pub limit: Option<u32>,
    /// Skip this many of the newest
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub offset: Option<u32>,
    /// Print the records as JSON
    #[arg(long)]
    pub json: bool,
}

pub(crate) fn event(client: &Client, args: EventArgs, out: &mut Output<'_>) -> Result<(), CliError> {
    let request = EventRequest {
        event_type: args.event_type,
        event_data: args.data.map(|text| json("--data", &text)).transpose()?,
        parent_uuid: args.parent,
    };
    let event = client.add_event(&args.id, &request)?;
    print_record(&event, &format!("event {}", event.event_id), &event.state, args.json, out)
}

pub(crate) fn command(client: &Client, args: CommandArgs, out: &mut Output<'_>) -> Result<(), CliError> {
    let request = CommandRequest {
        command_type: args.command_type,
        action: args.action,
        tool_name: args.tool,
        parameters: args.parameters.map(|text| json("--parameters", &text)).transpose()?,
        result: args.result.map(|text| json("--result", &text)).transpose()?,
        error_message: args.failed,
        success: None,
        execution_time_ms: args.took,
        tags: args.tags,
    };
    let command = client.add_command(&args.id, &request)?;
    print_record(&command, &format!("command {}", command.record_id), &command.state, args.json, out)
}

pub(crate) fn checkpoint(client: &Client, args: CheckpointArgs, out: &mut Output<'_>) -> Result<(), CliError> {
    let request = CheckpointRequest {
        checkpoint_type: args.checkpoint_type,
        work_state: json("--work-state", &args.work_state)?,
        context_window_percent: None,
    };
    let checkpoint = client.add_checkpoint(&args.id, &request)?;
    print_record(&checkpoint, &format!("checkpoint {}", checkpoint.checkpoint_id), &checkpoint.state, args.json, out)
}

/// Parses the JSON of an option. Errors do not quote it: it may hold secrets.
fn json<T: DeserializeOwned>(option: &str, text: &str) -> Result<T, CliError> {
    serde_json::from_str(text).map_err(|error| {
        let object = "an object such as '{\"a\": 1}'";
        let hint = if option == "--result" { "give any JSON; text needs its quotes" } else { object };
        let why = match error.classify() {
            serde_json::error::Category::Data => "it is not a JSON object".to_owned(),
            _ => format!("it is not JSON, at column {}", error.column()),
        };
        CliError::usage(format!("{option}: {why}"), hint)
    })
}

fn print_record(
    record: &impl Serialize,
    what: &str,
    state: &RecordState,
    json: bool,
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    if json {
        out.print_json(record)?
    } else {
        out.print_line(what)?
    }
    if let Some(note) = &state.note {
        out.print_note(&format!("parked: {note}; see `sessiond parked list`"));
    }
    Ok(())
}

pub(crate) fn events(client: &Client, args: HistoryArgs, out: &mut Output<'_>) -> Result<(), CliError> {
    let list: EventList = fetch(client, &args, "events")?;
    let lines = list.events.iter().map(|event| Line {
        at: &event.timestamp,
        state: &event.state,
        kind: &event.event_type,
        what: compact_json(&event.event_data),
    });
    print_list(&list, lines, (list.more, list.note.as_deref()), args.json, out)
}

pub(crate) fn commands(client: &Client, args: HistoryArgs, out: &mut Output<'_>) -> Result<(), CliError> {
    let list: CommandList = fetch(client, &args, "commands")?;
    let lines = list.commands.iter().map(|command| {
        let tool = command.tool_name.as_ref().map_or(String::new(), |tool| format!("{tool}: "));
        let failure = command.error_message.as_ref().map_or(String::new(), |error| format!(" failed: {error}"));
        Line {
            at: &command.created_at,
            state: &command.state,
            kind: &command.command_type,
            what: format!("{tool}{}{failure}", command.action),
        }
    });
    print_list(&list, lines, (list.more, list.note.as_deref()), args.json, out)
}

pub(crate) fn checkpoints(client: &Client, args: HistoryArgs, out: &mut Output<'_>) -> Result<(), CliError> {
    let list: CheckpointList = fetch(client, &args, "checkpoints")?;
    let lines = list.checkpoints.iter().map(|checkpoint| Line {
        at: &checkpoint.timestamp,
        state: &checkpoint.state,
        kind: &checkpoint.checkpoint_type,
        what: compact_json(&checkpoint.work_state),
    });
    print_list(&list, lines, (list.more, list.note.as_deref()), args.json, out)
}

fn fetch<T: DeserializeOwned>(client: &Client, args: &HistoryArgs, kind: &str) -> Result<T, CliError> {
    let params = HistoryParams {
        record_type: args.record_type.clone(),
        since: args.since.clone(),
        until: args.until.clone(),
        contains: args.contains.clone(),
        limit: args.limit,
        offset: args.offset,
        after: None,
    };
    match client.history(&args.id, kind, &params)? {
        Resolved::One(list) => Ok(*list),
        Resolved::Several(several) => Err(CliError::ambiguous(&args.id, several.matches)),
    }
}

fn compact_json(object: &Value) -> String {
    match object {
        Value::Object(fields) if fields.is_empty() => String::new(),
        other => other.to_string(),
    }
}

/// A record as a line of a list.
struct Line<'a> {
    at: &'a str,
    state: &'a RecordState,
    kind: &'a str,
    what: String,
}

fn print_list<'a>(
    list: &impl Serialize,
    lines: impl Iterator<Item = Line<'a>>,
    (more, note): (bool, Option<&str>),
    json: bool,
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    if json {
        return out.print_json(list);
    }
    if let Some(note) = note {
        out.print_note(note);
    }
    let mut table = TextTable::new([
        TableColumn::new("AGE").right(),
        TableColumn::new("TYPE"),
        TableColumn::new("CENTRAL"),
        TableColumn::new("WHAT").shrink_rank(1),
    ]);
    let mut empty = true;
    for Line { at, state, kind, what } in lines {
        let age = age_since(at, out.style.now);
        let central = match (state.synced, state.parked) {
            (true, _) => "synced",
            (_, true) => "parked",
            _ => "pending",
        };
        table.row([Cell::new(age.as_deref().unwrap_or("—")), Cell::new(kind), Cell::new(central), Cell::new(what)]);
        empty = false;
    }
    if empty {
        out.print_note("no record matches");
        return Ok(());
    }
    out.print_rendered(&table.render(&out.style))?;
    if more {
        out.print_note("there are older records; see --limit and --offset");
    }
    Ok(())
}
