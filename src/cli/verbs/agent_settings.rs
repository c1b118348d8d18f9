//! install --agent and uninstall --agent: this program's entries in the settings of agents.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::agents::settings::AgentFileError;
use crate::agents::{ADAPTERS, Adapter};
use crate::claude::settings;
use crate::claude::versions::{self, LeftOut};
use crate::cli::error::CliError;
use crate::cli::line_diff::line_diff;
use crate::cli::output::Output;
use crate::domain::agent::AgentName;
use crate::domain::text::escaped_line;
use crate::platform::default_paths::{Env, path_in};
use crate::platform::program::installed_path;
use crate::platform::replace::{copy_owner, replace_file, resolve_links};
use crate::wire::ErrorCode;

/// A change of agents' settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SettingsChange {
    Install,
    Uninstall,
}

/// Whose settings are changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ChosenAgents {
    Named(Vec<AgentName>),
    /// Those that this user has.
    Present,
}

/// Adds this program's entries to the settings of these agents of this user, or removes them. A copy of the former file is
/// kept beside it. With `dry_run` it only prints the lines that would change.
///
/// A fault of one agent's file does not keep the others from being changed.
pub(crate) fn change_settings(
    change: SettingsChange,
    agents: ChosenAgents,
    dry_run: bool,
    env: Env<'_>,
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    let agents = match agents {
        ChosenAgents::Named(agents) => agents,
        ChosenAgents::Present => present(env),
    };
    if agents.is_empty() {
        return out.print_line("no agent that sessiond knows was found for this user");
    }
    let mut first_error = None;
    for agent in agents {
        let changed = match agent {
            AgentName::ClaudeCode => change_claude(change, dry_run, env, out),
            other => change_agent(Adapter::of(other), change, dry_run, env, out),
        };
        match changed {
            Err(error) if first_error.is_some() => out.print_note(&error.line()),
            Err(error) => first_error = Some(error),
            Ok(()) => {}
        }
    }
    first_error.map_or(Ok(()), Err)
}

/// The agents that this user has.
fn present(env: Env<'_>) -> Vec<AgentName> {
    let has_claude = claude_home(env).is_ok_and(|home| home.is_dir()) || !versions::installed(env).is_empty();
    let others = ADAPTERS.iter().filter(|adapter| adapter.is_present(env)).map(|adapter| adapter.name);
    has_claude.then_some(AgentName::ClaudeCode).into_iter().chain(others).collect()
}

fn change_claude(change: SettingsChange, dry_run: bool, env: Env<'_>, out: &mut Output<'_>) -> Result<(), CliError> {
    let file = AgentFile::read(&claude_home(env)?.join("settings.json"))?;
    let after = match change {
        SettingsChange::Uninstall => settings::uninstall(&file.text).map_err(AgentFileError::from),
        SettingsChange::Install => merged(&file.text, env, out).map_err(AgentFileError::from),
    };
    let after = after.map_err(|error| file.invalid(&error))?;
    file.replace(&after, false, dry_run, out)
}

fn change_agent(
    adapter: &Adapter,
    change: SettingsChange,
    dry_run: bool,
    env: Env<'_>,
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    if adapter.name == AgentName::Other {
        return Err(CliError::usage(
            "other: its settings are not known",
            "run `sessiond hook --agent other` in its hooks",
        ));
    }
    let file = AgentFile::read(&adapter.settings_file(env).ok_or_else(no_home)?)?;
    let after = match change {
        SettingsChange::Install => adapter.installed(&file.text, &program_path()),
        SettingsChange::Uninstall => adapter.uninstalled(&file.text),
    };
    let after = after.map_err(|error| file.invalid(&error))?;
    let is_nothing_left = change == SettingsChange::Uninstall && adapter.is_empty_file(&after);
    file.replace(&after, is_nothing_left, dry_run, out)?;
    if adapter.name == AgentName::Codex && change == SettingsChange::Install && !dry_run && after != file.text {
        out.print_note("sessiond: Codex runs a new hook only once you trust it: run `codex`, then /hooks");
    }
    Ok(())
}

/// A settings file as it is.
struct AgentFile {
    /// Symbolic links are followed: a link stays, and its target may not exist yet.
    path: PathBuf,
    text: String,
    exists: bool,
}

impl AgentFile {
    fn read(path: &Path) -> Result<Self, CliError> {
        let path = resolve_links(path).map_err(|error| file_error(path, &error))?;
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Self { path, text, exists: true }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self { path, text: String::new(), exists: false }),
            Err(error) => Err(file_error(&path, &error)),
        }
    }

    fn invalid(&self, error: &AgentFileError) -> CliError {
        let hint = match error {
            AgentFileError::Settings(_) => "fix it and try again; nothing was changed",
            AgentFileError::ForeignPlugin => "move it away and try again; nothing was changed",
        };
        CliError::new(ErrorCode::Configuration, format!("{}: {error}", self.path.display()), hint)
    }

    /// Writes the new text. `is_nothing_left`: only what an installation begins with is left, so that the file is removed,
    /// unless it was there before the first installation.
    fn replace(&self, after: &str, is_nothing_left: bool, dry_run: bool, out: &mut Output<'_>) -> Result<(), CliError> {
        let path = self.path.display();
        if after == self.text {
            return out.print_line(&format!("{path}: nothing to do"));
        }
        let is_removed = is_nothing_left && self.exists && (after.is_empty() || !self.has_backup());
        let after = if is_removed { "" } else { after };
        if dry_run {
            return out.print_lines(&format!("{}\n{}", escaped_line(&path.to_string()), line_diff(&self.text, after)));
        }
        if is_removed {
            fs::remove_file(&self.path).map_err(|error| file_error(&self.path, &error))?;
            return out.print_line(&format!("removed {path}"));
        }
        let backup = match self.text.as_str() {
            "" => None,
            _ => Some(self.back_up(out).map_err(|error| file_error(&self.path, &error))?),
        };
        replace_file(&self.path, after.as_bytes()).map_err(|error| file_error(&self.path, &error))?;
        let kept =
            backup.map(|backup| format!("; the former file is kept as {}", backup.display())).unwrap_or_default();
        out.print_line(&format!("changed {path}{kept}"))
    }

    /// The begin of the names of its backups.
    fn backup_prefix(&self) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        format!("{name}.before-sessiond-")
    }

    fn has_backup(&self) -> bool {
        let entries = self.path.parent().and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten().flatten();
        let prefix = self.backup_prefix();
        entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
    }

    fn back_up(&self, out: &Output<'_>) -> io::Result<PathBuf> {
        let date = out.style.now.to_string().replace([':', '-'], "");
        let backup = self.path.with_file_name(format!("{}{date}", self.backup_prefix()));
        fs::copy(&self.path, &backup)?;
        copy_owner(&self.path, &backup)?;
        Ok(backup)
    }
}

/// Claude Code's settings with the hooks that all installed versions accept; prints a note for each of the others.
fn merged(text: &str, env: Env<'_>, out: &mut Output<'_>) -> Result<String, settings::SettingsError> {
    let program = program_path();
    let (events, left_out) = versions::events(&versions::installed(env));
    let merged = settings::install(text, &program, &events)?;
    for (reason, names) in by_reason(&left_out) {
        let hooks = match names.as_slice() {
            [name] => format!("the hook {name}"),
            names => format!("each of the hooks {}", names.join(", ")),
        };
        out.print_note(&format!(
            "sessiond: {hooks} is left out: {reason}; after an update run `sessiond install --claude` again"
        ));
    }
    if let Some(other) = &merged.other_status_line {
        out.print_note(&format!(
            "sessiond: another status line is kept: {other}; to show both, replace it by: \
             \"statusLine\": {}",
            settings::joined(other, &program)
        ));
    }
    Ok(merged.text)
}

/// The names of the events for each reason.
fn by_reason(left_out: &[LeftOut]) -> Vec<(&str, Vec<&'static str>)> {
    let mut found: Vec<(&str, Vec<&'static str>)> = Vec::new();
    for LeftOut { event, reason } in left_out {
        match found.iter_mut().find(|(known, _)| known == reason) {
            Some((_, names)) => names.push(event.name()),
            None => found.push((reason, vec![event.name()])),
        }
    }
    found
}

/// Claude Code's folder of this user.
pub(super) fn claude_home(env: Env<'_>) -> Result<PathBuf, CliError> {
    let home = path_in(env, "CLAUDE_CONFIG_DIR").or_else(|| path_in(env, "HOME").map(|home| home.join(".claude")));
    home.ok_or_else(no_home)
}

fn no_home() -> CliError {
    CliError::new(ErrorCode::Configuration, "HOME is not set", "set it, or CLAUDE_CONFIG_DIR to Claude Code's folder")
}

/// The path by which hooks run this program: the agent's PATH may differ.
fn program_path() -> String {
    installed_path().into_os_string().into_string().unwrap_or_else(|_| "sessiond".to_owned())
}

fn file_error(file: &Path, error: &io::Error) -> CliError {
    let code =
        if error.kind() == ErrorKind::PermissionDenied { ErrorCode::Forbidden } else { ErrorCode::Configuration };
    CliError::new(code, format!("{} cannot be used: {error}", file.display()), "nothing was changed")
}
