//! `git status`, as far as it answers within a time limit.
//!
//! The repository may belong to any user, so git is called so that it runs no program that the repository's configuration
//! names: no hooks, no monitor of the file system, no pager, no transport; it writes nothing; filters are excluded by the
//! caller. git itself refuses a repository of another user (`safe.directory`).

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};

use super::commit;

/// The longest output that is read: the lines about the branch and the first changed file.
const MAX_OUTPUT: usize = 64 << 10;

/// How often the end of a process is checked that has closed its output.
const EXIT_CHECK: Duration = Duration::from_micros(200);

/// Variables of git that the user may set for all repositories; others may belong to the command that runs the agent.
const KEPT: [&str; 4] = ["GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM", "GIT_EXEC_PATH"];

/// The state of a working tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Status {
    pub is_dirty: bool,
    pub branch: Option<String>,
    pub head: Option<String>,
    pub ahead: Option<u32>,
    pub behind: Option<u32>,
}

/// A running `git status`. It is killed when this is dropped.
pub(super) struct StatusQuery {
    child: Child,
    stdout: ChildStdout,
}

impl fmt::Debug for StatusQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "git status, process {}", self.child.id())
    }
}

impl StatusQuery {
    /// Starts git in a working tree. `None`: there is no git.
    pub(crate) fn start(top: &Path, path: Option<&OsStr>) -> Option<Self> {
        let mut command = Command::new(program(path?)?);
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_removed(name)) {
            command.env_remove(name);
        }
        command
            .args(["--no-pager", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"])
            .args(["-c", "core.sshCommand=false", "-c", "status.submoduleSummary=false", "-C"])
            .arg(top)
            .args(["status", "--porcelain=v2", "--branch", "--untracked-files=no"])
            .args(["--ignore-submodules=dirty", "--no-renames"])
            .envs([("GIT_OPTIONAL_LOCKS", "0"), ("GIT_NO_LAZY_FETCH", "1"), ("GIT_ALLOW_PROTOCOL", "none")])
            .envs([("GIT_TERMINAL_PROMPT", "0"), ("LC_ALL", "C")])
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().ok()?;
        let stdout = child.stdout.take()?;
        Some(Self { child, stdout })
    }

    /// The answer, unless git fails or takes longer than `until`.
    pub(crate) fn finish(mut self, until: Instant) -> Option<Status> {
        let mut output = Vec::new();
        loop {
            if let Some(status) = parse(&output, Output::Partial) {
                return Some(status);
            }
            if output.len() >= MAX_OUTPUT {
                return None;
            }
            if self.read(&mut output, until).ok()? == 0 {
                break;
            }
        }
        // Only a process that has succeeded has said everything.
        loop {
            match self.child.try_wait().ok()? {
                Some(ended) => return parse(&output, Output::Complete).filter(|_| ended.success()),
                None if Instant::now() >= until => return None,
                None => std::thread::sleep(EXIT_CHECK),
            }
        }
    }

    /// Reads what there is, once there is something; 0: the output has ended.
    fn read(&self, output: &mut Vec<u8>, until: Instant) -> io::Result<usize> {
        let left = until.saturating_duration_since(Instant::now());
        let time = Timespec::try_from(left).map_err(io::Error::other)?;
        if left.is_zero() || poll(&mut [PollFd::new(&self.stdout, PollFlags::IN)], Some(&time))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut buffer = [0; 4096];
        let count = rustix::io::read(&self.stdout, &mut buffer)?;
        output.extend_from_slice(&buffer[..count]);
        Ok(count)
    }
}

impl Drop for StatusQuery {
    fn drop(&mut self) {
        // Not waited for: it may hang in the file system. The process that adopts it after this one ends reaps it.
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            let _ = self.child.try_wait();
        }
    }
}

fn is_removed(name: &OsStr) -> bool {
    name.to_string_lossy().starts_with("GIT_") && !KEPT.iter().any(|kept| name == *kept)
}

/// git in a folder of `path`, but not in a relative one: that would be in the repository.
fn program(path: &OsStr) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| {
        std::fs::metadata(path).is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
    };
    let folders = std::env::split_paths(path).filter(|folder| folder.is_absolute());
    folders.map(|folder| folder.join(OsString::from("git"))).find(is_program)
}

/// How much of git's output there is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Output {
    /// More may follow.
    Partial,
    Complete,
}

/// The status by what git has printed. `None`: nothing that is certain. Changed files come last, and one is enough.
fn parse(output: &[u8], extent: Output) -> Option<Status> {
    let text = String::from_utf8_lossy(output);
    let is_complete = extent == Output::Complete;
    let whole = if is_complete { &*text } else { &text[..text.rfind('\n')? + 1] };
    let mut status = Status::default();
    let mut is_status = false;
    for line in whole.lines() {
        let Some(about) = line.strip_prefix("# branch.") else {
            status.is_dirty |= matches!(line.as_bytes(), [b'1' | b'2' | b'u', b' ', ..]);
            continue;
        };
        match about.split_once(' ') {
            Some(("oid", id)) => (is_status, status.head) = (true, commit(id)),
            Some(("head", "(detached)")) => {}
            Some(("head", branch)) => status.branch = Some(branch.to_owned()),
            Some(("ab", counts)) => {
                let mut counts = counts.split(' ').map(|count| count.get(1..)?.parse().ok());
                (status.ahead, status.behind) = (counts.next().flatten(), counts.next().flatten());
            }
            _ => {}
        }
    }
    (is_status && (is_complete || status.is_dirty)).then_some(status)
}
