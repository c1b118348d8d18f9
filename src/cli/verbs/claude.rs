//! install --claude and uninstall --claude: our part of Claude Code's settings.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::claude::settings::{self, SettingsError};
use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::platform::places::{Env, path_in};
use crate::platform::program::installed_path;
use crate::wire::ErrorCode;

/// What is to be done with Claude Code's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Install,
    Uninstall,
}

/// Puts our hooks and status line into the settings of this user, or takes them out; with `dry_run` it only says
/// what would be done.
pub fn settings(change: Change, dry_run: bool, env: Env<'_>, out: &mut Output<'_>) -> Result<(), CliError> {
    let file = settings_file(env)?;
    let before = match fs::read_to_string(&file) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        read => Some(read.map_err(|error| unusable(&file, &error))?),
    };
    let program = program();
    let text = before.as_deref().unwrap_or_default();
    let after = match change {
        Change::Uninstall => settings::uninstall(text).map_err(|error| broken(&file, &error))?,
        Change::Install => {
            let merged = settings::install(text, &program).map_err(|error| broken(&file, &error))?;
            if let Some(other) = &merged.other_status_line {
                out.note(&format!(
                    "sessiond: the status line that is there stays: {other}; to show both, put this in its place: \
                     \"statusLine\": {}",
                    settings::joined(other, &program)
                ));
            }
            merged.text
        }
    };
    if after == text {
        return out.line(&format!("{}: nothing to do", file.display()));
    }
    if dry_run {
        return out.print(&format!("{}\n{}", file.display(), difference(text, &after)));
    }
    let backup = before.map(|_| backed_up(&file, out)).transpose().map_err(|error| unusable(&file, &error))?;
    write_whole(&file, &after).map_err(|error| unusable(&file, &error))?;
    let kept =
        backup.map(|backup| format!("; as it was before it is kept as {}", backup.display())).unwrap_or_default();
    out.line(&format!("changed {}{kept}", file.display()))
}

/// The user's settings; a link, as those have who keep them in a repository, stays one.
fn settings_file(env: Env<'_>) -> Result<PathBuf, CliError> {
    let home = path_in(env, "CLAUDE_CONFIG_DIR").or_else(|| path_in(env, "HOME").map(|home| home.join(".claude")));
    let file = home.map(|home| home.join("settings.json")).ok_or_else(|| {
        CliError::new(
            ErrorCode::Configuration,
            "HOME is not set",
            "set it, or CLAUDE_CONFIG_DIR to Claude Code's folder",
        )
    })?;
    Ok(fs::canonicalize(&file).unwrap_or(file))
}

/// The command by which a hook runs this program: its path, since the agent's PATH may be another.
fn program() -> String {
    installed_path().into_os_string().into_string().unwrap_or_else(|_| "sessiond".to_owned())
}

fn unusable(file: &Path, error: &io::Error) -> CliError {
    let code =
        if error.kind() == ErrorKind::PermissionDenied { ErrorCode::Forbidden } else { ErrorCode::Configuration };
    CliError::new(code, format!("{} cannot be used: {error}", file.display()), "nothing was changed")
}

fn broken(file: &Path, error: &SettingsError) -> CliError {
    CliError::new(
        ErrorCode::Configuration,
        format!("{}: {error}", file.display()),
        "mend it and try again; nothing was changed",
    )
}

fn backed_up(file: &Path, out: &Output<'_>) -> io::Result<PathBuf> {
    let date = out.look.now.to_string().replace([':', '-'], "");
    let backup = file.with_file_name(format!("settings.json.before-sessiond-{date}"));
    fs::copy(file, &backup)?;
    Ok(backup)
}

/// Replaces the file by this text, all of it or nothing, with the mode it had.
fn write_whole(file: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let draft = file.with_file_name(format!(".settings.json.{}", std::process::id()));
    let mode = fs::metadata(file).map_or(0o600, |about| about.permissions().mode());
    let mut written = File::create(&draft)?;
    let done = written
        .set_permissions(fs::Permissions::from_mode(mode))
        .and_then(|()| written.write_all(text.as_bytes()))
        .and_then(|()| written.sync_all())
        .and_then(|()| fs::rename(&draft, file));
    if done.is_err() {
        let _ = fs::remove_file(&draft);
    }
    done
}

/// The lines that go (`-`) and come (`+`), each with the place where it stands.
fn difference(before: &str, after: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    // The longest common rest from each pair of lines on.
    let mut common = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] =
                if old[i] == new[j] { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut text) = (0, 0, String::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
        } else if j < new.len() && (i == old.len() || common[i][j + 1] >= common[i + 1][j]) {
            text.push_str(&format!("{:>4} + {}\n", j + 1, new[j]));
            j += 1;
        } else {
            text.push_str(&format!("{:>4} - {}\n", i + 1, old[i]));
            i += 1;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_names_lines() {
        assert_eq!(difference("a\nb\nc\n", "a\nx\nc\nd\n"), "   2 + x\n   2 - b\n   4 + d\n");
        assert_eq!(difference("a\n", "a\n"), "");
    }
}
