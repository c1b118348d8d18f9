//! Files and commands, each of them done only if it is not done yet.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::refusal;
use crate::domain::text::escaped_line;
use crate::platform::files::{WriteDurability, write_atomically};
use crate::wire::{ErrorCode, ErrorDetail};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The file shall have this text.
    Write {
        path: PathBuf,
        mode: u32,
        text: String,
        secret: bool,
    },
    /// The file shall not be there.
    Remove(PathBuf),
    Run {
        command: Vec<String>,
        only: Only,
    },
}

/// When a command is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Only {
    /// A file of the steps before was written or removed.
    AfterChanges,
    /// This other command does not succeed.
    Unless(Vec<String>),
    /// Both: it changes what runs.
    AfterChangesOrUnless(Vec<String>),
    Always,
}

impl Step {
    pub fn write(path: impl Into<PathBuf>, mode: u32, text: impl Into<String>) -> Self {
        Self::Write { path: path.into(), mode, text: text.into(), secret: false }
    }

    pub fn secret(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        Self::Write { path: path.into(), mode: 0o600, text: text.into(), secret: true }
    }

    pub fn run(command: &str, only: Only) -> Self {
        Self::Run { command: super::words(command), only }
    }

    #[cfg(test)]
    pub fn text(&self) -> Option<&str> {
        if let Self::Write { text, .. } = self { Some(text) } else { None }
    }

    fn described(&self) -> String {
        match self {
            Self::Write { path, mode, secret: true, .. } => {
                format!("write {} ({mode:04o}); its text is a secret and not shown", shown(path))
            }
            Self::Write { path, mode, text, .. } => {
                let lines: String = text.lines().map(|line| format!("\n    {line}")).collect();
                format!("write {} ({mode:04o}):{lines}", shown(path))
            }
            Self::Remove(path) => format!("remove {}", shown(path)),
            Self::Run { command, only } => {
                let unless = match only {
                    Only::Unless(check) | Only::AfterChangesOrUnless(check) => {
                        format!(", unless `{}`", escaped_line(&check.join(" ")))
                    }
                    Only::AfterChanges => ", if a file has changed".into(),
                    Only::Always => String::new(),
                };
                format!("run {}{unless}", escaped_line(&command.join(" ")))
            }
        }
    }
}

/// A path on one line, whatever characters it has.
pub(super) fn shown(path: &Path) -> String {
    escaped_line(&path.display().to_string())
}

/// Carries the steps out in order, and says what was done; on a dry run, what they are.
pub(super) fn carry_out(steps: &[Step], dry_run: bool) -> Result<Vec<String>, ErrorDetail> {
    if dry_run {
        return Ok(steps.iter().map(Step::described).collect());
    }
    let mut said = Vec::new();
    let mut changed = false;
    for step in steps {
        match step {
            Step::Write { path, mode, text, .. } if !is_written(path, *mode, text) => {
                write(path, *mode, text).map_err(|error| failed("written", path, &error))?;
                changed = true;
                said.push(format!("wrote {}", shown(path)));
            }
            Step::Remove(path) if fs::symlink_metadata(path).is_ok() => {
                fs::remove_file(path).map_err(|error| failed("removed", path, &error))?;
                changed = true;
                said.push(format!("removed {}", shown(path)));
            }
            Step::Run { command, only } if is_due(only, changed) => {
                run(command)?;
                said.push(format!("ran {}", escaped_line(&command.join(" "))));
            }
            _ => {}
        }
    }
    Ok(said)
}

fn is_written(path: &Path, mode: u32, text: &str) -> bool {
    let has_mode = || fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o777 == mode);
    fs::read(path).is_ok_and(|have| have == text.as_bytes()) && has_mode()
}

/// Whole or not at all, and never readable for others than it should be.
fn write(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    let Some(folder) = path.parent() else { return Err(io::ErrorKind::InvalidInput.into()) };
    fs::create_dir_all(folder)?;
    write_atomically(path, text.as_bytes(), mode, WriteDurability::Content)
}

fn is_due(only: &Only, changed: bool) -> bool {
    match only {
        Only::Always => true,
        Only::AfterChanges => changed,
        Only::Unless(check) => !succeeds(check),
        Only::AfterChangesOrUnless(check) => changed || !succeeds(check),
    }
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
    let shown = words.join(" ");
    let why = match command(words).output() {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()),
        Err(error) => error.to_string(),
    };
    Err(refusal(ErrorCode::Conflict, format!("`{shown}` failed: {why}"), "mend that, and run this again: it goes on"))
}

fn failed(how: &str, path: &Path, error: &io::Error) -> ErrorDetail {
    let code = if error.kind() == io::ErrorKind::PermissionDenied { ErrorCode::Forbidden } else { ErrorCode::Conflict };
    refusal(code, format!("{} cannot be {how}: {error}", path.display()), "mend that, and run this again: it goes on")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_time_nothing_is_left_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let (file, mark) = (dir.path().join("a/unit"), dir.path().join("mark"));
        let steps = [
            Step::secret(&file, "text\n"),
            Step::run(
                &format!("touch {}", mark.display()),
                Only::Unless(super::super::words(&format!("test -e {}", mark.display()))),
            ),
            Step::run("true", Only::AfterChanges),
        ];
        assert_eq!(carry_out(&steps, true).unwrap().len(), 3);
        assert!(!file.exists());
        assert_eq!(carry_out(&steps, false).unwrap().len(), 3);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(carry_out(&steps, false).unwrap(), Vec::<String>::new());
        fs::write(&file, "other").unwrap();
        assert_eq!(carry_out(&steps, false).unwrap().len(), 2);
        let remove = [Step::Remove(file.clone()), Step::run("true", Only::AfterChanges)];
        assert_eq!(carry_out(&remove, false).unwrap().len(), 2);
        assert_eq!(carry_out(&remove, false).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_dry_run_shows_all_but_secrets() {
        let shown = carry_out(&[Step::secret("/p", "hunter2"), Step::write("/c", 0o644, "a\nb\n")], true).unwrap();
        assert_eq!(shown, ["write /p (0600); its text is a secret and not shown", "write /c (0644):\n    a\n    b"]);
    }

    #[test]
    fn a_command_that_fails_is_named_with_its_words() {
        let error = carry_out(&[Step::run("ls /no/such", Only::Always)], false).unwrap_err();
        assert!(
            error.message.starts_with("`ls /no/such` failed: ") && error.message.contains("No such"),
            "{}",
            error.message
        );
    }
}
