//! How agents' sessions reach the daemon: the log of hooks, and the folder in which running agents describe themselves.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::service::output;
use crate::claude::running_agent;
use crate::config::{ClaudeSettings, Environment};
use crate::domain::Finding;
use crate::domain::text::one_line;
use crate::platform::default_paths::{DefaultPaths, STATE_DIR_VAR, path_in};
use crate::service::Scope;

/// Complaints older than this are not shown.
const RECENT: Duration = Duration::from_secs(7 * 86_400);

/// Recent failures of this user's hooks, which hooks only log, since they must not disturb the agent.
pub(super) fn complaints(environment: &Environment<'_>) -> Option<Finding> {
    let own = || DefaultPaths::of(environment.os, environment.is_root, environment.variable).state_dir;
    let log = path_in(environment.variable, STATE_DIR_VAR).or_else(own)?.join("hooks.log");
    let age = fs::metadata(&log).ok()?.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
    if age.is_some_and(|age| age > RECENT) {
        return None;
    }
    let text = fs::read(&log).ok()?;
    let text = String::from_utf8_lossy(&text);
    let last = text.lines().last()?;
    let found = format!("{} has {} lines, the last: {}", log.display(), text.lines().count(), one_line(last));
    Some(Finding::odd("hooks.log", found, "an agent's report failed; fix the cause, then remove the file"))
}

/// Whether the daemon can read the files in which running sessions describe themselves.
///
/// The system's service sees no home (ProtectHome=).
pub(super) fn discovery(claude: &ClaudeSettings, daemon: Scope) -> Finding {
    const CHECK: &str = "discovery";
    if !claude.watch {
        return Finding::good(CHECK, "claude.watch is off; sessions are recorded by hooks alone");
    }
    if daemon == Scope::System {
        if helper_runs() {
            return Finding::good(
                CHECK,
                format!("this user's {HELPER} reports running sessions to the system's service"),
            );
        }
        let found = "the system's service reads no home: it records sessions by hooks and watches their processes, and \
                     does not find sessions without hooks";
        let advice = "run `sessiond install --claude` as each user who runs Claude Code, and for sessions without hooks \
                      `systemctl --user enable --now sessiond-discover` (or `sessiond discover --watch`)";
        return Finding::odd(CHECK, found, advice);
    }
    let Some(home) = &claude.home else {
        return Finding::odd(CHECK, "HOME is not set, so Claude Code's folder is unknown", "set claude.home");
    };
    let folder = running_agent::folder(home);
    match fs::read_dir(&folder) {
        Ok(_) => Finding::good(CHECK, format!("running sessions are found in {}", folder.display())),
        Err(error) if error.kind() == ErrorKind::NotFound && is_readable(home) => {
            Finding::good(CHECK, format!("no session of Claude Code has run yet: there is no {}", folder.display()))
        }
        Err(error) => Finding::wrong(
            CHECK,
            format!("{} cannot be read: {error}", folder.display()),
            "make claude.home readable for the daemon's user, or set claude.watch = false",
        ),
    }
}

/// The unit that runs `sessiond discover --watch` for a user.
const HELPER: &str = "sessiond-discover.service";

fn helper_runs() -> bool {
    output(&["systemctl", "--user", "is-active", HELPER]).is_some()
}

/// Whether the folder, or the nearest one above it that exists, can be entered and read.
fn is_readable(home: &Path) -> bool {
    match fs::read_dir(home) {
        Err(error) if error.kind() == ErrorKind::NotFound => home.parent().is_some_and(is_readable),
        read => read.is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Verdict;
    use crate::domain::work::Recording;

    fn claude(home: &Path) -> ClaudeSettings {
        ClaudeSettings { watch: true, home: Some(home.to_owned()), record: Recording::Full, rules: Vec::new() }
    }

    #[test]
    fn an_unreadable_claude_home_is_wrong_and_a_missing_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let verdict = |home: &Path| discovery(&claude(home), Scope::User).verdict;
        assert_eq!(verdict(&dir.path().join("none")), Verdict::Good);
        fs::create_dir(dir.path().join("sessions")).unwrap();
        assert_eq!(verdict(dir.path()), Verdict::Good);
        // A file in the place of a folder cannot be read by root either.
        fs::write(dir.path().join("file"), "").unwrap();
        assert_eq!(verdict(&dir.path().join("file")), Verdict::Wrong);
        assert_eq!(discovery(&claude(dir.path()), Scope::System).verdict, Verdict::Odd);
    }

    #[test]
    fn recent_failures_of_hooks_are_shown_with_the_last_line() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().to_owned();
        let variable = move |name: &str| (name == STATE_DIR_VAR).then(|| state.clone().into_os_string());
        let environment =
            Environment { os: crate::platform::default_paths::Os::Linux, is_root: false, variable: &variable };
        assert_eq!(complaints(&environment), None);
        fs::write(dir.path().join("hooks.log"), "first\nthe last\u{1b}[2J\n").unwrap();
        let found = complaints(&environment).unwrap().found;
        assert!(found.contains("2 lines, the last: the last") && !found.contains('\u{1b}'), "{found}");
        let file = fs::File::options().append(true).open(dir.path().join("hooks.log")).unwrap();
        file.set_modified(SystemTime::now() - RECENT - Duration::from_secs(60)).unwrap();
        assert_eq!(complaints(&environment), None);
    }
}
