//! Copilot CLI: a file of hooks in `hooks/` of its folder. Events whose names begin with a small letter get JSON with
//! `sessionId` and without the event's name; those with a capital get Claude Code's JSON.

use serde_json::Value;

use super::fields::{Fields, capitalized, text_at};
use super::{Adapter, ContextAnswer, SettingsFormat, Translation, always};
use crate::claude::activity::error_by_message;
use crate::claude::hook::HookEvent;
use crate::claude::input::Input;
use crate::domain::agent::AgentName;
use crate::platform::default_paths::Env;

pub(super) static ADAPTER: Adapter = Adapter {
    name: AgentName::Copilot,
    folder_variable: "COPILOT_HOME",
    folder: ".copilot",
    file: "hooks/sessiond.json",
    format: SettingsFormat::Flat { key: "bash" },
    hooks: &[
        ("sessionStart", None),
        ("userPromptSubmitted", None),
        ("permissionRequest", None),
        ("notification", None),
        ("postToolUse", None),
        ("postToolUseFailure", None),
        ("preCompact", None),
        ("errorOccurred", None),
        ("agentStop", None),
        ("sessionEnd", None),
    ],
    hook_fields: &[("timeoutSec", 10)],
    switch: &[],
    translate,
    context: ContextAnswer::TopLevel("additionalContext"),
    needs_json: false,
    owns_process: always,
};

fn translate(event: &str, input: &Input, env: Env<'_>) -> Translation {
    let mut fields = Fields::of(input);
    let result = |names: [&str; 2]| {
        ["toolResult", "tool_result"].into_iter().zip(names).find_map(|(top, name)| text_at(input, &[top, name]))
    };
    let has_failed = result(["resultType", "result_type"]).is_some_and(|kind| kind != "success");
    let known = match capitalized(event).as_str() {
        // The source `new` is Claude Code's `startup`, which is assumed for any that is not known.
        "SessionStart" => Some(HookEvent::SessionStart),
        "UserPromptSubmitted" | "UserPromptSubmit" => Some(HookEvent::UserPromptSubmit),
        "PreToolUse" => Some(HookEvent::PreToolUse),
        "PostToolUse" if has_failed => {
            fields.set_text("error", result(["textResultForLlm", "text_result_for_llm"]));
            Some(HookEvent::PostToolUseFailure)
        }
        "PostToolUse" => Some(HookEvent::PostToolUse),
        "PostToolUseFailure" => Some(HookEvent::PostToolUseFailure),
        "PermissionRequest" => Some(HookEvent::PermissionRequest),
        "Notification" => Some(HookEvent::Notification),
        "AgentStop" | "Stop" => Some(HookEvent::Stop),
        "ErrorOccurred" => failed(input, &mut fields),
        "PreCompact" => Some(HookEvent::PreCompact),
        "SessionEnd" => Some(HookEvent::SessionEnd),
        _ => None,
    };
    let end_sign = match input.text("reason") {
        _ if known != Some(HookEvent::SessionEnd) => None,
        Some("complete" | "user_exit") => Some("end"),
        // Its work is not complete: `error`, `abort`, `timeout`.
        _ => Some("gone"),
    };
    // Nothing says when a compaction that the user asked for is over.
    let is_without_activity = known == Some(HookEvent::PreCompact) && input.text("trigger") != Some("auto");
    let version = env("COPILOT_CLI_BINARY_VERSION").and_then(|version| version.into_string().ok());
    fields.set_text("agent_version", version.as_deref());
    Translation { event: known, input: fields.input(), end_sign, is_without_activity, kind: None }
}

/// An error of a tool does not end the turn; one of the model does.
fn failed(input: &Input, fields: &mut Fields) -> Option<HookEvent> {
    let message = text_at(input, &["error", "message"]).map(message_in);
    let context = input.text("errorContext").or_else(|| input.text("error_context"));
    if context == Some("tool_execution") {
        fields.set("error", message.unwrap_or_default());
        return Some(HookEvent::PostToolUseFailure);
    }
    let message = message.unwrap_or_default();
    fields.set("error", error_by_message(&message).or(context).unwrap_or("unknown"));
    fields.set("last_assistant_message", message);
    Some(HookEvent::StopFailure)
}

/// The message of an error, which may be JSON with a message in it.
fn message_in(text: &str) -> String {
    let inner = serde_json::from_str::<Value>(text).ok();
    let message = inner.as_ref().and_then(|value| value.get("message")).and_then(Value::as_str);
    message.unwrap_or(text).to_owned()
}
