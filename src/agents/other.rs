//! Any other agent whose hooks are commands with JSON on stdin: Claude Code's events, and the common names of fields.

use super::fields::{Fields, capitalized};
use super::{Adapter, ContextAnswer, SettingsFormat, Translation, always};
use crate::claude::hook::HookEvent;
use crate::claude::input::Input;
use crate::domain::agent::AgentName;
use crate::platform::default_paths::Env;

pub(super) static ADAPTER: Adapter = Adapter {
    name: AgentName::Other,
    folder_variable: "",
    folder: "",
    file: "",
    format: SettingsFormat::Groups,
    hooks: &[],
    hook_fields: &[],
    switch: &[],
    translate,
    context: ContextAnswer::HookSpecific,
    needs_json: true,
    owns_process: always,
};

fn translate(event: &str, input: &Input, _: Env<'_>) -> Translation {
    let known = HookEvent::parse(&capitalized(event));
    let end_sign = (known == Some(HookEvent::SessionEnd)).then(|| match input.text("reason") {
        Some("clear" | "resume") => "leave",
        _ => "end",
    });
    Translation { event: known, input: Fields::of(input).input(), end_sign, ..Translation::default() }
}
