//! Cursor: `~/.cursor/hooks.json`, with names of its own for some events. It also runs the hooks of Claude Code's settings,
//! with Claude Code's names and `cursor_version`. It names the conversation `conversation_id`.

use serde_json::{Value, json};

use super::fields::{Fields, capitalized};
use super::{Adapter, ContextAnswer, SettingsFormat, Translation, always};
use crate::claude::hook::HookEvent;
use crate::claude::input::Input;
use crate::domain::agent::{AgentKind, AgentName};
use crate::platform::default_paths::Env;

pub(super) static ADAPTER: Adapter = Adapter {
    name: AgentName::Cursor,
    folder_variable: "",
    folder: ".cursor",
    file: "hooks.json",
    format: SettingsFormat::Flat { key: "command" },
    hooks: &[
        ("sessionStart", None),
        ("beforeSubmitPrompt", None),
        ("afterShellExecution", None),
        ("afterMCPExecution", None),
        ("afterFileEdit", None),
        ("preCompact", None),
        ("stop", None),
        ("sessionEnd", None),
    ],
    hook_fields: &[],
    switch: &[],
    translate,
    context: ContextAnswer::TopLevel("additional_context"),
    needs_json: true,
    owns_process: always,
};

fn translate(event: &str, input: &Input, _: Env<'_>) -> Translation {
    let mut fields = Fields::of(input);
    fields.set_text("session_id", input.text("conversation_id"));
    if fields.text("cwd").is_none() {
        let root = input.at(&["workspace_roots"]).and_then(|roots| roots.get(0)).and_then(Value::as_str);
        fields.set_text("cwd", root);
    }
    let known = match capitalized(event).as_str() {
        "BeforeSubmitPrompt" => Some(HookEvent::UserPromptSubmit),
        "AfterFileEdit" => {
            fields.set("tool_name", "Edit");
            fields.set("tool_input", json!({"file_path": input.text("file_path")}));
            Some(HookEvent::PostToolUse)
        }
        "BeforeShellExecution" | "BeforeMCPExecution" | "AfterShellExecution" | "AfterMCPExecution" => {
            Some(HookEvent::PostToolUse)
        }
        "Stop" => stopped(input, &mut fields),
        name => HookEvent::parse(name),
    };
    let end_sign = match input.text("reason") {
        _ if known != Some(HookEvent::SessionEnd) => None,
        Some("error" | "aborted") => Some("gone"),
        _ => Some("end"),
    };
    fields.set_text("agent_version", input.text("cursor_version"));
    let is_background = input.at(&["is_background_agent"]).and_then(Value::as_bool);
    Translation {
        event: known,
        input: fields.input(),
        end_sign,
        // Nothing says when a compaction is over.
        is_without_activity: known == Some(HookEvent::PreCompact),
        kind: is_background.filter(|is| *is).map(|_| AgentKind::Background),
    }
}

/// The end of a turn, which may have been an error.
fn stopped(input: &Input, fields: &mut Fields) -> Option<HookEvent> {
    if input.text("status") != Some("error") {
        return Some(HookEvent::Stop);
    }
    if fields.text("error").is_none() {
        fields.set("error", "unknown");
    }
    Some(HookEvent::StopFailure)
}
