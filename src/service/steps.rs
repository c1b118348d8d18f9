//! The steps of an installation: files and commands, each executed only if it is not done yet.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::error;
use crate::domain::text::escaped_line;
use crate::platform::files::{WriteDurability, write_atomically};
use crate::wire::{ErrorCode, ErrorDetail};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum InstallStep {
    /// The file must have this text and mode.
    Write {
        path: PathBuf,
        mode: u32,
        text: String,
        secret: bool,
    },
    /// The file must not exist.
    Remove(PathBuf),
    Run {
        command: Vec<String>,
        when: RunCondition,
    },
}

/// When a command is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RunCondition {
    /// If an earlier step wrote or removed a file.
    AfterChanges,
    /// If this other command fails.
    Unless(Vec<String>),
    /// If one of the two conditions is true.
    AfterChangesOrUnless(Vec<String>),
    Always,
}

impl InstallStep {
    pub(super) fn write(path: impl Into<PathBuf>, mode: u32, text: impl Into<String>) -> Self {
        Self::Write { path: path.into(), mode, text: text.into(), secret: false }
    }

    pub(super) fn secret(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        Self::Write { path: path.into(), mode: 0o600, text: text.into(), secret: true }
    }

    pub(super) fn run(command: &str, when: RunCondition) -> Self {
        Self::Run { command: super::words(command), when }
    }

    #[cfg(test)]
    pub(super) fn text(&self) -> Option<&str> {
        if let Self::Write { text, .. } = self { Some(text) } else { None }
    }

    fn description(&self) -> String {
        match self {
            Self::Write { path, mode, secret: true, .. } => {
                format!("write {} ({mode:04o}); its text is secret", displayed(path))
            }
            Self::Write { path, mode, text, .. } => {
                let lines: String = text.lines().map(|line| format!("\n    {line}")).collect();
                format!("write {} ({mode:04o}):{lines}", displayed(path))
            }
            Self::Remove(path) => format!("remove {}", displayed(path)),
            Self::Run { command, when } => {
                let unless = match when {
                    RunCondition::Unless(check) | RunCondition::AfterChangesOrUnless(check) => {
                        format!(", unless `{}`", command_line(check))
                    }
                    RunCondition::AfterChanges => ", if a file has changed".into(),
                    RunCondition::Always => String::new(),
                };
                format!("run {}{unless}", command_line(command))
            }
        }
    }
}

/// A path on one line, without characters that are unsafe to print.
pub(super) fn displayed(path: &Path) -> String {
    escaped_line(&path.display().to_string())
}

/// What [`execute`] would do, a line for each step.
pub(super) fn describe(steps: &[InstallStep]) -> Vec<String> {
    steps.iter().map(InstallStep::description).collect()
}

/// Executes the steps in order and returns a report of what was done.
///
/// # Errors
/// The first step that fails; the steps before it stay done.
pub(super) fn execute(steps: &[InstallStep]) -> Result<Vec<String>, ErrorDetail> {
    let mut report = Vec::new();
    let mut changed = false;
    for step in steps {
        match step {
            InstallStep::Write { path, mode, text, .. } if !is_written(path, *mode, text) => {
                write(path, *mode, text).map_err(|error| failed("written", path, &error))?;
                changed = true;
                report.push(format!("wrote {}", displayed(path)));
            }
            InstallStep::Remove(path) if fs::symlink_metadata(path).is_ok() => {
                fs::remove_file(path).map_err(|error| failed("removed", path, &error))?;
                changed = true;
                report.push(format!("removed {}", displayed(path)));
            }
            InstallStep::Run { command, when } if is_due(when, changed) => {
                run(command)?;
                report.push(format!("ran {}", command_line(command)));
            }
            _ => {}
        }
    }
    Ok(report)
}

fn is_written(path: &Path, mode: u32, text: &str) -> bool {
    let has_mode = || fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o777 == mode);
    fs::read(path).is_ok_and(|have| have == text.as_bytes()) && has_mode()
}

/// Writes the file atomically; it never has a wider mode than `mode`.
fn write(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    let Some(folder) = path.parent() else { return Err(io::ErrorKind::InvalidInput.into()) };
    fs::create_dir_all(folder)?;
    write_atomically(path, text.as_bytes(), mode, WriteDurability::Content)
}

fn is_due(when: &RunCondition, changed: bool) -> bool {
    match when {
        RunCondition::Always => true,
        RunCondition::AfterChanges => changed,
        RunCondition::Unless(check) => !succeeds(check),
        RunCondition::AfterChangesOrUnless(check) => changed || !succeeds(check),
    }
}

/// The command as it can be typed into a shell, on one line without characters that are unsafe to print.
fn command_line(words: &[String]) -> String {
    // Only a zero byte cannot be quoted, and no argument of a process has one.
    escaped_line(&shlex::try_join(words.iter().map(String::as_str)).unwrap_or_else(|_| words.join(" ")))
}

fn command(words: &[String]) -> Command {
    let (program, arguments) = words.split_first().map_or(("true", [].as_slice()), |(first, rest)| (first, rest));
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    command
}

fn succeeds(words: &[String]) -> bool {
    command(words).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn run(words: &[String]) -> Result<(), ErrorDetail> {
    let command_line = command_line(words);
    let why = match command(words).output() {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()),
        Err(error) => error.to_string(),
    };
    Err(error(
        ErrorCode::Conflict,
        format!("`{command_line}` failed: {why}"),
        "fix that and run this again; it continues",
    ))
}

fn failed(how: &str, path: &Path, cause: &io::Error) -> ErrorDetail {
    let code = if cause.kind() == io::ErrorKind::PermissionDenied { ErrorCode::Forbidden } else { ErrorCode::Conflict };
    error(code, format!("{} cannot be {how}: {cause}", path.display()), "fix that and run this again; it continues")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeating_the_steps_does_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (file, mark) = (dir.path().join("a/unit"), dir.path().join("mark"));
        let steps = [
            InstallStep::secret(&file, "text\n"),
            InstallStep::run(
                &format!("touch {}", mark.display()),
                RunCondition::Unless(super::super::words(&format!("test -e {}", mark.display()))),
            ),
            InstallStep::run("true", RunCondition::AfterChanges),
        ];
        assert_eq!(describe(&steps).len(), 3);
        assert!(!file.exists());
        assert_eq!(execute(&steps).unwrap().len(), 3);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(execute(&steps).unwrap(), Vec::<String>::new());
        fs::write(&file, "other").unwrap();
        assert_eq!(execute(&steps).unwrap().len(), 2);
        let remove = [InstallStep::Remove(file.clone()), InstallStep::run("true", RunCondition::AfterChanges)];
        assert_eq!(execute(&remove).unwrap().len(), 2);
        assert_eq!(execute(&remove).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_dry_run_hides_secrets() {
        let shown = describe(&[InstallStep::secret("/p", "hunter2"), InstallStep::write("/c", 0o644, "a\nb\n")]);
        assert_eq!(shown, ["write /p (0600); its text is secret", "write /c (0644):\n    a\n    b"]);
    }

    #[test]
    fn the_error_names_the_failed_command() {
        let error = execute(&[InstallStep::run("ls /no/such", RunCondition::Always)]).unwrap_err();
        assert!(
            error.message.starts_with("`ls /no/such` failed: ") && error.message.contains("No such"),
            "{}",
            error.message
        );
    }
}
