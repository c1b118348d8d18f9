//! The hooks of this program in an agent's settings file.
//!
//! Every byte outside of them stays. A file that would not be there without them is removed with them.

use super::{Adapter, SettingsFormat};
use crate::claude::settings::{HookShape, OwnHook, SettingsError, flag_at, is_blank};

/// What stands in a new file.
const NEW_GROUPS: &str = "{}\n";
const NEW_FLAT: &str = "{\n  \"version\": 1\n}\n";

/// The first line of a plugin of ours.
const PLUGIN_MARK: &str = "// Written by `sessiond install";

/// What is wrong with an agent's file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgentFileError {
    /// The file cannot be edited.
    #[error("{0}")]
    Settings(#[from] SettingsError),
    /// Another program or the user wrote the plugin of that name.
    #[error("it was not written by sessiond")]
    ForeignPlugin,
}

impl Adapter {
    /// The file with the hooks of this program, whose path is `program`.
    ///
    /// # Errors
    /// The file cannot be parsed, or is another program's.
    pub fn installed(&self, text: &str, program: &str) -> Result<String, AgentFileError> {
        if let SettingsFormat::Plugin(plugin) = self.format {
            let is_ours = is_blank(text) || text.starts_with(PLUGIN_MARK);
            return if is_ours { Ok(plugin(program)) } else { Err(AgentFileError::ForeignPlugin) };
        }
        let mut text = if is_blank(text) { self.empty_file().to_owned() } else { text.to_owned() };
        for (event, matcher) in self.hooks {
            text = self.with_hook(event, *matcher, |hook| hook.add(&text, program))?;
        }
        Ok(text)
    }

    /// The file without the hooks of this program; empty if nothing else is in it.
    ///
    /// # Errors
    /// The file cannot be parsed.
    pub fn uninstalled(&self, text: &str) -> Result<String, AgentFileError> {
        if let SettingsFormat::Plugin(_) = self.format {
            return Ok(if text.starts_with(PLUGIN_MARK) { String::new() } else { text.to_owned() });
        }
        let mut text = text.to_owned();
        if is_blank(&text) {
            return Ok(text);
        }
        // In the reverse order of the installation, so that brackets which the user had empty are recognised.
        for (event, _) in self.hooks.iter().rev() {
            text = self.with_hook(event, None, |hook| hook.remove(text, 0))?;
        }
        Ok(text)
    }

    /// Whether the file is as [`Self::installed`] begins one.
    pub fn is_empty_file(&self, text: &str) -> bool {
        text.is_empty() || text == self.empty_file()
    }

    /// The events for which the file has no hook of this program.
    ///
    /// # Errors
    /// The file cannot be parsed.
    pub fn missing_hooks(&self, text: &str) -> Result<Vec<&'static str>, AgentFileError> {
        if let SettingsFormat::Plugin(_) = self.format {
            return Ok(if text.starts_with(PLUGIN_MARK) { Vec::new() } else { vec!["plugin"] });
        }
        let mut missing = Vec::new();
        for (event, _) in self.hooks {
            if is_blank(text) || !self.with_hook(event, None, |hook| hook.is_in(text))? {
                missing.push(*event);
            }
        }
        Ok(missing)
    }

    /// How many parts of this program an installation has.
    pub fn hook_count(&self) -> usize {
        self.hooks.len().max(1)
    }

    /// Whether the file says that the agent runs no hook at all.
    pub fn are_hooks_off(&self, text: &str) -> bool {
        !self.switch.is_empty() && flag_at(text, self.switch) == Some(false)
    }

    /// The paths by which the file runs this program.
    pub fn programs(&self, text: &str) -> Vec<String> {
        if let SettingsFormat::Plugin(_) = self.format {
            let line = text.lines().find_map(|line| line.strip_prefix("const PROGRAM = ")?.strip_suffix(';'));
            return line.and_then(|line| serde_json::from_str(line).ok()).into_iter().collect();
        }
        let of_event = |event| self.with_hook(event, None, |hook| hook.programs(text));
        self.hooks.iter().flat_map(|(event, _)| of_event(event)).collect()
    }

    /// The hooks of this program, each by its event and the key by which Codex knows it: `event_name:GROUP:HOOK`.
    pub fn keys(&self, text: &str) -> Vec<(&'static str, String)> {
        let of_event = |event: &'static str| {
            let snake = snake_case(event);
            let places = self.with_hook(event, None, |hook| hook.places(text)).into_iter();
            places.map(move |(group, hook)| (event, format!("{snake}:{group}:{hook}")))
        };
        self.hooks.iter().flat_map(|(event, _)| of_event(event)).collect()
    }

    const fn empty_file(&self) -> &'static str {
        match self.format {
            SettingsFormat::Groups => NEW_GROUPS,
            SettingsFormat::Flat { .. } => NEW_FLAT,
            SettingsFormat::Plugin(_) => "",
        }
    }

    fn with_hook<T>(&self, event: &str, matcher: Option<&str>, then: impl FnOnce(&OwnHook<'_>) -> T) -> T {
        let shape = match self.format {
            SettingsFormat::Flat { key } => HookShape::Flat(key),
            SettingsFormat::Groups | SettingsFormat::Plugin(_) => HookShape::Groups,
        };
        let arguments = self.arguments(event);
        then(&OwnHook { shape, event, arguments: &arguments, matcher, fields: self.hook_fields })
    }
}

/// `SessionStart` as `session_start`.
fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}
