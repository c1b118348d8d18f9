//! install --claude and uninstall --claude: this program's entries in Claude Code's settings.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::claude::settings::{self, SettingsError};
use crate::claude::versions::{self, LeftOut};
use crate::cli::error::CliError;
use crate::cli::line_diff::line_diff;
use crate::cli::output::Output;
use crate::domain::text::escaped_line;
use crate::platform::default_paths::{Env, path_in};
use crate::platform::program::installed_path;
use crate::platform::replace::{copy_owner, replace_file, resolve_links};
use crate::wire::ErrorCode;

/// A change of Claude Code's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SettingsChange {
    Install,
    Uninstall,
}

/// Adds this program's hooks and status line to the settings of this user, or removes them. A copy of the former
/// settings is kept beside them. With `dry_run` it only prints the lines that would change.
pub(crate) fn change_settings(
    change: SettingsChange,
    dry_run: bool,
    env: Env<'_>,
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    let file = settings_file(env)?;
    let before = match fs::read_to_string(&file) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        read => Some(read.map_err(|error| file_error(&file, &error))?),
    };
    let text = before.as_deref().unwrap_or_default();
    let after = match change {
        SettingsChange::Uninstall => settings::uninstall(text).map_err(|error| invalid_settings(&file, &error))?,
        SettingsChange::Install => merged(text, env, out).map_err(|error| invalid_settings(&file, &error))?,
    };
    if after == text {
        return out.print_line(&format!("{}: nothing to do", file.display()));
    }
    if dry_run {
        return out.print_lines(&format!("{}\n{}", escaped_line(&file.display().to_string()), line_diff(text, &after)));
    }
    let backup = match before.as_deref() {
        None | Some("") => None,
        Some(_) => Some(back_up(&file, out).map_err(|error| file_error(&file, &error))?),
    };
    replace_file(&file, after.as_bytes()).map_err(|error| file_error(&file, &error))?;
    let kept = backup.map(|backup| format!("; the former file is kept as {}", backup.display())).unwrap_or_default();
    out.print_line(&format!("changed {}{kept}", file.display()))
}

/// The settings with the hooks that all installed versions of Claude Code accept; prints a note for each of the others.
fn merged(text: &str, env: Env<'_>, out: &mut Output<'_>) -> Result<String, SettingsError> {
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
    home.ok_or_else(|| {
        CliError::new(
            ErrorCode::Configuration,
            "HOME is not set",
            "set it, or CLAUDE_CONFIG_DIR to Claude Code's folder",
        )
    })
}

/// The file of the user's settings, with symbolic links followed: the link stays, and its target may not exist yet.
fn settings_file(env: Env<'_>) -> Result<PathBuf, CliError> {
    let file = claude_home(env)?.join("settings.json");
    resolve_links(&file).map_err(|error| file_error(&file, &error))
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

fn invalid_settings(file: &Path, error: &SettingsError) -> CliError {
    CliError::new(
        ErrorCode::Configuration,
        format!("{}: {error}", file.display()),
        "fix it and try again; nothing was changed",
    )
}

fn back_up(file: &Path, out: &Output<'_>) -> io::Result<PathBuf> {
    let date = out.style.now.to_string().replace([':', '-'], "");
    let backup = file.with_file_name(format!("settings.json.before-sessiond-{date}"));
    fs::copy(file, &backup)?;
    copy_owner(file, &backup)?;
    Ok(backup)
}
