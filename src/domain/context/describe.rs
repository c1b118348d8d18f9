//! Describes a record in a few words.

use serde_json::{Map, Value};

use crate::domain::text::inline;
use crate::domain::{HistoryRecord, RecordKind};

use super::value::{as_text, field, text};

/// The fields of a record that may describe it, the most specific first.
const DETAIL: [&str; 16] = [
    "message",
    "title",
    "summary",
    "description",
    "text",
    "content",
    "epic",
    "name",
    "task",
    "feature",
    "prompt",
    "tool",
    "url",
    "environment",
    "reason",
    "id",
];
pub(super) const EPIC: [&str; 7] = ["epic", "epic_id", "current_epic", "epic_name", "name", "title", "id"];
pub(super) const ERROR: [&str; 8] =
    ["error", "error_message", "message", "reason", "failure", "description", "output", "summary"];
const TOOL: [&str; 4] = ["tool", "tool_name", "name", "action"];

/// The action that a record describes; none for a heartbeat.
pub(super) fn action(record: &HistoryRecord) -> Option<String> {
    match record.kind {
        RecordKind::Event => event(record),
        RecordKind::Command => Some(command(record)),
        RecordKind::Checkpoint => Some(format!("Checkpoint ({})", phrase(&record.record_type))),
    }
}

fn event(record: &HistoryRecord) -> Option<String> {
    let data = field(&record.body, "data").and_then(|data| data.as_object()).cloned().unwrap_or_default();
    let value = |names: &[&str]| text(&data, names);
    let with = |words: &str, detail: Option<String>| match detail {
        Some(detail) => format!("{words}: {detail}"),
        None => words.to_owned(),
    };
    let epic = || value(&EPIC).map_or("an epic".to_owned(), |epic| format!("epic {epic}"));
    Some(match record.record_type.as_str() {
        "instance_heartbeat" | "context_window_updated" => return None,
        "instance_registered" => "Registered".to_owned(),
        "instance_stale" => "Became stale".to_owned(),
        "epic_planned" => format!("Planned {}", epic()),
        "epic_started" => format!("Started {}", epic()),
        "epic_completed" => format!("Completed {}", epic()),
        "epic_failed" => with(&format!("Failed {}", epic()), value(&["error", "error_message", "reason", "message"])),
        "test_started" => with("Started tests", value(&DETAIL)),
        "test_passed" => with("Tests passed", value(&["tests_passed", "passed", "count"]).or_else(|| value(&DETAIL))),
        "test_failed" => with("Tests failed", value(&ERROR).or_else(|| value(&DETAIL))),
        "commit_created" => {
            let hash = value(&["hash", "sha", "commit", "commit_hash"]).map_or(String::new(), |h| format!(" {h}"));
            with(&format!("Committed{hash}"), value(&["message", "title", "summary"]))
        }
        "pr_created" | "pr_merged" => {
            let done = if record.record_type == "pr_created" { "Opened" } else { "Merged" };
            let number = pull_request(record).map_or(String::new(), |number| format!(" {number}"));
            with(&format!("{done} pull request{number}"), value(&["title", "message", "url"]))
        }
        "user_message" => with("User message", value(&["message", "text", "content", "prompt"])),
        "tool_use" | "tool_result" => {
            let done = if record.record_type == "tool_use" { "Used" } else { "Received the result of" };
            format!("{done} {}", value(&TOOL).unwrap_or_else(|| "a tool".to_owned()))
        }
        "error" => with("Error", value(&ERROR)),
        other => with(&capitalized(&phrase(other)), value(&DETAIL).or_else(|| fields(&data))),
    })
}

/// The first fields of an event that has none of the usual ones.
fn fields(data: &Map<String, Value>) -> Option<String> {
    let field = |(name, value): (&String, &Value)| Some(format!("{name} {}", as_text(value).or_else(|| plain(value))?));
    let fields: Vec<_> = data.iter().filter_map(field).take(4).collect();
    (!fields.is_empty()).then(|| inline(&fields.join(", "), 240))
}

fn plain(value: &Value) -> Option<String> {
    matches!(value, Value::Bool(_) | Value::Array(_)).then(|| inline(&value.to_string(), 120))
}

/// The number or address of a pull request.
pub(super) fn pull_request(record: &HistoryRecord) -> Option<String> {
    let data = field(&record.body, "data")?.as_object()?;
    text(data, &["number", "pr_number", "pr", "id", "url"])
}

fn command(record: &HistoryRecord) -> String {
    let action = command_name(record);
    let tool = text(&record.body, &["tool_name"]).filter(|tool| *tool != action);
    let ran = tool.map_or_else(|| format!("Ran {action}"), |tool| format!("Ran {action} by {tool}"));
    match failure(record) {
        Some(why) => format!("{ran}, which failed: {why}"),
        None => ran,
    }
}

pub(super) fn command_name(record: &HistoryRecord) -> String {
    text(&record.body, &["action", "tool_name"]).unwrap_or_else(|| phrase(&record.record_type))
}

/// Why a command failed, if it did.
pub(super) fn failure(record: &HistoryRecord) -> Option<String> {
    let failed = field(&record.body, "success").is_some_and(|success| success == false);
    let message = text(&record.body, &["error_message", "error"]);
    message.or_else(|| failed.then(|| "no reason recorded".to_owned()))
}

/// A type as words: `deployment_started` becomes `deployment started`.
pub(super) fn phrase(record_type: &str) -> String {
    inline(&record_type.replace('_', " "), 64)
}

fn capitalized(words: &str) -> String {
    let mut letters = words.chars();
    letters.next().map(|c| c.to_ascii_uppercase()).into_iter().chain(letters).collect()
}
