//! The installed versions of Claude Code, and the hooks that each accepts in its settings.
//!
//! Up to 2.1.92, Claude Code silently ignores a whole settings.json that has a hook of an event unknown to it: no hook runs,
//! and the user's permissions are ignored too. So only hooks that the oldest installed version accepts are installed; if a
//! version is unknown, those that every version since 1.0.85 accepts.

use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::hook::HookEvent;
use super::input::Input;
use crate::platform::default_paths::{Env, path_in};
use crate::platform::small_file;

/// The timeout of `claude --version`.
const VERSION_TIMEOUT: Duration = Duration::from_secs(5);

/// Major, minor and patch, as in `2.1.332`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u32, u32, u32);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// Since this version, Claude Code only warns of an unknown event. 2.1.92 is the last one known to ignore the settings, and
/// 2.1.101 the first known to warn.
pub const FIRST_WARNING_VERSION: Version = Version(2, 1, 101);

impl Version {
    /// Reads `2.1.101`, also where more follows, as in `2.1.101 (Claude Code)` and `2.1.101-beta.1`.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim_start();
        let mut numbers = text.strip_prefix('v').unwrap_or(text).splitn(3, '.');
        let mut next = || {
            let part = numbers.next()?;
            part[..part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len())].parse().ok()
        };
        Some(Self(next()?, next()?, next()?))
    }

    /// Whether this version reads settings with a hook of this event.
    pub fn accepts(self, event: HookEvent) -> bool {
        self >= FIRST_WARNING_VERSION || self >= first_version(event)
    }
}

/// The first version that is known to know an event. Since 2.1.101 none needs to be known.
const fn first_version(event: HookEvent) -> Version {
    match event {
        HookEvent::PreToolUse | HookEvent::PostToolUse | HookEvent::Stop | HookEvent::Notification => Version(1, 0, 38),
        HookEvent::SubagentStop => Version(1, 0, 41),
        HookEvent::PreCompact => Version(1, 0, 48),
        HookEvent::UserPromptSubmit => Version(1, 0, 54),
        HookEvent::SessionStart => Version(1, 0, 62),
        HookEvent::SessionEnd => Version(1, 0, 85),
        HookEvent::SubagentStart => Version(2, 0, 43),
        HookEvent::PermissionRequest => Version(2, 0, 45),
        HookEvent::TaskCompleted => Version(2, 1, 33),
        HookEvent::PostCompact => Version(2, 1, 75),
        HookEvent::Elicitation | HookEvent::ElicitationResult => Version(2, 1, 76),
        HookEvent::StopFailure => Version(2, 1, 78),
        HookEvent::PermissionDenied => Version(2, 1, 89),
        // No version is documented.
        HookEvent::PostToolUseFailure
        | HookEvent::TaskCreated
        | HookEvent::CwdChanged
        | HookEvent::WorktreeCreate
        | HookEvent::WorktreeRemove => FIRST_WARNING_VERSION,
    }
}

/// The version that is assumed where none is known.
const ASSUMED_VERSION: Version = Version(1, 0, 85);

/// An installed Claude Code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    pub(crate) path: PathBuf,
    pub(crate) version: Option<Version>,
}

/// An event whose hook is not installed, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    pub(crate) event: HookEvent,
    pub(crate) reason: String,
}

/// The events whose hooks all installed versions accept, and the others.
pub fn events(installed: &[Installed]) -> (Vec<HookEvent>, Vec<LeftOut>) {
    let mut taken = Vec::new();
    let mut left_out = Vec::new();
    for event in HookEvent::INSTALLED {
        let refusing = installed.iter().find(|found| !found.version.unwrap_or(ASSUMED_VERSION).accepts(event));
        let reason = match refusing {
            Some(Installed { path, version: Some(version) }) => {
                format!("Claude Code {version} ({}) would ignore all of its settings", path.display())
            }
            Some(Installed { path, version: None }) => {
                format!("the version of {} is unknown, and an old one would ignore all of its settings", path.display())
            }
            None if installed.is_empty() && !ASSUMED_VERSION.accepts(event) => {
                "no Claude Code was found, and an old one would ignore all of its settings".to_owned()
            }
            None => {
                taken.push(event);
                continue;
            }
        };
        left_out.push(LeftOut { event, reason });
    }
    (taken, left_out)
}

/// All installations of Claude Code that this user may run.
pub fn installed(env: Env<'_>) -> Vec<Installed> {
    let mut seen = Vec::new();
    let mut found = Vec::new();
    for path in candidates(env) {
        let Ok(file) = fs::canonicalize(&path) else { continue };
        if file.is_file() && !seen.contains(&file) {
            found.push(Installed { version: version(&path, &file), path });
            seen.push(file);
        }
    }
    found
}

/// Where package managers and Claude Code's own installers put the program, below the home folder.
const IN_HOME: &[&str] = &[
    ".claude/local/claude",
    ".claude/local/node_modules/.bin/claude",
    ".local/bin/claude",
    "bin/claude",
    ".npm-global/bin/claude",
    ".npm-packages/bin/claude",
    ".nix-profile/bin/claude",
    ".local/state/nix/profile/bin/claude",
    ".bun/bin/claude",
    ".volta/bin/claude",
    ".local/share/pnpm/claude",
    "Library/pnpm/claude",
    ".local/share/mise/shims/claude",
    ".asdf/shims/claude",
];

/// Folders with a folder for each version of Node, and the path of the program below it.
const BY_NODE: &[(&str, &str)] = &[
    (".nvm/versions/node", "bin/claude"),
    (".local/share/fnm/node-versions", "installation/bin/claude"),
    (".local/share/mise/installs/node", "bin/claude"),
    (".local/share/mise/installs/claude", "bin/claude"),
    (".asdf/installs/nodejs", "bin/claude"),
];

const OF_THE_SYSTEM: &[&str] = &[
    "/usr/local/bin/claude",
    "/usr/bin/claude",
    "/opt/homebrew/bin/claude",
    "/home/linuxbrew/.linuxbrew/bin/claude",
    "/run/current-system/sw/bin/claude",
    "/nix/var/nix/profiles/default/bin/claude",
];

fn candidates(env: Env<'_>) -> Vec<PathBuf> {
    let path = env("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).filter(|folder| folder.is_absolute());
    let mut found: Vec<_> = on_path.map(|folder| folder.join("claude")).collect();
    if let Some(home) = path_in(env, "HOME") {
        found.extend(IN_HOME.iter().map(|below| home.join(below)));
        for (folder, below) in BY_NODE {
            let versions = fs::read_dir(home.join(folder)).into_iter().flatten().flatten();
            found.extend(versions.map(|version| version.path().join(below)));
        }
    }
    found.extend(OF_THE_SYSTEM.iter().map(PathBuf::from));
    found
}

/// The version by the package of the file, by its name, or by running it.
fn version(path: &Path, file: &Path) -> Option<Version> {
    let by_package = file.ancestors().skip(1).take(3).find_map(|folder| of_package(&folder.join("package.json")));
    // The native installer keeps `versions/2.1.101`.
    let by_name = || file.parent()?.ends_with("versions").then(|| Version::parse(file.file_name()?.to_str()?))?;
    by_package.or_else(by_name).or_else(|| version_by_running(path))
}

fn of_package(path: &Path) -> Option<Version> {
    const MAX: u64 = 1 << 20;
    let (_, reader) = small_file::open(path, MAX)?;
    let input = Input::read(reader, &["name", "version"]);
    let is_claude = input.text("name")?.starts_with("@anthropic-ai/claude-code");
    Version::parse(input.text("version").filter(|_| is_claude)?)
}

/// The version that `claude --version` prints before the timeout. Its process group is killed afterwards.
fn version_by_running(program: &Path) -> Option<Version> {
    const MAX: u64 = 4096;
    let mut command = Command::new(program);
    command.arg("--version").process_group(0);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    let stdout = child.stdout.take()?;
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut text = Vec::new();
        let _ = stdout.take(MAX).read_to_end(&mut text);
        let _ = send.send(text);
    });
    let deadline = Instant::now() + VERSION_TIMEOUT;
    let text = receive.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    let _ = child.wait();
    Version::parse(&String::from_utf8_lossy(&text.ok()?))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn claude(version: Option<&str>) -> Installed {
        Installed { path: "/bin/claude".into(), version: version.and_then(Version::parse) }
    }

    #[test]
    fn versions_are_read() {
        for (text, version) in [
            ("2.1.332 (Claude Code)\n", Some(Version(2, 1, 332))),
            ("v2.0.76", Some(Version(2, 0, 76))),
            ("2.1.0-beta.1", Some(Version(2, 1, 0))),
            ("2.1", None),
            ("claude: error", None),
            ("", None),
        ] {
            assert_eq!(Version::parse(text), version, "{text}");
        }
        assert!(Version(2, 1, 100) > Version(2, 1, 99));
    }

    #[test]
    fn oldest_version_decides_which_events_are_installed() {
        let has = |installed: &[Installed], event| events(installed).0.contains(&event);
        assert!(has(&[claude(Some("2.1.332"))], HookEvent::PostCompact));
        assert!(has(&[claude(Some("2.1.75"))], HookEvent::PostCompact));
        assert!(!has(&[claude(Some("2.1.74"))], HookEvent::PostCompact));
        assert!(!has(&[claude(Some("2.1.332")), claude(Some("2.0.76"))], HookEvent::PostCompact));
        assert!(!has(&[claude(Some("2.1.332")), claude(None)], HookEvent::PostCompact));
        assert!(!has(&[], HookEvent::PostCompact));
        assert!(!has(&[claude(Some("1.0.60"))], HookEvent::SessionEnd));
        for (event, refused, accepted) in [
            (HookEvent::PermissionRequest, "2.0.44", "2.0.45"),
            (HookEvent::Elicitation, "2.1.75", "2.1.76"),
            (HookEvent::StopFailure, "2.1.77", "2.1.78"),
            (HookEvent::PostToolUseFailure, "2.1.100", "2.1.101"),
        ] {
            assert!(!has(&[claude(Some(refused))], event), "{event:?}");
            assert!(!has(&[claude(Some(accepted)), claude(None)], event), "{event:?}");
            assert!(has(&[claude(Some(accepted))], event), "{event:?}");
        }
        assert_eq!(events(&[claude(Some("2.1.101"))]).0, HookEvent::INSTALLED);
        for installed in [&[][..], &[claude(None)], &[claude(Some("2.0.76"))]] {
            let (taken, left_out) = events(installed);
            assert_eq!(taken.len() + left_out.len(), HookEvent::INSTALLED.len());
            assert!(left_out.iter().any(|left| left.event == HookEvent::PostCompact), "{left_out:?}");
            assert!(left_out[0].reason.contains("ignore all of its settings"), "{left_out:?}");
        }
    }

    #[test]
    fn installed_versions_are_found_by_package_name_or_running() {
        let dir = tempfile::tempdir().unwrap();
        let home = fs::canonicalize(dir.path()).unwrap();
        let write = |path: &str, text: &str| {
            let path = home.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        write("lib/node_modules/@anthropic-ai/claude-code/cli.js", "#!/bin/sh\nexit 1\n");
        let package = r#"{"name": "@anthropic-ai/claude-code", "version": "2.1.70", "bin": {"claude": "cli.js"}}"#;
        write("lib/node_modules/@anthropic-ai/claude-code/package.json", package);
        fs::create_dir(home.join("bin")).unwrap();
        symlink("../lib/node_modules/@anthropic-ai/claude-code/cli.js", home.join("bin/claude")).unwrap();
        write(".local/share/claude/versions/2.1.101", "#!/bin/sh\nexit 1\n");
        fs::create_dir_all(home.join(".local/bin")).unwrap();
        symlink("../share/claude/versions/2.1.101", home.join(".local/bin/claude")).unwrap();
        write("other/claude", "#!/bin/sh\necho '2.0.76 (Claude Code)'\n");
        write(".nvm/versions/node/v22.1.0/bin/claude", "#!/bin/sh\necho broken\n");
        let env = |name: &str| match name {
            "HOME" => Some(home.clone().into_os_string()),
            "PATH" => Some(OsString::from(format!("{0}/none:relative:{0}/other:{0}/bin:{0}/bin", home.display()))),
            _ => None,
        };
        let found = installed(&env).into_iter().filter(|found| found.path.starts_with(&home));
        let found: Vec<_> = found.map(|found| found.version.map(|version| version.to_string())).collect();
        let expected = [Some("2.0.76"), Some("2.1.70"), Some("2.1.101"), None];
        assert_eq!(found, expected.map(|version| version.map(str::to_owned)));
    }
}
