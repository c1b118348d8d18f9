//! Installs sessiond as a service of this machine or of one user.
//!
//! `systemd` and `launchd` list the files and commands (steps) that it takes; `steps` executes those that are not done
//! yet. So installing again updates an installation, and a failed installation is continued by repeating it.

mod launchd;
mod setup;
mod steps;
mod systemd;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::client::{Client, Endpoint};
use crate::platform::default_paths::{DefaultPaths, Env, Os};
use crate::platform::program::installed_path;
use crate::wire::{ErrorCode, ErrorDetail, StatusBody};
pub use setup::Setup;

/// The exit codes after which a restart does not help: no permission, wrong configuration or identity. The unit has them
/// in RestartPreventExitStatus=.
pub const PERMANENT_EXIT_CODES: [u8; 2] = [77, 78];

/// The files in which LoadCredential= of sessiond.service finds central's password. `install` writes the first. Only root
/// can read these folders.
pub const CREDENTIAL_FILES: [&str; 2] =
    ["/etc/credstore/sessiond.central-password", "/run/credstore/sessiond.central-password"];

/// Whether it is the service of the machine or of one user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The service of one user.
    User,
    /// The service of the machine.
    System,
}

/// The machine and user for which the service is installed.
pub struct InstallTarget {
    /// The system, and so its service manager.
    pub os: Os,
    /// Whose service it is.
    pub scope: Scope,
    /// The user who installs it.
    pub uid: u32,
    /// The user's home; `None` if the environment names none.
    pub home: Option<PathBuf>,
    /// The path of the program that the service runs; see [`installed_path`].
    pub program: PathBuf,
    /// Where configuration, state and socket are.
    pub paths: DefaultPaths,
    /// The version of systemd, if systemd runs this machine.
    pub systemd: Option<u32>,
    /// Whether the units were installed by a package.
    pub packaged: bool,
}

/// The folders in which packages install units.
const PACKAGE_UNIT_FOLDERS: [&str; 2] = ["/usr/lib/systemd", "/lib/systemd"];

impl InstallTarget {
    /// Detects the properties of this machine.
    pub fn detect(scope: Scope, uid: u32, env: Env<'_>) -> Self {
        let program = installed_path();
        let folder = if scope == Scope::System { "system" } else { "user" };
        let unit = |dir: &&str| Path::new(dir).join(folder).join("sessiond.service").exists();
        Self {
            os: Os::here(),
            scope,
            uid,
            home: crate::platform::default_paths::path_in(env, "HOME"),
            packaged: program == Path::new("/usr/bin/sessiond") && PACKAGE_UNIT_FOLDERS.iter().any(unit),
            program,
            paths: if scope == Scope::System {
                DefaultPaths::system(Os::here())
            } else {
                DefaultPaths::user(Os::here(), env)
            },
            systemd: Path::new("/run/systemd/system").is_dir().then(systemd::version).flatten(),
        }
    }

    fn socket(&self) -> Option<PathBuf> {
        self.paths.socket(self.paths.state_dir.as_deref())
    }

    /// # Errors
    /// This user cannot install or remove the service, or the machine has no systemd.
    fn check(&self) -> Result<(), ErrorDetail> {
        if self.scope == Scope::System && self.uid != 0 {
            let hint = "run it with sudo, or install it for your user with --user";
            return Err(error(ErrorCode::Forbidden, "only root may change the system service", hint));
        }
        if self.os == Os::Linux && self.systemd.is_none() {
            let hint = "run `sessiond run` by this machine's service manager";
            return Err(error(ErrorCode::Conflict, "this machine is not run by systemd", hint));
        }
        Ok(())
    }

    /// # Errors
    /// The program is in a folder that a system service cannot see (ProtectHome=, PrivateTmp=).
    fn check_program(&self) -> Result<(), ErrorDetail> {
        let hidden = ["/home", "/root", "/run/user", "/tmp", "/var/tmp"];
        // A visible symlink may point to a hidden file.
        let file = self.program.canonicalize().unwrap_or_else(|_| self.program.clone());
        let is_hidden = hidden.iter().any(|dir| self.program.starts_with(dir) || file.starts_with(dir));
        if self.os == Os::Linux && self.scope == Scope::System && is_hidden {
            let program = self.program.display();
            return Err(error(
                ErrorCode::Conflict,
                format!("the system service cannot see {program}"),
                format!("run `install -m 755 {program} /usr/local/bin/sessiond && /usr/local/bin/sessiond install`"),
            ));
        }
        Ok(())
    }
}

/// The daemon that runs while the service is installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunningDaemon {
    /// It runs the installed program, or there is none.
    Current,
    /// It runs another program, and is restarted.
    Outdated,
}

/// Installs or updates the service. Returns a report of what was done, or, on a dry run, of what would be done.
///
/// # Errors
/// A step failed, or the daemon does not respond after the start.
pub fn install(target: &InstallTarget, setup: &Setup, dry_run: bool) -> Result<Vec<String>, ErrorDetail> {
    if !dry_run {
        target.check()?;
        target.check_program()?;
    }
    let socket = target.socket().ok_or_else(home_not_set)?;
    let outdated = !dry_run && running(&socket).is_some_and(|status| !runs_program(&status, &target.program));
    let running = if outdated { RunningDaemon::Outdated } else { RunningDaemon::Current };
    let steps = match target.os {
        Os::Linux => systemd::install(target, setup, running)?,
        Os::MacOs => launchd::install(target, setup, running)?,
    };
    if dry_run {
        return Ok(steps::describe(&steps));
    }
    let mut report = steps::execute(&steps)?;
    let status = wait_for_daemon(&socket)?;
    if report.is_empty() {
        report.push("nothing to do: it is installed as it should be".into());
    }
    let daemon = status.daemon;
    let socket = steps::displayed(&socket);
    report.push(format!("sessiond {} answers on {socket}, as process {}", daemon.version, daemon.pid));
    if target.os == Os::Linux && target.scope == Scope::System {
        report.push("to let a user use it, add the user to its group: adduser NAME sessiond".into());
    }
    if target.os == Os::MacOs && target.scope == Scope::System {
        report.push("members of the group in socket.group may use it; in a new configuration that is admin".into());
    }
    if target.os == Os::Linux && target.scope == Scope::User {
        report.push("to keep it running while you are not logged in: loginctl enable-linger".into());
    }
    Ok(report)
}

/// Removes the service but not its data. Returns a report of what was done, and of the data's paths.
///
/// # Errors
/// A step failed.
pub fn uninstall(target: &InstallTarget, dry_run: bool) -> Result<Vec<String>, ErrorDetail> {
    if !dry_run {
        target.check()?;
    }
    if target.packaged {
        let hint = "run `apt remove sessiond`, which keeps the data too";
        return Err(error(ErrorCode::Conflict, "the service belongs to the package sessiond", hint));
    }
    let steps = match target.os {
        Os::Linux => systemd::uninstall(target)?,
        Os::MacOs => launchd::uninstall(target)?,
    };
    let mut report = if dry_run { steps::describe(&steps) } else { steps::execute(&steps)? };
    if report.is_empty() {
        report.push("nothing to do: no service is installed".into());
    }
    let credential = Path::new(CREDENTIAL_FILES[0]);
    let left = [
        target.paths.state_dir.as_deref(),
        target.paths.config_file.as_deref().and_then(Path::parent),
        (target.scope == Scope::System && target.os == Os::Linux && credential.exists()).then_some(credential),
    ];
    let left: Vec<_> = left.into_iter().flatten().map(steps::displayed).collect();
    report.push(format!("left as they are, to be removed by hand: {}", left.join(" and ")));
    Ok(report)
}

fn home_not_set() -> ErrorDetail {
    error(ErrorCode::Configuration, "HOME is not set, so the user's folders are unknown", "set HOME")
}

fn error(code: ErrorCode, message: impl Into<String>, hint: impl Into<String>) -> ErrorDetail {
    ErrorDetail { code, message: message.into(), hint: hint.into() }
}

fn running(socket: &Path) -> Option<StatusBody> {
    if !socket.exists() {
        return None;
    }
    Client::new(Endpoint::at(socket)).timeout(Duration::from_secs(5)).status().ok()
}

/// Whether the running daemon runs this program's file: an upgrade replaces the file under the same name.
fn runs_program(status: &StatusBody, program: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let file = |path: &Path| std::fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    match file(Path::new(&format!("/proc/{}/exe", status.daemon.pid))) {
        Some(running) => file(program) == Some(running),
        // Without /proc, or as another user, only the version can be compared.
        None => status.daemon.version == env!("CARGO_PKG_VERSION"),
    }
}

/// Waits until the started daemon responds.
fn wait_for_daemon(socket: &Path) -> Result<StatusBody, ErrorDetail> {
    let deadline = Instant::now() + Duration::from_secs(20);
    let client = Client::new(Endpoint::at(socket)).timeout(Duration::from_secs(10));
    loop {
        match client.status() {
            Ok(status) => return Ok(status),
            Err(error) if Instant::now() >= deadline => {
                return Err(ErrorDetail {
                    message: format!("the service is installed, but does not respond: {}", error.message),
                    hint: "run `sessiond doctor`, which reports what to do".into(),
                    ..error
                });
            }
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

fn home_path(target: &InstallTarget, below: &str) -> Result<PathBuf, ErrorDetail> {
    target.home.as_ref().map(|home| home.join(below)).ok_or_else(home_not_set)
}

/// The words of a command line, split as by a shell.
fn words(command: &str) -> Vec<String> {
    shlex::split(command).unwrap_or_default()
}
