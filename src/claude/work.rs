//! What hooks and the status line say about the work.
//!
//! Nothing leaves the process that the user's setting `agents.record` forbids. Secrets are blanked before a text is
//! cut, since a part of a secret is not recognised; of a text of any length only its begin and its end are examined.

use serde_json::Value;

use super::activity::error_kind;
use super::hook::HookEvent;
use super::input::Input;
use crate::domain::redact;
use crate::domain::work::{MAX_FILES, MAX_TODOS, Recording, Todo, TodoStatus, WorkError, WorkUpdate};

/// The fields of events that are read.
pub const WANTED: [&str; 10] = [
    "prompt",
    "last_assistant_message",
    "compact_summary",
    "error",
    "is_interrupt",
    "tool_name",
    "tool_input",
    "model",
    "session_title",
    "task_subject",
];

/// The fields of the status line that are read.
pub const WANTED_OF_STATUS_LINE: [&str; 4] = ["session_name", "model", "cost", "version"];

/// How much of the begin and of the end of a text is examined, in bytes. It is more than is kept of it by far, so that no
/// secret is cut off near what is kept.
const EXAMINED: usize = 32 << 10;
/// The longest name of a tool's object in an error, in characters.
const MAX_TOOL_OBJECT: usize = 200;

/// Prompts that no user wrote: the agent reports the end of a background task to itself.
const NOT_BY_USER: [&str; 2] = ["<task-notification>", "<system-reminder>"];

/// What an event says about the work; `None`: nothing, or nothing that may be recorded.
pub fn of(event: HookEvent, input: &Input, recording: Recording) -> Option<WorkUpdate> {
    let title = input.text("session_title").map(without_secrets);
    let update = match event {
        HookEvent::SessionStart => WorkUpdate {
            cleared: input.text("source") == Some("clear"),
            model: input.text("model").map(without_secrets),
            agent_version: input.text("agent_version").map(without_secrets),
            title,
            ..WorkUpdate::default()
        },
        HookEvent::UserPromptSubmit => WorkUpdate {
            model: input.text("model").map(without_secrets),
            prompt: input.text("prompt").filter(|prompt| is_by_user(prompt)).map(without_secrets),
            title,
            ..WorkUpdate::default()
        },
        // A sub-agent answers to its parent.
        HookEvent::Stop if input.text("agent_id").is_none() => WorkUpdate {
            answer: input.text("last_assistant_message").map(without_secrets),
            title,
            ..WorkUpdate::default()
        },
        HookEvent::StopFailure => {
            let message = input.text("last_assistant_message").map(without_secrets).unwrap_or_default();
            WorkUpdate { error: Some(WorkError { kind: error_kind(input), message }), ..WorkUpdate::default() }
        }
        HookEvent::PostCompact => {
            let compact_summary = input.text("compact_summary").map(without_secrets);
            WorkUpdate { compact_summary, ..WorkUpdate::default() }
        }
        HookEvent::TaskCreated | HookEvent::TaskCompleted => {
            let is_done = event == HookEvent::TaskCompleted;
            let status = if is_done { TodoStatus::Completed } else { TodoStatus::Pending };
            let task = input.text("task_subject").map(|text| Todo { text: without_secrets(text), status });
            WorkUpdate { changed_todos: task.into_iter().collect(), ..WorkUpdate::default() }
        }
        HookEvent::PostToolUse => used_tool(input),
        HookEvent::PreToolUse | HookEvent::PermissionRequest => {
            WorkUpdate { answer: asked_by_tool(input), ..WorkUpdate::default() }
        }
        HookEvent::PostToolUseFailure => WorkUpdate { error: failed_tool(input), ..WorkUpdate::default() },
        _ => WorkUpdate::default(),
    };
    finished(update, recording)
}

/// The title that an event without further meaning has.
pub fn of_title(input: &Input, recording: Recording) -> Option<WorkUpdate> {
    let title = input.text("session_title").map(without_secrets);
    let agent_version = input.text("agent_version").map(without_secrets);
    finished(WorkUpdate { title, agent_version, ..WorkUpdate::default() }, recording)
}

/// What the status line says about the work.
pub fn of_status_line(input: &Input, recording: Recording) -> Option<WorkUpdate> {
    let model = input.at(&["model", "id"]).or_else(|| input.at(&["model"])).and_then(Value::as_str);
    let update = WorkUpdate {
        title: input.text("session_name").map(without_secrets),
        model: model.map(without_secrets),
        cost_usd: input.at(&["cost", "total_cost_usd"]).and_then(Value::as_f64),
        agent_version: input.text("version").map(without_secrets),
        ..WorkUpdate::default()
    };
    finished(update, recording)
}

/// What the agent's own file says about the work.
pub fn of_status_file(title: Option<&str>, recording: Recording) -> Option<WorkUpdate> {
    finished(WorkUpdate { title: title.map(without_secrets), ..WorkUpdate::default() }, recording)
}

fn finished(update: WorkUpdate, recording: Recording) -> Option<WorkUpdate> {
    let update = update.limited_to(recording).sanitized();
    (!update.is_empty()).then_some(update)
}

/// To-dos and the file that a tool changed.
fn used_tool(input: &Input) -> WorkUpdate {
    let tool = input.text("tool_name").unwrap_or_default();
    let files = match tool {
        "Edit" | "Write" | "MultiEdit" | "NotebookEdit" | "edit" | "write" | "multiedit" | "create" | "write_file"
        | "replace" => object_of_tool(input),
        _ => None,
    };
    let list = match tool {
        "TodoWrite" | "todowrite" | "write_todos" => "todos",
        "update_plan" => "plan",
        _ => "",
    };
    let todos = input.at(&["tool_input", list]).and_then(Value::as_array);
    WorkUpdate {
        files: files.into_iter().take(MAX_FILES).map(without_secrets).collect(),
        todos: todos.map(|todos| todos.iter().take(MAX_TODOS).filter_map(todo).collect()),
        ..WorkUpdate::default()
    }
}

/// The plan that is to be approved, or the questions to the user: the last that the agent said, should it end here.
fn asked_by_tool(input: &Input) -> Option<String> {
    if input.text("agent_id").is_some() {
        return None;
    }
    match input.text("tool_name")? {
        "ExitPlanMode" => input.at(&["tool_input", "plan"])?.as_str().map(without_secrets),
        "AskUserQuestion" => {
            let questions = input.at(&["tool_input", "questions"])?.as_array()?.iter();
            let texts: Vec<_> = questions.filter_map(|asked| asked.get("question")?.as_str()).collect();
            Some(without_secrets(&texts.join("\n"))).filter(|text| !text.is_empty())
        }
        _ => None,
    }
}

/// The file that a tool works on.
fn object_of_tool(input: &Input) -> Option<&str> {
    let path = |name| input.at(&["tool_input", name]).and_then(Value::as_str).filter(|path| !path.is_empty());
    ["file_path", "notebook_path", "path", "filePath"].into_iter().find_map(path)
}

fn todo(todo: &Value) -> Option<Todo> {
    let status = match todo.get("status").and_then(Value::as_str) {
        Some("completed") => TodoStatus::Completed,
        Some("in_progress") => TodoStatus::InProgress,
        _ => TodoStatus::Pending,
    };
    let text = ["content", "description", "step"].into_iter().find_map(|name| todo.get(name)?.as_str())?;
    Some(Todo { text: without_secrets(text), status })
}

/// A tool's error, such as `Bash (cargo test): Exit code 1`; `None` if the user interrupted it.
fn failed_tool(input: &Input) -> Option<WorkError> {
    if input.at(&["is_interrupt"]).and_then(Value::as_bool) == Some(true) {
        return None;
    }
    let command = input.at(&["tool_input", "command"]).and_then(Value::as_str);
    let object = command.and_then(|command| command.lines().next()).or_else(|| object_of_tool(input));
    let object = object.map(|object| without_secrets(object).chars().take(MAX_TOOL_OBJECT).collect::<String>());
    let object = object.map(|object| format!(" ({})", object.trim())).unwrap_or_default();
    let error = input.at(&["error"])?;
    let error = error.as_str().map_or_else(|| error.to_string(), str::to_owned);
    let tool = input.text("tool_name").unwrap_or("a tool");
    Some(WorkError { kind: "tool".to_owned(), message: format!("{tool}{object}: {}", without_secrets(&error)) })
}

/// Whether a prompt is the user's.
pub fn is_by_user(prompt: &str) -> bool {
    !NOT_BY_USER.iter().any(|begin| prompt.trim_start().starts_with(begin))
}

/// A text without its secrets. Of a long one, the begin and the end.
pub fn without_secrets(text: &str) -> String {
    if text.len() <= 2 * EXAMINED {
        return redacted(text);
    }
    let is_break = |c: char| c.is_whitespace() || c.is_control();
    let begin = &text[..text.floor_char_boundary(EXAMINED)];
    let end = &text[text.ceil_char_boundary(text.len() - EXAMINED)..];
    // Without a break, the cut is far from what is kept.
    let begin = begin.rfind(is_break).map_or(begin, |at| &begin[..at]);
    let end = end.find(is_break).map_or(end, |at| &end[at..]);
    format!("{}\n{}", redacted(begin), redacted(end))
}

fn redacted(text: &str) -> String {
    redact::text(text).unwrap_or_else(|| text.to_owned())
}

#[cfg(test)]
mod tests;
