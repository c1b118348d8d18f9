//! Installing sessiond as a service of this machine or of one user: `systemd` and `launchd` say which files and
//! commands that takes, `steps` does what is not done yet.

mod launchd;
mod setup;
mod steps;
mod systemd;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::client::{Client, Endpoint};
use crate::platform::places::{Env, Os, Places};
use crate::platform::program::installed_path;
use crate::wire::{ErrorCode, ErrorDetail, StatusBody};
pub use setup::Setup;

/// The exit codes after which a restart cannot help: not allowed, configuration or identity. systemd knows them as
/// RestartPreventExitStatus=.
pub const RESTART_CANNOT_HELP: [u8; 2] = [77, 78];

/// Central's password, where sessiond.service's LoadCredential= finds it, the first that `install` writes. Only root can
/// read these folders.
pub const CREDENTIALS: [&str; 2] =
    ["/etc/credstore/sessiond.central-password", "/run/credstore/sessiond.central-password"];

/// Whose service it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    User,
    System,
}

/// Where it is installed.
pub struct Site {
    pub os: Os,
    pub scope: Scope,
    pub uid: u32,
    pub home: Option<PathBuf>,
    /// The path of this binary that the service will run: as it was called, so that it outlives an upgrade.
    pub program: PathBuf,
    pub places: Places,
    /// The version of systemd, where systemd runs the machine.
    pub systemd: Option<u32>,
    /// Has a package put the units in place?
    pub packaged: bool,
}

const UNITS_OF_PACKAGES: [&str; 2] = ["/usr/lib/systemd", "/lib/systemd"];

impl Site {
    /// This machine, as it is.
    pub fn here(scope: Scope, uid: u32, env: Env<'_>) -> Self {
        let program = installed_path();
        let folder = if scope == Scope::System { "system" } else { "user" };
        let unit = |dir: &&str| Path::new(dir).join(folder).join("sessiond.service").exists();
        Self {
            os: Os::here(),
            scope,
            uid,
            home: crate::platform::places::path_in(env, "HOME"),
            packaged: program == Path::new("/usr/bin/sessiond") && UNITS_OF_PACKAGES.iter().any(unit),
            program,
            places: if scope == Scope::System { Places::system(Os::here()) } else { Places::user(Os::here(), env) },
            systemd: Path::new("/run/systemd/system").is_dir().then(systemd::version).flatten(),
        }
    }

    fn socket(&self) -> Option<PathBuf> {
        self.places.socket(self.places.state_dir.as_deref())
    }

    /// # Errors
    /// What keeps a service from being installed or removed here.
    fn check(&self) -> Result<(), ErrorDetail> {
        if self.scope == Scope::System && self.uid != 0 {
            let hint = "run it with sudo, or install it for yourself with --user";
            return Err(refusal(ErrorCode::Forbidden, "only root may change the system service", hint));
        }
        if self.os == Os::Linux && self.systemd.is_none() {
            let hint = "start `sessiond run` by whatever starts services here";
            return Err(refusal(ErrorCode::Conflict, "this machine is not run by systemd", hint));
        }
        Ok(())
    }

    /// A system service sees neither homes nor the machine's /tmp.
    fn check_program(&self) -> Result<(), ErrorDetail> {
        let hidden = ["/home", "/root", "/run/user", "/tmp", "/var/tmp"];
        // A link that the service sees may lead to a file that it does not.
        let file = self.program.canonicalize().unwrap_or_else(|_| self.program.clone());
        let is_hidden = hidden.iter().any(|dir| self.program.starts_with(dir) || file.starts_with(dir));
        if self.os == Os::Linux && self.scope == Scope::System && is_hidden {
            let program = self.program.display();
            return Err(refusal(
                ErrorCode::Conflict,
                format!("{program} lies where the system service cannot see it"),
                format!("run `install -m 755 {program} /usr/local/bin/sessiond && /usr/local/bin/sessiond install`"),
            ));
        }
        Ok(())
    }
}

/// Installs, or brings up to date what is installed; says what was done. On a dry run, says what would be.
///
/// # Errors
/// A step that failed, or a daemon that does not answer in the end.
pub fn install(site: &Site, setup: &Setup, dry_run: bool) -> Result<Vec<String>, ErrorDetail> {
    if !dry_run {
        site.check()?;
        site.check_program()?;
    }
    let socket = site.socket().ok_or_else(homeless)?;
    let outdated = !dry_run && running(&socket).is_some_and(|status| !is_this(&status, &site.program));
    let steps = match site.os {
        Os::Linux => systemd::install(site, setup, outdated)?,
        Os::MacOs => launchd::install(site, setup, outdated)?,
    };
    let mut said = steps::carry_out(&steps, dry_run)?;
    if dry_run {
        return Ok(said);
    }
    let status = await_answer(&socket)?;
    if said.is_empty() {
        said.push("nothing to do: it is installed as it should be".into());
    }
    let daemon = status.daemon;
    said.push(format!("sessiond {} answers on {}, as process {}", daemon.version, steps::shown(&socket), daemon.pid));
    if site.os == Os::Linux && site.scope == Scope::System {
        said.push("put those who shall use it into its group: adduser NAME sessiond".into());
    }
    if site.os == Os::MacOs && site.scope == Scope::System {
        said.push("members of the group that socket.group names may use it; a new configuration names admin".into());
    }
    if site.os == Os::Linux && site.scope == Scope::User {
        said.push("to have it run while you are not logged in: loginctl enable-linger".into());
    }
    Ok(said)
}

/// Removes the service, and leaves the data; says what was done, and where the data is.
///
/// # Errors
/// A step that failed.
pub fn uninstall(site: &Site, dry_run: bool) -> Result<Vec<String>, ErrorDetail> {
    if !dry_run {
        site.check()?;
    }
    if site.packaged {
        let hint = "run `apt remove sessiond`; that, too, leaves the data";
        return Err(refusal(ErrorCode::Conflict, "the service belongs to the package sessiond", hint));
    }
    let steps = match site.os {
        Os::Linux => systemd::uninstall(site)?,
        Os::MacOs => launchd::uninstall(site)?,
    };
    let mut said = steps::carry_out(&steps, dry_run)?;
    if said.is_empty() {
        said.push("nothing to do: no service is installed".into());
    }
    let credential = Path::new(CREDENTIALS[0]);
    let left = [
        site.places.state_dir.as_deref(),
        site.places.config_file.as_deref().and_then(Path::parent),
        (site.scope == Scope::System && site.os == Os::Linux && credential.exists()).then_some(credential),
    ];
    let left: Vec<_> = left.into_iter().flatten().map(steps::shown).collect();
    said.push(format!("left as they are, to be removed by hand: {}", left.join(" and ")));
    Ok(said)
}

fn homeless() -> ErrorDetail {
    refusal(ErrorCode::Configuration, "HOME is not set, so nobody knows whose service it would be", "set HOME")
}

fn refusal(code: ErrorCode, message: impl Into<String>, hint: impl Into<String>) -> ErrorDetail {
    ErrorDetail { code, message: message.into(), hint: hint.into() }
}

fn running(socket: &Path) -> Option<StatusBody> {
    if !socket.exists() {
        return None;
    }
    Client::new(Endpoint::at(socket)).timeout(Duration::from_secs(5)).status().ok()
}

/// Is it this very program that runs? An upgrade puts another file under the same name.
fn is_this(status: &StatusBody, program: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let file = |path: &Path| std::fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    match file(Path::new(&format!("/proc/{}/exe", status.daemon.pid))) {
        Some(running) => file(program) == Some(running),
        // Nobody here can tell but by the version.
        None => status.daemon.version == env!("CARGO_PKG_VERSION"),
    }
}

/// Waits until the daemon that was just started answers.
fn await_answer(socket: &Path) -> Result<StatusBody, ErrorDetail> {
    let deadline = Instant::now() + Duration::from_secs(20);
    let client = Client::new(Endpoint::at(socket)).timeout(Duration::from_secs(10));
    loop {
        match client.status() {
            Ok(status) => return Ok(status),
            Err(error) if Instant::now() >= deadline => {
                return Err(ErrorDetail {
                    message: format!("it is installed, but does not answer: {}", error.message),
                    hint: "run `sessiond doctor`, which says what to do".into(),
                    ..error
                });
            }
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

fn in_home(site: &Site, below: &str) -> Result<PathBuf, ErrorDetail> {
    site.home.as_ref().map(|home| home.join(below)).ok_or_else(homeless)
}

fn words(command: &str) -> Vec<String> {
    command.split_whitespace().map(str::to_owned).collect()
}
