//! Gemini CLI: hooks in its settings.json, with names of its own for some events. Its stdout must be JSON.
//!
//! PreCompress with the trigger `auto` comes before each request, with nothing compressed; after one by hand nothing says
//! when it is over. SessionEnd may come several times.

use serde_json::Value;

use super::fields::{Fields, text_at};
use super::{Adapter, ContextAnswer, SettingsFormat, Translation, always};
use crate::claude::hook::HookEvent;
use crate::claude::input::Input;
use crate::domain::agent::AgentName;
use crate::platform::default_paths::Env;

/// The tools after which a hook runs: those that change something or are likely to wait for a permission.
const TOOLS: &str = "run_shell_command|write_file|replace|write_todos|web_fetch|mcp_.*";

pub(super) static ADAPTER: Adapter = Adapter {
    name: AgentName::Gemini,
    folder_variable: "",
    folder: ".gemini",
    file: "settings.json",
    format: SettingsFormat::Groups,
    hooks: &[
        ("SessionStart", None),
        ("BeforeAgent", None),
        ("AfterTool", Some(TOOLS)),
        ("Notification", None),
        ("PreCompress", None),
        ("AfterAgent", None),
        ("SessionEnd", None),
    ],
    hook_fields: &[],
    switch: &["hooksConfig", "enabled"],
    translate,
    context: ContextAnswer::HookSpecific,
    needs_json: true,
    owns_process: always,
};

fn translate(event: &str, input: &Input, env: Env<'_>) -> Translation {
    let mut fields = Fields::of(input);
    let variable = |name: &str| env(name).and_then(|value| value.into_string().ok());
    for (field, name) in [("session_id", "GEMINI_SESSION_ID"), ("cwd", "GEMINI_CWD")] {
        if fields.text(field).is_none() {
            fields.set_text(field, variable(name).as_deref());
        }
    }
    // Left out where nothing else is in it, so that the context of a hook is never taken for a prompt.
    if let Some(typed) = fields.text("prompt").map(|prompt| typed(prompt).to_owned()) {
        fields.remove("prompt");
        fields.set_text("prompt", Some(&typed));
    }
    let tool_error = input.at(&["tool_response", "error"]).filter(|error| !error.is_null());
    let known = match event {
        "BeforeAgent" => Some(HookEvent::UserPromptSubmit),
        "AfterAgent" => Some(HookEvent::Stop),
        "BeforeTool" => Some(HookEvent::PreToolUse),
        "AfterTool" if tool_error.is_some() => Some(HookEvent::PostToolUseFailure),
        "AfterTool" => Some(HookEvent::PostToolUse),
        // It is not a reminder: it comes at once.
        "Notification" if input.text("notification_type") == Some("ToolPermission") => {
            let tool = text_at(input, &["details", "toolName"]).or_else(|| text_at(input, &["details", "type"]));
            fields.set_text("tool_name", tool);
            Some(HookEvent::PermissionRequest)
        }
        "PreCompress" if input.text("trigger") == Some("manual") => Some(HookEvent::PreCompact),
        "SessionStart" => Some(HookEvent::SessionStart),
        "SessionEnd" => Some(HookEvent::SessionEnd),
        _ => None,
    };
    if let Some(error) = tool_error {
        let message = error.get("message").and_then(Value::as_str).map_or_else(|| error.clone(), Value::from);
        fields.set("error", message);
    }
    let end_sign = match input.text("reason") {
        _ if known != Some(HookEvent::SessionEnd) => None,
        Some("clear") => Some("leave"),
        Some("exit" | "logout" | "prompt_input_exit") => Some("end"),
        // It may be a signal or a closed terminal.
        _ => Some("gone"),
    };
    let is_without_activity = known == Some(HookEvent::PreCompact);
    Translation { event: known, input: fields.input(), end_sign, is_without_activity, ..Translation::default() }
}

/// What the user typed. With `-p` Gemini CLI puts the context of SessionStart's hooks before it, in a mark of its own;
/// the context itself has no such mark, because its angle brackets are escaped.
fn typed(prompt: &str) -> &str {
    let context = prompt.trim_start().strip_prefix("<hook_context>");
    context.and_then(|context| context.split_once("</hook_context>")).map_or(prompt, |(_, typed)| typed.trim_start())
}

#[cfg(test)]
mod tests {
    use super::typed;

    #[test]
    fn context_of_hooks_is_no_prompt() {
        assert_eq!(typed("<hook_context>an id\n&lt;b&gt;</hook_context>\n\nFix the login"), "Fix the login");
        assert_eq!(typed("<hook_context>an id</hook_context>"), "");
        for prompt in ["Fix the login", "<hook_context> is what?", "What is <hook_context>a</hook_context>?", ""] {
            assert_eq!(typed(prompt), prompt);
        }
    }
}
