//! event, command, checkpoint, and the lists of them.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cli::error::CliError;
use crate::cli::history_args::{CheckpointArgs, CommandArgs, EventArgs, HistoryArgs};
use crate::cli::output::Output;
use crate::cli::table::{Cell, Column, Table};
use crate::cli::text::age_of;
use crate::client::{Client, Resolved};
use crate::wire::{
    CheckpointList, CheckpointRequest, CommandList, CommandRequest, EventList, EventRequest, HistoryParams, RecordState,
};

pub fn event(client: &Client, args: EventArgs, out: &mut Output<'_>) -> Result<(), CliError> {
    let request = EventRequest {
        event_type: args.event_type,
        event_data: args.data.map(|text| json("--data", &text)).transpose()?,
        parent_uuid: args.parent,
    };
    let event = client.add_event(&args.id, &request)?;
    told(&event, &format!("event {}", event.event_id), &event.state, args.json, out)
}

pub fn command(client: &Client, args: CommandArgs, out: &mut Output<'_>) -> Result<(), CliError> {
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
    told(&command, &format!("command {}", command.record_id), &command.state, args.json, out)
}

pub fn checkpoint(client: &Client, args: CheckpointArgs, out: &mut Output<'_>) -> Result<(), CliError> {
    let request = CheckpointRequest {
        checkpoint_type: args.checkpoint_type,
        work_state: json("--work-state", &args.work_state)?,
        context_window_percent: None,
    };
    let checkpoint = client.add_checkpoint(&args.id, &request)?;
    told(&checkpoint, &format!("checkpoint {}", checkpoint.checkpoint_id), &checkpoint.state, args.json, out)
}

/// What `option` holds. JSON may hold secrets, so no error shows it.
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

fn told(
    record: &impl Serialize,
    what: &str,
    state: &RecordState,
    json: bool,
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    if json {
        out.json(record)?
    } else {
        out.line(what)?
    }
    if let Some(note) = &state.note {
        out.note(&format!("parked: {note}; see `sessiond parked list`"));
    }
    Ok(())
}

pub fn events(client: &Client, args: HistoryArgs, out: &mut Output<'_>) -> Result<(), CliError> {
    let list: EventList = ask(client, &args, "events")?;
    let lines = list.events.iter().map(|e| [e.event_type.clone(), said(&e.event_data)]);
    show(&list, list.events.iter().map(|e| (&e.timestamp, &e.state)), lines, list.more, args.json, out)
}

pub fn commands(client: &Client, args: HistoryArgs, out: &mut Output<'_>) -> Result<(), CliError> {
    let list: CommandList = ask(client, &args, "commands")?;
    let lines = list.commands.iter().map(|c| {
        let tool = c.tool_name.as_ref().map_or(String::new(), |tool| format!("{tool}: "));
        let failure = c.error_message.as_ref().map_or(String::new(), |error| format!(" failed: {error}"));
        [c.command_type.clone(), format!("{tool}{}{failure}", c.action)]
    });
    show(&list, list.commands.iter().map(|c| (&c.created_at, &c.state)), lines, list.more, args.json, out)
}

pub fn checkpoints(client: &Client, args: HistoryArgs, out: &mut Output<'_>) -> Result<(), CliError> {
    let list: CheckpointList = ask(client, &args, "checkpoints")?;
    let lines = list.checkpoints.iter().map(|c| [c.checkpoint_type.clone(), said(&c.work_state)]);
    show(&list, list.checkpoints.iter().map(|c| (&c.timestamp, &c.state)), lines, list.more, args.json, out)
}

fn ask<T: DeserializeOwned>(client: &Client, args: &HistoryArgs, kind: &str) -> Result<T, CliError> {
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

fn said(object: &Value) -> String {
    match object {
        Value::Object(fields) if fields.is_empty() => String::new(),
        other => other.to_string(),
    }
}

fn show<'a>(
    list: &impl Serialize,
    rows: impl Iterator<Item = (&'a String, &'a RecordState)>,
    lines: impl Iterator<Item = [String; 2]>,
    more: bool,
    json: bool,
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    if json {
        return out.json(list);
    }
    let mut table = Table::new([
        Column::new("AGE").right(),
        Column::new("TYPE"),
        Column::new("CENTRAL"),
        Column::new("WHAT").yields(1),
    ]);
    let mut empty = true;
    for ((at, state), [kind, what]) in rows.zip(lines) {
        let age = age_of(at, out.look.now);
        let central = match (state.synced, state.parked) {
            (true, _) => "has it",
            (_, true) => "parked",
            _ => "waits",
        };
        table.row([Cell::new(age.as_deref().unwrap_or("—")), Cell::new(kind), Cell::new(central), Cell::new(what)]);
        empty = false;
    }
    if empty {
        out.note("nothing fits");
        return Ok(());
    }
    out.print(&table.render(&out.look))?;
    if more {
        out.note("there are older ones; see --limit and --offset");
    }
    Ok(())
}
