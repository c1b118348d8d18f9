//! opencode: a plugin of our own, which runs `sessiond hook` with the events of opencode's bus and of its own hooks.
//!
//! One process runs several sessions. A session with a parent is a sub-agent's: the plugin names the parent
//! (`parent_session_id`), for which its events count. Nothing says that a session ends; its process ends.

use serde_json::{Value, json};

use super::fields::{Fields, text_at};
use super::{Adapter, ContextAnswer, SettingsFormat, Translation, always};
use crate::claude::activity::error_by_message;
use crate::claude::hook::HookEvent;
use crate::claude::input::Input;
use crate::domain::agent::{AgentKind, AgentName};
use crate::platform::default_paths::{Env, path_in};

pub(super) static ADAPTER: Adapter = Adapter {
    name: AgentName::Opencode,
    folder_variable: "",
    folder: "",
    file: "plugin/sessiond.js",
    format: SettingsFormat::Plugin(plugin),
    hooks: &[],
    hook_fields: &[],
    switch: &[],
    translate,
    context: ContextAnswer::TopLevel("additionalContext"),
    needs_json: true,
    owns_process: always,
};

/// opencode's folder: below XDG_CONFIG_HOME, or `~/.config`.
pub(super) fn folder(env: Env<'_>) -> Option<std::path::PathBuf> {
    let config = path_in(env, "XDG_CONFIG_HOME").or_else(|| Some(path_in(env, "HOME")?.join(".config")));
    config.map(|config| config.join("opencode"))
}

/// The plugin, which runs this program.
fn plugin(program: &str) -> String {
    include_str!("opencode_plugin.js").replace("\"SESSIOND\"", &Value::from(program).to_string())
}

fn translate(event: &str, input: &Input, _: Env<'_>) -> Translation {
    let event = event.strip_prefix("event.").unwrap_or(event);
    let of_event = |path: &[&str]| text_at(input, &[&["event", "properties"], path].concat());
    let mut fields = Fields::of(input);
    let id = of_event(&["sessionID"])
        .or_else(|| of_event(&["info", "id"]))
        .or_else(|| text_at(input, &["input", "sessionID"]));
    fields.set_text("session_id", id);
    fields.set_text("cwd", of_event(&["info", "directory"]));
    fields.set_text("agent_version", of_event(&["info", "version"]));
    let parent = input.text("parent_session_id").or_else(|| of_event(&["info", "parentID"]));
    if let (Some(parent), Some(id)) = (parent, id) {
        fields.set("agent_id", id);
        fields.set("session_id", parent);
        fields.remove("cwd");
    }
    let known = known_event(event, input, &mut fields).filter(|event| {
        let is_of_tool = matches!(event, HookEvent::PermissionRequest | HookEvent::ElicitationResult);
        parent.is_none() || is_of_tool || *event == HookEvent::Elicitation
    });
    Translation {
        event: known,
        input: fields.input(),
        end_sign: (known == Some(HookEvent::SessionEnd)).then_some("end"),
        is_without_activity: false,
        kind: input.text("kind").and_then(AgentKind::parse),
    }
}

fn known_event(event: &str, input: &Input, fields: &mut Fields) -> Option<HookEvent> {
    let of_event = |path: &[&str]| text_at(input, &[&["event", "properties"], path].concat());
    match event {
        "session.created" => Some(HookEvent::SessionStart),
        // Of our plugin: a session that an earlier process created.
        "session.resumed" => {
            fields.set("source", "resume");
            Some(HookEvent::SessionStart)
        }
        "session.deleted" => Some(HookEvent::SessionEnd),
        "session.updated" => {
            // The name that a session has before it is named after its prompt says nothing.
            let title = of_event(&["info", "title"]).filter(|title| !title.starts_with("New session - "));
            fields.set_text("session_title", title);
            None
        }
        "session.status" => match of_event(&["status", "type"])? {
            "busy" | "retry" => Some(HookEvent::UserPromptSubmit),
            "idle" => Some(HookEvent::Stop),
            _ => None,
        },
        "session.idle" => Some(HookEvent::Stop),
        "session.error" => failed(input, fields),
        "chat.message" => {
            fields.set_text("prompt", Some(&prompt(input)));
            fields.set_text("model", text_at(input, &["output", "message", "model", "modelID"]));
            Some(HookEvent::UserPromptSubmit)
        }
        "permission.asked" | "permission.updated" => {
            fields.set_text("tool_name", of_event(&["permission"]).or_else(|| of_event(&["type"])));
            Some(HookEvent::PermissionRequest)
        }
        "question.asked" => Some(HookEvent::Elicitation),
        "permission.replied" | "question.replied" | "question.rejected" => Some(HookEvent::ElicitationResult),
        "tool.execute.before" | "tool.execute.after" => {
            fields.set_text("tool_name", text_at(input, &["input", "tool"]));
            let arguments = input.at(&["input", "args"]).or_else(|| input.at(&["output", "args"]));
            fields.set("tool_input", arguments.cloned().unwrap_or_default());
            Some(if event.ends_with("before") { HookEvent::PreToolUse } else { HookEvent::PostToolUse })
        }
        "todo.updated" => {
            fields.set("tool_name", "TodoWrite");
            let todos = input.at(&["event", "properties", "todos"]).cloned().unwrap_or_default();
            fields.set("tool_input", json!({"todos": todos}));
            Some(HookEvent::PostToolUse)
        }
        "experimental.session.compacting" => Some(HookEvent::PreCompact),
        _ => None,
    }
}

/// An aborted turn was interrupted by the user.
fn failed(input: &Input, fields: &mut Fields) -> Option<HookEvent> {
    let of_error = |path: &[&str]| text_at(input, &[&["event", "properties", "error"], path].concat());
    let name = of_error(&["name"]).unwrap_or("unknown");
    if name == "MessageAbortedError" {
        fields.remove("error");
        return Some(HookEvent::Stop);
    }
    let message = of_error(&["data", "message"]).unwrap_or_default();
    let status = input.at(&["event", "properties", "error", "data", "statusCode"]).and_then(Value::as_u64);
    let message = status.map(|status| format!("{status} ")).unwrap_or_default() + message;
    let named = if name == "ProviderAuthError" { "authentication_failed" } else { name };
    fields.set("error", error_by_message(&message).unwrap_or(named));
    fields.set("last_assistant_message", message);
    Some(HookEvent::StopFailure)
}

/// The texts of a message that its user wrote.
fn prompt(input: &Input) -> String {
    let parts = input.at(&["output", "parts"]).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let texts = parts.iter().filter(|part| part["type"] == "text" && part["synthetic"] != true);
    texts.filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n")
}
