//! Codex: `hooks.json` in its folder, with Claude Code's events and names.
//!
//! It skips a hook silently until its user trusts it (`/hooks`), which its config.toml records. In its terminal interface,
//! hooks are run by a `codex app-server` that several sessions share, so that the process says nothing of a session.
//! SessionStart comes with the first prompt; the only reason of SessionEnd is `other`, after `/quit` and at the end of
//! `codex exec`.

use super::fields::Fields;
use super::{Adapter, ContextAnswer, SettingsFormat, Translation};
use crate::claude::agent_process::AgentProcess;
use crate::claude::hook::HookEvent;
use crate::claude::input::Input;
use crate::domain::agent::AgentName;
use crate::platform::default_paths::Env;
use crate::platform::process::{command_line, process_info};

pub(super) static ADAPTER: Adapter = Adapter {
    name: AgentName::Codex,
    folder_variable: "CODEX_HOME",
    folder: ".codex",
    file: "hooks.json",
    format: SettingsFormat::Groups,
    hooks: &[
        ("SessionStart", None),
        ("UserPromptSubmit", None),
        ("PermissionRequest", None),
        ("PostToolUse", None),
        ("PreCompact", None),
        ("PostCompact", None),
        ("Interrupt", None),
        ("Stop", None),
        ("SessionEnd", None),
    ],
    hook_fields: &[],
    switch: &[],
    translate,
    context: ContextAnswer::HookSpecific,
    needs_json: false,
    owns_process,
};

fn translate(event: &str, input: &Input, _: Env<'_>) -> Translation {
    // Nothing follows an interrupt: the turn is over.
    let known = if event == "Interrupt" { Some(HookEvent::Stop) } else { HookEvent::parse(event) };
    Translation {
        event: known,
        input: Fields::of(input).input(),
        end_sign: (known == Some(HookEvent::SessionEnd)).then_some("end"),
        ..Translation::default()
    }
}

fn owns_process(process: &AgentProcess) -> bool {
    let is_server = command_line(process.pid).is_some_and(|words| words.iter().any(|word| word == "app-server"));
    let parent = process_info(process.pid).and_then(|about| process_info(about.parent));
    !is_server && parent.is_none_or(|parent| parent.name != "codex")
}

/// The keys of the hooks that a user trusts, by the text of Codex's config.toml: `FILE:event_name:GROUP:HOOK`. `None` if
/// it is not TOML.
pub fn trusted_hooks(config: &str) -> Option<Vec<String>> {
    let config: toml::Table = config.parse().ok()?;
    let state = config.get("hooks").and_then(|hooks| hooks.get("state")).and_then(toml::Value::as_table);
    let is_trusted = |hook: &toml::Value| {
        let is_enabled = hook.get("enabled").and_then(toml::Value::as_bool) != Some(false);
        is_enabled && hook.get("trusted_hash").and_then(toml::Value::as_str).is_some()
    };
    let trusted = state.into_iter().flatten().filter(|(_, hook)| is_trusted(hook));
    Some(trusted.map(|(key, _)| key.clone()).collect())
}
