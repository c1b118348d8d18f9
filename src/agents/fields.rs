//! The fields of agents' JSON: each under one of several names, at the top or further down.

use serde_json::{Map, Value};

use crate::claude::input::Input;

/// The fields at the top of agents' JSON that are read.
pub const WANTED: [&str; 60] = [
    "hook_event_name",
    "hookEventName",
    "hookName",
    "session_id",
    "sessionId",
    "sessionID",
    "conversation_id",
    "conversationId",
    "thread_id",
    "threadId",
    "thread-id",
    "transcript_path",
    "transcriptPath",
    "cwd",
    "working_dir",
    "workingDirectory",
    "workspace_roots",
    "directory",
    "source",
    "reason",
    "status",
    "trigger",
    "prompt",
    "prompt_id",
    "turn_id",
    "generation_id",
    "message",
    "notification_type",
    "notificationType",
    "details",
    "tool_name",
    "toolName",
    "tool_input",
    "toolInput",
    "toolArgs",
    "tool_response",
    "tool_result",
    "toolResult",
    "file_path",
    "error",
    "error_message",
    "errorMessage",
    "error_context",
    "errorContext",
    "is_interrupt",
    "last_assistant_message",
    "prompt_response",
    "model",
    "custom_instructions",
    "customInstructions",
    "compact_summary",
    "agent_id",
    "agentId",
    "is_background_agent",
    "cursor_version",
    "background_tasks",
    "event",
    "input",
    "output",
    "parent_session_id",
];

/// Those of Cursor that Claude Code's hooks do not read: Cursor runs these too.
pub const WANTED_OF_CURSOR: [&str; 5] =
    ["workspace_roots", "generation_id", "status", "error_message", "is_background_agent"];

/// Where fields are under Claude Code's names, and the names that agents use for them; the first that is there counts.
const NAMES: &[(&str, &[&str])] = &[
    (
        "session_id",
        &[
            "session_id",
            "sessionId",
            "conversation_id",
            "conversationId",
            "sessionID",
            "thread_id",
            "threadId",
            "thread-id",
        ],
    ),
    ("transcript_path", &["transcript_path", "transcriptPath"]),
    ("cwd", &["cwd", "working_dir", "workingDirectory", "directory"]),
    ("source", &["source"]),
    ("reason", &["reason"]),
    ("trigger", &["trigger"]),
    ("prompt", &["prompt"]),
    ("prompt_id", &["prompt_id", "turn_id", "generation_id"]),
    ("message", &["message"]),
    ("notification_type", &["notification_type", "notificationType"]),
    ("tool_name", &["tool_name", "toolName"]),
    ("tool_input", &["tool_input", "toolInput", "toolArgs"]),
    ("error", &["error", "error_message", "errorMessage"]),
    ("is_interrupt", &["is_interrupt"]),
    ("last_assistant_message", &["last_assistant_message", "prompt_response"]),
    ("model", &["model"]),
    ("custom_instructions", &["custom_instructions", "customInstructions"]),
    ("compact_summary", &["compact_summary"]),
    ("agent_id", &["agent_id", "agentId"]),
    ("background_tasks", &["background_tasks"]),
];

/// The event that the JSON names.
pub(super) fn event_name(input: &Input) -> String {
    let names = ["hook_event_name", "hookEventName", "hookName"];
    names.into_iter().find_map(|name| input.text(name)).unwrap_or_default().to_owned()
}

/// An event's name with a capital first letter: agents write `sessionStart` and `SessionStart`.
pub(super) fn capitalized(event: &str) -> String {
    let mut letters = event.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}

/// Fields under Claude Code's names.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// The fields of a JSON object whose names have the common forms.
    pub(super) fn of(input: &Input) -> Self {
        let mut fields = Self::default();
        for (name, theirs) in NAMES {
            let is_there = |value: &&Value| !value.is_null() && value.as_str() != Some("");
            if let Some(value) = theirs.iter().find_map(|theirs| input.at(&[theirs]).filter(is_there)) {
                fields.0.insert((*name).to_owned(), value.clone());
            }
        }
        // Some agents write a tool's arguments as JSON in a string.
        let as_text = fields.0.get("tool_input").and_then(Value::as_str);
        if let Some(object) = as_text.and_then(|text| serde_json::from_str::<Map<_, _>>(text).ok()) {
            fields.0.insert("tool_input".to_owned(), object.into());
        }
        fields
    }

    pub(super) fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// Sets a field to a text of the agent's JSON, if there is one.
    pub(super) fn set_text(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            self.set(name, text);
        }
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    pub(super) fn input(self) -> Input {
        Input::of_fields(self.0)
    }
}

/// The text at a path of names.
pub(super) fn text_at<'a>(input: &'a Input, path: &[&str]) -> Option<&'a str> {
    input.at(path)?.as_str().filter(|text| !text.is_empty())
}
